"""Writing: what is written is read back, by hsfuse and by others, and what fails leaves nothing behind."""

from __future__ import annotations

import os
import resource
import signal
import tempfile
from pathlib import Path

import numpy as np
import pytest
import rasterio
import spectral
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.crs import CRS
from rasterio.windows import Window

from hsfuse.cube import Spectrum
from hsfuse.errors import HsfuseError, OutputError, SettingError
from hsfuse.grid import Grid
from hsfuse.io import CubeWriter, check_output, driver_of, open_cube, output_files
from hsfuse.io.encode import DTYPES, Encoding, default_nodata

RNG = np.random.default_rng(11)
NORTH_UP = Affine(10, 0, 600000, 0, -10, 5000000)
ROTATED = Affine.translation(6e5, 5e6) @ Affine.rotation(25) @ Affine.scale(10, -10)
GRID = Grid((300, 270), NORTH_UP, CRS.from_epsg(32633))
SPECTRUM = Spectrum((418.24, 550.123456, 1001.5), (5.25, 6.5, 7.0), ("blue", "green", "nir"), (True, False, True))


def scene(grid: Grid = GRID, bands: int = 3) -> tuple[np.ndarray, np.ndarray]:
    return RNG.random((bands, *grid.shape), dtype=np.float32), RNG.random(grid.shape) > 0.1


def write(path, data, mask, grid=GRID, spectrum=SPECTRUM, step=256, **options) -> CubeWriter:
    """The cube in windows of `step`."""
    rows, cols = grid.shape
    with CubeWriter(path, grid, spectrum, **options) as writer:
        for r in range(0, rows, step):
            for c in range(0, cols, step):
                part = np.s_[r : r + step, c : c + step]
                window = Window(c, r, min(step, cols - c), min(step, rows - r))
                writer.write(window, data[:, *part], mask[part])
    return writer


# What is written is read back


@pytest.mark.parametrize("name", ["a.tif", "a.hdr", "a.dat", "a.img"])
@pytest.mark.parametrize("transform", [NORTH_UP, ROTATED])
@pytest.mark.parametrize("step", [256, 90])
def test_float_cubes_come_back_exactly(tmp_path, name, transform, step):
    grid = Grid(GRID.shape, transform, GRID.crs)
    data, mask = scene(grid)
    write(tmp_path / name, data, mask, grid, step=step, tags={"method": "glp-reg", "HSFUSE_VERSION": "1"})
    with open_cube(tmp_path / name, role="HSI") as reader:
        read = reader.read()
    np.testing.assert_array_equal(read.mask, mask)
    np.testing.assert_array_equal(read.data, data * mask)
    assert reader.spectrum == SPECTRUM
    assert reader.grid.crs == grid.crs
    assert reader.grid.transform.almost_equals(transform, 1e-8)
    assert reader.tags == {"HSFUSE_METHOD": "glp-reg", "HSFUSE_VERSION": "1"}
    assert np.isnan(reader.nodata)
    assert reader.notes == []


@pytest.mark.parametrize("name", ["a.tif", "a.dat"])
@pytest.mark.parametrize(("dtype", "scale", "offset"), [
    ("int16", 1e-4, 0.0), ("uint16", 1e-4, 0.0), ("uint16", 2e-5, -0.1), ("uint8", 1 / 200, 0.0), ("int32", 1e-6, 0.0),
    ("uint32", 1e-6, 0.0), ("float64", 1.0, 0.0), ("float32", 1e-4, 0.0),
])  # fmt: skip
def test_scaled_types_come_back_within_half_a_step(tmp_path, name, dtype, scale, offset):
    data, mask = scene()
    write(tmp_path / name, data, mask, dtype=dtype, scale=scale, offset=offset)
    with open_cube(tmp_path / name) as reader:
        read = reader.read()
    assert (reader.dtype, reader.offset) == (dtype, offset)
    assert reader.scale == pytest.approx(scale, rel=1e-9)
    np.testing.assert_array_equal(read.mask, mask)
    assert np.abs(read.data - data * mask).max() <= (scale if dtype[0] != "f" else 0) / 2 + 3e-7


@pytest.mark.parametrize("name", ["a.tif", "a.dat"])
def test_a_cube_that_knows_little_comes_back_too(tmp_path, name):
    data, mask = scene(bands=4)
    write(tmp_path / name, data, mask, Grid(GRID.shape), Spectrum(None), bands=4, dtype="uint8", scale=0.01)
    with open_cube(tmp_path / name, role="MSI") as reader:
        assert reader.count == 4  # and not three bands and alpha
        assert reader.spectrum.wavelengths_nm is None
        assert not reader.grid.georeferenced
        np.testing.assert_array_equal(reader.read().mask, mask)


@pytest.mark.parametrize("name", ["a.tif", "a.dat"])
@pytest.mark.parametrize(
    ("dtype", "nodata"), [("int16", 0), ("int16", -99), ("uint16", 0), ("uint8", 255), ("float32", -9999)]
)
def test_an_inputs_nodata_is_kept_and_valid_pixels_stay_valid(tmp_path, name, dtype, nodata):
    data, mask = scene()
    data[:, 0, :3] = nodata, nodata, nodata
    mask[0, :3] = True
    write(tmp_path / name, data, mask, dtype=dtype, nodata=nodata)
    with open_cube(tmp_path / name) as reader:
        assert reader.nodata == nodata
        read = reader.read()
    np.testing.assert_array_equal(read.mask, mask)
    assert (np.abs(read.data[:, 0, :3] - nodata) <= 1).all()


@given(
    centres=st.lists(st.floats(300, 16000, width=32), min_size=1, max_size=12, unique=True),
    width=st.floats(0.5, 200),
    good=st.booleans(),
    name=st.sampled_from(["a.tif", "a.dat"]),
)
@settings(max_examples=60, deadline=None)
def test_any_list_of_wavelengths_comes_back(centres, width, good, name):
    spectrum = Spectrum(tuple(centres), (width,) * len(centres), None, (good,) * len(centres))
    grid = Grid((2, 3), NORTH_UP, GRID.crs)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        write(path, np.ones((len(centres), 2, 3), np.float32), np.ones((2, 3), bool), grid, spectrum)
        with open_cube(path, role="HSI") as reader:
            assert reader.spectrum.wavelengths_nm == pytest.approx(centres, rel=1e-11)
            assert reader.spectrum.fwhm_nm == pytest.approx(spectrum.fwhm_nm, rel=1e-11)
            assert reader.spectrum.good == spectrum.good
            assert len(reader.spectrum.names) == len(centres)


# Others read it


def test_geotiff_tells_wavelengths_in_each_place(tmp_path):
    data, mask = scene()
    write(tmp_path / "a.tif", data, mask, spectrum=Spectrum(SPECTRUM.wavelengths_nm, SPECTRUM.fwhm_nm))
    with rasterio.open(tmp_path / "a.tif") as ds:
        assert ds.descriptions == ("418.24 nm", "550.123456 nm", "1001.5 nm")
        assert ds.tags(2, ns="IMAGERY") == {"CENTRAL_WAVELENGTH_UM": "0.550123456", "FWHM_UM": "0.0065"}
        assert ds.tags(1) == {"wavelength": "418.24", "wavelength_units": "Nanometers", "fwhm": "5.25"}
        assert ds.tags()["wavelength"] == "{418.24, 550.123456, 1001.5}"
        assert ds.block_shapes[0] == (256, 256)
        assert ds.compression.name == "deflate"
    assert int.from_bytes((tmp_path / "a.tif").read_bytes()[4:8], "little") == 8  # directory first, as in a COG


def test_spectral_reads_the_envi_header(tmp_path):
    data, mask = scene()
    write(tmp_path / "a.dat", data, mask, dtype="int16", scale=1e-4, tags={"method": "a {b},\nc"})
    image = spectral.open_image(str(tmp_path / "a.hdr"))
    assert image.bands.centers == list(SPECTRUM.wavelengths_nm)
    assert image.bands.bandwidths == list(SPECTRUM.fwhm_nm)
    assert image.bands.band_unit == "Nanometers"
    assert image.scale_factor == 1e4
    assert image.metadata["bbl"] == [1, 0, 1]
    assert image.metadata["band names"] == list(SPECTRUM.names)
    assert image.metadata["data ignore value"] == "-32768"
    assert image.metadata["hsfuse method"] == "a %7Bb%7D,%0Ac"  # braces and line breaks would end the field
    with open_cube(tmp_path / "a.dat") as reader:
        assert reader.tags["HSFUSE_METHOD"] == "a {b},\nc"
    assert "UTM" in image.metadata["map info"]
    assert ".part" not in (tmp_path / "a.hdr").read_text()
    found = np.asarray(image.load(scale=False)).transpose(2, 0, 1)
    assert (found[:, ~mask] == -32768).all()
    np.testing.assert_allclose(found[:, mask], data[:, mask] * 1e4, atol=0.501)
    with rasterio.open(tmp_path / "a.dat") as ds:
        assert ds.crs == GRID.crs
        np.testing.assert_array_equal(ds.read(), found)


def test_names_with_commas_keep_their_place_in_an_envi_header(tmp_path):
    data, mask = scene()
    write(tmp_path / "a.dat", data, mask, spectrum=Spectrum(None, names=("red, left", "{x}", "c")))
    with open_cube(tmp_path / "a.dat") as reader:
        assert reader.spectrum.names == ("red; left", "(x)", "c")


# Numbers on disk


@pytest.mark.parametrize("dtype", DTYPES)
def test_valid_values_are_clipped_and_never_equal_nodata(dtype):
    encoding = Encoding(dtype, nodata=default_nodata(dtype))
    data = np.array([[[-1e12, 1e12, 0.4, 0.6, np.nan, np.inf, 3]]], np.float32)
    mask = np.array([[True] * 6 + [False]])
    raw = encoding.encode(data, mask)[0, 0]
    assert raw.dtype == dtype
    blank = np.isnan(raw) if dtype[0] == "f" else raw == encoding.nodata
    assert blank.tolist() == [False, False, False, False, True, True, True]
    if dtype[0] != "f":
        info = np.iinfo(dtype)
        low, high = info.min + (info.min == encoding.nodata), info.max - (info.max == encoding.nodata)
        assert raw[:4].tolist() == [low, high, 0, 1]
    assert np.isnan(data[0, 0, 4])  # the caller's array is left alone


@pytest.mark.parametrize(("options", "message"), [
    ({"dtype": "int64"}, "int64"), ({"scale": 0.0}, "positive scale"), ({"scale": float("nan")}, "positive scale"),
    ({"dtype": "uint8", "nodata": -1}, "doesn't fit"), ({"dtype": "int16", "nodata": float("nan")}, "doesn't fit"),
])  # fmt: skip
def test_settings_that_make_no_sense(tmp_path, options, message):
    with pytest.raises(SettingError, match=message):
        CubeWriter(tmp_path / "a.tif", GRID, SPECTRUM, **options)


# Names of outputs


def test_format_by_suffix_or_name(tmp_path):
    assert [driver_of(f"a{s}") for s in (".tif", ".TIFF", ".dat", ".img", ".bsq", ".hdr", ".envi")] == ["GTiff"] * 2 + [
        "ENVI"
    ] * 5
    assert driver_of("a.xyz", "envi") == "ENVI"
    assert output_files("x/a.hdr") == (Path("x/a.dat"), Path("x/a.hdr"))
    with pytest.raises(SettingError, match=r"\.tif"):
        driver_of("a.png")
    with pytest.raises(SettingError, match="GTiff, ENVI"):
        driver_of("a.tif", "jpeg")


def test_format_overrides_the_suffix(tmp_path):
    data, mask = scene()
    write(tmp_path / "a.tif", data, mask, driver="ENVI")
    with open_cube(tmp_path / "a.tif") as reader:
        assert reader.driver == "ENVI"
        np.testing.assert_array_equal(reader.read().data, data * mask)


def test_an_output_that_is_an_input_is_refused(tmp_path):
    data, mask = scene()
    write(tmp_path / "in.img", data, mask)
    write(tmp_path / "in.tif", data, mask)
    (tmp_path / "soft.tif").symlink_to(tmp_path / "in.tif")
    os.link(tmp_path / "in.tif", tmp_path / "hard.tif")
    for output, source in [
        ("in.tif", "in.tif"), ("soft.tif", "in.tif"), ("hard.tif", "in.tif"), ("in.tif", "soft.tif"),
        ("in.img", "in.img"), ("in.hdr", "in.img"), ("in.img", "in.hdr"), ("in.dat", "in.img"), ("in.dat", "in.hdr"),
    ]:  # fmt: skip
        with pytest.raises(OutputError, match="is the input"):
            check_output(tmp_path / output, [tmp_path / source], overwrite=True)
    check_output(tmp_path / "in.dat", [tmp_path / "in.tif"], overwrite=True)  # a TIFF beside an ENVI pair of its name
    check_output(tmp_path / "out.tif", [tmp_path / "in.img", tmp_path / "in.tif"])


def test_existing_outputs_and_folders(tmp_path):
    (tmp_path / "a.tif").write_text("old")
    (tmp_path / "b.hdr").write_text("old")
    (tmp_path / "c.dat.hdr").write_text("old")
    (tmp_path / "dangling.tif").symlink_to(tmp_path / "nowhere")
    for name in ("a.tif", "b.dat", "c.dat", "dangling.tif"):
        with pytest.raises(OutputError, match="exists already"):
            CubeWriter(tmp_path / name, GRID, SPECTRUM)
        check_output(tmp_path / name, overwrite=True)
    with pytest.raises(OutputError, match="doesn't exist"):
        check_output(tmp_path / "none" / "a.tif")
    (tmp_path / "d.tif").mkdir()
    with pytest.raises(OutputError, match="is a folder"):
        check_output(tmp_path / "d.tif", overwrite=True)


def test_a_folder_without_write_permission(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: not mode & os.W_OK)  # root may always write
    with pytest.raises(OutputError, match="can't be written"):
        check_output(tmp_path / "a.tif")


@pytest.mark.parametrize("name", ["a.tif", "a.dat"])
def test_overwriting_drops_what_the_old_files_left(tmp_path, name):
    data, mask = scene()
    write(tmp_path / name, data, mask)
    for suffix in (".aux.xml", ".ovr", ".msk") + ((".hdr",) if name == "a.dat" else ()):
        Path(f"{tmp_path / name}{suffix}").write_text("stale")
    write(tmp_path / name, 1 - data, mask, overwrite=True)
    assert {p.name for p in tmp_path.iterdir()} == {p.name for p in output_files(tmp_path / name)}
    with open_cube(tmp_path / name) as reader:
        np.testing.assert_array_equal(reader.read().data, (1 - data) * mask)


# Failing leaves nothing


@pytest.mark.parametrize("name", ["a.tif", "a.dat"])
@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
@pytest.mark.parametrize("old", [False, True])
def test_interrupted_writing_leaves_what_was_there(tmp_path, name, error, old):
    data, mask = scene()
    if old:
        write(tmp_path / name, data, mask)
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}

    def interrupted() -> None:
        with CubeWriter(tmp_path / name, GRID, SPECTRUM, overwrite=True) as writer:
            writer.write(Window(0, 0, 256, 256), data[:, :256, :256], mask[:256, :256])
            assert any(".part" in p.name and p.name.startswith(".") for p in tmp_path.iterdir())
            raise error

    with pytest.raises(error):
        interrupted()
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before


@pytest.mark.parametrize("name", ["a.tif", "a.dat"])
def test_a_cube_written_in_part_is_no_result(tmp_path, name):
    data, mask = scene()
    with (
        pytest.raises(OutputError, match="65536 of 81000 pixels"),
        CubeWriter(tmp_path / name, GRID, SPECTRUM) as writer,
    ):
        writer.write(Window(0, 0, 256, 256), data[:, :256, :256], mask[:256, :256])
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def file_size_limit():
    """Files can't grow past 300 kB, which for a writer is a full disk."""
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, old[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, old)
    signal.signal(signal.SIGXFSZ, handler)


@pytest.mark.parametrize("name", ["a.tif", "a.dat"])
@pytest.mark.parametrize("step", [256, 90])
def test_a_full_disk_is_told_and_leaves_nothing(tmp_path, file_size_limit, name, step):
    data, mask = scene()
    with pytest.raises(OutputError, match="couldn't be written") as caught:
        write(tmp_path / name, data, mask, step=step)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_nearly_full_disk_stops_geotiff_before_gdal_meets_it(tmp_path, monkeypatch, capfd):
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage)
    with pytest.raises(OutputError, match="No space left"):
        write(tmp_path / "a.tif", *scene())
    assert list(tmp_path.iterdir()) == []
    assert capfd.readouterr().err == ""


def test_a_sheared_grid_is_refused_for_envi(tmp_path):
    grid = Grid((4, 4), Affine(10, 3, 0, 0, -10, 0), GRID.crs)
    with pytest.raises(HsfuseError, match="GeoTIFF"), CubeWriter(tmp_path / "a.dat", grid, SPECTRUM):
        pass
    assert list(tmp_path.iterdir()) == []

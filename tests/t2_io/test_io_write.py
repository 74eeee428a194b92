"""Writing: what is written is read back, by hsfuse and by others, and what fails leaves nothing behind."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pytest
import rasterio
import spectral
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from rasters import GRID, NORTH_UP, SPECTRUM, scene, write_cube

from hsfuse.core.cube import Spectrum
from hsfuse.core.errors import SettingError
from hsfuse.core.grid import Grid
from hsfuse.io import CubeWriter, open_cube
from hsfuse.io.sinks import DTYPES, Storage, default_nodata

ROTATED = Affine.translation(6e5, 5e6) @ Affine.rotation(25) @ Affine.scale(10, -10)


# What is written is read back


@pytest.mark.parametrize("name", ["a.tif", "a.hdr", "a.dat", "a.img"])
@pytest.mark.parametrize("transform", [NORTH_UP, ROTATED])
@pytest.mark.parametrize("step", [256, 90])
def test_float_cubes_come_back_exactly(tmp_path, name, transform, step):
    grid = Grid(GRID.shape, transform, GRID.crs)
    data, mask = scene(grid)
    write_cube(tmp_path / name, data, mask, grid, step=step, tags={"method": "a = {b} % c", "HSFUSE_VERSION": "1"})
    with open_cube(tmp_path / name, role="HSI") as reader:
        read = reader.read()
    np.testing.assert_array_equal(read.mask, mask)
    np.testing.assert_array_equal(read.data, data * mask)
    assert reader.spectrum == SPECTRUM
    assert reader.grid.crs == grid.crs
    assert reader.grid.transform.almost_equals(transform, 1e-8)
    assert reader.tags == {"HSFUSE_METHOD": "a = {b} % c", "HSFUSE_VERSION": "1"}
    assert np.isnan(reader.nodata)
    assert reader.notes == []


@pytest.mark.parametrize("name", ["a.tif", "a.dat"])
@pytest.mark.parametrize(("dtype", "scale", "offset"), [
    ("int16", 1e-4, 0.0), ("uint16", 1e-4, 0.0), ("uint16", 2e-5, -0.1), ("uint8", 1 / 200, 0.0), ("int32", 1e-6, 0.0),
    ("uint32", 1e-6, 0.0), ("float64", 1.0, 0.0), ("float32", 1e-4, 0.0),
])  # fmt: skip
def test_scaled_types_come_back_within_half_a_step(tmp_path, name, dtype, scale, offset):
    data, mask = scene()
    write_cube(tmp_path / name, data, mask, dtype=dtype, scale=scale, offset=offset)
    with open_cube(tmp_path / name) as reader:
        read = reader.read()
    assert (reader.dtype, reader.offset) == (dtype, offset)
    assert reader.scale == pytest.approx(scale, rel=1e-9)
    np.testing.assert_array_equal(read.mask, mask)
    assert np.abs(read.data - data * mask).max() <= (scale if dtype[0] != "f" else 0) / 2 + 3e-7


@pytest.mark.parametrize("name", ["a.tif", "a.dat", "a.zarr"])
@pytest.mark.parametrize("quantity", ["reflectance", "radiance", "height"])
def test_what_the_values_are_comes_back(tmp_path, name, quantity):
    write_cube(tmp_path / name, *scene(), tags={"quantity": quantity}, dtype="int16", scale=2e-4)
    with open_cube(tmp_path / name) as reader:
        assert reader.quantity == (quantity if quantity != "height" else "unknown")
        assert reader.scale == pytest.approx(2e-4)


@pytest.mark.parametrize("name", ["a.tif", "a.dat"])
def test_a_cube_that_knows_little_comes_back_too(tmp_path, name):
    data, mask = scene(bands=4)
    write_cube(tmp_path / name, data, mask, Grid(GRID.shape), Spectrum(None), bands=4, dtype="uint8", scale=0.01)
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
    write_cube(tmp_path / name, data, mask, dtype=dtype, nodata=nodata)
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
        write_cube(path, np.ones((len(centres), 2, 3), np.float32), np.ones((2, 3), bool), grid, spectrum)
        with open_cube(path, role="HSI") as reader:
            assert reader.spectrum.wavelengths_nm == pytest.approx(centres, rel=1e-11)
            assert reader.spectrum.fwhm_nm == pytest.approx(spectrum.fwhm_nm, rel=1e-11)
            assert reader.spectrum.good == spectrum.good
            assert len(reader.spectrum.names) == len(centres)


# Others read it


@pytest.mark.parametrize("driver", ["GTiff", "COG"])
def test_geotiff_tells_wavelengths_in_each_place(tmp_path, driver):
    data, mask = scene()
    spectrum = Spectrum(SPECTRUM.wavelengths_nm, SPECTRUM.fwhm_nm)
    write_cube(tmp_path / "a.tif", data, mask, spectrum=spectrum, driver=driver)
    with rasterio.open(tmp_path / "a.tif") as ds:
        assert ds.descriptions == ("418.24 nm", "550.123456 nm", "1001.5 nm")
        assert ds.tags(2, ns="IMAGERY") == {"CENTRAL_WAVELENGTH_UM": "0.550123456", "FWHM_UM": "0.0065"}
        assert ds.tags(1) == {"wavelength": "418.24", "wavelength_units": "Nanometers", "fwhm": "5.25"}
        assert ds.tags()["wavelength"] == "{418.24, 550.123456, 1001.5}"
        assert ds.block_shapes[0] == ((256, 256) if driver == "GTiff" else (128, 128))
        assert ds.compression.name == "deflate"
    if driver == "COG":
        return
    assert int.from_bytes((tmp_path / "a.tif").read_bytes()[4:8], "little") == 8  # directory first, as in a COG


def test_spectral_reads_the_envi_header(tmp_path):
    data, mask = scene()
    write_cube(tmp_path / "a.dat", data, mask, dtype="int16", scale=1e-4, tags={"method": "a {b},\nc"})
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
        assert (ds.tags(2)["wavelength"], ds.tags(2)["wavelength_units"]) == ("550.123456", "Nanometers")
        if tuple(map(int, rasterio.__gdal_version__.split(".")[:2])) >= (3, 10):  # which derives it, rounded
            told = [float(ds.tags(2, ns="IMAGERY")[key]) for key in ("CENTRAL_WAVELENGTH_UM", "FWHM_UM")]
            assert told == pytest.approx((0.550123, 0.0065), abs=0.00051)
        assert ds.crs == GRID.crs
        np.testing.assert_array_equal(ds.read(), found)


def test_names_with_commas_keep_their_place_in_an_envi_header(tmp_path):
    data, mask = scene()
    write_cube(tmp_path / "a.dat", data, mask, spectrum=Spectrum(None, names=("red, left", "{x}", "c")))
    with open_cube(tmp_path / "a.dat") as reader:
        assert reader.spectrum.names == ("red; left", "(x)", "c")


# Numbers on disk


@pytest.mark.parametrize("dtype", DTYPES)
def test_valid_values_are_clipped_and_never_equal_nodata(dtype):
    encoding = Storage(dtype=dtype, nodata=default_nodata(dtype))
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
    ({"scale": 1e-300}, "positive scale"), ({"scale": 1e300}, "positive scale"), ({"offset": 1e300}, "offset"),
    ({"dtype": "uint8", "nodata": -1}, "doesn't fit"), ({"dtype": "int16", "nodata": float("nan")}, "doesn't fit"),
])  # fmt: skip
def test_settings_that_make_no_sense(tmp_path, options, message):
    with pytest.raises(SettingError, match=message):
        CubeWriter(tmp_path / "a.tif", GRID, SPECTRUM, Storage(**options))

"""Reading: ENVI in all its layouts, wavelengths wherever files put them, masks, scales, and bad input in one line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from rasterio.windows import Window

from hsfuse.errors import InputError
from hsfuse.io import check_valid, open_cube, usable_bands
from hsfuse.io.envi import read_header
from hsfuse.io.units import to_nm, unit_factor, widths_to_nm

RNG = np.random.default_rng(7)
UTM = "map info = {UTM, 1, 1, 500000, 5000000, 10, 10, 33, North, WGS-84, units=Meters}"
TYPES = {"uint8": 1, "int16": 2, "int32": 3, "float32": 4, "float64": 5, "uint16": 12}
ORDERS = {"bsq": (0, 1, 2), "bil": (1, 0, 2), "bip": (1, 2, 0)}


def write_envi(data: Path, cube: np.ndarray, *fields: str, interleave="bsq", big=False, header=None, skip=0) -> Path:
    """An ENVI pair from (C, H, W), header and bytes made here and not by GDAL."""
    c, h, w = cube.shape
    raw = np.ascontiguousarray(cube.transpose(ORDERS[interleave])).astype(cube.dtype.newbyteorder(">" if big else "<"))
    data.write_bytes(b"x" * skip + raw.tobytes())
    lines = [
        "ENVI", f"samples = {w}", f"lines   = {h}", f"bands   = {c}", f"header offset = {skip}",
        "file type = ENVI Standard", f"data type = {TYPES[cube.dtype.name]}", f"interleave = {interleave}",
        f"byte order = {int(big)}", *fields,
    ]  # fmt: skip
    header = header or data.with_suffix(".hdr")
    header.write_text("\n".join(lines) + "\n")
    return header


def write_tif(path: Path, cube: np.ndarray, **profile) -> Path:
    """A GeoTIFF from (C, H, W) by plain rasterio."""
    c, h, w = cube.shape
    place = {"crs": "EPSG:32633", "transform": Affine(10, 0, 500000, 0, -10, 5000000)}
    options = {"count": c, "height": h, "width": w, "dtype": cube.dtype.name, **place, **profile}
    with rasterio.open(path, "w", driver="GTiff", **options) as ds:
        ds.write(cube)
    return path


def integers(dtype="int16", shape=(3, 5, 4)) -> np.ndarray:
    return RNG.integers(1, 250, shape).astype(dtype)


def nm(*values: float, units="Nanometers") -> tuple[str, str]:
    return f"wavelength = {{{', '.join(map(str, values))}}}", f"wavelength units = {units}"


# ENVI layouts


@pytest.mark.parametrize("dtype", ["int16", "uint16", "float32"])
@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize("interleave", ["bsq", "bil", "bip"])
def test_each_envi_layout_gives_the_same_cube(tmp_path, interleave, big, dtype):
    cube = integers(dtype)
    header = write_envi(tmp_path / "scene.dat", cube, *nm(450, 550, 650), interleave=interleave, big=big, skip=7)
    with open_cube(header, role="HSI") as reader:
        whole = reader.read()
        part = reader.read(Window(1, 2, 3, 2), bands=[2, 0])
    assert reader.dtype == dtype
    np.testing.assert_array_equal(whole.data, cube)
    np.testing.assert_array_equal(part.data, cube[[2, 0], 2:4, 1:4])
    assert part.spectrum.wavelengths_nm == (650.0, 450.0)
    assert whole.mask.all()


@pytest.mark.parametrize(
    "name", ["scene", "scene.dat", "scene.img", "scene.bsq", "scene.bil", "scene.raw", "scene.BIP"]
)
@pytest.mark.parametrize("added", [False, True])
def test_header_and_data_file_name_the_same_scene(tmp_path, name, added):
    data = tmp_path / name
    header = Path(f"{data}.hdr") if added else data.with_suffix(".hdr")
    cube = integers()
    write_envi(data, cube, *nm(450, 550, 650), header=header)
    for path in (data, header):
        with open_cube(path) as reader:
            np.testing.assert_array_equal(reader.read().data, cube)
            assert {data, header} <= set(reader.files)


def test_the_data_file_that_fits_the_header_is_taken(tmp_path):
    cube = integers()
    header = write_envi(tmp_path / "scene.img", cube)
    (tmp_path / "scene.dat").write_bytes(b"something else")
    with open_cube(header) as reader:
        np.testing.assert_array_equal(reader.read().data, cube)


def test_envi_fields_are_understood(tmp_path):
    cube = integers()
    cube[:, 0, 0] = -99
    fields = (
        *nm(0.45, 0.55, 0.65001, units="Micrometers"),
        "fwhm = {0.01, 0.02,\n 0.03}", "bbl = {1, 0, 1}", "band names = {one,\ntwo, three}",
        "data ignore value = -99", "reflectance scale factor = 10000.0", UTM,
        'coordinate system string = {GEOGCS["x"]}',
    )  # fmt: skip
    with open_cube(write_envi(tmp_path / "a.dat", cube, *fields), role="HSI") as reader:
        read = reader.read()
    assert reader.spectrum.wavelengths_nm == (450.0, 550.0, 650.01)
    assert reader.spectrum.fwhm_nm == (10.0, 20.0, 30.0)
    assert reader.spectrum.good == (True, False, True)
    assert reader.spectrum.names == ("one", "two", "three")
    assert (reader.scale, reader.nodata) == (1e-4, -99)
    assert reader.grid.transform == Affine(10, 0, 500000, 0, -10, 5000000)
    assert not read.mask[0, 0]
    assert read.mask.sum() == 19
    np.testing.assert_allclose(read.data[:, 1:], cube[:, 1:] * 1e-4, rtol=1e-6)
    assert (read.data[:, 0, 0] == 0).all()


def test_wavelengths_keep_the_headers_digits(tmp_path):
    """GDAL's IMAGERY domain would give 418 and 424 nm."""
    header = write_envi(tmp_path / "a.dat", integers(shape=(2, 3, 3)), *nm(418.24, 423.874))
    with open_cube(header, role="HSI") as reader:
        assert reader.spectrum.wavelengths_nm == (418.24, 423.874)


def test_rotated_map_info_and_arbitrary_crs(tmp_path):
    rotated = UTM.replace("units=Meters", "units=Meters, rotation=30")
    with open_cube(write_envi(tmp_path / "a.dat", integers(), rotated)) as reader:
        assert reader.grid.gsd == pytest.approx((10, 10))
        assert reader.grid.transform.b == pytest.approx(5)
        assert reader.grid.crs.to_epsg() == 32633
    with open_cube(
        write_envi(tmp_path / "b.dat", integers(), "map info = {Arbitrary, 1, 1, 5, 7, 2, 2, 0, North}")
    ) as reader:
        assert reader.grid.crs is None
        assert reader.grid.georeferenced


def test_header_in_latin_1_with_windows_line_ends(tmp_path):
    path = tmp_path / "a.hdr"
    path.write_bytes(
        "ENVI\r\ndescription = {Größe = 3,\r\n zwei}\r\nData  Type = 4\r\n; note = no\r\n".encode("latin-1")
    )
    assert read_header(path) == {"description": "Größe = 3,  zwei", "data type": "4"}


# Wavelengths in GeoTIFF


@pytest.mark.parametrize(
    ("texts", "aloud"),
    [
        (["band 1 (418.24 Nanometers)", "band 2 (500 Nanometers)"], False),
        (["418.24 nm", "500 nm"], False),
        (["0.41824 um", "0.5 µm"], True),
        (["0.41824 um", "0.5 um"], False),
        (["B1 418.24", "B2 500"], True),
    ],
)
def test_wavelengths_in_band_descriptions(tmp_path, texts, aloud):
    path = write_tif(tmp_path / "a.tif", integers("uint16", (2, 3, 3)))
    with rasterio.open(path, "r+") as ds:
        ds.descriptions = texts
    with open_cube(path, role="HSI") as reader:
        assert reader.spectrum.wavelengths_nm == pytest.approx((418.24, 500))
        assert reader.spectrum.names == tuple(texts)
        assert any("taken as" in note for note in reader.notes) == aloud


@pytest.mark.parametrize("texts", [["B2", "B3"], ["Band 2", "Band 3"], ["Blue", "Green"], ["x 418", None]])
def test_band_names_are_no_wavelengths(tmp_path, texts):
    path = write_tif(tmp_path / "a.tif", integers("uint16", (2, 3, 3)))
    with rasterio.open(path, "r+") as ds:
        ds.descriptions = texts
    with pytest.raises(InputError, match="wavelengths"):
        open_cube(path, role="HSI")
    with open_cube(path, role="MSI") as reader:
        assert reader.spectrum.wavelengths_nm is None
        assert reader.spectrum.names == tuple(text or "" for text in texts)


def test_band_tags_come_before_imagery_tags_and_stale_lists(tmp_path):
    path = write_tif(tmp_path / "a.tif", integers("uint16", (2, 3, 3)))
    with rasterio.open(path, "r+") as ds:
        ds.update_tags(wavelength="{400, 450, 500}", wavelength_units="nm")
        for band, value in ((1, 418.24), (2, 500.5)):
            ds.update_tags(band, ns="IMAGERY", CENTRAL_WAVELENGTH_UM=f"{value / 1e3:.3f}", FWHM_UM="0.0065")
            ds.update_tags(band, wavelength=str(value), wavelength_units="Nanometers", bbl=str(band - 1))
    with open_cube(path, role="HSI") as reader:
        assert reader.spectrum.wavelengths_nm == (418.24, 500.5)
        assert reader.spectrum.fwhm_nm == (6.5, 6.5)
        assert reader.spectrum.good == (False, True)


@pytest.mark.parametrize("where", ["imagery", "dataset"])
def test_wavelengths_in_other_tags(tmp_path, where):
    path = write_tif(tmp_path / "a.tif", integers("uint16", (2, 3, 3)))
    with rasterio.open(path, "r+") as ds:
        if where == "dataset":
            ds.update_tags(Wavelength="{0.45, 0.55}", wavelength_units="Micrometers", fwhm="{0.01, 0.012}")
        else:
            for band, (centre, width) in enumerate([("0.45", "0.01"), ("0.55", "0.012")], start=1):
                ds.update_tags(band, ns="IMAGERY", CENTRAL_WAVELENGTH_UM=centre, FWHM_UM=width)
    with open_cube(path, role="HSI") as reader:
        assert reader.spectrum.wavelengths_nm == (450, 550)
        assert reader.spectrum.fwhm_nm == (10, 12)
        assert not reader.notes[:-1]  # the last one tells of the missing scale factor


# Units


@pytest.mark.parametrize("unit", ["nm", "Nanometers", "nanometre", " NANOMETERS ", "[nm]"])
def test_nanometres(unit):
    assert to_nm([400, 500.5], unit) == ((400, 500.5), 1, None)


@pytest.mark.parametrize("unit", ["um", "µm", "μm", "Micrometers", "micrometre", "microns", "Micron"])
def test_micrometres(unit):
    assert to_nm([0.41824, 2.5], unit) == ((418.24, 2500), 1e3, None)


@pytest.mark.parametrize(
    ("values", "unit", "wanted"),
    [
        ([0.46, 2.4], "Nanometers", 460),
        ([460, 2400], "um", 460),
        ([0.46, 2.4], None, 460),
        ([460, 2400], "Unknown", 460),
    ],
)
def test_values_are_believed_before_the_unit_and_it_is_said(values, unit, wanted):
    found, _, note = to_nm(values, unit)
    assert found[0] == wanted
    assert "taken as" in note


@pytest.mark.parametrize(
    ("values", "unit"), [([1, 2, 3], None), ([1, 224], "Unknown"), ([1, 100], "nm"), ([-1, 5e5], "furlongs")]
)
def test_values_that_fit_no_unit_are_refused(values, unit):
    with pytest.raises(InputError, match="unknown units"):
        to_nm(values, unit)


@pytest.mark.parametrize("unit", ["Wavenumber", "cm-1", "GHz", "MHz", "Index"])
def test_units_that_are_no_length_are_refused(tmp_path, unit):
    with pytest.raises(InputError, match="can't be used"):
        unit_factor(unit)
    header = write_envi(tmp_path / "a.dat", integers(), *nm(450, 550, 650, units=unit))
    with pytest.raises(InputError, match=unit):
        open_cube(header, role="HSI")
    with open_cube(header, role="MSI") as reader:
        assert reader.spectrum.wavelengths_nm is None


def test_fwhm_in_another_unit_or_nonsense():
    assert widths_to_nm([6.5, 7], 1) == ((6.5, 7), None)
    widths, note = widths_to_nm([6.5, 7], 1e3)  # wavelengths in um, FWHM in nm
    assert widths == (6.5, 7)
    assert "nanometres" in note
    widths, note = widths_to_nm([0.0065, 0.007], 1)
    assert widths == (6.5, 7)
    assert widths_to_nm([0, 7], 1)[0] is None


# Pixels: scales, masks, bands without data


def test_gdal_scale_and_offset(tmp_path):
    path = write_tif(tmp_path / "a.tif", integers())
    with rasterio.open(path, "r+") as ds:
        ds.scales, ds.offsets = [1e-3] * 3, [-0.1] * 3
    with open_cube(path) as reader, rasterio.open(path) as ds:
        np.testing.assert_allclose(reader.read().data, ds.read() * 1e-3 - 0.1, rtol=1e-5, atol=1e-7)
        assert (reader.scale, reader.offset) == (1e-3, -0.1)


def test_each_band_gets_its_own_scale(tmp_path):
    path = write_tif(tmp_path / "a.tif", np.full((2, 3, 3), 10, np.int16))
    with rasterio.open(path, "r+") as ds:
        ds.scales = [0.1, 0.01]
    with open_cube(path) as reader:
        np.testing.assert_allclose(reader.read(bands=[1, 0]).data[:, 0, 0], [0.1, 1.0])
        assert any("different scales" in note for note in reader.notes)


def test_integers_without_a_factor_stay_as_they_are_and_it_is_said(tmp_path):
    with open_cube(write_tif(tmp_path / "a.tif", integers("uint16"))) as reader:
        assert reader.scale == 1
        assert any("uint16 without a scale factor" in note for note in reader.notes)


def test_nan_and_inf_are_masked_and_counted_but_nodata_is_not(tmp_path):
    cube = np.ones((2, 4, 4), np.float32)
    cube[0, 0, 0], cube[1, 0, 0], cube[1, 1, 1], cube[:, 2, 2] = np.nan, np.inf, -np.inf, -9999.9
    with open_cube(write_tif(tmp_path / "a.tif", cube, nodata=-9999.9)) as reader:
        read = reader.read()
        assert reader.nonfinite == 2
        assert (~read.mask).sum() == 3
        assert np.isfinite(read.data).all()
        assert (read.data[:, ~read.mask] == 0).all()
    with open_cube(write_tif(tmp_path / "b.tif", cube, nodata=np.nan)) as reader:
        reader.read()
        assert reader.nonfinite == 2  # the infinite ones; NaN is this file's nodata


def test_mask_looks_at_the_bands_asked_for_and_not_at_bad_ones(tmp_path):
    cube = integers()
    cube[1] = -32768
    cube[2, 0, 0] = -32768
    path = write_tif(tmp_path / "a.tif", cube, nodata=-32768)
    with open_cube(path) as reader:
        assert not reader.read().mask.any()
        assert reader.read(bands=[0, 2]).mask.sum() == 19
        assert reader.read(bands=[0]).mask.all()
    with rasterio.open(path, "r+") as ds:
        for band, good in enumerate("101", start=1):
            ds.update_tags(band, bbl=good)
    with open_cube(path) as reader:
        assert reader.read().mask.sum() == 19


def test_internal_mask_and_alpha_band(tmp_path):
    path = write_tif(tmp_path / "a.tif", integers())
    inside = np.ones((5, 4), np.uint8) * 255
    inside[3, 2] = 0
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(path, "r+") as ds:
        ds.write_mask(inside)
    with open_cube(path) as reader:
        np.testing.assert_array_equal(reader.read().mask, inside > 0)
    rgba = np.concatenate([integers("uint8"), inside[None]])
    with open_cube(write_tif(tmp_path / "b.tif", rgba)) as reader:
        assert reader.count == 3
        np.testing.assert_array_equal(reader.read().mask, inside > 0)


def test_a_fourth_uint8_band_is_data_unless_it_is_a_mask(tmp_path):
    """GDAL calls the fourth of four uint8 bands alpha by default; here it is the near infrared."""
    cube = integers("uint8", (4, 5, 4))
    cube[3, 0, 0] = 0
    with open_cube(write_tif(tmp_path / "a.tif", cube), role="MSI") as reader:
        np.testing.assert_array_equal(reader.read().data, cube)
        assert any("alpha" in note for note in reader.notes)


def test_usable_bands(tmp_path):
    cube = integers(shape=(6, 40, 30))
    cube[1] = -32768  # nodata throughout
    cube[2] = 0  # a blank band
    cube[3] = 7  # constant, but a value that can be
    cube[4] = -32768
    cube[4, 17, 11] = 5  # valid in one pixel, which the decimated look misses
    path = write_tif(tmp_path / "a.tif", cube, nodata=-32768)
    with rasterio.open(path, "r+") as ds:
        for band in range(1, 7):
            ds.update_tags(band, bbl=str(int(band != 6)))
    with open_cube(path) as reader:
        assert usable_bands(reader, max_pixels=16).tolist() == [True, False, False, True, True, False]
        assert reader.nonfinite == 0


def test_a_flat_scene_keeps_its_bands(tmp_path):
    with open_cube(write_tif(tmp_path / "a.tif", np.zeros((2, 4, 4), np.float32))) as reader:
        assert usable_bands(reader).all()


def test_all_nodata(tmp_path):
    cube = np.full((2, 40, 40), -1, np.int16)
    with (
        open_cube(write_tif(tmp_path / "a.tif", cube, nodata=-1)) as reader,
        pytest.raises(InputError, match="no valid pixel"),
    ):
        check_valid(reader)
    cube[:, 39, 0] = 3
    with open_cube(write_tif(tmp_path / "b.tif", cube, nodata=-1)) as reader:
        check_valid(reader)


# Bad input: one clear line


def bad_files(folder: Path) -> dict[str, tuple[Path, str]]:
    """A file of each kind that can't be read, with what the error must say."""
    text, empty, tif = (
        folder / "a.txt",
        folder / "empty.tif",
        write_tif(folder / "cut.tif", integers(shape=(3, 400, 400))),
    )
    text.write_text("not a raster")
    empty.touch()
    tif.write_bytes(tif.read_bytes()[:150])
    headers = {
        name: write_envi(folder / f"{name}.dat", integers()) for name in ("short", "long", "alone", "library", "odd")
    }
    (folder / "short.dat").write_bytes(b"1" * 119)
    (folder / "long.dat").write_bytes(b"1" * 121)
    (folder / "alone.dat").unlink()
    headers["library"].write_text(headers["library"].read_text().replace("Standard", "Spectral Library"))
    headers["odd"].write_text(headers["odd"].read_text().replace("= 4\n", "= four\n"))
    foreign, lacking = folder / "foreign.hdr", folder / "lacking.hdr"
    foreign.write_text("BYTEORDER I\nLAYOUT BIL\n")
    lacking.write_text("ENVI\nsamples = 3\n")
    (folder / "lacking.dat").write_bytes(b"1")
    complex_ = write_tif(folder / "complex.tif", np.ones((1, 2, 2), np.complex64))
    return {
        "missing": (folder / "nope.tif", "doesn't exist"),
        "folder": (folder, "is a folder"),
        "text": (text, "isn't a raster"),
        "empty": (empty, "empty"),
        "cut": (tif, "can't|isn't"),
        "short": (headers["short"], "4 x 5 x 3.* make 120 bytes.* has 119"),
        "long": (folder / "long.dat", "make 120 bytes.* has 121"),
        "alone": (headers["alone"], "without its data file"),
        "library": (folder / "library.dat", "spectral library"),
        "odd": (headers["odd"], "samples = four"),
        "foreign": (foreign, "isn't an ENVI header"),
        "lacking": (lacking, "lacks the field 'lines'"),
        "complex": (complex_, "complex"),
        "no wavelengths": (write_tif(folder / "plain.tif", integers()), "no wavelengths"),
    }


def test_bad_input_is_told_in_one_line(tmp_path):
    for path, message in bad_files(tmp_path).values():
        with pytest.raises(InputError, match=message) as caught:
            open_cube(path, role="HSI")
        assert "\n" not in str(caught.value)
        assert path.stem in str(caught.value)


def test_pixels_cut_off_are_told_when_read(tmp_path):
    path = write_tif(tmp_path / "a.tif", integers(shape=(3, 300, 300)), compress="deflate", tiled=True)
    path.write_bytes(path.read_bytes()[:-2000])
    with open_cube(path) as reader, pytest.raises(InputError, match="can't be read"):
        reader.read()


def test_a_window_outside_is_refused(tmp_path):
    with (
        open_cube(write_tif(tmp_path / "a.tif", integers())) as reader,
        pytest.raises(InputError, match="isn't inside"),
    ):
        reader.read(Window(0, 4, 4, 2))

"""Which pixels count: fill that nobody declared, alpha bands, masks inside and beside the file, nodata."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.enums import ColorInterp
from rasters import write_envi, write_tif

from hsfuse.core.errors import InputError, SettingError
from hsfuse.io import open_cube
from hsfuse.io.fill import settle_fill

HOLE = np.s_[:, 3:5, 6:9]


def scene(dtype: str, bands: int = 5, low: int = 150, high: int = 4000) -> np.ndarray:
    return np.random.default_rng(3).integers(low, high, (bands, 20, 24)).astype(dtype)


def with_hole(dtype: str, value: float, **how: int) -> np.ndarray:
    cube = scene(dtype, **how)
    cube[HOLE] = value
    return cube


def outside_hole(shape: tuple[int, int] = (20, 24)) -> np.ndarray:
    mask = np.ones(shape, bool)
    mask[HOLE[1:]] = False
    return mask


BEYOND_DOUBT = [
    ("int16", -9999), ("int16", -32768), ("int16", 0), ("uint16", 0), ("uint16", 65535), ("float32", -9999.0),
    ("float32", 0.0), ("float32", -3.4028235e38), ("float64", 9.96921e36), ("float32", -999.0), ("int32", -99999),
]  # fmt: skip


@pytest.mark.parametrize(("dtype", "value"), BEYOND_DOUBT)
def test_fill_beyond_doubt_is_masked_and_told_with_count_and_value(tmp_path, dtype, value):
    with open_cube(write_tif(tmp_path / "a.tif", with_hole(dtype, value))) as opened:
        reader, notes, (warning,) = settle_fill(opened, None, "--hsi-nodata")
        np.testing.assert_array_equal(reader.read().mask, outside_hole())
        assert f"6 of 480 pixels hold {np.float64(np.dtype(dtype).type(value)):.10g} in all bands" in warning.text
        assert "masked as fill (--hsi-nodata none keeps them)" in warning.text
        assert notes == []
        assert opened.read().mask.all()  # what was opened stays as it is


@pytest.mark.parametrize(("dtype", "value"), BEYOND_DOUBT[:6])
def test_fill_in_envi_and_in_a_choice_of_bands(tmp_path, dtype, value):
    header = write_envi(tmp_path / "a.dat", with_hole(dtype, value))
    with open_cube(header) as opened:
        reader, _, _ = settle_fill(opened)
        for bands in ([0], [4, 2], [0, 1, 2]):
            np.testing.assert_array_equal(reader.read(bands=bands).mask, outside_hole())
            _, valid = reader.sample(bands, (20, 24))
            np.testing.assert_array_equal(valid.all(axis=0), outside_hole())


def test_zero_in_one_band_alone_is_a_value(tmp_path):
    cube = with_hole("uint16", 0)
    cube[2, 10] = 0
    with open_cube(write_tif(tmp_path / "a.tif", cube)) as opened:
        reader, _, _ = settle_fill(opened)
        np.testing.assert_array_equal(reader.read().mask, outside_hole())
        np.testing.assert_array_equal(reader.read(bands=[2]).mask, outside_hole())


def test_an_extreme_in_one_band_masks_the_pixel(tmp_path):
    cube = scene("float32")
    cube[1, 2, 3] = -9999
    with open_cube(write_tif(tmp_path / "a.tif", cube)) as opened:
        reader, _, (warning,) = settle_fill(opened)
        assert not reader.read().mask[2, 3]
        assert reader.read().mask.sum() == 479
        assert reader.read(bands=[0]).mask.all()
        assert "1 of 480 pixels hold -9999 in some band" in warning.text


@pytest.mark.parametrize("gap", [np.nan, -9999])
def test_zeros_are_fill_where_a_band_holds_no_number(tmp_path, gap):
    """The border of a mosaic where one band has NaN, or the nodata value that the file declares."""
    cube = with_hole("float32", 0.0)
    cube[3][HOLE[1:]] = gap
    with open_cube(write_tif(tmp_path / "a.tif", cube, nodata=-9999)) as opened:
        reader, _, (warning,) = settle_fill(opened)
        assert "6 of 480 pixels hold 0 in all bands" in warning.text
        for bands in (None, [0], [4, 2], [3]):
            np.testing.assert_array_equal(reader.read(bands=bands).mask, outside_hole())


@pytest.mark.parametrize("value", [0.0, -3.4028235e38, -9999.0])
def test_fill_is_found_beside_a_band_without_any_number(tmp_path, value):
    cube = with_hole("float32", value)
    cube[3] = np.nan
    with open_cube(write_tif(tmp_path / "a.tif", cube)) as opened:
        reader, _, (warning,) = settle_fill(opened)
        assert warning.code == "fill-masked"
        np.testing.assert_array_equal(reader.read(bands=[0, 1]).mask, outside_hole())


def test_a_pixel_that_few_bands_have_is_no_fill_for_its_zeros(tmp_path):
    cube = scene("float32")
    cube[1:, 2, 3], cube[0, 2, 3], cube[:, 5, 5] = np.nan, 0, 0
    with open_cube(write_tif(tmp_path / "a.tif", cube)) as opened:
        _, _, (warning,) = settle_fill(opened)
        assert warning.values["pixels"] == 1


@pytest.mark.parametrize("value", [-3.4028235e38, 3.4028235e38, 9.96921e36, 1e20, -1e30, -9999])
def test_fill_of_much_of_an_image_is_no_wrong_byte_order(tmp_path, value):
    cube = scene("float32") / 4000
    cube[:, :12] = value
    with open_cube(write_tif(tmp_path / "a.tif", cube)) as opened:
        reader, _, warnings = settle_fill(opened)
        assert [one.code for one in warnings] == ["fill-masked"]
        assert reader.read().mask.sum() == 8 * 24


def test_two_fill_values_of_one_image_are_both_masked(tmp_path):
    cube = scene("float32") / 4000
    cube[:, :6], cube[:, 6:12] = 9.96921e36, 1e20
    with open_cube(write_tif(tmp_path / "a.tif", cube)) as opened:
        reader, _, warnings = settle_fill(opened)
        assert [one.code for one in warnings] == ["fill-masked"] * 2
        assert reader.read().mask.sum() == 8 * 24


@pytest.mark.parametrize(("dtype", "value"), [("float32", -1.0), ("int16", -99), ("uint16", 20_000), ("int16", -2)])
def test_any_one_number_far_from_all_others_in_all_bands_is_fill(tmp_path, dtype, value):
    with open_cube(write_tif(tmp_path / "a.tif", with_hole(dtype, value))) as opened:
        reader, _, (warning,) = settle_fill(opened)
        np.testing.assert_array_equal(reader.read().mask, outside_hole())
        assert f"6 of 480 pixels hold {value:.10g} in all bands" in warning.text


def test_floating_point_numbers_in_the_wrong_byte_order_are_told(tmp_path):
    header = write_envi(tmp_path / "a.dat", scene("float32", 3) / 3, big=True)
    header.write_text(header.read_text().replace("byte order = 1", "byte order = 0"))
    with open_cube(header) as opened:
        assert "numbers-extreme" in {warning.code for warning in settle_fill(opened)[2]}
    header.write_text(header.read_text().replace("byte order = 0", "byte order = 1"))
    with open_cube(header) as opened:
        assert settle_fill(opened)[2] == []


@pytest.mark.parametrize("ends", [(200, 3800), (1, 4000), (-1, 3800)])
def test_values_that_are_cut_off_are_no_fill(tmp_path, ends):
    """Every band then has the same lowest and highest number, but others come near, or other bands differ there."""
    cube = np.random.default_rng(1).normal(2000, 900, (5, 20, 24)).clip(*ends).astype("int16")
    with open_cube(write_tif(tmp_path / "a.tif", cube)) as opened:
        assert settle_fill(opened)[0].read().mask.all()


def test_dark_ground_is_no_fill(tmp_path):
    """Zeros with many nearly zero beside them: told, not masked."""
    cube = np.random.default_rng(0).gamma(0.3, 300, (1, 20, 24)).repeat(4, axis=0).astype("uint16")
    assert (cube == 0).any()
    with open_cube(write_tif(tmp_path / "a.tif", cube)) as opened:
        reader, (note,), warnings = settle_fill(opened, None, "--msi-nodata")
        assert reader is opened
        assert "kept as values; if they are none, say --msi-nodata 0" in note.text
        assert warnings == []


def test_saturation_that_sets_in_gradually_is_told_only(tmp_path):
    cube = np.linspace(0, 300, 4 * 20 * 24).reshape(4, 20, 24).clip(1, 255).astype("uint8")
    cube[:] = cube[3]
    cube[:, 0, 0] = 1
    with open_cube(write_tif(tmp_path / "a.tif", cube)) as opened:
        reader, notes, warnings = settle_fill(opened)
        assert reader is opened
        assert "hold 255 in all bands" in notes[0].text
        assert warnings == []


@pytest.mark.parametrize("value", [0, 137])
def test_a_constant_image_holds_no_fill(tmp_path, value):
    with open_cube(write_tif(tmp_path / "a.tif", np.full((4, 8, 9), value, "uint16"))) as reader:
        assert settle_fill(reader) == (reader, [], [])


def test_empty_bands_are_no_fill_of_the_others(tmp_path):
    cube = scene("int16")
    cube[3] = -32768
    with open_cube(write_tif(tmp_path / "a.tif", cube)) as reader:
        assert settle_fill(reader) == (reader, [], [])


def test_declared_nodata_is_not_told_again(tmp_path):
    cube = with_hole("int16", -9999)
    with open_cube(write_tif(tmp_path / "a.tif", cube, nodata=-9999)) as reader:
        assert settle_fill(reader) == (reader, [], [])
        np.testing.assert_array_equal(reader.read().mask, outside_hole())
        assert reader.with_nodata(None).read().mask.all()


def test_large_images_are_looked_at_in_strips(tmp_path, monkeypatch):
    monkeypatch.setattr("hsfuse.io.fill.AT_ONCE", 5 * 24 * 3)
    monkeypatch.setattr("hsfuse.io.fill.LOOK", 5 * 24 * 20 // 3)
    cube = scene("uint16")
    cube[:, 5:11, 8:15] = 0
    with open_cube(write_tif(tmp_path / "a.tif", cube)) as opened:
        reader, _, (warning,) = settle_fill(opened)
        assert "hold 0 in all bands" in warning.text
        assert reader.read().mask.sum() == 480 - 42


@pytest.mark.parametrize(
    ("dtype", "value"),
    [
        ("int16", -9999),
        ("int16", -32768),
        ("uint16", 65535),
        ("uint16", 0),
        ("float32", -3.4028235e38),
        ("float32", 1e20),
    ],
)
def test_fill_that_a_decimated_look_misses_is_masked_and_told_beforehand(tmp_path, monkeypatch, dtype, value):
    cube = scene(dtype, 5, 1500, 4000)
    cube[:, 7, 11] = value  # row and column that one in five doesn't meet
    monkeypatch.setattr("hsfuse.io.fill.LOOK", 5 * 4 * 4)
    with open_cube(write_tif(tmp_path / "a.tif", cube)) as opened:
        reader, (note,), warnings = settle_fill(opened)
        assert warnings == []
        assert note.code == "fill-unseen"
        assert f"{np.dtype(dtype).type(value):.6g}" in note.values["fill"].split(", ")
        expected = np.ones((20, 24), bool)
        expected[7, 11] = False
        np.testing.assert_array_equal(reader.read().mask, expected)
        np.testing.assert_array_equal(reader.read(bands=[2]).mask, expected)


def test_what_a_decimated_look_can_not_tell_from_values_stays(tmp_path, monkeypatch):
    """Dark ground, whose zeros are measurements, and the end of a type that others come near."""
    cube = np.random.default_rng(0).gamma(0.3, 300, (1, 20, 24)).clip(1, 60_000).repeat(4, axis=0).astype("uint16")
    cube[:, ::3] = 50_000
    cube[:, 7, 11], cube[:, 8, 11] = 0, 65535
    monkeypatch.setattr("hsfuse.io.fill.LOOK", 4 * 12 * 12)
    with open_cube(write_tif(tmp_path / "a.tif", cube)) as opened:
        assert settle_fill(opened)[0].read().mask.all()


def test_nodata_said_outright(tmp_path):
    cube = with_hole("uint16", 7)
    with open_cube(write_tif(tmp_path / "a.tif", cube, nodata=150)) as opened:
        reader, notes, warnings = settle_fill(opened, "7", "--hsi-nodata")
        np.testing.assert_array_equal(reader.read().mask, outside_hole())
        assert (notes, warnings) == ([], [])
        assert settle_fill(opened, "none")[0].read().mask.all()
        with pytest.raises(SettingError, match="--hsi-nodata 'seven' is no number"):
            settle_fill(opened, "seven", "--hsi-nodata")


def test_fill_of_several_files_masks_before_bands_are_sharpened(tmp_path):
    fine, coarse = scene("uint16", 1), scene("uint16", 1)[:, ::2, ::2].copy()
    fine[0, 4:8, 4:8] = 65535
    coarse[0, 2:4, 2:4] = 65535
    a = write_tif(tmp_path / "s_B02.tif", fine)
    b = write_tif(tmp_path / "s_B05.tif", coarse, transform=rasterio.Affine(20, 0, 500000, 0, -20, 5000000))
    with open_cube([a, b]) as opened:
        reader, _, (warning,) = settle_fill(opened)
        cube = reader.read()
        assert "16 of 480 pixels hold 65535" in warning.text
        assert not cube.mask[4:8, 4:8].any()
        assert cube.data.max() < 6000  # nothing of the fill bleeds into the coarse band's pixels


# Alpha


def alpha_of(kind: str, dtype: str) -> tuple[np.ndarray, np.ndarray]:
    """An alpha band (h, w), and where it is opaque."""
    valid = np.ones((20, 24), bool)
    valid[:, 18:] = False
    largest = {"full": np.iinfo(dtype).max if dtype[0] in "iu" else 1, "one": 1, "soft": 255}[kind]
    alpha = np.where(valid, largest, 0).astype(dtype)
    if kind == "soft":
        alpha[:, 17], valid[:, 17] = 120, False
    return alpha, valid


@pytest.mark.parametrize("bands", [1, 2, 3, 4, 7])
@pytest.mark.parametrize(
    ("kind", "dtype"),
    [("full", "uint8"), ("full", "uint16"), ("full", "float32"), ("one", "uint16"), ("soft", "uint8")],
)
def test_alpha_of_any_range_and_number_of_bands_masks(tmp_path, bands, kind, dtype):
    alpha, valid = alpha_of(kind, dtype)
    cube = np.concatenate([scene(dtype, bands, 1, 200), alpha[None]])
    path = write_tif(tmp_path / "a.tif", cube, photometric="minisblack")
    with rasterio.open(path, "r+") as ds:
        ds.colorinterp = [ColorInterp.undefined] * bands + [ColorInterp.alpha]
    with open_cube(path) as reader:
        assert reader.count == bands
        np.testing.assert_array_equal(reader.read().mask, valid)
        np.testing.assert_array_equal(reader.sample([0], (20, 24))[1][0], valid)
        assert any("alpha band is used as a mask" in note.text for note in reader.notes)


def test_a_band_that_only_claims_to_be_alpha_stays_a_band(tmp_path):
    path = write_tif(tmp_path / "a.tif", scene("uint8", 4, 1, 255))
    with rasterio.open(path, "r+") as ds:
        ds.colorinterp = [ColorInterp.red, ColorInterp.green, ColorInterp.blue, ColorInterp.alpha]
    with open_cube(path) as reader:
        assert reader.count == 4
        assert reader.read().mask.all()
        assert any("it is used as a band" in note.text for note in reader.notes)


# Masks


def mask_of() -> np.ndarray:
    mask = np.full((20, 24), 255, "uint8")
    mask[7:, :5] = 0
    return mask


@pytest.mark.parametrize("inside", [True, False])
def test_a_mask_in_the_file_or_beside_it(tmp_path, inside):
    path = tmp_path / "a.tif"
    write_tif(path, scene("uint16"))
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=inside), rasterio.open(path, "r+") as ds:
        ds.write_mask(mask_of())
    assert (tmp_path / "a.tif.msk").exists() != inside
    with open_cube(path) as reader:
        np.testing.assert_array_equal(reader.read().mask, mask_of() != 0)
        np.testing.assert_array_equal(reader.read(bands=[4]).mask, mask_of() != 0)


def test_masks_of_single_bands(tmp_path):
    path = write_tif(tmp_path / "a.tif", scene("uint16", 3))
    masks = np.full((3, 20, 24), 255, "uint8")
    for band in range(3):
        masks[band, :, band] = 0
    with rasterio.open(write_tif(Path(f"{path}.msk"), masks), "r+") as ds:
        ds.update_tags(**{f"INTERNAL_MASK_FLAGS_{band}": "0" for band in (1, 2, 3)})
    with open_cube(path) as reader:
        np.testing.assert_array_equal(reader.read().mask, masks.all(axis=0))
        np.testing.assert_array_equal(reader.read(bands=[2]).mask, masks[2] != 0)


def test_nodata_values_for_all_bands_together(tmp_path):
    """GDAL's NODATA_VALUES: a pixel is nodata where all bands hold their own value."""
    cube = scene("uint16", 3)
    cube[:, 2, 3], cube[0, 5] = (1, 2, 3), 1
    path = write_tif(tmp_path / "a.tif", cube)
    with rasterio.open(path, "r+") as ds:
        ds.update_tags(NODATA_VALUES="1 2 3")
    with open_cube(path) as reader:
        mask = reader.read().mask
    assert not mask[2, 3]
    assert mask.sum() == 479


def test_nodata_of_each_band(tmp_path):
    cube = scene("uint16", 2)
    cube[0, 0, 0], cube[1, 0, 1], cube[1, 0, 2] = 7, 8, 7
    paths = [write_tif(tmp_path / f"{i}.tif", cube[i : i + 1], nodata=7 + i) for i in (0, 1)]
    vrt = tmp_path / "a.vrt"
    bands = "".join(
        f'<VRTRasterBand dataType="UInt16" band="{i + 1}"><NoDataValue>{7 + i}</NoDataValue><SimpleSource>'
        f'<SourceFilename relativeToVRT="1">{path.name}</SourceFilename><SourceBand>1</SourceBand></SimpleSource>'
        "</VRTRasterBand>"
        for i, path in enumerate(paths)
    )
    vrt.write_text(f'<VRTDataset rasterXSize="24" rasterYSize="20">{bands}</VRTDataset>')
    with open_cube(vrt) as reader:
        mask = reader.read().mask
    assert not mask[0, :2].any()
    assert mask.sum() == 478


def test_all_transparent_is_an_error_to_whoever_needs_pixels(tmp_path):
    path = write_tif(tmp_path / "a.tif", np.concatenate([scene("uint8", 3), np.zeros((1, 20, 24), "uint8")]))
    with rasterio.open(path, "r+") as ds:
        ds.colorinterp = [ColorInterp.red, ColorInterp.green, ColorInterp.blue, ColorInterp.alpha]
    with open_cube(path) as reader:
        assert not reader.read().mask.any()


# ENVI headers


def header_with(tmp_path: Path, *fields: str, dtype: str = "uint16") -> Path:
    return write_envi(tmp_path / "a.dat", scene(dtype, 3), *fields)


def test_reflectance_gains_and_offsets_of_the_header(tmp_path):
    header = header_with(
        tmp_path, "data reflectance gain values = {1e-4, 2e-4, 1e-4}", "data reflectance offset values = {0, -0.1, 0}"
    )
    with open_cube(header) as reader:
        np.testing.assert_allclose(
            reader.read().data, scene("float32", 3) * np.float32([1e-4, 2e-4, 1e-4])[:, None, None]
            - np.float32([0, 0.1, 0])[:, None, None], rtol=1e-5,
        )  # fmt: skip
        assert reader.quantity == "reflectance"


def test_gains_of_the_header_make_radiance(tmp_path):
    with open_cube(header_with(tmp_path, "data gain values = {0.1, 0.2, 0.3}")) as reader:
        np.testing.assert_allclose(
            reader.read().data, scene("float32", 3) * np.float32([0.1, 0.2, 0.3])[:, None, None], rtol=1e-5
        )
        assert reader.quantity == "radiance"


def test_the_reflectance_scale_factor_makes_reflectance(tmp_path):
    with open_cube(header_with(tmp_path, "reflectance scale factor = 10000")) as reader:
        assert (reader.scale, reader.quantity) == (1e-4, "reflectance")


@pytest.mark.parametrize("values", ["{1, 2}", "{a, b, c}", "{inf, 1, 1}"])
def test_gains_that_do_not_fit_are_told(tmp_path, values):
    with open_cube(header_with(tmp_path, f"data reflectance gain values = {values}")) as reader:
        assert any("data reflectance gain values" in note.text and "not used" in note.text for note in reader.notes)
        assert (reader.scale, reader.quantity) == (1, "unknown")


@pytest.mark.parametrize("suffix", [".hyspex", ".rdn", ".lan", ".RFL", ""])
def test_any_ending_of_the_data_file(tmp_path, suffix):
    header = write_envi(tmp_path / f"line{suffix}", scene("int16"), header=tmp_path / "line.hdr")
    (tmp_path / "line.txt").write_text("notes")
    with open_cube(header) as reader:
        np.testing.assert_array_equal(reader.read().data, scene("float32"))


def test_several_files_that_fit_a_header_are_refused_by_name(tmp_path):
    header = write_envi(tmp_path / "a.dat", scene("int16"))
    (tmp_path / "a.rdn").write_bytes((tmp_path / "a.dat").read_bytes())
    with pytest.raises(InputError, match=r"fits 2 files \(a.dat, a.rdn\); name the one that is meant"):
        open_cube(header)
    assert open_cube(tmp_path / "a.rdn").count == 5


def test_a_header_in_utf16_is_refused_with_the_reason(tmp_path):
    header = header_with(tmp_path)
    header.write_bytes(header.read_text().encode("utf-16"))
    with pytest.raises(InputError, match=r"in UTF-16; save it as plain text"):
        open_cube(header)


@pytest.mark.parametrize("name", ["cube.hdr", "cube.tif", "cube.tif.hdr"])
def test_an_envi_header_beside_a_geotiff_tells_the_bands(tmp_path, name):
    write_tif(tmp_path / "cube.tif", scene("uint16", 3))
    header = tmp_path / ("cube.tif.hdr" if name == "cube.tif.hdr" else "cube.hdr")
    header.write_text(
        "ENVI\nsamples = 24\nlines = 20\nbands = 3\nfile type = TIFF\ndata type = 12\nwavelength units = Nanometers\n"
        "wavelength = {450, 550, 650}\nfwhm = {5, 5, 6}\nbbl = {1, 0, 1}\n"
        "map info = {UTM, 1, 1, 0, 0, 1, 1, 33, North}\n"
    )
    with open_cube(tmp_path / name, role="HSI") as reader:
        assert reader.spectrum.wavelengths_nm == (450, 550, 650)
        assert reader.spectrum.fwhm_nm == (5, 5, 6)
        assert reader.spectrum.good == (True, False, True)
        assert reader.grid.gsd == (10, 10)
        np.testing.assert_array_equal(reader.read().data, scene("float32", 3))
        assert set(reader.files) >= {tmp_path / "cube.tif", header}


def test_a_header_of_another_size_beside_a_geotiff_is_told(tmp_path):
    path = write_tif(tmp_path / "cube.tif", scene("uint16", 3))
    (tmp_path / "cube.hdr").write_text(
        "ENVI\nsamples = 2\nlines = 20\nbands = 3\nfile type = TIFF\nwavelength = {1, 2, 3}"
    )
    with open_cube(path) as reader:
        assert reader.spectrum.wavelengths_nm is None
        assert any("cube.hdr describes an image of another size" in note.text for note in reader.notes)


def test_a_header_of_a_geotiff_that_is_not_there(tmp_path):
    (tmp_path / "cube.hdr").write_text("ENVI\nsamples = 2\nlines = 20\nbands = 3\nfile type = TIFF\n")
    with pytest.raises(InputError, match=r"describes a GeoTIFF .* that isn't there"):
        open_cube(tmp_path / "cube.hdr")


# Names


@pytest.mark.parametrize(
    "text", ["Band {}", "band_{}", "B{}", "Channel {}", "Resize (Band {}:qb20060901ortho.tif)", "{}"]
)
def test_numbers_of_bands_are_no_wavelengths(tmp_path, text):
    path = write_tif(tmp_path / "a.tif", scene("uint16", 4))
    with rasterio.open(path, "r+") as ds:
        ds.descriptions = [text.format(201 + i) for i in range(4)]
    with open_cube(path) as reader:
        assert reader.spectrum.wavelengths_nm is None
        assert not any("taken as" in note.text or "unknown units" in note.text for note in reader.notes)


@pytest.mark.parametrize("text", ["B{0}={1} nm", "B{0}={1}", "Band {0} ({1} Nanometers)", "Band {0}: {1}"])
def test_wavelengths_beside_the_number_of_a_band_are_found(tmp_path, text):
    path = write_tif(tmp_path / "a.tif", scene("uint16", 3))
    with rasterio.open(path, "r+") as ds:
        ds.descriptions = [text.format(i + 1, nm) for i, nm in enumerate((443.5, 560.25, 865))]
    with open_cube(path) as reader:
        assert reader.spectrum.wavelengths_nm == (443.5, 560.25, 865)


def test_tags_in_domains_of_other_programs(tmp_path):
    path = write_tif(tmp_path / "a.tif", scene("uint16", 3))
    with rasterio.open(path, "r+") as ds:
        for band, nm in enumerate((443.5, 560.25, 865), start=1):
            ds.update_tags(band, ns="QGISPAM", wavelength=str(nm), wavelength_units="Nanometers", fwhm="9",
                           bad_band_multiplier=str(band % 2))  # fmt: skip
    with open_cube(path) as reader:
        assert reader.spectrum.wavelengths_nm == (443.5, 560.25, 865)
        assert reader.spectrum.good == (True, False, True)


def test_wavelengths_in_the_aux_xml_beside_the_file(tmp_path):
    path = write_tif(tmp_path / "a.tif", scene("uint16", 2))
    bands = "".join(
        f'<PAMRasterBand band="{i + 1}"><Metadata><MDI key="wavelength">{nm}</MDI><MDI key="wavelength_units">um</MDI>'
        "</Metadata></PAMRasterBand>" for i, nm in enumerate((0.45, 0.55))
    )  # fmt: skip
    (tmp_path / "a.tif.aux.xml").write_text(f"<PAMDataset>{bands}</PAMDataset>")
    with open_cube(path, role="HSI") as reader:
        assert reader.spectrum.wavelengths_nm == (450, 550)


def test_a_list_of_fwhm_of_the_wrong_length_is_told_once(tmp_path):
    header = header_with(tmp_path, "wavelength = {450, 550, 650}", "wavelength units = nm", "fwhm = {5, 5}")
    with open_cube(header) as reader:
        assert reader.spectrum.fwhm_nm is None
        assert [note.text for note in reader.notes if "2 FWHM for 3 bands" in note.text] == [
            "a.hdr: the ENVI header: 2 FWHM for 3 bands, or not all numbers; not used"
        ]

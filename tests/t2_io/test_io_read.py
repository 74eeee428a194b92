"""Reading: ENVI in all its layouts, wavelengths wherever files put them, masks, scales, and bad input in one line."""

from __future__ import annotations

import os
from pathlib import Path
from weakref import WeakKeyDictionary

import numpy as np
import pytest
import rasterio
from affine import Affine
from rasterio.windows import Window
from rasters import NORTH_UP, integers, nm, write_envi, write_tif

from hsfuse.core.errors import InputError
from hsfuse.io import check_valid, gdal, open_cube, usable_bands
from hsfuse.io.envi import read_header
from hsfuse.io.gdal import CACHE_BYTES, gdal_env
from hsfuse.io.products.hdf5 import open_hdf5

UTM = "map info = {UTM, 1, 1, 500000, 5000000, 10, 10, 33, North, WGS-84, units=Meters}"

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
        assert any("different scales" in note.text for note in reader.notes)


def test_integers_without_a_factor_stay_as_they_are_and_it_is_said(tmp_path):
    with open_cube(write_tif(tmp_path / "a.tif", integers("uint16"))) as reader:
        assert reader.scale == 1
        assert any("uint16 without a scale factor" in note.text for note in reader.notes)


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
        assert any("alpha" in note.text for note in reader.notes)


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


def test_blocks_are_decompressed_once_for_the_windows_of_a_row(tmp_path, monkeypatch):
    """What is read again is there, with the file's own pixels gone; what a raster had is given back with it."""
    monkeypatch.setattr(gdal, "_rows", WeakKeyDictionary())  # what other tests left open
    path, side, count = tmp_path / "blocks.tif", 256, 80
    tiled = {"tiled": True, "blockxsize": side, "blockysize": side, "compress": "deflate", "interleave": "band"}
    profile = {
        "driver": "GTiff",
        "width": 2 * side,
        "height": side,
        "count": count,
        "dtype": "float32",
        "transform": NORTH_UP,
    }
    with rasterio.open(path, "w", **profile, **tiled) as ds:
        ds.write(np.broadcast_to(np.arange(1, count + 1, dtype=np.float32)[:, None, None], (count, side, 2 * side)))
    assert count * side * 2 * side * 4 > CACHE_BYTES
    with open_cube(path) as reader, gdal_env():
        assert rasterio.env.getenv()["GDAL_CACHEMAX"] > count * side * 2 * side * 4
        for col in (0, side):
            reader.read(Window(col, 0, 8, 8))
        os.truncate(path, 0)
        for col in (0, side):
            assert (reader.read(Window(col, 8, 8, 8)).data[:, 0, 0] == np.arange(1, count + 1)).all()
    with gdal_env():
        assert rasterio.env.getenv()["GDAL_CACHEMAX"] < count * side * 2 * side * 4


class Open:
    """What the cache has to know of an open file."""

    closed = False


def test_one_process_of_many_keeps_fewer_blocks(monkeypatch):
    monkeypatch.setattr(gdal, "_rows", {Open(): 2**31})
    monkeypatch.setattr(gdal, "_most", gdal.MOST_CACHE_BYTES)
    for most in (512, 128):
        with gdal_env():
            assert rasterio.env.getenv()["GDAL_CACHEMAX"] == most * 2**20
        gdal.share_memory()


def test_chunks_of_hdf5_are_decompressed_once(tmp_path):
    h5py = pytest.importorskip("h5py")
    path, shape = tmp_path / "chunks.h5", (128, 640, 64)
    values = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    with h5py.File(path, "w") as file:
        file.create_dataset("cube", data=values, chunks=(128, 128, 64), compression="gzip")
    with open_hdf5(path) as file:
        cube = file["cube"]
        assert (cube[:8] == values[:8]).all()
        os.truncate(path, 0)
        assert (cube[8:16] == values[8:16]).all()

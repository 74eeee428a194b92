"""Names for GDAL, times in metadata, and warnings while several threads read."""

from __future__ import annotations

import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasters import integers, write_envi, write_tif

from hsfuse.io import open_cube
from hsfuse.io.gdal import gdal_env, gdal_name
from hsfuse.io.products.metadata import iso_time


@pytest.mark.parametrize("name", [
    "/vsicurl/https://host/a.tif", "/vsizip//vsicurl/https://host/a.zip/b.tif", 'HDF5:"a.h5"://group/cube',
    "HDF5:/data/a.h5://group/cube", "NETCDF:file.nc:reflectance", "/vsis3/bucket/a.tif", "/data/a.tif", "a.tif",
    "/vsizip/a.zip/b.tif",
])  # fmt: skip
def test_gdal_gets_the_name_as_it_was_given(name):
    assert gdal_name(Path(name)) == name.replace("/vsizip//vsicurl", "/vsizip/vsicurl")


def test_a_raster_in_an_archive_is_read_by_its_whole_path(tmp_path):
    cube = integers()
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.write(write_tif(tmp_path / "b.tif", cube), "in/b.tif")
    with open_cube(f"/vsizip/{tmp_path}/a.zip/in/b.tif") as reader:
        np.testing.assert_array_equal(reader.read().data, cube)


@pytest.mark.parametrize(("told", "found"), [
    ("2022-07-24T22:30:00-05:00", "2022-07-25T03:30:00"), ("2022-07-24T10:20:48.758Z", "2022-07-24T10:20:48"),
    ("2022-07-24T10:20:48", "2022-07-24T10:20:48"), ("2022-07-24", "2022-07-24"), ("24/07/2022", None), (None, None),
])  # fmt: skip
def test_times_are_utc(told, found):
    assert iso_time(told) == found


def test_filters_of_others_set_meanwhile_stay():
    """`warnings.catch_warnings` would put back what was there before, while other threads read."""
    with warnings.catch_warnings():
        with gdal_env():
            warnings.simplefilter("ignore", ResourceWarning)
            mine = warnings.filters[0]
        assert mine in warnings.filters
        before = list(warnings.filters)
        with gdal_env():
            assert warnings.filters == before  # set once


@pytest.mark.parametrize("kind", ["tif", "envi"])
def test_names_in_another_encoding_stop_nothing(tmp_path, kind):
    if kind == "tif":
        path = write_tif(tmp_path / "a.tif", integers())
        with rasterio.open(path, "r+") as ds:
            ds.set_band_description(1, "Blxxau")
            ds.update_tags(1, SITE="Kxxln")
        path.write_bytes(path.read_bytes().replace(b"xx", b"\xfc\xfc"))
        with open_cube(path) as reader:
            assert reader.spectrum.names is None
            assert any("aren't UTF-8" in note.text for note in reader.notes)
    else:
        path = write_envi(tmp_path / "a.dat", integers(), "band names = {Blxx, b, c}", "description = {Kxxln}")
        path.write_bytes(path.read_bytes().replace(b"xx", b"\xfc"))
        with open_cube(path) as reader:
            assert reader.spectrum.names == ("Bl\xfc", "b", "c")
            assert reader.read().data.shape == (3, 5, 4)

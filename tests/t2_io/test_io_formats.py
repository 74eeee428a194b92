"""The other formats: COG, Zarr, creation options and overviews; what is written is read back, also by others."""

from __future__ import annotations

import numpy as np
import pytest
import rasterio
from affine import Affine
from rasters import GRID, SPECTRUM, scene, write_cube

from hsfuse.core.errors import InputError, OutputError, SettingError
from hsfuse.core.grid import Grid
from hsfuse.io import open_cube
from hsfuse.io.files import is_store

zarr = pytest.importorskip("zarr")
ROTATED = Affine.translation(6e5, 5e6) @ Affine.rotation(25) @ Affine.scale(10, -10)


@pytest.mark.parametrize(("name", "driver"), [("a.zarr", "auto"), ("a.tif", "COG"), ("a", "Zarr")])
@pytest.mark.parametrize("transform", [GRID.transform, ROTATED])
@pytest.mark.parametrize("step", [256, 90])
def test_cubes_come_back_exactly(tmp_path, name, driver, transform, step):
    grid = Grid(GRID.shape, transform, GRID.crs)
    data, mask = scene(grid)
    write_cube(tmp_path / name, data, mask, grid, step=step, driver=driver, tags={"method": "conic"})
    assert [path.name for path in tmp_path.iterdir()] == [name]
    with open_cube(tmp_path / name, role="HSI") as reader:
        read = reader.read()
        part, valid = reader.sample([0, 2], (10, 12))
    np.testing.assert_array_equal(read.mask, mask)
    np.testing.assert_array_equal(read.data, data * mask)
    assert (reader.spectrum, reader.tags, reader.notes) == (SPECTRUM, {"HSFUSE_METHOD": "conic"}, [])
    assert reader.grid.crs == grid.crs
    assert reader.grid.transform.almost_equals(transform, 1e-8)
    assert part.shape == valid.shape == (2, 10, 12)


@pytest.mark.parametrize(("name", "driver"), [("a.zarr", "auto"), ("a.tif", "COG")])
def test_packed_integers_come_back_within_half_a_step(tmp_path, name, driver):
    data, mask = scene()
    write_cube(tmp_path / name, data, mask, driver=driver, dtype="int16", scale=1e-4)
    with open_cube(tmp_path / name) as reader:
        read = reader.read()
    assert (reader.dtype, reader.scale) == ("int16", 1e-4)
    np.testing.assert_array_equal(read.mask, mask)
    rounding = np.abs(data[:, mask]) * np.finfo(np.float32).eps
    assert (np.abs(read.data - data)[:, mask] <= 0.5e-4 + rounding).all()


def test_a_cog_is_laid_out_as_one_and_carries_overviews(tmp_path):
    grid = Grid((600, 300), GRID.transform, GRID.crs)
    data, mask = scene(grid)
    write_cube(tmp_path / "a.tif", data, mask, grid, driver="COG", options={"COMPRESS": "LZW"})
    with rasterio.open(tmp_path / "a.tif") as ds:
        assert ds.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        assert ds.compression.name == "lzw"
        assert ds.overviews(1)
        assert float(ds.tags(1, ns="IMAGERY")["CENTRAL_WAVELENGTH_UM"]) * 1e3 == pytest.approx(
            SPECTRUM.wavelengths_nm[0]
        )


def test_creation_options_and_overviews_of_a_geotiff(tmp_path):
    grid = Grid((600, 300), GRID.transform, GRID.crs)
    data, mask = scene(grid)
    write_cube(tmp_path / "a.tif", data, mask, grid, options={"compress": "zstd"}, overviews=True)
    with rasterio.open(tmp_path / "a.tif") as ds:
        assert (ds.compression.name, ds.overviews(1)) == ("zstd", [2, 4])


def test_gdal_and_zarr_itself_read_a_zarr_group(tmp_path):
    data, mask = scene()
    write_cube(tmp_path / "a.zarr", data, mask)
    group = zarr.open_group(str(tmp_path / "a.zarr"), mode="r")
    np.testing.assert_array_equal(group["wavelength"][:], SPECTRUM.wavelengths_nm)
    assert group["reflectance"].attrs["_ARRAY_DIMENSIONS"] == ["band", "y", "x"]
    np.testing.assert_array_equal(group["reflectance"][0][mask], data[0][mask])
    with rasterio.open(f'ZARR:"{tmp_path}/a.zarr":/reflectance') as ds:
        assert ds.crs == GRID.crs
        assert ds.transform.almost_equals(GRID.transform, 1e-6)
        np.testing.assert_array_equal(ds.read(2)[mask], data[1][mask])
        told = ds.tags()
    assert told["wavelength_units"] == "nm"
    found = [float(nm) for nm in told["wavelength"].strip("{}[]").split(",")]
    np.testing.assert_allclose(found, SPECTRUM.wavelengths_nm, rtol=1e-6)


def test_only_a_zarr_group_is_replaced_and_only_when_asked(tmp_path):
    data, mask = scene()
    write_cube(tmp_path / "a.zarr", data, mask)
    with pytest.raises(OutputError, match="exists already"):
        write_cube(tmp_path / "a.zarr", data, mask)
    write_cube(tmp_path / "a.zarr", data + 1, mask, overwrite=True)
    with open_cube(tmp_path / "a.zarr") as reader:
        np.testing.assert_array_equal(reader.read().data, (data + 1) * mask)
    (tmp_path / "b.zarr").mkdir()
    (tmp_path / "b.zarr" / "mine.txt").write_text("keep")
    with pytest.raises(OutputError, match="is a folder"):
        write_cube(tmp_path / "b.zarr", data, mask, overwrite=True)


def test_a_failed_write_leaves_nothing(tmp_path):
    from hsfuse.io import CubeWriter, Storage

    for name, driver in (("a.zarr", "auto"), ("a.tif", "COG")):
        with (
            pytest.raises(OutputError, match="pixels were written"),
            CubeWriter(tmp_path / name, GRID, SPECTRUM, Storage(driver)),
        ):
            pass
    assert list(tmp_path.iterdir()) == []


def test_creation_options_are_refused_where_they_mean_nothing(tmp_path):
    data, mask = scene()
    with pytest.raises(SettingError, match="for GeoTIFF and COG"):
        write_cube(tmp_path / "a.dat", data, mask, options={"compress": "zstd"})


def test_a_zarr_group_of_another_layout_is_refused(tmp_path):
    zarr.open_group(str(tmp_path / "a.zarr"), mode="w")
    assert is_store(tmp_path / "a.zarr")
    with pytest.raises(InputError, match="no Zarr group with an array"):
        open_cube(tmp_path / "a.zarr")

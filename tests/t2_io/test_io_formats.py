"""The other formats: COG, Zarr, creation options and overviews; what is written is read back, also by others."""

from __future__ import annotations

import errno
import json
import time

import numpy as np
import pytest
import rasterio
from affine import Affine
from rasterio.windows import Window
from rasters import GRID, SPECTRUM, scene, write_cube

from hsfuse.core.errors import InputError, OutputError, SettingError
from hsfuse.core.grid import Grid
from hsfuse.io import open_cube, zarr_store
from hsfuse.io.files import is_store
from hsfuse.io.memory import data_array

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


def opened(path):
    """As people open it: without options."""
    xr = pytest.importorskip("xarray")
    pytest.importorskip("rioxarray")
    return xr.open_zarr(path)["reflectance"]


@pytest.mark.parametrize("transform", [GRID.transform, ROTATED])
def test_xarray_opens_a_zarr_group_as_it_is_meant(tmp_path, transform):
    grid = Grid(GRID.shape, transform, GRID.crs)
    data, mask = scene(grid)
    write_cube(tmp_path / "a.zarr", data, mask, grid)
    cube = opened(tmp_path / "a.zarr")
    assert cube.dims == ("wavelength", "y", "x")
    assert cube.sel(wavelength=SPECTRUM.wavelengths_nm[1] + 0.2, method="nearest").wavelength == pytest.approx(
        SPECTRUM.wavelengths_nm[1]
    )
    assert cube.fwhm.values.tolist() == list(SPECTRUM.fwhm_nm)
    assert cube.good_band.values.tolist() == list(SPECTRUM.good)
    assert cube.rio.crs.to_epsg() == GRID.crs.to_epsg()
    assert cube.rio.transform().almost_equals(transform, 1e-8)
    np.testing.assert_array_equal(cube.values[:, mask], data[:, mask])
    assert np.isnan(cube.values[:, ~mask]).all()
    with open_cube(cube, role="HSI") as reader:
        assert reader.grid == grid
        assert reader.spectrum == SPECTRUM


@pytest.mark.parametrize(
    ("dtype", "scale", "offset"), [("int16", 1e-4, 0.0), ("uint16", 3e-5, 0.7), ("uint8", 0.01, 0)]
)
def test_packed_integers_are_float32_in_xarray(tmp_path, dtype, scale, offset):
    """Of a codec; the bytes on disk are those of the integers, and hsfuse takes them as such."""
    data, mask = scene()
    how = {"dtype": dtype, "scale": scale, "offset": offset}
    write_cube(tmp_path / "a.zarr", data, mask, **how)
    write_cube(tmp_path / "b.zarr", data, mask, **how, options={"PACKING": "attributes"})
    cube, attributes = opened(tmp_path / "a.zarr"), opened(tmp_path / "b.zarr")
    assert (cube.dtype, attributes.dtype) == (np.float32, np.float64)
    np.testing.assert_allclose(cube.values, attributes.values, rtol=0, atol=scale / 1e3)  # NaN in the same places
    assert np.isnan(cube.values[:, ~mask]).all()
    raw = []
    for name in ("a.zarr", "b.zarr"):
        with open_cube(tmp_path / name) as reader:
            assert (reader.dtype, reader.scale, reader.offset) == (dtype, pytest.approx(scale, rel=1e-12), offset)
            raw.append(reader.pixels([0, 1, 2], Window(0, 0, *mask.shape[::-1]))[0])
            np.testing.assert_array_equal(reader.read().mask, mask)
    np.testing.assert_array_equal(raw[0], raw[1])
    assert raw[0].dtype == dtype
    chunks = [[path.read_bytes() for path in sorted((tmp_path / name / "reflectance" / "c").rglob("*"))
               if path.is_file()] for name in ("a.zarr", "b.zarr")]  # fmt: skip
    assert chunks[0] == chunks[1]


def test_packed_float32_survives_xarray_s_own_writing(tmp_path):
    data, mask = scene()
    write_cube(tmp_path / "a.zarr", data, mask, dtype="int16", scale=1e-4)
    cube = opened(tmp_path / "a.zarr")
    cube.to_dataset().to_zarr(tmp_path / "b.zarr")
    again = opened(tmp_path / "b.zarr")
    assert again.dtype == np.float32
    np.testing.assert_array_equal(again.values, cube.values)


@pytest.mark.parametrize(
    ("how", "packs"),
    [
        ({"dtype": "int16", "scale": 1e-4}, True),
        ({"dtype": "int16", "scale": 1e-4, "offset": 1e4}, False),  # float32 holds 1e4 in steps of 1e-3
        ({"dtype": "int32", "scale": 1e-4}, False),
        ({"dtype": "int16"}, False),
    ],
)
def test_a_codec_packs_where_float32_holds_each_number(how, packs):
    from hsfuse.io import Storage

    assert (zarr_store.Steps.of(Storage("Zarr", **how)) is not None) == packs


@pytest.mark.parametrize("options", [{"compress": "LZW"}, {"PACKING": "lzw"}])
def test_zarr_has_one_creation_option(tmp_path, options):
    with pytest.raises(SettingError, match=r"PACKING=CODEC and PACKING=ATTRIBUTES, not (COMPRESS|PACKING)="):
        write_cube(tmp_path / "a.zarr", *scene(), options=options)
    assert not list(tmp_path.iterdir())


def test_what_zarr_still_writes_of_a_failed_group_goes(tmp_path, monkeypatch):
    """On a full disk: one chunk fails, and others come while the group is removed."""
    write, late = zarr.Array.__setitem__, []

    def full(self, key, value):
        if not self.path.endswith("reflectance"):
            return write(self, key, value)
        late.extend(tmp_path.iterdir())
        raise OSError(errno.ENOSPC, "No space left on device")

    def another_chunk(seconds):
        if late:
            (late.pop() / "reflectance" / "c").mkdir(parents=True)

    monkeypatch.setattr(zarr.Array, "__setitem__", full)
    monkeypatch.setattr(zarr_store.time, "sleep", another_chunk)
    with pytest.raises(OutputError, match="No space left on device"):
        write_cube(tmp_path / "a.zarr", *scene())
    assert not late
    assert not list(tmp_path.iterdir())


def test_what_zarr_writes_late_is_waited_for(tmp_path, monkeypatch):
    """Interrupted in the middle, on a machine where nothing is heard of it for longer than is looked for."""
    from zarr.core import sync

    monkeypatch.setattr(zarr_store, "LOOK_S", 0.0)
    late = tmp_path / "a.zarr" / "c"
    coming = sync.asyncio.run_coroutine_threadsafe(
        sync.asyncio.to_thread(lambda: time.sleep(0.3) or late.mkdir(parents=True)), sync._get_loop()
    )
    zarr_store.discard(tmp_path / "a.zarr")
    assert coming.done()
    assert not list(tmp_path.iterdir())


def test_a_zarr_group_follows_the_format_and_the_conventions(tmp_path):
    """Format 3, chunks of tiles by some bands, what GeoZarr's conventions ask for."""
    grid = Grid((300, 280), GRID.transform, GRID.crs)
    data, mask = scene(grid)
    write_cube(tmp_path / "a.zarr", data, mask, grid)
    told = json.loads((tmp_path / "a.zarr" / "zarr.json").read_text())
    array = json.loads((tmp_path / "a.zarr" / "reflectance" / "zarr.json").read_text())
    assert (told["zarr_format"], array["dimension_names"]) == (3, ["wavelength", "y", "x"])
    assert array["chunk_grid"]["configuration"]["chunk_shape"] == [min(16, len(data)), 256, 256]
    assert set(told["consolidated_metadata"]["metadata"]) >= {"reflectance", "wavelength", "fwhm", "spatial_ref"}
    attributes = told["attributes"]
    assert [one["name"] for one in attributes["zarr_conventions"]] == ["proj", "spatial"]
    assert attributes["proj:wkt2"].startswith("PROJCRS[")
    assert attributes["spatial:transform"] == list(GRID.transform[:6])
    assert attributes["spatial:shape"] == [300, 280]


def test_a_lazy_or_eager_cube_comes_back_from_xarray_s_own_zarr(tmp_path):
    xr = pytest.importorskip("xarray")
    data, mask = scene()
    write_cube(tmp_path / "a.tif", data, mask, tags={"method": "conic"})
    with open_cube(tmp_path / "a.tif") as reader:
        wanted = reader.read()
        cube = data_array(np.where(mask, data, np.nan), reader.grid, reader.spectrum, reader.tags)
    cube.rename("brightness").chunk(x=20).to_zarr(tmp_path / "b.zarr")
    assert xr.open_zarr(tmp_path / "b.zarr").brightness.rio.crs == wanted.grid.crs
    with open_cube(tmp_path / "b.zarr", role="HSI") as reader:
        found = reader.read()
        assert reader.tags == {"HSFUSE_METHOD": "conic"}
        assert reader.grid == wanted.grid
    np.testing.assert_array_equal(found.data, wanted.data)
    np.testing.assert_array_equal(found.mask, wanted.mask)


def test_a_cube_comes_back_from_xarray_s_own_netcdf_with_its_wavelengths_and_place(tmp_path):
    data, mask = scene()
    write_cube(tmp_path / "a.tif", data, mask)
    with open_cube(tmp_path / "a.tif") as reader:
        wanted = reader.read()
        cube = data_array(np.where(mask, data, np.nan), reader.grid, reader.spectrum)
    cube.to_netcdf(tmp_path / "b.nc", engine="scipy")
    with open_cube(tmp_path / "b.nc", role="HSI") as reader:
        assert reader.spectrum.wavelengths_nm == wanted.spectrum.wavelengths_nm
        assert reader.grid == wanted.grid
        np.testing.assert_allclose(reader.read().data, wanted.data, rtol=1e-6)


def test_netcdf_has_wavelengths_by_the_coordinate_s_unit_and_a_crs_alone_is_no_place(tmp_path):
    xr = pytest.importorskip("xarray")
    for name, unit, wanted in (("b", "um", 500.0), ("wavelength", "", 500.0), ("b", "", None), ("time", "s", None)):
        nm = np.array([0.5, 0.625]) if unit == "um" else np.array([500.0, 625.0])
        array = xr.DataArray(
            np.ones((2, 3, 4), "f4"), dims=(name, "y", "x"), coords={name: (name, nm, {"units": unit})}
        )
        cube = array.assign_coords(y=[3.0, 2, 1], x=[1.0, 2, 3, 4]).rename("cube").rio.write_crs(32633)
        cube.to_netcdf(tmp_path / "b.nc", engine="scipy")
        with open_cube(tmp_path / "b.nc") as reader:
            assert (reader.spectrum.wavelengths_nm or [None])[0] == wanted
            assert not reader.grid.georeferenced
            assert any("not georeferenced" in one.text for one in reader.notes)


def test_a_group_with_several_arrays_of_three_dimensions_is_told(tmp_path):
    group = zarr.open_group(str(tmp_path / "a.zarr"), mode="w")
    for name in ("a", "b"):
        group.create_array(name, shape=(2, 3, 4), chunks=(2, 3, 4), dtype="f4")
    with pytest.raises(InputError, match=r"an array 'reflectance'.*it has a, b of three dimensions"):
        open_cube(tmp_path / "a.zarr")


def test_groups_of_format_2_are_read(tmp_path):
    group = zarr.open_group(str(tmp_path / "a.zarr"), mode="w", zarr_format=2)
    array = group.create_array("reflectance", shape=(2, 4, 5), chunks=(2, 4, 5), dtype="int16", fill_value=-1)
    array[...] = np.arange(-1, 39).reshape(2, 4, 5)
    array.attrs.update({"scale_factor": 0.5, "add_offset": 0.0})
    group.create_array("wavelength", shape=(2,), chunks=(2,), dtype="f8")[...] = [500.0, 600.0]
    with open_cube(tmp_path / "a.zarr", role="HSI") as reader:
        cube = reader.read()
    assert not cube.mask[0, 0]
    assert cube.data[1, 3, 4] == 19


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
    with pytest.raises(SettingError, match="for GeoTIFF, COG and Zarr"):
        write_cube(tmp_path / "a.dat", data, mask, options={"compress": "zstd"})


def test_a_zarr_group_of_another_layout_is_refused(tmp_path):
    zarr.open_group(str(tmp_path / "a.zarr"), mode="w")
    assert is_store(tmp_path / "a.zarr")
    with pytest.raises(InputError, match="no Zarr group with an array"):
        open_cube(tmp_path / "a.zarr")

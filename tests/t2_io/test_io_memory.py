"""DataArrays and cubes in memory: read by window as files are, never copied whole."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import rasterio
from rasterio.crs import CRS
from rasterio.windows import Window
from scenes import NORTH_UP

from hsfuse.core.cube import Cube, Spectrum
from hsfuse.core.errors import InputError
from hsfuse.core.grid import Grid
from hsfuse.io import open_cube
from hsfuse.io.memory import data_array

xr = pytest.importorskip("xarray")
da = pytest.importorskip("dask.array")
rioxarray = pytest.importorskip("rioxarray")
pytestmark = pytest.mark.filterwarnings("ignore::PendingDeprecationWarning")  # rioxarray's use of affine


def scene(dtype="float32", **attributes):
    """An array (band, y, x) of 3 bands on 10 x 8 pixels, as rioxarray opens rasters."""
    values = (np.arange(3 * 10 * 8).reshape(3, 10, 8) + 1).astype(dtype)
    made = xr.DataArray(
        values,
        dims=("band", "y", "x"),
        coords={
            "wavelength": ("band", [450.0, 550.0, 650.0], {"units": "nm"}),
            "y": 5000000 - 10 * (np.arange(10) + 0.5),
            "x": 600000 + 10 * (np.arange(8) + 0.5),
        },
        attrs=attributes,
        name="scene",
    )
    return made.rio.write_crs(32633).rio.write_transform(NORTH_UP)


WINDOW = Window(2, 3, 4, 5)


@pytest.mark.parametrize("kind", ["numpy", "dask"])
def test_windows_are_read_as_those_of_a_file(kind):
    array = scene() if kind == "numpy" else scene().chunk({"band": 2, "y": 4, "x": 3})
    with open_cube(array, role="HSI") as reader:
        found = reader.read(WINDOW, [2, 0])
        looked, _ = reader.sample([1], (2, 2))
    assert (found.data == scene().values[[2, 0], 3:8, 2:6]).all()
    assert found.grid == Grid((10, 8), NORTH_UP, CRS.from_epsg(32633)).window(WINDOW)
    assert found.spectrum.wavelengths_nm == (650.0, 450.0)
    assert looked[0].tolist() == scene().values[1][[2, 7]][:, [2, 6]].tolist()


def test_nodata_nan_scale_and_offset():
    raw = scene("int16", _FillValue=5, scale_factor=0.5, add_offset=1.0)
    found = open_cube(raw).read()
    assert found.data[0, 0, 0] == 1.5
    assert not found.mask[0, 4]
    assert found.mask.sum() == 79
    decoded = scene().where(scene() != 5)
    assert open_cube(decoded).read().mask.sum() == 79


def test_the_array_stays_as_it_is():
    array, before = scene(), scene().values
    reader = open_cube(array)
    reader.rescaled(3.0).read().data[:] = 7
    reader.with_nodata(2.0).read()
    assert (array.values == before).all()
    assert reader.array.values.base is not None or np.shares_memory(reader.array.values, array.values)


def test_of_dask_only_what_a_window_needs_is_computed():
    asked = []

    def block(values, block_info=None):
        asked.append(block_info[0]["chunk-location"])
        return values

    lazy = scene().copy(data=da.map_blocks(block, da.from_array(scene().values, chunks=(3, 5, 4)), dtype="float32"))
    asked.clear()
    open_cube(lazy).read(Window(0, 0, 2, 2))
    assert set(asked) == {(0, 0, 0)}


@pytest.mark.parametrize(
    ("values", "units"), [([0.45, 0.55, 0.65], "um"), ([0.45, 0.55, 0.65], None), ([450, 550, 650], None)]
)
def test_wavelengths_in_any_unit(values, units):
    told = ("band", values, {} if units is None else {"units": units})
    assert open_cube(scene().assign_coords(wavelength=told), role="HSI").spectrum.wavelengths_nm == (450, 550, 650)


def test_widths_names_and_bad_bands():
    array = scene().assign_coords(
        fwhm=("band", [0.01, 0.01, 0.02], {"units": "um"}),
        band=["B02", "B03", "B04"],
        good_wavelengths=("band", [1, 0, 1]),
    )
    spectrum = open_cube(array).spectrum
    assert spectrum == Spectrum((450, 550, 650), (10, 10, 20), ("B02", "B03", "B04"), (True, False, True))


def test_a_part_of_an_array_lies_where_its_coordinates_are():
    part = scene().isel(y=slice(2, 9), x=slice(1, 5))
    assert open_cube(part).grid == Grid((10, 8), NORTH_UP, CRS.from_epsg(32633)).crop(2, 1, (7, 4))
    assert open_cube(part.transpose("y", "x", "band")).read().data.shape == (3, 7, 4)
    assert open_cube(scene().isel(band=1)).count == 1


def test_a_cube_is_read_too():
    mask = np.ones((4, 4), bool)
    mask[1, 2] = False
    cube = Cube(np.ones((2, 4, 4), np.float32), Grid((4, 4), NORTH_UP), Spectrum((500.0, 600.0)), mask)
    found = open_cube(cube, role="HSI").read()
    assert (found.mask == mask).all()
    assert found.data[:, 1, 2].tolist() == [0, 0]


@pytest.mark.parametrize(
    ("broken", "told"),
    [
        (lambda a: a.drop_vars("wavelength"), "no wavelengths"),
        (
            lambda a: a.assign_coords(wavelength=a.wavelength.where(a.wavelength > 450)),
            "its coordinate wavelength isn't",
        ),
        (lambda a: a.assign_coords(x=[np.nan, *a.x.values[1:]]), "even steps"),
        (lambda a: a.rename(y="rows"), "wanted one of y, lat"),
        (lambda a: a.assign_coords(x=np.arange(8.0) ** 2), "even steps"),
        (lambda a: a.expand_dims("time"), "wanted numbers with those of bands"),
        (lambda a: a.astype(complex), "wanted numbers"),
        (lambda a: a.isel(y=slice(0, 0)), "wanted pixels"),
        (lambda a: a.to_dataset(), "is a Dataset; wanted a path"),
        (lambda a: a.values, "is a ndarray; wanted a path"),
        (lambda a: [a], "the HSI is a list with a DataArray; wanted paths"),
        (lambda a: a.assign_attrs(scale_factor="x"), "scale_factor is 'x', wanted a number"),
        (lambda a: a.assign_attrs(scale_factor=np.nan), "scale_factor is nan, wanted a finite number other than 0"),
        (lambda a: a.assign_attrs(_FillValue="none"), "_FillValue is 'none', wanted a number"),
    ],
)
def test_what_is_wrong_is_said_in_a_line(broken, told):
    with pytest.raises(InputError, match=told) as caught:
        open_cube(broken(scene()), role="HSI")
    assert "\n" not in str(caught.value)


def test_without_the_extra_its_name_is_told(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "rioxarray", None)
    with pytest.raises(Exception, match=r"pip install 'hsfuse\[xarray\]'"):
        open_cube(scene())


def test_readers_can_be_sent(files, tmp_path):
    """Of files and arrays alike: the copy has files of its own, and all that the reader was changed by."""
    for source in (files.hsi, [files.msi], scene()):
        reader = open_cube(source)
        changed = reader.rescaled(2.0).without_fill([0.5], [], [0]).holding("radiance")
        wanted = changed.read()
        copy = pickle.loads(pickle.dumps(changed))
        reader.close()
        found = copy.read()
        copy.close()
        assert (found.data == wanted.data).all()
        assert (copy.quantity, copy.scale, copy.spectrum) == ("radiance", changed.scale, changed.spectrum)


def test_it_is_the_scene_that_rioxarray_opens(files):
    """The same pixels, grid and wavelengths (which rioxarray leaves in the bands' names) as by hsfuse's own reader."""
    array = rioxarray.open_rasterio(files.hsi)
    with open_cube(files.hsi, role="HSI") as reader:
        wanted = reader.read()
    found = open_cube(array, role="HSI").read()
    assert (found.data == wanted.data).all()
    assert found.grid == wanted.grid
    assert found.spectrum.wavelengths_nm == pytest.approx(wanted.spectrum.wavelengths_nm)
    array.close()


@pytest.fixture
def tagged(tmp_path):
    """A GeoTIFF that has wavelengths and FWHM in its bands' tags alone."""
    how = {"driver": "GTiff", "height": 4, "width": 5, "count": 3, "dtype": "uint16", "crs": "EPSG:32633"}
    with rasterio.open(tmp_path / "tagged.tif", "w", transform=NORTH_UP, **how) as ds:
        ds.write(np.arange(60, dtype=np.uint16).reshape(3, 4, 5))
        for i, nm in enumerate((450, 550, 650)):
            ds.update_tags(i + 1, wavelength=nm, fwhm=10 + i, wavelength_units="nanometers")
    return tmp_path / "tagged.tif"


def test_wavelengths_in_band_tags_are_those_of_the_file(tagged):
    with rioxarray.open_rasterio(tagged) as array:
        found = open_cube(array, role="HSI")
        with open_cube(tagged, role="HSI") as reader:
            assert found.spectrum == reader.spectrum
        assert "those of" in found.notes[-1].text
        assert open_cube(array.isel(band=[2, 0], x=slice(1, 4)), role="HSI").spectrum == reader.spectrum.select([2, 0])
        assert open_cube(array.isel(band=1), role="HSI").spectrum == reader.spectrum.select([1])
        own = array.assign_coords(wavelength=("band", [500.0, 600.0, 700.0], {"units": "nm"}))
        assert open_cube(own, role="HSI").spectrum == Spectrum((500, 600, 700))
        with pytest.raises(InputError, match="or the path of a file that has them"):
            open_cube(array.assign_coords(band=[0, 1, 2]), role="HSI")
        tagged.unlink()
        with pytest.raises(InputError, match="no wavelengths"):
            open_cube(array, role="HSI")


def test_wavelengths_are_a_list_among_the_attributes():
    array = scene(wavelength=(0.45, 0.55, 0.65), wavelength_units="um").drop_vars("wavelength")
    assert open_cube(array, role="HSI").spectrum.wavelengths_nm == (450, 550, 650)


def test_a_cube_becomes_a_data_array_without_a_copy_of_its_pixels():
    data = np.ones((3, 4, 5), np.float32)
    grid = Grid((4, 5), NORTH_UP, CRS.from_epsg(32633))
    made = data_array(data, grid, Spectrum((450.0, 550.0, 650.0)))
    assert np.shares_memory(made.values, data)
    assert made.rio.crs == grid.crs
    assert made.rio.transform() == grid.transform

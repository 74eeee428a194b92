"""From two DataArrays to a fused one: the pixels that `fuse` writes, eager or lazy, by one model for many scenes."""

from __future__ import annotations

import pickle
from dataclasses import replace

import numpy as np
import pytest
from affine import Affine
from scenes import BANDS, FWHM_NM, HSI, MSI, WAVELENGTHS_NM, memory_scene, save, save_pair

import hsfuse
from hsfuse.core.errors import InputError, ModelError, OutputError, SettingError
from hsfuse.core.grid import Grid
from hsfuse.fusion import lazy
from hsfuse.io import open_cube
from hsfuse.io.memory import data_array

xr = pytest.importorskip("xarray")
pytest.importorskip("dask.array")
rioxarray = pytest.importorskip("rioxarray")
pytestmark = pytest.mark.filterwarnings("ignore::PendingDeprecationWarning")  # rioxarray's use of affine

#: Several tiles along both axes, with the last ones of other sizes.
SMALL = {"method": "glp-reg", "tile": 24, "overlap": 6}
#: Nothing is estimated.
OPENED = {"srf": "sentinel2a", "register": "off", "psf": "assumed"}
CHUNKS = ({"band": 9, "y": 11, "x": 13}, {"y": 50, "x": 37})


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    """A pair with invalid pixels in both images."""
    made = memory_scene((31, 26))
    mask = np.ones((31, 26), bool)
    mask[4:7, 5:9] = False
    msi = made.msi[0].numpy().copy()
    msi[:, 50:61, 40:52] = np.nan
    return save_pair(tmp_path_factory.mktemp("scene"), made, mask, msi)


def arrays(scene):
    hsi = rioxarray.open_rasterio(scene.hsi).load()
    hsi = hsi.assign_coords(wavelength=("band", WAVELENGTHS_NM), fwhm=("band", FWHM_NM))
    return hsi, rioxarray.open_rasterio(scene.msi).load()


@pytest.fixture(scope="module")
def wanted(scene):
    """What fuse writes."""
    output = scene.folder / "fused.tif"
    hsfuse.fuse(scene.hsi, scene.msi, output=output, dtype="float32", **OPENED, **SMALL)
    with open_cube(output) as reader:
        cube = reader.read()
    return np.where(cube.mask, cube.data, np.nan)


@pytest.fixture(scope="module")
def pair(scene):
    with hsfuse.open_pair(*arrays(scene), **OPENED) as opened:
        yield opened


@pytest.fixture(scope="module")
def model(pair):
    return hsfuse.fit(pair, **SMALL)


@pytest.fixture
def many_batches(monkeypatch):
    """Batches of two tiles."""
    monkeypatch.setattr(lazy, "BATCH_PIXELS", 2 * 24 * 24)


def same(found, wanted):
    """But for roundings: tiles come in batches of other sizes."""
    return np.allclose(found, wanted, rtol=0, atol=1e-6, equal_nan=True)


def chunked_pair(scene):
    hsi, msi = arrays(scene)
    return hsfuse.open_pair(hsi.chunk(CHUNKS[0]), msi.chunk(CHUNKS[1]), **OPENED)


def test_the_pixels_are_those_of_the_file(pair, model, wanted):
    assert np.isnan(wanted).any()
    cube = model.apply(pair)
    assert isinstance(cube.data, np.ndarray)
    assert same(cube.values, wanted)


@pytest.mark.parametrize("scheduler", ["synchronous", "threads"])
def test_they_are_with_dask(scene, wanted, many_batches, scheduler):
    import dask

    with chunked_pair(scene) as pair:
        cube = hsfuse.fit(pair, **SMALL).apply(pair)
        assert cube.chunks is not None
        assert len(cube.chunks[2]) > 1
        with dask.config.set(scheduler=scheduler):
            assert same(cube.values, wanted)
            assert same(cube.isel(x=slice(40, 60), y=slice(60, 80)).values, wanted[:, 60:80, 40:60])


def test_one_lazy_image_is_enough(scene, wanted, many_batches):
    """The file is opened again for the graph, which so outlives the pair."""
    msi = arrays(scene)[1].chunk(CHUNKS[1])
    with hsfuse.open_pair(scene.hsi, msi, **OPENED) as pair:
        cube = hsfuse.fit(pair, **SMALL).apply(pair)
    assert same(cube.values, wanted)


def test_a_resampled_pair_is_read_from_its_chunks(scene, many_batches):
    """The LRHSI turned and shifted against the MSI: each batch gets the chunks that its warp reaches for."""
    hsi, msi = arrays(scene)
    hsi = hsi.chunk(CHUNKS[0])
    grid = Grid((31, 26), Affine(29, 2, 600003, 2, -29, 4999990), None)
    bare = xr.DataArray(hsi.data, dims=hsi.dims, coords={"wavelength": hsi.wavelength}, attrs=hsi.attrs)
    turned = bare.rio.write_crs(hsi.rio.crs).rio.write_transform(grid.transform)
    eager = hsfuse.open_pair(turned.compute(), msi, **OPENED)
    model = hsfuse.fit(eager, **SMALL)
    assert eager.warped
    lazy_pair = hsfuse.open_pair(turned, msi.chunk(CHUNKS[1]), **OPENED)
    assert same(model.apply(lazy_pair).values, model.apply(eager).values)


def test_coordinates_crs_and_provenance(pair, model, scene):
    cube = model.apply(pair)
    assert cube.dims == ("wavelength", "y", "x")
    assert cube.sel(wavelength=650, method="nearest").wavelength == 651
    assert cube.fwhm.values.tolist() == pytest.approx(FWHM_NM.tolist())
    assert cube.rio.crs.to_epsg() == 32633
    assert cube.rio.transform() == scene.hr_grid.transform
    assert cube.spatial_ref.attrs["GeoTransform"].startswith("600000")
    with open_cube(cube) as reader:
        assert reader.quantity == "unknown"  # no input says
        assert '"method": "glp-reg"' in reader.tags["HSFUSE_PROVENANCE"]


def test_arrays_are_assessed_as_files(pair, model, scene):
    cube = model.apply(pair)
    truth = data_array(scene.scene.truth[0].numpy(), scene.hr_grid, HSI, {"HSFUSE_QUANTITY": "reflectance"})
    hsi, msi = arrays(scene)
    found = hsfuse.assess(cube, reference=truth, hsi=hsi, msi=msi, window=16)  # sensor and PSF: as the cube says
    output = save(scene.folder / "again.tif", cube.values, scene.hr_grid, HSI, ~np.isnan(cube.values[0]))
    truth_file = save(scene.folder / "truth.tif", truth.values, scene.hr_grid, HSI)
    files = hsfuse.assess(output, reference=truth_file, window=16)
    assert found.metrics["sam"] == pytest.approx(files.metrics["sam"], rel=1e-6)
    assert 0 < found.metrics["hsi_rmse"] < 0.05
    assert found.provenance["method"]["method"] == "glp-reg"


def test_a_model_can_be_sent_and_kept(pair, model, wanted, tmp_path):
    assert same(pickle.loads(pickle.dumps(model)).apply(pair).values, wanted)
    kept = hsfuse.load_model(model.save(tmp_path / "model"))
    assert same(kept.apply(pair).values, wanted)
    assert (kept.options, kept.sensors) == (model.options, model.sensors)
    assert {file.name for file in kept_files(tmp_path)} == {"model.json", "method.safetensors"}
    with pytest.raises(OutputError, match="holds a model already"):
        model.save(tmp_path / "model")
    assert hsfuse.load_model(model.save(tmp_path / "model", overwrite=True)).sensors == model.sensors


def kept_files(folder):
    return list((folder / "model").iterdir())


def test_a_model_that_cannot_be_read_is_refused_in_a_line(model, tmp_path):
    folder = model.save(tmp_path / "model")
    about, method = folder / "model.json", folder / "method.safetensors"
    text = about.read_text()
    for broken in ("", "{}", "[]", text.replace('"hsfuse": "', '"hsfuse": "9'), text.replace('"srf"', '"sfr"')):
        about.write_text(broken)
        with pytest.raises(ModelError) as caught:
            hsfuse.load_model(folder)
        assert "\n" not in str(caught.value)
    about.write_text(text)
    data = bytearray(method.read_bytes())
    data[-5] ^= 0xFF
    method.write_bytes(data)
    with pytest.raises(ModelError, match="fit it again"):
        hsfuse.load_model(folder)


def test_one_model_for_many_scenes_of_the_same_sensors(model, tmp_path):
    """Another scene, of another size, in which some pixels are invalid."""
    other = save_pair(tmp_path, memory_scene((16, 14), seed=3))
    with hsfuse.open_pair(other.hsi, other.msi, **OPENED) as pair:
        cube = model.apply(pair)
    error = np.abs(cube.values - other.scene.truth[0].numpy()).mean()
    assert error < 0.25 * other.scene.truth.std()


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"ratio": 4}, "the ratio 3, this pair has 4"),
        ({"msi_bands": ("B2",)}, "the MSI bands B2, B3, B4, B8, this pair has B2"),
        ({"wavelengths_nm": (430.0,)}, "31 HSI bands, this pair has 1 in use"),
        ({"wavelengths_nm": tuple(WAVELENGTHS_NM + 3)}, "an HSI band at 430 nm, this pair's is at 433 nm"),
    ],
)
def test_a_pair_of_other_sensors_is_refused(model, changed, told):
    assert model.sensors.misfit(model.sensors) is None
    assert told in model.sensors.misfit(replace(model.sensors, **changed))


def test_the_refusal_is_one_line(model, scene, tmp_path):
    msi = save(tmp_path / "msi.tif", scene.scene.msi[0, :3].numpy(), scene.hr_grid, replace(MSI, names=BANDS[:3]))
    with (
        hsfuse.open_pair(scene.hsi, msi, **OPENED) as pair,
        pytest.raises(ModelError, match=r"^the model was fitted to the MSI bands .* this pair has B2, B3, B4; fit"),
    ):
        model.apply(pair)


@pytest.mark.parametrize("what", ["x", np.zeros((3, 4, 4))])
def test_what_is_no_pair_is_refused(model, what):
    for use in (hsfuse.fit, model.apply):
        with pytest.raises(InputError, match=rf"^the pair is a {type(what).__name__}, wanted what hsfuse.open_pair"):
            use(what)


@pytest.mark.parametrize(
    ("given", "told"),
    [({"srf": "ali"}, "told to open_pair"), ({"qa": "a.tif"}, "about files"), ({"tiles": 3}, "did you mean 'tile'")],
)
def test_other_options_are_refused(pair, given, told):
    with pytest.raises(SettingError, match=told):
        hsfuse.fit(pair, **{**SMALL, **given})


def test_the_graph_of_the_largest_scene_is_small(pair, model):
    """10,980 x 10,980 pixels of a 31 bands: about three tasks a batch of tiles, whatever the bands."""
    import dask.array as da

    grid = Grid((10980, 10980), pair.alignment.hr_grid.transform, pair.alignment.hr_grid.crs)
    tiles = replace(model.tiles(pair), shape=grid.shape, stride=96, overlap=18)
    huge = lambda bands, side: da.zeros((bands, side, side), chunks=(bands, 2048, 2048), dtype="float32")  # noqa: E731
    whole = replace(pair.alignment, hr_grid=grid)
    big = replace(pair, hsi=pair.hsi.over(huge(31, 3660)), msi=pair.msi.over(huge(4, 10980)), alignment=whole)
    cube = lazy.lazy_cube(replace(model.worker(pair), pair=big), tiles, 31)
    assert cube.shape == (31, 10980, 10980)
    assert len(cube.__dask_graph__()) < 20_000


def test_what_a_user_holds_shows_itself_in_a_few_lines(scene):
    """Grid, bands, sensors, ratio and PSF, and no array."""
    with hsfuse.open_pair(scene.hsi, scene.msi, **OPENED) as pair:
        model, cube = hsfuse.fit(pair, **SMALL), pair.msi.read()
        shown = {
            repr(pair): ["93 x 78 MSI pixels, ratio 3", "31 bands, 430 to 940 nm", "sentinel2a", "PSF Gaussian, sigma"],
            repr(model): ["glp-reg", "31 bands, 430 to 940 nm", "ratio 3", "B2, B3, B4, B8"],
            repr(pair.model): ["31 HSI bands, ratio 3", "PSF Gaussian"],
            repr(cube): ["4 bands", "93 x 78 pixels of 10 x 10 m, EPSG:32633", "% valid"],
            repr(pair.response): ["sentinel2a", "B8A", "nm"],
            repr(pair.hsi): ["hsi.tif", "31 bands", "30 x 30"],
            repr(pair.spectrum): ["31 bands", "FWHM for 31"],
        }
    for text, wanted in shown.items():
        assert all(part in text for part in wanted), text
        assert len(text) < 800, text
        assert "array(" not in text
        assert text.count("\n") < 9

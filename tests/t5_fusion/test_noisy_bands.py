"""Bands of an HSI that are mostly noise cost the others nothing, whatever fuses them, and keep their own level."""

from __future__ import annotations

import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch
from affine import Affine
from rasterio.crs import CRS
from scenes import BANDS, MSI, NORTH_UP, memory_scene, save

from hsfuse import fit, load_model, open_pair
from hsfuse.core.cube import Spectrum
from hsfuse.core.grid import Grid
from hsfuse.fusion.tiles import TileWorker
from hsfuse.methods import predict_inside, predicted
from hsfuse.pair.sample import sample_scene

#: More of them than methods can give coefficients beside those of the ground.
NM, LOUD, NOISE = np.linspace(430.0, 940.0, 62), [0, 1, 2, 12, 13, 30, 31, 32, 39, 40, 52, 53, 59, 60, 61], 0.25
QUIET = np.delete(np.arange(NM.size), LOUD)


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    """An open pair with loud bands, the same without, and the truth (C, H, W)."""
    folder, scene = tmp_path_factory.mktemp("loud"), memory_scene((30, 30))
    between = np.stack([np.interp(np.arange(62) * 30 / 61, np.arange(31), one) for one in np.eye(31)], 1)
    truth, lrhsi = (np.tensordot(between, one[0].numpy(), 1) for one in (scene.truth, scene.lrhsi))
    rng = np.random.default_rng(0)
    plain = lrhsi + 0.003 * rng.standard_normal(lrhsi.shape)
    loud = plain.copy()
    loud[LOUD] += NOISE * rng.standard_normal(loud[LOUD].shape)
    grid = Grid(truth.shape[1:], NORTH_UP @ Affine.identity(), CRS.from_epsg(32633))
    high = save(folder / "m.tif", scene.msi[0].numpy() + 0.001 * rng.standard_normal(scene.msi[0].shape), grid, MSI)
    lows = [
        save(folder / f"{i}.tif", one, grid.coarsen(3), Spectrum(tuple(NM), None))
        for i, one in enumerate((loud, plain))
    ]
    given = {"srf": "sentinel2a", "psf": "assumed", "register": "off", "match_radiometry": "off", "msi_bands": BANDS}
    with open_pair(lows[0], high, **given) as noisy, open_pair(lows[1], high, **given) as quiet:
        yield noisy, quiet, truth


def rmse(cube, truth: np.ndarray, bands) -> float:
    return float(np.sqrt(np.square(cube.values[bands] - truth[bands]).mean()))


@pytest.mark.parametrize("method", ["glp-reg", "cnmf", "fuse", "blend"])
def test_good_bands_are_fused_as_without_the_noise_of_others(pairs, method):
    noisy, quiet, truth = pairs
    assert np.flatnonzero(noisy.units > 1).tolist() == LOUD
    assert quiet.units is None
    best = rmse(fit(quiet, method).apply(quiet), truth, QUIET)
    cube = fit(noisy, method).apply(noisy)
    as_data = fit(replace(noisy, units=None), method).apply(noisy)
    assert rmse(cube, truth, QUIET) < 1.15 * best < 0.4 * rmse(as_data, truth, QUIET)
    assert rmse(cube, truth, LOUD) < 0.9 * rmse(as_data, truth, LOUD)


@pytest.mark.parametrize("method", ["bicubic", "glp", "guided"])
def test_a_method_that_fuses_each_band_by_itself_gives_the_same_bits(pairs, method):
    noisy = pairs[0]
    found, plain = (fit(pair, method).apply(noisy).values for pair in (noisy, replace(noisy, units=None)))
    assert np.array_equal(found, plain)


@pytest.mark.parametrize("method", ["glp-ens", "cnmf"])
def test_a_kept_model_and_a_worker_know_the_units(pairs, tmp_path, method):
    noisy, quiet, _ = pairs
    model = fit(noisy, method)
    cube = model.apply(noisy).values
    model.save(tmp_path / "model")
    for other in (pickle.loads(pickle.dumps(model)), load_model(tmp_path / "model", "cpu")):
        assert np.array_equal(other.apply(noisy).values, cube)
    worker = pickle.loads(pickle.dumps(TileWorker(quiet, model.method)))
    assert torch.equal(worker.fuser.units, torch.from_numpy(noisy.units))


@pytest.mark.parametrize("method", ["glp-ens", "cnmf"])
def test_quality_layers_are_of_what_is_written(pairs, method):
    noisy = pairs[0]
    scene, fuser = sample_scene(noisy), fit(noisy, method).method
    whole = [tuple(slice(0, n) for n in scene.msi.shape[2:])]
    (written,) = predict_inside(fuser, noisy.model, scene.lrhsi, scene.msi, whole)
    torch.testing.assert_close(predicted(fuser, scene.lrhsi, scene.msi)[0], written, rtol=0, atol=1e-6)

"""Edge-aware local regression: exact where it should be, and sharp at the edges of materials."""

import numpy as np
import pytest
import torch
from scenes import mixture

from hsfuse.methods import make_method
from hsfuse.methods.blend import GuidedAxes
from hsfuse.methods.guided import Guided
from hsfuse.physics.model import ObservationModel, gaussian_psf
from hsfuse.physics.sample import PairSample

SCALE, SIDE = 4, 64


def model(phase=None):
    response = np.zeros((3, 12))
    for band, places in enumerate(((1, 2), (5, 6), (9, 10))):
        response[band, places] = 0.5
    return ObservationModel(response, gaussian_psf(1.5, SCALE, phase, None if phase is None else 5), SCALE, phase)


def fused(truth, sensors, method=None):
    lrhsi, msi = sensors(truth)
    scene = PairSample(lrhsi, msi, torch.ones(1, *lrhsi.shape[2:], dtype=torch.bool))
    return (method or Guided()).fit(scene, sensors).predict(lrhsi, msi)


def smooth(low, high, count, seed):
    """Random maps without detail finer than 16 pixels: (1, count, 64, 64) from low to high."""
    coarse = np.random.default_rng(seed).uniform(low, high, (1, count, 5, 5)).astype(np.float32)
    return torch.nn.functional.interpolate(torch.from_numpy(coarse), (SIDE, SIDE), mode="bilinear", align_corners=True)


def patchwork(seed=0, materials=9):
    """Materials in squares of 16 pixels with edges inside LR pixels, and a smooth brightness: (1, 12, 64, 64)."""
    rng = np.random.default_rng(seed)
    spectra = rng.uniform(0.1, 0.9, (materials, 12)).astype(np.float32)
    kinds = np.roll(rng.integers(0, materials, (4, 4)).repeat(16, 0).repeat(16, 1), 2, (0, 1))
    return torch.from_numpy(spectra[kinds].transpose(2, 0, 1))[None] * smooth(0.6, 1.0, 1, seed)


@pytest.mark.parametrize("phase", [None, 0.0])
def test_spectra_that_are_linear_in_the_msi_are_found_nearly(phase):
    directions = torch.from_numpy(np.random.default_rng(1).uniform(0.2, 1, (12, 3)).astype(np.float32))
    truth = torch.einsum("ck,bkhw->bchw", directions, smooth(0.2, 0.8, 3, 1))
    assert torch.allclose(fused(truth, model(phase)), truth, atol=0.05)


def test_brightness_of_the_whole_scene_makes_no_difference():
    truth, sensors = patchwork(), model()
    assert torch.allclose(fused(truth * 0.1, sensors), fused(truth, sensors) * 0.1, atol=1e-4)


def test_a_flat_scene_stays_flat():
    truth = torch.full((1, 12, SIDE, SIDE), 0.4)
    assert torch.allclose(fused(truth, model()), truth, atol=1e-3)


@pytest.mark.parametrize("phase", [None, 0.0])
def test_materials_end_at_their_edges(phase):
    truth, sensors = patchwork(), model(phase)
    errors = {
        name: float((fused(truth, sensors, method) - truth).square().mean().sqrt())
        for name, method in (("guided", Guided()), ("interpolated", make_method("glp-reg")))
    }
    assert errors["guided"] < 0.6 * errors["interpolated"]


def test_in_a_subspace_that_holds_the_spectra_it_gives_the_same():
    truth, sensors = patchwork(materials=5), model()
    lrhsi, msi = sensors(truth)
    scene = PairSample(lrhsi, msi, torch.ones(1, *lrhsi.shape[2:], dtype=torch.bool))
    axes = GuidedAxes().fit(scene, sensors)
    inside = axes.subspace.unproject(axes.coefficients(lrhsi, msi))
    torch.testing.assert_close(inside, fused(truth, sensors), atol=1e-3, rtol=0)


@pytest.mark.parametrize("seed", [0, 1])
def test_one_broad_band_is_better_than_none(seed):
    """Its chroma is the same everywhere; the LRHSI's own colours must come through all the same."""
    truth = torch.from_numpy(mixture((SIDE, SIDE), seed))[None]
    sensors = ObservationModel(np.full((1, 31), 1 / 31), gaussian_psf(1.9, SCALE), SCALE)
    errors = [
        float((image - truth).square().mean().sqrt())
        for image in (fused(truth, sensors), sensors.upsample(sensors.spatial(truth)))
    ]
    assert errors[0] < 0.75 * errors[1]


@pytest.mark.parametrize("bands", [1, 3])
def test_the_halo_is_honest(bands):
    """A tile with its halo gives what the whole scene gives there."""
    truth = patchwork().repeat(1, 1, 2, 2)
    sensors = ObservationModel(model().srf[:bands], model().psf, SCALE)
    lrhsi, msi = sensors(truth)
    method = Guided().fit(PairSample(lrhsi, msi, torch.ones(1, 32, 32, dtype=torch.bool)), sensors)
    halo, s = method.requirements.halo, SCALE
    size = 2 * halo + 3
    tile = method.predict(
        lrhsi[..., 5 : 5 + size, 2 : 2 + size], msi[..., 5 * s : (5 + size) * s, 2 * s : (2 + size) * s]
    )
    inner = slice(halo * s, -halo * s)
    whole = method.predict(lrhsi, msi)[..., 5 * s : (5 + size) * s, 2 * s : (2 + size) * s]
    torch.testing.assert_close(tile[..., inner, inner], whole[..., inner, inner], rtol=0, atol=1e-4)


def test_two_images_in_a_batch_do_not_mix():
    first, second, sensors = patchwork(0), patchwork(1), model()
    lrhsi, msi = sensors(torch.cat([first, second]))
    method = Guided().fit(PairSample(lrhsi, msi, torch.ones(2, 16, 16, dtype=torch.bool)), sensors)
    together = method.predict(lrhsi, msi)
    assert torch.allclose(together[1:], method.predict(lrhsi[1:], msi[1:]), atol=1e-5)
    assert method.describe() == {"method": "guided"}

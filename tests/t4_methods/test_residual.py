"""The Wiener filter on what a regression leaves of the LRHSI."""

import pytest
import torch

from hsfuse.methods.residual import LEAST_OF_RESIDUAL, ResidualFilter
from hsfuse.methods.subspace import fit_subspace
from hsfuse.physics.sample import PairSample

BANDS, AXES, SIDE = 40, 4, 24
NOISE = 0.05
#: Deviations of the true residual on the four axes: two far above the noise, one alike, one far below.
SIGNAL = torch.tensor([1.0, 0.5, 0.05, 0.002])


@pytest.fixture(scope="module")
def truth():
    """Coefficients (1, K, h, w), smooth enough for signal to be told from noise, and the subspace."""
    random = torch.Generator().manual_seed(3)
    basis = torch.linalg.qr(torch.randn(BANDS, AXES, generator=random))[0]
    maps = torch.randn(1, AXES, SIDE // 4, SIDE // 4, generator=random)
    maps = torch.nn.functional.interpolate(maps, size=(SIDE, SIDE), mode="bilinear")
    maps = maps / maps.square().mean((2, 3), keepdim=True).sqrt() * SIGNAL[:, None, None]
    return maps, fit_subspace(basis @ torch.diag(SIGNAL), AXES)


def filtered(maps, subspace, noise, brightness=None):
    """Coefficients of the filtered LRHSI, of noisy maps, and the filter."""
    random = torch.Generator().manual_seed(4)
    lrhsi = subspace.unproject(maps)
    lrhsi = lrhsi + noise * torch.randn(lrhsi.shape, generator=random)
    scene = PairSample(lrhsi, torch.zeros(1, 1, SIDE, SIDE), torch.ones(1, SIDE, SIDE, dtype=torch.bool))
    residual = subspace.project(lrhsi)
    brightness = torch.ones(1, 1, SIDE, SIDE) if brightness is None else brightness
    found = ResidualFilter.of(scene, subspace, residual, brightness)
    return subspace.project(found(lrhsi, residual, brightness)), residual, found


def test_noise_goes_as_far_as_wiener_says(truth):
    maps, subspace = truth
    clean, noisy, _ = filtered(maps, subspace, NOISE)
    left, before = ((x - maps).square().mean((0, 2, 3)) for x in (clean, noisy))
    wanted = SIGNAL**2 / (SIGNAL**2 + NOISE**2)  # the share of the noise's variance that is left, at best
    assert torch.allclose(left / before, wanted, atol=0.12)
    assert left[3] < 0.05 * before[3]


def test_what_has_no_noise_stays(truth):
    """But for the noise assumed at least: of variance n it takes n / (p + n) of power p, sqrt(n) / 2 at most."""
    maps, subspace = truth
    clean, _, _ = filtered(maps, subspace, 0.0)
    taken = (clean - maps).square().mean((0, 2, 3)).sqrt()
    assert taken.max() < LEAST_OF_RESIDUAL**0.5 / 2 * maps.square().mean().sqrt()


def test_dark_pixels_are_believed_less(truth):
    maps, subspace = truth
    brightness = torch.ones(1, 1, SIDE, SIDE)
    brightness[..., : SIDE // 2] = 0.1
    clean, noisy, _ = filtered(maps * brightness, subspace, NOISE, brightness)
    dark, bright = (((clean / noisy)[:, 1, :, part]).median() for part in (slice(SIDE // 2), slice(SIDE // 2, None)))
    assert dark < 0.8 < 0.95 < bright


def test_units_of_the_image_are_of_no_account(truth):
    maps, subspace = truth
    clean, _, found = filtered(maps, subspace, NOISE)
    large, _, _ = filtered(1e4 * maps, subspace, 1e4 * NOISE)
    assert torch.allclose(large, 1e4 * clean, rtol=1e-3, atol=1e4 * 1e-5)
    assert found.power[0] > 100 > 1 > found.power[-1]

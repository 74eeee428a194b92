"""The spectral subspace keeps what the network compares: lengths, angles, blur and response."""

from dataclasses import replace

import pytest
import torch
from pretend_gpu import pretend_gpu

from hsfuse.methods.denoise import gaussian_blur
from hsfuse.methods.subspace import LEAST_SPREAD, fit_subspace, scene_subspace
from hsfuse.physics.model import ObservationModel, gaussian_psf
from hsfuse.physics.sample import PairSample


def spectra(bands=20, rank=5, pixels=400, noise=0.0, seed=0):
    g = torch.Generator().manual_seed(seed)
    mix = torch.rand(bands, rank, generator=g) @ torch.rand(rank, pixels, generator=g)
    return mix + noise * torch.randn(bands, pixels, generator=g)


@pytest.mark.parametrize("dimension", [1, 5, 20, 99])
def test_axes_are_orthonormal_and_no_more_than_bands(dimension):
    subspace = fit_subspace(spectra(noise=0.1), dimension)
    k = min(dimension, 20)
    assert subspace.dimension == k
    torch.testing.assert_close(subspace.basis.T @ subspace.basis, torch.eye(k), atol=1e-5, rtol=0)


def test_what_lies_inside_comes_back():
    data = spectra()
    subspace = fit_subspace(data, 5)
    cube = data.reshape(1, 20, 20, 20)
    torch.testing.assert_close(subspace.unproject(subspace.project(cube)), cube, atol=1e-5, rtol=0)
    assert subspace.residual(cube).abs().max() < 1e-5


def test_parts_add_up_and_are_orthogonal():
    cube = spectra(noise=0.2).reshape(1, 20, 20, 20)
    subspace = fit_subspace(cube[0].flatten(1), 3)
    residual = subspace.residual(cube)
    torch.testing.assert_close(subspace.unproject(subspace.project(cube)) + residual, cube)
    assert subspace.project(residual).abs().max() < 1e-5


def test_angles_and_lengths_are_those_of_the_coefficients():
    data = spectra().reshape(1, 20, 20, 20)
    a = fit_subspace(data[0].flatten(1), 5).project(data)
    torch.testing.assert_close(a.norm(dim=1), data.norm(dim=1))
    between = torch.nn.functional.cosine_similarity
    torch.testing.assert_close(between(a[..., 1:], a[..., :-1]), between(data[..., 1:], data[..., :-1]))


def test_the_best_subspace_of_its_size():
    """Eckart and Young 1936: no other K axes leave a smaller residual than the discarded singular values."""
    data = spectra(noise=0.3)
    residual = fit_subspace(data, 4).residual(data[None, :, :, None])
    wanted = torch.linalg.svdvals(data.double())[4:].square().sum().sqrt()
    torch.testing.assert_close(residual.double().norm(), wanted, rtol=1e-5, atol=0)


def test_spread_is_the_coefficients_rms():
    data = spectra(noise=0.1)
    subspace = fit_subspace(data, 4)
    rms = subspace.project(data[None, :, :, None]).square().mean((0, 2, 3)).sqrt()
    torch.testing.assert_close(rms, subspace.spread, rtol=1e-4, atol=1e-6)
    assert (subspace.spread.diff() <= 0).all()


def test_empty_axes_have_a_unit_all_the_same():
    """A scene of rank 5: the other axes' spread is rounding, in whose units nothing could be compared."""
    spread = fit_subspace(spectra(rank=5), 12).spread
    torch.testing.assert_close(spread[5:] / spread[0], torch.full((7,), LEAST_SPREAD))
    assert spread[4] > 10 * LEAST_SPREAD * spread[0]


def test_signs_do_not_depend_on_the_data_s_order():
    data = spectra(noise=0.1)
    a, b = fit_subspace(data, 6), fit_subspace(data.flip(1), 6)
    torch.testing.assert_close(a.basis, b.basis, atol=1e-4, rtol=0)


def test_response_and_psf_act_inside():
    data = spectra().reshape(1, 20, 20, 20)
    subspace = fit_subspace(data[0].flatten(1), 5)
    model = ObservationModel(torch.rand(3, 20), gaussian_psf(1.0, 2), 2)
    inside = model.with_srf(model.srf @ subspace.basis)
    a = subspace.project(data)
    torch.testing.assert_close(inside.spectral(a), model.spectral(data), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(subspace.unproject(inside.spatial(a)), model.spatial(data), rtol=1e-4, atol=1e-4)


def test_moving_keeps_everything():
    data = spectra().reshape(1, 20, 20, 20)
    subspace = fit_subspace(data[0].flatten(1), 3)
    with pretend_gpu() as device:
        moved = subspace.to(str(device))
        assert moved.basis.device == moved.spread.device == device
        assert torch.equal(moved.basis.cpu(), subspace.basis)
        assert torch.equal(moved.spread.cpu(), subspace.spread)
        found = moved.project(data.to(device))
        assert found.device == device
        torch.testing.assert_close(found.cpu(), subspace.project(data))


def scene_of(lrhsi):
    n, _, h, w = lrhsi.shape
    return PairSample(lrhsi, torch.ones(n, 1, 2 * h, 2 * w), torch.ones(n, h, w, dtype=torch.bool))


def uneven_scene(noise=1.0, rank=4, bands=24, side=24):
    """Ground half of which only the dark half of the bands sees, noisy in proportion to brightness; and clean."""
    g = torch.Generator().manual_seed(1)
    ground = gaussian_blur(torch.randn(1, rank, side, side, generator=g), 2.0) * 8 + 2
    level = torch.where(torch.arange(bands) % 2 > 0, 1.0, 0.02)
    axes = level[:, None] * torch.rand(bands, rank, generator=g)
    axes[1::2, rank // 2 :] = 0
    clean = torch.einsum("ck,bkhw->bchw", axes, ground)
    return clean + 0.1 * noise * level[:, None, None] * torch.randn(clean.shape, generator=g), clean


def lost(subspace, clean):
    """Share of each band's energy outside the subspace."""
    return subspace.residual(clean).square().mean((0, 2, 3)) / clean.square().mean((0, 2, 3))


def test_noise_of_bright_bands_isnt_taken_for_ground():
    noisy, clean = uneven_scene()
    scene = scene_of(noisy)
    mine = lost(scene_subspace(scene, 6), clean).max()
    assert mine < 0.01
    assert mine < 0.25 * lost(fit_subspace(scene.spectra(), 6), clean).max()


def test_ground_without_noise_gets_its_strongest_axes():
    """What is left goes on from pixel to pixel: it is ground, and dark bands count no more than others."""
    _, clean = uneven_scene(noise=0.0, rank=9)
    scene = scene_of(clean)
    strongest = fit_subspace(scene.spectra(), 5)
    found = scene_subspace(scene, 5).residual(clean).square().sum()
    assert found < 1.05 * strongest.residual(clean).square().sum()


@pytest.mark.parametrize("unit", [1e-4, 1e4])
def test_the_units_of_reflectance_dont_matter(unit):
    noisy, _ = uneven_scene()
    a, b = scene_subspace(scene_of(noisy), 6), scene_subspace(scene_of(unit * noisy), 6)
    torch.testing.assert_close(a.basis, b.basis, atol=1e-4, rtol=0)
    torch.testing.assert_close(unit * a.spread, b.spread, rtol=1e-4, atol=0)


@pytest.mark.parametrize(
    "lrhsi",
    [
        torch.zeros(1, 9, 6, 6),
        torch.full((1, 9, 6, 6), 0.3),
        torch.rand(1, 1, 4, 4),
        torch.rand(1, 40, 2, 2),
        torch.rand(1, 17, 9, 9) * (torch.arange(17) > 3)[:, None, None],
    ],
    ids=["black", "flat", "one band", "four pixels", "empty bands"],
)
def test_scenes_with_little_to_see(lrhsi):
    subspace = scene_subspace(scene_of(lrhsi), 16)
    assert subspace.basis.isfinite().all()
    assert (subspace.spread > 0).all()
    k = subspace.dimension
    torch.testing.assert_close(subspace.basis.T @ subspace.basis, torch.eye(k), atol=1e-4, rtol=0)


def test_an_image_that_has_changed_gets_other_axes():
    noisy, _ = uneven_scene()
    scene = scene_of(noisy)
    before = scene_subspace(scene, 6)
    assert scene_subspace(replace(scene, msi=scene.msi + 1), 6) is before
    scene.lrhsi.copy_(scene.lrhsi.flip(1))
    torch.testing.assert_close(scene_subspace(scene, 6).basis, scene_subspace(scene_of(scene.lrhsi.clone()), 6).basis)
    assert not torch.allclose(scene_subspace(scene, 6).basis, before.basis)

"""Agreement with both images: the exact conditional mean, nothing where there is nothing to correct, no tiles seen."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from hsfuse.methods.agreement import LEAST, Agreement
from hsfuse.methods.problem import FusionProblem, mix
from hsfuse.methods.subspace import SpectralSubspace
from hsfuse.physics.model import ObservationModel, Psf, decimation_matrix, gaussian_psf

BANDS, K, S = 6, 3, 4
COVARIANCE = torch.tensor([[1.0, 0.5, 0.0], [0.5, 0.6, 0.1], [0.0, 0.1, 0.3]])


def problem(noise_x: float, noise_y: float, psf: Psf | None = None) -> FusionProblem:
    """Two MSI bands see three coefficients of six bands."""
    g = torch.Generator().manual_seed(0)
    basis = torch.linalg.qr(torch.randn(BANDS, K, generator=g))[0]
    srf = torch.rand(2, BANDS, generator=g)
    model = ObservationModel(srf, psf or gaussian_psf(0.42 * S, S), S)
    noises = (torch.full((BANDS,), noise_x**2), torch.full((2,), noise_y**2))
    return FusionProblem(model, SpectralSubspace(basis, torch.ones(K)), srf @ basis, torch.tensor([0.1, 0.2]), *noises)


def observed(problem: FusionProblem, a: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    lrhsi = problem.subspace.unproject(problem.model.spatial(a))
    return lrhsi, mix(problem.response, a) + problem.offset.to(a)[:, None, None]


def images(rows: int = 2, cols: int = 3, seed: int = 1) -> tuple[torch.Tensor, ...]:
    """Estimate, what is to be found, and a map of amounts that differ tenfold: (1, K or 1, rows s, cols s)."""
    g = torch.Generator().manual_seed(seed)
    a = torch.randn(1, K, rows * S, cols * S, generator=g)
    amount = torch.exp(1.2 * torch.randn(1, 1, rows * S, cols * S, generator=g)).clamp(0.1, 5)
    error = amount * mix(torch.linalg.cholesky(COVARIANCE), torch.randn(a.shape, generator=g))
    return a, a + error, amount


def test_it_is_the_conditional_mean_of_the_whole_problem():
    """Against the normal equations in all unknowns at once, solved directly."""
    p = problem(0.1, 0.2)
    a, truth, amount = (x.double() for x in images())
    lrhsi, msi = (x + 0.1 for x in observed(p, truth))
    rows, cols = (
        torch.from_numpy(decimation_matrix(n, p.model.psf.separable_terms()[0][i], S, p.model.phase))
        for i, n in enumerate(a.shape[2:])
    )
    eye, pixels = torch.eye(K, dtype=torch.float64), a.shape[2] * a.shape[3]
    down = torch.kron(p.subspace.basis.double().contiguous(), torch.kron(rows, cols)) / 0.1
    look = torch.kron(p.response.double().contiguous(), torch.eye(pixels, dtype=torch.float64)) / 0.2
    prior = torch.kron(eye, torch.diag(amount.flatten()))
    prior = prior @ torch.kron(COVARIANCE.double(), torch.eye(pixels, dtype=torch.float64)) @ prior
    missing = torch.cat(
        [((x - y) / n).flatten() for x, y, n in zip((lrhsi, msi), observed(p, a), (0.1, 0.2), strict=True)]
    )
    both = torch.cat([down, look])
    expected = prior @ both.T @ torch.linalg.solve(both @ prior @ both.T + torch.eye(len(both)).double(), missing)
    found = Agreement(p, COVARIANCE)(a, lrhsi, msi, amount) - a
    assert (found.flatten() - expected).norm() < 1e-3 * expected.norm()


def test_an_image_that_agrees_is_left_alone():
    p, (a, _, amount) = problem(0.01, 0.01), images(5, 4)
    moved = Agreement(p, COVARIANCE)(a, *observed(p, a), amount) - a
    assert moved.abs().max() < 1e-4


def test_exact_images_are_given_back():
    p, (a, truth, amount) = problem(1e-4, 1e-4), images(6, 5)
    inputs = observed(p, truth)
    found = Agreement(p, COVARIANCE)(a, *inputs, torch.ones_like(amount))
    for before, after in zip(p.misfits(a, *inputs), p.misfits(found, *inputs), strict=True):
        assert after.norm() < 0.02 * before.norm()
    assert (found - truth).norm() < (a - truth).norm()


def test_mismatch_takes_trust_from_the_lrhsi_alone():
    p, (a, truth, amount) = problem(1e-3, 1e-3), images(6, 5)
    inputs = observed(p, truth)
    sure, unsure = (Agreement(p, COVARIANCE, m)(a, *inputs, amount) for m in (0.0, 1.0))
    (x, y), (x_unsure, y_unsure) = (p.misfits(found, *inputs) for found in (sure, unsure))
    assert x_unsure.norm() > 3 * x.norm()
    assert y_unsure.norm() < 1.5 * y.norm()


def test_certain_pixels_are_not_moved():
    p, (a, truth, amount) = problem(0.01, 0.01), images(5, 4)
    amount[..., :10] = 1e-4
    moved = Agreement(p, COVARIANCE)(a, *observed(p, truth), amount) - a
    assert moved[..., :10].abs().max() < 1e-3 < 0.1 < moved[..., 10:].abs().mean()


def test_tiles_with_a_halo_give_what_the_whole_scene_gives():
    p, (a, truth, amount) = problem(1e-3, 1e-3), images(30, 8)
    inputs, halo = observed(p, truth), 8
    step = Agreement(p, COVARIANCE)
    whole = step(a, *inputs, amount)
    tile = step(a[:, :, : 20 * S], inputs[0][:, :, :20], inputs[1][:, :, : 20 * S], amount[:, :, : 20 * S])
    part = slice(0, (20 - halo) * S)
    assert (tile[:, :, part] - whole[:, :, part]).abs().max() < 1e-3 * (whole - a).abs().mean()


@pytest.mark.parametrize("tilted", [False, True])
def test_the_system_stays_within_its_bounds(tilted):
    """The power method, on amounts as uneven as they come and on a PSF that isn't separable."""
    t = np.arange(-3.5, 4)
    kernel = np.exp(-(t[:, None] ** 2 + t**2 + (1.2 * t[:, None] * t if tilted else 0)) / 5)
    p = problem(1e-4, 1e-4, Psf(kernel / kernel.sum()))
    seen = {}

    def watch(apply, precondition, rhs, bounds):
        x = torch.randn(rhs.shape, generator=torch.Generator().manual_seed(0))
        for _ in range(30):
            x = precondition(apply(x / x.norm()))
        seen.update(top=float(x.norm()), bounds=bounds)
        return torch.zeros_like(rhs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("hsfuse.methods.agreement.chebyshev", watch)
        a, truth, amount = images(8, 8)
        Agreement(p, COVARIANCE)(a, *observed(p, truth), amount)
    assert seen["bounds"][0] == LEAST
    assert seen["top"] < seen["bounds"][1]


def test_batch_mates_are_independent():
    p, step = problem(0.01, 0.01), Agreement(problem(0.01, 0.01), COVARIANCE)
    (a, truth, amount), (b, other, amount_b) = images(5, 4), images(5, 4, seed=2)
    both = step(torch.cat([a, b]), *observed(p, torch.cat([truth, other])), torch.cat([amount, amount_b]))
    torch.testing.assert_close(both[:1], step(a, *observed(p, truth), amount), atol=1e-5, rtol=0)


def test_how_many_matrices_are_inverted_at_a_time_makes_no_difference(monkeypatch):
    p, step = problem(0.01, 0.01), Agreement(problem(0.01, 0.01), COVARIANCE)
    a, truth, amount = images(5, 4)
    whole = step(a, *observed(p, truth), amount)
    monkeypatch.setattr("hsfuse.methods.agreement.MATRICES", {"cpu": 7})
    torch.testing.assert_close(step(a, *observed(p, truth), amount), whole, atol=1e-6, rtol=0)


def test_a_scene_without_disagreement_is_left_as_it_is():
    p, (a, truth, amount) = problem(0.01, 0.01), images(5, 4)
    step = replace(Agreement(p, COVARIANCE), covariance=torch.zeros(K, K))
    torch.testing.assert_close(step(a, *observed(p, truth), amount), a, atol=1e-5, rtol=0)


def test_what_both_images_leave_open_of_a_change_is_what_agreeing_leaves_of_it():
    p = problem(0.1, 0.2)
    a, truth, amount = (x.double() for x in images())
    agree = Agreement(p, COVARIANCE)
    change = truth - a
    wanted = agree(truth, *observed(p, a), amount) - agree(a, *observed(p, a), amount)
    found = agree.left_open(change, amount)
    torch.testing.assert_close(found, wanted, rtol=0, atol=2e-5)  # the basis is orthonormal in float32
    assert p.model.spatial(found).norm() < 0.5 * p.model.spatial(change).norm()

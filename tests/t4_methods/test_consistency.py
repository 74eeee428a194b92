"""The step back to both inputs: nothing where they agree, down to their noise and not below, the same in every tile."""

from dataclasses import replace

import pytest
import torch
from scenes import MemoryScene, memory_scene

from hsfuse.methods.agreement import chebyshev
from hsfuse.methods.consistency import ENERGY_RANGE, Consistency, fit_consistency
from hsfuse.methods.frame import make_frame
from hsfuse.methods.problem import conjugate_gradients, mix

NOISE_X, NOISE_Y = 0.004, 0.002


def noisy(scene: MemoryScene, seed: int = 0) -> MemoryScene:
    g = torch.Generator().manual_seed(seed)
    low = scene.lrhsi + NOISE_X * torch.randn(scene.lrhsi.shape, generator=g)
    return replace(scene, lrhsi=low, msi=scene.msi + NOISE_Y * torch.randn(scene.msi.shape, generator=g))


class Case:
    """A scene with noise, the truth's coefficients, a fusion that lacks detail, and the step fitted to its error."""

    def __init__(self, lr_shape: tuple[int, int], s: int = 3) -> None:
        clean = memory_scene(lr_shape, s)
        self.scene = noisy(clean)
        self.frame = make_frame(self.scene.training, clean.model, "glp-reg")
        self.truth = self.frame.subspace.project(clean.truth)
        seen = self.frame.see(self.scene.lrhsi, self.scene.msi)
        self.lrhsi, self.msi = self.frame.inside(self.scene.lrhsi, seen), seen.msi
        detail = self.truth - clean.model.upsample(clean.model.spatial(self.truth))
        self.fused = self.truth - 0.4 * detail
        error = (self.fused - self.truth).permute(0, 2, 3, 1).flatten(0, 2)
        self.step = fit_consistency(self.scene.training, self.frame, error)

    def error(self, a: torch.Tensor) -> float:
        return float((a - self.truth).square().mean().sqrt())


@pytest.fixture(scope="module")
def case() -> Case:
    return Case((24, 20))


def test_an_image_that_agrees_is_left_alone(case):
    problem, a = case.step.problem, case.truth
    lrhsi = problem.subspace.unproject(problem.model.spatial(a))
    msi = mix(problem.response, a) + problem.offset.to(a)[:, None, None]
    moved = case.step(a, lrhsi, msi) - a
    assert moved.abs().max() < 1e-5 * a.abs().max()


def test_misfits_go_down_to_the_noise_and_not_below(case):
    before = case.step.relative_misfits(case.fused, case.lrhsi, case.msi)
    after = case.step.relative_misfits(case.step(case.fused, case.lrhsi, case.msi), case.lrhsi, case.msi)
    known = case.step.relative_misfits(case.truth, case.lrhsi, case.msi)
    for worse, better, best in zip(before, after, known, strict=True):
        assert worse > 1.15 * best
        assert 0.85 * best < better < worse


def test_the_error_gets_smaller(case):
    assert case.error(case.step(case.fused, case.lrhsi, case.msi)) < 0.97 * case.error(case.fused)


def test_the_truth_is_not_bent_towards_noise(case):
    """A step that is allowed the error of a fusion moves the truth by a small part of what it may."""
    assert case.error(case.step(case.truth, case.lrhsi, case.msi)) < 0.2 * case.error(case.fused)


def test_noise_of_the_lrhsi_stays_out_of_flat_places(case):
    """Where the MSI has no detail, the LRHSI's noise has no way in."""
    flat = torch.full_like(case.msi, 0.1)
    assert case.step.local_energy(flat).max() == pytest.approx(ENERGY_RANGE[0])
    noise = case.lrhsi + 0.02
    rough = (case.step(case.fused, noise, case.msi) - case.step(case.fused, case.lrhsi, case.msi)).abs().mean()
    smooth = (case.step(case.fused, noise, flat) - case.step(case.fused, case.lrhsi, flat)).abs().mean()
    assert smooth < 0.1 * rough


@pytest.mark.parametrize("s", [2, 4])
def test_tiles_with_a_halo_give_what_the_whole_scene_gives(s):
    case, halo = Case((34, 30), s), 10
    whole = case.step(case.fused, case.lrhsi, case.msi)
    rows, cols = slice(2, 6 + 2 * halo), slice(3, 6 + 2 * halo)
    fine = [slice(part.start * s, part.stop * s) for part in (rows, cols)]
    tile = case.step(case.fused[..., *fine], case.lrhsi[..., rows, cols], case.msi[..., *fine])
    inner = [slice(halo * s, -halo * s)] * 2
    moved = (whole - case.fused).square().mean().sqrt()
    assert (tile - whole[..., *fine])[..., *inner].abs().max() < 0.01 * moved


def test_batch_mates_are_independent(case):
    other = noisy(memory_scene(seed=5), 1)
    both = case.step(
        torch.cat([case.fused, case.fused + 0.01]),
        torch.cat([case.lrhsi, other.lrhsi]),
        torch.cat([case.msi, other.msi]),
    )
    torch.testing.assert_close(both[:1], case.step(case.fused, case.lrhsi, case.msi), rtol=0, atol=1e-6)


def test_more_steps_lead_to_the_minimum(case, monkeypatch):
    """Many steps give what conjugate gradients give for the normal equations of the same problem."""
    a, step = case.fused.double(), case.step
    steps = {"chebyshev": [], "cg": []}

    def by_cg(apply, precondition, rhs, bounds):
        steps["cg"] = conjugate_gradients(apply, rhs, torch.zeros_like(rhs), precondition, 300, 1e-9)
        for n in (4, 16, 64):
            steps["chebyshev"].append(chebyshev(apply, precondition, rhs, bounds, n))
        return steps["cg"]

    monkeypatch.setattr("hsfuse.methods.agreement.chebyshev", by_cg)
    step(a, case.lrhsi.double(), case.msi.double())
    off = [float((u - steps["cg"]).norm() / steps["cg"].norm()) for u in steps["chebyshev"]]
    assert off[0] > off[1] > off[2]
    assert off[2] < 1e-3


def test_chebyshev_solves_within_the_bounds():
    values = torch.linspace(1, 30, 40).reshape(1, 1, 5, 8)
    u = chebyshev(lambda x: values * x, lambda x: x, torch.ones(1, 1, 5, 8), (1.0, 30.0), 60)
    torch.testing.assert_close(u, 1 / values, rtol=1e-4, atol=0)


def test_a_perfect_fusion_allows_nothing(case):
    step = fit_consistency(case.scene.training, case.frame, torch.zeros(50, case.truth.shape[1]))
    assert isinstance(step, Consistency)
    moved = step(case.fused, case.lrhsi, case.msi) - case.fused
    assert moved.abs().max() < 1e-6

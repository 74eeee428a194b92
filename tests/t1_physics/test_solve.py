"""Solving what scenes make: right where there is an answer, finite wherever there is none."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
import torch
from torch import Tensor

from hsfuse.physics.solve import inverse_spd, principal_axes, root_spd, solve_spd, whitener_spd

PACKAGE = Path(__file__).resolve()
while not (PACKAGE / "hsfuse").is_dir():
    PACKAGE = PACKAGE.parent
SCALES = (1e-12, 1e-4, 1.0, 1e4, 1e12)
TYPES = {torch.float32: 1e-3, torch.float64: 1e-9}


def pixels(kind: str) -> Tensor:
    """Four bands of 50 pixels (4, 50), as a scene may have them."""
    random = torch.Generator().manual_seed(0)
    plain = torch.rand(4, 50, generator=random, dtype=torch.float64)
    zeros = torch.zeros(4, 50, dtype=torch.float64)
    bright = zeros.clone()
    bright[:, 7] = torch.tensor([1.0, 2.0, 3.0, 4.0])
    return {
        "plain": plain,
        "zeros": zeros,
        "constant": torch.full_like(zeros, 0.3),
        "one pixel": plain[:, :1],
        "one bright pixel": bright,
        "one bright among dark": 1e-9 * plain + bright,
        "a band of zeros": plain * torch.tensor([1.0, 0.0, 1.0, 1.0])[:, None],
        "a band twice": plain[[0, 1, 2, 0]],
        "bands of all sizes": plain * torch.tensor([1e-6, 1.0, 1e3, 1e6])[:, None],
    }[kind]


KINDS = ["plain", "zeros", "constant", "one pixel", "one bright pixel", "one bright among dark", "a band of zeros",
         "a band twice", "bands of all sizes"]  # fmt: skip


@pytest.mark.parametrize("dtype", TYPES, ids=str)
@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("kind", KINDS)
def test_all_that_a_scene_can_make_is_finite(kind: str, scale: float, dtype: torch.dtype) -> None:
    x = (scale * pixels(kind)).to(dtype)
    moment, cross = x @ x.T, x @ x.flip(0).T
    values, axes = principal_axes(moment)
    for found in (solve_spd(moment, cross), solve_spd(moment, cross, 1e-3), inverse_spd(moment), root_spd(moment),
                  whitener_spd(moment), values, axes):  # fmt: skip
        assert found.dtype == dtype
        assert found.isfinite().all()


@pytest.mark.parametrize("dtype", TYPES, ids=str)
@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("kind", KINDS)
def test_what_the_pixels_can_explain_is_explained(kind: str, scale: float, dtype: torch.dtype) -> None:
    x = (scale * pixels(kind)).to(dtype)
    target = torch.tensor([[1.0, -2.0, 0.5, 3.0]], dtype=dtype) @ x
    found = solve_spd(x @ x.T, x @ target.T).T @ x
    # As far as the moments hold it: what lies in weak directions is below the rounding of their squares.
    assert (found - target).norm() <= TYPES[dtype] ** 0.5 * target.norm()
    assert (root_spd(x @ x.T) @ root_spd(x @ x.T).mT - x @ x.T).norm() <= TYPES[dtype] * (x @ x.T).norm()


@pytest.mark.parametrize("dtype", TYPES, ids=str)
@pytest.mark.parametrize("scale", SCALES)
def test_a_definite_matrix_is_solved_inverted_and_whitened(scale: float, dtype: torch.dtype) -> None:
    x = pixels("plain").to(dtype)
    plain = x @ x.T
    matrix, rhs = scale * plain, (x @ x.flip(0).T)
    want = torch.linalg.solve(plain.double(), rhs.double())
    eye = torch.eye(4, dtype=torch.float64)
    close = {"rtol": TYPES[dtype], "atol": TYPES[dtype]}
    torch.testing.assert_close(solve_spd(matrix, rhs).double() * scale, want, **close)
    torch.testing.assert_close(inverse_spd(matrix).double() @ matrix.double(), eye, **close)
    white = whitener_spd(matrix).double()
    torch.testing.assert_close(white @ matrix.double() @ white.mT, eye, **close)
    values, axes = principal_axes(matrix)
    torch.testing.assert_close(((axes * values) @ axes.mT / scale), plain, **close)


@pytest.mark.parametrize("dtype", TYPES, ids=str)
def test_each_of_a_batch_is_solved_as_if_alone(dtype: torch.dtype) -> None:
    scenes = [(s * pixels(k)).to(dtype) for k in KINDS if k != "one pixel" for s in SCALES]
    moments = torch.stack([x @ x.T for x in scenes])
    crosses = torch.stack([x @ x.flip(0).T for x in scenes])
    together = solve_spd(moments, crosses)
    for found, moment, cross in zip(together, moments, crosses, strict=True):
        alone = solve_spd(moment, cross)
        torch.testing.assert_close(found, alone, rtol=TYPES[dtype], atol=TYPES[dtype] * float(alone.abs().max()))
    assert solve_spd(moments[:6].view(2, 3, 4, 4), crosses[:6].view(2, 3, 4, 4)).shape == (2, 3, 4, 4)


def test_a_matrix_that_rounding_has_made_indefinite_still_gives_a_finite_answer() -> None:
    matrix = torch.tensor([[1.0, 1.0, -1.0], [1.0, 1.0, 1.0], [-1.0, 1.0, 1.0]])
    assert torch.linalg.eigvalsh(matrix).min() < -0.5
    assert solve_spd(matrix, torch.ones(3, 1)).isfinite().all()
    assert inverse_spd(torch.stack([matrix, torch.eye(3)]))[1].allclose(torch.eye(3))


def test_the_ridge_is_relative_to_the_diagonal() -> None:
    x = pixels("plain")
    moment, cross = x @ x.T, x @ x.flip(0).T
    want = torch.linalg.solve(moment + 0.1 * moment.diagonal().mean() * torch.eye(4).double(), cross)
    torch.testing.assert_close(solve_spd(1e-8 * moment, 1e-8 * cross, ridge=0.1), want)


def test_nothing_else_solves_what_images_have_made() -> None:
    """Pseudo-inverses and singular vectors are of the observation model alone, which no scene changes."""
    solvers = {"solve", "inv", "cholesky", "lstsq", "eigh", "eig", "solve_ex", "inv_ex", "cholesky_ex"}
    for room in ("methods", "nets", "training"):
        for path in (PACKAGE / "hsfuse" / room).rglob("*.py"):
            calls = [ast.unparse(n.func) for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Call)]
            assert not [c for c in calls if ".linalg." in c and c.rsplit(".", 1)[1] in solvers], path

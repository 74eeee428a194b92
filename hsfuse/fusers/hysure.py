"""HySure: subspace fusion regularised by vector total variation, by alternating directions.

Simoes, Bioucas-Dias, Almeida, Chanussot 2015, "A convex formulation for hyperspectral image superresolution via
subspace-based regularization", IEEE TGRS 53(6), eq. 6:

    min_a  J(a) + lambda sum_pixels |(D a)_pixel|_2

J is the data term in the subspace, D both forward differences of all K coefficients, so that edges of all components
are kept in the same places. Split d = D a with scaled multiplier u (SALSA; Afonso, Bioucas-Dias, Figueiredo 2011):

    a <- solve (J'' + mu D^T D) a = -J'(0) + mu D^T (d - u)
    d <- vector soft threshold of D a + u by lambda / mu,    u <- u + D a - d

Different here: the quadratic step is solved by preconditioned conjugate gradients with the observation model's own
operators and mirrored borders, where the paper assumes a circular blur and uses FFTs. J is weighted by the
measured noise, and lambda and mu are given relative to the mean length of D a in the scene, so one setting serves
every scene. Iteration starts at the regression image and stops after a fixed number of steps.
"""

from __future__ import annotations

from typing import Self

import torch
from torch import Tensor

from hsfuse.fusers import Requirements, TrainingScene
from hsfuse.fusers.problem import conjugate_gradients, fit_problem, mix
from hsfuse.fusers.samples import fit_affine, lr_pairs
from hsfuse.fusers.sylvester import regression_mean
from hsfuse.physics import ObservationModel


class HySure:
    """HRHSI (B, C, H, W) = E a, a the minimiser of data misfit plus lambda times vector total variation."""

    name = "hysure"
    requirements = Requirements(halo=8)
    model: ObservationModel

    def __init__(self, dimension: int = 16, strength: float = 0.015, iterations: int = 30, inner: int = 5) -> None:
        self.dimension, self.strength, self.iterations, self.inner = dimension, strength, iterations, inner

    @torch.no_grad()
    def fit(self, scene: TrainingScene, model: ObservationModel) -> Self:
        """Estimate subspace, response, noise, and the scene's mean variation."""
        self.model = model
        self.problem = fit_problem(scene, model, self.dimension)
        pairs = lr_pairs(scene, model)
        basis = self.problem.subspace.basis.to(pairs.lrhsi)
        self.regression = fit_affine(pairs.msi, basis.T @ pairs.lrhsi)
        start = regression_mean(self.problem, self.regression, scene.lrhsi, scene.msi)
        self.variation = float(_length(differences(start)).mean())
        self.weight = self.strength / max(self.variation, 1e-12)
        self.penalty = self.weight / max(self.variation, 1e-12)
        system = self.problem.spectral_weight + self.problem.spatial_weight / model.scale**2
        eye = torch.eye(len(system), dtype=system.dtype, device=system.device)
        self.preconditioner = torch.linalg.inv(system + 4 * self.penalty * eye)
        return self

    @torch.no_grad()
    def predict(self, lrhsi: Tensor, msi: Tensor) -> Tensor:
        """Run the iteration from the regression image."""
        return self.problem.subspace.unproject(self.solve(lrhsi, msi)).float()

    def solve(self, lrhsi: Tensor, msi: Tensor) -> Tensor:
        """The coefficients (B, K, H, W)."""
        a = regression_mean(self.problem, self.regression, lrhsi, msi)
        data, mu = self.problem.hessian(), self.penalty
        rhs = self.problem.descent(torch.zeros_like(a), lrhsi, msi)
        d = differences(a)
        u = torch.zeros_like(d)
        for _ in range(self.iterations):
            target = rhs + mu * differences_adjoint(d - u)
            a = conjugate_gradients(
                lambda x: data(x) + mu * differences_adjoint(differences(x)),
                target,
                a,
                lambda x: mix(self.preconditioner, x),
                self.inner,
                tolerance=1e-9,
            )
            da = differences(a)
            d = _shrink(da + u, self.weight / mu)
            u = u + da - d
        return a

    def objective(self, a: Tensor, lrhsi: Tensor, msi: Tensor) -> float:
        """J(a) + lambda total variation."""
        return self.problem.value(a, lrhsi, msi) + self.weight * float(_length(differences(a)).sum())

    def describe(self) -> dict[str, str]:
        """Subspace, noise and regularisation."""
        return {"method": self.name, **self.problem.describe(), "lambda x mean variation": f"{self.strength:g}"}


def differences(a: Tensor) -> Tensor:
    """Forward differences down and across, 0 at the last row and column: (B, K, H, W) -> (B, 2, K, H, W)."""
    out = a.new_zeros(a.shape[0], 2, *a.shape[1:])
    out[:, 0, :, :-1] = a[:, :, 1:] - a[:, :, :-1]
    out[:, 1, :, :, :-1] = a[:, :, :, 1:] - a[:, :, :, :-1]
    return out


def differences_adjoint(d: Tensor) -> Tensor:
    """Transpose of `differences`: (B, 2, K, H, W) -> (B, K, H, W)."""
    out = torch.zeros_like(d[:, 0])
    out[:, :, 1:] += d[:, 0, :, :-1]
    out[:, :, :-1] -= d[:, 0, :, :-1]
    out[:, :, :, 1:] += d[:, 1, :, :, :-1]
    out[:, :, :, :-1] -= d[:, 1, :, :, :-1]
    return out


def _length(d: Tensor) -> Tensor:
    """Euclidean length over directions and components: (B, 2, K, H, W) -> (B, 1, 1, H, W)."""
    return d.square().sum((1, 2), keepdim=True).sqrt()


def _shrink(d: Tensor, threshold: float) -> Tensor:
    """Vector soft threshold: the proximal map of `threshold` times the length."""
    length = _length(d)
    return d * (1 - threshold / length.clamp_min(1e-30)).clamp_min(0)

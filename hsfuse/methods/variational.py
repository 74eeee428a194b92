"""FUSE: the maximum a posteriori estimate under a Gaussian prior, in closed form through a Sylvester equation.

Wei, Dobigeon, Tourneret 2015, "Fast fusion of multi-band images based on solving a Sylvester equation", IEEE TIP
24(11). In the subspace, with prior mean m and covariance Z, the minimum of J(a) + 1/2 |a - m|^2_Z solves (their eq. 14)

    P a G + T a = right-hand side,   G = S^T S,  P = E^T E / noise_x,  T = Q^T Q / noise_y + inv(Z)

Different here: the paper diagonalises a circular blur by FFT, whose wrapped border is wrong on a scene. Blur and
decimation of a separable PSF are one small matrix per axis, S = Sy x Sx with mirrored border, so the eigenvectors of
Sy Sy^T and Sx Sx^T and the generalised ones of (P, T) diagonalise everything exactly. A PSF that isn't separable is
solved by conjugate gradients on the LR grid, preconditioned with the closed form of its leading term.
The prior mean is the regression image of the MSI with the LRHSI's low frequencies in place of plain interpolation; Z is
the covariance of that regression's residual on the LR grid, times the energy that the MSI has beyond the LR grid
relative to its energy on it.
"""

from __future__ import annotations

from typing import Self

import torch
from torch import Tensor

from hsfuse.methods import Method, Requirements
from hsfuse.methods.problem import (
    CONSTANT,
    AffineMap,
    FusionProblem,
    conjugate_gradients,
    fit_affine,
    fit_problem,
    lr_pairs,
    mix,
)
from hsfuse.methods.subspace import DARK
from hsfuse.physics.model import ObservationModel
from hsfuse.physics.sample import PairSample
from hsfuse.physics.solve import inverse_spd, principal_axes, whitener_spd

#: Smallest prior variance, relative to the largest: the prior never forbids a direction.
LEAST_PRIOR = 1e-6
#: Weight of the LRHSI, relative to all else, in a direction of which it tells nothing.
UNTOLD = 1e-12


class Sylvester(Method):
    """HRHSI (B, C, H, W) = E a, a the exact minimiser of data misfit and distance to the regression image."""

    id = "fuse"
    requirements = Requirements(halo=8)
    model: ObservationModel

    def __init__(self, dimension: int = 16) -> None:
        self.dimension = dimension

    @torch.no_grad()
    def fit(self, scene: PairSample, model: ObservationModel) -> Self:
        """Estimate subspace, noise, regression and prior covariance."""
        self.model = model
        self.problem = fit_problem(scene, model, self.dimension)
        pairs = lr_pairs(scene, model)
        a = self.problem.subspace.basis.to(pairs.lrhsi).T @ pairs.lrhsi
        self.regression = fit_affine(pairs.msi, a)
        residual = a - self.regression.columns(pairs.msi)
        self.precision = inverse_spd(prior_covariance(residual, detail_ratio(scene, model)))
        self.solver = solver_of(self.problem, self.precision)
        return self

    @torch.no_grad()
    def predict(self, lrhsi: Tensor, msi: Tensor) -> Tensor:
        """Prior mean, then the closed form."""
        mean = regression_mean(self.problem, self.regression, lrhsi, msi)
        a = mean + self.solver.solve(self.problem.descent(mean, lrhsi, msi))
        return self.problem.subspace.unproject(a).float()

    def describe(self) -> dict[str, str]:
        """Subspace and noise."""
        return {"method": self.id, **self.problem.describe()}


def regression_mean(problem: FusionProblem, regression: AffineMap, lrhsi: Tensor, msi: Tensor) -> Tensor:
    """up(a) + W (Y - up(Y_lr)): (B, K, H, W)."""
    sharp = regression.linear(msi)
    return sharp + problem.model.upsample(problem.subspace.project(lrhsi) - problem.model.spatial(sharp))


def detail_ratio(scene: PairSample, model: ObservationModel) -> float:
    """Energy of the MSI beyond the LR grid over its variance on the LR grid."""
    low = model.spatial(scene.msi)
    beyond = (scene.msi - model.upsample(low)).square().mean((0, 2, 3))
    varies = low.var((0, 2, 3)).maximum(CONSTANT**2 * low.square().mean((0, 2, 3))).clamp_min(DARK**2)
    return float((beyond / varies).mean())


def prior_covariance(residual: Tensor, ratio: float) -> Tensor:
    """Covariance (K, K) of residuals (K, n), scaled by `ratio` and kept invertible."""
    covariance = ratio * (residual @ residual.T) / residual.shape[1]
    floor = LEAST_PRIOR * covariance.diagonal().max().clamp_min(DARK**2)
    return covariance + floor * torch.eye(len(covariance), dtype=covariance.dtype, device=covariance.device)


def solver_of(problem: FusionProblem, precision: Tensor) -> SylvesterSolver:
    """Of J plus a quadratic prior of that precision (K, K)."""
    return SylvesterSolver(problem.model, problem.spatial_weight, problem.spectral_weight + precision)


class SylvesterSolver:
    """Solves P a G + T a = rhs for symmetric P and positive definite T (K, K).

    Directions in which P G is less than `negligible` relative to T are left to T alone.
    """

    def __init__(self, model: ObservationModel, spatial: Tensor, spectral: Tensor, negligible: float = 0.0) -> None:
        self.model, self.spatial, self.spectral, self.negligible = model, spatial, spectral, negligible
        whitener = whitener_spd(spectral)
        self.values, vectors = principal_axes(whitener @ spatial @ whitener.T)
        self.vectors = whitener.T @ vectors  # V^T T V = I, V^T P V = diag(values)

    def solve(self, rhs: Tensor, tolerance: float = 1e-6) -> Tensor:
        """(B, K, H, W) -> (B, K, H, W); in closed form, or to `tolerance` where the PSF isn't separable.

        With b = inv(V) a the equation is D b G + b = r, r = V^T rhs, so that b = r - S^T l with l on the LR grid:
        (inv(D) + S S^T) l = S r, one small system for each direction that the LRHSI tells something of.
        """
        b = mix(self.vectors.T, rhs)
        coupled = b[:, : self.coupled(rhs, self.model.ratio)]
        coupled -= self.model.spatial_adjoint(self.low(self.model.spatial(coupled), tolerance))
        return mix(self.vectors, b)

    @property
    def alone(self) -> Tensor:
        """inv(T) (K, K): the solution where the LRHSI tells nothing."""
        return self.vectors @ self.vectors.T

    def coupling(self, seen: Tensor, tolerance: float) -> Tensor:
        """What of inv(T) r the LRHSI takes back, for S r (B, K, h, w): the same shape, its adjoint is to be taken."""
        vectors = self.vectors[:, : self.coupled(seen, 1)].to(seen)
        return mix(vectors, self.low(mix(vectors.T, seen), tolerance))

    def coupled(self, image: Tensor, s: int) -> int:
        """How many directions aren't negligible for images (.., s h, s w) or of fewer pixels."""
        low = image[..., ::s, ::s]
        most = [float(self.model.leading_axes(axis, low)[0].max()) for axis in (0, 1)]
        return int((self.values * most[0] * most[1] > max(self.negligible, UNTOLD)).sum())

    def low(self, seen: Tensor, tolerance: float) -> Tensor:
        """l (B, k, h, w) for S r (B, k, h, w): by the leading separable term's own axes, and exact with one term."""
        (gy, uy), (gx, ux) = (self.model.leading_axes(axis, seen) for axis in (0, 1))
        values = self.values[: seen.shape[1]].to(seen)[:, None, None]
        damped = values / (1 + values * gy[:, None] * gx)

        def by_axes(x: Tensor) -> Tensor:
            return uy @ ((uy.T @ x @ ux) * damped) @ ux.T

        if len(self.model.psf.separable_terms()) == 1:
            return by_axes(seen)
        gram = self.model.gram(seen)

        def apply(x: Tensor) -> Tensor:
            return sum((rows @ x @ cols.T for rows, cols in gram), x / values)

        return conjugate_gradients(apply, seen, by_axes(seen), by_axes, 60, tolerance)


class HySure(Method):
    """HRHSI (B, C, H, W) = E a, a the minimiser of data misfit plus lambda times vector total variation."""

    id = "hysure"
    requirements = Requirements(halo=8)
    model: ObservationModel

    def __init__(self, dimension: int = 16, strength: float = 0.015, iterations: int = 30, inner: int = 5) -> None:
        self.dimension, self.strength, self.iterations, self.inner = dimension, strength, iterations, inner

    @torch.no_grad()
    def fit(self, scene: PairSample, model: ObservationModel) -> Self:
        """Estimate subspace, response, noise, and the scene's mean variation."""
        self.model = model
        self.problem = fit_problem(scene, model, self.dimension)
        pairs = lr_pairs(scene, model)
        basis = self.problem.subspace.basis.to(pairs.lrhsi)
        self.regression = fit_affine(pairs.msi, basis.T @ pairs.lrhsi)
        start = regression_mean(self.problem, self.regression, scene.lrhsi, scene.msi)
        least = max(CONSTANT * float(start.square().mean().sqrt()), DARK)
        self.variation = max(float(_length(differences(start)).mean()), least)
        self.weight = self.strength / self.variation
        self.penalty = self.weight / self.variation
        system = self.problem.spectral_weight + self.problem.spatial_weight / model.ratio**2
        eye = torch.eye(len(system), dtype=system.dtype, device=system.device)
        self.preconditioner = inverse_spd(system + 4 * self.penalty * eye)
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

    def describe(self) -> dict[str, str]:
        """Subspace, noise and regularisation."""
        return {"method": self.id, **self.problem.describe(), "lambda x mean variation": f"{self.strength:g}"}


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
    return d * (1 - threshold / length.clamp_min(torch.finfo(d.dtype).tiny)).clamp_min(0)

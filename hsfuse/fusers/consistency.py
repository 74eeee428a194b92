"""Data consistency: a fused image is moved towards giving back both inputs, as far as their noise and its error allow.

    min over a   |X - E S(a)|^2 / noise_x  +  |Y - Q a - q|^2 / noise_y  +  |a - a0|^2_W

a0 (B, K, H, W) are the fused coefficients, S, Q, q and the noise those of the model-based methods (`problem.py`). W
says what the correction may be: a share ALLOWED of the covariance that a0's error has at reduced resolution, since most
of that error is detail on which the LRHSI is silent; and at each pixel times the local energy of the MSI's detail
relative to the scene's, because that is where fusion errs. Without the latter, noise of the LRHSI would flow into dark
and flat places, and spectral angles there would grow. The model itself isn't exact either: a share MISMATCH of the
error's covariance is added to the LRHSI's noise.

Solved by a fixed number of preconditioned Chebyshev steps (Golub, Varga 1961; Saad 2003, "Iterative methods for sparse
linear systems", algorithm 12.1) rather than by conjugate gradients: these choose their steps from sums over the whole
image, so that a pixel's value would depend on the tile that it lies in.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from hsfuse.fusers import TrainingScene
from hsfuse.fusers.denoise import denoise, gaussian_blur
from hsfuse.fusers.frame import SceneFrame
from hsfuse.fusers.problem import FusionProblem, fit_problem, mix

#: Share of the error's covariance that the step may use.
ALLOWED = 0.1
#: Share of the error's covariance that counts as noise of the LRHSI: PSF and response are never known exactly.
MISMATCH = 1e-3
#: Window of the local energy in HR pixels, and its range relative to the scene's mean.
WINDOW_SIGMA, ENERGY_RANGE = 2.0, (1e-3, 8.0)
ITERATIONS = 8


@dataclass(frozen=True)
class Consistency:
    """The step, fitted to a scene: coefficients (B, K, H, W), LRHSI (B, C, h, w), MSI (B, c, H, W) -> (B, K, H, W)."""

    problem: FusionProblem
    root: Tensor  # (K, K): root root^T is the covariance of a correction at a pixel of average energy
    energy: float  # the scene's mean detail energy

    @torch.no_grad()
    def __call__(self, a: Tensor, lrhsi: Tensor, msi: Tensor) -> Tensor:
        """The nearest coefficients that agree with both images better; a itself when it agrees already."""
        model, response, weight = self.problem.model, self.problem.response, self._spatial_weight()
        amount = self.local_energy(msi).sqrt()
        values, vectors = self._msi_axes()

        def outwards(u: Tensor) -> Tensor:
            return amount * mix(self.root, u)

        def inwards(image: Tensor) -> Tensor:
            return mix(self.root.T, amount * image)

        def apply(u: Tensor) -> Tensor:
            image = outwards(u)
            data = model.spatial_adjoint(mix(weight, model.spatial(image))) + mix(self.problem.spectral_weight, image)
            return u + inwards(data)

        def precondition(r: Tensor) -> Tensor:
            return mix(vectors, mix(vectors.T, r) / (1 + amount.square() * values.to(r)[:, None, None]))

        misfit_x, misfit_y = self.misfits(a, lrhsi, msi)
        pull = model.spatial_adjoint(mix(weight @ self._estimator(), misfit_x))
        pull = pull + mix((response / self.problem.noise_y[:, None]).T, misfit_y)
        return a + outwards(chebyshev(apply, precondition, inwards(pull), self._largest(weight)))

    def misfits(self, a: Tensor, lrhsi: Tensor, msi: Tensor) -> tuple[Tensor, Tensor]:
        """What both images have and a doesn't give: (B, C, h, w), (B, c, H, W)."""
        problem = self.problem
        given = mix(problem.response, a) + problem.offset.to(a)[:, None, None]
        return lrhsi - problem.subspace.unproject(problem.model.spatial(a)), msi - given

    def relative_misfits(self, a: Tensor, lrhsi: Tensor, msi: Tensor) -> tuple[float, float]:
        """RMS misfits of LRHSI (in the subspace) and MSI in units of their noise: at 1 there is nothing left to fit."""
        misfit_x, misfit_y = self.misfits(a, lrhsi, msi)
        inside = mix(self._estimator(), misfit_x).square().mean((0, 2, 3))
        noise = torch.linalg.inv(self.problem.spatial_weight).diagonal().to(inside)
        seen = (misfit_y.square().mean((0, 2, 3)) / self.problem.noise_y.to(inside)).mean()
        return float((inside.sum() / noise.sum()).sqrt()), float(seen.sqrt())

    def local_energy(self, msi: Tensor) -> Tensor:
        """Energy of the MSI's detail around each pixel, relative to the scene's mean: (B, 1, H, W)."""
        return (detail_energy(self.problem, msi) / self.energy).clamp(*ENERGY_RANGE)

    def _estimator(self) -> Tensor:
        """(K, C): coefficients of LR spectra by least squares weighted with the noise."""
        basis = self.problem.subspace.basis.to(self.problem.noise_x)
        weighted = (basis / self.problem.noise_x[:, None]).T
        estimator: Tensor = torch.linalg.solve(weighted @ basis, weighted)
        return estimator

    def _spatial_weight(self) -> Tensor:
        """(K, K): inverse covariance of the LR coefficients' noise and mismatch."""
        noise = torch.linalg.inv(self.problem.spatial_weight)
        weight: Tensor = torch.linalg.inv(noise + MISMATCH / ALLOWED * self.root @ self.root.T)
        return weight

    def _msi_axes(self) -> tuple[Tensor, Tensor]:
        """Eigenvalues and vectors of what the MSI says about a correction: it is inverted per pixel."""
        seen = self.problem.response @ self.root
        values, vectors = torch.linalg.eigh(seen.T @ (seen / self.problem.noise_y[:, None]))
        return values.clamp_min(0), vectors

    def _largest(self, weight: Tensor) -> float:
        """Bound on the eigenvalues of the preconditioned operator; |S|^2 is at most its largest row by column sum."""
        model = self.problem.model
        ones = torch.ones(1, 1, 8, 8, device=weight.device)
        blur = float(model.spatial_adjoint(ones).abs().max()) * float(abs(model.psf.kernel).sum())
        strength = float(torch.linalg.eigvalsh(self.root.T @ weight @ self.root)[-1])
        return 1 + ENERGY_RANGE[1] * strength * blur


def chebyshev(
    apply: Callable[[Tensor], Tensor],
    precondition: Callable[[Tensor], Tensor],
    rhs: Tensor,
    largest: float,
    iterations: int = ITERATIONS,
) -> Tensor:
    """Solve apply(u) = rhs from u = 0, where the preconditioned operator's eigenvalues lie between 1 and `largest`."""
    centre, radius = (largest + 1) / 2, max((largest - 1) / 2, 1e-6)
    sigma = centre / radius
    rho = 1 / sigma
    u, residual = torch.zeros_like(rhs), rhs
    direction = precondition(residual) / centre
    for _ in range(iterations):
        u, residual = u + direction, residual - apply(direction)
        following = 1 / (2 * sigma - rho)
        direction = following * (rho * direction + 2 / radius * precondition(residual))
        rho = following
    return u


def detail_energy(problem: FusionProblem, msi: Tensor) -> Tensor:
    """Local energy of what the MSI (B, c, H, W) has beyond the LR grid, in units of its noise: (B, 1, H, W)."""
    detail = msi - problem.model.upsample(problem.model.spatial(msi))
    squared = detail.square() / problem.noise_y.to(msi)[:, None, None]
    return gaussian_blur(squared.mean(1, keepdim=True), WINDOW_SIGMA)


@torch.no_grad()
def fit_consistency(scene: TrainingScene, frame: SceneFrame, error: Tensor) -> Consistency:
    """The step for a scene on its frame's axes; `error` (pixels, K) is the error at reduced resolution."""
    subspace = frame.subspace
    problem = fit_problem(scene, frame.base.model, subspace.dimension)
    turn = subspace.basis.to(problem.response).T @ problem.subspace.basis.to(problem.response)
    problem = replace(problem, subspace=subspace, response=problem.response @ turn.T)
    covariance = (error.T @ error).to(problem.response) / len(error)
    floor = (1e-6 * covariance.diagonal().max()).clamp_min(1e-20)
    eye = torch.eye(len(covariance), dtype=covariance.dtype, device=covariance.device)
    root = torch.linalg.cholesky(ALLOWED * (covariance + floor * eye))
    clean = scene.msi if frame.noise is None else denoise(scene.msi, frame.noise)
    energy = float(detail_energy(problem, clean).mean())
    return Consistency(problem, root, max(energy, 1e-12))

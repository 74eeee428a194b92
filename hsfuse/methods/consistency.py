"""Data consistency: a fused image is moved towards giving back both inputs, as far as their noise and its error allow.

What the correction may be (`agreement.py`): a share ALLOWED of the covariance that the image's error has at reduced
resolution, since most of that error is detail on which the LRHSI is silent; and at each pixel times the local energy of
the MSI's detail relative to the scene's, because that is where fusion errs. Without the latter, noise of the LRHSI
would flow into dark and flat places, and spectral angles there would grow. The model itself isn't exact either: a share
MISMATCH of the error's covariance is added to the LRHSI's noise.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from hsfuse.methods.agreement import Agreement
from hsfuse.methods.denoise import denoise, gaussian_blur
from hsfuse.methods.frame import SceneFrame
from hsfuse.methods.problem import FusionProblem, fit_problem, mix
from hsfuse.physics.sample import PairSample
from hsfuse.physics.solve import inverse_spd

#: Share of the error's covariance that the step may use.
ALLOWED = 0.1
#: Share of the error's covariance that counts as noise of the LRHSI: PSF and response are never known exactly.
MISMATCH = 1e-3
#: Window of the local energy in HR pixels, and its range relative to the scene's mean.
WINDOW_SIGMA, ENERGY_RANGE = 2.0, (1e-3, 8.0)


@dataclass(frozen=True)
class Consistency:
    """The step, fitted to a scene: coefficients (B, K, H, W), LRHSI (B, C, h, w), MSI (B, c, H, W) -> (B, K, H, W)."""

    agreement: Agreement
    energy: float  # the scene's mean detail energy

    @property
    def problem(self) -> FusionProblem:
        """The data term."""
        return self.agreement.problem

    @torch.no_grad()
    def __call__(self, a: Tensor, lrhsi: Tensor, msi: Tensor) -> Tensor:
        """The nearest coefficients that agree with both images better; a itself when it agrees already."""
        return self.agreement(a, lrhsi, msi, self.local_energy(msi).sqrt())

    def relative_misfits(self, a: Tensor, lrhsi: Tensor, msi: Tensor) -> tuple[float, float]:
        """RMS misfits of LRHSI (in the subspace) and MSI in units of their noise: at 1 there is nothing left to fit."""
        problem = self.problem
        misfit_x, misfit_y = problem.misfits(a, lrhsi, msi)
        inside = mix(problem.estimator, misfit_x).square().mean((0, 2, 3))
        noise = inverse_spd(problem.spatial_weight).diagonal().to(inside)
        seen = (misfit_y.square().mean((0, 2, 3)) / problem.noise_y.to(inside)).mean()
        return float((inside.sum() / noise.sum()).sqrt()), float(seen.sqrt())

    def local_energy(self, msi: Tensor) -> Tensor:
        """Energy of the MSI's detail around each pixel, relative to the scene's mean: (B, 1, H, W)."""
        return (detail_energy(self.problem, msi) / self.energy).clamp(*ENERGY_RANGE)


def detail_energy(problem: FusionProblem, msi: Tensor) -> Tensor:
    """Local energy of what the MSI (B, c, H, W) has beyond the LR grid, in units of its noise: (B, 1, H, W)."""
    detail = msi - problem.model.upsample(problem.model.spatial(msi))
    squared = detail.square() / problem.noise_y.to(msi)[:, None, None]
    return gaussian_blur(squared.mean(1, keepdim=True), WINDOW_SIGMA)


@torch.no_grad()
def fit_consistency(scene: PairSample, frame: SceneFrame, error: Tensor) -> Consistency:
    """The step for a scene on its frame's axes; `error` (pixels, K) is the error at reduced resolution."""
    subspace = frame.subspace
    problem = fit_problem(scene, frame.base.model, subspace.dimension)
    turn = subspace.basis.to(problem.response).T @ problem.subspace.basis.to(problem.response)
    problem = replace(problem, subspace=subspace, response=problem.response @ turn.T)
    covariance = (error.T @ error).to(problem.response) / len(error)
    clean = scene.msi if frame.noise is None else denoise(scene.msi, frame.noise)
    energy = float(detail_energy(problem, clean).mean())
    return Consistency(Agreement(problem, ALLOWED * covariance, MISMATCH / ALLOWED), max(energy, 1e-12))

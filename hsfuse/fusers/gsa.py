"""Gram-Schmidt adaptive fusion, extended from a PAN to an MSI by hypersharpening.

Aiazzi, Baronti, Selva 2007, "Improving component substitution pansharpening through multivariate regression of
MS + Pan data", IEEE TGRS 45(10): the intensity that details are measured against is the regression of the degraded
sharp image on the low-resolution bands, and a band's gain is its covariance with that intensity over the intensity's
variance. Selva et al. 2015, "Hyper-sharpening: a first approach on SIM-GA data", IEEE JSTARS 8(6): each HSI band k
gets its own sharp image, synthesised from all MSI bands by regression at low resolution.

    P_k = w_k Y + b_k           regressed on the LR grid: X_k ~ w_k Y_lr + b_k
    I   = V X + v               regressed on the LR grid: Y_lr ~ V X + v
    x_k = up(X_k) + g_k w_k (Y - up(I)),   g_k = cov(w_k I, X_k) / var(w_k I)

Different here: V is regressed on the strongest principal components of the LRHSI, since hundreds of correlated bands
on a few hundred LR pixels fit anything; statistics come from the whole scene, so that tiles agree.
"""

from __future__ import annotations

from typing import Self

import torch
from torch import Tensor

from hsfuse.fusers import Requirements, TrainingScene
from hsfuse.fusers.samples import AffineMap, fit_affine, synthetic_bands
from hsfuse.physics import ObservationModel
from hsfuse.subspace import fit_subspace


class GSA:
    """HRHSI (B, C, H, W) = cubic interpolation + gain x (synthetic sharp band - intensity)."""

    name = "gsa"
    requirements = Requirements(halo=2)
    model: ObservationModel

    def __init__(self, components: int = 8) -> None:
        self.components = components

    @torch.no_grad()
    def fit(self, scene: TrainingScene, model: ObservationModel) -> Self:
        """Regress synthesis, intensity and gains on the valid LR pixels."""
        self.model = model
        synthesis, pairs = synthetic_bands(scene, model)
        basis = fit_subspace(pairs.lrhsi, self.components).basis.double()
        on_components = fit_affine(basis.T @ pairs.lrhsi, pairs.msi)
        self.intensity = AffineMap(on_components.weight @ basis.T, on_components.offset)
        self.gain = _gains(synthesis.columns(self.intensity.columns(pairs.lrhsi)), pairs.lrhsi)
        self.injection = AffineMap(self.gain[:, None] * synthesis.weight, synthesis.offset)
        return self

    @torch.no_grad()
    def predict(self, lrhsi: Tensor, msi: Tensor) -> Tensor:
        """Inject the MSI's details."""
        details = msi - self.model.upsample(self.intensity(lrhsi))
        return (self.model.upsample(lrhsi) + self.injection.linear(details)).float()

    def describe(self) -> dict[str, str]:
        """Settings and the range of the gains."""
        gains = f"{float(self.gain.min()):.3f} to {float(self.gain.max()):.3f}"
        return {"method": self.name, "intensity components": str(self.components), "gains": gains}


def _gains(intensity: Tensor, bands: Tensor) -> Tensor:
    """Covariance over variance, row by row (C, n) -> (C,); 1 where the intensity is constant."""
    centred = intensity - intensity.mean(1, keepdim=True)
    variance = centred.square().mean(1)
    covariance = (centred * bands).mean(1)
    flat = variance <= 1e-12 * bands.square().mean(1).clamp_min(1e-30)
    return torch.where(flat, torch.ones_like(variance), covariance / variance.clamp_min(1e-30))

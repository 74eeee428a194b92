"""Smoothing-filter-based intensity modulation with a synthetic sharp band per HSI band.

Liu 2000, "Smoothing filter-based intensity modulation", IJRS 21(18), eq. 3: x = up(X) P / smooth(P). With an MSI each
HSI band k takes its own P_k = w_k Y + b_k, regressed at low resolution (Selva et al. 2015, IEEE JSTARS 8(6)), and
smooth(P) is up(degrade(P)) through the observation model.

Different here: the published quotient explodes where P is near zero (one dark pixel can spoil a scene's ERGAS). Written
as x = up(X) + g (P - smooth(P)) the quotient is the gain g = up(X) / smooth(P). We damp it towards 1, the additive
injection of the same detail, by the size d_k of the regression's own residual:

    g = (up(X) P_s + d_k^2) / (P_s^2 + d_k^2),   P_s = smooth(P)

which is the published ratio where P_s is large against d_k, and 1 on dark pixels, and differentiable in between.
"""

from __future__ import annotations

from typing import Self

import torch
from torch import Tensor

from hsfuse.fusers import Requirements, TrainingScene
from hsfuse.fusers.samples import DARK, synthetic_bands
from hsfuse.physics import ObservationModel

#: Smallest damping, relative to a band's RMS: a regression without residual must still not divide by zero.
LEAST_DAMPING = 1e-3


class SFIM:
    """HRHSI (B, C, H, W): interpolated LRHSI modulated by a sharp band over its own smoothed version."""

    name = "sfim"
    requirements = Requirements(halo=4)
    model: ObservationModel

    @torch.no_grad()
    def fit(self, scene: TrainingScene, model: ObservationModel) -> Self:
        """Regress the synthetic bands and measure their residuals."""
        self.model = model
        self.synthesis, pairs = synthetic_bands(scene, model)
        residual = pairs.lrhsi - self.synthesis.columns(pairs.msi)
        floor = LEAST_DAMPING**2 * pairs.lrhsi.square().mean(1)
        self.damping = residual.square().mean(1).maximum(floor).clamp_min(DARK)
        return self

    @torch.no_grad()
    def predict(self, lrhsi: Tensor, msi: Tensor) -> Tensor:
        """Modulate the interpolated bands."""
        base = self.model.upsample(lrhsi)
        sharp = self.synthesis(msi)
        smooth = self.model.upsample(self.model.spatial(sharp))
        damping = self.damping.to(base)[:, None, None]
        gain = (base * smooth + damping) / (smooth.square() + damping)
        return (base + gain * (sharp - smooth)).float()

    def describe(self) -> dict[str, str]:
        """The damping as a reflectance, over bands."""
        d = self.damping.sqrt()
        return {"method": self.name, "damping": f"{float(d.min()):.4f} to {float(d.max()):.4f}"}

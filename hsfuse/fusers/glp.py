"""Generalised Laplacian pyramid with an MTF-matched filter, hypersharpened (MTF-GLP-HS).

Aiazzi et al. 2006, "MTF-tailored multiscale fusion", PE&RS 72(5): details are what the sensor's own blur takes away.
Selva et al. 2015, "Hyper-sharpening", IEEE JSTARS 8(6): a synthetic sharp band per HSI band.

    P_k = w_k Y + b_k                               regressed on the LR grid: X_k ~ w_k Y_lr + b_k
    x_k = up(X_k) + g_k (P_k - up(degrade(P_k)))    degrade: the observation model's PSF and decimation

With least-squares weights the usual gain cov(X_k, P_k) / var(P_k) is 1 by construction. The gain here is therefore
measured where it is used, on details (as Vivone, Restaino, Chanussot 2018, "Full scale regression-based injection
coefficients", IEEE TIP 27(7), propose in place of the full signal): with D = identity - low-pass on the LR grid, whose
low-pass is the model's own degrade and upsample one scale down,

    g_k = <D X_k, D P_k,lr> / <D P_k,lr, D P_k,lr>
"""

from __future__ import annotations

from typing import Self

import torch
from torch import Tensor
from torch.nn.functional import pad

from hsfuse.fusers import Requirements, TrainingScene
from hsfuse.fusers.samples import synthetic_bands
from hsfuse.physics import ObservationModel

#: Gains above this are noise: a synthetic band almost without detail.
MAX_GAIN = 2.0


class GLP:
    """HRHSI (B, C, H, W) = cubic interpolation + gain x detail of the synthetic sharp band."""

    name = "glp"
    requirements = Requirements(halo=4)
    model: ObservationModel

    @torch.no_grad()
    def fit(self, scene: TrainingScene, model: ObservationModel) -> Self:
        """Regress the synthetic bands and their gains."""
        self.model = model
        self.synthesis, _ = synthetic_bands(scene, model)
        self.gain = self._detail_gains(scene)
        return self

    def _detail_gains(self, scene: TrainingScene) -> Tensor:
        """Regression of the LRHSI's details on those of the synthetic bands, both on the LR grid: (C,)."""
        synthetic = self.synthesis(self.model.spatial(scene.msi.double()))
        untouched = scene.mask & (self._lr_details(scene.mask[:, None].double())[:, 0].abs() < 1e-9)
        x, p = (self._lr_details(cube).transpose(0, 1)[:, untouched] for cube in (scene.lrhsi.double(), synthetic))
        energy = p.square().sum(1)
        gain = (x * p).sum(1) / energy.clamp_min(1e-30)
        return torch.where(energy > 0, gain, torch.ones_like(gain)).clamp(0, MAX_GAIN)

    def _lr_details(self, x: Tensor) -> Tensor:
        """What the model's blur takes away one scale down; sizes are first padded to a multiple of the scale."""
        h, w = x.shape[-2:]
        x = pad(x, (0, -w % self.model.scale, 0, -h % self.model.scale), mode="replicate")
        return (x - self.model.upsample(self.model.spatial(x)))[..., :h, :w]

    @torch.no_grad()
    def predict(self, lrhsi: Tensor, msi: Tensor) -> Tensor:
        """Inject the synthetic bands' details."""
        sharp = self.synthesis.linear(msi)
        details = sharp - self.model.upsample(self.model.spatial(sharp))
        return (self.model.upsample(lrhsi) + self.gain.to(details)[:, None, None] * details).float()

    def describe(self) -> dict[str, str]:
        """The range of the gains."""
        return {"method": self.name, "gains": f"{float(self.gain.min()):.3f} to {float(self.gain.max()):.3f}"}

"""Cubic interpolation of the LRHSI: what fusion has to beat."""

from __future__ import annotations

from typing import Self

import torch
from torch import Tensor
from torch.nn.functional import pad

from hsfuse.methods import Method, Requirements
from hsfuse.methods.problem import AffineMap, fit_affine, synthetic_bands
from hsfuse.methods.subspace import DARK, fit_subspace
from hsfuse.physics.model import ObservationModel
from hsfuse.physics.sample import PairSample


class Bicubic(Method):
    """HRHSI (B, C, H, W) by cubic convolution of the LRHSI at the model's phase; the MSI is not used."""

    id, uses_msi = "bicubic", False
    requirements = Requirements(halo=2)
    model: ObservationModel

    def fit(self, scene: PairSample, model: ObservationModel) -> Self:
        """Keep the model."""
        self.model = model
        return self

    def predict(self, lrhsi: Tensor, msi: Tensor) -> Tensor:
        """Upsample."""
        return self.model.upsample(lrhsi)

    def describe(self) -> dict[str, str]:
        """Nothing is estimated."""
        return {"method": self.id}


#: Gains above this are noise: a synthetic band almost without detail.
MAX_GAIN = 2.0


class GLP(Method):
    """HRHSI (B, C, H, W) = cubic interpolation + gain x detail of the synthetic sharp band."""

    id = "glp"
    requirements = Requirements(halo=4)
    model: ObservationModel

    @torch.no_grad()
    def fit(self, scene: PairSample, model: ObservationModel) -> Self:
        """Regress the synthetic bands and their gains."""
        self.model = model
        self.synthesis, _ = synthetic_bands(scene, model)
        self.gain = self._detail_gains(scene)
        return self

    def _detail_gains(self, scene: PairSample) -> Tensor:
        """Regression of the LRHSI's details on those of the synthetic bands, both on the LR grid: (C,)."""
        synthetic = self.synthesis(self.model.spatial(scene.msi.double()))
        untouched = scene.mask & (self._lr_details(scene.mask[:, None].double())[:, 0].abs() < 1e-9)
        x, p = (self._lr_details(cube).transpose(0, 1)[:, untouched] for cube in (scene.lrhsi.double(), synthetic))
        energy = p.square().sum(1)
        return torch.where(energy > 0, (x * p).sum(1) / energy, 1.0).clamp(0, MAX_GAIN)

    def _lr_details(self, x: Tensor) -> Tensor:
        """What the model's blur takes away one ratio down; sizes are first padded to a multiple of the ratio."""
        h, w = x.shape[-2:]
        x = pad(x, (0, -w % self.model.ratio, 0, -h % self.model.ratio), mode="replicate")
        return (x - self.model.upsample(self.model.spatial(x)))[..., :h, :w]

    @torch.no_grad()
    def predict(self, lrhsi: Tensor, msi: Tensor) -> Tensor:
        """Inject the synthetic bands' details."""
        sharp = self.synthesis.linear(msi)
        details = sharp - self.model.upsample(self.model.spatial(sharp))
        return (self.model.upsample(lrhsi) + self.gain.to(details)[:, None, None] * details).float()

    def describe(self) -> dict[str, str]:
        """The range of the gains."""
        return {"method": self.id, "gains": f"{float(self.gain.min()):.3f} to {float(self.gain.max()):.3f}"}


class GSA(Method):
    """HRHSI (B, C, H, W) = cubic interpolation + gain x (synthetic sharp band - intensity)."""

    id = "gsa"
    requirements = Requirements(halo=2)
    model: ObservationModel

    def __init__(self, components: int = 8) -> None:
        self.components = components

    @torch.no_grad()
    def fit(self, scene: PairSample, model: ObservationModel) -> Self:
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
        return {"method": self.id, "intensity components": str(self.components), "gains": gains}


def _gains(intensity: Tensor, bands: Tensor) -> Tensor:
    """Covariance over variance, row by row (C, n) -> (C,); 1 where the intensity is constant."""
    centred = intensity - intensity.mean(1, keepdim=True)
    variance = centred.square().mean(1)
    covariance = (centred * bands).mean(1)
    flat = variance <= 1e-12 * bands.square().mean(1)
    return torch.where(flat, 1.0, covariance / variance)


#: Smallest damping, relative to a band's RMS: a regression without residual must still not divide by zero.
LEAST_DAMPING = 1e-3


class SFIM(Method):
    """HRHSI (B, C, H, W): interpolated LRHSI modulated by a sharp band over its own smoothed version."""

    id = "sfim"
    requirements = Requirements(halo=4)
    model: ObservationModel

    @torch.no_grad()
    def fit(self, scene: PairSample, model: ObservationModel) -> Self:
        """Regress the synthetic bands and measure their residuals."""
        self.model = model
        self.synthesis, pairs = synthetic_bands(scene, model)
        residual = pairs.lrhsi - self.synthesis.columns(pairs.msi)
        floor = LEAST_DAMPING**2 * pairs.lrhsi.square().mean(1)
        self.damping = residual.square().mean(1).maximum(floor).clamp_min(DARK**2)
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
        return {"method": self.id, "damping": f"{float(d.min()):.4f} to {float(d.max()):.4f}"}

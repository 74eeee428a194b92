"""Mean of three training-free methods of different kinds: their errors differ, so the mean is closer than each.

`glp-ens` carries detail by regression and leads on agricultural scenes, `conic` weighs data against priors and leads on
urban and coastal ones, `cnmf` keeps each place's own materials and so the spectral angle of dark pixels. The weights
are equal: ones that follow the members' errors in the scene's reduced-resolution test (as in stacking: Wolpert 1992,
Neural Networks 5(2); Breiman 1996, Machine Learning 24) helped on some of the scenes tried and did harm on others: the
member that is best at reduced resolution often isn't the one that is best at full resolution.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Self

import torch
from torch import Tensor

from hsfuse.fusers import Requirements, TrainingScene, compose, scene_subspace
from hsfuse.fusers.cnmf import CNMF
from hsfuse.fusers.conic import Conic
from hsfuse.fusers.denoise import LEFT, denoise
from hsfuse.fusers.problem import hsi_noise, mix, msi_noise
from hsfuse.fusers.regression import DIMENSION, EnsembleGLP, Features
from hsfuse.physics import ObservationModel
from hsfuse.subspace import SpectralSubspace

#: Brightness below which a pixel takes no smaller part of what is restored, relative to the scene's RMS.
DARKEST = 0.1
#: How many times the noise what `cnmf` leaves of the LRHSI has to be before any of it is restored, plus one.
CLEARLY = 5.0


class DenoisedGLP(EnsembleGLP):
    """Averaged regression GLP on the denoised MSI: LRHSI (B, C, h, w), MSI (B, c, H, W) -> HRHSI (B, C, H, W)."""

    requirements = Requirements(halo=10)
    noise: Tensor

    def fit(self, scene: TrainingScene, model: ObservationModel) -> Self:
        """Measure the MSI's noise, then fit on the denoised MSI."""
        self.noise = msi_noise(scene).float()
        return super().fit(replace(scene, msi=denoise(scene.msi, self.noise)), model)

    def feature_noise(self, features: Features, scene: TrainingScene) -> Tensor | None:
        """Covariance (f, f) of what the noise left by `denoise` does to the features, on the scene's own pixels."""
        random = torch.Generator().manual_seed(0)
        total = torch.zeros(())
        for msi in scene.msi.split(1):
            sigma = (LEFT * self.noise).sqrt()[:, None, None]
            noisy = msi + sigma * torch.randn(msi.shape, generator=random).to(msi)
            change = (features(noisy, self.level) - features(msi, self.level))[0].flatten(1).double()
            total = total.to(change) + change @ change.T / change.shape[1]
        return total / len(scene.msi)

    def coefficients(self, lrhsi: Tensor, msi: Tensor) -> Tensor:
        """Fused coefficients (B, K, H, W)."""
        return super().coefficients(lrhsi, denoise(msi, self.noise))

    def inject(self, coefficients: Tensor, detail: Tensor) -> Tensor:
        """What the regression left, restored in proportion to brightness: spectra differ more where they are bright.

        `coefficients` (B, K, h, w) of the LRHSI, `detail` (B, K, H, W) the regressed MSI -> (B, K, H, W).
        """
        size = detail.square().sum(1, keepdim=True)
        size = (size + (DARKEST * self.subspace.spread.norm()).square().to(size)).sqrt()
        left = coefficients - self.model.spatial(detail)
        return detail + size * self.model.upsample(left / self.model.spatial(size))


class Unmixed(CNMF):
    """`cnmf` in the subspace, and with the LRHSI restored where its materials don't explain it.

    What they leave of a spectrum grows with brightness, the LRHSI's noise doesn't; per coefficient, the share of
    1 - CLEARLY noise / (noise + error brightness^2) of it is restored, which is Wiener's gain with CLEARLY = 1.
    """

    @torch.no_grad()
    def fit(self, scene: TrainingScene, model: ObservationModel) -> Self:
        """Learn the materials, then the variance of what they leave (K,), relative to brightness^2, and of noise."""
        low = model.spatial(self.learn(scene, model)).transpose(0, 1)[:, scene.mask]
        self.subspace = scene_subspace(scene, DIMENSION)
        spectra, basis = scene.spectra(), self.subspace.basis
        self.noise = basis.T.square() @ hsi_noise(spectra, self.subspace).to(basis)
        explained = self._endmembers() @ low
        left = (basis.T @ spectra - explained).square().mean(1)
        self.error = (left - self.noise).clamp_min(0) / explained.square().sum(0).mean().clamp_min(1e-12)
        return self

    def coefficients(self, lrhsi: Tensor, msi: Tensor) -> Tensor:
        """Fused coefficients: LRHSI (B, C, h, w), MSI (B, c, H, W) -> (B, K, H, W)."""
        fused = mix(self._endmembers(), self.abundances(lrhsi, msi))
        low = self.model.spatial(fused)
        noise, error = (x.to(low)[:, None, None] for x in (self.noise, self.error))
        gain = 1 - CLEARLY * noise / (noise + error * low.square().sum(1, keepdim=True))
        return fused + self.model.upsample(gain.clamp_min(0) * (self.subspace.project(lrhsi) - low))

    def _endmembers(self) -> Tensor:
        return self.subspace.basis.to(self.m).T @ self.m


class Blend:
    """Equal mean of `glp-ens`, `conic` and `cnmf`: LRHSI (B, C, h, w), MSI (B, c, H, W) -> HRHSI (B, C, H, W)."""

    name = "blend"
    requirements = Requirements(halo=5)
    model: ObservationModel

    def __init__(self) -> None:
        self.glp, self.conic, self.unmixed = DenoisedGLP(), Conic(), Unmixed()

    def fit(self, scene: TrainingScene, model: ObservationModel) -> Self:
        """Fit all three."""
        self.model = model
        for member in (self.glp, self.conic, self.unmixed):
            member.fit(scene, model)
        return self

    @property
    def subspace(self) -> SpectralSubspace:
        """The members' common subspace."""
        return self.glp.subspace

    @torch.no_grad()
    def coefficients(self, lrhsi: Tensor, msi: Tensor) -> Tensor:
        """Fused coefficients (B, K, H, W)."""
        total = self.glp.coefficients(lrhsi, msi) + self.conic.coefficients(lrhsi, msi)
        return (total + self.unmixed.coefficients(lrhsi, msi)) / 3

    def outside_low(self, lrhsi: Tensor) -> Tensor:
        """What is added outside the subspace, before interpolation: (B, C, h, w)."""
        return self.glp.outside_low(lrhsi)

    def predict(self, lrhsi: Tensor, msi: Tensor) -> Tensor:
        """Fuse tiles."""
        return compose(self.subspace, self.model, self.coefficients(lrhsi, msi), self.outside_low(lrhsi))

    def describe(self) -> dict[str, str]:
        """What the members estimated."""
        estimates = {**self.unmixed.describe(), **self.conic.describe(), **self.glp.describe()}
        return {**estimates, "method": self.name, "members": "glp-ens, conic, cnmf"}

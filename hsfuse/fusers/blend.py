"""Mean of the two strongest training-free methods: their errors differ, so the mean is closer to the truth than each.

`glp-ens` leads on agricultural scenes, `conic` on urban and coastal ones and in spectral angle; equal weights lose
little to the better of the two anywhere and need no choice that a small scene couldn't make.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Self

from torch import Tensor

from hsfuse.fusers import Requirements, TrainingScene, compose
from hsfuse.fusers.conic import Conic
from hsfuse.fusers.denoise import denoise
from hsfuse.fusers.problem import msi_noise
from hsfuse.fusers.regression import EnsembleGLP
from hsfuse.physics import ObservationModel
from hsfuse.subspace import SpectralSubspace


class DenoisedGLP(EnsembleGLP):
    """Averaged regression GLP on the denoised MSI: LRHSI (B, C, h, w), MSI (B, c, H, W) -> HRHSI (B, C, H, W)."""

    requirements = Requirements(halo=10)
    noise: Tensor

    def fit(self, scene: TrainingScene, model: ObservationModel) -> Self:
        """Measure the MSI's noise, then fit on the denoised MSI."""
        self.noise = msi_noise(scene).float()
        return super().fit(replace(scene, msi=denoise(scene.msi, self.noise)), model)

    def coefficients(self, lrhsi: Tensor, msi: Tensor) -> Tensor:
        """Fused coefficients (B, K, H, W)."""
        return super().coefficients(lrhsi, denoise(msi, self.noise))


class Blend:
    """Equal mean of `glp-ens` and `conic`: LRHSI (B, C, h, w), MSI (B, c, H, W) -> HRHSI (B, C, H, W)."""

    name = "blend"
    requirements = Requirements(halo=5)

    def __init__(self) -> None:
        self.members = (DenoisedGLP(), Conic())

    def fit(self, scene: TrainingScene, model: ObservationModel) -> Self:
        """Fit both."""
        for member in self.members:
            member.fit(scene, model)
        return self

    @property
    def subspace(self) -> SpectralSubspace:
        """The members' common subspace."""
        return self.members[0].subspace

    def coefficients(self, lrhsi: Tensor, msi: Tensor) -> Tensor:
        """Fused coefficients (B, K, H, W)."""
        first, second = (member.coefficients(lrhsi, msi) for member in self.members)
        return (first + second) / 2

    def outside_low(self, lrhsi: Tensor) -> Tensor:
        """What is added outside the subspace, before interpolation: (B, C, h, w)."""
        return self.members[0].outside_low(lrhsi)

    def predict(self, lrhsi: Tensor, msi: Tensor) -> Tensor:
        """Fuse tiles."""
        return compose(self.subspace, self.members[0].model, self.coefficients(lrhsi, msi), self.outside_low(lrhsi))

    def describe(self) -> dict[str, str]:
        """What the members estimated."""
        glp, conic = (member.describe() for member in self.members)
        return {**conic, **glp, "method": self.name, "members": "glp-ens, conic"}

"""Cubic interpolation of the LRHSI: what fusion has to beat."""

from __future__ import annotations

from typing import Self

from torch import Tensor

from hsfuse.fusers import Requirements, TrainingScene
from hsfuse.physics import ObservationModel


class Bicubic:
    """HRHSI (B, C, H, W) by cubic convolution of the LRHSI at the model's phase; the MSI is not used."""

    name = "bicubic"
    requirements = Requirements(halo=2)
    model: ObservationModel

    def fit(self, scene: TrainingScene, model: ObservationModel) -> Self:
        """Keep the model."""
        self.model = model
        return self

    def predict(self, lrhsi: Tensor, msi: Tensor) -> Tensor:
        """Upsample."""
        return self.model.upsample(lrhsi)

    def describe(self) -> dict[str, str]:
        """Nothing is estimated."""
        return {"method": self.name}

"""Weights for any sensor at work, without adaptation: the corrected regression, averaged with the conic method."""

from __future__ import annotations

from pathlib import Path
from typing import Self

import torch
from torch import Tensor

from hsfuse.errors import ModelError
from hsfuse.fusers import Requirements, TrainingScene, compose
from hsfuse.fusers.card import ModelCard, load_checkpoint
from hsfuse.fusers.conditioning import conditioned_frame, look
from hsfuse.fusers.conic import Conic
from hsfuse.fusers.frame import SceneFrame
from hsfuse.nets.srlf import SRLFNet
from hsfuse.physics import ObservationModel
from hsfuse.resources import data_folder
from hsfuse.subspace import SpectralSubspace


def weights_for(scale: int) -> Path:
    """The weights that come with hsfuse for a scale ratio; ModelError when there are none."""
    path = data_folder("models") / f"srlf-any-x{scale}.safetensors"
    if not path.is_file():
        raise ModelError(f"there are no weights for ratio {scale}; use --method blend, or train some with hsfuse train")
    return path


class AnySensor:
    """Mean of `conic` and of `glp-ens` corrected by SRLF-Net: LRHSI (B, C, h, w), MSI (B, c, H, W) -> (B, C, H, W)."""

    name = "srlf-any"
    requirements = Requirements(halo=12)
    model: ObservationModel
    frame: SceneFrame
    net: SRLFNet
    card: ModelCard

    def __init__(self, weights: Path | None = None) -> None:
        self.weights = weights
        self.conic = Conic()

    def fit(self, scene: TrainingScene, model: ObservationModel) -> Self:
        """Fit base and conic method; the network is as trained. ModelError when the weights don't fit the scene."""
        self.model = model
        self.card, tensors = load_checkpoint(self.weights or weights_for(model.scale))
        self.frame = conditioned_frame(scene, model, self.card.config.channels)
        have, want = self.frame.subspace.dimension, self.card.config.channels
        if have != want or self.card.scale != model.scale:
            raise ModelError(
                f"the weights {self.card.name!r} are for ratio {self.card.scale} and {want} subspace dimensions, the "
                f"scene has ratio {model.scale} and {have} (fewer bands or pixels give fewer)"
            )
        self.net = SRLFNet(self.card.config).to(scene.lrhsi.device).eval()
        self.net.load_state_dict(tensors)
        self.conic.fit(scene, model)
        return self

    @property
    def subspace(self) -> SpectralSubspace:
        """The scene's subspace, on the conic method's axes."""
        return self.conic.subspace

    @torch.no_grad()
    def corrected(self, lrhsi: Tensor, msi: Tensor) -> Tensor:
        """Coefficients of the corrected regression on the frame's own axes (B, K, H, W)."""
        seen = look(self.frame, lrhsi, msi)
        z: Tensor = self.net(seen.base, seen.obs, self.frame.step[:, None, None])
        return z * self.frame.unit[:, None, None]

    def coefficients(self, lrhsi: Tensor, msi: Tensor) -> Tensor:
        """Fused coefficients (B, K, H, W)."""
        turn = self.subspace.basis.T @ self.frame.subspace.basis
        corrected = torch.einsum("jk,bkhw->bjhw", turn.to(lrhsi), self.corrected(lrhsi, msi))
        return (self.conic.coefficients(lrhsi, msi) + corrected) / 2

    def outside_low(self, lrhsi: Tensor) -> Tensor:
        """What is added outside the subspace, before interpolation: (B, C, h, w)."""
        return self.frame.base.outside_low(lrhsi)

    def predict(self, lrhsi: Tensor, msi: Tensor) -> Tensor:
        """Fuse tiles."""
        return compose(self.subspace, self.model, self.coefficients(lrhsi, msi), self.outside_low(lrhsi))

    def describe(self) -> dict[str, str]:
        """What the members estimated, and the weights."""
        weights = f"{self.card.name} ({self.card.steps} steps)"
        return {**self.conic.describe(), "method": self.name, "members": "glp-ens corrected, conic", "weights": weights}

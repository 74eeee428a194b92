"""Weights for any sensor at work, without adaptation: `blend`, corrected by what they have learned elsewhere."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Self

import torch
from torch import Tensor

from hsfuse.core.errors import ModelError
from hsfuse.methods import Requirements, compose
from hsfuse.methods.conditioning import KNOWN_BASE, ConditionedFrame, conditioned_frame, guides
from hsfuse.methods.frame import TOO_NARROW, reducible
from hsfuse.methods.regression import DIMENSION
from hsfuse.methods.subspace import SpectralSubspace
from hsfuse.nets.srlf import SRLFNet
from hsfuse.nets.weights import ModelCard, find_weights, load_net
from hsfuse.physics.model import ObservationModel
from hsfuse.physics.sample import PairSample

log = logging.getLogger(__name__)

#: Share of what the network would add that is used: on scenes unlike those of its training the whole is too much.
SHARE = 0.5


def weights_for(ratio: int) -> Path:
    """The weights that come with hsfuse for a ratio; ModelError when there are none."""
    path = find_weights(ratio, DIMENSION, KNOWN_BASE)
    if path is None:
        raise ModelError(f"there are no weights for ratio {ratio}; use --method blend, or train some with hsfuse train")
    return path


class AnySensor:
    """`blend` corrected by SRLF-Net as trained: LRHSI (B, C, h, w), MSI (B, c, H, W) -> HRHSI (B, C, H, W)."""

    name = "srlf-any"
    requirements = Requirements(halo=12)
    frame: ConditionedFrame
    net: SRLFNet
    card: ModelCard
    subspace: SpectralSubspace

    def __init__(self, weights: Path | None = None, turns: int = 1) -> None:
        self.weights, self.turns = weights, turns

    def fit(self, scene: PairSample, model: ObservationModel) -> Self:
        """Fit the blend; the network is as trained. ModelError when the weights don't fit the scene."""
        path = self.weights or weights_for(model.ratio)
        self.card, net, _ = load_net(path, "any-sensor", lambda card, _: guides(card.config.channels))
        self.frame = conditioned_frame(scene, model)
        self.subspace = self.frame.subspace
        have, want = self.subspace.dimension, self.card.config.channels
        if have != want or self.card.scale != model.ratio:
            raise ModelError(
                f"the weights {self.card.name!r} are for ratio {self.card.scale} and {want} subspace dimensions, the "
                f"scene has ratio {model.ratio} and {have} (fewer bands or pixels give fewer)"
            )
        if not reducible(scene, model.ratio):
            log.warning("%s: %s alone is used, without the weights", TOO_NARROW % model.ratio, KNOWN_BASE)
        self.turns = self.turns if model.symmetric else 1
        self.net = net.to(scene.lrhsi.device)
        return self

    @torch.no_grad()
    def coefficients(self, lrhsi: Tensor, msi: Tensor) -> Tensor:
        """Fused coefficients (B, K, H, W)."""
        seen, frame = self.frame.see(lrhsi, msi), self.frame
        step = SHARE * frame.step[:, None, None]
        return self.net.ensemble(seen.base, seen.obs, step, self.turns) * frame.unit[:, None, None]

    def outside_low(self, lrhsi: Tensor) -> Tensor:
        """What is added outside the subspace, before interpolation: (B, C, h, w)."""
        return self.frame.blend.outside_low(lrhsi)

    def predict(self, lrhsi: Tensor, msi: Tensor) -> Tensor:
        """Fuse tiles."""
        return compose(self.subspace, self.frame.base.model, self.coefficients(lrhsi, msi), self.outside_low(lrhsi))

    def describe(self) -> dict[str, str]:
        """The weights, and what the frame estimated."""
        weights = f"{self.card.name} ({self.card.steps} steps)"
        return {**self.frame.base.describe(), "method": self.name, "base": KNOWN_BASE, "weights": weights}

"""SRLF-Net as a fusion method: a training-free base, corrected by the network in the scene's spectral subspace."""

from __future__ import annotations

import logging
from dataclasses import asdict
from pathlib import Path
from typing import Self

import torch
from torch import Tensor

from hsfuse.errors import ModelError, SettingError
from hsfuse.fusers import METHODS, Requirements, TrainingScene
from hsfuse.fusers.adaptation import Adaptation, AdaptationLog, AdaptSettings
from hsfuse.fusers.card import ModelCard, load_checkpoint, save_checkpoint
from hsfuse.fusers.frame import SceneFrame, make_frame
from hsfuse.nets.srlf import SRLFConfig, SRLFNet
from hsfuse.physics import ObservationModel

log = logging.getLogger(__name__)

#: Held-out error below which, relative to the base's, the network is worth having.
WORTHWHILE = 0.998
DEFAULT_BASE = "blend"
#: Methods that the network can correct; weights for any sensor work on axes of their own.
BASES = tuple(name for name in METHODS if not name.startswith("srlf"))


class SRLFFuser:
    """LRHSI (B, C, h, w), MSI (B, c, H, W) -> HRHSI (B, C, H, W)."""

    name = "srlf"
    requirements = Requirements(halo=5)
    frame: SceneFrame
    net: SRLFNet
    share: Tensor

    def __init__(
        self,
        base: str = DEFAULT_BASE,
        weights: Path | None = None,
        adapt: AdaptSettings | None = None,
        config: SRLFConfig | None = None,
        turns: int = 8,
    ) -> None:
        if base not in BASES:
            raise SettingError(f"there is no base {base!r} for SRLF-Net; known are {', '.join(BASES)}")
        self.base_name, self.weights, self.config, self.turns = base, weights, config, turns
        self.settings = adapt or AdaptSettings()
        self.adaptation = AdaptationLog()
        self.card: ModelCard | None = None

    def fit(self, scene: TrainingScene, model: ObservationModel) -> Self:
        """Fit the base, then the network on the scene; what the held-out cells don't bear out is not used."""
        self.frame = make_frame(scene, model, self.base_name)
        self.turns = self.turns if model.symmetric else 1
        self.net = self._make_net(scene, model.scale).to(scene.lrhsi.device)
        run = Adaptation(scene, self.frame, self.settings)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.settings.seed)
            self._adapt(run)
        self.adaptation = run.log
        return self

    def _make_net(self, scene: TrainingScene, scale: int) -> SRLFNet:
        k = self.frame.unit.numel()
        if self.weights is None:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(self.settings.seed)
                return SRLFNet(self.config or SRLFConfig(k, k, scale, dropout=0.1))
        self.card, tensors = load_checkpoint(self.weights)
        check_card(self.card, scale, k)
        net = SRLFNet(self.card.config)
        try:
            net.load_state_dict({key: value for key, value in tensors.items() if not key.startswith("scene.")})
        except RuntimeError as error:
            raise ModelError(f"{self.weights}: the weights don't fit the card's configuration") from error
        return net

    def _adapt(self, run: Adaptation) -> None:
        """Train within the budget, then decide how much of the network to use."""
        if not run.possible:
            self.share = torch.ones_like(self.frame.unit) * (self.weights is not None)
            run.log.verdict = "the scene is too small to train on one part and judge on another: " + (
                "the weights are used as they are" if self.weights else f"the base {self.base_name} is the result"
            )
        else:
            if self.settings.steps > 0 and self.settings.minutes > 0:
                self.net = run.run(self.net)
            self.share, error = run.trust(self.net, self.turns)
            run.log.gain = 1 - error
            self._judge(run, error)
        self.net.eval()
        log.info("SRLF-Net: %s", run.log.verdict)

    def _judge(self, run: Adaptation, error: float) -> None:
        if error < WORTHWHILE:
            run.log.verdict = (
                f"error on held-out blocks {1 - error:.1%} below the base {self.base_name} "
                f"(weights of step {run.log.kept_step}, {self.share.mean():.0%} of the correction trusted)"
            )
            return
        self.share = torch.zeros_like(self.share)
        run.log.verdict = f"held-out blocks got no better than the base {self.base_name}: the base is the result"

    def predict(self, lrhsi: Tensor, msi: Tensor) -> Tensor:
        """Fuse tiles."""
        if self.frame.fuser is not None and not self.share.any():
            return self.frame.fuser.predict(lrhsi, msi)
        seen = self.frame.see(lrhsi, msi)
        z = seen.base
        if self.share.any():
            z = self.net.ensemble(z, seen.obs, (self.frame.step * self.share)[:, None, None], self.turns)
        return self.frame.finish(z, seen)

    def describe(self) -> dict[str, str]:
        """Settings, what was estimated, and what adaptation brought."""
        weights = "from scratch" if self.card is None else f"{self.card.name} ({self.card.steps} steps)"
        return {
            **self.frame.base.describe(),
            "method": self.name,
            "base": self.base_name,
            "weights": weights,
            "adaptation": self.adaptation.verdict,
            "MSI gain": ", ".join(f"{g:.3f}" for g in self.frame.gain.tolist()),
        }

    def save(self, path: Path, name: str) -> None:
        """Keep the fitted weights with their card."""
        steps = self.adaptation.kept_step
        card = ModelCard(
            name,
            self.net.cfg,
            self.net.cfg.scale,
            phase=f"{self.frame.base.model.phase:g}",
            base=self.base_name,
            kind="scene",
            trained_on="one scene, by reduced resolution and consistency",
            seed=self.settings.seed,
            steps=steps,
            extra={"adaptation": asdict(self.adaptation)},
        )
        save_checkpoint(path, card, dict(self.net.state_dict()))


def check_card(card: ModelCard, scale: int, dimension: int) -> None:
    """ModelError with a readable table when weights don't fit a scene."""
    rows = [
        ("scale", card.scale, scale),
        ("subspace dimension", card.config.channels, dimension),
        ("guide channels", card.config.guide, dimension),
    ]
    wrong = [f"{what}: weights {have}, scene {want}" for what, have, want in rows if have != want]
    if wrong:
        hint = "; use --method srlf-any for weights of any sensor" if card.kind == "any-sensor" else ""
        raise ModelError(f"the weights {card.name!r} don't fit this scene ({'; '.join(wrong)}){hint}")

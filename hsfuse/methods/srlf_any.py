"""`blend`, corrected by what the scene's own reduced resolution teaches (`SceneRegression`) and, where there are
weights for any sensor, by what these have learned elsewhere. Each is used only where the scene bears it out; nothing
is adapted."""

from __future__ import annotations

import logging
from copy import copy
from pathlib import Path
from typing import Self, cast

import torch
from torch import Tensor

from hsfuse.core.errors import ModelError
from hsfuse.core.options import FuseOptions
from hsfuse.core.package import file_sha256
from hsfuse.methods import Method, Requirements, compose
from hsfuse.methods.adapt import Errors, Judge, change
from hsfuse.methods.conditioning import KNOWN_BASE, ConditionedFrame, conditioned_frame, guides
from hsfuse.methods.frame import TOO_NARROW, Seen, noise_adder, reduced_images, reducible
from hsfuse.methods.regression import DIMENSION
from hsfuse.methods.subspace import SpectralSubspace
from hsfuse.nets.srlf import SRLFNet
from hsfuse.nets.watch import StageWatch
from hsfuse.nets.weights import ModelCard, ModelRecord, find_weights, load_net
from hsfuse.physics.model import ObservationModel
from hsfuse.physics.sample import PairSample

log = logging.getLogger(__name__)

#: Share of what the network would add that is used: on scenes unlike those of its training the whole is too much.
SHARE = 0.5
#: LR pixels of the scene at reduced resolution below which that says nothing of weights, and they aren't used: on pairs
#: with a truth and 1 to 4 of them it found weights up to 10 % worse where they gained, and better where they lost; on
#: those with 24 to 81 nothing that it let pass lost more than .01 dB or .4 %.
JUDGED = 24
#: What the weights must leave, at most, of error and of angle there. On ten pairs whose test spoke for them by less
#: they gained nothing on average, and lost up to .12 dB or 2.4 %; on nine where it said more they gained .07 dB and
#: .7 %, and lost .005 dB and .1 % at most.
BETTER = 0.995


class AnySensor(Method):
    """`blend` corrected by scene regression and weights: LRHSI (B, C, h, w), MSI (B, c, H, W) -> HRHSI (B, C, H, W).

    `weights`: a checkpoint, "auto" for those of the collection that fit the scene, None for the scene regression alone.
    """

    id = "srlf-any"
    requirements = Requirements(halo=12)
    kinds = ("any-sensor",)
    frame: ConditionedFrame
    net: SRLFNet | None = None
    card: ModelCard | None = None
    subspace: SpectralSubspace
    share: float  # of the correction that is used; 0 where the scene doesn't bear it out
    verdict: str

    def __init__(self, weights: Path | str | None = "auto", turns: int = 1) -> None:
        self.weights, self.turns = weights, turns

    @classmethod
    def load(cls, options: FuseOptions, weights: ModelRecord | None = None) -> Self:
        """With the weights named, those that fit the scene, or none."""
        given = None if weights is None else weights.path
        return cls("auto" if options.model == "auto" else given)

    def fit(self, scene: PairSample, model: ObservationModel) -> Self:
        """Fit blend and scene regression; the network is as trained. ModelError when the weights don't fit."""
        auto = self.weights == "auto"
        path = find_weights(model.ratio, DIMENSION, KNOWN_BASE) if auto else cast(Path | None, self.weights)
        net = None
        if path is not None:
            self.card, net, _ = load_net(path, "any-sensor", lambda card, _: guides(card.config.channels))
            self.weights_sha256 = file_sha256(path)
        self.frame = conditioned_frame(scene, model)
        self.subspace = self.frame.subspace
        have = self.subspace.dimension
        if self.card is not None and (have, model.ratio) != (self.card.config.channels, self.card.scale):
            raise ModelError(
                f"the weights {self.card.name!r} are for ratio {self.card.scale} and {self.card.config.channels} "
                f"subspace dimensions, the scene has ratio {model.ratio} and {have} (fewer bands or pixels give fewer)"
            )
        if not reducible(scene, model.ratio):
            log.warning("%s: %s alone is the result", TOO_NARROW % model.ratio, KNOWN_BASE)
        self.turns = self.turns if model.symmetric else 1
        self.net, self.share, self.verdict = None if net is None else net.to(scene.lrhsi.device), SHARE, ""
        if net is None:
            self.share = 0.0
        elif _reduced_pixels(scene, model.ratio) >= JUDGED:
            self._judge(self.errors(scene))
        else:
            self.share, self.verdict = 0.0, "not used: the scene is too small to judge them"
        return self

    @torch.no_grad()
    def errors(self, scene: PairSample) -> Errors:
        """What the weights leave of the errors at reduced resolution.

        Of the blend's, with what the scene regression foretells of parts that it wasn't learned from.
        """
        target, lrhsi, msi = reduced_images(scene, self.frame.base.model)
        lrhsi, msi = noise_adder(scene, self.frame.base.model)(lrhsi, msi, torch.Generator().manual_seed(0))
        valid = scene.mask[:, : target.shape[2], : target.shape[3]]
        frame = self.frame.left_out()
        seen = [frame.see(*block) for block in zip(lrhsi.split(1), msi.split(1), strict=True)]
        unit = self.frame.unit[:, None, None]
        found, start = (
            torch.cat(maps).permute(0, 2, 3, 1)[valid]
            for maps in ([self._corrected(each) for each in seen], [_known(each) * unit for each in seen])
        )
        wanted = self.subspace.project(target).permute(0, 2, 3, 1)[valid]
        return Judge(start, wanted).errors(found - start)

    def _judge(self, errors: Errors) -> None:
        """Leave the weights out unless the scene speaks for them, in error and in angle.

        They have never seen it, so all of it judges.
        """
        used = max(errors.error, errors.angle) <= BETTER
        self.share = SHARE if used else 0.0
        below = KNOWN_BASE if self.frame.scene_regression is None else f"{KNOWN_BASE} with the scene regression"
        what = f"error {change(errors.error)} {below}, angle {change(errors.angle)}"
        self.verdict = f"{'used' if used else 'not used'}: at reduced resolution {what}"
        log.info("weights %s", self.verdict)

    @torch.no_grad()
    def coefficients(self, lrhsi: Tensor, msi: Tensor) -> Tensor:
        """Fused coefficients (B, K, H, W)."""
        if not self.share and self.frame.scene_regression is None:
            return self.frame.start(lrhsi, msi)
        return self._corrected(self.frame.see(lrhsi, msi))

    def _corrected(self, seen: Seen) -> Tensor:
        """Coefficients (B, K, H, W) of what the frame saw, with the network's share."""
        unit = self.frame.unit[:, None, None]
        if self.net is None or not self.share:
            return _known(seen) * unit
        step = self.share * self.frame.step[:, None, None]
        return self.net.ensemble(seen.base, seen.obs, step, self.turns) * unit

    @property
    def given(self) -> str:
        """What the result is, in words; empty where it is the blend alone."""
        parts = ["the weights"] * bool(self.share) + ["the scene regression"] * (
            self.frame.scene_regression is not None
        )
        return f"the base {KNOWN_BASE} corrected by {' and '.join(parts)}" if parts else ""

    def left_out(self) -> AnySensor:
        """The same at reduced resolution, where each part is told what the scene regression of the others foretells."""
        other = copy(self)
        other.frame = self.frame.left_out()
        return other

    def outside_low(self, lrhsi: Tensor) -> Tensor:
        """What is added outside the subspace, before interpolation: (B, C, h, w)."""
        return self.frame.blend.outside_low(lrhsi)

    def predict(self, lrhsi: Tensor, msi: Tensor) -> Tensor:
        """Fuse tiles."""
        if not self.share and self.frame.scene_regression is None:
            return self.frame.blend.predict(lrhsi, msi)
        return compose(self.subspace, self.frame.base.model, self.coefficients(lrhsi, msi), self.outside_low(lrhsi))

    def describe(self) -> dict[str, str]:
        """The weights, and what the frame estimated."""
        known = {"method": self.id, "base": KNOWN_BASE, "weights": self.taken}
        return {**self.frame.base.describe(), **known, **self.told()}

    @property
    def parts(self) -> dict[str, str]:
        """The scene regression and the weights, where they are used."""
        taught = {} if self.frame.scene_regression is None else {"scene regression": ""}
        return taught | ({"weights": self.card.name} if self.card is not None and self.share else {})

    @property
    def taken(self) -> str:
        """The weights and what the scene says of them, in words; empty for none."""
        if self.card is None:
            return ""
        return f"{self.card.name} ({self.card.steps} steps){self.verdict and ', ' + self.verdict}"

    def told(self) -> dict[str, str]:
        """What the scene regression foretells, where there is enough to learn from."""
        return {"scene regression": self.frame.taught} if self.frame.taught else {}

    def layers(self) -> StageWatch | None:
        """Where the network learns again, if there is one."""
        return None if self.net is None else StageWatch(self.net)


def _known(seen: Seen) -> Tensor:
    """The blend (B, K, H, W) with what the scene regression says."""
    return seen.base if seen.obs.known is None else seen.base + seen.obs.known


def _reduced_pixels(scene: PairSample, s: int) -> int:
    """LR pixels of a scene at reduced resolution."""
    n, _, h, w = scene.lrhsi.shape
    return n * (h // s) * (w // s)

"""SRLF-Net as a fusion method: a training-free base, corrected by the network in the scene's spectral subspace.

Three stages follow the base: the scene regression and weights for any sensor correct it (`srlf_any.py`); adaptation to
the scene, in which a second network learns what these leave; and the step back to both inputs. The latter two are kept
as far as the scene's own held-out blocks bear them out. The scene regression adds what both images leave open: without
a second network there is no step back from it, which on close-range scenes lost .02 dB and up to 2 % in angle.

Weights that themselves go on learning on the scene did worse: they have so much at hand, the members of the blend and
their differences, that they soon learn what is peculiar to reduced resolution. The second network sees the result and
the MSI alone.
"""

from __future__ import annotations

import logging
import time
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any, Self, cast

import torch
from torch import Tensor

from hsfuse.core.errors import SettingError
from hsfuse.core.options import FuseOptions
from hsfuse.core.package import data_folder, file_sha256
from hsfuse.methods import METHODS, Method, Requirements
from hsfuse.methods.adapt import UNCHANGED, Adaptation, AdaptationLog, Errors, Rehearsal, Stage
from hsfuse.methods.conditioning import KNOWN_BASE, guides
from hsfuse.methods.consistency import Consistency, fit_consistency
from hsfuse.methods.frame import TOO_NARROW, SceneFrame, make_frame, reducible
from hsfuse.methods.regression import DIMENSION
from hsfuse.methods.srlf_any import AnySensor
from hsfuse.methods.subspace import scene_subspace
from hsfuse.nets.srlf import SRLFConfig, SRLFNet
from hsfuse.nets.watch import StageWatch
from hsfuse.nets.weights import (
    ModelCard,
    ModelRecord,
    check_card,
    find_model,
    find_weights,
    load_checkpoint,
    network_of,
)
from hsfuse.physics.model import ObservationModel
from hsfuse.physics.sample import PairSample


def weights_name(known: AnySensor) -> str:
    """What `find_model` finds the weights by: their name in the collection, else where they are; "" for none."""
    if not isinstance(known.weights, Path):
        return ""
    path = known.weights.resolve()
    return path.stem if path.parent == data_folder("models").resolve() else str(path)


def card_of_scene(
    name: str, config: SRLFConfig, model: ObservationModel, base: str, extra: dict[str, Any]
) -> ModelCard:
    """Of a network fitted to one scene."""
    about = "one scene, by reduced resolution and consistency"
    phase = f"{model.phase:g}"
    return ModelCard(name, config, config.scale, phase, base, kind="scene", trained_on=about, extra=extra)


def weights_below(card: ModelCard) -> tuple[bool, Path | None]:
    """Whether a scene's own network corrects what the scene regression gives, and the weights for any sensor that this
    was given with; ModelError when they aren't there."""
    name = card.extra.get("weights")
    return name is not None, find_model(name).path if name else None


log = logging.getLogger(__name__)

#: Stages and steps of a network that is fitted to a scene; four stages are no better and take half as long again.
FROM_SCRATCH, ON_WEIGHTS = (2, 300), (2, 160)
#: How the verdict of a fit without training begins.
UNTRAINED = "no network was trained on this scene:"
#: Share of what the held-out cells bear out that is used: they are at reduced resolution, where networks learned.
TRANSFER = 0.75
#: Held-out error below which, relative to what the network corrects, it is worth having.
WORTHWHILE = 0.998
#: Symmetries of the square that are averaged over unless told otherwise.
TURNS = 8
#: Methods that the network can correct.
BASES = tuple(name for name in METHODS if not name.startswith("srlf"))


class SRLF(Method):
    """LRHSI (B, C, h, w), MSI (B, c, H, W) -> HRHSI (B, C, H, W), on the base and by the budget that the options name.

    `weights`: a checkpoint, "auto" for those of the collection that fit the scene, None to start from scratch.
    """

    id = "srlf"
    requirements = Requirements(halo=8)
    kinds = ("any-sensor", "scene")
    frame: SceneFrame
    net: SRLFNet
    share: Tensor

    def __init__(
        self,
        options: FuseOptions | None = None,
        weights: Path | str | None = "auto",
        config: SRLFConfig | None = None,
    ) -> None:
        self._options = options = options or FuseOptions()
        if options.base not in BASES:
            raise SettingError(f"there is no base {options.base!r} for SRLF-Net; known are {', '.join(BASES)}")
        self.base_name, self.weights, self.config = options.base, weights, config
        self.turns, self.seed = options.ensemble or (TURNS if options.adapts else 1), options.seed
        self.adaptation = AdaptationLog()
        self.card: ModelCard | None = None
        self.known: AnySensor | None = None
        self.consistency: Consistency | None = None

    @classmethod
    def load(cls, options: FuseOptions, weights: ModelRecord | None = None) -> Self:
        """With the weights named, those that fit the scene, or none."""
        given = None if weights is None else weights.path
        return cls(options, "auto" if options.model == "auto" else given)

    def fit(self, scene: PairSample, model: ObservationModel) -> Self:
        """Fit the base, then the network; what the held-out cells don't bear out is not used.

        ModelError for a checkpoint that doesn't fit the scene.
        """
        clock, device = time.monotonic(), scene.lrhsi.device
        self.turns = self.turns if model.symmetric else 1
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            torch.manual_seed(self.seed)
            self.net = self._make_net(scene, model).to(device)
            if self._foretold is not None:
                return self._untrained(self._foretold, clock)
            rehearsal = Rehearsal(scene, self.frame, self.seed, self._left_out)
            run = Adaptation(rehearsal, self._options, self._usual[1], self._before(rehearsal))
            self.adaptation, self.share = run.log, torch.zeros_like(self.frame.unit)
            clock = self._note("base", UNCHANGED, clock)
            if rehearsal.possible:
                clock = self._correct(run, clock)
            else:
                reason = "the scene is too small to train on one part and judge on another:"
                trains = run.steps > 0 and run.minutes > 0
                run.log.verdict = f"{reason if trains else UNTRAINED} {self._start} is the result"
        self.net.eval()
        agrees = self.known is not None and self.known.frame.scene_regression is not None and not self.share.any()
        if self._options.consistency == "on" and not agrees and int(rehearsal.mask.sum()) >= self.share.numel():
            self._agree(run, clock)
        log.info("SRLF-Net: %s", run.log.verdict)
        return self

    @property
    def _foretold(self) -> Errors | None:
        """What is known of the result without a rehearsal: nothing, unless it is what the scene regression gives."""
        taught = None if self.known is None else self.known.frame.scene_regression
        trains = self._options.steps != 0 and self._options.adapt_minutes != 0
        return None if taught is None or self.card is not None or trains else Errors(*taught.left)

    def _untrained(self, errors: Errors, clock: float) -> Self:
        """The end of a fit that needs no rehearsal."""
        self.share = torch.zeros_like(self.frame.unit)
        clock = self._note("base", UNCHANGED, clock)
        self._note("scene regression", errors, clock)
        self._as_it_was(errors)
        self.net.eval()
        log.info("SRLF-Net: %s", self.adaptation.verdict)
        return self

    def _as_it_was(self, errors: Errors) -> None:
        """Write down that no network is trained: what it would have corrected is the result."""
        self.adaptation.gain, self.adaptation.verdict = 1 - errors.error, f"{UNTRAINED} {self._start} is the result"

    @property
    def _start(self) -> str:
        """What the network corrects, in words."""
        return (self.known.given if self.known is not None else "") or f"the base {self.base_name}"

    @property
    def _left_out(self) -> SceneFrame:
        """The frame at reduced resolution, where a scene regression speaks of parts that it wasn't learned from."""
        return self.frame if self.known is None else replace(self.frame, fuser=self.known.left_out())

    def _make_net(self, scene: PairSample, model: ObservationModel) -> SRLFNet:
        """The frame and the network that works in it."""
        dimension = scene_subspace(scene, DIMENSION).dimension
        taught = self.weights == "auto" and self.base_name == KNOWN_BASE
        found = find_weights(model.ratio, dimension, KNOWN_BASE) if taught else None
        path = found if self.weights == "auto" else cast(Path | None, self.weights)
        net = None
        if (taught or path is not None) and not reducible(scene, model.ratio):
            log.warning("%s: no weights are used", TOO_NARROW % model.ratio)
            taught, path = False, None
        if path is not None:
            self.card, tensors = load_checkpoint(path)
            self.weights_sha256 = file_sha256(path)
            check_card(self.card, self._facts(model, dimension))
            taught = self.card.kind == "any-sensor"
            if not taught:
                net = network_of(path, self.card, tensors)
                taught, path = weights_below(self.card)
        self.known = AnySensor(path, self.turns).fit(scene, model) if taught else None
        if self.known is not None and self._foretold is not None:
            self.frame = SceneFrame(**{part.name: getattr(self.known.frame, part.name) for part in fields(SceneFrame)})
        else:
            self.frame = make_frame(scene, model, self.base_name, self.known and self.known.left_out())
        self.frame = replace(self.frame, fuser=self.known or self.frame.fuser)
        config = self.config or SRLFConfig(dimension, dimension, model.ratio, self._usual[0], dropout=0.1)
        return net or SRLFNet(config)

    @property
    def _usual(self) -> tuple[int, int]:
        """Stages and steps by default."""
        return FROM_SCRATCH if self.known is None else ON_WEIGHTS

    def _facts(self, model: ObservationModel, dimension: int) -> dict[str, int | str]:
        """What weights of the card's kind must be for."""
        any_sensor = self.card is not None and self.card.kind == "any-sensor"
        return {
            "scale": model.ratio,
            "subspace dimension": dimension,
            "guide channels": guides(dimension) if any_sensor else dimension,
            "phase": f"{model.phase:g}",
            "base": self.base_name,
        }

    def _before(self, rehearsal: Rehearsal) -> Errors:
        """What scene regression and weights for any sensor leave of the base's errors on held-out cells."""
        if self.known is None or not rehearsal.possible:
            return UNCHANGED
        plain = rehearsal.coefficients(replace(self.frame, fuser=self.known.frame.blend))
        without = rehearsal.judge.errors(rehearsal.held_out(plain) - rehearsal.judge.start)
        return Errors(1 / max(without.error, 1e-12), 1 / max(without.angle, 1e-12))

    def _correct(self, run: Adaptation, clock: float) -> float:
        """Train within the budget, then decide how much of the network to use; returns the time it is then."""
        errors, trained = run.before, run.steps > 0 and run.minutes > 0
        if self.card is not None and self.card.kind != "any-sensor":
            errors = self._trust(run)
        if self.card is not None or self.known is not None:
            clock = self._note("scene regression" if self.card is None else "weights", errors, clock)
        if not trained and (self.card is None or self.card.kind == "any-sensor"):
            self._as_it_was(errors)
            return clock
        if trained:
            self.net = run.run(self.net)
            errors = self._trust(run)
            clock = self._note("adaptation", errors, clock)
        self._judge(run, errors)
        return clock

    def _trust(self, run: Adaptation) -> Errors:
        """Set the share of each coefficient's correction that is used; the errors with it."""
        rehearsal = run.rehearsal
        correction = rehearsal.held_out(rehearsal.corrections(self.net, self.turns))
        self.share = TRANSFER * rehearsal.judge.trust(correction)
        return rehearsal.judge.errors(self.share * correction).times(run.before)

    def _judge(self, run: Adaptation, errors: Errors) -> None:
        """A network is left out that gains nothing for sure on what it corrects, or is behind the base in anything."""
        before, log_ = run.before, run.log
        worst = max(errors.error / before.error, errors.angle / before.angle)
        behind = max(errors.error, errors.angle) > 1
        if errors.both >= WORTHWHILE * before.both or worst > 1 / WORTHWHILE or behind:
            self.share = torch.zeros_like(self.share)
            log_.gain = 1 - before.error
            log_.verdict = f"held-out blocks got no better than {self._start}, which is the result"
        else:
            log_.accept(errors, self.base_name, float(self.share.mean()))

    def _agree(self, run: Adaptation, clock: float) -> None:
        """Fit the step back to both inputs to what error is left; kept unless held-out cells get worse by it.

        It needs no judge: where there is none, it is what noise and covariance say.
        """
        rehearsal = run.rehearsal
        a = rehearsal.low.base * rehearsal.unit
        if self.share.any():
            a = a + self.share[:, None, None] * rehearsal.corrections(self.net, self.turns)
        step = fit_consistency(rehearsal.scene, self.frame, rehearsal.usable(a - rehearsal.low.target))
        inputs = rehearsal.inside()
        after = step(a, *inputs)
        judge = rehearsal.judge
        errors, before = (judge.errors(rehearsal.held_out(maps) - judge.start).times(run.before) for maps in (after, a))
        self.adaptation.stages[-1].misfits = step.relative_misfits(a, *inputs)
        kept = not rehearsal.possible or errors.both <= before.both
        self.consistency = step if kept else None
        if rehearsal.possible:
            self._note("consistency", errors if kept else before, clock)
        self.adaptation.stages[-1].misfits = step.relative_misfits(after if kept else a, *inputs)

    def _note(self, name: str, errors: Errors, clock: float) -> float:
        """Write a stage down; returns the time it is then."""
        now = time.monotonic()
        self.adaptation.stages.append(Stage(name, errors.error, errors.angle, round(now - clock, 2)))
        return now

    @torch.no_grad()
    def predict(self, lrhsi: Tensor, msi: Tensor) -> Tensor:
        """Fuse tiles."""
        frame, used = self.frame, bool(self.share.any())
        if frame.fuser is not None and self.consistency is None and not used:
            return frame.fuser.predict(lrhsi, msi)
        seen = frame.see(lrhsi, msi)
        z = seen.base
        if used:
            z = self.net.ensemble(z, seen.obs, (frame.step * self.share)[:, None, None], self.turns)
        if self.consistency is not None:
            unit = frame.unit[:, None, None]
            z = self.consistency(z * unit, frame.inside(lrhsi, seen), seen.msi) / unit
        return frame.finish(z, seen)

    def describe(self) -> dict[str, str]:
        """Settings, what was estimated, and what adaptation brought."""
        weights = "" if self.card is None else f"{self.card.name} ({self.card.steps} steps)"
        if self.known is not None and (self.card is None or self.card.kind == "any-sensor"):
            weights = self.known.taken
        return {
            **self.frame.base.describe(),
            "method": self.id,
            "base": self.base_name,
            "weights": weights,
            **({} if self.known is None else self.known.told()),
            "adaptation": self.adaptation.verdict,
            "consistency": "off" if self.consistency is None else "brought back to both inputs within their noise",
            "MSI gain": ", ".join(f"{g:.3f}" for g in self.frame.gain.tolist()),
        }

    @property
    def parts(self) -> dict[str, str]:
        """What is known of any scene and is used, and the network of this scene where it is."""
        found = {} if self.known is None else self.known.parts
        if not self.share.any():
            return found
        given = {"weights": self.card.name} if self.card is not None and self.card.kind == "scene" else {}
        steps = self.adaptation.kept_step
        return found | given | ({"training": f"{steps} steps"} if steps else {})

    def history(self) -> dict[str, Any]:
        """What each stage brought, and how adaptation went."""
        return asdict(self.adaptation)

    def layers(self) -> StageWatch:
        """Where the network learns again."""
        return StageWatch(self.net)

    def weights_of_scene(self, name: str) -> tuple[ModelCard, dict[str, Tensor]]:
        """The network fitted to this scene with its card, which names the weights below it."""
        extra = {"adaptation": asdict(self.adaptation), "weights": self.known and weights_name(self.known)}
        card = card_of_scene(name, self.net.cfg, self.frame.base.model, self.base_name, extra)
        card = replace(card, seed=self.seed, steps=self.adaptation.kept_step)
        return card, dict(self.net.state_dict())

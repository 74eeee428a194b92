"""Fitting SRLF-Net to one scene, with the scene's own blocks as judge.

At reduced resolution the network learns what the LRHSI's own detail would have needed (`rehearsal.py`); at full
resolution the fused cube, degraded, must give back both inputs. The weights kept are those with the smallest error on
the cells that are held out.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import cast

import torch
from torch import Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from tqdm import tqdm

from hsfuse.fusers.rehearsal import Pair, Rehearsal
from hsfuse.fusers.trust import DARK, UNCHANGED, Errors
from hsfuse.nets.srlf import SRLFNet

#: Side in HR pixels of the crops on which full-resolution consistency is asked for.
CROP = 48
#: Decay of the running mean of the weights.
DECAY = 0.95


#: Time at most by default.
MINUTES = 3.0


@contextmanager
def one_thread() -> Iterator[None]:
    """Let torch compute on one thread of the CPU.

    On maps as small as those of a step two threads gain some 5 % of the time for a quarter more of the processor's, and
    round sums differently, so that a seed would give other weights on another number of cores.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@dataclass(frozen=True)
class AdaptSettings:
    """Budget and optimiser: `steps` and `minutes` at most (0: no adaptation; None: as many as usual).

    It ends after `patience` checks without progress on held-out cells. `angle` and `consistency` are weights in the
    loss. `consistency_step`: whether results are brought back to both inputs.
    """

    steps: int | None = None
    minutes: float | None = None
    check_every: int = 20
    patience: int = 5
    learning_rate: float = 2e-3
    consistency: float = 0.3
    angle: float = 0.5
    consistency_step: bool = True
    seed: int = 0

    @property
    def wanted(self) -> bool:
        """Whether there is to be any adaptation."""
        return self.steps != 0 and self.minutes != 0


@dataclass
class Stage:
    """One stage of a fusion: errors on held-out cells with all stages so far, relative to the base's, and seconds.

    `misfits`: RMS differences from LRHSI and MSI at reduced resolution, in units of their noise.
    """

    name: str
    error: float
    angle: float
    seconds: float
    misfits: tuple[float, float] | None = None


@dataclass
class AdaptationLog:
    """What happened, for reports: errors are relative to the base's (1 = no better than the base)."""

    steps: list[int] = field(default_factory=list)
    train_loss: list[float] = field(default_factory=list)
    held_out: list[float] = field(default_factory=list)
    held_out_angle: list[float] = field(default_factory=list)
    kept_step: int = 0
    seconds: float = 0.0
    gain: float = 0.0  # drop of the held-out error against the base
    verdict: str = ""
    stages: list[Stage] = field(default_factory=list)

    def accept(self, errors: Errors, base: str, share: float) -> None:
        """Write down that a correction is used, with what remains of the base's errors and the mean share used."""
        self.gain = 1 - errors.error
        self.verdict = (
            f"error on held-out blocks {_change(errors.error)} the base {base}, spectral angle "
            f"{_change(errors.angle)} (weights of step {self.kept_step}, {share:.0%} of the correction used)"
        )


def _change(ratio: float) -> str:
    """In words: "3.1% below"."""
    return f"{abs(1 - ratio):.1%} {'below' if ratio <= 1 else 'above'}"


class Adaptation:
    """One run on one scene; `run` returns the network whose held-out error was smallest.

    `steps` are the usual ones; `before`: the errors of what it corrects, relative to the base's.
    """

    def __init__(self, rehearsal: Rehearsal, settings: AdaptSettings, steps: int, before: Errors = UNCHANGED) -> None:
        self.rehearsal, self.settings, self.before = rehearsal, settings, before
        self.steps = steps if settings.steps is None else settings.steps
        self.minutes = MINUTES if settings.minutes is None else settings.minutes
        frame = rehearsal.frame
        self.scale_of_error = (frame.step * frame.unit).max()
        self.log = AdaptationLog()

    def fused(self, net: SRLFNet, pair: Pair) -> Tensor:
        """Coefficients a of a pair."""
        return pair.base * self.rehearsal.unit + self.rehearsal.correction(net, pair)

    def supervised(self, net: SRLFNet, pair: Pair) -> Tensor:
        """Mean error over the usable pixels: absolute, in units of the base's largest, and `angle` times the angle."""
        absolute, across = self._losses(self.fused(net, pair), pair)
        return absolute + self.settings.angle * self._angle_scale * across

    def _losses(self, fused: Tensor, pair: Pair) -> tuple[Tensor, Tensor]:
        """Mean absolute error, and mean error across the target's direction relative to the target's length."""
        error, area = fused - pair.target, pair.mask.sum().clamp_min(1)
        absolute = (error.abs() * pair.mask).sum() / area / error.shape[1] / self.scale_of_error
        length = pair.target.norm(dim=1, keepdim=True).clamp_min(1e-12)
        direction = pair.target / length
        across = error - direction * (direction * error).sum(1, keepdim=True)
        angle = (across.square().sum(1, keepdim=True) + 1e-20).sqrt() / (length + self._dark)
        return absolute, (angle * pair.mask).sum() / area

    @cached_property
    def _dark(self) -> Tensor:
        """Length of a dark spectrum: what is shorter counts as if it were as long."""
        length, mask = self.rehearsal.low.target.norm(dim=1, keepdim=True), self.rehearsal.train_mask
        return DARK * (length * mask).sum() / mask.sum().clamp_min(1)

    @cached_property
    def _angle_scale(self) -> Tensor:
        """What makes the base's angle as large as its absolute error."""
        pair = replace(self.rehearsal.low, mask=self.rehearsal.train_mask)
        absolute, angle = self._losses(pair.base * self.rehearsal.unit, pair)
        return absolute / angle.clamp_min(1e-12)

    def consistency(self, net: SRLFNet, row: int, col: int, block: int, turn: int) -> Tensor:
        """How far the fused window at full resolution, degraded, is from both inputs."""
        model, unit, side = self.rehearsal.frame.model, self.rehearsal.unit, self._crop()
        pair = self.rehearsal.full.window(block, row, col, side, turn)
        fused = self.fused(net, pair)
        inner = slice(1, -1) if min(side) >= 4 * model.scale else slice(None)
        spatial = (model.spatial(fused) - pair.obs.x * unit)[..., inner, inner].abs().mean() / self.scale_of_error
        spectral = (model.spectral(fused) - pair.obs.y).abs().mean() / pair.obs.y.std().clamp_min(1e-6)
        return spatial + spectral

    def _crop(self) -> tuple[int, int]:
        s = self.rehearsal.frame.model.scale
        side = max(CROP // s, 4) * s
        height, width = self.rehearsal.scene.msi.shape[2:]
        return min(side, height), min(side, width)

    @one_thread()
    def run(self, net: SRLFNet) -> SRLFNet:
        """Train `net` in place within the budget; returns the averaged weights with the smallest held-out error."""
        start, best = time.monotonic(), deepcopy(net)
        least, stale = self._check(net, 0, float("nan")), 0
        for step, loss, averaged in self._train(net, start):
            error, stale = self._check(averaged, step, loss), stale + 1
            if error < least:
                best, least, stale, self.log.kept_step = deepcopy(averaged), error, 0, step
            if stale >= self.settings.patience:
                break
        self.log.seconds = time.monotonic() - start
        return best.eval()

    def _check(self, net: SRLFNet, step: int, loss: float) -> float:
        """Write down how the network does on the held-out cells; the mean of both errors."""
        errors = self.errors(net)
        self.log.steps.append(step)
        self.log.train_loss.append(loss)
        self.log.held_out.append(errors.error)
        self.log.held_out_angle.append(errors.angle)
        return errors.both

    def errors(self, net: SRLFNet) -> Errors:
        """Errors on the held-out cells, relative to the base's."""
        rehearsal = self.rehearsal
        return rehearsal.judge.errors(rehearsal.held_out(rehearsal.corrections(net))).times(self.before)

    def _train(self, net: SRLFNet, start: float) -> Iterator[tuple[int, float, SRLFNet]]:
        """Optimise; yields (step, mean loss, averaged network) at each check until the budget is spent."""
        average = AveragedModel(net, multi_avg_fn=get_ema_multi_avg_fn(DECAY))
        optimiser = torch.optim.AdamW(net.parameters(), lr=self.settings.learning_rate, weight_decay=1e-4)
        random, losses = torch.Generator().manual_seed(self.settings.seed), []
        warmup = min(20.0, self.steps / 4 + 1)
        for step in tqdm(range(1, self.steps + 1), desc="adapting", unit="step", disable=None, leave=False):
            spent = (time.monotonic() - start) / 60 / max(self.minutes, 1e-9)
            for group in optimiser.param_groups:  # by steps alone: a seed gives the same weights on a busy machine
                group["lr"] = (
                    self.settings.learning_rate * min(step / warmup, 1.0) * max(1.05 - step / self.steps, 0.05)
                )
            losses.append(self._step(net, optimiser, random))
            average.update_parameters(net)
            if step % self.settings.check_every == 0 or step == self.steps or spent >= 1:
                yield step, sum(losses) / len(losses), cast(SRLFNet, average.module)
                losses.clear()
            if spent >= 1:
                return

    def _step(self, net: SRLFNet, optimiser: torch.optim.Optimizer, random: torch.Generator) -> float:
        def draw(n: int) -> int:
            return int(torch.randint(n, (1,), generator=random))

        net.train()
        pairs, model = self.rehearsal.draws, self.rehearsal.frame.model
        block, turn = draw(len(self.rehearsal.scene.lrhsi)), draw(8 if model.symmetric else 1)
        loss = self.supervised(net, pairs[draw(len(pairs))].block(block, turn))
        if self.settings.consistency and draw(2):
            sizes = zip(self.rehearsal.scene.msi.shape[2:], self._crop(), strict=True)
            row, col = (draw((n - m) // model.scale + 1) * model.scale for n, m in sizes)
            loss = loss + self.settings.consistency * self.consistency(net, row, col, block, turn)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimiser.step()
        return float(loss.detach())

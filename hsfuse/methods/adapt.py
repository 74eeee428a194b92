"""Fitting SRLF-Net to one scene, with the scene's own blocks as judge.

At reduced resolution the network learns what the LRHSI's own detail would have needed (`rehearsal.py`); at full
resolution the fused cube, degraded, must give back both inputs. The weights kept are those with the smallest error on
the cells that are held out.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import cast

import torch
from torch import Tensor
from torch.nn.functional import max_pool2d
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from tqdm import tqdm

from hsfuse.core.options import FuseOptions
from hsfuse.methods.frame import SceneFrame, Seen, noise_adder, reduced_images
from hsfuse.nets.relearn import angle_map
from hsfuse.nets.srlf import Observation, SRLFNet, dihedral
from hsfuse.physics.sample import PairSample
from hsfuse.physics.solve import one_thread

#: Share of the reduced-resolution target that judges and is not trained on.
HELD_OUT = 0.25
#: Pixels that count as one when the standard error of a trusted share is estimated.
CORRELATED = 9
#: Length, relative to the mean spectrum's, that is added to every spectrum's before anything is divided by it.
DARK = 0.02


@dataclass(frozen=True)
class Errors:
    """RMS error of the coefficients and mean spectral angle, relative to the uncorrected method's."""

    error: float
    angle: float

    @property
    def both(self) -> float:
        """Their mean, by which one is chosen among several."""
        return (self.error + self.angle) / 2

    def times(self, before: Errors) -> Errors:
        """Relative to an earlier method, whose errors `before` this one's are relative to."""
        return Errors(self.error * before.error, self.angle * before.angle)


#: Errors of the uncorrected method itself.
UNCHANGED = Errors(1.0, 1.0)


#: LR pixels to a held-out cell's side. What a method gets wrong within an LR pixel goes on into the next one, as does
#: the PSF: in cells of a single one (x8), training on the neighbours foretold what was held out, and 5 to 27 % less
#: error was found where there was up to 3 % more.
CELL = 3


def cell_side(s: int) -> int:
    """Side of a held-out cell: CELL LR pixels, at least six HR pixels."""
    return s * max(CELL, -(-6 // s))


def inner_cells(cells: Tensor, s: int) -> Tensor:
    """The pixels of held-out cells (n, 1, h, w) that judge: half an LR pixel and more from what is trained on."""
    margin = s // 2
    return max_pool2d((~cells).float(), 2 * margin + 1, 1, margin) == 0


def held_out_cells(shape: tuple[int, ...], s: int, seed: int) -> Tensor:
    """Boolean (n, 1, h, w): cells of `cell_side` pixels a side, a share HELD_OUT of them, spread pseudo-randomly."""
    n, h, w = shape
    side = cell_side(s)
    rows, cols = -(-h // side), -(-w // side)
    order = torch.rand(n * rows * cols, generator=torch.Generator().manual_seed(seed)).argsort()
    chosen = (order < max(1, round(HELD_OUT * n * rows * cols))).view(n, 1, rows, cols)
    return chosen.repeat_interleave(side, 2).repeat_interleave(side, 3)[..., :h, :w]


def angles(found: Tensor, target: Tensor) -> Tensor:
    """Spectral angles in radians between coefficients (P, K): (P,); 0 where either is zero."""
    both = (found != 0).any(1) & (target != 0).any(1)
    return torch.where(both, angle_map(found, target), 0.0)


class Judge:
    """Knows the uncorrected coefficients `start` (P, K) of P held-out pixels and what they should be."""

    def __init__(self, start: Tensor, target: Tensor) -> None:
        self.start, self.target, self.needed = start, target, target - start
        length = target.norm(dim=1, keepdim=True)
        length = (length + DARK * length.mean()).clamp_min(1e-12)
        relative = (self.needed / length).square().sum().clamp_min(1e-30)
        self.weight = 1 / self.needed.square().sum().clamp_min(1e-30) + 1 / (length.square() * relative)

    def errors(self, correction: Tensor) -> Errors:
        """What remains after a correction (P, K)."""
        left = (correction - self.needed).norm() / self.needed.norm().clamp_min(1e-30)
        before = angles(self.start, self.target).mean().clamp_min(1e-12)
        return Errors(float(left), float(angles(self.start + correction, self.target).mean() / before))

    def trust(self, correction: Tensor) -> Tensor:
        """Share (K,) of each coefficient's correction that is worth having.

        The least-squares factor between the correction and what it should be, for both kinds of error, less its
        standard error, cut to 0..1: where the network doesn't help for sure, the method remains. Neighbouring pixels'
        errors go together, so only one in CORRELATED counts.
        """
        power = (self.weight * correction.square()).sum(0).clamp_min(1e-30)
        factor = (self.weight * correction * self.needed).sum(0) / power
        left = self.weight * correction * (factor * correction - self.needed)
        variance = (CORRELATED * (left / power).square().sum(0)).clamp_min(1e-12)
        return (factor - variance.sqrt()).clamp(0, 1)


#: Noise realisations to train on; one more judges.
NOISE_DRAWS = 5


@dataclass(frozen=True)
class Pair:
    """Network inputs, base in z; target coefficients a (n, K, H, W), and where the target may be used (n, 1, H, W)."""

    base: Tensor
    obs: Observation
    target: Tensor
    mask: Tensor

    def window(self, block: int, row: int, col: int, side: Sequence[int], turn: int) -> Pair:
        """One block's window (LR-aligned, in HR pixels), turned by one of the eight symmetries of the square."""
        s = self.obs.model.ratio

        def hr(t: Tensor) -> Tensor:
            return dihedral(t[block : block + 1, :, row : row + side[0], col : col + side[1]], turn)

        def lr(t: Tensor) -> Tensor:
            rows, cols = slice(row // s, (row + side[0]) // s), slice(col // s, (col + side[1]) // s)
            return dihedral(t[block : block + 1, :, rows, cols], turn)

        obs = replace(self.obs, x=lr(self.obs.x), y=hr(self.obs.y), guide=hr(self.obs.guide))
        return Pair(hr(self.base), obs, hr(self.target), hr(self.mask))

    def block(self, block: int, turn: int = 0) -> Pair:
        """One whole block, turned."""
        return self.window(block, 0, 0, self.base.shape[2:], turn)


class Rehearsal:
    """Pairs of a scene as a frame sees it: `low` judges on the cells `held`, `draws` train on the others.

    `reduced` is the frame at reduced resolution, where that isn't the same: what was learned there isn't to show.
    """

    def __init__(self, scene: PairSample, frame: SceneFrame, seed: int, reduced: SceneFrame | None = None) -> None:
        self.scene, self.frame, self._reduced = scene, frame, reduced or frame
        target, self._lrhsi, self._msi = reduced_images(scene, frame.base.model)
        self._target = frame.subspace.project(target)
        self._random = torch.Generator().manual_seed(seed)
        self._add_noise = noise_adder(scene, frame.base.model)
        self.mask = scene.mask[:, None, : target.shape[2], : target.shape[3]]
        s = frame.model.ratio
        cells = held_out_cells((self.mask.shape[0], *self.mask.shape[2:]), s, seed).to(self.mask.device)
        self.train_mask = self.mask & ~cells
        self.held = self.mask & (inner_cells(cells, s) if cells.numel() else cells)
        self.lrhsi, self.msi = self._noisy()
        self.seen = self._see(self.lrhsi, self.msi)
        self.low = self._pair(self.seen, self._target, self.mask)
        self.judge = Judge(self.held_out(self.low.base * self.unit), self.held_out(self._target))

    @property
    def possible(self) -> bool:
        """Whether the scene is large enough to train on one part and judge on another, which is more than one cell: a
        single place doesn't speak for all."""
        k, held = self.frame.unit.numel(), int(self.held.sum())
        s = self.frame.model.ratio
        more = held > (cell_side(s) - 2 * (s // 2)) ** 2
        return more and held >= 4 * k and int(self.train_mask.sum()) >= 8 * k

    @property
    def unit(self) -> Tensor:
        """(K, 1, 1): z to coefficients."""
        return self.frame.unit[:, None, None]

    @cached_property
    def draws(self) -> list[Pair]:
        """Pairs to train on, which differ in their noise."""
        return [self._pair(self._see(*self._noisy()), self._target, self.train_mask) for _ in range(NOISE_DRAWS)]

    @cached_property
    def full(self) -> Pair:
        """The scene itself, on which fused windows must give back both inputs."""
        lrhsi, mask = self.scene.lrhsi, self.scene.mask[:, None]
        return self._pair(self._see(lrhsi, self.scene.msi, self.frame), self.frame.subspace.project(lrhsi), mask)

    def inside(self) -> tuple[Tensor, Tensor]:
        """The inputs of the pair that judges, LRHSI (n, C, h, w) within the subspace and MSI (n, c, H, W)."""
        parts = zip(self.lrhsi.split(1), self.seen, strict=True)
        return torch.cat([self.frame.inside(x, seen) for x, seen in parts]), torch.cat([s.msi for s in self.seen])

    def coefficients(self, frame: SceneFrame) -> Tensor:
        """What another frame's method makes of the pair that judges: (n, K, H, W)."""
        parts = zip(self.lrhsi.split(1), self.msi.split(1), self.seen, strict=True)
        return torch.cat([frame.fused(x, y, seen.msi)[0] for x, y, seen in parts])

    def held_out(self, maps: Tensor) -> Tensor:
        """Values on the held-out pixels: (n, K, H, W) -> (P, K)."""
        return maps.permute(0, 2, 3, 1)[self.held[:, 0]]

    def usable(self, maps: Tensor) -> Tensor:
        """Values on all valid pixels: (n, K, H, W) -> (P, K)."""
        return maps.permute(0, 2, 3, 1)[self.mask[:, 0]]

    def correction(self, net: SRLFNet, pair: Pair, turns: int = 1) -> Tensor:
        """What the network would add to the coefficients of a pair: (n, K, H, W)."""
        step = self.frame.step[:, None, None]
        z: Tensor = net(pair.base, pair.obs, step) if turns == 1 else net.ensemble(pair.base, pair.obs, step, turns)
        return (z - pair.base) * self.unit

    @torch.no_grad()
    def corrections(self, net: SRLFNet, turns: int = 1) -> Tensor:
        """The same on all of the pair that judges, one block at a time."""
        net.eval()
        return torch.cat([self.correction(net, self.low.block(b), turns) for b in range(len(self.low.base))])

    def _noisy(self) -> tuple[Tensor, Tensor]:
        return self._add_noise(self._lrhsi, self._msi, self._random)

    def _see(self, lrhsi: Tensor, msi: Tensor, frame: SceneFrame | None = None) -> list[Seen]:
        """All blocks, one at a time to save memory; at reduced resolution unless a frame is given."""
        return [(frame or self._reduced).see(x, y) for x, y in zip(lrhsi.split(1), msi.split(1), strict=True)]

    def _pair(self, seen: list[Seen], target: Tensor, mask: Tensor) -> Pair:
        x, y, guide = (torch.cat([getattr(s.obs, name) for s in seen]) for name in ("x", "y", "guide"))
        base = torch.cat([s.base for s in seen])
        return Pair(base, replace(seen[0].obs, x=x, y=y, guide=guide), target, mask)


#: Side in HR pixels of the crops on which full-resolution consistency is asked for.
CROP = 48
#: Decay of the running mean of the weights.
DECAY = 0.95


#: Time at most by default.
MINUTES = 3.0


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
            f"error on held-out blocks {change(errors.error)} the base {base}, spectral angle "
            f"{change(errors.angle)} (as of step {self.kept_step}; {share:.0%} of its correction used)"
        )


def change(ratio: float) -> str:
    """In words: "3.1% below"."""
    return f"{abs(1 - ratio):.1%} {'below' if ratio <= 1 else 'above'}"


class Adaptation:
    """One run on one scene, as the `options` say; `run` returns the network whose held-out error was smallest.

    `steps` are the usual ones; `before`: the errors of what it corrects, relative to the base's.
    """

    def __init__(self, rehearsal: Rehearsal, options: FuseOptions, steps: int, before: Errors = UNCHANGED) -> None:
        self.rehearsal, self.pace, self.seed, self.before = rehearsal, options.pace, options.seed, before
        self.steps = steps if options.steps is None else options.steps
        self.minutes = MINUTES if options.adapt_minutes is None else options.adapt_minutes
        frame = rehearsal.frame
        self.scale_of_error = (frame.step * frame.unit).max()
        self.log = AdaptationLog()

    def fused(self, net: SRLFNet, pair: Pair) -> Tensor:
        """Coefficients a of a pair."""
        return pair.base * self.rehearsal.unit + self.rehearsal.correction(net, pair)

    def supervised(self, net: SRLFNet, pair: Pair) -> Tensor:
        """Mean error over the usable pixels: absolute, in units of the base's largest, and `angle` times the angle."""
        absolute, across = self._losses(self.fused(net, pair), pair)
        return absolute + self.pace.angle * self._angle_scale * across

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
        inner = slice(1, -1) if min(side) >= 4 * model.ratio else slice(None)
        spatial = (model.spatial(fused) - pair.obs.x * unit)[..., inner, inner].abs().mean() / self.scale_of_error
        spread = pair.obs.y.std().clamp_min(1e-6 * pair.obs.level)
        spectral = (model.spectral(fused) - pair.obs.y).abs().mean() / spread
        return spatial + spectral

    def _crop(self) -> tuple[int, int]:
        s = self.rehearsal.frame.model.ratio
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
            if stale >= self.pace.patience:
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
        optimiser = torch.optim.AdamW(net.parameters(), lr=self.pace.learning_rate, weight_decay=1e-4)
        random, losses = torch.Generator().manual_seed(self.seed), []
        warmup = min(20.0, self.steps / 4 + 1)
        for step in tqdm(range(1, self.steps + 1), desc="adapting", unit="step", disable=None, leave=False):
            spent = (time.monotonic() - start) / 60 / max(self.minutes, 1e-9)
            for group in optimiser.param_groups:  # by steps alone: a seed gives the same weights on a busy machine
                group["lr"] = self.pace.learning_rate * min(step / warmup, 1.0) * max(1.05 - step / self.steps, 0.05)
            losses.append(self._step(net, optimiser, random))
            average.update_parameters(net)
            if step % self.pace.check_every == 0 or step == self.steps or spent >= 1:
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
        if self.pace.consistency and draw(2):
            sizes = zip(self.rehearsal.scene.msi.shape[2:], self._crop(), strict=True)
            row, col = (draw((n - m) // model.ratio + 1) * model.ratio for n, m in sizes)
            loss = loss + self.pace.consistency * self.consistency(net, row, col, block, turn)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimiser.step()
        return float(loss.detach())

"""Fitting SRLF-Net to one scene, with the scene's own blocks as judge.

Reduced resolution (Wald et al. 1997; the paper's real-scene protocol): both images are degraded by the ratio, and the
LRHSI is the target. Full resolution: the fused cube, degraded, must give back both inputs. Part of the target is held
out in cells; the weights kept are those with the smallest error there.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass, field, replace
from typing import cast

import torch
from torch import Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from tqdm import tqdm

from hsfuse.fusers import TrainingScene
from hsfuse.fusers.frame import SceneFrame, noise_adder, reduced_images
from hsfuse.nets.srlf import Observation, SRLFNet, dihedral

#: Share of the reduced-resolution target that judges and is not trained on.
HELD_OUT = 0.25
#: Side in HR pixels of the crops on which full-resolution consistency is asked for.
CROP = 48
#: Noise realisations of the reduced-resolution pair; the first one judges.
NOISE_DRAWS = 6
#: Pixels that count as one when the standard error of a trusted share is estimated.
CORRELATED = 9


@dataclass(frozen=True)
class AdaptSettings:
    """Budget and optimiser: `steps` and `minutes` at most, `patience` checks without progress on held-out cells."""

    steps: int = 300
    minutes: float = 3.0
    check_every: int = 20
    patience: int = 5
    learning_rate: float = 2e-3
    consistency: float = 0.3
    seed: int = 0


@dataclass
class AdaptationLog:
    """What happened, for reports: relative errors are to the base's (1 = no better than the base)."""

    steps: list[int] = field(default_factory=list)
    train_loss: list[float] = field(default_factory=list)
    held_out: list[float] = field(default_factory=list)
    kept_step: int = 0
    seconds: float = 0.0
    gain: float = 0.0  # drop of the held-out error against the base
    verdict: str = ""


@dataclass(frozen=True)
class Pair:
    """Network inputs and target coefficients a (n, K, H, W), and where the target may be used (n, 1, H, W)."""

    base: Tensor
    obs: Observation
    target: Tensor
    mask: Tensor

    def window(self, block: int, row: int, col: int, side: Sequence[int], turn: int) -> Pair:
        """One block's window (LR-aligned, in HR pixels), turned by one of the eight symmetries of the square."""
        s = self.obs.model.scale

        def hr(t: Tensor) -> Tensor:
            return dihedral(t[block : block + 1, :, row : row + side[0], col : col + side[1]], turn)

        def lr(t: Tensor) -> Tensor:
            rows, cols = slice(row // s, (row + side[0]) // s), slice(col // s, (col + side[1]) // s)
            return dihedral(t[block : block + 1, :, rows, cols], turn)

        obs = Observation(lr(self.obs.x), hr(self.obs.y), hr(self.obs.guide), self.obs.model, self.obs.unit)
        return Pair(hr(self.base), obs, hr(self.target), hr(self.mask))


def held_out_cells(shape: tuple[int, ...], s: int, seed: int) -> Tensor:
    """Boolean (n, 1, h, w): cells of at least s pixels a side, a share HELD_OUT of them, spread pseudo-randomly."""
    n, h, w = shape
    side = s * -(-6 // s)
    rows, cols = -(-h // side), -(-w // side)
    order = torch.rand(n * rows * cols, generator=torch.Generator().manual_seed(seed)).argsort()
    chosen = (order < max(1, round(HELD_OUT * n * rows * cols))).view(n, 1, rows, cols)
    return chosen.repeat_interleave(side, 2).repeat_interleave(side, 3)[..., :h, :w]


class Adaptation:
    """One run on one scene; `run` returns the network whose held-out error was smallest."""

    def __init__(self, scene: TrainingScene, frame: SceneFrame, settings: AdaptSettings) -> None:
        self.frame, self.settings = frame, settings
        self.draws = self._reduced_pairs(scene)
        self.low = self.draws[0]
        self.full = self._full_pair(scene)
        cells = held_out_cells((self.low.mask.shape[0], *self.low.mask.shape[2:]), frame.model.scale, settings.seed)
        self.held = cells.to(self.low.mask.device) & self.low.mask
        self.train_mask = self.low.mask & ~self.held
        self.scale_of_error = (frame.step * frame.unit).max()
        self.log = AdaptationLog()

    @property
    def possible(self) -> bool:
        """Whether the scene is large enough to train on one part and judge on another."""
        k = self.frame.unit.numel()
        return int(self.held.sum()) >= 4 * k and int(self.train_mask.sum()) >= 8 * k

    def _reduced_pairs(self, scene: TrainingScene) -> list[Pair]:
        """Reduced-resolution pairs that differ in their noise: the first judges, the others train."""
        target, low, msi = reduced_images(scene, self.frame.base.model)
        coefficients = self.frame.subspace.project(target)
        mask = scene.mask[:, None, : target.shape[2], : target.shape[3]]
        add_noise = noise_adder(scene, self.frame)
        random = torch.Generator().manual_seed(self.settings.seed)
        pairs = []
        for _ in range(NOISE_DRAWS):
            pairs.append(self._pair(*add_noise(low, msi, random), coefficients, mask))
        return pairs

    def _full_pair(self, scene: TrainingScene) -> Pair:
        return self._pair(scene.lrhsi, scene.msi, self.frame.subspace.project(scene.lrhsi), scene.mask[:, None])

    def _pair(self, lrhsi: Tensor, msi: Tensor, target: Tensor, mask: Tensor) -> Pair:
        """Network inputs of all blocks, seen one at a time to save memory."""
        seen = [self.frame.see(x, y) for x, y in zip(lrhsi.split(1), msi.split(1), strict=True)]
        x, y, guide = (torch.cat([getattr(s.obs, name) for s in seen]) for name in ("x", "y", "guide"))
        obs = Observation(x, y, guide, self.frame.model, self.frame.unit)
        return Pair(torch.cat([s.base for s in seen]), obs, target, mask)

    def fused(self, net: SRLFNet, pair: Pair, turns: int = 1) -> Tensor:
        """Fused coefficients a of a pair."""
        step = self.frame.step[:, None, None]
        z: Tensor = net(pair.base, pair.obs, step) if turns == 1 else net.ensemble(pair.base, pair.obs, step, turns)
        return z * self.frame.unit[:, None, None]

    def supervised(self, net: SRLFNet, pair: Pair) -> Tensor:
        """Mean absolute error of the coefficients over the usable pixels, in units of the base's largest error."""
        error = (self.fused(net, pair) - pair.target).abs() * pair.mask
        return error.sum() / pair.mask.sum().clamp_min(1) / error.shape[1] / self.scale_of_error

    def consistency(self, net: SRLFNet, row: int, col: int, block: int, turn: int) -> Tensor:
        """How far the fused window at full resolution, degraded, is from both inputs."""
        s, model = self.frame.model.scale, self.frame.model
        side = self._crop()
        pair = self.full.window(block, row, col, side, turn)
        fused = self.fused(net, pair)
        unit = self.frame.unit[:, None, None]
        inner = slice(1, -1) if min(side) >= 4 * s else slice(None)
        spatial = (model.spatial(fused) - pair.obs.x * unit)[..., inner, inner].abs().mean() / self.scale_of_error
        spectral = (model.spectral(fused) - pair.obs.y).abs().mean() / pair.obs.y.std().clamp_min(1e-6)
        return spatial + spectral

    def _crop(self) -> tuple[int, int]:
        s = self.frame.model.scale
        side = max(CROP // s, 4) * s
        height, width = self.full.base.shape[2:]
        return min(side, height), min(side, width)

    def run(self, net: SRLFNet) -> SRLFNet:
        """Train `net` in place within the budget; returns the averaged weights with the smallest held-out error."""
        settings, start = self.settings, time.monotonic()
        average = AveragedModel(net, multi_avg_fn=get_ema_multi_avg_fn(0.95))
        optimiser = torch.optim.AdamW(net.parameters(), lr=settings.learning_rate, weight_decay=1e-4)
        best, best_error, stale = deepcopy(net), self.held_out_error(net), 0
        self.log = AdaptationLog([0], [float("nan")], [best_error])
        for step, loss in self._steps(net, average, optimiser, start):
            averaged = cast(SRLFNet, average.module)
            error = self.held_out_error(averaged)
            self.log.steps.append(step)
            self.log.train_loss.append(loss)
            self.log.held_out.append(error)
            stale += 1
            if error < best_error:
                best, best_error, stale, self.log.kept_step = deepcopy(averaged), error, 0, step
            if stale >= settings.patience:
                break
        self.log.seconds = time.monotonic() - start
        return best.eval()

    def _steps(
        self, net: SRLFNet, average: AveragedModel, optimiser: torch.optim.Optimizer, start: float
    ) -> Iterator[tuple[int, float]]:
        """Optimise; yields (step, mean loss) at each check until the budget is spent."""
        settings, losses = self.settings, []
        random = torch.Generator().manual_seed(settings.seed)
        for step in tqdm(range(1, settings.steps + 1), desc="adapting", unit="step", disable=None, leave=False):
            spent = (time.monotonic() - start) / 60 / max(settings.minutes, 1e-9)
            for group in optimiser.param_groups:  # by steps alone: a seed gives the same weights on a busy machine
                group["lr"] = settings.learning_rate * min(step / 20, 1.0) * max(1.05 - step / settings.steps, 0.05)
            losses.append(self._step(net, optimiser, random))
            average.update_parameters(net)
            if step % settings.check_every == 0 or step == settings.steps or spent >= 1:
                yield step, sum(losses) / len(losses)
                losses.clear()
            if spent >= 1:
                return

    def _step(self, net: SRLFNet, optimiser: torch.optim.Optimizer, random: torch.Generator) -> float:
        def draw(n: int) -> int:
            return int(torch.randint(n, (1,), generator=random))

        net.train()
        block, s = draw(len(self.low.base)), self.frame.model.scale
        turn = draw(8 if self.frame.model.symmetric else 1)
        pair = replace(self.draws[1 + draw(len(self.draws) - 1)], mask=self.train_mask)
        loss = self.supervised(net, pair.window(block, 0, 0, pair.base.shape[2:], turn))
        if self.settings.consistency and draw(2):
            side = self._crop()
            row, col = (draw((n - m) // s + 1) * s for n, m in zip(self.full.base.shape[2:], side, strict=True))
            loss = loss + self.settings.consistency * self.consistency(net, row, col, block, turn)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimiser.step()
        return float(loss.detach())

    def held_out_error(self, net: SRLFNet) -> float:
        """RMS error of the coefficients on the held-out cells, relative to the base's."""
        correction, needed = self._held_out_corrections(net)
        return float(((correction - needed) ** 2).sum().sqrt() / (needed**2).sum().sqrt().clamp_min(1e-30))

    @torch.no_grad()
    def _held_out_corrections(self, net: SRLFNet, turns: int = 1) -> tuple[Tensor, Tensor]:
        """What the network adds to the base on held-out pixels, and what it should: each (pixels, K)."""
        net.eval()
        base = self.low.base * self.frame.unit[:, None, None]
        fused = torch.cat([self.fused(net, self._whole(b), turns) for b in range(len(base))])
        held = self.held[:, 0]
        return (fused - base).permute(0, 2, 3, 1)[held], (self.low.target - base).permute(0, 2, 3, 1)[held]

    def _whole(self, block: int) -> Pair:
        return self.low.window(block, 0, 0, self.low.base.shape[2:], 0)

    def trust(self, net: SRLFNet, turns: int = 1) -> tuple[Tensor, float]:
        """Share (K,) of each coefficient's correction that the held-out cells bear out, and the relative error with it.

        The least-squares factor between the correction and what it should be, less its standard error, cut to 0..1:
        where the network doesn't help for sure, the base remains. Neighbouring pixels' errors go together, so only one
        pixel in CORRELATED counts as independent.
        """
        correction, needed = self._held_out_corrections(net, turns)
        power = (correction**2).sum(0).clamp_min(1e-30)
        factor = (correction * needed).sum(0) / power
        deviation = (((factor * correction - needed) ** 2).mean(0) * CORRELATED / power).sqrt()
        share = (factor - deviation).clamp(0, 1)
        error = ((share * correction - needed) ** 2).sum().sqrt() / (needed**2).sum().sqrt().clamp_min(1e-30)
        return share, float(error)

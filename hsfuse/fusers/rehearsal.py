"""A scene at reduced resolution, where what fusion should give is known: both images are degraded by the ratio, and the
LRHSI is the target (Wald et al. 1997; the paper's real-scene protocol). Part of it trains a network, part judges it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from hsfuse.fusers import TrainingScene
from hsfuse.fusers.frame import SceneFrame, Seen, noise_adder, reduced_images
from hsfuse.fusers.trust import Judge, cell_side, held_out_cells
from hsfuse.nets.srlf import Observation, SRLFNet, dihedral

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
        s = self.obs.model.scale

        def hr(t: Tensor) -> Tensor:
            return dihedral(t[block : block + 1, :, row : row + side[0], col : col + side[1]], turn)

        def lr(t: Tensor) -> Tensor:
            rows, cols = slice(row // s, (row + side[0]) // s), slice(col // s, (col + side[1]) // s)
            return dihedral(t[block : block + 1, :, rows, cols], turn)

        obs = Observation(lr(self.obs.x), hr(self.obs.y), hr(self.obs.guide), self.obs.model, self.obs.unit)
        return Pair(hr(self.base), obs, hr(self.target), hr(self.mask))

    def block(self, block: int, turn: int = 0) -> Pair:
        """One whole block, turned."""
        return self.window(block, 0, 0, self.base.shape[2:], turn)


class Rehearsal:
    """Pairs of a scene as a frame sees it: `low` judges on the cells `held`, `draws` train on the others."""

    def __init__(self, scene: TrainingScene, frame: SceneFrame, seed: int) -> None:
        self.scene, self.frame = scene, frame
        target, self._lrhsi, self._msi = reduced_images(scene, frame.base.model)
        self._target = frame.subspace.project(target)
        self._random = torch.Generator().manual_seed(seed)
        self._add_noise = noise_adder(scene, frame.base.model)
        self.mask = scene.mask[:, None, : target.shape[2], : target.shape[3]]
        cells = held_out_cells((self.mask.shape[0], *self.mask.shape[2:]), frame.model.scale, seed)
        self.held = cells.to(self.mask.device) & self.mask
        self.train_mask = self.mask & ~self.held
        self.lrhsi, self.msi = self._noisy()
        self.seen = self._see(self.lrhsi, self.msi)
        self.low = self._pair(self.seen, self._target, self.mask)
        self.judge = Judge(self.held_out(self.low.base * self.unit), self.held_out(self._target))

    @property
    def possible(self) -> bool:
        """Whether the scene is large enough to train on one part and judge on another, which is more than one cell: a
        single place doesn't speak for all."""
        k, held = self.frame.unit.numel(), int(self.held.sum())
        more = held > cell_side(self.frame.model.scale) ** 2
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
        return self._pair(self._see(lrhsi, self.scene.msi), self.frame.subspace.project(lrhsi), mask)

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

    def _see(self, lrhsi: Tensor, msi: Tensor) -> list[Seen]:
        """All blocks, one at a time to save memory."""
        return [self.frame.see(x, y) for x, y in zip(lrhsi.split(1), msi.split(1), strict=True)]

    def _pair(self, seen: list[Seen], target: Tensor, mask: Tensor) -> Pair:
        x, y, guide = (torch.cat([getattr(s.obs, name) for s in seen]) for name in ("x", "y", "guide"))
        base = torch.cat([s.base for s in seen])
        return Pair(base, Observation(x, y, guide, self.frame.model, self.frame.unit), target, mask)

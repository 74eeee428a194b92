"""What a correction is worth, told by pixels of the scene that nothing was trained on.

Two errors count alike: that of the coefficients, and the spectral angle, to which dark pixels add as much as bright
ones. Both are relative to the uncorrected method's: 1 is no better.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

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


def cell_side(s: int) -> int:
    """Side of a held-out cell: the least multiple of the ratio from six pixels on."""
    return s * -(-6 // s)


def held_out_cells(shape: tuple[int, ...], s: int, seed: int) -> Tensor:
    """Boolean (n, 1, h, w): cells of at least s pixels a side, a share HELD_OUT of them, spread pseudo-randomly."""
    n, h, w = shape
    side = cell_side(s)
    rows, cols = -(-h // side), -(-w // side)
    order = torch.rand(n * rows * cols, generator=torch.Generator().manual_seed(seed)).argsort()
    chosen = (order < max(1, round(HELD_OUT * n * rows * cols))).view(n, 1, rows, cols)
    return chosen.repeat_interleave(side, 2).repeat_interleave(side, 3)[..., :h, :w]


def angles(found: Tensor, target: Tensor) -> Tensor:
    """Spectral angles in radians between coefficients (P, K): (P,); 0 where either is zero."""
    product = found.norm(dim=1) * target.norm(dim=1)
    cosine = (found * target).sum(1) / product.clamp_min(1e-30)
    return torch.where(product > 0, cosine.clamp(-1, 1).arccos(), 0.0)


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

"""Where an LRHSI's content lies: a drift, and a smooth field beyond it, kriged from windows that each tell theirs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, sqrt
from typing import Any

import numpy as np
from affine import Affine
from scipy.linalg import cho_factor, cho_solve
from scipy.optimize import minimize

from hsfuse.calibration.windows import (
    OUTLIER,
    Block,
    Floats,
    Locals,
    cut,
    own_covariances,
    risen,
    spread_of,
    steps,
    unlikeness,
    without_one,
)
from hsfuse.core.cube import BoolArray
from hsfuse.core.grid import Distortion, moved_by
from hsfuse.physics.model import ObservationModel

#: Least side (LR pixels) of the windows that tell a field, most of them, and fewest.
SIDE, MOST, FEWEST = 4, 200, 9
#: By how much the median window must stand out of chance, times the root of their number.
CHANCE = 3.0
#: Steps of the refinement, and the step (LR pixels) that ends it.
STEPS, SMALL_STEP = 6, 0.02
#: Least RMS of a field (LR pixels) that is worth resampling, and largest displacement and slope that make sense.
WORTH, LARGEST, STEEPEST = 0.05, 3.0, 0.5
#: LR pixels between a lattice's nodes, and most nodes along an axis.
NODES, MOST_NODES = 4.0, 33


@dataclass(frozen=True)
class Drift:
    """A shift that changes over the scene: LR pixels `down` and `right`, each @ (1, row, col) in LR pixels."""

    down: tuple[float, float, float]
    right: tuple[float, float, float]

    def at(self, row: float, col: float) -> tuple[float, float]:
        """Shift (dy, dx) in LR pixels at a place in LR pixels."""
        return (
            self.down[0] + self.down[1] * row + self.down[2] * col,
            self.right[0] + self.right[1] * row + self.right[2] * col,
        )

    @property
    def slopes(self) -> Floats:
        """Changes (2, 2) of the shift: down and right by row and column."""
        return np.array([self.down[1:], self.right[1:]])

    def motion(self, ratio: int) -> Affine:
        """Where the LRHSI has what the MSI has at (column, row), both in MSI pixels of the common extent."""
        y, x = self.down, self.right
        return Affine(1 + x[2], x[1], x[0] * ratio, y[2], 1 + y[1], y[0] * ratio)


@dataclass(frozen=True)
class Bend:
    """What a smooth field moves beyond a `drift` (which may be none), in LR pixels.

    `distortion` is by places in the MSI, in LR pixels. `rms`, `largest` and `sd` (of either direction) are over
    windows; `correlation` is that of windows that had no part in it, without and with the field.
    """

    drift: Drift
    distortion: Distortion
    rms: float
    largest: float
    sd: float
    correlation: tuple[float, float]

    def describe(self) -> str:
        """In words, after those on a shift."""
        before, after = self.correlation
        return (
            f"bent beyond that by {self.rms:.2f} (RMS) and up to {self.largest:.2f} LR pixels, sd {self.sd:.3f} "
            f"(held-out windows correlate {before:.4f} before, {after:.4f} after it)"
        )


def matern(distance: Floats) -> Floats:
    """Correlation of a field over a distance in lengths: Matérn's of 5/2 (Rasmussen and Williams 2006, eq. 4.17)."""
    d = sqrt(5) * distance
    return np.asarray((1 + d + d * d / 3) * np.exp(-d))


@dataclass(frozen=True)
class Kriged:
    """A smooth field (down, right) of the shifts (n, 2) of windows at `places` (n, 2), all in LR pixels.

    A plane and a Gaussian process of a `length` and a standard deviation `size`, windows erring by their own
    covariances and a `scatter` (universal kriging; Matheron 1969). `held_out` (n, 2) is where each window would lie by
    all others, `kept` (n,) which have a say, `sd` (n,) the field's deviation at these, either way.
    """

    places: Floats
    length: float
    size: float
    scatter: float
    weights: Floats  # (2 n,) of the covariances
    plane: Floats  # (3, 2)
    held_out: Floats
    kept: BoolArray
    sd: Floats

    #: Lengths that are tried first, with a size and a scatter, and bounds of all three, LR pixels.
    STARTS = tuple((length, 0.3, 0.03) for length in (4.0, 8.0, 16.0, 32.0, 64.0, 256.0))
    BOUNDS = np.log([(4.0, 256.0), (1e-3, 3.0), (1e-3, 1.0)])
    #: Variance of a window that has no say, evaluations of a search, and rounds of leaving out.
    NOTHING, EVALUATIONS, ROUNDS = 1e4, 60, 3

    @classmethod
    def of(cls, places: Floats, said: Locals, start: Kriged | None = None) -> Kriged:
        """Of what windows say, without outliers.

        Length, size and scatter are those by which windows are likeliest where all others have them: the
        pseudo-likelihood of leaving one out (Rasmussen and Williams 2006, eq. 5.10 to 5.12). A search starts from
        those of another field where that is given.
        """
        own = own_covariances(said.info)
        kept = said.told & (_near(said, own) if start is None else start.kept)
        found: Any = None if start is None else np.log([start.length, start.size, start.scatter])
        for _ in range(cls.ROUNDS):
            solve = _Universal(places, said.shift, np.where(kept[:, None, None], own, cls.NOTHING * np.eye(2)))

            def unlikely(p: Floats, solve: _Universal = solve, kept: BoolArray = kept) -> float:
                inside = np.clip(p, *cls.BOUNDS.T)
                return 1e3 * float(np.square(p - inside).sum()) - float(solve(*np.exp(inside)).likely[kept].sum())

            first = min(np.log(cls.STARTS), key=unlikely) if found is None else found
            how = {"maxfev": cls.EVALUATIONS, "xatol": 0.05, "fatol": 0.05}
            found = np.clip(minimize(unlikely, first, method="Nelder-Mead", options=how).x, *cls.BOUNDS.T)
            solved = solve(*np.exp(found))
            before, kept = kept, said.told & (solved.far <= OUTLIER)
            if (before == kept).all():
                break
        sd = np.sqrt(np.maximum(solved.variance, 0))
        length, size, scatter = np.exp(found).tolist()
        return cls(places, length, size, scatter, solved.weights, solved.plane, solved.held_out, before, sd)

    def at(self, places: Floats) -> Floats:
        """Shifts (m, 2) at places (m, 2)."""
        near = matern(np.linalg.norm(places[:, None] - self.places, axis=2) / self.length)
        return _plane(places, self.places) @ self.plane + self.size**2 * near @ self.weights.reshape(2, -1).T

    def slopes(self, step: float = 0.5) -> Floats:
        """Changes (n, 2, 2) of the shift at the windows: down and right by row and column."""
        ways = np.eye(2) * step
        return np.stack([(self.at(self.places + way) - self.at(self.places - way)) / (2 * step) for way in ways], 2)


def _near(said: Locals, own: Floats) -> BoolArray:
    """Which windows (n,) lie among the others, as far as these are apart."""
    rest = said.shift - np.median(said.shift[said.told], axis=0)
    spread = spread_of(rest[said.told], own[said.told])
    far = np.einsum("ni,nij,nj->n", rest, np.linalg.inv(own + spread**2 * np.eye(2)), rest)
    return np.asarray(far <= OUTLIER)


@dataclass(frozen=True)
class _Solved:
    """Of n windows: log likelihood `likely` (n,) and squared distance `far` (n,) by all others, `held_out` (n, 2)."""

    likely: Floats
    far: Floats
    weights: Floats
    plane: Floats
    held_out: Floats
    variance: Floats


class _Universal:
    """Universal kriging of shifts (n, 2) at places (n, 2) that err by covariances (n, 2, 2)."""

    def __init__(self, places: Floats, shift: Floats, own: Floats) -> None:
        self.far = np.linalg.norm(places[:, None] - places, axis=2)
        self.columns = np.kron(np.eye(2), _plane(places, places))
        self.noise = np.block([[np.diag(own[:, i, j]) for j in range(2)] for i in range(2)])
        self.shift, self.flat, self.own = shift, shift.T.ravel(), own

    def __call__(self, length: float, size: float, scatter: float) -> _Solved:
        n = len(self.far)
        noise = self.noise + scatter**2 * np.eye(2 * n)
        field = np.kron(np.eye(2), size**2 * matern(self.far / length))
        inverse = cho_solve(cho_factor(field + noise, check_finite=False), np.eye(2 * n), check_finite=False)
        half = inverse @ self.columns
        normal = np.linalg.pinv(self.columns.T @ half, hermitian=True)  # windows in one line tell no slope across it
        q = inverse - half @ normal @ half.T  # what a plane leaves of the inverse (Dubrule 1983)
        weights, both = q @ self.flat, np.arange(n)[:, None] + np.array([0, n])
        each = q[both[:, :, None], both[:, None]]
        miss = np.linalg.solve(each, weights[both][..., None])[..., 0]
        far = np.einsum("ni,nij,nj->n", miss, each, miss)
        own = self.own + scatter**2 * np.eye(2)
        variance = np.trace(own - own @ each @ own, axis1=1, axis2=2) / 2
        plane = (normal @ (half.T @ self.flat)).reshape(2, -1).T
        likely = (np.linalg.slogdet(each)[1] - far) / 2
        return _Solved(likely, far, weights, plane, self.shift - miss, variance)


def _plane(places: Floats, about: Floats) -> Floats:
    """(m, 3) of places (m, 2): 1 and both coordinates, as shares of what others cover."""
    size = np.maximum(np.ptp(about, axis=0), 1.0)
    return np.column_stack([np.ones(len(places)), (places - about.mean(0)) / size])


def bend_of_blocks(blocks: Sequence[Block], model: ObservationModel, drift: Drift, smooth: float = 0.0) -> Bend | None:
    """A smooth field beyond a drift; None unless windows that had no part in it correlate better, and it makes sense.

    Windows of some LR pixels each find their place by Gauss-Newton steps from where the field has it, which is smoothed
    again (`Kriged`) until it stays. `smooth` as for `shift_of_blocks`.
    """
    side = max(SIDE, ceil(sqrt(sum(int(block.lr_mask.sum()) for block in blocks) / MOST)))
    windows = [
        window
        for block in blocks
        for window in cut(
            block, model, drift.at(block.row + block.lr.shape[1] / 2, block.col + block.lr.shape[2] / 2), side
        )
    ]
    if len(windows) < FEWEST:
        return None
    places = np.array([(window.row, window.col) for window in windows])
    flat = np.array([drift.at(*place) for place in places.tolist()])
    said = steps(windows, model, flat, smooth, drift.slopes)
    told, rest = said.told, said.shift - flat
    if told.sum() < FEWEST:
        return None
    rest = (rest - np.median(rest[told], axis=0))[told]
    if spread_of(rest, own_covariances(said.info)[told], CHANCE / sqrt(len(rest))) == 0:
        return None
    at, fit = flat, None
    for _ in range(STEPS):
        fit = Kriged.of(places, said, fit)
        step = np.clip(fit.at(places) - at, -1, 1)
        at, slopes = at + step, fit.slopes()
        if np.abs(step).max() < SMALL_STEP:
            break
        said = steps(windows, model, at, smooth, slopes)
    assert fit is not None
    if 2 * fit.kept.sum() < told.sum() or fit.kept.sum() < FEWEST:
        return None
    length = np.hypot(*(at - flat)[fit.kept].T)
    rms, largest = float(np.sqrt(np.square(length).mean())), float(length.max())
    before = unlikeness(windows, model, flat, smooth, drift.slopes)
    after = unlikeness(windows, model, fit.held_out, smooth, slopes)
    if rms < WORTH or largest > LARGEST or not all(risen(before[most], after[most]) for most in without_one(places)):
        return None
    found = Bend(drift, _lattice(fit, drift, blocks), rms, largest, _typical(fit.sd[fit.kept]), _both(before, after))
    return found if found.distortion.steepest <= STEEPEST else None


def _typical(sd: Floats) -> float:
    return float(np.sqrt(np.square(sd).mean()))


def _both(before: Floats, after: Floats) -> tuple[float, float]:
    """Mean correlation of windows and bands, before and after, where both are known."""
    known = ~(np.isnan(before) | np.isnan(after))
    first, second = (float(np.sqrt(1 - np.exp(one[known])).mean()) for one in (before, after))
    return first, second


def _lattice(fit: Kriged, drift: Drift, blocks: Sequence[Block]) -> Distortion:
    """A field beyond a drift, over all that was looked at, by places in the MSI: what is at q lies at p = q + f(p)."""
    first = np.array([min(block.row for block in blocks), min(block.col for block in blocks)], float)
    ends = [(block.row + block.lr.shape[1], block.col + block.lr.shape[2]) for block in blocks]
    last = np.max(ends, axis=0).astype(float)
    back = ~drift.motion(1)

    def at(places: Floats) -> Floats:
        there = places
        for _ in range(12):
            there = places + fit.at(there)
        return moved_by(back, there) - places

    step = max(NODES, float((last - first).max()) / (MOST_NODES - 1))
    return Distortion.through(at, first, last, step)

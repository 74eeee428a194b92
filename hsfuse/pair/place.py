"""Where a warped LRHSI lies, told by all of its own pixels, none of which is interpolated.

The MSI blurred by the PSF, m, is known anywhere. Pixel i of the LRHSI is taken to see the ground at p_i, so that

    R x_i = gain m(p_i + D(p_i)) + offset,

D being linear, is least squares in its six numbers (Gauss and Newton's steps), gain and offset of each quarter of the
scene free, and the PSF's widths by m's second derivatives. Windows each find a place by a few pixels under a blur that
hides what warping spoils; this has no need of either.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from affine import Affine
from rasterio.windows import Window

from hsfuse.calibration.spectra import gain_error
from hsfuse.core.cube import BoolArray
from hsfuse.core.grid import Motion
from hsfuse.pair.detail import Blurred, blurred_msi, own_pixels, shares, windows_of
from hsfuse.pair.mapping import Floats
from hsfuse.pair.sample import block_windows

if TYPE_CHECKING:
    from hsfuse.pair.pair import ScenePair

#: Numbers of a linear displacement, and LR pixels of the steps by which second derivatives are told.
PLACE, FAR = 6, 0.5
#: Rounds at most, LR pixels of a step that ends them, and residuals (deviations) from which on a pixel counts less.
ROUNDS, SMALL_STEP, HUBER = 8, 0.002, 2.0
#: LR pixels that are worth another warp, and most that is believed: what is further off, windows have to find.
WORTH, MOST = 0.02, 0.5
#: LR pixels of a drift that are worth a first warp, and how many of their errors its slopes must have (RMS).
WORTH_WARPING, CLEAR = 0.04, 4.0
#: Fewest LR pixels along a side for that: of fewer, most lie near borders, where the MSI can't mend what a warp spoils.
FEWEST_ALONG = 12
#: How many windows that are held out are wanted, and how many of its errors their gain must have.
FEWEST, SURE = 9, 2.0
#: Fewest pixels for each number.
PIXELS = 4


@dataclass(frozen=True)
class _Part:
    """LRHSI pixels seen by the MSI's response, `own` (c, h, w), and the rows and columns (h, w) at which they lie.

    In LR pixels of the common extent, beside the MSI that they see there, and where that is known all around (h, w).
    """

    own: Floats
    rows: Floats
    cols: Floats
    msi: Blurred
    known: BoolArray

    @classmethod
    def of(cls, pair: ScenePair, window: Window) -> _Part:
        cube, rows, cols = own_pixels(pair, window)
        msi = blurred_msi(pair, rows, cols)
        lrhsi = torch.from_numpy(cube.data)[None].to(pair.model.srf.device, torch.float64)
        own = pair.model.spectral(lrhsi)[0].cpu().numpy()
        return cls(own, rows, cols, msi, cube.mask & msi.known(rows, cols, FAR))

    def columns(self, move: Floats, extent: tuple[int, int], step: float) -> Floats:
        """(9, c, n): the MSI seen at places moved by a displacement, its slopes there, its second derivatives."""
        y, x = shares(self.rows, self.cols, extent)
        rows, cols = (
            v + a + b * y + c * x for v, (a, b, c) in zip((self.rows, self.cols), move.reshape(2, 3), strict=True)
        )
        known = self.known

        def at(down: float, right: float) -> Floats:
            return self.msi.at(rows + down, cols + right)[:-1, known].astype(np.float64)

        here, half = at(0, 0), FAR
        down, right = ((at(step * a, step * b) - at(-step * a, -step * b)) / (2 * step) for a, b in ((1, 0), (0, 1)))
        yy, xx = ((at(half * a, half * b) + at(-half * a, -half * b) - 2 * here) / half**2 for a, b in ((1, 0), (0, 1)))
        yx = (at(half, half) + at(-half, -half) - at(half, -half) - at(-half, half)) / (2 * half) ** 2
        y, x = y[known], x[known]
        return np.stack([here, down, down * y, down * x, right, right * y, right * x, yy, xx, yx])


def closer(pair: ScenePair) -> tuple[Motion, float] | None:
    """The motion that puts a pair's LRHSI where its own pixels have it, and the LR pixels by which, at most.

    None where what it has will do; where that is no warp, only a drift of a scene that isn't tiny is worth one. A shift
    that the PSF has is a part of the motion.

    Pixels in windows that are left out, one after the other, have to be explained clearly better by what all others
    tell.
    """
    if not pair.warped and min(pair.lr_shape) < FEWEST_ALONG:
        return None
    pair = replace(pair, gains=None)
    parts = [_Part.of(pair, window) for window in block_windows(pair.lr_shape, pair.ratio)]
    found = _settled(parts, pair.lr_shape, 1 / pair.ratio, pair.warped)
    if found is None:
        return None
    by_psf = np.zeros(PLACE)
    if pair.off_centre and not pair.warped and pair.psf is not None:
        by_psf[[0, 3]] = np.array(pair.psf.shift) / pair.ratio
    return pair.motion.after(_motion(found + by_psf, pair)), _farthest(found)


def _farthest(move: Floats) -> float:
    """LR pixels, at most, by which a corner of the scene is moved either way."""
    return float((np.abs(move.reshape(2, 3)) @ (1, 0.5, 0.5)).max())


def _settled(parts: Sequence[_Part], extent: tuple[int, int], step: float, warped: bool) -> Floats | None:
    """LR pixels by which the LRHSI's pixels lie off, (6,) down and right: at the middle, by rows, by columns.

    None where that isn't worth a warp, or not borne out.
    """
    own = np.concatenate([part.own[:, part.known] for part in parts], axis=1)
    if own.shape[1] < PIXELS * (PLACE + 3):
        return None
    places = [shares(part.rows[part.known], part.cols[part.known], extent) for part in parts]
    y, x = np.concatenate(places, axis=1)

    def look(move: Floats) -> Floats:
        return np.concatenate([part.columns(move, extent, step) for part in parts], axis=2)

    fit = _Fit(own, 2 * (y > 0) + (x > 0))
    start, move = look(np.zeros(PLACE)), np.zeros(PLACE)
    weight, columns = np.broadcast_to(1 / (own.std(1, keepdims=True) + 1e-12), own.shape), start
    for _ in range(ROUNDS):
        solved, weight = fit.solved(columns, weight)
        move = move + np.clip(solved[:PLACE], -MOST, MOST)
        columns = look(move)
        if np.abs(solved[:PLACE]).max() < SMALL_STEP:
            break
    drift = np.where(np.arange(PLACE) % 3, move, 0)
    least, worth = (WORTH, move) if warped else (WORTH_WARPING, drift)
    if _farthest(worth) < least or _farthest(move) > MOST:
        return None
    plain = [] if warped else [1, 4]  # a shift wants no warp
    before = start[[0, *plain, *range(1 + PLACE, len(start))]]

    def gain(part: np.ndarray) -> tuple[Floats, Floats]:
        left, numbers = fit.held_out(columns, weight, part)
        return fit.held_out(before, weight, part)[0] - left, numbers

    by_window, numbers = gain(np.broadcast_to(windows_of(y, x, extent), own.shape))
    clear = len(by_window) >= FEWEST and by_window.sum() > SURE * gain_error(by_window)
    if clear and not warped:  # a wrong response or tone moves each band its own way
        by_band, _ = gain(np.broadcast_to(np.arange(len(own))[:, None], own.shape))
        clear = by_band.sum() > 0 and _deviations(drift, numbers[:, :PLACE]) > CLEAR
    return move if clear else None


def _deviations(drift: Floats, numbers: Floats) -> float:
    """How many of their errors (root mean square) the slopes of a drift (6,) have, by `numbers` (w, 6) without each of
    some windows (a jackknife)."""
    slopes = np.flatnonzero(np.arange(PLACE) % 3)
    apart = numbers[:, slopes] - numbers[:, slopes].mean(0)
    covariance = (len(apart) - 1) / len(apart) * apart.T @ apart
    told = drift[slopes] @ np.linalg.solve(covariance + 1e-12 * np.eye(len(slopes)), drift[slopes])
    return float(np.sqrt(told / len(slopes)))


class _Fit:
    """Least squares of an image (c, n) by columns (1 + k, c, n): the first one with a gain and an offset in each group,
    the others' numbers common to all bands and pixels."""

    def __init__(self, own: Floats, group: np.ndarray) -> None:
        self.own, self._group = own, np.eye(int(group.max()) + 1)[group]

    def _each(self, image: Floats) -> Floats:
        """Sums over groups, at every pixel."""
        return np.asarray((image @ self._group) @ self._group.T)

    def _free(self, columns: Floats, weight: Floats) -> tuple[Floats, Floats]:
        """What gains and offsets leave of the image (c, n) and, times the gains, of the other columns (k, c, n)."""
        one, seen, image = weight, weight * columns[0], weight * self.own
        one = one / np.sqrt(self._each(one**2))
        seen, image = (v - one * self._each(one * v) for v in (seen, image))
        power = self._each(seen**2) + 1e-30
        gain = np.maximum(self._each(seen * image) / power, 0)
        rest = weight * gain * columns[1:]
        rest = rest - one * self._each(one * rest)
        return image - gain * seen, rest - seen * self._each(seen * rest) / power

    def solved(self, columns: Floats, weight: Floats) -> tuple[Floats, Floats]:
        """The numbers (k,), and weights (c, n) by what they leave: a band's own noise, less of what is beyond it."""
        misfit, slopes = self._free(columns, weight)
        numbers = _solve(*_normal(slopes, misfit))
        rest = np.abs(misfit - np.tensordot(numbers, slopes, 1)) / weight
        noise = np.median(rest, axis=1, keepdims=True) / 0.6745 + 1e-6 * self.own.std(1, keepdims=True) + 1e-12
        return numbers, 1 / noise / np.sqrt(np.maximum(1, rest / noise / HUBER))

    def held_out(self, columns: Floats, weight: Floats, part: np.ndarray) -> tuple[Floats, Floats]:
        """Squares (p,) of what is left in each `part` (c, n) by the numbers (p, k) that the others tell."""
        misfit, slopes = self._free(columns, weight)
        normal, pull = _normal(slopes, misfit)
        found, left = [], []
        for p in range(int(part.max()) + 1):
            inside = part == p
            own = _normal(slopes[:, inside], misfit[inside])
            found.append(_solve(normal - own[0], pull - own[1]))
            left.append(np.square(misfit[inside] - found[-1] @ slopes[:, inside]).sum())
        return np.array(left), np.array(found)


def _normal(slopes: Floats, misfit: Floats) -> tuple[Floats, Floats]:
    slopes = slopes.reshape(len(slopes), -1)
    return np.einsum("in,jn->ij", slopes, slopes), np.einsum("in,n->i", slopes, misfit.ravel())


def _solve(normal: Floats, pull: Floats) -> Floats:
    tiny = 1e-9 * np.trace(normal) / len(normal) + 1e-30
    return np.asarray(np.linalg.solve(normal + tiny * np.eye(len(normal)), pull))


def _motion(move: Floats, pair: ScenePair) -> Motion:
    """What is left to correct, in pixels of the whole MSI: the other way round of how LRHSI pixels lie off."""
    (h, w), s, window = pair.lr_shape, pair.ratio, pair.alignment.msi_window
    (down, down_y, down_x), (right, right_y, right_x) = move.reshape(2, 3)
    middle = Affine.translation(window.col_off + s * w / 2, window.row_off + s * h / 2)
    off = Affine(1 + right_x / w, right_y / h, s * right, down_x / w, 1 + down_y / h, s * down)
    return Motion(middle @ ~off @ ~middle)

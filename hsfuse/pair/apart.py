"""How far the LRHSI's second detector lies from its first, told by what both see of the MSI.

Pushbroom sensors have the bands up to about 1000 nm from one detector and those beyond from another. The MSI blurred by
the PSF, m, is known anywhere. Spectra x of the pixels of either detector are taken to see the ground at p + d,

    x = G m(p + d) + H v + offset,

with G and H a regression, free for every band, and d common to all of a detector's bands: least squares by Gauss and
Newton's steps, in which G and H are projected out (variable projection, Golub and Pereyra 1973), as is what another
width of the PSF does. v is what m doesn't explain of the first detector, its main directions: it takes away what
materials do at their borders, which m alone can't tell from a shift. How d differs between both detectors is what
counts, and is believed where it is clearly more than windows differ by, and where bands between those that tell it are
clearly of the one detector up to some wavelength and of the other one beyond it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import hypot
from typing import TYPE_CHECKING

import numpy as np
import torch
from affine import Affine
from numpy.typing import NDArray
from rasterio.windows import Window

from hsfuse.calibration.spectra import gain_error
from hsfuse.core.cube import BoolArray
from hsfuse.pair.detail import Blurred, blurred_msi, own_pixels, shares, windows_of, with_detail
from hsfuse.pair.mapping import Floats
from hsfuse.pair.sample import block_windows
from hsfuse.pair.warp import FARTHEST, WarpedReader
from hsfuse.physics.solve import solve_spd

if TYPE_CHECKING:
    from hsfuse.pair.pair import ScenePair

#: Bands, in nm, between those that are of the first detector and those of the second: silicon ends to see at 1000 nm.
BETWEEN_NM = 850.0, 1100.0
#: Fewest bands of either and between, LR pixels along a side, pixels for each row of the regression, and windows.
BANDS, ALONG, PIXELS, WINDOWS = 8, 12, 8, 9
#: Directions of what the MSI doesn't explain of the first detector, at most.
DIRECTIONS = 6
#: LR pixels from which second derivatives are told; rounds at most, a step in LR pixels that ends them, the largest.
FAR, ROUNDS, SMALL_STEP, LARGE_STEP = 0.5, 8, 0.002, 0.5
#: Ridge of the regressions, as a share of the mean variance.
RIDGE = 1e-6
#: LR pixels by which materials alone move a detector (.03 RMS in 15 scenes at x4 and x8), the least that is put right,
#: and the most; how many errors it must have, by clear bands and by all, and the gain of windows that are held out.
GROUND, LEAST, MOST = 0.03, 0.08, float(FARTHEST)
ROUGHLY, CLEAR, SURE = 2.0, 4.0, 2.0


@dataclass(frozen=True)
class Apart:
    """`bands` (of those in use) of a detector that sees the ground `shift` (down, right) LR pixels off the other's.

    `sd` are its standard deviations; `move` is the same in the LRHSI's own pixels.
    """

    bands: list[int]
    shift: tuple[float, float]
    sd: tuple[float, float]
    move: Affine

    def figures(self, pair: ScenePair) -> dict[str, float]:
        """What a note says of it."""
        nm = np.asarray(pair.spectrum.wavelengths_nm)[self.bands]
        names = ("down", "right", "down_sd", "right_sd", "low", "high")
        return dict(zip(names, (*self.shift, *self.sd, float(nm.min()), float(nm.max())), strict=True))


@dataclass(frozen=True)
class _Part:
    """Spectra (C, n) of valid LRHSI pixels, rows and columns (n,) at which they lie, and the MSI seen there."""

    spectra: Floats
    rows: Floats
    cols: Floats
    msi: Blurred

    @classmethod
    def of(cls, pair: ScenePair, window: Window) -> _Part:
        cube, rows, cols = own_pixels(pair, window)
        msi = blurred_msi(pair, rows, cols)
        known: BoolArray = cube.mask & msi.known(rows, cols, FAR)
        return cls(cube.data[:, known].astype(np.float64), rows[known], cols[known], msi)

    def columns(self, shift: Floats) -> Floats:
        """(5, c, n): the MSI seen `shift` off, how it changes down and right, its second derivatives."""
        step = 1 / self.msi.model.ratio

        def at(down: float, right: float) -> Floats:
            places = self.rows[None] + shift[0] + down, self.cols[None] + shift[1] + right
            return self.msi.at(*places)[:-1, 0].astype(np.float64)

        here, ways = at(0, 0), ((1, 0), (0, 1))
        slopes = [(at(step * y, step * x) - at(-step * y, -step * x)) / (2 * step) for y, x in ways]
        bends = [(at(FAR * y, FAR * x) + at(-FAR * y, -FAR * x) - 2 * here) / FAR**2 for y, x in ways]
        return np.stack([here, *slopes, *bends])


def bands_apart(pair: ScenePair) -> Apart | None:
    """Which bands lie elsewhere than the others, and by how much; None where they don't clearly, or can't be told.

    Bands clearly of one detector tell how far the other one's lie from theirs, then each band between them which
    detector it is of.
    """
    assert pair.spectrum.wavelengths_nm is not None  # a reader in the role of an HSI has them
    nm = np.asarray(pair.spectrum.wavelengths_nm)
    low, high = BETWEEN_NM
    first, between, second = (np.flatnonzero(one) for one in (nm < low, (nm >= low) & (nm <= high), nm > high))
    if min(first.size, between.size, second.size) < BANDS or min(pair.lr_shape) < ALONG:
        return None
    pair = replace(pair, gains=None)
    parts = [_Part.of(pair, window) for window in block_windows(pair.lr_shape, pair.ratio)]
    fit = _Fit(parts, pair.lr_shape)
    if fit.pixels < PIXELS * (len(pair.msi_bands) + DIRECTIONS) or fit.windows < WINDOWS:
        return None
    rough = fit.between(first, second)
    if rough.errors < ROUGHLY:
        return None
    as_first, as_second = (
        np.log(fit.settled(between, one.shift).left.sum(0) + 1e-30) for one in (rough.near, rough.far)
    )
    split = _split(nm[between], as_first - as_second)
    if split is None:
        return None
    first, second = np.concatenate([first, between[:split]]), np.concatenate([between[split:], second])
    found = fit.between(first, second)
    if not LEAST < hypot(*found.shift) < MOST or found.errors < CLEAR:
        return None
    gain = (fit.settled(second, found.near.shift).left - found.far.left) @ found.far.weight
    if gain.sum() < SURE * gain_error(gain):
        return None
    (down, right), (down_sd, right_sd) = found.shift.tolist(), np.sqrt(np.diag(found.covariance)).tolist()
    rows, cols = np.linalg.solve(_slopes(pair), found.shift).tolist()
    return Apart(second.tolist(), (down, right), (down_sd, right_sd), Affine.translation(cols, rows))


def _split(nm: Floats, gain: Floats) -> int | None:
    """How many bands, in the file's order, are of the first detector, by what each (C,) is likelier by as the second's.

    That is where centres step back, as where both detectors' bands are kept. None unless those on either side bear it
    out.

    >>> _split(np.array([900.0, 950.0, 1000.0, 1050.0]), np.array([-1.0, -2.0, 1.0, 1.0]))
    2
    >>> _split(np.array([900.0, 950.0, 1000.0, 1050.0]), np.array([1.0, 1.0, 2.0, 1.0])) is None
    True
    """
    back = np.flatnonzero(np.diff(nm) < 0) + 1
    sums = np.concatenate([[0.0], np.cumsum(gain)])
    split = int(back[0]) if len(back) == 1 else int(sums.argmin())
    return split if sums[split] < 0 and sums[-1] > sums[split] else None


def brought_together(pair: ScenePair, found: Apart) -> ScenePair:
    """The pair with bands that lie apart resampled to where the others lie, their detail where the MSI shows it."""
    reader = own = pair.hsi
    if not isinstance(own, WarpedReader):
        reader = WarpedReader(own, own.grid)
    assert isinstance(reader, WarpedReader)
    moved = reader.with_apart([pair.hsi_bands[i] for i in found.bands], found.move)
    return with_detail(replace(pair, hsi=moved))[0]


def _slopes(pair: ScenePair) -> Floats:
    """LR pixels (down, right) by which places change from one of the LRHSI's own pixels to the next, (2, 2)."""
    (h, w), side = pair.lr_shape, 2
    _, *places = own_pixels(pair, Window(max(0, w // 2 - side), max(0, h // 2 - side), 2 * side, 2 * side))
    return np.array([[np.nanmean(np.diff(v, axis=axis)) for axis in (0, 1)] for v in places])


@dataclass(frozen=True)
class _Settled:
    """Where a detector lies, `shift` (2,) in LR pixels, and by all windows but one, in turn, `without` (w, 2).

    `left` (w, C) are the squares that what the others tell leaves in each of these windows, `weight` (C,) the inverse
    of what is left in all of them.
    """

    shift: Floats
    without: Floats
    left: Floats
    weight: Floats


@dataclass(frozen=True)
class _Between:
    """Where either detector lies."""

    near: _Settled
    far: _Settled

    @property
    def shift(self) -> Floats:
        """How far the second one lies from the first, (2,)."""
        return np.asarray(self.far.shift - self.near.shift)

    @property
    def covariance(self) -> Floats:
        """By a jackknife over windows, and what materials do."""
        without = self.far.without - self.near.without
        apart = without - without.mean(0)
        return np.asarray((len(apart) - 1) / len(apart) * apart.T @ apart + GROUND**2 * np.eye(2))

    @property
    def errors(self) -> float:
        """How many of its errors the shift has."""
        return float(np.sqrt(self.shift @ np.linalg.solve(self.covariance, self.shift)))


class _Fit:
    """Least squares of spectra by the MSI seen at a place: sums over windows, from which each is left out in turn."""

    def __init__(self, parts: Sequence[_Part], extent: tuple[int, int]) -> None:
        self._parts = parts
        rows, cols, spectra = (
            np.concatenate([getattr(one, name) for one in parts], axis=-1) for name in ("rows", "cols", "spectra")
        )
        y, x = shares(rows, cols, extent)
        self._window = windows_of(y, x, extent)
        self.pixels, self.windows = self._window.size, len(np.unique(self._window))
        quarter = np.eye(4)[2 * (y > 0) + (x > 0)]
        self._quarter = quarter / np.sqrt(np.maximum(quarter.sum(0), 1))
        self._spectra, self._known = self._free(spectra), np.zeros((0, self.pixels))

    def _free(self, image: Floats) -> Floats:
        """Without its mean in each quarter of the scene."""
        return np.asarray(image - (image @ self._quarter) @ self._quarter.T)

    def _columns(self, shift: Floats) -> Floats:
        """(5, c, n) as of the parts."""
        return self._free(np.concatenate([part.columns(shift) for part in self._parts], axis=2))

    def between(self, first: NDArray[np.intp], second: NDArray[np.intp]) -> _Between:
        """Where detectors of these bands lie."""
        self._known = self._known[:0]
        near = self.settled(first)
        self.know(first)
        return _Between(near, self.settled(second))

    def know(self, bands: NDArray[np.intp]) -> None:
        """Take the main directions of what the MSI leaves of some bands for known, from now on."""
        here, own = self._columns(np.zeros(2))[0], self._spectra[bands]
        rest = own - _solve(here @ here.T, here @ own.T).T @ here
        rest = rest / (np.sqrt(np.square(rest).mean(1, keepdims=True)) + 1e-12)
        self._known = np.linalg.eigh(rest @ rest.T)[1][:, -DIRECTIONS:].T @ rest

    def settled(self, bands: NDArray[np.intp], at: Floats | None = None) -> _Settled:
        """Where the detector of some bands lies; only the PSF's width is free where that is known (`at`)."""
        shift, free = (np.zeros(2), [0, 1, 2, 3]) if at is None else (at, [2, 3])
        for _ in range(ROUNDS):
            sums = _Sums.of(self._columns(shift), self._known, self._spectra[bands], self._window)
            found = sums.fitted(None, free)
            if at is not None or np.abs(found.numbers[:2]).max() < SMALL_STEP:
                break
            shift = shift + np.clip(found.numbers[:2], -LARGE_STEP, LARGE_STEP)
        others = [sums.fitted(window, free) for window in range(self.windows)]
        left = [sums.squares(window, one.gains) for window, one in enumerate(others)]
        return _Settled(shift, np.array([shift + one.numbers[:2] for one in others]), np.array(left), found.weight)


@dataclass(frozen=True)
class _Fitted:
    """The four numbers common to bands, gains (C, p) on all columns, and what a band's squares weigh, (C,)."""

    numbers: Floats
    gains: Floats
    weight: Floats


@dataclass(frozen=True)
class _Sums:
    """Sums over the pixels of each of w windows: of p columns' products (w, p, p), theirs with bands (w, C, p), and
    bands' squares (w, C). Of the columns the first c are the MSI, the last 4 c its derivatives."""

    normal: Floats
    pull: Floats
    power: Floats
    msi: int

    @classmethod
    def of(cls, columns: Floats, known: Floats, own: Floats, window: NDArray[np.intp]) -> _Sums:
        rows, sums = np.concatenate([columns[0], known, *columns[1:]]), []
        for one in range(int(window.max()) + 1):
            x, y = rows[:, window == one], own[:, window == one]
            sums.append((x @ x.T, y @ x.T, np.square(y).sum(1)))
        normal, pull, power = (np.array(part) for part in zip(*sums, strict=True))
        return cls(normal, pull, power, columns.shape[1])

    def fitted(self, part: int | None, free: list[int]) -> _Fitted:
        """By all windows but a `part`; of the numbers only those `free` are."""
        normal, pull, power = (
            one.sum(0) - (0 if part is None else one[part]) for one in (self.normal, self.pull, self.power)
        )
        c, plain = self.msi, len(normal) - 4 * self.msi
        ways = [slice(plain + c * i, plain + c * (i + 1)) for i in free]
        onto = _solve(normal[:plain, :plain], normal[:plain])  # of all columns on those that aren't derivatives
        gains = _solve(normal[:plain, :plain], pull[:, :plain].T).T
        weight = 1 / np.maximum(power - (gains * pull[:, :plain]).sum(1), 1e-6 * power + 1e-30)
        rest, slopes = pull - pull[:, :plain] @ onto, normal - normal[:plain].T @ onto
        own = gains[:, :c]
        both = own.T @ (weight[:, None] * own)
        told = np.array([(weight[:, None] * own * rest[:, way]).sum() for way in ways])
        among = np.array([[(both * slopes[one, other]).sum() for other in ways] for one in ways])
        numbers = np.zeros(4)
        numbers[free] = _solve(among, told[:, None])[:, 0]
        moved = np.concatenate([number * own for number in numbers], 1)
        return _Fitted(numbers, np.concatenate([gains - moved @ onto[:, plain:].T, moved], 1), weight)

    def squares(self, part: int, gains: Floats) -> Floats:
        """What gains (C, p) leave in a window, (C,)."""
        return self.power[part] - 2 * (gains * self.pull[part]).sum(1) + (gains @ self.normal[part] * gains).sum(1)


def _solve(normal: Floats, pull: Floats) -> Floats:
    """x (n, m) of normal x = pull (n, m)."""
    return np.asarray(solve_spd(torch.from_numpy(normal), torch.from_numpy(pull), RIDGE).numpy())

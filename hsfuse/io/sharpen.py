"""Detail for bands of coarser GSD from the finest bands of the same image (hypersharpening).

    sharp = up(coarse) + sum_k g_k (fine_k - up(down(fine_k)))

The gains g are a regression of the coarse band on what the fine ones are at its GSD; `down` is the coarse sensor's
Gaussian MTF, `up` cubic convolution. After Selva, Aiazzi, Butera, Chiarantini, Baronti 2015, "Hyper-sharpening: a first
approach on SIM-GA data", IEEE JSTARS 8(6), doi:10.1109/JSTARS.2015.2440092, with the MTF of Aiazzi et al. 2006. Bands
that are only interpolated look sharp to a fusion method but aren't, which costs it accuracy in all bands.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from math import ceil, floor

import numpy as np
from numpy.typing import NDArray
from rasterio.windows import Window

from hsfuse.core.cube import BoolArray, FloatArray
from hsfuse.core.errors import GridError
from hsfuse.core.grid import GRID_TOLERANCE_PX, Grid, relation
from hsfuse.io.reader import CubeReader
from hsfuse.physics.optics import gaussian, keys_weights, sigma_from_mtf


@dataclass(frozen=True)
class Place:
    """A coarser grid below a finer one: `ratio` fine pixels to one of its own; the fine one begins at (row, col)."""

    ratio: int
    row: float
    col: float

    def centres(self, window: Window, part: Window) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Rows (h,) and columns (w,) of the fine pixels' centres, in coarse pixel centres of the part."""
        rows = (np.arange(window.height) + window.row_off + 0.5) / self.ratio + self.row - 0.5
        cols = (np.arange(window.width) + window.col_off + 0.5) / self.ratio + self.col - 0.5
        return rows - part.row_off, cols - part.col_off

    def part(self, grid: Grid, window: Window, margin: int = 0) -> Window:
        """The whole coarse pixels (of `grid`) that a fine window needs, with a margin where it is to be had."""
        margin = margin if self.ratio > 1 else 0
        row, height = self._span(window.row_off, window.height, self.row, grid.shape[0], margin)
        col, width = self._span(window.col_off, window.width, self.col, grid.shape[1], margin)
        return Window(col, row, width, height)

    def _span(self, start: int, count: int, shift: float, most: int, margin: int) -> tuple[int, int]:
        """First coarse pixel and how many, of `most`, along one axis."""
        first = floor(start / self.ratio + shift + GRID_TOLERANCE_PX) - margin
        last = ceil((start + count) / self.ratio + shift - GRID_TOLERANCE_PX) + margin
        low = min(max(first, 0), most - 1)
        return low, max(min(last, most), low + 1) - low


def place_below(source: CubeReader, finest: CubeReader) -> Place:
    """Where a file lies below the finest of its image; GridError, in figures, when it can't be brought to its grid.

    It can when both share a CRS and orientation, one of its pixels is a whole number of fine ones, and it misses less
    than one of its pixels at each border of the fine grid.
    """
    fine, grid, name = finest.grid, source.grid, source.path.name
    if grid.crs != fine.crs:
        raise GridError(
            f"{finest.path.name} is in {_crs(fine)} but {name} in {_crs(grid)}: the bands of one image must "
            "share a CRS; reproject one of them first"
        )
    if not fine.georeferenced and grid.shape != fine.shape:
        raise GridError(f"{name} has {grid.shape} pixels, another band {fine.shape}, and neither is georeferenced")
    place = _nested(fine, grid, name)
    _check_cover(place, fine, grid, name)
    return place


def _crs(grid: Grid) -> str:
    return "no CRS" if grid.crs is None else grid.crs.to_string()


def _nested(fine: Grid, grid: Grid, name: str) -> Place:
    place = relation(grid, fine)
    s = max(1, place.ratio)
    # Over the whole image less than the tolerance; `align`, which crops, allows a tolerance a coarse pixel's side.
    drift = max(fine.shape) / s * place.drift
    if place.ratio < 1 or max(drift, place.misfit) > GRID_TOLERANCE_PX:
        raise GridError(
            f"{name} ({grid.describe()}) doesn't nest with the finest band ({fine.describe()}): its pixel is "
            f"{grid.gsd[0] / fine.gsd[0]:.4g} x {grid.gsd[1] / fine.gsd[1]:.4g} of the finest, its border "
            f"{place.misfit:.2f} of a pixel off; wanted whole numbers, the same orientation and at most "
            f"{GRID_TOLERANCE_PX}"
        )
    return Place(s, -round(place.row) / s, -round(place.col) / s)


def _check_cover(place: Place, fine: Grid, grid: Grid, name: str) -> None:
    """GridError when a pixel or more of the file's is missing at a border of the finest grid."""
    ends = place.row + fine.shape[0] / place.ratio, place.col + fine.shape[1] / place.ratio
    missing = max(-place.row, -place.col, ends[0] - grid.shape[0], ends[1] - grid.shape[1])
    if missing >= 1:
        raise GridError(
            f"{name} doesn't cover the finest band, {missing:g} of its pixels are missing at a border: it is "
            f"{grid.describe()} from ({grid.transform.c:g}, {grid.transform.f:g}), the finest band "
            f"{fine.describe()} from ({fine.transform.c:g}, {fine.transform.f:g})"
        )


def blocks(extent: Window, size: int, count: int = 3) -> Iterator[Window]:
    """Windows of `size` pixels, `count` to each direction with equal gaps, over an extent; all of a small one."""
    for row, height in _spread(int(extent.row_off), int(extent.height), size, count):
        for col, width in _spread(int(extent.col_off), int(extent.width), size, count):
            yield Window(col, row, width, height)


def _spread(start: int, length: int, size: int, count: int) -> Iterator[tuple[int, int]]:
    if length <= count * size:
        yield start, length
        return
    for i in range(count):
        yield start + round((i + 0.5) * length / count - size / 2), size


#: Coarse pixels needed beyond those that a window covers.
MARGIN = 2

Kernel = Callable[[NDArray[np.float64]], Iterable[NDArray[np.float64]]]


def upsample(
    values: FloatArray, valid: BoolArray, rows: NDArray[np.float64], cols: NDArray[np.float64]
) -> tuple[FloatArray, BoolArray]:
    """Values and validity (H, W) at fractional pixel centres `rows` (H,), `cols` (W,) of coarse values (h, w).

    Cubic convolution (Keys 1981); beside an invalid pixel linear between the
    valid ones. A fine pixel is valid when the coarse pixel that it lies in is. Beyond the border it is invalid.
    """
    filled = np.where(valid, values, np.float32(0))
    smooth = _separable(filled, rows, cols, keys_weights)
    inside = _inside(rows, values.shape[0])[:, None] & _inside(cols, values.shape[1])
    if valid.all():
        return smooth, inside
    near = _separable(valid.astype(np.float32), rows, cols, _linear)
    linear = _separable(filled, rows, cols, _linear) / np.maximum(near, np.float32(1e-6))
    touched = _separable((~valid).astype(np.float32), rows, cols, _reach) > 0
    own = valid[nearest(rows, values.shape[0])][:, nearest(cols, values.shape[1])]
    return np.where(touched, linear, smooth), own & inside


def nearest(positions: NDArray[np.float64], count: int) -> NDArray[np.intp]:
    """The pixels (of `count`) that the positions lie in."""
    return np.clip(np.floor(positions + 0.5), 0, count - 1).astype(np.intp)


def _inside(positions: NDArray[np.float64], count: int) -> BoolArray:
    return (positions > -0.5) & (positions < count - 0.5)


def _separable(values: FloatArray, rows: NDArray[np.float64], cols: NDArray[np.float64], kernel: Kernel) -> FloatArray:
    return _along_rows(_along_rows(values, rows, kernel).T, cols, kernel).T


def _along_rows(values: FloatArray, at: NDArray[np.float64], kernel: Kernel) -> FloatArray:
    """Rows (len(at), w) from rows (h, w); the first and last row go on beyond the border."""
    base = np.floor(at)
    return weighted_rows(values, (base - 1).astype(np.intp), kernel(at - base))


def weighted_rows(values: FloatArray, first: NDArray[np.intp], weights: Iterable[NDArray[np.float64]]) -> FloatArray:
    """Sums (n, w) of rows (h, w): of rows first, first + 1, ... (n,) times one array of weights (n,) each.

    The first and last row go on beyond the border.
    """
    out = np.zeros((len(first), values.shape[1]), np.float32)
    for tap, weight in enumerate(weights):
        out += values[np.clip(first + tap, 0, len(values) - 1)] * weight.astype(np.float32)[:, None]
    return out


def _linear(t: NDArray[np.float64]) -> list[NDArray[np.float64]]:
    return [np.zeros_like(t), 1 - t, t, np.zeros_like(t)]


def _reach(t: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.abs(keys_weights(t))


#: MTF of a coarser band at its Nyquist frequency.
MTF = 0.3
#: Ridge of the regression, relative to the fine bands' mean variance.
RIDGE = 1e-4
#: Least share of a coarse pixel's weight that must lie on valid fine pixels.
LEAST_SHARE = 0.5
#: Fewest coarse pixels that gains are fitted on.
FEWEST = 64


def reach(place: Place) -> int:
    """Fine pixels beyond a coarse pixel that `coarse_view` looks at."""
    return ceil(3 * _sigma(place))


def fine_window(place: Place, part: Window, wanted: Window, shape: tuple[int, int]) -> Window:
    """The fine pixels, inside a grid of that shape, that `detail` needs for a coarse part and a wanted fine window."""

    def span(first: int, count: int, shift: float, start: int, length: int, most: int) -> tuple[int, int]:
        low = round((first - shift) * place.ratio) - reach(place)
        high = round((first + count - shift) * place.ratio) + reach(place)
        low, high = max(min(low, start), 0), min(max(high, start + length), most)
        return low, high - low

    row, height = span(part.row_off, part.height, place.row, wanted.row_off, wanted.height, shape[0])
    col, width = span(part.col_off, part.width, place.col, wanted.col_off, wanted.width, shape[1])
    return Window(col, row, width, height)


def coarse_view(
    fine: FloatArray, valid: BoolArray, window: Window, place: Place, part: Window
) -> tuple[FloatArray, FloatArray]:
    """What fine bands (n, H, W) of a window are at the coarse pixels of a part: (n, h, w); and the valid share (h, w).

    Invalid fine pixels take no part.
    """
    rows = _weights(part.row_off, part.height, place.row, place, window.row_off, window.height)
    cols = _weights(part.col_off, part.width, place.col, place, window.col_off, window.width)

    def down(values: FloatArray) -> FloatArray:
        return weighted_rows(weighted_rows(values, *rows).T, *cols).T

    share = down(valid.astype(np.float32))
    means = [down(np.where(valid, band, np.float32(0))) / np.maximum(share, np.float32(1e-6)) for band in fine]
    return np.stack(means), share


def detail(
    fine: FloatArray, valid: BoolArray, window: Window, place: Place, part: Window, wanted: Window
) -> FloatArray:
    """What fine bands (n, H, W) of a window hold beyond the coarse GSD: (n, *wanted); 0 where they are invalid.

    The window must reach `reach(place)` beyond the coarse pixels of the part, the part beyond what is wanted.
    """
    means, share = coarse_view(fine, valid, window, place, part)
    seen = share >= LEAST_SHARE
    rows, cols = place.centres(wanted, part)
    top, left = wanted.row_off - window.row_off, wanted.col_off - window.col_off
    inside = np.s_[top : top + wanted.height, left : left + wanted.width]
    out = np.zeros((len(fine), wanted.height, wanted.width), np.float32)
    for k, band in enumerate(fine):
        smooth, known = upsample(means[k], seen, rows, cols)
        np.subtract(band[inside], smooth, out=out[k], where=known & valid[inside])
    return out


def gains(coarse: NDArray[np.float64], fine: NDArray[np.float64]) -> FloatArray:
    """Regression (n,) of a coarse band (pixels,) on fine bands (n, pixels) at its GSD; all 0 for too few pixels."""
    count, pixels = fine.shape
    if pixels < FEWEST:
        return np.zeros(count, np.float32)
    centred = fine - fine.mean(axis=1, keepdims=True)
    covariance = centred @ centred.T / pixels
    ridge = RIDGE * np.trace(covariance) / count + 1e-12
    cross = centred @ (coarse - coarse.mean()) / pixels
    return np.linalg.solve(covariance + ridge * np.eye(count), cross).astype(np.float32)


def _sigma(place: Place) -> float:
    """Width of the coarse sensor's PSF, in fine pixels."""
    return sigma_from_mtf(MTF, place.ratio)


def _weights(
    start: int, count: int, shift: float, place: Place, first: int, available: int
) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """The first fine pixel (count,), counted in the window, and the weights (n, count) of those from it on.

    They are for `count` coarse pixels from `start` on. Fine pixels outside the window weigh nothing; the others'
    weights aren't scaled up, which the valid share tells.
    """
    centre = (start + np.arange(count) + 0.5 - shift) * place.ratio - first
    low = np.floor(centre - reach(place)).astype(np.intp)
    pixels = low + np.arange(2 * reach(place) + 1)[:, None]
    weights = gaussian(pixels + 0.5 - centre, _sigma(place))
    return low, np.where((pixels >= 0) & (pixels < available), weights / weights.sum(axis=0), 0.0)

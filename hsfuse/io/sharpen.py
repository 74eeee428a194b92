"""Detail for bands of coarser GSD from the finest bands of the same image (hypersharpening).

    sharp = up(coarse) + sum_k g_k (fine_k - up(down(fine_k)))

The gains g are a regression of the coarse band on what the fine ones are at its GSD; `down` is the coarse sensor's
Gaussian MTF, `up` cubic convolution. After Selva, Aiazzi, Butera, Chiarantini, Baronti 2015, "Hyper-sharpening: a first
approach on SIM-GA data", IEEE JSTARS 8(6), doi:10.1109/JSTARS.2015.2440092, with the MTF of Aiazzi et al. 2006. Bands
that are only interpolated look sharp to a fusion method but aren't, which costs it accuracy in all bands.
"""

from __future__ import annotations

from math import ceil

import numpy as np
from numpy.typing import NDArray
from rasterio.windows import Window

from hsfuse.cube import BoolArray, FloatArray
from hsfuse.io.nesting import Place
from hsfuse.io.upsample import upsample, weighted_rows
from hsfuse.optics import gaussian, sigma_from_mtf

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

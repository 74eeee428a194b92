"""A coarser band on a finer grid by cubic convolution, with invalid pixels kept out of their neighbours.

Every value depends on at most four coarse pixels to each direction, wherever a window starts, so tiles don't show.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
from numpy.typing import NDArray

from hsfuse.cube import BoolArray, FloatArray
from hsfuse.optics import keys_weights

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

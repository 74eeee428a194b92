"""How a window of an image degrades, in bounded memory, with invalid pixels left out of the PSF's mean."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import ceil, floor

import numpy as np
import torch
from numpy.typing import NDArray
from rasterio.windows import Window
from scipy import sparse
from torch import Tensor

from hsfuse.core.cube import BoolArray, Cube, FloatArray
from hsfuse.physics.model import MIN_PSF_WEIGHT, ObservationModel
from hsfuse.physics.optics import keys_slopes, keys_weights

#: Reference values (pixels x bands) held at a time: 128 MB of float32.
VALUES_AT_ONCE = 2**25


#: Bands and LR columns blurred at a time, in float64 so that the pieces' borders leave no trace.
BANDS_AT_ONCE, COLUMNS_AT_ONCE = 16, 128


@dataclass(frozen=True)
class Span:
    """LR pixels along one axis: `count` from `start` are made, out of those from `low` to `high`, the halo included."""

    start: int
    count: int
    low: int
    high: int

    def inner(self, s: int = 1) -> slice:
        """The pixels that are made, counted from `low`, in units of 1/s LR pixel."""
        first = self.start - self.low
        return slice(first * s, (first + self.count) * s)

    def outer(self, s: int = 1) -> slice:
        """The pixels with halo, counted from 0, in units of 1/s LR pixel."""
        return slice(self.low * s, self.high * s)


def spans(n: int, size: int, halo: int) -> list[Span]:
    """Spans of at most `size` that cover n LR pixels."""
    return [Span(i, min(size, n - i), max(0, i - halo), min(n, min(i + size, n) + halo)) for i in range(0, n, size)]


def strips(shape: tuple[int, int], values: int) -> list[Window]:
    """Strips of whole rows that cover an image of that shape, for work that holds so many `values` for each pixel."""
    rows, cols = shape
    step = max(1, VALUES_AT_ONCE // (values * cols))
    return [Window(0, span.start, cols, span.count) for span in spans(rows, step, 0)]


def halo_of(model: ObservationModel) -> int:
    """LR pixels on each side that an LR pixel's PSF reaches."""
    return ceil(model.psf.size / (2 * model.ratio))


def degrade(model: ObservationModel, data: FloatArray, mask: BoolArray) -> tuple[FloatArray, BoolArray]:
    """LRHSI (C, h, w) and its mask (h, w) of a cube (C, H, W); invalid pixels take no part in the PSF's mean."""
    if mask.all():
        return _blurred(model, data, None), np.ones((mask.shape[0] // model.ratio, mask.shape[1] // model.ratio), bool)
    weight = _blurred(model, mask[None].astype(np.float32), None)[0]
    return _blurred(model, np.where(mask, data, np.float32(0)), weight), weight >= MIN_PSF_WEIGHT


def reach(model: ObservationModel, window: Window, shape: tuple[int, int]) -> tuple[Window, tuple[slice, slice]]:
    """The HR window that the PSFs of an LR window reach in an LR image of `shape`, and where the LR window lies in it.

    What is outside isn't there: only the image's own border is mirrored.
    """
    halo, s = halo_of(model), model.ratio
    starts, sizes = (int(window.row_off), int(window.col_off)), (int(window.height), int(window.width))
    low = [max(0, start - halo) for start in starts]
    high = [min(n, start + size + halo) for n, start, size in zip(shape, starts, sizes, strict=True)]
    around = Window(low[1] * s, low[0] * s, (high[1] - low[1]) * s, (high[0] - low[0]) * s)
    rows, cols = (slice(start - first, start - first + n) for start, first, n in zip(starts, low, sizes, strict=True))
    return around, (rows, cols)


def seen(
    model: ObservationModel, read: Callable[[Window], Cube], window: Window, shape: tuple[int, int]
) -> tuple[FloatArray, BoolArray]:
    """A window (C, h, w) of the LR image of `shape` that the sensor makes of the HR image `read` gives; its mask."""
    around, cut = reach(model, window, shape)
    cube = read(around)
    data, mask = degrade(model, cube.data, cube.mask)
    return data[:, *cut], mask[cut]


def shifted_axis(
    taps: NDArray[np.float64], shift: float, part: slice, size: int, model: ObservationModel
) -> tuple[slice, tuple[sparse.csr_array, sparse.csr_array]]:
    """Which of `size` MSI pixels LR pixels `part` (n) take along an axis, (m), and the matrices (n, m) that do it.

    The first blurs, shifts and decimates, the other is its derivative by the shift; nothing lies beyond the ends.
    """
    s, n = model.ratio, part.stop - part.start
    offset = -shift * s
    whole = floor(offset)
    first = round(model.phase - (len(taps) - 1) / 2) + whole - 1
    index = first + (part.start + np.arange(n))[:, None] * s + np.arange(len(taps) + 3)
    inside = (index >= 0) & (index < size)
    low, high = (int(index[inside].min()), int(index[inside].max()) + 1) if inside.any() else (0, 1)
    places, ends = index[inside] - low, np.concatenate([[0], np.cumsum(inside.sum(1))])
    made = []
    for four in (keys_weights(offset - whole), -s * keys_slopes(offset - whole)):
        values = np.broadcast_to(np.convolve(taps, four), index.shape)[inside].astype(np.float32)
        made.append(sparse.csr_array((values, places, ends), shape=(n, high - low)))
    return slice(low, high), (made[0], made[1])


def _blurred(model: ObservationModel, data: FloatArray, weight: FloatArray | None) -> FloatArray:
    """Blurred and decimated (C, h, w), some bands and columns at a time; divided by `weight` (h, w) where given."""
    s = model.ratio
    rows, cols = data.shape[1] // s, data.shape[2] // s
    out = np.empty((len(data), rows, cols), np.float32)
    for band in range(0, len(data), BANDS_AT_ONCE):
        part = np.s_[band : band + BANDS_AT_ONCE]
        for span in spans(cols, COLUMNS_AT_ONCE, halo_of(model)):
            x: Tensor = torch.from_numpy(data[part, :, span.outer(s)]).double()
            out[part, :, span.start : span.start + span.count] = model.spatial(x[None])[0][..., span.inner()].numpy()
    if weight is not None:
        np.divide(out, weight, out=out, where=weight > 0)
    return out

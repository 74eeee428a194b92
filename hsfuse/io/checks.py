"""What can only be told from the pixels: bands without a valid value, images without a valid pixel."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import ceil, sqrt

import numpy as np
from numpy.typing import NDArray
from rasterio.windows import Window

from hsfuse.errors import InputError
from hsfuse.io.reader import CubeReader

#: Bands looked at in one go, to bound memory.
_BANDS_AT_ONCE = 64

#: Pixels of a scan window times bands, to bound memory (32 MB of float32).
_SCAN_VALUES = 2**23


def usable_bands(reader: CubeReader, max_pixels: int = 2**16) -> NDArray[np.bool_]:
    """(C,) True for bands that hold something: good by the bad band list, valid somewhere, not one value <= 0 all over.

    Decides on a decimated read of at most about `max_pixels` pixels; a band without a valid value there is scanned in
    full. When every band is constant (a flat scene) constancy tells nothing and is not held against them.
    """
    usable = np.array(reader.spectrum.good or [True] * reader.count)
    shape = _decimated(reader.grid.shape, max_pixels)
    flat = np.zeros(reader.count, bool)
    for start in range(0, reader.count, _BANDS_AT_ONCE):
        bands = range(start, min(start + _BANDS_AT_ONCE, reader.count))
        data, valid = reader.sample(bands, shape)
        for band, values, ok in zip(bands, data, valid, strict=True):
            if not ok.any():
                usable[band] &= _valid_anywhere(reader, [band])
            else:
                flat[band] = values[ok].min() == values[ok].max() <= 0
    return usable if flat[usable].all() else usable & ~flat


def check_valid(reader: CubeReader, bands: Sequence[int] | None = None) -> None:
    """Raise InputError when no pixel is valid in all the bands (0-based; default: the usable ones)."""
    chosen = np.flatnonzero(usable_bands(reader)).tolist() if bands is None else list(bands)
    if not chosen or not _valid_anywhere(reader, chosen):
        raise InputError(f"{reader.path} has no valid pixel: all of it is nodata, NaN or masked")


def _decimated(shape: tuple[int, int], max_pixels: int) -> tuple[int, int]:
    step = max(1.0, sqrt(shape[0] * shape[1] / max_pixels))
    return ceil(shape[0] / step), ceil(shape[1] / step)


def _valid_anywhere(reader: CubeReader, bands: Sequence[int]) -> bool:
    """Whether a pixel is valid in all these bands, looking from the middle outwards and stopping at the first one."""
    before = reader.nonfinite
    try:
        return any(reader.read(window, bands).mask.any() for window in _scan(reader.grid.shape, len(bands)))
    finally:
        reader.nonfinite = before  # this look isn't part of the caller's reading


def _scan(shape: tuple[int, int], bands: int) -> Iterator[Window]:
    """Windows that cover the image, the middle rows first, where valid pixels usually are."""
    rows = max(1, min(shape[0], _SCAN_VALUES // (bands * shape[1])))
    for row in sorted(range(0, shape[0], rows), key=lambda r: abs(r + rows // 2 - shape[0] // 2)):
        yield Window(0, row, shape[1], min(rows, shape[0] - row))

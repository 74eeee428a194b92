"""Orthorectification by a geographic lookup table (GLT): for each map pixel, the line and sample it comes from.

Lines and samples count from 1, 0 is no pixel, and negative numbers are map pixels filled from their nearest neighbour
(ENVI documentation, "Build GLT Files"; EMIT L1B and L2A user guides, GLT).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import DTypeLike, NDArray

from hsfuse.core.cube import BoolArray
from hsfuse.core.errors import InputError

#: Bytes of sensor pixels read in one go.
_BUDGET = 16 * 2**20


@dataclass(frozen=True)
class Lookup:
    """Line and sample (h, w), 0-based, of each map pixel, and where there is one (`found`)."""

    lines: NDArray[np.int64]
    samples: NDArray[np.int64]
    found: BoolArray


def read_lookup(samples: NDArray, lines: NDArray, shape: tuple[int, int], path: Path) -> Lookup:
    """The table's numbers (h, w), 1-based, for a sensor image of `shape` lines and samples.

    InputError when they point outside the image.
    """
    x, y = (np.abs(np.nan_to_num(part, nan=0, posinf=0, neginf=0)).astype(np.int64) for part in (samples, lines))
    found = (x > 0) & (y > 0)
    far = (int(y[found].max(initial=0)), int(x[found].max(initial=0)))
    if far[0] > shape[0] or far[1] > shape[1]:
        raise InputError(
            f"{path}: its lookup table points at line {far[0]}, sample {far[1]} of an image of {shape[0]} lines and "
            f"{shape[1]} samples"
        )
    return Lookup(y - 1, x - 1, found)


def gather(
    lookup: Lookup, read: Callable[[slice, slice], NDArray], count: int, dtype: DTypeLike, blank: float
) -> NDArray:
    """Map pixels (C, h, w) from sensor pixels that `read(lines, samples)` gives as (C, n, m); `blank` elsewhere."""
    out = np.full((count, *lookup.found.shape), blank, dtype=dtype)
    flat, places = out.reshape(count, -1), np.flatnonzero(lookup.found)
    lines, samples = lookup.lines.ravel()[places], lookup.samples.ravel()[places]
    order = np.argsort(lines, kind="stable")
    places, lines, samples = places[order], lines[order], samples[order]
    start = 0
    while start < len(places):
        first = int(lines[start])
        width = int(samples.max()) + 1 - int(samples.min())
        most = max(1, _BUDGET // max(1, count * width * out.itemsize))
        stop = int(np.searchsorted(lines, first + most))
        own, left = slice(start, stop), int(samples[start:stop].min())
        part = read(slice(first, int(lines[stop - 1]) + 1), slice(left, int(samples[own].max()) + 1))
        flat[:, places[own]] = part[:, lines[own] - first, samples[own] - left]
        start = stop
    return out


#: Gains and offsets beyond this are none: scaled, they wouldn't fit float32.
LARGEST = 1e30


def merged(centres_nm: Sequence[Sequence[float]]) -> list[tuple[int, int]]:
    """(detector, band), both 0-based, by ascending centre (nm); of the other detectors only bands beyond the first's.

    The first detector is the one that begins lowest, in whatever order they are given. A centre of 0 is a band that
    isn't there.
    """
    kept: list[tuple[int, int]] = []
    end = 0.0
    for detector in sorted(range(len(centres_nm)), key=lambda d: _least(centres_nm[d])):
        centres = np.asarray(centres_nm[detector], dtype=np.float64)
        kept += [(detector, int(band)) for band in np.argsort(centres, kind="stable") if centres[band] > end]
        end = max(end, *centres) if len(centres) else end
    return kept


def _least(centres: Sequence[float]) -> float:
    return min((c for c in centres if c > 0), default=float("inf"))

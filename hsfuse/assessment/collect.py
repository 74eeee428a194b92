"""Collectors fed tile by tile: block means for maps and pictures, spectra at points, histograms.

Each keeps a bounded array, whatever the size of the scene, and doesn't depend on how the scene was cut into tiles.
"""

from __future__ import annotations

from math import ceil

import numpy as np
from numpy.typing import NDArray

from hsfuse.assessment.result import Floats, Histogram

Bools = NDArray[np.bool_]

#: Longest side of maps and pictures, in pixels.
MAX_SIDE = 600
#: Points a side of the grid of sampled spectra.
POINTS_A_SIDE = 24


class BlockMeans:
    """Means of n planes over blocks of step x step of an image (height, width)."""

    def __init__(self, planes: int, shape: tuple[int, int], max_side: int = MAX_SIDE) -> None:
        self.step = max(1, ceil(max(shape) / max_side))
        small = (ceil(shape[0] / self.step), ceil(shape[1] / self.step))
        self._sums, self._counts = np.zeros((planes, *small)), np.zeros(small)

    def add(self, row: int, col: int, values: Floats, valid: Bools) -> None:
        """Add a tile (n, rows, cols) at (row, col); only `valid` (rows, cols) finite pixels count."""
        valid = valid & np.isfinite(values).all(axis=0)
        where = (slice(row // self.step, None), slice(col // self.step, None))
        sums = self._blocks(row, col, np.where(valid, values, 0).astype(np.float64))
        self._sums[:, *where][:, : sums.shape[1], : sums.shape[2]] += sums
        self._counts[where][: sums.shape[1], : sums.shape[2]] += self._blocks(row, col, valid.astype(np.float64)[None])[
            0
        ]

    def _blocks(self, row: int, col: int, values: Floats) -> Floats:
        for axis, first in ((1, row), (2, col)):
            block = (first + np.arange(values.shape[axis])) // self.step
            values = np.add.reduceat(values, np.flatnonzero(np.diff(block, prepend=-1)), axis=axis)
        return values

    def mean(self) -> Floats:
        """The means (n, rows, columns), float32; NaN where no pixel was valid."""
        out = np.full(self._sums.shape, np.nan)
        np.divide(self._sums, self._counts, out=out, where=self._counts > 0)
        return out.astype(np.float32)


class PointSampler:
    """Spectra (n, C) of an image at n pixels."""

    def __init__(self, bands: int, rows: NDArray[np.int64], cols: NDArray[np.int64]) -> None:
        self._rows, self._cols = rows, cols
        self.values = np.full((rows.size, bands), np.nan, np.float32)

    def add(self, row: int, col: int, data: Floats, valid: Bools) -> None:
        """Take the points that lie in a tile (C, rows, cols) at (row, col); invalid ones stay NaN."""
        r, c = self._rows - row, self._cols - col
        here = np.flatnonzero((r >= 0) & (r < valid.shape[0]) & (c >= 0) & (c < valid.shape[1]))
        here = here[valid[r[here], c[here]]]
        self.values[here] = data[:, r[here], c[here]].T


def point_grid(shape: tuple[int, int], scale: int, per_side: int = POINTS_A_SIDE) -> tuple[NDArray, NDArray]:
    """HR rows and columns (n,) of an even grid of points, in the middle of LR pixels (scale 1: any pixels)."""
    axes = []
    for length in shape:
        cells = max(1, length // scale)
        chosen = np.unique(((np.arange(min(per_side, cells)) + 0.5) * cells / min(per_side, cells)).astype(np.int64))
        axes.append(np.minimum(chosen * scale + scale // 2, length - 1))
    rows, cols = np.meshgrid(*axes, indexing="ij")
    return rows.ravel(), cols.ravel()


def choose_points(spectra: Floats, count: int = 5) -> tuple[int, ...]:
    """Indices of up to `count` of the spectra (n, C) that stand for the kinds of surface there, commonest first.

    Lloyd's k-means started from the spectra farthest from each other; each kind is represented by the spectrum nearest
    its mean. Spectra with NaN take no part. Deterministic.
    """
    known = np.flatnonzero(np.isfinite(spectra).all(axis=1))
    if known.size == 0:
        return ()
    x = spectra[known].astype(np.float64)
    centres = _spread(x, min(count, known.size))
    for _ in range(20):
        label = _distance(x, centres).argmin(axis=1)
        centres = np.array([x[label == k].mean(axis=0) if (label == k).any() else c for k, c in enumerate(centres)])
    distance = _distance(x, centres)
    sizes = np.bincount(distance.argmin(axis=1), minlength=len(centres))
    nearest = [int(known[distance[:, k].argmin()]) for k in np.argsort(-sizes, kind="stable")]
    return tuple(dict.fromkeys(nearest))


def _spread(x: Floats, count: int) -> Floats:
    """`count` rows of x, each the farthest from those before; the first is the nearest to the mean."""
    picked = [int(((x - x.mean(axis=0)) ** 2).sum(axis=1).argmin())]
    while len(picked) < count:
        picked.append(int(_distance(x, x[picked]).min(axis=1).argmax()))
    return x[picked]


def _distance(x: Floats, centres: Floats) -> Floats:
    """Squared distances (n, k)."""
    return ((x[:, None] - centres[None]) ** 2).sum(axis=2)


class HistogramCounter:
    """Counts of values in even bins from 0 to `top`; what lies above goes into the last bin."""

    def __init__(self, name: str, title: str, unit: str, top: float, bins: int) -> None:
        self._what = (name, title, unit)
        self._edges = np.linspace(0, top, bins + 1)
        self._counts = np.zeros(bins, np.int64)

    def add(self, values: Floats) -> None:
        """Count values (n,); NaN is left out."""
        kept = values[np.isfinite(values)]
        index = np.clip((kept / self._edges[1]).astype(np.int64), 0, self._counts.size - 1)
        self._counts += np.bincount(index, minlength=self._counts.size)

    def result(self) -> Histogram:
        """The histogram, cut after the last bin in use."""
        used = np.flatnonzero(self._counts)
        last = int(used[-1]) + 1 if used.size else 1
        return Histogram(*self._what, self._edges[: last + 1], self._counts[:last])

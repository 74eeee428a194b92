"""How a file's grid lies below a finer one that it is brought to."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil, floor

import numpy as np
from numpy.typing import NDArray
from rasterio.windows import Window

from hsfuse.errors import GridError
from hsfuse.grid import GRID_TOLERANCE_PX, Grid
from hsfuse.io.reader import CubeReader


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


def place_below(fine: Grid, source: CubeReader, first: CubeReader) -> Place:
    """Where a file lies below the finest grid; GridError, in figures, when it can't be brought there.

    It can when both share a CRS and orientation, one of its pixels is a whole number of fine ones, and it misses less
    than one of its pixels at each border of the fine grid. `first` is a file of the same image to be named beside it.
    """
    grid, name = source.grid, source.path.name
    if grid.crs != fine.crs:
        raise GridError(
            f"{first.path.name} is in {_crs(first.grid)} but {name} in {_crs(grid)}: the bands of one image must "
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
    step = ~grid.transform @ fine.transform
    ratio = round(1 / step.a) if step.a > 0 else 0
    drift = max(fine.shape) * max(abs(ratio * v - w) for v, w in ((step.a, 1), (step.e, 1), (step.b, 0), (step.d, 0)))
    misfit = max(abs(v * ratio - round(v * ratio)) for v in (step.c, step.f))
    if ratio < 1 or max(drift, misfit) > GRID_TOLERANCE_PX:
        raise GridError(
            f"{name} ({grid.describe()}) doesn't nest with the finest band ({fine.describe()}): its pixel is "
            f"{grid.gsd[0] / fine.gsd[0]:.4g} x {grid.gsd[1] / fine.gsd[1]:.4g} of the finest, its border "
            f"{misfit:.2f} of a pixel off; wanted whole numbers, the same orientation and at most {GRID_TOLERANCE_PX}"
        )
    return Place(ratio, round(step.f * ratio) / ratio, round(step.c * ratio) / ratio)


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

"""Exact maps from the pixels of one grid to those of another, across CRSs and the antimeridian."""

from __future__ import annotations

from math import inf

import numpy as np
from affine import Affine
from numpy.typing import ArrayLike, NDArray
from rasterio.crs import CRS
from rasterio.warp import transform

from hsfuse.core.grid import Distortion, Grid

Floats = NDArray[np.float64]


#: Pixels within which two CRSs put all of an image at the same place.
SAME_PLACE_PX = 1e-3


class PixelMap:
    """Pixel coordinates (row, column; whole numbers are pixel corners) on `start` to those on `end`, point by point.

    Longitudes are taken on that side of the antimeridian on which the end grid lies. Points that the CRS of the end
    can't express come out as infinite. A `bend`, in pixels of the start, is added to what is asked for.
    """

    def __init__(self, start: Grid, end: Grid, bend: Distortion | None = None) -> None:
        self._start, self._end, self._bend = start, end, bend
        self._inverse = ~end.transform

    @property
    def linear(self) -> bool:
        """Whether one CRS holds for both and nothing bends, so that the map is affine."""
        return self._start.crs == self._end.crs and self._bend is None

    def __call__(self, rows: ArrayLike, cols: ArrayLike) -> tuple[Floats, Floats]:
        """Rows and columns on the end grid, of the shape of the arguments."""
        r, c = np.broadcast_arrays(np.asarray(rows, float), np.asarray(cols, float))
        if self._bend is not None:
            r, c = (v + by for v, by in zip((r, c), self._bend(r, c), strict=True))
        x, y = apply(self._start.transform, c, r)
        if self._start.crs != self._end.crs:
            x, y = project(self._start.crs, self._end.crs, x, y)
        if is_geographic(self._end):
            x = x + _turns(centre_of(self._end)[0] - x)
        with np.errstate(invalid="ignore"):
            c, r = apply(self._inverse, x, y)
        return np.where(np.isfinite(r), r, inf), np.where(np.isfinite(c), c, inf)


def apply(t: Affine, x: Floats, y: Floats) -> tuple[Floats, Floats]:
    """An affine map of many points."""
    return t.a * x + t.b * y + t.c, t.d * x + t.e * y + t.f


def is_geographic(grid: Grid) -> bool:
    """Whether the map coordinates are longitude and latitude in degrees."""
    return grid.crs is not None and bool(grid.crs.is_geographic)


def centre_of(grid: Grid) -> tuple[float, float]:
    """Map coordinates (x, y) of the grid's middle."""
    x, y = grid.transform @ (grid.shape[1] / 2, grid.shape[0] / 2)
    return float(x), float(y)


def _turns(degrees: Floats) -> Floats:
    """The nearest whole number of turns, in degrees."""
    with np.errstate(invalid="ignore"):
        return np.where(np.isfinite(degrees), 360 * np.round(degrees / 360), 0.0)


def beside(grid: Grid, other: Grid) -> Grid:
    """The grid moved by whole turns so that its longitudes are near the other's, where both are in one such CRS."""
    if grid.crs != other.crs or not is_geographic(grid):
        return grid
    turns = float(_turns(np.asarray(centre_of(other)[0] - centre_of(grid)[0])))
    return Grid(grid.shape, Affine.translation(turns, 0) @ grid.transform, grid.crs) if turns else grid


def renamed(grid: Grid, other: Grid) -> Grid:
    """The grid in the other's CRS where that is its own by another name: ENVI's WKT and EPSG's, ETRS89 and WGS 84."""
    if grid.crs == other.crs:
        return grid
    same = Grid(grid.shape, grid.transform, other.crs)
    rows, cols = lattice(grid.shape, 5)
    moved = [np.abs(a - b).max() for a, b in zip(PixelMap(grid, same)(rows, cols), (rows, cols), strict=True)]
    return same if max(moved) < SAME_PLACE_PX else grid


def project(start: CRS | None, end: CRS | None, x: Floats, y: Floats) -> tuple[Floats, Floats]:
    """Map coordinates in another CRS; infinite where it can't express them."""
    assert start is not None
    assert end is not None
    try:
        found = transform(start, end, x.ravel(), y.ravel())
    except Exception:  # GDAL's errors have no public class here; one bad point spoils the whole call
        if x.size == 1:
            return np.full(x.shape, inf), np.full(x.shape, inf)
        pairs = [project(start, end, np.array([u]), np.array([v])) for u, v in zip(x.ravel(), y.ravel(), strict=True)]
        found = [np.concatenate(part) for part in zip(*pairs, strict=True)]
    return np.asarray(found[0]).reshape(x.shape), np.asarray(found[1]).reshape(x.shape)


def lattice(shape: tuple[float, float], points: int, corner: tuple[float, float] = (0, 0)) -> tuple[Floats, Floats]:
    """Rows and columns (points, points) evenly spread over a rectangle of pixels, its borders included."""
    rows, cols = (np.linspace(first, first + size, points) for first, size in zip(corner, shape, strict=True))
    grid = np.meshgrid(rows, cols, indexing="ij")
    return grid[0], grid[1]

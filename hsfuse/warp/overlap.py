"""Where two footprints overlap, and how far apart they are when they don't."""

from __future__ import annotations

from math import inf

import numpy as np
from rasterio.crs import CRS

from hsfuse.errors import GridError
from hsfuse.grid import Grid
from hsfuse.warp.mapping import Floats, PixelMap, apply, lattice, project

#: Points along each side of a footprint that is mapped.
LATTICE = 33
WGS84 = CRS.from_epsg(4326)
EARTH_RADIUS_KM = 6371.0


def overlap(hsi: Grid, seen: Grid) -> tuple[tuple[tuple[float, float], tuple[float, float]], tuple[float, float]]:
    """MSI rows and columns (first, last) that hold all of the overlap, and a point (row, col) in its middle."""
    rows, cols = PixelMap(hsi, seen)(*lattice(hsi.shape, LATTICE))
    good = np.isfinite(rows) & np.isfinite(cols)
    if good.any():
        box = (_clip(rows[good], seen.shape[0]), _clip(cols[good], seen.shape[1]))
        size = box[0][1] - box[0][0], box[1][1] - box[1][0]
        if min(size) > 0:
            r, c = lattice(size, LATTICE, (box[0][0], box[1][0]))
            y, x = PixelMap(seen, hsi)(r, c)
            inside = (y >= 0) & (y <= hsi.shape[0]) & (x >= 0) & (x <= hsi.shape[1])
            if inside.any():
                return box, (float(r[inside].mean()), float(c[inside].mean()))
    raise GridError(f"the two images don't overlap{_apart(hsi, seen)}: HSI {hsi.describe()}, MSI {seen.describe()}")


def _clip(values: Floats, size: int) -> tuple[float, float]:
    return max(0.0, float(values.min())), min(float(size), float(values.max()))


def _apart(hsi: Grid, msi: Grid) -> str:
    if hsi.crs is None or msi.crs is None:
        return ""
    distance = gap_km(hsi, msi)
    told = f"{distance:,.0f}" if distance >= 100 else f"{distance:.3g}"
    return f", they lie about {told} km apart" if distance < inf else ""


def gap_km(one: Grid, other: Grid, points: int = 13) -> float:
    """Least great-circle distance between two footprints that don't overlap, in km; inf where it can't be told."""
    (lon0, lat0), (lon1, lat1) = (_places(grid, points) for grid in (one, other))
    cosine = np.sin(lat0[:, None]) * np.sin(lat1) + np.cos(lat0[:, None]) * np.cos(lat1) * np.cos(lon0[:, None] - lon1)
    distance = np.arccos(np.clip(cosine, -1, 1)) * EARTH_RADIUS_KM
    finite = distance[np.isfinite(distance)]
    return float(finite.min()) if finite.size else inf


def _places(grid: Grid, points: int) -> tuple[Floats, Floats]:
    """Longitudes and latitudes (n,) of a lattice of the grid, in radians."""
    rows, cols = lattice(grid.shape, points)
    x, y = apply(grid.transform, cols.ravel(), rows.ravel())
    lon, lat = project(grid.crs, WGS84, x, y)
    good = np.isfinite(lon) & np.isfinite(lat)
    return np.radians(lon[good]), np.radians(lat[good])

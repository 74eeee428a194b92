"""Where a cube lies, as the report's script needs it: from pixels to map coordinates, to longitude and latitude."""

from __future__ import annotations

from typing import Any

import numpy as np
from rasterio.crs import CRS
from rasterio.warp import transform

from hsfuse.core.grid import Grid

#: Nodes along each axis between which longitude and latitude are interpolated; on a scene of 100 km in UTM that is
#: within a metre.
NODES = 25
WGS84 = "EPSG:4326"


def place(grid: Grid) -> dict[str, Any] | None:
    """Pixel-to-map coefficients, CRS, and nodes of longitude and latitude; None where there is no map.

    `lonlat` holds pixel `rows` and `cols` (n,) of the nodes and `lon`, `lat` (n x n, row by row) in degrees; None where
    no CRS is named or it can't be brought to WGS 84.
    """
    if not grid.georeferenced:
        return None
    unit = "" if grid.crs is None or grid.crs.is_geographic else str(grid.crs.linear_units)
    return {
        "transform": list(grid.transform)[:6],
        "crs": "" if grid.crs is None else grid.crs.to_string() if grid.crs.to_epsg() else "its own CRS",
        "unit": {"metre": "m", "meter": "m", "unknown": ""}.get(unit, unit),
        "geographic": bool(grid.crs is not None and grid.crs.is_geographic),
        "lonlat": None if grid.crs is None else _nodes(grid, grid.crs),
    }


def _nodes(grid: Grid, crs: CRS) -> dict[str, Any] | None:
    rows, cols = (np.linspace(0, length, NODES) for length in grid.shape)
    r, c = np.meshgrid(rows, cols, indexing="ij")
    t = grid.transform
    x, y = t.a * c + t.b * r + t.c, t.d * c + t.e * r + t.f
    lon, lat = (np.asarray(v) for v in transform(crs, WGS84, x.ravel(), y.ravel())[:2])
    if not (np.isfinite(lon).all() and np.isfinite(lat).all()):
        return None
    lon = lon[0] + (lon - lon[0] + 180) % 360 - 180  # in one piece across the antimeridian
    return {
        "rows": np.round(rows, 3).tolist(),
        "cols": np.round(cols, 3).tolist(),
        "lon": np.round(lon, 7).tolist(),
        "lat": np.round(lat, 7).tolist(),
    }

"""One way to open whatever a user points at."""

from __future__ import annotations

from pathlib import Path

from hsfuse.io.products import open_product
from hsfuse.io.raster import RasterReader
from hsfuse.io.reader import CubeReader, Role


def open_cube(path: str | Path, *, role: Role = "raster") -> CubeReader:
    """Open a product, an ENVI pair (header or data file named), GeoTIFF or other raster for reading by window.

    With role "HSI" wavelengths must be known. Raises InputError, in one line, for whatever can't be read.
    """
    return open_product(Path(path), role) or RasterReader(Path(path), role)

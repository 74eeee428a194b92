"""One way to open whatever a user points at."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from hsfuse.errors import InputError
from hsfuse.io.products import open_product
from hsfuse.io.raster import RasterReader
from hsfuse.io.reader import CubeReader, Role
from hsfuse.io.stack import name_bands, open_stack

#: One file or product, or several files that make one image.
Paths = str | Path | Sequence[str | Path]


def open_cube(path: Paths, *, role: Role = "raster") -> CubeReader:
    """Open a product, an ENVI pair (header or data file named), GeoTIFF or other raster for reading by window.

    Several paths are the bands of one image (see `hsfuse.io.stack`). With role "HSI" wavelengths must be known. Raises
    InputError, in one line, for whatever can't be read.
    """
    paths = [Path(path)] if isinstance(path, str | Path) else [Path(one) for one in path]
    if not paths:
        raise InputError("no file to open")
    if len(paths) > 1:
        return open_stack(paths, role)
    product = open_product(paths[0], role)
    if product is not None:
        return product
    reader = RasterReader(paths[0], role)
    name_bands(reader)
    return reader


def split_paths(text: str | Path) -> list[Path]:
    """`b02.tif,b03.tif` as the paths of one image's bands; a path that exists, or has no comma, as itself."""
    if "," not in str(text) or os.path.exists(text):  # False for names too long, too, for which Path raises OSError
        return [Path(text)]
    return [Path(part.strip()) for part in str(text).split(",") if part.strip()]

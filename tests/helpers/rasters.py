"""Raster files for tests: inputs made without hsfuse, and outputs by its writer."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import numpy as np
import rasterio
from affine import Affine
from rasterio.crs import CRS
from rasterio.windows import Window

from hsfuse.core.cube import Spectrum
from hsfuse.core.grid import Grid
from hsfuse.io import CubeWriter, Storage

RNG = np.random.default_rng(7)
NORTH_UP = Affine(10, 0, 600000, 0, -10, 5000000)
GRID = Grid((300, 270), NORTH_UP, CRS.from_epsg(32633))
SPECTRUM = Spectrum((418.24, 550.123456, 1001.5), (5.25, 6.5, 7.0), ("blue", "green", "nir"), (True, False, True))
TYPES = {"uint8": 1, "int16": 2, "int32": 3, "float32": 4, "float64": 5, "uint16": 12}
ORDERS = {"bsq": (0, 1, 2), "bil": (1, 0, 2), "bip": (1, 2, 0)}


def write_envi(data: Path, cube: np.ndarray, *fields: str, interleave="bsq", big=False, header=None, skip=0) -> Path:
    """An ENVI pair from (C, H, W), header and bytes made here and not by GDAL."""
    c, h, w = cube.shape
    raw = np.ascontiguousarray(cube.transpose(ORDERS[interleave])).astype(cube.dtype.newbyteorder(">" if big else "<"))
    data.write_bytes(b"x" * skip + raw.tobytes())
    lines = [
        "ENVI", f"samples = {w}", f"lines   = {h}", f"bands   = {c}", f"header offset = {skip}",
        "file type = ENVI Standard", f"data type = {TYPES[cube.dtype.name]}", f"interleave = {interleave}",
        f"byte order = {int(big)}", *fields,
    ]  # fmt: skip
    header = header or data.with_suffix(".hdr")
    header.write_text("\n".join(lines) + "\n")
    return header


def write_tif(path: Path, cube: np.ndarray, **profile) -> Path:
    """A GeoTIFF from (C, H, W) by plain rasterio."""
    c, h, w = cube.shape
    place = {"crs": "EPSG:32633", "transform": Affine(10, 0, 500000, 0, -10, 5000000)}
    options = {"count": c, "height": h, "width": w, "dtype": cube.dtype.name, **place, **profile}
    with rasterio.open(path, "w", driver="GTiff", **options) as ds:
        ds.write(cube)
    return path


def integers(dtype="int16", shape=(3, 5, 4)) -> np.ndarray:
    return RNG.integers(1, 250, shape).astype(dtype)


def nm(*values: float, units="Nanometers") -> tuple[str, str]:
    return f"wavelength = {{{', '.join(map(str, values))}}}", f"wavelength units = {units}"


def scene(grid: Grid = GRID, bands: int = 3) -> tuple[np.ndarray, np.ndarray]:
    return RNG.random((bands, *grid.shape), dtype=np.float32), RNG.random(grid.shape) > 0.1


def write_cube(path, data, mask, grid=GRID, spectrum=SPECTRUM, step=256, **options) -> CubeWriter:
    """The cube in windows of `step`."""
    rows, cols = grid.shape
    how = {f.name: options.pop(f.name) for f in fields(Storage) if f.name in options}
    with CubeWriter(path, grid, spectrum, Storage(**how), **options) as writer:
        for r in range(0, rows, step):
            for c in range(0, cols, step):
                part = np.s_[r : r + step, c : c + step]
                window = Window(c, r, min(step, cols - c), min(step, rows - r))
                writer.write(window, data[:, *part], mask[part])
    return writer

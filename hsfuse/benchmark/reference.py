"""The reference of a scene as a file for `simulate`: as it is, or its window, rescaled, with wavelengths."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from rasterio.windows import Window

from hsfuse.benchmark.cases import Scene
from hsfuse.core.cube import Cube, Spectrum
from hsfuse.core.errors import InputError
from hsfuse.core.grid import Grid
from hsfuse.io import CubeWriter, open_cube
from hsfuse.io.arrays import ARRAY_SUFFIXES, read_reference
from hsfuse.io.fill import without_fill


def reference_file(scene: Scene, folder: Path) -> Path:
    """The scene's own file when nothing is to be done to it, else a GeoTIFF in `folder`."""
    changed = scene.window or scene.wavelengths_nm or scene.value_scale != 1
    if not changed and scene.reference.is_file() and not _is_array(scene):
        return scene.reference
    cube = _scaled(scene, _read(scene))
    path = folder / f"{scene.reference.stem}-cut.tif"
    rows, cols = cube.grid.shape
    with CubeWriter(path, cube.grid, cube.spectrum, overwrite=True) as writer:
        writer.write(Window(0, 0, cols, rows), cube.data, cube.mask)
    return path


def _is_array(scene: Scene) -> bool:
    return scene.reference.suffix.lower() in ARRAY_SUFFIXES


def _read(scene: Scene) -> Cube:
    window = None if scene.window is None else Window(*(scene.window[i] for i in (1, 0, 3, 2)))
    if _is_array(scene) or scene.reference.is_dir():
        return _read_array(scene, window)
    with open_cube(scene.reference) as reader:
        cube = without_fill(reader).read(window)
    return Cube(cube.data, cube.grid, _spectrum(scene, cube.spectrum, len(cube.data)), cube.mask)


def _read_array(scene: Scene, window: Window | None) -> Cube:
    data, nm = read_reference(scene.reference)
    if window is not None:
        row, col, rows, cols = scene.window or (0, 0, 0, 0)
        if row + rows > data.shape[1] or col + cols > data.shape[2]:
            raise InputError(f"the window {scene.window} isn't inside {scene.reference} ({data.shape[1:]} pixels)")
        data = data[:, row : row + rows, col : col + cols]
    spectrum = _spectrum(scene, Spectrum(None if nm is None else tuple(nm.tolist())), len(data))
    shape = (data.shape[1], data.shape[2])
    return Cube(np.ascontiguousarray(data), Grid(shape), spectrum, np.ones(shape, bool))


def _spectrum(scene: Scene, own: Spectrum, bands: int) -> Spectrum:
    """The file's own wavelengths, or the scene's evenly spaced ones."""
    if scene.wavelengths_nm is None:
        if own.wavelengths_nm is None:
            raise InputError(f"{scene.reference} has no wavelengths; give the scene `wavelengths_nm = [FIRST, LAST]`")
        return own
    return Spectrum(tuple(np.linspace(*scene.wavelengths_nm, bands).tolist()), good=own.good)


def _scaled(scene: Scene, cube: Cube) -> Cube:
    if scene.value_scale == "maximum":
        top = float(cube.data[:, cube.mask].max(initial=0))
        if top <= 0:
            raise InputError(f"{scene.reference}: no value above 0, so there is no maximum to divide by")
        return cube.with_data(cube.data / np.float32(top))
    return cube.with_data(cube.data * np.float32(scene.value_scale))

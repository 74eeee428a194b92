"""The LRHSI without the stripes of its detectors, where they clearly are."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np
from rasterio.windows import Window

from hsfuse.calibration.stripes import Stripes, estimate_stripes
from hsfuse.core.cube import BoolArray, FloatArray
from hsfuse.core.notes import Note, note
from hsfuse.io import CubeReader, usable_bands

#: Pixels that are looked at, at most, and rows of a strip.
LOOKED_AT, ROWS = 2**17, 16


def destriped(hsi: CubeReader) -> tuple[CubeReader, list[Note]]:
    """The reader with stripes along its own columns taken out, and a word on them; as it is where none are clear."""
    bands = np.flatnonzero(usable_bands(hsi)).tolist()
    found = estimate_stripes(partial(_strips, hsi, bands)) if bands else None
    if not found:
        return hsi, []
    values = np.zeros((hsi.count, hsi.grid.shape[1]), np.float32)
    values[bands] = found.values
    told = note("stripes-taken-out", bands=int(found.clear.sum()), count=len(bands), share=_share(found, hsi))
    return hsi.without_stripes(values), [told]


def _share(found: Stripes, hsi: CubeReader) -> float:
    """Share of the noise's variance that stripes are, in the median of the bands that have any."""
    beyond = found.times[found.clear] - 1
    rows = min(hsi.grid.shape[0], max(ROWS, LOOKED_AT // hsi.grid.shape[1]))
    return round(float(np.median(beyond / (beyond + rows))), 3)


def _strips(hsi: CubeReader, bands: list[int]) -> Iterator[tuple[FloatArray, BoolArray]]:
    """Whole rows, spread over the image where it is large."""
    rows, cols = hsi.grid.shape
    most = min(rows, max(ROWS, LOOKED_AT // cols))
    count = -(-most // ROWS)
    starts = range(0, rows, ROWS) if most == rows else np.linspace(0, rows - ROWS, count).round().astype(int)
    before = hsi.nonfinite
    try:
        for start in starts:
            cube = hsi.read(Window(0, int(start), cols, min(ROWS, rows - int(start))), bands)
            yield cube.data, cube.mask
    finally:
        hsi.nonfinite = before  # this look isn't part of the caller's reading

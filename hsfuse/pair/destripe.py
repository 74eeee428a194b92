"""The LRHSI without the stripes of its detectors and without their smile, where they clearly are."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np
from numpy.typing import NDArray
from rasterio.windows import Window
from scipy import sparse

from hsfuse.calibration.smile import estimate_smile
from hsfuse.calibration.stripes import estimate_stripes
from hsfuse.core.cube import BoolArray, FloatArray
from hsfuse.core.notes import Note, note
from hsfuse.io import CubeReader, usable_bands

#: Pixels that are looked at, at most, for stripes and for a smile, and rows of a strip.
LOOKED_AT, LOOKED_AT_SMILE, ROWS = 2**17, 2**13, 16


def destriped(hsi: CubeReader) -> tuple[CubeReader, list[Note]]:
    """The reader with stripes along its own columns and rows taken out, and a word on them; as it is without any."""
    bands = np.flatnonzero(usable_bands(hsi)).tolist()
    if not bands:
        return hsi, []
    whole = None if _looked_at(hsi) == hsi.grid.shape[0] else partial(_strips, hsi, bands, every=True)
    notes = []
    for found, along in zip(estimate_stripes(partial(_strips, hsi, bands), whole), ("columns", "rows"), strict=True):
        if found:
            values = np.zeros((hsi.count, found.values.shape[1]), np.float32)
            values[bands] = found.values
            hsi = hsi.without_stripes(values, along_rows=along == "rows")
            figures = {"bands": int(found.clear.sum()), "count": len(bands), "share": round(found.share, 3)}
            notes.append(note("stripes-taken-out", along=along, **figures))
    return hsi, notes


def unsmiled(hsi: CubeReader) -> tuple[CubeReader, list[Note]]:
    """The reader at its bands' nominal wavelengths, and a word on its smile; as it is where none is clear."""
    nm = hsi.spectrum.wavelengths_nm
    bands = np.flatnonzero(usable_bands(hsi)).tolist()
    if nm is None or not bands:
        return hsi, []
    columns, used = hsi.grid.shape[1], np.asarray(nm)[bands]
    found = estimate_smile(_halves(hsi, bands), used, columns)
    if not found:
        return hsi, []
    shifts, slope = np.zeros((hsi.count, columns)), sparse.lil_array((hsi.count, hsi.count))
    shifts[bands], slope[np.ix_(bands, bands)] = found.shifts_nm, found.slope
    moved = used[found.shifts_nm.any(1)]
    figures = {"nm": float(np.ptp(found.shifts_nm, axis=1).max()), "sd_nm": found.sd_nm}
    told = note("smile-taken-out", **figures, low=float(moved.min()), high=float(moved.max()))
    return hsi.without_smile(shifts.astype(np.float32), sparse.csr_array(slope)), [told]


def _halves(hsi: CubeReader, bands: list[int]) -> list[tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """Spectra (C, n) of valid pixels of the upper and of the lower half of the rows, and their columns' places (n,)."""
    columns = hsi.grid.shape[1]
    step = max(1, _looked_at(hsi) * columns // LOOKED_AT_SMILE)
    spectra, places, rows, row = [], [], [], 0
    for data, mask in _strips(hsi, bands):
        own, at = np.nonzero(mask)
        spectra.append(data[:, own[::step], at[::step]].astype(np.float64))
        places.append(2 * at[::step] / max(columns - 1, 1) - 1)
        rows.append(row + own[::step])
        row += len(mask)
    upper = np.concatenate(rows) < row / 2
    both, u = np.concatenate(spectra, 1), np.concatenate(places)
    return [(both[:, half], u[half]) for half in (upper, ~upper)]


def _looked_at(hsi: CubeReader) -> int:
    """Rows that are looked at."""
    rows, cols = hsi.grid.shape
    return int(min(rows, max(ROWS, LOOKED_AT // cols)))


def _strips(hsi: CubeReader, bands: list[int], every: bool = False) -> Iterator[tuple[FloatArray, BoolArray]]:
    """Whole rows, spread over the image where it is large and not `every` one is asked for."""
    (rows, cols), most = hsi.grid.shape, hsi.grid.shape[0] if every else _looked_at(hsi)
    count = -(-most // ROWS)
    starts = range(0, rows, ROWS) if most == rows else np.linspace(0, rows - ROWS, count).round().astype(int)
    before = hsi.nonfinite
    try:
        for start in starts:
            cube = hsi.read(Window(0, int(start), cols, min(ROWS, rows - int(start))), bands)
            yield cube.data, cube.mask
    finally:
        hsi.nonfinite = before  # this look isn't part of the caller's reading

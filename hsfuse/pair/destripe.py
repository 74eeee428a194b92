"""The LRHSI without the stripes of its detectors and without their smile, where they clearly are; dead ones mended."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product
from math import sqrt

import numpy as np
import torch
from numpy.typing import NDArray
from rasterio.windows import Window
from scipy import sparse
from scipy.ndimage import binary_opening

from hsfuse.calibration.smile import estimate_smile
from hsfuse.calibration.stripes import Stripes, estimate_stripes
from hsfuse.core.cube import BoolArray, FloatArray
from hsfuse.core.notes import Note, note
from hsfuse.io import CubeReader, usable_bands
from hsfuse.pair.mapping import PixelMap
from hsfuse.physics.degrade import shifted_axis
from hsfuse.physics.model import ObservationModel, gaussian_psf
from hsfuse.physics.solve import solve_spd

#: Pixels that are looked at, at most, for stripes and for a smile, and rows of a strip.
LOOKED_AT, LOOKED_AT_SMILE, ROWS = 2**17, 2**13, 16
#: A dead detector gives one value in so many rows at least, as do so many beside each other at most, so many errors of
#: what other bands tell of it away from that; and the ridge of what they tell, as a share of their mean variance.
DEAD_ROWS, DEAD_BESIDE, DEAD_ERRORS, RIDGE = 8, 2, 4.0, 1e-4
#: What is said of how much wider bands are at the swath's edges is more than this share of their spacing.
LEAST_BLUR = 0.25
#: HSI pixels of a strip that are held against the MSI at once, and by how many the two may lie apart; 0 comes first.
COLS, OFF = 128, (0.0, -0.5, 0.5, -1.0, 1.0)
#: Standard deviation (HSI pixels) of the PSF that stands in for one that isn't known yet, about that of most.
BLUR = 0.5


@dataclass(frozen=True)
class Shown:
    """How an MSI shows the ground of an HSI's lines: its `reader`, `bands`, and R `matrix` (c, C) on all HSI bands.

    `place` puts HSI pixels (row, column) onto the MSI's, of which `ratio` make an HSI pixel's side.
    """

    reader: CubeReader
    bands: Sequence[int]
    matrix: NDArray[np.float64]
    place: PixelMap
    ratio: int

    def explains(self, found: Stripes, hsi: CubeReader, used: list[int], rows: bool) -> bool:
        """Whether most of the stripes along rows or columns, of `used` bands, are what the MSI shows, too."""
        own, fine, counts = self._lines(hsi, rows)
        model = ObservationModel(np.eye(1), gaussian_psf(BLUR * self.ratio, self.ratio), self.ratio)
        told, runs = [], []
        for off in OFF:
            at, (look, _) = shifted_axis(model.psf.kernel.sum(0), off, slice(0, own.shape[1]), counts.size, model)
            weight = look @ counts[at]
            if not off:
                seen = np.flatnonzero(weight > 0.5 * weight.max())
                runs = [slice(int(run[0]), int(run[-1]) + 1) for run in _neighbours(seen)]
            if not runs:
                return False
            lines = fine[:, at] @ look.T / np.maximum(weight, 1e-9)
            told.append(found.shown_by(self.matrix[:, used], own, lines, runs))
        return max(told, key=lambda one: one.fit).is_ground

    def _lines(
        self, hsi: CubeReader, rows: bool
    ) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        """Means (c, n) of R x HSI along lines, and sums (c, m) and number (m,) of MSI pixels along finer ones.

        These are as many as MSI pixels lie across a line. Only what both images have counts.
        """
        s, (height, width) = self.ratio, hsi.grid.shape
        n, bands = height if rows else width, np.flatnonzero(self.matrix.any(0)).tolist()
        sums, fine = np.zeros((len(self.bands), n)), np.zeros((len(self.bands), n * s))
        own_counts, counts = np.zeros(n), np.zeros(n * s)
        before = hsi.nonfinite, self.reader.nonfinite
        for top, left in product(_starts(hsi, _looked_at(hsi)), range(0, width, COLS)):
            bottom, right = min(top + ROWS, height), min(left + COLS, width)
            places = [(np.arange(first * s, last * s) + 0.5) / s for first, last in ((top, bottom), (left, right))]
            data, mask = self._at(*self.place(places[0][:, None], places[1]))
            low = hsi.read(Window(left, top, right - left, bottom - top), bands)
            both = low.mask & mask.reshape(low.mask.shape[0], s, low.mask.shape[1], s).all((1, 3))
            mask = both.repeat(s, 0).repeat(s, 1)
            axis, first, last = (1, top, bottom) if rows else (0, left, right)
            sums[:, first:last] += (np.tensordot(self.matrix[:, bands], low.data, 1) * both).sum(1 + axis)
            fine[:, first * s : last * s] += (data * mask).sum(1 + axis)
            own_counts[first:last] += both.sum(axis)
            counts[first * s : last * s] += mask.sum(axis)
        hsi.nonfinite, self.reader.nonfinite = before
        return sums / np.maximum(own_counts, 1), fine, counts

    def _at(self, rows: NDArray[np.float64], cols: NDArray[np.float64]) -> tuple[FloatArray, BoolArray]:
        """MSI pixels at places (h, w), (c, h, w), 0 where the mask (h, w) says that there is none."""
        shape = self.reader.grid.shape
        mask = (rows >= 0) & (rows < shape[0]) & (cols >= 0) & (cols < shape[1])
        out = np.zeros((len(self.bands), *rows.shape), np.float32)
        if mask.any():
            r, c = rows[mask].astype(int), cols[mask].astype(int)
            box = Window(int(c.min()), int(r.min()), int(np.ptp(c)) + 1, int(np.ptp(r)) + 1)
            cube = self.reader.read(box, list(self.bands))
            place = r - box.row_off, c - box.col_off
            out[:, mask] = cube.data[:, *place] * cube.mask[place]
            mask[mask] = cube.mask[place]
        return out, mask


def _neighbours(lines: NDArray[np.intp]) -> list[NDArray[np.intp]]:
    """Lines (n,) in runs of neighbours."""
    return [run for run in np.split(lines, np.flatnonzero(np.diff(lines) > 1) + 1) if run.size]


def destriped(hsi: CubeReader, shown: Shown | None = None) -> tuple[CubeReader, list[Note]]:
    """The reader with stripes along its own columns and rows taken out, and a word on them; as it is without any.

    What an MSI has `shown` along the same lines isn't taken out. Dead detectors give what other bands tell of them.
    """
    bands = np.flatnonzero(usable_bands(hsi)).tolist()
    if not bands:
        return hsi, []
    hsi, notes = _mended(hsi, bands)
    whole = None if _looked_at(hsi) == hsi.grid.shape[0] else partial(_strips, hsi, bands, every=True)
    for found, along in zip(estimate_stripes(partial(_strips, hsi, bands), whole), ("columns", "rows"), strict=True):
        rows = along == "rows"
        if found and shown is not None and shown.explains(found, hsi, bands, rows):
            notes.append(note("stripes-are-ground", along=along))
        elif found:
            values = np.zeros((hsi.count, found.values.shape[1]), np.float32)
            values[bands] = found.values + found.within
            hsi = hsi.without_stripes(values, along_rows=rows)
            figures = {"bands": int(found.clear.sum()), "count": len(bands), "share": round(found.share, 3)}
            notes.append(note("stripes-taken-out", along=along, **figures))
    return hsi, notes


def _mended(hsi: CubeReader, bands: list[int]) -> tuple[CubeReader, list[Note]]:
    """The reader with dead detectors' values from a regression on bands that have none, and a word on them."""
    low, high = np.full((2, len(bands), hsi.grid.shape[1]), np.inf)
    rows = np.zeros(hsi.grid.shape[1])
    for data, mask in _strips(hsi, bands):
        low = np.minimum(low, np.where(mask, data, np.inf).min(1))
        high = np.minimum(high, np.where(mask, -data, np.inf).min(1))
        rows += mask.sum(0)
    still = (low == -high) & (rows >= DEAD_ROWS)
    still &= ~binary_opening(still, np.ones((1, DEAD_BESIDE + 1)))  # of ground without light, or a flat band
    columns, dead = still.any(0), still.any(1)
    if not columns.any() or dead.all() or columns.all():
        return hsi, []
    step = max(1, int(rows[~columns].sum()) // LOOKED_AT_SMILE)
    taken = [data[:, mask & ~columns][:, ::step] for data, mask in _strips(hsi, bands)]
    spectra = np.concatenate(taken, 1, dtype=np.float64)
    own, others = spectra[dead], spectra[~dead]
    normal, pull = (torch.from_numpy(one) for one in (others @ others.T, others @ own.T))
    weights = solve_spd(normal, pull, RIDGE).T.numpy()
    error = np.sqrt(np.square(own - weights @ others).mean(1))
    seen = [(np.tensordot(weights, data[~dead], 1) * mask).sum(1) for data, mask in _strips(hsi, bands)]
    away = np.abs(sum(seen) / np.maximum(rows, 1) - np.where(still, low, 0)[dead]) / error[:, None]
    still[dead] &= away > DEAD_ERRORS
    if not still.any():
        return hsi, []
    change = np.zeros((len(bands), len(bands)))
    change[np.ix_(dead, ~dead)] = -weights
    change[dead, dead] = 1
    figures = {"count": int(still.sum()), "columns": int(still.any(0).sum()), "bands": int(still.any(1).sum())}
    detectors, matrix = _of_all(still.astype(np.float64), change, hsi.count, bands)
    return hsi.without_smile([(detectors, sparse.csr_array(matrix))]), [note("detectors-mended", **figures)]


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
    moved = used[found.shifts_nm.any(1)]
    figures = {"nm": float(np.ptp(found.shifts_nm, axis=1).max()), "sd_nm": found.sd_nm}
    figures |= {"low": float(moved.min()), "high": float(moved.max())}
    shifts, slope = _of_all(found.shifts_nm, found.slope, hsi.count, bands)
    terms: list[tuple[FloatArray, sparse.csr_array | FloatArray]] = [(shifts, sparse.csr_array(slope))]
    blur = ""
    if found.bends_nm2.any():
        terms.append(_of_all(found.bends_nm2, found.bend, hsi.count, bands))
        most = float(found.blurs_nm2.flat[np.abs(found.blurs_nm2).argmax()])
        wide = sqrt(2 * abs(most))
        if wide > LEAST_BLUR * float(np.median(np.abs(np.diff(used)))):
            wider = "wider" if most > 0 else "narrower"
            blur = f" and are up to {wide:.1f} nm (a blur's standard deviation) {wider} at its edges"
    return hsi.without_smile(terms), [note("smile-taken-out", **figures, blur=blur)]


def _of_all(
    weights: NDArray[np.float64], matrix: NDArray[np.float64], count: int, bands: list[int]
) -> tuple[FloatArray, FloatArray]:
    """Weights (count, w) and a matrix (count, count) that are those given of some bands and 0 of all others."""
    all_weights, whole = np.zeros((count, weights.shape[1]), np.float32), np.zeros((count, count), np.float32)
    all_weights[bands], whole[np.ix_(bands, bands)] = weights, matrix
    return all_weights, whole


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


def _starts(hsi: CubeReader, most: int) -> list[int]:
    """First rows of strips, spread over the image where they aren't all of it."""
    rows = hsi.grid.shape[0]
    if most == rows:
        return list(range(0, rows, ROWS))
    return [int(start) for start in np.linspace(0, rows - ROWS, -(-most // ROWS)).round()]


def _strips(hsi: CubeReader, bands: list[int], every: bool = False) -> Iterator[tuple[FloatArray, BoolArray]]:
    """Whole rows, spread over the image where it is large and not `every` one is asked for."""
    (rows, cols), before = hsi.grid.shape, hsi.nonfinite
    try:
        for start in _starts(hsi, rows if every else _looked_at(hsi)):
            cube = hsi.read(Window(0, start, cols, min(ROWS, rows - start)), bands)
            yield cube.data, cube.mask
    finally:
        hsi.nonfinite = before  # this look isn't part of the caller's reading

"""The LRHSI without the stripes of its detectors and without their smile, where they clearly are.

Dead ones are mended, and single values that nothing around bears out.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
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
#: Bands of which one is told by the others, pairs of these that each do so (a wild one spoils two), and fewest pixels.
TELLING, PAIRS, LEAST_TOLD = 5, ((0, 1), (2, 3), (1, 2)), 64
#: A wild value lies so many of its band's ranges above or below it, as many away from what any pair tells, and so many
#: errors. A range is all but the outermost percent at both ends, and so large a share of the median band's at least; an
#: error is that of all but the outermost ones, and such a share of the range at least.
WILD_ABOVE, WILD_BELOW, OUTERMOST, LEAST_RANGE, WILD_ERRORS, LEAST_ERROR = 2.0, 1.0, 1, 0.1, 30.0, 0.01
#: Percentage of a normal distribution within so many deviations.
COMMON, COMMON_ERRORS = 98, 2.326
#: No object or line is so narrow that less than a share of it, and less than so many errors, shows next to it.
SPILT, SEEN_ERRORS = 0.03, 4.0
#: Steps (band, row, column) to what is next to a value: its two bands, its eight pixels.
NEXT = [(-1, 0, 0), (1, 0, 0), *((0, y, x) for y, x in product((-1, 0, 1), repeat=2) if y or x)]
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

    What an MSI has `shown` along the same lines isn't taken out. Dead detectors, and single wild values, give what
    other bands tell of them.
    """
    bands = np.flatnonzero(usable_bands(hsi)).tolist()
    if not bands:
        return hsi, []
    hsi, tamed = _tamed(hsi, bands)
    hsi, notes = _mended(hsi, bands)
    notes = tamed + notes
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


@dataclass(frozen=True)
class _Around:
    """What tells each band's values: `others` (C, 4) about it, and for each of `PAIRS` of these its `weights` (p, C, 2)
    and the `error` (p, C) that these leave. `middle` is a band's median, its values most often lie between `low` and
    `high`, which are a `range` apart, (C,) each."""

    low: NDArray[np.float64]
    middle: NDArray[np.float64]
    high: NDArray[np.float64]
    range: NDArray[np.float64]
    others: NDArray[np.intp]
    weights: NDArray[np.float64]
    error: NDArray[np.float64]

    @classmethod
    def of(cls, spectra: NDArray[np.float64]) -> _Around:
        """Of spectra (C, n), whatever single values of them are."""
        bands = np.arange(len(spectra))[:, None]
        low, middle = np.percentile(spectra, (OUTERMOST, 50), axis=1, method="higher")
        high = np.percentile(spectra, 100 - OUTERMOST, axis=1, method="lower")
        near = np.clip(bands - TELLING // 2, 0, len(spectra) - TELLING) + np.arange(TELLING)
        others = near[near != bands].reshape(-1, TELLING - 1)
        inside = torch.from_numpy(np.clip(spectra, low[:, None], high[:, None]) - middle[:, None])
        seen = [inside[others[:, pair]] for pair in PAIRS]
        weights = [solve_spd(x @ x.mT, x @ inside[..., None], RIDGE)[..., 0].numpy() for x in seen]
        own = np.maximum(high - low, LEAST_RANGE * np.median(high - low))
        found = cls(low, middle, high, own, others, np.stack(weights), np.ones((len(PAIRS), len(spectra))))
        left = [np.abs(spectra[band] - found.told(spectra, band)) for band in bands[:, 0]]
        error = np.percentile(left, COMMON, axis=2).T / COMMON_ERRORS
        return replace(found, error=np.maximum(error, LEAST_ERROR * own))

    def told(self, data: NDArray[np.floating], *at: NDArray[np.intp] | np.intp) -> NDArray[np.float64]:
        """What each pair tells of values of data (C, ...), at a band, a row and a column (n,) for instance: (p, n)."""
        band, *place = at
        others = self.others[band].T
        around = (data[others, *place].T - self.middle[others].T).T
        return np.stack(
            [
                self.middle[band] + (around[list(pair)].T * weights[band]).T.sum(0)
                for pair, weights in zip(PAIRS, self.weights, strict=True)
            ]
        )

    def away(self, data: FloatArray, *at: NDArray[np.intp]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """How far values at bands, rows and columns lie from what the nearest pair tells, and in errors of it: (n,)."""
        left = np.abs(data[at] - self.told(data, *at))
        errors = left / self.error[:, at[0]]
        nearest = errors.argmin(0), np.arange(errors.shape[1])
        return left[nearest], errors[nearest]

    def wild(self, data: FloatArray, mask: BoolArray) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
        """Row, column and band (3, n) of values of a strip (C, h, w) that none around bears out, and what these tell.

        A bright roof lights up all bands, a lamp's line its neighbours, and either the pixels next to it.
        """
        ends = self.low - WILD_BELOW * self.range, self.high + WILD_ABOVE * self.range
        low, high = (end.astype(np.float32)[:, None, None] for end in ends)
        at = np.nonzero(((data < low) | (data > high)) & mask)
        left, errors = self.away(data, *at)
        least = np.where(data[at] < self.low[at[0]], WILD_BELOW, WILD_ABOVE) * self.range[at[0]]
        kept = (errors > WILD_ERRORS) & (left > least)
        at, left = tuple(v[kept] for v in at), left[kept]
        alone = np.ones(left.size, bool)
        for step in NEXT:
            there = [np.clip(v + by, 0, n - 1) for v, by, n in zip(at, step, data.shape, strict=True)]
            known = mask[*there[1:]] & np.any([v != own for v, own in zip(there, at, strict=True)], axis=0)
            spilt, clear = self.away(data, *there)
            alone &= ~(known & (spilt > SPILT * left) & (clear > SEEN_ERRORS))
        at = tuple(v[alone] for v in at)
        return np.stack([at[1], at[2], at[0]]), np.median(self.told(data, *at), axis=0)


def _tamed(hsi: CubeReader, bands: list[int]) -> tuple[CubeReader, list[Note]]:
    """The reader with what other bands tell in place of single wild values, and a word on them."""
    (rows, cols), step = hsi.grid.shape, max(1, _looked_at(hsi) * hsi.grid.shape[1] // LOOKED_AT_SMILE)
    spectra = np.concatenate([data[:, mask][:, ::step] for data, mask in _strips(hsi, bands)], 1, dtype=np.float64)
    if len(bands) < TELLING or spectra.shape[1] < LEAST_TOLD:
        return hsi, []
    around, places, values, before = _Around.of(spectra), [], [], hsi.nonfinite
    for start in range(0, rows, ROWS):
        top = max(0, start - 1)  # what lies next to a strip's pixels is looked at, too
        cube = hsi.read(Window(0, top, cols, min(start + ROWS + 1, rows) - top), bands)
        found, told = around.wild(cube.data, cube.mask)
        found[0] += top
        own = (found[0] >= start) & (found[0] < start + ROWS)
        places.append(found[:, own])
        values.append(told[own])
    hsi.nonfinite = before  # this look isn't part of the caller's reading
    at, told = np.concatenate(places, 1), np.concatenate(values)
    if not told.size:
        return hsi, []
    at[2] = np.array(bands)[at[2]]
    figures = {"count": told.size, "bands": len(set(at[2].tolist()))}
    return hsi.with_values(at, told.astype(np.float32)), [note("values-mended", **figures)]


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
    return hsi.without_detector_errors([(detectors, sparse.csr_array(matrix))]), [note("detectors-mended", **figures)]


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
    return hsi.without_detector_errors(terms), [note("smile-taken-out", **figures, blur=blur)]


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

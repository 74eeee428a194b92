"""The work on the pixels: one pass over the high-res images, one over the low-res ones, tile by tile."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from math import ceil, isqrt, sqrt

import numpy as np
import torch
from numpy.typing import NDArray
from rasterio.windows import Window
from tqdm import tqdm

from hsfuse.assessment.indices import LEAST_REFLECTANCE, IndexSums
from hsfuse.assessment.inputs import Inputs, MsiSource, Observed, Source
from hsfuse.assessment.result import Floats
from hsfuse.core.cube import Cube
from hsfuse.metrics import NoReferenceMetrics, ReferenceMetrics, Tile, rmse_map, sam_map, tiles
from hsfuse.physics.degrade import reach, seen

Bools = NDArray[np.bool_]

#: Longest side of maps and pictures, in pixels.
MAX_SIDE = 600
#: Room for sampled spectra in a report, in bytes of its text, and most points whatever their size.
SPECTRA_BYTES, MOST_POINTS = 3_000_000, 10_000


class BlockMeans:
    """Means of n planes over blocks of step x step of an image (height, width)."""

    def __init__(self, planes: int, shape: tuple[int, int], max_side: int = MAX_SIDE) -> None:
        self.step = max(1, ceil(max(shape) / max_side))
        small = (ceil(shape[0] / self.step), ceil(shape[1] / self.step))
        self._sums, self._counts = np.zeros((planes, *small)), np.zeros(small)

    def add(self, row: int, col: int, values: Floats, valid: Bools) -> None:
        """Add a tile (n, rows, cols) at (row, col); only `valid` (rows, cols) finite pixels count."""
        valid = valid & np.isfinite(values).all(axis=0)
        where = (slice(row // self.step, None), slice(col // self.step, None))
        sums = self._blocks(row, col, np.where(valid, values, 0).astype(np.float64))
        self._sums[:, *where][:, : sums.shape[1], : sums.shape[2]] += sums
        self._counts[where][: sums.shape[1], : sums.shape[2]] += self._blocks(row, col, valid.astype(np.float64)[None])[
            0
        ]

    def _blocks(self, row: int, col: int, values: Floats) -> Floats:
        for axis, first in ((1, row), (2, col)):
            block = (first + np.arange(values.shape[axis])) // self.step
            values = np.add.reduceat(values, np.flatnonzero(np.diff(block, prepend=-1)), axis=axis)
        return values

    def mean(self) -> Floats:
        """The means (n, rows, columns), float32; NaN where no pixel was valid."""
        out = np.full(self._sums.shape, np.nan)
        np.divide(self._sums, self._counts, out=out, where=self._counts > 0)
        return out.astype(np.float32)


class PointSampler:
    """Spectra (n, C) of an image at n pixels."""

    def __init__(self, bands: int, rows: NDArray[np.int64], cols: NDArray[np.int64]) -> None:
        self._rows, self._cols = rows, cols
        self.values = np.full((rows.size, bands), np.nan, np.float32)

    def add(self, row: int, col: int, data: Floats, valid: Bools) -> None:
        """Take the points that lie in a tile (C, rows, cols) at (row, col); invalid ones stay NaN."""
        r, c = self._rows - row, self._cols - col
        here = np.flatnonzero((r >= 0) & (r < valid.shape[0]) & (c >= 0) & (c < valid.shape[1]))
        here = here[valid[r[here], c[here]]]
        self.values[here] = data[:, r[here], c[here]].T


def points_for(values: int) -> int:
    """How many points fit the report, of so many values each: 16 bits, three bytes are four of text."""
    return max(1, min(MOST_POINTS, SPECTRA_BYTES * 3 // (4 * 2 * max(1, values))))


def point_grid(shape: tuple[int, int], ratio: int, count: int) -> tuple[NDArray, NDArray]:
    """HR rows and columns (n,) of an even grid of at most `count` points.

    In the middle of LR pixels where there are no more points than those (ratio 1: any pixels).
    """
    step = max(1.0, sqrt(shape[0] * shape[1] / count))
    unit = ratio if step >= ratio else 1
    cells = [max(1, length // unit) for length in shape]
    short = min(min(cells), max(1, int(min(shape) / step)))
    numbers = [short, min(max(cells), max(1, count // short))]
    axes = []
    for length, known, number in zip(shape, cells, numbers if shape[0] <= shape[1] else numbers[::-1], strict=True):
        chosen = ((np.arange(number) + 0.5) * known / number).astype(np.int64)
        axes.append(np.minimum(chosen * unit + unit // 2, length - 1))
    rows, cols = np.meshgrid(*axes, indexing="ij")
    return rows.ravel(), cols.ravel()


def choose_points(spectra: Floats, count: int = 5) -> tuple[int, ...]:
    """Indices of up to `count` of the spectra (n, C) that stand for the kinds of surface there, commonest first.

    Lloyd's k-means started from the spectra farthest from each other; each kind is represented by the spectrum nearest
    its mean. Spectra with NaN take no part. Deterministic.
    """
    known = np.flatnonzero(np.isfinite(spectra).all(axis=1))
    if known.size == 0:
        return ()
    x = spectra[known].astype(np.float64)
    centres = _spread(x, min(count, known.size))
    for _ in range(20):
        label = _distance(x, centres).argmin(axis=1)
        centres = np.array([x[label == k].mean(axis=0) if (label == k).any() else c for k, c in enumerate(centres)])
    distance = _distance(x, centres)
    sizes = np.bincount(distance.argmin(axis=1), minlength=len(centres))
    nearest = [int(known[distance[:, k].argmin()]) for k in np.argsort(-sizes, kind="stable")]
    return tuple(dict.fromkeys(nearest))


def _spread(x: Floats, count: int) -> Floats:
    """`count` rows of x, each the farthest from those before; the first is the nearest to the mean."""
    picked = [int(((x - x.mean(axis=0)) ** 2).sum(axis=1).argmin())]
    while len(picked) < count:
        picked.append(int(_distance(x, x[picked]).min(axis=1).argmax()))
    return x[picked]


def _distance(x: Floats, centres: Floats) -> Floats:
    """Squared distances (n, k)."""
    return ((x[:, None] - centres[None]) ** 2).sum(axis=2)


#: Values (pixels x bands) of one cube held at a time: 64 MB of float32.
VALUES_AT_ONCE = 2**24
#: Side of the blocks in which GeoTIFFs are usually stored.
BLOCK = 256


class Collectors:
    """Everything small that is gathered on the way: maps, display bands, spectra."""

    def __init__(
        self, inputs: Inputs, points: tuple[np.ndarray, np.ndarray], display: dict[str, tuple[int, ...]]
    ) -> None:
        rows, cols = points
        ratio = inputs.observed.ratio if inputs.observed else 1
        low = (inputs.shape[0] // ratio, inputs.shape[1] // ratio)
        self.display = display
        self.maps = {
            name: BlockMeans(1, low if name.startswith("hsi_") else inputs.shape) for name in map_names(inputs)
        }
        self.views = {
            image: BlockMeans(len(b), low if image == "LRHSI" else inputs.shape) for image, b in display.items()
        }
        self.points = {"fused": PointSampler(len(inputs.fused.bands), rows, cols)}
        if inputs.reference:
            self.points["reference"] = PointSampler(len(inputs.fused.bands), rows, cols)
        if inputs.observed:
            self.points["LRHSI"] = PointSampler(len(inputs.fused.bands), rows // ratio, cols // ratio)
            self.points["MSI"] = PointSampler(len(inputs.observed.msi_names), rows, cols)
        nm = inputs.wavelengths_nm if inputs.has_wavelengths else np.array([np.inf])
        least = LEAST_REFLECTANCE if inputs.unit.quantity == "reflectance" else 0.0
        self.indices = {image: IndexSums(nm, image, least) for image in ("reference", "LRHSI") if image in self.points}

    def image(self, name: str, row: int, col: int, cube: Floats, valid: np.ndarray) -> None:
        """Note the core of a tile (C, rows, cols) of one image."""
        self.points[name].add(row, col, cube, valid)
        if name in self.views:
            self.views[name].add(row, col, cube[list(self.display[name])], valid)

    def map(self, name: str, row: int, col: int, values: Floats) -> None:
        """Note a tile (rows, cols) of a map; NaN where invalid."""
        self.maps[name].add(row, col, values[None], np.isfinite(values))


def map_names(inputs: Inputs) -> list[str]:
    """Maps that can be made from what there is; those that begin with hsi_ are on the LRHSI's grid."""
    return (
        (["rmse"] if inputs.reference else [])
        + (["expected_error"] if inputs.expected else [])
        + (["sam"] if inputs.reference else [])
        + (["hsi_rmse", "hsi_sam"] if inputs.observed else [])
        + (["msi_rmse"] if inputs.observed and inputs.observed.msi_names else [])
    )


def largest_value(source: Source, shape: tuple[int, int], side: int | None) -> float:
    """Largest valid value of an image (H, W) in any band; -inf when nothing is valid."""
    highest = -np.inf
    for tile in tiles(*shape, side or _side(len(source.bands), 0), 0):
        cube = source.read(_window(tile))
        if cube.mask.any():
            highest = max(highest, float(cube.data[:, cube.mask].max()))
    return highest


def _bar(pieces: Iterable[Tile]) -> Iterable[Tile]:
    """The tiles, with a progress bar on a terminal."""
    return tqdm(list(pieces), desc="assessing", unit="tile", disable=None, leave=False)


def _side(bands: int, halo: int) -> int:
    """Side of a tile that with its halo about fits the budget, in whole blocks so that files aren't decoded again."""
    return max(1, (isqrt(VALUES_AT_ONCE // max(1, bands)) - halo) // BLOCK) * BLOCK


def _window(tile: Tile) -> Window:
    return Window(tile.col, tile.row, tile.read_cols, tile.read_rows)


def high_pass(
    inputs: Inputs,
    reference: ReferenceMetrics | None,
    without: NoReferenceMetrics | None,
    into: Collectors,
    side: int | None,
) -> int:
    """Feed the fused cube with reference and MSI to the accumulators; returns the count of valid fused pixels."""
    halo = max([m.halo for m in (reference, without) if m is not None])
    count = 0
    for tile in _bar(tiles(*inputs.shape, side or _side(len(inputs.fused.bands), halo), halo)):
        fused = inputs.fused.read(_window(tile))
        core = slice(0, tile.rows), slice(0, tile.cols)
        into.image("fused", tile.row, tile.col, fused.data[:, *core], fused.mask[core])
        count += int(fused.mask[core].sum())
        if inputs.expected is not None:
            told = inputs.expected.read(Window(tile.col, tile.row, tile.cols, tile.rows))
            known = told.mask & fused.mask[core]
            into.map("expected_error", tile.row, tile.col, np.where(known, told.data[0], np.nan))
        if reference is not None and inputs.reference is not None:
            _with_reference(tile, fused, inputs.reference.read(_window(tile)), reference, into)
        if without is not None and inputs.observed is not None:
            _with_msi(tile, fused, inputs.observed, without, into)
    return count


def _with_reference(tile: Tile, fused: Cube, truth: Cube, metrics: ReferenceMetrics, into: Collectors) -> None:
    mask, core = fused.mask & truth.mask, (slice(0, tile.rows), slice(0, tile.cols))
    metrics.update(fused.data, truth.data, mask, tile)
    x, y, valid = fused.data[:, *core], truth.data[:, *core], mask[core]
    into.image("reference", tile.row, tile.col, y, truth.mask[core])
    into.indices["reference"].add(x, y, valid)
    into.map("sam", tile.row, tile.col, sam_map(x, y, valid))
    into.map("rmse", tile.row, tile.col, rmse_map(x, y, valid))


def _with_msi(tile: Tile, fused: Cube, observed: Observed, metrics: NoReferenceMetrics, into: Collectors) -> None:
    msi = observed.high.read(_window(tile))
    mask, core = fused.mask & msi.mask, (slice(0, tile.rows), slice(0, tile.cols))
    synthesised = _spectral(observed, fused.data)
    metrics.update_high(fused.data, synthesised, msi.data, mask, tile)
    into.image("MSI", tile.row, tile.col, msi.data[:, *core], msi.mask[core])
    if observed.msi_names:
        into.map("msi_rmse", tile.row, tile.col, rmse_map(synthesised[:, *core], msi.data[:, *core], mask[core]))


def low_pass(inputs: Inputs, metrics: NoReferenceMetrics, into: Collectors, side: int | None) -> None:
    """Feed the degraded fused cube with the LRHSI, and the degraded MSI, to the accumulators."""
    observed = inputs.observed
    assert observed is not None
    s = observed.ratio
    shape = (inputs.shape[0] // s, inputs.shape[1] // s)
    for tile in _bar(tiles(*shape, max(1, side // s) if side else 64, metrics.halo)):
        window = _window(tile)
        lrhsi = observed.low.read(window)
        degraded, valid = _degraded(observed, inputs.fused, window, shape)
        msi, msi_valid = _degraded(observed, observed.high, window, shape)
        mask, core = lrhsi.mask & valid & msi_valid, (slice(0, tile.rows), slice(0, tile.cols))
        synthesised = _spectral(observed, lrhsi.data)
        metrics.update_low(degraded, lrhsi.data, synthesised, msi, mask, tile)
        x, y = degraded[:, *core], lrhsi.data[:, *core]
        into.indices["LRHSI"].add(x, y, mask[core])
        into.image("LRHSI", tile.row, tile.col, y, lrhsi.mask[core])
        into.map("hsi_rmse", tile.row, tile.col, rmse_map(x, y, mask[core]))
        into.map("hsi_sam", tile.row, tile.col, sam_map(x, y, mask[core]))


def _spectral(observed: Observed, cube: Floats) -> Floats:
    with torch.no_grad():
        return observed.model.spectral(torch.from_numpy(cube)[None])[0].numpy()


def _degraded(
    observed: Observed, source: Source | MsiSource, window: Window, shape: tuple[int, int]
) -> tuple[Floats, np.ndarray]:
    """An image of the high grid degraded to a window of the low grid of `shape`: (C, h, w) and validity (h, w)."""
    around, _ = reach(observed.model, window, shape)
    parts, valid = [], np.ones((int(window.height), int(window.width)), bool)
    for bands in _chunks(len(source.bands), int(around.height * around.width)):
        data, mask = seen(observed.model, partial(source.read, bands=bands), window, shape)
        parts.append(data)
        valid &= mask
    return np.concatenate(parts) if parts else np.zeros((0, *valid.shape), np.float32), valid


def _chunks(bands: int, pixels: int) -> Iterator[Sequence[int]]:
    """Runs of bands that fit the budget at this many pixels."""
    step = max(1, VALUES_AT_ONCE // pixels)
    for start in range(0, bands, step):
        yield range(start, min(start + step, bands))

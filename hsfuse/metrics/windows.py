"""Tiles with a halo, validity, and sliding and block windows: what every metric accumulator shares.

A window (sliding or block) is known by its top-left pixel and belongs to the tile whose core holds that pixel. So a
tile needs a halo only below and to the right, every window counts exactly once, and no result depends on the tiling.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from hsfuse.core.errors import InputError
from hsfuse.core.notes import Note, note

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Tile:
    """A core of `rows` x `cols` at (`row`, `col`), read as `read_rows` x `read_cols` from the same corner."""

    row: int
    col: int
    rows: int
    cols: int
    read_rows: int
    read_cols: int


def tiles(height: int, width: int, size: int, halo: int) -> Iterator[Tile]:
    """Tiles of at most `size` x `size` covering (height, width), each with `halo` more below and to the right."""
    for row in range(0, height, size):
        for col in range(0, width, size):
            rows, cols = min(size, height - row), min(size, width - col)
            yield Tile(row, col, rows, cols, min(rows + halo, height - row), min(cols + halo, width - col))


@dataclass(frozen=True)
class View:
    """Where a tile lies in its image (height, width) and which of its pixels, halo included, are valid."""

    tile: Tile
    valid: Array
    image: tuple[int, int]
    dropped: int

    @property
    def core(self) -> tuple[slice, slice]:
        """The tile's own pixels, without the halo."""
        return slice(0, self.tile.rows), slice(0, self.tile.cols)

    @cached_property
    def core_valid(self) -> Array:
        """Valid pixels of the core (rows, cols)."""
        return self.valid[self.core]

    def window_ok(self, side: int) -> Array:
        """Top-left positions of the core whose window of side x side lies in the image and is wholly valid."""
        if side > min(self.valid.shape):
            return np.zeros((0, 0), bool)
        return (window_sums(self.valid.astype(np.int32), side) == side**2)[self.core]

    def blocks(self, size: int) -> Iterator[tuple[slice, slice]]:
        """Wholly valid size x size blocks (of `block_starts`) whose top-left pixel lies in the core."""
        tile = self.tile
        for row in _inside(block_starts(self.image[0], size), tile.row, tile.rows):
            for col in _inside(block_starts(self.image[1], size), tile.col, tile.cols):
                block = slice(row, row + size), slice(col, col + size)
                if self.valid[block].all():
                    yield block


def _inside(starts: Sequence[int], first: int, length: int) -> list[int]:
    return [start - first for start in starts if first <= start < first + length]


def block_starts(length: int, size: int) -> list[int]:
    """First pixels of the fewest blocks of `size` that cover `length`, evenly spread.

    They are disjoint where `length` is a multiple of `size` and overlap a little otherwise: no pixel is left unseen.
    """
    count = -(-length // size)
    return [0] if count == 1 else [i * (length - size) // (count - 1) for i in range(count)]


def fit_window(window: int, *images: tuple[int, int]) -> int:
    """`window`, or the shortest side of the images where that is smaller."""
    return min(window, *(side for image in images for side in image))


def make_view(
    cubes: Sequence[Array], mask: Array | None, tile: Tile | None, image: tuple[int, int], halo: int = 0
) -> View:
    """View of a tile, valid where all cubes (C, h, w) are finite and `mask` (h, w) is True; no `tile`: whole image.

    Raises InputError for cubes or a mask of another size than the tile.
    """
    tile = tile or Tile(0, 0, *image, *image)
    _check_sizes(cubes, mask, tile, image, halo)
    wanted = np.ones(cubes[0].shape[1:], bool) if mask is None else mask.astype(bool)
    valid = wanted.copy()
    for cube in cubes:
        for plane in cube:
            valid &= np.isfinite(plane)
    core = slice(0, tile.rows), slice(0, tile.cols)
    return View(tile, valid, image, int(np.count_nonzero(wanted[core] & ~valid[core])))


def _check_sizes(cubes: Sequence[Array], mask: Array | None, tile: Tile, image: tuple[int, int], halo: int) -> None:
    read = tile.read_rows, tile.read_cols
    needed = (min(tile.rows + halo, image[0] - tile.row), min(tile.cols + halo, image[1] - tile.col))
    if read[0] < needed[0] or read[1] < needed[1]:
        raise ValueError(f"the tile holds {read} pixels, wanted {needed}: its halo must be {halo} below and right")
    for found in [cube.shape[1:] for cube in cubes] + ([] if mask is None else [mask.shape]):
        if tuple(found) != read:
            raise InputError(f"found {tuple(found)} rows and columns where {read} were wanted; put both on one grid")


@dataclass(frozen=True)
class Pair:
    """A tile of two cubes (C, h, w) to compare, with their common validity."""

    view: View
    fused: Array
    reference: Array

    def planes(self, band: int) -> tuple[Array, Array]:
        """Both planes (h, w) of a band in float64; invalid pixels are 0."""
        return self._filled(self.fused[band]), self._filled(self.reference[band])

    def pixels(self, band: int) -> tuple[Array, Array]:
        """The valid core pixels (n,) of a band in float64."""
        core, ok = self.view.core, self.view.core_valid
        return self.fused[band][core][ok].astype(np.float64), self.reference[band][core][ok].astype(np.float64)

    def _filled(self, plane: Array) -> Array:
        return np.where(self.view.valid, plane, 0).astype(np.float64)


def make_pair(
    fused: Array, reference: Array, mask: Array | None, tile: Tile | None, image: tuple[int, int], halo: int = 0
) -> Pair:
    """Pair of one tile; raises InputError where the two cubes differ in bands, rows or columns."""
    if fused.shape[0] != reference.shape[0]:
        raise InputError(
            f"found {fused.shape[0]} and {reference.shape[0]} bands; both cubes must have the same bands to be compared"
        )
    return Pair(make_view([fused, reference], mask, tile, image, halo), fused, reference)


def window_sums(plane: Array, rows: int, cols: int | None = None) -> Array:
    """Sums over all rows x cols windows of a plane (h, w) -> (h - rows + 1, w - cols + 1), by window doubling.

    Doubling adds only values of the window itself: unlike running sums it cancels nothing, so a sum is the same to the
    last bit wherever the tile begins.
    """
    return _run_sums(_run_sums(plane, rows).T, rows if cols is None else cols).T


def _run_sums(plane: Array, length: int) -> Array:
    positions = plane.shape[0] - length + 1
    total: Array | None = None
    power, width, done = plane, 1, 0
    while True:
        if length & width:
            piece = power[done : done + positions]
            total = piece if total is None else total + piece
            done += width
        width *= 2
        if width > length:
            assert total is not None
            return total
        power = power[: -width // 2] + power[width // 2 :]


@dataclass
class MetricResult:
    """Metric values by catalogue key, None where undefined; curves over the bands (C,), NaN where undefined; notes."""

    pixels: int
    values: dict[str, float | None] = field(default_factory=dict)
    per_band: dict[str, Array] = field(default_factory=dict)
    notes: list[Note] = field(default_factory=list)

    def put(self, key: str, value: float, reason: str) -> None:
        """Store a value; NaN becomes None, and the `reason` a note."""
        self.values[key] = None if np.isnan(value) else float(value)
        if np.isnan(value):
            self.notes.append(note("metric-undefined", metric=key, reason=reason))

    def put_curve(self, key: str, curve: Array, why_left_out: str) -> None:
        """Store a per-band curve and its mean over the bands where it is defined; say how many are left out."""
        self.per_band[key] = curve
        self.put(key, band_mean(curve), why_left_out)
        left_out = int(np.isnan(curve).sum())
        if 0 < left_out < curve.size:
            told = {"metric": key, "left_out": left_out, "bands": curve.size, "reason": why_left_out}
            self.notes.append(note("metric-bands-left-out", **told))


def band_mean(curve: Array) -> float:
    """Mean of a per-band curve (C,) over the bands where it isn't NaN; NaN without any."""
    kept = curve[~np.isnan(curve)]
    return float(kept.mean()) if kept.size else float("nan")

"""Tiles for scenes larger than memory: what each tile reads, how tiles blend, what each one finishes.

Along each axis tiles start every `stride` pixels. A tile fuses its support, `stride + overlap` pixels, read with a
`halo` of context on each side. In the overlap of two supports their weights are a linear ramp, so that the weights of
all tiles sum to one everywhere.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from rasterio.windows import Window

from hsfuse.cube import BoolArray, FloatArray
from hsfuse.errors import SettingError


@dataclass(frozen=True)
class Span:
    """One tile along one axis, in HR pixels: `read` with halo, `support` that is blended, and overlaps at both ends."""

    read: tuple[int, int]
    support: tuple[int, int]
    before: int
    after: int

    @property
    def finished(self) -> tuple[int, int]:
        """What needs no later tile: the support less the overlap at its end."""
        return self.support[0], self.support[1] - self.after

    def ramp(self) -> FloatArray:
        """Weights over the support (n,)."""
        weight = np.ones(self.support[1] - self.support[0], np.float32)
        up = (np.arange(self.before, dtype=np.float32) + 0.5) / max(self.before, 1)
        down = 1 - (np.arange(self.after, dtype=np.float32) + 0.5) / max(self.after, 1)
        weight[: self.before] *= up
        weight[len(weight) - self.after :] *= down
        return weight


@dataclass(frozen=True)
class TileGrid:
    """Tiles over `shape` (H, W) HR pixels at scale s: `stride`, `overlap` and `halo` in HR pixels, multiples of s."""

    shape: tuple[int, int]
    scale: int
    stride: int
    overlap: int
    halo: int

    def __post_init__(self) -> None:
        bad = [n for n in ("stride", "overlap", "halo") if getattr(self, n) % self.scale or getattr(self, n) < 0]
        if bad or self.stride < max(self.overlap, self.scale):
            raise SettingError(
                f"a tile of {self.stride} pixels with overlap {self.overlap} and halo {self.halo}: wanted multiples of "
                f"the scale {self.scale}, the tile no smaller than the overlap"
            )

    def spans(self, axis: int) -> list[Span]:
        """Tiles along rows (axis 0) or columns (axis 1); a last tile smaller than the overlap joins the one before."""
        size, spans = self.shape[axis], []
        starts = list(range(0, size, self.stride))
        if len(starts) > 1 and size - starts[-1] <= self.overlap:
            starts.pop()
        for i, start in enumerate(starts):
            last = i == len(starts) - 1
            stop = size if last else starts[i + 1] + self.overlap
            read = max(0, start - self.halo), min(size, stop + self.halo)
            spans.append(Span(read, (start, stop), self.overlap if i else 0, 0 if last else self.overlap))
        return spans

    def __len__(self) -> int:
        return len(self.spans(0)) * len(self.spans(1))


def window_of(rows: tuple[int, int], cols: tuple[int, int], divide: int = 1) -> Window:
    """Half-open pixel ranges as a rasterio window, on a grid `divide` times coarser."""
    (r0, r1), (c0, c1) = (tuple(v // divide for v in span) for span in (rows, cols))
    return Window(c0, r0, c1 - c0, r1 - r0)


class Blender:
    """Adds weighted tiles row by row and hands out what is finished.

    Kept in memory: the overlap rows below the current row of tiles (C, overlap, W) and the overlap columns right of
    the current tile, nothing that grows with the scene's height.
    """

    def __init__(self, tiles: TileGrid, bands: int) -> None:
        self._below = np.zeros((bands, tiles.overlap, tiles.shape[1]), np.float32)
        self._right: FloatArray | None = None

    def add(self, rows: Span, cols: Span, data: FloatArray) -> FloatArray:
        """Fused support (C, n, m) of the tile at (rows, cols), in row-major order, to its finished part.

        `data` is used up: it is weighted in place.
        """
        part = data
        part *= rows.ramp()[:, None] * cols.ramp()
        if cols.before and self._right is not None:
            part[:, :, : cols.before] += self._right
        width = cols.finished[1] - cols.finished[0]
        self._right = part[:, :, width:].copy()
        done = part[:, :, :width]
        c0, c1 = cols.finished
        if rows.before:
            done[:, : rows.before] += self._below[:, :, c0:c1]
        height = rows.finished[1] - rows.finished[0]
        if rows.after:
            self._below[:, :, c0:c1] = done[:, height:]
        return done[:, :height]


def tile_pairs(tiles: TileGrid) -> Iterator[tuple[Span, Span]]:
    """All tiles, row by row."""
    for rows in tiles.spans(0):
        for cols in tiles.spans(1):
            yield rows, cols


def lr_mask_to_hr(mask: BoolArray, s: int) -> BoolArray:
    """A mask of LR pixels on the HR grid: (h, w) -> (s h, s w)."""
    return mask.repeat(s, 0).repeat(s, 1)

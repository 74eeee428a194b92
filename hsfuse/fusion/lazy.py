"""A fused cube as a Dask array: a graph of tile batches, whose pixels are those that one process streams to a file.

A batch is a few neighbours of one row of tiles. One task fuses it from the chunks of the inputs that it needs, one cuts
out the edges that its neighbours overlap with, one adds the neighbours' edges: in the order in which `Blender` adds.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from threading import Lock
from typing import Any
from uuid import uuid4

import numpy as np
from numpy.typing import NDArray
from rasterio.windows import Window

from hsfuse.core.cube import BoolArray, FloatArray
from hsfuse.fusion.tiles import (
    GIVEN_BACK,
    RowBlender,
    Span,
    TileGrid,
    TileInput,
    TileWorker,
    batches,
    give_back_freed_memory,
    keep_freed_memory,
    window_of,
)
from hsfuse.io import CubeReader
from hsfuse.io.memory import ArrayReader
from hsfuse.pair.warp import WarpedReader, own_reader
from hsfuse.physics.solve import one_thread

#: Pixels of a batch: 57 MiB of 224 bands, and 5,800 tasks for a scene of 10,980 x 10,980 pixels.
BATCH_PIXELS = 2**16
_fused = itertools.count(1)
#: One thread of a process reads at a time: readers aren't to be shared.
_ALONE = Lock()


def chunked(reader: CubeReader) -> bool:
    """Whether a reader's pixels are a Dask array."""
    own = own_reader(reader)
    return isinstance(own, ArrayReader) and getattr(own.array, "chunks", None) is not None


def lazy_cube(worker: TileWorker, tiles: TileGrid, bands: int) -> Any:
    """The fused cube (C, H, W) of a pair as a Dask array, NaN where it isn't valid."""
    import dask.array as da
    from dask.highlevelgraph import HighLevelGraph

    pair = worker.pair
    sources = [_Source.of(reader) for reader in (pair.hsi, pair.msi)]
    name = f"hsfuse-{uuid4().hex[:12]}"
    detached = replace(pair, hsi=_detached(pair.hsi), msi=_detached(pair.msi))
    graph: dict[Any, Any] = {f"{name}-work": replace(worker, pair=detached)}
    rows, runs = tiles.spans(0), runs_of(tiles)
    for i, row in enumerate(rows):
        for j, cols in enumerate(runs):
            read = row.read, (cols[0].read[0], cols[-1].read[1])
            asked, s = pair.asks_for(window_of(*read, tiles.ratio)), tiles.ratio
            under = Window(s * asked.col_off, s * asked.row_off, s * asked.width, s * asked.height)
            low = sources[0].chunks(asked, pair.alignment.hsi_window)
            high = sources[1].chunks(under, pair.alignment.msi_window)
            graph[f"{name}-fuse", i, j] = (fuse_batch, f"{name}-work", row, cols, *low, *high)
            graph[f"{name}-edges", i, j] = (edges_of, (f"{name}-fuse", i, j))
            around = (i, j - 1), (i - 1, j), (i - 1, j - 1)
            beside = [(f"{name}-edges", *at) if min(at) >= 0 else None for at in around]
            graph[name, 0, i, j] = (finish_batch, row, cols[0].before, (f"{name}-fuse", i, j), *beside)
    arrays = [source.array for source in sources if source.array is not None]
    chunks = (
        (bands,),
        tuple(row.finished[1] - row.finished[0] for row in rows),
        tuple(cols[-1].finished[1] - cols[0].finished[0] for cols in runs),
    )
    cube = da.Array(HighLevelGraph.from_collections(name, graph, arrays), name, chunks, dtype=np.float32)
    # The last tile may be larger than the others, and chunks on disk can only end with a smaller one.
    return cube if all(sizes[-1] <= sizes[0] for sizes in chunks) else cube.rechunk(tuple(s[0] for s in chunks))


def runs_of(tiles: TileGrid) -> list[list[Span]]:
    """The tiles of a row in batches."""
    spans, count = tiles.spans(1), max(1, BATCH_PIXELS // tiles.stride**2)
    return [spans[first : first + count] for first in range(0, len(spans), count)]


def _detached(reader: CubeReader) -> CubeReader:
    """A reader without its Dask array, or of files of its own, which no one else closes."""
    if isinstance(reader, WarpedReader):
        return reader.over(_detached(own_reader(reader)))
    if isinstance(reader, ArrayReader):
        return reader.over(np.empty((0, 0, 0), reader.dtype)) if chunked(reader) else reader
    return reader.again()


@dataclass(frozen=True)
class _Source:
    """One image of the pair: its Dask array, None where its reader reads by itself."""

    reader: CubeReader
    array: Any = None
    borders: tuple[NDArray[np.int64], ...] = ()

    @classmethod
    def of(cls, reader: CubeReader) -> _Source:
        if not chunked(reader):
            return cls(reader)
        own = own_reader(reader)
        assert isinstance(own, ArrayReader)
        array: Any = getattr(own.array, "data", own.array)
        return cls(reader, array, tuple(np.cumsum([0, *sizes]) for sizes in array.chunks))

    def chunks(self, window: Window, into: Window) -> tuple[Any, Any]:
        """Keys and borders, for `Blocks`, of the chunks under a window of the common extent; None without Dask."""
        if self.array is None:
            return None, None
        window = Window(window.col_off + into.col_off, window.row_off + into.row_off, window.width, window.height)
        if isinstance(self.reader, WarpedReader):
            window = self.reader.reach(window)
        spans = [(0, len(self.borders[0]) - 1)]
        for at, size, edges in (
            (window.row_off, window.height, self.borders[1]),
            (window.col_off, window.width, self.borders[2]),
        ):
            first = min(int(np.searchsorted(edges, at, "right")) - 1, len(edges) - 2)
            spans.append((first, max(first + 1, int(np.searchsorted(edges, at + size, "left")))))
        bands, rows, cols = (range(*span) for span in spans)
        keys = [[[(self.array.name, band, row, col) for col in cols] for row in rows] for band in bands]
        borders = tuple(edges[first : last + 1] for edges, (first, last) in zip(self.borders, spans, strict=True))
        return keys, borders


@dataclass(frozen=True)
class Blocks:
    """Some chunks of an array (C, H, W), by bands, rows and columns, with their borders: cut as the whole would be."""

    chunks: list[list[list[NDArray]]]
    borders: tuple[NDArray[np.int64], ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """(C, H, W) up to the last pixel that is there."""
        return tuple(int(edges[-1]) for edges in self.borders)

    @property
    def dtype(self) -> Any:
        """NumPy's type."""
        return self.chunks[0][0][0].dtype

    def __getitem__(self, key: tuple[list[int], slice, slice]) -> NDArray:
        bands, rows, cols = key
        for span, edges in ((rows, self.borders[1]), (cols, self.borders[2])):
            if span.start < edges[0] or span.stop > edges[-1]:
                raise IndexError(f"{span} isn't within the chunks, which go from {edges[0]} to {edges[-1]}")
        levels = [
            np.concatenate([
                np.concatenate([chunk[:, down, across] for chunk, across in _within(line, self.borders[2], cols)], 2)
                for line, down in _within(lines, self.borders[1], rows)
            ], 1)
            for lines in self.chunks
        ]  # fmt: skip
        return np.concatenate(levels)[bands]


def _within(parts: Sequence[Any], edges: NDArray[np.int64], span: slice) -> Iterator[tuple[Any, slice]]:
    """The parts that reach into a span, and the slice of each that does."""
    for part, start, stop in zip(parts, edges[:-1], edges[1:], strict=True):
        first, last = max(span.start, start), min(span.stop, stop)
        if first < last:
            yield part, slice(first - start, last - start)


@dataclass(frozen=True)
class Batch:
    """Tiles of one row, blended: `part` (C, n, width), `right` (C, n, overlap), which the next one gets, and a mask."""

    part: FloatArray
    right: FloatArray
    mask: BoolArray


@dataclass(frozen=True)
class Edges:
    """What a batch's neighbours overlap with: below it, right of it, and below that."""

    below: FloatArray
    right: FloatArray
    corner: FloatArray


def fuse_batch(
    worker: TileWorker,
    rows: Span,
    cols: list[Span],
    low: Any = None,
    low_borders: Any = None,
    high: Any = None,
    high_borders: Any = None,
) -> Batch:
    """Fuse tiles of one row, from chunks where the pair's readers have no pixels."""
    pair = worker.pair
    hsi, msi = _over(pair.hsi, low, low_borders), _over(pair.msi, high, high_borders)
    worker = replace(worker, pair=replace(pair, hsi=hsi, msi=msi))
    blender, parts, masks = RowBlender(), [], []
    keep_freed_memory()
    with one_thread():
        for tiles in batches((_read(worker, rows, span) for span in cols), worker.batch):
            for tile in worker.fuse(tiles):
                data, mask, _ = tile.finish()
                parts.append(blender.add(rows, tile.source.cols, data))
                masks.append(mask[: rows.finished[1] - rows.finished[0], : parts[-1].shape[2]])
    if next(_fused) % GIVEN_BACK == 0:
        give_back_freed_memory()
    assert blender.right is not None
    return Batch(np.concatenate(parts, 2), blender.right, np.concatenate(masks, 1))


def _read(worker: TileWorker, rows: Span, cols: Span) -> TileInput:
    with _ALONE:
        return worker.read(rows, cols)


def _over(reader: CubeReader, chunks: Any, borders: Any) -> CubeReader:
    if chunks is None:
        return reader
    if isinstance(reader, WarpedReader):
        return reader.over(_over(own_reader(reader), chunks, borders))
    assert isinstance(reader, ArrayReader)
    return reader.over(Blocks(chunks, borders))


def edges_of(batch: Batch) -> Edges:
    """What the neighbours need of a batch."""
    height = len(batch.mask)
    return Edges(batch.part[:, height:].copy(), batch.right[:, :height].copy(), batch.right[:, height:].copy())


def finish_batch(
    rows: Span, before: int, batch: Batch, left: Edges | None, above: Edges | None, corner: Edges | None
) -> FloatArray:
    """The finished pixels (C, h, w) of a batch, NaN where they aren't valid."""
    done = joined(rows, before, batch, left, above, corner)
    done[:, ~batch.mask] = np.nan
    return done


def joined(
    rows: Span, before: int, batch: Batch, left: Edges | None, above: Edges | None, corner: Edges | None
) -> FloatArray:
    """The finished pixels (C, h, w) of a batch, its neighbours' edges added."""
    done = batch.part[:, : len(batch.mask)].copy()
    if left is not None:
        done[:, :, :before] += left.right
    if above is not None:
        below = above.below
        if corner is not None:
            below = below.copy()
            below[:, :, :before] += corner.corner
        done[:, : rows.before] += below
    return done

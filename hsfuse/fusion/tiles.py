"""Tiles for scenes larger than memory: what each tile reads, how tiles blend, what each one finishes.

Along each axis tiles start every `stride` pixels. A tile fuses its support, `stride + overlap` pixels, read with a
`halo` of context on each side. In the overlap of two supports their weights are a linear ramp, so that the weights of
all tiles sum to one everywhere.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from functools import cache
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

import numpy as np
import torch
from rasterio.windows import Window
from torch import Tensor

from hsfuse.core.cube import BoolArray, FloatArray
from hsfuse.core.errors import SettingError
from hsfuse.methods import Method, predict_inside, predicted
from hsfuse.pair import ScenePair
from hsfuse.pair.sample import Filling
from hsfuse.physics.solve import one_thread

if TYPE_CHECKING:  # loaded where layers are wanted
    from hsfuse.fusion.quality import QualityLayers
    from hsfuse.methods.state import State


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
    """Tiles over `shape` (H, W) HR pixels at ratio s: `stride`, `overlap` and `halo` in HR pixels, multiples of s."""

    shape: tuple[int, int]
    ratio: int
    stride: int
    overlap: int
    halo: int

    def __post_init__(self) -> None:
        bad = [n for n in ("stride", "overlap", "halo") if getattr(self, n) % self.ratio or getattr(self, n) < 0]
        if bad or self.stride < max(self.overlap, self.ratio):
            raise SettingError(
                f"a tile of {self.stride} pixels with overlap {self.overlap} and halo {self.halo}: wanted multiples of "
                f"the ratio {self.ratio}, the tile no smaller than the overlap"
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


class RowBlender:
    """Adds weighted tiles of one row of tiles after another, from left to right; `right` is what the next one gets."""

    def __init__(self) -> None:
        self.right: FloatArray | None = None

    def add(self, rows: Span, cols: Span, data: FloatArray) -> FloatArray:
        """Fused support (C, n, m) of the tile at (rows, cols) to the columns (C, n, width) that are finished.

        `data` is used up: it is weighted in place.
        """
        data *= rows.ramp()[:, None] * cols.ramp()
        if cols.before and self.right is not None:
            data[:, :, : cols.before] += self.right
        width = cols.finished[1] - cols.finished[0]
        self.right = data[:, :, width:].copy()
        return data[:, :, :width]


class Blender:
    """Adds weighted tiles row by row and hands out what is finished.

    Kept in memory: the overlap rows below the current row of tiles (C, overlap, W) and the overlap columns right of
    the current tile, nothing that grows with the scene's height.
    """

    def __init__(self, tiles: TileGrid, bands: int) -> None:
        self._below = np.zeros((bands, tiles.overlap, tiles.shape[1]), np.float32)
        self._row = RowBlender()

    def add(self, rows: Span, cols: Span, data: FloatArray) -> FloatArray:
        """Fused support (C, n, m) of the tile at (rows, cols), in row-major order, to its finished part.

        `data` is used up: it is weighted in place.
        """
        done = self._row.add(rows, cols, data)
        c0, c1 = cols.finished
        if rows.before:
            done[:, : rows.before] += self._below[:, :, c0:c1]
        height = rows.finished[1] - rows.finished[0]
        if rows.after:
            self._below[:, :, c0:c1] = done[:, height:]
        return done[:, :height]


def lr_mask_to_hr(mask: BoolArray, s: int) -> BoolArray:
    """A mask of LR pixels on the HR grid: (h, w) -> (s h, s w)."""
    return mask.repeat(s, 0).repeat(s, 1)


T = TypeVar("T")
R = TypeVar("R")

#: Tiles fused at once: a GPU is idle with one, a CPU's caches are full with it.
GPU_BATCH = 8
#: Batches read ahead, and batches fused but not yet written: nobody waits for long, and little is in memory.
AHEAD = BEHIND = 1
#: Batches fused beside each other at most: each takes some 400 MiB of 200 bands.
MOST_BESIDE = 8
#: Parameters of mallopt(3), and DEFAULT_MMAP_THRESHOLD_MAX of 64-bit systems, in bytes.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, MOST_KEPT = -1, -3, 32 * 2**20
#: Batches of tiles after which a process returns freed memory: what a row of tiles keeps for the next lies among it.
#: Doing so after each one costs 5 to 7 % of `blend`'s time, in pages that are faulted in again.
GIVEN_BACK = 8


def beside(device: str, layers: bool) -> int:
    """How many batches are fused beside each other; quality layers are of one prediction, the last."""
    return min(torch.get_num_threads(), MOST_BESIDE) if device == "cpu" and not layers else 1


@dataclass(frozen=True)
class TileInput:
    """One tile as read: LRHSI (C, h, w) and MSI (c, H, W), filled, on their way to the device.

    mask (n, m) is of the support.
    """

    rows: Span
    cols: Span
    lrhsi: Tensor
    msi: Tensor
    mask: BoolArray

    @property
    def shapes(self) -> tuple[Any, ...]:
        """Tiles that agree in this can be fused in one batch."""
        return self.lrhsi.shape, self.msi.shape, bool(self.mask.any())

    @property
    def inner(self) -> tuple[slice, slice]:
        """The support inside what was read."""
        return _inside(self.rows), _inside(self.cols)


@dataclass(frozen=True)
class FusedTile:
    """One tile as fused, maybe still on the device: (C, n, m), its mask (n, m) and its quality layers (5, n, m)."""

    source: TileInput
    data: Tensor
    layers: Tensor | None
    clip: bool

    def finish(self) -> tuple[FloatArray, BoolArray, FloatArray | None]:
        """Data, mask and layers in the host's memory."""
        fused = np.ascontiguousarray(self.data.cpu().numpy())
        if self.clip:
            np.maximum(fused, 0, out=fused)
        layers = None if self.layers is None else np.ascontiguousarray(self.layers.cpu().numpy())
        return fused, self.source.mask, layers


@dataclass(frozen=True)
class TileWorker:
    """A fitted method applied to tiles of a pair, with the layers that say how good they are where wanted.

    With `clip` negative values become 0.
    """

    pair: ScenePair
    fuser: Method
    device: str = "cpu"
    quality: QualityLayers | None = None
    filling: Filling | None = None
    clip: bool = False

    def __reduce__(self) -> tuple[Any, ...]:
        """Sent to another process: the method as its state, the pair's files opened again there; no quality layers."""
        return _worker, (self.pair, self.fuser.state(), self.device, self.filling, self.clip)

    @property
    def batch(self) -> int:
        """How many tiles are fused at once."""
        return 1 if self.device == "cpu" else GPU_BATCH

    @property
    def threads(self) -> int:
        """How many batches are fused beside each other."""
        return beside(self.device, self.quality is not None)

    def fuse_all(self, spans: Sequence[tuple[Span, Span]]) -> Generator[list[FusedTile], None, None]:
        """Tiles (rows, columns) read and fused, batch by batch in their order; close it to stop.

        On a CPU as many are fused beside each other as torch has threads, each on one, whose bits are the same then on
        any number of cores; where there are fewer tiles, parts of each are computed beside each other.
        """
        threads = max(1, min(self.threads, len(spans)))
        helping = self.threads // threads

        def fuse(tiles: list[TileInput]) -> list[FusedTile]:
            with one_thread(beside=helping):
                return self.fuse(tiles)

        with one_thread(), closing(ahead(spans, lambda span: self.read(*span), AHEAD * self.batch)) as inputs:
            waiting = batches(inputs, self.batch)
            if threads == 1:
                yield from map(fuse, waiting)
            else:
                with closing(ahead(waiting, fuse, threads - 1, threads)) as fused:
                    yield from fused

    def read(self, rows: Span, cols: Span) -> TileInput:
        """What one tile needs."""
        s = self.pair.ratio
        low = self.pair.read_lr(window_of(rows.read, cols.read, s))
        high = self.pair.read_hr(window_of(rows.read, cols.read))
        inner = _inside(rows), _inside(cols)
        x, y = (self.filling or Filling(self.pair.model))(low, high)
        mask = np.ascontiguousarray((lr_mask_to_hr(low.mask, s) & high.mask)[inner])
        return TileInput(rows, cols, self._send(x), self._send(y), mask)

    def _send(self, image: FloatArray) -> Tensor:
        """From locked memory a GPU fetches the image by itself while it computes."""
        tensor = torch.from_numpy(image)
        if self.device.startswith("cuda"):
            tensor = tensor.pin_memory()
        return tensor.to(self.device, non_blocking=True)

    @torch.inference_mode()
    def fuse(self, tiles: list[TileInput]) -> list[FusedTile]:
        """Fuse tiles of one shape in a batch; halves of it where the device's memory can't hold the whole."""
        if not tiles[0].mask.any():
            return [self._empty(tile) for tile in tiles]
        try:
            with one_thread():
                return self._fuse(tiles)
        except torch.cuda.OutOfMemoryError:
            if len(tiles) == 1:
                raise
        torch.cuda.empty_cache()
        half = len(tiles) // 2
        return self.fuse(tiles[:half]) + self.fuse(tiles[half:])

    def _fuse(self, tiles: list[TileInput]) -> list[FusedTile]:
        x, y = (torch.stack(images) for images in zip(*[(t.lrhsi, t.msi) for t in tiles], strict=True))
        if self.quality is None:
            parts = predict_inside(self.fuser, self.pair.model, x, y, [tile.inner for tile in tiles])
            return [FusedTile(tile, part, None, self.clip) for tile, part in zip(tiles, parts, strict=True)]
        self.quality.expect()
        fused = predicted(self.fuser, x, y)
        layers = self.quality.layers(fused, x, y)
        cut = [(..., *tile.inner) for tile in tiles]
        return [FusedTile(tile, fused[i][cut[i]], layers[i][cut[i]], self.clip) for i, tile in enumerate(tiles)]

    def _empty(self, tile: TileInput) -> FusedTile:
        """A tile without a valid pixel."""
        layers = None if self.quality is None else torch.zeros(len(self.quality.names), *tile.mask.shape)
        return FusedTile(tile, torch.zeros(len(tile.lrhsi), *tile.mask.shape), layers, self.clip)


def _worker(pair: ScenePair, state: State, device: str, filling: Filling | None, clip: bool) -> TileWorker:
    from hsfuse.methods.state import restore_method

    return TileWorker(pair, restore_method(state, device), device, None, filling, clip)


def _inside(span: Span) -> slice:
    return slice(span.support[0] - span.read[0], span.support[1] - span.read[0])


def batches(tiles: Iterable[TileInput], size: int) -> Iterator[list[TileInput]]:
    """Neighbours of one shape together, at most `size`, in their order."""
    batch: list[TileInput] = []
    for tile in tiles:
        if batch and (len(batch) == size or tile.shapes != batch[0].shapes):
            yield batch
            batch = []
        batch.append(tile)
    if batch:
        yield batch


def ahead(items: Iterable[T], work: Callable[[T], R], count: int, threads: int = 1) -> Generator[R, None, None]:
    """Results of `work` in order, `count` of them made in advance by some threads; close it to stop."""
    waiting: deque[Future[R]] = deque()
    pool = ThreadPoolExecutor(threads, "ahead")
    try:
        for item in items:
            waiting.append(pool.submit(work, item))
            if len(waiting) > count:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


@dataclass
class Behind:
    """Does calls in order on one thread while its caller goes on, `count` of them late at most.

    The first error stops it and is raised at the next call or at the end. What was handed over before an interruption
    is still done.
    """

    count: int
    _waiting: deque[Future[None]] = field(default_factory=deque)
    _failed: bool = False

    def __enter__(self) -> Self:
        self._pool = ThreadPoolExecutor(1, "write")
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        try:
            while self._waiting and kind is None:
                self._waiting.popleft().result()
        finally:
            self._pool.shutdown()

    def do(self, call: Callable[[], None]) -> None:
        """Hand over a call."""
        self._waiting.append(self._pool.submit(self._unless_failed, call))
        while len(self._waiting) > self.count:
            self._waiting.popleft().result()

    def _unless_failed(self, call: Callable[[], None]) -> None:
        if self._failed:
            return
        try:
            call()
        except BaseException:
            self._failed = True
            raise


def give_back_freed_memory() -> None:
    """Return to the system what glibc's malloc keeps of freed blocks (malloc_trim(3)); elsewhere nothing.

    Having each large block mapped by itself instead (mallopt's M_MMAP_THRESHOLD) makes a fusion half as slow again.
    """
    if (trim := _libc("malloc_trim")) is not None:
        trim(0)


@cache
def keep_freed_memory() -> None:
    """Have glibc's malloc keep freed blocks between uses, as it does by itself unless the environment sets thresholds.

    Dask's nannies set one, MALLOC_TRIM_THRESHOLD_, with which each large array is mapped and faulted in anew: a fusion
    takes three times as long. The values are where glibc's own adjustment ends (mallopt(3)).
    """
    if {"MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_"} & set(os.environ) and _libc("mallopt") is not None:
        _libc("mallopt")(M_MMAP_THRESHOLD, MOST_KEPT)
        _libc("mallopt")(M_TRIM_THRESHOLD, 2 * MOST_KEPT)


@cache
def _libc(name: str) -> Any:
    """A function of glibc's; None elsewhere."""
    return getattr(ctypes.CDLL(None), name, None) if sys.platform == "linux" else None

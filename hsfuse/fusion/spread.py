"""One scene over many processes or machines: Dask's workers read and fuse batches of tiles, one writer takes them.

Workers open the pair's files themselves and hold the fitted method as its state. Few batches are under way at a time,
and they come in the order in which one process writes them, as they are stored; of Zarr workers write their chunks
themselves. What a lost worker had is computed again.
"""

from __future__ import annotations

import errno
import logging
import os
import pickle
from collections import defaultdict, deque
from collections.abc import Callable, Generator
from concurrent.futures import CancelledError
from contextlib import suppress
from tempfile import TemporaryFile
from threading import RLock
from typing import IO, Any
from uuid import uuid4
from weakref import finalize

import numpy as np
from numpy.typing import NDArray
from rasterio.windows import Window

from hsfuse.core.cube import BoolArray, FloatArray
from hsfuse.core.errors import SettingError
from hsfuse.fusion.lazy import Batch, Edges, edges_of, fuse_batch, joined, runs_of
from hsfuse.fusion.tiles import Span, TileGrid, TileWorker, window_of
from hsfuse.io.gdal import share_memory

log = logging.getLogger(__name__)

#: Batches under way for each worker: one is computed, one waits, one is done and waits for neighbours or the writer.
IN_FLIGHT = 3


#: What stores a window: numbers as they are stored, None where a worker has written them, and how many were clipped.
Store = Callable[[Window, FloatArray, BoolArray], tuple[NDArray | None, int]]


#: Rows and columns of a batch, its pixels as they are stored (C, h, w), None where a worker has written them, how many
#: of its values didn't fit, and how many pixels of each tile are valid.
Finished = tuple[Span, list[Span], NDArray | None, int, list[int]]


def spread(
    client: Any, worker: TileWorker, store: Store, tiles: TileGrid, rows: list[Span]
) -> Generator[Finished, None, None]:
    """Some neighbouring rows of tiles, batch by batch in their order; the first one without what is above it.

    Close it to have workers stop.
    """
    name, runs = f"hsfuse-{uuid4().hex[:12]}", runs_of(tiles)
    work = pickle.dumps((worker, store))
    sent = client.submit(pickle.loads, work, key=f"{name}-work")  # opened by workers, not the scheduler
    workers = set(client.nthreads())
    if workers:
        client.replicate(sent)  # Dask has tasks run where what they need is: one worker would begin alone
    waiting: deque[tuple[Span, list[Span], Any]] = deque()
    above: list[Any] = [None] * len(runs)
    try:
        for i, row in enumerate(rows):
            below: list[Any] = []
            left: Any = None
            workers = _still(workers, client)
            most = IN_FLIGHT * max(1, len(workers))  # workers may come later
            for j, cols in enumerate(runs):
                fused = client.submit(_fused, sent, row, cols, key=f"{name}-fuse-{i}-{j}")
                corner = above[j - 1] if j else None
                done = client.submit(
                    _finished, sent, row, cols, fused, left, above[j], corner, key=f"{name}-done-{i}-{j}"
                )
                if j:
                    above[j - 1] = None  # needed no more
                left = client.submit(edges_of, fused, key=f"{name}-edges-{i}-{j}")
                below.append(client.submit(_kept, left, key=f"{name}-below-{i}-{j}"))
                waiting.append((row, cols, done))
                if len(waiting) > most:
                    yield _taken(waiting.popleft())
            above = below
        while waiting:
            yield _taken(waiting.popleft())
        _still(workers, client)
    finally:
        if waiting:
            with suppress(OSError):  # the scheduler may be what is gone
                client.cancel([done for *_, done in waiting])


def _still(workers: set[str], client: Any) -> set[str]:
    """The workers that there are now; which of those before are gone is said."""
    now = set(client.nthreads())
    for one in sorted(workers - now):
        log.warning("the worker %s was lost: its tiles are made again", one)
    return now


def _taken(batch: tuple[Span, list[Span], Any]) -> Finished:
    from distributed.comm import CommClosedError
    from distributed.scheduler import KilledWorker

    try:
        rows, cols, done = batch
        return rows, cols, *done.result()
    except (KilledWorker, CancelledError, CommClosedError) as error:
        told = " ".join(str(error).split())[:300]
        raise SettingError(
            f"Dask gave it up ({type(error).__name__}: {told}); its scheduler's log says more"
        ) from error


class _Store:
    """Bytes in a file without a name in the worker's folder, which goes with the process, whatever ends it.

    One file for all, since a process may have few open; it is closed when nothing is in it any more.
    """

    def __init__(self) -> None:
        self._lock = RLock()  # what is collected meanwhile gives its place back
        self._file: IO[bytes] | None = None
        self._free: dict[int, list[int]] = defaultdict(list)
        self._end = self._held = 0

    def put(self, data: bytes) -> int:
        """Where they lie from now on; OSError where they can't be kept."""
        with self._lock:
            self._held += 1
            try:
                if self._file is None:
                    self._file = TemporaryFile(dir=_folder(), buffering=0)  # noqa: SIM115 - open while it is used
                free = self._free[len(data)]
                at = free.pop() if free else self._end
                self._end = max(self._end, at + len(data))
                self._file.seek(at)
                if self._file.write(data) != len(data):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            except OSError:
                self._leave()
                raise
            return at

    def get(self, at: int, size: int) -> bytes:
        """What was put there."""
        with self._lock:
            assert self._file is not None
            self._file.seek(at)
            return self._file.read(size)

    def give_back(self, at: int, size: int) -> None:
        """Have the place used again."""
        with self._lock:
            self._free[size].append(at)
            self._leave()

    def _leave(self) -> None:
        self._held -= 1
        if not self._held and self._file is not None:
            self._file.close()
            self._file, self._end = None, 0
            self._free.clear()


_store = _Store()


def _folder() -> str | None:
    """The worker's own folder; None, that of all temporary files, where this is no worker."""
    from distributed import get_worker

    try:
        return str(get_worker().local_directory)
    except ValueError:
        return None


class Aside:
    """What the row of tiles below needs of a batch: it waits for as long as a row takes, so it isn't held in memory.

    Where there is no room on the disk it is. Sent to another worker, it goes as its arrays.
    """

    def __init__(self, below: FloatArray, corner: FloatArray) -> None:
        self._shapes, self._sizes = (below.shape, corner.shape), (below.nbytes, corner.nbytes)
        self._arrays: tuple[FloatArray, FloatArray] | None = None
        try:
            self._at = _store.put(below.tobytes() + corner.tobytes())
        except OSError:
            self._arrays = below, corner
        else:
            finalize(self, _store.give_back, self._at, sum(self._sizes))

    def edges(self) -> Edges:
        """The edges, without those on the right."""
        if self._arrays is None:
            data, split = _store.get(self._at, sum(self._sizes)), self._sizes[0]
            parts = np.frombuffer(data[:split], np.float32), np.frombuffer(data[split:], np.float32)
            below, corner = (part.reshape(shape) for part, shape in zip(parts, self._shapes, strict=True))
        else:
            below, corner = self._arrays
        return Edges(below, below[:, :, :0], corner)

    def __reduce__(self) -> tuple[Any, ...]:
        edges = self.edges()
        return Aside, (edges.below, edges.corner)


def _kept(edges: Edges) -> Aside:
    return Aside(edges.below, edges.corner)


def _fused(sent: tuple[TileWorker, Store], rows: Span, cols: list[Span]) -> Batch:
    share_memory()
    return fuse_batch(sent[0], rows, cols)


def _finished(
    sent: tuple[TileWorker, Store],
    rows: Span,
    cols: list[Span],
    batch: Batch,
    left: Edges | None,
    above: Aside | None,
    corner: Aside | None,
) -> tuple[NDArray | None, int, list[int]]:
    upper, beside = (None if one is None else one.edges() for one in (above, corner))
    done, start = joined(rows, cols[0].before, batch, left, upper, beside), cols[0].finished[0]
    window = window_of(rows.finished, (start, cols[-1].finished[1]))
    valid = [int(batch.mask[:, col.finished[0] - start : col.finished[1] - start].sum()) for col in cols]
    return *sent[1](window, done, batch.mask), valid

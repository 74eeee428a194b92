"""One scene over many processes or machines: Dask's workers read and fuse batches of tiles, one writer takes them.

Workers open the pair's files themselves and hold the fitted method as its state. Few batches are under way at a time,
and they come in the order in which one process writes them. What a lost worker had is computed again.
"""

from __future__ import annotations

import pickle
from collections import deque
from collections.abc import Iterator
from concurrent.futures import CancelledError
from dataclasses import dataclass, replace
from typing import Any
from uuid import uuid4

from hsfuse.core.cube import BoolArray, FloatArray
from hsfuse.core.errors import SettingError
from hsfuse.fusion.lazy import Batch, Edges, edges_of, fuse_batch, joined, runs_of
from hsfuse.fusion.tiles import Span, TileGrid, TileWorker

#: Batches under way for each worker: one is computed, one waits.
IN_FLIGHT = 2


@dataclass(frozen=True)
class Finished:
    """A batch of one row of tiles with all that overlaps into it: data (C, h, w) and its mask (h, w)."""

    rows: Span
    cols: list[Span]
    data: FloatArray
    mask: BoolArray


def spread(client: Any, worker: TileWorker, tiles: TileGrid, rows: list[Span]) -> Iterator[Finished]:
    """Some neighbouring rows of tiles, batch by batch in their order; the first one without what is above it."""
    name, runs = f"hsfuse-{uuid4().hex[:12]}", runs_of(tiles)
    sent = client.submit(pickle.loads, pickle.dumps(worker), key=f"{name}-work")  # opened by workers, not the scheduler
    waiting: deque[tuple[Span, list[Span], Any]] = deque()
    above: list[Any] = [None] * len(runs)
    for i, row in enumerate(rows):
        below: list[Any] = []
        left: Any = None
        most = IN_FLIGHT * max(1, len(client.nthreads()))  # workers may come later
        for j, cols in enumerate(runs):
            fused = client.submit(fuse_batch, sent, row, cols, key=f"{name}-fuse-{i}-{j}")
            corner = above[j - 1] if j else None
            done = client.submit(
                _finished, row, cols[0].before, fused, left, above[j], corner, key=f"{name}-done-{i}-{j}"
            )
            if j:
                above[j - 1] = None  # needed no more
            left = client.submit(edges_of, fused, key=f"{name}-edges-{i}-{j}")
            below.append(client.submit(_kept, left, key=f"{name}-below-{i}-{j}"))
            waiting.append((row, cols, done))
            if len(waiting) > most:
                yield _taken(*waiting.popleft())
        above = below
    while waiting:
        yield _taken(*waiting.popleft())


def _taken(rows: Span, cols: list[Span], done: Any) -> Finished:
    from distributed.comm import CommClosedError
    from distributed.scheduler import KilledWorker

    try:
        return Finished(rows, cols, *done.result())
    except (KilledWorker, CancelledError, CommClosedError) as error:
        told = " ".join(str(error).split())[:300]
        raise SettingError(
            f"Dask gave it up ({type(error).__name__}: {told}); its scheduler's log says more"
        ) from error


def _kept(edges: Edges) -> Edges:
    """What the row of tiles below needs: workers keep it for as long as a row takes."""
    return replace(edges, right=edges.right[:, :0].copy())


def _finished(
    rows: Span, before: int, batch: Batch, left: Edges | None, above: Edges | None, corner: Edges | None
) -> tuple[FloatArray, BoolArray]:
    return joined(rows, before, batch, left, above, corner), batch.mask

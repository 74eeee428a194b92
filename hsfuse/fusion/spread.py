"""One scene over many processes or machines: Dask's workers read and fuse batches of tiles, one writer takes them.

Workers open the pair's files themselves and hold the fitted method as its state. Few batches are under way at a time,
and they come in the order in which one process writes them. What a lost worker had is computed again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

from hsfuse.core.cube import BoolArray, FloatArray
from hsfuse.core.errors import SettingError
from hsfuse.fusion.lazy import Batch, Edges, edges_of, fuse_batch, joined, runs_of
from hsfuse.fusion.tiles import Span, TileGrid, TileWorker

#: Batches under way for each worker: one is computed, one waits.
IN_FLIGHT = 2
#: How long a scheduler may take to answer.
PATIENCE = "20s"


@dataclass(frozen=True)
class Finished:
    """A batch of one row of tiles with all that overlaps into it: data (C, h, w) and its mask (h, w)."""

    rows: Span
    cols: list[Span]
    data: FloatArray
    mask: BoolArray


@contextmanager
def client_of(where: str) -> Iterator[Any]:
    """A client of Dask's: of `local[:N]` workers, of a scheduler's address, or of its file; else SettingError."""
    try:
        from dask.distributed import Client, LocalCluster
    except ImportError as error:
        raise SettingError("--dask needs the package distributed: pip install 'hsfuse[dask]'") from error
    kind, _, count = where.partition(":")
    if kind == "local" and (count.isdecimal() or not count) and count != "0":
        workers = int(count) if count else None
        with (
            LocalCluster(n_workers=workers, threads_per_worker=1, dashboard_address=None) as cluster,
            Client(cluster) as client,
        ):
            yield client
        return
    if not where.endswith(".json") and "://" not in where:
        raise SettingError(f"--dask is {where!r}; wanted local, local:N, an address such as tcp://..., or a .json file")
    if where.endswith(".json") and not Path(where).is_file():
        raise SettingError(f"no scheduler of Dask's answers at {where}: the file doesn't exist")
    told = {"scheduler_file": where} if where.endswith(".json") else {"address": where}
    try:
        client = Client(**told, timeout=PATIENCE)
    except (OSError, ValueError) as error:
        raise SettingError(f"no scheduler of Dask's answers at {where}: {' '.join(str(error).split())}") from error
    with client:
        yield client


def spread(client: Any, worker: TileWorker, tiles: TileGrid, rows: list[Span]) -> Iterator[Finished]:
    """Some neighbouring rows of tiles, batch by batch in their order; the first one without what is above it."""
    name, runs = f"hsfuse-{uuid4().hex[:12]}", runs_of(tiles)
    sent = client.submit(_received, worker, key=f"{name}-work")
    waiting: deque[tuple[Span, list[Span], Any]] = deque()
    most = IN_FLIGHT * max(1, len(client.scheduler_info()["workers"]))
    above: list[Any] = [None] * len(runs)
    for i, row in enumerate(rows):
        edges: list[Any] = []
        for j, cols in enumerate(runs):
            fused = client.submit(fuse_batch, sent, row, cols, key=f"{name}-fuse-{i}-{j}")
            left, corner = (edges[j - 1], above[j - 1]) if j else (None, None)
            done = client.submit(
                _finished, row, cols[0].before, fused, left, above[j], corner, key=f"{name}-done-{i}-{j}"
            )
            edges.append(client.submit(edges_of, fused, key=f"{name}-edges-{i}-{j}"))
            waiting.append((row, cols, done))
            if len(waiting) > most:
                yield _taken(*waiting.popleft())
        above = edges
    while waiting:
        yield _taken(*waiting.popleft())


def _taken(rows: Span, cols: list[Span], done: Any) -> Finished:
    return Finished(rows, cols, *done.result())


def _received(worker: TileWorker) -> TileWorker:
    """What a worker computes with: a task of its own, which is done again where it is lost."""
    return worker


def _finished(
    rows: Span, before: int, batch: Batch, left: Edges | None, above: Edges | None, corner: Edges | None
) -> tuple[FloatArray, BoolArray]:
    return joined(rows, before, batch, left, above, corner), batch.mask

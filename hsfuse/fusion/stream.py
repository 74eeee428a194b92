"""Tile by tile from disk to disk, in memory that doesn't grow with the scene's height."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable
from contextlib import ExitStack, closing
from dataclasses import dataclass, field, replace
from functools import partial
from math import lcm
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from rasterio.windows import Window
from tqdm import tqdm

from hsfuse.core.cube import BoolArray, FloatArray, Spectrum
from hsfuse.core.notes import Note, records, warning
from hsfuse.core.options import FuseOptions
from hsfuse.fusion.storage import BandPlan, check_tile, clipping_note, plan_bands
from hsfuse.fusion.tiles import (
    BEHIND,
    GIVEN_BACK,
    Behind,
    Blender,
    FusedTile,
    Span,
    TileGrid,
    TileWorker,
    give_back_freed_memory,
    window_of,
)
from hsfuse.io import CubeWriter, Storage, publish
from hsfuse.io.spectral_tags import SAID_TAG
from hsfuse.pair import ScenePair

log = logging.getLogger(__name__)

#: Largest side of a GeoTIFF tile that the writer is asked for.
LARGEST_BLOCK = 256


def plan_tiles(pair: ScenePair, halo: int, tile: int, overlap: int) -> TileGrid:
    """Tiles in whole LR pixels and whole blocks of the output file, as near to `tile` and `overlap` as that allows."""
    s = pair.ratio
    check_tile(tile, s)
    whole = lcm(16, s)
    stride = tile // whole * whole or tile // s * s
    overlap = min(-(-overlap // s) * s, stride)
    return TileGrid(pair.alignment.full, s, stride, overlap, halo * s)


@dataclass
class Destination:
    """One output being filled: a writer, and the blender of the tiles that go to it."""

    writer: CubeWriter
    blender: Blender
    plan: BandPlan | None = None

    def add(self, rows: Span, cols: Span, data: FloatArray, mask: BoolArray, write: bool) -> BoolArray:
        """Blend a tile in and write what it finishes; its mask."""
        done = self.blender.add(rows, cols, data if self.plan is None else self.plan.pick(data))
        mask = mask[: done.shape[1], : done.shape[2]]
        if write:
            self.put(rows, cols, done, mask)
        return mask

    def put(self, rows: Span, cols: Span, done: FloatArray, mask: BoolArray) -> None:
        """Write what is finished of a tile."""
        self.writer.write(window_of(rows.finished, cols.finished), np.ascontiguousarray(done), mask)

    def elsewhere(self, whole_blocks: bool) -> Callable[[Window, FloatArray, BoolArray], tuple[NDArray | None, int]]:
        """What stores windows of fused bands in other processes, as `CubeWriter.elsewhere`."""
        return partial(_stored, self.writer.elsewhere(whole_blocks), self.plan)


def _stored(store: Any, plan: BandPlan | None, window: Window, done: FloatArray, mask: BoolArray) -> Any:
    return store(window, done if plan is None else plan.pick(done), mask)


@dataclass
class Streamer:
    """Opens the outputs of a fusion and fills them tile by tile.

    With a `fingerprint` it goes on where an interrupted run with the same one saved its state.
    """

    work: TileWorker
    tiles: TileGrid
    output: Path
    options: FuseOptions
    storage: Storage
    provenance: dict[str, Any]
    fingerprint: str | None = None
    client: Callable[[], Any] | None = None
    warnings: list[Note] = field(default_factory=list)
    _stack: ExitStack = field(default_factory=ExitStack)
    _saved: int = 0

    @property
    def _rows(self) -> int:
        return len(self.tiles.spans(0))

    def __enter__(self) -> Self:
        try:
            self._open()
        except BaseException:
            self._stack.__exit__(*sys.exc_info())  # writers must know that it was an error that ended it
            raise
        return self

    def __exit__(self, *error: Any) -> None:
        self._stack.__exit__(*error)
        if error[0] is KeyboardInterrupt and self.fingerprint is not None and self._saved:
            log.warning("%d of %d rows of tiles are kept: --resume goes on with them", self._saved, self._rows)

    def _open(self) -> None:
        plan = plan_bands(self.work.pair, self.options)
        self.main = self._destination(self.output, plan.spectrum, len(plan.source), plan, self.storage)
        self.quality = None
        if self.options.qa is not None and self.work.quality is not None:
            layers = self.work.quality
            self.quality = self._destination(self.options.qa, layers.spectrum, len(layers.names), None, Storage())
            self._stack.enter_context(layers)

    def _destination(
        self, path: Path, spectrum: Spectrum, count: int, plan: BandPlan | None, storage: Storage
    ) -> Destination:
        writer = CubeWriter(
            path,
            self.work.pair.alignment.hr_grid,
            spectrum,
            replace(storage, block=_block(self.tiles)),
            bands=count,
            tags=self._tags(plan),
            fingerprint=self.fingerprint,
            overwrite=self.options.overwrite,
        )
        made = Destination(self._stack.enter_context(writer), Blender(self.tiles, count), plan)
        if writer.discarded:
            self._warn(warning("starts-anew", name=path.name, why=writer.discarded))
        return made

    def _warn(self, told: Note) -> None:
        log.warning("%s", told)
        self.warnings.append(told)

    def _tags(self, plan: BandPlan | None) -> dict[str, str]:
        """How the file was made and, of the fused cube, what its values are where that is known."""
        quantity = "unknown" if plan is None else self.work.pair.quantity
        told = {} if quantity == "unknown" else {"QUANTITY": quantity}
        return {"PROVENANCE": json.dumps(self.provenance, default=str), **told}

    def run(self) -> float:
        """Fuse all tiles and have the outputs appear together; returns the share of valid pixels."""
        state = self._state()
        self._first, self._valid = int(state.get("rows", 0)), int(state.get("valid", 0))
        if self._first:
            log.info("going on after %d of %d rows of tiles", self._first, self._rows)
        # The row of tiles before is fused again, for what overlaps into the first unfinished one.
        rows = self.tiles.spans(0)[max(self._first - 1, 0) :]
        with tqdm(total=len(self.tiles), desc="fusing", unit="tile", disable=None, leave=False) as bar:
            bar.update(len(self.tiles) - len(rows) * len(self.tiles.spans(1)))
            if self.client is None:
                self._fuse(rows, bar)
            else:
                self._spread(rows, bar, self.client())
        clipped = self.main.writer.clipped
        if clipped:
            values = self._valid * self.main.writer.bands
            self._warn(told := clipping_note(self.output, clipped, values, self.storage.dtype, self.storage.scale))
            self.main.writer.add_tags({SAID_TAG: json.dumps(records([told]))})  # who finds it finished says it, too
            self.provenance["said"] = [*self.provenance.get("said", ()), told.to_dict()]
        publish([to.writer for to in (self.main, self.quality) if to is not None])
        return self._valid / (self.tiles.shape[0] * self.tiles.shape[1])

    def _fuse(self, rows: list[Span], bar: tqdm) -> None:
        """Fuse rows of tiles in this process."""
        spans = [(row, col) for row in rows for col in self.tiles.spans(1)]
        with closing(self.work.fuse_all(spans)) as fused, Behind(BEHIND) as behind:
            for number, batch in enumerate(fused, 1):
                behind.do(partial(self._keep, batch))
                bar.update(len(batch))
                if number % GIVEN_BACK == 0:
                    give_back_freed_memory()

    def _spread(self, rows: list[Span], bar: tqdm, client: Any) -> None:
        """Have workers fuse rows of tiles; what they don't write is written here, tile by tile as one process does."""
        from hsfuse.fusion.spread import spread

        store = self.main.elsewhere(self.tiles.stride % _block(self.tiles) == 0)
        with closing(spread(client, self.work, store, self.tiles, rows)) as done, Behind(BEHIND) as behind:
            for row, cols, raw, clipped, valid in done:
                start = cols[0].finished[0]
                for col, count in zip(cols, valid, strict=True):
                    part = slice(col.finished[0] - start, col.finished[1] - start)
                    own = None if raw is None else np.ascontiguousarray(raw[:, :, part])
                    behind.do(partial(self._put, row, col, own, 0 if col is not cols[0] else clipped, count))
                bar.update(len(cols))

    def _put(self, rows: Span, cols: Span, raw: NDArray | None, clipped: int, valid: int) -> None:
        """Write what is finished of a tile that was blended and encoded elsewhere."""
        if rows.support[0] // self.tiles.stride >= self._first:
            self.main.writer.take(window_of(rows.finished, cols.finished), raw, clipped)
            self._count(rows, cols, valid)

    def _count(self, rows: Span, cols: Span, valid: int) -> None:
        """A tile of so many valid pixels is written; at the end of a row of tiles, save how far it is."""
        self._valid += valid
        if cols.support[1] == self.tiles.shape[1] and rows.support[1] != self.tiles.shape[0]:
            self._checkpoint({"rows": rows.support[0] // self.tiles.stride + 1, "valid": self._valid})

    def _state(self) -> dict[str, Any]:
        """How far all outputs are: killed between two of them, or with one gone, they differ."""
        writers = [to.writer for to in (self.main, self.quality) if to is not None]
        state = min((writer.resumed or {} for writer in writers), key=lambda found: int(found.get("rows", 0)))
        for writer in writers:
            writer.rewind(int(state.get("pixels", 0)))
        return state

    def _keep(self, tiles: list[FusedTile]) -> None:
        """Blend fused tiles in and write what they finish; at the end of a row of tiles, save how far it is."""
        for tile in tiles:
            rows, cols = tile.source.rows, tile.source.cols
            data, mask, layers = tile.finish()
            write = rows.support[0] // self.tiles.stride >= self._first
            if self.quality is not None and layers is not None:
                self.quality.add(rows, cols, layers, mask, write)
            mask = self.main.add(rows, cols, data, mask, write)
            if write:
                self._count(rows, cols, int(mask.sum()))

    def _checkpoint(self, state: dict[str, Any]) -> None:
        if self.quality is not None:
            self.quality.writer.checkpoint(state)
        self.main.writer.checkpoint(state)
        self._saved = state["rows"]


def _block(tiles: TileGrid) -> int:
    """Side of the file's blocks: a multiple of 16 that divides the stride, so that no block is written twice."""
    sides = [n for n in range(16, LARGEST_BLOCK + 1, 16) if tiles.stride % n == 0]
    return sides[-1] if sides else LARGEST_BLOCK

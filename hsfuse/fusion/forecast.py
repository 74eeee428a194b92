"""What a fusion is going to take: disk, memory and time, by a short calibration on the scene itself.

The method is fitted to two small crops and fuses and writes one: what that costs is scaled to the sample, to all tiles
with their halos, and to all pixels. What training on the scene may take is its budget.
"""

from __future__ import annotations

import logging
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from rasterio.windows import Window

from hsfuse.core.cube import FloatArray
from hsfuse.core.errors import HsfuseError
from hsfuse.core.options import FuseOptions
from hsfuse.core.values import counted
from hsfuse.fusion.fitting import fit_method
from hsfuse.fusion.storage import plan_bands
from hsfuse.fusion.tiles import Span, TileGrid, TileWorker, beside
from hsfuse.io import CubeWriter, Storage, driver_of
from hsfuse.io.files import trial_folder
from hsfuse.methods import Method
from hsfuse.pair import ScenePair
from hsfuse.pair.sample import Filling, most_pixels, sample_of

#: Sides of the crops in MSI pixels, and their shares of a scene's at most: trying out isn't to take longer than fusing.
CROPS = (64, 1 / 3), (128, 1 / 2)
#: And in LR pixels at least.
LEAST_LR = 12
#: Tiles that are in memory at once for each that is fused: read ahead, in work, blended, on their way to the disk.
TILES_HELD = 6
#: Side of the corner whose writing tells what a file costs before its pixels.
CORNER = 16
#: Seconds below which it isn't said how few: start and end of a run count for as much.
SURE_S = 5.0
#: Minutes of training where none are given.
TRAINING_MINUTES = 3.0


@dataclass(frozen=True)
class Forecast:
    """What is to come, in bytes and seconds; `seconds` and a packed size only where the scene was tried out."""

    shape: tuple[int, int, int]
    tiles: int
    output: int
    temporary: int
    free: int
    memory: int
    seconds: float | None = None

    def text(self) -> str:
        """One line for people."""
        bands, rows, cols = self.shape
        size = f"{'about' if self.seconds is not None else 'up to'} {_size(self.output)} on disk"
        parts = [f"{rows} x {cols} pixels, {counted(bands, 'band')}, {counted(self.tiles, 'tile')}", size]
        parts += [f"{_size(self.temporary)} more for a while"] if self.temporary else []
        parts += [f"{_size(self.free)} are free", f"about {_size(self.memory)} of memory"]
        parts += [] if self.seconds is None else [_duration(self.seconds)]
        return ", ".join(parts)

    def short(self) -> str:
        """That the disk may be too small, which is sure of what isn't compressed alone; "" where it isn't."""
        need, sure = self.output + self.temporary, "about" if self.seconds is not None else "up to"
        if need <= self.free:
            return ""
        return f"{sure} {_size(need)} are to be written, but {_size(self.free)} are free: it may not fit; make room"

    def to_dict(self) -> dict[str, Any]:
        """For JSON: bytes and seconds."""
        told = {name: getattr(self, name) for name in ("output", "temporary", "free", "memory")}
        seconds = None if self.seconds is None else round(self.seconds, 2)
        return {**{f"{name}_bytes": value for name, value in told.items()}, "seconds": seconds, "tiles": self.tiles}


def forecast(
    pair: ScenePair,
    output: Path,
    options: FuseOptions,
    stored: Storage,
    tiles: TileGrid,
    method: Callable[[], Method] | None,
    device: str,
) -> Forecast:
    """What fusing a pair is going to take; `method` makes one to try out, None: without trying."""
    bands, (rows, cols) = len(plan_bands(pair, options).source), tiles.shape
    size, seconds = float(rows * cols * bands * np.dtype(stored.dtype).itemsize), None
    with suppress(HsfuseError), _untold():  # nothing can be learned of crops: the scene may be fused all the same
        if method is not None:
            seconds, size = _tried(pair, options, stored, tiles, method, device, output)
    side = tiles.stride + tiles.overlap + 2 * tiles.halo
    at_once = TILES_HELD * min(beside(device, options.qa is not None), len(tiles))
    held = 4 * len(pair.hsi_bands) * (at_once * min(side, rows) * min(side, cols) + tiles.overlap * cols)
    held += 4 * min(most_pixels(pair.ratio), rows * cols) * (len(pair.hsi_bands) // pair.ratio**2 + len(pair.msi_bands))
    copied = driver_of(output, options.format) == "COG"
    free = shutil.disk_usage(output.parent).free
    return Forecast(
        (bands, rows, cols), len(tiles), int(size), int(size) if copied else 0, free, _memory_now() + held, seconds
    )


def _tried(
    pair: ScenePair,
    options: FuseOptions,
    stored: Storage,
    tiles: TileGrid,
    method: Callable[[], Method],
    device: str,
    output: Path,
) -> tuple[float, float]:
    """Seconds that fitting, fusing and writing take, and bytes on disk."""
    crops = [_crop(pair, min(side, int(share * min(tiles.shape)))) for side, share in CROPS]
    fitting = []
    for crop in crops:
        scene = sample_of(pair, [crop]).to(device)
        spent, fitted = _timed(partial(fit_method, method(), pair, scene, device))
        fitting.append((scene.msi[0, 0].numel(), spent))
    rows, cols = (_span(crops[0], axis, tiles, pair.ratio) for axis in (0, 1))
    worker = TileWorker(pair, fitted, device, None, Filling.of(scene, pair.model))
    threads = min(beside(device, options.qa is not None), len(tiles))
    (first, _), (spent, tile) = (_timed(lambda: worker.fuse([worker.read(rows, cols)])[0].finish()) for _ in range(2))
    written = _writing(pair, options, stored, tile[0], output)
    area = tiles.shape[0] * tiles.shape[1]
    read = sum(_length(down.read) * _length(right.read) for down in tiles.spans(0) for right in tiles.spans(1))
    seconds = _along(fitting, min(most_pixels(pair.ratio), area))
    seconds += spent * read / (_length(rows.read) * _length(cols.read)) / threads
    seconds += max(0.0, first - spent)  # what happens only once
    seconds += _along([(count, took) for count, took, _ in written], area) * (
        2 if driver_of(output, options.format) == "COG" else 1
    )
    return seconds + _training(options), _along([(count, size) for count, _, size in written], area)


@contextmanager
def _untold() -> Iterator[None]:
    """What methods decide on crops isn't what they are going to decide on the scene."""
    loggers = [logging.getLogger(f"hsfuse.{room}") for room in ("methods", "nets")]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)


def _training(options: FuseOptions) -> float:
    """Seconds that training on the scene may take."""
    if options.method != FuseOptions.method or not options.adapts:
        return 0.0
    return 60 * (TRAINING_MINUTES if options.adapt_minutes is None else options.adapt_minutes)


def _along(found: Sequence[tuple[int, float]], pixels: int) -> float:
    """What so many pixels take, by the line through what few and many of a crop have taken.

    It rises in proportion at most: a small crop may be spared what a method does from some size on.
    """
    (few, small), (many, large) = found[0], found[-1]
    if many == few or large <= small:
        return small
    return min(small + (large - small) / (many - few) * max(0, pixels - few), large / many * max(many, pixels))


def _crop(pair: ScenePair, side: int) -> Window:
    """A square in the scene's middle, in LR pixels."""
    height, width = pair.lr_shape
    count = min(max(-(-side // pair.ratio), LEAST_LR), height, width)
    return Window((width - count) // 2, (height - count) // 2, count, count)


def _span(crop: Window, axis: int, tiles: TileGrid, ratio: int) -> Span:
    first, count = ((crop.row_off, crop.height), (crop.col_off, crop.width))[axis]
    start, stop = int(first) * ratio, int(first + count) * ratio
    return Span((max(0, start - tiles.halo), min(tiles.shape[axis], stop + tiles.halo)), (start, stop), 0, 0)


def _writing(
    pair: ScenePair, options: FuseOptions, stored: Storage, data: FloatArray, output: Path
) -> list[tuple[int, float, int]]:
    """Pixels, seconds and bytes of writing a corner of some fused pixels (C, h, w), and all of them."""
    plan, found = plan_bands(pair, options), []
    for part in (data[:, :CORNER, :CORNER], data):
        shape = part.shape[1], part.shape[2]
        grid, valid, picked = pair.alignment.hr_grid.crop(0, 0, shape), np.ones(shape, bool), plan.pick(part)
        with trial_folder(output) as folder:
            began = time.monotonic()
            with CubeWriter(folder / f"crop{output.suffix}", grid, plan.spectrum, stored, bands=len(picked)) as writer:
                writer.write(Window(0, 0, shape[1], shape[0]), picked, valid)
            spent = time.monotonic() - began
            size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
        found.append((valid.size, spent, size))
    return found


def _timed(call: Callable[[], Any]) -> tuple[float, Any]:
    start = time.monotonic()
    made = call()
    return time.monotonic() - start, made


def _length(span: tuple[int, int]) -> int:
    return span[1] - span[0]


def _memory_now() -> int:
    """Bytes that this process has had at most; 0 on Windows."""
    if sys.platform == "win32":
        return 0
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _size(count: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} TB"


def _duration(seconds: float) -> str:
    if seconds < SURE_S:
        return f"less than {SURE_S:.0f} s"
    if seconds < 90:
        return f"about {seconds:.0f} s"
    return f"about {seconds / 60:.0f} min" if seconds < 5400 else f"about {seconds / 3600:.1f} h"

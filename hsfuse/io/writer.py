"""Writing a cube window by window under a temporary name, moved into place when it is whole."""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from pathlib import Path
from tempfile import gettempdir
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rasterio.errors import RasterioError
from rasterio.windows import Window

from hsfuse.core.cube import BoolArray, FloatArray, Spectrum
from hsfuse.core.errors import OutputError, SettingError
from hsfuse.core.grid import Grid
from hsfuse.io.files import (
    check_output,
    driver_of,
    kept_method,
    move_into_place,
    remove,
    temporary_files,
    trial_folder,
)
from hsfuse.io.gdal import RASTER_ERRORS, one_line
from hsfuse.io.sinks import CogSink, EnviSink, GeoTiffSink, Product, Sink, Storage
from hsfuse.io.zarr_store import ZarrSink, check_packing, discard, write_part


@dataclass(frozen=True)
class Journal:
    """The state of an unfinished output; `fingerprint` says what it is made from, and another one's isn't continued."""

    output: Path
    fingerprint: str

    @property
    def data(self) -> Path:
        """The unfinished file."""
        return self.output.with_name(f".{self.output.stem}.unfinished{self.output.suffix}")

    @property
    def path(self) -> Path:
        """The state."""
        return self.output.with_name(f".{self.output.stem}.unfinished.json")

    def load(self) -> dict[str, Any] | None:
        """The last state saved; None when there is none of this fingerprint, it is damaged, or its file is gone."""
        kept = self._kept()
        fits = kept is not None and kept["fingerprint"] == self.fingerprint and self.data.is_file()
        return kept["state"] if kept is not None and fits else None

    @property
    def damaged(self) -> bool:
        """Whether there is a state that isn't the one that was saved."""
        return self.path.exists() and self._kept() is None

    def _kept(self) -> dict[str, Any] | None:
        """What `save` has written, as its checksum bears out."""
        try:
            kept = json.loads(self.path.read_bytes())
            told = {name: kept[name] for name in ("fingerprint", "state")}
            return told if kept["sha256"] == _checksum(told) else None
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def save(self, state: dict[str, Any]) -> None:
        """Replace the state, whole or not at all."""
        temporary = self.path.with_suffix(".json.part")
        told = {"fingerprint": self.fingerprint, "state": state}
        temporary.write_text(json.dumps({**told, "sha256": _checksum(told)}), encoding="utf-8")
        os.replace(temporary, self.path)

    def clear(self) -> None:
        """Forget what was written."""
        self.path.unlink(missing_ok=True)
        self.path.with_suffix(".json.part").unlink(missing_ok=True)
        self.data.unlink(missing_ok=True)


def _checksum(told: Mapping[str, Any]) -> str:
    return sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()


SINKS: dict[str, Callable[[Product], Sink]] = {
    "GTiff": GeoTiffSink,
    "COG": CogSink,
    "ENVI": EnviSink,
    "Zarr": ZarrSink,
}


#: Side of the trial in pixels, and its bands at most: creation options that many can't have, four or more can't.
TRIAL, TRIAL_BANDS = 16, 8
#: What the output is follows from its grid and encoding; rasterio would let a creation option overrule it.
OWN_KEYS = {"driver", "dtype", "nodata", "count", "height", "width", "crs", "transform", "gcps", "rpcs"}


class CubeWriter:
    """Context manager that writes reflectance to GeoTIFF, COG, ENVI or Zarr as `storage` says: bands on `grid`.

    Numbers on disk are rounded and clipped for integers; valid values never equal nodata; `clipped` counts the values
    that didn't fit. `tags` become HSFUSE_* tags. `bands` is needed only when the spectrum says nothing at all. Windows
    with borders at multiples of the storage's block are written once, a tile written in parts is compressed once for
    each. Leaving the block normally moves the finished files into place, if `publish` hasn't yet; leaving it by an
    exception, KeyboardInterrupt included, removes them.

    With a `fingerprint` (GeoTIFF only) what a `checkpoint` has saved stays after a failure, and the next writer to the
    same path with the same fingerprint goes on with it; `resumed` is then the state that was saved. With another one,
    or where what is kept is damaged, it starts anew, and `discarded` says why.
    Raises OutputError (exists, not writable, disk full, incomplete) and SettingError.
    """

    def __init__(
        self,
        path: str | Path,
        grid: Grid,
        spectrum: Spectrum,
        storage: Storage | None = None,
        *,
        bands: int | None = None,
        tags: Mapping[str, str] | None = None,
        fingerprint: str | None = None,
        overwrite: bool = False,
    ) -> None:
        storage = storage or Storage()
        self.files = check_output(path, overwrite=overwrite, driver=storage.driver)
        self.driver = driver_of(path, storage.driver)
        named = {_tag_name(key): str(value) for key, value in (tags or {}).items()}
        count = _band_count(spectrum, bands)
        if self.driver == "Zarr":
            check_packing(storage.creation_options)
        elif storage.options and self.driver == "ENVI":
            raise SettingError("creation options are for GeoTIFF, COG and Zarr, but the format is ENVI")
        _check_options(storage.creation_options)
        if fingerprint is not None and self.driver != "GTiff":
            raise SettingError(f"only GeoTIFF can go on after an interruption, but the format is {self.driver}")
        self._journal = None if fingerprint is None else Journal(self.files[0], fingerprint)
        self.resumed: dict[str, Any] | None = None
        files = temporary_files(self.files) if self._journal is None else (self._journal.data,)
        self._product = Product(files, grid, spectrum, count, storage, named)
        self._pixels_written, self._published = 0, False
        self.clipped, self.discarded = 0, ""

    @property
    def bands(self) -> int:
        """Number of bands."""
        return self._product.bands

    def __enter__(self) -> CubeWriter:
        try:
            self._sink: Sink = self._open_sink()
        except (*RASTER_ERRORS, OutputError) as error:
            raise self._failed(error) from error
        except BaseException:
            self._remove()
            raise
        return self

    def _open_sink(self) -> Sink:
        if self._journal is not None:
            self.resumed = self._journal.load()
            damaged = self._journal.damaged
            if self.resumed is not None:
                try:
                    sink = GeoTiffSink(self._product, go_on=True)
                except (*RASTER_ERRORS, TypeError):  # the latter is rasterio's where a file is none that GDAL knows
                    self.resumed, damaged = None, True
                else:
                    self._pixels_written = int(self.resumed["pixels"])
                    self.clipped = int(self.resumed.get("clipped", 0))
                    return sink
            if self._journal.path.exists():
                self.discarded = "is damaged" if damaged else "was made otherwise"
            self._journal.clear()
        return SINKS[self.driver](self._product)

    def checkpoint(self, state: dict[str, Any]) -> None:
        """Save how far the output has come; nothing without a fingerprint."""
        if self._journal is None:
            return
        try:
            assert isinstance(self._sink, GeoTiffSink)
            self._sink.flush()
            self._journal.save({**state, "pixels": self._pixels_written, "clipped": self.clipped})
        except RASTER_ERRORS as error:
            raise self._failed(error) from error

    def rewind(self, pixels: int) -> None:
        """Count only the first `pixels` as written: what came after is written again."""
        self._pixels_written, self.clipped = pixels, self.clipped if pixels else 0

    def write(self, window: Window, data: FloatArray, mask: BoolArray) -> None:
        """Write reflectance `data` (C, h, w) with validity `mask` (h, w) to a window; windows must not overlap."""
        wanted = (self._product.bands, int(window.height), int(window.width))
        if data.shape != wanted or mask.shape != wanted[1:]:
            raise ValueError(f"data {data.shape} and mask {mask.shape} don't fit the window and bands {wanted}")
        self.take(window, self._product.storage.encode(data, mask), self._product.storage.clipped(data, mask))

    def elsewhere(self, whole_blocks: bool) -> Callable[[Window, FloatArray, BoolArray], tuple[NDArray | None, int]]:
        """What does in other processes what can be done there of `write`; `take` does the rest with what it gives.

        With `whole_blocks` windows hold whole blocks, so that two processes may write Zarr at once where they see it.
        """
        group = self._product.files[0] if whole_blocks and self.driver == "Zarr" else None
        return partial(_stored, self._product.storage, group, self.files[0])

    def add_tags(self, tags: Mapping[str, str]) -> None:
        """Add HSFUSE_* tags to what is written already, before it is published."""
        try:
            self._sink.add_tags({_tag_name(key): value for key, value in tags.items()})
        except RASTER_ERRORS as error:
            raise self._failed(error) from error

    def take(self, window: Window, raw: NDArray | None, clipped: int) -> None:
        """Write raw numbers (C, h, w), None where that is done, of which so many didn't fit."""
        try:
            if raw is not None:
                self._sink.write(raw, window)
        except RASTER_ERRORS as error:
            raise self._failed(error) from error
        self.clipped += clipped
        self._pixels_written += int(window.height) * int(window.width)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            with suppress(*RASTER_ERRORS):
                self._sink.close()
            self._remove()
        elif not self._published:
            publish([self])

    def _seal(self) -> None:
        """Close the files and see to it that they are whole."""
        try:
            self._sink.close()
            self._sink.verify()
            rows, cols = self._product.grid.shape
            if self._pixels_written != rows * cols:
                raise OutputError(f"{self._pixels_written} of {rows * cols} pixels were written")
        except (*RASTER_ERRORS, OutputError) as error:
            raise self._failed(error) from error
        except BaseException:
            self._remove()
            raise

    def _remove(self) -> None:
        if self._kept():
            return
        for file in self._product.files:
            (discard if self.driver == "Zarr" else remove)(file)

    def _kept(self) -> bool:
        """Whether what is done stays for a run that goes on with it."""
        return self._journal is not None and self._journal.load() is not None

    def _failed(self, error: Exception) -> OutputError:
        """Remove what is there; the error as one line that says how full the disk was and what is left."""
        told = _told(self.files[0], error)
        self._remove()
        left = "what is done is kept, --resume goes on with it" if self._kept() else "nothing is left of it"
        return OutputError(f"{told}; {left}")


def _told(output: Path, error: Exception) -> str:
    """What kept an output from being written, and how full the disk was then."""
    free = shutil.disk_usage(output.parent).free / 2**20
    reason = error.strerror if isinstance(error, OSError) and error.strerror else one_line(error)
    return f"{output} couldn't be written: {reason} ({free:.1f} MiB are free)"


def _stored(
    storage: Storage, group: Path | None, output: Path, window: Window, data: FloatArray, mask: BoolArray
) -> tuple[NDArray | None, int]:
    """The raw numbers of a window, None where they are in the Zarr group already, and how many are clipped."""
    raw = storage.encode(data, mask)
    try:
        done = group is not None and write_part(group, raw, window)
    except RASTER_ERRORS as error:
        raise OutputError(f"{_told(output, error)}; nothing is left of it") from error
    return None if done else raw, storage.clipped(data, mask)


def publish(writers: Sequence[CubeWriter]) -> None:
    """Finish several outputs that have all their pixels: they appear under their names together, or none does.

    To be called inside all their blocks. Raises OutputError.
    """
    for writer in writers:
        writer._seal()
    try:
        move_into_place([(writer._product.files, writer.files) for writer in writers])
    except OSError as error:
        raise writers[0]._failed(error) from error
    for writer in writers:
        writer._published = True
        (writer._journal or Journal(writer.files[0], "")).clear()  # an earlier unfinished one is obsolete, too
        if writer._journal is None:
            kept_method(writer.files[0]).unlink(missing_ok=True)


def try_writing(
    path: str | Path,
    grid: Grid,
    spectrum: Spectrum,
    storage: Storage | None = None,
    fingerprint: str | None = None,
    *,
    elsewhere: bool = False,
) -> None:
    """Write a few pixels as `path` is going to be written, to a hidden folder beside it; SettingError when it can't be.

    Nor may GDAL say that it has no use for a creation option. `elsewhere`: among the system's temporary files, so that
    the output's folder isn't touched.
    """
    part = grid.crop(0, 0, (TRIAL, TRIAL))
    few = spectrum.select(range(min(TRIAL_BANDS, _band_count(spectrum, None))))
    with trial_folder(Path(gettempdir()) / Path(path).name if elsewhere else path) as folder:
        try:
            with (
                _refusing(path, folder),
                CubeWriter(folder / f"trial{Path(path).suffix}", part, few, storage, fingerprint=fingerprint) as writer,
            ):
                blank = np.zeros((writer.bands, *part.shape), np.float32)
                writer.write(Window(0, 0, TRIAL, TRIAL), blank, np.ones(part.shape, bool))
        except OutputError as error:
            cause = error.__cause__ or error
            if isinstance(cause, RasterioError) or not isinstance(cause, OSError):  # that would be the folder's
                raise _refused(path, folder, one_line(cause)) from error


def _refused(path: str | Path, folder: Path, why: str) -> SettingError:
    """Why GDAL couldn't write the trial in a folder, by the name of the output."""
    why = re.sub(rf"({re.escape(str(folder))}/)?\.trial\.\w+\.part(\.cog)?", Path(path).stem, why)
    return SettingError(f"{path} can't be written this way: {why}")


class _Refusals(logging.Handler):
    """What rasterio hands on of GDAL's warnings that something isn't supported, by the class of the warning."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.told: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep it."""
        args = record.args if isinstance(record.args, tuple) else ()
        if "CPLE_NotSupported" in map(str, args):
            self.told.append(str(args[-1]))


@contextmanager
def _refusing(path: str | Path, folder: Path) -> Iterator[None]:
    """SettingError at the end where GDAL, inside, has told that something isn't supported."""
    handler, logger = _Refusals(), logging.getLogger("rasterio._env")
    before = logger.level, logger.propagate
    logger.addHandler(handler)
    logger.setLevel(logging.WARNING)
    logger.propagate = False  # it is said once, by the error
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.propagate = before[1]
        logger.setLevel(before[0])
    if handler.told:
        raise _refused(path, folder, handler.told[0])


def _check_options(options: Mapping[str, str]) -> None:
    own = ", ".join(sorted(OWN_KEYS & set(options))).upper()
    if own:
        raise SettingError(
            f"{own} can't be given as a creation option: size and place follow from the inputs, the type from --dtype; "
            "wanted such as COMPRESS=ZSTD"
        )


def _tag_name(key: str) -> str:
    name = key.upper().replace(" ", "_")
    return name if name.startswith("HSFUSE_") else f"HSFUSE_{name}"


def _band_count(spectrum: Spectrum, bands: int | None) -> int:
    """The number of bands, which all that the spectrum says must agree on."""
    said = (spectrum.wavelengths_nm, spectrum.fwhm_nm, spectrum.names, spectrum.good)
    counts = {len(values) for values in said if values is not None} | ({bands} if bands is not None else set())
    if len(counts) != 1:
        raise ValueError(f"the spectrum must say or `bands` must give one number of bands, not {sorted(counts)}")
    return counts.pop()

"""What every reader of a cube has in common: pixels by window as scaled float32 with a validity mask."""

from __future__ import annotations

import logging
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from math import ceil, isnan, sqrt
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from rasterio.windows import Window

from hsfuse.core.cube import BoolArray, Cube, FloatArray, Spectrum
from hsfuse.core.errors import InputError
from hsfuse.core.grid import Grid
from hsfuse.core.notes import Note, about_file, note

if TYPE_CHECKING:
    from scipy import sparse

log = logging.getLogger(__name__)

#: Seconds after which reading that has failed is tried again, once each: network file systems fail for moments.
WAITS_S = 0.1, 1.0
Role = Literal["HSI", "MSI", "raster"]
Quantity = Literal["reflectance", "radiance", "unknown"]
#: One file or product, or several files that make one image.
Paths = str | Path | Sequence[str | Path]


def own_quantity(tags: Mapping[str, str]) -> Quantity:
    """What hsfuse wrote that the values are."""
    known: dict[str | None, Quantity] = {"reflectance": "reflectance", "radiance": "radiance"}
    return known.get(tags.get("HSFUSE_QUANTITY"), "unknown")


def _again(opened: Callable[[], CubeReader], steps: Sequence[tuple[str, tuple[Any, ...]]]) -> CubeReader:
    """A reader as it was opened, and then changed step by step."""
    reader = opened()
    for method, arguments in steps:
        reader = getattr(reader, method)(*arguments)
    return reader


class CubeReader(ABC):
    """An open cube (a context manager, not to be shared between threads).

    `path`, `files`, `driver`, `grid`, `spectrum` (nm), `dtype` (on disk), `scales`, `offsets` (value = raw * scale +
    offset, one per band), `nodata_values` (raw, one per band), `quantity` (what the metadata says the values are),
    `tags` (hsfuse's own) and `notes` (worth saying aloud) say what it is; `nonfinite` counts the pixels with NaN or Inf
    that `read` has met. A subclass sets them while it opens and gives raw pixels by `pixels`; from then on a reader
    stays as it is. Another unit or mask (`rescaled`, `holding`, `with_nodata`, `without_fill`, `with_values`,
    `without_stripes`, `without_detector_errors`) is another reader of the same open files, which are closed once, by
    any of them. Pickled, what `open_cube` has opened is opened again where it is unpickled.
    """

    files: tuple[Path, ...]
    driver: str
    grid: Grid
    spectrum: Spectrum
    dtype: str
    scales: NDArray[np.float64]
    offsets: NDArray[np.float64]
    nodata_values: Sequence[float | None]
    #: Opens the same files once more; None for what `open_cube` hasn't opened.
    opened: Callable[[], CubeReader] | None = None

    def __init__(self, path: Path, role: Role = "raster") -> None:
        self.path, self.role = path, role
        self.quantity: Quantity = "unknown"
        self.notes: list[Note] = []
        self.tags: dict[str, str] = {}
        self.nonfinite = 0
        self._stripes: FloatArray | None = None
        self._row_stripes: FloatArray | None = None
        self._detector_errors: tuple[tuple[FloatArray, sparse.csr_array | FloatArray], ...] = ()
        self._values: tuple[NDArray[np.intp], FloatArray] | None = None
        self._masked_values: tuple[float, ...] = ()
        self._masked_together: tuple[tuple[float, tuple[int, ...]], ...] = ()
        self._steps: tuple[tuple[str, tuple[Any, ...]], ...] = ()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.path}: {self.count} bands, {self.grid.describe()})"

    @property
    def count(self) -> int:
        """Number of bands."""
        return len(self.scales)

    @property
    def native_bands(self) -> list[int]:
        """The bands (0-based) whose pixels are read as they are on disk, brought to no other GSD."""
        return list(range(self.count))

    @property
    def scale(self) -> float:
        """The first band's scale, all bands' where they agree."""
        return float(self.scales[0])

    @property
    def offset(self) -> float:
        """The first band's offset, all bands' where they agree."""
        return float(self.offsets[0])

    @property
    def nodata(self) -> float | None:
        """The first band's nodata value, raw."""
        return self.nodata_values[0]

    @abstractmethod
    def pixels(
        self, bands: Sequence[int], window: Window, shape: tuple[int, int] | None = None
    ) -> tuple[NDArray, BoolArray | None]:
        """Raw pixels (C, h, w) of bands (0-based) in a window inside the grid, and the mask of the product, if any.

        With `shape`, decimated to it. InputError when the file can't be read.
        """

    def fetch(
        self, bands: Sequence[int], window: Window, shape: tuple[int, int] | None = None
    ) -> tuple[NDArray, BoolArray | None]:
        """`pixels` of a window, in whole pixels; where reading fails it is tried again, a few times, and that told."""
        window = self._checked(window)
        for wait in WAITS_S:
            try:
                return self.pixels(bands, window, shape)
            except InputError as error:
                if error.__cause__ is None:  # what is wrong isn't the reading
                    raise
                log.warning("%s; trying again in %g s", error, wait)
            time.sleep(wait)
        try:
            return self.pixels(bands, window, shape)
        except InputError as error:
            gone = [file for file in self.files if file.parent.is_dir() and not file.exists()]
            if not gone:
                raise
            raise InputError(f"{error}; {gone[0]} isn't there any more") from error

    @abstractmethod
    def close(self) -> None:
        """Close the files."""

    def tag(self, **told: str | None) -> None:
        """Add tags, by their names in lower case; what is unknown (None or empty) isn't one."""
        self.tags |= {name.upper(): value for name, value in told.items() if value}

    def _note(self, text: str) -> None:
        self.notes.append(about_file(self.path.name, text))

    def _changed(self, *step: Any, **attributes: object) -> Self:
        """Another reader of the same open files, with some attributes of its own.

        `step` is the call that asks for it, method and arguments.
        """
        other = object.__new__(type(self))
        other.__dict__.update(self.__dict__)
        other.notes, other.tags = list(self.notes), dict(self.tags)
        if step:
            other._steps = (*self._steps, (step[0], step[1:]))
        for name, value in attributes.items():
            setattr(other, name, value)
        return other

    def rescaled(self, factor: float) -> Self:
        """The same pixels with all values multiplied by a factor."""
        stripes = {
            name: None if own is None else own * np.float32(factor)
            for name, own in (("_stripes", self._stripes), ("_row_stripes", self._row_stripes))
        }
        values = None if self._values is None else (self._values[0], self._values[1] * np.float32(factor))
        own = {"scales": self.scales * factor, "offsets": self.offsets * factor, "_values": values}
        return self._changed("rescaled", factor, **own, **stripes)

    def with_values(self, places: NDArray[np.intp], values: FloatArray) -> Self:
        """The same pixels with `values` (n,), as read now, at `places` (3, n): row, column and band of each.

        NaN is a gap. Of an earlier call nothing stays.
        """
        order = np.argsort(places[0], kind="stable")
        return self._changed("with_values", places, values, _values=(places[:, order], values[order]))

    def without_stripes(self, stripes: FloatArray, along_rows: bool = False) -> Self:
        """The same pixels less what each detector adds to its column: `stripes` (C, columns), in values as read now.

        `along_rows`: less what is added to each row, (C, rows).
        """
        name = "_row_stripes" if along_rows else "_stripes"
        return self._changed("without_stripes", stripes, along_rows, **{name: stripes.astype(np.float32)})

    def without_detector_errors(self, terms: Sequence[tuple[FloatArray, sparse.csr_array | FloatArray]]) -> Self:
        """The same spectra y as right detectors would see them: less weights * (matrix @ y), summed over `terms`.

        A term's weights (C, columns) are, for instance, how many nm a detector lies above its band's wavelength, and
        its matrix (C, C) what makes the derivative by nm; or 1 for a dead detector, and what stands there less what
        other bands tell. A detector of which no valid neighbour is known stays as it is. Terms of an earlier call stay.
        """
        return self._changed("without_detector_errors", terms, _detector_errors=(*self._detector_errors, *terms))

    def holding(self, quantity: Quantity) -> Self:
        """The same pixels, said to be of a quantity."""
        return self._changed("holding", quantity, quantity=quantity)

    def with_nodata(self, value: float | None) -> Self:
        """The same file with one raw value for nodata in all bands, in place of what it declares; None: with none."""
        values = [value] * self.count
        return self._changed("with_nodata", value, nodata_values=values, _masked_values=(), _masked_together=())

    def without_fill(self, values: Sequence[float], together: Sequence[float], bands: Sequence[int]) -> Self:
        """The same file with more masked: raw `values` in any band, and `together` where all of `bands` hold them."""
        both = self._masked_together + tuple((value, tuple(bands)) for value in together)
        all_values = (*self._masked_values, *values)
        step = ("without_fill", values, together, bands)
        return self._changed(*step, _masked_values=all_values, _masked_together=both)

    def turned(self) -> CubeReader:
        """The same pixels on the same ground with the rows in the opposite order."""
        made: TurnedReader = object.__new__(TurnedReader)
        made.__dict__.update(self._changed("turned").__dict__)
        made.grid, made._source = self.grid.turned(), self
        return made

    def read(self, window: Window | None = None, bands: Sequence[int] | None = None) -> Cube:
        """Cube of the window (default: all) and bands (0-based; default: all), reflectance float32.

        The mask is True where these bands (those of them that are good, if any is) are all valid: not nodata, finite,
        not masked by the file. Invalid pixels are 0. A pixel read twice counts twice in `nonfinite`. InputError when
        the file can't be read.
        """
        window = self._whole() if window is None else window
        chosen = list(range(self.count)) if bands is None else list(bands)
        spectrum = self.spectrum.select(chosen)
        raw, file_mask = self.fetch(chosen, window)
        data, valid, nonfinite = self._decode(raw, chosen)
        self._put_right(data, valid, chosen, window)
        if self._detector_errors:
            data -= self._erring(data, valid, chosen, window)
        asked = np.array(spectrum.good if spectrum.good is not None and any(spectrum.good) else [True] * len(chosen))
        self.nonfinite += int(nonfinite[asked].any(axis=0).sum())
        mask = valid[asked].all(axis=0)
        if file_mask is not None:
            mask &= file_mask
        if self._masked_together:
            mask &= ~self._filled(raw, chosen, window, None)
        data[:, ~mask] = 0
        return Cube(data, self.grid.window(window), spectrum, mask)

    def _put_right(self, data: FloatArray, valid: BoolArray, bands: Sequence[int], window: Window) -> None:
        """Put what is known better into bands (C, h, w) of a window and take stripes out of them, in place."""
        if self._values is not None:
            top, left, (rows, cols, own) = int(window.row_off), int(window.col_off), self._values[0]
            some = slice(*np.searchsorted(rows, (top, top + data.shape[1])))
            at = np.full(self.count, -1)
            at[list(bands)] = np.arange(len(bands))
            here = (at[own[some]] >= 0) & (cols[some] >= left) & (cols[some] < left + data.shape[2])
            place = at[own[some]][here], rows[some][here] - top, cols[some][here] - left
            data[place] = self._values[1][some][here]
            valid[place] &= np.isfinite(data[place])
        if self._stripes is not None:
            first = int(window.col_off)
            data -= self._stripes[bands, first : first + data.shape[2]][:, None]
        if self._row_stripes is not None:
            first = int(window.row_off)
            data -= self._row_stripes[bands, first : first + data.shape[1]][:, :, None]

    def _erring(self, data: FloatArray, valid: BoolArray, bands: Sequence[int], window: Window) -> FloatArray:
        """What detectors' errors add to bands (C, h, w) of a window; other bands are read if need be."""
        rows, first = [matrix[bands] for _, matrix in self._detector_errors], int(window.col_off)
        known = np.flatnonzero(sum(abs(some).sum(0) for some in rows))
        missing = np.setdiff1d(known, bands).tolist()
        if missing:
            more, fine, _ = self._decode(self.fetch(missing, window)[0], missing)
            self._put_right(more, fine, missing, window)
            data, valid = np.concatenate([data, more]), np.concatenate([valid, fine])
        flat, gaps = data.reshape(len(data), -1), (~valid).reshape(len(valid), -1).astype(np.float32)
        change = np.zeros((len(bands), *data.shape[1:]), np.float32)
        for some, (weights, _) in zip(rows, self._detector_errors, strict=True):
            own = some[:, [*bands, *missing]]
            part = (own @ flat).reshape(change.shape)
            if not valid.all():
                part[(abs(own) @ gaps).reshape(change.shape) > 0] = 0
            change += part * weights[bands, first : first + data.shape[2]][:, None]
        return change

    def sample(self, bands: Sequence[int], shape: tuple[int, int]) -> tuple[FloatArray, BoolArray]:
        """Decimated look at bands (0-based): data and validity of each band, both (C, *shape)."""
        return self.sample_of(self._whole(), bands, shape)

    def sample_of(self, window: Window, bands: Sequence[int], shape: tuple[int, int]) -> tuple[FloatArray, BoolArray]:
        """The same of a window; InputError when it isn't inside the image, or the image is warped."""
        raw, file_mask = self.fetch(bands, window, shape)
        data, valid, _ = self._decode(raw, bands)
        if self._masked_together:
            valid &= ~self._filled(raw, bands, window, shape)
        return data, valid if file_mask is None else valid & file_mask

    def _filled(self, raw: NDArray, bands: Sequence[int], window: Window, shape: tuple[int, int] | None) -> BoolArray:
        """Where bands that must agree hold a fill value or no number (h, w); those not given are read if need be."""
        filled = np.zeros(raw.shape[1:], bool)
        for value, together in self._masked_together:
            own = [i for i, band in enumerate(bands) if band in together]
            held = raw[own] == value
            found = held.any(axis=0)
            if found.any():
                found &= (held | ~self.holds_numbers(raw[own], [bands[i] for i in own])).all(axis=0)
            missing = [band for band in together if band not in bands]
            if missing and found.any():
                rest = self.fetch(missing, window, shape)[0]
                found &= ((rest == value) | ~self.holds_numbers(rest, missing)).all(axis=0)
            filled |= found
        return filled

    def holds_numbers(self, raw: NDArray, bands: Sequence[int]) -> BoolArray:
        """Which raw pixels (C, h, w) of bands (0-based) are finite and not what these declare to be nodata."""
        known = np.isfinite(raw) if raw.dtype.kind == "f" else np.ones(raw.shape, bool)
        for i, band in enumerate(bands):
            if (blank := _is_nodata(raw[i], self.nodata_values[band])) is not None:
                known[i] &= ~blank
        return known

    def _whole(self) -> Window:
        return Window(0, 0, self.grid.shape[1], self.grid.shape[0])

    def _checked(self, window: Window) -> Window:
        """The window in whole pixels; InputError when it isn't inside the image."""
        row, col, h, w = (int(v) for v in (window.row_off, window.col_off, window.height, window.width))
        rows, cols = self.grid.shape
        if min(row, col) < 0 or min(h, w) < 1 or row + h > rows or col + w > cols:
            raise InputError(f"a window of {h} x {w} pixels at ({row}, {col}) isn't inside {self.path}")
        return Window(col, row, w, h)

    def _decode(self, raw: NDArray, bands: Sequence[int]) -> tuple[FloatArray, BoolArray, BoolArray]:
        """Reflectance, validity, and where there is a NaN or Inf that isn't nodata, all (C, h, w); invalid values 0."""
        with np.errstate(over="ignore"):  # float64 nodata such as -1.8e308
            data = raw.astype(np.float32)
        valid = np.isfinite(data)
        nonfinite = ~valid
        masked = _met(raw, self._masked_values)
        for i, band in enumerate(bands):
            for value in (self.nodata_values[band], *masked):
                blank = _is_nodata(raw[i], value)
                if blank is not None:
                    valid[i] &= ~blank
                    nonfinite[i] &= ~blank
            scale, offset = self.scales[band], self.offsets[band]
            if scale != 1 or offset != 0:
                data[i] = data[i] * np.float32(scale) + np.float32(offset)
            data[i, ~valid[i]] = 0
        return data, valid, nonfinite

    def __reduce_ex__(self, protocol: Any) -> Any:
        if self.opened is None:
            return super().__reduce_ex__(protocol)
        return _again, (self.opened, self._steps)

    def again(self) -> CubeReader:
        """The same reader with files of its own, which it closes itself."""
        make, arguments = self.__reduce_ex__(4)[:2]
        again: CubeReader = make(*arguments)
        return again

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class TurnedReader(CubeReader):
    """A cube whose rows are read in the opposite order; see `CubeReader.turned`."""

    _source: CubeReader

    @property
    def native_bands(self) -> list[int]:
        """As of any reader."""
        return self._source.native_bands

    def pixels(
        self, bands: Sequence[int], window: Window, shape: tuple[int, int] | None = None
    ) -> tuple[NDArray, BoolArray | None]:
        """As of any reader."""
        first = self.grid.shape[0] - window.row_off - window.height
        raw, mask = self._source.pixels(bands, Window(window.col_off, first, window.width, window.height), shape)
        return raw[:, ::-1], None if mask is None else mask[::-1]

    def close(self) -> None:
        """Close the files."""
        self._source.close()


def _met(raw: NDArray, values: Sequence[float]) -> list[float]:
    """The values that lie within the range of the raw numbers, NaN left out."""
    if not values or not raw.size:
        return []
    low, high = np.fmin.reduce(raw, axis=None), np.fmax.reduce(raw, axis=None)
    return [value for value in values if low <= np.float64(value).astype(raw.dtype) <= high]


def _is_nodata(raw: NDArray, nodata: float | None) -> BoolArray | None:
    """Where the raw values are nodata; None when they can't be."""
    if nodata is None:
        return None
    if isnan(nodata):
        return None if np.issubdtype(raw.dtype, np.integer) else np.isnan(raw)
    with np.errstate(over="ignore"):
        return raw == (nodata if np.issubdtype(raw.dtype, np.integer) else raw.dtype.type(nodata))


#: Bands that are told by number, at most.
_NAMED = 6
#: Bands looked at in one go, to bound memory.
_BANDS_AT_ONCE = 64

#: Pixels of a scan window times bands, to bound memory (32 MB of float32).
_SCAN_VALUES = 2**23


def usable_bands(reader: CubeReader, max_pixels: int = 2**16) -> NDArray[np.bool_]:
    """(C,) True for bands that hold something: good by the bad band list, valid somewhere, not one value <= 0 all over.

    Decides as `band_contents` does.
    """
    return band_contents(reader, max_pixels)[0]


def band_contents(reader: CubeReader, max_pixels: int = 2**16) -> tuple[NDArray[np.bool_], FloatArray]:
    """Which bands (C,) are usable, see `usable_bands`, and the one value that a band has all over, else NaN (C,).

    Decides on a decimated read of at most about `max_pixels` pixels; a band without a valid value there is scanned in
    full. When every band is constant (a flat scene) constancy tells nothing and is not held against them.
    """
    usable = np.array(reader.spectrum.good or [True] * reader.count)
    shape = _decimated(reader.grid.shape, max_pixels)
    constant = np.full(reader.count, np.nan, np.float32)
    for start in range(0, reader.count, _BANDS_AT_ONCE):
        bands = range(start, min(start + _BANDS_AT_ONCE, reader.count))
        data, valid = reader.sample(bands, shape)
        for band, values, ok in zip(bands, data, valid, strict=True):
            if not ok.any():
                usable[band] &= valid_anywhere(reader, [band])
            elif values[ok].min() == values[ok].max():
                constant[band] = values[ok][0]
    flat = constant <= 0
    return usable if flat[usable].all() else usable & ~flat, constant


def constant_bands(reader: CubeReader, constant: FloatArray, advice: str = "") -> list[Note]:
    """A word on bands of one value all over: that value of each, else NaN (C,)."""
    found = np.flatnonzero(~np.isnan(constant))
    if not found.size:
        return []
    which = ", ".join(f"band {i + 1} ({constant[i]:g})" for i in found[:_NAMED])
    which += f" and {found.size - _NAMED} more" if found.size > _NAMED else ""
    which = "all of them" if 1 < found.size == constant.size else which
    return [note("bands-constant", file=reader.path.name, which=which, advice=advice)]


def check_valid(reader: CubeReader, bands: Sequence[int] | None = None) -> None:
    """Raise InputError when no pixel is valid in all the bands (0-based; default: the usable ones)."""
    chosen = np.flatnonzero(usable_bands(reader)).tolist() if bands is None else list(bands)
    if not chosen or not valid_anywhere(reader, chosen):
        raise InputError(f"{reader.path} has no valid pixel: all of it is nodata, NaN or masked")


def _decimated(shape: tuple[int, int], max_pixels: int) -> tuple[int, int]:
    step = max(1.0, sqrt(shape[0] * shape[1] / max_pixels))
    return ceil(shape[0] / step), ceil(shape[1] / step)


def valid_anywhere(reader: CubeReader, bands: Sequence[int], within: Window | None = None) -> bool:
    """Whether a pixel (of a window) is valid in all these bands, looking from the middle outwards to the first one."""
    within = Window(0, 0, *reader.grid.shape[::-1]) if within is None else within
    before = reader.nonfinite
    try:
        return any(reader.read(window, bands).mask.any() for window in _scan(within, len(bands)))
    finally:
        reader.nonfinite = before  # this look isn't part of the caller's reading


def _scan(within: Window, bands: int) -> Iterator[Window]:
    """Windows that cover a window, the middle rows first, where valid pixels usually are."""
    height, width = int(within.height), int(within.width)
    rows = max(1, min(height, _SCAN_VALUES // (bands * width)))
    for row in sorted(range(0, height, rows), key=lambda r: abs(r + rows // 2 - height // 2)):
        yield Window(within.col_off, within.row_off + row, width, min(rows, height - row))

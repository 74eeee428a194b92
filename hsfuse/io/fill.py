"""Fill that nobody declared: numbers that stand for "no measurement" in files that name no nodata value.

What is looked for are the numbers in use for it (-9999 and the like, the ends of an integer type, magnitudes that no
sensor gives), zeros in all bands of a pixel, and any one number that is the lowest or highest of all bands. It is
masked where it is beyond doubt: a number that lies far outside all others, or zeros with hardly a pixel that is nearly
zero beside them, which dark ground always has.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import ceil, isnan, sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rasterio.windows import Window

from hsfuse.core.cube import BoolArray, Cube
from hsfuse.core.notes import Note, note, texts, warning
from hsfuse.core.options import parse_nodata
from hsfuse.io.reader import CubeReader

log = logging.getLogger(__name__)

#: Numbers that producers write where they have measured nothing.
USUAL = (-999.0, -9999.0, -99999.0, -32768.0)
#: No radiance or reflectance, however scaled, is as large: netCDF's and GDAL's own fill values are.
NO_MEASUREMENT = 1e20
#: Those of them that are in use: netCDF's, CMIP's, and the ends of floating point numbers.
EXTREMES = tuple(
    sign * value for value in (float(np.finfo("f4").max), 9.969209968386869e36, 1e30, 1e20) for sign in (1, -1)
)
#: Numbers that are mostly this large, this many times smaller than 1, or this many times apart, are no measurements.
FAR = 1e15
#: Values looked at, all bands together: larger images are looked at decimated.
LOOK = 2**25
#: Values held in memory at once, and of those kept to know the range of the others by.
AT_ONCE, KEPT = 2**21, 2**16
#: A fill value lies outside the others' range by this share of the range: below zero, and above.
BELOW, ABOVE = 0.25, 1.0
#: Pixels are nearly zero below this share of the median pixel; this many of them for each zero one cast doubt.
NEARLY, FEW = 0.05, 0.02
#: Fewest bands that are all zero by no chance.
LEAST_BANDS = 3


@dataclass(frozen=True)
class Fill:
    """A raw `value` that may be fill, and how many of the `looked` pixels hold it.

    In all of `bands` (0-based, those that aren't constant) at once when `together`, else in one of them at least;
    `certain`: beyond doubt.
    """

    value: float
    pixels: int
    looked: int
    bands: tuple[int, ...]
    together: bool
    certain: bool

    def describe(self) -> str:
        """One line for people."""
        where = "in all bands" if self.together else "in some band"
        return f"{self.pixels} of {self.looked} pixels hold {self.value:.10g} {where} and no nodata value says so"


def _find(reader: CubeReader, facts: _Facts) -> list[Fill]:
    """What may be fill among the raw numbers, looked at whole or, in images beyond `LOOK` values, decimated."""
    bands = facts.bands(reader)
    suspects = facts.suspects(reader)
    zero = facts.zeros_everywhere() and not _declared(reader, 0.0)
    if not suspects and not zero:
        return []
    counts, together = dict.fromkeys(suspects, 0), dict.fromkeys(suspects, 0)
    sizes: list[NDArray] = []
    looked = 0
    for raw, known in _strips(reader):
        live, known = raw[facts.live], known[facts.live]
        looked += raw.shape[1]
        most = known.sum(axis=0) * 2 > len(known)
        for value in suspects:
            held = (live == value) & known
            here = held.any(axis=0)
            counts[value] += int(here.sum())
            together[value] += int((held | ~known).all(axis=0)[here].sum())
            known &= ~here
            most &= ~here
        if zero:
            sizes.append(np.abs(np.where(known, live, 0)[:, most].astype(np.float32)).max(axis=0, initial=0))
    low, high = facts.range_without([*suspects, *(value for value in reader.nodata_values if value is not None)])
    found = [
        Fill(value, count, looked, bands, together[value] == count, _outside(value, low, high))
        for value, count in counts.items()
        if count
    ]
    # One end of an integer type in a single band is a bright or dark pixel as any other.
    found = [fill for fill in found if fill.certain or together[fill.value]]
    common = facts.common()
    found = [fill for fill in found if fill.value not in common or (fill.certain and fill.together)]
    if zero:
        count, certain = _zeros(np.concatenate(sizes))
        found += [Fill(0.0, count, looked, bands, True, certain)] if count else []
    return found


def settle_fill(
    reader: CubeReader, nodata: str | float | None = None, option: str | None = None
) -> tuple[CubeReader, list[Note], list[Note]]:
    """The reader with fill masked, what was left alone, and what to warn of; an `option` is named in the advice.

    `nodata` says it outright, as a raw number or "none"; None: what is beyond doubt is masked, in an image too large to
    be looked at whole also where it wasn't seen. SettingError when it is neither a number nor "none".
    """
    if nodata is not None:
        return reader.with_nodata(parse_nodata(nodata, option or "nodata")), [], []
    notes, warnings, certain = [], [], []
    facts = _look(reader)
    for fill in _find(reader, facts):
        told = {"file": reader.path.name, "fill": fill.describe(), "value": fill.value, "pixels": fill.pixels}
        if fill.certain:
            certain.append(fill)
            warnings.append(warning("fill-masked", advice=f" ({option} none keeps them)" if option else "", **told))
        else:
            advice = f"say {option} {fill.value:.10g}" if option else "declare it in the file"
            notes.append(note("fill-kept", advice=advice, **told))
    low, usual, high = facts.sizes([fill.value for fill in certain])
    if not 1 / FAR < usual < FAR or high > FAR * low:
        warnings.append(warning("numbers-extreme", file=reader.path.name, low=low, high=high))
    values = [fill.value for fill in certain if fill.value != 0]
    together = [fill.value for fill in certain if fill.value == 0]
    rows, cols = reader.grid.shape
    if (step := _step(rows * cols, len(reader.native_bands))) > 1:
        known = {fill.value for fill in certain} | {note.values["value"] for note in notes}
        unseen = [value for value in _unseen(reader, facts) if value not in known]
        if unseen:
            listed = ", ".join(f"{value:.6g}" for value in unseen)
            notes.append(note("fill-unseen", file=reader.path.name, step=f"{step:.2g}", fill=listed))
        values += [value for value in unseen if value != 0]
        together += [value for value in unseen if value == 0]
    if not values and not together:
        return reader, notes, warnings
    return reader.without_fill(values, together, facts.bands(reader)), notes, warnings


def without_fill(reader: CubeReader) -> CubeReader:
    """The reader as `settle_fill` gives it, what it has to say logged."""
    reader, kept, masked = settle_fill(reader)
    for line in texts(kept):
        log.info("%s", line)
    for line in texts(masked):
        log.warning("%s", line)
    return reader


def _unseen(reader: CubeReader, facts: _Facts) -> list[float]:
    """Numbers in use for fill that would be it beyond doubt wherever the look, which was decimated, has missed them."""
    low, high = facts.range_without([])
    kind = np.dtype(reader.dtype)
    known = (*_ends(kind), *USUAL) if kind.kind in "iu" else (*USUAL, *EXTREMES)
    fitting = [float(value) for value in known if kind.kind == "f" or np.iinfo(kind).min <= value <= np.iinfo(kind).max]
    found = [value for value in fitting if not isnan(low) and _outside(value, low, high)]
    sizes = np.fmax.reduce(np.abs(facts.values), axis=0, initial=0)
    if len(facts.values) >= LEAST_BANDS and sizes.size and sizes.min() >= NEARLY * np.median(sizes) > 0:
        found.append(0.0)
    return [value for value in dict.fromkeys(found) if not _declared(reader, value)]


@dataclass(frozen=True)
class _Facts:
    """Of each native band the lowest and highest number and how often it has 0 or none; `live`: good, not constant.

    `values` (live, n) is a sample of their numbers, NaN where there is none, `usual` what such files have fill by.
    """

    live: BoolArray
    lowest: NDArray
    highest: NDArray
    zeros: NDArray[np.int64]
    values: NDArray
    usual: tuple[float, ...]

    def suspects(self, reader: CubeReader) -> list[float]:
        """The usual fill values that some band that isn't constant holds or may hold, and extremes."""
        if not self.live.any():
            return []
        low, high = float(self.lowest[self.live].min()), float(self.highest[self.live].max())
        known = [value for value in self.usual if low <= value <= high] + self.common()
        known += [value for value in (low, high) if abs(value) >= NO_MEASUREMENT]
        return [value for value in dict.fromkeys(known) if not _declared(reader, value)]

    def common(self) -> list[float]:
        """A number in no usual use for fill that is the lowest, or the highest, of every band."""
        if int(self.live.sum()) < LEAST_BANDS:
            return []
        ends = [extreme[self.live] for extreme in (self.lowest, self.highest)]
        found = [float(end[0]) for end in ends if (end == end[0]).all()]
        whole = self.values[:, ~np.isnan(self.values).any(axis=0)]
        alike = (whole == whole[:1]).all(axis=0) & ~np.isin(whole[0], found)
        if alike.sum() > FEW * alike.size:  # bands that are one another's copies: the same number in all tells nothing
            return []
        return [value for value in found if value != 0 and value not in self.usual and abs(value) < NO_MEASUREMENT]

    def bands(self, reader: CubeReader) -> tuple[int, ...]:
        """The bands (0-based) that are live."""
        return tuple(band for band, live in zip(reader.native_bands, self.live, strict=True) if live)

    def sizes(self, known: list[float]) -> tuple[float, float, float]:
        """The sizes below which lie 5, 50 and 95 % of the numbers that aren't 0 nor those known; 1 without any."""
        sizes = np.abs(self._but([0.0, *known]))
        low, usual, high = np.percentile(sizes, (5, 50, 95)) if sizes.size else (1.0, 1.0, 1.0)
        return float(low), float(usual), float(high)

    def zeros_everywhere(self) -> bool:
        """Whether every band in use has some zeros, or gaps."""
        return int(self.live.sum()) >= LEAST_BANDS and bool((self.zeros[self.live] > 0).all())

    def _but(self, known: list[float]) -> NDArray[np.float64]:
        """The values (n,) that aren't NaN nor those known."""
        return self.values[~np.isin(self.values, known) & ~np.isnan(self.values)]

    def range_without(self, known: list[float]) -> tuple[float, float]:
        """What nearly all other values than those known lie between; NaN when there are none."""
        others = self._but(known)
        if not others.size:
            return float("nan"), float("nan")
        low, high = np.percentile(others, (0.1, 99.9))
        return float(low), float(high)


def _look(reader: CubeReader) -> _Facts:
    """One pass over the strips."""
    parts, kind = [], np.dtype(reader.dtype)
    usual = (
        tuple(float(kind.type(value)) for value in (*USUAL, *EXTREMES)) if kind.kind == "f" else (*USUAL, *_ends(kind))
    )
    for raw, known in _strips(reader):
        if (some := known.any(axis=0)).any():
            seen, fine = raw[:, some].astype(np.float64), known[:, some]
            seen[~fine] = np.nan
            few = seen[:, :: max(1, seen.size // KEPT)]
            none = ((seen == 0) | ~fine).sum(axis=1)
            parts.append((np.fmin.reduce(seen, 1), np.fmax.reduce(seen, 1), none, few))
    if not parts:
        none = np.zeros(len(reader.native_bands))
        return _Facts(none > 0, none, none, none.astype(np.int64), none[:, None], usual)
    lows, highs, zeros, values = zip(*parts, strict=True)
    lowest, highest = np.fmin.reduce(lows), np.fmax.reduce(highs)
    good = np.array(reader.spectrum.good or [True] * reader.count)[reader.native_bands]
    live = (lowest < highest) & good
    return _Facts(live, lowest, highest, np.sum(zeros, axis=0), np.concatenate(values, axis=1)[live], usual)


def _step(pixels: float, bands: int) -> float:
    """Rows, and columns, of which one is looked at."""
    return max(1.0, sqrt(pixels * bands / LOOK))


def _looks(whole: Window, bands: int) -> Iterator[tuple[Window, tuple[int, int] | None]]:
    """Strips of a window, and the rows and columns that each is looked at in; None: all."""
    step = _step(whole.width * whole.height, bands)
    wide = ceil(whole.width / step)
    tall = max(1, int(AT_ONCE / (wide * bands) * step))
    for row in range(0, int(whole.height), tall):
        part = Window(whole.col_off, whole.row_off + row, whole.width, min(tall, int(whole.height) - row))
        yield part, None if step == 1 else (ceil(part.height / step), wide)


def _strips(reader: CubeReader) -> Iterator[tuple[NDArray, BoolArray]]:
    """Raw pixels (C, n) and which of them are numbers by the file's own word (C, n), strip by strip."""
    rows, cols = reader.grid.shape
    bands = reader.native_bands
    for window, shape in _looks(Window(0, 0, cols, rows), len(bands)):
        raw, mask = reader.fetch(bands, window, shape)
        known = reader.holds_numbers(raw, bands)
        if mask is not None:
            known &= mask
        yield raw.reshape(len(bands), -1), known.reshape(len(bands), -1)


def _ends(kind: np.dtype[Any]) -> tuple[int, ...]:
    if kind.kind not in "iu":
        return ()
    info = np.iinfo(kind)
    return (info.min, info.max) if kind.kind == "i" else (info.max,)


def _declared(reader: CubeReader, value: float) -> bool:
    return value in reader.nodata_values


def _outside(value: float, low: float, high: float) -> bool:
    """Whether a value is beyond all doubt none of those between low and high."""
    if abs(value) >= NO_MEASUREMENT or isnan(low):
        return True
    span = high - low
    return value < low - BELOW * span or (value < 0 <= low) or value > high + ABOVE * span


def _zeros(sizes: NDArray) -> tuple[int, bool]:
    """How many pixels are zero in all bands, by each pixel's largest absolute value, and whether they are fill."""
    others = sizes[sizes > 0]
    count = int(sizes.size - others.size)
    if not count or not others.size:
        return 0, False
    nearly = int((others < NEARLY * np.median(others)).sum())
    return count, nearly <= FEW * count


#: Pixels along a side of the look by which numbers are counted.
SIDE = 512
#: Least share of a band's pixels at its highest number that are cut off, as many times as many as each of the numbers
#: next below has on average, and how many these are; a band of fewer numbers is no image of the ground.
LEAST_CUT, PILED, NEXT, LEAST_NUMBERS = 0.001, 5.0, 5, 20
#: Fewest pixels of one number that are no chance, as those of a dead line or block, and the share of its rows and
#: columns that this fills.
LEAST_DEAD, FILLED = 16, 0.95
#: Steps of integers up to which they are nearly the same.
STEPS = 3


@dataclass(frozen=True)
class Dead:
    """A raw `value` that stands in whole lines of a band (0-based), or a block, and how many pixels hold it."""

    band: int
    value: float
    pixels: int


def settle_bands(
    reader: CubeReader, bands: Sequence[int], names: Sequence[str], window: Window, nodata: str | float | None = None
) -> tuple[CubeReader, list[Note]]:
    """The reader with what is dead or wild in one of its `bands` masked, and warnings of that and of what is cut off.

    Only `window` is looked at. With `nodata` all numbers but that count as values.
    """
    own = [band for band in bands if band in reader.native_bands]
    if not own:
        return reader, []
    called = dict(zip(bands, names, strict=True))
    raw, valid = _look_at(reader, own, window)
    shares = {called[band]: _cut_off(one[valid]) for band, one in zip(own, raw, strict=True)}
    told = [f"{name} ({share:.1%})" for name, share in shares.items() if share]
    cut = [warning("msi-cut-off", file=reader.path.name, bands=", ".join(told))] if told else []
    dead = _dead(reader, own, window, raw, valid) if nodata is None and len(own) > 1 else []
    for one in dead:
        reader = reader.without_fill([], [one.value], [one.band])
    listed = ", ".join(f"{one.pixels} pixels of {one.value:.6g} in {called[one.band]}" for one in dead)
    warnings = [*cut, *([warning("band-dead", file=reader.path.name, what=listed)] if dead else [])]
    wild = _wild(reader, own, window) if nodata is None else np.empty((3, 0), np.intp)
    if wild.size:
        names = [called[band] for band in own if band in wild[2]]
        warnings.append(warning("values-wild", file=reader.path.name, count=wild.shape[1], bands=", ".join(names)))
        reader = reader.with_values(wild, np.full(wild.shape[1], np.nan, np.float32))
    return reader, warnings


#: A wild value lies so many of its band's ranges above or, below zero, below: a range is all but so many percent, and
#: so many pixels, at both ends; light lies so many above it in a second band. Optics spread light: pixels beside are
#: brighter than those across corners by a share.
WILD_ABOVE, WILD_BELOW, RARE, LEAST_RARE, LIGHT, SPREAD = 5.0, 1.0, 0.1, 16, 0.5, 0.05


def _wild(reader: CubeReader, bands: list[int], window: Window) -> NDArray[np.intp]:
    """Row, column and band (3, n) of single values far outside of all others of their band that no light explains.

    Light is seen in other bands, too, or is spread by the optics, however small and bright what it comes from is.
    """
    data, valid = reader.sample_of(window, bands, (min(SIDE, int(window.height)), min(SIDE, int(window.width))))
    seen = data[:, valid.all(axis=0)]
    if not seen.size:
        return np.empty((3, 0), np.intp)
    rare = min(max(RARE, 100 * LEAST_RARE / seen.shape[1]), 25.0)
    low, high = np.percentile(seen, (rare, 100 - rare), axis=1, method="nearest")[..., None, None]
    least, most = np.minimum(low - WILD_BELOW * (high - low), 0), high + WILD_ABOVE * (high - low)
    found: list[tuple[int, int, int]] = []
    before = reader.nonfinite
    tall, (row, col) = max(1, AT_ONCE // (len(bands) * int(window.width))), (int(window.row_off), int(window.col_off))
    for start in range(row, row + int(window.height), tall):
        top, bottom = max(row, start - 1), min(start + tall + 1, row + int(window.height))
        cube = reader.read(Window(col, top, window.width, bottom - top), bands)
        far = ((cube.data < least) | (cube.data > most)) & cube.mask
        light = (cube.data > high + LIGHT * (high - low)).sum(axis=0) > 1  # in a second band, too
        for k, y, x in np.argwhere(far & ~light):
            if start <= y + top < start + tall and _alone(cube, far, k, y, x):
                found.append((y + top, x + col, bands[k]))
    reader.nonfinite = before  # this look isn't part of the caller's reading
    return np.array(found, np.intp).reshape(-1, 3).T


def _alone(cube: Cube, far: BoolArray, k: int, y: int, x: int) -> bool:
    """Whether nothing of a value of band k at row y and column x shows in the pixels around it."""
    box = slice(max(0, y - 1), y + 2), slice(max(0, x - 1), x + 2)
    known = cube.mask[box]
    steps = np.abs(np.arange(len(known)) + box[0].start - y)[:, None] + np.abs(
        np.arange(len(known[0])) + box[1].start - x
    )
    beside, across = (cube.data[k][box][known & (steps == n)].astype(np.float64) for n in (1, 2))
    if not beside.size or not across.size or far[k][box].sum() > 1:
        return False
    return bool(abs(beside.mean() - across.mean()) < SPREAD * abs(cube.data[k, y, x] - across.mean()))


def _look_at(reader: CubeReader, bands: list[int], window: Window) -> tuple[NDArray, BoolArray]:
    """Raw numbers (C, h, w) of a decimated look, and which pixels (h, w) are valid in all of the bands."""
    return _fetched(reader, bands, window, (min(SIDE, int(window.height)), min(SIDE, int(window.width))))


def _fetched(
    reader: CubeReader, bands: list[int], window: Window, shape: tuple[int, int] | None
) -> tuple[NDArray, BoolArray]:
    raw, _ = reader.fetch(bands, window, shape)
    size = raw.shape[1:]
    valid = reader.sample_of(window, bands, (int(size[0]), int(size[1])))[1]
    return raw, np.asarray(valid.all(axis=0))


def _cut_off(numbers: NDArray) -> float:
    """Share of a band's numbers (n,) that are its highest, where that is more than chance; else 0."""
    found, counts = np.unique(numbers, return_counts=True)
    if found.size < LEAST_NUMBERS:
        return 0.0
    share = float(counts[-1] / counts.sum()) if counts[-1] > LEAST_DEAD else 0.0
    return share if share >= LEAST_CUT and counts[-1] > PILED * counts[-1 - NEXT : -1].mean() else 0.0


def _dead(reader: CubeReader, bands: list[int], window: Window, raw: NDArray, valid: BoolArray) -> list[Dead]:
    """What is beyond doubt dead: a number of whole lines or a block, with hardly one in the band that is nearly it."""
    lines, pixels = _lines(reader, bands, window), int(window.height) * int(window.width)
    found = []
    for k, band in enumerate(bands):
        values = {float(raw[k][valid].min()), *lines[k]} if valid.any() else set()
        for value in values:
            held = (raw[k] == value) & valid
            count = round(int(held.sum()) * pixels / valid.size)
            if max(count, lines[k].get(value, 0)) < LEAST_DEAD:
                continue
            whole = count <= lines[k].get(value, 0) / FILLED or _is_block(held)
            if whole and not _has_near(raw[k][valid], value) and _vary(raw[:, held], k):
                found.append(Dead(band, value, max(count, lines[k].get(value, 0))))
    return found


def _is_block(held: BoolArray) -> bool:
    """Whether pixels (h, w) fill the rows and columns that they lie in."""
    count = int(held.sum())
    return count >= LEAST_DEAD and count >= FILLED * held.any(0).sum() * held.any(1).sum()


def _has_near(numbers: NDArray, value: float) -> bool:
    """Whether many numbers of a band (n,) are nearly a value, for its own count: it may be one as any other then."""
    apart = np.abs(numbers.astype(np.float64) - value)
    others = apart[apart > 0]
    least = STEPS if numbers.dtype.kind in "iu" else 0.0
    near = int((others <= max(NEARLY * np.median(others), least)).sum()) if others.size else numbers.size
    return near > FEW * max(numbers.size - others.size, LEAST_DEAD)


def _vary(raw: NDArray, k: int) -> bool:
    """Whether of numbers (C, n) another band's than k differ: no deep shadow, nor fill of all."""
    others = np.delete(raw, k, axis=0)
    return not others.size or bool((others != others[:, :1]).any())


def _lines(reader: CubeReader, bands: list[int], window: Window) -> list[dict[float, int]]:
    """Of each band the numbers that alone fill whole rows or columns, where another band varies, and their pixels."""
    down: tuple[list[NDArray], list[NDArray], list[NDArray]] = ([], [], [])
    low = high = count = None
    for raw, valid in _band_strips(reader, bands, window):
        numbers = raw.astype(np.float64)
        least, most = np.where(valid, numbers, np.inf), np.where(valid, numbers, -np.inf)
        for kept, one in zip(down, (least.min(2), most.max(2), valid.sum(1)), strict=True):
            kept.append(one)
        low = least.min(1) if low is None else np.minimum(low, least.min(1))
        high = most.max(1) if high is None else np.maximum(high, most.max(1))
        count = valid.sum(0) if count is None else count + valid.sum(0)
    assert low is not None
    assert high is not None
    assert count is not None
    found: list[dict[float, int]] = [{} for _ in bands]
    rows = (np.concatenate(down[0], 1), np.concatenate(down[1], 1), np.concatenate(down[2]))
    for least, most, pixels in (rows, (low, high, count)):
        one = (least == most) & (pixels >= LEAST_DEAD)
        for k, line in zip(*np.nonzero(one & ~one.all(0)), strict=True):
            value = float(least[k, line])
            found[k][value] = found[k].get(value, 0) + int(pixels[line])
    return found


def _band_strips(reader: CubeReader, bands: list[int], window: Window) -> Iterator[tuple[NDArray, BoolArray]]:
    """Raw pixels (C, h, w) of a window, and where they are valid (h, w), strip by strip; large ones decimated."""
    for part, shape in _looks(window, len(bands)):
        yield _fetched(reader, bands, part, shape)

"""What `fuse` writes besides pixels: which bands, how they are stored, and the files that lie beside the fused cube."""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import floor, log10
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from hsfuse.core.cube import FloatArray, Spectrum
from hsfuse.core.errors import OutputError, SettingError
from hsfuse.core.notes import Note, note, warning
from hsfuse.core.options import OPTIONS, FuseOptions
from hsfuse.io import DTYPES, CubeReader, Storage, check_output, driver_of, open_cube, open_hsi, try_writing
from hsfuse.io.finished import IN_EFFECT, check_unchanged
from hsfuse.io.open import is_remote
from hsfuse.io.sinks import COG_BY_BAND
from hsfuse.io.writer import Journal
from hsfuse.pair import nest
from hsfuse.pair.identify import told_bands
from hsfuse.pair.nesting import turned_like
from hsfuse.physics import covered_bands

if TYPE_CHECKING:  # what headers tell is told without torch
    from hsfuse.core.grid import Grid
    from hsfuse.pair import ScenePair

#: Integers hold this many times the HSI's largest value: fused pixels are brighter than the mixed ones of the HSI.
HEADROOM = 1.5
#: Bands of a COG from which on it matters that they lie together.
MANY = 16
#: Steps on disk of more than this share of a band's standard deviation lose what can be seen.
COARSE = 0.1
#: Pixels to each side of the look at the HSI's values.
LOOK = 64

#: "12", "1-50", "450-900nm".
_RANGE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*(?:-\s*(\d+(?:\.\d+)?))?\s*(nm)?\s*")


@dataclass(frozen=True)
class BandPlan:
    """The bands written: for each its place among the fused ones, -1 for a bad band that is written as nodata."""

    source: NDArray[np.int64]
    spectrum: Spectrum
    fused: int

    def pick(self, cube: FloatArray) -> FloatArray:
        """From all fused bands (C, H, W) to those written; bad bands are NaN."""
        if len(self.source) == self.fused and (self.source == np.arange(self.fused)).all():
            return cube
        picked = cube[np.maximum(self.source, 0)]
        picked[self.source < 0] = np.nan
        return picked


def plan_bands(pair: ScenePair, options: FuseOptions) -> BandPlan:
    """The bands to write: those in use or, with bad bands as nodata, all of the file; cut to the asked ones."""
    reader = pair.hsi
    numbers = pair.hsi_bands if options.bad_bands == "drop" else list(range(reader.count))
    if options.bands is not None:
        asked = parse_bands(options.bands, reader.spectrum.wavelengths_nm, reader.count)
        numbers = [n for n in numbers if n in asked]
        if not numbers:
            raise SettingError(f"none of the bands in use is among --bands {options.bands}")
    place = {band: i for i, band in enumerate(pair.hsi_bands)}
    spectrum = reader.spectrum.select(numbers)
    if options.bad_bands == "nodata":
        spectrum = replace(spectrum, good=tuple(n in place for n in numbers))
    return BandPlan(np.array([place.get(n, -1) for n in numbers]), spectrum, len(pair.hsi_bands))


def parse_bands(text: str, wavelengths_nm: tuple[float, ...] | None, count: int) -> set[int]:
    """Bands (0-based) of "1-50,120,450-900nm": numbers from 1 as in the file, or wavelengths; else SettingError."""
    chosen: set[int] = set()
    for part, low, high, in_nm in parse_ranges(text):
        if in_nm and wavelengths_nm is None:
            raise SettingError(f"the bands {part!r} are wavelengths, and the HSI has none; wanted such as 1-50,120")
        values = wavelengths_nm if in_nm and wavelengths_nm else range(1, count + 1)
        found = {i for i, value in enumerate(values) if low <= value <= high}
        if not found:
            raise SettingError(f"there are no bands {part}: the HSI has {_extent(wavelengths_nm, count)}")
        chosen |= found
    return chosen


def parse_ranges(text: str) -> list[tuple[str, float, float, bool]]:
    """Each part of "1-50,120,450-900nm": its text, first, last, and whether these are nm; else SettingError."""
    found = []
    for part in map(str.strip, text.split(",")):
        match = _RANGE.fullmatch(part)
        if match is None or (match[3] and match[2] is None):
            raise SettingError(f"the bands {part!r} make no sense; wanted such as 1-50,120,450-900nm")
        first, last, unit = match[1], match[2] or match[1], match[3] or ""
        if float(first) > float(last):
            raise SettingError(f"the bands {part!r} are reversed; wanted {last}-{first}{unit}, the lower end first")
        found.append((part, float(first), float(last), bool(unit)))
    return found


def _extent(wavelengths_nm: tuple[float, ...] | None, count: int) -> str:
    span = "" if wavelengths_nm is None else f" from {min(wavelengths_nm):g} to {max(wavelengths_nm):g} nm"
    return f"{count} bands{span}"


def storage_type(pair: ScenePair, options: FuseOptions) -> str:
    """Type on disk: as asked, else the HSI's."""
    return options.dtype or pair.hsi.dtype


def storage_scale(pair: ScenePair, options: FuseOptions) -> tuple[float, float]:
    """Scale and offset on disk: as asked; the HSI's own where its type is kept.

    Where floats become integers it is 1e-4 for reflectance, where one integer type becomes another the HSI's own; if
    that can't hold the HSI's values, or they are no reflectance, a round number that can.
    """
    dtype = storage_type(pair, options)
    if options.scale is not None:
        return options.scale, 0.0
    if dtype == pair.hsi.dtype:
        return _common_scale(pair.hsi)
    if not np.issubdtype(np.dtype(dtype), np.integer):
        return 1.0, 0.0
    largest, room = HEADROOM * _largest(pair), np.iinfo(dtype).max
    kept = np.issubdtype(np.dtype(pair.hsi.dtype), np.integer)
    scale, offset = _common_scale(pair.hsi) if kept else (1e-4, 0.0)
    if (kept or pair.hsi.quantity == "reflectance") and largest <= room * scale + offset:
        return scale, offset
    return _round_up(largest / room), 0.0


def unsigned(pair: ScenePair, options: FuseOptions) -> bool:
    """Whether neither the HSI nor the output can hold negative values, for want of a sign.

    Where only the output can't, what it loses is told as clipped.
    """
    kinds = {np.dtype(dtype).kind for dtype in (pair.hsi.dtype, storage_type(pair, options))}
    return kinds == {"u"} and storage_scale(pair, options)[1] >= 0 and bool((pair.hsi.offsets >= 0).all())


def coarse_note(pair: ScenePair, options: FuseOptions) -> str | None:
    """What to warn of when the steps on disk are coarse against what the scene's bands spread over."""
    dtype, step = storage_type(pair, options), storage_scale(pair, options)[0]
    if np.dtype(dtype).kind == "f" or (options.scale is None and pair.hsi.dtype == dtype):
        return None
    rows, cols = pair.hsi.grid.shape
    data, valid = pair.hsi.sample(pair.hsi_bands, (min(LOOK, rows), min(LOOK, cols)))
    spreads = [float(values[ok].std()) for values, ok in zip(data, valid, strict=True) if ok.any()]
    spread = float(np.median(spreads)) if spreads else 0.0
    if step <= COARSE * spread:
        return None
    return (
        f"the steps of {step:g} on disk are coarse: a band of the HSI spreads over {spread:.2g} (standard deviation), "
        f"and what lies between the steps is lost; wanted --scale {_round_up(COARSE * spread / 10):g} or less, or "
        "--dtype float32"
    )


def _largest(pair: ScenePair) -> float:
    """Largest of the HSI's valid values, as far as a decimated look tells."""
    rows, cols = pair.hsi.grid.shape
    data, valid = pair.hsi.sample(pair.hsi_bands, (min(LOOK, rows), min(LOOK, cols)))
    return float(data[valid].max(initial=0))


def _round_up(value: float) -> float:
    """The next 1, 2 or 5 times a power of ten; 1 for nothing."""
    if value <= 0:
        return 1.0
    power = 10.0 ** floor(log10(value))
    return next(step * power for step in (1, 2, 5, 10) if step * power >= value)


def clipping_note(path: Path, clipped: int, values: int, dtype: str, scale: float) -> Note:
    """What to say when values didn't fit the type on disk."""
    counts = {"clipped": clipped, "values": values, "share": clipped / values}
    return warning("clipped", name=path.name, dtype=dtype, step=scale, **counts)


def _common_scale(hsi: CubeReader) -> tuple[float, float]:
    """The scale and offset; where integer bands differ in theirs (PRISMA's two detectors), one pair that holds all."""
    alike = (hsi.scales == hsi.scale).all() and (hsi.offsets == hsi.offset).all()
    if alike or not np.issubdtype(np.dtype(hsi.dtype), np.integer):
        return hsi.scale, hsi.offset
    info = np.iinfo(hsi.dtype)
    low, high = (hsi.offsets + info.min * hsi.scales).min(), (hsi.offsets + info.max * hsi.scales).max()
    scale = float((high - low) / (info.max - info.min))
    return scale, float(low - info.min * scale)


def check_places(hsi: CubeReader, msi: CubeReader, grid: Grid, output: Path, options: FuseOptions) -> None:
    """OutputError or SettingError for outputs that can't be written, as far as files and options tell.

    A few pixels are written to a temporary folder as the cube, in the type asked for, and the quality layers will be.
    """
    inputs: list[Path] = [*hsi.files, *msi.files]
    overwrite, goes_on = options.overwrite, "trial" if options.resume else None
    files = list(check_output(output, inputs, overwrite=overwrite, driver=options.format))
    dtype = options.dtype or hsi.dtype
    if dtype not in DTYPES:
        choice = ", ".join(OPTIONS["dtype"].words)
        raise SettingError(f"the output can't have the type {dtype}; choose one with --dtype: {choice}")
    if options.dask is not None:
        if options.qa is not None:
            raise SettingError("Dask's workers make no quality layers: leave out --qa or --dask")
        from hsfuse.core.cluster import check_workers

        check_workers(options.dask)
    if options.save_model is not None and options.method != FuseOptions.method:
        raise SettingError(f"--save-model keeps SRLF-Net's weights, but the method is {options.method}")
    for extra, driver in ((options.save_model, "GTiff"), (options.qa, "auto")):
        if extra is not None:
            files += check_output(extra, [*inputs, *files], overwrite=overwrite, driver=driver)
    if options.stac:
        from hsfuse.io.stac import check_item

        check_item(output, grid, overwrite)
    stored = Storage(options.format, dtype, options.scale or 1.0, options=options.creation_options)
    try_writing(output, grid, hsi.spectrum, stored, goes_on, elsewhere=options.dry_run)
    if options.qa is not None:
        try_writing(options.qa, grid, Spectrum(None, names=("layer",)), fingerprint=goes_on, elsewhere=options.dry_run)


def check_tile(tile: int, ratio: int) -> None:
    """SettingError for a tile of less than four LR pixels."""
    if tile < 4 * ratio:
        raise SettingError(f"--tile is {tile}, wanted at least {4 * ratio} MSI pixels: four HSI pixels of {ratio}")


def look_ahead(hsi: Path, msi: Sequence[Path], output: Path, options: FuseOptions) -> None:
    """What keeps a pair from being fused and shows before a pixel is read; told at once, without torch.

    Both files are opened, and grids, `phase`, `tile`, bands of both, creation options and free disk looked at.
    `run_fusion` finds the same later; a command line has looked here first. InputError, GridError, SettingError and
    OutputError as `hsfuse.fuse` raises them.
    """
    if any(map(is_remote, (hsi, *msi))):
        return
    with open_hsi(hsi, msi) as low, open_cube(msi, role="MSI") as high:
        bands = low.count
        if options.bands is not None:
            bands = len(parse_bands(options.bands, low.spectrum.wavelengths_nm, low.count))
        nesting = nest(turned_like(low, high.grid).grid, high.grid)
        nesting.check_phase(options.phase)
        check_tile(options.tile, nesting.ratio)
        if (told := told_bands(high, options)) is not None:
            match, response, _ = told
            nm = low.spectrum.wavelengths_nm or ()
            covered_bands(response, match.bands, nm, low.spectrum.fwhm_nm)
        grid = nesting.alignment.hr_grid
        if options.resume and output.exists():
            check_unchanged(hsi, msi, output, options, aside=IN_EFFECT)
            return  # the rest of what an earlier run has left is looked at with the pair
        check_places(low, high, grid, output, options)
        _check_disk(low, output, options, bands * grid.shape[0] * grid.shape[1])


def _check_disk(low: CubeReader, output: Path, options: FuseOptions, values: int) -> None:
    """OutputError where a file that isn't compressed, whose size is known beforehand, won't fit."""
    driver, made = driver_of(output, options.format), {key.lower(): v for key, v in options.creation_options.items()}
    plain = driver in ("GTiff", "COG") and str(made.get("compress", "")).upper() == "NONE"
    if options.dry_run or not (driver == "ENVI" or plain):
        return
    begun = Journal(output, "").data
    need = values * np.dtype(options.dtype or low.dtype).itemsize * (2 if driver == "COG" else 1)  # which is copied
    need -= begun.stat().st_size if options.resume and begun.is_file() else 0
    if (free := shutil.disk_usage(output.parent).free) < need:
        way = "leave out COMPRESS=NONE" if plain else "choose a .tif, which is compressed"
        raise OutputError(
            f"{output} takes {need / 2**20:.0f} MiB, and {free / 2**20:.0f} MiB are free in {output.parent}; make "
            f"room, or {way}"
        )


def check_outputs(pair: ScenePair, output: Path, options: FuseOptions) -> Storage:
    """How the cube is stored; OutputError or SettingError before any work for what can't be written.

    A note is added where the type changes to integers, a warning where steps on disk are coarse.
    """
    bands, (rows, cols) = len(plan_bands(pair, options).source), pair.alignment.full
    check_places(pair.hsi, pair.msi, pair.alignment.hr_grid, output, options)
    _check_disk(pair.hsi, output, options, bands * rows * cols)
    stored, dtype = storage(pair, options), storage_type(pair, options)
    if driver_of(output, options.format) == "COG" and not COG_BY_BAND and bands > MANY:
        pair.notes.append(note("cog-by-pixel"))
    if (coarse := coarse_note(pair, options)) is not None:
        pair.warnings.append(warning("scale-coarse", about=coarse))
    if options.scale is None and dtype != pair.hsi.dtype and stored.scale != 1:
        pair.notes.append(note("stored-as", dtype=dtype, step=stored.scale))
    return stored


def storage(pair: ScenePair, options: FuseOptions) -> Storage:
    """How the fused cube is stored."""
    scale, offset = storage_scale(pair, options)
    return Storage(
        options.format,
        storage_type(pair, options),
        scale,
        offset,
        options=options.creation_options,
        overviews=options.overviews,
    )

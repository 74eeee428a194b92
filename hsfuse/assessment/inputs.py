"""The files of one assessment, opened, checked against each other and cut to the fused cube's extent and bands."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace

import numpy as np
from rasterio.windows import Window

from hsfuse.assessment.result import Unit
from hsfuse.core.cube import BoolArray, Cube
from hsfuse.core.errors import GridError, InputError, SrfError
from hsfuse.core.grid import GRID_TOLERANCE_PX, Grid, Motion
from hsfuse.core.notes import Note, note, warning
from hsfuse.core.options import FuseOptions
from hsfuse.io import CubeReader, Images, open_cube, usable_bands, valid_anywhere
from hsfuse.io.fill import settle_fill
from hsfuse.pair import ScenePair, open_pair
from hsfuse.pair.nesting import turned_like
from hsfuse.pair.quantity import follow_quantity, guess_scale
from hsfuse.physics import SpectralResponse, covered_bands
from hsfuse.physics.model import ObservationModel, Psf

#: Band centres closer than this are the same band, in nm.
SAME_BAND_NM = 0.5
#: How the name of the band of a quality raster begins that is of use here.
EXPECTED_ERROR = "expected error"


@dataclass(frozen=True)
class Source:
    """A file read on the fused cube's pixels and bands: window offset (rows, columns) and bands in the file."""

    reader: CubeReader
    bands: list[int]
    offset: tuple[int, int] = (0, 0)

    def read(self, window: Window, bands: Sequence[int] | None = None) -> Cube:
        """Cube of a window, and of some of the bands (positions in `self.bands`)."""
        row, col = self.offset
        moved = Window(window.col_off + col, window.row_off + row, window.width, window.height)
        return self.reader.read(moved, self.bands if bands is None else [self.bands[i] for i in bands])


@dataclass(frozen=True)
class HsiSource:
    """The LRHSI of a pair as methods get it, on the fused cube's pixels; `bands` are in its file, among the pair's."""

    pair: ScenePair
    bands: list[int]

    @property
    def reader(self) -> CubeReader:
        """Where its bands are."""
        return self.pair.hsi

    def read(self, window: Window) -> Cube:
        """Cube of a window in LR pixels; where it was warped, its detail lies where the MSI shows it."""
        cube, chosen = self.pair.read_lr(window), [self.pair.hsi_bands.index(i) for i in self.bands]
        return replace(cube, data=cube.data[chosen], spectrum=cube.spectrum.select(chosen))


@dataclass(frozen=True)
class MsiSource:
    """The MSI of a pair, in the HSI's radiometry, on the fused cube's pixels; `bands` are among the pair's."""

    pair: ScenePair
    bands: list[int]

    def read(self, window: Window, bands: Sequence[int] | None = None) -> Cube:
        """Cube of a window, and of some of the bands (positions in `self.bands`)."""
        cube = self.pair.read_hr(window)
        chosen = self.bands if bands is None else [self.bands[i] for i in bands]
        return replace(cube, data=cube.data[chosen], spectrum=cube.spectrum.select(chosen))


@dataclass(frozen=True)
class Observed:
    """What the fused cube was made from: LRHSI and MSI on its extent, and the observation model for its bands."""

    pair: ScenePair
    low: HsiSource
    high: MsiSource
    model: ObservationModel
    msi_names: tuple[str, ...]
    coverage: tuple[float, ...]

    @property
    def ratio(self) -> int:
        """Ratio of the GSDs."""
        return self.pair.ratio

    @property
    def quiet(self) -> BoolArray | None:
        """The bands (C,) whose noise isn't far beyond the others'; None where it is in none."""
        same = self.low.bands == self.pair.hsi_bands
        return self.pair.units == 1 if same and self.pair.units is not None else None


@dataclass(frozen=True)
class Inputs:
    """All that is assessed: the fused cube on `shape` (H, W) and what there is to hold it against.

    Where no file knows wavelengths, `wavelengths_nm` are band numbers from 1 and `has_wavelengths` is False.
    `left_out` counts bands of the fused cube that are bad or empty. All values are in `unit`; what didn't say its own
    was multiplied by `factor`.
    """

    fused: Source
    shape: tuple[int, int]
    wavelengths_nm: np.ndarray
    has_wavelengths: bool
    left_out: int
    reference: Source | None
    observed: Observed | None
    unit: Unit
    factor: float = 1.0
    expected: Source | None = None


def open_inputs(
    stack: ExitStack,
    fused: CubeReader,
    reference: Images | None,
    hsi: Images | None,
    msi: Images | None,
    qa: Images | None,
    options: FuseOptions,
    notes: list[Note],
    psf: Psf | None = None,
    motion: Motion | None = None,
    response: SpectralResponse | None = None,
    quantity: str | None = None,
) -> Inputs:
    """Open what is given, the pair with what is known of PSF, place and response; InputError and GridError say what
    doesn't fit the fused cube. `quantity` is what its provenance says that one holds whose file doesn't name it."""
    pair = None
    if fused.quantity == "unknown" and quantity in ("reflectance", "radiance"):
        fused = fused.holding("reflectance" if quantity == "reflectance" else "radiance")
    if hsi is not None and msi is not None:
        fused = _as_msi(fused, hsi, msi, notes)
        opened = open_pair(hsi, msi, options, strict=False, known_psf=psf, known_motion=motion, known_response=response)
        pair = stack.enter_context(opened)
    fused = _without_fill(fused, notes)
    chosen = [int(i) for i in np.flatnonzero(usable_bands(fused))]
    if not chosen:
        raise InputError(f"{fused.path}: no valid pixel in any band")
    source = Source(fused, chosen)
    observed = None if pair is None else _observed(source, pair, notes)
    truth = None if reference is None else _reference(stack, source, reference, notes)
    expected = None if qa is None else _expected(stack, fused, qa, notes)
    known = [_centres(s) for s in (source, observed.low if observed else None, truth) if s is not None]
    centres = next((c for c in known if c is not None), None)
    has_wavelengths = centres is not None
    if centres is None:
        notes.append(note("no-wavelengths"))
        centres = np.arange(1.0, len(chosen) + 1)
    left_out = fused.count - len(chosen)
    lrhsi = None if observed is None else observed.pair.hsi
    brought, theirs, unit, factor = _in_one_unit(fused, None if truth is None else truth.reader, lrhsi, notes)
    source = replace(source, reader=brought)
    truth = None if truth is None or theirs is None else replace(truth, reader=theirs)
    return Inputs(source, fused.grid.shape, centres, has_wavelengths, left_out, truth, observed, unit, factor, expected)


def _in_one_unit(
    fused: CubeReader, truth: CubeReader | None, hsi: CubeReader | None, notes: list[Note]
) -> tuple[CubeReader, CubeReader | None, Unit, float]:
    """Fused cube and reference in one unit, which that is, and by what a file without a word about it was multiplied.

    Integers mean what `fuse` takes them for. Where that isn't reflectance, the fused cube follows the numbers of the
    LRHSI, else it and the reference that which doesn't say its unit the other.
    """
    before = [reader.scale for reader in (fused, truth) if reader is not None]
    if hsi is None or hsi.quantity != "unknown":
        fused = _named(fused, "fused cube", notes)
        truth = None if truth is None else _named(truth, "reference", notes)
    together, anchor = True, fused
    if hsi is not None:
        fused, together = _follow(fused, "fused cube", hsi, "LRHSI", notes)
        anchor = hsi
    elif truth is not None and fused.quantity == "unknown":
        fused, together = _follow(fused, "fused cube", truth, "reference", notes)
        anchor = truth
    if truth is not None and anchor is not truth:
        truth, alike = _follow(truth, "reference", fused, "fused cube", notes)
        together = together and alike
    after = [reader.scale for reader in (fused, truth) if reader is not None]
    factor = next((new / old for old, new in zip(before, after, strict=True) if new != old), 1.0)
    if fused.quantity != "unknown" and together:
        return fused, truth, Unit(fused.quantity), factor
    notes.append(note("unit-unknown", anchor=anchor.path.name))
    return fused, truth, Unit("unknown", str(anchor.path) if together else ""), factor


def _named(reader: CubeReader, what: str, notes: list[Note]) -> CubeReader:
    """The file with its quantity told by figures, and in reflectance 0 to 1 where they are integers x 10,000."""
    if reader.quantity != "unknown":
        return reader
    guess = guess_scale(reader)
    if guess.scale == 1:
        notes.append(note("quantity-guessed", what=what, guess=guess.note))
        return reader.holding(guess.quantity)
    notes.append(note("quantity-rescaled", what=what, guess=guess.note, factor=guess.scale))
    return reader.rescaled(guess.scale).holding(guess.quantity)


def _follow(reader: CubeReader, what: str, other: CubeReader, name: str, notes: list[Note]) -> tuple[CubeReader, bool]:
    """A file in the unit of another of the same ground, and whether it is now."""
    if reader.quantity == other.quantity == "reflectance":
        return reader, True
    found, power = follow_quantity(reader, other)
    if found is not reader and power is not None:
        notes.append(note("unit-followed", what=what, other=name, power=power, factor=10.0**-power))
        return found.holding(other.quantity), True
    if power == 0 and (reader.quantity == other.quantity or "unknown" in (reader.quantity, other.quantity)):
        return (reader.holding(other.quantity) if reader.quantity == "unknown" else reader), True
    notes.append(warning("units-differ", what=what, other=name))
    return reader, False


def _without_fill(reader: CubeReader, notes: list[Note]) -> CubeReader:
    reader, kept, masked = settle_fill(reader)
    notes += [*kept, *masked]
    return reader


def _centres(source: Source | HsiSource) -> np.ndarray | None:
    all_nm = source.reader.spectrum.wavelengths_nm
    return None if all_nm is None else np.array([all_nm[i] for i in source.bands])


def _reference(stack: ExitStack, fused: Source, path: Images, notes: list[Note]) -> Source:
    opened = turned_like(stack.enter_context(open_cube(path, role="raster")), fused.reader.grid)
    reader = _without_fill(opened, notes)
    notes += reader.notes
    row, col = _offset(fused.reader, reader, notes)
    bands = match_bands(fused, reader, list(range(reader.count)), "reference")
    height, width = fused.reader.grid.shape
    if not valid_anywhere(reader, bands, Window(col, row, width, height)):
        raise InputError(
            f"the reference {reader.path} has no valid pixel: where the fused cube lies, each is nodata, NaN or masked "
            "in some band; give one with values there"
        )
    return Source(reader, bands, (row, col))


def _expected(stack: ExitStack, fused: CubeReader, path: Images, notes: list[Note]) -> Source:
    """The expected error of a quality raster; InputError where it has none."""
    reader = turned_like(stack.enter_context(open_cube(path, role="raster")), fused.grid)
    names = reader.spectrum.names or ()
    bands = [i for i, name in enumerate(names) if name is not None and name.startswith(EXPECTED_ERROR)]
    if not bands:
        raise InputError(
            f"{reader.path} has no band {EXPECTED_ERROR!r}; wanted the quality raster of `hsfuse fuse --qa`"
        )
    return Source(reader, bands[:1], _offset(fused, reader, notes))


def _offset(fused: CubeReader, other: CubeReader, notes: list[Note]) -> tuple[int, int]:
    """Where the fused cube starts in the other file, in whole pixels; GridError when that doesn't hold all of it."""
    a, b = fused.grid, other.grid
    if not (a.georeferenced and b.georeferenced):
        if a.shape != b.shape:
            raise GridError(f"{other.path} has {b.describe()}, the fused cube {a.describe()}: wanted the same size")
        if a.georeferenced != b.georeferenced:
            notes.append(note("aligned-by-corners", one=fused.path.name, other=other.path.name))
        return 0, 0
    if a.crs != b.crs or _drift(a, b) > GRID_TOLERANCE_PX:
        raise GridError(
            f"{other.path} is on another grid ({b.describe()}) than the fused cube ({a.describe()}); resample it first"
        )
    row, col = b.pixel_of(a)
    top, left = round(row), round(col)
    inside = top >= 0 and left >= 0 and top + a.shape[0] <= b.shape[0] and left + a.shape[1] <= b.shape[1]
    if max(abs(row - top), abs(col - left)) > GRID_TOLERANCE_PX or not inside:
        raise GridError(
            f"the fused cube starts at row {row:.2f}, column {col:.2f} of {other.path} and has {a.shape[0]} x "
            f"{a.shape[1]} of its {b.shape[0]} x {b.shape[1]} pixels: wanted whole pixels, and all of them inside"
        )
    return top, left


def _drift(a: Grid, b: Grid) -> float:
    """How far two grids of the same corner part over the first one's extent, in pixels."""
    relative = ~b.transform @ a.transform
    return max(a.shape) * max(abs(relative.a - 1), abs(relative.e - 1), abs(relative.b), abs(relative.d))


def match_bands(fused: Source, other: CubeReader, usable: list[int], what: str) -> list[int]:
    """Bands of the other file, among `usable`, that are the fused cube's: by wavelength, else by order; InputError."""
    ours, theirs = _centres(fused), other.spectrum.wavelengths_nm
    if ours is None or theirs is None:
        if len(usable) != len(fused.bands):
            raise InputError(
                f"the {what} {other.path} has {len(usable)} bands and the fused cube {len(fused.bands)}, and not both "
                "have wavelengths: wanted the same bands"
            )
        return usable
    centres = np.array([theirs[i] for i in usable])
    if len(centres) == len(ours) and (np.abs(centres - ours) <= SAME_BAND_NM).all():
        return usable
    nearest = np.abs(centres[None] - ours[:, None]).argmin(axis=1)
    gap = np.abs(centres[nearest] - ours)
    if (gap > SAME_BAND_NM).any() or len(set(nearest.tolist())) < len(ours):
        worst = int(gap.argmax())
        raise InputError(
            f"the {what} {other.path} has other bands than the fused cube: nearest to its {ours[worst]:.2f} nm is "
            f"{centres[nearest[worst]]:.2f} nm (at most {SAME_BAND_NM} apart wanted)"
        )
    return [usable[i] for i in nearest]


def _as_msi(fused: CubeReader, hsi: Images, msi: Images, notes: list[Note]) -> CubeReader:
    """The fused cube with its rows as the MSI's run; GridError, before anything is estimated, off the MSI's grid.

    It asks whether the two images are swapped where the cube is on the HSI's grid.
    """
    with open_cube(msi, role="MSI") as high:
        turned = turned_like(fused, high.grid)
        try:
            if turned.grid.georeferenced and high.grid.georeferenced:
                _offset(turned, high, [])
        except GridError as error:
            with open_cube(hsi) as low:
                swapped = low.grid.crs == fused.grid.crs and low.grid.gsd == fused.grid.gsd != high.grid.gsd
                if low.path == fused.path:
                    raise GridError(f"{low.path} is named as the fused cube and as the HSI; name the cube") from error
                if not swapped:
                    raise
                raise GridError(
                    f"the fused cube ({fused.grid.describe()}) is on the grid of the HSI {low.path}, not of the MSI "
                    f"{high.path}: are the two swapped?"
                ) from error
    notes += [one for one in turned.notes if one not in fused.notes]
    return turned


def _observed(fused: Source, pair: ScenePair, notes: list[Note]) -> Observed:
    notes += pair.notes
    _check_extent(fused.reader.grid, pair, notes)
    bands = match_bands(fused, pair.hsi, pair.hsi_bands, "HSI")
    model, kept, coverage = _model(pair, bands, notes)
    return Observed(
        pair, HsiSource(pair, bands), MsiSource(pair, kept), model, tuple(pair.msi_names[i] for i in kept), coverage
    )


def _check_extent(grid: Grid, pair: ScenePair, notes: list[Note]) -> None:
    wanted = pair.alignment.hr_grid
    same, where = grid.shape == wanted.shape, ""
    if grid.georeferenced and wanted.georeferenced:
        row, col = wanted.pixel_of(grid)
        same &= grid.crs == wanted.crs and max(abs(row), abs(col), _drift(grid, wanted)) <= GRID_TOLERANCE_PX
        where = f"begins {row:+z.2f} rows and {col:+z.2f} columns off it and "
    elif same and grid.georeferenced != wanted.georeferenced:
        notes.append(note("aligned-by-corners", one="the fused cube", other="the MSI"))
    if not same:
        raise GridError(
            f"the fused cube ({grid.describe()}) {where}isn't the common extent of HSI and MSI ({wanted.describe()}); "
            "assess it with the files it was made from"
        )


def _model(
    pair: ScenePair, bands: list[int], notes: list[Note]
) -> tuple[ObservationModel, list[int], tuple[float, ...]]:
    """Observation model for the fused bands, the MSI bands that they cover (perhaps none), and how far they do."""
    if bands == pair.hsi_bands:
        return pair.model, list(range(len(pair.msi_names))), pair.coverage
    spectrum = pair.hsi.spectrum.select(bands)
    assert spectrum.wavelengths_nm is not None
    notes.append(note("bands-of-hsi", bands=len(bands), usable=len(pair.hsi_bands)))
    try:
        covered = covered_bands(pair.response, pair.msi_names, spectrum.wavelengths_nm, spectrum.fwhm_nm)
    except SrfError:
        notes.append(note("no-msi-band-within"))
        return pair.model.with_srf(np.zeros((0, len(bands)))), [], ()
    return pair.model.with_srf(covered.matrix), list(covered.kept), covered.coverage

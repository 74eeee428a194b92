"""Which nested grid two images are brought to: the MSI stays as it is, the LRHSI moves as little as it can."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import atan2, ceil, degrees, floor, inf, sqrt

import numpy as np
from affine import Affine
from rasterio.crs import CRS
from rasterio.windows import Window

from hsfuse.core.errors import GridError, SettingError
from hsfuse.core.grid import GRID_TOLERANCE_PX, IDENTITY, Alignment, Distortion, Grid, Motion, align, nests
from hsfuse.core.notes import about_file
from hsfuse.io import CubeReader
from hsfuse.pair.mapping import PixelMap, apply, beside, lattice, project, renamed
from hsfuse.pair.warp import WarpedReader
from hsfuse.physics.optics import Floats, centred_phase, gaussian_mtf, keys_weights, widths_and_turn

#: Sub-pixel fractions and frequencies (cycles a pixel, up to Nyquist) over which blur is averaged.
PHASES, FREQUENCIES = 64, np.linspace(0.005, 0.5, 100)
#: Variances (pixels squared) that are tried: those of no blur to twice the worst of linear interpolation.
VARIANCES = np.linspace(0, 0.25, 501)


def keys_transfer(frequencies: Floats, fractions: Floats | None = None) -> Floats:
    """Real part (n,) of the transfer of cubic convolution at frequencies (n,) in cycles a pixel.

    The mean over sub-pixel fractions f of sum_k w_k(f) cos(2 pi n (k - f)); over all of them (None) it is the transform
    of Keys' kernel.
    """
    f = (np.arange(PHASES) + 0.5) / PHASES if fractions is None else fractions
    offsets = np.array([-1, 0, 1, 2])[:, None] - f
    waves = np.cos(2 * np.pi * frequencies[:, None, None] * offsets)
    return (keys_weights(f) * waves).sum(axis=1).mean(axis=1)


def resampling_variance(sigma: float, fractions: Floats | None = None) -> float:
    """Variance (pixels squared) that cubic convolution at `fractions` adds to a Gaussian PSF of `sigma` pixels.

    Its second moment, sum_k (k - f)^2 w_k(f), is zero at every fraction f, as the kernel reproduces quadratics; what it
    takes away is detail near Nyquist. So the variance is the v for which exp(-2 pi^2 (sigma^2 + v) n^2) comes nearest,
    in least squares over frequencies n up to Nyquist, to exp(-2 pi^2 sigma^2 n^2) times `keys_transfer`, each weighted
    with the power it has in natural scenes, 1 / n (Field 1987: 1 / n^2 a unit of area of the frequency plane).
    """
    wanted = gaussian_mtf(sigma, FREQUENCIES) * keys_transfer(FREQUENCIES, fractions)
    trials = gaussian_mtf(np.sqrt(sigma**2 + VARIANCES)[:, None], FREQUENCIES)
    return float(VARIANCES[(np.square(trials - wanted) / FREQUENCIES).sum(axis=1).argmin()])


#: Points along each side of a footprint that is mapped.
LATTICE = 33
WGS84 = CRS.from_epsg(4326)
EARTH_RADIUS_KM = 6371.0


def overlap(hsi: Grid, seen: Grid) -> tuple[tuple[tuple[float, float], tuple[float, float]], tuple[float, float]]:
    """MSI rows and columns (first, last) that hold all of the overlap, and a point (row, col) in its middle."""
    rows, cols = PixelMap(hsi, seen)(*lattice(hsi.shape, LATTICE))
    good = np.isfinite(rows) & np.isfinite(cols)
    if good.any():
        box = (_clip(rows[good], seen.shape[0]), _clip(cols[good], seen.shape[1]))
        size = box[0][1] - box[0][0], box[1][1] - box[1][0]
        if min(size) > 0:
            r, c = lattice(size, LATTICE, (box[0][0], box[1][0]))
            y, x = PixelMap(seen, hsi)(r, c)
            inside = (y >= 0) & (y <= hsi.shape[0]) & (x >= 0) & (x <= hsi.shape[1])
            if inside.any():
                return box, (float(r[inside].mean()), float(c[inside].mean()))
    raise GridError(f"the two images don't overlap{_apart(hsi, seen)}: HSI {hsi.describe()}, MSI {seen.describe()}")


def _clip(values: Floats, size: int) -> tuple[float, float]:
    return max(0.0, float(values.min())), min(float(size), float(values.max()))


def _apart(hsi: Grid, msi: Grid) -> str:
    if hsi.crs is None or msi.crs is None:
        return ""
    distance = gap_km(hsi, msi)
    told = f"{distance:,.0f}" if distance >= 100 else f"{distance:.3g}"
    return f", they lie about {told} km apart" if distance < inf else ""


def gap_km(one: Grid, other: Grid, points: int = 13) -> float:
    """Least great-circle distance between two footprints that don't overlap, in km; inf where it can't be told."""
    (lon0, lat0), (lon1, lat1) = (_places(grid, points) for grid in (one, other))
    cosine = np.sin(lat0[:, None]) * np.sin(lat1) + np.cos(lat0[:, None]) * np.cos(lat1) * np.cos(lon0[:, None] - lon1)
    distance = np.arccos(np.clip(cosine, -1, 1)) * EARTH_RADIUS_KM
    finite = distance[np.isfinite(distance)]
    return float(finite.min()) if finite.size else inf


def _places(grid: Grid, points: int) -> tuple[Floats, Floats]:
    """Longitudes and latitudes (n,) of a lattice of the grid, in radians."""
    rows, cols = lattice(grid.shape, points)
    x, y = apply(grid.transform, cols.ravel(), rows.ravel())
    lon, lat = project(grid.crs, WGS84, x, y)
    good = np.isfinite(lon) & np.isfinite(lat)
    return np.radians(lon[good]), np.radians(lat[good])


#: Least ratio of the GSDs that is worth fusing (it is taken as 2), and most, beyond which something is wrong.
LEAST_RATIO, LARGEST_RATIO = 1.5, 64.0
#: Largest ratio of an HSI pixel's two sides; pixels of equal degrees have 2 at a latitude of 60 degrees.
LARGEST_ASPECT = 2.5
#: LR pixels that an LR pixel may reach out of the LRHSI: 3 % of the warp's kernel then lie beyond.
EDGE = 0.05
#: Part of an LR pixel by which LR pixels may lie off the LRHSI's own in the middle where the scene holds one more then.
BESIDE = 8
#: LR pixels that the centre of a PSF may lie beside its pixel's.
MOST_OFF_CENTRE = 0.75
#: LR rows and columns whose sub-pixel fractions tell how much the warp blurs.
FRACTIONS = 23


@dataclass(frozen=True)
class Nesting:
    """How an LRHSI comes onto an MSI's grid.

    `alignment` holds the ratio in use, the common grids and the windows, the LRHSI's being one of `present(reader)`.
    `pixel` (2, 2) holds the sides of an LRHSI pixel in MSI pixels: columns are its step down and its step right, rows
    are (y, x). `motion` is where the LRHSI's georeference has what the MSI has at (column, row), in MSI pixels. `seen`
    is the common LR grid where the LRHSI's georeference has it, None when no warp is needed, `bend` how far beside that
    its pixels are found, in LR pixels; `placed` is the LRHSI's own grid.
    """

    alignment: Alignment
    pixel: Floats
    motion: Affine
    placed: Grid
    seen: Grid | None = None
    bend: Distortion | None = None

    def check_phase(self, phase: float | None) -> None:
        """SettingError for a centre of LR pixel 0 outside of it, and for one where the LRHSI is resampled."""
        centred, last = centred_phase(self.ratio), self.ratio - 1
        if phase is not None and not 0 <= phase <= last:
            raise SettingError(f"the phase is {phase:g}, wanted 0 to {last} MSI pixels (centred: {centred:g})")
        if self.warped and phase not in (None, centred):
            raise SettingError("the HSI is resampled onto the MSI's grid, which centres its pixels: leave --phase out")

    @property
    def ratio(self) -> int:
        """The whole ratio in use."""
        return self.alignment.ratio

    @property
    def warped(self) -> bool:
        """Whether the LRHSI is resampled."""
        return self.seen is not None

    @property
    def lr_grid(self) -> Grid:
        """Common grid in LR pixels."""
        return self.alignment.lr_grid

    @property
    def hr_grid(self) -> Grid:
        """Common grid in MSI pixels."""
        return self.alignment.hr_grid

    @property
    def real_ratios(self) -> tuple[float, float]:
        """Real ratio of the GSDs along the MSI's rows and columns (y, x)."""
        y, x = np.sqrt(np.square(self.pixel).sum(axis=1))
        return float(y), float(x)

    @property
    def real_ratio(self) -> float:
        """The real ratio as one number, the root of an LRHSI pixel's area: the ratio for `sigma_from_mtf`."""
        return sqrt(abs(np.linalg.det(self.pixel)))

    @property
    def rotation(self) -> float:
        """Angle in degrees, within -90 to 90, by which the LRHSI's rows run down across the MSI's."""
        return (degrees(atan2(self.pixel[0, 1], self.pixel[1, 1])) + 90) % 180 - 90

    @property
    def note(self) -> str:
        """The decision, for people."""
        return self.alignment.note

    def present(self, reader: CubeReader) -> CubeReader:
        """The LRHSI on the nested grid, for `alignment.hsi_window`: the reader itself, or one that warps it."""
        if self.seen is None:
            return reader
        return WarpedReader(reader, self.lr_grid, self.seen, self.placed, self.bend)

    def onto(self, hsi: Grid, msi: Grid) -> PixelMap:
        """The map from the LRHSI's own pixels to those of the MSI's file, as the files' own grids have it."""
        return PixelMap(self.placed, msi if hsi.georeferenced and msi.georeferenced else Grid(msi.shape))

    def resampling_variance(self, sigma: float) -> tuple[float, float]:
        """Variance, LRHSI pixels squared, that the warp adds along the LRHSI's columns and rows (its axes y, x).

        To a Gaussian PSF of `sigma` LRHSI pixels, at the sub-pixel fractions at which the warp finds its pixels.
        """
        if self.seen is None:
            return 0.0, 0.0
        points = [(np.arange(FRACTIONS) * n // FRACTIONS + 0.5) for n in self.seen.shape]
        rows, cols = PixelMap(self.seen, self.placed, self.bend)(points[0][:, None], points[1])
        y, x = (resampling_variance(sigma, (v[np.isfinite(v)] - 0.5) % 1) for v in (rows, cols))
        return y, x

    def psf_covariance(self, sigma: float) -> Floats:
        """Covariance (2, 2) in MSI pixels (y, x) of the PSF after the warp; the sensor's is `sigma` LRHSI pixels wide.

        `sigma` is that of a Gaussian round on the LRHSI's own pixels, `sigma_from_mtf(mtf, 1)` for one known by its MTF
        at Nyquist.
        """
        own = np.diag(sigma**2 + np.array(self.resampling_variance(sigma)))
        return self.pixel @ own @ self.pixel.T

    def psf_sigma(self, sigma: float) -> float:
        """Width in MSI pixels of the PSF after the warp, given the sensor's in MSI pixels (the real ratio's)."""
        return sqrt(np.trace(self.psf_covariance(sigma / self.real_ratio)) / 2)

    def psf_widths(self, sigma: float) -> tuple[float, float, float]:
        """Widths (y, x) in MSI pixels and turn in degrees, as `elliptic_psf` takes them, of the PSF of `psf_sigma`."""
        return widths_and_turn(self.psf_covariance(sigma / self.real_ratio))


def turned_like(reader: CubeReader, grid: Grid) -> CubeReader:
    """The reader with its rows as those of another grid run, and a note where they had to be turned for it."""
    if not reader.grid.opposes(grid):
        return reader
    way = ("south to north", "north to south")[:: 1 if reader.grid.transform.e > 0 else -1]
    turned = reader.turned()
    turned.notes.append(about_file(reader.path.name, f"its rows run from {way[0]}; they are read from {way[1]}"))
    return turned


def nest(hsi: Grid, msi: Grid, motion: Affine | Motion = IDENTITY) -> Nesting:
    """The nested grid of an LRHSI and an MSI, whatever their CRSs, transforms and ratio.

    `motion` says, in MSI pixels (column, row), where the LRHSI's georeference puts what the MSI has at a place, as
    found by registration: `Affine.translation(dx, dy)` when the LRHSI's content lies dx right of and dy below it.
    Grids that nest are taken as they are; otherwise the ratio is rounded to a whole number of at least 2 and LR pixels
    are laid on the MSI's so that in the middle of the overlap they come nearest to the LRHSI's own. GridError, in
    figures, when there is no overlap, the ratio makes no sense or one image only has a georeference. What a `Motion`
    bends wants a warp.
    """
    if not isinstance(motion, Affine):
        return _bent(hsi, msi, motion)
    return _nested(hsi, msi, motion)


def whole_shift(hsi: Grid, msi: Grid, shift: Affine) -> Affine:
    """A shift (MSI pixels) of grids that nest, in whole MSI pixels, the rest being left to the PSF's centre.

    The nearest of those at which the most LR pixels lie on the MSI: a row of them that is lost, as of an MSI of the
    LRHSI's extent, costs more than a PSF that isn't centred.

    >>> lr = Grid((20, 20), Affine.scale(40))
    >>> [whole_shift(lr, Grid((size, size), Affine.scale(10)), Affine.translation(-2.1, 0)).c for size in (80, 90)]
    [0.0, -2.0]
    """
    most, found = MOST_OFF_CENTRE * _nested(hsi, msi, IDENTITY).ratio, []
    for axis, size in enumerate((shift.f, shift.c)):
        near = sorted(range(ceil(size - most), floor(size + most) + 1), key=lambda step: abs(step - size))
        moves = (Affine.translation(*((0, step) if axis == 0 else (step, 0))) for step in near)
        lain = [_nested(hsi, msi, move) for move in moves]
        rows = [0 if one.warped else one.lr_grid.shape[axis] for one in lain]
        found.append(near[rows.index(max(rows))])
    return Affine.translation(found[1], found[0])


def _bent(hsi: Grid, msi: Grid, motion: Motion) -> Nesting:
    found = _nested(hsi, msi, motion.affine, warp=motion.distortion is not None)
    if motion.distortion is None:
        return found
    window, s = found.alignment.msi_window, found.ratio
    bend = motion.distortion.seen(window.row_off, window.col_off, 1 / s)
    note = f"{found.note} and what bends: up to {bend.largest * s:.2f} MSI pixels"
    return replace(found, bend=bend, alignment=replace(found.alignment, note=note))


def _nested(hsi: Grid, msi: Grid, motion: Affine, warp: bool = False) -> Nesting:
    """As `nest`; `warp`: also where the grids nest."""
    if not hsi.georeferenced or not msi.georeferenced:
        return _nest_by_corner(hsi, msi, motion, warp)
    if (hsi.crs is None) != (msi.crs is None):
        align(hsi, msi)  # says what is missing
    hsi = renamed(hsi, msi)
    seen = beside(Grid(msi.shape, msi.transform @ motion, msi.crs), hsi)
    if nests(hsi, seen) and not warp:
        return _nested_already(hsi, msi, seen, motion)
    return _nest_by_warp(hsi, msi, seen, motion)


def _nested_already(hsi: Grid, msi: Grid, seen: Grid, motion: Affine) -> Nesting:
    overlap(hsi, seen)  # says how far apart they are
    found = align(hsi, seen)
    note = found.note + _moved(motion, msi)
    alignment = replace(found, hr_grid=msi.window(found.msi_window), note=note)
    return Nesting(alignment, np.eye(2) * found.ratio, motion, hsi)


def _nest_by_corner(hsi: Grid, msi: Grid, motion: Affine, warp: bool) -> Nesting:
    """Without georeference the pair's extent is the MSI's, whatever the shift; what lies beyond is masked."""
    alignment = align(hsi, msi)
    s = alignment.ratio
    placed, pixel = Grid(hsi.shape, Affine.scale(s)), np.eye(2) * s
    seen = Grid(msi.shape, motion).coarsen(s)
    if not warp and not _moves(motion, msi):
        return Nesting(alignment, pixel, motion, placed)
    alignment = replace(alignment, note=f"{alignment.note}; HSI resampled (cubic){_moved(motion, msi)}")
    return Nesting(alignment, pixel, motion, placed, seen)


def _nest_by_warp(hsi: Grid, msi: Grid, seen: Grid, motion: Affine) -> Nesting:
    box, centre = overlap(hsi, seen)
    pixel = _pixel(hsi, seen, centre)
    s = _scale(hsi, msi, pixel)
    origin = _origin(hsi, seen, centre, s)
    spans = [
        _most(low - _beyond(low, s), high + _beyond(size - high, s), first, s)
        for (low, high), first, size in zip(box, origin, msi.shape, strict=True)
    ]
    if any(count < 1 for _, count in spans):
        raise GridError(
            f"the two images overlap by less than one HSI pixel: HSI {hsi.describe()}, MSI {msi.describe()}"
        )
    (row, h), (col, w) = spans
    window = Window(col, row, w * s, h * s)
    alignment = Alignment(s, Window(0, 0, w, h), window, msi.window(window), "")
    found = Nesting(alignment, pixel, motion, hsi, seen.window(window).coarsen(s))
    return replace(found, alignment=replace(alignment, note=_told(found, hsi, msi)))


def _told(found: Nesting, hsi: Grid, msi: Grid) -> str:
    (h, w), s = found.lr_grid.shape, found.ratio
    crs = f" from {hsi.crs.to_string()} to {msi.crs.to_string()}" if hsi.crs != msi.crs and hsi.crs and msi.crs else ""
    return (
        f"common extent {h} x {w} LR pixels = {h * s} x {w * s} MSI pixels; HSI resampled (cubic){crs} onto the MSI's "
        f"grid, real ratio {found.real_ratios[0]:.4g} x {found.real_ratios[1]:.4g} taken as {s}, rotation "
        f"{found.rotation:.2f} degrees{_moved(found.motion, msi)}"
    )


def _moves(motion: Affine, msi: Grid) -> bool:
    """Whether a motion moves some corner of the MSI by more than the tolerance."""
    corners = [(x * msi.shape[1], y * msi.shape[0]) for x in (0, 1) for y in (0, 1)]
    return any(max(abs(a - b) for a, b in zip(motion @ c, c, strict=True)) > GRID_TOLERANCE_PX for c in corners)


def _moved(motion: Affine, msi: Grid) -> str:
    """What a note says about a motion: how the image moves in the MSI's middle, and that it does not move as one."""
    if motion == IDENTITY:
        return ""
    x, y = msi.shape[1] / 2, msi.shape[0] / 2
    col, row = motion @ (x, y)
    bent = "" if motion.almost_equals(Affine.translation(motion.c, motion.f), 1e-9) else " in the middle, less a drift"
    return f", moved by {y - row:+z.2f} rows and {x - col:+z.2f} columns of the MSI{bent}"


def _pixel(hsi: Grid, seen: Grid, centre: tuple[float, float]) -> Floats:
    """Sides (2, 2) of an HSI pixel in MSI pixels, from the map's slope at the centre."""
    row, col = centre
    rows, cols = PixelMap(seen, hsi)([row + 1, row - 1, row, row], [col, col, col + 1, col - 1])
    slope = np.array([[rows[0] - rows[1], rows[2] - rows[3]], [cols[0] - cols[1], cols[2] - cols[3]]]) / 2
    return np.asarray(np.linalg.inv(slope), np.float64)


def _scale(hsi: Grid, msi: Grid, pixel: Floats) -> int:
    """The whole ratio; GridError when the real one makes no sense."""
    mean, sides = sqrt(abs(np.linalg.det(pixel))), np.sqrt(np.square(pixel).sum(axis=0))
    said = f"an HSI pixel covers {sides[0]:.4g} x {sides[1]:.4g} MSI pixels"
    files = f"(HSI {hsi.describe()}; MSI {msi.describe()})"
    if mean < LEAST_RATIO:
        coarse = "; the MSI is coarser than the HSI, are the two swapped?" if mean < 1 else ""
        raise GridError(f"{said}, wanted at least {LEAST_RATIO}{coarse} {files}")
    if mean > LARGEST_RATIO or max(sides) > LARGEST_ASPECT * min(sides):
        raise GridError(
            f"{said}, wanted at most {LARGEST_RATIO:g} and one side at most {LARGEST_ASPECT} times the other {files}"
        )
    return max(2, floor(mean + 0.5))


def _origin(hsi: Grid, seen: Grid, centre: tuple[float, float], s: int) -> tuple[int, int]:
    """An MSI pixel at which an LR pixel starts so that its centre comes nearest to an HSI pixel's, in the middle."""
    r, c = PixelMap(seen, hsi)(*centre)
    row, col = PixelMap(hsi, seen)(np.floor(r) + 0.5, np.floor(c) + 0.5)
    return round(float(row) - s / 2), round(float(col) - s / 2)


def _beyond(room: float, s: int) -> float:
    """How far an LR pixel may reach out of the LRHSI, in MSI pixels: the warp still finds it, if the MSI has it."""
    return min(room, EDGE * s)


def _most(low: float, high: float, origin: int, s: int) -> tuple[int, int]:
    """As `_whole`, from an origin beside this one where that makes one more of them."""
    near = sorted(range(-(s // BESIDE), s // BESIDE + 1), key=abs)
    return max((_whole(low, high, origin + step, s) for step in near), key=lambda span: span[1])


def _whole(low: float, high: float, origin: int, s: int) -> tuple[int, int]:
    """First MSI pixel and number of the whole LR pixels between two MSI coordinates."""
    first = ceil((low - GRID_TOLERANCE_PX - origin) / s)
    return origin + first * s, floor((high + GRID_TOLERANCE_PX - origin) / s) - first

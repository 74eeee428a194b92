"""Where pixels lie: a raster grid, and how two grids nest.

A `Grid` is rows and columns on a map. Two grids nest when one LRHSI pixel covers exactly s x s MSI pixels; `align`
finds the common extent of a pair or says, in figures, why there is none.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import hypot
from typing import Any

import numpy as np
from affine import Affine
from numpy.typing import ArrayLike, NDArray
from rasterio.crs import CRS
from rasterio.windows import Window

from hsfuse.core.errors import GridError

#: Largest misfit, in MSI pixels, that still counts as "on the grid". Co-registration to 0.5 MSI pixel keeps the loss
#: of fusion small; a tenth of that is below what resampling could mend.
GRID_TOLERANCE_PX = 0.05


IDENTITY = Affine.identity()
#: Decimals of a pixel to which a distortion is told, so that what is recorded is what was done.
DECIMALS = 4
#: Numbers of a record beyond this, in pixels, aren't places.
MOST = 1e7

#: What a CRS calls a unit, in lower case, and how it is written.
UNITS = {"metre": "m", "meter": "m", "kilometre": "km", "kilometer": "km", "foot": "ft", "us survey foot": "US ft"}
UNITS |= {"foot_us": "US ft", "unknown": ""}

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Grid:
    """Rows x columns on a map: `shape` (H, W), pixel-to-map `transform`, and `crs` (None: not georeferenced)."""

    shape: tuple[int, int]
    transform: Affine = IDENTITY
    crs: CRS | None = None

    @property
    def georeferenced(self) -> bool:
        """True when the pixels have a place on a map, be it without a named CRS."""
        return self.crs is not None or not self.transform.is_identity

    @property
    def gsd(self) -> tuple[float, float]:
        """Ground sampling distance (y, x) in map units."""
        t = self.transform
        return hypot(t.b, t.e), hypot(t.a, t.d)

    @property
    def unit(self) -> str:
        """What GSD and bounds are in: "m", "°" or as the CRS calls it; "" where that isn't known."""
        if self.crs is None or not self.georeferenced:
            return ""
        name = str(self.crs.linear_units)
        return "°" if self.crs.is_geographic else UNITS.get(name.lower(), name)

    def crop(self, row: int, col: int, shape: tuple[int, int]) -> Grid:
        """The part of this grid that starts at (row, col)."""
        return Grid(shape, self.transform @ Affine.translation(col, row), self.crs)

    def window(self, window: Window) -> Grid:
        """The part of this grid inside a rasterio window."""
        return self.crop(int(window.row_off), int(window.col_off), (int(window.height), int(window.width)))

    def coarsen(self, s: int) -> Grid:
        """The grid whose pixels cover s x s of these; shape must be multiples of s (GridError)."""
        if self.shape[0] % s or self.shape[1] % s:
            raise GridError(f"a grid of {self.shape[0]} x {self.shape[1]} pixels can't be divided by {s}")
        return Grid((self.shape[0] // s, self.shape[1] // s), self.transform @ Affine.scale(s), self.crs)

    def refine(self, s: int) -> Grid:
        """The grid that divides each pixel into s x s."""
        return Grid((self.shape[0] * s, self.shape[1] * s), self.transform @ Affine.scale(1 / s), self.crs)

    def turned(self) -> Grid:
        """The same ground with the rows in the opposite order."""
        down = Affine.translation(0, self.shape[0]) @ Affine.scale(1, -1)
        return Grid(self.shape, self.transform @ down, self.crs)

    def opposes(self, other: Grid) -> bool:
        """Whether one's rows run from south to north, the other's from north to south; False where one is rotated."""
        mine, theirs = self.transform, other.transform
        upright = not any((mine.b, mine.d, theirs.b, theirs.d))
        return self.georeferenced and other.georeferenced and upright and mine.e * theirs.e < 0

    @property
    def bounds(self) -> tuple[float, float, float, float]:
        """Lowest x and y, highest x and y."""
        corners = [self.transform @ (col, row) for col in (0, self.shape[1]) for row in (0, self.shape[0])]
        xs, ys = zip(*corners, strict=True)
        return min(xs), min(ys), max(xs), max(ys)

    def pixel_of(self, other: Grid) -> tuple[float, float]:
        """Fractional (row, col) on this grid of the other grid's top left corner."""
        col, row = ~self.transform @ (other.transform.c, other.transform.f)
        return row, col

    def __repr__(self) -> str:
        place = f", upper left at {self.transform.c:.12g}, {self.transform.f:.12g}" if self.georeferenced else ""
        return f"Grid({self.describe()}{place})"

    def describe(self) -> str:
        """One line for people: size, GSD, CRS."""
        crs = "no CRS" if self.crs is None else self.crs.to_string()
        if not self.georeferenced:
            return f"{self.shape[0]} x {self.shape[1]} pixels, not georeferenced"
        size = with_unit(f"{self.gsd[0]:g} x {self.gsd[1]:g}", self.unit)
        return f"{self.shape[0]} x {self.shape[1]} pixels of {size}, {crs}"


def with_unit(figures: str, unit: str) -> str:
    """Figures with their unit as people write it.

    >>> with_unit("30 x 30", "m"), with_unit("0.001", "°"), with_unit("2", "")
    ('30 x 30 m', '0.001°', '2')
    """
    return f"{figures}{'' if unit in ('', '°') else ' '}{unit}"


def within(window: Window, into: Window) -> Window:
    """A window of a part of an image, which is itself its window `into`, in the image's own pixels."""
    return Window(into.col_off + window.col_off, into.row_off + window.row_off, window.width, window.height)


@dataclass(frozen=True)
class Alignment:
    """How an LRHSI and an MSI overlap on one nested grid: windows into each file, the ratio, the common grids."""

    ratio: int
    hsi_window: Window
    msi_window: Window
    hr_grid: Grid
    note: str

    @property
    def lr_grid(self) -> Grid:
        """The common extent on the LRHSI's grid."""
        return self.hr_grid.coarsen(self.ratio)

    @property
    def full(self) -> tuple[int, int]:
        """Rows and columns of the common extent, in MSI pixels."""
        return self.hr_grid.shape


def align(hsi: Grid, msi: Grid) -> Alignment:
    """Common extent of an LRHSI grid and an MSI grid that nest; GridError with figures when they don't.

    They nest when CRS and orientation are equal, the GSD ratio is one whole number s >= 2 and the LRHSI's pixel
    borders fall on MSI pixel borders; the MSI is then cropped to whole LRHSI pixels.
    """
    if hsi.georeferenced != msi.georeferenced:
        bare = "MSI" if hsi.georeferenced else "HSI"
        raise GridError(f"the {bare} has no georeference but the other image has; give both or neither one")
    if not hsi.georeferenced:
        return _align_by_corner(hsi, msi)
    if (hsi.crs is None) != (msi.crs is None):
        bare, other = ("HSI", msi.crs) if hsi.crs is None else ("MSI", hsi.crs)
        raise GridError(
            f"the {bare} is on a map but names no CRS, the other image is in {_name(other)}: it can't be reprojected; "
            f"assign it its own CRS first, such as gdal_edit.py -a_srs {_name(other)} if it is that one"
        )
    if hsi.crs != msi.crs:
        raise GridError(
            f"the HSI is in {_name(hsi.crs)} but the MSI in {_name(msi.crs)}; reproject the HSI to the MSI's CRS first"
        )
    place = relation(hsi, msi)
    if not _whole(place, hsi):
        raise GridError(
            f"the GSDs are {hsi.gsd[0]:g} x {hsi.gsd[1]:g} (HSI) and {msi.gsd[0]:g} x {msi.gsd[1]:g} (MSI): the "
            f"ratio is {place.size[0]:.4g} x {place.size[1]:.4g}, wanted one whole number of at least 2 in both "
            "directions without rotation; resample the HSI to a multiple of the MSI's GSD first"
        )
    return _overlap(hsi, msi, place)


def nests(hsi: Grid, msi: Grid) -> bool:
    """Whether georeferenced grids nest, be it without overlap: what `align` wants of CRS, ratio and pixel borders."""
    place = relation(hsi, msi)
    return hsi.crs == msi.crs and _whole(place, hsi) and place.misfit <= GRID_TOLERANCE_PX


def _name(crs: CRS | None) -> str:
    return "no CRS" if crs is None else crs.to_string()


@dataclass(frozen=True)
class GridRelation:
    """How a coarse grid's pixels lie in a fine one's, all in fine pixels.

    `size` (rows, columns) of a coarse pixel and the nearest whole number to it, `ratio`; `row` and `col` where the
    coarse grid starts; `drift`, by how much one coarse pixel departs from a square of `ratio` pixels without rotation.
    """

    size: tuple[float, float]
    ratio: int
    row: float
    col: float
    drift: float

    @property
    def misfit(self) -> float:
        """How far the coarse grid's start is from a corner of a fine pixel."""
        return max(abs(self.row - round(self.row)), abs(self.col - round(self.col)))


def relation(coarse: Grid, fine: Grid) -> GridRelation:
    """Where a coarse grid lies on a fine one of the same coordinates; whether that is near enough is the caller's."""
    relative = ~fine.transform @ coarse.transform
    ratio = round(relative.a)
    drift = max(abs(relative.a - ratio), abs(relative.e - ratio), abs(relative.b), abs(relative.d))
    return GridRelation((relative.e, relative.a), ratio, relative.f, relative.c, drift)


def _whole(place: GridRelation, hsi: Grid) -> bool:
    """Whether the ratio is whole, without rotation, over the whole HSI."""
    return place.ratio >= 2 and max(hsi.shape) * place.drift <= GRID_TOLERANCE_PX * place.ratio


def _overlap(hsi: Grid, msi: Grid, place: GridRelation) -> Alignment:
    if place.misfit > GRID_TOLERANCE_PX:
        raise GridError(
            f"the HSI starts at MSI row {place.row:.3f}, column {place.col:.3f}: {place.misfit:.2f} of an MSI pixel "
            f"off the grid (at most {GRID_TOLERANCE_PX} allowed); resample the HSI onto the MSI's grid first"
        )
    s = place.ratio
    rows = _common(round(place.row), hsi.shape[0], msi.shape[0], s)
    cols = _common(round(place.col), hsi.shape[1], msi.shape[1], s)
    if rows is None or cols is None:
        raise GridError(f"the two images don't overlap: HSI {_bounds(hsi)}, MSI {_bounds(msi)}")
    (top, first_row, h), (left, first_col, w) = rows, cols
    hr_grid = msi.crop(top, left, (h * s, w * s))
    note = f"common extent {h} x {w} HSI pixels = {h * s} x {w * s} MSI pixels, ratio {s}"
    return Alignment(s, Window(first_col, first_row, w, h), Window(left, top, w * s, h * s), hr_grid, note)


def _common(start: int, n_lr: int, n_hr: int, s: int) -> tuple[int, int, int] | None:
    """(first MSI pixel, first LR pixel, count of LR pixels) of the whole LR pixels inside both, along one axis."""
    first = max(0, -(start // s)) if start < 0 else 0
    last = min(n_lr, (n_hr - start) // s)
    return (start + first * s, first, last - first) if last > first else None


def _bounds(grid: Grid) -> str:
    left, low, right, high = grid.bounds
    return f"x {left:.6g} to {right:.6g}, y {low:.6g} to {high:.6g}"


def _align_by_corner(hsi: Grid, msi: Grid) -> Alignment:
    """Images without georeference: top left corners coincide, the sizes give the ratio."""
    ratios = (msi.shape[0] / hsi.shape[0], msi.shape[1] / hsi.shape[1])
    ratio = round(ratios[0])
    if ratio < 2 or ratios != (ratio, ratio):
        raise GridError(
            f"neither image is georeferenced and their sizes {hsi.shape} and {msi.shape} have no whole ratio of at "
            "least 2"
        )
    whole = Window(0, 0, hsi.shape[1], hsi.shape[0]), Window(0, 0, msi.shape[1], msi.shape[0])
    return Alignment(
        ratio, *whole, Grid(msi.shape), f"neither image is georeferenced: aligned by corners, ratio {ratio}"
    )


@dataclass(frozen=True)
class Distortion:
    """Pixels (down, right) by which content lies off, bicubic splines through a lattice of nodes.

    Nodes are spread evenly from the (row, col) `first` to the `last`, in pixels; `down` and `right` are displacements.
    Beyond the lattice the nearest node's hold.
    """

    first: tuple[float, float]
    last: tuple[float, float]
    down: tuple[tuple[float, ...], ...]
    right: tuple[tuple[float, ...], ...]

    @classmethod
    def through(cls, at: Callable[[Floats], Floats], first: Floats, last: Floats, step: float) -> Distortion:
        """What a function of places (m, 2) has as displacements (m, 2), at nodes `step` apart at most."""
        counts = np.maximum(2, np.ceil((last - first) / step).astype(int) + 1)
        nodes = np.stack(np.meshgrid(*map(np.linspace, first, last, counts), indexing="ij"), -1)
        found = at(nodes.reshape(-1, 2)).round(DECIMALS).reshape(nodes.shape)
        return cls(_place(first), _place(last), _lines(found[..., 0]), _lines(found[..., 1]))

    def __call__(self, rows: ArrayLike, cols: ArrayLike) -> tuple[Floats, Floats]:
        """Down and right in pixels at places in pixels, of the shape of the arguments."""
        from scipy.ndimage import map_coordinates  # grids are looked at before anything slow is loaded

        places = np.broadcast_arrays(np.asarray(rows, float), np.asarray(cols, float))
        within = zip(places, self.first, self.steps, np.shape(self.down), strict=True)
        at = [np.clip((place - first) / step, 0, n - 1).ravel() for place, first, step, n in within]
        down, right = (map_coordinates(np.array(v), at, order=3, mode="mirror") for v in (self.down, self.right))
        return down.reshape(places[0].shape), right.reshape(places[0].shape)

    @property
    def largest(self) -> float:
        """Largest displacement of a node, in pixels."""
        return float(np.hypot(self.down, self.right).max())

    @property
    def steps(self) -> Floats:
        """Pixels from node to node, (2,)."""
        return np.subtract(self.last, self.first) / (np.array(np.shape(self.down)) - 1)

    @property
    def steepest(self) -> float:
        """Largest change of a displacement from node to node, a share of their distance: from 1 on ground may fold."""
        planes = self.down, self.right
        return float(max(np.abs(np.diff(v, axis=i)).max() / self.steps[i] for v in planes for i in (0, 1)))

    def seen(self, row: float, col: float, factor: float) -> Distortion:
        """The same in pixels of which `factor` lie along one of these, the first at (row, col) of these."""
        first, last = (((v[0] - row) * factor, (v[1] - col) * factor) for v in (self.first, self.last))
        down, right = (
            tuple(tuple(round(one * factor, DECIMALS) for one in line) for line in v) for v in (self.down, self.right)
        )
        return Distortion(first, last, down, right)


@dataclass(frozen=True)
class Motion:
    """Where the LRHSI has what the MSI has at a place, in MSI pixels: `affine` @ (place + `distortion`)."""

    affine: Affine = IDENTITY
    distortion: Distortion | None = None

    def after(self, first: Motion) -> Motion:
        """This one of where another, that is left over once this one is corrected, has a place."""
        affine = self.affine @ first.affine
        parts = [one for one in (self.distortion, first.distortion) if one is not None]
        if not parts:
            return Motion(affine)

        def at(places: Floats) -> Floats:
            moved = _displaced(places, first.distortion)
            moved = moved_by(first.affine, moved)
            return moved_by(~first.affine, _displaced(moved, self.distortion)) - places

        first_node, last = np.min([one.first for one in parts], axis=0), np.max([one.last for one in parts], axis=0)
        return Motion(affine, Distortion.through(at, first_node, last, float(min(one.steps.min() for one in parts))))

    def record(self) -> dict[str, Any]:
        """Six numbers and, if any, the lattice, for provenance."""
        told: dict[str, Any] = {"motion": list(self.affine[:6])}
        if self.distortion is not None:
            told["distortion"] = vars(self.distortion)
        return told

    @classmethod
    def of_record(cls, told: Any) -> Motion | None:
        """Of what `record` wrote; None of anything else."""
        motion: Any = told.get("motion") if isinstance(told, Mapping) else None
        if not _numbers(motion, 6) or Affine(*motion).determinant <= 0:
            return None
        bent = told.get("distortion")
        if bent is None:
            return cls(Affine(*motion))
        try:
            down, right = (np.array(bent[name], float) for name in ("down", "right"))
            first, last = (np.array(bent[name], float) for name in ("first", "last"))
        except (KeyError, TypeError, ValueError, OverflowError):
            return None
        alike = (
            down.ndim == 2 and down.shape == right.shape and min(down.shape) > 1 and first.shape == last.shape == (2,)
        )
        if not alike or not all((np.abs(v) < MOST).all() for v in (down, right, first, last)) or (last <= first).any():
            return None
        distortion = Distortion(_place(first), _place(last), _lines(down), _lines(right))
        return cls(Affine(*motion), distortion) if distortion.steepest < 1 else None


def _place(place: Floats) -> tuple[float, float]:
    row, col = place.tolist()
    return row, col


def _lines(plane: Floats) -> tuple[tuple[float, ...], ...]:
    return tuple(map(tuple, plane.tolist()))


def _numbers(told: Any, count: int) -> bool:
    if not isinstance(told, list) or len(told) != count:
        return False
    return all(isinstance(v, int | float) and not isinstance(v, bool) and abs(v) < MOST for v in told)


def _displaced(places: Floats, distortion: Distortion | None) -> Floats:
    """Places (m, 2), row and column, plus a distortion there."""
    return places if distortion is None else places + np.stack(distortion(*places.T), 1)


def moved_by(affine: Affine, places: Floats) -> Floats:
    """Places (m, 2), row and column, by an affine map of column and row."""
    row, col = places.T
    return np.stack([affine.d * col + affine.e * row + affine.f, affine.a * col + affine.b * row + affine.c], 1)

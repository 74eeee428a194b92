"""Any reader on another grid: each window is cut out of the source and warped once, by cubic convolution."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from math import ceil, floor

import numpy as np
from affine import Affine
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.enums import Resampling
from rasterio.warp import reproject
from rasterio.windows import Window
from scipy import sparse

from hsfuse.core.cube import BoolArray, FloatArray, Spectrum
from hsfuse.core.errors import InputError
from hsfuse.core.grid import Distortion, Grid
from hsfuse.io import CubeReader
from hsfuse.io.gdal import RASTER_ERRORS, one_line
from hsfuse.io.reader import Quantity
from hsfuse.pair.mapping import Floats, PixelMap, lattice
from hsfuse.physics.optics import keys_weights

#: Cells of the target that are warped one by one, in pixels, where the map isn't affine. GDAL follows such a map along
#: each row by straight lines; cells of a fixed lattice make a pixel's value independent of the window it is read in,
#: and small ones keep the lines within about 1e-3 pixel of the map.
CELL = 32
#: Side of the cells where the map is affine: what bounds memory.
LARGE_CELL = 64
#: Source pixels read around a cell: the kernel reaches two, and what is filled next to masked pixels two more.
MARGIN = 5
#: Rings of masked pixels that are filled from their valid neighbours, which is as far as the kernel reaches.
RINGS = 2
#: Source pixels by which another detector may lie elsewhere, at most.
FARTHEST = 2
#: Share of the kernel's weight that must lie on valid pixels.
MIN_VALID = 0.95
#: Steps back along a bend, each of which leaves what the bend changes over the step: a few hundredths of it.
BACK = 10
#: Pixels of the last of them beyond which there is no way back: ground is folded or torn.
SETTLED = 0.02
#: Stands in for a CRS where neither grid has one: GDAL wants some, and equal ones leave coordinates alone.
ANY_CRS = CRS.from_epsg(32631)
#: GDAL's own guess of the scale depends on the window; the kernel is Keys' on source pixels (no smoothing).
WARP_OPTIONS = {"XSCALE": 1, "YSCALE": 1, "SOURCE_EXTRA": MARGIN, "num_threads": 1}


class WarpedReader(CubeReader):
    """A cube presented on `grid`.

    Pixel values are found where the source has the georeference of `seen` (default: `grid` itself; another one of its
    shape when the source's georeference is off), the source lying at `placed` (default: its own grid). Values are
    float32 as the source's `read` gives them; `dtype`, `scales` and `offsets` stay the file's, for who writes alike.
    Masked pixels and what lies outside the source don't bleed: a pixel is valid when at least 95 % of its weight was on
    valid pixels, and what little weight masked pixels keep falls on the mean of their valid neighbours. A `bend`, in
    pixels of `grid`, says how far beside its place each pixel is found. Bands of another detector may lie `apart`.
    """

    #: Bands, and where the other ones' detector has what theirs has at a place, in the source's pixels.
    apart: tuple[frozenset[int], Affine] | None = None
    #: Rings of masked pixels that are filled.
    rings = RINGS

    def __init__(
        self,
        source: CubeReader,
        grid: Grid,
        seen: Grid | None = None,
        placed: Grid | None = None,
        bend: Distortion | None = None,
    ) -> None:
        super().__init__(source.path, source.role)
        self._source, self._seen, self._placed, self._bend = source, seen or grid, placed or source.grid, bend
        self._map = PixelMap(self._seen, self._placed, bend)
        self.grid = grid
        self.files, self.driver, self.dtype = source.files, source.driver, source.dtype
        self.spectrum: Spectrum = source.spectrum
        self.nodata_values, self.scales, self.offsets = source.nodata_values, source.scales, source.offsets
        self.quantity, self.notes, self.tags = source.quantity, source.notes, source.tags

    def source_part(self, window: Window) -> tuple[CubeReader, Window]:
        """The file's own reader, and the pixels of it under a window."""
        lines = lattice((window.height, window.width), 33, (window.row_off, window.col_off))
        known = [v[np.isfinite(v)] for v in self._map(*lines)]
        (top, bottom), (left, right) = (
            (max(0, floor(v.min() + 1e-6)), min(n, ceil(v.max() - 1e-6)))
            for v, n in zip(known, self._placed.shape, strict=True)
        )
        return self._source, Window(left, top, max(0, right - left), max(0, bottom - top))

    def over(self, source: CubeReader) -> WarpedReader:
        """The same of another source that holds the same pixels."""
        return self._changed(_source=source)

    def with_apart(self, bands: Iterable[int], move: Affine) -> WarpedReader:
        """The same with some bands found where a detector has them that lies elsewhere by a `move` of source pixels."""
        return self._changed(apart=(frozenset(bands), move))

    @property
    def detector(self) -> WarpedReader:
        """As all bands would be were they those that lie apart."""
        assert self.apart is not None
        placed = Grid(self._placed.shape, self._placed.transform @ self.apart[1], self._placed.crs)
        found = WarpedReader(self._source, self.grid, self._seen, placed, self._bend)
        found.rings = RINGS + FARTHEST
        return found

    def reach(self, window: Window) -> Window:
        """Source pixels that hold all that reading a window asks for."""
        grown = [
            (max(0, first - CELL), min(size, first + count + CELL))
            for first, count, size in zip(
                (window.row_off, window.col_off), (window.height, window.width), self.grid.shape, strict=True
            )
        ]
        (top, bottom), (left, right) = grown
        _, part = self.source_part(Window(left, top, right - left, bottom - top))
        rows, cols = (
            (max(0, first - MARGIN - 1), min(size, first + count + MARGIN + 1))
            for first, count, size in zip(
                (part.row_off, part.col_off), (part.height, part.width), self._source.grid.shape, strict=True
            )
        )
        return Window(cols[0], rows[0], max(0, cols[1] - cols[0]), max(0, rows[1] - rows[0]))

    def rescaled(self, factor: float) -> WarpedReader:
        """The same with all values multiplied by a factor, in the source, where they are decoded."""
        source = self._source.rescaled(factor)
        return self._changed(_source=source, scales=source.scales, offsets=source.offsets)

    def holding(self, quantity: Quantity) -> WarpedReader:
        """The same pixels, said to be of a quantity, in the source, too."""
        return self._changed(_source=self._source.holding(quantity), quantity=quantity)

    def fetch(
        self, bands: Sequence[int], window: Window, shape: tuple[int, int] | None = None
    ) -> tuple[NDArray, BoolArray | None]:
        """As of any reader; the source tries again by itself."""
        return self.pixels(bands, self._checked(window), shape)

    def close(self) -> None:
        """Close the source."""
        self._source.close()

    def sample(self, bands: Sequence[int], shape: tuple[int, int]) -> tuple[FloatArray, BoolArray]:
        """Decimated look at bands (0-based), nearest neighbour: data and validity of each band, both (C, *shape)."""
        data, valid = self._source.sample(bands, self._source_shape(shape))
        size = self._placed.shape
        steps = [(np.arange(n) + 0.5) * whole / n for n, whole in zip(shape, self.grid.shape, strict=True)]
        rows, cols = self._map(steps[0][:, None], steps[1][None])
        inside = (rows >= 0) & (rows < size[0]) & (cols >= 0) & (cols < size[1])
        r, c = (
            np.where(inside, v * n / whole, 0).astype(int)
            for v, n, whole in zip((rows, cols), data.shape[1:], size, strict=True)
        )
        return np.where(inside, data[:, r, c], 0), valid[:, r, c] & inside

    def _source_shape(self, shape: tuple[int, int]) -> tuple[int, int]:
        """The decimation of the whole source that is as coarse as `shape` is on this grid."""
        step = max(1.0, *(whole / n for whole, n in zip(self.grid.shape, shape, strict=True)))
        rows, cols = (ceil(n / step) for n in self._source.grid.shape)
        return rows, cols

    def _decode(self, raw: NDArray, bands: Sequence[int]) -> tuple[FloatArray, BoolArray, BoolArray]:
        """Values are decoded before the warp, and a pixel's bands are masked together."""
        return raw, np.ones(raw.shape, bool), np.zeros(raw.shape, bool)

    def pixels(
        self, bands: Sequence[int], window: Window, shape: tuple[int, int] | None = None
    ) -> tuple[NDArray, BoolArray | None]:
        """As of any reader."""
        if shape is not None:
            raise InputError("a warped image is decimated by `sample` only")
        data, mask = self._own(bands, window)
        moved = [] if self.apart is None else [i for i, band in enumerate(bands) if band in self.apart[0]]
        if moved:  # valid where the others are: beside borders and gaps by the rings that are filled
            data[moved] = self.detector._own([bands[i] for i in moved], window)[0]
        return data, mask

    def _own(self, bands: Sequence[int], window: Window) -> tuple[FloatArray, BoolArray]:
        """Data (C, h, w) and mask (h, w) of a window, no band being apart."""
        if self._seen == self._placed and self._bend is None:
            before = self._source.nonfinite
            cube = self._source.read(window, bands)
            self.nonfinite += self._source.nonfinite - before
            return cube.data, cube.mask
        data = np.zeros((len(bands), window.height, window.width), np.float32)
        mask = np.zeros(data.shape[1:], bool)
        for cell, cut, place in self._cells(window):
            values, valid = self._warp(bands, cell)
            data[:, *place], mask[place] = values[:, *cut], valid[cut]
        return data, mask

    def _cells(self, window: Window) -> Iterator[tuple[Window, tuple[slice, slice], tuple[slice, slice]]]:
        """Cells that cover a window: what to warp, the part of it that is wanted, and its place in the window."""
        alone = self._map.linear or self._bend is not None  # each pixel by itself
        size = LARGE_CELL if alone else CELL
        rows = _pieces(window.row_off, window.height, size, self.grid.shape[0], alone)
        cols = _pieces(window.col_off, window.width, size, self.grid.shape[1], alone)
        for (row, h), row_cut, row_place in rows:
            for (col, w), col_cut, col_place in cols:
                yield Window(col, row, w, h), (row_cut, col_cut), (row_place, col_place)

    def _warp(self, bands: Sequence[int], cell: Window) -> tuple[FloatArray, BoolArray]:
        """Data (C, h, w) and mask (h, w) of a cell."""
        data = np.zeros((len(bands), cell.height, cell.width), np.float32)
        at, window = self._found(cell)
        if window is None:
            return data, np.zeros(data.shape[1:], bool)
        values, valid = self._cut(bands, window)
        if not valid.any():
            return data, np.zeros(data.shape[1:], bool)
        # The mask is warped as one more band, so that all it weighs is what the values were made of.
        target = self._brought(np.concatenate([values, valid[None].astype(np.float32)]), window, cell, at)
        return target[:-1], target[-1] >= MIN_VALID

    def _brought(
        self, source: FloatArray, window: Window, cell: Window, at: tuple[Floats, Floats] | None
    ) -> FloatArray:
        """A window of the source (C, m, n) on a cell: (C, h, w)."""
        if at is not None:
            return resampled(source, at, window)
        target = np.zeros((len(source), cell.height, cell.width), np.float32)
        _reproject(source, target, self._placed.window(window), self._seen.window(cell))
        return target

    def carried(self, window: Window, look: Callable[[Floats, Floats], FloatArray], count: int) -> FloatArray:
        """What reading a window (h, w) makes of an image that is known anywhere: (count, h, w), 0 out of the source.

        `look` gives the image (count, m, n) at rows and columns (m, n) of this grid, whole numbers being pixel corners.
        """
        found = np.zeros((count, window.height, window.width), np.float32)
        for cell, cut, place in self._cells(window):
            at, part = self._found(cell)
            if part is not None:
                found[:, *place] = self._brought(look(*self.back(part)), part, cell, at)[:, *cut]
        return found

    def places(self, window: Window) -> Iterator[tuple[Floats, Floats]]:
        """All rows and columns at which `carried` asks for an image, cell by cell."""
        for cell, _, _ in self._cells(window):
            if (part := self._found(cell)[1]) is not None:
                yield self.back(part)

    def _found(self, cell: Window) -> tuple[tuple[Floats, Floats] | None, Window | None]:
        """Where in the source a cell's pixels are found if each is by itself, and the source pixels that it needs."""
        if self._bend is None:
            return None, self._reach(cell)
        at = self._map(*_centres(cell))
        return at, _around_points(at, self._placed.shape)

    def back(self, part: Window) -> tuple[Floats, Floats]:
        """Where on this grid the source's pixels of a window lie: rows and columns (m, n)."""
        rows, cols = np.broadcast_arrays(*_centres(part))
        seen = PixelMap(self._placed, self._seen)(rows, cols)
        if self._bend is None:
            return seen
        found = seen
        for _ in range(BACK):
            last = found
            down, right = self._bend(*found)
            found = seen[0] - down, seen[1] - right
        kept = np.hypot(found[0] - last[0], found[1] - last[1]) < SETTLED
        return np.where(kept, found[0], np.nan), np.where(kept, found[1], np.nan)

    def _reach(self, cell: Window) -> Window | None:
        """Source pixels, also such as lie outside of it, that a cell needs; None when none is inside."""
        size = cell.height - 1, cell.width - 1
        at = self._map(*lattice(size, 9, (cell.row_off + 0.5, cell.col_off + 0.5)))
        return _around_points(at, self._placed.shape)

    def _cut(self, bands: Sequence[int], window: Window) -> tuple[FloatArray, BoolArray]:
        """Source in a window that may reach beyond it, invalid there; next to valid pixels invalid ones are filled."""
        rows, cols = self._source.grid.shape
        top, left = max(0, window.row_off), max(0, window.col_off)
        bottom, right = min(rows, window.row_off + window.height), min(cols, window.col_off + window.width)
        before = self._source.nonfinite
        cube = self._source.read(Window(left, top, right - left, bottom - top), bands)
        self.nonfinite += self._source.nonfinite - before
        if cube.mask.shape == (window.height, window.width) and cube.mask.all():
            return cube.data, cube.mask
        values = np.zeros((len(bands), window.height, window.width), np.float32)
        valid = np.zeros(values.shape[1:], bool)
        place = np.s_[top - window.row_off : bottom - window.row_off, left - window.col_off : right - window.col_off]
        values[:, *place], valid[place] = cube.data, cube.mask
        return fill_rings(values, valid, self.rings), valid


def own_reader(reader: CubeReader) -> CubeReader:
    """The reader of the file itself, on its own grid, of one that may be warped."""
    return reader._source if isinstance(reader, WarpedReader) else reader


def _pieces(start: int, count: int, size: int, whole: int, clip: bool) -> list[tuple[tuple[int, int], slice, slice]]:
    """Cells of a lattice along one axis: (first, count) to warp, the cut out of them, its place in start..count."""
    pieces = []
    for first in range(start // size * size, start + count, size):
        low, high = max(first, start), min(first + size, start + count)
        cell = (low, high) if clip else (first, min(first + size, whole))
        place = slice(low - start, high - start)
        pieces.append(((cell[0], cell[1] - cell[0]), slice(low - cell[0], high - cell[0]), place))
    return pieces


def _centres(cell: Window) -> tuple[Floats, Floats]:
    """Rows (h, 1) and columns (1, w) of a cell's pixels."""
    return np.arange(cell.height)[:, None] + cell.row_off + 0.5, np.arange(cell.width)[None] + cell.col_off + 0.5


def _around_points(at: tuple[Floats, Floats], shape: tuple[int, int]) -> Window | None:
    """Source pixels, also such as lie outside of it, that points need; None when none is inside."""
    good = np.isfinite(at[0]) & np.isfinite(at[1])
    if not good.any():
        return None
    (row, h), (col, w) = (_reach(v[good], n) for v, n in zip(at, shape, strict=True))
    return Window(col, row, w, h) if min(h, w) > 0 else None


def resampled(source: FloatArray, at: tuple[Floats, Floats], window: Window) -> FloatArray:
    """Cubic convolution (Keys 1981) of a source (C, h, w), a window of an image, at points of that image.

    Points are rows and columns (m, n), whole numbers being pixel corners; (C, m, n). What lies out of the window is 0.
    Each point is summed in one order, so that it is the same among any others.
    """
    c, h, w = source.shape
    index, inside, weight = [], [], []
    for v, first, size in zip(at, (window.row_off, window.col_off), (h, w), strict=True):
        place = np.where(np.isfinite(v), v, -1e6).ravel() - 0.5
        low = np.floor(place).astype(np.int64)
        taps = low[:, None] + np.arange(-1, 3) - first
        inside.append((taps >= 0) & (taps < size))
        index.append(np.clip(taps, 0, size - 1))
        weight.append(keys_weights(place - low).T)
    weights = np.where(inside[0][:, :, None] & inside[1][:, None], weight[0][:, :, None] * weight[1][:, None], 0)
    cells = index[0][:, :, None] * w + index[1][:, None]
    rows = np.arange(len(cells) + 1) * 16
    matrix = sparse.csr_array((weights.astype(np.float32).ravel(), cells.ravel(), rows), (len(cells), h * w))
    found = matrix @ np.ascontiguousarray(source.reshape(c, -1).T)
    return np.ascontiguousarray(found.T, np.float32).reshape(c, *at[0].shape)


def _reach(values: NDArray[np.float64], size: int) -> tuple[int, int]:
    """First pixel and count along one axis, at most `MARGIN` beyond the image; count 0 when all of it is outside."""
    low, high = floor(values.min()) - MARGIN, ceil(values.max()) + MARGIN
    if high <= 0 or low >= size:
        return 0, 0
    low, high = max(low, -MARGIN), min(high, size + MARGIN)
    return low, high - low


def _reproject(source: NDArray, target: NDArray, at: Grid, to: Grid) -> None:
    try:
        reproject(
            source,
            target,
            src_transform=at.transform,
            src_crs=at.crs or ANY_CRS,
            dst_transform=to.transform,
            dst_crs=to.crs or ANY_CRS,
            resampling=Resampling.cubic,
            **WARP_OPTIONS,
        )
    except RASTER_ERRORS as error:
        raise InputError(f"the HSI can't be brought onto the MSI's grid: {one_line(error)}") from error


def fill_rings(values: FloatArray, valid: BoolArray, rings: int = RINGS) -> FloatArray:
    """Values (C, h, w) with some rings of invalid pixels next to valid ones set to the mean of their neighbours."""
    values = np.where(valid, values, np.float32(0))
    known = valid
    for _ in range(rings):
        count = _around(known[None].astype(np.float32))[0]
        ring = ~known & (count > 0)
        values = np.where(ring, _around(values) / np.maximum(count, 1), values)
        known = known | ring
    return values


def _around(planes: FloatArray) -> FloatArray:
    """Sum over each pixel's 3 x 3 surroundings, nothing beyond the border: (C, h, w) -> (C, h, w)."""
    p = np.pad(planes, ((0, 0), (1, 1), (1, 1)))
    p = p[:, :-2] + p[:, 1:-1] + p[:, 2:]
    return p[:, :, :-2] + p[:, :, 1:-1] + p[:, :, 2:]

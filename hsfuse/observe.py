"""A cube seen by the sensors, in bounded memory: how a window degrades, and the strips that `simulate` writes.

The reference is read by strips of whole rows with a halo, so memory doesn't grow with the number of rows, and neither
the strips' height nor a pixel's place in a strip shows in the result.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import ceil

import numpy as np
import torch
from affine import Affine
from numpy.typing import NDArray
from rasterio.windows import Window
from torch import Tensor

from hsfuse.cube import BoolArray, Cube, FloatArray
from hsfuse.grid import Grid
from hsfuse.io import TILE, CubeReader
from hsfuse.physics import MIN_PSF_WEIGHT, ObservationModel, centred_phase

FloatArray64 = NDArray[np.float64]

#: Reference values (pixels x bands) held at a time: 128 MB of float32.
VALUES_AT_ONCE = 2**25
#: Tiles of the outputs, of which a strip should have whole ones.
TILES = (TILE, TILE // 2, TILE // 4)
#: Bands and LR columns blurred at a time, in float64 so that the pieces' borders leave no trace.
BANDS_AT_ONCE, COLUMNS_AT_ONCE = 16, 128


def lr_grid(grid: Grid, s: int, phase: float) -> Grid:
    """Grid of the LRHSI (h, w): pixels s times as large, the first one centred at HR coordinate `phase`.

    A centred phase gives the coarsened grid. An image without georeference stays without: its corner is its place.
    """
    if not grid.georeferenced:
        return Grid((grid.shape[0] // s, grid.shape[1] // s))
    coarse, shift = grid.coarsen(s), (phase - centred_phase(s)) / s
    return Grid(coarse.shape, coarse.transform @ Affine.translation(shift, shift), grid.crs)


@dataclass(frozen=True)
class Span:
    """LR pixels along one axis: `count` from `start` are made, out of those from `low` to `high`, the halo included."""

    start: int
    count: int
    low: int
    high: int

    def inner(self, s: int = 1) -> slice:
        """The pixels that are made, counted from `low`, in units of 1/s LR pixel."""
        first = self.start - self.low
        return slice(first * s, (first + self.count) * s)

    def outer(self, s: int = 1) -> slice:
        """The pixels with halo, counted from 0, in units of 1/s LR pixel."""
        return slice(self.low * s, self.high * s)


def spans(n: int, size: int, halo: int) -> list[Span]:
    """Spans of at most `size` that cover n LR pixels."""
    return [Span(i, min(size, n - i), max(0, i - halo), min(n, min(i + size, n) + halo)) for i in range(0, n, size)]


def strips(shape: tuple[int, int], values: int) -> list[Window]:
    """Strips of whole rows that cover an image of that shape, for work that holds so many `values` for each pixel."""
    rows, cols = shape
    step = max(1, VALUES_AT_ONCE // (values * cols))
    return [Window(0, span.start, cols, span.count) for span in spans(rows, step, 0)]


@dataclass(frozen=True)
class Piece:
    """One strip without noise: truth (C, H, W), MSI (c, H, W), LRHSI (C, h, w), their masks, the first LR row."""

    row: int
    truth: FloatArray
    msi: FloatArray
    mask: BoolArray
    lrhsi: FloatArray
    lr_mask: BoolArray

    @property
    def hr_window(self) -> Window:
        """Place of the truth and the MSI."""
        rows, cols = self.mask.shape
        return Window(0, self.row * rows // self.lr_mask.shape[0], cols, rows)

    @property
    def lr_window(self) -> Window:
        """Place of the LRHSI."""
        rows, cols = self.lr_mask.shape
        return Window(0, self.row, cols, rows)


@dataclass(frozen=True)
class Observer:
    """An open reference, the bands in use, its grid (whole LR pixels), the model, the strips' height in HR pixels."""

    reader: CubeReader
    bands: list[int]
    grid: Grid
    model: ObservationModel
    strip_rows: int | None = None

    @property
    def lr_grid(self) -> Grid:
        """Grid of the LRHSI."""
        return lr_grid(self.grid, self.model.scale, self.model.phase)

    @property
    def rows(self) -> int:
        """HR rows of a strip: as asked, else what fits the budget beside the halo, in whole tiles where it can be."""
        s = self.model.scale
        fitting = VALUES_AT_ONCE // (len(self.bands) * self.grid.shape[1]) - 2 * halo_of(self.model) * s
        tile = next((tile for tile in TILES if tile <= fitting), 1)
        return max((self.strip_rows or fitting // tile * tile) // s, 1) * s

    @property
    def tile(self) -> int:
        """Side of GeoTIFF tiles that strips end with, so that few are compressed twice."""
        return next((tile for tile in TILES if self.rows % tile == 0), TILE)

    def pieces(self) -> Iterator[Piece]:
        """All strips, top to bottom."""
        s, cols = self.model.scale, self.grid.shape[1]
        for span in spans(self.grid.shape[0] // s, self.rows // s, halo_of(self.model)):
            outer = span.outer(s)
            cube = self.reader.read(Window(0, outer.start, cols, outer.stop - outer.start), self.bands)
            lrhsi, lr_mask = degrade(self.model, cube.data, cube.mask)
            truth, mask = cube.data[:, span.inner(s)], cube.mask[span.inner(s)]
            msi = self.model.spectral(torch.from_numpy(truth)[None])[0].numpy()
            yield Piece(span.start, truth, msi, mask, lrhsi[:, span.inner()], lr_mask[span.inner()])


def halo_of(model: ObservationModel) -> int:
    """LR pixels on each side that an LR pixel's PSF reaches."""
    return ceil(model.psf.size / (2 * model.scale))


def degrade(model: ObservationModel, data: FloatArray, mask: BoolArray) -> tuple[FloatArray, BoolArray]:
    """LRHSI (C, h, w) and its mask (h, w) of a cube (C, H, W); invalid pixels take no part in the PSF's mean."""
    if mask.all():
        return _blurred(model, data, None), np.ones((mask.shape[0] // model.scale, mask.shape[1] // model.scale), bool)
    weight = _blurred(model, mask[None].astype(np.float32), None)[0]
    return _blurred(model, np.where(mask, data, np.float32(0)), weight), weight >= MIN_PSF_WEIGHT


def reach(model: ObservationModel, window: Window, shape: tuple[int, int]) -> tuple[Window, tuple[slice, slice]]:
    """The HR window that the PSFs of an LR window reach in an LR image of `shape`, and where the LR window lies in it.

    What is outside isn't there: only the image's own border is mirrored.
    """
    halo, s = halo_of(model), model.scale
    starts, sizes = (int(window.row_off), int(window.col_off)), (int(window.height), int(window.width))
    low = [max(0, start - halo) for start in starts]
    high = [min(n, start + size + halo) for n, start, size in zip(shape, starts, sizes, strict=True)]
    around = Window(low[1] * s, low[0] * s, (high[1] - low[1]) * s, (high[0] - low[0]) * s)
    rows, cols = (slice(start - first, start - first + n) for start, first, n in zip(starts, low, sizes, strict=True))
    return around, (rows, cols)


def seen(
    model: ObservationModel, read: Callable[[Window], Cube], window: Window, shape: tuple[int, int]
) -> tuple[FloatArray, BoolArray]:
    """A window (C, h, w) of the LR image of `shape` that the sensor makes of the HR image `read` gives; its mask."""
    around, cut = reach(model, window, shape)
    cube = read(around)
    data, mask = degrade(model, cube.data, cube.mask)
    return data[:, *cut], mask[cut]


def _blurred(model: ObservationModel, data: FloatArray, weight: FloatArray | None) -> FloatArray:
    """Blurred and decimated (C, h, w), some bands and columns at a time; divided by `weight` (h, w) where given."""
    s = model.scale
    rows, cols = data.shape[1] // s, data.shape[2] // s
    out = np.empty((len(data), rows, cols), np.float32)
    for band in range(0, len(data), BANDS_AT_ONCE):
        part = np.s_[band : band + BANDS_AT_ONCE]
        for span in spans(cols, COLUMNS_AT_ONCE, halo_of(model)):
            x: Tensor = torch.from_numpy(data[part, :, span.outer(s)]).double()
            out[part, :, span.start : span.start + span.count] = model.spatial(x[None])[0][..., span.inner()].numpy()
    if weight is not None:
        np.divide(out, weight, out=out, where=weight > 0)
    return out


def mean_squares(observer: Observer) -> tuple[FloatArray64, FloatArray64]:
    """Mean square of each LRHSI band (C,) and each MSI band (c,) over the valid pixels."""
    lrhsi, msi = np.zeros(len(observer.bands)), np.zeros(observer.model.srf.shape[0])
    lr_count = hr_count = 0
    for piece in observer.pieces():
        lrhsi += np.square(piece.lrhsi[:, piece.lr_mask], dtype=np.float64).sum(axis=1)
        msi += np.square(piece.msi[:, piece.mask], dtype=np.float64).sum(axis=1)
        lr_count, hr_count = lr_count + int(piece.lr_mask.sum()), hr_count + int(piece.mask.sum())
    return lrhsi / max(1, lr_count), msi / max(1, hr_count)


def _below(power: FloatArray64, snr: float | None) -> FloatArray64 | None:
    """Standard deviation of noise `snr` dB below a power."""
    return None if snr is None else np.sqrt(power * 10 ** (-snr / 10))


@dataclass(frozen=True)
class Noise:
    """Standard deviations of the LRHSI's (C,) and the MSI's (c,) bands, None for no noise, and the seed."""

    hsi_sd: FloatArray64 | None
    msi_sd: FloatArray64 | None
    seed: int

    @classmethod
    def of(cls, observer: Observer, snr_hsi: float | None, snr_msi: float | None, seed: int) -> Noise:
        """Noise `snr` dB below each band's mean square over the valid pixels, which takes a pass over the reference."""
        if snr_hsi is None and snr_msi is None:
            return cls(None, None, seed)
        hsi_power, msi_power = mean_squares(observer)
        return cls(_below(hsi_power, snr_hsi), _below(msi_power, snr_msi), seed)

    def on_lrhsi(self, piece: Piece) -> tuple[Window, FloatArray, BoolArray]:
        """The LRHSI of a piece with noise: window, data (C, h, w), mask."""
        return piece.lr_window, self._added(piece.lrhsi, self.hsi_sd, 0, piece.row), piece.lr_mask

    def on_msi(self, piece: Piece) -> tuple[Window, FloatArray, BoolArray]:
        """The MSI of a piece with noise: window, data (c, H, W), mask."""
        return piece.hr_window, self._added(piece.msi, self.msi_sd, 1, int(piece.hr_window.row_off)), piece.mask

    def _added(self, data: FloatArray, sd: FloatArray64 | None, sensor: int, row: int) -> FloatArray:
        """Each row has a generator of its own, so that strips don't matter."""
        if sd is None:
            return data
        out = data.copy()
        for i in range(data.shape[1]):
            draw = np.random.default_rng([self.seed, sensor, row + i]).standard_normal(data[:, i].shape)
            out[:, i] += (draw * sd[:, None]).astype(np.float32)
        return out

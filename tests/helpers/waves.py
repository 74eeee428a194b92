"""A scene known everywhere: sums of waves on a plane, whose blurred samples on any grid are exact; arrays as files."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from affine import Affine
from rasterio.crs import CRS
from rasterio.warp import transform

from hsfuse.core.cube import Spectrum
from hsfuse.core.grid import Grid
from hsfuse.io import CubeReader

UTM32, UTM33, WGS84 = (CRS.from_epsg(code) for code in (32632, 32633, 4326))
#: The middle of the scene in UTM 33.
EAST, NORTH = 500900.0, 4999100.0


def square(side: float, shape: tuple[int, int], centre=(EAST, NORTH), turn=0.0, crs=UTM33, aspect=1.0) -> Grid:
    """A grid of pixels `side` wide (`aspect` times as high), turned by degrees about its centre."""
    place = Affine.translation(*centre) @ Affine.rotation(turn) @ Affine.scale(side, -side * aspect)
    return Grid(shape, place @ Affine.translation(-shape[1] / 2, -shape[0] / 2), crs)


@dataclass
class Waves:
    """`bands` sums of waves on the plane of `crs`, more the longer they are, none below 1.6 `finest` units."""

    bands: int = 3
    finest: float = 10.0
    seed: int = 0
    crs: CRS | None = UTM33
    centre: tuple[float, float] = (EAST, NORTH)
    count: int = 250
    _drawn: tuple = field(init=False, repr=False)

    def __post_init__(self) -> None:
        rng = np.random.default_rng(self.seed)
        length = np.exp(rng.uniform(np.log(1.6 * self.finest), np.log(60 * self.finest), self.count))
        angle = rng.uniform(0, 2 * np.pi, self.count)
        frequency = np.stack([np.cos(angle), np.sin(angle)]) / length
        common, own = rng.standard_normal(self.count), rng.standard_normal((self.bands, self.count))
        amplitude = (common + 0.4 * own) * np.sqrt(length)
        amplitude *= 0.08 / np.sqrt(np.square(amplitude).sum(axis=1, keepdims=True) / 2)
        self._drawn = frequency, amplitude, rng.uniform(0, 2 * np.pi, self.count)

    def at(self, x: np.ndarray, y: np.ndarray, sigma: float = 0.0) -> np.ndarray:
        """Values (bands, *x.shape) around 0.3 at places of the plane, after a Gaussian blur of `sigma` units."""
        frequency, amplitude, phase = self._drawn
        damping = np.exp(-2 * np.pi**2 * sigma**2 * np.square(frequency).sum(axis=0))
        places = np.stack([x.ravel() - self.centre[0], y.ravel() - self.centre[1]], axis=1)
        waves = np.cos(2 * np.pi * places @ frequency + phase)
        return (0.3 + (waves @ (amplitude * damping).T).T).reshape(self.bands, *x.shape).astype(np.float32)

    def on(self, grid: Grid, sigma: float = 0.0, moved: tuple[float, float] = (0.0, 0.0)) -> np.ndarray:
        """Values (bands, H, W) at the pixel centres of a grid of any CRS, the scene moved by (x, y) units first."""
        if grid.crs == self.crs:
            return self._on_plane(grid, sigma, moved)
        rows, cols = np.mgrid[: grid.shape[0], : grid.shape[1]] + 0.5
        x, y = grid.transform @ (cols, rows)
        found = transform(grid.crs, self.crs, x.ravel(), y.ravel())
        x, y = (np.asarray(v).reshape(grid.shape) for v in found)
        return self.at(x - moved[0], y - moved[1], sigma)

    def _on_plane(self, grid: Grid, sigma: float, moved: tuple[float, float]) -> np.ndarray:
        """The same as `at`, a wave's phase being one of the row and one of the column: far fewer cosines."""
        frequency, amplitude, phase = self._drawn
        damping = np.exp(-2 * np.pi**2 * sigma**2 * np.square(frequency).sum(axis=0))
        (a, b, c, d, e, f), (height, width) = grid.transform[:6], grid.shape
        first = phase + 2 * np.pi * np.array([c - moved[0] - self.centre[0], f - moved[1] - self.centre[1]]) @ frequency
        by_row = np.exp(1j * (2 * np.pi * (np.arange(height) + 0.5)[:, None] * ([b, e] @ frequency) + first))
        by_col = np.exp(2j * np.pi * (np.arange(width) + 0.5)[:, None] * ([a, d] @ frequency))
        weighted = (amplitude * damping)[:, None] * by_row
        return (0.3 + (weighted @ by_col.T).real).astype(np.float32)


class ArrayReader(CubeReader):
    """An array (C, H, W) as an open file: NaN is nodata."""

    def __init__(self, data: np.ndarray, grid: Grid, spectrum: Spectrum | None = None, good=None) -> None:
        super().__init__(Path("memory.tif"), "HSI")
        self.data, self.grid, self.files, self.driver, self.dtype = data, grid, (self.path,), "MEM", "float32"
        names = tuple(f"b{i}" for i in range(len(data)))
        self.spectrum = spectrum or Spectrum(tuple(500.0 + 10 * i for i in range(len(data))), None, names, good)
        self.scales, self.offsets = np.ones(len(data)), np.zeros(len(data))
        self.nodata_values = [float("nan")] * len(data)
        self.tags, self.quantity = {"HSFUSE_X": "1"}, "reflectance"
        self.most_read = 0

    def pixels(self, bands, window, shape=None):
        rows, cols = (slice(int(a), int(a + n)) for a, n in ((window.row_off, window.height),
                                                            (window.col_off, window.width)))  # fmt: skip
        part = self.data[list(bands), rows, cols]
        self.most_read = max(self.most_read, part[0].size)
        if shape is not None:
            r, c = ((np.arange(n) + 0.5) * m / n for n, m in zip(shape, part.shape[1:], strict=True))
            part = part[:, r.astype(int)[:, None], c.astype(int)]
        return part.copy(), None

    def close(self) -> None:
        self.data = self.data[:0]

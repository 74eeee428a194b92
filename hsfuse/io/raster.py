"""Reading rasters window by window: scaled float32 pixels with a validity mask, and what the file says about itself."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite, isnan
from pathlib import Path
from types import TracebackType
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from rasterio.errors import RasterioError
from rasterio.windows import Window

from hsfuse.cube import BoolArray, Cube, FloatArray
from hsfuse.errors import InputError
from hsfuse.grid import Grid
from hsfuse.io.envi import EnviPair
from hsfuse.io.gdal import bands_and_mask, common_dtype, gdal_env, map_crs, one_line, open_dataset
from hsfuse.io.spectral_tags import own_tags, read_spectrum

Role = Literal["HSI", "MSI", "raster"]


def open_cube(path: str | Path, *, role: Role = "raster") -> CubeReader:
    """Open an ENVI pair (header or data file named), GeoTIFF or other raster for reading by window.

    With role "HSI" wavelengths must be known. Raises InputError, in one line, for whatever can't be read.
    """
    return CubeReader(Path(path), role)


class CubeReader:
    """An open raster (a context manager, not to be shared between threads).

    `path`, `files`, `driver`, `grid`, `spectrum` (nm), `count`, `dtype` (on disk), `scale`, `offset` (reflectance =
    raw * scale + offset), `nodata`, `tags` (hsfuse's own) and `notes` (worth saying aloud) say what it is; `nonfinite`
    counts the pixels with NaN or Inf that `read` has met.
    """

    def __init__(self, path: Path, role: Role = "raster") -> None:
        self.path, self.role = path, role
        self.notes: list[str] = []
        self.nonfinite = 0
        what = "the raster" if role == "raster" else f"the {role}"
        self._ds, pair = open_dataset(path, what)
        try:
            self._describe_pixels(pair)
            self._describe_bands(pair, what)
        except BaseException:
            self.close()
            raise

    def _describe_pixels(self, pair: EnviPair | None) -> None:
        ds = self._ds
        self.files = tuple(dict.fromkeys(Path(name) for name in [self.path, *ds.files]))
        self._bands, self._masked = bands_and_mask(ds, self._note)
        self.count, self.driver = len(self._bands), ds.driver
        self.dtype = common_dtype(self.path, [ds.dtypes[b - 1] for b in self._bands])
        self.grid = Grid((ds.height, ds.width), ds.transform, map_crs(ds))
        self._nodata = [ds.nodatavals[b - 1] for b in self._bands]
        self.nodata = self._nodata[0]
        if not self.grid.georeferenced:
            self._note("not georeferenced" + (" (ground control points are not used)" if ds.gcps[0] else ""))
        self._describe_scale(pair)

    def _describe_scale(self, pair: EnviPair | None) -> None:
        """Factors from GDAL, else from the header's reflectance scale factor, else raw numbers."""
        self._scales = np.array([self._ds.scales[b - 1] for b in self._bands])
        self._offsets = np.array([self._ds.offsets[b - 1] for b in self._bands])
        if (self._scales == 1).all() and (self._offsets == 0).all():
            self._scales /= self._reflectance_factor(pair)
            if (self._scales == 1).all() and np.issubdtype(self.dtype, np.integer):
                self._note(f"{self.dtype} without a scale factor; the numbers are used as they are")
        self.scale, self.offset = float(self._scales[0]), float(self._offsets[0])
        if (self._scales != self.scale).any() or (self._offsets != self.offset).any():
            self._note("the bands have different scales or offsets; each band gets its own")

    def _reflectance_factor(self, pair: EnviPair | None) -> float:
        text = pair.fields.get("reflectance scale factor") if pair is not None else None
        try:
            factor = 1.0 if text is None else float(text)
        except ValueError:
            factor = 0.0
        if factor > 0 and isfinite(factor):
            return factor
        self._note(f"the reflectance scale factor {text!r} makes no sense and is not used")
        return 1.0

    def _describe_bands(self, pair: EnviPair | None, what: str) -> None:
        self.tags = own_tags(self._ds, pair)
        self.spectrum, missing = read_spectrum(self._ds, self._bands, pair, self._note)
        if missing is not None and self.role == "HSI":
            raise InputError(f"{what} {self.path} can't be used: {missing}")
        if missing is not None and self.role == "raster":
            self._note(str(missing))

    def _note(self, text: str) -> None:
        self.notes.append(f"{self.path.name}: {text}")

    def read(self, window: Window | None = None, bands: Sequence[int] | None = None) -> Cube:
        """Cube of the window (default: all) and bands (0-based; default: all), reflectance float32.

        The mask is True where these bands (those of them that are good, if any is) are all valid: not nodata, finite,
        not masked by the file. Invalid pixels are 0. A pixel read twice counts twice in `nonfinite`. InputError when
        the file can't be read.
        """
        window = self._whole() if window is None else window
        chosen = list(range(self.count)) if bands is None else list(bands)
        spectrum = self.spectrum.select(chosen)
        raw, file_mask = self._pixels(chosen, window)
        data, valid, nonfinite = self._decode(raw, chosen)
        asked = np.array(spectrum.good if spectrum.good is not None and any(spectrum.good) else [True] * len(chosen))
        self.nonfinite += int(nonfinite[asked].any(axis=0).sum())
        mask = valid[asked].all(axis=0)
        if file_mask is not None:
            mask &= file_mask
        data[:, ~mask] = 0
        return Cube(data, self.grid.window(window), spectrum, mask)

    def sample(self, bands: Sequence[int], shape: tuple[int, int]) -> tuple[FloatArray, BoolArray]:
        """Decimated look at bands (0-based): data and validity of each band, both (C, *shape)."""
        raw, file_mask = self._pixels(bands, self._whole(), shape)
        data, valid, _ = self._decode(raw, bands)
        return data, valid if file_mask is None else valid & file_mask

    def _whole(self) -> Window:
        return Window(0, 0, self.grid.shape[1], self.grid.shape[0])

    def _pixels(
        self, bands: Sequence[int], window: Window, shape: tuple[int, int] | None = None
    ) -> tuple[NDArray, BoolArray | None]:
        """Raw pixels (C, h, w) and the mask that the file itself carries, if any."""
        row, col, h, w = (int(v) for v in (window.row_off, window.col_off, window.height, window.width))
        rows, cols = self.grid.shape
        if min(row, col) < 0 or min(h, w) < 1 or row + h > rows or col + w > cols:
            raise InputError(f"a window of {h} x {w} pixels at ({row}, {col}) isn't inside {self.path}")
        indexes, size, inside = [self._bands[b] for b in bands], shape or (h, w), Window(col, row, w, h)
        try:
            with gdal_env():
                raw = self._ds.read(indexes, window=inside, out_shape=(len(indexes), *size))
                mask = self._ds.dataset_mask(window=inside, out_shape=size) != 0 if self._masked else None
        except RasterioError as error:
            raise InputError(f"{self.path} can't be read: {one_line(error)}") from error
        return raw, mask

    def _decode(self, raw: NDArray, bands: Sequence[int]) -> tuple[FloatArray, BoolArray, BoolArray]:
        """Reflectance, validity, and where there is a NaN or Inf that isn't nodata, all (C, h, w); invalid values 0."""
        with np.errstate(over="ignore"):  # float64 nodata such as -1.8e308
            data = raw.astype(np.float32)
        valid = np.isfinite(data)
        nonfinite = ~valid
        for i, band in enumerate(bands):
            blank = _is_nodata(raw[i], self._nodata[band])
            if blank is not None:
                valid[i] &= ~blank
                nonfinite[i] &= ~blank
            scale, offset = self._scales[band], self._offsets[band]
            if scale != 1 or offset != 0:
                data[i] = data[i] * np.float32(scale) + np.float32(offset)
            data[i, ~valid[i]] = 0
        return data, valid, nonfinite

    def close(self) -> None:
        """Close the file."""
        self._ds.close()

    def __enter__(self) -> CubeReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _is_nodata(raw: NDArray, nodata: float | None) -> BoolArray | None:
    """Where the raw values are nodata; None when they can't be."""
    if nodata is None:
        return None
    if isnan(nodata):
        return None if np.issubdtype(raw.dtype, np.integer) else np.isnan(raw)
    with np.errstate(over="ignore"):
        return raw == (nodata if np.issubdtype(raw.dtype, np.integer) else raw.dtype.type(nodata))

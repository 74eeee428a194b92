"""Reading what GDAL opens as one raster: ENVI, GeoTIFF and others, and what the file says about itself."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rasterio.errors import RasterioError
from rasterio.windows import Window

from hsfuse.core.cube import BoolArray
from hsfuse.core.errors import InputError
from hsfuse.core.grid import Grid
from hsfuse.io.gdal import (
    EnviPair,
    bands_and_mask,
    common_dtype,
    gdal_env,
    map_crs,
    map_transform,
    one_line,
    open_dataset,
)
from hsfuse.io.reader import CubeReader, Role, own_quantity
from hsfuse.io.spectral_tags import own_tags, read_spectrum

#: Scales and offsets beyond this, or NaN, are no radiometry.
LARGEST_FACTOR = 1e30


class RasterReader(CubeReader):
    """An ENVI pair (header or data file named), a GeoTIFF or another raster of GDAL's."""

    def __init__(self, path: Path, role: Role = "raster") -> None:
        super().__init__(path, role)
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
        self.driver = ds.driver
        self.dtype = common_dtype(self.path, [ds.dtypes[b - 1] for b in self._bands])
        self.grid = Grid((ds.height, ds.width), map_transform(ds, pair), map_crs(ds))
        self.nodata_values = [ds.nodatavals[b - 1] for b in self._bands]
        if not self.grid.georeferenced:
            self._note("not georeferenced" + (" (ground control points are not used)" if ds.gcps[0] else ""))
        self._describe_scale(pair)

    def _describe_scale(self, pair: EnviPair | None) -> None:
        """Factors from GDAL, else from the header's reflectance scale factor, else raw numbers."""
        self.scales = np.array([self._ds.scales[b - 1] for b in self._bands])
        self.offsets = np.array([self._ds.offsets[b - 1] for b in self._bands])
        if not (self.scales.all() and (np.abs([self.scales, self.offsets]) < LARGEST_FACTOR).all()):
            self._note("the scales or offsets make no sense and are not used")
            self.scales, self.offsets = np.ones(len(self._bands)), np.zeros(len(self._bands))
        if (self.scales == 1).all() and (self.offsets == 0).all():
            self.scales /= self._reflectance_factor(pair)
            if (self.scales == 1).all() and np.issubdtype(self.dtype, np.integer):
                self._note(f"{self.dtype} without a scale factor")
        if (self.scales != self.scale).any() or (self.offsets != self.offset).any():
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
        self.quantity = own_quantity(self.tags)
        self.spectrum, missing = read_spectrum(self._ds, self._bands, pair, self._note)
        if missing is not None and self.role == "HSI":
            raise InputError(f"{what} {self.path} can't be used: {missing}")
        if missing is not None and self.role == "raster":
            self._note(str(missing))

    def _pixels(
        self, bands: Sequence[int], window: Window, shape: tuple[int, int] | None = None
    ) -> tuple[NDArray, BoolArray | None]:
        indexes, size = [self._bands[b] for b in bands], shape or (window.height, window.width)
        try:
            with gdal_env():
                raw = self._ds.read(indexes, window=window, out_shape=(len(indexes), *size))
                mask = self._ds.dataset_mask(window=window, out_shape=size) != 0 if self._masked else None
        except RasterioError as error:
            raise InputError(f"{self.path} can't be read: {one_line(error, self.path)}") from error
        return raw, mask

    def close(self) -> None:
        """Close the file."""
        self._ds.close()

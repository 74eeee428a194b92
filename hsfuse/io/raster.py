"""Reading what GDAL opens as one raster: ENVI, GeoTIFF and others, and what the file says about itself."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rasterio._err import CPLE_BaseError
from rasterio.errors import RasterioError
from rasterio.io import DatasetReader
from rasterio.windows import Window

from hsfuse.core.cube import BoolArray
from hsfuse.core.errors import InputError
from hsfuse.core.grid import Grid
from hsfuse.core.notes import note
from hsfuse.io.envi import EnviPair
from hsfuse.io.gdal import (
    bands_and_mask,
    common_dtype,
    gdal_env,
    holder,
    map_crs,
    map_transform,
    one_line,
    open_dataset,
)
from hsfuse.io.limits import LARGEST_FACTOR
from hsfuse.io.products.hdf5 import check_datasets
from hsfuse.io.reader import CubeReader, Quantity, Role, own_quantity
from hsfuse.io.spectral_tags import UNTOLD, own_tags, read_spectrum
from hsfuse.physics.srf_bands import MOST_BANDS

FloatArray64 = NDArray[np.float64]


class RasterReader(CubeReader):
    """An ENVI pair (header or data file named), a GeoTIFF or another raster of GDAL's."""

    def __init__(self, path: Path, role: Role = "raster", *, given: bool = False) -> None:
        """Open what a person has `given` by name, or a part of a product, which holds its pixels itself."""
        super().__init__(path, role)
        what = "the raster" if role == "raster" else f"the {role}"
        file = holder(path)
        if file is not None:
            check_datasets(file)
        self._ds, pair = open_dataset(path, what, given=given)
        try:
            if pair is not None and pair.tiff and not _same_size(pair, self._ds):
                self._note(f"{pair.header.name} describes an image of another size; it isn't used")
                pair = None
            self._describe_pixels(pair)
            self._describe_bands(pair, what)
        except CPLE_BaseError as error:  # rasterio lets some of GDAL's own errors pass
            self.close()
            raise InputError(f"{what} {path} isn't a raster that can be read: {one_line(error, path)}") from error
        except BaseException:
            self.close()
            raise

    def _describe_pixels(self, pair: EnviPair | None) -> None:
        ds = self._ds
        own = [] if pair is None else [pair.header]
        self.files = tuple(dict.fromkeys(Path(name) for name in [self.path, *ds.files, *own]))
        self._bands, self._mask = bands_and_mask(ds, self._note)
        self.driver = ds.driver
        self.dtype = common_dtype(self.path, _of(ds.dtypes, self._bands))
        self.grid = Grid((ds.height, ds.width), map_transform(ds, pair), map_crs(ds))
        if not all(map(isfinite, self.grid.transform)) or self.grid.transform.is_degenerate:
            self._note(f"the map transform {tuple(self.grid.transform)[:6]} makes no sense and isn't used")
            self.grid = Grid(self.grid.shape)
        why = " (ground control points are not used)" if ds.gcps[0] else ""
        if self.grid.crs is not None and self.grid.transform.is_identity:
            why = " (a CRS without a map transform: rioxarray's write_transform and write_coordinate_system keep one)"
            self.grid = Grid(self.grid.shape)
        self.nodata_values = _of(ds.nodatavals, self._bands)
        if pair is not None and pair.tiff and not any(value is not None for value in self.nodata_values):
            self.nodata_values = [_number(pair.fields.get("data ignore value"))] * len(self._bands)
        if not self.grid.georeferenced:
            self.notes.append(note("not-georeferenced", file=self.path.name, why=why))

    def _describe_scale(self, pair: EnviPair | None) -> Quantity:
        """Factors from the header, else from GDAL, else raw numbers; and what the header says they make of them."""
        count = len(self._bands)
        quantity: Quantity = "unknown"
        self.scales = np.array(_of(self._ds.scales, self._bands))
        self.offsets = np.array(_of(self._ds.offsets, self._bands))
        told = None if pair is None else self._header_scale(pair)
        if told is not None:
            self.scales, self.offsets, quantity = told
        sizes = np.abs([self.scales, self.offsets])
        if not ((sizes < LARGEST_FACTOR).all() and (sizes[0] > 1 / LARGEST_FACTOR).all()):
            self._note("the scales or offsets make no sense and are not used")
            self.scales, self.offsets, quantity = np.ones(count), np.zeros(count), "unknown"
        if (self.scales == 1).all() and (self.offsets == 0).all() and np.issubdtype(self.dtype, np.integer):
            self._note(f"{self.dtype} without a scale factor")
        if (self.scales != self.scale).any() or (self.offsets != self.offset).any():
            self._note("the bands have different scales or offsets; each band gets its own")
        return quantity

    def _header_scale(self, pair: EnviPair) -> tuple[FloatArray64, FloatArray64, Quantity] | None:
        """Scales and offsets of an ENVI header's fields and what they make of the numbers; None where it has none.

        After ENVI's documentation of the header format: the data reflectance gain and offset values, and the
        reflectance scale factor (which divides), make reflectance, the data gain and offset values radiance.
        """
        count = len(self._bands)
        kinds: tuple[tuple[str, Quantity], ...] = (("data reflectance", "reflectance"), ("data", "radiance"))
        for words, quantity in kinds:
            gains = self._per_band(pair, f"{words} gain values")
            if gains is not None:
                offsets = self._per_band(pair, f"{words} offset values")
                return gains, np.zeros(count) if offsets is None else offsets, quantity
            if quantity == "reflectance" and (factor := self._reflectance_factor(pair)) is not None:
                scales = np.array(_of(self._ds.scales, self._bands))
                return (scales if (scales != 1).any() else scales / factor), self.offsets, quantity
        return None

    def _per_band(self, pair: EnviPair, field: str) -> FloatArray64 | None:
        """The numbers of a header's list, one a band; None, said aloud, where it isn't that."""
        items = pair.items(field)
        values = [_number(item) for item in items]
        if not items:
            return None
        if len(values) != len(self._bands) or None in values:
            self._note(f"{field}: {len(items)} for {len(self._bands)} bands, or not all numbers; not used")
            return None
        return np.array(values, dtype=np.float64)

    def _reflectance_factor(self, pair: EnviPair) -> float | None:
        text = pair.fields.get("reflectance scale factor")
        if text is None:
            return None
        factor = _number(text)
        if factor is not None and factor > 0:
            return factor
        self._note(f"the reflectance scale factor {text!r} makes no sense and is not used")
        return None

    def _describe_bands(self, pair: EnviPair | None, what: str) -> None:
        self.tags = own_tags(self._ds, pair)
        said = self._describe_scale(pair)
        self.quantity = own_quantity(self.tags) if "HSFUSE_QUANTITY" in self.tags else said
        self.spectrum, missing = read_spectrum(self._ds, self._bands, pair, self._note)
        if missing is not None and self.role == "HSI":
            raise InputError(f"{what} {self.path} can't be used: {missing}")
        if missing is not None and self.role == "raster":
            few = str(missing) == UNTOLD and self.count <= MOST_BANDS
            self._note("no wavelengths, which an MSI doesn't need (an HSI does)" if few else str(missing))

    def pixels(
        self, bands: Sequence[int], window: Window, shape: tuple[int, int] | None = None
    ) -> tuple[NDArray, BoolArray | None]:
        """As of any reader."""
        indexes, size = [self._bands[b] for b in bands], shape or (window.height, window.width)
        try:
            with gdal_env():
                if len(set(_of(self._ds.dtypes, indexes))) > 1:  # rasterio reads bands of one type at a time
                    raw = np.stack([self._ds.read(i, window=window, out_shape=size) for i in indexes], dtype=self.dtype)
                else:
                    raw = self._ds.read(indexes, window=window, out_shape=(len(indexes), *size))
                mask = self._mask.read(self._ds, indexes, window, size)
        except (RasterioError, CPLE_BaseError) as error:
            raise InputError(f"{self.path} can't be read: {one_line(error, self.path)}") from error
        return raw, mask

    def close(self) -> None:
        """Close the file."""
        self._ds.close()


def _of(values: Sequence[Any], bands: Sequence[int]) -> list[Any]:
    """The values of some bands (1-based); rasterio asks GDAL for those of all bands whenever they are named."""
    return [values[band - 1] for band in bands]


def _same_size(pair: EnviPair, ds: DatasetReader) -> bool:
    said = [pair.fields.get(name) for name in ("samples", "lines", "bands")]
    return said == [str(n) for n in (ds.width, ds.height, ds.count)]


def _number(text: str | None) -> float | None:
    """The text as a finite number; None when it isn't one."""
    try:
        value = float(text or "")
    except ValueError:
        return None
    return value if isfinite(value) else None

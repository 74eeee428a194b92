"""EMIT L2A surface reflectance and L1B radiance in NetCDF-4, orthorectified by their lookup table as windows are read.

After the EMIT L1B and L2A product user guides (LP DAAC, EMITL1BRAD and EMITL2ARFL): cube (downtrack, crosstrack,
bands), groups sensor_band_parameters and location, global attributes geotransform and spatial_ref, and the companion
EMIT_L2A_MASK, whose flags are told by name because their order differs between versions.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from affine import Affine
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.errors import CRSError
from rasterio.windows import Window

from hsfuse.core.cube import BoolArray, Spectrum
from hsfuse.core.errors import InputError
from hsfuse.core.grid import Grid
from hsfuse.io.products.bundle import one_of, whole_files
from hsfuse.io.products.hdf5 import (
    Hdf5Reader,
    attribute,
    bands_of,
    dataset,
    floats,
    open_hdf5,
    optional,
    picks,
    readable,
    slab,
    text,
)
from hsfuse.io.products.metadata import iso_time
from hsfuse.io.products.ortho import Lookup, gather, read_lookup
from hsfuse.io.reader import Role

if TYPE_CHECKING:
    import h5py

#: Flags of EMIT_L2A_MASK (in lower case) that mask a pixel. Water stays, and with it the aggregate flag.
MASKING = ("cloud flag", "cirrus flag", "spacecraft flag", "dilated cloud flag", "spectf-cloud flag")

#: Product -> dataset with the cube and what its values are.
CUBES = {"L2A_RFL": "reflectance", "L1B_RAD": "radiance"}

_BANDS = "sensor_band_parameters"
_FILE = re.compile(r"EMIT_(?P<kind>L2A_RFL|L1B_RAD)_\d+_(?P<scene>\d{8}T\d{6}_\d+_\d+)\.nc$")


def recognises(path: Path) -> bool:
    """EMIT_L2A_RFL_*.nc or EMIT_L1B_RAD_*.nc, or a folder with such files."""
    return bool(whole_files(path, _FILE))


def open_product(path: Path, role: Role) -> EmitReader:
    """The product's bands (285, H, W) on its map grid; InputError for what is missing or broken."""
    return EmitReader(one_of(path, whole_files(path, _FILE), "EMIT products"), role)


class EmitReader(Hdf5Reader):
    """An open EMIT product on its map grid."""

    _mask_file: h5py.File | None = None

    def _describe(self) -> None:
        kind = _FILE.match(self.path.name)["kind"]  # type: ignore[index]
        self._cube = dataset(self._file, CUBES[kind], 3)
        self.files, self.driver, self.dtype = (self.path,), "netCDF", self._cube.dtype.name
        self.quantity = CUBES[kind]  # type: ignore[assignment]
        self._glt = [dataset(self._file, f"location/glt_{axis}", 2) for axis in "xy"]
        if self._glt[0].shape != self._glt[1].shape:
            raise InputError(f"{self.path}: glt_x is {self._glt[0].shape} but glt_y {self._glt[1].shape}")
        self.grid = _grid(self._file, self._glt[0].shape)
        self._describe_bands()
        self._describe_mask()
        start = iso_time(text(attribute(self._file, "time_coverage_start")))
        self.tag(product=f"EMIT {kind.replace('_', ' ')}, {self.path.stem}", acquired=start)

    def _describe_bands(self) -> None:
        count = self._cube.shape[2]
        said = {name: self._per_band(name) for name in ("wavelengths", "fwhm", "good_wavelengths")}
        centres, widths = self._in_nm(
            *(floats(self._file, said[name], f"{_BANDS}/{name}", count) for name in ("wavelengths", "fwhm"))
        )
        good = said["good_wavelengths"]
        if good is not None:
            good = tuple(g == 1 for g in floats(self._file, good, f"{_BANDS}/good_wavelengths", count))
        self.spectrum = Spectrum(centres, widths, None, good)
        self.scales, self.offsets = np.ones(count), np.zeros(count)
        with readable(self.path):
            fill = self._cube.attrs.get("_FillValue")
        self._fill = -9999.0 if fill is None else floats(self._file, fill, "_FillValue", 1)[0]
        if fill is None:
            self._note("no _FillValue is named; the user guide's -9999 is used")
        self.nodata_values = [self._fill] * count

    def _per_band(self, name: str) -> object:
        found = optional(self._file, f"{_BANDS}/{name}")
        return None if found is None else slab(found, ())

    def _describe_mask(self) -> None:
        self._flags: list[int] = []
        scene = _FILE.match(self.path.name)["scene"]  # type: ignore[index]
        beside = sorted(self.path.parent.glob(f"EMIT_L2A_MASK_*_{scene}.nc"))
        if not beside:
            self._note(f"no EMIT_L2A_MASK_*_{scene}.nc lies beside it; clouds aren't masked")
            return
        self.files = (*self.files, beside[-1])
        self._mask_file = open_hdf5(beside[-1])
        self._mask = dataset(self._mask_file, "mask", 3)
        names = optional(self._mask_file, f"{_BANDS}/mask_bands")
        told = [] if names is None else [(text(name) or "").lower() for name in np.ravel(slab(names, ()))]
        self._flags = [i for i, name in enumerate(told) if name in MASKING]
        if self._mask.shape[:2] != self._cube.shape[:2] or len(told) != self._mask.shape[2] or not self._flags:
            raise InputError(
                f"{beside[-1]} doesn't fit {self.path.name}: its mask is {self._mask.shape} with the bands "
                f"{', '.join(told[:8]) or 'not named'}"
            )
        self.tags["MASK"] = "; ".join(told[i] for i in self._flags)

    def pixels(
        self, bands: Sequence[int], window: Window, shape: tuple[int, int] | None = None
    ) -> tuple[NDArray, BoolArray | None]:
        """As of any reader."""
        lookup = self._lookup(window, shape)
        raw = gather(lookup, _reader(self._cube, bands), len(bands), self.dtype, self._fill)
        if not self._flags:
            return raw, lookup.found
        flags = gather(lookup, _reader(self._mask, self._flags), len(self._flags), self._mask.dtype, 0)
        return raw, lookup.found & ~(flags > 0).any(axis=0)

    def _lookup(self, window: Window, shape: tuple[int, int] | None) -> Lookup:
        row, col, h, w = (int(v) for v in (window.row_off, window.col_off, window.height, window.width))
        own = slice(col, col + w)
        if shape is None:
            found = [slab(glt, (slice(row, row + h), own)) for glt in self._glt]
        else:
            rows, cols = picks(row, h, shape[0]), picks(0, w, shape[1])
            found = [np.stack([slab(glt, (slice(r, r + 1), own))[0, cols] for r in rows]) for glt in self._glt]
        return read_lookup(found[0], found[1], self._cube.shape[:2], self.path)

    def close(self) -> None:
        """Close the files."""
        super().close()
        if self._mask_file is not None:
            self._mask_file.close()


def _grid(file: h5py.File, shape: tuple[int, int]) -> Grid:
    numbers = floats(file, attribute(file, "geotransform"), "the attribute geotransform", 6)
    transform = Affine.from_gdal(*numbers)
    if transform.is_degenerate:
        raise InputError(f"{file.filename}: the geotransform {numbers} has no area")
    wkt = text(attribute(file, "spatial_ref"))
    try:
        return Grid(shape, transform, CRS.from_wkt(wkt or ""))
    except CRSError as error:
        raise InputError(
            f"{file.filename}: the attribute spatial_ref names no CRS: {(wkt or 'nothing')[:60]!r}"
        ) from error


def _reader(cube: h5py.Dataset, bands: Sequence[int]) -> Callable[[slice, slice], NDArray]:
    """Reads bands of a (lines, samples, bands) dataset as (C, n, m)."""
    return lambda lines, samples: bands_of(cube, 2, bands, (lines, samples, slice(None))).transpose(2, 0, 1)

"""Cubes as Zarr groups: array `reflectance` (band, y, x) with CF coordinates and grid mapping, as GeoZarr keeps them.

The GeoZarr draft (OGC) builds on CF-1.10: dimension names and coordinate arrays, `grid_mapping` with `crs_wkt` and
`GeoTransform`, packing by `scale_factor`, `add_offset`, `_FillValue`. Zarr format 2 with zlib is what xarray and GDAL's
Zarr driver both read. Wavelengths and FWHM are coordinates along `band`, in nanometres.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from math import isnan, prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from affine import Affine
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.errors import CRSError
from rasterio.windows import Window

from hsfuse.core.cube import BoolArray, Spectrum
from hsfuse.core.errors import InputError, OutputError, SettingError
from hsfuse.core.grid import Grid
from hsfuse.core.notes import note
from hsfuse.io.files import is_store
from hsfuse.io.limits import FREE_BYTES, MOST_BLOCK, MOST_XML, check_claim
from hsfuse.io.reader import CubeReader, Role, own_quantity

if TYPE_CHECKING:
    from hsfuse.io.sinks import Product

ARRAY = "reflectance"
#: Bands in a chunk: a chunk of 256 x 256 pixels is then at most 4 MB of float32.
CHUNK_BANDS = 16


def _zarr() -> Any:
    try:
        import zarr
    except ImportError as error:
        raise SettingError("Zarr needs the package zarr: pip install 'hsfuse[zarr]'") from error
    return zarr


class ZarrSink:
    """Raw numbers into a new Zarr group; `files` is the group's folder."""

    def __init__(self, product: Product) -> None:
        self._path, self._shape = product.files[0], (product.bands, *product.grid.shape)
        group = _zarr().open_group(str(self._path), mode="w", zarr_format=2)
        block = [min(product.storage.block, n) for n in product.grid.shape]
        fill = product.storage.blank
        self._array = group.create_array(
            ARRAY,
            shape=self._shape,
            chunks=(min(CHUNK_BANDS, product.bands), *block),
            dtype=product.storage.dtype,
            fill_value=fill,
            compressors=_compressor(),
        )
        self._array.attrs.update(_array_attributes(product))
        _write_coordinates(group, product)
        group.attrs.update({"Conventions": "CF-1.10", **product.tags})

    def write(self, raw: NDArray, window: Window) -> None:
        """Write raw numbers (C, h, w) to a window."""
        rows, cols = window.toslices()
        self._array[:, rows, cols] = raw

    def close(self) -> None:
        """Gather the metadata, so that readers need one request for it."""
        _zarr().consolidate_metadata(str(self._path), zarr_format=2)

    def verify(self) -> None:
        """Look whether the store opens with the shape it should have."""
        found = _zarr().open_group(str(self._path), mode="r", zarr_format=2)[ARRAY].shape
        if found != self._shape:
            raise OutputError(f"the Zarr array has shape {found} instead of {self._shape}")


def _compressor() -> Any:
    import numcodecs

    return numcodecs.Zlib(level=1)


def _array_attributes(product: Product) -> dict[str, Any]:
    storage = product.storage
    attributes: dict[str, Any] = {
        "_ARRAY_DIMENSIONS": ["band", "y", "x"],
        "grid_mapping": "spatial_ref",
        "scale_factor": storage.scale,
        "add_offset": storage.offset,
        "_FillValue": "NaN" if isnan(storage.blank) else storage.blank,
    }
    if product.spectrum.names is not None:
        attributes["band_names"] = list(product.spectrum.names)
    if product.spectrum.wavelengths_nm is not None:  # once more where GDAL shows it: it doesn't read coordinates
        attributes |= {"wavelength": [float(nm) for nm in product.spectrum.wavelengths_nm], "wavelength_units": "nm"}
    if own_quantity(product.tags) == "reflectance":
        attributes["units"] = "1"
    if product.grid.crs is not None:
        attributes["_CRS"] = {"wkt": product.grid.crs.to_wkt()}  # where GDAL's Zarr driver looks
    return attributes


def _write_coordinates(group: Any, product: Product) -> None:
    """Wavelengths along `band`, pixel centres along `y` and `x` where the grid isn't rotated, and the grid mapping."""
    spectrum, grid = product.spectrum, product.grid
    along_band = {"wavelength": spectrum.wavelengths_nm, "fwhm": spectrum.fwhm_nm}
    for name, values in along_band.items():
        if values is not None:
            _coordinate(group, name, ["band"], np.asarray(values), {"units": "nm"})
    if spectrum.good is not None:
        _coordinate(group, "good_band", ["band"], np.asarray(spectrum.good, np.uint8), {})
    t = grid.transform
    if t.b == 0 and t.d == 0:
        rows, cols = np.arange(grid.shape[0]) + 0.5, np.arange(grid.shape[1]) + 0.5
        _coordinate(group, "y", ["y"], t.f + rows * t.e, {"standard_name": "projection_y_coordinate"})
        _coordinate(group, "x", ["x"], t.c + cols * t.a, {"standard_name": "projection_x_coordinate"})
    mapping: dict[str, Any] = {"GeoTransform": " ".join(repr(v) for v in t.to_gdal())}
    if grid.crs is not None:
        mapping["crs_wkt"] = mapping["spatial_ref"] = grid.crs.to_wkt()
    _coordinate(group, "spatial_ref", [], np.array(0, np.int32), mapping)


def _coordinate(group: Any, name: str, dimensions: list[str], values: NDArray, attributes: dict[str, Any]) -> None:
    array = group.create_array(name, shape=values.shape, dtype=values.dtype, chunks=values.shape)
    array[...] = values
    array.attrs.update({"_ARRAY_DIMENSIONS": dimensions, **attributes})


def recognises(path: Path) -> bool:
    """A folder that is a Zarr group."""
    return is_store(path)


def open_product(path: Path, role: Role) -> CubeReader:
    """Open a Zarr group that holds an array `reflectance` (band, y, x)."""
    return ZarrReader(path, role)


@contextmanager
def _readable(what: str) -> Iterator[None]:
    """Whatever zarr and its codecs raise over broken files becomes an InputError that begins so."""
    try:
        yield
    except (KeyError, ValueError, TypeError, OSError, RuntimeError, AttributeError, IndexError, ArithmeticError,
            zlib.error) as error:  # fmt: skip
        raise InputError(f"{what}: {' '.join(str(error).split())[:200]}") from error


def _check_metadata(path: Path) -> None:
    """InputError for JSON of the group or the array that is larger than any."""
    for name in (".zmetadata", ".zgroup", ".zattrs", "zarr.json", f"{ARRAY}/.zarray", f"{ARRAY}/.zattrs"):
        file = path / name
        if file.is_file() and file.stat().st_size > MOST_XML:
            raise InputError(f"{file} has {file.stat().st_size} bytes, which no group's metadata have; it isn't read")


def _check_array(path: Path, array: Any) -> None:
    """InputError for an array of larger chunks, or larger as a whole, than the files of the group can hold."""
    chunk, claimed = (prod(shape) * array.dtype.itemsize for shape in (array.chunks, array.shape))
    if chunk > MOST_BLOCK:
        raise InputError(f"{path}: {array.name} lies in chunks of {chunk} bytes; at most {MOST_BLOCK} are read")
    if claimed > FREE_BYTES:
        found = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
        check_claim(path, claimed, found, f"{array.name} of {array.shape}")


class ZarrReader(CubeReader):
    """A Zarr group as `ZarrSink` writes it, or another of the same layout."""

    def __init__(self, path: Path, role: Role) -> None:
        super().__init__(path, role)
        self.files, self.driver = (path,), "Zarr"
        _check_metadata(path)
        with _readable(f"{path} is no Zarr group with an array {ARRAY!r} (band, y, x)"):
            self._group = _zarr().open_group(str(path), mode="r")
            self._array = self._group[ARRAY]
        if getattr(self._array, "ndim", 0) != 3 or self._array.dtype.kind not in "iuf":
            raise InputError(f"{path}: {ARRAY!r} is no array of numbers of three dimensions, wanted (band, y, x)")
        _check_array(path, self._array)
        with _readable(f"{path} can't be read"):
            self._describe()

    def _describe(self) -> None:
        attributes = dict(self._array.attrs)
        bands, *shape = self._array.shape
        self.dtype = str(self._array.dtype)
        self.scales = np.full(bands, float(attributes.get("scale_factor", 1.0)))
        self.offsets = np.full(bands, float(attributes.get("add_offset", 0.0)))
        fill = attributes.get("_FillValue", self._array.fill_value)
        self.nodata_values = [None if fill is None else float(fill)] * bands
        self.grid = self._grid((shape[0], shape[1]))
        self.tags = {k: str(v) for k, v in self._group.attrs.items() if k.startswith("HSFUSE_")}
        self.quantity = own_quantity(self.tags)
        wavelengths = self._along_band("wavelength", bands)
        if wavelengths is None and self.role == "HSI":
            raise InputError(f"{self.path}: no wavelengths, wanted an array `wavelength` along the bands")
        good = self._along_band("good_band", bands)
        self.spectrum = Spectrum(
            wavelengths,
            self._along_band("fwhm", bands),
            tuple(attributes["band_names"]) if len(attributes.get("band_names", ())) == bands else None,
            None if good is None else tuple(g != 0 for g in good),
        )

    def _grid(self, shape: tuple[int, int]) -> Grid:
        mapping = dict(self._group["spatial_ref"].attrs) if "spatial_ref" in self._group else {}
        try:
            numbers = [float(v) for v in str(mapping["GeoTransform"]).split()]
            crs = CRS.from_wkt(mapping["crs_wkt"]) if "crs_wkt" in mapping else None
            return Grid(shape, Affine.from_gdal(*numbers), crs)
        except (KeyError, ValueError, TypeError, CRSError):
            self.notes.append(note("not-georeferenced", file=self.path.name, why=""))
            return Grid(shape)

    def _along_band(self, name: str, bands: int) -> tuple[float, ...] | None:
        if name not in self._group or getattr(self._group[name], "shape", None) != (bands,):
            return None
        array = self._group[name]
        _check_array(self.path, array)
        return tuple(float(v) for v in array[:])

    def pixels(
        self, bands: Sequence[int], window: Window, shape: tuple[int, int] | None = None
    ) -> tuple[NDArray, BoolArray | None]:
        """As of any reader."""
        rows, cols = window.toslices()
        with _readable(f"{self.path} can't be read"):
            if shape is None:
                return self._array.oindex[list(bands), rows, cols], None
            picks = [
                np.linspace(s.start, s.stop - 1, n).round().astype(int)
                for s, n in zip((rows, cols), shape, strict=True)
            ]
            return self._array.oindex[list(bands), picks[0], picks[1]], None

    def close(self) -> None:
        """Nothing stays open."""

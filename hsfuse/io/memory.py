"""Cubes in memory: xarray's DataArrays, eager or chunked, and hsfuse's own `Cube`, read as files are, by window.

Nothing is copied whole: a window is cut out of NumPy arrays, computed of Dask's, read of those that xarray has opened
and not loaded. What a DataArray says follows CF and rioxarray: the CRS and `GeoTransform` of its grid mapping,
`_FillValue`, `scale_factor` and `add_offset` among the attributes (what is among the encoding has been applied). Its
wavelengths are a coordinate, else a list among the attributes, else those of the file that it was opened from, since of
a GeoTIFF's band tags rioxarray keeps those of the first band alone; else in the bands' names.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeGuard

import numpy as np
from affine import Affine
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.windows import Window

from hsfuse.core.cube import BoolArray, Cube, Spectrum
from hsfuse.core.errors import InputError, SettingError
from hsfuse.core.grid import Grid
from hsfuse.core.notes import note
from hsfuse.io.open import open_cube
from hsfuse.io.reader import CubeReader, Role, own_quantity
from hsfuse.io.spectral_tags import described_centres, to_nm, unit_factor, widths_to_nm

if TYPE_CHECKING:
    import xarray as xr

ROWS, COLUMNS = ("y", "lat", "latitude", "northing"), ("x", "lon", "longitude", "easting")
CENTRES = ("wavelength", "wavelengths", "center_wavelength", "central_wavelength")
WIDTHS = ("fwhm", "full_width_half_max")
GOOD = ("good_band", "good_wavelengths", "bbl")
NAMES = ("band_name", "band_names", "band", "name")
#: How far coordinates may lie from even steps, and from where `GeoTransform` has them, in pixels.
EVEN = 1e-3


class Indexed(Protocol):
    """Numbers (C, H, W) that are cut by a list of bands, and slices or lists of rows and columns."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(C, H, W)."""
        ...

    @property
    def dtype(self) -> Any:
        """NumPy's type."""
        ...

    def __getitem__(self, key: Any) -> Any: ...


class ArrayReader(CubeReader):
    """An array (C, H, W) on a grid; `valid` (H, W) masks all bands. The array isn't changed by reading it."""

    def __init__(
        self,
        name: str,
        array: Indexed,
        grid: Grid,
        spectrum: Spectrum,
        role: Role = "raster",
        *,
        attributes: Mapping[str, Any] | None = None,
        valid: BoolArray | None = None,
    ) -> None:
        super().__init__(Path(name), role)
        told, bands = attributes or {}, array.shape[0]
        self.array, self._valid = array, valid
        self.files, self.driver, self.dtype = (), "array", str(array.dtype)
        self.grid, self.spectrum = grid, spectrum
        self.scales = np.full(bands, _factor(told, "scale_factor", 1.0, name))
        self.offsets = np.full(bands, _factor(told, "add_offset", 0.0, name))
        fill = next((_number(told, key, name) for key in ("_FillValue", "missing_value") if key in told), None)
        self.nodata_values = [fill] * bands
        self.tags = {key: str(value) for key, value in told.items() if key.startswith("HSFUSE_")}
        self.quantity = own_quantity(self.tags)
        if not grid.georeferenced:
            self.notes.append(note("not-georeferenced", file=name, why=""))

    def over(self, array: Indexed) -> ArrayReader:
        """The same of another array that holds the same pixels."""
        return self._changed(array=array)

    def turned(self) -> ArrayReader:
        """As of any reader; a lazy array stays one."""
        valid = None if self._valid is None else self._valid[::-1]
        return self._changed("turned", array=self.array[:, ::-1], grid=self.grid.turned(), _valid=valid)

    def pixels(
        self, bands: Sequence[int], window: Window, shape: tuple[int, int] | None = None
    ) -> tuple[NDArray, BoolArray | None]:
        """As of any reader."""
        spans = window.toslices()
        if shape is None:
            places: Any = spans
        else:  # the middle of each share, as GDAL takes nearest neighbours
            places = [
                span.start + np.floor((np.arange(n) + 0.5) * (span.stop - span.start) / n).astype(int)
                for span, n in zip(spans, shape, strict=True)
            ]
        try:
            raw = _cut(self.array, list(bands), *places)
        except (OSError, ValueError, RuntimeError) as error:
            raise InputError(f"{self.path} can't be read: {' '.join(str(error).split())[:200]}") from error
        return raw, None if self._valid is None else self._valid[places[0]][:, places[1]]

    def close(self) -> None:
        """Nothing was opened."""


def _number(told: Mapping[str, Any], key: str, name: str) -> float | None:
    """An attribute that is to be a number; None where it isn't set."""
    if told.get(key) is None:
        return None
    try:
        return float(told[key])
    except (TypeError, ValueError) as error:
        raise InputError(f"{name}: the attribute {key} is {told[key]!r}, wanted a number") from error


def _factor(told: Mapping[str, Any], key: str, default: float, name: str) -> float:
    """A scale or an offset: finite, and a scale not 0."""
    value = _number(told, key, name)
    if value is None:
        return default
    if not np.isfinite(value) or (value == 0 and default != 0):
        wanted = "a finite number" + (" other than 0" if default else "")
        raise InputError(f"{name}: the attribute {key} is {value:g}, wanted {wanted}")
    return value


def _cut(array: Any, bands: list[int], rows: Any, cols: Any) -> NDArray:
    if isinstance(array, np.ndarray):
        return np.asarray(array[:, rows, cols][bands] if isinstance(rows, slice) else array[np.ix_(bands, rows, cols)])
    found = array[bands, rows, cols]
    return np.asarray(found.values if hasattr(found, "values") else found)


def is_data_array(source: object) -> TypeGuard[xr.DataArray]:
    """Whether something is a DataArray, without loading xarray for what isn't."""
    return type(source).__module__.partition(".")[0] == "xarray" and type(source).__name__ == "DataArray"


def open_memory(source: object, role: Role) -> ArrayReader:
    """A DataArray or a `Cube` as a reader; InputError says what it lacks."""
    if isinstance(source, Cube):
        return ArrayReader(f"{role} cube", source.data, source.grid, source.spectrum, role, valid=source.mask)
    if is_data_array(source):
        return _open_data_array(source, role)
    raise InputError(
        f"the {role} is a {type(source).__name__}; wanted a path, an xarray.DataArray (band, y, x), or a hsfuse Cube"
    )


def _open_data_array(given: xr.DataArray, role: Role) -> ArrayReader:
    name = str(given.name or f"{role} array")
    rows, cols = (_dimension(given, names, name) for names in (ROWS, COLUMNS))
    others = [dim for dim in given.dims if dim not in (rows, cols)]
    if len(others) > 1 or given.dtype.kind not in "iuf":
        raise InputError(
            f"{name}: a DataArray of {given.dtype} with the dimensions {', '.join(map(str, given.dims))}; wanted "
            "numbers with those of bands, y and x"
        )
    array = given if others else given.expand_dims("band")
    band = others[0] if others else "band"
    array = array.transpose(band, rows, cols)
    if 0 in array.shape:
        raise InputError(f"{name}: a DataArray of shape {array.shape}; wanted pixels")
    spectrum, doubtful = _spectrum(array, str(band), name)
    if spectrum.wavelengths_nm is None and role == "HSI":
        there = next((key for key in CENTRES if key in array.coords), None)
        found = "no wavelengths" if there is None else f"its coordinate {there} isn't of finite numbers along {band}"
        raise InputError(
            f"{name}: {found}; wanted a coordinate `wavelength` along {band}, in nm or with units, or the path of a "
            "file that has them, in place of the array"
        )
    reader = ArrayReader(
        name, array.variable, _grid(array, str(rows), str(cols), name), spectrum, role, attributes=array.attrs
    )
    for told in doubtful:
        reader._note(told)
    return reader


def _dimension(array: xr.DataArray, names: Sequence[str], name: str) -> Any:
    found = [dim for dim in array.dims if str(dim).lower() in names]
    if len(found) != 1:
        raise InputError(
            f"{name}: its dimensions are {', '.join(map(str, array.dims))}; wanted one of {', '.join(names)}"
        )
    return found[0]


def _spectrum(array: xr.DataArray, band: str, name: str) -> tuple[Spectrum, list[str]]:
    """What the coordinates along the bands say, and what is doubtful."""
    notes: list[str | None] = []
    found, names = _centres(array, band), _names(array, band)
    good = _along(array, band, GOOD, numbers=True)
    flags = None if good is None else tuple(bool(v) for v in good.values)
    if found is None and (whole := _of_file(array, band)) is not None:
        spectrum = replace(whole, names=names or whole.names, good=flags or whole.good)
        return spectrum, [f"its wavelengths are those of {array.encoding['source']}, which it was opened from"]
    if found is None and names is not None:
        found = described_centres(names)
    widths, centres_nm, widths_nm = _along(array, band, WIDTHS, numbers=True), None, None
    try:
        if found is not None:
            centres_nm, factor, told = to_nm(*found)
            notes.append(told)
            if widths is not None and np.isfinite(widths.values).all():
                own = unit_factor(widths.attrs.get("units"))
                widths_nm, told = widths_to_nm([float(v) for v in widths.values], factor if own is None else own)
                notes.append(told)
    except InputError as error:
        raise InputError(f"{name}: {error}") from error
    return Spectrum(centres_nm, widths_nm, names, flags), [note for note in notes if note]


def _centres(array: xr.DataArray, band: str) -> tuple[list[float], str | None] | None:
    """Band centres and their unit: of the coordinate, or of a list among the attributes."""
    unit = array.attrs.get("wavelength_units")
    centres = _along(array, band, CENTRES, numbers=True)
    if centres is not None:
        values, unit = np.asarray(centres.values, np.float64), centres.attrs.get("units", unit)
        return ([float(v) for v in values], unit) if np.isfinite(values).all() else None
    for listed in (array.attrs[key] for key in CENTRES if key in array.attrs):
        try:
            values = np.asarray(listed, np.float64)
        except (TypeError, ValueError):
            continue
        if values.shape == (array.sizes[band],) and np.isfinite(values).all():
            return [float(v) for v in values], unit
    return None


def _of_file(array: xr.DataArray, band: str) -> Spectrum | None:
    """What the file that an array was opened from says of its bands, as rioxarray numbers them; None where it can't.

    The name of that file is in the encoding, which what is computed from the array no longer has.
    """
    source = array.encoding.get("source")
    if not isinstance(source, str):
        return None
    try:
        with open_cube(source) as reader:
            spectrum, count = reader.spectrum, reader.count
    except InputError:
        return None
    numbers = array.coords[band].values if band in array.coords else np.arange(1, array.sizes[band] + 1)
    known = band in array.coords or array.sizes[band] == count
    if spectrum.wavelengths_nm is None or not known or not set(numbers.tolist()) <= {*range(1, count + 1)}:
        return None
    return spectrum.select([int(number) - 1 for number in numbers])


def _along(array: xr.DataArray, band: str, names: Sequence[str], numbers: bool) -> xr.DataArray | None:
    """The first coordinate of one of these names along the bands that holds numbers, or texts."""
    found = (array.coords[name] for name in names if name in array.coords)
    return next((one for one in found if one.dims == (band,) and (one.dtype.kind in "iufb") == numbers), None)


def _names(array: xr.DataArray, band: str) -> tuple[str, ...] | None:
    named = _along(array, band, NAMES, numbers=False)
    if named is not None:
        return tuple(str(v) for v in named.values)
    for key in ("band_names", "long_name"):  # rioxarray keeps a raster's descriptions in long_name
        texts = array.attrs.get(key)
        if isinstance(texts, str) and array.sizes[band] == 1:
            texts = (texts,)
        if isinstance(texts, list | tuple) and len(texts) == array.sizes[band]:
            return tuple(map(str, texts))
    return None


def _grid(array: xr.DataArray, rows: str, cols: str, name: str) -> Grid:
    """Place on the map: of `GeoTransform` where the coordinates agree with it, else of the coordinates."""
    shape = array.sizes[rows], array.sizes[cols]
    rioxarray = _rioxarray()
    spatial = array.rio.set_spatial_dims(cols, rows, inplace=False).rio
    try:
        found = spatial.crs
        crs = None if found is None else CRS.from_wkt(found.to_wkt())
    except (rioxarray.exceptions.RioXarrayError, ValueError) as error:
        raise InputError(f"{name}: its CRS can't be read ({' '.join(str(error).split())[:100]})") from error
    mapping = array.coords[spatial.grid_mapping].attrs if spatial.grid_mapping in array.coords else {}
    try:
        told = Affine.from_gdal(*map(float, str(mapping["GeoTransform"]).split()))
    except (KeyError, ValueError, TypeError):
        told = None
    steps = [_steps(array, dim, name) for dim in (rows, cols)]
    if None in steps:
        return Grid(shape, told or Affine.identity(), crs)
    (top, down), (left, right) = steps  # type: ignore[misc]
    if told is not None and _agree(told, shape, (top, down), (left, right)):
        return Grid(shape, told, crs)
    if (down is None or right is None) and told is not None:
        down, right = down or told.e, right or told.a
    if down is None or right is None:
        raise InputError(f"{name}: of one row or column its pixels' size isn't known; wanted a GeoTransform")
    return Grid(shape, Affine(right, 0, left - right / 2, 0, down, top - down / 2), crs)


def _steps(array: xr.DataArray, dim: str, name: str) -> tuple[float, float | None] | None:
    """First pixel centre and step of a coordinate; None where there is none, step None for a single pixel."""
    if dim not in array.coords:
        return None
    values = np.asarray(array.coords[dim].values, np.float64)
    if len(values) == 1:
        return float(values[0]), None
    step = float(values[-1] - values[0]) / (len(values) - 1)
    if not np.isfinite(values).all() or step == 0 or np.abs(np.diff(values) / step - 1).max() > EVEN:
        raise InputError(
            f"{name}: the coordinate {dim} doesn't run in even steps; wanted the centres of a grid's pixels"
        )
    return float(values[0]), step


def _agree(
    told: Affine, shape: tuple[int, int], rows: tuple[float, float | None], cols: tuple[float, float | None]
) -> bool:
    """Whether coordinates are those of an unrotated transform: after a cut, it is still that of the whole."""
    if told.b or told.d:
        return False
    pairs = ((told.f, told.e, rows, shape[0]), (told.c, told.a, cols, shape[1]))
    off = [
        abs(corner + side * (i + 0.5) - (first + (step or 0.0) * i)) / abs(side)
        for corner, side, (first, step), count in pairs
        for i in (0, count - 1)
    ]
    return max(off) <= EVEN


def _rioxarray() -> Any:
    try:
        import rioxarray
    except ImportError as error:
        raise SettingError(
            "DataArrays need the packages xarray, rioxarray and dask: pip install 'hsfuse[xarray]'"
        ) from error
    return rioxarray


def data_array(
    data: Any, grid: Grid, spectrum: Spectrum, attributes: Mapping[str, Any] | None = None, name: str = "reflectance"
) -> xr.DataArray:
    """Numbers (C, H, W), eager or Dask's, NaN where there are none, as a DataArray.

    Dimensions are `wavelength` (nm; `band` where it isn't known), `y` and `x`; `fwhm` and `good_band` are coordinates,
    CRS and transform are kept as rioxarray writes them.
    """
    _rioxarray()
    import xarray as xr

    band = "band" if spectrum.wavelengths_nm is None else "wavelength"
    coords: dict[str, Any] = {}
    if spectrum.wavelengths_nm is not None:
        coords[band] = (band, np.asarray(spectrum.wavelengths_nm), {"units": "nm", "long_name": "band centre"})
    if spectrum.fwhm_nm is not None:
        coords["fwhm"] = (band, np.asarray(spectrum.fwhm_nm), {"units": "nm"})
    if spectrum.good is not None:
        coords["good_band"] = (band, np.asarray(spectrum.good))
    if spectrum.names is not None and spectrum.wavelengths_nm is None:
        coords["band_name"] = (band, np.asarray([str(text or "") for text in spectrum.names]))
    t = grid.transform
    if t.b == 0 and t.d == 0:
        coords["y"] = ("y", t.f + (np.arange(grid.shape[0]) + 0.5) * t.e)
        coords["x"] = ("x", t.c + (np.arange(grid.shape[1]) + 0.5) * t.a)
    made = xr.DataArray(data, dims=(band, "y", "x"), coords=coords, attrs=dict(attributes or {}), name=name)
    made.encoding["_FillValue"] = made.dtype.type(np.nan)  # what `rio.to_raster` writes as nodata
    if grid.crs is not None:
        made.rio.write_crs(grid.crs, inplace=True)  # each would copy the cube otherwise
    if grid.georeferenced:
        made.rio.write_transform(t, inplace=True)
        if t.b == 0 and t.d == 0:
            made.rio.write_coordinate_system(inplace=True)
    if "grid_mapping" in made.encoding:  # as an attribute xarray reads it back from Zarr without being told to
        made.attrs["grid_mapping"] = made.encoding.pop("grid_mapping")
    return made

"""Cubes as Zarr groups, format 3, as xarray and rioxarray open them without options.

An array `reflectance` (wavelength, y, x) with CF-1.10 coordinates: `wavelength` and `fwhm` in nm, pixel centres `y` and
`x`, and the grid mapping `spatial_ref` with `crs_wkt` and `GeoTransform`; `_FillValue`, `scale_factor`, `add_offset`.
GeoZarr's conventions `proj` and `spatial`, at version 0.1 and not settled yet, say the same once more among the group's
attributes. Where wavelengths aren't known the first dimension is `band`. Groups of format 2, which hsfuse wrote before
and others do, are read, too.

xarray decodes to the type of `scale_factor`, and JSON knows no other than float64. So integers that float32 holds are
packed by a codec of the array, of which readers see float32 alone. Not all know it: `PACKING=ATTRIBUTES` does without.
"""

from __future__ import annotations

import asyncio
import errno
import json
import os
import struct
import sys
import time
import zlib
from base64 import b64decode, b64encode
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from math import isnan, prod
from pathlib import Path
from typing import TYPE_CHECKING, Any
from warnings import catch_warnings, simplefilter

import numpy as np
from affine import Affine
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.errors import CRSError
from rasterio.windows import Window

from hsfuse.core.cube import BoolArray, FloatArray, Spectrum
from hsfuse.core.errors import InputError, OutputError, SettingError
from hsfuse.core.grid import Grid
from hsfuse.core.notes import note
from hsfuse.io.files import is_store, remove
from hsfuse.io.gdal import wkt2
from hsfuse.io.limits import FREE_BYTES, MOST_BLOCK, MOST_XML, check_claim
from hsfuse.io.reader import CubeReader, Role, own_quantity

if TYPE_CHECKING:
    from hsfuse.io.sinks import Product, Storage

ARRAY, MAPPING = "reflectance", "spatial_ref"
#: Attribute of a group that was finished: how many files hold its chunks.
CHUNKS = "chunk_files"
#: Names and permanent identities of GeoZarr's conventions.
CONVENTIONS = {"proj": "f17cb550-5864-4468-aeb7-f3180cfb622f", "spatial": "689b58e2-cf7b-45e0-9fff-9cfc0883d6b4"}
#: Bands in a chunk: a chunk of 256 x 256 pixels is then at most 4 MB of float32.
CHUNK_BANDS = 16
#: Looks at most, and seconds between them, at whether a failed group is still written to; it isn't after so many.
LOOKS, LOOK_S, QUIET_LOOKS = 40, 0.25, 3


#: What says how integers are packed, among the creation options: by a codec, or by attributes.
PACKING = "packing"


def _zarr() -> Any:
    try:
        import zarr
    except ImportError as error:
        raise SettingError("Zarr needs the package zarr: pip install 'hsfuse[zarr]'") from error
    return zarr


@contextmanager
def _own_to_zarr() -> Iterator[None]:
    """zarr says of some codecs, and of gathered metadata, that format 3 itself hasn't them; it allows for them."""
    with catch_warnings():
        simplefilter("ignore")
        yield


def check_packing(options: Mapping[str, str]) -> None:
    """SettingError for creation options (in lower case) that a Zarr group hasn't."""
    if not {*options} <= {PACKING} or options.get(PACKING, "codec").lower() not in ("codec", "attributes"):
        told = ", ".join(f"{key.upper()}={value}" for key, value in options.items())
        raise SettingError(f"Zarr has the creation options PACKING=CODEC and PACKING=ATTRIBUTES, not {told}")


@dataclass(frozen=True)
class Steps:
    """A codec of an array that readers see as float32: raw / `per_unit` + `offset`, as numcodecs computes it."""

    dtype: str
    per_unit: float
    offset: float

    @classmethod
    def of(cls, storage: Storage) -> Steps | None:
        """Where numbers are small integers with a scale, each of which comes back of float32, else None."""
        kind, steps = np.dtype(storage.dtype), cls(storage.dtype, 1 / storage.scale, storage.offset)
        by_codec = storage.creation_options.get(PACKING, "codec").lower() == "codec"
        if not by_codec or kind.kind == "f" or kind.itemsize > 2 or (storage.scale, storage.offset) == (1, 0):
            return None
        every = np.arange(np.iinfo(kind).min, np.iinfo(kind).max + 1).astype(kind)
        return steps if np.array_equal(steps.packed(steps.values(every)), every) else None

    @classmethod
    def read(cls, array: Any) -> Steps | None:
        """As an array's metadata have them."""
        named = [getattr(codec, "codec_name", "") for codec in array.filters]
        if named != ["numcodecs.fixedscaleoffset"] or array.dtype != np.float32:
            return None
        told = array.filters[0].codec_config
        kind = np.dtype(told.get("astype", "f4"))
        return None if kind.kind == "f" else cls(str(kind), float(told["scale"]), float(told["offset"]))

    def codec(self) -> Any:
        """What zarr writes and reads chunks with."""
        whole = np.dtype(self.dtype).newbyteorder("<").str
        return _zarr().codecs.numcodecs.FixedScaleOffset(
            scale=self.per_unit, offset=self.offset, dtype="<f4", astype=whole
        )

    def values(self, raw: NDArray) -> FloatArray:
        """Raw numbers as readers see them."""
        return (raw / self.per_unit + self.offset).astype(np.float32)

    def packed(self, values: NDArray) -> NDArray:
        """What is on disk of values that lie on steps."""
        return np.rint((values - self.offset) * self.per_unit).astype(self.dtype)


class ZarrSink:
    """Raw numbers into a new Zarr group; `files` is the group's folder."""

    def __init__(self, product: Product) -> None:
        self._path, self._shape = product.files[0], (product.bands, *product.grid.shape)
        zarr, storage = _zarr(), product.storage
        self._steps = steps = Steps.of(storage)
        group = zarr.open_group(str(self._path), mode="w", zarr_format=3)
        blank = storage.blank if steps is None else float(steps.values(np.array(storage.blank)))
        size = np.dtype(storage.dtype).itemsize
        with _own_to_zarr():
            self._array = group.create_array(
                ARRAY,
                shape=self._shape,
                chunks=(min(CHUNK_BANDS, product.bands), *(min(storage.block, n) for n in product.grid.shape)),
                dtype=storage.dtype if steps is None else "float32",
                fill_value=blank,
                filters=[] if steps is None else [steps.codec()],
                compressors=zarr.codecs.BloscCodec(cname="zstd", clevel=1, shuffle="shuffle", typesize=size),
                dimension_names=[_band(product.spectrum), "y", "x"],
            )
        coordinates = _write_coordinates(group, product)
        told = {**_array_attributes(product), **_packing_attributes(storage, steps, blank)}
        self._array.attrs.update({**told, "coordinates": " ".join(coordinates)})
        self._group = group
        group.attrs.update({"Conventions": "CF-1.10", **_conventions(product.grid), **product.tags})

    def write(self, raw: NDArray, window: Window) -> None:
        """Write raw numbers (C, h, w) to a window."""
        self._array[:, *window.toslices()] = raw if self._steps is None else self._steps.values(raw)

    def add_tags(self, tags: Mapping[str, str]) -> None:
        """Add attributes to the group."""
        with _own_to_zarr():
            self._group.attrs.update(tags)

    def close(self) -> None:
        """Say how many chunks there are, and gather the metadata, so that readers need one request for it."""
        with _own_to_zarr():
            self._group.attrs[CHUNKS] = sum(1 for _ in _chunks(self._path))
            _zarr().consolidate_metadata(str(self._path), zarr_format=3)

    def verify(self) -> None:
        """Look whether the store opens with the shape it should have; what killed processes began goes."""
        for began in self._path.rglob("*.partial"):
            began.unlink(missing_ok=True)
        with _own_to_zarr():
            found = _zarr().open_group(str(self._path), mode="r", zarr_format=3)[ARRAY].shape
        if found != self._shape:
            raise OutputError(f"the Zarr array has shape {found} instead of {self._shape}")


def _chunks(path: Path) -> Iterator[Path]:
    """The files of a group that hold chunks."""
    others = ("zarr.json", ".partial")
    return (file for file in sorted(path.rglob("*")) if file.is_file() and not file.name.endswith(others))


def attributes(path: Path) -> dict[str, Any]:
    """Those of a group, though its arrays may be damaged; {} where there are none to read."""
    with suppress(OSError, ValueError):
        told = json.loads((path / "zarr.json").read_bytes())["attributes"]
        return dict(told)
    return {}


def lost_chunks(path: Path) -> str:
    """What a group made here has lost of its chunks, in words; "" where nothing is found.

    One that isn't there reads as fill, and to decode one that was cut, which isn't as long as its Blosc header says,
    reads beyond its end and may go well.
    """
    found, wanted = list(_chunks(path)), attributes(path).get(CHUNKS)
    if isinstance(wanted, int) and len(found) < wanted:
        return f"it lacks {wanted - len(found)} of its {wanted} chunks"
    for chunk in found:
        if chunk.is_relative_to(path / ARRAY / "c"):
            with chunk.open("rb") as file:
                head = file.read(16)
            if len(head) < 16 or struct.unpack("<I", head[12:])[0] != chunk.stat().st_size:
                return f"its chunk {chunk.relative_to(path).as_posix()} is cut"
    return ""


def write_part(path: Path, raw: NDArray, window: Window) -> bool:
    """Write whole chunks of a group from any process that sees it; False where it isn't there, or no longer."""
    if not (path / ARRAY / "zarr.json").is_file():
        return False
    with _own_to_zarr():
        array = _zarr().open_array(str(path / ARRAY), mode="r+", zarr_format=3)
    steps = Steps.read(array)
    array[:, *window.toslices()] = raw if steps is None else steps.values(raw)
    return True


async def _idle() -> None:
    """Wait for all that zarr's loop has to do but this."""
    if others := asyncio.all_tasks() - {asyncio.current_task()}:
        await asyncio.wait(others)


def discard(path: Path) -> None:
    """Remove a group till it stays away.

    Where a chunk has failed, or was interrupted, zarr's threads go on, and are waited for; other processes that write
    to it may be late.
    """
    if "zarr.core.sync" in sys.modules:
        sys.modules["zarr.core.sync"].sync(_idle())
    away = 0
    for _ in range(LOOKS):
        remove(path)
        time.sleep(LOOK_S)
        away = 0 if path.exists() else away + 1
        if away == QUIET_LOOKS:
            return


def _band(spectrum: Spectrum) -> str:
    return "band" if spectrum.wavelengths_nm is None else "wavelength"


def _array_attributes(product: Product) -> dict[str, Any]:
    """What numbers are, and where they lie."""
    attributes: dict[str, Any] = {"grid_mapping": MAPPING}
    if product.spectrum.names is not None:
        attributes["band_names"] = list(product.spectrum.names)
    if own_quantity(product.tags) == "reflectance":
        attributes["units"] = "1"
    if product.grid.crs is not None:
        attributes["_CRS"] = {"wkt": product.grid.crs.to_wkt()}  # where GDAL's Zarr driver looks
    return attributes


def _packing_attributes(storage: Storage, steps: Steps | None, blank: float) -> dict[str, Any]:
    """How numbers are to be taken that no codec unpacks, and which says that there is none."""
    attributes: dict[str, Any] = {}
    if steps is None and (storage.scale != 1 or storage.offset != 0):
        attributes["scale_factor"] = storage.scale
    if steps is None and storage.offset != 0:
        attributes["add_offset"] = storage.offset
    if not isnan(blank):
        whole = steps is None and np.dtype(storage.dtype).kind in "iu"
        attributes["_FillValue"] = int(blank) if whole else _packed(blank)
    return attributes


def _packed(value: float) -> str:
    """A floating point `_FillValue` as xarray writes it in format 3."""
    return b64encode(struct.pack("<d", value)).decode()


def _unpacked(found: Any) -> float | None:
    """A `_FillValue` as a number, whichever way it is written."""
    if found is None:
        return None
    try:
        return float(found)
    except ValueError:
        packed = b64decode(str(found))
        if len(packed) != 8:
            raise
        return float(struct.unpack("<d", packed)[0])


def _conventions(grid: Grid) -> dict[str, Any]:
    """CRS and transform as GeoZarr's conventions keep them, and which these are."""
    told: dict[str, Any] = {
        "spatial:dimensions": ["y", "x"],
        "spatial:shape": list(grid.shape),
        "spatial:transform": list(grid.transform[:6]),
    }
    if grid.crs is not None:
        told["proj:wkt2"] = wkt2(grid.crs)
    named = [name for name in CONVENTIONS if any(key.startswith(f"{name}:") for key in told)]
    place = "https://raw.githubusercontent.com/zarr-conventions"
    return {
        "zarr_conventions": [
            {
                "name": name,
                "uuid": CONVENTIONS[name],
                "schema_url": f"{place}/{name}/refs/tags/v0.1/schema.json",
                "spec_url": f"https://github.com/zarr-conventions/{name}/blob/v0.1/README.md",
            }
            for name in named
        ],
        **told,
    }


def _write_coordinates(group: Any, product: Product) -> list[str]:
    """Wavelengths, pixel centres where the grid isn't rotated, grid mapping; the names of those of no dimension."""
    spectrum, grid, band = product.spectrum, product.grid, _band(product.spectrum)
    made = [MAPPING]
    if spectrum.wavelengths_nm is not None:
        told = {"units": "nm", "standard_name": "radiation_wavelength", "long_name": "band centre"}
        _coordinate(group, "wavelength", [band], np.asarray(spectrum.wavelengths_nm), told)
    if spectrum.fwhm_nm is not None:
        told = {"units": "nm", "long_name": "full width at half maximum"}
        _coordinate(group, "fwhm", [band], np.asarray(spectrum.fwhm_nm), told)
        made.append("fwhm")
    if spectrum.good is not None:
        flags = {"flag_values": [0, 1], "flag_meanings": "bad_band good_band"}
        _coordinate(group, "good_band", [band], np.asarray(spectrum.good, np.uint8), flags)
        made.append("good_band")
    t = grid.transform
    if t.b == 0 and t.d == 0:
        rows, cols = np.arange(grid.shape[0]) + 0.5, np.arange(grid.shape[1]) + 0.5
        kind = "longitude latitude" if grid.crs is not None and grid.crs.is_geographic else ""
        names = kind.split() or ("projection_x_coordinate", "projection_y_coordinate")
        _coordinate(group, "y", ["y"], t.f + rows * t.e, {"standard_name": names[1], "axis": "Y"})
        _coordinate(group, "x", ["x"], t.c + cols * t.a, {"standard_name": names[0], "axis": "X"})
    mapping: dict[str, Any] = {"GeoTransform": " ".join(repr(v) for v in t.to_gdal())}
    if grid.crs is not None:
        mapping["crs_wkt"] = mapping["spatial_ref"] = grid.crs.to_wkt()
    _coordinate(group, MAPPING, [], np.array(0, np.int32), mapping)
    return made


def _coordinate(group: Any, name: str, dimensions: list[str], values: NDArray, attributes: dict[str, Any]) -> None:
    shape = values.shape
    array = group.create_array(name, shape=shape, dtype=values.dtype, chunks=shape, dimension_names=dimensions)
    array[...] = values
    array.attrs.update(attributes)


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
    """InputError for JSON of the group or of its arrays that is larger than any."""
    own = (".zmetadata", ".zgroup", ".zattrs", "zarr.json")
    arrays = (file for name in (".zarray", ".zattrs", "zarr.json") for file in path.glob(f"*/{name}"))
    for file in (*(path / name for name in own), *arrays):
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


def _cube_of(group: Any) -> Any:
    """The group's cube: the array that has the name of those written here, else its only one of three dimensions."""
    if ARRAY in group:
        return group[ARRAY]
    found = {name: array for name, array in group.arrays() if array.ndim == 3}
    if len(found) != 1:
        raise KeyError(f"it has {', '.join(sorted(found)) or 'none'} of three dimensions")
    return next(iter(found.values()))


class ZarrReader(CubeReader):
    """A Zarr group as `ZarrSink` writes it, or another of the same layout."""

    def __init__(self, path: Path, role: Role) -> None:
        super().__init__(path, role)
        self.files, self.driver = (path,), "Zarr"
        _check_metadata(path)
        with (
            _readable(f"{path} is no Zarr group with an array {ARRAY!r}, or one alone, of (band, y, x)"),
            _own_to_zarr(),
        ):
            self._group = _zarr().open_group(str(path), mode="r")
            self._array = _cube_of(self._group)
        if getattr(self._array, "ndim", 0) != 3 or self._array.dtype.kind not in "iuf":
            raise InputError(f"{path}: {ARRAY!r} is no array of numbers of three dimensions, wanted (band, y, x)")
        _check_array(path, self._array)
        with _readable(f"{path} can't be read"):
            self._describe()

    def _describe(self) -> None:
        attributes = dict(self._array.attrs)
        bands, *shape = self._array.shape
        newer = self._array.metadata.zarr_format == 3
        blank = _unpacked(attributes.get("_FillValue", None if newer else self._array.fill_value))
        self._packs: Steps | None = Steps.read(self._array) if newer else None
        scale, offset = float(attributes.get("scale_factor", 1.0)), float(attributes.get("add_offset", 0.0))
        if self._packs is not None:
            scale, offset = 1 / self._packs.per_unit, self._packs.offset
            blank = None if blank is None else float(self._packs.packed(np.array(blank, np.float32)))
        self.dtype = str(self._array.dtype) if self._packs is None else self._packs.dtype
        self.scales, self.offsets, self.nodata_values = np.full(bands, scale), np.full(bands, offset), [blank] * bands
        self.grid = self._grid((shape[0], shape[1]))
        told = {**attributes, **self._group.attrs}  # among the array's where xarray has written it
        self.tags = {key: str(value) for key, value in told.items() if key.startswith("HSFUSE_")}
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
        mapping = dict(self._group[MAPPING].attrs) if MAPPING in self._group else {}
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
            places: list[Any] = [rows, cols]
            if shape is not None:
                places = [
                    np.linspace(s.start, s.stop - 1, n).round().astype(int)
                    for s, n in zip((rows, cols), shape, strict=True)
                ]
            raw = self._array.oindex[list(bands), *places]
            if not is_store(self.path):  # chunks that aren't there read as blank
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
            return raw if self._packs is None else self._packs.packed(raw), None

    def close(self) -> None:
        """Nothing stays open."""

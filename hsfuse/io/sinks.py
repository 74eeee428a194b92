"""GeoTIFF, to which pixels go window by window in memory that doesn't grow with the scene, and what any sink is."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from math import isnan, prod
from pathlib import Path
from typing import Protocol
from urllib.parse import quote

import numpy as np
import rasterio
import rasterio.shutil
from numpy.typing import NDArray
from rasterio.enums import ColorInterp, Resampling
from rasterio.windows import Window

from hsfuse.core.cube import BoolArray, FloatArray, Spectrum
from hsfuse.core.errors import OutputError, SettingError
from hsfuse.core.grid import Grid
from hsfuse.core.notes import step
from hsfuse.io.gdal import gdal_env
from hsfuse.io.limits import LARGEST_FACTOR
from hsfuse.io.spectral_tags import (
    band_tags,
    bare_description,
    dataset_tags,
    description,
    imagery_tags,
    natural_colour,
)

#: Types that both GeoTIFF and ENVI hold.
DTYPES = ("uint8", "int16", "uint16", "int32", "uint32", "float32", "float64")


def default_nodata(dtype: str) -> float:
    """NaN for floats, the smallest number of signed types (-32768 for int16), the largest of unsigned ones.

    Unsigned types keep 0, which dark pixels have; 65535 for uint16 is beyond any scaled reflectance.
    """
    kind = np.dtype(dtype)
    if kind.kind == "f":
        return float("nan")
    info = np.iinfo(kind)
    return float(info.min if kind.kind == "i" else info.max)


#: GTiff tiles. Each band has its own (INTERLEAVE=BAND): a window of all bands completes whole tiles and none waits in
#: memory, where pixel interleave would make one block of 256 x 256 x bands, 58 MB at 224 bands of float32. Deflate
#: level 1 writes twice as fast as level 6 for 2% more bytes on noisy float32.
TILE = 256


@dataclass(frozen=True)
class Storage:
    """How a cube is stored: decided once, and handed down to the sink as it is. SettingError when it can't be.

    `driver` is the format (auto: by suffix). Numbers on disk: reflectance = raw * scale + offset, as `dtype`; `nodata`
    where invalid (None: `default_nodata`). GeoTIFF tiles have `block` pixels a side, a multiple of 16. `options` are
    GDAL's creation options for GeoTIFF and COG; `overviews` are for GeoTIFF, a COG always has some.
    """

    driver: str = "auto"
    dtype: str = "float32"
    scale: float = 1.0
    offset: float = 0.0
    nodata: float | None = None
    block: int = TILE
    options: Mapping[str, str] = field(default_factory=dict)
    overviews: bool = False

    def __post_init__(self) -> None:
        if self.dtype not in DTYPES:
            raise SettingError(f"unknown type {self.dtype!r} for the output; known: {', '.join(DTYPES)}")
        if not 1 / LARGEST_FACTOR < self.scale < LARGEST_FACTOR or not abs(self.offset) < LARGEST_FACTOR:
            raise SettingError(
                f"scale {self.scale} and offset {self.offset} make no sense; wanted a positive scale, such as 1e-4"
            )
        kind, bits = np.dtype(self.dtype), self.creation_options.get("nbits")
        if bits is not None and kind.kind != "f" and not (bits.isdecimal() and int(bits) >= 8 * kind.itemsize):
            raise SettingError(f"NBITS={bits} can't hold {self.dtype} and would cut values off; leave it out")
        if kind.kind != "f" and not self._holds(self.blank):
            raise SettingError(f"nodata {self.nodata} doesn't fit the type {self.dtype}")

    @property
    def blank(self) -> float:
        """The number that says that there is none."""
        return default_nodata(self.dtype) if self.nodata is None else self.nodata

    @property
    def creation_options(self) -> dict[str, str]:
        """`options` with their names in lower case, as rasterio takes them."""
        return {key.lower(): value for key, value in self.options.items()}

    def _holds(self, value: float) -> bool:
        info = np.iinfo(self.dtype)
        return not isnan(value) and float(value).is_integer() and info.min <= value <= info.max

    def clipped(self, data: FloatArray, mask: BoolArray) -> int:
        """How many valid values of `data` (C, h, w) the type can't hold, so that `encode` clips them."""
        if np.dtype(self.dtype).kind == "f":
            return 0
        info = np.iinfo(self.dtype)
        low, high = ((end * self.scale + self.offset) for end in (info.min - 0.5, info.max + 0.5))
        return int((((data < low) | (data > high)) & mask & np.isfinite(data)).sum())

    def encode(self, data: FloatArray, mask: BoolArray) -> NDArray:
        """Raw numbers (C, h, w) of reflectance `data`; nodata where `mask` (h, w) is False or a value isn't finite."""
        kind = np.dtype(self.dtype)
        raw: NDArray[np.floating] = data.astype(np.float64 if kind.itemsize > 2 and kind != np.float32 else np.float32)
        if self.scale != 1 or self.offset != 0:
            raw -= raw.dtype.type(self.offset)
            raw /= raw.dtype.type(self.scale)
        blank = ~(mask & np.isfinite(raw))
        if kind.kind != "f":
            raw[blank] = 0
            info = np.iinfo(kind)
            np.clip(np.rint(raw, out=raw), info.min, info.max, out=raw)
        out = raw.astype(kind, copy=False)
        _avoid(out, self.blank)
        out[blank] = self.blank
        return out


def _avoid(raw: NDArray, nodata: float) -> None:
    """Move valid values that equal nodata to the next number, so that they stay valid."""
    if isnan(nodata):
        return
    value = raw.dtype.type(nodata)
    if raw.dtype.kind == "f":
        beside = np.nextafter(value, raw.dtype.type(0) if value != 0 else raw.dtype.type(1))
    else:
        beside = value - 1 if value == np.iinfo(raw.dtype).max else value + 1
    raw[raw == value] = beside


@dataclass(frozen=True)
class Product:
    """What is written where: `files` (data, and for ENVI the header), `bands` on `grid`, how, and dataset tags."""

    files: tuple[Path, ...]
    grid: Grid
    spectrum: Spectrum
    bands: int
    storage: Storage
    tags: Mapping[str, str]

    def profile(self) -> dict[str, object]:
        """What rasterio needs to create either format."""
        (height, width), storage = self.grid.shape, self.storage
        pixels = {"dtype": storage.dtype, "nodata": storage.blank, "count": self.bands}
        return pixels | {"height": height, "width": width, "crs": self.grid.crs, "transform": self.grid.transform}


class Sink(Protocol):
    """Where raw numbers go; every method may raise OSError or RasterioError."""

    def write(self, raw: NDArray, window: Window) -> None:
        """Write raw numbers (C, h, w) to a window."""

    def add_tags(self, tags: Mapping[str, str]) -> None:
        """Add dataset tags."""

    def close(self) -> None:
        """Close the files, whole or not."""

    def verify(self) -> None:
        """Raise OutputError unless the closed files hold all that was written."""


class GeoTiffSink:
    """Tiled, compressed GeoTIFF with all but the pixels written first; with `go_on` one that is there already."""

    def __init__(self, product: Product, go_on: bool = False) -> None:
        self._path, self._product = product.files[0], product
        self._raw_bytes = 0
        if go_on:
            self._open_again()
            self._check()
        else:
            self._create(product)

    def _open_again(self) -> None:
        with gdal_env(GDAL_PAM_ENABLED="NO"):
            self._ds = rasterio.open(self._path, "r+")

    def _check(self) -> None:
        """Read what is there: each tile has a checksum, and one that was damaged would end every run that goes on."""
        try:
            for _, window in self._ds.block_windows(1):
                self._ds.read(window=window)
        except BaseException:
            self._ds.close()
            raise

    def flush(self) -> None:
        """Have a whole file on the disk, to which more can be written."""
        self.close()
        self._open_again()

    def _create(self, product: Product) -> None:
        tiles = {
            "tiled": True,
            "blockxsize": product.storage.block,
            "blockysize": product.storage.block,
            "interleave": "band",
            "bigtiff": "if_safer",
        }
        packing = packing_of(product)
        if packing:
            packing |= {"zlevel": 1, "num_threads": "all_cpus"}
        # Four bands of uint8 would be taken for red, green, blue and alpha otherwise.
        colours = {"photometric": "minisblack", "alpha": "unspecified"}
        with gdal_env(GDAL_PAM_ENABLED="NO"):
            self._ds = rasterio.open(
                self._path,
                "w",
                driver="GTiff",
                **{**product.profile(), **tiles, **packing, **colours, **self._options()},
            )
            self._describe(product)

    def _options(self) -> Mapping[str, str]:
        return self._product.storage.creation_options

    def _describe(self, product: Product) -> None:
        ds, spectrum, storage = self._ds, product.spectrum, product.storage
        ds.update_tags(**product.tags, **dataset_tags(spectrum))
        if storage.scale != 1 or storage.offset != 0:
            ds.scales, ds.offsets = [storage.scale] * product.bands, [storage.offset] * product.bands
        if (shown := natural_colour(spectrum)) is not None:
            colours = dict(zip(shown, (ColorInterp.red, ColorInterp.green, ColorInterp.blue), strict=True))
            ds.colorinterp = [colours.get(band, ColorInterp.undefined) for band in range(product.bands)]
        for band in range(product.bands):
            ds.set_band_description(band + 1, description(spectrum, band))
            ds.update_tags(band + 1, **band_tags(spectrum, band))
            ds.update_tags(band + 1, ns="IMAGERY", **imagery_tags(spectrum, band))

    def write(self, raw: NDArray, window: Window) -> None:
        """Compress what tiles the window completes; the rest waits in GDAL's bounded cache."""
        self._check_space(raw.nbytes)
        with gdal_env(GDAL_PAM_ENABLED="NO"):
            self._ds.write(raw, window=window)
        self._raw_bytes += raw.nbytes

    def _check_space(self, coming: int) -> None:
        """Stop before GDAL meets a full disk, of which it prints lines of its own; packs like what went before."""
        packed = self._path.stat().st_size / self._raw_bytes if self._raw_bytes else 1.0
        if shutil.disk_usage(self._path.parent).free < coming * packed:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def add_tags(self, tags: Mapping[str, str]) -> None:
        """Add dataset tags."""
        with gdal_env(GDAL_PAM_ENABLED="NO"):
            self._ds.update_tags(**tags)

    def close(self) -> None:
        """Flush and close."""
        with gdal_env(GDAL_PAM_ENABLED="NO"):
            self._ds.close()

    def verify(self) -> None:
        """Look whether each tile lies inside the file: GDAL may only log a failed flush."""
        size = self._path.stat().st_size
        for where, at, length in placed_tiles(self._path):
            if at == 0 or length == 0 or at + length > size:
                raise OutputError(f"{where} is incomplete")
        if self._product.storage.overviews:
            self._add_overviews()

    def _add_overviews(self) -> None:
        factors = [2**n for n in range(1, 12) if max(self._product.grid.shape) // 2**n >= TILE // 2]
        with step("overviews"), gdal_env(GDAL_PAM_ENABLED="NO"), rasterio.open(self._path, "r+") as ds:
            ds.build_overviews(factors, Resampling.average)


def placed_tiles(path: Path, most: int | None = None) -> Iterator[tuple[str, int, int]]:
    """Where each tile of a GeoTIFF lies: its band, row and column in words, offset and length in bytes.

    Both are 0 for one that was left out. Only the file's directory is read; of more than `most` tiles about so many,
    evenly spaced, and the last.
    """
    with gdal_env(), rasterio.open(path) as ds:
        (tall, wide), *_ = ds.block_shapes
        rows, cols = -(-ds.height // tall), -(-ds.width // wide)
        count = ds.count * rows * cols
        for number in (*range(0, count - 1, 1 if most is None else -(-count // most)), count - 1):
            line, col = divmod(number, cols)
            band, row = divmod(line, rows)
            at, length = (
                int(ds.get_tag_item(f"BLOCK_{what}_{col}_{row}", "TIFF", bidx=band + 1) or 0)
                for what in ("OFFSET", "SIZE")
            )
            yield f"band {band + 1} at tile row {row}, column {col}", at, length


def packing_of(product: Product) -> dict[str, object]:
    """Lossless compression, with the predictor that fits the type; none where other compression is asked for."""
    if "compress" in product.storage.creation_options:
        return {}
    return {"compress": "deflate", "predictor": 3 if np.dtype(product.storage.dtype).kind == "f" else 2}


#: Whether GDAL can write a COG band by band; before 3.11 each block holds all bands.
COG_BY_BAND = tuple(map(int, rasterio.__gdal_version__.split(".")[:2])) >= (3, 11)
#: Side of a COG's blocks.
COG_BLOCK = 128


class CogSink(GeoTiffSink):
    """Cloud optimised GeoTIFF: GDAL can only copy one, so it is made from a finished GeoTIFF beside it."""

    def _options(self) -> Mapping[str, str]:
        return {}

    def verify(self) -> None:
        """Copy what was written into the final layout, with overviews."""
        super().verify()
        copy = self._path.with_name(f"{self._path.stem}.cog{self._path.suffix}")
        defaults = packing_of(self._product) | {"blocksize": COG_BLOCK, "level": 1, "bigtiff": "if_safer"}
        defaults["overview_resampling"] = "average"
        if COG_BY_BAND:
            defaults["interleave"] = "band"
        if "predictor" in defaults:
            defaults["predictor"] = "yes"
        try:
            with step("cloud optimised copy"), gdal_env(GDAL_PAM_ENABLED="NO"):
                rasterio.shutil.copy(
                    self._path,
                    copy,
                    driver="COG",
                    **{**defaults, **self._product.storage.creation_options},
                )
            os.replace(copy, self._path)
        finally:
            copy.unlink(missing_ok=True)

    def _add_overviews(self) -> None:
        """The copy makes them."""


#: What stays as it is in an ENVI header's `hsfuse ...` fields; the reader undoes the percent signs. GDAL leaves out a
#: field in whose value it finds "=".
HEADER_SAFE = "".join(chr(c) for c in range(32, 127) if chr(c) not in "%{}=")


class EnviSink:
    """Band-sequential little-endian data, written straight to the file, and a header that GDAL makes.

    GDAL's own raw writer reads and writes whole lines for each window and can lose a full disk's error in its cache.
    """

    def __init__(self, product: Product) -> None:
        (self._path, self._header), self._shape = product.files, (product.bands, *product.grid.shape)
        self._type = np.dtype(product.storage.dtype).newbyteorder("<")
        _make_header(product)
        self._file = os.open(product.files[0], os.O_WRONLY | os.O_TRUNC)
        try:
            _reserve(self._file, prod(self._shape) * self._type.itemsize)
        except BaseException:
            os.close(self._file)
            raise

    def write(self, raw: NDArray, window: Window) -> None:
        """Write each band's lines to their place in the file."""
        raw = np.ascontiguousarray(raw, dtype=self._type)
        row, col, whole_lines = window.row_off, window.col_off, window.width == self._shape[2]
        for band, values in enumerate(raw):
            for i, part in enumerate([values] if whole_lines else values):
                first = (band * self._shape[1] + row + i) * self._shape[2] + col
                _write_all(self._file, part, first * self._type.itemsize)

    def add_tags(self, tags: Mapping[str, str]) -> None:
        """Add fields to the header, named as GDAL names them."""
        with self._header.open("a", encoding="utf-8") as header:
            header.writelines(f"{name.replace('_', ' ')} = {value}\n" for name, value in _fields(tags).items())

    def close(self) -> None:
        """Close the data file."""
        os.close(self._file)

    def verify(self) -> None:
        """Compare the file's size with what the bands make; each write was checked already."""
        wanted, found = prod(self._shape) * self._type.itemsize, self._path.stat().st_size
        if found != wanted:
            raise OutputError(f"{found} of {wanted} bytes are there")


def _write_all(file: int, part: NDArray, at: int) -> None:
    view = part.data.cast("B")
    while view:
        done = os.pwrite(file, view, at)
        view, at = view[done:], at + done


def _reserve(file: int, size: int) -> None:
    """Take the whole file's space now: a full disk is told before the work instead of after it."""
    if hasattr(os, "posix_fallocate"):
        try:
            os.posix_fallocate(file, 0, size)
        except OSError as error:
            raise OutputError(f"{error.strerror}, {size / 2**20:.1f} MiB are needed") from error
    else:
        os.ftruncate(file, size)


def _make_header(product: Product) -> None:
    """Have GDAL write map info, coordinate system and fields, beside a data file that is still empty of pixels."""
    (data, header), storage, bands = product.files, product.storage, product.bands
    fields = dataset_tags(product.spectrum) | _fields(product.tags)
    if (shown := natural_colour(product.spectrum)) is not None:
        fields["default_bands"] = "{" + ", ".join(str(band + 1) for band in shown) + "}"
    if storage.scale != 1 and storage.offset == 0:
        fields["reflectance_scale_factor"] = f"{1 / storage.scale:.12g}"
    with gdal_env(GDAL_PAM_ENABLED="NO"):
        with rasterio.open(data, "w", driver="ENVI", interleave="bsq", **product.profile()) as ds:
            ds.update_tags(ns="ENVI", **fields)
            told = bare_description if product.spectrum.wavelengths_nm is not None else description
            ds.descriptions = [_plain(told(product.spectrum, b)).replace(",", ";") for b in range(bands)]
            if storage.offset != 0:
                ds.scales, ds.offsets = [storage.scale] * bands, [storage.offset] * bands
        with rasterio.open(data, driver="ENVI") as ds:
            kept = ds.transform
    # GDAL describes the file by its path, which is the temporary one.
    header.write_text(header.read_text(encoding="utf-8").replace(str(data), "hsfuse"), encoding="utf-8")
    wanted = product.grid.transform
    if not kept.almost_equals(wanted, precision=1e-9 * max(map(abs, wanted[:6]))):
        raise SettingError("an ENVI header can't hold a sheared georeference; write GeoTIFF instead")


def _fields(tags: Mapping[str, str]) -> dict[str, str]:
    return {key.lower(): quote(value, safe=HEADER_SAFE) for key, value in tags.items()}


def _plain(text: str) -> str:
    """One line without the characters that end a header value."""
    return " ".join(text.split()).replace("{", "(").replace("}", ")")

"""GDAL with a bounded cache, files opened with one-line errors."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from math import isfinite
from pathlib import Path

import numpy as np
import rasterio
from affine import Affine
from rasterio._err import CPLE_BaseError
from rasterio.crs import CRS
from rasterio.enums import ColorInterp, MaskFlags
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.io import DatasetReader

from hsfuse.core.errors import InputError

#: Endings of ENVI data files in use; "" is a data file without one.
DATA_SUFFIXES = ("", ".dat", ".img", ".bsq", ".bil", ".bip", ".raw", ".bin", ".envi", ".cube")

#: Bytes a pixel by the header's `data type`.
TYPE_BYTES = {1: 1, 2: 2, 3: 4, 4: 4, 5: 8, 6: 8, 9: 16, 12: 2, 13: 4, 14: 8, 15: 8}

_TIFF_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_FIELD = re.compile(r"^[ \t]*([^=;{}\n]+?)[ \t]*=[ \t]*(\{[^}]*\}|[^\n]*)", re.MULTILINE)


@dataclass(frozen=True)
class EnviPair:
    """A header with its data file; `fields` has lower-case names, single-blank separated, values without braces."""

    header: Path
    data: Path
    fields: Mapping[str, str]

    def items(self, name: str) -> list[str]:
        """The values of a list field, [] when absent."""
        text = self.fields.get(name, "")
        return [item.strip() for item in text.split(",")] if text.strip() else []


def find_pair(path: Path) -> EnviPair | None:
    """The ENVI pair that `path` (header or data file) belongs to, sizes checked; None when it is something else.

    Raises InputError for a header that isn't ENVI's or has no data file, and where header and data size disagree.
    """
    if path.suffix.lower() == ".hdr":
        return _pair_of_header(path)
    header = _header_of(path)
    if header is None or _starts_like_tiff(path) or not _is_envi_header(header):
        return None
    return _checked(EnviPair(header, path, read_header(header)))


def read_header(path: Path) -> dict[str, str]:
    """All fields of an ENVI header as text; InputError when the file isn't one."""
    if not _is_envi_header(path):
        raise InputError(f"{path} isn't an ENVI header: its first line should be ENVI")
    raw = path.read_bytes()
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = raw.decode("latin-1")
    found = _FIELD.findall(text.replace("\r\n", "\n"))
    return {" ".join(name.lower().split()): value.strip(" \t{}\n").replace("\n", " ") for name, value in found}


def siblings(path: Path) -> list[Path]:
    """The files that make up the raster at `path`: itself, and for ENVI its header or data file too."""
    if path.suffix.lower() == ".hdr":
        return [path, *_data_candidates(path)]
    header = _header_of(path) if path.is_file() and not _starts_like_tiff(path) else None
    return [path] if header is None else [path, header]


def _pair_of_header(header: Path) -> EnviPair:
    fields = read_header(header)
    _refuse_library(header, fields)
    candidates = _data_candidates(header)
    if not candidates:
        stem = header.with_suffix("").name
        raise InputError(
            f"{header} is a header without its data file: wanted {stem}, {stem}.dat, {stem}.img, ... there"
        )
    fitting = [data for data in candidates if data.stat().st_size == _wanted_bytes(header, fields)]
    return _checked(EnviPair(header, (fitting or candidates)[0], fields))


def _data_candidates(header: Path) -> list[Path]:
    stem = header.with_suffix("")
    names = [Path(f"{stem}{suffix}") for ending in DATA_SUFFIXES for suffix in dict.fromkeys((ending, ending.upper()))]
    return [name for name in names if name.is_file()]


def _header_of(data: Path) -> Path | None:
    names = [Path(f"{base}{ending}") for base in (data, data.with_suffix("")) for ending in (".hdr", ".HDR")]
    return next((name for name in names if name.is_file() and name != data), None)


def _is_envi_header(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(64).removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"ENVI")


def _starts_like_tiff(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(4) in _TIFF_MAGIC


def _checked(pair: EnviPair) -> EnviPair:
    """The pair, when it is a raster whose file size is what the header promises."""
    _refuse_library(pair.data, pair.fields)
    wanted, found = _wanted_bytes(pair.header, pair.fields), pair.data.stat().st_size
    if found == 0:
        raise InputError(f"{pair.data} is empty; its header wants {wanted} bytes")
    if found != wanted and pair.fields.get("file compression", "0") == "0":
        size = " x ".join(pair.fields[name] for name in ("samples", "lines", "bands"))
        raise InputError(
            f"{pair.header.name} and {pair.data.name} disagree: {size} (samples, lines, bands) of data type "
            f"{pair.fields['data type']} make {wanted} bytes with the header offset, but the file has {found}"
        )
    return pair


def _refuse_library(path: Path, fields: Mapping[str, str]) -> None:
    kind = fields.get("file type", "")
    if "library" in kind.lower():
        raise InputError(f"{path} belongs to a spectral library ({kind}), not a raster")


def _wanted_bytes(header: Path, fields: Mapping[str, str]) -> int:
    samples, lines, bands = (_whole(header, fields, name) for name in ("samples", "lines", "bands"))
    code = _whole(header, fields, "data type")
    if code not in TYPE_BYTES:
        raise InputError(f"{header} has the unknown data type {code}; known: {', '.join(map(str, TYPE_BYTES))}")
    offset = _whole(header, fields, "header offset") if "header offset" in fields else 0
    return offset + samples * lines * bands * TYPE_BYTES[code]


def _whole(header: Path, fields: Mapping[str, str], name: str) -> int:
    text = fields.get(name)
    if text is None:
        raise InputError(f"{header} lacks the field '{name}'")
    if not text.isdecimal() or len(text) > 18:  # "²" is a digit, but no decimal one
        raise InputError(f"{header} says {name} = {text}; wanted a whole number")
    return int(text)


#: GDAL's block cache, in bytes (rasterio takes the number as bytes, not as GDAL's megabytes). Its default, 5% of the
#: memory, would fill up with the scene.
CACHE_BYTES = 24 * 2**20
#: What GDAL's work on a raster can end in; rasterio's `shutil.copy` lets GDAL's own errors pass, and raises SystemError
#: where GDAL failed without saying why.
RASTER_ERRORS = (OSError, RasterioError, CPLE_BaseError, SystemError)


@contextmanager
def gdal_env(**options: object) -> Iterator[None]:
    """GDAL with a bounded block cache, around every call that moves pixels."""
    _hush()
    with rasterio.Env(GDAL_CACHEMAX=CACHE_BYTES, **options):
        yield


def _hush() -> None:
    """Set a filter for good: `warnings.catch_warnings` would take back what other threads have set in the meantime."""
    if ("ignore", None, NotGeoreferencedWarning, None, 0) not in warnings.filters:
        warnings.simplefilter("ignore", NotGeoreferencedWarning)


def open_dataset(path: Path, what: str) -> tuple[DatasetReader, EnviPair | None]:
    """The open dataset and, when it is ENVI, its header; InputError, naming `what`, when it can't be opened."""
    pair = _find(path, what)
    try:
        with gdal_env():
            ds = rasterio.open(gdal_name(path)) if pair is None else rasterio.open(pair.data, driver="ENVI")
    except RasterioError as error:
        raise InputError(f"{what} {path} isn't a raster that can be read: {one_line(error, path)}") from error
    if ds.count == 0:
        inside = ", ".join(ds.subdatasets[:3]) or "none"
        ds.close()
        raise InputError(f"{what} {path} holds no bands of its own; name one of its parts instead: {inside}")
    return ds, pair


def gdal_name(path: Path) -> str:
    """The text for GDAL: `Path` has made one slash of the two that URLs, archives and parts of HDF5 files need."""
    text = re.sub(r"\b(https?|ftp):/(?!/)", r"\1://", str(path))
    text = re.sub(r"^(HDF5:.+):/(?!/)", r"\1://", text)
    inside = re.match(r"(/vsi(?:zip|tar|gzip|7z|rar))(/.+)", text)
    absolute = inside is not None and any(parent.is_file() for parent in [Path(inside[2]), *Path(inside[2]).parents])
    return f"{inside[1]}/{inside[2]}" if inside is not None and absolute else text


def _find(path: Path, what: str) -> EnviPair | None:
    """The ENVI pair of the path, None for other formats; InputError when there is no file with something in it."""
    if not path.exists():
        # A part of a container ("NETCDF:file.nc:reflectance") and GDAL's virtual files have no path of their own.
        if ":" in str(path) or str(path).startswith("/vsi"):
            return None
        raise InputError(f"{what} {path} doesn't exist")
    if path.is_dir():
        raise InputError(f"{what} {path} is a folder; name the raster file inside it")
    if path.stat().st_size == 0:
        raise InputError(f"{what} {path} is empty (0 bytes)")
    try:
        return find_pair(path)
    except OSError as error:
        raise InputError(f"{what} {path} can't be read: {error.strerror}") from error


def one_line(error: BaseException, path: Path | None = None) -> str:
    """The error's text, GDAL's own where rasterio refers to it, without line breaks or the file's name in front."""
    while isinstance(error, RasterioError) and error.__cause__ is not None:
        error = error.__cause__
    text = " ".join(str(error).split()) or type(error).__name__
    for name in () if path is None else (str(path), path.name):
        text = text.removeprefix(name).lstrip(":, ")
    return text


def map_crs(ds: DatasetReader) -> CRS | None:
    """The dataset's CRS; None for the "Arbitrary" one that GDAL makes of an ENVI map info without a projection."""
    local = ds.crs is not None and ds.crs.to_wkt().startswith(("LOCAL_CS", "ENGCRS", "ENGINEERINGCRS"))
    return None if local else ds.crs


def map_transform(ds: DatasetReader, pair: EnviPair | None) -> Affine:
    """The dataset's transform, with the origin of a rotated ENVI image put right.

    GDAL goes from the reference pixel of `map info` to the first pixel along the map's axes, which misses it when the
    image is rotated and the reference pixel isn't (1, 1).
    """
    t, info = ds.transform, pair.items("map info") if pair is not None else []
    if len(info) < 7 or (t.b == 0 and t.d == 0):
        return t
    try:
        sample, line, x, y = (float(item) for item in info[1:5])
    except ValueError:
        return t
    if not all(map(isfinite, (sample, line, x, y))):
        return t
    at = t @ (sample - 1, line - 1)
    return Affine.translation(x - at[0], y - at[1]) @ t


def bands_and_mask(ds: DatasetReader, note: Callable[[str], None]) -> tuple[list[int], bool]:
    """The bands (1-based) that are measurements, and whether the file has a mask of its own.

    GDAL marks the fourth of four uint8 bands as alpha without being told so: it is a mask only if it looks like one.
    """
    alpha = [b for b in ds.indexes if ds.colorinterp[b - 1] == ColorInterp.alpha]
    masked = any(MaskFlags.per_dataset in flags for flags in ds.mask_flag_enums)
    if not alpha or len(alpha) == ds.count:
        return list(ds.indexes), masked
    if not all(_looks_like_mask(ds, band) for band in alpha):
        note(f"band {alpha[0]} is marked as alpha but isn't a mask of 0 and 255; it is used as a band")
        return list(ds.indexes), False
    note("the alpha band is used as a mask, not as a band")
    return [b for b in ds.indexes if b not in alpha], masked


def _looks_like_mask(ds: DatasetReader, band: int) -> bool:
    """Nothing but 0 and the largest value, in at most 1024 x 1024 pixels of the band."""
    try:
        with gdal_env():
            values = np.unique(ds.read(band, out_shape=(min(ds.height, 1024), min(ds.width, 1024))))
    except RasterioError as error:
        raise InputError(f"{ds.name} can't be read: {one_line(error, Path(ds.name))}") from error
    largest = np.iinfo(values.dtype).max if values.dtype.kind in "iu" else 1
    return set(values.tolist()) <= {0, largest}


def common_dtype(path: Path, names: list[str]) -> str:
    """The one numpy type that holds all bands; InputError for complex numbers."""
    dtype = np.result_type(*names)
    if np.issubdtype(dtype, np.complexfloating):
        raise InputError(f"{path} holds complex numbers; wanted real ones")
    return dtype.name

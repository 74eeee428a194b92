"""GDAL with a bounded cache, files opened with one-line errors."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
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

from hsfuse.errors import InputError
from hsfuse.io.envi import EnviPair, find_pair

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

"""ENVI's format, to which pixels go window by window: raw numbers in one file, a header beside it."""

from __future__ import annotations

import os
from math import prod
from urllib.parse import quote

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.windows import Window

from hsfuse.errors import OutputError, SettingError
from hsfuse.io.gdal import gdal_env
from hsfuse.io.sinks import Product
from hsfuse.io.spectral_tags import dataset_tags, description

#: What stays as it is in an ENVI header's `hsfuse ...` fields; the reader undoes the percent signs.
HEADER_SAFE = "".join(chr(c) for c in range(32, 127) if chr(c) not in "%{}")


class EnviSink:
    """Band-sequential little-endian data, written straight to the file, and a header that GDAL makes.

    GDAL's own raw writer reads and writes whole lines for each window and can lose a full disk's error in its cache.
    """

    def __init__(self, product: Product) -> None:
        self._path, self._shape = product.files[0], (product.bands, *product.grid.shape)
        self._type = np.dtype(product.encoding.dtype).newbyteorder("<")
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
    (data, header), encoding, bands = product.files, product.encoding, product.bands
    fields = dataset_tags(product.spectrum) | {
        key.lower(): quote(value, safe=HEADER_SAFE) for key, value in product.tags.items()
    }
    if encoding.scale != 1 and encoding.offset == 0:
        fields["reflectance_scale_factor"] = f"{1 / encoding.scale:.12g}"
    with gdal_env(GDAL_PAM_ENABLED="NO"):
        with rasterio.open(data, "w", driver="ENVI", interleave="bsq", **product.profile()) as ds:
            ds.update_tags(ns="ENVI", **fields)
            ds.descriptions = [_plain(description(product.spectrum, b)).replace(",", ";") for b in range(bands)]
            if encoding.offset != 0:
                ds.scales, ds.offsets = [encoding.scale] * bands, [encoding.offset] * bands
        with rasterio.open(data, driver="ENVI") as ds:
            kept = ds.transform
    # GDAL describes the file by its path, which is the temporary one.
    header.write_text(header.read_text(encoding="utf-8").replace(str(data), "hsfuse"), encoding="utf-8")
    wanted = product.grid.transform
    if not kept.almost_equals(wanted, precision=1e-9 * max(map(abs, wanted[:6]))):
        raise SettingError("an ENVI header can't hold a sheared georeference; write GeoTIFF instead")


def _plain(text: str) -> str:
    """One line without the characters that end a header value."""
    return " ".join(text.split()).replace("{", "(").replace("}", ")")

"""GeoTIFF, to which pixels go window by window in memory that doesn't grow with the scene, and what any sink is."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.enums import Resampling
from rasterio.windows import Window

from hsfuse.cube import Spectrum
from hsfuse.errors import OutputError
from hsfuse.grid import Grid
from hsfuse.io.encode import Encoding
from hsfuse.io.gdal import gdal_env
from hsfuse.io.spectral_tags import band_tags, dataset_tags, description, imagery_tags

#: GTiff tiles. Each band has its own (INTERLEAVE=BAND): a window of all bands completes whole tiles and none waits in
#: memory, where pixel interleave would make one block of 256 x 256 x bands, 58 MB at 224 bands of float32. Deflate
#: level 1 writes twice as fast as level 6 for 2% more bytes on noisy float32.
TILE = 256


@dataclass(frozen=True)
class Product:
    """What is written where: `files` (data, and for ENVI the header), `bands` on `grid`, encoding, dataset tags.

    `options` are GDAL's creation options for GeoTIFF and COG; `overviews` are for GeoTIFF, a COG always has some.
    """

    files: tuple[Path, ...]
    grid: Grid
    spectrum: Spectrum
    bands: int
    encoding: Encoding
    tags: Mapping[str, str]
    block: int = TILE
    options: Mapping[str, str] = field(default_factory=dict)
    overviews: bool = False

    def profile(self) -> dict[str, object]:
        """What rasterio needs to create either format."""
        (height, width), encoding = self.grid.shape, self.encoding
        pixels = {"dtype": encoding.dtype, "nodata": encoding.nodata, "count": self.bands}
        return pixels | {"height": height, "width": width, "crs": self.grid.crs, "transform": self.grid.transform}


class Sink(Protocol):
    """Where raw numbers go; every method may raise OSError or RasterioError."""

    def write(self, raw: NDArray, window: Window) -> None:
        """Write raw numbers (C, h, w) to a window."""

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
        else:
            self._create(product)

    def _open_again(self) -> None:
        with gdal_env(GDAL_PAM_ENABLED="NO"):
            self._ds = rasterio.open(self._path, "r+")

    def flush(self) -> None:
        """Have a whole file on the disk, to which more can be written."""
        self.close()
        self._open_again()

    def _create(self, product: Product) -> None:
        tiles = {
            "tiled": True,
            "blockxsize": product.block,
            "blockysize": product.block,
            "interleave": "band",
            "bigtiff": "if_safer",
        }
        packing = packing_of(product)
        if packing:
            packing["zlevel"] = 1
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
        return self._product.options

    def _describe(self, product: Product) -> None:
        ds, spectrum, encoding = self._ds, product.spectrum, product.encoding
        ds.update_tags(**product.tags, **dataset_tags(spectrum))
        if encoding.scale != 1 or encoding.offset != 0:
            ds.scales, ds.offsets = [encoding.scale] * product.bands, [encoding.offset] * product.bands
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

    def close(self) -> None:
        """Flush and close."""
        with gdal_env(GDAL_PAM_ENABLED="NO"):
            self._ds.close()

    def verify(self) -> None:
        """Look whether each tile lies inside the file: GDAL may only log a failed flush."""
        size = self._path.stat().st_size
        with gdal_env(), rasterio.open(self._path) as ds:
            for band in ds.indexes:
                for (row, col), _ in ds.block_windows(band):
                    at, length = (
                        int(ds.get_tag_item(f"BLOCK_{what}_{col}_{row}", "TIFF", bidx=band) or 0)
                        for what in ("OFFSET", "SIZE")
                    )
                    if at == 0 or length == 0 or at + length > size:
                        raise OutputError(f"band {band} is incomplete at tile row {row}, column {col}")
        if self._product.overviews:
            self._add_overviews()

    def _add_overviews(self) -> None:
        factors = [2**n for n in range(1, 12) if max(self._product.grid.shape) // 2**n >= TILE // 2]
        with gdal_env(GDAL_PAM_ENABLED="NO"), rasterio.open(self._path, "r+") as ds:
            ds.build_overviews(factors, Resampling.average)


def packing_of(product: Product) -> dict[str, object]:
    """Lossless compression, with the predictor that fits the type; none where other compression is asked for."""
    if "compress" in product.options:
        return {}
    return {"compress": "deflate", "predictor": 3 if np.dtype(product.encoding.dtype).kind == "f" else 2}

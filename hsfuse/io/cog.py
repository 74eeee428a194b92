"""Cloud optimised GeoTIFF."""

from __future__ import annotations

import os
from collections.abc import Mapping

import rasterio.shutil

from hsfuse.io.gdal import gdal_env
from hsfuse.io.sinks import GeoTiffSink, packing_of

#: Side of a COG's blocks, which GDAL before 3.11 can only write with all bands in each.
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
        if "predictor" in defaults:
            defaults["predictor"] = "yes"
        try:
            with gdal_env(GDAL_PAM_ENABLED="NO"):
                rasterio.shutil.copy(
                    self._path,
                    copy,
                    driver="COG",
                    **{**defaults, **self._product.options},
                )
            os.replace(copy, self._path)
        finally:
            copy.unlink(missing_ok=True)

    def _add_overviews(self) -> None:
        """The copy makes them."""

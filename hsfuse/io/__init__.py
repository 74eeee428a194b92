"""Raster input and output: the only place that touches pixels on disk.

Names are imported when first used, so that what only looks at paths (`hsfuse.io.files`) doesn't load GDAL.
"""

from typing import TYPE_CHECKING

from hsfuse.core.package import when_used

if TYPE_CHECKING:
    from hsfuse.io.files import check_output, driver_of, kept_method, output_files, split_paths
    from hsfuse.io.layers import LayeredReader
    from hsfuse.io.open import Images, open_cube, open_hsi
    from hsfuse.io.reader import (
        CubeReader,
        Paths,
        band_contents,
        check_valid,
        constant_bands,
        usable_bands,
        valid_anywhere,
    )
    from hsfuse.io.sinks import DTYPES, TILE, Storage
    from hsfuse.io.spectral_tags import read_provenance
    from hsfuse.io.writer import CubeWriter, publish, try_writing

#: Module -> the names that it gives.
_FROM = {
    "files": ("check_output", "driver_of", "kept_method", "output_files", "split_paths"),
    "layers": ("LayeredReader",),
    "open": ("Images", "open_cube", "open_hsi"),
    "reader": (
        "CubeReader",
        "Paths",
        "band_contents",
        "check_valid",
        "constant_bands",
        "usable_bands",
        "valid_anywhere",
    ),
    "sinks": ("DTYPES", "TILE", "Storage"),
    "spectral_tags": ("read_provenance",),
    "writer": ("CubeWriter", "publish", "try_writing"),
}
__getattr__ = when_used("hsfuse.io", _FROM)

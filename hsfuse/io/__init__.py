"""Raster input and output: the only place that touches pixels on disk."""

from hsfuse.io.files import check_output, driver_of, output_files
from hsfuse.io.layers import LayeredReader
from hsfuse.io.open import Paths, open_cube, split_paths
from hsfuse.io.reader import CubeReader, check_valid, usable_bands
from hsfuse.io.sinks import DTYPES, TILE
from hsfuse.io.spectral_tags import read_provenance
from hsfuse.io.writer import CubeWriter, kept_network, publish, try_writing

__all__ = [
    "DTYPES",
    "TILE",
    "CubeReader",
    "CubeWriter",
    "LayeredReader",
    "Paths",
    "check_output",
    "check_valid",
    "driver_of",
    "kept_network",
    "open_cube",
    "output_files",
    "publish",
    "read_provenance",
    "split_paths",
    "try_writing",
    "usable_bands",
]

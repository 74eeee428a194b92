"""Raster input and output: the only place that touches pixels on disk."""

from hsfuse.io.checks import check_valid, usable_bands
from hsfuse.io.encode import DTYPES
from hsfuse.io.journal import kept_network
from hsfuse.io.layers import LayeredReader
from hsfuse.io.opening import Paths, open_cube, split_paths
from hsfuse.io.outputs import check_output, driver_of, output_files
from hsfuse.io.provenance import read_provenance
from hsfuse.io.reader import CubeReader
from hsfuse.io.sinks import TILE
from hsfuse.io.writer import CubeWriter, publish, try_writing

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

"""AVIRIS-NG, AVIRIS-3 and HySpex scenes in ENVI format, orthorectified by the lookup table (GLT) beside them.

An image with map info, rotated or not, is on a map already and is read as it is. One without it is brought onto the
map grid of the `*_glt` file of the same scene (AVIRIS-NG Data Product Readme: *_rdn_*_img, *_rfl_*_img, *_glt; ENVI
documentation on map info and GLT files). Names of AVIRIS scenes say what the values are and when they were taken.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rasterio.windows import Window

from hsfuse.core.cube import BoolArray
from hsfuse.core.errors import InputError
from hsfuse.core.grid import Grid
from hsfuse.io.envi import header_of, read_header
from hsfuse.io.products.bundle import one_of
from hsfuse.io.products.metadata import iso_time
from hsfuse.io.products.ortho import gather, read_lookup
from hsfuse.io.raster import RasterReader
from hsfuse.io.reader import Quantity, Role

_AVIRIS = re.compile(r"(?:ang|AV3)(?P<time>\d{8}t\d{6}).*?_(?P<kind>rdn|rfl|corr)(?:_|\.|$)", re.IGNORECASE)
_NOT_A_CUBE = re.compile(r"_(glt|igm|loc|obs|h2o|unc|mask)(_|\.|$)", re.IGNORECASE)
_QUANTITIES: dict[str, Quantity] = {"rdn": "radiance", "rfl": "reflectance", "corr": "reflectance"}
_GLT = re.compile(r"(?P<base>.*)[_-]glt(\.\w+)?\.hdr$", re.IGNORECASE)


def recognises(path: Path) -> bool:
    """An AVIRIS cube or a folder with one, or an ENVI image without map info that has a lookup table beside it."""
    if path.is_dir():
        return bool(_cubes(path))
    if not path.is_file() or _NOT_A_CUBE.search(path.name):
        return False
    header = _header(path)
    return header is not None and (_AVIRIS.match(path.name) is not None or _lookup_table(header) is not None)


def open_product(path: Path, role: Role) -> RasterReader:
    """The cube (C, H, W) on its map grid; InputError for what is missing or broken."""
    if path.is_dir():
        path = one_of(path, _cubes(path), "AVIRIS cubes")
    header = _header(path)
    table = None if header is None else _lookup_table(header)
    reader = RasterReader(path, role) if table is None else GltReader(path, role, table)
    if match := _AVIRIS.match(path.name):
        reader.quantity = _QUANTITIES[match["kind"].lower()]
        reader.tag(product=f"AVIRIS {reader.quantity}, {path.stem}", acquired=iso_time(match["time"].upper()))
    return reader


class GltReader(RasterReader):
    """An ENVI image in sensor geometry, brought onto the map grid of its lookup table as windows are read."""

    def __init__(self, path: Path, role: Role, table: Path) -> None:
        self._table: RasterReader | None = None
        super().__init__(path, role)
        try:
            self._sensor = self.grid.shape
            self._table = RasterReader(table)
            self.grid = self._map_grid(self._table)
        except BaseException:
            self.close()
            raise
        self.files = (*self.files, *self._table.files)
        self.notes = [one for one in self.notes if one.code != "not-georeferenced"]
        self._note(f"orthorectified by {table.name}")

    def _map_grid(self, table: RasterReader) -> Grid:
        if table.count != 2:
            raise InputError(f"{table.path} has {table.count} bands; a lookup table has two, samples and lines")
        if not table.grid.georeferenced:
            raise InputError(f"{table.path} has no map info; wanted the map grid of the lookup table there")
        return table.grid

    def pixels(
        self, bands: Sequence[int], window: Window, shape: tuple[int, int] | None = None
    ) -> tuple[NDArray, BoolArray | None]:
        """As of any reader."""
        assert self._table is not None
        (samples, lines), _ = self._table.pixels([0, 1], window, shape)
        lookup = read_lookup(samples, lines, self._sensor, self._table.path)

        def read(rows: slice, cols: slice) -> NDArray:
            part = Window(cols.start, rows.start, cols.stop - cols.start, rows.stop - rows.start)
            return super(GltReader, self).pixels(bands, part)[0]

        nodata = self.nodata_values[bands[0]]
        blank = 0 if nodata is None or not _fits(nodata, self.dtype) else nodata
        return gather(lookup, read, len(bands), self.dtype, blank), lookup.found

    def close(self) -> None:
        """Close both files."""
        super().close()
        if self._table is not None:
            self._table.close()


def _fits(value: float, dtype: str) -> bool:
    if np.dtype(dtype).kind == "f":
        return True
    return value.is_integer() and np.iinfo(dtype).min <= value <= np.iinfo(dtype).max


def _cubes(folder: Path) -> list[Path]:
    headers = [file for file in sorted(folder.glob("*")) if file.suffix.lower() == ".hdr"]
    return [h for h in headers if _AVIRIS.match(h.name) and not _NOT_A_CUBE.search(h.name)]


def _header(path: Path) -> Path | None:
    """The ENVI header of a header or data file."""
    return path if path.suffix.lower() == ".hdr" else header_of(path)


def _lookup_table(header: Path) -> Path | None:
    """The header of the scene's lookup table, for an image that isn't on a map; None when there is none.

    The names share what stands before the first "_"; of several tables the one with the longest common beginning.
    """
    try:
        fields = read_header(header)
    except (InputError, OSError):
        return None
    if fields.get("map info", "Arbitrary").lstrip().lower().startswith("arbitrary"):
        scene = header.name.split("_")[0]
        tables = [t for t in header.parent.glob("*") if (m := _GLT.match(t.name)) and m["base"].split("_")[0] == scene]
        return max(sorted(tables), key=lambda table: _shared(table.name, header.name), default=None)
    return None


def _shared(one: str, other: str) -> int:
    """Letters two names begin with in common."""
    return next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))

"""Satellite products as agencies deliver them, each in a module that recognises and opens it.

A module has `recognises(path) -> bool`, which looks at names and a few bytes only, and `open_product(path, role) ->
CubeReader`, which raises InputError in one line for what is missing or broken. Adding a product is a file and a line.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

from hsfuse.io.reader import CubeReader, Role

#: Product -> module, in the order in which they are asked.
PRODUCTS: dict[str, str] = {
    "Zarr": "hsfuse.io.zarr_store",
    "Sentinel-2": "hsfuse.io.products.sentinel2",
    "Landsat Collection 2": "hsfuse.io.products.landsat",
    "PlanetScope": "hsfuse.io.products.planet",
    "WorldView, GeoEye, QuickBird": "hsfuse.io.products.maxar",
    "EnMAP": "hsfuse.io.products.enmap",
    "DESIS": "hsfuse.io.products.desis",
    "PRISMA": "hsfuse.io.products.prisma",
    "EMIT": "hsfuse.io.products.emit",
    "Gaofen-5": "hsfuse.io.products.gaofen",
    "AVIRIS, HySpex": "hsfuse.io.products.airborne",
}


def open_product(path: Path, role: Role) -> CubeReader | None:
    """The product at a folder, metadata file or data file; None when it is none of those known."""
    for module in map(import_module, PRODUCTS.values()):
        if module.recognises(path):
            reader: CubeReader = module.open_product(path, role)
            return reader
    return None

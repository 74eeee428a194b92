"""DESIS L2A (surface reflectance) and L1C (radiance): GeoTIFF with METADATA.xml and quality layers.

Files, band facts and the order of the quality layers after the DESIS Products Specification Document (PAV-DLR-TN-009,
L2A: SPECTRAL_IMAGE, QL_QUALITY-2 with ten bands, METADATA).
"""

from __future__ import annotations

import re
from pathlib import Path

from hsfuse.core.notes import Note
from hsfuse.io.layers import LayeredReader
from hsfuse.io.products.bundle import RASTERS, ProductFiles
from hsfuse.io.products.dlr import Flag, Layers, Mission
from hsfuse.io.reader import Role

#: Bands of QL_QUALITY-2 (0-based) that mask a pixel. Not masking: land (1), snow (2), water (7); aerosol and water
#: vapour (8, 9) are no flags.
MASKING = {0: "shadow", 3: "haze over land", 4: "haze over water", 5: "cloud over land", 6: "cloud over water"}

_FILE = re.compile(
    r"(?P<name>DESIS-HSI-(?P<level>L\d[A-Z])-.+?)-(?P<part>(?:METADATA|SPECTRAL_IMAGE|QL_).*)$", re.IGNORECASE
)
_NAMES = ("band", "wavelengthCenterOfBand", "wavelengthWidthOfBand", "gainOfBand", "offsetOfBand")
_ENTRIES = r"METADATA\.xml$|SPECTRAL_IMAGE(_COG)?\.(tiff?|hdr)$"
_DESIS = Mission("DESIS", _FILE, _ENTRIES, _NAMES, "which isn't orthorectified")


def recognises(path: Path) -> bool:
    """A folder or archive with DESIS-HSI-L2A-* files, or that product's METADATA.xml or SPECTRAL_IMAGE."""
    return _DESIS.recognises(path)


def open_product(path: Path, role: Role) -> LayeredReader:
    """The product's bands (235, H, W), masked by QL_QUALITY-2; InputError for what is missing or broken."""
    return _DESIS.open(path, role, _quality)


def _quality(files: ProductFiles) -> tuple[Layers, str | None]:
    quality = files.find("QL_QUALITY-2", RASTERS)
    if quality is None:
        return {}, "QL_QUALITY-2; clouds, haze and shadow aren't masked"
    return {quality: [(band, Flag(0xFF), what) for band, what in MASKING.items()]}, None


def note_alone(path: Path) -> Note | None:
    """What to say of a DESIS image without its metadata, read as a raster."""
    return _DESIS.note_alone(path)

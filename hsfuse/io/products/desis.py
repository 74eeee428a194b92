"""DESIS L2A (surface reflectance) and L1C (radiance): GeoTIFF with METADATA.xml and quality layers.

Files, band facts and the order of the quality layers after the DESIS Products Specification Document (PAV-DLR-TN-009,
L2A: SPECTRAL_IMAGE, QL_QUALITY-2 with ten bands, METADATA).
"""

from __future__ import annotations

import re
from pathlib import Path

from hsfuse.errors import InputError
from hsfuse.io.layers import LayeredReader
from hsfuse.io.products.dlr import BandNames, Flag, assemble, band_facts, read_metadata
from hsfuse.io.products.parts import RASTERS, find_product, holds
from hsfuse.io.reader import Role

#: Bands of QL_QUALITY-2 (0-based) that mask a pixel. Not masking: land (1), snow (2), water (7); aerosol and water
#: vapour (8, 9) are no flags.
MASKING = {0: "shadow", 3: "haze over land", 4: "haze over water", 5: "cloud over land", 6: "cloud over water"}

QUANTITIES = {"L2A": "reflectance", "L1C": "radiance"}

_NAMES = BandNames("band", "wavelengthCenterOfBand", "wavelengthWidthOfBand", "gainOfBand", "offsetOfBand")
_FILE = re.compile(
    r"(?P<name>DESIS-HSI-(?P<level>L\d[A-Z])-.+?)-(?P<part>(?:METADATA|SPECTRAL_IMAGE|QL_).*)$", re.IGNORECASE
)
_ENTRIES = r"METADATA\.xml$|SPECTRAL_IMAGE(_COG)?\.(tiff?|hdr)$"


def recognises(path: Path) -> bool:
    """A folder or archive with DESIS-HSI-L2A-* files, or that product's METADATA.xml or SPECTRAL_IMAGE."""
    return holds(path, _FILE, _ENTRIES)


def open_product(path: Path, role: Role) -> LayeredReader:
    """The product's bands (235, H, W), masked by QL_QUALITY-2; InputError for what is missing or broken."""
    files = find_product(path, _FILE, "DESIS")
    level = _FILE.match(f"{files.name}-METADATA.xml")["level"].upper()  # type: ignore[index]
    if level not in QUANTITIES:
        raise InputError(f"{files.name} is DESIS {level}, which isn't orthorectified; wanted L2A or L1C")
    metadata = read_metadata(files)
    image = files.get("SPECTRAL_IMAGE", RASTERS)
    quality = files.find("QL_QUALITY-2", RASTERS)
    layers = {} if quality is None else {quality: [(band, Flag(0xFF), what) for band, what in MASKING.items()]}
    reader = assemble(path, role, image, metadata, band_facts(*metadata, _NAMES), layers)
    reader.quantity = QUANTITIES[level]  # type: ignore[assignment]
    reader.tags["PRODUCT"] = f"DESIS {level}, {files.name}"
    if quality is None:
        reader.notes.append(f"{files.name}: lacks QL_QUALITY-2; clouds, haze and shadow aren't masked")
    return reader

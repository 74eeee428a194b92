"""EnMAP L2A (surface reflectance) and L1C (radiance): orthorectified image with METADATA.XML and quality layers.

Files, band facts and codes of the quality layers after the EnMAP HSI Product Specification, Level 1B, 1C, 2A
(EN-PCV-ICD-2009-2); GeoTIFF, cloud-optimised (_COG) and ENVI deliveries. Bands stay as delivered: 91 of the VNIR, then
133 of the SWIR, whose first ones repeat the range of the VNIR.
"""

from __future__ import annotations

import re
from pathlib import Path

from hsfuse.errors import InputError
from hsfuse.io.layers import LayeredReader
from hsfuse.io.products.dlr import BandNames, Flag, assemble, band_facts, read_metadata
from hsfuse.io.products.parts import RASTERS, find_product, holds
from hsfuse.io.reader import Role

#: Quality layer -> what of it masks a pixel: background, cloud, cloud shadow, haze, medium and thick cirrus, pixels
#: saturated in either detector. Snow, water and thin cirrus stay; so do defective pixels (QL_PIXELMASK), which the
#: processor has interpolated.
MASKING = {
    "QL_QUALITY_CLASSES": (Flag(0b11, (3,)), "background"),
    "QL_QUALITY_CLOUD": (Flag(1), "cloud"),
    "QL_QUALITY_CLOUDSHADOW": (Flag(1), "cloud shadow"),
    "QL_QUALITY_HAZE": (Flag(1), "haze"),
    "QL_QUALITY_CIRRUS": (Flag(0b11, (2, 3)), "medium or thick cirrus"),
    "QL_QUALITY_TESTFLAGS": (Flag(0b110000), "saturated"),
}

QUANTITIES = {"L2A": "reflectance", "L1C": "radiance"}

_NAMES = BandNames("bandID", "wavelengthCenterOfBand", "FWHMOfBand", "GainOfBand", "OffsetOfBand")
_FILE = re.compile(
    r"(?P<name>ENMAP\d\d-_*(?P<level>L\d[A-Z])-.+?)-(?P<part>(?:METADATA|SPECTRAL_IMAGE|QL_).*)$", re.IGNORECASE
)
_ENTRIES = r"METADATA\.XML$|SPECTRAL_IMAGE(_\w+)?\.(tiff?|bsq|bil|bip|hdr)$"


def recognises(path: Path) -> bool:
    """A folder or archive with ENMAP01-____L2A-* files, or that product's METADATA.XML or SPECTRAL_IMAGE."""
    return holds(path, _FILE, _ENTRIES)


def open_product(path: Path, role: Role) -> LayeredReader:
    """The product's bands (224, H, W), masked by its quality layers; InputError for what is missing or broken."""
    files = find_product(path, _FILE, "EnMAP")
    level = _FILE.match(f"{files.name}-METADATA.XML")["level"].upper()  # type: ignore[index]
    if level not in QUANTITIES:
        raise InputError(f"{files.name} is EnMAP {level}, whose detectors aren't on one grid; wanted L2A or L1C")
    metadata = read_metadata(files)
    image = files.get("SPECTRAL_IMAGE", RASTERS)
    found = {name: file for name in MASKING if (file := files.find(name, RASTERS)) is not None}
    layers = {file: [(0, *MASKING[name])] for name, file in found.items()}
    bands = band_facts(*metadata, _NAMES)
    reader = assemble(path, role, image, metadata, bands, layers)
    reader.quantity = QUANTITIES[level]  # type: ignore[assignment]
    reader.tags["PRODUCT"] = f"EnMAP {level}, {files.name}"
    if missing := [name for name in MASKING if name not in found]:
        reader.notes.append(f"{files.name}: lacks {', '.join(missing)}; what they would mask stays")
    _tell_overlap(reader)
    return reader


def _tell_overlap(reader: LayeredReader) -> None:
    centres = reader.spectrum.wavelengths_nm or ()
    turn = next((i for i in range(1, len(centres)) if centres[i] < centres[i - 1]), None)
    if turn is not None:
        last = max(i for i in range(turn, len(centres)) if centres[i] <= centres[turn - 1])
        reader.notes.append(
            f"{reader.path.name}: bands {turn + 1} to {last + 1} of the SWIR repeat the range of the VNIR, "
            f"{centres[turn]:g} to {centres[turn - 1]:g} nm; both are kept"
        )

"""EnMAP L2A (surface reflectance) and L1C (radiance): orthorectified image with METADATA.XML and quality layers.

Files, band facts and codes of the quality layers after the EnMAP HSI Product Specification, Level 1B, 1C, 2A
(EN-PCV-ICD-2009-2); GeoTIFF, cloud-optimised (_COG) and ENVI deliveries. Bands stay as delivered: 91 of the VNIR, then
133 of the SWIR, whose first ones repeat the range of the VNIR.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

from hsfuse.core.errors import InputError
from hsfuse.core.notes import Note, about_file
from hsfuse.io.layers import LayeredReader
from hsfuse.io.products.bundle import RASTERS, ProductFiles, is_archive, listing
from hsfuse.io.products.dlr import BandNames, Flag, Layers, Mission
from hsfuse.io.products.enmap_bands import NOMINAL
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

_FILE = re.compile(
    r"(?P<name>ENMAP\d\d-_*(?P<level>L\d[A-Z])-.+?)-(?P<part>(?:METADATA|SPECTRAL_IMAGE|QL_).*)$", re.IGNORECASE
)
#: The same files without the scene's name before them, as some tools unpack them; the level is in the metadata.
_BARE = re.compile(r"(?P<name>)(?P<part>(?:METADATA|SPECTRAL_IMAGE|QL_).*)$", re.IGNORECASE)
_NAMES = BandNames("bandID", "wavelengthCenterOfBand", "FWHMOfBand", "GainOfBand", "OffsetOfBand")
_ENTRIES = r"METADATA\.XML$|SPECTRAL_IMAGE(_\w+)?\.(tiff?|bsq|bil|bip|hdr)$"
_ENMAP = Mission("EnMAP", _FILE, _ENTRIES, _NAMES, "whose detectors aren't on one grid", NOMINAL)


def recognises(path: Path) -> bool:
    """A folder or archive with ENMAP01-____L2A-* files, or that product's METADATA.XML or SPECTRAL_IMAGE.

    Both names may lack the scene's before them. An image alone, without its metadata, is one when it is L2A, tells
    nothing of its bands and has as many as EnMAP, as those of HySpecNet-11k; else it is read as a raster.
    """
    return _ENMAP.recognises(path) or _is_bare(path)


def _is_bare(path: Path) -> bool:
    if path.is_file() and not is_archive(path) and re.match(_ENTRIES, path.name, re.IGNORECASE) is None:
        return False
    try:
        names = {file.name.upper() for file in listing(path)}
    except InputError:  # the archive can't be read: whoever opens it tells
        return False
    return "METADATA.XML" in names and any(name.startswith("SPECTRAL_IMAGE.") for name in names)


def open_product(path: Path, role: Role) -> LayeredReader:
    """The product's bands (224, H, W), masked by its quality layers; InputError for what is missing or broken."""
    bare = not _ENMAP.recognises(path)
    reader = (replace(_ENMAP, files=_BARE) if bare else _ENMAP).open(path, role, _quality)
    _tell_overlap(reader)
    return reader


def _quality(files: ProductFiles) -> tuple[Layers, str | None]:
    found = {name: file for name in MASKING if (file := files.find(name, RASTERS)) is not None}
    missing = ", ".join(name for name in MASKING if name not in found)
    layers = {file: [(0, *MASKING[name])] for name, file in found.items()}
    return layers, f"{missing}; what they would mask stays" if missing else None


def _tell_overlap(reader: LayeredReader) -> None:
    centres = reader.spectrum.wavelengths_nm or ()
    turn = next((i for i in range(1, len(centres)) if centres[i] < centres[i - 1]), None)
    if turn is not None:
        last = max(i for i in range(turn, len(centres)) if centres[i] <= centres[turn - 1])
        text = (
            f"bands {turn + 1} to {last + 1} of the SWIR repeat the range of the VNIR, "
            f"{centres[turn]:g} to {centres[turn - 1]:g} nm; both are kept"
        )
        reader.notes.append(about_file(reader.path.name, text))


def note_alone(path: Path) -> Note | None:
    """What to say of an EnMAP image without its metadata, read as a raster."""
    return _ENMAP.note_alone(path)

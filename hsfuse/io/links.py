"""Rasters that are lists of other files, and how far such a list may lead.

What a person names may be a VRT of plain local files, wherever they lie: that is how bands in sibling folders are put
together. Whatever else GDAL opens as a list of places (network services, tile indices), a VRT that leads to one, into
an archive or to code, and any list in the place of a product's part are refused before GDAL has seen them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from xml.etree.ElementTree import Element

from hsfuse.core.errors import InputError
from hsfuse.io.limits import MOST_XML
from hsfuse.io.products.metadata import plain_name, read_xml

#: GDAL's formats whose files hold their pixels themselves; parts of products come in no other.
PLAIN_DRIVERS = ("GTiff", "ENVI", "JP2OpenJPEG", "JP2KAK", "JP2ECW", "JP2MrSID", "JPEG", "PNG", "HFA")
#: Files that a VRT may name in all, and VRTs of VRTs.
MOST_SOURCES, DEEPEST_VRT = 50_000, 4
#: Elements of a VRT that hold a place, whose text is a place by its name, and code.
_PLACES = re.compile(r".*(Filename|Dataset|Path)$")
_CODE = ("PixelFunctionCode", "PixelFunctionLanguage")
_ELSEWHERE = re.compile(r"/vsi|\w\w+://|^\s*[<{]")
#: What GDAL knows lists of places by, anywhere in their first bytes; how XML and JSON begin; and bytes of no text.
_LIST = re.compile(rb"<VRTDataset|<GDAL_W|<W[A-Z]+_|<Capabilities|<GDALTileIndex|<MRF_META|\"stac_version\"")
_TEXT = re.compile(rb"(?:\xef\xbb\xbf)?\s*(?:<[A-Za-z?!]|\{\s*[\"}])")
_NO_TEXT = re.compile(rb"[\0-\x08\x0e-\x1f]")
#: Parts of local files that GDAL names by a word before the file's path.
_PART = re.compile(r"(?:NETCDF|HDF5|GTIFF_DIR:\d+):\"?(?P<file>[^\":]+)\"?(?::.*)?$")


def holder(path: Path) -> Path | None:
    """The local file that holds what GDAL is asked for: itself, or the container or archive that it is a part of."""
    if path.is_file():
        return path
    part, inside = _PART.match(str(path)), re.match(r"/vsi\w+/(?:\{(.+)\}/.*|(.+))", str(path))
    places = [Path(part["file"])] if part else []
    if inside is not None:
        named = Path(inside[1] or inside[2])
        places += [place for base in (named, Path("/") / named) for place in (base, *base.parents)]
    return next((place for place in places if place.is_file()), None)


def check_links(path: Path) -> int:
    """The bytes of a file that a person names, or of all that it leads to when it is a VRT.

    InputError when it is a list of anything but plain local files.
    """
    check_beside(path)
    return _bytes(path, [MOST_SOURCES], 0)


def check_beside(path: Path) -> int:
    """The bytes of a file; InputError when a mask, overviews or metadata beside it would lead GDAL elsewhere."""
    for beside in (f"{path}.ovr", f"{path}.msk"):
        if Path(beside).is_file() and _is_text(Path(beside)):
            raise InputError(f"{beside} is no raster but text, and would lead GDAL elsewhere; remove it")
    for aux in {Path(f"{path}.aux.xml"), path.with_suffix(".aux.xml")}:
        _check_aux(aux)
    return path.stat().st_size


def _check_aux(path: Path) -> None:
    if not path.is_file():
        return
    if path.stat().st_size > MOST_XML:
        raise InputError(f"{path} has {path.stat().st_size} bytes, which no file of its kind has; remove it")
    if b"OVERVIEW_FILE" in path.read_bytes():
        raise InputError(f"{path} says that overviews lie elsewhere (OVERVIEW_FILE); remove it")


def _bytes(path: Path, left: list[int], depth: int) -> int:
    if ".gti." in path.name.lower():
        raise InputError(f"{path} is an index of tiles, no raster; name the raster itself, or a VRT of the tiles")
    if not _is_text(path):
        return path.stat().st_size
    if b"<VRTDataset" not in _start(path):
        raise InputError(f"{path} is text that names places of pixels, no raster; name the raster itself")
    if depth > DEEPEST_VRT:
        raise InputError(f"{path} is a VRT of VRTs, more than {DEEPEST_VRT} deep; name the raster itself")
    total = path.stat().st_size
    for source in set(_sources(path, read_xml(path))):
        left[0] -= 1
        if left[0] < 0:
            raise InputError(f"{path} names more than {MOST_SOURCES} files; it isn't opened")
        total += _bytes(source, left, depth + 1)
    return total


def _is_text(path: Path) -> bool:
    """Whether a file begins as XML or JSON do, in which no format keeps pixels, or has what GDAL knows lists by."""
    start = _start(path)
    return bool(_LIST.search(start)) or (bool(_TEXT.match(start)) and not _NO_TEXT.search(start[:64]))


def _start(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(1024)


def _sources(vrt: Path, root: Element) -> Iterator[Path]:
    """The files that a VRT names; InputError for one that is no plain local file, and for code."""
    for element in root.iter():
        name, text = plain_name(element), (element.text or "").strip()
        if name in _CODE or element.get("key") == "OVERVIEW_FILE":
            raise InputError(f"{vrt} holds {element.get('key') or name}, which isn't run or followed")
        given = text if _PLACES.match(name) or element.get("name", "").endswith("filename") else ""
        told = [given, *element.attrib.values(), *(() if name in ("SRS", "MDI", "Metadata") else (text,))]
        led = next((place for place in told if _ELSEWHERE.search(place)), None)
        if led is not None and name not in ("SRS", "TargetSRS", "SourceSRS", "GCPList"):
            raise InputError(f"{vrt} leads to {led[:80]!r}; wanted plain local files only, download them first")
        if given and not list(element):
            yield _local(vrt, given, element.get("relativeToVRT") == "1")


def _local(vrt: Path, text: str, relative: bool) -> Path:
    part = _PART.match(text)
    place = part["file"] if part else text
    path = vrt.parent / place if relative else Path(place)
    if not path.is_file():
        raise InputError(f"{vrt} names the file {place[:120]!r}, which isn't there")
    return path

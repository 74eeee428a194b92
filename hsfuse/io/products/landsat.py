"""Landsat 4 to 9, Collection 2: surface reflectance (Level-2) or top-of-atmosphere reflectance (Level-1) of 30 m.

After the USGS documents LSDS-1618 and LSDS-1619 (Landsat 4-7 and 8-9 Collection 2 Level-2 Science Product Guide) and
LSDS-1834 (Level-1 Data Format Control Book): reflectance = DN * REFLECTANCE_MULT_BAND_n + REFLECTANCE_ADD_BAND_n,
divided by the sine of SUN_ELEVATION in Level-1; DN 0 is fill. Panchromatic, cirrus and thermal bands take no part.
"""

from __future__ import annotations

import json
import re
from contextlib import ExitStack
from dataclasses import dataclass
from math import radians, sin
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hsfuse.core.cube import BoolArray
from hsfuse.core.errors import InputError
from hsfuse.core.notes import about_file
from hsfuse.io.layers import Layer, LayeredReader, MaskLayer
from hsfuse.io.limits import MOST_TEXT
from hsfuse.io.products.bundle import Bundle, is_archive, open_bundle
from hsfuse.io.products.metadata import iso_time, number, parse_xml, plain_name
from hsfuse.io.raster import RasterReader
from hsfuse.io.reader import Role

#: Group -> key -> value, as text.
Groups = dict[str, dict[str, str]]

_LINE = re.compile(r"\s*(\w+)\s*=\s*(.*?)\s*$")
_ROOT = "LANDSAT_METADATA_FILE"


def read_mtl(raw: bytes, path: Path) -> Groups:
    """The groups of a Collection 2 MTL file's bytes; InputError when it is broken or of another collection."""
    if len(raw) > MOST_TEXT:
        raise InputError(f"{path} has {len(raw)} bytes; an MTL file has at most {MOST_TEXT}")
    readers = {".json": _read_json, ".xml": _read_xml}
    root, groups = readers.get(path.suffix.lower(), _read_odl)(raw, path)
    if root != _ROOT:
        why = "Collection 1" if root == "L1_METADATA_FILE" else f"{root or 'nothing known'}"
        raise InputError(f"{path} is metadata of {why}; wanted {_ROOT}, as Collection 2 has it")
    return groups


def _read_odl(raw: bytes, path: Path) -> tuple[str, Groups]:
    """GROUP = name, key = value, END_GROUP = name; the outermost group is the root."""
    open_groups: list[str] = []
    root, groups = "", Groups()
    for line in raw.decode(errors="replace").splitlines():
        found = _LINE.match(line)
        key, value = (found[1], found[2].strip('"')) if found else ("", "")
        if key == "GROUP":
            root = root or value
            open_groups.append(value)
        elif key == "END_GROUP" and open_groups:
            open_groups.pop()
        elif key and len(open_groups) == 2:
            groups.setdefault(open_groups[-1], {})[key] = value
    if open_groups:
        raise InputError(f"{path} ends inside the group {open_groups[-1]}; is the download complete?")
    return root, groups


def _read_json(raw: bytes, path: Path) -> tuple[str, Groups]:
    try:
        tree = json.loads(raw.decode(errors="replace"))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} isn't JSON that can be read ({error}); is the download complete?") from error
    if not isinstance(tree, dict) or len(tree) != 1:
        return "", {}
    root, content = next(iter(tree.items()))
    groups = content.items() if isinstance(content, dict) else ()
    return root, {name: {k: str(v) for k, v in group.items()} for name, group in groups if isinstance(group, dict)}


def _read_xml(raw: bytes, path: Path) -> tuple[str, Groups]:
    root = parse_xml(raw, path)
    return plain_name(root), {
        plain_name(group): {plain_name(e): (e.text or "").strip() for e in group} for group in root
    }


FILL = 0
#: Bits of QA_PIXEL: fill, dilated cloud, cirrus, cloud, cloud shadow.
MASKED_BITS = 0b11111
#: What Level-2 surface reflectance of Collection 2 always is (LSDS-1619, table 6-1), for band files without an MTL.
SR_MULT, SR_ADD = 2.75e-5, -0.2

_SCENE = r"L[CETO]0[4-9]_L[12]\w{2}_\d{6}_\d{8}_\d{8}_02_\w\w"
_BAND = re.compile(rf"({_SCENE})(_SR)?_B(\d{{1,2}})\.TIFF?$", re.IGNORECASE)
_ARCHIVE = re.compile(rf"{_SCENE}\.(?:tar|tar\.gz|tgz)$", re.IGNORECASE)
_METADATA = r".*_MTL\.(?:txt|json|xml)"
_ENDINGS = ("_MTL.txt", "_MTL.json", "_MTL.xml")
#: Bands that aren't multispectral reflectance of 30 m.
_NOT_USED = (8, 9)


def recognises(path: Path) -> bool:
    """A folder with an *_MTL file or bands, its .tar, that file, or a band of Collection 2 with an *_MTL beside it."""
    if path.is_dir():
        return any(_is_metadata(file) or _BAND.match(file.name) for file in path.iterdir())
    if not path.is_file():
        return False
    return bool(_is_metadata(path) or _ARCHIVE.match(path.name) or _metadata_of(path))


def open_product(path: Path, role: Role) -> LayeredReader:
    """The scene's reflective bands as reflectance (C, H, W) with fill, clouds, shadows and saturation masked.

    InputError for a part that is missing or can't be read.
    """
    bundle = open_bundle(path if path.is_dir() or is_archive(path) else path.parent, _METADATA)
    if path.is_dir() or is_archive(path):
        name = next((name for e in _ENDINGS if (name := bundle.first(rf".*{re.escape(e)}"))), None)
    else:
        name = path.name if _is_metadata(path) else _metadata_of(path)
    if name is None:
        raise InputError(f"{path} lacks its metadata file *_MTL.txt; is the download complete?")
    scene = _read_scene(bundle, name)
    notes: list[str] = []
    with ExitStack() as stack:
        layers = [_layer(stack, scene, band) for band in scene.bands]
        reader = LayeredReader(path, layers, _masks(stack, scene, notes), role)
        stack.pop_all()
    reader.files = tuple(dict.fromkeys([scene.path, *reader.files]))
    reader.notes += [about_file(scene.name, text) for text in notes]
    _tell(reader, scene)
    return reader


def open_band(path: Path, role: Role) -> LayeredReader | None:
    """One band's file as reflectance, by its MTL or, without one, as all Level-2 files are; None for other files."""
    named = _BAND.match(path.name)
    if named is None or not path.is_file():
        return None
    metadata, name = _metadata_of(path), f"B{int(named[3])}"
    if metadata is None and not named[2]:
        raise InputError(f"{path} is Landsat Level-1 without its *_MTL.txt beside it; reflectance can't be told")
    scene = None if metadata is None else _read_scene(open_bundle(path.parent, _METADATA), metadata)
    mult, add = (SR_MULT, SR_ADD) if scene is None else scene.factors(int(named[3]))
    with ExitStack() as stack:
        source = stack.enter_context(RasterReader(path, "MSI"))
        reader = LayeredReader(path, [Layer(source, 0, name, mult, add, FILL)], role=role)
        stack.pop_all()
    if scene is None:
        reader._note(f"no *_MTL file beside it; scale {SR_MULT:g} and offset {SR_ADD:g}, as all of Level-2 has")
        reader.quantity = "reflectance"
    else:
        _tell(reader, scene)
    return reader


def clear_pixels(raw: NDArray) -> BoolArray:
    """True (h, w) where QA_PIXEL (1, h, w) says neither fill, cloud (dilated, too), cirrus nor cloud shadow."""
    return (raw[0].astype(np.uint32) & MASKED_BITS) == 0


def _is_metadata(path: Path) -> bool:
    return re.fullmatch(_METADATA, path.name, re.IGNORECASE) is not None


def _metadata_of(band: Path) -> str | None:
    """The name of the MTL file beside a band's file."""
    named = _BAND.match(band.name)
    names = [named[1] + ending for ending in _ENDINGS] if named else []
    return next((name for name in names if band.with_name(name).is_file()), None)


@dataclass(frozen=True)
class _Scene:
    """An MTL file: its groups, and the numbers of the bands in use."""

    bundle: Bundle
    path: Path
    name: str
    level: str
    groups: Groups
    bands: tuple[int, ...]

    def value(self, group: str, key: str) -> str | None:
        return self.groups.get(group, {}).get(key)

    def file(self, key: str) -> Path | None:
        """A file of the product by its key; None when it isn't there."""
        return self.bundle.files.get(self.value("PRODUCT_CONTENTS", key) or "")

    def factors(self, band: int) -> tuple[float, float]:
        """Scale and offset to reflectance of a band."""
        group = "LEVEL2_SURFACE_REFLECTANCE_PARAMETERS" if self.level == "2" else "LEVEL1_RADIOMETRIC_RESCALING"
        keys = f"REFLECTANCE_MULT_BAND_{band}", f"REFLECTANCE_ADD_BAND_{band}"
        mult, add = (number(self.value(group, key), f"{group}/{key}", self.path) for key in keys)
        if self.level == "2":
            return mult, add
        elevation = number(self.value("IMAGE_ATTRIBUTES", "SUN_ELEVATION"), "SUN_ELEVATION", self.path)
        if elevation <= 0:
            raise InputError(f"{self.path} says a sun elevation of {elevation:g} degrees: a night scene")
        return mult / sin(radians(elevation)), add / sin(radians(elevation))


def _read_scene(bundle: Bundle, file: str) -> _Scene:
    path = bundle.root / file
    groups = read_mtl(bundle.read(file), path)
    contents = groups.get("PRODUCT_CONTENTS", {})
    level = contents.get("PROCESSING_LEVEL", "")
    if level[:2] not in ("L1", "L2"):
        raise InputError(f"{path} doesn't say a PROCESSING_LEVEL of Level-1 or Level-2 (found {level!r})")
    rescaling = (
        groups.get("LEVEL2_SURFACE_REFLECTANCE_PARAMETERS" if level[1] == "2" else "LEVEL1_RADIOMETRIC_RESCALING") or {}
    )
    numbers = sorted(int(key.rsplit("_", 1)[1]) for key in contents if re.fullmatch(r"FILE_NAME_BAND_\d+", key))
    bands = tuple(n for n in numbers if n not in _NOT_USED and f"REFLECTANCE_MULT_BAND_{n}" in rescaling)
    if not bands:
        raise InputError(f"{path} names no band with a factor to reflectance (REFLECTANCE_MULT_BAND_n)")
    return _Scene(
        bundle, path, contents.get("LANDSAT_PRODUCT_ID", path.stem.removesuffix("_MTL")), level[1], groups, bands
    )


def _layer(stack: ExitStack, scene: _Scene, band: int) -> Layer:
    key = f"FILE_NAME_BAND_{band}"
    file = scene.file(key)
    if file is None:
        name = scene.value("PRODUCT_CONTENTS", key)
        raise InputError(f"{scene.path} names the band file {name}, which isn't there; is the download complete?")
    mult, add = scene.factors(band)
    return Layer(stack.enter_context(RasterReader(file, "MSI")), 0, f"B{band}", mult, add, FILL)


def _masks(stack: ExitStack, scene: _Scene, notes: list[str]) -> list[MaskLayer]:
    """QA_PIXEL, and of QA_RADSAT the bits of the bands in use."""
    saturated = sum(1 << (band - 1) for band in scene.bands)
    kinds = (
        ("QUALITY_L1_PIXEL", clear_pixels, "QA_PIXEL fill, dilated cloud, cirrus, cloud, cloud shadow"),
        ("QUALITY_L1_RADIOMETRIC_SATURATION", lambda raw: (raw[0] & saturated) == 0, "QA_RADSAT saturation"),
    )
    masks = []
    for key, valid, what in kinds:
        file = scene.file(f"FILE_NAME_{key}")
        if file is None:
            notes.append(f"no {what.split()[0]} file; {what.split(' ', 1)[1]} are not masked")
        else:
            masks.append(MaskLayer(stack.enter_context(RasterReader(file, "MSI")), (0,), valid, what))
    return masks


#: The instruments whose responses go by the satellite's name: Landsat 4 and 5 had a second one, the MSS.
_INSTRUMENTS = {
    "Landsat 4": ("", "TM"), "Landsat 5": ("", "TM"), "Landsat 7": ("", "ETM"), "Landsat 8": ("", "OLI"),
    "Landsat 9": ("", "OLI"),
}  # fmt: skip


def _tell(reader: LayeredReader, scene: _Scene) -> None:
    craft = (scene.value("IMAGE_ATTRIBUTES", "SPACECRAFT_ID") or "LANDSAT").replace("_", " ").title()
    what = "surface" if scene.level == "2" else "top-of-atmosphere"
    date, time = (scene.value("IMAGE_ATTRIBUTES", key) for key in ("DATE_ACQUIRED", "SCENE_CENTER_TIME"))
    reader.quantity = "reflectance"
    instrument = (scene.value("IMAGE_ATTRIBUTES", "SENSOR_ID") or "").upper().split("_")[0]
    reader.tag(
        product=f"{craft} Collection 2 Level-{scene.level} ({what} reflectance), {scene.name}",
        sensor=craft.lower().replace(" ", "") if instrument in _INSTRUMENTS.get(craft, (instrument,)) else None,
        acquired=iso_time(f"{date}T{time}" if date and time else date),
    )

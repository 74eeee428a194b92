"""PlanetScope (Dove, SuperDove) ortho scenes: surface reflectance, or scaled radiance turned into reflectance.

After Planet's PlanetScope Product Specifications (June 2021) and docs.planet.com (PSScene): surface reflectance is
DN / 10,000; DN * reflectanceCoefficient of the metadata XML is top-of-atmosphere reflectance; DN 0 is nodata; band 1
of the usable data mask UDM2 is 1 where the ground is clear.
"""

from __future__ import annotations

import re
from contextlib import ExitStack
from pathlib import Path
from xml.etree.ElementTree import Element

from numpy.typing import NDArray

from hsfuse.core.cube import BoolArray
from hsfuse.core.errors import InputError
from hsfuse.core.notes import about_file
from hsfuse.io.layers import Layer, LayeredReader, MaskLayer
from hsfuse.io.products.metadata import elements, iso_time, number, read_xml, text
from hsfuse.io.raster import RasterReader
from hsfuse.io.reader import Role

NODATA = 0
#: Surface reflectance to DN.
SR_SCALE = 1e-4
BANDS = {
    3: ("red", "green", "blue"),
    4: ("blue", "green", "red", "nir"),
    8: ("coastal_blue", "blue", "green_i", "green", "yellow", "red", "rededge", "nir"),
}
#: The response of an instrument in the library.
_SENSORS = {"PS2": "dove", "PS2.SD": "dove_r", "PSB.SD": "superdove"}
_IMAGE = re.compile(r"(\d{8}_\d{6}_\w+?_3B)_AnalyticMS(_SR)?(_8b)?(_harmonized)?(_clip)?\.tiff?$", re.IGNORECASE)


def recognises(path: Path) -> bool:
    """An image *_3B_AnalyticMS*.tif, or a folder that holds one."""
    if path.is_dir():
        return bool(_images(path))
    return bool(_IMAGE.match(path.name)) and path.is_file()


def open_product(path: Path, role: Role) -> LayeredReader:
    """The scene's bands as reflectance (3, 4 or 8, H, W), with what UDM2 doesn't call clear masked.

    InputError for a part that is missing or can't be read.
    """
    image = path
    if path.is_dir():
        found = [i for i in _images(path) if "_SR" in i.name.upper()] or _images(path)
        if len(found) > 1:
            raise InputError(f"{path} holds {len(found)} scenes ({found[0].name}, ...); name the image of one")
        image = found[0]
    notes: list[str] = []
    with ExitStack() as stack:
        reader = _assemble(stack, path, image, notes, role)
        stack.pop_all()
    reader.notes += [about_file(image.name, text) for text in notes]
    return reader


def _images(folder: Path) -> list[Path]:
    return sorted(file for file in folder.glob("*.tif*") if _IMAGE.match(file.name))


def _assemble(stack: ExitStack, path: Path, image: Path, notes: list[str], role: Role) -> LayeredReader:
    named = _IMAGE.match(image.name)
    assert named is not None  # it was recognised
    scene, surface = named[1], bool(named[2])
    file = next(iter(sorted(image.parent.glob(f"{scene}_AnalyticMS*metadata*.xml"))), None)
    root = None if file is None else read_xml(file)
    source = stack.enter_context(RasterReader(image, "MSI"))
    if source.count not in BANDS:
        raise InputError(f"{image} has {source.count} bands; wanted {', '.join(map(str, BANDS))}")
    if surface:
        scales = [SR_SCALE] * source.count
    elif root is None or file is None:
        raise InputError(
            f"{image} is scaled radiance; wanted {scene}_AnalyticMS_metadata.xml beside it for its factors"
        )
    else:
        scales = _coefficients(root, source.count, file)
    names = BANDS[source.count]
    layers = [Layer(source, i, names[i], scales[i], 0.0, NODATA) for i in range(source.count)]
    reader = LayeredReader(path, layers, _mask(stack, image.parent, scene, notes), role)
    if file is not None:
        reader.files = tuple(dict.fromkeys([*reader.files, file]))
    _tell(reader, root, scene, surface)
    return reader


def _coefficients(root: Element, count: int, path: Path) -> list[float]:
    """Reflectance to DN of each band."""
    told = {
        text(band, "bandNumber"): number(text(band, "reflectanceCoefficient"), "reflectanceCoefficient", path)
        for band in elements(root, "bandSpecificMetadata")
    }
    missing = [str(i) for i in range(1, count + 1) if str(i) not in told]
    if missing:
        raise InputError(f"{path} lacks the reflectanceCoefficient of band {', '.join(missing)}")
    return [told[str(i)] for i in range(1, count + 1)]


def _mask(stack: ExitStack, folder: Path, scene: str, notes: list[str]) -> list[MaskLayer]:
    file = next(iter(sorted(folder.glob(f"{scene}_udm2*.tif*"))), None)
    if file is None:
        notes.append(f"no usable data mask {scene}_udm2.tif beside it; clouds and shadows are not masked")
        return []
    source = stack.enter_context(RasterReader(file, "MSI"))
    return [MaskLayer(source, (0,), _clear, "UDM2 other than clear")]


def _clear(raw: NDArray) -> BoolArray:
    return raw[0] == 1


def _tell(reader: LayeredReader, root: Element | None, scene: str, surface: bool) -> None:
    instruments = [] if root is None else [text(e, "shortName") or "" for e in elements(root, "Instrument")]
    sensor = next((_SENSORS[i.upper()] for i in instruments if i.upper() in _SENSORS), None)
    sensor = sensor or ("superdove" if reader.count == 8 and not any(instruments) else None)
    what = "surface" if surface else "top-of-atmosphere"
    reader.quantity = "reflectance"
    day, time = scene.split("_")[:2]
    told = None if root is None else text(root, "acquisitionDateTime", "acquisitionDate")
    product = f"PlanetScope{f' {sensor}' if sensor else ''} ({what} reflectance), {scene}"
    reader.tag(product=product, sensor=sensor, acquired=iso_time(told) or iso_time(f"{day}T{time}"))

"""WorldView, GeoEye and QuickBird GeoTIFF with its .IMD file beside it: band names, day, calibration to radiance.

After Maxar's (DigitalGlobe's) Imagery Support Data documentation and "Radiometric Use of WorldView-3 Imagery" (2016):
radiance = DN * absCalFactor / effectiveBandwidth in W / (m2 sr um), for counts that weren't enhanced; with
radiometricEnhancement ACOMP the counts are surface reflectance, of a scale that the file doesn't say.
"""

from __future__ import annotations

import re
from contextlib import ExitStack
from pathlib import Path

from hsfuse.core.errors import InputError
from hsfuse.io.layers import Layer, LayeredReader
from hsfuse.io.limits import MOST_TEXT, read_bounded
from hsfuse.io.products.metadata import iso_time, number
from hsfuse.io.raster import RasterReader
from hsfuse.io.reader import Role

NAMES = {
    "BAND_P": "pan", "BAND_C": "coastal", "BAND_B": "blue", "BAND_G": "green", "BAND_Y": "yellow", "BAND_R": "red",
    "BAND_RE": "rededge", "BAND_N": "nir", "BAND_N2": "nir2", **{f"BAND_S{i}": f"swir{i}" for i in range(1, 9)},
}  # fmt: skip
_CRAFT = {"QB02": "QuickBird", "GE01": "GeoEye-1", "WV01": "WorldView-1", "WV02": "WorldView-2", "WV03": "WorldView-3",
          "WV04": "WorldView-4"}  # fmt: skip
_SENSORS = {"QB02": "quickbird", "WV02": "worldview2", "WV03": "worldview3"}
_LINE = re.compile(r"\s*(\w+)\s*=\s*\"?(.*?)\"?;?\s*$")
NODATA = 0


def recognises(path: Path) -> bool:
    """A GeoTIFF with an .IMD file of the same name beside it."""
    return path.suffix.lower() in (".tif", ".tiff") and path.is_file() and _imd_of(path) is not None


def open_product(path: Path, role: Role) -> LayeredReader:
    """The image's bands (C, H, W) as radiance in W / (m2 sr um), or as counts where they are no plain ones.

    InputError when the .IMD can't be read or doesn't fit the image.
    """
    file = _imd_of(path)
    assert file is not None  # it was recognised
    groups = _read_imd(file)
    bands = [name for name in groups if name in NAMES]
    facts = {key: value for name, group in groups.items() if name not in NAMES for key, value in group.items()}
    plain = facts.get("radiometricEnhancement", "Off").lower() == "off"
    with ExitStack() as stack:
        source = stack.enter_context(RasterReader(path, "MSI"))
        if source.count != len(bands):
            raise InputError(f"{path} has {source.count} bands but {file.name} describes {len(bands)}")
        layers = [
            Layer(source, i, NAMES[band], _factor(groups[band], band, file) if plain else 1.0, 0.0, NODATA)
            for i, band in enumerate(bands)
        ]
        reader = LayeredReader(path, layers, role=role)
        stack.pop_all()
    reader.files = tuple(dict.fromkeys([*reader.files, file]))
    if plain:
        reader.quantity = "radiance"
    else:
        reader._note(f"radiometric enhancement {facts['radiometricEnhancement']}: the numbers are used as they are")
    _tell(reader, facts)
    return reader


def _tell(reader: LayeredReader, facts: dict[str, str]) -> None:
    craft = facts.get("satId", "")
    product = f"{_CRAFT.get(craft, craft or 'Maxar')} {facts.get('productLevel', '')}".strip()
    times = (iso_time(facts.get(key)) for key in ("firstLineTime", "TLCTime", "earliestAcqTime"))
    reader.tag(product=product, sensor=_SENSORS.get(craft), acquired=next(filter(None, times), None))


def _imd_of(image: Path) -> Path | None:
    files = [image.with_suffix(ending) for ending in (".IMD", ".imd")]
    return next((file for file in files if file.is_file()), None)


def _read_imd(path: Path) -> dict[str, dict[str, str]]:
    """Group -> key -> value; what stands outside all groups is the group ""."""
    lines = read_bounded(path, MOST_TEXT).decode(errors="replace").splitlines()
    groups: dict[str, dict[str, str]] = {"": {}}
    current = ""
    for found in filter(None, map(_LINE.match, lines)):
        if found[1] == "BEGIN_GROUP":
            current = found[2]
            groups.setdefault(current, {})
        elif found[1] == "END_GROUP":
            current = ""
        else:
            groups[current][found[1]] = found[2]
    if not any(line.strip().rstrip(";") == "END" for line in lines):
        raise InputError(f"{path} ends {f'inside {current}' if current else 'too soon'}; is the download complete?")
    return groups


def _factor(group: dict[str, str], band: str, path: Path) -> float:
    gain, width = (number(group.get(key), f"{key} of {band}", path) for key in ("absCalFactor", "effectiveBandwidth"))
    if width <= 0:
        raise InputError(f"{path} says an effectiveBandwidth of {width:g} for {band}; wanted more than 0")
    return gain / width

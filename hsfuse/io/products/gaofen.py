"""Gaofen-5 (GF5, GF5A, GF5B) AHSI L1: both detectors' radiance as one cube.

The layout is what users of the product describe; no specification in public states it. A folder
GF5B_AHSI_<place>_<date>_<orbit>_L1<number> has <name>_VN.tif (150 bands) and <name>_SW.tif (180 bands; .geotiff for
GF5), and beside them *RadCal_VNIR.raw and *RadCal_SWIR.raw (a line a band: gain, offset, to W/m2/sr/um) and
*Spectralresponse_VNIR.raw and *_SWIR.raw (a line a band: centre, FWHM in nm). L1 is in sensor geometry with rational
polynomials; hsfuse wants it orthorectified, both detectors on one grid, under the same names.
"""

from __future__ import annotations

import re
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from hsfuse.core.errors import InputError
from hsfuse.core.notes import note
from hsfuse.io.layers import Layer, LayeredReader
from hsfuse.io.limits import MOST_TEXT, read_bounded
from hsfuse.io.products.metadata import iso_time
from hsfuse.io.products.ortho import LARGEST, merged
from hsfuse.io.raster import RasterReader
from hsfuse.io.reader import Role
from hsfuse.io.spectral_tags import to_nm, widths_to_nm

DETECTORS = {"VN": "VNIR", "SW": "SWIR"}

_FILE = re.compile(r"(?P<name>GF5[A-Z]?_AHSI_.+?)(?:_(?P<part>VN|SW))?\.(?:geotiff|tiff?|xml)$", re.IGNORECASE)
_DATE = re.compile(r"_(20\d{6})_")


def recognises(path: Path) -> bool:
    """A file GF5*_AHSI_*.xml, *_VN.tif or *_SW.tif (or .geotiff), or a folder with such files."""
    if not path.is_file():
        return bool(_images(path))
    match = _FILE.match(path.name)
    return match is not None and (match["part"] is not None or path.suffix.lower() == ".xml")


def open_product(path: Path, role: Role) -> LayeredReader:
    """Both detectors' bands (C, H, W) in ascending wavelength; InputError for what is missing or broken."""
    folder = path if path.is_dir() else path.parent
    images = _images(folder)
    names = sorted({name for name, _ in images})
    if path.is_file():
        names = [name for name in names if name == _FILE.match(path.name)["name"]]  # type: ignore[index]
    if len(names) != 1:
        told = ", ".join(names[:3]) or "none with _VN.tif and _SW.tif"
        raise InputError(f"{path} holds {len(names)} Gaofen-5 AHSI products ({told}); name one by its _VN.tif")
    missing = [part for part in DETECTORS if (names[0], part) not in images]
    if missing:
        raise InputError(f"{folder} lacks {names[0]}_{missing[0]}.tif; wanted both detectors' images, _VN and _SW")
    return _assemble(path, role, folder, {part: images[names[0], part] for part in DETECTORS}, names[0])


def _images(folder: Path) -> dict[tuple[str, str], Path]:
    """(product, detector) -> image."""
    files = sorted(folder.glob("*")) if folder.is_dir() else []
    found = [(file, match) for file in files if (match := _FILE.match(file.name)) and match["part"]]
    return {(match["name"], match["part"].upper()): file for file, match in found}


def _assemble(path: Path, role: Role, folder: Path, images: dict[str, Path], name: str) -> LayeredReader:
    with ExitStack() as stack:
        detectors = [_layers(stack.enter_context(RasterReader(file)), folder, part) for part, file in images.items()]
        grids = [layers[0].source.grid for layers in detectors]
        if grids[0] != grids[1]:
            raise InputError(
                f"{folder}: the detectors aren't on one grid ({grids[0].describe()}; {grids[1].describe()}); bring "
                "_SW onto _VN's grid first"
            )
        chosen = merged([[layer.wavelength_nm or 0.0 for layer in layers] for layers in detectors])
        reader = LayeredReader(path, [detectors[d][b] for d, b in chosen], role=role)
        stack.pop_all()
    reader.quantity = "radiance"
    reader.spectrum = replace(reader.spectrum, names=None)
    left = sum(map(len, detectors)) - len(chosen)
    if left:
        reader._note(f"bands left out because the detectors overlap there: {left}")
    if not reader.grid.georeferenced:
        reader.notes.append(note("not-georeferenced", file=path.name, why=" (rational polynomials are not used)"))
    date = _DATE.search(name)
    reader.tag(product=f"Gaofen-5 AHSI L1, {name}", acquired=iso_time(date and date[1]))
    return reader


def _layers(source: RasterReader, folder: Path, part: str) -> list[Layer]:
    gains = _table(folder, "RadCal", DETECTORS[part], source.count, "gain, offset")
    facts = _table(folder, "Spectral", DETECTORS[part], source.count, "centre, FWHM")
    centres, factor, _ = to_nm([centre for centre, _ in facts], "nm")
    widths = widths_to_nm([width for _, width in facts], factor)[0] or [None] * source.count
    return [
        Layer(source, i, f"{part}{i + 1}", *gains[i], source.nodata, (), centres[i], widths[i])
        for i in range(source.count)
    ]


def _table(folder: Path, kind: str, detector: str, count: int, columns: str) -> list[tuple[float, float]]:
    """Two numbers a band from the first file named *kind*detector*.raw or .txt."""
    wanted = re.compile(rf"GF5.*{kind}.*{detector}.*\.(raw|txt)$", re.IGNORECASE)
    file = next((file for file in sorted(folder.glob("*")) if wanted.match(file.name)), None)
    if file is None:
        raise InputError(f"{folder} lacks GF5*_{kind}*_{detector}.raw; wanted {columns} there, a line a band")
    told = read_bounded(file, MOST_TEXT).decode("utf-8-sig", "replace")
    try:
        rows = [re.split(r"[,;\s]+", line.strip()) for line in told.splitlines() if line.strip()]
        numbers = [(float(row[0]), float(row[1])) for row in rows]
    except (ValueError, IndexError) as error:
        raise InputError(f"{file} can't be read as {columns}, a line a band: {error}") from error
    usable = all(abs(v) < LARGEST for pair in numbers for v in pair) and all(first for first, _ in numbers)
    if len(numbers) != count or not usable:
        raise InputError(
            f"{file} has {len(numbers)} lines of {columns}; wanted {count} with finite numbers, no 0 first"
        )
    return numbers

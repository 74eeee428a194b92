"""Sentinel-2 Level-1C and Level-2A in SAFE format, one tile: ten bands of 10 and 20 m as one MSI on the 10 m grid.

Layout, metadata and masks after ESA's Sentinel-2 Products Specification Document (S2-PDGS-TAS-DI-PSD, issues 14 and
15) and the Level-2A Algorithm Theoretical Basis Document (scene classification): value = (DN + offset) /
quantification, offsets from processing baseline 04.00 on; DN 0 is nodata, 65535 saturated.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from xml.etree.ElementTree import Element

import numpy as np
from affine import Affine
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.errors import CRSError

from hsfuse.core.cube import BoolArray
from hsfuse.core.errors import InputError
from hsfuse.core.grid import Grid
from hsfuse.core.notes import about_file
from hsfuse.io.layers import Layer, LayeredReader, MaskLayer
from hsfuse.io.products.bundle import Bundle, is_archive, open_bundle
from hsfuse.io.products.metadata import elements, iso_time, number, parse_xml, text
from hsfuse.io.raster import RasterReader
from hsfuse.io.reader import Role
from hsfuse.physics.response import half_width

#: Bands by GSD in m, and all of them in the order of their ids.
TEN = ("B2", "B3", "B4", "B8")
TWENTY = ("B5", "B6", "B7", "B8A", "B11", "B12")
_IDS = ("B1", "B2", "B3", "B4", "B5", "B6", "B7", "B8", "B8A", "B9", "B10", "B11", "B12")
#: Processing baseline from which every product has offsets.
_OFFSETS_FROM = 4.0


@dataclass(frozen=True)
class Metadata:
    """Level (1C or 2A), value = (DN + offset) / quantification, and bands by name."""

    path: Path
    level: str
    spacecraft: str
    baseline: str
    acquired: str | None
    quantification: float
    offsets: Mapping[str, float]
    wavelengths_nm: Mapping[str, float]
    fwhm_nm: Mapping[str, float]


def read_metadata(raw: bytes, path: Path) -> Metadata:
    """The product's metadata from its bytes; InputError when they are broken or don't say how to read the numbers."""
    root = parse_xml(raw, path)
    level = "2A" if "2A" in path.name.upper() else "1C"
    value = text(root, "BOA_QUANTIFICATION_VALUE", "L2A_BOA_QUANTIFICATION_VALUE", "QUANTIFICATION_VALUE")
    quantification = number(value, "a quantification value", path)
    if quantification <= 0:
        raise InputError(f"{path} says a quantification value of {quantification:g}; wanted more than 0")
    ids = {e.get("bandId", ""): e.get("physicalBand", "") for e in elements(root, "Spectral_Information")}
    ids = {str(i): name for i, name in enumerate(_IDS)} | ids
    baseline = text(root, "PROCESSING_BASELINE") or "unknown"
    wavelengths, fwhm = _bands(root, path)
    return Metadata(
        path,
        level,
        text(root, "SPACECRAFT_NAME") or "Sentinel-2",
        baseline,
        text(root, "DATATAKE_SENSING_START", "PRODUCT_START_TIME"),
        quantification,
        _offsets(root, path, ids, baseline),
        wavelengths,
        fwhm,
    )


def _offsets(root: Element, path: Path, ids: Mapping[str, str], baseline: str) -> dict[str, float]:
    """Offset in DN by band. InputError when a baseline that has offsets lacks them: 0.1 of reflectance is at stake."""
    found = [e for name in ("BOA_ADD_OFFSET", "RADIO_ADD_OFFSET") for e in elements(root, name)]
    offsets = {ids.get(e.get("band_id", ""), ""): number(e.text, "a band's offset", path) for e in found}
    try:
        has_offsets = float(baseline) >= _OFFSETS_FROM
    except ValueError:
        has_offsets = False
    if has_offsets and not set(TEN) <= set(offsets):
        raise InputError(
            f"{path} is of processing baseline {baseline} but lacks the offsets (BOA_ADD_OFFSET or RADIO_ADD_OFFSET) "
            "that its bands have from 04.00 on; is the file complete?"
        )
    return offsets


def _bands(root: Element, path: Path) -> tuple[dict[str, float], dict[str, float]]:
    """Centre and FWHM in nm by band, as far as they are told."""
    centres: dict[str, float] = {}
    widths: dict[str, float] = {}
    for band in elements(root, "Spectral_Information"):
        name = band.get("physicalBand", "")
        if centre := text(band, "CENTRAL"):
            centres[name] = number(centre, f"the wavelength of {name}", path)
        width = _half_width(band, path)
        if width is not None:
            widths[name] = width
    return centres, widths


def _half_width(band: Element, path: Path) -> float | None:
    """Full width at half maximum in nm of the band's response, sampled at STEP."""
    response = next(elements(band, "Spectral_Response"), None)
    values = None if response is None else text(response, "VALUES")
    if response is None or not values:
        return None
    told = np.array([number(v, "a spectral response", path) for v in values.split()], np.float64)
    curve = np.pad(told, 1)  # outside it is zero
    step = number(text(response, "STEP"), "the step of a spectral response", path)
    return half_width(step * np.arange(float(curve.size)), curve)


#: Scene classes that are no ground to be fused: no data, saturated or defective, cloud shadow, cloud of medium and of
#: high probability, thin cirrus.
MASKED_CLASSES = (0, 1, 3, 8, 9, 10)
NODATA, SATURATED = 0, 65535

_METADATA = r"[^/]*(?:MTD_MSIL|_MTD_SAFL)(1C|2A)\w*\.xml"
_BAND = re.compile(r"_B(0[1-9]|1[0-2]|8A)(?:_\d0m)?\.(?:jp2|tif)$", re.IGNORECASE)
_ZIP = re.compile(r"S2[A-D]_MSIL(1C|2A)_\w+(\.SAFE)?\.(?:zip|tar|tar\.gz|tgz)$", re.IGNORECASE)


def recognises(path: Path) -> bool:
    """A .SAFE folder or its .zip, a granule folder in it, MTD_MSIL*.xml, MTD_TL.xml, or one band's image."""
    if path.is_dir():
        return path.suffix.upper() == ".SAFE" or _is_granule(path) or any(map(_is_metadata, path.glob("*.xml")))
    known = _is_metadata(path) or _ZIP.match(path.name) or path.name == "MTD_TL.xml" or _is_band(path)
    return bool(known) and path.is_file()


def open_product(path: Path, role: Role) -> LayeredReader:
    """The tile's bands B2 to B8A, B11 and B12 as reflectance (10, H, W) on the 10 m grid, clouds masked.

    Bands of 60 m are left out. InputError for a part that is missing or can't be read.
    """
    bundle, granule = _parts(path)
    metadata = _metadata(bundle)
    with ExitStack() as stack:
        reader = _assemble(stack, granule, metadata, role)
        stack.pop_all()
    return reader


def open_band(path: Path, role: Role) -> LayeredReader | None:
    """One band's image inside a SAFE folder as reflectance, on its own grid; None for other files."""
    if not _is_band(path) or not path.is_file():
        return None
    bundle, granule = _parts(path)
    with ExitStack() as stack:
        layer = _layer(stack, band_name(path), path, granule, _metadata(bundle))
        reader = LayeredReader(path, [layer], role=role)
        stack.pop_all()
    _tell(reader, granule, _metadata(bundle))
    return reader


def band_name(path: Path) -> str:
    """B8A, B2, ... from a band's file name; "" when it has none."""
    found = _BAND.search(path.name)
    return "" if found is None else "B" + found[1].upper().lstrip("0")


def _is_metadata(path: Path) -> bool:
    return re.fullmatch(_METADATA, path.name, re.IGNORECASE) is not None


def _is_granule(path: Path) -> bool:
    return path.parent.name == "GRANULE" and (path / "IMG_DATA").is_dir()


def _is_band(path: Path) -> bool:
    return bool(_BAND.search(path.name)) and "IMG_DATA" in (path.parent.name, path.parent.parent.name)


def _metadata(bundle: Bundle) -> Metadata:
    name = bundle.first(_METADATA)
    if name is None:
        raise InputError(
            f"{bundle.root} lacks its metadata file MTD_MSIL2A.xml or MTD_MSIL1C.xml; is the download complete?"
        )
    return read_metadata(bundle.read(name), bundle.root / name)


@dataclass(frozen=True)
class _Granule:
    """A tile: its folder below the product's root, and what its MTD_TL.xml says."""

    bundle: Bundle
    folder: str
    tile: str
    acquired: str | None
    crs: str | None
    corners: Mapping[int, tuple[float, float]]

    def files(self, pattern: str) -> list[Path]:
        """Its files of a pattern below its folder."""
        return list(self.bundle.matching(f"{re.escape(self.folder)}/{pattern}").values())

    def grid(self, shape: tuple[int, int], gsd: int) -> Grid | None:
        """The grid of images of that GSD, for images that don't say it themselves."""
        if gsd not in self.corners or self.crs is None:
            return None
        x, y = self.corners[gsd]
        try:
            return Grid(shape, Affine(gsd, 0, x, 0, -gsd, y), CRS.from_user_input(self.crs))
        except CRSError:
            return None


def _parts(path: Path) -> tuple[Bundle, _Granule]:
    """The product's files and its one granule, from whichever part was named."""
    named = next((folder for folder in (path, *path.parents[:3]) if _is_granule(folder)), None)
    root = named.parent.parent if named is not None else path if path.is_dir() or is_archive(path) else path.parent
    bundle = open_bundle(root, _METADATA, depth=5)
    images = bundle.matching(r"GRANULE/[^/]+/IMG_DATA/.+")
    granules = sorted({name.split("/")[1] for name in images})
    if named is not None:
        granules = [named.name]
    if len(granules) != 1:
        names = ", ".join(granules[:4])
        what = f"{len(granules)} tiles ({names}, ...); name the folder of one" if granules else "no GRANULE with images"
        raise InputError(f"{root} holds {what}")
    return bundle, _read_granule(bundle, granules[0])


def _read_granule(bundle: Bundle, name: str) -> _Granule:
    folder, tile = f"GRANULE/{name}", re.search(r"_(T\d\d[A-Z]{3})(?:_|$)", name)
    file = bundle.first(rf"{re.escape(folder)}/[^/]*(?:MTD_TL|_MTD_L1C_TL_\w+|_MTD_L2A_TL_\w+)\.xml")
    if file is None:
        return _Granule(bundle, folder, tile[1] if tile else name, None, None, {})
    path = bundle.root / file
    root = parse_xml(bundle.read(file), path)
    corners = {
        int(number(e.get("resolution"), "a resolution", path)): (
            number(text(e, "ULX"), "ULX", path),
            number(text(e, "ULY"), "ULY", path),
        )
        for e in elements(root, "Geoposition")
    }
    times = text(root, "SENSING_TIME"), text(root, "HORIZONTAL_CS_CODE")
    return _Granule(bundle, folder, tile[1] if tile else name, *times, corners)


def _assemble(stack: ExitStack, granule: _Granule, metadata: Metadata, role: Role) -> LayeredReader:
    notes: list[str] = []
    files = _band_files(granule, metadata, notes)
    names = sorted(files, key=lambda name: metadata.wavelengths_nm.get(name, 0.0))
    layers = [_layer(stack, name, files[name], granule, metadata) for name in names]
    masks = _masks(stack, granule, metadata.level, notes)
    reader = LayeredReader(granule.bundle.root, layers, masks, role, sharpen=True)
    _tell(reader, granule, metadata)
    reader.notes += [about_file(granule.bundle.root.name, text) for text in notes]
    return reader


def _tell(reader: LayeredReader, granule: _Granule, metadata: Metadata) -> None:
    what = "surface" if metadata.level == "2A" else "top-of-atmosphere"
    reader.files = tuple(dict.fromkeys([metadata.path, *reader.files]))
    reader.quantity = "reflectance"
    level = f"{metadata.spacecraft} Level-{metadata.level} ({what} reflectance)"
    reader.tag(
        product=f"{level}, baseline {metadata.baseline}, tile {granule.tile}",
        sensor=metadata.spacecraft.lower().replace("-", ""),
        acquired=iso_time(granule.acquired or metadata.acquired),
    )


def _band_files(granule: _Granule, metadata: Metadata, notes: list[str]) -> dict[str, Path]:
    """The image of each band at its own GSD; InputError for a band whose image is missing."""
    files: dict[str, Path] = {}
    for bands, gsd in ((TEN, 10), (TWENTY, 20)):
        folder = f"IMG_DATA/R{gsd}m" if metadata.level == "2A" else "IMG_DATA"
        found = {band_name(path): path for path in granule.files(rf"{folder}/[^/]+") if _BAND.search(path.name)}
        missing = [band for band in bands if band not in found]
        if missing == list(bands) and gsd == 20:
            notes.append("the bands of 20 m aren't there; only the four of 10 m are used")
        elif missing:
            place = granule.bundle.root / granule.folder / folder
            raise InputError(f"{place} lacks the image of {', '.join(missing)}; is the download complete?")
        files |= {band: found[band] for band in bands if band in found}
    return files


def _layer(stack: ExitStack, name: str, path: Path, granule: _Granule, metadata: Metadata) -> Layer:
    source = _image(stack, path, granule, 10 if name in TEN else 20 if name in TWENTY else 60)
    return Layer(
        source, 0, name, 1 / metadata.quantification, metadata.offsets.get(name, 0.0) / metadata.quantification,
        NODATA, (SATURATED,), metadata.wavelengths_nm.get(name), metadata.fwhm_nm.get(name),
    )  # fmt: skip


def _image(stack: ExitStack, path: Path, granule: _Granule, gsd: int) -> RasterReader:
    """An open image, georeferenced by the granule's metadata when it isn't by itself."""
    source = stack.enter_context(RasterReader(path, "MSI"))
    if not source.grid.georeferenced:
        source.grid = granule.grid(source.grid.shape, gsd) or source.grid
    return source


def _masks(stack: ExitStack, granule: _Granule, level: str, notes: list[str]) -> list[MaskLayer]:
    """The scene classification of Level-2A, the cloud classification of Level-1C (JP2, from baseline 04.00 on)."""
    pattern = r"IMG_DATA/R20m/[^/]*_SCL_20m\.\w+" if level == "2A" else r"QI_DATA/MSK_CLASSI_B00\.\w+"
    file = next(iter(granule.files(pattern)), None)
    if file is None:
        notes.append("no cloud mask in the product; clouds and their shadows are not masked")
        return []
    source = _image(stack, file, granule, 20 if level == "2A" else 60)
    if level == "2A":
        return [MaskLayer(source, (0,), clear_classes, f"SCL classes {', '.join(map(str, MASKED_CLASSES))}")]
    if source.count < 2:
        raise InputError(f"{file} has {source.count} band; wanted opaque clouds and cirrus")
    return [MaskLayer(source, (0, 1), _no_cloud, "MSK_CLASSI opaque clouds and cirrus")]


def clear_classes(raw: NDArray) -> BoolArray:
    """True (h, w) where the scene classification (1, h, w) is ground, water or snow."""
    return ~np.isin(raw[0], MASKED_CLASSES)


def _no_cloud(raw: NDArray) -> BoolArray:
    return (raw == 0).all(axis=0)

"""What EnMAP and DESIS products share: band facts in METADATA.XML, one spectral image, quality layers beside it.

value = DN * gain + offset for each band, by the format specifications EN-PCV-ICD-2009-2 (EnMAP) and PAV-DLR-TN-009
(DESIS).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from xml.etree.ElementTree import Element

import numpy as np
from numpy.typing import NDArray
from rasterio.windows import Window

from hsfuse.core.cube import BoolArray
from hsfuse.core.errors import InputError
from hsfuse.core.notes import Note, about_file
from hsfuse.io.layers import Layer, LayeredReader, MaskLayer
from hsfuse.io.products.bundle import RASTERS, ProductFiles, find_product, holds, read_part
from hsfuse.io.products.metadata import elements, iso_time, number, parse_xml, plain_name, text
from hsfuse.io.products.ortho import LARGEST
from hsfuse.io.raster import RasterReader
from hsfuse.io.reader import Quantity, Role
from hsfuse.io.spectral_tags import to_nm, widths_to_nm

#: The specifications' background value, used (and said) when neither the image nor the metadata name one.
BACKGROUND = -32768

#: Levels on one grid, and what their values are.
QUANTITIES: dict[str, Quantity] = {"L2A": "reflectance", "L1C": "radiance"}

#: Rows and columns of the look that finds the bands without values.
_LOOK = 48


@dataclass(frozen=True)
class BandFacts:
    """One band: centre and FWHM in nm (None: not usable), and value = raw * gain + offset."""

    centre_nm: float
    fwhm_nm: float | None
    gain: float
    offset: float


@dataclass(frozen=True)
class Flag:
    """Masked where (raw & bits) is one of `values`; without values, where it isn't 0."""

    bits: int
    values: tuple[int, ...] = ()

    def masks(self, raw: NDArray) -> BoolArray:
        """Where raw (h, w) is masked."""
        found = raw.astype(np.int64) & self.bits
        return np.isin(found, self.values) if self.values else found != 0


#: Quality file -> its bands (0-based), each with what of it masks a pixel and the word for that.
Layers = Mapping[Path, Sequence[tuple[int, Flag, str]]]


@dataclass(frozen=True)
class Mission:
    """What tells a mission's products from others.

    `files` is a pattern of file names with the groups name, level and part, `entries` one of the parts that stand for
    the product; `bands` is how the facts on one are spelled: itself, centre, width, gain, offset; `unfit` says what is
    wrong with levels not in `QUANTITIES`; `nominal` tells, by how many bands there are, what those of an L2A image
    nominally are that has lost its metadata.
    """

    name: str
    files: re.Pattern[str]
    entries: str
    bands: tuple[str, str, str, str, str]
    unfit: str
    nominal: Mapping[int, Sequence[BandFacts]] = field(default_factory=dict)

    def recognises(self, path: Path) -> bool:
        """Whether a folder or archive has the mission's files, or a file is one that stands for its product.

        An image without its metadata beside it is no product, unless its bands can be told by the mission's own.
        """
        if not holds(path, self.files, self.entries):
            return False
        return not self._is_image_alone(path) or self._nominal(find_product(path, self.files, self.name)) is not None

    def _is_image_alone(self, path: Path) -> bool:
        match = self.files.match(path.name) if path.is_file() else None
        if match is None or not match["part"].upper().startswith("SPECTRAL_IMAGE"):
            return False
        metadata = f"{match['name']}-METADATA".upper()
        return not any(file.name.upper().startswith(metadata) for file in path.parent.iterdir())

    def _nominal(self, files: ProductFiles) -> Sequence[BandFacts] | None:
        """The bands of an L2A image without metadata, if it says nothing on them and has as many as there may be."""
        named = self.files.match(f"{files.name}-SPECTRAL_IMAGE.TIF")
        image = files.find("SPECTRAL_IMAGE", RASTERS)
        if files.find("METADATA", (".XML",)) is not None or image is None or named is None or not files.name:
            return None
        if named["level"].upper() != "L2A" or not self.nominal:
            return None
        with RasterReader(image) as source:
            told = source.spectrum.wavelengths_nm is not None or (source.scales != 1).any()
            return None if told or source.dtype != "int16" else self.nominal.get(source.count)

    def note_alone(self, path: Path) -> Note | None:
        """What to say of an image whose product's metadata aren't there; None for other files."""
        if not self._is_image_alone(path):
            return None
        return about_file(path.name, f"{self.name} image without its METADATA.XML: clouds and shadows aren't masked")

    def open(
        self, path: Path, role: Role, quality: Callable[[ProductFiles], tuple[Layers, str | None]]
    ) -> LayeredReader:
        """The product's bands (C, H, W), masked by the layers that `quality` finds; it also tells those it misses.

        InputError for what is missing or broken.
        """
        files = find_product(path, self.files, self.name)
        named = self.files.match(f"{files.name}-METADATA.XML")
        nominal = self._nominal(files)
        metadata = read_metadata(files) if nominal is None else None
        said = named["level"] if named is not None and files.name else _level(metadata)
        level = said.upper()
        if level not in QUANTITIES:
            level = level or "of a level that its metadata don't say"
            raise InputError(f"{files.name or path} is {self.name} {level}, {self.unfit}; wanted L2A or L1C")
        image = files.get("SPECTRAL_IMAGE", RASTERS)
        layers, missing = quality(files)
        facts = nominal or () if metadata is None else band_facts(*metadata, self.bands)
        reader = assemble(path, role, image, metadata, facts, layers)
        reader.quantity = QUANTITIES[level]
        called = files.name or path.absolute().stem
        reader.tags["PRODUCT"] = f"{self.name} {level}, {called}"
        if metadata is None:
            text = (
                f"lacks METADATA.XML: the wavelengths are {self.name}'s nominal ones, right to about half a "
                f"nanometre, and the numbers are taken as reflectance x 10,000, as in all of {level}"
            )
            reader.notes.append(about_file(called, text))
            date = _DATE.search(called)
            reader.tag(acquired=iso_time(date and date[1]))
        if missing is not None:
            reader.notes.append(about_file(called, f"lacks {missing}"))
        return reader


#: When an image was taken, in its name.
_DATE = re.compile(r"_(\d{8}T\d{6})Z?_")


def _level(metadata: tuple[Path, Element] | None) -> str:
    return "" if metadata is None else text(metadata[1], "level", "processingLevel") or ""


def read_metadata(files: ProductFiles) -> tuple[Path, Element]:
    """The metadata file and its root element; InputError when it is missing or broken."""
    path = files.get("METADATA", (".XML",))
    return path, parse_xml(read_part(path), path)


def band_facts(path: Path, root: Element, names: Sequence[str]) -> list[BandFacts]:
    """The facts on each band, in the order of the band numbers; InputError when one is missing."""
    own, centre, _, gain_name, offset_name = names
    bands = [b for table in elements(root, "bandCharacterisation") for b in table if plain_name(b) == own]
    if not bands:
        raise InputError(f"{path} describes no bands: wanted bandCharacterisation with {own} and {centre}")
    bands = _in_order(bands)
    columns = [
        [number(text(band, name), f"{name} of band {i}", path) for i, band in enumerate(bands, 1)] for name in names[1:]
    ]
    for i, (gain, offset) in enumerate(zip(*columns[2:], strict=True), 1):
        if gain == 0 or max(abs(gain), abs(offset)) > LARGEST:
            raise InputError(f"{path} says {gain_name} = {gain:g} and {offset_name} = {offset:g} for band {i}")
    centres, factor, _ = to_nm(columns[0], "nm")
    widths, _ = widths_to_nm(columns[1], factor)
    fwhm = [None] * len(centres) if widths is None else widths
    return [BandFacts(*facts) for facts in zip(centres, fwhm, *columns[2:], strict=True)]


def _in_order(bands: list[Element]) -> list[Element]:
    """By band number, when the numbers are 1 to n."""
    numbers = [(band.get("number") or text(band, "bandNumber") or "").strip() for band in bands]
    places = {str(i + 1): i for i in range(len(bands))}
    if set(numbers) != set(places):
        return bands
    return [band for _, band in sorted(zip(numbers, bands, strict=True), key=lambda pair: places[pair[0]])]


def assemble(
    path: Path,
    role: Role,
    image: Path,
    metadata: tuple[Path, Element] | None,
    bands: Sequence[BandFacts],
    layers: Layers,
) -> LayeredReader:
    """The cube (C, H, W) of a spectral image, masked where a flag of a quality layer (bands 0-based) says so.

    InputError when the image has another size than the metadata say, or a part can't be read.
    """
    with ExitStack() as stack:
        source = stack.enter_context(RasterReader(image))
        if metadata is not None:
            _check_size(source, metadata, len(bands))
        masks = []
        for file, flags in layers.items():
            quality = stack.enter_context(RasterReader(file))
            masks += [_mask_layer(quality, *flag) for flag in flags]
        nodata, note = _nodata(source, metadata)
        stacked = [_layer(source, i, facts, nodata) for i, facts in enumerate(bands)]
        reader = LayeredReader(path, stacked, masks, role)
        _describe(reader, metadata, note)
        stack.pop_all()
    return reader


def _check_size(source: RasterReader, metadata: tuple[Path, Element], bands: int) -> None:
    path, root = metadata
    if source.count != bands:
        raise InputError(f"{source.path} has {source.count} bands but {path.name} describes {bands}")
    said = [text(root, name) or "" for name in ("heightOfOrthoScene", "widthOfOrthoScene")]
    if all(s.isdecimal() and len(s) < 10 for s in said) and source.grid.shape != tuple(map(int, said)):
        raise InputError(
            f"{source.path} has {source.grid.shape[0]} x {source.grid.shape[1]} pixels but {path.name} says "
            f"{said[0]} x {said[1]}; is the download complete?"
        )


def _layer(source: RasterReader, band: int, facts: BandFacts, nodata: float) -> Layer:
    # Some deliveries name another background value than the one their pixels have.
    blank = () if nodata == BACKGROUND or source.dtype != "int16" else (BACKGROUND,)
    name = f"band {band + 1}"
    return Layer(source, band, name, facts.gain, facts.offset, nodata, blank, facts.centre_nm, facts.fwhm_nm)


def _mask_layer(quality: RasterReader, band: int, flag: Flag, what: str) -> MaskLayer:
    if band >= quality.count:
        raise InputError(f"{quality.path} has {quality.count} bands; wanted at least {band + 1}")
    return MaskLayer(quality, (band,), lambda raw: ~flag.masks(raw[0]), what)


def _nodata(source: RasterReader, metadata: tuple[Path, Element] | None) -> tuple[float, str | None]:
    """The background value: the image's own, else the metadata's, else the specification's."""
    if source.nodata is not None:
        return source.nodata, None
    try:
        if metadata is None:
            raise InputError("no metadata")
        return number(text(metadata[1], "backgroundValue"), "backgroundValue", metadata[0]), None
    except InputError:
        return BACKGROUND, f"no background value is named; the product specification's {BACKGROUND} is used"


def _describe(reader: LayeredReader, metadata: tuple[Path, Element] | None, note: str | None) -> None:
    reader.spectrum = replace(reader.spectrum, names=None, good=_holding(reader))
    if metadata is not None:
        reader.files = (*reader.files, metadata[0])
        start = next((text(e, "startTime") for e in elements(metadata[1], "temporalCoverage")), None)
        reader.tag(acquired=iso_time(start))
    if note is not None:
        reader.notes.append(about_file(reader.path.name, note))
    if reader.spectrum.good is not None:
        empty = ", ".join(str(i + 1) for i, good in enumerate(reader.spectrum.good) if not good)
        reader.notes.append(about_file(reader.path.name, f"band {empty} of {reader.count}: no values, marked bad"))


def _holding(reader: LayeredReader) -> tuple[bool, ...] | None:
    """Bands with a value in the middle of the image, where others have some; None when all have, or none has."""
    rows, cols = reader.grid.shape
    h, w = min(rows, _LOOK), min(cols, _LOOK)
    raw, _ = reader.pixels(range(reader.count), Window((cols - w) // 2, (rows - h) // 2, w, h))
    held = raw != np.array(reader.nodata_values, dtype=np.float64)[:, None, None]
    somewhere = held.any(axis=0)
    good = held[:, somewhere].any(axis=1)
    return tuple(good.tolist()) if somewhere.any() and not good.all() else None

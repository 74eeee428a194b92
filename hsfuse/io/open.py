"""`open_cube`: a product, a raster, or several as one image, such as single-band files that STAC catalogues list."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from math import log10
from pathlib import Path
from typing import TYPE_CHECKING, Union
from xml.etree.ElementTree import ParseError

import numpy as np
from numpy.typing import NDArray

from hsfuse.core.cube import BoolArray, Cube
from hsfuse.core.errors import InputError
from hsfuse.core.notes import Note, about_file
from hsfuse.io.files import Address, as_path
from hsfuse.io.layers import Layer, LayeredReader, MaskLayer
from hsfuse.io.products import desis, enmap, landsat, open_product, sentinel2
from hsfuse.io.products.bundle import RASTERS, is_archive, listing
from hsfuse.io.products.metadata import elements, read_xml, text
from hsfuse.io.raster import RasterReader
from hsfuse.io.reader import CubeReader, Paths, Quantity, Role

if TYPE_CHECKING:
    from xarray import DataArray

_BAND = re.compile(r"(?:SR)?B(\d{1,2}|8A)$", re.IGNORECASE)
_SENTINEL2 = re.compile(r"(^|_)(S2[A-D]|T\d\d[A-Z]{3})_", re.IGNORECASE)
#: Files of a list that are masks, by a word of their name.
_QUALITY: dict[str, tuple[Callable[[NDArray], BoolArray], str]] = {
    "SCL": (sentinel2.clear_classes, f"SCL classes {', '.join(map(str, sentinel2.MASKED_CLASSES))}"),
    "QA_PIXEL": (landsat.clear_pixels, "QA_PIXEL fill, dilated cloud, cirrus, cloud, cloud shadow"),
}


def open_stack(paths: Sequence[Path], role: Role = "raster") -> LayeredReader:
    """The bands of all files as one cube on the finest one's grid, named after the files or their descriptions.

    Files named *SCL* or *QA_PIXEL* are masks. A band of a Sentinel-2 SAFE folder or of Landsat Collection 2 gets its
    product's scale and offset. InputError when a file can't be read or no band is left, GridError when the grids
    don't nest.
    """
    with ExitStack() as stack:
        layers: list[Layer] = []
        masks: list[MaskLayer] = []
        sources: list[CubeReader] = []
        names = _names(paths)
        for path, name in zip(paths, names, strict=True):
            word = quality_word(path)
            source = stack.enter_context(RasterReader(path, "MSI", given=True) if word else _open_part(path))
            if word is not None:
                masks.append(MaskLayer(source, (0,), *_QUALITY[word]))
            else:
                sources.append(source)
                layers += _layers(source, name)
        if not layers:
            raise InputError(f"{', '.join(p.name for p in paths)}: only masks; name the bands as well")
        _check_names(layers)
        layers, converted = _in_one_unit(layers)
        reader = LayeredReader(paths[0], layers, masks, role, sharpen=True)
        stack.pop_all()
    reader.notes += converted
    _tell(reader, sources)
    return reader


#: Levels of bands of one image differ less than this; units differ by percent, per mille and x 10,000.
_SAME_LEVEL, _UNITS = 30.0, (100.0, 1000.0, 10_000.0)


def _in_one_unit(layers: list[Layer]) -> tuple[list[Layer], list[Note]]:
    """The layers with those of a file in another unit than most brought to theirs, and what to say of it.

    Only files that say nothing of their unit are compared, by their medians.
    """
    free = [layer for layer in layers if layer.source.quantity == "unknown" and (layer.scale, layer.offset) == (1, 0)]
    levels = {layer.name: _level(layer) for layer in free}
    known = [level for level in levels.values() if level > 0]
    usual = float(np.median(known)) if len(known) > 2 else 0.0
    told, out = [], []
    for layer in layers:
        ratio = levels.get(layer.name, 0.0) / usual if usual else 0.0
        far = ratio > _SAME_LEVEL or 0 < ratio < 1 / _SAME_LEVEL
        unit = min(_UNITS, key=lambda unit: abs(log10(unit) - abs(log10(ratio)))) if far else 1.0
        if far and 1 / 5 < max(ratio, 1 / ratio) / unit < 5:
            factor = 1 / unit if ratio > 1 else unit
            text = f"its numbers are about {ratio:.3g} times the other files': it alone is multiplied by {factor:g}"
            told.append(about_file(layer.source.path.name, text))
            layer = replace(layer, scale=factor)
        out.append(layer)
    return out, told


def _level(layer: Layer) -> float:
    """Median of a layer's valid numbers in a decimated look; 0 without any."""
    rows, cols = layer.source.grid.shape
    data, valid = layer.source.sample([layer.band], (min(64, rows), min(64, cols)))
    return float(np.median(data[valid])) if valid.any() else 0.0


def quality_word(path: Path) -> str | None:
    """What kind of mask a file's name says it is; None: it isn't one."""
    stem = f"_{path.stem.upper()}_".replace("-", "_").replace(".", "_")
    return next((word for word in _QUALITY if f"_{word}_" in stem), None)


def name_bands(reader: CubeReader) -> None:
    """Give the bands of a VRT that stacks single files (gdalbuildvrt -separate) those files' names."""
    if reader.path.suffix.lower() != ".vrt" or any(reader.spectrum.names or ()):
        return
    try:
        bands = list(elements(read_xml(reader.path), "VRTRasterBand"))
    except (InputError, ParseError):
        return
    sources = [text(band, "SourceFilename") for band in bands]
    if len(sources) == reader.count and None not in sources and len(set(sources)) == len(sources):
        reader.spectrum = replace(reader.spectrum, names=tuple(_names([Path(str(name)) for name in sources])))


def _open_part(path: Path) -> CubeReader:
    return sentinel2.open_band(path, "MSI") or landsat.open_band(path, "MSI") or RasterReader(path, "MSI", given=True)


def _layers(source: CubeReader, name: str) -> list[Layer]:
    """All bands of a file; a file of one band is called after its name, others after their descriptions."""
    spectrum = source.spectrum
    described = spectrum.names or ("",) * source.count
    names = [name] if source.count == 1 else [text or f"{name} {i}" for i, text in enumerate(described, start=1)]
    return [
        Layer(
            source, i, names[i], source.scales[i], source.offsets[i], source.nodata_values[i],
            wavelength_nm=None if spectrum.wavelengths_nm is None else spectrum.wavelengths_nm[i],
            fwhm_nm=None if spectrum.fwhm_nm is None else spectrum.fwhm_nm[i],
        )
        for i in range(source.count)
    ]  # fmt: skip


def _names(paths: Sequence[Path]) -> list[str]:
    """A name for each file: its band (B2, B8A), else the words of its name that it doesn't share with the others."""
    words = [re.split(r"[_\-. ]+", path.stem) for path in paths]
    shared = set.intersection(*(set(w) for w in words)) if len(words) > 1 else set()
    return [_band(w) or " ".join(word for word in w if word not in shared) or " ".join(w) for w in words]


def _band(words: Sequence[str]) -> str | None:
    found = [match[1] for word in words if (match := _BAND.match(word))]
    return f"B{found[-1].upper().lstrip('0')}" if found else None


def _check_names(layers: Sequence[Layer]) -> None:
    """InputError when two files are the same band, such as B02 at 10 m and at 20 m."""
    seen: dict[str, Layer] = {}
    for layer in layers:
        other = seen.setdefault(layer.name, layer)
        if other is not layer and other.source is not layer.source:
            raise InputError(
                f"{other.source.path.name} and {layer.source.path.name} are both band {layer.name}; name each once"
            )


def _tell(reader: LayeredReader, sources: Sequence[CubeReader]) -> None:
    """What the files agree on: quantity and tags; and what each says aloud, once."""
    quantities: set[Quantity] = {source.quantity for source in sources}
    if len(quantities) > 1:
        raise InputError(
            f"{sources[0].path.name} and the other files hold different quantities ({', '.join(sorted(quantities))})"
        )
    reader.quantity = quantities.pop()
    for key in ("PRODUCT", "SENSOR", "ACQUIRED"):
        values = {source.tags.get(key) for source in sources}
        if len(values) == 1 and (value := values.pop()):
            reader.tags[key] = value
    if any(_says_sentinel2(source.path) for source in sources) and (reader.scales == 1).all():
        reader._note(
            "Sentinel-2 without its metadata: from processing baseline 04.00 (January 2022) on, the numbers have an "
            "offset of -1000, unless the provider has removed it; named in their SAFE folder, files get it applied"
        )
    told: dict[str, tuple[Note, list[str]]] = {}
    for source in sources:
        for note in source.notes:
            same = replace(note, values={key: value for key, value in note.values.items() if key != "file"})
            told.setdefault(same.text, (same, []))[1].append(source.path.name)
    for note, files in told.values():
        file = files[0] if len(files) == 1 else f"{len(files)} files"
        reader.notes.append(replace(note, values={"file": file, **note.values}))


def _told_of_archive(path: Path) -> str:
    """What to say of an archive of no known product; InputError when it can't be read."""
    rasters = [file for file in listing(path) if file.suffix.lower() in (*RASTERS, ".jp2")]
    inside = str(rasters[0]).replace("{", "").replace("}", "") if rasters else ""
    advice = f"name a raster in it, such as {inside}" if inside else "it holds no raster, either"
    return f"{path} is an archive of none of the products that are known by their files' names; {advice}"


def _says_sentinel2(path: Path) -> bool:
    """Whether a file's name, or its folder's, is of Sentinel-2: catalogues call the bands B02.tif alone."""
    return any(_SENTINEL2.search(f"{name}_") for name in (path.name, path.absolute().parent.name))


#: What can be opened: files, or a cube in memory.
Images = Union[Paths, Cube, "DataArray"]


def open_cube(path: Images, *, role: Role = "raster") -> CubeReader:
    """Open a product, an ENVI pair (header or data file named), GeoTIFF or other raster for reading by window.

    Several paths are the bands of one image (see `hsfuse.io.open`); an `xarray.DataArray` or a `Cube` is read where it
    is (see `hsfuse.io.memory`). With role "HSI" wavelengths must be known. Raises InputError, in one line, for
    whatever can't be read.

    >>> from hsfuse import open_cube
    >>> with open_cube(reference) as reader:
    ...     cube = reader.read()
    >>> cube.data.shape, cube.grid.gsd, bool(cube.mask.all())
    ((40, 48, 48), (10.0, 10.0), True)
    """
    if not isinstance(path, str | Path) and (isinstance(path, Cube) or not isinstance(path, Sequence)):
        from hsfuse.io.memory import open_memory

        return open_memory(path, role)
    several = [path] if isinstance(path, str | Path) else path
    if strange := [type(one).__name__ for one in several if not isinstance(one, str | Path)]:
        raise InputError(f"the {role} is a list with a {strange[0]}; wanted paths in it, or one image that is no list")
    paths = [as_path(one) for one in several]
    reader = _open_files(paths, role)
    reader.opened = partial(open_cube, [one.absolute() if one.exists() else one for one in paths], role=role)
    return reader


def open_hsi(hsi: Images, msi: Images) -> CubeReader:
    """The HSI of a pair as `open_cube` opens it; InputError, which says so where the MSI looks like the HSI."""
    try:
        return open_cube(hsi, role="HSI")
    except InputError as error:
        if told := _swapped(hsi, msi):
            raise InputError(f"{error}; {told}") from error
        raise


def _swapped(hsi: Images, msi: Images) -> str:
    """What to say where the MSI has the wavelengths, and more bands; "" where it hasn't."""
    try:
        with open_cube(hsi) as few, open_cube(msi, role="HSI") as many:
            if few.count < many.count:
                return f"the MSI has them, and {many.count} bands, the HSI {few.count}: are the two swapped?"
    except InputError:
        pass
    return ""


def is_remote(path: str | Path) -> bool:
    """Whether GDAL fetches what a path names, or unpacks it: opening it twice costs seconds."""
    return str(path).startswith("/vsi") or isinstance(as_path(path), Address)


def check_readable(paths: Paths | None, role: Role = "raster", msi: Paths | None = None) -> None:
    """InputError for a file that can't be opened, where that is soon told; to be called before anything heavy.

    Of an HSI with its `msi` the error says where the two look swapped.
    """
    several = [paths] if isinstance(paths, str | Path) else paths or []
    if several and not any(map(is_remote, several)):
        (open_cube(several, role=role) if msi is None else open_hsi(several, msi)).close()


def _open_files(paths: list[Path], role: Role) -> CubeReader:
    if not paths:
        raise InputError("no file to open")
    if len(paths) > 1:
        return open_stack(paths, role)
    product = open_product(paths[0], role)
    if product is not None:
        return product
    if paths[0].is_file() and is_archive(paths[0]):
        raise InputError(_told_of_archive(paths[0]))
    reader = RasterReader(paths[0], role, given=True)
    name_bands(reader)
    reader.notes += [told for product in (enmap, desis) if (told := product.note_alone(paths[0])) is not None]
    return reader

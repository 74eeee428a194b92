"""What a file is made of, as a small text without pixels: for whoever mends a reader that reads it wrongly."""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element

import rasterio

from hsfuse.core.errors import HsfuseError
from hsfuse.core.package import __version__
from hsfuse.io.envi import find_pair
from hsfuse.io.files import split_paths
from hsfuse.io.gdal import descriptions, gdal_env, open_dataset, tags
from hsfuse.io.limits import MOST_XML, read_bounded
from hsfuse.io.open import open_cube
from hsfuse.io.products.bundle import is_archive, open_bundle
from hsfuse.io.products.hdf5 import open_hdf5
from hsfuse.io.products.metadata import parse_xml, plain_name

#: Characters of one value, lines of one part, and files of a folder or archive that are named.
LONGEST, MOST_LINES, MOST_FILES = 160, 600, 200
#: Endings of HDF5 files.
_HDF5 = (".he5", ".h5", ".hdf5", ".nc")


def bug_report(path: Path) -> str:
    """Versions, how the file is read or why not, the files beside it or in it, and their structure and attributes.

    Values are cut to `LONGEST` characters; no pixels are in it.
    """
    parts = {
        "versions": [
            f"hsfuse {__version__}, rasterio {rasterio.__version__}, GDAL {rasterio.__gdal_version__}",
            f"Python {platform.python_version()}, {platform.system()} {platform.machine()}",
        ],
        "read as": _reading(path),
        "files": _files(path),
    }
    if path.is_file():
        kinds = {**dict.fromkeys(_HDF5, _hdf5), ".xml": _xml, ".hdr": _header}
        describe = kinds.get(path.suffix.lower(), _raster)
        parts["structure"] = _attempt(describe, path)
    lines = [f"bug report on {path.name}"]
    for name, told in parts.items():
        more = [f"  ... and {len(told) - MOST_LINES} lines more"] if len(told) > MOST_LINES else []
        lines += ["", f"[{name}]", *(f"  {_short(line)}" for line in told[:MOST_LINES]), *more]
    return "\n".join(lines) + "\n"


def _reading(path: Path) -> list[str]:
    try:
        with open_cube(split_paths(path)) as reader:
            spectrum = reader.spectrum
            return [
                f"{type(reader).__name__}, {reader.driver}, {reader.count} bands, {reader.grid.describe()}",
                f"{reader.dtype}, scales {_few(reader.scales)}, offsets {_few(reader.offsets)}, {reader.quantity}",
                f"nodata {_few(reader.nodata_values)}",
                f"wavelengths {_few(spectrum.wavelengths_nm)}, FWHM {_few(spectrum.fwhm_nm)}",
                f"names {_few(spectrum.names)}",
                *(f"tag {key} = {value}" for key, value in reader.tags.items() if not key.startswith("HSFUSE_")),
                *(f"note: {note}" for note in reader.notes),
            ]
    except HsfuseError as error:
        return [f"{type(error).__name__}: {error}"]


def _files(path: Path) -> list[str]:
    """Names and sizes of what is beside a file, in a folder or in an archive."""
    try:
        if path.is_file() and is_archive(path):
            names = list(open_bundle(path, r"$^").files)
        else:
            root = path if path.is_dir() else path.parent
            files = sorted(root.rglob("*") if path.is_dir() else root.glob(f"{path.stem[:12]}*"))
            names = [f"{file.relative_to(root)} ({file.stat().st_size} bytes)" for file in files if file.is_file()]
    except (HsfuseError, OSError) as error:
        return [str(error)]
    return [*names[:MOST_FILES], *([f"... and {len(names) - MOST_FILES} more"] if len(names) > MOST_FILES else [])]


def _attempt(describe: Callable[[Path], Iterator[str]], path: Path) -> list[str]:
    """The lines of a description, as far as it comes; then what stopped it."""
    lines: list[str] = []
    try:
        for line in describe(path):
            lines.append(line)
            if len(lines) > 2 * MOST_LINES:
                break
    except Exception as error:  # whatever is wrong with the file is what is to be reported
        lines.append(f"stopped by {type(error).__name__}: {error}")
    return lines


def _hdf5(path: Path) -> Iterator[str]:
    with open_hdf5(path) as file:
        names: list[str] = []
        file.visit(names.append)
        for name in ["/", *names]:
            item = file[name]
            shape = f" {item.shape} of {item.dtype}, chunks {item.chunks}" if hasattr(item, "dtype") else "/"
            yield f"{name}{shape}"
            for key in item.attrs:
                yield f"    {key} = {_short(str(item.attrs[key]))}"


def _xml(path: Path) -> Iterator[str]:
    seen: set[tuple[str, ...]] = set()
    stack: list[tuple[Element, tuple[str, ...]]] = [(parse_xml(read_bounded(path, MOST_XML), path), ())]
    while stack:
        element, above = stack.pop()
        place = (*above, plain_name(element))
        if place not in seen:  # one of each kind tells how the others are
            value = (element.text or "").strip()
            attributes = " ".join(f"{key}={text!r}" for key, text in element.attrib.items())
            yield f"{'  ' * len(above)}{place[-1]} {attributes} {value}"
        seen.add(place)
        stack += [(child, place) for child in reversed(element)]


def _header(path: Path) -> Iterator[str]:
    pair = find_pair(path)
    for key, value in ({} if pair is None else pair.fields).items():
        yield f"{key} = {value}"


def _raster(path: Path) -> Iterator[str]:
    with gdal_env(), open_dataset(path, "the raster", given=True)[0] as ds:
        yield f"{ds.driver}, {ds.count} bands, {ds.width} x {ds.height}, {ds.dtypes[0]}, blocks {ds.block_shapes[0]}"
        yield f"masks {_few([[flag.name for flag in flags] for flags in ds.mask_flag_enums])}"
        yield f"colours {_few([colour.name for colour in ds.colorinterp])}, descriptions {_few(descriptions(ds))}"
        for domain in ["", *ds.tag_namespaces()]:
            for key, value in tags(ds, domain=domain or None).items():
                yield f"tag {domain}:{key} = {value}"
        for band in (1, ds.count):
            for domain in ["", *ds.tag_namespaces(band)]:
                for key, value in tags(ds, band, domain or None).items():
                    yield f"band {band} tag {domain}:{key} = {value}"


def _short(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}..."


def _few(values: Iterable[Any] | None) -> str:
    """All values where they are few or equal, else the first ones and the last."""
    found = [] if values is None else list(values)
    if not found:
        return "none"
    if all(value == found[0] for value in found):
        return f"{found[0]} ({len(found)} times)"
    return ", ".join(map(str, found if len(found) <= 6 else [*found[:4], "...", found[-1]]))

"""ENVI file pairs: which header belongs to which data file, what the header says, and whether the sizes agree.

Pixels are read by rasterio; the header is read here because GDAL keeps going where a header and its data disagree, and
rounds the wavelengths it derives from it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from hsfuse.errors import InputError

#: Endings of ENVI data files in use; "" is a data file without one.
DATA_SUFFIXES = ("", ".dat", ".img", ".bsq", ".bil", ".bip", ".raw", ".bin", ".envi", ".cube")

#: Bytes a pixel by the header's `data type`.
TYPE_BYTES = {1: 1, 2: 2, 3: 4, 4: 4, 5: 8, 6: 8, 9: 16, 12: 2, 13: 4, 14: 8, 15: 8}

_TIFF_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_FIELD = re.compile(r"^[ \t]*([^=;{}\n]+?)[ \t]*=[ \t]*(\{[^}]*\}|[^\n]*)", re.MULTILINE)


@dataclass(frozen=True)
class EnviPair:
    """A header with its data file; `fields` has lower-case names, single-blank separated, values without braces."""

    header: Path
    data: Path
    fields: Mapping[str, str]

    def items(self, name: str) -> list[str]:
        """The values of a list field, [] when absent."""
        text = self.fields.get(name, "")
        return [item.strip() for item in text.split(",")] if text.strip() else []


def find_pair(path: Path) -> EnviPair | None:
    """The ENVI pair that `path` (header or data file) belongs to, sizes checked; None when it is something else.

    Raises InputError for a header that isn't ENVI's or has no data file, and where header and data size disagree.
    """
    if path.suffix.lower() == ".hdr":
        return _pair_of_header(path)
    header = _header_of(path)
    if header is None or _starts_like_tiff(path) or not _is_envi_header(header):
        return None
    return _checked(EnviPair(header, path, read_header(header)))


def read_header(path: Path) -> dict[str, str]:
    """All fields of an ENVI header as text; InputError when the file isn't one."""
    if not _is_envi_header(path):
        raise InputError(f"{path} isn't an ENVI header: its first line should be ENVI")
    raw = path.read_bytes()
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = raw.decode("latin-1")
    found = _FIELD.findall(text.replace("\r\n", "\n"))
    return {" ".join(name.lower().split()): value.strip(" \t{}\n").replace("\n", " ") for name, value in found}


def siblings(path: Path) -> list[Path]:
    """The files that make up the raster at `path`: itself, and for ENVI its header or data file too."""
    if path.suffix.lower() == ".hdr":
        return [path, *_data_candidates(path)]
    header = _header_of(path) if path.is_file() and not _starts_like_tiff(path) else None
    return [path] if header is None else [path, header]


def _pair_of_header(header: Path) -> EnviPair:
    fields = read_header(header)
    _refuse_library(header, fields)
    candidates = _data_candidates(header)
    if not candidates:
        stem = header.with_suffix("").name
        raise InputError(
            f"{header} is a header without its data file: wanted {stem}, {stem}.dat, {stem}.img, ... there"
        )
    fitting = [data for data in candidates if data.stat().st_size == _wanted_bytes(header, fields)]
    return _checked(EnviPair(header, (fitting or candidates)[0], fields))


def _data_candidates(header: Path) -> list[Path]:
    stem = header.with_suffix("")
    names = [Path(f"{stem}{suffix}") for ending in DATA_SUFFIXES for suffix in dict.fromkeys((ending, ending.upper()))]
    return [name for name in names if name.is_file()]


def _header_of(data: Path) -> Path | None:
    names = [Path(f"{base}{ending}") for base in (data, data.with_suffix("")) for ending in (".hdr", ".HDR")]
    return next((name for name in names if name.is_file() and name != data), None)


def _is_envi_header(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(64).removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"ENVI")


def _starts_like_tiff(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(4) in _TIFF_MAGIC


def _checked(pair: EnviPair) -> EnviPair:
    """The pair, when it is a raster whose file size is what the header promises."""
    _refuse_library(pair.data, pair.fields)
    wanted, found = _wanted_bytes(pair.header, pair.fields), pair.data.stat().st_size
    if found == 0:
        raise InputError(f"{pair.data} is empty; its header wants {wanted} bytes")
    if found != wanted and pair.fields.get("file compression", "0") == "0":
        size = " x ".join(pair.fields[name] for name in ("samples", "lines", "bands"))
        raise InputError(
            f"{pair.header.name} and {pair.data.name} disagree: {size} (samples, lines, bands) of data type "
            f"{pair.fields['data type']} make {wanted} bytes with the header offset, but the file has {found}"
        )
    return pair


def _refuse_library(path: Path, fields: Mapping[str, str]) -> None:
    kind = fields.get("file type", "")
    if "library" in kind.lower():
        raise InputError(f"{path} belongs to a spectral library ({kind}), not a raster")


def _wanted_bytes(header: Path, fields: Mapping[str, str]) -> int:
    samples, lines, bands = (_whole(header, fields, name) for name in ("samples", "lines", "bands"))
    code = _whole(header, fields, "data type")
    if code not in TYPE_BYTES:
        raise InputError(f"{header} has the unknown data type {code}; known: {', '.join(map(str, TYPE_BYTES))}")
    offset = _whole(header, fields, "header offset") if "header offset" in fields else 0
    return offset + samples * lines * bands * TYPE_BYTES[code]


def _whole(header: Path, fields: Mapping[str, str], name: str) -> int:
    text = fields.get(name)
    if text is None:
        raise InputError(f"{header} lacks the field '{name}'")
    if not text.isdecimal() or len(text) > 18:  # "²" is a digit, but no decimal one
        raise InputError(f"{header} says {name} = {text}; wanted a whole number")
    return int(text)

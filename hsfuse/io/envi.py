"""ENVI's pairs of a header and a data file: found by either, read, and their sizes held against each other."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hsfuse.core.errors import InputError

#: Endings of GeoTIFF files that an ENVI header of file type TIFF may lie beside.
TIFF_SUFFIXES = (".tif", ".tiff")
#: Bytes that a header may have: lists of a thousand bands fill a hundredth of it.
MOST_HEADER_BYTES = 4 * 2**20

#: Bytes a pixel by the header's `data type`.
TYPE_BYTES = {1: 1, 2: 2, 3: 4, 4: 4, 5: 8, 6: 8, 9: 16, 12: 2, 13: 4, 14: 8, 15: 8}

#: The mark that some editors put before UTF-8.
BOM = b"\xef\xbb\xbf"
_TIFF_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


@dataclass(frozen=True)
class EnviPair:
    """A header with its data file; `fields` has lower-case names, single-blank separated, values without braces.

    `tiff`: the data are a GeoTIFF, which says all but the bands' facts itself.
    """

    header: Path
    data: Path
    fields: Mapping[str, str]
    tiff: bool = False

    def items(self, name: str) -> list[str]:
        """The values of a list field, [] when absent."""
        text = self.fields.get(name, "")
        return [item.strip() for item in text.split(",")] if text.strip() else []


def find_pair(path: Path) -> EnviPair | None:
    """The ENVI pair that `path` (header or data file) belongs to, sizes checked; None when it is something else.

    A GeoTIFF with a header of file type TIFF beside it is one, too, as ENVI and EnMAP-Box write them. Raises InputError
    for a header that isn't ENVI's or has no data file, and where header and data size disagree.
    """
    if path.suffix.lower() == ".hdr":
        return _pair_of_header(path)
    header = header_of(path)
    if header is None or not _is_envi_header(header):
        return None
    if _starts_like_tiff(path):
        fields = read_header(header)
        return EnviPair(header, path, fields, tiff=True) if _says_tiff(fields) else None
    return _checked(EnviPair(header, path, read_header(header)))


def read_header(path: Path) -> dict[str, str]:
    """All fields of an ENVI header as text; InputError when the file isn't one."""
    if not _is_envi_header(path):
        raise InputError(f"{path} isn't an ENVI header: its first line should be ENVI")
    if path.stat().st_size > MOST_HEADER_BYTES:
        raise InputError(f"{path} has {path.stat().st_size} bytes; an ENVI header has at most {MOST_HEADER_BYTES}")
    raw = path.read_bytes()
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = raw.decode("latin-1")
    return {
        " ".join(name.lower().split()): value.strip(" \t{}\n").replace("\n", " ")
        for name, value in _fields(text.replace("\r\n", "\n"))
    }


def _fields(text: str) -> Iterator[tuple[str, str]]:
    """Names and values of `name = value` lines, a value in braces over several lines, in one pass."""
    at, closed = 0, True
    while at < len(text):
        end = text.find("\n", at)
        end = len(text) if end < 0 else end
        name, equals, value = text[at:end].partition("=")
        at = end + 1
        if not equals or not name.strip() or any(mark in name for mark in ";{}"):
            continue
        if closed and value.lstrip(" \t").startswith("{"):
            start = end - len(value)
            close = text.find("}", start)
            closed = close >= 0
            if closed:
                value, at = text[start : close + 1], close + 1
        yield name, value


def siblings(path: Path) -> list[Path]:
    """The files that make up the raster at `path`: itself, and for ENVI its header or data file too."""
    try:
        pair = find_pair(path) if path.is_file() else None
    except (InputError, OSError):  # one that can't be read is still not to be written over, nor forgotten
        header = path if path.suffix.lower() == ".hdr" else header_of(path)
        return [path] if header is None else list(dict.fromkeys([path, header, *_beside(header)]))
    return [path] if pair is None else list(dict.fromkeys([path, pair.header, pair.data]))


def _pair_of_header(header: Path) -> EnviPair:
    fields = read_header(header)
    _refuse_library(header, fields)
    candidates = _beside(header)
    if _says_tiff(fields):
        found = [file for file in candidates if file.suffix.lower() in TIFF_SUFFIXES and _starts_like_tiff(file)]
        if not found:
            raise InputError(f"{header} describes a GeoTIFF ({fields['file type']}) that isn't there")
        return EnviPair(header, _only(header, found), fields, tiff=True)
    candidates = [file for file in candidates if file.suffix.lower() not in (*TIFF_SUFFIXES, ".xml", ".ovr", ".msk")]
    if not candidates:
        stem = header.with_suffix("").name
        raise InputError(
            f"{header} is a header without its data file: wanted {stem}, {stem}.dat, {stem}.img, ... there"
        )
    fitting = [data for data in candidates if data.stat().st_size == _wanted_bytes(header, fields)]
    return _checked(EnviPair(header, _only(header, fitting or candidates[:1]), fields))


def _only(header: Path, files: Sequence[Path]) -> Path:
    """The only data file of a header; InputError when several would fit."""
    if len(files) > 1:
        names = ", ".join(file.name for file in files)
        raise InputError(f"{header} fits {len(files)} files ({names}); name the one that is meant")
    return files[0]


def _says_tiff(fields: Mapping[str, str]) -> bool:
    return "tiff" in fields.get("file type", "").lower()


def _beside(header: Path) -> list[Path]:
    """The files with a header's name and any ending, or none: HySpex and others write endings of their own."""
    stem = header.with_suffix("").name
    found = [file for file in header.parent.iterdir() if file.name == stem or file.name.startswith(f"{stem}.")]
    return sorted(file for file in found if file.is_file() and file.suffix.lower() != ".hdr")


def header_of(data: Path) -> Path | None:
    """The ENVI header beside a data file."""
    names = [Path(f"{base}{ending}") for base in (data, data.with_suffix("")) for ending in (".hdr", ".HDR")]
    return next((name for name in names if name.is_file() and name != data), None)


def _is_envi_header(path: Path) -> bool:
    """Whether a file begins as an ENVI header; InputError for one in an encoding that GDAL can't read."""
    start = _start(path)
    if start.startswith((b"\xff\xfeE\0N\0V\0I\0", b"\xfe\xff\0E\0N\0V\0I")):
        raise InputError(f"{path} is an ENVI header in UTF-16; save it as plain text (UTF-8)")
    return start.removeprefix(BOM).lstrip().startswith(b"ENVI")


def _starts_like_tiff(path: Path) -> bool:
    return _start(path)[:4] in _TIFF_MAGIC


def _start(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(64)


def _checked(pair: EnviPair) -> EnviPair:
    """The pair, when it is a raster whose file size is what the header promises."""
    _refuse_library(pair.data, pair.fields)
    if _start(pair.header).startswith(BOM):  # of a GeoTIFF's header GDAL knows nothing
        raise InputError(f"{pair.header} begins with a byte order mark (BOM), which GDAL can't read; save it without")
    _check_layout(pair.header, pair.fields)
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


def _check_layout(header: Path, fields: Mapping[str, str]) -> None:
    """InputError for an interleave or byte order that there isn't: GDAL would take another without a word."""
    for name, known in (("interleave", ("bsq", "bil", "bip")), ("byte order", ("0", "1"))):
        if fields.get(name, known[0]).lower() not in known:
            raise InputError(f"{header} says {name} = {fields[name]}; wanted {' or '.join(known)}")


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

"""The files of a product by their paths below its root: in a folder, or in the archive that the agency delivers."""

from __future__ import annotations

import gzip
import re
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from tarfile import TarError, TarFile
from tarfile import open as open_tar
from typing import Any, BinaryIO, cast
from zipfile import BadZipFile, ZipFile

from hsfuse.core.errors import InputError
from hsfuse.io.limits import (
    MOST_MEMBERS,
    MOST_RATIO,
    MOST_XML,
    CarefulFile,
    bounded,
    check_members,
    check_zip,
    read_bounded,
)

#: Endings of tars packed by gzip.
_PACKED_TARS = (".tar.gz", ".tgz")
#: What reading a damaged or encrypted archive raises.
BROKEN = (
    OSError,
    BadZipFile,
    TarError,
    zlib.error,
    KeyError,
    StopIteration,
    NotImplementedError,
    RuntimeError,
    ValueError,
    EOFError,
)


@dataclass(frozen=True)
class Bundle:
    """A root and, by path below it with slashes, GDAL's paths of its `files`."""

    root: Path
    files: Mapping[str, Path]

    def matching(self, pattern: str) -> dict[str, Path]:
        """The files whose path below the root is all of a pattern, upper or lower case, in the order of their paths."""
        wanted = re.compile(pattern, re.IGNORECASE)
        return {name: path for name, path in self.files.items() if wanted.fullmatch(name)}

    def first(self, pattern: str) -> str | None:
        """The path below the root of the first file of a pattern."""
        return next(iter(self.matching(pattern)), None)

    def read(self, name: str) -> bytes:
        """The bytes of a file; InputError when it can't be read."""
        return read_part(self.files[name])


def _member(archive: Path, name: str) -> bytes:
    """The bytes of a file in an archive; one of `BROKEN`, or InputError, when they can't be had or are too many."""
    told = archive / name
    if archive.suffix.lower() == ".zip":
        with ZipFile(archive) as opened, opened.open(name) as packed:
            return bounded(packed, told, MOST_XML)
    with _careful_tar(archive) as tar:
        member = tar.extractfile(next(one for one in tar if one.name.removeprefix("./") == name))
        return b"" if member is None else bounded(member, told, MOST_XML)


def is_archive(path: Path) -> bool:
    """Whether the name is that of an archive."""
    return path.name.lower().endswith((".zip", ".tar", *_PACKED_TARS))


@contextmanager
def _careful_tar(path: Path) -> Iterator[TarFile]:
    """A tar, packed by gzip or not, that reads no long stretch at once and unpacks to no multitude of its size."""
    packed = path.name.lower().endswith(_PACKED_TARS)
    total = MOST_RATIO * path.stat().st_size + MOST_XML if packed else float("inf")
    with gzip.open(path) if packed else path.open("rb") as file:
        careful: Any = CarefulFile(cast(BinaryIO, file), 4 * MOST_XML, total)
        with open_tar(fileobj=careful, mode="r:") as tar:
            yield tar


def _tar_names(archive: Path) -> list[str]:
    """The plain files of a tar; links aren't followed. InputError beyond the most members."""
    names: list[str] = []
    with _careful_tar(archive) as tar:
        for count, member in enumerate(tar):
            if count > MOST_MEMBERS:
                raise InputError(f"{archive} is an archive of more than {MOST_MEMBERS} files, which no product is")
            if "path" in member.pax_headers:
                raise InputError(f"{archive} keeps long names in a form (pax) that GDAL doesn't read; unpack it first")
            names += [member.name] if member.isfile() else []
    return names


def open_bundle(root: Path, marker: str, depth: int = 1) -> Bundle:
    """The files of a folder (`depth` levels) or of an archive, there below the folder of the first file like `marker`.

    InputError when an archive can't be read.
    """
    if not is_archive(root):
        found = [file for level in range(1, depth + 1) for file in root.glob("/".join("*" * level)) if file.is_file()]
        return Bundle(root, {file.relative_to(root).as_posix(): file for file in sorted(found)})
    names = _entries(root)
    main = next((name for name in names if re.search(marker, name, re.IGNORECASE)), "")
    top = main[: main.rfind("/") + 1]
    return Bundle(root, {name[len(top) :]: _inside(root) / name for name in names if name.startswith(top)})


def _inside(archive: Path) -> Path:
    """GDAL's path of an archive's root."""
    return Path(f"/{'vsizip' if archive.suffix.lower() == '.zip' else 'vsitar'}/{{{archive.absolute()}}}")


def _entries(archive: Path) -> tuple[str, ...]:
    """The files of an archive, shallow ones first; InputError when it can't be read."""
    try:
        found = archive.stat()
    except OSError as error:
        raise InputError(f"{archive} can't be read: {error.strerror}") from error
    listed = _entries_of(archive, found.st_size, found.st_mtime_ns)
    if isinstance(listed, str):
        raise InputError(listed)
    return listed


@lru_cache(maxsize=8)  # each product asks, and to list a packed tar is to unpack it
def _entries_of(archive: Path, size: int, changed: int) -> tuple[str, ...] | str:
    """The files, or what is wrong."""
    try:
        if archive.suffix.lower() == ".zip":
            check_zip(archive)
            with ZipFile(archive) as opened:
                names = [name for name in opened.namelist() if not name.endswith("/")]
        else:
            names = _tar_names(archive)
        check_members(archive, names)
    except InputError as error:
        return str(error)
    except BROKEN as error:
        return f"{archive} is an archive that can't be read ({error}); is the download complete?"
    return tuple(sorted(names, key=lambda name: (name.count("/"), name)))


RASTERS = (".tif", ".tiff", ".bsq", ".bil", ".bip", ".img", ".dat")


@dataclass(frozen=True)
class ProductFiles:
    """One product: its name, where it lies, its files by part of the name (GDAL's paths, inside archives too)."""

    name: str
    folder: Path
    parts: Mapping[str, Path]

    def find(self, stem: str, suffixes: Sequence[str]) -> Path | None:
        """The file of a part such as METADATA, or of its cloud-optimised copy METADATA_COG."""
        names = [f"{base}{suffix}".lower() for base in (stem, f"{stem}_COG") for suffix in suffixes]
        by_name = {part.lower(): path for part, path in self.parts.items()}
        return next((by_name[name] for name in names if name in by_name), None)

    def get(self, stem: str, suffixes: Sequence[str]) -> Path:
        """As `find`; InputError when there is none."""
        found = self.find(stem, suffixes)
        if found is None:
            wanted = f"{self.name}-{stem}" if self.name else stem
            raise InputError(f"{self.folder} lacks {wanted}{suffixes[0]}; is the download complete?")
        return found


def holds(path: Path, pattern: re.Pattern[str], entries: str) -> bool:
    """Whether a folder or archive holds a product of that pattern, or a file is a part of it that matches `entries`."""
    if path.is_file() and not is_archive(path):
        match = pattern.match(path.name)
        return match is not None and re.match(entries, match["part"], re.IGNORECASE) is not None
    try:
        return any(pattern.match(file.name) for file in listing(path))
    except InputError:
        return pattern.match(f"{path.stem}-METADATA.XML") is not None


def find_product(path: Path, pattern: re.Pattern[str], kind: str) -> ProductFiles:
    """The one product there, by a pattern with the groups `name` and `part`; InputError when there are several."""
    found: dict[tuple[Path, str], dict[str, Path]] = {}
    for file in listing(path):
        if match := pattern.match(file.name):
            found.setdefault((file.parent, match["name"]), {})[match["part"]] = file
    if path.is_file() and not is_archive(path):
        own = pattern.match(path.name)
        found = {key: parts for key, parts in found.items() if own and key[1] == own["name"]}
    if len(found) != 1:
        names = ", ".join(sorted(name for _, name in found)[:3]) or "none"
        raise InputError(f"{path} holds {len(found)} {kind} products ({names}); name one by its metadata file")
    ((folder, name), parts), *_ = found.items()
    return ProductFiles(name, folder, parts)


def whole_files(path: Path, pattern: re.Pattern[str]) -> list[Path]:
    """Products of one file each: the file itself, or those in a folder, in the order of their names."""
    if path.is_dir():
        return sorted(file for file in path.glob("*") if pattern.match(file.name))
    return [path] if path.is_file() and pattern.match(path.name) else []


def one_of(path: Path, files: Sequence[Path], kind: str) -> Path:
    """The only one of the files found there; InputError when there are several."""
    if len(files) == 1:
        return files[0]
    names = ", ".join(file.name for file in files[:3])
    raise InputError(f"{path} holds {len(files)} {kind} ({names}); name one of them")


def read_part(path: Path) -> bytes:
    """The bytes of a file, inside an archive too; InputError when it can't be read."""
    match = re.match(r"/vsi(zip|tar)/\{(.*)\}/(.*)", str(path))
    if match is None:
        return read_bounded(path, MOST_XML)
    try:
        return _member(Path(match[2]), match[3])
    except InputError:
        raise
    except BROKEN as error:
        raise InputError(f"{match[2]}: {match[3]} can't be read: {error}") from error


def listing(path: Path) -> list[Path]:
    """The files of a folder and of those in it, of an archive, or those beside a file, in the order of their names."""
    try:
        if path.is_dir():
            return sorted(file for file in [*path.glob("*"), *path.glob("*/*")] if file.is_file())
        if path.is_file() and is_archive(path):
            return [_inside(path) / name for name in sorted(_entries(path))]
        return sorted(path.parent.glob("*")) if path.is_file() else []
    except OSError as error:
        raise InputError(f"{path} can't be read: {error}; is the download complete?") from error

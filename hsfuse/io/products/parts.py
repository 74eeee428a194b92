"""Products that are a set of files with one name: found from their folder, their archive, or any one of the files."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile, ZipFile

from hsfuse.errors import InputError

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
            raise InputError(f"{self.folder} lacks {self.name}-{stem}{suffixes[0]}; is the download complete?")
        return found


def holds(path: Path, pattern: re.Pattern[str], entries: str) -> bool:
    """Whether a folder or archive holds a product of that pattern, or a file is a part of it that matches `entries`."""
    if path.is_file() and not _is_archive(path):
        match = pattern.match(path.name)
        return match is not None and re.match(entries, match["part"], re.IGNORECASE) is not None
    try:
        return any(pattern.match(file.name) for file in _listing(path))
    except InputError:
        return pattern.match(f"{path.stem}-METADATA.XML") is not None


def find_product(path: Path, pattern: re.Pattern[str], kind: str) -> ProductFiles:
    """The one product there, by a pattern with the groups `name` and `part`; InputError when there are several."""
    found: dict[tuple[Path, str], dict[str, Path]] = {}
    for file in _listing(path):
        if match := pattern.match(file.name):
            found.setdefault((file.parent, match["name"]), {})[match["part"]] = file
    if path.is_file() and not _is_archive(path):
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
    match = re.match(r"/vsizip/\{(.*)\}/(.*)", str(path))
    try:
        if match is None:
            return path.read_bytes()
        with ZipFile(match[1]) as archive:
            return archive.read(match[2])
    except (OSError, BadZipFile, KeyError, NotImplementedError, RuntimeError, ValueError, EOFError) as error:
        raise InputError(f"{path} can't be read: {error}") from error


def _is_archive(path: Path) -> bool:
    return path.suffix.lower() == ".zip"


def _listing(path: Path) -> list[Path]:
    """The files of a folder and of those in it, of an archive, or those beside a file, in the order of their names."""
    try:
        if path.is_dir():
            return sorted(file for file in [*path.glob("*"), *path.glob("*/*")] if file.is_file())
        if path.is_file() and _is_archive(path):
            with ZipFile(path) as archive:
                return [Path(f"/vsizip/{{{path.absolute()}}}") / name for name in sorted(archive.namelist())]
        return sorted(path.parent.glob("*")) if path.is_file() else []
    except (OSError, BadZipFile, ValueError, NotImplementedError) as error:
        raise InputError(f"{path} can't be read: {error}; is the download complete?") from error

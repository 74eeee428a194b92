"""The files of a product by their paths below its root: in a folder, or in the archive that the agency delivers."""

from __future__ import annotations

import re
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from tarfile import TarError
from tarfile import open as open_tar
from zipfile import BadZipFile, ZipFile

from hsfuse.errors import InputError

#: What reading a damaged or encrypted archive raises.
BROKEN = (OSError, BadZipFile, TarError, zlib.error, KeyError, NotImplementedError, RuntimeError, ValueError, EOFError)


@dataclass(frozen=True)
class Bundle:
    """A root and, by path below it with slashes, GDAL's paths of its `files` and their names in an archive."""

    root: Path
    files: Mapping[str, Path]
    members: Mapping[str, str] = field(default_factory=dict)

    def matching(self, pattern: str) -> dict[str, Path]:
        """The files whose path below the root is all of a pattern, upper or lower case, in the order of their paths."""
        wanted = re.compile(pattern, re.IGNORECASE)
        return {name: path for name, path in self.files.items() if wanted.fullmatch(name)}

    def first(self, pattern: str) -> str | None:
        """The path below the root of the first file of a pattern."""
        return next(iter(self.matching(pattern)), None)

    def read(self, name: str) -> bytes:
        """The bytes of a file; InputError when it can't be read."""
        try:
            if not is_archive(self.root):
                return self.files[name].read_bytes()
            if self.root.suffix.lower() == ".zip":
                with ZipFile(self.root) as archive:
                    return archive.read(self.members[name])
            with open_tar(self.root, "r:") as tar:
                member = tar.extractfile(self.members[name])
                return b"" if member is None else member.read()
        except BROKEN as error:
            raise InputError(f"{self.root}: {name} can't be read: {error}") from error


def is_archive(path: Path) -> bool:
    """Whether the name is that of an archive."""
    return path.suffix.lower() in (".zip", ".tar")


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
    driver = "vsizip" if root.suffix.lower() == ".zip" else "vsitar"
    inside = Path(f"/{driver}/{{{root.absolute()}}}")
    members = {name[len(top) :]: name for name in names if name.startswith(top)}
    return Bundle(root, {name: inside / member for name, member in members.items()}, members)


def _entries(archive: Path) -> list[str]:
    """The files of an archive, shallow ones first."""
    try:
        if archive.suffix.lower() == ".zip":
            with ZipFile(archive) as opened:
                names = [name for name in opened.namelist() if not name.endswith("/")]
        else:
            with open_tar(archive, "r:") as tar:
                names = [member.name for member in tar.getmembers() if member.isfile()]
    except BROKEN as error:
        raise InputError(f"{archive} is an archive that can't be read ({error}); is the download complete?") from error
    return sorted(names, key=lambda name: (name.count("/"), name))

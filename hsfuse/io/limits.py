"""Sizes that are checked before anything is read or allocated: what says it is huge, or unpacks to it, is refused.

A limit is many times what real products have. Archives and compressed files are judged by what they claim against the
bytes that are there, since damage and malice both show in that.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import IO, BinaryIO

from hsfuse.core.errors import InputError

#: Bytes of one metadata file in XML, and in other text; an EnMAP scene's has about 2 MB, an MTL 20 kB.
MOST_XML, MOST_TEXT = 16 * 2**20, 2 * 2**20
#: Elements of an XML file, and how deep they may lie in each other.
MOST_ELEMENTS, DEEPEST = 300_000, 200
#: Bytes of a zip's directory and members of any archive; a Sentinel-2 product has about 150.
MOST_DIRECTORY, MOST_MEMBERS = 2 * 2**20, 20_000
#: Unpacked bytes to each packed one of a tar.gz.
MOST_RATIO = 20
#: Bytes that a raster may claim to hold whatever its file has, those to each byte of the file beyond, and in one block.
FREE_BYTES, CLAIMED_RATIO, MOST_BLOCK = 4 * 2**30, 5000, 2**28
#: The same for what is read whole, as arrays are: a quarter of a GiB, or a hundred bytes to each of the file.
WHOLE_BYTES, WHOLE_RATIO = 2**28, 100
#: Scales and offsets beyond this, scales that are as many times less than 1, and NaN are no radiometry.
LARGEST_FACTOR = 1e30
#: Bytes of blocks of images that are kept unpacked for the next window, and in a process that is one of many.
MOST_CACHE_BYTES, SHARED_CACHE_BYTES = 512 * 2**20, 128 * 2**20
_END, _END64 = b"PK\x05\x06", b"PK\x06\x06"


def read_bounded(path: Path, most: int) -> bytes:
    """The bytes of a file, `most` of them; InputError when it has more or can't be read."""
    try:
        with path.open("rb") as file:
            return bounded(file, path, most)
    except OSError as error:
        raise InputError(f"{path} can't be read: {error.strerror}") from error


def bounded(file: IO[bytes], path: Path, most: int) -> bytes:
    """All that an open file gives; InputError beyond `most` bytes, of which no more are read."""
    found = file.read(most + 1)
    if len(found) > most:
        raise InputError(f"{path} has more than {most // 2**20} MiB, which no product's metadata have; it isn't read")
    return found


def check_zip(path: Path) -> None:
    """InputError when a zip's directory is too large to be read, told by the record at its end."""
    with path.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(max(0, size - 2**17))
        tail = file.read()
    at, at64 = tail.rfind(_END), tail.rfind(_END64)
    directory = 0
    if at >= 0 and at + 22 <= len(tail):
        directory = struct.unpack_from("<I", tail, at + 12)[0]
    if at64 >= 0 and at64 + 56 <= len(tail):
        directory = max(directory if directory != 2**32 - 1 else 0, struct.unpack_from("<Q", tail, at64 + 40)[0])
    if directory > MOST_DIRECTORY:
        raise InputError(f"{path} has a directory of {directory} bytes, too many for an archive of any product")


def check_members(path: Path, names: list[str]) -> None:
    """InputError when an archive has too many members, or one of them lies outside of it."""
    if len(names) > MOST_MEMBERS:
        raise InputError(f"{path} is an archive of more than {MOST_MEMBERS} files, which no product is")
    for name in names:
        if name.startswith(("/", "\\")) or ".." in name.replace("\\", "/").split("/"):
            raise InputError(f"{path} holds the file {name[:80]!r}, which lies outside of the archive")


class CarefulFile:
    """An open file that reads no more than `most` bytes at a time, nor `total` in all (OSError)."""

    def __init__(self, file: BinaryIO, most: int, total: float = float("inf")) -> None:
        self._file, self._most, self._left = file, most, total

    def read(self, size: int = -1) -> bytes:
        """As of a file."""
        if size < 0 or size > self._most:
            raise OSError(f"a part of {size} bytes is read from it; at most {self._most} make sense")
        self._left -= size
        if self._left < 0:
            raise OSError("it unpacks to far more than its own size")
        return self._file.read(size)

    def seek(self, offset: int, whence: int = 0) -> int:
        """As of a file; what is passed over counts as read."""
        if whence == 0:
            self._left -= max(0, offset - self._file.tell())
        if self._left < 0:
            raise OSError("it unpacks to far more than its own size")
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        """As of a file."""
        return self._file.tell()

    def close(self) -> None:
        """As of a file."""
        self._file.close()


def check_whole(path: Path, claimed: int, found: int) -> None:
    """InputError when something that is to be read whole has `claimed` bytes, far more than its file of `found`."""
    if claimed > max(WHOLE_BYTES, WHOLE_RATIO * found):
        raise InputError(
            f"{path} unpacks to {claimed / 2**30:.3g} GiB or more, over {WHOLE_RATIO} times its {found} bytes; it "
            "isn't read whole"
        )


def check_claim(path: Path, claimed: int, found: int, what: str) -> None:
    """InputError when something of `claimed` bytes can't be in a file of `found`, however well it is packed."""
    if claimed > max(FREE_BYTES, CLAIMED_RATIO * found):
        raise InputError(
            f"{path} says that it holds {what}, {claimed / 2**30:.3g} GiB, but has {found} bytes; is the file damaged?"
        )

"""One process at a time makes an output; what one that was killed has left under temporary names goes with the next."""

from __future__ import annotations

import logging
import os
import re
import socket
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from hsfuse.core.errors import OutputError
from hsfuse.io.files import remove

fcntl: Any = None
with suppress(ImportError):  # Windows has no flock: there nothing is held
    import fcntl

log = logging.getLogger(__name__)


@contextmanager
def only_writer(files: Sequence[Path], beside: Iterable[Path] = ()) -> Iterator[None]:
    """Hold the lock of an output, whose files these are; OutputError where another process makes it.

    What an earlier one has left of `files`, or of others `beside` them, under temporary names is removed.
    """
    with _locked(files[0], wait=False):
        _sweep([*files, *beside])
        yield


@contextmanager
def one_at_a_time(path: Path) -> Iterator[None]:
    """Wait until no other process holds the lock of a path, and hold it."""
    with _locked(path, wait=True):
        yield


@contextmanager
def _locked(path: Path, wait: bool) -> Iterator[None]:
    """The system's lock (flock) on a hidden file beside a path: a process that dies gives it back.

    Where there can be no such file, or the file system has no locks, nothing is held.
    """
    if fcntl is None:
        yield
        return
    lock = path.with_name(f".{path.name}.lock")
    held: IO[str] | None = None
    while held is None:
        try:
            held = lock.open("a+", encoding="utf-8")
        except OSError:  # what is wrong with the folder is told by who writes to it
            yield
            return
        try:
            fcntl.flock(held, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            held.seek(0)
            who = held.read().strip()
            held.close()
            raise OutputError(
                f"{path} is being written by another process{who and f' ({who})'}; wait for it, or name another output"
            ) from None
        except OSError as error:
            log.debug("%s can't be locked: %s", lock, error)
        else:
            if not _is_at(held, lock):  # removed by who had it, between our opening and locking it
                held.close()
                held = None
    try:
        held.truncate(0)
        held.write(f"process {os.getpid()} on {socket.gethostname()}")
        held.flush()
        yield
    finally:
        lock.unlink(missing_ok=True)
        held.close()


def _is_at(held: IO[str], path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(held.fileno()), path.stat())
    except OSError:
        return False


def _sweep(files: Iterable[Path]) -> None:
    """Remove what a killed process has left of these files under temporary names (`files.temporary_files`).

    What stood at a name before, and was moved aside, is put back where nothing is.
    """
    for file in files:
        hidden = re.compile(rf"\.{re.escape(file.stem)}\.[0-9a-f]{{8}}\.(part|old)(\.cog)?{re.escape(file.suffix)}")
        for found in [each for each in _listed(file.parent) if hidden.match(each.name)]:
            if ".old" in found.name.removeprefix(f".{file.stem}") and not os.path.lexists(file):
                os.replace(found, file)
            else:
                log.debug("removing %s, left by a process that was killed", found)
                remove(found)


def _listed(folder: Path) -> list[Path]:
    return list(folder.iterdir()) if folder.is_dir() else []

"""What the command line says and where: notes to stderr, results to stdout, errors as one line with an exit code."""

from __future__ import annotations

import errno
import json
import logging
import math
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

import click

from hsfuse.core.errors import HsfuseError

#: Exit codes; usage errors are click's 2, a bug is sysexits' EX_SOFTWARE, an interruption the shell's 128 + SIGINT.
CANT, SOME_FAILED, BUG, INTERRUPTED = 1, 4, 70, 130

_LEVELS = (logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR)


class Failure(click.ClickException):
    """The end of a run because of an input, output or setting: one line on stderr and an exit code."""

    exit_code = CANT

    def show(self, file: IO[Any] | None = None) -> None:
        """Print the line."""
        click.echo(f"hsfuse: {self.message}", file=file, err=file is None)


class Interruption(Failure):
    """The end of a run by Ctrl-C or SIGTERM."""

    exit_code = INTERRUPTED


class Bug(Failure):
    """The end of a run that should not have been."""

    exit_code = BUG


@contextmanager
def told_errors() -> Iterator[None]:
    """Turn exceptions of a command into `Failure`; SIGTERM counts as an interruption, so that files are cleaned up.

    Click's own exceptions and a closed pipe pass through to click, which knows what to do with them.
    """
    try:
        with _sigterm_interrupts():
            yield
    except (click.exceptions.Exit, click.Abort, click.ClickException, BrokenPipeError):
        raise
    except HsfuseError as error:
        keep(f"error: {error}")
        raise Failure(f"error: {error}") from error
    except KeyboardInterrupt as error:
        keep("interrupted")
        raise Interruption("interrupted") from error
    except Exception as error:
        keep(f"error: {_short(error)}", error)
        if _out_of_memory(error):
            raise Failure(f"error: out of memory ({_short(error)}); free some or use smaller tiles") from error
        if isinstance(error, OSError) and error.errno in errno.errorcode:
            raise Failure(f"error: {_os_reason(error)}") from error
        traceback.print_exc()
        raise Bug("this is a bug in hsfuse; please report it with the lines above") from error


def keep(text: str, error: Exception | None = None, level: int = logging.ERROR) -> None:
    """Have the end of a run in a log file, too, with the traceback of an error that is none of hsfuse's own."""
    log = logging.getLogger("hsfuse")
    about = None if error is None else (type(error), error, error.__traceback__)
    for handler in log.handlers:
        if isinstance(handler, logging.FileHandler):
            handler.handle(log.makeRecord(log.name, level, "", 0, text, (), about))


@contextmanager
def _sigterm_interrupts() -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def interrupt(number: int, frame: object) -> None:
    """Of a signal, once: who ends with what started it is told by both, and the second may not stop the cleaning up."""
    signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


def _out_of_memory(error: Exception) -> bool:
    """Python's, numpy's and torch's ways to say so, told by name and text because torch may not be imported."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return isinstance(error, RuntimeError) and "allocate memory" in str(error)


def _os_reason(error: OSError) -> str:
    return ": ".join(str(part) for part in (error.filename, error.strerror) if part)


def _short(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


#: What is shown on a terminal while nothing else is, and what wipes it.
_WORKING, _WIPE = "hsfuse: working (Ctrl-C ends it)", "\r\x1b[K"


class _StderrHandler(logging.Handler):
    """Lines on stderr as it is now, above a progress bar when there is one."""

    #: What stands on the terminal's last line.
    below = ""

    def emit(self, record: logging.LogRecord) -> None:
        """Print a record."""
        prefix = "hsfuse: warning: " if record.levelno >= logging.WARNING else "hsfuse: "
        tqdm = sys.modules.get("tqdm")
        write: Callable[..., Any] = tqdm.tqdm.write if tqdm else print
        write((_WIPE if self.below else "") + prefix + self.format(record), file=sys.stderr)
        print(self.below, end="", file=sys.stderr, flush=True)


@contextmanager
def working() -> Iterator[None]:
    """A line at the bottom of a terminal as long as this takes, for what has no progress bar of its own."""
    handlers = [one for one in logging.getLogger("hsfuse").handlers if isinstance(one, _StderrHandler)]
    shown = [one for one in handlers if one.level <= logging.INFO]  # not with -q
    if not sys.stderr.isatty() or not shown:
        yield
        return
    for handler in shown:
        handler.below = _WORKING
    print(_WORKING, end="", file=sys.stderr, flush=True)
    try:
        yield
    finally:
        for handler in shown:
            handler.below = ""
        print(_WIPE, end="", file=sys.stderr, flush=True)


def start_logging(verbosity: int = 0) -> None:
    """Send the package's log to stderr: notes (INFO) by default, one level less or more for each step of verbosity."""
    log, level = logging.getLogger("hsfuse"), _LEVELS[min(max(1 - verbosity, 0), len(_LEVELS) - 1)]
    shown, kept = _StderrHandler(level), [h for h in log.handlers if isinstance(h, logging.FileHandler)]
    log.handlers = [shown, *kept]
    log.setLevel(logging.DEBUG if kept else level)
    for noisy, level in (("rasterio", logging.CRITICAL), ("numba", logging.WARNING)):
        logging.getLogger(noisy).setLevel(level)


class _LogFile(logging.FileHandler):
    """A file that the log is appended to till it can't be, which is said once."""

    def handleError(self, record: logging.LogRecord) -> None:
        """End the log where the disk is full or gone; anything else is told as logging does."""
        error, log = sys.exc_info()[1], logging.getLogger("hsfuse")
        if not isinstance(error, OSError):
            super().handleError(record)
        elif self in log.handlers:
            log.handlers = [one for one in log.handlers if one is not self]
            with suppress(OSError):
                self.close()
            log.warning("the log file %s ends here: it can't be written (%s)", self.baseFilename, error.strerror)


def log_to_file(path: Path) -> None:
    """Append the package's log, with all details and the time of each, to a file; OSError when that can't be."""
    handler = _LogFile(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    log = logging.getLogger("hsfuse")
    log.handlers.append(handler)
    log.setLevel(logging.DEBUG)


def in_ascii(text: str) -> str:
    """What any terminal shows."""
    return text.encode("ascii", "replace").decode()


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns padded to their widest cell, ASCII only."""
    lines = [[in_ascii(cell) for cell in line] for line in [heads, *rows]]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )


def print_json(value: Mapping[str, Any] | list[Any], indent: int | None = 2) -> None:
    """Print valid JSON on stdout: NaN and infinities become null, what JSON doesn't know becomes text."""
    click.echo(json.dumps(_finite(value), indent=indent, default=str, allow_nan=False))


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    if hasattr(value, "tolist"):  # numpy's arrays and numbers
        return _finite(value.tolist())
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value

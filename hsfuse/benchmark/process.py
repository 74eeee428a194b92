"""A case's command in a process of its own: a crash, or memory running out, ends the case and not the benchmark."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hsfuse.core.errors import HsfuseError
from hsfuse.core.process import reason

#: Seconds in which an interrupted case may remove what it has written.
GRACE_S = 20.0


class CaseError(HsfuseError):
    """A case that ended without a result; the text says why."""


@dataclass(frozen=True)
class Finished:
    """What a command printed as JSON, its wall time, its peak memory and its processor time."""

    result: dict[str, Any]
    seconds: float
    peak_mib: float
    cpu_seconds: float


def run_hsfuse(arguments: list[str], folder: Path) -> Finished:
    """Run `hsfuse ARGUMENTS`, which prints JSON, with scratch in `folder`; CaseError with its last line on failure."""
    usage = folder / "usage.json"
    usage.unlink(missing_ok=True)
    script = Path(__file__).with_name("measure.py")
    command = [sys.executable, "-I", "-S", str(script), str(usage), sys.executable, "-m", "hsfuse", *arguments]
    out, said = _run(command)
    if not usage.is_file():
        raise CaseError("the process ended without a word; perhaps memory ran out")
    taken = json.loads(usage.read_text(encoding="utf-8"))
    usage.unlink()
    if taken["code"]:
        raise CaseError(reason(taken["code"], said))
    return Finished(json.loads(out), taken["seconds"], taken["peak_mib"], taken["cpu"])


def _run(command: list[str]) -> tuple[str, str]:
    """Output and errors; an interruption ends the whole group of processes before it goes on."""
    pipes: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    process = subprocess.Popen(command, text=True, errors="replace", start_new_session=True, **pipes)
    try:
        return process.communicate()
    except BaseException:
        _end(process)
        raise


def _end(process: subprocess.Popen[str]) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    try:
        process.communicate(timeout=GRACE_S)
    except subprocess.TimeoutExpired:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()

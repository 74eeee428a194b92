"""Timing on a machine that does other things, too: contestants in turn, the best of several turns each."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import torch

#: Seconds that one contestant runs in one turn, at least one call.
TURN_S = 0.2
#: Seconds of a call above which it isn't repeated.
LONG_S = 3.0


def _seconds(call: Callable[[], object], device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    start = time.perf_counter()
    call()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start


def race(
    calls: Mapping[str, Callable[[], object]], turns: int, device: torch.device, cold: str = ""
) -> dict[str, float]:  # fmt: skip
    """Shortest time in seconds of each call: a warm-up each but `cold`, then up to `turns` rounds of all in turn.

    Contestants meet the same load, so that their ratios hold where the times themselves don't. One that takes longer
    than LONG_S runs once.
    """
    for name, call in calls.items():
        if name != cold:
            call()
    best = dict.fromkeys(calls, float("inf"))
    for turn in range(turns):
        for name, call in calls.items():
            spent = 0.0
            while spent < TURN_S and not (turn and best[name] > LONG_S):
                seconds = _seconds(call, device)
                best[name], spent = min(best[name], seconds), spent + seconds
    return best


def _status_mib(entry: str) -> float | None:
    """An entry of this process's /proc status; None where there is none."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
            if line.startswith(f"{entry}:"):
                return int(line.split()[1]) / 1024
    return None


def resident_mib(device: torch.device) -> float | None:
    """Memory in use now, in MiB: of the process, or on the GPU; None where the system doesn't tell."""
    if device.type == "cuda":
        return torch.cuda.memory_allocated(device) / 2**20
    return _status_mib("VmRSS")


def peak_mib(call: Callable[[], object], device: torch.device) -> float | None:
    """Largest memory in use during a call, in MiB, as `resident_mib` counts it."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        call()
        return torch.cuda.max_memory_allocated(device) / 2**20
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # resets the process's peak (Linux)
    except OSError:
        return None
    call()
    return _status_mib("VmHWM")

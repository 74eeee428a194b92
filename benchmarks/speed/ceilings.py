"""What the machine could do at most: exponentials, and memory bandwidth."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch

from benchmarks.speed.timing import race

#: Numbers of a first-level cache, and how often their exponential is taken.
EXP_SIZE, EXP_ROUNDS = 2048, 2000
#: Numbers of each of the three arrays of the bandwidth test: far more than any cache holds.
TRIAD_SIZE = 2**24


@dataclass(frozen=True)
class Ceilings:
    """Measured limits: 10^9 exponentials a second on one thread and on all; memory bandwidth in 10^9 bytes a second.

    None where they can't be measured: exponentials without Numba and on GPUs.
    """

    exp_one_thread: float | None
    exp_all_threads: float | None
    bandwidth: float | None


def measure_ceilings(device: torch.device, turns: int) -> Ceilings:
    """Ceilings of `device`, the best of `turns`. Source of the bandwidth test: McCalpin, STREAM, 1995."""
    if device.type == "cuda":
        return Ceilings(None, None, _copy_bandwidth(device, turns))
    try:
        return _cpu_ceilings(device, turns)
    except ImportError:
        return Ceilings(None, None, _copy_bandwidth(device, turns))


def _copy_bandwidth(device: torch.device, turns: int) -> float:
    source = torch.ones(TRIAD_SIZE, device=device)
    target = torch.empty_like(source)
    return 8 * TRIAD_SIZE / race({"copy": lambda: target.copy_(source)}, turns, device)["copy"] / 1e9


def _cpu_ceilings(device: torch.device, turns: int) -> Ceilings:
    from benchmarks.speed import kernels
    from hsfuse.nets.scan.cpu import share

    threads = torch.get_num_threads()
    a, b, c = (np.ones(TRIAD_SIZE, np.float32) for _ in range(3))
    edges = [TRIAD_SIZE * i // threads for i in range(threads + 1)]
    work = [(EXP_SIZE, EXP_ROUNDS)] * threads
    calls = {
        "one": lambda: kernels.exponentials(*work[0]),
        "all": lambda: share(kernels.exponentials, work, threads),
        "triad": lambda: share(kernels.triad, [(a, b, c, *pair) for pair in pairwise(edges)], threads),
    }
    best = race(calls, turns, device)
    count = EXP_SIZE * EXP_ROUNDS / 1e9
    return Ceilings(count / best["one"], threads * count / best["all"], 12 * TRIAD_SIZE / best["triad"] / 1e9)

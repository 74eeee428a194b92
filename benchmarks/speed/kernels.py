"""Numba kernels of the machine's ceilings."""

# mypy: ignore-errors

from hsfuse.nets.scan.kernels import buffer, compiled
from hsfuse.nets.scan.lanes import LANES, exp2, load, store


@compiled
def exponentials(size, rounds):
    """Take `rounds` times the exponential of `size` numbers (a multiple of four vectors) in the first-level cache."""
    x, out = buffer(size), buffer(size)
    for i in range(size):
        x[i] = -3.0 * i / size
    for _ in range(rounds):
        for i in range(0, size, 4 * LANES):
            for j in range(i, i + 4 * LANES, LANES):
                store(out, j, exp2(load(x, j)))
    return out[size - 1]


@compiled
def triad(a, b, c, first, end):
    """a = b + 3 c from `first` to `end` (McCalpin's STREAM)."""
    for i in range(first, end):
        a[i] = b[i] + 3.0 * c[i]

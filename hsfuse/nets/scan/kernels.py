"""Numba kernels of the four-direction scan: what forward and backward share.

Letters: D channels in blocks of LANES, N states, R rank of the step size, P = R + 2N numbers per pixel and direction,
L = H*W steps in chunks of STEPS. Arrays are flat float32 unless said otherwise. A chunk's pixels are gathered to small
buffers (four directions by index, nothing is flipped or transposed), scanned there, and scattered back.

Packed parameters, per direction and block N + R + 2 vectors: decay A log2(e) (N), step weight (R), step bias, skip.
"""

# mypy: ignore-errors
# (Numba, not Python, gives these functions their types.)

from hashlib import sha256
from importlib.resources import files

import numba
import numpy as np

from hsfuse.nets.scan.lanes import LANES, fma, load, load_first, prefetch, softplus, splat_at, store, store_first

STEPS = 32
CHUNK = STEPS * LANES  # floats of one block of a chunk
LOG2E = 1.4426950408889634
LN2 = 0.6931471805599453
_SOURCES = ("kernels", "lanes", "forward", "backward", "block")
_VERSION = sha256(b"".join((files(__package__) / f"{name}.py").read_bytes() for name in _SOURCES)).hexdigest()[:12]


def compiled(function):
    """Compile without the GIL, cached on disk where some cache directory can be written.

    Numba's cache looks at one source file only: the name carries a hash of all, so that no stale code is run.
    """
    function.__qualname__ += f"_{_VERSION}"
    try:
        return numba.njit(function, nogil=True, cache=True)
    except RuntimeError:  # no writable place for the cache
        return numba.njit(function, nogil=True)


@numba.njit(forceinline=True)
def pixel_at(t, k, height, width):
    """Row-major index of the pixel that direction k visits at step t."""
    if k >= 2:
        t = height * width - 1 - t
    if k % 2 == 1:
        return (t % height) * width + t // height
    return t


@numba.njit(forceinline=True)
def copy(source, start, count, target, at):
    """Copy `count` floats."""
    for i in range(0, count, LANES):
        store_first(target, at + i, count - i, load_first(source, start + i, count - i))


@numba.njit(forceinline=True)
def step_input(rows, row, rank, packed, at, n_state):
    """What softplus turns into dt, for one pixel and block: weight low + bias."""
    z = load(packed, at + (n_state + rank) * LANES)
    for r in range(rank):
        z = fma(splat_at(rows, row + r), load(packed, at + (n_state + r) * LANES), z)
    return z


@numba.njit
def buffer(size):
    """Uninitialised floats from a 64-byte boundary on, so that no vector straddles two cache lines."""
    raw = np.empty(size + LANES, np.float32)
    start = (-raw.ctypes.data % 64) // 4
    return raw[start : start + size]


@numba.njit
def fetch_ahead(source, stride, start, count, image, k, first, shape):
    """Prefetch `count` floats of each pixel of the chunk that begins at step `first`, from `start` of its `stride`.

    A column's pixels are far apart in memory: no hardware prefetcher follows them.
    """
    height, width = shape[:2]
    length = height * width
    for t in range(first, min(first + STEPS, length)):
        at = (image * length + pixel_at(t, k, height, width)) * stride + start
        for i in range(at, at + count, 16):
            prefetch(source, i)


@numba.njit
def pixels_of(image, k, first, steps, shape, pixels):
    """Index (B, H, W) of the pixels of a chunk in direction k."""
    height, width = shape[:2]
    for t in range(steps):
        pixels[t] = image * height * width + pixel_at(first + t, k, height, width)


@numba.njit
def gather_rows(proj, k, pixels, steps, shape, rows):
    """Projections (steps, P) of a chunk in direction k, from (B, H, W, 4, P)."""
    count = shape[4] + 2 * shape[3]
    for t in range(steps):
        copy(proj, (pixels[t] * 4 + k) * count, count, rows, t * count)


@numba.njit
def gather_lanes(source, pixels, steps, block, channels, target, to):
    """One block of a chunk's pixels of a map (B, H, W, D), zeros behind the last channel."""
    lane = block * LANES
    for t in range(steps):
        store(target, to + t * LANES, load_first(source, pixels[t] * channels + lane, channels - lane))


@numba.njit
def scatter_lanes(source, target, pixels, steps, block, channels, add):
    """Write, or add, a chunk's vectors to one block of a map (B, H, W, D)."""
    lane = block * LANES
    for t in range(steps):
        value, start = load(source, t * LANES), pixels[t] * channels + lane
        if add:
            value = value + load_first(target, start, channels - lane)
        store_first(target, start, channels - lane, value)


@numba.njit
def step_sizes(rows, steps, shape, packed, at, target, to):
    """dt of a chunk and block, (steps, LANES)."""
    n_state, rank = shape[3], shape[4]
    for t in range(steps):
        row = t * (rank + 2 * n_state)
        store(target, to + t * LANES, softplus(step_input(rows, row, rank, packed, at, n_state)))


@compiled
def pack_parameters(a_log, dt_weight, dt_bias, skip, packed):
    """Fill packed (4, blocks, N + R + 2, LANES) from a_log (4, D, N), dt_weight (4, D, R), dt_bias and skip (4, D)."""
    directions, channels, n_state = a_log.shape
    rank = dt_weight.shape[2]
    for k in range(directions):
        for d in range(channels):
            block, lane = divmod(d, LANES)
            for n in range(n_state):
                packed[k, block, n, lane] = -np.exp(a_log[k, d, n]) * np.float32(LOG2E)
            for r in range(rank):
                packed[k, block, n_state + r, lane] = dt_weight[k, d, r]
            packed[k, block, n_state + rank, lane] = dt_bias[k, d]
            packed[k, block, n_state + rank + 1, lane] = skip[k, d]

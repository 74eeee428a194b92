"""Numba kernel of the scan: forward."""

# mypy: ignore-errors

import numba
import numpy as np

from hsfuse.nets.scan.kernels import STEPS, buffer, compiled, copy, fetch_ahead, gather_rows, pixels_of, step_sizes
from hsfuse.nets.scan.lanes import LANES, exp2, fma, load, load_first, splat_at, store, store_first


@numba.njit(forceinline=True)
def _advance(dt, push, total, rows, b, c, packed, at, state, home):
    """One state of one pixel and block, added to the output."""
    h = fma(exp2(dt * load(packed, at)), load(state, home), push * splat_at(rows, b))
    store(state, home, h)
    return fma(h, splat_at(rows, c), total)


@numba.njit
def _scan_chunk(u, y, pixels, rows, dts, steps, shape, packed, at, state, home, lane, add):
    """Advance `state` through one chunk of one block, whose outputs are written or added to y."""
    channels, n_state, rank = shape[2:]
    count, rest = rank + 2 * n_state, channels - lane
    skip = load(packed, at + (n_state + rank + 1) * LANES)
    for t in range(steps):
        row, start = t * count, pixels[t] * channels + lane
        value, dt = load_first(u, start, rest), load(dts, t * LANES)
        push, total = dt * value, value * skip
        if add:
            total = total + load_first(y, start, rest)
        b, c = row + rank, row + rank + n_state
        for n in range(0, n_state - 1, 2):
            i = n * LANES
            total = _advance(dt, push, total, rows, b + n, c + n, packed, at + i, state, home + i)
            i += LANES
            total = _advance(dt, push, total, rows, b + n + 1, c + n + 1, packed, at + i, state, home + i)
        if n_state % 2 == 1:
            n, i = n_state - 1, (n_state - 1) * LANES
            total = _advance(dt, push, total, rows, b + n, c + n, packed, at + i, state, home + i)
        store_first(y, start, rest, total)


@compiled
def forward(u, proj, packed, y, states, shape, image, first_block, end_block):
    """Scan some channel blocks of one image of the batch into y.

    u, y (B, H, W, D); proj (B, H, W, 4, P); states (B, 4, blocks, chunks, N, LANES), the state at the start of each
    chunk, empty when no backward pass will follow; shape (H, W, D, N, R).
    """
    height, width, channels, n_state, rank = shape
    length, blocks, size = height * width, (channels + LANES - 1) // LANES, n_state * LANES
    chunks, count = (length + STEPS - 1) // STEPS, rank + 2 * n_state
    rows, dts, state = buffer(STEPS * count), buffer(STEPS * LANES), buffer(blocks * size)
    pixels = np.empty(STEPS, np.int64)
    for k in range(4):
        state[:] = 0
        for chunk in range(chunks):
            first = chunk * STEPS
            steps = min(STEPS, length - first)
            pixels_of(image, k, first, steps, shape, pixels)
            gather_rows(proj, k, pixels, steps, shape, rows)
            if k % 2 == 1:
                ahead, lane = first + STEPS, first_block * LANES
                rest = min(end_block * LANES, channels) - lane
                fetch_ahead(proj, 4 * count, k * count, count, image, k, ahead, shape)
                fetch_ahead(u, channels, lane, rest, image, k, ahead, shape)
                fetch_ahead(y, channels, lane, rest, image, k, ahead, shape)
            for block in range(first_block, end_block):
                at, home = (k * blocks + block) * (n_state + rank + 2) * LANES, block * size
                if states.size > 0:
                    kept = (((image * 4 + k) * blocks + block) * chunks + chunk) * size
                    copy(state, home, size, states, kept)
                step_sizes(rows, steps, shape, packed, at, dts, 0)
                _scan_chunk(u, y, pixels, rows, dts, steps, shape, packed, at, state, home, block * LANES, k > 0)

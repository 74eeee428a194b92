"""Numba kernel of the scan: forward."""

# mypy: ignore-errors

import numba

from hsfuse.nets.scan.functions import exp2
from hsfuse.nets.scan.kernels import (
    STEPS,
    buffer,
    compiled,
    copy,
    fetch_ahead,
    gather_lanes,
    gather_rows,
    scatter_lanes,
    step_sizes,
)
from hsfuse.nets.scan.lanes import LANES, fma, load, splat_at, store


@numba.njit
def _scan_chunk(rows, steps, shape, packed, at, state, home, us, dts, out):
    """Advance `state` through one chunk of one block, outputs to `out`."""
    n_state, rank = shape[3], shape[4]
    for t in range(steps):
        b, dt = t * (rank + 2 * n_state) + rank, load(dts, t * LANES)
        u = load(us, t * LANES)
        push, total = dt * u, u * load(packed, at + (n_state + rank + 1) * LANES)
        for n in range(n_state):
            decay = exp2(dt * load(packed, at + n * LANES))
            h = fma(decay, load(state, home + n * LANES), push * splat_at(rows, b + n))
            store(state, home + n * LANES, h)
            total = fma(h, splat_at(rows, b + n_state + n), total)
        store(out, t * LANES, total)


@compiled
def forward(u, proj, packed, y, states, shape, image, first_block, end_block):
    """Scan some channel blocks of one image of the batch into y.

    u, y (B, H, W, D); proj (B, H, W, 4, P); states (B, 4, blocks, chunks, N, LANES), the state at the start of each
    chunk, empty when no backward pass will follow; shape (H, W, D, N, R).
    """
    height, width, channels, n_state, rank = shape
    length, blocks, size = height * width, (channels + LANES - 1) // LANES, n_state * LANES
    chunks, count = (length + STEPS - 1) // STEPS, rank + 2 * n_state
    rows, state = buffer(STEPS * count), buffer(blocks * size)
    us, dts, out = buffer(STEPS * LANES), buffer(STEPS * LANES), buffer(STEPS * LANES)
    for k in range(4):
        state[:] = 0
        for chunk in range(chunks):
            first = chunk * STEPS
            steps = min(STEPS, length - first)
            gather_rows(proj, image, k, first, steps, shape, rows)
            if k % 2 == 1:
                ahead, lane = first + STEPS, first_block * LANES
                rest = min(end_block * LANES, channels) - lane
                fetch_ahead(proj, 4 * count, k * count, count, image, k, ahead, shape)
                fetch_ahead(u, channels, lane, rest, image, k, ahead, shape)
                fetch_ahead(y, channels, lane, rest, image, k, ahead, shape)
            for block in range(first_block, end_block):
                at = (k * blocks + block) * (n_state + rank + 2) * LANES
                if states.size > 0:
                    kept = (((image * 4 + k) * blocks + block) * chunks + chunk) * size
                    copy(state, block * size, size, states, kept)
                gather_lanes(u, image, k, first, steps, block, shape, us, 0)
                step_sizes(rows, steps, shape, packed, at, dts, 0)
                _scan_chunk(rows, steps, shape, packed, at, state, block * size, us, dts, out)
                scatter_lanes(out, y, image, k, first, steps, block, shape, k > 0)

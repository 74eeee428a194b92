"""Numba kernel of the scan: forward."""

# mypy: ignore-errors

import numba

from hsfuse.nets.scan.functions import exp2
from hsfuse.nets.scan.kernels import STEPS, buffer, compiled, copy, gather_lanes, gather_rows, pixel_at, step_sizes
from hsfuse.nets.scan.lanes import LANES, fma, load, load_first, splat, splat_at, store, store_first


@numba.njit
def _scan_chunk(rows, steps, shape, packed, at, state, home, us, dts, out):
    """Advance `state` through one chunk of one block, outputs to `out`."""
    n_state, rank = shape[3], shape[4]
    for t in range(steps):
        b, dt = t * (rank + 2 * n_state) + rank, load(dts, t * LANES)
        push, total = dt * load(us, t * LANES), splat(0.0)
        for n in range(n_state):
            decay = exp2(dt * load(packed, at + n * LANES))
            h = fma(decay, load(state, home + n * LANES), push * splat_at(rows, b + n))
            store(state, home + n * LANES, h)
            total = fma(h, splat_at(rows, b + n_state + n), total)
        store(out, t * LANES, total)


@numba.njit
def _scatter(y, image, k, first, steps, block, shape, skip, us, out):
    """Add a chunk's outputs to the map; the first direction writes them, with all directions' skip."""
    height, width, channels = shape[:3]
    lane = block * LANES
    for t in range(steps):
        start = (image * height * width + pixel_at(first + t, k, height, width)) * channels + lane
        if k == 0:
            value = fma(load(us, t * LANES), load(skip, lane), load(out, t * LANES))
        else:
            value = load_first(y, start, channels - lane) + load(out, t * LANES)
        store_first(y, start, channels - lane, value)


@compiled
def forward(u, proj, packed, skip, y, states, shape, image, first_block, end_block):
    """Scan some channel blocks of one image of the batch into y.

    u, y (B, H, W, D); proj (B, H, W, 4, P); skip (blocks, LANES) summed over directions; states (B, 4, blocks, chunks,
    N, LANES), the state at the start of each chunk, empty when no backward pass will follow; shape (H, W, D, N, R).
    """
    height, width, channels, n_state, rank = shape
    length, blocks, size = height * width, (channels + LANES - 1) // LANES, n_state * LANES
    chunks = (length + STEPS - 1) // STEPS
    rows, state = buffer(STEPS * (rank + 2 * n_state)), buffer(blocks * size)
    us, dts, out = buffer(STEPS * LANES), buffer(STEPS * LANES), buffer(STEPS * LANES)
    for k in range(4):
        state[:] = 0
        for chunk in range(chunks):
            first = chunk * STEPS
            steps = min(STEPS, length - first)
            gather_rows(proj, image, k, first, steps, shape, rows)
            for block in range(first_block, end_block):
                at = (k * blocks + block) * (n_state + rank + 1) * LANES
                if states.size > 0:
                    copy(
                        state, block * size, size, states, (((image * 4 + k) * blocks + block) * chunks + chunk) * size
                    )
                gather_lanes(u, image, k, first, steps, block, shape, us)
                step_sizes(rows, steps, shape, packed, at, dts)
                _scan_chunk(rows, steps, shape, packed, at, state, block * size, us, dts, out)
                _scatter(y, image, k, first, steps, block, shape, skip, us, out)

"""Numba kernel of the scan: gradients. Each chunk's states are recomputed from the one saved at its start."""

# mypy: ignore-errors

import numba

from hsfuse.nets.scan.functions import exp2, logistic
from hsfuse.nets.scan.kernels import (
    LN2,
    STEPS,
    buffer,
    compiled,
    copy,
    gather_lanes,
    gather_rows,
    pixel_at,
    step_input,
    step_sizes,
)
from hsfuse.nets.scan.lanes import LANES, fma, load, splat, splat_at, store, store_first, store_row_sums


@numba.njit
def _rescan_chunk(rows, steps, shape, packed, at, us, dts, decays, history):
    """Decays (steps, N, LANES) and states (steps + 1, N, LANES) of one chunk; the first states are given."""
    n_state, rank = shape[3], shape[4]
    size = n_state * LANES
    for t in range(steps):
        b, dt = t * (rank + 2 * n_state) + rank, load(dts, t * LANES)
        push = dt * load(us, t * LANES)
        for n in range(n_state):
            here = t * size + n * LANES
            decay = exp2(dt * load(packed, at + n * LANES))
            store(decays, here, decay)
            store(history, here + size, fma(decay, load(history, here), push * splat_at(rows, b + n)))


@numba.njit
def _reverse_step(row, source, shape, packed, at, carry, grad, here, u, dt, gy, rows, decays, history, sums):
    """Backward through one step of one block: gradients of dt (less its slope) and of u.

    carry (N vectors at the block's home) is decay_{t+1} times the gradient of h_{t+1}; grad collects the gradient of
    A; sums (P vectors) that of B and C, still spread over the lanes.
    """
    n_state, rank = shape[3], shape[4]
    size = n_state * LANES
    push, grad_push, grad_dt = dt * u, splat(0.0), splat(0.0)
    b = row + (rank * LANES)
    for n in range(n_state):
        i = n * LANES
        g = fma(gy, splat_at(rows, source + rank + n_state + n), load(carry, at[1] + i))
        store(sums, b + i, fma(g, push, load(sums, b + i)))
        store(sums, b + size + i, fma(gy, load(history, here + size + i), load(sums, b + size + i)))
        grad_push = fma(g, splat_at(rows, source + rank + n), grad_push)
        g = g * load(decays, here + i)
        store(carry, at[1] + i, g)
        g = g * load(history, here + i)
        grad_dt = fma(g, load(packed, at[0] + i), grad_dt)
        store(grad, at[2] + i, fma(g, dt, load(grad, at[2] + i)))
    return fma(grad_push, u, grad_dt * splat(LN2)), grad_push * dt


@numba.njit
def _reverse_chunk(steps, shape, packed, at, carry, grad, us, dts, gys, rows, decays, history, sums):
    """Backward through one chunk of one block; the gradient of u replaces `us`."""
    n_state, rank = shape[3], shape[4]
    count, size = rank + 2 * n_state, n_state * LANES
    for t in range(steps - 1, -1, -1):
        row, u, dt, gy = t * count * LANES, load(us, t * LANES), load(dts, t * LANES), load(gys, t * LANES)
        grad_dt, grad_u = _reverse_step(
            row, t * count, shape, packed, at, carry, grad, t * size, u, dt, gy, rows, decays, history, sums
        )
        store(us, t * LANES, grad_u)
        z = grad_dt * logistic(step_input(rows, t * count, rank, packed, at[0], n_state))
        for r in range(rank):
            i = size + r * LANES
            store(sums, row + r * LANES, fma(z, load(packed, at[0] + i), load(sums, row + r * LANES)))
            store(grad, at[2] + i, fma(z, splat_at(rows, t * count + r), load(grad, at[2] + i)))
        i = size + rank * LANES
        store(grad, at[2] + i, load(grad, at[2] + i) + z)


@numba.njit
def _write_sums(sums, steps, image, k, first, shape, line, grad_proj):
    """Sum over the lanes, and write the gradient of a chunk's projections."""
    height, width, _, n_state, rank = shape
    count = rank + 2 * n_state
    for t in range(steps):
        for i in range(0, count, LANES):
            store_row_sums(line, i, sums, (t * count + i) * LANES)
        pixel = image * height * width + pixel_at(first + t, k, height, width)
        copy(line, 0, count, grad_proj, (pixel * 4 + k) * count)


@compiled
def backward(u, proj, packed, states, grad_y, grad_u, grad_proj, grad_packed, shape, image, k):
    """Gradients of one direction of one image.

    grad_u (4, B, H, W, D) without the skip's part; grad_proj (B, H, W, 4, P); grad_packed (B, 4, blocks, N + R + 1,
    LANES), its first N vectors the gradient of A (not of its packed form); the rest as in `forward`.
    """
    height, width, channels, n_state, rank = shape
    length, blocks, size = height * width, (channels + LANES - 1) // LANES, n_state * LANES
    chunks, count, images = (length + STEPS - 1) // STEPS, rank + 2 * n_state, u.size // (length * channels)
    rows, line = buffer(STEPS * count), buffer(count + LANES)
    sums, carry = buffer((STEPS * count + LANES) * LANES), buffer(blocks * size)
    us, dts, gys = buffer(STEPS * LANES), buffer(STEPS * LANES), buffer(STEPS * LANES)
    decays, history = buffer(STEPS * size), buffer((STEPS + 1) * size)
    carry[:] = 0
    for chunk in range(chunks - 1, -1, -1):
        first = chunk * STEPS
        steps = min(STEPS, length - first)
        gather_rows(proj, image, k, first, steps, shape, rows)
        sums[:] = 0
        for block in range(blocks):
            block_index, lane = k * blocks + block, block * LANES
            home = block_index * (n_state + rank + 1) * LANES
            at = (home, block * size, image * 4 * blocks * (n_state + rank + 1) * LANES + home)
            copy(states, ((image * 4 * blocks + block_index) * chunks + chunk) * size, size, history, 0)
            gather_lanes(u, image, k, first, steps, block, shape, us)
            gather_lanes(grad_y, image, k, first, steps, block, shape, gys)
            step_sizes(rows, steps, shape, packed, home, dts)
            _rescan_chunk(rows, steps, shape, packed, home, us, dts, decays, history)
            _reverse_chunk(steps, shape, packed, at, carry, grad_packed, us, dts, gys, rows, decays, history, sums)
            for t in range(steps):
                pixel = (k * images + image) * length + pixel_at(first + t, k, height, width)
                store_first(grad_u, pixel * channels + lane, channels - lane, load(us, t * LANES))
        _write_sums(sums, steps, image, k, first, shape, line, grad_proj)

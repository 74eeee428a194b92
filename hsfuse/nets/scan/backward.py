"""Numba kernel of the scan: gradients.

A chunk's states are recomputed from the one saved at its start, one state n at a time: its decays and values of a chunk
stay in the first-level cache, from where the way back reads them at once.
"""

# mypy: ignore-errors

import numba
import numpy as np

from hsfuse.nets.scan.kernels import (
    CHUNK,
    LN2,
    STEPS,
    buffer,
    compiled,
    copy,
    gather_lanes,
    gather_rows,
    pixels_of,
    scatter_lanes,
    step_input,
    step_sizes,
)
from hsfuse.nets.scan.lanes import LANES, exp2, fma, load, logistic, splat, splat_at, store, store_row_sums

# Where the parts of a chunk's workspace begin. All have the same size, so that the parts' addresses agree in their low
# bits: a load never looks like an earlier step's store, which would stall it.
US, DTS, GYS, PUSHES, GRAD_DTS, GRAD_PUSHES, DECAYS, HISTORY, SUMS = (i * CHUNK for i in range(9))


@numba.njit(forceinline=True)
def _rescan_state(rows, b, count, steps, a, h, work):
    """Decays of one state of one block through a chunk, and its values before each step; the last value."""
    for t in range(steps):
        i = t * LANES
        decay, push = exp2(load(work, DTS + i) * a), load(work, PUSHES + i) * splat_at(rows, t * count + b)
        store(work, DECAYS + i, decay)
        store(work, HISTORY + i, h)
        h = fma(decay, h, push)
    return h


@numba.njit(forceinline=True)
def _reverse_state(rows, b, c, count, steps, a, g, grad_a, after, work):
    """Back through the same. g is decay_{t+1} times the gradient of h_{t+1}, grad_a collects the gradient of A.

    The sums (P, STEPS vectors) collect the gradients of B and C, still spread over the lanes.
    """
    grad_b, grad_c = SUMS + b * CHUNK, SUMS + c * CHUNK
    for t in range(steps - 1, -1, -1):
        i, row = t * LANES, t * count
        gy, before, dt = load(work, GYS + i), load(work, HISTORY + i), load(work, DTS + i)
        g = fma(gy, splat_at(rows, row + c), g)
        sum_c = fma(gy, after, load(work, grad_c + i))
        sum_b = fma(g, load(work, PUSHES + i), load(work, grad_b + i))
        push = fma(g, splat_at(rows, row + b), load(work, GRAD_PUSHES + i))
        g = g * load(work, DECAYS + i)
        through = g * before
        step = fma(through, a, load(work, GRAD_DTS + i))
        store(work, grad_c + i, sum_c)
        store(work, grad_b + i, sum_b)
        store(work, GRAD_PUSHES + i, push)
        store(work, GRAD_DTS + i, step)
        grad_a = fma(through, dt, grad_a)
        after = before
    return g, grad_a


@numba.njit
def _reverse_states(rows, steps, shape, packed, states, carry, grad_packed, where, work):
    n_state, rank = shape[3], shape[4]
    at, into, kept, home = where
    count = rank + 2 * n_state
    for n in range(n_state):
        i, b = n * LANES, rank + n
        a = load(packed, at + i)
        last = _rescan_state(rows, b, count, steps, a, load(states, kept + i), work)
        g, grad_a = load(carry, home + i), load(grad_packed, into + i)
        g, grad_a = _reverse_state(rows, b, b + n_state, count, steps, a, g, grad_a, last, work)
        store(carry, home + i, g)
        store(grad_packed, into + i, grad_a)


@numba.njit(forceinline=True)
def _add_product(target, at, a, b):
    store(target, at, fma(a, b, load(target, at)))


@numba.njit
def _reverse_steps(rows, steps, shape, packed, grad_packed, where, work):
    """From the gradients of dt A (in log2 units) and dt u to those of u, in its place, and of the other parameters."""
    n_state, rank = shape[3], shape[4]
    at, into = where[:2]
    count, bias, skip = rank + 2 * n_state, (n_state + rank) * LANES, (n_state + rank + 1) * LANES
    for t in range(steps):
        i = t * LANES
        gy, u, push = load(work, GYS + i), load(work, US + i), load(work, GRAD_PUSHES + i)
        slope = logistic(step_input(rows, t * count, rank, packed, at, n_state))
        z = fma(push, u, load(work, GRAD_DTS + i) * splat(LN2)) * slope
        store(work, US + i, fma(gy, load(packed, at + skip), push * load(work, DTS + i)))
        _add_product(grad_packed, into + skip, gy, u)
        store(grad_packed, into + bias, load(grad_packed, into + bias) + z)
        for r in range(rank):
            weight = (n_state + r) * LANES
            _add_product(work, SUMS + r * CHUNK + i, z, load(packed, at + weight))
            _add_product(grad_packed, into + weight, z, splat_at(rows, t * count + r))


@numba.njit
def _write_sums(work, pixels, steps, k, shape, rows, grad_proj):
    """Sum over the lanes, and write the gradient of a chunk's projections; `rows` is overwritten."""
    count = shape[4] + 2 * shape[3]
    for i in range(count):
        for t in range(0, STEPS, LANES):
            store_row_sums(rows, t * count + i, count, work, SUMS + i * CHUNK + t * LANES)
    for t in range(steps):
        copy(rows, t * count, count, grad_proj, (pixels[t] * 4 + k) * count)


@numba.njit
def _prepare(u, grad_y, pixels, steps, block, rows, shape, packed, at, work):
    gather_lanes(u, pixels, steps, block, shape[2], work, US)
    gather_lanes(grad_y, pixels, steps, block, shape[2], work, GYS)
    step_sizes(rows, steps, shape, packed, at, work, DTS)
    for i in range(0, steps * LANES, LANES):
        store(work, PUSHES + i, load(work, DTS + i) * load(work, US + i))
    work[GRAD_DTS:DECAYS] = 0


@numba.njit
def _reverse_direction(u, proj, packed, states, grad_y, grad_u, grad_proj, grad_packed, shape, image, k, slot, add):
    height, width, channels, n_state, rank = shape
    length, blocks, size = height * width, (channels + LANES - 1) // LANES, n_state * LANES
    chunks, count, vectors = (length + STEPS - 1) // STEPS, rank + 2 * n_state, n_state + rank + 2
    rows, carry, work = buffer(STEPS * count), buffer(blocks * size), buffer(SUMS + count * CHUNK)
    pixels = np.empty(STEPS, np.int64)
    carry[:] = 0
    for index in range(chunks - 1, -1, -1):
        first = index * STEPS
        steps = min(STEPS, length - first)
        pixels_of(image, k, first, steps, shape, pixels)
        gather_rows(proj, k, pixels, steps, shape, rows)
        places = pixels + (slot - image) * length
        work[SUMS:] = 0
        for block in range(blocks):
            at, home = (k * blocks + block) * vectors * LANES, ((image * 4 + k) * blocks + block)
            where = (at, home * vectors * LANES, (home * chunks + index) * size, block * size)
            _prepare(u, grad_y, pixels, steps, block, rows, shape, packed, at, work)
            _reverse_states(rows, steps, shape, packed, states, carry, grad_packed, where, work)
            _reverse_steps(rows, steps, shape, packed, grad_packed, where, work)
            scatter_lanes(work, grad_u, places, steps, block, channels, add)
        _write_sums(work, pixels, steps, k, shape, rows, grad_proj)


@compiled
def backward(u, proj, packed, states, grad_y, grad_u, grad_proj, grad_packed, shape, image, part, parts):
    """Gradients of one image, of the part-th of `parts` equal shares of the four directions.

    grad_u (parts, B, H, W, D), to be summed over the parts; grad_proj (B, H, W, 4, P); grad_packed (B, 4, blocks,
    N + R + 2, LANES), zeros at first, its N first vectors the gradient of A (not of its packed form); the rest as in
    `forward`.
    """
    height, width, channels = shape[:3]
    slot = part * (u.size // (height * width * channels)) + image
    share = 4 // parts
    for k in range(part * share, (part + 1) * share):
        _reverse_direction(
            u, proj, packed, states, grad_y, grad_u, grad_proj, grad_packed, shape, image, k, slot, k > part * share
        )

"""Numba kernels of what stands around the scan in an SS2D block, for inference: `enter` and `leave`.

Letters: C channels of the block, D of the scan, both padded to pairs of vectors (DP, CP); P numbers per pixel and
direction, 4P padded to PP. Everything of a row of pixels stays in the cache, and a map is read and written once.
"""

# mypy: ignore-errors

import numba
import numpy as np

from hsfuse.nets.scan.functions import logistic
from hsfuse.nets.scan.kernels import buffer, compiled, copy
from hsfuse.nets.scan.lanes import LANES, fma, load, load_first, splat, store, store_first
from hsfuse.nets.scan.product import PIXELS, VECTORS, product, total

EPSILON = 1e-5  # of both layer norms
PAIR = VECTORS * LANES


@numba.njit(forceinline=True)
def _silu(x):
    return x * logistic(x)


@numba.njit(forceinline=True)
def _inverse_root(variance):
    return np.float32(1 / np.sqrt(variance + EPSILON))


@numba.njit
def _multiply(x, at, pixel, step, count, weights, columns, bias, out, into):
    """PIXELS rows of x times weights (count, columns), plus bias (columns), to rows of `out`."""
    for first in range(0, columns, PAIR):
        product(x, at, pixel, step, count, weights, first, columns, bias, out, into + first, columns)


@numba.njit
def _normalise_row(x, at, plane, channels, width, padded, scratch, out):
    """Layer norm without weights of one row of a map (C, H, W), pixels in the lanes: out (C, padded)."""
    mean, deviation = 0, padded
    scratch[:] = 0
    for c in range(channels):
        for i in range(0, width, LANES):
            value = load_first(x, at + c * plane + i, width - i)
            store(out, c * padded + i, value)
            store(scratch, mean + i, load(scratch, mean + i) + value)
    share = splat(np.float32(1 / channels))
    for c in range(channels):
        for i in range(0, width, LANES):
            value = load(out, c * padded + i) - load(scratch, mean + i) * share
            store(out, c * padded + i, value)
            store(scratch, deviation + i, fma(value, value, load(scratch, deviation + i)))
    for i in range(padded):
        scratch[mean + i] = _inverse_root(scratch[deviation + i] / channels)
    for c in range(channels):
        for i in range(0, width, LANES):
            store(out, c * padded + i, load(out, c * padded + i) * load(scratch, mean + i))


@numba.njit
def _convolve_row(ring, row, width, columns, conv, out):
    """Depthwise 3x3 convolution and SiLU of one row: ring (3, .., columns), a pixel of zeros before and after a row.

    conv (10, columns): nine taps, then the bias.
    """
    size = ring.size // 3
    for i in range(0, columns, LANES):
        for t in range(width):
            value = load(conv, 9 * columns + i)
            for dy in range(3):
                start = ((row + dy) % 3) * size + t * columns + i
                for dx in range(3):
                    value = fma(load(ring, start + dx * columns), load(conv, (3 * dy + dx) * columns + i), value)
            store(out, t * columns + i, _silu(value))


@numba.njit
def _enter_row(x, image, y, shape, weights, bias, ring, slot, gate, work):
    """Norm and input projection of row y: to the ring (zeros outside the map), and the gate where wanted."""
    channels, inner, height, width = shape[:4]
    normal, scratch, both = work
    columns, padded = bias.size // 2, scratch.size // 2
    begin = slot * (ring.size // 3)
    ring[begin : begin + ring.size // 3] = 0
    if y < 0 or y >= height:
        return
    plane = height * width
    _normalise_row(x, (image * channels * height + y) * width, plane, channels, width, padded, scratch, normal)
    for t in range(0, width, PIXELS):
        _multiply(normal, t, 1, padded, channels, weights, 2 * columns, bias, both, 0)
        for p in range(min(PIXELS, width - t)):
            copy(both, 2 * p * columns, columns, ring, begin + (t + p + 1) * columns)
            if gate.size > 0:
                to = (image * plane + y * width + t + p) * inner
                for i in range(0, inner, LANES):
                    value = _silu(load(both, (2 * p + 1) * columns + i))
                    store_first(gate, to + i, inner - i, value)


@compiled
def enter(x, weights, bias, conv, project, zeros, u, proj, gate, shape, image, first, end):
    """From the block's input to the scan's, rows `first` to `end` of one image.

    x (B, C, H, W); weights (C, 2 DP) and bias (2 DP) of the input projection, the layer norm's own folded in; conv (10,
    DP); project (D, PP); u (B, H, W, D), proj (B, H, W, 4P) and gate (B, H, W, D), SiLU applied, are written.
    """
    channels, inner, height, width, count = shape
    columns, wide, padded = bias.size // 2, zeros.size, (width + LANES - 1) // LANES * LANES
    ring, row = buffer(3 * (width + 2) * columns), buffer((padded + PIXELS) * columns)
    work = (buffer(channels * padded), buffer(2 * padded), buffer(PIXELS * 2 * columns))
    some, none, numbers = gate, gate[:0], buffer(PIXELS * wide)
    row[:] = 0
    for y in range(first - 1, end + 1):
        slot = (y + 3) % 3
        _enter_row(x, image, y, shape, weights, bias, ring, slot, some if first <= y < end else none, work)
        if y <= first:
            continue
        _convolve_row(ring, slot + 1, width, columns, conv, row)
        home = (image * height + y - 1) * width
        for t in range(0, width, PIXELS):
            _multiply(row, t * columns, columns, 1, inner, project, wide, zeros, numbers, 0)
            for p in range(min(PIXELS, width - t)):
                copy(row, (t + p) * columns, inner, u, (home + t + p) * inner)
                copy(numbers, p * wide, count, proj, (home + t + p) * count)


@numba.njit
def _normalise_pixel(y, gate, at, inner, norm, columns, out, into):
    """Layer norm over the channels of one pixel, times the gate; norm (3, DP): weight, bias, and 1 for each channel."""
    mean, squares = splat(np.float32(0)), splat(np.float32(0))
    for i in range(0, inner, LANES):
        mean = mean + load_first(y, at + i, inner - i)
    mean = splat(total(mean) / np.float32(inner))
    for i in range(0, inner, LANES):
        value = load_first(y, at + i, inner - i) - mean * load(norm, 2 * columns + i)
        store(out, into + i, value)
        squares = fma(value, value, squares)
    scale = splat(_inverse_root(total(squares) / inner))
    for i in range(0, inner, LANES):
        value = fma(load(out, into + i) * scale, load(norm, i), load(norm, columns + i))
        store(out, into + i, value * load_first(gate, at + i, inner - i))


@compiled
def leave(x, y, gate, norm, weights, zeros, out, shape, image, first, end):
    """From the scan's output to the block's, rows `first` to `end` of one image.

    x, out (B, C, H, W); y, gate (B, H, W, D); norm (3, DP) as in
    `_normalise_pixel`; weights (D, CP) of the output projection.
    """
    channels, inner, height, width = shape[:4]
    columns, narrow, plane = norm.size // 3, zeros.size, height * width
    gated, found = buffer(PIXELS * columns), buffer(PIXELS * narrow)
    gated[:] = 0
    for t in range(first * width, end * width, PIXELS):
        pixels = min(PIXELS, end * width - t)
        for p in range(pixels):
            _normalise_pixel(y, gate, (image * plane + t + p) * inner, inner, norm, columns, gated, p * columns)
        _multiply(gated, 0, columns, 1, inner, weights, narrow, zeros, found, 0)
        for c in range(channels):
            to = (image * channels + c) * plane + t
            for p in range(pixels):
                out[to + p] = x[to + p] + found[p * narrow + c]

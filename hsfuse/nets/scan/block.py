"""A whole SS2D block on the CPU in three fused passes, for inference: enter, scan, leave."""
# mypy: ignore-errors

from __future__ import annotations

from itertools import pairwise
from typing import Protocol

import numba
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from hsfuse.nets.scan import block as around
from hsfuse.nets.scan.cpu import flat, scan2d_cpu, share, threads_for
from hsfuse.nets.scan.kernels import buffer, compiled, copy
from hsfuse.nets.scan.lanes import (
    LANES,
    PIXELS,
    VECTORS,
    fma,
    load,
    load_first,
    logistic,
    product,
    splat,
    store,
    store_first,
    total,
)

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


BANDS = 4  # bands of rows for each thread, so that one that is slowed down doesn't hold up the others


class Block(Protocol):
    """The parts of an SS2D block that are read here."""

    norm: nn.LayerNorm
    in_proj: nn.Linear
    conv: nn.Conv2d
    x_proj: Tensor
    dt_weight: Tensor
    dt_bias: Tensor
    a_log: Tensor
    skip: Tensor
    out_norm: nn.LayerNorm
    out_proj: nn.Linear


def _padded(x: Tensor) -> Tensor:
    """Zeros behind the last column, up to pairs of vectors; contiguous."""
    return functional.pad(x, (0, -x.shape[-1] % around.PAIR)).contiguous()


def _input_weights(block: Block) -> tuple[Tensor, Tensor]:
    """Input projection (C, 2 DP) and bias (2 DP), with the layer norm's weight and bias folded in."""
    halves = block.in_proj.weight.unflatten(0, (2, -1))
    weights = (halves * block.norm.weight).permute(2, 0, 1)
    return _padded(weights).flatten(1), _padded(halves @ block.norm.bias).flatten()


def _conv_weights(conv: nn.Conv2d) -> Tensor:
    """Taps and bias, (10, DP)."""
    assert conv.bias is not None
    return _padded(torch.cat([conv.weight.flatten(1).T, conv.bias[None]]))


def _tasks(images: int, rows: int, threads: int) -> list[tuple[int, int, int]]:
    """(image, first row, end row) of each task."""
    parts = 1 if threads == 1 else min(rows, BANDS * threads)
    edges = [rows * i // parts for i in range(parts + 1)]
    return [(image, a, b) for image in range(images) for a, b in pairwise(edges)]


def block_cpu(block: Block, x: Tensor) -> Tensor:
    """Output of an SS2D block in evaluation mode, (B, C, H, W) float32 -> the same; no gradients."""
    x = x.contiguous()
    images, channels, height, width = x.shape
    inner, count = block.conv.out_channels, block.x_proj.shape[0] * block.x_proj.shape[1]
    u, proj = x.new_empty(images, height, width, inner), x.new_empty(images, height, width, 4, count // 4)
    gate, out = torch.empty_like(u), torch.empty_like(x)
    shape = (channels, inner, height, width, count)
    threads = threads_for(u.numel() * block.a_log.shape[2] * 4, images * height)
    tasks = _tasks(images, height, threads)
    project = _padded(block.x_proj.flatten(0, 1).T)
    weights = _padded(block.out_proj.weight.T)
    norm = block.out_norm
    leaving = _padded(torch.stack([norm.weight, norm.bias, torch.ones_like(norm.bias)]))
    entering = (*_input_weights(block), _conv_weights(block.conv), project, project.new_zeros(project.shape[1]))
    arrays = [flat(t) for t in (x, *entering, u, proj, gate)]
    share(around.enter, [(*arrays, shape, *task) for task in tasks], threads)
    y = scan2d_cpu(u, proj, block.dt_weight, block.dt_bias, block.a_log, block.skip)
    arrays = [flat(t) for t in (x, y, gate, leaving, weights, weights.new_zeros(weights.shape[1]), out)]
    share(around.leave, [(*arrays, shape, *task) for task in tasks], threads)
    return out

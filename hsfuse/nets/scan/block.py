"""A whole SS2D block on the CPU in three fused passes, for inference: enter, scan, leave."""

from __future__ import annotations

from itertools import pairwise
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from hsfuse.nets.scan import around
from hsfuse.nets.scan.cpu import flat, scan2d_cpu, share, threads_for

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

"""The selective scan by our own Triton kernels: CUDA without mamba-ssm, or Triton's interpreter on the CPU."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from hsfuse.nets.scan.packages import works

CHANNELS = 32  # channels of a tile: one for each thread of a warp, whose registers hold the states
MANY = 1024  # chunks of an image that fill a large GPU
SHORTEST, LONGEST = 16, 128  # steps of a chunk
PROGRAMS = 4096  # that run at once in the backward pass: scratch memory for STEPS states of each
CHAIN = {"ROWS": 16, "BLOCK": 128}


def available(device: torch.device) -> bool:
    """Whether Triton can be imported and the tensors are on a CUDA device, or on any with TRITON_INTERPRET=1."""
    asked = device.type == "cuda" or os.environ.get("TRITON_INTERPRET") == "1"
    return asked and works("hsfuse.nets.scan.triton_kernels")


def _power_of_two(number: int) -> int:
    return 1 << max(number - 1, 0).bit_length()


class _Shape:
    """Sizes of one scan, and how it is cut into tiles and chunks."""

    def __init__(self, u: Tensor, proj: Tensor, a: Tensor) -> None:
        self.images, self.height, self.width, self.channels = u.shape
        self.states, self.rank = a.shape[1], proj.shape[-1] - 2 * a.shape[1]
        length = self.height * self.width
        self.steps = min(max(_power_of_two(length // MANY), SHORTEST), LONGEST)
        self.chunks, self.blocks = -(-length // self.steps), -(-self.channels // CHANNELS)

    @property
    def sizes(self) -> tuple[int, ...]:
        """Last plain arguments of every kernel."""
        return self.height, self.width, self.channels, self.states, self.rank, self.chunks

    @property
    def tiles(self) -> dict[str, Any]:
        """Constants of every kernel; a warp holds 16 states of each channel."""
        states = _power_of_two(self.states)
        rank, warps = _power_of_two(self.rank), max(1, min(states // 16, 8))
        return {"STEPS": self.steps, "BD": CHANNELS, "BN": states, "BR": rank, "num_warps": warps}

    def grid(self, copies: int) -> tuple[int, int, int]:
        """Programs: chunks, channel blocks, and images times `copies`."""
        return self.chunks, self.blocks, self.images * copies

    def boundary(self, like: Tensor, rows: int) -> Tensor:
        """Empty (B, 4, chunks, rows, D)."""
        return like.new_empty(self.images, 4, self.chunks, rows, self.channels)


def _starts(shape: _Shape, arguments: Sequence[Tensor], grad_y: Tensor, decays: Tensor, adjoint: bool) -> Tensor:
    """States at the start of each chunk (B, 4, chunks, N, D); or, `adjoint`, gradients that enter it from behind."""
    from hsfuse.nets.scan import triton_kernels as kernels

    found = torch.empty_like(decays)
    size = shape.states * shape.channels
    kernels.ends[shape.grid(4)](
        *arguments[:5], grad_y, found, decays, *shape.sizes, ADJOINT=adjoint, **shape.tiles
    )  # fmt: skip
    programs = (-(-size // CHAIN["BLOCK"]), shape.images * 4)
    kernels.chain[programs](found, decays, shape.chunks, size, ADJOINT=adjoint, **CHAIN)
    return found


def _forward(arguments: Sequence[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """Output, states at the start of each chunk and decays of each chunk."""
    from hsfuse.nets.scan import triton_kernels as kernels

    u, proj, _, _, a, _ = arguments
    shape = _Shape(u, proj, a)
    decays, y = shape.boundary(u, shape.states), torch.empty_like(u)
    starts = _starts(shape, arguments, u, decays, adjoint=False)
    for k in range(4):
        kernels.outputs[shape.grid(1)](*arguments, starts, y, k, *shape.sizes, **shape.tiles)
    return y, starts, decays


def _backward(arguments: Sequence[Tensor], starts: Tensor, decays: Tensor, grad_y: Tensor) -> tuple[Tensor, ...]:
    """Gradients of all arguments."""
    from hsfuse.nets.scan import triton_kernels as kernels

    u, proj, _, _, a, _ = arguments
    shape = _Shape(u, proj, a)
    carries = _starts(shape, arguments, grad_y, decays, adjoint=True)
    grad_u, grad_proj = torch.empty_like(u), proj.new_empty(shape.blocks, *proj.shape)
    grad_a, grad_steps = shape.boundary(u, shape.states), shape.boundary(u, shape.rank + 2)
    slab = min(max(1, PROGRAMS // (shape.blocks * shape.images)), shape.chunks)
    history = u.new_empty(slab * shape.blocks * shape.images, shape.steps, shape.tiles["BN"], CHANNELS)
    found = (history, grad_u, grad_proj, grad_a, grad_steps)
    for k in range(4):
        for begin in range(0, shape.chunks, slab):
            grid = (min(slab, shape.chunks - begin), *shape.grid(1)[1:])
            kernels.gradients[grid](
                *arguments, starts, carries, grad_y, *found, begin, k, *shape.sizes, **shape.tiles
            )  # fmt: skip
    weight, bias, skip = grad_steps.sum((0, 2)).split([shape.rank, 1, 1], 1)
    return grad_u, grad_proj.sum(0), weight, bias[:, 0], grad_a.sum((0, 2)), skip[:, 0]


class _Scan(torch.autograd.Function):
    """u (B, H, W, D), proj (B, H, W, 4, P), weight (4, R, D), bias (4, D), A log2(e) (4, N, D), skip (4, D)."""

    @staticmethod
    def forward(ctx: Any, *arguments: Tensor) -> Tensor:
        y, starts, decays = _forward(arguments)
        ctx.save_for_backward(*arguments, starts, decays)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_y: Tensor) -> tuple[Tensor, ...]:
        *arguments, starts, decays = ctx.saved_tensors
        return _backward(arguments, starts, decays, grad_y.contiguous())


def scan2d_triton(u: Tensor, proj: Tensor, dt_weight: Tensor, dt_bias: Tensor, a_log: Tensor, skip: Tensor) -> Tensor:
    """Four-direction selective scan in float32, arguments and result as in `hsfuse.nets.scan.scan2d`.

    Chunks are scanned side by side and chained, as in Blelloch's two-level scan ("Prefix Sums and Their Applications",
    1990), so that one image fills a large GPU.
    """
    a = -math.log2(math.e) * torch.exp(a_log.float()).transpose(1, 2)
    arguments = (u, proj, dt_weight.transpose(1, 2), dt_bias, a, skip)
    return _Scan.apply(*(x.float().contiguous() for x in arguments)).to(u.dtype)

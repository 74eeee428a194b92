"""The fused CPU scan: Numba kernels behind a torch autograd function, spread over a few plain threads.

The threads are Python's: they sleep while they wait, can be entered from several threads at once, and so never fight
torch's OpenMP pool or abort as Numba's own layers can. Their number follows `torch.get_num_threads()`.
"""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import pairwise
from math import gcd
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from hsfuse.nets.scan import kernels
from hsfuse.nets.scan.backward import backward
from hsfuse.nets.scan.forward import forward
from hsfuse.nets.scan.lanes import LANES

SMALL = 400_000  # state updates under which threads cost more than they save


@cache
def _pool(process: int, workers: int) -> ThreadPoolExecutor:
    """Worker threads of this process (a forked child has to make its own)."""
    return ThreadPoolExecutor(workers, thread_name_prefix="hsfuse-scan")


def share(kernel: Callable[..., None], tasks: Sequence[tuple[Any, ...]], threads: int) -> None:
    """Call the kernel for each task, the calling thread being one of `threads`."""
    queue = iter(tasks)

    def drain() -> None:
        for task in queue:
            kernel(*task)

    helpers = [_pool(os.getpid(), threads - 1).submit(drain) for _ in range(threads - 1)] if threads > 1 else []
    drain()
    for helper in helpers:
        helper.result()


def threads_for(updates: int, tasks: int) -> int:
    """Threads worth using for so many state updates, in so many parts: torch's number, or one for a small map."""
    return 1 if updates < SMALL else max(1, min(torch.get_num_threads(), tasks))


def flat(x: Tensor) -> np.ndarray:
    """The numbers of a contiguous tensor, in place."""
    return x.detach().reshape(-1).numpy()


def _pack(a_log: Tensor, dt_weight: Tensor, dt_bias: Tensor, skip: Tensor) -> Tensor:
    """Parameters in blocks of lanes, (4, blocks, N + R + 2, LANES); zeros behind the last channel."""
    blocks = -(-a_log.shape[1] // LANES)
    packed = a_log.new_zeros(4, blocks, a_log.shape[2] + dt_weight.shape[2] + 2, LANES)
    kernels.pack_parameters(*(x.detach().numpy() for x in (a_log, dt_weight, dt_bias, skip, packed)))
    return packed


def _unpack(grads: Tensor, a_log: Tensor) -> list[Tensor]:
    """Gradients of a_log, dt_weight, dt_bias and skip from those of the packed parameters, (4, blocks, .., LANES)."""
    channels, n_state = a_log.shape[1:]
    rows = grads.transpose(2, 3).flatten(1, 2)[:, :channels]
    grad_a, weight, bias, skip = rows.split([n_state, rows.shape[2] - n_state - 2, 1, 1], 2)
    return [-grad_a * a_log.exp(), weight, bias[..., 0], skip[..., 0]]


def _groups(images: int, blocks: int, threads: int) -> list[tuple[int, int, int]]:
    """(image, first block, end block) of each task: whole images, or parts of them where that fills the threads."""
    parts = min(blocks, threads // gcd(images, threads))
    edges = [blocks * i // parts for i in range(parts + 1)]
    return [(image, a, b) for image in range(images) for a, b in pairwise(edges)]


def _forward(arguments: Sequence[Tensor], keep: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Output, packed parameters, and, if `keep`, the states at the start of each chunk."""
    u, proj, dt_weight, dt_bias, a_log, skip = arguments
    images, height, width, channels = u.shape
    n_state, rank = a_log.shape[2], dt_weight.shape[2]
    packed = _pack(a_log, dt_weight, dt_bias, skip)
    blocks, chunks = packed.shape[1], -(-height * width // kernels.STEPS)
    states = u.new_empty((images, 4, blocks, chunks, n_state, LANES) if keep else 0)
    y = torch.empty_like(u)
    threads = threads_for(4 * u.numel() * n_state, images * blocks)
    arrays = (*(flat(x) for x in (u, proj, packed, y, states)), (height, width, channels, n_state, rank))
    share(forward, [(*arrays, *group) for group in _groups(images, blocks, threads)], threads)
    return y, packed, states


class _Scan(torch.autograd.Function):
    """All arguments contiguous float32, as in `hsfuse.nets.scan.scan2d`."""

    @staticmethod
    def forward(ctx: Any, *arguments: Tensor) -> Tensor:
        y, packed, states = _forward(arguments, keep=True)
        u, proj, dt_weight, _, a_log, _ = arguments
        ctx.save_for_backward(u, proj, a_log, packed, states)
        ctx.scan_shape = (*u.shape[1:], a_log.shape[2], dt_weight.shape[2])
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_y: Tensor) -> tuple[Tensor, ...]:
        u, proj, a_log, packed, states = ctx.saved_tensors
        images, threads = u.shape[0], threads_for(4 * u.numel() * a_log.shape[2], 4 * u.shape[0])
        parts = next((n for n in (1, 2) if n * images % threads == 0), 4)
        grad_u, grad_proj = u.new_empty(parts, *u.shape), torch.empty_like(proj)
        grad_packed = u.new_zeros(images, *packed.shape)
        arrays = [flat(x) for x in (u, proj, packed, states, grad_y.contiguous(), grad_u, grad_proj, grad_packed)]
        tasks = [(*arrays, ctx.scan_shape, image, part, parts) for image in range(images) for part in range(parts)]
        share(backward, tasks, threads)
        grad_a, grad_weight, grad_bias, grad_skip = _unpack(grad_packed.sum(0), a_log)
        return grad_u.sum(0) if parts > 1 else grad_u[0], grad_proj, grad_weight, grad_bias, grad_a, grad_skip


def scan2d_cpu(u: Tensor, proj: Tensor, dt_weight: Tensor, dt_bias: Tensor, a_log: Tensor, skip: Tensor) -> Tensor:
    """Four-direction selective scan on the CPU in float32, arguments and result as in `hsfuse.nets.scan.scan2d`."""
    arguments = [x.float().contiguous() for x in (u, proj, dt_weight, dt_bias, a_log, skip)]
    if torch.is_grad_enabled() and any(x.requires_grad for x in arguments):
        return _Scan.apply(*arguments).to(u.dtype)
    return _forward(arguments, keep=False)[0].to(u.dtype)

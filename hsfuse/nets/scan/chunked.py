"""The selective scan in plain torch: chunks advance side by side, then their ends are chained.

With chunks of about sqrt(L) steps the Python loop has 2 sqrt(L) turns instead of L, and no array of size (B, L, D, N)
is made: a first pass finds the state at the end of each chunk from a zero start, the chunks are chained, and a second
pass runs each chunk from its true start.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from hsfuse.nets.scan.reference import merge, step_sizes, unroll


def _chunks(x: Tensor, length: int) -> Tensor:
    """(B, 4, L, E) -> (length, B, 4, chunks, E), zero steps appended at the end."""
    count = -(-x.shape[2] // length)
    padded = functional.pad(x, (0, 0, 0, count * length - x.shape[2]))
    return padded.unflatten(2, (count, length)).permute(3, 0, 1, 2, 4).contiguous()


def _advance(state: Tensor, dt: Tensor, push: Tensor, b: Tensor, a: Tensor) -> Tensor:
    """One step of all chunks: state (B, 4, chunks, D, N), dt and push = dt u (B, 4, chunks, D), b (.., N)."""
    return torch.addcmul(push[..., None] * b[..., None, :], torch.exp(dt[..., None] * a), state)


def _starts(ends: Tensor, total_dt: Tensor, a: Tensor) -> Tensor:
    """True state at the start of each chunk, from the zero-start ends and each chunk's sum of dt."""
    decay = torch.exp(total_dt[..., None] * a)
    state, starts = torch.zeros_like(ends[:, :, 0]), []
    for i in range(ends.shape[2]):
        starts.append(state)
        state = decay[:, :, i] * state + ends[:, :, i]
    return torch.stack(starts, 2)


def _scan(u: Tensor, proj: Tensor, dt_weight: Tensor, dt_bias: Tensor, a_log: Tensor, skip: Tensor) -> Tensor:
    sequence, dt_low, b, c = unroll(u, proj, a_log.shape[-1])
    length = max(1, math.isqrt(sequence.shape[2]))
    steps = step_sizes(dt_low, dt_weight, dt_bias)
    push, dt, b, c = (_chunks(x, length) for x in (steps * sequence, steps, b, c))
    a = -torch.exp(a_log)[:, None]
    state = dt.new_zeros(*dt.shape[1:], a.shape[-1])
    for t in range(length):
        state = _advance(state, dt[t], push[t], b[t], a)
    state = _starts(state, dt.sum(0), a)
    outputs = []
    for t in range(length):
        state = _advance(state, dt[t], push[t], b[t], a)
        outputs.append((state @ c[t][..., None])[..., 0])
    y = torch.stack(outputs, 3).flatten(2, 3)[:, :, : sequence.shape[2]]
    return merge(y, u.shape[1], u.shape[2]) + skip.sum(0) * u


def scan2d_chunked(u: Tensor, proj: Tensor, dt_weight: Tensor, dt_bias: Tensor, a_log: Tensor, skip: Tensor) -> Tensor:
    """Four-direction selective scan on any device, arguments and result as in `hsfuse.nets.scan.scan2d`.

    Gradients are recomputed in the backward pass, so that only one call's steps are in memory at a time.
    """
    arguments = (u, proj, dt_weight, dt_bias, a_log, skip)
    if torch.is_grad_enabled() and any(x.requires_grad for x in arguments):
        return checkpoint(_scan, *arguments, use_reentrant=False, preserve_rng_state=False)
    return _scan(*arguments)

"""The selective scan written down step by step, in the order of its definition: slow, readable, any dtype."""

import torch
from torch import Tensor
from torch.nn import functional


def scan_orders(height: int, width: int, device: torch.device | None = None) -> Tensor:
    """Pixel visited at each step, (4, H*W): row-major, column-major, and both reversed."""
    rows = torch.arange(height * width, device=device).view(height, width)
    forward = torch.stack([rows.flatten(), rows.T.flatten()])
    return torch.cat([forward, forward.flip(1)])


def unroll(u: Tensor, proj: Tensor, d_state: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Four sequences in scan order: u (B, 4, L, D), dt_low (B, 4, L, R), b and c (B, 4, L, N).

    `u` is (B, H, W, D) and `proj` (B, H, W, 4, R + 2N).
    """
    orders = scan_orders(u.shape[1], u.shape[2], u.device)
    sequences = torch.stack([u.flatten(1, 2)[:, order] for order in orders], 1)
    flat = proj.flatten(1, 2)
    rows = torch.stack([flat[:, order, k] for k, order in enumerate(orders)], 1)
    rank = proj.shape[-1] - 2 * d_state
    dt_low, b, c = rows.split([rank, d_state, d_state], -1)
    return sequences, dt_low, b, c


def merge(y: Tensor, height: int, width: int) -> Tensor:
    """Sum over directions, mapped back: (B, 4, L, D) in scan order -> (B, H, W, D)."""
    orders = scan_orders(height, width, y.device)
    total = sum(y[:, k, order.argsort()] for k, order in enumerate(orders))
    return torch.as_tensor(total).unflatten(1, (height, width))


def step_sizes(dt_low: Tensor, dt_weight: Tensor, dt_bias: Tensor) -> Tensor:
    """softplus(dt_low @ dt_weight^T + dt_bias), (B, 4, L, D)."""
    return functional.softplus(torch.einsum("bklr,kdr->bkld", dt_low, dt_weight) + dt_bias[:, None])


def scan2d_reference(
    u: Tensor, proj: Tensor, dt_weight: Tensor, dt_bias: Tensor, a_log: Tensor, skip: Tensor
) -> Tensor:
    """Sequential four-direction selective scan, arguments and result as in `hsfuse.nets.scan.scan2d`."""
    sequence, dt_low, b, c = unroll(u, proj, a_log.shape[-1])
    dt = step_sizes(dt_low, dt_weight, dt_bias)
    a = -torch.exp(a_log)
    state = sequence.new_zeros(u.shape[0], *a.shape)
    outputs = []
    for t in range(sequence.shape[2]):
        decay = torch.exp(dt[:, :, t, :, None] * a)
        state = decay * state + (dt[:, :, t] * sequence[:, :, t])[..., None] * b[:, :, t, None]
        outputs.append((state * c[:, :, t, None]).sum(-1) + skip * sequence[:, :, t])
    return merge(torch.stack(outputs, 2), u.shape[1], u.shape[2])

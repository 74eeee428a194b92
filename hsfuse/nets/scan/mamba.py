"""The selective scan by mamba-ssm's CUDA kernel, where that package is installed."""

import torch
from torch import Tensor

from hsfuse.nets.scan.packages import works
from hsfuse.nets.scan.reference import merge, unroll


def available(device: torch.device) -> bool:
    """Whether mamba-ssm is installed, its kernel fits this PyTorch, and the tensors are on a CUDA device."""
    return device.type == "cuda" and works("mamba_ssm.ops.selective_scan_interface")


def scan2d_mamba(u: Tensor, proj: Tensor, dt_weight: Tensor, dt_bias: Tensor, a_log: Tensor, skip: Tensor) -> Tensor:
    """Four-direction selective scan on CUDA, arguments and result as in `hsfuse.nets.scan.scan2d`.

    The four directions are laid side by side as channel groups, as VMamba (Liu et al. 2024) does.
    """
    from mamba_ssm.ops.selective_scan_interface import selective_scan_fn

    sequence, dt_low, b, c = unroll(u, proj, a_log.shape[-1])
    dt = torch.einsum("bklr,kdr->bkdl", dt_low, dt_weight)
    y = selective_scan_fn(
        sequence.transpose(2, 3).flatten(1, 2).contiguous(),
        dt.flatten(1, 2).contiguous(),
        -torch.exp(a_log).flatten(0, 1),
        b.transpose(2, 3).contiguous(),
        c.transpose(2, 3).contiguous(),
        skip.flatten(),
        delta_bias=dt_bias.flatten(),
        delta_softplus=True,
    )
    return merge(y.unflatten(1, (4, -1)).transpose(2, 3), u.shape[1], u.shape[2])

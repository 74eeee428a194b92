"""Four-direction selective scan over a map: one operation, several backends that agree.

Source: Gu and Dao, "Mamba: Linear-Time Sequence Modeling with Selective State Spaces", 2023, equations 2 and 4 with
algorithm 2; the four directions are those of Liu et al., "VMamba", 2024.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from hsfuse.core.errors import SettingError
from hsfuse.nets.scan import mamba, triton
from hsfuse.nets.scan.chunked import scan2d_chunked
from hsfuse.nets.scan.packages import works
from hsfuse.nets.scan.reference import scan2d_reference

VARIABLE = "HSFUSE_SCAN"
HALF = (torch.float16, torch.bfloat16)
ScanFunction = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor], Tensor]


def _scan2d_cpu(u: Tensor, proj: Tensor, dt_weight: Tensor, dt_bias: Tensor, a_log: Tensor, skip: Tensor) -> Tensor:
    from hsfuse.nets.scan.cpu import scan2d_cpu

    return scan2d_cpu(u, proj, dt_weight, dt_bias, a_log, skip)


@dataclass(frozen=True)
class Backend:
    """One way to run the scan: where it works, and the function."""

    available: Callable[[torch.device], bool]
    scan: ScanFunction


def _cpu_available(device: torch.device) -> bool:
    """Whether Numba is installed and accepts the NumPy beside it."""
    return device.type == "cpu" and works("hsfuse.nets.scan.cpu")


# Best first: the first that is available is chosen.
BACKENDS: dict[str, Backend] = {
    "mamba": Backend(mamba.available, mamba.scan2d_mamba),
    "cpu": Backend(_cpu_available, _scan2d_cpu),
    "triton": Backend(triton.available, triton.scan2d_triton),
    "chunked": Backend(lambda device: True, scan2d_chunked),
    "reference": Backend(lambda device: True, scan2d_reference),
}


def available_backends(device: torch.device | str) -> list[str]:
    """Names of the backends that work on `device`, best first."""
    return [name for name, backend in BACKENDS.items() if backend.available(torch.device(device))]


def choose_backend(device: torch.device | str) -> str:
    """Name of the backend that scans tensors on `device`: the one that HSFUSE_SCAN names, else the best available.

    Raises SettingError when HSFUSE_SCAN names no backend or one that doesn't work on `device`.
    """
    forced = os.environ.get(VARIABLE, "").strip().lower()
    usable = available_backends(device)
    if not forced:
        return usable[0]
    if forced not in BACKENDS:
        raise SettingError(f"{VARIABLE}={forced} is no scan backend; choose one of {', '.join(BACKENDS)}, or unset it.")
    if forced not in usable:
        raise SettingError(
            f"{VARIABLE}={forced} can't run on {device} here (package missing or another device); "
            f"choose one of {', '.join(usable)}, or unset it."
        )
    return forced


def fused_block(x: Tensor) -> Callable[[Any, Tensor], Tensor] | None:
    """Function that computes a whole SS2D block for the map `x` without gradients, where there is one."""
    if x.dtype != torch.float32 or choose_backend(x.device) != "cpu":
        return None
    from hsfuse.nets.scan.block import block_cpu

    return block_cpu


def scan2d(u: Tensor, proj: Tensor, dt_weight: Tensor, dt_bias: Tensor, a_log: Tensor, skip: Tensor) -> Tensor:
    """Selective scan of the map u (B, H, W, D) in four directions, summed: (B, H, W, D).

    Directions k = 0..3 are row-major, column-major, and both reversed. For each, with N states and rank R:
    `proj` (B, H, W, 4, R + 2N) holds per pixel (never flipped) the low-rank step, B and C; `dt_weight` (4, D, R) and
    `dt_bias` (4, D) make dt = softplus(dt_weight low + dt_bias); `a_log` (4, D, N) gives A = -exp(a_log);
    `skip` (4, D) is D. Per channel and state: h_t = exp(dt A) h_{t-1} + dt B_t u_t, y_t = sum C_t h_t + D u_t.

    Half-precision arguments are scanned in float32, under autocast, too; float64 maps in float64, by `chunked` unless
    HSFUSE_SCAN says otherwise.
    Differentiable in all arguments. Raises SettingError as `choose_backend` does.
    """
    name = choose_backend(u.device)
    if u.dtype == torch.float64 and VARIABLE not in os.environ:
        name = "chunked"
    given = (u, proj, dt_weight, dt_bias, a_log, skip)
    with torch.autocast(u.device.type, enabled=False):
        return BACKENDS[name].scan(*(x.float() if x.dtype in HALF else x for x in given)).to(u.dtype)

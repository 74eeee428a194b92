"""The SS2D block: a gated state-space layer that scans its map in four directions."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from hsfuse.nets.scan import fused_block, scan2d

DT_MIN, DT_MAX = 1e-3, 1e-1
DIRECTIONS = 4


def _dt_bias(size: tuple[int, int]) -> Tensor:
    """Bias whose softplus is log-uniform in [DT_MIN, DT_MAX]."""
    dt = torch.exp(torch.empty(size).uniform_(math.log(DT_MIN), math.log(DT_MAX)))
    return dt + torch.log(-torch.expm1(-dt))


class SS2D(nn.Module):
    """Pre-normalised residual SS2D block: (B, C, H, W) -> (B, C, H, W).

    `d_state` is C // 2 unless given, the inner width `expand` C, the rank of the step size ceil(C / 16). Dropout acts
    on the branch's output in training. Source: Liu et al., "VMamba", 2024, in the form of Guo et al., "MambaIR", 2024.
    """

    def __init__(self, channels: int, d_state: int | None = None, expand: int = 2, dropout: float = 0.3) -> None:
        super().__init__()
        inner, rank = expand * channels, math.ceil(channels / 16)
        self.d_state = d_state or max(1, channels // 2)
        self.norm = nn.LayerNorm(channels)
        self.in_proj = nn.Linear(channels, 2 * inner, bias=False)
        self.conv = nn.Conv2d(inner, inner, 3, padding=1, groups=inner)
        self.x_proj = nn.Parameter(torch.empty(DIRECTIONS, rank + 2 * self.d_state, inner))
        self.dt_weight = nn.Parameter(torch.empty(DIRECTIONS, inner, rank))
        self.dt_bias = nn.Parameter(_dt_bias((DIRECTIONS, inner)))
        self.a_log = nn.Parameter(torch.arange(1.0, self.d_state + 1).log().repeat(DIRECTIONS, inner, 1))
        self.skip = nn.Parameter(torch.ones(DIRECTIONS, inner))
        self.out_norm = nn.LayerNorm(inner)
        self.out_proj = nn.Linear(inner, channels, bias=False)
        self.dropout = nn.Dropout(dropout)
        nn.init.uniform_(self.x_proj, -(inner**-0.5), inner**-0.5)
        nn.init.uniform_(self.dt_weight, -(rank**-0.5), rank**-0.5)

    def _inner(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Scanned map before normalisation and gate, each (B, H, W, D), from the normalised input (B, H, W, C)."""
        weight, gate_weight = self.in_proj.weight.chunk(2)
        gate = functional.linear(x, gate_weight)
        u = self.conv(functional.linear(x, weight).permute(0, 3, 1, 2))
        u = functional.silu(u).permute(0, 2, 3, 1).contiguous()
        proj = functional.linear(u, self.x_proj.flatten(0, 1)).unflatten(-1, (DIRECTIONS, -1))
        return scan2d(u, proj, self.dt_weight, self.dt_bias, self.a_log, self.skip), gate

    def forward(self, x: Tensor) -> Tensor:
        """Block output, shape of `x`; on the CPU without gradients fused."""
        if not (self.training or torch.is_grad_enabled()) and (fused := fused_block(x)):
            return fused(self, x)
        y, gate = self._inner(self.norm(x.permute(0, 2, 3, 1)))
        y = self.out_proj(self.out_norm(y) * functional.silu(gate))
        return x + self.dropout(y).permute(0, 3, 1, 2)

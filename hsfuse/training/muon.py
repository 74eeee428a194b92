"""Muon: momentum whose update of every matrix is orthogonalised; AdamW for all that isn't a matrix.

Jordan et al. 2024, "Muon: an optimizer for hidden layers in neural networks"; the size of the update follows Liu et al.
2025, "Muon is scalable for LLM training", section 2.2, so that learning rate and weight decay mean what they do for
AdamW.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

#: Coefficients of the Newton-Schulz iteration, and how often it runs.
QUINTIC, ROUNDS = (3.4445, -4.7750, 2.0315), 5
#: RMS of an update per learning rate: what AdamW's usually is.
UPDATE_RMS = 0.2
MOMENTUM = 0.95


class Muon(torch.optim.Optimizer):
    """Groups with `matrices` True hold parameters whose last two axes, or for convolutions whose first axis against the
    others, are matrices; the other groups are for AdamW."""

    def __init__(self, groups: Iterable[dict[str, Any]], lr: float, betas: tuple[float, float]) -> None:
        super().__init__(groups, {"lr": lr, "betas": betas, "weight_decay": 0.0, "matrices": False})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """One update of all parameters that have a gradient."""
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    p.mul_(1 - group["lr"] * group["weight_decay"])
                    update = self._matrix_update if group["matrices"] else self._adam_update
                    p.add_(update(p, p.grad, group["betas"]), alpha=-group["lr"])

    def _matrix_update(self, p: Tensor, gradient: Tensor, betas: tuple[float, float]) -> Tensor:
        momentum = self.state[p].setdefault("momentum", torch.zeros_like(p))
        momentum.lerp_(gradient, 1 - MOMENTUM)
        ahead = torch.lerp(gradient, momentum, MOMENTUM)
        matrix = orthogonal(ahead.flatten(1) if p.ndim == 4 else ahead)
        return (matrix * UPDATE_RMS * math.sqrt(max(matrix.shape[-2:]))).view_as(p)

    def _adam_update(self, p: Tensor, gradient: Tensor, betas: tuple[float, float]) -> Tensor:
        state = self.state[p]
        if not state:
            state.update(steps=0, mean=torch.zeros_like(p), power=torch.zeros_like(p))
        state["steps"] += 1
        state["mean"].lerp_(gradient, 1 - betas[0])
        state["power"].lerp_(gradient.square(), 1 - betas[1])
        mean, power = (state[k] / (1 - b ** state["steps"]) for k, b in zip(("mean", "power"), betas, strict=True))
        return mean / (power.sqrt() + 1e-8)


def orthogonal(matrix: Tensor) -> Tensor:
    """U V^T of matrices U S V^T, roughly: singular values end between 0.7 and 1.2. Any leading axes."""
    wide = matrix.shape[-2] <= matrix.shape[-1]
    x = matrix if wide else matrix.mT
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    a, b, c = QUINTIC
    for _ in range(ROUNDS):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x if wide else x.mT

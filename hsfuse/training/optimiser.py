"""Optimisers and the learning rate's course."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from hsfuse.core.errors import SettingError
from hsfuse.nets.srlf import SRLFNet
from hsfuse.training.config import TrainConfig

#: Parameters with several axes that Muon leaves to AdamW: no matrices, or the first and last layer.
NO_MATRICES = (".conv.weight", ".dt_weight", ".dt_bias", ".a_log", ".skip", ".rescale")
ENDS = ("embed.weight", "refine.weight")


class MatrixOptimiser:
    """torch's Muon for `matrices`, AdamW for the `groups` of all other parameters; used as one optimiser.

    Muon: Jordan et al. 2024, "Muon: an optimizer for hidden layers in neural networks", with the size of its updates by
    Liu et al. 2025, "Muon is scalable for LLM training", section 2.2: learning rate and weight decay mean what they do
    for AdamW. It takes matrices alone: a convolution's weight is one of its first axis against the others, a stack of
    matrices is many. They are the parameters' own memory: the network has to be on its device already.
    """

    def __init__(
        self, matrices: Sequence[nn.Parameter], groups: list[dict[str, Any]], decay: float, lr: float, betas: Any
    ) -> None:
        if not hasattr(torch.optim, "Muon"):
            raise SettingError(
                f"the optimiser muon needs torch 2.9 or later, this is {torch.__version__}; take adamw, or install "
                f"hsfuse[training]"
            )
        self._views = [(p, _as_matrices(p.detach())) for p in matrices]
        views = [view for _, own in self._views for view in own]
        self._muon = torch.optim.Muon(views, lr, decay, adjust_lr_fn="match_rms_adamw")
        self._adam = torch.optim.AdamW(groups, lr, betas)

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """Groups whose learning rate may be set."""
        return [*self._muon.param_groups, *self._adam.param_groups]

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget all gradients."""
        self._adam.zero_grad(set_to_none)
        for p, _ in self._views:
            p.grad = None

    def step(self) -> None:
        """One update of all parameters that have a gradient."""
        for p, views in self._views:
            gradients = [None] * len(views) if p.grad is None else _as_matrices(p.grad)
            for view, gradient in zip(views, gradients, strict=True):
                view.grad = gradient
        self._muon.step()
        self._adam.step()

    def state_dict(self) -> dict[str, Any]:
        """All that a resumption needs."""
        return {"matrices": self._muon.state_dict(), "others": self._adam.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """As `state_dict` has kept it; KeyError or ValueError for another's."""
        self._muon.load_state_dict(state["matrices"])
        self._adam.load_state_dict(state["others"])


def _as_matrices(weight: Tensor) -> list[Tensor]:
    """A weight of two to four axes as matrices."""
    return list(weight.unbind(0)) if weight.ndim == 3 else [weight.flatten(1)]


def make_optimiser(config: TrainConfig, net: SRLFNet) -> torch.optim.Optimizer | MatrixOptimiser:
    """Adam, AdamW, or Muon with AdamW for all that isn't a matrix; the latter two's decay leaves vectors alone."""
    settings = config.optimiser
    if settings.name == "adam":
        return torch.optim.Adam(net.parameters(), settings.learning_rate, settings.betas, 1e-8, settings.weight_decay)
    decay = {"weight_decay": settings.weight_decay}
    vectors = {"params": [p for p in net.parameters() if p.ndim < 2], "weight_decay": 0.0}
    others = [(name, p) for name, p in net.named_parameters() if p.ndim >= 2]
    if settings.name == "adamw":
        groups = [{"params": [p for _, p in others], **decay}, vectors]
        return torch.optim.AdamW(groups, settings.learning_rate, settings.betas)
    inner = {id(p) for name, p in others if not name.endswith(NO_MATRICES) and name not in ENDS}
    matrices = [p for _, p in others if id(p) in inner]
    groups = [{"params": [p for _, p in others if id(p) not in inner], **decay}, vectors]
    return MatrixOptimiser(matrices, groups, settings.weight_decay, settings.learning_rate, settings.betas)


def learning_rate(config: TrainConfig, step: int) -> float:
    """Linear warm-up, the learning rate itself, and over the last, `falling` share of the steps a cosine to its end."""
    settings = config.optimiser
    warm = min(1.0, (step + 1) / max(1, settings.warmup))
    first = max(settings.warmup, round((1 - settings.falling) * settings.steps))
    progress = max(0.0, step - first) / max(1, settings.steps - first)
    low = settings.final_learning_rate
    return warm * (low + (settings.learning_rate - low) * (0.5 + 0.5 * math.cos(math.pi * min(1.0, progress))))

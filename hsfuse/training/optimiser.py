"""Optimisers and the learning rate's course."""

from __future__ import annotations

import math

import torch

from hsfuse.nets.srlf import SRLFNet
from hsfuse.training.config import TrainConfig
from hsfuse.training.muon import Muon

#: Parameters with several axes that Muon leaves to AdamW: no matrices, or the first and last layer.
NO_MATRICES = (".conv.weight", ".dt_weight", ".dt_bias", ".a_log", ".skip", ".rescale")
ENDS = ("embed.weight", "refine.weight")


def make_optimiser(config: TrainConfig, net: SRLFNet) -> torch.optim.Optimizer:
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
    inner = [(p, not name.endswith(NO_MATRICES) and name not in ENDS) for name, p in others]
    groups = [
        {"params": [p for p, is_matrix in inner if is_matrix is kind], **decay, "matrices": kind}
        for kind in (True, False)
    ]
    return Muon([*groups, vectors], settings.learning_rate, settings.betas)


def learning_rate(config: TrainConfig, step: int) -> float:
    """Linear warm-up, the learning rate itself, and over the last, `falling` share of the steps a cosine to its end."""
    settings = config.optimiser
    warm = min(1.0, (step + 1) / max(1, settings.warmup))
    first = max(settings.warmup, round((1 - settings.falling) * settings.steps))
    progress = max(0.0, step - first) / max(1, settings.steps - first)
    low = settings.final_learning_rate
    return warm * (low + (settings.learning_rate - low) * (0.5 + 0.5 * math.cos(math.pi * min(1.0, progress))))

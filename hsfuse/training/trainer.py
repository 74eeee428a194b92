"""One run of training: network, averaged weights, optimiser, and a step; every state can be continued bit for bit."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hsfuse.errors import ModelError, SettingError
from hsfuse.fusers.card import ModelCard, load_checkpoint
from hsfuse.model_zoo import find_model
from hsfuse.nets.srlf import SRLF, SRLFConfig, SRLFNet
from hsfuse.training.config import TrainConfig
from hsfuse.training.draws import DrawSource
from hsfuse.training.patches import PatchSource
from hsfuse.training.references import describe
from hsfuse.training.sample import Reference, Sample

#: Batches on which validation is measured, always the same.
VALIDATION_BATCHES = 8
TERMS = ("gain", "l1", "angle")


def make_source(config: TrainConfig, references: Sequence[Reference], seed: int) -> DrawSource | PatchSource:
    """Where a run's samples come from."""
    if config.kind == "any-sensor":
        assert config.draws is not None
        return DrawSource(references, config.draws, seed)
    assert config.patches is not None
    return PatchSource(references, config.patches, seed)


class Trainer:
    """Network, averaged weights and optimiser of a run, and the steps done so far."""

    def __init__(
        self, config: TrainConfig, train: Sequence[Reference], validation: Sequence[Reference], device: torch.device
    ) -> None:
        self.config, self.device, self.done, self.seconds = config, device, 0, 0.0
        self.source = make_source(config, train, config.seed)
        held = make_source(config, validation, config.seed) if validation else None
        size = config.optimiser.batch
        self.held = [s for n in range(VALIDATION_BATCHES if held else 0) for s in held.batch(n, size)] if held else []
        torch.manual_seed(config.seed)
        self.net = make_net(config, self.source.guide).to(device)
        self.taken = take_over(self.net, config.start) if config.start else 0
        self.averaged = {key: value.clone() for key, value in self.net.state_dict().items()}
        self.optimiser = make_optimiser(config, self.net)
        self.best: dict[str, Any] = {}

    def step(self) -> dict[str, float]:
        """One step of the optimiser; the mean of the loss's terms over the batch."""
        settings = self.config.optimiser
        torch.manual_seed(
            (self.config.seed * 1_000_003 + self.done) % 2**63
        )  # dropout continues the same after a resumption
        for group in self.optimiser.param_groups:
            group["lr"] = learning_rate(self.config, self.done)
        self.net.train()
        self.optimiser.zero_grad(set_to_none=True)
        sums = dict.fromkeys(TERMS, 0.0)
        batch = self.source.batch(self.done, settings.batch)
        for sample in batch:
            terms = self._terms(self.net, sample.to(self.device))
            (self._loss(terms) / len(batch)).backward()
            sums = {key: sums[key] + float(terms[key].detach()) / len(batch) for key in TERMS}
        torch.nn.utils.clip_grad_norm_(self.net.parameters(), settings.clip)
        self.optimiser.step()
        self._average()
        self.done += 1
        return sums

    @staticmethod
    def _terms(net: SRLFNet, sample: Sample) -> dict[str, Tensor]:
        return sample.losses(net(sample.base, sample.observation, sample.step))

    def _loss(self, terms: dict[str, Tensor]) -> Tensor:
        settings = self.config.optimiser
        return settings.gain * terms["gain"] + settings.l1 * terms["l1"] + settings.angle * terms["angle"]

    @torch.no_grad()
    def _average(self) -> None:
        decay = min(self.config.optimiser.ema, (1 + self.done) / (10 + self.done))
        for key, value in self.net.state_dict().items():
            self.averaged[key].lerp_(value, 1 - decay)

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """Mean of the loss's terms over the validation samples, with the averaged weights; empty without any."""
        if not self.held:
            return {}
        net = SRLFNet(self.net.cfg).to(self.device).eval()
        net.load_state_dict(self.averaged)
        all_terms = [self._terms(net, sample.to(self.device)) for sample in self.held]
        return {key: float(torch.stack([terms[key] for terms in all_terms]).mean()) for key in TERMS}

    def state(self) -> dict[str, Any]:
        """All that a resumption needs."""
        return {
            "config": repr(self.config.summary()),
            "done": self.done,
            "seconds": self.seconds,
            "net": self.net.state_dict(),
            "averaged": self.averaged,
            "optimiser": self.optimiser.state_dict(),
        }

    def restore(self, path: Path) -> None:
        """Continue from a state file; ModelError when it is of another run."""
        try:
            state = torch.load(path, map_location=self.device, weights_only=True)
        except Exception as error:
            raise ModelError(f"{path}: not the state of a training run ({error})") from error
        if state["config"] != repr(self.config.summary()):
            raise ModelError(f"{path} is the state of a run with other settings; resume with the same configuration")
        self.net.load_state_dict(state["net"])
        self.averaged = state["averaged"]
        self.optimiser.load_state_dict(state["optimiser"])
        self.done, self.seconds = state["done"], state["seconds"]

    def card(self, scores: dict[str, Any]) -> ModelCard:
        """The card of the weights as they are now."""
        config, device = self.config, self.device.type
        sigma = config.draws.psf_sigma if config.draws else (0.0, 0.0)
        extra = {
            "scores": scores,
            "settings": config.summary(),
            "hours": round(self.seconds / 3600, 3),
            "device": device,
        }
        return ModelCard(
            name=config.name,
            config=self.net.cfg,
            scale=config.net.scale,
            phase="any" if config.patches is None or config.patches.phase is None else f"{config.patches.phase:g}",
            base="glp-ens" if config.kind == "any-sensor" else "bicubic",
            kind=config.kind,
            psf_sigma=sigma,
            trained_on=config.data.description or describe(self.source.references),
            terms=config.data.terms,
            seed=config.seed,
            steps=self.done,
            extra=extra,
        )


def make_net(config: TrainConfig, guide: int) -> SRLFNet:
    """A new network; for any sensor it starts from features that are the inputs in units of the base's error."""
    sizes = config.net
    net = SRLFNet(SRLFConfig(sizes.channels, guide, sizes.scale, sizes.stages, sizes.keep, sizes.dropout, sizes.expand))
    if config.kind == "any-sensor":
        pass_inputs_on(net)
    return net


@torch.no_grad()
def pass_inputs_on(net: SRLFNet) -> None:
    """Let feature k start as the sum of coefficient k's two guides, handed on from stage to stage, with little mixing.

    Signs of subspace axes are arbitrary, so mixing coefficients is the exception; found by chance it takes long.
    """
    c = net.cfg.channels
    net.embed.weight.mul_(0.2)
    for k in range(c):
        net.embed.weight[k, [c + k, 2 * c + k], 1, 1] += 0.7
    for module in net.modules():
        if isinstance(module, SRLF):
            module.out.weight.mul_(0.3)
            for k in range(c):
                module.out.weight[k, c + k] += 1.0


def take_over(net: SRLFNet, name: str) -> int:
    """Copy the tensors of other weights whose names and shapes agree; how many they are. ModelError for none."""
    theirs, own = load_checkpoint(find_model(name).path)[1], net.state_dict()
    common = {key: value for key, value in theirs.items() if key in own and own[key].shape == value.shape}
    if not common:
        raise ModelError(
            f"the weights {name!r} have no tensor in common with the network; start from others or from none"
        )
    net.load_state_dict({**own, **common})
    return len(common)


def make_optimiser(config: TrainConfig, net: SRLFNet) -> torch.optim.Optimizer:
    """Adam or AdamW; the latter's decay leaves biases and scales alone."""
    settings = config.optimiser
    if settings.name == "adam":
        return torch.optim.Adam(net.parameters(), settings.learning_rate, settings.betas, 1e-8, settings.weight_decay)
    if settings.name != "adamw":
        raise SettingError(f"there is no optimiser {settings.name!r}; known are adam, adamw")
    groups = [
        {"params": [p for p in net.parameters() if p.ndim >= 2], "weight_decay": settings.weight_decay},
        {"params": [p for p in net.parameters() if p.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, settings.learning_rate, settings.betas)


def learning_rate(config: TrainConfig, step: int) -> float:
    """Linear warm-up, then a cosine from the learning rate to the final one."""
    settings = config.optimiser
    warm = min(1.0, (step + 1) / max(1, settings.warmup))
    progress = max(0.0, step - settings.warmup) / max(1, settings.steps - settings.warmup)
    low = settings.final_learning_rate
    return warm * (low + (settings.learning_rate - low) * (0.5 + 0.5 * math.cos(math.pi * min(1.0, progress))))

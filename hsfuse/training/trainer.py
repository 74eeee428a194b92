"""One run of training: network, averaged weights, optimiser, and a step; every state can be continued bit for bit."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hsfuse.core.errors import ModelError
from hsfuse.methods.conditioning import KNOWN_BASE
from hsfuse.methods.srlf_bands import FRAME
from hsfuse.nets.srlf import SRLFNet
from hsfuse.nets.weights import ModelCard
from hsfuse.training.bands import BandSource
from hsfuse.training.config import TrainConfig
from hsfuse.training.optimiser import learning_rate, make_optimiser
from hsfuse.training.parallel import Peers
from hsfuse.training.references import describe
from hsfuse.training.sample import Reference
from hsfuse.training.sources import AnySample, held_samples, make_net, make_source, take_over

log = logging.getLogger(__name__)

TERMS = ("gain", "l1", "angle")


class Trainer:
    """Network, averaged weights and optimiser of a run, and the steps done so far."""

    def __init__(
        self,
        config: TrainConfig,
        train: Sequence[Reference],
        validation: Sequence[Reference],
        device: torch.device,
        cache: Path | None = None,
        peers: Peers | None = None,
    ) -> None:
        self.config, self.device, self.done, self.seconds = config, device, 0, 0.0
        self.peers = peers or Peers()
        self.source = self.peers.first_alone(lambda: make_source(config, train, cache))
        self.held = held_samples(config, validation, self.source, cache) if self.peers.first else []
        torch.manual_seed(config.seed)
        self.net = make_net(config, self.source).to(device)
        self.taken = take_over(self.net, config.start) if config.start else 0
        self.first = {key: value.clone() for key, value in self.net.state_dict().items()}
        self.averaged = {key: value.clone() for key, value in self.first.items()}
        self.optimiser = make_optimiser(config, self.net)
        self.half = config.optimiser.precision == "bf16" and device.type == "cuda"
        self.best: dict[str, Any] = {}

    def step(self) -> dict[str, float]:
        """One step of the optimiser; the mean of the loss's terms over this process's part of the batch."""
        settings = self.config.optimiser
        self._seed_dropout()
        for group in self.optimiser.param_groups:
            group["lr"] = learning_rate(self.config, self.done)
        self.net.train()
        self.optimiser.zero_grad(set_to_none=True)
        sums = dict.fromkeys(TERMS, 0.0)
        batch = self.source.batch(self.done, settings.batch, self.peers.part)
        count = sum(len(sample.base) for sample in batch)
        for sample in batch:
            terms = self._terms(self.net, sample.to(self.device))
            (self._loss(terms) * len(sample.base) / settings.batch).backward()
            sums = {key: sums[key] + float(terms[key].detach()) * len(sample.base) / count for key in TERMS}
        self.peers.sum_gradients(self.net.parameters())
        torch.nn.utils.clip_grad_norm_(self.net.parameters(), settings.clip)
        self.optimiser.step()
        self._average()
        self.done += 1
        return sums

    def _seed_dropout(self) -> None:
        """By the step, so that it continues the same after a resumption, and differently in each process."""
        torch.manual_seed((self.config.seed * 1_000_003 + self.done + self.peers.rank * 2**40) % 2**63)

    def _terms(self, net: SRLFNet, sample: AnySample) -> dict[str, Tensor]:
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.half):
            z = net(sample.base, sample.observation, sample.step)
        return sample.losses(z.float())

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
        net = self.averaged_net()
        all_terms = [self._terms(net, sample.to(self.device)) for sample in self.held]
        return {key: float(torch.stack([terms[key] for terms in all_terms]).mean()) for key in TERMS}

    def weights(self) -> dict[str, Tensor]:
        """What a run ends with: the averaged weights, mixed with those that it started from."""
        share = self.config.optimiser.keep_start
        return {key: torch.lerp(value, self.first[key], share) for key, value in self.averaged.items()}

    def averaged_net(self) -> SRLFNet:
        """The network with the weights that are saved, for use."""
        net = SRLFNet(self.net.cfg).to(self.device).eval()
        net.load_state_dict(self.weights())
        return net

    def state(self) -> dict[str, Any]:
        """All that a resumption needs."""
        return {
            "config": _same_run(self.config),
            "done": self.done,
            "seconds": self.seconds,
            "net": self.net.state_dict(),
            "averaged": self.averaged,
            "optimiser": self.optimiser.state_dict(),
            "best": self.best,
        }

    def restore(self, path: Path) -> None:
        """Continue from a state file; ModelError when it is of another run."""
        try:
            state = torch.load(path, map_location=self.device, weights_only=True)
            if state["config"] != _same_run(self.config):
                raise ModelError(
                    f"{path} is the state of a run with other settings; resume with the same configuration"
                )
            self.net.load_state_dict(state["net"])
            self.averaged = state["averaged"]
            self.optimiser.load_state_dict(state["optimiser"])
            self.done, self.seconds, self.best = state["done"], state["seconds"], state.get("best", {})
        except ModelError:
            raise
        except Exception as error:
            reason = [*str(error).splitlines(), ""][0]
            raise ModelError(f"{path}: not the state of a training run ({type(error).__name__}: {reason})") from error

    def tensors(self) -> dict[str, Tensor]:
        """What is saved: the averaged weights, and with fixed sensors the frame that they work in."""
        if not isinstance(self.source, BandSource):
            return self.weights()
        return {**self.weights(), **{f"{FRAME}{k}": v for k, v in self.source.frame_tensors().items()}}

    def card(self, scores: dict[str, Any]) -> ModelCard:
        """The card of the weights as they are now."""
        config, device = self.config, self.device.type
        sigma = (
            config.draws.psf_sigma if config.draws else (config.patches.psf_sigma,) * 2 if config.patches else (0, 0)
        )
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
            base=config.patches.base if config.patches else KNOWN_BASE,
            kind=config.kind,
            psf_sigma=sigma,
            trained_on=config.data.description or describe(self.source.references),
            terms=config.data.terms,
            seed=config.seed,
            steps=self.done,
            extra=extra,
        )


def _same_run(config: TrainConfig) -> str:
    """The settings that a continued run must share: all but the number of steps, so that a run can be made longer."""
    return repr(config.with_changes(1, None).summary())

"""The training loop: samples in, averaged weights out; every state on the way can be continued bit for bit."""

from __future__ import annotations

import csv
import logging
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from hsfuse.errors import ModelError, OutputError, SettingError
from hsfuse.fusers.card import ModelCard, save_checkpoint
from hsfuse.nets.srlf import SRLF, SRLFConfig, SRLFNet
from hsfuse.training.config import TrainConfig
from hsfuse.training.draws import DrawSource
from hsfuse.training.patches import PatchSource
from hsfuse.training.references import describe, load_references
from hsfuse.training.sample import Reference, Sample

log = logging.getLogger(__name__)

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


def train(
    config: TrainConfig,
    output: Path,
    *,
    data: Path = Path(),
    device: str = "auto",
    resume: bool = False,
    overwrite: bool = False,
) -> ModelCard:
    """Train and write `output` (safetensors with its card), `output`.state beside it for --resume, and a CSV log.

    Weights and state are written every `check_every` steps and on interruption; the card of the last is returned.
    """
    state, table = output.with_suffix(".state"), output.with_suffix(".csv")
    check_weights_path(output, overwrite or resume)
    if resume and not state.is_file():
        raise ModelError(f"{state}: nothing to resume; run without --resume first")
    where = torch.device(("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device)
    trainer = Trainer(config, *load_references(config, data), where)
    if resume:
        trainer.restore(state)
    try:
        _run(trainer, output, state, table)
    except KeyboardInterrupt:
        _write(trainer, output, state, {})
        raise
    return trainer.card(trainer.best)


def check_weights_path(path: Path, overwrite: bool) -> None:
    """OutputError unless weights can be written there."""
    if path.suffix != ".safetensors":
        raise OutputError(f"{path}: weights are written as .safetensors; give the output that ending")
    if not path.parent.is_dir():
        raise OutputError(f"{path.parent}: no such folder")
    if path.exists() and not overwrite:
        raise OutputError(f"{path} exists; use --overwrite to replace it")


def _run(trainer: Trainer, output: Path, state: Path, table: Path) -> None:
    config, sums, count = trainer.config, dict.fromkeys(TERMS, 0.0), 0
    bar = tqdm(total=config.optimiser.steps, initial=trainer.done, desc=config.name, unit="step", disable=None)
    start = time.monotonic() - trainer.seconds
    while trainer.done < config.optimiser.steps:
        terms = trainer.step()
        trainer.seconds = time.monotonic() - start
        sums, count = {key: sums[key] + terms[key] for key in TERMS}, count + 1
        bar.update()
        if trainer.done % config.check_every == 0 or trainer.done == config.optimiser.steps:
            means = {key: value / count for key, value in sums.items()}
            sums, count = dict.fromkeys(TERMS, 0.0), 0
            trainer.best = readable(trainer.validate())
            _write(trainer, output, state, trainer.best)
            _note(trainer, table, means)
    bar.close()


def readable(terms: dict[str, float]) -> dict[str, float]:
    """Validation terms as people know them."""
    if not terms:
        return {}
    return {
        "PSNR gain over the base, dB": round(-20 / math.log(10) * terms["gain"], 3),
        "SAM relative to the base": round(terms["angle"], 4),
        "L1": terms["l1"],
    }


def _write(trainer: Trainer, output: Path, state: Path, scores: dict[str, Any]) -> None:
    save_checkpoint(output, trainer.card(scores), trainer.averaged)
    temporary = state.with_name(f".{state.name}.part")
    torch.save(trainer.state(), temporary)
    temporary.replace(state)


def _note(trainer: Trainer, table: Path, means: dict[str, float]) -> None:
    """One line in the CSV log and one for people."""
    row = {"step": trainer.done, "seconds": round(trainer.seconds, 1), **means, **trainer.best}
    fresh = trainer.done <= trainer.config.check_every or not table.exists()
    with table.open("w" if fresh else "a", newline="") as file:
        writer = csv.DictWriter(file, list(row))
        if fresh:
            writer.writeheader()
        writer.writerow(row)
    shown = ", ".join(f"{key} {value:.4g}" for key, value in {**means, **trainer.best}.items())
    log.info("step %d: %s", trainer.done, shown)

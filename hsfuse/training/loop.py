"""The training loop: steps, checks, weights with their card, a state to resume from and a log of the curves."""

from __future__ import annotations

import csv
import logging
import math
import time
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from hsfuse.core.errors import ModelError, OutputError
from hsfuse.nets.weights import ModelCard, save_checkpoint
from hsfuse.training.bands import BandSource
from hsfuse.training.config import TrainConfig
from hsfuse.training.curves import draw_curves
from hsfuse.training.parallel import join_peers, leave_peers
from hsfuse.training.references import load_references, load_test
from hsfuse.training.sample import Reference
from hsfuse.training.scores import LABEL, scene_scores
from hsfuse.training.stopping import Stop, stoppable
from hsfuse.training.trainer import TERMS, Trainer

log = logging.getLogger(__name__)


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

    Weights and state are written every `check_every` steps and, on interruption, after the step that it falls into; a
    second interruption stops at once and leaves the files as they are. The card of the last weights is returned. A
    picture of the log is drawn at the end, and with a base on whole scenes these are scored with the test scenes. Under
    torchrun the first process writes.
    """
    state, table = output.with_suffix(".state"), output.with_suffix(".csv")
    check_weights_path(output, overwrite or resume)
    if resume and not state.is_file():
        raise ModelError(f"{state}: nothing to resume; run without --resume first")
    where = torch.device(("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device)
    peers, where = join_peers(where)
    train_on, validate_on = load_references(config, data)
    trainer = Trainer(config, train_on, validate_on, where, output.with_suffix(".cache"), peers)
    if resume:
        trainer.restore(state)
    try:
        with stoppable() as stop:
            _run(trainer, output, state, table, stop)
            if peers.first:
                trainer.best = trainer.best or readable(trainer.validate())
                trainer.best |= _final_scores(trainer, [*validate_on, *load_test(config, data)])
                _write(trainer, output, state, trainer.best)
    finally:
        if peers.first and table.is_file():
            draw_curves(table, output.with_suffix(".png"))
        leave_peers()
    return trainer.card(trainer.best)


def check_weights_path(path: Path, overwrite: bool) -> None:
    """OutputError unless weights can be written there."""
    if path.suffix != ".safetensors":
        raise OutputError(f"{path}: weights are written as .safetensors; give the output that ending")
    if not path.parent.is_dir():
        raise OutputError(f"{path.parent}: no such folder")
    if path.exists() and not overwrite:
        raise OutputError(f"{path} exists; use --overwrite to replace it")


def _run(trainer: Trainer, output: Path, state: Path, table: Path, stop: Stop) -> None:
    """All steps that are left; KeyboardInterrupt, with everything saved, after the step in which that was asked for."""
    config, sums, count = trainer.config, dict.fromkeys(TERMS, 0.0), 0
    first = trainer.peers.first
    bar = tqdm(
        total=config.optimiser.steps,
        initial=trainer.done,
        desc=config.name,
        unit="step",
        disable=None if first else True,
    )
    start, stop.patient = time.monotonic() - trainer.seconds, True
    while trainer.done < config.optimiser.steps:
        if trainer.peers.any(stop.asked, trainer.device):
            if first:
                _write(trainer, output, state, trainer.best)
            break
        terms = trainer.step()
        trainer.seconds = time.monotonic() - start
        sums, count = {key: sums[key] + terms[key] for key in TERMS}, count + 1
        bar.update()
        if trainer.done % config.check_every == 0 or trainer.done == config.optimiser.steps:
            means = {key: value / count for key, value in sums.items()}
            sums, count = dict.fromkeys(TERMS, 0.0), 0
            if first:
                trainer.best = readable(trainer.validate())
                _write(trainer, output, state, trainer.best)
                _note(trainer, table, means)
    bar.close()
    stop.patient = False
    if stop.asked or trainer.done < config.optimiser.steps:
        raise KeyboardInterrupt


def _final_scores(trainer: Trainer, references: list[Reference]) -> dict[str, Any]:
    """Whole scenes measured with the final weights, where there is a base that can be compared on whole scenes."""
    if not isinstance(trainer.source, BandSource) or not references:
        return {}
    return {LABEL: scene_scores(trainer.averaged_net(), trainer.source, references)}


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
    save_checkpoint(output, trainer.card(scores), trainer.tensors())
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

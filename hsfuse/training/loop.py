"""The training loop: steps, checks, weights with their card, a state to resume from, a log of the curves, scores."""

from __future__ import annotations

import csv
import logging
import math
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from hsfuse.core.errors import ModelError, OutputError
from hsfuse.methods.srlf_bands import BandView, correction, mean_over_turns, most_possible
from hsfuse.metrics import ReferenceMetrics
from hsfuse.nets.srlf import SRLFNet
from hsfuse.nets.weights import ModelCard, save_checkpoint
from hsfuse.training.bands import BandSample, BandSource
from hsfuse.training.config import TrainConfig
from hsfuse.training.parallel import join_peers, leave_peers
from hsfuse.training.references import load_references, load_test
from hsfuse.training.sample import Reference
from hsfuse.training.trainer import TERMS, Trainer

log = logging.getLogger(__name__)

#: Columns that are drawn: key in the log, and what it means.
TRAINING = {"gain": "log ratio of the RMS error to the base's", "l1": "L1", "angle": "spectral angle, relative"}
VALIDATION = ("PSNR gain over the base, dB", "SAM relative to the base", "L1")
#: Metrics on the card, with the decimals worth telling.
METRICS = {"psnr": 2, "sam": 2, "ergas": 3, "uiqi": 4, "ssim": 4}
LABEL = "PSNR dB, SAM degrees, ERGAS, UIQI, SSIM of base and weights"
TURNS = 8


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


class Stop:
    """A signal handler: while `patient` it notes the first signal in `asked`; all others raise KeyboardInterrupt."""

    def __init__(self) -> None:
        self.asked = self.patient = False

    def __call__(self, number: int, frame: FrameType | None) -> None:
        """Take a signal."""
        if self.asked or not self.patient:
            raise KeyboardInterrupt
        self.asked = True


@contextmanager
def stoppable() -> Iterator[Stop]:
    """Interruption and termination both go to the handler that is given, in a shell's background job, too."""
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


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


@torch.no_grad()
def scene_scores(net: SRLFNet, source: BandSource, references: Sequence[Reference]) -> dict[str, Any]:
    """Per reference, the metrics of the base and of what the weights make of it, all symmetries averaged."""
    device = next(net.parameters()).device
    table = {}
    for reference in references:
        (sample,) = source.others([reference]).held
        sample = sample.to(device)
        view = BandView(sample.base, sample.observation, sample.usual)
        output = mean_over_turns(net, view, TURNS)
        fused = sample.estimate + correction(sample.frame, output, sample.usual, sample.fit)
        lrhsi, msi = sample.fit.model(sample.truth)
        fused = sample.fit.between(fused, lrhsi, msi, most_possible(lrhsi, msi))
        scale = source.settings.scale
        pair = {"base": _measure(sample.estimate, sample, scale), "weights": _measure(fused, sample, scale)}
        table[reference.name] = pair
    return table


def _measure(image: Tensor, sample: BandSample, scale: int) -> list[float | None]:
    fused, truth = (t[0].cpu().numpy() for t in (image.clamp_min(0), sample.truth))
    metrics = ReferenceMetrics(truth.shape, scale)
    metrics.update(fused, truth)
    values = metrics.result().values
    found = [(values[key], digits) for key, digits in METRICS.items()]
    return [None if value is None else round(float(value), digits) for value, digits in found]


def draw_curves(table: Path, picture: Path) -> None:
    """Draw the log `table` against steps: the loss's terms in training above, scores on validation below, as PNG."""
    from matplotlib.figure import Figure

    rows = read_log(table)
    known = [key for key in (*TRAINING, *VALIDATION) if rows and key in rows[0]]
    upper, lower = [k for k in known if k in TRAINING], [k for k in known if k not in TRAINING]
    columns = max(len(upper), len(lower), 1)
    figure = Figure(figsize=(3.6 * columns, 2.6 * (1 + bool(lower))), layout="constrained")
    for line, keys in enumerate((upper, lower)):
        for column, key in enumerate(keys):
            axes = figure.add_subplot(1 + bool(lower), columns, line * columns + column + 1)
            axes.plot([row["step"] for row in rows], [row[key] for row in rows], marker="." if len(rows) < 40 else "")
            axes.set_title(("training: " if line == 0 else "validation: ") + TRAINING.get(key, key), fontsize=8)
            axes.set_xlabel("step", fontsize=8)
            axes.tick_params(labelsize=7)
            axes.grid(alpha=0.3)
    figure.savefig(picture, dpi=120)


def read_log(table: Path) -> list[dict[str, float]]:
    """The rows of a training's CSV log as numbers."""
    with table.open(newline="", encoding="utf-8") as file:
        return [{key: float(value) for key, value in row.items()} for row in csv.DictReader(file)]

"""Weights for one pair of sensors at work: a classical method, corrected by SRLF-Net where neither sensor sees."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Self

import torch
from torch import Tensor

from hsfuse.errors import ModelError
from hsfuse.fusers import Requirements, TrainingScene, make_fuser
from hsfuse.fusers.bandframe import BandFrame, band_guides, correction, look, mean_over_turns
from hsfuse.fusers.card import ModelCard, load_net
from hsfuse.fusers.exactfit import ROUNDS, ExactFit, most_possible
from hsfuse.nets.srlf import SRLFNet
from hsfuse.physics import ObservationModel
from hsfuse.resources import data_folder

#: What the names of tensors begin with that aren't the network's.
FRAME = "bands."
DEFAULT_WEIGHTS = "srlf-cave-x8.safetensors"
#: How far response and PSF may be from the weights' own, relative to their largest value.
SRF_TOLERANCE, PSF_TOLERANCE = 0.02, 0.02


class Banded:
    """`base` corrected by weights of one pair of sensors: LRHSI (B, C, h, w), MSI (B, c, H, W) -> (B, C, H, W).

    Both inputs are taken as exact, and as reflectance where they are at most 1. `weights` are by default those that
    come with hsfuse for CAVE at ratio 8. The network's output is the mean over the first `turns` of the square's eight
    symmetries; the result is brought between 0 and 1 in `rounds` steps.
    """

    name = "srlf-bands"
    requirements = Requirements(halo=12)
    model: ObservationModel
    card: ModelCard
    frame: BandFrame
    net: SRLFNet

    def __init__(self, weights: Path | None = None, turns: int = 8, rounds: int = ROUNDS) -> None:
        self.weights = weights or data_folder("models") / DEFAULT_WEIGHTS
        self.turns, self.rounds = turns, rounds

    def fit(self, scene: TrainingScene, model: ObservationModel) -> Self:
        """Fit the classical methods; the network is as trained. ModelError for other sensors."""
        axes = [f.name for f in fields(BandFrame)]
        self.card, net, own = load_net(self.weights, "bands", _guide, FRAME, [*axes, "srf", "psf"])
        self.model = model
        check_sensors(self.card, own, model)
        device = scene.lrhsi.device
        self.frame = BandFrame(**{name: own[name].to(device) for name in axes})
        self.net = net.to(device)
        self.exact = ExactFit(model)
        self.most = most_possible(scene.lrhsi, scene.msi)
        self.base = make_fuser(self.card.base).fit(scene, model)
        self.opinions = [make_fuser(name).fit(scene, model) for name in opinion_names(self.card)]
        return self

    @torch.no_grad()
    def predict(self, lrhsi: Tensor, msi: Tensor) -> Tensor:
        """Fuse tiles."""
        estimate, *others = (self.exact(m.predict(lrhsi, msi), lrhsi, msi) for m in (self.base, *self.opinions))
        view = look(self.frame, estimate, others, lrhsi, msi, self.model)
        output = mean_over_turns(self.net, view, self.turns)
        fused = estimate + correction(self.frame, output, view.usual, self.exact)
        return self.exact.between(fused, lrhsi, msi, self.most, self.rounds)

    def describe(self) -> dict[str, str]:
        """What was corrected by which weights."""
        weights = f"{self.card.name} ({self.card.steps} steps)"
        return {**self.base.describe(), "method": self.name, "base": self.card.base, "weights": weights}


def opinion_names(card: ModelCard) -> tuple[str, ...]:
    """The methods whose opinions the network is told; ModelError when the card doesn't say."""
    try:
        return tuple(card.extra["settings"]["patches"]["opinions"])
    except (KeyError, TypeError) as error:
        raise ModelError(f"the card of the weights {card.name!r} doesn't say whose opinions they need") from error


def _guide(card: ModelCard, own: dict[str, Tensor]) -> int:
    return band_guides(card.config.channels, len(own["srf"]), len(opinion_names(card)))


def check_sensors(card: ModelCard, own: dict[str, Tensor], model: ObservationModel) -> None:
    """ModelError with a table when weights were made for other sensors than the scene's."""
    srf, kernel = model.srf.cpu(), torch.from_numpy(model.psf.kernel)
    rows = [
        ("ratio", card.scale, model.scale, card.scale == model.scale),
        ("phase", card.phase, f"{model.phase:g}", card.phase == f"{model.phase:g}"),
        ("bands of LRHSI, MSI", _bands(own["srf"]), _bands(srf), own["srf"].shape == srf.shape),
        ("response, bands' centres", _centres(own["srf"]), _centres(srf), _alike(own["srf"], srf, SRF_TOLERANCE)),
        ("PSF", _width(own["psf"]), _width(kernel), _alike(own["psf"], kernel, PSF_TOLERANCE)),
    ]
    if all(fits for *_, fits in rows):
        return
    lines = [f"  {what:<26}{have!s:<22}{want!s:<22}{'' if fits else 'differs'}" for what, have, want, fits in rows]
    table = "\n".join([f"  {'':<26}{'weights':<22}scene", *lines])
    raise ModelError(
        f"the weights {card.name!r} are for other sensors; leave out --model for a method that fits\n{table}"
    )


def _alike(a: Tensor, b: Tensor, tolerance: float) -> bool:
    """Equal shapes, and nowhere further apart than `tolerance` times the largest value."""
    return a.shape == b.shape and float((a - b).abs().max()) <= tolerance * float(a.abs().max())


def _bands(srf: Tensor) -> str:
    return f"{srf.shape[1]}, {srf.shape[0]}"


def _centres(srf: Tensor) -> str:
    """Centres of the MSI's responses, counted in bands of the LRHSI."""
    index = torch.arange(srf.shape[1]).to(srf)
    return ", ".join(f"{float(c):.1f}" for c in (srf @ index) / srf.sum(1))


def _width(kernel: Tensor) -> str:
    """Taps, and standard deviation in HR pixels."""
    taps, t = kernel.sum(0), torch.arange(len(kernel)).to(kernel) - (len(kernel) - 1) / 2
    return f"{len(kernel)} taps, sd {float((taps * t**2).sum() / taps.sum()) ** 0.5:.2f}"

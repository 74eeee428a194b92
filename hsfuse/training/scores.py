"""What goes on the card: base and weights on whole scenes, measured as `hsfuse assess` measures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from hsfuse.methods.srlf_bands import BandView, correction, mean_over_turns, most_possible
from hsfuse.metrics import ReferenceMetrics
from hsfuse.nets.srlf import SRLFNet
from hsfuse.training.bands import BandSample, BandSource
from hsfuse.training.sample import Reference

#: Metrics on the card, with the decimals worth telling.
METRICS = {"psnr": 2, "sam": 2, "ergas": 3, "uiqi": 4, "ssim": 4}
LABEL = "PSNR dB, SAM degrees, ERGAS, UIQI, SSIM of base and weights"
TURNS = 8


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

"""Checkpoints of small networks, of each kind."""

from __future__ import annotations

from dataclasses import replace

import torch

from hsfuse.methods.conditioning import guides
from hsfuse.methods.srlf_bands import FRAME, band_guides
from hsfuse.nets.srlf import SRLFConfig, SRLFNet
from hsfuse.nets.weights import ModelCard, save_checkpoint

CONFIG = SRLFConfig(16, 16, 3, stages=1, dropout=0.1)
CARD = ModelCard(
    "test", CONFIG, 3, "1", "blend", "scene", (0.3, 0.6), "nothing", seed=4, steps=7, extra={"scores": [1, 2]}
)


def network(seed=3):
    torch.manual_seed(seed)
    return SRLFNet(CONFIG, identity=False)


def saved(folder, card=CARD, net=None):
    path = folder / "net.safetensors"
    save_checkpoint(path, card, dict((net or network()).state_dict()))
    return path


def any_sensor(folder, tensors=None, **changes):
    """Weights for any sensor at ratio 3, changed."""
    config = changes.setdefault("config", replace(CONFIG, guide=guides(16)))
    card = replace(CARD, kind="any-sensor", phase="any", **changes)
    path = folder / "any.safetensors"
    save_checkpoint(path, card, dict(SRLFNet(config).state_dict()) if tensors is None else tensors)
    return path


def banded(folder, scene, without=(), opinions=("guided",), guide=None):
    """Weights for the scene's sensors, without some of their parts."""
    model = scene.model
    config = replace(CONFIG, guide=band_guides(16, 4, 1) if guide is None else guide)
    frame = {"axes": torch.eye(31)[:, :16], "unit": torch.ones(16), "spread": torch.ones(16), "step": torch.ones(16)}
    own = {**frame, "srf": model.srf, "psf": torch.from_numpy(model.psf.kernel)}
    tensors = {f"{FRAME}{key}": value for key, value in own.items() if key not in without}
    extra = {} if opinions is None else {"settings": {"patches": {"opinions": list(opinions)}}}
    card = replace(CARD, kind="bands", config=config, phase=f"{model.phase:g}", base="glp-reg", extra=extra)
    save_checkpoint(folder / "b.safetensors", card, {**SRLFNet(config).state_dict(), **tensors})
    return folder / "b.safetensors"

"""Weights that a fusion starts from and leaves behind."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from hsfuse.fusers.anysensor import AnySensor
from hsfuse.fusers.card import ModelCard
from hsfuse.fusers.conditioning import KNOWN_BASE
from hsfuse.model_zoo import find_model, find_weights
from hsfuse.nets.srlf import SRLFConfig
from hsfuse.physics import ObservationModel
from hsfuse.resources import data_folder

log = logging.getLogger(__name__)


def fitting_weights(scale: int, dimension: int, base: str) -> Path | None:
    """Weights for any sensor of the collection; says so when there are none."""
    if base != KNOWN_BASE:
        log.info("weights for any sensor correct %s: on %s, SRLF-Net starts from scratch", KNOWN_BASE, base)
        return None
    path = find_weights(scale, dimension, base)
    if path is None:
        log.warning("no weights for ratio %d and %d dimensions: SRLF-Net starts from scratch", scale, dimension)
    return path


def weights_name(known: AnySensor) -> str:
    """What `find_model` finds the weights by: their name in the collection, else where they are."""
    path = (known.weights or Path()).resolve()
    return path.stem if path.parent == data_folder("models").resolve() else str(path)


def card_of_scene(
    name: str, config: SRLFConfig, model: ObservationModel, base: str, extra: dict[str, Any]
) -> ModelCard:
    """Of a network fitted to one scene."""
    about = "one scene, by reduced resolution and consistency"
    phase = f"{model.phase:g}"
    return ModelCard(name, config, config.scale, phase, base, kind="scene", trained_on=about, extra=extra)


def weights_below(card: ModelCard) -> Path | None:
    """The weights for any sensor whose result a scene's own network corrects; ModelError when they aren't there."""
    name = card.extra.get("weights")
    return None if name is None else find_model(name).path

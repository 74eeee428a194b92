"""Weights that a fusion starts from."""

from __future__ import annotations

import logging
from pathlib import Path

from hsfuse.fusers.card import ModelCard
from hsfuse.fusers.conditioning import KNOWN_BASE
from hsfuse.model_zoo import find_model, find_weights
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


def weights_name(path: Path) -> str:
    """What `find_model` finds the weights by: their name in the collection, else where they are."""
    inside = path.resolve().parent == data_folder("models").resolve()
    return path.stem if inside else str(path.resolve())


def weights_below(card: ModelCard) -> Path | None:
    """The weights for any sensor whose result a scene's own network corrects; ModelError when they aren't there."""
    name = card.extra.get("weights")
    return None if name is None else find_model(name).path

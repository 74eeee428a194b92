"""Weights that a fusion starts from and leaves behind."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

from hsfuse.fusers.card import ModelCard
from hsfuse.fusers.conditioning import KNOWN_BASE
from hsfuse.model_zoo import find_weights

log = logging.getLogger(__name__)


def fitting_weights(scale: int, dimension: int) -> Path | None:
    """Weights for any sensor of the collection; says so when there are none."""
    path = find_weights(scale, dimension, KNOWN_BASE)
    if path is None:
        log.warning("no weights for ratio %d and %d dimensions: SRLF-Net starts from scratch", scale, dimension)
    return path


def card_of_scene(name: str, start: ModelCard | None, own: ModelCard) -> ModelCard:
    """The card `own` of weights fitted to one scene; those that `start` as weights for any sensor remain such."""
    if start is None or start.kind != "any-sensor":
        return replace(own, name=name, kind="scene", trained_on="one scene, by reduced resolution and consistency")
    about = f"{start.trained_on}; then adapted to one scene, {own.steps} steps"
    return replace(start, name=name, trained_on=about, steps=start.steps + own.steps)

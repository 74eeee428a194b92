"""The method that the options name, with its weights, and its fit to a sample of a scene."""

from __future__ import annotations

import logging
from dataclasses import replace

import torch

from hsfuse.core.options import FuseOptions
from hsfuse.methods import Method, fitted, method_for
from hsfuse.pair import ScenePair
from hsfuse.physics.sample import PairSample
from hsfuse.physics.solve import one_thread

log = logging.getLogger(__name__)

#: MSI pixels up to which SRLF-Net averages over all eight symmetries unless told otherwise.
SMALL_SCENE = 1024 * 1024


def build_method(options: FuseOptions, pair: ScenePair) -> Method:
    """The method that the options name, with its weights, for scenes of the pair's size."""
    return method_for(replace(options, ensemble=ensemble_turns(options, pair)))


def ensemble_turns(options: FuseOptions, pair: ScenePair) -> int:
    """How many of the square's eight symmetries are averaged: as asked, else all where a scene is small and trained on.

    Eight take eight times as long as one, and gain a few hundredths of a decibel.
    """
    rows, cols = pair.alignment.full
    return options.ensemble or (8 if options.adapts and rows * cols <= SMALL_SCENE else 1)


def fit_method(method: Method, pair: ScenePair, scene: PairSample, device: str) -> Method:
    """Fit a method on a sample of the scene, parts of it beside each other on a CPU."""
    log.debug("device: %s", device)
    units = None if pair.units is None else torch.from_numpy(pair.units).to(device)
    with one_thread(beside=torch.get_num_threads() if device == "cpu" else 1):
        return fitted(method, scene, pair.model.to(device), units)


def quick_method(options: FuseOptions) -> Method:
    """The method to try out: without training."""
    return method_for(replace(options, adapt="off", adapt_steps=None, adapt_minutes=None, ensemble=1))

"""Where a run's samples come from, and the network that they start with."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from hsfuse.core.errors import ModelError
from hsfuse.nets.srlf import SRLF, SRLFConfig, SRLFNet
from hsfuse.nets.weights import find_model, load_checkpoint
from hsfuse.training.bands import BandSample, BandSource
from hsfuse.training.config import TrainConfig
from hsfuse.training.draws import DrawSource
from hsfuse.training.patches import PatchSource
from hsfuse.training.sample import Reference, Sample

#: Batches on which validation is measured, always the same.
VALIDATION_BATCHES = 8

Source = DrawSource | PatchSource | BandSource
AnySample = Sample | BandSample


def make_source(config: TrainConfig, references: Sequence[Reference], cache: Path | None = None) -> Source:
    """Where a run's samples come from."""
    if config.kind == "any-sensor":
        assert config.draws is not None
        return DrawSource(references, config.draws, config.seed, cache)
    assert config.patches is not None
    if config.patches.base == "bicubic":
        return PatchSource(references, config.patches, config.seed)
    return BandSource(references, config.patches, config.seed, config.net.channels, cache=cache)


def held_samples(
    config: TrainConfig, references: Sequence[Reference], like: Source, cache: Path | None = None
) -> list[AnySample]:
    """What validation is measured on: some batches, always the same, or whole scenes."""
    if not references:
        return []
    if isinstance(like, BandSource):
        return list(like.others(references).held)
    if isinstance(like, PatchSource):
        like.check_alike(references)
    source = make_source(config, references, cache)
    return [s for n in range(VALIDATION_BATCHES) for s in source.batch(n, config.optimiser.batch)]


def make_net(config: TrainConfig, source: Source) -> SRLFNet:
    """A new network; one that corrects starts from features that are its inputs in units of the error to correct."""
    net, k = SRLFNet(SRLFConfig(guide=source.guide, **vars(config.net))), config.net.channels
    if isinstance(source, DrawSource):
        pass_inputs_on(net, {i: [k + i, 2 * k + i, 3 * k + i] for i in range(k)})
    if isinstance(source, BandSource):
        pass_inputs_on(net, {i: source.inputs_about(i) for i in range(k)})
    return net


@torch.no_grad()
def pass_inputs_on(net: SRLFNet, inputs: dict[int, list[int]]) -> None:
    """Let feature k start as the sum of some inputs, handed on from stage to stage, with little mixing.

    Signs of subspace axes are arbitrary, so mixing coefficients is the exception; found by chance it takes long.
    """
    net.embed.weight.mul_(0.2)
    for feature, sources in inputs.items():
        net.embed.weight[feature, sources, 1, 1] += 0.7
    for module in net.modules():
        if isinstance(module, SRLF):
            module.out.weight.mul_(0.3)
            for feature in inputs:
                module.out.weight[feature, net.cfg.channels + feature] += 1.0


def take_over(net: SRLFNet, name: str) -> int:
    """Copy the tensors of other weights whose names and shapes agree; how many they are. ModelError for none."""
    theirs, own = load_checkpoint(find_model(name).path)[1], net.state_dict()
    common = {key: value for key, value in theirs.items() if key in own and own[key].shape == value.shape}
    if not common:
        raise ModelError(
            f"the weights {name!r} have no tensor in common with the network; start from others or from none"
        )
    net.load_state_dict({**own, **common})
    return len(common)

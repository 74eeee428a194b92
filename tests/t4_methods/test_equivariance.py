"""Methods don't know the unit of the images: in another one they give the same result in that unit."""

from __future__ import annotations

from functools import cache

import pytest
import torch
from classical_scene import make_scene, rmse
from torch import Tensor

from hsfuse.methods import METHODS, make_method
from hsfuse.methods.adapt import AdaptSettings
from hsfuse.methods.srlf import SRLF
from hsfuse.methods.srlf_bands import Banded
from hsfuse.nets.weights import load_checkpoint
from hsfuse.physics.model import ObservationModel, Psf
from hsfuse.physics.sample import PairSample

#: RMS difference, relative to the result's RMS: single precision rounds at 6e-8, iterations make more of it.
TOLERANCE = 1e-4
#: Training follows rounding.
TRAINED = {"srlf": 1e-3}


@cache
def fused(name: str, factor: float) -> Tensor:
    """What a method makes of the images times `factor`, over `factor`."""
    _, scene, model = make_scene(size=32, noise=2e-3)
    method = SRLF(adapt=AdaptSettings(steps=2), turns=1) if name == "srlf" else make_method(name)
    if name == "srlf-bands":
        scene, model = _scene_of_weights()
    scaled = PairSample(scene.lrhsi * factor, scene.msi * factor, scene.mask)
    return method.fit(scaled, model).predict(scaled.lrhsi, scaled.msi) / factor


def _scene_of_weights() -> tuple[PairSample, ObservationModel]:
    """A scene of the sensors that the weights for one pair of sensors are for."""
    card, tensors = load_checkpoint(Banded().weights)
    model = ObservationModel(tensors["bands.srf"], Psf(tensors["bands.psf"].numpy()), card.scale, float(card.phase))
    truth = torch.nn.functional.interpolate(make_scene(size=64)[0].transpose(1, 2), size=(31, 64)).transpose(1, 2)
    random = torch.Generator().manual_seed(3)  # without noise, rounding alone would say what lies in empty directions
    lrhsi, msi = (x + 2e-3 * torch.randn(x.shape, generator=random) for x in model(truth.contiguous()))
    return PairSample(lrhsi, msi, torch.ones(lrhsi[:, 0].shape, dtype=torch.bool)), model


@pytest.mark.parametrize("factor", [1e-4, 3.0, 1e4])
@pytest.mark.parametrize("name", METHODS)
def test_multiplied_images_give_the_result_multiplied(name: str, factor: float) -> None:
    want = fused(name, 1.0)
    assert rmse(fused(name, factor), want) <= TRAINED.get(name, TOLERANCE) * float(want.square().mean().sqrt())

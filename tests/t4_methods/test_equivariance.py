"""Methods don't know the unit of the images: in another one they give the same result in that unit.

All but `srlf-bands`, whose weights have learned what reflectance between 0 and 1 looks like and keep the result there.
"""

from __future__ import annotations

from functools import cache

import pytest
from classical_scene import make_scene, rmse
from torch import Tensor

from hsfuse.core.options import FuseOptions
from hsfuse.methods import METHODS, make_method
from hsfuse.methods.srlf import SRLF
from hsfuse.physics.sample import PairSample

#: RMS difference, relative to the result's RMS: single precision rounds at 6e-8, iterations make more of it.
TOLERANCE = 1e-4
#: Training follows rounding; thirty materials from sixty-four LR pixels leave directions that rounding decides.
LOOSE = {"srlf": 1e-3, "cnmf": 2e-4}


@cache
def fused(name: str, factor: float) -> Tensor:
    """What a method makes of the images times `factor`, over `factor`."""
    _, scene, model = make_scene(size=32, noise=2e-3)
    method = SRLF(FuseOptions(adapt_steps=2, ensemble=1)) if name == "srlf" else make_method(name)
    scaled = PairSample(scene.lrhsi * factor, scene.msi * factor, scene.mask)
    return method.fit(scaled, model).predict(scaled.lrhsi, scaled.msi) / factor


@pytest.mark.parametrize("factor", [1e-4, 3.0, 1e4])
@pytest.mark.parametrize("name", [name for name in METHODS if name != "srlf-bands"])
def test_multiplied_images_give_the_result_multiplied(name: str, factor: float) -> None:
    want = fused(name, 1.0)
    assert rmse(fused(name, factor), want) <= LOOSE.get(name, TOLERANCE) * float(want.square().mean().sqrt())

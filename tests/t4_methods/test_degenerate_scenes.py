"""Scenes that hold next to nothing: every method gives finite values, and the truth where it is plain to see."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from checkpoints import any_sensor
from scenes import BANDS, FWHM_NM, WAVELENGTHS_NM, mixture
from torch import Tensor

from hsfuse.core.options import FuseOptions
from hsfuse.methods import METHODS, Method, make_method
from hsfuse.methods.conditioning import guides
from hsfuse.methods.srlf import SRLF
from hsfuse.methods.srlf_any import JUDGED, AnySensor
from hsfuse.methods.srlf_bands import Banded
from hsfuse.nets.srlf import SRLFConfig
from hsfuse.nets.weights import load_checkpoint
from hsfuse.physics import load_srf
from hsfuse.physics.model import ObservationModel, Psf, gaussian_psf
from hsfuse.physics.optics import sigma_from_mtf
from hsfuse.physics.sample import PairSample

SCALE = 4


def ordinary(*lr_shape: int) -> Tensor:
    """A scene with everything in it: (31, H, W)."""
    return torch.from_numpy(mixture((lr_shape[0] * SCALE, lr_shape[1] * SCALE)))


def flat() -> Tensor:
    return torch.full((31, 40, 40), 0.2)


def dark() -> Tensor:
    return torch.zeros(31, 40, 40)


def one_band_dark() -> Tensor:
    truth = ordinary(10, 10)
    truth[7] = 0
    return truth


def half_dark() -> Tensor:
    truth = ordinary(10, 10)
    truth[:, :, :20] = 0
    return truth


def usual_model() -> ObservationModel:
    weights, _ = load_srf("sentinel2a").select(BANDS).matrix(WAVELENGTHS_NM, FWHM_NM)
    return ObservationModel(weights, gaussian_psf(sigma_from_mtf(0.3, SCALE), SCALE), SCALE)


def model_for(name: str) -> ObservationModel:
    """The usual one, or that of the sensors which a method's weights are for."""
    if name != "srlf-bands":
        return usual_model()
    card, tensors = load_checkpoint(Banded().weights)
    return ObservationModel(tensors["bands.srf"], Psf(tensors["bands.psf"].numpy()), card.scale, float(card.phase))


def seen(truth: Tensor, model: ObservationModel | None = None) -> tuple[PairSample, ObservationModel]:
    """What both sensors see of it without noise, and the model."""
    model = model or usual_model()
    lrhsi, msi = model(truth[None])
    return PairSample(lrhsi, msi, torch.ones(lrhsi[:, 0].shape, dtype=torch.bool)), model


def method(name: str) -> Method:
    """By name, the network with a single step."""
    return SRLF(FuseOptions(adapt_steps=1, ensemble=1)) if name == "srlf" else make_method(name)


def rmse(a: Tensor, b: Tensor) -> float:
    return float((a - b).square().mean().sqrt())


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("make", [flat, dark, one_band_dark, half_dark], ids=lambda make: make.__name__)
def test_no_method_stumbles_over_what_is_not_there(make: Callable[[], Tensor], name: str) -> None:
    truth = make()
    scene, model = seen(truth, model_for(name))
    fused = method(name).fit(scene, model).predict(scene.lrhsi, scene.msi)[0]
    assert fused.isfinite().all()
    plain = rmse(model.upsample(scene.lrhsi)[0], truth)
    assert rmse(fused, truth) < max(1.01 * plain, 2e-4)


@pytest.mark.parametrize("name", ["srlf", "srlf-any"])
def test_a_scene_too_narrow_to_be_reduced_gets_the_base_and_is_told_so(
    name: str, caplog: pytest.LogCaptureFixture
) -> None:
    scene, model = seen(ordinary(SCALE - 1, 30))
    fused = method(name).fit(scene, model).predict(scene.lrhsi, scene.msi)
    assert f"the scene is narrower than {SCALE} LR pixels" in caplog.text
    base = make_method("blend").fit(scene, model).predict(scene.lrhsi, scene.msi)
    torch.testing.assert_close(fused, base, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("cells", "told"), [(JUDGED - 1, "not used: the scene is too small"), (JUDGED, "used: at reduced resolution error")]
)
def test_weights_are_tried_as_soon_as_the_scene_is_large_enough(
    caplog: pytest.LogCaptureFixture, tmp_path: Path, cells: int, told: str
) -> None:
    scene, model = seen(ordinary(SCALE, SCALE * cells))
    path = any_sensor(tmp_path, scale=SCALE, config=SRLFConfig(16, guides(16), SCALE, stages=1, expand=1))
    weights = AnySensor(path).fit(scene, model).describe()["weights"]
    assert "narrower" not in caplog.text
    assert told in weights

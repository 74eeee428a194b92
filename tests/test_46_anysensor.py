"""Weights for any sensor as a method: an untrained network changes nothing, weights that don't fit are refused."""

import numpy as np
import pytest
import torch

import hsfuse.fusers.anysensor as anysensor
from hsfuse.errors import ModelError
from hsfuse.fusers import TrainingScene
from hsfuse.fusers.anysensor import AnySensor
from hsfuse.fusers.blend import Blend
from hsfuse.fusers.card import ModelCard, save_checkpoint
from hsfuse.fusers.conditioning import guides
from hsfuse.nets.srlf import SRLFConfig, SRLFNet
from hsfuse.physics import ObservationModel, gaussian_psf


@pytest.fixture(scope="module")
def pair():
    rng = np.random.default_rng(0)
    nm = np.linspace(400, 1000, 26)
    spectra = 0.3 + 0.2 * np.sin(nm / rng.uniform(60, 200, (9, 1)) + rng.uniform(0, 6, (9, 1)))
    truth = spectra[rng.integers(0, 9, (32, 32))].transpose(2, 0, 1) * rng.uniform(0.5, 1, (32, 32))
    truth = torch.from_numpy(truth + 0.003 * rng.standard_normal(truth.shape)).float()[None]
    response = np.zeros((3, 26))
    response[[0, 1, 2], [3, 9, 15]] = 1
    model = ObservationModel(response, gaussian_psf(1.0, 2), 2)
    lrhsi, msi = model.spatial(truth), model.spectral(truth)
    return TrainingScene(lrhsi, msi, torch.ones(1, 16, 16, dtype=torch.bool)), model


def save(path, scale=2, channels=16):
    config = SRLFConfig(channels, guides(channels), scale, stages=1, expand=1)
    save_checkpoint(path, ModelCard("w", config, scale), dict(SRLFNet(config).state_dict()))
    return path


def test_with_an_untrained_network_it_is_the_blend(pair, tmp_path):
    scene, model = pair
    fused = AnySensor(save(tmp_path / "w.safetensors")).fit(scene, model).predict(scene.lrhsi, scene.msi)
    blend = Blend().fit(scene, model).predict(scene.lrhsi, scene.msi)
    assert torch.allclose(fused, blend, atol=2e-5)


def test_a_trained_correction_shows(pair, tmp_path):
    scene, model = pair
    method = AnySensor(save(tmp_path / "w.safetensors")).fit(scene, model)
    before = method.predict(scene.lrhsi, scene.msi)
    torch.nn.init.normal_(method.net.refine.weight, std=0.1)
    assert (method.predict(scene.lrhsi, scene.msi) - before).abs().max() > 1e-4


def test_weights_that_do_not_fit_are_refused(pair, tmp_path):
    for options in ({"scale": 4}, {"channels": 30}):
        with pytest.raises(ModelError, match="the scene has ratio 2 and"):
            AnySensor(save(tmp_path / "w.safetensors", **options)).fit(*pair)


def test_a_ratio_without_weights_is_told(pair, tmp_path, monkeypatch):
    monkeypatch.setattr(anysensor, "data_folder", lambda name: tmp_path)
    with pytest.raises(ModelError, match="no weights for ratio 2"):
        AnySensor().fit(*pair)

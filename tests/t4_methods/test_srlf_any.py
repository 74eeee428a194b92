"""Weights for any sensor, as a method and as SRLF-Net's start: untrained they change nothing, and what doesn't fit is
refused or done without."""

from dataclasses import replace

import numpy as np
import pytest
import torch

import hsfuse.methods.srlf as fusers_weights
import hsfuse.nets.weights as model_zoo
from hsfuse.core.errors import ModelError
from hsfuse.core.options import FuseOptions, Pace
from hsfuse.methods import make_method
from hsfuse.methods.adapt import Errors
from hsfuse.methods.blend import Blend
from hsfuse.methods.conditioning import guides
from hsfuse.methods.srlf import SRLF
from hsfuse.methods.srlf_any import SHARE, AnySensor
from hsfuse.nets.srlf import SRLFConfig, SRLFNet
from hsfuse.nets.weights import ModelCard, read_card, save_checkpoint
from hsfuse.physics.model import ObservationModel, gaussian_psf
from hsfuse.physics.sample import PairSample

JUDGE = AnySensor._judge


@pytest.fixture(autouse=True)
def trusting(monkeypatch):
    """The random weights of these tests would be left out by their own test."""
    monkeypatch.setattr(AnySensor, "_judge", lambda self, errors: None)


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
    return PairSample(lrhsi, msi, torch.ones(1, 16, 16, dtype=torch.bool)), model


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


@pytest.mark.parametrize(
    ("errors", "used"), [((0.9, 0.95), True), ((0.9, 1.01), False), ((1.01, 0.9), False), ((0.999, 0.999), False)]
)
def test_weights_are_used_as_far_as_error_and_angle_bear_them_out(pair, tmp_path, errors, used):
    scene, model = pair
    method = AnySensor(save(tmp_path / "w.safetensors")).fit(scene, model)
    JUDGE(method, Errors(*errors))
    assert method.share == (SHARE if used else 0)
    told = method.describe()["weights"]
    assert f"{'used' if used else 'not used'}: at reduced resolution error {abs(1 - errors[0]):.1%}" in told
    assert "not used" not in told or not used


def test_weights_that_do_harm_are_left_out(pair, collection, monkeypatch):
    """Random ones: error and angle are measured on the scene, and the blend is the result."""
    scene, model = pair
    monkeypatch.setattr(AnySensor, "_judge", JUDGE)
    method = AnySensor(collection / "w.safetensors").fit(scene, model)
    method.share = SHARE
    assert method.errors(scene).both > 1
    method.share = 0.0
    blend = Blend().fit(scene, model).predict(scene.lrhsi, scene.msi)
    torch.testing.assert_close(method.predict(scene.lrhsi, scene.msi), blend, rtol=0, atol=2e-5)
    fuser = fitted(pair)
    assert "not used: at reduced resolution" in fuser.describe()["weights"]
    assert fuser.describe()["adaptation"].endswith("the base blend is the result")


def test_weights_that_do_not_fit_are_refused(pair, tmp_path):
    for options in ({"scale": 4}, {"channels": 30}):
        with pytest.raises(ModelError, match="the scene has ratio 2 and"):
            AnySensor(save(tmp_path / "w.safetensors", **options)).fit(*pair)


def test_a_ratio_without_weights_is_told(pair, tmp_path, monkeypatch):
    monkeypatch.setattr(model_zoo, "data_folder", lambda name: tmp_path)
    with pytest.raises(ModelError, match="no weights for ratio 2"):
        AnySensor().fit(*pair)


OFF = FuseOptions(adapt="off", consistency="off", ensemble=1)


@pytest.fixture
def collection(tmp_path, monkeypatch):
    """A collection of one set of weights that are untrained but do correct, at random."""
    config = SRLFConfig(16, guides(16), 2, stages=1, expand=1)
    torch.manual_seed(2)
    net = SRLFNet(config)
    torch.nn.init.normal_(net.refine.weight, std=0.1)
    save_checkpoint(tmp_path / "w.safetensors", ModelCard("w", config, 2, steps=9), dict(net.state_dict()))
    for place in (model_zoo, fusers_weights):
        monkeypatch.setattr(place, "data_folder", lambda name: tmp_path)
    return tmp_path


def fitted(pair, options=OFF, weights="auto"):
    return SRLF(options, weights).fit(*pair)


def test_the_weights_that_fit_are_taken(pair, collection):
    fuser = fitted(pair)
    assert fuser.describe()["weights"] == "w (9 steps)"
    assert isinstance(fuser.frame.fuser, AnySensor)


def test_without_adaptation_it_is_what_the_weights_give(pair, collection):
    scene, model = pair
    fuser = fitted(pair)
    assert "what the weights give is the result" in fuser.describe()["adaptation"]
    wanted = AnySensor(collection / "w.safetensors").fit(scene, model).predict(scene.lrhsi, scene.msi)
    torch.testing.assert_close(fuser.predict(scene.lrhsi, scene.msi), wanted, rtol=0, atol=1e-6)


@pytest.mark.parametrize("base", ["gsa", "glp-ens"])
def test_on_another_base_there_are_no_weights(pair, collection, base):
    """They have learned the errors of the blend."""
    scene, model = pair
    fuser = fitted(pair, replace(OFF, base=base))
    assert fuser.describe()["weights"] == "from scratch"
    wanted = make_method(base).fit(scene, model).predict(scene.lrhsi, scene.msi)
    torch.testing.assert_close(fuser.predict(scene.lrhsi, scene.msi), wanted, rtol=0, atol=2e-5)
    with pytest.raises(ModelError, match=f"base: weights blend, scene {base}"):
        fitted(pair, replace(OFF, base=base), collection / "w.safetensors")


@pytest.mark.parametrize("change", ["ratio", "bands"])
def test_without_weights_that_fit_it_starts_from_scratch_and_says_so(pair, collection, caplog, change):
    scene, model = pair
    if change == "ratio":
        (collection / "w.safetensors").unlink()
    else:
        scene = PairSample(scene.lrhsi[:, :10], scene.msi, scene.mask)
        model = model.with_srf(model.srf[:, :10])
    fuser = fitted((scene, model))
    assert fuser.describe()["weights"] == "from scratch"
    assert "no weights for ratio 2 and 1" in caplog.text
    assert fuser.predict(scene.lrhsi, scene.msi).isfinite().all()


def test_given_weights_that_do_not_fit_are_refused(pair, tmp_path):
    with pytest.raises(ModelError, match="scale: weights 4, scene 2"):
        fitted(pair, weights=save(tmp_path / "w.safetensors", scale=4))
    with pytest.raises(ModelError, match="subspace dimension: weights 30, scene 16"):
        fitted(pair, weights=save(tmp_path / "w.safetensors", channels=30))


@pytest.fixture(scope="module")
def larger():
    """20 x 20 LR pixels, of which some can judge."""
    rng = np.random.default_rng(1)
    smooth = torch.nn.functional.interpolate(torch.from_numpy(rng.random((1, 6, 14, 14))), size=40, mode="bicubic")
    spectra = torch.from_numpy(rng.random((24, 6)).cumsum(0) / 12)
    noise = torch.from_numpy(0.002 * rng.standard_normal((1, 24, 40, 40)))
    truth = (torch.einsum("cm,bmhw->bchw", spectra, smooth.clamp_min(0)) / 3 + noise).float()
    model = ObservationModel(np.eye(24)[[3, 9, 15]], gaussian_psf(1.0, 2), 2)
    return PairSample(*model(truth), torch.ones(1, 20, 20, dtype=torch.bool)), model


ADAPT = FuseOptions(adapt_steps=4, ensemble=1, pace=Pace(check_every=2, learning_rate=1e-2))


def test_the_stages_are_written_down(larger, collection):
    fuser = fitted(larger, ADAPT)
    stages = {stage.name: stage for stage in fuser.adaptation.stages}
    assert list(stages) == ["base", "weights", "adaptation", "consistency"]
    assert (stages["base"].error, stages["base"].angle) == (1, 1)
    assert all(np.isfinite([stage.error, stage.angle]).all() and stage.seconds >= 0 for stage in stages.values())
    assert fuser.adaptation.gain == pytest.approx(1 - stages["weights"].error)  # four steps are no better
    before, after = stages["adaptation"].misfits, stages["consistency"].misfits
    assert before is not None
    assert after is not None
    assert after[0] <= before[0]
    assert fuser.describe()["adaptation"].endswith("no better than what the weights give, which is the result")


def test_without_adaptation_and_consistency_two_stages_are_left(larger, collection):
    assert [stage.name for stage in fitted(larger).adaptation.stages] == ["base", "weights"]


def test_the_consistency_step_is_part_of_the_result(larger, collection):
    scene = larger[0]
    with_it, without = (
        fitted(larger, replace(OFF, consistency=on)).predict(scene.lrhsi, scene.msi) for on in (True, False)
    )
    misfits = [float((larger[1].spatial(x) - scene.lrhsi).square().mean()) for x in (with_it, without)]
    assert misfits[0] < misfits[1]


def test_the_same_seed_gives_the_same_weights(larger, collection):
    states = []
    for seed in (0, 0, 1):
        torch.manual_seed(len(states))  # what was drawn before doesn't matter
        fuser = fitted(larger, replace(ADAPT, adapt_steps=2, seed=seed, pace=Pace(check_every=1, learning_rate=1e-2)))
        states.append(fuser.net.state_dict())
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])  # the same steps on one machine
    assert any(not torch.equal(states[0][key], states[2][key]) for key in states[0])


def test_a_network_fitted_to_a_scene_names_the_weights_below_it(larger, collection, tmp_path):
    fuser = fitted(larger, ADAPT)
    save_checkpoint(tmp_path / "own.safetensors", *fuser.weights_of_scene("own"))
    card = read_card(tmp_path / "own.safetensors")
    assert (card.name, card.kind, card.steps) == ("own", "scene", fuser.adaptation.kept_step)
    assert card.extra["weights"] == "w"
    again = fitted(larger, FuseOptions(adapt="off", ensemble=1), tmp_path / "own.safetensors")
    scene = larger[0]
    torch.testing.assert_close(
        again.predict(scene.lrhsi, scene.msi), fuser.predict(scene.lrhsi, scene.msi), rtol=0, atol=1e-6
    )
    (collection / "w.safetensors").unlink()
    with pytest.raises(ModelError, match="there are no weights called 'w'"):
        fitted(larger, weights=tmp_path / "own.safetensors")

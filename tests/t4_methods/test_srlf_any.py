"""Weights for any sensor, as a method and as SRLF-Net's start: untrained they change nothing, and what doesn't fit is
refused or done without."""

import copy
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
from hsfuse.methods.srlf import ON_WEIGHTS, SRLF
from hsfuse.methods.srlf_any import SHARE, AnySensor
from hsfuse.nets.srlf import SRLFConfig, SRLFNet
from hsfuse.nets.weights import ModelCard, read_card, save_checkpoint
from hsfuse.physics.model import ObservationModel, gaussian_psf
from hsfuse.physics.sample import PairSample

JUDGE = AnySensor._judge


@pytest.fixture(scope="module", autouse=True)
def trusting():
    """The random weights of these tests would be left out by their own test."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(AnySensor, "_judge", lambda self, errors: None)
        yield


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


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A collection of one set of weights that are untrained but do correct, at random; not to be changed."""
    folder = tmp_path_factory.mktemp("models")
    config = SRLFConfig(16, guides(16), 2, stages=1, expand=1)
    torch.manual_seed(2)
    net = SRLFNet(config)
    torch.nn.init.normal_(net.refine.weight, std=0.1)
    save_checkpoint(folder / "w.safetensors", ModelCard("w", config, 2, steps=9), dict(net.state_dict()))
    return folder


@pytest.fixture(scope="module")
def known(pair, folder):
    """With the weights of the collection; to be copied before it is changed."""
    return AnySensor(folder / "w.safetensors").fit(*pair)


@pytest.fixture(scope="module")
def blended(pair):
    scene, model = pair
    return Blend().fit(scene, model).predict(scene.lrhsi, scene.msi)


def test_with_an_untrained_network_it_is_the_blend(pair, blended, tmp_path):
    scene, model = pair
    fused = AnySensor(save(tmp_path / "w.safetensors")).fit(scene, model).predict(scene.lrhsi, scene.msi)
    assert torch.allclose(fused, blended, atol=2e-5)


def test_a_trained_correction_shows(pair, known, blended):
    assert (known.predict(pair[0].lrhsi, pair[0].msi) - blended).abs().max() > 1e-4


@pytest.mark.parametrize(
    ("errors", "used"),
    [((0.9, 0.95), True), ((0.9, 1.01), False), ((1.01, 0.9), False), ((0.994, 0.994), True), ((0.9, 0.997), False)],
)
def test_weights_are_used_as_far_as_error_and_angle_bear_them_out(known, errors, used):
    method = copy.copy(known)
    JUDGE(method, Errors(*errors))
    assert method.share == (SHARE if used else 0)
    told = method.describe()["weights"]
    assert f"{'used' if used else 'not used'}: at reduced resolution error {abs(1 - errors[0]):.1%}" in told
    assert "not used" not in told or not used


def test_weights_that_do_harm_are_left_out(pair, known, blended, collection, monkeypatch):
    """Random ones: error and angle are measured on the scene, and the blend is the result."""
    scene, _ = pair
    method = copy.copy(known)
    assert method.errors(scene).both > 1
    method.share = 0.0
    torch.testing.assert_close(method.predict(scene.lrhsi, scene.msi), blended, rtol=0, atol=2e-5)
    monkeypatch.setattr(AnySensor, "_judge", JUDGE)
    fuser = fitted(pair)
    assert fuser.known.share == 0
    assert "not used: at reduced resolution" in fuser.describe()["weights"]
    assert fuser.describe()["adaptation"].endswith("the base blend is the result")


def test_weights_that_do_not_fit_are_refused(pair, known, tmp_path, monkeypatch):
    monkeypatch.setattr("hsfuse.methods.srlf_any.conditioned_frame", lambda *pair: known.frame)
    for options in ({"scale": 4}, {"channels": 30}):
        with pytest.raises(ModelError, match="the scene has ratio 2 and"):
            AnySensor(save(tmp_path / "w.safetensors", **options)).fit(*pair)


@pytest.mark.parametrize("kind", ["any-sensor", "none"])
def test_without_weights_it_is_the_blend_with_its_scene_regression(pair, blended, tmp_path, monkeypatch, kind):
    """Of this scene there is none: it is too small."""
    monkeypatch.setattr(model_zoo, "data_folder", lambda name: tmp_path)
    method = AnySensor("auto" if kind == "any-sensor" else None).fit(*pair)
    assert method.describe()["weights"] == ""
    assert method.layers() is None
    fused = method.predict(pair[0].lrhsi, pair[0].msi)
    torch.testing.assert_close(fused, blended, rtol=0, atol=2e-5)


OFF = FuseOptions(adapt="off", consistency="off", ensemble=1)


def collect(monkeypatch, folder):
    for place in (model_zoo, fusers_weights):
        monkeypatch.setattr(place, "data_folder", lambda name: folder)


@pytest.fixture
def collection(folder, monkeypatch):
    """The folder is the collection."""
    collect(monkeypatch, folder)
    return folder


def fitted(pair, options=OFF, weights="auto"):
    return SRLF(options, weights).fit(*pair)


def test_the_weights_that_fit_are_taken_and_without_adaptation_what_they_give_is_the_result(pair, known, collection):
    scene, _ = pair
    fuser = fitted(pair)
    assert fuser.describe()["weights"] == "w (9 steps)"
    assert isinstance(fuser.frame.fuser, AnySensor)
    assert "corrected by the weights is the result" in fuser.describe()["adaptation"]
    wanted = known.predict(scene.lrhsi, scene.msi)
    torch.testing.assert_close(fuser.predict(scene.lrhsi, scene.msi), wanted, rtol=0, atol=1e-6)


@pytest.mark.parametrize("base", ["gsa", "glp-ens"])
def test_on_another_base_there_are_no_weights(pair, collection, base):
    """They have learned the errors of the blend."""
    scene, model = pair
    fuser = fitted(pair, replace(OFF, base=base))
    assert fuser.describe()["weights"] == ""
    wanted = make_method(base).fit(scene, model).predict(scene.lrhsi, scene.msi)
    torch.testing.assert_close(fuser.predict(scene.lrhsi, scene.msi), wanted, rtol=0, atol=2e-5)
    with pytest.raises(ModelError, match=f"base: weights blend, scene {base}"):
        fitted(pair, replace(OFF, base=base), collection / "w.safetensors")


@pytest.mark.parametrize("change", ["ratio", "bands"])
def test_without_weights_that_fit_the_scene_regression_is_left(pair, collection, tmp_path, monkeypatch, change):
    scene, model = pair
    if change == "ratio":
        collect(monkeypatch, tmp_path)
    else:
        scene = PairSample(scene.lrhsi[:, :10], scene.msi, scene.mask)
        model = model.with_srf(model.srf[:, :10])
    fuser = fitted((scene, model))
    assert fuser.describe()["weights"] == ""
    assert isinstance(fuser.known, AnySensor)
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


ADAPT = FuseOptions(adapt_steps=2, ensemble=1, pace=Pace(check_every=1, learning_rate=1e-2))


@pytest.fixture(scope="module", autouse=True)
def one_stage_on_weights_alone():
    """How many stages has no part in what is looked at, nor has what `test_scene_regression.py` looks at."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("hsfuse.methods.conditioning.LEARNED_FROM", 1000)
        patch.setattr(fusers_weights, "ON_WEIGHTS", (1, ON_WEIGHTS[1]))
        yield


@pytest.fixture(scope="module")
def adapted(larger, folder):
    """Fitted with a few steps; not to be changed."""
    with pytest.MonkeyPatch.context() as patch:
        collect(patch, folder)
        return fitted(larger, ADAPT)


def test_the_stages_are_written_down(adapted):
    stages = {stage.name: stage for stage in adapted.adaptation.stages}
    assert list(stages) == ["base", "weights", "adaptation", "consistency"]
    assert (stages["base"].error, stages["base"].angle) == (1, 1)
    assert all(np.isfinite([stage.error, stage.angle]).all() and stage.seconds >= 0 for stage in stages.values())
    assert adapted.adaptation.gain == pytest.approx(1 - stages["weights"].error)  # two steps are no better
    before, after = stages["adaptation"].misfits, stages["consistency"].misfits
    assert before is not None
    assert after is not None
    assert after[0] <= before[0]
    assert adapted.describe()["adaptation"].endswith(f"no better than {adapted.known.given}, which is the result")


def test_the_parts_are_those_that_are_used(adapted):
    known = copy.copy(adapted.known)
    known.share = 0.0
    taught = known.parts
    assert taught == ({} if known.frame.scene_regression is None else {"scene regression": ""})
    known.share = 0.5
    assert known.parts == taught | {"weights": "w"}
    fuser = copy.copy(adapted)
    fuser.known, fuser.share = known, torch.zeros_like(adapted.share)
    assert fuser.parts == known.parts
    fuser.known.share, fuser.share = 0.0, torch.ones_like(adapted.share)
    fuser.adaptation = replace(adapted.adaptation, kept_step=2)
    assert fuser.parts == taught | {"training": "2 steps"}
    fuser.card = replace(known.card, kind="scene", name="own")
    assert fuser.parts == taught | {"weights": "own", "training": "2 steps"}
    fuser.share = torch.zeros_like(adapted.share)
    assert fuser.parts == taught
    assert not (taught and fuser.scans)


def test_the_consistency_step_is_part_of_the_result_and_without_it_and_adaptation_two_stages_are_left(
    larger, adapted, collection
):
    scene, model = larger
    without = fitted(larger)
    assert [stage.name for stage in without.adaptation.stages] == ["base", "weights"]
    misfits = [
        float((model.spatial(fuser.predict(scene.lrhsi, scene.msi)) - scene.lrhsi).square().mean())
        for fuser in (adapted, without)
    ]
    assert misfits[0] < 0.5 * misfits[1]


def test_the_same_seed_gives_the_same_weights(larger, adapted, collection):
    states = [adapted.net.state_dict()]
    for seed in (0, 1):
        torch.manual_seed(len(states))  # what was drawn before doesn't matter
        states.append(fitted(larger, replace(ADAPT, seed=seed)).net.state_dict())
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])  # the same steps on one machine
    assert any(not torch.equal(states[0][key], states[2][key]) for key in states[0])


def test_a_network_fitted_to_a_scene_names_the_weights_below_it(larger, adapted, collection, tmp_path, monkeypatch):
    save_checkpoint(tmp_path / "own.safetensors", *adapted.weights_of_scene("own"))
    card = read_card(tmp_path / "own.safetensors")
    assert (card.name, card.kind, card.steps) == ("own", "scene", adapted.adaptation.kept_step)
    assert card.extra["weights"] == "w"
    again = fitted(larger, FuseOptions(adapt="off", ensemble=1), tmp_path / "own.safetensors")
    scene = larger[0]
    torch.testing.assert_close(
        again.predict(scene.lrhsi, scene.msi), adapted.predict(scene.lrhsi, scene.msi), rtol=0, atol=1e-6
    )
    collect(monkeypatch, tmp_path / "empty")
    with pytest.raises(ModelError, match="there are no weights called 'w'"):
        fitted(larger, weights=tmp_path / "own.safetensors")


def test_a_network_fitted_to_a_scene_finds_its_scene_regression_again(larger, tmp_path, monkeypatch):
    """Where there were no weights below it, there are none: other weights of the collection aren't taken."""
    collect(monkeypatch, tmp_path)
    fuser = fitted(larger, ADAPT)
    save_checkpoint(tmp_path / "own.safetensors", *fuser.weights_of_scene("own"))
    assert read_card(tmp_path / "own.safetensors").extra["weights"] == ""
    save(tmp_path / "w.safetensors")
    again = fitted(larger, FuseOptions(adapt="off", ensemble=1), tmp_path / "own.safetensors")
    assert again.known.describe()["weights"] == ""
    scene = larger[0]
    torch.testing.assert_close(
        again.predict(scene.lrhsi, scene.msi), fuser.predict(scene.lrhsi, scene.msi), rtol=0, atol=1e-6
    )

"""Checkpoints: what was saved is what is loaded, and what can't be used is told."""

import json
from dataclasses import replace

import pytest
import torch
from checkpoints import CARD, CONFIG, any_sensor, banded, network, saved
from safetensors.torch import save_file
from scenes import memory_scene

from hsfuse.core.errors import ModelError
from hsfuse.core.options import FuseOptions, Pace
from hsfuse.methods import make_method
from hsfuse.methods.conditioning import KNOWN_BASE, guides
from hsfuse.methods.srlf import SRLF
from hsfuse.methods.srlf_any import AnySensor
from hsfuse.methods.srlf_bands import Banded
from hsfuse.nets.srlf import SRLFNet
from hsfuse.nets.weights import FORMAT, ModelCard, check_card, load_checkpoint, network_of, read_card, save_checkpoint

FAST = FuseOptions(adapt_steps=0, adapt_minutes=60, consistency="off", ensemble=1)


def test_a_card_survives_json():
    assert ModelCard.from_json(CARD.to_json()) == CARD
    assert json.loads(CARD.to_json())["format"] == FORMAT


def test_cards_of_later_versions_may_say_more():
    raw = json.loads(CARD.to_json()) | {"something_new": 1}
    assert ModelCard.from_json(json.dumps(raw)) == CARD


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("not json", "can't be read"),
        ("[1, 2]", "can't be read"),
        ('"abc"', "can't be read"),
        ("3", "can't be read"),
        ("{}", "can't be read"),
        (json.dumps({"format": "other-1"}), f"wanted {FORMAT}"),
        (json.dumps({"format": FORMAT, "config": {"nonsense": 1}}), "can't be read"),
        (json.dumps({"format": FORMAT, "config": None}), "can't be read"),
        (
            json.dumps({"format": FORMAT, "name": "x", "config": {"channels": 1, "guide": 1, "scale": 2}}),
            "can't be read",
        ),
    ],
)
def test_cards_that_cannot_be_read_are_told(text, said):
    with pytest.raises(ModelError, match=said) as caught:
        ModelCard.from_json(text)
    assert "\n" not in str(caught.value)


def test_weights_and_card_come_back_bit_by_bit(tmp_path):
    net = network()
    card, tensors = load_checkpoint(saved(tmp_path, net=net))
    assert card == CARD
    assert tensors.keys() == net.state_dict().keys()
    assert all(torch.equal(tensors[key], value) for key, value in net.state_dict().items())
    assert [p.name for p in tmp_path.iterdir()] == ["net.safetensors"]


def test_saving_leaves_nothing_half_done(tmp_path):
    with pytest.raises(AttributeError):
        save_checkpoint(tmp_path / "net.safetensors", CARD, {"weight": None})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("kind", ["missing", "folder", "text", "empty", "cut", "no card", "bad card"])
def test_files_that_are_no_checkpoint_are_told(tmp_path, kind):
    path = saved(tmp_path)
    match kind:
        case "missing":
            path.unlink()
        case "folder":
            path = tmp_path
        case "text":
            path.write_text("weights")
        case "empty":
            path.write_bytes(b"")
        case "cut":
            path.write_bytes(path.read_bytes()[:-100])
        case "no card":
            save_file({"a": torch.zeros(1)}, path)
        case "bad card":
            save_file({"a": torch.zeros(1)}, path, {"card": "{"})
    with pytest.raises(ModelError) as caught:
        load_checkpoint(path)
    assert "\n" not in str(caught.value)
    if kind != "bad card":
        assert str(path) in str(caught.value)


def test_what_does_not_fit_is_told_with_both_sides():
    scene = {"scale": 3, "subspace dimension": 16, "guide channels": 16, "phase": "1", "base": "blend"}
    check_card(CARD, scene)
    with pytest.raises(
        ModelError, match="scale: weights 3, scene 4; subspace dimension: weights 16, scene 8; phase: weig"
    ):
        check_card(CARD, scene | {"scale": 4, "subspace dimension": 8, "phase": "0"})
    with pytest.raises(ModelError, match="base: weights blend, scene cnmf"):
        check_card(CARD, scene | {"base": "cnmf"})
    check_card(replace(CARD, phase="any"), scene | {"phase": "0"})


def test_weights_of_one_pair_of_sensors_are_sent_elsewhere():
    with pytest.raises(ModelError, match="are for one pair of sensors; use --method srlf-bands"):
        check_card(replace(CARD, kind="bands"), {})


def test_the_card_alone_is_read_without_the_weights(tmp_path):
    assert read_card(saved(tmp_path)) == CARD


def test_weights_that_do_not_fit_their_card_are_told(tmp_path, tiny):
    path = saved(tmp_path, replace(CARD, config=replace(CONFIG, stages=2)))
    with pytest.raises(ModelError, match=r"net.safetensors: the weights don't fit the card's configuration") as caught:
        SRLF(FAST, path).fit(tiny.training, tiny.model)
    assert "\n" not in str(caught.value)


def test_a_fitted_method_is_the_same_after_saving_and_loading(tmp_path, tiny):
    plain = replace(FAST, base="bicubic")
    fuser = SRLF(replace(plain, adapt_steps=12, pace=Pace(check_every=4, learning_rate=4e-3)), None, CONFIG)
    fuser.fit(tiny.training, tiny.model)
    assert fuser.share.any()
    path = tmp_path / "own.safetensors"
    save_checkpoint(path, *fuser.weights_of_scene("own"))
    again = SRLF(plain, path).fit(tiny.training, tiny.model)
    torch.testing.assert_close(
        again.predict(tiny.lrhsi, tiny.msi), fuser.predict(tiny.lrhsi, tiny.msi), rtol=0, atol=1e-6
    )
    assert again.card is not None
    assert (again.card.scale, again.card.base, again.card.config) == (3, "bicubic", CONFIG)
    assert again.describe()["weights"].startswith("own (")


@pytest.mark.parametrize("lr_shape", [(8, 8), (4, 16)])
def test_weights_for_any_sensor_are_not_used_where_the_scene_cannot_judge(tmp_path, lr_shape):
    scene = memory_scene(lr_shape, s=3)
    net = SRLFNet(replace(CONFIG, guide=guides(16)), identity=False)
    path = any_sensor(tmp_path, dict(net.state_dict()), base=KNOWN_BASE)
    fuser = SRLF(FAST, path).fit(scene.training, scene.model)
    assert fuser.describe()["adaptation"].endswith("no network was trained on this scene: the base blend is the result")
    alone, base = (f.fit(scene.training, scene.model) for f in (AnySensor(path), make_method(KNOWN_BASE)))
    assert alone.describe()["weights"].endswith("not used: the scene is too small to judge them")
    fused, wanted, plain = (f.predict(scene.lrhsi, scene.msi) for f in (fuser, alone, base))
    torch.testing.assert_close(fused, plain, rtol=0, atol=1e-6)
    torch.testing.assert_close(wanted, plain, rtol=0, atol=1e-6)


def test_weights_of_a_scene_are_not_used_unjudged(tmp_path):
    """They fit any scene of as many bands, whosever it is: what they add must be borne out."""
    scene = memory_scene((8, 8), s=3)
    fuser = SRLF(FAST, saved(tmp_path)).fit(scene.training, scene.model)
    assert not fuser.share.any()
    assert "the base blend is the result" in fuser.describe()["adaptation"]
    base = make_method("blend").fit(scene.training, scene.model)
    found, wanted = (f.predict(scene.lrhsi, scene.msi) for f in (fuser, base))
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-6)


def used(method, path, scene):
    """A method with weights, fitted."""
    return method(path).fit(scene.training, scene.model)


@pytest.fixture(scope="module")
def scene():
    return memory_scene((12, 12))


def test_weights_of_one_scene_are_none_for_any_sensor(tmp_path, scene):
    with pytest.raises(ModelError, match="'test' are of kind 'scene', wanted weights for any sensor"):
        used(AnySensor, saved(tmp_path), scene)
    with pytest.raises(ModelError, match="'test' are of kind 'scene', wanted weights for one pair of sensors"):
        used(Banded, saved(tmp_path), scene)


def test_weights_of_another_guide_are_told(tmp_path, scene):
    assert used(AnySensor, any_sensor(tmp_path), scene).card.name == "test"
    with pytest.raises(ModelError, match=f"have 16 guide channels, wanted {guides(16)} for weights for any sensor"):
        used(AnySensor, any_sensor(tmp_path, dict(network().state_dict()), config=CONFIG), scene)


@pytest.mark.parametrize("method", [AnySensor, SRLF])
def test_weights_with_other_tensors_than_the_card_s_are_told(tmp_path, scene, method):
    tensors = dict(SRLFNet(replace(CONFIG, guide=guides(16))).state_dict())
    tensors.pop("refine.weight")
    path = any_sensor(tmp_path, tensors, base=KNOWN_BASE)
    fuser = AnySensor(path) if method is AnySensor else SRLF(FAST, path)
    with pytest.raises(ModelError, match="the weights don't fit the card's configuration") as caught:
        fuser.fit(scene.training, scene.model)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("change", [{"channels": "a"}, {"channels": -3}, {"stages": None}])
def test_a_network_that_cannot_be_made_is_told(tmp_path, change):
    config = replace(CONFIG, **change)
    with pytest.raises(ModelError, match="don't fit the card's configuration"):
        network_of(tmp_path, replace(CARD, config=config), {})


def test_weights_for_one_pair_of_sensors_need_their_frame_opinions_and_guide(tmp_path, scene):
    assert used(Banded, banded(tmp_path, scene), scene).card.name == "test"
    with pytest.raises(ModelError, match=r"bands\.axes, bands\.psf are missing"):
        used(Banded, banded(tmp_path, scene, without=("axes", "psf")), scene)
    with pytest.raises(ModelError, match="doesn't say whose opinions"):
        used(Banded, banded(tmp_path, scene, opinions=None), scene)
    with pytest.raises(ModelError, match="have 7 guide channels, wanted 30"):
        used(Banded, banded(tmp_path, scene, guide=7), scene)

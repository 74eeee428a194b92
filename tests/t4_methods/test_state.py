"""A fitted method as data: kept and restored it gives the same bits, whatever it is made of."""

from __future__ import annotations

import json

import pytest
import torch
from checkpoints import any_sensor, banded
from scenes import memory_scene

from hsfuse.core.errors import ModelError
from hsfuse.core.options import FuseOptions
from hsfuse.methods import METHODS, make_method
from hsfuse.methods.srlf import SRLF
from hsfuse.methods.srlf_any import AnySensor
from hsfuse.methods.srlf_bands import Banded
from hsfuse.methods.state import State, read_state, restore_method, write_state


@pytest.fixture(scope="module")
def scene():
    return memory_scene((8, 8))


def unfitted(name, scene, folder):
    """A method of that name; those with weights get small random ones."""
    if name == "srlf-any":
        return AnySensor(any_sensor(folder))
    if name == "srlf-bands":
        return Banded(banded(folder, scene), turns=2)
    if name == "srlf":
        return SRLF(FuseOptions(adapt="off", ensemble=2), any_sensor(folder, base="blend"))
    return make_method(name)


def used(method):
    """With its network wholly trusted, where it has one: on this scene it may be left out."""
    if method.id == "srlf":
        torch.nn.init.normal_(method.net.refine.weight, std=0.1, generator=torch.Generator().manual_seed(0))
        method.share = torch.ones_like(method.share)
    return method


#: `srlf` is made of these two.
WITHIN = [pytest.param(name, marks=[pytest.mark.slow] if name in ("srlf-any", "blend") else []) for name in METHODS]


@pytest.mark.parametrize("name", WITHIN)
def test_a_method_that_was_kept_gives_the_same_bits(name, scene, tmp_path):
    """A law on one machine: the same operations on the same numbers, laid out alike."""
    fitted = used(unfitted(name, scene, tmp_path).fit(scene.training, scene.model))
    lrhsi, msi = scene.lrhsi[..., :6, 1:7].contiguous(), scene.msi[..., :18, 3:21].contiguous()
    wanted = fitted.predict(lrhsi, msi)
    write_state(tmp_path / "kept.safetensors", fitted.state(), {"plan": "this"})
    state, about = read_state(tmp_path / "kept.safetensors")
    again = restore_method(state)
    assert type(again) is type(fitted)
    assert torch.equal(again.predict(lrhsi, msi), wanted)
    assert again.describe() == fitted.describe()
    assert again.history() == fitted.history()
    assert about == {"plan": "this"}
    assert again.state().values == state.values
    assert again.state().digest() == state.digest()
    json.dumps(state.values, allow_nan=False)


def test_what_is_shared_is_kept_once_and_shared_again(scene):
    state = make_method("conic").fit(scene.training, scene.model).state()
    assert [name for name in state.arrays if name.endswith("psf.kernel")] == ["model.psf.kernel"]
    again = restore_method(state)
    assert again.problem.model is again.model


@pytest.fixture(scope="module")
def gsa(scene):
    return make_method("gsa").fit(scene.training, scene.model).state()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"hsfuse": "0.0.1"}, "is of hsfuse 0.0.1, this is"),
        ({"format": "other"}, "fit it again"),
        ({"kept": {"model": {"is": "Popen", "kept": {}}}}, "'Popen'"),
        ({"kept": {"model": {"is": "os:system", "kept": {}}}}, "can't be read"),
        ({"kept": {"gain": {"array": "nowhere"}}}, "'nowhere'"),
        ({"kept": {"gain": {"same": "nowhere"}}}, "'nowhere'"),
        ({"kept": {"gain": {"eval": "1"}}}, "can't be read"),
        ({"kept": 3}, "can't be read"),
    ],
)
def test_what_cannot_have_been_kept_is_told_in_one_line(gsa, change, said):
    with pytest.raises(ModelError, match=said) as caught:
        restore_method(State({**gsa.values, **change}, gsa.arrays))
    assert "\n" not in str(caught.value)


def test_an_object_that_cannot_be_kept_is_told(scene):
    method = make_method("bicubic").fit(scene.training, scene.model)
    method.left = {1: object()}
    with pytest.raises(TypeError, match=r"left\.1 is a <class 'object'>: name its class in PARTS"):
        method.state()


def test_weights_are_no_fitted_method(tmp_path):
    with pytest.raises(ModelError, match="no fitted method is kept in it"):
        read_state(any_sensor(tmp_path))

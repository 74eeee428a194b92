"""Which method `fuse` runs with which weights: what is named is used, or refused."""

from dataclasses import replace
from types import SimpleNamespace

import pytest

from hsfuse.core.errors import ModelError, SettingError
from hsfuse.core.options import FuseOptions
from hsfuse.fusion import fuse
from hsfuse.fusion.fitting import build_method
from hsfuse.methods import METHODS, weighted_methods
from hsfuse.methods.srlf import SRLF
from hsfuse.methods.srlf_any import AnySensor
from hsfuse.methods.srlf_bands import Banded
from hsfuse.nets.srlf import SRLFConfig, SRLFNet
from hsfuse.nets.weights import ModelCard, save_checkpoint

PAIR = SimpleNamespace(alignment=SimpleNamespace(full=(64, 64)))
SETTINGS = FuseOptions(srf="sentinel2a")


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Files of two kinds."""
    folder, config = tmp_path_factory.mktemp("weights"), SRLFConfig(8, 8, 4, stages=1, expand=1)
    tensors = dict(SRLFNet(config).state_dict())
    for kind in ("any-sensor", "bands"):
        save_checkpoint(folder / f"{kind}.safetensors", ModelCard(kind, config, 4, kind=kind), tensors)
    return folder


def built(method, model="auto", **options):
    return build_method(replace(SETTINGS, method=method, model=str(model), **options), PAIR)


@pytest.mark.parametrize("method", sorted(METHODS))
def test_every_method_is_built_by_its_name(method):
    assert built(method).id == method


@pytest.mark.parametrize("method", sorted(set(METHODS) - set(weighted_methods())))
def test_methods_without_weights_refuse_them(method, weights):
    with pytest.raises(SettingError, match=f"--method {method} uses none; .* srlf, srlf-any, srlf-bands"):
        built(method, weights / "bands.safetensors")
    assert built(method, "none").id == method


def test_methods_with_weights_use_those_that_are_named(weights):
    learnt, fixed = weights / "any-sensor.safetensors", weights / "bands.safetensors"
    generic = built("srlf-any", learnt)
    assert isinstance(generic, AnySensor)
    assert generic.weights == learnt
    banded = built("srlf-bands", fixed, ensemble=2)
    assert isinstance(banded, Banded)
    assert (banded.weights, banded.turns) == (fixed, 2)
    adapted = built("srlf", learnt)
    assert isinstance(adapted, SRLF)
    assert adapted.weights == learnt
    instead = built("srlf", fixed)
    assert isinstance(instead, Banded)
    assert instead.weights == fixed


def test_what_corrects_blend_can_do_without_weights():
    for method in ("srlf", "srlf-any"):
        assert built(method, "none").weights is None
        assert built(method, "auto").weights == "auto"
    with pytest.raises(SettingError, match="--method srlf-bands is nothing without weights"):
        built("srlf-bands", "none")


def test_weights_are_looked_at_before_anything_is_done(files, tmp_path):
    how = {"dry_run": True, "model": "nowhere"}
    with pytest.raises(ModelError, match="no weights called 'nowhere'"):
        fuse(files.hsi, files.msi, "sentinel2a", tmp_path / "x.tif", method="srlf-any", **how)
    with pytest.raises(SettingError, match="--model nowhere names weights"):
        fuse(files.hsi, files.msi, "sentinel2a", tmp_path / "x.tif", method="gsa", **how)

"""Every method on a GPU that is only pretended, and on a real one where there is one: nothing stays on the CPU."""

from __future__ import annotations

from contextlib import contextmanager
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from pretend_gpu import OnGpu, pretend_gpu
from scenes import memory_scene, save_pair

from hsfuse.core.errors import SettingError
from hsfuse.core.options import FuseOptions
from hsfuse.fusion.device import check_device
from hsfuse.fusion.quality import QualityLayers
from hsfuse.fusion.stream import plan_tiles
from hsfuse.fusion.tiles import TileWorker
from hsfuse.methods import METHODS, make_method
from hsfuse.methods.srlf import SRLF
from hsfuse.nets.srlf import SRLFConfig
from hsfuse.pair import open_pair
from hsfuse.pair.sample import sample_scene


@contextmanager
def real_gpu():
    yield torch.device("cuda")


WITHOUT_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="no NVIDIA GPU")
GPUS = [
    pytest.param(pretend_gpu, id="pretended"),
    pytest.param(real_gpu, id="real", marks=[pytest.mark.gpu, WITHOUT_GPU]),
]


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """16 x 16 LR pixels at ratio 2."""
    files = save_pair(tmp_path_factory.mktemp("device"), memory_scene((16, 16), 2))
    with open_pair(files.hsi, files.msi, srf="sentinel2a") as pair:
        yield pair


def test_the_pretended_gpu_is_as_strict_as_a_real_one():
    with pretend_gpu() as device:
        a, b = torch.ones(3, device=device), torch.ones(3)
        assert a.device.type == "pretend"
        with pytest.raises(RuntimeError, match="same device"):
            a + b
        assert (a + b.to(device)).cpu().tolist() == [2, 2, 2]
        assert float((a * torch.tensor(2.0)).sum()) == 6  # numbers may come from anywhere
        with pytest.raises(RuntimeError):
            a.numpy()
        weight = torch.nn.Linear(3, 2).to(device)
        weight(a).sum().backward()
        assert isinstance(weight.weight.grad, OnGpu)


def fused(pair, fuser, device):
    scene, model = sample_scene(pair).to(device), pair.model.to(device)
    work = TileWorker(pair, fuser.fit(scene, model), str(device))
    tiles = plan_tiles(pair, 4, 32, 4)
    return work.fuse([work.read(tiles.spans(0)[0], tiles.spans(1)[0])])[0].finish()[0]


#: Rounds of those that take many: all are alike.
FEW = {
    "hysure": {"iterations": 6, "inner": 2}, "cnmf": {"outer": 2, "inner": 2, "iterations": 4},
    "conic": {"alternations": 2},
}  # fmt: skip
#: The blend's members are here themselves.
BY_NAME = [
    pytest.param(name, marks=[pytest.mark.slow] if name == "blend" else []) for name in METHODS if name[:4] != "srlf"
]


def few_rounds(name):
    method = make_method(name)
    for attribute, count in FEW.get(name, {}).items():
        assert getattr(method, attribute) > count
        setattr(method, attribute, count)
    return method


@pytest.mark.parametrize("name", BY_NAME)
@pytest.mark.parametrize("gpu", GPUS)
def test_methods_stay_on_their_device(pair, name, gpu):
    want = fused(pair, few_rounds(name), torch.device("cpu"))
    with gpu() as device:
        got = fused(pair, few_rounds(name), device)
    np.testing.assert_allclose(got, want, atol=1e-3)


ONE_STEP = FuseOptions(base="glp-reg", adapt_steps=1, ensemble=1)
NETWORKS = {
    "from scratch": lambda: SRLF(ONE_STEP, None, SRLFConfig(16, 16, 2, stages=1, expand=1)),
    "weights": lambda: SRLF(FuseOptions(adapt="off", ensemble=1)),
}


@pytest.mark.parametrize("kind", ["from scratch", pytest.param("weights", marks=pytest.mark.slow)])
@pytest.mark.parametrize("gpu", GPUS)
def test_networks_stay_on_their_device(pair, kind, gpu):
    """With the whole correction trusted: what held-out cells say about one step is nearly nothing."""
    with gpu() as device:
        scene, model = sample_scene(pair).to(device), pair.model.to(device)
        fuser = NETWORKS[kind]().fit(scene, model)
        if isinstance(fuser, SRLF):
            fuser.share = torch.ones_like(fuser.share)
        with QualityLayers(fuser, scene, model) as quality:
            work = TileWorker(pair, fuser, str(device), quality)
            tiles = plan_tiles(pair, 4, 32, 4)
            data, _, layers = work.fuse([work.read(tiles.spans(0)[0], tiles.spans(1)[0])])[0].finish()
    assert np.isfinite(data).all()
    assert data.std() > 0
    assert layers is not None
    assert np.isfinite(layers[:4]).all()


@pytest.mark.parametrize(
    ("build", "driver", "told"),
    [
        ("cuda = None", True, "a build without CUDA"),
        ("cuda = '12.6'", False, "no driver of NVIDIA's"),
        ("cuda = '12.6'", True, ""),
        ("cuda = None; hip = '6.2'", False, ""),
    ],
)
def test_cuda_that_cannot_be_there_is_told_by_torch_s_files(tmp_path, monkeypatch, build, driver, told):
    (tmp_path / "version.py").write_text(build)
    spec = SimpleNamespace(submodule_search_locations=[str(tmp_path)])
    monkeypatch.setattr("hsfuse.fusion.device.find_spec", lambda name: spec)
    monkeypatch.setattr("hsfuse.fusion.device.sys.platform", "linux")

    def load(name):
        if not driver:
            raise OSError(f"{name}: cannot open shared object file")

    monkeypatch.setattr("hsfuse.fusion.device.ctypes.CDLL", load)
    check_device("cpu")
    check_device("auto")
    if told:
        with pytest.raises(SettingError, match=told):
            check_device("cuda")
    else:
        check_device("cuda")

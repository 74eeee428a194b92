"""Training by several processes, the test side, longer runs and the picture of the curves."""

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from pretend_gpu import OnGpu, pretend_gpu
from training_scenes import share_cache, write_scenes

from hsfuse.core.errors import InputError, SettingError
from hsfuse.io.toml import read_toml
from hsfuse.nets.weights import load_checkpoint
from hsfuse.training import load_config, train
from hsfuse.training.loop import draw_curves, read_log
from hsfuse.training.parallel import Peers, join_peers
from hsfuse.training.references import load_references
from hsfuse.training.trainer import Trainer

NM = np.linspace(400.0, 1000.0, 20)
CONFIG = """
name = "tiny"
kind = "KIND"
check_every = 2
[net]
scale = 2
channels = 16
stages = 1
expand = 1
dropout = 0.0
[data]
train = [["train/*.npz", 1.0]]
validation = ["validation/*.npz"]
test = ["test/*.npz", "absent/*.npz"]
[optimiser]
steps = 3
batch = 3
gain = 0.0
l1 = 1.0
angle = 0.2
"""
DRAWS = """
[draws]
size = 24
window = 16
bands = 8
pool = 4
"""
PATCHES = """
[patches]
srf = "ikonos"
psf_sigma = 0.8
psf_size = 3
phase = 0.0
size = 16
augment = true
base = "glp-reg"
opinions = ["bicubic"]
"""


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """Fused draws, which are the same in all tests."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def folder(tmp_path, cache):
    def cube(seed):
        return np.random.default_rng(seed).random((20, 32, 32)).astype(np.float32)

    write_scenes(tmp_path, cube, NM, train=(1, 2), validation=(3,), test=(4,))
    (tmp_path / "any.toml").write_text(CONFIG.replace("KIND", "any-sensor") + DRAWS)
    (tmp_path / "bands.toml").write_text(CONFIG.replace("KIND", "bands") + PATCHES)
    share_cache(tmp_path, cache, "one", "two", "w")
    return tmp_path


def trainer_of(folder, kind, cache, peers=None, device="cpu", batch=3):
    config = load_config(folder / f"{kind}.toml")
    config = replace(config, optimiser=replace(config.optimiser, batch=batch))
    return Trainer(config, *load_references(config, folder), torch.device(device), cache, peers)


class Apart(Peers):
    """One of several processes, in a test that has but one: it keeps its gradients to itself."""

    def first_alone(self, make):
        return make()

    def sum_gradients(self, parameters):
        pass


@pytest.mark.parametrize("kind", ["any", "bands"])
def test_the_parts_of_a_batch_have_gradients_that_sum_to_its_own(folder, kind, cache):
    trainers = [trainer_of(folder, kind, cache, peers) for peers in (Apart(), Apart(0, 2), Apart(1, 2))]
    for trainer in trainers:
        trainer.config = replace(trainer.config, optimiser=replace(trainer.config.optimiser, clip=1e9))
        trainer.step()
    whole, *parts = ([p.grad for p in trainer.net.parameters()] for trainer in trainers)
    known = [(w, [p for p in some if p is not None]) for w, *some in zip(whole, *parts, strict=True) if w is not None]
    assert any(float(w.abs().max()) > 1e-6 for w, _ in known)
    assert all(torch.allclose(w, sum(some), atol=1e-5 * float(w.abs().max()) + 1e-9) for w, some in known)


@pytest.mark.parametrize("kind", ["any", "bands"])
def test_training_stays_on_its_device(folder, kind, cache):
    trainer_of(folder, kind, cache, batch=1).step()  # draws are fused on the CPU in any case
    with pretend_gpu() as device:
        trainer = trainer_of(folder, kind, cache, device=device, batch=1)
        assert all(np.isfinite(value) for value in trainer.step().values())
        assert all(np.isfinite(value) for value in trainer.validate().values())
        assert all(isinstance(p.grad, OnGpu) for p in trainer.net.parameters() if p.grad is not None)


@pytest.mark.slow  # the test above is of its arithmetic, the one below of its shares
def test_two_processes_end_with_the_weights_of_one(folder, cache):
    config = folder / "bands.toml"
    train(load_config(config), folder / "one.safetensors", data=folder, device="cpu")
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m"]
    command = ["hsfuse", "train", str(config), "--data", str(folder), "--device", "cpu"]
    done = subprocess.run(
        [*torchrun, *command, "-o", str(folder / "two.safetensors")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    (card, one), (other, two) = (load_checkpoint(folder / f"{name}.safetensors") for name in ("one", "two"))
    assert card.steps == other.steps == 3
    start = trainer_of(folder, "bands", cache).net.state_dict()
    moved = max(float((one[k] - v).abs().max()) for k, v in start.items())
    assert moved > 1e-4
    assert max(float((one[k] - two[k]).abs().max()) for k in one) < 0.02 * moved
    assert read_log(folder / "two.csv")[-1]["step"] == 3


def test_parts_of_a_batch_are_the_batch():
    assert sorted(n for rank in range(3) for n in range(7)[Peers(rank, 3).part]) == list(range(7))


def test_a_process_without_torchrun_is_alone(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    peers, device = join_peers(torch.device("cpu"))
    assert (peers, device) == (Peers(0, 1), torch.device("cpu"))
    assert peers.first_alone(lambda: 7) == 7


def test_a_test_scene_may_not_be_learned_from(folder):
    config = load_config(folder / "any.toml")
    load_references(config, folder)
    whole = np.load(folder / "train" / "s1.npz")["cube"]
    np.savez(folder / "test" / "crop.npz", cube=whole[:, 4:28, 4:28], wavelengths_nm=NM)
    with pytest.raises(InputError, match=r"\(training\) and .* \(test\) share 576 pixels"):
        load_references(config, folder)


def test_a_scene_on_two_sides_is_refused_by_name(folder):
    raw = (folder / "any.toml").read_text().replace('test = ["test', 'test = ["validation')
    (folder / "any.toml").write_text(raw)
    with pytest.raises(InputError, match=r"in validation and in test: validation/s3\.npz"):
        load_references(load_config(folder / "any.toml"), folder)


def test_the_curves_are_drawn_beside_the_weights(folder):
    train(load_config(folder / "any.toml"), folder / "w.safetensors", data=folder, device="cpu")
    assert (folder / "w.png").read_bytes().startswith(b"\x89PNG")
    rows = read_log(folder / "w.csv")
    assert [row["step"] for row in rows] == [2, 3]
    (folder / "w.png").unlink()
    draw_curves(folder / "w.csv", folder / "w.png")
    assert (folder / "w.png").stat().st_size > 5000


def test_mixed_precision_leaves_training_on_a_cpu_as_it_is(folder, cache):
    plain = load_config(folder / "any.toml")
    text = (folder / "any.toml").read_text().replace("steps = 3", 'steps = 3\nprecision = "bf16"')
    (folder / "half.toml").write_text(text)
    half = load_config(folder / "half.toml")
    assert half.optimiser.precision == "bf16"
    device = torch.device("cpu")
    losses = [Trainer(config, *load_references(config, folder), device, cache).step() for config in (plain, half)]
    assert losses[0] == losses[1]  # exactly: nothing is done otherwise


@pytest.mark.parametrize(("text", "said"), [("a = [", "not TOML"), (None, "can't be read")])
def test_a_file_that_is_no_toml_is_told(tmp_path, text, said):
    path = tmp_path / "c.toml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(SettingError, match=said):
        read_toml(path)

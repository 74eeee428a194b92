"""`hsfuse models` and `hsfuse train` from the command line."""

import json

import numpy as np
import pytest
from click.testing import CliRunner

import hsfuse.nets.weights
from hsfuse.cli import main
from hsfuse.methods.conditioning import KNOWN_BASE
from hsfuse.nets.srlf import SRLFConfig, SRLFNet
from hsfuse.nets.weights import ModelCard, find_weights, save_checkpoint


@pytest.fixture
def collection(tmp_path, monkeypatch):
    for scale in (2, 4):
        config = SRLFConfig(8, 8, scale, stages=1, expand=1)
        card = ModelCard(f"any-x{scale}", config, scale, terms="ours", extra={"scores": {"PSNR": 40.0}})
        save_checkpoint(tmp_path / f"any-x{scale}.safetensors", card, dict(SRLFNet(config).state_dict()))
    monkeypatch.setattr(hsfuse.nets.weights, "data_folder", lambda name: tmp_path)
    return tmp_path


def run(*arguments):
    return CliRunner().invoke(main, [str(a) for a in arguments])


def test_weights_are_found_by_their_card(collection):
    assert find_weights(4, 8, KNOWN_BASE) == collection / "any-x4.safetensors"
    assert find_weights(3, 8, KNOWN_BASE) is None
    assert find_weights(4, 16, KNOWN_BASE) is None
    assert find_weights(4, 8, "bicubic") is None


def test_list_show_and_path(collection):
    listed = run("models", "list").output.splitlines()
    assert [line.split()[0] for line in listed] == ["name", "any-x2", "any-x4"]
    shown = json.loads(run("models", "show", "any-x4", "--json").output)
    assert (shown["scale"], shown["terms"], shown["extra"]["scores"]["PSNR"]) == (4, "ours", 40.0)
    assert "scale: 4" in run("models", "show", collection / "any-x4.safetensors").output
    assert run("models", "path", "any-x2").output.strip() == str(collection / "any-x2.safetensors")


def test_unknown_weights_are_one_line_with_the_known_names(collection):
    result = run("models", "show", "any-x9")
    assert result.exit_code == 2
    assert "known are any-x2, any-x4" in result.output


def test_train_writes_weights_and_tells_what_is_missing(tmp_path):
    rng = np.random.default_rng(0)
    nm = np.linspace(400, 1000, 20)
    np.savez(tmp_path / "a.npz", cube=rng.random((20, 16, 16)).astype(np.float32), wavelengths_nm=nm)
    (tmp_path / "c.toml").write_text(
        'name = "t"\n[net]\nscale = 2\nchannels = 16\nstages = 1\nexpand = 1\n[data]\ntrain = [["*.npz", 1.0]]\n'
        "[draws]\nsize = 16\nwindow = 8\n[optimiser]\nsteps = 1\nbatch = 1\n"
    )
    done = run("train", tmp_path / "c.toml", "--data", tmp_path, "-o", tmp_path / "t.safetensors", "--device", "cpu")
    assert done.exit_code == 0, done.output
    assert (tmp_path / "t.safetensors").is_file()
    again = run("train", tmp_path / "c.toml", "--data", tmp_path, "-o", tmp_path / "t.safetensors")
    assert again.exit_code == 1
    assert "--overwrite" in again.output
    nothing = run("train", tmp_path / "c.toml", "--data", tmp_path / "none", "-o", tmp_path / "u.safetensors")
    assert nothing.exit_code == 1
    assert "nothing is called" in nothing.output

"""Training that goes wrong: settings, references, interruptions, states, and caches that can't be used."""

import re
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from training_scenes import write_scenes

from hsfuse.core.errors import InputError, ModelError, SettingError
from hsfuse.io.toml import read_toml
from hsfuse.methods import make_method
from hsfuse.methods.cnmf import CNMF
from hsfuse.nets.weights import load_checkpoint
from hsfuse.training import kept, loop, train
from hsfuse.training.config import load_config, parse_config
from hsfuse.training.loop import stoppable
from hsfuse.training.sample import Reference
from hsfuse.training.trainer import Trainer

CONFIGS = Path(__file__).parents[2] / "examples/configs"
RAW = {
    "name": "tiny",
    "kind": "bands",
    "check_every": 4,
    "net": {"scale": 4, "channels": 8, "stages": 1, "expand": 1},
    "data": {"train": [["train/*.npz", 1.0]], "validation": ["validation/*.npz"]},
    "patches": {"srf": "nikon_d700", "psf_sigma": 1.5, "size": 32, "base": "gsa", "opinions": ["bicubic"]},
    "optimiser": {"steps": 4, "batch": 2, "warmup": 1},
}


def settings(**changes):
    """The tables of a tiny run, with changed settings."""
    raw = {key: dict(value) if isinstance(value, dict) else value for key, value in RAW.items()}
    for key, value in changes.items():
        raw[key] = {**raw[key], **value} if isinstance(value, dict) else value
    return raw


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"optimiser": {"precision": "bfloat16"}},
            '[optimiser] precision is "bfloat16", wanted one of "float32", "bf16"',
        ),
        ({"optimiser": {"name": "sgd"}}, '[optimiser] name is "sgd", wanted one of "adam", "adamw", "muon"'),
        ({"optimiser": {"steps": "100"}}, '[optimiser] steps is "100", wanted a whole number of at least 1'),
        ({"optimiser": {"learning_rate": 0}}, "[optimiser] learning_rate is 0, wanted a number above 0"),
        ({"optimiser": {"l1": float("nan")}}, "[optimiser] l1 is nan, wanted a number of at least 0"),
        (
            {"optimiser": {"betas": [0.9]}},
            "[optimiser] betas is [0.9], wanted a list of a number from 0 to 1, a number",
        ),
        ({"data": {"normalise": "max"}}, '[data] normalise is "max", wanted one of "none", "maximum"'),
        ({"data": {"train": ["a", "b"]}}, "wanted a list, each entry a list of text, a number above 0"),
        ({"data": {"train": []}}, "[data] train is empty"),
        ({"net": {"stages": -1}}, "[net] stages is -1, wanted a whole number of at least 1"),
        ({"net": {"stages": 1.5}}, "[net] stages is 1.5, wanted a whole number"),
        ({"net": {"channels": True}}, "[net] channels is true, wanted a whole number"),
        ({"patches": {"augment": 1}}, "[patches] augment is 1, wanted true or false"),
        ({"patches": {"psf_size": "3"}}, '[patches] psf_size is "3", wanted a whole number of at least 1'),
        ({"check_every": 0}, "check_every is 0, wanted a whole number of at least 1"),
        ({"name": 3}, "name is 3, wanted text"),
    ],
)
def test_values_of_the_wrong_kind_are_one_line_with_what_is_wanted(changes, said):
    with pytest.raises(SettingError, match=re.escape(said)) as caught:
        parse_config(settings(**changes))
    assert "\n" not in str(caught.value)


def test_what_is_no_table_is_told():
    with pytest.raises(SettingError, match=r"net is 3, wanted a table \[net\]"):
        parse_config({**settings(), "net": 3})


@pytest.mark.parametrize(
    "path", sorted(p for p in CONFIGS.glob("*.toml") if "net" in read_toml(p)), ids=lambda p: p.stem
)
def test_every_shipped_configuration_is_accepted(path):
    assert load_config(path).optimiser.name in ("adam", "adamw", "muon")


NM = np.linspace(400.0, 700.0, 20)
CPU = torch.device("cpu")


def cube(seed, side=48):
    """Mixtures of three smooth spectra: (20, side, side)."""
    rng = np.random.default_rng(seed)
    spectra = 0.4 + 0.3 * np.sin(NM / np.array([[40.0], [70.0], [110.0]]) + np.arange(3)[:, None])
    return np.tensordot(spectra.T, rng.dirichlet(np.ones(3), (side, side)), axes=(1, 2)).astype(np.float32)


def references(*seeds, side=48, nm=NM):
    return [Reference(f"scene{seed}", cube(seed, side), nm) for seed in seeds]


@pytest.fixture
def folder(tmp_path):
    return write_scenes(tmp_path, cube, NM, train=(1, 2), validation=(3,))


def run(folder, config, name="w", **options):
    return train(config, folder / f"{name}.safetensors", data=folder, device="cpu", **options)


def interrupting(monkeypatch, method, when, times=1):
    """Let the process get SIGINT inside a method of Trainer, once `when(trainer)` holds, so many times."""
    plain, left = getattr(Trainer, method), [times]

    def interrupted(self):
        while left[0] and when(self):
            left[0] -= 1
            signal.raise_signal(signal.SIGINT)
        return plain(self)

    monkeypatch.setattr(Trainer, method, interrupted)


def test_a_run_interrupted_inside_a_step_ends_with_the_weights_of_a_whole_one(folder, monkeypatch):
    config = parse_config(settings(net={"dropout": 0.2}, check_every=100))
    run(folder, config, "whole")
    with monkeypatch.context() as patch:
        interrupting(patch, "_average", lambda trainer: trainer.done == 1)  # weights moved, the step not counted yet
        with pytest.raises(KeyboardInterrupt):
            run(folder, config, "parts")
    assert torch.load(folder / "parts.state", weights_only=True)["done"] == 2
    assert load_checkpoint(folder / "parts.safetensors")[0].steps == 2
    run(folder, config, "parts", resume=True)
    (card, whole), (_, parts) = (load_checkpoint(folder / f"{name}.safetensors") for name in ("whole", "parts"))
    assert card.steps == 4
    assert all(torch.equal(whole[key], parts[key]) for key in whole)


def test_a_second_interruption_stops_at_once_and_leaves_what_was_saved(folder, monkeypatch):
    config = parse_config(settings(check_every=2))
    interrupting(monkeypatch, "_average", lambda trainer: trainer.done == 2, times=2)
    with pytest.raises(KeyboardInterrupt):
        run(folder, config)
    assert torch.load(folder / "w.state", weights_only=True)["done"] == 2
    assert load_checkpoint(folder / "w.safetensors")[0].steps == 2


def test_interruption_during_the_final_scores_stops_at_once(folder, monkeypatch):
    def interrupted(*arguments):
        signal.raise_signal(signal.SIGTERM)
        raise AssertionError("went on")

    monkeypatch.setattr(loop, "_final_scores", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(folder, parse_config(settings()))
    assert load_checkpoint(folder / "w.safetensors")[0].steps == 4


def test_handlers_of_signals_are_put_back(folder):
    before = signal.getsignal(signal.SIGTERM)
    with stoppable() as stop:
        assert signal.getsignal(signal.SIGTERM) is stop
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_card_keeps_its_scores_when_a_resumed_run_is_interrupted_before_its_first_check(folder, monkeypatch):
    run(folder, parse_config(settings(optimiser={"steps": 2})))
    scores = load_checkpoint(folder / "w.safetensors")[0].extra["scores"]
    interrupting(monkeypatch, "_average", lambda trainer: True)
    with pytest.raises(KeyboardInterrupt):
        run(folder, parse_config(settings(optimiser={"steps": 9})), resume=True)
    card, _ = load_checkpoint(folder / "w.safetensors")
    assert card.steps == 3
    assert card.extra["scores"] == scores
    assert scores["L1"] > 0


def test_states_of_earlier_versions_without_scores_can_be_resumed(folder):
    trainer = Trainer(parse_config(settings()), references(1), [], CPU)
    trainer.step()
    torch.save({key: value for key, value in trainer.state().items() if key != "best"}, folder / "w.state")
    again = Trainer(parse_config(settings()), references(1), [], CPU)
    again.restore(folder / "w.state")
    assert (again.done, again.best) == (1, {})


@pytest.mark.parametrize("content", [{"a": 1}, [1, 2], {"config": None}, b"no archive", Path("an object")])
def test_files_that_are_no_state_are_one_line(folder, content):
    path = folder / "foreign.state"
    path.write_bytes(content) if isinstance(content, bytes) else torch.save(content, path)
    trainer = Trainer(parse_config(settings()), references(1), [], CPU)
    with pytest.raises(ModelError, match="state of a") as caught:
        trainer.restore(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_state_without_its_optimiser_is_told(folder):
    trainer = Trainer(parse_config(settings()), references(1), [], CPU)
    torch.save({**trainer.state(), "optimiser": {}}, folder / "w.state")
    with pytest.raises(ModelError, match=r"not the state of a training run \(KeyError"):
        trainer.restore(folder / "w.state")


@pytest.mark.parametrize(
    ("patches", "least"),
    [
        ({"base": "bicubic"}, 32),
        ({}, 32),
        ({"augment": True, "phase": 0.0, "psf_size": 3}, 36),  # a mirrored window starts up to an LR pixel later
    ],
)
def test_references_smaller_than_a_patch_are_named_with_the_size_wanted(patches, least):
    channels = 20 if "base" in patches else 8
    config = parse_config(settings(patches=patches, net={"channels": channels}))
    with pytest.raises(InputError, match=f"scene2 has 28 x 28 pixels; .* at least {least} x {least}"):
        Trainer(config, [*references(1), *references(2, side=28)], [], CPU)
    trainer = Trainer(config, references(1, side=least), [], CPU)
    assert all(len(trainer.source.batch(number, 2)[0].base) for number in range(8))


def test_whole_scenes_to_validate_on_may_be_smaller_than_a_patch():
    trainer = Trainer(parse_config(settings()), references(1), references(2, side=28), CPU)
    assert trainer.validate()["gain"] == pytest.approx(0, abs=1e-4)


@pytest.mark.parametrize("base", ["bicubic", "gsa"])
def test_bands_of_the_response_that_references_do_not_cover_are_named(base):
    config = parse_config(settings(patches={"base": base, "srf": "sentinel2a"}))
    said = r"400 to 700 nm cover too little of B6 \(0%\), B7 .* of the response sentinel2a; give `srf`"
    with pytest.raises(SettingError, match=said):
        Trainer(config, references(1), [], CPU)


@pytest.mark.parametrize("base", ["bicubic", "gsa"])
@pytest.mark.parametrize("nm", [NM + 20, NM[:-1]])
def test_references_at_other_wavelengths_are_named(base, nm):
    config = parse_config(settings(patches={"base": base}))
    other = Reference("other", cube(2)[: nm.size], nm)
    for train_on, held in (([*references(1), other], []), (references(1), [other])):
        with pytest.raises(SettingError, match=f"other has {nm.size} bands .* and scene1 20 from 400 to 700 nm"):
            Trainer(config, train_on, held, CPU)


def test_a_cut_or_missing_file_of_the_cache_is_made_again(tmp_path):
    config = parse_config(settings())

    def estimate():
        return Trainer(config, references(1), [], CPU, tmp_path / "cache").source.batch(0, 1)[0].estimate

    first = estimate()
    files = sorted((tmp_path / "cache").iterdir())
    assert [path.suffix for path in files] == [".safetensors"] * 2
    whole = [path.read_bytes() for path in files]
    files[0].write_bytes(whole[0][:200])
    files[1].write_bytes(b"")
    assert torch.equal(estimate(), first)
    assert [path.read_bytes() for path in files] == whole


def test_an_estimate_whose_writing_fails_leaves_no_file(tmp_path, monkeypatch):
    def full(tensors, file):
        file.write_bytes(b"half")
        raise OSError("no space left on device")

    monkeypatch.setattr(kept, "save_file", full)
    with pytest.raises(OSError, match="no space"):
        kept.kept(tmp_path / "a.safetensors", lambda: {"fused": torch.zeros(2)})
    assert not (tmp_path / "a.safetensors").exists()


def test_estimates_are_told_apart_by_version_and_settings(monkeypatch):
    source = Trainer(parse_config(settings()), references(1), [], CPU).source
    pair = source.model(torch.from_numpy(cube(1))[None])
    keys = [kept.digest(f, *pair, source.model) for f in (CNMF(), CNMF(), CNMF(endmembers=20), make_method("blend"))]
    keys.append(kept.digest(make_method("blend"), *pair, source.model))
    assert keys[0] == keys[1]
    assert keys[3] == keys[4]
    assert len(set(keys)) == 3
    monkeypatch.setattr(kept, "__version__", "0")
    assert kept.digest(CNMF(), *pair, source.model) != keys[0]

"""Training: draws are what they claim, losses fall, runs continue bit for bit, sides share no pixel."""

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from training_scenes import share_cache, write_scenes

from hsfuse.core.errors import InputError, ModelError, OutputError, SettingError
from hsfuse.methods.conditioning import SceneRegression, aligned
from hsfuse.methods.frame import fit_frame
from hsfuse.methods.regression import EnsembleGLP
from hsfuse.nets.srlf import SRLFNet
from hsfuse.nets.weights import load_checkpoint
from hsfuse.physics.model import ObservationModel, gaussian_psf
from hsfuse.physics.sample import PairSample
from hsfuse.training import train
from hsfuse.training.augment import random_srf, spectral_variant
from hsfuse.training.config import load_config, parse_config
from hsfuse.training.references import check_disjoint, load_references
from hsfuse.training.sample import Reference
from hsfuse.training.trainer import Trainer, learning_rate

CPU = torch.device("cpu")
NM = np.linspace(400.0, 1000.0, 26)


def cube(seed, side=32):
    """A scene of four materials in blocks, each with its own brightness texture: (26, side, side)."""
    rng = np.random.default_rng(seed)
    spectra = (
        0.2 + 0.6 * rng.random((4, 1)) + 0.2 * np.sin(NM / rng.uniform(60, 200, (4, 1)) + rng.uniform(0, 6, (4, 1)))
    )
    kinds = rng.integers(0, 4, (side // 4, side // 4)).repeat(4, 0).repeat(4, 1)
    return (spectra[kinds].transpose(2, 0, 1) * rng.uniform(0.5, 1.0, (side, side))).clip(0.01).astype(np.float32)


def references(*seeds):
    return [Reference(f"scene{seed}", cube(seed), NM) for seed in seeds]


def settings(**changes):
    raw = {
        "name": "tiny",
        "check_every": 4,
        "net": {"scale": 2, "channels": 16, "stages": 1, "expand": 1, "dropout": 0.2},
        "data": {"train": [["train/*.npz", 1.0]], "validation": ["validation/*.npz"], "terms": "ours"},
        "draws": {"size": 32, "window": 16, "bands": 12, "pool": 3},
        "optimiser": {"steps": 8, "batch": 2, "warmup": 2},
    }
    for table, values in changes.items():
        raw[table] = {**raw[table], **values} if isinstance(values, dict) else values
    return raw


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """Fused draws, which are the same in all tests with the same settings of them."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def folder(tmp_path, cache):
    return scenes(tmp_path, cache)


def scenes(folder, cache):
    share_cache(folder, cache, "w", "parts")
    return write_scenes(folder, cube, NM, train=(1, 2), validation=(3,))


@pytest.fixture(scope="module")
def trained(tmp_path_factory, cache):
    """The weights of one run, beside its scenes and all else that it leaves; not to be changed."""
    folder = scenes(tmp_path_factory.mktemp("trained"), cache)
    train(parse_config(settings()), folder / "w.safetensors", data=folder, device="cpu")
    return folder / "w.safetensors"


def test_the_base_itself_has_gain_zero_and_relative_angle_one(cache):
    trainer = Trainer(parse_config(settings()), references(1, 2), [], CPU, cache)
    for sample in trainer.source.batch(0, 4):
        terms = sample.losses(sample.base)
        assert float(terms["gain"]) == pytest.approx(0, abs=1e-4)
        assert float(terms["angle"]) == pytest.approx(1, abs=1e-4)


def test_a_network_starts_from_what_the_scene_teaches(monkeypatch):
    """Drawn with a scene regression, be it a bad one: an untrained network gives what is known, which has gain zero."""

    def taught(frame, scene):
        bands = scene.msi.shape[1]
        weights = torch.randn(6 * 16 + 9 * bands, 16, generator=torch.Generator().manual_seed(0)) / 10
        return SceneRegression(
            torch.ones(bands), torch.ones(len(weights)), weights, weights.expand(4, -1, -1), 4
        ), "used"

    monkeypatch.setattr("hsfuse.methods.conditioning.fit_scene_regression", taught)
    trainer = Trainer(parse_config(settings()), references(1, 2), [], CPU)
    (sample,) = trainer.source.batch(0, 1)
    assert sample.observation.known.abs().max() > 0.01
    assert float(sample.losses(sample.base)["gain"]) < -0.05
    trainer.net.eval()
    with torch.no_grad():
        terms = sample.losses(trainer.net(sample.base, sample.observation, sample.step))
    assert float(terms["gain"]) == pytest.approx(0, abs=1e-4)
    assert float(terms["angle"]) == pytest.approx(1, abs=1e-4)


def test_the_truth_has_no_more_error_than_what_lies_outside_the_subspace(cache):
    trainer = Trainer(parse_config(settings()), references(1, 2), [], CPU, cache)
    for sample in trainer.source.batch(0, 4):
        assert torch.allclose(sample.band_errors(sample.target), (sample.outside**2).mean((0, 2, 3)), atol=1e-9)


def test_a_draw_depends_on_its_number_and_the_seed_alone():
    config = parse_config(settings())
    first, again = (Trainer(config, references(1, 2), [], CPU).source for _ in range(2))
    other, one = first.draw(0), first.draw(5)
    assert torch.equal(one.base, again.draw(5).base)  # exactly: the same arithmetic twice
    assert not torch.equal(one.target, other.target)


@pytest.mark.parametrize("seed", range(12))
def test_a_random_sensor_and_variant_belong_together(seed):
    rng = np.random.default_rng(seed)
    part, nm = spectral_variant(cube(1), NM, rng)
    response = random_srf(nm, rng)
    assert part.shape == (nm.size, 32, 32)
    assert part.dtype == np.float32
    assert 3 <= len(response) <= 12
    assert response.min() >= 0
    assert np.allclose(response.sum(1), 1)


def test_the_guide_says_how_noisy_a_scene_is():
    raw = settings(draws={"noise_free": 1.0, "grainy": 0.0})
    clean = Trainer(parse_config(raw), references(1, 2), [], CPU).source
    raw["draws"].update(noise_free=0.0, snr_db=[20.0, 25.0])
    noisy = Trainer(parse_config(raw), references(1, 2), [], CPU).source
    share = [np.mean([float(s.draw(n).observation.guide[0, -2, 0, 0]) for n in range(3)]) for s in (clean, noisy)]
    assert share[0] < 0.4 < 0.6 < share[1]


def test_aligned_axes_leave_the_fusion_as_it_is_and_order_its_error():
    truth = torch.from_numpy(cube(4))[None]
    response = np.zeros((3, 26))
    response[[0, 1, 2], [3, 9, 15]] = 1
    model = ObservationModel(response, gaussian_psf(1.0, 2), 2)
    lrhsi, msi = model.spatial(truth), model.spectral(truth)
    scene = PairSample(lrhsi, msi, torch.ones(1, *lrhsi.shape[2:], dtype=torch.bool))
    base = EnsembleGLP(6).fit(scene, model)
    turned = aligned(base, scene)
    assert torch.allclose(base.predict(lrhsi, msi), turned.predict(lrhsi, msi), atol=1e-5)
    identity = turned.subspace.basis.T @ turned.subspace.basis
    assert torch.allclose(identity, torch.eye(6), atol=1e-5)
    frame = fit_frame(scene, turned)
    error = frame.step * frame.unit
    assert (error[:-1] >= error[1:] * 0.999).all()


@pytest.mark.parametrize(
    ("seen", "pool", "steps", "gain"),
    [((1, 2), 4, 12, 0.0), pytest.param((1, 2, 5, 6), 16, 60, -0.005, marks=pytest.mark.slow)],
    ids=["short", "longer"],
)
def test_training_gets_better_than_the_base_on_a_scene_it_has_not_seen(seen, pool, steps, gain):
    raw = settings(
        optimiser={"steps": steps, "batch": 2, "warmup": 5, "learning_rate": 4e-3},
        net={"dropout": 0.0},
        draws={"pool": pool, "noise_free": 0.0},
    )
    trainer = Trainer(parse_config(raw), references(*seen), references(3), CPU)
    assert trainer.validate()["gain"] == pytest.approx(0, abs=1e-4)
    for _ in range(steps):
        trainer.step()
    assert trainer.validate()["gain"] < gain


def test_a_resumed_run_ends_with_the_weights_of_an_uninterrupted_one(folder, trained):
    config = parse_config(settings())
    path = folder / "parts.safetensors"
    trainer = Trainer(config, *load_references(config, folder), CPU, folder / "parts.cache")
    for _ in range(5):
        trainer.step()
    torch.save(trainer.state(), path.with_suffix(".state"))
    train(config, path, data=folder, device="cpu", resume=True)
    (card, whole), (_, parts) = load_checkpoint(trained), load_checkpoint(path)
    assert card.steps == 8
    assert all(torch.equal(whole[key], parts[key]) for key in whole)  # exactly: the same steps on the same machine


def test_the_card_says_what_the_weights_are(trained):
    card, tensors = load_checkpoint(trained)
    SRLFNet(card.config).load_state_dict(tensors)
    assert (card.name, card.kind, card.base, card.scale, card.terms) == ("tiny", "any-sensor", "blend", 2, "ours")
    assert card.trained_on == "train/s1.npz, train/s2.npz"
    assert set(card.extra["scores"]) == {"PSNR gain over the base, dB", "SAM relative to the base", "L1"}
    assert trained.with_suffix(".csv").read_text().count("\n") == 3  # a header and the checks at steps 4 and 8


def test_weights_of_another_ratio_are_a_start(trained):
    other = settings(net={"scale": 4}, start=str(trained))
    trainer = Trainer(parse_config(other), references(1), [], CPU)
    _, theirs = load_checkpoint(trained)
    own = trainer.net.state_dict()
    assert torch.equal(own["refine.weight"], theirs["refine.weight"])  # copied
    differ = [key for key in own if own[key].shape != theirs[key].shape]
    assert differ
    assert all("down" in key or "up" in key for key in differ)


def test_resuming_needs_the_state_of_the_same_run(folder, trained):
    config = parse_config(settings())
    with pytest.raises(ModelError, match="nothing to resume"):
        train(config, folder / "w.safetensors", data=folder, resume=True, device="cpu")
    with pytest.raises(ModelError, match="other settings"):
        train(replace(config, seed=1), trained, data=folder, resume=True, device="cpu")
    with pytest.raises(OutputError, match="--overwrite"):
        train(config, trained, data=folder, device="cpu")


def test_the_published_protocol_learns_through_the_same_loop(folder):
    raw = settings(optimiser={"steps": 40, "batch": 4, "gain": 0.0, "l1": 1.0, "angle": 0.0})
    raw.pop("draws")
    raw["kind"], raw["net"] = "bands", {"scale": 2, "channels": 26, "stages": 1, "expand": 1}
    raw["patches"] = {"srf": "ikonos", "psf_sigma": 1.0, "psf_size": 3, "phase": 0.0, "size": 16, "stride": 8}
    raw["optimiser"]["learning_rate"] = 4e-3
    trainer = Trainer(parse_config(raw), references(1, 2), references(3), CPU)
    before = trainer.validate()["l1"]
    for _ in range(40):
        trainer.step()
    assert trainer.validate()["l1"] < 0.9 * before
    assert trainer.card({}).phase == "0"


def test_every_patch_is_seen_once_an_epoch():
    raw = settings()
    raw.pop("draws")
    raw["kind"], raw["net"] = "bands", {"scale": 2, "channels": 26, "stages": 1}
    raw["patches"] = {"srf": "ikonos", "psf_sigma": 1.0, "size": 16, "stride": 16}
    source = Trainer(parse_config(raw), references(1, 2), [], CPU).source
    seen = torch.cat([source.batch(n, 2)[0].target for n in range(4)])
    whole = torch.stack(
        [
            torch.from_numpy(r.data[:, y : y + 16, x : x + 16])
            for r in references(1, 2)
            for y in (0, 16)
            for x in (0, 16)
        ]
    )
    key = [float(t.double().sum()) for t in seen]
    assert sorted(key) == pytest.approx(sorted(float(t.double().sum()) for t in whole))


def test_training_and_validation_may_not_share_pixels():
    whole, part = references(1)[0], cube(1)[:, 8:20, 4:16]
    with pytest.raises(InputError, match="share 144 pixels"):
        check_disjoint([whole], [Reference("crop", part, NM)])
    check_disjoint([whole], references(2))


def test_a_pattern_that_finds_nothing_is_told(folder):
    with pytest.raises(InputError, match="nothing is called"):
        load_references(parse_config(settings(data={"train": [["absent/*.npz", 1.0]]})), folder)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"net": {"scal": 3}}, r"\[net\] has no setting scal"),
        ({"kind": "magic"}, "kind 'magic' is unknown"),
        ({"extra": {}}, "unknown entries extra"),
        ({"draws": {"psf_sigma": [0.6, 0.35]}}, r"\[draws\] psf_sigma is \[0.6, 0.35\], wanted \[0.35, 0.6\]"),
        ({"draws": {"level": [0, 1.0]}}, r"\[draws\] level is \[0, 1.0\], wanted a list of a number above 0"),
        ({"draws": {"noise_free": 7}}, r"\[draws\] noise_free is 7, wanted a number from 0 to 1"),
        ({"net": {"dropout": 1.0}}, r"\[net\] dropout is 1.0, wanted a number between 0 and 1"),
    ],
)
def test_settings_that_do_not_fit_are_named(changes, said):
    raw = settings()
    for key, value in changes.items():
        raw[key] = {**raw.get(key, {}), **value} if isinstance(value, dict) else value
    with pytest.raises(SettingError, match=said):
        parse_config(raw)


def test_the_learning_rate_warms_up_and_falls_to_its_end():
    config = parse_config(
        settings(optimiser={"steps": 100, "warmup": 10, "learning_rate": 1.0, "final_learning_rate": 0.1})
    )
    rates = [learning_rate(config, step) for step in range(101)]
    assert rates[0] == pytest.approx(0.1)
    assert rates[10] == pytest.approx(1.0)
    assert rates[100] == pytest.approx(0.1)
    assert all(a >= b for a, b in pairwise(rates[10:]))


CONFIGS = Path(__file__).parents[2] / "examples/configs"


@pytest.mark.parametrize(
    "path", [*sorted(CONFIGS.glob("any-sensor*.toml")), *sorted(CONFIGS.glob("cave*.toml"))], ids=lambda p: p.stem
)
def test_the_shipped_configurations_can_be_read(path):
    config = load_config(path)
    assert config.net.scale == int(config.name[-1])
    assert config.data.terms

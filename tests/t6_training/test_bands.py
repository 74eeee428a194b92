"""Weights for one pair of sensors: what is corrected is what neither sensor sees, and nothing else."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from pretend_gpu import pretend_gpu
from training_scenes import write_scenes

from hsfuse.core.errors import ModelError, SettingError
from hsfuse.methods.srlf_bands import (
    FRAME,
    Banded,
    BandView,
    ExactFit,
    brightness,
    correction,
    look,
    measure_frame,
    most_possible,
    turned,
    unturned,
    usual_error,
)
from hsfuse.metrics import ergas, psnr, sam_degrees, ssim, uiqi
from hsfuse.nets.srlf import Observation
from hsfuse.nets.weights import load_checkpoint, save_checkpoint
from hsfuse.physics.model import ObservationModel, Psf, gaussian_psf
from hsfuse.physics.sample import PairSample
from hsfuse.training import train
from hsfuse.training.augment import spectral_change
from hsfuse.training.config import parse_config
from hsfuse.training.loop import LABEL
from hsfuse.training.optimiser import MatrixOptimiser
from hsfuse.training.sample import Reference
from hsfuse.training.trainer import Trainer

CPU = torch.device("cpu")
NM = np.linspace(400.0, 700.0, 20)
SCALE = 4


def materials():
    """Six smooth spectra that all scenes are made of: (6, 20)."""
    rng = np.random.default_rng(0)
    waves = np.sin(NM / rng.uniform(15, 60, (6, 1)) + rng.uniform(0, 6, (6, 1)))
    return 0.3 + 0.3 * rng.random((6, 1)) + 0.25 * waves


def cube(seed, side=64):
    """The materials in blocks, each pixel with its own brightness: (20, side, side)."""
    rng = np.random.default_rng(seed)
    kinds = rng.integers(0, 6, (side // 4, side // 4)).repeat(4, 0).repeat(4, 1)
    return (materials()[kinds].transpose(2, 0, 1) * rng.uniform(0.4, 1.0, (side, side))).clip(0.01).astype(np.float32)


def sensors(phase=0.0):
    """Three broad bands, and a PSF narrower than the ratio."""
    response = np.exp(-((NM - np.array([[480.0], [560.0], [660.0]])) ** 2) / (2 * 40.0**2))
    size = 3 if phase == 0 else 4
    return ObservationModel(
        response / response.sum(1, keepdims=True), gaussian_psf(1.5, SCALE, phase, size), SCALE, phase
    )


def scene(seed, phase=0.0):
    truth, model = torch.from_numpy(cube(seed))[None], sensors(phase)
    return truth, *model(truth), model


def settings(**changes):
    raw = {
        "name": "tiny",
        "kind": "bands",
        "check_every": 4,
        "net": {"scale": SCALE, "channels": 8, "stages": 1, "expand": 1, "dropout": 0.1},
        "data": {"train": [["train/*.npz", 1.0]], "validation": ["validation/*.npz"], "terms": "ours"},
        "patches": {"srf": "nikon_d700", "psf_sigma": 1.5, "psf_size": 3, "phase": 0.0, "size": 32, "augment": True},
        "optimiser": {"steps": 8, "batch": 2, "warmup": 2, "name": "muon", "gain": 0.0, "l1": 1.0, "angle": 0.1},
    }
    raw["patches"].update(base="glp-reg", opinions=["guided", "bicubic"], tries=2)
    for table, values in changes.items():
        raw[table] = {**raw[table], **values}
    return parse_config(raw)


def references(*seeds):
    return [Reference(f"scene{seed}", cube(seed), NM) for seed in seeds]


@pytest.fixture
def folder(tmp_path):
    return write_scenes(tmp_path, cube, NM, train=(1, 2), validation=(3,))


@pytest.mark.parametrize("phase", [0.0, 1.5])
def test_an_exact_fit_gives_both_inputs_and_moves_as_little_as_that_takes(phase):
    truth, lrhsi, msi, model = scene(1, phase)
    start = truth + 0.1 * torch.randn(truth.shape, generator=torch.Generator().manual_seed(0))
    fit = ExactFit(model)
    fitted = fit(start, lrhsi, msi)
    assert torch.allclose(model.spatial(fitted), lrhsi, atol=1e-5)
    assert torch.allclose(model.spectral(fitted), msi, atol=1e-5)
    assert torch.allclose(fit(fitted, lrhsi, msi), fitted, atol=1e-5)
    moved, left = (fitted - start).double(), (truth - fitted).double()
    assert abs(float((moved * left).sum())) < 1e-4 * float(moved.norm() * left.norm())


def test_the_smallest_image_is_found_on_either_device_with_matrices_copied_once():
    _, lrhsi, _, model = scene(1)
    fit = ExactFit(model)
    wanted = fit.lift(lrhsi)
    with pretend_gpu() as device:
        there = lrhsi.to(device)
        torch.testing.assert_close(fit.lift(there).cpu(), wanted)
        matrix = fit._lift(0, lrhsi.shape[2], there)
        assert matrix.device == device
        assert matrix is fit._lift(0, lrhsi.shape[2], there)
    assert torch.equal(fit.lift(lrhsi), wanted)  # the same call twice


def test_what_is_brought_between_0_and_1_still_gives_both_inputs_and_is_nearer_to_the_truth():
    truth, lrhsi, msi, model = scene(1)
    truth = (3 * truth - 1).clamp(0, 1)
    lrhsi, msi = model(truth)
    fit = ExactFit(model)
    start = fit(truth + 0.1 * torch.randn(truth.shape, generator=torch.Generator().manual_seed(0)), lrhsi, msi)
    inside = fit.between(start, lrhsi, msi, most_possible(lrhsi, msi), rounds=20)
    assert torch.allclose(model.spatial(inside), lrhsi, atol=1e-5)
    assert torch.allclose(model.spectral(inside), msi, atol=1e-5)
    outside = [float((image - image.clamp(0, 1)).square().mean()) for image in (start, inside)]
    assert outside[1] < 1e-3 * outside[0]
    assert float((inside - truth).norm()) < 0.9 * float((start - truth).norm())


def test_values_have_no_upper_limit_where_the_inputs_are_no_reflectances():
    _, lrhsi, msi, _ = scene(1)
    assert most_possible(lrhsi, msi) == 1
    assert most_possible(1000 * lrhsi, 1000 * msi) == float("inf")


def test_a_psf_that_is_not_separable_is_refused():
    kernel = np.eye(3) + 0.1
    model = ObservationModel(np.ones((1, 20)) / 20, Psf(kernel), SCALE, 0.0)
    with pytest.raises(ModelError, match="separable"):
        ExactFit(model)


def measured(*seeds):
    parts = []
    for seed in seeds:
        truth, lrhsi, msi, model = scene(seed)
        parts.append((truth, ExactFit(model)(model.upsample(lrhsi), lrhsi, msi), msi))
    return measure_frame(parts, model, 8), parts, model


def test_the_frame_has_the_axes_of_the_error_that_the_msi_does_not_see():
    frame, parts, model = measured(1, 2)
    assert torch.allclose(frame.axes.T @ frame.axes, torch.eye(8), atol=1e-5)
    assert (model.srf @ frame.axes[:, 3:]).abs().max() < 1e-6
    assert (frame.step == 0).tolist() == [True] * 3 + [False] * 5
    assert frame.step[3] == frame.step.max()
    errors = [truth - estimate for truth, estimate, _ in parts]
    kept = [float((frame.project(e) ** 2).sum() / (e**2).sum()) for e in errors]
    assert min(kept) > 0.98
    scaled = torch.cat(
        [
            frame.project(e) / usual_error(msi, model.upsample(model.spatial(msi)))
            for e, (*_, msi) in zip(errors, parts, strict=True)
        ]
    )
    assert torch.allclose(scaled.square().mean((0, 2, 3)).sqrt()[3:], frame.step[3:], rtol=0.1)


def test_neither_sensor_sees_a_correction():
    frame, parts, model = measured(1, 2)
    output = torch.randn(1, 8, 64, 64, generator=torch.Generator().manual_seed(0))
    msi = parts[0][2]
    usual = usual_error(msi, model.upsample(model.spatial(msi)))
    added = correction(frame, output, usual, ExactFit(model))
    assert added.abs().max() > 1e-3
    assert model.spatial(added).abs().max() < 1e-6
    assert model.spectral(added).abs().max() < 1e-6


@pytest.mark.parametrize("phase", [0.0, 1.5])
@pytest.mark.parametrize("turn", range(8))
def test_turned_images_have_their_lr_pixels_at_the_phase(turn, phase):
    truth, lrhsi, msi, model = scene(1, phase)
    view = BandView(truth, Observation(lrhsi, msi, truth, model, torch.ones(20)), truth[:, :1])
    seen = turned(view, turn)
    inner = (..., slice(1, -1), slice(1, -1))
    assert torch.allclose(model.spatial(seen.base)[inner], seen.obs.x[inner], atol=1e-5)
    assert torch.allclose(model.spectral(seen.base), seen.obs.y, atol=1e-5)
    assert torch.equal(unturned(seen.base, turn, model), truth)  # pixels change places only: exact


def test_windows_in_all_symmetries_have_their_lr_pixels_at_the_phase():
    source = Trainer(settings(), references(1, 2), [], CPU).source
    for number in range(6):
        (sample,) = source.batch(number, 2)
        msi, model, frame = sample.observation.y, source.model, source.frame
        low = frame.project(model.spatial(sample.truth))
        x = (low / (frame.unit[:, None, None] * brightness(model.spatial(msi)))).asinh()
        assert torch.allclose(x[..., 1:, 1:], sample.observation.x[..., 1:, 1:], atol=1e-4)


def test_a_change_of_spectra_is_mild_and_another_each_time():
    rng = np.random.default_rng(0)
    changes = [spectral_change(NM, rng) for _ in range(20)]
    changed = np.stack([change @ materials().T for change in changes])
    assert changed.min() > 0
    relative = np.linalg.norm(changed - materials().T, axis=(1, 2)) / np.linalg.norm(materials())
    assert 0.05 < np.median(relative) < 0.5
    assert np.linalg.norm(changed[0] - changed[1]) > 0


def test_windows_of_changed_spectra_are_as_a_scene_of_such_spectra_would_be():
    varied = Trainer(settings(patches={"vary": 1.0}), references(1, 2), [], CPU).source
    plain = Trainer(settings(), references(1, 2), [], CPU).source
    (sample,), (same,) = (source.batch(0, 2) for source in (varied, plain))
    assert not torch.allclose(sample.truth, same.truth, atol=0.01)
    assert torch.allclose(varied.model.spectral(sample.truth), sample.observation.y, atol=1e-5)
    assert torch.allclose(varied.model.spectral(sample.estimate), sample.observation.y, atol=1e-5)
    inner = (..., slice(1, None), slice(1, None))
    low, low_estimate = (varied.model.spatial(image)[inner] for image in (sample.truth, sample.estimate))
    assert torch.allclose(low, low_estimate, atol=1e-4)
    seen = varied.frame.project(low) / varied.frame.unit[:, None, None]
    bright = brightness(varied.model.spectral(low))
    assert torch.allclose((seen / bright).asinh(), sample.observation.x[inner], atol=1e-4)


def test_errors_are_relative_to_those_of_the_changed_scene():
    varied = Trainer(settings(patches={"vary": 1.0, "size": 64, "augment": False}), references(1), [], CPU).source
    (sample,) = varied.batch(0, 1)
    rms = (sample.estimate - sample.truth).square().mean((2, 3), keepdim=True).sqrt()
    assert torch.allclose(rms * sample.weight, torch.ones_like(rms), rtol=0.02)


def test_a_batch_depends_on_its_number_and_the_seed_alone():
    first, again = (Trainer(settings(), references(1, 2), [], CPU).source for _ in range(2))
    first.batch(0, 2)
    assert torch.equal(first.batch(3, 2)[0].truth, again.batch(3, 2)[0].truth)
    assert not torch.equal(first.batch(3, 2)[0].truth, first.batch(4, 2)[0].truth)


def test_the_estimate_itself_has_gain_zero_and_the_truth_no_error():
    (sample,) = Trainer(settings(), references(1, 2), [], CPU).source.batch(0, 2)
    assert float(sample.losses(sample.base)["gain"]) == pytest.approx(0, abs=1e-5)
    perfect = sample.__class__(**{**vars(sample), "estimate": sample.truth})
    assert float(perfect.losses(sample.base)["l1"]) == pytest.approx(0, abs=1e-6)


def test_training_gets_better_than_the_estimate_on_a_scene_it_has_not_seen():
    config = settings(optimiser={"steps": 40, "learning_rate": 4e-3}, net={"dropout": 0.0})
    trainer = Trainer(config, references(1, 2, 4, 5), references(3), CPU)
    assert trainer.validate()["gain"] == pytest.approx(0, abs=1e-4)
    for _ in range(40):
        trainer.step()
    assert trainer.validate()["gain"] < -0.1


def test_estimates_are_kept_and_found_again(folder):
    config = settings()
    trainers = [Trainer(config, references(1), [], CPU, folder / "cache") for _ in range(2)]
    assert len(list((folder / "cache").iterdir())) == 3
    assert torch.equal(trainers[0].source.batch(0, 1)[0].estimate, trainers[1].source.batch(0, 1)[0].estimate)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = write_scenes(tmp_path_factory.mktemp("trained"), cube, NM, train=(1, 2), validation=(3,))
    train(settings(), folder / "w.safetensors", data=folder, device="cpu")
    return folder / "w.safetensors"


@pytest.fixture
def weights(folder, trained):
    """A copy, beside its scenes, that a test may change."""
    return shutil.copy(trained, folder / "w.safetensors")


def fitted(weights, model, seed=3, **options):
    truth = torch.from_numpy(cube(seed))[None]
    lrhsi, msi = model(truth)
    whole = PairSample(lrhsi, msi, torch.ones(1, *lrhsi.shape[2:], dtype=torch.bool))
    return Banded(weights, **options).fit(whole, model), lrhsi, msi


def test_the_method_gives_both_inputs_and_says_what_it_did(weights):
    model = Trainer(settings(), references(1), [], CPU).source.model
    method, lrhsi, msi = fitted(weights, model)
    fused = method.predict(lrhsi, msi)
    assert fused.shape == (1, 20, 64, 64)
    assert torch.allclose(model.spatial(fused), lrhsi, atol=1e-5)
    assert torch.allclose(model.spectral(fused), msi, atol=1e-5)
    said = method.describe()
    assert (said["base"], said["weights"]) == ("glp-reg", "tiny (8 steps)")


def test_the_method_gives_what_training_validated(weights):
    trainer = Trainer(settings(), references(1, 2), references(3), CPU)
    (sample,) = trainer.held
    method, lrhsi, msi = fitted(weights, trainer.source.model, turns=1, rounds=0)
    card, tensors = load_checkpoint(weights)
    fused = method.predict(lrhsi, msi)
    gain = ((fused - sample.truth) ** 2).mean((0, 2, 3)) / ((sample.estimate - sample.truth) ** 2).mean((0, 2, 3))
    score = card.extra["scores"]["PSNR gain over the base, dB"]
    assert float(-10 * gain.log10().mean()) == pytest.approx(score, abs=2e-3)
    assert tensors[f"{FRAME}psf"].shape == (3, 3)


def test_the_card_has_the_scores_that_assess_would_give(weights):
    card, _ = load_checkpoint(weights)
    scores = card.extra["scores"][LABEL]["validation/s3.npz"]
    model = Trainer(settings(), references(1), [], CPU).source.model
    method, lrhsi, msi = fitted(weights, model)
    base = method.exact(method.base.predict(lrhsi, msi), lrhsi, msi)
    for image, told in ((base, scores["base"]), (method.predict(lrhsi, msi), scores["weights"])):
        fused, truth = image[0].clamp_min(0).numpy(), cube(3)
        measured = [psnr(fused, truth), sam_degrees(fused, truth), ergas(fused, truth, SCALE)]
        assert told[:3] == pytest.approx(measured, abs=0.01)
        assert told[3:] == pytest.approx([uiqi(fused, truth), ssim(fused, truth)], abs=1e-3)


def test_weights_without_a_correction_leave_the_exact_base(weights):
    card, tensors = load_checkpoint(weights)
    save_checkpoint(weights, card, {**tensors, "refine.weight": torch.zeros_like(tensors["refine.weight"])})
    model = Trainer(settings(), references(1), [], CPU).source.model
    method, lrhsi, msi = fitted(weights, model, rounds=0)
    base = method.exact(method.base.predict(lrhsi, msi), lrhsi, msi)
    assert torch.allclose(method.predict(lrhsi, msi), base, atol=1e-6)


def test_weights_for_other_sensors_are_refused_with_a_table(weights):
    model = Trainer(settings(), references(1), [], CPU).source.model
    wider = ObservationModel(model.srf, gaussian_psf(3.0, SCALE, 0.0, 7), SCALE, 0.0)
    with pytest.raises(ModelError, match=r"PSF +3 taps, sd 0.78 +7 taps, sd 1.84 +differs") as said:
        fitted(weights, wider)
    assert "ratio                     4" in str(said.value)
    assert str(said.value).count("differs") == 1
    shifted = ObservationModel(model.srf.roll(1, 1), model.psf, SCALE, 0.0)
    with pytest.raises(ModelError, match="response"):
        fitted(weights, shifted)


def test_weights_of_another_kind_are_refused(weights):
    card, tensors = load_checkpoint(weights)
    save_checkpoint(weights, card, {k: v for k, v in tensors.items() if not k.startswith(FRAME)})
    with pytest.raises(ModelError, match="wanted weights for one pair of sensors"):
        fitted(weights, sensors())


def test_a_run_can_be_made_longer(folder):
    path = folder / "w.safetensors"
    train(settings(), path, data=folder, device="cpu")
    card = train(settings(optimiser={"steps": 12}), path, data=folder, device="cpu", resume=True)
    assert card.steps == 12


def test_a_run_can_keep_a_share_of_what_it_started_from(weights):
    config = replace(settings(optimiser={"keep_start": 0.25}), start=str(weights))
    trainer = Trainer(config, references(1, 2), [], CPU)
    first = load_checkpoint(weights)[1]
    for _ in range(4):
        trainer.step()
    for key, value in trainer.averaged.items():
        assert torch.allclose(trainer.tensors()[key], 0.75 * value + 0.25 * first[key], atol=1e-6)
    assert any(not torch.allclose(value, first[key], atol=1e-3) for key, value in trainer.averaged.items())


def test_matrices_convolutions_and_stacks_find_the_minimum_of_a_quadratic():
    torch.manual_seed(0)
    shapes = [(6, 4), (5, 4, 3, 3), (2, 4, 3), (4,)]
    goals = [torch.randn(shape) for shape in shapes]
    *matrices, vector = parameters = [torch.nn.Parameter(torch.zeros(shape)) for shape in shapes]
    optimiser = MatrixOptimiser(matrices, [{"params": [vector]}], 0.0, 0.2, (0.9, 0.98))
    for step in range(200):
        for group in optimiser.param_groups:
            group["lr"] = 0.2 * (1 - step / 200)
        optimiser.zero_grad()
        sum((p - goal).square().sum() for p, goal in zip(parameters, goals, strict=True)).backward()
        optimiser.step()
    for p, goal in zip(parameters, goals, strict=True):
        assert torch.allclose(p, goal, atol=0.05)


def test_a_torch_without_muon_is_told(monkeypatch):
    monkeypatch.delattr(torch.optim, "Muon")
    with pytest.raises(SettingError, match=r"muon needs torch 2\.9 or later, this is"):
        MatrixOptimiser([], [], 0.0, 0.2, (0.9, 0.98))


def test_the_view_is_finite_in_the_dark():
    frame, parts, model = measured(1, 2)
    dark = torch.zeros_like(parts[0][0])
    view = look(frame, dark, [dark], *model(dark), model)
    assert all(torch.isfinite(t).all() for t in (view.base, view.obs.guide, view.obs.x, view.usual))

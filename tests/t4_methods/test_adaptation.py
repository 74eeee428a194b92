"""Fitting to a scene: what judges is not trained on, what isn't borne out isn't used, and seeds repeat."""

from dataclasses import replace

import pytest
import torch
from scenes import memory_scene

from hsfuse.core.errors import SettingError
from hsfuse.core.options import FuseOptions, Pace
from hsfuse.methods import make_method
from hsfuse.methods.adapt import Adaptation, Judge, Rehearsal, held_out_cells
from hsfuse.methods.frame import fit_frame, make_frame, radiometric_match, reduced_images
from hsfuse.methods.regression import BicubicSubspace, EnsembleGLP
from hsfuse.methods.srlf import SRLF
from hsfuse.nets.srlf import SRLFConfig, SRLFNet
from hsfuse.physics.model import ObservationModel, gaussian_psf
from hsfuse.physics.sample import PairSample

K = 16


@pytest.fixture(scope="module")
def tiny():
    """18 x 18 LR pixels at ratio 3: nine cells, of which two judge."""
    return memory_scene((18, 18))


FAST = FuseOptions(
    base="glp-reg", adapt_steps=6, adapt_minutes=60, consistency="off", ensemble=2, pace=Pace(check_every=3)
)


def settings(steps=6, minutes=60, pace=None, **changes):
    return replace(FAST, adapt_steps=steps, adapt_minutes=minutes, pace=replace(FAST.pace, **(pace or {})), **changes)


def small_fuser(options=FAST):
    """One stage, so that a step takes milliseconds; the base's subspace has 16 dimensions."""
    return SRLF(options, None, SRLFConfig(K, K, 3, stages=1, dropout=0.1, expand=1))


def rehearsal(scene, mask=None, base="glp-reg"):
    training = scene.training if mask is None else PairSample(scene.lrhsi, scene.msi, mask)
    return Rehearsal(training, make_frame(training, scene.model, base), 0)


def adaptation(scene, chosen=FAST, mask=None):
    return Adaptation(rehearsal(scene, mask), chosen, steps=300)


def small_net(seed=0):
    torch.manual_seed(seed)
    return SRLFNet(SRLFConfig(K, K, 3, stages=1, dropout=0.0, expand=1))


@pytest.mark.parametrize(("shape", "s"), [((1, 24, 20), 3), ((5, 48, 48), 4), ((1, 9, 100), 2), ((2, 8, 8), 8)])
def test_held_out_cells(shape, s):
    held = held_out_cells(shape, s, 0)
    assert held.shape == (shape[0], 1, *shape[1:])
    side = s * max(3, -(-6 // s))
    cells = held[..., ::side, ::side]
    whole = cells.repeat_interleave(side, 2).repeat_interleave(side, 3)[..., : shape[1], : shape[2]]
    assert torch.equal(held, whole)
    assert cells.sum() == max(1, round(0.25 * cells.numel()))
    assert torch.equal(held, held_out_cells(shape, s, 0))
    if cells.numel() > 4:
        assert any(not torch.equal(held, held_out_cells(shape, s, seed)) for seed in range(1, 5))


def test_judging_and_training_pixels_are_disjoint_and_valid():
    scene = memory_scene((24, 20))
    mask = torch.ones(1, 24, 20, dtype=torch.bool)
    mask[:, 3:10, 4:9] = False
    whole = rehearsal(scene, mask)
    used, held = whole.train_mask[:, 0], whole.held[:, 0]
    assert used.any()
    assert held.any()
    assert not (used & held).any()
    assert not (used | held)[~mask[:, :24, :18]].any()
    near = torch.nn.functional.max_pool2d(used[:, None].float(), 3, 1, 1)[:, 0] > 0  # half an LR pixel and more apart
    assert not (near & held).any()


def test_held_out_targets_do_not_train(tiny):
    """Poisoned where they judge, targets leave every weight as it is; poisoned elsewhere they don't."""
    states = []
    for where in (None, "held", "train"):
        run = adaptation(tiny, settings(2, pace={"check_every": 100, "patience": 100}))
        held, train = run.rehearsal.held, run.rehearsal.train_mask
        spoil = {"held": held, "train": train, None: torch.zeros_like(held)}[where]
        for pair in (run.rehearsal.low, *run.rehearsal.draws):
            pair.target[spoil.expand_as(pair.target)] = 1e6
        net = small_net()
        torch.manual_seed(1)
        run.run(net)
        states.append(net.state_dict())
    clean, held, train = states
    assert all(torch.equal(clean[key], held[key]) for key in clean)
    assert any(not torch.equal(clean[key], train[key]) for key in clean)


def test_training_lowers_the_loss(tiny):
    run = adaptation(
        tiny, settings(24, pace={"check_every": 4, "patience": 100, "consistency": 0, "learning_rate": 8e-3})
    )
    best = run.run(small_net())
    assert run.log.steps == list(range(0, 25, 4))
    assert run.log.train_loss[-1] < 0.97 * run.log.train_loss[1]
    assert run.log.held_out[0] == pytest.approx(1, abs=1e-5)  # the identity's error is the base's
    both = [(a + b) / 2 for a, b in zip(run.log.held_out, run.log.held_out_angle, strict=True)]
    assert run.errors(best).both == pytest.approx(min(both), rel=1e-5)
    assert run.log.steps[both.index(min(both))] == run.log.kept_step


def test_patience_ends_it(tiny):
    run = adaptation(tiny, settings(50, pace={"check_every": 1, "patience": 2, "learning_rate": 0.0}))
    run.run(small_net())
    assert run.log.steps == [0, 1, 2]
    assert run.log.kept_step == 0


def test_the_time_budget_ends_it(tiny):
    run = adaptation(tiny, settings(10_000, 1e-9))
    run.run(small_net())
    assert run.log.steps == [0, 1]


def test_steps_run_on_one_thread_so_that_cores_do_not_change_the_weights(tiny, monkeypatch):
    run, seen, before = adaptation(tiny), [], torch.get_num_threads()
    monkeypatch.setattr(Adaptation, "_step", lambda *_: float(seen.append(torch.get_num_threads()) or 0))
    torch.set_num_threads(2)
    try:
        run.run(small_net())
        assert (set(seen), torch.get_num_threads()) == ({1}, 2)
    finally:
        torch.set_num_threads(before)


def judge(pixels=400, seed=0):
    g = torch.Generator().manual_seed(seed)
    target = torch.rand(pixels, K, generator=g) + 0.1
    return Judge(target + 0.05 * torch.randn(pixels, K, generator=g), target)


def test_a_right_correction_is_trusted():
    known = judge()
    share = known.trust(known.needed)
    assert share.min() > 0.99
    assert known.errors(share * known.needed).error < 0.01
    assert known.errors(share * known.needed).angle < 0.05


def test_half_of_it_is_taken_no_further_than_whole():
    """The trusted share never exceeds one, so a timid network isn't blown up, and an overshoot is damped."""
    known = judge()
    assert known.trust(known.needed / 2).max() == 1
    share = known.trust(known.needed * 2)
    torch.testing.assert_close(share, torch.full_like(share, 0.5), atol=0.02, rtol=0)


@pytest.mark.parametrize("kind", ["noise", "opposite", "nothing"])
def test_a_wrong_correction_is_not(kind):
    known = judge()
    noise = 0.05 * torch.randn(known.needed.shape, generator=torch.Generator().manual_seed(4))
    correction = {"noise": noise, "opposite": -known.needed, "nothing": 0 * known.needed}[kind]
    share = known.trust(correction)
    assert not share.any()
    assert known.errors(share * correction).both == pytest.approx(1, abs=1e-5)


def test_each_coefficient_is_trusted_on_its_own():
    known = judge()
    right = known.needed.clone()
    right[:, ::2] *= -1
    share = known.trust(right)
    assert share[::2].max() == 0
    assert share[1::2].min() > 0.99


def test_dark_pixels_count_in_the_angle():
    """Corrections that help bright pixels and spoil dark ones lower one error and raise the other."""
    known = judge()
    dark = Judge(known.start.clone(), known.target.clone())
    dark.start[:200] *= 0.05
    dark.target[:200] *= 0.05
    dark = Judge(dark.start, dark.target)
    correction = dark.needed.clone()
    correction[:200] *= -1
    errors = dark.errors(correction)
    assert errors.error < 0.1
    assert errors.angle > 0.8


def test_what_judges_does_not_see_the_training_cells(tiny):
    """The judge knows the held-out pixels, and these alone."""
    known = rehearsal(tiny)
    needed = known.low.target - known.low.base * known.unit
    torch.testing.assert_close(known.judge.needed, known.held_out(needed))
    assert not known.held_out(needed * ~known.held).any()


@pytest.mark.parametrize("weights", [None, "auto"])
@pytest.mark.parametrize(
    "lr_shape",
    [(2, 8), pytest.param((4, 4), marks=pytest.mark.slow), (7, 5), pytest.param((2, 40), marks=pytest.mark.slow)],
)
def test_too_small_a_scene_keeps_the_base(lr_shape, weights):
    """None of these teaches anything, be it asked or not."""
    scene = memory_scene(lr_shape, s=3)
    fuser = SRLF(settings(base="blend"), weights).fit(scene.training, scene.model)
    assert (
        "too small to train on one part and judge on another: the base blend is the result"
        in (fuser.describe()["adaptation"])
    )
    wanted = make_method("blend").fit(scene.training, scene.model).predict(scene.lrhsi, scene.msi)
    torch.testing.assert_close(fuser.predict(scene.lrhsi, scene.msi), wanted, rtol=0, atol=1e-6)
    assert wanted.isfinite().all()


@pytest.mark.parametrize("base", ["blend", "glp-ens", "gsa", "sfim"])
def test_without_steps_the_base_comes_through_bit_by_bit(tiny, base):
    fuser = small_fuser(settings(0, base=base)).fit(tiny.training, tiny.model)
    assert not fuser.share.any()
    assert f"the base {base} is the result" in fuser.describe()["adaptation"]
    wanted = make_method(base).fit(tiny.training, tiny.model).predict(tiny.lrhsi, tiny.msi)
    assert torch.equal(fuser.predict(tiny.lrhsi, tiny.msi), wanted)


def test_a_regression_as_base_is_that_method_on_a_cleaned_msi(tiny):
    """Without noise in the MSI they are the same but for what cleaning takes."""
    fuser = small_fuser(settings(0)).fit(tiny.training, tiny.model)
    assert not fuser.share.any()
    wanted = make_method("glp-reg").fit(tiny.training, tiny.model).predict(tiny.lrhsi, tiny.msi)
    found = fuser.predict(tiny.lrhsi, tiny.msi)
    assert (found - wanted).square().mean().sqrt() < 0.1 * (wanted - tiny.truth).square().mean().sqrt()


def test_the_papers_base_is_plain_interpolation_in_the_subspace(tiny):
    base = BicubicSubspace().fit(tiny.training, tiny.model)
    torch.testing.assert_close(
        base.subspace.project(base.predict(tiny.lrhsi, tiny.msi)),
        base.subspace.project(tiny.model.upsample(tiny.lrhsi)),
        atol=1e-5,
        rtol=0,
    )


def test_training_on_the_scene_helps_at_full_resolution():
    """From the paper's weak base, which leaves much to learn, a few dozen steps must bring the truth nearer."""
    scene = memory_scene((30, 30))
    pace = {"check_every": 20, "learning_rate": 4e-3, "consistency": 0}
    fuser = small_fuser(settings(60, pace=pace, base="bicubic"))
    fused = fuser.fit(scene.training, scene.model).predict(scene.lrhsi, scene.msi)
    base = fuser.frame.base.predict(scene.lrhsi, scene.msi)
    errors = [float((x.detach() - scene.truth).square().mean().sqrt()) for x in (fused, base)]
    assert fuser.share.any()
    assert errors[0] < 0.9 * errors[1]
    assert "below the base bicubic" in fuser.describe()["adaptation"]


def test_seeds_repeat(tiny):
    results = []
    for seed in (0, 0, 1):
        fuser = small_fuser(settings(3, pace={"learning_rate": 1e-2}, base="bicubic", seed=seed))
        fuser.fit(tiny.training, tiny.model)
        fuser.share = torch.ones_like(fuser.share)
        results.append(fuser.predict(tiny.lrhsi, tiny.msi))
        torch.rand(7)  # what others draw in between doesn't matter
    assert torch.equal(results[0], results[1])
    assert not torch.equal(results[0], results[2])


def test_fitting_leaves_the_global_state_alone(tiny):
    state = torch.random.get_rng_state()
    small_fuser().fit(tiny.training, tiny.model)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_at_a_phase_that_is_not_centred_nothing_is_turned(tiny):
    scene = tiny.truth
    model = ObservationModel(tiny.model.srf, gaussian_psf(1.2, 3, 0), 3, phase=0)
    lrhsi, msi = model(scene)
    training = PairSample(lrhsi, msi, torch.ones(1, 18, 18, dtype=torch.bool))
    assert small_fuser(settings(2)).fit(training, model).turns == 1
    assert small_fuser(settings(0)).fit(tiny.training, tiny.model).turns == 2


def test_unknown_bases_are_told():
    with pytest.raises(SettingError, match="no base 'magic' for SRLF-Net; known are guided, "):
        SRLF(FuseOptions(base="magic"))


def test_the_reduced_pair_is_the_observation_model_once_more():
    tiny = memory_scene((24, 20))
    target, low, msi = reduced_images(tiny.training, tiny.model)
    assert target.shape[2:] == msi.shape[2:] == (24, 18)  # 20 columns are no multiple of 3
    assert low.shape[2:] == (8, 6)
    torch.testing.assert_close(low, tiny.model.spatial(target))


def test_gain_and_offset_of_the_msi_are_found(tiny):
    gain, offset = torch.tensor([0.8, 1.0, 1.3, 2.0]), torch.tensor([0.05, 0.0, -0.02, 0.1])
    msi = tiny.msi * gain[:, None, None] + offset[:, None, None]
    found = radiometric_match(PairSample(tiny.lrhsi, msi, tiny.training.mask), tiny.model)
    torch.testing.assert_close(found[0], gain, rtol=1e-3, atol=0)
    torch.testing.assert_close(found[1], offset, rtol=0, atol=1e-3)


def test_the_network_sees_the_msi_in_the_hsi_s_radiometry(tiny):
    """Whatever the MSI's gain, the observation that the network compares with is the same."""
    frames = []
    for gain in (1.0, 3.0):
        training = PairSample(tiny.lrhsi, tiny.msi * gain, tiny.training.mask)
        frame = fit_frame(training, EnsembleGLP(dimension=K).fit(training, tiny.model))
        frames.append(frame.see(tiny.lrhsi, training.msi).obs.y)
    torch.testing.assert_close(frames[0], frames[1], rtol=0, atol=1e-3)

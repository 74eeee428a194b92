"""The choice of a method by the scene's own reduced-resolution test."""

import logging
from dataclasses import replace

import pytest
import torch
from classical_scene import make_scene, rmse

from hsfuse.errors import SettingError
from hsfuse.fusers import TrainingScene, make_fuser, selection
from hsfuse.fusers.selection import FALLBACK, Best, Score, choose_base, measure, rank, reduced_scene

QUICK = ("bicubic", "gsa", "glp")


@pytest.fixture(scope="module")
def scene():
    return make_scene(size=128, noise=0.003)


def test_the_choice_is_as_good_as_the_best_at_full_resolution(scene):
    truth, observed, model = scene
    choice = choose_base(observed, model, QUICK)
    fitted = [make_fuser(name).fit(observed, model) for name in QUICK]
    errors = {fuser.name: rmse(fuser.predict(observed.lrhsi, observed.msi), truth) for fuser in fitted}
    assert errors[choice.name] < 1.1 * min(errors.values())
    assert errors[choice.name] < 0.8 * errors["bicubic"]
    assert list(choice.scores)[-1] == "bicubic"
    assert set(choice.scores) == set(QUICK)


def test_the_reduced_pair_keeps_ratio_noise_and_truth(scene):
    _, observed, model = scene
    pair, target = reduced_scene(observed, model)
    assert pair.lrhsi.shape[2:] == (8, 8)
    assert pair.msi.shape[2:] == target.shape[2:] == (32, 32)
    torch.testing.assert_close(target, observed.lrhsi)
    flat = TrainingScene(torch.full_like(observed.lrhsi, 0.3), torch.full_like(observed.msi, 0.3), observed.mask)
    random = torch.Generator().manual_seed(0)
    noisy = replace(flat, msi=flat.msi + 0.01 * torch.randn(flat.msi.shape, generator=random))
    reduced, _ = reduced_scene(noisy, model)
    assert float(reduced.msi.std()) == pytest.approx(0.01, rel=0.25)


def test_only_whole_valid_pixels_judge(scene):
    _, observed, model = scene
    mask = observed.mask.clone()
    mask[..., 5, 9] = False
    pair, target = reduced_scene(replace(observed, mask=mask), model)
    assert not pair.mask[0, 1, 2]
    assert int(pair.mask.sum()) == 63
    spoilt = target.clone()
    spoilt[..., 4:8, 8:12] = 9.0
    scores = [measure(make_fuser("bicubic"), pair, t, model) for t in (target, spoilt)]
    assert scores[0].rmse == scores[1].rmse
    assert scores[0].sam == scores[1].sam


def test_rank_is_the_geometric_mean_of_relative_errors():
    ranked = rank({"a": Score(40, 2.0, 0.01, 1), "b": Score(41, 4.0, 0.01, 1), "c": Score(39, 2.0, 0.04, 1)})
    assert list(ranked) == ["a", "b", "c"]
    assert ranked["a"].rank == pytest.approx(1)
    assert ranked["b"].rank == pytest.approx(2**0.5)
    assert ranked["c"].rank == pytest.approx(2)


def test_a_method_that_fails_numerically_is_never_chosen():
    ranked = rank({"a": Score(40, float("nan"), float("inf"), 1), "b": Score(20, 9.0, 0.1, 1)})
    assert list(ranked) == ["b", "a"]


@pytest.mark.parametrize("size", [12, 64])
def test_a_scene_too_small_to_test_falls_back_aloud(size, caplog):
    _, observed, model = make_scene(size=64)
    crop = size // model.scale
    small = TrainingScene(
        observed.lrhsi[..., :crop, :crop], observed.msi[..., :size, :size], observed.mask[..., :crop, :crop]
    )
    with caplog.at_level(logging.WARNING):
        choice = choose_base(small, model, QUICK)
    assert choice.name == FALLBACK
    assert not choice.scores
    assert "too small" in caplog.text


def test_the_test_is_bounded(scene, monkeypatch):
    _, observed, model = scene
    many = TrainingScene(*(x.repeat(5, *[1] * (x.dim() - 1)) for x in (observed.lrhsi, observed.msi, observed.mask)))
    monkeypatch.setattr(selection, "MOST_PIXELS", 2 * 32 * 32)
    pair, target = reduced_scene(many, model)
    assert len(pair.lrhsi) == len(target) == 2


def test_no_candidates_are_refused(scene):
    _, observed, model = scene
    with pytest.raises(SettingError, match="no methods"):
        choose_base(observed, model, ())


def test_best_is_the_chosen_method_and_says_so(scene, caplog):
    _, observed, model = scene
    with caplog.at_level(logging.INFO):
        best = Best(QUICK).fit(observed, model)
    chosen = best.choice.name
    assert f"{chosen}, best of 3" in caplog.text
    alone = make_fuser(chosen).fit(observed, model)
    inputs = (observed.lrhsi, observed.msi)
    torch.testing.assert_close(best.predict(*inputs), alone.predict(*inputs))
    described = best.describe()
    assert described["method"] == f"best: {chosen}"
    assert all(f"test of {name}" in described for name in QUICK)
    assert all(isinstance(value, str) for value in described.values())


def test_best_has_room_for_every_candidate():
    halos = [make_fuser(name).requirements.halo for name in selection.CANDIDATES]
    assert Best.requirements.halo >= max(halos)

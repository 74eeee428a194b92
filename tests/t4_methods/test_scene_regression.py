"""What a scene at reduced resolution teaches of the blend: drawn if there is enough, used as far as it foretells."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from hsfuse.core.options import FuseOptions
from hsfuse.io import open_cube
from hsfuse.methods import conditioning
from hsfuse.methods.adapt import Errors, Judge, Rehearsal, change
from hsfuse.methods.conditioning import (
    CELL,
    borne_out,
    cells_of,
    conditioned_frame,
    fit_scene_regression,
    guides,
    parts_of,
    phases,
    pixel_features,
    plain_frame,
    seen_clearly,
    unseen,
)
from hsfuse.methods.frame import noise_adder, reduced_images
from hsfuse.methods.problem import mix
from hsfuse.methods.srlf import SRLF
from hsfuse.methods.srlf_any import AnySensor
from hsfuse.methods.state import restored, state_of
from hsfuse.nets.srlf import Observation, SRLFConfig, SRLFNet
from hsfuse.nets.weights import ModelCard, save_checkpoint
from hsfuse.physics.model import ObservationModel, gaussian_psf
from hsfuse.physics.sample import PairSample

EXAMPLE = Path(__file__).parents[2] / "examples" / "data" / "indian_pines_reference.tif"


@pytest.fixture(scope="module")
def scene():
    """80 x 80 pixels of the example and what a pair at ratio 4 sees of them: truth, sample, model."""
    with open_cube(EXAMPLE) as reader:
        truth = torch.from_numpy(reader.read().data[::4, 40:120, 40:120].copy())[None]
    response = np.zeros((3, truth.shape[1]))
    for row, bands in zip(response, (slice(2, 5), slice(8, 11), slice(18, 22)), strict=True):
        row[bands] = 1 / (bands.stop - bands.start)
    model = ObservationModel(response, gaussian_psf(1.7, 4), 4)
    rng = torch.Generator().manual_seed(0)
    lrhsi, msi = (x + 5e-4 * torch.randn(x.shape, generator=rng) for x in (model.spatial(truth), model.spectral(truth)))
    return truth, PairSample(lrhsi, msi, torch.ones(1, 20, 20, dtype=torch.bool)), model


@pytest.fixture(scope="module")
def frame(scene):
    return conditioned_frame(*scene[1:])


def test_what_it_adds_brings_the_blend_closer_to_the_truth(scene, frame):
    truth, pair, _ = scene
    seen = frame.see(pair.lrhsi, pair.msi)
    wanted = frame.subspace.project(truth) / frame.unit[:, None, None]
    before, after = (
        (z - wanted).square().mean((0, 2, 3)).log().mean() for z in (seen.base, seen.base + seen.obs.known)
    )
    assert after < before - 0.005


def test_what_it_adds_is_what_both_images_leave_open(scene, frame):
    _, pair, _ = scene
    seen = frame.see(pair.lrhsi, pair.msi)
    said = frame.step[:, None, None] * frame.scene_regression(seen.obs.guide, seen.msi)
    low = [frame.model.spatial(z * frame.unit[:, None, None]).norm() for z in (said, seen.obs.known)]
    assert low[1] < 0.5 * low[0]


def test_what_it_says_is_unseen_by_the_msi(scene, frame):
    _, pair, _ = scene
    seen = frame.see(pair.lrhsi, pair.msi)
    said = frame.step[:, None, None] * frame.scene_regression(seen.obs.guide, seen.msi) * frame.unit[:, None, None]
    clear = seen_clearly(frame, pair)
    assert len(clear) == 3
    assert said.std() > 1e-4
    assert mix(clear.float() / clear.norm(dim=1, keepdim=True), said).abs().max() < 1e-4 * said.abs().max()


def test_bands_that_tell_nothing_but_noise_are_not_seen(scene, frame):
    _, pair, _ = scene
    sd = frame.blend.agreement.problem.noise_y.sqrt()[:, None, None]
    noise = sd * torch.randn(pair.msi.shape, generator=torch.Generator().manual_seed(1))
    loud = replace(pair, msi=pair.msi.mean((2, 3), keepdim=True) + noise)
    assert len(seen_clearly(frame, loud)) == 0
    assert torch.equal(unseen(seen_clearly(frame, loud), torch.eye(16).double()), torch.eye(16).double())


def test_pixels_teach_in_every_phase(scene, frame):
    """Twenty LR pixels a side begin at 0 and 2: of the latter sixteen are left."""
    _, pair, _ = scene
    f, weight, start, wanted, part, cell = conditioning._at_reduced(frame, pair, frame.scene_regression)
    pixels = 20 * 20 + 16 * 16 + 2 * 20 * 16
    assert {len(part), len(cell), *(x.shape[1] for x in (f, weight, start, wanted))} == {pixels}
    target = frame.subspace.project(pair.lrhsi[..., 2:18, 2:18]) / frame.unit[:, None, None]
    torch.testing.assert_close(wanted[:, 400:656].float(), target[0].flatten(1))
    assert part[400] == parts_of((20, 20), CELL * 4)[2, 2]


def test_the_network_of_a_draw_knows_no_scene(scene):
    assert plain_frame(*scene[1:]).scene_regression is None


@pytest.mark.parametrize(("ratio", "shape"), [(8, (30, 40)), (4, (16, 18))])
def test_it_is_drawn_where_there_is_enough_to_learn_from(ratio, shape):
    told = SimpleNamespace(base=SimpleNamespace(model=SimpleNamespace(ratio=ratio)))
    pair = PairSample(torch.ones(1, 1, *shape), torch.ones(1, 1, 8, 8), torch.ones(1, *shape, dtype=torch.bool))
    assert fit_scene_regression(told, pair) == (None, "")


@pytest.mark.parametrize("errors", [(1.01, 0.9), (0.9, 1.01)])
def test_one_that_does_not_foretell_parts_left_out_is_dropped(scene, frame, errors, monkeypatch):
    monkeypatch.setattr(Judge, "errors", lambda self, correction: Errors(*errors))
    scene_regression, told = fit_scene_regression(replace(frame, scene_regression=None), scene[1])
    assert scene_regression is None
    assert told.startswith("not used: on parts of the scene that it didn't learn from the error is ")


def changed_in_a_corner(monkeypatch):
    """The truth of the first part, at reduced resolution, becomes another."""
    degrade = conditioning.reduced_images

    def changed(*args):
        target, *images = degrade(*args)
        target = target.clone()
        target[:, :, 0, 0] += 0.1
        return target, *images

    monkeypatch.setattr(conditioning, "reduced_images", changed)


def test_a_part_is_foretold_without_having_been_seen(scene, frame, monkeypatch):
    """What is judged doesn't change when the truth of its own part does, shares included."""
    corrections, pair = [], scene[1]
    monkeypatch.setattr(Judge, "errors", lambda self, correction: corrections.append(correction) or Errors(0.9, 0.9))
    plain = replace(frame, scene_regression=None)
    monkeypatch.setattr(conditioning, "noise_adder", lambda *_: lambda lrhsi, msi, random: (lrhsi, msi))
    before = fit_scene_regression(plain, pair)[0]
    changed_in_a_corner(monkeypatch)
    after = fit_scene_regression(plain, pair)[0]
    part = parts_of(pair.mask.shape[1:], CELL * 4)
    part = torch.cat(
        [part[top:, left:][: 20 - top // 2 * 4, : 20 - left // 2 * 4].flatten() for top, left in phases(4)]
    )
    moved = (corrections[0] - corrections[1]).abs().amax(1)
    assert moved[part == 0].max() < 1e-9 < moved[part != 0].max()
    assert torch.equal(before.others[0], after.others[0])
    assert not torch.equal(before.others[1], after.others[1])
    assert not torch.equal(before.weights, after.weights)


def test_at_reduced_resolution_each_part_hears_what_the_others_say(scene, frame):
    pair, scene_regression = scene[1], frame.scene_regression
    seen = frame.see(pair.lrhsi, pair.msi)
    guide, msi = seen.obs.guide, seen.msi
    left_out = frame.left_out().scene_regression
    part = parts_of(msi.shape[2:], scene_regression.cell)
    for number, weights in enumerate(scene_regression.others):
        own = replace(scene_regression, weights=weights)(guide, msi)
        torch.testing.assert_close(left_out(guide, msi)[..., part == number], own[..., part == number])
    assert not torch.allclose(left_out(guide, msi), scene_regression(guide, msi))


def test_weights_are_judged_on_what_the_scene_regression_foretells_of_parts_it_has_not_seen(
    scene, frame, monkeypatch, weights
):
    """What the network starts from when it is judged isn't the scene regression as learned on the very pixels."""
    _, pair, model = scene
    starts = []
    monkeypatch.setattr(
        "hsfuse.methods.srlf_any.Judge", lambda start, wanted: starts.append(start) or Judge(start, wanted)
    )
    monkeypatch.setattr("hsfuse.methods.srlf_any.conditioned_frame", lambda *pair: frame)
    method = AnySensor(weights).fit(pair, model)
    low = method.frame.left_out().see(*noisy(pair, method.frame.base.model))
    wanted = (low.base + low.obs.known) * frame.unit[:, None, None]
    torch.testing.assert_close(starts[0], wanted.flatten(2)[0].T)
    assert "blend with the scene regression" in method.verdict
    assert method.describe()["scene regression"] == frame.taught


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Weights for ratio 4, at random."""
    torch.manual_seed(0)
    config = SRLFConfig(16, guides(16), 4, stages=1, expand=1)
    path = tmp_path_factory.mktemp("models") / "w.safetensors"
    save_checkpoint(path, ModelCard("w", config, 4), dict(SRLFNet(config, identity=False).state_dict()))
    return path


def noisy(pair, model):
    """What the method sees at reduced resolution."""
    return noise_adder(pair, model)(*reduced_images(pair, model)[1:], torch.Generator().manual_seed(0))


@pytest.mark.parametrize("scene_regression", [True, False])
def test_without_weights_the_scene_regression_remains(scene, frame, scene_regression, monkeypatch, weights):
    """Weights that the scene doesn't bear out take nothing with them, nor does a scene regression that it doesn't."""
    _, pair, model = scene
    frame = frame if scene_regression else replace(frame, scene_regression=None)
    monkeypatch.setattr("hsfuse.methods.srlf_any.conditioned_frame", lambda *pair: frame)
    monkeypatch.setattr(AnySensor, "errors", lambda self, scene: Errors(1.1, 0.9))
    method = AnySensor(weights).fit(pair, model)
    assert method.share == 0
    seen = frame.see(pair.lrhsi, pair.msi)
    wanted = seen.base if seen.obs.known is None else seen.base + seen.obs.known
    unit = frame.unit[:, None, None]
    torch.testing.assert_close(method.coefficients(pair.lrhsi, pair.msi), wanted * unit, rtol=0, atol=1e-6)
    assert method.given == ("the base blend corrected by the scene regression" if scene_regression else "")
    monkeypatch.setattr(AnySensor, "errors", lambda self, scene: Errors(0.9, 0.9))
    given = AnySensor(weights).fit(pair, model).given
    assert given == "the base blend corrected by the weights" + " and the scene regression" * scene_regression


@pytest.mark.parametrize("scene_regression", [True, False])
def test_there_is_no_step_back_from_a_scene_regression_alone(scene, frame, scene_regression, monkeypatch):
    frame = frame if scene_regression else replace(frame, scene_regression=None)
    monkeypatch.setattr("hsfuse.methods.srlf_any.conditioned_frame", lambda *pair: frame)
    monkeypatch.setattr(AnySensor, "errors", lambda self, scene: Errors(1.1, 0.9))
    asked = []
    monkeypatch.setattr(SRLF, "_agree", lambda *args: asked.append(args))
    SRLF(FuseOptions(adapt="off", ensemble=1)).fit(*scene[1:])
    assert bool(asked) != scene_regression


def test_adaptation_is_judged_on_what_the_scene_regression_has_not_seen(scene, frame, monkeypatch):
    """At reduced resolution it starts from the left-out one, at full resolution from the scene regression."""
    _, pair, model = scene
    monkeypatch.setattr("hsfuse.methods.srlf_any.conditioned_frame", lambda *pair: frame)
    rehearsals = []
    make = Rehearsal.__init__
    monkeypatch.setattr(Rehearsal, "__init__", lambda self, *args: rehearsals.append(self) or make(self, *args))
    fuser = SRLF(FuseOptions(adapt_steps=1, ensemble=1)).fit(pair, model)
    rehearsal, known = rehearsals[0], fuser.known
    wanted = known.left_out().coefficients(rehearsal.lrhsi, rehearsal.msi)
    basis = fuser.frame.subspace.basis.T @ known.subspace.basis
    torch.testing.assert_close(
        rehearsal.low.base * rehearsal.unit, torch.einsum("jk,bkhw->bjhw", basis, wanted), rtol=0, atol=1e-5
    )
    torch.testing.assert_close(
        rehearsal.full.base * rehearsal.unit,
        torch.einsum("jk,bkhw->bjhw", basis, known.coefficients(pair.lrhsi, pair.msi)),
        rtol=0,
        atol=1e-5,
    )
    assert fuser.describe()["scene regression"] == frame.taught


def test_what_needs_no_judge_is_not_rehearsed(scene, frame, monkeypatch):
    """Without training the result is known, and what it leaves of the error was told when the scene regression was."""
    _, pair, model = scene
    monkeypatch.setattr("hsfuse.methods.srlf_any.conditioned_frame", lambda *pair: frame)
    monkeypatch.delattr(Rehearsal, "__init__")
    fuser = SRLF(FuseOptions(adapt="off", ensemble=1)).fit(pair, model)
    last = fuser.history()["stages"][-1]
    assert (last["error"], last["angle"]) == frame.scene_regression.left
    assert f"the error is {change(last['error'])}" in frame.taught
    torch.testing.assert_close(*(f.predict(pair.lrhsi, pair.msi) for f in (fuser, fuser.known)), rtol=0, atol=0)


def test_what_is_foretold_is_used_as_far_as_it_comes_true():
    """A factor that all cells bear out counts nearly in full; chance, and what is the wrong way round, doesn't."""
    random = torch.Generator().manual_seed(0)
    z = torch.randn(4, 1600, generator=random, dtype=torch.float64)
    need = torch.randn(4, 1600, generator=random, dtype=torch.float64) * torch.tensor([[0.1], [0.1], [1.0], [1.0]])
    need[0] += 0.6 * z[0]
    need[1] += 2 * z[1]
    need[3] -= 0.5 * z[3]
    cell = cells_of((1, 40, 40), 8).flatten()
    share = borne_out(z, need, cell, cell >= 0)
    assert share[0] == pytest.approx(0.6, abs=0.02)
    assert share[1] > 0.99
    assert share[2] < 0.05
    assert share[3] == 0
    alone = torch.zeros_like(need)
    alone[:, cell == 3] = z[:, cell == 3]  # a single cell speaks for it
    assert borne_out(z, alone, cell, cell >= 0).max() < 0.02


def test_cells_are_numbered_over_blocks():
    cell = cells_of((2, 5, 9), 4)
    assert cell.unique().tolist() == list(range(12))
    assert (cell[0, :4, :4] == 0).all()
    assert cell[1, 4, 8] == 11


def test_parts_share_no_side():
    part = parts_of((17, 21), 4)[::4, ::4]
    assert (part[1:] != part[:-1]).all()
    assert (part[:, 1:] != part[:, :-1]).all()


def test_features_of_a_pixel_know_its_surroundings_alone():
    """Five pixels away nothing changes: the method's tiles overlap by more."""
    random = torch.Generator().manual_seed(0)
    guide, msi = torch.randn(1, 26, 24, 24, generator=random), torch.rand(1, 3, 24, 24, generator=random)
    other = msi.clone()
    other[..., 12, 12] += 1
    change = (pixel_features(guide, msi, torch.ones(3)) - pixel_features(guide, other, torch.ones(3))).abs().sum(1)[0]
    reached = torch.zeros(24, 24, dtype=torch.bool)
    reached[8:17, 8:17] = True
    assert change[~reached].max() == 0 < change[12, 12]
    assert pixel_features(guide, msi, torch.ones(3)).shape[1] == 12 + 27


def test_a_fitted_method_keeps_it(scene, frame, monkeypatch, weights):
    _, pair, model = scene
    monkeypatch.setattr("hsfuse.methods.srlf_any.conditioned_frame", lambda *pair: frame)
    method = AnySensor(weights).fit(pair, model)
    method.share = 0.5
    again = restored(AnySensor, state_of(method))
    assert torch.equal(again.frame.scene_regression.others, frame.scene_regression.others)
    assert torch.equal(again.frame.scene_regression.weights, frame.scene_regression.weights)
    torch.testing.assert_close(
        again.predict(pair.lrhsi, pair.msi), method.predict(pair.lrhsi, pair.msi), rtol=0, atol=0
    )


def test_what_is_learned_from_whole_is_blended_once(scene, monkeypatch):
    """A scene that is one tile: what fitting made of it is the tile's, to the bit, and no other's."""
    _, pair, model = scene
    method = AnySensor(None).fit(pair, model)
    other = pair.msi.clone()
    other[..., 0, 0] += 0.1
    wanted = [restored(AnySensor, state_of(method)).predict(pair.lrhsi, msi) for msi in (pair.msi, other)]
    agreement = method.frame.blend.agreement
    monkeypatch.setattr(method.frame.blend, "agreement", SimpleNamespace(left_open=agreement.left_open))
    assert torch.equal(method.predict(pair.lrhsi.clone(), pair.msi.clone()), wanted[0])
    monkeypatch.setattr(method.frame.blend, "agreement", agreement)
    assert torch.equal(method.predict(pair.lrhsi, other), wanted[1])
    assert not torch.equal(*wanted)


def test_what_is_known_is_added_under_every_symmetry():
    net = SRLFNet(SRLFConfig(4, 2, 2, stages=1, expand=1)).eval()  # its own correction is zero
    random = torch.Generator().manual_seed(0)
    base, known, guide = (torch.randn(1, n, 8, 8, generator=random) for n in (4, 4, 2))
    model = ObservationModel(np.ones((2, 4)) / 4, gaussian_psf(1.0, 2), 2)
    obs = Observation(torch.rand(1, 4, 4, 4), torch.rand(1, 2, 8, 8), guide, model, torch.ones(4), known=known)
    with torch.no_grad():
        torch.testing.assert_close(net.ensemble(base, obs, turns=8), base + known)


def test_a_map_that_is_louder_at_full_resolution_counts_less(scene, frame, monkeypatch):
    """But on the first axis."""
    monkeypatch.setattr(conditioning, "unseen", lambda response, errors: torch.eye(len(errors)).double())
    plain, found = replace(frame, scene_regression=None), []
    for quiet in (1e9, conditioning.QUIET, 1e-3):
        monkeypatch.setattr(conditioning, "QUIET", quiet)
        regression, _ = fit_scene_regression(plain, scene[1])
        found.append(regression.weights.norm(dim=0))
    never, usual, always = found
    torch.testing.assert_close(usual[0], never[0])
    torch.testing.assert_close(always[0], never[0])
    assert (always[1:] <= 1e-3 * never[1:]).all()
    assert (usual <= never * 1.0001).all()
    assert (usual[1:] < 0.99 * never[1:]).any()

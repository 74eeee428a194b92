"""What a scene at reduced resolution teaches of the blend: drawn if there is enough, used if it foretells."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from hsfuse.io import open_cube
from hsfuse.methods import conditioning
from hsfuse.methods.adapt import Errors, Judge
from hsfuse.methods.conditioning import conditioned_frame, frame_of_draw, lesson_of, parts_of, pixel_features
from hsfuse.methods.srlf_any import AnySensor
from hsfuse.methods.state import restored, state_of
from hsfuse.nets.srlf import Observation, SRLFConfig, SRLFNet
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


def test_the_network_of_a_draw_knows_no_scene(scene):
    assert frame_of_draw(*scene[1:]).lesson is None


@pytest.mark.parametrize(("ratio", "pixels"), [(8, 400), (4, 250)])
def test_it_is_drawn_where_there_is_enough_to_learn_from(ratio, pixels):
    mask = torch.ones(1, 1, pixels, dtype=torch.bool)
    told = SimpleNamespace(base=SimpleNamespace(model=SimpleNamespace(ratio=ratio)))
    assert lesson_of(told, PairSample(torch.ones(1, 1, 1, pixels), torch.ones(1, 1, ratio, 8), mask)) is None


@pytest.mark.parametrize("errors", [(1.01, 0.9), (0.9, 1.01)])
def test_one_that_does_not_foretell_parts_left_out_is_dropped(scene, frame, errors, monkeypatch):
    monkeypatch.setattr(Judge, "errors", lambda self, correction: Errors(*errors))
    assert lesson_of(frame, scene[1]) is None


def test_a_part_is_foretold_without_having_been_seen(scene, frame, monkeypatch):
    """What is judged doesn't change when the truth of its own part does."""
    corrections = []
    monkeypatch.setattr(Judge, "errors", lambda self, correction: corrections.append(correction) or Errors(0.9, 0.9))
    plain, pair = conditioning.replace(frame, lesson=None), scene[1]
    monkeypatch.setattr(conditioning, "noise_adder", lambda *_: lambda lrhsi, msi, random: (lrhsi, msi))
    degrade = conditioning.reduced_images
    lesson_of(plain, pair)

    def changed(*args):
        target, *images = degrade(*args)
        target = target.clone()
        target[:, :, 0, 0] += 0.1
        return target, *images

    monkeypatch.setattr(conditioning, "reduced_images", changed)
    lesson_of(plain, pair)
    own = parts_of(pair.mask) == parts_of(pair.mask)[0]
    moved = (corrections[0] - corrections[1]).abs().amax(1)
    assert moved[own].max() < 1e-9 < moved[~own].max()


def test_parts_share_no_side():
    part = parts_of(torch.ones(2, 17, 21, dtype=torch.bool)).view(2, 17, 21)[:, ::4, ::4]
    assert (part[:, 1:] != part[:, :-1]).all()
    assert (part[..., 1:] != part[..., :-1]).all()


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


def test_a_fitted_method_keeps_it(scene, frame, monkeypatch):
    _, pair, model = scene
    monkeypatch.setattr("hsfuse.methods.srlf_any.conditioned_frame", lambda *pair: frame)
    method = AnySensor().fit(pair, model)
    method.share = 0.5
    again = restored(AnySensor, state_of(method))
    assert torch.equal(again.frame.lesson.weights, frame.lesson.weights)
    torch.testing.assert_close(
        again.predict(pair.lrhsi, pair.msi), method.predict(pair.lrhsi, pair.msi), rtol=0, atol=0
    )


def test_what_is_known_is_added_under_every_symmetry():
    net = SRLFNet(SRLFConfig(4, 2, 2, stages=1, expand=1)).eval()  # its own correction is zero
    random = torch.Generator().manual_seed(0)
    base, known, guide = (torch.randn(1, n, 8, 8, generator=random) for n in (4, 4, 2))
    model = ObservationModel(np.ones((2, 4)) / 4, gaussian_psf(1.0, 2), 2)
    obs = Observation(torch.rand(1, 4, 4, 4), torch.rand(1, 2, 8, 8), guide, model, torch.ones(4), known=known)
    with torch.no_grad():
        torch.testing.assert_close(net.ensemble(base, obs, turns=8), base + known)

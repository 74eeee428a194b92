"""Quality layers: the last stage's maps are those the network selected by, and expected errors follow the real ones."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from classical_scene import make_model, make_scene, rmse
from scipy.stats import spearmanr

from hsfuse.fusers import TrainingScene, make_fuser
from hsfuse.fusers.reliability import Reliability, features, fit_reliability
from hsfuse.fusers.stagemaps import StageWatch, fused_maps
from hsfuse.io import open_cube
from hsfuse.nets.srlf import Observation, SRLFConfig, SRLFNet
from hsfuse.patches import sample_scene
from hsfuse.physics import ObservationModel
from hsfuse.scene import SceneSettings, open_scene

DATA = Path(__file__).resolve().parent.parent / "examples" / "data"


def network_call() -> tuple[SRLFNet, torch.Tensor, Observation]:
    torch.manual_seed(0)
    model = make_model(4, 8)
    net = SRLFNet(SRLFConfig(8, 4, 4, stages=2, dropout=0.0)).eval()
    truth = torch.rand(2, 8, 16, 16)
    low, msi = model(truth)
    return net, model.upsample(low), Observation(low, msi, msi, model, torch.ones(8))


def test_the_maps_are_of_the_first_call_and_say_where_points_were_relearned():
    net, base, obs = network_call()
    with StageWatch(net) as watch, torch.no_grad():
        assert watch.maps() is None
        net(base, obs)
        maps = watch.maps()
        net(base * 0.5, obs)
        again = watch.maps()
        watch.clear()
        assert watch.maps() is None
    assert maps is not None
    assert again is not None
    torch.testing.assert_close(maps.stacked(), again.stacked())
    assert maps.stacked().shape == (2, 4, 16, 16)
    assert (maps.spatial >= 0).all()
    assert ((maps.spectral >= 0) & (maps.spectral <= 180)).all()
    for sample in range(2):
        chosen = maps.spatial_points[sample] == 1
        assert 0 < chosen.sum() < 0.31 * 256
        assert maps.spatial[sample][chosen].min() >= maps.spatial[sample][~chosen].max()
    net(base, obs)
    assert watch.maps() is None  # no longer watching


def test_a_perfect_result_has_no_distortion():
    truth, scene, model = make_scene()
    maps = fused_maps(truth, scene.lrhsi, scene.msi, model)
    assert float(maps.spatial.abs().max()) < 1e-3
    assert float(maps.spectral.max()) < 0.1
    assert not maps.spatial_points.any()


@pytest.fixture(scope="module")
def example() -> Iterator[tuple[TrainingScene, ObservationModel, torch.Tensor]]:
    with open_scene(DATA / "lrhsi.hdr", DATA / "sentinel2.tif", SceneSettings("sentinel2")) as pair:
        rows, cols = pair.alignment.full
        with open_cube(DATA / "indian_pines_reference.tif") as reader:
            truth = torch.from_numpy(reader.read().data)[None, :, :rows, :cols]
        yield sample_scene(pair), pair.model, truth


@pytest.mark.parametrize(("method", "least"), [("bicubic", 0.7), ("glp-reg", 0.45)])
def test_expected_errors_rank_as_the_real_ones_and_have_their_size(example, method, least):
    scene, model, truth = example
    fuser = make_fuser(method).fit(scene, model)
    reliability = fit_reliability(fuser, scene, model)
    assert reliability is not None
    fused = fuser.predict(scene.lrhsi, scene.msi)
    expected = reliability.expected_error(fused, scene.lrhsi, scene.msi)
    real = (fused - truth).square().mean(1).sqrt()
    assert spearmanr(expected.flatten(), real.flatten()).statistic > least
    assert float(expected.square().mean().sqrt()) == pytest.approx(rmse(fused, truth), rel=0.25)


def test_weights_are_not_negative_and_a_flat_scene_is_expected_to_be_right():
    _, scene, model = make_scene(96)
    reliability = fit_reliability(make_fuser("bicubic").fit(scene, model), scene, model)
    assert reliability is not None
    assert (reliability.weights >= 0).all()
    flat = torch.full((1, 24, 16, 16), 0.3)
    known = features(flat, *model(flat), model)
    assert float(known[:, 1:5].abs().max()) < 1e-10


def test_a_scene_too_small_to_be_reduced_gives_none():
    _, scene, model = make_scene(32)
    small = make_scene(8)[1]
    assert fit_reliability(make_fuser("bicubic").fit(scene, model), small, model) is None


def test_the_expectation_is_that_of_the_weights():
    _, scene, model = make_scene()
    reliability = Reliability(model, torch.tensor([4e-4, 0, 0, 0, 0, 0]))
    expected = reliability.expected_error(model.upsample(scene.lrhsi), scene.lrhsi, scene.msi)
    torch.testing.assert_close(expected, torch.full_like(expected, 0.02))

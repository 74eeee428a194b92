"""Quality layers: the last stage's maps are those the network selected by, and expected errors follow the real ones."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from classical_scene import make_model, make_scene, rmse
from scipy.stats import spearmanr

from hsfuse.fusion import quality
from hsfuse.fusion.quality import Reliability, distortion_maps, features, fit_reliability
from hsfuse.io import open_cube
from hsfuse.methods import make_method
from hsfuse.methods.problem import msi_noise
from hsfuse.nets.srlf import Observation, SRLFConfig, SRLFNet
from hsfuse.nets.watch import StageWatch, distortions
from hsfuse.pair import open_pair
from hsfuse.pair.sample import sample_scene
from hsfuse.physics.model import ObservationModel
from hsfuse.physics.sample import PairSample

DATA = Path(__file__).resolve().parents[2] / "examples" / "data"


def network_call() -> tuple[SRLFNet, torch.Tensor, Observation]:
    torch.manual_seed(0)
    model = make_model(4, 8)
    net = SRLFNet(SRLFConfig(8, 4, 4, stages=2, dropout=0.0)).eval()
    truth = torch.rand(2, 8, 16, 16)
    low, msi = model(truth)
    return net, model.upsample(low), Observation(low, msi, msi, model, torch.ones(8))


def test_the_points_are_of_the_first_call_and_those_that_looked_worst():
    net, base, obs = network_call()
    with StageWatch(net) as watch, torch.no_grad():
        assert watch.maps() is None
        net(base, obs)
        points = watch.maps()
        net(base * 0.5, obs)
        again = watch.maps()
        z, z_spa = watch._seen["spatial"][0], watch._seen["spectral"][0]
        watch.clear()
        assert watch.maps() is None
    assert points is not None
    assert again is not None
    spatial, spectral = distortions(z, z_spa, obs)
    worst = spatial, spectral.repeat_interleave(4, 1).repeat_interleave(4, 2)
    for chosen, before, by in zip(points.unbind(1), again.unbind(1), worst, strict=True):
        torch.testing.assert_close(chosen, before)
        assert chosen.shape == (2, 16, 16)
        for sample in range(2):
            mask = chosen[sample] == 1
            assert 0 < mask.sum() < 0.31 * 256
            assert by[sample][mask].min() >= by[sample][~mask].max()
    net(base, obs)
    assert watch.maps() is None  # no longer watching


def test_each_tile_shows_what_was_learned_again_in_it(monkeypatch):
    net, base, obs = network_call()
    calls = [(base, obs), (base.flip(2), replace(obs, x=obs.x.flip(2), y=obs.y.flip(2), guide=obs.guide.flip(2)))]
    wanted = []
    for call in calls:
        with StageWatch(net) as watch, torch.no_grad():
            net(*call)
            wanted.append(watch.maps())
    assert not torch.equal(*wanted)
    monkeypatch.setattr(quality, "fit_reliability", lambda *arguments: None)
    with quality.QualityLayers(
        SimpleNamespace(layers=lambda: StageWatch(net)), SimpleNamespace(msi=obs.y), obs.model
    ) as layers:
        for (tile, around), points in zip(calls, wanted, strict=True):
            layers.expect()
            with torch.no_grad():
                fused = net(tile, around)
            torch.testing.assert_close(layers.layers(fused, around.x, around.y)[:, 2:4], points)
    assert layers.spectrum.good == (True,) * 4 + (False,)


def test_distortion_does_not_depend_on_the_unit():
    _, scene, model = make_scene()
    blurred = model.upsample(scene.lrhsi)
    maps = distortion_maps(blurred, scene.lrhsi, scene.msi, model)
    scaled = distortion_maps(300 * blurred, 300 * scene.lrhsi, 300 * scene.msi, model, peak=300.0)
    torch.testing.assert_close(scaled, maps, atol=1e-4, rtol=1e-4)
    assert float(maps[:, 0].mean()) > 0.05  # what interpolation lacks is seen


def test_a_perfect_result_has_no_distortion_and_nothing_learned_again():
    truth, scene, model = make_scene()
    maps = distortion_maps(truth, scene.lrhsi, scene.msi, model)
    assert float(maps[:, 0].abs().max()) < 1e-3
    assert float(maps[:, 1].max()) < 0.01
    method = make_method("bicubic").fit(scene, model)
    with quality.QualityLayers(method, scene, model) as layers:
        layers.expect()
        assert not layers.layers(truth, scene.lrhsi, scene.msi)[:, 2:4].any()


@pytest.fixture(scope="module")
def example() -> Iterator[tuple[PairSample, ObservationModel, torch.Tensor]]:
    with open_pair(DATA / "lrhsi.hdr", DATA / "sentinel2.tif", srf="sentinel2") as pair:
        rows, cols = pair.alignment.full
        with open_cube(DATA / "indian_pines_reference.tif") as reader:
            truth = torch.from_numpy(reader.read().data)[None, :, :rows, :cols]
        yield sample_scene(pair), pair.model, truth


@pytest.mark.parametrize(("method", "least"), [("bicubic", 0.7), ("glp-reg", 0.45)])
def test_expected_errors_rank_as_the_real_ones_and_have_their_size(example, method, least):
    scene, model, truth = example
    fuser = make_method(method).fit(scene, model)
    reliability = fit_reliability(fuser, scene, model)
    assert reliability is not None
    fused = fuser.predict(scene.lrhsi, scene.msi)
    expected = reliability.expected_error(fused, scene.lrhsi, scene.msi)
    real = (fused - truth).square().mean(1).sqrt()
    assert spearmanr(expected.flatten(), real.flatten()).statistic > least
    assert float(expected.square().mean().sqrt()) == pytest.approx(rmse(fused, truth), rel=0.25)


def test_weights_are_not_negative_and_a_flat_scene_is_expected_to_be_right():
    _, scene, model = make_scene(96)
    reliability = fit_reliability(make_method("bicubic").fit(scene, model), scene, model)
    assert reliability is not None
    assert (reliability.weights >= 0).all()
    flat = torch.full((1, 24, 16, 16), 0.3)
    known = features(flat, *model(flat), model)
    assert float(known[:, 1:5].abs().max()) < 1e-10


def test_a_scene_too_small_to_be_reduced_gives_none():
    _, scene, model = make_scene(32)
    small = make_scene(8)[1]
    assert fit_reliability(make_method("bicubic").fit(scene, model), small, model) is None


def test_the_expectation_is_that_of_the_weights():
    _, scene, model = make_scene()
    reliability = Reliability(model, torch.tensor([4e-4, 0, 0, 0, 0, 0]))
    expected = reliability.expected_error(model.upsample(scene.lrhsi), scene.lrhsi, scene.msi)
    torch.testing.assert_close(expected, torch.full_like(expected, 0.02))


def test_valid_pixels_at_an_edge_that_is_cut_off_give_none():
    """18 LR rows are cut to 16, a multiple of the ratio: nothing valid is left to learn from."""
    _, scene, model = make_scene(72)
    mask = torch.zeros_like(scene.mask)
    mask[:, 16:] = True
    fuser = make_method("bicubic").fit(scene, model)
    assert fit_reliability(fuser, replace(scene, mask=mask), model) is None
    mask[:, 12:] = True
    reliability = fit_reliability(fuser, replace(scene, mask=mask), model)
    assert reliability is not None
    assert reliability.weights.isfinite().all()


def test_noise_is_measured_once_however_many_blocks(monkeypatch):
    _, scene, model = make_scene(64)
    blocks = PairSample(*(x.repeat(3, *[1] * (x.dim() - 1)) for x in (scene.lrhsi, scene.msi, scene.mask)))
    calls: list[PairSample] = []
    monkeypatch.setattr("hsfuse.methods.frame.msi_noise", lambda s: calls.append(s) or msi_noise(s))
    assert fit_reliability(make_method("bicubic").fit(blocks, model), blocks, model) is not None
    assert calls == [blocks]

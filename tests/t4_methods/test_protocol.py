"""What every method promises, and the laws of the interpolation and regression methods."""

import numpy as np
import pytest
import torch
from scenes import memory_scene

from hsfuse.core.errors import SettingError
from hsfuse.methods import METHODS, Requirements, make_method
from hsfuse.methods.regression import EnsembleGLP, RegressionGLP, ridge_regression
from hsfuse.methods.subspace import signal_share
from hsfuse.physics.model import ObservationModel, gaussian_psf
from hsfuse.physics.sample import PairSample

NAMES = ("bicubic", "glp-reg", "glp-ens")


def scene_of(lrhsi, msi):
    return PairSample(lrhsi, msi, torch.ones(lrhsi[:, 0].shape, dtype=torch.bool))


def rmse(a, b):
    return float((a - b).square().mean().sqrt())


def linear_scene(s=3, seed=0):
    """A truth whose 20 bands are affine in a smooth random MSI of 4 bands, and its observation."""
    model = ObservationModel(torch.zeros(4, 20), gaussian_psf(0.5 * s, s), s)
    g = torch.Generator().manual_seed(seed)
    coarse = torch.rand(1, 4, 16, 16, generator=g)
    msi = torch.nn.functional.interpolate(coarse, scale_factor=s, mode="bilinear") + 0.3 * torch.rand(
        1, 4, 16 * s, 16 * s, generator=g
    )
    truth = torch.einsum("kc,bchw->bkhw", torch.rand(20, 4, generator=g), msi) + torch.rand(20, 1, 1, generator=g)
    return truth, model.spatial(truth), msi, model


@pytest.mark.parametrize("name", METHODS)
def test_every_method_is_there_and_says_what_it_is(name):
    fuser = make_method(name)
    assert fuser.id == name
    assert isinstance(fuser.requirements, Requirements)
    assert fuser.requirements.halo >= 0


def test_an_unknown_method_is_told_with_the_known_ones():
    with pytest.raises(SettingError, match="no method 'magic'; known are srlf, srlf-any, srlf-bands"):
        make_method("magic")


@pytest.mark.parametrize("name", NAMES)
def test_shapes_and_words(tiny, name):
    fuser = make_method(name).fit(tiny.training, tiny.model)
    fused = fuser.predict(tiny.lrhsi, tiny.msi)
    assert fused.shape == tiny.truth.shape
    assert fused.dtype == torch.float32
    assert fuser.describe()["method"] == name


@pytest.mark.parametrize("name", NAMES)
def test_batch_mates_are_independent(tiny, name):
    other = memory_scene(seed=9)
    fuser = make_method(name).fit(tiny.training, tiny.model)
    both = fuser.predict(torch.cat([tiny.lrhsi, other.lrhsi]), torch.cat([tiny.msi, other.msi]))
    for i, scene in enumerate((tiny, other)):
        torch.testing.assert_close(both[i : i + 1], fuser.predict(scene.lrhsi, scene.msi), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("s", [2, 3, 4, 5])
def test_the_halo_is_honest(name, s):
    """A tile with its halo gives what the whole scene gives there."""
    scene = memory_scene((30, 28), s)
    fuser = make_method(name).fit(scene.training, scene.model)
    whole = fuser.predict(scene.lrhsi, scene.msi)
    halo = fuser.requirements.halo
    rows, cols = slice(2, 6 + 2 * halo), slice(3, 5 + 2 * halo)
    fine = [slice(part.start * s, part.stop * s) for part in (rows, cols)]
    tile = fuser.predict(scene.lrhsi[..., rows, cols], scene.msi[..., fine[0], fine[1]])
    inner = [slice(halo * s, -halo * s)] * 2
    torch.testing.assert_close(tile[..., *inner], whole[..., *fine][..., *inner], rtol=0, atol=2e-6)


def test_a_scene_linear_in_the_msi_is_recovered():
    truth, lrhsi, msi, model = linear_scene()
    fused = RegressionGLP().fit(scene_of(lrhsi, msi), model).predict(lrhsi, msi)
    assert rmse(fused, truth) < 1e-4
    assert rmse(make_method("bicubic").fit(scene_of(lrhsi, msi), model).predict(lrhsi, msi), truth) > 0.05


def test_the_ensemble_recovers_it_too():
    truth, lrhsi, msi, model = linear_scene()
    fused = EnsembleGLP().fit(scene_of(lrhsi, msi), model).predict(lrhsi, msi)
    assert rmse(fused, truth) < 1e-3


def test_gain_and_offset_of_the_msi_do_not_matter(tiny):
    gain = torch.tensor([0.5, 1.7, 3.0, 0.9])[:, None, None]
    offset = torch.tensor([0.1, -0.2, 0.0, 1.0])[:, None, None]
    other = tiny.msi * gain + offset
    plain = RegressionGLP().fit(tiny.training, tiny.model).predict(tiny.lrhsi, tiny.msi)
    scaled = RegressionGLP().fit(scene_of(tiny.lrhsi, other), tiny.model).predict(tiny.lrhsi, other)
    torch.testing.assert_close(scaled, plain, rtol=0, atol=2e-5)


@pytest.mark.parametrize("name", NAMES)
def test_the_hsi_s_units_are_the_result_s(tiny, name):
    """Reflectance times 10000 in, the same out."""
    plain = make_method(name).fit(tiny.training, tiny.model).predict(tiny.lrhsi, tiny.msi)
    large = scene_of(tiny.lrhsi * 1e4, tiny.msi)
    scaled = make_method(name).fit(large, tiny.model).predict(large.lrhsi, large.msi)
    torch.testing.assert_close(scaled / 1e4, plain, rtol=0, atol=2e-5)


def test_detail_helps_and_the_ensemble_more(tiny):
    errors = [
        rmse(make_method(n).fit(tiny.training, tiny.model).predict(tiny.lrhsi, tiny.msi), tiny.truth) for n in NAMES
    ]
    assert errors[0] > errors[1] > errors[2]


def test_invalid_pixels_teach_nothing(tiny):
    mask = torch.ones(1, 24, 20, dtype=torch.bool)
    mask[:, 5:9, 7:12] = False
    spoilt = tiny.lrhsi.clone()
    spoilt[:, :, ~mask[0]] = 50.0
    fits = [EnsembleGLP().fit(PairSample(low, tiny.msi, mask), tiny.model) for low in (tiny.lrhsi, spoilt)]
    for (a, _), (b, _) in zip(*(fit.weights for fit in fits), strict=True):
        torch.testing.assert_close(a, b)
    torch.testing.assert_close(fits[0].residual_share, fits[1].residual_share)


def test_few_pixels_make_a_small_subspace():
    scene = memory_scene((4, 3), 3)
    fuser = RegressionGLP().fit(scene.training, scene.model)
    assert fuser.subspace.dimension == 3  # one for every four pixels
    assert fuser.predict(scene.lrhsi, scene.msi).isfinite().all()


@pytest.mark.parametrize("name", [name for name in METHODS if not name.startswith("srlf")])
def test_flat_scenes_come_out_flat(name):
    """Whatever the MSI's level; scenes that a model has made are in test_degenerate_scenes.py, for all methods."""
    scene = memory_scene((8, 8), 3)
    flat = scene_of(torch.full_like(scene.lrhsi, 0.2), torch.full_like(scene.msi, 0.2))
    fused = make_method(name).fit(flat, scene.model).predict(flat.lrhsi, flat.msi)
    torch.testing.assert_close(fused, torch.full_like(scene.truth, 0.2), rtol=0, atol=1e-5)


def test_regression_finds_a_plane_and_distrusts_noise():
    g = torch.Generator().manual_seed(1)
    x = torch.randn(5, 300, generator=g)
    w, b = torch.randn(3, 5, generator=g), torch.randn(3, 1, generator=g)
    found, constant = ridge_regression(x, w @ x + b)
    np.testing.assert_allclose(found, w, atol=1e-5)
    np.testing.assert_allclose(constant, b, atol=1e-5)
    noise, _ = ridge_regression(x, torch.randn(3, 300, generator=g))
    plain = torch.linalg.lstsq(x.T.double(), torch.randn(300, 3, generator=g).double()).solution
    assert noise.norm() < plain.norm()


def test_duplicate_and_constant_features_do_no_harm():
    x = torch.randn(2, 200, generator=torch.Generator().manual_seed(3))
    doubled = torch.cat([x, x, torch.ones(1, 200)])
    weight, constant = ridge_regression(doubled, x[:1])
    torch.testing.assert_close(weight.float() @ doubled + constant.float(), x[:1], atol=1e-4, rtol=0)


def test_signal_is_told_from_noise():
    g = torch.Generator().manual_seed(0)
    noise = torch.randn(1, 3, 60, 60, generator=g)
    smooth = torch.nn.functional.avg_pool2d(torch.randn(1, 3, 64, 64, generator=g), 5, 1)
    mask = torch.ones(1, 60, 60, dtype=torch.bool)
    assert signal_share(noise, mask).max() < 0.15
    assert signal_share(smooth, mask).min() == 1

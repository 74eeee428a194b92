"""What all classical methods promise their callers, and the properties that define the direct ones."""

import pytest
import torch
from classical_scene import BANDS, make_model, make_scene, rmse, smooth_field

from hsfuse.core.errors import InputError
from hsfuse.methods import make_method
from hsfuse.methods.baselines import GLP, GSA, SFIM
from hsfuse.methods.problem import AffineMap, fit_affine
from hsfuse.physics.sample import PairSample

METHODS = ["gsa", "sfim", "glp", "cnmf", "hysure", "fuse", "conic"]
#: Largest difference of a tile's interior, fused with the stated halo, from the whole, relative to the image's RMS.
SEAM = {"gsa": 1e-5, "sfim": 1e-5, "glp": 1e-5, "cnmf": 2e-3, "hysure": 2e-3, "fuse": 2e-3, "conic": 2e-3}


@pytest.fixture(scope="module")
def scene():
    return make_scene(size=48, noise=0.003)


#: Fewer steps than by default, to keep the tests short.
SHORT = {
    "cnmf": {"endmembers": 8, "iterations": 60},
    "hysure": {"iterations": 10},
    "conic": {"atoms": 12, "alternations": 4},
}


def short_fuser(name):
    fuser = make_method(name)
    for setting, value in SHORT.get(name, {}).items():
        assert hasattr(fuser, setting)
        setattr(fuser, setting, value)
    return fuser


@pytest.fixture(scope="module", params=METHODS)
def fitted(request, scene):
    _, observed, model = scene
    return short_fuser(request.param).fit(observed, model)


def test_better_than_interpolation_and_plain_float32(fitted, scene):
    truth, observed, model = scene
    fused = fitted.predict(observed.lrhsi, observed.msi.requires_grad_())
    observed.msi.requires_grad_(False)
    assert fused.dtype == torch.float32
    assert not fused.requires_grad
    assert fused.shape == truth.shape
    assert rmse(fused, truth) < 0.8 * rmse(model.upsample(observed.lrhsi), truth)


def test_batch_mates_do_not_matter(fitted, scene):
    _, observed, _ = scene
    alone = fitted.predict(observed.lrhsi, observed.msi)
    both = fitted.predict(*(torch.cat([x, 0.2 + 2 * x.flip(-1)]) for x in (observed.lrhsi, observed.msi)))
    torch.testing.assert_close(both[:1], alone, rtol=1e-4, atol=1e-5)


def test_the_stated_halo_is_enough(fitted):
    _, observed, _ = make_scene(size=4 * 32, noise=0.003)
    crop = slice(0, 8 + fitted.requirements.halo)
    x, y = observed.lrhsi[..., crop, crop], observed.msi[..., : 4 * crop.stop, : 4 * crop.stop]
    inner = slice(0, 4 * 8)
    whole = fitted.predict(observed.lrhsi, observed.msi)[..., inner, inner]
    tile = fitted.predict(x, y)[..., inner, inner]
    assert float((whole - tile).abs().max()) < SEAM[fitted.id] * float(whole.square().mean().sqrt())


def test_description_is_text(fitted):
    described = fitted.describe()
    assert described["method"] == fitted.id
    assert all(isinstance(value, str) for value in described.values())


@pytest.mark.parametrize("name", METHODS)
def test_invalid_pixels_are_not_learned_from(name, scene):
    _, observed, model = scene
    mask = observed.mask.clone()
    mask[..., :3, :3] = False
    results = []
    for value in (0.1, 0.9):
        lrhsi = observed.lrhsi.clone()
        lrhsi[..., :3, :3] = value
        fuser = short_fuser(name).fit(PairSample(lrhsi, observed.msi, mask), model)
        results.append(fuser.predict(observed.lrhsi, observed.msi))
    assert rmse(results[0], results[1]) < 0.003


@pytest.mark.parametrize("cls", [GSA, SFIM, GLP])
def test_a_scene_linear_in_the_msi_is_recovered(cls):
    """C bands that are fixed mixtures of four images which the MSI shows too: the synthetic bands are the truth."""
    model = make_model()
    rng = torch.Generator().manual_seed(3)
    basis = torch.rand(BANDS, 4, generator=rng, dtype=torch.float64)
    truth = torch.einsum("cp,bphw->bchw", basis, smooth_field(4, 48, seed=4))
    lrhsi, msi = (x.float() for x in model(truth))
    observed = PairSample(lrhsi, msi, torch.ones(1, 12, 12, dtype=torch.bool))
    fused = cls().fit(observed, model).predict(lrhsi, msi)
    interpolated = rmse(model.upsample(lrhsi), truth)
    assert rmse(fused, truth) < 0.02 * interpolated


@pytest.mark.parametrize("cls", [SFIM, GLP])
def test_an_msi_without_detail_adds_nothing(cls, scene):
    _, observed, model = scene
    fuser = cls().fit(observed, model)
    flat = torch.full_like(observed.msi, 0.3)
    torch.testing.assert_close(fuser.predict(observed.lrhsi, flat), model.upsample(observed.lrhsi), atol=2e-5, rtol=0)


def test_sfim_stays_finite_where_the_synthetic_band_crosses_zero(scene):
    _, observed, model = scene
    fuser = SFIM().fit(observed, model)
    fuser.synthesis = AffineMap(fuser.synthesis.weight, fuser.synthesis.offset - 0.3)
    fused = fuser.predict(observed.lrhsi, observed.msi)
    bound = float(observed.lrhsi.max() ** 2 / (2 * fuser.damping.min().sqrt()))
    assert float(fused.abs().max()) < 3 * bound
    assert bool(fused.isfinite().all())


def test_gsa_gain_is_one_for_the_intensity_itself():
    _, observed, model = make_scene()
    linear = PairSample(model.spectral(observed.lrhsi), observed.msi, observed.mask)
    fuser = GSA().fit(linear, model)
    torch.testing.assert_close(fuser.gain, torch.ones_like(fuser.gain), atol=1e-3, rtol=0)


def test_affine_regression_recovers_an_affine_map():
    rng = torch.Generator().manual_seed(5)
    x, weight = (torch.randn(*shape, generator=rng, dtype=torch.float64) for shape in ((3, 200), (5, 3)))
    fitted = fit_affine(x, weight @ x + 2)
    torch.testing.assert_close(fitted.weight, weight, atol=1e-4, rtol=0)
    torch.testing.assert_close(fitted.columns(x), weight @ x + 2, atol=1e-4, rtol=0)


def test_too_few_valid_pixels_are_refused(scene):
    _, observed, model = scene
    mask = torch.zeros_like(observed.mask)
    mask[..., 0, :3] = True
    with pytest.raises(InputError, match="3 valid LR pixels"):
        GSA().fit(PairSample(observed.lrhsi, observed.msi, mask), model)

"""What a pair says against its sensors' model: a wrong response, PSF or place is named, a right one never."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scenes import WAVELENGTHS_NM, mixture
from scipy.ndimage import gaussian_filter

from hsfuse.calibration.contradiction import check_response, common_shift, compare_sensors
from hsfuse.calibration.misfit import misfit
from hsfuse.calibration.spectra import SharedPixels
from hsfuse.calibration.tone import estimate_tones
from hsfuse.core.errors import InputError
from hsfuse.physics import SpectralResponse, load_srf
from hsfuse.physics.model import ObservationModel, gaussian_psf

RATIO, SIGMA, SIDE = 4, 1.8, 36
BANDS = ("B2", "B3", "B4", "B8")
RESPONSE = load_srf("sentinel2a").select(BANDS)
MATRIX = RESPONSE.matrix(WAVELENGTHS_NM)[0]


@pytest.fixture(scope="module")
def truth() -> torch.Tensor:
    return torch.from_numpy(mixture((SIDE * RATIO, SIDE * RATIO)))[None].double()


def moved(shift_nm: float) -> SpectralResponse:
    """The sensor, its bands shifted."""
    return replace(RESPONSE, wavelengths_nm=RESPONSE.wavelengths_nm + shift_nm)


def seen(truth: torch.Tensor, response: SpectralResponse = RESPONSE, snr: float = 40, seed: int = 0):
    """LRHSI, MSI and mask as the sensors see them with noise."""
    rng = np.random.default_rng(seed)
    images = ObservationModel(response.matrix(WAVELENGTHS_NM)[0], gaussian_psf(SIGMA, RATIO), RATIO)(truth)
    noise = [torch.from_numpy(rng.standard_normal(x.shape)) for x in images]
    noisy = [x + x.square().mean().sqrt() * 10 ** (-snr / 20) * n for x, n in zip(images, noise, strict=True)]
    return *noisy, torch.ones(noisy[0][:, 0].shape, dtype=torch.bool)


def pixels(images, sigma: float = SIGMA) -> SharedPixels:
    return SharedPixels(*images, ObservationModel(MATRIX, gaussian_psf(sigma, RATIO), RATIO))


def test_a_right_response_is_never_contradicted(truth):
    for seed, snr in enumerate((25, 45)):
        found = check_response(pixels(seen(truth, snr=snr, seed=seed)), RESPONSE, BANDS, WAVELENGTHS_NM)
        assert [band.band for band in found] == list(BANDS)
        assert not [band.describe() for band in found if band.contradicts]


@pytest.mark.parametrize("by", [15.0, -12.0])
def test_one_shift_of_all_bands_is_told_as_one(truth, by):
    shared = pixels(seen(truth, moved(by)))
    bands = check_response(shared, RESPONSE, BANDS, WAVELENGTHS_NM)
    common = common_shift(shared, RESPONSE, bands, range(4), WAVELENGTHS_NM)
    assert common.is_clear
    assert common.nm == pytest.approx(by, abs=max(1.5, 3 * common.sd_nm))
    assert common.describe().endswith("higher" if by > 0 else "lower")


def test_one_band_that_is_shifted_is_no_common_shift(truth):
    curves = RESPONSE.response.copy()
    curves[0] = np.interp(RESPONSE.wavelengths_nm, moved(15.0).wavelengths_nm, RESPONSE.response[0])
    for response in (RESPONSE, replace(RESPONSE, response=curves)):
        shared = pixels(seen(truth, response))
        bands = check_response(shared, RESPONSE, BANDS, WAVELENGTHS_NM)
        assert not common_shift(shared, RESPONSE, bands, range(4), WAVELENGTHS_NM).is_clear


def test_bands_far_apart_tell_no_width(truth):
    """Between HSI bands 68 nm apart nobody knows the spectrum: how wide the MSI's are can't be told."""
    lrhsi, *others = seen(truth, snr=20)
    few = WAVELENGTHS_NM[::4]
    model = ObservationModel(RESPONSE.matrix(few)[0], gaussian_psf(SIGMA, RATIO), RATIO)
    found = check_response(SharedPixels(lrhsi[:, ::4], *others, model), RESPONSE, BANDS, few)
    assert [band.widened_by for band in found] == [None] * len(BANDS)
    assert not [band.describe() for band in found if band.contradicts]
    finer = check_response(pixels((lrhsi, *others)), RESPONSE, BANDS, WAVELENGTHS_NM)
    assert all(band.widened_by is not None for band in finer if band.band != "B4")


def test_a_wrong_psf_or_noise_that_bands_share_is_no_other_response(truth):
    lrhsi, msi, mask = seen(truth)
    shared = 0.01 * torch.from_numpy(np.random.default_rng(1).standard_normal((1, 1, *lrhsi.shape[2:])))
    for images, sigma in (((lrhsi, msi, mask), 1.5 * SIGMA), ((lrhsi + shared, msi, mask), SIGMA)):
        found = check_response(pixels(images, sigma), RESPONSE, BANDS, WAVELENGTHS_NM)
        assert not [band.describe() for band in found if band.contradicts]


def test_shifted_bands_are_found_with_their_place(truth):
    found = check_response(pixels(seen(truth, moved(12))), RESPONSE, BANDS, WAVELENGTHS_NM)
    wrong = [band for band in found if band.is_shifted]
    assert len(wrong) >= 2
    for band in wrong:
        assert band.shift_nm == pytest.approx(12, abs=max(3.0, 3 * band.shift_sd_nm))
        assert "nm, not at" in band.describe()


def test_bands_in_another_order_are_named(truth):
    lrhsi, msi, mask = seen(truth)
    found = check_response(pixels((lrhsi, msi[:, [2, 1, 0, 3]], mask)), RESPONSE, BANDS, WAVELENGTHS_NM)
    assert [band.other for band in found] == ["B4", "", "B2", ""]


def test_the_sensor_that_fits_has_the_least_chi_square(truth):
    several = [moved(shift) for shift in (-10, 0, 10)]
    found = compare_sensors(pixels(seen(truth, several[2])), several, BANDS, WAVELENGTHS_NM)
    assert np.argmin(found) == 2


def test_too_small_a_scene_tells_nothing(truth):
    small = [part[..., : 14 * s, : 14 * s] for part, s in zip(seen(truth), (1, RATIO, 1), strict=True)]
    assert check_response(pixels(small), RESPONSE, BANDS, WAVELENGTHS_NM) == []
    with pytest.raises(InputError, match="lie inside both images"):
        pixels([part[..., : 8 * s, : 8 * s] for part, s in zip(seen(truth), (1, RATIO, 1), strict=True)])


def test_the_right_model_leaves_noise_alone(truth):
    for seed, snr in enumerate((25, 35, 45)):
        found = misfit(pixels(seen(truth, snr=snr, seed=seed)), MATRIX)
        assert found.times == pytest.approx(1, abs=0.1)
        assert not found.is_loud(resampled=False)


def shifted(images):
    lrhsi, msi, mask = images
    return lrhsi, msi.roll((2, -1), (2, 3)), mask


def curved(images):
    lrhsi, msi, mask = images
    return lrhsi, msi.clamp(min=0) ** 0.4, mask


@pytest.mark.parametrize(
    ("part", "sigma", "change"),
    [
        ("PSF", 1.5 * SIGMA, tuple),
        ("PSF", SIGMA / 2, tuple),
        ("place", SIGMA, shifted),
        ("radiometry", SIGMA, curved),
    ],
)
def test_the_part_of_the_model_that_is_wrong_is_named(truth, part, sigma, change):
    found = misfit(pixels(change(seen(truth)), sigma), MATRIX)
    assert found.is_loud(resampled=False)
    assert found.part == part
    assert found.alike
    assert found.where > 0.9


def test_a_wrong_response_explains_alike_all_over(truth):
    found = misfit(pixels(seen(truth, moved(25.0))), MATRIX)
    assert found.part == "response"
    assert found.alike


def field(smooth: float, seed: int) -> torch.Tensor:
    drawn = gaussian_filter(np.random.default_rng(seed).standard_normal((SIDE * RATIO, SIDE * RATIO)), smooth)
    return torch.from_numpy(1 / (1 + np.exp(-4 * drawn / drawn.std())))


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("what", ["thin cloud", "shadows", "another season"])
def test_what_one_image_alone_shows_is_blamed_on_no_part_of_the_model(truth, what, seed):
    """In thin cloud another response explains more than half of the misfit, but not all over the scene."""
    lrhsi, msi, mask = seen(truth)
    where = field(8, seed)
    if what == "another season":
        grown = torch.from_numpy(np.interp(WAVELENGTHS_NM, [450, 740], [0.1, 0.3]))[:, None, None]
        msi = msi + torch.einsum("cb,bhw->chw", torch.from_numpy(MATRIX), 0.3 * grown * where)[None]
    else:
        msi = (1 - 0.25 * where) * msi + (0.7 * 0.25 * where if what == "thin cloud" else 0)
    found = misfit(pixels((lrhsi, msi, mask)), MATRIX)
    assert found.is_loud(resampled=False)
    assert not found.alike
    assert 0.2 < found.where <= 1


def tones(images):
    shared = pixels(images)
    return estimate_tones(shared, images[1], MATRIX)


def test_a_linear_msi_stays_linear(truth):
    for seed, snr in enumerate((25, 45)):
        lrhsi, msi, mask = seen(truth, snr=snr, seed=seed)
        assert not tones((lrhsi, 1.3 * msi + 0.05, mask))


def test_a_curved_tone_is_found_and_taken_out(truth):
    """Back to reflectance within 1 % of its range over nine tenths of the pixels, .05 % in the median."""
    lrhsi, msi, mask = seen(truth)
    stretched = 255 * (msi.clamp(min=0) / msi.max()) ** 0.45
    found = tones((lrhsi, stretched, mask))
    assert all(one is not None for one in found.numbers)
    back = found.apply(stretched.numpy())
    off = np.abs(back - msi.numpy()) / (msi.max() - msi.min()).item()
    assert np.quantile(off, 0.9) < 0.01
    assert np.median(off, axis=(0, 2, 3)).max() < 0.0005
    assert all((np.diff(one) > 0).all() for one in found.reflectance)
    assert found.only(np.array([True, False, False, False])).describe(BANDS).startswith("B2: ")


def test_a_gamma_is_told_as_one_and_another_curve_is_not(truth):
    """A gamma is known beyond the LR pixels' values, too: all pixels come back within .5 % of the range."""
    lrhsi, msi, mask = seen(truth)
    share = msi.clamp(min=0) / msi.max()
    found = tones((lrhsi, 255 * share**0.45, mask))
    np.testing.assert_allclose(found.power, 1 / 0.45, rtol=0.02)
    off = np.abs(found.apply((255 * share**0.45).numpy()) - msi.numpy()) / (msi.max() - msi.min()).item()
    assert off.max() < 0.005
    assert found.is_shared
    assert "(a gamma of 0.45)" in found.describe(BANDS)
    steep = tones((lrhsi, 255 / (1 + torch.exp(-8 * (share - 0.4))), mask))
    assert sum(one is not None for one in steep.numbers) >= 3
    assert not steep.power.any()


def test_bands_of_one_gamma_are_told_it_together(truth):
    """In noise of 25 dB, where their own differ by some hundredths."""
    for seed in range(3):
        lrhsi, msi, mask = seen(truth, snr=25, seed=seed)
        found = tones((lrhsi, msi.clamp(min=0) ** 0.8, mask))
        assert found.is_shared
        np.testing.assert_allclose(found.power, 1 / 0.8, rtol=0.03)


def test_what_bends_one_band_alone_is_no_tone(truth):
    """Another response, or chance: a stretch bends them all."""
    lrhsi, msi, mask = seen(truth)
    msi[:, 1] = msi[:, 1].clamp(min=0) ** 0.6
    assert not tones((lrhsi, msi, mask))


def test_what_curves_explain_of_a_misfit_is_theirs_alone(truth):
    lrhsi, msi, mask = seen(truth)
    bent = curved((lrhsi, msi, mask))
    shared = pixels(bent)
    back = estimate_tones(shared, bent[1], MATRIX).apply(bent[1].numpy())
    found = misfit(shared, MATRIX)
    explained = found.explained_by(pixels((lrhsi, torch.from_numpy(back), mask)).msi, shared, MATRIX)
    assert explained.min() > 0.97
    assert found.explained_by(shared.msi, shared, MATRIX).max() < 1e-6

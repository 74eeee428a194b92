"""What a pair tells of its own observation: response, PSF, shift and radiometry recovered from simulated pairs.

The pairs have noise of 35 dB (LRHSI) and 40 dB (MSI). Tolerances: centres 3 nm and a tenth of the band's width, PSF
widths 5 %, angle 5 degrees, shift 0.1 MSI pixel, fused accuracy 0.5 dB.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter, gaussian_filter1d, map_coordinates, shift

from hsfuse.calibration import (
    compare_responses,
    estimate_psf,
    estimate_srf,
    match_radiometry,
)
from hsfuse.calibration.joint import estimate_observation
from hsfuse.calibration.kernels import HALOS, ROUND, TURNED, Haloed
from hsfuse.calibration.radiometry import match_lines
from hsfuse.calibration.response import EstimatedResponse, FlatTops, centres_widths, second_difference
from hsfuse.calibration.shift import shift_of_blocks
from hsfuse.calibration.spectra import clean_spectra, low_pixels
from hsfuse.calibration.views import Search, Views, surroundings
from hsfuse.calibration.windows import Block, apart
from hsfuse.core.errors import InputError, SettingError
from hsfuse.physics import load_srf, write_srf
from hsfuse.physics.model import ObservationModel, Psf, box_psf, elliptic_psf, gaussian_psf
from hsfuse.physics.optics import sigma_from_mtf

NM = np.arange(405.0, 1000.0, 7.0)
BANDS = ("B2", "B3", "B4", "B6", "B8", "B8A")
RESPONSE = load_srf("sentinel2a").select(BANDS)
MATRIX = RESPONSE.matrix(NM)[0]
SCALE, SIDE = 4, 30


def truth(seed: int = 0, materials: int = 14) -> np.ndarray:
    """Reflectance (C, H, W): random smooth spectra in patches with soft edges."""
    rng = np.random.default_rng(seed)
    fine, side = np.arange(300.0, 1100.0), SIDE * SCALE
    curves = gaussian_filter1d(rng.standard_normal((materials, fine.size)), 22, axis=1)
    curves = np.stack([np.interp(NM, fine, curve / curve.std()) for curve in curves])
    widths = np.geomspace(1.5, 6, materials)
    maps = np.stack([gaussian_filter(rng.standard_normal((side, side)), width) for width in widths])
    maps = np.exp(3 * maps / maps.std(axis=(1, 2), keepdims=True))
    return np.tensordot((0.3 + 0.09 * curves).T, maps / maps.sum(0), 1)


@dataclass(frozen=True)
class Seen:
    """A simulated pair: truth (1, C, H, W), blocks, and the model that made them."""

    truth: torch.Tensor
    lrhsi: torch.Tensor
    msi: torch.Tensor
    model: ObservationModel

    @property
    def mask(self) -> torch.Tensor:
        return torch.ones(self.lrhsi[:, 0].shape, dtype=torch.bool)

    @property
    def images(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        return self.lrhsi, self.msi, self.mask


def noisy(image: torch.Tensor, snr: float, rng: np.random.Generator) -> torch.Tensor:
    power = image.square().mean((0, 2, 3), keepdim=True)
    return image + torch.from_numpy(rng.standard_normal(image.shape)) * (power * 10 ** (-snr / 10)).sqrt()


def observed(psf: Psf, seed: int = 0, matrix: np.ndarray = MATRIX) -> Seen:
    rng = np.random.default_rng(seed + 100)
    x, model = torch.from_numpy(truth(seed))[None], ObservationModel(matrix, psf, SCALE)
    return Seen(x, noisy(model.spatial(x), 35, rng), noisy(model.spectral(x), 40, rng), model)


@pytest.fixture(scope="module")
def usual() -> Seen:
    return observed(gaussian_psf(sigma_from_mtf(0.3, SCALE), SCALE))


@pytest.fixture(scope="module")
def plain(usual: Seen) -> EstimatedResponse:
    """What the usual pair tells of its response."""
    return estimate_srf(*usual.images, usual.model, NM)


def angle_deg(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    cos = (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
    return np.degrees(np.arccos(cos))


# ---- curves


def test_flat_tops_are_means_with_the_right_centre() -> None:
    weights = FlatTops.at(NM).weights(np.array([500.0, 703.0]), np.array([60.0, 25.0]), np.array([0.1, 0.2]))
    np.testing.assert_allclose(weights.sum(1), 1)
    np.testing.assert_allclose(weights @ NM, [500, 703], atol=0.2)
    assert weights.min() >= 0


def test_a_flat_top_far_from_every_band_is_empty() -> None:
    assert FlatTops.at(NM).weights(np.array([2000.0]), np.array([20.0]), np.array([0.1])).sum() == 0


def test_second_differences_see_a_parabola_on_any_spacing() -> None:
    x = np.cumsum(np.random.default_rng(0).uniform(0.5, 2, 20))
    cells = (x[2:] - x[:-2]) / 2
    np.testing.assert_allclose(second_difference(x) @ (3 * x**2 - x), 6 * np.sqrt(cells), rtol=1e-9)


def test_spectra_keep_the_dimensions_that_stand_out_of_noise() -> None:
    rng = np.random.default_rng(0)
    noise = rng.uniform(0.5, 2, 40)[:, None]
    spectra = rng.standard_normal((40, 5)) @ rng.standard_normal((5, 900)) * 3 + noise * rng.standard_normal((40, 900))
    clean = clean_spectra(spectra)
    assert clean.basis.shape == (40, 5)
    np.testing.assert_allclose(clean.scores @ clean.scores.T / 900, clean.moment, atol=1e-6 * clean.moment.max())


# ---- response


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in (1, 2))])
def test_response_is_recovered(seed: int) -> None:
    seen = observed(gaussian_psf(2.0, SCALE), seed)
    found = estimate_srf(*seen.images, seen.model, NM)
    centre, width = centres_widths(MATRIX, NM)
    assert np.abs(found.centre_nm - centre).max() < 3
    assert (np.abs(found.centre_nm - centre) < 0.1 * width + 1).all()
    assert angle_deg(found.matrix, MATRIX).max() < 20
    np.testing.assert_allclose(found.matrix.sum(1), 1)
    assert found.matrix.min() >= 0
    np.testing.assert_allclose(found.gain, 1, atol=0.03)
    assert np.abs(found.offset).max() < 0.01
    assert found.correlation.min() > 0.99


def test_response_does_not_depend_on_the_msi_gain_and_offset(usual: Seen, plain: EstimatedResponse) -> None:
    found = estimate_srf(usual.lrhsi, 1.4 * usual.msi + 0.05, usual.mask, usual.model, NM)
    np.testing.assert_allclose(found.matrix, plain.matrix, atol=2e-3)
    np.testing.assert_allclose(found.gain, 1.4 * plain.gain, rtol=1e-2)


def test_order_and_doubles_of_the_hsi_bands_do_not_matter(usual: Seen, plain: EstimatedResponse) -> None:
    order = np.random.default_rng(0).permutation(np.append(np.arange(NM.size), 20))
    found = estimate_srf(usual.lrhsi[:, order], usual.msi, usual.mask, usual.model, NM[order])
    doubled = np.where(order == 20, 2.0, 1.0)
    np.testing.assert_allclose(found.matrix * doubled, plain.matrix[:, order], atol=1e-9)


def test_a_range_can_be_given(usual: Seen, plain: EstimatedResponse) -> None:
    ranges = [(430, 560), (600, 700), *[None] * 4]
    found = estimate_srf(*usual.images, usual.model, NM, within_nm=ranges)
    assert abs(found.centre_nm[0] - plain.centre_nm[0]) < 1.5
    assert found.matrix[1, (NM < 600) | (NM > 700)].max() == 0
    assert found.residual[1] > 2 * plain.residual[1]  # B3 is at 560 nm
    with pytest.raises(SettingError, match="hold 2 HSI bands, wanted 3"):
        estimate_srf(*usual.images, usual.model, NM, within_nm=[(500, 514), *[None] * 5])


def test_spread_says_what_smooth_spectra_leave_open(usual: Seen, plain: EstimatedResponse) -> None:
    """Two materials: one direction alone, so that the place of a band hardly shows."""
    x = torch.from_numpy(truth(materials=2))[None]
    rng = np.random.default_rng(0)
    lrhsi, msi = noisy(usual.model.spatial(x), 35, rng), noisy(usual.model.spectral(x), 40, rng)
    poor = estimate_srf(lrhsi, msi, usual.mask, usual.model, NM)
    assert poor.dimension < plain.dimension
    assert np.median(plain.centre_sd_nm) < 2
    assert np.median(poor.centre_sd_nm) > 3 * np.median(plain.centre_sd_nm)


def test_masked_pixels_take_no_part(usual: Seen, plain: EstimatedResponse) -> None:
    lrhsi, msi, mask = usual.lrhsi.clone(), usual.msi.clone(), usual.mask.clone()
    mask[0, 12:15, 3:6] = False
    lrhsi[0, :, 12:15, 3:6] = 9.0
    msi[0, :, 48:60, 12:24] = -5.0
    found = estimate_srf(lrhsi, msi, mask, usual.model, NM)
    assert np.abs(found.centre_nm - plain.centre_nm).max() < 2
    psf = estimate_psf(lrhsi, msi, mask, MATRIX, SCALE)
    np.testing.assert_allclose(psf.sigma, sigma_from_mtf(0.3, SCALE), rtol=0.05)


def test_a_constant_band_and_too_few_pixels(usual: Seen) -> None:
    flat = usual.msi.clone()
    flat[:, 2] = 0.2
    with pytest.raises(InputError, match="MSI band 3 is constant"):
        estimate_srf(usual.lrhsi, flat, usual.mask, usual.model, NM)
    few = torch.zeros_like(usual.mask)
    few[0, :4, :4] = True
    with pytest.raises(InputError, match="16 LR pixels are valid in both images, wanted at least 64"):
        estimate_srf(usual.lrhsi, usual.msi, few, usual.model, NM)
    with pytest.raises(InputError, match="LR pixels lie"):
        estimate_psf(usual.lrhsi, usual.msi, few, MATRIX, SCALE)


def test_images_that_show_the_opposite(usual: Seen) -> None:
    with pytest.raises(InputError, match="doesn't rise with any HSI band"):
        estimate_srf(0.01 * usual.lrhsi - usual.lrhsi.mean(1, keepdim=True), usual.msi, usual.mask, usual.model, NM)


# ---- the estimate as a response


def test_written_and_read_it_is_the_same_matrix(plain: EstimatedResponse, tmp_path) -> None:
    path = write_srf(plain.as_response(BANDS), tmp_path / "own.csv", about={"estimated": "from a.tif"})
    again = load_srf(path)
    assert (again.bands, again.weights) == (BANDS, True)
    matrix, coverage = again.matrix(NM)
    np.testing.assert_allclose(matrix, plain.matrix, atol=2e-6)
    np.testing.assert_allclose(coverage, 1)


def test_it_serves_another_hsi_as_a_curve(plain: EstimatedResponse) -> None:
    other = np.arange(420.0, 980.0, 10.0)
    matrix, _ = plain.as_response(BANDS).matrix(other)
    np.testing.assert_allclose(matrix @ other, plain.centre_nm, atol=1.5)


def test_comparison_with_the_right_and_the_wrong_sensor(plain: EstimatedResponse) -> None:
    assert not any(band.disagrees for band in compare_responses(plain, RESPONSE, BANDS))
    wrong = compare_responses(plain, load_srf("sentinel2a"), ("B2", "B3", "B5", "B6", "B8", "B8A"))
    assert [band.band for band in wrong if band.disagrees] == ["B5"]
    assert "704" in wrong[2].describe()


# ---- PSF


def test_an_ellipse_of_equal_widths_is_the_gaussian() -> None:
    np.testing.assert_allclose(elliptic_psf(1.7, 1.7, 33, 4).kernel, gaussian_psf(1.7, 4).kernel, atol=1e-15)
    np.testing.assert_allclose(elliptic_psf(1.2, 2.5, 90, 4).kernel, elliptic_psf(2.5, 1.2, 0, 4).kernel, atol=1e-15)


def test_an_ellipse_turned_a_little_leans_down_to_the_right() -> None:
    kernel = elliptic_psf(1.0, 2.5, 20, 3).kernel
    t = np.arange(len(kernel)) - (len(kernel) - 1) / 2
    assert (kernel * t[:, None] * t).sum() > 0.5  # rows count downwards


@pytest.mark.parametrize("bad", [(0, 1), (1, -1), (np.inf, 1), (np.nan, 1)])
def test_widths_that_cannot_be(bad: tuple[float, float]) -> None:
    with pytest.raises(SettingError, match="wanted positive"):
        elliptic_psf(*bad, 0, 4)


def test_mtf_is_the_one_asked_for() -> None:
    np.testing.assert_allclose(gaussian_psf(sigma_from_mtf(0.25, 5), 5).mtf(5), 0.25, rtol=1e-3)
    y, x = elliptic_psf(3.0, 1.5, 0, 4).mtf(4)
    assert y < x


def test_ellipse_reads_back_widths_and_angle() -> None:
    sy, sx, theta = 1.3, 2.4, np.radians(-35)
    x, y = np.array([np.cos(theta), np.sin(theta)]), np.array([-np.sin(theta), np.cos(theta)])
    covariance = (sx**2 * np.outer(x, x) + sy**2 * np.outer(y, y))[::-1, ::-1]  # from (x, y) to (y, x)
    root = np.linalg.cholesky(covariance)
    found = TURNED.widths(np.array([np.log(root[0, 0]), np.log(root[1, 1]), root[1, 0]]), 1)
    np.testing.assert_allclose(found, [1.3, 2.4, -35])


@pytest.mark.parametrize(("sy", "sx", "theta"), [(2.0, 2.0, 0), (2.6, 1.6, 25), (1.4, 2.2, -40)])
def test_psf_is_recovered(sy: float, sx: float, theta: float) -> None:
    seen = observed(elliptic_psf(sy, sx, theta, SCALE))
    found = estimate_psf(*seen.images, MATRIX, SCALE)
    np.testing.assert_allclose(found.sigma, [sy, sx], rtol=0.05)
    assert sy == sx or abs(found.theta_deg - theta) < 5
    np.testing.assert_allclose(found.shift, 0, atol=0.1)
    np.testing.assert_allclose(found.mtf, seen.model.psf.mtf(SCALE), atol=0.03)
    assert max(found.sigma_sd) < 0.1
    assert "MTF" in found.describe()


def test_a_turned_psf_is_told_with_its_units_and_uncertainties() -> None:
    found = estimate_psf(*observed(elliptic_psf(1.5, 2.2, 35, SCALE), 2).images, MATRIX, SCALE)
    assert found.family == "turned"
    figure = r"-?[\d.]+ \+- [\d.]+"
    told = rf"standard deviation {figure} \(y\) and {figure} \(x\) MSI pixels, turned by {figure} degrees, "
    assert re.search(told + rf"MTF at Nyquist {figure} \(y\) and {figure} \(x\)$", found.describe())


def test_a_shift_is_not_taken_for_width(usual: Seen) -> None:
    moved = torch.roll(usual.msi, (-2, 1), (2, 3))  # the HSI shows what the MSI shows 2 rows up and 1 column right
    found = estimate_psf(usual.lrhsi, moved, usual.mask, MATRIX, SCALE)
    np.testing.assert_allclose(found.shift, [-2, 1], atol=0.1)
    np.testing.assert_allclose(found.sigma, sigma_from_mtf(0.3, SCALE), rtol=0.05)


def test_psf_does_not_depend_on_gain_and_offset(usual: Seen) -> None:
    plain = estimate_psf(*usual.images, MATRIX, SCALE)
    found = estimate_psf(usual.lrhsi, 0.6 * usual.msi - 0.02, usual.mask, MATRIX, SCALE)
    np.testing.assert_allclose(found.sigma, plain.sigma, rtol=1e-3)
    np.testing.assert_allclose(found.gain, 0.6 * plain.gain, rtol=1e-3)


ASSUMED = gaussian_psf(sigma_from_mtf(0.3, SCALE), SCALE)


@pytest.mark.parametrize(
    ("psf", "family"),
    [
        (ASSUMED, "assumed"),
        (gaussian_psf(1.6, SCALE), "round"),
        (box_psf(SCALE), "box"),
        (box_psf(SCALE, sigma=1.2), "blurred box"),
        (elliptic_psf(1.4, 2.0, 0, SCALE), "elliptic"),
        (elliptic_psf(1.5, 2.2, 35, SCALE), "turned"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_the_simplest_family_that_fits_is_taken(psf: Psf, family: str) -> None:
    seen = observed(psf, 2)
    found = estimate_psf(*seen.images, MATRIX, SCALE, given=ASSUMED)
    assert found.family == family
    assert not found.doubt
    np.testing.assert_allclose(found.mtf, psf.mtf(SCALE), atol=0.02)
    assert len(found.psf.separable_terms()) <= (8 if family == "turned" else 1)


def with_halo(core: Psf, share: float, width: float) -> Psf:
    """A PSF and a halo of `width` MSI pixels with a share of the light, by its definition over 8 LR pixels."""
    size = 8 * SCALE
    taps = np.exp(-((np.arange(size) - (size - 1) / 2) ** 2) / 2 / width**2)
    halo = np.outer(taps, taps) / taps.sum() ** 2
    return Psf((1 - share) * np.pad(core.kernel, (size - core.size) // 2) + share * halo)


@pytest.mark.parametrize(
    ("core", "family"),
    [
        (gaussian_psf(1.6, SCALE), "round"),
        (box_psf(SCALE), "box"),
        (elliptic_psf(1.4, 2.0, 0, SCALE), "elliptic"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
@pytest.mark.parametrize(("share", "width"), [(0.2, 6.0), (0.1, 5.0)])
def test_a_halo_about_a_core_is_found(core: Psf, family: str, share: float, width: float) -> None:
    psf = with_halo(core, share, width)
    found = estimate_psf(*observed(psf, 2).images, MATRIX, SCALE, given=ASSUMED)
    assert found.family == f"{family} with halo"
    assert found.halo is not None
    assert found.halo_sd is not None
    np.testing.assert_allclose(found.halo, (share, width), rtol=0.12)
    assert (np.abs(np.subtract(found.halo, (share, width))) < 3 * np.array(found.halo_sd)).all()
    np.testing.assert_allclose(found.sigma, _widths_of(core), rtol=0.04)
    np.testing.assert_allclose(found.mtf, psf.mtf(SCALE), atol=0.02)
    assert len(found.psf.separable_terms()) == 2
    assert re.search(r" % of the light in a halo of [\d.]+ \+- [\d.]+ MSI pixels, MTF ", found.describe())


def _widths_of(psf: Psf) -> tuple[float, float]:
    taps = np.arange(psf.size) - (psf.size - 1) / 2
    return float(np.sqrt(psf.kernel.sum(1) @ taps**2)), float(np.sqrt(psf.kernel.sum(0) @ taps**2))


@pytest.mark.parametrize("seed", [1, 3])
def test_a_halo_has_its_place(seed: int) -> None:
    """The PSF about where LR pixels lie has the halo there, too."""
    seen = observed(with_halo(gaussian_psf(1.6, SCALE), 0.2, 6.0), seed)
    moved = torch.from_numpy(shift(seen.msi.numpy(), (0, 0, -1.2, 0.7), order=3, mode="nearest"))
    found = estimate_psf(seen.lrhsi, moved, seen.mask, MATRIX, SCALE, given=ASSUMED)
    assert found.family == "round with halo"
    np.testing.assert_allclose(found.shift, (-1.2, 0.7), atol=0.05)
    np.testing.assert_allclose(found.shifted.centre, found.shift, atol=0.05)
    assert found.psf.centre == (0, 0)


@pytest.mark.parametrize("seed", range(3))
def test_no_halo_is_found_without_one(seed: int) -> None:
    for psf in (gaussian_psf(1.6, SCALE), box_psf(SCALE, sigma=1.2), elliptic_psf(1.5, 2.2, 35, SCALE)):
        assert estimate_psf(*observed(psf, seed).images, MATRIX, SCALE).halo is None


def test_ground_that_is_other_or_lit_otherwise_is_not_taken_for_a_halo() -> None:
    """Other fields in a fifth of the scene, misplaced ground, light that varies over a few LR pixels."""
    seen = observed(gaussian_psf(1.6, SCALE), 2)
    other, (h, w) = seen.msi.clone(), seen.msi.shape[2:]
    other[..., : h // 2, : w // 2] = seen.msi.flip(2, 3)[..., : h // 2, : w // 2]
    light = gaussian_filter(np.random.default_rng(4).standard_normal((h, w)), 2 * SCALE)
    lit = seen.msi * torch.from_numpy(1 + 0.05 * light / light.std())
    for msi in (other, lit, misplaced(seen.msi, 1, 10)):
        assert estimate_psf(seen.lrhsi, msi, seen.mask, MATRIX, SCALE, given=ASSUMED).halo is None


@pytest.mark.parametrize("centre", [(0.0, 0.0), (0.8, -1.3)])
def test_what_is_seen_through_a_halo_is_what_the_model_sees(centre: tuple[float, float]) -> None:
    """About its place; at widths between those that are looked at within what is smaller than noise."""
    seen, at = observed(gaussian_psf(1.6, SCALE), 1), np.array(centre)
    target = torch.einsum("kc,bchw->bkhw", torch.from_numpy(MATRIX), seen.lrhsi)
    views, _ = Views.of(target, seen.msi, seen.mask, SCALE, 1.5)
    search, family = Search(views, np.ones_like(views.target), around=surroundings(views, at)), Haloed.about(ROUND)
    row, col = ((views.corner[1:] + (views.size - 1) / 2) // SCALE).astype(int)
    for log_width in (HALOS[3], HALOS[3:5].mean()):
        shape = np.array([np.log(0.4), log_width, 0.0])
        model = ObservationModel(MATRIX, Psf(family.kernel(shape, views.size, at, SCALE)), SCALE)
        wanted = model.spatial(torch.from_numpy(views.image).double())[0].numpy()[:, row, col]
        near = views.seen(family.near(shape, views.size, at, SCALE)[None])[0]
        off = near + search._far(family, shape) - wanted
        assert off.std() < 0.01 * wanted.std(), log_width


def misplaced(msi: torch.Tensor, by: float, roughness: float, seed: int = 3) -> torch.Tensor:
    """The MSI with its content moved about by a smooth random field of `by` pixels RMS."""
    rng, (h, w) = np.random.default_rng(seed), msi.shape[-2:]
    fields = [gaussian_filter(rng.standard_normal((h, w)), roughness) for _ in range(2)]
    at = [axis + by * field / field.std() for axis, field in zip(np.mgrid[:h, :w], fields, strict=True)]
    return torch.from_numpy(np.stack([map_coordinates(band, at, order=3, mode="nearest") for band in msi[0].numpy()]))[
        None
    ]


@pytest.mark.parametrize(("by", "roughness"), [(2, 30), (4, 16), (2, 6), (1, 10)])
def test_misplacement_is_not_taken_for_blur(by: float, roughness: float) -> None:
    seen = observed(gaussian_psf(1.7, SCALE), 1)
    found = estimate_psf(seen.lrhsi, misplaced(seen.msi, by, roughness), seen.mask, MATRIX, SCALE, given=ASSUMED)
    assert found.sigma[0] <= 1.2 * 1.7
    if found.family != "assumed":  # what is claimed holds within its uncertainty
        assert np.abs(np.array(found.sigma) - 1.7).max() < 2 * max(found.sigma_sd)


@pytest.mark.parametrize(("by", "roughness", "within"), [(1, 30, 0.05), (2, 16, 0.1), (1, 6, 0.1)])
def test_a_psf_is_found_where_ground_is_misplaced(by: float, roughness: float, within: float) -> None:
    """Cells are looked at where they lie: a kernel about a wrong place would have to be wider by 10 to 35 %."""
    seen = observed(gaussian_psf(1.7, SCALE), 1)
    found = estimate_psf(seen.lrhsi, misplaced(seen.msi, by, roughness), seen.mask, MATRIX, SCALE, given=ASSUMED)
    assert found.family != "assumed"
    np.testing.assert_allclose(found.sigma, 1.7, rtol=within)
    assert max(found.sigma_sd) > np.abs(np.array(found.sigma) - 1.7).max() / 2


def placed_halves(by: float, seed: int) -> np.ndarray:
    """Differences of place between left and right half, by PSF and by registration, and their deviations: (2, 4)."""
    seen = observed(gaussian_psf(1.7, SCALE), 1)
    msi, cut, found = misplaced(seen.msi, by, 40, seed) if by else seen.msi, SIDE // 2, []
    for part in (slice(0, cut), slice(cut, SIDE)):
        low, high = seen.lrhsi[..., part], msi[..., part.start * SCALE : part.stop * SCALE]
        psf = estimate_psf(low, high, seen.mask[..., part], MATRIX, SCALE)
        matched = np.tensordot(MATRIX, low[0].numpy(), 1)
        block = Block(matched, high[0].numpy(), *(np.ones(image.shape[-2:], bool) for image in (low, high)))
        shift = shift_of_blocks([block], ObservationModel(np.eye(len(MATRIX)), psf.psf, SCALE))
        found.append(
            ([*psf.shift, -shift.dy * SCALE, -shift.dx * SCALE], [*psf.shift_sd, *2 * [shift.uncertainty * SCALE]])
        )
    (one, sd), (other, other_sd) = found
    return np.array([np.subtract(one, other), np.hypot(sd, other_sd)])


@pytest.mark.parametrize("seed", [1, *(pytest.param(seed, marks=pytest.mark.slow) for seed in (0, 2))])
def test_places_of_halves_agree_within_what_is_stated(seed: int) -> None:
    """Windows lie beside others that are misplaced alike: their number makes a place no surer."""
    off, stated = placed_halves(1.0, seed)
    assert (np.abs(off) < 3 * stated).all()
    assert np.sqrt((stated**2).mean()) < 4 * np.sqrt((off**2).mean())


def test_what_neighbours_share_is_not_averaged_out() -> None:
    """Windows of which a quarter errs alike: their jackknife says too little by the root of a part's number."""
    rng, part, n = np.random.default_rng(0), np.repeat(np.arange(4), 25), 100
    own, shared = rng.standard_normal((n, 50)) / n, rng.standard_normal((4, 50))[part] / n
    alone, together = (apart(error, part, (error**2).sum(0)) for error in (own, own + shared))
    assert np.sqrt(np.median(alone)) < 0.1  # of a window's 1: as much as its error of the mean
    assert 0.7 < np.sqrt(np.median(together)) < 1.4


def test_places_of_registered_halves_are_stated_closely() -> None:
    off, stated = placed_halves(0.0, 0)
    assert (np.abs(off) < 3 * stated).all()
    assert stated.max() < 0.1


def test_an_hsi_of_finer_pixels_than_its_sensor_s_has_a_wide_psf() -> None:
    found = estimate_psf(*observed(gaussian_psf(1.25 * SCALE, SCALE), 2).images, MATRIX, SCALE, given=ASSUMED)
    assert not found.doubt
    np.testing.assert_allclose(found.sigma, 1.25 * SCALE, rtol=0.05)


def test_a_psf_beyond_what_is_searched_is_not_believed() -> None:
    seen = observed(gaussian_psf(2.5 * SCALE, SCALE), 2)
    assert "HSI pixels wide" in estimate_psf(*seen.images, MATRIX, SCALE, given=ASSUMED).doubt


@pytest.mark.parametrize("share", [0.25, 0.4])
def test_ground_that_has_changed_is_not_taken_for_blur(share: float) -> None:
    seen, other = observed(gaussian_psf(1.7, SCALE), 1), observed(gaussian_psf(1.7, SCALE), 5)
    cut = round(share * seen.msi.shape[-1])
    changed = torch.cat([other.msi[..., :cut], seen.msi[..., cut:]], -1)
    found = estimate_psf(seen.lrhsi, changed, seen.mask, MATRIX, SCALE, given=ASSUMED)
    np.testing.assert_allclose(found.sigma, 1.7, rtol=0.05)


@pytest.mark.parametrize(("width", "thick", "smooth"), [(1.1, 0.4, 4), (2.9, 0.4, 4), (1.1, 0.5, 8)])
def test_thin_cloud_in_the_msi_bears_out_no_psf(width: float, thick: float, smooth: float) -> None:
    """Neither that assumed, of width 1.97, nor a box: what is left open is said."""
    seen = observed(gaussian_psf(width, SCALE), 2)
    field = gaussian_filter(np.random.default_rng(4).standard_normal(seen.msi.shape[-2:]), smooth)
    cloud = torch.from_numpy(thick / (1 + np.exp(-3 * field / field.std())))
    found = estimate_psf(seen.lrhsi, (1 - cloud) * seen.msi + 0.7 * cloud, seen.mask, MATRIX, SCALE, given=ASSUMED)
    assert found.doubt or np.abs(np.array(found.sigma) - width).max() < 2 * max(found.sigma_sd)
    assert found.doubt or max(found.sigma_sd) < 0.25 * width


def test_images_without_common_detail_cannot_tell_a_psf() -> None:
    seen, other = observed(gaussian_psf(1.7, SCALE), 1), observed(gaussian_psf(1.7, SCALE), 5)
    found = estimate_psf(seen.lrhsi, other.msi, seen.mask, MATRIX, SCALE, given=ASSUMED)
    assert found.psf is ASSUMED
    assert "too little detail in common" in found.doubt


def test_a_psf_is_read_back_from_its_record() -> None:
    psf = elliptic_psf(1.5, 2.2, 35, SCALE).with_few_terms()
    again = Psf.of_record(json.loads(json.dumps(psf.record())))
    np.testing.assert_allclose(again.kernel, psf.kernel, atol=1e-8)
    np.testing.assert_allclose(psf.kernel, elliptic_psf(1.5, 2.2, 35, SCALE).kernel, atol=1e-3 * psf.kernel.max())
    assert again.label == psf.label
    with pytest.raises(SettingError, match="can't be read"):
        Psf.of_record({"terms": [[1]]})


def test_the_psf_about_its_place_has_its_shift() -> None:
    seen = observed(gaussian_psf(1.7, SCALE), 2)
    moved = torch.from_numpy(shift(seen.msi.numpy(), (0, 0, -0.6, 0.3), order=3, mode="nearest"))
    found = estimate_psf(seen.lrhsi, moved, seen.mask, MATRIX, SCALE)
    np.testing.assert_allclose(found.shifted.centre, (-0.6, 0.3), atol=0.05)
    assert found.psf.centre == (0, 0)
    given = estimate_psf(seen.lrhsi, moved, seen.mask, MATRIX, SCALE, given=gaussian_psf(1.7, SCALE))
    assert given.family == "assumed"
    np.testing.assert_allclose(given.shifted.centre, given.shift, atol=0.01)


def test_a_free_kernel_comes_nearer_to_a_psf_that_is_no_gaussian() -> None:
    seen = observed(Psf(np.pad(box_psf(SCALE).kernel, SCALE)))
    errors = []
    for kind in ("gaussian", "free"):
        kernel = estimate_psf(*seen.images, MATRIX, SCALE, kind=kind).psf.kernel
        true = np.pad(seen.model.psf.kernel, max(0, (len(kernel) - 3 * SCALE) // 2))
        kernel = np.pad(kernel, (len(true) - len(kernel)) // 2)
        errors.append(np.linalg.norm(kernel - true) / np.linalg.norm(true))
    assert errors[1] < 0.8 * errors[0]


def test_psf_kinds_that_cannot_be(usual: Seen) -> None:
    with pytest.raises(SettingError, match="wanted auto, gaussian or free"):
        estimate_psf(*usual.images, MATRIX, SCALE, kind="square")
    with pytest.raises(SettingError, match="up to ratio 12"):
        estimate_psf(*usual.images, MATRIX, 13, kind="free")


def test_odd_ratio_and_corner_phase() -> None:
    x = torch.from_numpy(truth())[None, :, :117, :117]
    model = ObservationModel(MATRIX, gaussian_psf(1.5, 3, 0.0), 3, 0.0)
    found = estimate_psf(model.spatial(x), model.spectral(x), torch.ones(1, 39, 39, dtype=torch.bool), MATRIX, 3, 0.0)
    np.testing.assert_allclose(found.sigma, 1.5, rtol=0.02)
    np.testing.assert_allclose(found.shift, 0, atol=0.02)


# ---- both


def test_what_was_estimated_sees_the_truth_as_the_sensors_do() -> None:
    seen = observed(elliptic_psf(2.6, 1.7, 20, SCALE), seed=3)
    found = estimate_observation(*seen.images, NM, SCALE)
    assert found.response is not None
    assert found.psf is not None
    np.testing.assert_allclose(found.psf.sigma, [2.6, 1.7], rtol=0.05)
    assert abs(found.psf.theta_deg - 20) < 5
    (low, high), (lower, higher) = (model(seen.truth) for model in (seen.model, found.model(seen.model)))
    for mine, real, image in ((lower, low, seen.lrhsi), (higher, high, seen.msi)):  # within the noise of the images
        assert float((mine - real).square().mean()) < 0.1 * float((image - real).square().mean())


def test_what_is_known_is_kept(usual: Seen) -> None:
    only_srf = estimate_observation(*usual.images, NM, SCALE, psf=usual.model.psf)
    assert only_srf.psf is None
    assert only_srf.model(usual.model).psf is usual.model.psf


# ---- radiometry


def line(n: int = 2000, noise: float = 0.01, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    level = 0.2 + 0.05 * rng.standard_normal(n)
    return level[None] + noise * rng.standard_normal((1, n)), level[None] + noise * rng.standard_normal((1, n))


def test_equal_sensors_need_no_match() -> None:
    found = match_lines(*line())
    assert not found.deviating.any()
    assert not found.doubtful.any()


def test_matching_the_other_way_round_is_the_inverse() -> None:
    x, y = line()
    there, back = match_lines(x, 1.3 * y + 0.04), match_lines(1.3 * y + 0.04, x)
    np.testing.assert_allclose(there.gain * back.gain, 1, rtol=1e-6)
    np.testing.assert_allclose(there.gain, 1.3, rtol=0.02)
    np.testing.assert_allclose(there.offset, 0.04, atol=0.006)
    assert there.deviating.all()


def test_outliers_hardly_move_the_line() -> None:
    x, y = line()
    y[0, ::10] = 0.9  # a tenth of the pixels under clouds
    found = match_lines(x, y)
    assert abs(found.gain[0] - 1) < 0.1
    assert abs(np.polyfit(x[0], y[0], 1)[1]) > 0.05  # least squares is far off


def test_images_without_relation_are_doubtful_and_left_alone() -> None:
    x, _ = line()
    found = match_lines(x, line(seed=9)[1])
    assert found.doubtful.all()
    assert found.where(~found.doubtful).gain[0] == 1


def test_radiometry_of_a_pair(usual: Seen) -> None:
    gain, offset = np.array([0.8, 1.2, 1, 1, 1, 1.5]), np.array([0.02, 0, 0, -0.03, 0, 0])
    msi = usual.msi * torch.from_numpy(gain)[:, None, None] + torch.from_numpy(offset)[:, None, None]
    found = match_radiometry(usual.lrhsi, msi, usual.mask, usual.model)
    np.testing.assert_allclose(found.gain, gain, rtol=0.02)
    np.testing.assert_allclose(found.offset, offset, atol=0.01)
    assert list(found.deviating) == [True, True, False, True, False, True]
    back = found.apply(msi[0].numpy().astype(np.float32))
    assert back.dtype == np.float32
    np.testing.assert_allclose(back, usual.msi[0], atol=0.01)
    assert "B2 = (0.80" in found.describe(BANDS)


@pytest.mark.parametrize("mtf", [0.2, 0.45])
def test_a_wrong_mtf_is_not_taken_for_a_gain(usual: Seen, mtf: float) -> None:
    seen = observed(gaussian_psf(sigma_from_mtf(mtf, SCALE), SCALE))
    found = match_radiometry(*seen.images, usual.model)
    assert not found.deviating.any()
    np.testing.assert_allclose(found.gain, 1, atol=0.02)
    pixels = low_pixels(seen.lrhsi, seen.msi, seen.mask, usual.model)
    fine = match_lines(MATRIX @ pixels.lrhsi, pixels.msi)  # at the LRHSI's own resolution it would be
    assert fine.deviating.all()
    assert (np.sign(fine.gain - 1) == np.sign(0.3 - mtf)).all()
    brighter = match_radiometry(seen.lrhsi, 1.25 * seen.msi, seen.mask, usual.model)
    np.testing.assert_allclose(brighter.gain, 1.25, rtol=0.02)


def test_clouds_without_a_mask_hardly_move_a_gain(usual: Seen) -> None:
    msi = usual.msi.clone()
    msi[..., 20:60, 30:70] = 0.9
    found = match_radiometry(usual.lrhsi, msi, usual.mask, usual.model)
    np.testing.assert_allclose(found.gain, 1, atol=0.02)
    assert not found.deviating.any()


def test_constant_images_have_no_radiometry(usual: Seen) -> None:
    with pytest.raises(InputError, match="constant"):
        match_radiometry(usual.lrhsi, torch.zeros_like(usual.msi), usual.mask, usual.model)

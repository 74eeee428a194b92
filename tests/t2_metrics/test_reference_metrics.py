"""Metrics against a reference: laws, hand-computed cases, independent implementations."""

import tracemalloc

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage
from skimage.metrics import peak_signal_noise_ratio

from hsfuse import metrics
from hsfuse.core.errors import InputError, SettingError
from hsfuse.metrics.windowed import unit_signs
from hsfuse.metrics.windows import block_starts, window_sums

SHAPE = (5, 44, 53)


@pytest.fixture(scope="module")
def tm():
    """torchmetrics' functions; loaded here, as it takes seconds that other tests shouldn't wait for."""
    from torchmetrics.functional import image

    return image


def scene(shape=SHAPE, seed=0, noise=0.05):
    """A smooth positive cube and a disturbed copy of it, float32."""
    rng = np.random.default_rng(seed)
    reference = ndimage.gaussian_filter(rng.random(shape), (1, 2, 2))
    reference = 0.1 + 0.8 * (reference - reference.min()) / np.ptp(reference)
    return (reference + rng.normal(0, noise, shape)).astype(np.float32), reference.astype(np.float32)


def ragged_mask(shape=SHAPE[1:]):
    mask = np.ones(shape, bool)
    mask[3, 5] = mask[:2, -4:] = mask[-3:, :6] = False
    return mask


def read_of(tile):
    """Rows and columns to read of the whole image, halo included."""
    return slice(tile.row, tile.row + tile.read_rows), slice(tile.col, tile.col + tile.read_cols)


def accumulate(fused, reference, mask, size, window=9):
    sums = metrics.ReferenceMetrics(reference.shape, scale=4, window=window)
    for tile in metrics.tiles(*reference.shape[1:], size, sums.halo):
        at = read_of(tile)
        sums.update(fused[:, *at], reference[:, *at], None if mask is None else mask[at], tile)
    return sums.result()


def assert_same(found, wanted, rtol=1e-10):
    assert found.pixels == wanted.pixels
    assert found.notes == wanted.notes
    assert found.values.keys() == wanted.values.keys()
    for key, value in wanted.values.items():
        assert value is not None
        assert found.values[key] == pytest.approx(value, rel=rtol), key
    for key, curve in wanted.per_band.items():
        np.testing.assert_allclose(found.per_band[key], curve, rtol=rtol, err_msg=key)


# --- laws ------------------------------------------------------------------------------------------------


def test_a_perfect_cube_has_perfect_figures():
    _, reference = scene()
    values = accumulate(reference, reference, None, 64).values
    assert {key for key in values if values[key] == np.inf} == {"psnr", "psnr_global", "psnr_band_peak"}
    for key in ("rmse", "relative_rmse", "dd", "sam", "sam_median", "sam_p95", "ergas"):
        assert values[key] == 0, key
    for key in ("cc", "scc", "uiqi", "ssim", "q2n"):
        assert values[key] == pytest.approx(1, abs=1e-9), key


@pytest.mark.parametrize("window", [9, 16])
@pytest.mark.parametrize("size", [7, 20, 44])
def test_values_do_not_depend_on_the_tiling(size, window):
    fused, reference = scene()
    mask = ragged_mask()
    found, wanted = (accumulate(fused, reference, mask, tile_size, window) for tile_size in (size, 100))
    assert_same(found, wanted)


def test_strips_are_tiles_too():
    fused, reference = scene()
    sums = metrics.ReferenceMetrics(SHAPE, scale=4, window=9)
    for row in (0, 30):
        rows = min(30, 44 - row)
        tile = metrics.Tile(row, 0, rows, 53, min(rows + sums.halo, 44 - row), 53)
        sums.update(fused[:, *read_of(tile)], reference[:, *read_of(tile)], None, tile)
    assert_same(sums.result(), accumulate(fused, reference, None, 100))


@pytest.mark.parametrize("filler", [np.nan, np.inf, 1e30, -5.0])
def test_masked_pixels_have_no_influence(filler):
    fused, reference = scene()
    mask = ragged_mask()
    wanted = accumulate(fused, reference, mask, 16)
    assert wanted.values["rmse"] != metrics.rmse(fused, reference)
    fused[:, ~mask] = filler
    reference[1:, ~mask] = -filler
    assert_same(accumulate(fused, reference, mask, 16), wanted)
    assert metrics.uiqi(fused, reference, 9, mask) == wanted.values["uiqi"]
    for error_map in (metrics.sam_map(fused, reference, mask), metrics.rmse_map(fused, reference, mask)):
        np.testing.assert_array_equal(np.isnan(error_map), ~mask)


def test_unmasked_nan_is_left_out_and_counted():
    fused, reference = scene()
    mask = np.ones(SHAPE[1:], bool)
    mask[10, 11] = False
    wanted = accumulate(fused, reference, mask, 100)
    fused[2, 10, 11] = np.nan
    found = accumulate(fused, reference, None, 20)
    assert found.values == pytest.approx(wanted.values, rel=1e-10)
    assert any("1 pixel holds NaN" in note.text for note in found.notes)


@given(st.floats(1e-3, 1e3))
def test_spectral_angle_ignores_a_common_gain(gain):
    fused, reference = scene((4, 6, 6))
    wanted = metrics.sam_degrees(fused, reference)
    assert wanted > 0.5
    assert metrics.sam_degrees(fused.astype(np.float64) * gain, reference) == pytest.approx(wanted, rel=1e-6)


def test_psnr_of_a_constant_error_is_known_and_scales_with_the_peak():
    reference = scene()[1].astype(np.float64)
    assert metrics.psnr(reference + 0.01, reference) == pytest.approx(40)
    assert metrics.psnr_global(reference - 0.1, reference) == pytest.approx(20)
    assert metrics.psnr((reference + 0.01) * 1e4, reference * 1e4, peak=1e4) == pytest.approx(40)


def test_band_mean_and_global_psnr_differ_where_bands_do():
    reference = np.full((2, 3, 3), 0.5)
    fused = reference + np.array([0.1, 0.001])[:, None, None]
    np.testing.assert_allclose(metrics.psnr_per_band(fused, reference), [20, 60])
    assert metrics.psnr(fused, reference) == pytest.approx(40)
    assert metrics.psnr_global(fused, reference) == pytest.approx(-10 * np.log10((0.01 + 1e-6) / 2))
    own_peak = accumulate(fused, reference, None, 3).values["psnr_band_peak"]
    assert own_peak == pytest.approx(40 + 20 * np.log10(0.5))


def test_ergas_is_inverse_to_the_ratio():
    fused, reference = scene()
    assert metrics.ergas(fused, reference, 8) == pytest.approx(metrics.ergas(fused, reference, 4) / 2)


def test_more_noise_is_worse_by_every_metric():
    good, bad = (accumulate(*scene(noise=noise), None, 64).values for noise in (0.01, 0.05))
    for key, value in good.items():
        better = value > bad[key] if metrics.CATALOGUE[key].direction == "higher" else value < bad[key]
        assert better, key


def test_memory_depends_on_the_tile_not_on_the_image():
    def peak(side):
        fused, reference = scene((12, side, side))
        tracemalloc.start()
        accumulate(fused, reference, None, 32)
        highest = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return highest

    assert peak(160) < 1.1 * peak(80)


# --- by hand ---------------------------------------------------------------------------------------------

TWO_FUSED = np.array([[[1.0, 2.0], [3.0, 6.0]]])
TWO_REFERENCE = np.array([[[1.0, 2.0], [3.0, 4.0]]])


def test_two_by_two_by_hand():
    result = accumulate(TWO_FUSED, TWO_REFERENCE, None, 2)
    wanted = {
        "rmse": 1.0,
        "dd": 0.5,
        "relative_rmse": np.sqrt(4 / 30),
        "psnr": 0.0,
        "psnr_band_peak": 20 * np.log10(4),
        "ergas": 100 / 4 / 2.5,
        "cc": 2 / np.sqrt(3.5 * 1.25),
        "sam": 0.0,
        "uiqi": 4 * 2 * 3 * 2.5 / ((3.5 + 1.25) * (9 + 6.25)),
        # Normalised by mean 2.5 and variance 5/3: variances 2.8 and 1, covariance 1.6, means 1.3873 and 1.
        "q2n": 2 * 1.6 / 3.8 * 2 * 1.3872983 / (1 + 1.3872983**2),
    }
    for key, value in wanted.items():
        assert result.values[key] == pytest.approx(value, abs=1e-6), key
    assert result.values["ssim"] is None
    assert result.values["scc"] is None
    assert any(note.text.startswith("ssim is undefined") for note in result.notes)
    assert any("window 2 in place of 9" in note.text for note in result.notes)


def test_spectral_angles_by_hand_with_a_zero_spectrum():
    fused = np.array([[[1.0, 3.0], [0.0, 0.0]], [[0.0, 4.0], [2.0, 0.0]]])
    reference = np.array([[[1.0, 3.0], [2.0, 1.0]], [[1.0, 4.0], [0.0, 1.0]]])
    result = accumulate(fused, reference, None, 2)
    assert result.values["sam"] == pytest.approx(45)
    assert result.values["sam_median"] == pytest.approx(45)
    assert result.values["sam_p95"] == pytest.approx(90)
    assert "sam: 1 pixel with a spectrum of zeros left out" in [note.text for note in result.notes]
    np.testing.assert_allclose(metrics.sam_map(fused, reference), [[45, 0], [90, np.nan]], atol=1e-6)


def test_rmse_map_by_hand():
    fused, reference = np.zeros((2, 1, 2)), np.array([[[3.0, 0.0]], [[4.0, 0.0]]])
    np.testing.assert_allclose(metrics.rmse_map(fused, reference), [[np.sqrt(12.5), 0]])


# --- against independent implementations -----------------------------------------------------------------


def tensors(*cubes):
    return [torch.from_numpy(cube.astype(np.float64))[None] for cube in cubes]


def test_pixelwise_metrics_agree_with_torchmetrics_and_skimage(tm):
    fused, reference = scene()
    x, y = tensors(fused, reference)
    values = accumulate(fused, reference, None, 64).values
    assert values["psnr_global"] == pytest.approx(float(tm.peak_signal_noise_ratio(x, y, data_range=1.0)))
    bands = [peak_signal_noise_ratio(*planes, data_range=1) for planes in zip(reference, fused, strict=True)]
    assert values["psnr"] == pytest.approx(np.mean(bands))
    assert values["sam"] == pytest.approx(np.degrees(float(tm.spectral_angle_mapper(x, y))))
    assert values["ergas"] == pytest.approx(float(tm.error_relative_global_dimensionless_synthesis(x, y, ratio=4)))
    correlations = [np.corrcoef(f.ravel(), r.ravel())[0, 1] for f, r in zip(fused, reference, strict=True)]
    assert values["cc"] == pytest.approx(np.mean(correlations))
    assert values["sam_median"] == pytest.approx(np.median(metrics.sam_map(fused, reference)), abs=6e-4)
    p95 = np.percentile(metrics.sam_map(fused, reference), 95, method="inverted_cdf")
    assert values["sam_p95"] == pytest.approx(p95, abs=6e-4)


def test_ssim_agrees_with_torchmetrics(tm):
    fused, reference = scene()
    pair = tensors(fused, reference)
    _, full = tm.structural_similarity_index_measure(*pair, sigma=1.5, data_range=1.0, return_full_image=True)
    # Its own mean counts a mirrored border of 5 pixels too.
    assert metrics.ssim(fused, reference) == pytest.approx(float(full[..., 5:-5, 5:-5].mean()), rel=1e-10)


def naive_uiqi(x, y):
    cov = np.cov(x.ravel(), y.ravel())
    mx, my = x.mean(), y.mean()
    return 4 * cov[0, 1] * mx * my / ((cov[0, 0] + cov[1, 1]) * (mx**2 + my**2))


def naive_windows(plane, size):
    return [
        plane[i : i + size, j : j + size]
        for i in range(plane.shape[0] - size + 1)
        for j in range(plane.shape[1] - size + 1)
    ]


def test_uiqi_agrees_with_a_plain_loop():
    fused, reference = (cube.astype(np.float64) for cube in scene((2, 20, 23)))
    wanted = [
        np.mean([naive_uiqi(*pair) for pair in zip(naive_windows(f, 8), naive_windows(r, 8), strict=True)])
        for f, r in zip(fused, reference, strict=True)
    ]
    np.testing.assert_allclose(metrics.uiqi_per_band(fused, reference, 8), wanted, rtol=1e-10)


def test_scc_agrees_with_scipy():
    fused, reference = (cube.astype(np.float64) for cube in scene())
    kernel = -np.ones((3, 3))
    kernel[1, 1] = 8
    wanted = [
        np.corrcoef(*[ndimage.convolve(p, kernel)[1:-1, 1:-1].ravel() for p in planes])[0, 1]
        for planes in zip(fused, reference, strict=True)
    ]
    np.testing.assert_allclose(metrics.scc_per_band(fused, reference), wanted)


def conjugate(z):
    return np.concatenate([z[:1], -z[1:]])


def hypercomplex_product(x, y):
    """Cayley-Dickson product of two vectors of components."""
    if len(x) == 1:
        return x * y
    a, b = np.split(x, 2)
    c, d = np.split(y, 2)
    product = hypercomplex_product
    return np.concatenate([product(a, c) - product(conjugate(d), b), product(d, a) + product(b, conjugate(c))])


def naive_q2n(fused, reference):
    """Q2n of one block (C, h, w) pixel by pixel, C a power of 2."""
    x, y = (cube.reshape(len(cube), -1) for cube in (fused, reference))
    mean, deviation = y.mean(1, keepdims=True), y.std(1, ddof=1, keepdims=True)
    x, y = (x - mean) / deviation + 1, (y - mean) / deviation + 1
    n, mx, my = x.shape[1], x.mean(1), y.mean(1)
    products = np.mean([hypercomplex_product(y[:, i], conjugate(x[:, i])) for i in range(n)], axis=0)
    cov = np.linalg.norm(products - hypercomplex_product(my, conjugate(mx))) * n / (n - 1)
    sx, sy = (np.sqrt(z.var(1, ddof=1).sum()) for z in (x, y))
    ax, ay = np.linalg.norm(mx), np.linalg.norm(my)
    return cov / (sx * sy) * 2 * ax * ay / (ax**2 + ay**2) * 2 * sx * sy / (sx**2 + sy**2)


@pytest.mark.parametrize("bands", [1, 2, 4, 8, 16])
def test_q2n_agrees_with_a_pixel_by_pixel_product(bands):
    fused, reference = (cube.astype(np.float64) for cube in scene((bands, 6, 12), noise=0.2))
    wanted = (naive_q2n(fused[..., :6], reference[..., :6]) + naive_q2n(fused[..., 6:], reference[..., 6:])) / 2
    assert metrics.q2n(fused, reference, 6) == pytest.approx(wanted, rel=1e-10)


def test_q2n_fills_missing_components_with_zeros():
    fused, reference = scene((3, 6, 6), noise=0.2)
    zero = np.zeros((1, 6, 6), np.float32)
    padded = metrics.q2n(np.concatenate([fused, zero]), np.concatenate([reference, zero]), 6)
    assert metrics.q2n(fused, reference, 6) == pytest.approx(padded, rel=1e-12)


def test_hypercomplex_units_are_quaternions_and_octonions_first():
    i, j, k = np.eye(4)[1:]
    for unit in (i, j, k):
        np.testing.assert_array_equal(hypercomplex_product(unit, unit), [-1, 0, 0, 0])
    np.testing.assert_array_equal(hypercomplex_product(i, j), -hypercomplex_product(j, i))
    x, y = np.random.default_rng(0).normal(size=(2, 8))
    assert np.linalg.norm(hypercomplex_product(x, y)) == pytest.approx(np.linalg.norm(x) * np.linalg.norm(y))
    for row, left in enumerate(np.eye(16)):
        for col, right in enumerate(np.eye(16)):
            assert hypercomplex_product(left, right)[row ^ col] == unit_signs(16)[row, col]


# --- edges -----------------------------------------------------------------------------------------------


def test_constant_windows_compare_their_means():
    zero, low, high = (np.full((1, 8, 8), value) for value in (0.0, 0.1, 0.3))
    assert metrics.uiqi(zero, zero, 4) == 1
    assert metrics.uiqi(low, low, 4) == pytest.approx(1)
    assert metrics.uiqi(low, high, 4) == pytest.approx(2 * 0.03 / 0.1)


def test_a_dead_band_leaves_the_others_alone():
    fused, reference = scene()
    fused[2] = reference[2] = 0
    result = accumulate(fused, reference, None, 64)
    others = np.delete(fused, 2, 0), np.delete(reference, 2, 0)
    assert result.values["ergas"] == pytest.approx(metrics.ergas(*others, 4))
    assert result.values["cc"] == pytest.approx(metrics.cc(*others))
    assert result.values["psnr"] == pytest.approx(metrics.psnr(*others))
    assert np.isinf(result.per_band["psnr"][2])
    assert np.isnan(result.per_band["ergas"][2])
    assert np.isnan(result.per_band["cc"][2])
    assert any(note.text.startswith("ergas: 1 band ") for note in result.notes)
    assert any(note.text.startswith("psnr: 1 of 5") for note in result.notes)
    assert not any(value is not None and np.isnan(value) for value in result.values.values())


def test_a_reference_of_zeros_gives_none_and_reasons_never_nan():
    fused, reference = scene()
    result = accumulate(fused, np.zeros_like(reference), None, 64)
    undefined = {key for key, value in result.values.items() if value is None}
    assert undefined == {"relative_rmse", "cc", "sam", "sam_median", "sam_p95", "psnr_band_peak", "ergas", "scc", "q2n"}
    assert all(any(note.text.startswith(f"{key} is undefined: ") for note in result.notes) for key in undefined)


def test_no_wholly_valid_window_is_said():
    fused, reference = scene()
    mask = np.zeros(SHAPE[1:], bool)
    mask[::2, ::2] = True
    result = accumulate(fused, reference, mask, 64)
    assert result.values["uiqi"] is None
    assert result.values["q2n"] is None
    assert result.values["rmse"] > 0


def test_what_does_not_fit_is_refused():
    fused, reference = scene()
    with pytest.raises(InputError, match="found 4 and 5 bands"):
        metrics.psnr(fused[1:], reference)
    with pytest.raises(InputError, match="one grid"):
        metrics.psnr(fused[:, 1:], reference)
    with pytest.raises(InputError, match="one grid"):
        metrics.psnr(fused, reference, mask=np.ones((3, 3), bool))
    with pytest.raises(InputError, match="no pixel is valid"):
        accumulate(fused, reference, np.zeros(SHAPE[1:], bool), 64)
    with pytest.raises(SettingError):
        metrics.ReferenceMetrics(SHAPE, scale=0)
    tile = metrics.Tile(0, 0, 20, 20, 21, 40)
    with pytest.raises(ValueError, match="halo"):
        metrics.ReferenceMetrics(SHAPE, 4).update(fused[:, *read_of(tile)], reference[:, *read_of(tile)], None, tile)


@given(st.integers(1, 200), st.integers(1, 40))
def test_blocks_cover_and_are_disjoint_when_they_can_be(length, size):
    size = min(size, length)
    starts = block_starts(length, size)
    assert starts[0] == 0
    assert starts[-1] == length - size
    steps = np.diff(starts)
    assert (steps <= size).all()
    assert (steps > 0).all()
    assert length % size or (steps == size).all()


@given(st.integers(1, 12), st.integers(1, 9))
def test_window_sums_are_sums_of_windows(rows, cols):
    plane = np.arange(12 * 9.0).reshape(12, 9) ** 2
    wanted = np.lib.stride_tricks.sliding_window_view(plane, (rows, cols)).sum((2, 3))
    np.testing.assert_array_equal(window_sums(plane, rows, cols), wanted)  # whole numbers: exact in any order


# --- catalogue -------------------------------------------------------------------------------------------


def test_every_value_is_described():
    result = accumulate(*scene(), None, 64)
    assert result.values.keys() <= metrics.CATALOGUE.keys()
    for key, info in metrics.CATALOGUE.items():
        assert info.key == key
        assert all([info.title, info.formula, info.source, info.range, info.unit])
        assert info.direction in ("higher", "lower")

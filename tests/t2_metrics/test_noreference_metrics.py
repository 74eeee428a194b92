"""Metrics without a reference: laws, hand-computed cases, plain loops."""

from itertools import combinations

import numpy as np
import pytest
from scipy import ndimage

from hsfuse import metrics
from hsfuse.core.errors import InputError, SettingError

BANDS, GUIDES, SIDE, SCALE = 5, 2, 40, 2
RESPONSE = np.array([[0.5, 0.5, 0, 0, 0], [0, 0, 0.2, 0.3, 0.5]], np.float32)


def shrink(cube):
    """Mean of SCALE x SCALE pixels: the sensor model of these tests."""
    c, h, w = cube.shape
    return cube.reshape(c, h // SCALE, SCALE, w // SCALE, SCALE).mean((2, 4))


def guide(cube):
    with np.errstate(invalid="ignore"):
        return np.tensordot(RESPONSE, cube, 1)


def scene(noise=0.03, seed=0):
    """Fused cube, LRHSI and MSI of a smooth scene; the fused cube is the truth with noise."""
    rng = np.random.default_rng(seed)
    truth = ndimage.gaussian_filter(rng.random((BANDS, SIDE, SIDE)), (1, 2, 2))
    truth = (0.1 + 0.8 * (truth - truth.min()) / np.ptp(truth)).astype(np.float32)
    fused = truth + rng.normal(0, noise, truth.shape).astype(np.float32)
    return fused, shrink(truth), guide(truth)


def read_of(tile):
    """Rows and columns to read of the whole image, halo included."""
    return slice(tile.row, tile.row + tile.read_rows), slice(tile.col, tile.col + tile.read_cols)


def accumulate(fused, lrhsi, msi, mask=None, lr_mask=None, size=100, window=8):
    sums = metrics.NoReferenceMetrics(fused.shape, lrhsi.shape, GUIDES, window)
    high, low = (fused, guide(fused), msi), (shrink(fused), lrhsi, guide(lrhsi), shrink(msi))
    for tile in metrics.tiles(*fused.shape[1:], size, sums.halo):
        at = read_of(tile)
        sums.update_high(*(cube[:, *at] for cube in high), None if mask is None else mask[at], tile)
    for tile in metrics.tiles(*lrhsi.shape[1:], size, sums.halo):
        at = read_of(tile)
        sums.update_low(*(cube[:, *at] for cube in low), None if lr_mask is None else lr_mask[at], tile)
    return sums.result()


def naive_uiqi(x, y):
    cov = np.cov(x.ravel(), y.ravel())
    mx, my = x.mean(dtype=np.float64), y.mean(dtype=np.float64)
    return 4 * cov[0, 1] * mx * my / ((cov[0, 0] + cov[1, 1]) * (mx**2 + my**2))


def blocks(plane, size):
    return [plane[i : i + size, j : j + size] for i in range(0, len(plane), size) for j in range(0, len(plane), size)]


def naive_block_uiqi(x, y, size):
    return np.mean([naive_uiqi(*pair) for pair in zip(blocks(x, size), blocks(y, size), strict=True)])


def test_d_lambda_agrees_with_a_plain_loop_over_pairs_and_blocks():
    fused, lrhsi, _ = scene()
    wanted = np.mean(
        [
            abs(naive_block_uiqi(fused[b], fused[c], 10) - naive_block_uiqi(lrhsi[b], lrhsi[c], 10))
            for b, c in combinations(range(BANDS), 2)
        ]
    )
    assert wanted > 0.01
    assert metrics.d_lambda(fused, lrhsi, 10) == pytest.approx(wanted, rel=1e-6)


def test_d_s_agrees_with_uiqi_of_each_guide_band():
    fused, lrhsi, msi = scene()
    parts = [
        abs(
            metrics.uiqi(guide(fused)[i : i + 1], msi[i : i + 1], 8)
            - metrics.uiqi(guide(lrhsi)[i : i + 1], shrink(msi)[i : i + 1], 8)
        )
        for i in range(GUIDES)
    ]
    found = metrics.d_s(guide(fused), msi, guide(lrhsi), shrink(msi), 8)
    assert found == pytest.approx(np.mean(parts))
    np.testing.assert_allclose(accumulate(fused, lrhsi, msi).per_band["d_s"], parts)


def test_d_lambda_by_hand_on_one_block_of_two_by_two():
    # The high-res pair has means 2.5 and 3, variances 1.25 and 3.5, covariance 2; the low-res bands are equal, Q = 1.
    low = np.array([[[1.0, 2.0], [3.0, 4.0]]] * 2)
    high = np.array([[[1.0, 2.0], [3.0, 4.0]], [[1.0, 2.0], [3.0, 6.0]]])
    wanted = 1 - 4 * 2 * 2.5 * 3 / ((1.25 + 3.5) * (6.25 + 9))
    assert metrics.d_lambda(high, low, 2) == pytest.approx(wanted)


def test_the_parts_make_the_whole():
    values = accumulate(*scene()).values
    assert values["qnr"] == pytest.approx((1 - values["d_lambda"]) * (1 - values["d_s"]))
    assert values["hqnr"] == pytest.approx((1 - values["d_lambda_khan"]) * (1 - values["d_s"]))
    fused, lrhsi, msi = scene()
    assert values["d_lambda"] == pytest.approx(metrics.d_lambda(fused, lrhsi, 8))
    assert values["d_s"] == pytest.approx(metrics.d_s(guide(fused), msi, guide(lrhsi), shrink(msi), 8))
    assert values["d_lambda_khan"] == pytest.approx(metrics.d_lambda_khan(shrink(fused), lrhsi, 8))
    assert values["d_lambda_khan"] == pytest.approx(1 - metrics.q2n(shrink(fused), lrhsi, 8))
    assert values["hsi_sam"] == pytest.approx(metrics.sam_degrees(shrink(fused), lrhsi))
    assert values["msi_rmse"] == pytest.approx(metrics.rmse(guide(fused), msi))


def test_a_consistent_cube_has_no_distortion():
    fused, _, _ = scene()
    values = accumulate(fused, shrink(fused), guide(fused)).values
    for key in ("d_s", "d_lambda_khan", "hsi_rmse", "msi_rmse", "hsi_sam", "msi_sam"):
        assert values[key] == pytest.approx(0, abs=1e-6), key
    assert values["hqnr"] == pytest.approx(1, abs=1e-6)
    assert metrics.d_lambda(fused, fused) == 0


@pytest.mark.parametrize("size", [6, 15])
def test_values_do_not_depend_on_the_tiling(size):
    inputs = scene()
    mask, lr_mask = np.ones((SIDE, SIDE), bool), np.ones((SIDE // SCALE, SIDE // SCALE), bool)
    mask[0, 0] = lr_mask[0, 0] = lr_mask[-1, -1] = False
    found, wanted = (accumulate(*inputs, mask, lr_mask, tile_size) for tile_size in (size, 100))
    assert found.values == pytest.approx(wanted.values, rel=1e-10)
    assert found.pixels == SIDE**2 - 1
    for key, curve in wanted.per_band.items():
        np.testing.assert_allclose(found.per_band[key], curve, rtol=1e-10)


def test_masked_pixels_have_no_influence():
    fused, lrhsi, msi = scene()
    mask = np.ones((SIDE, SIDE), bool)
    mask[:6, :6] = False
    lr_mask = shrink(mask[None].astype(float))[0] == 1
    wanted = accumulate(fused, lrhsi, msi, mask, lr_mask)
    assert wanted.values["d_lambda"] != accumulate(fused, lrhsi, msi).values["d_lambda"]
    fused[:, ~mask] = np.nan
    msi[:, ~mask] = 1e20
    lrhsi[:, ~lr_mask] = np.inf
    found = accumulate(fused, lrhsi, msi, mask, lr_mask)
    assert found.values == wanted.values
    assert found.notes == []


def test_a_small_lrhsi_sets_the_window_of_both():
    fused, lrhsi, msi = scene()
    result = accumulate(fused, lrhsi, msi, window=32)
    assert any("window 20 in place of 32" in note.text for note in result.notes)
    assert result.values["d_lambda"] == pytest.approx(metrics.d_lambda(fused, lrhsi, 20))


def test_undefined_values_are_none_with_a_reason():
    inputs = scene()
    lr_mask = np.zeros((SIDE // SCALE, SIDE // SCALE), bool)
    lr_mask[::2] = True
    result = accumulate(*inputs, lr_mask=lr_mask)
    undefined = {key for key, value in result.values.items() if value is None}
    assert undefined == {"d_lambda", "d_s", "qnr", "d_lambda_khan", "hqnr"}
    assert all(any(note.text.startswith(f"{key} is undefined: ") for note in result.notes) for key in undefined)
    assert result.values["hsi_rmse"] > 0


def test_what_does_not_fit_is_refused():
    fused, lrhsi, msi = scene()
    with pytest.raises(SettingError):
        metrics.NoReferenceMetrics(fused.shape, lrhsi.shape, GUIDES, window=1)
    sums = metrics.NoReferenceMetrics(fused.shape, lrhsi.shape, GUIDES)
    with pytest.raises(InputError, match="one grid"):
        sums.update_high(fused, guide(lrhsi), msi)
    with pytest.raises(InputError, match="bands"):
        sums.update_high(fused, guide(fused)[:1], msi)
    with pytest.raises(InputError, match="no pixel is valid"):
        sums.result()


def test_every_value_is_described_and_every_description_is_used():
    fused, lrhsi, msi = scene()
    reference = metrics.ReferenceMetrics(fused.shape, SCALE)
    reference.update(fused, fused)
    one = metrics.NoReferenceMetrics(fused.shape, lrhsi.shape, 1, 8)
    one.update_high(fused, guide(fused)[:1], msi[:1])
    one.update_low(shrink(fused), lrhsi, guide(lrhsi)[:1], shrink(msi)[:1])
    found = accumulate(fused, lrhsi, msi).values.keys() | reference.result().values.keys()
    assert one.result().values.keys() - found == {"d_sr", "rqnr"}
    assert found | {"d_sr", "rqnr"} == metrics.CATALOGUE.keys()


def test_d_sr_agrees_with_least_squares_on_the_pixels():
    fused, _, msi = scene()
    x = np.concatenate([np.ones((1, SIDE * SIDE)), fused.reshape(BANDS, -1)]).T.astype(np.float64)
    y = msi[0].ravel().astype(np.float64)
    rest = y - x @ np.linalg.lstsq(x, y, rcond=None)[0]
    expected = rest @ rest / ((y - y.mean()) ** 2).sum()
    assert metrics.d_sr(fused, msi[:1]) == pytest.approx(expected, rel=1e-6)
    assert 0 < expected < 1


def test_d_sr_by_hand_of_one_band_of_two_by_two():
    band = np.array([[[0.0, 1], [2, 3]]])
    pan = np.array([[[0.0, 1], [1, 2]]])  # cov 0.75, variances 1.25 and 0.5: R^2 = 0.9
    assert metrics.d_sr(band, pan) == pytest.approx(0.1)
    assert metrics.d_sr(np.concatenate([band, 2 * band + 7]), pan) == pytest.approx(0.1)  # the same thing twice
    assert metrics.d_sr(np.concatenate([band, pan]), 3 * pan - 1) == pytest.approx(0, abs=1e-12)
    assert np.isnan(metrics.d_sr(band, np.full((1, 2, 2), 0.3)))


@pytest.mark.parametrize("size", [7, 16])
def test_rqnr_does_not_depend_on_tiles_or_masked_values(size):
    fused, lrhsi, msi = scene()
    mask = np.ones((SIDE, SIDE), bool)
    mask[3:9, 20:31] = False
    found = []
    for side, filler in ((100, 0.0), (size, np.nan)):
        holed = np.where(mask, fused, filler).astype(np.float32)
        sums = metrics.NoReferenceMetrics(fused.shape, lrhsi.shape, 1, 4)
        for tile in metrics.tiles(SIDE, SIDE, side, sums.halo):
            at = read_of(tile)
            sums.update_high(holed[:, *at], guide(holed)[:1, *at], msi[:1, *at], mask[at], tile)
        sums.update_low(shrink(fused), lrhsi, guide(lrhsi)[:1], shrink(msi)[:1])
        found.append(sums.result().values["d_sr"])
    assert found[0] == pytest.approx(found[1], rel=1e-6)
    assert found[0] == pytest.approx(metrics.d_sr(fused, msi[:1], mask), rel=1e-6)

"""Stripes are found and taken out where detectors err, and nothing is where they don't."""

from __future__ import annotations

import numpy as np
import pytest
from rasterio.windows import Window
from scenes import memory_scene, mixture, save_pair

from hsfuse.calibration.stripes import estimate_stripes
from hsfuse.io import open_cube

NOISE, BANDS = 0.004, 124


def cube(stripes: float, seed: int = 0, shape=(40, 48)) -> tuple[np.ndarray, np.ndarray]:
    """A noisy scene (C, h, w) and its stripes (C, w), whose deviation is `stripes` times the noise's."""
    rng = np.random.default_rng(seed)
    between = np.stack([np.interp(np.linspace(0, 30, BANDS), np.arange(31), one) for one in np.eye(31)], 1)
    clean = np.tensordot(between, mixture(shape, seed), 1)
    added = stripes * NOISE * rng.standard_normal((len(clean), shape[1]))
    return clean + NOISE * rng.standard_normal(clean.shape) + added[:, None], added


def strips(data: np.ndarray, mask: np.ndarray | None = None):
    whole = np.ones(data.shape[1:], bool) if mask is None else mask
    return lambda: [(data[:, i : i + 10], whole[i : i + 10]) for i in range(0, data.shape[1], 10)]


@pytest.mark.parametrize("seed", range(3))
def test_noise_alone_has_no_stripes(seed):
    assert not any(estimate_stripes(strips(cube(0.0, seed)[0])))


@pytest.mark.parametrize(("side", "asked"), [(16, False), (24, False), (40, False), (48, True)])
def test_few_bands_of_few_pixels_leave_nothing_to_tell_stripes_by(side, asked):
    data, _ = cube(3.0, shape=(side, side))
    assert any(estimate_stripes(strips(data[::4]))) == asked


def test_stripes_are_found_under_gaps_too():
    data, added = cube(1.0)
    mask = np.ones(data.shape[1:], bool)
    mask[5:12, 10:20] = False
    found, across = estimate_stripes(strips(np.where(mask, data, 0), mask))
    assert not across
    assert found
    assert found.clear.mean() > 0.9
    assert (added - found.values).std() < 0.5 * added.std()


def test_stripes_along_rows_are_found_alike():
    """In a scene that was turned; where strips aren't all of it, in all of it."""
    data, added = cube(1.0, shape=(48, 40))
    turned = data.swapaxes(1, 2)
    down, found = estimate_stripes(strips(turned))
    assert found
    assert not down
    assert (added - found.values).std() < 0.5 * added.std()
    some = strips(turned[:, :30])
    again = estimate_stripes(some, strips(turned))[1]
    assert (added - again.values).std() < 0.55 * added.std()


def test_slow_stripes_go_and_a_slow_pattern_that_bands_share_stays():
    """Of stripes a quarter lies in the ground's directions and can't be told; light or a smile isn't taken out."""
    slow = np.stack([np.cos(np.pi * k * (np.arange(48) + 0.5) / 48) for k in range(1, 6)])
    slow /= np.linalg.norm(slow, axis=1, keepdims=True)
    tilt = 3 * NOISE * np.sin(np.arange(BANDS) / 5.0)[:, None] * np.linspace(-1, 1, 48) ** 2
    data, added = cube(2.0)
    for pattern in (0 * tilt, tilt):
        found, _ = estimate_stripes(strips(data + pattern[:, None]))
        left = (added - found.values) @ slow.T
        assert np.square(left).sum() < 0.4 * np.square(added @ slow.T).sum()


@pytest.mark.parametrize("seed", [0, 2, 3])
def test_few_lines_lose_their_stripes_too(seed):
    """But for each band's mean over lines, which is the ground's as well."""
    data, added = cube(1.0, seed, shape=(14, 12))
    found, _ = estimate_stripes(strips(data))
    unlike = added - added.mean(1, keepdims=True)
    left = np.square(unlike - found.values - found.within).sum()
    assert left < (0.16, 0.25)[seed == 0] * np.square(added).sum()


@pytest.mark.parametrize("seed", range(2))
def test_what_lies_within_the_ground_s_directions_goes_as_far_as_the_ground_lets_it(seed):
    data, added = cube(1.0, seed)
    found, _ = estimate_stripes(strips(data))
    before, after = (np.square(added - values).sum() for values in (found.values, found.values + found.within))
    assert found.within.any()
    assert after < 0.95 * before


def test_what_changes_slowly_across_columns_stays():
    data, _ = cube(0.0)
    tilted = data + 0.05 * np.linspace(-1, 1, data.shape[2]) ** 2
    found, _ = estimate_stripes(strips(tilted))
    assert not found
    assert not found.values.any()


def test_ground_that_runs_along_columns_is_no_stripe():
    """Of a material that few pixels have, which the directions miss: its bands rise and fall together."""
    data, _ = cube(0.0)
    lines = np.zeros(data.shape[2])
    lines[[9, 21, 22, 37]] = 3 * NOISE
    found = estimate_stripes(strips(data + np.sin(np.arange(BANDS) / 9.0)[:, None, None] * lines))
    assert not any(found)


def test_too_small_an_image_is_left_alone():
    assert estimate_stripes(strips(cube(1.0, shape=(6, 60))[0])) == (None, None)


def test_a_reader_without_stripes_is_so_in_any_window_and_unit(tmp_path):
    scene = memory_scene((20, 24))
    files = save_pair(tmp_path, scene)
    stripes = np.random.default_rng(0).standard_normal((31, 24)).astype(np.float32) / 100
    with open_cube(files.hsi, role="HSI") as reader:
        plain = reader.read(Window(3, 2, 9, 5), [4, 7]).data
        for other in (reader.without_stripes(stripes), reader.without_stripes(stripes).again()):
            assert np.allclose(
                plain - other.read(Window(3, 2, 9, 5), [4, 7]).data, stripes[[4, 7], None, 3:12], atol=1e-6
            )
        double = reader.without_stripes(stripes).rescaled(2).read(Window(3, 2, 9, 5), [4, 7]).data
    assert np.allclose(double, 2 * (plain - stripes[[4, 7], None, 3:12]), atol=1e-6)

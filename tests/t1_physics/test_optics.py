"""Formulas of optics: each by the law that defines it."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hsfuse.physics.optics import (
    centred_taps,
    elliptic_gaussian,
    gaussian,
    gaussian_mtf,
    keys_slopes,
    keys_weights,
    sigma_from_mtf,
    widths_and_turn,
)

TAPS = np.array([-1, 0, 1, 2])
FRACTIONS = np.linspace(0, 1, 41)


@given(st.floats(0.01, 0.99), st.floats(1, 40))
def test_the_width_has_the_mtf_it_was_made_for(mtf, s):
    assert gaussian_mtf(sigma_from_mtf(mtf, s), np.array(0.5 / s)) == pytest.approx(mtf)


def test_the_mtf_is_the_transform_of_the_sampled_gaussian():
    t, f = centred_taps(41), np.linspace(0, 0.25, 20)
    weights = gaussian(t, 2.0) / gaussian(t, 2.0).sum()
    np.testing.assert_allclose(np.cos(2 * np.pi * f[:, None] * t) @ weights, gaussian_mtf(2.0, f), atol=1e-9)


def test_a_gaussian_of_two_widths_is_a_product_and_turns_with_its_root():
    y, x = centred_taps(9), centred_taps(12)
    upright = elliptic_gaussian(np.diag([1.5, 2.5]), y, x)
    np.testing.assert_allclose(upright, np.outer(gaussian(y, 1.5), gaussian(x, 2.5)), rtol=1e-12)
    quarter = np.array([[0, -1], [1, 0]]) @ np.diag([1.5, 2.5])
    np.testing.assert_allclose(elliptic_gaussian(quarter, x, y), upright.T, rtol=1e-12)


@given(st.floats(0.5, 2), st.floats(2.5, 4), st.floats(-44, 44))
def test_widths_and_turn_are_those_of_the_ellipse(small, large, turn):
    along, across = np.sin(np.radians([turn, turn + 90])), np.cos(np.radians([turn, turn + 90]))
    axes = np.stack([along, across])  # rows (y, x); columns: x axis, y axis
    for widths in ((small, large), (large, small)):
        covariance = axes @ np.diag(np.square(widths[::-1])) @ axes.T
        assert widths_and_turn(covariance) == pytest.approx((*widths, turn), abs=1e-6)


@given(st.lists(st.floats(-3, 3), min_size=3, max_size=3))
def test_cubic_convolution_reproduces_quadratics(parabola):
    found = np.polyval(parabola, TAPS) @ keys_weights(FRACTIONS)
    np.testing.assert_allclose(found, np.polyval(parabola, FRACTIONS), atol=1e-12)


def test_cubic_convolution_interpolates_and_reads_the_same_from_either_side():
    assert keys_weights(0.0).tolist() == [0, 1, 0, 0]
    np.testing.assert_allclose(keys_weights(FRACTIONS)[::-1], keys_weights(1 - FRACTIONS), atol=1e-15)


def test_the_slope_is_the_derivative():
    for f in FRACTIONS:
        numeric = (keys_weights(f + 1e-6) - keys_weights(f - 1e-6)) / 2e-6
        np.testing.assert_allclose(keys_slopes(f), numeric, atol=1e-9)


def test_a_point_has_the_same_weights_in_every_window():
    f = np.random.default_rng(0).random(1001)
    whole = keys_weights(f)
    for start, stop in ((0, 3), (5, 6), (17, 980)):
        assert np.array_equal(keys_weights(f[start:stop]), whole[:, start:stop])

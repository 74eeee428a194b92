"""A smile is found and taken out where band centres differ over the columns, and none is where they don't."""

from __future__ import annotations

import numpy as np
import pytest
from rasterio.windows import Window
from waves import ArrayReader, Waves, square

from hsfuse.calibration.smile import derivative, estimate_smile
from hsfuse.core.cube import Spectrum
from hsfuse.pair.destripe import unsmiled

NM, SHAPE, NOISE = np.arange(430.0, 1000.0, 8.0), (40, 36), 0.002
#: Absorption lines of the air: centre and depth, each wide enough for the bands to show its slopes.
LINES = ((590, 0.05), (687, 0.15), (719, 0.2), (761, 0.4), (823, 0.2), (935, 0.5))


def spectra(nm: np.ndarray, red_edge_nm: float | np.ndarray = 715, air: bool = True) -> np.ndarray:
    """Of three materials in sunlight, through air unless that is taken out: (3, *nm.shape)."""
    passed = 1 - air * sum(depth * np.exp(-(((nm - centre) / 20) ** 2)) for centre, depth in LINES)
    leaf = 0.05 + 0.4 / (1 + np.exp(-(nm - red_edge_nm) / 12)) + 0.05 * np.exp(-(((nm - 550) / 30) ** 2))
    soil = 0.1 + 0.25 * (nm - 400) / 600
    roof = 0.3 - 0.1 * np.exp(-(((nm - 860) / 60) ** 2))
    return np.stack([leaf, soil, roof]) * passed


def scene(
    edges_nm: tuple[float, float], seed: int = 0, across: float = 0.0, noise: float = NOISE, nm: np.ndarray = NM
) -> np.ndarray:
    """(C, h, w) whose centres lie so far above their nominal place at the left and the right edge, by a parabola.

    `across`: how much the share of each material rises from left to right.
    """
    u = np.linspace(-1, 1, SHAPE[1])
    left, right = edges_nm
    moved = (right - left) / 2 * u + (right + left) / 2 * u**2
    shares = Waves(seed=seed).on(square(10.0, SHAPE)) + 0.2
    shares = shares * (1 + across * np.array([1, -1, 0.5])[:, None, None] * u)
    seen = spectra(nm[:, None] + moved)
    drawn = np.random.default_rng(seed).standard_normal((nm.size, *SHAPE))
    return np.einsum("kcw,khw->chw", seen, shares) + noise * drawn


def estimated(cube: np.ndarray, nm: np.ndarray = NM):
    u = np.broadcast_to(np.linspace(-1, 1, cube.shape[2]), cube.shape[1:])
    halves = [(cube[:, rows].reshape(len(cube), -1), u[rows].ravel()) for rows in (slice(0, 20), slice(20, 40))]
    return estimate_smile(halves, nm, cube.shape[2])


@pytest.mark.parametrize("edges", [(2.0, 2.0), (-1.5, -1.5), (-2.0, 2.0)])
def test_a_smile_is_found(edges):
    found = estimated(scene(edges))
    assert found
    assert found.shifts_nm[:, [0, -1]] == pytest.approx(np.tile(edges, (NM.size, 1)), abs=0.35)
    np.testing.assert_allclose(found.shifts_nm[:, SHAPE[1] // 2], 0, atol=0.1)
    assert found.sd_nm < 0.2


def test_detectors_that_overlap_have_each_their_own_neighbours():
    """As AVIRIS: between bands of two detectors at nearly one wavelength there is noise, not a slope."""
    nm = np.concatenate([np.arange(430.0, 690.0, 8.0), np.arange(662.05, 1000.0, 8.0)])
    found = estimated(scene((2.0, 2.0), nm=nm), nm)
    assert found.shifts_nm[:, [0, -1]] == pytest.approx(np.full((nm.size, 2), 2.0), abs=0.35)
    down = estimated(scene((2.0, 2.0), nm=NM[::-1]), NM[::-1])
    assert down.shifts_nm[:, [0, -1]] == pytest.approx(np.full((NM.size, 2), 2.0), abs=0.35)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("across", [0.0, 0.6])
def test_ground_that_changes_over_the_columns_is_no_smile(seed, across):
    assert not estimated(scene((0.0, 0.0), seed, across))


def test_a_blur_that_grows_to_the_edges_is_no_smile():
    plain = scene((0.0, 0.0), noise=0)
    share = 0.5 * np.linspace(-1, 1, SHAPE[1]) ** 2
    wide = np.concatenate([plain[:1], (plain[:-2] + plain[2:]) / 2, plain[-1:]])
    drawn = np.random.default_rng(0).standard_normal(plain.shape)
    assert not estimated((1 - share) * plain + share * wide + NOISE * drawn)


def test_bands_that_are_wider_at_the_edges_are_made_as_narrow_there():
    """By a second difference; what is taken out to first order is nearer to the truth than without it."""
    moved, share = scene((2.0, 2.0), noise=0), 0.4 * np.linspace(-1, 1, SHAPE[1]) ** 2
    wide = np.concatenate([moved[:1], (moved[:-2] + moved[2:]) / 2, moved[-1:]])
    cube = (1 - share) * moved + share * wide
    cube += NOISE * np.random.default_rng(0).standard_normal(cube.shape)
    found = estimated(cube)
    assert found.shifts_nm[:, [0, -1]] == pytest.approx(2, abs=0.35)
    assert found.blurs_nm2[:, [0, -1]] == pytest.approx(0.2 * 8**2, abs=4)
    truth, spectra_of = scene((0.0, 0.0), noise=0), cube.reshape(len(cube), -1)
    without, better = (
        cube - sum(weights[:, None] * (matrix @ spectra_of).reshape(cube.shape) for weights, matrix in terms)
        for terms in (
            [(found.shifts_nm, found.slope)],
            [(found.shifts_nm, found.slope), (found.bends_nm2, found.bend)],
        )
    )
    edges = np.r_[:4, SHAPE[1] - 4 : SHAPE[1]]
    first, second = (np.square(data - truth)[:, :, edges].mean() for data in (without, better))
    assert second < 0.7 * first


def test_a_shift_alone_is_no_blur_but_has_a_second_order():
    found = estimated(scene((2.0, 2.0)))
    np.testing.assert_allclose(found.blurs_nm2, 0, atol=1)
    assert found.bends_nm2[:, [0, -1]] == pytest.approx(-(2.0**2) / 2, abs=0.7)


@pytest.mark.parametrize("edge_nm", [3.0, 5.0])
def test_a_red_edge_that_moves_over_the_columns_is_no_smile(edge_nm):
    """From young to ripe crop: both halves of the rows have it, but one part of the spectrum alone."""
    u = np.linspace(-1, 1, SHAPE[1])
    leaf = spectra(np.repeat(NM[:, None], u.size, 1), 715 + edge_nm * u, air=False)[0][:, None]
    soil = 0.1 + 0.3 * (NM - 400)[:, None, None] / 2100
    share, tilt, bright = (waves - waves.min() for waves in Waves(seed=1).on(square(10.0, SHAPE))[:3])
    wavy = 0.02 * np.sin(NM[:, None, None] / 150 + tilt)
    drawn = np.random.default_rng(1).standard_normal((NM.size, *SHAPE))
    ripening = share * leaf + (1.2 - share) * (soil * (1 + 0.3 * bright) + wavy) + NOISE / 2 * drawn
    assert not estimated(ripening)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("tilt", [-0.1, 0.1])
def test_ground_of_few_materials_whose_colour_tilts_over_the_columns_is_no_smile(seed, tilt):
    """By sun or view: smooth spectra are then about as they are where they are moved, in all bands and rows."""
    leaf, soil, _ = spectra(NM, air=False)
    passed = 1 - 0.3 * (1 - spectra(NM)[1] / soil)
    seen = np.stack([leaf, soil]) * passed * np.exp(-(((NM - 480) / 350) ** 2))
    ground = np.einsum("kc,khw->chw", seen, Waves(seed=seed).on(square(10.0, SHAPE))[:2] + 0.2)
    tilted = 1 + tilt * np.linspace(-1, 1, NM.size)[:, None, None] * np.linspace(-1, 1, SHAPE[1]) ** 2
    drawn = np.random.default_rng(seed).standard_normal((NM.size, *SHAPE))
    assert not estimated(1.3 * ground * tilted + NOISE / 2 * drawn)


@pytest.mark.parametrize("value", [0.0, 0.3])
def test_an_image_that_is_the_same_everywhere_has_none(value):
    assert not estimated(np.full((NM.size, *SHAPE), value, np.float32))


@pytest.mark.parametrize("seed", range(2))
def test_a_smile_is_found_where_halves_of_the_rows_tilt_in_colour(seed):
    """Either half tells another course by its smooth ground; sharp features have the same one."""
    u, row = np.linspace(-1, 1, SHAPE[1]), np.linspace(-1, 1, SHAPE[0])[:, None]
    tilt = 0.15 * np.linspace(-1, 1, NM.size)[:, None, None] * np.sign(row) * u**2
    found = estimated(scene((2.0, 2.0), seed, noise=NOISE / 2) * (1 + tilt))
    assert found.shifts_nm[:, [0, -1]] == pytest.approx(2.0, abs=0.5)


def test_one_half_of_the_rows_alone_is_not_believed():
    one, other = scene((3.0, 3.0)), scene((-3.0, -3.0))
    assert not estimated(np.concatenate([one[:, :20], other[:, 20:]], 1))


def test_the_error_is_that_of_the_difference_that_is_told():
    """Two halves whose centres differ by 1.75 and 2.25 nm over the columns leave open half of that at least."""
    one, other = scene((1.75, 1.75)), scene((2.25, 2.25))
    found = estimated(np.concatenate([one[:, :20], other[:, 20:]], 1))
    assert 0.25 < found.sd_nm < 0.6


def test_few_bands_are_left_alone():
    cube = scene((3.0, 3.0))[::3]
    u = np.broadcast_to(np.linspace(-1, 1, SHAPE[1]), SHAPE).ravel()
    half = cube.reshape(len(cube), -1), u
    assert not estimate_smile([half, half], NM[::3], SHAPE[1])


def test_the_derivative_is_that_of_parabolas_but_at_gaps():
    nm = np.array([400.0, 410, 425, 430, 900, 910])
    slope = derivative(nm)
    np.testing.assert_allclose(slope @ np.ones(6), 0, atol=1e-12)
    np.testing.assert_allclose(slope @ nm, 1)
    np.testing.assert_allclose((slope @ nm**2)[1:3], 2 * nm[1:3])
    assert slope[3, 4] == 0
    assert slope[4, 3] == 0


def test_a_reader_without_its_smile_is_so_in_any_window_and_bands():
    cube = scene((2.0, 2.0))
    spectrum = Spectrum(tuple(NM), None, tuple(f"b{i}" for i in range(NM.size)))
    with ArrayReader(cube.astype(np.float32), square(10.0, SHAPE), spectrum) as reader:
        better, (told,) = unsmiled(reader)
        whole = better.read().data
        part = better.read(Window(3, 5, 9, 4), [30, 31, 7]).data
        double = better.rescaled(2).read().data
    np.testing.assert_allclose(part, whole[[30, 31, 7], 5:9, 3:12], atol=1e-6)
    np.testing.assert_allclose(double, 2 * whole, atol=1e-5)
    truth = scene((0.0, 0.0))
    before, after = (np.square(data - truth).mean((1, 2)) for data in (cube, whole))
    steep = before > 2 * np.median(before)
    assert after[steep].sum() < 0.2 * before[steep].sum()
    assert told.code == "smile-taken-out"
    assert told.values["nm"] == pytest.approx(2, abs=0.35)


def test_beside_what_is_invalid_spectra_stay_as_they_are():
    cube = scene((2.0, 2.0)).astype(np.float32)
    cube[20, 3, 4] = np.nan
    with ArrayReader(cube, square(10.0, SHAPE), Spectrum(tuple(NM), None, None)) as reader:
        better, _ = unsmiled(reader)
        data = better.read(bands=[19, 21]).data
    np.testing.assert_array_equal(data[:, 3, 4], cube[[19, 21], 3, 4])
    assert np.isfinite(data).all()

"""A smooth field of misplacement is found where there is one, and only there; and motions compose and are recorded."""

import json
from itertools import pairwise

import numpy as np
import pytest
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from waves import Waves, square

from hsfuse.calibration import Drift
from hsfuse.calibration.distortion import Kriged, bend_of_blocks
from hsfuse.calibration.windows import Block, Locals, without_one
from hsfuse.core.grid import Distortion, Motion
from hsfuse.physics.model import ObservationModel, gaussian_psf
from hsfuse.physics.optics import sigma_from_mtf

S, N = 4, 30
STILL = Drift((0.0, 0.0, 0.0), (0.0, 0.0, 0.0))
MODEL = ObservationModel(np.eye(3), gaussian_psf(sigma_from_mtf(0.3, S), S), S)


def swirl(rows, cols, size=0.4):
    """Shifts (down, right) that turn about over the scene, at places in LR pixels."""
    return size * np.sin(2 * np.pi * cols / 26), size * np.cos(2 * np.pi * rows / 22 + 1)


def block(size=0.4, snr=35, seed=0):
    """LRHSI whose content lies `swirl` off what the MSI has, exactly, both with noise."""
    scene, grid, rng = Waves(seed=seed), square(10 * S, (N, N)), np.random.default_rng(seed)
    rows, cols = np.mgrid[:N, :N] + 0.5
    down, right = swirl(rows, cols, size)
    low = scene.at(*(grid.transform @ (cols - right, rows - down)), sigma_from_mtf(0.3, S) * 10)
    images = low, scene.on(grid.refine(S))
    low, high = (
        (image + image.std() * 10 ** (-by / 20) * rng.standard_normal(image.shape)).astype(np.float32)
        for image, by in zip(images, (snr - 10, snr - 5), strict=True)
    )
    return Block(low, high, np.ones((N, N), bool), np.ones((N * S, N * S), bool))


def test_a_smooth_field_is_found_and_told_by_places_in_the_msi():
    found = bend_of_blocks([block()], MODEL, STILL)
    assert found is not None
    rows, cols = np.mgrid[3 : N - 2 : 3, 3 : N - 2 : 3] * 1.0
    down, right = found.distortion(rows, cols)  # what the MSI has at (row, col) lies there in the LRHSI
    off = np.array(swirl(rows + down, cols + right)) - (down, right)
    assert np.sqrt(np.square(off).mean()) < 0.05
    assert 0.3 < found.rms < 0.5
    assert found.rms < found.largest < 0.7
    assert found.sd < 0.05
    assert found.correlation[0] + 0.01 < found.correlation[1] <= 1
    assert f"by {found.rms:.2f} (RMS) and up to {found.largest:.2f} LR pixels" in found.describe()


@pytest.mark.parametrize("seed", range(6))
def test_no_field_is_found_where_there_is_none(seed):
    assert bend_of_blocks([block(0, (25, 35)[seed % 2], seed)], MODEL, STILL) is None


@pytest.mark.parametrize("what", ["moved", "cloud", "few", "masked"])
def test_no_field_of_what_changed_on_the_ground_or_can_not_tell(what):
    """An object that moves by two LR pixels, or a cloud that one image has, isn't a field of the whole scene."""
    seen = block(0)
    if what == "moved":
        seen.lr[:, 8:18, 8:18] = block(0, seed=3).lr[:, 8:18, 8:18]
        seen.msi[:, 40:80, 32:72] = block(0, seed=3).msi[:, 32:72, 32:72]
    elif what == "cloud":
        seen.lr[:, 5:16, 6:20] = 0.9
    elif what == "few":
        seen = Block(seen.lr[:, :10, :10], seen.msi[:, :40, :40], seen.lr_mask[:10, :10], seen.msi_mask[:40, :40])
    else:
        seen.lr_mask[:] = False
    assert bend_of_blocks([seen], MODEL, STILL) is None


def test_a_field_is_borne_out_without_any_one_quarter():
    """Each window has a say in all looks but one, so that what moves in one quarter alone isn't a field."""
    places = np.array([(1.0, 1.0), (9.0, 1.0), (1.0, 9.0), (9.0, 9.0), (2.0, 3.0)])
    looks = np.array(without_one(places))
    assert (looks.sum(0) == 3).all()
    assert (looks[:, 0] == looks[:, 4]).all()


def test_a_field_between_masked_ground():
    seen = block()
    seen.lr_mask[10:20, 4:15] = False
    seen.lr[:, ~seen.lr_mask] = np.nan
    found = bend_of_blocks([seen], MODEL, STILL)
    assert found is not None
    down, right = found.distortion([24.0, 6.0], [24.0, 22.0])
    wanted = swirl(np.array([24.0, 6.0]) + down, np.array([24.0, 22.0]) + right)
    np.testing.assert_allclose([down, right], wanted, atol=0.1)


def windows_of(scatter=0.02, n=7):
    rng = np.random.default_rng(1)
    places = np.stack(np.meshgrid(*[np.arange(n) * 4.0 + 2] * 2, indexing="ij"), -1).reshape(-1, 2)
    shift = np.stack(swirl(*places.T), 1) + scatter * rng.standard_normal((n * n, 2))
    return places, Locals(shift, shift, np.broadcast_to(np.eye(2) / 0.02**2, (n * n, 2, 2)).copy())


def test_windows_are_kriged_without_those_that_are_elsewhere():
    places, said = windows_of()
    said.shift[20] = 1.5, -1.5
    said.info[30] = 0
    said.shift[30] = 9, 9
    fit = Kriged.of(places, said)
    assert not fit.kept[20]
    assert not fit.kept[30]
    assert fit.kept.sum() > 44
    true = np.stack(swirl(*places.T), 1)
    assert np.abs(fit.at(places) - true).max() < 0.1
    np.testing.assert_allclose(fit.held_out[[20, 30]], true[[20, 30]], atol=0.15)
    row, col = places[24]
    slopes = np.subtract(swirl(row, col + 0.5), swirl(row, col - 0.5))
    np.testing.assert_allclose(fit.slopes()[24][:, 1], slopes, atol=0.03)


def test_windows_in_one_line_tell_a_field_along_it():
    """A scene long and thin has no room for two: nothing tells how places change across."""
    n = 60
    places = np.stack([np.full(n, 4.0), np.arange(n) * 5.0 + 2], 1)
    true = 0.5 * np.stack([np.sin(places[:, 1] / 14), np.cos(places[:, 1] / 14)], 1)
    said = true + 0.02 * np.random.default_rng(0).normal(size=(n, 2))
    fit = Kriged.of(places, Locals(said, said, np.broadcast_to(np.eye(2) / 0.02**2, (n, 2, 2)).copy()))
    assert np.abs(fit.at(places) - true).max() < 0.1
    assert fit.kept.sum() > 0.9 * n


def test_a_held_out_window_has_no_part_in_where_it_would_lie():
    places, said = windows_of()
    fit = Kriged.of(places, said)
    others = np.arange(len(places)) != 24
    left = Kriged.of(
        places[others], Locals(said.at[others], said.shift[others], said.info[others]), fit_of(fit, others)
    )
    assert np.abs(fit.held_out[24] - left.at(places[24:25])[0]).max() < 0.05
    assert 0.5 < np.sqrt(np.square(fit.at(places) - np.stack(swirl(*places.T), 1)).mean()) / fit.sd.mean() < 2


def fit_of(fit, some):
    return Kriged(
        fit.places, fit.length, fit.size, fit.scatter, fit.weights, fit.plane, fit.held_out, fit.kept[some], fit.sd
    )


def test_windows_that_are_unsure_have_the_plane_of_all():
    """Deviations of half a pixel about a field of .05: what is left of it is a plane."""
    rng = np.random.default_rng(4)
    places, said = windows_of()
    shift = np.stack(swirl(*places.T, 0.05), 1) + (0.2, -0.1) + 0.5 * rng.standard_normal(said.shift.shape)
    fit = Kriged.of(places, Locals(shift, shift, np.broadcast_to(np.eye(2) / 0.25, said.info.shape)))
    assert np.abs(fit.at(places) - shift.mean(0)).max() < 0.45
    assert np.abs(fit.at(places) - shift).max() > 1


floats = st.floats(-2, 2)


def random_bend(seed, shape=(6, 7)):
    down, right = np.random.default_rng(seed).uniform(-2, 2, (2, *shape)).cumsum(1).cumsum(2) / 12
    return Distortion.through(
        lambda places: np.stack([down.ravel(), right.ravel()], 1), np.array([-3.0, 2.0]), np.array([97.0, 122.0]), 20.0
    )


def test_a_distortion_is_a_spline_through_its_nodes_and_stays_beyond_them():
    bend = random_bend(0)
    assert np.shape(bend.down) == (6, 7)
    np.testing.assert_allclose(bend(-3 + 20 * np.arange(6), 2.0)[0], np.array(bend.down)[:, 0], atol=1e-12)
    np.testing.assert_allclose(bend([-50, 300], [-9, 500])[1], [bend.right[0][0], bend.right[-1][-1]], atol=1e-12)
    rows = np.linspace(0, 90, 400)
    jumps = [np.diff(v, 2) for v in bend(rows, rows)]
    assert max(np.abs(jump).max() for jump in jumps) < 0.01
    assert bend.largest == pytest.approx(np.hypot(bend.down, bend.right).max())
    steep = max(abs(b - a) for line in (*zip(*bend.down, strict=True), *bend.right) for a, b in pairwise(line)) / 20
    assert bend.steepest >= steep > 0


@given(st.integers(0, 99), st.floats(-200, 200), st.floats(-50, 50), st.sampled_from([0.25, 0.5, 3.0]))
@settings(max_examples=20, deadline=None)
def test_a_distortion_in_other_pixels_is_the_same(seed, row, col, factor):
    bend = random_bend(seed)
    other = bend.seen(row, col, factor)
    places = np.linspace(0, 90, 12)
    for one, same in zip(bend(places, places), other((places - row) * factor, (places - col) * factor), strict=True):
        np.testing.assert_allclose(same, one * factor, atol=3e-4)


def place_of(motion, row, col):
    if motion.distortion is not None:
        down, right = motion.distortion(row, col)
        row, col = row + down, col + right
    return tuple(motion.affine @ (col, row))[::-1]


@pytest.mark.parametrize("bent", [(False, False), (True, False), (False, True), (True, True)])
def test_motions_compose(bent):
    last, first = (
        Motion(Affine.translation(3, -1) @ Affine.rotation(turn), random_bend(turn) if one else None)
        for turn, one in zip((1, 2), bent, strict=True)
    )
    both = last.after(first)
    assert (both.distortion is None) == (not any(bent))
    for row, col in ((20.0, 30.0), (55.0, 61.0), (70.0, 90.0)):
        wanted = place_of(last, *place_of(first, row, col))
        # Splines through nodes so far apart aren't closed under composition.
        np.testing.assert_allclose(place_of(both, row, col), wanted, atol=0.2 if all(bent) else 0.05)


def test_a_motion_is_recorded_as_it_is():
    motion = Motion(Affine(1, 0.01, 2, 0, 0.99, 3), random_bend(5))
    told = json.loads(json.dumps(motion.record()))
    assert Motion.of_record(told) == motion
    assert Motion.of_record({"motion": [1, 0, 4, 0, 1, 0]}) == Motion(Affine.translation(4, 0))
    for spoilt in (None, [], {"motion": [1, 2]}, {"motion": ["a"] * 6}, {**told, "distortion": 3},
                   {**told, "distortion": {**told["distortion"], "last": [0, 0]}},
                   {**told, "distortion": {**told["distortion"], "down": [[1.0]]}},
                   {**told, "distortion": {**told["distortion"], "right": [[float("nan")] * 7] * 6}},
                   {**told, "distortion": {**told["distortion"], "right": [[1, 90] * 3] * 6}},
                   {**told, "distortion": {**told["distortion"], "right": [[10**400] * 7] * 6}},
                   *({"motion": motion} for motion in ([float("nan")] * 6, [10**400, 0, 0, 0, 1, 0], [0] * 6,
                                                       [True, False, True, False, True, True]))):  # fmt: skip
        assert Motion.of_record(spoilt) is None, spoilt

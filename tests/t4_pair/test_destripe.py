"""Stripes are taken out of an open pair's HSI, and ground in narrow strips, which the MSI shows, too, isn't.

Dead detectors are mended by other bands.
"""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch
from affine import Affine
from rasterio.crs import CRS
from scenes import NORTH_UP, mixture, save

from hsfuse import open_pair
from hsfuse.core.cube import Spectrum
from hsfuse.core.grid import Grid
from hsfuse.io import open_cube
from hsfuse.pair.destripe import destriped
from hsfuse.physics import load_srf
from hsfuse.physics.model import ObservationModel, gaussian_psf

NM, RATIO, SIDE = np.linspace(430.0, 940.0, 80), 3, 96
BANDS, NOISE = ("B2", "B3", "B4", "B8"), 0.002


def opened(folder, ground: float, stripes: float, turned: bool = False, srf: str = "sentinel2a"):
    """A pair whose ground has strips one LR pixel wide with spectra of their own, and whose detectors err.

    `turned`: the MSI's file has its rows where the map has columns, so that the HSI is resampled.
    """
    rng = np.random.default_rng(2)
    between = np.stack([np.interp(np.linspace(0, 30, NM.size), np.arange(31), one) for one in np.eye(31)], 1)
    strips = ground * np.repeat(rng.standard_normal((NM.size, SIDE // RATIO)), RATIO, 1)
    truth = np.tensordot(between, mixture((SIDE, SIDE)), 1) + 0.1 + strips[:, None]
    weights, _ = load_srf("sentinel2a").select(BANDS).matrix(NM, None)
    lrhsi, msi = (
        one[0].numpy()
        for one in ObservationModel(weights, gaussian_psf(1.4, RATIO), RATIO)(torch.from_numpy(truth[None]))
    )
    lrhsi = lrhsi + NOISE * rng.standard_normal(lrhsi.shape)
    lrhsi = lrhsi + stripes * rng.standard_normal((NM.size, 1, lrhsi.shape[2]))
    grid = Grid((SIDE, SIDE), NORTH_UP, CRS.from_epsg(32633))
    low = save(folder / "h.tif", lrhsi, grid.coarsen(RATIO), Spectrum(tuple(NM), None))
    if turned:
        msi, grid = msi.swapaxes(1, 2), Grid((SIDE, SIDE), NORTH_UP @ Affine(0, 1, 0, 1, 0, 0), grid.crs)
    high = save(folder / "m.tif", msi, grid, Spectrum(None, None, BANDS))
    given = {"register": "off", "psf": "assumed", "match_radiometry": "off"}
    with open_pair(low, high, srf=srf, **given) as pair:
        return [one.code for one in pair.notes if one.code.startswith("stripes")]


@pytest.mark.parametrize("turned", [False, True])
def test_ground_in_narrow_strips_stays(tmp_path, turned):
    assert opened(tmp_path, 0.02, 0.0, turned) == ["stripes-are-ground"]


@pytest.mark.parametrize("turned", [False, True])
def test_stripes_go_even_where_the_ground_has_a_few_strips(tmp_path, turned):
    assert opened(tmp_path, 0.0, 0.004, turned) == ["stripes-taken-out"]
    assert opened(tmp_path, 0.0015, 0.004, turned) == ["stripes-taken-out"]


def test_ground_in_narrow_strips_stays_where_the_response_is_estimated(tmp_path):
    assert opened(tmp_path, 0.02, 0.0, srf="estimate") == ["stripes-are-ground"]


def seen_by(folder, spoil):
    """A cube (80, 32, 32) as it is and as `spoil` leaves it, what is read of the latter, mended, and the notes."""
    rng = np.random.default_rng(3)
    between = np.stack([np.interp(np.linspace(0, 30, NM.size), np.arange(31), one) for one in np.eye(31)], 1)
    right = np.tensordot(between, mixture((32, 32)), 1) + NOISE * rng.standard_normal((NM.size, 32, 32))
    wrong = right.copy()
    spoil(wrong)
    grid = Grid((32, 32), NORTH_UP, CRS.from_epsg(32633))
    with open_cube(save(folder / "h.tif", wrong, grid, Spectrum(tuple(NM), None)), role="HSI") as reader:
        mended, notes = destriped(reader)
        found = pickle.loads(pickle.dumps(mended)).read(bands=list(range(NM.size)))
        few = mended.read(bands=[31, 2]).data
        np.testing.assert_allclose(few, found.data[[31, 2]], atol=1e-6)
    return right, wrong, found.data, notes


def test_dead_detectors_are_mended_by_other_bands_and_it_is_said(tmp_path):
    def spoil(cube):
        cube[30:36, :, [7, 20]] = 0
        cube[3, :, 12] = 0.7

    right, wrong, found, (note,) = seen_by(tmp_path, spoil)
    spoilt = wrong != right
    assert (note.code, note.values) == ("detectors-mended", {"count": 13, "columns": 3, "bands": 7})
    assert np.abs(found - right)[spoilt].max() < 6 * NOISE
    np.testing.assert_allclose(found[~spoilt], right[~spoilt], atol=1e-6)


def test_wild_values_are_what_other_bands_tell_and_it_is_said(tmp_path):
    places = [(40, 0, 0), (0, 15, 16), (79, 31, 31), (41, 20, 7), (9, 16, 3), (9, 5, 30)]

    def spoil(cube):
        for place, value in zip(places, (9.0, -6.5, 3.0, 40.0, -2.0, 6.6), strict=True):
            cube[place] = value

    right, wrong, found, (note,) = seen_by(tmp_path, spoil)
    spoilt = wrong != right
    assert (note.code, note.values) == ("values-mended", {"count": 6, "bands": 5})
    assert np.abs(found - right)[spoilt].max() < 6 * NOISE
    np.testing.assert_allclose(found[~spoilt], right[~spoilt], atol=1e-6)


def test_small_objects_and_lines_are_no_wild_values(tmp_path):
    def lit(cube):
        cube[:, 4, 4] = 9 * np.random.default_rng(0).random(NM.size)  # a pixel with a spectrum of its own
        cube[:, 20, 9] *= 30  # a roof that shines
        line = np.exp(-4 * np.log(2) * np.square(np.arange(NM.size) - 33.2))  # as wide as bands lie apart
        cube[:, 12, 25] += 8 * line
        cube[:, 27, 27] *= 1 - line  # and one that is absorbed
        cube[50, 8:11, 14:17] += 5 * np.outer((0.1, 1, 0.1), (0.1, 1, 0.1))  # one band alone, blurred by the optics

    _, wrong, found, notes = seen_by(tmp_path, lit)
    assert notes == []
    np.testing.assert_allclose(found, wrong, atol=1e-6)


def test_ground_without_light_is_no_dead_detector(tmp_path):
    def dark(cube):
        cube[60:, :, :5] = 0  # water, cut off at zero, in columns of its own
        cube[:60, :, :5] *= np.linspace(0.3, 0.0, 60)[:, None, None]
        cube[20] = 0.1  # an empty band

    _, wrong, found, notes = seen_by(tmp_path, dark)
    assert notes == []
    np.testing.assert_allclose(found, wrong, atol=1e-6)

"""Bands of an HSI that are far noisier than the others are found and named, and no other: dark ones, odd ones, none."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from affine import Affine
from rasterio.crs import CRS
from scenes import NORTH_UP, WAVELENGTHS_NM, mixture, save

from hsfuse import open_pair
from hsfuse.calibration.spectra import own_part
from hsfuse.core.cube import Spectrum
from hsfuse.core.grid import Grid
from hsfuse.io import open_hsi
from hsfuse.pair.sample import loud_bands
from hsfuse.physics import load_srf
from hsfuse.physics.model import ObservationModel, gaussian_psf

NM, BANDS, QUIET = np.linspace(430.0, 940.0, 62), ("B2", "B3", "B4", "B8"), 0.003
#: Of these, a run at the end and two in the middle of B8's.
LOUD = [43, 44, 60, 61]


def ground(shape: tuple[int, int]) -> np.ndarray:
    between = np.stack([np.interp(NM, WAVELENGTHS_NM, one) for one in np.eye(31)], 1)
    return np.tensordot(between, mixture(shape), 1) + 0.05


def found(folder, cube: np.ndarray):
    """What is told of a cube's (C, h, w) bands."""
    grid = Grid(cube.shape[1:], NORTH_UP @ Affine.scale(3), CRS.from_epsg(32633))
    path = save(folder / "h.tif", cube, grid, Spectrum(tuple(NM), None))
    with open_hsi(path, path) as reader:
        return loud_bands(reader, list(range(len(NM))))


def noisy(shape: tuple[int, int], loud: float, seed: int = 1) -> np.ndarray:
    noise = np.full(NM.size, QUIET)
    noise[LOUD] = loud
    return ground(shape) + noise[:, None, None] * np.random.default_rng(seed).standard_normal((NM.size, *shape))


@pytest.mark.parametrize("side", [10, 32])
def test_loud_bands_are_found_whatever_the_number_of_pixels(tmp_path, side):
    """A hundred pixels aren't twice as many as bands, and no neighbour is taken for what it lies beside."""
    told = found(tmp_path, noisy((side, side), 0.2))
    assert np.flatnonzero(told.times > 1).tolist() == np.flatnonzero(told.mostly).tolist() == LOUD
    assert told.units is not None
    assert set(told.units) <= {1, 2**5, 2**6, 2**7}
    assert not told.notes
    (warning,) = told.warnings
    assert (warning.code, warning.severity, warning.values["bands"]) == ("hsi-bands-noise", "warning", 4)
    assert "790 to 798 nm, 932 to 940 nm" in warning.text


def test_what_holds_ground_as_well_is_a_note(tmp_path):
    told = found(tmp_path, noisy((32, 32), 0.06))
    assert [one.code for one in told.notes] == ["hsi-bands-noisy"]
    assert not told.mostly.any()
    assert np.flatnonzero(told.units > 1).tolist() == LOUD


@pytest.mark.parametrize("quiet", [QUIET, 0.0, 0.03])
def test_bands_that_are_dark_or_have_ground_of_their_own_are_not_loud(tmp_path, quiet):
    rng, cube = np.random.default_rng(2), ground((32, 32))
    cube[20:24] *= 0.02
    cube[30] += 0.3 * mixture((32, 32), 9)[4]
    told = found(tmp_path, cube + quiet * rng.standard_normal(cube.shape))
    assert told.units is None
    assert not [*told.notes, *told.warnings]


def test_lamps_of_one_line_are_no_noise(tmp_path):
    """They are as white as noise, and in a few pixels."""
    rng, cube = np.random.default_rng(3), 0.02 * noisy((32, 32), QUIET)
    for k in LOUD:
        cube[k, rng.integers(0, 32, 20), rng.integers(0, 32, 20)] += rng.uniform(0.1, 1.0, 20)
    assert found(tmp_path, cube).units is None


def test_nothing_is_told_of_few_pixels_or_a_flat_image(tmp_path):
    assert found(tmp_path, noisy((7, 7), 0.2)).units is None
    assert found(tmp_path, np.full((NM.size, 16, 16), 0.2)).units is None


def test_a_band_has_of_its_own_what_others_do_not_tell():
    rng = np.random.default_rng(0)
    spectra = rng.standard_normal((40, 3)) @ rng.standard_normal((3, 200)) + 0.2 * rng.standard_normal((40, 200))
    spectra[7] = 3 * rng.standard_normal(200)
    sd, matrix = own_part(spectra)
    np.testing.assert_allclose(np.delete(sd, 7), 0.2, rtol=0.35)
    assert sd[7] == pytest.approx(3, rel=0.2)
    left = matrix @ (spectra - spectra.mean(1, keepdims=True))
    assert abs(np.corrcoef(left[7], spectra[7])[0, 1]) > 0.95


def test_the_response_sees_nothing_of_what_is_mostly_noise(tmp_path):
    """Its neighbours stand in for it, and no band that the MSI has is lost."""
    ratio, shape = 3, (96, 96)
    truth = torch.from_numpy(ground(shape).astype(np.float32))[None]
    model = ObservationModel(load_srf("sentinel2a").select(BANDS).matrix(NM, None)[0], gaussian_psf(1.4, ratio), ratio)
    lrhsi, msi = (one[0].numpy() for one in model(truth))
    grid = Grid(shape, NORTH_UP, CRS.from_epsg(32633))
    high = save(tmp_path / "m.tif", msi, grid, Spectrum(None, None, BANDS))
    opened = []
    for name, loud in (("quiet.tif", 0.0), ("loud.tif", 0.2)):
        noise = np.full(NM.size, QUIET)
        noise[LOUD] += loud
        seen = lrhsi + noise[:, None, None] * np.random.default_rng(3).standard_normal(lrhsi.shape)
        low = save(tmp_path / name, seen, grid.coarsen(ratio), Spectrum(tuple(NM), None))
        with open_pair(low, high, srf="sentinel2a", psf="assumed", register="off", match_radiometry="off") as pair:
            opened.append(pair)
    plain, pair = opened
    assert plain.units is None
    assert np.flatnonzero(pair.units > 1).tolist() == LOUD
    assert "hsi-bands-noise" in [one.code for one in pair.warnings]
    assert len(pair.hsi_bands) == NM.size
    matrix, whole = pair.model.srf.numpy(), plain.model.srf.numpy()
    assert not matrix[:, LOUD].any()
    assert whole[3, LOUD[0]] > 0
    np.testing.assert_allclose(matrix.sum(1), 1, atol=1e-6)
    spectra = truth[0].flatten(1).numpy()
    np.testing.assert_allclose(matrix @ spectra, whole @ spectra, atol=2e-3)

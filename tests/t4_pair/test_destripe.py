"""Stripes are taken out of an open pair's HSI, and ground in narrow strips, which the MSI shows, too, isn't."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from affine import Affine
from rasterio.crs import CRS
from scenes import NORTH_UP, mixture, save

from hsfuse import open_pair
from hsfuse.core.cube import Spectrum
from hsfuse.core.grid import Grid
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

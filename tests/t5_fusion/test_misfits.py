"""Fusing with what was estimated is nearly as good as with what is true: shift, rotated grid, response, PSF."""

from __future__ import annotations

import numpy as np
import pytest
from affine import Affine
from scenes import BANDS, FWHM_NM, HSI, MSI, WAVELENGTHS_NM, save
from waves import Waves, square

from hsfuse.core.grid import Grid
from hsfuse.fusion import fuse
from hsfuse.io import open_cube
from hsfuse.physics import load_srf
from hsfuse.physics.optics import sigma_from_mtf

MSI_GRID = square(10.0, (144, 144))
SCENE = Waves(bands=31, finest=10.0)
SLOW = pytest.mark.slow


def psnr(path) -> float:
    """Of a fused cube against the scene itself, away from the border."""
    with open_cube(path) as reader:
        cube = reader.read()
    truth = SCENE.on(cube.grid)
    inner = cube.mask.copy()
    inner[:16], inner[-16:], inner[:, :16], inner[:, -16:] = False, False, False, False
    return float(10 * np.log10(1 / np.square(cube.data - truth)[:, inner].mean()))


def pair(folder, low: Grid, placed: Grid, mtf: float = 0.3):
    """Files of the scene: the LRHSI seen on grid `low` but saved as if it were on `placed`; 35 and 40 dB of noise."""
    rng = np.random.default_rng(1)
    weights, _ = load_srf("sentinel2a").select(BANDS).matrix(WAVELENGTHS_NM, FWHM_NM)
    hsi = SCENE.on(low, sigma_from_mtf(mtf, low.gsd[0] / 10) * 10)
    msi = np.tensordot(weights, SCENE.on(MSI_GRID), 1)
    folder.mkdir()
    for name, data, grid, spectrum, snr in (("hsi", hsi, placed, HSI, 35), ("msi", msi, MSI_GRID, MSI, 40)):
        noise = np.sqrt(np.square(data).mean((1, 2), keepdims=True) * 10 ** (-snr / 10))
        save(folder / f"{name}.tif", data + noise * rng.standard_normal(data.shape), grid, spectrum)
    return folder / "hsi.tif", folder / "msi.tif"


def moved(grid: Grid, x: float, y: float) -> Grid:
    return Grid(grid.shape, Affine.translation(x, y) @ grid.transform, grid.crs)


def fused(folder, files, srf="sentinel2a", **options) -> float:
    return psnr(fuse(*files, srf, folder / "fused.tif", method="glp-reg", overwrite=True, **options).output)


@pytest.mark.parametrize(
    ("x", "y"), [pytest.param(4.0, -3.0, marks=SLOW), pytest.param(-27.0, 14.0, marks=SLOW), (80.0, -75.0)]
)
def test_an_estimated_shift_is_as_good_as_the_true_one(tmp_path, x, y):
    nominal = square(40.0, (36, 36))
    low = moved(nominal, x, y)
    known = fused(tmp_path, pair(tmp_path / "true", low, low), register="off")
    found = fused(tmp_path, pair(tmp_path / "off", low, nominal))
    ignored = fused(tmp_path, (tmp_path / "off" / "hsi.tif", tmp_path / "off" / "msi.tif"), register="off")
    assert found > known - 0.5
    assert found > ignored


@pytest.mark.parametrize("turn", [5.0, pytest.param(-12.0, marks=SLOW)])
def test_a_rotated_grid_costs_little(tmp_path, turn):
    straight, rotated = square(40.0, (36, 36)), square(40.0, (36, 36), turn=turn)
    plain = fused(tmp_path, pair(tmp_path / "plain", straight, straight))
    assert fused(tmp_path, pair(tmp_path / "turned", rotated, rotated)) > plain - 1.0


def test_an_estimated_psf_is_as_good_as_the_true_one(tmp_path):
    low = square(40.0, (36, 36))
    files = pair(tmp_path / "pair", low, low, mtf=0.15)
    known, estimated = (fused(tmp_path, files, **how) for how in ({"mtf": 0.15}, {"psf": "estimate"}))
    assert estimated > known - 0.5
    assert estimated > fused(tmp_path, files, mtf=0.45)


def test_an_estimated_response_is_as_good_as_the_true_one(tmp_path):
    low = square(40.0, (36, 36))
    files = pair(tmp_path / "pair", low, low)
    assert fused(tmp_path, files, srf="estimate") > fused(tmp_path, files) - 0.5


def test_all_three_estimated_together_are_as_good_as_the_true_ones(tmp_path):
    """Response, PSF and shift, none of them known."""
    nominal = square(40.0, (36, 36))
    low = moved(nominal, -27.0, 14.0)
    known = fused(tmp_path, pair(tmp_path / "true", low, low, mtf=0.2), mtf=0.2, register="off")
    files = pair(tmp_path / "off", low, nominal, mtf=0.2)
    assert fused(tmp_path, files, srf="estimate", psf="estimate") > known - 0.5

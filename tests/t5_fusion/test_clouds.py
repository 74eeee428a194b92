"""Clouds from files to a file: what they cover comes out as nodata, and what lies beside them is as good as without."""

from __future__ import annotations

import numpy as np
import pytest
from scenes import BANDS, FWHM_NM, HSI, MSI, WAVELENGTHS_NM, memory_scene, save
from scipy.ndimage import distance_transform_edt, gaussian_filter
from torch import einsum
from waves import Waves, square

from hsfuse.core.cube import Cube
from hsfuse.core.errors import HsfuseError
from hsfuse.core.grid import Grid
from hsfuse.fusion import fuse
from hsfuse.io import open_cube
from hsfuse.pair import open_pair
from hsfuse.pair.sample import Filling
from hsfuse.physics import load_srf
from hsfuse.physics.optics import sigma_from_mtf
from hsfuse.physics.sample import PairSample

LOW, HIGH, RATIO = square(30.0, (30, 32)), square(10.0, (90, 96)), 3


def clouds(shape: tuple[int, int], share: float, seed: int) -> np.ndarray:
    """Blobs that cover a share of an image, True under them."""
    noise = gaussian_filter(np.random.default_rng(seed).standard_normal(shape), shape[0] / 10)
    return noise > np.quantile(noise, 1 - share)


def cloudy_pair(folder, hsi_share: float, msi_share: float, moved=(0.0, 0.0)):
    """Files of a scene of waves under white clouds, which the masks tell; and where the fused image is valid."""
    weights, _ = load_srf("sentinel2a").select(BANDS).matrix(WAVELENGTHS_NM, FWHM_NM)
    scene = Waves(bands=31, finest=10.0, seed=3)
    low, high = scene.on(LOW, sigma_from_mtf(0.3, RATIO) * 10, moved), np.tensordot(weights, scene.on(HIGH), 1)
    over_low, over_high = clouds(LOW.shape, hsi_share, 1), clouds(HIGH.shape, msi_share, 2)
    low[:, over_low] = high[:, over_high] = 0.9
    save(folder / "hsi.tif", low, LOW, HSI, ~over_low)
    save(folder / "msi.tif", high, HIGH, MSI, ~over_high)
    return scene.on(HIGH), ~(over_low.repeat(RATIO, 0).repeat(RATIO, 1) | over_high)


def errors(folder, truth: np.ndarray, name: str, method: str) -> tuple[np.ndarray, np.ndarray]:
    """RMS over the bands of each pixel's error (H, W), NaN where invalid; the mask of what was fused."""
    fuse(folder / "hsi.tif", folder / "msi.tif", "sentinel2a", folder / name, method=method, register="off",
         psf="assumed", match_radiometry="off", overwrite=True)  # fmt: skip
    with open_cube(folder / name) as reader:
        cube = reader.read()
    rms = np.sqrt(np.square(cube.data - truth).mean(0))
    return np.where(cube.mask, rms, np.nan), cube.mask


def rms(values: np.ndarray) -> float:
    return float(np.sqrt(np.nanmean(np.square(values))))


@pytest.mark.parametrize("method", ["glp-ens", "glp-reg"])
def test_beside_clouds_in_the_lrhsi_the_error_is_that_without_clouds(tmp_path, monkeypatch, method):
    truth, clear = cloudy_pair(tmp_path, 0.0, 0.0)
    without, _ = errors(tmp_path, truth, "clear.tif", method)
    _, clear = cloudy_pair(tmp_path, 0.2, 0.0)
    found, mask = errors(tmp_path, truth, "cloudy.tif", method)
    np.testing.assert_array_equal(mask, clear)
    distance = distance_transform_edt(clear)
    ring, far = (distance > 0) & (distance <= RATIO), distance > 3 * RATIO

    def raised(found: np.ndarray, where: np.ndarray) -> float:
        return rms(found[where]) / rms(without[where])

    assert raised(found, ring) < 1.15 * raised(found, far)
    monkeypatch.setattr(Filling, "of", classmethod(lambda cls, scene, model: cls(model)))
    nearest, _ = errors(tmp_path, truth, "nearest.tif", method)
    assert raised(nearest, ring) > 1.2 * raised(nearest, far)


def test_two_fifths_of_both_images_under_clouds(tmp_path):
    """The shift is found as without clouds, and most of the accuracy stays."""
    moved = (12.0, -21.0)
    truth, _ = cloudy_pair(tmp_path, 0.0, 0.0)
    without, _ = errors(tmp_path, truth, "clear.tif", "glp-reg")
    truth, clear = cloudy_pair(tmp_path, 0.4, 0.4, moved)
    with open_pair(tmp_path / "hsi.tif", tmp_path / "msi.tif", srf="sentinel2a") as pair:
        assert (pair.shift.dx * 30, -pair.shift.dy * 30) == pytest.approx(moved, abs=1.5)
        assert pair.radiometry is None
    truth, clear = cloudy_pair(tmp_path, 0.4, 0.4)
    found, mask = errors(tmp_path, truth, "cloudy.tif", "glp-reg")
    np.testing.assert_array_equal(mask, clear)
    assert rms(found) < 1.3 * rms(np.where(mask, without, np.nan))


@pytest.mark.parametrize("shares", [(1.0, 0.0), (0.0, 1.0), (0.6, 0.6)])
def test_nothing_but_clouds_is_told_and_leaves_nothing(tmp_path, shares):
    """All of one image; or what one shows is hidden in the other."""
    cloudy_pair(tmp_path, *shares)
    if max(shares) < 1:
        hidden = clouds(LOW.shape, 0.6, 1)
        with open_cube(tmp_path / "hsi.tif") as reader:
            low = reader.read()
        msi = np.full((len(BANDS), *HIGH.shape), 0.3, np.float32)
        save(tmp_path / "hsi.tif", low.data, LOW, HSI, ~hidden)
        save(tmp_path / "msi.tif", msi, HIGH, MSI, hidden.repeat(RATIO, 0).repeat(RATIO, 1))
    with pytest.raises(HsfuseError, match=r"no valid pixel|only \d pixels are valid in both") as caught:
        fuse(tmp_path / "hsi.tif", tmp_path / "msi.tif", "sentinel2a", tmp_path / "f.tif", method="glp-reg")
    assert "\n" not in str(caught.value)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["hsi.tif", "msi.tif"]


def test_filling_keeps_valid_pixels_and_knows_a_linear_scene():
    """Where spectra are a linear function of the MSI, what lies under a cloud in the LRHSI is found exactly."""
    scene = memory_scene((20, 20))
    msi = scene.msi.double()
    lrhsi = (einsum("kc,bkhw->bchw", scene.model.srf.double(), scene.model.spatial(msi)) + 0.1).float()
    filling = Filling.of(PairSample(lrhsi, scene.msi, scene.training.mask), scene.model)
    clear = ~clouds((20, 20), 0.3, 5)
    low = Cube(np.where(clear, lrhsi[0].numpy(), np.float32(0)), Grid((20, 20)), HSI, clear)
    high = Cube(scene.msi[0].numpy(), Grid((60, 60)), MSI, np.ones((60, 60), bool))
    x, y = filling(low, high)
    np.testing.assert_array_equal(x[:, clear], low.data[:, clear])
    np.testing.assert_allclose(x, lrhsi[0].numpy(), atol=0.01)
    assert np.abs(Filling(scene.model)(low, high)[0] - lrhsi[0].numpy()).max() > 0.05
    np.testing.assert_array_equal(y, high.data)

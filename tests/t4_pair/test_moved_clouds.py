"""Clouds that have moved between the two images don't tell where the ground lies."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from scenes import mixture
from scipy.ndimage import gaussian_filter
from waves import Waves, square

from benchmarks.told.pairs import Off, write_pair
from hsfuse import open_pair
from hsfuse.calibration import judge, register
from hsfuse.core.cube import Cube, Spectrum
from hsfuse.physics.model import ObservationModel, gaussian_psf
from hsfuse.physics.optics import sigma_from_mtf

NM = np.linspace(420.0, 980.0, 31)


@pytest.fixture(scope="module")
def cube() -> np.ndarray:
    return np.moveaxis(0.6 * mixture((112, 112), 3), 0, 2)


def clouded(cube: np.ndarray, moved: tuple[int, int]) -> np.ndarray:
    """Under white cloud over 40 % of the scene, moved by whole pixels."""
    drawn = gaussian_filter(np.random.default_rng(1).standard_normal(cube.shape[:2]), 10, mode="wrap")
    cloud = 1 / (1 + np.exp(-12 * (drawn - np.quantile(drawn, 0.6)) / drawn.std()))
    cloud = np.roll(cloud, moved, (0, 1))[..., None]
    return (1 - cloud) * cube + 0.9 * cloud


@pytest.mark.parametrize("shift", [(0.0, 0.0), (0.5, 0.4)])
def test_ground_is_laid_on_ground_where_clouds_have_moved(cube, tmp_path_factory, shift):
    hsi = write_pair(clouded(cube, (6, -5)), NM, 4, Off(shift=shift), tmp_path_factory.mktemp("low")).hsi
    files = write_pair(clouded(cube, (0, 0)), NM, 4, Off(), tmp_path_factory.mktemp("high"))
    with open_pair(hsi, files.msi, srf=str(files.srf), match_radiometry="off") as pair:
        assert "bright-apart" in {one.code for one in pair.warnings}
        # LR pixels see what lies further down and right: their content lies above and left
        assert (pair.shift.dy, pair.shift.dx) == pytest.approx((-shift[0], -shift[1]), abs=0.15)


@pytest.mark.parametrize("moved", [(0, 0), (10, 6)])
def test_thin_cloud_over_dark_ground_is_no_shift_of_it(cube, tmp_path_factory, moved):
    """Its faint edges are brighter than what they lie on, too; a true shift of all stays."""
    rng = np.random.default_rng(3)
    drawn = gaussian_filter(rng.standard_normal(cube.shape[:2]), 10)
    cloud = 0.2 * np.clip((drawn - drawn.min()) / np.ptp(drawn) - 0.55, 0, None)[..., None] / 0.45
    ground = 0.01 * cube + 0.001 * rng.standard_normal(cloud.shape)
    hazy = [(1 - t) * ground + 0.6 * t for t in (np.roll(cloud, moved, (0, 1)), cloud)]
    shift = (0.0, 0.0) if any(moved) else (1.25, -0.75)
    hsi = write_pair(hazy[0], NM, 4, Off(shift=shift), tmp_path_factory.mktemp("low"), db=80).hsi
    files = write_pair(hazy[1], NM, 4, Off(), tmp_path_factory.mktemp("high"), db=80)
    told = {"srf": str(files.srf), "psf": "assumed", "haze": "off", "match_radiometry": "off", "register": "report"}
    with open_pair(hsi, files.msi, **told) as pair:
        assert ("bright-apart" in {one.code for one in pair.warnings}) == any(moved)
        assert (pair.shift.dy, pair.shift.dx) == pytest.approx((-shift[0], -shift[1]), abs=0.05)


@pytest.mark.parametrize("off", [Off(), Off(shift=(0.5, 0.4)), Off(drift=0.5)])
def test_clouds_that_lie_still_are_ground(cube, tmp_path, off):
    files = write_pair(clouded(cube, (0, 0)), NM, 4, off, tmp_path)
    with open_pair(files.hsi, files.msi, srf=str(files.srf), match_radiometry="off") as pair:
        assert "bright-apart" not in {one.code for one in pair.warnings}


@pytest.mark.parametrize("seed", [0, 1])
def test_dark_ground_that_a_field_moves_is_no_ground_between_clouds(seed):
    """Dark ground in one quarter lies 1.5 LR pixels off, as one does, what is bright up to as far all ways."""
    s, n, sigma = 4, 40, sigma_from_mtf(0.3, 4)
    scene, grid, rng = Waves(seed=seed), square(10 * s, (n, n)), np.random.default_rng(seed)

    def dark(rows, cols):
        return 1 / (1 + np.exp(0.6 * n - np.minimum(rows, cols)))

    rows, cols = np.mgrid[:n, :n] + 0.5
    there = dark(rows, cols)
    down = 1.4 * np.sin(np.pi * cols / 10) * (1 - there) - 1.5 * there
    right = 1.4 * np.cos(np.pi * rows / 10 + 1) * (1 - there) + 0.4 * there
    seen = rows - down, cols - right
    low = scene.at(*(grid.transform @ seen[::-1]), 10 * sigma) - 0.4 * dark(*seen)
    high = scene.on(grid.refine(s)) - 0.4 * dark(*(np.mgrid[: n * s, : n * s] + 0.5) / s)
    low, high = (
        Cube(
            (image + 0.01 * rng.standard_normal(image.shape)).astype(np.float32),
            on,
            Spectrum(None),
            np.ones(on.shape, bool),
        )
        for image, on in ((low, grid), (high, grid.refine(s)))
    )
    model = ObservationModel(np.eye(3), gaussian_psf(sigma, s), s)
    pair = SimpleNamespace(model=model, lr_shape=(n, n), read_lr=lambda _: low, read_hr=lambda _: high)
    found = register(pair)
    assert found.apart == 0
    assert found.bend is not None or not judge(found, s).correct  # by the field or not at all

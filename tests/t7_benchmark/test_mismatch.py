"""Pairs that depart from what is told of them: each departure against plain numpy, and what is told to a method."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.crs import CRS
from scenes import BANDS, FWHM_NM, NORTH_UP, WAVELENGTHS_NM, mixture, save
from scipy.ndimage import correlate, map_coordinates

from hsfuse.benchmark.config import parse_config
from hsfuse.benchmark.markdown import render
from hsfuse.benchmark.mismatch import (
    TRUTH_HSI,
    TRUTH_MSI,
    TRUTH_PSF,
    TRUTH_SRF,
    Mismatch,
    kernel,
    noise_like,
    simulate_mismatch,
    smiled,
    true_response,
)
from hsfuse.benchmark.results import Outcome, Row, read_csv, write_csv
from hsfuse.benchmark.run import fuse_arguments
from hsfuse.core.cube import Spectrum
from hsfuse.core.errors import SettingError
from hsfuse.core.grid import Grid
from hsfuse.physics import load_srf

RATIO, SHAPE = 4, (48, 40)


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    grid = Grid(SHAPE, NORTH_UP, CRS.from_epsg(32633))
    path = tmp_path_factory.mktemp("reference") / "truth.tif"
    return save(path, mixture(SHAPE), grid, Spectrum(tuple(WAVELENGTHS_NM), tuple(FWHM_NM)))


def made(reference, folder, **departs):
    snr = {key: departs.pop(key) for key in ("snr_hsi", "snr_msi") if key in departs}
    how = {"srf": "sentinel2a", "ratio": RATIO, "msi_bands": BANDS, **snr}
    return simulate_mismatch(reference, folder, Mismatch("x", **departs), **how)


def read(path):
    with rasterio.open(path) as file:
        return file.read().astype(float), file.transform


def cubic(truth, rows, cols):
    """The truth at HR coordinates, by cubic splines."""
    return np.stack([map_coordinates(band, [rows, cols], order=3, mode="mirror") for band in truth])


PSFS = ["gauss:0.2", "box", "gaussbox:0.5", "ellipse:0.45,0.25,30", "comet:0.5"]


@pytest.mark.parametrize("psf", PSFS)
@pytest.mark.parametrize("ratio", [2, 3, 5, 8])
def test_every_psf_can_be_centred_at_every_ratio(psf, ratio):
    assert len(kernel(psf, ratio).kernel) % 2 == ratio % 2


@pytest.mark.parametrize("psf", PSFS)
def test_every_psf_is_a_plain_correlation(reference, tmp_path, psf):
    pair = made(reference, tmp_path, psf=psf)
    taps = kernel(psf, RATIO).kernel
    assert taps.sum() == pytest.approx(1)
    truth, _ = read(pair.reference)
    n = len(taps)
    assert n % 2 == 0  # centred between two HR pixels
    padded = np.pad(truth, ((0, 0), (n, n), (n, n)), mode="symmetric")
    plain = correlate(padded, taps[None], mode="constant", origin=(0, -1, -1))
    first = n + RATIO // 2 - 1
    wanted = plain[:, first : first + SHAPE[0] : RATIO, first : first + SHAPE[1] : RATIO]
    np.testing.assert_allclose(read(pair.lrhsi)[0], wanted, atol=2e-6)
    np.testing.assert_allclose(np.loadtxt(tmp_path / TRUTH_PSF, delimiter=","), taps)


def test_a_box_is_the_mean_of_the_pixels_under_it(reference, tmp_path):
    pair = made(reference, tmp_path, psf="box")
    truth, _ = read(pair.reference)
    mean = truth.reshape(31, SHAPE[0] // RATIO, RATIO, SHAPE[1] // RATIO, RATIO).mean(axis=(2, 4))
    np.testing.assert_allclose(read(pair.lrhsi)[0], mean, atol=1e-6)


def test_the_lrhsi_lies_where_only_the_truth_says(reference, tmp_path):
    pair = made(reference, tmp_path, psf="box", shift=(0.5, -0.25), drift=0.5)
    low, told = read(pair.lrhsi)
    same, true = read(tmp_path / TRUTH_HSI)
    np.testing.assert_array_equal(low, same)
    _, hr = read(pair.msi)
    assert told.almost_equals(hr @ hr.scale(RATIO))
    rows = low.shape[1]
    for row, col in ((3, 4), (7, 6)):
        x, y = true @ (col + 0.5, row + 0.5)
        wanted = hr @ (RATIO * (col + 0.5 - 0.25 + 0.5 * row / (rows - 1)), RATIO * (row + 0.5 + 0.5))
        assert (x, y) == pytest.approx(wanted)
        centre = np.array((~hr) @ (x, y)) - 0.5  # HR column, row of the footprint's centre
        steps = np.arange(RATIO) - (RATIO - 1) / 2
        grid = np.meshgrid(centre[1] + steps, centre[0] + steps, indexing="ij")
        truth, _ = read(pair.reference)
        np.testing.assert_allclose(low[:, row, col], cubic(truth, *grid).mean(axis=(1, 2)), atol=3e-3)


def test_the_true_place_of_a_turned_image_is_its_content(reference, tmp_path):
    pair = made(reference, tmp_path, psf="gauss:0.3", rotate=3.0)
    low, _ = read(pair.lrhsi)
    _, true = read(tmp_path / TRUTH_HSI)
    _, hr = read(pair.msi)
    truth, _ = read(pair.reference)
    x, y = true @ (4.5, 5.5)
    col, row = (~hr) @ (x, y)
    taps = kernel("gauss:0.3", RATIO).kernel  # round: turning the image doesn't turn it
    steps = np.arange(len(taps)) - (len(taps) - 1) / 2
    seen = cubic(truth, *np.meshgrid(row - 0.5 + steps, col - 0.5 + steps, indexing="ij"))
    np.testing.assert_allclose(low[:, 5, 4], (seen * taps).sum(axis=(1, 2)), atol=1e-3)
    assert abs(col - RATIO * 4.5) > 0.1


def test_a_changed_response_is_wider_and_elsewhere():
    told = load_srf("sentinel2a").select(BANDS)
    real = true_response(Mismatch("x", srf_shift=5, srf_widen=1.2), told)
    np.testing.assert_allclose(real.centres_nm, told.centres_nm + 5, atol=0.3)
    np.testing.assert_allclose(real.fwhm_nm, 1.2 * told.fwhm_nm, rtol=0.03)
    other = true_response(Mismatch("x", srf="sentinel2b"), told)
    assert other.name == "sentinel2b"
    assert other.bands == BANDS


def test_the_msi_s_tone_is_known_to_the_truth(reference, tmp_path):
    pair = made(reference, tmp_path, gain=1.1, offset=0.02, gamma=0.8)
    msi, _ = read(pair.msi)
    linear, _ = read(tmp_path / TRUTH_MSI)
    np.testing.assert_allclose(msi, 1.1 * linear**0.8 + 0.02, atol=1e-6)
    weights, _ = load_srf(tmp_path / TRUTH_SRF).matrix(WAVELENGTHS_NM, FWHM_NM)
    np.testing.assert_allclose(linear, np.tensordot(weights, read(pair.reference)[0], axes=1), atol=1e-4)


def test_a_smile_moves_bands_at_the_edges_alone():
    line = np.broadcast_to(np.arange(400.0, 900, 10)[:, None, None], (50, 3, 5))
    nm = np.arange(400.0, 900, 10)
    moved = smiled(line, nm, 3.0) - line
    np.testing.assert_allclose(moved[1:-1, :, 2], 0)
    np.testing.assert_allclose(moved[1:-1, :, [0, 4]], 3)


@pytest.mark.parametrize("kind", ["white", "striped", "correlated"])
def test_noise_has_the_power_that_was_asked_for(kind):
    image = np.full((40, 60, 50), 0.3)
    noise = noise_like(image, 30, kind, np.random.default_rng(0))
    assert noise.std() == pytest.approx(0.3 * 10 ** (-30 / 20), rel=0.05)
    column = noise.mean(axis=1).std()
    assert (column > 0.5 * noise.std()) == (kind == "striped")
    neighbours = np.corrcoef(noise[:-1].ravel(), noise[1:].ravel())[0, 1]
    assert (neighbours > 0.5) == (kind == "correlated")


def test_sloped_noise_grows_with_the_band():
    noise = noise_like(np.full((40, 60, 50), 0.3), 30, "sloped", np.random.default_rng(0))
    assert noise[-1].std() / noise[0].std() == pytest.approx(2.5 / 0.4, rel=0.1)


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ({"psf": "box"}, "no `name`"),
        ({"name": "a", "tilt": 3}, "has no 'tilt'"),
        ({"name": "a", "noise": "pink"}, "known are white"),
        ({"name": "a", "psf": "gauss:"}, "no PSF 'gauss:'"),
        ({"name": "a", "psf": "box:3"}, "no PSF 'box:3'"),
    ],
)
def test_departures_that_make_no_sense_are_told(table, words):
    with pytest.raises(SettingError, match=words):
        Mismatch.of(table)


def config(reference, *scales):
    return parse_config(
        {
            "scales": list(scales or (4,)),
            "methods": ["bicubic", {"method": "bicubic", "told": "truth"}],
            "scenes": [str(reference)],
            "sensors": [{"srf": "sentinel2a", "msi_bands": list(BANDS)}],
            "mismatch": [{"name": "box", "psf": "box"}, {"name": "moved", "shift": [0.4, -0.3]}],
        }
    )


def test_a_method_is_told_what_a_user_knows_or_the_truth(reference, tmp_path):
    cases = config(reference).cases
    assert len(cases) == 4
    assert len({case.key for case in cases}) == 4
    assert len({case.pair_key for case in cases}) == 2
    pair = simulate_mismatch(reference, tmp_path, cases[0].mismatch, srf="sentinel2a", ratio=4, msi_bands=BANDS)
    user, truth = (fuse_arguments(case, pair, Path("o.tif")) for case in cases[:2])
    assert not {"--psf", "--mtf", "--register"} & set(user)
    assert user[user.index("--srf") + 1] == "sentinel2a"
    assert truth[truth.index("--psf") + 1] == str(tmp_path / TRUTH_PSF)
    assert truth[truth.index("--register") + 1] == "off"
    assert json.loads((tmp_path / "truth.json").read_text())["psf"] == "box"


def test_what_not_knowing_costs_is_a_table(reference, tmp_path):
    figures = {"user": {"psnr": 40.0, "sam": 2.0}, "truth": {"psnr": 40.5, "sam": 1.6}}
    rows = [Row(case, Outcome(figures[case.method.told], {}, 1.0, "cpu")) for case in config(reference, 3, 4).cases]
    rows = [row for row in rows if row.case.ratio == 4 or row.case.mismatch.name == "box"]
    write_csv(rows, tmp_path / "r.csv")
    text = render(read_csv(tmp_path / "r.csv"), "cost")
    assert text == render(rows, "cost")
    assert "| bicubic, x3 | not knowing costs | bicubic, x4 | not knowing costs |" in text
    assert "| box (1) | 40.00 / 2.000 | 0.50 dB / 25.0 % | 40.00 / 2.000 | 0.50 dB / 25.0 % |" in text
    assert "| moved (1) | - | - | 40.00 / 2.000 | 0.50 dB / 25.0 % |" in text
    with pytest.raises(SettingError, match="told the truth"):
        render([row for row in rows if row.case.method.told == "user"], "cost")

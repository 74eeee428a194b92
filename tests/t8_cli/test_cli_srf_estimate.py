"""`hsfuse srf estimate`: response and PSF of a pair of files, and what the scene needs of both."""

from __future__ import annotations

import json

import numpy as np
import pytest
from click.testing import CliRunner
from scenes import WAVELENGTHS_NM, memory_scene, save, save_pair

from hsfuse.cli import main
from hsfuse.core.cube import Spectrum
from hsfuse.pair import open_pair
from hsfuse.pair.calibrate import estimate_scene, with_estimate
from hsfuse.physics import load_srf
from hsfuse.physics.optics import sigma_from_mtf

CENTRES = dict(zip(load_srf("sentinel2a").bands, load_srf("sentinel2a").centres_nm, strict=True))


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """28 x 26 LR pixels at ratio 3, MSI bands named B2, B3, B4, B8."""
    return save_pair(tmp_path_factory.mktemp("pair"), memory_scene((28, 26)))


def run(*arguments, code=0):
    result = CliRunner().invoke(main, ["srf", "estimate", *(str(a) for a in arguments)])
    assert result.exit_code == code, result.output
    assert "Traceback" not in result.stderr
    return result


def test_it_writes_a_csv_that_fuse_can_use(pair, tmp_path):
    own = tmp_path / "own.csv"
    result = run("--hsi", pair.hsi, "--msi", pair.msi, "--like", "sentinel2", "-o", own)
    assert result.stdout.splitlines()[0].split()[:2] == ["band", "centre"]
    assert "PSF: Gaussian, standard deviation 1.4" in result.stdout  # 0.494 LR pixels: MTF 0.3
    assert "sentinel2 means Sentinel-2A" in result.stderr
    response = load_srf(own)
    assert response.bands == ("B2", "B3", "B4", "B8")
    with open_pair(pair.hsi, pair.msi, srf=str(own)) as scene:
        np.testing.assert_allclose(scene.model.srf.sum(1), 1, rtol=1e-5)
        centres = scene.model.srf.numpy() @ WAVELENGTHS_NM
    np.testing.assert_allclose(centres, [CENTRES[band] for band in response.bands], atol=8)
    assert "exists already" in run("--hsi", pair.hsi, "--msi", pair.msi, "-o", own, code=1).stderr


def test_without_a_sensor_the_file_names_the_bands(pair):
    found = json.loads(run("--hsi", pair.hsi, "--msi", pair.msi, "--mtf", 0.3, "--json").stdout)
    assert [band["band"] for band in found["bands"]] == ["B2", "B3", "B4", "B8"]
    assert found["psf"] is None
    assert found["csv"] is None
    assert found["comparison"] == []
    assert all(abs(band["gain"] - 1) < 0.05 for band in found["bands"])


def test_bands_can_be_named_and_left_out(pair):
    options = ["--msi-bands", "blue,-,red,nir", "--psf-sigma", sigma_from_mtf(0.3, 3), "--json"]
    result = run("--hsi", pair.hsi, "--msi", pair.msi, *options)
    assert [band["band"] for band in json.loads(result.stdout)["bands"]] == ["blue", "red", "nir"]
    assert "unknown" not in result.stderr


def test_the_wrong_sensor_is_told_in_figures(pair):
    options = ["--like", "landsat8", "--msi-bands", "B2,B3,B4,B5", "--mtf", 0.3, "--json"]
    result = run("--hsi", pair.hsi, "--msi", pair.msi, *options)
    off = {band["band"]: band["disagrees"] for band in json.loads(result.stdout)["comparison"]}
    assert off["B5"]  # Landsat-8's B5 is at 865 nm, Sentinel-2's B8 at 833 and three times as wide
    assert "warning: estimate and library disagree, B5: centre 8" in result.stderr


def test_a_shift_and_a_band_of_noise_are_warned_of(pair, tmp_path):
    msi = np.roll(pair.scene.msi[0].numpy(), (1, 0), (1, 2))
    msi[3] = np.random.default_rng(0).uniform(0.2, 0.4, msi.shape[1:])
    save(tmp_path / "msi.tif", msi, pair.hr_grid, Spectrum(None, names=("B2", "B3", "B4", "B8")))
    result = run("--hsi", pair.hsi, "--msi", tmp_path / "msi.tif", "--like", "sentinel2a")
    assert "correlate little with the HSI (r): B8" in result.stderr
    assert "needs registration" in result.stderr
    assert "+1.0" in result.stderr


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (["-o", "own.txt"], 1, "ends in .csv"),
        (["--psf", "round"], 2, "round"),
        (["--like", "sentinle2"], 2, "did you mean"),
        (["--msi-bands", "a,b"], 1, "which the MSI doesn't have"),
        (["--msi-bands", "a,b,a,c"], 1, "each once"),
        (["--msi-bands", "-,-,-,-"], 1, "no band"),
        (["--msi-bands", ",,,"], 1, "no band"),
        (["--mtf", "1.2"], 2, "range 0<x<1"),
        (["--psf-sigma", "nan"], 2, "a finite one"),
    ],
)
def test_bad_options_are_one_line(pair, options, code, said):
    assert said in run("--hsi", pair.hsi, "--msi", pair.msi, *options, code=code).stderr


def test_a_scene_with_what_was_estimated(pair):
    with open_pair(pair.hsi, pair.msi, srf="sentinel2a", mtf=0.2, register="off") as scene:
        both = with_estimate(scene, estimate_scene(scene))
        only_psf = with_estimate(scene, estimate_scene(scene, srf=False))
        assert both.model.srf.shape == scene.model.srf.shape
        assert not np.allclose(both.model.srf, scene.model.srf)
        assert both.response.source == "estimated from the pair of images"
        assert min(both.coverage) > 0.99
        assert np.allclose(only_psf.model.srf, scene.model.srf)
        assert only_psf.response is scene.response
        for found in (both, only_psf):
            np.testing.assert_allclose(found.model.psf.mtf(3), 0.3, atol=0.03)  # not the 0.2 said

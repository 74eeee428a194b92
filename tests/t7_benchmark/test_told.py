"""Pairs that are off in one way are what they say, and told of it there is nothing left to find."""

from __future__ import annotations

import numpy as np
import pytest
import rasterio
from click.testing import CliRunner
from scenes import mixture
from scipy.ndimage import map_coordinates

from benchmarks.told.__main__ import back, bent, place, run
from benchmarks.told.pairs import KINDS, SPLIT_NM, Off, displaced, louder, true_kernel, write_pair, write_told

NM = np.linspace(420.0, 980.0, 31)


@pytest.fixture(scope="module")
def cube() -> np.ndarray:
    return np.moveaxis(mixture((48, 48), 3), 0, 2)


@pytest.mark.parametrize("off", [Off(psf="comet:.5", shift=(0.3, -0.2)), Off(psf="ellipse:.45,.25,30")])
@pytest.mark.parametrize("ratio", [3, 4])
def test_the_true_kernel_is_what_lr_pixels_see(cube, tmp_path, off, ratio):
    files = write_pair(cube, NM, ratio, off, tmp_path, db=200)
    taps = true_kernel(off, ratio)
    with rasterio.open(files.hsi) as source:
        seen = source.read()[:, 6, 6]
    first = 6 * ratio + (ratio - len(taps)) // 2
    window = np.pad(files.truth, ((32, 32), (32, 32), (0, 0)), mode="symmetric")[32 + first :, 32 + first :]
    window = window[: len(taps), : len(taps)]
    np.testing.assert_allclose(np.einsum("yx,yxc->c", taps, window), seen, atol=2e-4)


@pytest.mark.parametrize(
    "kind",
    ["a gamma of .8, gain and offset", "stripes along rows", "a smile of 3 nm", "thin cloud of .3 in the MSI"]
    + [kind for kind in KINDS if "brighter" in kind],
)
def test_what_is_told_is_as_if_nothing_was_off(cube, tmp_path, kind):
    images = []
    for write, off in ((write_told, KINDS[kind]), (write_pair, Off())):
        files = write(cube, NM, 4, off, tmp_path, db=80)
        for path in (files.hsi, files.msi):
            with rasterio.open(path) as source:
                images.append(source.read())
    for told, plain in zip(images[:2], images[2:], strict=True):
        np.testing.assert_allclose(told, plain, atol=5e-4)


@pytest.mark.parametrize(("loud", "alone", "db"), [("20:10", False, 10), ("40:noise", True, None)])
def test_loud_bands_have_their_noise_and_the_others_none_of_it(cube, tmp_path, loud, alone, db):
    images = []
    for off in (Off(), Off(loud=loud)):
        with rasterio.open(write_pair(cube, NM, 3, off, tmp_path, db=200).hsi) as source:
            images.append(source.read().astype(float))
    plain, noisy = images
    chosen, _, nothing_else = louder(loud, NM, np.moveaxis(plain, 0, 2))
    assert 2 <= len(chosen) < 8
    assert nothing_else is alone
    noise = noisy[chosen] - (0 if alone else plain[chosen])
    wanted = (
        np.sqrt((plain**2).mean()) / 3 if db is None else np.sqrt((plain[chosen] ** 2).mean((1, 2))) / 10 ** (db / 20)
    )
    np.testing.assert_allclose(noise.std((1, 2)), wanted, rtol=0.2)
    np.testing.assert_allclose(np.delete(noisy, chosen, 0), np.delete(plain, chosen, 0), atol=1e-6)


def test_bands_of_a_detector_that_lies_apart_are_those_of_a_shift(cube, tmp_path):
    images = []
    for off in (Off(apart=(0.2, -0.1)), Off(shift=(0.2, -0.1)), Off()):
        with rasterio.open(write_pair(cube, NM + 300, 4, off, tmp_path, db=200).hsi) as source:
            images.append(source.read())
    second = NM + 300 > SPLIT_NM
    apart, moved, plain = images
    np.testing.assert_allclose(apart[second], moved[second], atol=1e-6)
    np.testing.assert_allclose(apart[~second], plain[~second], atol=1e-6)


def test_a_place_that_is_told_is_the_true_one(cube):
    off, ratio = Off(shift=(0.4, -0.3), rotate=0.5, drift=0.5), 4
    rows = 48 // ratio
    x, y = place(off, cube.shape[:2], ratio) @ (ratio * (2 + 0.5), ratio * (rows - 1 + 0.5))
    centre, turn = (rows - 1) / 2, np.radians(0.5)
    down, right = rows - 1 - centre, 2 - centre
    assert y / ratio - 0.5 == pytest.approx(centre + down * np.cos(turn) - right * np.sin(turn) + 0.4, abs=0.01)
    assert x / ratio - 0.5 == pytest.approx(centre + down * np.sin(turn) + right * np.cos(turn) - 0.3 + 0.5, abs=0.01)


def test_a_field_that_is_told_is_the_one_that_moves(cube):
    """What the MSI has at q the LRHSI has at p, whose ground is displaced to q."""
    off = Off(field=(0.3, 6))
    moved, told = displaced(off, cube.shape, 4), back(off, cube.shape[:2], 4)
    assert told.distortion is not None
    rows, cols = (np.random.default_rng(0).uniform(8, 40, 200) for _ in range(2))
    down, right = told.distortion(rows, cols)
    there = np.stack([rows + down, cols + right])
    found = there + np.stack([map_coordinates(one, there - 0.5, order=1) for one in moved]) - [rows, cols]
    assert np.hypot(*found).max() < 0.05
    assert np.hypot(down, right).max() > 1


def test_rows_of_fields_are_by_default_told_and_as_it_is():
    cube = np.moveaxis(mixture((96, 96), 3), 0, 2)
    default, told, as_it_is = bent(cube, NM, 4, "a field of .5 over 16", "glp-reg", 0)
    assert default[0] > as_it_is[0]
    assert told[0] > as_it_is[0]


def test_what_methods_lack_is_by_how_much_they_are_behind_themselves(cube, tmp_path):
    path = tmp_path / "cube.npz"
    np.savez(path, cube=cube, wavelengths_nm=NM)
    words = ["a scene", str(path), "4", "--only", "nothing", "--only", "a Gaussian PSF, MTF .1"]
    words += ["--method", "glp-reg", "--method", "sfim"]
    tables = [CliRunner().invoke(run, [*words, *more]).stdout.splitlines() for more in ([], ["--lack"])]
    cells = [[[cell.strip() for cell in line.split("|")[1:-1]] for line in table[2:]] for table in tables]
    rows, lacks = cells
    assert [line[0] for line in rows] == ["nothing", "a Gaussian PSF, MTF .1"]
    assert [line[0] for line in lacks] == ["`glp-reg`", "`sfim`"]
    for number, (_, median, most, *_) in enumerate(lacks):
        each = [line[1 + 2 * number : 3 + 2 * number] for line in rows]
        found = [float(told.split("/")[0]) - float(default.split("/")[0]) for default, told in each]
        assert float(median) == pytest.approx(np.median(found), abs=0.02)
        assert float(most.split()[0]) == pytest.approx(max(found), abs=0.02)

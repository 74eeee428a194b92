"""A second detector that lies elsewhere is told to a few hundredths of an LR pixel, and put right; none is made up."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rasterio.windows import Window
from scenes import mixture

import hsfuse
from benchmarks.told import pairs
from benchmarks.told.pairs import Off, write_pair

RATIO, SIZE, LR = 4, 96, 24
NM = np.linspace(420.0, 1700.0, 64)
APART = Off(psf="gauss:.41", apart=(0.25, -0.15))
#: Away from borders, beyond which nothing is known.
INNER = np.s_[:, 3:-3, 3:-3]


@pytest.fixture(scope="module")
def cube() -> np.ndarray:
    """(H, W, 64), of nine spectra with features all over."""
    bands = mixture((SIZE, SIZE), 3)
    at = np.linspace(0, len(bands) - 1, NM.size)
    low = np.floor(at).astype(int).clip(max=len(bands) - 2)
    return np.moveaxis(bands[low] + (at - low)[:, None, None] * (bands[low + 1] - bands[low]), 0, 2).astype(float)


def opened(cube, off, folder, **options):
    files = write_pair(cube, NM, RATIO, off, folder, db=40)
    return hsfuse.open_pair(files.hsi, files.msi, srf=str(files.srf), **options)


def told(pair, code="detectors-together"):
    return [one.values for one in pair.notes if one.code == code]


def seen(pair):
    """The LRHSI (C, h, w) away from borders."""
    return pair.read_lr(Window(0, 0, LR, LR)).data[INNER].astype(float)


@pytest.fixture(scope="module")
def together(cube):
    with tempfile.TemporaryDirectory() as folder, opened(cube, replace(APART, apart=(0, 0)), Path(folder)) as pair:
        assert not told(pair)
        return seen(pair)


@pytest.fixture(scope="module")
def as_it_is(cube):
    with tempfile.TemporaryDirectory() as folder, opened(cube, APART, Path(folder), register="off") as pair:
        assert not [one for one in pair.notes if one.code.startswith("detectors")]
        return seen(pair)


def test_it_is_told_and_put_right(cube, together, as_it_is, tmp_path):
    with opened(cube, APART, tmp_path) as pair:
        (found,) = told(pair)
        assert (found["down"], found["right"]) == pytest.approx(APART.apart, abs=0.04)
        assert 0.02 < found["down_sd"] < 0.05
        assert found["low"] == pytest.approx(NM[NM > pairs.SPLIT_NM].min(), abs=0.01)
        assert not pair.warped
        assert pair.lr_shape == (LR, LR)
        mended, second = seen(pair), NM > pairs.SPLIT_NM
    assert np.array_equal(mended[~second], as_it_is[~second])
    before, after = (np.sqrt(np.square(one - together)[second].mean()) for one in (as_it_is, mended))
    assert after < 0.4 * before


def test_more_than_a_pixel_is_told_and_put_right_up_to_the_border(cube, together, tmp_path):
    with opened(cube, replace(APART, apart=(1.4, -0.3)), tmp_path) as pair:
        (found,) = told(pair)
        assert (found["down"], found["right"]) == pytest.approx((1.4, -0.3), abs=0.12)
        low = pair.read_lr(Window(0, 0, LR, LR))
        assert low.mask.all()
        second, rim = NM > pairs.SPLIT_NM, low.data[:, -1].astype(float)
    assert np.sqrt(np.square(low.data[INNER] - together)[second].mean()) < 0.15 * together[second].std()
    assert rim[second].min() > 0.5 * low.data[second].min()


def test_where_the_second_one_begins_is_told_by_the_bands(cube, tmp_path, monkeypatch):
    monkeypatch.setattr(pairs, "SPLIT_NM", 905.0)
    with opened(cube, APART, tmp_path) as pair:
        assert told(pair)[0]["low"] == pytest.approx(NM[NM > 905].min(), abs=0.01)


def test_where_the_shift_is_only_reported_so_is_this(cube, as_it_is, tmp_path):
    with opened(cube, APART, tmp_path, register="report") as pair:
        assert told(pair, "detectors-apart")
        assert not told(pair)
        assert np.array_equal(seen(pair), as_it_is)


def test_bands_of_a_drifting_scene_are_resampled_with_it(cube, tmp_path):
    """A warp finds each detector's bands where they lie: both at once."""
    images = []
    for off in (replace(APART, drift=0.5), Off(psf="gauss:.41", drift=0.5)):
        with opened(cube, off, tmp_path) as pair:
            assert pair.warped
            images.append(pair.read_lr(Window(3, 3, 18, 18)).data)
            if off.apart != (0, 0):
                assert (told(pair)[0]["down"], told(pair)[0]["right"]) == pytest.approx(APART.apart, abs=0.05)
    apart, fine = images
    assert np.sqrt(np.square(apart - fine).mean()) < 0.05 * fine.std()


def test_tiles_read_from_chunks_are_those_of_the_whole(cube, tmp_path):
    xr = pytest.importorskip("xarray")
    pytest.importorskip("dask.array")
    rioxarray = pytest.importorskip("rioxarray")
    files = write_pair(cube, NM, RATIO, APART, tmp_path, db=40)
    hsi = rioxarray.open_rasterio(files.hsi).load().assign_coords(wavelength=("band", NM))
    msi = rioxarray.open_rasterio(files.msi).load()
    cubes = []
    for low, high in ((hsi, msi), (hsi.chunk({"band": 9, "y": 7, "x": 5}), msi.chunk({"y": 50, "x": 37}))):
        with hsfuse.open_pair(low, high, srf=str(files.srf)) as pair:
            assert told(pair)
            cubes.append(hsfuse.fit(pair, "glp-reg", tile=24, overlap=8).apply(pair).load())
    xr.testing.assert_allclose(*(one.drop_attrs() for one in cubes), atol=1e-5)


def test_a_camera_has_one_detector(cube, tmp_path):
    """Up to 1000 nm nothing is looked for."""
    files = write_pair(cube[..., NM < 980], NM[NM < 980], RATIO, Off(), tmp_path)
    with hsfuse.open_pair(files.hsi, files.msi, srf=str(files.srf)) as pair:
        assert not [one for one in pair.notes if one.code.startswith("detectors")]

"""An LRHSI's own pixels tell where it lies, nearer than windows do, and leave alone what lies there."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from affine import Affine
from scenes import mixture

import hsfuse
from benchmarks.told.__main__ import back
from benchmarks.told.pairs import Off, write_pair
from hsfuse.core.grid import Motion
from hsfuse.pair import place
from hsfuse.pair.place import closer

RATIO, SIZE = 4, 96
DRIFT = Off(drift=0.5)
#: Off by a hundredth and a half in size and turn: a third of an LR pixel in the corners.
BESIDE = Affine.translation(0.5, -0.3) @ Affine(1.008, -0.008, 0, 0.008, 0.992, 0)
CORNERS = np.array([(x, y) for x in (0, SIZE) for y in (0, SIZE)], float)


@pytest.fixture(scope="module")
def drifting():
    cube = np.moveaxis(mixture((SIZE, SIZE), 3), 0, 2)
    with tempfile.TemporaryDirectory() as folder:
        yield write_pair(cube, np.linspace(420.0, 980.0, 31), RATIO, DRIFT, Path(folder))


def opened(files, motion, **options):
    how = {"srf": str(files.srf), "psf": "assumed", "match_radiometry": "off", "haze": "off", **options}
    return hsfuse.open_pair(files.hsi, files.msi, known_motion=motion, **how)


def off_by(motion: Motion) -> float:
    """LR pixels by which it is wrong in a corner, at most."""
    true = back(DRIFT, (SIZE, SIZE), RATIO).affine
    return max(float(np.hypot(*np.subtract(motion.affine @ corner, true @ corner))) for corner in CORNERS) / RATIO


def test_it_is_found_where_it_was_put(drifting):
    wrong = back(DRIFT, (SIZE, SIZE), RATIO).after(Motion(BESIDE))
    with opened(drifting, wrong) as pair:
        motion, most = closer(pair)
    assert off_by(wrong) > 0.2
    assert off_by(motion) < 0.03
    assert most == pytest.approx(off_by(wrong), abs=0.1)


def test_what_lies_there_stays(drifting):
    with opened(drifting, back(DRIFT, (SIZE, SIZE), RATIO)) as pair:
        assert closer(pair) is None


def test_an_image_that_has_nothing_to_do_with_it_tells_no_place(drifting):
    noise = np.random.default_rng(0)

    class Other:
        def __init__(self, reader):
            self.reader = reader

        def __getattr__(self, name):
            return getattr(self.reader, name)

        def read(self, window, bands=None):
            cube = self.reader.read(window, bands)
            return cube.with_data(noise.random(cube.data.shape).astype(np.float32))

    with opened(drifting, back(DRIFT, (SIZE, SIZE), RATIO)) as pair:
        assert closer(replace(pair, msi=Other(pair.msi))) is None


def test_what_windows_have_beside_it_is_moved_and_told(drifting, monkeypatch):
    """Windows are content with a place that is off by a tenth of an LR pixel and more: it isn't kept."""
    judge = hsfuse.pair.open.judge
    wrong = Motion(Affine.translation(0.4, 0.0) @ Affine(1.005, 0, 0, 0, 0.995, 0))

    def misled(shift, ratio, limit=3.0):
        """The truth but for what is wrong, and then none to correct."""
        if shift.drift is None:
            return judge(shift, ratio, limit)
        motion = back(DRIFT, (SIZE, SIZE), RATIO).after(wrong).affine
        return replace(judge(shift, ratio, limit), motion=motion)

    monkeypatch.setattr(hsfuse.pair.open, "judge", misled)
    monkeypatch.setattr(hsfuse.pair.open, "REGISTRATIONS", 1)
    how = {"srf": str(drifting.srf)}
    with hsfuse.open_pair(drifting.hsi, drifting.msi, **how) as pair:
        assert off_by(pair.motion) < 0.03
        assert "place-by-pixels" in [one.code for one in pair.notes]
        assert pair.residual.length < 0.03
    monkeypatch.setattr(place, "WORTH", 1.0)
    with hsfuse.open_pair(drifting.hsi, drifting.msi, **how) as pair:
        assert off_by(pair.motion) > 0.1


def test_a_warp_back_onto_the_grid_is_none(drifting, monkeypatch):
    """Where all pixels have an LRHSI that windows moved on the MSI's grid there is no warp to put detail right in."""
    monkeypatch.setattr(place, "closer", lambda pair: (Motion(), 0.1))
    with hsfuse.open_pair(drifting.hsi, drifting.msi, srf=str(drifting.srf)) as pair:
        assert pair.warped
        assert "place-by-pixels" not in [one.code for one in pair.notes]


@pytest.mark.parametrize("shift", [(0.0, 0.0), (0.1, -0.06)])
def test_a_turn_that_windows_miss_is_found(tmp_path, monkeypatch, shift):
    monkeypatch.setattr(hsfuse.calibration.shift, "_drifts", lambda fit, size: False)
    side, off = 96, Off(rotate=0.5, shift=shift)
    cube = np.moveaxis(mixture((side, side), 4), 0, 2)
    files = write_pair(cube, np.linspace(420.0, 980.0, 31), 8, off, tmp_path)
    with hsfuse.open_pair(files.hsi, files.msi, srf=str(files.srf), haze="off", match_radiometry="off") as pair:
        assert "place-by-pixels" in [one.code for one in pair.notes]
        assert pair.shift.drift is None
        true = back(off, (side, side), 8).affine
        corners = [(x, y) for x in (0, side) for y in (0, side)]
        assert max(np.hypot(*np.subtract(pair.motion.affine @ one, true @ one)) for one in corners) / 8 < 0.03


@pytest.mark.parametrize("off", [Off(), Off(psf="comet:.5"), Off(shift=(0.4, -0.3)), Off(srf_shift=5.0)])
@pytest.mark.parametrize("seed", [3, 4])
def test_nothing_is_warped_for_a_turn_that_there_is_not(tmp_path, monkeypatch, off, seed):
    monkeypatch.setattr(hsfuse.calibration.shift, "_drifts", lambda fit, size: False)
    cube = np.moveaxis(mixture((96, 96), seed), 0, 2)
    files = write_pair(cube, np.linspace(420.0, 980.0, 31), 8, off, tmp_path, seed, 25.0)
    with hsfuse.open_pair(files.hsi, files.msi, srf=str(files.srf), haze="off", match_radiometry="off") as pair:
        assert not pair.warped
        assert closer(pair) is None

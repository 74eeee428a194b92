"""Ground that has changed between two images is told, with share and place; right pairs and misplaced edges are not."""

from __future__ import annotations

import re

import numpy as np
import pytest
import rasterio
from scenes import mixture

from benchmarks.told.pairs import Off, write_pair
from hsfuse import open_pair

NM = np.linspace(420.0, 980.0, 31)
#: Rows and columns of a field, and its share of the pixels that are looked at, those whose PSF lies inside.
FIELD = slice(20, 44), slice(52, 80)
SHARE = 24 * 28 / 80**2


@pytest.fixture(scope="module")
def cube() -> np.ndarray:
    return np.moveaxis(mixture((96, 96), 3), 0, 2)


def warned(cube: np.ndarray, folder, off: Off = Off(), image: str = "", **how: str):  # noqa: B008
    """The pair's warnings, where a field of either image is another part of the scene, and its pair."""
    files = write_pair(cube, NM, 4, off, folder)
    if image:
        other = cube.copy()
        other[FIELD] = cube[::-1, ::-1][FIELD]
        (folder / "other").mkdir()
        changed = write_pair(other, NM, 4, off, folder / "other", seed=1)
        files = [(changed.hsi, files.msi), (files.hsi, changed.msi)][image == "MSI"]
    else:
        files = files.hsi, files.msi
    with open_pair(*files, srf=str(folder / "srf.csv"), psf="assumed", register="off", **how) as pair:
        return pair, [one for one in pair.warnings if one.code == "ground-changed"]


@pytest.mark.parametrize("image", ["MSI", "HSI"])
def test_a_field_of_other_ground_is_told_with_share_and_place_and_is_no_haze(cube, tmp_path, image):
    pair, (told,) = warned(cube, tmp_path, image=image)
    assert told.severity == "warning"
    assert told.values["share"] == pytest.approx(SHARE, rel=0.25)
    row, column = map(int, re.findall(r"row (\d+), column (\d+)", told.text)[0])
    assert FIELD[0].start < row < FIELD[0].stop
    assert FIELD[1].start < column < FIELD[1].stop
    assert pair.haze is None
    assert "images-differ" not in {one.code for one in pair.warnings}


@pytest.mark.parametrize(
    "off",
    [Off(), Off(shift=(0.3, -0.2)), Off(psf="gauss:.1"), Off(gain=1.1, offset=0.02), Off(cloud=0.3), Off(light=0.15)],
    ids=["nothing", "edges misplaced", "another PSF", "gain", "cloud", "light"],
)
def test_right_pairs_misplaced_edges_and_light_are_no_change(cube, tmp_path, off):
    assert not warned(cube, tmp_path, off)[1]


def test_glints_are_no_change(cube, tmp_path):
    """Single bright pixels of one image, however bright."""
    files = write_pair(cube, NM, 4, Off(), tmp_path)
    with rasterio.open(files.msi, "r+") as file:
        image = file.read()
        image[:, 10:90:16, 13:90:20] += 2
        file.write(image)
    with open_pair(files.hsi, files.msi, srf=str(files.srf), psf="assumed", register="off") as pair:
        assert "ground-changed" not in {one.code for one in pair.warnings}

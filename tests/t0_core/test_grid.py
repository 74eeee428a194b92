"""Grids that nest, and grids that don't: figures in the error."""

import numpy as np
import pytest
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st
from rasterio.crs import CRS
from rasterio.windows import Window

from hsfuse.core.errors import GridError
from hsfuse.core.grid import GRID_TOLERANCE_PX, Grid, align, nests

UTM33, UTM34 = CRS.from_epsg(32633), CRS.from_epsg(32634)
MSI = Grid((120, 90), Affine(10, 0, 600000, 0, -10, 5000000), UTM33)


def lr(s=3, shape=None, shift=(0.0, 0.0), crs=UTM33):
    """An LRHSI grid at ratio s, its corner `shift` (rows, cols) MSI pixels off the MSI's."""
    place = MSI.transform @ Affine.translation(shift[1], shift[0]) @ Affine.scale(s)
    return Grid(shape or (MSI.shape[0] // s, MSI.shape[1] // s), place, crs)


def corner(grid, row, col):
    return grid.transform @ (col, row)


def test_crop_keeps_pixels_in_place():
    part = MSI.crop(7, 11, (20, 30))
    assert part.shape == (20, 30)
    assert corner(part, 0, 0) == corner(MSI, 7, 11)
    assert corner(part, 20, 30) == corner(MSI, 27, 41)
    assert MSI.window(Window(11, 7, 30, 20)) == part


@pytest.mark.parametrize("s", [2, 3, 5])
def test_coarsen_and_refine_keep_the_borders(s):
    coarse = MSI.crop(0, 0, (60, 30)).coarsen(s)
    assert coarse.shape == (60 // s, 30 // s)
    assert corner(coarse, *coarse.shape) == pytest.approx(corner(MSI, 60, 30))
    assert coarse.gsd == (10 * s, 10 * s)
    assert coarse.refine(s).transform.almost_equals(MSI.transform)
    with pytest.raises(GridError, match="61 x 30 pixels can't be divided"):
        MSI.crop(0, 0, (61, 30)).coarsen(s)


def test_whole_overlap():
    found = align(lr(3), MSI)
    assert found.ratio == 3
    assert found.hr_grid == MSI
    assert found.lr_grid.transform.almost_equals(lr(3).transform)
    assert found.full == (120, 90)
    assert (found.hsi_window, found.msi_window) == (Window(0, 0, 30, 40), Window(0, 0, 90, 120))


@given(
    st.integers(2, 9),
    st.tuples(st.integers(-40, 90), st.integers(-40, 60)),
    st.tuples(st.integers(1, 60), st.integers(1, 60)),
)
def test_windows_cover_the_same_ground_and_all_of_it(s, shift, shape):
    hsi = lr(s, shape, shift)
    # Whole LR pixels inside the MSI, counted one by one.
    inside = [
        [i for i in range(n) if start + i * s >= 0 and start + (i + 1) * s <= size]
        for n, start, size in zip(shape, shift, MSI.shape, strict=True)
    ]
    if not all(inside):
        with pytest.raises(GridError, match="overlap"):
            align(hsi, MSI)
        return
    found = align(hsi, MSI)
    low, high = found.hsi_window, found.msi_window
    assert (low.row_off, low.col_off) == (inside[0][0], inside[1][0])
    assert (low.height, low.width) == (len(inside[0]), len(inside[1]))
    assert (high.height, high.width) == (low.height * s, low.width * s)
    np.testing.assert_allclose(corner(hsi.window(low), 0, 0), corner(MSI.window(high), 0, 0))
    np.testing.assert_allclose(
        corner(hsi.window(low), low.height, low.width), corner(MSI.window(high), high.height, high.width)
    )
    assert found.hr_grid.transform.almost_equals(MSI.window(high).transform)


def test_rotated_grids_nest_when_both_are_rotated():
    turn = Affine.rotation(30, pivot=(600000, 5000000))
    msi, hsi = (Grid(g.shape, turn @ g.transform, UTM33) for g in (MSI, lr(3, (10, 12), (6, 9))))
    found = align(hsi, msi)
    assert found.msi_window == Window(9, 6, 36, 30)
    assert found.hr_grid.gsd == pytest.approx((10, 10))
    assert hsi.gsd == pytest.approx((30, 30))
    with pytest.raises(GridError, match="without rotation"):
        align(hsi, MSI)


def test_small_misfits_are_borne():
    assert align(lr(3, shift=(0.04, 0.03), shape=(20, 20)), MSI).msi_window == Window(0, 0, 60, 60)


@pytest.mark.parametrize(
    ("hsi", "said"),
    [
        (lr(3, crs=UTM34), "EPSG:32634 but the MSI in EPSG:32633.*reproject"),
        (lr(3, crs=None), "names no CRS, the other image is in EPSG:32633.*gdal_edit.py -a_srs EPSG:32633"),
        (lr(2.5, (20, 20)), r"25 x 25 \(HSI\) and 10 x 10 \(MSI\).*2.5 x 2.5"),
        (lr(1, (20, 20)), "at least 2"),
        (Grid((20, 20), MSI.transform @ Affine.scale(2, 3), UTM33), "3 x 2, wanted one whole number"),
        (lr(3, (20, 20), shift=(0.5, 0)), "row 0.500, column 0.000: 0.50 of an MSI pixel off"),
        (lr(3, (20, 20), shift=(0, -1.7)), "column -1.700: 0.30 of an MSI pixel off"),
        (lr(3, (20, 20), shift=(120, 0)), "don't overlap: HSI x 600000 to .*y .* to 4.9988e"),
        (lr(3, (20, 20), shift=(0, -60)), "don't overlap"),
        (lr(3, (20, 20), shift=(0, 88)), "don't overlap"),
        (Grid((20, 20)), "the HSI has no georeference"),
        (Grid((20, 20), Affine.translation(600000, 5000000) @ Affine.scale(30, 30), UTM33), "wanted one whole number"),
    ],
)
def test_what_does_not_fit_is_told_in_figures(hsi, said):
    with pytest.raises(GridError, match=said) as caught:
        align(hsi, MSI)
    assert "\n" not in str(caught.value)
    assert nests(hsi, MSI) == ("overlap" in said)


def test_drift_over_the_image_counts():
    """A ratio of 3.0002 is whole over 20 pixels and not over 20000."""
    assert align(lr(3.0002, (20, 20)), MSI).ratio == 3
    with pytest.raises(GridError, match="ratio"):
        align(lr(3.0002, (20000, 20)), MSI)


def test_one_image_without_georeference():
    with pytest.raises(GridError, match="the MSI has no georeference but the other image has"):
        align(lr(3), Grid((120, 90)))


def test_without_georeference_corners_coincide():
    found = align(Grid((40, 30)), Grid((120, 90)))
    assert (found.ratio, found.full) == (3, (120, 90))
    assert "corners" in found.note
    assert not found.hr_grid.georeferenced
    for wrong in ((121, 90), (120, 60), (40, 30)):
        with pytest.raises(GridError, match=r"sizes \(40, 30\) and"):
            align(Grid((40, 30)), Grid(wrong))


def test_a_map_without_crs_is_still_a_map():
    bare = [Grid(g.shape, g.transform) for g in (lr(3, (10, 10), (3, 6)), MSI)]
    assert align(*bare).msi_window == Window(6, 3, 30, 30)


def test_descriptions():
    assert MSI.describe() == "120 x 90 pixels of 10 x 10 m, EPSG:32633"
    assert Grid((2, 3)).describe() == "2 x 3 pixels, not georeferenced"
    assert 0 < GRID_TOLERANCE_PX < 0.5

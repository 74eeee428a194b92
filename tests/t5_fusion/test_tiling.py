"""Tiles: weights are a partition of unity, every pixel is finished once, and blending gives back what went in."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hsfuse.core.errors import SettingError
from hsfuse.fusion.tiles import Blender, TileGrid, lr_mask_to_hr, window_of


def tile_pairs(tiles):
    """All tiles, row by row."""
    return [(rows, cols) for rows in tiles.spans(0) for cols in tiles.spans(1)]


@st.composite
def tile_grids(draw):
    """Scale, LR sizes and tiles of all proportions, down to tiles of one LR pixel and scenes of one."""
    s = draw(st.integers(2, 8))
    shape = draw(st.tuples(st.integers(1, 40), st.integers(1, 40)))
    stride = draw(st.integers(1, 20))
    overlap = draw(st.integers(0, stride))
    return TileGrid((shape[0] * s, shape[1] * s), s, stride * s, overlap * s, draw(st.integers(0, 6)) * s)


@given(tile_grids())
def test_weights_are_a_partition_of_unity(tiles):
    for axis in (0, 1):
        total = np.zeros(tiles.shape[axis])
        for span in tiles.spans(axis):
            weight = span.ramp()
            assert weight.min() >= 0
            total[slice(*span.support)] += weight
        np.testing.assert_allclose(total, 1, atol=1e-6)


@given(tile_grids())
def test_every_pixel_is_finished_once_and_by_its_own_support(tiles):
    for axis in (0, 1):
        spans = tiles.spans(axis)
        ends = [span.finished for span in spans]
        assert ends[0][0] == 0
        assert ends[-1][1] == tiles.shape[axis]
        assert all(a[1] == b[0] and a[0] < a[1] for a, b in pairwise(ends))


@given(tile_grids())
def test_reads_are_whole_lr_pixels_with_the_halo_that_the_scene_allows(tiles):
    for axis in (0, 1):
        for span in tiles.spans(axis):
            assert not [edge for edge in (*span.read, *span.support) if edge % tiles.ratio]
            assert span.read[0] == max(0, span.support[0] - tiles.halo)
            assert span.read[1] == min(tiles.shape[axis], span.support[1] + tiles.halo)


@settings(max_examples=60)
@given(tile_grids(), st.integers(0, 2**32 - 1))
def test_blending_gives_the_image_back(tiles, seed):
    image = np.random.default_rng(seed).random((2, *tiles.shape), dtype=np.float32)
    out, times = np.full_like(image, np.nan), np.zeros(tiles.shape, int)
    blender = Blender(tiles, 2)
    for rows, cols in tile_pairs(tiles):
        done = blender.add(rows, cols, image[:, slice(*rows.support), slice(*cols.support)])
        part = np.s_[slice(*rows.finished), slice(*cols.finished)]
        out[:, *part] = done
        times[part] += 1
    assert (times == 1).all()
    np.testing.assert_allclose(out, image, rtol=1e-6, atol=1e-6)


def test_seams_are_a_linear_ramp():
    """Two tiles that disagree by 1 meet in a straight line over the overlap."""
    tiles = TileGrid((2, 24), 2, 12, 8, 0)
    blender = Blender(tiles, 1)
    line = np.concatenate(
        [
            blender.add(rows, cols, np.full((1, 2, cols.support[1] - cols.support[0]), float(i), np.float32))[0, 0]
            for i, (rows, cols) in enumerate(tile_pairs(tiles))
        ]
    )
    np.testing.assert_allclose(line, [0] * 12 + [(k + 0.5) / 8 for k in range(8)] + [1] * 4, atol=1e-6)


def test_blender_keeps_nothing_that_grows_with_the_rows():
    sizes = []
    for rows in (64, 6400):
        blender = Blender(TileGrid((rows, 64), 2, 32, 8, 0), 3)
        sizes.append(sum(value.nbytes for value in vars(blender).values() if isinstance(value, np.ndarray)))
    assert sizes[0] == sizes[1] > 0


def test_len_counts_the_tiles():
    tiles = TileGrid((100, 60), 2, 32, 8, 4)
    assert len(tiles) == len(tile_pairs(tiles)) == 6  # the last 4 rows join the tile before: rows 3, columns 2


@pytest.mark.parametrize(
    ("stride", "overlap", "halo"), [(15, 8, 0), (16, 6, 0), (16, 8, 2), (16, 32, 0), (0, 0, 0), (16, -8, 0)]
)
def test_tiles_that_make_no_sense_are_told(stride, overlap, halo):
    with pytest.raises(SettingError, match=f"a tile of {stride} pixels with overlap {overlap} and halo {halo}"):
        TileGrid((64, 64), 8, stride, overlap, halo)


def test_windows():
    window = window_of((6, 18), (3, 9), 3)
    assert (window.row_off, window.height, window.col_off, window.width) == (2, 4, 1, 2)


def test_lr_mask_on_the_hr_grid():
    mask = np.array([[True, False], [False, True]])
    fine = lr_mask_to_hr(mask, 3)
    assert fine.shape == (6, 6)
    assert fine[:3, :3].all()
    assert not fine[:3, 3:].any()

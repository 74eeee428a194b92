"""Which parts of a scene a method learns from."""

import pytest

from hsfuse.pair.sample import BLOCK, LEAST_BLOCK, block_windows, most_pixels


@pytest.mark.parametrize(("side", "s", "blocks"), [(96, 4, 1), (97, 4, 9), (64, 8, 1), (65, 8, 16), (48, 8, 1)])
def test_a_scene_is_taken_whole_where_it_has_few_pixels_or_few_lr_pixels(side, s, blocks):
    """512 x 512 pixels at ratio 8 are 64 x 64 LR pixels, on which a scene regression can be learned; blocks are not."""
    windows = block_windows((side, side), s)
    assert len(windows) == blocks
    assert {window.width for window in windows} == {side if blocks == 1 else {4: BLOCK, 8: LEAST_BLOCK}[s]}


@pytest.mark.parametrize("s", [2, 4, 6, 8, 12, 16])
def test_blocks_hold_no_more_than_that(s):
    windows = block_windows((500, 300), s)
    assert len(windows) > 1
    assert sum(window.width * window.height for window in windows) * s * s <= most_pixels(s) <= 512 * 512

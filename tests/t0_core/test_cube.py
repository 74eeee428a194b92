"""A cube and its meaning stay together."""

from dataclasses import FrozenInstanceError

import numpy as np
import pytest

from hsfuse.core.cube import Cube, Spectrum
from hsfuse.core.errors import InputError
from hsfuse.core.grid import Grid

DATA = np.arange(24, dtype=np.float32).reshape(4, 2, 3)
SPECTRUM = Spectrum(
    (400.0, 500.0, 600.0, 700.0), (10.0, 11.0, 12.0, 13.0), ("a", "b", "c", "d"), (True, True, False, True)
)


def test_select_takes_all_facts_along():
    chosen = SPECTRUM.select([3, 0])
    assert chosen == Spectrum((700.0, 400.0), (13.0, 10.0), ("d", "a"), (True, True))
    assert Spectrum(None).select([0]) == Spectrum(None)


def test_wavelengths_are_known_or_asked_for_in_vain():
    cube = Cube(DATA, Grid((2, 3)), SPECTRUM, np.ones((2, 3), bool))
    np.testing.assert_array_equal(cube.wavelengths_nm, [400, 500, 600, 700])
    with pytest.raises(InputError, match="no wavelengths"):
        _ = Cube(DATA, Grid((2, 3)), Spectrum(None), cube.mask).wavelengths_nm


@pytest.mark.parametrize(
    ("data", "grid", "mask"),
    [(DATA[0], (2, 3), (2, 3)), (DATA, (3, 2), (3, 2)), (DATA, (2, 3), (3, 2)), (DATA[:, :1], (2, 3), (2, 3))],
)
def test_shapes_must_fit(data, grid, mask):
    with pytest.raises(InputError, match="don't fit the grid"):
        Cube(data, Grid(grid), SPECTRUM, np.ones(mask, bool))


def test_other_values_in_the_same_place():
    cube = Cube(DATA, Grid((2, 3)), SPECTRUM, np.ones((2, 3), bool))
    twice = cube.with_data(DATA * 2)
    assert (twice.grid, twice.spectrum) == (cube.grid, cube.spectrum)
    assert twice.data.max() == 2 * DATA.max()
    with pytest.raises(FrozenInstanceError):
        cube.data = DATA

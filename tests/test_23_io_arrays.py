"""References that aren't rasters: .mat, .npz, folders of band images."""

import numpy as np
import pytest
import scipy.io
from skimage.io import imsave

from hsfuse.errors import InputError
from hsfuse.io.arrays import bands_first, read_reference

CUBE = np.random.default_rng(0).random((7, 12, 10)).astype(np.float32)


def test_npz_with_wavelengths_is_read_bands_first_either_way_round(tmp_path):
    nm = np.linspace(400, 700, 7)
    for name, array in (("first", CUBE), ("last", CUBE.transpose(1, 2, 0))):
        np.savez(tmp_path / f"{name}.npz", data=array, wavelengths_nm=nm)
        cube, known = read_reference(tmp_path / f"{name}.npz")
        assert np.array_equal(cube, CUBE)
        assert np.array_equal(known, nm)


def test_mat_takes_the_largest_cube(tmp_path):
    scipy.io.savemat(
        tmp_path / "a.mat", {"cube": CUBE.transpose(1, 2, 0), "map": np.zeros((12, 10)), "small": np.zeros((2, 2, 2))}
    )
    cube, known = read_reference(tmp_path / "a.mat")
    assert np.array_equal(cube, CUBE)
    assert known is None


def test_a_folder_of_band_images_is_a_cube_in_the_order_of_names(tmp_path):
    folder = tmp_path / "scene_ms" / "scene_ms"
    folder.mkdir(parents=True)
    counts = (CUBE * 65535).astype(np.uint16)
    for i in reversed(range(7)):
        imsave(folder / f"scene_ms_{i + 1:02d}.png", counts[i], check_contrast=False)
    imsave(folder / "scene_RGB.png", np.zeros((12, 10, 3), np.uint8), check_contrast=False)
    cube, _ = read_reference(tmp_path / "scene_ms")
    assert np.allclose(cube, counts / 65535, atol=1e-6)


@pytest.mark.parametrize(
    ("shape", "bands", "axis"), [((7, 12, 12), None, 0), ((12, 12, 7), None, 2), ((9, 8, 200), 200, 2)]
)
def test_the_band_axis_is_told_apart(shape, bands, axis):
    assert bands_first(np.zeros(shape), bands).shape[0] == shape[axis]


def test_what_is_no_cube_is_refused(tmp_path):
    np.savez(tmp_path / "flat.npz", a=np.zeros((3, 3)))
    (tmp_path / "broken.mat").write_bytes(b"nothing")
    np.savez(tmp_path / "nan.npz", a=np.full((3, 4, 4), np.nan))
    for name, said in (
        ("flat.npz", "no three-dimensional"),
        ("broken.mat", "can't be read"),
        ("nan.npz", "NaN"),
        ("x.npz", "no such"),
    ):
        with pytest.raises(InputError, match=said):
            read_reference(tmp_path / name)

"""References that aren't rasters: .mat, .npz, folders of band images."""

import numpy as np
import pytest
import scipy.io
from skimage.io import imsave

from hsfuse.core.errors import InputError
from hsfuse.io.arrays import band_axis, read_reference

CUBE = np.random.default_rng(0).random((7, 12, 10)).astype(np.float32)


def test_npz_with_wavelengths_is_read_bands_first_either_way_round(tmp_path):
    nm = np.linspace(400, 700, 7)
    for name, array in (("first", CUBE), ("last", CUBE.transpose(1, 2, 0))):
        np.savez(tmp_path / f"{name}.npz", data=array, wavelengths_nm=nm)
        cube, known = read_reference(tmp_path / f"{name}.npz")
        assert np.array_equal(cube, CUBE)
        assert np.array_equal(known, nm)


@pytest.mark.parametrize(("key", "unit", "known", "said"), [
    ("wavelengths", 1e-3, True, "taken as micrometres"), ("wavelength_nm", 1e-3, True, "taken as micrometres"),
    ("wavelengths", 1e9, False, "unknown units"),
])  # fmt: skip
def test_wavelengths_of_arrays_are_held_to_what_those_of_rasters_are(tmp_path, caplog, key, unit, known, said):
    nm = np.linspace(400, 700, 7)
    np.savez(tmp_path / "a.npz", data=CUBE, **{key: nm * unit})
    with caplog.at_level("INFO", logger="hsfuse"):
        found = read_reference(tmp_path / "a.npz")[1]
    assert said in caplog.text
    assert np.allclose(found, nm) if known else found is None


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
    ("shape", "bands", "axis"),
    [((7, 12, 12), None, 0), ((12, 12, 7), None, 2), ((9, 8, 200), 200, 2), ((31, 300, 280), None, 0),
     ((200, 900, 1000), None, 0), ((200, 9, 8), 200, 0)],
)  # fmt: skip
def test_the_band_axis_is_told_apart(shape, bands, axis):
    assert band_axis(shape, bands) == axis


@pytest.mark.parametrize("shape", [
    (610, 340, 103), (1096, 715, 102), (512, 217, 224), (250, 190, 188), (1476, 256, 145), (1280, 307, 191),
    (349, 1905, 144), (145, 145, 200), (512, 614, 176), (1040, 1392, 31),
])  # fmt: skip
def test_the_cubes_that_everybody_has_as_mat_files_have_their_bands_last(shape):
    """Pavia, Salinas, Cuprite, Botswana, Washington DC Mall, Houston, Indian Pines, KSC, Harvard."""
    assert band_axis(shape, None) == 2


def test_which_axis_was_chosen_is_said_where_no_wavelengths_tell(tmp_path, caplog):
    scipy.io.savemat(tmp_path / "paviaU.mat", {"paviaU": np.zeros((61, 34, 10), np.uint16)})
    with caplog.at_level("INFO", logger="hsfuse"):
        cube, _ = read_reference(tmp_path / "paviaU.mat")
    assert cube.shape == (10, 61, 34)
    assert "axis 3 of (61, 34, 10) is taken for the bands" in caplog.text


def test_what_is_no_cube_is_refused(tmp_path):
    np.savez(tmp_path / "flat.npz", a=np.zeros((3, 3)))
    (tmp_path / "broken.mat").write_bytes(b"nothing")
    np.savez(tmp_path / "nan.npz", a=np.full((3, 4, 4), np.nan))
    np.savez(tmp_path / "complex.npz", a=CUBE.astype(complex))
    np.savez(tmp_path / "fill.npz", a=np.where(np.arange(10) < 2, -9999, CUBE), wavelengths=np.linspace(400, 700, 7))
    for name, said in (
        ("flat.npz", "no three-dimensional"),
        ("broken.mat", "can't be read"),
        ("nan.npz", "NaN"),
        ("complex.npz", "complex numbers"),
        ("fill.npz", "24 of 120 pixels hold -9999 in all bands"),
        ("x.npz", "no such"),
    ):
        with pytest.raises(InputError, match=said):
            read_reference(tmp_path / name)

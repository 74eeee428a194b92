"""MSI bands that were enlarged to the grid of others are told from those that were seen there, and left out aloud."""

from __future__ import annotations

import numpy as np
import pytest
import rasterio
from affine import Affine
from rasters import NORTH_UP
from scenes import memory_scene, save_pair
from scipy.ndimage import gaussian_filter, map_coordinates

from hsfuse import open_pair
from hsfuse.io import open_cube
from hsfuse.pair.identify import of_full_detail, one_detail
from hsfuse.physics.srf_bands import BandMatch

SIDE, NAMES = 192, ("B2", "B3", "B4", "B5", "B8")


def scene(bands=5, seed=0):
    """Bands (c, SIDE, SIDE) that share most of their texture, its amplitude falling with frequency as of ground."""
    rng = np.random.default_rng(seed)
    frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(SIDE), np.fft.rfftfreq(SIDE), indexing="ij"))
    falling = 1 / np.maximum(frequency, 1 / SIDE) ** 1.2
    texture = np.fft.irfft2(np.fft.rfft2(rng.standard_normal((bands + 1, SIDE, SIDE))) * falling)
    return 0.3 + 0.05 * (texture[0] + 0.4 * texture[1:]) / texture.std()


def enlarged(band, times, order):
    """A band's means over `times` x `times` pixels, brought back to its grid."""
    means = band.reshape(SIDE // times, times, SIDE // times, times).mean((1, 3))
    at = (np.arange(SIDE) - (times - 1) / 2) / times
    return map_coordinates(means, np.meshgrid(at, at, indexing="ij"), order=order, mode="nearest")


def kept(tmp_path, values, nodata=None, find=of_full_detail):
    path = tmp_path / "msi.tif"
    profile = {"driver": "GTiff", "count": len(values), "width": SIDE, "height": SIDE, "dtype": values.dtype}
    with rasterio.open(path, "w", transform=NORTH_UP, crs=32633, nodata=nodata, **profile) as ds:
        ds.write(values)
    with open_cube(path) as reader:
        return find(BandMatch(tuple(range(len(values))), NAMES[: len(values)], "description", ""), reader)


@pytest.mark.parametrize("order", [0, 1, 3])
@pytest.mark.parametrize("times", [2, 3, 6])
@pytest.mark.parametrize("dtype", ["float32", "uint16"])
def test_enlarged_bands_are_left_out_aloud(tmp_path, times, order, dtype):
    values = scene()
    for k in (1, 3):
        values[k] = enlarged(values[k], times, order)
    values = (values * (1 if dtype == "float32" else 1e4)).astype(dtype)
    match, notes, (warning,) = kept(tmp_path, values)
    assert (match.indices, match.bands, notes) == ((0, 2, 4), ("B2", "B4", "B8"), [])
    assert warning.code == "msi-bands-enlarged"
    assert "left out: B3, B5 hold no detail" in warning.text


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("noise", [0.0, 0.003, 0.02])
def test_bands_as_they_were_seen_stay(tmp_path, seed, noise):
    """Blurred more or less, noisy or not, in 8 bits, dark, or flat in most of the scene."""
    values = scene(seed=seed)
    values[1] = gaussian_filter(values[1], 0.45)
    values += noise * np.random.default_rng(seed).standard_normal(values.shape)
    values[3, :, : SIDE // 2] = 0.1
    values[4] = 0.02 + (values[4] - 0.3) / 10
    for made in (values.astype("float32"), (200 * values).clip(0, 255).round().astype("uint8")):
        match, notes, warnings = kept(tmp_path, made)
        assert (len(match.indices), notes, warnings) == (5, [], [])


def test_fill_is_no_detail(tmp_path):
    values = scene().astype("float32")
    values[1] = enlarged(values[1], 2, 0)
    values[:, 50:70, 31:60] = -9999
    values[:, np.random.default_rng(0).random((SIDE, SIDE)) < 0.01] = -9999
    match, _, warnings = kept(tmp_path, values, nodata=-9999)
    assert (match.bands, len(warnings)) == (("B2", "B4", "B5", "B8"), 1)


def test_of_few_bands_all_are_used(tmp_path):
    values = scene().astype("float32")
    for k in (1, 2, 3):
        values[k] = enlarged(values[k], 2, 1)
    assert kept(tmp_path, values)[0].bands == NAMES
    assert kept(tmp_path, values[:3])[0].bands == NAMES[:3]


def test_coarser_files_are_not_used_and_it_is_said_unless_they_are_named(tmp_path):
    files = save_pair(tmp_path, memory_scene((40, 40), 2))
    with rasterio.open(files.msi) as ds:
        high, profile = ds.read(), ds.profile
    coarse = high[:1].reshape(1, len(high[0]) // 2, 2, -1, 2).mean((2, 4)).astype(high.dtype)
    profile |= {"count": 1, "height": coarse.shape[1], "width": coarse.shape[2]}
    profile["transform"] @= Affine.scale(2)
    with rasterio.open(tmp_path / "B5.tif", "w", **profile) as ds:
        ds.write(coarse)
        ds.descriptions = ["B5"]
    images = (files.hsi, [files.msi, tmp_path / "B5.tif"])
    with open_pair(*images, srf="sentinel2a", register="off") as pair:
        assert pair.msi_names == ("B2", "B3", "B4", "B8")
        assert [one.text.split(":")[1].split(";")[0] for one in pair.notes if one.code == "msi-bands-coarse"] == [" B5"]
        assert "bands-sharpened" not in [one.code for one in pair.notes]  # of what isn't used, no more is told
    with open_pair(*images, srf="sentinel2a", register="off", msi_bands=("B2", "B3", "B4", "B5", "B8")) as pair:
        assert set(pair.msi_names) == {"B2", "B3", "B4", "B5", "B8"}
        (told,) = [one.text for one in pair.notes if one.code == "bands-sharpened"]
        assert "B5 has a GSD of 20 m and is brought to 10 m, sharpened with" in told


def pansharpened(values, how, noise=0.0):
    """Bands (c, SIDE, SIDE), seen at four times the GSD, with the detail of their mean: by a gain each, or a ratio."""
    pan = values.mean(0) + noise * np.random.default_rng(1).standard_normal(values.shape[1:])
    coarse = np.stack([enlarged(band, 4, 3) for band in values])
    if how == "ratio":
        return coarse * pan / coarse.mean(0)
    gains = np.linspace(0.6, 1.5, len(values))[:, None, None]
    return coarse + gains * (pan - enlarged(pan, 4, 3))


@pytest.mark.parametrize("how", ["gains", "ratio"])
@pytest.mark.parametrize("bands", [3, 5])
@pytest.mark.parametrize("noise", [0.0, 0.005])
@pytest.mark.parametrize("dtype", ["float32", "uint16"])
def test_a_pansharpened_image_is_told(tmp_path, how, bands, noise, dtype):
    values = scene(bands) * np.linspace(0.3, 1.6, bands)[:, None, None]
    factor = 1 if dtype == "float32" else 1e4
    (warned,) = kept(tmp_path, (factor * pansharpened(values, how, noise)).astype(dtype), find=one_detail)
    assert warned.code == "msi-one-detail"
    for own in (values, values + 0.005 * np.random.default_rng(2).standard_normal(values.shape)):
        assert kept(tmp_path, (factor * own).astype(dtype), find=one_detail) == []


def test_two_bands_or_a_flat_one_have_no_detail_in_common(tmp_path):
    values = pansharpened(scene(4), "gains").astype("float32")
    assert kept(tmp_path, values[:2], find=one_detail) == []
    values[2] = 0.1
    assert kept(tmp_path, values, find=one_detail) == []


def test_white_glints_are_not_all_detail(tmp_path):
    values = scene(4) + 0.003 * np.random.default_rng(4).standard_normal((4, SIDE, SIDE))
    rng = np.random.default_rng(5)
    values[:, rng.integers(0, SIDE, 60), rng.integers(0, SIDE, 60)] += rng.uniform(1, 6, 60)
    assert kept(tmp_path, values.astype("float32"), find=one_detail) == []

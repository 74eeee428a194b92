"""Thin cloud in one of two images is taken out of the MSI, and nothing is where there is none."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import rasterio
from rasterio.windows import Window
from scenes import mixture
from scipy.ndimage import gaussian_filter

from benchmarks.told.pairs import Files, Off, matrix, response, write_pair, write_told
from hsfuse import open_pair
from hsfuse.calibration import Shift
from hsfuse.pair.checks import misplaced
from hsfuse.pair.sensors import sensing

NM = np.linspace(420.0, 980.0, 31)
WHOLE = Window(0, 0, 96, 96)


@pytest.fixture(scope="module")
def cube() -> np.ndarray:
    return np.moveaxis(mixture((96, 96), 3), 0, 2)


@pytest.fixture(scope="module")
def clouded(cube, tmp_path_factory) -> tuple[Files, np.ndarray]:
    """A pair with a cloud in its MSI, which without it is (c, H, W)."""
    folder = tmp_path_factory.mktemp("clouded")
    with rasterio.open(write_pair(cube, NM, 4, Off(), folder).msi) as source:
        clear = source.read()
    return write_pair(cube, NM, 4, Off(cloud=0.3), folder), clear


def opened(files: Files, **how: str):
    return open_pair(files.hsi, files.msi, srf=str(files.srf), psf="assumed", register="off", **how)


def codes(pair) -> set[str]:
    return {one.code for one in [*pair.notes, *pair.warnings]}


def test_thin_cloud_is_taken_out_and_said(clouded):
    files, clear = clouded
    with opened(files) as pair, opened(files, haze="off") as plain:
        assert pair.haze
        assert "haze-taken-out" in codes(pair)
        assert "ground-hidden" not in codes(pair)
        assert "images-differ" not in codes(pair)
        assert pair.haze.share > 0.8
        assert "haze" in pair.summary()
        assert plain.haze is None
        assert "images-differ" in codes(plain)
        before, after = (np.square(one.read_hr(WHOLE).data - clear).mean() for one in (plain, pair))
    assert after < 0.2 * before


@pytest.mark.parametrize("beyond", [0, 60])
def test_in_the_hsi_alone_it_is_no_other_response(cube, tmp_path, beyond):
    """Bands that the MSI doesn't see tell cloud from ground, so that weights of any sign explain the misfit."""
    nm = np.concatenate([NM, 1000 + 10.0 * np.arange(beyond)])
    files = write_pair(wider(cube, beyond), nm, 4, Off(), tmp_path)
    with rasterio.open(files.hsi, "r+") as file:
        image = file.read()
        veil = 0.2 / (1 + np.exp(-2 * gaussian_filter(np.random.default_rng(2).standard_normal((24, 24)), 3) / 0.09))
        file.write((image + veil * (0.7 - image)).astype("float32"))
    with opened(files) as pair, opened(files, haze="off") as plain:
        assert "images-differ" in codes(plain)
        assert not codes(plain) & {"model-misfit", "response-contradicted", "sensor-another"}
        assert pair.haze
        assert pair.sensors.fits


@pytest.mark.parametrize("image", ["MSI", "HSI"])
def test_ground_under_opaque_cloud_is_warned_of_with_its_share(cube, tmp_path, image):
    """Edges of it, through which the ground is seen, aren't all counted."""
    files = write_pair(0.4 * cube, NM, 4, Off(), tmp_path)
    drawn = gaussian_filter(np.random.default_rng(3).standard_normal((96, 96)), 8)
    veil = 1 / (1 + np.exp(-(drawn - np.quantile(drawn, 0.93)) / (0.1 * drawn.std())))
    hidden = (veil > 0.5).mean()
    path, veil = (files.msi, veil) if image == "MSI" else (files.hsi, veil.reshape(24, 4, 24, 4).mean((1, 3)))
    with rasterio.open(path, "r+") as file:
        ground = file.read()
        file.write((ground + veil * (0.8 - ground)).astype("float32"))
    with opened(files) as pair:
        (told,) = [one for one in pair.warnings if one.code == "ground-hidden"]
        assert told.values["image"] == image
        assert told.values["share"] == pytest.approx(hidden, rel=0.4)


@pytest.mark.parametrize("image", ["MSI", "HSI"])
def test_opaque_cloud_is_left_as_it_is(cube, tmp_path, image):
    """As thin cloud it would darken the ground below zero, or brighten the MSI where the HSI alone has it."""
    files = write_pair(0.4 * cube + 0.1 * cube[:, :, :1], NM, 4, Off(), tmp_path)
    rows, columns = np.mgrid[:96, :96]
    veil = (np.hypot(rows - 47, columns - 50) < 16).astype(float)
    path, veil = (files.msi, veil) if image == "MSI" else (files.hsi, veil.reshape(24, 4, 24, 4).mean((1, 3)))
    with rasterio.open(path, "r+") as file:
        ground = file.read()
        cloud = 0.8 + 0.02 * np.random.default_rng(0).standard_normal(ground.shape)
        file.write((ground + veil * (cloud - ground)).astype("float32"))
    with opened(files) as pair, rasterio.open(files.msi) as msi:
        assert pair.haze is None
        assert "ground-hidden" in codes(pair)
        np.testing.assert_array_equal(pair.read_hr(WHOLE).data, msi.read())


@pytest.mark.parametrize("share", [0.004, 0.015, 0.05])
def test_a_little_opaque_cloud_is_told_by_its_own_share(cube, tmp_path, share):
    """Not by that of the scene, nearly all, in which gain and offset are wrong by it."""
    files = write_pair(0.4 * cube + 0.1 * cube[:, :, :1], NM, 4, Off(), tmp_path)
    rows, columns = np.mgrid[:96, :96]
    hidden = np.hypot(rows - 47, columns - 50) < 96 * np.sqrt(share / np.pi)
    with rasterio.open(files.msi, "r+") as file:
        ground = file.read()
        cloud = 0.8 + 0.02 * np.random.default_rng(0).standard_normal(ground.shape)
        file.write(np.where(hidden, cloud, ground).astype("float32"))
    with opened(files) as pair:
        (told,) = [one for one in pair.warnings if one.code == "ground-hidden"]
        assert share / 2 < told.values["share"] < 3 * share
        assert "fit-untold" in codes(pair)
        assert not codes(pair) & {"images-differ", "model-misfit", "haze-left"}


def test_other_ground_that_passes_for_haze_is_warned_of(cube, tmp_path):
    """What an MSI of another date has there is as smooth as thin cloud, but its detail isn't the HSI's."""
    files = write_pair(cube**3, NM, 4, Off(), tmp_path)
    drawn = gaussian_filter(np.random.default_rng(2).standard_normal((96, 96)), 14, mode="wrap")
    with rasterio.open(files.msi, "r+") as file:
        ground = file.read()
        file.write(np.where(drawn > np.quantile(drawn, 0.85), ground[:, ::-1, ::-1], ground))
    with opened(files) as pair:
        assert pair.haze is None
        (told,) = [one for one in pair.warnings if one.code in ("images-differ", "ground-changed")]
        assert 0.1 < told.values["share"] < 0.25


def wider(cube: np.ndarray, bands: int) -> np.ndarray:
    """With so many bands more, beyond the MSI's."""
    return np.concatenate([cube, np.repeat(0.5 * cube[..., :1] + 0.1, bands, 2)], 2)


def test_what_haze_makes_windows_say_of_the_ground_s_place_is_asked_again_without_it(clouded):
    with opened(clouded[0]) as pair, opened(clouded[0], haze="off") as plain:
        led, misled = (replace(one, shift=Shift(0.0, 0.0, 0.01, 16, 0.9, spread=0.2)) for one in (pair, plain))
        assert "ground-misplaced" not in codes(misplaced(led))
        assert "ground-misplaced" in codes(misplaced(misled))


def test_a_far_shift_that_leaves_other_light_may_be_one_of_clouds(tmp_path_factory):
    wide = np.moveaxis(mixture((112, 112), 3), 0, 2)
    for cloud in (0.0, 0.3):
        files = write_pair(wide, NM, 4, Off(cloud=cloud, shift=(1.2, -0.8)), tmp_path_factory.mktemp("pair"))
        with open_pair(files.hsi, files.msi, srf=str(files.srf), psf="assumed") as pair:
            assert ("shift-doubtful" in codes(pair)) == bool(cloud)


def test_over_dark_ground_it_is_no_tone(cube, tmp_path):
    """Cloud makes what is dark bright, as a curve of the MSI's numbers does."""
    with opened(write_pair(cube**3, NM, 4, Off(cloud=0.3), tmp_path)) as pair:
        assert pair.tone is None
        assert pair.haze


@pytest.mark.parametrize("power", [1, 3])
def test_what_is_left_is_little_beside_the_noise(cube, tmp_path_factory, power):
    """Over dark ground as well: the cloud is one field in all bands, smooth, and known LR pixel by LR pixel."""
    images, off = [], Off(cloud=0.3, gain=1.1, offset=0.02)
    for write in (write_told, write_pair):
        with opened(write(cube**power, NM, 4, off, tmp_path_factory.mktemp("pair")), match_radiometry="auto") as pair:
            images.append(pair.read_hr(WHOLE).data)
    told, found = (np.square(image - np.moveaxis(cube**power @ matrix(NM, *response(NM)).T, 2, 0)) for image in images)
    assert found.mean() < 1.5 * told.mean()


def test_any_window_is_the_whole_s(clouded):
    with opened(clouded[0]) as pair:
        whole = pair.read_hr(WHOLE).data
        for at in (Window(0, 0, 17, 9), Window(37, 41, 22, 30), Window(80, 61, 16, 35)):
            some = whole[:, at.row_off : at.row_off + at.height, at.col_off : at.col_off + at.width]
            np.testing.assert_allclose(pair.read_hr(at).data, some, atol=2e-6)


def test_beside_gaps_it_is_what_the_ground_around_tells(clouded, tmp_path):
    files, clear = clouded
    with rasterio.open(files.msi) as source:
        image, profile = source.read(), source.profile
    image[:, 30:50, 20:60] = -1
    gappy = tmp_path / "gappy.tif"
    with rasterio.open(gappy, "w", **{**profile, "nodata": -1}) as target:
        target.write(image)
    near = np.zeros(image.shape[1:], bool)
    near[22:58, 12:68] = True
    near[30:50, 20:60] = False
    off = []
    for haze in ("off", "auto"):
        with open_pair(
            files.hsi, gappy, srf=str(files.srf), psf="assumed", register="off", match_radiometry=haze, haze=haze
        ) as pair:
            cube = pair.read_hr(WHOLE)
        assert not cube.mask[30:50, 20:60].any()
        assert not cube.data[:, 30:50, 20:60].any()
        off.append(np.square(cube.data - clear).mean(0)[near].mean())
    assert off[1] < 0.3 * off[0]


@pytest.mark.parametrize(
    "off",
    [
        Off(),
        Off(gain=1.2, offset=0.05),
        Off(psf="box"),
        Off(shift=(0.4, -0.3)),
        Off(srf_shift=15.0),
        Off(gamma=0.6),
        Off(rotate=1.0),
    ],
)
def test_what_else_is_off_is_no_haze(cube, tmp_path, off):
    files = write_pair(cube, NM, 4, off, tmp_path)
    with opened(files, match_radiometry="auto") as pair:
        assert pair.haze is None


def test_images_of_other_places_are_not_made_alike(cube, tmp_path):
    files = write_pair(cube, NM, 4, Off(), tmp_path)
    with rasterio.open(files.msi, "r+") as other:
        other.write(other.read()[:, ::-1, ::-1])
    with open_pair(files.hsi, files.msi, srf=str(files.srf), psf="assumed", register="off", strict=False) as pair:
        assert pair.haze is None


def test_cloud_over_the_hsi_alone_is_said_and_not_put_over_the_msi(cube, tmp_path):
    files = write_pair(cube, NM, 4, Off(), tmp_path)
    rows, cols = np.mgrid[:24, :24]
    over = 0.6 * np.exp(-((rows - 9) ** 2 + (cols - 14) ** 2) / (2 * 2.5**2))
    with rasterio.open(files.hsi, "r+") as ds:
        ds.write(ds.read() * (1 - over) + 0.65 * over)
    with opened(files) as pair:
        assert pair.haze is None
        (told,) = (one for one in pair.warnings if one.code == "hsi-clouded")
    assert told.values["share"] == pytest.approx((over > 0.2).mean(), abs=0.05)


def test_light_that_makes_no_difference_is_not_looked_for(cube, tmp_path):
    """Without noise it was found, and told with 0.0 %."""
    files = write_pair(cube, NM, 4, Off(light=0.001), tmp_path, db=300)
    with opened(files) as pair:
        assert "light-evened" not in codes(pair)


@pytest.mark.parametrize("off", [Off(light=0.05), Off(light=0.15), Off(seam=0.1)], ids=["5 %", "15 %", "a seam"])
def test_uneven_light_is_evened_and_said(cube, tmp_path, off):
    with rasterio.open(write_pair(cube, NM, 4, Off(), tmp_path).msi) as source:
        clear = source.read()
    files = write_pair(cube, NM, 4, off, tmp_path)
    with opened(files) as pair, opened(files, haze="off") as plain:
        assert "light-evened" in codes(pair)
        assert {"haze", "uneven light"} & set(pair.summary()) == {"uneven light"}
        assert sensing(pair, told=False)["light"] == pair.haze.size
        assert "light" not in sensing(plain, told=False)
        assert not {"haze-taken-out", "images-differ"} & codes(pair)
        assert "light-evened" not in codes(plain)
        noise = 1.5 * 10 ** (-40 / 20) * np.sqrt(np.square(clear).mean())
        before, after = (np.sqrt(np.square(one.read_hr(WHOLE).data - clear).mean()) for one in (plain, pair))
    assert after < max(0.6 * before, noise)
    assert after < before


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    "off", [Off(), Off(psf="comet:.5"), Off(gain=1.1, offset=0.02), Off(srf_shift=5.0), Off(noise="correlated")]
)
def test_even_light_stays(cube, tmp_path, off, seed):
    with opened(write_pair(cube, NM, 4, off, tmp_path, seed)) as pair:
        assert pair.haze is None


def test_light_of_each_band_is_evened_by_as_much_as_it_has(cube, tmp_path):
    files = write_pair(cube, NM, 4, Off(), tmp_path)
    with rasterio.open(files.msi, "r+") as source:
        clear = source.read()
        rise = np.linspace(-0.5, 0.5, clear.shape[2])
        times = np.linspace(0.2, 0.05, len(clear))[:, None, None]
        source.write(clear * (1 + times * rise).astype("float32"))
    with opened(files) as pair:
        assert pair.haze is not None
        assert pair.haze.dims[0] > 2 * pair.haze.dims[-1]
        ratio = pair.read_hr(WHOLE).data / clear
    assert np.abs(ratio / ratio.mean((1, 2), keepdims=True) - 1).mean() < 0.012

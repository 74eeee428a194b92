"""Which sensor of the library a pair bears out where the one that was taken is another."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import rasterio
import torch
from rasterio.windows import Window
from scenes import WAVELENGTHS_NM, mixture

from benchmarks.told.pairs import Off, write_pair
from hsfuse import open_pair
from hsfuse.calibration.contradiction import check_response
from hsfuse.calibration.spectra import SharedPixels
from hsfuse.pair.sample import evened, sample_of, sample_scene
from hsfuse.pair.sensors import another_sensor
from hsfuse.physics import load_srf
from hsfuse.physics.model import ObservationModel, gaussian_psf

BANDS = ("B2", "B3", "B4", "B8")


def test_the_sensor_that_clearly_fits_is_named():
    """The MSI is Sentinel-2's: taken for another's it is told, by its names or without; rightly taken it isn't."""
    model = ObservationModel(load_srf("sentinel2a").select(BANDS).matrix(WAVELENGTHS_NM)[0], gaussian_psf(1.8, 4), 4)
    images = model(torch.from_numpy(mixture((144, 144)))[None].double())
    rng = torch.Generator().manual_seed(0)
    lrhsi, msi = (x + 0.01 * x.std() * torch.randn(x.shape, generator=rng, dtype=x.dtype) for x in images)
    shared = SharedPixels(lrhsi, msi, torch.ones(lrhsi[:, 0].shape, dtype=torch.bool), model)

    def named(srf: str, bands: tuple[str, ...], names: tuple[str, ...] | None = None) -> str:
        spectrum = SimpleNamespace(wavelengths_nm=WAVELENGTHS_NM, fwhm_nm=None)
        msi = SimpleNamespace(count=4, spectrum=SimpleNamespace(names=names))
        response = load_srf(srf)
        pair = SimpleNamespace(spectrum=spectrum, msi=msi, response=response, msi_names=bands, msi_bands=range(4))
        found = another_sensor(pair, shared, check_response(shared, response, bands, WAVELENGTHS_NM))
        return found.names[0] if found else ""

    taken = ("B1", "B2", "B3", "PAN")
    assert named("spot1", taken).startswith("sentinel2")
    assert named("landsat8", BANDS, BANDS).startswith("sentinel2")  # its B8 is panchromatic
    assert named("spot1", taken, taken) == ""  # no other sensor whose bands have these names fits
    assert named("spot1", ("B2", "B1", "B3", "PAN")) == ""
    assert named("sentinel2a", BANDS) == named("sentinel2a", BANDS, BANDS) == ""


@pytest.fixture(scope="module")
def taken(tmp_path_factory):
    """A pair whose MSI is Sentinel-2's, its bands named by `names` or not."""
    cube = np.moveaxis(mixture((144, 144)), 0, 2)
    truth = load_srf("sentinel2a").select(BANDS).matrix(WAVELENGTHS_NM)[0]

    def pair(names: tuple[str, ...] | None):
        files = write_pair(cube, WAVELENGTHS_NM, 4, Off(), tmp_path_factory.mktemp("pair"))
        high = cube @ truth.T
        high += 0.001 * np.random.default_rng(0).standard_normal(high.shape)
        with rasterio.open(files.msi, "r+") as file:
            file.write(np.moveaxis(high, 2, 0).astype("float32"))
            file.descriptions = names or file.descriptions
        return files

    return pair


@pytest.mark.parametrize(("srf", "names"), [("worldview3", None), ("landsat8", BANDS), ("dove", BANDS)])
def test_a_wrong_sensor_is_the_first_warning_with_what_to_do(taken, srf, names):
    files = taken(names)
    with open_pair(files.hsi, files.msi, srf=srf, register="off") as pair:
        first, *others = pair.warnings
        assert first.code == "sensor-another"
        assert f"the MSI seems not to be {srf}'s" in first.text
        assert "give --srf sentinel2" in first.text
        assert first.values["fitted"] < 3 * first.values["chance"] < first.values["misfit"]
        assert not {one.code for one in others} & {"bands-swapped", "response-contradicted", "model-misfit"}
        assert pair.tone is None
        assert pair.haze is None
        assert pair.sensors.to_dict()["better"].startswith("sentinel2")


def test_the_right_sensor_is_not_doubted(taken):
    for names in (None, BANDS):
        files = taken(names)
        with open_pair(files.hsi, files.msi, srf="sentinel2a", register="off") as pair:
            assert pair.sensors.another is None
            assert pair.warnings == []


def test_a_band_beyond_the_hsi_is_said_to_have_no_response(tmp_path):
    """Of an HSI up to 740 nm, an MSI's near infrared is none of it; the other bands are told."""
    cube, seen = np.moveaxis(mixture((144, 144)), 0, 2), WAVELENGTHS_NM < 740
    files = write_pair(cube, WAVELENGTHS_NM, 4, Off(), tmp_path)
    with open_pair(files.hsi, files.msi, srf="estimate", register="off") as pair:
        assert "response-untold" not in {one.code for one in pair.warnings}
    (tmp_path / "low").mkdir()
    low = write_pair(cube[..., seen], WAVELENGTHS_NM[seen], 4, Off(), tmp_path / "low").hsi
    with open_pair(low, files.msi, srf="estimate", register="off") as pair:
        (told,) = [one for one in pair.warnings if one.code == "response-untold"]
        assert told.values["bands"] == "band 4"


@pytest.mark.parametrize("order", [(2, 1, 0, 3), (3, 0, 1, 2), (1, 0, 2, 3)])
def test_a_wrong_order_of_the_bands_is_the_first_warning_with_the_right_one(taken, order):
    """The MSI's bands lie otherwise than --srf has them; what they leave misleads neither tone nor haze."""
    files = taken(None)
    with rasterio.open(files.msi, "r+") as file:
        file.write(file.read()[list(order)])
    with open_pair(files.hsi, files.msi, srf="sentinel2a", register="off") as pair:
        first, *others = pair.warnings
        assert first.code == "bands-swapped"
        wanted = ",".join(BANDS[i] for i in order)
        assert f"give --msi-bands {wanted}" in first.text
        assert not {one.code for one in others} & {"model-misfit", "images-differ", "response-contradicted"}
        assert pair.tone is None
        assert pair.haze is None
    with open_pair(files.hsi, files.msi, srf="sentinel2a", msi_bands=wanted.split(","), register="off") as pair:
        assert pair.warnings == []


def test_bands_left_out_keep_their_place_in_the_order_told(taken):
    files = taken(None)
    with rasterio.open(files.msi, "r+") as file:
        file.write(file.read()[[2, 1, 0, 3]])
    with open_pair(files.hsi, files.msi, srf="sentinel2a", msi_bands=["B2", "-", "B4", "-"], register="off") as pair:
        assert pair.warnings[0].text.endswith("give --msi-bands B4,-,B2,-")


@pytest.mark.parametrize(("gain", "warned"), [(1.3, False), (0.3, True), (2.8, True)])
def test_a_gain_that_no_calibration_explains_is_warned_of(taken, gain, warned):
    files = taken(None)
    with rasterio.open(files.msi, "r+") as file:
        file.write(gain * file.read())
    with open_pair(files.hsi, files.msi, srf="sentinel2a", register="off") as pair:
        assert pair.radiometry is not None
        assert [one.code for one in pair.warnings] == ["gains-far"] * warned


@pytest.mark.parametrize("units", [0.01, 1, 100])
@pytest.mark.parametrize("counts", [90, 280])
def test_the_scale_of_8_bit_counts_is_no_gain_to_warn_of(taken, tmp_path, units, counts):
    """Whatever power of ten is next to it, and whatever the HSI is in."""
    files = taken(None)
    with rasterio.open(files.msi) as file:
        data, profile, names = file.read(), file.profile | {"dtype": "uint8", "nodata": None}, file.descriptions
    with rasterio.open(tmp_path / "counts.tif", "w", **profile) as file:
        file.write((counts * data).clip(0, 255).astype("uint8"))
        file.descriptions = names
    with rasterio.open(files.hsi, "r+") as file:
        file.write(units * file.read())
    with open_pair(files.hsi, tmp_path / "counts.tif", srf="sentinel2a", register="off") as pair:
        assert pair.radiometry is not None
        assert "gains-far" not in [one.code for one in pair.warnings]


@pytest.mark.parametrize("off", [Off(seam=0.1), Off(light=0.15)], ids=["a seam", "a slope"])
@pytest.mark.parametrize("order", [(0, 1, 2, 3), (1, 0, 2, 3)], ids=["right", "swapped"])
def test_uneven_light_changes_nothing_of_what_is_said_of_response_and_order(tmp_path, off, order):
    """It is taken out only after they are judged; a seam had made right responses another's and hidden wrong orders."""
    said = []
    for one, light in enumerate((Off(), off)):
        (folder := tmp_path / str(one)).mkdir()
        files = write_pair(np.moveaxis(mixture((96, 96), 3), 0, 2), np.linspace(420.0, 980.0, 31), 4, light, folder)
        with rasterio.open(files.msi, "r+") as file:
            file.write(file.read()[list(order)])
        with open_pair(files.hsi, files.msi, srf=str(files.srf), psf="assumed", register="off") as pair:
            codes = {note.code for note in pair.warnings}
            said.append(codes & {"bands-swapped", "sensor-another", "response-contradicted", "response-untold"})
    assert said[1] == said[0] == ({"bands-swapped"} if order[0] else set())


@pytest.mark.parametrize("off", [Off(), Off(seam=0.1), Off(light=0.15)], ids=["even", "a seam", "a slope"])
def test_a_response_is_told_under_uneven_light_as_under_even(tmp_path, off):
    files = write_pair(np.moveaxis(mixture((96, 96), 3), 0, 2), np.linspace(420.0, 980.0, 31), 4, off, tmp_path)
    with open_pair(files.hsi, files.msi, srf="estimate", psf="assumed", register="off") as pair:
        nm = np.array(pair.spectrum.wavelengths_nm)
        assert pair.model.srf.numpy() @ nm == pytest.approx([492, 560, 665, 833], abs=12)
        assert not {"response-untold", "images-differ"} & {note.code for note in pair.warnings}


def test_light_is_not_evened_between_blocks_apart(tmp_path):
    """It was, and a seam between two blocks then made the right sensor unlikely."""
    cube = np.moveaxis(mixture((96, 192), 3), 0, 2)
    files = write_pair(cube, np.linspace(420.0, 980.0, 31), 4, Off(seam=0.1), tmp_path)
    with open_pair(files.hsi, files.msi, srf=str(files.srf), register="off", match_radiometry="off") as pair:
        whole, apart = sample_scene(pair), sample_of(pair, [Window(at, 0, 24, 24) for at in (0, 24)])
        assert evened(whole, pair.model) is not whole
        assert evened(apart, pair.model) is apart

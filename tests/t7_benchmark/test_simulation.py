"""Simulated pairs: physics, georeference, noise, and nothing left behind on failure."""

import json
import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from affine import Affine
from rasterio.crs import CRS
from rasterio.windows import Window
from rasters import write_cube

from hsfuse.benchmark.simulate import Observer, lr_grid, noisy, simulate
from hsfuse.core.cube import Spectrum
from hsfuse.core.errors import InputError, OutputError, SettingError, SrfError
from hsfuse.core.grid import Grid, align
from hsfuse.io import open_cube
from hsfuse.io.sinks import EnviSink
from hsfuse.pair import open_pair
from hsfuse.physics import load_srf
from hsfuse.physics.degrade import spans
from hsfuse.physics.model import ObservationModel, gaussian_psf
from hsfuse.physics.optics import sigma_from_mtf

WAVELENGTHS = tuple(np.arange(420.0, 960.0, 30.0))
PLACE = Grid((24, 16), Affine(10, 0, 600000, 0, -10, 5000000), CRS.from_epsg(32633))
BANDS = ("B2", "B3", "B4", "B8")


def cube(shape=PLACE.shape, seed=3):
    return np.random.default_rng(seed).random((len(WAVELENGTHS), *shape), dtype=np.float32)


def reference(folder, data=None, mask=None, grid=PLACE):
    data = cube(grid.shape) if data is None else data
    mask = np.ones(grid.shape, bool) if mask is None else mask
    write_cube(folder / "ref.tif", data, mask, grid, Spectrum(WAVELENGTHS), overwrite=True)
    return folder / "ref.tif"


def made(tmp_path, name="out", path=None, **settings):
    settings = {"srf": "sentinel2a", "ratio": 4, "msi_bands": BANDS} | settings
    return simulate(path or reference(tmp_path), tmp_path / name, **settings)


def read(path):
    with open_cube(path) as reader:
        return reader.read()


def test_flat_stays_flat(tmp_path):
    flat = np.full((len(WAVELENGTHS), *PLACE.shape), 0.37, np.float32)
    pair = made(tmp_path, path=reference(tmp_path, flat))
    for path in (pair.lrhsi, pair.msi, pair.reference):
        np.testing.assert_allclose(read(path).data, 0.37, rtol=1e-6)


@pytest.mark.parametrize("phase", [None, 0.5])
def test_equals_the_observation_model(tmp_path, phase):
    pair = made(tmp_path, mtf=0.25, phase=phase)
    response, _ = load_srf("sentinel2a").select(BANDS).matrix(WAVELENGTHS)
    model = ObservationModel(response, gaussian_psf(sigma_from_mtf(0.25, 4), 4, phase), 4, phase)
    lrhsi, msi = model(torch.from_numpy(cube())[None])
    np.testing.assert_allclose(read(pair.lrhsi).data, lrhsi[0], atol=2e-6)
    np.testing.assert_allclose(read(pair.msi).data, msi[0], atol=2e-6)
    np.testing.assert_array_equal(read(pair.reference).data, cube())


def test_strips_leave_no_trace(tmp_path):
    mask = np.ones(PLACE.shape, bool)
    mask[9:11, 3] = False
    path = reference(tmp_path, mask=mask)
    whole, thin = (
        made(tmp_path, str(rows), path, snr_hsi=30, snr_msi=30, seed=5, strip_rows=rows) for rows in (1000, 4)
    )
    for a, b in ((whole.lrhsi, thin.lrhsi), (whole.msi, thin.msi), (whole.reference, thin.reference)):
        np.testing.assert_allclose(read(a).data, read(b).data, atol=1e-6)
        np.testing.assert_array_equal(read(a).mask, read(b).mask)


def test_columns_and_bands_in_pieces_leave_no_trace(tmp_path, monkeypatch):
    path = reference(tmp_path)
    whole = made(tmp_path, "whole", path)
    monkeypatch.setattr("hsfuse.physics.degrade.COLUMNS_AT_ONCE", 1)
    monkeypatch.setattr("hsfuse.physics.degrade.BANDS_AT_ONCE", 5)
    np.testing.assert_allclose(read(whole.lrhsi).data, read(made(tmp_path, "parts", path).lrhsi).data, atol=1e-7)


def test_reads_no_more_than_a_strip_and_its_halo(tmp_path, monkeypatch):
    path, heights = reference(tmp_path, cube((200, 8)), grid=PLACE.crop(0, 0, (200, 8))), []
    with open_cube(path) as reader:
        response, _ = load_srf("sentinel2a").select(BANDS).matrix(WAVELENGTHS)
        model = ObservationModel(response, gaussian_psf(1.0, 4), 4)
        whole = reader.read
        monkeypatch.setattr(reader, "read", lambda w, b: (heights.append(w.height), whole(w, b))[1])
        pieces = list(Observer(reader, [0, 1, 2], reader.grid, model.with_srf(response[:, :3]), 20).pieces())
    assert len(pieces) == 10
    assert max(heights) <= 20 + 2 * 4


def test_spans_cover_once_and_stay_inside():
    for n, size, halo in ((10, 3, 2), (5, 9, 4), (7, 7, 0), (6, 1, 1)):
        found = spans(n, size, halo)
        assert [i for span in found for i in range(span.start, span.start + span.count)] == list(range(n))
        assert all(span.low == max(0, span.start - halo) for span in found)
        assert all(span.high == min(n, span.start + span.count + halo) for span in found)


def test_invalid_pixels_do_not_leak(tmp_path):
    flat, mask = np.full((len(WAVELENGTHS), *PLACE.shape), 0.5, np.float32), np.ones(PLACE.shape, bool)
    mask[8:12, 4:8] = False
    pair = made(tmp_path, path=reference(tmp_path, flat, mask), psf_sigma=1.0)
    lrhsi = read(pair.lrhsi)
    assert not lrhsi.mask[2, 1]
    assert lrhsi.mask[0].all()
    np.testing.assert_allclose(lrhsi.data[:, lrhsi.mask], 0.5, rtol=1e-6)
    np.testing.assert_array_equal(read(pair.msi).mask, mask)
    np.testing.assert_array_equal(read(pair.reference).mask, mask)


@pytest.mark.parametrize(("nodata", "masked"), [(None, True), ("-9999", True), ("none", False)])
def test_fill_that_nobody_declared_is_masked_aloud(tmp_path, caplog, nodata, masked):
    data, mask = cube(), np.ones(PLACE.shape, bool)
    mask[8:12, 4:8] = False
    data[:, ~mask] = -9999
    pair = made(tmp_path, path=reference(tmp_path, data), nodata=nodata)
    told = [record.message for record in caplog.records if record.levelname == "WARNING"]
    said = "ref.tif: 16 of 384 pixels hold -9999 in all bands and no nodata value says so: masked as fill"
    assert told == [said] * (nodata is None)
    assert set(told) <= set(pair.notes)
    for made_file in (pair.msi, pair.reference):
        found = read(made_file)
        np.testing.assert_array_equal(found.mask, mask | (not masked))
        assert (found.data.min() < 0) == (not masked)


def test_georeference_is_the_coarsened_one(tmp_path):
    pair = made(tmp_path)
    low, high = read(pair.lrhsi).grid, read(pair.msi).grid
    assert high == PLACE
    assert low.shape == (6, 4)
    assert low.crs == PLACE.crs
    assert low.transform @ (0, 0) == pytest.approx(high.transform @ (0, 0))
    assert low.transform @ (4, 6) == pytest.approx(high.transform @ (16, 24))
    assert align(low, high).ratio == 4


@pytest.mark.parametrize(("s", "phase"), [(4, 0.0), (4, 1.5), (3, 1.0), (3, 2.0), (2, 0.0)])
def test_lr_pixel_centres_lie_where_the_phase_says(s, phase):
    grid = Grid((12, 12), PLACE.transform @ Affine.rotation(20), PLACE.crs)
    low = lr_grid(grid, s, phase)
    for i, j in ((0, 0), (2, 1)):
        place = grid.transform @ (j * s + phase + 0.5, i * s + phase + 0.5)
        assert low.transform @ (j + 0.5, i + 0.5) == pytest.approx(place)


@pytest.mark.parametrize("phase", [None, 0.5])
def test_an_opened_pair_obeys_its_own_model(tmp_path, phase):
    grid = PLACE.crop(0, 0, (64, 48))
    pair = made(tmp_path, path=reference(tmp_path, grid=grid), phase=phase, psf_sigma=1.0)
    with (
        open_pair(pair.lrhsi, pair.msi, srf="sentinel2a", psf_sigma=1.0) as scene,
        open_cube(pair.reference) as truth,
    ):
        x = torch.from_numpy(truth.read(scene.alignment.msi_window).data)[None]
        rows, cols = scene.lr_shape
        lrhsi = scene.read_lr(Window(0, 0, cols, rows)).data
        inside = np.s_[:, 2:-2, 2:-2]  # the crop's own border is mirrored elsewhere
        np.testing.assert_allclose(scene.model.spatial(x)[0].numpy()[inside], lrhsi[inside], atol=2e-6)


def test_without_georeference_there_is_none(tmp_path):
    pair = made(tmp_path, path=reference(tmp_path, grid=Grid(PLACE.shape)))
    low, high = read(pair.lrhsi).grid, read(pair.msi).grid
    assert not low.georeferenced
    assert align(low, high).ratio == 4


def test_noise_has_the_asked_power(tmp_path):
    grid = PLACE.crop(0, 0, (160, 160))
    data = cube(grid.shape) * np.linspace(0.1, 1, len(WAVELENGTHS), dtype=np.float32)[:, None, None]
    path = reference(tmp_path, data, grid=grid)
    clean, noisy = made(tmp_path, "clean", path), made(tmp_path, "noisy", path, snr_hsi=20, snr_msi=30)
    for image, snr in (("lrhsi", 20), ("msi", 30)):
        signal, found = (read(getattr(pair, image)).data.astype(float) for pair in (clean, noisy))
        noise = (found - signal).reshape(len(signal), -1)
        measured = 10 * np.log10((signal**2).mean((1, 2)) / (noise**2).mean(1))
        np.testing.assert_allclose(measured, snr, atol=0.5)  # 1600 pixels: 3 sigma are 0.46 dB
        assert abs(np.corrcoef(noise) - np.eye(len(noise))).max() < 0.12
        rows = noise.reshape(signal.shape)
        assert abs(np.corrcoef(rows[0, 0], rows[0, 1])[0, 1]) < 0.5
    np.testing.assert_array_equal(read(noisy.reference).data, read(clean.reference).data)


def test_the_sensors_noise_is_not_the_same():
    low, high = (noisy(np.zeros((2, 3, 5), np.float32), np.ones(2), 0, 7, sensor) for sensor in (0, 1))
    assert (low != high).all()


def test_strips_end_with_tiles(tmp_path):
    with open_cube(reference(tmp_path)) as reader:
        model = ObservationModel(np.ones((1, len(WAVELENGTHS))), gaussian_psf(1.0, 4), 4)
        wide = Grid((1000, 10000), PLACE.transform, PLACE.crs)
        found = Observer(reader, list(range(len(WAVELENGTHS))), wide, model)
        assert (found.rows, found.tile) == (128, 128)
        assert Observer(reader, [0], wide, model).rows % 256 == 0
        assert Observer(reader, [0], wide, model, strip_rows=3).rows == 4


def test_only_the_asked_sensor_is_noisy(tmp_path):
    clean, noisy = made(tmp_path, "clean"), made(tmp_path, "noisy", snr_hsi=20)
    np.testing.assert_array_equal(read(clean.msi).data, read(noisy.msi).data)
    assert (read(clean.lrhsi).data != read(noisy.lrhsi).data).any()


def test_seed_decides(tmp_path):
    one, same, other = (
        made(tmp_path, name, snr_hsi=20, snr_msi=20, seed=s) for name, s in (("a", 1), ("b", 1), ("c", 2))
    )
    for image in ("lrhsi", "msi"):
        assert getattr(one, image).read_bytes() == getattr(same, image).read_bytes()
        assert (read(getattr(one, image)).data != read(getattr(other, image)).data).all()


def test_bands_carry_their_names_and_wavelengths(tmp_path):
    pair = made(tmp_path)
    assert read(pair.lrhsi).spectrum.wavelengths_nm == pytest.approx(WAVELENGTHS)
    msi = read(pair.msi).spectrum
    assert msi.names == BANDS == pair.msi_bands
    assert msi.wavelengths_nm == pytest.approx(load_srf("sentinel2a").select(BANDS).centres_nm)
    with open_cube(pair.lrhsi.with_suffix(".hdr")) as reader:
        assert reader.driver == "ENVI"
    with open_cube(pair.msi) as reader:
        record = json.loads(reader.tags["HSFUSE_PROVENANCE"])
    assert record["settings"]["phase"] == 1.5
    assert record["reference"] == "ref.tif"


def test_bands_out_of_reach_are_left_out_aloud(tmp_path, caplog):
    caplog.set_level(logging.INFO, "hsfuse")
    pair = made(tmp_path, msi_bands=None)
    assert "B8A" in pair.msi_bands
    assert not {"B10", "B11", "B12"} & set(pair.msi_bands)
    assert any("left out" in note and "B11 (0% covered)" in note for note in pair.notes)
    assert set(pair.notes) <= set(caplog.messages)
    with pytest.raises(SrfError, match="no spectral overlap"):
        made(tmp_path, "none", msi_bands=["B11"])


def test_crops_to_whole_pixels_aloud(tmp_path):
    pair = made(tmp_path, path=reference(tmp_path, grid=PLACE), ratio=5)
    assert pair.hr_shape == (20, 15)
    assert pair.lr_shape == (4, 3)
    assert any("cropped from 24 x 16 to 20 x 15" in note for note in pair.notes)
    assert read(pair.reference).grid == PLACE.crop(0, 0, (20, 15))


def test_formats(tmp_path):
    pair = made(tmp_path, hsi_format="gtiff", msi_format="envi")
    assert (pair.lrhsi.name, pair.msi.name) == ("lrhsi.tif", "msi.dat")
    assert read(pair.msi).spectrum.names == BANDS


@pytest.mark.parametrize(
    ("settings", "error", "words"),
    [
        ({"ratio": 100}, InputError, "too few"),
        ({"ratio": 1}, SettingError, "ratio is 1"),
        ({"phase": 4.0}, SettingError, "wanted 0 to 3"),
        ({"mtf": 1.0}, SettingError, "between 0 and 1"),
        ({"psf_sigma": -1.0}, SettingError, "positive"),
        ({"seed": -1}, SettingError, "seed"),
        ({"snr_hsi": float("nan")}, SettingError, "LRHSI's SNR is nan"),
        ({"snr_msi": float("inf")}, SettingError, "MSI's SNR is inf"),
        ({"srf": "sentinel9"}, SrfError, "sentinel2"),
        ({"msi_bands": ["B77"]}, SrfError, "no band"),
        ({"hsi_format": "png"}, SettingError, "unknown format"),
    ],
)
def test_bad_settings_leave_no_folder(tmp_path, settings, error, words):
    with pytest.raises(error, match=words):
        made(tmp_path, **settings)
    assert not (tmp_path / "out").exists()


def test_all_nodata(tmp_path):
    with pytest.raises(InputError, match="valid"):
        made(tmp_path, path=reference(tmp_path, mask=np.zeros(PLACE.shape, bool)))


def test_outputs_are_not_overwritten_unasked(tmp_path):
    first = made(tmp_path)
    before = first.lrhsi.read_bytes()
    with pytest.raises(OutputError, match="exists"):
        made(tmp_path, snr_hsi=10)
    assert first.lrhsi.read_bytes() == before
    made(tmp_path, snr_hsi=10, overwrite=True)
    assert first.lrhsi.read_bytes() != before
    with pytest.raises(OutputError, match="is the input"):
        made(tmp_path, path=first.reference, overwrite=True)
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="is a file"):
        made(tmp_path, "file")
    with pytest.raises(OutputError, match="doesn't exist"):
        made(tmp_path, "not/there")


@pytest.mark.parametrize("old", [False, True])
def test_a_file_that_is_not_whole_takes_the_others_with_it(tmp_path, monkeypatch, old):
    path = reference(tmp_path)
    before = made(tmp_path, path=path, seed=1, snr_hsi=20).lrhsi.read_bytes() if old else b""

    def torn(self):
        raise OutputError("the header is missing")

    monkeypatch.setattr(EnviSink, "verify", torn)  # the LRHSI's, which is the first of the three
    with pytest.raises(OutputError, match="the header is missing"):
        made(tmp_path, path=path, overwrite=True)
    assert (tmp_path / "out").exists() == old
    if old:
        assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
            "lrhsi.dat", "lrhsi.hdr", "msi.tif", "reference.tif"
        ]  # fmt: skip
        assert (tmp_path / "out" / "lrhsi.dat").read_bytes() == before


def test_a_folder_that_something_else_writes_to_hides_no_error(tmp_path, monkeypatch):
    def broken(self):
        (tmp_path / "out" / "other").touch()
        raise KeyboardInterrupt

    path = reference(tmp_path)
    monkeypatch.setattr(Observer, "pieces", broken)
    with pytest.raises(KeyboardInterrupt):
        made(tmp_path, path=path)


def test_an_interruption_leaves_nothing(tmp_path, monkeypatch):
    whole = Observer.pieces

    def broken(self):
        yield next(whole(self))
        raise KeyboardInterrupt

    path = reference(tmp_path)
    monkeypatch.setattr(Observer, "pieces", broken)
    with pytest.raises(KeyboardInterrupt):
        made(tmp_path, path=path, strip_rows=4)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["ref.tif"]


def test_example_data_belong_together():
    folder = Path(__file__).parents[2] / "examples" / "data"
    with open_pair(folder / "lrhsi.hdr", folder / "sentinel2.tif", srf="sentinel2a") as scene:
        truth = torch.from_numpy(read(folder / "indian_pines_reference.tif").data)[None]
        clean = [image[0].numpy() for image in scene.model(truth)]
        found = [read(folder / "lrhsi.hdr").data, read(folder / "sentinel2.tif").data]
    snr = [10 * np.log10(np.mean(c**2) / np.mean((c - f) ** 2)) for c, f in zip(clean, found, strict=True)]
    assert snr == pytest.approx([35, 40], abs=0.2)

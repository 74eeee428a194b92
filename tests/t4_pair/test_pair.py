"""Pairs as they come: other grids, shifts, units and radiometry are put right, and said, when a pair is opened."""

from __future__ import annotations

import pickle
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import rasterio
from rasterio.windows import Window
from scenes import BANDS, FWHM_NM, HSI, MSI, WAVELENGTHS_NM, memory_scene, mixture, save, save_pair
from waves import EAST, NORTH, UTM32, UTM33, Waves, square

from benchmarks.told.pairs import Off, write_pair
from hsfuse.calibration import psf, register
from hsfuse.core.cube import Spectrum
from hsfuse.core.errors import GridError, InputError, SettingError
from hsfuse.core.grid import Grid, Motion
from hsfuse.core.notes import warning
from hsfuse.core.options import FuseOptions
from hsfuse.io import open_cube
from hsfuse.pair import checks, open_pair
from hsfuse.pair.checks import curved, misnamed
from hsfuse.physics import load_srf
from hsfuse.physics.optics import sigma_from_mtf

PLAIN = FuseOptions(srf="sentinel2a", psf="assumed")


def wave_pair(folder, hsi_grid: Grid, msi_grid: Grid, ratio: float, moved=(0.0, 0.0)):
    """A pair of files of one analytic scene; the LRHSI's content lies `moved` (x, y) metres off its georeference."""
    scene = Waves(bands=31, finest=10.0)
    weights, _ = load_srf("sentinel2a").select(BANDS).matrix(WAVELENGTHS_NM, FWHM_NM)
    sigma = sigma_from_mtf(0.3, ratio) * 10.0
    low, high = scene.on(hsi_grid, sigma, moved), scene.on(msi_grid)
    save(folder / "hsi.tif", low, hsi_grid, HSI)
    save(folder / "msi.tif", np.tensordot(weights, high, 1), msi_grid, MSI)
    return folder / "hsi.tif", folder / "msi.tif"


def test_nan_in_a_resampled_image_is_counted_once(tmp_path):
    """On the file's own pixels, under however many cells of the warp they lie."""
    hsi, msi = wave_pair(tmp_path, square(30.0, (60, 60), turn=5), square(10.0, (150, 150)), 3)
    with rasterio.open(hsi, "r+") as ds:
        cube = ds.read()
        cube[:, 30:32, 30] = np.inf
        ds.write(cube)
    with open_pair(hsi, msi, replace(PLAIN, register="off")) as pair:
        assert pair.warped
        whole(pair)
        assert [note.text for note in pair.nonfinite_notes()] == ["2 pixels of the HSI hold NaN or Inf and are masked"]


def test_which_image_masks_pixels_is_told_where_reading_them_again_is_quick(tmp_path, monkeypatch):
    files = save_pair(tmp_path, memory_scene((24, 24)))

    def gap(data):
        data[:, :, :4] = np.nan
        return data

    with open_pair(*rewritten((files.hsi, files.msi), gap), srf="sentinel2a", psf="assumed", register="off") as pair:
        shares = pair.masked()
        assert shares["HSI"] == 0 < shares["MSI"] < 0.5
        monkeypatch.setattr("hsfuse.pair.pair.MOST_COUNTED", 1000)
        assert pair.masked() == {}


@pytest.mark.parametrize("turn", [0, 5])
def test_a_psf_size_that_has_no_use_is_said(tmp_path, turn):
    files = wave_pair(tmp_path, square(30.0, (40, 40), turn=turn), square(10.0, (90, 90)), 3)
    with open_pair(*files, replace(PLAIN, register="off", psf_size=3)) as pair:
        assert any("--psf-size 3 isn't used" in str(note) for note in pair.notes) == pair.warped == (turn != 0)


def whole(pair):
    h, w = pair.lr_shape
    return pair.read_lr(Window(0, 0, w, h)), pair.read_hr(Window(0, 0, w * pair.ratio, h * pair.ratio))


def misfit(pair) -> float:
    """RMS difference of both images in the MSI's bands at low resolution, inside, relative to their contrast."""
    import torch

    low, high = whole(pair)
    seen = np.tensordot(pair.model.srf.numpy(), low.data, 1)
    wanted = pair.model.spatial(torch.from_numpy(high.data)[None])[0].numpy()
    inner = np.s_[:, 3:-3, 3:-3]
    assert low.mask[inner[1:]].all()
    return float((seen - wanted)[inner].std() / wanted[inner].std())


@pytest.mark.parametrize(
    ("side", "turn", "crs"), [(40.0, 0.0, UTM33), (29.0, 0.0, UTM33), (33.0, 12.0, UTM33), (30.0, 0.0, UTM32)]
)
def test_any_grid_is_brought_onto_the_msi_s(tmp_path, side, turn, crs):
    centre = (EAST, NORTH)
    if crs == UTM32:
        from rasterio.warp import transform

        xs, ys = transform(UTM33, UTM32, [EAST], [NORTH])
        centre = (xs[0], ys[0])
    low = square(side, (60, 60), centre, turn, crs)
    files = wave_pair(tmp_path, low, square(10.0, (128, 120)), side / 10)
    with open_pair(*files, PLAIN) as pair:
        assert pair.ratio == round(side / 10)
        assert misfit(pair) < 0.05
        assert pair.warped == (side != 40.0 or turn != 0)
        assert pair.summary()["HSI"].startswith(f"{files[0]} ({low.describe()}, 31 of 31 bands")  # the file's own grid
        left = register(pair, pair.warped)
    assert left.length * pair.ratio < 0.1


@pytest.mark.parametrize("moved", [(13.0, -57.0), pytest.param((0.0, 8.0), marks=pytest.mark.slow), (-95.0, 40.0)])
def test_a_shift_is_corrected_and_told(tmp_path, moved):
    files = wave_pair(tmp_path, square(40.0, (40, 40)), square(10.0, (160, 160)), 4.0, moved)
    with open_pair(*files, srf="sentinel2a", register="off", psf="assumed") as pair:
        before = misfit(pair)
    with open_pair(*files, PLAIN) as pair:
        after = misfit(pair)
        assert pair.residual is not None
        assert pair.residual.length * 4 < 0.1
        assert any("shift of the HSI" in str(note) for note in pair.notes)
        assert "after correction" in pair.summary()["registration"]
    assert after < 0.5 * before
    with open_pair(*files, srf="sentinel2a", register="report", psf="assumed") as pair:
        assert misfit(pair) == pytest.approx(before)
        assert (pair.shift.dx * 40, -pair.shift.dy * 40) == pytest.approx(moved, abs=1.0)


def test_a_shift_alone_needs_no_warp_where_the_psf_is_estimated(tmp_path):
    files = wave_pair(tmp_path, square(40.0, (36, 36)), square(10.0, (144, 144)), 4.0, (13.0, -57.0))
    with open_pair(*files, srf="sentinel2a", match_radiometry="off") as pair:
        assert not pair.warped
        assert pair.off_centre
        assert pair.lr_shape == (35, 36)  # a row lies beyond the MSI, which the LRHSI has moved by 5.7 MSI pixels
        np.testing.assert_allclose(np.abs(pair.model.psf.centre), (1.7, 1.3), atol=0.05)
        assert pair.residual.length * 4 < 0.1
        assert misfit(pair) < 0.05


def test_what_a_warp_gets_wrong_is_made_good_by_the_msi(tmp_path):
    """A drift wants a warp, and interpolation moves aliased detail wrongly."""
    cube = np.moveaxis(mixture((96, 96), 3), 0, 2)
    off = Off(psf="comet:.5", shift=(0.4, -0.3), drift=0.5)
    files = write_pair(cube, np.linspace(420.0, 980.0, 31), 4, off, tmp_path)
    with open_pair(files.hsi, files.msi, srf=str(files.srf)) as pair:
        assert pair.warped
        assert "detail-by-msi" in [one.code for one in pair.notes]
        assert pair.residual.length * 4 < 0.1
        assert abs(np.array(pair.psf.psf.centre)).max() < 0.1
        assert misfit(pair) < 0.5 * misfit(replace(pair, gains=None))


def test_a_centre_within_its_error_is_chance(tmp_path, monkeypatch):
    """What windows don't agree on isn't what a warp left: the PSF stays centred."""
    cube = np.moveaxis(mixture((96, 96), 3), 0, 2)
    off = Off(psf="comet:.5", shift=(0.4, -0.3), drift=0.5)
    files = write_pair(cube, np.linspace(420.0, 980.0, 31), 4, off, tmp_path)
    place_sd = psf.place_sd
    monkeypatch.setattr(psf, "place_sd", lambda *told: 100 * place_sd(*told))
    with open_pair(files.hsi, files.msi, srf=str(files.srf)) as pair:
        assert pair.warped
        assert not pair.off_centre
        assert abs(np.array(pair.model.psf.centre)).max() < 1e-6


def test_a_shift_over_the_limit_is_refused_in_figures(tmp_path):
    files = wave_pair(tmp_path, square(40.0, (40, 40)), square(10.0, (160, 160)), 4.0, (0.0, 60.0))
    with pytest.raises(GridError, match="at most 1 are"):
        open_pair(*files, srf="sentinel2a", register_limit=1.0)


def test_gain_and_offset_of_the_msi_are_taken_out(tmp_path):
    scene = memory_scene((32, 32))
    plain = scene.msi[0].numpy()
    gain, offset = np.array([1.2, 0.9, 1.0, 1.1], np.float32), np.array([0.02, 0.0, 0.0, -0.03], np.float32)
    files = save_pair(tmp_path, scene, msi=plain * gain[:, None, None] + offset[:, None, None])
    with open_pair(files.hsi, files.msi, PLAIN) as pair:
        _, high = whole(pair)
        assert any("radiometry" in str(note) for note in pair.notes)
    np.testing.assert_allclose(high.data, plain, atol=0.01)
    with open_pair(files.hsi, files.msi, srf="sentinel2a", match_radiometry="off") as pair:
        _, high = whole(pair)
        assert pair.radiometry is None
    np.testing.assert_allclose(high.data[0], plain[0] * 1.2 + 0.02, atol=1e-5)


def test_a_pair_that_agrees_is_left_alone(files):
    with open_pair(files.hsi, files.msi, PLAIN) as pair:
        assert pair.radiometry is None
        assert not pair.warped
        assert pair.residual is None


def test_units_are_settled(tmp_path):
    scene = memory_scene((24, 24))
    files = save_pair(tmp_path, scene)
    counts = (scene.msi[0].numpy() * 1e4).round()
    save(files.msi, counts, files.hr_grid, MSI, dtype="uint16")
    with open_pair(files.hsi, files.msi, PLAIN) as pair:
        _, high = whole(pair)
        assert any("units" in str(note) for note in pair.notes)
    np.testing.assert_allclose(high.data, scene.msi[0].numpy(), atol=1e-3)


def test_absorption_bands_can_be_left_out(tmp_path):
    nm = np.linspace(430, 2400, 31)
    grid = Grid((16, 16), square(40.0, (16, 16)).transform, UTM33)
    data = np.random.default_rng(0).random((31, 16, 16)).astype(np.float32)
    save(tmp_path / "hsi.tif", data, grid, Spectrum(tuple(nm)))
    save(tmp_path / "msi.tif", np.repeat(np.repeat(data[:4], 4, 1), 4, 2), grid.refine(4), MSI)
    with open_pair(
        tmp_path / "hsi.tif", tmp_path / "msi.tif", FuseOptions(srf="sentinel2a", drop_absorption=True)
    ) as pair:
        left = nm[pair.hsi_bands]
    assert not (((left > 1350) & (left < 1450)) | ((left > 1800) & (left < 1950))).any()
    assert len(left) < 31


def told(pair, code):
    return [one for one in pair.notes if one.code == code]


@pytest.mark.parametrize("given", [None, BANDS, ("B2", "B4", "B8")])
def test_a_sensor_that_nobody_named_is_told_by_band_names_and_the_pair(files, given):
    with open_pair(files.hsi, files.msi, mtf=0.3, msi_bands=given) as pair:
        assert pair.response.name == "sentinel2a"
        assert pair.msi_names == (given or BANDS)
        assert "sentinel2a has bands of its bands' names" in told(pair, "sensor-told")[0].text


def test_a_choice_of_bands_that_the_file_has_not_is_refused(files):
    for named in ("B2", "B99"), ("B2", "B2"):
        with pytest.raises(SettingError, match="--msi-bands names"):
            open_pair(files.hsi, files.msi, srf="estimate", msi_bands=named)


def test_a_response_that_nothing_tells_is_estimated_and_that_is_said(tmp_path):
    scene = memory_scene((28, 28))
    files = save_pair(tmp_path, scene)
    save(files.msi, scene.msi[0].numpy(), files.hr_grid, Spectrum(None, None, ("",) * 4))
    with open_pair(files.hsi, files.msi, mtf=0.3) as pair:
        assert pair.response.weights
        assert pair.msi_names == ("band 1", "band 2", "band 3", "band 4")
        (why,) = told(pair, "sensor-estimated")
        assert "which have no names, may be" in why.text
        assert "sentinel2's B2 B3 B4 B8" in why.text
        assert np.abs(pair.model.srf.numpy() - scene.model.srf.numpy()).sum(1).max() < 0.6


@pytest.mark.parametrize("psf", ["estimate", "free"])
def test_response_and_psf_are_estimated_from_the_pair(tmp_path, psf):
    files = wave_pair(tmp_path, square(40.0, (44, 44)), square(10.0, (176, 176)), 4.0)
    with open_pair(*files, srf="estimate", psf=psf) as pair:
        unknown = misfit(pair)
        assert pair.msi_names == BANDS
        assert any("estimated PSF" in str(note) for note in pair.notes)
        assert any("estimated response" in str(note) for note in pair.notes)
        y, x = pair.model.psf.mtf(4)
    assert (y, x) == pytest.approx((0.3, 0.3), abs=0.05)
    with open_pair(*files, srf="sentinel2a", mtf=0.1) as pair:
        assert unknown < misfit(pair)


def rewritten(files, change, **profile):
    """The pair's files with the MSI's numbers changed; its band names and tags stay."""
    with rasterio.open(files[1]) as source:
        data, names, how = source.read(), source.descriptions, source.profile
        tags = [source.tags(i) for i in source.indexes]
    path = files[1].with_name("changed.tif")
    with rasterio.open(path, "w", **{**how, **profile}) as out:
        out.write(change(data))
        out.descriptions = names
        for i, told in enumerate(tags, 1):
            out.update_tags(i, **told)
    return files[0], path


STRANGE = {
    "another place": (lambda data: data[:, ::-1, ::-1], "no MSI band follows the HSI"),
    "nothing": (lambda data: np.full_like(data, 0.2), "every MSI band of .* is constant"),
}


@pytest.mark.parametrize("case", STRANGE)
def test_images_that_do_not_belong_together_are_refused(tmp_path, case):
    files = save_pair(tmp_path, memory_scene((24, 24)))
    change, told = STRANGE[case]
    strange = rewritten((files.hsi, files.msi), change)
    with pytest.raises(InputError, match=told):
        open_pair(*strange, srf="sentinel2a", register="off")
    for settings, strict in (("off", True), ("auto", False)):
        how = FuseOptions(srf="sentinel2a", register="off", match_radiometry=settings, psf="assumed")
        if case == "nothing" and strict:
            continue
        with open_pair(*strange, how, strict=strict) as pair:
            assert len(pair.warnings) == 1


def test_a_pair_that_cannot_tell_its_psf_keeps_the_assumed_one_and_says_so(tmp_path):
    files = save_pair(tmp_path, memory_scene((24, 24)))
    strange = rewritten((files.hsi, files.msi), STRANGE["another place"][0])
    with open_pair(*strange, srf="sentinel2a", register="off", strict=False) as pair:
        assert any("too little detail in common" in str(warning) for warning in pair.warnings)
        np.testing.assert_allclose(pair.model.psf.mtf(pair.ratio), 0.3, atol=0.01)
    (tmp_path / "tiny").mkdir()
    tiny = save_pair(tmp_path / "tiny", memory_scene((9, 9)))
    with open_pair(tiny.hsi, tiny.msi, srf="sentinel2a", register="off") as pair:
        assert any("wanted at least 36 to estimate a PSF from" in str(warning) for warning in pair.warnings)
        np.testing.assert_allclose(pair.model.psf.mtf(pair.ratio), 0.3, atol=0.01)


def test_what_is_said_of_the_psf_is_taken_outright(tmp_path):
    files = save_pair(tmp_path, memory_scene((24, 24)))
    for told, mtf in (({"mtf": 0.2}, 0.2), ({"psf": "mtf"}, 0.3), ({"psf": "assumed", "mtf": 0.4}, 0.4)):
        with open_pair(files.hsi, files.msi, srf="sentinel2a", register="off", **told) as pair:
            assert pair.psf is None
            np.testing.assert_allclose(pair.model.psf.mtf(pair.ratio), mtf, atol=0.01)


def test_a_psf_can_be_a_file_of_taps(tmp_path):
    files = save_pair(tmp_path, memory_scene((24, 24)))
    taps = np.outer([1, 3, 1], [1, 2, 1]) / 20
    np.savetxt(tmp_path / "k.csv", taps, delimiter=",")
    np.save(tmp_path / "k.npy", taps)
    for name in ("k.csv", "k.npy"):
        with open_pair(files.hsi, files.msi, srf="sentinel2a", psf=str(tmp_path / name)) as pair:
            np.testing.assert_allclose(pair.model.psf.kernel, taps)
    measured = taps + 1e-5 * np.random.default_rng(0).standard_normal(taps.shape)  # each term would take its time
    np.savetxt(tmp_path / "measured.csv", measured, delimiter=",")
    with open_pair(files.hsi, files.msi, srf="sentinel2a", psf=str(tmp_path / "measured.csv")) as pair:
        assert len(pair.model.psf.separable_terms()) == 1
        np.testing.assert_allclose(pair.model.psf.kernel, taps, atol=1e-4)
    (tmp_path / "words.csv").write_text("what, is\nthis, then\n")
    np.savetxt(tmp_path / "oblong.csv", taps[:2], delimiter=",")
    np.save(tmp_path / "large.npy", np.ones((300, 300), "f4"))
    np.save(tmp_path / "huge.npy", np.ones((2000, 2000), "f8"))
    for name, error, said in (
        ("none.csv", SettingError, "wanted auto, assumed"),
        ("words.csv", InputError, "isn't a table of numbers"),
        ("oblong.csv", SettingError, "wanted square"),
        ("large.npy", InputError, "at most 257 x 257 taps"),
        ("huge.npy", InputError, "at most 257 x 257 taps"),
    ):
        with pytest.raises(error, match=said):
            open_pair(files.hsi, files.msi, srf="sentinel2a", psf=str(tmp_path / name))


def test_one_empty_band_is_left_out_and_told(tmp_path):
    files = save_pair(tmp_path, memory_scene((24, 24)))

    def without_red(data):
        data[2] = 0
        return data

    with open_pair(*rewritten((files.hsi, files.msi), without_red), srf="sentinel2a") as pair:
        assert pair.msi_names == ("B2", "B3", "B8")
        assert [str(told) for told in pair.warnings] == ["MSI bands left out, they are empty: B4"]


def test_wavelengths_of_another_sensor_are_told():
    """Landsat's B8 is panchromatic, Sentinel-2's near infrared."""
    msi = SimpleNamespace(spectrum=Spectrum((492.0, 560.0, 665.0, 833.0)))
    assert not misnamed(msi, range(4), load_srf("sentinel2a"), BANDS)
    (told,) = misnamed(msi, range(4), load_srf("landsat8"), ("B2", "B3", "B4", "B8"))
    assert "B8 at 592 nm for 833 nm" in told.text
    assert not misnamed(SimpleNamespace(spectrum=MSI), range(4), load_srf("landsat8"), ("B2", "B3", "B4", "B8"))


def test_a_pair_says_whether_its_model_fits(tmp_path):
    """Twice: by the PSF that the pair has, and by one that is told and isn't it."""
    files = save_pair(tmp_path, memory_scene((28, 28)))
    for told, fits in ((None, True), (3.5, False)):
        with open_pair(files.hsi, files.msi, replace(PLAIN, psf_sigma=told)) as pair:
            assert pair.sensors is not None
            assert pair.sensors.fits == fits
            loud = [one for one in pair.warnings if getattr(one, "code", "") == "model-misfit"]
            assert [one.values["part"] for one in loud] == ([] if fits else ["PSF"])
            assert pair.sensors.to_dict()["misfit"]["fits"] == fits


def in_parts(msi, parts, by):
    """A MSI (c, H, W) cut into parts x parts, by turns `by` pixels further down and up."""
    rows, cols = (np.arange(n) * parts // n for n in msi.shape[1:])
    return np.where((rows[:, None] + cols) % 2, np.roll(msi, -by, 1), np.roll(msi, by, 1))


@pytest.mark.parametrize("by", [0, 3])
def test_ground_that_is_misplaced_here_and_there_is_warned_of(tmp_path, by):
    """Sixteen parts of the MSI moved by `by` pixels, by turns down and up, which nothing smooth mends."""
    scene = memory_scene((40, 40))
    files = save_pair(tmp_path, scene, msi=in_parts(scene.msi[0].numpy(), 4, by))
    with open_pair(files.hsi, files.msi, replace(PLAIN, mtf=0.3, register="auto")) as pair:
        told = [one.values["pixels"] for one in pair.warnings if getattr(one, "code", "") == "ground-misplaced"]
    assert len(told) == (by > 0)
    assert all(1 < one < 3 for one in told)


def test_an_hsi_whose_pixels_are_repeated_is_warned_of(tmp_path, monkeypatch):
    """As nearest neighbours do on a turned map; of few bands, and of equal ground, it may be chance."""
    files = save_pair(tmp_path, memory_scene((40, 40), 2))

    def told(bands):
        monkeypatch.setattr(checks, "MANY_BANDS", bands)
        with open_pair(files.hsi, files.msi, PLAIN) as pair:
            return [one.text.split(" of")[0] for one in pair.warnings if one.code == "hsi-repeated"]

    assert told(31) == []
    with rasterio.open(files.hsi, "r+") as ds:
        cube = ds.read()
        cube[:, 10:30, 20] = cube[:, 10:30, 21]
        cube[:, :, :5] = 0.2
        ds.write(cube)
    assert told(31) == ["0.7%"]
    assert told(32) == []


def test_ground_that_bends_is_mended_and_said(tmp_path):
    """A quarter moved down, the next one up, over 20 LR pixels; what was done can be done again."""
    scene = memory_scene((40, 40))
    files = save_pair(tmp_path, scene, msi=in_parts(scene.msi[0].numpy(), 2, 2))
    options = replace(PLAIN, mtf=0.3, register="auto")
    with open_pair(files.hsi, files.msi, options) as pair:
        assert pair.warped
        assert pair.motion.distortion is not None
        assert not [one for one in pair.warnings if one.code == "ground-misplaced"]
        assert any("bent beyond that by 0.5" in one.text and "corrected" in one.text for one in pair.notes)
        assert pair.residual.spread < 0.1 < 0.5 < pair.shift.spread
        assert "what bends" in pair.summary()["grid"]
        low = pair.read_lr(Window(0, 0, *pair.lr_shape[::-1])).data
        known = pair.motion
        again = pickle.loads(pickle.dumps(pair))
    with again:
        np.testing.assert_array_equal(again.read_lr(Window(0, 0, *again.lr_shape[::-1])).data, low)
    with open_pair(files.hsi, files.msi, options, known_motion=Motion.of_record(known.record())) as pair:
        np.testing.assert_array_equal(pair.read_lr(Window(0, 0, *pair.lr_shape[::-1])).data, low)
    with open_pair(files.hsi, files.msi, replace(options, register="report")) as pair:
        assert not pair.warped
        assert any("bent beyond that" in one.text for one in pair.notes)


def test_a_stretched_msi_is_made_linear_and_said(tmp_path):
    """As imagery of 8 bits with a gamma; --match-radiometry off leaves it as it is."""
    scene = memory_scene((28, 28))
    stretched = np.round(255 * (scene.msi[0].numpy() / scene.msi.max().item()) ** 0.45)
    files = save_pair(tmp_path, scene, msi=stretched)
    with open_pair(files.hsi, files.msi, replace(PLAIN, mtf=0.3)) as pair:
        assert pair.tone is not None
        assert any("tone curves" in str(one) for one in pair.notes)
        h, w = pair.lr_shape
        found = pair.read_hr(Window(0, 0, w * pair.ratio, h * pair.ratio))
        assert np.median(np.abs(found.data - scene.msi[0].numpy())) < 0.01
        assert "tone" in pair.summary()
    with open_pair(files.hsi, files.msi, replace(PLAIN, mtf=0.3, match_radiometry="off"), strict=False) as pair:
        assert pair.tone is None


def test_tone_curves_are_not_believed_of_a_response_that_is_contradicted(tmp_path, monkeypatch):
    """By the file's own wavelengths or by the pair: of a band, of all by one shift, or of another sensor's."""
    scene = memory_scene((28, 28))
    stretched = np.round(255 * (scene.msi[0].numpy() / scene.msi.max().item()) ** 0.45)
    files = save_pair(tmp_path, scene, msi=stretched)
    with open_pair(files.hsi, files.msi, replace(PLAIN, mtf=0.3)) as pair:
        plain = replace(pair, tone=None)
        assert curved(plain)[1].all()
        told = warning("msi-wavelengths-differ", response="other", bands="B8")
        assert curved(replace(plain, warnings=[told])) is None
        wrong, right = (SimpleNamespace(contradicts=one, misfit=4.0) for one in (True, False))
        for bands, common, left in (([wrong, right, right, right], None, 3), ([right] * 4, "a shift", 0)):
            monkeypatch.setattr("hsfuse.pair.checks.check_bands", lambda *_, found=(bands, common): found)
            assert curved(plain)[1].sum() == left
        monkeypatch.setattr("hsfuse.pair.checks.another_sensor", lambda *_: "another")
        assert curved(plain) is None


def test_a_striped_pair_is_told_and_fused_without(tmp_path):
    scene, noise = memory_scene((48, 48)), 0.004
    files = save_pair(tmp_path, scene)
    rng = np.random.default_rng(0)
    noisy = scene.lrhsi[0].numpy() + noise * rng.standard_normal((31, 48, 48))
    added = 1.5 * noise * rng.standard_normal((31, 1, 48))
    save(files.hsi, noisy + added, files.hsi_grid(), HSI)
    errors = {}
    for how in ("auto", "off"):
        with open_pair(files.hsi, files.msi, srf="sentinel2a", mtf=0.3, destripe=how) as pair:
            assert any(one.code == "stripes-taken-out" for one in pair.notes) == (how == "auto")
            errors[how] = float(np.std(pair.read_lr(Window(0, 0, 48, 48)).data - scene.lrhsi[0].numpy()))
    assert errors["auto"] < 0.85 * errors["off"]  # 31 bands: a third of all directions are the scene's


@pytest.mark.parametrize("which", ["HSI", "MSI", "both"])
def test_rows_from_south_to_north_are_turned_and_nothing_is_resampled(tmp_path, which):
    """As a netCDF often has them; the HSI follows the MSI, whose grid is the output's."""
    made = save_pair(tmp_path, memory_scene((12, 12)))
    images = {"HSI": (made.hsi, made.hsi_grid(), HSI), "MSI": (made.msi, made.hr_grid, MSI)}
    files = dict(zip(images, (made.hsi, made.msi), strict=True))
    for name in images if which == "both" else (which,):
        path, grid, spectrum = images[name]
        with open_cube(path) as reader:
            turned = reader.read().data[:, ::-1]
        files[name] = save(tmp_path / f"south-{name}.tif", turned, grid.turned(), spectrum)
    with (
        open_pair(made.hsi, made.msi, PLAIN) as wanted,
        open_pair(files["HSI"], files["MSI"], PLAIN) as pair,
    ):
        rows = slice(None, None, 1 if which == "HSI" else -1)
        assert (pair.warped, pair.ratio) == (False, wanted.ratio)
        np.testing.assert_array_equal(whole(pair)[0].data, whole(wanted)[0].data[:, rows])
        np.testing.assert_array_equal(whole(pair)[1].data, whole(wanted)[1].data[:, rows])
        told = [note.text for note in pair.notes if "its rows run from" in note.text]
        assert len(told) == (which != "both")
        assert pickle.loads(pickle.dumps(pair.hsi)).grid == pair.hsi.grid


def test_what_is_only_guessed_of_the_numbers_is_no_quantity(tmp_path):
    made = save_pair(tmp_path, memory_scene((12, 12)))
    with open_pair(made.hsi, made.msi, PLAIN) as pair:
        assert (pair.quantity, pair.hsi.quantity) == ("unknown", "reflectance")
    with rasterio.open(made.hsi, "r+") as ds:
        ds.update_tags(HSFUSE_QUANTITY="reflectance")
    with open_pair(made.hsi, made.msi, PLAIN) as pair:
        assert pair.quantity == "reflectance"

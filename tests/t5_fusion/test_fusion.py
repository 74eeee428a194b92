"""The main job from files to a file: place, meaning, masks, tiles, refusals."""

import json
import logging
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
from fusing import read, run
from scenes import BANDS, FWHM_NM, WAVELENGTHS_NM, MemoryScene, memory_scene, save, save_pair

import hsfuse
from hsfuse.core.cube import Spectrum
from hsfuse.core.errors import HsfuseError, InputError, ModelError, OutputError, SettingError
from hsfuse.core.options import FuseOptions
from hsfuse.fusion import fuse
from hsfuse.fusion.fitting import build_method, fit_method
from hsfuse.fusion.storage import storage_scale
from hsfuse.fusion.stream import plan_tiles
from hsfuse.fusion.tiles import TileWorker
from hsfuse.io import open_cube
from hsfuse.methods import make_method
from hsfuse.methods.srlf import SRLF
from hsfuse.pair import open_pair
from hsfuse.pair.sample import sample_scene

QUICK = {"adapt_steps": 2, "adapt_minutes": 60.0}


def rmse(a, b):
    return float(np.sqrt(np.mean((np.asarray(a) - np.asarray(b)) ** 2)))


@pytest.fixture(scope="module")
def fused(files, tmp_path_factory):
    """By glp-reg with the defaults."""
    path = tmp_path_factory.mktemp("fused") / "fused.tif"
    return path, run(files, path)


def test_the_result_is_on_the_msi_s_grid_with_the_hsi_s_bands(files, fused):
    path, result = fused
    cube = read(path)
    assert cube.grid == files.hr_grid
    np.testing.assert_allclose(cube.wavelengths_nm, WAVELENGTHS_NM, atol=1e-3)
    np.testing.assert_allclose(cube.spectrum.fwhm_nm, FWHM_NM, atol=1e-3)
    assert cube.mask.all()
    assert result.shape == cube.data.shape == (31, 72, 60)
    assert result.valid_share == 1
    with rasterio.open(path) as plain, rasterio.open(files.hsi) as hsi:
        assert plain.dtypes == hsi.dtypes == ("int16",) * 31
        assert plain.scales == hsi.scales
        assert plain.nodata == hsi.nodata


def test_it_is_near_the_truth(files, fused, tmp_path):
    run(files, tmp_path / "bicubic.tif", method="bicubic")
    truth = files.scene.truth[0].numpy()
    assert rmse(read(fused[0]).data, truth) < 0.4 * rmse(read(tmp_path / "bicubic.tif").data, truth)


def test_files_in_and_arrays_agree(files, fused):
    """The pipeline adds nothing to the method but rounding to the file's type."""
    scene = files.scene
    with open_cube(files.hsi) as reader:
        lrhsi = torch.from_numpy(reader.read().data)[None]
    whole = MemoryScene(scene.truth, lrhsi, scene.msi, scene.model)
    fuser = make_method("glp-reg").fit(whole.training, scene.model)
    wanted = fuser.predict(lrhsi, scene.msi)[0].clamp_min(0)
    np.testing.assert_allclose(read(fused[0]).data, wanted, atol=1e-4)


def test_the_sensor_needs_no_name_where_file_or_pair_tell_it(files, tmp_path):
    found = {
        name: fuse(files.hsi, files.msi, *given, method="bicubic", dry_run=True, **named)
        for name, given, named in (
            ("by position", ("sentinel2a", tmp_path / "a.tif"), {}),
            ("by name", (), {"output": tmp_path / "a.tif", "srf": "sentinel2a"}),
            ("of options", (), {"output": tmp_path / "a.tif", "options": FuseOptions(srf="sentinel2a")}),
            ("untold", (), {"output": tmp_path / "a.tif"}),
        )
    }
    sensors = {name: one.provenance["inputs"]["SRF"] for name, one in found.items()}
    assert sensors["by position"].startswith("sentinel2a")
    assert sensors["by position"] == sensors["by name"] == sensors["of options"]
    assert any(note.startswith("the MSI's sensor: ") for note in found["untold"].notes)
    assert not any(note.startswith("the MSI's sensor: ") for note in found["of options"].notes)
    with pytest.raises(SettingError, match=r"the output is missing: wanted fuse\(hsi, msi, output=...\)"):
        fuse(files.hsi, files.msi, "sentinel2a")


def test_provenance_is_in_the_file(files, fused):
    path, result = fused
    with open_cube(path) as reader:
        found = json.loads(reader.tags["HSFUSE_PROVENANCE"])
    assert found == json.loads(json.dumps(result.provenance, default=str))
    assert found["hsfuse"] == hsfuse.__version__
    assert found["method"]["method"] == "glp-reg"
    assert found["srf"]["bands"] == list(BANDS)
    assert len(found["srf"]["sha256"]) == 64
    assert (found["scale"], found["settings"]["phase"], found["settings"]["psf"]) == (3, 1, "assumed")
    assert found["psf_kernel"]
    assert str(files.hsi) in found["inputs"]["HSI"]


def test_the_result_explains_itself(fused):
    path, result = fused
    assert str(path) in result.text()
    assert "31 bands, 72 x 60 pixels" in result.text()
    assert "valid pixels: 100.0%" in result.text()
    assert json.loads(json.dumps(result.to_dict(), default=str))["output"] == str(path)
    assert "doesn't reach" not in result.text()
    assert list(result.seconds) == ["estimate", "fit", "fuse"]
    cut = replace(result, provenance=result.provenance | {"unreached": 0.042})
    assert "the HSI doesn't reach 4.2% of the MSI" in cut.text()


@pytest.fixture(scope="module")
def whole(files, tmp_path_factory):
    """By a method, of one tile and as float32: method -> data."""

    @cache
    def made(method):
        place = tmp_path_factory.mktemp("whole") / "whole.tif"
        return read(run(files, place, method=method, dtype="float32", tile=4096).output).data

    return made


@pytest.mark.parametrize(
    ("method", "tile", "overlap"),
    [("glp-reg", 16, 0), ("glp-reg", 32, 7), ("glp-reg", 48, 48), ("glp-ens", 48, 16), ("bicubic", 16, 16)],
)
def test_tiles_leave_no_trace(files, whole, tmp_path, method, tile, overlap):
    """Training-free methods: equal to the whole within a ten-thousandth of the signal's mean."""
    how = {"method": method, "dtype": "float32"}
    tiled = read(run(files, tmp_path / "tiled.tif", **how, tile=tile, overlap=overlap).output).data
    np.testing.assert_allclose(tiled, whole(method), rtol=0, atol=1e-4 * whole(method).mean())


@pytest.mark.parametrize(("tile", "told"), [(16, ["tiles of 15 MSI pixels overlap by 15"]), (32, [])])
def test_tiles_smaller_than_their_overlap_are_told(files, tmp_path, tile, told):
    notes = run(files, tmp_path / "a.tif", tile=tile, dry_run=True).notes
    assert [note.partition(",")[0] for note in notes if "overlap by" in note] == told


def test_negative_values_do_not_show_the_tiles(tmp_path):
    """Negative values stay; raised to zero, a pixel may be as low as its own LR pixel, not as all of the tile."""
    scene = memory_scene((20, 20))
    low = scene.lrhsi - 0.15
    pair = save_pair(tmp_path, MemoryScene(scene.truth, low, scene.msi, scene.model))
    assert (low < 0).any()
    assert (low > 0).any()
    whole = read(run(pair, tmp_path / "whole.tif", dtype="float32", tile=4096).output).data
    tiled = read(run(pair, tmp_path / "tiled.tif", dtype="float32", tile=16, overlap=0).output).data
    np.testing.assert_allclose(tiled, whole, rtol=0, atol=1e-5)
    floor = np.minimum(low[0].numpy(), 0).repeat(3, 1).repeat(3, 2)
    assert (whole < floor - 1e-4).any()
    zeroed = [
        read(run(pair, tmp_path / f"{i}.tif", dtype="float32", clip="zero", **how).output).data
        for i, how in enumerate(({"tile": 4096}, {"tile": 16, "overlap": 0}))
    ]
    np.testing.assert_allclose(*zeroed, rtol=0, atol=1e-5)
    assert (zeroed[0] >= floor - 1e-4).all()


@pytest.fixture(scope="module")
def correcting(files):
    """The pair opened, and SRLF-Net fitted to it with random refinement that is fully trusted."""
    with open_pair(files.hsi, files.msi, srf="sentinel2a") as pair:
        settings = FuseOptions(srf="sentinel2a", base="glp-reg", adapt="off", ensemble=1)
        fuser = fit_method(build_method(settings, pair), pair, sample_scene(pair), "cpu")
        assert isinstance(fuser, SRLF)
        torch.manual_seed(0)
        torch.nn.init.normal_(fuser.net.refine.weight, std=0.02)
        fuser.share = torch.ones_like(fuser.share)
        yield pair, fuser


def fused_tile(pair, fuser, rows, cols):
    work = TileWorker(pair, fuser)
    return work.fuse([work.read(rows, cols)])[0].finish()[0]


def test_srlf_tiles_differ_by_a_fraction_of_the_correction(correcting):
    """Scans and the choice of points reach across tiles: half a tile more of context moves the result by less than a
    quarter of what the network adds to its base."""
    pair, fuser = correcting
    truth = None
    for tile in (4096, 48):
        tiles = plan_tiles(pair, fuser.requirements.halo, tile, 0)
        rows, cols = tiles.spans(0)[0], tiles.spans(1)[0]
        data = fused_tile(pair, fuser, rows, cols)[:, :48, :48]
        if truth is None:
            truth = data
            share, fuser.share = fuser.share, torch.zeros_like(fuser.share)
            base = fused_tile(pair, fuser, rows, cols)[:, :48, :48]
            fuser.share = share
    correction = rmse(truth, base)
    assert correction > 1e-3
    assert rmse(data, truth) < 0.25 * correction


@pytest.mark.parametrize(("s", "lr_shape"), [(2, (20, 24)), (4, (14, 16))])
def test_the_default_method_end_to_end(tmp_path, s, lr_shape):
    pair = save_pair(tmp_path, memory_scene(lr_shape, s, seed=2))
    result = run(pair, tmp_path / "fused.tif", method="srlf", ensemble=1, **QUICK)
    cube = read(result.output)
    assert cube.grid == pair.hr_grid
    method = result.provenance["method"]
    assert (method["method"], method["base"]) == ("srlf", "blend")
    assert method["weights"] == ""
    assert result.provenance["weights_sha256"] is None
    assert method["adaptation"] in result.text()
    log = result.provenance["adaptation"]
    if s == 2:
        assert log["steps"][0] == 0
        assert len(log["held_out"]) == len(log["steps"])
    else:  # too few cells of three LR pixels of the reduced pair to train on some and judge on others
        assert not log["steps"]
        assert "too small" in method["adaptation"]
    assert np.isfinite(cube.data).all()
    assert rmse(cube.data, pair.scene.truth[0]) < 0.05


def test_masks_are_carried(tmp_path):
    """A masked LR pixel blanks its block, an MSI pixel with NaN itself, and their neighbours stay sane."""
    scene = memory_scene()
    lr_mask = np.ones((24, 20), bool)
    lr_mask[4, 5] = lr_mask[20:, :3] = False
    msi = scene.msi[0].numpy().copy()
    msi[2, 40, 33] = np.nan
    msi[0, 50, 7] = np.inf
    pair = save_pair(tmp_path, scene, lr_mask, msi)
    wanted = lr_mask.repeat(3, 0).repeat(3, 1)
    wanted[40, 33] = wanted[50, 7] = False
    for tile in (16, 4096):
        result = run(pair, tmp_path / f"{tile}.tif", tile=tile)
        cube = read(result.output)
        np.testing.assert_array_equal(cube.mask, wanted)
        assert result.valid_share == pytest.approx(wanted.mean())
        assert rmse(cube.data[:, wanted], scene.truth[0].numpy()[:, wanted]) < 0.05
        with rasterio.open(result.output) as plain:
            raw = plain.read()
            assert (raw[:, ~wanted] == plain.nodata).all()
            assert (raw[:, wanted] != plain.nodata).all()


def test_nan_and_inf_are_counted_once_and_said_aloud(tmp_path, caplog):
    scene = memory_scene()
    msi = scene.msi[0].numpy().copy()
    msi[2, 40, 33] = np.nan
    msi[:, 50, 7] = np.inf
    pair = save_pair(tmp_path, scene, msi=msi)
    low = scene.lrhsi[0].numpy().copy()
    low[3:9, 2, 2] = np.nan
    with rasterio.open(
        pair.hsi, "w", driver="GTiff", count=31, height=24, width=20, dtype="float32", crs="EPSG:32633",
        transform=pair.hsi_grid().transform,
    ) as ds:  # fmt: skip
        ds.write(low)
        for i, nm in enumerate(WAVELENGTHS_NM, start=1):
            ds.update_tags(i, ns="IMAGERY", CENTRAL_WAVELENGTH_UM=str(nm / 1000))
    with open_cube(pair.msi) as reader:
        reader.read()
        in_msi = reader.nonfinite  # the writer may have stored NaN as nodata, which isn't counted
    with caplog.at_level(logging.WARNING, "hsfuse"):
        result = run(pair, tmp_path / "fused.tif", tile=16)
    said = [note for note in result.notes if "NaN or Inf" in note]
    assert "1 pixel of the HSI holds NaN or Inf and is masked" in said
    assert len(said) == 1 + bool(in_msi)
    assert said[0] in caplog.text
    assert not read(result.output).mask[6:9, 6:9].any()


def test_only_the_common_extent_is_fused(tmp_path):
    """An MSI that starts inside the HSI and ends beyond it."""
    scene = memory_scene((24, 20))
    pair = save_pair(tmp_path, scene)
    cut = pair.hr_grid.crop(4, 0, (68, 50))  # row 4 is inside LR row 1: whole LR rows 2 to 23, columns 0 to 15 remain
    save(pair.msi, scene.msi[0].numpy()[:, 4:, :50], cut, Spectrum(None, None, BANDS))
    result = run(pair, tmp_path / "fused.tif")
    cube = read(result.output)
    assert cube.grid == pair.hr_grid.crop(6, 0, (66, 48))
    assert rmse(cube.data, scene.truth[0].numpy()[:, 6:, :48]) < 0.03


def test_bands_without_data_are_left_out(tmp_path):
    scene = memory_scene()
    pair = save_pair(tmp_path, scene)
    good = tuple(i not in (3, 30) for i in range(31))
    spectrum = Spectrum(tuple(WAVELENGTHS_NM), tuple(FWHM_NM), None, good)
    save(pair.hsi, scene.lrhsi[0].numpy(), pair.hsi_grid(), spectrum)
    result = run(pair, tmp_path / "fused.tif")
    np.testing.assert_allclose(read(result.output).wavelengths_nm, WAVELENGTHS_NM[list(good)], atol=1e-3)
    nm = " nm, ".join(f"{WAVELENGTHS_NM[i]:.0f}" for i in (3, 30))
    assert f"HSI bands that are marked bad or empty take no part: 2 of 31 ({nm} nm)" in result.notes


def test_bands_of_one_value_are_named_once(tmp_path):
    scene = memory_scene()
    pair = save_pair(tmp_path, scene)
    cube = scene.lrhsi[0].numpy().copy()
    cube[[2, 29]], cube[20] = 0.3, 0
    save(pair.hsi, cube, pair.hsi_grid(), Spectrum(tuple(WAVELENGTHS_NM), tuple(FWHM_NM)))
    result = run(pair, tmp_path / "fused.tif")
    told = [note for note in result.notes if "of one value all over" in note]
    assert len(told) == 1
    assert "nothing of the ground: band 3 (0.3), band 30 (0.3); fused as they are" in told[0]
    assert f"take no part: 1 of 31 ({WAVELENGTHS_NM[20]:.0f} nm)" in " ".join(result.notes)


def test_msi_bands_that_the_hsi_does_not_cover_are_left_out(tmp_path):
    scene = memory_scene()
    msi = np.concatenate([scene.msi[0].numpy(), scene.msi[0, :1].numpy()])
    pair = save_pair(tmp_path, scene)
    save(pair.msi, msi, pair.hr_grid, Spectrum(None, None, (*BANDS, "B11")))
    result = run(pair, tmp_path / "fused.tif")
    assert result.provenance["srf"]["bands"] == list(BANDS)
    assert any("B11 (0% covered)" in note for note in result.notes)
    assert f"MSI bands by description: {', '.join(BANDS)}." in result.notes  # those that are used


@pytest.mark.parametrize("dtype", ["float32", "uint16", "int16"])
def test_types_on_disk(files, fused, tmp_path, dtype):
    result = run(files, tmp_path / "fused.tif", dtype=dtype)
    with rasterio.open(result.output) as plain:
        assert set(plain.dtypes) == {dtype}
    np.testing.assert_allclose(read(result.output).data, read(fused[0]).data, atol=1.01e-4)


def test_storage_scale_keeps_integers_fine_enough(files, tmp_path):
    float_pair = save_pair(tmp_path, files.scene)
    save(float_pair.hsi, files.scene.lrhsi[0].numpy(), float_pair.hsi_grid(), Spectrum(tuple(WAVELENGTHS_NM)))
    for pair, wanted in (
        (files, {"int16": 1e-4, "uint16": 1e-4, "float32": 1}),
        (float_pair, {"int16": 1e-4, "float32": 1}),
    ):
        with open_pair(pair.hsi, pair.msi, srf="sentinel2a") as opened:
            found = {dtype: storage_scale(opened, FuseOptions(dtype=dtype))[0] for dtype in wanted}
            assert found == pytest.approx(wanted)


@pytest.mark.parametrize("name", ["fused.dat", "fused.img"])
def test_envi(files, fused, tmp_path, name):
    result = run(files, tmp_path / name)
    assert sorted(p.suffix for p in tmp_path.iterdir()) == sorted([".hdr", Path(name).suffix])
    cube = read(result.output)
    assert cube.grid.transform.almost_equals(files.hr_grid.transform)
    assert cube.grid.crs == files.hr_grid.crs
    np.testing.assert_allclose(cube.wavelengths_nm, WAVELENGTHS_NM, atol=1e-3)
    np.testing.assert_allclose(cube.data, read(fused[0]).data, atol=1e-6)


def test_dry_run_says_and_writes_nothing(files, tmp_path):
    result = run(files, tmp_path / "fused.tif", dry_run=True, method="srlf")
    assert not list(tmp_path.iterdir())
    assert "(dry run)" in result.text()
    assert "ratio 3" in result.text()
    assert result.shape == (31, 72, 60)
    assert json.loads(json.dumps(result.to_dict(), default=str))["dry_run"] is True


def test_existing_outputs_are_kept_unless_told(files, fused, tmp_path):
    path = tmp_path / "fused.tif"
    path.write_text("mine")
    for dry in (False, True):  # a dry run stops where the run would
        with pytest.raises(OutputError, match="exists already"):
            run(files, path, dry_run=dry)
        assert path.read_text() == "mine"
    run(files, path, overwrite=True)
    np.testing.assert_array_equal(read(path).data, read(fused[0]).data)


def test_inputs_are_never_overwritten(tmp_path):
    pair = save_pair(tmp_path, memory_scene((8, 8)))
    before = {p: p.read_bytes() for p in tmp_path.iterdir()}
    for target in (pair.hsi, pair.msi, tmp_path / ".." / tmp_path.name / "msi.tif"):
        with pytest.raises(OutputError, match="is the input"):
            run(pair, target, overwrite=True)
    link = tmp_path / "link.tif"
    link.symlink_to(pair.msi)
    with pytest.raises(OutputError, match="is the input"):
        run(pair, link, overwrite=True)
    link.unlink()
    with pytest.raises(OutputError, match="is the input"):
        run(pair, tmp_path / "out.tif", method="srlf", save_model=pair.hsi, overwrite=True, **QUICK)
    assert {p: p.read_bytes() for p in tmp_path.iterdir()} == before


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError, InputError("the file went away")])
def test_what_stops_it_leaves_nothing(files, tmp_path, monkeypatch, error):
    calls = []

    def stop(*arguments):
        calls.append(1)
        if len(calls) == 3:
            raise error
        return fuse_tile(*arguments)

    fuse_tile = TileWorker.fuse
    monkeypatch.setattr(TileWorker, "fuse", stop)
    with pytest.raises(error if isinstance(error, type) else type(error)):
        run(files, tmp_path / "fused.tif", tile=16)
    assert len(calls) == 3
    assert not list(tmp_path.iterdir())


def test_overwriting_keeps_the_old_file_until_the_new_one_is_whole(files, tmp_path, monkeypatch):
    path = tmp_path / "fused.tif"
    path.write_text("old")

    def stop(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(TileWorker, "fuse", stop)
    with pytest.raises(KeyboardInterrupt):
        run(files, path, overwrite=True)
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["fused.tif"]


def test_where_no_network_has_a_part_none_is_made_ready(files, tmp_path, monkeypatch):
    """Numba, which compiles the scan, takes .6 s to load."""
    monkeypatch.setattr("hsfuse.nets.scan.choose_backend", lambda *_: pytest.fail("a scan was made ready"))
    assert run(files, tmp_path / "a.tif", method="srlf").provenance["scan"] is None


def test_a_saved_model_gives_the_same_cube(tmp_path, one_stage):
    """Adapted once from the weak base so that there is something to keep; loaded and not adapted any more."""
    pair = save_pair(tmp_path, memory_scene((24, 24), 2))
    model = tmp_path / "own.safetensors"
    how = {"method": "srlf", "base": "bicubic", "ensemble": 1, "dtype": "float32"}
    first = run(pair, tmp_path / "a.tif", **how, **{**QUICK, "adapt_steps": 12}, save_model=str(model))
    assert "of its correction used" in first.provenance["method"]["adaptation"]
    second = run(pair, tmp_path / "b.tif", **how, **{**QUICK, "adapt_steps": 0}, model=str(model))
    assert second.provenance["method"]["weights"].startswith("own (")
    np.testing.assert_allclose(read(second.output).data, read(first.output).data, rtol=0, atol=1e-5)


def test_a_saved_model_is_refused_where_it_does_not_fit(files, tmp_path, one_stage):
    pair = save_pair(tmp_path, memory_scene((16, 16), 2))
    how = {"method": "srlf", "base": "glp-reg", "ensemble": 1, **QUICK}
    run(pair, tmp_path / "a.tif", **how, save_model=tmp_path / "m.safetensors")
    with pytest.raises(ModelError, match="scale: weights 2, scene 3"):
        run(files, tmp_path / "b.tif", **how, model=tmp_path / "m.safetensors")
    assert not (tmp_path / "b.tif").exists()


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({"save_model": "/nowhere/m.safetensors", "method": "srlf"}, OutputError, "folder /nowhere doesn't exist"),
        ({"save_model": "m.safetensors"}, SettingError, "the method is glp-reg"),
        ({"model": "/nowhere/m.safetensors", "method": "srlf"}, ModelError, "no such checkpoint"),
        ({"nonsense": 1}, SettingError, "fuse has no option 'nonsense'"),
        ({"method": "magic"}, SettingError, "no method 'magic'"),
        ({"method": "srlf", "base": "magic"}, SettingError, "no base 'magic'"),
        ({"tile": 8}, SettingError, "--tile is 8, wanted at least 12 MSI pixels"),
        ({"tile": 0}, SettingError, "tile is 0, wanted a whole number of at least 1"),
        ({"overlap": -1}, SettingError, "overlap is -1, wanted a whole number of at least 0"),
        ({"mtf": 1.5}, SettingError, "mtf is 1.5, wanted a number between 0 and 1"),
        ({"psf_sigma": -1.0}, SettingError, "sigma is -1"),
        ({"phase": 7.0}, SettingError, "phase is 7, wanted 0 to 2"),
        ({"phase": 0.3}, SettingError, "can't be centred"),
        ({"dtype": "complex64"}, SettingError, "complex64"),
        ({"device": "abacus"}, SettingError, "abacus"),
        ({"format": "PNG"}, SettingError, "unknown format 'PNG'"),
        ({"msi_bands": ("B2", "B9")}, SettingError, "names B9, which the MSI doesn't have"),
    ],
)
def test_settings_that_make_no_sense_are_told(files, tmp_path, options, error, said):
    with pytest.raises(error, match=said) as caught:
        run(files, tmp_path / "fused.tif", **options)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_a_type_that_cannot_be_written_is_told_before_the_work(tmp_path):
    pair = save_pair(tmp_path, memory_scene((8, 8)))
    low = (pair.scene.lrhsi[0].numpy() * 1e4).astype(np.int64)
    with rasterio.open(
        pair.hsi, "w", driver="GTiff", count=31, height=8, width=8, dtype="int64", crs="EPSG:32633",
        transform=pair.hsi_grid().transform,
    ) as ds:  # fmt: skip
        ds.write(low)
        for i, nm in enumerate(WAVELENGTHS_NM, start=1):
            ds.update_tags(i, ns="IMAGERY", CENTRAL_WAVELENGTH_UM=str(nm / 1000))
    with pytest.raises(SettingError, match="can't have the type int64; choose one with --dtype"):
        run(pair, tmp_path / "fused.tif", dry_run=True)
    settled = read(run(pair, tmp_path / "fused.tif", dtype="float32").output).data  # the MSI is reflectance
    assert 0.5 < settled.max() < 2


def test_too_few_valid_pixels(tmp_path):
    lr_mask = np.zeros((24, 20), bool)
    lr_mask[3:6, 3:8] = True
    pair = save_pair(tmp_path, memory_scene(), lr_mask)
    with pytest.raises(InputError, match="only 15 pixels are valid in both"):
        run(pair, tmp_path / "fused.tif")


def test_all_options_of_the_function_reach_the_run(files, tmp_path):
    result = run(files, tmp_path / "f.tif", mtf=0.2, tile=48, overlap=6, seed=5, msi_bands=("B2", "-", "B4", "B8"))
    settings = result.provenance
    assert settings["settings"]["mtf"] == 0.2
    assert settings["seed"] == 5
    assert (settings["tiles"]["stride"], settings["tiles"]["overlap"]) == (48, 6)
    assert settings["srf"]["bands"] == ["B2", "B4", "B8"]


def test_the_lazy_name_is_the_function():
    assert hsfuse.fuse is fuse
    assert issubclass(OutputError, HsfuseError)

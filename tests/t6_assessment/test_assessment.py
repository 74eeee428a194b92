"""Assessment: a perfect cube is perfect, tiles and masked values have no influence, misfits are refused."""

import json
import os
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest
import torch
from affine import Affine
from assessed_scene import GRID, SCALE, WAVELENGTHS_NM, Scene, make_scene, write, write_cube
from rasterio.windows import Window
from scenes import mixture

from benchmarks.told.pairs import Off, write_pair
from hsfuse import metrics
from hsfuse.assessment import Assessment, assess, check, comparison, explain, parse_limits, text_table
from hsfuse.assessment.checks import checks, overall, unchecked, untested
from hsfuse.assessment.composites import composites
from hsfuse.assessment.findings import TURNS, strange_reference
from hsfuse.assessment.indices import IndexSums
from hsfuse.assessment.inputs import Inputs
from hsfuse.assessment.passes import MOST_POINTS, SPECTRA_BYTES, BlockMeans, choose_points, point_grid, points_for
from hsfuse.assessment.result import Expected
from hsfuse.core.cube import Spectrum
from hsfuse.core.errors import GridError, InputError, SettingError
from hsfuse.core.grid import Grid
from hsfuse.core.notes import records, warning
from hsfuse.fusion import fuse
from hsfuse.io import open_cube
from hsfuse.io.finished import file_print, made_from
from hsfuse.metrics import CATALOGUE, psnr, sam_degrees, uiqi
from hsfuse.physics import load_srf
from hsfuse.physics.srf_bands import blind_ranges


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    return make_scene(tmp_path_factory.mktemp("scene"))


@pytest.fixture(scope="module")
def flawed(scene):
    """A cube with errors everywhere, more in some bands and places than in others, which is also flawed.tif."""
    rng = np.random.default_rng(1)
    cube = scene.truth * (1 + 0.1 * rng.standard_normal(scene.truth.shape)).astype(np.float32)
    write_cube(scene.path("flawed.tif"), cube)
    return cube


@pytest.fixture(scope="module")
def perfect(scene):
    """Of the truth itself."""
    return assess(scene.path("truth.tif"), reference=scene.path("truth.tif"), **scene.observed, window=8)


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """A scene on which shifts can be measured."""
    return make_scene(tmp_path_factory.mktemp("large"), 120)


@pytest.fixture(scope="module")
def right(large):
    """Of the truth of the large scene."""
    return assess(large.path("truth.tif"), reference=large.path("truth.tif"), **large.observed, window=8)


def figures(a):
    return {key: value for key, value in a.metrics.items() if value is not None}


def test_a_perfect_cube_is_perfect(perfect):
    a = perfect
    assert a.metrics["psnr"] == np.inf
    assert a.metrics["sam"] == pytest.approx(0, abs=1e-3)
    assert a.metrics["ergas"] == pytest.approx(0, abs=1e-6)
    assert a.metrics["hsi_rmse"] == pytest.approx(0, abs=1e-6)
    assert a.metrics["msi_rmse"] == pytest.approx(0, abs=1e-6)
    assert a.metrics["d_s"] == pytest.approx(0, abs=1e-4)
    assert not [w for w in a.warnings if "give the" in w.text or "radiometry" in w.text]


def test_figures_are_those_of_the_plain_functions(scene, flawed):
    a = assess(scene.path("flawed.tif"), reference=scene.path("truth.tif"), window=8)
    assert a.metrics["psnr"] == pytest.approx(psnr(flawed, scene.truth, 1.0))
    assert a.metrics["sam"] == pytest.approx(sam_degrees(flawed, scene.truth))
    assert a.metrics["uiqi"] == pytest.approx(uiqi(flawed, scene.truth, 8))
    assert a.metrics["ergas"] is None
    assert any("--ratio" in note.text for note in a.notes)
    known = assess(scene.path("flawed.tif"), reference=scene.path("truth.tif"), window=8, ratio=SCALE)
    assert known.metrics["ergas"] > 0


@pytest.fixture(scope="module")
def assessed(scene, flawed):
    """Of the flawed cube by one tile or others."""

    def by(tile):
        files = dict(reference=scene.path("truth.tif"), **scene.observed, window=8)
        return assess(scene.path("flawed.tif"), **files, tile=tile)

    return cache(by)


@pytest.mark.parametrize("tile", [8, 20])
def test_tiles_do_not_change_the_figures(assessed, tile):
    whole, parts = assessed(48), assessed(tile)
    assert figures(parts) == pytest.approx(figures(whole), rel=1e-5)
    for a, b in zip(whole.maps, parts.maps, strict=True):
        np.testing.assert_allclose(a.values, b.values, rtol=1e-4, atol=1e-6)
    for image, values in whole.spectra.values.items():
        np.testing.assert_array_equal(values, parts.spectra.values[image])  # pixels as they are in the files


def test_masked_values_have_no_influence(scene, flawed):
    mask = np.ones(GRID.shape, bool)
    mask[10:13, 30:40] = False
    found = []
    for wrong in (0.2, 1e6, np.nan):
        write_cube(scene.path("holes.tif"), np.where(mask, flawed, wrong), mask)
        found.append(assess(scene.path("holes.tif"), reference=scene.path("truth.tif"), **scene.observed, window=8))
    assert figures(found[0]) == figures(found[1]) == figures(found[2])
    assert found[0].valid_pixels == mask.sum()
    assert "masked" in found[0].warnings[0].text
    truth = np.where(mask, scene.truth, np.nan)
    write_cube(scene.path("holes.tif"), truth, mask)
    a = assess(scene.path("holes.tif"), **scene.observed, window=8)
    assert a.metrics["hsi_rmse"] < 1e-3


def test_a_subset_of_bands_is_assessed_on_them(scene):
    bands = [i for i, nm in enumerate(WAVELENGTHS_NM) if nm < 760]
    write(scene.path("subset.tif"), scene.truth[bands], GRID, Spectrum(tuple(WAVELENGTHS_NM[bands])))
    a = assess(scene.path("subset.tif"), reference=scene.path("truth.tif"), **scene.observed, window=8)
    assert a.shape[0] == len(bands)
    assert a.metrics["hsi_rmse"] == pytest.approx(0, abs=1e-6)
    assert a.metrics["sam"] == pytest.approx(0, abs=1e-3)
    assert a.response.bands == ("B2", "B3", "B4")


def test_another_grid_is_refused(scene):
    moved = Grid(GRID.shape, GRID.transform.translation(5, 0) @ GRID.transform, GRID.crs)
    write(scene.path("moved.tif"), scene.truth, moved, Spectrum(tuple(WAVELENGTHS_NM)))
    with pytest.raises(GridError, match="whole pixels"):
        assess(scene.path("moved.tif"), reference=scene.path("truth.tif"))
    with pytest.raises(GridError, match="whole pixels"):
        assess(scene.path("moved.tif"), **scene.observed)
    with pytest.raises(GridError, match="another grid"):
        assess(scene.path("truth.tif"), reference=scene.path("hsi.tif"))


def test_rows_from_south_to_north_are_turned(tmp_path, scene, flawed):
    path, wanted = str(tmp_path / "south.tif"), scene.path("truth.tif")
    write(path, scene.truth[:, ::-1], GRID.turned(), Spectrum(tuple(WAVELENGTHS_NM)))
    north = assess(scene.path("flawed.tif"), reference=wanted, window=8)
    turned = assess(scene.path("flawed.tif"), reference=path, window=8)
    assert turned.metrics == north.metrics
    assert any("its rows run from south to north" in one.text for one in turned.notes)
    assert assess(path, reference=wanted, window=8).metrics["rmse"] == 0
    assert assess(path, reference=path, window=8).metrics["rmse"] == 0


def test_a_larger_reference_is_cut_to_the_cube(scene, flawed):
    part = flawed[:, 8:40, 4:44]
    write(scene.path("part.tif"), part, GRID.crop(8, 4, (32, 40)), Spectrum(tuple(WAVELENGTHS_NM)))
    a = assess(scene.path("part.tif"), reference=scene.path("truth.tif"), window=8)
    assert a.metrics["psnr"] == pytest.approx(psnr(part, scene.truth[:, 8:40, 4:44], 1.0))


@pytest.mark.parametrize("factor", [1, 1e6])  # reflectance, whose peak is known, and numbers whose peak is looked for
def test_a_reference_without_a_valid_pixel_there_is_refused(tmp_path, flawed, factor):
    write(
        tmp_path / "part.tif",
        factor * flawed[:, 8:40, 4:44],
        GRID.crop(8, 4, (32, 40)),
        Spectrum(tuple(WAVELENGTHS_NM)),
    )
    truth = factor * flawed
    truth[:, 8:40, 4:44] = np.nan
    for reference in (truth, np.full_like(truth, np.nan)):
        path = tmp_path / f"{np.isnan(reference).all()}.tif"
        write_cube(path, reference)
        with pytest.raises(InputError, match=rf"the reference {path} has no valid pixel"):
            assess(tmp_path / "part.tif", reference=path, window=8)
    truth[:, 8, 4] = factor * flawed[:, 8, 4]
    write_cube(tmp_path / "one.tif", truth)
    assert assess(tmp_path / "part.tif", reference=tmp_path / "one.tif", window=8).metrics["rmse"] == 0


def test_other_bands_are_refused(scene):
    write(scene.path("bands.tif"), scene.truth, GRID, Spectrum(tuple(WAVELENGTHS_NM + 8)))
    with pytest.raises(InputError, match="other bands"):
        assess(scene.path("bands.tif"), reference=scene.path("truth.tif"))


def test_files_without_wavelengths_go_by_band_order(scene):
    write(scene.path("plain.tif"), scene.truth, GRID, Spectrum(None, None, tuple(f"b{i}" for i in range(24))))
    a = assess(scene.path("plain.tif"), reference=scene.path("plain.tif"))
    assert not a.has_wavelengths
    assert a.curves[0].wavelengths_nm[-1] == 24
    b = assess(scene.path("plain.tif"), **scene.observed, window=8)
    assert b.has_wavelengths
    assert b.metrics["hsi_rmse"] < 1e-6
    with pytest.raises(InputError, match="not both have wavelengths"):
        assess(scene.path("plain.tif"), reference=scene.path("msi.tif"))


def test_an_empty_band_is_told(scene):
    empty = scene.truth.copy()
    empty[3] = 0
    write_cube(scene.path("empty.tif"), empty)
    a = assess(scene.path("empty.tif"), reference=scene.path("truth.tif"))
    assert a.shape[0] == WAVELENGTHS_NM.size - 1
    assert "1 band of the fused cube is marked" in a.warnings[0].text


def test_nothing_to_compare_with_is_refused(scene):
    with pytest.raises(SettingError, match="nothing to hold"):
        assess(scene.path("truth.tif"))
    with pytest.raises(SettingError, match="--msi is missing"):
        assess(scene.path("truth.tif"), hsi=scene.path("hsi.tif"), srf=scene.path("s.csv"))


def test_recorded_settings_are_used_and_told(scene):
    used = {"srf": scene.path("s.csv"), "psf_sigma": 3.0, "phase": 1.5}
    record = {"settings": used, "srf": {"name": "s"}, "scale": SCALE, "adaptation": {"train_loss": [float("nan")]}}
    write_cube(scene.path("told.tif"), scene.truth, provenance=json.dumps(record))
    files = {"hsi": scene.path("hsi.tif"), "msi": scene.path("msi.tif")}
    a = assess(scene.path("told.tif"), **files, window=8)
    assert "sigma 3" in a.settings["observation"]
    assert any("psf_sigma 3," in note.text for note in a.notes)
    assert json.dumps(a.to_dict(), allow_nan=False)
    b = assess(scene.path("told.tif"), **files, mtf=0.3, window=8)
    assert b.metrics["hsi_rmse"] < 1e-6 < a.metrics["hsi_rmse"]


@pytest.mark.parametrize("same", [True, False])
def test_what_a_fused_file_records_of_its_images_is_not_said_of_others(scene, same):
    made = [scene.path(name) for name in ("hsi.tif", "msi.tif")]
    inputs = [[Path(file).name, *file_print(Path(file))[1:]] for file in made]
    inputs[1][0] = "msi.tif" if same else "another.tif"
    inputs[1][2] -= not same
    told = warning("ground-changed", share=0.1, where="")
    record = {"input_files": inputs, "records": records([told]), "sensors": {"psf": {"how": "told", "label": "then"}}}
    write_cube(scene.path("told.tif"), scene.truth, provenance=json.dumps(record))
    found = assess(scene.path("told.tif"), **scene.observed, window=8)
    assert [one.code for one in found.pair_warnings] == (["ground-changed"] if same else [])
    assert (found.sensors["psf"]["label"] == "then") == same
    assert [one.values["images"] for one in found.notes if one.code == "other-images"] == ([] if same else ["MSI"])


@pytest.mark.parametrize(("method", "uses"), [("bicubic", False), ("sfim", True)])
def test_a_method_without_the_msi_is_told_nothing_of_its_detail(scene, tmp_path, method, uses):
    made = fuse(**scene.observed, output=tmp_path / "a.tif", method=method)
    found = assess(tmp_path / "a.tif", **scene.observed, window=8)
    codes = [{one.code for one in told} for told in (made.records, found.warnings)]
    assert ["unseen" in each for each in codes] == [uses] * 2
    assert ("msi-unused" in codes[0]) != uses
    assert not {"inconsistent"} & codes[1]
    checked = {check.topic: check for check in found.checks}
    assert ("Inferred bands" in checked) == ("Radiometry" in checked) == uses
    assert ("is no sharper than the LRHSI" in checked["Agreement with the MSI"].text) != uses
    assert bool(untested(found)) == uses


@pytest.mark.parametrize("image", ["hsi", "msi"])
def test_masked_pixels_are_told_with_the_image_that_masks_them(tmp_path, image):
    files = make_scene(tmp_path).observed
    with open_cube(files[image]) as reader:
        cube = reader.read()
    mask = np.ones(cube.mask.shape, bool)
    mask[: mask.shape[0] // 4] = False
    write(files[image], cube.data, cube.grid, cube.spectrum, mask)
    made = fuse(**files, output=tmp_path / "fused.tif", method="bicubic")
    assert f"valid pixels: 75.0% of the fused cube (masked: 25.0% in the {image.upper()})" in made.text()
    found = assess(tmp_path / "fused.tif", **files, window=8)
    told = next(check.text for check in found.checks if check.code == "masked")
    assert told.startswith(f"25.0% of the pixels are masked or nodata (25.0% in the {image.upper()}).")


def test_files_are_those_that_a_cube_was_made_from_when_moved_or_copied(tmp_path):
    (tmp_path / "a").mkdir()
    file, cube = tmp_path / "a" / "msi.tif", tmp_path / "fused.tif"
    file.write_text("pixels")
    record = {"input_files": [["a/msi.tif", *file_print(file)[1:]]]}
    assert made_from(record, cube, [file])
    assert made_from(record, tmp_path / "elsewhere" / "fused.tif", [file]), "the cube alone was moved"
    os.utime(file, (1, 1))
    assert made_from(record, cube, [file]), "a copy of all"
    assert not made_from(record, tmp_path / "elsewhere" / "fused.tif", [file])
    file.write_text("other pixels")
    assert not made_from(record, cube, [file])
    assert made_from({}, cube, [file]), "a file of another tool"


def test_peak_is_the_maximum_where_data_are_not_reflectance(scene):
    write_cube(scene.path("counts.tif"), scene.truth * 1e6)
    a = assess(scene.path("counts.tif"), reference=scene.path("counts.tif"))
    assert a.settings["peak"].startswith(f"{scene.truth.max() * 1e6:g} (the reference's maximum)")


@pytest.mark.parametrize("settings", [
    {"peak": 0.0}, {"peak": -1.0}, {"peak": float("nan")}, {"peak": float("inf")}, {"ratio": 0}, {"ratio": -4},
    {"tile": 0},
])  # fmt: skip
def test_settings_that_make_no_sense_are_refused(scene, settings):
    with pytest.raises(SettingError, match=f"the {next(iter(settings))} is .*, wanted a positive number"):
        assess(scene.path("truth.tif"), reference=scene.path("truth.tif"), **settings)


def test_a_response_that_is_not_the_one_it_was_fused_with_is_told(tmp_path):
    scene = make_scene(tmp_path)
    fuse(**scene.observed, output=scene.path("f.tif"), method="glp-reg")

    def told():
        found = assess(scene.path("f.tif"), hsi=scene.path("hsi.tif"), msi=scene.path("msi.tif"))
        return any("another spectral response" in warning.text for warning in found.warnings)

    assert not told()
    table = tmp_path / "s.csv"
    header, *rows = table.read_text().splitlines()
    table.write_text("\n".join([header, *(row.replace(",0.", ",0.9", 1) for row in rows)]))
    assert told()


def test_another_gain_of_the_msi_is_told(scene):
    write_cube(scene.path("bright.tif"), scene.truth * 1.2)
    a = assess(scene.path("bright.tif"), **scene.observed, window=8)
    assert any("B2 -17%" in w.text for w in a.warnings)
    assert sum("give the" in w.text for w in a.warnings) == 2


def test_a_wrong_phase_shows_as_inconsistency_and_as_shift(large, right):
    wrong = assess(large.path("truth.tif"), **large.observed, phase=0.5, window=8)
    assert right.shift_px == pytest.approx((0, 0), abs=0.02)
    # The model looks one MSI pixel further up and left, so what it sees lies further down and right.
    assert wrong.shift_px == pytest.approx((1, 1), abs=0.1)
    assert wrong.metrics["hsi_rmse"] > 1e-3 > right.metrics["hsi_rmse"]
    assert any("down" in w.text and "right" in w.text for w in wrong.warnings if "shifted" in w.text)
    assert not any("shifted" in w.text for w in right.warnings)


def test_the_pair_lies_where_the_fused_file_records(scene):
    """An LRHSI whose georeference is one of its pixels off, as the fusion corrected it: not found anew."""
    with open_cube(scene.path("hsi.tif")) as low:
        grid, lrhsi = low.grid, low.read().data
    off = Grid(grid.shape, grid.transform @ Affine.translation(1, 0), grid.crs)
    write(scene.path("off.tif"), lrhsi, off, Spectrum(tuple(WAVELENGTHS_NM)))
    files = {**scene.observed, "hsi": scene.path("off.tif")}
    known = {"settings": {"register": "auto"}, "registration": {"corrected": True, "motion": [1, 0, SCALE, 0, 1, 0]}}
    write_cube(scene.path("told.tif"), scene.truth, provenance=json.dumps(known))
    assert assess(scene.path("told.tif"), **files, window=8).metrics["hsi_rmse"] == pytest.approx(0, abs=1e-6)
    with pytest.raises(GridError, match=r"begins .* columns off it and isn't the common extent"):
        assess(scene.path("truth.tif"), **files, window=8)


def test_rows_run_as_the_msis(scene, perfect):
    """A cube whose rows run from south to north beside an MSI whose rows don't."""
    write(scene.path("turned.tif"), scene.truth[:, ::-1], GRID.turned(), Spectrum(tuple(WAVELENGTHS_NM)))
    a = assess(scene.path("turned.tif"), **scene.observed, window=8)
    assert a.metrics["hsi_rmse"] == pytest.approx(perfect.metrics["hsi_rmse"], abs=1e-6)
    assert any("south to north" in one.text for one in a.notes)


def test_a_cube_off_the_msis_grid_is_told_before_anything_is_estimated(scene, monkeypatch):
    monkeypatch.setattr("hsfuse.assessment.inputs.open_pair", None)
    half = Grid(GRID.shape, GRID.transform @ Affine.translation(0.5, 0), GRID.crs)
    write(scene.path("half.tif"), scene.truth, half, Spectrum(tuple(WAVELENGTHS_NM)))
    with pytest.raises(GridError, match=r"column 0.50 of .*msi.tif .*wanted whole pixels"):
        assess(scene.path("half.tif"), **scene.observed, window=8)


def test_indices_are_compared(scene):
    red = np.abs(WAVELENGTHS_NM - 665).argmin()
    flawed = scene.truth.copy()
    flawed[red] *= 0.5
    nir = np.abs(WAVELENGTHS_NM - 842).argmin()
    flawed[nir, 0, 0] = -0.9 * flawed[red, 0, 0]  # would give an NDVI of -19
    write_cube(scene.path("halved.tif"), flawed)
    a = assess(scene.path("halved.tif"), reference=scene.path("truth.tif"))
    found = {c.name: c for c in a.indices}
    known = np.arange(GRID.shape[0] * GRID.shape[1]) > 0
    pairs = ((scene.truth, nir), (scene.truth, red), (flawed, red))
    n, r, wrong = (cube[b].ravel()[known].astype(float) for cube, b in pairs)
    ndvi = [(n - wrong) / (n + wrong), (n - r) / (n + r)]
    assert found["NDVI"].bias == pytest.approx((ndvi[0] - ndvi[1]).mean())
    assert found["NDVI"].rmse == pytest.approx(np.sqrt(((ndvi[0] - ndvi[1]) ** 2).mean()))
    assert found["NDRE"].rmse == 0
    assert "NDMI" not in found


def test_dict_is_plain_json(perfect):
    text = json.dumps(perfect.to_dict(), allow_nan=False)
    assert json.loads(text)["metrics"]["psnr"] == "inf"
    assert len(json.loads(text)["curves"]["rmse"]["values"]) == WAVELENGTHS_NM.size


def test_tables_mark_the_best_and_limits_fail(scene: Scene, flawed):
    pair = [assess(scene.path(f), reference=scene.path("truth.tif"), window=8) for f in ("flawed.tif", "truth.tif")]
    assert "inf*" in text_table(pair)
    assert "**inf**" in comparison(pair, "markdown")
    header, first = comparison(pair, "csv").splitlines()[:2]
    assert header == "metric,unit,direction,flawed.tif,truth.tif"
    assert float(first.split(",")[3]) == pair[0].metrics["psnr"]
    failures = check(pair, parse_limits("psnr=60,sam=1"))
    assert [f.split(" is ")[0] for f in failures] == [f"{scene.path('flawed.tif')}: {k}" for k in ("psnr", "sam")]
    assert check(pair[:1], {"qnr": 0.5})[0].endswith("qnr is undefined, wanted at least 0.5")
    with pytest.raises(SettingError, match="psnrr"):
        parse_limits("psnrr=1")
    assert all(f"{key}: " in explain() for key in CATALOGUE)


def test_block_means_do_not_depend_on_tiles():
    image, valid = np.random.default_rng(0).random((2, 37, 53)), np.random.default_rng(1).random((37, 53)) > 0.2
    whole, parts = BlockMeans(2, (37, 53), 10), BlockMeans(2, (37, 53), 10)
    whole.add(0, 0, image, valid)
    for row in range(0, 37, 8):
        for col in range(0, 53, 7):
            parts.add(row, col, image[:, row : row + 8, col : col + 7], valid[row : row + 8, col : col + 7])
    np.testing.assert_allclose(whole.mean(), parts.mean(), rtol=1e-6)
    expected = image[0, :6, :6][valid[:6, :6]].mean()
    assert whole.step == 6
    assert whole.mean()[0, 0, 0] == pytest.approx(expected)


def test_points_lie_inside_and_represent_all_kinds():
    for count, step in ((8, 4), (375, 4), (2000, 1), (6000, 1), (9999, 1)):
        rows, cols = point_grid((20, 300), 4, count)
        assert rows.max() < 20
        assert cols.max() < 300
        assert 0.4 * min(count, 6000) < rows.size <= count
        assert np.isin(rows % 4, (2,) if step == 4 else range(4)).all()
    assert rows.size == 20 * 300  # all there are
    assert point_grid((1, 1), 1, 1)[0].tolist() == [0]
    assert points_for(604) * 604 * 2 * 4 / 3 <= SPECTRA_BYTES
    assert (points_for(0), points_for(10**9)) == (MOST_POINTS, 1)
    spectra = np.repeat(np.eye(3), [5, 3, 2], axis=0)
    spectra[0] = np.nan
    assert {int(np.argmax(spectra[i])) for i in choose_points(spectra, 3)} == {0, 1, 2}
    assert choose_points(np.full((4, 3), np.nan)) == ()


def test_blind_ranges_are_those_without_weight():
    nm = np.arange(400.0, 1000, 20)
    srf = np.where((nm > 450) & (nm < 600), 1.0, 0.0)[None]
    assert blind_ranges(nm, srf) == [(400.0, 440.0), (600.0, 980.0)]


def verdicts(a):
    return {check.topic: check.verdict for check in a.checks}


@pytest.mark.parametrize("how", TURNS)
def test_a_turned_reference_is_told_with_the_way_that_fits(flawed, how):
    turned = flawed[::8]
    for _ in range(3 if "90 " in how or "270" in how else 1):  # the turn that undoes it
        turned = TURNS[how](turned)
    (told,) = strange_reference(flawed[::8], turned, 1)
    assert (told.code, told.values["how"]) == ("reference-turned", how)


@pytest.mark.parametrize(("down", "right"), [(1, 0), (-3, 5), (0, -7)])
def test_a_moved_reference_is_told_with_the_way_that_fits(flawed, down, right):
    a, b = flawed[::8, 8:40, 8:40], flawed[::8, 8 + down : 40 + down, 8 + right : 40 + right]
    (told,) = strange_reference(a, b, 2)
    assert told.values["how"] == f"moved by {2 * down:+d} rows and {2 * right:+d} columns"


def test_what_is_like_its_reference_or_has_nothing_to_see_is_not_warned_of(flawed):
    seen = np.where(np.arange(48) < 20, np.nan, flawed[::8])
    assert strange_reference(flawed[::8], seen, 1) == []
    assert strange_reference(flawed[::8], np.ones_like(seen), 1) == []
    assert strange_reference(np.full_like(seen, np.nan), seen, 1) == []
    noise = np.random.default_rng(3).random(seen.shape)
    assert [told.code for told in strange_reference(noise, seen, 1)] == ["reference-unlike"]


def test_assess_warns_of_a_reference_upside_down(scene, flawed):
    write_cube(scene.path("turned.tif"), scene.truth[:, ::-1])
    a = assess(scene.path("flawed.tif"), reference=scene.path("turned.tif"), window=8)
    assert [told.values.get("how") for told in a.warnings] == ["turned upside down"]


def test_checks_speak_for_a_true_cube_and_against_a_wrong_one(large, right):
    assert set(verdicts(right).values()) == {"good"}
    grid = Grid((120, 120), GRID.transform, GRID.crs)
    write(large.path("wrong.tif"), np.roll(1.3 * large.truth, 7, axis=1), grid, Spectrum(tuple(WAVELENGTHS_NM)))
    wrong = assess(large.path("wrong.tif"), reference=large.path("truth.tif"), **large.observed, window=8)
    found = verdicts(wrong)
    for topic in ("Agreement with the truth", "Agreement with the LRHSI", "Agreement with the MSI"):
        assert found[topic] == "poor"
    assert found["Position"] == "good"  # that of the inputs
    assert overall(wrong.checks).startswith("Don't rely on this cube")
    assert f"values are {wrong.metrics['hsi_relative_rmse']:.0%} off the LRHSI's" in overall(wrong.checks)
    assert json.loads(json.dumps(wrong.to_dict()))["checks"][0]["verdict"] == "poor"


def test_checks_without_a_truth_say_so(scene):
    a = assess(scene.path("truth.tif"), **scene.observed, window=8)
    assert untested(a).startswith("Its fine detail was held against no truth: ")
    assert "0.25" in untested(replace(a, expected=Expected(0.25)))
    assert not any("truth" in check.text for check in a.checks)
    assert [topic for topic, verdict in verdicts(a).items() if verdict != "good"] == ["Inferred bands"]
    assert overall(tuple(c for c in a.checks if c.verdict == "good")).startswith(
        "Nothing that was checked speaks against"
    )
    assert untested(assess(scene.path("truth.tif"), reference=scene.path("truth.tif"))) == ""
    assert overall(()) == "Nothing was checked."


def test_the_recorded_response_tells_inferred_bands_without_the_msi(scene):
    truth, response = scene.path("truth.tif"), load_srf("sentinel2a")
    record = {"name": "sentinel2a", "sha256": response.sha256, "bands": ["B2", "B3", "B4", "B8"]}
    found = {}
    for name, srf in (("library", record), ("another", record | {"sha256": "0"}), ("none", None)):
        write_cube(scene.path("told.tif"), scene.truth, provenance=json.dumps({"srf": srf}))
        found[name] = assess(scene.path("told.tif"), reference=truth, window=8)
    assert found["library"].response.bands == ("B2", "B3", "B4", "B8")
    assert "Inferred bands" in verdicts(found["library"])
    assert unchecked(found["library"]).endswith("--msi: agreement with the two images, position, radiometry.")
    for name in ("another", "none"):
        assert "Inferred bands" not in verdicts(found[name])
        assert unchecked(found[name]).endswith("radiometry, inferred bands.")
    assert unchecked(assess(truth, **scene.observed, window=8)) == ""


def test_what_the_network_gained_is_a_check(scene):
    for gain, verdict, said in (
        (0.2, "good", "20% below"),
        (-0.1, "look", "10% above that of the base"),
        (0.0, None, ""),  # not used, or never trained: the cube is the base's
        (-0.006, None, ""),  # no more than parts of a scene differ from the whole
    ):
        a = Assessment("f.tif", (3, 9, 9), {}, provenance={"adaptation": {"gain": gain}}, valid_pixels=81)
        found = {check.topic: check for check in checks(a)}
        assert (found["Gain over the base"].verdict if verdict else found.get("Gain over the base")) == verdict
        assert not verdict or said in found["Gain over the base"].text


def quality_raster(path, expected, name="expected error (RMS over the bands in reflectance)"):
    write(path, np.stack([np.zeros(GRID.shape), expected]), GRID, Spectrum(None, None, ("other", name)))


@pytest.mark.parametrize("tile", [None, 20])
def test_expected_error_is_held_against_the_real_one(scene, flawed, tile):
    files = {"reference": scene.path("truth.tif"), "qa": scene.path("qa.tif"), "tile": tile}
    real = metrics.rmse_map(flawed, scene.truth)
    quality_raster(scene.path("qa.tif"), 2 * real**2)
    a = assess(scene.path("flawed.tif"), **files)
    assert a.expected.rank_correlation == pytest.approx(1)
    assert a.expected.mean == pytest.approx(float((2 * real**2).mean()), rel=1e-4)
    assert a.expected.found == pytest.approx(float(real.mean()), rel=1e-4)
    assert [m.name for m in a.maps] == ["rmse", "expected_error", "sam"]
    assert verdicts(a)["Expected error"] == "good"


def test_expected_error_that_lies_elsewhere_or_nowhere_is_no_good(scene, flawed):
    files = {"reference": scene.path("truth.tif"), "qa": scene.path("qa.tif")}
    quality_raster(scene.path("qa.tif"), -metrics.rmse_map(flawed, scene.truth))
    assert verdicts(assess(scene.path("flawed.tif"), **files))["Expected error"] == "look"
    quality_raster(scene.path("qa.tif"), np.full(GRID.shape, 0.1))
    assert assess(scene.path("flawed.tif"), **files).expected.rank_correlation is None


def test_expected_error_without_a_reference_is_shown(scene):
    quality_raster(scene.path("qa.tif"), np.full(GRID.shape, 0.25))
    a = assess(scene.path("truth.tif"), **scene.observed, qa=scene.path("qa.tif"), window=8)
    assert a.expected.mean == 0.25
    assert a.expected.found is None


def test_a_raster_without_expected_error_is_refused(scene):
    quality_raster(scene.path("qa.tif"), np.zeros(GRID.shape), "depth")
    with pytest.raises(InputError, match="no band 'expected error'"):
        assess(scene.path("truth.tif"), reference=scene.path("truth.tif"), qa=scene.path("qa.tif"))


def bright_msi(scene, path):
    """The MSI with a gain and an offset a band."""
    msi = simulated_msi(scene)
    gain = np.array([0.7, 0.8, 1.0, 1.2], np.float32)[:, None, None]
    write(path, gain * msi.data + np.float32(0.02), msi.grid, msi.spectrum)


def simulated_msi(scene):
    with open_cube(scene.path("msi.tif"), role="raster") as reader:
        return reader.read(Window(0, 0, *reader.grid.shape[::-1]))


def test_what_the_fusion_did_to_its_inputs_is_done_again(large):
    scene = large
    bright_msi(scene, scene.path("bright.tif"))
    files = {"hsi": scene.path("hsi.tif"), "msi": scene.path("bright.tif"), "srf": scene.path("s.csv"), "window": 8}
    plain = assess(scene.path("truth.tif"), **files)
    assert plain.radiometry == ()
    assert plain.metrics["msi_relative_rmse"] > 0.05
    assert plain.msi_gains["B8"] > 1.1
    assert "not corrected" in next(check.text for check in plain.checks if check.topic == "Radiometry")
    record = json.dumps({"settings": {"match_radiometry": "auto", "register": "auto"}})
    grid = Grid((120, 120), GRID.transform, GRID.crs)
    write(scene.path("told.tif"), scene.truth, grid, Spectrum(tuple(WAVELENGTHS_NM)), provenance=record)
    matched = assess(scene.path("told.tif"), **files)
    assert matched.metrics["msi_relative_rmse"] < 0.01
    assert [b.gain for b in matched.radiometry] == pytest.approx([0.7, 0.8, 1.0, 1.2], abs=0.03)
    told = next(check for check in matched.checks if check.topic == "Radiometry")
    assert told.verdict == "good"  # nothing of it is left
    assert told.text.endswith("once gain and offset are taken out: by up to -30% (MSI band B2) before.")


@pytest.mark.parametrize("given", [{}, {"srf": "auto"}])
def test_a_response_that_the_pair_told_is_the_one_that_the_cube_was_fused_with(tmp_path, monkeypatch, given):
    """It isn't estimated again, by images that are moved and blurred otherwise than they were then."""
    nm, cube = np.linspace(420, 980, 31), np.moveaxis(mixture((96, 96), 3), 0, 2)
    pair, out = write_pair(cube, nm, 4, Off(srf_shift=8.0), tmp_path), tmp_path / "fused.tif"
    made = fuse(pair.hsi, pair.msi, "auto", out, method="bicubic", tile=64)
    assert made.provenance["srf"]["name"] == "estimated"
    monkeypatch.setattr("hsfuse.pair.open.estimate_scene", lambda *_, **__: pytest.fail("estimated again"))
    found = assess(out, hsi=pair.hsi, msi=pair.msi, **given)
    then = np.array([*made.provenance["srf"]["response"]["curves"].values()])
    now = found.response.weights
    assert now / now.max(1, keepdims=True) == pytest.approx(then, abs=1e-6)


def test_a_sensor_that_the_pair_told_is_the_one_that_the_cube_was_fused_with(scene, monkeypatch):
    record = {"name": "sentinel2a", "sha256": load_srf("sentinel2a").sha256, "bands": ["B2", "B3", "B4", "B8"]}
    provenance = json.dumps({"settings": {"srf": "auto"}, "srf": record})
    write_cube(scene.path("auto.tif"), scene.truth, provenance=provenance)
    files = {**scene.observed, "srf": None, "window": 8}
    assert assess(scene.path("auto.tif"), **files).response.name == "sentinel2a"
    record["sha256"] = "of another version"
    write_cube(
        scene.path("other.tif"), scene.truth, provenance=json.dumps({"settings": {"srf": "auto"}, "srf": record})
    )
    assert assess(scene.path("other.tif"), **files).response.name == "estimated"


def test_an_msi_of_several_files_is_one_msi(scene, perfect):
    msi = simulated_msi(scene)
    for i, band in enumerate(msi.spectrum.names):
        write(scene.path(f"{band}.tif"), msi.data[i : i + 1], msi.grid, msi.spectrum.select([i]))
    several = [scene.path(f"{band}.tif") for band in msi.spectrum.names]
    found = figures(assess(scene.path("truth.tif"), **{**scene.observed, "msi": several}, window=8))
    assert len(found) > 5
    assert found == pytest.approx({key: perfect.metrics[key] for key in found}, rel=1e-6)


def test_an_lrhsi_off_the_grid_is_assessed_as_it_was_fused(tmp_path):
    """The LRHSI turned by a degree: fusion warps it, and the assessment with it."""
    scene = make_scene(tmp_path, 80)
    with open_cube(scene.path("hsi.tif"), role="raster") as reader:
        cube = reader.read(Window(0, 0, *reader.grid.shape[::-1]))
    turned = Grid(cube.grid.shape, cube.grid.transform @ Affine.rotation(1.0), cube.grid.crs)
    write(scene.path("turned.tif"), cube.data, turned, cube.spectrum)
    files = {"hsi": scene.path("turned.tif"), "msi": scene.path("msi.tif")}
    fuse(**files, srf=scene.path("s.csv"), output=scene.path("fused.tif"), method="bicubic", register="off")
    a = assess(scene.path("fused.tif"), **files, window=8)
    fuse(**scene.observed, output=scene.path("straight.tif"), method="bicubic", register="off")
    straight = assess(scene.path("straight.tif"), **scene.observed, window=8)
    assert a.metrics["hsi_relative_rmse"] < 1.2 * straight.metrics["hsi_relative_rmse"]
    assert any("resampled" in str(told) for told in a.inputs.values())


def test_indices_by_hand():
    """Red edge by four points: half the rise from 0.1 to 0.5 is reached 15 nm above 700; a ratio; no red edge."""
    nm = np.array([670.0, 700, 740, 780, 842, 665])
    one = np.array([0.1, 0.15, 0.55, 0.5, 0.5, 0.1])[:, None, None]
    sums = IndexSums(nm, "reference")
    sums.add(one, one, np.ones((1, 1), bool))
    found = {check.name: check.mean for check in sums.result()}
    assert found["red edge, nm"] == pytest.approx(715)
    assert found["SR"] == pytest.approx(5)
    flat = IndexSums(nm, "reference")
    flat.add(np.full_like(one, 0.2), one, np.ones((1, 1), bool))
    assert "red edge, nm" not in {check.name for check in flat.result()}


def test_a_ratio_by_what_is_mostly_noise_does_not_count():
    """Land of 0.3 / 0.2 beside water, where noise of 0.002 about 0.002 divides: the ratio is that of the land."""
    nm = np.array([842.0, 665, 1650, 2210, 1610, 560])
    rng = np.random.default_rng(0)
    land = np.broadcast_to(np.array([0.3, 0.2, 0.3, 0.2, 0.3, 0.1])[:, None, None], (6, 1, 50))
    water = np.abs(rng.normal(0.002, 0.002, (6, 1, 150)))
    water[5] = 0.05
    truth = np.concatenate([land, water], axis=2)
    for least, clay in ((0.01, pytest.approx(1.5)), (0.0, None)):
        sums = IndexSums(nm, "reference", least)
        sums.add(truth, truth, np.ones((1, 200), bool))
        found = {check.name: check for check in sums.result()}
        assert (found["clay ratio"].mean == clay) == (clay is not None)
        assert found["clay ratio"].share == pytest.approx(0.25 if least else 1, abs=0.01)
        assert found["NDWI"].share > 0.99  # green makes its denominator large enough


@pytest.mark.parametrize("centres", [(590.0,), (550.0, 840.0)])
def test_an_msi_without_a_picture_of_its_own_is_grey_beside_each(centres):
    nm = np.linspace(400, 1000, 61)
    response = torch.tensor([[float(abs(one - centre) < 5) for one in nm] for centre in centres]).double()
    inputs = SimpleNamespace(
        wavelengths_nm=nm, observed=SimpleNamespace(model=SimpleNamespace(srf=response)), reference=None
    )
    found = composites(cast(Inputs, inputs))
    assert list(found["fused"]) == ["true colour", "near infrared"]
    assert found["MSI"] == {"true colour": (0, 0, 0), "near infrared": (0, 0, 0)}
    assert found["LRHSI"] == found["fused"]


def test_without_an_msi_band_in_use_there_is_no_picture_of_it():
    nm = np.linspace(400, 1000, 61)
    model = SimpleNamespace(srf=torch.zeros(0, 61, dtype=torch.float64))
    inputs = SimpleNamespace(wavelengths_nm=nm, observed=SimpleNamespace(model=model), reference=None)
    assert composites(cast(Inputs, inputs))["MSI"] == {}


def test_bands_of_noise_say_nothing_against_a_cube(tmp_path):
    cube = np.moveaxis(mixture((96, 96), 3), 0, 2)
    files = write_pair(cube, np.linspace(420.0, 980.0, 31), 4, Off(loud="40:noise"), tmp_path)
    fuse(files.hsi, files.msi, str(files.srf), tmp_path / "fused.tif", method="glp-reg", psf="assumed")
    found = assess(tmp_path / "fused.tif", hsi=files.hsi, msi=files.msi, srf=str(files.srf))
    assert found.lrhsi_misfit < 0.05 < 0.09 < found.metrics["hsi_relative_rmse"]
    (check,) = [one for one in found.checks if one.topic == "Agreement with the LRHSI"]
    assert check.verdict != "poor"
    assert "with bands of noise, by" in check.text
    assert not [one for one in found.notes if one.code == "inconsistent" and one.values["image"] == "LRHSI"]

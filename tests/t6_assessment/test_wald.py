"""Wald's protocol: what it gives is what degrading, fusing and comparing by hand gives, in strips of any height."""

import json
import logging
from dataclasses import replace

import numpy as np
import pytest
import torch
from assessed_scene import CENTRES_NM, GRID, SCALE, WAVELENGTHS_NM, make_scene, write, write_cube
from rasterio.windows import Window

import hsfuse.assessment.wald
import hsfuse.physics.degrade
from hsfuse.assessment import AssessSettings, assess, check, comparison, text_table
from hsfuse.assessment.report import render_report
from hsfuse.assessment.table import column_names, columns, number, rows
from hsfuse.assessment.wald import as_fused, assess_reduced, assess_wald
from hsfuse.core.cube import Spectrum
from hsfuse.core.errors import SettingError
from hsfuse.core.grid import Grid
from hsfuse.core.options import FuseOptions
from hsfuse.fusion import fuse
from hsfuse.io import open_cube
from hsfuse.pair import open_pair

SIDE = 96


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    """A scene with a cube fused by SFIM."""
    made = make_scene(tmp_path_factory.mktemp("scene"), SIDE)
    fuse(**made.observed, output=made.path("fused.tif"), method="sfim", mtf=0.2, match_radiometry="off")
    return made


def files(scene):
    return {"hsi": scene.path("hsi.tif"), "msi": scene.path("msi.tif")}


def read_all(path):
    with open_cube(path, role="raster") as reader:
        return reader.read(Window(0, 0, *reader.grid.shape[::-1]))


@pytest.fixture(scope="module")
def reduced(scene):
    return assess_reduced(scene.path("fused.tif"), **files(scene), settings=AssessSettings(window=4))


def test_figures_are_those_of_the_steps_by_hand(scene, reduced, tmp_path):
    with open_pair(scene.path("hsi.tif"), scene.path("msi.tif"), srf=scene.path("s.csv"), mtf=0.2) as pair:
        model = pair.model
    low, high = read_all(scene.path("hsi.tif")), read_all(scene.path("msi.tif"))
    lrhsi, msi = (model.spatial(torch.from_numpy(c.data)[None].double())[0].float().numpy() for c in (low, high))
    write(tmp_path / "l.tif", lrhsi, low.grid.coarsen(SCALE), Spectrum(tuple(WAVELENGTHS_NM)))
    write(tmp_path / "m.tif", msi, low.grid, Spectrum(None, None, tuple(CENTRES_NM)))
    srf = scene.path("s.csv")
    fuse(tmp_path / "l.tif", tmp_path / "m.tif", srf, tmp_path / "f.tif", method="sfim", mtf=0.2, register="off",
         match_radiometry="off")  # fmt: skip
    by_hand = assess(tmp_path / "f.tif", reference=scene.path("hsi.tif"), hsi=tmp_path / "l.tif",
                     msi=tmp_path / "m.tif", window=4)  # fmt: skip
    for key, value in by_hand.metrics.items():
        assert reduced.metrics[key] == pytest.approx(value, rel=1e-4, abs=1e-6), key
    assert reduced.metrics["psnr"] > 20


def test_strips_leave_no_trace(scene, reduced, monkeypatch):
    monkeypatch.setattr(hsfuse.physics.degrade, "VALUES_AT_ONCE", 1)  # rows one by one
    found = assess_reduced(scene.path("fused.tif"), **files(scene), settings=AssessSettings(window=4))
    assert found.metrics == pytest.approx(reduced.metrics, rel=1e-6)


def test_a_border_that_is_no_whole_pixel_is_left_out(tmp_path):
    scene = make_scene(tmp_path, SIDE + 2 * SCALE)  # 26 LR pixels: 24 of them are 6 degraded ones
    fuse(**scene.observed, output=scene.path("fused.tif"), method="bicubic")
    assert assess_reduced(scene.path("fused.tif"), **files(scene)).shape == (WAVELENGTHS_NM.size, 24, 24)


def test_masked_pixels_stay_out(scene, tmp_path):
    low = read_all(scene.path("hsi.tif"))
    mask = np.ones(low.grid.shape, bool)
    mask[4:9, 15:20] = False
    found = []
    for wrong in (0.2, 1e6):
        write(tmp_path / "hsi.tif", np.where(mask, low.data, wrong), low.grid, low.spectrum, mask)
        where = {"hsi": tmp_path / "hsi.tif", "msi": scene.path("msi.tif")}
        found.append(assess_reduced(scene.path("fused.tif"), **where))
    assert found[0].metrics == found[1].metrics
    assert found[0].valid_pixels < 24 * 24


def test_both_resolutions_are_put_side_by_side(scene):
    a = assess_wald(scene.path("fused.tif"), **files(scene), window=4)
    assert columns([a]) == [a, a.reduced]
    assert column_names([a]) == ["fused.tif", "fused.tif, reduced"]
    lines = text_table([a]).splitlines()
    assert "fused.tif, reduced" in lines[0]
    assert lines[1].split()[:2] == ["psnr", "↑"]
    assert comparison([a], "csv").splitlines()[0] == 'metric,unit,direction,fused.tif,"fused.tif, reduced"'
    told = json.loads(json.dumps(a.to_dict(), allow_nan=False))
    assert told["reduced"]["metrics"]["psnr"] == a.reduced.metrics["psnr"]
    page = render_report([a])
    assert "fused.tif, reduced" in page
    assert "At reduced resolution" in page


def test_the_best_is_sought_at_each_resolution(scene):
    a = assess_wald(scene.path("fused.tif"), **files(scene), window=4)
    (one,) = rows([a], ["hsi_rmse"])
    assert one.best == frozenset()
    (two,) = rows([a, a], ["hsi_rmse"])
    assert two.best == {0, 1, 2, 3}
    assert two.delta(2) is None


def test_limits_hold_at_reduced_resolution_where_there_is_no_reference(scene):
    a = assess_wald(scene.path("fused.tif"), **files(scene), window=4)
    assert check([a], {"psnr": a.reduced.metrics["psnr"] - 1}) == []
    assert f"psnr is {number(a.reduced.metrics['psnr'])}," in check([a], {"psnr": a.reduced.metrics["psnr"] + 1})[0]
    assert f"hsi_rmse is {number(a.metrics['hsi_rmse'])}, wanted at most 0" in check([a], {"hsi_rmse": 0.0})[0]


def test_recorded_settings_are_used_again():
    scene = FuseOptions(srf="sentinel2")
    record = {
        "method": "srlf",
        "base": "glp",
        "tile": 64,
        "ensemble": 2,
        "model": None,
        "adapt": {"steps": 7, "new": 1},
    }
    settings, words = as_fused({"fusing": record, "method": {"method": "gsa"}}, scene)
    assert (settings.method, settings.base, settings.tile, settings.ensemble) == ("srlf", "glp", 64, 2)
    assert settings.adapt_steps == 7
    assert words == []
    settings, words = as_fused({"method": {"method": "gsa"}}, scene)
    assert settings.method == "gsa"
    settings, words = as_fused({}, scene)
    assert "doesn't record" in words[0].text


def test_the_degraded_pair_needs_neither_product_nor_correction(scene):
    with open_pair(scene.path("hsi.tif"), scene.path("msi.tif"), srf=scene.path("s.csv")) as pair:
        same = hsfuse.assessment.wald._same(
            FuseOptions(srf="auto", mtf=0.2), pair, scene.path("psf.csv"), scene.path("s.csv")
        )
    assert (same.srf, same.msi_bands) == (str(scene.path("s.csv")), pair.msi_names)
    assert (same.mtf, same.psf) == (None, str(scene.path("psf.csv")))
    assert (same.register, same.match_radiometry) == ("off", "off")


def test_a_cube_of_another_tool_says_whose_figures_these_are(scene, monkeypatch):
    fuse = hsfuse.assessment.wald.run_fusion
    monkeypatch.setattr(
        hsfuse.assessment.wald, "run_fusion", lambda *files: fuse(*files[:3], replace(files[3], method="bicubic"))
    )
    write(scene.path("other.tif"), scene.truth, Grid((SIDE, SIDE), GRID.transform, GRID.crs),
          Spectrum(tuple(WAVELENGTHS_NM)))  # fmt: skip
    a = assess_reduced(scene.path("other.tif"), **files(scene), settings=AssessSettings({"srf": scene.path("s.csv")}))
    assert any("doesn't record" in w.text for w in a.warnings)


def test_nothing_is_said_of_the_temporary_files(scene, monkeypatch, caplog):
    """What their fusion warns of is a warning about the cube at full resolution already; it was printed twice."""
    fuse = hsfuse.assessment.wald.run_fusion

    def loud(*files):
        logging.getLogger("hsfuse.fusion.run").warning("twice")
        logging.getLogger("hsfuse.methods.srlf").info("of another scene")
        return fuse(*files)

    monkeypatch.setattr(hsfuse.assessment.wald, "run_fusion", loud)
    caplog.set_level(logging.INFO)
    a = assess_reduced(scene.path("fused.tif"), **files(scene))
    assert not {"twice", "of another scene"} & {record.message for record in caplog.records}
    assert not any("say what its numbers are" in one.text for one in a.notes)
    logging.getLogger("hsfuse.fusion.run").warning("heard again")
    assert "heard again" in caplog.text


def test_what_is_missing_or_too_small_is_refused(scene, tmp_path):
    with pytest.raises(SettingError, match="--msi is missing"):
        assess_wald(scene.path("fused.tif"), hsi=scene.path("hsi.tif"))
    small = make_scene(tmp_path)
    write_cube(small.path("fused.tif"), small.truth, provenance=json.dumps({"settings": {"srf": small.path("s.csv")}}))
    with pytest.raises(SettingError, match="too few to be degraded by 4 again"):
        assess_reduced(small.path("fused.tif"), **files(small))

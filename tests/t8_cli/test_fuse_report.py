"""The report that `fuse` writes beside its cube: made when it is missing, and without what the MSI can't tell."""

from __future__ import annotations

import os

import pytest
from scenes import memory_scene, save_pair

from hsfuse.assessment import assess
from hsfuse.cli.fuse import fuse_and_report
from hsfuse.core.notes import warning
from hsfuse.core.options import FuseOptions


def test_a_report_that_is_missing_is_made_for_what_is_done(files, tmp_path):
    settings = FuseOptions(srf="sentinel2a", method="glp-reg", resume=True)
    out, report = tmp_path / "a.tif", tmp_path / "a.html"
    for wanted in (False, True, True):
        if wanted:
            report.unlink(missing_ok=True)
        assert fuse_and_report(files.hsi, files.msi, out, settings, report).done == wanted
        assert report.exists()
    os.utime(report, ns=(1, 1))  # of an output that was there before
    fuse_and_report(files.hsi, files.msi, out, settings, report)
    written = report.stat().st_mtime_ns
    assert written > out.stat().st_mtime_ns
    assert fuse_and_report(files.hsi, files.msi, out, settings, report).done
    assert report.stat().st_mtime_ns == written
    out.write_bytes(out.read_bytes()[:-100])  # both are made again
    assert not fuse_and_report(files.hsi, files.msi, out, settings, report).done
    assert report.stat().st_mtime_ns > written


def test_bands_that_no_msi_band_sees_have_a_report_without_the_msi(files, tmp_path):
    settings = FuseOptions(srf="sentinel2a", method="glp-reg", bands="700-790nm")
    fuse_and_report(files.hsi, files.msi, tmp_path / "a.tif", settings, tmp_path / "r.html")
    assert "<svg" in (tmp_path / "r.html").read_text(encoding="utf-8")
    found = assess(tmp_path / "a.tif", hsi=files.hsi, msi=files.msi)
    assert any("no MSI band lies within the fused cube's wavelengths" in str(note) for note in found.notes)
    assert found.metrics["hsi_relative_rmse"] < 0.1
    assert not [key for key in found.metrics if key.startswith("msi_") or key in ("d_s", "qnr", "hqnr")]
    assert not [note for note in found.notes if "undefined" in str(note)]


def test_what_no_msi_band_sees_is_said_once(tmp_path, caplog):
    """A response that is estimated from the pair is estimated anew for the report, and differs by a little."""
    pair = save_pair(tmp_path, memory_scene((16, 16)))
    settings = FuseOptions(srf="sentinel2a", method="glp-reg")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("hsfuse.assessment.findings.unseen", lambda nm, weights: [warning("unseen", ranges="1 to 2 nm")])
        result = fuse_and_report(pair.hsi, pair.msi, tmp_path / "a.tif", settings, tmp_path / "r.html")
    assert len([line for line in result.warnings if line.startswith("No MSI band sees")]) == 1
    assert caplog.text.count("No MSI band sees") == 1


def test_a_quality_raster_without_expected_errors_is_assessed_without_them(tmp_path):
    pair = save_pair(tmp_path, memory_scene((9, 9)))  # too small to learn its error
    settings = FuseOptions(srf="sentinel2a", method="glp-reg", qa=tmp_path / "qa.tif")
    fuse_and_report(pair.hsi, pair.msi, tmp_path / "a.tif", settings, None)
    assert assess(tmp_path / "a.tif", hsi=pair.hsi, msi=pair.msi, qa=tmp_path / "qa.tif").expected is None

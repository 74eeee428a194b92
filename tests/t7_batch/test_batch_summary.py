"""The page and the CSV of a batch: figures of what is there, errors of what isn't, links that lead to reports."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from hsfuse.assessment import Assessment
from hsfuse.assessment.report import figures_of
from hsfuse.assessment.result import Check, Picture
from hsfuse.batch import Outcome, with_figures, write_summary
from hsfuse.core.options import FuseOptions
from hsfuse.fusion.job import Job


def assessed(verdict: str, psnr: float) -> Assessment:
    rng = np.random.default_rng(0)
    picture = Picture("fused", "true colour", rng.random((3, 400, 300), np.float32), ("665 nm", "560 nm", "490 nm"))
    checks = (Check("Spectra", verdict, "text"), Check("Place", "good", "text"))
    return Assessment(
        "a.tif", (31, 400, 300), {"psnr": psnr, "sam": 1.5, "qnr": None}, pictures=(picture,), checks=checks
    )


@pytest.fixture
def outcomes(tmp_path):
    jobs = [
        Job(f"line {n}", tmp_path / "h.tif", (tmp_path / "m.tif",), tmp_path / "out" / f"a & {n}.tif", FuseOptions())
        for n in range(3)
    ]
    jobs = with_figures(jobs, tmp_path / "summary")
    for job, verdict in zip(jobs, ("poor", "look"), strict=False):
        job.figures.write_text(json.dumps(figures_of(assessed(verdict, 40.25)), allow_nan=False))
        job.report.write_text("report")
    return [
        Outcome(jobs[0], "done", 12.34),
        Outcome(jobs[1], "finished"),
        Outcome(jobs[2], "failed", error="no <raster>"),
    ]


def test_the_page_shows_each_scene(outcomes, tmp_path):
    page = write_summary(outcomes, tmp_path / "summary", "jobs.csv")
    text = page.read_text(encoding="utf-8")
    assert page == tmp_path / "summary" / "index.html"
    assert text.count("<img ") == 2
    assert "3 scenes: 1 done, 1 finished before, 1 failed." in text
    assert "1 keep in mind, 1 poor" in text.replace("1 poor, 1 keep in mind", "1 keep in mind, 1 poor")
    assert "a &amp; 0.tif</a>" in text
    assert "no &lt;raster&gt;" in text
    assert text.count("40.25") == 2
    for outcome in outcomes[:2]:
        link = f"scenes/{outcome.job.report.name.replace(' ', '%20').replace('&', '%26')}"
        assert f'href="{link}"' in text
    assert len(text) < 150_000


def test_the_csv_has_all_metrics(outcomes, tmp_path):
    write_summary(outcomes, tmp_path / "summary", "jobs.csv")
    rows = list(csv.DictReader((tmp_path / "summary" / "summary.csv").open(newline="")))
    assert [row["state"] for row in rows] == ["done", "finished", "failed"]
    assert [row["psnr"] for row in rows] == ["40.25", "40.25", ""]
    assert [row["verdict"] for row in rows] == ["poor", "keep in mind", ""]  # as the page has it
    assert (rows[0]["seconds"], rows[2]["error"]) == ("12.34", "no <raster>")
    assert [row["report"] for row in rows] == [*(str(one.job.report) for one in outcomes[:2]), ""]


def test_a_scene_that_is_finished_keeps_its_seconds(outcomes, tmp_path):
    write_summary(outcomes, tmp_path / "summary", "jobs.csv")
    page = write_summary([Outcome(outcomes[0].job, "finished"), *outcomes[1:]], tmp_path / "summary", "jobs.csv")
    rows = list(csv.DictReader((tmp_path / "summary" / "summary.csv").open(newline="")))
    assert [row["seconds"] for row in rows] == ["12.34", "", ""]
    assert '<td class="num">12.3</td>' in page.read_text(encoding="utf-8")


def test_a_job_keeps_its_own_report_and_its_place(tmp_path):
    own = Job("x", Path("h"), (Path("m"),), tmp_path / "a" / "f.tif", FuseOptions(), tmp_path / "own.html")
    other = Job("y", Path("h"), (Path("m"),), tmp_path / "b" / "f.tif", FuseOptions())
    first, second = with_figures([own, other], tmp_path / "s")
    assert first.report == own.report
    assert first.figures != second.figures
    assert with_figures([other], tmp_path / "s")[0] == second

"""`hsfuse batch` as a command: streams, exit codes, and the examples for schedulers."""

from __future__ import annotations

import json
import logging
import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from hsfuse.batch import Outcome, read_jobs
from hsfuse.cli import main
from hsfuse.cli.batch import batch
from hsfuse.cli.console import start_logging
from hsfuse.cli.fuse import fuse

EXAMPLES = Path(__file__).resolve().parents[2] / "examples" / "batch"


@pytest.fixture
def table(tmp_path):
    for name in ("hsi.tif", "msi.tif"):
        (tmp_path / name).touch()
    path = tmp_path / "jobs.csv"
    path.write_text("hsi,msi,output\n" + "".join(f"hsi.tif,msi.tif,{n}.tif\n" for n in range(3)))
    return path


@pytest.fixture
def pretend(monkeypatch):
    """Jobs whose output is 1.tif fail."""

    def run(jobs, tell, **how):
        outcomes = [
            Outcome(job, "failed", error="no raster") if job.output.stem == "1" else Outcome(job, "done", 1.5)
            for job in jobs
        ]
        for outcome in outcomes:
            tell(outcome)
        return outcomes

    monkeypatch.setattr("hsfuse.cli.batch.run_jobs", run)


def test_a_line_a_scene_and_exit_code_4_where_some_failed(table, pretend):
    result = CliRunner().invoke(main, ["batch", str(table), "--method", "bicubic"])
    assert result.exit_code == 4
    said = [line.removeprefix(f"{table.parent}/") for line in result.stdout.splitlines()]
    assert said == ["0.tif: done in 1.5 s", "1.tif: failed: no raster", "2.tif: done in 1.5 s"]
    assert result.stderr == "hsfuse: 1 of 3 jobs failed\n"


def test_a_log_holds_what_became_of_each_scene(table, pretend, tmp_path):
    try:
        CliRunner().invoke(main, ["batch", str(table), f"--log-file={tmp_path / 'b.log'}"])
        said = [line.partition(" hsfuse: ")[2] for line in (tmp_path / "b.log").read_text().splitlines()]
        assert said[-4:-1] == [f"{tmp_path / '0.tif'}: done in 1.5 s", f"{tmp_path / '1.tif'}: failed: no raster",
                               f"{tmp_path / '2.tif'}: done in 1.5 s"]  # fmt: skip
        assert said[-1] == "2 of 3 jobs went well"
    finally:
        logging.getLogger("hsfuse").handlers.clear()
        start_logging()


def test_a_table_of_jobs_is_no_file_of_options(tmp_path):
    path = tmp_path / "jobs.toml"
    path.write_text('[[jobs]]\nhsi = "h"\nmsi = "m"\noutput = "o.tif"\n')
    result = CliRunner().invoke(main, ["batch", str(path), "--config", str(path)])
    assert result.exit_code == 2
    assert f'{path}: jobs is [{{hsi = "h", msi = "m", output = "o.tif"}}], wanted a whole number' in result.stderr


def test_lines_of_json(table, pretend):
    result = CliRunner().invoke(main, ["batch", str(table), "--json", "--index", "2", "--method", "bicubic"])
    assert result.exit_code == 0
    (line,) = result.stdout.splitlines()
    told = json.loads(line)
    assert (told["state"], told["error"], told["output"]) == ("done", None, str(table.parent / "2.tif"))
    assert "--method=bicubic" in told["command"]


def test_an_index_that_is_none_is_told(table):
    result = CliRunner().invoke(main, ["batch", str(table), "--index", "3"])
    assert (result.exit_code, result.stdout) == (1, "")
    assert "has no job 3; it has 3, the first is 0" in result.stderr


@pytest.mark.parametrize("name", ["slurm.sh", "Snakefile", "main.nf", "argo.yaml"])
def test_the_examples_for_schedulers_name_options_that_there_are(name):
    text = (EXAMPLES / name).read_text(encoding="utf-8")
    assert re.search(r"hsfuse[, ]+batch", text)
    known = {own for parameter in batch.params for own in parameter.opts}
    used = set(re.findall(r"(?<![\w-])--[a-z-]+", "\n".join(line for line in text.splitlines() if "index" in line)))
    assert {"--index", "--resume", "--json"} <= used <= known


def test_the_example_table_can_be_run():
    result = CliRunner().invoke(main, ["batch", str(EXAMPLES / "jobs.toml"), "--dry-run"])
    assert result.exit_code == 0, result.output
    assert len(result.stdout.splitlines()) == 3


def test_what_a_job_gives_fuse_is_understood_as_it_was_meant(table):
    more = {
        "phase": 0.5,
        "adapt": "off",
        "overviews": True,
        "bands": "1-50,120",
        "qa": "qa.tif",
        "tile": 64,
        "mtf": 0.3,
    }
    more |= {"msi_bands": ["B2", "B3"], "creation_options": {"COMPRESS": "ZSTD", "TILED": "YES"}, "stac": True}
    lines = table.with_suffix(".jsonl")
    lines.write_text(json.dumps({"hsi": "hsi.tif", "msi": ["msi.tif", "b.tif"], "output": "o.tif", **more}))
    job = read_jobs(lines).jobs[0]
    parsed = fuse.make_context("fuse", job.arguments()[1:]).params
    assert (parsed["hsi"], parsed["msi"], parsed["output"]) == (job.hsi, job.msi, job.output)
    assert {name: parsed[name] for name in more} == {name: getattr(job.options, name) for name in more} | {
        "qa": table.parent / "qa.tif"
    }


def test_nothing_is_started_where_something_is_wrong(table):
    table.write_text("hsi,msi,output\nhsi.tif,msi.tif,o.tif\nno.tif,msi.tif,p.tif\nhsi.tif,no.tif,q.tif\n")
    result = CliRunner().invoke(main, ["batch", str(table)])
    lines = result.stderr.splitlines()
    assert (result.exit_code, result.stdout, len(lines)) == (1, "", 3)
    assert "line 3: the HSI" in lines[0]
    assert "line 4: the MSI" in lines[1]
    assert lines[2].endswith("jobs.csv: nothing was started")
    one = CliRunner().invoke(main, ["batch", str(table), "--index", "0", "--dry-run", "--json"])
    assert one.exit_code == 4, "no raster: dry run says so"
    told = json.loads(one.stdout)
    assert (told["state"], told["error"].startswith("the HSI ")) == ("failed", True)
    assert one.stderr == "hsfuse: 1 of 1 jobs would fail\n"


def test_dask_stands_in_the_short_help_whose_example_shows_it():
    told = CliRunner().invoke(main, ["batch", "--help"]).stdout
    assert re.search(r"^ +--dask WHERE", told, re.MULTILINE)

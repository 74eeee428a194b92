"""Jobs in processes: several at once, failures that stop nothing else, interruptions that leave nothing behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from batches import OPTIONS, alive, job, left, program_in, wait_for, wait_until
from fusing import read
from scenes import memory_scene, save_pair

from hsfuse.batch import run_jobs
from hsfuse.fusion import FusionResult, run_fusion
from hsfuse.fusion.job import Job


@pytest.fixture
def program(tmp_path):
    return program_in(tmp_path)


def test_one_that_fails_or_dies_stops_no_other(tmp_path, program):
    told = []
    jobs = [job(tmp_path, what) for what in ("fail", "die", "silent", "good")]
    outcomes = run_jobs(jobs, told.append, at_once=2, program=program)
    assert [outcome.job for outcome in outcomes] == jobs
    assert {outcome.job.where for outcome in told} == {one.where for one in jobs}
    found = {outcome.job.where: (outcome.state, outcome.error) for outcome in outcomes}
    assert found == {
        "fail": ("failed", "the HSI is no raster"),
        "die": ("failed", "ended by SIGKILL; perhaps memory ran out"),
        "silent": ("failed", "the process ended without a result"),
        "good": ("done", ""),
    }
    good = next(outcome for outcome in outcomes if outcome.state == "done")
    assert "1 warning" in good.text()
    assert good.to_dict()["command"][:2] == ["hsfuse", "fuse"]
    assert not left(tmp_path)


BATCH = """
import signal, sys
from pathlib import Path
signal.signal(signal.SIGINT, signal.default_int_handler)  # which a shell's background jobs ignore
sys.path[:0] = {path!r}
from hsfuse.fusion.job import Job
from hsfuse.batch.run import run_jobs
from hsfuse.cli.console import told_errors
from hsfuse.core.options import FuseOptions
folder = Path({folder!r})
jobs = [Job(n, folder / "hsi.tif", (folder / (n + ".txt"),), folder / (n + ".tif"), FuseOptions()) for n in "abc"]
try:
    with told_errors():
        run_jobs(jobs, print, at_once=2, program={program!r})
except Exception as error:
    sys.exit(error.exit_code)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_an_interruption_ends_all_and_leaves_nothing(tmp_path, program, number):
    for name in "abc":
        job(tmp_path, "wait", name)
    script = BATCH.format(path=sys.path, folder=str(tmp_path), program=program)
    batch = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.DEVNULL)
    wanted = [tmp_path / f"{name}.txt.pid" for name in "ab"]
    pids = [int(wait_for(path)) for path in wanted]
    batch.send_signal(number)
    assert batch.wait(30) == (-number if number == signal.SIGKILL else 130)
    for pid in pids:
        wait_until(lambda pid=pid: not alive(pid))
    assert not left(tmp_path)
    assert not (tmp_path / "c.txt.pid").exists()
    assert not list(tmp_path.glob("?.tif"))


@pytest.fixture(scope="module")
def fused(tmp_path_factory):
    """A job that is finished."""
    folder = tmp_path_factory.mktemp("fused")
    pair = save_pair(folder, memory_scene((12, 12)))
    one = Job("line 2", pair.hsi, (pair.msi,), folder / "fused.tif", replace(OPTIONS, resume=True))
    run_fusion(one.hsi, one.msi[0], one.output, one.options)
    return one


def test_what_is_finished_is_skipped(fused):
    assert [one.state for one in run_jobs([fused], lambda _: None, program=["no such program"])] == ["finished"]
    changed = replace(fused, options=replace(fused.options, mtf=0.2))
    with_report = replace(fused, report=fused.output.with_suffix(".html"))
    assert (fused.state(), changed.state(), with_report.state()) == ("finished", "", "cube")
    assert "--resume" in changed.arguments()
    assert "--overwrite" not in with_report.arguments()
    elsewhere = replace(fused, output=fused.output.with_name("other.tif"))
    planned = run_jobs([changed, elsewhere], lambda _: None, dry_run=True, program=["no such program"])
    assert [one.state for one in planned] == ["failed", "planned"], "a dry run refuses what the run refuses"
    assert planned[0].error.startswith(f"{fused.output} exists already and isn't what --resume leaves alone: --mtf was")
    os.utime(with_report.output, ns=(2, 2))
    with_report.report.touch()
    assert with_report.state() == "finished"
    os.utime(with_report.report, ns=(1, 1))
    assert with_report.state() == "cube"


@pytest.mark.parametrize("name", ["cut.dat", "cut.zarr", "cut.tif"])
def test_what_was_finished_and_is_damaged_is_made_again(fused, tmp_path, caplog, name):
    one = replace(fused, output=tmp_path / name)
    run_fusion(one.hsi, one.msi[0], one.output, replace(one.options, resume=False))
    assert (one.state(), one.damage()) == ("finished", "")
    path = max(one.output.rglob("c/*/*/*"), default=None) if name.endswith("zarr") else one.output
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert (one.state(), one.damage() != "") == ("cube", True)
    assert ("--resume" if name.endswith("tif") else "--overwrite") in one.arguments()
    (outcome,) = run_jobs([one], lambda _: None, program=[sys.executable, "-m", "hsfuse"])
    assert outcome.state == "done", outcome.error
    assert one.state() == "finished"
    assert f"{name} was finished and isn't whole any more" in caplog.text


@pytest.mark.parametrize("name", ["said.tif", "said.dat", "said.zarr", "cog.tif"])
def test_a_finished_scene_has_all_warnings_that_it_had(fused, tmp_path, name):
    """Of opening, of the bands written, of what didn't fit as it was written, and of assessing it."""
    how = replace(OPTIONS, dtype="int16", scale=1e-5, format="COG" if name == "cog.tif" else "auto")
    one = replace(fused, output=tmp_path / name, options=replace(how, resume=True), figures=tmp_path / "figures.json")
    said = run_fusion(one.hsi, one.msi[0], one.output, how)
    assert {told.code for told in said.records if told.severity == "warning"} >= {"clipped", "unseen"}
    one.figures.write_text(json.dumps({"warnings": [*said.warnings, "It doesn't give the LRHSI back."]}))
    for _ in range(2):
        (again,) = run_jobs([one], lambda _: None, program=["no such program"])
        assert (again.state, again.warnings) == ("finished", [*said.warnings, "It doesn't give the LRHSI back."])
    assert again.text().endswith(f"finished already, {len(said.warnings) + 1} warnings")
    told = FusionResult.of_finished(one.output, one.options)
    assert (told.warnings, told.provenance["said"]) == (said.warnings, said.provenance["said"])


def test_a_dry_run_opens_what_jobs_name_and_says_what_the_run_would(fused, tmp_path):
    broken = tmp_path / "broken.tif"
    broken.write_text("not a raster")
    kept = tmp_path / "kept.dat"
    kept.touch()
    jobs = [
        replace(fused, msi=(broken,), output=tmp_path / "a.tif"),
        replace(fused, hsi=fused.msi[0], output=tmp_path / "b.tif"),
        replace(fused, output=kept),
        replace(fused, output=tmp_path / "d.tif"),
    ]
    before = tmp_path.stat().st_mtime_ns
    foreseen = run_jobs(jobs, lambda _: None, dry_run=True)
    assert tmp_path.stat().st_mtime_ns == before, "nothing was tried out there"
    assert [one.state for one in foreseen] == ["failed"] * 3 + ["planned"]
    assert [path.name for path in tmp_path.iterdir() if path not in (broken, kept)] == []
    for one in run_jobs(jobs[:3], lambda _: None, at_once=3):
        assert one.error == foreseen[jobs.index(one.job)].error


def test_skipping_needs_no_torch(fused):
    line = {"hsi": fused.hsi.name, "msi": fused.msi[0].name, "output": fused.output.name}
    line |= {name: getattr(OPTIONS, name) for name in ("method", "psf", "srf", "register", "match_radiometry")}
    table = fused.hsi.with_name("jobs.jsonl")
    lines = [json.dumps(line | {"output": name}) for name in (fused.output.name, "new.tif")]
    table.write_text("\n".join(lines), encoding="utf-8")
    code = (
        f"import sys, hsfuse.cli as c\ntry:\n    c.main(['batch', {str(table)!r}, '--resume', '--dry-run'])\n"
        "finally:\n    assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    told = [f"{fused.output}: finished already, 1 warning", f"{table.with_name('new.tif')}: would be made"]
    assert done.stdout.splitlines() == told
    assert done.stderr == ""


@pytest.mark.slow
def test_killed_at_random_it_ends_with_the_same_cubes(tmp_path):
    """Twenty times, SIGKILL for the batch or for one of its processes; then --resume."""
    import random

    rng = random.Random(0)
    pair = save_pair(tmp_path, memory_scene((36, 36)))
    lines = [
        {"hsi": "hsi.tif", "msi": "msi.tif", "seed": n, "srf": "sentinel2a", "method": "glp-reg"} for n in range(2)
    ]

    def table(folder: str) -> list[str]:
        (tmp_path / folder).mkdir()
        rows = [
            json.dumps(line | {"output": f"{folder}/{n}.tif", "tile": 16, "register": "off", "psf": "assumed"})
            for n, line in enumerate(lines)
        ]
        (tmp_path / f"{folder}.jsonl").write_text("\n".join(rows), encoding="utf-8")
        return [sys.executable, "-m", "hsfuse", "batch", str(tmp_path / f"{folder}.jsonl"), "--jobs", "2", "--resume"]

    began = time.monotonic()
    subprocess.run(table("whole"), check=True, stdout=subprocess.DEVNULL)
    took = time.monotonic() - began
    for turn in range(20):
        command = table(f"turn{turn}")
        batch = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        time.sleep(rng.uniform(0.1, 0.95) * took)
        children = Path(f"/proc/{batch.pid}/task/{batch.pid}/children")
        pids = [int(pid) for pid in children.read_text().split()] if children.exists() else []
        victim = rng.choice([batch.pid, *pids])
        os.kill(victim, signal.SIGKILL)
        batch.wait()
        for pid in pids:
            wait_until(lambda pid=pid: not alive(pid))
        again = subprocess.run(command, capture_output=True, text=True, check=False)
        assert again.returncode == 0, again.stdout
        for n in range(2):
            whole, made = read(tmp_path / f"whole/{n}.tif"), read(tmp_path / f"turn{turn}/{n}.tif")
            assert whole.data.tobytes() == made.data.tobytes(), (turn, n)
        assert not left(tmp_path / f"turn{turn}"), turn
    assert pair.hsi.exists()

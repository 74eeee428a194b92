"""Jobs as tasks of Dask's workers: what becomes of them is what becomes of them here, also when workers are lost."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest
from batches import alive, job, left, program_in, wait_for, wait_until
from fusing import read
from scenes import memory_scene, save_pair

from hsfuse.batch import run_jobs
from hsfuse.core import cluster
from hsfuse.core.errors import SettingError

distributed = pytest.importorskip("distributed")


@pytest.fixture
def program(tmp_path):
    return program_in(tmp_path)


@pytest.fixture(scope="module")
def scheduler():
    """One in this process."""
    with distributed.LocalCluster(n_workers=1, threads_per_worker=2, processes=False, dashboard_address=None) as made:
        yield made.scheduler_address


def test_what_becomes_of_jobs_is_the_same_as_here(tmp_path, program, scheduler):
    whats, told = ("fail", "die", "silent", "good"), []
    jobs = [job(tmp_path, what) for what in whats]
    found = run_jobs(jobs, told.append, dask=scheduler, program=program)
    assert len(told) == len(jobs)
    assert not left(tmp_path)
    (tmp_path / "good.tif").unlink()
    here = run_jobs(jobs, lambda _: None, at_once=2, program=program)
    assert [(one.job, one.state, one.error, one.result) for one in found] == [
        (one.job, one.state, one.error, one.result) for one in here
    ]


def test_interrupted_it_ends_what_runs(tmp_path, program, scheduler):
    """By an error here; the workers go on, without the jobs."""
    jobs = [job(tmp_path, "wait", "a"), job(tmp_path, "good")]

    def stop(_):
        wait_for(tmp_path / "a.txt.pid")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_jobs(jobs, stop, dask=scheduler, program=program)
    pid = int(wait_for(tmp_path / "a.txt.pid"))
    wait_until(lambda: not alive(pid))
    wait_until(lambda: not left(tmp_path))
    assert [one.state for one in run_jobs(jobs[1:], lambda _: None, dask=scheduler, program=program)] == ["done"]


@pytest.mark.parametrize(("has", "told"), [("0.0.1", "has hsfuse 0.0.1"), (None, "has no hsfuse")])
def test_workers_of_another_version_are_refused(scheduler, monkeypatch, has, told):
    monkeypatch.setattr(cluster.pydoc, "locate", lambda name: has)
    with pytest.raises(SettingError, match=told), cluster.client_of(scheduler):
        pass


@pytest.mark.parametrize(("text", "told"), [(None, "No such file"), ("{}", "it has no address"), ("no", "no address")])
def test_a_file_that_names_no_scheduler(tmp_path, text, told):
    path = tmp_path / "scheduler.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(SettingError, match=told) as caught:
        cluster.check_scheduler(str(path))
    assert "\n" not in str(caught.value)


def table(folder, name, seeds):
    """Tiny scenes, one a seed, into a folder of their own."""
    (folder / name).mkdir()
    same = {"hsi": "hsi.tif", "msi": "msi.tif", "srf": "sentinel2a", "method": "glp-reg", "psf": "assumed"}
    rows = [{**same, "seed": n, "tile": 16, "register": "off", "output": f"{name}/{n}.tif"} for n in range(seeds)]
    (folder / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return [sys.executable, "-m", "hsfuse", "batch", str(folder / f"{name}.jsonl")]


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_an_interrupted_batch_leaves_no_process(tmp_path, number):
    """With workers of its own: all of them end, and the jobs that they run."""
    save_pair(tmp_path, memory_scene((12, 12)))
    command = [*table(tmp_path, "a", 6), "--dask", "local:2"]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "start_new_session": True}
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # which a shell's background jobs ignore
    batch = subprocess.Popen(command, **quiet)
    signal.signal(signal.SIGINT, before)
    wait_until(lambda: at_work(batch.pid) and list((tmp_path / "a").iterdir()), 120)
    ours = session(batch.pid)
    batch.send_signal(number)
    assert batch.wait(60) == (-number if number == signal.SIGKILL else 130)
    wait_until(lambda: not any(map(alive, ours)))
    assert not left(tmp_path / "a")


def at_work(pid):
    """Whether a job runs: the batch itself has a file in the folder for a moment, to see whether there may be any."""
    with suppress(OSError):
        return any("fuse" in Path(f"/proc/{one}/cmdline").read_text().split("\0") for one in session(pid))


def session(pid):
    """All processes that descend from one."""
    found, new = [], [pid]
    while new:
        found += new
        told = subprocess.run(["ps", "-o", "pid=", "--ppid", ",".join(map(str, new))], capture_output=True, text=True)
        new = [int(word) for word in told.stdout.split()]
    return found


#: Jobs till whose end ten workers are killed, however late one is found at work.
JOBS = 14


@pytest.mark.slow
def test_ten_workers_killed_at_random_lose_nothing(tmp_path):
    """A scheduler and two workers as processes; where one is killed another one starts, and does its jobs again."""
    rng, patient = random.Random(0), {**os.environ, "DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": "20"}
    save_pair(tmp_path, memory_scene((24, 24)))
    subprocess.run(table(tmp_path, "whole", 1), check=True, stdout=subprocess.DEVNULL)
    place = tmp_path / "scheduler.json"
    with ExitStack() as stack:

        def begin(what, *words):
            command = [sys.executable, "-m", f"distributed.cli.dask_{what}", "--scheduler-file", str(place), *words]
            said = stack.enter_context((tmp_path / "dask.txt").open("a"))
            process = stack.enter_context(subprocess.Popen(command, env=patient, stdout=said, stderr=said))
            stack.callback(process.kill)
            return process

        begin("scheduler", "--port", "0", "--no-dashboard")
        wait_until(place.exists, 240)
        words = "--no-nanny", "--nthreads", "1", "--local-directory", str(tmp_path / "scratch"), "--no-dashboard"
        workers = [begin("worker", *words) for _ in range(2)]
        command = [*table(tmp_path, "killed", JOBS), "--dask", str(place)]
        (tmp_path / "said.txt").touch()
        batch = stack.enter_context(subprocess.Popen(command, stdout=(tmp_path / "said.txt").open("w")))
        killed = 0
        while batch.poll() is None and killed < 10:
            number = rng.randrange(2)
            time.sleep(rng.uniform(0.2, 1.0) * 2)
            busy = subprocess.run(["pgrep", "-P", str(workers[number].pid)], capture_output=True).stdout
            if busy:  # it runs a job
                time.sleep(rng.uniform(0.0, 4.0))
                workers[number].kill()
                workers[number].wait()
                workers[number], killed = begin("worker", *words), killed + 1
        batch.wait(600)
        said = (tmp_path / "said.txt").read_text()
        assert (batch.returncode, killed) == (0, 10), said
    for n in range(JOBS):
        assert (
            read(tmp_path / "killed" / f"{n}.tif").data.tobytes() == read(tmp_path / "whole" / "0.tif").data.tobytes()
        )
    assert not left(tmp_path / "killed")

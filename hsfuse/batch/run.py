"""Jobs in processes of their own, some at once: a crash ends its job and not the rest; nothing outlives the batch."""

from __future__ import annotations

import ctypes
import json
import logging
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass, field, replace
from typing import IO, Any, Literal
from uuid import uuid4

from hsfuse.core.cluster import client_of
from hsfuse.core.errors import HsfuseError, OutputError
from hsfuse.core.notes import warning
from hsfuse.core.process import reason
from hsfuse.fusion.job import Job
from hsfuse.io.files import output_files
from hsfuse.io.lock import only_writer

log = logging.getLogger(__name__)

#: The command line, in this Python.
PROGRAM = (sys.executable, "-m", "hsfuse")
#: Seconds between looks at what runs, and in which an interrupted job may remove what it has written.
POLL_S, GRACE_S = 0.05, 20.0
#: prctl(2): the signal that a process gets when its parent dies.
PR_SET_PDEATHSIG = 1

State = Literal["done", "finished", "failed", "planned"]


@dataclass(frozen=True)
class Outcome:
    """What became of a job: `done` now, `finished` before, `failed` with an error, or `planned` in a dry run.

    A dry run's `failed` is what the job's own process would refuse before it reads a pixel.
    `result` is what `fuse --json` printed.
    """

    job: Job
    state: State
    seconds: float = 0.0
    error: str = ""
    result: Mapping[str, Any] = field(default_factory=dict)

    def text(self) -> str:
        """One line for people."""
        if self.state == "failed":
            return f"{self.job.output}: failed: {self.error}"
        if self.state == "planned":
            return f"{self.job.output}: would be made"
        said = len(self.warnings)
        parts = [
            "finished already" if self.state == "finished" else f"done in {self.seconds:.1f} s",
            f"{said} warning{'s' if said > 1 else ''}" if said else "",
            self.reused,
        ]
        return f"{self.job.output}: {', '.join(part for part in parts if part)}"

    @property
    def warnings(self) -> list[str]:
        """What was warned of in fusing and assessing it, now or when it was finished."""
        return list(self.result.get("warnings", ()))

    @property
    def reused(self) -> str:
        """That no method was fitted to it; "" where one was."""
        fitted = self.result.get("provenance", {}).get("fitted") or {}
        return "with a model fitted to another scene" if fitted.get("reused") else ""

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "output": str(self.job.output),
            "state": self.state,
            "where": self.job.where,
            "seconds": None if self.state == "finished" else round(self.seconds, 2),
            "error": self.error or None,
            "warnings": self.warnings,
            "report": None if self.job.report is None else str(self.job.report),
            "model_reused": bool(self.reused),
            "command": ["hsfuse", *self.job.arguments()],
        }


@dataclass
class _Running:
    """A job's process with what it says."""

    job: Job
    process: subprocess.Popen[bytes]
    out: IO[bytes]
    said: IO[bytes]
    began: float

    @classmethod
    def start(cls, job: Job, program: Sequence[str], environment: Mapping[str, str]) -> _Running:
        out, said = tempfile.TemporaryFile(), tempfile.TemporaryFile()  # noqa: SIM115 - `outcome` reads and closes them
        process = subprocess.Popen(
            [*program, *job.arguments(), "--json", "--quiet"],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=said,
            env=environment,
            start_new_session=True,  # Ctrl-C comes to the batch, which passes it on
            preexec_fn=_dies_with_parent(os.getpid()),
        )
        return cls(job, process, out, said, time.monotonic())

    def outcome(self) -> Outcome:
        """What became of it, after it has ended."""
        seconds, code = time.monotonic() - self.began, self.process.returncode
        out, said = (_read(file) for file in (self.out, self.said))
        if code:
            self.clean()
            return Outcome(self.job, "failed", seconds, reason(code, said))
        try:
            return Outcome(self.job, "done", seconds, result=json.loads(out))
        except ValueError:
            return Outcome(self.job, "failed", seconds, "the process ended without a result")

    def clean(self) -> None:
        """Remove what a process that was killed couldn't."""
        if self.process.returncode < 0:
            with (
                suppress(OutputError),
                only_writer(output_files(self.job.output, self.job.options.format), self.job.made),
            ):
                pass


def _read(file: IO[bytes]) -> str:
    with file:
        file.seek(0)
        return file.read().decode("utf-8", errors="replace")


def run_jobs(
    jobs: Sequence[Job],
    tell: Callable[[Outcome], None],
    *,
    at_once: int = 1,
    dask: str | None = None,
    dry_run: bool = False,
    program: Sequence[str] = PROGRAM,
) -> list[Outcome]:
    """Run jobs, `at_once` in their order, and `tell` of each as it ends; what a job with `resume` has finished stays.

    With `dask` (`local[:N]`, an address or a file) the workers there run them, each as many at once as it has threads.
    What became of them is given in their order. However this is left, no process of it runs on, and none has left a
    file under a temporary name. SettingError where no scheduler answers.
    """
    outcomes = list[Outcome]()

    def ended(outcome: Outcome) -> None:
        outcomes.append(outcome)
        tell(outcome)

    with ExitStack() as held:
        client = None if dask is None or dry_run else held.enter_context(client_of(dask))
        for some in _rounds(jobs):
            waiting = []
            for job in some:
                if job.options.resume and job.state() == "finished":
                    ended(Outcome(job, "finished", result={"warnings": job.warned()}))
                elif dry_run:
                    ended(_foreseen(job))
                else:
                    if job.options.resume and (why := job.damage()):
                        log.warning("%s", warning("output-damaged", name=job.output.name, why=why))
                    waiting.append(job)
            run = _in_processes(waiting, at_once, program) if client is None else _on_workers(waiting, client, program)
            with closing(run):
                for outcome in run:
                    ended(outcome)
    places = {job.output: number for number, job in enumerate(jobs)}
    return sorted(outcomes, key=lambda outcome: places[outcome.job.output])


def _foreseen(job: Job) -> Outcome:
    """What a dry run says of a job: its files are opened, and what its process would refuse at once is told."""
    own = job.as_run()
    try:
        own.check()
        replace(own, options=replace(own.options, dry_run=True)).look()
    except HsfuseError as error:
        return Outcome(job, "failed", error=str(error))
    return Outcome(job, "planned")


def _in_processes(jobs: Sequence[Job], at_once: int, program: Sequence[str]) -> Generator[Outcome, None, None]:
    """What became of jobs that run here, as they end."""
    waiting, running, environment = deque(jobs), list[_Running](), _environment(at_once)
    try:
        while waiting or running:
            while waiting and len(running) < at_once:
                running.append(_Running.start(waiting.popleft(), program, environment))
            for one in [each for each in running if each.process.poll() is not None]:
                running.remove(one)
                yield one.outcome()
            if running:
                time.sleep(POLL_S)
    finally:
        _end(running)


def _on_workers(jobs: Sequence[Job], client: Any, program: Sequence[str]) -> Generator[Outcome, None, None]:
    """What became of jobs that are tasks of Dask's workers, as they end; a lost worker's are run again."""
    from dask.distributed import as_completed

    name = f"hsfuse-batch-{uuid4().hex[:12]}"
    tasks = {client.submit(run_here, job, program, key=f"{name}-{i}"): job for i, job in enumerate(jobs)}
    try:
        for task in as_completed(list(tasks)):
            try:
                yield task.result()
            except Exception as error:  # whatever Dask raises of a task whose workers died again and again
                told = " ".join(str(error).split())
                yield Outcome(tasks[task], "failed", error=f"Dask gave it up ({type(error).__name__}: {told})"[:300])
    finally:
        client.cancel(list(tasks))


def run_here(job: Job, program: Sequence[str]) -> Outcome:
    """Run a job on this worker of Dask's, by a process of its own, which ends when its task is cancelled."""
    from dask.distributed import get_worker

    worker, key = get_worker(), get_worker().get_current_task()
    _wait_for_lost(job)
    if not job.options.overwrite and job.state() == "finished":  # by a worker that was lost before it could say so
        return Outcome(job, "done", result={"warnings": job.warned()})
    one = _Running.start(job, program, os.environ)
    try:
        while one.process.poll() is None:
            task = worker.state.tasks.get(key)
            if task is None or task.state != "executing":
                return Outcome(job, "failed", error="cancelled")
            time.sleep(POLL_S)
    finally:
        if one.process.returncode is None:
            _end([one])
    return one.outcome()


def _wait_for_lost(job: Job) -> None:
    """Wait while the process of a worker that was lost still writes the output, but not for ever."""
    last = time.monotonic() + GRACE_S
    while time.monotonic() < last:
        try:
            with only_writer(output_files(job.output, job.options.format), job.made):
                return
        except OutputError:
            time.sleep(POLL_S)


def _rounds(jobs: Sequence[Job]) -> list[list[Job]]:
    """Jobs that fit a model for others go before these, so that the order of the table says which fits it."""
    first, rest, seen = list[Job](), list[Job](), set[str]()
    for job in jobs:
        key = repr((job.options.of_groups("method"), job.options.srf, job.options.msi_bands))
        (rest if job.options.reuse_model is None or key in seen else first).append(job)
        seen.add(key)
    return [first, rest]


def _end(running: Sequence[_Running]) -> None:
    """Interrupt all, wait while they clean up, and kill what goes on after that, or at a second interruption."""
    for one in running:
        _signal(one, signal.SIGTERM)
    try:
        last = time.monotonic() + GRACE_S
        for one in running:
            with suppress(subprocess.TimeoutExpired):
                one.process.wait(max(last - time.monotonic(), 0))
    finally:
        for one in running:
            _signal(one, signal.SIGKILL)
            one.process.wait()
            one.clean()
            one.out.close()
            one.said.close()


def _signal(one: _Running, number: int) -> None:
    if one.process.poll() is None:
        with suppress(ProcessLookupError):
            os.killpg(one.process.pid, number)


def _environment(at_once: int) -> dict[str, str]:
    """Several share the cores, unless it is said how many threads each has."""
    share = max(1, len(os.sched_getaffinity(0)) // at_once) if hasattr(os, "sched_getaffinity") else 1
    return ({"OMP_NUM_THREADS": str(share)} if at_once > 1 else {}) | os.environ


def _dies_with_parent(parent: int) -> Callable[[], None] | None:
    """What a new process does first, so that it is interrupted when the batch is killed; None where that can't be."""
    if sys.platform != "linux":
        return None
    libc = ctypes.CDLL(None)

    def ask() -> None:
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:  # it died before
            os.kill(os.getpid(), signal.SIGTERM)

    return ask

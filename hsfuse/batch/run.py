"""Jobs in processes of their own, some at once: a crash ends its job and not the rest; nothing outlives the batch."""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import IO, Any, Literal

from hsfuse.batch.jobs import Job
from hsfuse.core.errors import OutputError
from hsfuse.core.process import reason
from hsfuse.io.files import output_files
from hsfuse.io.lock import only_writer

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
        if self.state == "finished":
            return f"{self.job.output}: finished already"
        if self.state == "planned":
            return f"{self.job.output}: would be made"
        said = len(self.result.get("warnings", ()))
        parts = [
            f"done in {self.seconds:.1f} s",
            f"{said} warning{'s' if said > 1 else ''}" if said else "",
            self.reused,
        ]
        return f"{self.job.output}: {', '.join(part for part in parts if part)}"

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
            "seconds": round(self.seconds, 2),
            "error": self.error or None,
            "warnings": list(self.result.get("warnings", ())),
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
    dry_run: bool = False,
    program: Sequence[str] = PROGRAM,
) -> list[Outcome]:
    """Run jobs, `at_once` in their order, and `tell` of each as it ends; what a job with `resume` has finished stays.

    What became of them is given in their order.
    However this is left, no process of it runs on, and none has left a file under a temporary name.
    """
    running, outcomes = list[_Running](), list[Outcome]()
    environment = _environment(at_once)

    def ended(outcome: Outcome) -> None:
        outcomes.append(outcome)
        tell(outcome)

    try:
        for waiting in map(deque, _rounds(jobs)):
            while waiting or running:
                while waiting and len(running) < at_once:
                    job = waiting.popleft()
                    if job.options.resume and job.state() == "finished":
                        ended(Outcome(job, "finished"))
                    elif dry_run:
                        ended(Outcome(job, "planned"))
                    else:
                        running.append(_Running.start(job, program, environment))
                for one in [each for each in running if each.process.poll() is not None]:
                    running.remove(one)
                    ended(one.outcome())
                if running:
                    time.sleep(POLL_S)
    finally:
        _end(running)
    places = {job.output: number for number, job in enumerate(jobs)}
    return sorted(outcomes, key=lambda outcome: places[outcome.job.output])


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

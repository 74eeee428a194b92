"""The command line in processes that start at once: forked off a server that has imported hsfuse already."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import tempfile
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path

#: What a fuse with a cheap method needs.
MODULES = ["hsfuse.cli", "hsfuse.fusion.run", "hsfuse.methods.regression", "hsfuse.pair.shift", "rasterio", "zarr"]
_FORKS = multiprocessing.get_context("forkserver")


def start(arguments: list[str], said: Path, temporary: Path) -> BaseProcess:
    """Run `hsfuse` with these arguments, in a session of its own; what it prints goes to a file."""
    _FORKS.set_forkserver_preload(MODULES)
    begun, begins = _FORKS.Pipe(duplex=False)
    process = _FORKS.Process(target=_run, args=(arguments, str(said), str(temporary), begins))
    process.start()
    begun.recv()  # before that a signal is none of hsfuse's
    return process


def _run(arguments: list[str], said: str, temporary: str, begins: Connection) -> None:
    from hsfuse.cli import interrupt, run

    tempfile.tempdir = os.environ["TMPDIR"] = temporary
    sink = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(sink, stream)
    os.setsid()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # which a shell's background jobs ignore
    signal.signal(signal.SIGTERM, interrupt)  # as `run` does first
    sys.argv = ["hsfuse", *arguments]
    begins.send(True)
    run()

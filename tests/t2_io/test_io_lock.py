"""One process at a time makes an output, and what a killed one left goes with the next."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from hsfuse.core.errors import OutputError
from hsfuse.io.files import temporary_files, trial_folder, write_whole
from hsfuse.io.lock import one_at_a_time, only_writer

HOLDS = """
import sys, time
from pathlib import Path
from hsfuse.io.lock import only_writer
with only_writer([Path(sys.argv[1])]):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_second_process_is_refused_until_the_first_is_gone(tmp_path):
    out = tmp_path / "fused.tif"
    with subprocess.Popen([sys.executable, "-c", HOLDS, str(out)], stdout=subprocess.PIPE, text=True) as first:
        assert first.stdout.readline() == "held\n"
        with (
            pytest.raises(OutputError, match=f"written by another process \\(process {first.pid} on "),
            only_writer([out]),
        ):
            pass
        os.kill(first.pid, signal.SIGKILL)
        first.wait()
    with only_writer([out]), pytest.raises(OutputError, match="another process"), only_writer([out]):
        pass
    assert not list(tmp_path.iterdir())


def test_what_a_killed_process_left_goes_and_nothing_else(tmp_path):
    out, other = tmp_path / "fused.tif", tmp_path / "fused.dat"
    left, theirs = temporary_files((out,))[0], temporary_files((other,))[0]
    kept = [theirs, out, tmp_path / ".fused.unfinished.tif", tmp_path / ".fused.notes.tif"]
    for path in (left, left.with_name(f"{left.name}.aux.xml"), tmp_path / ".fused.0123abcd.old.tif", *kept):
        path.write_text(path.name)
    with only_writer([out]):
        pass
    assert sorted(tmp_path.iterdir()) == sorted(kept)


def test_what_a_killed_process_tried_out_goes(tmp_path):
    """As by a batch that looked whether an output can be written."""
    tried = trial_folder(tmp_path / "fused.tif")
    (tried.__enter__() / "trial.tif").write_text("half")
    with only_writer([tmp_path / "fused.tif"]):
        assert [path.name for path in tmp_path.iterdir()] == [".fused.tif.lock"]


def test_what_was_moved_aside_is_put_back(tmp_path):
    out = tmp_path / "fused.zarr"
    aside = tmp_path / ".fused.0123abcd.old.zarr"
    aside.mkdir()
    with only_writer([out]):
        assert out.is_dir()
    assert [path.name for path in tmp_path.iterdir()] == ["fused.zarr"]


def test_without_a_folder_there_is_no_lock(tmp_path):
    with only_writer([tmp_path / "no" / "fused.tif"]), one_at_a_time(tmp_path / "no" / "model"):
        pass
    write_whole(tmp_path / "a.json", "{}")
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]

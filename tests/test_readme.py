"""The README's commands work as printed, on the example data, from the project's root."""

from __future__ import annotations

import os
import re
import stat
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
#: `hsfuse fuse` trains for minutes by default; the last one of an option given twice counts.
HSFUSE = f"""#!/bin/sh
if [ "$1" = fuse ]; then set -- "$@" --adapt-steps 2; fi
exec "{sys.executable}" -m hsfuse "$@"
"""


def commands(text: str) -> list[str]:
    """Every `$ hsfuse ...` line of the blocks marked ```console, with its continuation lines."""
    blocks = re.findall(r"^```console\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    lines = re.findall(r"^\$ (hsfuse (?:[^\n]*\\\n)*[^\n]*)", "\n".join(blocks), re.MULTILINE)
    return [line.replace("\\\n", " ") for line in lines]


def test_commands_are_found():
    text = "```console\n$ hsfuse a \\\n    -b\nits output\n$ ls\n```\n```\n$ hsfuse c\n```\n"
    text += "```console\n$ hsfuse d | cat\n```\n"
    assert [command.split() for command in commands(text)] == [["hsfuse", "a", "-b"], ["hsfuse", "d", "|", "cat"]]


@pytest.fixture
def place(tmp_path):
    """A folder that looks like the project's root to a command, and takes its outputs."""
    for name in ("examples", "srf", "models"):
        (tmp_path / name).symlink_to(ROOT / name)
    program = tmp_path / "bin" / "hsfuse"
    program.parent.mkdir()
    program.write_text(HSFUSE)
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    return tmp_path


def test_the_readme_s_commands_work(place):
    found = commands((ROOT / "README.md").read_text(encoding="utf-8"))
    assert found, "README.md has no ```console block with a line `$ hsfuse ...`"
    assert any(command.startswith("hsfuse fuse ") for command in found)
    before = {path: path.stat().st_mtime_ns for path in (ROOT / "examples").rglob("*")}
    environment = os.environ | {"PATH": f"{place / 'bin'}{os.pathsep}{os.environ['PATH']}"}
    for command in found:
        done = subprocess.run(
            ["/bin/sh", "-c", command], cwd=place, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"$ {command}\n{done.stderr}"
        assert "Traceback" not in done.stderr, command
        assert done.stdout, command
    assert {path: path.stat().st_mtime_ns for path in (ROOT / "examples").rglob("*")} == before

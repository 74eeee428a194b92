"""Jobs that a small program pretends to do, and waiting for processes."""

from __future__ import annotations

import sys
import time
from pathlib import Path

from hsfuse.core.options import FuseOptions
from hsfuse.fusion.job import Job

OPTIONS = FuseOptions(method="sfim", psf="assumed", srf="sentinel2a", register="off", match_radiometry="off")
#: Stands for hsfuse: what it does is in the file that --msi names.
PROGRAM = """
import json, os, signal, sys, time
from pathlib import Path
named = dict(word[2:].split("=", 1) for word in sys.argv[1:] if "=" in word)
output, what = Path(named["output"]), Path(named["msi"]).read_text()
part = output.with_name(f".{output.stem}.0123abcd.part.tif")
part.write_text("half")
if what == "wait":
    Path(named["msi"] + ".pid").write_text(str(os.getpid()))
    try:
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(130))
        time.sleep(60)
    finally:
        part.unlink()
if what == "die":
    os.kill(os.getpid(), signal.SIGKILL)
part.unlink()
if what == "fail":
    sys.exit("hsfuse: warning: of no account\\nhsfuse: error: the HSI is no raster")
if what == "silent":
    sys.exit(0)
output.write_text(what)
print(json.dumps({"warnings": ["one"]}))
"""


def program_in(folder: Path) -> list[str]:
    """The program, written to a folder, as it is called."""
    (folder / "program.py").write_text(PROGRAM)
    return [sys.executable, "-S", str(folder / "program.py")]


def job(folder: Path, what: str, name: str = "") -> Job:
    name = name or what
    (folder / f"{name}.txt").write_text(what)
    return Job(name, folder / "hsi.tif", (folder / f"{name}.txt",), folder / f"{name}.tif", OPTIONS)


def left(folder: Path) -> list[str]:
    """What no one asked for."""
    return [path.name for path in folder.iterdir() if path.name.startswith(".")]


def wait_for(path: Path) -> str:
    wait_until(lambda: path.exists() and path.read_text() != "")
    return path.read_text()


def wait_until(met, seconds: float = 60.0) -> None:
    last = time.monotonic() + seconds
    while not met():
        assert time.monotonic() < last
        time.sleep(0.02)


def alive(pid: int) -> bool:
    """Whether a process runs; one that ended and that nobody asked for since doesn't."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False

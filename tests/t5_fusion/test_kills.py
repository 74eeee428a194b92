"""Killed or interrupted anywhere: never half a file under a final name, and the next run ends with the same pixels."""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path

import pytest
from forked import start
from fusing import read
from scenes import memory_scene, save_pair

KILLS = 50
HOW = [
    "--srf",
    "sentinel2a",
    "--method",
    "glp-reg",
    "--psf",
    "assumed",
    "--tile",
    "16",
    "--overlap",
    "6",
    "--seed",
    "0",
]
#: Outputs in turn; GeoTIFF goes on where it was, the others begin anew.
OUTPUTS = {
    "a.tif": ["--resume", "--qa", "qa.tif", "--stac"],
    "b.tif": ["--format", "COG", "--overwrite"],
    "c.dat": ["--overwrite"],
    "d.zarr": ["--overwrite"],
}


class Runs:
    """Fuses of one pair into outputs of a folder, and what comes out when nobody disturbs them."""

    def __init__(self, folder: Path) -> None:
        self.temporary = folder / "temporary"
        self.temporary.mkdir()
        self.pair = save_pair(folder, memory_scene((36, 36)))
        self.said, self.wanted, self.took = folder / "said.txt", dict[str, bytes](), dict[str, float]()
        (folder / "whole").mkdir()
        for name in OUTPUTS:
            self.end(folder / "whole" / name)
            self.wanted[name] = pixels(folder / "whole" / name)
            self.took[name] = 3.0

    def start(self, output: Path):
        more = [word.replace("qa.tif", str(output.with_name("qa.tif"))) for word in OUTPUTS[output.name]]
        files = [str(path) for path in (self.pair.hsi, self.pair.msi, output)]
        return start(["fuse", *files, *HOW, *more, "-q"], self.said, self.temporary)

    def told(self, process, name: str, number: int, share: float) -> bool:
        """Send a signal after a share of the time that a run takes; False where it was too late, and what it took."""
        began = time.monotonic()
        process.join(self.took[name] * share)
        if process.exitcode is None:
            os.kill(process.pid, number)
            process.join()
        if process.exitcode == 0:
            self.took[name] = time.monotonic() - began
            return False
        return True

    def end(self, output: Path) -> None:
        """Run to the end, and see that nothing but outputs is there."""
        process = self.start(output)
        process.join()
        assert process.exitcode == 0, self.said.read_text()
        assert not [path.name for path in output.parent.iterdir() if path.name.startswith(".")]
        assert not list(self.temporary.iterdir())


def pixels(path: Path) -> bytes:
    cube = read(path)
    return cube.data.tobytes() + cube.mask.tobytes()


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    return Runs(tmp_path_factory.mktemp("kills"))


@pytest.mark.slow
@pytest.mark.parametrize("there", [False, True], ids=["new", "replacing"])
def test_killed_at_random_the_next_run_ends_alike(runs, tmp_path, there):
    """Kills that came too late don't count; every third comes at the end, where files are moved into place."""
    rng, done, began = random.Random(int(there)), 0, 0
    while done < KILLS // 2:
        name = list(OUTPUTS)[done % len(OUTPUTS)]
        folder = tmp_path / str(began)
        folder.mkdir()
        output, began = folder / name, began + 1
        if there and name != "a.tif":
            runs.end(output)
            old = output.stat().st_ino
        process = runs.start(output)
        if not runs.told(process, name, signal.SIGKILL, rng.uniform(0.8 if done % 3 == 0 else 0.0, 1.0)):
            continue
        done += 1
        if output.exists():
            assert pixels(output) == runs.wanted[name], (name, "half a file")
        elif there and name != "a.tif":
            assert name == "d.zarr", (name, old, "what was there is gone")
        runs.end(output)
        assert pixels(output) == runs.wanted[name], name


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_it_leaves_only_what_the_next_run_goes_on_with(runs, tmp_path, number):
    rng, done, turn = random.Random(2), 0, 0
    while done < 2 * len(OUTPUTS):
        turn += 1
        name = list(OUTPUTS)[done % len(OUTPUTS)]
        (folder := tmp_path / str(turn)).mkdir()
        process = runs.start(folder / name)
        if not runs.told(process, name, number, rng.uniform(0.3, 0.95)):
            continue
        assert process.exitcode == 130
        if (folder / name).exists():  # all was done when it came
            assert pixels(folder / name) == runs.wanted[name]
            continue
        done += 1
        left = [path.name for path in folder.iterdir()]
        assert name == "a.tif" or not left, left
        assert all(".unfinished." in path for path in left), left
        runs.end(folder / name)
        assert pixels(folder / name) == runs.wanted[name]

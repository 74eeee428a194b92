"""Fusing files of tiny scenes, reading what came out, and stopping in between."""

from __future__ import annotations

from hsfuse.fusion import FusionResult, fuse
from hsfuse.fusion.tiles import TileWorker
from hsfuse.io import open_cube

PLAIN = {"method": "glp-reg", "psf": "assumed", "match_radiometry": "off"}  # the quickest that uses both images


def run(pair, output, **options) -> FusionResult:
    return fuse(pair.hsi, pair.msi, "sentinel2a", output, **{**PLAIN, **options})


def read(path):
    with open_cube(path) as reader:
        return reader.read()


def interrupted(monkeypatch, after: int) -> None:
    """As by Ctrl-C after so many batches of tiles."""
    calls = []
    fuse_tile = TileWorker.fuse

    def stop(*arguments):
        calls.append(1)
        if len(calls) > after:
            raise KeyboardInterrupt
        return fuse_tile(*arguments)

    monkeypatch.setattr(TileWorker, "fuse", stop)

"""`python -m benchmarks.speed.stream`: what a finished MSI pixel costs, start-up, estimating and fitting left out.

Processor time of reading, fusing and writing alone, of methods in turn on one scene: the example's truth, mirrored to
`--copies` times its side, as LRHSI and MSI with the example's sensors and noise. The ratio to `bicubic` in one run
means something on a busy machine, too. On one thread with OMP_NUM_THREADS=1.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from unittest.mock import patch

import click
import numpy as np
from rasterio.windows import Window

import hsfuse
from hsfuse.benchmark.simulate import SimulatedPair, simulate
from hsfuse.core.grid import Grid
from hsfuse.fusion.stream import Streamer
from hsfuse.io import CubeWriter, open_cube

REFERENCE = Path(__file__).resolve().parents[2] / "examples" / "data" / "indian_pines_reference.tif"
SENSOR, BANDS, RATIO = "sentinel2", ("B2", "B3", "B4", "B8"), 4


def mirrored_pair(folder: Path, copies: int) -> SimulatedPair:
    """The example beside its mirror images, `copies` to a side, as a pair of ratio 4 in a folder."""
    with open_cube(REFERENCE) as reader:
        cube = reader.read(Window(0, 0, *reader.grid.shape[::-1])).data
        spectrum, transform, crs = reader.spectrum, reader.grid.transform, reader.grid.crs
    for axis in (1, 2):
        cube = np.concatenate([np.flip(cube, axis) if i % 2 else cube for i in range(copies)], axis)
    with CubeWriter(folder / "truth.tif", Grid(cube.shape[1:], transform, crs), spectrum) as writer:
        writer.write(Window(0, 0, *cube.shape[:0:-1]), cube, np.ones(cube.shape[1:], bool))
    return simulate(
        folder / "truth.tif", folder, srf=SENSOR, ratio=RATIO, msi_bands=BANDS, snr_hsi=35, snr_msi=40, seed=0
    )


def microseconds(pair: SimulatedPair, method: str, output: Path) -> float:
    """Processor microseconds a pixel of reading, fusing and writing."""
    spent = []

    class Timed(Streamer):
        def run(self) -> float:
            start = time.process_time()
            valid = super().run()
            spent.append(1e6 * (time.process_time() - start) / (self.tiles.shape[0] * self.tiles.shape[1]))
            return valid

    with patch("hsfuse.fusion.run.Streamer", Timed):
        hsfuse.fuse(pair.lrhsi, pair.msi, SENSOR, output, method=method, overwrite=True)
    return spent[0]


@click.command()
@click.option("--copies", type=click.IntRange(1), default=4, show_default=True, help="Side in those of the example.")
@click.option("--turns", type=click.IntRange(1), default=3, show_default=True, help="How often each is run, in turn.")
@click.option("--methods", default="bicubic,blend", show_default=True, help="The first is what others are a ratio to.")
def stream(copies: int, turns: int, methods: str) -> None:
    """Measure what a pixel costs."""
    names = methods.split(",")
    with tempfile.TemporaryDirectory(prefix="hsfuse-stream-") as folder:
        pair = mirrored_pair(Path(folder), copies)
        for _ in range(turns):
            costs = [microseconds(pair, name, Path(folder) / "fused.tif") for name in names]
            click.echo(", ".join(f"{n} {c:.1f} us ({c / costs[0]:.2f})" for n, c in zip(names, costs, strict=True)))


if __name__ == "__main__":
    stream()

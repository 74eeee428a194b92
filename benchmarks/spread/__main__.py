"""`python -m benchmarks.spread [speed] [memory] [graph] [soak] [forecast]`: a row of a table for each figure."""

from __future__ import annotations

import gc
import hashlib
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import product
from multiprocessing import get_context
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
from unittest.mock import patch

import click
from rasterio.windows import Window

import hsfuse
from benchmarks.spread.scene import MSI, RATIO, make_pair
from hsfuse.core.grid import Grid
from hsfuse.fusion import forecast, run
from hsfuse.io import open_cube
from hsfuse.io.memory import ArrayReader

#: Nothing is estimated of the pair: what is measured is fusing.
PLAIN: dict[str, Any] = {"psf": "assumed", "register": "off", "match_radiometry": "off", "destripe": "off"}


KINDS = ("speed", "memory", "graph", "soak", "forecast")
#: Scenes whose time is foretold: MSI pixels a side, bands.
FORETOLD = ((148, 200), (600, 200), (3000, 10))


@click.command()
@click.argument("what", nargs=-1, type=click.Choice(KINDS))
@click.option("--side", type=int, default=1536, show_default=True, help="MSI pixels a side of the scene for the speed.")
@click.option("--sides", default="1024,2048,4000", show_default=True, help="Those of the scenes for the memory.")
@click.option("--bands", type=int, default=100, show_default=True)
@click.option("--method", default="blend", show_default=True)
@click.option("--turns", type=int, default=3, show_default=True, help="Each time is the best of so many.")
@click.option("--output", default="out.tif", show_default=True, help="That of the speed: .tif, .zarr, .dat.")
@click.option("--scenes", type=int, default=100, show_default=True, help="Scenes of the soak.")
@click.option("--folder", type=click.Path(path_type=Path), help="Where scenes are kept; default: a temporary one.")
def spread(
    what: tuple[str, ...],
    side: int,
    sides: str,
    bands: int,
    method: str,
    turns: int,
    output: str,
    scenes: int,
    folder: Path | None,
) -> None:
    """Measure what Dask brings and costs; set OMP_NUM_THREADS=1, as Dask's workers have it."""
    wanted = what or KINDS
    with tempfile.TemporaryDirectory() as temporary:
        place = folder or Path(temporary)
        if "speed" in wanted:
            speed(place, side, bands, method, turns, output)
        if "memory" in wanted:
            memory(place, [int(one) for one in sides.split(",")], bands, method)
        if "graph" in wanted:
            graph(place)
        if "soak" in wanted:
            soak(place, scenes)
        if "forecast" in wanted:
            foretold(place, method)


def tell(figure: str, value: str) -> None:
    """A row of a Markdown table."""
    click.echo(f"| {figure} | {value} |")


@contextmanager
def workers(count: int) -> Iterator[Any]:
    """A client of so many worker processes of one thread."""
    from dask.distributed import Client, LocalCluster

    with (
        LocalCluster(n_workers=count, threads_per_worker=1, dashboard_address=None, memory_limit=0) as cluster,
        Client(cluster) as client,
    ):
        yield client


def peak_bytes() -> int:
    """The most memory that this process has had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


@dataclass(frozen=True)
class Spent:
    """What a command has taken in seconds: all of it, fusing and writing, and CPU of all its processes."""

    whole: float
    fuse: float
    cpu: float

    def less(self, other: Spent) -> Spent:
        """Without what another has taken."""
        return Spent(self.whole - other.whole, self.fuse - other.fuse, self.cpu - other.cpu)


def speed(place: Path, side: int, bands: int, method: str, turns: int, output: str) -> None:
    """Dask's workers beside as many fuses that have nothing to do with each other, which is what the machine allows.

    Two processes share caches and memory, and each takes more CPU time for the same work. That of a small scene, of
    which each worker has a batch, is the start's, and isn't counted.
    """
    scenes = {"start": make_pair(place, 384, bands), "whole": make_pair(place, side, bands)}
    out, spent, digests = place / output, dict[tuple[str, str], Spent](), set()
    ways = {"no worker": None, "two without Dask": None, "one worker": "local:1", "two workers": "local:2"}
    for (name, where), (scene, files) in product(ways.items(), scenes.items()):
        outputs = [out.with_stem(f"out{number}") for number in range(2 if name == "two without Dask" else 1)]
        spent[name, scene] = best([at_once(files, outputs, method, where) for _ in range(turns)])
        if scene == "whole":
            digests |= {digest(each) for each in outputs}
            took = f"{spent[name, scene].whole:.1f} s, of which fusing and writing {spent[name, scene].fuse:.1f} s"
            load = f"CPU {spent[name, scene].cpu:.1f} s (load {os.getloadavg()[0]:.1f})"
            tell(f"{name}, {side} x {side} x {bands}, {method}, {output}", f"{took}; {load}")
    work = {name: spent[name, "whole"].less(spent[name, "start"]) for name in ways}
    alone, free, one, two = (work[name] for name in ways)
    for name in ("one worker", "two workers"):
        start = spent[name, "start"].less(spent["no worker", "start"])
        tell(f"start of {name}", f"{start.whole:.1f} s, CPU {start.cpu:.1f} s")
    bound, rise = free.cpu / 2 / alone.cpu, two.cpu / alone.cpu
    tell("CPU time above no worker's, one worker", f"{one.cpu / alone.cpu - 1:+.1%} (wanted 5 %)")
    both = (
        f"{rise - 1:+.1%}, of two without Dask {bound - 1:+.1%}: Dask's own share {rise / bound - 1:+.1%} (wanted 5 %)"
    )
    tell("CPU time above no worker's, two workers", both)
    alone, free, one, two = (spent[name, "whole"] for name in ways)
    most, faster = 2 * alone.fuse / free.fuse, one.fuse / two.fuse
    both = f"{faster:.2f} times one worker's speed (wanted 1.7), two without Dask {most:.2f} times one's"
    tell("fusing and writing by two workers", f"{both}: {faster / most:.0%} of what the machine allows")
    tell("whole commands with two workers", f"{one.whole / two.whole:.2f} times as fast as with one")
    tell("bytes equal", str(len(digests) == 1))


def best(found: list[Spent]) -> Spent:
    """The least of each."""
    return Spent(*(min(getattr(each, name) for each in found) for name in ("whole", "fuse", "cpu")))


def at_once(files: tuple[Path, Path], outputs: list[Path], method: str, where: str | None) -> Spent:
    """One `command` for each output, all at once: the longest, and CPU time of all."""
    with ThreadPoolExecutor(len(outputs)) as pool:
        found = list(pool.map(lambda each: command(files, each, method, where), outputs))
    whole, fuse = (max(getattr(each, name) for each in found) for name in ("whole", "fuse"))
    return Spent(whole, fuse, sum(each.cpu for each in found))


def command(files: tuple[Path, Path], output: Path, method: str, where: str | None) -> Spent:
    """One `hsfuse fuse` into float32; its workers end with it and are counted."""
    words = [sys.executable, "-m", "hsfuse", "fuse", *map(str, files), str(output), "--srf=sentinel2a", "--json", "-q"]
    words += [f"--{name.replace('_', '-')}={value}" for name, value in {**PLAIN, "method": method}.items()]
    words += ["--overwrite", *([] if where is None else [f"--dask={where}"])]
    began = time.monotonic()
    with subprocess.Popen(words, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        told = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise click.ClickException(f"exit code {process.returncode} of {' '.join(words)}")
    spent = usage.ru_utime + usage.ru_stime
    return Spent(time.monotonic() - began, json.loads(told)["seconds"]["fuse"], spent)


def fuse(files: tuple[Path, Path], output: Path, method: str, where: str | None, **more: Any) -> Any:
    """One fusion, into float32 unless `more` says otherwise."""
    settings: dict[str, Any] = {**PLAIN, **more, "method": method, "dask": where, "overwrite": True}
    return hsfuse.fuse(files[0], files[1], "sentinel2a", output, **settings)


def digest(path: Path) -> str:
    """Of all pixels."""
    with open_cube(path) as reader:
        rows, cols = reader.grid.shape
        bands, found = list(range(reader.count)), hashlib.sha256()
        for row in range(0, rows, 64):
            found.update(reader.pixels(bands, Window(0, row, cols, min(64, rows - row)))[0].tobytes())
    return found.hexdigest()


def memory(place: Path, sides: list[int], bands: int, method: str) -> None:
    """The most memory of a worker, a new one for each size, and of the process that writes, of the sizes till then."""
    for side in sides:
        files = made_elsewhere(place, side, bands)
        with workers(1) as client:
            fuse(files, place / "out.tif", method, client.scheduler.address, dtype="int16", scale=1e-4)
            (most,) = client.run(peak_bytes).values()
        found = (
            f"a worker {most / 2**20:.0f} MiB (wanted 2048, flat), the writing process {peak_bytes() / 2**20:.0f} MiB"
        )
        tell(f"most memory, {side} x {side} x {bands}, {method}", found)
        (place / "out.tif").unlink()


def made_elsewhere(place: Path, side: int, bands: int) -> tuple[Path, Path]:
    """`make_pair` in a process of its own, whose memory isn't to be counted."""
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        return pool.submit(make_pair, place, side, bands).result()


def graph(place: Path) -> None:
    """The graph of a Sentinel-2 granule by 224 bands: a method fitted to a small scene, and chunks of zeros."""
    import dask.array as da
    import rioxarray
    import xarray as xr

    side, bands = 10976, 224  # of 10980, what the ratio divides
    hsi, msi = (cast(xr.DataArray, rioxarray.open_rasterio(path)) for path in make_pair(place, 256, bands))
    with hsfuse.open_pair(hsi, msi, srf="sentinel2a", **PLAIN) as pair:
        model = hsfuse.fit(pair, "bicubic")
        grid = Grid((side, side), pair.alignment.hr_grid.transform, pair.alignment.hr_grid.crs)
        assert isinstance(pair.hsi, ArrayReader)
        assert isinstance(pair.msi, ArrayReader)
        low = pair.hsi.over(da.zeros((bands, side // RATIO, side // RATIO), chunks=(bands, 512, 512), dtype="float32"))
        high = pair.msi.over(da.zeros((len(MSI), side, side), chunks=(len(MSI), 2048, 2048), dtype="float32"))
        whole = replace(pair, hsi=low, msi=high, alignment=replace(pair.alignment, hr_grid=grid))
        began, cpu = time.monotonic(), time.process_time()
        cube = model.apply(whole)
        tasks = len(cube.__dask_graph__())
        took = time.monotonic() - began, time.process_time() - cpu
    tell(f"graph of {side} x {side} x {bands}", f"{took[0]:.1f} s, CPU {took[1]:.1f} s (wanted 20 s), {tasks} tasks")


def soak(place: Path, scenes: int) -> None:
    """Scenes fused one after the other in one process: memory, open files and what is left after ten and after all."""
    folder = place / "soak"
    folder.mkdir(exist_ok=True)
    before = set(Path(tempfile.gettempdir()).iterdir())
    found = []
    for number in range(scenes):
        files = make_pair(folder, 256, 31, seed=number % 5)
        fuse(files, folder / f"{number}.tif", "glp-reg", None)
        gc.collect()
        found.append((resident(), len(os.listdir("/proc/self/fd"))))
    hidden = [path for path in folder.iterdir() if path.name.startswith(".")]
    left = set(Path(tempfile.gettempdir()).glob("hsfuse-*")) - before
    early, late = found[min(9, scenes - 1)], found[-1]
    tell(f"soak of {scenes} scenes: memory after 10, after all", f"{early[0]:.0f}, {late[0]:.0f} MiB")
    tell("open files after 10, after all; files left", f"{early[1]}, {late[1]}; {len(hidden) + len(left)}")


def foretold(place: Path, method: str) -> None:
    """What a dry run foretells against what fitting, fusing and writing take: CPU time, in which others' work isn't."""
    clock = SimpleNamespace(monotonic=time.process_time)
    with patch.object(forecast, "time", clock), patch.object(run, "time", clock):
        for side, bands in FORETOLD:
            files, told = make_pair(place, side, bands), {**PLAIN, "method": method, "overwrite": True}
            dry = hsfuse.fuse(*files, "sentinel2a", place / "out.tif", dry_run=True, **told)
            expected = dry.provenance["forecast"]["seconds"]
            took = hsfuse.fuse(*files, "sentinel2a", place / "out.tif", **told).seconds
            truth = took["fit"] + took["fuse"]
            text = f"foretold {expected:.1f} s, truth {truth:.1f} s: {expected / truth:.2f} times (wanted 0.5 to 2)"
            tell(f"CPU time of {side} x {side} x {bands}, {method}", text)


def resident() -> float:
    """MiB that this process holds now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 2**20


if __name__ == "__main__":
    spread()

"""`python -m benchmarks.frontier`: accuracy against processor time of every effort and method, table and picture.

Each point is the whole command as a user starts it: Python and torch starting up, the PSF's estimate, fit, fusion and
writing. Processor time is what the operating system counted for the command: it depends less on what else is running.
"""

from __future__ import annotations

import csv
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import click

from hsfuse.cli.console import told_errors
from hsfuse.core.errors import HsfuseError
from hsfuse.core.options import kind_of
from hsfuse.methods import METHODS

EXAMPLE = Path(__file__).resolve().parents[2] / "examples"
EFFORTS = kind_of("effort")[2]
#: Methods that the efforts stand for, or that need weights for one pair of sensors.
LEFT_OUT = ("srlf", "srlf-bands")
NAMES = (*(f"effort {effort}" for effort in EFFORTS), *(name for name in METHODS if name not in LEFT_OUT))


#: Decibels below the best that are drawn, and scenes.
SHOWN, DRAWN = 2.0, 3


@dataclass(frozen=True)
class Point:
    """One way to fuse one scene: processor and wall seconds of the command, and its result against the truth."""

    scene: str
    name: str
    cpu_s: float
    wall_s: float
    psnr_db: float
    sam_deg: float


def measure(name: str, scene: str, files: tuple[Path, Path, Path], srf: str, folder: Path) -> Point:
    """Run one command and assess its cube; HsfuseError with what it said when it fails."""
    import hsfuse

    hsi, msi, truth = files
    output = folder / "fused.tif"
    how = ["--effort", name.removeprefix("effort ")] if name.startswith("effort ") else ["--method", name]
    command = [sys.executable, "-m", "hsfuse", "fuse", "--hsi", hsi, "--msi", msi, "--srf", srf, "-o", output]
    before, clock = _children(), time.monotonic()
    done = subprocess.run([*map(str, command), *how, "--overwrite", "-q"], capture_output=True, text=True, check=False)
    cpu, wall = _children() - before, time.monotonic() - clock
    if done.returncode:
        raise HsfuseError(f"{name} on {scene}: {done.stderr.strip()}")
    ratio = _rows(truth) // _rows(hsi)
    found = hsfuse.assess(output, reference=truth, ratio=ratio).metrics
    return Point(scene, name, round(cpu, 2), round(wall, 2), *(round(float(found[m] or 0), 3) for m in ("psnr", "sam")))


def _children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _rows(path: Path) -> int:
    from hsfuse.io import open_cube

    with open_cube(path) as reader:
        return int(reader.grid.shape[0])


def frontier(points: Iterable[Point]) -> list[Point]:
    """Those of one scene than which no other is both quicker and at least as accurate in PSNR, quickest first."""
    kept: list[Point] = []
    for point in sorted(points, key=lambda p: (p.cpu_s, -p.psnr_db)):
        if not kept or point.psnr_db > kept[-1].psnr_db:
            kept.append(point)
    return kept


def write_table(points: list[Point], path: Path) -> None:
    """All points as CSV."""
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, [f.name for f in fields(Point)], lineterminator="\n")
        table.writeheader()
        table.writerows(map(asdict, points))


def draw(points: list[Point], path: Path) -> None:
    """PSNR above, spectral angle below, against processor time, the first scenes side by side, with the frontier.

    Efforts are red and bold. What is more than SHOWN below a scene's best isn't drawn, nor what an effort stands for.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, NullFormatter

    scenes = list(dict.fromkeys(p.scene for p in points))[:DRAWN]
    figure = Figure(figsize=(5.6 * len(scenes), 6.4), layout="constrained")
    axes = figure.subplots(2, len(scenes), squeeze=False, sharex="col")
    for column, scene in enumerate(scenes):
        here = [p for p in points if p.scene == scene]
        stood_for = {(p.psnr_db, p.sam_deg) for p in here if p.name in ("effort fast", "effort normal")}
        here = [p for p in here if p.name.startswith("effort ") or (p.psnr_db, p.sam_deg) not in stood_for]
        best, top = frontier(here), max(p.psnr_db for p in here)
        shown = [p for p in here if p.psnr_db > top - SHOWN]
        for row, (key, title) in enumerate((("psnr_db", "PSNR, dB"), ("sam_deg", "spectral angle, degrees"))):
            place = axes[row][column]
            line = [p for p in best if p in shown]
            place.plot([p.cpu_s for p in line], [getattr(p, key) for p in line], color="0.75", zorder=1)
            for p in shown:
                effort, below = p.name.startswith("effort "), p.name != "effort normal"
                place.scatter(
                    p.cpu_s, getattr(p, key), s=36 if effort else 14, color="C3" if effort else "C0", zorder=2
                )
                place.annotate(
                    p.name.removeprefix("effort "), (p.cpu_s, getattr(p, key)), xytext=(4, -10 if below else 5),
                    textcoords="offset points", fontsize=8, fontweight="bold" if effort else "normal",
                )  # fmt: skip
            place.set(xscale="log", ylabel=title, title=scene if row == 0 else "")
            place.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            place.xaxis.set_major_formatter("{x:g}")
            place.xaxis.set_minor_formatter(NullFormatter())
            place.margins(x=0.15, y=0.15)
            place.grid(alpha=0.3)
        axes[1][column].invert_yaxis()
        axes[1][column].set_xlabel("processor time of the whole command, seconds")
    figure.savefig(path)


def text(points: list[Point]) -> str:
    """A Markdown table, quickest first; what is on the frontier of its scene is bold."""
    lines = ["| scene | | CPU s | wall s | PSNR dB | SAM ° |", "| --- | --- | ---: | ---: | ---: | ---: |"]
    for scene in dict.fromkeys(p.scene for p in points):
        here = sorted((p for p in points if p.scene == scene), key=lambda p: p.cpu_s)
        best = frontier(here)
        for p in here:
            name = f"**{p.name}**" if p in best else p.name
            lines.append(f"| {scene} | {name} | {p.cpu_s:.1f} | {p.wall_s:.1f} | {p.psnr_db:.2f} | {p.sam_deg:.3f} |")
    return "\n".join(lines)


@click.command()
@click.option(
    "--scene", "scenes", multiple=True, nargs=5, metavar="NAME HSI MSI TRUTH SRF",
    help="A pair with its truth; several times for several. Default: the example.",
)  # fmt: skip
@click.option("--only", multiple=True, type=click.Choice(NAMES), help="Only these ways to fuse.")
@click.option(
    "--table",
    type=click.Path(path_type=Path),
    default=EXAMPLE / "frontier.csv",
    show_default="examples/frontier.csv",
)
@click.option(
    "--picture",
    type=click.Path(path_type=Path),
    default=EXAMPLE / "frontier.svg",
    show_default="examples/frontier.svg",
)
def run(scenes: tuple[tuple[str, str, str, str, str], ...], only: tuple[str, ...], table: Path, picture: Path) -> None:
    """Fuse scenes in every way that there is, and show what accuracy costs."""
    data = EXAMPLE / "data"
    own = ("Indian Pines x4", *(str(data / n) for n in ("lrhsi.hdr", "sentinel2.tif", "indian_pines_reference.tif")))
    points = []
    with told_errors(), tempfile.TemporaryDirectory(prefix="hsfuse-frontier-") as folder:
        for scene, hsi, msi, truth, srf in scenes or ((*own, "sentinel2"),):
            for name in only or NAMES:
                points.append(measure(name, scene, (Path(hsi), Path(msi), Path(truth)), srf, Path(folder)))
                click.echo(f"{scene}: {name}, {points[-1].cpu_s:.1f} s", err=True)
                write_table(points, table)
        draw(points, picture)
    click.echo(text(points))


if __name__ == "__main__":
    run()

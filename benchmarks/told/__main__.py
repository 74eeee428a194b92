"""`python -m benchmarks.told NAME CUBE RATIO`: rows of what is off one way at a time, by default and told the truth.

CUBE is an `.npz` with `cube` (H, W, C) in reflectance and `wavelengths_nm` (C,). By default a user's files and the
response that goes with them are all that is known; told are the kernel, the response, the place, the MSI made linear
and without its cloud, and an LRHSI without stripes and smile; where it turns or drifts, the place is told and the PSF
is estimated there. Figures are over the ground that both of these have: where the LRHSI is moved, they may lose other
rows of it; where some bands are loud, which aren't in what is told, over the others.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import click
import numpy as np
import xarray as xr
from affine import Affine
from numpy.typing import NDArray
from scipy.ndimage import map_coordinates

import hsfuse
from benchmarks.told.pairs import (
    APART,
    ENLARGED,
    FIELDS,
    KINDS,
    LOUD,
    Files,
    Floats,
    Off,
    displaced,
    kernel,
    louder,
    true_kernel,
    write_pair,
    write_told,
)
from hsfuse.core.grid import Distortion, Motion
from hsfuse.core.options import FuseOptions
from hsfuse.metrics import psnr, sam_degrees
from hsfuse.physics.model import Psf

#: What is left to find of a pair whose truth is told: nothing; where its place is told by a motion, its PSF.
NOTHING = FuseOptions(register="off", match_radiometry="off", destripe="off", smile="off", haze="off")


def fused(
    files: Files, methods: Sequence[str], known: FuseOptions, psf: Psf | None = None, motion: Motion | None = None
) -> tuple[list[xr.DataArray], list[str]]:
    """A cube (C, H, W) by each method, and what is said of the pair."""
    options = replace(known, srf=str(files.srf))
    with hsfuse.open_pair(files.hsi, files.msi, options, known_psf=psf, known_motion=motion) as pair:
        cubes = [hsfuse.fit(pair, method).apply(pair).load() for method in methods]
        return cubes, [one.text for one in [*pair.notes, *pair.warnings]]


def scored(
    cubes: Sequence[xr.DataArray], truth: Floats, border: int = 0, without: NDArray[np.intp] | None = None
) -> list[tuple[float, float]]:
    """PSNR in dB and spectral angle in degrees of cubes over the ground that all have, against the truth (H, W, C).

    Less a `border` in pixels, `without` some bands.
    """
    cubes = [cube[:, border : cube.shape[1] - border, border : cube.shape[2] - border]
             for cube in xr.align(*cubes, join="inner")]  # fmt: skip
    rows, cols = ((np.abs(cubes[0][axis].values - first) / 10).round().astype(int) for axis, first in AXES)
    wanted = np.moveaxis(truth[np.ix_(rows, cols)], 2, 0).astype(np.float32)
    both = np.all([np.isfinite(cube.values).all(0) for cube in cubes], axis=0)
    known = np.arange(len(wanted)) if without is None else np.delete(np.arange(len(wanted)), without)
    held = [cube.values[known] for cube in cubes]
    return [(psnr(cube, wanted[known], mask=both), sam_degrees(cube, wanted[known], both)) for cube in held]


#: Where the first pixel's centre lies along each axis.
AXES = (("y", 5.8e6 - 5), ("x", 4e5 + 5))


def place(off: Off, shape: tuple[int, int], s: int) -> Affine:
    """MSI pixels of LR pixels by their georeference to where the ground lies that they see, about the PSF's centre."""
    rows, cols = (n // s for n in shape)
    middle = (s * cols / 2, s * rows / 2)
    turned = Affine.rotation(-off.rotate, middle)
    last = s * (rows - 1)
    drifting = Affine(1, off.drift * s / max(last, 1), -off.drift * s * (s / 2) / max(last, 1), 0, 1, 0)
    taps = kernel(off.psf, s)
    at = np.arange(len(taps)) - len(taps) // 2
    down, right = off.shift[0] * s + taps.sum(1) @ at, off.shift[1] * s + taps.sum(0) @ at
    return Affine.translation(right, down) @ drifting @ turned


def back(off: Off, shape: tuple[int, int], s: int) -> Motion:
    """Where the LRHSI has what the MSI has at a place: the other way round, with a field before it is blurred."""
    affine = ~place(off, shape, s)
    if not off.bends:
        return Motion(affine)
    right_way = displaced(off, shape, s)

    def at(places: Floats) -> Floats:
        there = places
        for _ in range(12):
            index = (there - 0.5).T
            there = places - np.stack([map_coordinates(v, index, order=1, mode="nearest") for v in right_way], 1)
        return there - places

    rows, cols = (n // s * s for n in shape)
    return Motion(affine, Distortion.through(at, np.zeros(2), np.array([rows, cols], float), float(s)))


def row(
    cube: Floats, nm: Floats, s: int, kind: str, methods: Sequence[str], seed: int
) -> tuple[list[list[tuple[float, float]]], list[str]]:
    """Of each method by default and told, and for `APART` as the pair is, each as `scored` has it; and what is said by
    default."""
    off = (KINDS | FIELDS | ENLARGED | APART | LOUD)[kind]
    with tempfile.TemporaryDirectory(prefix="hsfuse-told-") as folder:
        files = write_pair(cube, nm, s, off, Path(folder), seed)
        default, said = fused(files, methods, FuseOptions())
        ways = [default, *([fused(files, methods, FuseOptions(register="off"))[0]] if kind in APART else [])]
    with tempfile.TemporaryDirectory(prefix="hsfuse-told-") as folder:
        files = write_told(cube, nm, s, off, Path(folder), seed)
        if off.turns:
            motion = back(off, (len(cube), cube.shape[1]), s)
            ways.insert(1, fused(files, methods, replace(NOTHING, register="auto"), motion=motion)[0])
        else:
            ways.insert(1, fused(files, methods, NOTHING, Psf(true_kernel(off, s)))[0])
    loud = louder(off.loud, nm, files.truth)[0] if off.loud else None
    return [scored(cubes, files.truth, without=loud) for cubes in zip(*ways, strict=True)], said


def bent(cube: Floats, nm: Floats, s: int, kind: str, method: str, seed: int) -> list[tuple[float, float]]:
    """By default, told the field, and as the pair is, 2 LR pixels from the border, each as `scored` has it."""
    off = FIELDS[kind]
    with tempfile.TemporaryDirectory(prefix="hsfuse-told-") as folder:
        files = write_pair(cube, nm, s, off, Path(folder), seed)
        motion = back(off, (len(cube), cube.shape[1]), s)
        ways = [(FuseOptions(), None), (FuseOptions(), motion), (FuseOptions(register="off"), None)]
        cubes = [fused(files, [method], known, motion=place)[0][0] for known, place in ways]
    return scored(cubes, files.truth, 2 * s)


@click.command()
@click.argument("name")
@click.argument("cube", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.argument("ratio", type=int)
@click.option("--method", "methods", multiple=True, default=["glp-reg"], show_default=True, help="Any number of them.")
@click.option(
    "--only", multiple=True, type=click.Choice([*KINDS, *FIELDS, *ENLARGED, *APART, *LOUD]), help="Only these kinds."
)
@click.option("--fields", is_flag=True, help="Kinds of fields, also as the pairs are, 2 LR pixels from the border.")
@click.option("--seed", default=0, show_default=True)
@click.option("--said", is_flag=True, help="Say on stderr what each default run said.")
@click.option("--lack", is_flag=True, help="Of each method what it lacks to itself told the truth: median and most.")
def run(
    name: str,
    cube: Path,
    ratio: int,
    methods: tuple[str, ...],
    only: tuple[str, ...],
    fields: bool,
    seed: int,
    said: bool,
    lack: bool,
) -> None:
    """Print the rows of one scene."""
    with np.load(cube) as held:
        data, nm = held["cube"].astype(np.float64), held["wavelengths_nm"].astype(np.float64)
    if fields:
        click.echo(
            f"| `{methods[0]}`, off by | {name} x{ratio}: default | told | as it is |\n| --- | --- | --- | --- |"
        )
        for kind in only or FIELDS:
            click.echo(_line(kind, bent(data, nm, ratio, kind, methods[0], seed)))
        return
    columns = ["default", "told", *(["as it is"] if only and set(only) <= set(APART) else [])]
    if not lack:
        click.echo(
            f"| off by | {name} x{ratio}: {' | '.join(f'`{each}`, {way}' for each in methods for way in columns)} |"
        )
        click.echo(f"|{' --- |' * (1 + len(columns) * len(methods))}")
    found: dict[str, list[list[tuple[float, float]]]] = {}
    for kind in only or KINDS:
        found[kind], notes = row(data, nm, ratio, kind, methods, seed)
        if not lack:
            click.echo(_line(kind, [way for each in found[kind] for way in each]))
        if said:
            click.echo("\n".join(f"    {line}" for line in notes), err=True)
    if lack:
        click.echo(f"| {name} x{ratio} | lacks dB: median | most | lacks angle: median | most |\n|{' --- |' * 5}")
        for number, method in enumerate(methods):
            click.echo(_lacking(method, {kind: each[number] for kind, each in found.items()}))


def _line(kind: str, figures: list[tuple[float, float]]) -> str:
    return f"| {kind} | {' | '.join(f'{db:.2f}/{degrees:.2f}' for db, degrees in figures)} |"


def _lacking(method: str, found: dict[str, list[tuple[float, float]]]) -> str:
    """What a method lacks by default to itself told the truth, over kinds: PSNR in dB, angle in %."""
    db = {kind: told[0] - default[0] for kind, (default, told, *_) in found.items()}
    angle = {kind: 100 * (default[1] / told[1] - 1) for kind, (default, told, *_) in found.items()}
    parts = []
    for lacks, unit in ((db, ""), (angle, " %")):
        worst = max(lacks, key=lacks.__getitem__)
        parts.append(f"{np.median([*lacks.values()]):.2f}{unit} | {lacks[worst]:.2f}{unit} ({worst})")
    return f"| `{method}` | {' | '.join(parts)} |"


if __name__ == "__main__":
    run()

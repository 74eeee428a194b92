"""Draw the README's picture of a fused cube of the example: LRHSI, fused cube and truth, and the spectrum of one field.

python examples/draw_example.py [FUSED.tif] [PICTURE.png]
"""

from __future__ import annotations

import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

import hsfuse
from hsfuse.core.cube import Cube

EXAMPLES = Path(__file__).resolve().parent
#: Red, green and blue of the false colour in nm, the field's pixel (row, column) in the MSI, the GSDs' ratio.
COLOURS, FIELD, RATIO = (1650, 850, 660), (118, 34), 4
#: Inches of a panel's side, and of all.
SIDE, SIZE = 2.4, (11.7, 3.1)


def panels(fused: Path) -> dict[str, Cube]:
    """What is shown, by its title."""
    files = {
        "LRHSI, 80 m": EXAMPLES / "data" / "lrhsi.hdr",
        "fused, 20 m": fused,
        "truth, 20 m": EXAMPLES / "data" / "indian_pines_reference.tif",
    }
    return {title: read(path) for title, path in files.items()}


def read(path: Path) -> Cube:
    """A whole raster."""
    with hsfuse.open_cube(path) as reader:
        return reader.read()


def false_colour(cube: Cube, ends: np.ndarray | None = None) -> np.ndarray:
    """(H, W, 3) between 0 and 1; `ends` (2, 3) are what is 0 and 1, without them the cube's planes (H, W, 3)."""
    nm = np.asarray(cube.wavelengths_nm)
    planes = np.stack([cube.data[np.abs(nm - wanted).argmin()] for wanted in COLOURS], axis=-1)
    return planes if ends is None else np.clip((planes - ends[0]) / (ends[1] - ends[0]), 0, 1)


def draw(fused: Path, picture: Path) -> None:
    """Three images in one stretch, from the 1st to the 99th percentile of the truth, and three spectra."""
    shown = panels(fused)
    ends = np.percentile(false_colour(shown["truth, 20 m"]), (1, 99), axis=(0, 1))
    figure = Figure(figsize=SIZE)
    width, height = SIZE
    for i, (title, cube) in enumerate(shown.items()):
        place = figure.add_axes(((0.06 + 2.53 * i) / width, 0.45 / height, SIDE / width, SIDE / height))
        place.imshow(false_colour(cube, ends), interpolation="nearest", extent=(0, 144, 144, 0))
        place.plot(FIELD[1] + 0.5, FIELD[0] + 0.5, "o", markersize=8, markerfacecolor="none", markeredgecolor="white")
        place.set_title(title, fontsize=10)
        place.set_axis_off()
    chart = figure.add_axes((8.1 / width, 0.45 / height, 3.55 / width, SIDE / height))
    styles = zip(shown, ("0.6", "#c76a00", "#0072b2"), ("-", "--", "-"), (2, 3, 1), strict=True)
    for title, colour, style, order in styles:
        cube, step = shown[title], RATIO if title.startswith("LRHSI") else 1
        spectrum = cube.data[:, FIELD[0] // step, FIELD[1] // step]
        for part in detectors(np.asarray(cube.wavelengths_nm)):
            nm = np.asarray(cube.wavelengths_nm)[part]
            named = {"label": title.split(",")[0]} if part.start in (0, None) else {}
            chart.plot(nm, spectrum[part], style, color=colour, zorder=order, linewidth=1.3, **named)
    chart.set_title("spectrum at the circle", fontsize=10)
    chart.set_xlabel("wavelength, nm")
    chart.set_ylabel("radiance-like value")
    chart.spines[["top", "right"]].set_visible(False)
    chart.legend(frameon=False, fontsize=8)
    figure.savefig(picture, dpi=100)


def detectors(nm: np.ndarray) -> list[slice]:
    """Runs of bands without a gap and without a step back."""
    steps = np.diff(nm)
    edges = [0, *(np.flatnonzero((steps < 0) | (steps > 4 * np.median(steps))) + 1), nm.size]
    return [slice(int(a), int(b)) for a, b in pairwise(edges)]


if __name__ == "__main__":
    given = [Path(name) for name in sys.argv[1:]]
    draw(given[0] if given else Path("fused.tif"), given[1] if len(given) > 1 else EXAMPLES / "example.png")

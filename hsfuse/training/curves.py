"""A picture of how a training went, from its CSV log."""

from __future__ import annotations

import csv
from pathlib import Path

#: Columns that are drawn: key in the log, and what it means.
TRAINING = {"gain": "log ratio of the RMS error to the base's", "l1": "L1", "angle": "spectral angle, relative"}
VALIDATION = ("PSNR gain over the base, dB", "SAM relative to the base", "L1")


def draw_curves(table: Path, picture: Path) -> None:
    """Draw the log `table` against steps: the loss's terms in training above, scores on validation below, as PNG."""
    from matplotlib.figure import Figure

    rows = read_log(table)
    known = [key for key in (*TRAINING, *VALIDATION) if rows and key in rows[0]]
    upper, lower = [k for k in known if k in TRAINING], [k for k in known if k not in TRAINING]
    columns = max(len(upper), len(lower), 1)
    figure = Figure(figsize=(3.6 * columns, 2.6 * (1 + bool(lower))), layout="constrained")
    for line, keys in enumerate((upper, lower)):
        for column, key in enumerate(keys):
            axes = figure.add_subplot(1 + bool(lower), columns, line * columns + column + 1)
            axes.plot([row["step"] for row in rows], [row[key] for row in rows], marker="." if len(rows) < 40 else "")
            axes.set_title(("training: " if line == 0 else "validation: ") + TRAINING.get(key, key), fontsize=8)
            axes.set_xlabel("step", fontsize=8)
            axes.tick_params(labelsize=7)
            axes.grid(alpha=0.3)
    figure.savefig(picture, dpi=120)


def read_log(table: Path) -> list[dict[str, float]]:
    """The rows of a training's CSV log as numbers."""
    with table.open(newline="", encoding="utf-8") as file:
        return [{key: float(value) for key, value in row.items()} for row in csv.DictReader(file)]

"""The benchmark as one self-contained HTML page: tables, accuracy against time, the configuration and the command."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from statistics import fmean, median
from typing import Any

from markupsafe import Markup

from hsfuse.assessment.report.page import fill
from hsfuse.benchmark.results import Row
from hsfuse.benchmark.summary import complete_pairs, labels_of, overview, summary
from hsfuse.benchmark.table import COLUMNS, OVERVIEW, cells, errors, groups
from hsfuse.core.values import counted
from hsfuse.metrics import CATALOGUE

_FOLDER = Path(__file__).parent
#: Colours that colour-blind people tell apart, and shapes, which together tell 24 methods apart; and that of the rest,
#: on light and on dark paper.
COLOURS, SHAPES, INK = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#b59a00", "#7a828c"), "osD^", "#7a828c"
#: Metrics plotted against time, and those that the page defines.
PLOTTED = ("psnr", "sam")
DEFINED = ("psnr", "sam", "ergas", "uiqi", "ssim", "hsi_relative_rmse", "msi_relative_rmse")


def render_page(rows: Sequence[Row], source: Mapping[str, Any], command: str) -> str:
    """One HTML page that needs no other file."""
    labels, found = labels_of(rows), groups(rows)
    scenes = {row.case.scene.name for row in rows}
    shared = [row for same in complete_pairs(rows) for row in same]
    return fill(
        "page.html",
        _FOLDER,
        title=f"{len(labels)} methods on {counted(len(scenes), 'scene')}",
        own=Markup((_FOLDER / "page.css").read_text(encoding="utf-8")),
        lead=_lead(rows, len(found)),
        first=" and in ".join(column.title for column in OVERVIEW),
        summary=(summary(rows), overview(rows), _plots(shared, labels)) if len(found) > 1 else None,
        columns=COLUMNS,
        pairs=[(title, _lines(same), errors(same), _plots(same, labels)) for title, same in found],
        pair_count=len(found),
        command=command or "not recorded",
        config=json.dumps(source, indent=2, default=str, ensure_ascii=False),
        metrics=[CATALOGUE[key] for key in DEFINED],
    )


def _lead(rows: Sequence[Row], pairs: int) -> str:
    failed = sum(row.outcome.error is not None for row in rows)
    devices = sorted({row.outcome.device for row in rows if row.outcome.device})
    text = f"{counted(pairs, 'simulated pair')}, {counted(len(rows), 'case')}, on {', '.join(devices) or 'no device'}."
    return text + (f" {counted(failed, 'case')} failed." if failed else "")


def _lines(rows: Sequence[Row]) -> list[tuple[str, list[Any], str]]:
    """Method, figures and device of each row."""
    told = zip(rows, cells(rows), strict=True)
    return [(row.case.method.label, line, row.outcome.device or "-") for row, line in told]


def _plots(rows: Sequence[Row], labels: Sequence[str]) -> list[tuple[str, Markup]]:
    """Titles and pictures of the metrics that are plotted, those of which there is something to see."""
    found = []
    for info in (CATALOGUE[key] for key in PLOTTED):
        points = {label: point for label in labels if (point := _point(info.key, rows, label)) is not None}
        if points:
            picture = scatter(points, labels, f"{info.title}, {info.unit}", higher=info.direction == "higher")
            found.append((f"{info.title}, {info.unit} ({info.direction} is better)", Markup(picture)))
    return found


def _point(key: str, rows: Sequence[Row], label: str) -> tuple[float, float] | None:
    """A method's median time and mean figure; None where it has none."""
    own = [row for row in rows if row.case.method.label == label]
    known = [(row.seconds, value) for row in own if row.seconds is not None and (value := row.value(key)) is not None]
    if not known or not all(math.isfinite(value) for _, value in known):
        return None
    return max(median(s for s, _ in known), 0.01), fmean(value for _, value in known)


def scatter(points: Mapping[str, tuple[float, float]], labels: Sequence[str], title: str, *, higher: bool) -> str:
    """Seconds and values by method as an SVG, time on a logarithmic axis; the methods are listed, the best first.

    A dashed line joins those that no other beats in both. Colour and shape are by the place among all `labels`.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator

    ranked = sorted(points, key=lambda label: points[label][1], reverse=higher)
    best = [label for i, label in enumerate(ranked) if all(points[label][0] < points[other][0] for other in ranked[:i])]
    drawn: Any = {"svg.fonttype": "none", "svg.hashsalt": "hsfuse", "font.size": 9, "font.family": "sans-serif"}
    drawn |= {f"{part}color": INK for part in ("text.", "axes.label", "axes.edge", "xtick.", "ytick.")}
    with rc_context(drawn):
        figure = Figure(figsize=(6.4, max(3.2, 0.17 * len(points))))
        axes = figure.add_axes((0.08, 0.15, 0.66, 0.82))
        axes.plot(*zip(*(points[label] for label in best), strict=True), "--", color=INK, lw=1, zorder=1, gid="front")
        for label in ranked:
            i = labels.index(label)
            shape, colour = SHAPES[(i + i // len(COLOURS)) % len(SHAPES)], COLOURS[i % len(COLOURS)]
            axes.plot(*points[label], shape, color=colour, label=label, gid=f"method {label}", clip_on=False)
        axes.set(xscale="log", xlabel="seconds, fit and fuse")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_formatter("")
        axes.margins(0.1)
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
        figure.legend(loc="center right", frameon=False)
        out = io.StringIO()
        figure.savefig(out, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    listed = "; ".join(f"{label} {value:.4g} in {seconds:.3g} s" for label, (seconds, value) in points.items())
    told = escape(f"{title} against seconds: {listed}")
    _, _, svg = out.getvalue().partition("<svg ")
    return f'<svg role="img" aria-label="{told}" {svg}'

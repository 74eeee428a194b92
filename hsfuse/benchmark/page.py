"""The benchmark as one self-contained HTML page: tables, accuracy against time, the configuration and the command."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from statistics import fmean, median
from string import Template
from typing import Any

from hsfuse.benchmark.results import Row
from hsfuse.benchmark.summary import Matrix, complete_pairs, labels_of, overview, summary
from hsfuse.benchmark.table import COLUMNS, OVERVIEW, Cell, cells, errors, groups
from hsfuse.core.package import __version__
from hsfuse.metrics import CATALOGUE

WIDTH, HEIGHT = 520, 300
LEFT, RIGHT, TOP, BOTTOM = 52, 84, 12, 42
#: Colours of the style (custom properties --m0, --m1, ...) and shapes: together they tell 24 methods apart.
COLOURS = 6
SHAPES = ("circle", "square", "diamond", "triangle")
#: Size of a line and mean width of a letter of the names, in the picture's units.
LINE_HEIGHT, LETTER = 13, 6.6
TICKS = 5


@dataclass(frozen=True)
class Point:
    """A method's seconds and value; `index` is its place among the methods, for colour and shape."""

    label: str
    index: int
    seconds: float
    value: float


@dataclass(frozen=True)
class Axis:
    """Values from `low` to `high` on pixels from `start` to `end`, evenly or by their logarithm."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def at(self, value: float) -> float:
        """Pixel of a value."""
        low, high, v = (
            (math.log10(x) for x in (self.low, self.high, value)) if self.log else (self.low, self.high, value)
        )
        return self.start + (v - low) / (high - low) * (self.end - self.start)

    def ticks(self) -> list[float]:
        """Round values inside."""
        if self.log:
            exponents = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
            inside = [m * 10.0**n for n in exponents for m in (1, 2, 5) if self.low <= m * 10.0**n <= self.high]
            powers = [v for v in inside if math.log10(v).is_integer()]
            return powers if len(powers) > 2 else inside
        step = _round_step((self.high - self.low) / TICKS)
        return [n * step for n in range(math.ceil(self.low / step), math.floor(self.high / step) + 1)]


def _round_step(step: float) -> float:
    """1, 2 or 5 times a power of ten, not below the step."""
    power = 10.0 ** math.floor(math.log10(step))
    return next(m * power for m in (1, 2, 5, 10) if m * power >= step * (1 - 1e-9))


def scatter(points: Sequence[Point], title: str, unit: str, *, higher: bool) -> str:
    """An SVG, time to the right on a logarithmic axis; the dashed line joins those that no other beats in both."""
    shown = [p for p in points if math.isfinite(p.value)]
    if not shown:
        return ""
    x = _time_axis([p.seconds for p in shown])
    y = _value_axis([p.value for p in shown])
    named = f"{title}{f', {unit}' if unit else ''} against seconds"
    listed = "; ".join(f"{p.label} {p.value:.4g} in {p.seconds:.3g} s" for p in shown)
    parts = [
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(f"{named}: {listed}")}">',
        *_frame(x, y),
        _front(shown, x, y, higher),
        *(_mark(p, x.at(p.seconds), y.at(p.value)) for p in shown),
        *_names(shown, x, y),
        f'<text x="{(x.start + x.end) / 2:.0f}" y="{HEIGHT - 4}" text-anchor="middle">seconds, fit and fuse</text>',
        "</svg>",
    ]
    return "\n".join(parts)


def _time_axis(seconds: Sequence[float]) -> Axis:
    low, high = max(min(seconds), 0.01), max(*seconds, 0.01)
    return Axis(low / 1.6, high * 1.6, LEFT, WIDTH - RIGHT, log=True)


def _value_axis(values: Sequence[float]) -> Axis:
    low, high = min(values), max(values)
    room = 0.1 * (high - low) or 0.05 * abs(high) or 1.0
    return Axis(low - room, high + room, HEIGHT - BOTTOM, TOP)


def _frame(x: Axis, y: Axis) -> list[str]:
    out = []
    for value in y.ticks():
        at = y.at(value)
        out.append(f'<line class="gridline" x1="{x.start}" x2="{x.end}" y1="{at:.1f}" y2="{at:.1f}"/>')
        out.append(f'<text x="{x.start - 6}" y="{at + 4:.1f}" text-anchor="end">{value:.6g}</text>')
    for value in x.ticks():
        at = x.at(value)
        out.append(f'<line class="gridline" x1="{at:.1f}" x2="{at:.1f}" y1="{y.end}" y2="{y.start}"/>')
        out.append(f'<text x="{at:.1f}" y="{y.start + 16}" text-anchor="middle">{value:g}</text>')
    out.append(f'<path class="axis" fill="none" d="M{x.start} {y.end}V{y.start}H{x.end}"/>')
    return out


def _front(points: Sequence[Point], x: Axis, y: Axis, higher: bool) -> str:
    """Line through the points than which no other is both faster and better."""
    best, line = -math.inf, []
    for p in sorted(points, key=lambda p: (p.seconds, -p.value if higher else p.value)):
        worth = p.value if higher else -p.value
        if worth > best:
            best = worth
            line.append(f"{x.at(max(p.seconds, 0.01)):.1f},{y.at(p.value):.1f}")
    return f'<polyline class="hair" fill="none" points="{" ".join(line)}"/>'


def _mark(point: Point, x: float, y: float) -> str:
    shape, r = SHAPES[(point.index + point.index // COLOURS) % len(SHAPES)], 5
    outlines = {
        "circle": f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{r}"',
        "square": f'<rect x="{x - r + 0.5:.1f}" y="{y - r + 0.5:.1f}" width="{2 * r - 1}" height="{2 * r - 1}"',
        "diamond": f'<path d="M{x:.1f} {y - r - 1:.1f}l{r + 1} {r + 1}l{-r - 1} {r + 1}l{-r - 1} {-r - 1}z"',
        "triangle": f'<path d="M{x:.1f} {y - r - 1:.1f}l{r + 1} {2 * r}h{-2 * r - 2}z"',
    }
    told = escape(f"{point.label}: {point.value:.5g}, {point.seconds:.3g} s")
    return f'{outlines[shape]} style="fill:var(--m{point.index % COLOURS})"><title>{told}</title>{_CLOSE[shape]}'


_CLOSE = {"circle": "</circle>", "square": "</rect>", "diamond": "</path>", "triangle": "</path>"}


@dataclass(frozen=True)
class _Box:
    """A rectangle that a name or a mark takes up."""

    left: float
    right: float
    top: float
    bottom: float

    def meets(self, other: _Box) -> bool:
        across = self.left < other.right and self.right > other.left
        return across and self.top < other.bottom and self.bottom > other.top


def _names(points: Sequence[Point], x: Axis, y: Axis) -> list[str]:
    """Names beside their points: on the first side where they cover nothing."""
    spots = [(x.at(p.seconds), y.at(p.value)) for p in points]
    taken = [_Box(a - 7, a + 7, b - 7, b + 7) for a, b in spots]
    out: list[str] = []
    for p, (a, b) in zip(points, spots, strict=True):
        sides = _sides(a, b, LETTER * len(p.label))
        anchor, box = next((s for s in sides if not any(s[1].meets(other) for other in taken)), sides[0])
        taken.append(box)
        at = {"start": box.left, "end": box.right, "middle": (box.left + box.right) / 2}[anchor]
        where = f'x="{at:.1f}" y="{box.bottom - 2:.1f}" text-anchor="{anchor}"'
        out.append(f'<text {where} class="name">{escape(p.label)}</text>')
    return out


def _sides(x: float, y: float, width: float) -> list[tuple[str, _Box]]:
    """Right, left, above and below a point: the text's anchor and its box."""
    half, gap = LINE_HEIGHT / 2, 9
    return [
        ("start", _Box(x + gap, x + gap + width, y - half, y + half)),
        ("end", _Box(x - gap - width, x - gap, y - half, y + half)),
        ("middle", _Box(x - width / 2, x + width / 2, y - 8 - LINE_HEIGHT, y - 8)),
        ("middle", _Box(x - width / 2, x + width / 2, y + 8, y + 8 + LINE_HEIGHT)),
    ]


_FOLDER = Path(__file__).parent
#: Metrics plotted against time.
PLOTTED = ("psnr", "sam")


def render_page(rows: Sequence[Row], source: Mapping[str, Any], command: str) -> str:
    """One HTML page that needs no other file."""
    labels = labels_of(rows)
    found = groups(rows)
    scenes = list(dict.fromkeys(row.case.scene.name for row in rows))
    return Template((_FOLDER / "page.html").read_text(encoding="utf-8")).substitute(
        version=escape(__version__),
        style=_style(),
        title=escape(f"{len(labels)} methods on {_counted(len(scenes), 'scene')}"),
        lead=escape(_lead(rows, len(found))),
        sections="\n".join([*_summary(rows, len(found), labels), *(_section(*pair, labels) for pair in found)]),
        command=escape(command or "not recorded"),
        config=escape(json.dumps(source, indent=2, default=str, ensure_ascii=False)),
        metrics=_definitions(),
    )


def _style() -> str:
    """The report's style and the page's own."""
    from hsfuse.assessment import report

    sheets = (Path(report.__file__).with_name("style.css"), _FOLDER / "page.css")
    return "\n".join(sheet.read_text(encoding="utf-8") for sheet in sheets)


def _counted(n: int, what: str) -> str:
    return f"{n} {what}" + ("" if n == 1 else "s")


def _lead(rows: Sequence[Row], pairs: int) -> str:
    failed = sum(row.outcome.error is not None for row in rows)
    devices = sorted({row.outcome.device for row in rows if row.outcome.device})
    text = (
        f"{_counted(pairs, 'simulated pair')}, {_counted(len(rows), 'case')}, on {', '.join(devices) or 'no device'}."
    )
    return text + (f" {_counted(failed, 'case')} failed." if failed else "")


def _summary(rows: Sequence[Row], pairs: int, labels: Sequence[str]) -> list[str]:
    """What all pairs tell together, where there are several."""
    if pairs < 2:
        return []
    shared = [row for same in complete_pairs(rows) for row in same]
    plots = "".join(_plot(key, shared, labels) for key in PLOTTED)
    return [
        f"<section><h2>All {pairs} pairs</h2><p>Means over scenes, the number of scenes in brackets; how often each "
        f"method is first in {' and in '.join(c.title for c in OVERVIEW)}; the median processor time of its whole "
        "command.</p>",
        _matrix(summary(rows)),
        f'<div class="charts">{plots}</div>',
        f"<details><summary>Every pair</summary>{_matrix(overview(rows))}</details></section>",
    ]


def _matrix(table: Matrix) -> str:
    head = "".join(
        f'<th scope="col"{" class=num" if i else ""}>{escape(text)}</th>' for i, text in enumerate(table.head)
    )
    body = "".join(
        f'<tr><th scope="row">{escape(label)}</th>{"".join(map(_entry, line))}</tr>' for label, line in table.lines
    )
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _entry(figures: Sequence[Cell]) -> str:
    shown = " / ".join(f"<b>{escape(c.text)}</b>" if c.best else escape(c.text) for c in figures)
    return f'<td class="num">{shown}</td>'


def _section(title: str, rows: Sequence[Row], labels: Sequence[str]) -> str:
    plots = "".join(_plot(key, rows, labels) for key in PLOTTED)
    failed = "".join(f"<li>{escape(text)}</li>" for text in errors(rows))
    return "\n".join(
        [
            f"<section><h2>{escape(title)}</h2>",
            _table(rows),
            f'<ul class="notes">{failed}</ul>' if failed else "",
            f'<div class="charts">{plots}</div></section>',
        ]
    )


def _table(rows: Sequence[Row]) -> str:
    head = "".join(f'<th scope="col" class="num">{escape(column.heading)}</th>' for column in COLUMNS)
    body = "".join(
        f'<tr><th scope="row">{escape(row.case.method.label)}</th>{"".join(map(_cell, line))}'
        f"<td>{escape(row.outcome.device or '-')}</td></tr>"
        for row, line in zip(rows, cells(rows), strict=True)
    )
    head = f'<tr><th scope="col">method</th>{head}<th scope="col">device</th></tr>'
    return f'<div class="scroll"><table><thead>{head}</thead><tbody>{body}</tbody></table></div>'


def _cell(cell: Cell) -> str:
    return f'<td class="num{" best" if cell.best else ""}">{escape(cell.text)}</td>'


def _plot(key: str, rows: Sequence[Row], labels: Sequence[str]) -> str:
    info = CATALOGUE[key]
    points = [point for i, label in enumerate(labels) if (point := _point(key, rows, label, i)) is not None]
    picture = scatter(points, info.title, info.unit, higher=info.direction == "higher")
    if not picture:
        return ""
    title = escape(f"{info.title}, {info.unit} ({info.direction} is better)")
    return f'<figure class="chart"><h4>{title}</h4>{picture}</figure>'


def _point(key: str, rows: Sequence[Row], label: str, index: int) -> Point | None:
    """A method's mean figure and median time; None where it has none."""
    own = [row for row in rows if row.case.method.label == label]
    known = [(row.seconds, value) for row in own if row.seconds is not None and (value := row.value(key)) is not None]
    if not known:
        return None
    return Point(label, index, max(median(s for s, _ in known), 0.01), fmean(value for _, value in known))


def _definitions() -> str:
    keys = ("psnr", "sam", "ergas", "uiqi", "ssim", "hsi_relative_rmse", "msi_relative_rmse")
    return "".join(
        f'<tr><th scope="row">{escape(CATALOGUE[k].title)}</th><td>{escape(CATALOGUE[k].formula)}</td></tr>'
        for k in keys
    )

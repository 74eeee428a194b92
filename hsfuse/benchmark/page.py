"""The benchmark as one self-contained HTML page: tables, accuracy against time, the configuration and the command."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from statistics import fmean, median
from string import Template
from typing import Any

from hsfuse import __version__
from hsfuse.benchmark.plot import Point, scatter
from hsfuse.benchmark.results import Row
from hsfuse.benchmark.summary import Matrix, complete_pairs, labels_of, overview, summary
from hsfuse.benchmark.table import COLUMNS, OVERVIEW, Cell, cells, errors, groups
from hsfuse.metrics import CATALOGUE

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
    from hsfuse import report

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

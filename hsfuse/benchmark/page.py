"""The benchmark as one self-contained HTML page: tables, accuracy against time, the configuration and the command."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from string import Template
from typing import Any

from hsfuse import __version__
from hsfuse.benchmark.plot import Point, scatter
from hsfuse.benchmark.results import Row
from hsfuse.benchmark.table import COLUMNS, Cell, cells, errors, groups
from hsfuse.metrics import CATALOGUE

_FOLDER = Path(__file__).parent
#: Metrics plotted against time.
PLOTTED = ("psnr", "sam")


def render_page(rows: Sequence[Row], source: Mapping[str, Any], command: str) -> str:
    """One HTML page that needs no other file."""
    labels = list(dict.fromkeys(row.case.method.label for row in rows))
    found = groups(rows)
    scenes = list(dict.fromkeys(row.case.scene.name for row in rows))
    return Template((_FOLDER / "page.html").read_text(encoding="utf-8")).substitute(
        version=escape(__version__),
        style=_style(),
        title=escape(f"{len(labels)} methods on {_counted(len(scenes), 'scene')}"),
        lead=escape(_lead(rows, len(found))),
        sections="\n".join(_section(title, same, labels) for title, same in found),
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
    points = [
        Point(row.case.method.label, labels.index(row.case.method.label), max(row.seconds, 0.01), value)
        for row in rows
        if row.seconds is not None and (value := row.value(key)) is not None
    ]
    picture = scatter(points, info.title, info.unit, higher=info.direction == "higher")
    if not picture:
        return ""
    title = escape(f"{info.title}, {info.unit} ({info.direction} is better)")
    return f'<figure class="chart"><h4>{title}</h4>{picture}</figure>'


def _definitions() -> str:
    keys = ("psnr", "sam", "ergas", "uiqi", "ssim", "hsi_relative_rmse", "msi_relative_rmse")
    return "".join(
        f'<tr><th scope="row">{escape(CATALOGUE[k].title)}</th><td>{escape(CATALOGUE[k].formula)}</td></tr>'
        for k in keys
    )

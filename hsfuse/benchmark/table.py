"""Rows of a benchmark as tables of text: one for each pair, methods as rows, the best marked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from hsfuse.assessment.table import number
from hsfuse.benchmark.results import Row
from hsfuse.metrics import CATALOGUE


@dataclass(frozen=True)
class Column:
    """A figure of a table: heading, how to get it from a row, how to print it, and which way is better, if any."""

    title: str
    unit: str
    value: Callable[[Row], float | None]
    text: Callable[[float], str] = number
    better: str = ""

    @property
    def heading(self) -> str:
        """Title with unit and direction."""
        arrow = {"higher": "↑", "lower": "↓"}.get(self.better, "")
        return " ".join(filter(None, (self.title, self.unit, arrow)))


@dataclass(frozen=True)
class Cell:
    """A figure as text, and whether it is the best of its column."""

    text: str
    best: bool = False


def _metric(key: str, title: str, unit: str = "", factor: float = 1.0) -> Column:
    def value(row: Row) -> float | None:
        found = row.value(key)
        return None if found is None else factor * found

    return Column(title, unit, value, better=CATALOGUE[key].direction)


def _seconds(what: str) -> Callable[[Row], float | None]:
    return lambda row: row.outcome.seconds.get(what)


COLUMNS = (
    _metric("psnr", "PSNR", "dB"),
    _metric("sam", "SAM", "°"),
    _metric("ergas", "ERGAS"),
    _metric("uiqi", "UIQI"),
    _metric("ssim", "SSIM"),
    _metric("hsi_relative_rmse", "LRHSI misfit", "%", 100.0),
    _metric("msi_relative_rmse", "MSI misfit", "%", 100.0),
    Column("fit", "s", _seconds("fit"), "{:.1f}".format),
    Column("fuse", "s", _seconds("fuse"), "{:.1f}".format),
    Column("CPU", "s", _seconds("cpu"), "{:.1f}".format),
    Column("memory", "MiB", lambda row: row.outcome.peak_mib, "{:.0f}".format),
)
#: What stands for a method where there is little room.
OVERVIEW = COLUMNS[:2]


def groups(rows: Sequence[Row]) -> list[tuple[str, list[Row]]]:
    """Rows by pair, with the pair's heading, in the order in which the pairs first appear."""
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(row.case.group, []).append(row)
    return list(found.items())


def cells(rows: Sequence[Row], columns: Sequence[Column] = COLUMNS) -> list[list[Cell]]:
    """Figures of one group, a list a row; the best among several methods is marked."""
    by_column = [marked([column.value(row) for row in rows], column) for column in columns]
    return [list(line) for line in zip(*by_column, strict=True)]


def marked(values: Sequence[float | None], column: Column) -> list[Cell]:
    """Figures of several methods, the best among them marked."""
    known = [v for v in values if v is not None]
    pick = {"higher": max, "lower": min}.get(column.better)
    top = pick(known) if pick is not None and len(set(known)) > 1 else None
    return [Cell("-") if v is None else Cell(column.text(v), v == top) for v in values]


def text_tables(rows: Sequence[Row]) -> str:
    """For the terminal: the best is marked with *, errors stand below their table."""
    return "\n\n".join("\n".join(_text_table(title, same)) for title, same in groups(rows))


def _text_table(title: str, rows: Sequence[Row]) -> list[str]:
    head = ["method", *(f"{column.heading} " for column in COLUMNS), "device"]
    body = [
        [row.case.method.label, *(cell.text + ("*" if cell.best else " ") for cell in line), row.outcome.device or "-"]
        for row, line in zip(rows, cells(rows), strict=True)
    ]
    aligned = _aligned([head, *body])
    return [title, *(f"  {line.rstrip()}" for line in aligned), *(f"  {text}" for text in errors(rows))]


def _aligned(lines: Sequence[Sequence[str]]) -> list[str]:
    """Columns of equal width: words to the left, at both ends, and figures to the right."""
    last = len(lines[0]) - 1
    widths = [max(len(line[i]) for line in lines) for i in range(last + 1)]
    return [
        "  ".join(c.rjust(w) if 0 < i < last else c.ljust(w) for i, (c, w) in enumerate(zip(line, widths, strict=True)))
        for line in lines
    ]


def errors(rows: Sequence[Row]) -> list[str]:
    """Which methods failed, and why."""
    return [f"{row.case.method.label} failed: {row.outcome.error}" for row in rows if row.outcome.error is not None]

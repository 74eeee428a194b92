"""Tables in Markdown, and a text whose marked places hold them."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from hsfuse.benchmark.results import Row
from hsfuse.benchmark.summary import Matrix, cost, lead, overview, summary
from hsfuse.benchmark.table import COLUMNS, Cell, cells, errors, groups
from hsfuse.core.errors import InputError, SettingError
from hsfuse.io.files import write_whole

#: <!-- benchmark:NAME FORM --> ... <!-- /benchmark -->; without FORM: tables.
PLACE = re.compile(r"(<!-- benchmark:(\S+)(?: (\S+))? -->\n).*?(<!-- /benchmark -->)", re.DOTALL)


def render(rows: Sequence[Row], form: str = "tables") -> str:
    """Markdown in one of FORMS, ending with a line break; SettingError for another form."""
    if form not in FORMS:
        raise SettingError(f"there is no form {form!r} of a table; known are {', '.join(FORMS)}")
    return FORMS[form](rows) + "\n"


def fill(text: str, results: Mapping[str, Sequence[Row]]) -> str:
    """The text with every marked place filled from the results of its name; SettingError for a name not among them."""

    def block(place: re.Match[str]) -> str:
        start, name, form, end = place.groups()
        if name not in results:
            raise SettingError(f"there are no results {name!r} for {start.strip()}; given are {', '.join(results)}")
        return f"{start}\n{render(results[name], form or 'tables')}\n{end}"

    return PLACE.sub(block, text)


def fill_file(path: Path, results: Mapping[str, Sequence[Row]]) -> bool:
    """`fill` a file where it lies; whether it changed. InputError when it can't be read or has no marked place."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: can't be read ({error})") from error
    if not PLACE.search(text):
        raise InputError(f"{path} has no place for tables: a line <!-- benchmark:NAME -->, later <!-- /benchmark -->")
    filled = fill(text, results)
    if filled != text:
        write_whole(path, filled)
    return filled != text


def _all(rows: Sequence[Row]) -> str:
    found = groups(rows)
    return "\n\n".join([*([matrix(overview(rows))] if len(found) > 1 else []), _tables(rows)])


def _tables(rows: Sequence[Row]) -> str:
    return "\n\n".join(_table(title, same) for title, same in groups(rows))


def _table(title: str, rows: Sequence[Row]) -> str:
    head = ["method", *(column.heading for column in COLUMNS), "device"]
    lines = [_line(head), _rule(len(COLUMNS)) + " --- |"]
    for row, line in zip(rows, cells(rows), strict=True):
        lines.append(_line([row.case.method.label, *map(_bold, line), row.outcome.device or "-"]))
    return "\n".join([f"**{_escaped(title)}**", "", *lines, *(f"\n{_escaped(text)}" for text in errors(rows))])


def matrix(table: Matrix) -> str:
    """A table over many pairs."""
    lines = [_line([label, *(" / ".join(map(_bold, entry)) for entry in line)]) for label, line in table.lines]
    return "\n".join([_line(table.head), _rule(len(table.head) - 1), *lines])


#: What a table of results may look like.
FORMS: dict[str, Callable[[Sequence[Row]], str]] = {
    "tables": _tables,
    "all": _all,
    "overview": lambda rows: matrix(overview(rows)),
    "summary": lambda rows: matrix(summary(rows)),
    "lead": lambda rows: matrix(lead(rows)),
    "cost": lambda rows: matrix(cost(rows)),
}


def _bold(cell: Cell) -> str:
    return f"**{cell.text}**" if cell.best else cell.text


def _line(values: Sequence[str]) -> str:
    return "| " + " | ".join(_escaped(v) for v in values) + " |"


def _rule(numbers: int) -> str:
    return "| --- |" + " ---: |" * numbers


def _escaped(text: str) -> str:
    return text.replace("|", "\\|")

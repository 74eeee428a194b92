"""Many pairs at a glance: all of them side by side, means over scenes, and one method's lead over its rivals."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, median

from hsfuse.benchmark.cases import Case
from hsfuse.benchmark.results import Row
from hsfuse.benchmark.table import OVERVIEW, Cell, Column, cells, groups, marked
from hsfuse.core.errors import SettingError

#: Methods that hold a trained network or choose among the others: no rivals of SRLF-Net.
KIN = ("srlf", "srlf-any", "srlf-bands")
_FIGURES = " / ".join(column.heading for column in OVERVIEW)


@dataclass(frozen=True)
class Matrix:
    """A table whose entries are one or more figures; `head` has a title more than a line has entries."""

    head: tuple[str, ...]
    lines: tuple[tuple[str, tuple[tuple[Cell, ...], ...]], ...]


def labels_of(rows: Sequence[Row]) -> list[str]:
    """The methods in their order."""
    return list(dict.fromkeys(row.case.method.label for row in rows))


def overview(rows: Sequence[Row]) -> Matrix:
    """Methods as rows, pairs as columns, each with PSNR and SAM."""
    found = groups(rows)
    shown = [
        {row.case.method.label: tuple(line) for row, line in zip(same, cells(same, OVERVIEW), strict=True)}
        for _, same in found
    ]
    titles = short_titles([same[0] for _, same in found])
    lines = ((label, tuple(group.get(label, (Cell("-"),)) for group in shown)) for label in labels_of(rows))
    return Matrix((_FIGURES, *titles), tuple(lines))


def short_titles(firsts: Sequence[Row]) -> list[str]:
    """Headings without what all pairs have in common; the scene always stays."""
    parts = [
        (r.case.scene.name, f"x{r.case.ratio}", r.case.sensor.text, r.case.noise.text, r.case.departure) for r in firsts
    ]
    differ = [i == 0 or len({p[i] for p in parts}) > 1 for i in range(len(parts[0]))]
    return [", ".join(text for text, shown in zip(p, differ, strict=True) if shown) for p in parts]


def settings_of(rows: Sequence[Row]) -> Callable[[Case], str]:
    """Headings for the columns of a table over scenes: ratio and noise, and sensor and PSF where a scene has several.

    So no two pairs of one scene have the same; which sensor saw a scene that has but one is part of the scene.
    """
    own: list[Callable[[Case], str]] = [lambda case: case.sensor.text, lambda case: case.departure]
    seen = [{(row.case.scene.name, part(row.case)) for row in rows} for part in own]
    scenes = len({row.case.scene.name for row in rows})
    several = [part for part, found in zip(own, seen, strict=True) if len(found) > scenes]

    def setting(case: Case) -> str:
        return ", ".join([f"x{case.ratio}", *(part(case) for part in several), case.noise.text])

    return setting


def summary(rows: Sequence[Row]) -> Matrix:
    """Methods as rows, settings as columns (see `settings_of`): means over the scenes on which no method failed.

    Then how often each is first in PSNR and in SAM, and the median processor time of its whole command.
    """
    labels, setting_of = labels_of(rows), settings_of(rows)
    whole = [(setting_of(same[0].case), same) for same in complete_pairs(rows)]
    settings = [s for s in dict.fromkeys(setting_of(row.case) for row in rows) if any(s == at for at, _ in whole)]
    columns = [_means([same for at, same in whole if at == setting], labels) for setting in settings]
    columns += [_firsts([same for _, same in whole], labels), _cpu(rows, labels)]
    titles = [f"{s} ({sum(at == s for at, _ in whole)})" for s in settings]
    lines = ((label, tuple(column[i] for column in columns)) for i, label in enumerate(labels))
    return Matrix((_FIGURES, *titles, f"first, of {len(whole)}", "CPU s"), tuple(lines))


def complete_pairs(rows: Sequence[Row]) -> list[list[Row]]:
    """The rows of the pairs on which no method failed: only there are means over pairs comparable."""
    labels = labels_of(rows)
    return [same for _, same in groups(rows) if _complete(same, labels)]


def _complete(rows: Sequence[Row], labels: Sequence[str]) -> bool:
    known = {row.case.method.label for row in rows if all(c.value(row) is not None for c in OVERVIEW)}
    return known == set(labels)


def _means(pairs: Sequence[Sequence[Row]], labels: Sequence[str]) -> list[tuple[Cell, ...]]:
    """Both figures of every method, averaged over pairs."""
    rows = {label: [row for same in pairs for row in same if row.case.method.label == label] for label in labels}

    def mean(label: str, column: Column) -> float:
        return fmean(value for row in rows[label] if (value := column.value(row)) is not None)

    figures = [marked([mean(label, column) for label in labels], column) for column in OVERVIEW]
    return list(zip(*figures, strict=True))


def _firsts(pairs: Sequence[Sequence[Row]], labels: Sequence[str]) -> list[tuple[Cell, ...]]:
    """On how many pairs every method is first, in each figure."""
    count = {label: [0] * len(OVERVIEW) for label in labels}
    for rows in pairs:
        for row, line in zip(rows, cells(rows, OVERVIEW), strict=True):
            for i, cell in enumerate(line):
                count[row.case.method.label][i] += cell.best
    return [tuple(Cell(str(n)) for n in count[label]) for label in labels]


def _cpu(rows: Sequence[Row], labels: Sequence[str]) -> list[tuple[Cell, ...]]:
    times = [[r.outcome.seconds.get("cpu") for r in rows if r.case.method.label == label] for label in labels]
    known = [[s for s in taken if s is not None] for taken in times]
    return [(Cell(f"{median(s):.1f}" if s else "-"),) for s in known]


def lead(rows: Sequence[Row], label: str = "") -> Matrix:
    """Scenes as rows, settings as columns (`settings_of`): a method's lead over the best of its rivals, named.

    Positive where it is ahead, in PSNR and in SAM. `label` is the method's, default SRLF-Net's; rivals are all methods
    but KIN. SettingError when the method isn't among the rows.
    """
    own = [row for row in rows if (row.case.method.label == label if label else row.case.method.name == "srlf")]
    if not own:
        raise SettingError(f"there are no rows of {label or 'srlf'}; known are {', '.join(labels_of(rows))}")
    setting_of = settings_of(own)
    settings = list(dict.fromkeys(setting_of(row.case) for row in own))
    found = {(row.case.scene.name, setting_of(row.case)): _ahead(row, rows) for row in own}
    scenes = dict.fromkeys(row.case.scene.name for row in own)
    lines = ((scene, tuple(found.get((scene, s), (Cell("-"),)) for s in settings)) for scene in scenes)
    return Matrix((f"lead of {own[0].case.method.label}", *settings), tuple(lines))


def cost(rows: Sequence[Row]) -> Matrix:
    """Kinds of mismatch as rows: each method as a user runs it, at each ratio, and what not knowing the truth costs it.

    Means over the pairs that it was run on told the truth, too; SettingError where no method was.
    """
    names = list(dict.fromkeys(row.case.method.name for row in rows if row.case.method.told == "truth"))
    if not names:
        raise SettingError('no method was told the truth; give one with `told = "truth"` beside the same without')
    found: dict[tuple[str, str, int], dict[str, dict[str, Row]]] = {}
    for row in rows:
        if row.case.mismatch is not None and all(c.value(row) is not None for c in OVERVIEW):
            key = (row.case.mismatch.name, row.case.method.name, row.case.ratio)
            found.setdefault(key, {}).setdefault(row.case.group, {})[row.case.method.told] = row
    kinds = dict.fromkeys(row.case.mismatch.name for row in rows if row.case.mismatch is not None)
    columns = [(name, ratio) for name in names for ratio in dict.fromkeys(row.case.ratio for row in rows)]
    lines = []
    for kind in kinds:
        pairs = [[p for p in found.get((kind, *column), {}).values() if len(p) == 2] for column in columns]
        entries = itertools.chain.from_iterable(map(_costs, pairs))
        lines.append((f"{kind} ({max(map(len, pairs))})", tuple(entries)))
    heads = [text for name, ratio in columns for text in (f"{name}, x{ratio}", "not knowing costs")]
    return Matrix((_FIGURES, *heads), tuple(lines))


def _costs(pairs: Sequence[Mapping[str, Row]]) -> tuple[tuple[Cell, ...], tuple[Cell, ...]]:
    """The figures of what a user gets, and what they lack to the truth's: dB, and per cent of the angle."""
    if not pairs:
        return (Cell("-"),), (Cell("-"),)
    (psnr, sam), (best, least) = (
        [fmean(c.value(pair[told]) or 0 for pair in pairs) for c in OVERVIEW] for told in ("user", "truth")
    )
    return (Cell(f"{psnr:.2f}"), Cell(f"{sam:.3f}")), (
        Cell(f"{best - psnr:.2f} dB"),
        Cell(f"{100 * (sam / least - 1):.1f} %"),
    )


def _ahead(row: Row, rows: Sequence[Row]) -> tuple[Cell, ...]:
    rivals = [r for r in rows if r.case.group == row.case.group and r.case.method.name not in KIN and r is not row]
    return tuple(filter(None, (_gap(row, rivals, i) for i in range(len(OVERVIEW))))) or (Cell("-"),)


def _gap(row: Row, rivals: Sequence[Row], i: int) -> Cell | None:
    column = OVERVIEW[i]
    own, sign = column.value(row), 1 if column.better == "higher" else -1
    known = [(sign * value, r.case.method.label) for r in rivals if (value := column.value(r)) is not None]
    if own is None or not known:
        return None
    best, name = max(known)
    ahead = sign * own - best
    return Cell(f"{ahead:+.{2 + i}f}{' ' if column.unit == 'dB' else ''}{column.unit} ({name})", ahead >= 0)

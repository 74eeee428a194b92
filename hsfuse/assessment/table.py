"""Assessments as text: a table of one or of several fused files, definitions of the metrics, limits for pipelines."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from hsfuse.assessment.result import Assessment, Unit
from hsfuse.core.errors import SettingError
from hsfuse.metrics import CATALOGUE, MetricInfo

#: The metrics of a table, by section; `all` of them are in JSON and CSV.
SECTIONS: dict[str, tuple[str, ...]] = {
    "Against the reference": ("psnr", "sam", "ergas", "uiqi", "ssim", "rmse", "cc", "q2n"),
    "Consistency with the LRHSI": ("hsi_rmse", "hsi_relative_rmse", "hsi_sam", "hsi_cc"),
    "Consistency with the MSI": ("msi_rmse", "msi_relative_rmse", "msi_cc"),
    "Without a reference": ("d_lambda", "d_s", "qnr", "d_lambda_khan", "hqnr", "d_sr", "rqnr"),
}


#: Figures that differ by less than this share are one.
TIE = 1e-6


@dataclass(frozen=True)
class MetricRow:
    """One metric, a value a column: `tops` is the best of the columns it may be compared with (None: no others)."""

    info: MetricInfo
    values: tuple[float | None, ...]
    tops: tuple[float | None, ...]

    @property
    def best(self) -> frozenset[int]:
        """Columns that are best among theirs."""
        pairs = zip(self.values, self.tops, strict=True)
        return frozenset(i for i, (value, top) in enumerate(pairs) if _same(value, top))

    @property
    def unit(self) -> str:
        """Unit, empty for a pure number."""
        return "" if self.info.unit in ("1", "data unit") else self.info.unit

    def delta(self, index: int) -> str | None:
        """Difference of one value from the best, signed; None for the best itself and undefined ones."""
        value, top = self.values[index], self.tops[index]
        if value is None or top is None or _same(value, top):
            return None
        return f"{value - top:+.3g}" if math.isfinite(value - top) else None

    @property
    def arrow(self) -> str:
        """Which way is better."""
        return "↑" if self.info.direction == "higher" else "↓"


def _same(value: float | None, top: float | None) -> bool:
    """Whether two values differ by no more than rounding: of another encoding of the same pixels, for instance."""
    return value is not None and top is not None and (value == top or math.isclose(value, top, rel_tol=TIE))


def columns(assessments: Sequence[Assessment]) -> list[Assessment]:
    """What is put side by side: every file at full resolution, then those that there are at reduced resolution."""
    return [*assessments, *(a.reduced for a in assessments if a.reduced is not None)]


def column_names(assessments: Sequence[Assessment]) -> list[str]:
    """A short name for each of the `columns`."""
    names = short_names([a.fused for a in assessments])
    return names + [f"{n}, reduced" for n, a in zip(names, assessments, strict=True) if a.reduced is not None]


def rows(assessments: Sequence[Assessment], keys: Iterable[str]) -> list[MetricRow]:
    """The metrics that at least one of the `columns` has.

    The best is sought among those of one resolution, and not at all where the columns' units can't be compared.
    """
    out, shown, ranked = [], columns(assessments), not unranked(assessments)
    for key in keys:
        if any(key in a.metrics for a in shown):
            values, full = tuple(a.metrics.get(key) for a in shown), len(assessments)
            tops = [_top(CATALOGUE[key], values[:full])] * full + [_top(CATALOGUE[key], values[full:])] * (
                len(shown) - full
            )
            out.append(MetricRow(CATALOGUE[key], values, tuple(tops if ranked else [None] * len(shown))))
    return out


def unranked(assessments: Sequence[Assessment]) -> str:
    """Why the columns aren't ranked, in a sentence; empty where all of them are in one unit."""
    units = {a.unit for a in assessments}
    if len(assessments) < 2 or (len(units) == 1 and units != {Unit("unknown")}):
        return ""
    names = short_names([a.fused for a in assessments])
    told = ", ".join(f"{n} {_held(a.unit)}" for n, a in zip(names, assessments, strict=True))
    return f"The columns aren't ranked: it can't be told that all are in one unit ({told})."


def _held(unit: Unit) -> str:
    if unit.quantity != "unknown":
        return f"in {unit.quantity}"
    return f"in the numbers of {Path(unit.numbers_of).name}" if unit.numbers_of else "of unknown unit"


def _top(info: MetricInfo, values: Sequence[float | None]) -> float | None:
    """The best of several; None where there are no two to compare."""
    known = [v for v in values if v is not None]
    return None if len(known) < 2 else max(known) if info.direction == "higher" else min(known)


def number(value: float | None) -> str:
    """A figure for people: four significant digits."""
    if value is None:
        return "-"
    if math.isinf(value):
        return "inf" if value > 0 else "-inf"
    return f"{value:.2f}" if 10 <= abs(value) < 1e4 else f"{value:#.4g}"


def text_table(assessments: Sequence[Assessment]) -> str:
    """Sections of metrics, a column a file; the best is marked with * when there are several."""
    names = column_names(assessments)
    lines: list[str] = []
    for section, keys in SECTIONS.items():
        found = rows(assessments, keys)
        if found:
            lines += [] if not lines else [""]
            lines += _aligned([[section, "", *names], *[_cells(row) for row in found]])
    why = unranked(assessments)
    return "\n".join([*lines, *_index_lines(assessments, names), *(["", why] if why else [])])


def _index_lines(assessments: Sequence[Assessment], names: Sequence[str]) -> list[str]:
    """RMSE of the spectral indices, a column a file."""
    shown = columns(assessments)
    keys = dict.fromkeys((c.name, c.against) for a in shown for c in a.indices)
    if not keys:
        return []
    known = [{(c.name, c.against): c.rmse for c in a.indices} for a in shown]
    body = [[f"  {key[0]}", f"vs {key[1]}", *(number(k.get(key)) + " " for k in known)] for key in keys]
    return ["", *_aligned([["RMSE of spectral indices", "", *names], *body])]


def _cells(row: MetricRow) -> list[str]:
    figures = [number(v) + ("*" if i in row.best else " ") for i, v in enumerate(row.values)]
    return ["  " + row.info.key, f"{row.arrow} {row.unit}", *figures]


def _aligned(cells: list[list[str]]) -> list[str]:
    widths = [max(len(line[i]) for line in cells) for i in range(len(cells[0]))]
    widths[:2] = max(widths[0], 27), max(widths[1], 9)
    pad = [
        [c.ljust(w) if i < 2 else c.rjust(max(w, 9)) for i, (c, w) in enumerate(zip(line, widths, strict=True))]
        for line in cells
    ]
    return ["  ".join(line).rstrip() for line in pad]


def short_names(paths: Sequence[str]) -> list[str]:
    """File names, with as many folders before them as it takes to tell them apart."""
    for depth in range(1, max(len(Path(p).parts) for p in paths) + 1):
        names = [str(Path(*Path(p).parts[-depth:])) for p in paths]
        if len(set(names)) == len(set(paths)):
            return names
    return list(paths)


def comparison(assessments: Sequence[Assessment], style: str) -> str:
    """All metrics of the files as "csv" (full digits) or "markdown" (best in bold)."""
    names, found = column_names(assessments), rows(assessments, CATALOGUE)
    if style == "csv":
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(["metric", "unit", "direction", *names])
        for row in found:
            writer.writerow(
                [row.info.key, row.info.unit, row.info.direction, *("" if v is None else v for v in row.values)]
            )
        return out.getvalue().rstrip("\n")
    lines = ["| metric | | " + " | ".join(names) + " |", "| --- | --- |" + " ---: |" * len(names)]
    for row in found:
        bold = [f"**{number(v)}**" if i in row.best else number(v) for i, v in enumerate(row.values)]
        lines.append(f"| {row.info.title} | {row.arrow} {row.unit} | " + " | ".join(bold) + " |")
    return "\n".join(lines)


def explain() -> str:
    """Definition of every metric: formula, source, range, direction."""
    return "\n\n".join(
        f"{m.key}: {m.title}\n  {m.formula}\n  range {m.range}; unit {m.unit}; {m.direction} is better\n  {m.source}"
        + (f"\n  {m.note}" if m.note else "")
        for m in CATALOGUE.values()
    )


def parse_limits(text: str) -> dict[str, float]:
    """`psnr=40,sam=3` as {"psnr": 40, "sam": 3}; SettingError for what isn't a metric and a number."""
    limits = {}
    for part in text.split(","):
        key, equals, value = (p.strip() for p in part.partition("="))
        if not equals or key not in CATALOGUE:
            near = get_close_matches(key, CATALOGUE, 1)
            known = f"; did you mean {near[0]}?" if near and equals else f" with a metric of {', '.join(CATALOGUE)}"
            raise SettingError(f"limit {part.strip()!r} isn't METRIC=NUMBER{known}")
        try:
            limits[key] = float(value)
        except ValueError:
            raise SettingError(f"limit {part.strip()!r}: {value!r} isn't a number") from None
        if math.isnan(limits[key]):
            raise SettingError(f"limit {part.strip()!r}: nothing is above or below nan")
    return limits


def check(assessments: Sequence[Assessment], limits: Mapping[str, float]) -> list[str]:
    """Which files miss which limits, in sentences: at full resolution or, what there is at the reduced alone, there.

    A metric that is undefined misses its limit.
    """
    failures = []
    for a in assessments:
        for key, limit in limits.items():
            info, value = CATALOGUE[key], a.metrics.get(key)
            if value is None and a.reduced is not None:
                value = a.reduced.metrics.get(key)
            if value is None or (value < limit if info.direction == "higher" else value > limit):
                found = "undefined" if value is None else number(value)
                wanted = "at least" if info.direction == "higher" else "at most"
                failures.append(f"{a.fused}: {key} is {found}, wanted {wanted} {limit:g}")
    return failures

"""Rendering assessments to one HTML page, and putting it on disk."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from hsfuse.assessment import Assessment
from hsfuse.assessment.checks import by_estimate, overall, unchecked, untested
from hsfuse.assessment.indices import unseen
from hsfuse.assessment.report.citation import methods_paragraph
from hsfuse.assessment.report.facts import header, place, scene_title, unit_notes
from hsfuse.assessment.report.figures import chart_data, map_figure, map_limits, pictures
from hsfuse.assessment.report.pictures import palette_hex
from hsfuse.assessment.report.sensors import response_rows, sensor_lines
from hsfuse.assessment.report.words import (
    ADVICE,
    REFERENCE_CARDS,
    VERDICTS,
    bias,
    cards,
    effort,
    flat,
    grouped,
    in_short,
    method_lines,
    method_words,
    other_warnings,
    shift_figures,
    stages,
    training_words,
)
from hsfuse.assessment.table import SECTIONS, MetricRow, column_names, columns, number, rows, short_names, unranked
from hsfuse.core.notes import texts
from hsfuse.core.package import __version__
from hsfuse.io.files import check_report_path, write_whole
from hsfuse.metrics import CATALOGUE

_FOLDER = Path(__file__).parent
_SCRIPTS = ("chart.js", "report.js")


def render_report(assessments: Sequence[Assessment], title: str | None = None) -> str:
    """One self-contained HTML page of one or several assessments; several are compared at the top."""
    names = short_names([a.fused for a in assessments])
    ends = map_limits(assessments)
    parts = [_part(a, name, ends) for a, name in zip(assessments, names, strict=True)]
    return fill(
        "template.html",
        title=title or (scene_title(assessments[0], names[0]) if len(names) == 1 else ", ".join(names)),
        made=datetime.now().astimezone(),
        script=Markup("".join((_FOLDER / name).read_text(encoding="utf-8") for name in _SCRIPTS)),
        names=column_names(assessments),
        unranked=unranked(assessments),
        comparison=_sections(assessments) if len(columns(assessments)) > 1 else [],
        parts=parts,
        told=json.dumps(texts(assessments[0].warnings)),
        catalogue=_defined(assessments),
    )


def fill(template: str, *more: Path, **values: Any) -> str:
    """A template of this folder or of `more`, with hsfuse's version and the reports' style."""
    environment = Environment(loader=FileSystemLoader([_FOLDER, *more]), autoescape=True, undefined=StrictUndefined)
    environment.filters |= {"figure": number, "bias": bias}
    style = Markup((_FOLDER / "style.css").read_text(encoding="utf-8"))
    return environment.get_template(template).render(version=__version__, style=style, **values)


def _sections(assessments: Sequence[Assessment]) -> list[tuple[str, list[MetricRow]]]:
    found = [(section, rows(assessments, keys)) for section, keys in SECTIONS.items()]
    return [(section, lines) for section, lines in found if lines]


def _defined(assessments: Sequence[Assessment]) -> list[MetricRow]:
    """Every metric that some file has, for the full table."""
    return rows(assessments, CATALOGUE)


def _part(assessment: Assessment, name: str, ends: Mapping[str, tuple[float, float]]) -> dict[str, Any]:
    response, shown, unit = assessment.response, pictures(assessment), assessment.unit.words
    seen = response if assessment.uses_msi else None
    assumed = unit_notes(assessment)
    maps = [map_figure(m, ends[m.name], unit) for m in assessment.maps]
    reduced = _reduced(assessment)
    checks = sorted(assessment.checks, key=lambda check: [*VERDICTS].index(check.verdict))
    part: dict[str, Any] = {
        "a": assessment,
        "name": name,
        "overall": overall(assessment.checks),
        "untested": " ".join(filter(None, (untested(assessment), by_estimate(assessment)))),
        "unchecked": unchecked(assessment),
        "short": in_short(assessment),
        "cards": cards(assessment),
        "pictures": shown,
        "comparable": any(len(images) > 1 for images in shown.values()),
        "maps": maps,
        "header": header(assessment),
        "assumed": [note[:1].upper() + note[1:].rstrip(".") + "." for note in assumed],
        "verdict": checks[0].verdict if checks else "",
        "checks": [(check, VERDICTS[check.verdict], ADVICE.get(check.code)) for check in checks],
        "warnings": other_warnings(assessment),
        "notes": [n.text for n in assessment.notes if n.severity == "note" and n.text not in assumed],
        "indices": [(index, unseen(index.name, seen)) for index in assessment.indices],
        "msi": _msi_rows(assessment),
        "coverage": [] if response is None else list(zip(response.bands, response.coverage, strict=True)),
        "method": method_words(assessment.provenance),
        "method_lines": method_lines(assessment.provenance),
        "reduced": reduced,
        "shifts": shift_figures(assessment),
        "sensors": sensor_lines(assessment) if assessment.sensors or response is not None else [],
        "has_mtf": assessment.psf is not None and assessment.ratio is not None,
        "response_rows": response_rows(assessment),
        "stages": stages(assessment.provenance),
        "effort": effort(assessment.provenance),
        "training": training_words(assessment.provenance),
        "methods": methods_paragraph(assessment),
        "provenance": grouped(flat(assessment.provenance)),
        "data": Markup(
            as_json(chart_data(assessment) | _seen(assessment, [*maps, *(reduced or {}).get("maps", ())], shown))
        ),
    }
    return part | {"contents": [(anchor, title) for anchor, title, there in _parts(assessment, part) if there]}


def _seen(a: Assessment, maps: Sequence[Mapping[str, Any]], shown: Mapping[str, Any]) -> dict[str, Any]:
    """What tells the value and the place under the cursor: the pictures, the maps in their order, the cube's grid."""
    return {
        "name": Path(a.fused).name,
        "shape": a.shape,
        "place": place(a.images["fused"].grid) if "fused" in a.images else None,
        "pictures": shown,
        "maps": [{key: m[key] for key in ("title", "unit", "palette", "ends")} for m in maps],
        "palettes": {name: palette_hex(name) for name in dict.fromkeys(m["palette"] for m in maps)},
    }


def _parts(a: Assessment, part: Mapping[str, Any]) -> tuple[tuple[str, str, Any], ...]:
    """Anchors and short titles of the parts in their order, and whether there is something in them."""
    return (
        ("trust", "Can it be trusted?", a.checks),
        ("key", "Key figures", part["cards"]),
        ("look", "Before and after", part["comparable"]),
        ("maps", "Where it is good", part["maps"]),
        ("wald", "Reduced resolution", part["reduced"]),
        ("spectra", "Spectra", a.spectra),
        ("bands", "Band by band", a.curves),
        ("index", "Spectral indices", a.indices),
        ("sensors", "The sensors", part["sensors"] or part["coverage"] or part["shifts"]),
        ("methods", "Methods, to cite", True),
        ("stages", "Stages", part["stages"]),
        ("fit", "Fitting", part["training"]),
        ("how", "How it was fused", part["method_lines"]),
        ("in", "What was compared", a.inputs or a.settings),
        ("notes", "Notes", part["notes"]),
        ("effort", "Time", part["effort"]),
        ("prov", "Provenance", part["provenance"]),
    )


def _reduced(assessment: Assessment) -> dict[str, Any] | None:
    """What is shown of the test at reduced resolution; None without one."""
    a = assessment.reduced
    if a is None:
        return None
    ends = map_limits([a])
    maps = [
        replace(m, title=m.title.replace("the reference", "the LRHSI")) for m in a.maps if m.name in ("rmse", "sam")
    ]
    shown = [map_figure(m, ends[m.name], a.unit.words) for m in maps]
    return {
        "a": a,
        "short": in_short(a)[0],
        "warnings": texts(a.warnings),
        "cards": cards(a, REFERENCE_CARDS),
        "maps": shown,
    }


def as_json(data: Any) -> str:
    """JSON that can stand inside a script element."""
    return json.dumps(data, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")


def _msi_rows(assessment: Assessment) -> list[dict[str, str]]:
    """Per MSI band: wavelength, misfit, correlation."""
    curves = {c.name: c for c in assessment.curves if c.band_names is not None}
    first = curves.get("msi_rmse")
    if first is None or first.band_names is None:
        return []
    shown = {n: curves[n].values for n in ("msi_rmse", "msi_relative_rmse", "msi_cc", "d_s") if n in curves}
    taken = {b.band: f"× {b.gain:.3f} {b.offset:+z.3g}" for b in assessment.radiometry}
    return [
        {"band": band, "nm": f"{first.wavelengths_nm[i]:.0f}", "taken": taken.get(band, "")}
        | {"gain": number(_known(assessment.msi_gains.get(band, math.nan)))}
        | {n: number(_known(v[i])) for n, v in shown.items()}
        for i, band in enumerate(first.band_names)
    ]


def _known(value: float) -> float | None:
    return None if math.isnan(value) else float(value)


def write_report(assessments: Sequence[Assessment], path: str | Path, *, overwrite: bool = False) -> Path:
    """Render and write one HTML file, under a temporary name first; OutputError when that can't be."""
    path = Path(path)
    check_report_path(path, overwrite)
    write_whole(path, render_report(assessments))
    return path

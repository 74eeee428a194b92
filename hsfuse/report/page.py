"""Rendering assessments to one HTML page, and putting it on disk."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from hsfuse import __version__
from hsfuse.assessment import SECTIONS, Assessment, Row, number, rows, short_names
from hsfuse.errors import OutputError
from hsfuse.metrics import CATALOGUE
from hsfuse.report.figures import chart_data, map_figure, map_limits, pictures, training

_FOLDER = Path(__file__).parent

#: Key figures: what each says, in a few words.
CARDS = {
    "psnr": ("PSNR", "Strength of the signal over the error. Halving the error adds 6 dB."),
    "sam": ("Spectral angle", "How far the shape of a spectrum is off, mean over pixels."),
    "ergas": ("ERGAS", "Relative error of the bands, set against the resolution ratio."),
    "ssim": ("SSIM", "Likeness of spatial structure; 1 is identical."),
    "hsi_relative_rmse": ("Misfit to the LRHSI", "Blurred back to the LRHSI, the cube differs from it by this much."),
    "msi_relative_rmse": ("Misfit to the MSI", "Seen through the MSI's response, the cube differs from it by this much."),
    "hqnr": ("HQNR", "Quality judged without a reference; 1 is best."),
    "qnr": ("QNR", "Older relative of HQNR; favours doing nothing. 1 is best."),
}


@dataclass(frozen=True)
class Card:
    """One key figure."""

    title: str
    value: str
    unit: str
    direction: str
    meaning: str


def render_report(assessments: Sequence[Assessment], title: str | None = None) -> str:
    """One self-contained HTML page of one or several assessments; several are compared at the top."""
    environment = Environment(loader=FileSystemLoader(_FOLDER), autoescape=True, undefined=StrictUndefined)
    environment.filters["figure"] = number
    names = short_names([a.fused for a in assessments])
    tops = map_limits(assessments)
    return environment.get_template("template.html").render(
        title=title or ", ".join(names),
        version=__version__,
        style=Markup((_FOLDER / "style.css").read_text(encoding="utf-8")),
        script=Markup((_FOLDER / "report.js").read_text(encoding="utf-8")),
        names=names,
        comparison=_sections(assessments) if len(assessments) > 1 else [],
        parts=[_part(a, name, tops) for a, name in zip(assessments, names, strict=True)],
        catalogue=_defined(assessments),
    )


def _sections(assessments: Sequence[Assessment]) -> list[tuple[str, list[Row]]]:
    found = [(section, rows(assessments, keys)) for section, keys in SECTIONS.items()]
    return [(section, lines) for section, lines in found if lines]


def _defined(assessments: Sequence[Assessment]) -> list[Row]:
    """Every metric that some file has, for the full table."""
    return rows(assessments, CATALOGUE)


def _part(assessment: Assessment, name: str, tops: Mapping[str, float]) -> dict[str, Any]:
    response = assessment.response
    return {
        "a": assessment,
        "name": name,
        "cards": _cards(assessment),
        "pictures": pictures(assessment),
        "maps": [map_figure(m, tops[m.name]) for m in assessment.maps],
        "msi": _msi_rows(assessment),
        "coverage": [] if response is None else list(zip(response.bands, response.coverage, strict=True)),
        "training": _training_words(assessment.provenance),
        "provenance": flat(assessment.provenance),
        "data": Markup(_json(chart_data(assessment) | {"pictures": pictures(assessment)})),
    }


def _json(data: Any) -> str:
    """JSON that can stand inside a script element."""
    return json.dumps(data, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")


def _cards(assessment: Assessment) -> list[Card]:
    out = []
    for key, (title, meaning) in CARDS.items():
        value = assessment.metrics.get(key)
        if value is None:
            continue
        info, percent = CATALOGUE[key], "relative" in key
        unit = {"degrees": "°", "1": ""}.get(info.unit, info.unit)
        text = f"{100 * value:.2g}" if percent else number(value)
        out.append(Card(title, text, "%" if percent else unit, f"{info.direction} is better", meaning))
    return out


def _msi_rows(assessment: Assessment) -> list[dict[str, str]]:
    """Per MSI band: wavelength, misfit, correlation."""
    curves = {c.name: c for c in assessment.curves if c.band_names is not None}
    first = curves.get("msi_rmse")
    if first is None or first.band_names is None:
        return []
    shown = {n: curves[n].values for n in ("msi_rmse", "msi_relative_rmse", "msi_cc", "d_s") if n in curves}
    return [
        {"band": band, "nm": f"{first.wavelengths_nm[i]:.0f}"} | {n: number(_known(v[i])) for n, v in shown.items()}
        for i, band in enumerate(first.band_names)
    ]


def _known(value: float) -> float | None:
    return None if math.isnan(value) else float(value)


def _training_words(provenance: Mapping[str, Any]) -> str:
    """What the adaptation brought, in a sentence; empty without one."""
    record = training(provenance)
    if record is None:
        return ""
    held = [v for c in record["curves"] if c["name"].startswith("held") for v in c["y"] if v is not None]
    kept = f" Kept: {record['kept']}." if record["kept"] else ""
    if not held or not record["base"]:
        return f"The network was fitted on the scene itself.{kept}"
    change = min(held) / record["base"] - 1
    word = "lower" if change < 0 else "higher"
    return (
        f"On blocks of the scene that training never saw, the best error was {abs(change):.0%} {word} than that of the "
        f"training-free base.{kept}"
    )


def flat(record: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """A nested record as (path, text) lines; long lists are cut."""
    out: list[tuple[str, str]] = []
    for key, value in record.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            out += flat(value, f"{name} › ")
        elif isinstance(value, list):
            text = ", ".join(_text(v) for v in value[:8])
            out.append((name, text + (f", … ({len(value)} values)" if len(value) > 8 else "")))
        else:
            out.append((name, _text(value)))
    return out


def _text(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def check_report_path(path: str | Path, overwrite: bool, inputs: Sequence[str | Path] = ()) -> None:
    """OutputError unless a report may be written to `path`: it isn't there or may be replaced, and isn't an input."""
    path = Path(path)
    if any(path.resolve() == Path(source).resolve() for source in inputs):
        raise OutputError(f"the report {path} would replace an input; give it another name")
    if path.is_dir():
        raise OutputError(f"the report {path} is a folder; give a file name such as {path / 'report.html'}")
    if path.exists() and not overwrite:
        raise OutputError(f"the report {path} exists; give another name, or --overwrite")
    if not path.parent.is_dir():
        raise OutputError(f"the folder {path.parent} for the report doesn't exist; make it first")


def write_report(assessments: Sequence[Assessment], path: str | Path, *, overwrite: bool = False) -> Path:
    """Render and write one HTML file, under a temporary name first; OutputError when that can't be."""
    path = Path(path)
    check_report_path(path, overwrite)
    page = render_report(assessments)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_text(page, encoding="utf-8")
        os.replace(temporary, path)
    except OSError as error:
        raise OutputError(f"the report {path} can't be written: {error.strerror}") from error
    finally:
        temporary.unlink(missing_ok=True)
    return path

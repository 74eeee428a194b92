"""The summary of a batch: a page and a CSV in a folder, from what each job's process has left there of its scene."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Sequence
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any
from urllib.parse import quote

from hsfuse.batch.run import Outcome
from hsfuse.core.errors import OutputError
from hsfuse.fusion.job import Job
from hsfuse.io.files import write_whole

PAGE, TABLE, SCENES = "index.html", "summary.csv", "scenes"


def with_figures(jobs: Sequence[Job], folder: Path) -> list[Job]:
    """The jobs with a file for their figures in `folder`/scenes, and a report there where they have none."""
    place = folder.absolute() / SCENES
    try:
        place.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"the folder {place} can't be made: {error.strerror}") from error
    out = []
    for job in jobs:
        name = f"{job.output.stem}-{sha256(str(job.output).encode()).hexdigest()[:8]}"
        out.append(replace(job, figures=place / f"{name}.json", report=job.report or place / f"{name}.html"))
    return out


def write_summary(outcomes: Sequence[Outcome], folder: Path, title: str) -> Path:
    """Write the page and the CSV; the page's path. OutputError when that can't be."""
    from hsfuse.assessment.report import Scene, render_summary

    figures = [_timed(outcome, _figures(outcome)) for outcome in outcomes]
    common = os.path.commonpath([outcome.job.output.parent for outcome in outcomes])
    scenes = [
        Scene(
            os.path.relpath(outcome.job.output, common),
            _link(outcome.job.report, folder),
            outcome.state,
            outcome.error,
            found.get("seconds"),
            found,
        )
        for outcome, found in zip(outcomes, figures, strict=True)
    ]
    write_whole(folder / TABLE, _csv(outcomes, figures))
    write_whole(folder / PAGE, render_summary(scenes, title))
    return folder / PAGE


def _figures(outcome: Outcome) -> dict[str, Any]:
    """What the process of a job has left; {} for one that failed."""
    if outcome.state == "failed" or outcome.job.figures is None:
        return {}
    try:
        found = json.loads(outcome.job.figures.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _timed(outcome: Outcome, found: dict[str, Any]) -> dict[str, Any]:
    """The figures with the seconds that it took, kept in their file for whoever finds the scene finished."""
    if outcome.state != "done":
        return found
    timed = found | {"seconds": round(outcome.seconds, 2)}
    if found and outcome.job.figures is not None:
        write_whole(outcome.job.figures, json.dumps(timed, allow_nan=False))
    return timed


def _link(report: Path | None, folder: Path) -> str:
    if report is None or not report.exists():
        return ""
    return quote(Path(os.path.relpath(report, folder)).as_posix())


def _csv(outcomes: Sequence[Outcome], figures: Sequence[dict[str, Any]]) -> str:
    """A line a scene: what became of it, its verdict in the page's words, and all metrics that some scene has."""
    from hsfuse.assessment.report.words import VERDICTS

    metrics = list(dict.fromkeys(key for found in figures for key in found.get("metrics", {})))
    out = io.StringIO()
    table = csv.writer(out, lineterminator="\n")
    table.writerow(["output", "state", "error", "seconds", "verdict", "warnings", "report", "warning_texts", *metrics])
    for outcome, found in zip(outcomes, figures, strict=True):
        seconds = "" if found.get("seconds") is None else f"{found['seconds']:.2f}"
        verdict = VERDICTS.get(found.get("verdict", ""), "")
        told: list[object] = [outcome.job.output, outcome.state, outcome.error, seconds, verdict]
        warnings = found.get("warnings") or outcome.warnings
        report = outcome.job.report if outcome.job.report is not None and outcome.job.report.exists() else ""
        told += ["" if outcome.state == "failed" else len(warnings), report, "; ".join(warnings)]
        table.writerow([*told, *(found.get("metrics", {}).get(key, "") for key in metrics)])
    return out.getvalue()

"""What came out of cases: one JSON line each, appended as it is there, and a CSV of all of them."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from hsfuse.benchmark.cases import Case
from hsfuse.errors import OutputError
from hsfuse.metrics import CATALOGUE


@dataclass(frozen=True)
class Outcome:
    """Figures of a finished case, or its error. `seconds`: fit, fuse (the method alone) and wall (the process)."""

    metrics: dict[str, float | None] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    peak_mib: float | None = None
    device: str = ""
    error: str | None = None
    command: str = ""


@dataclass(frozen=True)
class Row:
    """A case and what came out of it."""

    case: Case
    outcome: Outcome

    @property
    def seconds(self) -> float | None:
        """Time of fitting and fusing; None for a failure."""
        taken = self.outcome.seconds
        return taken["fit"] + taken["fuse"] if taken else None

    def value(self, key: str) -> float | None:
        """A metric; None where it isn't known."""
        found = self.outcome.metrics.get(key)
        return None if found is None else float(found)

    def to_dict(self) -> dict[str, Any]:
        """Flat, for JSON and CSV."""
        case, outcome = self.case, self.outcome
        return {
            "scene": case.scene.name,
            "scale": case.scale,
            "srf": case.sensor.srf,
            "msi_bands": " ".join(case.sensor.msi_bands or ()),
            "snr_hsi": case.noise.snr_hsi,
            "snr_msi": case.noise.snr_msi,
            "psf": case.psf.text,
            "seed": case.seed,
            "method": case.method.label,
            "device": outcome.device,
            **{key: outcome.metrics[key] for key in CATALOGUE if key in outcome.metrics},
            "fit_s": outcome.seconds.get("fit"),
            "fuse_s": outcome.seconds.get("fuse"),
            "wall_s": outcome.seconds.get("wall"),
            "peak_mib": outcome.peak_mib,
            "error": outcome.error,
        }


class ResultFile:
    """results.jsonl: outcomes by the keys of their cases. A line that a killed run has left unfinished is dropped."""

    def __init__(self, path: Path, *, fresh: bool) -> None:
        self.path = path
        self.outcomes: dict[str, Outcome] = {}
        if fresh or not path.exists():
            path.write_text("", encoding="utf-8")
            return
        text = path.read_text(encoding="utf-8", errors="replace")
        for line in text.splitlines():
            self._take(line)
        if text and not text.endswith("\n"):
            with path.open("a", encoding="utf-8") as file:
                file.write("\n")

    def _take(self, line: str) -> None:
        try:
            entry = json.loads(line)
            self.outcomes[entry["key"]] = Outcome(**entry["outcome"])
        except (json.JSONDecodeError, KeyError, TypeError):
            return

    def done(self, case: Case) -> bool:
        """Whether the case has a result that isn't an error."""
        outcome = self.outcomes.get(case.key)
        return outcome is not None and outcome.error is None

    def add(self, case: Case, outcome: Outcome) -> None:
        """Keep an outcome, on disk before anything else happens."""
        self.outcomes[case.key] = outcome
        entry = {"key": case.key, "scene": case.scene.name, "method": case.method.label, "case": case.facts(),
                 "outcome": asdict(outcome)}  # fmt: skip
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry, allow_nan=False) + "\n")

    def rows(self, cases: Iterable[Case]) -> list[Row]:
        """Those of the cases that have an outcome."""
        return [Row(case, self.outcomes[case.key]) for case in cases if case.key in self.outcomes]


def csv_text(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """One flat dictionary a row, with the same keys in all."""
    flat = [row.to_dict() for row in rows]
    keys = dict.fromkeys(key for row in sorted(flat, key=len, reverse=True) for key in row)
    return [{key: row.get(key) for key in keys} for row in flat]


def write_csv(rows: Sequence[Row], path: Path) -> None:
    """All rows with all metrics in full digits."""
    flat = csv_text(rows)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(flat[0]) if flat else [], lineterminator="\n")
        writer.writeheader()
        writer.writerows(flat)


def write_whole(path: Path, text: str) -> None:
    """A text file, under another name first; OutputError when that can't be."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_text(text, encoding="utf-8")
        os.replace(temporary, path)
    except OSError as error:
        raise OutputError(f"{path} can't be written: {error.strerror}") from error
    finally:
        temporary.unlink(missing_ok=True)

"""What came out of cases: one JSON line each, appended as it is there, and a CSV of all of them."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from hsfuse.benchmark.cases import Case, Method, Noise, Psf, Scene, Sensor
from hsfuse.benchmark.mismatch import Mismatch
from hsfuse.core.errors import InputError
from hsfuse.core.options import DEFAULT_MTF
from hsfuse.metrics import CATALOGUE

#: The method alone; the process; and its processor time on all cores, which a busy machine doesn't lengthen.
SECONDS = ("fit", "fuse", "wall", "cpu")


@dataclass(frozen=True)
class Outcome:
    """Figures of a finished case, or its error; `seconds` by the names in SECONDS."""

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
            "scale": case.ratio,
            "srf": case.sensor.srf,
            "msi_bands": " ".join(case.sensor.msi_bands or ()),
            "snr_hsi": case.noise.snr_hsi,
            "snr_msi": case.noise.snr_msi,
            "mtf": case.psf.mtf if case.psf.sigma is None else None,
            "psf_sigma": case.psf.sigma,
            "seed": case.seed,
            **({"mismatch": case.mismatch.name, "told": case.method.told} if case.mismatch else {}),
            "method": case.method.label,
            "fuser": case.method.name,
            "device": outcome.device,
            **{key: outcome.metrics[key] for key in CATALOGUE if key in outcome.metrics},
            **{f"{what}_s": outcome.seconds.get(what) for what in SECONDS},
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
    """All rows with all metrics, in the digits that float32 bears."""
    flat = [{key: _digits(value) for key, value in row.items()} for row in csv_text(rows)]
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(flat[0]) if flat else [], lineterminator="\n")
        writer.writeheader()
        writer.writerows(flat)


def _digits(value: Any) -> Any:
    return f"{value:.7g}" if isinstance(value, float) else value


def read_csv(path: Path) -> list[Row]:
    """The rows of a CSV of `write_csv`, their cases without paths and method options; InputError for another file."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = [_row(line) for line in csv.DictReader(file)]
    except OSError as error:
        raise InputError(f"{path}: can't be read ({error.strerror})") from error
    except KeyError as error:
        raise InputError(f"{path} isn't the results.csv of a benchmark: it has no column {error}") from error
    except (AttributeError, TypeError, ValueError, csv.Error) as error:  # the first two: a line that ends too early
        raise InputError(f"{path} isn't the results.csv of a benchmark, or damaged") from error
    if not rows:
        raise InputError(f"{path} has no results; wanted the results.csv of a benchmark")
    return rows


def _row(line: dict[str, str]) -> Row:
    def number(key: str) -> float | None:
        return float(line[key]) if line[key] else None

    sigma = number("psf_sigma")
    case = Case(
        Scene(line["scene"], Path(line["scene"])),
        int(line["scale"]),
        Sensor(line["srf"], tuple(line["msi_bands"].split()) or None),
        Noise(number("snr_hsi"), number("snr_msi")),
        Psf(number("mtf") or DEFAULT_MTF, sigma),
        int(line["seed"]),
        Method(line["fuser"], line["method"], told=line.get("told") or "user"),
        mismatch=Mismatch(line["mismatch"]) if line.get("mismatch") else None,
    )
    metrics = {key: number(key) for key in CATALOGUE if key in line}
    seconds = {what: s for what in SECONDS if (s := number(f"{what}_s")) is not None}
    return Row(case, Outcome(metrics, seconds, number("peak_mib"), line["device"], line["error"] or None))

"""What the report tells of the making of a cube: stages, time, registration, radiometry."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import hypot, isfinite
from typing import Any

from hsfuse.assessment import Assessment, number

#: Width of a drawing of shifts, and length of its longest arrow, in its own units.
DRAWN_WIDTH, LONGEST = 300.0, 34.0


@dataclass(frozen=True)
class StageRow:
    """A stage of a fusion: error and angle on held-out cells relative to the base's, seconds, as text."""

    name: str
    error: str
    angle: str
    seconds: str


@dataclass(frozen=True)
class Arrow:
    """A shift drawn from (x, y) to (x + dx, y + dy)."""

    x: float
    y: float
    dx: float
    dy: float


@dataclass(frozen=True)
class ShiftFigure:
    """The shifts of all windows of a scene, drawn `times` too long on `width` x `height`; `words` tell them."""

    title: str
    words: str
    width: float
    height: float
    arrows: tuple[Arrow, ...]
    longest: float
    times: float


def stages(provenance: Mapping[str, Any]) -> list[StageRow]:
    """Stages of the adaptation, as far as they are recorded."""
    record = provenance.get("adaptation")
    found = record.get("stages") if isinstance(record, Mapping) else None
    if not isinstance(found, Sequence) or isinstance(found, str):
        return []
    return [_stage(stage) for stage in found if isinstance(stage, Mapping) and stage.get("name")]


def _stage(stage: Mapping[str, Any]) -> StageRow:
    def share(key: str) -> str:
        value = stage.get(key)
        return f"{value:.1%}" if isinstance(value, int | float) and isfinite(value) else "-"

    seconds = stage.get("seconds")
    time = f"{seconds:.1f}" if isinstance(seconds, int | float) else "-"
    return StageRow(str(stage["name"]), share("error"), share("angle"), time)


def effort(provenance: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Time and machine as (what, how much) lines."""
    out = []
    seconds = provenance.get("seconds")
    if isinstance(seconds, Mapping):
        known = {key: value for key, value in seconds.items() if isinstance(value, int | float)}
        out = [(str(key).replace("_", " "), f"{value:.1f} s") for key, value in known.items()]
    return out + [(name, str(provenance[key])) for key, name in _MACHINE.items() if provenance.get(key)]


_MACHINE = {"device": "device", "scan": "scan kernel"}


def shift_figures(a: Assessment) -> list[ShiftFigure]:
    """Shifts of the LRHSI against the MSI: as the files have it and, where it was corrected, what is left.

    Without the inputs, what the fused file records.
    """
    told = a.provenance.get("registration")
    if a.registration is not None and a.scale is not None:
        shape = (a.shape[1] / a.scale, a.shape[2] / a.scale)
        both = [("As the files have it", a.registration.found), ("After correction", a.registration.left)]
        fields = {t: [vars(window) for window in s.field] for t, s in both if s is not None and s.field}
        words = {title: shift.describe() for title, shift in both if shift is not None}
        longest = max([_longest(field) for field in fields.values()], default=0.0)
        return [_figure(title, field, shape, words[title], longest) for title, field in fields.items()]
    if isinstance(told, Mapping) and isinstance(told.get("field"), Sequence) and told["field"]:
        rows, cols = ([window[key] for window in told["field"]] for key in ("row", "col"))
        said = f"{number(told.get('dy'))} rows, {number(told.get('dx'))} columns in LR pixels"
        shape = (max(rows) + min(rows), max(cols) + min(cols))
        title = "After correction" if told.get("corrected") else "As the files have it"
        return [_figure(title, told["field"], shape, said, _longest(told["field"]))]
    return []


def _longest(field: Sequence[Mapping[str, float]]) -> float:
    return max(hypot(window["dy"], window["dx"]) for window in field)


def _figure(
    title: str, field: Sequence[Mapping[str, float]], shape: tuple[float, float], words: str, longest: float
) -> ShiftFigure:
    """`field` holds windows by row, col, dy, dx in LR pixels, `shape` the scene's rows and columns.

    `longest` is the shift that gets the longest arrow: one for all figures, so that they can be compared.
    """
    unit = DRAWN_WIDTH / max(shape[1], 1e-9)
    times = LONGEST / unit / longest if longest > 0 else 1.0
    arrows = tuple(
        Arrow(w["col"] * unit, w["row"] * unit, w["dx"] * times * unit, w["dy"] * times * unit) for w in field
    )
    return ShiftFigure(title, words, DRAWN_WIDTH, shape[0] * unit, arrows, _longest(field), times)

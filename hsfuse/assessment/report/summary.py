"""Many scenes on one page: a thumbnail, a verdict, the key figures and the report of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from hsfuse.assessment import Assessment
from hsfuse.assessment.checks import overall
from hsfuse.assessment.report.page import fill
from hsfuse.assessment.report.pictures import data_uri, power_of, stretch_limits, to_rgb
from hsfuse.assessment.report.words import CARDS, VERDICTS, method_words, shown
from hsfuse.metrics import CATALOGUE

#: Longest side of a thumbnail in pixels.
THUMBNAIL = 144


@dataclass(frozen=True)
class Scene:
    """A line of the page: name, address of its report ("" without one), what became of it, and `figures_of` it."""

    name: str
    report: str
    state: str
    error: str = ""
    seconds: float | None = None
    figures: Mapping[str, Any] = field(default_factory=dict)


def figures_of(a: Assessment) -> dict[str, Any]:
    """What the page shows of an assessment, in JSON's types: all metrics, the verdict, a thumbnail."""
    told = a.to_dict()
    found = {check.verdict for check in a.checks}
    return {
        "shape": list(a.shape),
        "method": method_words(a.provenance),
        "verdict": next((verdict for verdict in VERDICTS if verdict in found), ""),
        "overall": overall(a.checks),
        "warnings": told["warnings"],
        "metrics": told["metrics"],
        "thumbnail": _thumbnail(a),
    }


def _thumbnail(a: Assessment) -> str:
    """The fused cube in its first kind of colours, small; "" where there is none."""
    picture = next((one for one in a.pictures if one.image == "fused"), None)
    if picture is None:
        return ""
    limits = stretch_limits([picture.values])
    step = -(-max(picture.values.shape[1:]) // THUMBNAIL)
    return data_uri(to_rgb(picture.values[:, ::step, ::step], limits, power_of([picture.values], limits)))


def render_summary(scenes: Sequence[Scene], title: str) -> str:
    """The page, in the order of the scenes."""
    known = [key for key in CARDS if any(_value(scene, key) is not None for scene in scenes)]
    counts = {state: sum(scene.state == state for scene in scenes) for state in ("done", "finished", "failed")}
    verdicts = {verdict: sum(scene.figures.get("verdict") == verdict for scene in scenes) for verdict in VERDICTS}
    return fill(
        "summary.html",
        title=title,
        scenes=scenes,
        counts={state: count for state, count in counts.items() if count},
        verdicts={verdict: count for verdict, count in verdicts.items() if count},
        columns=[(CARDS[key][0], shown(key, 1.0)[1], CATALOGUE[key].direction) for key in known],
        cells=[[_text(scene, key) for key in known] for scene in scenes],
    )


def _value(scene: Scene, key: str) -> float | None:
    value = scene.figures.get("metrics", {}).get(key)
    return float(value) if isinstance(value, int | float | str) else None  # "inf" as to_dict has it


def _text(scene: Scene, key: str) -> str:
    value = _value(scene, key)
    return "-" if value is None else shown(key, value)[0]

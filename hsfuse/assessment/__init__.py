"""How good a fused cube is: `assess` measures it, `Assessment` holds all of it, `text_table` puts it in words.

Names are imported when first used: what the metrics are, and whether limits are understood, is told without torch.
"""

from typing import TYPE_CHECKING

from hsfuse.core.package import when_used

if TYPE_CHECKING:
    from hsfuse.assessment.checks import overall
    from hsfuse.assessment.passes import choose_points
    from hsfuse.assessment.result import (
        Assessment,
        Check,
        Curve,
        Expected,
        MapLayer,
        Picture,
        Registration,
        ResponseCurves,
        SampledSpectra,
    )
    from hsfuse.assessment.run import assess
    from hsfuse.assessment.settings import AssessSettings
    from hsfuse.assessment.table import (
        SECTIONS,
        MetricRow,
        check,
        column_names,
        columns,
        comparison,
        explain,
        number,
        parse_limits,
        rows,
        short_names,
        text_table,
        unranked,
    )

__all__ = [
    "SECTIONS",
    "AssessSettings",
    "Assessment",
    "Check",
    "Curve",
    "Expected",
    "MapLayer",
    "MetricRow",
    "Picture",
    "Registration",
    "ResponseCurves",
    "SampledSpectra",
    "assess",
    "check",
    "choose_points",
    "column_names",
    "columns",
    "comparison",
    "explain",
    "number",
    "overall",
    "parse_limits",
    "rows",
    "short_names",
    "text_table",
    "unranked",
]
__getattr__ = when_used(
    "hsfuse.assessment",
    {
        "checks": ("overall",),
        "passes": ("choose_points",),
        "result": (
            "Assessment",
            "Check",
            "Curve",
            "Expected",
            "MapLayer",
            "Picture",
            "Registration",
            "ResponseCurves",
            "SampledSpectra",
        ),
        "run": ("assess",),
        "settings": ("AssessSettings",),
        "table": (
            "SECTIONS",
            "MetricRow",
            "check",
            "column_names",
            "columns",
            "comparison",
            "explain",
            "number",
            "parse_limits",
            "rows",
            "short_names",
            "text_table",
            "unranked",
        ),
    },
)

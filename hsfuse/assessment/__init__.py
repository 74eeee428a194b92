"""How good a fused cube is: `assess` measures it, `Assessment` holds all of it, `text_table` puts it in words."""

from hsfuse.assessment.collect import choose_points
from hsfuse.assessment.core import assess
from hsfuse.assessment.result import (
    Assessment,
    Curve,
    Histogram,
    IndexCheck,
    MapLayer,
    Picture,
    ResponseCurves,
    SampledSpectra,
)
from hsfuse.assessment.settings import AssessSettings
from hsfuse.assessment.table import (
    SECTIONS,
    Failure,
    Row,
    check,
    comparison,
    explain,
    number,
    parse_limits,
    rows,
    short_names,
    text_table,
)

__all__ = [
    "SECTIONS",
    "AssessSettings",
    "Assessment",
    "Curve",
    "Failure",
    "Histogram",
    "IndexCheck",
    "MapLayer",
    "Picture",
    "ResponseCurves",
    "Row",
    "SampledSpectra",
    "assess",
    "check",
    "choose_points",
    "comparison",
    "explain",
    "number",
    "parse_limits",
    "rows",
    "short_names",
    "text_table",
]

"""How good a fused cube is: `assess` measures it, `Assessment` holds all of it, `text_table` puts it in words."""

from hsfuse.assessment.checks import checks, overall
from hsfuse.assessment.passes import choose_points
from hsfuse.assessment.result import (
    Assessment,
    BandGain,
    Check,
    Curve,
    Expected,
    Histogram,
    IndexCheck,
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
    Failure,
    Row,
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
)

__all__ = [
    "SECTIONS",
    "AssessSettings",
    "Assessment",
    "BandGain",
    "Check",
    "Curve",
    "Expected",
    "Failure",
    "Histogram",
    "IndexCheck",
    "MapLayer",
    "Picture",
    "Registration",
    "ResponseCurves",
    "Row",
    "SampledSpectra",
    "assess",
    "check",
    "checks",
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
]

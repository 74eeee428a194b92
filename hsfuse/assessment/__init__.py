"""How good a fused cube is: `assess` measures it, `Assessment` holds all of it, `text_table` puts it in words.

Names are imported when first used: what the metrics are, and whether limits are understood, is told without torch.
"""

from typing import TYPE_CHECKING

from hsfuse.core.package import when_used

if TYPE_CHECKING:
    from hsfuse.assessment.result import Assessment
    from hsfuse.assessment.run import assess
    from hsfuse.assessment.settings import AssessSettings
    from hsfuse.assessment.table import check, comparison, explain, parse_limits, text_table

__getattr__ = when_used(
    "hsfuse.assessment",
    {
        "result": ("Assessment",),
        "run": ("assess",),
        "settings": ("AssessSettings",),
        "table": ("check", "comparison", "explain", "parse_limits", "text_table"),
    },
)

"""The report: one self-contained HTML file that shows what was fused, how good it is and where it is not."""

from hsfuse.assessment.report.page import render_report, write_report
from hsfuse.assessment.report.summary import Scene, figures_of, render_summary

"""The report: one self-contained HTML file that shows what was fused, how good it is and where it is not."""

from hsfuse.assessment.report.page import check_report_path, render_report, write_report

__all__ = ["check_report_path", "render_report", "write_report"]

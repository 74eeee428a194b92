"""Many scenes: a table of jobs, each fused by a process of its own. Nothing here needs torch before a page is made."""

from typing import TYPE_CHECKING

from hsfuse.core.package import when_used

if TYPE_CHECKING:
    from hsfuse.batch.jobs import JobTable, read_jobs
    from hsfuse.batch.run import Outcome, run_jobs
    from hsfuse.batch.summary import with_figures, write_summary

__all__ = ["JobTable", "Outcome", "read_jobs", "run_jobs", "with_figures", "write_summary"]
__getattr__ = when_used(
    "hsfuse.batch",
    {
        "jobs": ("JobTable", "read_jobs"),
        "run": ("Outcome", "run_jobs"),
        "summary": ("with_figures", "write_summary"),
    },
)

"""`hsfuse batch`: many scenes, by a table of jobs."""

from __future__ import annotations

import logging
from contextlib import suppress
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource
from tqdm import tqdm

from hsfuse.batch import Outcome, read_jobs, run_jobs, with_figures, write_summary
from hsfuse.cli import options
from hsfuse.cli.console import SOME_FAILED, keep, print_json
from hsfuse.core.cluster import check_scheduler
from hsfuse.core.errors import HsfuseError, SettingError
from hsfuse.core.options import OPTIONS
from hsfuse.io.finished import MAY_BE_FILES

_log = logging.getLogger("hsfuse.batch")

_EXAMPLES = """\
  hsfuse batch scenes.csv --jobs 4 --resume
  hsfuse batch scenes.csv --dask scheduler.json --resume
  hsfuse batch scenes.toml --method blend --summary summary
  hsfuse batch scenes.jsonl --index $SLURM_ARRAY_TASK_ID --resume
  hsfuse batch scenes.csv --dry-run --json"""


@click.command(cls=options.GroupedCommand, no_args_is_help=True, examples=_EXAMPLES)
@click.argument("table", type=options.PATH, metavar="JOBS")
@click.option("--jobs", "at_once", type=options.Whole(1), default=1, show_default=True, help="Processes at once.")
@click.option("--index", type=options.Whole(0), help="Run only this job, counted from 0: for arrays of jobs.")
@click.option(
    "--summary",
    type=options.PATH,
    metavar="FOLDER",
    help="Put a page of all scenes (index.html) and summary.csv there, and a report of each that has none.",
)
@options.options_of(*(name for name in OPTIONS if name != "dask"))
@options.option_of(
    "dask", "Run the jobs on Dask's workers: local or local:N, a scheduler's tcp://..., or its .json file.", common=True
)
@click.option("--json", "as_json", is_flag=True, help="Print each job as a line of JSON.")
@options.config
@options.log_file
@options.verbosity
@options.help_all
@click.pass_context
def batch(
    context: click.Context,
    table: Path,
    at_once: int,
    index: int | None,
    summary: Path | None,
    as_json: bool,
    log_file: Path | None,
    **given: Any,
) -> None:
    """Fuse the scenes of JOBS, each by a process of its own; one that fails doesn't stop the rest.

    JOBS is CSV, JSON lines (.jsonl) or TOML ([[jobs]], and [defaults] for all). Columns are hsi, msi, output, report
    and the options of `hsfuse fuse` (see its --help-all); options here are for all jobs that don't say otherwise.
    Relative paths in JOBS are from its folder. Exit code 4: some failed.
    """
    said = {
        name: _from_here(name, value)
        for name, value in given.items()
        if context.get_parameter_source(name) != ParameterSource.DEFAULT
    }
    dry_run, dask = bool(said.pop("dry_run", False)), said.pop("dask", None)
    if dask is not None:
        if context.get_parameter_source("at_once") != ParameterSource.DEFAULT:
            raise click.UsageError(
                "--jobs is for processes here; with --dask the workers' threads say how many run at once"
            )
        check_scheduler(dask)
    found = read_jobs(table, said)
    if index is not None and index >= len(found.jobs):
        raise SettingError(f"{table} has no job {index}; it has {len(found.jobs)}, the first is 0")
    if summary is not None and not found.problems and not dry_run:
        found.jobs = with_figures(found.jobs, summary)
    if dask is not None:
        found.problems += [
            f"{job.where}: dask is for one scene alone, not within --dask" for job in found.jobs if job.options.dask
        ]
    if not found.problems:
        found.check(index)
    for problem in found.problems:
        click.echo(f"hsfuse: {problem}", err=True)
    if found.problems:
        raise SettingError(f"{table}: nothing was started")
    read, made = [table], [] if summary is None else [summary / "index.html", summary / "summary.csv"]
    for job in found.jobs if log_file is not None else ():
        with suppress(HsfuseError):  # of a job that isn't to be run
            job.check_paths()
            read += job.read
            made += job.made
    options.start_log_file(log_file, read, made)
    jobs = found.jobs if index is None else [found.jobs[index]]
    with tqdm(total=len(jobs), desc="batch", unit="scene", disable=None, leave=False) as bar:

        def tell(outcome: Outcome) -> None:
            with tqdm.external_write_mode():
                if as_json:
                    print_json(outcome.to_dict(), indent=None)
                else:
                    click.echo(outcome.text())
                keep(outcome.text(), level=logging.ERROR if outcome.state == "failed" else logging.INFO)
                for warning in outcome.warnings:
                    _log.debug("%s: warning: %s", outcome.job.output, warning)
            bar.update()

        outcomes = run_jobs(jobs, tell, at_once=at_once, dask=dask, dry_run=dry_run)
    if summary is not None and index is None and not dry_run:
        page = write_summary(outcomes, summary, table.name)
        click.echo(f"summary: {page}", err=True)
    failed = sum(outcome.state == "failed" for outcome in outcomes)
    keep(f"{len(outcomes) - failed} of {len(outcomes)} jobs went well", level=logging.INFO)
    if failed:
        click.echo(f"hsfuse: {failed} of {len(outcomes)} jobs {'would fail' if dry_run else 'failed'}", err=True)
        context.exit(SOME_FAILED)


def _from_here(name: str, value: Any) -> Any:
    """A path that stands on the command line is from the folder that the command runs in."""
    if isinstance(value, Path) or (name in MAY_BE_FILES and Path(value).is_file()):
        return type(value)(Path(value).absolute())
    return value

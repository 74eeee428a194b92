"""`hsfuse fuse`: the main job."""

from __future__ import annotations

import json
import logging
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from hsfuse.cli import options
from hsfuse.cli.console import keep, print_json, working
from hsfuse.core.errors import SettingError
from hsfuse.core.notes import step, texts, warning
from hsfuse.core.options import OPTIONS, FuseOptions

_log = logging.getLogger("hsfuse.fuse")

_EXAMPLES = """\
  hsfuse fuse lrhsi.hdr S2B_MSIL2A_20240612.SAFE fused.tif
  hsfuse fuse --hsi lrhsi.hdr --msi b02.tif,b03.tif,b04.tif,b08.tif --srf sentinel2 -o fused.tif
  hsfuse fuse lrhsi.hdr msi.tif quick.tif --srf sentinel2 --method blend
  hsfuse fuse lrhsi.hdr msi.tif fused.tif --srf sentinel2 --qa quality.tif --report report.html
  hsfuse fuse --config scene.toml --resume"""


@click.command(cls=options.GroupedCommand, no_args_is_help=True, examples=_EXAMPLES)
@click.argument("files", nargs=-1, type=options.PATH, metavar="[HSI MSI OUT]")
@options.grouped("inputs", "--hsi", type=options.PATH, help="LRHSI with wavelengths: ENVI, GeoTIFF, or a product.")
@options.grouped(
    "inputs",
    "--msi",
    type=options.PATH,
    multiple=True,
    metavar="PATH",
    help="MSI of the same ground: raster, product, or b02.tif,b03.tif,... (also by several --msi).",
)
@options.grouped(
    "output",
    "-o",
    "--output",
    type=options.PATH,
    help="Fused cube: .tif, .dat/.img/.bsq for ENVI, or .zarr.",
)
@options.options_of(*OPTIONS)
@options.grouped("output", "--report", type=options.PATH, help="Write a self-contained HTML report of the result, too.")
@options.grouped(
    "output",
    "--figures",
    type=options.PATH,
    common=False,
    help="Write metrics, verdict and a thumbnail as JSON, too: what `hsfuse batch --summary` shows.",
)
@options.json_output
@options.config
@options.log_file
@options.verbosity
@options.help_all
def fuse(
    files: tuple[Path, ...],
    hsi: Path | None,
    msi: tuple[Path, ...],
    output: Path | None,
    report: Path | None,
    figures: Path | None,
    as_json: bool,
    log_file: Path | None,
    **given: Any,
) -> None:
    """Fuse an LRHSI with an MSI into an HRHSI on the MSI's grid.

    By default a training-free base and a regression of what it leaves, learned from the scene itself. With --effort
    best SRLF-Net is trained on the scene, too, within --adapt-steps and --adapt-minutes, which counts as far as the
    scene's own held-out blocks bear it out; --effort fast is the base alone.
    """
    low, high, place = _named(files, hsi, msi, output)
    _check_effort(given["method"], given["effort"])
    chosen = FuseOptions(**given, command=" ".join(["hsfuse", *sys.argv[1:]]))
    if log_file is not None:
        from hsfuse.fusion.job import Job

        job = Job("", low, (high,) if isinstance(high, Path) else high, place, chosen, report, figures)
        job.check_paths()
        options.start_log_file(log_file, job.read, job.made)
    with working():
        result = fuse_and_report(low, high, place, chosen, report, figures)
    keep(result.text().splitlines()[0], level=logging.INFO)
    if as_json:
        print_json(result.to_dict())
    else:
        click.echo(result.text())


def _named(
    files: tuple[Path, ...], hsi: Path | None, msi: tuple[Path, ...], output: Path | None
) -> tuple[Path, Path | tuple[Path, ...], Path]:
    """The three files, by options or in their order for those that no option names.

    Three in their order go before those of a configuration file, as all that the command line says.
    """
    source = click.get_current_context().get_parameter_source
    if len(files) == 3:
        kept = {name for name in ("hsi", "msi", "output") if source(name) is not ParameterSource.DEFAULT_MAP}
        hsi, output = (hsi if "hsi" in kept else None), (output if "output" in kept else None)
        msi = msi if "msi" in kept else ()
    rest = list(files)
    low = hsi or (rest.pop(0) if rest else None)
    high = options.split(msi or ((rest.pop(0),) if rest else ()))
    place = output or (rest.pop(0) if rest else None)
    for option, value in (("--hsi", low), ("--msi", high), ("--output", place)):
        if value is None:
            raise click.UsageError(f"Missing option '{option}'; wanted HSI MSI OUT, or each by its option.")
    if rest:
        raise click.UsageError(f"Got unexpected extra argument ({' '.join(map(str, rest))})")
    assert low is not None
    assert high is not None
    assert place is not None
    return low, high, place


def _check_effort(method: str, effort: str) -> None:
    """SettingError where the line names an effort and a method that knows none; that of a file is for those that do."""
    said = click.get_current_context().get_parameter_source("effort")
    if said is not ParameterSource.COMMANDLINE or effort == FuseOptions.effort:
        return
    from hsfuse.methods import knows_effort, weighted_methods

    if not knows_effort(method):
        raise SettingError(
            f"--effort {effort} is about a network and what the scene teaches, but --method {method} uses neither; "
            f"leave out one of the two, or take one of the methods {', '.join(weighted_methods())}"
        )


def fuse_and_report(
    hsi: Path,
    msi: Path | tuple[Path, ...],
    output: Path,
    chosen: FuseOptions,
    report: Path | None,
    figures: Path | None = None,
) -> Any:
    """`run_fusion`, then an HTML report of the result against its inputs, and the `figures` of it for a summary.

    What needs no pixels is looked at first: whether it can be done, and whether it is done.
    """
    from hsfuse.fusion.job import Job
    from hsfuse.io.files import write_whole
    from hsfuse.io.finished import is_fresh

    if chosen.dask is not None:
        from hsfuse.core.cluster import check_scheduler

        check_scheduler(chosen.dask)
    several = (msi,) if isinstance(msi, Path) else msi
    told = [path for path in (report, figures) if path is not None]
    job = Job("", hsi, several, output, chosen, report, figures)
    job.check()
    from hsfuse.fusion.result import FusionResult

    if chosen.resume and job.state() == "finished":
        return replace(FusionResult.of_finished(output, chosen), warnings=job.warned())
    why, job = job.damage() if chosen.resume else "", job.as_run()  # what isn't GeoTIFF begins anew
    lost = [warning("output-damaged", name=output.name, why=why)] if why and not job.options.resume else []
    for one in lost:
        _log.warning("%s", one)
    chosen = job.options
    job.look()
    from hsfuse.fusion import run_fusion

    result = run_fusion(hsi, msi, output, chosen)
    result = replace(result, warnings=[*texts(lost), *result.warnings], records=(*lost, *result.records))
    if told and not chosen.dry_run and not (result.done and all(is_fresh(path, output) for path in told)):
        from hsfuse.assessment import assess
        from hsfuse.assessment.report import figures_of, write_report

        made = assess(output, hsi=hsi, msi=msi, srf=chosen.srf, msi_bands=chosen.msi_bands, qa=chosen.qa)
        known = {*result.warnings} | (
            {one.code for one in result.records} & {"unseen"}
        )  # a response estimated anew differs
        more = [one for one in made.warnings if not {one.text, one.code} & known]
        for one in more:
            _log.warning("%s", one)
        result = replace(result, warnings=[*result.warnings, *texts(more)], records=(*result.records, *more))
        if report is not None:
            with step("writing the report"):
                write_report([made], report, overwrite=chosen.overwrite or chosen.resume)
            if chosen.stac:
                from hsfuse.io.stac import add_report

                add_report(output, report)
        if figures is not None:
            write_whole(figures, json.dumps(figures_of(made) | {"warnings": result.warnings}, allow_nan=False))
    return result

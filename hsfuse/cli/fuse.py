"""`hsfuse fuse`: the main job."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Any

import click

from hsfuse.cli import options
from hsfuse.cli.console import print_json
from hsfuse.core.options import OPTIONS, FuseOptions

_log = logging.getLogger("hsfuse.fuse")


@click.command(no_args_is_help=True)
@options.hsi
@options.msi
@click.option(
    "-o", "--output", type=options.PATH, required=True, help="Fused cube: .tif, .dat/.img/.bsq for ENVI, or .zarr."
)
@options.options_of(*OPTIONS)
@click.option("--report", type=options.PATH, help="Write a self-contained HTML report of the result, too.")
@options.json_output
@options.verbosity
def fuse(
    hsi: Path, msi: Path | tuple[Path, ...], output: Path, report: Path | None, as_json: bool, **given: Any
) -> None:
    """Fuse an LRHSI with an MSI into an HRHSI on the MSI's grid.

    By default SRLF-Net corrects a training-free base twice: as it has learned from other sensors' scenes, then as it
    learns from this one, within --adapt-steps and --adapt-minutes. The latter counts as far as the scene's own held-out
    blocks bear it out.
    """
    chosen = FuseOptions(**given, command=" ".join(["hsfuse", *sys.argv[1:]]))
    result = fuse_and_report(hsi, msi, output, chosen, report)
    if as_json:
        print_json(result.to_dict())
    else:
        click.echo(result.text())


def fuse_and_report(hsi: str | Path, msi: Any, output: str | Path, chosen: FuseOptions, report: Path | None) -> Any:
    """`run_fusion`, then an HTML report of the result against its inputs."""
    from hsfuse import fusion
    from hsfuse.assessment import assess
    from hsfuse.assessment.report import check_report_path, write_report

    if report is not None:
        several = [msi] if isinstance(msi, str | Path) else list(msi)
        theirs = chosen.overwrite or (chosen.resume and Path(output).exists())
        check_report_path(report, theirs, [hsi, *several, output])
    result = fusion.run_fusion(hsi, msi, output, chosen)
    if report is not None and not chosen.dry_run and not (result.done and report.exists()):
        made = assess(output, hsi=hsi, msi=msi, srf=chosen.srf, msi_bands=chosen.msi_bands, qa=chosen.qa)
        told = {text.rstrip(".").lower() for text in result.warnings}
        for warning in made.warnings:
            if warning.rstrip(".").lower() not in told:
                _log.warning("%s", warning)
        write_report([made], report, overwrite=chosen.overwrite)
    return result

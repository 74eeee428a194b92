"""`hsfuse assess`: how good fused cubes are."""

from __future__ import annotations

import json
from pathlib import Path

import click


@click.command(no_args_is_help=True)
@click.argument("fused", nargs=-1, type=click.Path(path_type=Path))
@click.option("--reference", type=click.Path(path_type=Path), help="The truth, on the fused cube's grid.")
@click.option("--hsi", type=click.Path(path_type=Path), help="LRHSI that went into the fusion.")
@click.option("--msi", type=click.Path(path_type=Path), help="MSI that went into the fusion.")
@click.option("--srf", help="Sensor of the MSI, or a CSV; default: as the fused file records.")
@click.option("--msi-bands", help="Bands of the MSI file, such as B2,B3,B4,B8.")
@click.option("--mtf", type=float, help="MTF at Nyquist of the LRHSI; default: as recorded, else 0.3.")
@click.option("--psf-sigma", type=float, help="Gaussian PSF in MSI pixels, in place of --mtf.")
@click.option("--phase", type=float, help="Centre of LR pixel 0 in MSI pixels; default: as recorded, else centred.")
@click.option("--peak", type=float, help="Highest possible value, for PSNR and SSIM; default 1 for reflectance.")
@click.option("--window", type=int, default=32, show_default=True, help="Side of UIQI's windows and Q2n's blocks.")
@click.option("--scale", type=int, help="Ratio of the GSDs, for ERGAS without --hsi and --msi.")
@click.option("--report", type=click.Path(path_type=Path), help="Write one self-contained HTML file.")
@click.option("--json", "style", flag_value="json", help="Everything but the maps, as JSON.")
@click.option("--csv", "style", flag_value="csv", help="All metrics as CSV.")
@click.option("--markdown", "style", flag_value="markdown", help="All metrics as a Markdown table, best in bold.")
@click.option("--fail-under", metavar="LIMITS", help="Exit code 3 when missed, such as psnr=40,sam=3.")
@click.option("--explain", is_flag=True, help="Print what each metric is, and stop.")
@click.option("--overwrite", is_flag=True, help="Replace an existing report.")
@click.option("-q", "--quiet", count=True, help="No notes; twice: no warnings either.")
@click.option("-v", "--verbose", count=True, help="Also the settings in use.")
@click.pass_context
def assess(
    context: click.Context,
    fused: tuple[Path, ...],
    reference: Path | None,
    hsi: Path | None,
    msi: Path | None,
    msi_bands: str | None,
    report: Path | None,
    style: str | None,
    fail_under: str | None,
    explain: bool,
    overwrite: bool,
    quiet: int,
    verbose: int,
    **settings: float | str | None,
) -> None:
    """How good FUSED cubes are: against a reference, against the LRHSI and MSI they were made from, or both.

    Several files are put side by side. Figures go to stdout, notes and warnings to stderr.
    """
    from hsfuse import assessment as work
    from hsfuse.scene import parse_bands

    if explain:
        click.echo(work.explain())
        return
    if not fused:
        raise click.UsageError("Missing argument 'FUSED...'.")
    limits = work.parse_limits(fail_under) if fail_under else {}
    if report is not None:
        from hsfuse.report import check_report_path

        inputs = [path for path in (*fused, reference, hsi, msi) if path is not None]
        check_report_path(report, overwrite, inputs)
    results = [
        work.assess(path, reference=reference, hsi=hsi, msi=msi, msi_bands=parse_bands(msi_bands), **settings)
        for path in fused
    ]
    _tell(results, quiet, verbose)
    click.echo(_shown(results, style))
    if report is not None:
        from hsfuse.report import write_report

        click.echo(f"report: {write_report(results, report, overwrite=overwrite)}", err=style is not None)
    failures = work.check(results, limits)
    for failure in failures:
        click.echo(f"limit missed: {failure}", err=True)
    context.exit(3 if failures else 0)


def _tell(results: list, quiet: int, verbose: int) -> None:
    """Notes, warnings and settings of all files on stderr, each line once."""
    lines: list[str] = []
    for a in results:
        lines += [f"{key}: {value}" for key, value in {**a.inputs, **a.settings}.items()] if verbose else []
        lines += [f"note: {text}" for text in a.notes] if quiet < 1 else []
        lines += [f"warning: {text}" for text in a.warnings] if quiet < 2 else []
    for line in dict.fromkeys(lines):
        click.echo(line, err=True)


def _shown(results: list, style: str | None) -> str:
    from hsfuse.assessment import comparison, text_table

    if style == "json":
        values = [a.to_dict() for a in results]
        return json.dumps(values[0] if len(values) == 1 else values, allow_nan=False, indent=2)
    return text_table(results) if style is None else comparison(results, style)

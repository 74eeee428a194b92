"""`hsfuse assess`: how good fused cubes are."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import click

from hsfuse.cli import options
from hsfuse.cli.console import print_json, working
from hsfuse.core.errors import SettingError
from hsfuse.core.options import FuseOptions

_log = logging.getLogger("hsfuse.assess")
#: Options of `fuse` that say how the two images are to be understood.
UNDERSTOOD = tuple(FuseOptions().of_pair())
IMAGES = ("reference", "hsi", "msi", "qa")


def _limits(context: click.Context, parameter: click.Parameter, value: str | None) -> dict[str, float]:
    """`psnr=40,sam=3` by metric, else a usage error."""
    if value is None:
        return {}
    from hsfuse.assessment import parse_limits

    try:
        return parse_limits(value)
    except SettingError as error:
        raise click.BadParameter(str(error)) from None


@click.command(no_args_is_help=True)
@click.argument("fused", nargs=-1, type=options.PATH)
@click.option("--reference", type=options.PATH, help="The truth, on the fused cube's grid.")
@click.option("--hsi", type=options.PATH, help="LRHSI that went into the fusion.")
@options.msi("MSI that went into the fusion: raster, product, or b02.tif,b03.tif,... (also by several --msi).")
@click.option("--qa", type=options.PATH, help="Quality raster of the fusion: its expected error is shown and tested.")
@options.options_of(*UNDERSTOOD, recorded=True)
@click.option(
    "--peak",
    type=options.Number(0, min_open=True),
    help="Highest possible value, for PSNR and SSIM; default: 1 for reflectance.",
)
@click.option(
    "--window", type=options.Whole(2), default=32, show_default=True, help="Side of UIQI's windows and Q2n's blocks."
)
@options.ratio("Ratio of the GSDs, for ERGAS without --hsi and --msi.")
@click.option(
    "--protocol",
    type=click.Choice(["full", "wald"]),
    default="full",
    show_default=True,
    help="wald: also degrade both inputs, fuse again in the same way, and compare with the LRHSI.",
)
@click.option("--report", type=options.PATH, help="Write one self-contained HTML file.")
@options.json_output
@click.option("--csv", "style", flag_value="csv", help="Print all metrics as CSV.")
@click.option("--markdown", "style", flag_value="markdown", help="Print all metrics as Markdown, best in bold.")
@click.option(
    "--fail-under",
    "limits",
    metavar="LIMITS",
    callback=_limits,
    help="Exit code 3 when a limit is missed, such as psnr=40,sam=3.",
)
@click.option("--explain", is_flag=True, help="Print what each metric is, and stop.")
@options.overwrite
@options.verbosity
@click.pass_context
def assess(context: click.Context, fused: tuple[Path, ...], explain: bool, **values: Any) -> None:
    """Say how good FUSED cubes are: against a reference, against the LRHSI and MSI they were made from, or both.

    Several files are put side by side, the best marked.
    """
    from hsfuse import assessment

    if explain:
        click.echo(assessment.explain())
    elif fused:
        context.exit(_assess(fused, **values))
    else:
        raise click.UsageError("Missing argument 'FUSED...'.", context)


def _assess(
    fused: tuple[Path, ...],
    report: Path | None,
    as_json: bool,
    style: str | None,
    limits: dict[str, float],
    protocol: str,
    overwrite: bool,
    **settings: Any,
) -> int:
    """Assess, print, write the report; returns the exit code."""
    from hsfuse import assessment
    from hsfuse.assessment.settings import check_compared
    from hsfuse.io.files import check_report_path
    from hsfuse.io.open import check_readable

    reference, hsi, msi, qa = (settings[name] for name in ("reference", "hsi", "msi", "qa"))
    for image in fused:
        check_readable(image)
    check_compared(reference, hsi, msi)
    assessment.AssessSettings.of({name: value for name, value in settings.items() if name not in IMAGES})
    if report is not None:
        inputs = (*fused, reference, hsi, *_several(msi))
        check_report_path(report, overwrite, [path for path in inputs if path is not None])
    for image in (reference, qa):
        check_readable(image)
    check_readable(hsi, "HSI", msi)
    check_readable(msi, "MSI")
    with working():
        from hsfuse.assessment.report import write_report
        from hsfuse.assessment.wald import assess_wald

        measure = assess_wald if protocol == "wald" else assessment.assess
        results = [measure(path, **settings) for path in fused]
    _say(results)
    if as_json:
        print_json(results[0].to_dict() if len(results) == 1 else [a.to_dict() for a in results])
    else:
        click.echo(assessment.comparison(results, style) if style else assessment.text_table(results))
    if report is not None:
        written = write_report(results, report, overwrite=overwrite)
        click.echo(f"report: {written}", err=as_json or style is not None)
    failures = assessment.check(results, limits)
    for failure in failures:
        click.echo(f"hsfuse: limit missed: {failure}", err=True)
    return 3 if failures else 0


def _several(files: Any) -> tuple[Path, ...]:
    """No path, one or several, as a tuple."""
    return files if isinstance(files, tuple) else (files,)


def _say(results: list[Any]) -> None:
    """Settings, notes and warnings of all files on stderr: once what is true of all, else with the file's name."""
    lines = [_lines(a) for a in results]
    paths = [Path(a.fused) for a in results]
    names = [path.name for path in paths]
    shared = set.intersection(*map(set, lines))
    told: set[tuple[int, str]] = set()
    for path, own in zip(paths, lines, strict=True):
        name = path.name if names.count(path.name) == 1 else path
        for level, line in own:
            if (level, line) not in shared:
                _log.log(level, "%s: %s", name, line)
            elif (level, line) not in told:
                _log.log(level, "%s", line)
            told.add((level, line))


def _lines(a: Any) -> list[tuple[int, str]]:
    """What is to be said of a file, and of the test at reduced resolution, each line once, with its level."""
    found: dict[tuple[int, str], None] = {}
    for one in [a] if a.reduced is None else [a, a.reduced]:
        settings = [f"{key}: {value}" for key, value in {**one.inputs, **one.settings}.items()]
        notes = [told.text for told in one.notes if told.severity == "note"]
        warnings = [told.text for told in (*one.pair_warnings, *one.warnings)]
        for level, lines in ((logging.DEBUG, settings), (logging.INFO, notes), (logging.WARNING, warnings)):
            found |= dict.fromkeys((level, line) for line in lines)
    return list(found)

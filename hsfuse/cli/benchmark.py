"""`hsfuse benchmark`: methods against each other on reference cubes, and tables of their results."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Any

import click

from hsfuse.cli import options
from hsfuse.cli.console import print_json


def _numbers(context: click.Context, parameter: click.Parameter, value: str | None) -> list[Any] | None:
    """`none,35` as ["none", 35.0]; `4,8` of --ratios as whole numbers."""
    if value is None:
        return None
    kind = int if parameter.name == "ratios" else float
    try:
        return [part if part == "none" and kind is float else kind(part) for part in map(str.strip, value.split(","))]
    except ValueError:
        raise click.BadParameter(f"{value!r} isn't a list of numbers") from None


def _form(context: click.Context, parameter: click.Parameter, value: str) -> str:
    from hsfuse.benchmark import FORMS

    if value not in FORMS:
        raise click.BadParameter(f"there is no form {value!r}; known are {', '.join(FORMS)}")
    return value


def _check_methods(names: tuple[str, ...]) -> None:
    """A usage error for the first that there isn't; a configuration may have labels of its own."""
    from hsfuse.methods import METHODS

    for name in names:
        if name not in METHODS:
            raise click.BadParameter(
                f"there is no method {name!r}; known are {', '.join(METHODS)}", param_hint="'--methods'"
            )


class RunByDefault(click.Group):
    """A group whose first command is meant where none is named."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Put `run` before a configuration or an option of it."""
        if args and args[0] not in (*self.commands, *self.get_help_option_names(ctx)):
            args = ["run", *args]
        return super().parse_args(ctx, args)


@click.group(cls=RunByDefault, no_args_is_help=True)
def benchmark() -> None:
    """Compare methods on reference cubes.

    `hsfuse benchmark CONFIG.toml` is short for `hsfuse benchmark run CONFIG.toml`; see `hsfuse benchmark run --help`.
    """


@benchmark.command(no_args_is_help=True, short_help="Compare methods; meant where no command is named.")
@click.argument("config", type=options.PATH, required=False)
@click.option("-o", "--output", type=options.PATH, help="Folder for the results; default: the configuration's name.")
@click.option("--data", type=options.PATH, help="Folder below which references are; default: the configuration's.")
@click.option("--reference", multiple=True, help="Reference cube, or a pattern; may be given several times.")
@click.option("--methods", callback=options.parse_bands, metavar="NAMES", help="Methods, such as bicubic,gsa,srlf.")
@click.option(
    "--ratios",
    "--scales",
    "ratios",
    cls=options.GroupedOption,
    former=("--scales",),
    callback=_numbers,
    metavar="NUMBERS",
    help="Ratios of the GSDs, such as 4,8; default: 4.",
)
@click.option("--srf", help="Sensor of the MSI (see `hsfuse srf list`), or a CSV.")
@options.option_of("msi_bands")
@options.option_of("mtf", "MTF of the LRHSI at its Nyquist frequency; default: 0.3.")
@click.option("--snr-hsi", callback=_numbers, metavar="DB", help="SNRs of the LRHSI, such as none,35; default: none.")
@click.option("--snr-msi", callback=_numbers, metavar="DB", help="SNRs of the MSI, one for each of the LRHSI's.")
@click.option("--seed", type=options.Whole(min=0), help="Seed of all randomness; default: 0.")
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), help="Where to compute; default: auto.")
@click.option("--resume/--fresh", default=True, help="Keep the rows that are there (default), or start over.")
@click.option("--keep", is_flag=True, help="Keep the pairs and fused cubes, in the folder's work/.")
@click.option("--markdown", is_flag=True, help="Print the tables as Markdown.")
@options.json_output
@options.verbosity
@click.pass_context
def run(
    context: click.Context,
    config: Path | None,
    output: Path | None,
    data: Path | None,
    resume: bool,
    keep: bool,
    markdown: bool,
    as_json: bool,
    **values: Any,
) -> None:
    """Compare methods on reference cubes as CONFIG.toml says, or as the options say; these replace CONFIG's entries.

    From each reference `simulate` makes pairs; each method fuses them in a process of its own and is assessed against
    the truth. The output folder receives results.jsonl, results.csv, table.md and report.html; run again, the command
    goes on where it was interrupted. Exit code 1 when a method failed.
    """
    from hsfuse.benchmark import load_config, parse_config, render, run_benchmark, text_tables

    changes = _changes(**values)
    if config is None:
        _check_methods(values["methods"] or ())
        chosen = parse_config({}, changes, "the options", data or Path())
    else:
        chosen = load_config(config, changes, data)
    folder = output or Path(config.stem if config else "benchmark")
    command = shlex.join(["hsfuse", *sys.argv[1:]])
    result = run_benchmark(chosen, folder, fresh=not resume, keep=keep, command=command)
    if as_json:
        print_json(result.to_dict())
    else:
        click.echo(render(result.rows, "all") if markdown else text_tables(result.rows) + "\n")
        click.echo("\n".join(f"{path}" for path in result.files.values()), err=markdown)
    if result.failed:
        click.echo(f"hsfuse: {len(result.failed)} of {len(result.rows)} cases failed", err=True)
        context.exit(1)


def _changes(
    reference: tuple[str, ...],
    methods: tuple[str, ...] | None,
    ratios: list[int] | None,
    srf: str | None,
    msi_bands: tuple[str, ...] | None,
    mtf: float | None,
    snr_hsi: list[Any] | None,
    snr_msi: list[Any] | None,
    **single: Any,
) -> dict[str, Any]:
    """The options as entries of a configuration."""
    if msi_bands and not srf:
        raise click.UsageError("--msi-bands needs --srf")
    sensor = {"srf": srf} | ({"msi_bands": list(msi_bands)} if msi_bands else {})
    entries = {
        "scenes": [str(Path(name)) for name in reference] or None,
        "methods": list(methods) if methods else None,
        "ratios": ratios,
        "sensors": [sensor] if srf else None,
        "psf": None if mtf is None else [{"mtf": mtf}],
        "noise": _pairs(snr_hsi, snr_msi),
        **single,
    }
    return {key: value for key, value in entries.items() if value is not None}


def _pairs(hsi: list[Any] | None, msi: list[Any] | None) -> list[Any] | None:
    """SNRs of both images side by side; one of the two goes with all of the other."""
    if hsi is None and msi is None:
        return None
    a, b = hsi or ["none"], msi or ["none"]
    if len(a) != len(b) and 1 not in (len(a), len(b)):
        raise click.UsageError(f"--snr-hsi has {len(a)} values and --snr-msi {len(b)}: wanted as many, or one")
    n = max(len(a), len(b))
    return [list(pair) for pair in zip(a * (n // len(a)), b * (n // len(b)), strict=True)]


@benchmark.command(no_args_is_help=True, short_help="Tables of stored results as Markdown.")
@click.argument("results", type=options.PATH, nargs=-1, required=True)
@click.option(
    "--form", default="all", show_default=True, callback=_form, help="tables, overview, summary, lead, cost, or all."
)
@click.option("--into", type=options.PATH, help="Text file whose marked places are filled, in place of printing.")
def tables(results: tuple[Path, ...], form: str, into: Path | None) -> None:
    """Print the tables of stored RESULTS (results.csv under any name) as Markdown, or put them into a text.

    The table of NAME.csv goes between the lines `<!-- benchmark:NAME FORM -->` and `<!-- /benchmark -->` of --into.
    """
    from hsfuse.benchmark import fill_file, read_csv, render

    if into is not None:
        changed = fill_file(into, {path.stem: read_csv(path) for path in results})
        click.echo(f"{into}: {'tables renewed' if changed else 'nothing to renew'}")
        return
    click.echo("\n".join(render(read_csv(path), form) for path in results), nl=False)

"""`hsfuse simulate`: an LRHSI and an MSI from a reference cube."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from hsfuse.cli import options
from hsfuse.cli.console import print_json

_FORMATS = click.Choice(["envi", "gtiff"])


@click.command(no_args_is_help=True)
@click.argument("reference", type=options.PATH)
@click.argument("outdir", type=options.PATH)
@options.srf
@options.ratio("Ratio of the GSDs of LRHSI and MSI.", type=options.Whole(2), required=True)
@options.option_of("msi_bands", "Bands of the MSI to make, such as B2,B3; default: all that the reference covers.")
@options.options_of("mtf", "psf_sigma", "psf_size", "phase")
@click.option("--snr-hsi", type=options.Number(), help="Signal-to-noise ratio of the LRHSI in dB; default: no noise.")
@click.option("--snr-msi", type=options.Number(), help="Signal-to-noise ratio of the MSI in dB; default: no noise.")
@click.option(
    "--nodata",
    metavar="VALUE",
    callback=options.known_nodata,
    help="Raw number that means no data, or none; default: as the file says.",
)
@options.option_of("seed")
@click.option("--hsi-format", type=_FORMATS, default="envi", show_default=True, help="Format of the LRHSI.")
@click.option("--msi-format", type=_FORMATS, default="gtiff", show_default=True, help="Format of the MSI.")
@options.overwrite
@options.json_output
@options.verbosity
def simulate(reference: Path, outdir: Path, as_json: bool, **settings: Any) -> None:
    """Make an LRHSI and an MSI that belong together from a REFERENCE cube, for tests with a known truth.

    OUTDIR receives lrhsi.dat and .hdr, msi.tif, and reference.tif: the reference cropped to whole LR pixels.
    The LRHSI's georeference follows --phase, so a georeferenced pair is fused without --phase.
    """
    from hsfuse.io.open import check_readable

    check_readable(reference, "HSI")
    from hsfuse.benchmark.simulate import simulate as run

    pair = run(reference, outdir, **settings)
    if as_json:
        print_json(pair.to_dict())
    else:
        click.echo(pair.summary())

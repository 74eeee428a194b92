"""Options that several commands share, each spelled once.

A command takes them as decorators; the parameter's name is the one in the comment's place below, `json_output` gives
`as_json`, and `verbosity` (-q, -v) gives nothing because it sets the log level itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from hsfuse.cli.console import start_logging

PATH = click.Path(path_type=Path)


def parse_bands(context: click.Context, parameter: click.Parameter, value: str | None) -> tuple[str, ...] | None:
    """`B2,B3,B4,B8` as a tuple."""
    return None if value is None else tuple(part.strip() for part in value.split(","))


def parse_files(
    context: click.Context, parameter: click.Parameter, value: tuple[str, ...]
) -> Path | tuple[Path, ...] | None:
    """One file or product as its path; several, or a list with commas, as the paths of one image's bands."""
    from hsfuse.io import split_paths

    paths = tuple(path for text in value for path in split_paths(text))
    return paths[0] if len(paths) == 1 else paths or None


def _log_level(context: click.Context, parameter: click.Parameter, value: int) -> None:
    """Count -q down and -v up, whichever comes first on the line."""
    meta = context.meta
    meta["hsfuse.verbosity"] = meta.get("hsfuse.verbosity", 0) + (value if parameter.name == "verbose" else -value)
    start_logging(meta["hsfuse.verbosity"])


def choice(name: str, among: Sequence[str], text: str, default: str | None = None) -> Any:
    """An option with one of a few words for value, and `text` for help; a default is shown."""
    return click.option(name, type=click.Choice(among), default=default, show_default=True, help=text)


hsi = click.option(
    "--hsi",
    type=PATH,
    required=True,
    help="LRHSI with wavelengths: ENVI, GeoTIFF, other raster, or a product's folder.",
)
msi = click.option(
    "--msi",
    multiple=True,
    required=True,
    callback=parse_files,
    metavar="PATH",
    help="MSI of the same ground: raster, product, or b02.tif,b03.tif,... (also by several --msi).",
)
srf = click.option("--srf", required=True, help="Sensor of the MSI (see `hsfuse srf list`), or a CSV.")
srf_of_msi = click.option(
    "--srf",
    default="auto",
    show_default=True,
    help="Sensor of the MSI (see `hsfuse srf list`) or a CSV; auto: as the product says; estimate: from the pair.",
)
msi_bands = click.option(
    "--msi-bands", callback=parse_bands, metavar="NAMES", help="Bands of the MSI, such as B2,B3,B4,B8."
)
mtf = click.option(
    "--mtf", type=float, default=0.3, show_default=True, help="MTF of the LRHSI at its Nyquist frequency."
)
psf_sigma = click.option("--psf-sigma", type=float, help="Gaussian PSF in MSI pixels, in place of --mtf.")
psf_size = click.option(
    "--psf-size", type=click.IntRange(1), help="Taps of the Gaussian PSF along each axis; default: four sigma each way."
)
phase = click.option("--phase", type=float, help="Centre of LR pixel 0 in MSI pixels; default: centred.")
psf = choice(
    "--psf",
    ["mtf", "estimate", "free"],
    "PSF from --mtf or --psf-sigma; or estimated from the pair, as a Gaussian of two widths or a free kernel.",
    "mtf",
)
REGISTER = ["auto", "off", "report"]
register = choice(
    "--register", REGISTER, "Correct a shift between the two images, don't look, or only tell it.", "auto"
)
register_limit = click.option(
    "--register-limit", type=click.FloatRange(0), default=3.0, show_default=True, help="Largest shift in LR pixels."
)
MATCH = ["auto", "off"]
match_radiometry = choice(
    "--match-radiometry", MATCH, "Bring the MSI's bands to the HSI's radiometry where they clearly differ.", "auto"
)
drop_absorption = click.option(
    "--drop-absorption", is_flag=True, help="Leave out bands at 1350-1450 and 1800-1950 nm (water vapour)."
)
hsi_nodata = click.option(
    "--hsi-nodata", metavar="VALUE", help="Raw number that means no data in the HSI, or none; default: as it says."
)
msi_nodata = click.option(
    "--msi-nodata", metavar="VALUE", help="Raw number that means no data in the MSI, or none; default: as it says."
)
seed = click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Seed of all randomness.")
device = choice("--device", ["auto", "cpu", "cuda"], "Where to compute.", "auto")
overwrite = click.option("--overwrite", is_flag=True, help="Replace outputs that exist.")
json_output = click.option("--json", "as_json", is_flag=True, help="Print the result as one JSON object.")
_quiet = click.option(
    "-q", "--quiet", count=True, expose_value=False, callback=_log_level, help="No notes; twice: no warnings either."
)
_verbose = click.option(
    "-v", "--verbose", count=True, expose_value=False, callback=_log_level, help="Also say the details."
)


def verbosity(command: Any) -> Any:
    """-q and -v, counted."""
    return _quiet(_verbose(command))

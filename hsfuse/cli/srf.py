"""`hsfuse srf`: the library of spectral response functions."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hsfuse.cli import options
from hsfuse.cli.console import in_ascii, print_json, table
from hsfuse.core.values import plus_minus

if TYPE_CHECKING:
    from hsfuse.pair.calibrate import PairEstimate
    from hsfuse.physics import SpectralResponse, SrfRecord

#: A band of which less than this share is inside the HSI's range is called covered in part.
_WHOLE = 0.98
#: HSI bands whose weight is at least this share of the largest count as part of an MSI band's range.
_WEIGHT = 0.01


@click.group(no_args_is_help=True)
def srf() -> None:
    """List, show and check spectral response functions."""


@srf.command("list")
@options.json_output
def list_command(as_json: bool) -> None:
    """All sensors of the library."""
    from hsfuse.physics import list_srfs

    records = [_record(record) for record in list_srfs()]
    if as_json:
        print_json(records)
        return
    rows = [[r["name"], str(len(r["bands"])), r["kind"], r["sensor"], _clipped(r["source"])] for r in records]
    click.echo(table(["name", "bands", "kind", "sensor", "source"], rows))


@srf.command()
@click.argument("name", callback=options.known_srf, shell_complete=options.COMPLETED["srf"])
@options.json_output
def show(name: str, as_json: bool) -> None:
    """The bands of a sensor, NAME of the library or a CSV: centres, FWHM, source and terms."""
    from hsfuse.physics import load_srf

    response = load_srf(name)
    facts = _response(response)
    if as_json:
        print_json(facts)
        return
    heads = {key: facts[key] for key in ("sensor", "kind", "source", "terms", "note") if facts[key]}
    click.echo("\n".join([in_ascii(response.name), *(f"  {key}: {in_ascii(value)}" for key, value in heads.items())]))
    click.echo(table(["band", "centre nm", "FWHM nm"], [_cells(band) for band in facts["bands"]]))


@srf.command()
@click.argument("hsi", type=options.PATH)
@click.argument("name", callback=options.known_srf, shell_complete=options.COMPLETED["srf"])
@options.msi("MSI of the same ground: says which of the bands there are, and NAME is held against both images.")
@options.option_of("msi_bands")
@options.json_output
@options.verbosity
def check(
    hsi: Path, name: str, msi: Path | tuple[Path, ...] | None, msi_bands: tuple[str, ...] | None, as_json: bool
) -> None:
    """How much of each band of the sensor NAME the wavelengths of an HSI cover, and from which HSI bands it is made.

    With --msi also whether the two images bear out the response, as `hsfuse fuse` asks them: where each band seems to
    lie, and what speaks against it.
    """
    from hsfuse.io import open_cube
    from hsfuse.physics import MIN_COVERAGE, load_srf, match_bands

    response = load_srf(name)
    there = set(response.bands)
    if msi is not None:
        with open_cube(msi, role="MSI") as high:
            names = high.spectrum.names or (None,) * high.count
            there = set(match_bands(response, names, high.count, msi_bands).bands)
    with open_cube(hsi, role="HSI") as reader:
        spectrum = reader.spectrum
    nm = spectrum.wavelengths_nm or ()
    matrix, coverage = response.matrix(nm, spectrum.fwhm_nm)
    bands = [
        _covered(band, float(share), row, nm) | {"used": bool(share >= MIN_COVERAGE and band in there)}
        for band, share, row in zip(response.bands, coverage, matrix, strict=True)
    ]
    log = logging.getLogger(__name__)
    for band in bands:
        if band["coverage"] < _WHOLE and band["band"] in there:
            log.warning("the HSI covers %.0f%% of %s: %s", 100 * band["coverage"], band["band"], _verdict(band))
    held = [] if msi is None else _held_against(hsi, msi, name, msi_bands, log)
    if as_json:
        print_json({"hsi": str(hsi), "srf": response.name, "bands": bands} | ({} if msi is None else {"pair": held}))
        return
    heads = ["band", "coverage", "HSI bands", "nm", "if the MSI has it" if msi is None else "in fusion"]
    click.echo(table(heads, [_check_cells(band, band["band"] in there) for band in bands]))
    if held:
        from hsfuse.assessment.report.sensors import response_row

        heads = ["band", "centre nm", "the pair says", "width nm", "the pair says", "misfit", "verdict"]
        cells = [[text.replace("\N{PLUS-MINUS SIGN}", "+-") for text in response_row(band).values()] for band in held]
        click.echo("\n" + table(heads, cells))


def _held_against(
    hsi: Path, msi: Path | tuple[Path, ...], name: str, msi_bands: tuple[str, ...] | None, log: logging.Logger
) -> list[dict[str, Any]]:
    """Each MSI band's response as the pair has it; [] where that can't be told, which is said with what it warns of."""
    from hsfuse.core.errors import HsfuseError
    from hsfuse.pair import open_pair

    try:
        with open_pair(hsi, msi, srf=name, msi_bands=msi_bands, strict=False) as pair:
            for doubt in pair.warnings:
                log.warning("%s", doubt)
            found = [] if pair.sensors is None else pair.sensors.to_dict()["response"]
            why = "the two images don't tell where the bands lie"
    except HsfuseError as error:
        found, why = [], str(error)
    if not found:
        log.warning("%s isn't held against the images: %s", name, why)
    return list(found)


@srf.command()
@options.hsi
@options.msi("MSI of the same ground: raster, product, or b02.tif,b03.tif,... (also by several --msi).", required=True)
@options.option_of("msi_bands")
@click.option(
    "--like",
    metavar="NAME",
    callback=options.known_srf,
    shell_complete=options.COMPLETED["srf"],
    help="Sensor that the MSI should be: says which bands it has, and is compared.",
)
@options.option_of("mtf", "Known MTF of the LRHSI at its Nyquist frequency; default: estimated, too.")
@options.option_of("psf_sigma", "Known Gaussian PSF in MSI pixels, in place of --mtf.")
@click.option(
    "--psf",
    "kind",
    type=click.Choice(["auto", "gaussian", "free"]),
    default="auto",
    show_default=True,
    help="What PSF to estimate: what the pair bears out, a Gaussian, or a free kernel.",
)
@options.option_of("phase")
@click.option("-o", "--output", type=options.PATH, help="CSV to write, for --srf; default: only print.")
@options.overwrite
@options.json_output
@options.verbosity
def estimate(
    hsi: Path, msi: Path | tuple[Path, ...], output: Path | None, overwrite: bool, as_json: bool, **settings: Any
) -> None:
    """Estimate the MSI's spectral response, and the LRHSI's PSF, from the pair itself.

    What a scene can't tell is said by +-: smooth spectra leave a band's place and width open. A table of the vendor is
    better where there is one; the estimate shows whether it fits.
    """
    from hsfuse.io.open import check_readable
    from hsfuse.physics import check_csv, write_srf

    if output is not None:
        check_csv(output, overwrite=overwrite)
    check_readable(hsi, "HSI", msi)
    check_readable(msi, "MSI")
    from hsfuse.pair.estimate import estimate_pair

    found, notes = estimate_pair(hsi, msi, **settings)
    log = logging.getLogger(__name__)
    for note in notes:
        log.info("%s", note)
    for warning in found.warnings:
        log.warning("%s", warning)
    response = found.as_response()
    if output is not None and response is not None:
        about = {"estimated": f"from {hsi.name} and {(msi if isinstance(msi, Path) else msi[0]).name}"}
        write_srf(response, output, about=about, overwrite=overwrite)
    if as_json:
        print_json(found.to_dict() | {"csv": None if output is None else str(output)})
    else:
        click.echo(_estimated(found))


def _estimated(found: PairEstimate) -> str:
    """A table of bands, then PSF and shift."""
    facts = found.to_dict()
    known = {band.band: band for band in found.comparison}
    heads = [
        "band",
        "centre nm",
        "+-",
        "width nm",
        "gain",
        "offset",
        "r",
        *(["library", "width", "common"] if known else []),
    ]
    lines = [table(heads, [_estimate_cells(band, known.get(band["band"]), bool(known)) for band in facts["bands"]])]
    if found.psf is not None:
        y, x = found.psf.shift
        lines.append(f"PSF: {found.psf.describe()}")
        lines.append(f"shift of the HSI against the MSI: {y:+z.2f} (down) and {x:+z.2f} (right) MSI pixels")
    return "\n".join(lines)


def _estimate_cells(band: dict[str, Any], known: Any, compared: bool) -> list[str]:
    centre, sd = plus_minus(band["centre_nm"], band["centre_sd_nm"]).split(" +- ")
    cells = [band["band"], centre, sd, f"{band['width_nm']:.1f}"]
    cells += [f"{band['gain']:.3f}", f"{band['offset']:+z.3g}", f"{band['correlation']:.3f}"]
    if known is None:
        return cells + ["-"] * (3 * compared)
    return [*cells, f"{known.known_centre_nm:.1f}", f"{known.known_width_nm:.1f}", f"{known.overlap:.0%}"]


def _record(record: SrfRecord) -> dict[str, Any]:
    return {
        "name": record.name,
        "sensor": record.sensor,
        "bands": record.bands,
        "kind": _kind(record.approximate),
        "also_called": [*record.aliases, *record.presumed_for],
        "source": record.source,
        "terms": record.terms,
    }


def _response(response: SpectralResponse) -> dict[str, Any]:
    centres, widths = response.centres_nm.tolist(), response.fwhm_nm.tolist()
    return {
        "name": response.name,
        "sensor": response.sensor,
        "kind": _kind_of(response),
        "source": response.source,
        "terms": response.terms,
        "note": response.note,
        "sha256": response.sha256,
        "bands": [
            {"band": band, "centre_nm": centre, "fwhm_nm": width}
            for band, centre, width in zip(response.bands, centres, widths, strict=True)
        ],
    }


def _kind_of(response: SpectralResponse) -> str:
    """The kind of a response in use; a CSV of one's own may leave it unsaid."""
    from hsfuse.physics import list_srfs

    if response.weights:
        return "estimated"
    own = response.path not in [record.path for record in list_srfs()]
    return "not said" if own and not response.approximate else _kind(response.approximate)


def _kind(approximate: bool) -> str:
    return "approximate" if approximate else "measured"


def _covered(band: str, share: float, weights: Any, wavelengths_nm: Sequence[float]) -> dict[str, Any]:
    """Coverage of one MSI band and the HSI bands (1-based) that make it."""
    used = [i for i, weight in enumerate(weights) if weight > 0 and weight >= _WEIGHT * weights.max()]
    nm = [wavelengths_nm[i] for i in used]
    return {
        "band": band,
        "coverage": share,
        "hsi_bands": [used[0] + 1, used[-1] + 1] if used else None,
        "range_nm": [min(nm), max(nm)] if used else None,
    }


def _verdict(band: dict[str, Any]) -> str:
    return "left out" if not band["used"] else "used" if band["coverage"] >= _WHOLE else "used, covered in part"


def _cells(band: dict[str, Any]) -> list[str]:
    return [band["band"], f"{band['centre_nm']:.1f}", f"{band['fwhm_nm']:.1f}"]


def _check_cells(band: dict[str, Any], there: bool) -> list[str]:
    spans = [_span(*pair) if pair else "-" for pair in (band["hsi_bands"], band["range_nm"])]
    return [band["band"], f"{band['coverage']:.1%}", *spans, _verdict(band) if there else "not in the MSI"]


def _span(low: float, high: float) -> str:
    return f"{low:g}" if low == high else f"{low:g}-{high:g}"


def _clipped(text: str, width: int = 60) -> str:
    return text if len(text) <= width else text[: width - 3].rstrip() + "..."

"""`hsfuse info`: what raster files hold."""

from __future__ import annotations

import json
from collections.abc import Mapping
from math import isnan
from pathlib import Path
from textwrap import indent
from typing import Any

import click

from hsfuse.cli import options
from hsfuse.cli.console import print_json


@click.command(no_args_is_help=True)
@click.argument("files", nargs=-1, required=True, type=options.PATH)
@click.option(
    "--nodata",
    metavar="VALUE",
    callback=options.known_nodata,
    help="Raw number that means no data, or none; default: as the files say.",
)
@click.option(
    "--bug-report",
    is_flag=True,
    help="Print a small text without pixels on what the files are made of, to be sent when one is read wrongly.",
)
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object; a list of them for several files.")
@options.verbosity
def info(files: tuple[Path, ...], nodata: str | None, bug_report: bool, as_json: bool) -> None:
    """Say what raster files or products hold, as hsfuse reads them.

    Product and day of acquisition, grid, bands, wavelengths, what the numbers are, nodata, masks, provenance. A product
    may be named by its folder, its archive, its metadata file or an image in it; the bands of one image as
    b02.tif,b03.tif.
    """
    if bug_report:
        from hsfuse.io.bug_report import bug_report as report_on

        click.echo("\n".join(report_on(path) for path in files), nl=False)
        return
    facts = [_facts(path, nodata) for path in files]
    if as_json:
        print_json(facts[0] if len(facts) == 1 else facts)
    else:
        whole = click.get_current_context().meta.get("hsfuse.verbosity", 0) > 0
        click.echo("\n\n".join(_shown(one, whole) for one in facts))


def _facts(path: Path, nodata: str | None) -> dict[str, Any]:
    from hsfuse.core.notes import texts
    from hsfuse.io import band_contents, constant_bands, open_cube, read_provenance
    from hsfuse.io.files import split_paths
    from hsfuse.io.fill import settle_fill
    from hsfuse.pair.quantity import guess_scale

    with open_cube(split_paths(path)) as opened:
        reader, kept, masked = settle_fill(opened, nodata, "--nodata")
        spectrum, grid, tags = reader.spectrum, reader.grid, reader.tags
        provenance = read_provenance(tags)
        quantity, why = reader.quantity, guess_scale(reader).note
        if quantity == "unknown" and provenance.get("quantity") in ("reflectance", "radiance"):
            quantity, why = provenance["quantity"], "as its HSI was taken for when it was fused"
        constant = constant_bands(reader, band_contents(reader)[1])
        return {
            "file": str(path),
            "product": tags.get("PRODUCT"),
            "acquired": tags.get("ACQUIRED"),
            "driver": reader.driver,
            "bands": reader.count,
            "size": list(grid.shape),
            "crs": None if grid.crs is None else grid.crs.to_string(),
            "unit": grid.unit or None,
            "gsd": list(grid.gsd) if grid.georeferenced else None,
            "bounds": list(grid.bounds) if grid.georeferenced else None,
            "dtype": reader.dtype,
            "scale": reader.scale,
            "offset": reader.offset,
            "quantity": quantity,
            "quantity_note": why or None,
            "nodata": "NaN" if reader.nodata is not None and isnan(reader.nodata) else reader.nodata,
            "masks": tags.get("MASK"),
            "names": spectrum.names,
            "wavelengths_nm": spectrum.wavelengths_nm,
            "fwhm_nm": spectrum.fwhm_nm,
            "bad_bands": None if spectrum.good is None else [i + 1 for i, good in enumerate(spectrum.good) if not good],
            "fill": [*masked, *kept, *constant],
            "notes": texts(reader.notes),
            "provenance": provenance,
        }


def _shown(facts: dict[str, Any], whole: bool) -> str:
    """A block of lines for people, with the whole provenance or the chief of it."""
    from hsfuse.core.values import counted

    rows, cols = facts["size"]
    lines = {
        **{key: facts[key] for key in ("product", "acquired") if facts[key]},
        "driver": facts["driver"],
        "size": " x ".join(counted(n, what) for n, what in ((rows, "row"), (cols, "column"), (facts["bands"], "band"))),
        "CRS": facts["crs"] or "none",
        "GSD": _numbers(facts["gsd"], " x ", facts["unit"]),
        "bounds": _numbers(facts["bounds"], ", ", facts["unit"]),
        "numbers": f"{facts['dtype']}, scale {facts['scale']:g}, offset {facts['offset']:g}",
        "quantity": facts["quantity"] + (f" ({facts['quantity_note']})" if facts["quantity_note"] else ""),
        "nodata": "none" if facts["nodata"] is None else facts["nodata"],
        **({"masked": facts["masks"]} if facts["masks"] else {}),
        "names": _few(facts["names"]),
        "wavelengths": _range(facts["wavelengths_nm"], "unknown"),
        "FWHM": _range(facts["fwhm_nm"], "unknown"),
        "bad bands": _few(facts["bad_bands"]) if facts["bad_bands"] else "none marked",
        **_made(facts["provenance"], whole),
    }
    notes = [f"  note: {note}" for note in [*facts["fill"], *facts["notes"]]]
    told = [f"  {key + ': ':<14}{value}" for key, value in lines.items()]
    if whole and facts["provenance"]:
        told += ["  provenance:", indent(json.dumps(facts["provenance"], indent=2, default=str), "    ")]
    return "\n".join([facts["file"], *told, *notes])


def _made(provenance: Mapping[str, Any], whole: bool) -> dict[str, str]:
    """The chief of what hsfuse wrote of a file's making: by which version, by what command and method."""
    if not provenance:
        return {}
    method, record = provenance.get("method"), provenance.get("provenance")
    told = {
        "made by": provenance.get("made by") or f"hsfuse {provenance.get('hsfuse', '')}".strip(),
        "command": provenance.get("command"),
        "provenance": record if isinstance(record, str) else None,
        "method": method.get("method") if isinstance(method, Mapping) else method,
    }
    lines = {key: str(value) for key, value in told.items() if value}
    return lines if whole or len(provenance) == 1 else lines | {"more": "-v or --json"}


def _numbers(values: list[float] | None, separator: str, unit: str | None) -> str:
    from hsfuse.core.grid import with_unit

    if values is None:
        return "not georeferenced"
    return with_unit(separator.join(f"{value:.10g}" for value in values), unit or "")


def _few(values: Any, most: int = 16) -> str:
    """All values when they are few, else the first and the last ones."""
    texts = [str(value) for value in values or ()]
    if len(texts) > most:
        texts = [*texts[:3], "...", texts[-1]]
    return ", ".join(texts) if any(texts) else "none"


def _range(values: tuple[float, ...] | None, unknown: str) -> str:
    if values is None:
        return unknown
    low, high = min(values), max(values)
    return f"{low:g} nm" if low == high else f"{low:g} to {high:g} nm"

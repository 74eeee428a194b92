"""What stands at the top of a report: which images, of which sensors and days, where, on which grid, in which unit."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from rasterio.crs import CRS
from rasterio.warp import transform

from hsfuse.assessment import Assessment
from hsfuse.assessment.result import ImageFacts
from hsfuse.core.grid import Grid, with_unit

#: Longest name of a sensor or file in the title.
LONGEST = 32
#: The note that tells a unit by figures alone, and all that tell in what unit the figures are, and why.
GUESSED = "quantity-guessed"
UNIT_CODES = frozenset({GUESSED, "quantity-rescaled", "unit-followed", "units-differ", "unit-unknown"})


def header(a: Assessment) -> list[tuple[str, str]]:
    """Lines of the head: fused cube, inputs, days of acquisition; what isn't known is left out, but for the days."""
    lines = [("Fused cube", ", ".join(_cube(a)))]
    inputs = {name: a.images[name] for name in ("LRHSI", "MSI") if name in a.images}
    lines += [(name, ", ".join(part for part in _image(a, name, image) if part)) for name, image in inputs.items()]
    if "reference" in a.images:
        lines.append(("Reference", Path(a.images["reference"].path).name))
    elif "reference" in a.inputs:
        lines.append(("Reference", Path(a.inputs["reference"]).name))
    days = [f"{name} {image.acquired}" for name, image in inputs.items() if image.acquired]
    return lines + ([("Acquired", ", ".join(days) or "the files don't say when")] if inputs else [])


def _cube(a: Assessment) -> Iterator[str]:
    """Size, GSD, reference system, bands and range."""
    yield f"{a.shape[1]} × {a.shape[2]} pixels"
    if "fused" in a.images:
        grid = a.images["fused"].grid
        yield gsd(grid) if grid.georeferenced else "not georeferenced"
        if grid.crs is not None:
            yield grid.crs.to_string()
    nm = next((c.wavelengths_nm for c in a.curves), None)
    span = f", {nm.min():.0f} to {nm.max():.0f} nm" if a.has_wavelengths and nm is not None else ""
    yield f"{a.shape[0]} bands{span}"


def scene_title(a: Assessment, name: str) -> str:
    """The scene by the sensors and days of its inputs, else by their files' names; `name` where neither is known.

    Short: products' names stand in the lines of the head.
    """
    inputs = [a.images[key] for key in ("LRHSI", "MSI") if key in a.images]
    told = [(image.sensor.partition(",")[0] or Path(image.path).stem, image.acquired) for image in inputs]
    return " sharpened by ".join(f"{_short(what)} {day}".strip() for what, day in told) or _short(name)


def _short(name: str) -> str:
    return name if len(name) <= LONGEST else f"{name[: LONGEST - 1]}…"


def gsd(grid: Grid) -> str:
    """The GSD in the unit of the reference system, such as `GSD 20 m`."""
    spacing = grid.gsd
    same = abs(spacing[0] - spacing[1]) < 1e-6 * max(spacing)
    size = f"{spacing[0]:g}" if same else f"{spacing[0]:g} × {spacing[1]:g}"
    return f"GSD {with_unit(size, grid.unit or 'map units')}"


def _image(a: Assessment, name: str, image: ImageFacts) -> Iterator[str]:
    """Name, sensor, bands and grid of an input."""
    yield Path(image.path).name
    sensor, _, product = image.sensor.rpartition(", ")
    yield sensor if product and product in Path(image.path).name else image.sensor
    if name == "MSI" and a.response is not None:
        yield f"response {a.response.name}, bands {a.response.listed}"
    yield f"{image.grid.shape[0]} × {image.grid.shape[1]} pixels"
    if image.grid.georeferenced:
        yield gsd(image.grid)


def unit_notes(a: Assessment) -> list[str]:
    """What had to be assumed of the unit of the numbers; several guesses in a sentence, as each is among the notes."""
    told = [one for one in a.notes if one.code in UNIT_CODES]
    guessed = [str(one.values["what"]) for one in told if one.code == GUESSED and "what" in one.values]
    if len(guessed) < 2 or a.unit.quantity == "unknown":
        return [one.text for one in told]
    *most, last = dict.fromkeys(guessed)
    named = f"{', '.join(most)} and {last}" if most else last
    text = f"{a.unit.quantity} by the size of the numbers: {named} don't say what theirs are (see the notes)"
    return [text, *(one.text for one in told if one.code != GUESSED)]


#: Nodes along each axis between which longitude and latitude are interpolated; on a scene of 100 km in UTM that is
#: within a metre.
NODES = 25
WGS84 = "EPSG:4326"


def place(grid: Grid) -> dict[str, Any] | None:
    """Pixel-to-map coefficients, CRS, and nodes of longitude and latitude; None where there is no map.

    `lonlat` holds pixel `rows` and `cols` (n,) of the nodes and `lon`, `lat` (n x n, row by row) in degrees; None where
    no CRS is named or it can't be brought to WGS 84.
    """
    if not grid.georeferenced:
        return None
    geographic = bool(grid.crs is not None and grid.crs.is_geographic)
    return {
        "transform": list(grid.transform)[:6],
        "crs": "" if grid.crs is None else grid.crs.to_string() if grid.crs.to_epsg() else "its own CRS",
        "unit": "" if geographic else grid.unit,
        "geographic": geographic,
        "lonlat": None if grid.crs is None else _nodes(grid, grid.crs),
    }


def _nodes(grid: Grid, crs: CRS) -> dict[str, Any] | None:
    rows, cols = (np.linspace(0, length, NODES) for length in grid.shape)
    r, c = np.meshgrid(rows, cols, indexing="ij")
    t = grid.transform
    x, y = t.a * c + t.b * r + t.c, t.d * c + t.e * r + t.f
    lon, lat = (np.asarray(v) for v in transform(crs, WGS84, x.ravel(), y.ravel())[:2])
    if not (np.isfinite(lon).all() and np.isfinite(lat).all()):
        return None
    lon = lon[0] + (lon - lon[0] + 180) % 360 - 180  # in one piece across the antimeridian
    return {
        "rows": np.round(rows, 3).tolist(),
        "cols": np.round(cols, 3).tolist(),
        "lon": np.round(lon, 7).tolist(),
        "lat": np.round(lat, 7).tolist(),
    }

"""What stands at the top of a report: which images, of which sensors and days, on which grid, in which unit."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from rasterio.crs import CRS

from hsfuse.assessment import Assessment
from hsfuse.core.errors import HsfuseError
from hsfuse.core.grid import Grid
from hsfuse.io import open_cube

#: Tags of a file that tell what it is, and its length of a day.
_SENSOR, _ACQUIRED, _DAY = ("SENSOR", "PRODUCT"), "ACQUIRED", len("2022-07-24")
#: How a pair's summary describes an image's grid.
_GRID = re.compile(r"(\d+ x \d+ pixels)(?: of ([\d.e+-]+) x ([\d.e+-]+))?")
#: What notes say of numbers without a unit.
_UNITLESS = re.compile(r"doesn't say what its numbers are|taken as reflectance")


def header(a: Assessment) -> list[tuple[str, str]]:
    """Lines of the head: fused cube, inputs, days of acquisition; what isn't known is left out, but for the days."""
    grid = _opened(Path(a.fused))[0]
    lines = [("Fused cube", ", ".join(_cube(a, grid)))]
    days = []
    for name, key in (("LRHSI", "HSI"), ("MSI", "MSI")) if a.response is not None else ():
        path = Path(a.inputs[key].rsplit(" (", 1)[0])  # the pair's summary: `path (what it holds)`
        tags = _opened(path)[1]
        lines.append((name, ", ".join(part for part in _image(a, key, path.name, tags, grid) if part)))
        days += [f"{name} {tags[_ACQUIRED][:_DAY]}"] if tags.get(_ACQUIRED) else []
    if "reference" in a.inputs:
        lines.append(("Reference", Path(a.inputs["reference"]).name))
    return lines + ([("Acquired", ", ".join(days) or "the files don't say when")] if a.response is not None else [])


def _opened(path: Path) -> tuple[Grid | None, Mapping[str, str]]:
    """Grid and tags of a file; nothing where it is gone: a report can be made of what was measured before."""
    try:
        with open_cube(path) as reader:
            return reader.grid, reader.tags
    except (HsfuseError, OSError):
        return None, {}


def _cube(a: Assessment, grid: Grid | None) -> Iterator[str]:
    """Size, GSD, reference system, bands and range."""
    yield f"{a.shape[1]} × {a.shape[2]} pixels"
    if grid is not None:
        yield gsd(grid.gsd, grid.crs) if grid.georeferenced else "not georeferenced"
        if grid.crs is not None:
            yield grid.crs.to_string()
    nm = next((c.wavelengths_nm for c in a.curves), None)
    span = f", {nm.min():.0f} to {nm.max():.0f} nm" if a.has_wavelengths and nm is not None else ""
    yield f"{a.shape[0]} bands{span}"


def gsd(spacing: tuple[float, float], crs: CRS | None) -> str:
    """A GSD (y, x) in the unit of its reference system, such as `GSD 20 m`."""
    unit = "map units" if crs is None else "°" if crs.is_geographic else crs.linear_units
    unit = {"metre": "m", "meter": "m", "unknown": "map units"}.get(unit, unit)
    same = abs(spacing[0] - spacing[1]) < 1e-6 * max(spacing)
    size = f"{spacing[0]:g}" if same else f"{spacing[0]:g} × {spacing[1]:g}"
    return f"GSD {size}{'' if unit == '°' else ' '}{unit}"


def _image(a: Assessment, key: str, name: str, tags: Mapping[str, str], fused: Grid | None) -> Iterator[str]:
    """Name, sensor, bands and grid of an input, from what its file and the pair's summary say."""
    yield name
    yield next((str(tags[tag]) for tag in _SENSOR if tags.get(tag)), "")
    if key == "MSI" and a.response is not None:
        yield f"response {a.inputs.get('SRF', '').split(' (')[0]}, bands {', '.join(a.response.bands)}"
    found = _GRID.search(a.inputs[key])
    if found is not None:
        yield found[1].replace(" x ", " × ")
        yield gsd((float(found[2]), float(found[3])), None if fused is None else fused.crs) if found[2] else ""


def unit_notes(a: Assessment) -> list[str]:
    """Those of the notes that tell what had to be assumed of the unit of the numbers."""
    return [note for note in a.notes if _UNITLESS.search(note)]


def data_unit(a: Assessment) -> str:
    """What values, errors and misfits are in: reflectance, or the unit of the file."""
    told = " ".join([a.settings.get("peak", ""), *a.notes])
    return "reflectance" if "(reflectance)" in told or "taken as reflectance" in told else "unit of the data"

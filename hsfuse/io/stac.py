"""A STAC item beside a fused cube: where, when, which bands, how stored (STAC 1.1; projection, eo and raster)."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from math import isnan
from pathlib import Path
from typing import Any

import numpy as np
from rasterio.warp import transform_geom

from hsfuse.core.cube import Spectrum
from hsfuse.core.errors import OutputError, SettingError
from hsfuse.core.grid import Grid
from hsfuse.io.files import driver_of, item_path, output_files, write_whole
from hsfuse.io.gdal import wkt2
from hsfuse.io.sinks import Storage
from hsfuse.io.zarr_store import Steps

MEDIA_TYPES = {
    "GTiff": "image/tiff; application=geotiff",
    "COG": "image/tiff; application=geotiff; profile=cloud-optimized",
    "ENVI": "application/octet-stream",
    "Zarr": "application/vnd+zarr",
}
EXTENSIONS = [
    "https://stac-extensions.github.io/projection/v2.0.0/schema.json",
    "https://stac-extensions.github.io/eo/v2.0.0/schema.json",
    "https://stac-extensions.github.io/raster/v2.0.0/schema.json",
]
#: Points along each border of the footprint: a straight border on the map bends in longitude and latitude.
BORDER_POINTS = 8


def check_item(output: Path, grid: Grid, overwrite: bool) -> None:
    """Raise SettingError or OutputError when the item can't be written; call it before any work."""
    _pystac()
    if grid.crs is None:
        raise SettingError("a STAC item needs a place on the map, but the images have no CRS; leave --stac out")
    if item_path(output).exists() and not overwrite:
        raise OutputError(f"{item_path(output)} exists already; choose another name or allow overwriting (--overwrite)")


def _pystac() -> Any:
    try:
        import pystac
    except ImportError as error:
        raise SettingError("STAC items need the package pystac: pip install 'hsfuse[stac]'") from error
    return pystac


@dataclass(frozen=True)
class Described:
    """What an item tells of a fused cube: where, how it is stored, which bands, from what, when and by what.

    Without an ISO date `acquired` the item's time is that of processing, and it says so. `sources` are the images that
    it was made of, by their roles, `quality` the raster beside it.
    """

    grid: Grid
    storage: Storage
    spectrum: Spectrum
    acquired: str | None = None
    properties: Mapping[str, Any] = field(default_factory=dict)
    sources: Mapping[str, Path] = field(default_factory=dict)
    quality: Path | None = None


def write_item(output: Path, told: Described) -> Path:
    """Write a finished output's item; its place."""
    pystac, grid, path = _pystac(), told.grid, item_path(output)
    geometry = footprint(grid)
    when = datetime.fromisoformat(told.acquired) if told.acquired else datetime.now(UTC)
    item = pystac.Item(
        id=output.stem,
        geometry=geometry,
        bbox=bounds(geometry),
        datetime=when if when.tzinfo else when.replace(tzinfo=UTC),
        stac_extensions=EXTENSIONS,
        properties={"created": datetime.now(UTC).isoformat(), **_place(grid), **_time(told), **told.properties},
    )
    data, *others = output_files(output, told.storage.driver)
    media = MEDIA_TYPES[driver_of(output, told.storage.driver)]
    item.add_asset("data", pystac.Asset(_beside(data, path), "fused cube", None, media, ["data"], _pixels(told, data)))
    for header in others:
        item.add_asset("header", pystac.Asset(_beside(header, path), "ENVI header", None, "text/plain", ["metadata"]))
    if told.quality is not None:
        media = MEDIA_TYPES[driver_of(told.quality)]
        asset = pystac.Asset(_beside(told.quality, path), "quality layers", None, media, ["metadata", "quality"])
        item.add_asset("quality", asset)
    for role, source in told.sources.items():
        item.add_link(pystac.Link("derived_from", _beside(source, path), title=role))
    item.save_object(include_self_link=False, dest_href=str(path))
    return path


def add_report(output: Path, report: Path) -> None:
    """Name the report, which is written last, among the assets of an output's item."""
    path = item_path(output)
    item = json.loads(path.read_text(encoding="utf-8"))
    item["assets"]["report"] = {
        "href": _beside(report, path),
        "type": "text/html",
        "title": "quality report",
        "roles": ["metadata"],
    }
    write_whole(path, json.dumps(item, indent=2))


def _beside(file: Path, item: Path) -> str:
    """A file's place as the item, which moves along with it, says it."""
    relative = Path(os.path.relpath(file, item.parent)).as_posix()
    return relative if relative.startswith("..") else f"./{relative}"


def _place(grid: Grid) -> dict[str, Any]:
    """The fields of the projection extension, and the GSD where it is in metres."""
    crs = grid.crs
    assert crs is not None  # check_item has seen to it
    code = crs.to_string()
    told = {
        "proj:code": code if code.startswith("EPSG:") else None,
        "proj:wkt2": wkt2(crs),
        "proj:shape": list(grid.shape),
        "proj:transform": list(grid.transform)[:9],
    }
    return told | ({"gsd": max(grid.gsd) * crs.linear_units_factor[1]} if crs.is_projected else {})


def _time(told: Described) -> dict[str, str]:
    if told.acquired:
        return {}
    return {"description": "datetime is the time of processing; the inputs name no acquisition"}


def _pixels(told: Described, output: Path) -> dict[str, Any]:
    """How the numbers of the data are to be taken, and its bands."""
    stored = told.storage
    if driver_of(output, stored.driver) == "Zarr" and Steps.of(stored) is not None:
        stored = Storage("Zarr")  # as its readers see it
    blank: float | str = "nan" if isnan(stored.blank) else stored.blank
    return {
        "data_type": stored.dtype,
        "nodata": int(blank) if isinstance(blank, float) and blank.is_integer() else blank,
        "raster:scale": stored.scale,
        "raster:offset": stored.offset,
        "bands": bands(told.spectrum),
    }


def bands(spectrum: Spectrum) -> list[dict[str, Any]]:
    """One entry a band: name, centre and FWHM in micrometres as the eo extension has them."""
    if spectrum.wavelengths_nm is None:
        return []
    fwhm = spectrum.fwhm_nm or (None,) * len(spectrum.wavelengths_nm)
    return [
        {"name": f"{centre:g} nm", "eo:center_wavelength": round(centre / 1e3, 6)}
        | ({} if width is None else {"eo:full_width_half_max": round(width / 1e3, 6)})
        for centre, width in zip(spectrum.wavelengths_nm, fwhm, strict=True)
    ]


def footprint(grid: Grid) -> dict[str, Any]:
    """Outline of a grid with a CRS as GeoJSON in longitude and latitude, cut where it crosses the antimeridian."""
    rows, cols = grid.shape
    t = np.linspace(0, 1, BORDER_POINTS, endpoint=False)
    zero, one = np.zeros_like(t), np.ones_like(t)
    x = np.concatenate([zero, t, one, 1 - t, [0]]) * cols
    y = np.concatenate([t, one, 1 - t, zero, [0]]) * rows
    ring = [grid.transform @ (float(col), float(row)) for row, col in zip(y, x, strict=True)]
    outline = {"type": "Polygon", "coordinates": [ring]}
    geometry: dict[str, Any] = transform_geom(grid.crs, "EPSG:4326", outline, antimeridian_cutting=True, precision=7)
    return geometry


def bounds(geometry: dict[str, Any]) -> list[float]:
    """West, south, east, north of a footprint; west is greater than east where it crosses the antimeridian."""
    parts = geometry["coordinates"] if geometry["type"] == "MultiPolygon" else [geometry["coordinates"]]
    boxes = sorted((min(x), min(y), max(x), max(y)) for x, y in (zip(*part[0], strict=True) for part in parts))
    return [boxes[-1][0], min(box[1] for box in boxes), boxes[0][2], max(box[3] for box in boxes)]

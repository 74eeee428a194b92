"""A STAC item beside a fused cube: footprint, projection and bands, for catalogues (STAC 1.1, projection and eo)."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from rasterio.warp import transform_geom

from hsfuse.core.cube import Spectrum
from hsfuse.core.errors import OutputError, SettingError
from hsfuse.core.grid import Grid
from hsfuse.io.files import driver_of

MEDIA_TYPES = {
    "GTiff": "image/tiff; application=geotiff",
    "COG": "image/tiff; application=geotiff; profile=cloud-optimized",
    "ENVI": "application/octet-stream",
    "Zarr": "application/vnd+zarr",
}
EXTENSIONS = [
    "https://stac-extensions.github.io/projection/v2.0.0/schema.json",
    "https://stac-extensions.github.io/eo/v2.0.0/schema.json",
]
#: Points along each border of the footprint: a straight border on the map bends in longitude and latitude.
BORDER_POINTS = 8


def item_path(output: Path) -> Path:
    """Where the item of an output goes: the same name with the suffix .stac.json."""
    return output.with_suffix(".stac.json")


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


def write_item(
    output: Path, driver: str, grid: Grid, spectrum: Spectrum, acquired: str | None, properties: Mapping[str, Any]
) -> Path:
    """Write a finished output's item; without an ISO date `acquired` its time is that of processing, and it says so."""
    pystac = _pystac()
    geometry = footprint(grid)
    when = datetime.fromisoformat(acquired) if acquired else datetime.now(UTC)
    told = {} if acquired else {"description": "datetime is the time of processing; the inputs name no acquisition"}
    code = grid.crs.to_string() if grid.crs is not None else None
    item = pystac.Item(
        id=output.stem,
        geometry=geometry,
        bbox=bounds(geometry),
        datetime=when if when.tzinfo else when.replace(tzinfo=UTC),
        stac_extensions=EXTENSIONS,
        properties={
            "created": datetime.now(UTC).isoformat(),
            "proj:code": code if code and code.startswith("EPSG:") else None,
            "proj:wkt2": grid.crs.to_wkt() if grid.crs is not None else None,
            "proj:shape": list(grid.shape),
            "proj:transform": [*grid.transform][:9],
            **told,
            **properties,
        },
    )
    asset = pystac.Asset(
        href=f"./{output.name}",
        media_type=MEDIA_TYPES[driver_of(output, driver)],
        roles=["data"],
        extra_fields={"bands": bands(spectrum)},
    )
    item.add_asset("data", asset)
    path = item_path(output)
    item.save_object(include_self_link=False, dest_href=str(path))
    return path


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

"""STAC items: where, when and which bands."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import pytest
from affine import Affine
from rasterio.crs import CRS
from rasters import GRID, SPECTRUM

from hsfuse.core.errors import OutputError, SettingError
from hsfuse.core.grid import Grid
from hsfuse.io.sinks import Storage
from hsfuse.io.stac import Described, add_report, bounds, check_item, footprint, write_item

pystac = pytest.importorskip("pystac")


#: What the extensions' schemas (projection 2.0, eo 2.0, raster 2.0) ask of the fields that are written.
EXTENSIONS = {
    "type": "object",
    "properties": {
        "properties": {
            "type": "object",
            "required": ["proj:wkt2", "proj:shape", "proj:transform"],
            "properties": {
                "proj:code": {"type": ["string", "null"]},
                "proj:wkt2": {"type": "string", "pattern": r"^(PROJCRS|GEOGCRS|BOUNDCRS|COMPOUNDCRS)\["},
                "proj:shape": {"type": "array", "minItems": 2, "maxItems": 2, "items": {"type": "integer"}},
                "proj:transform": {"type": "array", "minItems": 6, "maxItems": 9, "items": {"type": "number"}},
                "gsd": {"type": "number", "exclusiveMinimum": 0},
            },
        },
        "assets": {
            "type": "object",
            "required": ["data"],
            "properties": {
                "data": {
                    "required": ["bands", "data_type", "nodata", "raster:scale", "raster:offset"],
                    "properties": {
                        "raster:scale": {"type": "number"},
                        "raster:offset": {"type": "number"},
                        "bands": {
                            "items": {
                                "required": ["name", "eo:center_wavelength"],
                                "properties": {
                                    "eo:center_wavelength": {"type": "number", "minimum": 0.2, "maximum": 20},
                                    "eo:full_width_half_max": {"type": "number", "exclusiveMinimum": 0},
                                },
                            }
                        },
                    },
                }
            },
        },
    },
}


def check(path):
    """The item against STAC's own schemas, which pystac brings along, and the extensions' fields."""
    jsonschema = pytest.importorskip("jsonschema")
    from pystac.validation.local_validator import get_local_schema_cache
    from referencing import Registry, Resource

    schemas = get_local_schema_cache()
    registry = Registry().with_resources([(uri, Resource.from_contents(told)) for uri, told in schemas.items()])
    item = json.loads(path.read_text())
    core = next(told for uri, told in schemas.items() if uri.endswith("/item.json"))
    for schema in (core, EXTENSIONS):
        jsonschema.Draft7Validator(schema, registry=registry).validate(item)
    return item


def test_an_item_says_where_when_and_which_bands(tmp_path):
    told = Described(GRID, Storage(), SPECTRUM, "2022-07-24T10:15:59", {"hsfuse:method": "srlf"})
    path = write_item(tmp_path / "a.tif", told)
    item = pystac.Item.from_file(str(path))
    assert (path.name, item.id, item.properties["proj:code"]) == ("a.stac.json", "a", "EPSG:32633")
    assert item.properties["datetime"].startswith("2022-07-24T10:15:59")
    assert item.properties["gsd"] == GRID.gsd[0]
    west, south, east, north = item.bbox
    assert 15 < west < east < 18
    assert 45 < south < north < 46
    (first, *_) = check(path)["assets"]["data"]["bands"]
    assert first["eo:center_wavelength"] == pytest.approx(SPECTRUM.wavelengths_nm[0] / 1e3)
    assert item.assets["data"].href == "./a.tif"
    assert item.assets["data"].extra_fields["nodata"] == "nan"


def test_without_an_acquisition_the_item_says_what_its_time_is(tmp_path):
    raw = check(write_item(tmp_path / "a.tif", Described(GRID, Storage("COG"), SPECTRUM)))
    assert "time of processing" in raw["properties"]["description"]
    assert raw["assets"]["data"]["type"].endswith("cloud-optimized")


def test_an_item_says_what_lies_beside_and_what_it_was_made_of(tmp_path):
    (tmp_path / "inputs").mkdir()
    sources = {"HSI": tmp_path / "inputs" / "hsi.hdr", "MSI": tmp_path.parent / "msi.tif"}
    stored = Storage("ENVI", "int16", 1e-4, nodata=-9999)
    told = Described(GRID, stored, SPECTRUM, None, {}, sources, tmp_path / "qa.tif")
    path = write_item(tmp_path / "a.dat", told)
    add_report(tmp_path / "a.dat", tmp_path / "a.html")
    item = check(path)
    assets = {name: (asset["href"], asset["roles"]) for name, asset in item["assets"].items()}
    assert assets == {
        "data": ("./a.dat", ["data"]),
        "header": ("./a.hdr", ["metadata"]),
        "quality": ("./qa.tif", ["metadata", "quality"]),
        "report": ("./a.html", ["metadata"]),
    }
    data = item["assets"]["data"]
    assert (data["data_type"], data["nodata"], data["raster:scale"]) == ("int16", -9999, 1e-4)
    links = [(link["rel"], link["title"], link["href"]) for link in item["links"]]
    assert links == [("derived_from", "HSI", "./inputs/hsi.hdr"), ("derived_from", "MSI", "../msi.tif")]


def test_the_footprint_is_a_closed_counter_clockwise_ring():
    (ring,) = footprint(GRID)["coordinates"]
    assert ring[0] == ring[-1]
    assert sum(a[0] * b[1] - b[0] * a[1] for a, b in pairwise(ring)) > 0


def test_a_footprint_across_the_antimeridian_is_cut_there():
    across = Grid((100, 100), Affine(100, 0, 828000, 0, -100, 10000), CRS.from_epsg(32660))
    geometry = footprint(across)
    west, _, east, _ = bounds(geometry)
    assert geometry["type"] == "MultiPolygon"
    assert 179 < west < 180
    assert -180 < east < -179


def test_what_can_not_be_is_said_first(tmp_path):
    with pytest.raises(SettingError, match="no CRS"):
        check_item(Path("a.tif"), Grid((4, 4)), overwrite=False)
    (tmp_path / "a.stac.json").write_text("{}")
    with pytest.raises(OutputError, match="exists already"):
        check_item(tmp_path / "a.tif", GRID, overwrite=False)

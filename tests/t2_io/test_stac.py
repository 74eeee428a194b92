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
from hsfuse.io.stac import bounds, check_item, footprint, write_item

pystac = pytest.importorskip("pystac")


def test_an_item_says_where_when_and_which_bands(tmp_path):
    path = write_item(tmp_path / "a.tif", "auto", GRID, SPECTRUM, "2022-07-24T10:15:59", {"hsfuse:method": "srlf"})
    item = pystac.Item.from_file(str(path))
    assert (path.name, item.id, item.properties["proj:code"]) == ("a.stac.json", "a", "EPSG:32633")
    assert item.properties["datetime"].startswith("2022-07-24T10:15:59")
    west, south, east, north = item.bbox
    assert 15 < west < east < 18
    assert 45 < south < north < 46
    (first, *_) = json.loads(path.read_text())["assets"]["data"]["bands"]
    assert first["eo:center_wavelength"] == pytest.approx(SPECTRUM.wavelengths_nm[0] / 1e3)
    assert item.assets["data"].href == "./a.tif"


def test_without_an_acquisition_the_item_says_what_its_time_is(tmp_path):
    path = write_item(tmp_path / "a.tif", "COG", GRID, SPECTRUM, None, {})
    raw = json.loads(path.read_text())
    assert "time of processing" in raw["properties"]["description"]
    assert raw["assets"]["data"]["type"].endswith("cloud-optimized")


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

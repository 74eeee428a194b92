"""An MSI's file tells its sensor: by metadata, the instrument before the craft, provenance, wavelengths or colours."""

from __future__ import annotations

import json
import re
from types import SimpleNamespace

import numpy as np
import pytest
import rasterio
from rasterio.enums import ColorInterp
from rasterio.transform import from_origin

from hsfuse.core.cube import Spectrum
from hsfuse.io import open_cube
from hsfuse.pair.identify import candidates, considered, contradicted, identify
from hsfuse.physics import load_srf

S2 = load_srf("sentinel2b").select(("B2", "B3", "B4", "B8"))


def file(tags=None, nm=None, fwhm=None, names=None):
    """What `identify` asks of a reader."""
    return SimpleNamespace(tags=tags or {}, spectrum=Spectrum(nm, fwhm, names))


@pytest.mark.parametrize(
    ("tags", "name"),
    [
        ({"SENSOR": "sentinel2c"}, "sentinel2c"),
        ({"PLATFORM": "LANDSAT_9", "INSTRUMENT": "OLI_TIRS"}, "landsat9"),
        ({"satellite": "Terra", "sensor": "ASTER"}, "aster"),
        ({"satellite": "Terra", "sensor": "MODIS"}, "modis_terra"),
        ({"satellite": "EO-1", "sensor": "ALI"}, "ali"),
        ({"satellite": "Sentinel-2B", "sensor": "MSI"}, "sentinel2b"),
        ({"satellite": "WorldView3"}, "worldview3"),
    ],
)
def test_metadata_name_the_sensor(tags, name):
    assert identify(file(tags)).response.name == name


def test_another_instrument_of_a_known_craft_is_not_taken_for_it():
    assert identify(file({"satellite": "Landsat 8", "sensor": "camera"})) is None
    assert identify(file({"sensor": "srf/of/mine.csv"})) is None
    assert identify(file()) is None


def test_provenance_counts_while_the_response_is_the_same():
    def simulated(**changed):
        record = {"settings": {"srf": "sentinel2a"}, **changed}
        return identify(file({"HSFUSE_PROVENANCE": json.dumps(record)}))

    assert simulated().response.name == "sentinel2a"
    assert simulated(srf_sha256="0" * 64) is None


def test_wavelengths_tell_the_sensor_and_its_bands_in_any_order():
    nm, fwhm = S2.centres_nm[::-1], S2.fwhm_nm[::-1]
    found = identify(file(nm=tuple(nm), fwhm=tuple(fwhm)))
    assert (found.response.name, found.bands) == ("sentinel2b", ("B8", "B4", "B3", "B2"))


def test_a_sensor_that_the_library_lacks_gets_gaussians_and_without_widths_none():
    found = identify(file(nm=(500.0, 701.0), fwhm=(20.0, 12.0), names=("one", "two")))
    assert found.response.approximate
    assert found.response.bands == ("one", "two")
    assert found.response.centres_nm == pytest.approx([500, 701], abs=0.5)
    assert found.response.fwhm_nm == pytest.approx([20, 12], abs=1)
    assert identify(file(nm=(520.0, 760.0))) is None


def test_names_that_the_pair_contradicts_are_told_with_the_order_that_fits():
    names, nm, sd = ("B2", "B3", "B4", "B8"), np.array([560.0, 495.0, 666.0, 835.0]), np.full(4, 2.0)
    told = contradicted(names, nm, sd)
    assert told.severity == "warning"
    assert "B2 at 560 nm, not 492, B3 at 495 nm, not 560;" in told.text
    assert told.text.endswith("--srf sentinel2a --msi-bands B3,B2,B4,B8")
    assert contradicted(names, nm[[1, 0, 2, 3]], sd) is None
    assert contradicted(names, nm, np.full(4, 40.0)) is None, "a scene that can't tell contradicts nothing"
    assert contradicted(("band 1", "band 2", "band 3", "band 4"), nm, sd) is None


def test_band_names_leave_the_sensors_that_have_them():
    names = [one.name for one in candidates(("B02", "B03", "B8A"))]
    assert names == ["sentinel2a", "sentinel2b", "sentinel2c"]
    assert candidates(None) == []
    assert candidates(("B02", None)) == []
    assert [one.name for one in candidates(("B02", "B03", "-", "B8A"))] == names
    assert candidates(("-", "-")) == []


@pytest.mark.parametrize(
    ("colours", "names"),
    [
        (("red", "green", "blue", "nir"), ("red", "green", "blue", "nir")),
        (("gray", "undefined", "undefined", "undefined"), None),
    ],
)
def test_colours_name_bands_without_names(tmp_path, colours, names):
    how = {"driver": "GTiff", "height": 4, "width": 4, "count": 4, "dtype": "uint16", "crs": "EPSG:32633"}
    with rasterio.open(tmp_path / "msi.tif", "w", transform=from_origin(4e5, 5e6, 10, 10), **how) as ds:
        ds.write(np.ones((4, 4, 4), np.uint16))
        ds.colorinterp = [ColorInterp[colour] for colour in colours]
    with open_cube(tmp_path / "msi.tif", role="MSI") as reader:
        assert reader.spectrum.names == names


@pytest.mark.parametrize(
    ("names", "count", "said"),
    [
        (None, 4, "its 4 bands, which have no names, may be gaofen's .*, sentinel2's B2 B3 B4 B8, .* or another's$"),
        (
            ("Band 1", "Band 2", "Band 3", "Band 4"),
            4,
            "its 4 bands, which have no names, may be .*planet's B2 B4 B6 B8",
        ),
        (
            ("B2", "B3", "B4", "B8A"),
            4,
            "its bands are named as those of sentinel2a, sentinel2b, sentinel2c, but the pair",
        ),
        (("Q1", "Q2"), 2, r"no sensor of the library has bands of all their names \(Q1, Q2\)$"),
        (None, 29, "^$"),
    ],
)
def test_what_was_considered_for_bands_of_an_untold_sensor(names, count, said):
    assert re.match(said, considered(names, count))

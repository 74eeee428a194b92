"""`hsfuse simulate`, `hsfuse srf` and `hsfuse info` as commands."""

import io
import json
import logging
import sys
from pathlib import Path

import msi_products as made
import numpy as np
import pytest
from affine import Affine
from click.testing import CliRunner
from rasterio.crs import CRS
from rasters import nm, write_cube, write_envi

from hsfuse.cli import console, main
from hsfuse.core.cube import Spectrum
from hsfuse.core.grid import Grid
from hsfuse.physics import list_srfs

GRID = Grid((16, 24), Affine(10, 0, 600000, 0, -10, 5000000), CRS.from_epsg(32633))
SPECTRUM = Spectrum(tuple(np.arange(420.0, 960.0, 20.0)), tuple(np.full(27, 20.0)), good=(*[True] * 26, False))


EXAMPLES = Path(__file__).parents[2] / "examples" / "data"


@pytest.fixture
def cube(tmp_path):
    data = np.random.default_rng(0).random((27, *GRID.shape), dtype=np.float32)
    write_cube(tmp_path / "cube.tif", data, np.ones(GRID.shape, bool), GRID, SPECTRUM, dtype="int16", scale=1e-4)
    return tmp_path / "cube.tif"


def run(*arguments, code=0):
    result = CliRunner().invoke(main, [str(a) for a in arguments])
    assert result.exit_code == code, result.output
    assert "Traceback" not in result.stderr
    return result


def test_simulate_says_what_it_made(cube, tmp_path):
    out = tmp_path / "out"
    result = run("simulate", cube, out, "--srf", "sentinel2", "--scale", 4, "--snr-hsi", 30, "--seed", 1)
    assert [line.split()[0] for line in result.stdout.splitlines()] == ["LRHSI", "MSI", "reference"]
    assert "hsfuse: sentinel2 means Sentinel-2A MSI" in result.stderr
    assert "1 of 27 bands" in result.stderr
    assert sorted(p.name for p in out.iterdir()) == ["lrhsi.dat", "lrhsi.hdr", "msi.tif", "reference.tif"]
    assert "exists" in run("simulate", cube, out, "--srf", "sentinel2", "--scale", 4, code=1).stderr


def test_simulate_json(cube, tmp_path):
    options = ["--scale", 4, "--msi-bands", "B2,b03", "--psf-sigma", 1.5, "--phase", 0.5, "--json", "-q"]
    result = run("simulate", cube, tmp_path / "out", "--srf", "sentinel2", *options)
    found = json.loads(result.stdout)
    assert found["msi_bands"] == ["B2", "B3"]
    assert found["settings"]["psf_sigma"] == 1.5
    assert found["settings"]["phase"] == 0.5
    assert result.stderr == ""


def test_simulate_from_a_reference_that_is_none(tmp_path):
    missing = run("simulate", tmp_path / "no.tif", tmp_path / "out", "--srf", "sentinel2", "--scale", 4, code=1)
    assert missing.stderr.startswith("hsfuse: error: ")
    assert not (tmp_path / "out").exists()
    run("simulate", tmp_path / "no.tif", tmp_path / "out", "--srf", "sentinel2", code=2)
    run("simulate", tmp_path / "no.tif", tmp_path / "out", "--srf", "sentinel2", "--scale", 1, code=2)


def test_srf_list_has_every_sensor():
    out = run("srf", "list").stdout
    assert [line.split()[0] for line in out.splitlines()] == ["name", *(r.name for r in list_srfs())]
    assert out.isascii()
    records = {r["name"]: r for r in json.loads(run("srf", "list", "--json").stdout)}
    assert records["sentinel2a"]["kind"] == "measured"
    assert records["gaofen1"]["kind"] == "approximate"
    assert all(r["terms"] and r["source"] for r in records.values())


def test_srf_show():
    out = run("srf", "show", "sentinel2").stdout
    assert out.startswith("sentinel2a\n")
    assert "terms: " in out
    assert "sentinel2 means" in out
    band = next(b for b in json.loads(run("srf", "show", "S2A", "--json").stdout)["bands"] if b["band"] == "B8A")
    assert band["centre_nm"] == pytest.approx(864.7, abs=1)
    assert "did you mean" in run("srf", "show", "sentinal2", code=2).stderr


def test_srf_show_is_ascii_for_any_csv(tmp_path):
    (tmp_path / "mine.csv").write_text("# sensor: Ä\nwavelength_nm,blå\n450,0\n460,1\n470,0\n", encoding="utf-8")
    shown = run("srf", "show", tmp_path / "mine.csv").stdout
    assert shown.isascii()
    assert "kind: not said\n" in shown


def test_srf_check_tells_coverage(cube):
    result = run("srf", "check", cube, "sentinel2a")
    rows = {line.split()[0]: line for line in result.stdout.splitlines()}
    assert "100.0%" in rows["B3"]
    assert rows["B11"].endswith("left out")
    assert "hsfuse: warning: the HSI covers 0% of B11: left out" in result.stderr
    bands = {b["band"]: b for b in json.loads(run("srf", "check", cube, "sentinel2a", "--json").stdout)["bands"]}
    low, high = bands["B4"]["range_nm"]
    assert 620 <= low < 665 < high <= 700
    assert bands["B11"]["range_nm"] is None


def test_srf_check_tells_which_bands_the_msi_lacks(cube, tmp_path):
    msi = made.write_raster(tmp_path / "msi.tif", np.full((2, 20, 30), 900, "uint16"), 10, names=("B3", "B4"))
    without, result = run("srf", "check", cube, "sentinel2a"), run("srf", "check", cube, "sentinel2a", "--msi", msi)
    assert "if the MSI has it" in without.stdout.splitlines()[0]
    rows = {line.split()[0]: line for line in result.stdout.splitlines()}
    assert rows["B3"].endswith("  used")
    assert {name for name, line in rows.items() if line.endswith("not in the MSI")} == set(rows) - {"band", "B3", "B4"}
    assert result.stderr.startswith("hsfuse: warning: sentinel2a isn't held against the images: an HSI pixel covers")
    found = json.loads(run("srf", "check", cube, "sentinel2a", "--msi", msi, "--json").stdout)
    assert [band["band"] for band in found["bands"] if band["used"]] == ["B3", "B4"]
    assert found["pair"] == []


@pytest.mark.parametrize("name", ["sentinel2", "landsat8"])
def test_srf_check_holds_the_response_against_the_pair(name):
    bands = [] if name == "sentinel2" else ["--msi-bands=B2,B3,B4,B5"]
    msi = EXAMPLES / "sentinel2.tif"
    result = run("srf", "check", EXAMPLES / "lrhsi.hdr", name, f"--msi={msi}", *bands)
    first, held = result.stdout.split("\n\n")
    assert "not in the MSI" in first
    verdicts = [line.split()[-1] for line in held.splitlines()[1:]]
    assert (verdicts == ["fits"] * 4) == ("contradicted" not in verdicts) == (name == "sentinel2")
    assert ("MSI seems not to be landsat8's" in result.stderr or "pair contradicts" in result.stderr) == bool(bands)


def test_info_tells_what_a_file_holds(cube):
    out = run("info", cube).stdout
    for words in ("16 rows x 24 columns x 27 bands", "EPSG:32633", "10 x 10 m", "600000, 4999840, 600240, 5000000 m"):
        assert words in out
    for words in ("int16, scale 0.0001", "nodata:       -32768", "420 to 940 nm", "FWHM:         20 nm"):
        assert words in out
    facts = json.loads(run("info", cube, "--json").stdout)
    assert facts["bad_bands"] == [27]
    assert facts["wavelengths_nm"][0] == 420
    assert facts["size"] == [16, 24]


@pytest.mark.parametrize(("bands", "told"), [([3], "band 4 (5)"), ([*range(8)], "all of them")])
def test_info_names_bands_of_one_value(tmp_path, bands, told):
    data = np.random.default_rng(0).random((8, *GRID.shape), dtype=np.float32)
    data[bands] = 5
    write_cube(tmp_path / "cube.tif", data, np.ones(GRID.shape, bool), GRID, Spectrum(tuple(np.arange(8.0) * 9 + 500)))
    assert (
        f"note: cube.tif: bands of one value all over, with nothing of the ground: {told}\n"
        in run("info", tmp_path / "cube.tif").stdout
    )


@pytest.mark.parametrize(
    ("crs", "gsd"),
    [("EPSG:32633", "80 x 80 m"), ("EPSG:4326", "80 x 80°"), ("EPSG:2263", "80 x 80 US ft"), (None, "80 x 80")],
)
def test_info_writes_units_and_single_things_as_people_do(tmp_path, crs, gsd):
    grid = Grid((1, 5), Affine(80, 0, 1, 0, -80, 1), None if crs is None else CRS.from_string(crs))
    write_cube(tmp_path / "c.tif", np.arange(5.0).reshape(1, 1, 5), np.ones((1, 5), bool), grid, Spectrum((500.0,)))
    lines = run("info", tmp_path / "c.tif").stdout.splitlines()
    assert "  size:         1 row x 5 columns x 1 band" in lines
    assert f"  GSD:          {gsd}" in lines


def test_info_of_several_and_of_bare_files(cube, tmp_path):
    bare = write_envi(tmp_path / "bare.dat", np.ones((2, 3, 4), "uint8"), *nm(500, 600))
    several = json.loads(run("info", cube, bare, "--json").stdout)
    assert [f["driver"] for f in several] == ["GTiff", "ENVI"]
    assert several[1]["crs"] is None
    assert several[1]["gsd"] is None
    assert "not georeferenced" in run("info", bare).stdout
    assert "bad bands:    none marked" in run("info", bare).stdout, "empty ones aren't looked for"
    assert run("info", tmp_path / "no.tif", code=1).stdout == ""


@pytest.mark.parametrize(
    ("bands", "told"),
    [(4, "no wavelengths, which an MSI doesn't need (an HSI does)"), (40, "no wavelengths: wanted them")],
)
def test_info_wants_wavelengths_of_no_msi(tmp_path, bands, told):
    path = made.write_raster(tmp_path / "a.tif", np.full((bands, 8, 8), 900, "uint16"), 10)
    assert f"note: a.tif: {told}" in run("info", path).stdout


@pytest.mark.parametrize(("nodata", "told"), [(float("nan"), "NaN"), (None, "none"), (-9999.0, "-9999.0")])
def test_info_tells_nan_from_no_nodata(tmp_path, nodata, told):
    place = {"nodata": nodata, "names": ("x",)}
    path = made.write_raster(tmp_path / "a.tif", np.ones((8, 8), "float32"), 10, **place)
    assert f"nodata:       {told}\n" in run("info", path).stdout
    assert json.loads(run("info", path, "--json").stdout)["nodata"] == ("NaN" if told == "NaN" else nodata)


def test_info_shows_where_a_file_comes_from(cube, tmp_path):
    run("simulate", cube, tmp_path / "out", "--srf", "sentinel2", "--scale", 4, "-q")
    msi = tmp_path / "out" / "msi.tif"
    shown = run("info", msi).stdout
    assert "  made by:      hsfuse simulate\n  more:         -v or --json\n" in shown
    assert len(shown.splitlines()) < 20
    assert '"srf_sha256": "' in run("info", msi, "-v").stdout
    assert json.loads(run("info", msi, "--json").stdout)["provenance"]["settings"]["snr_hsi"] is None


@pytest.mark.parametrize("name", ["a.tif", "a.dat", "a.zarr"])
def test_info_has_the_quantity_that_a_fused_file_records(tmp_path, name):
    data = np.random.default_rng(0).random((5, *GRID.shape), dtype=np.float32)
    file, tags = tmp_path / name, {"PROVENANCE": json.dumps({"hsfuse": "0", "quantity": "reflectance"})}
    spectrum = Spectrum(tuple(np.arange(5.0) * 9 + 500))
    write_cube(file, data, np.ones(GRID.shape, bool), GRID, spectrum, tags=tags)
    assert "quantity:     reflectance (as its HSI was taken for when it was fused)" in run("info", file).stdout
    assert json.loads(run("info", file, "--json").stdout)["quantity"] == "reflectance"


def test_info_tells_product_quantity_masks_and_day(tmp_path):
    shown = run("info", made.sentinel2(tmp_path)).stdout
    for words in (
        "Sentinel-2A Level-2A",
        "2022-07-24T10:20:48",
        "quantity:     reflectance",
        "masked:       SCL classes",
    ):
        assert words in shown
    bands = [made.write_raster(tmp_path / f"S_{name}_x.tif", np.full((20, 30), 900, "uint16"), 10) for name in "ab"]
    facts = json.loads(run("info", ",".join(map(str, bands)), "--json").stdout)
    assert facts["names"] == ["a", "b"]
    assert facts["quantity"] == "unknown"
    assert "x 10000" in facts["quantity_note"]
    assert facts["product"] is facts["masks"] is None


def test_a_bug_report_on_what_cannot_be_read(tmp_path):
    (tmp_path / "a.he5").write_bytes(b"no HDF5")
    assert "isn't HDF5" in run("info", "--bug-report", tmp_path / "a.he5").stdout


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_terminal_shows_that_it_works_until_something_is_said(monkeypatch):
    """The line stays below what is said and is wiped at the end; a pipe gets none, and -q shows none."""
    log = logging.getLogger("hsfuse")
    for verbosity, terminal in ((0, Terminal()), (-1, Terminal()), (0, io.StringIO())):
        monkeypatch.setattr(sys, "stderr", terminal)
        console.start_logging(verbosity)
        with console.working():
            log.info("one")
        log.info("two")
        said, wipe, line = terminal.getvalue(), "\r\x1b[K", "hsfuse: working (Ctrl-C ends it)"
        if verbosity == 0 and terminal.isatty():
            assert said == f"{line}{wipe}hsfuse: one\n{line}{wipe}hsfuse: two\n"
        else:
            assert said == ("hsfuse: one\nhsfuse: two\n" if verbosity == 0 else "")

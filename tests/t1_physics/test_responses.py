"""Spectral responses: the shipped library against published figures, the laws of R, reading CSVs, matching bands."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from hsfuse.core.errors import OutputError, SettingError, SrfError
from hsfuse.core.package import data_folder
from hsfuse.physics import SpectralResponse, list_srfs, load_srf, match_bands, write_srf
from hsfuse.physics.response import _usual_spacing

LIBRARY = sorted(path.stem for path in data_folder("srf").glob("*.csv"))
DENSE_NM = np.arange(390.0, 2501.0, 5.0)

# Centre wavelengths in nm as published, and the tolerance in nm.
# Sentinel-2A/B: ESA, Sentinel-2 MSI spatial and spectral resolutions (from the same response table, rounded to 0.1).
# Sentinel-2C: ESA, Copernicus Sentinel-2C spectral response functions.
# Landsat-8: Barsi et al., Remote Sensing 6 (2014) 10232, Table 1. MODIS: middle of NASA's nominal band edges.
# WorldView-2: DigitalGlobe, centres of the 50 % edges. WorldView-3: Maxar, Radiometric Use of WorldView-3, Table 1.
# SuperDove: Planet, 8-band PlanetScope. Dove-R: middle of Planet's band ranges. Gaofen-6: middle of CRESDA's nominal
# ranges. ALI: Markham et al., Proc. SPIE 6361 (2006), multispectral bands.
PUBLISHED = {
    "sentinel2a": (0.4, "442.7 492.4 559.8 664.6 704.1 740.5 782.8 832.8 864.7 945.1 1373.5 1613.7 2202.4"),
    "sentinel2b": (0.4, "442.2 492.1 559.0 664.9 703.8 739.1 779.7 832.9 864.0 943.2 1376.9 1610.4 2185.7"),
    "sentinel2c": (0.4, "444.2 489.0 560.6 666.5 707.1 741.1 784.7 834.6 865.6"),
    "landsat8": (1.0, "443.0 482.0 561.4 654.6 864.7 1608.9 2200.7"),
    "worldview2": (1.0, "427.3 477.9 546.2 607.8 658.8 723.7 831.3 908.0"),
    "worldview3": (0.5, "427.4 481.9 547.1 604.3 660.1 722.7 824.0 913.6 1209.1 1571.6 1661.1 1729.5 2163.7"),
    "dove_r": (1.0, "490.5 566 666 867"),
    "gaofen6": (1.0, "485 555 660 830 710 750 425 610"),
    "superdove": (2.0, "443 490 531 565 610 665 705 865"),
    "modis_terra": (3.0, "645 858.5 469 555 1240"),
}


def boxes(*edges: tuple[float, float]) -> SpectralResponse:
    """Flat bands with edges one nm wide, on a 1 nm grid."""
    wl = np.arange(300.0, 1200.0)
    rows = [np.where((wl >= low) & (wl <= high), 1.0, 0.0) for low, high in edges]
    names = tuple(f"B{i}" for i in range(1, len(edges) + 1))
    return SpectralResponse("boxes", names, wl, np.array(rows))


def write(folder: Path, text: str) -> Path:
    path = folder / "own.csv"
    path.write_text(text, encoding="utf-8")
    return path


# ---- the library


def test_library_has_the_promised_sensors() -> None:
    wanted = (
        "sentinel2a sentinel2b sentinel2c landsat4 landsat5 landsat7 landsat8 landsat9 worldview2 worldview3 superdove"
    )
    more = "pleiades spot5 spot6 quickbird ikonos rapideye aster modis_terra modis_aqua gaofen1 gaofen6 nikon_d700 ali"
    assert set(f"{wanted} {more}".split()) <= set(LIBRARY)
    assert [record.name for record in list_srfs()] == LIBRARY


@pytest.mark.parametrize("name", LIBRARY)
def test_every_response_loads_and_says_whence(name: str) -> None:
    srf = load_srf(name)
    assert srf.response.shape == (len(srf.bands), srf.wavelengths_nm.size)
    np.testing.assert_allclose(srf.response.max(axis=1), 1.0)
    assert srf.sensor
    assert srf.source
    assert srf.terms
    assert len(srf.sha256) == 64
    assert ("approximation" in srf.note) == srf.approximate
    used = {band for bands in srf.defaults.values() for band in bands} | set(srf.colours.values())
    assert used <= set(srf.bands)
    assert all(count == len(bands) for count, bands in srf.defaults.items())


@pytest.mark.parametrize("name", LIBRARY)
def test_every_response_gives_rows_that_sum_to_one(name: str) -> None:
    srf = load_srf(name)
    matrix, coverage = srf.matrix(DENSE_NM)
    np.testing.assert_allclose(matrix.sum(axis=1), coverage > 0, atol=1e-12)
    assert matrix.min() >= 0


def test_no_name_means_two_sensors() -> None:
    names = [n for r in list_srfs() for n in (r.name, *r.aliases, *r.presumed_for)]
    plain = [n.lower().replace("_", "").replace("-", "") for n in names]
    assert len(plain) == len(set(plain))


@pytest.mark.parametrize("name", PUBLISHED)
def test_centres_are_the_published_ones(name: str) -> None:
    tolerance, text = PUBLISHED[name]
    published = [float(word) for word in text.split()]
    np.testing.assert_allclose(load_srf(name).centres_nm[: len(published)], published, atol=tolerance)


def test_ali_centres_are_the_published_ones() -> None:
    bands = [f"B{i}" for i in range(2, 11)]
    published = [443, 482, 565, 660, 790, 868, 1250, 1650, 2215]
    np.testing.assert_allclose(load_srf("ali").select(bands).centres_nm, published, atol=1)


def test_ikonos_edges_are_the_published_ones() -> None:
    """GeoEye: 445-516, 506-595, 632-698, 757-853 nm at half the peak."""
    srf = load_srf("ikonos").select(["B1", "B2", "B3", "B4"])
    assert not srf.approximate
    np.testing.assert_allclose(srf.fwhm_nm, [71, 89, 66, 96], atol=1)
    below, above = (
        np.array([np.interp(edge, srf.wavelengths_nm, row) for edge, row in zip(edges, srf.response, strict=True)])
        for edges in ([445, 506, 632, 757], [516, 595, 698, 853])
    )
    np.testing.assert_allclose([below, above], 0.5, atol=0.05)


def test_width_is_the_published_one() -> None:
    srf = load_srf("sentinel2a")  # ESA's bandwidths: B4 31, B8A 21, B11 91 nm
    np.testing.assert_allclose(srf.select(["B4", "B8A", "B11"]).fwhm_nm, [31, 21, 91], atol=2)


def test_names_are_found_whatever_their_spelling() -> None:
    assert load_srf("Sentinel-2A").name == load_srf("SENTINEL_2a").name == load_srf("s2a").name == "sentinel2a"
    assert load_srf("sentinel2a").note == ""


@pytest.mark.parametrize(
    ("name", "meant"), [("sentinel2", "Sentinel-2A"), ("landsat", "Landsat-8"), ("planet", "SuperDove")]
)
def test_a_presumed_sensor_is_said_aloud(name: str, meant: str) -> None:
    assert f"{name} means " in load_srf(name).note
    assert meant in load_srf(name).note


def test_an_unknown_name_suggests_near_ones() -> None:
    with pytest.raises(SrfError, match=r"did you mean .*sentinel2"):
        load_srf("sentinle2")
    with pytest.raises(SrfError, match=r"did you mean sentinel2, sentinel2a, sentinel2b, sentinel2c[?]"):
        load_srf("sentinel3")  # no two names of one meaning


# ---- the laws of R


def test_a_flat_spectrum_gives_itself() -> None:
    matrix, coverage = load_srf("sentinel2a").matrix(DENSE_NM)
    np.testing.assert_allclose(matrix @ np.full(DENSE_NM.size, 0.37), 0.37, rtol=1e-12)
    np.testing.assert_allclose(coverage, 1.0, atol=1e-12)


@pytest.mark.parametrize("name", ["sentinel2a", "landsat9", "worldview3", "pleiades"])
def test_a_linear_spectrum_gives_its_value_at_the_centre(name: str) -> None:
    srf = load_srf(name)
    matrix, coverage = srf.matrix(DENSE_NM)
    whole = coverage == 1
    assert whole.sum() >= 5
    np.testing.assert_allclose((matrix @ DENSE_NM)[whole], srf.centres_nm[whole], atol=1e-6)


def test_r_integrates_the_interpolant_as_a_fine_sum_does() -> None:
    srf, rng = load_srf("sentinel2a").select(["B2", "B8"]), np.random.default_rng(0)
    hsi_nm = 400 + np.cumsum(rng.uniform(5, 15, 60))
    spectrum = rng.uniform(0, 1, 60)
    fine = np.arange(hsi_nm[0], hsi_nm[-1], 0.002)
    weight = np.array([np.interp(fine, srf.wavelengths_nm, row) for row in srf.response])
    expected = weight @ np.interp(fine, hsi_nm, spectrum) / weight.sum(axis=1)
    np.testing.assert_allclose(srf.matrix(hsi_nm)[0] @ spectrum, expected, atol=1e-5)


def test_order_of_the_hsi_bands_does_not_matter() -> None:
    srf, order = load_srf("sentinel2a"), np.random.default_rng(1).permutation(DENSE_NM.size)
    fwhm = np.linspace(5, 9, DENSE_NM.size)
    matrix, coverage = srf.matrix(DENSE_NM, fwhm)
    shuffled, same = srf.matrix(DENSE_NM[order], fwhm[order])
    np.testing.assert_allclose(shuffled, matrix[:, order], atol=1e-15)
    np.testing.assert_allclose(same, coverage)


def test_coverage_of_a_vnir_cube() -> None:
    srf = load_srf("sentinel2a")
    matrix, coverage = srf.matrix(np.arange(400, 1001, 5.0))
    share = dict(zip(srf.bands, coverage, strict=True))
    assert share["B8A"] == pytest.approx(1.0)
    assert share["B10"] == share["B11"] == share["B12"] == 0
    assert matrix[srf.index("B10")].sum() == 0


def test_coverage_ends_half_a_fwhm_beyond_the_last_centre() -> None:
    srf = boxes((500, 600))
    wl = np.arange(400, 541, 10.0)
    _, half = srf.matrix(wl)
    assert half[0] == pytest.approx(0.45, abs=0.01)
    _, more = srf.matrix(wl, np.full(wl.size, 20.0))
    assert more[0] == pytest.approx(0.50, abs=0.01)


def test_dropped_bands_leave_a_gap() -> None:
    srf, wl = boxes((500, 600), (700, 800)), np.arange(400, 901, 10.0)
    kept = wl[(wl < 520) | (wl > 580)]
    _, coverage = srf.matrix(kept, np.full(kept.size, 10.0))
    assert coverage[0] == pytest.approx(1 - 70 / 101, abs=0.01)  # 515 to 585 nm are not seen
    assert coverage[1] == pytest.approx(1.0)


def test_a_band_inside_a_gap_has_no_weights() -> None:
    wl = np.arange(400, 901, 10.0)
    kept = wl[(wl < 480) | (wl > 620)]
    matrix, coverage = boxes((500, 600)).matrix(kept)
    assert coverage[0] == 0
    assert matrix.sum() == 0


def test_changing_spacing_is_no_gap() -> None:
    wl = np.concatenate([np.arange(400, 700, 5.0), np.arange(700, 1100, 12.0)])
    np.testing.assert_allclose(boxes((500, 900)).matrix(wl)[1], 1.0)


def test_overlapping_detectors_share_the_weight() -> None:
    srf, wl = boxes((500, 600)), np.arange(400, 701, 10.0)
    twice = np.concatenate([wl, wl[10:15] + 0.01])
    matrix, coverage = srf.matrix(twice)
    np.testing.assert_allclose(matrix[:, 10:15], matrix[:, 31:])
    np.testing.assert_allclose(matrix @ twice, srf.centres_nm, atol=1e-2)
    np.testing.assert_allclose(coverage, 1.0)


def test_a_table_at_the_hsi_centres_is_r_itself(tmp_path: Path) -> None:
    path = write(tmp_path, "wavelength_nm,a,b\n500,1,0\n510,3,0\n520,0,1\n530,0,1\n")
    matrix, coverage = load_srf(path).matrix([510, 500, 530, 520])
    np.testing.assert_allclose(matrix, [[0.75, 0.25, 0, 0], [0, 0, 0.5, 0.5]])
    np.testing.assert_allclose(coverage, 1.0)


def test_the_usual_spacing_is_the_median_of_those_around():
    step = np.random.default_rng(0).uniform(1, 9, 14)
    wanted = [np.median(step[max(0, i - 5) : i + 6]) for i in range(14)]
    np.testing.assert_allclose(_usual_spacing(np.cumsum([400, *step])), wanted)


def test_a_single_hsi_band() -> None:
    matrix, coverage = boxes((500, 600)).matrix([550.0], [20.0])
    np.testing.assert_allclose(matrix, [[1.0]])
    assert coverage[0] == pytest.approx(0.2, abs=0.01)


@pytest.mark.parametrize("bad", [[], [500, np.nan], [-1, 500]])
def test_bad_hsi_wavelengths(bad: list[float]) -> None:
    with pytest.raises(SrfError, match="HSI wavelengths"):
        boxes((500, 600)).matrix(bad)


def test_fwhm_of_another_length() -> None:
    with pytest.raises(SrfError, match=r"2 wavelengths but 3 FWHM"):
        boxes((500, 600)).matrix([500, 510], [10, 10, 10])


def test_select_keeps_the_order_asked_for() -> None:
    srf = load_srf("sentinel2a").select(["B8A", "b02"])
    assert srf.bands == ("B8A", "B2")
    np.testing.assert_allclose(srf.centres_nm, [864.7, 492.4], atol=0.4)
    with pytest.raises(SrfError, match=r"no band 'B77'; it has B1, B2"):
        load_srf("sentinel2a").select(["B77"])


# ---- a user's own CSV


def test_own_csv_any_scale(tmp_path: Path) -> None:
    path = write(tmp_path, "# my camera\n# source: me\nwavelength_nm,R,G\n400,0,\n500,50,0.1\n600,100,0.2\n")
    srf = load_srf(str(path))
    assert (srf.name, srf.source, srf.bands, srf.approximate) == ("own", "me", ("R", "G"), False)
    np.testing.assert_allclose(srf.response, [[0, 0.5, 1], [0, 0.5, 1]])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("wavelength,B1\n500,1\n510,1\n", "wanted 'wavelength_nm'"),
        ("wavelength_nm\n500\n510\n", "one named column"),
        ("wavelength_nm,B1,B1\n500,1,1\n510,1,1\n", "each name once"),
        ("wavelength_nm,B1\n500,x\n510,1\n", "line 2.*isn't a number"),
        ("wavelength_nm,B1\n500,1\n510\n", "line 3: 1 values .* 2 columns"),
        ("wavelength_nm,B1\n500,-0.1\n510,1\n", "B1 has a negative"),
        ("wavelength_nm,B1,B2\n500,1,0\n510,1,0\n", "B2 is zero everywhere"),
        ("wavelength_nm,B1\n500,1\n500,1\n", "500 nm follows 500 nm"),
        ("wavelength_nm,B1\n0.5,1\n0.6,1\n", "micrometres"),
        ("wavelength_nm,B1\n500,1\n", "at least 2"),
        ("wavelength_nm,B1\n500,nan\n510,1\n", "NaN"),
        ("# nothing\n", "holds no table"),
        ("# colour red: B7\nwavelength_nm,B1\n500,1\n510,1\n", "'default' and 'colour' comments"),
        ("# default 2: B1\nwavelength_nm,B1\n500,1\n510,1\n", "'default' and 'colour' comments"),
    ],
)
def test_malformed_csv(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(SrfError, match=message):
        load_srf(write(tmp_path, text))


def test_missing_and_binary_files(tmp_path: Path) -> None:
    with pytest.raises(SrfError, match="no such response file"):
        load_srf(tmp_path / "absent.csv")
    (tmp_path / "image.csv").write_bytes(bytes(range(128, 256)))
    with pytest.raises(SrfError, match="can't be read as text"):
        load_srf(tmp_path / "image.csv")


def test_written_as_csv_it_is_read_back(tmp_path: Path) -> None:
    srf = load_srf("sentinel2a").select(["B2", "B8A"])
    path = write_srf(srf, tmp_path / "mine.csv", about={"made for": "a test\nof two lines"})
    again = load_srf(path)
    assert (again.bands, again.sensor, again.source, again.weights) == (srf.bands, srf.sensor, srf.source, False)
    np.testing.assert_allclose(again.response, srf.response, atol=1e-6)
    assert list(tmp_path.iterdir()) == [path]


def test_weights_of_uneven_hsi_bands_are_a_curve_for_another_hsi(tmp_path: Path) -> None:
    nm = np.concatenate([np.arange(400, 550, 5.0), np.arange(550, 750, 20.0)])
    weights, _ = boxes((500, 620)).matrix(nm)
    srf = SpectralResponse("own", ("a",), nm, weights / weights.max(), weights=True)
    again = load_srf(write_srf(srf, tmp_path / "own.csv"))
    np.testing.assert_allclose(again.matrix(nm)[0], weights, atol=1e-6)
    other = np.arange(410.0, 740.0, 10.0)
    np.testing.assert_allclose(again.matrix(other)[0] @ other, 560, atol=3)  # without spacing it would be about 580
    np.testing.assert_allclose(again.centres_nm, 560, atol=3)


def test_where_a_csv_cannot_be_written(tmp_path: Path) -> None:
    srf = boxes((500, 600))
    with pytest.raises(SettingError, match=r"ends in \.csv"):
        write_srf(srf, tmp_path / "own.txt")
    with pytest.raises(OutputError, match="doesn't exist"):
        write_srf(srf, tmp_path / "no" / "own.csv")
    path = write_srf(srf, tmp_path / "own.csv")
    with pytest.raises(OutputError, match="exists already"):
        write_srf(srf, path)
    assert write_srf(boxes((500, 650)), path, overwrite=True) == path
    assert load_srf(path).fwhm_nm[0] == pytest.approx(151, abs=1)


# ---- which file band is which


@pytest.mark.parametrize(
    ("sensor", "descriptions", "bands"),
    [
        ("sentinel2a", ["B2", "B3", "B4", "B8"], "B2 B3 B4 B8"),
        ("sentinel2a", ["B08", "b04", "Band 3", "B8A"], "B8 B4 B3 B8A"),
        ("sentinel2a", ["blue - B02", "Red", "NIR (narrow)", "Vegetation red edge 2"], "B2 B4 B8A B6"),
        ("sentinel2a", ["B2, central wavelength 490 nm", "B10, central wavelength 1375 nm"], "B2 B10"),
        ("sentinel2a", ["swir16", "swir22", "coastal"], "B11 B12 B1"),
        ("sentinel2a", ["Band 1: Blue", "Band 2: Green", "Band 3: Red", "Band 4: NIR"], "B2 B3 B4 B8"),
        ("landsat8", ["SR_B2", "SR_B3", "SR_B4", "nir08"], "B2 B3 B4 B5"),
        (
            "superdove",
            ["coastal_blue", "blue", "green_i", "green", "yellow", "red", "rededge", "nir"],
            "B1 B2 B3 B4 B5 B6 B7 B8",
        ),
        ("worldview3", ["Red Edge", "NIR1", "NIR2", "SWIR 3"], "B6 B7 B8 S3"),
    ],
)
def test_bands_by_description(sensor: str, descriptions: list[str], bands: str) -> None:
    match = match_bands(load_srf(sensor), descriptions, len(descriptions), None)
    assert match.how == "description"
    assert match.bands == tuple(bands.split())
    assert match.indices == tuple(range(len(descriptions)))


def test_file_bands_that_match_nothing_are_left_out_aloud() -> None:
    match = match_bands(load_srf("sentinel2a"), ["B2", "SCL", None, "B8"], 4, None)
    assert (match.indices, match.bands) == ((0, 3), ("B2", "B8"))
    assert "Left out: band 2 (scl), band 3 (no name)" in match.note


def test_a_colour_that_the_sensor_lacks_is_not_another() -> None:
    match = match_bands(load_srf("landsat8"), ["Red Edge", "Red"], 2, None)
    assert (match.indices, match.bands) == ((1,), ("B4",))


def test_two_file_bands_that_look_alike() -> None:
    with pytest.raises(SrfError, match=r"bands 1 \(blue\) and 2 \(b02\) both look like B2"):
        match_bands(load_srf("sentinel2a"), ["Blue", "B02"], 2, None)


@pytest.mark.parametrize(
    ("sensor", "count", "bands"),
    [
        ("sentinel2a", 4, "B2 B3 B4 B8"),
        ("sentinel2a", 10, "B2 B3 B4 B5 B6 B7 B8 B8A B11 B12"),
        ("sentinel2a", 12, "B1 B2 B3 B4 B5 B6 B7 B8 B8A B9 B11 B12"),
        ("sentinel2a", 13, "B1 B2 B3 B4 B5 B6 B7 B8 B8A B9 B10 B11 B12"),
        ("sentinel2a", 3, "B4 B3 B2"),
        ("landsat8", 6, "B2 B3 B4 B5 B6 B7"),
        ("landsat5", 6, "B1 B2 B3 B4 B5 B7"),
        ("worldview2", 4, "B2 B3 B5 B7"),
        ("superdove", 4, "B2 B4 B6 B8"),
    ],
)
@pytest.mark.parametrize("numbered", [False, True])
def test_bands_by_count(sensor: str, count: int, bands: str, numbered: bool) -> None:
    descriptions = [f"Band {i}" if numbered else None for i in range(1, count + 1)]
    match = match_bands(load_srf(sensor), descriptions, count, None)
    assert (match.how, match.bands) == ("default", tuple(bands.split()))
    assert "taken as" in match.note


def test_own_response_takes_bands_in_order(tmp_path: Path) -> None:
    srf = load_srf(write(tmp_path, "wavelength_nm,left,right\n400,1,0\n500,0,1\n"))
    match = match_bands(srf, [None, None], 2, None)
    assert (match.indices, match.bands, match.how) == ((0, 1), ("left", "right"), "default")


def test_bands_by_option() -> None:
    match = match_bands(load_srf("sentinel2a"), ["B2", "B3", "B4", "B8"], 4, ["B8A", "-", "red", ""])
    assert (match.indices, match.bands, match.how) == ((0, 2), ("B8A", "B4"), "option")
    assert "Left out: band 2, 4" in match.note


@pytest.mark.parametrize(
    ("requested", "error", "message"),
    [
        (["B2", "B3"], SettingError, "names 2 bands but the MSI file has 3"),
        (["B2", "B3", "B99"], SrfError, "no band 'B99'"),
        (["B2", "B02", "B4"], SettingError, "B2 twice"),
        (["-", "-", ""], SettingError, "no band"),
    ],
)
def test_bad_option(requested: list[str], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        match_bands(load_srf("sentinel2a"), [None] * 3, 3, requested)


def test_nothing_fits() -> None:
    with pytest.raises(SrfError, match=r"5 bands \('QA'\) .* usual sets of 3, 4, 6, 10, 12, 13"):
        match_bands(load_srf("sentinel2a"), ["QA", None, None, None, None], 5, None)


def test_a_table_of_any_size_is_refused_before_it_is_read(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("wavelength_nm,a\n" + "500,1\n" * 1_500_000)
    with pytest.raises(SrfError, match="a table of responses has at most"):
        load_srf(path)

"""The report: one file that needs nothing else, and what it shows is what was measured."""

import base64
import json
import math
import os
import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
from affine import Affine
from assessed_scene import SCALE, make_scene, write_cube
from rasterio.crs import CRS
from rasterio.warp import transform
from scipy.interpolate import RegularGridInterpolator

from hsfuse.assessment import Assessment, assess
from hsfuse.assessment.checks import checks
from hsfuse.assessment.report import render_report, write_report
from hsfuse.assessment.report.citation import SOURCES, methods_paragraph
from hsfuse.assessment.report.facts import gsd, header, place, scene_title
from hsfuse.assessment.report.figures import map_figure, map_limits, mtf_curves, picture_record, spectra_data, training
from hsfuse.assessment.report.pictures import encode, map_uri, power_of, stretch_limits, to_rgb
from hsfuse.assessment.report.sensors import response_rows, sensor_lines
from hsfuse.assessment.report.words import (
    ADVICE,
    bias,
    cards,
    effort,
    flat,
    grouped,
    in_short,
    method_words,
    shift_figures,
    stages,
    training_words,
)
from hsfuse.assessment.result import Check, IndexCheck, MapLayer, Picture, Registration
from hsfuse.calibration import LocalShift, Shift
from hsfuse.calibration.distortion import Drift
from hsfuse.core.errors import OutputError
from hsfuse.core.grid import Grid
from hsfuse.core.notes import note, records, texts, warning
from hsfuse.core.options import FuseOptions
from hsfuse.fusion.job import Job
from hsfuse.methods import METHODS

VOID = {"meta", "img", "br", "input", "link", "hr"}


class Outline(HTMLParser):
    """Tags with their attributes, text, and elements left open."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.open, self.text, self.data = [], [], [], []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        (self.data if self.open and self.open[-1] in ("script", "style") else self.text).append(data)


@pytest.fixture(scope="module")
def assessed(tmp_path_factory):
    scene = make_scene(tmp_path_factory.mktemp("scene"))
    curve = [0.03, 0.02, 0.01]
    record = {
        "scale": SCALE,
        "command": "hsfuse fuse <script>",
        "adaptation": {
            "steps": [0, 50, 100],
            "train_loss": curve,
            "held_out": curve,
            "base_held_out": 0.02,
            "kept": "x",
        },
    }
    flawed = scene.truth * np.linspace(0.9, 1.1, scene.truth.shape[2], dtype=np.float32)
    write_cube(scene.path("flawed.tif"), flawed, provenance=json.dumps(record))
    files = dict(reference=scene.path("truth.tif"), **scene.observed, window=8)
    return [assess(scene.path(f), **files) for f in ("flawed.tif", "truth.tif")]


def test_page_is_whole_and_needs_no_network(assessed):
    page = Outline(render_report(assessed))
    assert page.open == []
    for _, attrs in page.tags:
        assert not attrs.get("src", "data:").startswith(("http", "//", "/"))
        assert not attrs.get("href", "#").startswith(("http", "//", "/"))
    assert not re.search(r"url\((?!#)|@import|fetch\(|XMLHttp", "".join(page.data))


def test_its_head_has_the_warnings_in_it(assessed, tmp_path):
    """`batch --resume` reads them there."""
    told = [warning("told", text=text) for text in ('It has "quotes" & <marks>', "It's off by 3 %")]
    path = write_report([replace(assessed[0], notes=(*told, note("told", text="no warning")))], tmp_path / "a.html")
    job = Job("", tmp_path / "no.tif", (), tmp_path / "none.tif", FuseOptions(), path)
    assert job.warned() == texts(told)
    path.write_text("<html>")
    assert job.warned() == []


def test_pictures_have_words_and_controls_have_names(assessed):
    page = Outline(render_report(assessed))
    images = [attrs for tag, attrs in page.tags if tag == "img"]
    assert images
    assert all(attrs.get("alt") for attrs in images)
    assert all(attrs.get("aria-label") for tag, attrs in page.tags if tag == "input")
    ids = [attrs["id"] for _, attrs in page.tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    assert all(attrs["aria-labelledby"] in ids for _, attrs in page.tags if "aria-labelledby" in attrs)


def test_text_from_files_is_escaped(assessed):
    page = Outline(render_report(assessed[:1]))
    assert "hsfuse fuse <script>" in "".join(page.text)
    assert sum(tag == "script" for tag, _ in page.tags) == 2


def test_data_for_the_script_is_json_with_the_measured_values(assessed):
    page = Outline(render_report(assessed[:1]))
    data = json.loads(next(text for text in page.data if text.startswith("{")))
    psnr = next(c for c in assessed[0].curves if c.name == "psnr")
    drawn = next(c for c in data["curves"] if c["title"] == "PSNR")
    np.testing.assert_allclose(drawn["y"], psnr.values, rtol=1e-5)
    assert data["training"]["base"] == 0.02


def test_embedded_spectra_decode_to_the_sampled_ones(assessed):
    spectra = assessed[0].spectra
    coded = spectra_data(spectra, (48, 48))
    for image, values in spectra.values.items():
        entry = coded["images"][image]
        whole = np.frombuffer(base64.b64decode(entry["data"]), "<i2").reshape(values.shape)
        np.testing.assert_allclose(whole * entry["step"], values, atol=entry["step"])


def test_a_single_file_has_no_comparison(assessed):
    assert "Comparison" not in render_report(assessed[:1])
    assert "Comparison" in render_report(assessed)


def test_a_bare_assessment_has_a_page(tmp_path):
    rng = np.random.default_rng(0)
    write_cube(tmp_path / "a.tif", rng.random((24, 48, 48)))
    page = Outline(render_report([assess(tmp_path / "a.tif", reference=tmp_path / "a.tif")]))
    assert page.open == []
    assert "NaN" not in "".join(page.text)


def test_report_is_not_overwritten_unasked(assessed, tmp_path):
    path = tmp_path / "r.html"
    path.write_text("mine")
    with pytest.raises(OutputError, match="--overwrite"):
        write_report(assessed, path)
    assert path.read_text() == "mine"
    write_report(assessed, path, overwrite=True)
    assert path.read_text().startswith("<!doctype html>")
    assert os.listdir(tmp_path) == ["r.html"]


def test_report_into_no_folder_is_refused(assessed, tmp_path):
    with pytest.raises(OutputError, match="doesn't exist"):
        write_report(assessed, tmp_path / "no" / "r.html")
    with pytest.raises(OutputError, match="is a folder"):
        write_report(assessed, tmp_path)


@pytest.mark.parametrize(
    "record", [{}, {"adaptation": "none"}, {"adaptation": {"kept": "base"}}, {"adaptation": {"held_out": "?"}}]
)
def test_records_without_curves_draw_none(record):
    assert training(record) is None


def test_training_curves_may_lack_parts():
    drawn = training({"adaptation": {"train_loss": [2, float("nan"), 1], "base_held_out": None}})
    assert drawn["curves"] == [{"name": "training loss", "x": [0, 1, 2], "y": [2.0, None, 1.0]}]
    assert drawn["base"] is None


def test_what_the_fitting_brought_is_told():
    record = {"steps": [0, 20], "held_out": [1.0, 0.75]}
    assert "25% lower" in training_words({"adaptation": {**record, "base_held_out": 1.0}})
    assert "25% lower" in training_words({"adaptation": {**record, "gain": 0.25, "verdict": ""}})
    told = training_words({"adaptation": {**record, "gain": 0.0, "verdict": "the base is the result"}})
    assert told.endswith("the base is the result.")
    assert training_words({}) == ""
    assert method_words({"method": {"method": "srlf", "base": "glp"}}) == "srlf; base glp"
    assert method_words({"method": "gsa"}) == "gsa"


def test_parts_are_headings_of_one_kind_and_the_contents_lead_to_them(assessed):
    for several in (assessed[:1], assessed):
        page = Outline(render_report(several))
        kinds = [tag for tag, _ in page.tags if re.fullmatch(r"h[1-6]", tag)]
        assert kinds.count("h1") == 1
        assert set(kinds) <= {"h1", "h2", "h3"}
        ids = {attrs.get("id") for _, attrs in page.tags}
        links = [attrs["href"] for tag, attrs in page.tags if tag == "a" and attrs.get("href", "").startswith("#")]
        assert len(links) > 8
        assert not [link for link in links if link[1:] not in ids]


def test_provenance_shows_nothing_of_python():
    record = {
        "seed": None,
        "ok": True,
        "field": [{"row": 1, "dx": None}, {"row": 2}],
        "none": [],
        "bands": ["B2", None],
    }
    told = dict(flat({**record, "records": [{"code": "told"}]}))
    assert told == {"ok": "yes", "field 1 › row": "1", "field 2 › row": "2", "bands": "B2, -"}


def test_provenance_lines_are_flat():
    files = [["x.tif", 1234, 17]]
    long = ["a sentence that is longer than forty characters", "short"]
    taps = [[1.0] * 16] * 2
    lines = flat(
        {"a": {"b_c": 0.123456789, "taps": taps}, "steps": list(range(100)), "notes": long, "input_files": files}
    )
    assert lines == [
        ("a › b c", "0.123457"), ("a › taps", "(2 × 16 values)"), ("steps", "0, 1, …, 99, (100 values)"),
        ("notes 1", long[0]), ("notes 2", "short"), ("input file 1", "x.tif, 1,234 bytes"),
    ]  # fmt: skip
    assert grouped(lines)["a"] == [("b c", "0.123457"), ("taps", "(2 × 16 values)")]
    assert [key for key, _ in grouped(lines)[""]] == ["steps", "notes 1", "notes 2", "input file 1"]


def test_stretch_and_invalid_pixels():
    picture = np.tile(np.linspace(0, 1, 101), (3, 10, 1))
    picture[:, 0, 0] = np.nan
    low, high = stretch_limits([picture])
    rgb = to_rgb(picture, (low, high))
    assert (rgb[0, 0] == 128).all()
    assert (rgb[1, 0] == 0).all()
    assert (rgb[1, -1] == 255).all()
    assert int(rgb[1, 50, 0]) == pytest.approx(127, abs=3)


def test_dark_pictures_are_brightened_and_bright_ones_are_left():
    """Water of 0.02 with a corner of land at 1: the median is brought up, black and white stay."""
    water = np.full((3, 20, 20), 0.02)
    water[:, 0, :] = 0.0
    water[:, 1, :] = 1.0
    limits = np.zeros(3), np.ones(3)
    power = power_of([water], limits)
    assert 0.35 <= power < 0.4
    assert to_rgb(water, limits)[9, 9, 0] < 10 < 40 < to_rgb(water, limits, power)[9, 9, 0]
    assert to_rgb(water, limits, power)[1, 9, 0] == 255
    assert to_rgb(water, limits, power)[0, 9, 0] == 0
    record = picture_record(Picture("fused", "true colour", water, ("1", "2", "3")), limits, power)
    read = (to_rgb(water, limits, power)[9, 9, 0] / 255) ** (1 / record["power"])  # as the script does
    assert read == pytest.approx(0.02, abs=0.001)
    assert "brightened" in record["caption"]
    assert power_of([np.linspace(0, 1, 300).reshape(3, 10, 10)], limits) == 1
    assert power_of([np.full((3, 2, 2), np.nan)], limits) == 1


def test_encoding_by_size():
    assert encode(np.zeros((10, 10, 3), np.uint8))[1].startswith(b"\x89PNG")
    assert encode(np.zeros((300, 300, 3), np.uint8))[1].startswith(b"\xff\xd8")


def test_map_colours_and_transparency():
    from io import BytesIO

    from matplotlib import colormaps
    from PIL import Image

    uri = map_uri(np.array([[0.0, 1.0, 5.0, np.nan]]), (0, 1), "viridis")
    image = Image.open(BytesIO(base64.b64decode(uri.split(",")[1]))).convert("RGBA")
    pixels = [image.getpixel((x, 0)) for x in range(4)]
    assert pixels[0][:3] == tuple(int(v) for v in colormaps["viridis"](0.0, bytes=True)[:3])
    assert pixels[1] == pixels[2]
    assert pixels[3][3] == 0


def test_stages_time_and_memory_are_told_as_far_as_they_are_known():
    stage = {"name": "network", "error": 0.9, "angle": float("nan"), "seconds": 2}
    (row,) = stages({"adaptation": {"stages": [stage, {"error": 1.0}, "?"]}})
    assert row == {"name": "network", "error": "90.0%", "angle": "-", "seconds": "2.0"}
    assert stages({}) == stages({"adaptation": None}) == stages({"adaptation": {"stages": "none"}}) == []
    record = {"seconds": {"fit": 1.5, "note": "x"}, "device": "cpu"}
    assert effort(record) == [("fit", "1.5 s"), ("device", "cpu")]
    assert effort({"seconds": 3.0}) == []


def test_shifts_are_drawn_to_one_scale():
    windows = [LocalShift(2.0, 2.0, 0.0, 0.5, 0.01), LocalShift(8.0, 2.0, 0.3, 0.4, 0.01)]
    found = Shift(0.1, 0.4, 0.01, 2, 0.9, tuple(windows))
    left = Shift(0.0, 0.0, 0.01, 1, 0.9, (LocalShift(2.0, 2.0, 0.05, 0.0, 0.01),))
    a = Assessment("f.tif", (3, 40, 20), {}, ratio=4, registration=Registration(found, left))
    before, after = shift_figures(a)
    assert before["width"] / before["height"] == pytest.approx(20 / 40)
    assert before["times"] == after["times"]
    length = math.hypot(before["arrows"][1]["dx"], before["arrows"][1]["dy"])
    assert length == pytest.approx(math.hypot(before["arrows"][0]["dx"], before["arrows"][0]["dy"]))
    assert after["arrows"][0]["dy"] == pytest.approx(length / 10)
    assert (before["longest"], after["longest"]) == (pytest.approx(0.5), 0.05)


def test_the_position_is_told_in_one_set_of_words():
    """Mean, drift and bend, as the fusion said them, where what was measured again differs by a little."""
    drift = Drift((0.1, 0.05, 0.0), (0.0, 0.0, 0.0))
    field = tuple(LocalShift(r, 2.0, 0.0, 0.5, 0.01) for r in (2.0, 8.0))
    found = Shift(0.1, 0.0, 0.01, 20, 0.9, field, drift, extent=((0.0, 18.0), (0.0, 10.0)))
    left = Shift(0.0, 0.0, 0.01, 20, 0.9, field)
    assert found.amounts == "a mean shift of 0.10 LR pixels, a drift of up to 0.90 over the scene"
    for told, amounts in ((None, "up to 0.90"), (("W", "a mean shift of 0.11 LR pixels, up to 1.00"), "up to 1.00")):
        a = Assessment(
            "f.tif", (3, 40, 20), {}, ratio=4, shift_px=(0.0, 0.1), registration=Registration(found, left, told)
        )  # fmt: skip
        (position,) = (check for check in checks(a) if check.topic == "Position")
        assert amounts in position.text
        words = "W" if told else found.describe()
        assert f"corrected was: {words}" in dict(sensor_lines(a))["Place"]
        assert shift_figures(a)[0]["words"] == words


def test_undefined_indices_of_quality_have_a_reason(assessed):
    told = [note("metric-undefined", metric=key, reason=why) for key, why in (("d_lambda", "no window"), ("hqnr", "x"))]
    assert "HQNR can't be told: no window." in in_short(replace(assessed[0], notes=tuple(told)))
    assert not any("can't be told" in line for line in in_short(assessed[0]))


def test_what_the_hsi_does_not_reach_is_told(assessed):
    a = assessed[0]
    cut = replace(a, shape=(a.shape[0], a.shape[1], a.shape[2] * 3 // 4), valid_pixels=a.shape[1] * a.shape[2] * 3 // 4)
    for one, said in ((a, False), (cut, True)):
        (check,) = (check for check in checks(one) if check.code == "masked")
        assert ("The HSI doesn't reach 25.0% of the MSI." in check.text) == said
        assert check.verdict == "good"


def test_recorded_shifts_are_drawn_where_the_inputs_are_not_at_hand():
    field = [{"row": 2, "col": 3, "dy": 0.1, "dx": 0.0, "sd": 0.01}]
    a = Assessment("f.tif", (3, 40, 20), {}, provenance={"registration": {"dy": 0.1, "dx": 0.0, "field": field}})
    (figure,) = shift_figures(a)
    assert figure["title"] == "As the files have it"
    bent = {"first": [0, 0], "last": [40, 20], "down": [[0, 3], [0, 0]], "right": [[0, 0], [0, 0]]}
    corrected = {
        "dy": 0.1,
        "dx": 0.0,
        "field": field,
        "corrected": True,
        "motion": [1, 0, 0, 0, 1, 0],
        "distortion": bent,
    }
    (figure,) = shift_figures(Assessment("f.tif", (3, 40, 20), {}, provenance={"registration": corrected}))
    assert "a smooth field of up to 3.00 MSI pixels" in figure["words"]
    for record in ({}, {"registration": "off"}, {"registration": {"dy": 1.0}}):
        assert shift_figures(Assessment("f.tif", (3, 40, 20), {}, provenance=record)) == []


def test_expected_and_real_error_share_a_scale():
    maps = tuple(MapLayer(n, n, "", np.full((3, 3), v, np.float32), 1) for n, v in (("rmse", 1), ("expected_error", 2)))
    assert map_limits([Assessment("f.tif", (3, 3, 3), {}, maps=maps)]) == {
        "rmse": (0.0, 2.0),
        "expected_error": (0.0, 2.0),
    }


def test_misfits_to_the_lrhsi_are_stretched_and_their_bars_say_so():
    values = np.linspace(1, 2, 1000, dtype=np.float32).reshape(20, 50)
    misfit = MapLayer("hsi_rmse", "Misfit", "data unit", values, 1)
    other = MapLayer("msi_rmse", "Misfit", "data unit", values, 1)
    ends = map_limits([Assessment("f.tif", (3, 20, 50), {}, maps=(misfit, other))])
    assert ends["hsi_rmse"] == pytest.approx((1.01, 1.99))
    assert ends["msi_rmse"] == pytest.approx((0, 1.99))
    shown = map_figure(misfit, ends["hsi_rmse"], "reflectance")
    assert shown["ticks"] == ("≤ 1.01", "1.5", "≥ 1.99")
    assert shown["unit"] == "reflectance"
    assert map_figure(other, ends["msi_rmse"])["ticks"] == ("0", "0.995", "≥ 1.99")
    flat = MapLayer("hsi_rmse", "Misfit", "data unit", np.ones((2, 2), np.float32), 1)
    assert map_figure(flat, (1.0, 1.0))["ticks"] == ("1", "1.5", "2")


def test_the_head_tells_grid_inputs_and_days(assessed):
    told = dict(header(assessed[0]))
    assert re.match(r"48 × 48 pixels, GSD [\d.]+ m, EPSG:\d+, \d+ bands, 4\d\d to \d+ nm", told["Fused cube"])
    assert told["LRHSI"].startswith("hsi.tif, 12 × 12 pixels, GSD")
    assert told["MSI"].startswith("msi.tif, response s, bands B2, B3, B4, B8, 48 × 48 pixels, GSD")
    assert told["Reference"] == "truth.tif"
    assert told["Acquired"] == "the files don't say when"
    assert "GSD" not in dict(header(replace(assessed[0], images={})))["Fused cube"]
    assert "Acquired" not in dict(header(Assessment("gone.tif", (3, 4, 5), {})))


def test_a_gsd_has_a_unit():
    def of(y: float, x: float, crs: str | None) -> str:
        return gsd(Grid((9, 9), Affine(x, 0, 5, 0, -y, 5), None if crs is None else CRS.from_user_input(crs)))

    assert of(20.0, 20.0, "EPSG:32616") == "GSD 20 m"
    assert of(0.25, 0.5, "EPSG:4326") == "GSD 0.25 × 0.5°"
    assert of(3.0, 3.0, None) == "GSD 3 map units"
    assert of(80.0, 80.0, "EPSG:2263") == "GSD 80 US ft"


def test_an_assumed_unit_is_told_once_near_the_top(assessed):
    guess = "99 % of the numbers are below 0.6: taken as reflectance 0 to 1"
    told = note("quantity-guessed", what="fused cube", guess=guess)
    a = replace(assessed[0], notes=(told, note("told", text="something else")))
    page = render_report([a])
    assert page.count("say what its numbers are") == 1
    assert page.index("say what its numbers are") < page.index("Can it be trusted?")
    assert "something else" in page
    assert a.unit.words == "reflectance"
    assert Assessment("f.tif", (3, 4, 5), {}).unit.words == "unit of the data"
    both = replace(a, notes=(told, note("quantity-guessed", what="reference", guess=guess)))
    page = render_report([both])
    assert "Reflectance by the size of the numbers: fused cube and reference don&#39;t say what theirs are" in page
    assert page.count("doesn&#39;t say what its numbers are") == 2  # each is a note then


@pytest.mark.parametrize(
    ("rmse", "off", "told"), [(0.0119, -0.00012, "-0.0001"), (0.0119, -1e-7, "0"), (2.16, 0.145, "+0.14"), (0, 0, "0")]
)
def test_a_bias_is_told_as_closely_as_its_rmse_allows(rmse, off, told):
    assert bias(IndexCheck("NDVI", "", "LRHSI", 0.5, off, rmse)) == told


def test_the_headline_psnr_is_defined_beside_it(assessed):
    (card,) = cards(assessed[0], ["psnr"])
    assert card["definition"] == "mean over bands, peak 1"
    m = assessed[0].metrics
    assert f"{m['psnr_global']:.2f} dB over all values" in card["others"]
    assert f"{m['psnr_band_peak']:.2f} dB with each band's own peak" in card["others"]
    assert cards(assessed[0], ["sam"])[0]["definition"] == ""


def test_the_verdict_is_seen_first_and_of_the_checks_the_worst(assessed):
    made = (("A", "good"), ("B", "look"), ("C", "poor"), ("D", "look"))
    page = render_report([replace(assessed[0], checks=tuple(Check(t, v, "text") for t, v in made))])
    (verdict,) = re.findall(r'<p class="verdict (\w+)">', page)
    assert verdict == "poor"
    assert page.index('<p class="verdict') < page.index('<dl class="inputs">')
    beside = re.compile(r'<p class="verdict[^\n]*<span class="untested">Its fine detail was held against no truth')
    assert not beside.search(page)
    metrics = {key: value for key, value in assessed[0].metrics.items() if key != "relative_rmse"}
    assert beside.search(render_report([replace(assessed[0], metrics=metrics)]))
    assert re.findall(r'<p class="topic">(\w)', page) == ["C", "B", "D", "A"]
    told = replace(assessed[0], response=replace(assessed[0].response, estimated=True))
    assert re.search(
        r'<p class="verdict[^\n]*The MSI&#39;s response is estimated from this pair', render_report([told])
    )


def test_details_of_the_method_stand_at_the_end(assessed):
    method = {"method": "srlf", "base": "blend: tested", "MSI gain": "0.994"}
    page = render_report([replace(assessed[0], provenance={"method": method})])
    assert page.index("srlf; base blend<") < page.index("Can it be trusted?") < page.index("MSI gain")
    assert page.index("Do spectral indices survive?</h2>") < page.index("How it was fused</h2>")


def test_the_caption_names_only_the_pictures_there_are(assessed):
    page = render_report(assessed[:1])
    assert "fused, LRHSI, reference share one stretch" in page
    kept = tuple(p for p in assessed[0].pictures if p.image != "reference")
    assert "fused, LRHSI share one stretch" in render_report([replace(assessed[0], pictures=kept)])
    alone = tuple(p for p in assessed[0].pictures if p.image == "fused")
    assert "share one stretch" not in render_report([replace(assessed[0], pictures=alone)])


def test_indices_of_unseen_bands_say_so(assessed):
    a = assessed[0]
    assert any(c.name == "NDRE" for c in a.indices)
    nm = a.response.wavelengths_nm
    blind = replace(a.response, weights=np.where((nm > 690) & (nm < 760), 0, 1.0)[None], bands=("B1",), coverage=(1.0,))
    pattern = re.compile(r"NDRE[^\n]{0,200}no MSI band sees 715 nm")
    assert pattern.search(render_report([replace(a, response=blind)]))
    assert not pattern.search(render_report([replace(a, response=replace(blind, weights=np.ones((1, nm.size))))]))


def test_the_sensors_have_a_chapter_with_psf_response_and_what_explains_a_misfit(assessed):
    band = {
        "band": "B2", "centre_nm": 490.0, "width_nm": 60.0, "shift_nm": 12.0, "shift_sd_nm": 1.0, "widened_by": 1.1,
        "widened_sd": 0.1, "misfit": 44.0, "contradicts": True,
    }  # fmt: skip
    shares = {"PSF": 0.9, "place": 0.1, "response": 0.0, "radiometry": 0.0}
    misfit = {"times_noise": 2.5, "share_of_contrast": 0.2, "fits": False, "part": "PSF", "explained": shares}
    psf = {"how": "estimated", "text": "Gaussian, 1.5 +- 0.3", "sigma": [1.5, 1.5], "sigma_sd": [0.3, 0.3]}
    told = {"psf": psf, "check": {"misfit": misfit, "response": [band], "better": "landsat9"}, "tone": None}
    a = replace(assessed[0], sensors=told)
    lines = dict(sensor_lines(a))
    assert "2.50 times their noise" in lines["The model"]
    assert "PSF 90%" in lines["What explains it"]
    assert lines["PSF"] == "Estimated from the pair: Gaussian, 1.5 ± 0.3."
    assert "contradicts it in B2; landsat9 fits better" in lines["Response"]
    assert response_rows(a)[0]["shifted"] == "502.0 ± 1.0"
    lit = dict(sensor_lines(replace(a, sensors=told | {"light": 0.0234})))
    assert lit["Light"] == "Uneven: a smooth factor between both images, 2.3% RMS, was taken out of the MSI."
    assert lit["Radiometry"] == "No gain or offset was taken out."
    assert "Light" not in lines
    ill = {**told, "check": {**told["check"], "better": "", "response": [band | {"contradicts": False}]}}
    (row,) = response_rows(replace(a, sensors=ill))
    assert row["verdict"] == "misfit of another cause"  # a chi-square of 44 is no fit
    assert "what B2 leaves beyond noise" in dict(sensor_lines(replace(a, sensors=ill)))["Response"]
    assert (
        response_rows(
            replace(a, sensors={**told, "check": {"response": [band | {"misfit": 5.0, "contradicts": False}]}})
        )[0]["verdict"]
        == "fits"
    )
    curves = mtf_curves(a)
    assert [curve["y"][0] for curve in curves] == pytest.approx([1.0] * len(curves))
    assert {"one standard deviation wider", "narrower"} <= {curve["name"] for curve in curves}
    text = " ".join(Outline(render_report([a])).text)
    assert "What the pair told of its sensors" in text
    assert "contradicted" in text


def test_a_psf_that_was_assumed_says_why():
    doubt = {"how": "assumed", "doubt": "windows disagree", "label": "Gaussian"}
    a = Assessment("f.tif", (3, 4, 4), {}, sensors={"psf": doubt, "tone": {"B2": {}}})
    lines = dict(sensor_lines(a))
    assert lines["PSF"] == "Assumed, as the pair can't tell it: windows disagree. Gaussian."
    assert "B2 isn't linear" in lines["Radiometry"]
    assert mtf_curves(a) == []


def test_each_check_tells_its_limits_and_what_to_do(assessed):
    page = Outline(render_report(assessed[:1]))
    text = " ".join(page.text)
    assert all(check.code in ADVICE for check in assessed[0].checks)
    assert "Error: good up to 3%, poor from 10%." in text
    assert "Correlation: good from 0.9, poor up to 0.5." in text
    assert text.count("What a bad one looks like, what to do") == len(assessed[0].checks)
    assert not re.search(r"\b(None|True|False)\b|[{}]", text)


def test_parts_fold_and_the_contents_name_each(assessed):
    page = Outline(render_report(assessed[:1]))
    parts = [attrs for tag, attrs in page.tags if tag == "details" and attrs.get("class") == "part"]
    links = [attrs["href"] for tag, attrs in page.tags if tag == "a" and attrs.get("href", "").startswith("#")]
    assert len(parts) == len(links) - 1  # the other leads past the head
    assert 3 < sum("open" in attrs for attrs in parts) < len(parts)


def test_the_title_is_the_scene_and_the_page_has_its_date(assessed):
    a = assessed[0]
    assert scene_title(a, "flawed.tif") == "hsi sharpened by msi"
    assert scene_title(replace(a, images={}), "flawed.tif") == "flawed.tif"
    facts = {
        "LRHSI": replace(a.images["LRHSI"], sensor="EnMAP", acquired="2022-07-24"),
        "MSI": replace(a.images["MSI"], sensor="Sentinel-2A"),
    }
    assert scene_title(replace(a, images=facts), "x") == "EnMAP 2022-07-24 sharpened by Sentinel-2A"
    product = "EnMAP L2A, ENMAP01-____L2A-DT0000000000_20220724T160000Z_001"
    facts["LRHSI"] = replace(facts["LRHSI"], sensor=product, path=f"/data/{product.split(', ')[1]}")
    named = replace(a, images=facts)
    assert scene_title(named, "x") == "EnMAP L2A 2022-07-24 sharpened by Sentinel-2A"
    assert dict(header(named))["LRHSI"].count("ENMAP01") == 1
    assert len(scene_title(replace(a, images={}), "long" * 20)) <= 32
    tags = Outline(render_report([a])).tags
    assert [re.fullmatch(r"\d{4}-\d\d-\d\dT.*", attrs["datetime"]) for tag, attrs in tags if tag == "time"] != [None]


def test_the_paragraph_on_methods_cites_in_order_what_was_used(assessed):
    assert set(SOURCES) == set(METHODS)
    record = {"hsfuse": "0.1.0", "method": {"method": "srlf", "base": "cnmf"}, "parts": {"training": "9 steps"}}
    text, references = methods_paragraph(replace(assessed[0], provenance=record))
    cited = [int(n) for group in re.findall(r"\[([\d, ]+)\]", text) for n in group.split(", ")]
    assert list(dict.fromkeys(cited)) == list(range(1, len(references) + 1))
    assert "by the method cnmf [2], corrected by SRLF-Net [3] trained on the scene." in text
    assert "Yokoya" in references[1]
    assert "the hyperspectral image hsi.tif (12 × 12 pixels, GSD 40 m)" in text
    assert f"PSNR {assessed[0].metrics['psnr']:.2f} dB, Spectral angle" in text
    bare, _ = methods_paragraph(Assessment("f.tif", (3, 4, 5), {}))
    assert bare.startswith("A cube of 3 bands and 4 × 5 pixels was fused.")


TAUGHT = "corrected by a linear regression that the scene itself teaches at reduced resolution"


@pytest.mark.parametrize(
    ("parts", "told"),
    [
        (None, "."),
        ({}, "."),
        ({"scene regression": ""}, f", {TAUGHT}."),
        ({"scene regression": "", "weights": "any-4"}, f", {TAUGHT} and by SRLF-Net [6] with the weights any-4."),
        ({"training": "40 steps"}, ", corrected by SRLF-Net [6] trained on the scene."),
        (
            {"weights": "a", "training": "9 steps"},
            ", corrected by SRLF-Net [6] with the weights a, trained on the scene.",
        ),
    ],
)
def test_the_paragraph_on_methods_names_only_what_had_a_part(parts, told):
    method = {"method": "srlf", "base": "blend", "consistency": "off", "scene regression": "used", "weights": "any-4"}
    record = {"hsfuse": "0.1.0", "method": method, "scan": "compiled", "parts": parts}
    text, references = methods_paragraph(Assessment("f.tif", (3, 4, 5), {}, provenance=record))
    assert f"by the method blend [2, 3, 4, 5]{told}" in text
    assert any("re-learning" in one for one in references) == ("SRLF-Net" in told)


def test_the_paragraph_on_methods_names_what_was_corrected():
    made = [
        note("stripes-are-ground", along="rows"),
        note("stripes-taken-out", along="columns", bands=1, count=2, share=0.1),
        note("smile-taken-out", low=400, high=900, nm=3.04, sd_nm=0.1, blur=""),
        note("detail-by-msi", share=0.01),
        note("detectors-together", low=1003, high=2400, down=0.2, right=-0.1, down_sd=0.03, right_sd=0.03),
        note("tone-taken-out", curves="B2: a gamma of 1.2"),
        note("haze-taken-out", share=0.2, size=0.1),
        note("radiometry-matched", taken_out="B2: gain 1.1"),
    ]
    record = {
        "records": records(made),
        "registration": {"corrected": True, "amounts": "a mean shift of 0.50 LR pixels"},
    }
    text, _ = methods_paragraph(Assessment("f.tif", (3, 4, 5), {}, provenance=record))
    assert (
        "Before the fusion was corrected: the place of the hyperspectral image (a mean shift of 0.50 LR pixels); "
        "stripes along the columns of the hyperspectral image; a smile of the hyperspectral image (band centres that "
        "differ by up to 3.0 nm); fine detail of the hyperspectral image that resampling moves wrongly, by the "
        "multispectral image; the place of the hyperspectral image's bands of 1003 to 2400 nm against its others "
        "(+0.20 and -0.10 of its pixels down and right); tone curves of the multispectral image (B2: a gamma of 1.2); "
        "smooth light, as of thin cloud, that one of both images has alone; the radiometry of the multispectral image "
        "(B2: gain 1.1)."
    ) in text
    record = {"records": records(made[:1]), "registration": {"corrected": False, "amounts": "a mean shift"}}
    assert "corrected" not in methods_paragraph(Assessment("f.tif", (3, 4, 5), {}, provenance=record))[0]


def test_places_are_those_of_the_map():
    turned = Affine.translation(600000, 5000000) @ Affine.rotation(20) @ Affine.scale(30, -30)
    for crs in ("EPSG:32633", "EPSG:4326"):
        grid = Grid(
            (2000, 3000), turned if crs != "EPSG:4326" else Affine(0.001, 0, 179.5, 0, -0.001, 10), CRS.from_string(crs)
        )
        told = place(grid)
        nodes = told["lonlat"]
        rows, cols = np.array([13.5, 1999, 777]), np.array([2900.5, 1, 1500])
        found = [
            RegularGridInterpolator((nodes["rows"], nodes["cols"]), np.reshape(nodes[k], (25, 25)))((rows, cols))
            for k in ("lon", "lat")
        ]
        x, y = grid.transform @ np.array([cols, rows])
        lon, lat = transform(crs, "EPSG:4326", x, y)
        np.testing.assert_allclose((found[0] - lon + 180) % 360 - 180, 0, atol=1e-5)
        np.testing.assert_allclose(found[1], lat, atol=1e-5)
        assert told["transform"] == pytest.approx(list(grid.transform)[:6])
    assert (place(Grid((3, 4))), place(Grid((3, 4), turned))["lonlat"]) == (None, None)

"""The report in a real browser: nothing complains, what is clicked and typed has an effect, print and dark mode hold.

The page is opened by a headless Chromium or Chrome, with a script at its end that does what a reader would; the page as
it is then is read back. Skipped where there is no such browser.
"""

import json
import os
import re
import shutil
import subprocess
import threading
from dataclasses import replace
from queue import SimpleQueue

import numpy as np
import pytest
from assessed_scene import SCALE, make_scene, write_cube
from rasterio.warp import transform

from hsfuse.assessment import assess
from hsfuse.assessment.report import render_report
from hsfuse.assessment.report.figures import map_limits
from hsfuse.assessment.report.serve import CubeView, serve
from hsfuse.assessment.result import Curve
from hsfuse.assessment.wald import assess_wald
from hsfuse.fusion import fuse
from hsfuse.io import open_cube

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
BROWSER = next((found for name in NAMES if (found := shutil.which(name))), None)
pytestmark = pytest.mark.skipif(BROWSER is None, reason=f"none of {', '.join(NAMES)} on the path")

QUIET = (
    "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
    "--disable-quic", "--disable-component-update", "--disable-sync", "--enable-logging=stderr",
)  # fmt: skip
#: Helpers of the scripts: what is found goes into an attribute, which the read page shows.
HELPERS = """
const one = (what) => document.querySelector(what);
const note = (name, value) => document.body.setAttribute(`data-${name}`, value);
const press = (node, key) => node.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true }));
const at = (node, x, y) => {
  const b = node.getBoundingClientRect();
  node.dispatchEvent(new MouseEvent("click", { clientX: b.left + x * b.width, clientY: b.top + y * b.height }));
};
"""


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """Reports of one cube with everything there can be, and of two cubes."""
    scene = make_scene(tmp_path_factory.mktemp("scene"), 96)
    fuse(**scene.observed, output=scene.path("sfim.tif"), method="sfim", qa=scene.path("qa.tif"))
    curve = [0.03, 0.02, 0.01]
    stages = [{"name": n, "error": e, "angle": e, "seconds": 1.5} for n, e in (("base", 1.0), ("network", 0.8))]
    record = {
        "scale": SCALE, "seconds": {"fit": 1.25, "write": 2.0}, "method": {"method": "sfim"},
        "adaptation": {"steps": [0, 50, 100], "train_loss": curve, "held_out": curve, "gain": 0.2, "stages": stages},
    }  # fmt: skip
    rng = np.random.default_rng(0)
    flawed = scene.truth * (1 + 0.1 * rng.standard_normal(scene.truth.shape)).astype(np.float32)
    write_cube(scene.path("flawed.tif"), flawed[:, :48, :48], provenance=json.dumps(record))
    write_cube(scene.path("part.tif"), 1.02 * scene.truth[:, :48, :48])
    whole = assess_wald(scene.path("sfim.tif"), hsi=scene.path("hsi.tif"), msi=scene.path("msi.tif"),
                        reference=scene.path("truth.tif"), qa=scene.path("qa.tif"), window=4)  # fmt: skip
    two = [assess(scene.path(f), reference=scene.path("truth.tif"), window=8) for f in ("flawed.tif", "part.tif")]
    return {"one": (render_report([whole]), whole), "two": (render_report(two), two)}


def opened(page, folder, script="", *options, what="--dump-dom"):
    """The page as it is after the script, once the browser had nothing to complain about."""
    file = folder / "report.html"
    file.write_text(scripted(page, script), encoding="utf-8")
    return browsed(file.as_uri(), folder, *options, what)


def scripted(page, script):
    return page.replace("</body>", f"<script>{{{HELPERS}{script}}}</script></body>")


def browsed(address, folder, *options):
    command = [BROWSER, *QUIET, f"--user-data-dir={folder / 'profile'}", *options, address]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert "CONSOLE" not in done.stderr, [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    return done.stdout


def noted(page):
    return dict(re.findall(r'data-(\w+)="([^"]*)"', re.search(r"<body[^>]*>", page)[0]))


def test_a_script_with_an_error_would_be_noticed(pages, tmp_path):
    with pytest.raises(AssertionError, match="CONSOLE"):
        opened(pages["two"][0], tmp_path, "absent();")


def test_a_click_shows_the_spectra_there(pages, tmp_path):
    page, a = pages["one"]
    script = """
note("before", one(".where").textContent); note("lines", one(".plot").querySelectorAll("path").length);
at(one(".picker"), 0.999, 0.999); note("after", one(".where").textContent);
press(one(".picker"), "ArrowLeft"); note("left", one(".where").textContent);
one(".points button").click(); note("chosen", one(".points button").getAttribute("aria-pressed"));
"""
    found = noted(opened(page, tmp_path, script))
    rows, cols = a.spectra.rows, a.spectra.cols
    assert found["before"].startswith("Point A")
    assert int(found["lines"]) >= 3  # reference, LRHSI and fused; the MSI has marks
    assert found["after"].startswith(f"Point row {rows.max()}, column {cols.max()}. x 600")
    assert " N, " in found["after"]  # and its latitude and longitude
    assert re.search(r"Error against the reference [\d.e-]+ reflectance\. ", found["after"])
    assert found["left"].startswith(f"Point row {rows.max()}, column {np.unique(cols)[-2]}.")
    assert found["chosen"] == "true"


def test_the_cursor_tells_place_and_value(pages, tmp_path):
    page, a = pages["one"]
    script = """
const over = (node, x, y) => {
  const b = node.getBoundingClientRect(), place = { clientX: b.left + x * b.width, clientY: b.top + y * b.height };
  node.dispatchEvent(new PointerEvent("pointermove", place));
  return one(".tip").textContent;
};
one('[data-map="0"] img').decode().then(() => {
  note("map", over(one('[data-map="0"] img'), 20.5 / 96, 70.5 / 96));
  note("stage", over(one(".stage"), 90.5 / 96, 5.5 / 96));
  one(".stage").dispatchEvent(new PointerEvent("pointerleave")); note("gone", one(".tip").hidden);
});
"""
    found = noted(opened(page, tmp_path, script, "--virtual-time-budget=1000"))
    place, coordinates, degrees, value = found["map"].split("\n")
    assert (place, coordinates) == ("row 70, column 20", "x 600205, y 4999295 m, EPSG:32633")
    lon, lat = transform("EPSG:32633", "EPSG:4326", [600205], [4999295])
    assert degrees == f"{lat[0]:.6f}° N, {lon[0]:.6f}° E"
    told, step = float(value.split()[-2]), map_limits([a])["rmse"][1] / 254
    assert told == pytest.approx(a.maps[0].values[70, 20], abs=0.51 * step + 0.005 * told)
    assert re.search(r"^fused: \d+ nm [≤≥ ]*0\.\d+, \d+ nm", found["stage"].split("\n")[-1])
    assert found["gone"] == "true"


def test_charts_and_spectra_are_saved_as_csv(pages, tmp_path):
    page, a = pages["one"]
    script = """
const texts = [], names = [];
window.Blob = class { constructor(parts) { texts.push(parts.join("")); } };
URL.createObjectURL = () => "#";
HTMLAnchorElement.prototype.click = function () { names.push(this.download); };
note("charts", document.querySelectorAll(".chart").length - document.querySelectorAll(".chart .csv").length);
one(".curves .csv").click(); one(".plot .csv").click(); one(".histogram .csv").click(); one(".points .csv").click();
note("names", names.join());
const lines = texts.map((t) => t.trim().split("\\r\\n"));
note("csv", lines.slice(0, 3).map((l) => l.join("~")).join("|")); note("points", lines[3].length);
"""
    found = noted(opened(page, tmp_path, script))
    curve, spectrum, histogram = (part.split("~") for part in found["csv"].split("|"))
    assert found["charts"] == "0"
    assert found["names"].split(",")[0] == "sfim-PSNR.csv"
    psnr = next(c for c in a.curves if c.name == "psnr")
    assert [float(line.split(",")[1]) for line in curve[1:]] == pytest.approx(psnr.values, rel=1e-5)
    assert spectrum[0] == "&quot;wavelength, nm&quot;,reference,LRHSI,fused,MSI"
    assert len(spectrum) == 1 + 24 + 4
    assert sum(int(line.split(",")[2]) for line in histogram[1:]) == 96 * 96
    assert int(found["points"]) == 1 + 4 * a.spectra.rows.size


def test_with_its_server_any_pixel_and_any_bands_are_shown(pages, tmp_path):
    cube = pages["one"][1].fused
    script = """
const click = (text) => [...document.querySelectorAll(".live button")].find((b) => b.textContent === text).click();
const set = (what, value) => { what.value = value; what.dispatchEvent(new Event("change")); };
const soon = (act) => new Promise((done) => setTimeout(() => done(act()), 3000));
(async () => {
  await soon(() => at(one(".picker"), 30.5 / 96, 41.5 / 96));
  await soon(() => { note("clicked", one(".where").textContent); press(one(".picker"), "ArrowDown"); });
  await soon(() => { note("moved", one(".where").textContent); click("Nearer"); set(one(".live select"), 23); });
  await soon(() => { note("near", one(".picker img").naturalWidth); note("alt", one(".picker img").alt); });
  at(one(".picker"), 0, 0);
  await soon(() => note("corner", one(".where").textContent));
})();
"""
    with open_cube(cube, role="raster") as reader:
        view, found = CubeView(reader), SimpleQueue()
        view.page = scripted(view.page, script)
        threading.Thread(target=serve, args=(view, 0, found.put), daemon=True).start()
        told = noted(browsed(found.get(timeout=20), tmp_path, "--virtual-time-budget=20000", "--dump-dom"))
    assert told["clicked"].startswith("Pixel row 41, column 30. x 600305, y 4999585 m")
    assert told["moved"].startswith("Pixel row 42, column 30.")
    assert told["near"] == "48"
    assert told["alt"].startswith("Fused cube, red 1000 nm")
    assert told["corner"].startswith("Pixel row 18, column 6.")


def test_a_link_unfolds_its_part(pages, tmp_path):
    script = """
const link = one('.contents a[href$="-prov"]'), part = document.getElementById(link.hash.slice(1)).closest("details");
note("before", part.open); link.click(); setTimeout(() => note("after", part.open), 50);
dispatchEvent(new Event("beforeprint")); note("printed", document.querySelectorAll("details:not([open])").length);
"""
    found = noted(opened(pages["one"][0], tmp_path, script, "--virtual-time-budget=1000"))
    assert (found["before"], found["after"], found["printed"]) == ("false", "true", "0")


def test_pictures_change_with_what_is_picked_and_flicker(pages, tmp_path):
    script = """
const cut = () => one(".stage").style.getPropertyValue("--cut");
const pick = (what, value) => { one(what).value = value; one(what).dispatchEvent(new Event("change")); };
pick(".pick-left", "reference"); pick(".pick-kind", "near infrared"); note("alt", one(".stage .left").alt);
one(".wipe").value = 20; one(".wipe").dispatchEvent(new Event("input")); note("wiped", cut());
one(".flicker").click(); note("pressed", one(".flicker").getAttribute("aria-pressed"));
setTimeout(() => { note("turned", cut()); one(".flicker").click(); note("still", cut()); }, 1000);
"""
    found = noted(opened(pages["one"][0], tmp_path, script, "--virtual-time-budget=3000"))
    assert found["alt"] == "reference, near infrared"
    assert (found["wiped"], found["still"]) == ("20%", "20%")
    assert found["pressed"] == "true"
    assert found["turned"] in ("0%", "100%")


def test_everything_that_is_known_is_drawn(pages, tmp_path):
    script = """
note("empty", [...document.querySelectorAll(".chart")].filter((c) => !c.querySelector("svg")).length);
note("charts", document.querySelectorAll(".chart svg[role=img]").length);
note("wide", document.documentElement.scrollWidth - document.documentElement.clientWidth);
note("broken", [...document.images].filter((i) => !i.naturalWidth).length);
const named = (n) => n.textContent.trim() || n.getAttribute("aria-label") || n.labels?.length;
note("unnamed", [...document.querySelectorAll("button, select, input, svg[role=img]")].filter((n) => !named(n)).length);
"""
    for name in ("one", "two"):
        found = noted(opened(pages[name][0], tmp_path, script))
        assert int(found["charts"]) > 8
        assert found["empty"] == found["broken"] == found["unnamed"] == "0"
        assert int(found["wide"]) <= 0
    one, two = (pages[name][0] for name in ("one", "two"))
    assert "At reduced resolution" in one
    assert "Do the two images lie on each other?" in one
    assert "rank correlation" in one
    assert "What each stage brought" in two
    assert "80.0%" in two


def test_each_detector_has_a_line_and_what_leaves_the_frame_a_sign(pages, tmp_path):
    nm = np.array([*range(500, 1000, 10), *range(900, 1300, 10), *range(2000, 2100, 10)], float)
    values = np.where(nm == 1250, 900.0, 40 + np.sin(nm))
    curve = Curve("psnr", "psnr", "PSNR", "dB", nm, values)
    two = pages["two"][1][0]
    script = """
const chart = one(".curves svg"), frame = chart.querySelector("clipPath rect").getBBox();
note("lines", chart.querySelector("g path").getAttribute("d").split("M").length - 1);
note("heads", chart.querySelectorAll(".goes-on").length);
note("told", chart.querySelector(".goes-on title").textContent);
note("clipped", chart.querySelector("g").getAttribute("clip-path").startsWith("url(#"));
const labels = [...chart.querySelectorAll("text")].map((t) => +t.textContent).filter((v) => v && v < 500);
note("top", Math.max(...labels)); note("inside", frame.y >= 10);
"""
    for turned in (slice(None), slice(None, None, -1)):
        turn = replace(curve, wavelengths_nm=nm[turned], values=values[turned])
        found = noted(opened(render_report([replace(two, curves=(turn,))]), tmp_path, script))
        assert int(found["lines"]) == 3
        assert (found["heads"], found["told"]) == ("1", "goes on to 900")
        assert (found["clipped"], found["inside"]) == ("true", "true")
        assert float(found["top"]) < 50


def test_a_lettered_point_is_marked_once(pages, tmp_path):
    script = """
note("ring", one(".mark.here").hidden); note("letters", document.querySelectorAll(".mark.chosen").length);
at(one(".picker"), 0.99, 0.01); note("else", one(".mark.here").hidden);
note("left", document.querySelectorAll(".mark.chosen").length);
"""
    found = noted(opened(pages["one"][0], tmp_path, script))
    assert (found["ring"], found["letters"]) == ("true", "1")
    assert (found["else"], found["left"]) in (("false", "0"), ("true", "1"))


def test_a_phone_is_wide_enough(pages, tmp_path):
    script = 'note("wide", document.documentElement.scrollWidth - document.documentElement.clientWidth);'
    found = noted(opened(pages["one"][0], tmp_path, script, "--window-size=500,900"))
    assert int(found["wide"]) <= 0


def test_dark_mode_has_other_colours(pages, tmp_path):
    script = 'note("paper", getComputedStyle(document.body).backgroundColor);'
    light = noted(opened(pages["two"][0], tmp_path, script))["paper"]
    dark = noted(opened(pages["two"][0], tmp_path, script, "--force-dark-mode"))["paper"]
    assert sum(map(int, re.findall(r"\d+", light))) > 600
    assert sum(map(int, re.findall(r"\d+", dark))) < 150


def test_it_prints(pages, tmp_path):
    pdf = tmp_path / "r.pdf"
    opened(pages["one"][0], tmp_path, "", f"--print-to-pdf={pdf}", what="--no-pdf-header-footer")
    assert pdf.read_bytes().startswith(b"%PDF")
    assert os.path.getsize(pdf) > 50_000
    assert "@media screen and (max-width" in pages["one"][0]  # paper is no phone, narrow as it is

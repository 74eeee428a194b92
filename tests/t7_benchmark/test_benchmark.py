"""The benchmark: what it runs, what it keeps, and what it makes of failures. Cases are tiny; one is a real process."""

import csv
import json
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest
from benchmark_scene import SENSOR, reference, run_here
from rasters import write_tif

import hsfuse.benchmark.run as run_module
import hsfuse.nets.weights as model_zoo
from hsfuse.benchmark import BenchmarkConfig, Method, parse_config, render, run_benchmark, text_tables
from hsfuse.benchmark.page import render_page, scatter
from hsfuse.benchmark.process import CaseError, run_hsfuse
from hsfuse.benchmark.reference import reference_file
from hsfuse.benchmark.results import Outcome, ResultFile, Row
from hsfuse.benchmark.table import cells
from hsfuse.core.errors import InputError, OutputError, SettingError
from hsfuse.io import open_cube
from hsfuse.nets.srlf import SRLFConfig, SRLFNet
from hsfuse.nets.weights import ModelCard, save_checkpoint


def settings(**changes):
    plain = {"methods": ["bicubic", "gsa"], "scenes": ["scene.tif"], "sensors": [SENSOR], "noise": [[35, 40]]}
    return {**plain, **changes}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("benchmark")
    reference(made)
    return made


@pytest.fixture(scope="module")
def config(folder):
    broken = {"method": "srlf", "label": "broken", "model": "nowhere.safetensors"}
    return parse_config(settings(methods=["bicubic", broken, "gsa"]), folder=folder)


@pytest.fixture(scope="module")
def result(config, folder):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run_module, "run_hsfuse", run_here)
        return run_benchmark(config, folder / "out", command="hsfuse benchmark <x>")


def without_processes(monkeypatch):
    def refuse(*arguments):
        raise AssertionError("a case was run")

    monkeypatch.setattr(run_module, "run_hsfuse", refuse)


# Runs


def test_methods_are_rows_with_figures(result):
    rows = {row.case.method.label: row for row in result.rows}
    assert list(rows) == ["bicubic", "broken", "gsa"]
    assert rows["gsa"].value("psnr") > rows["bicubic"].value("psnr") + 3
    assert rows["gsa"].outcome.device in ("cpu", "cuda")
    assert set(rows["gsa"].outcome.seconds) == {"fit", "fuse", "wall", "cpu"}


def test_a_failure_is_a_row_and_not_the_end(result):
    (failed,) = result.failed
    assert failed.case.method.label == "broken"
    assert failed.outcome.error.endswith("no such checkpoint")
    assert result.rows[-1].outcome.error is None  # what came after it


def test_outputs_say_the_same(result, folder):
    lines = list(csv.DictReader((folder / "out" / "results.csv").open()))
    assert [line["method"] for line in lines] == ["bicubic", "broken", "gsa"]
    assert float(lines[2]["psnr"]) == pytest.approx(result.rows[2].value("psnr"), rel=1e-6)
    entries = [json.loads(line) for line in (folder / "out" / "results.jsonl").read_text().splitlines()]
    assert [entry["key"] for entry in entries] == [row.case.key for row in result.rows]
    assert not (folder / "out" / "work").exists()


def test_what_is_done_is_not_run_again_but_failures_are(result, config, folder, monkeypatch):
    without_processes(monkeypatch)
    again = run_benchmark(config, folder / "out")
    assert [row.outcome for row in again.rows if row.case.method.label != "broken"] == [
        row.outcome for row in result.rows if row.case.method.label != "broken"
    ]
    assert "a case was run" in again.failed[0].outcome.error


def test_a_case_is_a_process_of_its_own(result, folder):
    chosen = parse_config(settings(methods=["gsa"]), folder=folder)
    (row,) = run_benchmark(chosen, folder / "alone").rows
    assert row.outcome.metrics == pytest.approx(result.rows[2].outcome.metrics)
    assert row.outcome.seconds["wall"] > 0.5
    assert row.outcome.seconds["cpu"] > 0.5  # Python and torch start up
    assert row.outcome.peak_mib > 100


def test_same_seed_same_figures_other_seed_others(result, folder, monkeypatch):
    monkeypatch.setattr(run_module, "run_hsfuse", run_here)

    def figures(**changes):
        chosen = parse_config(settings(**changes), folder=folder)
        rows = run_benchmark(chosen, folder / f"again{len(changes)}", fresh=True).rows
        return [row.outcome.metrics for row in rows]

    first = [row.outcome.metrics for row in result.rows if row.outcome.error is None]
    assert figures(methods=["gsa"]) == first[1:]  # exactly: the same arithmetic on the same machine
    assert figures(seed=1, methods=["gsa"])[0] != first[1]


def test_memory_is_the_case_and_not_its_caller(tmp_path):
    ballast = np.ones(2**26)  # 512 MiB in this process
    small = run_hsfuse(["srf", "list", "--json"], tmp_path) if ballast[0] else None
    assert 5 < small.peak_mib < 300


def test_the_end_of_a_process_becomes_one_line(tmp_path, monkeypatch):
    with pytest.raises(CaseError, match=r"No spectral response is called 'nothing'"):
        run_hsfuse(["srf", "show", "nothing", "--json"], tmp_path)
    stand_in(tmp_path, "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CaseError, match=r"^ended by SIGKILL; perhaps memory ran out$"):
        run_hsfuse([], tmp_path)


def test_an_interrupted_case_leaves_no_process(tmp_path):
    stand_in(tmp_path, "import os, time, pathlib\npathlib.Path('pid').write_text(str(os.getpid()))\ntime.sleep(60)\n")
    listen = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"  # ignored in the background
    code = (
        f"{listen}\nimport pathlib\nfrom hsfuse.benchmark.process import run_hsfuse\nrun_hsfuse([], pathlib.Path('.'))"
    )
    script = tmp_path / "elsewhere"
    script.mkdir()
    (script / "caller.py").write_text(code)
    outer = subprocess.Popen([sys.executable, str(script / "caller.py")], cwd=tmp_path, stderr=subprocess.PIPE)
    pid = wait_for(tmp_path / "pid")
    outer.send_signal(signal.SIGINT)
    outer.communicate(timeout=30)
    assert not alive(pid)


def stand_in(folder, body):
    """A package of hsfuse's name, which is run in its place where `folder` is the working directory."""
    (folder / "hsfuse").mkdir()
    (folder / "hsfuse" / "__init__.py").touch()
    (folder / "hsfuse" / "__main__.py").write_text(body)


def wait_for(file):
    for _ in range(600):
        if file.exists() and file.read_text():
            return int(file.read_text())
        time.sleep(0.05)
    raise AssertionError(f"{file} never came")


def alive(pid):
    """Whether a process is there and no zombie."""
    done = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False)
    return done.stdout.strip()[:1] not in ("", "Z")


# What a case is


def test_keys_follow_everything_that_matters(folder):
    case = parse_config(settings(), folder=folder).cases[0]
    others = [
        replace(case, seed=1),
        replace(case, ratio=2),
        replace(case, device="cpu"),
        replace(case, noise=replace(case.noise, snr_hsi=30.0)),
        replace(case, psf=replace(case.psf, sigma=0.4)),
        replace(case, sensor=replace(case.sensor, msi_bands=("B2",))),
        replace(case, scene=replace(case.scene, window=(0, 0, 16, 16))),
        replace(case, method=Method("bicubic", "bicubic", (("tile", 64),))),
    ]
    assert len({case.key, *(other.key for other in others)}) == len(others) + 1
    renamed = replace(case, scene=replace(case.scene, name="x"), method=Method("bicubic", "x"))
    assert renamed.key == case.key
    assert replace(case, method=Method("gsa", "gsa")).pair_key == case.pair_key


def test_another_file_of_the_same_name_is_another_case(tmp_path):
    file = reference(tmp_path)
    case = parse_config(settings(), folder=tmp_path).cases[0]
    before = case.key
    reference(tmp_path, side=28)
    assert file.exists()
    assert case.key != before


@pytest.fixture
def models(tmp_path, monkeypatch):
    """A collection of weights; called, it adds some."""

    def add(name, scale, kind="any-sensor"):
        config = SRLFConfig(8, 8, scale, stages=1, expand=1)
        save_checkpoint(tmp_path / name, ModelCard(name, config, scale, kind=kind), dict(SRLFNet(config).state_dict()))

    monkeypatch.setattr(model_zoo, "data_folder", lambda name: tmp_path)
    for name, scale, kind in (("any-x4", 4, "any-sensor"), ("any-x8", 8, "any-sensor"), ("cave-x4", 4, "bands")):
        add(f"{name}.safetensors", scale, kind)
    return add


@pytest.mark.parametrize(
    ("method", "uses", "ignores"),
    [
        (Method("srlf", "a"), "any-x4", "any-x8"),
        (Method("srlf-any", "a"), "any-x4", "cave-x4"),
        (Method("srlf-bands", "a"), "cave-x4", "any-x4"),
        (Method("srlf", "a", (("model", "any-x8"),)), "any-x8", "any-x4"),
        (Method("srlf", "a", (("model", "none"),)), None, "any-x4"),
        (Method("gsa", "a"), None, "any-x4"),
    ],
)
def test_keys_follow_the_weights_that_are_used_and_no_others(folder, models, method, uses, ignores):
    case = replace(parse_config(settings(), folder=folder).cases[0], method=method)
    keys = [case.key]
    models(f"{ignores}.safetensors", 8 if ignores == "any-x8" else 4, "bands" if "cave" in ignores else "any-sensor")
    keys.append(case.key)
    if uses:
        models(f"{uses}.safetensors", 8 if uses == "any-x8" else 4, "bands" if "cave" in uses else "any-sensor")
        assert case.key != keys[0]
    assert keys[0] == keys[1]


def test_keys_follow_every_file_of_a_folder_and_the_data_of_an_envi_header(folder, tmp_path):
    case = parse_config(settings(), folder=folder).cases[0]
    cube = tmp_path / "scene"
    (cube / "deeper").mkdir(parents=True)
    header, data = tmp_path / "x.hdr", tmp_path / "x.dat"
    for file in (cube / "deeper" / "band_01.png", cube / "band_02.png", data, header):
        file.write_bytes(b"ENVI 1")
    for path, inner in ((cube, cube / "deeper" / "band_01.png"), (header, data), (data, header)):
        own = replace(case, scene=replace(case.scene, reference=path))
        before = own.key
        assert own.key == before
        inner.write_bytes(b"ENVI other")
        assert own.key != before


def test_a_line_cut_short_costs_only_itself(config, tmp_path):
    path = tmp_path / "results.jsonl"
    first, second = config.cases[0], config.cases[2]
    ResultFile(path, fresh=True).add(first, Outcome({"psnr": 40.0}, {"fit": 1.0, "fuse": 1.0}))
    path.write_text(path.read_text() + '{"key": "' + second.key)
    again = ResultFile(path, fresh=False)
    assert (again.done(first), again.done(second)) == (True, False)
    again.add(second, Outcome({"psnr": 41.0}))
    assert ResultFile(path, fresh=False).done(second)


# Configuration


def test_axes_are_crossed_and_a_scene_may_have_its_own(folder):
    own = {"reference": "scene.tif", "name": "own", "scales": [2], "sensors": ["nikon_d700"]}
    table = settings(scenes=["scene.tif", own], scales=[4, 8], noise=["none", [35, "none"]], psf=[{"sigma": 0.5}])
    cases = parse_config(table, folder=folder).cases
    assert len(cases) == 2 * (2 * 2) + 2 * 2
    assert {(c.ratio, c.sensor.srf) for c in cases if c.scene.name == "own"} == {(2, "nikon_d700")}
    assert cases[0].psf.settings(4) == {"psf_sigma": 2.0}
    assert {c.noise.text for c in cases} == {"no noise", "SNR HSI 35, MSI none dB"}
    changed = parse_config(table, {"scales": [4], "methods": ["gsa"]}, folder=folder).cases
    assert {(c.ratio, c.method.name) for c in changed} == {(4, "gsa")}


def test_methods_are_chosen_by_label_then_name(folder):
    labelled = {"method": "srlf", "label": "net", "adapt_minutes": 0.5, "base": "gsa"}
    table = settings(methods=["bicubic", labelled])
    (case,) = parse_config(table, {"methods": ["net"]}, folder=folder).cases
    assert case.method.arguments() == ["--method", "srlf", "--base", "gsa", "--adapt-minutes", "0.5"]
    assert parse_config(table, {"methods": ["srlf"]}, folder=folder).cases == (case,)


def test_stages_of_srlf_can_be_rows(folder, tmp_path):
    plain = {"method": "srlf", "model": "auto", "consistency": "off", "adapt": "off", "base": "gsa"}
    scratch = {"method": "srlf", "model": "none", "adapt_minutes": 2}
    first, second = parse_config(settings(methods=[plain, scratch]), folder=folder).cases
    assert first.method.label == "srlf, base gsa, model auto, adapt off, consistency off"
    arguments = ["--method", "srlf", "--base", "gsa", "--model", "auto", "--adapt", "off", "--consistency", "off"]
    assert first.method.arguments() == arguments
    assert second.method.arguments() == ["--method", "srlf", "--model", "none", "--adapt-minutes", "2"]
    for command in (arguments, second.method.arguments()):  # `hsfuse fuse` knows them: what it misses is the file
        files = ["--hsi", str(tmp_path / "no.tif"), "--msi", str(tmp_path / "no.tif"), "-o", str(tmp_path / "o.tif")]
        with pytest.raises(CaseError, match=r"no\.tif"):
            run_hsfuse(["fuse", *files, *command], tmp_path)
    with pytest.raises(SettingError, match="unknown adapt 'none'; did you mean 'on'"):
        parse_config(settings(methods=[{"method": "srlf", "adapt": "none"}]), folder=folder)
    with pytest.raises(SettingError, match="unknown consistency 'of'; did you mean 'off'"):
        parse_config(settings(methods=[{"method": "srlf", "consistency": "of"}]), folder=folder)


def test_a_pattern_is_a_scene_for_each_file(tmp_path):
    for name in ("b.tif", "a.tif"):
        reference(tmp_path, name, 8)
    cases = parse_config(settings(scenes=["*.tif"], methods=["gsa"]), folder=tmp_path).cases
    assert [c.scene.name for c in cases] == ["a", "b"]
    with pytest.raises(SettingError, match="2 files, which can't all be called 'x'"):
        parse_config(settings(scenes=[{"reference": "*.tif", "name": "x"}]), folder=tmp_path)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"method": ["gsa"]}, "unknown entry 'method'; did you mean 'methods'?"),
        ({"methods": ["gas"]}, "unknown method 'gas'; did you mean 'gsa'?"),
        ({"methods": []}, "methods is [], wanted a list with at least one entry"),
        ({"methods": ["gsa", "gsa"]}, "two methods are called 'gsa'"),
        ({"methods": [{"label": "x"}]}, "has no `method`"),
        ({"methods": [{"method": "srlf", "bas": "gsa"}]}, "unknown option of a method 'bas'; did you mean 'base'?"),
        ({"scenes": []}, "scenes is [], wanted a list"),
        ({"scenes": ["gone.tif"]}, "there is no reference"),
        ({"scenes": [{"reference": "scene.tif", "windw": [0]}]}, "did you mean 'window'?"),
        ({"scenes": [{"reference": "scene.tif", "window": [0, 0, 8]}]}, "wanted 4 numbers"),
        ({"scenes": ["scene.tif", "scene.tif"], "scales": []}, "ratios is []"),
        ({"scales": [1]}, "ratio is 1, wanted a whole number of at least 2"),
        ({"scales": [4.0]}, "ratio is 4.0"),
        ({"noise": [35]}, "noise 35 is neither"),
        ({"noise": [[35, 0]]}, "an SNR is 0, wanted a number above 0"),
        ({"psf": [{"mtf": 0.3, "sigma": 1.0}]}, "has not one of mtf and sigma"),
        ({"sensors": [{"msi_bands": ["B2"]}]}, "a sensor has no `srf`"),
        ({"seed": -1}, "seed is -1"),
        ({"device": "gpu"}, "unknown device 'gpu'"),
    ],
)
def test_what_does_not_fit_is_told_in_one_line(folder, changes, words):
    with pytest.raises(SettingError) as error:
        parse_config(settings(**changes), where="x.toml", folder=folder)
    assert str(error.value).startswith("x.toml: ")
    assert words in str(error.value)
    assert "\n" not in str(error.value)


def test_an_unknown_sensor_or_band_is_told(folder):
    for sensor, words in (("sentinel9", "sentinel9"), ({"srf": "sentinel2a", "msi_bands": ["B99"]}, "B99")):
        with pytest.raises(InputError, match=words):
            parse_config(settings(sensors=[sensor]), folder=folder)


# References


def test_a_reference_is_cut_and_scaled(folder, tmp_path):
    scene = parse_config(settings(), folder=folder).cases[0].scene
    assert reference_file(scene, tmp_path) == scene.reference
    with open_cube(scene.reference) as reader:
        whole = reader.read().data
    cut = replace(scene, window=(4, 8, 12, 16), value_scale="maximum", wavelengths_nm=(400.0, 780.0))
    with open_cube(reference_file(cut, tmp_path)) as reader:
        data, nm = reader.read().data, reader.spectrum.wavelengths_nm
    part = whole[:, 4:16, 8:24]
    np.testing.assert_allclose(data, part / part.max(), rtol=1e-6)
    np.testing.assert_allclose(nm, np.linspace(400, 780, 20), atol=0.01)
    with pytest.raises(InputError, match="isn't inside"):
        reference_file(replace(scene, window=(0, 0, 64, 8)), tmp_path)


@pytest.mark.parametrize("ending", ["tif", "npz"])
def test_fill_in_a_reference_is_masked_or_refused(folder, tmp_path, caplog, ending):
    scene = parse_config(settings(), folder=folder).cases[0].scene
    with open_cube(scene.reference) as reader:
        cube = reader.read()
    filled = cube.with_data(np.where(np.arange(cube.data.shape[2]) < 4, np.float32(-9999), cube.data))
    path = tmp_path / f"filled.{ending}"
    np.savez(tmp_path / "filled.npz", cube=filled.data, wavelengths_nm=cube.wavelengths_nm)
    write_tif(tmp_path / "filled.tif", filled.data)
    cut = replace(scene, reference=path, window=(0, 0, 8, 12), wavelengths_nm=(400.0, 780.0))
    if ending == "npz":
        with pytest.raises(InputError, match=r"filled.npz: .* pixels hold -9999 in all bands"):
            reference_file(cut, tmp_path)
        return
    with open_cube(reference_file(cut, tmp_path)) as reader:
        np.testing.assert_array_equal(reader.read().mask.any(0), np.arange(12) >= 4)
    assert "masked as fill" in caplog.text


def test_an_array_is_a_reference_when_its_wavelengths_are_given(folder, tmp_path):
    np.savez(tmp_path / "cube.npz", cube=np.random.default_rng(0).random((16, 12, 20), dtype=np.float32))
    scene = replace(parse_config(settings(), folder=folder).cases[0].scene, reference=tmp_path / "cube.npz")
    with pytest.raises(InputError, match="has no wavelengths; give the scene `wavelengths_nm"):
        reference_file(scene, tmp_path)
    known = replace(scene, wavelengths_nm=(430.0, 940.0), window=(0, 0, 8, 12))
    with open_cube(reference_file(known, tmp_path)) as reader:
        assert (reader.count, reader.grid.shape) == (20, (8, 12))


# Tables and page


def made_up(config: BenchmarkConfig, figures):
    """Rows with these PSNRs, SAMs and times; a failure where there is no PSNR."""
    return [
        Row(case, Outcome({"psnr": p, "sam": a}, {"fit": t, "fuse": t}, 400.0, "cpu") if p else Outcome(error="no <b>"))
        for case, (p, a, t) in zip(config.cases, figures, strict=True)
    ]


@pytest.fixture(scope="module")
def rows(config):
    return made_up(config, [(40.0, 3.0, 0.1), (None, None, None), (42.0, 3.5, 0.4)])


def test_the_best_is_marked_by_its_direction(rows):
    marks = [[cell.best for cell in line[:2]] for line in cells(rows)]
    assert marks == [[False, True], [False, False], [True, False]]
    text = text_tables(rows)
    assert "42.00*" in text
    assert "3.000*" in text
    assert "broken failed: no <b>" in text
    assert "**42.00**" in render(rows)
    alone = cells(rows[:1])[0]
    assert not any(cell.best for cell in alone)


def test_page_is_whole_and_tells_how_it_was_made(rows, config):
    page = render_page(rows, config.source, "hsfuse benchmark <x>")
    assert "hsfuse benchmark &lt;x&gt;" in page
    assert "no &lt;b&gt;" in page
    assert "&#34;msi_bands&#34;" in page
    assert page.count("<svg") == page.count("</svg>") == 2
    assert "prefers-color-scheme: dark" in page
    assert not re.search(r"(src|href)=[\"'](?!#)|url\((?!#)|@import|<script", page)


def test_plot_puts_better_higher_and_slower_right():
    points = {"slow": (10.0, 42.0), "fast": (0.1, 40.0), "beaten": (2.0, 39.0)}
    for higher, order in ((True, ["slow", "fast", "beaten"]), (False, ["beaten", "fast", "slow"])):
        svg = scatter(points, list(points), "PSNR, dB", higher=higher)
        at = {
            name: re.search(rf'id="method {name}".*?<use [^>]*x="([\d.]+)" y="([\d.]+)"', svg, re.DOTALL).groups()
            for name in points
        }
        assert float(at["slow"][0]) > float(at["beaten"][0]) > float(at["fast"][0])
        assert float(at["slow"][1]) < float(at["fast"][1]) < float(at["beaten"][1])
        assert [name for name in re.findall(r">(\w+)</text>", svg) if name in points] == order
        front = re.search(r'id="front".*? d="([^"]*)"', svg, re.DOTALL)[1]
        assert front.count("L") == 1  # of two points: the third is beaten in both


# Folders


def test_foreign_files_are_left_alone(config, tmp_path):
    (tmp_path / "report.html").write_text("mine")
    with pytest.raises(OutputError, match="isn't a benchmark's"):
        run_benchmark(config, tmp_path)
    (tmp_path / "file").write_text("")
    for outdir, words in ((tmp_path / "file", "is a file"), (tmp_path / "a" / "b", "make it first")):
        with pytest.raises(OutputError, match=words):
            run_benchmark(config, outdir)


def test_a_pair_that_cannot_be_made_fails_all_its_methods(folder, tmp_path):
    scene = {"reference": "scene.tif", "window": [0, 0, 2, 2]}
    result = run_benchmark(parse_config(settings(scenes=[scene]), folder=folder), tmp_path / "out")
    assert [row.outcome.error for row in result.failed] == [
        "the reference has 2 x 2 pixels, too few for the ratio 4",
    ] * 2

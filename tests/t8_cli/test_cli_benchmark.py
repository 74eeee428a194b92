"""`hsfuse benchmark` as a command: options and configuration, what is printed, exit codes."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from benchmark_scene import SENSOR, reference, run_here
from click.testing import CliRunner

from hsfuse.benchmark import load_config
from hsfuse.cli import main

CONFIGS = Path(__file__).parents[2] / "examples" / "configs"


@pytest.fixture(autouse=True)
def cases_run_here(monkeypatch):
    monkeypatch.setattr("hsfuse.benchmark.run.run_hsfuse", run_here)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("benchmark")
    reference(made)
    (made / "small.toml").write_text(
        'methods = ["bicubic", { method = "srlf", label = "broken", model = "nowhere.safetensors" }]\n'
        f'scenes = ["scene.tif"]\nsensors = [{{ srf = "sentinel2a", msi_bands = {json.dumps(SENSOR["msi_bands"])} }}]\n'
    )
    return made


def run(*arguments, code=0):
    result = CliRunner().invoke(main, ["benchmark", *map(str, arguments)])
    assert result.exit_code == code, result.output
    assert "Traceback" not in result.stderr
    return result


def test_config_runs_resumes_and_says_what_failed(folder):
    out = folder / "out"
    first = run(folder / "small.toml", "-o", out, code=1)
    assert "scene, x4, sentinel2a B2 B3 B4 B8, no noise, MTF 0.3" in first.stdout
    assert "broken failed" in first.stdout
    assert "1 of 2 cases failed" in first.stderr
    assert str(out / "report.html") in first.stdout
    again = run(folder / "small.toml", "-o", out, "--methods", "bicubic", "--json")
    assert "1 of 1 cases are done already" in again.stderr
    told = json.loads(again.stdout)
    assert told["failed"] == 0
    assert told["rows"][0]["psnr"] > 20
    table = run(folder / "small.toml", "-o", out, "--methods", "bicubic", "--markdown").stdout
    assert table.startswith("**scene, x4")
    assert "| bicubic |" in table
    fresh = run(folder / "small.toml", "-o", out, "--methods", "broken", "--fresh", code=1)
    assert "done already" not in fresh.stderr


def test_options_alone_are_enough(folder):
    arguments = ["--reference", folder / "scene.tif", "--methods", "bicubic", "--srf", "sentinel2a", "--scales", "2"]
    noise = ["--snr-hsi", "35", "--snr-msi", "40", "--msi-bands", "B2,B3,B4,B8", "--seed", "3", "--mtf", "0.25"]
    told = json.loads(run(*arguments, *noise, "-o", folder / "alone", "--json").stdout)
    (row,) = told["rows"]
    wanted = {
        "scale": 2,
        "snr_hsi": 35,
        "snr_msi": 40,
        "seed": 3,
        "mtf": 0.25,
        "psf_sigma": None,
        "msi_bands": "B2 B3 B4 B8",
    }
    assert {key: row[key] for key in wanted} == wanted


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--methods", "gsa"], 1, "there are no scenes; give `scenes` in a configuration or --reference"),
        (["--reference", "gone.tif", "--methods", "gsa", "--srf", "sentinel2a"], 1, "there is no reference gone.tif"),
        (["gone.toml"], 1, "can't be read"),
        (["--scales", "4,x"], 2, "isn't a list of numbers"),
        (["--snr-hsi", "30,35", "--snr-msi", "30,35,40"], 2, "wanted as many, or one"),
        (["--msi-bands", "B2"], 2, "--msi-bands needs --srf"),
        (["--reference", "gone.tif", "--methods", "gsa,nope"], 2, "there is no method 'nope'; known are srlf, "),
        (["tables", "gone.csv"], 1, "gone.csv: can't be read"),
        (["tables", "gone.csv", "--form", "bogus"], 2, "there is no form 'bogus'; known are tables, all, "),
    ],
)
def test_mistakes_are_one_line(arguments, code, words):
    assert words in run(*arguments, code=code).stderr


def test_stored_results_become_tables(folder):
    out, text = folder / "stored", folder / "text.md"
    run(folder / "small.toml", "-o", out, "--methods", "bicubic")
    table = run("tables", out / "results.csv", "--form", "overview").stdout
    assert table.splitlines()[0] == "| PSNR dB ↑ / SAM ° ↓ | scene |"
    text.write_text("before\n<!-- benchmark:results overview -->\n<!-- /benchmark -->\nafter\n")
    assert "tables renewed" in run("tables", out / "results.csv", "--into", text).stdout
    assert table in text.read_text()
    assert "nothing to renew" in run("tables", out / "results.csv", "--into", text).stdout
    text.write_text("no place\n")
    assert "has no place for tables" in run("tables", out / "results.csv", "--into", text, code=1).stderr


def test_a_config_that_is_not_toml_is_told(tmp_path):
    (tmp_path / "bad.toml").write_text("methods = gsa")
    assert "bad.toml: not TOML" in run(tmp_path / "bad.toml", code=1).stderr


def test_the_configuration_that_comes_along_fits(tmp_path):
    cases = load_config(CONFIGS / "benchmark-small.toml").cases
    assert {case.ratio for case in cases} == {4, 8}
    assert all(case.scene.reference.is_file() for case in cases)
    for name in ("airborne/a.tif", "satellite/b.hdr", "close-range/c.npz"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).touch()
    assert len(load_config(CONFIGS / "benchmark-example.toml").cases) > 10
    pairs = load_config(CONFIGS / "benchmark-pairs.toml", data=tmp_path).cases
    assert {case.scene.name: case.sensor.srf for case in pairs} == {
        "a": "sentinel2a",
        "b": "sentinel2a",
        "c": "nikon_d700",
    }


def test_help_needs_no_torch():
    lines = (
        "import sys, hsfuse.cli.benchmark as m",
        "m.benchmark(['--help'], standalone_mode=False)",
        "assert 'torch' not in sys.modules",
    )
    subprocess.run([sys.executable, "-c", "\n".join(lines)], check=True, stdout=subprocess.DEVNULL)

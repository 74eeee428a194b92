"""`hsfuse assess` as a command: figures on stdout, words on stderr, exit codes."""

import csv
import json
import subprocess
import sys

import numpy as np
import pytest
from assessed_scene import make_scene, write, write_cube
from click.testing import CliRunner
from rasterio.windows import Window

from hsfuse.cli.assess import assess
from hsfuse.core.errors import GridError, InputError, OutputError, SettingError
from hsfuse.fusion import fuse
from hsfuse.io import open_cube
from hsfuse.metrics import CATALOGUE


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    made = make_scene(tmp_path_factory.mktemp("scene"))
    write_cube(made.path("flawed.tif"), made.truth * np.float32(0.9))
    return made


def run(*arguments, code=0):
    result = CliRunner().invoke(assess, [str(a) for a in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == code, result.output
    return result


def observed(scene):
    return [f"--{name}={path}" for name, path in scene.observed.items()]


def test_table_and_words_go_their_ways(scene):
    result = run(scene.path("flawed.tif"), f"--reference={scene.path('truth.tif')}", *observed(scene), "--window=8")
    assert "psnr" in result.stdout
    assert "hqnr" in result.stdout
    assert "warning: The MSI's radiometry differs" in result.stderr
    assert "warning" not in result.stdout
    quiet = run(scene.path("flawed.tif"), *observed(scene), "--window=8", "-qq")
    assert quiet.stderr == ""


def test_a_warning_of_one_of_several_cubes_names_it(scene):
    result = run(scene.path("flawed.tif"), scene.path("truth.tif"), *observed(scene), "--window=8")
    said = result.stderr.splitlines()
    assert (
        [line for line in said if "The MSI's radiometry differs" in line]
        == [line for line in said if line.startswith("hsfuse: warning: flawed.tif: The MSI's radiometry differs")]
        != []
    )
    assert [line.partition("No MSI band sees")[0] for line in said if "No MSI band sees" in line] == [
        "hsfuse: warning: "
    ]


def test_json_holds_one_object_or_a_list(scene):
    truth = f"--reference={scene.path('truth.tif')}"
    one = json.loads(run(scene.path("flawed.tif"), truth, "--json").stdout)
    assert one["metrics"]["sam"] == pytest.approx(0, abs=1e-3)
    two = json.loads(run(scene.path("flawed.tif"), scene.path("truth.tif"), truth, "--json").stdout)
    assert [a["fused"] for a in two] == [scene.path("flawed.tif"), scene.path("truth.tif")]


def test_csv_and_markdown(scene):
    files = [scene.path("flawed.tif"), scene.path("truth.tif"), f"--reference={scene.path('truth.tif')}"]
    lines = list(csv.DictReader(run(*files, "--csv").stdout.splitlines()))
    assert float(next(line for line in lines if line["metric"] == "rmse")["truth.tif"]) == 0
    assert "| **0.000** |" in run(*files, "--markdown").stdout


def test_limits_set_the_exit_code(scene):
    files = [scene.path("flawed.tif"), f"--reference={scene.path('truth.tif')}"]
    run(*files, "--fail-under", "sam=1")
    missed = run(*files, "--fail-under", "psnr=90,sam=1", code=3)
    assert "psnr is" in missed.stderr
    for text in ("psnr", "psnr=nan", "", "psnr="):
        assert "'--fail-under': limit" in run(*files, "--fail-under", text, code=2).stderr


def test_report_is_written_and_kept(scene, tmp_path):
    files = [scene.path("flawed.tif"), f"--reference={scene.path('truth.tif')}", "--report", tmp_path / "r.html"]
    assert f"report: {tmp_path / 'r.html'}" in run(*files).stdout
    with pytest.raises(OutputError, match="exists"):
        run(*files)
    assert json.loads(run(*files, "--overwrite", "--json").stdout)
    with pytest.raises(OutputError, match="replace an input"):
        run(*files[:2], "--report", scene.path("truth.tif"), "--overwrite")


def test_explain_tells_every_metric():
    out = run("--explain").stdout
    assert all(f"{key}: {info.title}" in out for key, info in CATALOGUE.items())


def test_no_file_is_a_usage_error():
    assert "FUSED" in run("--json", code=2).stderr


def test_help_needs_no_torch():
    lines = (
        "import sys, hsfuse.cli.assess as m",
        "m.assess(['--help'], standalone_mode=False)",
        "assert 'torch' not in sys.modules",
    )
    subprocess.run([sys.executable, "-c", "\n".join(lines)], check=True, stdout=subprocess.DEVNULL)


def test_swapped_images_are_told(scene, tmp_path):
    low, high = scene.observed["hsi"], scene.observed["msi"]
    with pytest.raises(GridError, match=r"is on the grid of the HSI .*, not of the MSI .*: are the two swapped"):
        run(scene.path("flawed.tif"), f"--hsi={scene.path('truth.tif')}", f"--msi={low}", "--srf", "sentinel2")
    with pytest.raises(GridError, match=r"hsi.tif is named as the fused cube and as the HSI; name the cube"):
        run(low, f"--hsi={low}", f"--msi={high}", "--srf", "sentinel2")
    with pytest.raises(InputError, match=r"no wavelengths: .* the HSI \d: are the two swapped"):
        run(scene.path("flawed.tif"), f"--hsi={high}", f"--msi={low}", "--srf", "sentinel2")


def test_an_msi_may_be_several_files(scene, tmp_path):
    with open_cube(scene.path("msi.tif"), role="raster") as reader:
        msi = reader.read(Window(0, 0, *reader.grid.shape[::-1]))
    paths = [tmp_path / f"{band}.tif" for band in msi.spectrum.names]
    for i, path in enumerate(paths):
        write(path, msi.data[i : i + 1], msi.grid, msi.spectrum.select([i]))
    rest = [scene.path("truth.tif"), f"--hsi={scene.path('hsi.tif')}", f"--srf={scene.path('s.csv')}", "--window=8"]
    whole = json.loads(run(*rest, f"--msi={scene.path('msi.tif')}", "--json").stdout)
    for given in ([f"--msi={path}" for path in paths], ["--msi=" + ",".join(map(str, paths))]):
        assert json.loads(run(*rest, *given, "--json").stdout)["metrics"] == pytest.approx(whole["metrics"], abs=1e-6)
    with pytest.raises(OutputError, match="replace an input"):
        run(*rest, *(f"--msi={path}" for path in paths), "--report", paths[1], "--overwrite")


def test_both_protocols_side_by_side(tmp_path):
    made = make_scene(tmp_path, 96)
    fuse(**made.observed, output=made.path("f.tif"), method="bicubic")
    arguments = [made.path("f.tif"), *observed(made), "--protocol=wald", "--window=4"]
    told = run(*arguments, "--report", tmp_path / "r.html")
    assert "f.tif, reduced" in told.stdout
    assert "hsfuse-wald" not in told.stderr
    assert "At reduced resolution" in (tmp_path / "r.html").read_text()
    run(*arguments, "--fail-under=psnr=90", code=3)
    with pytest.raises(SettingError, match="--hsi is missing"):
        run(made.path("f.tif"), f"--reference={made.path('truth.tif')}", "--protocol=wald")

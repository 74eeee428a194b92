"""`hsfuse fuse` as a command: what goes to which stream, and one clear line for each thing a user can get wrong."""

from __future__ import annotations

import json
import re
import resource
import subprocess
import sys

import numpy as np
import pytest
import rasterio
from click.testing import CliRunner
from rasterio.crs import CRS
from rasters import nm, write_envi, write_tif
from scenes import BANDS, FWHM_NM, WAVELENGTHS_NM, memory_scene, save, save_pair

from hsfuse.cli import main
from hsfuse.core.cube import Spectrum
from hsfuse.core.grid import Grid
from hsfuse.core.options import OPTIONS, FuseOptions
from hsfuse.io import open_cube

SCENE = memory_scene((12, 12))
SPECTRUM = Spectrum(tuple(WAVELENGTHS_NM), tuple(FWHM_NM))


@pytest.fixture
def pair(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    return save_pair(folder, SCENE)


def fuse(pair, *more, output="out.tif", method="glp-ens", **changed):
    """Run the command; `changed` replaces --hsi, --msi or --srf."""
    named = {"hsi": pair.hsi, "msi": pair.msi, "srf": "sentinel2a", **changed}
    place = pair.folder.parent / output
    arguments = ["fuse", *(f"--{k}={v}" for k, v in named.items()), "-o", str(place), f"--method={method}", *more]
    return CliRunner().invoke(main, arguments), place


def told(result, said, code=1):
    """One line about one error, and nothing on stdout."""
    assert result.exit_code == code, result.output
    errors = [line for line in result.stderr.splitlines() if "error:" in line.lower()]
    assert len(errors) == 1, result.stderr
    assert errors[0].startswith("hsfuse: error: ")
    assert result.stderr.splitlines()[-1] == errors[0]
    assert said.lower() in errors[0].lower()
    assert "Traceback" not in result.stderr
    assert result.stdout == ""


def nothing_left(pair):
    assert [p.name for p in pair.folder.parent.iterdir()] == ["in"]


def test_a_run_says_its_result_on_stdout_and_the_rest_on_stderr(pair):
    result, place = fuse(pair)
    assert result.exit_code == 0, result.stderr
    assert result.stdout.splitlines()[0] == f"{place}: 31 bands, 36 x 36 pixels"
    assert "method: glp-ens" in result.stdout
    assert "common extent 12 x 12 HSI pixels" in result.stderr
    assert "common extent" not in result.stdout
    assert all(line.startswith("hsfuse: ") for line in result.stderr.splitlines())
    assert place.exists()


def test_what_no_msi_band_sees_is_warned_of_once(pair, tmp_path):
    told = "hsfuse: warning: No MSI band sees the red edge (702 to 753 nm): fine detail there is inferred"
    for more in ([], ["--overwrite", f"--report={tmp_path / 'r.html'}"]):
        result, _ = fuse(pair, "-q", *more)
        assert [line.startswith(told) for line in result.stderr.splitlines()].count(True) == 1, result.stderr
    seen, _ = fuse(pair, "-q", "--overwrite", "--bands=450-690nm", "--json")
    assert seen.stderr == ""
    assert json.loads(seen.stdout)["warnings"] == []


def test_json(pair):
    result, place = fuse(pair, "--json", "-qq")
    found = json.loads(result.stdout)
    assert result.stderr == ""
    assert (found["output"], found["shape"], found["valid_share"]) == (str(place), [31, 36, 36], 1.0)
    assert found["provenance"]["method"]["method"] == "glp-ens"


def test_every_option_reaches_the_run(pair):
    result, place = fuse(
        pair, "--msi-bands=B2,B3,-,B8", "--mtf=0.25", "--tile=24", "--overlap=6", "--seed=3", "--dtype=float32",
        "--device=cpu", "--format=ENVI", "--adapt-steps=2", "--adapt-minutes=5", "--base=glp-reg", "--ensemble=2",
        "--json", method="srlf", output="out.bin",
    )  # fmt: skip
    assert result.exit_code == 0, result.stderr
    found = json.loads(result.stdout)["provenance"]
    assert found["srf"]["bands"] == ["B2", "B3", "B8"]
    assert found["settings"]["mtf"] == 0.25
    assert (found["tiles"]["stride"], found["tiles"]["overlap"], found["seed"]) == (24, 6, 3)
    assert (found["method"]["method"], found["method"]["base"], found["device"]) == ("srlf", "glp-reg", "cpu")
    with open_cube(place) as reader:
        assert (reader.driver, reader.dtype) == ("ENVI", "float32")


def test_the_settings_are_what_the_line_said(pair, monkeypatch):
    """Options that leave no trace in a quick run."""
    seen = []
    monkeypatch.setattr("hsfuse.cli.fuse.fuse_and_report", lambda *a: seen.append(a) or 1 / 0)
    fuse(pair, "--adapt-steps=7", "--adapt-minutes=2.5", "--psf-sigma=1.5", "--phase=1", "--ensemble=4", "--overwrite",
         "--dry-run", "--model=m.safetensors", "--save-model=k", "--report=r.html", "--seed=9")  # fmt: skip
    settings, report, _ = seen[0][3:]
    assert (settings.adapt_steps, settings.adapt_minutes, settings.seed) == (7, 2.5, 9)
    assert (settings.psf_sigma, settings.phase) == (1.5, 1)
    assert (settings.ensemble, settings.overwrite, settings.dry_run) == (4, True, True)
    assert (str(settings.model), str(settings.save_model), str(report)) == ("m.safetensors", "k", "r.html")


def test_the_command_line_s_defaults_are_the_function_s(pair, monkeypatch):
    seen = []
    monkeypatch.setattr("hsfuse.cli.fuse.fuse_and_report", lambda *a: seen.append(a) or 1 / 0)
    fuse(pair, method="srlf")
    wanted = vars(FuseOptions(srf="sentinel2a")) | {"command": seen[0][3].command}
    assert vars(seen[0][3]) == wanted


def test_dry_run_writes_nothing(pair):
    result, _ = fuse(pair, "--dry-run", method="srlf")
    assert result.exit_code == 0
    assert "(dry run)" in result.stdout
    nothing_left(pair)


def test_a_report_beside_the_result(pair):
    report = pair.folder.parent / "r.html"
    result, place = fuse(pair, f"--report={report}", "--stac")
    assert result.exit_code == 0, result.stderr
    assert place.exists()
    assert "<html" in report.read_text()[:1000]
    assert '"./r.html"' in place.with_suffix(".stac.json").read_text()


def hsi_without(pair, *fields):
    """An ENVI LRHSI with the given header fields only, on the HSI's grid by corners."""
    return {"hsi": write_envi(pair.folder / "x.dat", SCENE.lrhsi[0].numpy(), *fields)}


def text_file(pair):
    path = pair.folder / "notes.tif"
    path.write_text("not a raster")
    return path


def moved(pair, shift=0.0, crs=32633, scale=1.0):
    grid = pair.hsi_grid()
    place = grid.transform.translation(shift, 0) @ grid.transform @ grid.transform.scale(scale)
    return {
        "hsi": save(
            pair.folder / "x.tif", SCENE.lrhsi[0].numpy(), Grid(grid.shape, place, CRS.from_epsg(crs)), SPECTRUM
        )
    }


def other_wavelengths(pair):
    spectrum = Spectrum(tuple(np.linspace(1500, 1700, 31)), tuple(FWHM_NM))
    return {"hsi": save(pair.folder / "x.tif", SCENE.lrhsi[0].numpy(), pair.hsi_grid(), spectrum)}


def masked(pair, which):
    grid = pair.hsi_grid() if which == "hsi" else pair.hr_grid
    data = (SCENE.lrhsi if which == "hsi" else SCENE.msi)[0].numpy()
    spectrum = SPECTRUM if which == "hsi" else Spectrum(None, None, BANDS)
    return {which: save(pair.folder / "x.tif", data, grid, spectrum, np.zeros(grid.shape, bool))}


def cut_envi(pair):
    chosen = hsi_without(pair, *nm(*WAVELENGTHS_NM))
    data = pair.folder / "x.dat"
    data.write_bytes(data.read_bytes()[:-17])
    return chosen


def seven_bands(pair):
    return {"msi": write_tif(pair.folder / "x.tif", np.ones((7, 36, 36), np.float32), transform=pair.hr_grid.transform)}


def unplaced_msi(pair):
    return {"msi": write_envi(pair.folder / "m.dat", SCENE.msi[0].numpy())}


BAD_INPUT = {
    "HSI missing": (lambda p: {"hsi": p.folder / "none.hdr"}, "none.hdr doesn't exist"),
    "MSI missing": (lambda p: {"msi": p.folder / "none.tif"}, "none.tif doesn't exist"),
    "HSI is text": (lambda p: {"hsi": text_file(p)}, "isn't a raster"),
    "MSI is text": (lambda p: {"msi": text_file(p)}, "isn't a raster"),
    "HSI is a folder": (lambda p: {"hsi": p.folder}, "is a folder"),
    "sizes disagree": (cut_envi, "has 17839"),
    "no wavelengths": (hsi_without, "no wavelengths"),
    "unknown units": (lambda p: hsi_without(p, *nm(*WAVELENGTHS_NM * 1e5, units="Furlongs")), "given as furlongs"),
    "wavenumbers": (lambda p: hsi_without(p, *nm(*WAVELENGTHS_NM, units="Wavenumber")), "wavelengths in 'Wavenumber'"),
    "MSI bands unknown": (seven_bands, "7 bands"),
    "no spectral overlap": (other_wavelengths, "no spectral overlap"),
    "no spatial overlap": (lambda p: moved(p, 1e5), "don't overlap"),
    "another CRS": (lambda p: moved(p, crs=32634), "don't overlap, they lie about"),
    "ratio 1": (lambda p: moved(p, scale=1 / 3), "1 x 1"),
    "MSI nowhere": (unplaced_msi, "the MSI has no georeference"),
    "HSI all nodata": (lambda p: masked(p, "hsi"), "no valid pixel"),
    "MSI all nodata": (lambda p: masked(p, "msi"), "valid"),
}


@pytest.mark.parametrize("case", BAD_INPUT)
def test_bad_input_is_one_line_and_leaves_nothing(pair, case):
    make, said = BAD_INPUT[case]
    result, _ = fuse(pair, **make(pair))
    told(result, said)
    nothing_left(pair)


def test_swapped_images_are_told(pair):
    result, _ = fuse(pair, hsi=pair.msi, msi=pair.hsi)
    told(result, "no wavelengths: wanted them in the ENVI header, in band tags")
    assert f"the MSI has them, and {len(WAVELENGTHS_NM)} bands, the HSI 4: are the two swapped?" in result.stderr
    result, _ = fuse(pair, hsi=pair.msi, msi=pair.msi)
    assert "the two swapped" not in result.stderr
    nothing_left(pair)


BAD_OPTIONS = {
    "--msi-bands=B2,B9": "B9, which the MSI doesn't have",
    "--msi-bands=B2,B3,B4,Q9": "Q9",
    "--msi-bands=B2,B2,B4,B8": "B2 twice",
    "--phase=5": "phase is 5",
    "--phase=0.3": "can't be centred",
    "--tile=5": "--tile is 5, wanted at least 12 MSI pixels",
    "--save-model=m.safetensors": "the method is glp-ens",
}


@pytest.mark.parametrize("option", BAD_OPTIONS)
def test_options_that_make_no_sense_are_one_line(pair, option):
    result, _ = fuse(pair, option)
    told(result, BAD_OPTIONS[option])
    nothing_left(pair)


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("--model=none.safetensors", "no such checkpoint"),
        ("--save-model=nowhere/m.safetensors", "nowhere doesn't exist"),
    ],
)
def test_weights_that_cannot_be_are_one_line(pair, option, said):
    result, _ = fuse(pair, option, method="srlf")
    told(result, said)
    nothing_left(pair)


@pytest.mark.parametrize(
    ("output", "said"),
    [
        ("in/hsi.tif", "is the input"),
        ("in/msi.tif", "is the input"),
        ("in", "is a folder"),
        ("nowhere/out.tif", "doesn't exist"),
        ("out.png", "no known format"),
        ("in/old.tif", "exists already"),
    ],
)
def test_outputs_that_cannot_be_are_one_line(pair, output, said):
    (pair.folder / "old.tif").write_text("old")
    before = {p: p.read_bytes() for p in pair.folder.iterdir()}
    told(fuse(pair, output=output)[0], said)
    assert {p: p.read_bytes() for p in pair.folder.iterdir()} == before
    nothing_left(pair)


def test_inputs_are_safe_from_overwrite(pair):
    told(fuse(pair, "--overwrite", output="in/msi.tif")[0], "is the input")
    told(fuse(pair, f"--report={pair.msi}", "--overwrite")[0], str(pair.msi))
    nothing_left(pair)


def test_overwrite(pair):
    assert fuse(pair)[0].exit_code == 0
    told(fuse(pair)[0], "exists already")
    assert fuse(pair, "--overwrite")[0].exit_code == 0


@pytest.mark.parametrize("output", ["out.dat", "out.zarr"])
def test_what_cannot_go_on_begins_anew_and_is_left_alone_when_finished(pair, output):
    """A loop with --resume can be started again, whatever it writes."""
    if output.endswith("zarr"):
        pytest.importorskip("zarr")
    first, _ = fuse(pair, "--resume", output=output, method="bicubic")
    assert first.exit_code == 0, first.stderr
    again, place = fuse(pair, "--resume", output=output, method="bicubic")
    assert "done already" in again.stdout
    told(fuse(pair, "--resume", output=output, method="glp")[0], "already")
    assert place.exists()


def test_nan_is_masked_and_counted_aloud(pair):
    low = SCENE.lrhsi[0].numpy().copy()
    low[7, 3, 4] = np.nan
    low[9, 8, 8] = np.inf
    header = write_envi(
        pair.folder / "x.dat", low, *nm(*WAVELENGTHS_NM),
        "map info = {UTM, 1, 1, 600000, 5000000, 30, 30, 33, North, WGS-84, units=Meters}",
    )  # fmt: skip
    result, place = fuse(pair, hsi=header)
    assert result.exit_code == 0, result.stderr
    assert "2 pixels of the HSI hold NaN or Inf and are masked" in result.stderr
    with rasterio.open(place) as ds:
        blank = np.isnan(ds.read(1))
    assert blank.sum() == 18
    assert blank[9:12, 12:15].all()


@pytest.mark.parametrize(
    "arguments",
    [
        ["--hsi=a", "--msi=b"],
        ["--hsi=a", "-o=d.tif"],
        ["--hsi=a", "--msi=b", "-o=d.tif", "--device=abacus"],
        ["--hsi=a", "--msi=b", "-o=d.tif", "--dtype=complex64"],
        ["--hsi=a", "--msi=b", "-o=d.tif", "--format=PNG"],
        ["--hsi=a", "--msi=b", "-o=d.tif", "--adapt-steps=-1"],
        ["--hsi=a", "--msi=b", "-o=d.tif", "--mtf=much"],
        ["--hsi=a", "--msi=b", "-o=d.tif", "--mtf=nan"],
        ["--hsi=a", "--msi=b", "-o=d.tif", "--phase=nan"],
        ["--hsi=a", "--msi=b", "-o=d.tif", "--phase=-1"],
        ["--hsi=a", "--msi=b", "-o=d.tif", "--scale=inf"],
        ["--hsi=a", "--msi=b", "-o=d.tif", "--ensemble=9"],
        ["--hsi=a", "--msi=b", "-o=d.tif", "--nonsense"],
        ["--hsi=a", "--msi=b", "-o=d.tif", "stray"],
        ["a", "b"],
        ["a", "b", "c.tif", "--method=magic"],
        ["a", "b", "c.tif", "--base=magic"],
        ["a", "b", "c.tif", "--srf=sentinell2"],
        ["a", "b", "c.tif", "--srf=none.csv"],
        ["a", "b", "c.tif", "--co=COMPRESS"],
    ],
)
def test_usage_errors_exit_2(arguments):
    result = CliRunner().invoke(main, ["fuse", *arguments])
    assert result.exit_code == 2
    assert result.stdout == ""
    assert "Usage: " in result.stderr
    assert "Traceback" not in result.stderr


def test_interruption_leaves_nothing(pair, monkeypatch):
    def interrupt(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr("hsfuse.fusion.tiles.TileWorker.fuse", interrupt)
    result, _ = fuse(pair)
    assert result.exit_code == 130
    assert result.stderr.splitlines()[-1] == "hsfuse: interrupted"
    assert "Traceback" not in result.stderr
    nothing_left(pair)


@pytest.mark.parametrize("output", ["out.tif", "out.dat"])
def test_a_full_disk_is_one_line_and_leaves_nothing(pair, output):
    """Files can't grow past 40 kB, which for a writer is a full disk."""
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, old[1]))
    try:
        result, _ = fuse(pair, output=output)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
    told(result, "couldn't be written")
    nothing_left(pair)


def test_as_a_program(pair):
    """Streams and exit codes of the real thing, once."""
    line = [sys.executable, "-m", "hsfuse", "fuse", "--hsi", pair.hsi, "--msi", pair.msi, "--srf", "sentinel2a", "-o"]
    place = pair.folder.parent / "out.tif"
    done = subprocess.run([*line, place, "--method", "glp-reg"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"{place}: 31 bands")
    with open_cube(place) as reader:
        assert "--method glp-reg" in json.loads(reader.tags["HSFUSE_PROVENANCE"])["command"]
    again = subprocess.run([*line, place, "--method", "glp-reg"], capture_output=True, text=True, check=False)
    assert again.returncode == 1
    assert again.stdout == ""
    assert "exists already" in again.stderr.splitlines()[-1]


def test_files_by_place_a_configuration_and_a_log(pair, monkeypatch):
    folder = pair.folder.parent
    config, log = folder / "c.toml", folder / "log.txt"
    config.write_text(
        'method = "gsa"\nadapt-steps = 7\nmsi_bands = "B2,B3,B4,B8"\nstac = true\n[co]\nCOMPRESS = "LZW"\n'
    )
    seen = []
    monkeypatch.setattr("hsfuse.cli.fuse.fuse_and_report", lambda *a: seen.append(a) or 1 / 0)
    more = [f"--config={config}", f"--log-file={log}", "--co", "ZLEVEL=9,TILED=YES", "-of", "COG", "--mtf=0.2"]
    line = ["fuse", str(pair.hsi), str(pair.msi), str(folder / "o.tif"), "--srf=sentinel2a"]
    CliRunner().invoke(main, [*line, *more], env={"HSFUSE_FUSE_SEED": "5"})
    hsi, msi, output, found, *_ = seen[0]
    assert (hsi, msi, output) == (pair.hsi, pair.msi, folder / "o.tif")
    assert (found.method, found.adapt_steps, found.stac, found.mtf, found.seed) == ("gsa", 7, True, 0.2, 5)
    assert (found.format, found.msi_bands) == ("COG", ("B2", "B3", "B4", "B8"))
    assert found.creation_options == {"ZLEVEL": "9", "TILED": "YES"}  # those of the line go before the file's
    config.write_text("methd = 1")
    wrong = CliRunner().invoke(main, ["fuse", "a", "b", "c.tif", f"--config={config}"])
    assert (wrong.exit_code, "no option 'methd'" in wrong.stderr) == (2, True)
    config.write_text('hsi = "x"\nmsi = "y"\noutput = "z.tif"')
    CliRunner().invoke(main, [*line, f"--config={config}"])
    assert seen[1][:3] == seen[0][:3]  # nor does a file's place in the line give way to the configuration's
    config.write_text("adapt-steps = 7\nadapt_steps = 8")
    wrong = CliRunner().invoke(main, [*line, f"--config={config}"])
    assert (wrong.exit_code, "'adapt_steps' is there twice" in wrong.stderr) == (2, True)


def test_help_shows_what_is_common_and_help_all_the_rest():
    short, whole = (CliRunner().invoke(main, ["fuse", flag]).stdout for flag in ("--help", "--help-all"))
    for text in (short, whole):
        assert [line[:-1] for line in text.splitlines() if line.endswith(":") and not line.startswith(" ")][:5] == [
            "Inputs", "Sensors", "Method", "Output", "Running",
        ]  # fmt: skip
        assert text.count("\n  hsfuse fuse ") == 5
    missing = [f"--{name.replace('_', '-')}" for name in OPTIONS if name != "creation_options"]
    assert not [name for name in missing if f"{name} " not in whole and f"{name}\n" not in whole]
    assert "--psf-size" in whole
    assert "--psf-size" not in short


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["none.hdr", "none.tif", "o.tif"], "doesn't exist"),
        (["{hsi}", "{msi}", "nowhere/o.tif"], "doesn't exist"),
        (["{hsi}", "{msi}", "{msi}"], "is the input"),
        (["{hsi}", "{msi}", "o.tif", "--method=magic"], "no method 'magic'"),
        (["{hsi}", "{msi}", "o.tif", "--srf=sentinell2"], "sentinel2"),
        (["{hsi}", "{msi}", "o.tif", "--report=nowhere/r.html"], "doesn't exist"),
    ],
)
def test_what_needs_no_pixels_is_told_without_loading_what_reads_them(pair, arguments, said):
    words = [word.format(hsi=pair.hsi, msi=pair.msi) for word in arguments]
    code = f"""
import sys
from hsfuse.cli import main
try:
    main(["fuse", *{words}])
finally:
    print(*(name for name in ("torch", "numba", "scipy", "rasterio") if name in sys.modules))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert said in done.stderr
    assert done.stdout.strip() == ""


def test_the_log_has_a_line_for_each_step_with_the_time_it_took(pair, tmp_path):
    line = ["fuse", str(pair.hsi), str(pair.msi), str(tmp_path / "a.tif"), "--srf=sentinel2a", "--method=bicubic"]
    line += ["--psf=assumed", "--overviews", f"--report={tmp_path / 'r.html'}", f"--log-file={tmp_path / 'log.txt'}"]
    done = CliRunner().invoke(main, line)
    assert done.exit_code == 0, done.output
    told = re.findall(r": ([a-z ]+) took \d+\.\d s\n", (tmp_path / "log.txt").read_text(encoding="utf-8"))
    assert told == [
        "opening and estimating", "fitting", "overviews", "fusing and writing", "opening to assess", "assessing",
        "writing the report",
    ]  # fmt: skip

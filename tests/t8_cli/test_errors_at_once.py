"""What needs no pixels is told before torch is loaded, and so is that an output is finished."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
from click.testing import CliRunner
from rasters import write_tif
from scenes import FWHM_NM, WAVELENGTHS_NM, memory_scene, save, save_pair

from hsfuse.cli import main
from hsfuse.core.cube import Spectrum
from hsfuse.core.errors import SettingError
from hsfuse.fusion.device import check_device

#: Runs the commands of a JSON list; prints of each its exit code, what it said, and whether torch was loaded by then.
PLAYED = """
import json, sys
from click.testing import CliRunner
from hsfuse.cli import main
for arguments in json.loads(sys.stdin.read()):
    done = CliRunner().invoke(main, arguments)
    print(json.dumps([done.exit_code, done.stderr, done.stdout, "torch" in sys.modules]))
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A pair, a text that is no raster, and one finished output."""
    folder = tmp_path_factory.mktemp("once")
    pair = save_pair(folder, memory_scene((12, 12)))
    write_tif(folder / "seven.tif", np.ones((7, 36, 36), np.float32), transform=pair.hr_grid.transform)
    swir = Spectrum(tuple(np.linspace(1500, 1700, 31)), tuple(FWHM_NM))
    save(folder / "swir.tif", pair.scene.lrhsi[0].numpy(), pair.hsi_grid(), swir)
    (folder / "text.tif").write_text("no raster")
    (folder / "nul.toml").write_text('output = "x\\u0000.tif"')
    (folder / "table.csv").write_text("hsi\n")
    done = CliRunner().invoke(main, ["fuse", str(pair.hsi), str(pair.msi), str(folder / "done.tif"), *QUICK])
    assert done.exit_code == 0, done.output
    return folder, pair


QUICK = ["--srf=sentinel2a", "--method=bicubic", "--psf=assumed", "--match-radiometry=off"]
#: Words of the command after HSI, MSI and output -> exit code and what is said.
FUSE = [
    (["--model=nowhere"], 2, "there are no weights called 'nowhere'"),
    (["--model=nowhere.safetensors"], 1, "no such checkpoint"),
    (["--method=nowhere"], 2, "there is no method 'nowhere'"),
    (["--base=nowhere"], 2, "there is no base 'nowhere'"),
    (["--srf=nowhere"], 2, "No spectral response is called 'nowhere'"),
    (["--psf=nowhere"], 2, "--psf is 'nowhere'"),
    (["--mtf=2"], 2, "'--mtf': 2.0 is not in the range 0<x<1"),
    (["--mtf=nan"], 2, "'nan' is not a number that can be used; wanted a finite one"),
    (["--phase=inf"], 2, "'inf' is not a number that can be used"),
    (["--phase=-1"], 2, "'--phase': -1.0 is not in the range x>=0"),
    (["--phase=3"], 1, "the phase is 3, wanted 0 to 2 MSI pixels (centred: 1)"),
    (["--srf=sentinel2a", "--msi-bands=B2,B9"], 1, "B9, which the MSI doesn't have"),
    (["--psf-sigma=0"], 2, "'--psf-sigma': 0.0 is not in the range 0.1<=x<=32"),
    (["--psf-sigma=1e6"], 2, "'--psf-sigma': 1000000.0 is not in the range 0.1<=x<=32"),
    (["--psf-size=100000"], 2, "'--psf-size': 100000 is not in the range 1<=x<=257"),
    (["--tile=0"], 2, "'--tile': 0 is not in the range x>=1"),
    (["--tile=10"], 1, "--tile is 10, wanted at least 12 MSI pixels"),
    (["--tile=20", "--overlap=24"], 1, "--overlap is 24 and --tile 20"),
    (["--overlap=-1"], 2, "'--overlap': -1 is not in the range x>=0"),
    (["--bands=1-x"], 2, "the bands '1-x' make no sense"),
    (["--bands=900-450nm"], 2, "the bands '900-450nm' are reversed; wanted 450-900nm"),
    (["--bands=2000-2100nm"], 1, "there are no bands 2000-2100nm: the HSI has 31 bands from 430 to 940 nm"),
    (["--co=NONSENSE=1"], 1, "does not support creation option NONSENSE"),
    (["--co=COMPRESS=NONSENSE"], 1, "unexpected value for COMPRESS"),
    (["--dtype=complex64"], 2, "'complex64' is not one of"),
    ([f"--qa={'x' * 300}.tif"], 1, "x.tif can't be the path of a file: the name is too long"),
    (["--report=/vsimem/report.html"], 1, "one of GDAL's virtual files"),
    (["--hsi-nodata=abc"], 2, "'--hsi-nodata': the value 'abc' is no number; wanted the raw nodata value, or none"),
    (["--qa=nowhere/qa.tif"], 1, "the output folder nowhere doesn't exist"),
]
#: --output -> what is said.
OUTPUTS = {
    "/vsimem/out.tif": "one of GDAL's virtual files",
    "/vsizip/out.zip/out.tif": "one of GDAL's virtual files",
    "s3://bucket/out.tif": "is an address (s3:)",
    "https://example.org/out.tif": "is an address (https:)",
    "out.jpg": ".zarr for Zarr; or give --format",
    "nowhere/out.tif": "the output folder nowhere doesn't exist",
}


def cases(folder, pair) -> list[tuple[list[str], int, str]]:
    hsi, msi, text, done = (str(path) for path in (pair.hsi, pair.msi, folder / "text.tif", folder / "done.tif"))
    no, out = str(folder / "no.tif"), str(folder / "out.tif")
    found = [(["fuse", hsi, msi, out, *words], code, said) for words, code, said in FUSE]
    found += [(["fuse", hsi, msi, where], 1, said) for where, said in OUTPUTS.items()]
    try:
        check_device("cuda")
    except SettingError as error:  # as on most machines
        found.append((["fuse", hsi, msi, out, "--device=cuda"], 1, str(error)))
    found += [
        (["fuse", hsi, msi], 2, "Missing option '--output'"),
        (["fuse", hsi, msi, f"--config={folder / 'nul.toml'}"], 1, "output is 'x\\x00.tif', wanted text without NUL"),
        (["fuse", no, msi, out], 1, "the HSI"),
        (["fuse", hsi, text, out], 1, "isn't a raster that can be read"),
        (["fuse", msi, hsi, out], 1, "wavelengths"),
        (["fuse", hsi, hsi, out], 1, f"--hsi and --msi name one file, {hsi}; name the HSI and the MSI"),
        (["fuse", hsi, str(folder / "seven.tif"), out, "--srf=sentinel2a"], 1, "The MSI has 7 bands (no descriptions)"),
        (["fuse", str(folder / "swir.tif"), msi, out, "--srf=sentinel2a"], 1, "no spectral overlap"),
        (["fuse", hsi, msi, done, "--resume", *QUICK], 0, ""),
        (["fuse", hsi, msi, done, "--resume", *QUICK, "--mtf=0.2"], 1, "--mtf was not given, and is 0.2"),
        (["fuse", hsi, msi, done, "--dry-run", *QUICK], 1, "done.tif exists already"),
        (["fuse", hsi, msi, out, f"--qa={out}"], 1, f"--output and --qa name one file, {out}; give each"),
        (["fuse", hsi, msi, out, f"--report={no}", f"--figures={no}"], 1, "--report and --figures name one file"),
        (["assess", no], 1, "doesn't exist"),
        (["assess", done], 1, "hold the fused cube against: give --reference, or --hsi and --msi"),
        (
            ["assess", done, "--hsi", hsi],
            1,
            "--msi is missing: agreement with the cube's images is told by both of them",
        ),
        (["assess", done, "--reference", no], 1, "doesn't exist"),
        (["assess", done, "--hsi", hsi, "--msi", text], 1, "isn't a raster that can be read"),
        (["assess", done, "--hsi", hsi, "--msi", msi, "--mtf=4"], 2, "'--mtf': 4.0 is not in the range 0<x<1"),
        (["assess", done, "--reference", hsi, "--peak=nan"], 2, "'nan' is not a number that can be used"),
        (["assess", done, "--reference", hsi, "--window=1"], 2, "'--window': 1 is not in the range x>=2"),
        (["assess", done, "--reference", hsi, "--fail-under=nonsense=1"], 2, "limit 'nonsense=1'"),
        (["assess", done, "--reference", hsi, "--fail-under=psnrr=1"], 2, "METRIC=NUMBER; did you mean psnr?"),
        (["srf", "show", msi], 1, "can't be read as text; wanted a header 'wavelength_nm,BAND,...'"),
        (["assess", "--explain"], 0, ""),
        (["simulate", no, str(folder / "made"), "--srf=sentinel2", "--ratio=4"], 1, "doesn't exist"),
        (["simulate", hsi, str(folder / "made"), "--srf=sentinel2", "--ratio=2.5"], 2, "'2.5' is not a whole number"),
        (["srf", "estimate", "--hsi", no, "--msi", msi], 1, "doesn't exist"),
        (["srf", "check", no, "sentinel2"], 1, "doesn't exist"),
        (["info", no], 1, "doesn't exist"),
        (["info", hsi, "--nodata=abc"], 2, "'--nodata': the value 'abc' is no number"),
        (
            ["simulate", hsi, "made", "--srf", "sentinel2", "--nodata=abc"],
            2,
            "'--nodata': the value 'abc' is no number",
        ),
        (["info", hsi], 0, ""),
        (["train", no], 1, "can't be read"),
        (["srf", "check", hsi, "nowhere"], 2, "No spectral response is called 'nowhere'"),
        (["srf", "estimate", "--hsi", hsi, "--msi", msi, "--mtf=4"], 2, "is not in the range 0<x<1"),
        (["models", "show", "nowhere"], 2, "there are no weights called 'nowhere'"),
        (["models", "list"], 0, ""),
        (["batch", str(folder / "table.csv")], 1, "has no jobs"),
    ]
    return found


def test_what_needs_no_pixels_is_told_without_torch(place):
    wanted = cases(*place)
    told = json.dumps([arguments for arguments, _, _ in wanted])
    done = subprocess.run([sys.executable, "-c", PLAYED], input=told, capture_output=True, text=True, check=True)
    found = [json.loads(line) for line in done.stdout.splitlines()]
    for (arguments, code, said), (got, errors, _, torch) in zip(wanted, found, strict=True):
        assert (got, torch) == (code, False), (arguments, errors)
        assert said in errors.replace("\n", " "), (arguments, errors)
        lines = errors.splitlines()
        assert len(lines) == {0: 0, 1: 1, 2: 4}[code], (arguments, errors)


def test_a_finished_output_says_what_it_is(place):
    folder, pair = place
    files = [str(path) for path in (pair.hsi, pair.msi, folder / "done.tif")]
    again = CliRunner().invoke(main, ["fuse", *files, "--resume", *QUICK])
    assert again.stdout.splitlines()[0].endswith("36 x 36 pixels (done already, by the same plan)")


def test_a_file_whose_size_is_known_needs_the_room(place, monkeypatch):
    folder, pair = place
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 1000})())
    for name, more, advice in (
        ("out.dat", [], "choose a .tif"),
        ("out.tif", ["--co", "COMPRESS=NONE"], "leave out COMPRESS=NONE"),
    ):
        full = CliRunner().invoke(main, ["fuse", str(pair.hsi), str(pair.msi), str(folder / name), *QUICK, *more])
        assert full.exit_code == 1
        assert "0 MiB are free" in full.stderr
        assert advice in full.stderr
        assert full.stderr.count("\n") == 1
        assert not (folder / name).exists()


def test_a_log_replaces_nothing(tmp_path):
    """Neither inputs nor outputs, nor what is read with them, or named by options, nor what is no text."""
    pair = save_pair(tmp_path, memory_scene((4, 4)))
    spectrum = Spectrum(tuple(WAVELENGTHS_NM), tuple(FWHM_NM))
    hsi = save(tmp_path / "lr.dat", pair.scene.lrhsi[0].numpy(), pair.hsi_grid(), spectrum)
    for name in ("psf.csv", "c.toml", "jobs.csv", "text.tif"):
        (tmp_path / name).write_text("1\n" if name == "psf.csv" else "")
    (tmp_path / "jobs.csv").write_text(f"hsi,msi,output\n{hsi},{pair.msi},o.tif\n")
    (tmp_path / "raw").write_bytes(b"log\0")
    (tmp_path / "link").symlink_to(pair.msi)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    line = ["fuse", str(hsi), str(pair.msi), str(tmp_path / "o.tif"), "--psf", str(tmp_path / "psf.csv"), *QUICK[:2]]
    line += [f"--config={tmp_path / 'c.toml'}", f"--qa={tmp_path / 'qa.tif'}", f"--report={tmp_path / 'r.html'}"]
    taken = ["lr.dat", "lr.hdr", "msi.tif", "msi.tif.aux.xml", "link", "psf.csv", "c.toml", "raw"]
    batch = ["batch", str(tmp_path / "jobs.csv"), "--srf=sentinel2a"]
    tried = [(line, name) for name in (*taken, "o.tif", "o.tif.msk", "o.hdr", "qa.tif", "r.html")]
    tried += [(batch, name) for name in ("lr.dat", "lr.hdr", "msi.tif", "o.tif", "jobs.csv", "raw")]
    for words, name in tried:
        done = CliRunner().invoke(main, [*words, f"--log-file={tmp_path / name}"])
        assert (done.exit_code, len(done.stderr.splitlines())) == (1, 1), (words[0], name, done.stderr)
        assert f"the log file {tmp_path / name} " in done.stderr
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before

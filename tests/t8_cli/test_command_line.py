"""What docs/command-line.md says: options in a file and the environment, completion, addresses, GDAL's words, a log."""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from rasters import nm, write_envi
from scenes import WAVELENGTHS_NM, memory_scene, save_pair

from hsfuse.cli import main
from hsfuse.cli.console import start_logging
from hsfuse.io import open_cube, read_provenance

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "command-line.md").read_text(encoding="utf-8")
QUICK = ["--srf=sentinel2a", "--method=bicubic", "--psf=assumed", "--match-radiometry=off", "-qq"]


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    made = save_pair(tmp_path_factory.mktemp("pair"), memory_scene((12, 12)))
    place = "map info = {UTM, 1, 1, 600000, 5000000, 30, 30, 33, North, WGS-84, units=Meters}"
    write_envi(made.folder / "envi.dat", made.scene.lrhsi[0].numpy(), *nm(*WAVELENGTHS_NM), place)
    return made


def run(*arguments, code=0, **environment):
    result = CliRunner(env=environment).invoke(main, [str(a) for a in arguments])
    assert result.exit_code == code, result.output
    assert "Traceback" not in result.stderr
    return result


def provenance(path):
    with open_cube(path) as reader:
        return read_provenance(reader.tags)


#: Serves a folder as web servers do, by the parts of files that are asked for, and prints its port. A process of its
#: own: opening a file, GDAL keeps this one's interpreter from answering it.
SERVER = """
import re, sys
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

class Ranges(SimpleHTTPRequestHandler):
    def log_message(self, *arguments):
        pass

    def send_head(self):
        path = Path(self.translate_path(self.path))
        if not path.is_file():
            self.send_error(404)
            return None
        size, asked = path.stat().st_size, re.match(r"bytes=(\\d+)-(\\d*)", self.headers.get("Range", ""))
        first = int(asked[1]) if asked else 0
        last = min(int(asked[2] or size - 1), size - 1) if asked else size - 1
        self.send_response(206 if asked else 200)
        if asked:
            self.send_header("Content-Range", f"bytes {first}-{last}/{size}")
        self.send_header("Content-Length", str(last - first + 1))
        self.end_headers()
        file = path.open("rb")
        file.seek(first)
        self.left = last - first + 1
        return file

    def copyfile(self, source, outputfile):
        outputfile.write(source.read(self.left))

server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Ranges, directory=sys.argv[1]))
print(server.server_address[1], flush=True)
server.serve_forever()
"""


@pytest.fixture(scope="module")
def address(pair):
    """Of the pair's folder, served on this machine."""
    server = subprocess.Popen([sys.executable, "-c", SERVER, pair.folder], stdout=subprocess.PIPE, text=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("no_proxy", "127.0.0.1")
        yield f"http://127.0.0.1:{server.stdout.readline().strip()}"
    server.kill()
    server.communicate()


def test_inputs_by_address_give_the_same_and_keep_their_names(pair, address, tmp_path):
    local, remote = tmp_path / "local.tif", tmp_path / "remote.tif"
    names = f"{address}/envi.dat", f"/vsicurl/{address}/msi.tif"
    run("fuse", pair.folder / "envi.dat", pair.msi, local, *QUICK)
    run("fuse", *names, remote, *QUICK)
    with open_cube(local) as one, open_cube(remote) as other:
        np.testing.assert_array_equal(one.read().data, other.read().data)
    told = provenance(remote)["inputs"]
    assert (told["HSI"].split(" (")[0], told["MSI"].split(" (")[0]) == names
    assert run("info", names[0]).stdout.splitlines()[0] == names[0]


def test_what_cannot_be_read_by_address_is_one_line(pair, address, tmp_path):
    (pair.folder / "list.vrt").write_text(
        '<VRTDataset rasterXSize="2" rasterYSize="2"><VRTRasterBand dataType="Byte" band="1"><SimpleSource>'
        f"<SourceFilename>{pair.msi}</SourceFilename></SimpleSource></VRTRasterBand></VRTDataset>"
    )
    for name, said in {
        "none.tif": "404",
        "envi.hdr": f"is a header; name its data file, such as {address}/envi.dat",
        "list.vrt": "not recognized as being in a supported file format",
    }.items():
        (line,) = run("info", f"{address}/{name}", code=1).stderr.splitlines()
        assert line.startswith(f"hsfuse: error: the raster {address}/{name} ")
        assert said in line


def test_the_page_s_file_of_options(pair, tmp_path, monkeypatch):
    (text,) = re.findall(r"^```toml\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    told = tomllib.loads(text)
    monkeypatch.chdir(tmp_path)
    for name, file in (("hsi", pair.hsi), ("msi", pair.msi)):
        text = text.replace(told[name], str(file))
    Path("scene.toml").write_text(text)
    run("fuse", "--config=scene.toml", "--seed=7", "-qq")
    found = provenance(told["output"])
    assert (found["method"]["method"], found["seed"], found["srf"]["name"]) == ("bicubic", 7, "sentinel2a")
    (wrong,) = run("fuse", "--config=wrong.toml", code=1).stderr.splitlines()
    assert "wrong.toml" in wrong
    Path("wrong.toml").write_text("metod = 1")
    assert "no option 'metod'; did you mean 'method'?" in run("fuse", "--config=wrong.toml", code=2).stderr


@pytest.mark.parametrize(("line", "said"), [
    ("tile = [96]", "tile is [96], wanted a whole number of at least 1"),
    ("tile = 100.7", "tile is 100.7, wanted a whole number of at least 1"),
    ("seed = 1979-05-27", "seed is 1979-05-27, wanted a whole number of at least 0"),
    ("seed = 'x'", "seed: 'x' is not a whole number."),
    ("match-radiometry = 'on'", "match-radiometry: 'on' is not one of 'auto', 'off'."),
    ("phase = []", "phase is [], wanted a number of at least 0"),
    ("hsi = 1", "hsi is 1, wanted a path"),
    ("msi = [1]", "msi is [1], wanted a path"),
    ('output = ["A"]', 'output is ["A"], wanted a path'),
    ("report = true", "report is true, wanted a path"),
    ("resume = 3", "resume is 3, wanted true or false"),
    ("quiet = [1]", "quiet is [1], wanted a whole number"),
    ("msi-bands = [1]", "msi-bands is [1], wanted a list, each entry text"),
    ("co = 3", "co is 3, wanted a table"),
])  # fmt: skip
def test_a_value_of_the_wrong_kind_is_told_with_file_and_key(tmp_path, line, said):
    config = tmp_path / "c.toml"
    config.write_text(line)
    told = run("fuse", "h", "m", "o.tif", f"--config={config}", code=2).stderr.splitlines()[-1]
    assert told == f"Error: Invalid value for '--config': {config}: {said}"


def test_lists_and_switches_of_a_file_are_those_of_the_line(pair, tmp_path):
    config, out = tmp_path / "c.toml", tmp_path / "o.tif"
    config.write_text('msi_bands = ["B2", "B3", "-", "B8"]\nadapt = false')
    run("fuse", pair.hsi, pair.msi, out, f"--config={config}", *QUICK)
    assert provenance(out)["srf"]["bands"] == ["B2", "B3", "B8"]


def test_an_effort_of_the_line_is_refused_where_the_method_knows_none(pair, tmp_path):
    config, line = tmp_path / "c.toml", ["fuse", pair.hsi, pair.msi, tmp_path / "o.tif", *QUICK]
    (told,) = run(*line, "--effort=best", code=1).stderr.splitlines()
    assert "--effort best is about" in told
    assert told.endswith("--method bicubic uses neither; leave out one of the two, or take one of the methods srlf, "
                         "srlf-any, srlf-bands")  # fmt: skip
    config.write_text('effort = "best"')
    run(*line, f"--config={config}")
    run(*line, "--effort=normal", "--overwrite")


def test_the_environment_goes_before_a_file_and_the_line_before_both(pair, tmp_path):
    config, out = tmp_path / "c.toml", tmp_path / "o.tif"
    config.write_text('method = "sfim"\nseed = 1\ntile = 24', encoding="utf-8-sig")  # with an editor's mark
    settings = {"HSFUSE_FUSE_METHOD": "bicubic", "HSFUSE_FUSE_SEED": "2", "HSFUSE_FUSE_SRF": "sentinel2a"}
    run("fuse", pair.hsi, pair.msi, out, f"--config={config}", "--seed=3", "-qq", **settings)
    found = provenance(out)
    assert (found["method"]["method"], found["seed"], found["tiles"]["stride"]) == ("bicubic", 3, 24)
    wrong = run("fuse", pair.hsi, pair.msi, out, HSFUSE_FUSE_TILE="much", code=2)
    assert "'--tile': 'much' is not a whole number." in wrong.stderr
    found = json.loads(run("info", pair.hsi, HSFUSE_INFO_AS_JSON="1").stdout)
    assert found["driver"] == "GTiff"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_every_shell_s_line_gives_a_script(shell):
    assert f"_HSFUSE_COMPLETE={shell}_source hsfuse" in PAGE
    done = CliRunner(env={"_HSFUSE_COMPLETE": f"{shell}_source"}).invoke(main, [], prog_name="hsfuse")
    assert f"_HSFUSE_COMPLETE={shell}_complete" in done.stdout


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash here")
def test_completion_in_bash(tmp_path):
    """The function that the page's line defines is called as the shell does."""
    program = tmp_path / "hsfuse"
    program.write_text(
        f'#!/bin/sh\nexec "{sys.executable}" -c "from hsfuse.cli import main; main(prog_name=\'hsfuse\')" "$@"\n'
    )
    program.chmod(0o755)
    (line,) = re.findall(r"^(eval .*bash_source.*?)  +#", PAGE, re.MULTILINE)
    script = [line]
    wanted = {
        "fus": {"fuse"},
        "fuse --meth": {"--method"},
        "fuse --method gl": {"glp", "glp-ens", "glp-reg"},
        "fuse --srf sentinel2": {"sentinel2", "sentinel2a", "sentinel2b", "sentinel2c"},
        "models show srlf-cave": {"srlf-cave-x8"},
    }
    for words in wanted:
        asked = ["hsfuse", *words.split()]
        script.append(f"COMP_WORDS=({' '.join(asked)}); COMP_CWORD={len(asked) - 1}; COMPREPLY=()")
        script.append('_hsfuse_completion hsfuse; echo "${COMPREPLY[*]}"')
    folder = os.environ | {"PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(
        ["bash", "-c", "\n".join(script)], env=folder, capture_output=True, text=True, check=True, timeout=60
    )
    assert [set(line.split()) for line in done.stdout.splitlines()] == list(wanted.values()), done.stderr


def test_formats_as_gdal_spells_them(pair, tmp_path):
    cog, line = tmp_path / "a.tif", ["fuse", pair.hsi, pair.msi]
    run(*line, cog, *QUICK, "-of", "cog", "--co", "COMPRESS=ZSTD,LEVEL=3", "--co", "BIGTIFF=YES")
    assert provenance(cog)["method"]["method"] == "bicubic"
    wrong = run(*line, tmp_path / "b.tif", *QUICK, "--co", "COMPRES=ZSTD", code=1).stderr
    assert "does not support creation option COMPRES" in wrong
    assert "PNG" in run(*line, tmp_path / "b.tif", "-of", "PNG", code=2).stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_log_that_cannot_be_written_on_is_one_warning(pair, tmp_path):
    line = ["fuse", pair.hsi, pair.msi, tmp_path / "o.tif", *QUICK[:-1], "-q"]
    plain = run(*line).stderr
    told = run(*line, "--overwrite", "--log-file=/dev/full").stderr
    first, _, rest = told.partition("\n")
    assert "warning: the log file /dev/full ends here: it can't be written (No space" in first
    assert rest == plain
    assert (tmp_path / "o.tif").exists()


def test_a_log_holds_all_and_how_the_run_ended(pair, tmp_path, monkeypatch):
    log, out = tmp_path / "fuse.log", tmp_path / "o.tif"
    line = ["fuse", pair.hsi, pair.msi, out, *QUICK, f"--log-file={log}"]
    try:
        run(*line)
        assert "INFO hsfuse.fusion.run: grid: common extent 12 x 12" in log.read_text()
        assert log.read_text().splitlines()[-1].partition(" INFO ")[2].startswith(f"hsfuse: {out}: ")
        run(*line, code=1)
        assert log.read_text().splitlines()[-1].partition(" ERROR ")[2].startswith(f"hsfuse: error: {out} exists")
        monkeypatch.setattr("hsfuse.cli.fuse.fuse_and_report", lambda *a: 1 / 0)
        assert CliRunner().invoke(main, [str(word) for word in line]).exit_code == 70
        assert log.read_text().splitlines()[-1] == "ZeroDivisionError: division by zero"
    finally:
        logging.getLogger("hsfuse").handlers.clear()
        start_logging()

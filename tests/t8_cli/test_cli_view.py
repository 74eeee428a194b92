"""`hsfuse view`: what is wrong is told before anything is served, and Ctrl-C is its ordinary end."""

import signal
import subprocess
import sys
from urllib.request import urlopen

from assessed_scene import make_scene
from click.testing import CliRunner

from hsfuse.cli import main


def test_it_serves_until_interrupted_without_torch(tmp_path):
    path = make_scene(tmp_path).path("truth.tif")
    code = "import sys; from hsfuse.cli import main\ntry: main(['view', sys.argv[1], '--no-browser'])\n"
    code += "finally: print('torch' in sys.modules)"
    command = [
        sys.executable,
        "-c",
        f"import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n{code}",
        path,
    ]
    run = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        address = run.stdout.readline().strip()
        with urlopen(address, timeout=30) as answer:
            assert b"<h1>truth.tif</h1>" in answer.read()
        run.send_signal(signal.SIGINT)
        out, told = run.communicate(timeout=30)
    finally:
        run.kill()
    assert run.returncode == 0
    assert out == "False\n"
    assert told.splitlines() == ["hsfuse: Ctrl-C ends it", "hsfuse: ended"]


def test_a_page_of_something_else_beside_the_cube_is_no_report(tmp_path, monkeypatch):
    path = make_scene(tmp_path).path("truth.tif")
    page = tmp_path / "truth.html"
    page.write_text('<script type="application/json" class="data">[1]</script>')
    shown = []
    monkeypatch.setattr("hsfuse.assessment.report.serve.serve", lambda view, port, ready: shown.append(view.page))
    result = CliRunner().invoke(main, ["view", path, "--no-browser"])
    assert (result.exit_code, result.stderr.count("\n")) == (0, 1)
    assert "the cube is shown without it" in result.stderr
    assert "<h1>truth.tif</h1>" in shown.pop()
    result = CliRunner().invoke(main, ["view", path, "--no-browser", "--report", str(page)])
    assert (result.exit_code, result.stderr.count("\n"), shown) == (1, 1, [])
    assert "isn't a report of truth.tif" in result.stderr


def test_what_is_missing_is_one_line(tmp_path):
    for arguments in (
        [str(tmp_path / "no.tif")],
        [make_scene(tmp_path).path("truth.tif"), "--report", str(tmp_path / "no.html")],
    ):
        result = CliRunner().invoke(main, ["view", *arguments])
        assert result.exit_code == 1
        assert result.stderr.count("\n") == 1
        assert "no." in result.stderr
    assert CliRunner().invoke(main, ["view", "x.tif", "--port", "70000"]).exit_code == 2

"""The group: lazy commands, exit codes, one line for each error, what goes to which stream."""

import errno
import io
import json
import logging
import os
import signal
import subprocess
import sys
from importlib import import_module
from types import ModuleType

import click
import numpy as np
import pytest
from click.testing import CliRunner

from hsfuse.cli import COMMANDS, SELDOM, main, options
from hsfuse.cli.console import print_json, start_logging
from hsfuse.core.errors import GridError
from hsfuse.core.package import __version__

PYTHON = [sys.executable, "-c"]


@pytest.fixture
def failing(monkeypatch):
    """Run `hsfuse fail`, a command that raises what it is given."""
    module = ModuleType("failing")
    monkeypatch.setitem(sys.modules, "failing", module)
    monkeypatch.setitem(COMMANDS, "fail", ("failing", "fail", "Fails."))

    def run(error):
        @click.command()
        def fail():
            raise error

        module.fail = fail
        return CliRunner().invoke(main, ["fail"])

    return run


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_is_there_and_explains_itself(name):
    module, attribute, text = COMMANDS[name]
    command = getattr(import_module(module), attribute)
    assert isinstance(command, click.Command)
    assert command.help
    assert text.endswith(".")
    assert CliRunner().invoke(main, [name, "--help"]).exit_code == 0


def test_help_lists_the_commands():
    result = CliRunner().invoke(main, ["--help"])
    assert result.exit_code == 0
    assert all(f"  {name} " in result.stdout for name in COMMANDS)


def test_version():
    assert CliRunner().invoke(main, ["--version"]).stdout.strip() == f"hsfuse, version {__version__}"


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["srf", "list"], ["srf", "show", "ikonos"]])
def test_light_commands_need_no_torch(arguments):
    lines = "import sys", "from hsfuse.cli import main", f"main({arguments}, standalone_mode=False)"
    code = "\n".join([*lines, "print('torch' in sys.modules)"])
    done = subprocess.run([*PYTHON, code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False"


def test_user_errors_are_one_line(failing):
    result = failing(GridError("the ratio is 3.5, wanted a whole number"))
    assert result.exit_code == 1
    assert result.stderr == "hsfuse: error: the ratio is 3.5, wanted a whole number\n"
    assert result.stdout == ""


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "out.tif"), 1, "error: out.tif: No space left on device"),
        (PermissionError(errno.EACCES, "Permission denied", "x"), 1, "error: x: Permission denied"),
        (MemoryError("Unable to allocate 9 GiB"), 1, "error: out of memory (Unable to allocate 9 GiB)"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), 1, "error: out of memory"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (click.UsageError("no such thing"), 2, "no such thing"),
        (BrokenPipeError(errno.EPIPE, "Broken pipe"), 1, ""),
    ],
)
def test_outside_causes_are_one_line(failing, error, code, words):
    result = failing(error)
    assert result.exit_code == code
    assert words in result.stderr
    assert "Traceback" not in result.stderr
    assert result.stderr.count("\n") <= 1 or code == 2


@pytest.mark.parametrize("error", [ValueError("shapes differ"), RuntimeError("mat1 and mat2"), OSError("no number")])
def test_bugs_show_themselves(failing, error):
    result = failing(error)
    assert result.exit_code == 70
    assert "Traceback" in result.stderr
    assert str(error) in result.stderr
    assert "please report" in result.stderr.splitlines()[-1]


def test_a_command_that_is_misspelt_is_told_what_it_is_like():
    result = CliRunner().invoke(main, ["fusee", "a", "b"])
    assert result.exit_code == 2
    assert "No such command 'fusee'. (Did you mean 'fuse'?)" in result.stderr


def test_unknown_commands_and_options_are_usage_errors():
    for arguments in (["frob"], ["srf", "frob"], ["--frob"], ["simulate", "only-one"], ["info"]):
        result = CliRunner().invoke(main, arguments)
        assert result.exit_code == 2, arguments
        assert "Traceback" not in result.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_interrupt(number, tmp_path):
    """Whoever cleans up isn't stopped by a second SIGTERM."""
    again = "os.kill(os.getpid(), signal.SIGTERM)" if number == signal.SIGTERM else "pass"
    code = f"""
import os, signal, sys, time, types, click, hsfuse.cli as cli
signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background ignores it
@click.command()
def wait():
    try:
        os.kill(os.getpid(), {int(number)})
        time.sleep(30)
    finally:
        {again}
        open({str(tmp_path / "cleaned")!r}, "w").close()
sys.modules["waiting"] = types.SimpleNamespace(wait=wait)
cli.COMMANDS["wait"] = ("waiting", "wait", "Waits.")
cli.main(["wait"])
"""
    done = subprocess.run([*PYTHON, code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 130
    assert done.stderr.strip() == "hsfuse: interrupted"
    assert (tmp_path / "cleaned").exists()


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize(
    ("when", "code"),
    [
        ("cli.click.Command.make_context = lambda *_, **__: tell()", 130),  # before a command begins
        ("atexit.register(tell)", 0),  # after it has ended
    ],
)
def test_signals_before_and_after_a_command(number, when, code):
    program = f"""
import atexit, os, signal, sys, time, hsfuse.cli as cli
signal.signal(signal.SIGINT, signal.default_int_handler)
def tell():
    os.kill(os.getpid(), {int(number)})
    time.sleep(0.2)
{when}
sys.argv = ["hsfuse", "--version"]
cli.run()
"""
    done = subprocess.run([*PYTHON, program], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr


def test_module_runs_as_a_program(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "hsfuse", "info", str(tmp_path / "none.tif")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("hsfuse: error: ")
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""


def test_a_closed_pipe_is_no_error(tmp_path):
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [sys.executable, "-m", "hsfuse", "srf", "list"], stdout=write, stderr=subprocess.PIPE, text=True, check=False
    )
    os.close(write)
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("flags", "seen"),
    [
        ([], "note warning"),
        (["-q"], "warning"),
        (["-qq"], ""),
        (["-v"], "detail note warning"),
        (["-v", "-q"], "note warning"),
    ],
)
def test_quiet_and_verbose_count(flags, seen):
    @click.command()
    @options.verbosity
    def talk():
        log = logging.getLogger("hsfuse.talk")
        log.debug("detail")
        log.info("note")
        log.warning("warning")

    start_logging()
    result = CliRunner().invoke(talk, flags)
    assert result.stdout == ""
    assert " ".join(line.split()[-1] for line in result.stderr.splitlines()) == seen
    assert all(line.startswith("hsfuse: ") for line in result.stderr.splitlines())


def test_other_programs_logs_stay_quiet(capfd):
    start_logging()
    logging.getLogger("rasterio._err").error("spam")
    logging.getLogger("numba.core").info("spam")
    assert capfd.readouterr().err == ""


def test_shared_options_are_named_as_promised():
    @click.command()
    @options.hsi
    @options.msi("MSI", required=True)
    @options.srf
    @options.option_of("msi_bands")
    @options.option_of("mtf")
    @options.option_of("psf_sigma")
    @options.option_of("phase")
    @options.option_of("seed")
    @options.option_of("device")
    @options.overwrite
    @options.json_output
    @options.verbosity
    def all_of_them(**values):
        print_json(values)

    result = CliRunner().invoke(
        all_of_them, ["--hsi=a", "--msi=b", "--srf=sentinel2", "--msi-bands=B2,B3", "-qv", "--json"]
    )
    values = json.loads(result.stdout)
    assert values["msi_bands"] == ["B2", "B3"]
    assert (values["mtf"], values["psf_sigma"], values["phase"]) == (None, None, None)
    assert (values["seed"], values["device"], values["overwrite"], values["as_json"]) == (0, "auto", False, True)


def test_json_is_valid_whatever_the_numbers(monkeypatch):
    out = io.StringIO()
    monkeypatch.setattr(sys, "stdout", out)
    print_json({"a": float("nan"), "b": [float("inf"), 1.5], "c": np.float32(2), "d": np.array([1, 2])})
    assert json.loads(out.getvalue()) == {"a": None, "b": [None, 1.5], "c": 2.0, "d": [1, 2]}


def test_a_command_looks_for_garbage_seldom_and_leaves_small_systems_to_one_thread(monkeypatch):
    """Which a library leaves to the program that uses it: `import hsfuse` changes neither."""
    code = """if 1:
        import atexit, gc, os, sys
        import hsfuse, hsfuse.cli as c
        before = gc.get_threshold()[0], os.environ.get("OPENBLAS_NUM_THREADS")
        atexit.register(lambda: print(*before, gc.get_threshold()[0], os.environ["OPENBLAS_NUM_THREADS"]))
        c.main(["srf", "list"])"""
    monkeypatch.delenv("OPENBLAS_NUM_THREADS", raising=False)
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    done = subprocess.run([*PYTHON, code], capture_output=True, text=True, check=True)
    before, unset, after, threads = done.stdout.splitlines()[-1].split()
    assert (unset, int(after), threads) == ("None", SELDOM, "3")
    assert int(before) < SELDOM

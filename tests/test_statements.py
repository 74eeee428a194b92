"""docs/statements.md: each statement of the README is there, and each test that is to hold one exists."""

from __future__ import annotations

import ast
import csv
import re
import statistics
import tomllib
from pathlib import Path

import house
import pytest
import yaml

import hsfuse
from hsfuse.cli import COMMANDS, main
from hsfuse.cli.console import BUG, CANT, INTERRUPTED, SOME_FAILED
from hsfuse.methods import METHODS

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def statements(text: str) -> list[str]:
    """Sentences of a page and rows of its tables, without headings and blocks of code."""
    text = re.sub(r"^```.*?^```\n|^    .*?\n", "", text, flags=re.MULTILINE | re.DOTALL)
    found: list[str] = []
    for part in re.split(r"\n\s*\n", text):
        if part.startswith("|"):
            rows = [[cell.strip() for cell in row.strip("|").split("|") if cell.strip()] for row in part.splitlines()]
            found += [": ".join(row) for row in rows if row and not set("".join(row)) <= set("-: ")]
        elif not part.startswith("#"):
            found += re.split(r"(?<=[.;]) (?=[A-Z`\[]|scenes)", " ".join(part.split()))
    return [one for one in found if one]


def table() -> dict[str, str]:
    """First words of a statement -> what holds it."""
    rows = re.findall(
        r"^\| (.+) \| (.+) \|$", (ROOT / "docs" / "statements.md").read_text(encoding="utf-8"), re.MULTILINE
    )
    return {first: held for first, held in rows if first not in ("statement", "---")}


def test_each_statement_is_listed_and_each_row_is_of_one():
    listed = table()
    said = [one for one in statements(README) if not re.fullmatch(r"(\[[^]]+\]\([^)]+\)[,· .]*)+", one)]
    unlisted = [one for one in said if not one.startswith("[") and not any(one.startswith(first) for first in listed)]
    assert unlisted == []
    assert [first for first in listed if not any(one.startswith(first) for one in said)] == []


def test_each_test_exists():
    for held in table().values():
        for one in held.split(", "):
            path, _, name = one.partition("::")
            body = ast.parse((ROOT / path).read_text(encoding="utf-8")).body
            assert name in {node.name for node in body if hasattr(node, "name")}, one


def test_exit_codes():
    told = re.search(r"Exit codes are (.*?)\.\s", README, re.DOTALL)[1]
    codes = [int(code) for code in re.findall(r"(?:^|, )(\d+) ", " ".join(told.split()))]
    assert codes == [0, CANT, 2, 3, SOME_FAILED, BUG, INTERRUPTED]
    helped = re.search(r"Exit codes: (.*)", " ".join(main.help.split()))[1]
    assert set(codes) == {int(code) for code in re.findall(r"\b(\d+) ", helped)}


def test_commands():
    rows = re.findall(r"^\| (`.*?`) \|", README, re.MULTILINE)
    assert {name for row in rows for name in re.findall(r"`(\w+)`", row)} >= set(COMMANDS)


def test_as_many_methods_as_it_says():
    assert len(METHODS) == 15
    assert "fifteen methods" in README


def project() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def workflow(name: str) -> dict:
    return yaml.safe_load((ROOT / ".github" / "workflows" / name).read_text(encoding="utf-8"))["jobs"]


def recipes() -> dict[str, tuple[str, str]]:
    """Target of the Makefile -> what it stands on, and its commands with variables filled in."""
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    values = dict(re.findall(r"^(\w+) *[:?]?= *(.*)$", text, re.MULTILINE))
    for _ in range(3):
        text = re.sub(r"\$\((\w+)\)", lambda found: values.get(found[1], found[0]), text)
    found = re.findall(r"^([\w/.-]+):(?!=) *(.*)\n((?:\t.*\n(?:  .*\n)?)*)", text, re.MULTILINE)
    return {name: (needs, commands) for name, needs, commands in found}


def test_the_commands_to_try_it_are_made_and_run_on_the_oldest_python():
    block = re.search(r"On a machine with Python (\S+) or newer.*?\n\n(.*?)\n\n", README, re.DOTALL)
    assert project()["project"]["requires-python"] == f">={block[1]}"
    made = recipes()
    assert set(re.findall(r"make ([\w-]+)", block[2])) == {"demo", "test"} <= set(made)
    assert " fuse " in made["demo"][1]
    assert " assess " in made["demo"][1]
    assert made["test"][0].split() == ["lint", "types", "unit"]
    test = workflow("ci.yml")["test"]
    assert block[1] in [one["python"] for one in test["strategy"]["matrix"]["include"]]
    assert any(step.get("run", "").endswith("test") for step in test["steps"])
    (here,) = re.findall(r"^make (\w+)$", (ROOT / ".ci" / "run").read_text(encoding="utf-8"), re.MULTILINE)
    assert here == "test"


def test_demo_and_test_install_a_pinned_set():
    made = recipes()
    for name in ("demo", "lint", "types", "unit"):
        assert made[name][0] == ".venv/installed", name
    assert "-c constraints.txt -e '.[dev]'" in made[".venv/installed"][1]
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [line.split("#")[0].strip() for line in lines if line.split("#")[0].strip()]
    assert all(re.fullmatch(r"[\w.-]+(\[\w,]+\])?==[\w.+]+( *;.*)?", pin) for pin in pins), pins
    told = project()["project"]
    wanted = [*told["dependencies"], *(need for needs in told["optional-dependencies"].values() for need in needs)]
    named = {re.match(r"[\w.-]+", need)[0].lower() for need in wanted} - {"hsfuse", "mamba-ssm"}
    assert named <= {re.match(r"[\w.-]+", pin)[0].lower() for pin in pins}


def test_a_plain_installation_is_the_package_alone():
    built = project()["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert built == {
        "packages": ["hsfuse"],
        "force-include": {"srf": "hsfuse/_data/srf", "models": "hsfuse/_data/models"},
    }
    tools = {"pytest", "ruff", "mypy", "mkdocs", "pre-commit", "hypothesis"}
    assert not tools & {re.match(r"[\w-]+", need)[0] for need in project()["project"]["dependencies"]}
    clean = next(step["run"] for step in workflow("release.yml")["try"]["steps"] if "clean" in step.get("name", ""))
    assert "dist/${{ matrix.package }}\n" in clean  # without an extra


def test_the_index_of_the_smaller_torch_is_the_one_that_is_tried():
    (index,) = re.findall(r"PIP_EXTRA_INDEX_URL=(\S+?)`", README)
    tried = [job["env"]["PIP_EXTRA_INDEX_URL"] for job in workflow("ci.yml").values()]
    assert all(index in one for one in tried)
    assert index in (ROOT / "Dockerfile").read_text(encoding="utf-8")
    version = next(iter(re.findall(r"^torch==(\S+)", (ROOT / "constraints.txt").read_text(), re.MULTILINE)))
    assert "+" not in version  # both builds are of the version that is pinned


def figures_of_the_table() -> dict[str, tuple[str, str, str]]:
    """Way to fuse, as `benchmarks.frontier` names it -> processor seconds, PSNR, SAM, as the README prints them."""
    rows = re.findall(
        r"^\| `--(method|effort) ([\w-]+)`[^|]*\| ([^|]+) \| ([\d.]+) \| ([\d.]+) \|$", README, re.MULTILINE
    )
    return {("effort " if how == "effort" else "") + name: tuple(told) for how, name, *told in rows}


def test_the_table_is_what_the_frontier_wrote():
    told = figures_of_the_table()
    assert list(told) == ["bicubic", "effort fast", "effort normal", "effort best"]
    with (ROOT / "examples" / "frontier.csv").open(encoding="utf-8") as file:
        run = {row["name"]: row for row in csv.DictReader(file) if row["scene"] == "Indian Pines x4"}
    for name, figures in told.items():
        seconds, psnr, sam = (float(run[name][one]) for one in ("cpu_s", "psnr_db", "sam_deg"))
        assert figures == (f"{seconds:.1f}", f"{psnr:.2f}", f"{sam:.3f}"), name


@pytest.mark.parametrize(
    "name",
    ["bicubic", *(pytest.param(f"effort {effort}", marks=pytest.mark.slow) for effort in ("fast", "normal"))],
)
def test_the_table_s_accuracy_is_the_example_s(name, tmp_path):
    data = ROOT / "examples" / "data"
    kind = "effort" if name.startswith("effort") else "method"
    files = data / "lrhsi.hdr", data / "sentinel2.tif"
    made = hsfuse.fuse(*files, "sentinel2", tmp_path / "fused.tif", **{kind: name.removeprefix("effort ")})
    cubes = []
    for path in (made.output, data / "indian_pines_reference.tif"):
        with hsfuse.open_cube(path) as reader:
            cubes.append(reader.read().data)
    _, psnr, sam = figures_of_the_table()[name]
    assert hsfuse.metrics.psnr(*cubes, 1.0) == pytest.approx(float(psnr), abs=0.01)
    assert hsfuse.metrics.sam_degrees(*cubes) == pytest.approx(float(sam), abs=0.005)


def test_the_house_is_told_in_figures(tmp_path, monkeypatch, capsys):
    """Of a small tree; `tests/test_architecture.py` holds what the figures of this one may be."""
    for name, text in {"core/grid.py": "A = 1\n", "io/open.py": "from hsfuse.core.grid import A\n\nB = A\n"}.items():
        path = tmp_path / "hsfuse" / name
        path.parent.mkdir(parents=True)
        path.write_text(text)
    monkeypatch.setattr(house, "run", lambda root, *arguments: ({"hsfuse.cli"}, False, 0.5))
    monkeypatch.setattr("sys.argv", ["house.py", "--tree", str(tmp_path)])
    house.main()
    told = dict(line.split("  ", 1) for line in capsys.readouterr().out.splitlines())
    wanted = {"floors of imports": "2", "arrows between rooms": "1", "files": "2"}
    assert {key: told[key].strip() for key in wanted} == wanted
    assert told["hsfuse --help"].strip() == "1 modules, without torch, 0.50 s of processor time"


def test_make_test_all_and_test_portable_are_what_they_are_said_to_be():
    made, pytest_of = recipes(), project()["tool"]["pytest"]["ini_options"]
    assert "-m 'not slow'" in pytest_of["addopts"]
    assert made["test-all"][1].rstrip().endswith('-m ""')  # of two, the last counts: all tests
    assert "lint types" in made["test-all"][0]
    portable = made["test-portable"][1]
    for words in ("ATEN_CPU_CAPABILITY=default NUMBA_CPU_NAME=generic", "ATEN_CPU_CAPABILITY=avx2"):
        assert words in portable
    assert all(room in portable for room in ("t1_physics", "t2_metrics", "t2_nets", "t3_calibration", "t4_methods"))
    assert "mkdocs build --quiet --strict" in made["docs"][1]


#: How the README's rows on what not knowing costs begin, and those of docs/accuracy.md that are meant.
OFF_BY = {
    "a PSF": ("a Gaussian", "a box", "an elliptic", "a comet"),
    "a shift": ("a shift", "a rotation", "a drift"),
    "a PSF with a tail": ("tail",),
    "a response": ("a response",),
    "a gain": ("a gain", "a gamma"),
    "stripes": ("stripes",),
    "a smile": ("a smile",),
    "thin cloud": ("thin cloud",),
}


def behind_told(first: tuple[str, ...]) -> list[float]:
    """dB by which `glp-reg` is behind the same told the truth, in all rows of docs/accuracy.md that begin so."""
    page = (ROOT / "docs" / "accuracy.md").read_text(encoding="utf-8")
    found = []
    for block in re.findall(r"^\| `glp-reg`, off by .*\n(?:\|.*\n)+", page, re.MULTILINE):
        for row in block.splitlines():
            name, *cells = [cell.strip() for cell in row.strip("|").split("|")]
            if name.startswith(first):
                psnr = [float(cell.split("/")[0]) for cell in cells]
                found += [told - default for default, told in zip(psnr[::2], psnr[1::2], strict=True)]
    return found


def test_what_not_knowing_costs_is_what_the_tables_say():
    for begins, first in OFF_BY.items():
        median, most = re.search(rf"^\| {begins}.*? \| (\S+) \| (\S+) \|", README, re.MULTILINE).groups()
        losses = behind_told(first)
        assert len(losses) >= 9
        assert float(median) == pytest.approx(max(0.0, statistics.median(losses)), abs=0.006), begins
        assert float(most) == pytest.approx(max(losses), abs=0.006), begins

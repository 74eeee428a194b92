"""Tables of jobs: what is read from each kind, and what is told before anything starts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from scenes import memory_scene, save_pair

from hsfuse.batch import read_jobs
from hsfuse.core.errors import SettingError

ROW = {"hsi": "hsi.tif", "msi": ["b2.tif", "b3.tif"], "output": "out.tif", "report": "out.html", "srf": "own.csv",
       "mtf": 0.3, "stac": True, "msi_bands": ["B2", "B3"], "creation_options": {"COMPRESS": "ZSTD"}}  # fmt: skip
CSV = """\
hsi, msi, output, report, srf, mtf, stac, msi-bands, co, qa
hsi.tif, "b2.tif,b3.tif", out.tif, out.html, own.csv, 0.3, yes, "B2,B3", COMPRESS=ZSTD,
"""
TOML = """\
[defaults]
srf = "own.csv"
mtf = 0.2
stac = true
[[jobs]]
hsi = "hsi.tif"
msi = ["b2.tif", "b3.tif"]
output = "out.tif"
report = "out.html"
mtf = 0.3
msi-bands = ["B2", "B3"]
co = { COMPRESS = "ZSTD" }
"""


@pytest.fixture
def folder(tmp_path):
    for name in ("hsi.tif", "b2.tif", "b3.tif", "own.csv"):
        (tmp_path / name).touch()
    return tmp_path


def write(folder: Path, name: str, text: str) -> Path:
    (folder / name).write_text(text, encoding="utf-8")
    return folder / name


@pytest.mark.parametrize(("name", "text"), [("a.csv", CSV), ("a.toml", TOML), ("a.jsonl", json.dumps(ROW))])
def test_each_kind_of_table_says_the_same(folder, name, text):
    table = read_jobs(write(folder, name, text), {"method": "bicubic", "mtf": 0.1})
    assert not table.problems
    job = table.jobs[0]
    assert (job.hsi, job.msi) == (folder / "hsi.tif", (folder / "b2.tif", folder / "b3.tif"))
    assert (job.output, job.report) == (folder / "out.tif", folder / "out.html")
    options = job.options
    assert (options.srf, options.mtf, options.stac) == (str(folder / "own.csv"), 0.3, True)
    assert (options.msi_bands, options.creation_options) == (("B2", "B3"), {"COMPRESS": "ZSTD"})
    assert (options.method, options.qa) == ("bicubic", None)


def test_the_command_line_goes_before_defaults_and_a_job_before_both(folder):
    text = TOML.replace('srf = "own.csv"', 'srf = "landsat8"').replace("mtf = 0.3", "seed = 3")
    options = read_jobs(write(folder, "a.toml", text), {"seed": 1, "mtf": 0.4}).jobs[0].options
    assert (options.srf, options.mtf, options.seed) == ("landsat8", 0.4, 3)


GOOD = "hsi.tif,b2.tif,o.tif"


@pytest.mark.parametrize(
    ("more", "rows", "told"),
    [
        ("methd", [f"{GOOD},x", "hsi.tif,b2.tif,p.tif,y"], "line 1: fuse has no option 'methd'; did you mean 'method'"),
        ("resume", [f"{GOOD},1"], "line 1: fuse has no option 'resume'; it is an option of the whole batch"),
        ("hsi", [f"{GOOD},b3.tif"], "line 1: the column 'hsi' stands there twice"),
        ("msi-bands,msi_bands", [f"{GOOD},B2,B3"], "line 1: the column 'msi_bands' stands there twice"),
        ("mtf", [f"{GOOD},,1"], "line 2: more entries than columns"),
        ("mtf", ["hsi.tif,,o.tif"], "line 2: no msi"),
        ("mtf", [f"{GOOD},high"], 'line 2: mtf is "high"'),
        ("mtf", ["no.tif,b2.tif,o.tif"], "line 2: the HSI "),
        ("mtf", ["hsi.tif,b2.tif,hsi.tif"], "line 2: the output "),
        ("mtf", ["hsi.tif,b2.tif,no/o.tif"], "line 2: the output folder "),
        ("method", [f"{GOOD},magic"], "line 2: there is no method 'magic'"),
        ("srf", [f"{GOOD},magic"], "line 2: "),
        ("mtf", [GOOD, "hsi.tif,b3.tif,./o.tif"], "is already written by "),
        ("mtf", ["hsi.tif,b2.tif,."], "line 2: the output "),
        ("mtf", ["hsi.tif,b2.tif,7"], "line 2: the suffix '' of "),
        ("mtf", [GOOD, "hsi.tif,b2.tif,3.5"], "line 3: the suffix '.5' of "),
        ("mtf", [f"hsi.tif,b2.tif,{'x' * 300}.tif"], "x.tif can't be the path of a file: the name is too long"),
        ("mtf", [f"{'x' * 300}.tif,b2.tif,o.tif"], "line 2: the HSI "),
        ("mtf", ["hsi.tif,b2.tif,o\0.tif"], "line 2: output is 'o\\x00.tif', wanted text without NUL"),
        ("mtf", [f"{GOOD},nan"], "line 2: mtf is nan, wanted a number between 0 and 1"),
        ("tile", [f"{GOOD},0"], "line 2: tile is 0, wanted a whole number of at least 1"),
        ("overlap", [f"{GOOD},-1"], "line 2: overlap is -1, wanted a whole number of at least 0"),
        ("qa", [f"{GOOD},p.tif", "hsi.tif,b3.tif,p.tif,"], "p.tif is already written by "),
    ],
)
def test_what_is_wrong_is_told_in_a_line_each(folder, more, rows, told):
    table = read_jobs(write(folder, "a.csv", "\n".join([f"hsi,msi,output,{more}", *rows])))
    if not table.problems:
        table.check()
    assert len(table.problems) == 1, table.problems
    assert told in table.problems[0]
    assert "\n" not in table.problems[0]


def test_each_row_that_is_wrong_is_told(folder):
    table = read_jobs(write(folder, "a.csv", f"hsi,msi,output\nno.tif,b2.tif,7\n{GOOD}\nhsi.tif,b2.tif,o.jpg\n"))
    table.check()
    assert [problem.partition(": ")[0].rpartition(" ")[2] for problem in table.problems] == ["2", "4"]


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"hsi": "a\0"}, r"hsi is 'a\x00', wanted text without NUL"),
        ({"output": "\ud800.tif"}, r"output is '\ud800.tif', wanted text without NUL or half a surrogate pair"),
        ({"msi": ["b2.tif", "\0"]}, r"msi is '\x00', wanted text"),
        ({"creation_options": {"A": "\0"}}, r"creation_options is '\x00', wanted text"),
        ({"hsi": {"a": 1}}, "hsi is {'a': 1}, wanted a path"),
        ({"hsi": ["/x.hdr"]}, "hsi is ['/x.hdr'], wanted a path"),
        ({"msi": {"a": 1}}, "msi is {'a': 1}, wanted a path"),
        ({"msi": [["b2.tif"]]}, "msi is ['b2.tif'], wanted a path"),
        ({"report": 3}, "report is 3, wanted a path"),
        ({"qa": {"a": 1}}, "qa is {a = 1}, wanted a path"),
    ],
)
def test_what_is_no_path_is_told(folder, changed, told):
    table = read_jobs(write(folder, "a.jsonl", json.dumps(ROW | changed)))
    assert table.problems == [one for one in table.problems if one.startswith(f"{folder}/a.jsonl, line 1: {told}")]
    assert len(table.problems) == 1


def test_what_is_wrong_with_several_alike_is_one_line(folder):
    rows = [f"hsi.tif,b2.tif,no/{n}.tif" for n in range(4)]
    table = read_jobs(write(folder, "a.csv", "\n".join(["hsi,msi,output", *rows, "no.tif,b2.tif,p.tif"])))
    table.check()
    first, second = table.problems
    told = f"line 2 (and 3 jobs after it): the output folder {folder / 'no'} doesn't exist; make it first"
    assert first.endswith(told)
    assert "line 6: the HSI " in second


def test_tiles_and_creation_options_are_tried_before_anything_starts(tmp_path):
    save_pair(tmp_path, memory_scene((12, 12)))
    rows = ["10,", "10,", ",NONSENSE=1", "24,COMPRESS=ZSTD"]
    lines = [f"hsi.tif,msi.tif,{n}.tif,{row}" for n, row in enumerate(rows)]
    table = read_jobs(write(tmp_path, "a.csv", "\n".join(["hsi,msi,output,tile,co", *lines])))
    table.check()
    first, second = table.problems
    assert "line 2: --tile is 10, wanted at least 12 MSI pixels" in first
    assert "line 4: " in second
    assert "does not support creation option NONSENSE" in second


@pytest.mark.parametrize("name", ["a.zarr", "a.dat", "a.tif"])
def test_what_cannot_go_on_may_be_resumed_all_the_same_with_tiles_of_its_own(tmp_path, name):
    save_pair(tmp_path, memory_scene((12, 12)))
    line = {"hsi": "hsi.tif", "msi": "msi.tif", "output": name, "tile": 16, "overlap": 4}
    table = read_jobs(write(tmp_path, "a.jsonl", json.dumps(line)), {"resume": True})
    table.check()
    assert table.problems == []


def test_unknown_names_are_told_in_every_kind_of_table(folder):
    lines = write(folder, "a.jsonl", json.dumps(ROW | {"x": 1}))
    assert "a.jsonl, line 1: fuse has no option 'x'" in read_jobs(lines).problems[0]
    tables = write(folder, "a.toml", TOML.replace("mtf = 0.2", "mft = 0.2"))
    assert "[defaults]: fuse has no option 'mft'; did you mean 'mtf'?" in read_jobs(tables).problems[0]


def test_an_effort_for_all_is_for_the_methods_that_know_one(folder):
    rows = 'hsi = "hsi.tif"\nmsi = "b2.tif"'
    methods = [f'[[jobs]]\n{rows}\noutput = "{m}.tif"\nmethod = "{m}"' for m in ("srlf", "bicubic", "srlf-any")]
    table = read_jobs(write(folder, "a.toml", "\n".join(['[defaults]\neffort = "best"', *methods])))
    assert not table.problems
    assert [job.options.effort for job in table.jobs] == ["best", "normal", "best"]
    own = "\n".join([methods[1], 'effort = "best"'])
    assert read_jobs(write(folder, "b.toml", own)).jobs[0].options.effort == "best"  # which fuse refuses


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("a.csv", "", "has no jobs"),
        ("a.xlsx", "", "wanted .csv, .jsonl or .toml"),
        ("a.jsonl", "{", "line 1: not JSON"),
        ("a.jsonl", "[]", "wanted an object"),
        ("a.toml", "jobs = 3", r"wanted a table \[defaults\]"),
        ("a.toml", "[scene]\n", "it has 'scene'"),
    ],
)
def test_what_is_no_table_is_refused(folder, name, text, told):
    with pytest.raises(SettingError, match=told):
        read_jobs(write(folder, name, text))


def test_a_missing_table_is_told(tmp_path):
    with pytest.raises(SettingError, match="can't be read"):
        read_jobs(tmp_path / "no.csv")


@pytest.mark.parametrize("between", [";", "\t"])
def test_other_characters_between_columns_are_told(folder, between):
    with pytest.raises(SettingError, match="wanted commas between columns"):
        read_jobs(write(folder, "a.csv", f"hsi,msi,output\n{GOOD}\n".replace(",", between)))

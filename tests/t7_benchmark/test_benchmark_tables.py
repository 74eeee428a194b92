"""Tables of stored results: means, leads, Markdown, and the pages' own."""

from dataclasses import replace
from pathlib import Path

import pytest

from hsfuse.benchmark import Case, Method, Noise, Psf, Row, Scene, Sensor, fill, read_csv, render
from hsfuse.benchmark.results import Outcome, write_csv
from hsfuse.benchmark.summary import lead, overview, summary
from hsfuse.core.errors import InputError, SettingError

ROOT = Path(__file__).parents[2]
SENSOR = Sensor("sentinel2a", ("B2", "B8"))
FIGURES = {
    ("a", 4): {"bicubic": (40.0, 3.0), "gsa": (42.0, 2.0), "any": (45.0, 1.0), "net": (42.5, 2.5)},
    ("b", 4): {"bicubic": (30.0, 5.0), "gsa": (29.0, 4.0), "any": (31.0, 3.0), "net": (33.0, 1.0)},
    ("a", 8): {"bicubic": (35.0, 6.0), "gsa": (36.0, 5.0), "any": (37.0, 5.5), "net": None},
}
FUSERS = {"any": "srlf-any", "net": "srlf"}


def row(scene, scale, label, figures):
    method = Method(FUSERS.get(label, label), label)
    case = Case(Scene(scene, Path(scene)), scale, SENSOR, Noise(35.0, 40.0), Psf(sigma=0.4), 3, method)
    if figures is None:
        return Row(case, Outcome(error="no | memory"))
    metrics = {"psnr": figures[0], "sam": figures[1], "ergas": None}
    return Row(case, Outcome(metrics, {"fit": 1.0, "fuse": float(scale), "wall": 20.0, "cpu": 30.0}, 400.0, "cpu"))


@pytest.fixture(scope="module")
def rows():
    return [row(*pair, label, figures) for pair, methods in FIGURES.items() for label, figures in methods.items()]


def texts(line):
    return [" ".join(cell.text + "*" * cell.best for cell in entry) for entry in line]


def test_stored_rows_give_the_same_tables(rows, tmp_path):
    write_csv(rows, tmp_path / "x.csv")
    again = read_csv(tmp_path / "x.csv")
    assert [r.case.group for r in again] == [r.case.group for r in rows]
    assert [(r.case.seed, r.case.method.name) for r in again] == [(3, r.case.method.name) for r in rows]
    for form in ("all", "tables", "overview", "summary", "lead"):
        assert render(again, form) == render(rows, form)


def test_other_files_are_no_results(rows, tmp_path):
    for content, said in {
        b"a,b\n1,2\n": "isn't the results.csv of a benchmark: it has no column 'psf_sigma'",
        bytes(range(256)) * 99: "isn't the results.csv of a benchmark, or damaged",
        b"": "has no results; wanted the results.csv of a benchmark",
    }.items():
        (tmp_path / "x.csv").write_bytes(content)
        with pytest.raises(InputError) as told:
            read_csv(tmp_path / "x.csv")
        assert str(told.value) == f"{tmp_path / 'x.csv'} {said}"
    path, whole = tmp_path / "x.csv", tmp_path / "whole.csv"
    write_csv(rows, whole)
    head, first, *_ = whole.read_text().splitlines()
    path.write_text(f"{head}\n{first[:20]}")
    with pytest.raises(InputError, match="or damaged"):
        read_csv(path)
    with pytest.raises(InputError, match="can't be read"):
        read_csv(tmp_path / "y.csv")


def test_overview_shows_what_differs(rows):
    table = overview(rows)
    assert table.head[1:] == ("a, x4", "b, x4", "a, x8")
    assert texts(dict(table.lines)["gsa"]) == ["42.00 2.000", "29.00 4.000", "36.00 5.000*"]
    assert texts(dict(table.lines)["net"])[2] == "- -"


def test_means_are_over_scenes_on_which_no_method_failed(rows):
    table = summary(rows)
    assert table.head[1:] == ("x4, SNR HSI 35, MSI 40 dB (2)", "first, of 2", "CPU s")
    lines = {label: texts(line) for label, line in table.lines}
    assert lines["gsa"] == ["35.50 3.000", "0 0", "30.0"]
    assert lines["any"] == ["38.00* 2.000", "1 1", "30.0"]
    assert lines["net"] == ["37.75 1.750*", "1 1", "30.0"]


def test_a_lead_is_over_the_best_rival_of_each_figure(rows):
    table = lead(rows)
    assert table.head[0] == "lead of net"
    lines = {label: [[cell.text for cell in entry] for entry in line] for label, line in table.lines}
    assert lines["a"] == [["+0.50 dB (gsa)", "-0.500° (gsa)"], ["-"]]
    assert lines["b"] == [["+3.00 dB (bicubic)", "+3.000° (gsa)"], ["-"]]
    assert [cell.best for cell in table.lines[0][1][0]] == [True, False]
    assert lead(rows, "any").head[0] == "lead of any"
    with pytest.raises(SettingError, match="no rows of other"):
        lead(rows, "other")


def other(scene, label, psnr, **changes):
    """A row at ratio 4 under other circumstances."""
    found = row(scene, 4, label, (psnr, 1.0))
    return replace(found, case=replace(found.case, **changes))


@pytest.mark.parametrize(
    ("name", "values", "texts_"),
    [
        ("sensor", (SENSOR, Sensor("ikonos")), ("sentinel2a B2 B8", "ikonos")),
        ("psf", (Psf(sigma=0.4), Psf(mtf=0.2)), ("PSF sigma 0.4 LR pixels", "MTF 0.2")),
    ],
)
def test_sensors_and_psfs_of_one_scene_stay_apart(name, values, texts_):
    found = [
        other("a", label, psnr + 10 * i, **{name: value})
        for i, value in enumerate(values)
        for label, psnr in (("net", 42.0), ("gsa", 40.0 + i))
    ]
    heads = [f"x4, {text}, SNR HSI 35, MSI 40 dB" for text in texts_]
    leads = lead(found)
    assert list(leads.head[1:]) == heads
    assert [entry[0].text for entry in leads.lines[0][1]] == ["+2.00 dB (gsa)", "+1.00 dB (gsa)"]
    means = summary(found)
    assert list(means.head[1:3]) == [f"{head} (1)" for head in heads]
    assert [entry[0].text for entry in dict(means.lines)["gsa"][:2]] == ["40.00", "51.00"]


def test_scenes_with_a_sensor_each_share_a_column():
    found = [other("a", "net", 42.0), other("b", "net", 44.0, sensor=Sensor("ikonos"))]
    assert summary(found).head[1] == "x4, SNR HSI 35, MSI 40 dB (2)"


def test_marked_places_are_filled_and_nothing_else(rows):
    text = "# A\n\n<!-- benchmark:x overview -->\nold\n<!-- /benchmark -->\n"
    text += "\n<!-- benchmark:x -->\n<!-- /benchmark -->\nend\n"
    filled = fill(text, {"x": rows})
    assert filled.startswith("# A\n\n<!-- benchmark:x overview -->\n\n| PSNR")
    assert filled.endswith("\n<!-- /benchmark -->\nend\n")
    assert "old" not in filled
    assert "**a, x8, sentinel2a B2 B8, SNR HSI 35, MSI 40 dB, PSF sigma 0.4 LR pixels**" in filled
    assert "net failed: no \\| memory" in filled
    assert fill(filled, {"x": rows}) == filled
    with pytest.raises(SettingError, match="there are no results 'x'"):
        fill(text, {"y": rows})
    with pytest.raises(SettingError, match="there is no form 'view'"):
        fill(text.replace("overview", "view"), {"x": rows})


def test_the_pages_tables_are_those_of_the_stored_results():
    stored = {file.stem: read_csv(file) for file in sorted((ROOT / "examples" / "results").glob("*.csv"))}
    pages = [*sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / "models").glob("*.md"))]
    texts = {page: page.read_text(encoding="utf-8") for page in pages}
    assert all(f"<!-- benchmark:{name}" in "".join(texts.values()) for name in stored)
    for page, text in texts.items():
        assert fill(text, stored) == text, f"run `make tables`: {page.name}"

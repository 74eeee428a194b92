"""The documentation's blocks work as printed, its figures are the code's, and its links lead somewhere."""

from __future__ import annotations

import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
from glob import glob
from pathlib import Path

import matplotlib
import numpy as np
import pytest
import rasterio
from click.testing import CliRunner
from rasterio.windows import Window

from hsfuse.assessment.checks import AGREES, DISAGREES, GAIN, GUESSED, MASKED, RANK, SHIFT_PX, UNSEEN, WEAKEST
from hsfuse.cli import main
from hsfuse.io import open_cube

matplotlib.use("Agg")
ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
#: Pages whose blocks are run; the first leaves what the others use.
PAGES = ("tutorial", "methods", "trust", "report", "products", "sensors", "pipelines", "command-line")
#: Added to each `hsfuse fuse` that is to succeed; the last one of an option given twice counts.
QUICK = ("--method", "bicubic")
#: The example's band (from 1) whose centre lies below that of the one before, where its two detectors overlap.
BACK = 32


def steps(text: str) -> list[tuple[str, str, int]]:
    """(language, command or code, exit code) of a page's blocks; `# exit code N` follows where it isn't to be 0."""
    found = []
    for language, block in re.findall(r"^```(console|python)\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        if language == "python":
            found.append((language, block, 0))
            continue
        for command, code in re.findall(r"^\$ ([^\n]+)(?:\n# exit code (\d+))?", block, re.MULTILINE):
            found.append((language, command, int(code or 0)))
    return found


def run(command: str, code: int) -> None:
    words = shlex.split(command)
    settings = {}
    while "=" in words[0]:
        name, _, value = words.pop(0).partition("=")
        settings[name] = value
    words = [found for word in words for found in (sorted(glob(word)) if "*" in word else [word])]  # as a shell does
    if words[0] == "python":
        arguments, sys.argv = sys.argv, words[1:]
        try:
            runpy.run_path(words[1], run_name="__main__")
        finally:
            sys.argv = arguments
        return
    assert words.pop(0) == "hsfuse", command
    quick = QUICK if words[0] == "fuse" and code == 0 else ()
    done = CliRunner(env=settings).invoke(main, [*words, *quick])
    assert done.exit_code == code, f"$ {command}\n{done.output}"
    assert done.output, command


def play(page: str) -> None:
    for language, text, code in steps((DOCS / f"{page}.md").read_text(encoding="utf-8")):
        if language == "console":
            run(text, code)
        else:
            exec(compile(text, f"docs/{page}.md", "exec"), {})


def cut(name: str, folder: Path, side: int) -> None:
    """The example's file in small: its corner, and of many bands every third and that after which centres step back."""
    with rasterio.open(ROOT / "examples" / "data" / name) as whole:
        bands = [band for band in whole.indexes if whole.count < 10 or band % 3 == 1 or band == BACK]
        same = {key: whole.profile[key] for key in ("driver", "dtype", "crs", "transform", "nodata")}
        with rasterio.open(folder / name, "w", width=side, height=side, count=len(bands), **same) as part:
            part.write(whole.read(bands, window=Window(0, 0, side, side)))
            part.update_tags(**whole.tags())
            part.scales = [whole.scales[band - 1] for band in bands]
            for number, band in enumerate(bands, 1):
                part.set_band_description(number, whole.descriptions[band - 1])


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder that looks like the project's root, with a smaller scene, and what the tutorial makes."""
    folder = tmp_path_factory.mktemp("docs")
    for name in ("srf", "models"):
        (folder / name).symlink_to(ROOT / name)
    shutil.copytree(ROOT / "examples" / "batch", folder / "examples" / "batch")
    shutil.copy(ROOT / "examples" / "make_product_folders.py", folder / "examples")
    data = folder / "examples" / "data"
    data.mkdir()
    for name, side in (("lrhsi.dat", 20), ("sentinel2.tif", 80), ("indian_pines_reference.tif", 80)):
        cut(name, data, side)
    before = Path.cwd()
    os.chdir(folder)
    try:
        play(PAGES[0])
        yield folder
    finally:
        os.chdir(before)


def test_blocks_are_found():
    text = "```console\n$ hsfuse a -b\n$ A=1 hsfuse c\n# exit code 3: why\n```\n```python\nx = 1\n```\n```sh\nno\n```\n"
    wanted = [("console", "hsfuse a -b", 0), ("console", "A=1 hsfuse c", 3), ("python", "x = 1\n", 0)]
    assert steps(text) == wanted
    assert all(steps((DOCS / f"{page}.md").read_text(encoding="utf-8")) for page in PAGES)


def test_the_scene_s_centres_step_back_as_the_example_s_do(place):
    with open_cube(place / "examples" / "data" / "lrhsi.dat", role="HSI") as small:
        assert (np.diff(small.spectrum.wavelengths_nm) < 0).any()


def test_the_tutorial_leaves_what_it_says(place):
    for name in ("fused.tif", "quality.tif", "report.html", "chlorophyll.tif", "chlorophyll.png"):
        assert (place / "tutorial" / name).stat().st_size > 0, name


@pytest.mark.parametrize("page", PAGES[1:])
def test_a_page_s_blocks_work(place, page):
    play(page)


def test_thresholds_are_those_of_the_report():
    def row(what: str, scale: tuple[float, float], percent: bool = False) -> str:
        return f"| {what} | " + " | ".join(f"{100 * v:g} %" if percent else f"{v}" for v in scale) + " |"

    rows = [
        row("Agreement with the LRHSI, with the MSI: relative RMSE", (AGREES, DISAGREES), True),
        row("Position: MSI pixels between the two images", SHIFT_PX),
        row("Radiometry: distance of an MSI band's gain from 1, less what was taken out", GAIN, True),
        row("Missing pixels: share that is masked", MASKED, True),
        row("Inferred bands, with a truth: 1 - mean correlation", GUESSED),
        row("Inferred bands, without: share of bands that no MSI band sees", UNSEEN, True),
        row("Weakest bands: 1 - correlation", WEAKEST),
        f"correlation of {RANK} or less",
    ]
    page = (DOCS / "trust.md").read_text(encoding="utf-8")
    assert [one for one in rows if one not in page] == []


def test_all_methods_are_told():
    from hsfuse.methods import METHODS

    table = (DOCS / "methods.md").read_text(encoding="utf-8").partition("| --- | --- |")[2].partition("\n\n")[0]
    assert set(METHODS) == set(
        re.findall(r"`([a-z-]+)`", "\n".join(row.split("|")[1] for row in table.splitlines()[1:]))
    )


def test_links_lead_somewhere():
    pages = [*DOCS.glob("*.md"), ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md"]
    for page in pages:
        for target in re.findall(r"\]\(([^)#\s]+)", page.read_text(encoding="utf-8")):
            assert "://" in target or (page.parent / target).exists(), f"{page.name}: {target}"


@pytest.mark.slow
def test_the_site_builds_without_a_warning(tmp_path):
    pytest.importorskip("mkdocs")
    pytest.importorskip("material")
    pytest.importorskip("mkdocstrings")
    command = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--strict", "--site-dir", str(tmp_path)]
    quiet = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=quiet, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "reference" / "index.html").read_text(encoding="utf-8")
    assert 'id="hsfuse.fuse"' in page
    assert (tmp_path / "files" / "examples" / "in_memory.py").is_file()


def test_the_pictures_are_made_by_the_physics():
    made = runpy.run_path(str(DOCS / "pictures.py"))
    (_, transfer), (bands,) = made["psfs"]().axes, made["responses"]().axes
    gaussian = transfer.lines[1]
    assert abs(np.interp(0.5, *gaussian.get_data()) - 0.3) < 0.002  # its MTF at Nyquist is what it is called by
    told = [text.get_text() for text in bands.get_legend().get_texts()]
    assert told == ["37 HSI bands seen by the MSI", "163 HSI bands inferred from the others"]  # as the report says

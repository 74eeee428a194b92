"""What goes along with the package says what the package says: citation, recipe, image, workflows, issue forms."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

import hsfuse

yaml = pytest.importorskip("yaml")
ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]
#: conda-forge's names where they aren't PyPI's.
CONDA = {"torch": "pytorch", "matplotlib": "matplotlib-base"}


def read(*parts: str) -> dict:
    return yaml.safe_load(ROOT.joinpath(*parts).read_text(encoding="utf-8"))


def needs(lines: list[str]) -> dict[str, str]:
    """Package -> range, of requirements as PyPI or conda write them."""
    return {(m := re.match(r"([a-z0-9-]+)\s*(.*)", line)).group(1): m.group(2) for line in lines}


def test_the_citation_is_of_this_version_and_names_the_paper():
    cited = read("CITATION.cff")
    assert {"cff-version", "message", "title", "authors", "version", "license"} <= set(cited)
    assert (cited["version"], cited["license"]) == (hsfuse.__version__, PROJECT["license"])
    (paper,) = cited["references"]
    assert [author["family-names"] for author in paper["authors"]] == ["Liu", "Liu", "Dian", "Li"]


def test_the_conda_recipe_needs_what_the_package_needs():
    recipe = read("packaging", "conda", "recipe.yaml")
    run = needs(recipe["requirements"]["run"])
    wanted = {CONDA.get(name, name): span for name, span in needs(PROJECT["dependencies"]).items()}
    assert run == wanted | {"python": PROJECT["requires-python"]}
    assert recipe["package"]["version"] == hsfuse.__version__
    (entry,) = recipe["build"]["python"]["entry_points"]
    assert entry == f"hsfuse = {PROJECT['scripts']['hsfuse']}"


def test_extras_that_errors_and_pages_name_exist():
    pages = [*(ROOT / "hsfuse").rglob("*.py"), *(ROOT / "docs").glob("*.md"), ROOT / "README.md", ROOT / "Dockerfile"]
    named = set()
    for page in pages:
        for found in re.findall(r"(?:hsfuse|pip install '\.|\{wheel\})\[([a-z,]+)\]", page.read_text(encoding="utf-8")):
            named |= set(found.split(","))
    assert named, "no extra is named anywhere"
    assert named <= set(EXTRAS)


def test_extras_are_told_in_the_documentation():
    told = set(re.findall(r"^\| `([a-z]+)` \|", (ROOT / "docs" / "index.md").read_text(encoding="utf-8"), re.MULTILINE))
    assert told == set(EXTRAS)


def test_the_image_is_built_from_what_there_is():
    lines = re.sub(r"\\\n", " ", (ROOT / "Dockerfile").read_text(encoding="utf-8")).splitlines()
    steps = [line.split(maxsplit=1) for line in lines if line.strip() and not line.startswith("#")]
    known = {"FROM", "ARG", "RUN", "COPY", "USER", "WORKDIR", "ENTRYPOINT", "CMD"}
    assert {step for step, _ in steps} <= known
    allowed = set(re.findall(r"^!(.+)$", (ROOT / ".dockerignore").read_text(encoding="utf-8"), re.MULTILINE))
    sources = {name for step, rest in steps if step == "COPY" and "--from" not in rest for name in rest.split()[:-1]}
    assert sources == allowed, "what is copied and what .dockerignore lets through differ"
    assert all((ROOT / name).exists() for name in sources)
    assert {PROJECT["readme"], *PROJECT["license-files"]} <= sources
    assert ["ENTRYPOINT", '["hsfuse"]'] in steps
    last_user = [rest for step, rest in steps if step == "USER"][-1:]
    assert last_user
    assert last_user != ["root"]


@pytest.mark.parametrize("path", sorted((ROOT / ".github" / "workflows").glob("*.yml")), ids=lambda path: path.name)
def test_workflows_have_limits_and_no_rights(path):
    flow = read(".github", "workflows", path.name)
    assert flow["permissions"] == {"contents": "read"}
    for name, job in flow["jobs"].items():
        assert job["timeout-minutes"] <= 60, name
        assert job["steps"], name
        for need in [job.get("needs", [])] if isinstance(job.get("needs"), str) else job.get("needs", []):
            assert need in flow["jobs"], name
        for step in job["steps"]:
            assert ("run" in step) != ("uses" in step), step
            assert "@" in step.get("uses", "@"), step


def test_issue_forms_ask_for_something():
    forms = sorted(path for path in (ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml") if path.name != "config.yml")
    assert len(forms) == 3
    for path in forms:
        form = read(".github", "ISSUE_TEMPLATE", path.name)
        assert {"name", "description", "body"} <= set(form)
        ids = [part["id"] for part in form["body"]]
        assert len(ids) == len(set(ids))
        assert any(part.get("validations", {}).get("required") for part in form["body"])
    assert "hsfuse info --bug-report" in (forms[0]).read_text(encoding="utf-8")

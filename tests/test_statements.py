"""docs/statements.md: each statement of the README is there, and each test that is to hold one exists."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from hsfuse.cli import COMMANDS, main
from hsfuse.cli.console import BUG, CANT, INTERRUPTED, SOME_FAILED
from hsfuse.methods import METHODS

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BY_HAND = "by hand"


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
        if not held.startswith(BY_HAND):
            path, _, name = held.partition("::")
            names = {
                node.name for node in ast.parse((ROOT / path).read_text(encoding="utf-8")).body if hasattr(node, "name")
            }
            assert name in names, held


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

"""Notes: records that keep their meaning through JSON, and a table that every call of them fits."""

import ast
import json
from pathlib import Path
from string import Formatter

import pytest

import hsfuse
from hsfuse.core.notes import TEMPLATES, Note, note, read_records, records, texts, warning

SOURCES = sorted(Path(hsfuse.__file__).parent.rglob("*.py"))
MAKERS = ("note", "warning")


def fields(template):
    return {name.partition(".")[0].partition("[")[0] for _, name, _, _ in Formatter().parse(template) if name}


def calls():
    """(place, code, names of the values, whether there are more) of every note that is made with a literal code."""
    for path in SOURCES:
        nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
        imported = [node for node in nodes if isinstance(node, ast.ImportFrom) and node.module == "hsfuse.core.notes"]
        makers = {alias.name for node in imported for alias in node.names} & set(MAKERS)
        for node in nodes:
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name) or node.func.id not in makers:
                continue
            place, (code, *_) = f"{path.name}:{node.lineno}", node.args
            if isinstance(code, ast.Constant):
                spread = any(word.arg is None for word in node.keywords)
                yield place, code.value, {word.arg for word in node.keywords if word.arg}, spread


def test_one_is_told_as_one():
    one = note("detectors-mended", count=1, columns=1, bands=2)
    assert "1 of the HSI's detectors gives one value whatever it sees, in 1 column and 2 bands" in one.text
    several = note("detectors-mended", count=3, columns=2, bands=1)
    assert "3 of the HSI's detectors give one value whatever they see, in 2 columns and 1 band" in several.text
    read = read_records(records([warning("nonfinite-masked", pixels=1, image="MSI")]))
    assert texts(read) == ["1 pixel of the MSI holds NaN or Inf and is masked"]


def test_every_note_has_a_sentence_that_its_values_fill():
    for place, code, values, spread in calls():
        assert code in TEMPLATES, place
        wanted = fields(TEMPLATES[code])
        assert wanted <= values or spread, (place, code, values, wanted)


def test_the_text_is_made_of_the_values_and_the_file_stands_before_it():
    assert note("told", text="said").text == str(note("told", text="said")) == "said"
    assert note("told", text="said", file="a.tif").text == "a.tif: said"


def test_a_sentence_of_its_own_has_a_capital_but_not_in_a_file_name():
    assert note("fill-kept", file="scene.tif", fill="7", advice="say so").sentence.startswith("scene.tif: ")
    assert note("msi-unreached", share=0.1).sentence == "The HSI doesn't reach 10.0% of the MSI"


def test_records_keep_their_meaning_through_json():
    made = [note("told", text="one"), warning("told", text="two")]
    again = read_records(json.loads(json.dumps(records(made))))
    assert again == made
    assert texts(again, "warning") == ["two"]
    assert texts(again) == ["one", "two"]


@pytest.mark.parametrize("code", ["of-tomorrow", "told"])
def test_a_record_that_is_not_understood_keeps_its_text_and_severity(code):
    (read,) = read_records([{"code": code, "severity": "warning", "values": {"other": 1}, "text": "As it was."}])
    assert (read.code, read.severity, read.text) == ("told", "warning", "As it was.")


@pytest.mark.parametrize("found", [None, "text", [1, "a"], {}])
def test_what_is_no_list_of_records_has_no_notes(found):
    assert read_records(found) == []


def test_equal_notes_are_told_once():
    twice = [note("told", text="one"), note("told", text="one"), Note("told", "note", {"text": "two"})]
    assert len(dict.fromkeys(twice)) == 2

"""What is worth saying of a file, a pair or a result: records with a code and values, whose text is made last.

Code that decides something reads `code`, `severity` and `values`; only people read `text`. All sentences stand in one
table, `TEMPLATES`: rewording one changes no verdict.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Severity = Literal["note", "warning"]

#: The sentence of each code, in the fields of its values. A value `file` stands before it by itself.
TEMPLATES: dict[str, str] = {
    # A text that came without a record: from a file of an earlier version, or a line made elsewhere.
    "told": "{text}",
}


@dataclass(frozen=True)
class Note:
    """One thing worth saying. `severity` "warning" speaks against the result, "note" tells what was decided.

    `values` (plain JSON values) fill in the sentence of `code`; of a `file` the name stands before it.
    """

    code: str
    severity: Severity = "note"
    values: Mapping[str, Any] = field(default_factory=dict, hash=False)

    @property
    def text(self) -> str:
        """The sentence, for people."""
        file = f"{self.values['file']}: " if "file" in self.values else ""
        return file + TEMPLATES[self.code].format(**self.values)

    def __str__(self) -> str:
        return self.text

    def to_dict(self) -> dict[str, Any]:
        """For JSON: the record, and its text for readers of another version."""
        return {"code": self.code, "severity": self.severity, "values": dict(self.values), "text": self.text}


def note(code: str, **values: Any) -> Note:
    """What was decided or found, and is no cause for doubt."""
    return Note(code, "note", values)


def warning(code: str, **values: Any) -> Note:
    """What speaks against the result."""
    return Note(code, "warning", values)


def texts(notes: Iterable[Note], severity: Severity | None = None) -> list[str]:
    """The sentences of the notes, or of those of one severity."""
    return [one.text for one in notes if severity in (None, one.severity)]


def records(notes: Iterable[Note]) -> list[dict[str, Any]]:
    """The notes for JSON."""
    return [one.to_dict() for one in notes]


def _has_text(made: Note) -> bool:
    """Whether the values fill the sentence: another version may have had others."""
    try:
        return bool(made.text)
    except (KeyError, IndexError, ValueError, TypeError):
        return False


def read_records(found: Any) -> list[Note]:
    """Notes from JSON, each as `records` made it; one of a code that isn't known here keeps its text alone."""
    return [_read(one) for one in found if isinstance(one, Mapping)] if isinstance(found, list) else []


def _read(record: Mapping[str, Any]) -> Note:
    severity: Severity = "warning" if record.get("severity") == "warning" else "note"
    code, values = record.get("code"), record.get("values")
    if code in TEMPLATES and isinstance(values, Mapping):
        made = Note(str(code), severity, dict(values))
        if _has_text(made):
            return made
    return Note("told", severity, {"text": str(record.get("text", code))})

"""Metadata files in XML, asked by the names of elements, whatever their namespace."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import NoReturn
from xml.etree import ElementTree
from xml.etree.ElementTree import Element
from xml.parsers.expat import ExpatError, ParserCreate

from hsfuse.core.errors import InputError
from hsfuse.io.limits import DEEPEST, MOST_ELEMENTS, MOST_XML, read_bounded


def read_xml(path: Path) -> Element:
    """The root element; InputError when the file can't be read or isn't XML."""
    return parse_xml(read_bounded(path, MOST_XML), path)


def parse_xml(raw: bytes, path: Path) -> Element:
    """The root element of a file's bytes; InputError when they aren't XML, declare a document type, or are too many.

    No product's metadata have a document type, and entities in one can fill the memory.
    """
    if len(raw) > MOST_XML:
        raise InputError(f"{path} has {len(raw)} bytes, which no product's metadata have; it isn't read")
    count = _Count(path)
    try:
        scanner = ParserCreate()
        scanner.StartElementHandler, scanner.EndElementHandler = count.start, count.end
        scanner.StartDoctypeDeclHandler = lambda *_: _refuse_doctype(path)
        scanner.Parse(raw, True)
        return ElementTree.fromstring(raw)
    except (ElementTree.ParseError, ExpatError, ValueError, LookupError) as error:
        raise InputError(f"{path} isn't XML that can be read ({error}); is the download complete?") from error


class _Count:
    """Elements met, and how deep they lie: trees of millions fill the memory, too."""

    def __init__(self, path: Path) -> None:
        self._path, self._met, self._depth = path, 0, 0

    def start(self, *_: object) -> None:
        """InputError for one too many, or too deep."""
        self._met, self._depth = self._met + 1, self._depth + 1
        if self._met > MOST_ELEMENTS or self._depth > DEEPEST:
            raise InputError(f"{self._path} has more elements, or deeper ones, than any product's metadata")

    def end(self, _: str) -> None:
        """One level up."""
        self._depth -= 1


def _refuse_doctype(path: Path) -> NoReturn:
    raise InputError(f"{path} declares a document type (DOCTYPE), which no product's metadata do; it isn't read")


def elements(root: Element, name: str) -> Iterator[Element]:
    """All elements of that name, at any depth."""
    return (element for element in root.iter() if plain_name(element) == name)


def plain_name(element: Element) -> str:
    """An element's name without its namespace."""
    return str(element.tag).rsplit("}", 1)[-1]


def text(root: Element, *names: str) -> str | None:
    """The text of the first element with the first of these names that there is."""
    for name in names:
        found = next((e.text.strip() for e in elements(root, name) if e.text and e.text.strip()), None)
        if found is not None:
            return found
    return None


def number(value: str | None, what: str, path: Path) -> float:
    """The text as a finite number; InputError, naming what it is and the file, when it isn't one."""
    try:
        found = float(value or "")
    except ValueError:
        found = float("nan")
    if abs(found) < float("inf"):
        return found
    raise InputError(f"{path} says {what} = {value!r}; wanted a number" if value else f"{path} doesn't say {what}")


def iso_time(value: str | None) -> str | None:
    """A time in UTC, in ISO 8601 to the second, or a date; None when it is neither.

    A time without an offset is taken as UTC.
    """
    said = (value or "").strip()
    try:
        found = datetime.fromisoformat(said).replace(microsecond=0)
    except ValueError:
        return None
    if found.tzinfo is not None:
        found = found.astimezone(UTC).replace(tzinfo=None)
    return found.isoformat() if "T" in said.upper() or ":" in said else found.date().isoformat()

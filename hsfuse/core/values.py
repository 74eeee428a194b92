"""What a setting may be, as its type hint says: ranges of numbers, a few words, lists; the message where it isn't."""

from __future__ import annotations

import math
import numbers
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from hsfuse.core.errors import SettingError


@dataclass(frozen=True)
class Range:
    """What a number may be, both ends included; with `above` the lower one isn't, with `below` the upper one."""

    low: float = 0.0
    high: float = math.inf
    above: bool = False
    below: bool = False

    def holds(self, value: float) -> bool:
        """False for NaN and infinity, too."""
        ends = (self.above and value == self.low) or (self.below and value == self.high)
        return math.isfinite(value) and self.low <= value <= self.high and not ends

    def __str__(self) -> str:
        if math.isfinite(self.high):
            return f"{'between' if self.below else 'from'} {self.low:g} {'and' if self.below else 'to'} {self.high:g}"
        return f"above {self.low:g}" if self.above else f"of at least {self.low:g}"


#: Characters of a wrong value that are shown.
MOST_TOLD = 100
#: Numbers in a table without a range of their own aren't negative.
NOT_NEGATIVE = Range()
Count = Annotated[int, Range(1)]
Share = Annotated[float, Range(0, 1)]
Positive = Annotated[float, Range(0, above=True)]


def check_values(where: str, values: Mapping[str, Any], cls: Any, plain: Range | None = NOT_NEGATIVE) -> None:
    """SettingError for the first value that isn't what the field of its name in the dataclass `cls` holds.

    `plain` is the range of numbers whose hint has none (None: any, whoever uses the number says what it may be).
    """
    hints = _hints(cls)
    for name, value in values.items():
        check_value(f"{where} {name}".lstrip(), value, hints[name], plain)


def check_value(name: str, value: Any, hint: Any, plain: Range | None = NOT_NEGATIVE) -> None:
    """SettingError for a value that isn't what a type hint allows, `plain` as in `check_values`."""
    if not _is(value, hint, plain):
        raise SettingError(f"{name} is {_told(value)}, wanted {_wanted(hint, plain)}")


def check_text(name: str, value: Any) -> None:
    """SettingError for text that no file name or argument can have, in a value or its entries."""
    entries = [*value, *value.values()] if isinstance(value, Mapping) else value
    for text in entries if isinstance(entries, list | tuple) else [entries]:
        try:
            bad = isinstance(text, str) and b"\0" in os.fsencode(text)
        except UnicodeEncodeError:
            bad = True
        if bad:
            raise SettingError(f"{name} is {text!r}, wanted text without NUL or half a surrogate pair")


@cache  # to evaluate the texts that hints are takes longer than all checks
def _hints(cls: Any) -> Mapping[str, Any]:
    return get_type_hints(cls, include_extras=True)


def _is(value: Any, hint: Any, plain: Range | None = NOT_NEGATIVE) -> bool:
    """Whether a value is what a type hint allows; hints of other kinds than those here allow anything."""
    origin, args = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return _is(value, args[0], _range_in(args, plain))
    if origin in (Union, UnionType):
        return any(_is(value, arg, plain) for arg in args)
    if origin is Literal:
        return value in args
    if origin is tuple:
        kinds = (args[0],) * len(value) if isinstance(value, tuple) and args[1:] == (...,) else args
        return isinstance(value, tuple) and len(value) == len(kinds) and all(map(_is, value, kinds))
    if hint in (int, float):
        kind = numbers.Integral if hint is int else numbers.Real
        return isinstance(value, kind) and not isinstance(value, bool) and (plain is None or plain.holds(float(value)))
    if hint is Path:
        return isinstance(value, str | Path)
    if origin is Mapping:
        return isinstance(value, Mapping)
    return isinstance(value, hint) if hint in (str, bool, NoneType) else True


def _range_in(args: tuple[Any, ...], plain: Range | None) -> Range | None:
    """The range among an annotation's parts."""
    return next((arg for arg in args if isinstance(arg, Range)), plain)


def _wanted(hint: Any, plain: Range | None = NOT_NEGATIVE) -> str:
    """The hint in words."""
    origin, args = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return _wanted(args[0], _range_in(args, plain))
    if origin in (Union, UnionType):
        return " or ".join(_wanted(arg, plain) for arg in args if arg is not NoneType)
    if origin is Literal:
        return "one of " + ", ".join(f'"{arg}"' for arg in args)
    if origin is tuple:
        each = args[1:] == (...,)
        return f"a list, each entry {_wanted(args[0])}" if each else f"a list of {', '.join(map(_wanted, args))}"
    range_ = plain or ""
    words = {int: f"a whole number {range_}", float: f"a number {range_}", str: "text", bool: "true or false"}
    words |= {Path: "a path", Mapping: "a table"}
    return words.get(origin or hint, str(hint)).strip()


def _told(value: Any) -> str:
    """A value as it would stand in a TOML file, shortened where it is long."""
    if isinstance(value, list | tuple):
        text = f"[{', '.join(map(_told, value))}]"
    elif isinstance(value, Mapping):
        text = f"{{{', '.join(f'{key} = {_told(entry)}' for key, entry in value.items())}}}"
    else:
        text = f'"{value}"' if isinstance(value, str) else str(value)
    text = text.lower() if isinstance(value, bool | None) else text
    return text if len(text) <= MOST_TOLD else f"{text[: MOST_TOLD - 3]}..."


def counted(n: int, what: str) -> str:
    """A number of things.

    >>> counted(1, "band"), counted(200, "band")
    ('1 band', '200 bands')
    """
    return f"{n} {what}" + ("" if n == 1 else "s")


#: Most digits after the point of a figure with its uncertainty.
MOST_DIGITS = 6


def plus_minus(value: float, sd: float) -> str:
    """A figure with its standard deviation, both to the second significant digit of the latter.

    >>> plus_minus(1.97634, 0.0123), plus_minus(664.6, 12.3), plus_minus(-0.0001, 0.2)
    ('1.976 +- 0.012', '665 +- 12', '0.00 +- 0.20')
    """
    if not math.isfinite(sd) or sd <= 0:
        return f"{value:z.4g} +- {sd:g}"
    digits = min(max(0, 1 - math.floor(math.log10(sd))), MOST_DIGITS)
    return f"{value:z.{digits}f} +- {sd:.{digits}f}"

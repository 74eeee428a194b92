"""TOML files as nested tables, and tables as dataclasses, with messages that name what doesn't fit."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from hsfuse.core.errors import SettingError

T = TypeVar("T")


@dataclass(frozen=True)
class Range:
    """What a number in a table may be, both ends included; with `above` the lower one isn't."""

    low: float = 0.0
    high: float = math.inf
    above: bool = False

    def holds(self, value: float) -> bool:
        """False for NaN and infinity, too."""
        return math.isfinite(value) and self.low <= value <= self.high and not (self.above and value == self.low)

    def __str__(self) -> str:
        if math.isfinite(self.high):
            return f"from {self.low:g} to {self.high:g}"
        return f"above {self.low:g}" if self.above else f"of at least {self.low:g}"


#: Numbers without a range of their own aren't negative.
NOT_NEGATIVE = Range()
Count = Annotated[int, Range(1)]
Share = Annotated[float, Range(0, 1)]
Positive = Annotated[float, Range(0, above=True)]


def read_toml(path: Path) -> dict[str, Any]:
    """The tables of a file; SettingError when it can't be read or isn't TOML."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingError(f"{path}: can't be read ({error.strerror})") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingError(f"{path}: not TOML ({error})") from error


def take_table(where: str, tables: dict[str, Any], key: str, cls: Callable[..., T], **given: Any) -> T:
    """Take the table `key` out of `tables` as an instance of the dataclass `cls`; lists become tuples.

    `given` are settings that stand elsewhere. SettingError for a setting that is unknown, missing or impossible.
    """
    table = tables.pop(key, {})
    if not isinstance(table, dict):
        raise SettingError(f"{where}: {key} is {table!r}, wanted a table [{key}]")
    values = {name: frozen(value) for name, value in {**table, **given}.items()}
    known = {f.name for f in fields(cast(Any, cls))}
    if unknown := sorted(set(values) - known):
        raise SettingError(
            f"{where}: [{key}] has no setting {', '.join(unknown)}; known are {', '.join(sorted(known))}"
        )
    check_values(f"{where}: [{key}]", values, cls)
    try:
        return cls(**values)
    except TypeError as error:
        raise SettingError(f"{where}: [{key}] is incomplete ({error})") from error


def check_values(where: str, values: Mapping[str, Any], cls: Any) -> None:
    """SettingError for the first value that isn't what the field of its name in the dataclass `cls` holds."""
    hints = get_type_hints(cls, include_extras=True)
    for name, value in values.items():
        if not _is(value, hints[name]):
            raise SettingError(f"{where} {name} is {_told(value)}, wanted {_wanted(hints[name])}")


def _is(value: Any, hint: Any, numbers: Range = NOT_NEGATIVE) -> bool:
    """Whether a value is what a type hint allows; hints of other kinds than those in tables allow anything."""
    origin, args = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return _is(value, args[0], args[1])
    if origin in (Union, UnionType):
        return any(_is(value, arg, numbers) for arg in args)
    if origin is Literal:
        return value in args
    if origin is tuple:
        kinds = (args[0],) * len(value) if isinstance(value, tuple) and args[1:] == (...,) else args
        return isinstance(value, tuple) and len(value) == len(kinds) and all(map(_is, value, kinds))
    if hint in (int, float):
        kinds = (int,) if hint is int else (int, float)
        return isinstance(value, kinds) and not isinstance(value, bool) and numbers.holds(value)
    return isinstance(value, hint) if hint in (str, bool, NoneType) else True


def _wanted(hint: Any, numbers: Range = NOT_NEGATIVE) -> str:
    """The hint in words."""
    origin, args = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return _wanted(args[0], args[1])
    if origin in (Union, UnionType):
        return " or ".join(_wanted(arg, numbers) for arg in args if arg is not NoneType)
    if origin is Literal:
        return "one of " + ", ".join(f'"{arg}"' for arg in args)
    if origin is tuple:
        each = args[1:] == (...,)
        return f"a list, each entry {_wanted(args[0])}" if each else f"a list of {', '.join(map(_wanted, args))}"
    words = {int: f"a whole number {numbers}", float: f"a number {numbers}", str: "text", bool: "true or false"}
    return words.get(hint, str(hint))


def _told(value: Any) -> str:
    """A value as it stands in the file."""
    return f'"{value}"' if isinstance(value, str) else repr(list(value) if isinstance(value, tuple) else value).lower()


def frozen(value: Any) -> Any:
    """Lists, however nested, as tuples; anything else as it is."""
    return tuple(frozen(item) for item in value) if isinstance(value, list) else value

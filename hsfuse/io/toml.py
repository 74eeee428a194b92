"""TOML files as nested tables, and tables as dataclasses, with messages that name what doesn't fit."""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any, TypeVar, cast

from hsfuse.core.errors import SettingError
from hsfuse.core.values import check_values

T = TypeVar("T")
#: Bytes of a settings file.
MOST_BYTES = 2**18


def read_toml(path: Path) -> dict[str, Any]:
    """The tables of a file; SettingError when it can't be read or isn't TOML."""
    try:
        if (size := path.stat().st_size) > MOST_BYTES:
            raise SettingError(f"{path}: {size} bytes; a table of settings has at most {MOST_BYTES}")
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))  # with the mark that some editors begin a file with
    except OSError as error:
        raise SettingError(f"{path}: can't be read ({error.strerror})") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
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
    needed = [f.name for f in fields(cast(Any, cls)) if f.default is MISSING and f.default_factory is MISSING]
    if missing := [name for name in needed if name not in values]:
        raise SettingError(f"{where}: [{key}] lacks {', '.join(missing)}; known are {', '.join(sorted(known))}")
    check_values(f"{where}: [{key}]", values, cls)
    return cls(**values)


def frozen(value: Any) -> Any:
    """Lists, however nested, as tuples; anything else as it is."""
    return tuple(frozen(item) for item in value) if isinstance(value, list) else value

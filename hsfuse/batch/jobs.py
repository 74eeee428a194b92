"""A table of jobs: CSV, JSON lines or TOML, whose columns are `fuse`'s options and files."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from hsfuse.core.errors import HsfuseError, SettingError
from hsfuse.core.options import FORMER, OPTIONS, FuseOptions, kind_of
from hsfuse.core.values import check_text
from hsfuse.fusion.job import Job
from hsfuse.io.files import as_path, split_paths
from hsfuse.io.finished import MAY_BE_FILES
from hsfuse.io.toml import read_toml
from hsfuse.methods import METHODS, knows_effort

#: Columns that are files of a job and no options.
FILES = ("hsi", "msi", "output", "report")
#: Options of the whole batch, not of a job.
OF_BATCH = ("resume", "dry_run")
#: Column -> field: options go by their fields' names and by those of the command line.
COLUMNS: dict[str, str] = {
    **{name: name for name in (*FILES, *(name for name in OPTIONS if name not in OF_BATCH))},
    **{option.name.lstrip("-").replace("-", "_"): name for name, option in OPTIONS.items() if option.name},
    **FORMER,
}
#: Bytes of a table.
MOST_BYTES = 2**28
YES, NO = ("true", "yes", "on", "1"), ("false", "no", "off", "0")


@dataclass
class JobTable:
    """The jobs of a table in their order, and a line for each thing that keeps it from being run."""

    jobs: list[Job] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def check(self, only: int | None = None) -> None:
        """Find what is wrong with the jobs' files, of all or of one; two that would write one file are always told.

        Tiles and creation options need images: each choice of them is looked at with the first job whose can be read.
        """
        seen: set[Any] = set()
        told: dict[str, list[Job]] = {}
        for job in self.jobs if only is None else [self.jobs[only]]:
            try:
                job.check()
                job.look_ahead(seen)
            except HsfuseError as error:
                told.setdefault(str(error), []).append(job)
        for problem, (first, *others) in told.items():
            more = f" (and {len(others)} job{'s' if others[1:] else ''} after it)" if others else ""
            self.problems.append(f"{first.where}{more}: {problem}")
        files: list[tuple[Job, list[Path]]] = []
        for job in self.jobs:
            with suppress(HsfuseError):  # told above, or of a job that isn't to be run
                job.check_paths()
                files.append((job, [path.resolve() for path in job.made]))
        read = {path.resolve(): job.where for job, _ in files for path in (job.hsi, *job.msi)}
        written: dict[Path, str] = {}
        for job, made in files:
            for path in dict.fromkeys(made):
                other = written.setdefault(path, job.where)
                if other != job.where:
                    self.problems.append(f"{job.where}: {path} is already written by {other}; wanted another name")
                elif read.get(path, job.where) != job.where:
                    self.problems.append(f"{job.where}: {path} is read by {read[path]}; jobs run in no certain order")


def read_jobs(path: Path, given: Mapping[str, Any] | None = None) -> JobTable:
    """The jobs of a file: .csv, .jsonl or .toml ([[jobs]] and, for what is the same in all, [defaults]).

    `given` are options of the command by name, for all jobs that don't say it themselves; they go before [defaults].
    Relative paths are from the file's folder. SettingError for a file that is no table; what is wrong with single rows
    and columns are `problems`.
    """
    table, defaults, rows = JobTable(), {}, []
    kind = path.suffix.lower()
    if kind == ".toml":
        found = read_toml(path)
        defaults, rows = found.pop("defaults", {}), found.pop("jobs", [])
        if not isinstance(defaults, dict) or not isinstance(rows, list) or found:
            strange = f"; it has {', '.join(map(repr, found))}" if found else ""
            raise SettingError(f"{path}: wanted a table [defaults] and tables [[jobs]]{strange}")
        table.problems += _strange(f"{path}, [defaults]", defaults)
        rows = [(f"{path}, job {number}", row) for number, row in enumerate(rows)]
    elif kind == ".csv":
        rows = list(_csv_rows(path, table))
    elif kind in (".jsonl", ".ndjson"):
        rows = list(_json_rows(path))
    else:
        raise SettingError(f"{path}: {kind!r} names no kind of table; wanted .csv, .jsonl or .toml")
    if not rows:
        raise SettingError(f"{path} has no jobs; wanted a row for each scene with hsi, msi and output")
    base = _named(defaults) | dict(given or {})
    for where, row in rows:
        problems = _strange(where, row) if kind != ".csv" else []
        try:
            job = _job(where, _over(base, _named(row)), path.parent)
        except HsfuseError as error:
            problems = problems or [f"{where}: {error}"]
        else:
            table.jobs.append(job)
        table.problems += problems
    return table


def _text(path: Path) -> str:
    try:
        if (size := path.stat().st_size) > MOST_BYTES:
            raise SettingError(f"{path}: {size} bytes; a table of jobs has at most {MOST_BYTES}")
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise SettingError(f"{path}: can't be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise SettingError(f"{path}: not UTF-8 ({error.reason} at byte {error.start})") from error


def _csv_rows(path: Path, table: JobTable) -> Iterator[tuple[str, dict[str, Any]]]:
    """Rows with what isn't empty; unknown columns are told once."""
    reader = csv.DictReader(io.StringIO(_text(path), newline=""), skipinitialspace=True)
    columns = list(reader.fieldnames or ())
    if len(columns) == 1 and (other := next((c for c in ";\t|" if c in columns[0]), None)):
        raise SettingError(f"{path}, line 1: one column, {columns[0]!r}; wanted commas between columns, not {other!r}")
    fields = [COLUMNS.get(_plain_name(name), name) for name in columns]
    twice = [name for i, name in enumerate(columns) if fields[i] and fields[i] in fields[:i]]
    table.problems += [f"{path}, line 1: the column {name!r} stands there twice" for name in twice]
    table.problems += _strange(f"{path}, line 1", columns)
    try:
        for row in reader:
            where = f"{path}, line {reader.line_num}"
            if None in row:
                table.problems.append(f"{where}: more entries than columns; quote those with commas")
            yield where, {key: value.strip() for key, value in row.items() if key is not None and value}
    except csv.Error as error:
        raise SettingError(f"{path}, line {reader.line_num}: not CSV ({error})") from error


def _json_rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    for number, line in enumerate(_text(path).splitlines(), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise SettingError(f"{path}, line {number}: not JSON ({error})") from error
        if not isinstance(row, dict):
            raise SettingError(f"{path}, line {number}: wanted an object with hsi, msi and output")
        yield f"{path}, line {number}", row


def _plain_name(name: str) -> str:
    return name.strip().lstrip("-").replace("-", "_")


def _strange(where: str, names: Any) -> list[str]:
    """A line for each name that is no option."""
    if not isinstance(names, Iterable) or isinstance(names, str):
        return [f"{where}: wanted a table with hsi, msi and output, found {names!r}"]
    out = []
    for name in names:
        if (plain := _plain_name(name)) not in COLUMNS:
            near = get_close_matches(plain, COLUMNS, 1)
            of_batch = "it is an option of the whole batch, --" + plain.replace("_", "-")
            hint = (
                of_batch
                if plain in OF_BATCH
                else f"did you mean {near[0]!r}?"
                if near
                else "see hsfuse fuse --help-all"
            )
            out.append(f"{where}: fuse has no option {name!r}; {hint}")
    return out


def _named(row: Any) -> dict[str, Any]:
    """What a row says, by the names of the fields."""
    known = row.items() if isinstance(row, Mapping) else ()
    return {COLUMNS[_plain_name(key)]: value for key, value in known if _plain_name(key) in COLUMNS}


def _over(base: dict[str, Any], own: dict[str, Any]) -> dict[str, Any]:
    """A row over what is said for all, whose effort is for the methods that know one."""
    row = base | own
    if "effort" in base and "effort" not in own and (method := str(row.get("method", FuseOptions.method))) in METHODS:
        return row if knows_effort(method) else {name: row[name] for name in row if name != "effort"}
    return row


def _job(where: str, row: dict[str, Any], folder: Path) -> Job:
    for name in ("hsi", "msi", "output"):
        if row.get(name) in (None, "", []):
            raise SettingError(f"no {name}; each job has hsi, msi and output")
    for name, value in row.items():
        check_text(name, value)
    files = {name: row.pop(name, None) for name in FILES}
    for name, value in files.items():
        several = name == "msi" and isinstance(value, list | tuple)
        for one in value if several else [value]:
            if not isinstance(one, str | Path) and (name, one) != ("report", None):
                raise SettingError(f"{name} is {one!r}, wanted a path")
    values = {name: _value(name, value, folder) for name, value in row.items()}
    msi = files["msi"] if isinstance(files["msi"], list | tuple) else _split(str(files["msi"]), folder)
    return Job(
        where,
        _from(folder, files["hsi"]),
        tuple(_from(folder, one) for one in msi),
        _from(folder, files["output"]),
        FuseOptions.of(values),
        None if files["report"] is None else _from(folder, files["report"]),
    )


def _split(text: str, folder: Path) -> list[Path]:
    return [as_path(text)] if os.path.exists(folder / text) else split_paths(text)


def _from(folder: Path, path: Any) -> Path:
    """A path from the table's folder, absolute; GDAL's own names stay as they are."""
    text = str(path)
    if text.startswith("/vsi") or (":" in text and not os.path.exists(folder / text)):
        return as_path(text)
    return folder.absolute() / text


def _value(name: str, value: Any, folder: Path) -> Any:
    """A value as its option has it: words of a CSV become numbers, switches and lists, paths absolute."""
    kind, _, _ = kind_of(name)
    if kind is Path and isinstance(value, str | Path):
        return _from(folder, value)
    if name in MAY_BE_FILES and isinstance(value, str) and os.path.isfile(folder / value):
        return str(folder.absolute() / value)
    if not isinstance(value, str):
        return value
    if kind is bool and value.lower() in (*YES, *NO):
        return value.lower() in YES
    if kind in (int, float):
        try:
            return kind(value)
        except ValueError:
            return value  # which FuseOptions refuses
    if kind is Mapping:
        parts = [part.partition("=") for part in value.split(",")]
        return {key.strip(): entry.strip() for key, _, entry in parts}
    return value

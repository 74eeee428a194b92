"""The library of responses and the CSV format (described in srf/README.md)."""

from __future__ import annotations

import difflib
import os
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np

from hsfuse.core.errors import OutputError, SettingError, SrfError
from hsfuse.core.package import data_folder, file_sha256
from hsfuse.physics.response import FloatArray, SpectralResponse, plain


@dataclass(frozen=True)
class SrfRecord:
    """One entry of the library, from its header alone: enough for a listing."""

    name: str
    sensor: str
    bands: tuple[str, ...]
    source: str
    terms: str
    approximate: bool
    aliases: tuple[str, ...]
    presumed_for: tuple[str, ...]
    path: Path


def list_srfs() -> list[SrfRecord]:
    """Every response of the library, by name; only the files' headers are read, once a process."""
    return list(_library())


@cache
def _library() -> tuple[SrfRecord, ...]:
    return tuple(_record(path) for path in sorted(data_folder("srf").glob("*.csv")))


def load_srf(name_or_path: str | Path) -> SpectralResponse:
    """A response of the library by name or alias (case, '-', '_' and blanks don't matter), or a CSV by its path.

    Raises SrfError for an unknown name (near names are given) or a malformed file. `note` says what was presumed.

    >>> load_srf("Sentinel-2A").select(["B2", "B8"]).centres_nm.astype(int).tolist()
    [492, 832]
    """
    path = Path(name_or_path)
    if path.suffix.lower() in (".csv", ".txt") or path.is_file() or len(path.parts) > 1:
        return _read_csv(path)
    record, presumed = _look_up(str(name_or_path))
    notes = [f"{name_or_path} means {record.sensor} ({record.name})."] if presumed else []
    if record.approximate:
        notes.append(f"The response of {record.sensor} is an approximation, not a measured curve.")
    return replace(_read_csv(record.path), note=" ".join(notes))


def _look_up(name: str) -> tuple[SrfRecord, bool]:
    """The record that `name` means, and whether one of several was presumed."""
    key, known = plain(name), {}
    for record in list_srfs():
        for alias in (record.name, *record.aliases, *record.presumed_for):
            known[plain(alias)] = (record, alias in record.presumed_for)
    if key in known:
        return known[key]
    close = [known[k] for k in difflib.get_close_matches(key, known, n=6, cutoff=0.6)]
    near = sorted({record.presumed_for[0] if presumed else record.name for record, presumed in close})
    hint = f"did you mean {', '.join(near)}?" if near else "`hsfuse srf list` shows what there is."
    raise SrfError(f"No spectral response is called {name!r}: {hint} A CSV of your own is given by its path.")


_WANTED = "a header 'wavelength_nm,BAND,...' and rows of numbers"
#: Bytes that a table of responses may have; the longest of the library has a thirtieth of it.
MOST_BYTES = 8 * 2**20


def _split_list(text: str) -> tuple[str, ...]:
    return tuple(part for part in re.split(r"[,\s]+", text) if part)


def _read_header(path: Path) -> tuple[dict[str, str], list[str], int]:
    """`# key: value` comments, the column names and how many lines they take."""
    meta: dict[str, str] = {}
    try:
        if path.stat().st_size > MOST_BYTES:
            raise SrfError(f"{path} has {path.stat().st_size} bytes; a table of responses has at most {MOST_BYTES}.")
        with path.open(encoding="utf-8-sig") as lines:
            for number, line in enumerate(lines, start=1):
                text = line.strip()
                if text.startswith("#"):
                    key, _, value = text.lstrip("# ").partition(":")
                    meta[key.strip().lower()] = " ".join(filter(None, [meta.get(key.strip().lower()), value.strip()]))
                elif text:
                    return meta, [name.strip().strip('"') for name in text.split(",")], number
    except FileNotFoundError:
        raise SrfError(f"{path}: there is no such response file.") from None
    except OSError as error:
        raise SrfError(f"{path}: can't be read ({error}).") from None
    except UnicodeDecodeError:
        raise SrfError(f"{path}: can't be read as text; wanted {_WANTED}.") from None
    raise SrfError(f"{path}: holds no table; wanted {_WANTED}.")


def _record(path: Path) -> SrfRecord:
    meta, columns, _ = _read_header(path)
    return SrfRecord(
        name=path.stem,
        sensor=meta.get("sensor", path.stem),
        bands=tuple(columns[1:]),
        source=meta.get("source", ""),
        terms=meta.get("terms", ""),
        approximate="approximation" in meta,
        aliases=_split_list(meta.get("alias", "")),
        presumed_for=_split_list(meta.get("presumed for", "")),
        path=path,
    )


def _read_csv(path: Path) -> SpectralResponse:
    """A response table; SrfError says the line and what is wrong."""
    meta, columns, skip = _read_header(path)
    if columns[0].lower() != "wavelength_nm":
        raise SrfError(f"{path}: the first column is {columns[0]!r}; wanted 'wavelength_nm', then one column a band.")
    bands = tuple(columns[1:])
    if not bands or len(set(bands)) < len(bands) or not all(bands):
        raise SrfError(f"{path}: wanted one named column for each band, each name once; found {', '.join(bands)!r}.")
    table = _read_numbers(path, len(columns), skip)
    wavelengths, response = table[:, 0], table[:, 1:].T
    _check_table(path, bands, wavelengths, response)
    record, defaults, colours = _record(path), _defaults(meta), _colours(meta)
    strange = sorted({band for named in (*defaults.values(), colours.values()) for band in named} - set(bands))
    if strange or any(count != len(named) for count, named in defaults.items()):
        raise SrfError(f"{path}: its 'default' and 'colour' comments must name as many bands as they say, of its own.")
    return SpectralResponse(
        name=record.name,
        bands=bands,
        wavelengths_nm=wavelengths,
        response=response / response.max(axis=1, keepdims=True),
        source=record.source,
        sensor=record.sensor,
        terms=record.terms,
        approximate=record.approximate,
        path=path,
        sha256=file_sha256(path),
        weights=meta.get("values", "").startswith("weights"),
        defaults=defaults,
        colours=colours,
    )


def _defaults(meta: dict[str, str]) -> dict[int, tuple[str, ...]]:
    """`# default 4: B2 B3 B4 B8`: the bands that a file of 4 bands usually has."""
    return {int(key.split()[1]): _split_list(value) for key, value in meta.items() if re.fullmatch(r"default \d+", key)}


def _colours(meta: dict[str, str]) -> dict[str, str]:
    """`# colour blue: B2`."""
    return {key.split()[1]: value for key, value in meta.items() if re.fullmatch(r"colour \w+", key)}


def _read_numbers(path: Path, columns: int, skip: int) -> FloatArray:
    """(n, columns) numbers of the rows after `skip` lines; an empty cell is 0."""
    rows = []
    for number, line in enumerate(path.read_text(encoding="utf-8-sig").splitlines()[skip:], start=skip + 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        cells = line.split(",")
        if len(cells) != columns:
            raise SrfError(f"{path}, line {number}: {len(cells)} values where the header names {columns} columns.")
        try:
            rows.append([float(cell.strip() or 0) for cell in cells])
        except ValueError:
            raise SrfError(
                f"{path}, line {number}: {line.strip()[:60]!r} holds something that isn't a number."
            ) from None
    return np.array(rows).reshape(-1, columns)


def _check_table(path: Path, bands: tuple[str, ...], wavelengths: FloatArray, response: FloatArray) -> None:
    """SrfError unless wavelengths rise, are nm, and every band has a response >= 0 and somewhere above."""
    if wavelengths.size < 2:
        raise SrfError(f"{path}: {wavelengths.size} rows; wanted at least 2 wavelengths.")
    if not (np.isfinite(wavelengths).all() and np.isfinite(response).all()):
        raise SrfError(f"{path}: holds NaN or infinite values; wanted numbers.")
    if wavelengths.max() < 30:
        raise SrfError(f"{path}: wavelengths up to {wavelengths.max():g} look like micrometres; wanted nm (x 1000).")
    if (np.diff(wavelengths) <= 0).any() or wavelengths[0] <= 0:
        row = int(np.argmax(np.diff(wavelengths) <= 0)) + 1
        raise SrfError(
            f"{path}: wavelengths must rise from above 0; {wavelengths[row]:g} nm follows {wavelengths[row - 1]:g} nm."
        )
    for name, row in zip(bands, response, strict=True):
        if row.min() < 0:
            raise SrfError(f"{path}: band {name} has a negative response ({row.min():g}); wanted 0 or more.")
        if row.max() == 0:
            raise SrfError(f"{path}: band {name} is zero everywhere; leave the column out.")


def check_csv(path: str | Path, *, overwrite: bool = False) -> Path:
    """A path that `write_srf` can write to; OutputError when it can't, SettingError unless it ends in .csv."""
    path = Path(path)
    if path.suffix.lower() != ".csv":
        raise SettingError(f"{path}: a response is written as CSV; give a name that ends in .csv")
    if not path.parent.is_dir():
        raise OutputError(f"the output folder {path.parent} doesn't exist; make it first")
    if path.is_dir() or (os.path.lexists(path) and not overwrite):
        raise OutputError(f"{path} exists already; choose another name or allow overwriting (--overwrite)")
    return path


def write_srf(
    response: SpectralResponse, path: str | Path, *, about: Mapping[str, str] | None = None, overwrite: bool = False
) -> Path:
    """Write a table of wavelengths in nm and one column a band, with `about` as further comments; give back the path.

    Errors as for `check_csv`, and OutputError where the file can't be written.
    """
    path = check_csv(path, overwrite=overwrite)
    part = path.with_name(f".{path.stem}.{secrets.token_hex(4)}.part.csv")
    try:
        part.write_text("\n".join(_lines(response, about or {})) + "\n", encoding="utf-8")
        os.replace(part, path)
    except OSError as error:
        raise OutputError(f"{path}: can't be written ({error.strerror})") from None
    finally:
        part.unlink(missing_ok=True)
    return path


def _lines(response: SpectralResponse, about: Mapping[str, str]) -> list[str]:
    facts = {"sensor": response.sensor, "source": response.source, "terms": response.terms, **about}
    if response.weights:
        facts["values"] = "weights of the HSI's bands at these centres"
    lines = [f"# {key}: {' '.join(value.split())}" for key, value in facts.items() if value]
    lines.append(",".join(["wavelength_nm", *response.bands]))
    table = zip(response.wavelengths_nm, response.response.T, strict=True)
    return lines + [",".join([f"{nm:.10g}", *(f"{value:.6g}" for value in row)]) for nm, row in table]

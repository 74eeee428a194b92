"""What a benchmark is, read from TOML (examples/configs/benchmark-*.toml) or given as options."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields
from difflib import get_close_matches
from itertools import product
from pathlib import Path
from typing import Any

from hsfuse.benchmark.cases import METHOD_OPTIONS, TOLD_TRUTH, Case, Method, Noise, Psf, Scene, Sensor
from hsfuse.benchmark.mismatch import Mismatch
from hsfuse.core.errors import SettingError
from hsfuse.core.options import DEFAULT_MTF, kind_of
from hsfuse.io.toml import read_toml
from hsfuse.physics import load_srf

#: Keys that hold for all scenes unless a scene says otherwise.
AXES = ("ratios", "sensors", "noise", "psf", "mismatch")
KEYS = ("methods", "scenes", *AXES, "seed", "device")
SCENE_KEYS = (*(f.name for f in fields(Scene)), *AXES)


@dataclass(frozen=True)
class BenchmarkConfig:
    """The cases, all methods of a pair side by side; `source` is the configuration as it was given."""

    cases: tuple[Case, ...]
    source: dict[str, Any] = field(default_factory=dict, compare=False)


@dataclass(frozen=True)
class _At:
    """Where a value stands, for messages; and the folder from which relative paths are understood."""

    where: str
    folder: Path

    def wrong(self, text: str) -> SettingError:
        return SettingError(f"{self.where}: {text}")

    def known(self, what: str, given: Iterable[str], known: Iterable[str]) -> None:
        """SettingError for the first name that isn't known, with the nearest that is."""
        names = list(known)
        for name in given:
            if name not in names:
                near = get_close_matches(name, names, 1)
                hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(names)}"
                raise self.wrong(f"unknown {what} {name!r}; {hint}")

    def each(self, what: str, value: Any) -> list[Any]:
        """The items of a list that holds any."""
        if not isinstance(value, list) or not value:
            raise self.wrong(f"{what} is {value!r}, wanted a list with at least one entry")
        return value

    def number(self, what: str, value: Any, low: float, *, whole: bool = False, above: bool = False) -> Any:
        """A number of at least `low`, or above it."""
        right = isinstance(value, int) if whole else isinstance(value, int | float)
        if isinstance(value, bool) or not right or value < low or (above and value == low):
            kind, words = "a whole number" if whole else "a number", "above" if above else "of at least"
            raise self.wrong(f"{what} is {value!r}, wanted {kind} {words} {low:g}")
        return value


def load_config(path: Path, changes: Mapping[str, Any] | None = None, data: Path | None = None) -> BenchmarkConfig:
    """Read a benchmark from TOML; SettingError names the key that doesn't fit. See `parse_config`."""
    return parse_config(read_toml(path), changes, str(path), data or path.parent)


def parse_config(
    raw: Mapping[str, Any],
    changes: Mapping[str, Any] | None = None,
    where: str = "the benchmark",
    folder: Path = Path(),
) -> BenchmarkConfig:
    """A benchmark from nested tables, relative paths below `folder`; SettingError names what doesn't fit.

    `changes` replace entries of the same name, those of single scenes included. `methods` among them are labels of the
    configuration's methods or names of other ones.
    """
    at = _At(where, folder)
    named = _as_now(at, raw)
    at.known("entry", named, KEYS)
    given = _changed(named, _as_now(at, changes or {}))
    for key, option in (("methods", "--methods"), ("scenes", "--reference")):
        if key not in given:
            raise at.wrong(f"there are no {key}; give `{key}` in a configuration or {option}")
    methods = _methods(at, given["methods"])
    seed, device = at.number("seed", given.get("seed", 0), 0, whole=True), given.get("device", "auto")
    at.known("device", [str(device)], kind_of("device")[2])
    cases: list[Case] = []
    for item in at.each("scenes", given["scenes"]):
        table, scenes = _scenes(at, item)
        axes = _axes(at, {**given, **table})
        odd: list[Any] = [
            Mismatch.of(_table(at, "mismatch", m)) for m in table.get("mismatch", given.get("mismatch", []))
        ]
        cases += (
            Case(*pair, seed, m, device, departs)
            for scene in scenes
            for pair in product([scene], *axes)
            for departs in odd or [None]
            for m in methods
        )
    _distinct(at, "scenes", [scene.name for scene in dict.fromkeys(case.scene for case in cases)])
    return BenchmarkConfig(tuple(dict.fromkeys(cases)), given)


def _as_now(at: _At, table: Mapping[str, Any]) -> dict[str, Any]:
    """A table with the ratios under the name that they have now; `scales` is the former one."""
    if "scales" in table and "ratios" in table:
        raise at.wrong("ratios and scales are the same; give `ratios` alone")
    return {"ratios" if key == "scales" else key: value for key, value in table.items()}


def _changed(raw: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """The configuration with `changes`, which hold for all scenes."""
    scenes = raw.get("scenes")
    if isinstance(scenes, list):
        former = {"scales"} if "ratios" in changes else set()
        theirs = {*changes, *former}
        raw["scenes"] = [{k: v for k, v in s.items() if k not in theirs} if isinstance(s, dict) else s for s in scenes]
    own = raw.get("methods")
    if "methods" in changes and isinstance(own, list):
        changes["methods"] = [m for name in changes["methods"] for m in _called(name, own)]
    return {**raw, **changes}


def _called(name: str, own: list[Any]) -> list[Any]:
    """Those of the configuration's methods with this label, else with this name, else the method as it is."""
    for key in ("label", "method"):
        if found := [m for m in own if isinstance(m, dict) and m.get(key) == name]:
            return found
    return [name]


def _methods(at: _At, value: Any) -> list[Method]:
    from hsfuse.methods import METHODS

    methods = []
    for item in at.each("methods", value):
        table = {"method": item} if isinstance(item, str) else _table(at, "method", item)
        at.known("option of a method", table, ("method", "label", "told", *METHOD_OPTIONS))
        if "method" not in table:
            raise at.wrong(f"the method {table!r} has no `method`; give a name such as 'gsa'")
        at.known("method", [str(table["method"])], METHODS)
        options = {key: table[key] for key in METHOD_OPTIONS if key in table}
        for key, value in options.items():
            if known := METHODS if key == "base" else kind_of(key)[2]:
                at.known(key, [str(value)], known)
        if "model" in options:
            options["model"] = _local(at, str(options["model"]))
        label = table.get("label") or ", ".join([table["method"], *(f"{k} {v}" for k, v in options.items())])
        told = str(table.get("told", "user"))
        at.known("word for what a method is told", [told], ("user", "truth"))
        if told == "truth" and "label" not in table:
            label += TOLD_TRUTH
        methods.append(Method(table["method"], str(label), tuple(options.items()), told))
    _distinct(at, "methods", [m.label for m in methods])
    return methods


def _table(at: _At, what: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise at.wrong(f"the {what} {value!r} is neither a name nor a table")
    return value


def _local(at: _At, name: str) -> str:
    """A path below the folder when there is such a file, else the name itself."""
    return str(at.folder / name) if (at.folder / name).is_file() else name


def _distinct(at: _At, what: str, names: list[str]) -> None:
    if twice := [name for name in dict.fromkeys(names) if names.count(name) > 1]:
        raise at.wrong(f"two {what} are called {twice[0]!r}; tell them apart by `{_NAMED[what]}`")


_NAMED = {"methods": "label", "scenes": "name"}


def _scenes(at: _At, item: Any) -> tuple[dict[str, Any], list[Scene]]:
    """The table of one entry, and its scenes: several where the reference is a pattern."""
    table = {"reference": item} if isinstance(item, str) else _as_now(at, _table(at, "scene", item))
    at.known("key of a scene", table, SCENE_KEYS)
    files = _references(at, table.get("reference"))
    if "name" in table and len(files) > 1:
        raise at.wrong(f"{table['reference']!r} is {len(files)} files, which can't all be called {table['name']!r}")
    values: dict[str, Any] = {}
    if "window" in table:
        values["window"] = _numbers(at, "window", table["window"], 4, whole=True)
    if "wavelengths_nm" in table:
        values["wavelengths_nm"] = _numbers(at, "wavelengths_nm", table["wavelengths_nm"], 2)
    for key in ("value_scale", "peak"):
        if key in table and table[key] != "maximum":
            values[key] = at.number(key, table[key], 0, above=True)
    if table.get("value_scale") == "maximum":
        values["value_scale"] = "maximum"
    return table, [Scene(str(table.get("name", file.stem)), file, **values) for file in files]


def _references(at: _At, pattern: Any) -> list[Path]:
    if not isinstance(pattern, str) or not pattern:
        raise at.wrong(f"a scene's reference is {pattern!r}, wanted a file or a pattern such as 'scenes/*.tif'")
    path = at.folder / pattern
    if path.exists():
        return [path]
    anchor = Path(path.anchor)
    files = sorted(anchor.glob(str(path.relative_to(anchor)))) if any(c in pattern for c in "*?[") else []
    if not files:
        raise at.wrong(f"there is no reference {path}; name the folder of the data with --data")
    return files


def _numbers(at: _At, what: str, value: Any, count: int, *, whole: bool = False) -> tuple[Any, ...]:
    if not isinstance(value, list) or len(value) != count:
        raise at.wrong(f"{what} is {value!r}, wanted {count} numbers")
    return tuple(at.number(what, v, 0, whole=whole) for v in value)


def _axes(at: _At, given: Mapping[str, Any]) -> tuple[list[int], list[Sensor], list[Noise], list[Psf]]:
    if "sensors" not in given:
        raise at.wrong("there are no sensors; give `sensors` in a configuration or --srf")
    read: dict[str, Callable[[_At, Any], Any]] = {"sensors": _sensor, "noise": _noise, "psf": _psf}
    default: dict[str, list[Any]] = {"noise": ["none"], "psf": [{"mtf": DEFAULT_MTF}]}
    ratios = [at.number("ratio", v, 2, whole=True) for v in at.each("ratios", given.get("ratios", [4]))]
    sensors, noise, psf = (
        [one(at, item) for item in at.each(key, given.get(key, default.get(key)))] for key, one in read.items()
    )
    return ratios, sensors, noise, psf


def _sensor(at: _At, item: Any) -> Sensor:
    table = {"srf": item} if isinstance(item, str) else _table(at, "sensor", item)
    at.known("key of a sensor", table, ("srf", "msi_bands"))
    if "srf" not in table:
        raise at.wrong("a sensor has no `srf`; give a name of `hsfuse srf list` or a CSV")
    srf, bands = _local(at, str(table["srf"])), table.get("msi_bands")
    response = load_srf(srf)
    if bands is not None:
        response.select(at.each("msi_bands", bands))
    return Sensor(srf, None if bands is None else tuple(bands))


def _noise(at: _At, item: Any) -> Noise:
    """`"none"`, or a pair for LRHSI and MSI, each in dB or "none"."""
    pair = [item, item] if item == "none" else item
    if not isinstance(pair, list) or len(pair) != 2:
        raise at.wrong(f'noise {item!r} is neither "none" nor a pair [SNR of the HSI, SNR of the MSI] in dB')
    return Noise(*(None if v == "none" else at.number("an SNR", v, 0, above=True) for v in pair))


def _psf(at: _At, item: Any) -> Psf:
    table = _table(at, "PSF", item)
    at.known("key of a PSF", table, ("mtf", "sigma"))
    if len(table) != 1:
        raise at.wrong(f"the PSF {table!r} has not one of mtf and sigma")
    return Psf(**{key: at.number(key, value, 0, above=True) for key, value in table.items()})

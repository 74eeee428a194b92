"""What a training run is, read from TOML (examples/configs/*.toml)."""

from __future__ import annotations

import tomllib
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal

from hsfuse.errors import SettingError
from hsfuse.training.draws import DrawSettings
from hsfuse.training.patches import PatchSettings

KINDS = ("any-sensor", "bands")


@dataclass(frozen=True)
class NetSettings:
    """Sizes of the network; `channels` is the subspace's dimension, or for kind "bands" the number of bands."""

    scale: int
    channels: int
    stages: int = 4
    expand: int = 2
    keep: float = 0.3
    dropout: float = 0.0


@dataclass(frozen=True)
class DataSettings:
    """Patterns of reference files below the data folder; `train` pairs each with how often it is drawn."""

    train: tuple[tuple[str, float], ...]
    validation: tuple[str, ...] = ()
    description: str = ""
    terms: str = ""
    normalise: Literal["none", "maximum"] = "none"


@dataclass(frozen=True)
class OptimiserSettings:
    """Optimiser, schedule and loss: `gain`, `l1` and `angle` are the weights of the loss's terms."""

    steps: int
    batch: int = 4
    name: Literal["adam", "adamw"] = "adamw"
    learning_rate: float = 2e-3
    final_learning_rate: float = 0.0
    betas: tuple[float, float] = (0.9, 0.98)
    warmup: int = 100
    weight_decay: float = 1e-2
    clip: float = 1.0
    ema: float = 0.99
    gain: float = 1.0
    l1: float = 0.0
    angle: float = 0.3


@dataclass(frozen=True)
class TrainConfig:
    """One run: weights `name` of a `kind`, the network, the data, what varies, and how it is optimised."""

    name: str
    net: NetSettings
    data: DataSettings
    optimiser: OptimiserSettings
    kind: str = "any-sensor"
    draws: DrawSettings | None = None  # any-sensor
    patches: PatchSettings | None = None  # bands
    start: str = ""  # weights to start from, by name or path, where their tensors' shapes agree
    seed: int = 0
    check_every: int = 200
    source: dict[str, Any] = field(default_factory=dict, compare=False)

    def with_changes(self, steps: int | None, seed: int | None) -> TrainConfig:
        """The same run, longer or shorter, or with another seed."""
        optimiser = self.optimiser if steps is None else replace(self.optimiser, steps=steps)
        return replace(self, optimiser=optimiser, seed=self.seed if seed is None else seed)

    def summary(self) -> dict[str, Any]:
        """The settings for card and checkpoint, without what changes from machine to machine."""
        return {key: value for key, value in asdict(self).items() if key != "source"}


def load_config(path: Path) -> TrainConfig:
    """Read a run from TOML; SettingError names the table and key that don't fit."""
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingError(f"{path}: can't be read ({error.strerror})") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingError(f"{path}: not TOML ({error})") from error
    return parse_config(raw, str(path))


def parse_config(raw: dict[str, Any], where: str = "the configuration") -> TrainConfig:
    """A run from nested tables; SettingError names what is missing, unknown or impossible."""
    tables = dict(raw)
    kind = tables.get("kind", "any-sensor")
    if kind not in KINDS:
        raise SettingError(f"{where}: kind {kind!r} is unknown, wanted one of {', '.join(KINDS)}")
    net = _table(where, tables, "net", NetSettings)
    draws = patches = None
    if kind == "any-sensor":
        draws = _table(where, tables, "draws", DrawSettings, scale=net.scale, channels=net.channels)
    else:
        patches = _table(where, tables, "patches", PatchSettings, scale=net.scale)
    data, optimiser = _table(where, tables, "data", DataSettings), _table(where, tables, "optimiser", OptimiserSettings)
    top = {key: tables.pop(key) for key in ("name", "kind", "start", "seed", "check_every") if key in tables}
    if tables:
        raise SettingError(f"{where}: unknown entries {', '.join(sorted(tables))}")
    if "name" not in top:
        raise SettingError(f"{where}: `name` is missing; it names the weights")
    return TrainConfig(net=net, data=data, optimiser=optimiser, draws=draws, patches=patches, source=raw, **top)


def _table(where: str, tables: dict[str, Any], key: str, cls: type, **given: Any) -> Any:
    """Take the table `key` out of `tables` as an instance of `cls`; lists become tuples."""
    values = {**tables.pop(key, {}), **given}
    known = {f.name for f in fields(cls)}
    if unknown := sorted(set(values) - known):
        raise SettingError(
            f"{where}: [{key}] has no setting {', '.join(unknown)}; known are {', '.join(sorted(known))}"
        )
    try:
        return cls(**{name: _frozen(value) for name, value in values.items()})
    except TypeError as error:
        raise SettingError(f"{where}: [{key}] is incomplete ({error})") from error


def _frozen(value: Any) -> Any:
    return tuple(_frozen(item) for item in value) if isinstance(value, list) else value

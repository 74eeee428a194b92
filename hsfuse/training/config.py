"""What a training run is, read from TOML (examples/configs/*.toml)."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from hsfuse.core.errors import SettingError
from hsfuse.core.values import Count, Positive, Range, Share, check_values
from hsfuse.io.toml import read_toml, take_table
from hsfuse.training.draws import DrawSettings
from hsfuse.training.patches import PatchSettings

KINDS = ("any-sensor", "bands")


@dataclass(frozen=True)
class NetSettings:
    """Sizes of the network; `channels` is the subspace's dimension, or for kind "bands" the number of bands."""

    scale: Count
    channels: Count
    stages: Count = 4
    expand: Count = 2
    keep: Share = 0.3
    dropout: Annotated[float, Range(0, 1, below=True)] = 0.0


@dataclass(frozen=True)
class DataSettings:
    """Patterns of reference files below the data folder; `train` pairs each with how often it is drawn.

    No scene may be on two sides. `test` scenes, where they are there, are scored at the end and used for nothing else.
    """

    train: tuple[tuple[str, Positive], ...]
    validation: tuple[str, ...] = ()
    test: tuple[str, ...] = ()
    description: str = ""
    terms: str = ""
    normalise: Literal["none", "maximum"] = "none"


@dataclass(frozen=True)
class OptimiserSettings:
    """Optimiser, schedule and loss: `gain`, `l1` and `angle` are the weights of the loss's terms.

    A share `keep_start` of the weights that a run starts from is kept in those that it ends with (Wortsman et al. 2022,
    "Robust fine-tuning of zero-shot models", CVPR). The learning rate falls during the last `falling` share of the
    steps. With "bf16" the network runs in mixed precision on a GPU, the loss and the scan's states in float32; on a CPU
    it makes no difference.
    """

    steps: Count
    batch: Count = 4
    name: Literal["adam", "adamw", "muon"] = "adamw"
    learning_rate: Positive = 2e-3
    final_learning_rate: float = 0.0
    betas: tuple[Share, Share] = (0.9, 0.98)
    warmup: int = 100
    falling: Share = 1.0
    weight_decay: float = 1e-2
    clip: Positive = 1.0
    ema: Share = 0.99
    keep_start: Share = 0.0
    gain: float = 1.0
    l1: float = 0.0
    angle: float = 0.3
    precision: Literal["float32", "bf16"] = "float32"


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
    check_every: Count = 200
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
    return parse_config(read_toml(path), str(path))


def parse_config(raw: dict[str, Any], where: str = "the configuration") -> TrainConfig:
    """A run from nested tables; SettingError names what is missing, unknown or impossible."""
    tables = dict(raw)
    kind = tables.get("kind", "any-sensor")
    if kind not in KINDS:
        raise SettingError(f"{where}: kind {kind!r} is unknown, wanted one of {', '.join(KINDS)}")
    net = take_table(where, tables, "net", NetSettings)
    draws = patches = None
    if kind == "any-sensor":
        draws = take_table(where, tables, "draws", DrawSettings, scale=net.scale, channels=net.channels)
    else:
        patches = take_table(where, tables, "patches", PatchSettings, scale=net.scale)
    data, optimiser = (
        take_table(where, tables, "data", DataSettings),
        take_table(where, tables, "optimiser", OptimiserSettings),
    )
    top: dict[str, Any] = {
        key: tables.pop(key) for key in ("name", "kind", "start", "seed", "check_every") if key in tables
    }
    if not data.train:
        raise SettingError(f"{where}: [data] train is empty, wanted at least one pattern with its share")
    if tables:
        raise SettingError(f"{where}: unknown entries {', '.join(sorted(tables))}")
    if "name" not in top:
        raise SettingError(f"{where}: `name` is missing; it names the weights")
    check_values(f"{where}:", top, TrainConfig)
    return TrainConfig(net=net, data=data, optimiser=optimiser, draws=draws, patches=patches, source=raw, **top)

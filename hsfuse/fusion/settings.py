"""Everything `fuse` can be told beyond the files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal

import torch

from hsfuse.core.errors import SettingError
from hsfuse.fusion.storage import OutputSettings
from hsfuse.methods.adapt import AdaptSettings
from hsfuse.methods.srlf import DEFAULT_BASE
from hsfuse.pair import SceneSettings

DEFAULT_TILE = 96
DEFAULT_OVERLAP = 16


@dataclass(frozen=True)
class FuseSettings:
    """How the pair is understood (`scene`), fused and stored (`output`); see the command line's help for each."""

    scene: SceneSettings
    method: str = "srlf"
    model: str = "auto"
    base: str = DEFAULT_BASE
    adapt: AdaptSettings = field(default_factory=AdaptSettings)
    save_model: Path | None = None
    tile: int = DEFAULT_TILE
    overlap: int = DEFAULT_OVERLAP
    ensemble: int = 0
    device: str = "auto"
    clip: Literal["none", "zero"] = "none"
    output: OutputSettings = field(default_factory=OutputSettings)
    dry_run: bool = False
    command: str = ""

    def with_options(self, options: Mapping[str, Any]) -> FuseSettings:
        """The same with fields changed, each by its name alone wherever it belongs; SettingError for an unknown one."""
        parts: dict[str, dict[str, Any]] = {"": {}, "scene": {}, "adapt": {}, "output": {}}
        owners: dict[str, Any] = {part: self if part == "" else getattr(self, part) for part in parts}
        for key, value in options.items():
            owner = next((part for part, of in owners.items() if key in {f.name for f in fields(of)}), None)
            if owner is None or (owner == "" and key in parts):
                raise SettingError(f"fuse has no option {key!r}")
            parts[owner][key] = Path(value) if key in ("save_model", "qa") and value is not None else value
        inner: dict[str, Any] = {part: replace(owners[part], **parts[part]) for part in parts if part}
        return replace(self, **inner, **parts[""])


def pick_device(name: str) -> str:
    """`auto` is CUDA where there is one; SettingError when CUDA is asked for and absent, or the name is another one."""
    if name not in ("auto", "cpu", "cuda"):
        raise SettingError(f"there is no device {name!r}; known are auto, cpu, cuda")
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and not torch.cuda.is_available():
        raise SettingError("device cuda was asked for, but this torch sees no CUDA GPU; use --device cpu")
    return name

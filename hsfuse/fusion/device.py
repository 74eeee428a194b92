"""Where to compute."""

from __future__ import annotations

import torch

from hsfuse.core.errors import SettingError


def pick_device(name: str) -> str:
    """`auto` is CUDA where there is one; SettingError when CUDA is asked for and absent, or the name is another one."""
    if name not in ("auto", "cpu", "cuda"):
        raise SettingError(f"there is no device {name!r}; known are auto, cpu, cuda")
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and not torch.cuda.is_available():
        raise SettingError("device cuda was asked for, but this torch sees no CUDA GPU; use --device cpu")
    return name

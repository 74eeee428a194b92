"""Where to compute."""

from __future__ import annotations

import ctypes
import runpy
import sys
from importlib.util import find_spec
from pathlib import Path

from hsfuse.core.errors import SettingError


def check_device(name: str) -> None:
    """SettingError, without torch, where CUDA is asked for and torch was built without it or there is no driver of it.

    Whether a GPU is there and may be used, `pick_device` tells: it has to start CUDA for it.
    """
    spec = find_spec("torch")
    if name != "cuda" or spec is None or not spec.submodule_search_locations:
        return
    built = runpy.run_path(str(Path(spec.submodule_search_locations[0]) / "version.py"))
    if built.get("hip") is not None:
        return
    if built.get("cuda") is None:
        raise SettingError("device cuda was asked for, but this torch is a build without CUDA; use --device cpu")
    if sys.platform == "linux":
        try:
            ctypes.CDLL("libcuda.so.1")
        except OSError:
            raise SettingError(
                "device cuda was asked for, but there is no driver of NVIDIA's (libcuda.so.1); use --device cpu"
            ) from None


def pick_device(name: str) -> str:
    """`auto` is CUDA where there is one; SettingError when CUDA is asked for and absent, or the name is another one."""
    import torch

    if name not in ("auto", "cpu", "cuda"):
        raise SettingError(f"there is no device {name!r}; known are auto, cpu, cuda")
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and not torch.cuda.is_available():
        raise SettingError("device cuda was asked for, but this torch sees no CUDA GPU; use --device cpu")
    return name

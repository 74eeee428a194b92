"""Folders of small scenes to train on, and the draws of them, which are fused once for all runs of a module."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray


def write_scenes(folder: Path, cube: Callable[[int], NDArray], nm: NDArray, **sides: Sequence[int]) -> Path:
    """FOLDER/SIDE/sSEED.npz with `cube(seed)` for each seed of each side; returns the folder."""
    for side, seeds in sides.items():
        (folder / side).mkdir()
        for seed in seeds:
            np.savez(folder / side / f"s{seed}.npz", cube=cube(seed), wavelengths_nm=nm)
    return folder


def share_cache(folder: Path, cache: Path, *names: str) -> None:
    """`train` keeps the draws of FOLDER/NAME.safetensors in `cache`, as those of all runs that share it."""
    for name in names:
        (folder / f"{name}.cache").symlink_to(cache, target_is_directory=True)

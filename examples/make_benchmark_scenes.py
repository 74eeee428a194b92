"""Gather public hyperspectral scenes as .npz files with wavelengths, as configs/benchmark-methods.toml wants them.

    python examples/make_benchmark_scenes.py DOWNLOADS SCENES

DOWNLOADS is searched for the files as their authors publish them; what isn't there is left out. None of the .mat files
holds wavelengths: those written here are nominal, evenly spaced over the instrument's channels. CAVE's folders of
images and EnMAP's GeoTIFFs need no gathering: put them into SCENES as they are.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import scipy.io

#: File: (name of the scene, first and last of the instrument's channels in nm, their number, channels left out).
SCENES: dict[str, tuple[str, float, float, int, set[int]]] = {
    "Indian_pines_corrected.mat": ("indian-pines", 400, 2499, 220, {*range(104, 109), *range(150, 164), 220}),
    "*asper*.mat": ("jasper-ridge", 380, 2500, 224, set()),
    "abu-urban-2.mat": ("abu-urban-2", 400, 2500, 0, set()),
    "abu-beach-2.mat": ("abu-beach-2", 400, 2500, 0, set()),
    "hydice_urban.mat": ("hydice-urban", 400, 2500, 0, set()),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("downloads", type=Path)
    parser.add_argument("scenes", type=Path)
    given = parser.parse_args()
    given.scenes.mkdir(exist_ok=True)
    for pattern, (name, first, last, channels, left_out) in SCENES.items():
        for file in sorted(given.downloads.rglob(pattern))[:1]:
            cube, kept = read(file)
            channels = channels or len(cube)
            if kept is None:
                kept = [i for i in range(channels) if i + 1 not in left_out]
            if len(kept) < len(cube):
                cube = cube[kept]
            nm = np.linspace(first, last, channels)[kept]
            np.savez_compressed(given.scenes / f"{name}.npz", cube=cube, wavelengths_nm=nm)
            print(f"{name}.npz: {cube.shape}, {nm[0]:.0f} to {nm[-1]:.0f} nm")


def read(file: Path) -> tuple[np.ndarray, list[int] | None]:
    """The cube (bands, rows, columns) with a maximum of 1, and which channels are usable where the file says so."""
    held = {key: np.asarray(value) for key, value in scipy.io.loadmat(file).items() if not key.startswith("__")}
    if "SlectBands" in held:  # Jasper Ridge: one column a pixel; a few glints are cut off
        cube = held["Y"].astype(np.float32).reshape(len(held["Y"]), 100, 100, order="F")[:, :96, :96]
        kept = [int(i) - 1 for i in held["SlectBands"].ravel()]
        top = np.percentile(cube[kept] if len(cube) > len(kept) else cube, 99.99)
        return np.clip(cube / np.float32(top), 0, 1), kept
    cube = max((a for a in held.values() if a.ndim == 3), key=np.size).transpose(2, 0, 1).astype(np.float32)
    return cube.clip(0) / cube.max(), None


if __name__ == "__main__":
    main()

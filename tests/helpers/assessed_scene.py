"""A small synthetic scene on disk for the tests of assessment and report: LRHSI, MSI, truth and response."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from affine import Affine
from rasterio.crs import CRS
from rasterio.windows import Window
from scipy.ndimage import gaussian_filter

from hsfuse.core.cube import Spectrum
from hsfuse.core.grid import Grid
from hsfuse.io import CubeWriter
from hsfuse.physics import load_srf
from hsfuse.physics.model import ObservationModel, gaussian_psf
from hsfuse.physics.optics import sigma_from_mtf

SCALE = 4
GRID = Grid((48, 48), Affine(10, 0, 600000, 0, -10, 5000000), CRS.from_epsg(32633))
WAVELENGTHS_NM = np.linspace(420, 1000, 24)
CENTRES_NM = {"B2": 490, "B3": 560, "B4": 665, "B8": 842}


@dataclass(frozen=True)
class Scene:
    """Paths of the files, and the truth (C, H, W)."""

    folder: Path
    truth: np.ndarray

    @property
    def observed(self) -> dict[str, str]:
        """Keyword arguments that name LRHSI, MSI and response, and the PSF of the scene."""
        files = {"hsi": "hsi.tif", "msi": "msi.tif", "srf": "s.csv"}
        return {name: str(self.folder / file) for name, file in files.items()} | {"psf": "assumed"}

    def path(self, name: str) -> str:
        return str(self.folder / name)


def truth_cube(seed: int = 0, shape: tuple[int, int] = GRID.shape) -> np.ndarray:
    """Smooth random mixtures of three smooth spectra (C, H, W), reflectance 0.05 to 0.6."""
    rng = np.random.default_rng(seed)
    abundance = np.stack([gaussian_filter(rng.standard_normal(shape), 2) for _ in range(3)])
    abundance = np.exp(8 * abundance) / np.exp(8 * abundance).sum(axis=0)
    spectra = np.array(
        [0.1 + 0.4 / (1 + np.exp(-(WAVELENGTHS_NM - c) / w)) for c, w in ((700, 20), (500, 90), (900, -80))]
    )
    return np.tensordot(spectra.T, abundance, axes=1).astype(np.float32)


def write(
    path: str | Path, data: np.ndarray, grid: Grid, spectrum: Spectrum, mask: np.ndarray | None = None, **tags: str
) -> None:
    valid = np.ones(grid.shape, bool) if mask is None else mask
    with CubeWriter(path, grid, spectrum, tags=tags, overwrite=True) as writer:
        writer.write(Window(0, 0, grid.shape[1], grid.shape[0]), data.astype(np.float32), valid)


def write_cube(path: str | Path, data: np.ndarray, mask: np.ndarray | None = None, **tags: str) -> None:
    """A cube on the scene's grid with its wavelengths."""
    write(path, data, GRID, Spectrum(tuple(WAVELENGTHS_NM)), mask, **tags)


def make_scene(folder: Path, side: int = GRID.shape[0]) -> Scene:
    """hsi.tif, msi.tif, truth.tif and s.csv by the observation model with the default PSF, without noise."""
    lines = ["wavelength_nm," + ",".join(CENTRES_NM)]
    for nm in range(400, 1001, 5):
        lines.append(f"{nm}," + ",".join(f"{np.exp(-(((nm - c) / 25) ** 2)):.6f}" for c in CENTRES_NM.values()))
    (folder / "s.csv").write_text("\n".join(lines))
    grid = Grid((side, side), GRID.transform, GRID.crs)
    truth = truth_cube(shape=grid.shape)
    weights, _ = load_srf(folder / "s.csv").matrix(WAVELENGTHS_NM)
    model = ObservationModel(weights, gaussian_psf(sigma_from_mtf(0.3, SCALE), SCALE), SCALE)
    lrhsi, msi = (part[0].numpy() for part in model(torch.from_numpy(truth)[None]))
    write(folder / "hsi.tif", lrhsi, grid.coarsen(SCALE), Spectrum(tuple(WAVELENGTHS_NM)))
    write(folder / "msi.tif", msi, grid, Spectrum(None, None, tuple(CENTRES_NM)))
    write(folder / "truth.tif", truth, grid, Spectrum(tuple(WAVELENGTHS_NM)))
    return Scene(folder, truth)

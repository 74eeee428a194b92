"""Tiny scenes: in memory for methods, on disk for the pipeline."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import torch
from affine import Affine
from rasterio.crs import CRS
from rasterio.windows import Window
from scipy.ndimage import gaussian_filter

from hsfuse.core.cube import Spectrum
from hsfuse.core.grid import Grid
from hsfuse.io import CubeWriter, Storage
from hsfuse.physics import load_srf
from hsfuse.physics.model import ObservationModel, gaussian_psf
from hsfuse.physics.optics import sigma_from_mtf
from hsfuse.physics.sample import PairSample

BANDS = ("B2", "B3", "B4", "B8")
WAVELENGTHS_NM = np.linspace(430.0, 940.0, 31)
FWHM_NM = np.full(31, 17.0)
HSI = Spectrum(tuple(WAVELENGTHS_NM), tuple(FWHM_NM))
MSI = Spectrum(None, None, BANDS)
NORTH_UP = Affine(10, 0, 600000, 0, -10, 5000000)


def mixture(shape: tuple[int, int], seed: int = 0) -> np.ndarray:
    """Reflectance (31, H, W) between 0.03 and 0.7: nine smooth spectra mixed, more than four bands can tell apart."""
    rng = np.random.default_rng(seed)
    abundance = np.stack([gaussian_filter(rng.standard_normal(shape), width) for width in np.linspace(2, 6, 9)])
    abundance = np.exp(3 * abundance / abundance.std(axis=(1, 2), keepdims=True))
    edges = zip(np.linspace(450, 900, 9), (18, 60, -35, 90, 25, -50, 12, 40, -20), strict=True)
    spectra = np.array([0.05 + 0.6 / (1 + np.exp(-(WAVELENGTHS_NM - at) / width)) for at, width in edges])
    return np.tensordot(spectra.T, abundance / abundance.sum(axis=0), axes=1).astype(np.float32)


@dataclass(frozen=True)
class MemoryScene:
    """Truth x (1, 31, H, W), what the two sensors see of it without noise, and the observation model."""

    truth: torch.Tensor
    lrhsi: torch.Tensor
    msi: torch.Tensor
    model: ObservationModel

    @property
    def training(self) -> PairSample:
        return PairSample(self.lrhsi, self.msi, torch.ones(self.lrhsi[:, 0].shape, dtype=torch.bool))


def memory_scene(lr_shape: tuple[int, int] = (24, 20), s: int = 3, seed: int = 0) -> MemoryScene:
    truth = torch.from_numpy(mixture((lr_shape[0] * s, lr_shape[1] * s), seed))[None]
    weights, _ = load_srf("sentinel2a").select(BANDS).matrix(WAVELENGTHS_NM, FWHM_NM)
    model = ObservationModel(weights, gaussian_psf(sigma_from_mtf(0.3, s), s), s)
    return MemoryScene(truth, *model(truth), model)


@dataclass(frozen=True)
class Pair:
    """Files of a pair in a folder: hsi.tif (int16, scale 1e-4), msi.tif (float32), and their truth."""

    folder: Path
    scene: MemoryScene
    hr_grid: Grid

    @property
    def hsi(self) -> Path:
        return self.folder / "hsi.tif"

    @property
    def msi(self) -> Path:
        return self.folder / "msi.tif"

    def hsi_grid(self) -> Grid:
        return self.hr_grid.coarsen(self.scene.model.ratio)


def save(path: Path, data: np.ndarray, grid: Grid, spectrum: Spectrum, mask: np.ndarray | None = None, **how) -> Path:
    """A whole cube at once by hsfuse's writer."""
    valid = np.ones(grid.shape, bool) if mask is None else mask
    stored = Storage(**{f.name: how.pop(f.name) for f in fields(Storage) if f.name in how})
    with CubeWriter(path, grid, spectrum, stored, overwrite=True, **how) as writer:
        writer.write(Window(0, 0, grid.shape[1], grid.shape[0]), np.asarray(data, np.float32), valid)
    return path


def save_pair(
    folder: Path, scene: MemoryScene, lr_mask: np.ndarray | None = None, msi: np.ndarray | None = None
) -> Pair:
    """Both files, with invalid LR pixels and another MSI where given."""
    grid = Grid(tuple(scene.truth.shape[2:]), NORTH_UP, CRS.from_epsg(32633))
    pair = Pair(folder, scene, grid)
    spectrum = Spectrum(tuple(WAVELENGTHS_NM), tuple(FWHM_NM))
    save(pair.hsi, scene.lrhsi[0].numpy(), pair.hsi_grid(), spectrum, lr_mask, dtype="int16", scale=1e-4)
    save(pair.msi, scene.msi[0].numpy() if msi is None else msi, grid, Spectrum(None, None, BANDS))
    return pair

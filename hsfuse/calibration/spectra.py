"""The LR pixels that both sensors see, and their spectra in the few directions that stand out of the noise."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import binary_erosion
from torch import Tensor

from hsfuse.core.errors import InputError
from hsfuse.physics.model import ObservationModel

FloatArray = NDArray[np.float64]
#: Pixels near borders and gaps, where the PSF reaches out of what is known, are left out if this many others remain.
ENOUGH_PIXELS = 256
#: Fewest LR pixels that anything is estimated from.
LEAST_PIXELS = 64
#: Part of a spectrum's variance that always counts as noise: data without noise must still be solvable.
LEAST_NOISE = 1e-7


@dataclass(frozen=True)
class LowPixels:
    """Valid LR pixels in raster order, float64: `lrhsi` (C, n), `msi` (c, n) degraded to the LR grid."""

    lrhsi: FloatArray
    msi: FloatArray


def low_pixels(lrhsi: Tensor, msi: Tensor, mask: Tensor, model: ObservationModel) -> LowPixels:
    """Pair LRHSI (n, C, h, w) with MSI (n, c, H, W) degraded by the model, where mask (n, h, w) is True.

    InputError when fewer than 64 pixels are valid.
    """
    inside = torch.from_numpy(inner_mask(mask.cpu().numpy(), model))
    if int(inside.sum()) < LEAST_PIXELS:
        raise InputError(
            f"{int(inside.sum())} LR pixels are valid in both images, wanted at least {LEAST_PIXELS} to estimate from"
        )
    return LowPixels(*(spectra.numpy() for spectra in paired_spectra(lrhsi, msi, inside, model)))


def paired_spectra(lrhsi: Tensor, msi: Tensor, mask: Tensor, model: ObservationModel) -> tuple[Tensor, Tensor]:
    """Spectra (C, m) of LRHSI (n, C, h, w) and (c, m) of MSI (n, c, H, W) degraded by the model, in double precision.

    They are those of the m pixels where mask (n, h, w) is True, in raster order.
    """
    low = model.spatial(msi.double())
    return lrhsi.permute(1, 0, 2, 3)[:, mask].double(), low.permute(1, 0, 2, 3)[:, mask]


def inner_mask(mask: NDArray[np.bool_], model: ObservationModel) -> NDArray[np.bool_]:
    """Pixels (n, h, w) whose PSF stays within valid ones; the mask itself where that leaves too few."""
    reach = max(1, ceil((model.psf.size - model.ratio) / (2 * model.ratio)))
    inner = np.stack([binary_erosion(one, np.ones((2 * reach + 1,) * 2)) for one in mask])
    return inner if inner.sum() >= ENOUGH_PIXELS else mask


@dataclass(frozen=True)
class CleanSpectra:
    """Centred spectra (C, n) about `basis` @ `scores`: basis (C, K), scores (K, n) with noise of variance 1 each.

    `moment` (K, K) is the covariance of the scores, noise included.
    """

    basis: FloatArray
    scores: FloatArray
    moment: FloatArray

    def select(self, pixels: NDArray[np.intp]) -> CleanSpectra:
        """Some of the pixels."""
        scores = self.scores[:, pixels] - self.scores[:, pixels].mean(1, keepdims=True)
        return CleanSpectra(self.basis, scores, scores @ scores.T / pixels.size)


def clean_spectra(spectra: FloatArray) -> CleanSpectra:
    """The axes of spectra (C, n) that stand out of the noise, in noise units.

    Kept are axes above the largest eigenvalue of white noise, (1 + sqrt(C / n))^2 (Marchenko, Pastur 1967).
    """
    bands, n = spectra.shape
    centred = spectra - spectra.mean(1, keepdims=True)
    noise = band_noise(centred)
    values, vectors = np.linalg.eigh(centred @ centred.T / n / noise[:, None] / noise)
    kept = max(1, int((values > 1.05 * (1 + np.sqrt(bands / n)) ** 2).sum()))
    axes = vectors[:, ::-1][:, :kept]
    return CleanSpectra(noise[:, None] * axes, axes.T @ (centred / noise[:, None]), np.diag(values[::-1][:kept]))


def band_noise(centred: FloatArray) -> FloatArray:
    """Standard deviation of each band's noise (C,), from centred spectra (C, n).

    What regression on all other bands leaves (Bioucas-Dias, Nascimento 2008, "Hyperspectral subspace identification",
    IEEE TGRS 46(8)); with few pixels, what the mean of the two neighbouring bands leaves.
    """
    bands, n = centred.shape
    floor = LEAST_NOISE * float((centred**2).mean())
    if n < 1.5 * bands:
        padded = np.concatenate([centred[1:2], centred, centred[-2:-1]])
        return np.sqrt(((centred - (padded[:-2] + padded[2:]) / 2) ** 2).mean(1) / 1.5 + floor)
    moment = centred @ centred.T / n + floor * np.eye(bands)
    return np.sqrt(n / (n - bands) / np.diag(np.linalg.inv(moment)) + floor)

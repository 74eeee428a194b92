"""The LR pixels that both sensors see, alone and in windows, and their spectra in few directions beyond the noise."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
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


def gain_error(gain: FloatArray) -> float:
    """Error of the sum of gains (n,), by windows that had no part in what is held against what is simpler.

    Were both as good, windows would fare worse at the richer one as often, and as much.
    """
    return float(np.sqrt(2 * np.square(np.minimum(gain, 0)).sum()))


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
    """The axes of spectra (C, n) that stand out of the noise (`noise_edge`), in noise units."""
    bands, n = spectra.shape
    centred = spectra - spectra.mean(1, keepdims=True)
    noise = band_noise(centred)
    values, vectors = np.linalg.eigh(centred @ centred.T / n / noise[:, None] / noise)
    kept = max(1, int((values > noise_edge(bands, n)).sum()))
    axes = vectors[:, ::-1][:, :kept]
    return CleanSpectra(noise[:, None] * axes, axes.T @ (centred / noise[:, None]), np.diag(values[::-1][:kept]))


def noise_edge(bands: int, pixels: float) -> float:
    """Largest eigenvalue that white noise of variance 1 has, (1 + sqrt(C / n))^2 (Marchenko, Pastur 1967), and 5 %."""
    return 1.05 * float((1 + np.sqrt(bands / pixels)) ** 2)


def varies(spectra: FloatArray) -> bool:
    """Whether spectra (C, n) differ by more than a hundred roundings of float32: others tell of no noise."""
    return bool(spectra.size) and float(spectra.std(1).max()) > 1e-5 * float(np.abs(spectra).max())


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


#: Ridge of a band's regression on all others, as a share of each one's variance: as noisy as that they may be, and few
#: pixels don't make a regression that explains noise.
OWN_RIDGE = 0.01


def own_part(spectra: FloatArray) -> tuple[FloatArray, FloatArray]:
    """What no other band tells of each: its deviation (C,), and the matrix (C, C) that gives it of spectra (C, n).

    A band of noise has all of itself. Unlike `band_noise` it tells such a band from its neighbours where there are
    fewer pixels than bands, too; less than about a hundredth of a band's variance it doesn't tell from nothing.

    >>> rising, by_turns = np.arange(100.0), np.resize([1.0, -1.0], 100)
    >>> own_part(np.stack([rising, 2 * rising, 3 * rising, 5 * by_turns]))[0].round()
    array([0., 0., 0., 5.])
    """
    centred = spectra - spectra.mean(1, keepdims=True)
    bands, n = centred.shape
    spread = np.maximum(centred.std(1), np.finfo(float).tiny)
    unit = centred / spread[:, None]
    inverse = np.linalg.inv(unit @ unit.T / n + OWN_RIDGE * np.eye(bands))
    matrix = inverse / np.diag(inverse)[:, None]
    taken = bands - OWN_RIDGE * np.trace(inverse)  # degrees of freedom of a ridge regression
    left = ((matrix @ (unit @ unit.T / n)) * matrix).sum(1) * n / max(n - taken, 1.0)
    return spread * np.sqrt(left), spread[:, None] * matrix / spread


#: LR pixels along a window's side, and directions of spectra that are seen in the pixels around.
WINDOW_SIDE, DIRECTIONS = 6, 8


class SharedPixels:
    """LR pixels that both sensors see whole, in windows of the scene, each window's mean taken out of every image.

    `lrhsi` (C, n); `around` (C, n) the mean of each one's four diagonal neighbours, which has the ground's spectra and
    none of the pixel's own noise; `msi` (c, n) degraded, and how it `changes` by blur, and by a move along rows and
    columns, (c, n) each; `window` (n,) from 0; `place` (2, n) row and column from -1 to 1 over the blocks;
    `mean_spectrum` (C,). InputError when fewer than 64 pixels are left.
    """

    def __init__(self, lrhsi: Tensor, msi: Tensor, mask: Tensor, model: ObservationModel) -> None:
        self._model, self._blocks, self.ratio = model, msi.double(), model.ratio
        spectra, valid = lrhsi.double().cpu().numpy(), mask.cpu().numpy()
        inside = inner_mask(valid, model) & np.stack([binary_erosion(one, np.ones((3, 3))) for one in valid])
        if int(inside.sum()) < LEAST_PIXELS:
            raise InputError(
                f"{int(inside.sum())} LR pixels lie inside both images, wanted at least {LEAST_PIXELS} to compare them"
            )
        self._inside, self.window = inside, _windows(inside)
        self._count = np.bincount(self.window)
        rows, cols = (np.linspace(-1, 1, n) for n in inside.shape[1:])
        self.place = np.stack([np.broadcast_to(a, inside.shape)[inside] for a in (rows[:, None], cols)])
        corners = [np.roll(spectra, (y, x), (2, 3)) for y in (-1, 1) for x in (-1, 1)]
        low = self._model.spatial(self._blocks).cpu().numpy()
        blurred = np.mean([np.roll(low, by, axis) for by in (-1, 1) for axis in (2, 3)], axis=0) - low
        slopes = [(np.roll(low, -1, axis) - np.roll(low, 1, axis)) / 2 for axis in (2, 3)]
        self.mean_spectrum = spectra.transpose(1, 0, 2, 3)[:, inside].mean(1)
        self.lrhsi, self.around, self.msi = map(self._picked, (spectra, np.mean(corners, axis=0), low))
        self.changes = [self._picked(image) for image in (blurred, *slopes)]

    @property
    def degrees(self) -> int:
        """Degrees of freedom: pixels less windows' means."""
        return self.window.size - self._count.size

    def of_msi(self, change: Callable[[Tensor], Tensor]) -> FloatArray:
        """The MSI (n, c, H, W), changed on its own pixels, as the LRHSI's PSF sees it: (c, n)."""
        return self._picked(self._model.spatial(change(self._blocks)).cpu().numpy())

    @cached_property
    def directions(self) -> FloatArray:
        """The spectra's leading directions as the pixels around see them, in noise units: (k, n), mean square 1."""
        noise = band_noise(self.lrhsi)
        _, _, axes = np.linalg.svd(self.around / noise[:, None], full_matrices=False)
        leading: FloatArray = axes[:DIRECTIONS] * np.sqrt(axes.shape[1])
        return leading

    def level(self, image: Tensor) -> float:
        """Mean of an image (n, 1, H, W) on the MSI's pixels, degraded, over the shared pixels."""
        return float(self._model.spatial(image).cpu().numpy()[:, 0][self._inside].mean())

    def _picked(self, image: FloatArray) -> FloatArray:
        """Values (n, c, h, w) of the pixels less their windows' means: (c, n)."""
        values = image.transpose(1, 0, 2, 3)[:, self._inside]
        return np.stack([row - (np.bincount(self.window, row) / self._count)[self.window] for row in values])


def _windows(inside: NDArray[np.bool_]) -> NDArray[np.intp]:
    """Window of each pixel of the places `inside` (n, h, w), numbered from 0."""
    blocks, h, w = inside.shape
    down, right = max(1, round(h / WINDOW_SIDE)), max(1, round(w / WINDOW_SIDE))
    rows, cols = np.arange(h) * down // h, np.arange(w) * right // w
    place = (np.arange(blocks)[:, None, None] * down + rows[:, None]) * right + cols
    found: NDArray[np.intp] = np.unique(place[inside], return_inverse=True)[1]
    return found

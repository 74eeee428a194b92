"""A PSF kernel without a formula: a smooth, non-negative departure from the Gaussian that the pair confirms."""

from __future__ import annotations

import numpy as np
import torch
from scipy.ndimage import laplace, shift
from scipy.optimize import minimize
from torch.nn.functional import unfold

from hsfuse.estimation.spectra import FloatArray
from hsfuse.estimation.views import Views
from hsfuse.physics import Psf

#: LR pixels on each side that a free kernel reaches over.
FREE_REACH = 2
#: Weights of the penalty on the departure's Laplacian, relative to the data; the largest keeps the Gaussian as it is.
PENALTIES = (1e4, 1e1, 1e0, 1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6)


def depart_freely(views: Views, gaussian: FloatArray, centre: tuple[float, float]) -> tuple[FloatArray, Psf]:
    """Kernel with its shift (size, size), and the same centred as a `Psf`."""
    cut = max(0, (views.size - (2 * FREE_REACH * views.scale + views.size % 2)) // 2)
    inner = slice(cut, views.size - cut)
    start = gaussian[inner, inner] / gaussian[inner, inner].sum()
    halves = [_Normal.of(views, gaussian, cut, part) for part in (0, 1)]
    penalty = _best_penalty(halves, start)
    small = _solve(halves[0] + halves[1], start, penalty)
    kernel = np.pad(small, cut)
    middle = shift(small, (-centre[0], -centre[1]), order=3, mode="constant")
    size = len(small)
    return kernel, Psf(np.maximum(middle, 0), f"free kernel, {size} x {size} taps")


class _Normal:
    """Normal equations: mean square misfit = k' gram k - 2 k' cross + power, for kernels k (taps,)."""

    def __init__(self, gram: FloatArray, cross: FloatArray, power: float) -> None:
        self.gram, self.cross, self.power = gram, cross, power

    @classmethod
    def of(cls, views: Views, gaussian: FloatArray, cut: int, part: int) -> _Normal:
        """Over every second LR row of strips of four, so that halves share little."""
        seen = views.seen(gaussian)
        gain, offset = views.radiometry(seen)
        noise = (views.target - (seen - offset) / gain).std(1, keepdims=True) * gain
        wanted = (views.target * gain + offset) / noise
        size = views.size - 2 * cut
        strip = (torch.arange(views.inside.shape[1]) // 4 % 2 == part)[:, None] & views.inside
        chosen = strip[views.inside].numpy()
        gram, cross, power = np.zeros((size**2, size**2)), np.zeros(size**2), 0.0
        images = views.images[..., cut : views.images.shape[2] - cut, cut : views.images.shape[3] - cut]
        for band in range(images.shape[1]):
            patches = unfold(images[:, band : band + 1], size, stride=views.scale).permute(0, 2, 1)
            data = patches.reshape(*views.inside.shape, -1)[strip].numpy() / noise[band]
            target = wanted[band, chosen]
            gram += data.T @ data
            cross += data.T @ target
            power += float(target @ target)
        return cls(gram, cross, power)

    def __add__(self, other: _Normal) -> _Normal:
        return _Normal(self.gram + other.gram, self.cross + other.cross, self.power + other.power)

    def misfit(self, k: FloatArray) -> float:
        return float(k @ self.gram @ k - 2 * k @ self.cross + self.power)


def _best_penalty(halves: list[_Normal], start: FloatArray) -> float:
    """That whose kernel from one half explains the other best."""
    misfits = [
        sum(test.misfit(_solve(train, start, penalty).ravel()) for train, test in (halves, halves[::-1]))
        for penalty in PENALTIES
    ]
    return PENALTIES[int(np.argmin(misfits))]


def _solve(normal: _Normal, start: FloatArray, penalty: float) -> FloatArray:
    """Kernel (size, size) of least misfit plus penalty times the squared Laplacian of its departure from `start`."""
    strength = penalty * np.trace(normal.gram) / len(normal.gram)

    def value(k: FloatArray) -> tuple[float, FloatArray]:
        bend = laplace((k - start.ravel()).reshape(start.shape), mode="constant")
        pull = normal.gram @ k - normal.cross
        both = normal.misfit(k) + strength * float((bend**2).sum())
        return both, 2 * pull + 2 * strength * laplace(bend, mode="constant").ravel()

    found = minimize(value, start.ravel(), jac=True, method="L-BFGS-B", bounds=[(0, None)] * start.size)
    return found.x.reshape(start.shape)

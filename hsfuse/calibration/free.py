"""A PSF of any form: how it departs from a family's, smoothly and not below 0, as far as held-out pixels confirm it.

The PSF estimation of Simoes et al. 2015 (IEEE TGRS 53(6), section IV), drawn to the family's kernel in place of to zero
gradients.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import laplace, shift
from scipy.optimize import minimize

from hsfuse.calibration.spectra import FloatArray
from hsfuse.calibration.views import Views
from hsfuse.physics.model import Psf

#: LR pixels on each side that a free kernel reaches over.
REACH = 2
#: Weights of the penalty on the departure's Laplacian, relative to the data; the largest keeps the kernel as it is.
PENALTIES = (1e4, 1e1, 1e0, 1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6)


def free_kernel(views: Views, kernel: FloatArray, centre: FloatArray) -> tuple[FloatArray, Psf]:
    """The kernel (size, size) that departs from one about `centre` (y, x), and the same centred as a `Psf`."""
    cut = max(0, (views.size - (2 * REACH * views.ratio + views.size % 2)) // 2)
    inner = slice(cut, views.size - cut)
    start = kernel[inner, inner] / kernel[inner, inner].sum()
    halves = [_Normal.of(views, kernel, inner, views.window % 2 == part) for part in (0, 1)]
    small = _solve(halves[0] + halves[1], start, _best_penalty(halves, start))
    middle = np.maximum(shift(small, (-centre[0], -centre[1]), order=3, mode="constant"), 0)
    return np.pad(small, cut), Psf(middle, f"free kernel, {len(small)} x {len(small)} taps")


class _Normal:
    """Normal equations: mean square misfit = k' gram k - 2 k' cross + power, for kernels k (taps,)."""

    def __init__(self, gram: FloatArray, cross: FloatArray, power: float) -> None:
        self.gram, self.cross, self.power = gram, cross, power

    @classmethod
    def of(cls, views: Views, kernel: FloatArray, inner: slice, chosen: NDArray[np.bool_]) -> _Normal:
        """Over some of the windows, in which halves share nothing but their borders."""
        seen = views.seen(kernel[None])[0]
        gain, offset = views.radiometry(seen)
        noise = (views.target - (seen - offset) / gain).std(1, keepdims=True) * gain
        wanted = (views.target * gain + offset) / noise
        around = views.around.numpy().reshape(views.size, views.size, *views.target.shape)[inner, inner]
        around = around.reshape(-1, *views.target.shape)[..., chosen]
        gram, cross, power = np.zeros((len(around),) * 2), np.zeros(len(around)), 0.0
        for band in range(len(wanted)):
            data, target = around[:, band] / noise[band], wanted[band, chosen]
            gram += data @ data.T
            cross += data @ target
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

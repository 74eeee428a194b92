"""Families of point spread functions that a pair is asked for, from the simplest to the richest.

A detector's footprint is a box of one LR pixel; optics and motion add a Gaussian; a resampled or moving sensor's is
wider one way than the other, perhaps turned. Each has its own numbers, `shape` (k,): logarithms of widths in LR pixels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from hsfuse.calibration.spectra import FloatArray
from hsfuse.physics.model import Psf, box_psf, elliptic_psf, gaussian_psf
from hsfuse.physics.optics import centred_taps, elliptic_gaussian, footprint, widths_and_turn

#: Widths (standard deviations) of a Gaussian that are searched, in LR pixels, and the least in HR pixels.
LEAST_WIDTH, LARGEST_WIDTH, LEAST_WIDTH_HR = 0.1, 1.5, 0.3
#: Least width of a Gaussian beside a box, in LR pixels: less is none.
LEAST_BLUR = 0.03


@dataclass(frozen=True)
class Family:
    """Kernels of one kind: `starts` are shapes to begin from, `covariance(shape)` is (2, 2) in LR pixels, (y, x).

    `boxed`: that covariance is of the Gaussian alone, which blurs a box of one LR pixel.
    """

    name: str
    starts: tuple[tuple[float, ...], ...]
    covariance: Callable[[FloatArray], FloatArray]
    boxed: bool = False

    def kernel(self, shape: FloatArray, size: int, centre: FloatArray, ratio: int) -> FloatArray:
        """(size, size) taps that sum to 1, about `centre` (y, x) in HR pixels from the middle."""
        taps, cov = centred_taps(size), self.covariance(shape) * ratio**2
        if self.boxed:
            rows, cols = (
                footprint(taps - c, ratio, float(np.sqrt(v))) for c, v in zip(centre, np.diag(cov), strict=True)
            )
            made = np.outer(rows, cols)
        else:
            made = elliptic_gaussian(
                np.asarray(np.linalg.cholesky(cov), np.float64), taps - centre[0], taps - centre[1]
            )
        return made / made.sum()

    def bounds(self, ratio: int) -> tuple[float, float]:
        """Least and largest logarithm of a width."""
        least = LEAST_BLUR if self.boxed else max(LEAST_WIDTH, LEAST_WIDTH_HR / ratio)
        return float(np.log(least)), float(np.log(LARGEST_WIDTH))

    def widths(self, shape: FloatArray, ratio: int) -> FloatArray:
        """Standard deviations (y, x) of the kernel in HR pixels and its turn in degrees: (3,)."""
        box = np.eye(2) / 12 if self.boxed else 0
        y, x, turn = widths_and_turn((self.covariance(shape) + box) * ratio**2)
        return np.array([y, x, turn])

    def psf(self, shape: FloatArray, ratio: int, phase: float) -> Psf:
        """The PSF, centred."""
        cov = self.covariance(shape) * ratio**2
        if self.boxed:
            return box_psf(ratio, phase, float(np.sqrt(cov[0, 0])))
        if cov[0, 1] == 0 and cov[0, 0] == cov[1, 1]:
            return gaussian_psf(float(np.sqrt(cov[0, 0])), ratio, phase)
        return elliptic_psf(*widths_and_turn(cov), ratio, phase).with_few_terms()


def _turned(shape: FloatArray) -> FloatArray:
    """From the logarithms of the Cholesky root's diagonal (y, x) and its off-diagonal."""
    root = np.array([[np.exp(shape[0]), 0], [shape[2], np.exp(shape[1])]])
    return root @ root.T


def _log(*widths: float) -> tuple[float, ...]:
    return tuple(float(np.log(width)) for width in widths)


#: By rising number of unknowns. A Gaussian's two starts have an MTF at Nyquist of about 0.5 and 0.1.
BOX = Family("box", ((),), lambda p: np.zeros((2, 2)), boxed=True)
ROUND = Family("round", (_log(0.37), _log(0.68)), lambda p: np.exp(2 * p[0]) * np.eye(2))
BLURRED_BOX = Family("blurred box", (_log(0.25),), lambda p: np.exp(2 * p[0]) * np.eye(2), boxed=True)
ELLIPTIC = Family("elliptic", (_log(0.45, 0.45),), lambda p: np.diag(np.exp(2 * p)))
TURNED = Family("turned", ((*_log(0.45, 0.45), 0.0),), _turned)


def assumed(psf: Psf, ratio: int) -> Family:
    """The family of one Gaussian: that of a PSF's own moments."""
    taps = centred_taps(psf.size)
    y, x = np.meshgrid(taps, taps, indexing="ij")
    cov = np.array([[(psf.kernel * a * b).sum() for b in (y, x)] for a in (y, x)]) / ratio**2
    return Family("assumed", ((),), lambda p: cov)

"""What is known of sensors and light without a scene, each formula once: Gaussian PSF and MTF, Keys' cubic convolution.

Without torch, so that reading, warping and the observation model can all use it. Lengths are pixels, frequencies cycles
a pixel.
"""

from __future__ import annotations

from math import log, pi, sqrt

import numpy as np
from numpy.polynomial import polynomial
from numpy.typing import NDArray

from hsfuse.core.errors import SettingError

Floats = NDArray[np.float64]

#: Strong water vapour absorption, in nm: next to no light comes through.
ABSORPTION_NM: tuple[tuple[float, float], ...] = ((1350, 1450), (1800, 1950))
#: Weights of the taps at -1, 0, 1, 2 (columns) as polynomials of the fraction (rows: its powers 0 to 3), with Keys'
#: parameter -1/2, which reproduces quadratics, as in GDAL's cubic convolution (Keys 1981, "Cubic convolution
#: interpolation for digital image processing", doi:10.1109/TASSP.1981.1163711, eq. 15 and 19).
KEYS = np.array([[0, 2, 0, 0], [-1, 0, 1, 0], [2, -5, 4, -1], [-1, 3, -3, 1]]) / 2


def sigma_from_mtf(mtf: float, s: float) -> float:
    """Gaussian PSF width in HR pixels whose MTF at the LR Nyquist frequency 1 / (2 s) is `mtf`.

    `gaussian_mtf` solved for sigma (Aiazzi et al. 2006, MTF-tailored filters). SettingError unless 0 < mtf < 1.
    """
    if not 0 < mtf < 1:
        raise SettingError(f"the MTF at Nyquist is {mtf:g}, wanted a number between 0 and 1")
    return s / pi * sqrt(2 * log(1 / mtf))


def gaussian_mtf(sigma: Floats | float, frequencies: Floats) -> Floats:
    """MTF of a Gaussian PSF, its Fourier transform: exp(-2 pi^2 sigma^2 f^2)."""
    return np.exp(-2 * pi**2 * sigma**2 * frequencies**2)


def gaussian(t: Floats, sigma: float) -> Floats:
    """Gaussian of width `sigma` at distances t from its middle, where it is 1."""
    return np.exp(-(t**2) / (2 * sigma**2))


def elliptic_gaussian(root: Floats, down: Floats, right: Floats) -> Floats:
    """Gaussian (n, m) at rows `down` (n,) and columns `right` (m,) from its middle, where it is 1.

    `root` (2, 2), axes as (y, x), is any root of its covariance: root @ root.T.
    """
    y, x = np.meshgrid(down, right, indexing="ij")
    white = np.linalg.solve(root, np.stack([y.ravel(), x.ravel()]))
    return np.exp(-(white**2).sum(0) / 2).reshape(y.shape)


def footprint(distance: Floats, width: float, sigma: float = 0.0) -> Floats:
    """A detector's box of `width` pixels blurred by a Gaussian, at distances (n,) from its middle, where it is about 1.

    Without blur it is the share of each pixel that lies in the box.
    """
    if sigma <= 0:
        return np.clip(width / 2 + 0.5 - np.abs(distance), 0, 1)
    from scipy.special import erf  # half of the time that opening a file takes

    low, high = ((distance + side * width / 2) / (sqrt(2) * sigma) for side in (-1, 1))
    return np.asarray(erf(high) - erf(low), np.float64) / 2


def widths_and_turn(covariance: Floats) -> tuple[float, float, float]:
    """Widths (y, x) and turn in degrees, -45 to 45, of the Gaussian of a covariance (2, 2), axes as (y, x).

    The turn takes the x axis from the rows' direction towards +y.
    """
    variances, axes = np.linalg.eigh(covariance)
    nearer = int(np.argmax(np.abs(axes[1])))  # the axis that lies nearer to the rows is the one called x
    y, x = axes[:, nearer]
    turn = np.degrees(np.arctan2(y * np.sign(x), abs(x)))
    return float(np.sqrt(variances[1 - nearer])), float(np.sqrt(variances[nearer])), float(turn)


def centred_phase(s: int) -> float:
    """Where an LR pixel's centre lies in its s HR pixels when the two share their outer borders: (s - 1) / 2."""
    return (s - 1) / 2


def centred_taps(size: int) -> Floats:
    """Distances (size,) of a kernel's taps from its middle."""
    return np.arange(size, dtype=np.float64) - (size - 1) / 2


def keys_weights(fraction: Floats | float) -> Floats:
    """Weights (4, ...) of the taps at -1, 0, 1, 2 for points `fraction` (0 to 1) behind tap 0.

    Each by Horner's rule of its own fraction alone, so that the same point has the same weights in every window.
    """
    return np.asarray(polynomial.polyval(np.asarray(fraction), KEYS), np.float64)


def keys_slopes(fraction: float) -> Floats:
    """Derivative (4,) of `keys_weights` by the fraction."""
    return np.asarray(polynomial.polyval(fraction, polynomial.polyder(KEYS)), np.float64)

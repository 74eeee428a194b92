"""What cubic convolution does to the detail of an image: its transfer, and the Gaussian blur that comes nearest."""

from __future__ import annotations

import numpy as np

from hsfuse.optics import Floats, gaussian_mtf, keys_weights

#: Sub-pixel fractions and frequencies (cycles a pixel, up to Nyquist) over which blur is averaged.
PHASES, FREQUENCIES = 64, np.linspace(0.005, 0.5, 100)
#: Variances (pixels squared) that are tried: those of no blur to twice the worst of linear interpolation.
VARIANCES = np.linspace(0, 0.25, 501)


def keys_transfer(frequencies: Floats, fractions: Floats | None = None) -> Floats:
    """Real part (n,) of the transfer of cubic convolution at frequencies (n,) in cycles a pixel.

    The mean over sub-pixel fractions f of sum_k w_k(f) cos(2 pi n (k - f)); over all of them (None) it is the transform
    of Keys' kernel.
    """
    f = (np.arange(PHASES) + 0.5) / PHASES if fractions is None else fractions
    offsets = np.array([-1, 0, 1, 2])[:, None] - f
    waves = np.cos(2 * np.pi * frequencies[:, None, None] * offsets)
    return (keys_weights(f) * waves).sum(axis=1).mean(axis=1)


def resampling_variance(sigma: float, fractions: Floats | None = None) -> float:
    """Variance (pixels squared) that cubic convolution at `fractions` adds to a Gaussian PSF of `sigma` pixels.

    Its second moment, sum_k (k - f)^2 w_k(f), is zero at every fraction f, as the kernel reproduces quadratics; what it
    takes away is detail near Nyquist. So the variance is the v for which exp(-2 pi^2 (sigma^2 + v) n^2) comes nearest,
    in least squares over frequencies n up to Nyquist, to exp(-2 pi^2 sigma^2 n^2) times `keys_transfer`, each weighted
    with the power it has in natural scenes, 1 / n (Field 1987: 1 / n^2 a unit of area of the frequency plane).
    """
    wanted = gaussian_mtf(sigma, FREQUENCIES) * keys_transfer(FREQUENCIES, fractions)
    trials = gaussian_mtf(np.sqrt(sigma**2 + VARIANCES)[:, None], FREQUENCIES)
    return float(VARIANCES[(np.square(trials - wanted) / FREQUENCIES).sum(axis=1).argmin()])

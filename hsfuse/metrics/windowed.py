"""Metrics over sliding windows, pooled as the mean over all wholly valid windows, then over bands: UIQI, SSIM, SCC."""

from __future__ import annotations

import numpy as np
from skimage.metrics import structural_similarity

from hsfuse.metrics.pixel import FLAT, Moments
from hsfuse.metrics.windows import Array, Pair, window_sums

SSIM_WINDOW = 11
SCC_WINDOW = 3


def quality_index(x: Array, y: Array, energy: Array, product: Array, n: int) -> Array:
    """Wang-Bovik Q of windows of `n` pixels from their sums of x, y, x^2 + y^2 and x y (all of one shape).

    Q = [2 mx my / (mx^2 + my^2)] [2 cov / (vx + vy)]. A factor that is 0/0 counts as 1: two constant windows are
    compared by their means only, two windows of zeros are equal. Source: Wang and Bovik 2002, equation 1; the 0/0 rule
    is that of their code for constant windows.
    """
    means, mean_energy = x * y, x**2 + y**2
    spread = n * energy - mean_energy
    luminance = _ratio(2 * means, mean_energy, mean_energy > FLAT**2 * n * energy)
    return luminance * _ratio(2 * (n * product - means), spread, spread > FLAT * n * energy)


def _ratio(above: Array, below: Array, defined: Array) -> Array:
    return np.divide(above, below, out=np.ones(np.shape(below)), where=defined)


def uiqi_map(x: Array, y: Array, window: int) -> Array:
    """Wang-Bovik Q (h - window + 1, w - window + 1) of every uniform window of two float64 planes (h, w)."""
    energy, product = window_sums(x * x + y * y, window), window_sums(x * y, window)
    return quality_index(window_sums(x, window), window_sums(y, window), energy, product, window**2)


def ssim_map(x: Array, y: Array, peak: float) -> Array:
    """SSIM (h - 10, w - 10) of every Gaussian 11 x 11 window of two float64 planes (h, w).

    sigma 1.5, K1 0.01, K2 0.03, population covariance; only windows inside the planes. Source: Wang et al. 2004,
    equation 13; computed by scikit-image.
    """
    _, full = structural_similarity(
        x, y, data_range=peak, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, full=True
    )
    edge = SSIM_WINDOW // 2
    return np.asarray(full[edge:-edge, edge:-edge])


def high_pass(plane: Array) -> Array:
    """Response (h - 2, w - 2) to the 3 x 3 Laplacian with 8 in the middle and -1 around it (Zhou et al. 1998)."""
    return 9 * plane[1:-1, 1:-1] - window_sums(plane, SCC_WINDOW)


class UiqiSums:
    """Sums of UIQI over windows of `window` x `window`, stride 1, per band."""

    def __init__(self, bands: int, window: int) -> None:
        self.window, self.count = window, 0
        self._sums = np.zeros(bands)

    def update(self, pair: Pair) -> None:
        """Add the windows that begin in the tile's core."""
        ok = pair.view.window_ok(self.window)
        if ok.any():
            self.count += int(ok.sum())
            for band in range(self._sums.size):
                quality = uiqi_map(*pair.planes(band), self.window)
                self._sums[band] += quality[pair.view.core][ok].sum()

    def per_band(self) -> Array:
        """Mean per band (C,); NaN where no window is wholly valid."""
        return self._sums / self.count if self.count else np.full(self._sums.size, np.nan)


class SsimSums:
    """Sums of SSIM over its 11 x 11 Gaussian windows, per band."""

    def __init__(self, bands: int, peak: float) -> None:
        self.count = 0
        self._peak, self._sums = peak, np.zeros(bands)

    def update(self, pair: Pair) -> None:
        """Add the windows that begin in the tile's core."""
        ok = pair.view.window_ok(SSIM_WINDOW)
        if ok.any():
            self.count += int(ok.sum())
            for band in range(self._sums.size):
                similarity = ssim_map(*pair.planes(band), self._peak)
                self._sums[band] += similarity[pair.view.core][ok].sum()

    def per_band(self) -> Array:
        """Mean per band (C,); NaN where no window is wholly valid."""
        return self._sums / self.count if self.count else np.full(self._sums.size, np.nan)


class SccSums:
    """Moments of the high-passed planes, per band."""

    def __init__(self, bands: int) -> None:
        self._bands, self._moments = bands, Moments(bands)

    def update(self, pair: Pair) -> None:
        """Add the 3 x 3 windows that begin in the tile's core."""
        ok = pair.view.window_ok(SCC_WINDOW)
        if ok.any():
            self._moments.count += int(ok.sum())
            for band in range(self._bands):
                x, y = (high_pass(plane)[pair.view.core][ok] for plane in pair.planes(band))
                self._moments.add(band, x, y)

    def per_band(self) -> Array:
        """Correlation per band (C,); NaN where either side has no detail or no window is wholly valid."""
        return self._moments.correlation() if self._moments.count else np.full(self._bands, np.nan)

"""Metrics over sliding windows, pooled as the mean over all wholly valid windows, then over bands: UIQI, SSIM, SCC."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from scipy.ndimage import gaussian_filter

from hsfuse.core.cube import structural_similarity
from hsfuse.metrics.pixel import FLAT, Moments
from hsfuse.metrics.windows import Array, Pair, View, window_sums

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
    """SSIM (h - 10, w - 10) of every Gaussian 11 x 11 window, sigma 1.5, inside two float64 planes (h, w)."""
    edge = SSIM_WINDOW // 2

    def mean(plane: Array) -> Array:
        return np.asarray(gaussian_filter(plane, 1.5, radius=edge)[edge:-edge, edge:-edge])

    return structural_similarity(mean(x), mean(y), mean(x * x), mean(y * y), mean(x * y), peak)


def high_pass(plane: Array) -> Array:
    """Response (h - 2, w - 2) to the 3 x 3 Laplacian with 8 in the middle and -1 around it (Zhou et al. 1998)."""
    return 9 * plane[1:-1, 1:-1] - window_sums(plane, SCC_WINDOW)


class UiqiSums:
    """Sums of UIQI over windows of `window` x `window`, stride 1, per band."""

    def __init__(self, bands: int, window: int) -> None:
        self.window, self.count, self._sums = window, 0, np.zeros(bands)

    def _map(self, x: Array, y: Array) -> Array:
        return uiqi_map(x, y, self.window)

    def update(self, pair: Pair) -> None:
        """Add the windows that begin in the tile's core."""
        ok = pair.view.window_ok(self.window)
        if ok.any():
            self.count += int(ok.sum())
            for band in range(self._sums.size):
                self._sums[band] += self._map(*pair.planes(band))[pair.view.core][ok].sum()

    def per_band(self) -> Array:
        """Mean per band (C,); NaN where no window is wholly valid."""
        return self._sums / self.count if self.count else np.full(self._sums.size, np.nan)


class SsimSums(UiqiSums):
    """The same of SSIM over its 11 x 11 Gaussian windows."""

    def __init__(self, bands: int, peak: float) -> None:
        super().__init__(bands, SSIM_WINDOW)
        self._peak = peak

    def _map(self, x: Array, y: Array) -> Array:
        return ssim_map(x, y, self._peak)


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


@lru_cache(maxsize=4)
def unit_signs(size: int) -> Array:
    """Signs (size, size) of the hypercomplex units' products: e_i e_j = sign[i, j] e_(i xor j); size is a power of 2.

    Cayley-Dickson doubling (a, b)(c, d) = (a c - d* b, d a + b c*).
    """
    if size == 1:
        return np.ones((1, 1))
    half = unit_signs(size // 2)
    conjugate = np.where(np.arange(size // 2) == 0, 1.0, -1.0)
    return np.block([[half, half.T], [half * conjugate, -(conjugate[:, None] * half).T]])


def block_q2n(fused: Array, reference: Array) -> float:
    """Q2n of one block of two float64 pixel matrices (C, n); NaN where the reference is constant in every band.

    Every band is shifted and scaled alike in both, so that the reference has mean 1 and standard deviation 1, and taken
    as one component of a hypercomplex number z. Then, with the hypercomplex covariance and means,
    Q = [|cov(z, z^)| / (s s^)] [2 |mz| |mz^| / (|mz|^2 + |mz^|^2)] [2 s s^ / (s^2 + s^^2)].
    Bands in which the reference is constant are left out. Source: Garzelli and Nencini 2009; normalised as in the
    toolbox of Vivone et al. 2015.
    """
    mean, deviation = reference.mean(axis=1, keepdims=True), reference.std(axis=1, ddof=1, keepdims=True)
    moving = (deviation**2 > FLAT * (reference**2).mean(axis=1, keepdims=True))[:, 0]
    if not moving.any():
        return float("nan")
    # Constant bands become components that are 0 in both, so that the others keep their place.
    scale = np.where(moving[:, None], deviation, 1)
    x = np.where(moving[:, None], (fused - mean) / scale + 1, 0)
    y = np.where(moving[:, None], (reference - mean) / scale + 1, 0)
    return _hypercomplex_quality(x, y)


def _hypercomplex_quality(x: Array, y: Array) -> float:
    mx, my = x.mean(axis=1), y.mean(axis=1)
    dx, dy = x - mx[:, None], y - my[:, None]
    covariance = _modulus_of_product(dy @ dx.T)
    spread = (dx**2).sum() + (dy**2).sum()
    luminance = 2 * np.sqrt((mx @ mx) * (my @ my)) / (mx @ mx + my @ my)
    return float(2 * covariance / spread * luminance)


def _modulus_of_product(products: Array) -> float:
    """|sum over pixels of y x*| from the sums of all component products y_i x_j (C, C): the product is bilinear."""
    bands = products.shape[0]
    size = 1 << (bands - 1).bit_length()
    index = np.arange(bands)
    conjugate = np.where(index == 0, 1.0, -1.0)
    signed = products * unit_signs(size)[:bands, :bands] * conjugate
    components = np.bincount((index[:, None] ^ index).ravel(), weights=signed.ravel(), minlength=size)
    return float(np.sqrt((components**2).sum()))


class Q2nSums:
    """Mean Q2n over the blocks of an image; the block size is `window`."""

    def __init__(self, window: int) -> None:
        self.window, self.count, self.flat = window, 0, 0
        self._sum = 0.0

    def update(self, pair: Pair) -> None:
        """Add the blocks that begin in the tile's core."""
        for rows, cols in pair.view.blocks(self.window):
            quality = block_q2n(_pixels(pair.fused, rows, cols), _pixels(pair.reference, rows, cols))
            if np.isnan(quality):
                self.flat += 1
            else:
                self.count += 1
                self._sum += quality

    def mean(self) -> float:
        """Mean over the blocks; NaN without any."""
        return self._sum / self.count if self.count else float("nan")


def _pixels(cube: Array, rows: slice, cols: slice) -> Array:
    return cube[:, rows, cols].reshape(cube.shape[0], -1).astype(np.float64)


def block_band_qualities(pixels: Array) -> Array:
    """Wang-Bovik Q between all bands (C, C) of one block of float64 pixels (C, n)."""
    sums, energy, products = pixels.sum(axis=1), (pixels**2).sum(axis=1), pixels @ pixels.T
    return quality_index(sums[:, None], sums, energy[:, None] + energy, products, pixels.shape[1])


class BandPairSums:
    """Mean Wang-Bovik Q between every two bands of one cube over the blocks of an image."""

    def __init__(self, bands: int, window: int) -> None:
        self.window, self.count = window, 0
        self._sums = np.zeros((bands, bands))

    def update(self, cube: Array, view: View) -> None:
        """Add the blocks of a tile (C, h, w) that begin in its core."""
        for rows, cols in view.blocks(self.window):
            self._sums += block_band_qualities(_pixels(cube, rows, cols))
            self.count += 1

    def mean(self) -> Array:
        """Mean per pair (C, C); NaN where no block is wholly valid."""
        return self._sums / self.count if self.count else np.full(self._sums.shape, np.nan)


#: Pixels worked on at a time.
PIXELS_AT_ONCE = 4096
#: Bands whose share in the others is this close to whole add nothing to the fit.
RANK_TOLERANCE = 1e-10


class RegressionSums:
    """Sums of products of 1, C bands and one image over pixels; `r_squared` is that of the image on the bands."""

    def __init__(self, bands: int) -> None:
        self._products = np.zeros((bands + 2, bands + 2))
        self._origin: Array | None = None

    def update(self, pair: Pair) -> None:
        """Add the valid core pixels of a pair whose cubes are the bands (C, h, w) and the image (1, h, w)."""
        core, ok = pair.view.core, pair.view.core_valid
        step = max(1, PIXELS_AT_ONCE // max(1, ok.shape[1]))
        for row in range(0, ok.shape[0], step):
            part, valid = slice(row, row + step), ok[row : row + step]
            both = [cube[:, *core][:, part][:, valid] for cube in (pair.fused, pair.reference)]
            self._add(np.concatenate(both).astype(np.float64))

    def _add(self, values: Array) -> None:
        """Add pixels (C + 1, n), counted from those that came first: far from zero, sums of squares lose digits."""
        if not values.shape[1]:
            return
        if self._origin is None:
            self._origin = values.mean(axis=1, keepdims=True)
        whole = np.concatenate([np.ones((1, values.shape[1])), values - self._origin])
        self._products += whole @ whole.T

    def r_squared(self) -> float:
        """Share of the image's variance that the bands and a constant explain; NaN for a constant image or none."""
        n, sums = self._products[0, 0], self._products[0, 1:]
        if n == 0 or self._origin is None:
            return float("nan")
        covariance = self._products[1:, 1:] / n - np.outer(sums, sums) / n**2
        variance = np.diag(covariance)
        moving = variance > FLAT * self._origin[:, 0] ** 2
        if not moving[-1]:
            return float("nan")
        scale = np.sqrt(variance[moving])
        correlation = covariance[np.ix_(moving, moving)] / np.outer(scale, scale)
        weights = np.linalg.lstsq(correlation[:-1, :-1], correlation[:-1, -1], rcond=RANK_TOLERANCE)[0]
        return float(np.clip(weights @ correlation[:-1, -1], 0, 1))

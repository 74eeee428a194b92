"""Metrics over blocks that treat all bands together: Q2n and the quality between band pairs."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from hsfuse.metrics.pixel import FLAT
from hsfuse.metrics.windowed import quality_index
from hsfuse.metrics.windows import Array, Pair, View


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

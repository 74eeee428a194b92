"""How well the bands of a cube explain one image: least squares from sums that add up over tiles."""

from __future__ import annotations

import numpy as np

from hsfuse.metrics.pixel import FLAT
from hsfuse.metrics.windows import Array, Pair

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

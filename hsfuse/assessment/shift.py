"""How far the MSI is shifted against the LRHSI, from both at the LRHSI's resolution."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hsfuse.assessment.result import Floats

#: Below this correlation the two images are too different for a shift between them to mean anything.
MIN_CORRELATION = 0.5


class ShiftSums:
    """Least squares for the shift between c bands of two images of one grid, in bounded memory.

    First order: msi = gain (lrhsi + shift . gradient) + offset on means over 2 x 2 pixels, where mean and gradient lie
    at one place; the gradient is the mean of both images', which makes the error third order (Lucas and Kanade 1981,
    with gain and offset). Good for shifts of up to about one pixel; detail finer than a pixel makes it come out short.
    """

    def __init__(self, bands: int) -> None:
        self._normal = np.zeros((bands, 7, 7))

    def add(self, lrhsi: Floats, msi: Floats, valid: NDArray[np.bool_], rows: int, cols: int) -> None:
        """Add the 2 x 2 pixels of a tile (c, h, w) that begin in its first `rows` x `cols`."""
        x, y = (np.where(valid, image, 0).astype(np.float64) for image in (lrhsi, msi))
        ok = (valid[1:, 1:] & valid[1:, :-1] & valid[:-1, 1:] & valid[:-1, :-1])[:rows, :cols]
        for band in range(len(self._normal)):
            parts = [*_local(x[band]), *_local(y[band]), np.ones(ok.shape)]
            design = np.stack([part[:rows, :cols][ok] for part in parts])
            self._normal[band] += design @ design.T

    def shift(self) -> tuple[float, float] | None:
        """By how many LR pixels the MSI lies (down, right) of where the LRHSI has it; None when it can't be told."""
        found, weights = [], []
        for normal in self._normal:
            gain = _gain(normal)
            if gain is None:
                continue
            m = _mixed(normal, gain)
            if np.linalg.matrix_rank(m[:4, :4]) < 4:
                continue
            down, right, factor, _ = np.linalg.solve(m[:4, :4], m[:4, 4])
            found.append((-down / factor, -right / factor))
            weights.append(gain**2 * (m[0, 0] + m[1, 1]))
        if not found:
            return None
        down, right = np.average(found, axis=0, weights=weights)
        return float(down), float(right)


def _local(plane: Floats) -> tuple[Floats, Floats, Floats]:
    """Gradient down, gradient right and mean of all 2 x 2 pixels (h - 1, w - 1)."""
    a, b, c, d = plane[:-1, :-1], plane[:-1, 1:], plane[1:, :-1], plane[1:, 1:]
    return (c + d - a - b) / 2, (b + d - a - c) / 2, (a + b + c + d) / 4


def _gain(normal: Floats) -> float | None:
    """Slope of MSI on LRHSI; None where the two are too different."""
    x, y, one = 2, 5, 6
    n = normal[one, one]
    xx, yy = (n * normal[i, i] - normal[i, one] ** 2 for i in (x, y))
    xy = n * normal[x, y] - normal[x, one] * normal[y, one]
    if xx <= 0 or yy <= 0 or xy / np.sqrt(xx * yy) < MIN_CORRELATION:
        return None
    return float(xy / xx)


def _mixed(normal: Floats, gain: float) -> Floats:
    """Sums of products of mean gradient down, right, LRHSI, one, MSI."""
    mix = np.zeros((5, 7))
    mix[0, [0, 3]] = mix[1, [1, 4]] = 0.5, 0.5 / gain
    mix[[2, 3, 4], [2, 6, 5]] = 1
    return mix @ normal @ mix.T

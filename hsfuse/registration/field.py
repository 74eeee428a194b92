"""What many windows say about a shift, combined without the outliers: one shift, and how it drifts over the scene."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from affine import Affine
from numpy.typing import NDArray

Floats = NDArray[np.float64]

#: Values this many deviations off are left out, in so many rounds.
OUTLIER, ROUNDS = 3.0, 5
#: Variance (LR pixels squared) below which no window's own is believed.
FLOOR = 1e-6
#: A drift counts when it has this many windows, this many LR pixels and its standard error this many times over the
#: scene; more than the last makes no sense.
MIN_WINDOWS, MIN_DRIFT, SIGNIFICANT, MAX_DRIFT = 6, 0.03, 3.0, 1.5


@dataclass(frozen=True)
class LocalShift:
    """Shift of one window: its middle (row, col) in LR pixels of the scene, shift and uncertainty in LR pixels."""

    row: float
    col: float
    dy: float
    dx: float
    sd: float


@dataclass(frozen=True)
class Drift:
    """A shift that changes over the scene: LR pixels `down` and `right`, each @ (1, row, col) in LR pixels."""

    down: tuple[float, float, float]
    right: tuple[float, float, float]

    def at(self, row: float, col: float) -> tuple[float, float]:
        """Shift (dy, dx) in LR pixels at a place in LR pixels."""
        return (
            self.down[0] + self.down[1] * row + self.down[2] * col,
            self.right[0] + self.right[1] * row + self.right[2] * col,
        )

    def motion(self, scale: int) -> Affine:
        """Where the LRHSI has what the MSI has at (column, row), both in MSI pixels of the common extent."""
        y, x = self.down, self.right
        return Affine(1 + x[2], x[1], x[0] * scale, y[2], 1 + y[1], y[0] * scale)


def combined(field: Sequence[LocalShift]) -> tuple[tuple[float, float], float]:
    """The windows' common shift (dy, dx) and the standard error of the worse of the two."""
    ones, sd = np.ones((len(field), 1)), np.array([local.sd for local in field])
    (dy, vy), (dx, vx) = (_fit(ones, np.array([getattr(w, name) for w in field]), sd) for name in ("dy", "dx"))
    return (float(dy[0]), float(dx[0])), float(np.sqrt(max(vy[0, 0], vx[0, 0])))


def drift_of(field: Sequence[LocalShift]) -> Drift | None:
    """The linear change of the shift over the scene; None where there is none that is significant and sensible."""
    rows, cols, sd = (np.array([getattr(w, name) for w in field]) for name in ("row", "col", "sd"))
    if len(field) < MIN_WINDOWS or np.ptp(rows) == 0 or np.ptp(cols) == 0:
        return None
    design = np.stack([np.ones(len(field)), rows, cols], axis=1)
    found = [_fit(design, np.array([getattr(w, name) for w in field]), sd) for name in ("dy", "dx")]
    size = np.array([np.ptp(rows), np.ptp(cols)])
    change = np.array([fit[0][1:] * size for fit in found])
    error = np.array([np.sqrt(np.diag(fit[1])[1:]) * size for fit in found])
    told = (np.abs(change) > np.maximum(MIN_DRIFT, SIGNIFICANT * error)).any()
    if not told or np.abs(change).max() > MAX_DRIFT:
        return None
    down, right = ((float(fit[0][0]), float(fit[0][1]), float(fit[0][2])) for fit in found)
    return Drift(down, right)


def _fit(design: Floats, values: Floats, sd: Floats) -> tuple[Floats, Floats]:
    """Weighted least squares (k,) without outliers, and its covariance (k, k) with the residuals' spread in it."""
    rest = values - _weighted_median(values, 1 / (sd**2 + FLOOR))
    for _ in range(ROUNDS):
        spread = 1.4826 * _weighted_median(np.abs(rest), 1 / (sd**2 + FLOOR))
        weight = 1 / (sd**2 + spread**2 + FLOOR)
        weight[np.abs(rest) > OUTLIER * np.maximum(sd, spread) + FLOOR] *= 1e-9  # kept in, so that it can be solved
        covariance = np.asarray(np.linalg.inv((design * weight[:, None]).T @ design), np.float64)
        coefficients = covariance @ (design.T @ (weight * values))
        rest = values - design @ coefficients
    return coefficients, covariance


def _weighted_median(values: Floats, weight: Floats) -> float:
    order = np.argsort(values)
    total = np.cumsum(weight[order])
    return float(values[order[np.searchsorted(total, total[-1] / 2)]])

"""A response's free departure from a flat top: non-negative, smooth, and only as far as held-out pixels confirm it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import qr
from scipy.optimize import nnls

from hsfuse.estimation.spectra import CleanSpectra, FloatArray

#: Weights of the penalty on second differences, relative to the data; the largest keeps the flat top as it is.
PENALTIES = (1e6, 1e3, 1e1, 1e-1)
FOLDS = 5


def departed(
    spectra: CleanSpectra, wl: FloatArray, z: FloatArray, flat: FloatArray, place: tuple[float, float], noise: float
) -> FloatArray:
    """Weights (C,) that depart from a flat top as held-out pixels confirm, within one width of its centre."""
    centre, width = place
    support = np.flatnonzero(np.abs(wl - centre) <= width)
    if support.size < 3:
        return flat
    system = _System.of(spectra, wl, support, z, flat, width, noise)
    out = np.zeros_like(flat)
    out[support] = system.solve(system.best_penalty(), slice(None))
    return out if out.sum() > 0 else flat


@dataclass(frozen=True)
class _System:
    """Least squares for a curve's departure: `data` (n, m) per unit density, `target` (n,), `bend` second differences.

    The unknown is density times width, so that penalties mean the same for every band.
    """

    data: FloatArray
    target: FloatArray
    bend: FloatArray
    start: FloatArray
    cells: FloatArray

    @classmethod
    def of(
        cls,
        spectra: CleanSpectra,
        wl: FloatArray,
        support: NDArray[np.intp],
        z: FloatArray,
        flat: FloatArray,
        width: float,
        noise: float,
    ) -> _System:
        cells = np.gradient(wl)[support] / width
        nodes = wl[support] / width
        ends = np.array([2 * nodes[0] - nodes[1], *nodes, 2 * nodes[-1] - nodes[-2]])
        data = (cells[:, None] * spectra.basis[support] @ spectra.scores).T / np.sqrt(noise)
        bend = second_difference(ends)[:, 1:-1]  # zero beyond both ends
        return cls(data, z / np.sqrt(noise), bend, flat[support] / cells, cells)

    def solve(self, penalty: float, pixels: slice | NDArray[np.intp]) -> FloatArray:
        """Weights (m,) from some of the pixels."""
        both = qr(np.column_stack([self.data[pixels], self.target[pixels]]), mode="r", check_finite=False)[0]
        strength = np.sqrt(penalty)
        both = both[: self.cells.size + 1]
        a = np.concatenate([both[:, :-1], strength * self.bend])
        b = np.concatenate([both[:, -1], strength * self.bend @ self.start])
        return nnls(a, b, maxiter=100 * a.shape[1])[0] * self.cells

    def best_penalty(self) -> float:
        """The largest whose error on held-out strips is within a standard error of the least (Breiman et al. 1984)."""
        strips = np.array_split(np.arange(self.target.size), FOLDS)
        errors = np.array([[self._held_out(penalty, strip) for strip in strips] for penalty in PENALTIES])
        mean = errors.mean(1)
        least = int(mean.argmin())
        allowed = mean[least] + (errors - errors[0])[least].std(ddof=1) / np.sqrt(FOLDS)
        return PENALTIES[int(np.argmax(mean <= allowed))]

    def _held_out(self, penalty: float, strip: NDArray[np.intp]) -> float:
        rest = np.delete(np.arange(self.target.size), strip)
        weights = self.solve(penalty, rest)
        return float(((self.target[strip] - self.data[strip] @ (weights / self.cells)) ** 2).mean())


def second_difference(x: FloatArray) -> FloatArray:
    """(m - 2, m): second derivative at the inner points of x, times the root of the cell so that squares integrate."""
    a, b = np.diff(x)[:-1], np.diff(x)[1:]
    out = np.zeros((x.size - 2, x.size))
    rows = np.arange(x.size - 2)
    for shift, value in enumerate((2 / (a * (a + b)), -2 / (a * b), 2 / (b * (a + b)))):
        out[rows, rows + shift] = value * np.sqrt((a + b) / 2)
    return out

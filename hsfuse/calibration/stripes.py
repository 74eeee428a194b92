"""Stripes of a pushbroom sensor: what one detector of a band adds to its whole column.

Each band's detectors err on their own, so stripes lie outside the few directions in which a scene's spectra vary: what
these leave of the spectra, averaged along each column, is the stripe and little noise (compare Gomez-Chova et al. 2008,
"Correction of systematic spatial noise in push-broom hyperspectral sensors", Applied Optics 47(28)). The directions are
those of spectra within columns, which no stripe changes. What changes slowly across columns stays: smile and
illumination do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import correlate1d

from hsfuse.calibration.spectra import FloatArray, band_noise, clean_spectra, varies

#: Spectra from which the directions are found, most of these, and fewest columns and rows to judge by.
SPECTRA, MOST_DIRECTIONS, LEAST_SIDE = 6000, 40, 16
#: Columns over which what stays is smoothed by parabolas (Savitzky, Golay 1964).
SLOW = 15
#: A band has stripes where the variance of its columns' means is so many times what noise leaves of it; they are taken
#: out where so large a share of the bands has any. Directions may hold at most so much of a band.
CLEAR, LEAST_SHARE, MOST_HELD = 2.5, 0.25, 0.5
#: Detectors of different bands err on their own: where columns of all bands have fewer patterns than this share of what
#: independent ones would have, they are the ground's.
LEAST_RANK = 0.5
#: Share of the correlation between both halves of the rows that stripes would give, and the ground doesn't.
LASTING = 0.8


@dataclass(frozen=True, eq=False)
class Stripes:
    """`values` (C, w) that detectors add to columns, 0 for a band without; `times` (C,) by how much columns' means
    vary in place of what noise would make them."""

    values: FloatArray
    times: FloatArray

    @property
    def clear(self) -> NDArray[np.bool_]:
        """Which bands have stripes: (C,) bool."""
        return self.times > CLEAR

    def __bool__(self) -> bool:
        """Whether enough bands have them."""
        return bool(self.clear.mean() >= LEAST_SHARE)


Strip = tuple[NDArray[np.floating], NDArray[np.bool_]]


def estimate_stripes(strips: Callable[[], Iterable[Strip]]) -> Stripes | None:
    """From strips of rows, (C, h, w) with their masks (h, w), given twice; None for too small or too gappy an image."""
    found = np.concatenate([_within(data, mask) for data, mask in strips()], 1).astype(np.float64)
    if found.shape[1] < 2 * LEAST_SIDE * LEAST_SIDE or found.shape[0] < LEAST_SIDE or not varies(found):
        return None
    found = found[:, :: max(1, found.shape[1] // SPECTRA)]
    noise = band_noise(found)[:, None]
    kept = min(MOST_DIRECTIONS, clean_spectra(found).basis.shape[1], len(found) // 2)
    axes = np.linalg.svd(found / noise, full_matrices=False)[0][:, :kept]
    parts, squares = [], 0.0
    for data, mask in strips():
        flat = data.reshape(len(data), -1) / noise
        rest = (flat - axes @ (axes.T @ flat)).reshape(data.shape) * mask
        parts.append((rest.sum(1), mask.sum(0)))
        squares = squares + (rest**2).sum((1, 2))
    column, counts = _columns(parts)
    if min(counts.size, len(column)) < LEAST_SIDE or np.median(counts) < LEAST_SIDE or len(parts) < 2:
        return None
    fast = _fast(column)
    within = squares / counts.sum() - (column**2 * counts).sum(1) / counts.sum()
    times = (fast**2 * counts).mean(1) / np.maximum(within, 1e-12)
    clear = times > CLEAR
    free = max(2, int(clear.sum()) - kept)  # ranks that the directions leave
    few = _rank(fast[clear]) < LEAST_RANK * free * counts.size / (free + counts.size)
    if few or not _lasting(parts, times):
        times = np.minimum(times, CLEAR)
    held = np.minimum((axes**2).sum(1), MOST_HELD)[:, None]
    shrunk = np.maximum(1 - 1 / np.maximum(times, 1e-12), 0)[:, None]
    values = np.where((times > CLEAR)[:, None] & (counts >= LEAST_SIDE), noise * fast * shrunk / (1 - held), 0)
    return Stripes(values, times)


def _columns(parts: list[tuple[FloatArray, NDArray[np.integer]]]) -> tuple[FloatArray, NDArray[np.integer]]:
    """Columns' means (C, w) and counts (w,) from strips' sums and counts."""
    counts = np.sum([count for _, count in parts], 0)
    return np.sum([total for total, _ in parts], 0) / np.maximum(counts, 1), counts


def _fast(column: FloatArray) -> FloatArray:
    """What changes from one column to the next; near both ends less the parabola of the outermost columns.

    scipy.signal has this filter; to import it takes a second of processor time.
    """
    powers = np.vander(np.linspace(-1, 1, SLOW), 3)
    parabola = powers @ np.linalg.pinv(powers)  # (SLOW, SLOW): values to those of their parabola
    half = SLOW // 2
    slow = correlate1d(column, parabola[half], axis=1)
    slow[:, :half] = column[:, :SLOW] @ parabola[:half].T
    slow[:, -half:] = column[:, -SLOW:] @ parabola[-half:].T
    return column - slow


def _lasting(parts: list[tuple[FloatArray, NDArray[np.integer]]], times: FloatArray) -> bool:
    """Whether both halves of the rows have the same columns, as far as noise lets them: detectors do, the ground not.

    With stripes of variance (t - 1) n, n that of the noise of a column's mean, halves correlate by (t - 1) / (t + 1).
    """
    clear = times > CLEAR
    if not clear.any():
        return False
    middle = len(parts) // 2
    one, other = (_fast(_columns(half)[0])[clear] for half in (parts[:middle], parts[middle:]))
    lengths = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
    found = (one * other).sum(1) / np.maximum(lengths, 1e-30)
    expected = (times[clear] - 1) / (times[clear] + 1)
    return bool(found.mean() >= LASTING * expected.mean())


def _within(data: NDArray[np.floating], mask: NDArray[np.bool_]) -> NDArray[np.floating]:
    """Valid spectra (C, n) of a strip (C, h, w) less their columns' means, in which its stripes are."""
    count = np.maximum(mask.sum(0), 1)
    return (data - (data * mask).sum(1, keepdims=True) / count)[:, mask]


def _rank(columns: FloatArray) -> float:
    """How many patterns columns (k, w) of bands have in effect: k w / (k + w) where each band errs on its own."""
    if len(columns) < 2:
        return 0.0
    unit = columns / (np.linalg.norm(columns, axis=1, keepdims=True) + 1e-30)
    energy = np.linalg.svd(unit, compute_uv=False) ** 2
    return float(energy.sum() ** 2 / (energy**2).sum())

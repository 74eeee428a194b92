"""Which bands are the weakest, by their correlation with what the cube is held against."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import median_filter

from hsfuse.assessment.result import Assessment, Curve, Floats
from hsfuse.optics import ABSORPTION_NM

#: Runs of weak bands that are named, at most; bands over which they are sought, and fewest bands of one.
NAMED, SMOOTHED, FEWEST = 2, 5, 3
#: A step of this many usual ones between bands is a gap.
MISSING = 4.0


@dataclass(frozen=True)
class Run:
    """Neighbouring bands from `low` to `high` (nm, or band numbers), their mean value and their share of all bands."""

    low: float
    high: float
    value: float
    share: float

    def words(self, has_wavelengths: bool) -> str:
        """The range, in words."""
        told = f"{self.low:.0f}" if self.low == self.high else f"{self.low:.0f} to {self.high:.0f}"
        return f"{told} nm" if has_wavelengths else f"band{'' if self.low == self.high else 's'} {told}"


@dataclass(frozen=True)
class Weakest:
    """The weakest runs of bands, worst first, and the median over all bands."""

    runs: tuple[Run, ...]
    median: float


@dataclass(frozen=True)
class Held:
    """A curve of correlations, what it was held against in words, and whether that is a truth."""

    curve: Curve
    how: str
    true: bool


def held_against(a: Assessment) -> Held | None:
    """The best correlations by band that there are: with the reference, with the LRHSI one step down, or with it."""
    places = (
        (a, "cc", "Against the reference", True),
        (a.reduced, "cc", "One step of resolution down", True),
        (a, "hsi_cc", "Blurred back to the LRHSI", False),
    )
    for source, name, how, true in places:
        curve = next((c for c in source.curves if c.name == name), None) if source is not None else None
        if curve is not None and np.isfinite(curve.values).any():
            return Held(curve, how, true)
    return None


def weakest(curve: Curve) -> Weakest | None:
    """Runs of bands, neighbours in the file, that lie nearer to the worst than to the median; None without values.

    Medians over `SMOOTHED` bands are compared and runs of fewer than `FEWEST` bands left out where there are longer
    ones: single bands of a sensor are noisy whatever the fusion does. Bands in strong water vapour absorption don't
    count. A run ends where wavelengths step back, at the next detector, and where bands are missing.
    """
    kept = _clear(curve.wavelengths_nm) & np.isfinite(curve.values)
    nm, values = curve.wavelengths_nm[kept], curve.values[kept]
    if not values.size:
        return None
    parts = _stretches(nm)
    smooth = np.concatenate([median_filter(values[part], SMOOTHED, mode="mirror") for part in parts])
    median = float(np.median(values))
    low = smooth <= (median + smooth.min()) / 2
    found = [run for part in parts for run in _runs(part[low[part]])]
    named = [run for run in found if run.size >= FEWEST] or found
    runs = sorted((_run(nm[run], values[run], nm.size) for run in named), key=lambda run: run.value)
    return Weakest(tuple(runs[:NAMED]), median)


def _stretches(nm: Floats) -> list[NDArray[np.int64]]:
    """Indices of all bands, cut where wavelengths (C,) step back and where bands are missing."""
    steps = np.diff(nm)
    forward = -1 if (steps < 0).sum() > steps.size / 2 else 1
    far = np.abs(steps) > MISSING * np.median(np.abs(steps)) if steps.size else steps > 0
    return np.split(np.arange(nm.size), np.flatnonzero((forward * steps < 0) | far) + 1)


def _runs(marked: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """Indices in runs of neighbours."""
    return [run for run in np.split(marked, np.flatnonzero(np.diff(marked) > 1) + 1) if run.size]


def _run(nm: Floats, values: Floats, bands: int) -> Run:
    return Run(float(nm.min()), float(nm.max()), float(values.mean()), nm.size / bands)


def mean_outside_absorption(curve: Curve, which: NDArray[np.bool_]) -> float:
    """Mean of the values of the bands `which` (C,), without strong water vapour absorption; NaN without any."""
    values = curve.values[which & _clear(curve.wavelengths_nm) & np.isfinite(curve.values)]
    return float(values.mean()) if values.size else float("nan")


def _clear(wavelengths_nm: Floats) -> NDArray[np.bool_]:
    shaded = [(wavelengths_nm >= low) & (wavelengths_nm <= high) for low, high in ABSORPTION_NM]
    return ~np.any(shaded, axis=0)

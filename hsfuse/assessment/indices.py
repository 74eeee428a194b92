"""Whether spectral indices survive the fusion: vegetation, water, moisture, band ratios, red edge, absorption depth."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hsfuse.assessment.composites import NEAR_NM
from hsfuse.assessment.result import Floats, IndexCheck, ResponseCurves
from hsfuse.physics.srf_bands import seen_bands


@dataclass(frozen=True)
class SpectralIndex:
    """An index of a few bands: `value` takes their planes, as `wavelengths_nm` has them, and the least denominator."""

    name: str
    formula: str
    wavelengths_nm: tuple[float, ...]
    value: Callable[[Sequence[Floats], float], Floats]


def _normalised(planes: Sequence[Floats], least: float) -> Floats:
    """(a - b) / (a + b); undefined where a reflectance isn't positive or both are less than `least` together."""
    total = planes[0] + planes[1]
    positive = (planes[0] > 0) & (planes[1] > 0) & (total >= least)
    return np.divide(planes[0] - planes[1], total, out=np.full(total.shape, np.nan), where=positive)


def _ratio(planes: Sequence[Floats], least: float) -> Floats:
    """a / b; undefined where a reflectance isn't positive or b less than `least`."""
    positive = (planes[0] > 0) & (planes[1] > 0) & (planes[1] >= least)
    return np.divide(planes[0], planes[1], out=np.full(planes[0].shape, np.nan), where=positive)


def _red_edge(planes: Sequence[Floats], least: float) -> Floats:
    """Wavelength in nm of half the rise from red to near infrared; undefined where there is no rise."""
    red, low, high, infrared = planes
    rise = high - low
    share = np.divide(
        (red + infrared) / 2 - low, rise, out=np.full(rise.shape, np.nan), where=rise > max(least, MIN_RISE)
    )
    return np.where((share >= 0) & (share <= 1), 700 + 40 * share, np.nan)


def _depth(wavelengths_nm: tuple[float, float, float]) -> Callable[[Sequence[Floats], float], Floats]:
    """1 - value in the feature / straight line between its shoulders (Clark and Roush 1984)."""
    left, middle, right = wavelengths_nm
    share = (middle - left) / (right - left)

    def value(planes: Sequence[Floats], least: float) -> Floats:
        line = (1 - share) * planes[0] + share * planes[2]
        return np.asarray(
            1 - np.divide(planes[1], line, out=np.full(line.shape, np.nan), where=(line > 0) & (line >= least))
        )

    return value


#: Reflectance between 700 and 740 nm from which on there is a red edge.
MIN_RISE = 0.02
#: Reflectance below which a denominator is mostly noise and what is left of the atmosphere, as over water in the
#: short-wave infrared: a ratio could be anything there.
LEAST_REFLECTANCE = 0.01
_CHLOROPHYLL = (560.0, 670.0, 750.0)
_CLAY = (2120.0, 2200.0, 2250.0)
INDICES = (
    SpectralIndex("NDVI", "(R842 - R665) / (R842 + R665), vegetation", (842, 665), _normalised),
    SpectralIndex("NDRE", "(R790 - R715) / (R790 + R715), red edge", (790, 715), _normalised),
    SpectralIndex("NDWI", "(R560 - R842) / (R560 + R842), open water", (560, 842), _normalised),
    SpectralIndex("NDMI", "(R842 - R1610) / (R842 + R1610), moisture", (842, 1610), _normalised),
    SpectralIndex("SR", "R842 / R665, simple ratio", (842, 665), _ratio),
    SpectralIndex("clay ratio", "R1650 / R2210", (1650, 2210), _ratio),
    SpectralIndex("red edge, nm", "position by four points (Guyot and Baret 1988)", (670, 700, 740, 780), _red_edge),
    SpectralIndex("depth, 670 nm", "chlorophyll absorption between 560 and 750 nm", _CHLOROPHYLL, _depth(_CHLOROPHYLL)),
    SpectralIndex("depth, 2200 nm", "clay absorption between 2120 and 2250 nm", _CLAY, _depth(_CLAY)),
)


def unseen(name: str, response: ResponseCurves | None) -> tuple[float, ...]:
    """Wavelengths in nm of those bands of the index `name` that no MSI band sees; () without a response."""
    index = next((index for index in INDICES if index.name == name), None)
    if response is None or index is None:
        return ()
    bands = _nearest(response.wavelengths_nm, index)[0]
    seen = seen_bands(response.weights)
    return tuple(nm for nm, band in zip(index.wavelengths_nm, bands, strict=True) if not seen[band])


def _nearest(wavelengths_nm: Floats, index: SpectralIndex) -> tuple[NDArray[np.int64], float]:
    """The bands of an index among `wavelengths_nm` (C,), and how far in nm the farthest is from where it should be."""
    gaps = np.abs(wavelengths_nm[None] - np.array(index.wavelengths_nm)[:, None])
    return gaps.argmin(axis=1), float(gaps.min(axis=1).max())


class IndexSums:
    """Mean, bias and RMSE of every index that the wavelengths (C,) allow, between two cubes.

    Where a denominator is below `least`, in the cubes' unit, an index isn't defined.
    """

    def __init__(self, wavelengths_nm: Floats, against: str, least: float = 0.0) -> None:
        self._against, self._least, self._pixels = against, least, 0
        self._bands = {}
        for index in INDICES:
            bands, farthest = _nearest(wavelengths_nm, index)
            if farthest <= NEAR_NM / 2:
                self._bands[index] = bands
        self._sums = {index: np.zeros(4) for index in self._bands}

    def add(self, fused: Floats, truth: Floats, valid: NDArray[np.bool_]) -> None:
        """Add a tile (C, h, w) of both; pixels where an index isn't defined in both don't count for it."""
        self._pixels += int(valid.sum())
        for index, bands in self._bands.items():
            planes = ([cube[b][valid].astype(np.float64) for b in bands] for cube in (fused, truth))
            x, y = (index.value(each, self._least) for each in planes)
            known = np.isfinite(x) & np.isfinite(y)
            error = (x - y)[known]
            self._sums[index] += (known.sum(), y[known].sum(), error.sum(), error @ error)

    def result(self) -> tuple[IndexCheck, ...]:
        """What became of each index."""
        out = []
        for index, (count, total, error, squared) in self._sums.items():
            if count:
                figures = (total / count, error / count, np.sqrt(squared / count), count / self._pixels)
                out.append(IndexCheck(index.name, index.formula, self._against, *map(float, figures)))
        return tuple(out)

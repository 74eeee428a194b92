"""A spectral smile: band centres of a pushbroom sensor that lie elsewhere at the edges of the swath than in its middle.

The ground's spectra vary in few directions. Seen at other wavelengths in other columns they need more: each one's
derivative by the wavelength, too. So of all quadratic courses of the centres across the columns that one is taken whose
spectra, brought back to common centres to first order, need least: the likelihood of a subspace and noise (Tipping,
Bishop 1999, "Probabilistic principal component analysis", JRSS B 61(3), eq. 4). All it takes are moments of the
spectra, weighted by powers of the column. What is the same in all columns can't be told: the middle column's centres
are taken as the nominal ones. Detectors of silicon and those beyond are two arrays, each with a smile of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse
from scipy.optimize import minimize

from hsfuse.calibration.spectra import FloatArray, band_noise, noise_edge, varies

#: Where the detectors of silicon end, nm.
SILICON_NM = 1000.0
#: Fewest bands of an array, columns of the image, and pixels by band of either half of its rows.
LEAST_BANDS, LEAST_COLUMNS, LEAST_PIXELS = 32, 16, 1.0
#: Largest share of the bands that the ground's directions may be: else it isn't the detectors' wavelengths that differ.
MOST_DIRECTIONS = 1 / 3
#: What a smile changes over the columns, at least and at most, in band spacings: less isn't worth it, and more isn't
#: small enough to be taken out to first order. Wider gaps than so many spacings have no derivative.
LEAST_CHANGE, MOST_CHANGE, GAP = 0.05, 0.6, 2.5
#: A course so near to the largest one isn't found, but stopped.
AT_LIMIT = 0.95
#: -2 log likelihood that it must gain by pixel, and the share of its own gain that the other half's smile must have.
LEAST_GAIN, LEAST_SHARED = 0.1, 0.5
#: Ground that changes over the columns, such as a red edge that moves with the crop, looks like a smile in one part of
#: the spectrum, and both halves of the rows have it. So each of several parts of the bands is left out in turn: what
#: the others tell on their own has to be, in the median, this share of the course. Of a smile, too, fewer bands tell
#: less: .15 to .45 of it, where such ground has .03.
LEFT_OUT, LEAST_ELSEWHERE = 1 / 3, 0.1
#: How far both halves' courses may differ, as a share of the course (root mean squares over the columns).
APART = 0.5
#: Steps of the search (Nelder, Mead 1965) in nm, and what ends it.
FIRST_STEP, SETTLED_NM, STEPS = 0.5, 0.01, 120


@dataclass(frozen=True, eq=False)
class Smile:
    """`shifts_nm` (C, w): how far each band's centre lies above the middle column's, 0 where that isn't clear.

    `slope` (C, C) makes the derivative by nm of a spectrum; `sd_nm` is how far both halves of the rows are from their
    mean, at most.
    """

    shifts_nm: FloatArray
    slope: sparse.csr_array
    sd_nm: float

    def __bool__(self) -> bool:
        """Whether there is any."""
        return bool(self.shifts_nm.any())


class _Moments:
    """Sums over pixels of spectra (C, n), weighted by powers of their columns' places u (n,) from -1 to 1."""

    def __init__(self, spectra: FloatArray, u: FloatArray) -> None:
        self.pixels = u.size
        self.weights = [float((u**k).sum()) for k in range(5)]
        self.means = [spectra @ u**k for k in range(3)]
        self.squares = [(spectra * u**k) @ spectra.T for k in range(5)]

    @property
    def covariance(self) -> FloatArray:
        """(C, C), about the mean."""
        mean = self.means[0] / self.pixels
        return self.squares[0] / self.pixels - np.outer(mean, mean)

    def of_bands(self, kept: NDArray[np.intp]) -> _Moments:
        """The same of some bands alone."""
        some = object.__new__(_Moments)
        some.pixels, some.weights = self.pixels, self.weights
        some.means = [mean[kept] for mean in self.means]
        some.squares = [square[np.ix_(kept, kept)] for square in self.squares]
        return some

    def __add__(self, other: _Moments) -> _Moments:
        both = object.__new__(_Moments)
        both.pixels = self.pixels + other.pixels
        for name in ("weights", "means", "squares"):
            pairs = zip(getattr(self, name), getattr(other, name), strict=True)
            setattr(both, name, [one + two for one, two in pairs])
        return both


class _Search:
    """Of spectra in noise units: the cost of a course b u + a u^2 of the centres, in nm."""

    def __init__(self, moments: _Moments, slope: FloatArray, directions: int, most_nm: float) -> None:
        self.moments, self.slope, self.directions, self.most_nm = moments, slope, directions, most_nm
        of = zip(moments.squares, moments.weights, strict=True)
        self._signal = [square - weight * np.eye(len(square)) for square, weight in of]

    def cost(self, course: FloatArray) -> float:
        """-2 log likelihood by pixel, but for a constant; inf for a course that is too far.

        Only the signal's moments are brought back, and noise of variance 1 is added again: else a correction would
        cost what it does to noise.
        """
        b, a = course
        if np.abs(_across(course)).max() > self.most_nm:
            return np.inf
        of, n, signal = self.moments, self.moments.pixels, self._signal
        once = self.slope @ (b * signal[1] + a * signal[2])
        twice = self.slope @ (b * b * signal[2] + 2 * a * b * signal[3] + a * a * signal[4]) @ self.slope.T
        mean = (of.means[0] - self.slope @ (b * of.means[1] + a * of.means[2])) / n
        values = np.linalg.eigvalsh((signal[0] - once - once.T + twice) / n - np.outer(mean, mean)) + 1
        kept = values[::-1][: self.directions]
        return float(np.log(np.maximum(kept, 1e-3)).sum() + values[: values.size - self.directions].sum())

    def best(self) -> FloatArray:
        """(b, a) of the least cost."""
        simplex = FIRST_STEP * np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
        how = {"initial_simplex": simplex, "xatol": SETTLED_NM, "fatol": 1e-5, "maxiter": STEPS}
        found: FloatArray = minimize(self.cost, np.zeros(2), method="Nelder-Mead", options=how).x
        return found

    def gain(self, course: FloatArray) -> float:
        """What a course is better by than none."""
        return self.cost(np.zeros(2)) - self.cost(course)


def estimate_smile(halves: Sequence[tuple[FloatArray, FloatArray]], wavelengths_nm: ArrayLike, columns: int) -> Smile:
    """From pixels of the upper and of the lower half of the rows: spectra (C, n) and their columns' places (n,).

    These go from -1 to 1 over the image's `columns`. There is no smile where it can't be told, or isn't clear.
    """
    nm = np.asarray(wavelengths_nm, np.float64)
    shifts, slopes, sd = np.zeros((nm.size, columns)), np.zeros((nm.size, nm.size)), 0.0
    for array in (nm <= SILICON_NM, nm > SILICON_NM):
        bands = np.flatnonzero(array)[np.argsort(nm[array], kind="stable")]
        slope = derivative(nm[bands])
        slopes[np.ix_(bands, bands)] = slope
        found = _of_array([(half[bands], u) for half, u in halves], nm[bands], slope)
        if columns >= LEAST_COLUMNS and found is not None:
            shifts[bands] = _across(found[0], columns)
            sd = max(sd, found[1])
    return Smile(shifts, sparse.csr_array(slopes), sd)


def derivative(nm: FloatArray) -> FloatArray:
    """(C, C): the derivative by nm of a spectrum at rising wavelengths (C,), of parabolas through three bands.

    Beside a gap and at the ends it is that of a line through two, and 0 where there is one alone.
    """
    slope, apart = np.zeros((nm.size, nm.size)), np.diff(nm)
    near = (apart > 0) & (apart < GAP * np.median(apart)) if nm.size > 1 else np.zeros(0, bool)
    for i in range(nm.size):
        below, above = i > 0 and near[i - 1], i + 1 < nm.size and near[i]
        if below and above:
            low, high = apart[i - 1], apart[i]
            slope[i, i - 1 : i + 2] = -high / low, high / low - low / high, low / high
            slope[i, i - 1 : i + 2] /= low + high
        elif below or above:
            first = i - 1 if below else i
            slope[i, first : first + 2] = -1 / apart[first], 1 / apart[first]
    return slope


def _of_array(
    halves: Sequence[tuple[FloatArray, FloatArray]], nm: FloatArray, slope: FloatArray
) -> tuple[FloatArray, float] | None:
    """The course (b, a) of one array's centres, and how far its halves are from it (nm); None where it isn't clear."""
    if nm.size < LEAST_BANDS or min(u.size for _, u in halves) < LEAST_PIXELS * nm.size:
        return None
    whole, spacing = np.concatenate([half for half, _ in halves], 1), float(np.median(np.diff(nm)))
    if not varies(whole):
        return None
    noise = band_noise(whole - whole.mean(1, keepdims=True))[:, None]
    upper, lower = (_Moments(half / noise, u) for half, u in halves)
    both = upper + lower
    directions = _directions(both, nm.size)
    if directions > MOST_DIRECTIONS * nm.size:
        return None
    slope, most_nm = slope * noise.T / noise, MOST_CHANGE * spacing
    search, *parts = (_Search(one, slope, directions, most_nm) for one in (both, upper, lower))
    course = search.best()
    if np.ptp(_across(course)) < LEAST_CHANGE * spacing or search.gain(course) < LEAST_GAIN:
        return None
    own = [part.best() for part in parts]
    if max(np.abs(_across(one)).max() for one in (course, *own)) > AT_LIMIT * MOST_CHANGE * spacing:
        return None
    for part, mine, other in zip(parts, own, reversed(own), strict=True):
        if part.gain(other) < max(LEAST_GAIN, LEAST_SHARED * part.gain(mine)):
            return None
    apart, size = (float(np.sqrt(np.square(_across(one)).mean())) for one in (own[0] - own[1], course))
    if apart > APART * size or _elsewhere(both, slope, most_nm, course) < LEAST_ELSEWHERE:
        return None
    return course, apart / 2


def _directions(moments: _Moments, bands: int) -> int:
    """How many directions stand out of what noise alone has; `bands` are all that it has."""
    return int((np.linalg.eigvalsh(moments.covariance) > noise_edge(bands, moments.pixels)).sum())


def _elsewhere(moments: _Moments, slope: FloatArray, most_nm: float, course: FloatArray) -> float:
    """The share of a course that other bands tell on their own, the median over parts of the bands left out."""
    bands, wanted = len(slope), _across(course)
    width, shares = round(LEFT_OUT * bands), []
    for first in range(0, bands - width + 1, width // 2):
        kept = np.delete(np.arange(bands), slice(first, first + width))
        some = moments.of_bands(kept)
        own = _Search(some, slope[np.ix_(kept, kept)], max(1, _directions(some, bands)), most_nm).best()
        shares.append(float(_across(own) @ wanted / (wanted @ wanted)))
    return float(np.median(shares))


def _across(course: FloatArray, columns: int = 65) -> FloatArray:
    """b u + a u^2 over columns, u from -1 to 1."""
    u = np.linspace(-1, 1, columns)
    return np.asarray(course[0] * u + course[1] * u**2)

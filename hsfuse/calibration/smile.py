"""A spectral smile: band centres of a pushbroom sensor that lie elsewhere at the edges of the swath than in its middle.

The ground's spectra vary in few directions. Seen at other wavelengths in other columns they need more: each one's
derivative by the wavelength, too, and its second one. So of all quadratic courses of the centres across the columns
that one is taken whose spectra, brought back to common centres to first order, need least, and then of courses of the
second derivative: the likelihood of Gaussian spectra and noise (Tipping, Bishop 1999, "Probabilistic principal
component analysis", JRSS B 61(3), eq. 4). All it takes are moments of the spectra in the directions that stand out of
the noise, weighted by powers of the column. What is the same in all columns can't be told: the middle column's centres
are taken as the nominal ones. Detectors of silicon and those beyond are two arrays, each with a smile of its own.
A smile moves sharp features, too; ground whose colour tilts over the columns has smooth ones alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import minimize

from hsfuse.calibration.spectra import FloatArray, band_noise, noise_edge, varies

#: Where the detectors of silicon end, nm.
SILICON_NM = 1000.0
#: Fewest bands of an array, columns of the image, and pixels of either half of its rows.
LEAST_BANDS, LEAST_COLUMNS, LEAST_PIXELS = 32, 12, 64
#: Largest share of the bands, and of the pixels, that the ground's directions may be: else it isn't the detectors'
#: wavelengths that differ. Least size of one that derivatives add, and of a signal beside the noise's 1.
MOST_DIRECTIONS, LEAST_SIZE, LEAST_SIGNAL = 1 / 3, 1e-3, -0.9
#: What a smile changes over the columns, at least and at most, in band spacings: less isn't worth it, and more isn't
#: small enough to be taken out to first order; the most bend, in their squares. Wider gaps than so many spacings have
#: no derivative.
LEAST_CHANGE, MOST_CHANGE, MOST_BEND, GAP = 0.05, 0.6, 0.4, 2.5
#: Share of bands whose wavelength is below the one's before, at most, of detectors one after the other.
SELDOM = 0.1
#: A course so near to the largest one isn't found, but stopped.
AT_LIMIT = 0.95
#: -2 log likelihood that it must gain by pixel, and the share of its own gain that the other half's smile must have.
LEAST_GAIN, LEAST_SHARED = 0.1, 0.5
#: Ground that changes over the columns, such as a red edge that moves with the crop, looks like a smile in one part of
#: the spectrum, and both halves of the rows have it. So each of several parts of the bands is left out in turn: what
#: the others tell on their own has to be, in the median, this share of the course. Of a smile, too, fewer bands tell
#: less: .15 to .45 of it, where such ground has .03.
LEFT_OUT, LEAST_ELSEWHERE = 1 / 3, 0.1
#: Ground whose colour tilts over the columns, by sun, view or haze, looks like smooth spectra that are moved, in all
#: parts of the bands and rows. What changes over fewer bands than these, as the air's lines do, has to tell this share
#: of the course on its own, else it alone is asked, as where halves of the rows tilt otherwise and no course is clear:
#: of a smile it tells .8 to 1.5, of a tilt up to .3.
SMOOTH_BANDS, LEAST_SHARP = 10.0, 0.5
#: How far both halves' courses may differ, as a share of the course (root mean squares over the columns).
APART = 0.5
#: Steps of the search (Nelder, Mead 1965) in spacings, and what ends it.
FIRST_STEP, SETTLED, STEPS = 0.05, 0.001, 400
#: The course of no smile.
NONE = np.zeros(2)


@dataclass(frozen=True, eq=False)
class Smile:
    """`shifts_nm` (C, w): how far each band's centre lies above the middle column's, 0 where that isn't clear.

    `slope` (C, C) makes the derivative by nm of a spectrum. `bends_nm2` (C, w) is how much of the second derivative is
    in it beside, 0 where that isn't clear; `bend` (C, C) makes that of what isn't noise. `sd_nm` is by how much more or
    less the centres of either half of the rows differ over the columns, at most: less ground tells another smile.
    """

    shifts_nm: FloatArray
    slope: FloatArray
    bends_nm2: FloatArray
    bend: FloatArray
    sd_nm: float

    @property
    def blurs_nm2(self) -> FloatArray:
        """Half the variance by which responses are wider than in the middle column, 0 where that isn't clear: (C, w).

        A shift d alone has a second order, -d^2 / 2.
        """
        return np.where(self.bends_nm2, self.bends_nm2 + self.shifts_nm**2 / 2, 0)

    def __bool__(self) -> bool:
        """Whether there is any."""
        return bool(self.shifts_nm.any())


@dataclass(frozen=True, eq=False)
class _Space:
    """The directions of spectra in noise units: `axes` (C, k) and, in a `basis` (C, m) that also holds their first and
    second derivatives, the two operators (m, m), per spacing of the bands. Of spectra in the basis `told` (m, m) @ them
    is what they are judged by."""

    axes: FloatArray
    basis: FloatArray
    slope: FloatArray
    bend: FloatArray
    told: FloatArray

    @classmethod
    def of(cls, spectra: FloatArray, slope: FloatArray, bend: FloatArray) -> _Space | None:
        """Of spectra (C, n), in which noise has variance 1; None where they vary in too many."""
        bands, n = spectra.shape
        mean = spectra.mean(1, keepdims=True)
        values, vectors = np.linalg.eigh((spectra - mean) @ (spectra - mean).T / n)
        kept = max(1, int((values > noise_edge(bands, n)).sum()))
        if kept > MOST_DIRECTIONS * min(bands, n):
            return None
        axes = np.linalg.qr(np.column_stack([vectors[:, -kept:], mean]))[0]
        found, sizes, _ = np.linalg.svd(np.column_stack([axes, slope @ axes, bend @ axes]), full_matrices=False)
        basis = found[:, sizes > LEAST_SIZE]
        return cls(axes, basis, basis.T @ slope @ basis, basis.T @ bend @ basis, np.eye(basis.shape[1]))

    def without(self, smooth: FloatArray) -> _Space:
        """The same, judged by what doesn't lie along directions (C, s)."""
        axes = np.linalg.qr(smooth)[0]
        return replace(self, told=np.linalg.qr(self.basis - axes @ (axes.T @ self.basis))[1])


class _Moments:
    """Sums over pixels of spectra (C, n) along a space's axes, weighted by powers of their columns' places u (n,).

    Squares are less what noise has, seen in the space's basis; places go from -1 to 1.
    """

    def __init__(self, spectra: FloatArray, u: FloatArray, space: _Space) -> None:
        self.pixels, into, along = u.size, space.basis.T @ space.axes, space.axes.T @ spectra
        self.means = [into @ (along @ u**k) for k in range(3)]
        noise = [float((u**k).sum()) * np.eye(len(along)) for k in range(5)]
        self.squares = [into @ ((along * u**k) @ along.T - noise[k]) @ into.T for k in range(5)]

    def __add__(self, other: _Moments) -> _Moments:
        both = object.__new__(_Moments)
        both.pixels = self.pixels + other.pixels
        both.means = [one + two for one, two in zip(self.means, other.means, strict=True)]
        both.squares = [one + two for one, two in zip(self.squares, other.squares, strict=True)]
        return both


@dataclass(frozen=True)
class _Search:
    """The cost of courses b u + a u^2 of the centres, in spacings, and d u + c u^2 of bends, in their squares."""

    space: _Space
    moments: _Moments

    def cost(self, course: FloatArray) -> float:
        """-2 log likelihood by pixel of (b, a) or (b, a, d, c), but for a constant; inf for one that is too far.

        Only the signal's moments are brought back, and noise of variance 1 is added again: else a correction would
        cost what it does to noise.
        """
        if np.abs(_across(course)).max() > MOST_CHANGE or np.abs(_across(course[2:])).max() > MOST_BEND:
            return np.inf
        of, n = self.moments, self.moments.pixels
        by = [
            sum(size * one for size, one in zip(course[k::2], (self.space.slope, self.space.bend), strict=False))
            for k in (0, 1)
        ]
        once = by[0] @ of.squares[1] + by[1] @ of.squares[2]
        mixed = by[0] @ of.squares[3] @ by[1].T
        twice = by[0] @ of.squares[2] @ by[0].T + by[1] @ of.squares[4] @ by[1].T + mixed + mixed.T
        mean = (of.means[0] - by[0] @ of.means[1] - by[1] @ of.means[2]) / n
        signal = (of.squares[0] - once - once.T + twice) / n - np.outer(mean, mean)
        values = np.linalg.eigvalsh(self.space.told @ signal @ self.space.told.T)
        return float(np.log1p(np.maximum(values, LEAST_SIGNAL)).sum())

    def best(self, start: FloatArray) -> FloatArray:
        """The course of the least cost, of as many numbers as the one to start from."""
        simplex = start + FIRST_STEP * np.eye(start.size + 1, start.size, -1)
        how = {"initial_simplex": simplex, "xatol": SETTLED, "fatol": 1e-5, "maxiter": STEPS}
        found: FloatArray = minimize(self.cost, start, method="Nelder-Mead", options=how).x
        return found

    def gain(self, course: FloatArray, over: FloatArray = NONE) -> float:
        """What a course is better by than another one, or than none."""
        return self.cost(over) - self.cost(course)


def estimate_smile(halves: Sequence[tuple[FloatArray, FloatArray]], wavelengths_nm: ArrayLike, columns: int) -> Smile:
    """From pixels of the upper and of the lower half of the rows: spectra (C, n) and their columns' places (n,).

    These go from -1 to 1 over the image's `columns`. There is no smile where it can't be told, or isn't clear.
    """
    nm = np.asarray(wavelengths_nm, np.float64)
    shifts, second, sd = np.zeros((nm.size, columns)), np.zeros((nm.size, columns)), 0.0
    slopes, bends = np.zeros((nm.size, nm.size)), np.zeros((nm.size, nm.size))
    for array in (nm <= SILICON_NM, nm > SILICON_NM):
        bands = _in_order(np.flatnonzero(array), nm)
        slopes[np.ix_(bands, bands)] = derivative(nm[bands])
        found = _of_array([(half[bands], u) for half, u in halves], nm[bands]) if columns >= LEAST_COLUMNS else None
        if found is not None:
            shifts[bands], sd = _across(found.centres, columns), max(sd, found.sd_nm)
            second[bands], bends[np.ix_(bands, bands)] = _across(found.bends, columns), found.bend
    return Smile(shifts, slopes, second, bends, sd)


def _in_order(bands: NDArray[np.intp], nm: FloatArray) -> NDArray[np.intp]:
    """Bands by wavelength; as they come where it falls back seldom, from one detector to the next that overlaps it."""
    seldom = (np.diff(nm[bands]) <= 0).mean() < SELDOM if bands.size > 1 else True
    return bands if seldom else bands[np.argsort(nm[bands], kind="stable")]


def derivative(nm: FloatArray) -> FloatArray:
    """(C, C): the derivative by nm of a spectrum at rising wavelengths (C,), of parabolas through three bands.

    Beside a gap, where wavelengths fall and at the ends it is that of a line through two, and 0 of one alone.
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


def _second(nm: FloatArray) -> FloatArray:
    """(C, C): the second derivative by nm at rising wavelengths (C,) by three bands, 0 beside a gap and at the ends."""
    bend, apart = np.zeros((nm.size, nm.size)), np.diff(nm)
    near = (apart > 0) & (apart < GAP * np.median(apart)) if nm.size > 1 else np.zeros(0, bool)
    for i in np.flatnonzero(near[:-1] & near[1:]) + 1:
        low, high = apart[i - 1], apart[i]
        bend[i, i - 1 : i + 2] = 2 / (low * (low + high)), -2 / (low * high), 2 / (high * (low + high))
    return bend


@dataclass(frozen=True, eq=False)
class _Found:
    """One array's courses in nm and nm^2, what makes the second derivative of its ground's spectra, the deviation."""

    centres: FloatArray
    bends: FloatArray
    bend: FloatArray
    sd_nm: float


def _of_array(halves: Sequence[tuple[FloatArray, FloatArray]], nm: FloatArray) -> _Found | None:
    """The smile of one array's bands at rising wavelengths (C,); None where it isn't clear."""
    if nm.size < LEAST_BANDS or min(u.size for _, u in halves) < LEAST_PIXELS:
        return None
    whole, spacing = np.concatenate([half for half, _ in halves], 1), float(np.median(np.diff(nm)))
    if not varies(whole):
        return None
    noise = band_noise(whole - whole.mean(1, keepdims=True))[:, None]
    slope, bend = (
        power * one * noise.T / noise for power, one in ((spacing, derivative(nm)), (spacing**2, _second(nm)))
    )
    space = _Space.of(whole / noise, slope, bend)
    if space is None:
        return None
    upper, lower = (_Moments(half / noise, u, space) for half, u in halves)
    place = (np.arange(nm.size)[:, None] + 0.5) / nm.size
    smooth = np.cos(np.pi * place * np.arange(round(2 * nm.size / SMOOTH_BANDS) + 1)) / noise
    searches, sharp = (
        [_Search(one, part) for part in (upper + lower, upper, lower)] for one in (space, space.without(smooth))
    )
    found = _clear(searches)
    if found is None or _share(sharp[0].best(NONE), found[0]) < LEAST_SHARP:
        searches, found = sharp, _clear(sharp)
    if found is None or _elsewhere(whole / noise, halves, slope, bend, found[0]) < LEAST_ELSEWHERE:
        return None
    course, clear = _with_bend(searches[0], searches[1:], found[0])
    onto = noise * space.axes @ (space.axes.T / noise.T)
    return _Found(course[:2] * spacing, course[2:] * spacing**2, clear * _second(nm) @ onto, found[1] * spacing)


def _clear(searches: list[_Search]) -> tuple[FloatArray, float] | None:
    """The course by all rows that either half of them bears out, and its deviation; None where there is none.

    Searches are by all rows, by the upper and by the lower half.
    """
    search, *parts = searches
    course = search.best(NONE)
    if np.ptp(_across(course)) < LEAST_CHANGE or search.gain(course) < LEAST_GAIN:
        return None
    own = [part.best(NONE) for part in parts]
    if max(np.abs(_across(one)).max() for one in (course, *own)) > AT_LIMIT * MOST_CHANGE:
        return None
    for part, mine, other in zip(parts, own, reversed(own), strict=True):
        if part.gain(other) < max(LEAST_GAIN, LEAST_SHARED * part.gain(mine)):
            return None
    apart, size = (float(np.sqrt(np.square(_across(one)).mean())) for one in (own[0] - own[1], course))
    # Halves are off the whole by what the whole is off by itself, and by what ground does to both of them alike.
    return (course, max(float(np.ptp(_across(one - course))) for one in own)) if apart < APART * size else None


def _with_bend(search: _Search, parts: list[_Search], course: FloatArray) -> tuple[FloatArray, bool]:
    """The course (b, a, d, c) with the bend that goes with it, 0 where that isn't clear, and whether it is."""
    plain = np.concatenate([course, NONE])
    wide, *own = (one.best(plain) for one in (search, *parts))
    clear = search.gain(wide, plain) > LEAST_GAIN and np.abs(_across(wide[2:])).max() < AT_LIMIT * MOST_BEND
    for part, other in zip(parts, reversed(own), strict=True):
        clear = clear and part.gain(other, plain) > LEAST_GAIN
    return (wide, True) if clear else (plain, False)


def _elsewhere(
    spectra: FloatArray,
    halves: Sequence[tuple[FloatArray, FloatArray]],
    slope: FloatArray,
    bend: FloatArray,
    course: FloatArray,
) -> float:
    """The share of a course that other bands tell on their own, the median over parts of the bands left out."""
    bands, u = len(slope), np.concatenate([u for _, u in halves])
    width, shares = round(LEFT_OUT * bands), []
    for first in range(0, bands - width + 1, width // 2):
        kept = np.delete(np.arange(bands), slice(first, first + width))
        space = _Space.of(spectra[kept], slope[np.ix_(kept, kept)], bend[np.ix_(kept, kept)])
        if space is None:
            return 0.0
        shares.append(_share(_Search(space, _Moments(spectra[kept], u, space)).best(NONE), course))
    return float(np.median(shares))


def _share(told: FloatArray, course: FloatArray) -> float:
    """How much of a course another one has."""
    wanted = _across(course)
    return float(_across(told) @ wanted / (wanted @ wanted))


def _across(course: FloatArray, columns: int = 65) -> FloatArray:
    """b u + a u^2 over columns, u from -1 to 1; 0 without any numbers."""
    if not course.size:
        return np.zeros(columns)
    u = np.linspace(-1, 1, columns)
    return np.asarray(course[0] * u + course[1] * u**2)

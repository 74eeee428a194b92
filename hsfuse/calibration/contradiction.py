"""Whether a known response is the one that a pair was taken with.

What R x LRHSI leaves of the degraded MSI is noise where R is right. Where it isn't, the neighbours' spectra foretell a
part of it: they know the ground and nothing of the pixel's own noise, whatever that is like (instrumental variables,
Reiersol 1945). How much they foretell is a chi-square, for the known curve and for others: shifted, widened, or those
of other bands and sensors. A misplaced or blurred image is taken out along with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import linear_sum_assignment

from hsfuse.calibration.spectra import FloatArray, SharedPixels
from hsfuse.core.values import plus_minus
from hsfuse.physics.response import SpectralResponse

#: Curves that are tried: shifted by shares of the band's width, and as wide as these multiples.
SHIFTS = np.concatenate([-np.geomspace(1, 0.02, 15), [0.0], np.geomspace(0.02, 1, 15)])
WIDTHS = np.geomspace(0.4, 2.5, 19)
#: A curve is contradicted where another one fits (chi-square, 4 degrees of freedom), has so much less of it, and the
#: change is beyond so many standard deviations, nm and shares of the width. Where none fits, something else is wrong.
FITS, LESS, BEYOND_SD, BEYOND_NM, BEYOND_SHARE = 12.0, 18.0, 4.0, 2.0, 0.05
#: Chi-square of a right curve.
EXPECTED = 4
#: The same of a width: shares of the known one. Between HSI bands that lie further apart than a share of it, the
#: spectrum isn't known well enough to tell a width.
BEYOND_WIDTH, WIDEST_STEP = 0.15, 0.5
#: Share of a response that the HSI must cover for it to be another band's.
WHOLE = 0.9
#: What a number more has to gain in chi-square (Akaike 1974, "A new look at the statistical model identification").
NUMBER = 2.0
#: Another band or sensor must be better by so many times as much.
ANOTHER = 2.0
#: Another order of the bands must have so many times less: that of a right one is 1.7 times less at most (responses
#: 15 nm off, thin cloud), of a wrong one 4 times at least but for neighbours in noise of 25 dB or under a curved tone.
ORDERS = 4.0
#: A shift of all bands is looked for so near to the first find (shares of the width), in so many steps to either side.
FINE, POINTS_NEAR = 0.15, 6
#: Points of a curve, fewest windows and directions to judge by, and least noise as a share of the band's contrast.
POINTS, LEAST_WINDOWS, LEAST_DIRECTIONS, LEAST_NOISE = 80, 8, 6, 0.01


@dataclass(frozen=True)
class BandCheck:
    """One MSI band: by how many nm (+-) its response seems shifted, how many times (+-) as wide it seems.

    Both of a width are None where HSI bands lie too far apart to tell. `misfit` is the chi-square of the known curve,
    of about 4 where it is right; `shifted`, `widened` those of the best shift and width, and `others` those of the
    response's other bands in its place, by name.
    """

    band: str
    centre_nm: float
    width_nm: float
    shift_nm: float
    shift_sd_nm: float
    widened_by: float | None
    widened_sd: float | None
    misfit: float
    shifted: float
    widened: float
    others: dict[str, float]

    @property
    def other(self) -> str:
        """Another band of the response that this one clearly is; "" where none is, or this one moved fits better."""
        if not self.others:
            return ""
        name = min(self.others, key=lambda one: self.others[one])
        if min(self.shifted, self.widened) + NUMBER < self.others[name]:
            return ""
        return name if self._fits_better(self.others[name], ANOTHER * LESS) else ""

    @property
    def least(self) -> float:
        """Chi-square of the best of all curves that were tried."""
        return min(self.misfit, self.shifted, self.widened, *self.others.values())

    @property
    def is_shifted(self) -> bool:
        """Whether the centre clearly lies elsewhere."""
        far = max(BEYOND_SD * self.shift_sd_nm, BEYOND_NM, BEYOND_SHARE * self.width_nm)
        found = far < abs(self.shift_nm) < self.width_nm * SHIFTS[-1]
        return found and self._fits_better(self.shifted, LESS)

    @property
    def is_widened(self) -> bool:
        """Whether the band is clearly wider or narrower."""
        if self.widened_by is None or self.widened_sd is None:
            return False
        far = max(BEYOND_SD * self.widened_sd, BEYOND_WIDTH)
        return abs(self.widened_by - 1) > far and self._fits_better(self.widened, LESS)

    def _fits_better(self, chi_square: float, less: float) -> bool:
        return chi_square < FITS and self.misfit - chi_square > less

    @property
    def contradicts(self) -> bool:
        """Whether the pair clearly contradicts the response of this band."""
        return bool(self.other) or self.is_shifted or self.is_widened

    def describe(self) -> str:
        """What the pair says, in figures."""
        if self.other:
            return f"{self.band} is what {self.other} should see"
        at, sd = self.centre_nm + self.shift_nm, self.shift_sd_nm
        wider = self.is_widened and not (self.is_shifted and self.shifted <= self.widened)
        if not wider or self.widened_by is None or self.widened_sd is None:
            return f"{self.band} lies at {plus_minus(at, sd)} nm, not at {self.centre_nm:.0f}"
        width, sd = self.widened_by * self.width_nm, self.widened_sd * self.width_nm
        told = f"{plus_minus(width, sd)} nm"
        if self.widened_by in (WIDTHS[0], WIDTHS[-1]):
            told = f"{width:.0f} nm or {'less' if self.widened_by < 1 else 'more'}"
        return f"{self.band} is {told} wide at {self.centre_nm:.0f} nm, not {self.width_nm:.0f}"


@dataclass(frozen=True)
class CommonShift:
    """All bands moved by the same `nm` (+- `sd_nm`): `fitted`, the chi-square of it summed over bands, and `misfit` of
    the known curves; `singly` that of each band's best own change, which are `count` numbers in place of one."""

    nm: float
    sd_nm: float
    fitted: float
    misfit: float
    singly: float
    count: int

    @property
    def is_clear(self) -> bool:
        """Whether it clearly fits better than the known curves, and than bands changed one by one for their numbers."""
        fits = self.fitted < FITS * self.count and self.misfit - self.fitted > ANOTHER * LESS
        far = abs(self.nm) > max(BEYOND_SD * self.sd_nm, BEYOND_NM)
        return bool(fits and far and self.fitted + NUMBER < self.singly + NUMBER * self.count)

    def describe(self) -> str:
        """What the pair says, in figures."""
        return f"all bands lie {plus_minus(abs(self.nm), self.sd_nm)} nm {'higher' if self.nm > 0 else 'lower'}"


def common_shift(
    pixels: SharedPixels,
    response: SpectralResponse,
    checks: Sequence[BandCheck],
    kept: Sequence[int],
    wavelengths_nm: ArrayLike,
    fwhm_nm: ArrayLike | None = None,
) -> CommonShift | None:
    """One shift of all bands that `checks` are of, the MSI's bands `kept`; None where there are too few to have one."""
    told = _Foretold(pixels)
    if not told.can_tell or len(checks) < 2:
        return None
    known = response.select([one.band for one in checks]).matrix(wavelengths_nm, fwhm_nm)[0]
    noise = [told.chi_square(k, row)[1] for k, row in zip(kept, known, strict=True)]
    width = float(np.median([one.width_nm for one in checks]))

    def tried(grid: FloatArray) -> tuple[float, float, float]:
        at = [response.index(one.band) for one in checks]
        curves = [_changed(response, k, grid, np.ones_like(grid)).matrix(wavelengths_nm, fwhm_nm)[0] for k in at]
        return told.best_common(kept, grid, curves, noise)

    about = tried(width * SHIFTS)[0]
    nm, sd, fitted = tried(about + width * np.linspace(-FINE, FINE, 2 * POINTS_NEAR + 1))
    singly = sum(min(one.misfit, one.shifted, one.widened) for one in checks)
    return CommonShift(nm, sd, fitted, sum(one.misfit for one in checks), singly, len(checks))


def check_response(
    pixels: SharedPixels,
    response: SpectralResponse,
    bands: Sequence[str],
    wavelengths_nm: ArrayLike,
    fwhm_nm: ArrayLike | None = None,
) -> list[BandCheck]:
    """Each of the MSI's `bands` against `response`, whose other bands are tried, too; [] for too small a scene."""
    told = _Foretold(pixels)
    if not told.can_tell:
        return []
    matrix, coverage = response.matrix(wavelengths_nm, fwhm_nm)
    rows = dict(zip(response.bands, matrix, strict=True))
    whole = [band for band, share in zip(response.bands, coverage, strict=True) if share > WHOLE]
    found = []
    for k, band in enumerate(bands):
        at = response.index(band)
        centre, width = float(response.centres_nm[at]), float(response.fwhm_nm[at])
        grids = (width * SHIFTS, np.ones_like(SHIFTS)), (np.zeros_like(WIDTHS), WIDTHS)
        curves = [_changed(response, at, *grid).matrix(wavelengths_nm, fwhm_nm)[0] for grid in grids]
        misfit, noise = told.chi_square(k, rows[band])
        tried = zip((grids[0][0], WIDTHS), curves, strict=True)
        shift, widened = (told.best(k, grid, changed, noise) for grid, changed in tried)
        others = {other: told.chi_square(k, rows[other], noise)[0] for other in whole if other != band}
        by, sd = widened[:2] if _step(wavelengths_nm, centre, width) <= WIDEST_STEP * width else (None, None)
        found.append(BandCheck(band, centre, width, *shift[:2], by, sd, misfit, shift[2], widened[2], others))
    return found


def _step(wavelengths_nm: ArrayLike, centre: float, width: float) -> float:
    """Largest distance (nm) of neighbouring HSI bands within a band; inf where one lies beyond them."""
    nm = np.sort(np.asarray(wavelengths_nm, np.float64))
    first, last = np.searchsorted(nm, [centre - width / 2, centre + width / 2]) - [1, 0]
    if first < 0 or last >= nm.size:
        return float(np.inf)
    return float(np.diff(nm[first : last + 1]).max(initial=0.0))


def compare_sensors(
    pixels: SharedPixels,
    responses: Sequence[SpectralResponse],
    bands: Sequence[str],
    wavelengths_nm: ArrayLike,
    fwhm_nm: ArrayLike | None = None,
    asked: Sequence[int] | None = None,
) -> list[float]:
    """Chi-square of each response with its own `bands` for the MSI's, summed over them; inf for too small a scene.

    `asked`: over those of the bands alone.
    """
    told = _Foretold(pixels)
    if not told.can_tell:
        return [np.inf] * len(responses)
    matrices = [response.select(bands).matrix(wavelengths_nm, fwhm_nm)[0] for response in responses]
    chosen = range(len(bands)) if asked is None else asked
    return [sum(told.chi_square(k, matrix[k])[0] for k in chosen) for matrix in matrices]


@dataclass(frozen=True)
class Order:
    """Which of the response's bands each MSI band is, by place, and the chi-square of that and of the order told."""

    places: tuple[int, ...]
    fitted: float
    misfit: float

    @property
    def fits(self) -> bool:
        """Whether what is left of it is no more than of right curves."""
        return self.fitted < FITS * len(self.places)


def other_order(pixels: SharedPixels, matrix: FloatArray) -> Order | None:
    """The order of the rows of R `matrix` (c, C) in which they clearly fit the MSI's bands better; None without any.

    All are held against the noise that a band's best row leaves: what a wrong one leaves is more than noise.
    """
    told = _Foretold(pixels)
    if not told.can_tell:
        return None
    count, own = len(matrix), np.arange(len(matrix))
    found = [[told.misfit(k, row) for row in matrix] for k in range(count)]
    misfits, noise = np.moveaxis(np.array(found), 2, 0)
    chi = misfits / noise.min(1, keepdims=True)
    best = linear_sum_assignment(chi)[1]
    order = Order(tuple(map(int, best)), float(chi[own, best].sum()), float(chi[own, own].sum()))
    clear = order.misfit > ORDERS * max(order.fitted, EXPECTED * count)
    less_noise = np.log(noise[own, own] / noise[own, best]).sum() > 0
    return order if clear and order.misfit - order.fitted > ANOTHER * LESS and less_noise else None


def chi_squares(pixels: SharedPixels, matrix: FloatArray) -> list[float]:
    """Of R `matrix` (c, C), band by band; 0 for too small a scene."""
    told = _Foretold(pixels)
    return [told.chi_square(k, row)[0] if told.can_tell else 0.0 for k, row in enumerate(matrix)]


def _changed(response: SpectralResponse, k: int, shifts_nm: FloatArray, widths: FloatArray) -> SpectralResponse:
    """A response whose bands are band k shifted and widened in each of these ways."""
    row, nm, centre = response.curve[k], response.wavelengths_nm, response.centres_nm[k]
    seen = np.flatnonzero(row > 1e-3 * row.max())
    low, high = nm[max(0, seen[0] - 1)], nm[min(nm.size - 1, seen[-1] + 1)]
    reach = (high - low) * (widths.max() - 1) + np.abs(shifts_nm).max()
    fine = np.arange(max(1.0, low - reach), high + reach, max(0.5, (high - low) / POINTS))
    ways = zip(shifts_nm, widths, strict=True)
    curves = np.array([np.interp(centre + (fine - centre - d) / w, nm, row, 0, 0) for d, w in ways])
    return SpectralResponse("", tuple(map(str, range(len(curves)))), fine, curves)


class _Foretold:
    """What the neighbours' directions (K, n) foretell of the spectra and of each MSI band, by windows."""

    def __init__(self, pixels: SharedPixels) -> None:
        self.pixels, self.windows = pixels, int(pixels.window.max()) + 1
        self.can_tell = self.windows >= LEAST_WINDOWS and len(pixels.directions) >= LEAST_DIRECTIONS
        order = np.argsort(pixels.window, kind="stable")
        self._parts = np.split(order, np.flatnonzero(np.diff(pixels.window[order])) + 1)
        self._spectra, self._own = self._seen(pixels.lrhsi), self._seen(pixels.directions)

    def _seen(self, image: FloatArray) -> FloatArray:
        """Sums over each window's pixels of the directions times an image (m, n): (w, K, m)."""
        directions = self.pixels.directions
        return np.stack([directions[:, part] @ image[:, part].T for part in self._parts])

    def best(self, k: int, grid: FloatArray, curves: FloatArray, most: float) -> tuple[float, float, float]:
        """Of curves (q, C) on a grid (q,), for MSI band k: the best place, its standard deviation, its chi-square.

        `most`: the known curve's noise.
        """
        (spectra, own, band), of_band = self._totals(k), self._of_band(k)
        misfit, gain = _misfit(spectra, own, band, curves)
        least = int(misfit.argmin())
        noise = min(most, self._noise(k, gain[least] * curves[least]))
        left = np.empty(self.windows)
        for w in range(self.windows):
            rest = spectra - self._spectra[w], own - self._own[w], band - of_band[w]
            left[w] = _lowest(grid, _misfit(*rest, curves)[0])
        return _lowest(grid, misfit), float(np.sqrt((left.size - 1) * left.var())), float(misfit[least] / noise)

    def best_common(
        self, kept: Sequence[int], grid: FloatArray, curves: Sequence[FloatArray], most: Sequence[float]
    ) -> tuple[float, float, float]:
        """The same of one place for the MSI bands `kept`, of curves (q, C) each: their chi-squares are summed."""
        total, left = np.zeros(grid.size), np.zeros((self.windows, grid.size))
        found = [(self._totals(k), self._of_band(k)) for k in kept]
        for last in (False, True):  # the noise is that of the curves at the place found first
            place = int(total.argmin())
            total = np.zeros(grid.size)
            for k, ((spectra, own, band), of_band), tried, known in zip(kept, found, curves, most, strict=True):
                misfit, gain = _misfit(spectra, own, band, tried)
                noise = known if not last else min(known, self._noise(k, gain[place] * tried[place]))
                total += misfit / noise
                if last:
                    for w in range(self.windows):
                        rest = spectra - self._spectra[w], own - self._own[w], band - of_band[w]
                        left[w] += _misfit(*rest, tried)[0] / noise
        places = np.array([_lowest(grid, one) for one in left])
        return _lowest(grid, total), float(np.sqrt((places.size - 1) * places.var())), float(total.min())

    def chi_square(self, k: int, curve: FloatArray, most: float = np.inf) -> tuple[float, float]:
        """Of one curve (C,) for MSI band k, and its noise, as what it leaves has it; `most`: the known curve's."""
        misfit, noise = self.misfit(k, curve)
        noise = min(most, noise)
        return misfit / noise, noise

    def misfit(self, k: int, curve: FloatArray) -> tuple[float, float]:
        """What is foretold of the misfit of one curve (C,) for MSI band k, and the noise that it leaves."""
        misfit, gain = _misfit(*self._totals(k), curve[None])
        return float(misfit[0]), self._noise(k, gain[0] * curve)

    def _totals(self, k: int) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Sums over all windows."""
        return self._spectra.sum(0), self._own.sum(0), self._of_band(k).sum(0)

    def _of_band(self, k: int) -> FloatArray:
        """What the directions see of an MSI band, and of what blur and place change of it: (w, K, 4)."""
        return self._seen(np.stack([self.pixels.msi[k], *(image[k] for image in self.pixels.changes)]))

    def _noise(self, k: int, weights: FloatArray) -> float:
        """Variance of what a curve leaves of the band."""
        band, changes = self.pixels.msi[k], np.stack([image[k] for image in self.pixels.changes])
        rest = band - weights @ self.pixels.lrhsi
        rest = rest - np.linalg.lstsq(changes.T, rest, rcond=None)[0] @ changes
        return float((rest**2).sum() / self.pixels.degrees + LEAST_NOISE**2 * band.var()) + 1e-30


def _misfit(
    spectra: FloatArray, own: FloatArray, band: FloatArray, curves: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """What is foretold of the misfit of each curve (q, C), and its gain: (q,) each.

    From sums over pixels of the directions times spectra (K, C), themselves (K, K), the band and its changes (K, 4).
    """
    root = np.linalg.inv(np.linalg.cholesky(own))
    x, y, changes = root @ spectra @ curves.T, root @ band[:, 0], root @ band[:, 1:]
    axes, _ = np.linalg.qr(changes)
    x, y = x - axes @ (axes.T @ x), y - axes @ (axes.T @ y)
    gain = np.maximum(y @ x, 0) / np.maximum((x**2).sum(0), 1e-30)
    return ((y[:, None] - gain * x) ** 2).sum(0), gain


def _lowest(grid: FloatArray, values: FloatArray) -> float:
    """The lowest point of a parabola through the least value and its neighbours; the grid's end where that is it."""
    i = int(values.argmin())
    if i in (0, grid.size - 1):
        return float(grid[i])
    a, b, _ = np.polyfit(grid[i - 1 : i + 2] - grid[i], values[i - 1 : i + 2], 2)
    return float(np.clip(grid[i] - b / (2 * a), grid[i - 1], grid[i + 1])) if a > 0 else float(grid[i])

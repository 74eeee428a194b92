"""The MSI's spectral response from the pair itself.

On LR pixels the degraded MSI is gain R x + offset. Per band: first the flat-topped curve of greatest likelihood, the
noise of the spectra x included (three numbers, so that smooth spectra can't lead astray); then a free non-negative
departure from it, its second difference in wavelength penalised, only as far as held-out pixels confirm it. Without the
first step this is the estimation of Simoes et al. 2015 ("A convex formulation for hyperspectral image superresolution
via subspace-based regularization", IEEE TGRS 53(6), section IV).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.linalg import qr
from scipy.optimize import minimize, nnls
from scipy.sparse import csr_array
from scipy.special import erf
from torch import Tensor

from hsfuse.calibration.spectra import CleanSpectra, FloatArray, LowPixels, clean_spectra, low_pixels
from hsfuse.core.errors import InputError, SettingError
from hsfuse.core.values import plus_minus
from hsfuse.physics.model import ObservationModel
from hsfuse.physics.response import SpectralResponse, merged_centres
from hsfuse.physics.srf_bands import LEAVE_OUT

#: Points between neighbouring HSI centres at which a curve is integrated.
POINTS_BETWEEN = 5


@dataclass(frozen=True)
class FlatTops:
    """Weights of the HSI bands at rising `wavelengths_nm` (C,) for flat tops with edges of error function shape."""

    wavelengths_nm: FloatArray
    fine_nm: FloatArray
    hats: csr_array  # (C, fine): integral of an HSI band's share of each fine point

    @classmethod
    def at(cls, wavelengths_nm: FloatArray) -> FlatTops:
        """Prepare the integration; the spectrum is linear between centres, as in `SpectralResponse.matrix`."""
        wl = wavelengths_nm
        steps = np.arange((wl.size - 1) * POINTS_BETWEEN + 1) / POINTS_BETWEEN
        fine = np.interp(steps, np.arange(wl.size), wl)
        hats = np.stack([np.interp(fine, wl, unit) for unit in np.eye(wl.size)], 1)
        return cls(wl, fine, csr_array((hats * np.gradient(fine)[:, None]).T))

    def weights(self, centre_nm: FloatArray, width_nm: FloatArray, softness: FloatArray) -> FloatArray:
        """(p, C), each row summing to 1 (0 where no HSI band is touched).

        `width_nm` is the FWHM, `softness` the standard deviation of each edge as a share of it.
        """
        scale = np.sqrt(2) * softness * width_nm
        low, high = ((centre_nm + side * width_nm / 2)[:, None] for side in (-1, 1))
        curve = erf((self.fine_nm - low) / scale[:, None]) - erf((self.fine_nm - high) / scale[:, None])
        weights: FloatArray = (self.hats @ np.maximum(curve, 0).T).T
        total = weights.sum(1, keepdims=True)
        return np.divide(weights, total, out=np.zeros_like(weights), where=total > 1e-9)


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


#: Usual FWHM and edge of a filter, and how far real ones stray (standard deviations of the logarithm).
USUAL_WIDTH_NM, WIDTH_SPREAD = 60.0, 1.0
USUAL_SOFTNESS, SOFTNESS_SPREAD = 0.1, 0.5
WIDTHS_NM = np.geomspace(8, 450, 22)
WIDTH_LIMITS_NM = (4.0, 700.0)
SOFTNESS_LIMITS = (0.02, 0.45)
#: Likeliest curves of the search that are refined.
STARTS = 3
#: Strips of the scene left out in turn for the jackknife.
STRIPS = 5


@dataclass(frozen=True)
class Likelihood:
    """-2 log likelihood of flat tops (centre, log width, log softness) for one MSI band, with noise in the spectra."""

    spectra: CleanSpectra
    tops: FlatTops
    cross: FloatArray  # (K,) covariance of scores and MSI band
    variance: float
    own_noise: float  # what no linear response explains

    @classmethod
    def of(cls, spectra: CleanSpectra, tops: FlatTops, z: FloatArray) -> Likelihood:
        """For the pixels of an MSI band (n,)."""
        cross, variance = spectra.scores @ (z - z.mean()) / z.size, float(z.var())
        signal, axes = np.linalg.eigh(spectra.moment)
        explained = float(((axes.T @ cross) ** 2 / np.maximum(signal - 1, 1e-3)).sum())
        return cls(spectra, tops, cross, variance, max(variance - explained, 1e-5 * variance))

    def __call__(self, p: FloatArray) -> float:
        """Of one curve (3,)."""
        return float(self.of_curves(p[None], self._weights(p))[0])

    def of_curves(self, p: FloatArray, weights: FloatArray) -> FloatArray:
        """(q, 3) and their weights (q, C) -> (q,)."""
        misfit, noise, _ = self._of_weights(weights)
        prior = ((p[:, 1] - np.log(USUAL_WIDTH_NM)) / WIDTH_SPREAD) ** 2
        prior += ((p[:, 2] - np.log(USUAL_SOFTNESS)) / SOFTNESS_SPREAD) ** 2
        return self.spectra.scores.shape[1] * (misfit / noise + np.log(noise)) + prior

    def _weights(self, p: FloatArray) -> FloatArray:
        return self.tops.weights(p[:1], np.exp(p[1:2]), np.exp(p[2:]))

    def _of_weights(self, weights: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Mean squared misfit, its expected value and gain (q,) of curves (q, C)."""
        q = weights @ self.spectra.basis
        seen, noise = q @ self.cross, (q**2).sum(1)
        power = ((q @ self.spectra.moment) * q).sum(1)
        gain = np.maximum(seen, 0) / np.maximum(power - noise, 1e-3 * power + 1e-30)
        return self.variance - 2 * gain * seen + gain**2 * power, self.own_noise + gain**2 * noise, gain

    def curve(self, p: FloatArray) -> tuple[FloatArray, float, float]:
        """Weights (C,), gain and variance of the misfit of one curve."""
        weights = self._weights(p)
        _, noise, gain = self._of_weights(weights)
        return weights[0], float(gain[0]), float(noise[0])


@dataclass(frozen=True)
class Search:
    """Flat tops at every HSI centre in many widths: `places` (q, 3) and their weights (q, C)."""

    tops: FlatTops
    places: FloatArray
    weights: FloatArray

    @classmethod
    def over(cls, wavelengths_nm: FloatArray) -> Search:
        """For an HSI of rising wavelengths."""
        tops, softness = FlatTops.at(wavelengths_nm), [np.log(USUAL_SOFTNESS)]
        axes = np.meshgrid(wavelengths_nm, np.log(WIDTHS_NM), softness, indexing="ij")
        places = np.stack([axis.ravel() for axis in axes], 1)
        return cls(tops, places, tops.weights(places[:, 0], np.exp(places[:, 1]), np.exp(places[:, 2])))

    def likeliest(self, likelihood: Likelihood) -> FloatArray:
        """Best (centre, log width, log softness)."""
        cost = likelihood.of_curves(self.places, self.weights)
        starts = self.places[np.argsort(cost)[:STARTS]]
        return min((self.refined(likelihood, start) for start in starts), key=lambda p: float(likelihood(p)))

    def refined(self, likelihood: Likelihood, start: FloatArray) -> FloatArray:
        """The best near a start."""
        wl = self.tops.wavelengths_nm
        bounds = np.array([(wl[0], wl[-1]), np.log(WIDTH_LIMITS_NM), np.log(SOFTNESS_LIMITS)])
        start = np.clip(start, *bounds.T)
        return minimize(
            likelihood, start, method="Nelder-Mead", bounds=bounds, options={"xatol": 0.01, "fatol": 0.01}
        ).x


def centre_spread(spectra: CleanSpectra, search: Search, z: FloatArray, best: FloatArray) -> float:
    """Standard deviation of the centre: jackknife over strips of the scene (Efron, Stein 1981)."""
    strips = np.array_split(np.arange(z.size), STRIPS)
    kept = [np.delete(np.arange(z.size), strip) for strip in strips]
    parts = [Likelihood.of(spectra.select(pixels), search.tops, z[pixels]) for pixels in kept]
    curves = [part.curve(search.refined(part, best))[0] for part in parts]
    centres = np.stack(curves) @ search.tops.wavelengths_nm
    return float(np.sqrt((STRIPS - 1) * centres.var()))


#: Variance below which an MSI band counts as constant.
LEAST_MSI_VARIANCE = 1e-12
#: HSI bands that a response's range must hold.
LEAST_BANDS = 3
#: What HSI bands of the same wavelength are told apart by in a table.
LEAST_STEP_NM = 1e-4


@dataclass(frozen=True, eq=False)
class EstimatedResponse:
    """R `matrix` (c, C), rows sum to 1, with MSI = gain R x + offset; all others (c,).

    `centre_nm` and `width_nm` are those of the rows (`centres_widths`), the centre's standard deviation `centre_sd_nm`
    is large where the scene's spectra can't tell; `residual` is the RMS left on LR pixels, as reflectance,
    `correlation` that of R x with the degraded MSI. `dimension`: how many directions of the spectra stand out of their
    noise, the most that R can be seen in.
    """

    wavelengths_nm: FloatArray
    matrix: FloatArray
    gain: FloatArray
    offset: FloatArray
    centre_nm: FloatArray
    centre_sd_nm: FloatArray
    width_nm: FloatArray
    residual: FloatArray
    correlation: FloatArray
    dimension: int

    def as_response(self, bands: Sequence[str], name: str = "estimated") -> SpectralResponse:
        """As a response whose `matrix` at the HSI's own wavelengths is R."""
        order = np.argsort(self.wavelengths_nm, kind="stable")
        rising = np.maximum.accumulate(self.wavelengths_nm[order])
        rising += LEAST_STEP_NM * np.arange(rising.size) * (np.diff(rising, prepend=-1) == 0)
        peaks = self.matrix.max(1, keepdims=True)
        source = "estimated from the pair of images"
        return SpectralResponse(name, tuple(bands), rising, (self.matrix / peaks)[:, order], source, weights=True)


def centres_widths(matrix: FloatArray, wavelengths_nm: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Mean wavelength and width (c,) of rows of weights (c, C); width: that of the flat top with the same variance."""
    share = matrix / matrix.sum(1, keepdims=True)
    centre = share @ wavelengths_nm
    return centre, np.sqrt(12 * (share * (wavelengths_nm - centre[:, None]) ** 2).sum(1))


@dataclass(frozen=True)
class _Band:
    """One MSI band's estimate: `weights` (C,) at rising wavelengths sum to its gain."""

    weights: FloatArray
    centre_sd_nm: float


def estimate_srf(
    lrhsi: Tensor,
    msi: Tensor,
    mask: Tensor,
    model: ObservationModel,
    wavelengths_nm: ArrayLike,
    within_nm: Sequence[tuple[float, float] | None] | None = None,
    quick: bool = False,
) -> EstimatedResponse:
    """R, gain and offset from blocks: LRHSI (n, C, h, w), MSI (n, c, H, W), mask (n, h, w) True where both are valid.

    Of `model` only blur and decimation are used. `within_nm` may give, for each MSI band, the range that its
    response lies in. InputError when fewer than 64 LR pixels are valid or an MSI band is constant; SettingError
    for a range with fewer than 3 HSI bands. `quick`: flat tops alone, without their centres' standard deviations.
    """
    return fit_srf(low_pixels(lrhsi, msi, mask, model), wavelengths_nm, within_nm, quick)


def fit_srf(
    pixels: LowPixels,
    wavelengths_nm: ArrayLike,
    within_nm: Sequence[tuple[float, float] | None] | None = None,
    quick: bool = False,
) -> EstimatedResponse:
    """The same from LR pixels."""
    wl = np.asarray(wavelengths_nm, dtype=np.float64)
    order = np.argsort(wl, kind="stable")
    nodes, member = merged_centres(wl[order])
    count = np.bincount(member)
    merged = np.zeros((nodes.size, pixels.lrhsi.shape[1]))
    np.add.at(merged, member, pixels.lrhsi[order])
    spectra, search = clean_spectra(merged / count[:, None]), Search.over(nodes)
    within = within_nm or [None] * len(pixels.msi)
    bands = [
        _fit_band(spectra, search, z, k, quick) if span is None else _fit_within(spectra, nodes, z, k, quick, span)
        for k, (z, span) in enumerate(zip(pixels.msi, within, strict=True))
    ]
    weights = np.empty((len(bands), wl.size))
    weights[:, order] = np.stack([band.weights for band in bands])[:, member] / count[member]
    return _summed_up(wl, weights, bands, pixels, len(spectra.moment))


def _summed_up(
    wl: FloatArray, weights: FloatArray, bands: list[_Band], pixels: LowPixels, dimension: int
) -> EstimatedResponse:
    gain = weights.sum(1)
    offset = pixels.msi.mean(1) - weights @ pixels.lrhsi.mean(1)
    seen = weights @ pixels.lrhsi
    centre, width = centres_widths(weights, wl)
    return EstimatedResponse(
        wl,
        weights / gain[:, None],
        gain,
        offset,
        centre,
        np.array([band.centre_sd_nm for band in bands]),
        width,
        (seen + offset[:, None] - pixels.msi).std(1),
        np.array([np.corrcoef(a, b)[0, 1] for a, b in zip(seen, pixels.msi, strict=True)]),
        dimension,
    )


def _fit_within(
    spectra: CleanSpectra, nodes: FloatArray, z: FloatArray, number: int, quick: bool, span: tuple[float, float]
) -> _Band:
    """From the HSI bands of a range alone."""
    inside = np.flatnonzero((nodes >= span[0]) & (nodes <= span[1]))
    if inside.size < LEAST_BANDS:
        raise SettingError(f"{span[0]:g} to {span[1]:g} nm hold {inside.size} HSI bands, wanted {LEAST_BANDS} or more")
    part = replace(spectra, basis=spectra.basis[inside])
    band = _fit_band(part, Search.over(nodes[inside]), z, number, quick)
    weights = np.zeros(nodes.size)
    weights[inside] = band.weights
    return replace(band, weights=weights)


def _fit_band(spectra: CleanSpectra, search: Search, z: FloatArray, number: int, quick: bool) -> _Band:
    centred = z - z.mean()
    if centred.var() < LEAST_MSI_VARIANCE:
        raise InputError(
            f"MSI band {number + 1} is constant over the common area: its response can't be estimated; name the bands "
            f"with --msi-bands, {LEAVE_OUT}"
        )
    likelihood = Likelihood.of(spectra, search.tops, centred)
    best = search.likeliest(likelihood)
    curve, gain, noise = likelihood.curve(best)
    if gain <= 0:
        raise InputError(
            f"MSI band {number + 1} doesn't rise with any HSI band: do both images show the same ground, and does it "
            f"lie within the HSI's wavelengths? --msi-bands names the bands, {LEAVE_OUT}"
        )
    if quick:
        return _Band(gain * curve, np.nan)
    width = float(np.exp(best[1]))
    weights = departed(spectra, search.tops.wavelengths_nm, centred, gain * curve, (best[0], width), noise)
    return _Band(weights, centre_spread(spectra, search, centred, best))


#: Centres disagree beyond this many standard deviations of the estimate and this share of the band's width.
CENTRE_SD, CENTRE_SHARE = 3.0, 0.15
#: Rows disagree when they share less than this of their weight.
LEAST_OVERLAP = 0.5


@dataclass(frozen=True)
class BandComparison:
    """One band: centre and flat-top width in nm as estimated and as known, and the share of weight in common."""

    band: str
    centre_nm: float
    centre_sd_nm: float
    width_nm: float
    known_centre_nm: float
    known_width_nm: float
    overlap: float
    coverage: float

    @property
    def disagrees(self) -> bool:
        """Whether the two can't both be right, as far as the scene can tell."""
        off = abs(self.centre_nm - self.known_centre_nm)
        far = off > CENTRE_SD * self.centre_sd_nm and off > CENTRE_SHARE * self.known_width_nm
        return far or self.overlap < LEAST_OVERLAP

    def describe(self) -> str:
        """One line for people."""
        return (
            f"{self.band}: centre {plus_minus(self.centre_nm, self.centre_sd_nm)} nm estimated against "
            f"{self.known_centre_nm:.1f}, width {self.width_nm:.0f} against {self.known_width_nm:.0f}, "
            f"{self.overlap:.0%} of the weight in common"
        )


def compare_responses(
    estimated: EstimatedResponse, known: SpectralResponse, bands: tuple[str, ...], fwhm_nm: ArrayLike | None = None
) -> list[BandComparison]:
    """Band by band on the HSI's wavelengths; a band that the HSI doesn't cover is left out.

    `bands` are the known response's names of the estimated rows. SrfError for an unknown name.
    """
    wl = estimated.wavelengths_nm
    rows, coverage = known.select(bands).matrix(wl, fwhm_nm)
    found = []
    for k in np.flatnonzero(coverage > 0):
        (centre,), (width,) = centres_widths(rows[k : k + 1], wl)
        overlap = float(np.minimum(rows[k], estimated.matrix[k]).sum())
        nm, sd, own = (float(a[k]) for a in (estimated.centre_nm, estimated.centre_sd_nm, estimated.width_nm))
        found.append(BandComparison(bands[k], nm, sd, own, float(centre), float(width), overlap, float(coverage[k])))
    return found

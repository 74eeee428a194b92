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
from numpy.typing import ArrayLike
from torch import Tensor

from hsfuse.errors import InputError, SettingError
from hsfuse.estimation.departure import departed
from hsfuse.estimation.flattop import Likelihood, Search, centre_spread
from hsfuse.estimation.spectra import CleanSpectra, FloatArray, LowPixels, clean_spectra, low_pixels
from hsfuse.physics import ObservationModel
from hsfuse.srf.response import SpectralResponse, merged_centres

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

    @property
    def range_nm(self) -> list[tuple[float, float]]:
        """First and last HSI wavelength that matters to each band (1 % of its largest weight)."""
        used = [self.wavelengths_nm[row >= 0.01 * row.max()] for row in self.matrix]
        return [(float(nm.min()), float(nm.max())) for nm in used]

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
        raise InputError(f"MSI band {number + 1} is constant over the common area: its response can't be estimated")
    likelihood = Likelihood.of(spectra, search.tops, centred)
    best = search.likeliest(likelihood)
    curve, gain, noise = likelihood.curve(best)
    if gain <= 0:
        raise InputError(f"MSI band {number + 1} doesn't rise with any HSI band: do both images show the same ground?")
    if quick:
        return _Band(gain * curve, np.nan)
    width = float(np.exp(best[1]))
    weights = departed(spectra, search.tops.wavelengths_nm, centred, gain * curve, (best[0], width), noise)
    return _Band(weights, centre_spread(spectra, search, centred, best))

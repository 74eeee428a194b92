"""The likeliest flat-topped response of an MSI band, the noise of the spectra included."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize

from hsfuse.estimation.curves import FlatTops
from hsfuse.estimation.spectra import CleanSpectra, FloatArray

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

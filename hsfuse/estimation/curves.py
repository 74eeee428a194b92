"""Flat-topped response curves as weights of HSI bands: the shape that filters are made to have."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array
from scipy.special import erf

FloatArray = NDArray[np.float64]
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

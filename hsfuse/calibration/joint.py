"""Response and PSF together: each estimated with the other as known so far, until the PSF stays."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from torch import Tensor

from hsfuse.calibration.psf import EstimatedPsf, estimate_psf
from hsfuse.calibration.response import EstimatedResponse, estimate_srf
from hsfuse.physics.model import ObservationModel, Psf, gaussian_psf
from hsfuse.physics.optics import sigma_from_mtf

#: MTF at Nyquist that the first response is estimated with.
START_MTF = 0.3
ROUNDS = 4
#: Change of widths and shift, as a share of the ratio, that ends the rounds.
SETTLED = 0.01


@dataclass(frozen=True)
class Observation:
    """What was estimated of the observation model; no PSF where that was given."""

    response: EstimatedResponse
    psf: EstimatedPsf | None
    rounds: int = 1

    def model(self, known: ObservationModel) -> ObservationModel:
        """The known model with what was estimated in its place; the PSF centred, without the shift."""
        return ObservationModel(self.response.matrix, self.psf.psf if self.psf else known.psf, known.ratio, known.phase)


def estimate_observation(
    lrhsi: Tensor,
    msi: Tensor,
    mask: Tensor,
    wavelengths_nm: ArrayLike,
    ratio: int,
    phase: float | None = None,
    psf: Psf | None = None,
    kind: str = "auto",
    given: Psf | None = None,
    near: tuple[float, float] = (0.0, 0.0),
) -> Observation:
    """SRF and PSF from blocks: LRHSI (n, C, h, w), MSI (n, c, H, W), mask (n, h, w) True where both are valid.

    A known `psf` is kept; `kind`, `given` and `near` as for `estimate_psf`.
    Errors as for `estimate_srf` and `estimate_psf`.
    """
    images = lrhsi, msi, mask
    if psf is not None:
        return Observation(estimate_srf(*images, _model(psf, ratio, phase), wavelengths_nm), None)
    found, rounds = _settled(images, wavelengths_nm, ratio, phase, near)
    response = estimate_srf(*images, _model(found.shifted, ratio, phase), wavelengths_nm)
    found = estimate_psf(*images, response.matrix, ratio, phase, kind, given, found.shift)
    return Observation(response, found, rounds)


def _settled(
    images: tuple[Tensor, Tensor, Tensor],
    wavelengths_nm: ArrayLike,
    ratio: int,
    phase: float | None,
    near: tuple[float, float],
) -> tuple[EstimatedPsf, int]:
    """A Gaussian PSF that its own response gives back, and the rounds it took."""
    seen, previous, rounds = gaussian_psf(sigma_from_mtf(START_MTF, ratio), ratio, phase), np.zeros(4), 0
    while True:
        rounds += 1
        response = estimate_srf(*images, _model(seen, ratio, phase), wavelengths_nm, quick=True)
        found = estimate_psf(*images, response.matrix, ratio, phase, "gaussian", near=near)
        current = np.array([*found.sigma, *found.shift]) / ratio
        if rounds == ROUNDS or np.abs(current - previous).max() < SETTLED:
            return found, rounds
        seen, previous = found.shifted, current


def _model(psf: Psf, ratio: int, phase: float | None) -> ObservationModel:
    """Blur and decimation alone."""
    return ObservationModel(np.eye(1), psf, ratio, phase)

"""An estimated response against the one that the library knows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from hsfuse.estimation.srf import EstimatedResponse, centres_widths
from hsfuse.srf import SpectralResponse

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
            f"{self.band}: centre {self.centre_nm:.1f} +- {self.centre_sd_nm:.1f} nm estimated against "
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

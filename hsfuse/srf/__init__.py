"""Spectral responses: the library in `srf/`, a user's own CSV, R for a hyperspectral sensor, which file band is which.

Letters: C hyperspectral bands, c multispectral bands, n samples of a response table. Wavelengths in nm.
"""

from hsfuse.srf.bands import MIN_COVERAGE, BandMatch, CoveredBands, covered_bands, match_bands
from hsfuse.srf.library import SrfRecord, list_srfs, load_srf
from hsfuse.srf.response import SpectralResponse
from hsfuse.srf.writing import check_csv, write_srf

__all__ = [
    "MIN_COVERAGE",
    "BandMatch",
    "CoveredBands",
    "SpectralResponse",
    "SrfRecord",
    "check_csv",
    "covered_bands",
    "list_srfs",
    "load_srf",
    "match_bands",
    "write_srf",
]

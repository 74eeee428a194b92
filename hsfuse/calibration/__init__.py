"""What a pair tells about its own observation: the MSI's response, the LRHSI's PSF, gain and offset between them."""

from hsfuse.calibration.distortion import Drift
from hsfuse.calibration.psf import EstimatedPsf, estimate_psf
from hsfuse.calibration.radiometry import RadiometricMatch, match_radiometry
from hsfuse.calibration.response import BandComparison, EstimatedResponse, compare_responses, estimate_srf
from hsfuse.calibration.shift import (
    SHIFT_LIMIT,
    LocalShift,
    Pair,
    Shift,
    Verdict,
    judge,
    register,
    rough_shift,
)

__all__ = [
    "SHIFT_LIMIT",
    "BandComparison",
    "Drift",
    "EstimatedPsf",
    "EstimatedResponse",
    "LocalShift",
    "Pair",
    "RadiometricMatch",
    "Shift",
    "Verdict",
    "compare_responses",
    "estimate_psf",
    "estimate_srf",
    "judge",
    "match_radiometry",
    "register",
    "rough_shift",
]

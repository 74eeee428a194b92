"""What a pair tells about its own observation: the MSI's response, the LRHSI's PSF, gain and offset between them."""

from hsfuse.estimation.compare import BandComparison, compare_responses
from hsfuse.estimation.joint import Observation, estimate_observation
from hsfuse.estimation.psf import EstimatedPsf, estimate_psf
from hsfuse.estimation.radiometry import RadiometricMatch, match_radiometry
from hsfuse.estimation.srf import EstimatedResponse, estimate_srf

__all__ = [
    "BandComparison",
    "EstimatedPsf",
    "EstimatedResponse",
    "Observation",
    "RadiometricMatch",
    "compare_responses",
    "estimate_observation",
    "estimate_psf",
    "estimate_srf",
    "match_radiometry",
]

"""How sensors see a scene: responses (the library in `srf/`, a user's CSV), PSF, decimation, the observation model.

Letters: C hyperspectral bands, c multispectral bands, n samples of a response table. Wavelengths in nm.
"""

from hsfuse.physics.response import SpectralResponse
from hsfuse.physics.srf_bands import MIN_COVERAGE, BandMatch, CoveredBands, covered_bands, match_bands
from hsfuse.physics.srf_library import SrfRecord, check_csv, list_srfs, load_srf, write_srf

"""A pair opened for work. `fuse` and `assess` start here, so that what is assessed is what was fused."""

from hsfuse.pair.mapping import PixelMap
from hsfuse.pair.nesting import Nesting, nest, resampling_variance
from hsfuse.pair.open import open_pair, psf_kind, psf_told
from hsfuse.pair.pair import ScenePair
from hsfuse.pair.warp import WarpedReader

__all__ = [
    "Nesting",
    "PixelMap",
    "ScenePair",
    "WarpedReader",
    "nest",
    "open_pair",
    "psf_kind",
    "psf_told",
    "resampling_variance",
]

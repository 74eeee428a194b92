"""Two images that don't share a grid: a nested one is chosen, and the LRHSI is brought onto it by one warp."""

from hsfuse.warp.kernel import resampling_variance
from hsfuse.warp.mapping import PixelMap
from hsfuse.warp.nesting import Nesting, nest
from hsfuse.warp.reader import WarpedReader

__all__ = ["Nesting", "PixelMap", "WarpedReader", "nest", "resampling_variance"]

"""A pair opened for work. `fuse` and `assess` start here, so that what is assessed is what was fused."""

from hsfuse.pair.mapping import PixelMap
from hsfuse.pair.nesting import Nesting, nest, resampling_variance
from hsfuse.pair.open import open_pair
from hsfuse.pair.pair import DEFAULT_MTF, ScenePair, SceneSettings
from hsfuse.pair.warp import WarpedReader

__all__ = [
    "DEFAULT_MTF",
    "Nesting",
    "PixelMap",
    "ScenePair",
    "SceneSettings",
    "WarpedReader",
    "nest",
    "open_pair",
    "resampling_variance",
]

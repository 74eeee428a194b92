"""A pair opened for work. `fuse` and `assess` start here, so that what is assessed is what was fused.

Names are imported when first used: whether two grids go together, or what a file's numbers are, needs no torch.
"""

from typing import TYPE_CHECKING

from hsfuse.core.package import when_used

if TYPE_CHECKING:
    from hsfuse.pair.mapping import PixelMap
    from hsfuse.pair.nesting import Nesting, nest, resampling_variance
    from hsfuse.pair.open import open_pair
    from hsfuse.pair.pair import ScenePair
    from hsfuse.pair.warp import WarpedReader

__all__ = [
    "Nesting",
    "PixelMap",
    "ScenePair",
    "WarpedReader",
    "nest",
    "open_pair",
    "resampling_variance",
]
__getattr__ = when_used(
    "hsfuse.pair",
    {
        "mapping": ("PixelMap",),
        "nesting": ("Nesting", "nest", "resampling_variance"),
        "open": ("open_pair",),
        "pair": ("ScenePair",),
        "warp": ("WarpedReader",),
    },
)

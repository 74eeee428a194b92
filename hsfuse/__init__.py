"""hsfuse: fuse a low-resolution hyperspectral and a high-resolution multispectral image with SRLF-Net.

import hsfuse
hsfuse.fuse("scene.hdr", "s2.tif", "sentinel2", "fused.tif")
hsfuse.assess("fused.tif", hsi="scene.hdr", msi="s2.tif", srf="sentinel2")
"""

from __future__ import annotations

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

from hsfuse.core.package import __version__

# How long torch's waiting OpenMP threads spin before they sleep, about a tenth of a millisecond: asleep at once, every
# small operation pays for waking them (the default fusion takes nearly twice as long); spinning on, they take the cores
# from the scan's own threads. Read by the OpenMP runtime when torch loads it, so it has to be said before.
os.environ.setdefault("GOMP_SPINCOUNT", "20000")

#: Public name -> module that has it (of itself, where it is a module); imported when first used, so that `import
#: hsfuse` doesn't wait for torch.
_PUBLIC = {
    "fuse": "hsfuse.fusion",
    "fit": "hsfuse.fusion",
    "load_model": "hsfuse.fusion",
    "assess": "hsfuse.assessment",
    "simulate": "hsfuse.benchmark.simulate",
    "open_pair": "hsfuse.pair",
    "open_cube": "hsfuse.io",
    "load_srf": "hsfuse.physics",
    "ObservationModel": "hsfuse.physics.model",
    "make_method": "hsfuse.methods",
    "metrics": "hsfuse.metrics",
    "FuseOptions": "hsfuse.core.options",
    "HsfuseError": "hsfuse.core.errors",
}
__all__ = [
    "FuseOptions",
    "HsfuseError",
    "ObservationModel",
    "__version__",
    "assess",
    "fit",
    "fuse",
    "load_model",
    "load_srf",
    "make_method",
    "metrics",
    "open_cube",
    "open_pair",
    "simulate",
]

if TYPE_CHECKING:
    from hsfuse import metrics
    from hsfuse.assessment import assess
    from hsfuse.benchmark.simulate import simulate
    from hsfuse.core.errors import HsfuseError
    from hsfuse.core.options import FuseOptions
    from hsfuse.fusion import fit, fuse, load_model
    from hsfuse.io import open_cube
    from hsfuse.methods import make_method
    from hsfuse.pair import open_pair
    from hsfuse.physics import load_srf
    from hsfuse.physics.model import ObservationModel


def __dir__() -> list[str]:
    return sorted(__all__)


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'hsfuse' has no attribute {name!r}")
    module = import_module(_PUBLIC[name])
    return module if module.__name__ == f"hsfuse.{name}" else getattr(module, name)

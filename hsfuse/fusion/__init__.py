"""The main job: an LRHSI file and an MSI file to an HRHSI file, with a report where one is wanted.

Names are imported when first used: whether an output is finished, or can be made at all, is told without torch.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from hsfuse.core.errors import SettingError
from hsfuse.core.options import FuseOptions
from hsfuse.core.package import when_used

if TYPE_CHECKING:
    from hsfuse.fusion.device import pick_device
    from hsfuse.fusion.model import FittedModel, fit, load_model
    from hsfuse.fusion.result import FusionResult
    from hsfuse.fusion.run import run_fusion
    from hsfuse.io import Paths

__all__ = [
    "FittedModel",
    "FuseOptions",
    "FusionResult",
    "fit",
    "fuse",
    "load_model",
    "pick_device",
    "run_fusion",
]
__getattr__ = when_used(
    "hsfuse.fusion",
    {
        "device": ("pick_device",),
        "model": ("FittedModel", "fit", "load_model"),
        "result": ("FusionResult",),
        "run": ("run_fusion",),
    },
)


def fuse(
    hsi: str | Path,
    msi: Paths,
    srf: str | None = None,
    output: str | Path | None = None,
    *,
    options: FuseOptions | None = None,
    **given: Any,
) -> FusionResult:
    """Fuse an LRHSI and an MSI into an HRHSI file on the MSI's grid over the common extent.

    `msi` is one file or product, or several files that make one image; `srf` names a sensor of the library or a CSV,
    by default "auto": as file or pair tell. The `output` is always wanted.
    `given` are `options` by name: method, mtf, adapt_minutes, tile, dtype, qa and all others of `FuseOptions`, which
    are those of `hsfuse fuse`. The output holds the HSI's bands in use (C, H, W) on H x W MSI pixels. Raises an
    HsfuseError: InputError, SrfError and GridError for files that can't be fused, OutputError for the output,
    ModelError for weights, SettingError for options.

    >>> from hsfuse import fuse, simulate
    >>> pair = simulate(reference, folder, srf="sentinel2", ratio=4)
    >>> result = fuse(pair.lrhsi, pair.msi, "sentinel2", folder / "fused.tif", method="bicubic")
    >>> result.shape, result.valid_share
    ((40, 48, 48), 1.0)
    """
    from hsfuse.fusion.run import run_fusion

    if output is None:
        raise SettingError("the output is missing: wanted fuse(hsi, msi, output=...), or fuse(hsi, msi, srf, output)")
    told = given if srf is None else {**given, "srf": srf}
    return run_fusion(hsi, msi, output, FuseOptions.of(told, options))

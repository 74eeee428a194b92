"""The main job: an LRHSI file and an MSI file to an HRHSI file, with a report where one is wanted."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from hsfuse.fusion.result import FusionResult
from hsfuse.fusion.run import fit_method, run_fusion
from hsfuse.fusion.settings import FuseSettings, pick_device
from hsfuse.io import Paths
from hsfuse.pair import SceneSettings

__all__ = ["FuseSettings", "FusionResult", "fit_method", "fuse", "pick_device", "run_fusion"]

log = logging.getLogger(__name__)


def fuse(
    hsi: str | Path,
    msi: Paths,
    srf: str,
    output: str | Path,
    *,
    settings: FuseSettings | None = None,
    **options: Any,
) -> FusionResult:
    """Fuse an LRHSI and an MSI into an HRHSI file on the MSI's grid over the common extent.

    `msi` is one file or product, or several files that make one image; `srf` names a sensor of the library or a CSV.
    `options` are fields of `FuseSettings` (method, tile, ...) or of what it holds: `SceneSettings` (msi_bands, mtf,
    psf_sigma, phase, ...), `AdaptSettings` (steps, minutes, seed, ...), `OutputSettings` (dtype, bands, qa, ...).
    Raises HsfuseError for everything a caller can cause.
    """
    whole = (settings or FuseSettings(SceneSettings(srf))).with_options({**options, "srf": srf})
    return run_fusion(hsi, msi, output, whole)

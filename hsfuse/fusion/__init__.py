"""The main job: an LRHSI file and an MSI file to an HRHSI file, with a report where one is wanted."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from hsfuse.fusion.result import FusionResult
from hsfuse.fusion.run import fit_fuser, run_fusion
from hsfuse.fusion.settings import FuseSettings, pick_device
from hsfuse.io import Paths
from hsfuse.scene import SceneSettings

__all__ = ["FuseSettings", "FusionResult", "fit_fuser", "fuse", "fuse_and_report", "pick_device", "run_fusion"]

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


def fuse_and_report(
    hsi: str | Path, msi: Paths, output: str | Path, settings: FuseSettings, report: Path | None
) -> FusionResult:
    """`run_fusion`, then an HTML report of the result against its inputs."""
    from hsfuse.assessment import assess
    from hsfuse.report import check_report_path, write_report

    if report is not None:
        several = [msi] if isinstance(msi, str | Path) else list(msi)
        theirs = settings.output.overwrite or (settings.output.resume and Path(output).exists())
        check_report_path(report, theirs, [hsi, *several, output])
    result = run_fusion(hsi, msi, output, settings)
    if report is not None and not settings.dry_run and not (result.done and report.exists()):
        scene = settings.scene
        made = assess(output, hsi=hsi, msi=msi, srf=scene.srf, msi_bands=scene.msi_bands, qa=settings.output.qa)
        told = {text.rstrip(".").lower() for text in result.warnings}
        for warning in made.warnings:
            if warning.rstrip(".").lower() not in told:
                log.warning("%s", warning)
        write_report([made], report, overwrite=settings.output.overwrite)
    return result

"""Fuse a pair of files: open, align, fit, then tile by tile from disk to disk."""

from __future__ import annotations

import logging
import time
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import torch

from hsfuse import __version__
from hsfuse.errors import SettingError
from hsfuse.fusers import Fuser, make_fuser
from hsfuse.fusers.adaptation import AdaptSettings
from hsfuse.fusers.network import DEFAULT_BASE, SRLFFuser
from hsfuse.io import DTYPES, check_output
from hsfuse.nets.scan import backend_name
from hsfuse.patches import sample_scene
from hsfuse.scene import ScenePair, SceneSettings, open_scene
from hsfuse.streaming import plan_tiles, write_fused
from hsfuse.tiling import TileGrid

log = logging.getLogger(__name__)

DEFAULT_TILE = 96
DEFAULT_OVERLAP = 16
#: MSI pixels up to which SRLF-Net averages over all eight symmetries unless told otherwise.
SMALL_SCENE = 1024 * 1024


@dataclass(frozen=True)
class FuseSettings:
    """Everything `fuse` can be told beyond the two files; see the command line's help for each."""

    scene: SceneSettings
    method: str = "srlf"
    model: str | None = None
    base: str = DEFAULT_BASE
    adapt: AdaptSettings = field(default_factory=AdaptSettings)
    save_model: Path | None = None
    tile: int = DEFAULT_TILE
    overlap: int = DEFAULT_OVERLAP
    ensemble: int = 0
    device: str = "auto"
    dtype: str | None = None
    format: str = "auto"
    overwrite: bool = False
    dry_run: bool = False
    command: str = ""


@dataclass(frozen=True)
class FusionResult:
    """Where the fused cube is and how it was made; `provenance` is what the file carries too."""

    output: Path
    shape: tuple[int, int, int]
    valid_share: float
    provenance: dict[str, Any]
    notes: list[str]
    seconds: dict[str, float]
    dry_run: bool = False

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {**asdict(self), "output": str(self.output)}

    def text(self) -> str:
        """For people: a few lines."""
        bands, rows, cols = self.shape
        lines = [f"{self.output}: {bands} bands, {rows} x {cols} pixels" + (" (dry run)" if self.dry_run else "")]
        if self.dry_run:
            return "\n".join([*lines, *(f"  {k}: {v}" for k, v in self.provenance["inputs"].items())])
        method = self.provenance["method"]
        lines += [f"  {key}: {method[key]}" for key in ("method", "base", "weights", "adaptation") if method.get(key)]
        lines.append(f"  valid pixels: {self.valid_share:.1%}")
        lines.append("  seconds: " + ", ".join(f"{what} {s:.1f}" for what, s in self.seconds.items()))
        return "\n".join(lines)


def pick_device(name: str) -> str:
    """`auto` is CUDA where there is one; SettingError when CUDA is asked for and absent, or the name is another one."""
    if name not in ("auto", "cpu", "cuda"):
        raise SettingError(f"there is no device {name!r}; known are auto, cpu, cuda")
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and not torch.cuda.is_available():
        raise SettingError("device cuda was asked for, but this torch sees no CUDA GPU; use --device cpu")
    return name


def run_fusion(hsi: str | Path, msi: str | Path, output: str | Path, settings: FuseSettings) -> FusionResult:
    """Fuse LRHSI and MSI files into an HRHSI file on the MSI's grid; see `hsfuse.fuse`."""
    output, device = Path(output), pick_device(settings.device)
    with open_scene(hsi, msi, settings.scene) as pair:
        _check_outputs(pair, output, settings)
        tiles = plan_tiles(pair, make_fuser(settings.method).requirements.halo, settings.tile, settings.overlap)
        for note in pair.notes:
            log.info("%s", note)
        for what, text in pair.summary().items():
            log.info("%s: %s", what, text)
        if settings.dry_run:
            return _result(pair, output, 0.0, {}, {}, settings, tiles)
        start = time.monotonic()
        fuser = fit_fuser(pair, settings, device)
        fitted = time.monotonic()
        provenance = _provenance(pair, fuser, settings, tiles, device)
        valid = write_fused(
            pair,
            fuser,
            tiles,
            output,
            dtype=settings.dtype or pair.hsi.dtype,
            driver=settings.format,
            overwrite=settings.overwrite,
            provenance=provenance,
            device=device,
        )
        seconds = {"fit": round(fitted - start, 2), "fuse": round(time.monotonic() - fitted, 2)}
        if settings.save_model is not None and isinstance(fuser, SRLFFuser):
            fuser.save(settings.save_model, settings.save_model.stem)
        return _result(pair, output, valid, provenance, seconds, settings, tiles)


def _check_outputs(pair: ScenePair, output: Path, settings: FuseSettings) -> None:
    inputs = [*pair.hsi.files, *pair.msi.files]
    check_output(output, inputs, overwrite=settings.overwrite or settings.dry_run, driver=settings.format)
    dtype = settings.dtype or pair.hsi.dtype
    if dtype not in DTYPES:
        raise SettingError(f"the output can't have the type {dtype}; choose one with --dtype: {', '.join(DTYPES)}")
    if settings.save_model is None:
        return
    if settings.method != "srlf":
        raise SettingError(f"--save-model keeps SRLF-Net's weights, but the method is {settings.method}")
    overwrite = settings.overwrite or settings.dry_run
    # One file, as a GeoTIFF is.
    check_output(settings.save_model, [*inputs, output], overwrite=overwrite, driver="GTiff")


def build_fuser(settings: FuseSettings, pair: ScenePair) -> Fuser:
    """The method by name; SRLF-Net with its weights and settings."""
    if settings.method != "srlf":
        return make_fuser(settings.method)
    weights = Path(settings.model) if settings.model else None
    if weights is not None:
        log.info("weights: %s", weights.name)
    return SRLFFuser(settings.base, weights, settings.adapt, turns=ensemble_turns(settings.ensemble, pair))


def ensemble_turns(asked: int, pair: ScenePair) -> int:
    """How many of the square's eight symmetries are averaged: as asked, else (0) all for scenes that stay quick."""
    if asked:
        return asked
    rows, cols = pair.alignment.full
    return 8 if rows * cols <= SMALL_SCENE else 1


def fit_fuser(pair: ScenePair, settings: FuseSettings, device: str) -> Fuser:
    """Sample the scene and fit the method on it."""
    scene = sample_scene(pair).to(device)
    fuser = build_fuser(settings, pair)
    log.info("scan backend: %s, device: %s", backend_name(torch.device(device)), device)
    return fuser.fit(scene, pair.model.to(device))


def _provenance(pair: ScenePair, fuser: Fuser, settings: FuseSettings, tiles: TileGrid, device: str) -> dict[str, Any]:
    """All that is needed to say how the file was made, and to make it again."""
    scene = settings.scene
    return {
        "hsfuse": __version__,
        "command": settings.command,
        "inputs": pair.summary(),
        "settings": {**asdict(scene), "phase": pair.model.phase},
        "srf": {"name": pair.response.name, "sha256": pair.response.sha256, "bands": list(pair.msi_names)},
        "scale": pair.scale,
        "method": fuser.describe(),
        "adaptation": asdict(fuser.adaptation) if isinstance(fuser, SRLFFuser) else None,
        "tiles": {"stride": tiles.stride, "overlap": tiles.overlap, "halo": tiles.halo},
        "seed": settings.adapt.seed,
        "device": device,
        "scan": backend_name(torch.device(device)),
        "notes": pair.notes,
    }


def _result(
    pair: ScenePair,
    output: Path,
    valid: float,
    provenance: dict[str, Any],
    seconds: dict[str, float],
    settings: FuseSettings,
    tiles: TileGrid,
) -> FusionResult:
    shape = (len(pair.hsi_bands), *pair.alignment.full)
    masked = pair.nonfinite_notes()
    for note in masked:
        log.warning("%s", note)
    notes = [*pair.notes, *masked]
    provenance = provenance or {"inputs": pair.summary(), "tiles": f"{len(tiles)} of {tiles.stride} pixels"}
    return FusionResult(output, shape, valid, provenance, notes, seconds, settings.dry_run)


def fuse(
    hsi: str | Path,
    msi: str | Path,
    srf: str,
    output: str | Path,
    *,
    settings: FuseSettings | None = None,
    **options: Any,
) -> FusionResult:
    """Fuse an LRHSI file and an MSI file into an HRHSI file on the MSI's grid over the common extent.

    `srf` names a sensor of the library or a CSV. `options` are fields of `FuseSettings` (method, tile, ...) or of
    `SceneSettings` (msi_bands, mtf, psf_sigma, phase) or `AdaptSettings` (steps, minutes, seed, ...).
    Raises HsfuseError for everything a caller can cause.
    """
    base = settings or FuseSettings(SceneSettings(srf))
    parts: dict[type, dict[str, Any]] = {FuseSettings: {}, SceneSettings: {}, AdaptSettings: {}}
    for key, value in options.items():
        owner = next((kind for kind in parts if key in {f.name for f in fields(kind)}), None)
        if owner is None:
            raise SettingError(f"fuse has no option {key!r}")
        parts[owner][key] = value
    if parts[FuseSettings].get("save_model") is not None:
        parts[FuseSettings]["save_model"] = Path(parts[FuseSettings]["save_model"])
    scene = replace(base.scene, srf=srf, **parts[SceneSettings])
    whole = replace(base, scene=scene, adapt=replace(base.adapt, **parts[AdaptSettings]), **parts[FuseSettings])
    return run_fusion(hsi, msi, output, whole)


def fuse_and_report(
    hsi: str | Path, msi: str | Path, output: str | Path, settings: FuseSettings, report: Path | None
) -> FusionResult:
    """`run_fusion`, then an HTML report of the result against its inputs."""
    from hsfuse.assessment import assess
    from hsfuse.report import check_report_path, write_report

    if report is not None:
        check_report_path(report, settings.overwrite, [hsi, msi, output])
    result = run_fusion(hsi, msi, output, settings)
    if report is not None and not settings.dry_run:
        scene = settings.scene
        made = assess(output, hsi=hsi, msi=msi, srf=scene.srf, msi_bands=scene.msi_bands)
        write_report([made], report, overwrite=settings.overwrite)
    return result

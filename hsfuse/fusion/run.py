"""Fuse a pair of files: open, align, fit, then tile by tile from disk to disk."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import Any, Literal

import torch

from hsfuse.errors import SettingError
from hsfuse.fusers import Fuser, TrainingScene, make_fuser
from hsfuse.fusers.banded import Banded
from hsfuse.fusers.network import SRLFFuser
from hsfuse.fusion.result import FusionResult, provenance_of
from hsfuse.fusion.settings import FuseSettings, pick_device
from hsfuse.io import Paths
from hsfuse.model_zoo import find_model
from hsfuse.nets.scan import backend_name
from hsfuse.outputs import check_outputs, plan_bands
from hsfuse.patches import sample_scene
from hsfuse.quality import QualityLayers
from hsfuse.scene import ScenePair, open_scene
from hsfuse.streaming import Streamer, plan_tiles
from hsfuse.tilework import TileFuser
from hsfuse.tiling import TileGrid

log = logging.getLogger(__name__)

#: MSI pixels up to which SRLF-Net averages over all eight symmetries unless told otherwise.
SMALL_SCENE = 1024 * 1024


def run_fusion(hsi: str | Path, msi: Paths, output: str | Path, settings: FuseSettings) -> FusionResult:
    """Fuse LRHSI and MSI files into an HRHSI file on the MSI's grid; see `hsfuse.fuse`."""
    output, device = Path(output), pick_device(settings.device)
    with open_scene(hsi, msi, settings.scene) as pair:
        check_outputs(pair, output, settings.output, settings.dry_run, _model_file(settings))
        tiles = plan_tiles(pair, make_fuser(settings.method).requirements.halo, settings.tile, settings.overlap)
        for note in [*pair.notes, *(f"{what}: {text}" for what, text in pair.summary().items())]:
            log.info("%s", note)
        if settings.dry_run:
            plan = {"inputs": pair.summary(), "tiles": f"{len(tiles)} of {tiles.stride} pixels"}
            return _result(pair, output, settings, plan, 0.0, {})
        start = time.monotonic()
        scene = sample_scene(pair).to(device)
        fuser = fit_fuser(pair, scene, settings, device)
        fitted = time.monotonic()
        provenance = provenance_of(pair, fuser, settings, tiles, device)
        provenance["seconds"] = {"fit": round(fitted - start, 2)}
        valid = _stream(pair, fuser, scene, tiles, output, settings, provenance, device)
        if settings.save_model is not None and isinstance(fuser, SRLFFuser):
            fuser.save(settings.save_model, settings.save_model.stem)
        seconds = {"fit": round(fitted - start, 2), "fuse": round(time.monotonic() - fitted, 2)}
        if settings.output.stac:
            _write_item(pair, output, settings, provenance)
        return _result(pair, output, settings, provenance, valid, seconds)


def _model_file(settings: FuseSettings) -> list[Path]:
    if settings.save_model is None:
        return []
    if settings.method != "srlf":
        raise SettingError(f"--save-model keeps SRLF-Net's weights, but the method is {settings.method}")
    return [settings.save_model]


def build_fuser(settings: FuseSettings, pair: ScenePair) -> Fuser:
    """The method by name; SRLF-Net with its weights and settings, as the weights' card says."""
    turns = ensemble_turns(settings.ensemble, pair)
    weights: Path | Literal["auto"] | None = "auto" if settings.model == "auto" else None
    if settings.model not in ("auto", "none"):
        record = find_model(settings.model)
        log.info("weights: %s", record.path)
        if record.card.kind == "bands":
            return Banded(record.path, turns)
        weights = record.path
    return (
        SRLFFuser(settings.base, weights, settings.adapt, turns=turns)
        if settings.method == "srlf"
        else make_fuser(settings.method)
    )


def ensemble_turns(asked: int, pair: ScenePair) -> int:
    """How many of the square's eight symmetries are averaged: as asked, else (0) all for scenes that stay quick."""
    if asked:
        return asked
    rows, cols = pair.alignment.full
    return 8 if rows * cols <= SMALL_SCENE else 1


def fit_fuser(pair: ScenePair, scene: TrainingScene, settings: FuseSettings, device: str) -> Fuser:
    """Fit the method on a sample of the scene."""
    fuser = build_fuser(settings, pair)
    log.info("scan backend: %s, device: %s", backend_name(torch.device(device)), device)
    return fuser.fit(scene, pair.model.to(device))


def _stream(
    pair: ScenePair,
    fuser: Fuser,
    scene: TrainingScene,
    tiles: TileGrid,
    output: Path,
    settings: FuseSettings,
    provenance: dict[str, Any],
    device: str,
) -> float:
    """Fuse all tiles into the outputs; the share of valid pixels."""
    wanted = settings.output.qa is not None
    quality = QualityLayers(fuser, scene, pair.model, settings.adapt.seed) if wanted else None
    work = TileFuser(pair, fuser, device, quality)
    with Streamer(work, tiles, output, settings.output, provenance) as streamer:
        return streamer.run()


def _write_item(pair: ScenePair, output: Path, settings: FuseSettings, provenance: dict[str, Any]) -> None:
    from hsfuse.io.stac import write_item

    acquired = pair.hsi.tags.get("ACQUIRED")
    told = {"hsfuse:version": provenance["hsfuse"], "hsfuse:method": provenance["method"]["method"]}
    spectrum = plan_bands(pair, settings.output).spectrum
    write_item(output, settings.output.format, pair.alignment.hr_grid, spectrum, acquired, told)


def _result(
    pair: ScenePair,
    output: Path,
    settings: FuseSettings,
    provenance: dict[str, Any],
    valid: float,
    seconds: dict[str, float],
) -> FusionResult:
    shape = (len(plan_bands(pair, settings.output).source), *pair.alignment.full)
    masked = pair.nonfinite_notes()
    for note in masked:
        log.warning("%s", note)
    return FusionResult(output, shape, valid, provenance, [*pair.notes, *masked], seconds, settings.dry_run)

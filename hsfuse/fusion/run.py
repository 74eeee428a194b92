"""Fuse a pair of files: open, align, fit, then tile by tile from disk to disk."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from hsfuse.core.notes import Note, note, records, step, texts, warning, without_msi
from hsfuse.core.options import FuseOptions
from hsfuse.fusion.device import pick_device
from hsfuse.fusion.fitting import build_method, fit_method, quick_method
from hsfuse.fusion.forecast import forecast
from hsfuse.fusion.result import FusionResult, method_of, noted, provenance_of
from hsfuse.fusion.resume import finished, fitted_once, full_print, plan_print
from hsfuse.fusion.storage import BandPlan, check_outputs, plan_bands, unsigned
from hsfuse.fusion.stream import Streamer, plan_tiles
from hsfuse.fusion.tiles import TileGrid, TileWorker, give_back_freed_memory
from hsfuse.io import Paths, Storage, kept_method, output_files
from hsfuse.io.finished import damage, files_of, goes_on, request
from hsfuse.io.lock import only_writer
from hsfuse.methods import Method
from hsfuse.pair import ScenePair, open_pair
from hsfuse.pair.sample import Filling, sample_scene
from hsfuse.physics.sample import PairSample
from hsfuse.physics.solve import one_thread
from hsfuse.physics.srf_bands import unseen

log = logging.getLogger(__name__)

#: MSI pixels from which on a scene is tried out at the start of a fusion; what a smaller one takes is soon known.
TRIED_FROM = 1024 * 1024


def run_fusion(hsi: str | Path, msi: Paths, output: str | Path, options: FuseOptions) -> FusionResult:
    """Fuse LRHSI and MSI files into an HRHSI file on the MSI's grid; see `hsfuse.fuse`."""
    output, device, began = Path(output), pick_device(options.device), time.monotonic()
    several = [msi] if isinstance(msi, str | Path) else msi
    with ExitStack() as held:
        with one_thread(), step("opening and estimating"):  # what is estimated is estimated on small samples
            pair = held.enter_context(open_pair(hsi, msi, options))
        seconds = {"estimate": round(time.monotonic() - began, 2)}
        method = build_method(options, pair)
        if not method.uses_msi:
            told = [*pair.notes, note("msi-unused", method=method.id)]
            pair = replace(pair, notes=told, warnings=without_msi(pair.warnings))
        tiles = plan_tiles(pair, method.requirements.halo, options.tile, options.overlap)
        if tiles.overlap < options.overlap:
            overlaps = {"tile": tiles.stride, "overlap": tiles.overlap, "wanted": options.overlap}
            pair.notes.append(note("overlap-cut", **overlaps))
        provenance = provenance_of(pair, options, tiles, device)
        plan = plan_print(pair, output, options, provenance)
        resume, provenance["plan"] = options.resume, plan
        provenance |= request(hsi, several, output, options, (*pair.hsi.files, *pair.msi.files))
        lost: list[Note] = []
        if resume and finished(hsi, several, output, options, plan):
            if not (why := damage(output, options)):
                return FusionResult.of_finished(output, options)
            lost = [warning("output-damaged", name=output.name, why=why)]
            log.warning("%s", lost[0])
        if resume and output.exists():  # damaged, or without what goes with it: made again as it was
            resume = goes_on(output, options)
            options = replace(options, overwrite=True, resume=resume)
        stored = check_outputs(pair, output, options)
        provenance |= noted(pair)
        blind = _tell(pair, plan_bands(pair, options), method.uses_msi, aloud=not options.dry_run)
        told, provenance["said"] = lost + blind, records(blind)  # the file tells of itself, not of an earlier one
        rows, cols = tiles.shape
        tries = options.dry_run or rows * cols > TRIED_FROM
        expected = forecast(
            pair, output, options, stored, tiles, partial(quick_method, options) if tries else None, device
        )
        if options.dry_run:
            record = {"inputs": pair.summary(), "tiles": f"{len(tiles)} of {tiles.stride} pixels"}
            record |= {"forecast": expected.to_dict(), "expected": expected.text()}
            return _result(pair, output, options, record, 0.0, {}, told)
        log.info("to come: %s", expected.text())
        if short := expected.short():
            log.warning("%s", short)
        held.enter_context(only_writer(output_files(output, options.format), files_of(output, options)))
        client = None
        if options.dask is not None:
            from hsfuse.core.cluster import client_soon

            client = held.enter_context(client_soon(options.dask, "hsfuse.fusion.spread"))  # meanwhile
        start = time.monotonic()
        scene = sample_scene(pair).to(device)
        fit = partial(fit_method, method, pair, scene, device)
        if options.reuse_model is not None:
            fit = partial(_reuse, pair, scene, options, device, fit, provenance)
        with step("fitting"):
            method = fitted_once(fit, output, plan if resume else None, device)
        give_back_freed_memory()
        fitted = time.monotonic()
        seconds["fit"] = round(fitted - start, 2)
        provenance |= {**method_of(method, device), "seconds": dict(seconds)}
        fingerprint = full_print(plan, method) if resume else None
        with step("fusing and writing"):
            valid, warnings = _stream(
                pair, method, scene, tiles, output, options, stored, provenance, device, fingerprint, client
            )
        if options.save_model is not None:
            _save_weights(options.save_model, method)
        seconds["fuse"] = round(time.monotonic() - fitted, 2)
        if options.stac:
            _write_item(pair, output, options, stored, provenance)
        kept_method(output).unlink(missing_ok=True)
        return _result(pair, output, options, provenance, valid, seconds, [*told, *warnings])


def _tell(pair: ScenePair, plan: BandPlan, uses_msi: bool, aloud: bool) -> list[Note]:
    """Say what was decided; at the level of details what only matters to whoever looks for a fault, and, unless
    `aloud`, what the result says.

    What is to be told of the bands written, which isn't the pair's, comes back.
    """
    kept = plan.source[plan.source >= 0]
    nm = np.asarray(pair.spectrum.wavelengths_nm)
    blind = unseen(nm[kept], pair.model.srf.cpu().numpy()[:, kept]) if uses_msi else []
    for doubt in (*pair.warnings, *blind):
        log.warning("%s", doubt)
    for found in pair.notes:
        log.info("%s", found)
    for what, text in pair.summary().items():
        log.log(logging.INFO if aloud and what in ("HSI", "MSI", "grid") else logging.DEBUG, "%s: %s", what, text)
    return blind


def _save_weights(path: Path, method: Method) -> None:
    """Keep the weights that a method has fitted to the scene; one with weights for all scenes has none of its own."""
    from hsfuse.nets.weights import save_checkpoint

    own = method.weights_of_scene(path.stem)
    if own is not None:
        save_checkpoint(path, *own)


def _reuse(
    pair: ScenePair,
    scene: PairSample,
    options: FuseOptions,
    device: str,
    fit: Callable[[], Method],
    provenance: dict[str, Any],
) -> Method:
    """A method that was fitted to another scene where there is one, else to this; the provenance says which."""
    from hsfuse.fusion.model import reuse

    gains = Filling.of(scene, pair.model).gains
    assert gains is not None
    method, provenance["fitted"] = reuse(pair, options, device, fit, gains)
    return method


def _stream(
    pair: ScenePair,
    fuser: Method,
    scene: PairSample,
    tiles: TileGrid,
    output: Path,
    options: FuseOptions,
    stored: Storage,
    provenance: dict[str, Any],
    device: str,
    fingerprint: str | None,
    client: Callable[[], Any] | None,
) -> tuple[float, list[Note]]:
    """Fuse all tiles into the outputs; the share of valid pixels, and what is to be said of the writing."""
    quality = None
    if options.qa is not None:
        from hsfuse.fusion.quality import QualityLayers

        quality = QualityLayers(fuser, scene, pair.model, options.seed)
    clip = options.clip == "zero" or unsigned(pair, options)
    work = TileWorker(pair, fuser, device, quality, Filling.of(scene, pair.model), clip)
    with Streamer(work, tiles, output, options, stored, provenance, fingerprint, client) as streamer:
        return streamer.run(), streamer.warnings


def _write_item(
    pair: ScenePair, output: Path, options: FuseOptions, stored: Storage, provenance: dict[str, Any]
) -> None:
    from hsfuse.io.stac import Described, write_item

    told = Described(
        pair.alignment.hr_grid,
        stored,
        plan_bands(pair, options).spectrum,
        pair.hsi.tags.get("ACQUIRED"),
        {"hsfuse:version": provenance["hsfuse"], "hsfuse:method": provenance["method"]["method"]},
        {"HSI": pair.hsi.path, "MSI": pair.msi.path},
        options.qa,
    )
    write_item(output, told)


def _result(
    pair: ScenePair,
    output: Path,
    options: FuseOptions,
    provenance: dict[str, Any],
    valid: float | None,
    seconds: dict[str, float],
    warnings: Sequence[Note] = (),
) -> FusionResult:
    shape = (len(plan_bands(pair, options).source), *pair.alignment.full)
    masked = pair.nonfinite_notes()
    for found in masked:
        log.warning("%s", found)
    notes, doubts = [*pair.notes, *masked], [*pair.warnings, *warnings]
    told, all_told = (texts(notes), texts(doubts)), (*notes, *doubts)
    shares = pair.masked() if valid is not None and valid < 1 and not options.dry_run else {}
    return FusionResult(
        output, shape, valid, provenance, *told, seconds, options.dry_run, records=all_told, masked=shares
    )

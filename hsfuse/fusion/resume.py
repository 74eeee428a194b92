"""Going on after an interruption: what an output must agree in, finished or not, and the fitted network beside it."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch

from hsfuse.core.errors import InputError, ModelError
from hsfuse.core.options import FuseOptions
from hsfuse.io import kept_network, open_cube, output_files, read_provenance
from hsfuse.io.stac import item_path
from hsfuse.methods import Method
from hsfuse.methods.adapt import AdaptationLog, Stage
from hsfuse.methods.srlf import SRLF
from hsfuse.nets.weights import ModelCard, read_card, save_checkpoint
from hsfuse.pair import ScenePair

log = logging.getLogger(__name__)

#: What of the provenance counts; the clock doesn't.
TOLD = ("hsfuse", "settings", "srf", "scale", "fusing", "weights_sha256", "tiles", "seed", "device")


def plan_print(pair: ScenePair, options: FuseOptions, provenance: Mapping[str, Any]) -> str:
    """Fingerprint of inputs and settings, known before anything is fitted."""
    inputs = [_file_print(file) for file in (*pair.hsi.files, *pair.msi.files) if file.exists()]
    told = {key: provenance[key] for key in TOLD}
    return _digest(json.dumps([inputs, told, options.of_groups("output")], default=str, sort_keys=True).encode())


def finished(output: Path, options: FuseOptions, plan: str) -> dict[str, Any] | None:
    """The provenance of an output that is whole, as is all that goes with it; None where this plan has none."""
    beside = [options.qa, options.save_model, item_path(output) if options.stac else None]
    files = output_files(output, options.format)
    if not all(path.exists() for path in (*files, *filter(None, beside))):
        return None
    try:
        with open_cube(files[0]) as reader:
            provenance = read_provenance(reader.tags)
    except InputError:
        return None
    return provenance if provenance.get("plan") == plan else None


def full_print(plan: str, fuser: Method) -> str:
    """Fingerprint of an output: of its plan and of the network as fitted, which the clock may have ended early."""
    net = getattr(fuser, "net", None)
    weights = [] if net is None else [t.detach().cpu().contiguous() for t in net.state_dict().values()]
    return _digest(plan.encode(), *(t.reshape(-1).view(torch.uint8).numpy().tobytes() for t in weights))


def fit_once(fit: Callable[[FuseOptions], Method], options: FuseOptions, output: Path, plan: str) -> Method:
    """What `fit` makes of the options; SRLF-Net, once trained, is kept beside the output until that is whole.

    Where a run with the same plan has kept its network, that one is taken and not trained again: a training that ends
    by the clock would end elsewhere, and tiles of two networks don't belong in one cube.
    """
    path = kept_network(output)
    kept = _kept(path, plan)
    if kept is not None:
        try:
            fuser = fit(replace(options, model=str(path), adapt_steps=0))
        except ModelError:
            log.warning("%s can't be read: the network is fitted again", path)
        else:
            return _as_it_was(fuser, kept)
    fuser = fit(options)
    if isinstance(fuser, SRLF) and fuser.adaptation.steps:
        _keep(fuser, path, plan)
    return fuser


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes."""
    return _digest(path.read_bytes())


def _keep(fuser: SRLF, path: Path, plan: str) -> None:
    card = None if fuser.card is None else fuser.card.to_json()
    fuser.save(path, fuser.card.name if fuser.card else "from scratch")
    own = read_card(path)
    save_checkpoint(path, replace(own, extra={**own.extra, "plan": plan, "card": card}), dict(fuser.net.state_dict()))


def _kept(path: Path, plan: str) -> ModelCard | None:
    """The card of the network that a run with the same plan has kept."""
    try:
        card = read_card(path)
    except ModelError:
        return None
    return card if card.extra.get("plan") == plan else None


def _as_it_was(fuser: Method, kept: ModelCard) -> Method:
    """With the record of the run that trained the network in place of the reading's own."""
    assert isinstance(fuser, SRLF)
    log.info("SRLF-Net: as the interrupted run has trained it")
    record = kept.extra["adaptation"]
    fuser.adaptation = AdaptationLog(**{**record, "stages": [Stage(**stage) for stage in record["stages"]]})
    fuser.card = None if kept.extra["card"] is None else ModelCard.from_json(kept.extra["card"])
    return fuser


def _file_print(path: Path) -> tuple[str, int, int]:
    """Name, size and time of the last change; of a folder (Zarr) those of all that is in it."""
    files = [path, *sorted(path.rglob("*"))] if path.is_dir() else [path]
    stats = [file.stat() for file in files]
    return str(path), sum(stat.st_size for stat in stats), max(stat.st_mtime_ns for stat in stats)


def _digest(*parts: bytes) -> str:
    digest = sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest()

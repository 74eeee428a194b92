"""Going on after an interruption: what an output must agree in, finished or not, and the fitted method beside it."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

from hsfuse.core.errors import InputError, ModelError
from hsfuse.core.options import FuseOptions
from hsfuse.io import kept_method, open_cube, output_files, read_provenance
from hsfuse.io.stac import item_path
from hsfuse.methods import Method
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


def full_print(plan: str, method: Method) -> str:
    """Fingerprint of an output: of its plan and of the method as fitted, which the clock may have ended early."""
    return _digest(plan.encode(), method.state().digest().encode())


def fitted_once(fit: Callable[[], Method], output: Path, plan: str | None, device: str) -> Method:
    """What `fit` makes; with a `plan` it is kept beside the output until that is whole.

    Where a run with the same plan has kept its method, that one is taken and not fitted again: a training that ends
    by the clock would end elsewhere, and tiles of two networks don't belong in one cube.
    """
    if plan is None:
        return fit()
    from hsfuse.methods.state import read_state, restore_method, write_state

    path = kept_method(output)
    if path.exists():
        try:
            state, about = read_state(path)
            if about.get("plan") == plan:
                log.info("the method: as the interrupted run has fitted it")
                return restore_method(state, device)
        except ModelError as error:
            log.warning("%s: the method is fitted again", error)
    fitted = fit()
    write_state(path, fitted.state(), {"plan": plan})
    return fitted


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes."""
    return _digest(path.read_bytes())


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

"""Going on after an interruption: what an output must agree in, finished or not, and the fitted method beside it."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hsfuse.core.errors import ModelError
from hsfuse.core.options import FuseOptions
from hsfuse.io import kept_method
from hsfuse.io.finished import file_print, files_of, provenance_in
from hsfuse.methods import Method

if TYPE_CHECKING:  # what is finished is told without torch
    from hsfuse.methods.state import State
    from hsfuse.pair import ScenePair

log = logging.getLogger(__name__)

#: What of the provenance counts; the clock doesn't.
TOLD = ("hsfuse", "settings", "srf", "scale", "fusing", "weights_sha256", "tiles", "seed", "device")


def plan_print(pair: ScenePair, options: FuseOptions, provenance: Mapping[str, Any]) -> str:
    """Fingerprint of inputs and settings, known before anything is fitted."""
    inputs = [file_print(file) for file in (*pair.hsi.files, *pair.msi.files) if file.exists()]
    told = {key: provenance[key] for key in TOLD} | {"reuse_model": options.reuse_model}
    return _digest(json.dumps([inputs, told, options.of_groups("output")], default=str, sort_keys=True).encode())


def finished(output: Path, options: FuseOptions, plan: str) -> dict[str, Any] | None:
    """The provenance of an output that is whole, as is all that goes with it; None where this plan has none."""
    if not all(path.exists() for path in files_of(output, options)):
        return None
    provenance = dict(provenance_in(output, options))
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
                if about.get("checksum") != _checksum(state):
                    raise ModelError(f"{path} isn't what was kept there: it is damaged")
                log.info("the method: as the interrupted run has fitted it")
                return restore_method(state, device)
        except ModelError as error:
            log.warning("%s: the method is fitted again", error)
    fitted = fit()
    state = fitted.state()
    write_state(path, state, {"plan": plan, "checksum": _checksum(state)})
    return fitted


def _checksum(state: State) -> str:
    """Of all that is kept of a method, what counts for no fingerprint too."""
    return _digest(json.dumps(state.values, sort_keys=True).encode(), state.digest().encode())


def _digest(*parts: bytes) -> str:
    digest = sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest()

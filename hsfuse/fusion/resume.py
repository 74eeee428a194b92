"""Going on after an interruption: what an output must agree in, finished or not, and the fitted method beside it."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hsfuse.core.errors import ModelError
from hsfuse.core.options import FuseOptions
from hsfuse.io import kept_method
from hsfuse.io.finished import (
    answers,
    check_unchanged,
    contents,
    file_print,
    files_of,
    provenance_in,
    with_companions,
)
from hsfuse.methods import Method

if TYPE_CHECKING:  # what is finished is told without torch
    from hsfuse.methods.state import State
    from hsfuse.pair import ScenePair

log = logging.getLogger(__name__)

#: What of the provenance counts; the clock doesn't.
TOLD = ("hsfuse", "settings", "srf", "scale", "fusing", "weights_sha256", "tiles", "seed", "device")


def plan_print(pair: ScenePair, output: Path, options: FuseOptions, provenance: Mapping[str, Any]) -> str:
    """Fingerprint of inputs, settings and the files that these name, known before anything is fitted."""
    inputs = [file_print(file) for file in with_companions((*pair.hsi.files, *pair.msi.files), output, options)]
    told = {key: provenance[key] for key in TOLD} | {"reuse_model": options.reuse_model, "contents": contents(options)}
    return _digest(json.dumps([inputs, told, options.of_groups("output")], default=str, sort_keys=True).encode())


def finished(hsi: str | Path, msi: Sequence[str | Path], output: Path, options: FuseOptions, plan: str) -> bool:
    """Whether an output is whole, as is all that goes with it, and by this plan; the run's traces are gone then.

    OutputError, which says what has changed, where another is there and isn't to be replaced.
    """
    provenance = provenance_in(output, options)
    same = provenance.get("plan") == plan or answers(provenance, hsi, msi, output, options)
    if same and all(path.exists() for path in files_of(output, options)):
        kept_method(output).unlink(missing_ok=True)
        return True
    check_unchanged(hsi, msi, output, options)
    return False


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

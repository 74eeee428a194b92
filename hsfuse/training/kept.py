"""Results of classical methods, kept on disk, so that a run that starts again needn't wait for them."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from hsfuse.core.package import __version__
from hsfuse.methods import Method
from hsfuse.physics.model import ObservationModel
from hsfuse.training.sample import Reference

log = logging.getLogger(__name__)

Tensors = dict[str, Tensor]


def kept(path: Path | None, make: Callable[[], Tensors]) -> Tensors:
    """The tensors at `path`, else what `make` gives, put there whole; a file that can't be read counts as absent."""
    if path is None:
        return make()
    if path.is_file():
        try:
            return load_file(path)
        except (OSError, SafetensorError) as error:
            log.warning("%s can't be read (%s) and is made again", path, error)
    found = make()
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    save_file({name: tensor.contiguous() for name, tensor in found.items()}, part)
    part.replace(path)
    return found


def digest(fuser: Method, lrhsi: Tensor, msi: Tensor, model: ObservationModel) -> str:
    """What the result of a method that isn't fitted yet depends on, as 16 letters: its settings and hsfuse's, too."""
    settings = json.dumps([fuser.id, vars(fuser)], default=_settings, sort_keys=True)
    arrays = (lrhsi.numpy(), msi.numpy(), model.srf.numpy(), model.psf.kernel)
    return _letters(settings.encode(), model.describe().encode(), *(a.tobytes() for a in arrays))


def references_digest(references: Iterable[Reference], *settings: Any) -> str:
    """What draws from references depend on, as 16 letters."""
    arrays = [a for r in references for a in (r.data, r.wavelengths_nm, np.float64(r.weight))]
    return _letters(repr(settings).encode(), *(np.ascontiguousarray(a).tobytes() for a in arrays))


def _letters(*parts: bytes) -> str:
    found = hashlib.sha256(__version__.encode())
    for part in parts:
        found.update(part)
    return found.hexdigest()[:16]


def _settings(part: Any) -> Any:
    """Settings of a method inside a method; anything else by its text."""
    return vars(part) if hasattr(part, "__dict__") else str(part)

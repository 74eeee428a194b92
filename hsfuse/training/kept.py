"""Results of classical methods, kept on disk, so that a run that starts again needn't wait for them."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hsfuse import __version__
from hsfuse.fusers import Fuser
from hsfuse.physics import ObservationModel

log = logging.getLogger(__name__)


def kept(path: Path | None, make: Callable[[], Tensor]) -> Tensor:
    """The array at `path`, else what `make` gives, put there whole; a file that can't be read counts as absent."""
    if path is None:
        return make()
    if path.is_file():
        try:
            return torch.from_numpy(np.load(path))
        except (OSError, ValueError, EOFError) as error:
            log.warning("%s can't be read (%s) and is made again", path, error)
    found = make()
    path.parent.mkdir(exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    with part.open("wb") as file:
        np.save(file, found.numpy())
    part.replace(path)
    return found


def digest(fuser: Fuser, lrhsi: Tensor, msi: Tensor, model: ObservationModel) -> str:
    """What the result of a method that isn't fitted yet depends on, as 16 letters: its settings and hsfuse's, too."""
    settings = json.dumps([fuser.name, vars(fuser)], default=_settings, sort_keys=True)
    arrays = (lrhsi.numpy(), msi.numpy(), model.srf.numpy(), model.psf.kernel)
    parts = (__version__.encode(), settings.encode(), model.describe().encode(), *(a.tobytes() for a in arrays))
    return hashlib.sha256(b"".join(parts)).hexdigest()[:16]


def _settings(part: Any) -> Any:
    """Settings of a method inside a method; anything else by its text."""
    return vars(part) if hasattr(part, "__dict__") else str(part)

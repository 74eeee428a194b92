"""Files that a result depends on, told apart by name, size and time, so that another file of a name is another one."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from hsfuse.errors import ModelError
from hsfuse.io.envi import siblings


def stamp(path: Path) -> list[Any]:
    """A name; of a file with size and time, of an ENVI header and its data file both, of a folder a digest of all."""
    if path.is_dir():
        files = [_stamp(file) for file in sorted(path.rglob("*")) if file.is_file()]
        return [str(path.resolve()), len(files), digest(files)]
    if not path.is_file():
        return [str(path)]
    own, *others = siblings(path)
    return [*_stamp(own), *map(_stamp, others)]


def _stamp(file: Path) -> list[Any]:
    facts = file.stat()
    return [str(file.resolve()), facts.st_size, facts.st_mtime_ns]


def weights(method: str, model: str, scale: int) -> list[Any]:
    """The stamps of the trained weights that a method may use: of those named, else of all that fit kind and ratio."""
    from hsfuse.model_zoo import WEIGHTED, find_model, list_models

    if method not in WEIGHTED or model == "none":
        return []
    if model == "auto":
        kind = "bands" if method == "srlf-bands" else "any-sensor"
        return [stamp(r.path) for r in list_models() if (r.card.kind, r.card.scale) == (kind, scale)]
    try:
        return [stamp(find_model(model).path)]
    except ModelError:
        return [model]


def digest(facts: Any) -> str:
    """16 hexadecimal digits."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]

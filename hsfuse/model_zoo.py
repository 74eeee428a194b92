"""The weights that come with hsfuse, chosen by their cards."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from hsfuse.errors import ModelError
from hsfuse.fusers.card import ModelCard, read_card
from hsfuse.resources import data_folder

#: Methods that hold trained weights.
WEIGHTED = ("srlf", "srlf-any", "srlf-bands")


@dataclass(frozen=True)
class ModelRecord:
    """One checkpoint of the collection: its file and its card."""

    path: Path
    card: ModelCard


def list_models(folder: Path | None = None) -> list[ModelRecord]:
    """Every checkpoint of the collection (or of `folder`), by name; ModelError for one whose card can't be read."""
    where = data_folder("models") if folder is None else folder
    return [ModelRecord(path, read_card(path)) for path in sorted(where.glob("*.safetensors"))]


def find_model(name: str) -> ModelRecord:
    """The checkpoint of that name, or the file at that path; ModelError when there is neither."""
    if Path(name).suffix == ".safetensors":
        return ModelRecord(Path(name), read_card(Path(name)))
    known = {record.path.stem: record for record in list_models()}
    if name not in known:
        raise ModelError(
            f"there are no weights called {name!r}; known are {', '.join(known) or 'none'}, or give a path"
        )
    return known[name]


def find_weights(scale: int, channels: int, base: str) -> Path | None:
    """Weights for any sensor at a scale ratio, subspace dimension and base; None when the collection has none."""
    for record in list_models():
        card = record.card
        if (card.kind, card.scale, card.config.channels, card.base) == ("any-sensor", scale, channels, base):
            return record.path
    return None

"""Model cards: all that a checkpoint is, kept in the safetensors header; nothing is executed on load."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hsfuse.core.errors import ModelError
from hsfuse.core.package import __version__, data_folder
from hsfuse.nets.tensors import read_tensors, write_tensors

if TYPE_CHECKING:  # cards are read without torch
    from torch import Tensor

    from hsfuse.nets.srlf import SRLFNet

FORMAT = "hsfuse-srlf-1"
KINDS = {
    "any-sensor": "weights for any sensor",
    "scene": "weights of one scene",
    "bands": "weights for one pair of sensors",
}


@dataclass(frozen=True)
class SRLFConfig:
    """Sizes of the network: feature `channels` C, `guide` bands beside the base, `scale` s, and published settings."""

    channels: int
    guide: int
    scale: int
    stages: int = 4
    keep: float = 0.3  # lambda of eq. 4: at most this share of the points is re-learned
    dropout: float = 0.3
    expand: int = 2


@dataclass(frozen=True)
class ModelCard:
    """What a checkpoint is and what it was made from; `extra` holds what only people read (scores, terms, notes)."""

    name: str
    config: SRLFConfig
    scale: int
    phase: str = "any"  # "any", or the phase that it was trained for
    base: str = "blend"
    kind: str = "any-sensor"  # "any-sensor", "scene" (one scene's subspace) or "bands" (no subspace, fixed bands)
    psf_sigma: tuple[float, float] = (0.0, 0.0)  # range in HR pixels seen in training, relative to the scale
    trained_on: str = ""
    terms: str = ""
    seed: int = 0
    steps: int = 0
    version: str = __version__
    extra: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> str:
        """One JSON object."""
        return json.dumps({"format": FORMAT, **asdict(self)})

    @classmethod
    def from_json(cls, text: str) -> ModelCard:
        """Read back; ModelError when it isn't a card of this format."""
        try:
            raw = json.loads(text)
            if raw.pop("format") != FORMAT:
                raise ModelError(f"the checkpoint's format is unknown, wanted {FORMAT}")
            raw["config"] = SRLFConfig(**raw["config"])
            raw["psf_sigma"] = tuple(raw["psf_sigma"])
            return cls(**{f.name: raw[f.name] for f in fields(cls) if f.name in raw})
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ModelError(f"the checkpoint's card can't be read ({error})") from error


def save_checkpoint(path: Path, card: ModelCard, tensors: dict[str, Tensor]) -> None:
    """Write weights and card, complete or not at all."""
    write_tensors(path, tensors, {"card": card.to_json()})


def load_checkpoint(path: Path) -> tuple[ModelCard, dict[str, Tensor]]:
    """Card and tensors; ModelError when the file isn't an hsfuse checkpoint."""
    return _open(path, with_tensors=True)


def load_net(
    path: Path,
    kind: str,
    guide: Callable[[ModelCard, dict[str, Tensor]], int],
    others: str = "",
    needed: Iterable[str] = (),
) -> tuple[ModelCard, SRLFNet, dict[str, Tensor]]:
    """Card, network, and the tensors named `others`NAME that aren't the network's, by NAME.

    ModelError unless the weights are of that kind, have all tensors, the `needed` ones too, and as many guide channels
    as `guide` says of card and other tensors.
    """
    card, tensors = load_checkpoint(path)
    if card.kind != kind:
        raise ModelError(f"the weights {card.name!r} are of kind {card.kind!r}, wanted {KINDS[kind]}")
    rest = {key: value for key, value in tensors.items() if not others or not key.startswith(others)}
    own = {key.removeprefix(others): value for key, value in tensors.items() if key not in rest}
    if lacking := [f"{others}{name}" for name in needed if name not in own]:
        raise ModelError(f"{path}: the tensors {', '.join(lacking)} are missing, wanted {KINDS[kind]}")
    if (have := card.config.guide) != (want := guide(card, own)):
        raise ModelError(f"the weights {card.name!r} have {have} guide channels, wanted {want} for {KINDS[kind]}")
    return card, network_of(path, card, rest), own


def network_of(path: Path, card: ModelCard, tensors: dict[str, Tensor]) -> SRLFNet:
    """The network that a card describes with these tensors; ModelError when they aren't its own."""
    from hsfuse.nets.srlf import SRLFNet

    try:
        net = SRLFNet(card.config)
        net.load_state_dict(tensors)
    except (RuntimeError, TypeError, ValueError, ZeroDivisionError) as error:
        raise ModelError(f"{path}: the weights don't fit the card's configuration") from error
    return net.eval()


def read_card(path: Path) -> ModelCard:
    """The card alone, without reading the weights; ModelError as `load_checkpoint`."""
    return _open(path, with_tensors=False)[0]


def _open(path: Path, with_tensors: bool) -> tuple[ModelCard, dict[str, Tensor]]:
    header, tensors = read_tensors(path, with_tensors)
    if "card" not in header:
        raise ModelError(f"{path}: no hsfuse card in its header; make checkpoints with --save-model or hsfuse train")
    return ModelCard.from_json(header["card"]), tensors


def check_card(card: ModelCard, scene: dict[str, int | str]) -> None:
    """ModelError that lists what differs between weights and a scene's `scale`, `base` and so on (see `_facts`)."""
    if card.kind == "bands":
        raise ModelError(f"the weights {card.name!r} are for one pair of sensors; use --method srlf-bands")
    facts = _facts(card)
    wrong = [
        f"{what}: weights {facts[what]}, scene {want}"
        for what, want in scene.items()
        if facts[what] not in ("any", want)
    ]
    if wrong:
        raise ModelError(f"the weights {card.name!r} don't fit this scene ({'; '.join(wrong)})")


def _facts(card: ModelCard) -> dict[str, int | str]:
    """What of a card must fit a scene, by the name that people read."""
    return {
        "scale": card.scale,
        "subspace dimension": card.config.channels,
        "guide channels": card.config.guide,
        "phase": card.phase,
        "base": card.base,
    }


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

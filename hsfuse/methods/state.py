"""A fitted method as data: `values` that JSON can hold and `arrays` by name; reading them executes nothing.

What is kept of an object are its attributes, apart from those whose names begin with _: caches, made again when they
are wanted. Attributes are numbers, texts, paths, tensors, NumPy arrays, lists, tuples and dictionaries of such, and
objects of the classes in `PARTS`. What several objects share is kept once and shared again. Restored, a method gives
the same bits on the same machine: arrays keep type, values, and the order of their axes in memory.

`write_state` and `read_state` keep a state in one file: for resuming; a worker is sent the `State` itself.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass
from importlib import import_module
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from hsfuse.core.errors import ModelError
from hsfuse.core.package import __version__
from hsfuse.methods import METHODS, Method, method_class
from hsfuse.nets.tensors import read_tensors, write_tensors
from hsfuse.physics.model import ObservationModel

if TYPE_CHECKING:
    from hsfuse.nets.srlf import SRLFConfig

FORMAT = "hsfuse-method-1"
#: Classes that fitted methods are made of, beside the methods of `METHODS`: name -> module.
PARTS: dict[str, str] = {
    "AdaptationLog": "hsfuse.methods.adapt",
    "AdaptiveRegression": "hsfuse.methods.conic",
    "AffineMap": "hsfuse.methods.problem",
    "Agreement": "hsfuse.methods.agreement",
    "BandFrame": "hsfuse.methods.srlf_bands",
    "BicubicSubspace": "hsfuse.methods.regression",
    "ConditionedFrame": "hsfuse.methods.conditioning",
    "Consistency": "hsfuse.methods.consistency",
    "EnsembleGLP": "hsfuse.methods.regression",
    "ExactFit": "hsfuse.methods.srlf_bands",
    "FusionProblem": "hsfuse.methods.problem",
    "GuidedAxes": "hsfuse.methods.blend",
    "SceneRegression": "hsfuse.methods.conditioning",
    "ModelCard": "hsfuse.nets.weights",
    "ObservationModel": "hsfuse.physics.model",
    "Psf": "hsfuse.physics.model",
    "ResidualFilter": "hsfuse.methods.residual",
    "SRLFConfig": "hsfuse.nets.srlf",
    "SRLFNet": "hsfuse.nets.srlf",
    "SceneFrame": "hsfuse.methods.frame",
    "SpectralSubspace": "hsfuse.methods.subspace",
    "Stage": "hsfuse.methods.adapt",
    "SylvesterSolver": "hsfuse.methods.variational",
    "Unmixed": "hsfuse.methods.blend",
}


@dataclass(frozen=True)
class State:
    """A fitted method: `values` in JSON's types, `arrays` on the CPU by the dotted names of what they are."""

    values: dict[str, Any]
    arrays: dict[str, Tensor]

    def digest(self) -> str:
        """SHA-256 of the arrays: what the method gives; how long it took to fit isn't part of it."""
        found = hashlib.sha256()
        for name, array in sorted(self.arrays.items()):
            found.update(name.encode())
            found.update(array.reshape(-1).view(torch.uint8).numpy().tobytes())
        return found.hexdigest()


def state_of(method: Method) -> State:
    """The state of a fitted method; TypeError where it holds an object that `PARTS` doesn't name."""
    packer = _Packer()
    kept = {name: packer.pack(value, name) for name, value in _attributes(method).items()}
    return State({"format": FORMAT, "hsfuse": __version__, "method": method.id, "kept": kept}, packer.arrays)


def restored(cls: type[Any], state: State, device: torch.device | str = "cpu") -> Any:
    """A method of that class as `state_of` has kept it; ModelError for what it can't have kept."""
    try:
        unpacker = _Unpacker(state.arrays, torch.device(device))
        return unpacker.filled(cls, state.values["kept"], "")
    except (AttributeError, KeyError, TypeError, ValueError, RuntimeError) as error:
        what = f"{type(error).__name__}: {error}".splitlines()[0]
        raise ModelError(f"the state of the method {cls.id} can't be read ({what}): fit it again") from error


def restore_method(state: State, device: torch.device | str = "cpu") -> Method:
    """The fitted method of a state, whichever it is, on a device; ModelError for one of another version."""
    made_by = state.values.get("hsfuse")
    if state.values.get("format") != FORMAT or made_by != __version__:
        raise ModelError(f"the fitted method is of hsfuse {made_by}, this is {__version__}: fit it again")
    return method_class(str(state.values.get("method"))).restore(state, device)


def write_state(path: Path, state: State, about: Mapping[str, str] | None = None) -> None:
    """Keep a state in a safetensors file, with the texts `about` it, whole or not at all."""
    write_tensors(path, state.arrays, {**(about or {}), "state": json.dumps(state.values, allow_nan=False)})


def read_state(path: Path) -> tuple[State, dict[str, str]]:
    """What `write_state` has kept: the state, and the texts about it. ModelError for any other file."""
    about, arrays = read_tensors(path)
    try:
        values = json.loads(about.pop("state"))
    except (KeyError, ValueError) as error:
        raise ModelError(f"{path}: no fitted method is kept in it") from error
    return State(values, arrays), about


def _attributes(value: Any) -> dict[str, Any]:
    """What is kept of an object."""
    if value.__class__.__name__ == "ObservationModel":
        return {name: getattr(value, name) for name in ("srf", "psf", "ratio", "phase", "msi_weights")}
    if value.__class__.__name__ == "SRLFNet":
        return {"cfg": value.cfg, "tensors": dict(value.state_dict())}
    names = [f.name for f in fields(value)] if is_dataclass(value) else vars(value)
    return {name: getattr(value, name) for name in names if not name.startswith("_")}


class _Packer:
    """Turns what an object holds into JSON's types, and its arrays into `arrays`."""

    def __init__(self) -> None:
        self.arrays: dict[str, Tensor] = {}
        self._seen: dict[int, tuple[str, Any]] = {}  # with the objects: an id is free again when its object is gone

    def pack(self, value: Any, at: str) -> Any:
        """One value, whose name is `at`."""
        if value is None or isinstance(value, bool | int | str):
            return value
        if isinstance(value, float):
            return value if isfinite(value) else {"float": str(value)}
        if isinstance(value, Path):
            return {"path": str(value)}
        if isinstance(value, list | tuple):
            return {type(value).__name__: [self.pack(one, f"{at}.{i}") for i, one in enumerate(value)]}
        if isinstance(value, dict):
            return {"dict": {key: self.pack(one, f"{at}.{key}") for key, one in value.items()}}
        if id(value) in self._seen:
            return {"same": self._seen[id(value)][0]}
        self._seen[id(value)] = at, value
        if isinstance(value, Tensor | np.ndarray):
            return self._array(value, at)
        name = type(value).__name__
        if name not in _modules() or _class(name) is not type(value):
            raise TypeError(f"{at} is a {type(value)}: name its class in PARTS of hsfuse/methods/state.py")
        return {"is": name, "kept": {key: self.pack(one, f"{at}.{key}") for key, one in _attributes(value).items()}}

    def _array(self, value: Any, at: str) -> dict[str, Any]:
        tensor = torch.as_tensor(value).detach().cpu()
        order = sorted(range(tensor.dim()), key=tensor.stride, reverse=True)
        # By the order of its axes a product with it takes one way or another, whose rounding differs.
        self.arrays[at] = tensor.permute(order).clone(memory_format=torch.contiguous_format)
        kept: dict[str, Any] = {"array": at}
        if order != sorted(order):
            kept["order"] = order
        return kept | ({"numpy": True} if isinstance(value, np.ndarray) else {})


class _Unpacker:
    """The way back; only classes that `PARTS` and `METHODS` name are made, and without running their constructors."""

    def __init__(self, arrays: Mapping[str, Tensor], device: torch.device) -> None:
        self.arrays, self.device = arrays, device
        self._made: dict[str, Any] = {}

    def unpack(self, kept: Any, at: str) -> Any:
        """One value, whose name is `at`."""
        if not isinstance(kept, dict):
            return kept
        match kept:
            case {"same": name}:
                return self._made[name]
            case {"array": name}:
                made = self._array(kept, name)
            case {"is": name, "kept": parts}:
                made = self.filled(_class(name), parts, f"{at}.")
            case _:
                ((kind, content),) = kept.items()
                return self._plain(kind, content, at)
        self._made[at] = made
        return made

    def _plain(self, kind: str, content: Any, at: str) -> Any:
        if kind == "dict":
            return {key: self.unpack(one, f"{at}.{key}") for key, one in content.items()}
        if kind in ("list", "tuple"):
            made = [self.unpack(one, f"{at}.{i}") for i, one in enumerate(content)]
            return made if kind == "list" else tuple(made)
        return {"float": float, "path": Path}[kind](content)

    def _array(self, kept: dict[str, Any], name: str) -> Any:
        # A copy in memory of torch's own: where an array begins, as in a file's middle, decides how LAPACK rounds.
        tensor = self.arrays[name].clone()
        if "order" in kept:
            back = sorted(range(tensor.dim()), key=lambda axis: kept["order"][axis])
            tensor = tensor.permute(back)
        return tensor.numpy() if "numpy" in kept else tensor.to(self.device)

    def filled(self, cls: type[Any], kept: dict[str, Any], at: str) -> Any:
        """An object of a class with its attributes; `at` is what their names begin with."""
        parts = {name: self.unpack(value, f"{at}{name}") for name, value in kept.items()}
        if cls is ObservationModel:
            return ObservationModel(**{**parts, "msi_weights": parts["msi_weights"].cpu()}).to(self.device)
        if issubclass(cls, nn.Module):
            return _network(cls, **parts).to(self.device)
        made = object.__new__(cls)
        for name, value in parts.items():
            object.__setattr__(made, name, value)  # frozen ones too
        return made


def _network(cls: Any, cfg: SRLFConfig, tensors: dict[str, Tensor]) -> nn.Module:
    net: nn.Module = cls(cfg)
    net.load_state_dict(tensors)
    return net.eval()


def _modules() -> dict[str, str]:
    """Class that a state may hold -> the module that has it."""
    return {**PARTS, **{cls: module for module, _, cls in (at.partition(":") for at in METHODS.values())}}


def _class(name: str) -> type[Any]:
    """The class of that name; KeyError where a state may hold none of it."""
    return cast(type[Any], getattr(import_module(_modules()[name]), name))

"""What every fusion method is to its caller, and the list of them.

A method is fitted once on a bounded sample of the scene and then applied tile by tile, so memory doesn't depend on the
scene. Adding one, with weights or without, is a file with a subclass of `Method` and a line in `METHODS`.
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, Self, cast, runtime_checkable

from hsfuse.core.errors import SettingError
from hsfuse.core.options import FuseOptions

if TYPE_CHECKING:  # names and their table are of use without torch
    from torch import Tensor, device

    from hsfuse.methods.state import State
    from hsfuse.methods.subspace import SpectralSubspace
    from hsfuse.nets.weights import ModelCard, ModelRecord
    from hsfuse.physics.model import ObservationModel
    from hsfuse.physics.sample import PairSample

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Requirements:
    """What a method needs of a tile: a `halo` of context on each side, in LR pixels."""

    halo: int = 4


class Layers(Protocol):
    """Quality layers that a method gives of its own, of what it predicts while this is entered."""

    @property
    def names(self) -> tuple[str, ...]:
        """What the layers are, in their order."""
        ...

    def clear(self) -> None:
        """A prediction comes next: forget the last one."""
        ...

    def maps(self) -> Tensor | None:
        """The layers of the last prediction (B, layers, H, W); None where it had nothing to show."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(self, *error: object) -> None: ...


class Method(ABC):
    """LRHSI (B, C, h, w) and MSI (B, c, H, W) to HRHSI (B, C, H, W), after `fit`.

    What `fit` learns are attributes that `state` can keep (see `hsfuse.methods.state`); caches begin with _ and are
    made when they are wanted, since a method that is restored has none.
    """

    #: Its name in `METHODS`.
    id: ClassVar[str]
    requirements: ClassVar[Requirements] = Requirements()
    #: Kinds of weights (`ModelCard.kind`) that it works with; whether it is nothing without.
    kinds: ClassVar[tuple[str, ...]] = ()
    needs_weights: ClassVar[bool] = False
    #: Whether it takes detail from the MSI; for one that doesn't the MSI is but the grid and the place.
    uses_msi: ClassVar[bool] = True
    #: SHA-256 of the file of the weights that `fit` took, be they named or chosen.
    weights_sha256: str | None = None
    #: What HSI bands (C,) are divided by in what `fit` and `predict` are given (`fitted`, `predicted`); None: nothing.
    units: Tensor | None = None

    @classmethod
    def detect(cls, card: ModelCard) -> bool:
        """Whether weights with this card are for this method."""
        return card.kind in cls.kinds

    @classmethod
    def load(cls, options: FuseOptions, weights: ModelRecord | None = None) -> Self:
        """A new one as the options say, not fitted yet; `weights` are those that they name."""
        return cls()

    @abstractmethod
    def fit(self, scene: PairSample, model: ObservationModel) -> Self:
        """Learn what the method takes from the scene as a whole; `model` is kept for `predict`."""

    @abstractmethod
    def predict(self, lrhsi: Tensor, msi: Tensor) -> Tensor:
        """Fuse tiles."""

    @abstractmethod
    def describe(self) -> dict[str, str]:
        """Settings and what was estimated, for provenance and reports."""

    @property
    def parts(self) -> dict[str, str]:
        """What corrects its base in what it predicts, when it is fitted, and more of it in a word.

        "scene regression"; of a network "weights" (their name) and "training" on the scene (steps).
        """
        return {}

    @property
    def scans(self) -> bool:
        """Whether a network has a part in what it predicts, when it is fitted."""
        return not self.parts.keys().isdisjoint(("weights", "training"))

    def history(self) -> dict[str, Any] | None:
        """How fitting went, for provenance and reports, as JSON; None where there is nothing to tell."""
        return None

    def layers(self) -> Layers | None:
        """The quality layers that it gives of its own predictions, when it is fitted."""
        return None

    def weights_of_scene(self, name: str) -> tuple[ModelCard, dict[str, Tensor]] | None:
        """Card and tensors of the weights fitted to this scene, for `load`; None where there are none."""
        return None

    def state(self) -> State:
        """All that fitting has learned, as arrays and JSON: to resume, to send to a worker, to save."""
        from hsfuse.methods.state import state_of

        return state_of(self)

    @classmethod
    def restore(cls, state: State, device: device | str = "cpu") -> Self:
        """What `state` was made from, on a device: `predict` gives the same bits on the same machine.

        ModelError for a state that isn't one of this method.
        """
        from hsfuse.methods.state import restored

        return cast(Self, restored(cls, state, device))


@runtime_checkable
class SubspaceMethod(Protocol):
    """A method that works in a spectral subspace: its result is E a plus something interpolated from LR pixels.

    What needs the coefficients (SRLF-Net, the mean of two methods) so never holds all bands at high resolution.
    """

    subspace: SpectralSubspace

    def coefficients(self, lrhsi: Tensor, msi: Tensor) -> Tensor:
        """Fused coefficients a (B, K, H, W)."""
        ...

    def outside_low(self, lrhsi: Tensor) -> Tensor:
        """What is added outside the subspace, before interpolation: (B, C, h, w)."""
        ...


#: Bands interpolated at a time when a result is put together.
BANDS_AT_ONCE = 32


def compose(
    subspace: SpectralSubspace,
    model: ObservationModel,
    coefficients: Tensor,
    outside: Tensor,
    inner: tuple[slice, slice] = (slice(None), slice(None)),
) -> Tensor:
    """E a + up(outside): (B, K, H, W), (B, C, h, w) -> (B, C, H, W), with one array of that size.

    `inner` says which part of up(outside) the coefficients are for.
    """
    fused = subspace.unproject(coefficients)
    for first in range(0, fused.shape[1], BANDS_AT_ONCE):
        bands = slice(first, first + BANDS_AT_ONCE)
        fused[:, bands] += model.upsample(outside[:, bands])[..., *inner]
    return fused


#: LR pixels to each side that `ObservationModel.upsample`, cubic interpolation, looks at.
REACH = 2


def predict_inside(
    method: Method, model: ObservationModel, lrhsi: Tensor, msi: Tensor, inner: Sequence[tuple[slice, slice]]
) -> list[Tensor]:
    """What `predicted` gives of tiles (B, C, h, w) and (B, c, H, W) in the rows and columns `inner` of each, B x
    (C, H', W'); where there are coefficients, without making all bands of a halo that is cut off."""
    if not isinstance(method, SubspaceMethod):
        return [tile[..., *part] for tile, part in zip(predicted(method, lrhsi, msi), inner, strict=True)]
    s, made = model.ratio, []
    lrhsi = lrhsi if method.units is None else lrhsi / method.units[:, None, None]
    coefficients, outside = method.coefficients(lrhsi, msi), method.outside_low(lrhsi)
    for part, a, low in zip(inner, coefficients.split(1), outside.split(1), strict=True):
        wide = [slice(max(0, side.start // s - REACH), side.stop // s + REACH) for side in part]
        rows, cols = (
            slice(side.start - s * w.start, side.stop - s * w.start) for side, w in zip(part, wide, strict=True)
        )
        fused = compose(method.subspace, model, a[..., *part], low[..., *wide], (rows, cols))[0].float()
        made.append(fused if method.units is None else fused.mul_(method.units[:, None, None]))
    return made


def fitted(method: Method, scene: PairSample, model: ObservationModel, units: Tensor | None) -> Method:
    """The method fitted to a scene whose HSI bands are divided by `units` (C,), as they are in what it fuses."""
    if units is None:
        return method.fit(scene, model)
    method = method.fit(replace(scene, lrhsi=scene.lrhsi / units[:, None, None]), model.with_srf(model.srf * units))
    method.units = units
    return method


def predicted(method: Method, lrhsi: Tensor, msi: Tensor) -> Tensor:
    """What a `fitted` method makes of tiles (B, C, h, w) and (B, c, H, W): (B, C, H, W)."""
    if method.units is None:
        return method.predict(lrhsi, msi)
    units = method.units[:, None, None]
    return method.predict(lrhsi / units, msi) * units


#: name -> "module:class"; modules are imported when asked for.
METHODS: dict[str, str] = {
    "srlf": "hsfuse.methods.srlf:SRLF",
    "srlf-any": "hsfuse.methods.srlf_any:AnySensor",
    "srlf-bands": "hsfuse.methods.srlf_bands:Banded",
    "guided": "hsfuse.methods.guided:Guided",
    "bicubic": "hsfuse.methods.baselines:Bicubic",
    "glp-reg": "hsfuse.methods.regression:RegressionGLP",
    "glp-ens": "hsfuse.methods.blend:DenoisedGLP",
    "blend": "hsfuse.methods.blend:Blend",
    "gsa": "hsfuse.methods.baselines:GSA",
    "sfim": "hsfuse.methods.baselines:SFIM",
    "glp": "hsfuse.methods.baselines:GLP",
    "cnmf": "hsfuse.methods.cnmf:CNMF",
    "hysure": "hsfuse.methods.variational:HySure",
    "fuse": "hsfuse.methods.variational:Sylvester",
    "conic": "hsfuse.methods.conic:Conic",
}


def make_method(name: str) -> Method:
    """A new, unfitted method by name; SettingError when there is none of that name.

    >>> import torch
    >>> from hsfuse import ObservationModel, make_method
    >>> from hsfuse.physics.model import gaussian_psf
    >>> from hsfuse.physics.sample import PairSample
    >>> model = ObservationModel(torch.ones(2, 5).numpy() / 5, gaussian_psf(1.2, 4), 4)
    >>> lrhsi, msi = torch.rand(1, 5, 6, 6), torch.rand(1, 2, 24, 24)
    >>> method = make_method("bicubic").fit(PairSample(lrhsi, msi, torch.ones(1, 6, 6, dtype=torch.bool)), model)
    >>> tuple(method.predict(lrhsi, msi).shape)
    (1, 5, 24, 24)
    """
    return method_class(name)()


def method_class(name: str) -> type[Method]:
    """The class of a method; SettingError when there is none of that name."""
    if name not in METHODS:
        raise SettingError(f"there is no method {name!r}; known are {', '.join(METHODS)}")
    module, _, cls = METHODS[name].partition(":")
    return cast(type[Method], getattr(import_module(module), cls))


def check_names(options: FuseOptions) -> None:
    """Whether there is what the options name: method, base, response, weights, PSF. Without torch.

    SettingError, SrfError or ModelError for the first that there isn't.
    """
    for what in ("method", "base"):
        if (name := getattr(options, what)) not in METHODS:
            raise SettingError(f"there is no {what} {name!r}; known are {', '.join(METHODS)}")
    if options.srf not in ("auto", "estimate") and not Path(options.srf).is_file():
        from hsfuse.physics import load_srf

        load_srf(options.srf)
    if options.model not in ("auto", "none"):
        from hsfuse.nets.weights import find_model

        find_model(options.model)
    options.psf_file  # noqa: B018  raises


def weighted_methods() -> dict[str, type[Method]]:
    """The methods that work with trained weights."""
    return {name: cls for name in METHODS if (cls := method_class(name)).kinds}


def knows_effort(name: str) -> bool:
    """Whether --effort says anything to a method; of the default one that is known without torch."""
    return name == FuseOptions.method or bool(method_class(name).kinds)


def method_for(options: FuseOptions) -> Method:
    """The method that `fuse` is asked for, with its weights, not fitted yet.

    The default method stands for the one that the weights named by --model are for. SettingError where the method has
    no use for weights, or can't do without, ModelError for weights that aren't there.
    """
    cls = method_class(options.method)
    if (options.method, options.model, options.effort) == (FuseOptions.method, "auto", "fast") and not options.adapts:
        return method_class(options.base)()
    if options.model in ("auto", "none"):
        if options.model == "none" and cls.needs_weights:
            raise SettingError(f"--method {options.method} is nothing without weights; leave out --model none")
        return cls.load(options)
    if not cls.kinds:
        raise SettingError(
            f"--model {options.model} names weights, but --method {options.method} uses none; leave out one of the "
            f"two, or take one of the methods {', '.join(weighted_methods())}"
        )
    from hsfuse.nets.weights import find_model

    weights = find_model(options.model)
    log.info("weights: %s", weights.path)
    if options.method == FuseOptions.method:
        cls = next((other for other in weighted_methods().values() if other.detect(weights.card)), cls)
    return cls.load(options, weights)

"""What every fusion method looks like to its caller, and the list of them.

A method is fitted once on a bounded sample of the scene and then applied tile by tile, so memory doesn't depend on the
scene. Adding one is a file and a line in `METHODS`.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Protocol, Self, cast, runtime_checkable

from hsfuse.core.errors import SettingError

if TYPE_CHECKING:  # names and their table are of use without torch
    from torch import Tensor

    from hsfuse.methods.subspace import SpectralSubspace
    from hsfuse.physics.model import ObservationModel
    from hsfuse.physics.sample import PairSample


@dataclass(frozen=True)
class Requirements:
    """What a method needs of a tile: a `halo` of context on each side, in LR pixels."""

    halo: int = 4


class Method(Protocol):
    """LRHSI (B, C, h, w) and MSI (B, c, H, W) to HRHSI (B, C, H, W), after `fit`."""

    name: str
    requirements: Requirements

    def fit(self, scene: PairSample, model: ObservationModel) -> Self:
        """Learn what the method takes from the scene as a whole; `model` is kept for `predict`."""
        ...

    def predict(self, lrhsi: Tensor, msi: Tensor) -> Tensor:
        """Fuse tiles."""
        ...

    def describe(self) -> dict[str, str]:
        """Settings and what was estimated, for provenance and reports."""
        ...


@runtime_checkable
class SubspaceMethod(Method, Protocol):
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


def compose(subspace: SpectralSubspace, model: ObservationModel, coefficients: Tensor, outside: Tensor) -> Tensor:
    """E a + up(outside): (B, K, H, W), (B, C, h, w) -> (B, C, H, W), with one array of that size."""
    fused = subspace.unproject(coefficients)
    for first in range(0, fused.shape[1], BANDS_AT_ONCE):
        bands = slice(first, first + BANDS_AT_ONCE)
        fused[:, bands] += model.upsample(outside[:, bands])
    return fused


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
    if name not in METHODS:
        raise SettingError(f"there is no method {name!r}; known are {', '.join(METHODS)}")
    module, _, cls = METHODS[name].partition(":")
    return cast(Method, getattr(import_module(module), cls)())

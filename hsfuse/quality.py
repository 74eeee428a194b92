"""The quality raster beside a fused cube: where fusion distorted, what was learned again, how far off pixels may be."""

from __future__ import annotations

from contextlib import ExitStack
from types import TracebackType
from typing import Self

import torch
from torch import Tensor

from hsfuse.cube import Spectrum
from hsfuse.fusers import Fuser, TrainingScene
from hsfuse.fusers.reliability import fit_reliability
from hsfuse.fusers.stagemaps import StageWatch, fused_maps
from hsfuse.physics import ObservationModel

#: An MSI brighter than this isn't reflectance 0 to 1: its own maximum is SSIM's dynamic range then.
MOST_REFLECTANCE = 2.0
#: Bands of the quality raster, with units.
LAYERS = (
    "spatial distortion (1 - SSIM with the MSI)",
    "spectral distortion (angle to the LRHSI in degrees)",
    "share of re-learning in space",
    "share of re-learning in the spectrum",
    "expected error (RMS over the bands in reflectance)",
)


class QualityLayers:
    """While it is entered, makes the layers of what a fitted fuser has just predicted."""

    def __init__(self, fuser: Fuser, scene: TrainingScene, model: ObservationModel, seed: int = 0) -> None:
        self.model, self.reliability = model, fit_reliability(fuser, scene, model, seed)
        net = getattr(fuser, "net", None)
        self._watch = None if net is None else StageWatch(net)
        brightest = float(scene.msi.permute(1, 0, 2, 3).flatten(1).amax(1).median())
        self._peak = 1.0 if brightest <= MOST_REFLECTANCE else brightest
        self._stack = ExitStack()

    @property
    def spectrum(self) -> Spectrum:
        """The layers by name; the expected error is a bad band where the scene is too small to learn it from."""
        good = None if self.reliability is not None else (True,) * (len(LAYERS) - 1) + (False,)
        return Spectrum(None, names=LAYERS, good=good)

    def __enter__(self) -> Self:
        if self._watch is not None:
            self._stack.enter_context(self._watch)
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        self._stack.close()

    def expect(self) -> None:
        """A prediction comes next."""
        if self._watch is not None:
            self._watch.clear()

    def layers(self, fused: Tensor, lrhsi: Tensor, msi: Tensor) -> Tensor:
        """All layers of the last prediction: (B, C, H, W), (B, C, h, w), (B, c, H, W) -> (B, 5, H, W)."""
        points = self._watch.points() if self._watch is not None else None
        maps = fused_maps(fused, lrhsi, msi, self.model, points, self._peak)
        expected = (
            torch.full_like(maps.spatial, float("nan"))
            if self.reliability is None
            else self.reliability.expected_error(fused, lrhsi, msi)
        )
        return torch.cat([maps.stacked(), expected[:, None]], 1)

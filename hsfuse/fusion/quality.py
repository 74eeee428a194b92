"""The quality raster beside a fused cube: where fusion distorted, what was learned again, how far off pixels may be."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from types import TracebackType
from typing import Self

import torch
from scipy.optimize import nnls
from torch import Tensor

from hsfuse.core.cube import Spectrum
from hsfuse.methods import BANDS_AT_ONCE, Method, predicted
from hsfuse.methods.denoise import gaussian_blur
from hsfuse.methods.frame import noise_adder, reduced_images
from hsfuse.nets.relearn import angle_map, ssim_map
from hsfuse.nets.watch import RELEARNED, enlarged
from hsfuse.physics.model import ObservationModel
from hsfuse.physics.sample import PairSample

#: Width in pixels of the window in which the features are averaged.
SIGMA = 1.0
#: Pixels that the weights are fitted on at most, and rounds of reweighting.
SAMPLE, ROUNDS = 20_000, 4


class Reliability:
    """Expected error of a fitted fuser's pixels: `weights` (F,) of `features`, fitted on a scene."""

    def __init__(self, model: ObservationModel, weights: Tensor) -> None:
        self.model, self.weights = model, weights

    def expected_error(self, fused: Tensor, lrhsi: Tensor, msi: Tensor) -> Tensor:
        """RMS over the bands, in reflectance: (B, C, H, W), (B, C, h, w), (B, c, H, W) -> (B, H, W)."""
        known = features(fused, lrhsi, msi, self.model)
        return torch.einsum("f,bfhw->bhw", self.weights.to(known), known).clamp_min(0).sqrt()


def features(fused: Tensor, lrhsi: Tensor, msi: Tensor, model: ObservationModel) -> Tensor:
    """What is known of a pixel without a truth, as squares in reflectance: (B, 6, H, W), the first one constant."""
    low = model.spatial(fused)
    parts = [
        torch.ones_like(fused[:, :1]),
        _mean_square(fused, lambda part: model.upsample(model.spatial(part))),
        (msi - model.upsample(model.spatial(msi))).square().mean(1, keepdim=True),
        (msi - model.spectral(fused)).square().mean(1, keepdim=True),
        model.upsample((lrhsi - low).square().mean(1, keepdim=True)).clamp_min(0),
        _mean_square(fused, None),
    ]
    return gaussian_blur(torch.cat(parts, 1), SIGMA)


def _mean_square(cube: Tensor, smooth: Callable[[Tensor], Tensor] | None) -> Tensor:
    """Mean over the bands of (cube - smooth(cube))^2, some bands at a time: (B, C, H, W) -> (B, 1, H, W)."""
    total = torch.zeros_like(cube[:, :1])
    for part in cube.split(BANDS_AT_ONCE, dim=1):
        total += (part if smooth is None else part - smooth(part)).square().sum(1, keepdim=True)
    return total / cube.shape[1]


@torch.no_grad()
def fit_reliability(fuser: Method, scene: PairSample, model: ObservationModel, seed: int = 0) -> Reliability | None:
    """Fuse the scene at reduced resolution and learn where the errors are; None when it is too small for that."""
    target, lrhsi, msi = reduced_images(scene, model)
    valid = scene.mask[:, : target.shape[2], : target.shape[3]]
    if min(lrhsi.shape[2:]) < 4 or not valid.any():
        return None
    random, as_noisy = torch.Generator().manual_seed(seed), noise_adder(scene, model)
    known, errors = [], []
    for block in range(len(target)):
        part = slice(block, block + 1)
        low, high = as_noisy(lrhsi[part], msi[part], random)
        fused = predicted(fuser, low, high)
        inside = valid[part]
        known.append(features(fused, low, high, model).permute(0, 2, 3, 1)[inside])
        errors.append((fused - target[part]).square().mean(1)[inside])
    return Reliability(model, _fit(torch.cat(known), torch.cat(errors)))


def _fit(known: Tensor, errors: Tensor) -> Tensor:
    """Non-negative weights (F,) for features (n, F) and squared errors (n,)."""
    step = max(1, len(known) // SAMPLE)
    x, y = known[::step].double().cpu(), errors[::step].double().cpu()
    size = x.mean(0).clamp_min(1e-30)
    expected = y.mean().expand_as(y)
    for _ in range(ROUNDS):
        floor = 0.05 * float(y.mean()) + 1e-30
        root = 1 / expected.clamp_min(floor)
        weights = torch.from_numpy(nnls((x / size * root[:, None]).numpy(), (y * root).numpy())[0]) / size
        expected = x @ weights
    return weights.float()


@torch.no_grad()
def distortion_maps(fused: Tensor, lrhsi: Tensor, msi: Tensor, model: ObservationModel, peak: float = 1.0) -> Tensor:
    """1 - SSIM with the MSI and the angle to the LRHSI in degrees: (B, C, H, W), (B, C, h, w), (B, c, H, W) ->
    (B, 2, H, W); `peak` is SSIM's dynamic range."""
    spatial = 1 - ssim_map(model.spectral(fused) / peak, msi / peak)
    angle = enlarged(torch.rad2deg(angle_map(model.spatial(fused), lrhsi)), model.ratio)
    return torch.stack([spatial, angle], 1)


#: An MSI brighter than this isn't reflectance 0 to 1: its own maximum is SSIM's dynamic range then.
MOST_REFLECTANCE = 2.0
#: Bands of the quality raster that any method has, with units: before its own, and after them.
DISTORTION = ("spatial distortion (1 - SSIM with the MSI)", "spectral distortion (angle to the LRHSI in degrees)")
EXPECTED = "expected error (RMS over the bands in reflectance)"


class QualityLayers:
    """While it is entered, makes the layers of what a fitted method has just predicted."""

    def __init__(self, fuser: Method, scene: PairSample, model: ObservationModel, seed: int = 0) -> None:
        self.model, self.reliability = model, fit_reliability(fuser, scene, model, seed)
        self._own = fuser.layers()
        #: The method's own layers; where a network could have learned again is always told: nowhere, without one.
        self._between = RELEARNED if self._own is None else self._own.names
        brightest = float(scene.msi.permute(1, 0, 2, 3).flatten(1).amax(1).median())
        self._peak = 1.0 if brightest <= MOST_REFLECTANCE else brightest
        self._stack = ExitStack()

    @property
    def names(self) -> tuple[str, ...]:
        """What the layers are."""
        return (*DISTORTION, *self._between, EXPECTED)

    @property
    def spectrum(self) -> Spectrum:
        """The layers by name; the expected error is a bad band where the scene is too small to learn it from."""
        good = None if self.reliability is not None else (True,) * (len(self.names) - 1) + (False,)
        return Spectrum(None, names=self.names, good=good)

    def __enter__(self) -> Self:
        if self._own is not None:
            self._stack.enter_context(self._own)
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        self._stack.close()

    def expect(self) -> None:
        """A prediction comes next."""
        if self._own is not None:
            self._own.clear()

    def layers(self, fused: Tensor, lrhsi: Tensor, msi: Tensor) -> Tensor:
        """All layers of the last prediction: (B, C, H, W), (B, C, h, w), (B, c, H, W) -> (B, layers, H, W)."""
        seen = distortion_maps(fused, lrhsi, msi, self.model, self._peak)
        own = None if self._own is None else self._own.maps()
        if own is None:
            own = seen.new_zeros(len(seen), len(self._between), *seen.shape[2:])
        expected = (
            torch.full_like(seen[:, 0], float("nan"))
            if self.reliability is None
            else self.reliability.expected_error(fused, lrhsi, msi)
        )
        return torch.cat([seen, own, expected[:, None]], 1)

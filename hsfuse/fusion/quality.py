"""The quality raster beside a fused cube: where fusion distorted, what was learned again, how far off pixels may be."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self, cast

import torch
from scipy.optimize import nnls
from torch import Tensor

from hsfuse.core.cube import Spectrum
from hsfuse.methods import BANDS_AT_ONCE, Method
from hsfuse.methods.denoise import gaussian_blur
from hsfuse.methods.frame import noise_adder, reduced_images
from hsfuse.nets.relearn import angle_map, ssim_map
from hsfuse.nets.srlf import SRLF, Observation, SRLFNet
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
        fused = fuser.predict(low, high)
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


@dataclass(frozen=True)
class StageMaps:
    """Maps at high resolution (B, H, W): 1 - SSIM with the MSI, angle to the LRHSI in degrees, re-learned points."""

    spatial: Tensor
    spectral: Tensor
    spatial_points: Tensor
    spectral_points: Tensor

    def stacked(self) -> Tensor:
        """All four: (B, 4, H, W)."""
        return torch.stack([self.spatial, self.spectral, self.spatial_points, self.spectral_points], 1)


class StageWatch:
    """While it is entered, keeps what the last stage of a network saw in its first call since `clear`."""

    def __init__(self, net: SRLFNet) -> None:
        self._last = cast(SRLF, net.stages[-1])
        self._seen: dict[str, tuple[Any, ...]] = {}

    def __enter__(self) -> Self:
        self._hooks = [
            self._last.spatial.register_forward_hook(self._keep("spatial")),
            self._last.spectral.register_forward_hook(self._keep("spectral")),
        ]
        return self

    def __exit__(self, *_: object) -> None:
        for hook in self._hooks:
            hook.remove()

    def _keep(self, name: str) -> Any:
        def hook(module: torch.nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
            self._seen.setdefault(name, inputs)

        return hook

    def clear(self) -> None:
        """Forget; the next call of the network is kept."""
        self._seen.clear()

    def points(self) -> tuple[Tensor, Tensor] | None:
        """Points learned again in space and in the spectrum (B, H, W), 1 or 0, in the call that was kept.

        None when the network wasn't called (its base was the result).
        """
        if len(self._seen) < 2:
            return None
        z, obs = self._seen["spatial"]
        z_spa, ratio, _ = self._seen["spectral"]
        spatial, spectral = distortions(z, z_spa, obs)
        return _worst(spatial, ratio), _enlarged(_worst(spectral, ratio), obs.model.ratio)


@torch.no_grad()
def distortions(z: Tensor, z_spa: Tensor, obs: Observation) -> tuple[Tensor, Tensor]:
    """What eqs. 3 and 8 rank points by: 1 - SSIM of the pseudo-MSI (B, H, W), the pseudo-LRHSI's angle (B, h, w)."""
    unit = obs.unit[:, None, None]
    spatial = 1 - ssim_map(*obs.pseudo_msi(z))
    return spatial, torch.rad2deg(angle_map(obs.model.spatial(z_spa) * unit, obs.x * unit))


@torch.no_grad()
def fused_maps(
    fused: Tensor,
    lrhsi: Tensor,
    msi: Tensor,
    model: ObservationModel,
    points: tuple[Tensor, Tensor] | None = None,
    peak: float = 1.0,
) -> StageMaps:
    """Maps of a fused cube: (B, C, H, W), (B, C, h, w), (B, c, H, W); `peak` is SSIM's dynamic range."""
    spatial = 1 - ssim_map(model.spectral(fused) / peak, msi / peak)
    angle = _enlarged(torch.rad2deg(angle_map(model.spatial(fused), lrhsi)), model.ratio)
    return StageMaps(spatial, angle, *(points or (torch.zeros_like(spatial), torch.zeros_like(spatial))))


def _worst(distortion: Tensor, ratio: Tensor) -> Tensor:
    """1 where a sample's share `ratio` (B,) of highest distortion is, else 0: the points that were re-learned."""
    flat = distortion.flatten(1)
    out = torch.zeros_like(flat)
    for sample, count in enumerate((ratio * flat.shape[1]).int().tolist()):
        if count:
            out[sample, flat[sample].topk(count).indices] = 1
    return out.view_as(distortion)


def _enlarged(low: Tensor, s: int) -> Tensor:
    """LR pixels as blocks of HR pixels: (B, h, w) -> (B, H, W)."""
    return low.repeat_interleave(s, 1).repeat_interleave(s, 2)


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

    def __init__(self, fuser: Method, scene: PairSample, model: ObservationModel, seed: int = 0) -> None:
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

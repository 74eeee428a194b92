"""How far off each fused pixel is likely to be, learned where it can be known: at the scene's own reduced resolution.

    E[e^2] = w_0 + sum_i w_i f_i,    w >= 0

e^2 is a pixel's squared error averaged over the bands. The f_i are what is known everywhere without a truth: how much
detail was put in, how rough the MSI is there, how far the fused pixel is from either input, and how bright it is. The
weights are least squares on the reduced-resolution pair (Wald et al. 1997), where the LRHSI is the truth, weighted so
that a relative misfit counts the same at small errors as at large ones.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from scipy.optimize import nnls
from torch import Tensor

from hsfuse.fusers import BANDS_AT_ONCE, Fuser, TrainingScene
from hsfuse.fusers.denoise import gaussian_blur
from hsfuse.fusers.frame import noise_adder, reduced_images
from hsfuse.physics import ObservationModel

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
def fit_reliability(fuser: Fuser, scene: TrainingScene, model: ObservationModel, seed: int = 0) -> Reliability | None:
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

"""Regression GLP in a spectral subspace: the MSI's detail, carried into the coefficients by a regression on LR pixels.

    a_hr = up(a) + g(Y) - up(A g(Y)),    g(Y) = W f(Y) + b,    W, b = argmin |a - W (A f(Y)) - b|^2 + ridge

with a = E^T X the LRHSI's coefficients, A the observation model's blur and decimation and f features of the MSI. With
f the bands themselves it is the multi-band form of MTF-GLP (Aiazzi et al. 2006; "hypersharpening", Selva et al. 2015),
done on K coefficients at once. It needs no SRF and is immune to gain and offset differences between the sensors. The
part of the LRHSI outside the subspace is interpolated, shrunk per band to the share of it that is signal.

`EnsembleGLP` averages four such regressions, on bands, square roots, products and ratios: their errors differ, so the
mean of the four is closer to the truth than each (Breiman 1996, "Stacked regressions", with equal weights).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Self

import torch
from torch import Tensor

from hsfuse.methods import Method, Requirements, compose
from hsfuse.methods.problem import with_products
from hsfuse.methods.subspace import DARK, SpectralSubspace, scene_subspace, signal_share
from hsfuse.physics.model import ObservationModel
from hsfuse.physics.sample import PairSample
from hsfuse.physics.solve import principal_axes

DIMENSION = 16
#: Ridge weights, relative to the features' variance, among which cross-validation chooses.
RIDGES = tuple(10.0 ** (k / 4) for k in range(-32, 9))
#: Features that vary by less than this share of their RMS are constant.
ROUNDING = 1e-10

Features = Callable[[Tensor, Tensor], Tensor]


def bands(y: Tensor, level: Tensor) -> Tensor:
    """The MSI itself: (B, c, H, W)."""
    return y


def roots(y: Tensor, level: Tensor) -> Tensor:
    """Bands and their square roots: (B, 2c, H, W)."""
    return torch.cat([y, y.clamp_min(1e-3 * level.item()).sqrt()], 1)


def products(y: Tensor, level: Tensor) -> Tensor:
    """Bands and all products of two: (B, c + c (c + 1) / 2, H, W)."""
    return with_products(y)


def ratios(y: Tensor, level: Tensor) -> Tensor:
    """Bands, their shares of the total, and bands times share: (B, 3c, H, W)."""
    share = y / y.sum(1, keepdim=True).clamp_min(1e-3 * level.item())
    return torch.cat([y, share, y * share], 1)


def ridge_regression(features: Tensor, targets: Tensor, noise: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """W (K, f) and b (K, 1) with W features + b closest to targets; features (f, n), targets (K, n).

    The ridge is chosen per target by generalised cross-validation (Golub, Heath, Wahba 1979, eq. 1.4). `noise` (f, f)
    is the covariance of noise that the features will have where W is used and don't have here: its share in W's error
    is minimised, too, as if the features came again with that noise (Bishop 1995, "Training with noise is equivalent to
    Tikhonov regularization", Neural Computation 7(1)).
    """
    f, t = features.double(), targets.double()
    n = f.shape[1]
    mean, target_mean = f.mean(1, keepdim=True), t.mean(1, keepdim=True)
    std = f.std(1, keepdim=True).maximum(ROUNDING * f.square().mean(1, keepdim=True).sqrt()).clamp_min(DARK**2)
    rows, sought = ((f - mean) / std).T, (t - target_mean).T
    if noise is not None:
        unit = noise.to(f) / std / std.T
        values, vectors = principal_axes(n * unit)
        rows = torch.cat([rows, values.sqrt()[:, None] * vectors.T])
        sought = torch.cat([sought, sought.new_zeros(len(values), sought.shape[1])])
    u, d, vt = torch.linalg.svd(rows, full_matrices=False)  # (n, r), (r,), (r, f)
    p = u.T @ sought  # (r, K)
    shrink = d**2 / (d**2 + n * d.new_tensor(RIDGES)[:, None])  # (ridges, r)
    rss = ((t - target_mean) ** 2).sum(1) - (2 * shrink - shrink**2) @ p**2  # (ridges, K)
    score = rss / (n - 1 - shrink.sum(1, keepdim=True)).clamp_min(1e-3) ** 2
    best = shrink[score.argmin(0)].T  # (r, K)
    weight = (vt.T @ (best * p / d.clamp_min(1e-12)[:, None])).T / std.T
    return weight, target_mean - weight @ mean


class RegressionGLP(Method):
    """LRHSI (B, C, h, w), MSI (B, c, H, W) -> HRHSI (B, C, H, W), regressed on the MSI's bands."""

    id = "glp-reg"
    requirements = Requirements(halo=6)
    feature_sets: tuple[Features, ...] = (bands,)
    model: ObservationModel
    subspace: SpectralSubspace
    weights: list[tuple[Tensor, Tensor]]
    residual_share: Tensor
    level: Tensor

    def __init__(self, dimension: int = DIMENSION) -> None:
        self.dimension = dimension

    def fit(self, scene: PairSample, model: ObservationModel) -> Self:
        """Subspace, regressions and residual share from the valid LR pixels of the sample."""
        self.model = model
        self.subspace = scene_subspace(scene, self.dimension)
        self.level = scene.msi.abs().mean().clamp_min(DARK)
        targets = _pixels(self.subspace.project(scene.lrhsi), scene.mask)
        self.weights = []
        for features in self.feature_sets:
            low = torch.cat([model.spatial(features(block, self.level)) for block in scene.msi.split(1)])
            weight, constant = ridge_regression(_pixels(low, scene.mask), targets, self.feature_noise(features, scene))
            self.weights.append((weight.float(), constant.float()))
        self.residual_share = signal_share(self.subspace.residual(scene.lrhsi), scene.mask)
        return self

    def feature_noise(self, features: Features, scene: PairSample) -> Tensor | None:
        """Covariance (f, f) of the noise in a pixel's features, which blurring to the LR grid averages out."""
        return None

    def regress(self, msi: Tensor) -> Tensor:
        """The MSI brought into the subspace, mean of g(Y) over the feature sets: (B, c, H, W) -> (B, K, H, W)."""
        total = torch.zeros(())
        for features, (weight, constant) in zip(self.feature_sets, self.weights, strict=True):
            part = torch.einsum("kf,bfhw->bkhw", weight.to(msi), features(msi, self.level))
            total = part + constant.to(msi)[:, :, None] + total.to(msi)
        return total / len(self.feature_sets)

    def coefficients(self, lrhsi: Tensor, msi: Tensor) -> Tensor:
        """Fused coefficients (B, K, H, W)."""
        return self.inject(self.subspace.project(lrhsi), self.regress(msi))

    def inject(self, coefficients: Tensor, detail: Tensor) -> Tensor:
        """LRHSI coefficients (B, K, h, w) and the regressed MSI (B, K, H, W) to fused coefficients (B, K, H, W)."""
        return detail + self.model.upsample(coefficients - self.model.spatial(detail))

    def outside_low(self, lrhsi: Tensor) -> Tensor:
        """What is added outside the subspace, before interpolation: (B, C, h, w)."""
        return self.subspace.residual(lrhsi) * self.residual_share.to(lrhsi)[:, None, None]

    def predict(self, lrhsi: Tensor, msi: Tensor) -> Tensor:
        """Fuse tiles."""
        return compose(self.subspace, self.model, self.coefficients(lrhsi, msi), self.outside_low(lrhsi))

    def describe(self) -> dict[str, str]:
        """Settings and estimates."""
        share = self.residual_share.mean().item()
        return {
            "method": self.id,
            "subspace": f"{self.subspace.dimension} dimensions; outside it {share:.0%} of the residual kept on average",
        }


class EnsembleGLP(RegressionGLP):
    """Mean of four regressions, on bands, square roots, products and ratios."""

    id = "glp-ens"
    feature_sets = (bands, roots, products, ratios)


class BicubicSubspace(RegressionGLP):
    """The paper's base: interpolated coefficients; the regression only brings the MSI into the subspace."""

    id = "bicubic"

    def inject(self, coefficients: Tensor, detail: Tensor) -> Tensor:
        """Interpolate; the MSI's detail is left to the network."""
        return self.model.upsample(coefficients)


def _pixels(maps: Tensor, mask: Tensor) -> Tensor:
    """Values of valid pixels: (n, C, h, w), (n, h, w) -> (C, pixels)."""
    return maps.permute(1, 0, 2, 3)[:, mask]

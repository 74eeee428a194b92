"""Regression of subspace coefficients on the MSI, global and quadratic first, then local and linear.

    a_hr = f(Y) + up(a - S f(Y)),    f(Y) = W1 z + W2 [z, z z'] + sum_i up(B_i) z_i,   z = standardised Y

W1 is least squares over the scene, W2 a ridge regression of what W1 leaves on first and second-order terms, and B a
ridge regression of what both leave in a Gaussian window around every LR pixel: geographically weighted regression
(Brunsdon, Fotheringham, Charlton 1996), the local model of the guided filter (He, Sun, Tang 2013, eq. 5-6) and of
context-based injection (Aiazzi et al. 2002). The last term restores the LRHSI's own low frequencies. HR pixels go
further than the LR pixels that W2 was learned on: there its terms keep the last value that those have shown, since a
curve carried on is soon far off.
"""

from __future__ import annotations

import torch
from torch import Tensor

from hsfuse.fusers.denoise import gaussian_blur
from hsfuse.fusers.problem import mix
from hsfuse.fusers.samples import CONSTANT, DARK, AffineMap, Pairs, fit_affine, with_products
from hsfuse.physics import ObservationModel

#: Ridge of the quadratic regression, relative to its features' variance, and of the local one, in samples.
QUADRATIC_RIDGE = 0.3
LOCAL_RIDGE = 0.5
#: Window of the local regression in LR pixels.
WINDOW_SIGMA = 1.5


class AdaptiveRegression:
    """Fitted on LR `pairs` and their coefficients (K, n); gives the mean image of tiles.

    `noise` (c,) is the variance of the MSI's noise per pixel, which the blurred MSI of the pairs has lost.
    """

    def __init__(self, pairs: Pairs, coefficients: Tensor, noise: Tensor | None = None) -> None:
        y = pairs.msi
        centre, spread = y.mean(1), y.std(1).maximum(CONSTANT * y.square().mean().sqrt()).clamp_min(DARK)
        self.standardise = AffineMap(torch.diag(1 / spread), -centre / spread)
        z = self.standardise.columns(y)
        covariance = torch.cov(z) + 1e-6 * torch.eye(len(z), dtype=z.dtype, device=z.device)
        self.whiten = torch.linalg.inv(torch.linalg.cholesky(torch.atleast_2d(covariance)))
        self.linear = fit_affine(z, coefficients, noise=None if noise is None else noise.to(y) / spread.square())
        left = coefficients - self.linear.columns(z)
        self.shown = z.amin(1), z.amax(1)
        features = with_products(z[None, :, :, None])[0, :, :, 0]
        self.quadratic = fit_affine(features, left, ridge=QUADRATIC_RIDGE / max(float(features.var(1).mean()), DARK))
        self.residual = left - self.quadratic.columns(features)

    def mean(self, coefficients: Tensor, msi: Tensor, model: ObservationModel) -> Tensor:
        """LR coefficients (B, K, h, w), MSI (B, c, H, W) -> (B, K, H, W)."""
        z = self.standardise(msi)
        z_low = model.spatial(z)
        sharp = self._everywhere(z) + self._nearby(coefficients - self._everywhere(z_low), z_low, z, model)
        return sharp + model.upsample(coefficients - model.spatial(sharp))

    def _everywhere(self, z: Tensor) -> Tensor:
        least, most = (edge.to(z)[:, None, None] for edge in self.shown)
        return self.linear(z) + self.quadratic(with_products(z.clamp(least, most)))

    def _nearby(self, residual: Tensor, z_low: Tensor, z: Tensor, model: ObservationModel) -> Tensor:
        """The local regression of LR residuals, applied to the MSI: (B, K, H, W)."""
        low, high = (_with_constant(mix(self.whiten, image)) for image in (z_low, z))
        weights = local_weights(low, residual)
        return sum((model.upsample(w) * high[:, [i]] for i, w in enumerate(weights)), torch.zeros(()).to(z))


def local_weights(features: Tensor, targets: Tensor) -> Tensor:
    """Ridge regression of targets (B, K, h, w) on features (B, f, h, w) around every pixel: (f, B, K, h, w)."""
    f = features.shape[1]

    def moments(other: Tensor) -> Tensor:
        products = (features[:, :, None] * other[:, None]).flatten(1, 2)
        return gaussian_blur(products, WINDOW_SIGMA).unflatten(1, (f, -1)).permute(0, 3, 4, 1, 2)

    damping = LOCAL_RIDGE * torch.eye(f, dtype=features.dtype, device=features.device)
    weights: Tensor = torch.linalg.solve(moments(features) + damping, moments(targets))
    return weights.permute(3, 0, 4, 1, 2)


def _with_constant(z: Tensor) -> Tensor:
    return torch.cat([z, torch.ones_like(z[:, :1])], 1)

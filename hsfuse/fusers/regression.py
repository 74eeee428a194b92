"""Regression GLP in a spectral subspace: detail of the MSI, carried into the coefficients by a regression on the LR grid.

    a_hr = up(a) + W (Y - up(Y_lr)),    W = argmin |a - W [Y_lr; 1]|^2 + ridge

with a = E^T X and Y_lr = the MSI degraded by the observation model. It is the multi-band form of MTF-GLP
(Aiazzi et al. 2006; "hypersharpening", Selva et al. 2015), done on K coefficients at once. It needs no SRF and is
immune to gain and offset differences between the sensors. The part of the LRHSI outside the subspace is interpolated,
shrunk per band to the share of it that is signal.
"""

from __future__ import annotations

from typing import Self

import torch
from torch import Tensor

from hsfuse.fusers import Requirements, TrainingScene
from hsfuse.physics import ObservationModel
from hsfuse.subspace import SpectralSubspace, fit_subspace

DIMENSION = 16
RIDGE = 1e-6
#: Lag-one correlation of neighbouring LR pixels at and above which a band's residual counts as all signal: measured
#: residuals of noise-free scenes have 0.4 to 0.6, noise has 0.
SIGNAL_CORRELATION = 0.3


def signal_share(maps: Tensor, mask: Tensor) -> Tensor:
    """Share of each map's variance that is spatially correlated: maps (n, C, h, w), mask (n, h, w) -> (C,) in 0..1."""
    weight = mask[:, None].to(maps)
    mean = (maps * weight).sum((0, 2, 3)) / weight.sum((0, 2, 3))
    r = (maps - mean[:, None, None]) * weight
    variance = (r**2).sum((0, 2, 3)) / weight.sum((0, 2, 3)).clamp_min(1)
    lags = [
        (r[..., 1:] * r[..., :-1], weight[..., 1:] * weight[..., :-1]),
        (r[..., 1:, :] * r[..., :-1, :], weight[..., 1:, :] * weight[..., :-1, :]),
    ]
    covariance = [p.sum((0, 2, 3)) / w.sum((0, 2, 3)).clamp_min(1) for p, w in lags]
    correlation = (covariance[0] + covariance[1]) / 2 / variance.clamp_min(1e-30)
    return (correlation / SIGNAL_CORRELATION).clamp(0, 1)


def with_constant(y: Tensor) -> Tensor:
    """Append a band of ones: (n, c, H, W) -> (n, c + 1, H, W)."""
    return torch.cat([y, torch.ones_like(y[:, :1])], 1)


def ridge_regression(features: Tensor, targets: Tensor) -> Tensor:
    """W (K, f) with W features (f, n) closest to targets (K, n), in double precision."""
    f, t = features.double(), targets.double()
    gram = f @ f.T
    gram = gram + RIDGE * gram.diagonal().mean() * torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
    return torch.linalg.solve(gram, f @ t.T).T.float()


class RegressionGLP:
    """LRHSI (B, C, h, w), MSI (B, c, H, W) -> HRHSI (B, C, H, W)."""

    name = "glp-reg"
    requirements = Requirements(halo=6)
    model: ObservationModel
    subspace: SpectralSubspace
    weight: Tensor
    residual_share: Tensor

    def __init__(self, dimension: int = DIMENSION) -> None:
        self.dimension = dimension

    def fit(self, scene: TrainingScene, model: ObservationModel) -> Self:
        """Subspace, regression and residual share from the valid LR pixels of the sample."""
        self.model = model
        spectra = scene.spectra()
        self.subspace = fit_subspace(spectra, min(self.dimension, spectra.shape[1]))
        features = with_constant(model.spatial(scene.msi))
        coefficients = self.subspace.project(scene.lrhsi)
        pixels = scene.mask.flatten()
        self.weight = ridge_regression(*(m.transpose(0, 1).flatten(1)[:, pixels] for m in (features, coefficients)))
        self.residual_share = signal_share(self.subspace.residual(scene.lrhsi), scene.mask)
        return self

    def regress(self, msi: Tensor) -> Tensor:
        """The MSI brought into the subspace, W [Y; 1]: (B, c, H, W) -> (B, K, H, W)."""
        return torch.einsum("kf,bfhw->bkhw", self.weight.to(msi), with_constant(msi))

    def coefficients(self, lrhsi: Tensor, msi: Tensor) -> Tensor:
        """Fused coefficients (B, K, H, W)."""
        detail = self.regress(msi)
        return detail + self.model.upsample(self.subspace.project(lrhsi) - self.model.spatial(detail))

    def outside(self, lrhsi: Tensor) -> Tensor:
        """What is added outside the subspace (B, C, H, W)."""
        share = self.residual_share.to(lrhsi)[:, None, None]
        return self.model.upsample(self.subspace.residual(lrhsi) * share)

    def predict(self, lrhsi: Tensor, msi: Tensor) -> Tensor:
        """Fuse tiles."""
        return self.subspace.unproject(self.coefficients(lrhsi, msi)) + self.outside(lrhsi)

    def describe(self) -> dict[str, str]:
        """Settings and estimates."""
        share = self.residual_share.mean().item()
        return {
            "method": self.name,
            "subspace": f"{self.subspace.dimension} dimensions; outside it {share:.0%} of the residual kept on average",
        }

"""What the classical methods learn from a scene: co-located LR spectra, and linear maps between them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from hsfuse.errors import InputError
from hsfuse.estimation.spectra import paired_spectra
from hsfuse.fusers import TrainingScene
from hsfuse.physics import ObservationModel

#: Ridge term of every regression, relative to the mean variance of its features.
RIDGE = 1e-6
#: Features that vary by less than this share of their RMS are constant but for rounding.
CONSTANT = 1e-6
#: A divisor that is smaller belongs to a scene without light.
DARK = 1e-20


@dataclass(frozen=True)
class Pairs:
    """Valid LR pixels in double precision: `lrhsi` (C, n) and the MSI seen at the same resolution, `msi` (c, n)."""

    lrhsi: Tensor
    msi: Tensor


@torch.no_grad()
def lr_pairs(scene: TrainingScene, model: ObservationModel) -> Pairs:
    """Degrade the scene's MSI by the model's PSF and pair its valid pixels with the LRHSI's.

    InputError when fewer valid pixels are left than a regression on the MSI bands needs.
    """
    count, wanted = int(scene.mask.sum()), scene.msi.shape[1] + 2
    if count < wanted:
        raise InputError(f"the scene has {count} valid LR pixels, wanted at least {wanted}: choose a larger area")
    return Pairs(*paired_spectra(scene.lrhsi, scene.msi, scene.mask, model))


def products(y: Tensor) -> Tensor:
    """All products of two bands: (B, c, H, W) -> (B, c (c + 1) / 2, H, W)."""
    first, second = torch.triu_indices(y.shape[1], y.shape[1], device=y.device)
    return y[:, first] * y[:, second]


def with_products(y: Tensor) -> Tensor:
    """The bands and all their products: (B, c, H, W) -> (B, c + c (c + 1) / 2, H, W)."""
    return torch.cat([y, products(y)], 1)


@dataclass(frozen=True)
class AffineMap:
    """y = weight x + offset per pixel: `weight` (q, p), `offset` (q,)."""

    weight: Tensor
    offset: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        """Images (B, p, H, W) -> (B, q, H, W)."""
        return self.linear(x) + self.offset.to(x)[:, None, None]

    def linear(self, x: Tensor) -> Tensor:
        """The same without the offset, for differences of images."""
        return torch.einsum("qp,bphw->bqhw", self.weight.to(x), x)

    def columns(self, x: Tensor) -> Tensor:
        """Samples (p, n) -> (q, n)."""
        return self.weight @ x + self.offset[:, None]


def fit_affine(features: Tensor, targets: Tensor, ridge: float = RIDGE, noise: Tensor | None = None) -> AffineMap:
    """Least squares of targets (q, n) on features (p, n) and a constant, with a ridge term on the weights.

    `noise` (p,) is the variance that the features' noise will have in use beyond what it has here (Bishop 1995).
    """
    mean_f, mean_t = features.mean(1, keepdim=True), targets.mean(1, keepdim=True)
    centred = features - mean_f
    moment = centred @ centred.T
    least = CONSTANT**2 * features.square().sum(1).mean()
    damping = (ridge * moment.diagonal().mean()).maximum(least).clamp_min(torch.finfo(moment.dtype).tiny)
    eye = torch.eye(len(moment), dtype=moment.dtype, device=moment.device)
    if noise is not None:
        moment = moment + features.shape[1] * torch.diag(noise.to(moment))
    weight = torch.linalg.solve(moment + damping * eye, centred @ (targets - mean_t).T).T
    return AffineMap(weight, (mean_t - weight @ mean_f)[:, 0])


def synthetic_bands(scene: TrainingScene, model: ObservationModel) -> tuple[AffineMap, Pairs]:
    """The MSI as seen by each HSI band, regressed on the LR grid, and the pairs it was regressed on.

    Hypersharpening: Selva et al. 2015, "Hyper-sharpening: a first approach on SIM-GA data", IEEE JSTARS 8(6).
    """
    pairs = lr_pairs(scene, model)
    return fit_affine(pairs.msi, pairs.lrhsi), pairs

"""Spectral subspace: fuse K coefficients in place of C bands (srlf-net.md; Simoes et al. 2015, section III)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from hsfuse.physics.sample import PairSample
from hsfuse.physics.solve import principal_axes

#: Smallest spread of an axis relative to the first: where a scene without noise has fewer dimensions than K, numbers in
#: units of an empty axis would be all rounding.
LEAST_SPREAD = 3e-4
#: A root mean square that is smaller belongs to a scene without light; its square still is a float32.
DARK = 1e-15


@dataclass(frozen=True)
class SpectralSubspace:
    """Orthonormal `basis` E (C, K) with the RMS `spread` (K,) of the scene's coefficients along each axis."""

    basis: Tensor
    spread: Tensor

    @property
    def dimension(self) -> int:
        """K."""
        return self.basis.shape[1]

    def project(self, x: Tensor) -> Tensor:
        """E^T x: (B, C, H, W) -> (B, K, H, W)."""
        return torch.einsum("ck,bchw->bkhw", self.basis.to(x), x)

    def unproject(self, a: Tensor) -> Tensor:
        """E a: (B, K, H, W) -> (B, C, H, W)."""
        return torch.einsum("ck,bkhw->bchw", self.basis.to(a), a)

    def residual(self, x: Tensor) -> Tensor:
        """The part of x outside the subspace, (I - E E^T) x: same shape."""
        return x - self.unproject(self.project(x))

    def to(self, device: torch.device | str) -> SpectralSubspace:
        """The same on another device."""
        return SpectralSubspace(self.basis.to(device), self.spread.to(device))


def fit_subspace(spectra: Tensor, dimension: int) -> SpectralSubspace:
    """Subspace of the `dimension` strongest uncentred principal axes of spectra (C, n).

    Uncentred, so that angles between spectra are kept. Signs are fixed (largest element positive) to make the result
    repeatable.
    """
    moment = (spectra.double() @ spectra.double().T) / spectra.shape[1]
    values, vectors = principal_axes(moment)
    k = min(dimension, spectra.shape[0])
    basis = vectors[:, :k]
    largest = basis.gather(0, basis.abs().argmax(0, keepdim=True))
    spread = values[:k].clamp_min(max(float(values[0]) * LEAST_SPREAD**2, DARK**2)).sqrt()
    return SpectralSubspace((basis * largest.sign()).float(), spread.float())


def scene_subspace(scene: PairSample, dimension: int) -> SpectralSubspace:
    """The scene's subspace; `dimension` is lowered where there are fewer bands, or fewer than four pixels to each."""
    spectra = scene.spectra()
    return fit_subspace(spectra, min(dimension, spectra.shape[0], max(1, spectra.shape[1] // 4)))

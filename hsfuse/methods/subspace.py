"""Spectral subspace: fuse K coefficients in place of C bands (srlf-net.md; Simoes et al. 2015, section III).

A scene's axes are those along which its spectra stand out most from noise, as bands are noisy each in its own measure
(Lee, Woodbury, Berman 1990, "Enhancement of high spectral resolution remote-sensing data by a noise-adjusted principal
components transform", IEEE TGRS 28(3)). The strongest axes alone take the noise of bright bands for ground and leave
the ground of dark ones out. Noise is what K common factors leave of each band (Roger 1996, "Principal components
transform with simple, automatic noise adjustment", IJRS 17(14), with a regression in place of the factors), as far as
it doesn't go on from pixel to pixel: what does is ground, and counts in all bands alike, so that a scene without noise
gets its strongest axes.
"""

from __future__ import annotations

from collections.abc import MutableMapping
from dataclasses import dataclass, field
from threading import Lock

import torch
from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary

from hsfuse.physics.sample import PairSample
from hsfuse.physics.solve import principal_axes

#: Smallest spread of an axis relative to the first: where a scene without noise has fewer dimensions than K, numbers in
#: units of an empty axis would be all rounding.
LEAST_SPREAD = 3e-4
#: A root mean square that is smaller belongs to a scene without light; its square still is a float32.
DARK = 1e-15
#: Lag-one correlation of neighbouring LR pixels at and above which a band's residual counts as all signal: measured
#: residuals of noise-free scenes have 0.4 to 0.6, noise has 0.
SIGNAL_CORRELATION = 0.3
#: Turns of factors and noise, least noise of a band relative to its mean square, and least share of a band's noise that
#: the factors are taken to leave.
STEPS, LEAST_NOISE, LEAST_FREEDOM = 2, 1e-9, 0.05


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


def fit_subspace(spectra: Tensor, dimension: int, noise: Tensor | None = None) -> SpectralSubspace:
    """Subspace of the `dimension` strongest uncentred principal axes of spectra (C, n), in units of `noise` (C,).

    `noise` is each band's variance, the same for all unless given. Uncentred, so that angles between spectra are kept.
    The axes are orthonormal, the strongest first, and their signs fixed (largest element positive) to make the result
    repeatable.
    """
    moment = _moment(spectra)
    k = min(dimension, spectra.shape[0])
    if noise is None:
        basis = principal_axes(moment)[1][:, :k]
    else:
        root = noise.to(moment).sqrt()
        basis = torch.linalg.qr(root[:, None] * _axes(moment, root)[:, :k])[0]
        basis = basis @ principal_axes(basis.T @ moment @ basis)[1]
    values = (basis * (moment @ basis)).sum(0)
    largest = basis.gather(0, basis.abs().argmax(0, keepdim=True))
    spread = values.clamp_min(max(float(values[0]) * LEAST_SPREAD**2, DARK**2)).sqrt()
    return SpectralSubspace((basis * largest.sign()).float(), spread.float())


def scene_subspace(scene: PairSample, dimension: int) -> SpectralSubspace:
    """The scene's subspace; `dimension` is lowered where there are fewer bands, or fewer than four pixels to each.

    Every method asks for it: what is known of an LRHSI is kept for as long as that is in use.
    """
    with _looking:
        known = _known.get(scene.lrhsi)
        if known is None or not (torch.equal(known.lrhsi, scene.lrhsi) and torch.equal(known.mask, scene.mask)):
            known = _known[scene.lrhsi] = _Known(scene.lrhsi.clone(), scene.mask.clone())
        if dimension not in known.subspaces:
            spectra = scene.spectra()
            k = min(dimension, spectra.shape[0], max(1, spectra.shape[1] // 4))
            known.subspaces[dimension] = fit_subspace(spectra, k, _uncertainty(scene, spectra, k))
        return known.subspaces[dimension]


@dataclass(frozen=True)
class _Known:
    lrhsi: Tensor
    mask: Tensor
    subspaces: dict[int, SpectralSubspace] = field(default_factory=dict)


_known: MutableMapping[Tensor, _Known] = WeakIdKeyDictionary()
_looking = Lock()  # who comes second waits for what the first one makes


def _uncertainty(scene: PairSample, spectra: Tensor, k: int) -> Tensor:
    """(C,) variance per band by which axes are chosen: its noise, and in all bands alike what else is left."""
    left, ground = left_by_factors(scene, k)
    least = LEAST_NOISE * float(spectra.square().mean())
    return left * (1 - ground) + (left * ground).mean() + max(least, DARK**2)


@torch.no_grad()
def left_by_factors(scene: PairSample, k: int) -> tuple[Tensor, Tensor]:
    """What k common factors leave of a scene's bands: its variance per band (C,), and the share that is ground (C,).

    Factors and what they leave in turn, starting with equally noisy bands. More factors than C bands can tell from
    noise, by the count of their covariances (Ledermann 1937, "On the rank of the reduced correlational matrix in
    multiple-factor analysis", Psychometrika 2), aren't asked for.
    """
    spectra = scene.spectra()
    moment, (c, n) = _moment(spectra), spectra.shape
    k = min(k, int((2 * c + 1 - (8 * c + 1) ** 0.5) / 2))
    power = moment.diagonal()
    least = (LEAST_NOISE * (power + LEAST_NOISE * power.mean())).clamp_min(DARK**2)
    noise, axes, root = power + least, moment[:, :k], moment[:, 0]
    for _ in range(STEPS):
        root = noise.sqrt()
        axes = _axes(moment, root)[:, :k]
        remains = torch.eye(c).to(axes) - axes @ axes.T
        left = (remains @ (moment / root / root[:, None]) * remains).sum(1)
        freedom = remains.diagonal().clamp_min(LEAST_FREEDOM) * max(n - k, 1) / n
        noise = (noise * left / freedom).maximum(least)
    coded = torch.einsum("ck,bchw->bkhw", (axes / root[:, None]).to(scene.lrhsi), scene.lrhsi)
    rest = scene.lrhsi - torch.einsum("ck,bkhw->bchw", (axes * root[:, None]).to(scene.lrhsi), coded)
    return noise, signal_share(rest, scene.mask).to(noise)


def _moment(spectra: Tensor) -> Tensor:
    """Second moments (C, C) of spectra (C, n)."""
    return (spectra.double() @ spectra.double().T) / spectra.shape[1]


def _axes(moment: Tensor, root: Tensor) -> Tensor:
    """Principal axes (C, C) of spectra divided by `root` (C,)."""
    return principal_axes(moment / root / root[:, None])[1]


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
    correlation = (covariance[0] + covariance[1]) / 2 / variance.clamp_min(torch.finfo(variance.dtype).tiny)
    return (correlation / SIGNAL_CORRELATION).clamp(0, 1)

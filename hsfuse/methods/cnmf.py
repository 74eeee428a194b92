"""Coupled non-negative matrix factorisation: the same abundances explain both images.

Yokoya, Yairi, Iwasaki 2012, "Coupled nonnegative matrix factorization unmixing for hyperspectral and multispectral
data fusion", IEEE TGRS 50(2): X = M S(A), Y = N A with endmembers M (C, P), their MSI signatures N (c, P), at first
R M, and abundances A >= 0 summing to 1 (a weighted row of ones), all by multiplicative updates (Lee, Seung 2001).

Different here: the paper alternates two separate factorisations, passing abundances between them; here one objective

    F = 1/2 |X - M S(A)|^2 + 1/2 |Y - N A|^2 + sum_to_one / 2 |1 - 1^T A|^2

(each image weighted by size and energy) is lowered by every update, S being the observation model itself:

    A <- A * (wx S'(M'X) + wy N'Y + wo 1) / (wx S'S(M'M A) + wy N'N A + wo 1 1'A)
    M <- M * (X S(A)') / (M S(A) S(A)')        N <- N * (Y A') / (N A A')

Abundances are extrapolated between updates as Ang, Gillis 2019, "Accelerating nonnegative matrix factorization
algorithms using extrapolation", Neural Computation 31(2), do for other updates; here in the logarithm, so that they
stay positive: 100 updates then reach a lower F than 600 without.

M and N are learned on the scene's sample, starting from pure pixels found by successive projection (Araujo et al.
2001); a tile then only needs its abundances, which start from the LRHSI's, interpolated.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Self

import torch
from torch import Tensor

from hsfuse.methods import Method, Requirements
from hsfuse.methods.problem import mix
from hsfuse.methods.subspace import DARK, fit_subspace
from hsfuse.physics.model import ObservationModel
from hsfuse.physics.sample import PairSample

#: RMS of the LRHSI that the constants below are for, a usual reflectance: images are brought to it first.
USUAL = 0.2
#: Keeps quotients finite and factors positive.
TINY = 1e-9
#: Mean square of an image, brought to the usual, below which it is dark and its energy isn't divided by.
LEAST_ENERGY = 1e-12
#: Weight of the MSI's misfit when both images are scaled to equal energy.
MSI_WEIGHT = 2.0
#: Exponent of the last change by which an update's starting point is carried on, and the largest change that counts.
MOMENTUM = 0.9
MOST_AHEAD = 5.0
#: Updates of the LRHSI's own abundances, s^2 times cheaper than a tile's.
START_UPDATES = 400


class CNMF(Method):
    """HRHSI (B, C, H, W) = M A with non-negative endmembers M and abundances A."""

    id = "cnmf"
    requirements = Requirements(halo=8)
    model: ObservationModel

    def __init__(
        self, endmembers: int = 30, outer: int = 10, inner: int = 20, iterations: int = 100, sum_to_one: float = 0.3
    ) -> None:
        self.endmembers, self.outer, self.inner = endmembers, outer, inner
        self.iterations, self.sum_to_one = iterations, sum_to_one

    @torch.no_grad()
    def fit(self, scene: PairSample, model: ObservationModel) -> Self:
        """Learn M and N by alternating updates on the scene's sample."""
        self.learn(scene, model)
        return self

    def learn(self, scene: PairSample, model: ObservationModel) -> Tensor:
        """The same, giving the sample's abundances (n, P, H, W)."""
        self.model = model
        self.level = max(float(scene.spectra().clamp_min(0).square().mean().sqrt()) / USUAL, DARK)
        scene = replace(scene, lrhsi=scene.lrhsi / self.level, msi=scene.msi / self.level)
        spectra = scene.spectra().clamp_min(0)
        self.weight_x = model.ratio**2 / max(float(spectra.square().mean()), LEAST_ENERGY)
        per_band = len(spectra) / scene.msi.shape[1] / max(float(scene.msi.square().mean()), LEAST_ENERGY)
        self.weight_y = MSI_WEIGHT * per_band
        self.weight_one = self.sum_to_one * len(spectra)
        self.m = spectra[:, pure_pixels(spectra, self.endmembers)].clamp_min(TINY)
        self.n = (model.srf.to(self.m) @ self.m).clamp_min(TINY)
        blocks = list(zip(scene.lrhsi.split(1), scene.msi.split(1), strict=True))
        a = torch.cat([self._start(lrhsi) for lrhsi, _ in blocks])
        for _ in range(self.outer):
            for part, (lrhsi, msi) in zip(a.split(1), blocks, strict=True):  # one at a time takes less memory
                part.copy_(self._update_abundances(part, lrhsi, msi, self.inner))
            self._update_endmembers(a, scene)
        return a

    @torch.no_grad()
    def predict(self, lrhsi: Tensor, msi: Tensor) -> Tensor:
        """Unmix the tile's abundances and mix them again with M."""
        return mix(self.level * self.m, self.abundances(lrhsi, msi)).float()

    @torch.no_grad()
    def abundances(self, lrhsi: Tensor, msi: Tensor) -> Tensor:
        """Abundances A (B, P, H, W) of tiles."""
        lrhsi, msi = lrhsi / self.level, msi / self.level
        return self._update_abundances(self._start(lrhsi), lrhsi, msi, self.iterations)

    def objective(self, a: Tensor, lrhsi: Tensor, msi: Tensor) -> float:
        """F for abundances (B, P, H, W)."""
        lrhsi, msi = lrhsi / self.level, msi / self.level
        x = (lrhsi.clamp_min(0) - mix(self.m, self.model.spatial(a))).square().sum() * self.weight_x
        y = (msi.clamp_min(0) - mix(self.n, a)).square().sum() * self.weight_y
        return float(x + y + self.weight_one * (1 - a.sum(1)).square().sum()) / 2

    def _start(self, lrhsi: Tensor) -> Tensor:
        """Abundances of the LRHSI alone, interpolated: (B, P, H, W)."""
        x = mix(self.m.T, lrhsi.clamp_min(0)) + self.sum_to_one
        gram = self.m.T @ self.m + self.sum_to_one
        a = _updated(torch.full_like(x, 1 / self.m.shape[1]), x, lambda a: mix(gram, a), START_UPDATES)
        return self.model.upsample(a).clamp_min(1e-4)

    def _update_abundances(self, a: Tensor, lrhsi: Tensor, msi: Tensor, steps: int) -> Tensor:
        down, back = self.model.spatial, self.model.spatial_adjoint
        gram_x = self.weight_x * self.m.T @ self.m
        gram_y = self.weight_y * self.n.T @ self.n + self.weight_one
        goal = self.weight_x * back(mix(self.m.T, lrhsi.clamp_min(0))) + self.weight_one
        goal = goal + self.weight_y * mix(self.n.T, msi.clamp_min(0))
        return _updated(a, goal, lambda a: back(mix(gram_x, down(a))).add_(mix(gram_y, a)), steps)

    def _update_endmembers(self, a: Tensor, scene: PairSample) -> None:
        """One multiplicative step of M and N on the sample's valid pixels."""
        low, fine = self.model.spatial(a), scene.mask.repeat_interleave(self.model.ratio, 1)
        fine = fine.repeat_interleave(self.model.ratio, 2)
        self.m = _factor_step(self.m, scene.spectra().clamp_min(0), low.transpose(0, 1)[:, scene.mask])
        self.n = _factor_step(self.n, scene.msi.clamp_min(0).transpose(0, 1)[:, fine], a.transpose(0, 1)[:, fine])

    def describe(self) -> dict[str, str]:
        """Number of endmembers and updates."""
        return {"method": self.id, "endmembers": str(self.m.shape[1]), "updates per tile": str(self.iterations)}


def _updated(a: Tensor, goal: Tensor, image: Callable[[Tensor], Tensor], steps: int) -> Tensor:
    """Extrapolated multiplicative updates of non-negative a (B, P, H, W) towards image(a) = goal in least squares."""
    ahead = a
    for _ in range(steps):
        last, a = a, (ahead * goal).div_(image(ahead).add_(TINY))
        ahead = (a / last.clamp_min(TINY)).clamp_(1 / MOST_AHEAD, MOST_AHEAD).pow_(MOMENTUM).mul_(a)
    return a


def _factor_step(m: Tensor, x: Tensor, a: Tensor) -> Tensor:
    """Lee and Seung's update of m (C, P) in x (C, n) = m a, a (P, n)."""
    return m * (x @ a.T) / (m @ (a @ a.T) + TINY)


def pure_pixels(spectra: Tensor, count: int) -> Tensor:
    """Indices of up to `count` spectra (C, n) that span them best, by successive projection in their subspace."""
    count = min(count, *spectra.shape)
    left = fit_subspace(spectra, count).project(spectra[None, :, None])[0, :, 0].double()
    chosen = []
    for _ in range(count):
        best = left.square().sum(0).argmax()
        chosen.append(best)
        axis = left[:, best] / left[:, best].norm().clamp_min(DARK)
        left = left - axis[:, None] * (axis @ left)
    return torch.stack(chosen)


def factorise(spectra: Tensor, count: int, updates: int = 100) -> Tensor:
    """Non-negative factor M (C, P) of non-negative spectra (C, n), P up to `count`, started at pure pixels."""
    level = max(float(spectra.square().mean().sqrt()) / USUAL, DARK)
    spectra = spectra / level
    m = spectra[:, pure_pixels(spectra, count)].clamp_min(TINY)
    a = torch.full((m.shape[1], spectra.shape[1]), 1 / m.shape[1], dtype=m.dtype, device=m.device)
    seen, gram = m.T @ spectra, m.T @ m
    for i in range(2 * updates):
        if i >= updates:
            m = _factor_step(m, spectra, a)
            seen, gram = m.T @ spectra, m.T @ m
        for _ in range(3 if i >= updates else 1):
            a = a * seen / (gram @ a + TINY)
    return level * m

"""Coupled non-negative matrix factorisation: the same abundances explain both images.

Yokoya, Yairi, Iwasaki 2012, "Coupled nonnegative matrix factorization unmixing for hyperspectral and multispectral
data fusion", IEEE TGRS 50(2): X = M S(A), Y = N A with endmembers M (C, P), their MSI signatures N (c, P), at first
R M, and abundances A >= 0 summing to 1 (a weighted row of ones).

Different here: the paper alternates two separate factorisations by multiplicative updates, passing abundances between
them; here one objective is lowered,

    F = wx/2 |X - M S(A)|^2 + wy/2 |Y - N A|^2 + wo/2 |1 - 1^T A|^2

(each image weighted by size and energy), S being the observation model itself. Its abundances come by ADMM (Boyd et al.
2011, "Distributed optimization and statistical learning via the alternating direction method of multipliers", sections
3.4.3 and 5.2; for unmixing Bioucas-Dias, Figueiredo 2010, SUnSAL): without A >= 0 they have a closed form
(`variational.SylvesterSolver`). The penalty is the larger the rarer a material is in the scene, and one that a place's
LR pixels don't hold stays away from it, much as under multiplicative updates, which change them in proportion:
what both images leave open then follows the interpolated start. Twenty solutions do better than a hundred
multiplicative updates. M and N follow by Lee and Seung's updates (2001),

    M <- M * (X S(A)') / (M S(A) S(A)')        N <- N * (Y A') / (N A A')

M and N are learned on the scene's sample, starting from pure pixels found by successive projection (Araujo et al.
2001); a tile then only needs its abundances, which start from the LRHSI's, interpolated.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Self

import torch
from torch import Tensor

from hsfuse.methods import Method, Requirements
from hsfuse.methods.problem import mix
from hsfuse.methods.subspace import DARK, fit_subspace
from hsfuse.methods.variational import SylvesterSolver
from hsfuse.physics.model import ObservationModel
from hsfuse.physics.sample import PairSample
from hsfuse.physics.solve import inverse_spd

#: RMS of the LRHSI that the constants below are for, a usual reflectance: images are brought to it first.
USUAL = 0.2
#: Keeps quotients finite and factors positive.
TINY = 1e-9
#: Mean square of an image, brought to the usual, below which it is dark and its energy isn't divided by.
LEAST_ENERGY = 1e-12
#: Weight of the MSI's misfit when both images are scaled to equal energy.
MSI_WEIGHT = 2.0
#: Penalty of a material of mean abundance relative to what both images weigh, and how many times that a rarer one has
#: at most. A smaller penalty ends nearer to the noise, a larger one nearer to the interpolated start.
PENALTY, MOST_PENALTY = 0.1, 20.0
#: How far each step goes beyond its solution.
BEYOND = 1.8
#: Abundance in the interpolated start below which a material is not there.
ABSENT = 5e-3
#: Abundance at most, in units of how far the start is above that.
PRESENT = 50.0
#: Updates of M and N for each update of the abundances.
FACTOR_STEPS = 4
#: Weight of the LRHSI, relative to all else, in a direction of abundances in which it isn't looked at.
NEGLIGIBLE = 5e-3
#: Accuracy of a step's solution where the PSF leaves it no closed form.
TOLERANCE = 1e-4
#: Steps for the LRHSI's own abundances, s^2 times cheaper than a tile's.
START_STEPS = 40
#: Numbers of an image worked on at a time: what fits a processor's cache with as many of four others, elsewhere all.
ENTRIES = {"cpu": 1 << 16}


class CNMF(Method):
    """HRHSI (B, C, H, W) = M A with non-negative endmembers M and abundances A."""

    id = "cnmf"
    requirements = Requirements(halo=8)
    model: ObservationModel

    def __init__(
        self, endmembers: int = 30, outer: int = 10, inner: int = 4, iterations: int = 20, sum_to_one: float = 0.1
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
        starts = [self._start(lrhsi) for lrhsi, _ in blocks]
        states = [start.clone() for start in starts]
        for _ in range(self.outer):
            self._set_solver(torch.cat(starts).mean((0, 2, 3)))
            for start, state, block in zip(starts, states, blocks, strict=True):
                self._steps(state, start, *block, self.inner)
            self._update_endmembers(torch.cat(list(map(_present, states, starts))), scene)
        abundances = torch.cat(list(map(_present, states, starts)))
        self._set_solver(abundances.mean((0, 2, 3)))
        return abundances

    def _set_solver(self, usual: Tensor) -> None:
        """What abundances would be without A >= 0, near to given ones; `usual` (P,) are the scene's mean ones."""
        gram_x = self.weight_x * self.m.T.double() @ self.m.double()
        gram_y = self.weight_y * self.n.T.double() @ self.n.double() + self.weight_one
        weight = gram_y.diagonal().mean() + gram_x.diagonal().mean() / self.model.ratio**2
        rarity = (usual.mean() / usual.clamp_min(TINY)).clamp(1 / MOST_PENALTY, MOST_PENALTY).to(weight)
        self.penalty = (PENALTY * weight * rarity).to(self.m)
        self.solver = SylvesterSolver(self.model, gram_x, gram_y + torch.diag(PENALTY * weight * rarity), NEGLIGIBLE)

    @torch.no_grad()
    def predict(self, lrhsi: Tensor, msi: Tensor) -> Tensor:
        """Unmix the tile's abundances and mix them again with M."""
        return mix(self.level * self.m, self.abundances(lrhsi, msi)).float()

    @torch.no_grad()
    def abundances(self, lrhsi: Tensor, msi: Tensor) -> Tensor:
        """Abundances A (B, P, H, W) of tiles."""
        lrhsi, msi = lrhsi / self.level, msi / self.level
        start = self._start(lrhsi)
        return _present(self._steps(start.clone(), start, lrhsi, msi, self.iterations), start)

    def _start(self, lrhsi: Tensor) -> Tensor:
        """Abundances of the LRHSI alone, interpolated: (B, P, H, W)."""
        x = mix(self.m.T, lrhsi.clamp_min(0)) + self.sum_to_one
        gram = self.m.T.double() @ self.m.double() + self.sum_to_one
        penalty = PENALTY * float(gram.diagonal().mean())
        inverse = inverse_spd(gram + penalty * torch.eye(len(gram)).to(gram))
        state = torch.full_like(x, 1 / len(gram))
        for _ in range(START_STEPS):
            a = state.clamp_min(0)
            state += BEYOND * (mix(inverse, x + penalty * (2 * a - state)) - a)
        return self.model.upsample(state.clamp_min(0))

    def _steps(self, state: Tensor, start: Tensor, lrhsi: Tensor, msi: Tensor, steps: int) -> Tensor:
        """Steps towards the minimum of F, in place: `state` and the `start` that tells what is where (B, P, H, W).

        The state is A plus the scaled multipliers. One of the two is 0: A is the positive part, where A may be.
        """
        told, signatures = self.weight_x * mix(self.m.T, lrhsi.clamp_min(0)), self.weight_y * self.n.T
        goal = self.model.spatial_adjoint(told) + self.weight_one + mix(signatures, msi.clamp_min(0))
        seen = self.model.spatial(goal)
        twice, alone = 2 * self.penalty.to(goal), self.solver.alone.to(goal)
        told = mix(alone, told)
        # By rows, of which some at a time stay in the processor's cache: (B H, channels, W). `near` also holds the MSI
        # and ones, from which one product makes what is constant of the goal; of the LRHSI that is told on its grid.
        now, most = _by_rows(state), _by_rows(_most(start))
        near = torch.cat([torch.empty_like(now), _by_rows(msi.clamp_min(0)), torch.ones_like(now[:, :1])], 1)
        one = torch.full_like(twice, self.weight_one)
        mixed = BEYOND * alone @ torch.cat([torch.diag(twice), signatures.to(goal), one[:, None]], 1)
        at_once = max(1, ENTRIES.get(now.device.type, now.numel()) // now[0].numel())
        parts, none = list(zip(*(x.split(at_once) for x in (now, near, most)), strict=True)), now.new_zeros(())
        images, back = near[:, : len(twice)].unflatten(0, (len(state), -1)), torch.zeros_like(now)
        for _ in range(steps):
            for (s, n, bound), taken in zip(parts, back.split(at_once), strict=True):
                a = torch.clamp(s.sub_(taken, alpha=BEYOND), none, bound)
                torch.sub(a, s, alpha=0.5, out=n[:, : len(twice)])
                s.sub_(a, alpha=BEYOND).baddbmm_(mixed.expand(len(s), -1, -1), n)
            low = self.model.spatial(images, by_rows=True).transpose(1, 2) * twice[:, None, None]
            low = self.solver.coupling(low.add_(seen), TOLERANCE).sub_(told)
            back = self.model.spatial_adjoint(low.transpose(1, 2), by_rows=True).flatten(0, 1)
        now.sub_(back, alpha=BEYOND)
        return state.copy_(now.unflatten(0, (len(state), -1)).transpose(1, 2))

    def _update_endmembers(self, a: Tensor, scene: PairSample) -> None:
        """Multiplicative steps of M and N on the sample's valid pixels."""
        low, fine = self.model.spatial(a), scene.mask.repeat_interleave(self.model.ratio, 1)
        fine = fine.repeat_interleave(self.model.ratio, 2)
        self.m = _factor_steps(self.m, scene.spectra().clamp_min(0), low.transpose(0, 1)[:, scene.mask])
        self.n = _factor_steps(self.n, scene.msi.clamp_min(0).transpose(0, 1)[:, fine], a.transpose(0, 1)[:, fine])

    def describe(self) -> dict[str, str]:
        """Number of endmembers and updates."""
        return {"method": self.id, "endmembers": str(self.m.shape[1]), "steps per tile": str(self.iterations)}


def _by_rows(x: Tensor) -> Tensor:
    """(B, P, H, W) -> (B H, P, W)."""
    return x.transpose(1, 2).flatten(0, 1).contiguous()


def _present(state: Tensor, start: Tensor) -> Tensor:
    """Abundances of a state: none below 0, and none of what isn't there from the start.

    What is there may be had up to a bound that rises with it: a switch would make roundings into materials.
    """
    return torch.minimum(state, _most(start)).clamp_min_(0)


def _most(start: Tensor) -> Tensor:
    return (start - ABSENT).clamp_min_(0).mul_(PRESENT)


def _factor_steps(m: Tensor, x: Tensor, a: Tensor, count: int = FACTOR_STEPS) -> Tensor:
    """Lee and Seung's updates of m (C, P) in x (C, n) = m a, a (P, n)."""
    seen, gram = x @ a.T, a @ a.T
    for _ in range(count):
        m = m * seen / (m @ gram + TINY)
    return m


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
            m = _factor_steps(m, spectra, a, 1)
            seen, gram = m.T @ spectra, m.T @ m
        for _ in range(3 if i >= updates else 1):
            a = a * seen / (gram @ a + TINY)
    return level * m

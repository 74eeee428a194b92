"""Subspace MAP whose spectra lean towards the cone of a learned non-negative dictionary.

Spectra of mixed pixels are non-negative combinations of the scene's materials (the idea of NSSR: Dong et al. 2016,
"Hyperspectral image super-resolution via non-negative structured sparse representation", IEEE TIP 25(5); of coupled
unmixing: Yokoya et al. 2012, and of its closed-form steps: Wei et al. 2016, "Multiband image fusion based on spectral
unmixing", IEEE TGRS 54(12)). Here the dictionary is a prior, not a constraint, so that a spectrum it lacks isn't lost:

    min over a, B >= 0   J(a) + 1/2 |a - m|^2_Z + k/2 |a - D B|^2_T

J is the data term, m the image of an adaptive regression on the denoised MSI, Z the covariance of that regression's
residual, D = E^T M the dictionary in the subspace, and T the covariance Z, its weak directions widened, plus that of
what the dictionary leaves of the LRHSI's own spectra: it counts only as far as it fits. The problem is convex.
Alternating: B by a few steps of ADMM per pixel (small matrices), a in closed form by the Sylvester equation.
M comes from a non-negative factorisation of the regression's high-resolution spectra and the LRHSI's together: LR
pixels alone are too mixed to span the scene's spectra.
"""

from __future__ import annotations

from typing import Self

import torch
from torch import Tensor

from hsfuse.methods import Method, Requirements, compose
from hsfuse.methods.cnmf import factorise
from hsfuse.methods.denoise import denoise, gaussian_blur
from hsfuse.methods.problem import (
    CONSTANT,
    AffineMap,
    Pairs,
    fit_affine,
    fit_problem,
    lr_pairs,
    mix,
    msi_noise,
    with_products,
)
from hsfuse.methods.subspace import DARK, SpectralSubspace, signal_share
from hsfuse.methods.variational import detail_ratio, prior_covariance, solver_of
from hsfuse.physics.model import ObservationModel
from hsfuse.physics.sample import PairSample
from hsfuse.physics.solve import inverse_spd, solve_spd, whitener_spd

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
        self.whiten = whitener_spd(torch.atleast_2d(covariance))
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
    return solve_spd(moments(features) + damping, moments(targets)).permute(3, 0, 4, 1, 2)


def _with_constant(z: Tensor) -> Tensor:
    return torch.cat([z, torch.ones_like(z[:, :1])], 1)


#: High-resolution spectra that the dictionary is learned from.
SPECTRA = 2000
#: Least variance of T, relative to the largest.
LEAST_CONE_VARIANCE = 1e-2
#: ADMM penalty of the per-pixel coding relative to its quadratic term, and steps per alternation.
CODING_PENALTY = 0.05
CODING_STEPS = 8
#: The first alternation takes this many times the steps.
FIRST_STEPS = 3
#: How far each step goes beyond its solution: over-relaxation as in Boyd et al. 2011 (see `cnmf.py`), section 3.4.3.
BEYOND = 1.8
#: Accuracy of an alternation's correction where the PSF leaves it no closed form.
TOLERANCE = 1e-3
#: Pixels coded together: few enough for the processor's cache.
CODED_AT_ONCE = 4096


class Conic(Method):
    """HRHSI (B, C, H, W) from a convex problem in the subspace; per tile, after the scene's statistics are fitted."""

    id = "conic"
    requirements = Requirements(halo=12)
    model: ObservationModel

    def __init__(self, dimension: int = 16, atoms: int = 40, strength: float = 3.0, alternations: int = 4) -> None:
        self.dimension, self.atoms, self.strength, self.alternations = dimension, atoms, strength, alternations

    @torch.no_grad()
    def fit(self, scene: PairSample, model: ObservationModel) -> Self:
        """Estimate noise, subspace, regression, prior covariances and dictionary."""
        self.model, self.noise = model, msi_noise(scene)
        clean = PairSample(scene.lrhsi, denoise(scene.msi, self.noise), scene.mask)
        self.problem = fit_problem(scene, model, self.dimension)
        pairs = lr_pairs(clean, model)
        self.regression = AdaptiveRegression(
            pairs, self.problem.subspace.basis.to(pairs.lrhsi).T @ pairs.lrhsi, self.noise
        )
        self.share = signal_share(self.problem.subspace.residual(scene.lrhsi), scene.mask)
        self._fit_priors(prior_covariance(self.regression.residual, detail_ratio(clean, model)))
        self._fit_dictionary(clean)
        return self

    def _fit_priors(self, covariance: Tensor) -> None:
        eye = torch.eye(len(covariance), dtype=covariance.dtype, device=covariance.device)
        self.precision = inverse_spd(covariance)
        self.first_solver = solver_of(self.problem, self.precision)
        self.cone_covariance = covariance + LEAST_CONE_VARIANCE * covariance.diagonal().max() * eye

    def _fit_dictionary(self, clean: PairSample) -> None:
        """D from a sample of spectra; T from what D, coded with as many steps as a tile, leaves of the LR spectra."""
        basis = self.problem.subspace.basis.double()
        self.dictionary = basis.T @ factorise(self._spectra(clean), self.atoms)
        self._set_cone_covariance(self.cone_covariance)
        low = (basis.T @ clean.spectra().double())[None, :, :, None]
        state = self._code(low, None, CODING_STEPS * (self.alternations + FIRST_STEPS - 1))
        left = (low - mix(self.dictionary, state.clamp_min(0)))[0, :, :, 0]
        self._set_cone_covariance(self.cone_covariance + left @ left.T / left.shape[1])

    def _spectra(self, clean: PairSample) -> Tensor:
        """The LRHSI's spectra and a repeatable sample of the regression's, non-negative: (C, n)."""
        blocks = zip(clean.lrhsi.split(1), clean.msi.split(1), strict=True)
        images = torch.cat([self._mean(lrhsi, msi) for lrhsi, msi in blocks]).transpose(0, 1)
        s = self.model.ratio
        sharp = images[:, clean.mask.repeat_interleave(s, 1).repeat_interleave(s, 2)]
        order = torch.randperm(sharp.shape[1], generator=torch.Generator().manual_seed(0))[:SPECTRA].to(sharp.device)
        sharp = self.subspace.basis.to(sharp) @ sharp[:, order]
        low = clean.spectra()
        low = low[:, :: max(1, low.shape[1] // SPECTRA)]
        return torch.cat([sharp, low], 1).clamp_min(0).double()

    def _set_cone_covariance(self, covariance: Tensor) -> None:
        """Precision, solver and coding matrices that follow from T's covariance."""
        self.cone_precision = self.strength * inverse_spd(covariance)
        self.solver = solver_of(self.problem, self.precision + self.cone_precision)
        gram = self.dictionary.T @ self.cone_precision @ self.dictionary
        self.penalty = CODING_PENALTY * float(gram.diagonal().mean())
        self.coder = inverse_spd(gram, ridge=CODING_PENALTY)

    def _mean(self, lrhsi: Tensor, msi: Tensor) -> Tensor:
        return self.regression.mean(self.problem.subspace.project(lrhsi), msi, self.model)

    @torch.no_grad()
    def predict(self, lrhsi: Tensor, msi: Tensor) -> Tensor:
        """Solve the tile; what the LRHSI has outside the subspace is interpolated, as far as it is signal."""
        return compose(self.subspace, self.model, self.coefficients(lrhsi, msi), self.outside_low(lrhsi)).float()

    @property
    def subspace(self) -> SpectralSubspace:
        """The problem's subspace."""
        return self.problem.subspace

    @torch.no_grad()
    def coefficients(self, lrhsi: Tensor, msi: Tensor) -> Tensor:
        """Fused coefficients (B, K, H, W)."""
        return self.solve(lrhsi, denoise(msi, self.noise))

    def outside_low(self, lrhsi: Tensor) -> Tensor:
        """What is added outside the subspace, before interpolation: (B, C, h, w)."""
        return self.share.to(lrhsi)[:, None, None] * self.subspace.residual(lrhsi)

    def solve(self, lrhsi: Tensor, msi: Tensor) -> Tensor:
        """The coefficients (B, K, H, W) for a denoised MSI."""
        mean = self._mean(lrhsi, msi)
        a = mean + self.first_solver.solve(self.problem.descent(mean, lrhsi, msi), tolerance=TOLERANCE)
        state = None
        for i in range(self.alternations):
            state = self._code(a, state, CODING_STEPS * (1 if i else FIRST_STEPS))
            nearest = mix(self.dictionary, state.clamp_min(0))
            priors = mix(self.precision, mean - a) + mix(self.cone_precision, nearest - a)
            a = a + self.solver.solve(self.problem.descent(a, lrhsi, msi) + priors, tolerance=TOLERANCE)
        return a

    def _code(self, a: Tensor, state: Tensor | None, steps: int) -> Tensor:
        """Steps of ADMM towards the non-negative codes closest to a (B, K, H, W): the state (B, P, H, W) after them.

        The state is the unconstrained code plus the scaled multipliers: its positive part is the code, its negative
        part the multipliers of the next step, so that the code less those is its absolute value.
        """
        towards = BEYOND * self.coder @ self.dictionary.T @ self.cone_precision
        coder = self.penalty * self.coder - torch.eye(len(self.coder)).to(self.coder) / 2
        towards, coder = (x.to(a).expand(len(a), -1, -1) for x in (towards, coder))
        parts = a.flatten(2).split(CODED_AT_ONCE, 2)
        states = [None] * len(parts) if state is None else state.flatten(2).split(CODED_AT_ONCE, 2)
        coded = [_coded(towards @ x, y, coder, steps) for x, y in zip(parts, states, strict=True)]
        return torch.cat(coded, 2).unflatten(2, a.shape[2:])

    def describe(self) -> dict[str, str]:
        """Settings and estimates."""
        atoms = str(self.dictionary.shape[1])
        return {"method": self.id, **self.problem.describe(), "dictionary": atoms, "strength": f"{self.strength:g}"}


def _coded(target: Tensor, state: Tensor | None, coder: Tensor, steps: int) -> Tensor:
    """state <- state + BEYOND (coder |state| - state / 2) + target, `steps` times: (B, P, pixels).

    With max(state, 0) = (state + |state|) / 2 that is ADMM's step, whose matrix has 1/2 more on its diagonal.
    """
    state = torch.zeros_like(target) if state is None else state.clone(memory_format=torch.contiguous_format)
    size = torch.empty_like(state)
    for _ in range(steps):
        state.baddbmm_(coder, torch.abs(state, out=size), beta=1 - BEYOND / 2, alpha=BEYOND).add_(target)
    return state

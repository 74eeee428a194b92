"""The quadratic data term that the model-based methods share, in the subspace.

    J(a) = 1/2 |X - E S(a)|^2 / noise_x  +  1/2 |Y - Q a - q|^2 / noise_y

S is the observation model's blur and decimation, Q (c, K) what the MSI sees of the subspace. Q is R E with a correction
regressed on the scene, so that a gain or an offset between the two sensors isn't taken for spatial detail (the SRF
estimation of Simoes et al. 2015, "A convex formulation for hyperspectral image superresolution via subspace-based
regularization", IEEE TGRS 53(6), section IV, here as a shrunken correction to the known response).
Noise variances are measured: outside the subspace for the LRHSI, from the finest diagonal differences for the MSI.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from hsfuse.calibration.spectra import paired_spectra
from hsfuse.core.errors import InputError
from hsfuse.methods.subspace import DARK, SpectralSubspace, scene_subspace
from hsfuse.physics.model import ObservationModel
from hsfuse.physics.sample import PairSample
from hsfuse.physics.solve import inverse_spd, solve_spd

#: Ridge term of every regression, relative to the mean variance of its features.
RIDGE = 1e-6
#: Features that vary by less than this share of their RMS are constant but for rounding.
CONSTANT = 1e-6
#: Least variance of noise that is assumed, relative to the mean square of all bands: of one that is empty.
EMPTY = 1e-11


@dataclass(frozen=True)
class Pairs:
    """Valid LR pixels in double precision: `lrhsi` (C, n) and the MSI seen at the same resolution, `msi` (c, n)."""

    lrhsi: Tensor
    msi: Tensor


@torch.no_grad()
def lr_pairs(scene: PairSample, model: ObservationModel) -> Pairs:
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
    damping = (ridge * moment.diagonal().mean()).maximum(least)
    eye = torch.eye(len(moment), dtype=moment.dtype, device=moment.device)
    if noise is not None:
        moment = moment + features.shape[1] * torch.diag(noise.to(moment))
    weight = solve_spd(moment + damping * eye, centred @ (targets - mean_t).T).T
    return AffineMap(weight, (mean_t - weight @ mean_f)[:, 0])


def synthetic_bands(scene: PairSample, model: ObservationModel) -> tuple[AffineMap, Pairs]:
    """The MSI as seen by each HSI band, regressed on the LR grid, and the pairs it was regressed on.

    Hypersharpening: Selva et al. 2015, "Hyper-sharpening: a first approach on SIM-GA data", IEEE JSTARS 8(6).
    """
    pairs = lr_pairs(scene, model)
    return fit_affine(pairs.msi, pairs.lrhsi), pairs


#: Least noise assumed, relative to a band's RMS (56 dB): noise-free data must still be solvable.
LEAST_NOISE = 1.5e-3
#: Side of the blocks that the MSI's noise is measured in, in Haar coefficients, and the quantile of the blocks taken.
NOISE_BLOCK = 6
QUIET_BLOCKS = 0.25
#: Ridge of the correction to R E: only what the scene shows clearly is corrected.
CORRECTION_RIDGE = 1e-3


@dataclass(frozen=True)
class FusionProblem:
    """J and its pieces: E, `response` Q (c, K), `offset` q (c,), noise variances `noise_x` (C,), `noise_y` (c,)."""

    model: ObservationModel
    subspace: SpectralSubspace
    response: Tensor
    offset: Tensor
    noise_x: Tensor
    noise_y: Tensor

    @property
    def spatial_weight(self) -> Tensor:
        """E^T E / noise_x: (K, K)."""
        e = self.subspace.basis.to(self.noise_x)
        return e.T @ (e / self.noise_x[:, None])

    @property
    def estimator(self) -> Tensor:
        """(K, C): coefficients of LR spectra by least squares weighted with the noise."""
        weighted = (self.subspace.basis.to(self.noise_x) / self.noise_x[:, None]).T
        return solve_spd(self.spatial_weight, weighted)

    @property
    def spectral_weight(self) -> Tensor:
        """Q^T Q / noise_y: (K, K)."""
        return self.response.T @ (self.response / self.noise_y[:, None])

    def descent(self, a: Tensor, lrhsi: Tensor, msi: Tensor) -> Tensor:
        """-J'(a) for a (B, K, H, W), LRHSI (B, C, h, w), MSI (B, c, H, W); from misfits, so exact in float32 too."""
        misfit_x, misfit_y = self.misfits(a, lrhsi, msi)
        weighted_basis = self.subspace.basis.to(self.noise_x) / self.noise_x[:, None]
        from_x = self.model.spatial_adjoint(mix(weighted_basis.T, misfit_x))
        return from_x + mix((self.response / self.noise_y[:, None]).T, misfit_y)

    def misfits(self, a: Tensor, lrhsi: Tensor, msi: Tensor) -> tuple[Tensor, Tensor]:
        """What both images have and a doesn't give: (B, C, h, w), (B, c, H, W)."""
        misfit_x = lrhsi - self.subspace.unproject(self.model.spatial(a))
        return misfit_x, msi - self.offset.to(msi)[:, None, None] - mix(self.response, a)

    def hessian(self) -> Callable[[Tensor], Tensor]:
        """J'' as a function on (B, K, H, W)."""
        p, q = self.spatial_weight, self.spectral_weight

        def apply(a: Tensor) -> Tensor:
            return self.model.spatial_adjoint(mix(p, self.model.spatial(a))) + mix(q, a)

        return apply

    def value(self, a: Tensor, lrhsi: Tensor, msi: Tensor) -> float:
        """J(a)."""
        misfit_x, misfit_y = self.misfits(a, lrhsi, msi)
        weighted = (misfit_x.square() / self.noise_x.to(a)[:, None, None]).sum()
        return float(weighted + (misfit_y.square() / self.noise_y.to(a)[:, None, None]).sum()) / 2

    def describe(self) -> dict[str, str]:
        """Subspace dimension and estimated noise, as reflectance."""
        noise_x, noise_y = self.noise_x.mean().sqrt(), self.noise_y.mean().sqrt()
        return {
            "subspace": str(self.subspace.dimension),
            "estimated noise": f"LRHSI {float(noise_x):.2g}, MSI {float(noise_y):.2g}",
        }


def mix(matrix: Tensor, x: Tensor) -> Tensor:
    """A matrix (q, p) on every pixel: (B, p, H, W) -> (B, q, H, W)."""
    return torch.einsum("qp,bphw->bqhw", matrix.to(x), x)


@torch.no_grad()
def fit_problem(scene: PairSample, model: ObservationModel, dimension: int) -> FusionProblem:
    """Subspace, response and noise of a scene; `dimension` is lowered where the scene has fewer pixels or bands."""
    pairs = lr_pairs(scene, model)
    subspace = scene_subspace(scene, dimension)
    response, offset, misfit = _response(pairs, subspace, model)
    noise_y = misfit + msi_noise(scene)
    believed = noise_y / model.msi_weights.to(noise_y).square()
    return FusionProblem(model, subspace, response, offset, hsi_noise(pairs.lrhsi, subspace), believed)


def _response(pairs: Pairs, subspace: SpectralSubspace, model: ObservationModel) -> tuple[Tensor, Tensor, Tensor]:
    """Q (c, K), q (c,) and the variance per MSI band that they leave unexplained on the LR grid."""
    basis = subspace.basis.to(pairs.lrhsi)
    a, known = basis.T @ pairs.lrhsi, model.srf.to(pairs.lrhsi) @ basis
    correction = fit_affine(a, pairs.msi - known @ a, ridge=CORRECTION_RIDGE)
    misfit = pairs.msi - known @ a - correction.columns(a)
    return known + correction.weight, correction.offset, misfit.square().mean(1)


def hsi_noise(spectra: Tensor, subspace: SpectralSubspace) -> Tensor:
    """Noise variance per band from what the subspace leaves of spectra (C, n), for its degrees of freedom: (C,)."""
    basis = subspace.basis.to(spectra)
    (bands, pixels), k = spectra.shape, subspace.dimension
    freedom = max(1.0, (bands - k) * (pixels - k) / bands)
    measured = (spectra - basis @ (basis.T @ spectra)).square().sum(1) / freedom
    return believable(measured, spectra.square().mean(1))


def believable(noise: Tensor, power: Tensor) -> Tensor:
    """Noise variances (C,), at least what each band's `power` and all bands' (C,) make sensible."""
    return noise.maximum(LEAST_NOISE**2 * power).clamp_min(max(EMPTY * float(power.mean()), DARK**2))


def msi_noise(scene: PairSample) -> Tensor:
    """Noise variance per MSI band from the finest diagonal Haar coefficients: (c,).

    In every small block each band's coefficients are regressed on the other bands': texture is common to the bands,
    noise isn't (Roger, Arnold 1996, "Reliably estimating the noise in AVIRIS hyperspectral images", IJRS 17(10), across
    bands at one place in place of neighbours in both). What is left holds the band's own noise and, by the regression's
    weights, the others'. The lower quartile of the blocks is taken: the others' texture isn't explained by a plane.
    """
    moments, count = _block_moments(scene.msi.double())
    power, c = scene.msi.double().square().mean((0, 2, 3)), len(moments[0])
    least = max(EMPTY * float(power.mean()), DARK**2)
    eye = torch.eye(c, dtype=moments.dtype, device=moments.device)
    noise = moments.diagonal(dim1=1, dim2=2).quantile(QUIET_BLOCKS, 0).clamp_min(least)
    for _ in range(2):  # the second time in units of the first, since the weights count bands as equally noisy
        unit = moments / (noise.sqrt()[:, None] * noise.sqrt())
        level = unit.diagonal(dim1=1, dim2=2).mean(1)[:, None, None]
        inverse = inverse_spd(unit + (1e-6 * level + 1e-12) * eye)
        left = count / max(count - c + 1, 1) / inverse.diagonal(dim1=1, dim2=2)
        weights = inverse * (left * max(count - c + 1, 1) / count)[..., None]
        noise = noise * (left / weights.square().sum(2)).quantile(QUIET_BLOCKS, 0).clamp_min(1e-6)
    return believable(noise, power)


def _block_moments(y: Tensor) -> tuple[Tensor, int]:
    """Second moments (blocks, c, c) of the diagonal Haar coefficients of an MSI, and how many each block has."""
    rows, cols = (n // 2 * 2 for n in y.shape[2:])
    y = y[..., :rows, :cols]
    d = (y[..., ::2, ::2] - y[..., 1::2, ::2] - y[..., ::2, 1::2] + y[..., 1::2, 1::2]) / 2
    high, wide = (min(NOISE_BLOCK, n) for n in d.shape[2:])
    blocks = d.unfold(2, high, high).unfold(3, wide, wide).permute(0, 2, 3, 1, 4, 5).flatten(4).flatten(0, 2)
    return blocks @ blocks.mT / (high * wide), high * wide


def conjugate_gradients(
    apply: Callable[[Tensor], Tensor],
    rhs: Tensor,
    start: Tensor,
    precondition: Callable[[Tensor], Tensor],
    iterations: int,
    tolerance: float = 1e-6,
) -> Tensor:
    """Solve a symmetric positive definite system on images (B, K, H, W), each sample of the batch on its own.

    Hestenes, Stiefel 1952. A sample stops moving when its residual is below `tolerance` times its right-hand side.
    """
    x, residual = start, rhs - apply(start)
    z = precondition(residual)
    direction, rz = z, _inner(residual, z)
    goal, tiny = tolerance**2 * _inner(rhs, rhs), torch.finfo(rhs.dtype).tiny
    for _ in range(iterations):
        active = _inner(residual, residual) > goal
        if not bool(active.any()):
            break
        image = apply(direction)
        step = torch.where(active, rz / _inner(direction, image).clamp_min(tiny), 0.0)
        x, residual = x + step * direction, residual - step * image
        z = precondition(residual)
        rz, previous = _inner(residual, z), rz
        direction = z + rz / previous.clamp_min(tiny) * direction
    return x


def _inner(a: Tensor, b: Tensor) -> Tensor:
    """Inner product per sample: (B, 1, 1, 1)."""
    return (a * b).sum((1, 2, 3), keepdim=True)

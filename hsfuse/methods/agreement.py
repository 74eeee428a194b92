"""How an estimate is brought to agree with both images: the expected correction when its errors' covariance is known.

    a = a0 + d,   d ~ N(0, t^2 C) at each pixel on its own,   X = E S(a) + noise_x,   Y = Q a + q + noise_y

C (K, K) says how the estimate's errors go together, the map t where they are large; S, Q, q and the noise are those of
the model-based methods (`problem.py`). With T T' = C and T' Q' inv(noise_y) Q T = diag(v), what the MSI leaves open of
inv(T) d is uncorrelated, with variances b = t^2 / (1 + t^2 v), so that conditioning on Y is done pixel by pixel.
Conditioning on X then has its unknowns l on the LR grid, where it is small and well posed however exact the images are:

    d = d_y + T b S' l,     (S b S' + N) l = inv(T) (E^+ X - S (a0 + d_y))

N is the noise of the LR coefficients. Solved by a fixed number of Chebyshev steps (Golub, Varga 1961; Saad 2003,
"Iterative methods for sparse linear systems", algorithm 12.1), preconditioned by the system's own block at each LR
pixel. Conjugate gradients choose their steps from sums over the whole image: with them a pixel's value would depend on
the tile that it lies in.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from hsfuse.methods.problem import FusionProblem, mix
from hsfuse.physics.solve import inverse_spd, principal_axes, root_spd, whitener_spd

#: Chebyshev steps, and where they take the preconditioned system's least eigenvalue to be: rougher is left a little.
ITERATIONS, LEAST = 12, 0.15
#: Its largest eigenvalue relative to that where the correction may be equally large everywhere.
UNEVEN = 1.5
#: Least variance of a correction in any direction, relative to the largest.
LEAST_VARIANCE = 1e-6
#: Matrices inverted at a time: what fits a processor's cache, elsewhere all.
MATRICES = {"cpu": 512}


@dataclass(frozen=True)
class Agreement:
    """The correction's covariance is t^2 times `covariance` C (K, K); `mismatch` C counts as noise of the LRHSI."""

    problem: FusionProblem
    covariance: Tensor
    mismatch: float = 0.0

    def __call__(self, a: Tensor, lrhsi: Tensor, msi: Tensor, amount: Tensor) -> Tensor:
        """Coefficients a (B, K, H, W), LRHSI (B, C, h, w), MSI (B, c, H, W), t (B, 1, H, W) -> (B, K, H, W)."""
        missing_x, missing_y = self.problem.misfits(a, lrhsi, msi)
        return a + self._correction(mix(self.problem.estimator, missing_x), missing_y, amount)

    def left_open(self, d: Tensor, amount: Tensor) -> Tensor:
        """What of a change d (B, K, H, W) both images leave open: agreeing with d is agreeing, and this."""
        return d + self._correction(-self.problem.model.spatial(d), -mix(self.problem.response, d), amount)

    def _correction(self, missing_x: Tensor, missing_y: Tensor, amount: Tensor) -> Tensor:
        """The expected d for what is missing of the LR coefficients (B, K, h, w) and of the MSI (B, c, H, W)."""
        problem, model = self.problem, self.problem.model
        (axes, inverse), values = (x.to(amount) for x in self._axes[:2]), self._axes[2].to(amount)[:, None, None]
        open_ = amount.square() / (1 + amount.square() * values)
        seen = open_ * mix(axes.T @ (problem.response / problem.noise_y[:, None]).T.to(axes), missing_y)
        missing = mix(inverse, missing_x) - model.spatial(seen)
        noise = (inverse.double() @ self._noise @ inverse.double().T).to(amount)
        blocks = torch.diag_embed(model.spatial_squared(open_).movedim(1, -1)) + noise
        at_once = MATRICES.get(amount.device.type, blocks[..., 0, 0].numel())
        parts = blocks.flatten(0, 2).split(at_once)
        inverses = torch.cat([inverse_spd(part.double()).to(amount) for part in parts]).view_as(blocks)
        rows = open_.transpose(1, 2).contiguous()

        def apply(x: Tensor) -> Tensor:
            seen = model.spatial_adjoint(x.transpose(1, 2), by_rows=True).mul_(rows)
            return model.spatial(seen, by_rows=True).transpose(1, 2) + mix(noise, x)

        def precondition(x: Tensor) -> Tensor:
            return (inverses * x.movedim(1, -1)[..., None, :]).sum(-1).movedim(-1, 1)  # twice as quick as products here

        low = chebyshev(apply, precondition, missing, (LEAST, UNEVEN * self._largest))
        return mix(axes, seen + open_ * model.spatial_adjoint(low))

    @property
    def _noise(self) -> Tensor:
        """Covariance (K, K) of what else the LR coefficients hold."""
        noise = inverse_spd(self.problem.spatial_weight.double())
        return noise + self.mismatch * self.covariance.to(noise)

    @cached_property
    def _axes(self) -> tuple[Tensor, Tensor, Tensor]:
        """T and its inverse (K, K), v (K,)."""
        c = self.covariance.double()
        c = c + LEAST_VARIANCE * c.diagonal().max() * torch.eye(len(c)).to(c)
        root = root_spd(c)
        seen = self.problem.response.to(c) @ root
        values, vectors = principal_axes(seen.T @ (seen / self.problem.noise_y.to(c)[:, None]))
        return root @ vectors, vectors.T @ whitener_spd(c), values

    @cached_property
    def _largest(self) -> float:
        """Largest eigenvalue of the preconditioned system, without noise, where t is the same everywhere."""
        model = self.problem.model
        flat = torch.ones(1, 1, *[8 * model.ratio] * 2, dtype=torch.float64)
        model = model.with_srf(torch.ones(1, 1)).cpu()
        low = model.spatial(flat)
        return max(1.0, float((model.spatial(model.spatial_adjoint(low)) / model.spatial_squared(flat)).max()))


def chebyshev(
    apply: Callable[[Tensor], Tensor],
    precondition: Callable[[Tensor], Tensor],
    rhs: Tensor,
    bounds: tuple[float, float],
    iterations: int = ITERATIONS,
) -> Tensor:
    """Solve apply(u) = rhs from u = 0, where the preconditioned operator's eigenvalues lie within `bounds`."""
    least, largest = bounds
    centre, radius = (largest + least) / 2, max((largest - least) / 2, 1e-6)
    sigma = centre / radius
    rho = 1 / sigma
    u, residual = torch.zeros_like(rhs), rhs
    direction = precondition(residual) / centre
    for _ in range(iterations):
        u, residual = u + direction, residual - apply(direction)
        following = 1 / (2 * sigma - rho)
        direction = following * (rho * direction + 2 / radius * precondition(residual))
        rho = following
    return u

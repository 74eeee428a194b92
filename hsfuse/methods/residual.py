"""What the MSI doesn't explain of the LRHSI, less its noise: a Wiener filter on the residual of a regression.

    r = a - S g(Y),    r ~ N(0, b^2 C + N)   ->   b^2 C inv(b^2 C + N) r

a are the LRHSI's coefficients, g(Y) the MSI brought into the subspace, N their noise as measured outside the subspace,
and b a pixel's brightness relative to the scene's: spectra differ more where they are bright, noise doesn't. C is what
the scene's residuals have beyond N. On the axes on which N is the identity and C is diagonal (Lee, Woodbury, Berman
1990, "Enhancement of high spectral resolution remote-sensing data by a noise-adjusted principal components transform",
IEEE TGRS 28(3)) every coefficient has a gain of its own. Most axes of a subspace of 16 are noise by half or more at
35 dB; the first few, and all of them in a scene without noise, stay as they are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from hsfuse.methods.problem import hsi_noise, mix
from hsfuse.methods.subspace import DARK, SpectralSubspace, signal_share
from hsfuse.physics.sample import PairSample
from hsfuse.physics.solve import principal_axes, root_spd, whitener_spd

#: Noise assumed at least in any direction: of the mean noise, and of the residuals' mean square.
LEAST_NOISE, LEAST_OF_RESIDUAL = 1e-3, 1e-8


@dataclass(frozen=True)
class ResidualFilter:
    """Fitted to a scene: `axes` (K, K) bring residuals to unit noise, `inverse` back; `power` (K,) is C on them.

    `usual` is the scene's mean square brightness.
    """

    subspace: SpectralSubspace
    axes: Tensor
    inverse: Tensor
    power: Tensor
    usual: float

    @classmethod
    def of(cls, scene: PairSample, subspace: SpectralSubspace, residual: Tensor, brightness: Tensor) -> Self:
        """From the residual (n, K, h, w) and brightness (n, 1, h, w) of a scene's LR pixels."""
        r = residual.movedim(1, 0)[:, scene.mask].double()
        basis = subspace.basis.to(r)
        white = hsi_noise(scene.spectra().to(r), subspace) * (
            1 - signal_share(subspace.residual(scene.lrhsi), scene.mask).to(r)
        )
        noise, eye = basis.T @ (white[:, None] * basis), torch.eye(len(basis.T)).to(r)
        least = LEAST_NOISE * noise.diagonal().mean() + LEAST_OF_RESIDUAL * r.square().mean()
        noise = noise + least.clamp_min(DARK**2) * eye
        whitener = whitener_spd(noise)
        values, vectors = principal_axes(whitener @ (r @ r.T / r.shape[1]) @ whitener.T - eye)
        usual = float(brightness.square().movedim(1, 0)[:, scene.mask].mean().clamp_min(DARK**2))
        axes, inverse = vectors.T @ whitener, root_spd(noise) @ vectors
        return cls(subspace, axes.float(), inverse.float(), values.float(), usual)

    def __call__(self, lrhsi: Tensor, residual: Tensor, brightness: Tensor) -> Tensor:
        """The LRHSI (B, C, h, w) less what is noise of its residual (B, K, h, w) at that brightness (B, 1, h, w)."""
        signal = self.power.to(residual)[:, None, None] * (brightness.square() / self.usual)
        noise = mix(self.inverse, mix(self.axes, residual) / (1 + signal))
        return lrhsi - self.subspace.unproject(noise)

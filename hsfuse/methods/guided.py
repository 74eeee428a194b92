"""Edge-aware local regression: what the MSI fails to explain is taken from LR pixels nearby that look the same.

    a_hr = f(Y) + b g(v),    f over the whole scene,    b brightness

f is a ridge regression of the LRHSI on the MSI's bands and on their products over b: like a spectrum it grows in
proportion to brightness, so that pixels brighter than any LR pixel aren't extrapolated by squares (sun glint came out
ten decibels worse). What it leaves of an LR pixel, per brightness, is regressed for every HR pixel on the chroma v = Y
/ b of the LR pixels around it, weighted by distance and by likeness of chroma and brightness: moving least squares
(Lancaster, Salkauskas 1981) with the weights of the joint bilateral filter (Kopf, Cohen, Lischinski, Uyttendaele 2007,
"Joint bilateral upsampling"), so that a material's own spectrum ends at its edge. The chroma of a single band tells
nothing apart: there, what is left then is interpolated.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Self

import torch
from torch import Tensor

from hsfuse.methods import Method, Requirements
from hsfuse.methods.denoise import denoise
from hsfuse.methods.problem import CONSTANT, AffineMap, fit_affine, lr_pairs, msi_noise, products
from hsfuse.methods.subspace import DARK
from hsfuse.physics.model import ObservationModel
from hsfuse.physics.sample import PairSample
from hsfuse.physics.solve import solve_spd

#: Ridge of the scene's regression, relative to its features' variance, and of the local one, to LIKENESS squared.
RIDGE, LOCAL_RIDGE = 5e-4, 0.3
#: Distance in LR pixels, and difference in chroma, at which a neighbour counts for 0.6.
NEARNESS, LIKENESS = 0.65, 0.03
#: A difference in the logarithm of brightness counts this much of one in chroma.
BRIGHTNESS_SHARE = 0.5
#: LR pixels to each side that are looked at; weight of those that look quite unlike.
REACH, LEAST_WEIGHT = 2, 1e-6
#: Share of the scene's mean brightness that is added to every pixel's.
DARKNESS = 0.15


class Guided(Method):
    """LRHSI (B, C, h, w), MSI (B, c, H, W) -> HRHSI (B, C, H, W)."""

    id = "guided"
    requirements = Requirements(halo=8)
    model: ObservationModel

    @torch.no_grad()
    def fit(self, scene: PairSample, model: ObservationModel) -> Self:
        """Measure the MSI's noise and what counts as dark, then the scene's regression on the denoised MSI."""
        self.model, self.noise = model, msi_noise(scene).float()
        scene = replace(scene, msi=denoise(scene.msi, self.noise))
        pairs = lr_pairs(scene, model)
        # Below its noise a pixel's brightness is unknown, and nothing may be divided by it.
        self.dark = max(DARKNESS * float(pairs.msi.abs().mean()), float(self.noise.mean().sqrt()), DARK)
        features = self._features(pairs.msi[None, :, :, None])[0, :, :, 0]
        spread = features.std(1, keepdim=True).clamp_min(CONSTANT * self.dark)
        scaled = fit_affine(features / spread, pairs.lrhsi, ridge=RIDGE)
        self.everywhere = AffineMap(scaled.weight / spread[:, 0], scaled.offset)
        return self

    @torch.no_grad()
    def predict(self, lrhsi: Tensor, msi: Tensor) -> Tensor:
        """Fuse tiles."""
        msi = denoise(msi, self.noise)
        low = self.model.spatial(msi)
        sharp = self._sharp(msi)
        left = (lrhsi - self.model.spatial(sharp)) / self._brightness(low)
        fused = sharp + self._brightness(msi) * self._nearby(left, low, msi)
        if msi.shape[1] == 1:
            fused = fused + self.model.upsample(lrhsi - self.model.spatial(fused))
        return fused

    def _sharp(self, msi: Tensor) -> Tensor:
        return self.everywhere(self._features(msi))

    def _features(self, msi: Tensor) -> Tensor:
        """The MSI's bands, and their products over brightness: (B, c, H, W) -> (B, c + c (c + 1) / 2, H, W)."""
        return torch.cat([msi, products(msi / self._brightness(msi).sqrt())], 1)

    def _brightness(self, msi: Tensor) -> Tensor:
        return msi.mean(1, keepdim=True).clamp_min(0) + self.dark

    def _nearby(self, left: Tensor, low: Tensor, msi: Tensor) -> Tensor:
        """Regression of `left` (B, C, h, w) on chroma around every HR pixel, read at its own chroma: (B, C, H, W)."""
        chroma, brightness = msi / self._brightness(msi), self._brightness(msi).log()
        known = torch.cat([low / self._brightness(low), self._brightness(low).log(), left], 1)
        c = msi.shape[1]
        total = msi.new_zeros(len(msi), c + 1, 1 + c + left.shape[1], *msi.shape[2:])  # moments
        for weight, near in self._neighbours(known, chroma, brightness):
            apart, value = near[:, :c] - chroma, near[:, c + 1 :]
            terms = torch.cat([torch.ones_like(weight), apart, value], 1)
            for row in range(c + 1):  # one at a time: all at once take twice the memory
                total[:, row] += weight * terms[:, row : row + 1] * terms
        mean = total[:, 0] / total[:, :1, 0]
        moments = total[:, 1:, 1:] / total[:, :1, :1] - mean[:, 1 : c + 1, None] * mean[:, None, 1:]
        moments = moments.permute(0, 3, 4, 1, 2)
        ridge = LOCAL_RIDGE * LIKENESS**2 * torch.eye(c).to(msi)
        slope = solve_spd(moments[..., :c] + ridge, moments[..., c:])
        return mean[:, c + 1 :] - torch.einsum("bchw,bhwcn->bnhw", mean[:, 1 : c + 1], slope)

    def _neighbours(self, known: Tensor, chroma: Tensor, brightness: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Of every HR pixel, each LR pixel around it: its weight (B, 1, H, W) and what is `known` of it."""
        s, c = self.model.ratio, chroma.shape[1]
        places = [(torch.arange(n * s, device=known.device) - self.model.phase) / s for n in known.shape[2:]]
        for down in range(-REACH, REACH + 1):
            for right in range(-REACH, REACH + 1):
                index = [
                    (p.round().long() + d).clamp(0, n - 1)
                    for p, d, n in zip(places, (down, right), known.shape[2:], strict=True)
                ]
                near = known[:, :, index[0]][:, :, :, index[1]]
                rows, cols = ((p - i) ** 2 for p, i in zip(places, index, strict=True))
                unlike = (near[:, :c] - chroma).square().sum(1, keepdim=True)
                unlike = unlike + (BRIGHTNESS_SHARE * (near[:, c : c + 1] - brightness)) ** 2
                nearness = torch.exp(-(rows[:, None] + cols) / (2 * NEARNESS**2))
                yield nearness * (torch.exp(-unlike / (2 * LIKENESS**2)) + LEAST_WEIGHT), near

    def describe(self) -> dict[str, str]:
        """The method's name; it has no settings."""
        return {"method": self.id}

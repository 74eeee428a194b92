"""Edge-aware local regression: what the MSI fails to explain is taken from LR pixels nearby that look the same.

    a_hr = f(Y) + b g(v),    f over the whole scene,    b brightness

f is a ridge regression of the LRHSI on the MSI's bands and on their products over b: like a spectrum it grows in
proportion to brightness, so that pixels brighter than any LR pixel aren't extrapolated by squares (sun glint came out
ten decibels worse). What it leaves of an LR pixel, per brightness, is regressed for every HR pixel on the chroma v = Y
/ b of the LR pixels around it, weighted by distance and by likeness of chroma and brightness: moving least squares
(Lancaster, Salkauskas 1981) with the weights of the joint bilateral filter (Kopf, Cohen, Lischinski, Uyttendaele 2007,
"Joint bilateral upsampling"), so that a material's own spectrum ends at its edge. The chroma of a single band tells
nothing apart: there, what is left then is interpolated.

A local regression read at one point is a weighted sum of what it was fitted to: per HR pixel 25 weights are made from
chroma and brightness alone, whatever the number of bands. The s x s pixels of a cell, those nearest to one LR pixel,
share their neighbours, so that the sums are one small matrix product a cell.
"""

from __future__ import annotations

from dataclasses import replace
from math import ceil
from typing import Self

import torch
from torch import Tensor
from torch.nn.functional import pad

from hsfuse.methods import Method, Requirements
from hsfuse.methods.denoise import denoise, inverse_
from hsfuse.methods.problem import CONSTANT, AffineMap, fit_affine, lr_pairs, msi_noise, products
from hsfuse.methods.subspace import DARK
from hsfuse.physics.model import ObservationModel
from hsfuse.physics.sample import PairSample

#: Ridge of the scene's regression, relative to its features' variance, and of the local one, to LIKENESS squared.
RIDGE, LOCAL_RIDGE = 5e-4, 0.3
#: Distance in LR pixels, and difference in chroma, at which a neighbour counts for 0.6.
NEARNESS, LIKENESS = 0.65, 0.03
#: A difference in the logarithm of brightness counts this much of one in chroma.
BRIGHTNESS_SHARE = 0.5
#: LR pixels to each side that are looked at; weight of those that look quite unlike.
REACH, LEAST_WEIGHT = 2, 1e-6
#: Numbers worked on at a time: what fits a processor's cache, elsewhere what little memory holds.
ENTRIES, MOST_ENTRIES = {"cpu": 1 << 20}, 1 << 26
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
        s, shape = self.model.ratio, msi.shape[2:]
        first = ceil(self.model.phase - s / 2)  # the pixel at which the cell of LR pixel 0 begins
        skipped = ceil(first / s)  # cells before it that the image touches, negative where it hasn't all of that
        before = skipped * s - first
        cells = [-(-(n + before) // s) for n in shape]
        looks = pad(
            self._look(msi),
            (before, cells[1] * s - before - shape[1], before, cells[0] * s - before - shape[0]),
            mode="replicate",
        )
        looks = looks.unflatten(3, (-1, s)).unflatten(2, (-1, s)).permute(1, 0, 2, 4, 3, 5)  # (c + 1, B, m, n, s, s)
        near_looks, values = self._around(self._look(low), cells, skipped), self._around(left, cells, skipped)
        nearness = self._nearness(first, msi)
        at_once = max(1, ENTRIES.get(msi.device.type, MOST_ENTRIES) // (len(nearness) * len(looks) * cells[1] * s * s))
        found = [
            _regressed(
                looks[:, image, rows : rows + at_once].flatten(3).flatten(1, 2),
                near_looks[:, :, image, rows : rows + at_once].flatten(2),
                values[:, :, image, rows : rows + at_once].flatten(2),
                nearness,
            ).unflatten(0, (-1, cells[1]))
            for image in range(len(msi))
            for rows in range(0, cells[0], at_once)
        ]
        whole = torch.cat(found).unflatten(0, (len(msi), cells[0])).unflatten(3, (s, s))  # (B, m, n, s, s, C)
        image = whole.permute(0, 5, 1, 3, 2, 4).flatten(4).flatten(2, 3)
        return image[..., before : before + shape[0], before : before + shape[1]]

    def _look(self, msi: Tensor) -> Tensor:
        """What pixels are compared by: (B, c, H, W) -> (B, c + 1, H, W), chroma and a share of brightness."""
        brightness = self._brightness(msi)
        return torch.cat([msi / brightness, BRIGHTNESS_SHARE * brightness.log()], 1)

    def _around(self, known: Tensor, cells: list[int], skipped: int) -> Tensor:
        """The LR pixels around each cell: (B, n, h, w) -> (25, n, B, *cells), the border's repeated."""
        ends = [REACH + count - n - skipped for count, n in zip(cells, known.shape[2:], strict=True)]
        wide = pad(known, (REACH + skipped, ends[1], REACH + skipped, ends[0]), mode="replicate")
        around = wide.unfold(2, 2 * REACH + 1, 1).unfold(3, 2 * REACH + 1, 1)
        return around.permute(4, 5, 1, 0, 2, 3).flatten(0, 1)

    def _nearness(self, first: int, like: Tensor) -> Tensor:
        """Weights by distance of a cell's pixels to the LR pixels around it: (25, s s)."""
        at = (torch.arange(self.model.ratio) + first - self.model.phase) / self.model.ratio
        line = torch.exp(-((torch.arange(-REACH, REACH + 1)[:, None] - at) ** 2) / (2 * NEARNESS**2))
        return (line[:, None, :, None] * line[None, :, None]).flatten(2).flatten(0, 1).to(like)

    def describe(self) -> dict[str, str]:
        """The method's name; it has no settings."""
        return {"method": self.id}


def _regressed(looks: Tensor, near: Tensor, values: Tensor, nearness: Tensor) -> Tensor:
    """Local regressions of m cells, read at their pixels: (m, s s, C).

    looks (c + 1, m, s s) of the pixels; near (25, c + 1, m) and values (25, C, m) of the LR pixels around each cell.
    """
    apart = near[..., None] - looks
    unlike = apart.square().sum(1)
    weight = unlike.mul_(-1 / (2 * LIKENESS**2)).exp_().add_(LEAST_WEIGHT).mul_(nearness[:, None])
    apart = apart[:, :-1]
    share = weight / weight.sum(0)
    c = apart.shape[1]
    weighted = share[:, None] * apart
    mean = weighted.sum(0)
    moments = torch.empty(c, c, *mean.shape[1:], dtype=mean.dtype, device=mean.device)
    for i in range(c):
        for j in range(i + 1):
            moments[i, j] = moments[j, i] = (weighted[:, i] * apart[:, j]).sum(0) - mean[i] * mean[j]
    moments /= LOCAL_RIDGE * LIKENESS**2
    moments.diagonal().add_(1)
    slope = (inverse_(moments) * mean).sum(1) / (LOCAL_RIDGE * LIKENESS**2)
    kernel = share * (1 + (slope * mean).sum(0))
    for i in range(c):
        kernel.addcmul_(weighted[:, i], slope[i], value=-1)
    return kernel.permute(1, 2, 0) @ values.permute(2, 0, 1)

"""Mean of four training-free methods of different kinds: their errors differ, so the mean is closer than each.

The members are given the LRHSI without what is noise of that which a regression on the MSI leaves (`residual.py`). What
the mean gets wrong in plain sight, against the LRHSI or the MSI, is then taken out. Where and along which axes it
may be wrong is told by how far its members are apart (`agreement.py`): no test at another resolution is needed. Their
deviations d from the mean are taken for errors d ~ N(0, t^2 C), t^4 being proportional to their own size around a pixel
times the pixel's brightness, and C the maximum likelihood estimate, the mean of d d' / t^2.

`glp-ens` carries detail by regression and leads on agricultural scenes, `conic` weighs data against priors and leads on
urban and coastal ones, `cnmf` keeps each place's own materials and so the spectral angle of dark pixels, and `guided`
the colours of small objects that a regression over the whole scene blurs. The weights are equal: ones that follow the
members' errors in the scene's reduced-resolution test (as in stacking: Wolpert 1992, Neural Networks 5(2); Breiman
1996, Machine Learning 24) helped on some of the scenes tried and did harm on others: the member that is best at reduced
resolution often isn't the one that is best at full resolution. Weights by the members' differences at full resolution
(triple collocation: Stoffelen 1998, JGR 103(C4)) gained nothing: their errors go together. Nor do errors in an MSI band
that was left out, at full resolution, rank them: what goes with that band isn't what goes unseen.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Self

import torch
from torch import Tensor

from hsfuse.methods import Method, Requirements, compose
from hsfuse.methods.agreement import Agreement
from hsfuse.methods.cnmf import CNMF
from hsfuse.methods.conic import Conic
from hsfuse.methods.denoise import LEFT, denoise, gaussian_blur
from hsfuse.methods.guided import Guided
from hsfuse.methods.problem import FusionProblem, believable, hsi_noise, mix, msi_noise
from hsfuse.methods.regression import DIMENSION, EnsembleGLP, Features
from hsfuse.methods.residual import ResidualFilter
from hsfuse.methods.subspace import DARK, SpectralSubspace, left_by_factors, scene_subspace
from hsfuse.physics.model import ObservationModel
from hsfuse.physics.sample import PairSample
from hsfuse.physics.solve import beside_each_other

#: Brightness below which a pixel takes no smaller part of what is restored, relative to the scene's RMS.
DARKEST = 0.1
#: How many times the noise what `cnmf` leaves of the LRHSI has to be before any of it is restored, plus one.
CLEARLY = 5.0
MEMBERS = 4
#: Of `conic`, which by itself takes one more: the mean hardly feels that.
ALTERNATIONS = 3
#: Window in HR pixels in which it is seen how large errors are, and the range of their variance relative to the usual.
WINDOW_SIGMA, AMOUNTS = 1.0, (1e-3, 30.0)
#: Share of the disagreement's covariance that counts as noise of the LRHSI: PSF and response are never known exactly.
MISMATCH = 1e-3
#: Variance of all errors relative to what members are apart by, times the ratio, and at most: errors that they share
#: don't show in that. At ratio 8 more would lose: the LRHSI has least to say there.
TOGETHER, MOST_TOGETHER = 8.0, 2.0
#: MSI pixels on which the disagreement is measured, and of a single block on which `cnmf` learns: learning from all of
#: 512 x 512 cost it .7 to 1.2 dB and 12 to 94 % in angle on four scenes at ratio 8.
SAMPLE, LEARNED = 96 * 96, 384 * 384
#: MSI pixels from which on members are applied beside each other: of fewer, operations are too short.
LARGE = 128 * 128
#: Windows in which pixels are taken where a scene is longer than these by more than so many times.
PLACES, LONGER = 9, 1.25


class DenoisedGLP(EnsembleGLP):
    """Averaged regression GLP on the denoised MSI: LRHSI (B, C, h, w), MSI (B, c, H, W) -> HRHSI (B, C, H, W)."""

    requirements = Requirements(halo=10)
    noise: Tensor

    def fit(self, scene: PairSample, model: ObservationModel) -> Self:
        """Measure the MSI's noise, then fit on the denoised MSI."""
        self.noise = msi_noise(scene).float()
        return super().fit(replace(scene, msi=denoise(scene.msi, self.noise)), model)

    def feature_noise(self, features: Features, scene: PairSample) -> Tensor | None:
        """Covariance (f, f) of what the noise left by `denoise` does to the features, on the scene's own pixels."""
        random = torch.Generator().manual_seed(0)
        total = torch.zeros(())
        for msi in scene.msi.split(1):
            sigma = (LEFT * self.noise).sqrt()[:, None, None]
            noisy = msi + sigma * torch.randn(msi.shape, generator=random).to(msi)
            change = (features(noisy, self.level) - features(msi, self.level))[0].flatten(1).double()
            total = total.to(change) + change @ change.T / change.shape[1]
        return total / len(scene.msi)

    def coefficients(self, lrhsi: Tensor, msi: Tensor) -> Tensor:
        """Fused coefficients (B, K, H, W)."""
        return super().coefficients(lrhsi, denoise(msi, self.noise))

    def inject(self, coefficients: Tensor, detail: Tensor) -> Tensor:
        """What the regression left, restored in proportion to brightness: spectra differ more where they are bright.

        `coefficients` (B, K, h, w) of the LRHSI, `detail` (B, K, H, W) the regressed MSI -> (B, K, H, W).
        """
        size = self.brightness(detail)
        left = coefficients - self.model.spatial(detail)
        return detail + size * self.model.upsample(left / self.model.spatial(size))

    def brightness(self, detail: Tensor) -> Tensor:
        """Length of spectra, dark ones' a little more: (B, K, H, W) -> (B, 1, H, W)."""
        size = detail.square().sum(1, keepdim=True)
        return (size + (DARKEST * self.subspace.spread.norm()).square().to(size)).sqrt()


class Unmixed(CNMF):
    """`cnmf` in the subspace, and with the LRHSI restored where its materials don't explain it.

    What they leave of a spectrum grows with brightness, the LRHSI's noise doesn't; per coefficient, the share of
    1 - CLEARLY noise / (noise + error brightness^2) of it is restored, which is Wiener's gain with CLEARLY = 1.
    """

    @torch.no_grad()
    def fit(self, scene: PairSample, model: ObservationModel) -> Self:
        """Learn the materials, then the variance of what they leave (K,), relative to brightness^2, and of noise."""
        part = self._part(scene, model.ratio)
        low = model.spatial(self.learn(part, model)).transpose(0, 1)[:, part.mask]
        self.subspace = scene_subspace(scene, DIMENSION)
        spectra, basis = part.spectra(), self.subspace.basis
        self.noise = basis.T.square() @ hsi_noise(spectra, self.subspace).to(basis)
        explained = self._endmembers() @ low
        left = (basis.T @ spectra - explained).square().mean(1)
        self.error = (left - self.noise).clamp_min(0) / explained.square().sum(0).mean().clamp_min(DARK**2)
        return self

    @staticmethod
    def _part(scene: PairSample, s: int) -> PairSample:
        """What of a scene is learned from: of a large block windows, unless much of them is invalid."""
        if len(scene.mask) > 1 or scene.mask.numel() * s * s <= LEARNED:
            return scene
        part = middles(scene, s, LEARNED)
        return part if 2 * part.mask.float().mean() > scene.mask.float().mean() else scene

    def coefficients(self, lrhsi: Tensor, msi: Tensor) -> Tensor:
        """Fused coefficients: LRHSI (B, C, h, w), MSI (B, c, H, W) -> (B, K, H, W)."""
        fused = mix(self._endmembers(), self.abundances(lrhsi, msi))
        low = self.model.spatial(fused)
        noise, error = (x.to(low)[:, None, None] for x in (self.noise, self.error))
        gain = 1 - CLEARLY * noise / (noise + error * low.square().sum(1, keepdim=True))
        return fused + self.model.upsample(gain.clamp_min(0) * (self.subspace.project(lrhsi) - low))

    def _endmembers(self) -> Tensor:
        return self.level * self.subspace.basis.to(self.m).T @ self.m


class GuidedAxes(Guided):
    """`guided` in the subspace, which gives the same as it is linear in the LRHSI, in less time."""

    subspace: SpectralSubspace

    @torch.no_grad()
    def fit(self, scene: PairSample, model: ObservationModel) -> Self:
        """Fit on the LRHSI's coefficients."""
        self.subspace = scene_subspace(scene, DIMENSION)
        return super().fit(replace(scene, lrhsi=self.subspace.project(scene.lrhsi)), model)

    def coefficients(self, lrhsi: Tensor, msi: Tensor) -> Tensor:
        """Fused coefficients: LRHSI (B, C, h, w), MSI (B, c, H, W) -> (B, K, H, W)."""
        return self.predict(self.subspace.project(lrhsi), msi)


@dataclass(frozen=True)
class Blended:
    """Coefficients of the result `fused` (B, K, H, W) and of its `members` (members, B, K, H, W).

    `amount` (B, 1, H, W): how large the error is at a pixel relative to the scene's.
    """

    fused: Tensor
    members: Tensor
    amount: Tensor


class Blend(Method):
    """Mean of four methods, brought to agree with both images: (B, C, h, w), (B, c, H, W) -> (B, C, H, W)."""

    id = "blend"
    requirements = Requirements(halo=5)
    model: ObservationModel
    agreement: Agreement
    filter: ResidualFilter
    usual: Tensor  # mean squares at a pixel: of what the members are apart, and of their mean
    _kept: tuple[Tensor, Tensor, Blended] | None = None

    def __init__(self) -> None:
        self.glp, self.conic = DenoisedGLP(), Conic(alternations=ALTERNATIONS)
        self.unmixed, self.guided = Unmixed(), GuidedAxes()

    @torch.no_grad()
    def fit(self, scene: PairSample, model: ObservationModel) -> Self:
        """Fit all four, then see on a sample how they disagree, noise included, and what of the LRHSI is noise."""
        self.model, self._kept = model, None
        denoise(scene.msi, msi_noise(scene))  # all want it, and each would make it
        members = self.conic, self.unmixed, self.guided, self.glp
        beside_each_other(*(partial(member.fit, scene, model) for member in members))
        middle = middles(scene, model.ratio, SAMPLE)
        sample = [self._each(lrhsi, msi, self._detail(msi)) for lrhsi, msi in blocks(middle)]
        sizes = torch.stack([torch.stack([x.mean() for x in _sizes(members)]) for members in sample])
        self.usual = sizes.mean(0).clamp_min(DARK**2)
        apart = [((m - m.mean(0)) / self._amount(m)).movedim(2, 0).flatten(1).double() for m in sample]
        covariance = torch.stack([x @ x.T / x.shape[1] for x in apart]).mean(0)
        covariance *= MEMBERS / (MEMBERS - 1) * min(max(TOGETHER / model.ratio, 1.0), MOST_TOGETHER)
        self.agreement = Agreement(self._problem(scene), covariance, MISMATCH)
        seen = [self._residual(lrhsi, self._detail(msi)) for lrhsi, msi in blocks(scene)]
        self.filter = ResidualFilter.of(scene, self.subspace, *map(torch.cat, zip(*seen, strict=True)))
        return self

    def _problem(self, scene: PairSample) -> FusionProblem:
        """The members', with each band's own noise as far as what the subspace leaves of the LRHSI is noise.

        In the members it doesn't help: they find better angles in dark pixels when dark bands count as noisier.
        """
        problem = self.conic.problem
        left, ground = (x.to(problem.noise_x) for x in left_by_factors(scene, problem.subspace.dimension))
        noise = left * (1 - ground) + problem.noise_x * ground
        return replace(problem, noise_x=believable(noise, scene.spectra().square().mean(1).to(noise)))

    @property
    def subspace(self) -> SpectralSubspace:
        """The members' common subspace."""
        return self.glp.subspace

    def members(self, lrhsi: Tensor, msi: Tensor) -> Tensor:
        """Their coefficients (members, B, K, H, W), of the LRHSI without what is noise of it."""
        detail = self._detail(msi)
        return self._each(self.filter(lrhsi, *self._residual(lrhsi, detail)), msi, detail)

    def _detail(self, msi: Tensor) -> Tensor:
        """The regression of `glp-ens` on the denoised MSI: (B, c, H, W) -> (B, K, H, W)."""
        return self.glp.regress(denoise(msi, self.glp.noise))

    def _each(self, lrhsi: Tensor, msi: Tensor, detail: Tensor) -> Tensor:
        """The members' coefficients; that of `glp-ens` from its regression, which is at hand."""
        others = [partial(member.coefficients, lrhsi, msi) for member in (self.conic, self.unmixed, self.guided)]
        found = beside_each_other(*others) if msi[:, 0].numel() >= LARGE else [other() for other in others]
        return torch.stack([self.glp.inject(self.subspace.project(lrhsi), detail), *found])

    def _residual(self, lrhsi: Tensor, detail: Tensor) -> tuple[Tensor, Tensor]:
        """What the regression leaves of the LRHSI's coefficients (B, K, h, w), and brightness there (B, 1, h, w)."""
        left = self.subspace.project(lrhsi) - self.model.spatial(detail)
        return left, self.model.spatial(self.glp.brightness(detail))

    def _amount(self, members: Tensor) -> Tensor:
        """How large the error is at a pixel relative to the scene: (members, B, K, H, W) -> (B, 1, H, W)."""
        apart, bright = (x / usual for x, usual in zip(_sizes(members), self.usual, strict=True))
        return (apart * bright).sqrt().clamp(*AMOUNTS).sqrt()

    @torch.no_grad()
    def keep(self, lrhsi: Tensor, msi: Tensor) -> None:
        """Have at hand what images that are going to be asked for again are `blended` to."""
        self._kept = lrhsi.clone(), msi.clone(), self.blended(lrhsi, msi)

    @torch.no_grad()
    def blended(self, lrhsi: Tensor, msi: Tensor) -> Blended:
        """The result with what it was made of."""
        if self._kept is not None and torch.equal(self._kept[1], msi) and torch.equal(self._kept[0], lrhsi):
            return self._kept[2]
        members = self.members(lrhsi, msi)
        amount = self._amount(members)
        clean = denoise(msi, self.glp.noise)
        return Blended(self.agreement(members.mean(0), lrhsi, clean, amount), members, amount)

    def coefficients(self, lrhsi: Tensor, msi: Tensor) -> Tensor:
        """Fused coefficients (B, K, H, W)."""
        return self.blended(lrhsi, msi).fused

    def outside_low(self, lrhsi: Tensor) -> Tensor:
        """What is added outside the subspace, before interpolation: (B, C, h, w)."""
        return self.glp.outside_low(lrhsi)

    def predict(self, lrhsi: Tensor, msi: Tensor) -> Tensor:
        """Fuse tiles."""
        return compose(self.subspace, self.model, self.coefficients(lrhsi, msi), self.outside_low(lrhsi))

    def describe(self) -> dict[str, str]:
        """What the members estimated."""
        estimates = {**self.unmixed.describe(), **self.conic.describe(), **self.glp.describe()}
        return {**estimates, "method": self.id, "members": "glp-ens, conic, cnmf, guided"}


def _sizes(members: Tensor) -> tuple[Tensor, Tensor]:
    """Squares, averaged over a small window: of what members (members, B, K, H, W) are apart, and of their mean."""
    mean = members.mean(0)
    squares = (members - mean).square().sum((0, 2)), mean.square().sum(1)
    apart, bright = (gaussian_blur(x[:, None], WINDOW_SIGMA) for x in squares)
    return apart, bright


def blocks(scene: PairSample) -> Iterator[tuple[Tensor, Tensor]]:
    """Each block's LRHSI (1, C, h, w) and MSI (1, c, H, W)."""
    return zip(scene.lrhsi.split(1), scene.msi.split(1), strict=True)


def middles(scene: PairSample, s: int, most: int) -> PairSample:
    """The middle of each block, `most` MSI pixels in all at most.

    Of fewer than PLACES blocks that are clearly larger, windows spread over each: what lies in the middle of a scene
    isn't what lies around it.
    """
    n, h, w = scene.mask.shape
    side = max(1, round((most / n) ** 0.5 / s))
    pieces = max(1, round((PLACES / n) ** 0.5))
    windows = [(rows, cols) for rows in _spread(h, side, pieces) for cols in _spread(w, side, pieces)]
    fine = [tuple(slice(s * line.start, s * line.stop) for line in window) for window in windows]
    return PairSample(
        torch.cat([scene.lrhsi[..., rows, cols] for rows, cols in windows]),
        torch.cat([scene.msi[..., rows, cols] for rows, cols in fine]),
        torch.cat([scene.mask[:, rows, cols] for rows, cols in windows]),
    )


def _spread(size: int, side: int, pieces: int) -> list[slice]:
    """Parts of a line of `size` pixels, `side` long in all at most: its middle, or several of a longer one."""
    side, pieces = min(side, size), pieces if size > LONGER * side else 1
    length = max(1, side // pieces)
    starts = [round(size * (2 * i + 1) / (2 * pieces) - length / 2) for i in range(pieces)]
    return [slice(start, start + length) for start in starts]

"""How a scene looks to the network: K normalised coefficients, a training-free base, and the MSI in the same space.

z = E^T x / unit          what the network works on; unit (K,) is the scene's RMS per coefficient
base                      the fusion that the network starts from and corrects, in z
guide                     the MSI brought into the subspace by the base's regression, in z: always K channels,
                          so that one set of weights serves every multispectral sensor
step (K,)                 the base's RMS error per coefficient at reduced resolution, in z: the size of a correction
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from hsfuse.methods import Method, SubspaceMethod, compose, make_method
from hsfuse.methods.denoise import denoise
from hsfuse.methods.problem import hsi_noise, mix, msi_noise
from hsfuse.methods.regression import DIMENSION, BicubicSubspace, EnsembleGLP, RegressionGLP
from hsfuse.methods.subspace import DARK, SpectralSubspace, scene_subspace, signal_share
from hsfuse.nets.srlf import Observation
from hsfuse.physics.model import ObservationModel
from hsfuse.physics.sample import PairSample

#: Why there is nothing that tells how large a correction may be.
TOO_NARROW = "the scene is narrower than %d LR pixels, too narrow to be seen at reduced resolution"
#: Squared length of a method's axes that may lie outside a frame's subspace for the two to count as one.
INSIDE = 1e-3


@dataclass(frozen=True)
class Seen:
    """Base z (B, K, H, W), the network's observation, and what lies outside E.

    `outside` is (B, C, h, w) and interpolated at the end, or (B, C, H, W) for a method that doesn't work in the
    subspace. `msi` (B, c, H, W) is the MSI without its noise.
    """

    base: Tensor
    obs: Observation
    outside: Tensor
    msi: Tensor


@dataclass(frozen=True)
class SceneFrame:
    """A fitted base and what turns reflectance into network inputs and back."""

    base: RegressionGLP
    model: ObservationModel  # its response is R E: coefficients (B, K, H, W) -> MSI
    unit: Tensor
    step: Tensor
    gain: Tensor  # per MSI band: MSI = gain * (R x) + offset, estimated on the LR grid
    offset: Tensor
    level: float  # reflectance that counts as 1 in the scene's units
    fuser: Method | None = None  # what the network corrects, where it isn't the regression itself
    noise: Tensor | None = None  # variance of the MSI's noise per band, taken out first; None: the MSI is used as it is

    def see(self, lrhsi: Tensor, msi: Tensor) -> Seen:
        """What the network starts from on LRHSI (B, C, h, w) and MSI (B, c, H, W)."""
        clean = msi if self.noise is None else denoise(msi, self.noise)
        return self.seen(lrhsi, clean, *self.fused(lrhsi, msi, clean))

    def seen(self, lrhsi: Tensor, clean: Tensor, a: Tensor, outside: Tensor) -> Seen:
        """What the network sees of a method's coefficients a (B, K, H, W) and what it has outside of them."""
        high = outside if outside.shape[-2:] == clean.shape[-2:] else None
        in_msi = (
            self.model.upsample(self.base.model.spectral(outside)) if high is None else self.base.model.spectral(high)
        )
        unit = self.unit[:, None, None]
        guide = self.base.regress(clean) / unit
        coefficients = self.subspace.project(lrhsi) / unit
        obs = Observation(coefficients, self.matched(clean) - in_msi, guide, self.model, self.unit, self.level)
        return Seen(a / unit, obs, outside, clean)

    def fused(self, lrhsi: Tensor, msi: Tensor, clean: Tensor) -> tuple[Tensor, Tensor]:
        """The method's coefficients (B, K, H, W) on this frame's axes, and what it has outside of them (see `Seen`)."""
        if self.fuser is None or not lrhsi.numel():  # nothing: a scene narrower than s LR pixels, reduced
            return self.base.coefficients(lrhsi, clean), self.base.outside_low(lrhsi)
        if isinstance(self.fuser, SubspaceMethod):
            turn = self.subspace.basis.T @ self.fuser.subspace.basis.to(self.subspace.basis)
            if turn.square().sum() > turn.shape[1] - INSIDE:  # the same span, perhaps on other axes
                return mix(turn, self.fuser.coefficients(lrhsi, msi)), self.fuser.outside_low(lrhsi)
        fused = self.fuser.predict(lrhsi, msi)
        a = self.subspace.project(fused)
        return a, fused - self.subspace.unproject(a)

    def inside(self, lrhsi: Tensor, seen: Seen) -> Tensor:
        """The LRHSI (B, C, h, w) without what a result has outside the subspace."""
        high = seen.outside.shape[-2:] == seen.base.shape[-2:]
        return lrhsi - (self.model.spatial(seen.outside) if high else seen.outside)

    def finish(self, z: Tensor, seen: Seen) -> Tensor:
        """Network output z (B, K, H, W) to reflectance (B, C, H, W)."""
        a = z * self.unit[:, None, None]
        if seen.outside.shape[-2:] == z.shape[-2:]:
            return self.subspace.unproject(a) + seen.outside
        return compose(self.subspace, self.model, a, seen.outside)

    @property
    def subspace(self) -> SpectralSubspace:
        """The base's subspace."""
        return self.base.subspace

    def matched(self, msi: Tensor) -> Tensor:
        """The MSI in the HSI's radiometry: (B, c, H, W)."""
        return (msi - self.offset[:, None, None]) / self.gain[:, None, None]


#: RMS of the bands that an MSI sees in the scenes of which networks have learned, a usual reflectance.
USUAL = 0.2


def level_of(scene: PairSample, model: ObservationModel) -> float:
    """What counts as a reflectance of 1 in a scene's units: networks are to see all scenes at about one brightness."""
    seen = model.spectral(scene.lrhsi).permute(1, 0, 2, 3)[:, scene.mask]
    return max(float(seen.square().mean().sqrt()) / USUAL, DARK)


def reducible(scene: PairSample, s: int) -> bool:
    """Whether a scene is at least s LR pixels wide and high, so that its reduced-resolution images have pixels."""
    return min(scene.lrhsi.shape[2:]) >= s


def reduced(scene: PairSample, base: RegressionGLP) -> tuple[Tensor, Tensor, Tensor]:
    """Reduced-resolution pair of a scene: target coefficients (n, K, h', w'), their LR input, and the MSI input.

    Both images are degraded by the observation model (Wald et al. 1997); sizes are cut to whole multiples of s.
    """
    return reduced_images(replace(scene, lrhsi=base.subspace.project(scene.lrhsi)), base.model)


def fit_frame(scene: PairSample, base: RegressionGLP) -> SceneFrame:
    """Frame of a scene whose base is fitted."""
    subspace = base.subspace
    model = base.model.with_srf(base.model.srf @ subspace.basis.to(base.model.srf))
    target, low, msi = reduced(scene, base)
    error = base.inject(low, base.regress(msi)) - target
    step = rms(error) / subspace.spread
    gain, offset = radiometric_match(scene, base.model)
    return SceneFrame(base, model, subspace.spread, step, gain, offset, level_of(scene, base.model))


def rms(maps: Tensor) -> Tensor:
    """Root mean square per channel: (n, K, h, w) -> (K,); 0 where a scene narrower than s LR pixels has no maps."""
    return maps.square().mean((0, 2, 3)).nan_to_num().sqrt()


#: Bases that the regression behind the network's guide can be itself.
REGRESSIONS: dict[str, type[RegressionGLP]] = {
    "glp-reg": RegressionGLP,
    "bicubic": BicubicSubspace,
}


def make_frame(scene: PairSample, model: ObservationModel, base: str, fuser: Method | None = None) -> SceneFrame:
    """Frame of a scene with the base of that name, a regression or any other method; or with a fitted `fuser`."""
    noise = msi_noise(scene).float()
    clean = replace(scene, msi=denoise(scene.msi, noise))
    frame = replace(fit_frame(clean, REGRESSIONS.get(base, EnsembleGLP)().fit(clean, model)), noise=noise)
    if fuser is None and base in REGRESSIONS:
        return frame
    frame = replace(frame, fuser=fuser or make_method(base).fit(scene, model))
    target, low, msi = reduced_images(scene, model)
    error = frame.see(low, msi).base * frame.unit[:, None, None] - frame.subspace.project(target)
    return replace(frame, step=rms(error) / frame.unit)


def reduced_images(
    scene: PairSample, model: ObservationModel, first: tuple[int, int] = (0, 0)
) -> tuple[Tensor, Tensor, Tensor]:
    """Reduced-resolution images: target (n, C, h', w'), LRHSI and MSI input, degraded by the observation model.

    `first` is the LR pixel (row, column) that the target begins with: the input's pixels lie elsewhere in it.
    """
    s = model.ratio
    rows, cols = (
        slice(start, start + (n - start) // s * s) for start, n in zip(first, scene.lrhsi.shape[2:], strict=True)
    )
    target = scene.lrhsi[..., rows, cols]
    return target, model.spatial(target), model.spatial(scene.msi)[..., rows, cols]


@dataclass(frozen=True)
class NoiseAdder:
    """Gives degraded images the noise that blurring took from them, so that the network learns what it will meet.

    A mean with weights k keeps the share sum(k^2) of white noise; `hsi` (C,) and `msi` (c,) are standard deviations.
    """

    hsi: Tensor
    msi: Tensor

    def __call__(self, lrhsi: Tensor, msi: Tensor, random: torch.Generator) -> tuple[Tensor, Tensor]:
        """Noisy copies."""
        return self._noisy(lrhsi, self.hsi, random), self._noisy(msi, self.msi, random)

    @staticmethod
    def _noisy(image: Tensor, sigma: Tensor, random: torch.Generator) -> Tensor:
        return image + sigma[:, None, None] * torch.randn(image.shape, generator=random).to(image)


def noise_adder(scene: PairSample, model: ObservationModel) -> NoiseAdder:
    """What degrading by the PSF takes from a scene's noise, per band, as measured in the scene."""
    subspace = scene_subspace(scene, DIMENSION)
    share = signal_share(subspace.residual(scene.lrhsi), scene.mask)
    lost = (1 - float((model.psf.kernel**2).sum())) ** 0.5
    hsi = hsi_noise(scene.spectra(), subspace).sqrt() * (1 - share)
    return NoiseAdder(hsi.float() * lost, msi_noise(scene).sqrt().float() * lost)


def radiometric_match(scene: PairSample, model: ObservationModel) -> tuple[Tensor, Tensor]:
    """Gain and offset (c,) of each MSI band against R X, by least squares on LR pixels."""
    predicted = model.spectral(scene.lrhsi).permute(1, 0, 2, 3)[:, scene.mask]
    observed = model.spatial(scene.msi).permute(1, 0, 2, 3)[:, scene.mask]
    p = predicted - predicted.mean(1, keepdim=True)
    gain = (p * observed).sum(1) / (p * p).sum(1).clamp_min(DARK**2)
    gain = torch.where(gain > 0.05, gain, torch.ones_like(gain))  # an uncorrelated band is left as it is
    return gain, observed.mean(1) - gain * predicted.mean(1)

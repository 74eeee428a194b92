"""What makes a correcting network's task the same on every scene: error-aligned axes, and inputs in units of the error.

The base's error is far from equal in all directions of the subspace: what the MSI sees is all but known, the rest
isn't, and which is which depends on sensor and scene. `aligned` turns the subspace's axes to the principal axes of the
error at reduced resolution, most uncertain first, so that a correction of channel k goes as far as that axis is
uncertain and leaves alone what the MSI has settled. `conditioned` gives the network the two parts that the base is
made of in units of that error, where noise and missed detail have the same size on every scene, and says how noisy the
scene is.
"""

from __future__ import annotations

from copy import copy
from dataclasses import replace

import torch
from torch import Tensor

from hsfuse.fusers import TrainingScene, make_fuser
from hsfuse.fusers.denoise import denoise
from hsfuse.fusers.frame import SceneFrame, Seen, fit_frame, reduced, reducible
from hsfuse.fusers.problem import msi_noise
from hsfuse.fusers.regression import DIMENSION, EnsembleGLP, RegressionGLP
from hsfuse.nets.srlf import Observation
from hsfuse.physics import ObservationModel
from hsfuse.subspace import SpectralSubspace

#: What the LRHSI has outside the subspace, relative to all of a band, is rounding below this.
ROUNDING = 1e-5
#: Least unit of the base's error, relative to the coefficients: less is rounding, and 0 where the base has no error.
LEAST_STEP = 1e-7
#: The method whose errors networks for any sensor learn to correct.
KNOWN_BASE = "glp-ens"


def aligned(base: RegressionGLP, scene: TrainingScene) -> RegressionGLP:
    """The same fitted base on axes along which its errors at reduced resolution are uncorrelated, largest first.

    As it is where the scene is too narrow to be reduced.
    """
    if not reducible(scene, base.model.scale):
        return base
    target, low, msi = reduced(scene, base)
    error = (base.inject(low, base.regress(msi)) - target).permute(1, 0, 2, 3).flatten(1).double()
    axes = torch.linalg.eigh(error @ error.T / error.shape[1])[1].flip(1)
    basis = base.subspace.basis.double() @ axes
    axes = axes * basis.gather(0, basis.abs().argmax(0, keepdim=True)).sign()
    turned = copy(base)
    basis = (base.subspace.basis.double() @ axes).float()
    spread = ((basis.T @ scene.spectra()) ** 2).mean(1).sqrt().clamp_min(1e-10)
    turned.subspace = SpectralSubspace(basis, spread)
    turned.weights = [((axes.T @ w.double()).float(), (axes.T @ b.double()).float()) for w, b in base.weights]
    turned.residual_share = torch.where(_negligible(scene, base.subspace), 1.0, base.residual_share)
    return turned


def _negligible(scene: TrainingScene, subspace: SpectralSubspace) -> Tensor:
    """(C,) bands whose part outside the subspace is rounding: it looks like noise, but there is none."""
    inside = scene.lrhsi.permute(1, 0, 2, 3)[:, scene.mask].norm(dim=1)
    outside = subspace.residual(scene.lrhsi).permute(1, 0, 2, 3)[:, scene.mask].norm(dim=1)
    return outside < ROUNDING * inside


def noise_share(base: RegressionGLP) -> float:
    """How much of what the LRHSI has outside the subspace is noise, 0 to 1, as told by its spatial correlation."""
    inside = base.subspace.dimension >= base.residual_share.numel()
    return 0.0 if inside else 1 - float(base.residual_share.mean())


def guides(dimension: int) -> int:
    """Guide channels that `conditioned` makes for K coefficients."""
    return 4 * dimension + 1


def conditioned(frame: SceneFrame, base: Tensor, observation: Observation) -> Observation:
    """Observation whose guide (B, 4 K + 1, H, W) holds the MSI's detail and the interpolated LR residual.

    Both are divided by the frame's step, the base's error, and compressed by asinh: linear below it, logarithmic above.
    They come once as they are and once times the scene's share of noise, then that share itself: what is to be smoothed
    in a noisy scene is to be sharpened in a clean one.
    """
    step, share = frame.step[:, None, None].clamp_min(LEAST_STEP), noise_share(frame.base)
    detail, model = observation.guide, observation.model
    fine = detail - model.upsample(model.spatial(detail))
    parts = torch.cat([fine / step, (base - detail) / step], 1).asinh()
    return replace(observation, guide=torch.cat([parts, share * parts, torch.full_like(parts[:, :1], share)], 1))


class ConditionedFrame(SceneFrame):
    """Frame on error-aligned axes: the network sees the averaged regression, conditioned, and corrects any method."""

    def see(self, lrhsi: Tensor, msi: Tensor) -> Seen:
        """What the network starts from on LRHSI (B, C, h, w) and MSI (B, c, H, W)."""
        seen = look(self, lrhsi, msi)
        if self.fuser is None:
            return seen
        a, outside = self.fused(lrhsi, msi, seen.msi)
        return replace(seen, start=a / self.unit[:, None, None], outside=outside)


def conditioned_frame(
    scene: TrainingScene,
    model: ObservationModel,
    dimension: int = DIMENSION,
    clean: bool = True,
    base: str | None = None,
) -> ConditionedFrame:
    """Frame of a scene on the axes of the known regression's errors; `clean`: the MSI is denoised first.

    `base` names the method that the correction is added to, None: the regression itself.
    """
    noise = msi_noise(scene).float() if clean else None
    used = scene if noise is None else replace(scene, msi=denoise(scene.msi, noise))
    frame = fit_frame(used, aligned(EnsembleGLP(dimension).fit(used, model), used))
    fuser = None if base is None else make_fuser(base).fit(scene, model)
    return ConditionedFrame(**{**vars(frame), "noise": noise, "fuser": fuser})


def look(frame: SceneFrame, lrhsi: Tensor, msi: Tensor) -> Seen:
    """What a network for any sensor is trained on: the regression on the frame's axes, with a conditioned guide."""
    seen = SceneFrame.see(replace(frame, fuser=None), lrhsi, msi)
    return replace(seen, obs=conditioned(frame, seen.base, seen.obs))

"""What makes a correcting network's task the same on every scene: error-aligned axes, and inputs in units of the error.

The base's error is far from equal in all directions of the subspace: what the MSI sees is all but known, the rest
isn't, and which is which depends on sensor and scene. `aligned` turns the subspace's axes to the principal axes of the
error at reduced resolution, most uncertain first, so that a correction of channel k goes as far as that axis is
uncertain and leaves alone what the MSI has settled. `conditioned` gives the network the parts that the base is made of
in units of that error, where noise and missed detail have the same size on every scene, and says how noisy the scene
is.

The base that such networks correct is `blend`. Trained to correct the regression alone and added to `blend` they were
worth half as much, and only a quarter of what they added was worth having: the one's errors aren't the other's.
"""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from hsfuse.methods.blend import MEMBERS, Blend, Blended
from hsfuse.methods.denoise import denoise
from hsfuse.methods.frame import SceneFrame, Seen, fit_frame, reduced, reducible
from hsfuse.methods.problem import mix, msi_noise
from hsfuse.methods.regression import DIMENSION, EnsembleGLP, RegressionGLP
from hsfuse.methods.subspace import DARK, SpectralSubspace
from hsfuse.nets.srlf import Observation
from hsfuse.physics.model import ObservationModel
from hsfuse.physics.sample import PairSample
from hsfuse.physics.solve import principal_axes

#: What the LRHSI has outside the subspace, relative to all of a band, is rounding below this.
ROUNDING = 1e-5
#: Least unit of the base's error, relative to the coefficients: less is rounding, and 0 where the base has no error.
LEAST_STEP = 1e-7
#: The method whose errors networks for any sensor learn to correct.
KNOWN_BASE = "blend"


def aligned(base: RegressionGLP, scene: PairSample) -> RegressionGLP:
    """The same fitted base on axes along which its errors at reduced resolution are uncorrelated, largest first.

    As it is where the scene is too narrow to be reduced.
    """
    if not reducible(scene, base.model.ratio):
        return base
    target, low, msi = reduced(scene, base)
    error = (base.inject(low, base.regress(msi)) - target).permute(1, 0, 2, 3).flatten(1).double()
    axes = principal_axes(error @ error.T / error.shape[1])[1]
    basis = base.subspace.basis.double() @ axes
    axes = axes * basis.gather(0, basis.abs().argmax(0, keepdim=True)).sign()
    turned = copy(base)
    basis = (base.subspace.basis.double() @ axes).float()
    spread = ((basis.T @ scene.spectra()) ** 2).mean(1).sqrt()
    spread = spread.clamp_min(max(ROUNDING * float(spread.max()), DARK))
    turned.subspace = SpectralSubspace(basis, spread)
    turned.weights = [((axes.T @ w.double()).float(), (axes.T @ b.double()).float()) for w, b in base.weights]
    turned.residual_share = torch.where(_negligible(scene, base.subspace), 1.0, base.residual_share)
    return turned


def _negligible(scene: PairSample, subspace: SpectralSubspace) -> Tensor:
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
    return 2 * (2 + MEMBERS) * dimension + 2


def conditioned(frame: SceneFrame, seen: Seen, regression: Tensor, blended: Blended) -> Observation:
    """The observation with a guide (B, 12 K + 2, H, W): all that is known of how the blend came to be.

    These are the MSI's detail, the interpolated LR residual, which together are the regression, how far the blend is
    from that, and its other members from the blend: all divided by the frame's step, the regression's error, and
    compressed by asinh: linear below it, logarithmic above. They come once as they are and once times the scene's share
    of noise, then that share itself: what is to be smoothed in a noisy scene is to be sharpened in a clean one. The
    last channel is how large errors seem to be at a pixel.
    """
    unit, step = frame.unit[:, None, None], frame.step[:, None, None].clamp_min(LEAST_STEP)
    detail, model, share = seen.obs.guide, seen.obs.model, noise_share(frame.base)
    fine = detail - model.upsample(model.spatial(detail))
    apart = (member / unit - seen.base for member in blended.members[1:])
    parts = torch.cat([x / step for x in (fine, regression - detail, seen.base - regression, *apart)], 1).asinh()
    guide = torch.cat([parts, share * parts, torch.full_like(blended.amount, share), blended.amount.log()], 1)
    return replace(seen.obs, guide=guide)


@dataclass(frozen=True)
class ConditionedFrame(SceneFrame):
    """Frame on error-aligned axes: the network sees the blend and what it was made of."""

    blend: Blend = field(kw_only=True)

    def see(self, lrhsi: Tensor, msi: Tensor) -> Seen:
        """What the network starts from on LRHSI (B, C, h, w) and MSI (B, c, H, W)."""
        clean = msi if self.noise is None else denoise(msi, self.noise)
        blended = self._turned(self.blend.blended(lrhsi, msi))
        seen = self.seen(lrhsi, clean, blended.fused, self.blend.outside_low(lrhsi))
        regression = self.base.coefficients(lrhsi, clean) / self.unit[:, None, None]
        return replace(seen, obs=conditioned(self, seen, regression, blended))

    def start(self, lrhsi: Tensor, msi: Tensor) -> Tensor:
        """The blend's coefficients (B, K, H, W) alone, on this frame's axes."""
        return mix(self._turn, self.blend.coefficients(lrhsi, msi))

    def _turned(self, blended: Blended) -> Blended:
        """On this frame's axes, which span the same subspace."""
        members = torch.einsum("jk,mbkhw->mbjhw", self._turn, blended.members)
        return replace(blended, fused=mix(self._turn, blended.fused), members=members)

    @property
    def _turn(self) -> Tensor:
        return self.subspace.basis.T @ self.blend.subspace.basis.to(self.subspace.basis)


def conditioned_frame(scene: PairSample, model: ObservationModel) -> ConditionedFrame:
    """Frame of a scene on the axes of the regression's errors."""
    noise = msi_noise(scene).float()
    clean = replace(scene, msi=denoise(scene.msi, noise))
    frame = fit_frame(clean, aligned(EnsembleGLP(DIMENSION).fit(clean, model), clean))
    blend = Blend().fit(scene, model)
    return ConditionedFrame(**{**vars(frame), "noise": noise, "fuser": blend}, blend=blend)

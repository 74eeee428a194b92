"""Weights for one pair of sensors: SRLF-Net corrects what the best classical method can't know, and nothing else.

Two sensors without noise settle all of the HRHSI but what neither sees: the spectral directions in the null space of
the response R, and in space what blur and decimation lose. A classical estimate is moved to the nearest image that
gives both inputs exactly; the network then predicts its error along the axes E of the null space on which such
estimates were most wrong in training, in units of how wrong they usually are at pixels so bright and so rough:

    z = z0 + U (a E (t * net(...))),   U = 1 - (DB)^+ DB,   a = brightness^p roughness^q,   t the RMS error per axis

What is added is invisible to both sensors, so the result gives both inputs, too (the range and null space split of
Schwab, Antholzer, Haltmeier 2019, "Deep null space learning for inverse problems", Inverse Problems 35(2)).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional

from hsfuse.fusers.exactfit import ExactFit
from hsfuse.fusers.problem import mix
from hsfuse.nets.srlf import Observation, SRLFNet
from hsfuse.physics import ObservationModel

#: Exponents p and q of the usual error, as a regression of its logarithm on seven training scenes gives them.
BRIGHTNESS_POWER, ROUGHNESS_POWER = 0.25, 0.3
#: Reflectance below which brightness and roughness make no difference.
LEAST_BRIGHTNESS, LEAST_ROUGHNESS = 2e-3, 2e-4
#: Side of the window, in HR pixels, in which roughness is measured.
ROUGHNESS_WINDOW = 9


@dataclass(frozen=True)
class BandFrame:
    """Axes and units in which all scenes of a pair of sensors look alike; part of the weights.

    axes (C, K): orthonormal, the first c span the response's rows, the others lie in its null space. unit (K,): RMS of
    an estimate's coefficients per brightness; spread and step (K,): RMS of its detail and of its error per usual error;
    the step of the first c axes is 0.
    """

    axes: Tensor
    unit: Tensor
    spread: Tensor
    step: Tensor

    def project(self, image: Tensor) -> Tensor:
        """E^T x: (B, C, H, W) -> (B, K, H, W)."""
        return mix(self.axes.T, image)


@dataclass(frozen=True)
class BandView:
    """What the network sees of a scene: `base` (B, K, H, W) and `obs`, and the `usual` error (B, 1, H, W)."""

    base: Tensor
    obs: Observation
    usual: Tensor


def brightness(msi: Tensor) -> Tensor:
    """Mean of the MSI's bands: (B, c, H, W) -> (B, 1, H, W)."""
    return msi.mean(1, keepdim=True).clamp_min(LEAST_BRIGHTNESS)


def roughness(msi: Tensor, smooth: Tensor) -> Tensor:
    """Local RMS of what the LR grid can't show of the MSI, given its smooth part: (B, c, H, W) -> (B, 1, H, W)."""
    power = (msi - smooth).square().mean(1, keepdim=True)
    n = ROUGHNESS_WINDOW
    local = functional.avg_pool2d(power, n, 1, n // 2, count_include_pad=False)
    return (local + LEAST_ROUGHNESS**2).sqrt()


def usual_error(msi: Tensor, smooth: Tensor) -> Tensor:
    """How wrong estimates are at pixels so bright and rough, up to a factor: (B, 1, H, W)."""
    return brightness(msi) ** BRIGHTNESS_POWER * roughness(msi, smooth) ** ROUGHNESS_POWER


def band_guides(dimension: int, bands: int, opinions: int) -> int:
    """Guide channels that `look` makes for K axes, `bands` of which the MSI sees, and a number of opinions."""
    return dimension + opinions * (dimension - bands) + 2


def look(
    frame: BandFrame,
    estimate: Tensor,
    opinions: Sequence[Tensor],
    lrhsi: Tensor,
    msi: Tensor,
    model: ObservationModel,
    smooth: Tensor | None = None,
) -> BandView:
    """The network's view of an exact `estimate` and the `opinions` of other methods, all (B, C, H, W).

    `smooth` is the interpolated LRHSI, for windows of a scene, which would interpolate otherwise at their borders.
    Guide: the estimate's detail, how far each opinion is from it along the axes that the MSI doesn't see, and the
    logarithms of brightness and relative roughness; values are compressed by asinh.
    """
    bands = msi.shape[1]
    unit, step = frame.unit[:, None, None], frame.step[bands:, None, None]
    smooth = model.upsample(lrhsi) if smooth is None else smooth
    smooth_msi = model.spectral(smooth)
    bright, rough, usual = brightness(msi), roughness(msi, smooth_msi), usual_error(msi, smooth_msi)
    a, low = frame.project(estimate), frame.project(lrhsi)
    detail = (a - frame.project(smooth)) / (usual * frame.spread[:, None, None])
    apart = [(frame.project(opinion - estimate)[:, bands:] / (usual * step)).asinh() for opinion in opinions]
    guide = torch.cat([detail.asinh(), *apart, bright.log() / 2, (rough / bright).log() / 2], 1)
    x = (low / (unit * brightness(model.spectral(lrhsi)))).asinh()
    inside = model.with_srf(model.srf @ frame.axes.to(model.srf))
    return BandView((a / (unit * bright)).asinh(), Observation(x, msi, guide, inside, frame.unit), usual)


def correction(frame: BandFrame, output: Tensor, usual: Tensor, fit: ExactFit) -> Tensor:
    """What is added to the estimate (B, C, H, W), from the network's output (B, K, H, W) in usual errors."""
    seen = int((frame.step == 0).sum())
    hidden = fit.unseen(output[:, seen:] * frame.step[seen:, None, None] * usual)
    return mix(frame.axes[:, seen:], hidden)


#: Pixels of each scene that the frame is measured on: every so many.
FRAME_STRIDE = 7


@torch.no_grad()
def measure_frame(scenes: list[tuple[Tensor, Tensor, Tensor]], model: ObservationModel, dimension: int) -> BandFrame:
    """Axes and units from the truth, exact estimate and MSI, each (1, C or c, H, W), of training scenes alike."""
    rows = torch.linalg.svd(model.srf.double(), full_matrices=False).Vh.T
    covariance = torch.zeros(len(rows), len(rows), dtype=torch.float64)
    for truth, estimate, _ in scenes:
        error = (truth - estimate)[0].flatten(1)[:, ::FRAME_STRIDE].double()
        error = error - rows @ (rows.T @ error)
        covariance += error @ error.T / error.square().sum()
    hidden = torch.linalg.eigh(covariance).eigenvectors.flip(1)[:, : dimension - rows.shape[1]]
    axes = torch.cat([rows, hidden], 1)
    axes = (axes * axes.gather(0, axes.abs().argmax(0, keepdim=True)).sign()).float()
    moments = torch.stack([_moments(axes, *scene, model) for scene in scenes]).mean(0).sqrt()
    unit, spread, step = moments.clamp_min(1e-6)
    step[: rows.shape[1]] = 0
    return BandFrame(axes, unit, spread, step)


def _moments(axes: Tensor, truth: Tensor, estimate: Tensor, msi: Tensor, model: ObservationModel) -> Tensor:
    """Mean squares of coefficients per brightness, and of detail and error per usual error: (3, K)."""
    a = mix(axes.T, estimate)
    usual, detail = usual_error(msi, model.upsample(model.spatial(msi))), a - model.upsample(model.spatial(a))
    parts = a / brightness(msi), detail / usual, mix(axes.T, truth - estimate) / usual
    return torch.stack([part.square().mean((0, 2, 3)) for part in parts])


def _turn(image: Tensor, turn: int, shift: int) -> Tensor:
    """One of the square's eight symmetries; mirrored axes are moved by `shift` pixels, from the far to the near end."""
    for bit, axis in ((1, -1), (2, -2)):
        if turn & bit:
            image = image.flip(axis).roll(-shift, axis)
    return image.mT if turn & 4 else image


def turned(view: BandView, turn: int) -> BandView:
    """The view mirrored (bits 1 and 2 of `turn`) and transposed (bit 4), its LR pixels kept at the model's phase."""
    model = view.obs.model
    shift = mirror_shift(model)
    base, usual, y, guide = (_turn(t, turn, shift) for t in (view.base, view.usual, view.obs.y, view.obs.guide))
    obs = replace(view.obs, x=_turn(view.obs.x, turn, 0), y=y, guide=guide)
    return BandView(base, obs, usual)


def unturned(image: Tensor, turn: int, model: ObservationModel) -> Tensor:
    """Inverse of `turned` on one image."""
    image = image.mT if turn & 4 else image
    for bit, axis in ((1, -1), (2, -2)):
        if turn & bit:
            image = image.roll(mirror_shift(model), axis).flip(axis)
    return image


def mirror_shift(model: ObservationModel) -> int:
    """Pixels by which a mirrored axis is moved to have its LR pixels at the phase again: 0 when it is centred."""
    return round(model.scale - 1 - 2 * model.phase)


def mean_over_turns(net: SRLFNet, view: BandView, turns: int) -> Tensor:
    """The network's output (B, K, H, W), mean over the first `turns` of the square's eight symmetries."""
    output = torch.zeros_like(view.base)
    for turn in range(turns):
        seen = turned(view, turn)
        output += unturned(net(seen.base, seen.obs) - seen.base, turn, view.obs.model) / turns
    return output

"""Weights for one pair of sensors at work: a classical method, corrected by SRLF-Net where neither sensor sees."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Self

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from hsfuse.core.errors import ModelError
from hsfuse.core.options import FuseOptions
from hsfuse.core.package import data_folder, file_sha256
from hsfuse.methods import Method, Requirements, make_method
from hsfuse.methods.problem import mix
from hsfuse.nets.srlf import Observation, SRLFNet
from hsfuse.nets.watch import StageWatch
from hsfuse.nets.weights import ModelCard, ModelRecord, load_net
from hsfuse.physics.model import ObservationModel
from hsfuse.physics.sample import PairSample
from hsfuse.physics.solve import principal_axes

#: Alternations between the inputs and the values that a reflectance can have, and how far beyond each step goes.
ROUNDS, RELAXATION = 8, 1.9


class ExactFit:
    """Moves images to the nearest that the observation model turns into given inputs; its PSF must be separable.

    `inverse` (C, c) is the response's, `hidden` (C, C) keeps of a spectrum what the MSI doesn't see.
    """

    def __init__(self, model: ObservationModel) -> None:
        self.model = model
        if len(model.psf.separable_terms()) != 1:
            raise ModelError("the PSF isn't separable, and these weights need one that is, such as a Gaussian")
        inverse = torch.linalg.pinv(model.srf.double())
        self.inverse = inverse.float()
        self.hidden = (torch.eye(len(inverse)).to(inverse) - inverse @ model.srf.double()).float()

    @cached_property
    def _lifts(self) -> dict[tuple, Tensor]:
        return {}

    def __call__(self, image: Tensor, lrhsi: Tensor, msi: Tensor) -> Tensor:
        """(B, C, H, W) that gives LRHSI and MSI; the two corrections act on space and on spectra and so commute."""
        image = image + self.lift(lrhsi - self.model.spatial(image))
        return self.match(image, msi)

    def match(self, image: Tensor, msi: Tensor) -> Tensor:
        """The nearest image that gives the MSI."""
        return image + mix(self.inverse, msi - self.model.spectral(image))

    def between(self, image: Tensor, lrhsi: Tensor, msi: Tensor, most: float, rounds: int = ROUNDS) -> Tensor:
        """The image moved towards those that give both inputs and lie between 0 and `most`, by over-relaxed alternating
        projections (Youla, Webb 1982, "Image restoration by the method of convex projections: part 1", IEEE TMI 1(2)).

        The last step is that to the inputs: what is left outside the range is some thousandths at most.
        """
        for _ in range(rounds):
            image = self(image + RELAXATION * (image.clamp(0, most) - image), lrhsi, msi)
        return image

    def lift(self, low: Tensor) -> Tensor:
        """The smallest image that blur and decimation turn into `low`: (B, K, h, w) -> (B, K, H, W)."""
        rows, cols = (self._lift(axis, n, low) for axis, n in enumerate(low.shape[2:]))
        return rows @ low @ cols.T

    def unseen(self, image: Tensor) -> Tensor:
        """The part of an image (B, K, H, W) that blur and decimation lose."""
        return image - self.lift(self.model.spatial(image))

    def _lift(self, axis: int, n: int, like: Tensor) -> Tensor:
        key = (axis, n, like.dtype, like.device)
        if key not in self._lifts:
            matrix = self.model.leading_matrix(axis, n * self.model.ratio)
            with torch.inference_mode(False):
                self._lifts[key] = torch.as_tensor(np.linalg.pinv(matrix)).float().to(like)
        return self._lifts[key]


def most_possible(lrhsi: Tensor, msi: Tensor) -> float:
    """The largest value that a fused image can have: 1 where both inputs are reflectances, else none."""
    return 1.0 if max(float(lrhsi.max()), float(msi.max())) <= 1 else math.inf


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
    hidden = principal_axes(covariance)[1][:, : dimension - rows.shape[1]]
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
    return round(model.ratio - 1 - 2 * model.phase)


def mean_over_turns(net: SRLFNet, view: BandView, turns: int) -> Tensor:
    """The network's output (B, K, H, W), mean over the first `turns` of the square's eight symmetries."""
    output = torch.zeros_like(view.base)
    for turn in range(turns):
        seen = turned(view, turn)
        output += unturned(net(seen.base, seen.obs) - seen.base, turn, view.obs.model) / turns
    return output


#: Symmetries of the square that are averaged over unless told otherwise.
TURNS = 8
#: What the names of tensors begin with that aren't the network's.
FRAME = "bands."
DEFAULT_WEIGHTS = "srlf-cave-x8.safetensors"
#: How far response and PSF may be from the weights' own, relative to their largest value.
SRF_TOLERANCE, PSF_TOLERANCE = 0.02, 0.02


class Banded(Method):
    """`base` corrected by weights of one pair of sensors: LRHSI (B, C, h, w), MSI (B, c, H, W) -> (B, C, H, W).

    Both inputs are taken as exact, and as reflectance where they are at most 1. `weights` are by default those that
    come with hsfuse for CAVE at ratio 8. The network's output is the mean over the first `turns` of the square's eight
    symmetries; the result is brought between 0 and 1 in `rounds` steps.
    """

    id = "srlf-bands"
    requirements = Requirements(halo=12)
    kinds, needs_weights = ("bands",), True
    model: ObservationModel
    card: ModelCard
    frame: BandFrame
    net: SRLFNet

    def __init__(self, weights: Path | None = None, turns: int = TURNS, rounds: int = ROUNDS) -> None:
        self.weights = weights or data_folder("models") / DEFAULT_WEIGHTS
        self.turns, self.rounds = turns, rounds

    @classmethod
    def load(cls, options: FuseOptions, weights: ModelRecord | None = None) -> Self:
        """With the weights named, else those for CAVE."""
        return cls(None if weights is None else weights.path, options.ensemble or TURNS)

    def fit(self, scene: PairSample, model: ObservationModel) -> Self:
        """Fit the classical methods; the network is as trained. ModelError for other sensors."""
        axes = [f.name for f in fields(BandFrame)]
        self.card, net, own = load_net(self.weights, "bands", _guide, FRAME, [*axes, "srf", "psf"])
        self.model, self.weights_sha256 = model, file_sha256(self.weights)
        check_sensors(self.card, own, model)
        device = scene.lrhsi.device
        self.frame = BandFrame(**{name: own[name].to(device) for name in axes})
        self.net = net.to(device)
        self.exact = ExactFit(model)
        self.most = most_possible(scene.lrhsi, scene.msi)
        self.base = make_method(self.card.base).fit(scene, model)
        self.opinions = [make_method(name).fit(scene, model) for name in opinion_names(self.card)]
        return self

    @torch.no_grad()
    def predict(self, lrhsi: Tensor, msi: Tensor) -> Tensor:
        """Fuse tiles."""
        estimate, *others = (self.exact(m.predict(lrhsi, msi), lrhsi, msi) for m in (self.base, *self.opinions))
        view = look(self.frame, estimate, others, lrhsi, msi, self.model)
        output = mean_over_turns(self.net, view, self.turns)
        fused = estimate + correction(self.frame, output, view.usual, self.exact)
        return self.exact.between(fused, lrhsi, msi, self.most, self.rounds)

    @property
    def parts(self) -> dict[str, str]:
        """Its weights always have a part."""
        return {"weights": self.card.name}

    def describe(self) -> dict[str, str]:
        """What was corrected by which weights."""
        weights = f"{self.card.name} ({self.card.steps} steps)"
        return {**self.base.describe(), "method": self.id, "base": self.card.base, "weights": weights}

    def layers(self) -> StageWatch:
        """Where the network learns again."""
        return StageWatch(self.net)


def opinion_names(card: ModelCard) -> tuple[str, ...]:
    """The methods whose opinions the network is told; ModelError when the card doesn't say."""
    try:
        return tuple(card.extra["settings"]["patches"]["opinions"])
    except (KeyError, TypeError) as error:
        raise ModelError(f"the card of the weights {card.name!r} doesn't say whose opinions they need") from error


def _guide(card: ModelCard, own: dict[str, Tensor]) -> int:
    return band_guides(card.config.channels, len(own["srf"]), len(opinion_names(card)))


def check_sensors(card: ModelCard, own: dict[str, Tensor], model: ObservationModel) -> None:
    """ModelError with a table when weights were made for other sensors than the scene's."""
    srf, kernel = model.srf.cpu(), torch.from_numpy(model.psf.kernel)
    rows = [
        ("ratio", card.scale, model.ratio, card.scale == model.ratio),
        ("phase", card.phase, f"{model.phase:g}", card.phase == f"{model.phase:g}"),
        ("bands of LRHSI, MSI", _bands(own["srf"]), _bands(srf), own["srf"].shape == srf.shape),
        ("response, bands' centres", _centres(own["srf"]), _centres(srf), _alike(own["srf"], srf, SRF_TOLERANCE)),
        ("PSF", _width(own["psf"]), _width(kernel), _alike(own["psf"], kernel, PSF_TOLERANCE)),
    ]
    if all(fits for *_, fits in rows):
        return
    lines = [f"  {what:<26}{have!s:<22}{want!s:<22}{'' if fits else 'differs'}" for what, have, want, fits in rows]
    table = "\n".join([f"  {'':<26}{'weights':<22}scene", *lines])
    raise ModelError(
        f"the weights {card.name!r} are for other sensors; leave out --model for a method that fits\n{table}"
    )


def _alike(a: Tensor, b: Tensor, tolerance: float) -> bool:
    """Equal shapes, and nowhere further apart than `tolerance` times the largest value."""
    return a.shape == b.shape and float((a - b).abs().max()) <= tolerance * float(a.abs().max())


def _bands(srf: Tensor) -> str:
    return f"{srf.shape[1]}, {srf.shape[0]}"


def _centres(srf: Tensor) -> str:
    """Centres of the MSI's responses, counted in bands of the LRHSI."""
    index = torch.arange(srf.shape[1]).to(srf)
    return ", ".join(f"{float(c):.1f}" for c in (srf @ index) / srf.sum(1))


def _width(kernel: Tensor) -> str:
    """Taps, and standard deviation in HR pixels."""
    taps, t = kernel.sum(0), torch.arange(len(kernel)).to(kernel) - (len(kernel) - 1) / 2
    return f"{len(kernel)} taps, sd {float((taps * t**2).sum() / taps.sum()) ** 0.5:.2f}"

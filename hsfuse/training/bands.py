"""Patches for weights of one pair of sensors that correct a classical estimate (hsfuse.methods.srlf_bands)."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hsfuse.core.errors import SettingError
from hsfuse.methods import make_method
from hsfuse.methods.srlf_bands import BandFrame, ExactFit, band_guides, correction, look, measure_frame, mirror_shift
from hsfuse.nets.relearn import smooth_angle
from hsfuse.nets.srlf import Observation
from hsfuse.physics.sample import PairSample
from hsfuse.training.augment import spectral_change
from hsfuse.training.kept import Tensors, digest, kept
from hsfuse.training.patches import FixedSensors, PatchSettings
from hsfuse.training.sample import EVERY, Reference

log = logging.getLogger(__name__)

#: Smallest error per band by which losses are divided, in reflectance.
LEAST_ERROR = 1e-4


@dataclass(frozen=True)
class BandSample:
    """Network inputs, and what its output is judged by.

    estimate, truth (B, C, H, W); usual (B, 1, H, W); weight (B, C, 1, 1) is 1 / the scene's RMS error of the estimate
    in each band, angle (B,) the scene's mean spectral angle. The first `skip` rows and columns, under LR pixels whose
    footprint the patch cuts, don't count.
    """

    base: Tensor
    observation: Observation
    step: Tensor
    estimate: Tensor
    truth: Tensor
    usual: Tensor
    weight: Tensor
    angle: Tensor
    frame: BandFrame
    fit: ExactFit
    skip: int

    def losses(self, z: Tensor) -> dict[str, Tensor]:
        """The loss's terms for the network's output z: `gain`, the log ratio of the RMS error to the estimate's, mean
        over bands; `l1`, the mean absolute error and `angle`, the mean spectral angle, each relative to the scene's."""
        fused = self.estimate + correction(self.frame, z - self.base, self.usual, self.fit)
        fused, truth, start = (t[..., self.skip :, self.skip :] for t in (fused, self.truth, self.estimate))
        error, before = (fused - truth) * self.weight, (start - truth) * self.weight
        power = error.square().mean((0, 2, 3)).clamp_min(1e-12) / before.square().mean((0, 2, 3)).clamp_min(1e-12)
        angle = (angles(fused, truth) / self.angle).mean()
        return {"gain": power.log().mean() / 2, "l1": error.abs().mean(), "angle": angle}

    def to(self, device: torch.device) -> BandSample:
        """The same on another device."""
        moved: dict[str, Any] = {k: v.to(device) for k, v in vars(self).items() if isinstance(v, Tensor)}
        frame = BandFrame(**{key: value.to(device) for key, value in vars(self.frame).items()})
        return replace(self, **moved, frame=frame, observation=self.observation.to(device))


def angles(a: Tensor, b: Tensor) -> Tensor:
    """Mean spectral angle in radians per sample, (B, C, H, W) twice -> (B,); spectra of dark pixels count for less."""
    return smooth_angle(a, b, 1e-4).mean((1, 2))


@dataclass(frozen=True)
class BandScene:
    """A reference with its inputs: LRHSI `low` (C, h, w), and truth, interpolated LRHSI, estimate and opinions (n, C,
    H, W).

    error (H, W) is the estimate's, mean over bands, relative to the scene's; covariance (C, C) the estimate's error's,
    angle its mean spectral angle.
    """

    maps: Tensor
    low: Tensor
    error: Tensor
    covariance: Tensor
    angle: Tensor


class BandSource(FixedSensors):
    """Patches at random places in random symmetries; batch `number` depends on the seed and number alone."""

    def __init__(
        self,
        references: Sequence[Reference],
        settings: PatchSettings,
        seed: int,
        channels: int,
        frame: BandFrame | None = None,
        cache: Path | None = None,
    ) -> None:
        super().__init__(references, settings, seed)
        if frame is None:
            mirrored = settings.augment and mirror_shift(self.model) != 0
            self.check_size(settings.size + mirrored * settings.scale)
        if not self.bands < channels <= len(self.model.srf[0]):
            raise SettingError(
                f"{channels} channels for {self.bands} MSI bands and {len(self.model.srf[0])} of the references: "
                "wanted more than the one and no more than the other"
            )
        self.guide, self.fit, self.cache = (
            band_guides(channels, self.bands, len(settings.opinions)),
            ExactFit(self.model),
            cache,
        )
        whole = [torch.from_numpy(self.whole(r.data).copy())[None] for r in references]
        seen = [self.model(truth) for truth in whole]
        first, *others = ([self.estimate(name, *pair) for pair in seen] for name in (settings.base, *settings.opinions))
        measured = zip(whole, first, [y for _, y in seen], strict=True)
        self.frame = frame or measure_frame(list(measured), self.model, channels)
        self.scenes = [self._scene(*parts) for parts in zip(whole, first, seen, *others, strict=True)]
        weights = np.array([r.weight for r in references])
        self._shares = weights / weights.sum()

    def estimate(self, method: str, lrhsi: Tensor, msi: Tensor) -> Tensor:
        """The method's result on a whole scene, moved to fit both inputs; kept in the cache."""
        fuser = make_method(method)

        @torch.no_grad()
        def result() -> Tensors:
            scene = PairSample(lrhsi, msi, torch.ones(1, *lrhsi.shape[2:], dtype=torch.bool))
            return {"fused": fuser.fit(scene, self.model).predict(lrhsi, msi).float()}

        path = self.cache and self.cache / f"{method}-{digest(fuser, lrhsi, msi, self.model)}.safetensors"
        return self.fit(kept(path, result)["fused"], lrhsi, msi)

    @torch.no_grad()
    def _scene(self, truth: Tensor, first: Tensor, seen: tuple[Tensor, Tensor], *others: Tensor) -> BandScene:
        gap = (first - truth)[0]
        power = gap.square().mean((1, 2), keepdim=True)
        weight = power.sqrt().clamp_min(LEAST_ERROR)
        flat = gap.flatten(1)
        maps = torch.cat([truth, self.model.upsample(seen[0]), first, *others])
        covariance = flat @ flat.T / flat.shape[1]
        return BandScene(maps, seen[0][0], (gap / weight).abs().mean(0), covariance, angles(first, truth)[0])

    def batch(self, number: int, size: int, part: slice = EVERY) -> list[BandSample]:
        """One sample that holds `part` of the `size` patches of batch `number`."""
        rng = np.random.default_rng([self.seed, number])
        scenes = [self.scenes[i] for i in rng.choice(len(self.scenes), size, p=self._shares)]
        windows = [(scene, *self._window(scene, rng), self._change(rng)) for scene in scenes][part]
        return [self._sample(windows, skip=self.settings.scale // 2)] if windows else []

    def _change(self, rng: np.random.Generator) -> Tensor:
        """What becomes of a window's spectra: (C, C)."""
        if self.settings.vary and rng.random() < self.settings.vary:
            return torch.from_numpy(spectral_change(self.references[0].wavelengths_nm, rng))
        return torch.eye(len(self.frame.axes))

    def others(self, references: Sequence[Reference]) -> BandSource:
        """The same for other references, in the same frame."""
        self.check_alike(references)
        return BandSource(references, self.settings, self.seed, len(self.frame.unit), self.frame, self.cache)

    def inputs_about(self, axis: int) -> list[int]:
        """The network's input channels that hold an axis's detail and the opinions about it."""
        k, hidden = len(self.frame.unit), axis - self.bands
        opinions = range(len(self.settings.opinions)) if hidden >= 0 else ()
        return [k + axis, *(2 * k + i * (k - self.bands) + hidden for i in opinions)]

    def frame_tensors(self) -> dict[str, Tensor]:
        """Frame and sensors, which are part of the weights."""
        nm = torch.from_numpy(self.references[0].wavelengths_nm)
        kernel = torch.from_numpy(self.model.psf.kernel)
        return {**vars(self.frame), "wavelengths_nm": nm, "srf": self.model.srf, "psf": kernel}

    @cached_property
    def held(self) -> list[BandSample]:
        """Every scene as one sample."""
        same = torch.eye(len(self.frame.axes))
        return [self._sample([(scene, scene.maps, scene.low, same)]) for scene in self.scenes]

    def _window(self, scene: BandScene, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """A random window in a random symmetry, (n, C, size, size) and (C, size / s, size / s); of some tries the one
        with the largest error, as half of many scenes is a dark background.

        Where the phase isn't centred a mirrored axis has its LR pixels elsewhere, so the window starts where it brings
        them back to the phase.
        """
        s, n = self.settings.scale, self.settings.size // self.settings.scale
        flips, turned = (rng.integers(2, size=2), int(rng.integers(2))) if self.settings.augment else ((0, 0), 0)
        shifts = [round(2 * self.model.phase + 1 - s) if flip else 0 for flip in flips]
        tries = [
            [int(rng.integers(-(d // s), size - n + 1)) for d, size in zip(shifts, scene.low.shape[1:], strict=True)]
            for _ in range(self.settings.tries)
        ]

        def cut(image: Tensor, start: list[int]) -> Tensor:
            row, col = (s * i + d for i, d in zip(start, shifts, strict=True))
            return image[..., row : row + s * n, col : col + s * n]

        row, col = max(tries, key=lambda start: float(cut(scene.error, start).mean()))
        axes = [axis for axis, flip in zip((-2, -1), flips, strict=True) if flip]
        low = scene.low[:, row : row + n, col : col + n].flip(axes)
        maps = cut(scene.maps, [row, col]).flip(axes)
        return (maps.mT, low.mT) if turned else (maps, low)

    @torch.no_grad()
    def _sample(self, windows: list[tuple[BandScene, Tensor, Tensor, Tensor]], skip: int = 0) -> BandSample:
        """Windows of scenes, each with maps, LRHSI and the change of its spectra."""
        maps = torch.stack([torch.einsum("dc,nchw->ndhw", change, maps) for _, maps, _, change in windows], 1)
        low = torch.stack([torch.einsum("dc,chw->dhw", change, low) for *_, low, change in windows])
        truth, smooth, *estimates = maps
        msi = self.model.spectral(truth)
        first, *others = (self.fit.match(estimate, msi) for estimate in estimates)
        view = look(self.frame, first, others, low, msi, self.model, smooth)
        changes = [(self.fit.hidden @ change, scene.covariance) for scene, *_, change in windows]
        power = torch.stack([(change @ covariance @ change.T).diagonal() for change, covariance in changes])
        weight = 1 / power.sqrt().clamp_min(LEAST_ERROR)[:, :, None, None]
        angle = torch.stack([scene.angle for scene, *_ in windows])
        return BandSample(
            view.base, view.obs, torch.ones(()), first, truth, view.usual, weight, angle, self.frame, self.fit, skip
        )

"""Scene draws: a random crop seen by a random pair of sensors, fused by the training-free base, ready for the network.

Draw number n depends on the seed and n alone, so that a resumed run meets the draws that an uninterrupted one would.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import EllipsisType

import numpy as np
import torch
from torch import Tensor

from hsfuse.errors import InputError
from hsfuse.fusers import TrainingScene
from hsfuse.fusers.conditioning import conditioned_frame, guides, look
from hsfuse.nets.srlf import Observation
from hsfuse.physics import ObservationModel, gaussian_psf
from hsfuse.training.augment import add_noise, crop, random_srf, smooth_gain, spectral_variant
from hsfuse.training.sample import EVERY, Reference, Sample, sample

#: Sides of a reference, in LR pixels, below which a base can't be fitted.
MIN_LR_PIXELS = 4


@dataclass(frozen=True)
class DrawSettings:
    """What varies from draw to draw; PSF sigmas are relative to the scale ratio.

    The base is fitted on a crop of `size` HR pixels and the network trained on a `window` of it; the loss looks at
    `bands` randomly chosen bands. A share `noise_free` of the draws has no noise, the others an SNR of `snr_db` on the
    LRHSI and `msi_snr_above` more on the MSI. A share `grainy` has noise in the truth itself, as references from real
    sensors do: grain that is seen by both sensors and counts as detail. `level` is the range of the brightest value.
    `denoise` cleans the MSI before the base sees it, as fusing does; it multiplies the time that a draw takes.
    """

    scale: int
    channels: int = 16
    size: int = 96
    window: int = 64
    psf_sigma: tuple[float, float] = (0.35, 0.6)
    snr_db: tuple[float, float] = (30.0, 45.0)
    noise_free: float = 0.5
    grainy: float = 0.3
    msi_snr_above: float = 5.0
    level: tuple[float, float] = (0.3, 1.0)
    bands: int = 48
    denoise: bool = False


Index = tuple[EllipsisType | slice, ...]


class DrawSource:
    """Batches of draws; batch `number` depends on the seed and number alone."""

    def __init__(self, references: Sequence[Reference], settings: DrawSettings, seed: int) -> None:
        for reference in references:
            check_size(reference, settings)
        self.references, self.settings, self.seed = references, settings, seed
        self.guide = guides(settings.channels)
        weights = np.array([r.weight for r in references])
        self._shares = weights / weights.sum()

    def batch(self, number: int, size: int, part: slice = EVERY) -> list[Sample]:
        """The `size` samples of batch `number`, or `part` of them."""
        return [self.draw(number * size + i) for i in range(size)[part]]

    def draw(self, number: int) -> Sample:
        """Draw `number`; one from which nothing can be learned is replaced by another."""
        for attempt in range(50):
            drawn = self._draw(np.random.default_rng([self.seed, number, attempt]))
            if drawn is not None and drawn.usable:
                return drawn
        raise InputError(
            "the references give no usable training sample: they are flat, or smaller than a few LR pixels"
        )

    def _draw(self, rng: np.random.Generator) -> Sample | None:
        settings = self.settings
        reference = self.references[int(rng.choice(len(self.references), p=self._shares))]
        cube = crop(reference.data, settings.size, settings.scale, rng)
        cube, wavelengths_nm = spectral_variant(cube, reference.wavelengths_nm, rng)
        if cube.shape[0] <= settings.channels:
            return None
        peak = max(float(np.percentile(cube, 99.9)), 1e-6)
        truth = torch.from_numpy(np.maximum(cube * np.float32(rng.uniform(*settings.level) / peak), 0))[None]
        if rng.random() < settings.grainy:
            truth = torch.from_numpy(add_noise(truth[0].numpy(), rng.uniform(*settings.snr_db), rng))[None]
        psf = gaussian_psf(rng.uniform(*settings.psf_sigma) * settings.scale, settings.scale)
        model = ObservationModel(random_srf(wavelengths_nm, rng), psf, settings.scale)
        return self._sample(truth, *observe(truth, model, settings, rng), model, rng)

    def _sample(
        self, truth: Tensor, lrhsi: Tensor, msi: Tensor, model: ObservationModel, rng: np.random.Generator
    ) -> Sample:
        """Fit the base on the whole crop; keep a window of it, with the axes' signs drawn at random."""
        scene = TrainingScene(lrhsi, msi, torch.ones(1, *lrhsi.shape[2:], dtype=torch.bool))
        frame = conditioned_frame(scene, model, self.settings.channels, self.settings.denoise)
        looked, base = look(frame, lrhsi, msi), frame.base
        z, seen, outside = looked.base, looked.obs, base.outside(lrhsi)
        bands = torch.from_numpy(rng.permutation(truth.shape[1])[: self.settings.bands])
        sign = torch.from_numpy(rng.choice([-1.0, 1.0], z.shape[1])).float()
        turns = torch.cat([sign.repeat(seen.guide.shape[1] // len(sign)), torch.ones(1)])[:, None, None]
        hr, lr = _windows(lrhsi.shape[2:], self.settings.window, self.settings.scale, rng)
        turn = sign[:, None, None]
        return sample(
            base=(z * turn)[hr],
            target=(base.subspace.project(truth) / frame.unit[:, None, None] * turn)[hr],
            observation=Observation(
                (seen.x * turn)[lr],
                seen.y[hr],
                (seen.guide * turns)[hr],
                seen.model.with_srf(seen.model.srf * sign),
                seen.unit,
            ),
            step=frame.step[:, None, None],
            axes=(base.subspace.basis * frame.unit * sign)[bands],
            outside=(outside - base.subspace.residual(truth))[:, bands][hr],
        )


def _windows(shape: Sequence[int], side: int, s: int, rng: np.random.Generator) -> tuple[Index, Index]:
    """Index of a random window of `side` HR pixels in HR and in LR maps, whose LR shape is given."""
    spans = []
    for n in shape:
        length = min(max(1, side // s), n)
        first = int(rng.integers(n - length + 1))
        spans.append((first, first + length))
    hr: Index = (..., *(slice(a * s, b * s) for a, b in spans))
    lr: Index = (..., *(slice(a, b) for a, b in spans))
    return hr, lr


def check_size(reference: Reference, settings: DrawSettings) -> None:
    """InputError unless a reference has pixels and bands enough to fit a base."""
    bands, *sides = reference.data.shape
    least = MIN_LR_PIXELS * settings.scale
    if min(sides) < least or bands <= settings.channels:
        raise InputError(
            f"{reference.name} has {sides[0]} x {sides[1]} pixels and {bands} bands; wanted at least {least} x {least} "
            f"and more than {settings.channels} bands"
        )


def observe(
    truth: Tensor, model: ObservationModel, settings: DrawSettings, rng: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """LRHSI and MSI of a truth (1, C, H, W) with random noise and, in one draw of two, other MSI gains and offsets."""
    low, high = model.spatial(truth)[0].numpy(), model.spectral(truth)[0].numpy()
    if rng.random() < 0.5:
        gain = smooth_gain(high.shape[0], rng, 0.15) * rng.uniform(0.9, 1.1)
        high = (high * gain[:, None, None] + rng.uniform(0, 0.03)).astype(np.float32)
    if rng.random() >= settings.noise_free:
        snr = rng.uniform(*settings.snr_db)
        low, high = add_noise(low, snr, rng), add_noise(high, snr + settings.msi_snr_above, rng)
    return torch.from_numpy(low)[None], torch.from_numpy(high)[None]

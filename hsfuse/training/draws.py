"""Scene draws: a random crop seen by a random pair of sensors, fused by base and scene regression, as networks see it.

Draw number n depends on the seed and n alone, so that a resumed run meets the draws that an uninterrupted one would.
Scenes are fused once and kept: that takes longer than a step of training, of which each sees many windows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import EllipsisType

import numpy as np
import torch
from torch import Tensor

from hsfuse.core.errors import InputError, SettingError
from hsfuse.core.values import Count, Positive, Share
from hsfuse.methods.conditioning import conditioned_frame, guides
from hsfuse.methods.regression import DIMENSION
from hsfuse.nets.srlf import Observation, dihedral
from hsfuse.physics.model import ObservationModel, Psf, gaussian_psf
from hsfuse.physics.sample import PairSample
from hsfuse.training.augment import add_noise, crop, random_srf, smooth_gain, spectral_variant
from hsfuse.training.kept import Tensors, kept, references_digest
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
    There are `pool` scenes in all, as fitting the base takes longer than a step; windows of them differ in place, turn
    and signs.
    """

    scale: int
    channels: int = 16
    size: int = 96
    window: int = 64
    psf_sigma: tuple[Positive, Positive] = (0.35, 0.6)
    snr_db: tuple[float, float] = (30.0, 45.0)
    noise_free: Share = 0.5
    grainy: Share = 0.3
    msi_snr_above: float = 5.0
    level: tuple[Positive, Positive] = (0.3, 1.0)
    bands: int = 48
    pool: Count = 600

    def __post_init__(self) -> None:
        for name in ("psf_sigma", "snr_db", "level"):
            low, high = getattr(self, name)
            if low > high:
                raise SettingError(
                    f"[draws] {name} is [{low:g}, {high:g}], wanted [{high:g}, {low:g}], the lower end first"
                )


Index = tuple[EllipsisType | slice, ...]
WHOLE: Index = (...,)
#: How often another draw is tried for one from which nothing can be learned.
ATTEMPTS = 50
UNUSABLE = "the references give no usable training sample: they are flat, or smaller than a few LR pixels"


class DrawSource:
    """Batches of draws from a pool of scenes; batch `number` depends on the seed and number alone."""

    def __init__(
        self, references: Sequence[Reference], settings: DrawSettings, seed: int, cache: Path | None = None
    ) -> None:
        if settings.channels != DIMENSION:
            raise SettingError(f"weights for any sensor have {DIMENSION} channels, not {settings.channels}")
        for reference in references:
            check_size(reference, settings)
        self.references, self.settings, self.seed = references, settings, seed
        self.guide = guides(settings.channels)
        weights = np.array([r.weight for r in references])
        self._shares = weights / weights.sum()
        self._cache = cache and cache / f"draws-{references_digest(references, settings, seed)}"
        self._made: dict[int, Tensors] = {}

    def batch(self, number: int, size: int, part: slice = EVERY) -> list[Sample]:
        """The `size` samples of batch `number`, or `part` of them."""
        return [self.draw(number * size + i) for i in range(size)[part]]

    def draw(self, number: int) -> Sample:
        """Draw `number`: a window of a scene; one from which nothing can be learned is replaced by another scene's."""
        pool = self.settings.pool
        epoch, place = divmod(number, pool)
        scene = int(np.random.default_rng([self.seed, epoch]).permutation(pool)[place])
        for attempt in range(ATTEMPTS):
            rng = np.random.default_rng([self.seed, number, attempt])
            drawn = self._sample(self.scene(scene), rng)
            if drawn.usable:
                return drawn
            scene = int(rng.integers(pool))
        raise InputError(UNUSABLE)

    def scene(self, number: int) -> Tensors:
        """Scene `number` of the pool, kept on disk where there is a cache, else in memory."""
        if self._cache is not None:
            return kept(self._cache / f"{number}.safetensors", lambda: self._scene(number))
        if number not in self._made:
            self._made[number] = self._scene(number)
        return self._made[number]

    def _scene(self, number: int) -> Tensors:
        for attempt in range(ATTEMPTS):
            drawn = self._drawn(np.random.default_rng([self.seed, number, attempt]))
            if drawn is not None and len(drawn["unit"]) == DIMENSION and self._sample(drawn).usable:
                return drawn
        raise InputError(UNUSABLE)

    def _drawn(self, rng: np.random.Generator) -> Tensors | None:
        """A random crop and what a random pair of sensors sees of it; None where it has too few bands."""
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
        lrhsi, msi = observe(truth, model, settings, rng)
        bands = torch.from_numpy(rng.permutation(truth.shape[1])[: settings.bands])
        return fused(truth, lrhsi, msi, model, bands)

    def _sample(self, drawn: Tensors, rng: np.random.Generator | None = None) -> Sample:
        """A whole scene, or a random window of it, turned, with the axes' signs drawn at random."""
        s, k = self.settings.scale, self.settings.channels
        sign, turn, hr, lr = torch.ones(k), 0, WHOLE, WHOLE
        if rng is not None:
            sign = torch.from_numpy(rng.choice([-1.0, 1.0], k)).float()
            hr, lr = _windows(drawn["x"].shape[2:], self.settings.window, s, rng)
            turn = int(rng.integers(8))
        signs, by_sign = torch.cat([sign.repeat(self.guide // k), torch.ones(self.guide % k)]), sign[:, None, None]

        def part(name: str, at: Index, by: Tensor | float = 1.0) -> Tensor:
            return dihedral(drawn[name][at].float() * by, turn)

        known = part("known", hr, by_sign) if "known" in drawn else None
        model = ObservationModel(drawn["srf"].numpy() * sign.numpy(), Psf(drawn["psf"].numpy()), s)
        guide = part("guide", hr, signs[:, None, None])
        return sample(
            base=part("base", hr, by_sign),
            target=part("target", hr, by_sign),
            observation=Observation(part("x", lr, by_sign), part("y", hr), guide, model, drawn["unit"], known=known),
            step=drawn["step"][:, None, None],
            axes=drawn["axes"] * sign,
            outside=part("outside", hr),
        )


@torch.no_grad()
def fused(truth: Tensor, lrhsi: Tensor, msi: Tensor, model: ObservationModel, bands: Tensor) -> Tensors:
    """A scene as the network meets it: inputs and target in feature units, and what `bands` have outside the subspace.

    What its scene regression says is `known`: the network learns what that leaves. The largest maps are in half
    precision, as they are kept on disk.
    """
    frame = conditioned_frame(PairSample(lrhsi, msi, torch.ones(1, *lrhsi.shape[2:], dtype=torch.bool)), model)
    seen, subspace, unit = frame.see(lrhsi, msi), frame.subspace, frame.unit[:, None, None]
    zero = torch.zeros_like(seen.base)
    outside = frame.finish(zero, seen) - subspace.residual(truth)
    return {
        "base": seen.base,
        "target": subspace.project(truth) / unit,
        "x": seen.obs.x,
        "y": seen.obs.y,
        "guide": seen.obs.guide.half(),
        "outside": outside[:, bands].half(),
        "unit": frame.unit,
        "step": frame.step,
        "axes": (subspace.basis * frame.unit)[bands],
        "srf": frame.model.srf,
        "psf": torch.from_numpy(model.psf.kernel),
        **({} if seen.obs.known is None else {"known": seen.obs.known}),
    }


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

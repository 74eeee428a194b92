"""Scene draws: a random crop seen by a random pair of sensors, fused by the training-free base, ready for the network.

Draw number n depends on the seed and n alone, so that a resumed run meets the draws that an uninterrupted one would.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hsfuse.fusers import TrainingScene
from hsfuse.fusers.conditioning import aligned
from hsfuse.fusers.frame import fit_frame
from hsfuse.fusers.regression import EnsembleGLP
from hsfuse.nets.srlf import Observation
from hsfuse.physics import ObservationModel, gaussian_psf
from hsfuse.training.augment import add_noise, crop, random_srf, smooth_gain, spectral_variant


@dataclass(frozen=True)
class Reference:
    """A cube to learn from: `data` (C, H, W), band centres, and how often it is drawn relative to the others."""

    name: str
    data: NDArray[np.float32]
    wavelengths_nm: NDArray[np.float64]
    weight: float = 1.0


@dataclass(frozen=True)
class DrawSettings:
    """What varies from draw to draw; sigmas are relative to the scale ratio, SNRs in dB."""

    scale: int
    channels: int = 16
    size: int = 96
    psf_sigma: tuple[float, float] = (0.35, 0.6)
    snr_db: tuple[float, float] = (30.0, 45.0)
    noise_free: float = 0.4
    msi_snr_above: float = 5.0
    level: tuple[float, float] = (0.3, 1.0)
    bands: int = 48
    align: bool = True


@dataclass(frozen=True)
class Draw:
    """One training sample and what its loss needs.

    base z and target z (1, K, H, W), the observation, step (K, 1, 1); `axes` (bands, K) the subspace's basis times the
    units at a sample of bands, `outside` (1, bands, H, W) the error there that no coefficient can mend; the base's mean
    square error per band and mean angular error, by which losses are divided.
    """

    base: Tensor
    target: Tensor
    observation: Observation
    step: Tensor
    axes: Tensor
    outside: Tensor
    error: Tensor
    angle: Tensor

    def band_errors(self, z: Tensor) -> Tensor:
        """Mean square error per sampled band (bands,)."""
        return ((torch.einsum("ck,bkhw->bchw", self.axes, z - self.target) + self.outside) ** 2).mean((0, 2, 3))

    def loss_parts(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Log ratio of the RMS error to the base's, mean over bands (0 = the base, -0.115 = 1 dB of PSNR gained), and
        ratio of the mean spectral angle to the base's."""
        unit = self.observation.unit[:, None, None]
        gain = (self.band_errors(z) / self.error).log().mean() / 2
        return gain, mean_angle(z * unit, self.target * unit) / self.angle


def mean_angle(x: Tensor, y: Tensor) -> Tensor:
    """Mean of |x/|x| - y/|y||, the angle between spectra for small ones, with a finite gradient at zero."""
    gap = torch.nn.functional.normalize(x, dim=1) - torch.nn.functional.normalize(y, dim=1)
    return ((gap**2).sum(1) + 1e-12).sqrt().mean()


def make_draw(references: Sequence[Reference], settings: DrawSettings, seed: int, number: int) -> Draw:
    """Draw `number` of a seeded sequence; one whose base fails numerically is replaced by another."""
    for attempt in range(20):
        draw = _draw(references, settings, np.random.default_rng([seed, number, attempt]))
        if torch.isfinite(draw.error).all() and draw.error.min() > 1e-10 and 1e-5 < draw.angle < 10:
            return draw
    raise ValueError("no usable draw in 20 attempts")


def _draw(references: Sequence[Reference], settings: DrawSettings, rng: np.random.Generator) -> Draw:
    weights = np.array([r.weight for r in references])
    reference = references[int(rng.choice(len(references), p=weights / weights.sum()))]
    s = settings.scale
    cube = crop(reference.data, settings.size, s, rng)
    cube, wavelengths_nm = spectral_variant(cube, reference.wavelengths_nm, rng)
    cube = cube * np.float32(rng.uniform(*settings.level) / max(float(np.percentile(cube, 99.9)), 1e-6))
    psf = gaussian_psf(rng.uniform(*settings.psf_sigma) * s, s)
    model = ObservationModel(random_srf(wavelengths_nm, rng), psf, s)
    truth = torch.from_numpy(np.maximum(cube, 0))[None]
    lrhsi, msi = observe(truth, model, settings, rng)
    return _frame_draw(truth, lrhsi, msi, model, settings, rng)


def observe(
    truth: Tensor, model: ObservationModel, settings: DrawSettings, rng: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """LRHSI and MSI of a truth (1, C, H, W) with random noise and, in one draw of two, other MSI gains and offsets."""
    low, high = model.spatial(truth)[0].numpy(), model.spectral(truth)[0].numpy()
    if rng.random() < 0.5:
        gain = smooth_gain(high.shape[0], rng, 0.15) * rng.uniform(0.9, 1.1)
        high = high * gain[:, None, None] + np.float32(rng.uniform(0, 0.03))
    if rng.random() >= settings.noise_free:
        snr = rng.uniform(*settings.snr_db)
        low, high = add_noise(low, snr, rng), add_noise(high, snr + settings.msi_snr_above, rng)
    return torch.from_numpy(low)[None], torch.from_numpy(high)[None]


def _frame_draw(
    truth: Tensor,
    lrhsi: Tensor,
    msi: Tensor,
    model: ObservationModel,
    settings: DrawSettings,
    rng: np.random.Generator,
) -> Draw:
    scene = TrainingScene(lrhsi, msi, torch.ones(1, *lrhsi.shape[2:], dtype=torch.bool))
    base = EnsembleGLP(settings.channels).fit(scene, model)
    if settings.align:
        base = aligned(base, scene)
    frame = fit_frame(scene, base)
    outside = base.outside(lrhsi)
    z, seen = frame.observe(base.subspace.project(lrhsi), msi, outside)
    bands = torch.from_numpy(rng.permutation(truth.shape[1])[: settings.bands])
    unit = frame.unit[:, None, None]
    draw = Draw(
        base=z,
        target=base.subspace.project(truth) / unit,
        observation=seen,
        step=frame.step[:, None, None],
        axes=(base.subspace.basis * frame.unit)[bands],
        outside=(outside - base.subspace.residual(truth))[:, bands],
        error=torch.ones(()),
        angle=torch.ones(()),
    )
    angle = mean_angle(z * unit, draw.target * unit)
    return replace(draw, error=draw.band_errors(z), angle=angle)

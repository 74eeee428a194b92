"""A small random scene that the tests of the classical methods share."""

import numpy as np
import torch
from torch import Tensor

from hsfuse.physics.model import ObservationModel, gaussian_psf
from hsfuse.physics.sample import PairSample

SCALE, BANDS = 4, 24


def make_model(scale: int = SCALE, bands: int = BANDS) -> ObservationModel:
    """Four overlapping Gaussian bands, FWHM = scale."""
    centre = np.linspace(0.1, 0.9, 4)[:, None] * bands
    srf = np.exp(-((np.arange(bands) - centre) ** 2) / (2 * (bands / 10) ** 2))
    return ObservationModel(srf / srf.sum(1, keepdims=True), gaussian_psf(scale / 2.355, scale), scale)


def smooth_field(count: int, size: int, seed: int, fine: float = 0.6) -> Tensor:
    """Non-negative abundances with edges, summing to 1: (1, count, size, size), double."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randn(1, count, size // 8, size // 8, generator=generator, dtype=torch.float64)
    detail = torch.randn(1, count, size // 2, size // 2, generator=generator, dtype=torch.float64)
    field = torch.nn.functional.interpolate(coarse, size=size, mode="bicubic")
    return (3 * (field + fine * torch.nn.functional.interpolate(detail, size=size))).softmax(1)


def spectra(count: int, bands: int = BANDS) -> Tensor:
    """Smooth positive spectra: (bands, count), double."""
    t = torch.linspace(0, 1, bands, dtype=torch.float64)[:, None]
    k = torch.arange(count, dtype=torch.float64)
    return 0.25 + 0.2 * torch.sin(2 + 1.7 * k + (2 + k) * t) + 0.02 * k


def make_scene(size: int = 48, materials: int = 7, noise: float = 0.0) -> tuple[Tensor, PairSample, ObservationModel]:
    """Truth (1, C, H, W), its observation and the model, float32."""
    model = make_model()
    truth = torch.einsum("cp,bphw->bchw", spectra(materials), smooth_field(materials, size, seed=1))
    lrhsi, msi = model(truth)
    generator = torch.Generator().manual_seed(2)
    lrhsi, msi = (x + noise * torch.randn(x.shape, generator=generator, dtype=torch.float64) for x in (lrhsi, msi))
    mask = torch.ones(1, *lrhsi.shape[-2:], dtype=torch.bool)
    return truth.float(), PairSample(lrhsi.float(), msi.float(), mask), model


def rmse(a: Tensor, b: Tensor) -> float:
    """Root mean square difference."""
    return float((a - b).square().mean().sqrt())

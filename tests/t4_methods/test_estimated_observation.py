"""What a pair tells of its own sensors is good enough to fuse by."""

from __future__ import annotations

import torch
from scenes import BANDS, FWHM_NM, WAVELENGTHS_NM, mixture

from hsfuse.calibration.joint import estimate_observation
from hsfuse.methods import make_method
from hsfuse.physics import load_srf
from hsfuse.physics.model import ObservationModel, elliptic_psf, gaussian_psf
from hsfuse.physics.sample import PairSample

RATIO, SIDE = 4, 24


def noisy(image: torch.Tensor, snr_db: float, seed: int) -> torch.Tensor:
    noise = torch.randn(image.shape, generator=torch.Generator().manual_seed(seed))
    return image + noise * (image.square().mean((0, 2, 3), keepdim=True) * 10 ** (-snr_db / 10)).sqrt()


def test_fused_as_well_with_what_was_estimated_as_with_the_truth() -> None:
    truth = torch.from_numpy(mixture((RATIO * SIDE, RATIO * SIDE), seed=3))[None]
    matrix, _ = load_srf("sentinel2a").select(BANDS).matrix(WAVELENGTHS_NM, FWHM_NM)
    real = ObservationModel(matrix, elliptic_psf(2.6, 1.7, 20, RATIO), RATIO)
    lrhsi, msi = real(truth)
    lrhsi, msi = noisy(lrhsi, 35, 1), noisy(msi, 40, 2)
    scene = PairSample(lrhsi, msi, torch.ones(1, SIDE, SIDE, dtype=torch.bool))
    found = estimate_observation(lrhsi, msi, scene.mask, WAVELENGTHS_NM, RATIO)

    def decibels(model: ObservationModel) -> float:
        with torch.no_grad():
            fused = make_method("glp-reg").fit(scene, model).predict(lrhsi, msi)
        return float(-10 * torch.log10((fused - truth).square().mean()))

    best, own = decibels(real), decibels(found.model(real))
    wrong = decibels(ObservationModel(matrix, gaussian_psf(1.0, RATIO), RATIO))
    assert own > best - 0.5
    assert wrong < best - 1  # or it wouldn't matter what was estimated

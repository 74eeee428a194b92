"""One plain function for each metric of two whole cubes; the definitions are the accumulators'.

>>> reference = np.random.default_rng(0).uniform(0.2, 0.6, (4, 40, 40))
>>> fused = reference + 0.01
>>> round(psnr(fused, reference), 3), round(rmse(fused, reference), 3), round(dd(fused, reference), 3)
(40.0, 0.01, 0.01)
>>> round(cc(fused, reference), 3), uiqi(fused, reference) > 0.99, ssim(fused, reference) > 0.99
(1.0, True, True)
"""

from __future__ import annotations

import numpy as np

from hsfuse.core.cube import spectral_angle
from hsfuse.core.errors import InputError
from hsfuse.metrics.pixel import PixelSums
from hsfuse.metrics.reference import psnr_band_mean
from hsfuse.metrics.windowed import Q2nSums, SccSums, SsimSums, UiqiSums
from hsfuse.metrics.windows import Array, Pair, band_mean, fit_window, make_pair


def psnr_per_band(fused: Array, reference: Array, peak: float = 1.0, mask: Array | None = None) -> Array:
    """PSNR per band (C,) in dB of cubes (C, H, W): 10 log10(peak^2 / MSE_b); inf for a band without error."""
    return _pixel_sums(fused, reference, mask).psnr_per_band(peak)


def psnr(fused: Array, reference: Array, peak: float = 1.0, mask: Array | None = None) -> float:
    """PSNR in dB of cubes (C, H, W): mean over the bands with an error; inf for identical cubes.

    >>> round(psnr(np.full((2, 4, 4), 0.51), np.full((2, 4, 4), 0.5)), 3)
    40.0
    """
    return psnr_band_mean(psnr_per_band(fused, reference, peak, mask))


def psnr_global(fused: Array, reference: Array, peak: float = 1.0, mask: Array | None = None) -> float:
    """PSNR in dB of cubes (C, H, W) from one MSE over all bands: 10 log10(peak^2 / MSE); inf for identical cubes."""
    return _pixel_sums(fused, reference, mask).psnr_global(peak)


def rmse_per_band(fused: Array, reference: Array, mask: Array | None = None) -> Array:
    """RMSE per band (C,) of cubes (C, H, W), in the data's unit."""
    return _pixel_sums(fused, reference, mask).rmse_per_band()


def rmse(fused: Array, reference: Array, mask: Array | None = None) -> float:
    """RMSE over all bands and pixels of cubes (C, H, W), in the data's unit."""
    return _pixel_sums(fused, reference, mask).rmse()


def relative_rmse(fused: Array, reference: Array, mask: Array | None = None) -> float:
    """||fused - reference||_F / ||reference||_F of cubes (C, H, W); NaN for a reference of zeros."""
    return _pixel_sums(fused, reference, mask).relative_rmse()


def rmse_map(fused: Array, reference: Array, mask: Array | None = None) -> Array:
    """RMSE over the bands at each pixel (H, W) of cubes (C, H, W); NaN where not valid."""
    pair = _whole(fused, reference, mask)
    squared = np.zeros(fused.shape[1:])
    for band in range(fused.shape[0]):
        x, y = pair.planes(band)
        squared += (x - y) ** 2
    return np.where(pair.view.valid, np.sqrt(squared / fused.shape[0]), np.nan)


def sam_map(fused: Array, reference: Array, mask: Array | None = None) -> Array:
    """Spectral angle in degrees at each pixel (H, W) of cubes (C, H, W); NaN where not valid or a spectrum is zero.

    arccos(<x, y> / (||x|| ||y||)). Source: Yuhas, Goetz and Boardman 1992.
    """
    pair = _whole(fused, reference, mask)
    dot, xx, yy = (np.zeros(fused.shape[1:]) for _ in range(3))
    for band in range(fused.shape[0]):
        x, y = pair.planes(band)
        dot += x * y
        xx += x * x
        yy += y * y
    return np.degrees(spectral_angle(dot, xx, yy))


def sam_degrees(fused: Array, reference: Array, mask: Array | None = None) -> float:
    """Mean spectral angle in degrees of cubes (C, H, W); spectra of zeros are skipped; NaN without any other.

    >>> red, both = np.zeros((2, 4, 4)), np.ones((2, 4, 4))
    >>> red[0] = 1
    >>> round(sam_degrees(red, both), 3), round(sam_degrees(3 * both, both), 3)
    (45.0, 0.0)
    """
    return _pixel_sums(fused, reference, mask).angles.mean()


def ergas(fused: Array, reference: Array, scale: float, mask: Array | None = None) -> float:
    """ERGAS of cubes (C, H, W): 100 / s sqrt(mean_b((RMSE_b / mean_b)^2)), s the ratio of pixel sizes, above 1.

    Bands whose reference has zero mean are left out; NaN where all are. Source: Wald 2000.

    >>> round(ergas(np.full((2, 4, 4), 0.51), np.full((2, 4, 4), 0.5), 4), 3)
    0.5
    """
    return _pixel_sums(fused, reference, mask).ergas(scale)


def dd(fused: Array, reference: Array, mask: Array | None = None) -> float:
    """Degree of distortion of cubes (C, H, W): mean(|fused - reference|). Source: Wei et al. 2015."""
    return _pixel_sums(fused, reference, mask).dd()


def cc_per_band(fused: Array, reference: Array, mask: Array | None = None) -> Array:
    """Pearson correlation per band (C,) of cubes (C, H, W); NaN for a constant band."""
    return _pixel_sums(fused, reference, mask).moments.correlation()


def cc(fused: Array, reference: Array, mask: Array | None = None) -> float:
    """Mean Pearson correlation over the bands of cubes (C, H, W) that aren't constant. Source: Loncan et al. 2015."""
    return band_mean(cc_per_band(fused, reference, mask))


def uiqi_per_band(fused: Array, reference: Array, window: int = 32, mask: Array | None = None) -> Array:
    """UIQI per band (C,) of cubes (C, H, W), see `uiqi`."""
    sums = UiqiSums(fused.shape[0], fit_window(window, fused.shape[1:]))
    sums.update(_whole(fused, reference, mask))
    return sums.per_band()


def uiqi(fused: Array, reference: Array, window: int = 32, mask: Array | None = None) -> float:
    """UIQI of cubes (C, H, W): mean over uniform windows (stride 1, wholly valid), then bands; NaN without a window.

    Source: Wang and Bovik 2002.
    """
    return band_mean(uiqi_per_band(fused, reference, window, mask))


def ssim_per_band(fused: Array, reference: Array, peak: float = 1.0, mask: Array | None = None) -> Array:
    """SSIM per band (C,) of cubes (C, H, W), see `ssim`."""
    sums = SsimSums(fused.shape[0], peak)
    sums.update(_whole(fused, reference, mask))
    return sums.per_band()


def ssim(fused: Array, reference: Array, peak: float = 1.0, mask: Array | None = None) -> float:
    """SSIM of cubes (C, H, W): mean over Gaussian 11 x 11 windows wholly inside and valid, then bands; NaN without one.

    Source: Wang et al. 2004.
    """
    return band_mean(ssim_per_band(fused, reference, peak, mask))


def scc_per_band(fused: Array, reference: Array, mask: Array | None = None) -> Array:
    """SCC per band (C,) of cubes (C, H, W), see `scc`."""
    sums = SccSums(fused.shape[0])
    sums.update(_whole(fused, reference, mask))
    return sums.per_band()


def scc(fused: Array, reference: Array, mask: Array | None = None) -> float:
    """Correlation of the Laplacians of cubes (C, H, W), mean over bands. Source: Zhou, Civco and Silander 1998."""
    return band_mean(scc_per_band(fused, reference, mask))


def q2n(fused: Array, reference: Array, window: int = 32, mask: Array | None = None) -> float:
    """Q2n of cubes (C, H, W): mean over wholly valid blocks, see `blocks.block_q2n`; NaN without one.

    Source: Garzelli and Nencini 2009.
    """
    sums = Q2nSums(fit_window(window, fused.shape[1:]))
    sums.update(_whole(fused, reference, mask))
    return sums.mean()


def _whole(fused: Array, reference: Array, mask: Array | None) -> Pair:
    return make_pair(fused, reference, mask, None, fused.shape[1:])


def _pixel_sums(fused: Array, reference: Array, mask: Array | None) -> PixelSums:
    sums = PixelSums(fused.shape[0])
    sums.update(_whole(fused, reference, mask))
    if not sums.count:
        raise InputError("no pixel is valid in both cubes; check the masks and the nodata values")
    return sums

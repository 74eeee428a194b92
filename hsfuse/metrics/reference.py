"""Metrics against a reference cube, accumulated over tiles."""

from __future__ import annotations

import numpy as np

from hsfuse.core.errors import InputError, SettingError
from hsfuse.core.notes import note
from hsfuse.metrics.pixel import PixelSums
from hsfuse.metrics.windowed import SSIM_WINDOW, Q2nSums, SccSums, SsimSums, UiqiSums
from hsfuse.metrics.windows import Array, MetricResult, Tile, band_mean, fit_window, make_pair

_NO_WINDOW = "no window is wholly inside the image and valid"


class ReferenceMetrics:
    """All metrics of a fused cube against a reference of `shape` (C, H, W), in bounded memory.

    `update` takes tiles (see `windows.tiles`; halo at least `self.halo`) in any order, each once; `result` may be asked
    at any time. The values don't depend on the tiling beyond rounding. `scale` is the ratio s of the fusion (ERGAS),
    `peak` the data's highest possible value (PSNR, SSIM), `window` the side of UIQI's windows and Q2n's blocks; an
    image with a shorter side takes that instead, and says so.
    """

    def __init__(self, shape: tuple[int, int, int], scale: float, peak: float = 1.0, window: int = 32) -> None:
        if scale <= 0 or peak <= 0 or window < 2:
            raise SettingError(
                f"found scale {scale}, peak {peak}, window {window}; wanted above 0, above 0, at least 2"
            )
        bands, self.image = shape[0], shape[1:]
        self.scale, self.peak, self.wanted_window = scale, peak, window
        self.window = fit_window(window, self.image)
        self.halo = max(self.window, SSIM_WINDOW) - 1
        self.pixel, self.uiqi, self.ssim = PixelSums(bands), UiqiSums(bands, self.window), SsimSums(bands, peak)
        self.scc, self.q2n = SccSums(bands), Q2nSums(self.window)

    def update(self, fused: Array, reference: Array, mask: Array | None = None, tile: Tile | None = None) -> None:
        """Add one tile (C, h, w) of both cubes, halo included; `mask` (h, w) is True where valid.

        A pixel that is not finite in some band of either cube is left out of everything and counted.
        Raises InputError for cubes or a mask that don't fit each other.
        """
        pair = make_pair(fused, reference, mask, tile, self.image, self.halo)
        for family in (self.pixel, self.uiqi, self.ssim, self.scc, self.q2n):
            family.update(pair)

    def result(self) -> MetricResult:
        """Values, per-band curves and notes; raises InputError where no pixel is valid."""
        result = MetricResult(self.pixel.count)
        put_pixel_metrics(result, self.pixel)
        self._put_psnr(result)
        result.put("ergas", self.pixel.ergas(self.scale), "every reference band has zero mean")
        result.per_band["ergas"] = 100 / self.scale * np.sqrt(self.pixel.ergas_terms())
        self._note_left_out(result)
        result.put_curve("uiqi", self.uiqi.per_band(), _NO_WINDOW)
        result.put_curve("ssim", self.ssim.per_band(), _NO_WINDOW)
        result.put_curve("scc", self.scc.per_band(), "no valid 3 x 3 window, or no detail in the band")
        result.put("q2n", self.q2n.mean(), "no block is wholly valid with a reference that varies")
        return result

    def _put_psnr(self, result: MetricResult) -> None:
        curve = self.pixel.psnr_per_band(self.peak)
        result.per_band["psnr"] = curve
        result.values["psnr"] = psnr_band_mean(curve)
        result.values["psnr_global"] = self.pixel.psnr_global(self.peak)
        own_peak = psnr_band_mean(self.pixel.psnr_per_band(self.pixel.highest))
        result.put("psnr_band_peak", own_peak, "no reference band has a maximum above 0")
        exact = int(np.isinf(curve).sum())
        if 0 < exact < curve.size:
            result.notes.append(note("psnr-exact-bands", bands=exact, count=curve.size))

    def _note_left_out(self, result: MetricResult) -> None:
        zero_mean = int(np.isnan(self.pixel.ergas_terms()).sum())
        if 0 < zero_mean < result.per_band["ergas"].size:
            result.notes.append(note("ergas-zero-mean", bands=zero_mean))
        if self.window < self.wanted_window:
            sides = {"window": self.window, "wanted": self.wanted_window}
            result.notes.append(note("metric-window", metrics="uiqi, q2n", image="image", **sides))
        if self.q2n.flat:
            result.notes.append(note("q2n-flat", blocks=self.q2n.flat))


def put_pixel_metrics(result: MetricResult, sums: PixelSums, prefix: str = "") -> None:
    """Put RMSE, relative RMSE, SAM, CC and DD into `result`, their keys behind `prefix`.

    Raises InputError where no pixel is valid.
    """
    if not sums.count:
        raise InputError("no pixel is valid in both cubes; check the masks and the nodata values")
    result.per_band[prefix + "rmse"] = sums.rmse_per_band()
    result.per_band[prefix + "relative_rmse"] = sums.relative_rmse_per_band()
    result.per_band[prefix + "dd"] = sums.dd_per_band()
    result.put(prefix + "rmse", sums.rmse(), "")
    result.put(prefix + "relative_rmse", sums.relative_rmse(), "the reference is zero everywhere")
    result.put(prefix + "dd", sums.dd(), "")
    result.put_curve(prefix + "cc", sums.moments.correlation(), "constant in one of the cubes")
    no_angle = "every pixel has a spectrum of zeros"
    result.put(prefix + "sam", sums.angles.mean(), no_angle)
    result.put(prefix + "sam_median", sums.angles.quantile(0.5), no_angle)
    result.put(prefix + "sam_p95", sums.angles.quantile(0.95), no_angle)
    if sums.angles.skipped:
        result.notes.append(note("sam-zero-spectra", metric=f"{prefix}sam", pixels=sums.angles.skipped))
    if sums.dropped:
        result.notes.append(note("nonfinite-unmasked", metric=f"{prefix}rmse", pixels=sums.dropped))


def psnr_band_mean(curve: Array) -> float:
    """Mean PSNR over the bands with an error; inf where no band has one; NaN without any defined."""
    finite = curve[np.isfinite(curve)]
    return float(finite.mean()) if finite.size else band_mean(curve)

"""Pixelwise metrics from sums that add up over tiles: RMSE, PSNR, SAM, ERGAS, CC, DD."""

from __future__ import annotations

import numpy as np

from hsfuse.core.cube import spectral_angle
from hsfuse.metrics.windows import Array, Pair

# Relative variance below which a signal counts as constant: above the rounding of float64 sums, below that of float32.
FLAT = 1e-12
_SAM_STEP_DEGREES = 0.001


class Moments:
    """First and second moments of pixel pairs, per band."""

    def __init__(self, bands: int) -> None:
        self.count = 0
        self.x, self.y, self.xx, self.yy, self.xy = (np.zeros(bands) for _ in range(5))

    def add(self, band: int, x: Array, y: Array) -> None:
        """Add the pixels `x`, `y` (n,) of one band; `count` is the caller's to raise, once for all bands."""
        self.x[band] += x.sum()
        self.y[band] += y.sum()
        self.xx[band] += x @ x
        self.yy[band] += y @ y
        self.xy[band] += x @ y

    def correlation(self) -> Array:
        """Pearson correlation per band (C,); NaN where either side is constant."""
        n = self.count
        xx, yy = n * self.xx - self.x**2, n * self.yy - self.y**2
        moving = (xx > FLAT * n * self.xx) & (yy > FLAT * n * self.yy)
        root = np.sqrt(np.where(moving, xx, 1)) * np.sqrt(np.where(moving, yy, 1))
        return np.where(moving, np.clip((n * self.xy - self.x * self.y) / root, -1, 1), np.nan)


class Angles:
    """Spectral angles in degrees: their sum, and a histogram of 0.001 degree for median and percentiles."""

    def __init__(self) -> None:
        self.sum, self.count, self.skipped = 0.0, 0, 0
        self._histogram = np.zeros(round(180 / _SAM_STEP_DEGREES) + 1, np.int64)

    def add(self, degrees: Array) -> None:
        """Add angles (n,); NaN, the angle of a zero spectrum, is skipped and counted."""
        kept = degrees[~np.isnan(degrees)]
        self.sum += float(kept.sum())
        self.count += kept.size
        self.skipped += degrees.size - kept.size
        steps = np.rint(kept / _SAM_STEP_DEGREES).astype(np.int64)
        self._histogram += np.bincount(steps, minlength=self._histogram.size)

    def mean(self) -> float:
        """Mean angle; NaN without any."""
        return self.sum / self.count if self.count else float("nan")

    def histogram(self, width: float) -> tuple[Array, Array]:
        """Edges (n + 1,) in degrees, `width` apart from 0 on, and counts (n,), up to the last bin in use."""
        counts = np.add.reduceat(self._histogram, np.arange(0, self._histogram.size, round(width / _SAM_STEP_DEGREES)))
        last = int(np.flatnonzero(counts).max(initial=0)) + 1
        return np.arange(last + 1) * width, counts[:last]

    def quantile(self, fraction: float) -> float:
        """Smallest angle, to the nearest 0.001 degree, that `fraction` of the pixels don't exceed; NaN without any."""
        if not self.count:
            return float("nan")
        reached = np.cumsum(self._histogram)
        return float(np.searchsorted(reached, fraction * self.count) * _SAM_STEP_DEGREES)


class PixelSums:
    """All sums the pixelwise metrics of a pair of cubes with `bands` bands need."""

    def __init__(self, bands: int) -> None:
        self.moments, self.angles = Moments(bands), Angles()
        self.squared, self.absolute = np.zeros(bands), np.zeros(bands)
        self.highest = np.full(bands, -np.inf)
        self.dropped = 0

    @property
    def count(self) -> int:
        """Valid pixels so far."""
        return self.moments.count

    def update(self, pair: Pair) -> None:
        """Add the core of one tile."""
        self.dropped += pair.view.dropped
        n = int(pair.view.core_valid.sum())
        if n == 0:
            return
        self.moments.count += n
        dot, xx, yy = np.zeros(n), np.zeros(n), np.zeros(n)
        for band in range(self.squared.size):
            x, y = pair.pixels(band)
            self._add_band(band, x, y)
            dot += x * y
            xx += x * x
            yy += y * y
        self.angles.add(np.degrees(spectral_angle(dot, xx, yy)))

    def _add_band(self, band: int, x: Array, y: Array) -> None:
        error = x - y
        self.moments.add(band, x, y)
        self.squared[band] += error @ error
        self.absolute[band] += np.abs(error).sum()
        self.highest[band] = max(self.highest[band], y.max())

    def rmse_per_band(self) -> Array:
        """sqrt(mean((x - y)^2)) per band (C,), in the data's unit."""
        return np.sqrt(self.squared / self.count)

    def rmse(self) -> float:
        """sqrt(mean((x - y)^2)) over all bands and pixels."""
        return float(np.sqrt(self.squared.mean() / self.count))

    def relative_rmse_per_band(self) -> Array:
        """||x - y|| / ||y|| per band (C,); NaN for a reference band of zeros."""
        energy = self.moments.yy
        return np.sqrt(np.divide(self.squared, energy, out=np.full(energy.size, np.nan), where=energy > 0))

    def relative_rmse(self) -> float:
        """||x - y||_F / ||y||_F over the cube; NaN for a reference of zeros."""
        energy = float(self.moments.yy.sum())
        return float(np.sqrt(self.squared.sum() / energy)) if energy > 0 else float("nan")

    def psnr_per_band(self, peak: float | Array) -> Array:
        """10 log10(peak^2 / MSE) per band (C,) in dB; inf without error, NaN for a peak of zero or below."""
        peak = np.broadcast_to(np.asarray(peak, np.float64), self.squared.shape)
        with np.errstate(divide="ignore", invalid="ignore"):
            decibels = 10 * np.log10(peak**2 / (self.squared / self.count))
        return np.where(peak > 0, decibels, np.nan)

    def psnr_global(self, peak: float) -> float:
        """10 log10(peak^2 / MSE) with one MSE over all bands and pixels, in dB; inf without error."""
        rmse = self.rmse()
        return float(20 * np.log10(peak / rmse)) if rmse > 0 else float("inf")

    def ergas_terms(self) -> Array:
        """(RMSE / mean of the reference)^2 per band (C,); NaN for a band with zero mean."""
        mean, energy = self.moments.y / self.count, self.moments.yy / self.count
        usable = mean**2 > FLAT * energy
        return np.where(usable, self.squared / self.count / np.where(usable, mean, 1) ** 2, np.nan)

    def ergas(self, scale: float) -> float:
        """100 / scale * sqrt(mean of `ergas_terms`) over the bands with a mean; NaN without any."""
        terms = self.ergas_terms()
        kept = terms[~np.isnan(terms)]
        return float(100 / scale * np.sqrt(kept.mean())) if kept.size else float("nan")

    def dd_per_band(self) -> Array:
        """mean(|x - y|) per band (C,), in the data's unit."""
        return self.absolute / self.count

    def dd(self) -> float:
        """mean(|x - y|) over all bands and pixels."""
        return float(self.dd_per_band().mean())

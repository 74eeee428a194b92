"""Metrics without a reference: QNR's family, Khan's, and consistency with both inputs.

D_s and QNR were defined for one PAN band; for a multi-band guide D_s is defined here explicitly (see `d_s`). RQNR is
given where the literature defines it, for an MSI of one band. QNR alone rewards doing nothing to the spectra: read it
beside consistency.
"""

from __future__ import annotations

import numpy as np

from hsfuse.core.errors import SettingError
from hsfuse.core.notes import note
from hsfuse.metrics.pixel import PixelSums
from hsfuse.metrics.reference import put_pixel_metrics
from hsfuse.metrics.windowed import BandPairSums, Q2nSums, RegressionSums, UiqiSums
from hsfuse.metrics.windows import Array, MetricResult, Pair, Tile, View, band_mean, fit_window, make_pair, make_view

_NO_WINDOW = "no window is wholly valid at both resolutions (a smaller --window may be)"


class NoReferenceMetrics:
    """The no-reference family and consistency of a fused cube `shape` (C, H, W), LRHSI (C, h, w), MSI of c bands.

    Without an MSI band that sees the cube's wavelengths (c = 0) what needs one is left out.

    Tiles of the high-res images go to `update_high`, tiles of the low-res ones to `update_low` (see `windows.tiles`;
    halo at least `self.halo`), each once. `window` is in pixels of either resolution; an LRHSI with a shorter side sets
    it for both, so that both are measured alike, and the result says so.
    """

    def __init__(
        self, shape: tuple[int, int, int], lr_shape: tuple[int, int, int], msi_bands: int, window: int = 32
    ) -> None:
        if window < 2:
            raise SettingError(f"found window {window}; wanted at least 2")
        self.image, self.lr_image = shape[1:], lr_shape[1:]
        self.wanted_window, self.window = window, fit_window(window, self.image, self.lr_image)
        self.halo = self.window - 1
        self.pairs, self.lr_pairs = BandPairSums(shape[0], self.window), BandPairSums(shape[0], self.window)
        self.guide, self.lr_guide = UiqiSums(msi_bands, self.window), UiqiSums(msi_bands, self.window)
        self.khan = Q2nSums(self.window)
        self.regression = RegressionSums(shape[0]) if msi_bands == 1 else None
        self.spatial, self.spectral = PixelSums(shape[0]), PixelSums(msi_bands)

    def update_high(
        self, fused: Array, synthesised: Array, msi: Array, mask: Array | None = None, tile: Tile | None = None
    ) -> None:
        """Add a high-res tile: fused (C, h, w), `synthesised` = R x and MSI (c, h, w), mask (h, w) True = valid."""
        pair = make_pair(synthesised, msi, mask, tile, self.image, self.halo)
        view = make_view([fused], pair.view.valid, tile, self.image, self.halo)
        self.pairs.update(fused, view)
        self.guide.update(pair)
        self.spectral.update(pair)
        if self.regression is not None:
            self.regression.update(Pair(view, fused, msi))

    def update_low(
        self,
        degraded: Array,
        lrhsi: Array,
        synthesised_lr: Array,
        msi_lr: Array,
        mask: Array | None = None,
        tile: Tile | None = None,
    ) -> None:
        """Add a low-res tile: degraded fused cube and LRHSI (C, h, w), R LRHSI and degraded MSI (c, h, w)."""
        pair = make_pair(degraded, lrhsi, mask, tile, self.lr_image, self.halo)
        self.lr_pairs.update(lrhsi, pair.view)
        self.khan.update(pair)
        self.spatial.update(pair)
        self.lr_guide.update(make_pair(synthesised_lr, msi_lr, pair.view.valid, tile, self.lr_image, self.halo))

    def result(self) -> MetricResult:
        """Values, per-band curves and notes; raises InputError where no pixel is valid."""
        result = MetricResult(self.spectral.count)
        put_pixel_metrics(result, self.spatial, "hsi_")
        spectral, khan = spectral_distortion(self.pairs.mean(), self.lr_pairs.mean()), _complement(self.khan.mean())
        result.put("d_lambda", spectral, _NO_WINDOW + ", or the cube has one band")
        result.put(
            "d_lambda_khan",
            khan,
            "no block is wholly valid with an LRHSI that varies (a smaller --window may have some)",
        )
        if self.spectral.squared.size:
            self._put_spatial(result, spectral, khan)
        self._note_window(result)
        return result

    def _put_spatial(self, result: MetricResult, spectral: float, khan: float) -> None:
        """What the MSI takes part in."""
        put_pixel_metrics(result, self.spectral, "msi_")
        curve = np.abs(self.guide.per_band() - self.lr_guide.per_band())
        spatial = band_mean(curve)
        result.per_band["d_s"] = curve
        result.put("d_s", spatial, _NO_WINDOW)
        result.put("qnr", qnr(spectral, spatial), "d_lambda or d_s is")
        result.put("hqnr", qnr(khan, spatial), "d_lambda_khan or d_s is")
        if self.regression is not None:
            unexplained = 1 - self.regression.r_squared()
            result.put("d_sr", unexplained, "the MSI's band is constant")
            result.put("rqnr", qnr(khan, unexplained), "d_lambda_khan or d_sr is")

    def _note_window(self, result: MetricResult) -> None:
        if self.window < self.wanted_window:
            sides = {"window": self.window, "wanted": self.wanted_window}
            result.notes.append(note("metric-window", metrics="d_lambda, d_s, khan", image="LRHSI", **sides))


def spectral_distortion(high: Array, low: Array) -> float:
    """Mean |Q_high - Q_low| over the C (C - 1) / 2 band pairs of two matrices (C, C); NaN for one band."""
    upper = np.triu_indices(high.shape[0], 1)
    return float(np.abs(high - low)[upper].mean()) if upper[0].size else float("nan")


def d_lambda(
    fused: Array, lrhsi: Array, window: int = 32, mask: Array | None = None, lr_mask: Array | None = None
) -> float:
    """QNR's spectral distortion of a fused cube F (C, H, W) against its LRHSI X (C, h, w).

    mean |Q(F_b, F_c) - Q(X_b, X_c)| over all band pairs b < c; Q is Wang and Bovik's over blocks of `window` x `window`
    pixels of each resolution. NaN without a wholly valid block or with one band. Source: Alparone et al. 2008.
    """
    window = fit_window(window, fused.shape[1:], lrhsi.shape[1:])
    high, low = (_pair_qualities(cube, window, ok) for cube, ok in ((fused, mask), (lrhsi, lr_mask)))
    return spectral_distortion(high, low)


def _pair_qualities(cube: Array, window: int, mask: Array | None) -> Array:
    view: View = make_view([cube], mask, None, cube.shape[1:])
    sums = BandPairSums(cube.shape[0], window)
    sums.update(cube, view)
    return sums.mean()


def d_s(
    synthesised: Array,
    msi: Array,
    synthesised_lr: Array,
    msi_lr: Array,
    window: int = 32,
    mask: Array | None = None,
    lr_mask: Array | None = None,
) -> float:
    """Spatial distortion for a guide of c bands: mean over them of |Q(R_i x, Y_i) - Q(R_i X, Y_lr_i)|.

    `synthesised` = R x and MSI Y are (c, H, W); `synthesised_lr` = R LRHSI and the degraded MSI Y_lr are (c, h, w). Q
    is UIQI in sliding windows. Each MSI band is compared with the fused cube's own synthesis of it by the SRF: one
    clear partner each, where Alparone et al. 2008 compare every band with the one PAN. NaN without a window.
    """
    window = fit_window(window, msi.shape[1:], msi_lr.shape[1:])
    high, low = UiqiSums(msi.shape[0], window), UiqiSums(msi.shape[0], window)
    high.update(make_pair(synthesised, msi, mask, None, msi.shape[1:]))
    low.update(make_pair(synthesised_lr, msi_lr, lr_mask, None, msi_lr.shape[1:]))
    return band_mean(np.abs(high.per_band() - low.per_band()))


def qnr(spectral: float, spatial: float) -> float:
    """(1 - spectral)(1 - spatial), exponents 1: QNR with D_lambda, HQNR with Khan's. Source: Alparone et al. 2008."""
    return (1 - spectral) * (1 - spatial)


def d_sr(fused: Array, msi: Array, mask: Array | None = None) -> float:
    """RQNR's spatial distortion 1 - R^2 of the fit of an MSI of one band (1, H, W) by the fused bands (C, H, W).

    Least squares with a constant over all valid pixels; NaN for a constant MSI. Source: Alparone, Garzelli and Vivone
    2018.
    """
    sums = RegressionSums(fused.shape[0])
    sums.update(Pair(make_view([fused, msi], mask, None, fused.shape[1:]), fused, msi))
    return 1 - sums.r_squared()


def d_lambda_khan(degraded: Array, lrhsi: Array, window: int = 32, mask: Array | None = None) -> float:
    """Khan's spectral distortion 1 - Q2n of the degraded fused cube against the LRHSI, both (C, h, w).

    NaN without a wholly valid block. Source: Khan, Alparone and Chanussot 2009.
    """
    sums = Q2nSums(fit_window(window, lrhsi.shape[1:]))
    sums.update(make_pair(degraded, lrhsi, mask, None, lrhsi.shape[1:]))
    return _complement(sums.mean())


def _complement(quality: float) -> float:
    # Q2n of equal cubes may round to just above 1; np.maximum keeps NaN.
    return float(np.maximum(0.0, 1 - quality))

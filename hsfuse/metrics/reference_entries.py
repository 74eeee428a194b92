"""Entries of the metrics that need a reference."""

from __future__ import annotations

from hsfuse.metrics.info import MetricInfo

_WALD = "Wald 2000, Third Conference Fusion of Earth Data"
_LONCAN = "Loncan et al. 2015, IEEE GRSM 3(3)"
_YUHAS = "Yuhas, Goetz and Boardman 1992, JPL Airborne Geoscience Workshop"
_DEGREES = "0 to 180"
_POOLING = "mean over all windows wholly inside the image and valid, then over bands"

REFERENCE = (
    MetricInfo(
        "psnr",
        "PSNR, band mean",
        "mean_b 10 log10(peak^2 / MSE_b)",
        "the usual one in papers on hyperspectral and multispectral fusion",
        "above 0; inf for identical cubes",
        "dB",
        "higher",
        "One peak for all bands, the data's full scale. Bands without any error are left out of the mean.",
    ),
    MetricInfo(
        "psnr_global",
        "PSNR, global",
        "10 log10(peak^2 / MSE), one MSE over all bands and pixels",
        "common in image restoration",
        "above 0; inf for identical cubes",
        "dB",
        "higher",
        "Never above the band mean: bands with large errors weigh more.",
    ),
    MetricInfo(
        "psnr_band_peak",
        "PSNR, band mean, each band's own peak",
        "mean_b 10 log10(max(reference_b)^2 / MSE_b)",
        "Yokoya, Grohnfeldt and Chanussot 2017, IEEE GRSM 5(2)",
        "above 0; inf for identical cubes",
        "dB",
        "higher",
        "Toolbox profile: lower than the one-peak PSNR wherever bands are darker than full scale.",
    ),
    MetricInfo(
        "rmse",
        "Root mean square error",
        "sqrt(mean((fused - reference)^2)) over all bands and pixels",
        _LONCAN,
        "0 and above",
        "data unit",
        "lower",
    ),
    MetricInfo(
        "relative_rmse",
        "Relative RMSE",
        "||fused - reference||_F / ||reference||_F",
        "relative Frobenius error",
        "0 and above",
        "1",
        "lower",
        "Relative to the reference's root mean square, not to its mean.",
    ),
    MetricInfo(
        "sam",
        "Spectral angle, mean",
        "mean over pixels of arccos(<x, y> / (||x|| ||y||))",
        _YUHAS,
        _DEGREES,
        "degrees",
        "lower",
        "Blind to a factor common to all bands. Pixels with a spectrum of zeros are left out and counted.",
    ),
    MetricInfo(
        "sam_median",
        "Spectral angle, median",
        "median over pixels of arccos(<x, y> / (||x|| ||y||))",
        _YUHAS,
        _DEGREES,
        "degrees",
        "lower",
        "To the nearest 0.001 degree.",
    ),
    MetricInfo(
        "sam_p95",
        "Spectral angle, 95th percentile",
        "95th percentile over pixels of arccos(<x, y> / (||x|| ||y||))",
        _YUHAS,
        _DEGREES,
        "degrees",
        "lower",
        "To the nearest 0.001 degree.",
    ),
    MetricInfo(
        "ergas",
        "ERGAS",
        "100 / s sqrt(mean_b((RMSE_b / mean(reference_b))^2)), s = LRHSI pixel size / MSI pixel size",
        _WALD,
        "0 and above",
        "1",
        "lower",
        "Comparable only at one ratio s. Bands with zero mean are left out and counted.",
    ),
    MetricInfo(
        "uiqi",
        "Universal image quality index",
        "4 cov(x, y) mean(x) mean(y) / ((var(x) + var(y)) (mean(x)^2 + mean(y)^2))",
        "Wang and Bovik 2002, IEEE SPL 9(3)",
        "-1 to 1",
        "1",
        "higher",
        f"Uniform windows, 32 x 32 unless set, stride 1; {_POOLING}. A factor that is 0/0 counts as 1 "
        "(constant windows). Smaller or Gaussian windows give lower figures.",
    ),
    MetricInfo(
        "ssim",
        "Structural similarity",
        "(2 mx my + c1)(2 cov + c2) / ((mx^2 + my^2 + c1)(vx + vy + c2)), c1 = (0.01 peak)^2, c2 = (0.03 peak)^2",
        "Wang et al. 2004, IEEE TIP 13(4)",
        "-1 to 1",
        "1",
        "higher",
        f"Gaussian 11 x 11 windows, sigma 1.5, data range = peak; {_POOLING}. No border is "
        "extended: libraries that count a mirrored border give other figures on small images.",
    ),
    MetricInfo(
        "cc",
        "Cross correlation",
        "mean_b Pearson correlation of fused_b and reference_b",
        _LONCAN,
        "-1 to 1",
        "1",
        "higher",
        "Blind to gain and offset of a band. Constant bands are left out and counted.",
    ),
    MetricInfo(
        "scc",
        "Spatial correlation coefficient",
        "mean_b Pearson correlation of the bands after a 3 x 3 Laplacian (8 in the middle, -1 around)",
        "Zhou, Civco and Silander 1998, IJRS 19(4)",
        "-1 to 1",
        "1",
        "higher",
        "Interior pixels only; sensitive to noise. Some toolboxes use Sobel and one correlation over all bands.",
    ),
    MetricInfo(
        "dd",
        "Degree of distortion",
        "mean(|fused - reference|) over all bands and pixels",
        "Wei et al. 2015, IEEE TGRS 53(7)",
        "0 and above",
        "data unit",
        "lower",
    ),
    MetricInfo(
        "q2n",
        "Q2n, hypercomplex quality index",
        "|cov(z, z^)| / (s s^) * 2 |m| |m^| / (|m|^2 + |m^|^2) * 2 s s^ / (s^2 + s^^2), one component of z a band",
        "Garzelli and Nencini 2009, IEEE GRSL 6(4)",
        "0 to 1",
        "1",
        "higher",
        "Blocks of 32 x 32 unless set, evenly spread to cover the image, only wholly valid ones; bands normalised per "
        "block by the reference's mean and deviation, as in the toolbox of Vivone et al. 2015, but without rounding to "
        "integers or mirroring at the border. Bands constant in a block's reference are left out of it.",
    ),
)

"""What each metric is: title, formula, source, range, unit and direction, by the key it has in every result."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Direction = Literal["higher", "lower"]


@dataclass(frozen=True)
class MetricInfo:
    """One metric, described. `note` says which variant of the literature's it is, and what that does to figures."""

    key: str
    title: str
    formula: str
    source: str
    range: str
    unit: str
    direction: Direction
    note: str = ""


#: Range, unit and which way is better.
_Kind = tuple[str, str, Direction]
_LIKENESS: _Kind = ("-1 to 1", "1", "higher")
_DECIBELS: _Kind = ("above 0; inf for identical cubes", "dB", "higher")
_DISTORTION: _Kind = ("0 to 2, mostly below 1", "1", "lower")
_QUALITY: _Kind = ("mostly 0 to 1", "1", "higher")
_LOSS: _Kind = ("0 to 1", "1", "lower")
_SHARE: _Kind = ("0 to 1", "1", "higher")
_ERROR: _Kind = ("0 and above", "data unit", "lower")
_RELATIVE: _Kind = ("0 and above", "1", "lower")

_ALPARONE = "Alparone et al. 2008, PE&RS 74(2)"
_SPATIAL = "Alparone, Garzelli and Vivone 2018, IGARSS"

NO_REFERENCE = (
    MetricInfo(
        "d_lambda",
        "D_lambda, spectral distortion",
        "mean over all band pairs of |Q(F_b, F_c) - Q(X_b, X_c)|, F fused, X LRHSI, Q = UIQI",
        _ALPARONE,
        *_DISTORTION,
        "All C (C - 1) / 2 pairs; Q over blocks of 32 x 32 pixels of each resolution unless set, evenly "
        "spread to cover the image. Exponent 1.",
    ),
    MetricInfo(
        "d_s",
        "D_s, spatial distortion, SRF-matched",
        "mean over MSI bands i of |Q(R_i F, Y_i) - Q(R_i X, Y_lr_i)|, R SRF, Y MSI, Y_lr degraded MSI",
        _ALPARONE + ", there for one PAN; the multi-band form is defined here",
        *_DISTORTION,
        "Each MSI band has one partner, the cube's own synthesis of it by the SRF. Q = UIQI in sliding windows. Not to "
        "be held against D_s of pansharpening papers.",
    ),
    MetricInfo(
        "qnr",
        "QNR, quality with no reference",
        "(1 - D_lambda)(1 - D_s)",
        _ALPARONE,
        *_QUALITY,
        "Favours doing nothing to the spectra: read it beside consistency.",
    ),
    MetricInfo(
        "d_lambda_khan",
        "Khan's D_lambda, spectral distortion",
        "1 - Q2n(fused degraded to the LRHSI's grid, LRHSI)",
        "Khan, Alparone and Chanussot 2009, IEEE TGRS 47(11)",
        *_LOSS,
        "Degraded by the sensor's own MTF or PSF, as the observation model has it.",
    ),
    MetricInfo(
        "hqnr",
        "HQNR, hybrid quality with no reference",
        "(1 - Khan's D_lambda)(1 - D_s)",
        "Aiazzi et al. 2014, Proc. SPIE 9244",
        *_QUALITY,
        "With the SRF-matched D_s.",
    ),
    MetricInfo(
        "d_sr",
        "D_s by regression, spatial distortion",
        "1 - R^2 of the MSI's one band fitted by all fused bands and a constant",
        _SPATIAL,
        *_LOSS,
        "Only for an MSI of one band, as the literature has it. The more bands, the better they fit: compare cubes of "
        "the same bands only.",
    ),
    MetricInfo(
        "rqnr",
        "RQNR, regression-based quality with no reference",
        "(1 - Khan's D_lambda)(1 - D_s by regression)",
        _SPATIAL,
        *_SHARE,
        "Only for an MSI of one band.",
    ),
)


_WALD = "Wald 2000, Third Conference Fusion of Earth Data"
_LONCAN = "Loncan et al. 2015, IEEE GRSM 3(3)"
_YUHAS = "Yuhas, Goetz and Boardman 1992, JPL Airborne Geoscience Workshop"
_DEGREES = "0 to 180"
_POOLING = "mean over all windows wholly inside the image and valid, then over bands"


def _angles(key: str, title: str, over: str, note: str) -> MetricInfo:
    """One figure of the pixels' spectral angles."""
    formula = f"{over} of arccos(<x, y> / (||x|| ||y||))"
    return MetricInfo(key, title, formula, _YUHAS, _DEGREES, "degrees", "lower", note)


REFERENCE = (
    MetricInfo(
        "psnr",
        "PSNR, band mean",
        "mean_b 10 log10(peak^2 / MSE_b)",
        "the usual one in papers on hyperspectral and multispectral fusion",
        *_DECIBELS,
        "One peak for all bands, the data's full scale. Bands without any error are left out of the mean.",
    ),
    MetricInfo(
        "psnr_global",
        "PSNR, global",
        "10 log10(peak^2 / MSE), one MSE over all bands and pixels",
        "common in image restoration",
        *_DECIBELS,
        "Never above the band mean: bands with large errors weigh more.",
    ),
    MetricInfo(
        "psnr_band_peak",
        "PSNR, band mean, each band's own peak",
        "mean_b 10 log10(max(reference_b)^2 / MSE_b)",
        "Yokoya, Grohnfeldt and Chanussot 2017, IEEE GRSM 5(2)",
        *_DECIBELS,
        "Toolbox profile: lower than the one-peak PSNR wherever bands are darker than full scale.",
    ),
    MetricInfo(
        "rmse",
        "Root mean square error",
        "sqrt(mean((fused - reference)^2)) over all bands and pixels",
        _LONCAN,
        *_ERROR,
    ),
    MetricInfo(
        "relative_rmse",
        "Relative RMSE",
        "||fused - reference||_F / ||reference||_F",
        "relative Frobenius error",
        *_RELATIVE,
        "Relative to the reference's root mean square, not to its mean.",
    ),
    _angles(
        "sam",
        "Spectral angle, mean",
        "mean over pixels",
        "Blind to a factor common to all bands. Pixels with a spectrum of zeros are left out and counted.",
    ),
    _angles("sam_median", "Spectral angle, median", "median over pixels", "To the nearest 0.001 degree."),
    _angles(
        "sam_p95", "Spectral angle, 95th percentile", "95th percentile over pixels", "To the nearest 0.001 degree."
    ),
    MetricInfo(
        "ergas",
        "ERGAS",
        "100 / s sqrt(mean_b((RMSE_b / mean(reference_b))^2)), s = LRHSI pixel size / MSI pixel size",
        _WALD,
        *_RELATIVE,
        "Comparable only at one ratio s. Bands with zero mean are left out and counted.",
    ),
    MetricInfo(
        "uiqi",
        "Universal image quality index",
        "4 cov(x, y) mean(x) mean(y) / ((var(x) + var(y)) (mean(x)^2 + mean(y)^2))",
        "Wang and Bovik 2002, IEEE SPL 9(3)",
        *_LIKENESS,
        f"Uniform windows, 32 x 32 unless set, stride 1; {_POOLING}. A factor that is 0/0 counts as 1 "
        "(constant windows). Smaller or Gaussian windows give lower figures.",
    ),
    MetricInfo(
        "ssim",
        "Structural similarity",
        "(2 mx my + c1)(2 cov + c2) / ((mx^2 + my^2 + c1)(vx + vy + c2)), c1 = (0.01 peak)^2, c2 = (0.03 peak)^2",
        "Wang et al. 2004, IEEE TIP 13(4)",
        *_LIKENESS,
        f"Gaussian 11 x 11 windows, sigma 1.5, data range = peak; {_POOLING}. No border is "
        "extended: libraries that count a mirrored border give other figures on small images.",
    ),
    MetricInfo(
        "cc",
        "Cross correlation",
        "mean_b Pearson correlation of fused_b and reference_b",
        _LONCAN,
        *_LIKENESS,
        "Blind to gain and offset of a band. Constant bands are left out and counted.",
    ),
    MetricInfo(
        "scc",
        "Spatial correlation coefficient",
        "mean_b Pearson correlation of the bands after a 3 x 3 Laplacian (8 in the middle, -1 around)",
        "Zhou, Civco and Silander 1998, IJRS 19(4)",
        *_LIKENESS,
        "Interior pixels only; sensitive to noise. Some toolboxes use Sobel and one correlation over all bands.",
    ),
    MetricInfo(
        "dd",
        "Degree of distortion",
        "mean(|fused - reference|) over all bands and pixels",
        "Wei et al. 2015, IEEE TGRS 53(7)",
        *_ERROR,
    ),
    MetricInfo(
        "q2n",
        "Q2n, hypercomplex quality index",
        "|cov(z, z^)| / (s s^) * 2 |m| |m^| / (|m|^2 + |m^|^2) * 2 s s^ / (s^2 + s^^2), one component of z a band",
        "Garzelli and Nencini 2009, IEEE GRSL 6(4)",
        *_SHARE,
        "Blocks of 32 x 32 unless set, evenly spread to cover the image, only wholly valid ones; bands normalised per "
        "block by the reference's mean and deviation, as in the toolbox of Vivone et al. 2015, but without rounding to "
        "integers or mirroring at the border. Bands constant in a block's reference are left out of it.",
    ),
)


_CONSISTENT = ("rmse", "relative_rmse", "sam", "sam_median", "sam_p95", "cc", "dd")
_INPUTS = {
    "hsi_": ("with the LRHSI", "fused cube degraded to the LRHSI's grid against the LRHSI"),
    "msi_": ("with the MSI", "MSI synthesised from the fused cube by the SRF against the MSI"),
}


def _consistency(base: MetricInfo, prefix: str) -> MetricInfo:
    """The entry of a pixelwise metric used as consistency with one input."""
    which, what = _INPUTS[prefix]
    return MetricInfo(
        prefix + base.key,
        f"Consistency {which}: {base.title}",
        base.formula.replace("fused", "synthesised").replace("reference", "observed"),
        f"Wald, Ranchin and Mangolini 1997, PE&RS 63(6), first property; {base.source}",
        base.range,
        base.unit,
        base.direction,
        f"{what[0].upper()}{what[1:]}. {base.note}".strip(),
    )


_ENTRIES = {info.key: info for info in REFERENCE + NO_REFERENCE}

CATALOGUE: dict[str, MetricInfo] = _ENTRIES | {
    prefix + key: _consistency(_ENTRIES[key], prefix) for prefix in _INPUTS for key in _CONSISTENT
}

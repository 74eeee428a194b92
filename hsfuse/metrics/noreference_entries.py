"""Entries of the metrics that do without a reference."""

from __future__ import annotations

from hsfuse.metrics.info import MetricInfo

_ALPARONE = "Alparone et al. 2008, PE&RS 74(2)"
_SPATIAL = "Alparone, Garzelli and Vivone 2018, IGARSS"

NO_REFERENCE = (
    MetricInfo(
        "d_lambda",
        "D_lambda, spectral distortion",
        "mean over all band pairs of |Q(F_b, F_c) - Q(X_b, X_c)|, F fused, X LRHSI, Q = UIQI",
        _ALPARONE,
        "0 to 2, mostly below 1",
        "1",
        "lower",
        "All C (C - 1) / 2 pairs; Q over blocks of 32 x 32 pixels of each resolution unless set, evenly "
        "spread to cover the image. Exponent 1.",
    ),
    MetricInfo(
        "d_s",
        "D_s, spatial distortion, SRF-matched",
        "mean over MSI bands i of |Q(R_i F, Y_i) - Q(R_i X, Y_lr_i)|, R SRF, Y MSI, Y_lr degraded MSI",
        _ALPARONE + ", there for one PAN; the multi-band form is defined here",
        "0 to 2, mostly below 1",
        "1",
        "lower",
        "Each MSI band has one partner, the cube's own synthesis of it by the SRF. Q = UIQI in sliding windows. Not to "
        "be held against D_s of pansharpening papers.",
    ),
    MetricInfo(
        "qnr",
        "QNR, quality with no reference",
        "(1 - D_lambda)(1 - D_s)",
        _ALPARONE,
        "mostly 0 to 1",
        "1",
        "higher",
        "Favours doing nothing to the spectra: read it beside consistency.",
    ),
    MetricInfo(
        "d_lambda_khan",
        "Khan's D_lambda, spectral distortion",
        "1 - Q2n(fused degraded to the LRHSI's grid, LRHSI)",
        "Khan, Alparone and Chanussot 2009, IEEE TGRS 47(11)",
        "0 to 1",
        "1",
        "lower",
        "Degraded by the sensor's own MTF or PSF, as the observation model has it.",
    ),
    MetricInfo(
        "hqnr",
        "HQNR, hybrid quality with no reference",
        "(1 - Khan's D_lambda)(1 - D_s)",
        "Aiazzi et al. 2014, Proc. SPIE 9244",
        "mostly 0 to 1",
        "1",
        "higher",
        "With the SRF-matched D_s.",
    ),
    MetricInfo(
        "d_sr",
        "D_s by regression, spatial distortion",
        "1 - R^2 of the MSI's one band fitted by all fused bands and a constant",
        _SPATIAL,
        "0 to 1",
        "1",
        "lower",
        "Only for an MSI of one band, as the literature has it. The more bands, the better they fit: compare cubes of "
        "the same bands only.",
    ),
    MetricInfo(
        "rqnr",
        "RQNR, regression-based quality with no reference",
        "(1 - Khan's D_lambda)(1 - D_s by regression)",
        _SPATIAL,
        "0 to 1",
        "1",
        "higher",
        "Only for an MSI of one band.",
    ),
)

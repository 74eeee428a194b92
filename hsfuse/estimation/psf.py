"""The LRHSI's PSF from the pair itself: R x LRHSI against the MSI, blurred and decimated by a kernel to be found.

A Gaussian of two widths and angle, its centre free, so that a shift between the images isn't taken for width; gain and
offset of each band are fitted along (variable projection, Golub and Pereyra 1973). A free kernel departs from that
Gaussian, smoothly and not below 0, as far as held-out pixels confirm it (the PSF estimation of Simoes et al. 2015, IEEE
TGRS 53(6), section IV, drawn to the Gaussian in place of to zero gradients).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import OptimizeResult, least_squares
from torch import Tensor

from hsfuse.errors import SettingError
from hsfuse.estimation.freekernel import depart_freely
from hsfuse.estimation.spectra import FloatArray
from hsfuse.estimation.views import Views, correlations, ellipse, ellipse_kernel
from hsfuse.physics import ObservationModel, Psf, elliptic_psf

#: Widths tried as a start, as shares of the ratio: MTF at Nyquist about 0.5 and 0.1.
START_WIDTHS = (0.37, 0.68)
#: Widths are between these, in HR pixels and in LR pixels.
LEAST_WIDTH_HR, LARGEST_WIDTH_LR = 0.3, 1.5
LARGEST_SHIFT_LR = 1.5
#: MSI bands that the Gaussian is fitted on at most.
MOST_BANDS = 4
#: Step of numerical derivatives, in units of the parameters.
STEP = 1e-5
#: A free kernel has (4 s)^2 unknowns.
LARGEST_FREE_RATIO = 12


@dataclass(frozen=True, eq=False)
class EstimatedPsf:
    """A centred `psf`, its widths in HR pixels and angle as for `elliptic_psf`, each with a standard deviation.

    `shift` (y, x): the LRHSI's pixel centres lie that many HR pixels further down and right than the grids say, and
    `shifted` is the PSF about them;
    `mtf` (y, x) at the LR Nyquist frequency; `gain` and `offset` (c,) of the MSI against R x LRHSI; `correlation` (c,).
    """

    psf: Psf
    shifted: Psf
    sigma: tuple[float, float]
    sigma_sd: tuple[float, float]
    theta_deg: float
    theta_sd_deg: float
    shift: tuple[float, float]
    shift_sd: tuple[float, float]
    mtf: tuple[float, float]
    gain: FloatArray
    offset: FloatArray
    correlation: FloatArray

    def describe(self) -> str:
        """One line for people."""
        (y, x), (sy, sx) = self.sigma, self.sigma_sd
        return (
            f"sigma {y:.2f} +- {sy:.2f} (y) and {x:.2f} +- {sx:.2f} (x) MSI pixels, angle {self.theta_deg:.0f} +- "
            f"{min(self.theta_sd_deg, 90):.0f} degrees, MTF at Nyquist {self.mtf[0]:.2f} (y) and {self.mtf[1]:.2f} (x)"
        )


def estimate_psf(
    lrhsi: Tensor,
    msi: Tensor,
    mask: Tensor,
    matrix: ArrayLike,
    scale: int,
    phase: float | None = None,
    kind: str = "gaussian",
) -> EstimatedPsf:
    """PSF from blocks: LRHSI (n, C, h, w), MSI (n, c, H, W), mask (n, h, w) and R `matrix` (c, C).

    `kind` is "gaussian" or "free". SettingError for another kind, or a free kernel at a ratio above 12; InputError when
    fewer than 64 LR pixels lie far enough from borders and invalid pixels.
    """
    if kind not in ("gaussian", "free"):
        raise SettingError(f"the PSF's kind is {kind!r}, wanted gaussian or free")
    if kind == "free" and scale > LARGEST_FREE_RATIO:
        raise SettingError(f"a free PSF kernel is estimated up to ratio {LARGEST_FREE_RATIO}, this is {scale}")
    target = torch.einsum("kc,bchw->bkhw", torch.as_tensor(np.asarray(matrix)).double(), lrhsi.double())
    views = Views.of(target, msi.double(), mask, ObservationModel(np.eye(1), _any_psf(scale, phase), scale, phase))
    fit = _fit_gaussian(views.select(_best_bands(views)))
    return _summed_up(views, fit, kind)


def _any_psf(scale: int, phase: float | None) -> Psf:
    return elliptic_psf(0.5 * scale, 0.5 * scale, 0, scale, phase)


def _fit_gaussian(views: Views) -> OptimizeResult:
    """Least squares from two starts, then once more with weights by each band's misfit and little from outliers."""
    s = views.scale
    span = np.log(LEAST_WIDTH_HR), np.log(LARGEST_WIDTH_LR * s)
    high = np.array([span[1], span[1], LARGEST_WIDTH_LR * s, LARGEST_SHIFT_LR * s, LARGEST_SHIFT_LR * s])
    bounds = (np.array([span[0], span[0], *-high[2:]]), high)
    contrast = views.target.std(1, keepdims=True) + 1e-12

    def residual(p: FloatArray, scale: FloatArray) -> FloatArray:
        return (views.misfit(ellipse_kernel(p, views.taps)) / scale).ravel()

    def slopes(p: FloatArray, scale: FloatArray) -> FloatArray:
        moved = np.stack([ellipse_kernel(q, views.taps) for q in (p, *(p + STEP * np.eye(p.size)))])
        misfits = (views.misfit(moved) / scale).reshape(p.size + 1, -1)
        return (misfits[1:] - misfits[0]).T / STEP

    def fit(p: FloatArray, scale: FloatArray, **how: str) -> OptimizeResult:
        return least_squares(residual, p, slopes, bounds, args=(scale,), **how)

    starts = [np.array([np.log(width * s)] * 2 + [0.0] * 3) for width in START_WIDTHS]
    first = min((fit(p, contrast) for p in starts), key=lambda found: found.cost)
    misfit = views.misfit(ellipse_kernel(first.x, views.taps))
    noise = np.median(np.abs(misfit), axis=1, keepdims=True) / 0.6745 + 1e-6 * contrast
    return fit(first.x, noise, loss="soft_l1", x_scale="jac")


def _best_bands(views: Views) -> NDArray[np.intp]:
    """The few bands that correlate best through a usual PSF: as good as all, and free of wrong responses."""
    p = np.array([np.log(0.5 * views.scale)] * 2 + [0.0] * 3)
    return np.argsort(-correlations(views.seen(ellipse_kernel(p, views.taps)), views.target))[:MOST_BANDS]


def _summed_up(views: Views, fit: OptimizeResult, kind: str) -> EstimatedPsf:
    shape = ellipse(fit.x)
    spread = _spread(views, fit)
    kernel = ellipse_kernel(fit.x, views.taps)
    psf = elliptic_psf(*shape, views.scale, views.phase)
    if kind == "free":
        kernel, psf = depart_freely(views, kernel, (fit.x[3], fit.x[4]))
    seen = views.seen(kernel)
    gain, offset = views.radiometry(seen)
    return EstimatedPsf(
        psf,
        Psf(kernel, f"{psf.label}, shifted"),
        shape[:2],
        (spread[0], spread[1]),
        shape[2],
        spread[2],
        (float(fit.x[3]), float(fit.x[4])),
        (spread[3], spread[4]),
        psf.mtf(views.scale),
        gain[:, 0],
        offset[:, 0],
        correlations(seen, views.target),
    )


def _spread(views: Views, fit: OptimizeResult) -> tuple[float, ...]:
    """Standard deviations of widths (y, x), angle and centre (y, x), by propagation from the fit's covariance."""
    freedom = max(1, fit.fun.size - fit.x.size)
    covariance = np.linalg.pinv(fit.jac.T @ fit.jac) * 2 * fit.cost / freedom
    step = 1e-4
    moved = [np.subtract(ellipse(fit.x + d), ellipse(fit.x - d)) for d in step * np.eye(5)[:3]]
    slope = np.stack([[*m[:2], (m[2] + 45) % 90 - 45] for m in moved], 1) / (2 * step)
    shape = np.sqrt(np.diag(slope @ covariance[:3, :3] @ slope.T))
    return (*(float(v) for v in shape), *(float(v) for v in np.sqrt(np.diag(covariance)[3:])))

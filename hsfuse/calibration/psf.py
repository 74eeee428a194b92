"""The LRHSI's PSF from the pair itself: R x LRHSI against the MSI, blurred and decimated by a kernel to be found.

A Gaussian of two widths and angle, its centre free, so that a shift between the images isn't taken for width; gain and
offset of each band are fitted along (variable projection, Golub and Pereyra 1973). A free kernel departs from that
Gaussian, smoothly and not below 0, as far as held-out pixels confirm it (the PSF estimation of Simoes et al. 2015, IEEE
TGRS 53(6), section IV, drawn to the Gaussian in place of to zero gradients).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy.ndimage import laplace, shift
from scipy.optimize import OptimizeResult, least_squares, minimize
from torch import Tensor
from torch.nn.functional import conv2d, unfold

from hsfuse.calibration.spectra import LEAST_PIXELS, FloatArray
from hsfuse.core.errors import InputError, SettingError
from hsfuse.physics.model import ObservationModel, Psf, elliptic_psf
from hsfuse.physics.optics import centred_taps, elliptic_gaussian, widths_and_turn

#: LR pixels on each side that a searched kernel reaches over, and the least where a scene is small.
REACH, LEAST_REACH = 3, 1


@dataclass(frozen=True)
class Views:
    """What a kernel of `size` taps is judged by: MSI images, the LR pixels `target` (c, m) it should give, weights."""

    images: Tensor  # (n, c, rows, cols), cut so that a valid convolution with stride s gives the inner LR pixels
    inside: Tensor  # (n, h', w') of them that count
    target: FloatArray
    ratio: int
    phase: float
    size: int

    @classmethod
    def of(cls, target: Tensor, msi: Tensor, mask: Tensor, model: ObservationModel) -> Views:
        """Cut blocks to LR pixels whose kernel stays inside them and on valid pixels."""
        s, (h, w) = model.ratio, mask.shape[1:]
        reach = max(LEAST_REACH, min(REACH, (min(h, w) - 8) // 2))
        size = 2 * reach * s + round(2 * model.phase + 1) % 2
        first = round(reach * s + model.phase - (size - 1) / 2)
        rows, cols = ((n - 2 * reach - 1) * s + size for n in (h, w))
        if min(h, w) <= 2 * reach:
            raise InputError(f"blocks of {h} x {w} LR pixels are too small to estimate a PSF from")
        known = conv2d(mask[:, None].double(), torch.ones(1, 1, 2 * reach + 1, 2 * reach + 1).double())
        inside = known[:, 0] > (2 * reach + 1) ** 2 - 0.5
        if int(inside.sum()) < LEAST_PIXELS:
            raise InputError(
                f"{int(inside.sum())} LR pixels lie {reach} or more from borders and invalid pixels, "
                f"wanted at least {LEAST_PIXELS} to estimate a PSF from"
            )
        images = msi[..., first : first + rows, first : first + cols]
        inner = target[..., reach : h - reach, reach : w - reach].permute(1, 0, 2, 3)[:, inside]
        return cls(images, inside, inner.numpy(), s, model.phase, size)

    @property
    def taps(self) -> FloatArray:
        """Distance (size,) of the taps from the kernel's middle, in HR pixels."""
        return centred_taps(self.size)

    def select(self, bands: NDArray[np.intp]) -> Views:
        """Some of the MSI bands."""
        return replace(self, images=self.images[:, bands], target=self.target[bands])

    def seen(self, kernels: FloatArray) -> FloatArray:
        """The MSI through kernels (..., size, size): (..., c, m)."""
        n, c = self.images.shape[:2]
        flat = self.images.reshape(n * c, 1, *self.images.shape[2:])
        stack = torch.as_tensor(kernels.reshape(-1, 1, self.size, self.size))
        low = conv2d(flat, stack, stride=self.ratio)
        low = low.reshape(n, c, *low.shape[1:]).permute(2, 1, 0, 3, 4)[:, :, self.inside]
        return low.numpy().reshape(*kernels.shape[:-2], *low.shape[1:])

    def radiometry(self, seen: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Gain and offset (..., c, 1) of target = (seen - offset) / gain, by least squares."""
        a, t = seen - seen.mean(-1, keepdims=True), self.target - self.target.mean(-1, keepdims=True)
        slope = (a * t).sum(-1, keepdims=True) / np.maximum((a * a).sum(-1, keepdims=True), 1e-30)
        slope = np.where(np.abs(slope) < 1e-6, 1e-6, slope)
        return 1 / slope, seen.mean(-1, keepdims=True) - self.target.mean(-1, keepdims=True) / slope

    def misfit(self, kernel: FloatArray) -> FloatArray:
        """Target less what kernels (..., size, size) give, in the target's radiometry: (..., c, m)."""
        seen = self.seen(kernel)
        gain, offset = self.radiometry(seen)
        return self.target - (seen - offset) / gain


def ellipse_kernel(p: FloatArray, taps: FloatArray) -> FloatArray:
    """Kernel of a Gaussian: p = log of the covariance's Cholesky diagonal (y, x), its off-diagonal, centre (y, x)."""
    kernel = elliptic_gaussian(_root(p), taps - p[3], taps - p[4])
    return kernel / kernel.sum()


def ellipse(p: FloatArray) -> tuple[float, float, float]:
    """Widths (y, x) and angle in degrees, -45 to 45, of a kernel's first three numbers."""
    return widths_and_turn(_root(p) @ _root(p).T)


def _root(p: FloatArray) -> FloatArray:
    """Cholesky root (2, 2) of a kernel's covariance, axes as (y, x)."""
    return np.array([[np.exp(p[0]), 0], [p[2], np.exp(p[1])]])


def correlations(a: FloatArray, b: FloatArray) -> FloatArray:
    """(c,) of images (c, m); 0 for a constant one."""
    a, b = (x - x.mean(1, keepdims=True) for x in (a, b))
    return (a * b).sum(1) / np.maximum(np.sqrt((a * a).sum(1) * (b * b).sum(1)), 1e-30)


#: LR pixels on each side that a free kernel reaches over.
FREE_REACH = 2
#: Weights of the penalty on the departure's Laplacian, relative to the data; the largest keeps the Gaussian as it is.
PENALTIES = (1e4, 1e1, 1e0, 1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6)


def depart_freely(views: Views, gaussian: FloatArray, centre: tuple[float, float]) -> tuple[FloatArray, Psf]:
    """Kernel with its shift (size, size), and the same centred as a `Psf`."""
    cut = max(0, (views.size - (2 * FREE_REACH * views.ratio + views.size % 2)) // 2)
    inner = slice(cut, views.size - cut)
    start = gaussian[inner, inner] / gaussian[inner, inner].sum()
    halves = [_Normal.of(views, gaussian, cut, part) for part in (0, 1)]
    penalty = _best_penalty(halves, start)
    small = _solve(halves[0] + halves[1], start, penalty)
    kernel = np.pad(small, cut)
    middle = shift(small, (-centre[0], -centre[1]), order=3, mode="constant")
    size = len(small)
    return kernel, Psf(np.maximum(middle, 0), f"free kernel, {size} x {size} taps")


class _Normal:
    """Normal equations: mean square misfit = k' gram k - 2 k' cross + power, for kernels k (taps,)."""

    def __init__(self, gram: FloatArray, cross: FloatArray, power: float) -> None:
        self.gram, self.cross, self.power = gram, cross, power

    @classmethod
    def of(cls, views: Views, gaussian: FloatArray, cut: int, part: int) -> _Normal:
        """Over every second LR row of strips of four, so that halves share little."""
        seen = views.seen(gaussian)
        gain, offset = views.radiometry(seen)
        noise = (views.target - (seen - offset) / gain).std(1, keepdims=True) * gain
        wanted = (views.target * gain + offset) / noise
        size = views.size - 2 * cut
        strip = (torch.arange(views.inside.shape[1]) // 4 % 2 == part)[:, None] & views.inside
        chosen = strip[views.inside].numpy()
        gram, cross, power = np.zeros((size**2, size**2)), np.zeros(size**2), 0.0
        images = views.images[..., cut : views.images.shape[2] - cut, cut : views.images.shape[3] - cut]
        for band in range(images.shape[1]):
            patches = unfold(images[:, band : band + 1], size, stride=views.ratio).permute(0, 2, 1)
            data = patches.reshape(*views.inside.shape, -1)[strip].numpy() / noise[band]
            target = wanted[band, chosen]
            gram += data.T @ data
            cross += data.T @ target
            power += float(target @ target)
        return cls(gram, cross, power)

    def __add__(self, other: _Normal) -> _Normal:
        return _Normal(self.gram + other.gram, self.cross + other.cross, self.power + other.power)

    def misfit(self, k: FloatArray) -> float:
        return float(k @ self.gram @ k - 2 * k @ self.cross + self.power)


def _best_penalty(halves: list[_Normal], start: FloatArray) -> float:
    """That whose kernel from one half explains the other best."""
    misfits = [
        sum(test.misfit(_solve(train, start, penalty).ravel()) for train, test in (halves, halves[::-1]))
        for penalty in PENALTIES
    ]
    return PENALTIES[int(np.argmin(misfits))]


def _solve(normal: _Normal, start: FloatArray, penalty: float) -> FloatArray:
    """Kernel (size, size) of least misfit plus penalty times the squared Laplacian of its departure from `start`."""
    strength = penalty * np.trace(normal.gram) / len(normal.gram)

    def value(k: FloatArray) -> tuple[float, FloatArray]:
        bend = laplace((k - start.ravel()).reshape(start.shape), mode="constant")
        pull = normal.gram @ k - normal.cross
        both = normal.misfit(k) + strength * float((bend**2).sum())
        return both, 2 * pull + 2 * strength * laplace(bend, mode="constant").ravel()

    found = minimize(value, start.ravel(), jac=True, method="L-BFGS-B", bounds=[(0, None)] * start.size)
    return found.x.reshape(start.shape)


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
    ratio: int,
    phase: float | None = None,
    kind: str = "gaussian",
) -> EstimatedPsf:
    """PSF from blocks: LRHSI (n, C, h, w), MSI (n, c, H, W), mask (n, h, w) and R `matrix` (c, C).

    `kind` is "gaussian" or "free". SettingError for another kind, or a free kernel at a ratio above 12; InputError when
    fewer than 64 LR pixels lie far enough from borders and invalid pixels.
    """
    if kind not in ("gaussian", "free"):
        raise SettingError(f"the PSF's kind is {kind!r}, wanted gaussian or free")
    if kind == "free" and ratio > LARGEST_FREE_RATIO:
        raise SettingError(f"a free PSF kernel is estimated up to ratio {LARGEST_FREE_RATIO}, this is {ratio}")
    target = torch.einsum("kc,bchw->bkhw", torch.as_tensor(np.asarray(matrix)).double(), lrhsi.double())
    views = Views.of(target, msi.double(), mask, ObservationModel(np.eye(1), _any_psf(ratio, phase), ratio, phase))
    fit = _fit_gaussian(views.select(_best_bands(views)))
    return _summed_up(views, fit, kind)


def _any_psf(ratio: int, phase: float | None) -> Psf:
    return elliptic_psf(0.5 * ratio, 0.5 * ratio, 0, ratio, phase)


def _fit_gaussian(views: Views) -> OptimizeResult:
    """Least squares from two starts, then once more with weights by each band's misfit and little from outliers."""
    s = views.ratio
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
    p = np.array([np.log(0.5 * views.ratio)] * 2 + [0.0] * 3)
    return np.argsort(-correlations(views.seen(ellipse_kernel(p, views.taps)), views.target))[:MOST_BANDS]


def _summed_up(views: Views, fit: OptimizeResult, kind: str) -> EstimatedPsf:
    shape = ellipse(fit.x)
    spread = _spread(views, fit)
    kernel = ellipse_kernel(fit.x, views.taps)
    psf = elliptic_psf(*shape, views.ratio, views.phase)
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
        psf.mtf(views.ratio),
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

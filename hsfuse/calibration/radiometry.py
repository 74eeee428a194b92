"""Gain and offset between the two sensors: one line per MSI band through LR pixels, little moved by outliers.

Contrast at the LRHSI's own resolution depends on its PSF: were that assumed blunter than it is, every gain would come
out too small. Lines are therefore drawn through both images blurred alike, and what a PSF of another width would still
change, to first order a multiple of the LRHSI's own Laplacian, is fitted along and taken out of the MSI.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from math import hypot

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy.ndimage import binary_dilation, gaussian_filter
from torch import Tensor

from hsfuse.calibration.spectra import LEAST_PIXELS, FloatArray, LowPixels, inner_mask, low_pixels
from hsfuse.calibration.views import correlations
from hsfuse.core.errors import InputError
from hsfuse.core.values import plus_minus
from hsfuse.physics.model import ObservationModel

BoolArray = NDArray[np.bool_]
#: Cauchy's constant: 95 % efficiency where errors are normal. Passes, each with the noise about the last line.
CAUCHY, PASSES = 2.385, 2
#: Gauss-Newton steps at most, and when they are over, in gain and in deviations of the values.
STEPS, SETTLED = 50, 1e-9
#: Noise assumed at least, relative to the contrast.
LEAST_NOISE = 1e-6
STRIPS = 8
#: A deviation counts when it is beyond this many standard deviations and this share (of 1, or of the band's mean).
SIGNIFICANT_SD, SIGNIFICANT_SHARE = 2.0, 0.02
#: Below this correlation a band's line, and its part in a fusion, is doubtful.
LEAST_CORRELATION = 0.7
#: Gaussian (LR pixels) that both images are blurred by before the lines are drawn, and the further blur whose effect
#: stands for the Laplacian. With an MTF at Nyquist of 0.1 to 0.45 in place of 0.3 the gains of four scenes stay within
#: 1.3 %; unblurred they were 15 % off, blurred by 2 LR pixels alone 4 %.
BLUR_LR, FURTHER_LR = 1.0, 1.0
#: Most of that effect, as multiples of it, that a wrong PSF can have.
MOST_FURTHER = 0.6
#: Pixels so many deviations off the unblurred line (clouds) are left out, so that the blur doesn't spread them.
FAR_OFF = 8.0
#: Gaussian (LR pixels) that makes haze of how two images differ; the share of it that is smooth where there is any; how
#: large the MSI's detail may be beside the LRHSI's.
HAZE_LR, SMOOTH, GAINS = 1.0, 0.5, (0.5, 2.0)
#: Gaussians that its field may have; beside gaps it is as under one so much wider, which has so much less weight.
SCALES, FAR_LR, FAR_WEIGHT = (0.4, 0.7, 1.0, 1.4), 3.0, 0.01
#: LR pixels that none of them reaches.
REACH = 10
#: Turns of the fit at most, the one in which its scale is chosen, and what ends it.
TURNS, TURNS_SCALE, SETTLED_HAZE = 150, 10, 1e-4
#: Percentile of the field that is clear sky, by which gains and offsets are told from it, and by how much (log) these
#: must lessen the noise to be fitted, too.
CLEAR, GAINED = 10.0, 0.1
#: Deviation of its light and of what it dims in a band from the like in all, as far as pixels don't tell, and how much
#: less than that gains and offsets are held.
UNSURE, HARDLY = 0.2, 0.01
#: Opacity from which on light is the LRHSI's alone, how many times that of the MSI's own. Put over the MSI, too, cloud
#: would bend what is learned of the ground: clear ground beside it lost up to 11 dB.
CLOUDED, OTHER_SIDE = 0.2, 2.0
#: Share of the LR pixels of which haze's opacity isn't told: the thickest.
THICKEST = 0.005
#: Percentiles of a band between which the ground's contrast lies.
CONTRAST = (5, 95)
#: Least weight of calm pixels under that Gaussian.
LEAST_WEIGHT = 0.05


@dataclass(frozen=True, eq=False)
class RadiometricMatch:
    """MSI = gain (R x) + offset; all (c,), offsets as reflectance. `correlation` r.

    `level` is the mean of R x, what an offset is large or small against.
    """

    gain: FloatArray
    gain_sd: FloatArray
    offset: FloatArray
    offset_sd: FloatArray
    correlation: FloatArray
    level: FloatArray

    @property
    def deviating(self) -> BoolArray:
        """Which bands' radiometry differs by more than 2 standard deviations and 2 %: (c,) bool."""
        gain = np.abs(self.gain - 1) > np.maximum(SIGNIFICANT_SD * self.gain_sd, SIGNIFICANT_SHARE)
        offset = np.abs(self.offset) > np.maximum(SIGNIFICANT_SD * self.offset_sd, SIGNIFICANT_SHARE * self.level)
        return gain | offset

    @property
    def doubtful(self) -> BoolArray:
        """Which bands correlate too little (r < 0.7) for the line to mean much: (c,) bool."""
        return self.correlation < LEAST_CORRELATION

    def apply(self, msi: NDArray[np.floating]) -> NDArray:
        """MSI (c, H, W) in the HSI's radiometry, same dtype: (MSI - offset) / gain."""
        gain, offset = (value.astype(msi.dtype)[:, None, None] for value in (self.gain, self.offset))
        return (msi - offset) / gain

    def where(self, chosen: BoolArray) -> RadiometricMatch:
        """The same for chosen bands (c,) bool, gain 1 and offset 0 for the others."""
        gain, offset = np.where(chosen, self.gain, 1.0), np.where(chosen, self.offset, 0.0)
        return replace(self, gain=gain, offset=offset)

    def describe(self, bands: tuple[str, ...]) -> str:
        """One line of figures for people: gain, offset and correlation of each band that has a gain or an offset."""
        rows = zip(bands, self.gain, self.gain_sd, self.offset, self.correlation, strict=True)
        told = [
            f"{b} = ({plus_minus(g, sd)}) x HSI {o:+z.3g} (r {r:.2f})" for b, g, sd, o, r in rows if (g, o) != (1, 0)
        ]
        return "; ".join(told) or "no band differs"


def match_radiometry(
    lrhsi: Tensor, msi: Tensor, mask: Tensor, model: ObservationModel, matrix: ArrayLike | None = None
) -> RadiometricMatch:
    """Gain and offset of each MSI band from blocks: LRHSI (n, C, h, w), MSI (n, c, H, W), mask (n, h, w).

    `matrix` R (c, C) is by default the model's. InputError when fewer than 64 LR pixels are valid in both images or
    every MSI band is constant.
    """
    srf = model.srf.double().cpu().numpy() if matrix is None else np.asarray(matrix)
    through = torch.einsum("kc,bchw->bkhw", torch.as_tensor(srf).double(), lrhsi.double().cpu())
    pixels = low_pixels(through, msi, mask, model)
    inside = inner_mask(mask.cpu().numpy(), model)
    calm = _calm(pixels, inside)
    near = gaussian_sum(calm[None], inside, BLUR_LR)[0] > LEAST_WEIGHT
    blurs = (pixels.lrhsi, BLUR_LR), (pixels.lrhsi, hypot(BLUR_LR, FURTHER_LR)), (pixels.msi, BLUR_LR)
    seen, further, other = (_blurred(values, calm, inside, blur)[:, near] for values, blur in blurs)
    other = np.stack([_of_one_width(*rows) for rows in zip(seen, further, other, strict=True)])
    return replace(match_lines(seen, other), correlation=correlations(pixels.lrhsi[:, calm], pixels.msi[:, calm]))


def brighter(
    lrhsi: Tensor, msi: Tensor, mask: Tensor, model: ObservationModel, line: RadiometricMatch
) -> tuple[float, float]:
    """Over which share of the LR pixels the MSI is brighter than the LRHSI in all bands, and this than the MSI.

    Brighter by more than the ground's contrast, as opaque cloud is that one alone has; images as for
    `match_radiometry`, whose `line` lies between them.
    """
    through = model.spectral(lrhsi.double()).cpu()
    pixels = low_pixels(through, msi, mask, model)
    seen = line.apply(pixels.msi[..., None])[..., 0]
    contrast = np.min([np.ptp(np.percentile(one, CONTRAST, axis=1), axis=0) for one in (pixels.lrhsi, seen)], axis=0)
    apart = (seen - pixels.lrhsi) / np.maximum(contrast, 1e-12)[:, None]
    return float((apart.min(0) > 1).mean()), float((apart.max(0) < -1).mean())


def _calm(pixels: LowPixels, inside: BoolArray) -> BoolArray:
    """Which LR pixels (n,) at the places `inside` (b, h, w) lie near every band's line, and those around them, too."""
    far = np.zeros(inside.shape, bool)
    for x, y in zip(pixels.lrhsi, pixels.msi, strict=True):
        gain, offset = _line(x, y)
        misfit = y - gain * x - offset
        far[inside] |= np.abs(misfit) > FAR_OFF * _deviation(misfit)
    calm: BoolArray = ~binary_dilation(far, np.ones((1, 3, 3)))[inside]
    return calm if calm.sum() >= LEAST_PIXELS else np.ones_like(calm)


def _blurred(values: FloatArray, calm: BoolArray, inside: BoolArray, blur: float) -> FloatArray:
    """Pixels (c, n) at the places `inside` (b, h, w), each the mean of calm ones under a Gaussian around it."""
    return gaussian_sum(values * calm, inside, blur) / np.maximum(gaussian_sum(calm[None], inside, blur), 1e-9)


def gaussian_sum(values: FloatArray | BoolArray, inside: BoolArray, blur: float, truncate: float = 3.0) -> FloatArray:
    """Values (c, n) at the places `inside` (b, h, w) under a Gaussian of `blur` LR pixels, with nothing elsewhere."""
    planes = np.zeros((len(values), *inside.shape))
    planes[:, inside] = values
    soft: FloatArray = gaussian_filter(planes, (0, 0, blur, blur), mode="constant", truncate=truncate)[:, inside]
    return soft


def _of_one_width(x: FloatArray, further: FloatArray, y: FloatArray) -> FloatArray:
    """y (n,) as blurred as x is: less the multiple of x - `further`, x blurred further, that fits it besides x."""
    design = np.stack([x, x - further, np.ones_like(x)], 1)
    gain, fine, _ = np.linalg.lstsq(design, y, rcond=None)[0]
    if gain <= 0:
        return y
    return y - np.clip(fine / gain, -MOST_FURTHER, MOST_FURTHER) * gain * (x - further)


@dataclass(frozen=True, eq=False)
class Haze:
    """Smooth light that one of two images alone has, and how it dims what lies below it; a shade has no light.

    The MSI's band k is y + u (`light` - `dims` y), where y = `gain` R x + `offset` and u, of all bands alike, is smooth
    over a Gaussian of `scale` LR pixels; (c,) each, as is the `noise` that the degraded MSI has about that. `share` of
    what gain and offset leave between the images is smooth, and its RMS is `size`. But for a share of `THICKEST` of the
    LR pixels it hides `opacity` (0 to 1) of the ground at most, in either image. Where the LRHSI has it, not the MSI,
    `over_lrhsi` is the share of LR pixels that lie below.
    """

    light: FloatArray
    dims: FloatArray
    gain: FloatArray
    offset: FloatArray
    noise: FloatArray
    scale: float
    share: float
    size: float
    opacity: float = 0.0
    over_lrhsi: float = 0.0

    @property
    def is_shade(self) -> bool:
        """Whether it has no light of its own: a factor between the brightness of both images."""
        return not self.light.any()

    def below(self, through: FloatArray) -> FloatArray:
        """The MSI without it, degraded, from R x (c, ...)."""
        return _each(self.gain, through) * through + _each(self.offset, through)

    def seen(self, through: FloatArray, msi: FloatArray) -> tuple[FloatArray, FloatArray]:
        """u and the weight in it (...) of LR pixels, by R x and the degraded MSI, (c, ...) each.

        Pixels whose bands disagree about it (change on the ground) weigh less, as by Cauchy's loss.
        """
        below, noise = self.below(through), _each(self.noise, through)
        by, over = (_each(self.light, through) - _each(self.dims, through) * below) / noise, (msi - below) / noise
        u = (by * over).sum(0) / np.maximum(np.square(by).sum(0), 1e-30)
        return u, 1 / (1 + np.square(over - u * by).mean(0) / CAUCHY**2)

    def smooth(self, values: NDArray, weight: NDArray) -> NDArray:
        """LR pixels (..., h, w) as smooth as u is, each a mean of those around by their weight (h, w).

        What such a mean leaves is smoothed and added, so that curved fields keep their peaks (twicing, Tukey 1977).
        Where a gap leaves nothing near, what is further off tells.
        """
        near, far = (
            partial(gaussian_filter, sigma=blur, mode="constant", truncate=3, axes=(-2, -1))
            for blur in (self.scale, FAR_LR)
        )
        known = near(weight)
        mean = (near(values * weight) + FAR_WEIGHT * far(values * weight)) / np.maximum(
            known + FAR_WEIGHT * far(weight), LEAST_WEIGHT * FAR_WEIGHT
        )
        rest: NDArray = near((values - mean) * weight) / np.maximum(known, LEAST_WEIGHT)
        return mean + rest

    def taken_out(self, msi: NDArray, u: NDArray, level: NDArray) -> NDArray:
        """MSI (c, H, W) without it, by smooth u (H, W) and smooth level of y (c, H, W), same dtype."""
        light, dims = (_each(value.astype(msi.dtype), level) for value in (self.light, self.dims))
        return np.asarray((msi - level - u * (light - dims * level)) / np.clip(1 - dims * u, *GAINS) + level)


def estimate_haze(lrhsi: Tensor, msi: Tensor, mask: Tensor, model: ObservationModel) -> Haze | None:
    """None where there is none; images, model and InputError as for `match_radiometry`.

    Every other LR pixel, as on a chessboard, is foretold by those around it: noise and detail aren't, thin cloud and
    haze are. What there is of it is one field in all bands, which is fitted in turns with what each makes of it.
    """
    pixels, inside = seen_by_both(lrhsi, msi, mask, model)
    rows, cols = np.ogrid[: inside.shape[1], : inside.shape[2]]
    white = np.broadcast_to((rows + cols) % 2 == 0, inside.shape)[inside]
    rest = without_lines(pixels)
    foretold = np.zeros_like(rest)
    for known in (white, ~white):
        foretold[:, ~known] = (gaussian_sum(rest * known, inside, HAZE_LR) / _weight(known, inside))[:, ~known]
    share = 1 - np.square(rest - foretold).sum(1) / np.maximum(np.square(rest).sum(1), 1e-30)
    if np.median(share) <= SMOOTH:
        return None
    bright, ones = float(np.percentile(pixels.lrhsi, 99)), np.ones(len(rest))
    start = Haze(
        bright * ones, ones, ones, 0 * ones, ones, HAZE_LR, float(np.median(share)), float(np.median(foretold.std(1)))
    )
    plain, free = (_fitted(start, pixels, inside, bright, lines) for lines in (False, True))
    haze = free if np.log(plain.noise / free.noise).mean() > GAINED else plain
    field = smoothed(haze, *haze.seen(pixels.lrhsi, pixels.msi), inside) * haze.dims.mean()
    # The LRHSI's own dims that: where it hides v of the ground, the MSI has 1 / (1 - v) of its contrast.
    both = np.stack([np.maximum(field, 0), np.where(field < 0, field / (field - 1), 0)])
    over_msi, over_lrhsi = np.quantile(both, 1 - THICKEST, axis=1)
    alone = haze is plain and over_lrhsi > max(CLOUDED, OTHER_SIDE * over_msi)  # else the field's zero is as fitted
    opacity = float(np.clip(np.quantile(both.max(0), 1 - THICKEST), 0, 1))
    return replace(haze, opacity=opacity, over_lrhsi=float((both[1] > CLOUDED).mean()) if alone else 0.0)


def seen_by_both(lrhsi: Tensor, msi: Tensor, mask: Tensor, model: ObservationModel) -> tuple[LowPixels, BoolArray]:
    """R x and the degraded MSI at LR pixels that both images have whole, and their places (b, h, w)."""
    through = model.spectral(lrhsi.double()).cpu()
    return low_pixels(through, msi, mask, model), inner_mask(mask.cpu().numpy(), model)


def _fitted(haze: Haze, pixels: LowPixels, inside: BoolArray, bright: float, lines: bool) -> Haze:
    """Haze as the pixels at the places `inside` (b, h, w) have it; `lines`: with gains and offsets of their own.

    As far as pixels don't tell, its light is as `bright` in all bands, and it dims all alike.
    """
    n = 4 if lines else 2
    likely = np.array([bright, 1.0, 1.0, 0.0])[:n]
    prior = np.diag(np.array([1 / bright, 1.0, HARDLY, HARDLY / bright])[:n] / UNSURE) ** 2
    for turn in range(TURNS):
        before, (u, weight) = haze, haze.seen(pixels.lrhsi, pixels.msi)
        if turn == TURNS_SCALE:
            haze = min((replace(haze, scale=scale) for scale in SCALES), key=partial(left_out, u, weight, inside))
        u = smoothed(haze, u, weight, inside)
        u -= np.percentile(u, CLEAR) if lines else 0
        found, left = [], []
        for x, y, below, noise in zip(pixels.lrhsi, pixels.msi, haze.below(pixels.lrhsi), haze.noise, strict=True):
            design, asked = np.stack([u, -u * below, x, np.ones_like(x)])[:n], y if lines else y - below
            both = (design * weight) @ design.T + noise**2 * prior
            found.append(np.linalg.solve(both, design @ (weight * asked) + noise**2 * prior @ likely))
            left.append(weight @ np.square(asked - found[-1] @ design) / weight.sum())
        light, dims, *line = np.array(found).T
        size = (np.abs(light).mean() / bright + np.abs(dims).mean()) / 2
        light, dims, noise = light / size, np.maximum(dims / size, 0), np.sqrt(left) + LEAST_NOISE * bright
        haze = replace(haze, light=light, dims=dims, noise=noise, **dict(zip(("gain", "offset"), line, strict=False)))
        moved = (haze.light - before.light) / bright, haze.dims - before.dims, haze.gain - before.gain
        if turn > TURNS_SCALE and np.abs(moved).max() < SETTLED_HAZE:
            break
    return haze


def left_out(u: FloatArray, weight: FloatArray, inside: BoolArray, haze: Haze) -> float:
    """Squares by which LR pixels (n,) differ from what all others make of them at the haze's scale."""
    return float(weight @ np.square(u - smoothed(haze, u, weight, inside)) / (1 - own_share(haze)) ** 2)


def own_share(haze: Haze) -> float:
    """How much of an LR pixel is itself, smoothed."""
    alone = np.zeros((2 * REACH + 1,) * 2)
    alone[REACH, REACH] = 1
    return float(haze.smooth(alone, np.ones_like(alone))[REACH, REACH])


def smoothed(haze: Haze, u: FloatArray, weight: FloatArray, inside: BoolArray) -> FloatArray:
    """Values (n,) at the places `inside` (b, h, w) as smooth as haze is."""
    planes, weights = np.zeros((2, *inside.shape))
    planes[inside], weights[inside] = u, weight
    return np.stack([haze.smooth(*block) for block in zip(planes, weights, strict=True)])[inside]


def _each(values: FloatArray, like: NDArray) -> NDArray:
    """Values of bands (c,) to go with (c, ...)."""
    return values.reshape(-1, *[1] * (like.ndim - 1))


def without_lines(pixels: LowPixels) -> FloatArray:
    """What a gain and an offset of R x leave of the degraded MSI in each band, (c, n)."""
    rest = []
    for x, y in zip(pixels.lrhsi, pixels.msi, strict=True):
        design = np.stack([x, np.ones_like(x)], 1)
        rest.append(y - design @ np.linalg.lstsq(design, y, rcond=None)[0])
    return np.stack(rest)


def _weight(known: BoolArray, inside: BoolArray) -> FloatArray:
    return np.maximum(gaussian_sum(known[None], inside, HAZE_LR), LEAST_WEIGHT)


def match_lines(seen: FloatArray, msi: FloatArray) -> RadiometricMatch:
    """The same from pixels in raster order: R x `seen` (c, n) and degraded MSI (c, n).

    Both images have errors, so the line is the reduced major axis (least squares of misfits over the root of the gain),
    with Cauchy's loss against outliers such as clouds; matching the other way round gives the inverse. Standard
    deviations by jackknife over strips of the scene, because neighbouring pixels err alike.
    """
    if (msi.std(1) < 1e-9).all() or (seen.std(1) < 1e-9).all():
        raise InputError("every band of one image is constant over the common area: radiometry can't be matched")
    lines = [_line(x, y) for x, y in zip(seen, msi, strict=True)]
    spreads = [_spread(x, y, line) for x, y, line in zip(seen, msi, lines, strict=True)]
    gain, offset = np.array(lines).T
    gain_sd, offset_sd = np.array(spreads).T
    return RadiometricMatch(gain, gain_sd, offset, offset_sd, correlations(seen, msi), seen.mean(1))


def _line(x: FloatArray, y: FloatArray, start: FloatArray | None = None) -> tuple[float, float]:
    """Gain and offset of y against x; 1 and the difference of medians where they don't rise together.

    `start` (log gain, offset) is a line nearby, where one is known.
    """
    if correlations(x[None], y[None])[0] <= 0:
        return 1.0, float(np.median(y - x))
    if start is None:
        gain = _deviation(y) / _deviation(x)
        start = np.array([np.log(gain), np.median(y) - gain * np.median(x)])
    line = start
    for _ in range(PASSES):
        noise = _deviation(_symmetric_misfit(line, x, y)) + LEAST_NOISE * np.sqrt(x.std() * y.std())
        line = _nearest(line, x, y, CAUCHY * noise)
    return float(np.exp(line[0])), float(line[1])


def _nearest(line: FloatArray, x: FloatArray, y: FloatArray, width: float) -> FloatArray:
    """The line (log gain, offset) of least Cauchy loss of that width: Gauss-Newton, pixels weighted by their misfit."""
    for _ in range(STEPS):
        misfit = _symmetric_misfit(line, x, y)
        root = np.exp(line[0] / 2)
        weights = 1 / (1 + np.square(misfit / width))
        by_gain, by_offset = -root * x - misfit / 2, -1 / root
        weights /= weights.sum()
        mean, mean_by_gain = weights @ misfit, weights @ by_gain  # the offset is eliminated first
        alone = by_gain - mean_by_gain
        gain_step = (weights * (misfit - mean)) @ alone / max(weights @ np.square(alone), 1e-300)
        step = np.array([gain_step, (mean - mean_by_gain * gain_step) / by_offset])
        line = line - step
        if abs(step[0]) < SETTLED and abs(step[1]) < SETTLED * y.std():
            break
    return line


def _symmetric_misfit(line: FloatArray, x: FloatArray, y: FloatArray) -> FloatArray:
    """(y - gain x - offset) / sqrt(gain), the same but for its sign when x and y change places."""
    gain = np.exp(line[0])
    return (y - gain * x - line[1]) / np.sqrt(gain)


def _deviation(x: FloatArray) -> float:
    """Standard deviation by the median, which half of the pixels can't move."""
    return float(np.median(np.abs(x - np.median(x)))) / 0.6745 + LEAST_NOISE * float(x.std())


def _spread(x: FloatArray, y: FloatArray, line: tuple[float, float]) -> tuple[float, float]:
    """Standard deviations of the gain and offset of a line: jackknife over strips (Efron, Stein 1981)."""
    strips = np.array_split(np.arange(x.size), STRIPS)
    start = np.array([np.log(line[0]), line[1]])
    lines = np.array([_line(np.delete(x, strip), np.delete(y, strip), start) for strip in strips])
    gain, offset = np.sqrt((STRIPS - 1) * lines.var(0))
    return float(gain), float(offset)

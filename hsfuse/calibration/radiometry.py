"""Gain and offset between the two sensors: one line per MSI band through LR pixels, little moved by outliers.

Contrast at the LRHSI's own resolution depends on its PSF: were that assumed blunter than it is, every gain would come
out too small. Lines are therefore drawn through both images blurred alike, and what a PSF of another width would still
change, to first order a multiple of the LRHSI's own Laplacian, is fitted along and taken out of the MSI.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
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
    near = _soft(calm[None], inside, BLUR_LR)[0] > LEAST_WEIGHT
    blurs = (pixels.lrhsi, BLUR_LR), (pixels.lrhsi, hypot(BLUR_LR, FURTHER_LR)), (pixels.msi, BLUR_LR)
    seen, further, other = (_blurred(values, calm, inside, blur)[:, near] for values, blur in blurs)
    other = np.stack([_of_one_width(*rows) for rows in zip(seen, further, other, strict=True)])
    return replace(match_lines(seen, other), correlation=correlations(pixels.lrhsi[:, calm], pixels.msi[:, calm]))


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
    return _soft(values * calm, inside, blur) / np.maximum(_soft(calm[None], inside, blur), 1e-9)


def _soft(values: FloatArray | BoolArray, inside: BoolArray, blur: float) -> FloatArray:
    planes = np.zeros((len(values), *inside.shape))
    planes[:, inside] = values
    soft: FloatArray = gaussian_filter(planes, (0, 0, blur, blur), mode="constant", truncate=3)[:, inside]
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
    """Smooth light that one of two images alone has: the MSI is R x and an `excess` that is smooth, its detail that of
    R x times `gain` - `dims` * excess, (c,) each; what lies above the ground dims it.

    `share` of what gain and offset leave between the images is smooth, and its RMS is `size`.
    """

    gain: FloatArray
    dims: FloatArray
    share: float
    size: float

    def __bool__(self) -> bool:
        """Whether most is smooth."""
        return self.share > SMOOTH

    def taken_out(self, msi: NDArray, excess: NDArray, level: NDArray) -> NDArray:
        """MSI (c, H, W) without it, by the smooth excess and level of R x, (c, H, W) each, same dtype."""
        gain, dims = (value.astype(msi.dtype)[:, None, None] for value in (self.gain, self.dims))
        return np.asarray((msi - excess - level) / np.clip(gain - dims * excess, *GAINS) + level)


def estimate_haze(lrhsi: Tensor, msi: Tensor, mask: Tensor, model: ObservationModel) -> Haze:
    """Images, model and InputError as for `match_radiometry`.

    Every other LR pixel, as on a chessboard, is foretold by those around it: noise and detail aren't, thin cloud and
    haze are. How detail goes with the LRHSI's is asked of other bands' detail (instrumental variables, Reiersol 1945).
    """
    through = torch.einsum("kc,bchw->bkhw", model.srf.double().cpu(), lrhsi.double().cpu())
    pixels, inside = low_pixels(through, msi, mask, model), inner_mask(mask.cpu().numpy(), model)
    rows, cols = np.ogrid[: inside.shape[1], : inside.shape[2]]
    white = np.broadcast_to((rows + cols) % 2 == 0, inside.shape)[inside]
    rest = np.stack([_without_line(x, y) for x, y in zip(pixels.lrhsi, pixels.msi, strict=True)])
    foretold = np.zeros_like(rest)
    for known in (white, ~white):
        foretold[:, ~known] = (_soft(rest * known, inside, HAZE_LR) / _weight(known, inside))[:, ~known]
    share = 1 - np.square(rest - foretold).sum(1) / np.maximum(np.square(rest).sum(1), 1e-30)
    weight = _weight(np.ones_like(white), inside)
    over = pixels.msi - pixels.lrhsi
    level, excess = (_soft(image, inside, HAZE_LR) / weight for image in (pixels.lrhsi, over))
    detail = pixels.lrhsi - level
    gain, dims = np.ones(len(rest)), np.zeros(len(rest))
    for k in range(len(rest)):
        others = np.delete(detail, k, 0) if len(detail) > 1 else detail  # which have no noise of the band's own
        known = np.linalg.lstsq(others.T, detail[k], rcond=None)[0] @ others
        design, asked = np.stack([detail[k], -excess[k] * detail[k]]), np.stack([known, excess[k] * known])
        found = np.linalg.lstsq(asked @ design.T, asked @ (over[k] - excess[k]), rcond=None)[0]
        gain[k], dims[k] = 1 + found[0], max(found[1], 0.0)
    return Haze(gain, dims, float(np.median(share)), float(np.median(foretold.std(1))))


def _without_line(x: FloatArray, y: FloatArray) -> FloatArray:
    """What a gain and an offset of x (n,) leave of y (n,)."""
    design = np.stack([x, np.ones_like(x)], 1)
    rest: FloatArray = y - design @ np.linalg.lstsq(design, y, rcond=None)[0]
    return rest


def _weight(known: BoolArray, inside: BoolArray) -> FloatArray:
    return np.maximum(_soft(known[None], inside, HAZE_LR), LEAST_WEIGHT)


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

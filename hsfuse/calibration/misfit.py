"""What a pair's two images leave of each other under their model, and which part of the model it is that doesn't fit.

The LRHSI seen by the MSI's response, R X, and the MSI blurred and decimated by the PSF are one image but for noise
where the model is right, whatever is fused from them: no cube can agree with both images where these two don't agree.
What they leave is regressed on what another PSF, place, response or tone of the MSI would change of it, to first order;
what then is left stands for the images' own noise. A wrong model is wrong alike all over the scene: a part of it is to
blame as far as what one half of the windows tells of it explains the other half. Where none does, the two images show
different things in places, such as clouds, shadows or another date.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from math import ceil

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import binary_erosion, center_of_mass, convolve, gaussian_filter, gaussian_filter1d, label
from scipy.optimize import nnls
from torch import Tensor

from hsfuse.calibration.radiometry import (
    CAUCHY,
    LEAST_NOISE,
    LEAST_WEIGHT,
    THICKEST,
    BoolArray,
    Haze,
    RadiometricMatch,
    gaussian_sum,
    left_out,
    own_share,
    seen_by_both,
    smoothed,
    without_lines,
)
from hsfuse.calibration.spectra import (
    LEAST_PIXELS,
    FloatArray,
    LowPixels,
    SharedPixels,
    band_noise,
    inner_mask,
    low_pixels,
    varies,
)
from hsfuse.core.errors import InputError
from hsfuse.physics.model import ObservationModel
from hsfuse.physics.solve import principal_axes, solve_spd

#: A model doesn't fit where half of the bands' misfits are so many times what is left at best, twice as many where the
#: LRHSI was resampled, which moves aliased detail wrongly, and by so much of the detail's contrast.
LOUD, LOUD_RESAMPLED, OF_CONTRAST = 1.6, 2.2, 0.08
#: Blurs (LR pixels) whose effect stands for other PSFs.
BLURS = 0.5, 1.0
#: Deviations from a band's mean beyond which its tone isn't asked for.
TONES = 4.0
#: Share of the misfit beyond noise that a part of the model must explain to be what doesn't fit.
ALIKE = 0.8
PARTS = ("PSF", "place", "response", "radiometry")
#: What a pixel is beside its four neighbours, and that beside its neighbours': planes and curved fields leave nothing.
BESIDE = np.array([[0, -1, 0], [-1, 4, -1], [0, -1, 0]]) / 4
FINE = convolve(np.pad(BESIDE, 1), BESIDE, mode="constant")
#: Gaussian (LR pixels) over which two images' detail is compared.
NEAR_LR = 1.5
#: It is other ground's where it correlates less, and each image has so many times as much of its own as in the quietest
#: quarter of the scene, where that is noise. Under thin cloud and haze that was .4 % at most of six scenes, and
#: 9 % or more where other ground was put into a fifth or more of four.
OF_OTHER, OTHERS_TIMES, QUIET = 0.7, 1.5, 0.25
#: Of changed ground, Gaussians (LR pixels): under which pixels count as one, and around which detail is looked at.
TOGETHER_LR, AROUND_LR = 0.7, 1.0
#: It is far that is so many times what half of the pixels leave, and so much of the bands' contrast.
FAR, FAR_CONTRAST = 5.0, 0.1
#: Fewest LR pixels side by side, and the least share of a block: glints and single objects that move are smaller.
LEAST, LEAST_SHARE = 4, 0.01
#: Which LR pixels of a block lie side by side.
SIDES = np.array([np.zeros((3, 3)), [[0, 1, 0], [1, 1, 1], [0, 1, 0]], np.zeros((3, 3))])
#: Turns of each fit; what keeps bands that hardly differ solvable.
TURNS, RIDGE = 5, 1e-3


@dataclass(frozen=True, eq=False)
class Misfit:
    """RMS misfit (c,) of the MSI's bands on LR pixels; `left` (c,) of it with every part of the model free.

    `without` (4, c) is what is left of either half of the windows by one of the `PARTS` fitted to the other half;
    `contrast` (c,) that of R X in windows of the scene, `windows` (w, c) their misfits.
    """

    rms: FloatArray
    left: FloatArray
    without: FloatArray
    contrast: FloatArray
    windows: FloatArray

    @property
    def times(self) -> float:
        """How many times the noise the misfit is, in the median of the bands."""
        return float(np.median(self.rms / self.left))

    @property
    def share(self) -> float:
        """What the model can't explain, as a share of the detail's contrast, in the median of the bands."""
        return float(np.median(np.sqrt(np.maximum(self.rms**2 - self.left**2, 0)) / self.contrast))

    @property
    def part(self) -> str:
        """The part of the model that explains most of it."""
        return PARTS[int(np.median(self.rms / self.without, axis=1).argmax())]

    def explained(self, part: str) -> FloatArray:
        """How much of what is beyond noise one part explains by itself, from 0 to 1: (c,)."""
        return self._share(self.without[PARTS.index(part)])

    @property
    def alike(self) -> bool:
        """Whether one part of the model explains most of it alike over the scene."""
        return bool(np.median(self.explained(self.part)) > ALIKE)

    @property
    def where(self) -> float:
        """In which share of the windows it is clearly more than noise."""
        return float((np.median(self.windows / self.left, axis=1) > LOUD).mean())

    def explained_by(self, msi: FloatArray, pixels: SharedPixels, matrix: FloatArray) -> FloatArray:
        """How much of it a changed MSI explains, degraded (c, n), under R `matrix` (c, C): (c,)."""
        seen = zip(matrix @ pixels.lrhsi, msi, strict=True)
        return self._share(np.array([_left(pixels, image, [own]) for image, own in seen]))

    def _share(self, left: FloatArray) -> FloatArray:
        beyond = np.maximum(self.rms**2 - self.left**2, 1e-12 * self.contrast**2)
        return np.clip((self.rms**2 - left**2) / beyond, 0, 1)

    def is_loud(self, resampled: bool) -> bool:
        """Whether the misfit is clearly larger than noise."""
        return self.times > (LOUD_RESAMPLED if resampled else LOUD) and self.share > OF_CONTRAST


def misfit(pixels: SharedPixels, matrix: FloatArray) -> Misfit:
    """Of a pair's shared pixels under R `matrix` (c, C)."""
    parts = [list(columns) for columns in (_blurs(pixels), _moves(pixels), _spectra(pixels), _tones(pixels))]
    rows, squares = [], []
    for k, weights in enumerate(matrix):
        seen, own = weights @ pixels.lrhsi, pixels.msi[k]
        free = [[own, *(column[k] for column in part)] for part in parts]
        every = [own, *(column for part in free for column in part[1:])]
        held_out = [_held_out(pixels, seen, columns) for columns in free]
        rows.append([_left(pixels, seen, [own]), _left(pixels, seen, every), *held_out, seen.std()])
        squares.append(np.bincount(pixels.window, _rest(seen, np.stack([own])) ** 2))
    found = np.array(rows).T + 1e-12
    windows = np.sqrt(np.array(squares).T / np.bincount(pixels.window)[:, None])
    return Misfit(found[0], found[1], found[2:6], found[6], windows)


def _left(pixels: SharedPixels, image: FloatArray, columns: list[FloatArray]) -> float:
    """RMS of what columns (m, n) leave of an image (n,), by the degrees of freedom."""
    rest = _rest(image, np.stack(columns))
    return float(np.sqrt((rest**2).sum() / max(pixels.degrees - len(columns), 1)))


def _held_out(pixels: SharedPixels, image: FloatArray, columns: list[FloatArray]) -> float:
    """RMS of what columns (m, n) leave of either half of the windows when fitted to the other one."""
    design, late = np.stack(columns), pixels.window * 2 > pixels.window.max()
    rest = [_rest(image, design, fitted)[~fitted] for fitted in (late, ~late)]
    return float(np.sqrt(sum((half**2).sum() for half in rest) / pixels.degrees))


def _rest(image: FloatArray, design: FloatArray, fitted: NDArray[np.bool_] | slice = slice(None)) -> FloatArray:
    """What a design (m, n) leaves of an image (n,), both fitted on some pixels."""
    return image - np.linalg.lstsq(design[:, fitted].T, image[fitted], rcond=None)[0] @ design


def _blurs(pixels: SharedPixels) -> Iterator[FloatArray]:
    """What more blur along rows, columns and both changes."""
    for axes, blur in (((2,), BLURS[0]), ((3,), BLURS[0]), ((2, 3), BLURS[0]), ((2, 3), BLURS[1])):
        yield pixels.of_msi(partial(_blurring, sigma=blur * pixels.ratio, axes=axes))


def _blurring(image: Tensor, sigma: float, axes: tuple[int, ...]) -> Tensor:
    out = image.cpu().numpy()
    for axis in axes:
        out = gaussian_filter1d(out, sigma, axis, mode="nearest")
    return torch.from_numpy(out) - image.cpu()


def _moves(pixels: SharedPixels) -> Iterator[FloatArray]:
    """What a shift along rows and columns changes, the same everywhere or growing over the scene."""
    for axis in (2, 3):
        slope = pixels.of_msi(partial(_slope, axis=axis))
        yield slope
        yield from (slope * where for where in pixels.place)


def _slope(image: Tensor, axis: int) -> Tensor:
    return torch.gradient(image, dim=axis)[0]


def _spectra(pixels: SharedPixels) -> Iterator[FloatArray]:
    """What the spectra around have in common with the pixel's own: another response weighs them otherwise."""
    for one in pixels.directions:
        yield np.broadcast_to(one, pixels.msi.shape)


def _tones(pixels: SharedPixels) -> Iterator[FloatArray]:
    """What a curved tone changes: squares and cubes of the MSI."""
    for power in (2, 3):
        yield pixels.of_msi(partial(_power, power=power))


def _power(msi: Tensor, power: int) -> Tensor:
    mean, spread = msi.mean((0, 2, 3), keepdim=True), msi.std((0, 2, 3), keepdim=True) + 1e-12
    return ((msi - mean) / spread).clamp(-TONES, TONES) ** power


@dataclass(frozen=True)
class OtherGround:
    """The share `where` of the LR pixels at which detail is other ground's; in the median of these, how many `times`
    their noise the images differ, and by which `share` of the detail's contrast."""

    where: float
    times: float = 1.0
    share: float = 0.0


def other_ground(lrhsi: Tensor, msi: Tensor, mask: Tensor, model: ObservationModel) -> OtherGround:
    """Of blocks: LRHSI (n, C, h, w), MSI (n, c, H, W), mask (n, h, w); none where too few pixels have neighbours.

    Thin cloud and haze are smooth and dim what lies below: whatever they add, LR pixels differ from their neighbours as
    the ground does, in both images alike but for a factor. Where the ground has changed either has other detail.
    Light may have detail of its own in the image that has it, which stands out over water: both images must have some
    that the other hasn't.
    """
    known = np.stack([binary_erosion(one, FINE != 0) for one in inner_mask(mask.cpu().numpy(), model)])
    if known.sum() < LEAST_PIXELS:
        return OtherGround(0.0)
    both = model.spectral(lrhsi.double()), model.spatial(msi.double())
    seen, own = (image.cpu().transpose(0, 1).numpy() for image in both)
    x, y = (convolve(image, FINE[None, None]) for image in (seen, own))
    xx, yy, xy = (_near(a * b, known) + 1e-30 for a, b in ((x, x), (y, y), (x, y)))
    alike = np.clip(xy / np.sqrt(xx * yy), -1, 1)
    left = np.sqrt(1 - np.square(alike))
    loud = np.min([np.median(_loud(np.sqrt(one) * left), axis=0) for one in (xx, yy)], axis=0)
    other = (np.median(alike, axis=0) < OF_OTHER) & (loud > OTHERS_TIMES)
    if not other.any():
        return OtherGround(0.0)
    return OtherGround(float(other.mean()), float(np.median(loud[other])), float(np.median(left[:, other])))


def _near(values: FloatArray, known: NDArray[np.bool_]) -> FloatArray:
    """Means (c, n) around each of the pixels `known` (b, h, w) of values (c, b, h, w)."""
    near, weight = (
        gaussian_filter(one, NEAR_LR, mode="constant", axes=(-2, -1)) for one in (values * known, 1.0 * known)
    )
    found: FloatArray = (near / np.maximum(weight, 1e-9))[:, known]
    return found


def _loud(left: FloatArray) -> FloatArray:
    """How many times the noise (c, n) is."""
    times: FloatArray = left / np.maximum(np.quantile(left, QUIET, axis=1, keepdims=True), 1e-30)
    return times


#: Gaussians (LR pixels) that a shade may have, and turns of its fit; the share that it must foretell of what gain and
#: offset leave of the bands at their median, and how much worse than nothing it may foretell one; and by how much most
#: of the scene may be brighter or darker: what is beyond that is shadow or cloud.
SHADE_SCALES, SHADE_TURNS, SHADED, WORSE, MOST_SHADE = (1.4, 2.0), 6, 0.35, 0.05, 0.25
#: Least RMS of a shade: less makes no difference, and images without noise have rounding that looks like one.
LEAST_SHADE = 1e-3
#: Directions of the spectra that tell an MSI band of unknown response, beside surroundings as wide as this Gaussian,
#: and turns of that fit.
DIRECTIONS, BESIDE_LR, FREE_TURNS = 12, 1.5, 16
#: Gaussian (LR pixels) under which two pixels' light is compared, and deviations up to which it is alike.
LITTLE_LR, SAME_LIGHT = 0.7, 3.0


def estimate_shade(lrhsi: Tensor, msi: Tensor, mask: Tensor, model: ObservationModel) -> Haze | None:
    """A smooth factor by which the MSI is darker than gain and offset make the LRHSI, of all bands; None without one.

    Sun, view and a mosaic's seams make one. Each LR pixel is foretold by those around it, in each band; images, model
    and InputError as for `match_radiometry`.
    """
    pixels, inside = seen_by_both(lrhsi, msi, mask, model)

    def told(shades: FloatArray, weight: FloatArray) -> _Told:
        bands = zip(pixels.lrhsi, pixels.msi, shades, strict=True)
        gain, offset, left = np.transpose([_shaded(*band, weight) for band in bands])
        return pixels.lrhsi, gain, offset, left

    found = _in_turns(pixels, inside, told, without_lines(pixels))
    return None if found is None else found[0]


def without_light(lrhsi: Tensor, msi: Tensor, mask: Tensor, model: ObservationModel) -> Tensor | None:
    """The MSI without a smooth factor of it, whatever its response and place are; None where there is none.

    So that it doesn't mislead what the pair tells of its sensors. What the MSI has without it is told by the spectra's
    leading directions and by what a small move would change, as far as both vary beside their surroundings:
    what is smooth may be light. Images as for `match_radiometry`; of `model` only the PSF is used. None for a sample of
    several blocks, too: how much brighter one is than another can't be told from its ground.
    """
    if len(lrhsi) > 1:
        return None
    try:
        pixels = low_pixels(lrhsi, msi, mask, model)
    except InputError:
        return None
    if not varies(pixels.lrhsi):
        return None
    inside = inner_mask(mask.cpu().numpy(), model)
    centred = pixels.lrhsi - pixels.lrhsi.mean(1, keepdims=True)
    noise = band_noise(centred)[:, None]
    moment = torch.from_numpy((centred / noise) @ (centred / noise).T)
    axes = principal_axes(moment)[1][:, :DIRECTIONS].numpy()
    scores, slopes = axes.T @ (centred / noise), _slopes(model.spatial(msi.double()).cpu().numpy(), inside)
    near = np.maximum(gaussian_sum(np.ones((1, inside.sum()), bool), inside, BESIDE_LR), 1e-9)

    def beside(values: FloatArray) -> FloatArray:
        return np.asarray(values - gaussian_sum(values, inside, BESIDE_LR) / near)

    designs = [beside(np.concatenate([scores, slope])) for slope in slopes]

    def told(shades: FloatArray, weight: FloatArray) -> _Told:
        through, left = np.empty_like(pixels.msi), np.empty(len(pixels.msi))
        for k, (even, design) in enumerate(zip(pixels.msi / (1 - shades), designs, strict=True)):
            asked = beside(even[None])[0]
            by, *_ = np.linalg.lstsq((design * weight) @ design.T, design @ (weight * asked), rcond=None)
            through[k] = by @ np.concatenate([scores, slopes[k]])
            through[k] += weight @ (even - through[k]) / weight.sum()
            left[k] = np.sqrt(weight @ np.square(asked - by @ design) / weight.sum())
        return through, np.ones(len(left)), np.zeros(len(left)), left

    rest = np.stack([_without(y, np.concatenate([scores, one])) for y, one in zip(pixels.msi, slopes, strict=True)])
    found = _in_turns(pixels, inside, told, rest, FREE_TURNS)
    if found is None:
        return None
    shade, seen, weight = found
    planes = np.zeros((2, *inside.shape))
    planes[:, inside] = seen, weight
    field = np.stack([_with_edges(shade, *block) for block in zip(planes[0], planes[1], strict=True)])
    fine = model.upsample(torch.from_numpy(field[:, None]).to(msi))
    dims = torch.from_numpy(shade.dims).to(msi)[:, None, None]
    return msi / (1 - dims * fine)


def _with_edges(shade: Haze, seen: FloatArray, weight: FloatArray) -> FloatArray:
    """A shade (h, w) as it is seen at LR pixels with their weights, smooth but for seams (bilateral: Tomasi 1998).

    A pixel's mean is of those around that differ from it by no more than their noise, both smoothed a little.
    """
    smooth = shade.smooth(seen, weight)
    little, known = (gaussian_filter(one, LITTLE_LR, mode="constant") for one in (seen * weight, weight))
    near = np.where(known > LEAST_WEIGHT, little / np.maximum(known, LEAST_WEIGHT), smooth)
    rest = (near - smooth)[weight > 0]
    apart = SAME_LIGHT * (np.median(np.abs(rest - np.median(rest))) / 0.6745 + 1e-9)
    total, of = np.zeros((2, *seen.shape))
    reach = ceil(2 * shade.scale)
    padded = [np.pad(one, reach) for one in (seen * weight, weight, near)]
    for down, right in np.ndindex(2 * reach + 1, 2 * reach + 1):
        value, share, other = (one[down : down + len(seen), right : right + seen.shape[1]] for one in padded)
        far = np.hypot(down - reach, right - reach) / shade.scale
        alike = np.exp(-(far**2) / 2) / (1 + np.square((other - near) / apart)) ** 2
        total, of = total + alike * value, of + alike * share
    return np.where(of > LEAST_WEIGHT, total / np.maximum(of, LEAST_WEIGHT), smooth)


#: R x, gain and offset, and what these leave of each band.
_Told = tuple[FloatArray, FloatArray, FloatArray, FloatArray]


def _in_turns(
    pixels: LowPixels,
    inside: BoolArray,
    told: Callable[[FloatArray, FloatArray], _Told],
    plain: FloatArray,
    turns: int = SHADE_TURNS,
) -> tuple[Haze, FloatArray, FloatArray] | None:
    """A shade, what of it is seen at each LR pixel, and the weight in that; None where it isn't worth more than none.

    `told` says by shades (c, n) and weights (n,) what lies below; `plain` (c, n) is left without a shade.
    """
    ones, least = np.ones(len(pixels.msi)), LEAST_NOISE * float(np.abs(pixels.lrhsi).max())
    shade = Haze(0 * ones, ones, ones, 0 * ones, ones, SHADE_SCALES[0], 0.0, 0.0)
    u, weight = np.zeros(pixels.msi.shape[1]), np.ones(pixels.msi.shape[1])
    for turn in range(turns):
        through, gain, offset, left = told(np.outer(shade.dims, u), weight)
        shade = replace(shade, gain=gain, offset=offset, noise=left + least)
        if turn:
            shade = replace(shade, dims=_dimmed(shade.below(through), pixels.msi, u, weight))
        seen, weight = shade.seen(through, pixels.msi)
        if turn % 2 == 0:
            scales = (replace(shade, scale=scale) for scale in SHADE_SCALES)
            shade = min(scales, key=partial(left_out, seen, weight, inside))
        u = smoothed(shade, seen, weight, inside)
        u -= weight @ u / weight.sum()
    foretold = seen - (seen - smoothed(shade, seen, weight, inside)) / (1 - own_share(shade))
    rest = pixels.msi - shade.below(through) * (1 - np.outer(shade.dims, foretold))
    share = 1 - np.square(rest).mean(1) / (np.square(plain).mean(1) + least**2)
    size, most = float(u.std()), np.quantile(np.abs(u), 1 - THICKEST)
    if np.median(share) < SHADED or share.min() < -WORSE or most > MOST_SHADE or size < LEAST_SHADE:
        return None
    return replace(shade, share=float(np.median(share)), size=size), seen, weight


def _slopes(low: FloatArray, inside: BoolArray) -> FloatArray:
    """What a move down and right slopes of a degraded image (b, c, h, w), at the places `inside`: (c, 2, n)."""
    slopes = np.stack([np.gradient(low, axis=axis) for axis in (2, 3)])
    return np.asarray(slopes.transpose(2, 0, 1, 3, 4)[:, :, inside])


def _without(y: FloatArray, design: FloatArray) -> FloatArray:
    """What a design (k, n) and a constant leave of y (n,)."""
    design = np.concatenate([design, np.ones((1, y.size))])
    found: FloatArray = y - np.linalg.lstsq(design.T, y, rcond=None)[0] @ design
    return found


def _shaded(x: FloatArray, y: FloatArray, shade: FloatArray, weight: FloatArray) -> tuple[float, float, float]:
    """Gain, offset and what they leave of y (n,), as (gain x + offset) (1 - shade)."""
    design = np.stack([x, np.ones_like(x)]) * (1 - shade)
    (gain, offset), *_ = np.linalg.lstsq((design * weight) @ design.T, design @ (weight * y), rcond=None)
    return gain, offset, float(np.sqrt(weight @ np.square(y - gain * design[0] - offset * design[1]) / weight.sum()))


def _dimmed(below: FloatArray, msi: FloatArray, u: FloatArray, weight: FloatArray) -> FloatArray:
    """By how much each band (c, n) is darker than `below` where u (n,) is 1, relative to their mean (c,)."""
    dims = np.maximum((u * below * (below - msi)) @ weight / np.maximum(np.square(u * below) @ weight, 1e-30), 0)
    return np.asarray(dims / dims.mean() if dims.any() else np.ones_like(dims))


def changed_ground(
    lrhsi: Tensor, msi: Tensor, mask: Tensor, model: ObservationModel, line: RadiometricMatch, far: float = FAR
) -> FloatArray:
    """By how much of the bands' contrast LR pixels (n, h, w) that show other ground differ, 0 elsewhere.

    What gain and offset leave is noise and, where ground has detail, what a PSF and a place that aren't quite right
    make of it: either is taken as large as most of the scene has it. Other ground is where several LR pixels side by
    side leave `far` times more; those that see it in part are among them. Images and InputError as
    for `match_radiometry`, whose `line` lies between them.
    """
    pixels = low_pixels(model.spectral(lrhsi.double()).cpu(), msi, mask, model)
    inside = inner_mask(mask.cpu().numpy(), model)
    seen, own = line.gain[:, None] * pixels.lrhsi + line.offset[:, None], pixels.msi
    rest, contrast = own - seen, np.minimum(seen.std(1), own.std(1)) + 1e-12
    usual = np.stack([_usual(*band, inside) for band in zip(rest, seen, own, strict=True)])
    in_units = _mean(rest / (usual + 1e-9 * contrast[:, None]), inside, TOGETHER_LR)
    differ = np.zeros(inside.shape)
    differ[inside] = np.sqrt(np.square(_mean(rest / contrast[:, None], inside, TOGETHER_LR)).mean(0))
    other = differ > FAR_CONTRAST
    other[inside] &= _distance(in_units) > far
    areas = label(other, SIDES)[0]
    least = max(LEAST, LEAST_SHARE * inside.sum() / len(inside))
    return np.asarray(differ * ((areas > 0) & (np.bincount(areas.ravel()) >= least)[areas]))


def _usual(rest: FloatArray, seen: FloatArray, own: FloatArray, inside: BoolArray) -> FloatArray:
    """What most of the pixels (n,) leave where the ground around has as much detail as here, in both images."""
    mean, squares = (_mean(np.stack([seen, own]) ** power, inside, AROUND_LR) for power in (1, 2))
    detail = np.sqrt(np.maximum(squares - mean**2, 0).sum(0))
    design, size, weight = np.stack([np.full_like(detail, detail.mean()), detail]), np.abs(rest), np.ones_like(rest)
    for _ in range(TURNS):
        root = np.sqrt(weight)
        found = nnls((design * root).T, size * root)[0] @ design + 1e-9 * size.mean() + 1e-30
        weight = 1 / (np.square(found) + np.square(size / CAUCHY))
    return np.asarray(found)


def _distance(values: FloatArray) -> FloatArray:
    """How far from 0 pixels' values (c, n) are, by how those of most go together over the bands; their median is 1."""
    weight = np.ones(values.shape[1])
    for _ in range(TURNS):
        spread = torch.from_numpy((values * weight) @ values.T)
        far = np.sqrt((values * solve_spd(spread, torch.from_numpy(values), RIDGE).numpy()).sum(0))
        far /= np.median(far) + 1e-30
        weight = 1 / (1 + np.square(far / CAUCHY))
    return np.asarray(far)


def _mean(values: FloatArray, inside: BoolArray, blur: float) -> FloatArray:
    """Pixels (c, n) at the places `inside` (b, h, w), each the mean of those around it under a Gaussian."""
    both = np.concatenate([values, np.ones((1, values.shape[1]))])
    soft = gaussian_sum(both, inside, blur, truncate=4.0)
    return np.asarray(soft[:-1] / soft[-1])


def largest_area(changed: BoolArray) -> tuple[int, float, float]:
    """Block, row and column of the middle of the largest area of LR pixels (n, h, w).

    >>> largest_area(np.array([[[True, True, False, True]]]))
    (0, 0.0, 0.5)
    """
    areas = label(changed, SIDES)[0]
    block, row, column = center_of_mass(areas == np.bincount(areas.ravel())[1:].argmax() + 1)
    return int(block), float(row), float(column)

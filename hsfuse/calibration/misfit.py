"""What a pair's two images leave of each other under their model, and which part of the model it is that doesn't fit.

The LRHSI seen by the MSI's response, R X, and the MSI blurred and decimated by the PSF are one image but for noise
where the model is right, whatever is fused from them: no cube can agree with both images where these two don't agree.
What they leave is regressed on what another PSF, place, response or tone of the MSI would change of it, to first order;
what then is left stands for the images' own noise. A wrong model is wrong alike all over the scene: a part of it is to
blame as far as what one half of the windows tells of it explains the other half. Where none does, the two images show
different things in places, such as clouds, shadows or another date.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import binary_erosion, convolve, gaussian_filter, gaussian_filter1d
from torch import Tensor

from hsfuse.calibration.spectra import LEAST_PIXELS, FloatArray, SharedPixels, inner_mask
from hsfuse.physics.model import ObservationModel

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

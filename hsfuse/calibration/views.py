"""What a PSF is judged by: the MSI around LR pixels, and R x LRHSI there, in windows of the scene."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import binary_erosion
from torch import Tensor

from hsfuse.calibration.kernels import ROUND
from hsfuse.calibration.spectra import LEAST_PIXELS, FloatArray
from hsfuse.core.errors import InputError

#: LR pixels on each side that a searched kernel reaches over: at most, and where the scene is small or the ratio large.
REACH, LEAST_REACH, LARGE_RATIO = 3, 2, 12
#: LR pixels of a window, and windows into which a scene is cut at most.
WINDOW_PIXELS, MOST_WINDOWS = 100, 48
#: LR pixels that are looked at, and their neighbourhoods' values (float32: 64 MB), at most.
MOST_PIXELS, MOST_VALUES = 2000, 2**24
#: MSI bands that the PSF is fitted on at most.
MOST_BANDS = 4
#: What is known of the shift between the images, in LR pixels, is made use of from here on.
FAR = 0.75


@dataclass(frozen=True)
class Views:
    """What a kernel of `size` taps is judged by: the MSI around m LR pixels, and the values `target` it should give.

    `around` (size^2, c m) holds the MSI's pixels under the taps, `target` (c, m) R x LRHSI, `window` (m,) the part of
    the scene each lies in. The taps' middle lies `offset` (y, x) HR pixels off the LR pixel's centre.
    """

    around: Tensor
    target: FloatArray
    window: NDArray[np.intp]
    ratio: int
    phase: float
    size: int
    offset: tuple[int, int] = (0, 0)

    @classmethod
    def of(
        cls,
        target: Tensor,
        msi: Tensor,
        mask: Tensor,
        ratio: int,
        phase: float,
        near: tuple[float, float] = (0.0, 0.0),
    ) -> tuple[Views, FloatArray]:
        """From R x LRHSI (n, c, h, w), the MSI (n, c, H, W) and mask (n, h, w), and the bands' correlations (c,).

        Of the MSI bands those are kept whose detail follows the LRHSI's best. `near` (y, x): where the LR pixels'
        centres are known to lie, HR pixels from where the grids say. InputError when too few pixels are left.
        """
        h, w = target.shape[2:]
        reach = REACH if min(h, w) >= 4 * REACH + 8 and ratio <= LARGE_RATIO else LEAST_REACH
        size = 2 * reach * ratio + round(2 * phase + 1) % 2
        far = max(abs(move) for move in near) > FAR * ratio
        offset = (round(near[0]), round(near[1])) if far else (0, 0)
        beyond = -(-max(abs(move) for move in offset) // ratio)
        inside = _inside(mask.numpy(), reach + beyond)
        if int(inside.sum()) < LEAST_PIXELS:
            raise InputError(
                f"{int(inside.sum())} LR pixels lie {reach + beyond} or more from borders and invalid pixels, "
                f"wanted at least {LEAST_PIXELS} to estimate a PSF from"
            )
        most = max(LEAST_PIXELS, min(MOST_PIXELS, MOST_VALUES // (size**2 * min(MOST_BANDS, target.shape[1]))))
        block, y, x, window = _chosen(inside, most)
        first = round(phase - (size - 1) / 2)
        down, right = np.divmod(np.arange(size**2), size)
        rows = y * ratio + first + offset[0] + down[:, None]
        cols = x * ratio + first + offset[1] + right[:, None]
        image, wanted = msi.float().numpy(), target.numpy()[block, :, y, x].T.astype(np.float64)

        def seen(band: int) -> Tensor:
            return torch.from_numpy(image[block, band, rows, cols])

        usual = torch.from_numpy(ROUND.kernel(np.log([0.5]), size, np.zeros(2), ratio).ravel()).float()
        views = cls(torch.zeros(0), wanted, window, ratio, phase, size, offset)
        low = np.stack([(usual @ seen(band)).double().numpy() for band in range(len(wanted))])
        found = correlations(views.detail(low), views.detail(wanted))
        bands = np.argsort(-found)[:MOST_BANDS]
        around = torch.cat([seen(int(band)) for band in bands], 1)
        return replace(views, around=around, target=wanted[bands]), found[bands]

    def detail(self, values: FloatArray) -> FloatArray:
        """Values (c, m) less their window's mean."""
        count = np.bincount(self.window)
        return np.stack([row - (np.bincount(self.window, row) / count)[self.window] for row in values])

    def seen(self, kernels: FloatArray) -> FloatArray:
        """The MSI through kernels (k, size, size): (k, c, m)."""
        flat = torch.from_numpy(kernels.reshape(len(kernels), -1)).float()
        low: FloatArray = (flat @ self.around).double().numpy()
        return low.reshape(len(kernels), *self.target.shape)

    def radiometry(self, seen: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Gain and offset (c, 1) of seen = gain target + offset, target regressed on it."""
        a, t = seen - seen.mean(-1, keepdims=True), self.target - self.target.mean(-1, keepdims=True)
        slope = (a * t).sum(-1, keepdims=True) / np.maximum((a * a).sum(-1, keepdims=True), 1e-30)
        slope = np.where(np.abs(slope) < 1e-6, 1e-6, slope)
        return 1 / slope, seen.mean(-1, keepdims=True) - self.target.mean(-1, keepdims=True) / slope


def _inside(mask: NDArray[np.bool_], reach: int) -> NDArray[np.bool_]:
    """Pixels (n, h, w) with nothing but valid ones within `reach`, borders included."""
    return np.stack([binary_erosion(one, np.ones((2 * reach + 1,) * 2)) for one in mask])


def _chosen(
    inside: NDArray[np.bool_], most: int
) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.intp], NDArray[np.intp]]:
    """Block, row, column and window (m,) of about `most` pixels, in whole windows spread over the scene, sorted."""
    n, h, w = inside.shape
    total = int(inside.sum())
    side = np.sqrt(max(min(WINDOW_PIXELS, total / 4), total / MOST_WINDOWS))
    down, right = max(1, round(h / side)), max(1, round(w / side))
    rows, cols = np.arange(h) * down // h, np.arange(w) * right // w
    place = (np.arange(n)[:, None, None] * down + rows[:, None]) * right + cols
    kept = np.unique(place[inside])
    count = max(4, most * len(kept) // total)
    if len(kept) > count:
        kept = kept[np.linspace(0, len(kept) - 1, count).round().astype(int)]
    block, y, x = np.nonzero(inside & np.isin(place, kept))
    window = np.searchsorted(kept, place[block, y, x])
    order = np.argsort(window, kind="stable")
    return block[order], y[order], x[order], window[order]


def correlations(a: FloatArray, b: FloatArray) -> FloatArray:
    """(c,) of images (c, m); 0 for a constant one."""
    a, b = (x - x.mean(1, keepdims=True) for x in (a, b))
    return (a * b).sum(1) / np.maximum(np.sqrt((a * a).sum(1) * (b * b).sum(1)), 1e-30)

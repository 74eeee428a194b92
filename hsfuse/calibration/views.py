"""What a PSF is judged by: the MSI around LR pixels, and R x LRHSI there, in windows of the scene."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import binary_erosion
from torch import Tensor

from hsfuse.calibration.kernels import ROUND
from hsfuse.calibration.spectra import FloatArray
from hsfuse.core.errors import InputError

#: LR pixels on each side that a searched kernel reaches over: at most, and where the scene is small or the ratio large.
REACH, LEAST_REACH, LARGE_RATIO = 3, 2, 12
#: LR pixels from which a PSF is estimated at least.
LEAST_PIXELS = 36
#: LR pixels of a window, and windows into which a scene is cut at most.
WINDOW_PIXELS, MOST_WINDOWS = 100, 48
#: LR pixels that are looked at, and their neighbourhoods' values (float32: 64 MB), at most.
MOST_PIXELS, MOST_VALUES = 2000, 2**24
#: MSI bands that the PSF is fitted on at most.
MOST_BANDS = 4
#: LR pixels along a side of a window's cells, each of which may lie at a place of its own.
CELL_SIDE = 5
#: What is known of the shift between the images, in LR pixels, is made use of from here on.
FAR = 0.75


@dataclass(frozen=True)
class Views:
    """What a kernel of `size` taps is judged by: the MSI around m LR pixels, and the values `target` it should give.

    `around` (size^2, c m) holds the MSI's pixels under the taps, `target` (c, m) R x LRHSI, `window` (m,) the part of
    the scene each lies in and `cell` (m,) the part of that; pixels are sorted by both. The taps' middle lies `offset`
    (y, x) HR pixels off the LR pixel's centre, and `move` (2, m) further down and right (None: all at that place).
    `image` (n, c, H, W) is the MSI, `corner` (3, m) block, row and column of the first of the taps without `move`.
    """

    around: Tensor
    target: FloatArray
    window: NDArray[np.intp]
    cell: NDArray[np.intp]
    image: NDArray[np.float32]
    corner: NDArray[np.intp]
    ratio: int
    phase: float
    size: int
    offset: tuple[int, int] = (0, 0)
    move: FloatArray | None = None

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
        block, y, x, window, cell = _chosen(inside, most)
        first = round(phase - (size - 1) / 2)
        corner = np.stack([block, y * ratio + first + offset[0], x * ratio + first + offset[1]])
        image, wanted = msi.float().numpy(), target.numpy()[block, :, y, x].T.astype(np.float64)
        views = cls(torch.zeros(0), wanted, window, cell, image, corner, ratio, phase, size, offset)
        usual = torch.from_numpy(ROUND.kernel(np.log([0.5]), size, np.zeros(2), ratio).ravel()).float()
        low = np.stack([(usual @ views._under(corner, band)).double().numpy() for band in range(len(wanted))])
        found = correlations(views.detail(low), views.detail(wanted))
        bands = np.argsort(-found)[:MOST_BANDS]
        chosen = replace(views, image=image[:, bands], target=wanted[bands])
        return chosen.at(np.zeros((2, len(y)))), found[bands]

    def at(self, move: FloatArray) -> Views:
        """The same, each LR pixel seen where it lies `move` (2, m) HR pixels further down and right."""
        whole = np.round(move).astype(int)
        corner = self.corner + np.concatenate([np.zeros_like(whole[:1]), whole])
        around = torch.cat([self._under(corner, band) for band in range(len(self.target))], 1)
        return replace(self, around=around, move=move if move.any() else None)

    @property
    def rest(self) -> FloatArray | None:
        """Parts of HR pixels (2, m) by which a pixel lies further than where `around` has it."""
        return None if self.move is None else self.move - np.round(self.move)

    def _under(self, corner: NDArray[np.intp], band: int) -> Tensor:
        """A band's pixels (size^2, m) under the taps; beyond the image, where the taps are next to nil, its edge."""
        down, right = np.divmod(np.arange(self.size**2), self.size)
        rows = np.clip(corner[1] + down[:, None], 0, self.image.shape[2] - 1)
        cols = np.clip(corner[2] + right[:, None], 0, self.image.shape[3] - 1)
        return torch.from_numpy(self.image[corner[0], band, rows, cols])

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


def _chosen(inside: NDArray[np.bool_], most: int) -> tuple[NDArray[np.intp], ...]:
    """Block, row, column, window and cell (m,) of about `most` pixels, in whole windows spread over the scene."""
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
    parts = max(1, round(float(side) / CELL_SIDE))
    cell = (y * down * parts // h) * right * parts + x * right * parts // w
    order = np.lexsort((cell, window))
    block, y, x, window, cell = (values[order] for values in (block, y, x, window, cell))
    first = (np.diff(window, prepend=-1) != 0) | (np.diff(cell, prepend=-1) != 0)
    return block, y, x, window, np.cumsum(first) - 1


def correlations(a: FloatArray, b: FloatArray) -> FloatArray:
    """(c,) of images (c, m); 0 for a constant one."""
    a, b = (x - x.mean(1, keepdims=True) for x in (a, b))
    return (a * b).sum(1) / np.maximum(np.sqrt((a * a).sum(1) * (b * b).sum(1)), 1e-30)

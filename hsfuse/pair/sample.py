"""What a method learns from: blocks of the scene, bounded in number, with invalid pixels filled."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from rasterio.windows import Window
from scipy.ndimage import distance_transform_edt

from hsfuse.core.cube import BoolArray, Cube, FloatArray
from hsfuse.core.errors import InputError
from hsfuse.physics.model import ObservationModel
from hsfuse.physics.sample import PairSample
from hsfuse.physics.solve import solve_spd

if TYPE_CHECKING:
    from hsfuse.pair.pair import ScenePair

#: MSI pixels in the sample at most, and above ratio 6, where those are few LR pixels (`most_pixels`). A scene with
#: fewer is taken whole.
MAX_PIXELS, MORE_PIXELS, WANTED_LR = 384 * 384, 512 * 512, 64 * 64
#: Side of a block in LR pixels where the scene isn't taken whole: at most 32, less where that would leave few blocks
#: (at ratio 8 two of them would miss most of a scene's materials), but 16 at least.
BLOCK, LEAST_BLOCK, BLOCK_PIXELS = 32, 16, 128
#: Ridge of the regression of spectra on the MSI, relative to the MSI bands' mean variance.
RIDGE = 1e-4


def fill_invalid(data: FloatArray, mask: BoolArray) -> FloatArray:
    """Invalid pixels take the nearest valid pixel's spectrum: (C, H, W), (H, W) -> (C, H, W); all invalid: zeros."""
    if mask.all() or not mask.any():
        return data
    nearest = distance_transform_edt(~mask, return_distances=False, return_indices=True)
    return np.ascontiguousarray(data[:, nearest[0], nearest[1]])


def fill_msi(high: Cube, low: Cube, model: ObservationModel) -> FloatArray:
    """The MSI (c, H, W) with its invalid pixels as the LRHSI (C, h, w) shows them, levelled to the nearest valid pixel.

    What a blur takes from under a cloud into its surroundings is then about what lies there, and no halo forms.
    """
    filled = fill_invalid(high.data, high.mask)
    if high.mask.all() or not high.mask.any() or not low.mask.any():
        return filled
    seen_low = torch.from_numpy(fill_invalid(low.data, low.mask))[None].to(model.srf.device)
    seen = model.upsample(model.spectral(seen_low))[0].cpu().numpy()
    return np.ascontiguousarray(np.where(high.mask, filled, filled + seen - fill_invalid(seen, high.mask)))


@dataclass(frozen=True)
class Filling:
    """Invalid pixels of either image as the other one shows them.

    `gains` (C, c) say how LR spectra go with the MSI; None: the LRHSI takes the nearest valid spectrum.
    """

    model: ObservationModel
    gains: FloatArray | None = None

    @classmethod
    def of(cls, scene: PairSample, model: ObservationModel) -> Filling:
        """With the regression of the sample's valid LRHSI spectra on the degraded MSI."""
        low = model.spatial(scene.msi.double()).permute(1, 0, 2, 3)[:, scene.mask]
        spectra = scene.lrhsi.double().permute(1, 0, 2, 3)[:, scene.mask]
        low, spectra = (x - x.mean(1, keepdim=True) for x in (low, spectra))
        return cls(model, solve_spd(low @ low.T, low @ spectra.T, RIDGE).T.float().cpu().numpy())

    def __call__(self, low: Cube, high: Cube) -> tuple[FloatArray, FloatArray]:
        """LRHSI (C, h, w) and MSI (c, H, W) of a window, both whole."""
        if not low.mask.any():
            return low.data, fill_msi(high, low, self.model)
        whole = replace(low, data=self.fill_lrhsi(low, high), mask=np.ones_like(low.mask))
        return whole.data, fill_msi(high, whole, self.model)

    def fill_lrhsi(self, low: Cube, high: Cube) -> FloatArray:
        """The LRHSI (C, h, w) with its invalid pixels as the MSI has them, levelled to the nearest valid pixel."""
        filled = fill_invalid(low.data, low.mask)
        if self.gains is None or low.mask.all() or not high.mask.any():
            return filled
        msi = torch.from_numpy(fill_invalid(high.data, high.mask))[None].to(self.model.srf.device)
        seen = self.model.spatial(msi)[0].cpu().numpy()
        change = np.tensordot(self.gains, seen - fill_invalid(seen, low.mask), 1)
        return np.ascontiguousarray(np.where(low.mask, filled, filled + change), np.float32)


def most_pixels(s: int) -> int:
    """MSI pixels in the sample at most, at ratio s: those of WANTED_LR LR pixels between both limits.

    >>> [most_pixels(s) for s in (4, 8, 16)] == [384 * 384, 512 * 512, 512 * 512]
    True
    """
    return min(max(MAX_PIXELS, WANTED_LR * s * s), MORE_PIXELS)


def block_windows(shape: tuple[int, int], s: int, max_pixels: int | None = None) -> list[Window]:
    """Equal LR windows spread over a scene of `shape` LR pixels; the whole scene as one if it is small.

    `max_pixels` MSI pixels at most, by default `most_pixels`.
    """
    height, width = shape
    max_pixels = most_pixels(s) if max_pixels is None else max_pixels
    if height * width * s * s <= max_pixels:
        return [Window(0, 0, width, height)]
    side = max(LEAST_BLOCK, min(BLOCK, BLOCK_PIXELS // s))
    side_y, side_x = min(side, height), min(side, width)
    count = max(2, max_pixels // (side_y * side_x * s * s))
    aspect = (height / side_y) / (width / side_x)
    rows = int(np.clip(round((count * aspect) ** 0.5), 1, height // side_y))
    cols = int(np.clip(count // rows, 1, width // side_x))
    tops = np.linspace(0, height - side_y, rows).round().astype(int)
    lefts = np.linspace(0, width - side_x, cols).round().astype(int)
    return [Window(int(left), int(top), side_x, side_y) for top in tops for left in lefts]


def read_block(pair: ScenePair, window: Window) -> tuple[Cube, Cube, BoolArray]:
    """LRHSI (C, h, w), MSI (c, H, W) and the LR mask (h, w): valid with all MSI pixels under it."""
    s = pair.ratio
    low = pair.read_lr(window)
    high = pair.read_hr(Window(window.col_off * s, window.row_off * s, window.width * s, window.height * s))
    h, w = low.mask.shape
    return low, high, low.mask & high.mask.reshape(h, s, w, s).all((1, 3))


def sample_scene(pair: ScenePair, max_pixels: int | None = None) -> PairSample:
    """Blocks of the scene that hold valid pixels; InputError when there are too few to learn anything from.

    `max_pixels` as for `block_windows`.
    """
    return sample_of(pair, block_windows(pair.lr_shape, pair.ratio, max_pixels))


def sample_of(pair: ScenePair, windows: list[Window]) -> PairSample:
    """The blocks at some equal LR windows, as `sample_scene` has them."""
    blocks = [read_block(pair, window) for window in windows]
    blocks = [block for block in blocks if block[2].mean() > 0.1] or blocks
    valid = sum(int(block[2].sum()) for block in blocks)
    if valid < 16:
        raise InputError(
            f"only {valid} pixels are valid in both {pair.hsi.path} and {pair.msi.path}, wanted at least 16"
        )
    scene = _filled(blocks, Filling(pair.model))
    return scene if all(low.mask.all() for low, _, _ in blocks) else _filled(blocks, Filling.of(scene, pair.model))


def _filled(blocks: list[tuple[Cube, Cube, BoolArray]], filling: Filling) -> PairSample:
    parts = [(*filling(low, high), mask) for low, high, mask in blocks]
    lrhsi, msi, mask = (torch.from_numpy(np.stack(part)) for part in zip(*parts, strict=True))
    return PairSample(lrhsi, msi, mask)

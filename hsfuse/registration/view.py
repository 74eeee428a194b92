"""The MSI as the LRHSI's sensor would see it if it lay beside its place: values, and their change with the shift."""

from __future__ import annotations

from dataclasses import dataclass
from math import floor

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.ndimage import gaussian_filter

from hsfuse.cube import BoolArray, FloatArray
from hsfuse.optics import keys_slopes, keys_weights
from hsfuse.physics import MIN_PSF_WEIGHT, ObservationModel


@dataclass(frozen=True)
class View:
    """MSI at LR (c, h, w), its derivatives by the shift (LR pixels) down and right, and where it is valid (h, w)."""

    data: FloatArray
    down: FloatArray
    right: FloatArray
    valid: BoolArray


@dataclass(frozen=True)
class Block:
    """Both images of a piece of ground: LRHSI by the response (c, h, w), MSI (c, H, W), masks, place in LR pixels."""

    lr: FloatArray
    msi: FloatArray
    lr_mask: BoolArray
    msi_mask: BoolArray
    row: int = 0
    col: int = 0

    def looks(
        self, model: ObservationModel, shift: tuple[float, float], smooth: float = 0.0
    ) -> tuple[FloatArray, View]:
        """LRHSI (c, h, w) and `view`, both blurred alike by a Gaussian of `smooth` LR pixels over what is valid."""
        view = self.view(model, shift)
        if smooth == 0:
            return self.lr, view
        planes = np.concatenate([self.lr, view.data, view.down, view.right, np.ones_like(self.lr[:1])])
        blurred = gaussian_filter(planes * view.valid, (0, smooth, smooth), mode="constant", truncate=3)
        lr, data, down, right = np.split(blurred[:-1] / np.maximum(blurred[-1], 1e-6), 4)
        return lr, View(data, down, right, view.valid)

    def view(self, model: ObservationModel, shift: tuple[float, float]) -> View:
        """The MSI degraded by the model, its content `shift` (down, right) LR pixels off; invalid pixels don't count.

        X(p) = Y(p - shift): the shift goes into the PSF's taps (Keys' cubic convolution between MSI pixels), so the MSI
        itself is never resampled. LR pixels whose PSF reaches out of the block are invalid.
        """
        planes = np.concatenate([self.msi * self.msi_mask, self.msi_mask[None].astype(np.float32)])
        total: FloatArray | None = None
        for rows, cols in model.psf.separable_terms():
            down = _taps(rows, shift[0], self.lr.shape[1], model)
            right = _taps(cols, shift[1], self.lr.shape[2], model)
            part = np.stack([_both(planes, down[i], right[j]) for i, j in ((0, 0), (1, 0), (0, 1))])
            total = part if total is None else total + part
        assert total is not None
        valid = (total[0, -1] >= MIN_PSF_WEIGHT) & self.lr_mask
        weight = np.where(valid, total[:, -1], np.array([1, 0, 0], np.float32)[:, None, None])
        data = total[0, :-1] / weight[0]
        slopes = (total[1:, :-1] - data * weight[1:, None]) / weight[0]
        return View(data, slopes[0], slopes[1], valid)


def _taps(
    taps: NDArray[np.float64], shift: float, n: int, model: ObservationModel
) -> tuple[sparse.csr_array, sparse.csr_array]:
    """Blur, shift and decimation along one axis, (n, n s), and its derivative by the shift; nothing beyond the ends."""
    s = model.scale
    offset = -shift * s
    whole = floor(offset)
    first = round(model.phase - (len(taps) - 1) / 2) + whole - 1
    weights = keys_weights(offset - whole), -s * keys_slopes(offset - whole)
    made = []
    for four in weights:
        spread = np.convolve(taps, four)
        index = first + np.arange(n)[:, None] * s + np.arange(len(spread))
        inside = (index >= 0) & (index < n * s)
        rows = np.broadcast_to(np.arange(n)[:, None], index.shape)
        values = np.broadcast_to(spread, index.shape)[inside].astype(np.float32)
        made.append(sparse.csr_array((values, (rows[inside], index[inside])), shape=(n, n * s)))
    return made[0], made[1]


def _both(planes: FloatArray, down: sparse.csr_array, right: sparse.csr_array) -> FloatArray:
    """A matrix applied to the rows and one to the columns of (c, H, W): (c, h, w)."""
    c, high, wide = planes.shape
    rows = down @ planes.transpose(1, 0, 2).reshape(high, c * wide)
    turned = rows.reshape(-1, c, wide).transpose(2, 1, 0)
    both = right @ turned.reshape(wide, -1)
    return np.ascontiguousarray(both.reshape(right.shape[0], c, -1).transpose(1, 2, 0), dtype=np.float32)

"""The MSI seen through a kernel at the LR pixels, for kernels that are to be found."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import conv2d

from hsfuse.errors import InputError
from hsfuse.estimation.spectra import LEAST_PIXELS, FloatArray
from hsfuse.optics import centred_taps, elliptic_gaussian, widths_and_turn
from hsfuse.physics import ObservationModel

#: LR pixels on each side that a searched kernel reaches over, and the least where a scene is small.
REACH, LEAST_REACH = 3, 1


@dataclass(frozen=True)
class Views:
    """What a kernel of `size` taps is judged by: MSI images, the LR pixels `target` (c, m) it should give, weights."""

    images: Tensor  # (n, c, rows, cols), cut so that a valid convolution with stride s gives the inner LR pixels
    inside: Tensor  # (n, h', w') of them that count
    target: FloatArray
    scale: int
    phase: float
    size: int

    @classmethod
    def of(cls, target: Tensor, msi: Tensor, mask: Tensor, model: ObservationModel) -> Views:
        """Cut blocks to LR pixels whose kernel stays inside them and on valid pixels."""
        s, (h, w) = model.scale, mask.shape[1:]
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
        low = conv2d(flat, stack, stride=self.scale)
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

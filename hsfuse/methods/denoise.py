"""Noise reduction of the MSI across its bands, before its detail is carried into every HSI band.

A vector Wiener filter on undecimated Haar details: in each subband the bands' local covariance C (Gaussian window)
gives the linear estimate with gain inv(C) (C - noise), limited to non-negative eigenvalues (Lee 1980, "Digital image
enhancement and noise filtering by use of local statistics", IEEE PAMI 2(2), for vectors; shrinkage of undecimated
details: Coifman, Donoho 1995). Detail is common to the bands and noise isn't, so little of it is blurred; overlapping
windows' estimates are averaged.
"""

from __future__ import annotations

from collections.abc import MutableMapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import conv2d, pad
from torch.utils.weak import WeakIdKeyDictionary

#: Window of the local statistics, in HR pixels.
WINDOW_SIGMA = 2.0
LEVELS = 2
#: Share of the noise variance that is still there afterwards in the directions with little signal, about.
LEFT = 0.5
#: Coefficients of the gain's polynomial, of ascending power: a least-squares fit to 2 m / (1 + m) above 0 and 0 below,
#: weighted with the signal's power and exact at 1, where there is no noise; at most 0.09 off, where both are alike.
GAIN = (
    (0.0854, 0.8845, 1.5158),
    (-1.1709, -2.4919, 1.4291),
    (1.8788, -0.6459, -0.4849),
)
#: What single precision leaves uncertain in a covariance, relative to its largest variance.
ROUNDING = 1e-6
#: Entries of matrices worked on at a time: what fits a processor's cache, elsewhere what little memory holds.
ENTRIES, MOST_ENTRIES = {"cpu": 1 << 19}, 1 << 24
#: Results by image, for as long as the image is in use: the members of a blend and the network all want the same one.
_known: MutableMapping[Tensor, _Denoised] = WeakIdKeyDictionary()


@torch.no_grad()
def denoise(msi: Tensor, noise: Tensor, levels: int = LEVELS) -> Tensor:
    """MSI (B, c, H, W) and noise variance per band (c,) -> the same shape; coarser structure than 2^levels is kept.

    Whoever asks for the same unchanged image again gets the same result, not to be written to.
    """
    known = _known.get(msi)
    if known is None or not known.answers(msi, noise, levels):
        known = _known[msi] = _Denoised(msi.clone(), noise, levels, _denoised(msi, noise, levels))
    return known.result


@dataclass(frozen=True)
class _Denoised:
    image: Tensor
    noise: Tensor
    levels: int
    result: Tensor

    def answers(self, msi: Tensor, noise: Tensor, levels: int) -> bool:
        """Whether the image still is what it was and the question the same: noise is told apart in single precision."""
        same_noise = torch.equal(self.noise.float(), noise.float())
        return self.levels == levels and same_noise and torch.equal(self.image, msi)


def _denoised(msi: Tensor, noise: Tensor, levels: int) -> Tensor:
    return torch.cat([_denoise(image, noise, levels) for image in msi.split(1)])  # one at a time, to save memory


def _denoise(msi: Tensor, noise: Tensor, levels: int) -> Tensor:
    if not msi.numel():  # the reduced-resolution images of a scene narrower than s LR pixels
        return msi
    scale = noise.to(msi).sqrt()[:, None, None]
    margin = 2**levels + 2 * _radius(WINDOW_SIGMA)  # the cyclic border stays out of what is kept
    low = pad(msi / scale, (margin,) * 4, mode="replicate")
    details = []
    for level in range(levels):
        low, *planes = _analyse(low, 2**level)
        details.append([vector_wiener(plane, 0.25 ** (level + 1)) for plane in planes])
    for level in reversed(range(levels)):
        low = _synthesise([low, *details[level]], 2**level)
    return low[..., margin:-margin, margin:-margin] * scale


def vector_wiener(z: Tensor, noise: float) -> Tensor:
    """Zero-mean planes (B, c, H, W) with white noise of variance `noise` in each -> their local linear estimate."""
    c = z.shape[1]
    i, j = torch.tril_indices(c, c, device=z.device)  # what is symmetric is blurred once
    whole = torch.zeros(c, c, dtype=torch.long, device=z.device)
    whole[i, j] = whole[j, i] = torch.arange(len(i), device=z.device)
    every = whole.flatten()
    products = z.index_select(1, i).mul_(z.index_select(1, j))
    covariances = gaussian_blur(products, WINDOW_SIGMA).div_(noise).movedim(1, 0)
    pixels = covariances.flatten(1)
    at_once = max(1, ENTRIES.get(z.device.type, MOST_ENTRIES) // c**2)
    gains = torch.cat(
        [
            wiener_gains(part.index_select(0, every).unflatten(0, (c, c))).flatten(0, 1).index_select(0, i * c + j)
            for part in pixels.split(at_once, 1)
        ],
        1,
    )
    gains = gaussian_blur(gains.view_as(covariances).movedim(0, 1), WINDOW_SIGMA)
    estimate = torch.zeros_like(z)
    for row, places in enumerate(whole.tolist()):
        for column, place in enumerate(places):
            estimate[:, row].addcmul_(gains[:, place], z[:, column])
    return estimate


def wiener_gains(covariances: Tensor) -> Tensor:
    """I - inv(S) where that is positive, for local covariances S (c, c, pixels) in units of the noise: the same shape.

    By a polynomial in M = I - 2 inv(S + I), whose eigenvalues m lie between -1 and 1: eigenvectors would take two or
    three times as long. Its powers are shared as by Paterson, Stockmeyer 1973, SIAM J. Comput. 2(1).
    """
    diagonal = torch.arange(len(covariances), device=covariances.device)
    shifted = covariances.clone()
    shifted[diagonal, diagonal] += 1 + ROUNDING * shifted[diagonal, diagonal].amax(0)
    m = inverse_(shifted).mul_(-2)
    m[diagonal, diagonal] += 1
    square = _product(m, m)
    cube, gains = _product(square, m), None
    for constant, linear, quadratic in GAIN[::-1]:
        part = (linear * m).add_(square, alpha=quadratic)
        part[diagonal, diagonal] += constant
        gains = part if gains is None else part.add_(_product(gains, cube))
    assert gains is not None
    return gains.clamp_(-1, 1)


def inverse_(a: Tensor) -> Tensor:
    """Inverse, in place, of symmetric matrices (c, c, pixels) without eigenvalues below 1, by Gauss and Jordan."""
    for k in range(len(a)):
        pivot = 1 / a[k, k].clamp_min(1)
        row, column = a[k] * pivot, a[:, k].clone()
        a.addcmul_(column[:, None], row[None], value=-1)
        a[k], a[:, k] = row, -column * pivot
        a[k, k] = pivot
    return a


def _product(a: Tensor, b: Tensor) -> Tensor:
    """Matrix products for every pixel: (c, c, pixels) twice -> (c, c, pixels)."""
    total = a[:, 0, None] * b[0]
    for k in range(1, len(a)):
        total.addcmul_(a[:, k, None], b[k])
    return total


def gaussian_blur(x: Tensor, sigma: float) -> Tensor:
    """Gaussian window of three sigma, border pixel repeated: same shape."""
    if not x.numel():
        return x
    radius = _radius(sigma)
    t = torch.arange(-radius, radius + 1, dtype=x.dtype, device=x.device)
    taps = torch.exp(-(t**2) / (2 * sigma**2))
    taps, planes = (taps / taps.sum()).expand(x.shape[1], 1, 1, -1).contiguous(), x.shape[1]
    wide = pad(x, (radius,) * 4, mode="replicate")
    return conv2d(conv2d(wide, taps.mT.contiguous(), groups=planes), taps, groups=planes)


def _radius(sigma: float) -> int:
    return int(3 * sigma + 0.5)


def _analyse(x: Tensor, step: int) -> list[Tensor]:
    """Undecimated Haar transform at distance `step`: the mean and three detail planes, cyclic at the border."""
    low, high = _split(x, step, -2)
    return [*_split(low, step, -1), *_split(high, step, -1)]


def _synthesise(planes: list[Tensor], step: int) -> Tensor:
    """Inverse of `_analyse`, the mean of its two reconstructions per axis."""
    low, high = (_join(planes[i], planes[i + 1], step, -1) for i in (0, 2))
    return _join(low, high, step, -2)


def _split(x: Tensor, step: int, axis: int) -> tuple[Tensor, Tensor]:
    shifted = x.roll(step, axis)
    return (x + shifted) / 2, (x - shifted) / 2


def _join(low: Tensor, high: Tensor, step: int, axis: int) -> Tensor:
    return (low + high + (low - high).roll(-step, axis)) / 2

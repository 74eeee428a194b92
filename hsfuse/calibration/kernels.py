"""Families of point spread functions that a pair is asked for, from the simplest to the richest.

A detector's footprint is a box of one LR pixel; optics and motion add a Gaussian; a resampled or moving sensor's is
wider one way than the other, perhaps turned. About any of these there may be a halo, a wide Gaussian that has a share
of the light: stray light, what the air scatters from the surroundings, the wings of what optics and turbulence do
(King 1971, "The profile of a star image"). Each has its own numbers, `shape` (k,): logarithms of widths in LR pixels,
and of a halo its width's and those of the odds of its share.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from math import ceil

import numpy as np

from hsfuse.calibration.spectra import FloatArray
from hsfuse.physics.model import Psf, box_psf, elliptic_psf, gaussian_psf
from hsfuse.physics.optics import centred_taps, elliptic_gaussian, footprint, gaussian, widths_and_turn

#: Widths (standard deviations) of a Gaussian that are searched, in LR pixels, and the least in HR pixels.
LEAST_WIDTH, LARGEST_WIDTH, LEAST_WIDTH_HR = 0.1, 1.5, 0.3
#: Least width of a Gaussian beside a box, in LR pixels: less is none.
LEAST_BLUR = 0.03
#: Widths of a halo that are searched, in LR pixels, and its share of the light.
LEAST_HALO, LARGEST_HALO = 0.7, 3.0
LEAST_HALO_SHARE, LARGEST_HALO_SHARE = 0.02, 0.5
#: A halo is so many times as wide as its core: what is less may be the core's own, beyond the taps that are searched.
WIDER = 2.0
#: Logarithms of widths at which the MSI is seen through a halo, between which what is seen is taken as straight, and
#: over how many of its widths a halo's taps reach.
HALOS = np.linspace(np.log(LEAST_HALO), np.log(LARGEST_HALO), 9)
HALO_REACH = 3
#: What a family's name has where there is a halo.
WITH_HALO = " with halo"


@dataclass(frozen=True)
class Family:
    """Kernels of one kind: `starts` are shapes to begin from, `covariance(shape)` is (2, 2) in LR pixels, (y, x).

    `boxed`: that covariance is of the Gaussian alone, which blurs a box of one LR pixel.
    """

    name: str
    starts: tuple[tuple[float, ...], ...]
    covariance: Callable[[FloatArray], FloatArray]
    boxed: bool = False

    def kernel(self, shape: FloatArray, size: int, centre: FloatArray, ratio: int) -> FloatArray:
        """(size, size) taps that sum to 1, about `centre` (y, x) in HR pixels from the middle."""
        taps, cov = centred_taps(size), self.covariance(shape) * ratio**2
        if self.boxed:
            rows, cols = (
                footprint(taps - c, ratio, float(np.sqrt(v))) for c, v in zip(centre, np.diag(cov), strict=True)
            )
            made = np.outer(rows, cols)
        else:
            made = elliptic_gaussian(
                np.asarray(np.linalg.cholesky(cov), np.float64), taps - centre[0], taps - centre[1]
            )
        return made / made.sum()

    def near(self, shape: FloatArray, size: int, centre: FloatArray, ratio: int) -> FloatArray:
        """The kernel without what `far` has of it."""
        return self.kernel(shape, size, centre, ratio)

    def far(self, shape: FloatArray) -> FloatArray | None:
        """How much of the light halos of the widths `HALOS` have, (q,); None without a halo."""
        return None

    def bounded(self, shape: FloatArray, ratio: int) -> FloatArray:
        """The nearest shape that is searched."""
        least = LEAST_BLUR if self.boxed else max(LEAST_WIDTH, LEAST_WIDTH_HR / ratio)
        return np.concatenate([np.clip(shape[:2], np.log(least), np.log(LARGEST_WIDTH)), shape[2:]])

    def widths(self, shape: FloatArray, ratio: int) -> FloatArray:
        """Standard deviations (y, x) of the kernel in HR pixels and its turn in degrees: (3,)."""
        box = np.eye(2) / 12 if self.boxed else 0
        y, x, turn = widths_and_turn((self.covariance(shape) + box) * ratio**2)
        return np.array([y, x, turn])

    def psf(self, shape: FloatArray, ratio: int, phase: float) -> Psf:
        """The PSF, centred."""
        cov = self.covariance(shape) * ratio**2
        if self.boxed:
            return box_psf(ratio, phase, float(np.sqrt(cov[0, 0])))
        if cov[0, 1] == 0 and cov[0, 0] == cov[1, 1]:
            return gaussian_psf(float(np.sqrt(cov[0, 0])), ratio, phase)
        return elliptic_psf(*widths_and_turn(cov), ratio, phase).with_few_terms()


@dataclass(frozen=True)
class Haloed(Family):
    """Those of a `core` with a halo: its shape and the logarithms of the halo's width and of the odds of its share."""

    core: Family = field(kw_only=True)

    @classmethod
    def about(cls, core: Family) -> Haloed:
        """About a core."""
        return cls(core.name + WITH_HALO, core.starts, core.covariance, core=core)

    def halo(self, shape: FloatArray, ratio: int) -> FloatArray:
        """The halo's share of the light and its width in HR pixels: (2,)."""
        return np.array([1 / (1 + np.exp(-shape[-1])), ratio * np.exp(shape[-2])])

    def kernel(self, shape: FloatArray, size: int, centre: FloatArray, ratio: int) -> FloatArray:
        """As for a family without, of as many taps as the halo needs."""
        share, width = self.halo(shape, ratio)
        size = max(size, halo_size(width, size, float(abs(centre).max())))
        rows, cols = (halo_taps(width, size, float(c)) for c in centre)
        return self.near(shape, size, centre, ratio) + share * np.outer(rows, cols)

    def near(self, shape: FloatArray, size: int, centre: FloatArray, ratio: int) -> FloatArray:
        """The core."""
        return (1 - self.halo(shape, ratio)[0]) * self.core.kernel(shape[:-2], size, centre, ratio)

    def far(self, shape: FloatArray) -> FloatArray:
        """The halo as a mean of the two whose widths are next to its own."""
        between = np.maximum(1 - np.abs(HALOS - shape[-2]) / (HALOS[1] - HALOS[0]), 0)
        return np.asarray(self.halo(shape, 1)[0] * between)

    def bounded(self, shape: FloatArray, ratio: int) -> FloatArray:
        """The nearest shape that is searched."""
        odds = [np.log(share / (1 - share)) for share in (LEAST_HALO_SHARE, LARGEST_HALO_SHARE)]
        core = self.core.bounded(shape[:-2], ratio)
        least = max(LEAST_HALO, WIDER * self.core.widths(core, 1)[:2].max())
        return np.array([*core, np.clip(shape[-2], np.log(least), HALOS[-1]), np.clip(shape[-1], *odds)])

    def widths(self, shape: FloatArray, ratio: int) -> FloatArray:
        """Those of the core."""
        return self.core.widths(shape[:-2], ratio)

    def psf(self, shape: FloatArray, ratio: int, phase: float) -> Psf:
        """The PSF, centred."""
        share, width = self.halo(shape, ratio)
        core = self.core.psf(shape[:-2], ratio, phase)
        taps = halo_taps(width, max(core.size, halo_size(width, core.size)))
        made = (1 - share) * np.pad(core.kernel, (len(taps) - core.size) // 2) + share * np.outer(taps, taps)
        return Psf(made, f"{core.label}, {share:.3g} of the light in a halo of sigma {width:.4g} HR pixels")


def halo_size(width: float, size: int, centre: float = 0.0) -> int:
    """Taps of a halo of a width and about a centre in HR pixels, even where `size` is."""
    return 2 * ceil(HALO_REACH * width + abs(centre)) + size % 2


def halo_taps(width: float, size: int, centre: float = 0.0) -> FloatArray:
    """Taps (size,) of a Gaussian about a centre in HR pixels from the middle, of sum 1."""
    made = gaussian(centred_taps(size) - centre, width)
    return made / made.sum()


def _turned(shape: FloatArray) -> FloatArray:
    """From the logarithms of the Cholesky root's diagonal (y, x) and its off-diagonal."""
    root = np.array([[np.exp(shape[0]), 0], [shape[2], np.exp(shape[1])]])
    return root @ root.T


def _log(*widths: float) -> tuple[float, ...]:
    return tuple(float(np.log(width)) for width in widths)


#: By rising number of unknowns. A Gaussian's two starts have an MTF at Nyquist of about 0.5 and 0.1.
BOX = Family("box", ((),), lambda p: np.zeros((2, 2)), boxed=True)
ROUND = Family("round", (_log(0.37), _log(0.68)), lambda p: np.exp(2 * p[0]) * np.eye(2))
BLURRED_BOX = Family("blurred box", (_log(0.25),), lambda p: np.exp(2 * p[0]) * np.eye(2), boxed=True)
ELLIPTIC = Family("elliptic", (_log(0.45, 0.45),), lambda p: np.diag(np.exp(2 * p)))
TURNED = Family("turned", ((*_log(0.45, 0.45), 0.0),), _turned)


def assumed(psf: Psf, ratio: int) -> Family:
    """The family of one Gaussian: that of a PSF's own moments."""
    taps = centred_taps(psf.size)
    y, x = np.meshgrid(taps, taps, indexing="ij")
    cov = np.array([[(psf.kernel * a * b).sum() for b in (y, x)] for a in (y, x)]) / ratio**2
    return Family("assumed", ((),), lambda p: cov)

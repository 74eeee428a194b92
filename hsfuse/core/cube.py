"""A cube with its meaning: reflectance, wavelengths, place and validity; and how two spectra, two windows compare."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hsfuse.core.errors import InputError
from hsfuse.core.grid import Grid

FloatArray = NDArray[np.float32]
BoolArray = NDArray[np.bool_]


@dataclass(frozen=True)
class Spectrum:
    """What the bands are: centres and FWHM in nm (None: unknown), names, and which bands are good."""

    wavelengths_nm: tuple[float, ...] | None
    fwhm_nm: tuple[float, ...] | None = None
    names: tuple[str, ...] | None = None
    good: tuple[bool, ...] | None = None

    def select(self, bands: Sequence[int]) -> Spectrum:
        """The same facts for a choice of bands (0-based)."""

        def pick(values: tuple | None) -> tuple | None:
            return None if values is None else tuple(values[i] for i in bands)

        return Spectrum(pick(self.wavelengths_nm), pick(self.fwhm_nm), pick(self.names), pick(self.good))

    def __repr__(self) -> str:
        told = [self.describe()]
        told += [
            f"{name} for {len(values)}" for name, values in (("FWHM", self.fwhm_nm), ("names", self.names)) if values
        ]
        told += [f"{self.good.count(False)} bad"] if self.good is not None else []
        return f"Spectrum({', '.join(told)})"

    def describe(self) -> str:
        """How many bands from where to where."""
        if self.wavelengths_nm:
            return f"{len(self.wavelengths_nm)} bands, {min(self.wavelengths_nm):g} to {max(self.wavelengths_nm):g} nm"
        return ", ".join(self.names) if self.names else "bands without wavelengths"


@dataclass(frozen=True)
class Cube:
    """Reflectance `data` (C, H, W) float32 on `grid`, `mask` (H, W) True where every band is valid."""

    data: FloatArray
    grid: Grid
    spectrum: Spectrum
    mask: BoolArray

    def __post_init__(self) -> None:
        if self.data.ndim != 3 or self.data.shape[1:] != self.grid.shape or self.mask.shape != self.grid.shape:
            raise InputError(f"cube {self.data.shape} and mask {self.mask.shape} don't fit the grid {self.grid.shape}")

    def __repr__(self) -> str:
        valid = self.mask.mean() if self.mask.size else 0.0
        return f"Cube({len(self.data)} bands, {self.grid.describe()}, {valid:.1%} valid; {self.spectrum.describe()})"

    @property
    def wavelengths_nm(self) -> NDArray[np.float64]:
        """Band centres in nm; InputError when unknown."""
        if self.spectrum.wavelengths_nm is None:
            raise InputError("the cube has no wavelengths")
        return np.asarray(self.spectrum.wavelengths_nm, dtype=np.float64)

    def with_data(self, data: FloatArray) -> Cube:
        """The same cube with other values."""
        return replace(self, data=data)


def spectral_angle(dot: Any, xx: Any, yy: Any, xp: Any = np) -> Any:
    """Angle in radians between spectra x and y from <x, y>, <x, x> and <y, y>, of any one shape; NaN where one is zero.

    `xp` is the sums' library, numpy or torch. The sums are float64: with float32's the arc cosine ends at .08 degrees.
    Source: Yuhas, Goetz and Boardman 1992.
    """
    norm = xp.sqrt(xx * yy)
    angle = xp.arccos(xp.clip(dot / xp.where(norm > 0, norm, 1.0), -1, 1))
    return xp.where(norm > 0, angle, xp.nan)


def structural_similarity(x: Any, y: Any, xx: Any, yy: Any, xy: Any, peak: float = 1.0) -> Any:
    """SSIM of windows from their weighted means of x, y, x^2, y^2 and x y, numpy's or torch's, of any one shape.

    K1 = 0.01, K2 = 0.03, `peak` the dynamic range. Source: Wang et al. 2004, equation 13.
    """
    c1, c2 = (0.01 * peak) ** 2, (0.03 * peak) ** 2
    luminance, spread = x * x + y * y + c1, (xx - x * x) + (yy - y * y) + c2
    return (2 * x * y + c1) * (2 * (xy - x * y) + c2) / (luminance * spread)

"""A cube with its meaning: reflectance, wavelengths, place and validity."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

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

    @property
    def wavelengths_nm(self) -> NDArray[np.float64]:
        """Band centres in nm; InputError when unknown."""
        if self.spectrum.wavelengths_nm is None:
            raise InputError("the cube has no wavelengths")
        return np.asarray(self.spectrum.wavelengths_nm, dtype=np.float64)

    def with_data(self, data: FloatArray) -> Cube:
        """The same cube with other values."""
        return replace(self, data=data)

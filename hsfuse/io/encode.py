"""From reflectance to the numbers on disk: scale, round, clip, and keep valid values off nodata."""

from __future__ import annotations

from dataclasses import dataclass
from math import isnan

import numpy as np
from numpy.typing import NDArray

from hsfuse.cube import BoolArray, FloatArray
from hsfuse.errors import SettingError

#: Types that both GeoTIFF and ENVI hold.
DTYPES = ("uint8", "int16", "uint16", "int32", "uint32", "float32", "float64")


def default_nodata(dtype: str) -> float:
    """NaN for floats, the smallest number of signed types (-32768 for int16), the largest of unsigned ones.

    Unsigned types keep 0, which dark pixels have; 65535 for uint16 is beyond any scaled reflectance.
    """
    kind = np.dtype(dtype)
    if kind.kind == "f":
        return float("nan")
    info = np.iinfo(kind)
    return float(info.min if kind.kind == "i" else info.max)


@dataclass(frozen=True)
class Encoding:
    """Numbers on disk: reflectance = raw * scale + offset, `nodata` where invalid. SettingError when it can't be."""

    dtype: str = "float32"
    scale: float = 1.0
    offset: float = 0.0
    nodata: float = float("nan")

    def __post_init__(self) -> None:
        if self.dtype not in DTYPES:
            raise SettingError(f"unknown type {self.dtype!r} for the output; known: {', '.join(DTYPES)}")
        if not self.scale > 0 or not np.isfinite([self.scale, self.offset]).all():
            raise SettingError(f"scale {self.scale} and offset {self.offset} make no sense; wanted a positive scale")
        if np.dtype(self.dtype).kind != "f" and not self._holds(self.nodata):
            raise SettingError(f"nodata {self.nodata} doesn't fit the type {self.dtype}")

    def _holds(self, value: float) -> bool:
        info = np.iinfo(self.dtype)
        return not isnan(value) and float(value).is_integer() and info.min <= value <= info.max

    def clipped(self, data: FloatArray, mask: BoolArray) -> int:
        """How many valid values of `data` (C, h, w) the type can't hold, so that `encode` clips them."""
        if np.dtype(self.dtype).kind == "f":
            return 0
        info = np.iinfo(self.dtype)
        low, high = ((end * self.scale + self.offset) for end in (info.min - 0.5, info.max + 0.5))
        return int((((data < low) | (data > high)) & mask & np.isfinite(data)).sum())

    def encode(self, data: FloatArray, mask: BoolArray) -> NDArray:
        """Raw numbers (C, h, w) of reflectance `data`; nodata where `mask` (h, w) is False or a value isn't finite."""
        kind = np.dtype(self.dtype)
        raw: NDArray[np.floating] = data.astype(np.float64 if kind.itemsize > 2 and kind != np.float32 else np.float32)
        if self.scale != 1 or self.offset != 0:
            raw = (raw - self.offset) / self.scale
        blank = ~(mask & np.isfinite(raw))
        raw[blank] = 0
        if kind.kind != "f":
            info = np.iinfo(kind)
            np.clip(np.rint(raw, out=raw), info.min, info.max, out=raw)
        out = raw.astype(kind, copy=False)
        _avoid(out, self.nodata)
        out[blank] = self.nodata
        return out


def _avoid(raw: NDArray, nodata: float) -> None:
    """Move valid values that equal nodata to the next number, so that they stay valid."""
    if isnan(nodata):
        return
    value = raw.dtype.type(nodata)
    if raw.dtype.kind == "f":
        beside = np.nextafter(value, raw.dtype.type(0) if value != 0 else raw.dtype.type(1))
    else:
        beside = value - 1 if value == np.iinfo(raw.dtype).max else value + 1
    raw[raw == value] = beside

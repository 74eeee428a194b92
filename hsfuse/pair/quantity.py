"""What the numbers of an image are: reflectance 0 to 1, integers x 10,000, percent, or radiance.

Metadata are believed first, then figures: levels of a few blocks of pixels. A pair is brought to one unit only where
one image says nothing about its own, never where the two agree already, and never without saying so.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import date
from math import log10

import numpy as np
from numpy.typing import NDArray
from rasterio.windows import Window

from hsfuse.core.errors import InputError
from hsfuse.core.grid import Alignment
from hsfuse.core.notes import Note, note, warning
from hsfuse.core.values import counted
from hsfuse.io.reader import CubeReader, Quantity, usable_bands
from hsfuse.io.sharpen import blocks

#: Reflectance beyond this (99th percentile) isn't one: snow and clouds reach 1.2, glint and fire a little more.
MOST_REFLECTANCE = 1.6
#: 99th percentiles of reflectance x 10,000, and their largest 1st percentile: something is dark in
#: every scene, while counts of a calibrated sensor begin at an offset (Landsat's at 5,000).
TEN_THOUSANDTHS = (200.0, 20_000.0)
DARK = 2_000.0
#: Levels of two images this far apart are no matter of units: scenes differ as much.
SAME_LEVEL = 10**0.5
#: What units differ by: percent, per mille, x 10,000.
_POWERS = (2, 3, 4)
#: Pixels to each side of the blocks that are looked at, and at most.
_BLOCK, _LARGEST_BLOCK = 16, 64
_DAY = len("2022-07-24")


@dataclass(frozen=True)
class Guess:
    """`value * scale` is `quantity`, as far as can be told; `note` says whence, empty when the metadata say it."""

    scale: float
    quantity: Quantity
    note: str


def guess_scale(reader: CubeReader) -> Guess:
    """What the numbers of one image (as read, with its own scale) are, from metadata, else from figures."""
    if reader.quantity != "unknown":
        return Guess(1.0, reader.quantity, "")
    levels = _percentiles(reader)
    if levels is None:
        return Guess(1.0, "unknown", "no valid pixel was met; what the numbers are can't be told")
    dark, level = levels
    told = f"99 % of the numbers are below {level:.4g}"
    if level <= MOST_REFLECTANCE:
        return Guess(1.0, "reflectance", f"{told}: taken as reflectance 0 to 1")
    dtype = np.dtype(reader.dtype)
    plain = dtype.itemsize > 1 and not _has_scale(reader)
    if plain and TEN_THOUSANDTHS[0] <= level <= TEN_THOUSANDTHS[1] and dark <= DARK:
        return Guess(1e-4, "reflectance", f"{told}: reflectance x 10000 by the look of it")
    if level <= 100 * MOST_REFLECTANCE and not np.issubdtype(dtype, np.integer):
        return Guess(1.0, "unknown", f"{told}: percent of reflectance, or radiance")
    return Guess(1.0, "unknown", f"{told}: not reflectance; radiance or counts")


@dataclass(frozen=True)
class Settled:
    """A pair's readers in one unit, what was done to them (`notes`), and what looks wrong (`warnings`)."""

    hsi: CubeReader
    msi: CubeReader
    notes: tuple[Note, ...] = ()
    warnings: tuple[Note, ...] = ()


def settle_quantity(
    hsi: CubeReader,
    msi: CubeReader,
    alignment: Alignment | None = None,
    *,
    hsi_bands: Sequence[int] | None = None,
    msi_bands: Sequence[int] | None = None,
    weights: NDArray[np.float64] | None = None,
    matched: bool = True,
) -> Settled:
    """A pair brought to one unit by another scale of one reader.

    Levels are compared on the common extent of `alignment` (default: all of both images), over `hsi_bands` and
    `msi_bands` (default: all), the HSI's seen through `weights` R (c, C) when given. Within a factor of three nothing
    changes. Where they differ by about 100, 1000 or 10,000, the image that doesn't say its unit follows the one that
    does; when neither does, the one that can't be reflectance follows the one that can, else the MSI the HSI.
    InputError when one is radiance, the other reflectance and the bands aren't `matched` by gain and offset.
    """
    same = Settled(hsi, msi)
    said = {"HSI": hsi.quantity, "MSI": msi.quantity}
    if "unknown" not in said.values() and hsi.quantity != msi.quantity:
        text = f"the HSI holds {hsi.quantity}, the MSI {msi.quantity}"
        if not matched:
            raise InputError(
                f"{text}: they can't be fused without matching their radiometry; convert one of them first"
            )
        return replace(same, notes=(note("quantities-matched", hsi=hsi.quantity, msi=msi.quantity),))
    size = _BLOCK if alignment is None else min(_BLOCK * alignment.ratio, _LARGEST_BLOCK)
    low = _level(hsi, None if alignment is None else alignment.hsi_window, hsi_bands, weights)
    high = _level(msi, None if alignment is None else alignment.msi_window, msi_bands, size=size)
    return same if low is None or high is None or min(low, high) <= 0 else _settled(same, low, high)


def name_quantity(hsi: CubeReader, msi: CubeReader) -> Settled:
    """The HSI with its quantity told by figures where its metadata don't say it.

    A pair in reflectance x 10,000 without a word about it, brought to one unit before, becomes reflectance 0 to 1.
    """
    if hsi.quantity != "unknown":
        return Settled(hsi, msi)
    guess = guess_scale(hsi)
    told = note("quantity-guessed", what="HSI", guess=guess.note)
    if guess.scale != 1 and says_unit(msi):
        return Settled(hsi, msi, (told,))
    hsi = hsi.holding(guess.quantity)
    if guess.scale == 1:
        return Settled(hsi, msi, (told,))
    told = note("quantity-multiplied", guess=guess.note, factor=guess.scale)
    return Settled(hsi.rescaled(guess.scale), msi.rescaled(guess.scale), (told,))


def follow_quantity(reader: CubeReader, other: CubeReader) -> tuple[CubeReader, int | None]:
    """One image in the unit of another of the same ground, as `settle_quantity` brings it.

    Only when it doesn't say its own unit and figures differ by about 100, 1000 or 10,000. With it the power of ten by
    which its level lies above the other's as both were; None where the figures don't tell it.
    """
    own, wanted = _level(reader, None), _level(other, None)
    if own is None or wanted is None or min(own, wanted) <= 0:
        return reader, None
    power = round(log10(own / wanted))
    if says_unit(reader) or abs(power) not in _POWERS:
        return reader, power
    return reader.rescaled(10.0**-power), power


def different_dates(hsi: CubeReader, msi: CubeReader) -> Note | None:
    """What to say when both images tell their day of acquisition (tag ACQUIRED) and it isn't the same."""
    days = [_day(reader.tags.get("ACQUIRED", "")) for reader in (hsi, msi)]
    if days[0] is None or days[1] is None or days[0] == days[1]:
        return None
    days_apart = abs((days[0] - days[1]).days)
    apart = counted(days_apart, "day")
    return note("days-apart", hsi=str(days[0]), msi=str(days[1]), days=days_apart, apart=apart)


def _settled(pair: Settled, low: float, high: float) -> Settled:
    ratio = high / low
    if 1 / SAME_LEVEL <= ratio <= SAME_LEVEL:
        return pair
    power = round(log10(ratio))
    if abs(power) > max(_POWERS):
        return replace(pair, warnings=(warning("levels-far-apart", ratio=ratio),))
    if abs(power) not in _POWERS:
        return replace(pair, notes=(note("levels-apart", ratio=ratio),))
    free = [name for name, reader in (("HSI", pair.hsi), ("MSI", pair.msi)) if not says_unit(reader)]
    if not free:
        return replace(pair, warnings=(warning("levels-contradict", ratio=ratio),))
    follows = free[0] if len(free) == 1 else _follower(low, high)
    factor = 10.0 ** (power if follows == "HSI" else -power)
    told = note("units-settled", ratio=ratio, image=follows, factor=factor)
    if follows == "HSI":
        return replace(pair, hsi=pair.hsi.rescaled(factor), notes=(told,))
    return replace(pair, msi=pair.msi.rescaled(factor), notes=(told,))


def _follower(low: float, high: float) -> str:
    """Which of two images without units is changed: the one that can't be reflectance, else the MSI."""
    return "HSI" if low > MOST_REFLECTANCE >= high else "MSI"


def says_unit(reader: CubeReader) -> bool:
    """Whether an image's metadata tell what its numbers are, or by what they are scaled."""
    return reader.quantity != "unknown" or _has_scale(reader)


def _has_scale(reader: CubeReader) -> bool:
    return bool((reader.scales != 1).any() or (reader.offsets != 0).any())


def _level(
    reader: CubeReader,
    extent: Window | None,
    bands: Sequence[int] | None = None,
    weights: NDArray[np.float64] | None = None,
    size: int = _BLOCK,
) -> float | None:
    """Median over valid pixels of the mean over bands; None without a valid pixel."""
    means = []
    for data in _blocks(reader, extent, bands, size):
        seen = data if weights is None else weights @ data
        means.append(seen.mean(axis=0))
    values = np.concatenate(means) if means else np.array([])
    return float(np.median(values)) if values.size else None


def _percentiles(reader: CubeReader) -> tuple[float, float] | None:
    """The 1st and 99th percentile of all valid values; None without a valid pixel."""
    bands = np.flatnonzero(usable_bands(reader)).tolist() or None
    values = [data.ravel() for data in _blocks(reader, None, bands)]
    if not values:
        return None
    low, high = np.percentile(np.concatenate(values), (1, 99))
    return float(low), float(high)


def _blocks(
    reader: CubeReader, extent: Window | None, bands: Sequence[int] | None = None, size: int = _BLOCK
) -> Iterator[NDArray[np.float32]]:
    """Valid pixels (C, n) of blocks spread over an extent (default: all), where there are any."""
    extent = extent or Window(0, 0, reader.grid.shape[1], reader.grid.shape[0])
    before = reader.nonfinite
    try:
        for window in blocks(extent, size):
            cube = reader.read(window, bands)
            if cube.mask.any():
                yield cube.data[:, cube.mask]
    finally:
        reader.nonfinite = before  # this look isn't part of the caller's reading


def _day(text: str) -> date | None:
    try:
        return date.fromisoformat(text[:_DAY])
    except ValueError:
        return None

"""What warping gets wrong of an LRHSI, made good by the MSI.

An LRHSI is aliased: its detail near the Nyquist frequency can't be interpolated. But the MSI shows most of it. With m
the MSI blurred by the PSF, which is known anywhere, and G the regression of spectra on it,

    warp(L - G m at L's own pixels) + G m at the pixels wanted  =  warp(L) + G (m there - warp(m at L's own pixels)),

so that what goes with the MSI isn't interpolated at all, and the rest, which is smooth, alone is.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import ceil, floor, sqrt
from typing import TYPE_CHECKING

import numpy as np
import torch
from rasterio.windows import Window
from scipy.ndimage import minimum_filter

from hsfuse.core.cube import BoolArray, Cube, FloatArray
from hsfuse.core.grid import within
from hsfuse.pair.mapping import Floats
from hsfuse.pair.sample import RIDGE, block_windows
from hsfuse.pair.warp import WarpedReader, resampled
from hsfuse.physics.model import ObservationModel
from hsfuse.physics.solve import solve_spd

if TYPE_CHECKING:
    from hsfuse.pair.pair import ScenePair

#: Share of the warp's weight that must lie on pixels under which the whole of the MSI is known.
WHOLE = 0.999
#: MSI pixels that the interpolation of the blurred MSI reaches.
KEYS = 2
#: Side in LR pixels of a window of pixels, at least, and into how many the scene is cut along an axis at most.
SIDE, ACROSS = 2, 8


def with_detail(pair: ScenePair) -> tuple[ScenePair, float]:
    """A warped pair with the gains G (C, c), by a regression of the warped spectra on the MSI warped alike.

    And how much is made good, RMS relative to the LRHSI's contrast; without gains, and 0, where too little is known.
    Bands of a detector that lies apart are warped, and made good, by themselves; so are they of a pair not warped.
    """
    pair = replace(pair, gains=None)
    gains, lost, power = np.zeros((len(pair.hsi_bands), len(pair.msi_bands)), np.float32), 0.0, 0.0
    for detector, bands in _warps(pair):
        parts = []
        for window in block_windows(pair.lr_shape, pair.ratio):
            low = pair.read_lr(window)
            there, own, known = _both(pair, detector, window)
            parts.append([one[:, low.mask & known] for one in (own, low.data[bands], there - own)])
        x, y, off = (torch.from_numpy(np.concatenate(part, 1).astype(np.float64)) for part in zip(*parts, strict=True))
        if x.shape[1] <= 4 * len(x):
            return pair, 0.0
        x, y = (part - part.mean(1, keepdim=True) for part in (x, y))
        found = solve_spd(x @ x.T, x @ y.T, RIDGE).T
        gains[bands] = found.float().numpy()
        lost, power = lost + float((found @ off).square().mean(1).sum()), power + float(y.square().mean(1).sum())
    return replace(pair, gains=gains), sqrt(lost / power)


def missing_detail(pair: ScenePair, window: Window) -> FloatArray:
    """What the gains make good of what warping has changed of the MSI as LR pixels see it: (C, h, w) of a window of the
    common extent, in LR pixels.

    Zero where the MSI isn't known under all pixels that have a part in one.
    """
    assert pair.gains is not None
    found = np.zeros((len(pair.gains), window.height, window.width), np.float32)
    for detector, bands in _warps(pair):
        there, own, known = _both(pair, detector, window)
        found[bands] = np.tensordot(pair.gains[bands], np.where(known, there - own, np.float32(0)), 1)
    return found


def _warps(pair: ScenePair) -> Iterator[tuple[WarpedReader, list[int]]]:
    """What warps, and which of the bands in use it warps: all, but for those of a detector that lies apart."""
    reader = pair.hsi
    assert isinstance(reader, WarpedReader)
    moved = frozenset() if reader.apart is None else reader.apart[0]
    if pair.warped:
        yield reader, [i for i, band in enumerate(pair.hsi_bands) if band not in moved]
    if moved:
        yield reader.detector, [i for i, band in enumerate(pair.hsi_bands) if band in moved]


def looked_at(pair: ScenePair, window: Window) -> Window:
    """LR pixels of the common extent that hold all of the MSI that reading a window of them asks for."""
    into, found = pair.alignment.hsi_window, [_own(window)]
    for detector, _ in _warps(pair):
        for rows, cols in detector.places(within(window, into)):
            found.append(_under(pair, rows - into.row_off, cols - into.col_off))
    spans = [(min(one[0] for one in axis), max(one[1] for one in axis)) for axis in zip(*found, strict=True)]
    (top, bottom), (left, right) = spans
    return Window(left, top, right - left, bottom - top)


def _own(window: Window) -> tuple[tuple[int, int], tuple[int, int]]:
    return (window.row_off, window.row_off + window.height), (window.col_off, window.col_off + window.width)


def _both(pair: ScenePair, reader: WarpedReader, window: Window) -> tuple[FloatArray, FloatArray, BoolArray]:
    """The blurred MSI at the LR pixels of a window, and as warping brings it there, (c, h, w); where both are known."""
    into = pair.alignment.hsi_window

    def look(rows: Floats, cols: Floats) -> FloatArray:
        return _seen(pair, rows - into.row_off, cols - into.col_off)

    own = reader.carried(within(window, into), look, len(pair.msi_bands) + 1)
    rows = np.arange(window.height)[:, None] + window.row_off + 0.5
    cols = np.arange(window.width)[None] + window.col_off + 0.5
    there = _seen(pair, *np.broadcast_arrays(rows, cols))
    return there[:-1], own[:-1], (there[-1] >= WHOLE) & (own[-1] >= WHOLE)


def _at(model: ObservationModel, places: Floats) -> Floats:
    """Where LR pixels whose centres lie at `places` along an axis are seen, in MSI pixels."""
    return model.ratio * (places - 0.5) + model.phase + 0.5


def _under(pair: ScenePair, rows: Floats, cols: Floats) -> tuple[tuple[int, int], tuple[int, int]]:
    """LR pixels of the common extent, first and one past the last, whose MSI pixels tell what is seen at places."""
    reach, spans = pair.model.psf.size // 2 + KEYS + 1, []
    for v, n in zip((rows, cols), pair.lr_shape, strict=True):
        at = _at(pair.model, v[np.isfinite(v)])
        first, last = (at.min() - reach, at.max() + reach) if at.size else (0.0, 0.0)
        first = min(max(0, floor(first / pair.ratio)), n - 1)
        spans.append((first, min(max(first + 1, ceil(last / pair.ratio)), n)))
    return spans[0], spans[1]


@dataclass(frozen=True)
class Blurred:
    """The MSI as LR pixels see it that lie anywhere, `planes` (c + 1, H, W): at last 1 where it is known, else 0.

    `window` is what it covers of the MSI's common extent, `model` whose PSF it was blurred by.
    """

    planes: FloatArray
    window: Window
    model: ObservationModel

    def at(self, rows: Floats, cols: Floats) -> FloatArray:
        """At places (m, n) of the common extent, in LR pixels, whole numbers being pixel corners: (c + 1, m, n)."""
        down, right = (_at(self.model, v) - self.model.blur_phase for v in (rows, cols))
        return resampled(self.planes, (down, right), self.window)

    def known(self, rows: Floats, cols: Floats, around: float) -> BoolArray:
        """Whether it is known at the corners of a square `around` LR pixels either way about places (m, n)."""
        corners = [self.at(rows + y, cols + x)[-1] >= WHOLE for y in (-around, around) for x in (-around, around)]
        return np.asarray(np.all(corners, axis=0))


def blurred_msi(pair: ScenePair, rows: Floats, cols: Floats) -> Blurred:
    """All of it that places (m, n) ask for."""
    model, s = pair.model, pair.ratio
    (top, bottom), (left, right) = _under(pair, rows, cols)
    window = Window(left * s, top * s, (right - left) * s, (bottom - top) * s)
    cube = pair.own_msi(window)  # gains and offsets are G's matter, and haze is smooth
    blurred = model.blur(torch.from_numpy(cube.data)[None].to(model.srf.device))[0].cpu().numpy()
    # Beyond the common extent nothing is known; the outer half of the PSF's taps weighs little.
    known = minimum_filter(cube.mask, max(1, model.psf.size // 2), mode="constant", cval=0)
    return Blurred(np.concatenate([blurred, known[None].astype(np.float32)]), window, model)


def _seen(pair: ScenePair, rows: Floats, cols: Floats) -> FloatArray:
    """The blurred MSI at places (m, n) and whether it is known there, (c + 1, m, n)."""
    return blurred_msi(pair, rows, cols).at(rows, cols)


def own_pixels(pair: ScenePair, window: Window) -> tuple[Cube, Floats, Floats]:
    """The LRHSI's own pixels under a window, rows and columns (h, w) at which they lie in the common extent."""
    reader, into = pair.hsi, pair.alignment.hsi_window
    if not isinstance(reader, WarpedReader):
        rows, cols = np.indices((window.height, window.width)) + 0.5
        return reader.read(within(window, into), pair.hsi_bands), rows + window.row_off, cols + window.col_off
    source, part = reader.source_part(within(window, into))
    rows, cols = reader.back(part)
    return source.read(part, pair.hsi_bands), rows - into.row_off, cols - into.col_off


def shares(rows: Floats, cols: Floats, extent: tuple[int, int]) -> tuple[Floats, Floats]:
    """Places as shares of the scene, from its middle."""
    return rows / extent[0] - 0.5, cols / extent[1] - 0.5


def windows_of(y: Floats, x: Floats, extent: tuple[int, int]) -> np.ndarray:
    """In which of some windows each place (n,) lies, numbered from 0 without gaps."""
    index = []
    for v, size in zip((y, x), extent, strict=True):
        count = int(np.clip(size // SIDE, 1, ACROSS))
        index.append(np.clip(((v + 0.5) * count).astype(int), 0, count - 1))
    return np.unique(index[0] * ACROSS + index[1], return_inverse=True)[1]

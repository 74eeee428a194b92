"""What warping gets wrong of an LRHSI, made good by the MSI.

An LRHSI is aliased: its detail near the Nyquist frequency can't be interpolated. But the MSI shows most of it. With m
the MSI blurred by the PSF, which is known anywhere, and G the regression of spectra on it,

    warp(L - G m at L's own pixels) + G m at the pixels wanted  =  warp(L) + G (m there - warp(m at L's own pixels)),

so that what goes with the MSI isn't interpolated at all, and the rest, which is smooth, alone is.
"""

from __future__ import annotations

from dataclasses import replace
from math import ceil, floor
from typing import TYPE_CHECKING

import numpy as np
import torch
from rasterio.windows import Window
from scipy.ndimage import correlate1d, minimum_filter

from hsfuse.core.cube import BoolArray, FloatArray
from hsfuse.pair.mapping import Floats
from hsfuse.pair.sample import RIDGE, block_windows
from hsfuse.pair.warp import WarpedReader, resampled
from hsfuse.physics.solve import solve_spd

if TYPE_CHECKING:
    from hsfuse.pair.pair import ScenePair

#: Share of the warp's weight that must lie on pixels under which the whole of the MSI is known.
WHOLE = 0.999
#: MSI pixels that the interpolation of the blurred MSI reaches.
KEYS = 2


def with_detail(pair: ScenePair) -> ScenePair:
    """A warped pair with the gains G (C, c), by a regression of the warped spectra on the MSI warped alike."""
    seen, spectra = [], []
    for window in block_windows(pair.lr_shape, pair.ratio):
        low = replace(pair, gains=None).read_lr(window)
        _, own, known = _both(pair, window)
        valid = low.mask & known
        seen.append(own[:, valid])
        spectra.append(low.data[:, valid])
    x, y = (np.concatenate(part, 1).astype(np.float64) for part in (seen, spectra))
    if x.shape[1] <= 4 * len(x):
        return replace(pair, gains=None)
    x, y = (part - part.mean(1, keepdims=True) for part in (x, y))
    a, b = torch.from_numpy(x), torch.from_numpy(y)
    return replace(pair, gains=solve_spd(a @ a.T, a @ b.T, RIDGE).T.float().numpy())


def share_of_contrast(pair: ScenePair) -> float:
    """RMS of what is made good in a sample of the scene, relative to the LRHSI's deviation from its mean."""
    made, spread = [], []
    for window in block_windows(pair.lr_shape, pair.ratio):
        low, warped = pair.read_lr(window), replace(pair, gains=None).read_lr(window)
        made.append(low.data[:, low.mask] - warped.data[:, low.mask])
        spread.append(warped.data[:, low.mask])
    change, ground = (np.concatenate(part, 1) for part in (made, spread))
    return float(np.sqrt(np.square(change).mean() / ground.var(1).mean()))


def missing_detail(pair: ScenePair, window: Window) -> FloatArray:
    """What warping has changed of the MSI as LR pixels see it: (c, h, w) of a window of the common extent.

    Zero where the MSI isn't known under all pixels that have a part in one.
    """
    there, own, known = _both(pair, window)
    return np.where(known, there - own, np.float32(0))


def looked_at(pair: ScenePair, window: Window) -> Window:
    """LR pixels of the common extent that hold all of the MSI that reading a window of them asks for."""
    reader, into = pair.hsi, pair.alignment.hsi_window
    assert isinstance(reader, WarpedReader)
    found = [_own(window)]
    for rows, cols in reader.places(_shifted(window, into)):
        found.append(_under(pair, rows - into.row_off, cols - into.col_off))
    spans = [(min(one[0] for one in axis), max(one[1] for one in axis)) for axis in zip(*found, strict=True)]
    (top, bottom), (left, right) = spans
    return Window(left, top, right - left, bottom - top)


def _own(window: Window) -> tuple[tuple[int, int], tuple[int, int]]:
    return (window.row_off, window.row_off + window.height), (window.col_off, window.col_off + window.width)


def _shifted(window: Window, into: Window) -> Window:
    return Window(into.col_off + window.col_off, into.row_off + window.row_off, window.width, window.height)


def _both(pair: ScenePair, window: Window) -> tuple[FloatArray, FloatArray, BoolArray]:
    """The blurred MSI at the LR pixels of a window, and as warping brings it there, (c, h, w); where both are known."""
    reader, into = pair.hsi, pair.alignment.hsi_window
    assert isinstance(reader, WarpedReader)

    def look(rows: Floats, cols: Floats) -> FloatArray:
        return _seen(pair, rows - into.row_off, cols - into.col_off)

    own = reader.carried(_shifted(window, into), look, len(pair.msi_bands) + 1)
    rows = np.arange(window.height)[:, None] + window.row_off + 0.5
    cols = np.arange(window.width)[None] + window.col_off + 0.5
    there = _seen(pair, *np.broadcast_arrays(rows, cols))
    return there[:-1], own[:-1], (there[-1] >= WHOLE) & (own[-1] >= WHOLE)


def _at(pair: ScenePair, places: Floats) -> Floats:
    """Where LR pixels whose centres lie at `places` along an axis are seen, in MSI pixels."""
    return pair.ratio * (places - 0.5) + pair.model.phase + 0.5


def _under(pair: ScenePair, rows: Floats, cols: Floats) -> tuple[tuple[int, int], tuple[int, int]]:
    """LR pixels of the common extent, first and one past the last, whose MSI pixels tell what is seen at places."""
    reach, spans = pair.model.psf.size // 2 + KEYS + 1, []
    for v, n in zip((rows, cols), pair.lr_shape, strict=True):
        at = _at(pair, v[np.isfinite(v)])
        first, last = (at.min() - reach, at.max() + reach) if at.size else (0.0, 0.0)
        first = min(max(0, floor(first / pair.ratio)), n - 1)
        spans.append((first, min(max(first + 1, ceil(last / pair.ratio)), n)))
    return spans[0], spans[1]


def _seen(pair: ScenePair, rows: Floats, cols: Floats) -> FloatArray:
    """The MSI as LR pixels see it that lie at places of the common extent, in LR pixels, and 1 where it is known there.

    (m, n) twice -> (c + 1, m, n). Whole numbers are pixel corners.
    """
    psf, s = pair.model.psf, pair.ratio
    (top, bottom), (left, right) = _under(pair, rows, cols)
    window = Window(left * s, top * s, (right - left) * s, (bottom - top) * s)
    cube = pair.own_msi(window)  # gains and offsets are G's matter, and haze is smooth
    blurred = np.zeros_like(cube.data)
    for down, across in psf.separable_terms():
        blurred += correlate1d(correlate1d(cube.data, down, 1), across, 2)
    # Beyond the common extent nothing is known; the outer half of the PSF's taps weighs little.
    known = minimum_filter(cube.mask, max(1, psf.size // 2), mode="constant", cval=0)
    even = 0.5 * (psf.size % 2 == 0)  # taps between pixels: what is blurred lies on their corners
    places = _at(pair, rows) + even, _at(pair, cols) + even
    return resampled(np.concatenate([blurred, known[None].astype(np.float32)]), places, window)

"""What warping gets wrong of an LRHSI, made good by the MSI.

An LRHSI is aliased: its detail near the Nyquist frequency can't be interpolated. But the MSI shows most of it. With m
the MSI blurred by the PSF, which is known anywhere, and G the regression of spectra on it,

    warp(L - G m at L's own pixels) + G m at the pixels wanted  =  warp(L) + G (m there - warp(m at L's own pixels)),

so that what goes with the MSI isn't interpolated at all, and the rest, which is smooth, alone is.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import ceil, floor
from typing import TYPE_CHECKING

import numpy as np
import torch
from rasterio.windows import Window
from scipy.ndimage import minimum_filter

from hsfuse.core.cube import BoolArray, FloatArray
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


def with_detail(pair: ScenePair) -> tuple[ScenePair, float]:
    """A warped pair with the gains G (C, c), by a regression of the warped spectra on the MSI warped alike.

    And how much is made good, RMS relative to the LRHSI's contrast; without gains, and 0, where too little is known.
    """
    pair, parts = replace(pair, gains=None), []
    for window in block_windows(pair.lr_shape, pair.ratio):
        low = pair.read_lr(window)
        there, own, known = _both(pair, window)
        parts.append([one[:, low.mask & known] for one in (own, low.data, there - own)])
    x, y, lost = (torch.from_numpy(np.concatenate(part, 1).astype(np.float64)) for part in zip(*parts, strict=True))
    if x.shape[1] <= 4 * len(x):
        return pair, 0.0
    x, y = (part - part.mean(1, keepdim=True) for part in (x, y))
    gains = solve_spd(x @ x.T, x @ y.T, RIDGE).T
    share = ((gains @ lost).square().mean() / y.square().mean()).sqrt()
    return replace(pair, gains=gains.float().numpy()), float(share)


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
    for rows, cols in reader.places(within(window, into)):
        found.append(_under(pair, rows - into.row_off, cols - into.col_off))
    spans = [(min(one[0] for one in axis), max(one[1] for one in axis)) for axis in zip(*found, strict=True)]
    (top, bottom), (left, right) = spans
    return Window(left, top, right - left, bottom - top)


def _own(window: Window) -> tuple[tuple[int, int], tuple[int, int]]:
    return (window.row_off, window.row_off + window.height), (window.col_off, window.col_off + window.width)


def _both(pair: ScenePair, window: Window) -> tuple[FloatArray, FloatArray, BoolArray]:
    """The blurred MSI at the LR pixels of a window, and as warping brings it there, (c, h, w); where both are known."""
    reader, into = pair.hsi, pair.alignment.hsi_window
    assert isinstance(reader, WarpedReader)

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

"""The shift between an LRHSI and its MSI: found roughly by phase correlation, then by least squares over windows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import hypot, inf

import numpy as np
from numpy.typing import NDArray
from skimage.registration import phase_cross_correlation

from hsfuse.cube import BoolArray, FloatArray
from hsfuse.physics import ObservationModel
from hsfuse.registration.field import Drift, LocalShift, combined, drift_of
from hsfuse.registration.view import Block, View

#: Sides of the windows in LR pixels: a third of the block within these.
WINDOW = 8, 32
#: Least valid pixels of a window, share of a block that a trial shift must leave valid.
MIN_PIXELS, MIN_SHARE = 36, 0.2
#: Below this correlation with the MSI a band of a window says nothing about the shift.
MIN_CORRELATION = 0.5
#: How much more correlation another place must have to be preferred to no shift.
CLEARLY = 0.01
#: A window whose own uncertainty is larger (LR pixels) doesn't count.
MAX_WINDOW_SD = 0.5
#: Steps of the refinement, and the step (LR pixels) that ends it.
STEPS, SMALL_STEP = 12, 0.002
UPSAMPLE = 10


@dataclass(frozen=True)
class Shift:
    """LR pixels by which the LRHSI's content lies below (`dy`) and right (`dx`) of where the MSI has it.

    `sd` is the standard error of the worse of the two, from the spread over `windows` windows (inf: can't be told),
    `correlation` that of the two images at this shift; `field` holds what each window says, `drift` the linear change
    over the scene that is seen in it, if any (a shear, a stretch, a turn).
    """

    dy: float
    dx: float
    sd: float
    windows: int
    correlation: float
    field: tuple[LocalShift, ...] = ()
    drift: Drift | None = None

    @property
    def length(self) -> float:
        """Of the shift, in LR pixels."""
        return hypot(self.dy, self.dx)

    def describe(self) -> str:
        """One line for people."""
        if self.sd == inf:
            return "the shift can't be told: no window of the two images agrees well enough"
        text = f"{self.dy:+.3f} rows, {self.dx:+.3f} columns in LR pixels, sd {self.sd:.3f}, {self.windows} windows"
        return text if self.drift is None else f"{text}, drifting by up to {self.drifting:.2f} over the scene"

    @property
    def drifting(self) -> float:
        """Largest difference of the drift between two windows, in LR pixels."""
        if self.drift is None:
            return 0.0
        places = np.array([self.drift.at(local.row, local.col) for local in self.field])
        return float(np.hypot(*np.ptp(places, axis=0)))


UNKNOWN = Shift(0.0, 0.0, inf, 0, 0.0)


def estimate_shift(
    lrhsi: FloatArray,
    msi: FloatArray,
    model: ObservationModel,
    mask: BoolArray | None = None,
    msi_mask: BoolArray | None = None,
    smooth: float = 0.0,
) -> Shift:
    """Shift of an LRHSI seen through the response (c, h, w) against its MSI (c, H, W); masks (h, w), (H, W).

    See `shift_of_blocks`.
    """
    lr_mask = np.ones(lrhsi.shape[1:], bool) if mask is None else mask
    hr_mask = np.ones(msi.shape[1:], bool) if msi_mask is None else msi_mask
    return shift_of_blocks([Block(lrhsi, msi, lr_mask, hr_mask)], model, smooth)


def shift_of_blocks(blocks: Sequence[Block], model: ObservationModel, smooth: float = 0.0) -> Shift:
    """One shift for all blocks.

    Phase correlation (Kuglin and Hines 1975; scikit-image) proposes places, the best correlated one is refined by
    Gauss-Newton steps (Lucas and Kanade 1981) on the model of both images, lrhsi = gain msi(shift) + offset, gain and
    offset free in each window and band. Windows are combined by a weighted mean without outliers at every step.

    `smooth` (LR pixels, a Gaussian's) takes the finest detail out of both images first. An LRHSI that was resampled
    needs it: interpolation moves what is aliased the wrong way, which looks like a part of the shift left over.
    """
    shift, found = _place(blocks, model), None
    for _ in range(STEPS):
        found = _refined(blocks, model, shift, smooth)
        if found is None:
            return UNKNOWN
        step = found.dy - shift[0], found.dx - shift[1]
        shift = shift[0] + float(np.clip(step[0], -1, 1)), shift[1] + float(np.clip(step[1], -1, 1))
        if hypot(*step) < SMALL_STEP:
            break
    assert found is not None
    return found


def _place(blocks: Sequence[Block], model: ObservationModel) -> tuple[float, float]:
    """The best correlated of the places that phase correlation proposes; no shift unless another is clearly better."""
    looks = [block.looks(model, (0.0, 0.0)) for block in blocks]
    proposed = [place for look in looks if (place := _proposed(*look)) is not None]
    best, score = (0.0, 0.0), _mean_correlation(blocks, looks) + CLEARLY
    if proposed:
        dy, dx = np.median(np.array(proposed), axis=0).tolist()
        proposed.append((dy, dx))
    for place in dict.fromkeys(proposed):
        correlation = _mean_correlation(blocks, [block.looks(model, place) for block in blocks])
        if correlation > score:
            best, score = place, correlation
    return best


def _proposed(lr: FloatArray, view: View) -> tuple[float, float] | None:
    """Median over the bands of the shift by phase correlation; None where there is nothing to correlate."""
    if view.valid.mean() < MIN_SHARE:
        return None
    found = []
    taper = np.outer(*(np.hanning(n + 2)[1:-1] for n in view.valid.shape))
    for x, y in zip(lr, view.data, strict=True):
        x, y = (np.where(view.valid, plane - plane[view.valid].mean(), 0) * taper for plane in (x, y))
        if x.any() and y.any():
            for how in ("phase", None):
                found.append(phase_cross_correlation(x, y, upsample_factor=UPSAMPLE, normalization=how)[0])
    if not found:
        return None
    dy, dx = np.median(found, axis=0)
    return float(dy), float(dx)


def _mean_correlation(blocks: Sequence[Block], looks: Sequence[tuple[FloatArray, View]]) -> float:
    """Mean over blocks and bands of the correlation where both are valid; 0 for a block with too little of that."""
    found = []
    for block, (lr, view) in zip(blocks, looks, strict=True):
        enough = view.valid.sum() >= MIN_SHARE * max(1, block.lr_mask.sum())
        for x, y in zip(lr, view.data, strict=True):
            found.append(_correlation(x[view.valid], y[view.valid]) if enough else 0.0)
    return float(np.mean(found)) if found else 0.0


def _correlation(x: NDArray, y: NDArray) -> float:
    x, y = x - x.mean(), y - y.mean()
    power = float(x @ x) * float(y @ y)
    return float(x @ y) / np.sqrt(power) if power > 0 else 0.0


def _refined(
    blocks: Sequence[Block], model: ObservationModel, shift: tuple[float, float], smooth: float
) -> Shift | None:
    """One step from a shift: what each window says, combined; None when no window says anything."""
    looks = [block.looks(model, shift, smooth) for block in blocks]
    found = [
        local for block, (lr, view) in zip(blocks, looks, strict=True) for local in _windows(block, lr, view, shift)
    ]
    if not found:
        return None
    (dy, dx), sd = combined(found)
    return Shift(dy, dx, sd, len(found), _mean_correlation(blocks, looks), tuple(found), drift_of(found))


def _windows(block: Block, lr: FloatArray, view: View, shift: tuple[float, float]) -> Iterator[LocalShift]:
    """What each window of a block says, for those that say something."""
    if not view.valid.any():
        return
    (top, h), (left, w) = (_extent(np.asarray(view.valid.any(axis=axis))) for axis in (1, 0))
    side = int(np.clip(min(h, w) // 3, *WINDOW))
    for row in range(top, top + max(1, h - side // 2), side):
        for col in range(left, left + max(1, w - side // 2), side):
            part = np.s_[row : row + side, col : col + side]
            step = _step(lr[:, *part], view, part)
            if step is not None:
                (dy, dx), sd = step
                middle = block.row + min(row + side / 2, top + h), block.col + min(col + side / 2, left + w)
                yield LocalShift(*middle, shift[0] + dy, shift[1] + dx, sd)


def _extent(valid: BoolArray) -> tuple[int, int]:
    """First True and the number of places from there to the last."""
    found = np.flatnonzero(valid)
    return int(found[0]), int(found[-1] - found[0] + 1)


def _step(lr: FloatArray, view: View, part: tuple[slice, slice]) -> tuple[tuple[float, float], float] | None:
    """Least-squares step (down, right) of a window and its standard deviation; None when it can't be told.

    Each band x = gain (d + step . slopes) + offset + noise: gain and offset are projected out, bands weigh 1 / noise.
    """
    valid = view.valid[part]
    if valid.sum() < MIN_PIXELS:
        return None
    normal, right = np.zeros((2, 2)), np.zeros(2)
    for band in range(len(lr)):
        planes = (lr[band], view.data[band][part], view.down[band][part], view.right[band][part])
        x, d, down, across = (plane[valid].astype(np.float64) - plane[valid].mean(dtype=float) for plane in planes)
        if _correlation(x, d) < MIN_CORRELATION:
            continue
        gain, power = x @ d / (d @ d), d @ d
        slopes = gain * np.stack([v - (v @ d) / power * d for v in (down, across)])
        rest = x - gain * d
        noise = rest @ rest / max(1, len(rest) - 4) + 1e-6 * (x @ x) / len(x)
        normal += slopes @ slopes.T / noise
        right += slopes @ rest / noise
    if not normal.any() or np.linalg.cond(normal) > 1e6:
        return None
    sd = float(np.sqrt(np.linalg.eigvalsh(np.linalg.inv(normal)).max()))
    dy, dx = np.linalg.solve(normal, right)
    return ((float(dy), float(dx)), sd) if sd < MAX_WINDOW_SD else None

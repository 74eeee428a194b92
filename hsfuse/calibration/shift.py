"""The shift between an LRHSI and its MSI: found roughly by phase correlation, then by least squares over windows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import floor, hypot, inf
from typing import Protocol

import numpy as np
from affine import Affine
from numpy.typing import NDArray
from rasterio.windows import Window
from scipy import sparse
from scipy.ndimage import gaussian_filter
from skimage.registration import phase_cross_correlation

from hsfuse.core.cube import BoolArray, Cube, FloatArray
from hsfuse.core.errors import GridError
from hsfuse.physics.model import MIN_PSF_WEIGHT, ObservationModel
from hsfuse.physics.optics import keys_slopes, keys_weights

Floats = NDArray[np.float64]

#: Values this many deviations off are left out, in so many rounds.
OUTLIER, ROUNDS = 3.0, 5
#: Variance (LR pixels squared) below which no window's own is believed.
FLOOR = 1e-6
#: A drift counts when it has this many windows, this many LR pixels and its standard error this many times over the
#: scene; more than the last makes no sense.
MIN_LOCAL_WINDOWS, MIN_DRIFT, SIGNIFICANT_LOCAL, MAX_DRIFT = 6, 0.03, 3.0, 1.5


@dataclass(frozen=True)
class LocalShift:
    """Shift of one window: its middle (row, col) in LR pixels of the scene, shift and uncertainty in LR pixels."""

    row: float
    col: float
    dy: float
    dx: float
    sd: float


@dataclass(frozen=True)
class Drift:
    """A shift that changes over the scene: LR pixels `down` and `right`, each @ (1, row, col) in LR pixels."""

    down: tuple[float, float, float]
    right: tuple[float, float, float]

    def at(self, row: float, col: float) -> tuple[float, float]:
        """Shift (dy, dx) in LR pixels at a place in LR pixels."""
        return (
            self.down[0] + self.down[1] * row + self.down[2] * col,
            self.right[0] + self.right[1] * row + self.right[2] * col,
        )

    def motion(self, ratio: int) -> Affine:
        """Where the LRHSI has what the MSI has at (column, row), both in MSI pixels of the common extent."""
        y, x = self.down, self.right
        return Affine(1 + x[2], x[1], x[0] * ratio, y[2], 1 + y[1], y[0] * ratio)


def combined(field: Sequence[LocalShift]) -> tuple[tuple[float, float], float]:
    """The windows' common shift (dy, dx) and the standard error of the worse of the two."""
    ones, sd = np.ones((len(field), 1)), np.array([local.sd for local in field])
    (dy, vy), (dx, vx) = (_fit(ones, np.array([getattr(w, name) for w in field]), sd) for name in ("dy", "dx"))
    return (float(dy[0]), float(dx[0])), float(np.sqrt(max(vy[0, 0], vx[0, 0])))


def drift_of(field: Sequence[LocalShift]) -> Drift | None:
    """The linear change of the shift over the scene; None where there is none that is significant and sensible."""
    rows, cols, sd = (np.array([getattr(w, name) for w in field]) for name in ("row", "col", "sd"))
    if len(field) < MIN_LOCAL_WINDOWS or np.ptp(rows) == 0 or np.ptp(cols) == 0:
        return None
    design = np.stack([np.ones(len(field)), rows, cols], axis=1)
    found = [_fit(design, np.array([getattr(w, name) for w in field]), sd) for name in ("dy", "dx")]
    size = np.array([np.ptp(rows), np.ptp(cols)])
    change = np.array([fit[0][1:] * size for fit in found])
    error = np.array([np.sqrt(np.diag(fit[1])[1:]) * size for fit in found])
    told = (np.abs(change) > np.maximum(MIN_DRIFT, SIGNIFICANT_LOCAL * error)).any()
    if not told or np.abs(change).max() > MAX_DRIFT:
        return None
    down, right = ((float(fit[0][0]), float(fit[0][1]), float(fit[0][2])) for fit in found)
    return Drift(down, right)


def _fit(design: Floats, values: Floats, sd: Floats) -> tuple[Floats, Floats]:
    """Weighted least squares (k,) without outliers, and its covariance (k, k) with the residuals' spread in it."""
    rest = values - _weighted_median(values, 1 / (sd**2 + FLOOR))
    for _ in range(ROUNDS):
        spread = 1.4826 * _weighted_median(np.abs(rest), 1 / (sd**2 + FLOOR))
        weight = 1 / (sd**2 + spread**2 + FLOOR)
        weight[np.abs(rest) > OUTLIER * np.maximum(sd, spread) + FLOOR] *= 1e-9  # kept in, so that it can be solved
        covariance = np.asarray(np.linalg.inv((design * weight[:, None]).T @ design), np.float64)
        coefficients = covariance @ (design.T @ (weight * values))
        rest = values - design @ coefficients
    return coefficients, covariance


def _weighted_median(values: Floats, weight: Floats) -> float:
    order = np.argsort(values)
    total = np.cumsum(weight[order])
    return float(values[order[np.searchsorted(total, total[-1] / 2)]])


@dataclass(frozen=True)
class View:
    """MSI at LR (c, h, w), its derivatives by the shift (LR pixels) down and right, and where it is valid (h, w)."""

    data: FloatArray
    down: FloatArray
    right: FloatArray
    valid: BoolArray


@dataclass(frozen=True)
class Block:
    """Both images of a piece of ground: LRHSI by the response (c, h, w), MSI (c, H, W), masks, place in LR pixels."""

    lr: FloatArray
    msi: FloatArray
    lr_mask: BoolArray
    msi_mask: BoolArray
    row: int = 0
    col: int = 0

    def looks(
        self, model: ObservationModel, shift: tuple[float, float], smooth: float = 0.0
    ) -> tuple[FloatArray, View]:
        """LRHSI (c, h, w) and `view`, both blurred alike by a Gaussian of `smooth` LR pixels over what is valid."""
        view = self.view(model, shift)
        if smooth == 0:
            return self.lr, view
        planes = np.concatenate([self.lr, view.data, view.down, view.right, np.ones_like(self.lr[:1])])
        blurred = gaussian_filter(planes * view.valid, (0, smooth, smooth), mode="constant", truncate=3)
        lr, data, down, right = np.split(blurred[:-1] / np.maximum(blurred[-1], 1e-6), 4)
        return lr, View(data, down, right, view.valid)

    def view(self, model: ObservationModel, shift: tuple[float, float]) -> View:
        """The MSI degraded by the model, its content `shift` (down, right) LR pixels off; invalid pixels don't count.

        X(p) = Y(p - shift): the shift goes into the PSF's taps (Keys' cubic convolution between MSI pixels), so the MSI
        itself is never resampled. LR pixels whose PSF reaches out of the block are invalid.
        """
        planes = np.concatenate([self.msi * self.msi_mask, self.msi_mask[None].astype(np.float32)])
        total: FloatArray | None = None
        for rows, cols in model.psf.separable_terms():
            down = _taps(rows, shift[0], self.lr.shape[1], model)
            right = _taps(cols, shift[1], self.lr.shape[2], model)
            part = np.stack([_both(planes, down[i], right[j]) for i, j in ((0, 0), (1, 0), (0, 1))])
            total = part if total is None else total + part
        assert total is not None
        valid = (total[0, -1] >= MIN_PSF_WEIGHT) & self.lr_mask
        weight = np.where(valid, total[:, -1], np.array([1, 0, 0], np.float32)[:, None, None])
        data = total[0, :-1] / weight[0]
        slopes = (total[1:, :-1] - data * weight[1:, None]) / weight[0]
        return View(data, slopes[0], slopes[1], valid)


def _taps(
    taps: NDArray[np.float64], shift: float, n: int, model: ObservationModel
) -> tuple[sparse.csr_array, sparse.csr_array]:
    """Blur, shift and decimation along one axis, (n, n s), and its derivative by the shift; nothing beyond the ends."""
    s = model.ratio
    offset = -shift * s
    whole = floor(offset)
    first = round(model.phase - (len(taps) - 1) / 2) + whole - 1
    weights = keys_weights(offset - whole), -s * keys_slopes(offset - whole)
    made = []
    for four in weights:
        spread = np.convolve(taps, four)
        index = first + np.arange(n)[:, None] * s + np.arange(len(spread))
        inside = (index >= 0) & (index < n * s)
        rows = np.broadcast_to(np.arange(n)[:, None], index.shape)
        values = np.broadcast_to(spread, index.shape)[inside].astype(np.float32)
        made.append(sparse.csr_array((values, (rows[inside], index[inside])), shape=(n, n * s)))
    return made[0], made[1]


def _both(planes: FloatArray, down: sparse.csr_array, right: sparse.csr_array) -> FloatArray:
    """A matrix applied to the rows and one to the columns of (c, H, W): (c, h, w)."""
    c, high, wide = planes.shape
    rows = down @ planes.transpose(1, 0, 2).reshape(high, c * wide)
    turned = rows.reshape(-1, c, wide).transpose(2, 1, 0)
    both = right @ turned.reshape(wide, -1)
    return np.ascontiguousarray(both.reshape(right.shape[0], c, -1).transpose(1, 2, 0), dtype=np.float32)


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


#: Largest shift, in LR pixels, that is taken for one of georeferencing.
SHIFT_LIMIT = 3.0
#: A shift below this many MSI pixels, or this many deviations, is none.
NO_SHIFT, SIGNIFICANT = 0.1, 2.0
#: Uncertainty in LR pixels above which a shift isn't known, and fewest windows that can tell it.
MAX_SD, MIN_WINDOWS = 0.25, 3
#: Blocks that are looked at: at most so many along each axis, so many LR and MSI pixels wide, of so many MSI bands.
BLOCKS, LR_SIDE, HR_SIDE, BANDS = 3, 128, 512, 6
#: Blur (LR pixels) under which a resampled LRHSI is compared.
SMOOTH = 1.5
#: Least share of valid LR pixels in a block.
MIN_VALID = 0.1


class Pair(Protocol):
    """An open pair on one nested grid: `ScenePair` is one."""

    model: ObservationModel

    @property
    def lr_shape(self) -> tuple[int, int]:
        """Rows and columns of the common extent in LR pixels."""

    def read_lr(self, window: Window) -> Cube:
        """LRHSI (C, h, w), all bands of the model's response, in a window in LR pixels."""

    def read_hr(self, window: Window) -> Cube:
        """MSI (c, H, W) in a window in MSI pixels."""


def register(pair: Pair, warped: bool = False) -> Shift:
    """Shift of a pair's LRHSI against its MSI, from up to 3 x 3 blocks spread over the scene; see `shift_of_blocks`.

    `warped` says that the LRHSI was resampled (`Nesting.warped`).
    """
    blocks = list(_blocks(pair))
    return shift_of_blocks(blocks, pair.model, SMOOTH if warped else 0.0) if blocks else UNKNOWN


def rough_shift(pair: Pair) -> tuple[float, float]:
    """Shift (dy, dx) in LR pixels that phase correlation sees, (0, 0) where no other place is clearly better."""
    blocks = list(_blocks(pair))
    return _place(blocks, pair.model) if blocks else (0.0, 0.0)


def _blocks(pair: Pair) -> Iterator[Block]:
    """Blocks with something valid in them, the LRHSI seen through the response."""
    model, s = pair.model, pair.model.ratio
    response = model.srf.cpu().numpy()
    bands = np.unique(np.linspace(0, len(response) - 1, min(BANDS, len(response))).round().astype(int))
    side = max(16, min(LR_SIDE, HR_SIDE // s))
    for row, h in _spread(pair.lr_shape[0], side):
        for col, w in _spread(pair.lr_shape[1], side):
            low = pair.read_lr(Window(col, row, w, h))
            if low.mask.mean() >= MIN_VALID:
                high = pair.read_hr(Window(col * s, row * s, w * s, h * s))
                matched = np.tensordot(response[bands], low.data, 1)
                yield Block(matched, high.data[bands], low.mask, high.mask, row, col)


def _spread(size: int, side: int) -> list[tuple[int, int]]:
    """First pixel and length of up to `BLOCKS` blocks over an axis: all of it where that is enough."""
    count = min(BLOCKS, -(-size // side))
    side = min(side, size)
    return [(int(first), side) for first in np.linspace(0, size - side, count).round()]


@dataclass(frozen=True)
class Verdict:
    """Whether a shift is to be corrected and why; `motion` is what `nest` corrects, on the MSI's common extent."""

    correct: bool
    motion: Affine
    note: str

    def motion_on(self, msi_window: Window) -> Affine:
        """`motion` in pixels of the whole MSI, of which `msi_window` is the common extent that was looked at."""
        corner = Affine.translation(msi_window.col_off, msi_window.row_off)
        return corner @ self.motion @ ~corner


def judge(shift: Shift, ratio: int, limit: float = SHIFT_LIMIT) -> Verdict:
    """What to do about a shift at a ratio `ratio`; GridError, in figures, when it is surely over `limit` LR pixels."""
    said = f"shift of the HSI against the MSI: {shift.describe()}"
    if shift.sd > MAX_SD or shift.windows < MIN_WINDOWS:
        return Verdict(False, Affine.identity(), f"{said}; too uncertain to be corrected")
    if shift.length > limit:
        raise GridError(
            f"the HSI is shifted against the MSI by {shift.length:.2f} LR pixels ({shift.dy:+.2f} rows, "
            f"{shift.dx:+.2f} columns, sd {shift.sd:.2f}, {shift.windows} windows), at most {limit:g} are "
            "corrected; check that both show the same place, or use --register off to go on without correction"
        )
    if shift.drift is not None and shift.drifting * ratio > 2 * NO_SHIFT:
        return Verdict(True, shift.drift.motion(ratio), f"{said}; corrected with its drift")
    if shift.length < max(NO_SHIFT / ratio, SIGNIFICANT * shift.sd):
        return Verdict(False, Affine.identity(), f"{said}; none to correct (below {NO_SHIFT} MSI pixels or its error)")
    return Verdict(True, Affine.translation(shift.dx * ratio, shift.dy * ratio), f"{said}; corrected")

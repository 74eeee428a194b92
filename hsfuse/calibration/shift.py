"""The shift between an LRHSI and its MSI: found roughly by phase correlation, then by least squares over windows.

First a shift, then a drift, then a smooth field: each is believed when windows that it wasn't fitted to correlate
better with it, by more than that rise's error.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from math import hypot, inf, sqrt
from typing import Protocol

import numpy as np
from affine import Affine
from rasterio.windows import Window as Extent
from skimage.registration import phase_cross_correlation

from hsfuse.calibration.distortion import Bend, Drift, bend_of_blocks
from hsfuse.calibration.windows import (
    MIN_SHARE,
    MIN_WINDOWS,
    OUTLIER,
    Block,
    Floats,
    Locals,
    View,
    Window,
    cut,
    ground_of,
    mean_correlation,
    own_covariances,
    risen,
    spread_of,
    steps,
    unlikeness,
    without_one,
)
from hsfuse.core.cube import Cube, FloatArray
from hsfuse.core.errors import GridError
from hsfuse.core.grid import Distortion, Motion
from hsfuse.physics.model import ObservationModel

#: Rounds of leaving out outliers.
ROUNDS = 5
#: A drift counts when it has this many windows, this many LR pixels and its standard error this many times over the
#: scene; more than the last makes no sense.
MIN_LOCAL_WINDOWS, MIN_DRIFT, SIGNIFICANT_LOCAL, MAX_DRIFT = 6, 0.03, 3.0, 1.5
#: Coefficients of a drift in one direction: its value and its changes along rows and columns.
DRIFT = 3


@dataclass(frozen=True)
class LocalShift:
    """Shift of one window: its middle (row, col) in LR pixels of the scene, shift and uncertainty in LR pixels."""

    row: float
    col: float
    dy: float
    dx: float
    sd: float


@dataclass(frozen=True)
class Fitted:
    """What n windows' shifts have in common: coefficients (k, 2) of a design (n, k) by weighted least squares.

    `covariance` (2k, 2k) is of the coefficients down, then right. Windows differ beyond their own errors by `spread`
    LR pixels, and the covariance is as much larger as what is left exceeds its degrees of freedom. `held_out` (n, 2) is
    where each window would lie by all others, `errors` (n,) each one's own standard deviation, spread included.
    """

    coefficients: Floats
    covariance: Floats
    spread: float
    held_out: Floats
    errors: Floats

    @classmethod
    def of(cls, design: Floats, shift: Floats, info: Floats) -> Fitted:
        """From shifts (n, 2) and the inverses `info` (n, 2, 2) of their covariances, without outliers."""
        (n, k), own = design.shape, own_covariances(info)
        columns = np.einsum("nk,ij->nijk", design, np.eye(2)).reshape(n, 2, 2 * k)  # down, then right
        told = np.asarray(info.any((1, 2)))
        rest, spread, kept = shift - np.median(shift[told], axis=0), 0.0, told
        for _ in range(ROUNDS):
            spread = spread_of(rest[told], own[told])
            weight = np.linalg.inv(own + spread**2 * np.eye(2))
            far = np.einsum("ni,nij,nj->n", rest, weight, rest)
            kept = told & (far <= OUTLIER)
            weight *= np.where(kept, 1, 1e-6)[:, None, None]  # kept in, so that it can be solved
            normals = np.einsum("nip,nij,njq->npq", columns, weight, columns)
            pulls = np.einsum("nip,nij,nj->np", columns, weight, shift)
            covariance = np.linalg.inv(normals.sum(0) + 1e-9 * np.eye(2 * k))
            solved = covariance @ pulls.sum(0)
            rest = shift - (columns @ solved)
        freedom = 2 * int(kept.sum()) - 2 * k
        chi2 = np.einsum("ni,nij,nj", rest, weight, rest) / freedom if freedom > 0 else 1.0
        wider = max(1.0, float(chi2))
        left = normals.sum(0) - normals + 1e-9 * np.eye(2 * k)
        others = np.linalg.solve(left, (pulls.sum(0) - pulls)[..., None])
        held_out = (columns @ others)[..., 0]
        errors = np.sqrt(wider * np.linalg.eigvalsh(own + spread**2 * np.eye(2))[:, -1])
        return cls(solved.reshape(2, k).T, covariance * wider, spread, held_out, errors)


#: How much more correlation another place must have to be preferred to no shift.
CLEARLY = 0.01
#: Parts of a scene are told to differ when that is this many times the error of its mean.
CLEARLY_APART = 1.5
#: Steps of the refinement, and the step (LR pixels) that ends it.
STEPS, SMALL_STEP = 12, 0.002
UPSAMPLE = 10


@dataclass(frozen=True)
class Shift:
    """LR pixels by which the LRHSI's content lies below (`dy`) and right (`dx`) of where the MSI has it.

    `sd` is the standard error of the worse of the two, from `windows` windows (inf: can't be told), `spread` how far
    their places scatter beyond their own errors: both are in the `uncertainty`. `correlation` is that of the two images
    at this shift; `field` holds what each window says, `drift` the linear change over the scene that is seen in it, if
    any (a shear, a stretch, a turn), `bend` what a smooth field moves beyond that. `borne_out`: whether windows
    correlate better that weren't asked. `extent` holds the rows and the columns, first and last, of all that was looked
    at. What is bright, as clouds are, lies `apart` from it by so many LR pixels, and had no say: 0 where it doesn't.
    """

    dy: float
    dx: float
    sd: float
    windows: int
    correlation: float
    field: tuple[LocalShift, ...] = ()
    drift: Drift | None = None
    borne_out: bool = True
    spread: float = 0.0
    extent: tuple[tuple[float, float], tuple[float, float]] = ((0.0, 0.0), (0.0, 0.0))
    bend: Bend | None = None
    apart: float = 0.0

    @property
    def uncertainty(self) -> float:
        """Standard deviation, LR pixels, of this shift for a part of the scene, or for ground beside it.

        Neighbouring windows are misplaced alike, so that what they scatter isn't averaged out by their number.
        """
        return hypot(self.sd, self.spread)

    @property
    def length(self) -> float:
        """Of the shift, in LR pixels."""
        return hypot(self.dy, self.dx)

    def at(self, row: float, col: float) -> tuple[float, float]:
        """Shift (dy, dx) at a place, all in LR pixels, with its drift and bend."""
        drift = self.drift if self.bend is None else self.bend.drift
        down, right = (self.dy, self.dx) if drift is None else drift.at(row, col)
        if self.bend is None:
            return down, right
        bent = self.bend.distortion(row, col)
        return down + float(bent[0]), right + float(bent[1])

    def describe(self) -> str:
        """One line for people."""
        if self.sd == inf:
            return "the shift can't be told: no window of the two images agrees well enough"
        sd = f"sd {self.sd:.3f}"
        if self.uncertainty > CLEARLY_APART * self.sd:
            sd += f" on the mean and {self.uncertainty:.3f} in a part of the scene"
        text = f"{self.dy:+z.3f} rows, {self.dx:+z.3f} columns in LR pixels, {sd}, {self.windows} windows"
        if self.drift is not None:
            text += f", drifting by up to {self.drift_over_scene:.2f} over the scene"
        return text if self.bend is None else f"{text}, {self.bend.describe()}"

    @property
    def amounts(self) -> str:
        """How large it is, in one phrase: the mean, the drift over the scene, what bends beyond."""
        text = f"a mean shift of {self.length:.2f} LR pixels"
        if self.drift is not None:
            text += f", a drift of up to {self.drift_over_scene:.2f} over the scene"
        if self.bend is not None:
            text += f", a bend of {self.bend.rms:.2f} (RMS) and up to {self.bend.largest:.2f}"
        return text

    @property
    def drifting(self) -> float:
        """Largest difference of the drift between two windows, in LR pixels."""
        if self.drift is None:
            return 0.0
        places = np.array([self.drift.at(local.row, local.col) for local in self.field])
        return float(np.hypot(*np.ptp(places, axis=0)))

    @property
    def bending(self) -> float:
        """RMS of what bends beyond shift and drift, in LR pixels."""
        return 0.0 if self.bend is None else self.bend.rms

    @property
    def drift_over_scene(self) -> float:
        """Largest difference of the drift between two corners of what was looked at, in LR pixels."""
        if self.drift is None:
            return 0.0
        (top, bottom), (left, right) = self.extent
        corners = np.array([self.drift.at(row, col) for row in (top, bottom) for col in (left, right)])
        return float(max(np.hypot(*(one - other)) for one in corners for other in corners))


UNKNOWN = Shift(0.0, 0.0, inf, 0, 0.0, borne_out=False)


def shift_of_blocks(blocks: Sequence[Block], model: ObservationModel, smooth: float = 0.0) -> Shift:
    """One shift for all blocks, or one that drifts.

    Phase correlation (Kuglin and Hines 1975; scikit-image) proposes places, the best correlated one is refined by
    Gauss-Newton steps on the model of both images, each window at its own place (`windows.steps`). Windows are combined
    by weighted least squares without outliers at every step.

    `smooth` (LR pixels, a Gaussian's) takes the finest detail out of both images first. An LRHSI that was resampled
    needs it: interpolation moves what is aliased the wrong way, which looks like a part of the shift left over.
    """
    start = _place(blocks, model)
    windows = [window for block in blocks for window in cut(block, model, start)]
    search = _Search(windows, model, smooth)
    found = search.settled(1, np.broadcast_to(start, (len(windows), 2)))
    if found is None:
        return UNKNOWN
    fit, said = found
    (dy, dx), sd = fit.coefficients[0].tolist(), sqrt(max(np.diag(fit.covariance)))
    nothing = np.zeros_like(said.at)
    count = int(said.told.sum())
    moved = search.risen(nothing, fit.held_out) if hypot(dy, dx) > NO_SHIFT / model.ratio else False
    drift = search.drift(said, fit.held_out if moved else nothing)
    plain = drift or (Drift((dy, 0.0, 0.0), (dx, 0.0, 0.0)) if moved else Drift((0.0, 0.0, 0.0), (0.0, 0.0, 0.0)))
    bend = bend_of_blocks(blocks, model, plain, smooth)
    looks = [block.looks(model, (dy, dx), smooth, slopes=False) for block in blocks]
    told = zip(np.array(search.places)[said.told], said.shift[said.told], fit.errors[said.told], strict=True)
    field = tuple(LocalShift(*map(float, (*place, *where, error))) for place, where, error in told)
    borne_out = moved or drift is not None
    correlation = mean_correlation(blocks, looks)
    rows = min(block.row for block in blocks), max(block.row + block.lr.shape[1] for block in blocks)
    cols = min(block.col for block in blocks), max(block.col + block.lr.shape[2] for block in blocks)
    return Shift(dy, dx, sd, count, correlation, field, drift, borne_out, fit.spread, (rows, cols), bend)


class _Search:
    """Windows of a scene, compared through a model and under a blur of `smooth` LR pixels."""

    def __init__(self, windows: Sequence[Window], model: ObservationModel, smooth: float) -> None:
        self.windows, self.model, self.smooth = windows, model, smooth
        self.places = np.array([(window.row, window.col) for window in windows]).reshape(-1, 2)
        self._last: tuple[Floats, Floats] | None = None

    def design(self, k: int) -> Floats:
        """(n, k): for a shift (1), or a `DRIFT` about the windows' middle."""
        ones = np.ones((len(self.windows), 1))
        return ones if k == 1 else np.hstack([ones, self.places - self.places.mean(0)])

    def settled(self, k: int, at: Floats, change: Floats | None = None) -> tuple[Fitted, Locals] | None:
        """Shift or drift from where windows are taken to lie (n, 2); None when no window says anything.

        `change` (2, 2) is a drift's, as for `windows.steps`.
        """
        fit, said = None, None
        for _ in range(STEPS if self.windows else 0):
            said = steps(self.windows, self.model, at, self.smooth, change)
            if said.told.sum() < k:
                return None
            fit = Fitted.of(self.design(k), said.shift, said.info)
            step = self.design(k) @ fit.coefficients - at
            change = fit.coefficients[1:].T if k == DRIFT else None
            at = at + np.clip(step, -1, 1)
            if np.abs(step).max() < SMALL_STEP:
                break
        return None if fit is None or said is None else (fit, said)

    def drift(self, said: Locals, plain: Floats) -> Drift | None:
        """The linear change of the shift; None unless it is significant, sensible and better than what is `plain`.

        `said` is what the windows say at their common shift.
        """
        size = np.ptp(self.places[said.told], axis=0)
        if said.told.sum() < MIN_LOCAL_WINDOWS or size.min() == 0:
            return None
        fit = Fitted.of(self.design(DRIFT), said.shift, said.info)
        if not _drifts(fit, size):
            return None
        found = self.settled(DRIFT, self.design(DRIFT) @ fit.coefficients, fit.coefficients[1:].T)
        if found is None or not _drifts(found[0], size):
            return None
        first, slopes = found[0].coefficients[0], found[0].coefficients[1:].T
        if not self.risen(plain, found[0].held_out, slopes):
            return None
        down, right = np.column_stack([first - slopes @ self.places.mean(0), slopes]).tolist()
        return Drift(tuple(down), tuple(right))

    def unlike(self, at: Floats, change: Floats | None = None) -> Floats:
        """`unlikeness` at shifts (n, 2); those without a change that were asked for last are kept."""
        if change is not None:
            return unlikeness(self.windows, self.model, at, self.smooth, change)
        if self._last is None or not np.array_equal(self._last[0], at):
            self._last = at, unlikeness(self.windows, self.model, at, self.smooth)
        return self._last[1]

    def risen(self, plain: Floats, richer: Floats, change: Floats | None = None) -> bool:
        """Whether windows correlate better at shifts (n, 2) that they had no part in than at plainer ones.

        `change`: of the richer ones within windows.
        """
        return risen(self.unlike(plain), self.unlike(richer, change))


def _drifts(fit: Fitted, size: Floats) -> bool:
    """Whether a drift's slopes are significant and sensible over a scene of `size` (rows, columns)."""
    change = fit.coefficients[1:].T * size
    error = np.sqrt(np.diag(fit.covariance)).reshape(2, 3)[:, 1:] * size
    told = (np.abs(change) > np.maximum(MIN_DRIFT, SIGNIFICANT_LOCAL * error)).any()
    return bool(told and np.abs(change).max() <= MAX_DRIFT)


def _place(blocks: Sequence[Block], model: ObservationModel) -> tuple[float, float]:
    """The best correlated of the places that phase correlation proposes; no shift unless another is clearly better."""
    looks = [block.looks(model, (0.0, 0.0), slopes=False) for block in blocks]
    proposed = [place for look in looks if (place := _proposed(*look)) is not None]
    best, score = (0.0, 0.0), mean_correlation(blocks, looks) + CLEARLY
    if proposed:
        dy, dx = np.median(np.array(proposed), axis=0).tolist()
        proposed.append((dy, dx))
    for place in dict.fromkeys(proposed):
        correlation = mean_correlation(blocks, [block.looks(model, place, slopes=False) for block in blocks])
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


#: LR pixels by which what is bright must lie elsewhere than the rest of the ground, which then tells the place.
APART = 0.25
#: So often what is bright is left out in turn, as thin cloud's edges aren't bright, of a shift of so many LR pixels;
#: and how well the images must correlate on what is left of it.
LAYERS, DOUBTED, ALIKE = 3, 0.5, 0.7
#: Largest shift, in LR pixels, that is taken for one of georeferencing.
SHIFT_LIMIT = 3.0
#: A shift below this many MSI pixels, or this many deviations, is none.
NO_SHIFT, SIGNIFICANT = 0.1, 3.0
#: Uncertainty in LR pixels above which a shift isn't known.
MAX_SD = 0.25
#: Blocks that are looked at: at most so many along each axis, so many LR and MSI pixels wide, of so many MSI bands.
BLOCKS, LR_SIDE, HR_SIDE, BANDS = 3, 128, 512, 6
#: Blur (LR pixels) under which a resampled LRHSI is compared.
SMOOTH = 1.5
#: Error of a PSF's kernel, a share, that no shift sees.
FEW = 0.01
#: Least share of valid LR pixels in a block.
MIN_VALID = 0.1


class Pair(Protocol):
    """An open pair on one nested grid: `ScenePair` is one."""

    model: ObservationModel

    @property
    def lr_shape(self) -> tuple[int, int]:
        """Rows and columns of the common extent in LR pixels."""

    def read_lr(self, window: Extent) -> Cube:
        """LRHSI (C, h, w), all bands of the model's response, in a window in LR pixels."""

    def read_hr(self, window: Extent) -> Cube:
        """MSI (c, H, W) in a window in MSI pixels."""


def register(pair: Pair, warped: bool = False) -> Shift:
    """Shift of a pair's LRHSI against its MSI, from up to 3 x 3 blocks spread over the scene; see `shift_of_blocks`.

    `warped` says that the LRHSI was resampled (`Nesting.warped`).
    """
    return _ground_shift(list(_blocks(pair)), pair.model, warped)


def _ground_shift(blocks: list[Block], known: ObservationModel, warped: bool) -> Shift:
    """The shift of all, or of the ground alone where what is bright clearly lies elsewhere."""
    model = ObservationModel(known.srf, known.psf.with_few_terms(FEW), known.ratio, known.phase)
    smooth = SMOOTH if warped else 0.0
    found = shift_of_blocks(blocks, model, smooth) if blocks else UNKNOWN
    if found.sd == inf:
        return found
    ground = blocks
    for layer in range(LAYERS if found.length > DOUBTED else 1):
        ground = ground_of(ground)
        own = shift_of_blocks(ground, model, smooth)
        if own.windows < MIN_WINDOWS or (layer and (own.windows < 2 * MIN_WINDOWS or own.correlation < ALIKE)):
            break
        if apart := _apart(own, found, ground, model, smooth):
            return replace(own, apart=apart)
    return found


def _apart(own: Shift, found: Shift, ground: Sequence[Block], model: ObservationModel, smooth: float) -> float:
    """LR pixels between the ground's own shift and that of all; 0.0 where its windows don't clearly bear that out.

    The ground is a part of the scene: it has to lie apart by more than parts of it do anyway, as those of a field do.
    Where windows scatter because some of them see clouds, it is enough that it does without any one quarter, too.
    """
    off = [(own.dy, own.dx) - np.array(found.at(one.row, one.col)) for one in own.field]
    apart = float(np.hypot(*np.mean(off, axis=0)))
    if own.sd > MAX_SD or apart < max(APART, SIGNIFICANT * hypot(own.sd, found.sd)):
        return 0.0
    windows = [window for block in ground for window in cut(block, model, (own.dy, own.dx))]
    search = _Search(windows, model, smooth)
    settled = search.settled(1, np.broadcast_to((own.dy, own.dx), (len(windows), 2)))
    if settled is None:
        return 0.0
    theirs = search.unlike(np.array([found.at(*place) for place in search.places.tolist()]))
    ours = search.unlike(settled[0].held_out)
    far = apart >= SIGNIFICANT * hypot(own.uncertainty, found.uncertainty)
    looks = [np.ones(len(windows), bool)] if far else without_one(search.places, np.transpose(found.extent))
    return apart if all(risen(theirs[most], ours[most]) for most in looks) else 0.0


def rough_shift(pair: Pair, warped: bool = False) -> tuple[float, float]:
    """Shift (dy, dx) in LR pixels of the ground, (0, 0) where phase correlation sees no other place clearly better."""
    blocks = list(_blocks(pair))
    place = _place(blocks, pair.model) if blocks else (0.0, 0.0)
    if place == (0.0, 0.0):
        return place
    found = _ground_shift(blocks, pair.model, warped)
    return (found.dy, found.dx) if found.sd <= MAX_SD else place


def _blocks(pair: Pair) -> Iterator[Block]:
    """Blocks with something valid in them, the LRHSI seen through the response."""
    model, s = pair.model, pair.model.ratio
    response = model.srf.cpu().numpy()
    bands = np.unique(np.linspace(0, len(response) - 1, min(BANDS, len(response))).round().astype(int))
    side = max(16, min(LR_SIDE, HR_SIDE // s))
    for row, h in _lie(pair.lr_shape[0], side):
        for col, w in _lie(pair.lr_shape[1], side):
            low = pair.read_lr(Extent(col, row, w, h))
            if low.mask.mean() >= MIN_VALID:
                high = pair.read_hr(Extent(col * s, row * s, w * s, h * s))
                matched = np.tensordot(response[bands], low.data, 1)
                yield Block(matched, high.data[bands], low.mask, high.mask, row, col)


def _lie(size: int, side: int) -> list[tuple[int, int]]:
    """First pixel and length of up to `BLOCKS` blocks over an axis, none of which has a pixel of another."""
    count = min(BLOCKS, -(-size // side))
    if count * side >= size:
        edges = np.linspace(0, size, count + 1).round().astype(int).tolist()
        return [(first, last - first) for first, last in pairwise(edges)]
    return [(int(first), side) for first in np.linspace(0, size - side, count).round()]


@dataclass(frozen=True)
class Verdict:
    """Whether a shift is to be corrected and why.

    `motion` and `distortion` are what `nest` corrects (`Motion`), in MSI pixels of the common extent.
    """

    correct: bool
    motion: Affine
    note: str
    distortion: Distortion | None = None

    def motion_on(self, msi_window: Extent) -> Affine:
        """`motion` in pixels of the whole MSI, of which `msi_window` is the common extent that was looked at."""
        corner = Affine.translation(msi_window.col_off, msi_window.row_off)
        return corner @ self.motion @ ~corner

    def on(self, msi_window: Extent) -> Motion:
        """All of it in pixels of the whole MSI."""
        row, col = msi_window.row_off, msi_window.col_off
        bent = None if self.distortion is None else self.distortion.seen(-row, -col, 1)
        return Motion(self.motion_on(msi_window), bent)


def judge(shift: Shift, ratio: int, limit: float = SHIFT_LIMIT) -> Verdict:
    """What to do about a shift at a ratio `ratio`; GridError, in figures, when it is surely over `limit` LR pixels."""
    said = f"shift of the HSI against the MSI: {shift.describe()}"
    if shift.bend is not None and shift.bending * ratio > 2 * NO_SHIFT:
        bent = shift.bend.distortion.seen(0, 0, ratio)
        return Verdict(True, shift.bend.drift.motion(ratio), f"{said}; corrected with what it bends", bent)
    if shift.sd > MAX_SD or shift.windows < MIN_WINDOWS:
        return Verdict(False, Affine.identity(), f"{said}; too uncertain to be corrected")
    if shift.length > limit and shift.borne_out:
        raise GridError(
            f"the HSI is shifted against the MSI by {shift.length:.2f} LR pixels ({shift.dy:+.2f} rows, "
            f"{shift.dx:+.2f} columns, sd {shift.sd:.2f}, {shift.windows} windows), at most {limit:g} are "
            "corrected; check that both show the same place, or use --register off to go on without correction"
        )
    if shift.drift is not None and shift.drifting * ratio > 2 * NO_SHIFT:
        return Verdict(True, shift.drift.motion(ratio), f"{said}; corrected with its drift")
    if shift.length < max(NO_SHIFT / ratio, SIGNIFICANT * shift.sd):
        least = f"{NO_SHIFT} MSI pixels or {SIGNIFICANT:g} deviations"
        return Verdict(False, Affine.identity(), f"{said}; none to correct (below {least})")
    if not shift.borne_out:
        return Verdict(
            False, Affine.identity(), f"{said}; not corrected: held-out windows don't correlate better with it"
        )
    return Verdict(True, Affine.translation(shift.dx * ratio, shift.dy * ratio), f"{said}; corrected")

"""Windows of a scene, each of which says by how much the LRHSI's content is shifted in it, and how well it would fit.

A window is compared at a shift of its own: lrhsi = gain msi(shift) + offset, gain and offset free in each band.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from math import ceil

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.ndimage import binary_dilation, gaussian_filter
from skimage.filters import threshold_otsu

from hsfuse.calibration.spectra import gain_error
from hsfuse.core.cube import BoolArray, FloatArray
from hsfuse.physics.degrade import shifted_axis
from hsfuse.physics.model import MIN_PSF_WEIGHT, ObservationModel

Floats = NDArray[np.float64]
Part = tuple[slice, slice]

#: Sides of the windows in LR pixels, and into how many a block is cut along an axis where these allow.
SIDE, ACROSS = (3, 32), 4
#: Least valid pixels of a window, and least share of a block, for a trial shift, of its own valid ones.
MIN_PIXELS, MIN_SHARE = 9, 0.2
#: Below this correlation with the MSI a band of a window says nothing about the shift.
MIN_CORRELATION = 0.5
#: A window whose shift is less certain (LR pixels) in every direction says nothing.
MAX_WINDOW_SD = 0.5
#: Squared distance, in a window's own deviations, beyond which it is left out, and variance (LR pixels squared) below
#: which no window's own is believed.
OUTLIER, FLOOR = 12.0, 1e-6
#: Fewest windows that can tell a shift, and how many of its errors held-out windows' gain must have.
MIN_WINDOWS, SURE = 3, 2.0
#: Least noise of a band in a window, relative to the median window's: less is chance.
QUIET = 0.5
#: Median of chi-square with two degrees of freedom, and the spreads (pixels) that are tried.
MEDIAN, SPREADS = 1.386, np.concatenate([[0.0], np.geomspace(1e-3, 30, 80)])
#: Deviations at which a Gaussian is cut off.
TRUNCATE = 3


@dataclass(frozen=True)
class View:
    """MSI at LR (c, h, w), its derivatives by the shift (LR pixels) down and right, and where it is valid (h, w).

    The derivatives may be left out: (0, h, w).
    """

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

    @property
    def whole(self) -> Part:
        """All of it, as a part in LR pixels."""
        return slice(0, self.lr.shape[1]), slice(0, self.lr.shape[2])

    def looks(
        self,
        model: ObservationModel,
        shift: tuple[float, float],
        smooth: float = 0.0,
        part: Part | None = None,
        slopes: bool = True,
    ) -> tuple[FloatArray, View]:
        """LRHSI (c, h, w) and `view`, both blurred alike by a Gaussian of `smooth` LR pixels over what is valid."""
        rows, cols = part or self.whole
        if smooth == 0:
            return self.lr[:, rows, cols], self.view(model, shift, (rows, cols), slopes)
        margin = ceil(TRUNCATE * smooth)
        wide = [slice(max(0, s.start - margin), s.stop + margin) for s in (rows, cols)]
        wide = [slice(s.start, min(s.stop, n)) for s, n in zip(wide, self.lr.shape[1:], strict=True)]
        view = self.view(model, shift, (wide[0], wide[1]), slopes)
        planes = np.concatenate([self.lr[:, *wide], view.data, view.down, view.right, np.ones_like(self.lr[:1, *wide])])
        blurred = gaussian_filter(planes * view.valid, (0, smooth, smooth), mode="constant", truncate=TRUNCATE)
        inner = [slice(s.start - w.start, s.stop - w.start) for s, w in zip((rows, cols), wide, strict=True)]
        blurred = blurred[:, *inner]
        c, share = len(self.lr), blurred[:-1] / np.maximum(blurred[-1], 1e-6)
        lr, data, down, right = np.split(share, [c, 2 * c, 2 * c + len(view.down)])
        return lr, View(data, down, right, view.valid[*inner])

    def view(
        self, model: ObservationModel, shift: tuple[float, float], part: Part | None = None, slopes: bool = True
    ) -> View:
        """The MSI degraded by the model, its content `shift` (down, right) LR pixels off; invalid pixels don't count.

        X(p) = Y(p - shift): the shift goes into the PSF's taps (Keys' cubic convolution between MSI pixels), so the MSI
        itself is never resampled. LR pixels whose PSF reaches out of the block are invalid.
        """
        rows, cols = part or self.whole
        total: FloatArray | None = None
        for down_taps, right_taps in model.psf.separable_terms():
            y, down = shifted_axis(down_taps, shift[0], rows, self.msi.shape[1], model)
            x, right = shifted_axis(right_taps, shift[1], cols, self.msi.shape[2], model)
            mask = self.msi_mask[y, x]
            planes = np.concatenate([self.msi[:, y, x] * mask, mask[None].astype(np.float32)])
            ways = ((0, 0), (1, 0), (0, 1)) if slopes else ((0, 0),)
            half = [_along_rows(matrix, planes) for matrix in down[: 1 + slopes]]
            part_sum = np.stack([_along_columns(half[i], right[j]) for i, j in ways])
            total = part_sum if total is None else total + part_sum
        assert total is not None
        valid = (total[0, -1] >= MIN_PSF_WEIGHT) & self.lr_mask[rows, cols]
        weight = np.where(valid, total[:, -1], np.array([1, 0, 0], np.float32)[: len(total), None, None])
        data = total[0, :-1] / weight[0]
        if not slopes:
            return View(data, data[:0], data[:0], valid)
        change = (total[1:, :-1] - data * weight[1:, None]) / weight[0]
        return View(data, change[0], change[1], valid)


def _along_rows(matrix: sparse.csr_array, planes: FloatArray) -> FloatArray:
    """A matrix (h, H) applied to the rows of (c, H, W), turned: (W, c, h)."""
    c, high, wide = planes.shape
    rows = matrix @ planes.transpose(1, 0, 2).reshape(high, c * wide)
    return np.ascontiguousarray(rows.reshape(-1, c, wide).transpose(2, 1, 0))


def _along_columns(turned: FloatArray, matrix: sparse.csr_array) -> FloatArray:
    """A matrix (w, W) applied to the columns of what is turned, (W, c, h): (c, h, w)."""
    wide, c, _ = turned.shape
    both = matrix @ turned.reshape(wide, -1)
    return np.ascontiguousarray(both.reshape(matrix.shape[0], c, -1).transpose(1, 2, 0), dtype=np.float32)


def ground_of(blocks: Sequence[Block]) -> list[Block]:
    """Blocks without what is bright in either image, as clouds are, nor pixels beside that (Otsu 1979)."""
    looks = [(np.median(block.lr, axis=0), np.median(block.msi, axis=0)) for block in blocks]
    masks = [(block.lr_mask, block.msi_mask) for block in blocks]
    cuts = [
        threshold_otsu(np.concatenate([look[i][mask[i]] for look, mask in zip(looks, masks, strict=True)]))
        for i in (0, 1)
    ]
    kept = [
        [mask[i] & ~binary_dilation(look[i] > cuts[i], iterations=1 + i) for i in (0, 1)]
        for look, mask in zip(looks, masks, strict=True)
    ]
    return [replace(block, lr_mask=lr, msi_mask=msi) for block, (lr, msi) in zip(blocks, kept, strict=True)]


@dataclass(frozen=True)
class Window:
    """A part of a block; its middle (row, col) in LR pixels of the scene."""

    block: Block
    part: Part
    row: float
    col: float

    def drifting(self, view: View, change: Floats) -> FloatArray:
        """The window's view (c, h, w) where the shift isn't that of its middle all over, but changes, to first order.

        `change` (2, 2): down and right by row and column, LR pixels.
        """
        rows, cols = self.part
        down_right = np.meshgrid(
            np.arange(rows.start, rows.stop) + self.block.row + 0.5 - self.row,
            np.arange(cols.start, cols.stop) + self.block.col + 0.5 - self.col,
            indexing="ij",
        )
        down, right = np.tensordot(change, np.stack(down_right), 1).astype(np.float32)
        return view.data + down * view.down + right * view.right


@dataclass(frozen=True)
class Locals:
    """What n windows say, each at a shift `at` (n, 2) of its own, down and right in LR pixels.

    `shift` (n, 2) is where each would rather be, after a least-squares step, `info` (n, 2, 2) the inverse of its
    covariance, zero where a window can't tell.
    """

    at: Floats
    shift: Floats
    info: Floats

    @property
    def told(self) -> BoolArray:
        """Which windows can tell anything, (n,)."""
        return np.asarray(self.info.any((1, 2)))


def cut(block: Block, model: ObservationModel, shift: tuple[float, float], side: int = 0) -> list[Window]:
    """A block's windows, which share no pixel, over what is valid at a shift, about `side` LR pixels wide if given."""
    valid = block.view(model, shift, slopes=False).valid
    if not valid.any():
        return []
    spans = [np.flatnonzero(valid.any(axis)) for axis in (1, 0)]
    sizes = [int(span[-1] - span[0] + 1) for span in spans]
    side = side or int(np.clip(min(sizes) / ACROSS, *SIDE))
    edges = [
        np.linspace(span[0], span[0] + size, max(1, size // side) + 1).round().astype(int)
        for span, size in zip(spans, sizes, strict=True)
    ]
    found = []
    for top, bottom in pairwise(edges[0]):
        for left, right in pairwise(edges[1]):
            rows, cols = np.nonzero(valid[top:bottom, left:right])
            if len(rows) >= MIN_PIXELS:
                middle = block.row + top + rows.mean() + 0.5, block.col + left + cols.mean() + 0.5
                found.append(Window(block, (slice(top, bottom), slice(left, right)), *map(float, middle)))
    return found


def steps(
    windows: Sequence[Window], model: ObservationModel, at: Floats, smooth: float = 0.0, change: Floats | None = None
) -> Locals:
    """Gauss-Newton steps (Lucas and Kanade 1981) of windows, each from its shift `at` (n, 2).

    In each band x = gain (d + step . slopes) + offset + noise: gain and offset are projected out, bands weigh by their
    noise's inverse. A shift that drifts has its `change` (2, 2), down and right by row and column, or each window's own
    (n, 2, 2), within windows, too: their detail doesn't lie about their middles alike.
    """
    bands = len(windows[0].block.lr)
    normal, pull = np.zeros((len(windows), bands, 2, 2)), np.zeros((len(windows), bands, 2))
    noise = np.full((len(windows), bands), np.nan)
    changes = None if change is None else np.broadcast_to(change, (len(windows), 2, 2))
    for i, window in enumerate(windows):
        lr, view = window.block.looks(model, (float(at[i, 0]), float(at[i, 1])), smooth, window.part)
        if view.valid.sum() < MIN_PIXELS:
            continue
        seen = view.data if changes is None else window.drifting(view, changes[i])
        x, d, down, right = (_detail(planes, view.valid) for planes in (lr, seen, view.down, view.right))
        close = _correlation(x, d) >= MIN_CORRELATION
        power = (d * d).sum(1)
        for band in np.flatnonzero(close):
            gain = x[band] @ d[band] / power[band]
            slopes = gain * np.stack([v[band] - (v[band] @ d[band]) / power[band] * d[band] for v in (down, right)])
            rest = x[band] - gain * d[band]
            normal[i, band], pull[i, band] = slopes @ slopes.T, slopes @ rest
            noise[i, band] = rest @ rest / max(1, len(rest) - 4) + 1e-6 * (x[band] @ x[band]) / len(rest)
    quiet = np.array([QUIET**2 * np.median(own[~np.isnan(own)]) if (~np.isnan(own)).any() else 1 for own in noise.T])
    weight = np.where(np.isnan(noise), 0, 1 / np.fmax(noise, quiet))
    info, right_side = np.einsum("wb,wbij->wij", weight, normal), np.einsum("wb,wbi->wi", weight, pull)
    sure = (np.linalg.cond(info + 1e-300 * np.eye(2)) < 1e6) & (np.linalg.eigvalsh(info)[:, 1] > MAX_WINDOW_SD**-2)
    info[~sure] = 0
    step = np.zeros_like(right_side)
    step[sure] = np.linalg.solve(info[sure], right_side[sure][..., None])[..., 0]
    return Locals(at, at + step, info)


def unlikeness(
    windows: Sequence[Window], model: ObservationModel, at: Floats, smooth: float = 0.0, change: Floats | None = None
) -> Floats:
    """Logarithm of the share of the LRHSI's detail that the MSI doesn't explain, ln(1 - r^2), (n, bands).

    Each window at its shift `at` (n, 2) and its `change` as for `steps`; NaN where nothing can be told.
    """
    found = np.full((len(windows), len(windows[0].block.lr)), np.nan)
    changes = None if change is None else np.broadcast_to(change, (len(windows), 2, 2))
    for i, window in enumerate(windows):
        place, drifts = (float(at[i, 0]), float(at[i, 1])), change is not None
        lr, view = window.block.looks(model, place, smooth, window.part, slopes=drifts)
        if view.valid.sum() >= MIN_PIXELS:
            seen = view.data if changes is None else window.drifting(view, changes[i])
            r = _correlation(_detail(lr, view.valid), _detail(seen, view.valid))
            found[i] = np.log(np.maximum(1 - np.maximum(r, 0) ** 2, 1e-9))
    return found


def risen(before: Floats, after: Floats) -> bool:
    """Whether windows are clearly less unlike, (n, bands) as of `unlikeness`, at shifts that they had no part in."""
    counts = np.minimum(before, after) < np.log(1 - MIN_CORRELATION**2)  # not where NaN
    known = counts.any(1)
    gain = np.where(counts, before - after, 0)[known].sum(1) / counts[known].sum(1)
    if len(gain) < MIN_WINDOWS:
        return False
    return bool(gain.sum() > SURE * gain_error(gain))


def own_covariances(info: Floats) -> Floats:
    """Covariances (n, 2, 2) of windows' shifts, of their inverses `info` (n, 2, 2)."""
    tiny = 1e-9 * np.trace(info, axis1=1, axis2=2)[:, None, None] * np.eye(2)
    return np.asarray(np.linalg.inv(info + tiny + 1e-12 * np.eye(2)) + FLOOR * np.eye(2))


def spread_of(places: Floats, own: Floats, chance: float = 0.0) -> float:
    """How far places (n, 2) about 0 scatter beyond their own covariances (n, 2, 2): the least of some deviations.

    With it half of them lie as near as half of them should, give or take `chance` (of a median of chi-square).
    """
    for spread in SPREADS:
        far = np.einsum("ni,nij,nj->n", places, np.linalg.inv(own + spread**2 * np.eye(2)), places)
        if np.median(far) <= MEDIAN + chance:
            break
    return float(spread)


def quarters(places: Floats, ground: Floats | None = None) -> NDArray[np.intp]:
    """Which quarter of the ground each of the places (n, 2) lies in, (n,): of what `ground` (m, 2), or they, cover."""
    ground = places if ground is None else ground
    down, right = (places > (ground.min(0) + ground.max(0)) / 2).T
    return 2 * down.astype(np.intp) + right


def without_one(places: Floats, ground: Floats | None = None) -> list[BoolArray]:
    """Which places (n,) lie in all `quarters` but one, each in turn: what moves in one alone is none of the scene."""
    part = quarters(places, ground)
    return [np.asarray(part != one) for one in range(4)]


def apart(influence: Floats, part: NDArray[np.intp], own: Floats) -> Floats:
    """Variances (q,) by which coarse parts of a scene differ beyond what windows' `own` (q,), of the whole, allow.

    `influence` (n, q) is what each window adds to an estimate's error, `part` (n,) where it lies. Neighbours err alike
    (changed ground, another PSF there), so that their number says too little: the jackknife by blocks (Künsch 1989) has
    the error of the mean were parts independent. What reaches over half a scene isn't averaged out by its parts either:
    as far as one of them lies off, ground beside the scene may.
    """
    _, index = np.unique(part, return_inverse=True)
    count = int(index.max()) + 1
    if count == 1:
        return np.zeros_like(own)
    sums = np.stack([np.bincount(index, column) for column in influence.T], 1)
    between = count * sums.var(0, ddof=1)
    return np.asarray(count * np.maximum(between - own, 0))


def mean_correlation(blocks: Sequence[Block], looks: Sequence[tuple[FloatArray, View]]) -> float:
    """Mean over blocks and bands of the correlation where both are valid; 0 for a block with too little of that."""
    found = []
    for block, (lr, view) in zip(blocks, looks, strict=True):
        enough = view.valid.sum() >= MIN_SHARE * max(1, block.lr_mask.sum())
        found.append(_correlation(*(_detail(x, view.valid) for x in (lr, view.data))) if enough else np.zeros(len(lr)))
    return float(np.mean(found)) if found else 0.0


def _detail(planes: FloatArray, valid: BoolArray) -> Floats:
    """Valid pixels of planes (c, h, w) less their mean: (c, m)."""
    inside = planes[:, valid].astype(np.float64)
    return np.asarray(inside - inside.mean(1, keepdims=True))


def _correlation(x: Floats, y: Floats) -> Floats:
    """Of images (c, m) without their mean: (c,); 0 for a constant one."""
    power = (x * x).sum(1) * (y * y).sum(1)
    return np.divide((x * y).sum(1), np.sqrt(power), out=np.zeros(len(x)), where=power > 0)

"""What a PSF is judged by: the MSI around LR pixels, and R x LRHSI there, in windows; and least squares over it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy.ndimage import binary_erosion, map_coordinates
from torch import Tensor

from hsfuse.calibration.kernels import HALOS, ROUND, Family, halo_size, halo_taps
from hsfuse.calibration.spectra import FloatArray
from hsfuse.calibration.windows import quarters, spread_of
from hsfuse.core.errors import InputError
from hsfuse.physics.model import decimation_matrix

#: LR pixels on each side that a searched kernel reaches over: at most, and where the scene is small or the ratio large.
REACH, LEAST_REACH, LARGE_RATIO = 3, 2, 12
#: LR pixels from which a PSF is estimated at least.
LEAST_PIXELS = 36
#: LR pixels of a window, and windows into which a scene is cut at most.
WINDOW_PIXELS, MOST_WINDOWS = 100, 48
#: LR pixels that are looked at, and their neighbourhoods' values (float32: 64 MB), at most.
MOST_PIXELS, MOST_VALUES = 2000, 2**24
#: MSI bands that the PSF is fitted on at most.
MOST_BANDS = 4
#: LR pixels along a side of a window's cells, each of which may lie at a place of its own.
CELL_SIDE = 5
#: What is known of the shift between the images, in LR pixels, is made use of from here on.
FAR = 0.75
#: A window of fewer pixels can't have a shift of its own.
LEAST_OWN = 60
#: Largest shift between the images beyond what is known of it, in LR pixels.
LARGEST_SHIFT = 1.5
#: Steps of a fit, and the change (of log widths, and LR pixels) that ends it.
STEPS, SETTLED = 10, 2e-4
#: Steps of numerical derivatives by the shape, and by the centre in HR pixels.
STEP, CENTRE_STEP = 1e-4, 0.05
#: Noise deviations beyond which a pixel counts less (Huber), and the least noise of a window relative to the median's.
HUBER, QUIET = 2.0, 0.5


@dataclass(frozen=True)
class Views:
    """What a kernel of `size` taps is judged by: the MSI around m LR pixels, and the values `target` it should give.

    `around` (size^2, c m) holds the MSI's pixels under the taps, `target` (c, m) R x LRHSI, `window` (m,) the part of
    the scene each lies in and `cell` (m,) the part of that; pixels are sorted by both. The taps' middle lies `offset`
    (y, x) HR pixels off the LR pixel's centre, and `move` (2, m) further down and right (None: all at that place).
    `image` (n, c, H, W) is the MSI, `corner` (3, m) block, row and column of the first of the taps without `move`.
    """

    around: Tensor
    target: FloatArray
    window: NDArray[np.intp]
    cell: NDArray[np.intp]
    image: NDArray[np.float32]
    corner: NDArray[np.intp]
    ratio: int
    phase: float
    size: int
    offset: tuple[int, int] = (0, 0)
    move: FloatArray | None = None

    @classmethod
    def of(
        cls,
        target: Tensor,
        msi: Tensor,
        mask: Tensor,
        ratio: int,
        phase: float,
        near: tuple[float, float] = (0.0, 0.0),
    ) -> tuple[Views, FloatArray]:
        """From R x LRHSI (n, c, h, w), the MSI (n, c, H, W) and mask (n, h, w), and the bands' correlations (c,).

        Of the MSI bands those are kept whose detail follows the LRHSI's best. `near` (y, x): where the LR pixels'
        centres are known to lie, HR pixels from where the grids say. InputError when too few pixels are left.
        """
        h, w = target.shape[2:]
        reach = REACH if min(h, w) >= 4 * REACH + 8 and ratio <= LARGE_RATIO else LEAST_REACH
        size = 2 * reach * ratio + round(2 * phase + 1) % 2
        far = max(abs(move) for move in near) > FAR * ratio
        offset = (round(near[0]), round(near[1])) if far else (0, 0)
        beyond = -(-max(abs(move) for move in offset) // ratio)
        inside = _inside(mask.numpy(), reach + beyond)
        if int(inside.sum()) < LEAST_PIXELS:
            raise InputError(
                f"{int(inside.sum())} LR pixels lie {reach + beyond} or more from borders and invalid pixels, "
                f"wanted at least {LEAST_PIXELS} to estimate a PSF from"
            )
        most = max(LEAST_PIXELS, min(MOST_PIXELS, MOST_VALUES // (size**2 * min(MOST_BANDS, target.shape[1]))))
        block, y, x, window, cell = _chosen(inside, most)
        first = round(phase - (size - 1) / 2)
        corner = np.stack([block, y * ratio + first + offset[0], x * ratio + first + offset[1]])
        image, wanted = msi.float().numpy(), target.numpy()[block, :, y, x].T.astype(np.float64)
        views = cls(torch.zeros(0), wanted, window, cell, image, corner, ratio, phase, size, offset)
        usual = torch.from_numpy(ROUND.kernel(np.log([0.5]), size, np.zeros(2), ratio).ravel()).float()
        low = np.stack([(usual @ views._under(corner, band)).double().numpy() for band in range(len(wanted))])
        found = correlations(views.detail(low), views.detail(wanted))
        bands = np.argsort(-found)[:MOST_BANDS]
        chosen = replace(views, image=image[:, bands], target=wanted[bands])
        return chosen.at(np.zeros((2, len(y)))), found[bands]

    def at(self, move: FloatArray) -> Views:
        """The same, each LR pixel seen where it lies `move` (2, m) HR pixels further down and right."""
        whole = np.round(move).astype(int)
        corner = self.corner + np.concatenate([np.zeros_like(whole[:1]), whole])
        around = torch.cat([self._under(corner, band) for band in range(len(self.target))], 1)
        return replace(self, around=around, move=move if move.any() else None)

    @property
    def part(self) -> NDArray[np.intp]:
        """Coarse part of the scene that each window lies in, (windows,): its block, or a quarter of the only one."""
        first = np.flatnonzero(np.diff(self.window, prepend=-1))
        if self.corner[0].any():
            return self.corner[0, first]
        count = np.bincount(self.window)
        return quarters(np.stack([np.bincount(self.window, axis) / count for axis in self.corner[1:]], 1))

    @property
    def rest(self) -> FloatArray | None:
        """Parts of HR pixels (2, m) by which a pixel lies further than where `around` has it."""
        return None if self.move is None else self.move - np.round(self.move)

    def _under(self, corner: NDArray[np.intp], band: int) -> Tensor:
        """A band's pixels (size^2, m) under the taps; beyond the image, where the taps are next to nil, its edge."""
        down, right = np.divmod(np.arange(self.size**2), self.size)
        rows = np.clip(corner[1] + down[:, None], 0, self.image.shape[2] - 1)
        cols = np.clip(corner[2] + right[:, None], 0, self.image.shape[3] - 1)
        return torch.from_numpy(self.image[corner[0], band, rows, cols])

    def detail(self, values: FloatArray) -> FloatArray:
        """Values (c, m) less their window's mean."""
        count = np.bincount(self.window)
        return np.stack([row - (np.bincount(self.window, row) / count)[self.window] for row in values])

    def seen(self, kernels: FloatArray) -> FloatArray:
        """The MSI through kernels (k, size, size): (k, c, m)."""
        flat = torch.from_numpy(kernels.reshape(len(kernels), -1)).float()
        low: FloatArray = (flat @ self.around).double().numpy()
        return low.reshape(len(kernels), *self.target.shape)

    def radiometry(self, seen: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Gain and offset (c, 1) of seen = gain target + offset, target regressed on it."""
        a, t = seen - seen.mean(-1, keepdims=True), self.target - self.target.mean(-1, keepdims=True)
        slope = (a * t).sum(-1, keepdims=True) / np.maximum((a * a).sum(-1, keepdims=True), 1e-30)
        slope = np.where(np.abs(slope) < 1e-6, 1e-6, slope)
        return 1 / slope, seen.mean(-1, keepdims=True) - self.target.mean(-1, keepdims=True) / slope


def surroundings(views: Views, centre: FloatArray) -> FloatArray:
    """The MSI around LR pixels through halos of widths `HALOS`, (q, c, m), mirrored beyond the image.

    About `centre` (y, x) in HR pixels from the middle of the taps.
    """
    s, offset = views.ratio, np.array(views.offset)
    first = round(views.phase - (views.size - 1) / 2) + offset[:, None]
    block, (y, x) = views.corner[0], (views.corner[1:] - first) // s
    image, seen = views.image.astype(np.float64), np.empty((len(HALOS), *views.target.shape))
    for row, width in zip(seen, s * np.exp(HALOS), strict=True):
        taps = (halo_taps(width, halo_size(width, views.size, c), c) for c in centre + offset)
        down, right = map(partial(decimation_matrix, s=s, phase=views.phase), image.shape[2:], taps)
        low = down @ image @ right.T
        if views.move is None:
            row[:] = low[block, :, y, x].T
            continue
        at = np.stack([block, y + views.move[0] / s, x + views.move[1] / s])
        for band, own in enumerate(row):
            own[:] = map_coordinates(low[:, band], at, mode="nearest")
    return seen


def _inside(mask: NDArray[np.bool_], reach: int) -> NDArray[np.bool_]:
    """Pixels (n, h, w) with nothing but valid ones within `reach`, borders included."""
    return np.stack([binary_erosion(one, np.ones((2 * reach + 1,) * 2)) for one in mask])


def _chosen(inside: NDArray[np.bool_], most: int) -> tuple[NDArray[np.intp], ...]:
    """Block, row, column, window and cell (m,) of about `most` pixels, in whole windows spread over the scene."""
    n, h, w = inside.shape
    total = int(inside.sum())
    side = np.sqrt(max(min(WINDOW_PIXELS, total / 4), total / MOST_WINDOWS))
    down, right = max(1, round(h / side)), max(1, round(w / side))
    rows, cols = np.arange(h) * down // h, np.arange(w) * right // w
    place = (np.arange(n)[:, None, None] * down + rows[:, None]) * right + cols
    kept = np.unique(place[inside])
    count = max(4, most * len(kept) // total)
    if len(kept) > count:
        kept = kept[np.linspace(0, len(kept) - 1, count).round().astype(int)]
    block, y, x = np.nonzero(inside & np.isin(place, kept))
    window = np.searchsorted(kept, place[block, y, x])
    parts = max(1, round(float(side) / CELL_SIDE))
    cell = (y * down * parts // h) * right * parts + x * right * parts // w
    order = np.lexsort((cell, window))
    block, y, x, window, cell = (values[order] for values in (block, y, x, window, cell))
    first = (np.diff(window, prepend=-1) != 0) | (np.diff(cell, prepend=-1) != 0)
    return block, y, x, window, np.cumsum(first) - 1


def correlations(a: FloatArray, b: FloatArray) -> FloatArray:
    """(c,) of images (c, m); 0 for a constant one."""
    a, b = (x - x.mean(1, keepdims=True) for x in (a, b))
    return (a * b).sum(1) / np.maximum(np.sqrt((a * a).sum(1) * (b * b).sum(1)), 1e-30)


@dataclass(frozen=True)
class Fit:
    """A family at its `shape` (k,) and `centre` (y, x) in HR pixels: weighted misfit (c, m) and its slopes (k, c, m).

    Both are what gain, offset and shift of each window leave over. `info` (windows, 2, 2) and `pull` (windows, 2) are
    the normal equations of each window's shift from the centre, HR pixels.
    """

    family: Family
    shape: FloatArray
    centre: FloatArray
    misfit: FloatArray
    slopes: FloatArray
    info: FloatArray
    pull: FloatArray

    @property
    def cost(self) -> float:
        """-2 log likelihood but for a constant."""
        return float((self.misfit**2).sum())

    @property
    def hessian(self) -> FloatArray:
        """(k, k): half the second derivative of the cost."""
        return np.einsum("icm,jcm->ij", self.slopes, self.slopes)


class Search:
    """Least squares over the shape of a family, gain, offset and shift of every window free."""

    def __init__(
        self,
        views: Views,
        weight: FloatArray,
        groups: NDArray[np.intp] | None = None,
        around: FloatArray | None = None,
    ) -> None:
        """`groups` (m,): the windows, where these aren't too small, unless told; a halo asks for its `surroundings`."""
        self.views, self.weight, self.around = views, weight, around
        small = np.median(np.bincount(views.window)) < LEAST_OWN
        self.groups = groups if groups is not None else np.zeros_like(views.window) if small else views.window
        self._starts = np.flatnonzero(np.diff(self.groups, prepend=-1))  # pixels are sorted by window

    def at(self, family: Family, shape: FloatArray, centre: FloatArray) -> Fit:
        """What a shape leaves."""
        views, size, s = self.views, self.views.size, self.views.ratio

        def kernel(p: FloatArray, c: FloatArray) -> FloatArray:
            return family.near(p, size, c, s)

        steps = CENTRE_STEP * np.eye(2), STEP * np.eye(len(shape))
        by_centre = [(kernel(shape, centre + d) - kernel(shape, centre - d)) / (2 * CENTRE_STEP) for d in steps[0]]
        by_shape = [(kernel(shape + d, centre) - kernel(shape - d, centre)) / (2 * STEP) for d in steps[1]]
        seen = views.seen(np.stack([kernel(shape, centre), *by_centre, *by_shape]))
        if views.rest is not None:
            seen[:3] = self._further(seen[:3], kernel, shape, centre, views.rest)
        seen[0] += self._far(family, shape)
        for slope, d in zip(seen[3:], steps[1], strict=True):
            slope += (self._far(family, shape + d) - self._far(family, shape - d)) / (2 * STEP)
        seen *= self.weight
        axes, r = self._orthogonal([self.weight, *seen[:3]])
        misfit, along = self._without(views.target * self.weight, axes)
        right = _over(along[3], r[3, 3])
        down = _over(along[2] - r[2, 3] * right, r[2, 2])
        gain = np.maximum(_over(along[1] - r[1, 2] * down - r[1, 3] * right, r[1, 1]), 0)
        slopes = np.stack([-self._without(change * self._spread(gain), axes)[0] for change in seen[3:]] or [misfit])
        root = np.array([[r[2, 2], r[2, 3]], [np.zeros_like(gain), r[3, 3]]]) * gain  # (2, 2, c, groups)
        info = np.einsum("kicg,kjcg->gij", root, root)
        pull = np.einsum("kicg,kcg->gi", root, np.stack([along[2], along[3]]))
        return Fit(family, shape, centre, misfit, slopes[: len(shape)], info, pull)

    def _far(self, family: Family, shape: FloatArray) -> FloatArray | float:
        """What is seen through a halo, (c, m), that moves little with the centre; 0 without one."""
        light = family.far(shape)
        if light is None:
            return 0.0
        assert self.around is not None
        found: FloatArray = np.tensordot(light, self.around, 1)
        return found

    def seen(self, fit: Fit) -> FloatArray:
        """The MSI as a fit has it at its place, (c, m)."""
        family, views = fit.family, self.views
        near = family.near(fit.shape, views.size, fit.centre + common(fit)[0], views.ratio)
        return views.seen(near[None])[0] + self._far(family, fit.shape)

    def _further(
        self,
        seen: FloatArray,
        kernel: Callable[[FloatArray, FloatArray], FloatArray],
        shape: FloatArray,
        centre: FloatArray,
        rest: FloatArray,
    ) -> FloatArray:
        """What a kernel and its slopes see (3, c, m), moved by parts `rest` (2, m) of HR pixels: Taylor's second order.

        Without that a kernel about a wrong place has to be as much wider as that is off.
        """
        e, (y, x) = 0.5, rest
        k = {(i, j): kernel(shape, centre + e * np.array([i, j])) for i in (-1, 0, 1) for j in (-1, 0, 1)}
        curves = [k[1, 0] - 2 * k[0, 0] + k[-1, 0], k[0, 1] - 2 * k[0, 0] + k[0, -1],
                  (k[1, 1] - k[1, -1] - k[-1, 1] + k[-1, -1]) / 4]  # fmt: skip
        yy, xx, xy = self.views.seen(np.stack(curves) / e**2)
        here, down, right = seen
        return np.stack([
            here + y * down + x * right + y**2 / 2 * yy + x**2 / 2 * xx + y * x * xy,
            down + y * yy + x * xy, right + x * xx + y * xy,
        ])  # fmt: skip

    def _orthogonal(self, columns: list[FloatArray]) -> tuple[list[FloatArray], FloatArray]:
        """Unit vectors (c, m), in every window, that span images (c, m), and R (k, k, c, windows): QR, Gram-Schmidt."""
        k, (c, _) = len(columns), columns[0].shape
        axes: list[FloatArray] = []
        r = np.zeros((k, k, c, len(self._starts)))
        for j, column in enumerate(columns):
            rest = column
            for _ in range(2):  # twice is enough for rounding
                for i, axis in enumerate(axes):
                    part = self._sum(axis * rest)
                    r[i, j] += part
                    rest = rest - axis * self._spread(part)
            length = np.sqrt(self._sum(rest**2))
            r[j, j] = np.where(length > 1e-7 * np.sqrt(self._sum(column**2)), length, 0)
            axes.append(rest * self._spread(_over(np.ones_like(length), r[j, j])))
        return axes, r

    def _without(self, image: FloatArray, axes: list[FloatArray]) -> tuple[FloatArray, list[FloatArray]]:
        """An image (c, m) less its parts along the axes, and those (c, windows)."""
        along = []
        for axis in axes:
            along.append(self._sum(axis * image))
            image = image - axis * self._spread(along[-1])
        return image, along

    def _sum(self, image: FloatArray) -> FloatArray:
        """(c, m) over every window: (c, windows)."""
        total: FloatArray = np.add.reduceat(image, self._starts, axis=1)
        return total

    def _spread(self, values: FloatArray) -> FloatArray:
        """(c, windows) to the pixels: (c, m)."""
        return values[:, self.groups]

    def best(self, family: Family, starts: Sequence[ArrayLike], centre: FloatArray, steps: int = STEPS) -> Fit:
        """The least misfit from any of the starts (Levenberg 1944, Marquardt 1963)."""
        fits = [self._descend(family, np.asarray(start, np.float64), centre, steps) for start in starts]
        return min(fits, key=lambda fit: fit.cost)

    def _descend(self, family: Family, shape: FloatArray, centre: FloatArray, steps: int) -> Fit:
        fit, damping = self.at(family, shape, centre), 1e-3
        for _ in range(steps):
            hessian = fit.hessian
            damped = hessian + np.diag(damping * np.diag(hessian) + 1e-12)
            step = np.clip(-np.linalg.solve(damped, np.einsum("icm,cm->i", fit.slopes, fit.misfit)), -0.4, 0.4)
            new = self._bounded(fit, fit.shape + step, fit.centre + common(fit)[0])
            if new.cost > fit.cost * (1 + 1e-9):
                damping = max(20 * damping, 0.1)
                if damping > 1e4:
                    break
                continue
            moved = [*np.abs(new.shape - fit.shape), *np.abs(new.centre - fit.centre) / self.views.ratio]
            gained, fit, damping = fit.cost - new.cost, new, damping / 5
            if max(moved) < SETTLED or gained < 1e-6 * new.cost:
                break
        return fit

    def _bounded(self, fit: Fit, shape: FloatArray, centre: FloatArray) -> Fit:
        far = LARGEST_SHIFT * self.views.ratio
        return self.at(fit.family, fit.family.bounded(shape, self.views.ratio), np.clip(centre, -far, far))

    def reweighted(self, fit: Fit) -> Search:
        """With each window's own noise in each band, and little from outliers, by what a fit leaves."""
        rest, window = fit.misfit / self.weight, self.views.window
        noise = np.stack(
            [np.median(np.abs(rest[:, window == w]), axis=1) / 0.6745 for w in range(window.max() + 1)], axis=1
        )
        noise = np.maximum(noise, QUIET * np.median(noise, axis=1, keepdims=True))
        noise = np.maximum(noise, 1e-6 * self.views.target.std(1, keepdims=True) + 1e-12)[:, window]
        weight = 1 / noise / np.sqrt(np.maximum(1, np.abs(rest) / noise / HUBER))
        return Search(self.views, weight, around=self.around)


def _over(a: FloatArray, b: FloatArray) -> FloatArray:
    """a / b, 0 where b is."""
    return np.divide(a, b, out=np.zeros_like(a), where=b != 0)


def common(fit: Fit) -> tuple[FloatArray, float]:
    """The windows' common shift (y, x) from the centre and how far windows' shifts scatter, HR pixels.

    The scatter is a standard deviation by the median, less the windows' own errors.
    """
    info = fit.info.sum(0) + 1e-9 * np.trace(fit.info.sum(0)) * np.eye(2) + 1e-30 * np.eye(2)
    move = np.linalg.solve(info, fit.pull.sum(0))
    if len(fit.info) == 1:
        return move, 0.0
    tiny = 1e-9 * np.trace(fit.info, axis1=1, axis2=2)[:, None, None] * np.eye(2) + 1e-30 * np.eye(2)
    own = np.linalg.solve(fit.info + tiny, fit.pull[..., None])[..., 0] - move
    errors = np.trace(np.linalg.inv(fit.info + tiny), axis1=1, axis2=2) / 2
    clear = errors <= np.median(errors)  # not those where the ground has changed
    scatter = float(np.median((own[clear] ** 2).sum(1)) / (2 * np.log(2)) - np.median(errors[clear]))
    return move, float(np.sqrt(max(0.0, scatter)))


def place_sd(search: Search, fit: Fit) -> float:
    """Standard deviation of a fit's place in HR pixels, for a part of the scene as for all of it.

    A window's place is where its cells were moved to, and where it would rather lie from there. Neighbours are
    misplaced alike, so that what windows scatter beyond their own errors isn't averaged out by their number.
    """
    views = search.views
    told = Search(views, search.weight, views.window, search.around).at(fit.family, fit.shape, fit.centre)
    info, count = told.info, np.bincount(views.window)
    own = np.linalg.inv(info + (1e-9 * np.trace(info, axis1=1, axis2=2)[:, None, None] + 1e-12) * np.eye(2))
    places = np.einsum("wij,wj->wi", own, told.pull)
    if views.move is not None:
        places += np.stack([np.bincount(views.window, axis) / count for axis in views.move], 1)
    covariance = np.linalg.inv(info.sum(0) + 1e-12 * np.eye(2))
    rest = places - covariance @ np.einsum("wij,wj->i", info, places)
    chi2 = max(1.0, float(np.einsum("wi,wij,wj", rest, info, rest)) / max(1, 2 * len(rest) - 2))
    return float(np.sqrt(chi2 * np.linalg.eigvalsh(covariance)[-1] + spread_of(rest, own) ** 2))

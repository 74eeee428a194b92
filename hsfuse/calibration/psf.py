"""The LRHSI's PSF from the pair itself: R x LRHSI against the MSI, blurred and decimated by a kernel to be found.

Each window of the scene has its own gain, offset and small shift for each band (variable projection, Golub and Pereyra
1973), so that radiometry, misplacement and drift aren't taken for blur, and its own noise, so that a window where the
ground has changed counts little. Of the families of `kernels` the simplest is taken that explains windows which its
numbers weren't fitted to about as well as the best does. Uncertainty is the windows' disagreement: a jackknife that
leaves out one after the other (Efron, Stein 1981).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from hsfuse.calibration.free import free_kernel
from hsfuse.calibration.kernels import BLURRED_BOX, BOX, ELLIPTIC, ROUND, TURNED, Family, assumed
from hsfuse.calibration.spectra import FloatArray
from hsfuse.calibration.views import Views, correlations
from hsfuse.calibration.windows import spread_of
from hsfuse.core.errors import SettingError
from hsfuse.physics.model import Psf, centred_phase

#: A window of fewer pixels can't have a shift of its own.
LEAST_OWN = 60
#: Largest shift between the images beyond what is known of it, in LR pixels.
LARGEST_SHIFT = 1.5
#: Rounds of moving cells to where they would rather lie, HR pixels below which that isn't worth it, and by how much
#: the median cell must stand out of chance, times the root of their number.
PLACINGS, LEAST_WANDER, CHANCE = 3, 0.15, 6.0
#: Steps of a fit, and the change (of log widths, and LR pixels) that ends it.
STEPS, SETTLED = 10, 2e-4
#: Steps of numerical derivatives by the shape, and by the centre in HR pixels.
STEP, CENTRE_STEP = 1e-4, 0.05
#: Noise deviations beyond which a pixel counts less (Huber), and the least noise of a window relative to the median's.
HUBER, QUIET = 2.0, 0.5
#: A simpler family is kept when its windows are worse by less than so many standard errors, so much of -2 log
#: likelihood, or this share of it: what is less isn't seen in a fused image. What is nearly round counts as round, and
#: nearly upright as upright, which costs a fraction of the arithmetic: more than one number has to bear out more.
BORNE_OUT, LEAST_GAIN, LEAST_SHARE, SHAPED_SHARE = 2.0, 4.0, 0.002, 0.01
#: A free kernel has (4 s)^2 unknowns.
LARGEST_FREE_RATIO = 12
#: Correlation of detail below which the images have none in common, largest uncertainty of a width (a share of it), and
#: widest PSF in LR pixels (MTF at Nyquist of 0.003) that is believed.
LEAST_DETAIL, MOST_SPREAD, WIDEST = 0.5, 0.25, 1.1


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

    def __init__(self, views: Views, weight: FloatArray, groups: NDArray[np.intp] | None = None) -> None:
        """`groups` (m,) are the windows, where these aren't too small, unless told."""
        self.views, self.weight = views, weight
        small = np.median(np.bincount(views.window)) < LEAST_OWN
        self.groups = groups if groups is not None else np.zeros_like(views.window) if small else views.window
        self._starts = np.flatnonzero(np.diff(self.groups, prepend=-1))  # pixels are sorted by window

    def at(self, family: Family, shape: FloatArray, centre: FloatArray) -> Fit:
        """What a shape leaves."""
        views, size, s = self.views, self.views.size, self.views.ratio

        def kernel(p: FloatArray, c: FloatArray) -> FloatArray:
            return family.kernel(p, size, c, s)

        steps = CENTRE_STEP * np.eye(2), STEP * np.eye(len(shape))
        by_centre = [(kernel(shape, centre + d) - kernel(shape, centre - d)) / (2 * CENTRE_STEP) for d in steps[0]]
        by_shape = [(kernel(shape + d, centre) - kernel(shape - d, centre)) / (2 * STEP) for d in steps[1]]
        seen = views.seen(np.stack([kernel(shape, centre), *by_centre, *by_shape]))
        if views.rest is not None:
            seen[:3] = self._further(seen[:3], kernel, shape, centre, views.rest)
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
            new = self._bounded(fit, fit.shape + step, fit.centre + _common(fit)[0])
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
        shape[:2] = np.clip(shape[:2], *fit.family.bounds(self.views.ratio))
        return self.at(fit.family, shape, np.clip(centre, -far, far))

    def reweighted(self, fit: Fit) -> Search:
        """With each window's own noise in each band, and little from outliers, by what a fit leaves."""
        rest, window = fit.misfit / self.weight, self.views.window
        noise = np.stack(
            [np.median(np.abs(rest[:, window == w]), axis=1) / 0.6745 for w in range(window.max() + 1)], axis=1
        )
        noise = np.maximum(noise, QUIET * np.median(noise, axis=1, keepdims=True))
        noise = np.maximum(noise, 1e-6 * self.views.target.std(1, keepdims=True) + 1e-12)[:, window]
        return Search(self.views, 1 / noise / np.sqrt(np.maximum(1, np.abs(rest) / noise / HUBER)))


def _over(a: FloatArray, b: FloatArray) -> FloatArray:
    """a / b, 0 where b is."""
    return np.divide(a, b, out=np.zeros_like(a), where=b != 0)


def _common(fit: Fit) -> tuple[FloatArray, float, float]:
    """The windows' common shift (y, x) from the centre, its standard error, and how far windows' shifts scatter.

    All in HR pixels. Where windows differ by more than their own errors allow (chi-square), the error is as much
    larger. The scatter is a standard deviation by the median, less the windows' own errors.
    """
    info = fit.info.sum(0) + 1e-9 * np.trace(fit.info.sum(0)) * np.eye(2) + 1e-30 * np.eye(2)
    move, covariance = np.linalg.solve(info, fit.pull.sum(0)), np.linalg.inv(info)
    error = float(np.linalg.eigvalsh(covariance).max())
    if len(fit.info) == 1:
        return move, float(np.sqrt(error)), 0.0
    tiny = 1e-9 * np.trace(fit.info, axis1=1, axis2=2)[:, None, None] * np.eye(2) + 1e-30 * np.eye(2)
    own = np.linalg.solve(fit.info + tiny, fit.pull[..., None])[..., 0] - move
    chi2 = max(1.0, float(np.einsum("wi,wij,wj", own, fit.info, own)) / (2 * len(own) - 2))
    errors = np.trace(np.linalg.inv(fit.info + tiny), axis1=1, axis2=2) / 2
    clear = errors <= np.median(errors)  # not those where the ground has changed
    scatter = float(np.median((own[clear] ** 2).sum(1)) / (2 * np.log(2)) - np.median(errors[clear]))
    return move, float(np.sqrt(error * chi2)), float(np.sqrt(max(0.0, scatter)))


def _wandering(search: Search, fit: Fit) -> tuple[FloatArray, float] | None:
    """Where each pixel's cell would rather lie, (2, m) in HR pixels from the centre; None where cells don't wander.

    As far as cells lie apart beyond their own errors, each is believed (the mean of a Gaussian's posterior). The other
    number is how far they lie about their window's place: about as much is likely to be left within a cell.
    """
    views = search.views
    told = Search(views, search.weight, views.cell).at(fit.family, fit.shape, fit.centre)
    first = np.flatnonzero(np.diff(views.cell, prepend=-1))
    tiny = 1e-9 * np.trace(told.info, axis1=1, axis2=2)[:, None, None] * np.eye(2) + 1e-12 * np.eye(2)
    own = np.linalg.inv(told.info + tiny)
    place = np.einsum("nij,nj->ni", own, told.pull) + (0 if views.move is None else views.move[:, first].T)
    rest = place - np.median(place, axis=0)
    spread = spread_of(rest, own)
    if spread < LEAST_WANDER or spread_of(rest, own, CHANCE / np.sqrt(len(own))) == 0:
        return None
    believed = spread**2 * np.linalg.inv(spread**2 * np.eye(2) + own)
    move = np.einsum("nij,nj->ni", believed, rest)
    move = np.clip(move, -LARGEST_SHIFT * views.ratio, LARGEST_SHIFT * views.ratio)
    window = views.window[first]
    count, mean = np.bincount(window), np.stack([np.bincount(window, axis) for axis in move.T], 1)
    apart = ((move - (mean / count[:, None])[window]) ** 2).sum() / max(1, 2 * (len(move) - len(count)))
    unsure = float(np.trace(own @ believed, axis1=1, axis2=2).mean()) / 2
    return move[views.cell].T, float(np.sqrt(apart + unsure))


@dataclass(frozen=True)
class Judged:
    """A fit, what it leaves of each window when fitted to the others (w,), and each time's change of the shape.

    `wander`: how far ground is likely to be misplaced within cells, HR pixels.
    """

    fit: Fit
    held_out: FloatArray
    moved: FloatArray  # (w, k)
    wander: float

    @classmethod
    def of(cls, fit: Fit, views: Views, wander: float) -> Judged:
        """One Gauss-Newton step from the fit to all windows stands for a fit to all but one."""
        window, hessian = views.window, fit.hessian
        count = int(window.max()) + 1
        held_out, moved = np.empty(count), np.zeros((count, len(fit.shape)))
        tiny = (1e-9 * np.trace(hessian) + 1e-12) * np.eye(len(fit.shape))
        for w in range(count):
            inside = window == w
            slopes, misfit = fit.slopes[:, :, inside], fit.misfit[:, inside]
            own, pull = np.einsum("icm,jcm->ij", slopes, slopes), np.einsum("icm,cm->i", slopes, misfit)
            moved[w] = np.linalg.solve(hessian - own + tiny, pull)
            near = np.clip(fit.shape[:2] + moved[w, :2], *fit.family.bounds(views.ratio))
            moved[w, :2] = near - fit.shape[:2]
            held_out[w] = ((misfit + np.einsum("icm,i->cm", slopes, moved[w])) ** 2).sum()
        return cls(fit, held_out, moved, wander)

    @property
    def covariance(self) -> FloatArray:
        """(k, k) of the shape, by the jackknife."""
        centred, n = self.moved - self.moved.mean(0), len(self.moved)
        return (n - 1) / n * centred.T @ centred

    def borne_out_by(self, best: Judged) -> bool:
        """Whether the best, richer family is no clear gain over this one.

        Were both as good, windows would be better in either as often; those that are worse in the richer one tell how
        much that is.
        """
        gain = self.held_out - best.held_out
        error = np.sqrt(2 * np.square(np.minimum(gain, 0)).sum())
        share = SHAPED_SHARE if best.fit.family in (ELLIPTIC, TURNED) else LEAST_SHARE
        return bool(gain.sum() <= max(BORNE_OUT * error, LEAST_GAIN, share * best.held_out.sum()))


@dataclass(frozen=True, eq=False)
class EstimatedPsf:
    """A centred `psf` of a `family`, its widths (standard deviations) in HR pixels and turn as for `elliptic_psf`.

    All with standard deviations from the disagreement of windows. `shift` (y, x): the LRHSI's pixel centres lie that
    many HR pixels further down and right than the grids say, and `shifted` is the PSF about them; `mtf` (y, x) at the
    LR Nyquist frequency and `mtf_sd`; `gain` and `offset` (c,) of the MSI against R x LRHSI and `correlation` (c,), of
    the bands used. `doubt` says why the pair can't tell and `psf` is the assumed one; "" where it can.
    """

    psf: Psf
    shifted: Psf
    family: str
    sigma: tuple[float, float]
    sigma_sd: tuple[float, float]
    theta_deg: float
    theta_sd_deg: float
    shift: tuple[float, float]
    shift_sd: tuple[float, float]
    mtf: tuple[float, float]
    mtf_sd: tuple[float, float]
    gain: FloatArray
    offset: FloatArray
    correlation: FloatArray
    doubt: str = ""

    def __repr__(self) -> str:
        return f"EstimatedPsf({self.describe()})"

    def describe(self) -> str:
        """One line for people."""
        (y, x), (sy, sx) = self.sigma, self.sigma_sd
        if self.family == "assumed":
            return f"as assumed ({self.psf.label}): the pair bears it out" if not self.doubt else self.psf.label
        widths = f"{y:.2f} +- {sy:.2f}"
        if y != x:
            widths = f"{y:.2f} +- {sy:.2f} (y) and {x:.2f} +- {sx:.2f} (x)"
        if self.family == "turned":
            widths += f", turned by {self.theta_deg:.0f} +- {min(self.theta_sd_deg, 90):.0f} degrees"
        mtf = f"MTF at Nyquist {self.mtf[0]:.2f} +- {self.mtf_sd[0]:.2f}"
        if y != x:
            mtf = f"MTF at Nyquist {self.mtf[0]:.2f} +- {self.mtf_sd[0]:.2f} (y) and {self.mtf[1]:.2f} (x)"
        return f"{KINDS[self.family]}, standard deviation {widths} MSI pixels, {mtf}"


#: What families are called.
KINDS = {
    "box": "box of one HSI pixel",
    "round": "Gaussian",
    "blurred box": "Gaussian times box",
    "elliptic": "elliptic Gaussian",
    "turned": "turned elliptic Gaussian",
    "free": "free kernel",
}


def estimate_psf(
    lrhsi: Tensor,
    msi: Tensor,
    mask: Tensor,
    matrix: ArrayLike,
    ratio: int,
    phase: float | None = None,
    kind: str = "auto",
    given: Psf | None = None,
    near: tuple[float, float] = (0.0, 0.0),
) -> EstimatedPsf:
    """PSF from blocks: LRHSI (n, C, h, w), MSI (n, c, H, W), mask (n, h, w) and R `matrix` (c, C).

    `kind` is "auto" (any family), "gaussian" or "free". A PSF `given` is kept where nothing is clearly better, and
    where the pair can't tell. `near` (y, x): what is known of the shift, HR pixels. SettingError for another kind, or a
    free kernel at a ratio above 12; InputError when fewer than 36 LR pixels lie far enough from borders and invalid
    pixels.
    """
    if kind not in ("auto", "gaussian", "free"):
        raise SettingError(f"the PSF's kind is {kind!r}, wanted auto, gaussian or free")
    if kind == "free" and ratio > LARGEST_FREE_RATIO:
        raise SettingError(f"a free PSF kernel is estimated up to ratio {LARGEST_FREE_RATIO}, this is {ratio}")
    phase = centred_phase(ratio) if phase is None else phase
    target = torch.einsum("kc,bchw->bkhw", torch.as_tensor(np.asarray(matrix)).double(), lrhsi.double())
    views, detail = Views.of(target, msi, mask, ratio, phase, near)
    families = [ROUND, ELLIPTIC, TURNED] if kind == "gaussian" else [BOX, ROUND, BLURRED_BOX, ELLIPTIC, TURNED]
    if given is not None:
        families.insert(0, assumed(given, ratio))
    judged, views = _judged(views, families)
    best = min(judged, key=lambda one: one.held_out.sum())
    chosen = next(one for one in judged if one.borne_out_by(best))
    if given is not None and _as_wide(judged[0], chosen, ratio):
        chosen = judged[0]
    doubt = _doubt(chosen, views, detail) if given is not None else ""
    found = judged[0] if doubt else chosen
    free_one = next(one for one in judged if one.fit.family is ROUND) if found.fit.family.name == "assumed" else found
    return _summed_up(views, found, free_one, given, kind == "free" and not doubt, doubt)


def _judged(views: Views, families: list[Family]) -> tuple[list[Judged], Views]:
    """Every family fitted, with weights that the best of them gives, and the views with cells where they lie."""
    contrast = views.target.std(1, keepdims=True) + 1e-12
    search = Search(views, np.broadcast_to(1 / contrast, views.target.shape))
    rough, wander = search.best(ROUND, ROUND.starts, np.zeros(2)), 0.0
    search = search.reweighted(rough)
    for _ in range(PLACINGS):
        wandering = _wandering(search, rough)
        if wandering is None:
            break
        move, wander = wandering
        views = views.at(move)
        search = Search(views, search.weight)
        rough = search.best(ROUND, [rough.shape], rough.centre)
        search = search.reweighted(rough)
    fits: dict[str, Fit] = {}
    for family in families:
        starts: Sequence[ArrayLike] = family.starts
        if family in (ROUND, ELLIPTIC):
            starts = [np.repeat(rough.shape, len(family.starts[0]))]
        elif family is TURNED:
            starts = [[*fits[ELLIPTIC.name].shape, 0.0]]
        fits[family.name] = search.best(family, starts, rough.centre)
    search = search.reweighted(min(fits.values(), key=lambda fit: fit.cost))
    again = [search.best(family, [fits[family.name].shape], fits[family.name].centre, 4) for family in families]
    return [Judged.of(fit, views, wander) for fit in again], views


def _doubt(chosen: Judged, views: Views, detail: FloatArray) -> str:
    """Why the pair can't tell its PSF; empty where it can."""
    if detail.max() < LEAST_DETAIL:
        return f"the images have too little detail in common (correlation {max(0.0, float(detail.max())):.2f})"
    if chosen.fit.family.name == "assumed":
        return ""
    widths, spread = _widths(chosen, views.ratio)
    share = float((spread[:2] / widths[:2]).max())
    if share > MOST_SPREAD:
        return f"windows of the scene disagree in width and place, which leaves its width open by {share:.0%}"
    widest = float(widths[:2].max()) / views.ratio
    if widest > WIDEST:
        return f"it would be {widest:.1f} HSI pixels wide, as misplaced or changed ground makes it"
    return ""


def _summed_up(
    views: Views, found: Judged, free_one: Judged, given: Psf | None, free: bool, doubt: str
) -> EstimatedPsf:
    """Of a fit and, for what the pair leaves open of its widths, of one that was free to have others."""
    fit, s = found.fit, views.ratio
    family = fit.family
    psf = given if family.name == "assumed" and given is not None else family.psf(fit.shape, s, views.phase)
    kernel, name = family.kernel(fit.shape, views.size, fit.centre, s), family.name
    if free:
        kernel, psf = free_kernel(views, kernel, fit.centre)
        name = "free"
    seen = views.seen(kernel[None])[0]
    gain, offset = views.radiometry(seen)
    widths, (_, widths_sd) = _widths(found, s)[0], _widths(free_one, s)
    mtf_sd = _spread(free_one, lambda p: np.array(free_one.fit.family.psf(p, s, views.phase).mtf(s)))
    move, error, _ = _common(fit)
    place = fit.centre + move + views.offset
    return EstimatedPsf(
        psf,
        Psf(_moved(kernel, views.offset), f"{psf.label}, shifted").with_few_terms(),
        name,
        (float(widths[0]), float(widths[1])),
        (float(widths_sd[0]), float(widths_sd[1])),
        float(widths[2]),
        float(widths_sd[2]),
        (float(place[0]), float(place[1])),
        (error, error),
        psf.mtf(s),
        (float(mtf_sd[0]), float(mtf_sd[1])),
        gain[:, 0],
        offset[:, 0],
        correlations(seen, views.target),
        doubt,
    )


def _widths(found: Judged, ratio: int) -> tuple[FloatArray, FloatArray]:
    """Widths (y, x) and turn of a PSF, and their standard deviations: (3,) each.

    Where windows and their cells lie at different places, the ground is likely to be misplaced within them, too, by
    about as much, and that looks like blur: as much of the width is uncertain.
    """
    fit = found.fit
    widths, spread = fit.family.widths(fit.shape, ratio), _spread(found, lambda p: fit.family.widths(p, ratio))
    less = np.sqrt(np.maximum(widths[:2] ** 2 - _common(fit)[2] ** 2 - found.wander**2, 0))
    spread[:2] = np.hypot(spread[:2], widths[:2] - less)
    return widths, spread


def _as_wide(one: Judged, other: Judged, ratio: int) -> bool:
    """Whether one's widths lie within the standard deviations of the other's, as windows disagree about them."""
    own, widths = (found.fit.family.widths(found.fit.shape, ratio)[:2] for found in (one, other))
    spread = _spread(other, lambda p: other.fit.family.widths(p, ratio))[:2]
    return bool((np.abs(own - widths) <= spread).all())


def _spread(found: Judged, of: Callable[[FloatArray], FloatArray]) -> FloatArray:
    """Standard deviations (q,) of what follows from a shape, by the jackknife; a third one is a turn in degrees."""
    n, value = len(found.moved), of(found.fit.shape)
    left = np.stack([of(found.fit.shape + moved) for moved in found.moved]) - value
    left[:, 2:] = (left[:, 2:] + 45) % 90 - 45
    spread: FloatArray = np.sqrt((n - 1) * left.var(0))
    return spread


def _moved(kernel: FloatArray, offset: tuple[int, int]) -> FloatArray:
    """A kernel's taps moved down and right, in an array as much larger on each side."""
    return np.roll(np.pad(kernel, max(abs(move) for move in offset)), offset, (0, 1))

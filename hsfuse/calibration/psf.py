"""The LRHSI's PSF from the pair itself: R x LRHSI against the MSI, blurred and decimated by a kernel to be found.

Each window of the scene has its own gain, offset and small shift for each band (variable projection, Golub and Pereyra
1973), so that radiometry, misplacement and drift aren't taken for blur, and its own noise, so that a window where the
ground has changed counts little. Of the families of `kernels` the simplest is taken that explains windows which its
numbers weren't fitted to about as well as the best does. Uncertainty is the windows' disagreement: a jackknife that
leaves out one after the other (Efron, Stein 1981), that of coarse parts of the scene, and what lies between families
that windows bear out about as well. A halo is asked for about the simplest of them first, and about all where that is
borne out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import hypot

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from hsfuse.calibration.kernels import (
    BLURRED_BOX,
    BOX,
    ELLIPTIC,
    LARGEST_WIDTH,
    ROUND,
    TURNED,
    WITH_HALO,
    Family,
    Haloed,
    assumed,
)
from hsfuse.calibration.spectra import FloatArray, gain_error
from hsfuse.calibration.views import LARGEST_SHIFT, Fit, Search, Views, common, correlations, place_sd, surroundings
from hsfuse.calibration.windows import apart, spread_of
from hsfuse.core.errors import SettingError
from hsfuse.core.values import plus_minus
from hsfuse.physics.model import Psf, centred_phase

#: Rounds of moving cells to where they would rather lie, HR pixels below which that isn't worth it, and by how much
#: the median cell must stand out of chance, times the root of their number.
PLACINGS, LEAST_WANDER, CHANCE = 3, 0.15, 6.0
#: A simpler family is kept when its windows are worse by less than so many standard errors, so much of -2 log
#: likelihood, or this share of it: what is less isn't seen in a fused image. What is nearly round counts as round, and
#: nearly upright as upright, which costs a fraction of the arithmetic: more than one number has to bear out more.
BORNE_OUT, LEAST_GAIN, LEAST_SHARE, SHAPED_SHARE = 2.0, 4.0, 0.002, 0.01
#: Errors of its own from which on a shift is more than chance.
CLEARLY_OFF = 1.5
#: A halo's numbers to begin from: logarithms of its width in LR pixels and of the odds of its share.
HALO_START = (float(np.log(1.4)), float(np.log(0.15)))
#: Share of the largest width that is searched from which on a width is as large as that.
AT_BOUND = 0.99
#: A free kernel has (4 s)^2 unknowns.
LARGEST_FREE_RATIO = 12
#: Correlation of detail below which the images have none in common, largest uncertainty of a width (a share of it), and
#: widest PSF in LR pixels (MTF at Nyquist of 0.003) that is believed, but for one that is known as closely as this: an
#: LRHSI of finer pixels than its sensor's is as wide everywhere, misplaced or changed ground isn't.
LEAST_DETAIL, MOST_SPREAD, WIDEST, CLOSELY = 0.5, 0.25, 1.1, 0.02


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
    within = ((move - (mean / count[:, None])[window]) ** 2).sum() / max(1, 2 * (len(move) - len(count)))
    unsure = float(np.trace(own @ believed, axis1=1, axis2=2).mean()) / 2
    return move[views.cell].T, float(np.sqrt(within + unsure))


@dataclass(frozen=True)
class Judged:
    """A fit, what it leaves of each window when fitted to the others (w,), and each time's change of the shape.

    `part` (w,): where each window lies, `wander`: how far ground is likely to be misplaced within cells, HR pixels.
    """

    fit: Fit
    held_out: FloatArray
    moved: FloatArray  # (w, k)
    part: NDArray[np.intp]
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
            moved[w] = fit.family.bounded(fit.shape + moved[w], views.ratio) - fit.shape
            held_out[w] = ((misfit + np.einsum("icm,i->cm", slopes, moved[w])) ** 2).sum()
        return cls(fit, held_out, moved, views.part, wander)

    def borne_out_by(self, best: Judged) -> bool:
        """Whether the best, richer family is no clear gain over this one."""
        gain = self.held_out - best.held_out
        shaped = best.fit.family in (ELLIPTIC, TURNED) or isinstance(best.fit.family, Haloed)
        share = SHAPED_SHARE if shaped else LEAST_SHARE
        return bool(gain.sum() <= max(BORNE_OUT * gain_error(gain), LEAST_GAIN, share * best.held_out.sum()))


@dataclass(frozen=True, eq=False)
class EstimatedPsf:
    """A centred `psf` of a `family`, its widths (standard deviations) in HR pixels and turn as for `elliptic_psf`.

    All with standard deviations from the disagreement of windows. `shift` (y, x): the LRHSI's pixel centres lie that
    many HR pixels further down and right than the grids say, and `shifted` is the PSF about them; `mtf` (y, x) at the
    LR Nyquist frequency and `mtf_sd`; `gain` and `offset` (c,) of the MSI against R x LRHSI and `correlation` (c,), of
    the bands used. `halo`: a halo's share of the light and its width in HR pixels, None without one; widths and
    turn are its core's. `doubt` says why the pair can't tell and `psf` is the assumed one; "" where it can.
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
    halo: tuple[float, float] | None = None
    halo_sd: tuple[float, float] | None = None
    doubt: str = ""

    def __repr__(self) -> str:
        return f"EstimatedPsf({self.describe()})"

    @property
    def clearly_off(self) -> bool:
        """Whether the shift stands out of its error."""
        return hypot(*self.shift) > CLEARLY_OFF * max(self.shift_sd)

    def describe(self) -> str:
        """One line for people."""
        (y, x), (sy, sx) = self.sigma, self.sigma_sd
        if self.family == "assumed":
            return f"as assumed ({self.psf.label}): the pair bears it out" if not self.doubt else self.psf.label
        widths, core = f"{plus_minus(y, sy)} MSI pixels", self.family.removesuffix(WITH_HALO)
        mtf = f"MTF at Nyquist {plus_minus(self.mtf[0], self.mtf_sd[0])}"
        if y != x:
            widths = f"{plus_minus(y, sy)} (y) and {plus_minus(x, sx)} (x) MSI pixels"
            mtf = f"{mtf} (y) and {plus_minus(self.mtf[1], self.mtf_sd[1])} (x)"
        if core == "turned":
            widths += f", turned by {plus_minus(self.theta_deg, min(self.theta_sd_deg, 90))} degrees"
        if self.halo is not None and self.halo_sd is not None:
            (share, width), (share_sd, width_sd) = self.halo, self.halo_sd
            light = plus_minus(100 * share, 100 * share_sd)
            widths += f", {light} % of the light in a halo of {plus_minus(width, width_sd)} MSI pixels"
        return f"{KINDS[core]}, standard deviation {widths}, {mtf}"


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
    judged, search = _judged(views, families)
    if kind == "auto":
        judged, search = _with_halos(judged, search)
    borne_out = _borne_out(judged)
    chosen = borne_out[0]
    if given is not None and not isinstance(chosen.fit.family, Haloed) and _as_wide(judged[0], chosen, ratio):
        chosen = judged[0]
    doubt = _doubt(chosen, judged, search.views, detail) if given is not None else ""
    found = judged[0] if doubt else chosen
    free_one = found if found.fit.shape.size else next(one for one in judged if one.fit.family is ROUND)
    return _summed_up(search, found, free_one, borne_out, given, kind == "free" and not doubt, doubt)


def _judged(views: Views, families: list[Family]) -> tuple[list[Judged], Search]:
    """Every family fitted, and the search with cells where they lie and weights that the best of them gives."""
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
    return [Judged.of(fit, views, wander) for fit in again], search


def _borne_out(judged: Sequence[Judged]) -> list[Judged]:
    """Those that windows bear out about as well as the best, the simplest first."""
    best = min(judged, key=lambda one: one.held_out.sum())
    return [one for one in judged if one.borne_out_by(best)]


def _with_halos(judged: list[Judged], search: Search) -> tuple[list[Judged], Search]:
    """And every family with a halo, where windows bear out one about the simplest without, and agree about it."""
    free, views = [one for one in judged if one.fit.family.name != "assumed"], search.views
    simple = _borne_out(free)[0]
    around = Search(views, search.weight, around=surroundings(views, simple.fit.centre))

    def judge(fit: Fit) -> Judged:
        return Judged.of(fit, views, simple.wander)

    def haloed(one: Fit, *halo: float) -> Fit:
        return around.best(Haloed.about(one.family), [[*one.shape, *halo]], one.centre)

    first = haloed(simple.fit, *HALO_START)
    if simple.borne_out_by(judge(first)):
        return judged, search
    around = around.reweighted(first)
    without = [around.best(one.fit.family, [one.fit.shape], one.fit.centre, 4) for one in judged]
    every = [judge(fit) for fit in [*without, *(haloed(one.fit, *first.shape[-2:]) for one in free)]]
    borne_out = _borne_out(every)
    halo = _halo(borne_out[0], borne_out, views.ratio)
    told = halo is not None and (halo[0] > BORNE_OUT * halo[1]).all()
    return (every, around) if told else (judged, search)


def _doubt(chosen: Judged, judged: Sequence[Judged], views: Views, detail: FloatArray) -> str:
    """Why the pair can't tell its PSF; empty where it can.

    One without numbers may fit only because nothing is told: a round one's width has to be, and closely.
    """
    if detail.max() < LEAST_DETAIL:
        return f"the images have too little detail in common (correlation {max(0.0, float(detail.max())):.2f})"
    fixed = not chosen.fit.shape.size
    told = next(one for one in judged if one.fit.family is ROUND) if fixed else chosen
    widths, spread = _widths(told, views.ratio, whole=not fixed)
    share = float((spread[:2] / widths[:2]).max())
    if share > (MOST_SPREAD / BORNE_OUT if fixed else MOST_SPREAD):
        by = f" by {share:.0%}" if share < 1 else ""
        return f"windows of the scene disagree in width and place, which leaves its width open{by}"
    if chosen.fit.family.name == "assumed":
        own = chosen.fit.family.widths(chosen.fit.shape, views.ratio)[:2]
        if (np.abs(own - widths[:2]) > np.maximum(BORNE_OUT * spread, MOST_SPREAD / BORNE_OUT * widths)[:2]).any():
            return f"windows of the scene want a width of {plus_minus(widths[0], spread[0])} MSI pixels in its place"
        return ""
    widest = float(widths[:2].max()) / views.ratio
    searched = widest < AT_BOUND * LARGEST_WIDTH
    if widest > WIDEST and not (share < CLOSELY and searched):
        return f"it would be {widest:.1f} HSI pixels wide, as misplaced or changed ground makes it"
    return ""


def _summed_up(
    search: Search,
    found: Judged,
    free_one: Judged,
    borne_out: Sequence[Judged],
    given: Psf | None,
    free: bool,
    doubt: str,
) -> EstimatedPsf:
    """Of a fit; what the pair leaves open of its widths is told by one that was free to have others, and by families.

    Windows bear out each of `borne_out` about as well: what lies between them is uncertain, too.
    """
    views = search.views
    fit, s = found.fit, views.ratio
    family = fit.family
    psf = given if family.name == "assumed" and given is not None else family.psf(fit.shape, s, views.phase)
    centre = fit.centre + common(fit)[0]
    kernel, name = family.kernel(fit.shape, views.size, centre, s), family.name
    if free:
        from hsfuse.calibration.free import free_kernel

        kernel, psf = free_kernel(views, kernel, centre)
        name = "free"
    seen = views.seen(kernel[None])[0] if free else search.seen(fit)
    gain, offset = views.radiometry(seen)
    widths, (_, widths_sd) = _widths(found, s)[0], _widths(free_one, s, whole=False)
    mtf_sd = _spread(free_one, lambda p: np.array(free_one.fit.family.psf(p, s, views.phase).mtf(s)), whole=False)
    for one in borne_out:
        other = one.fit.family
        between = np.abs(other.widths(one.fit.shape, s)[:2] - widths[:2])
        widths_sd[:2] = np.maximum(widths_sd[:2], between)
        mtf_sd = np.maximum(mtf_sd, np.abs(np.subtract(other.psf(one.fit.shape, s, views.phase).mtf(s), psf.mtf(s))))
    place, error, halo = centre + views.offset, place_sd(search, fit), _halo(found, borne_out, s)
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
        None if halo is None else (float(halo[0, 0]), float(halo[0, 1])),
        None if halo is None else (float(halo[1, 0]), float(halo[1, 1])),
        doubt,
    )


def _halo(found: Judged, borne_out: Sequence[Judged], ratio: int) -> FloatArray | None:
    """Share of the light and width in HR pixels of a halo, and their standard deviations (2, 2); None without one."""
    family = found.fit.family
    if not isinstance(family, Haloed):
        return None
    value, spread = family.halo(found.fit.shape, ratio), _spread(found, lambda p: family.halo(p, ratio), whole=False)
    for one in borne_out:
        if isinstance(one.fit.family, Haloed):
            spread = np.maximum(spread, np.abs(one.fit.family.halo(one.fit.shape, ratio) - value))
    return np.stack([value, spread])


def _widths(found: Judged, ratio: int, whole: bool = True) -> tuple[FloatArray, FloatArray]:
    """Widths (y, x) and turn of a PSF, and their standard deviations: (3,) each; `whole` as for `_spread`.

    Where windows and their cells lie at different places, the ground is likely to be misplaced within them, too, by
    about as much, and that looks like blur: as much of the width is uncertain.
    """
    fit = found.fit
    widths, spread = fit.family.widths(fit.shape, ratio), _spread(found, lambda p: fit.family.widths(p, ratio), whole)
    less = np.sqrt(np.maximum(widths[:2] ** 2 - common(fit)[1] ** 2 - found.wander**2, 0))
    spread[:2] = np.hypot(spread[:2], widths[:2] - less)
    return widths, spread


def _as_wide(one: Judged, other: Judged, ratio: int) -> bool:
    """Whether one's widths lie within the standard deviations of the other's, as windows disagree about them."""
    own, widths = (found.fit.family.widths(found.fit.shape, ratio)[:2] for found in (one, other))
    spread = _spread(other, lambda p: other.fit.family.widths(p, ratio))[:2]
    return bool((np.abs(own - widths) <= spread).all())


def _spread(found: Judged, of: Callable[[FloatArray], FloatArray], whole: bool = True) -> FloatArray:
    """Standard deviations (q,) of what follows from a shape, by the jackknife; a third one is a turn in degrees.

    For the `whole` scene as if windows erred each by itself, otherwise for any part of it.
    """
    n, value = len(found.moved), of(found.fit.shape)
    left = np.stack([of(found.fit.shape + moved) for moved in found.moved]) - value
    left[:, 2:] = (left[:, 2:] + 45) % 90 - 45
    variance = (n - 1) * left.var(0)
    if not whole:
        variance = variance + apart(left - left.mean(0), found.part, variance)
    spread: FloatArray = np.sqrt(variance)
    return spread


def _moved(kernel: FloatArray, offset: tuple[int, int]) -> FloatArray:
    """A kernel's taps moved down and right, in an array as much larger on each side."""
    return np.roll(np.pad(kernel, max(abs(move) for move in offset)), offset, (0, 1))

"""The MSI's tone: a monotone curve of its numbers where both images clearly say that a line won't do.

Imagery that was stretched to 8 bits, or has a gamma, isn't linear in reflectance. The curve is drawn on the MSI's own
pixels, before the PSF's blur, as a sum of ramps whose weights are found on LR pixels: blurring is linear in them. They
are fitted within windows, so that haze and illumination aren't taken for tone, and kept as far as windows confirm them
that they weren't fitted to. A stretch bends all bands: what bends one alone is another response, or chance. By far the
commonest is one gamma for all: where windows don't clearly speak for more, the curve is a power of the numbers, which
is known between LR pixels' values and beyond them, too, that of all bands before one for each.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.linalg import qr
from scipy.optimize import nnls
from torch import Tensor

from hsfuse.calibration.contradiction import LEAST_WINDOWS
from hsfuse.calibration.spectra import FloatArray, SharedPixels, gain_error

#: Where curves bend: these shares of a band's pixels are darker.
BENDS = 0.0, 0.02, 0.1, 0.25, 0.5, 0.75, 0.9, 0.98, 1.0
#: Points of a curve between its knots, and fewest knots of one.
POINTS, LEAST_KNOTS = 6, 4
#: Weights of the penalty on changes of slope, relative to the data; the largest makes a line.
PENALTIES = (1e8, 1e3, 1e2, 1e1, 1.0)
#: Least slope, as a share of the line's.
LEAST_SLOPE = 0.02
FOLDS = 8
#: A curve is kept where windows that it wasn't fitted to are better by so many standard errors (were both as good,
#: windows would be worse as often as better: those that are worse tell the error), where it leaves so much less of the
#: squared misfit, and where it departs so far from the line, as a share of the band's spread.
BETTER_SD, BETTER_SHARE, LEAST_BEND = 4.0, 0.03, 0.02
#: Powers of numbers, as shares of a band's largest but at least this: steps of Gauss and Newton, the largest step, the
#: least and the largest power, and points of its curve.
DARKEST, POWER_STEPS, LARGEST_STEP, POWERS, POWER_POINTS = 1e-3, 5, 0.5, (0.3, 4.0), 65
#: Pixels so many deviations off (clouds, changes) are left out.
FAR_OFF = 6.0


@dataclass(frozen=True, eq=False)
class ToneCurves:
    """What makes an MSI's bands linear in reflectance: band k's `numbers[k]` (m,) become `reflectance[k]` (m,).

    Straight between and beyond; None for a band that stays as it is. `bend` (c,) says how far a curve departs from its
    best line, RMS over the pixels as a share of their spread; `power` (c,) of which power of the numbers it is, 0 for
    other curves.
    """

    numbers: tuple[FloatArray | None, ...]
    reflectance: tuple[FloatArray | None, ...]
    bend: FloatArray
    power: FloatArray

    def __bool__(self) -> bool:
        """Whether any band is curved."""
        return any(one is not None for one in self.numbers)

    @property
    def is_shared(self) -> bool:
        """Whether all bands have one gamma."""
        return _is_shared(self.power)

    def only(self, chosen: NDArray[np.bool_]) -> ToneCurves:
        """The curves of chosen bands (c,)."""
        numbers, reflectance = (
            tuple(one if good else None for one, good in zip(curves, chosen, strict=True))
            for curves in (self.numbers, self.reflectance)
        )
        return ToneCurves(numbers, reflectance, np.where(chosen, self.bend, 0), np.where(chosen, self.power, 0))

    def apply(self, msi: NDArray[np.floating]) -> NDArray:
        """MSI (..., c, H, W) with its curves taken out, same dtype."""
        out = msi.copy()
        for k, (x, y) in enumerate(zip(self.numbers, self.reflectance, strict=True)):
            if x is not None and y is not None:
                out[..., k, :, :] = _curve(msi[..., k, :, :], x, y)
        return out

    def to_dict(self, bands: tuple[str, ...]) -> dict[str, dict[str, list[float]]]:
        """The points of each curved band's curve, for JSON."""
        curves = zip(bands, self.numbers, self.reflectance, strict=True)
        return {
            band: {"numbers": x.round(6).tolist(), "reflectance": y.round(6).tolist()}
            for band, x, y in curves
            if x is not None and y is not None
        }

    def describe(self, bands: tuple[str, ...]) -> str:
        """One line of figures: where each curved band's dark, middle and bright numbers go."""
        told = []
        of = zip(bands, self.numbers, self.reflectance, self.bend, self.power, strict=True)
        for band, x, y, bend, power in of:
            if x is not None and y is not None:
                at = ", ".join(f"{x[i]:.3g} to {y[i]:.3f}" for i in (POINTS, x.size // 2, x.size - 1 - POINTS))
                how = f" (a gamma of {1 / power:.2f})" if power else ""
                told.append(f"{band}: {at}{how}, {bend:.0%} off a line")
        return "; ".join(told)


def _is_shared(power: FloatArray) -> bool:
    return bool(power.all() and np.ptp(power) == 0)


def _curve(image: NDArray[np.floating], x: FloatArray, y: FloatArray) -> NDArray:
    """Straight between the points and, with the ends' slopes, beyond."""
    inside = np.interp(image, x, y)
    low = (y[1] - y[0]) / (x[1] - x[0]) * np.minimum(image - x[0], 0)
    high = (y[-1] - y[-2]) / (x[-1] - x[-2]) * np.maximum(image - x[-1], 0)
    return (inside + low + high).astype(image.dtype)


def estimate_tones(pixels: SharedPixels, msi: Tensor, matrix: FloatArray) -> ToneCurves:
    """Curves of the bands of an MSI (n, c, H, W) that isn't linear in R X, from its shared pixels and R (c, C)."""
    values = msi.double().cpu().numpy().transpose(1, 0, 2, 3).reshape(msi.shape[1], -1)
    knots = [_knots(band) for band in values]
    ramps = [_seen(pixels, knots, i) for i in range(max(len(one) for one in knots))]
    fits = [
        _fitted(pixels, matrix[k] @ pixels.lrhsi, np.stack([ramp[k] for ramp in ramps[: len(knots[k])]]))
        for k in range(len(knots))
    ]
    powers = _powers(pixels, msi, fits)
    if powers is None:
        nothing, flat = (None,) * len(fits), np.zeros(len(fits))
        return ToneCurves(nothing, nothing, flat, flat)
    curves = [_points(*of) for of in zip(knots, fits, powers, strict=True)]
    bends = np.array([0.0 if y is None else _bend(own, x, y) for own, (x, y) in zip(values, curves, strict=True)])
    kinds = np.array([0.0 if power is None else power.power for power in powers])
    curved = (np.full(bends.size, np.median(bends)) if _is_shared(kinds) else bends) >= LEAST_BEND
    numbers: list[FloatArray | None] = [x if good else None for good, (x, _) in zip(curved, curves, strict=True)]
    reflectance: list[FloatArray | None] = [None] * len(fits)
    for k in np.flatnonzero(curved):
        x, y = curves[k]
        assert y is not None  # a line has no bend
        seen = pixels.level(torch.from_numpy(_curve(msi[:, k : k + 1].double().cpu().numpy(), x, y)))
        reflectance[k] = y + float(matrix[k] @ pixels.mean_spectrum) - seen
    return ToneCurves(tuple(numbers), tuple(reflectance), np.where(curved, bends, 0), np.where(curved, kinds, 0))


def _points(knots: FloatArray, fit: _Fit, power: _Power | None) -> tuple[FloatArray, FloatArray | None]:
    """A band's curve at some numbers, None where a line does as well."""
    if power is not None:
        shares = np.linspace(np.sqrt(DARKEST), 1, POWER_POINTS) ** 2
        return shares * power.top, power.size * shares**power.power
    parts = np.arange((knots.size - 1) * POINTS + 1) / POINTS
    x = np.interp(parts, np.arange(knots.size), knots)
    return x, None if fit.slopes is None else fit.slopes @ np.stack([_ramp(x, knots, i) for i in range(knots.size)])


def _knots(values: FloatArray) -> FloatArray:
    """Where a band's curve may bend: at quantiles that lie apart."""
    at = np.quantile(values, BENDS)
    least = 0.02 * (at[-2] - at[1])
    kept = [float(at[0])]
    for value in at[1:]:
        if value - kept[-1] > least:
            kept.append(float(value))
    return np.array(kept if len(kept) > 1 else [kept[0], kept[0] + 1])


def _ramp(values: FloatArray, knots: FloatArray, i: int) -> FloatArray:
    """The integral of a hat that is 1 at knot i and 0 at its neighbours, and goes on level beyond the outermost knots.

    Sums of such ramps with weights of at least 0 rise everywhere and bend smoothly (I-splines; Ramsay 1988, "Monotone
    regression splines in action", Statistical Science 3(4)); a weight is the slope at its knot.
    """
    out = np.zeros_like(values)
    if i > 0:
        width = knots[i] - knots[i - 1]
        out += width / 2 * np.clip((values - knots[i - 1]) / width, 0, 1) ** 2
    else:
        out += np.minimum(values - knots[0], 0)
    if i + 1 < knots.size:
        width = knots[i + 1] - knots[i]
        part = np.clip((values - knots[i]) / width, 0, 1)
        out += width * (part - part**2 / 2)
    else:
        out += np.maximum(values - knots[-1], 0)
    return out


def _seen(pixels: SharedPixels, knots: list[FloatArray], i: int) -> FloatArray:
    """Ramp i of each band's MSI as LR pixels see it: (c, n); of a band with fewer knots, its last one."""

    def ramps(msi: Tensor) -> Tensor:
        bands = enumerate(knots)
        return torch.stack(
            [torch.from_numpy(_ramp(msi[:, k].cpu().numpy(), x, min(i, x.size - 1))) for k, x in bands], 1
        )

    return pixels.of_msi(ramps)


@dataclass(frozen=True, eq=False)
class _Fit:
    """Slopes (m,) at one band's knots, None where a line does as well; the band `seen` (n,) by the LRHSI, which of its
    pixels are `near` the curve, and what a line and the best curve leave of windows (w,) they weren't fitted to."""

    slopes: FloatArray | None
    seen: FloatArray
    near: NDArray[np.bool_]
    line: FloatArray
    best: FloatArray


def _fitted(pixels: SharedPixels, seen: FloatArray, ramps: FloatArray) -> _Fit:
    """One band's curve from its ramps (m, n)."""
    system, every = _Slopes(ramps, seen), np.ones(seen.size, bool)
    few = len(ramps) < LEAST_KNOTS
    rest = seen - system.solve(PENALTIES[-1], every) @ system.ramps
    near = np.abs(rest) <= FAR_OFF * (np.median(np.abs(rest)) / 0.6745 + 1e-12)
    folds = pixels.window % FOLDS
    penalties = PENALTIES[:1] if few else PENALTIES
    errors = np.stack([sum(system.held_out(p, near, folds == f) for f in range(FOLDS)) for p in penalties])
    windows = np.stack([np.bincount(pixels.window, row) for row in errors])
    best = int(windows.sum(1).argmin())
    slopes = system.solve(penalties[best], near) if _clearly(windows[0], windows[best]) else None
    return _Fit(slopes, seen, near, windows[0], windows[best])


def _clearly(errors: FloatArray, other: FloatArray) -> bool:
    """Whether the other one's squared errors by windows (w,) are clearly less."""
    gain = errors - other
    return bool(gain.sum() > 0 and gain.sum() >= max(BETTER_SD * gain_error(gain), BETTER_SHARE * errors.sum()))


def _together(errors: Sequence[FloatArray], others: Sequence[FloatArray], fits: list[_Fit]) -> bool:
    """Whether the others' squared errors by windows are clearly less over all bands, each by its own noise."""
    noise = [fit.best.sum() + 1e-30 for fit in fits]
    pooled = (np.concatenate([one / sd for one, sd in zip(rows, noise, strict=True)]) for rows in (errors, others))
    return _clearly(*pooled)


@dataclass(frozen=True)
class _Power:
    """size (y / top)^power of a band's numbers y."""

    power: float
    size: float
    top: float


def _powers(pixels: SharedPixels, msi: Tensor, fits: list[_Fit]) -> list[_Power | None] | None:
    """One power for all bands where they are together clearly better with it than with lines, and not with their own.

    Else, where most bands clearly want a curve, each one's where that is clearly better than a line, and the best curve
    isn't clearly better than it; None where too few do, or there are too few windows for a wrong response, which bends
    bands, too, to be told. By Gauss and Newton; windows that a power wasn't fitted to judge it with the power free to
    first order.
    """
    line, best = [fit.line for fit in fits], [fit.best for fit in fits]
    shares = [(one.sum() - other.sum()) / (one.sum() + 1e-30) for one, other in zip(line, best, strict=True)]
    if np.median(shares) < BETTER_SHARE or not _together(line, best, fits):
        return None
    top = msi.amax((0, 2, 3), keepdim=True).double().clamp(min=1e-30)

    def columns(power: FloatArray) -> FloatArray:
        """Powers (c,) and their derivatives as LR pixels see them: (2, c, n)."""
        to = torch.from_numpy(power)[:, None, None]

        def raised(image: Tensor, log: bool) -> Tensor:
            shares = (image / top.to(image.device)).clamp(min=DARKEST)
            raw = shares ** to.to(image.device)
            return raw * shares.log() if log else raw

        return np.stack([pixels.of_msi(partial(raised, log=log)) for log in (False, True)])

    def powers(power: FloatArray, design: FloatArray) -> list[_Power]:
        sizes = [_least(design[:1, k], fit.seen, fit.near)[0] for k, fit in enumerate(fits)]
        return [_Power(float(p), float(size), float(t)) for p, size, t in zip(power, sizes, top.ravel(), strict=True)]

    power, told = np.ones(len(fits)), np.zeros(len(fits))
    for _ in range(POWER_STEPS):
        design = columns(power)
        for k, fit in enumerate(fits):
            size, change = _least(design[:, k], fit.seen, fit.near)
            step = np.clip(change / size, -LARGEST_STEP, LARGEST_STEP) if size > 0 else 0.0
            power[k] = np.clip(power[k] + step, *POWERS)
            value, slope = design[:, k, fit.near]
            told[k] = size**2 * (slope @ slope - (slope @ value) ** 2 / (value @ value)) / fit.best.sum()
    design = columns(power)
    errors = [_held_out(pixels, design[:, k], fit) for k, fit in enumerate(fits)]
    shared = np.full(len(fits), told @ power / told.sum())
    alike = columns(shared)
    errors_alike = [_held_out(pixels, alike[:1, k], fit) for k, fit in enumerate(fits)]
    richest = [min(fit.best, own, key=np.sum) for fit, own in zip(fits, errors, strict=True)]
    if _together(line, errors_alike, fits) and not _together(errors_alike, richest, fits):
        return [*powers(shared, alike)]
    if fits[0].line.size < LEAST_WINDOWS or 2 * sum(fit.slopes is not None for fit in fits) <= len(fits):
        return None
    return [
        found if found.size > 0 and _clearly(fit.line, own) and not _clearly(own, fit.best) else None
        for found, fit, own in zip(powers(power, design), fits, errors, strict=True)
    ]


def _least(design: FloatArray, seen: FloatArray, chosen: NDArray[np.bool_]) -> FloatArray:
    """Weights (m,) of a design (m, n) that come nearest to an image (n,) on chosen pixels."""
    return np.asarray(np.linalg.lstsq(design[:, chosen].T, seen[chosen], rcond=None)[0])


def _held_out(pixels: SharedPixels, design: FloatArray, fit: _Fit) -> FloatArray:
    """Squared errors by windows (w,) of a design (m, n) fitted to others."""
    folds, errors = pixels.window % FOLDS, np.zeros(fit.seen.size)
    for f in range(FOLDS):
        rest = fit.seen - _least(design, fit.seen, fit.near & (folds != f)) @ design
        errors += np.where(fit.near & (folds == f), rest**2, 0)
    return np.asarray(np.bincount(pixels.window, errors), np.float64)


@dataclass(frozen=True)
class _Slopes:
    """Least squares for weights of ramps (m, n) that sum to an image `seen` (n,), neighbours' changes penalised."""

    ramps: FloatArray
    seen: FloatArray

    def solve(self, penalty: float, chosen: NDArray[np.bool_]) -> FloatArray:
        """Slopes (m,) from chosen pixels, none below a small share of the line's."""
        data, target = self.ramps[:, chosen].T, self.seen[chosen]
        line = float(data.sum(1) @ target / max((data.sum(1) ** 2).sum(), 1e-30))
        least = LEAST_SLOPE * max(line, 0.0)
        bend = np.diff(np.eye(len(self.ramps)), axis=0) * np.sqrt(penalty * data.var() * len(data) / 100)
        both = np.concatenate([data, bend])
        wanted = np.concatenate([target, np.zeros(len(bend))]) - least * both.sum(1)
        r = qr(np.column_stack([both, wanted]), mode="r", check_finite=False)[0][: both.shape[1] + 1]
        return nnls(r[:, :-1], r[:, -1], maxiter=1000)[0] + least

    def held_out(self, penalty: float, near: NDArray[np.bool_], fold: NDArray[np.bool_]) -> FloatArray:
        """Squared errors (n,) on one fold from the others, 0 elsewhere."""
        rest = self.seen - self.solve(penalty, near & ~fold) @ self.ramps
        return np.where(near & fold, rest**2, 0)


def _bend(values: FloatArray, x: FloatArray, y: FloatArray) -> float:
    """How far a curve departs from its best line over the pixels (n,), as a share of their spread."""
    curved = _curve(values, x, y)
    a, b = values - values.mean(), curved - curved.mean()
    rest = b - (a @ b) / max(a @ a, 1e-30) * a
    return float(rest.std() / max(b.std(), 1e-30))

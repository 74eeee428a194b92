"""What the figures mean in plain words: warnings that a reader who didn't run the fusion needs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import hypot
from typing import Any

import numpy as np

from hsfuse.assessment.checks import DISAGREES, GAIN, SHIFT_PX
from hsfuse.assessment.inputs import Inputs, Observed
from hsfuse.assessment.result import Floats
from hsfuse.assessment.settings import recorded
from hsfuse.core.notes import Note, warning
from hsfuse.metrics import MetricResult, NoReferenceMetrics
from hsfuse.pair.identify import ESTIMATE
from hsfuse.physics.srf_bands import unseen

#: A reference fits clearly better otherwise where its picture then lacks at most this share of what it lacks now to a
#: correlation of 1, and reaches `FITS`; below `UNLIKE` it hardly follows the cube at all.
LACKS, FITS, UNLIKE = 0.5, 0.5, 0.3
#: How a reference may be turned; the last four are possible on square scenes alone.
TURNS: dict[str, Callable[[Floats], Floats]] = {
    "turned upside down": lambda x: x[:, ::-1],
    "mirrored left to right": lambda x: x[:, :, ::-1],
    "turned by 180 degrees": lambda x: x[:, ::-1, ::-1],
    "turned by 90 degrees": lambda x: np.rot90(x, 1, (1, 2)),
    "turned by 270 degrees": lambda x: np.rot90(x, 3, (1, 2)),
    "with rows and columns exchanged": lambda x: x.transpose(0, 2, 1),
    "with rows and columns exchanged from the other corner": lambda x: np.rot90(x, 2, (1, 2)).transpose(0, 2, 1),
}


def warn(
    inputs: Inputs,
    valid_pixels: int,
    without: NoReferenceMetrics | None,
    result: MetricResult | None,
    shift: tuple[float, float] | None,
) -> list[Note]:
    """All warnings about the cube, most general first."""
    out = []
    share = valid_pixels / (inputs.shape[0] * inputs.shape[1])
    if share < 0.999:
        out.append(warning("pixels-masked", share=1 - share))
    if inputs.left_out:
        out.append(warning("bands-not-assessed", bands=inputs.left_out))
    if inputs.observed is None or without is None or result is None:
        return out
    blind = unseen(inputs.wavelengths_nm, inputs.observed.model.srf.numpy())
    return out + _inconsistent(result, inputs.observed) + _misplaced(shift) + _gains(inputs.observed, without) + blind


def other_response(provenance: Mapping[str, Any], observed: Observed | None) -> list[Note]:
    """A warning where the response isn't the one that the fused file records; an estimated one may differ."""
    record = provenance.get("srf")
    then = record.get("sha256") if isinstance(record, Mapping) else None
    if observed is None or not then or then == observed.pair.response.sha256 or recorded(provenance, "srf") == ESTIMATE:
        return []
    return [warning("other-response", source=str(observed.pair.response.source))]


def strange_reference(fused: Floats, reference: Floats, step: int) -> list[Note]:
    """A warning where the reference seems turned, moved or of another place, told by pictures (n, h, w) of both.

    One pixel of a picture is `step` pixels of the cube; NaN is masked.
    """
    now = _correlation(fused, reference)
    if np.isnan(now):
        return []
    square = fused.shape[1] == fused.shape[2]
    ways = list(TURNS.items())[: None if square else 3]
    otherwise = [(_correlation(fused, turn(reference)), how) for how, turn in ways]
    down, right = _moved(fused, reference)
    if down or right:
        there = _correlation(*_overlap(fused, reference, down, right))
        otherwise.append((there, f"moved by {down * step:+d} rows and {right * step:+d} columns"))
    best, how = max((found for found in otherwise if not np.isnan(found[0])), default=(np.nan, ""))
    if best >= FITS and 1 - best < LACKS * (1 - now):
        return [warning("reference-turned", how=how, correlation=best, now=now)]
    return [warning("reference-unlike", correlation=now)] if now < UNLIKE else []


def _correlation(a: Floats, b: Floats) -> float:
    """Mean over n of the correlations of pictures (n, h, w), of those that aren't constant; NaN without any."""
    valid = np.isfinite(a).all(axis=0) & np.isfinite(b).all(axis=0)
    if valid.sum() < 2:
        return float("nan")
    x, y = (picture[:, valid] - picture[:, valid].mean(axis=1, keepdims=True) for picture in (a, b))
    size = np.sqrt((x**2).sum(axis=1) * (y**2).sum(axis=1))
    return float(((x * y).sum(axis=1)[size > 0] / size[size > 0]).mean()) if (size > 0).any() else float("nan")


def _moved(a: Floats, b: Floats) -> tuple[int, int]:
    """By how many rows and columns b is to be moved to lie on a, by phase correlation, up to a quarter of the picture.

    Kuglin, Hines 1975, "The phase correlation image alignment method", Proc. IEEE Conf. Cybernetics and Society.
    """
    flat = [np.nan_to_num(p - np.nanmean(p, axis=(1, 2), keepdims=True)) for p in (a, b)]
    first, second = (np.fft.fft2(picture) for picture in flat)
    cross = first * second.conj()
    peak = np.fft.ifft2(cross / np.maximum(np.abs(cross), np.finfo(float).tiny)).real.sum(axis=0)
    rows, cols = (np.fft.fftfreq(n, 1 / n).astype(int) for n in peak.shape)
    far = (np.abs(rows) > peak.shape[0] // 4)[:, None] | (np.abs(cols) > peak.shape[1] // 4)
    row, col = np.unravel_index(int(np.where(far, -np.inf, peak).argmax()), peak.shape)
    return int(rows[row]), int(cols[col])


def _overlap(a: Floats, b: Floats, down: int, right: int) -> tuple[Floats, Floats]:
    """The parts of both that lie on each other once b is moved."""
    height, width = a.shape[1:]
    rows, cols = slice(max(0, down), height + min(0, down)), slice(max(0, right), width + min(0, right))
    there = slice(rows.start - down, rows.stop - down), slice(cols.start - right, cols.stop - right)
    return a[:, rows, cols], b[:, *there]


def lrhsi_misfit(result: MetricResult, observed: Observed | None) -> float | None:
    """Relative RMSE to the LRHSI, less bands of noise: what no cube can have of them says nothing of this one."""
    total = result.values.get("hsi_relative_rmse")
    if observed is None or observed.quiet is None or total is None:
        return total
    error, relative = (result.per_band[name][observed.quiet] for name in ("hsi_rmse", "hsi_relative_rmse"))
    known = relative > 0
    if not known.any():
        return total
    return float(np.sqrt(np.square(error[known]).sum() / np.square(error[known] / relative[known]).sum()))


def _inconsistent(result: MetricResult, observed: Observed) -> list[Note]:
    errors = {"LRHSI": lrhsi_misfit(result, observed), "MSI": result.values.get("msi_relative_rmse")}
    return [
        warning("inconsistent", image=image, error=error)
        for image, error in errors.items()
        if error is not None and error > DISAGREES
    ]


def _misplaced(shift: tuple[float, float] | None) -> list[Note]:
    if shift is None or hypot(*shift) < SHIFT_PX[0]:
        return []
    return [warning("misplaced", shift=shift_words(shift), down_px=shift[0], right_px=shift[1])]


def shift_words(shift: tuple[float, float]) -> str:
    """A shift (down, right) in MSI pixels, in words."""
    down, right = shift
    if max(abs(down), abs(right)) < 0.005:
        return "less than 0.01 MSI pixels"
    vertical, horizontal = ("down" if down >= 0 else "up"), ("right" if right >= 0 else "left")
    return f"{abs(down):.2f} MSI pixels {vertical} and {abs(right):.2f} {horizontal}"


def _gains(observed: Observed, without: NoReferenceMetrics) -> list[Note]:
    gain = msi_gains(without)
    off = np.flatnonzero(np.abs(gain - 1) > GAIN[0])
    if not off.size:
        return []
    told = ", ".join(f"{observed.msi_names[i]} {gain[i] - 1:+.0%}" for i in off)
    return [warning("gains-differ", bands=told)]


def msi_gains(without: NoReferenceMetrics) -> Floats:
    """Factor (c,) that best takes the MSI synthesised from the fused cube to the MSI, per band; NaN for a dark one."""
    m = without.spectral.moments
    return np.divide(m.xy, m.xx, out=np.full(m.xx.shape, np.nan), where=m.xx > 0)

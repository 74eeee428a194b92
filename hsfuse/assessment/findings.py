"""What the figures mean in plain words: warnings that a reader who didn't run the fusion needs."""

from __future__ import annotations

from collections.abc import Mapping
from math import hypot
from typing import Any

import numpy as np

from hsfuse.assessment.checks import seen_bands
from hsfuse.assessment.inputs import Inputs, Observed
from hsfuse.assessment.result import Floats
from hsfuse.assessment.settings import recorded
from hsfuse.core.notes import Note, warning
from hsfuse.metrics import MetricResult, NoReferenceMetrics
from hsfuse.pair.open import ESTIMATE

#: A gain between fused cube and MSI this far from 1 is told.
GAIN_TOLERANCE = 0.05
#: A fused cube that gives an input back with a larger relative error than this is inconsistent with it.
CONSISTENCY_LIMIT = 0.1
#: A shift between MSI and LRHSI from half an MSI pixel on costs quality.
SHIFT_LIMIT_PX = 0.4
#: Ranges without an MSI band, in nm, shorter than this aren't worth a word.
BLIND_RANGE_NM = 40.0
#: Where leaves' reflectance rises, in nm, the share of it that a range must hold, and the widest range named after it.
RED_EDGE_NM, RED_EDGE_SHARE, NAMED_NM = (700.0, 750.0), 0.5, 150.0


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
    return out + _inconsistent(result) + _misplaced(shift) + _gains(inputs.observed, without) + _blind(inputs)


def other_response(provenance: Mapping[str, Any], observed: Observed | None) -> list[Note]:
    """A warning where the response isn't the one that the fused file records; an estimated one may differ."""
    record = provenance.get("srf")
    then = record.get("sha256") if isinstance(record, Mapping) else None
    if observed is None or not then or then == observed.pair.response.sha256 or recorded(provenance, "srf") == ESTIMATE:
        return []
    return [warning("other-response", source=str(observed.pair.response.source))]


def _inconsistent(result: MetricResult) -> list[Note]:
    out = []
    for prefix, image in (("hsi_", "LRHSI"), ("msi_", "MSI")):
        error = result.values.get(prefix + "relative_rmse")
        if error is not None and error > CONSISTENCY_LIMIT:
            out.append(warning("inconsistent", image=image, error=error))
    return out


def _misplaced(shift: tuple[float, float] | None) -> list[Note]:
    if shift is None or hypot(*shift) < SHIFT_LIMIT_PX:
        return []
    return [warning("misplaced", shift=shift_words(shift), down_px=shift[0], right_px=shift[1])]


def shift_words(shift: tuple[float, float]) -> str:
    """A shift (down, right) in MSI pixels, in words."""
    down, right = shift
    vertical, horizontal = ("down" if down >= 0 else "up"), ("right" if right >= 0 else "left")
    return f"{abs(down):.2f} MSI pixels {vertical} and {abs(right):.2f} {horizontal}"


def _gains(observed: Observed, without: NoReferenceMetrics) -> list[Note]:
    gain = msi_gains(without)
    off = np.flatnonzero(np.abs(gain - 1) > GAIN_TOLERANCE)
    if not off.size:
        return []
    told = ", ".join(f"{observed.msi_names[i]} {gain[i] - 1:+.0%}" for i in off)
    return [warning("gains-differ", bands=told)]


def msi_gains(without: NoReferenceMetrics) -> Floats:
    """Factor (c,) that best takes the MSI synthesised from the fused cube to the MSI, per band; NaN for a dark one."""
    m = without.spectral.moments
    return np.divide(m.xy, m.xx, out=np.full(m.xx.shape, np.nan), where=m.xx > 0)


def _blind(inputs: Inputs) -> list[Note]:
    assert inputs.observed is not None
    ranges = blind_ranges(inputs.wavelengths_nm, inputs.observed.model.srf.numpy())
    if not ranges:
        return []
    *most, last = [range_words(*limits) for limits in ranges]
    told = f"{', '.join(most)} and {last}" if most else last
    return [warning("unseen", ranges=told)]


def range_words(low: float, high: float) -> str:
    """A range in nm, with the red edge by name where it lies there."""
    told, (start, end) = f"{low:.0f} to {high:.0f} nm", RED_EDGE_NM
    if min(high, end) - max(low, start) < RED_EDGE_SHARE * (end - start):
        return told
    return f"the red edge ({told})" if high - low <= NAMED_NM else f"{told} (with the red edge)"


def blind_ranges(wavelengths_nm: Floats, srf: Floats) -> list[tuple[float, float]]:
    """Ranges of the HSI's wavelengths (C,) that no row of R (c, C) weighs, at least `BLIND_RANGE_NM` wide."""
    order = np.argsort(wavelengths_nm)
    seen = seen_bands(srf)[order]
    edges = np.flatnonzero(np.diff(np.concatenate([[True], seen, [True]]).astype(int)))
    nm = wavelengths_nm[order]
    runs = [(float(nm[a]), float(nm[b - 1])) for a, b in zip(edges[::2], edges[1::2], strict=True)]
    return [(low, high) for low, high in runs if high - low >= BLIND_RANGE_NM]

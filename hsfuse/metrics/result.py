"""What an accumulator hands back: figures, per-band curves, and what was left out in plain words."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from hsfuse.metrics.windows import Array


@dataclass
class MetricResult:
    """Metric values by catalogue key, None where undefined; curves over the bands (C,), NaN where undefined; notes."""

    pixels: int
    values: dict[str, float | None] = field(default_factory=dict)
    per_band: dict[str, Array] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def put(self, key: str, value: float, reason: str) -> None:
        """Store a value; NaN becomes None, and the `reason` a note."""
        self.values[key] = None if np.isnan(value) else float(value)
        if np.isnan(value):
            self.notes.append(f"{key} is undefined: {reason}")

    def put_curve(self, key: str, curve: Array, why_left_out: str) -> None:
        """Store a per-band curve and its mean over the bands where it is defined; say how many are left out."""
        self.per_band[key] = curve
        self.put(key, band_mean(curve), why_left_out)
        left_out = int(np.isnan(curve).sum())
        if 0 < left_out < curve.size:
            self.notes.append(f"{key}: {left_out} of {curve.size} bands left out: {why_left_out}")


def band_mean(curve: Array) -> float:
    """Mean of a per-band curve (C,) over the bands where it isn't NaN; NaN without any."""
    kept = curve[~np.isnan(curve)]
    return float(kept.mean()) if kept.size else float("nan")

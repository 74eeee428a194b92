"""Two detectors of one sensor as one spectrum: ascending, without the bands in which the second repeats the first."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

#: Gains and offsets beyond this are none: scaled, they wouldn't fit float32.
LARGEST = 1e30


def merged(centres_nm: Sequence[Sequence[float]]) -> list[tuple[int, int]]:
    """(detector, band), both 0-based, by ascending centre (nm); of the other detectors only bands beyond the first's.

    The first detector is the one that begins lowest, in whatever order they are given. A centre of 0 is a band that
    isn't there.
    """
    kept: list[tuple[int, int]] = []
    end = 0.0
    for detector in sorted(range(len(centres_nm)), key=lambda d: _least(centres_nm[d])):
        centres = np.asarray(centres_nm[detector], dtype=np.float64)
        kept += [(detector, int(band)) for band in np.argsort(centres, kind="stable") if centres[band] > end]
        end = max(end, *centres) if len(centres) else end
    return kept


def _least(centres: Sequence[float]) -> float:
    return min((c for c in centres if c > 0), default=float("inf"))

"""What speaks for a fused cube and what against it, in sentences: for a reader who didn't run the fusion."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from math import hypot
from typing import Literal

import numpy as np

from hsfuse.assessment.result import Assessment, Check

Verdict = Literal["good", "look", "poor"]

#: Relative errors up to which a cube agrees with what it is held against, and from which it doesn't.
AGREES, DISAGREES = 0.03, 0.1
#: The same of the shift between the images in MSI pixels, and of the radiometric gain's distance from 1.
SHIFT_PX = 0.4, 1.0
GAIN = 0.05, 0.3
#: Share of masked pixels, and of bands that no MSI band sees.
MASKED = 0.001, 0.2
UNSEEN = 0.2, 1.0
#: Rank correlation of expected and real error below which the expectation says little.
RANK = 0.3
#: Share of the largest weight in R from which on an MSI band sees an HSI band.
SEEN_WEIGHT = 0.01


@dataclass(frozen=True)
class _Scale:
    """Where good ends and where poor begins; smaller is better."""

    good: float
    poor: float

    def __call__(self, value: float) -> Verdict:
        return "good" if value <= self.good else "look" if value < self.poor else "poor"


def checks(a: Assessment) -> tuple[Check, ...]:
    """All checks that the assessment allows, most important first."""
    makers = (_truth, _inputs, _position, _radiometry, _coverage, _learning, _expectation, _validity)
    return tuple(check for maker in makers for check in maker(a))


def overall(found: tuple[Check, ...]) -> str:
    """What the checks come to, in one sentence."""
    poor, look = (_listed(c.topic for c in found if c.verdict == verdict) for verdict in ("poor", "look"))
    if poor:
        return f"Don't rely on this cube before you have looked into this: {poor}."
    if look:
        return f"Nothing is plainly wrong. Keep in mind: {look}."
    return "Nothing that was checked speaks against this cube."


def _listed(topics: Iterable[str]) -> str:
    return ", ".join(topic[0].lower() + topic[1:] for topic in topics)


def _truth(a: Assessment) -> Iterator[Check]:
    error, angle = a.metrics.get("relative_rmse"), a.metrics.get("sam")
    reduced = a.reduced.metrics.get("relative_rmse") if a.reduced else None
    if error is not None:
        text = f"It differs from the reference by {error:.1%}, in the shape of spectra by {angle or 0:.2g}° on average."
        yield Check("Agreement with the truth", _Scale(AGREES, DISAGREES)(error), text)
    elif reduced is not None and a.reduced is not None:
        text = (
            f"One step of resolution down, where the LRHSI is the truth, the method is off by {reduced:.1%} and "
            f"{a.reduced.metrics.get('sam') or 0:.2g}°. At full resolution it may be less or more, of this order."
        )
        yield Check("Test against the LRHSI", _Scale(AGREES, DISAGREES)(reduced), text)
    else:
        text = (
            "Its fine detail was held against no truth. A test at reduced resolution would say more (--protocol wald)."
        )
        yield Check("No test against a truth", "look", text)


def _inputs(a: Assessment) -> Iterator[Check]:
    for prefix, image, how in (("hsi_", "LRHSI", "Blurred back to it"), ("msi_", "MSI", "Seen by its response")):
        error = a.metrics.get(f"{prefix}relative_rmse")
        if error is not None:
            text = f"{how}, the cube differs by {error:.1%}."
            yield Check(f"Agreement with the {image}", _Scale(AGREES, DISAGREES)(error), text)


def _position(a: Assessment) -> Iterator[Check]:
    if a.registration is None:
        return
    if a.shift_px is None:
        yield Check("Position", "look", "Whether the two images lie on each other can't be told from them.")
        return
    before, now = a.registration.found.length, hypot(*a.shift_px)
    text = f"The two images lie on each other to within {max(now, 0.01):.2f} MSI pixels"
    if a.registration.left is not None:
        text += f"; a shift of {before:.2f} LRHSI pixels was corrected"
    yield Check("Position", _Scale(*SHIFT_PX)(now), text + ".")


def _radiometry(a: Assessment) -> Iterator[Check]:
    gains = {band.band: band.gain for band in a.radiometry} or a.msi_gains
    known = {band: gain for band, gain in gains.items() if np.isfinite(gain)}
    if not known:
        return
    band, gain = max(known.items(), key=lambda item: abs(item[1] - 1))
    verdict = _Scale(*GAIN)(abs(gain - 1))
    if verdict == "good":
        yield Check("Radiometry", "good", "Both sensors see the same brightness, band by band.")
        return
    handled = "taken out before the fusion" if a.radiometry else "not corrected"
    text = f"The two sensors differ in brightness by up to {gain - 1:+.0%} (MSI band {band}), {handled}."
    yield Check("Radiometry", "look" if a.radiometry else verdict, text)


def _coverage(a: Assessment) -> Iterator[Check]:
    if a.response is None:
        return
    weights = a.response.weights
    seen = (weights > SEEN_WEIGHT * weights.max(axis=1, keepdims=True)).any(axis=0)
    text = f"The MSI sees {int(seen.sum())} of the {seen.size} bands"
    text += "." if seen.all() else "; fine detail in the others is inferred from these."
    yield Check("Inferred bands", _Scale(*UNSEEN)(1 - float(seen.mean())), text)


def _learning(a: Assessment) -> Iterator[Check]:
    record = a.provenance.get("adaptation")
    gain = record.get("gain") if isinstance(record, Mapping) else None
    if not isinstance(gain, int | float):
        return
    if gain > 0:
        text = f"On parts of the scene that it never learned from, the network's error is {gain:.0%} below its base's."
    else:
        text = "The network did no better than its training-free base on parts of the scene, so the base is the result."
    yield Check("Gain of the network", "good" if gain > 0 else "look", text)


def _expectation(a: Assessment) -> Iterator[Check]:
    if a.expected is None:
        return
    e = a.expected
    if e.rank_correlation is None or e.found is None:
        yield Check("Expected error", "good", f"{e.mean:.3g} on average, by the quality raster.")
        return
    text = (
        f"The quality raster expects {e.mean:.3g} on average, {e.found:.3g} was found. It puts the pixels in the order "
    )
    text += f"of their real error with a rank correlation of {e.rank_correlation:.2f}."
    yield Check("Expected error", "good" if e.rank_correlation >= RANK else "look", text)


def _validity(a: Assessment) -> Iterator[Check]:
    share = 1 - a.valid_pixels / (a.shape[1] * a.shape[2])
    text = "All pixels are valid." if share == 0 else f"{share:.1%} of the pixels are masked or nodata."
    yield Check("Missing pixels" if share > MASKED[0] else "Completeness", _Scale(*MASKED)(share), text)

"""What speaks for a fused cube and what against it, in sentences: for a reader who didn't run the fusion."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from math import hypot, prod
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import median_filter

from hsfuse.assessment.result import Assessment, Check, Curve, Floats
from hsfuse.core.notes import masked_words, say, unreached
from hsfuse.physics.optics import ABSORPTION_NM
from hsfuse.physics.srf_bands import seen_bands, unseen

#: Runs of weak bands that are named, at most; bands over which they are sought, and fewest bands of one.
NAMED, SMOOTHED, FEWEST = 2, 5, 3
#: A step of this many usual ones between bands is a gap.
MISSING = 4.0


@dataclass(frozen=True)
class Run:
    """Neighbouring bands from `low` to `high` (nm, or band numbers), their mean value and their share of all bands."""

    low: float
    high: float
    value: float
    share: float

    def words(self, has_wavelengths: bool) -> str:
        """The range, in words."""
        told = f"{self.low:.0f}" if self.low == self.high else f"{self.low:.0f} to {self.high:.0f}"
        return f"{told} nm" if has_wavelengths else f"band{'' if self.low == self.high else 's'} {told}"


def _held_against(a: Assessment) -> tuple[Curve, str, bool] | None:
    """The best correlations by band that there are: with the reference, with the LRHSI one step down, or with it.

    In words what that is, and whether it is a truth.
    """
    places = (
        (a, "cc", "Against the reference", True),
        (a.reduced, "cc", "One step of resolution down", True),
        (a, "hsi_cc", "Blurred back to the LRHSI", False),
    )
    for source, name, how, true in places:
        curve = next((c for c in source.curves if c.name == name), None) if source is not None else None
        if curve is not None and np.isfinite(curve.values).any():
            return curve, how, true
    return None


def weakest(curve: Curve) -> tuple[list[Run], float] | None:
    """Runs of neighbouring bands nearer to the worst than to the median, worst first, and that; None without values.

    Medians over `SMOOTHED` bands are compared and runs of fewer than `FEWEST` bands left out where there are longer
    ones: single bands of a sensor are noisy whatever the fusion does. Bands in strong water vapour absorption don't
    count. A run ends where wavelengths step back, at the next detector, and where bands are missing.
    """
    kept = _clear(curve.wavelengths_nm) & np.isfinite(curve.values)
    nm, values = curve.wavelengths_nm[kept], curve.values[kept]
    if not values.size:
        return None
    parts = _stretches(nm)
    smooth = np.concatenate([median_filter(values[part], SMOOTHED, mode="mirror") for part in parts])
    median = float(np.median(values))
    low = smooth <= (median + smooth.min()) / 2
    found = [run for part in parts for run in _runs(part[low[part]])]
    named = [run for run in found if run.size >= FEWEST] or found
    runs = sorted((_run(nm[run], values[run], nm.size) for run in named), key=lambda run: run.value)
    return runs[:NAMED], median


def _stretches(nm: Floats) -> list[NDArray[np.int64]]:
    """Indices of all bands, cut where wavelengths (C,) step back and where bands are missing."""
    steps = np.diff(nm)
    forward = -1 if (steps < 0).sum() > steps.size / 2 else 1
    far = np.abs(steps) > MISSING * np.median(np.abs(steps)) if steps.size else steps > 0
    return np.split(np.arange(nm.size), np.flatnonzero((forward * steps < 0) | far) + 1)


def _runs(marked: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """Indices in runs of neighbours."""
    return [run for run in np.split(marked, np.flatnonzero(np.diff(marked) > 1) + 1) if run.size]


def _run(nm: Floats, values: Floats, bands: int) -> Run:
    return Run(float(nm.min()), float(nm.max()), float(values.mean()), nm.size / bands)


def mean_outside_absorption(curve: Curve, which: NDArray[np.bool_]) -> float:
    """Mean of the values of the bands `which` (C,), without strong water vapour absorption; NaN without any."""
    values = curve.values[which & _clear(curve.wavelengths_nm) & np.isfinite(curve.values)]
    return float(values.mean()) if values.size else float("nan")


def _clear(wavelengths_nm: Floats) -> NDArray[np.bool_]:
    shaded = [(wavelengths_nm >= low) & (wavelengths_nm <= high) for low, high in ABSORPTION_NM]
    return ~np.any(shaded, axis=0)


Verdict = Literal["good", "look", "poor"]

#: Relative errors up to which a cube agrees with what it is held against, and from which it doesn't.
AGREES, DISAGREES = 0.03, 0.1
#: The same of the shift between the images in MSI pixels, and of the radiometric gain's distance from 1.
SHIFT_PX = 0.4, 1.0
GAIN = 0.05, 0.3
#: Share of masked pixels, and of bands that no MSI band sees.
MASKED = 0.001, 0.2
UNSEEN = 0.2, 1.0
#: Rank correlation of expected and real error up to which the expectation says little.
RANK = 0.5
#: How far a band's correlation is from 1: those that the MSI doesn't see on average, and the weakest ones.
GUESSED, WEAKEST = (0.05, 0.3), (0.1, 0.5)
#: Share of all bands from which on poor ones speak against the cube: a few at a sensor's end are poor in any cube.
FEW = 0.05
#: Weakest bands that are nearer than this to the median aren't named.
LEVEL = 0.02
#: Share of a misfit that a part of the sensors' model must explain to be named.
TOLD_SHARE = 0.2
#: Warnings about a pair that needn't speak against it: of a text without a record nobody knows what it means.
LESSER = frozenset(
    {
        "told",
        "scale-coarse",
        "fill-masked",
        "band-dead",
        "values-wild",
        "gains-far",
        "msi-cut-off",
        "msi-bands-empty",
        "msi-bands-enlarged",
        "msi-one-detail",
        "hsi-repeated",
        "hsi-bands-noise",
        "fit-untold",
        "response-contradicted",
    }
)
#: What such a warning is about, where that is more than the pair.
TOPICS = {
    "model-misfit": "The model of the sensors doesn't fit",
    "sensor-another": "The sensor of the MSI",
    "response-contradicted": "The response",
    "bands-swapped": "The order of the bands",
    "fit-untold": "The model of the sensors",
}
#: The same in the verdict, where the topic alone doesn't say it, in the fields of the warning's values.
CARE = {
    "sensor-another": "the MSI seems not to be {response}'s, and fits {fits}: fuse again with --srf {fits}",
    "response-contradicted": "the MSI's response may be another one",
    "bands-swapped": "bands of the MSI may be swapped",
    "band-dead": "dead lines of an MSI band were masked",
    "values-wild": "{count} wild {count:value|values} of the MSI {count:was|were} masked",
    "msi-bands-enlarged": "MSI bands without detail were left out ({bands})",
    "ground-changed": "the two images show different ground in {share:.0%} of the scene",
    "hsi-repeated": "{share:.1%} of the HSI's pixels repeat their neighbour",
    "msi-cut-off": "the MSI is cut off at its brightest in {bands}",
    "gains-far": "the units of both images may differ",
    "fill-masked": "undeclared fill was masked",
    "image-constant": "an image without any detail",
    "msi-band-constant": "the MSI's band {band} is constant",
    "msi-bands-doubtful": "MSI bands hardly follow the HSI ({bands})",
    "msi-doubtful": "the MSI hardly follows the HSI",
    "msi-wavelengths-differ": "the MSI's own wavelengths aren't those of {response}",
    "names-contradicted": "the MSI's bands aren't those of {sensor}, as they are named",
    "response-untold": "no response explains the MSI's {bands}",
    "haze-left": "cloud or other light that one image alone has was left",
    "hsi-clouded": "over {share:.1%} of the ground the HSI has cloud",
    "fit-untold": "how well the images fit beside cloud isn't known",
    "ground-hidden": "over {share:.1%} of the ground or more the {image} alone is as bright as cloud",
    "images-differ": "the two images show different things in about {where:.0%} of the scene",
    "msi-bands-empty": "empty MSI bands were left out ({bands})",
    "msi-one-detail": "all MSI bands have one and the same detail",
    "ground-misplaced": "here and there ground is misplaced by some {pixels:.1f} MSI pixels",
    "bright-apart": "what is bright lies {pixels:.1f} HSI pixels elsewhere in one image",
    "shift-doubtful": "the shift may be one of clouds",
    "psf-assumed": "the PSF is assumed, as the pair doesn't tell it",
    "levels-far-apart": "the MSI's numbers are about {ratio:.3g} times the HSI's",
    "levels-contradict": "the MSI's numbers are about {ratio:.3g} times the HSI's",
    "numbers-extreme": "most numbers of an image are no radiance or reflectance",
    "scale-coarse": "the cube is stored in coarse steps",
    "hsi-bands-noise": "{bands} of {count} HSI bands {bands:is|are} mostly noise ({nm})",
}


@dataclass(frozen=True)
class _Scale:
    """Where good ends and where poor begins; smaller is better."""

    good: float
    poor: float

    def __call__(self, value: float) -> Verdict:
        return "good" if value <= self.good else "look" if value < self.poor else "poor"

    def words(self, what: str, unit: str = "%") -> str:
        """Both ends of `what` is measured, in percent or another unit."""
        good, poor = (f"{100 * v:g}%" if unit == "%" else f"{v:g} {unit}" for v in (self.good, self.poor))
        return f"{what}: good up to {good}, poor from {poor}"

    @property
    def correlations(self) -> str:
        """Both ends, of a scale of how far correlations are from 1."""
        return f"correlation: good from {1 - self.good:g}, poor up to {1 - self.poor:g}"


_ERROR = _Scale(AGREES, DISAGREES)


def checks(a: Assessment) -> tuple[Check, ...]:
    """All checks that the assessment allows, most important first."""
    makers = (
        _pair, _truth, _weakest, _inputs, _model, _position, _radiometry, _coverage, _learning, _expectation, _validity,
    )  # fmt: skip
    of_detail = () if a.uses_msi else (_model, _radiometry, _coverage)
    return tuple(check for maker in makers if maker not in of_detail for check in maker(a))


def overall(found: tuple[Check, ...]) -> str:
    """What the checks come to, in one sentence."""
    poor, look = (_listed(c for c in found if c.verdict == verdict) for verdict in ("poor", "look"))
    if poor:
        return f"Don't rely on this cube before you have looked into this: {poor}."
    if look:
        return f"Usable with care: {look}."
    return "Nothing that was checked speaks against this cube." if found else "Nothing was checked."


def _listed(found: Iterable[Check]) -> str:
    return "; ".join(dict.fromkeys(check.care or check.topic[0].lower() + check.topic[1:] for check in found))


def _pair(a: Assessment) -> Iterator[Check]:
    """What speaks against fusing these two images at all; what is known only as a text may be anything."""
    for one in a.pair_warnings:
        topic = TOPICS.get(one.code, "The pair of images")
        if one.code == "model-misfit" and "part" in one.values:
            topic += f" ({one.values['part']})"
        yield Check(
            topic,
            "look" if one.code in LESSER else "poor",
            one.sentence,
            "pair",
            care=say(CARE.get(one.code, ""), one.values),
        )


def _truth(a: Assessment) -> Iterator[Check]:
    error, angle = a.metrics.get("relative_rmse"), a.metrics.get("sam")
    reduced = a.reduced.metrics.get("relative_rmse") if a.reduced else None
    if error is not None:
        text = f"It differs from the reference by {error:.1%}, in the shape of spectra by {angle or 0:.2g}° on average."
        care = f"values are {error:.0%} off the truth"
        yield Check("Agreement with the truth", _ERROR(error), text, "truth", _ERROR.words("error"), care)
    elif reduced is not None and a.reduced is not None:
        text = (
            f"One step of resolution down, where the LRHSI is the truth, the method is off by {reduced:.1%} and "
            f"{a.reduced.metrics.get('sam') or 0:.2g}°. At full resolution it may be less or more, of this order."
        )
        care = f"values are {reduced:.0%} off in a test at lower resolution"
        yield Check("Test against the LRHSI", _ERROR(reduced), text, "truth", _ERROR.words("error"), care)


def untested(a: Assessment) -> str:
    """What was held against no truth, in words, which is no doubt about the cube; "" with a reference or a test."""
    if "relative_rmse" in a.metrics or a.reduced is not None or not a.uses_msi:
        return ""
    expected = "" if a.expected is None else f", nor was the expected error ({a.expected.mean:.3g})"
    return (
        f"Its fine detail was held against no truth{expected}: wrong detail agrees with both inputs, too. "
        "hsfuse assess --protocol wald, or a reference, would tell more."
    )


def unchecked(a: Assessment) -> str:
    """What wasn't checked for want of the two images, in a sentence; "" with both."""
    missing = [f"--{name.removeprefix('LR').lower()}" for name in ("LRHSI", "MSI") if name not in a.images]
    if not missing:
        return ""
    inferred = ", inferred bands" if a.response is None else ""
    return (
        f"Not checked without {' and '.join(missing)}: agreement with the two images, position, radiometry{inferred}."
    )


def by_estimate(a: Assessment) -> str:
    """That figures rest on a response that the pair itself told, in a sentence; "" where they don't."""
    if not (_estimated(a) and a.uses_msi):
        return ""
    return (
        "The MSI's response is estimated from this pair, as no --srf names its sensor: agreement with the MSI, "
        "radiometry and inferred bands are as that has it."
    )


def _estimated(a: Assessment) -> bool:
    return a.response is not None and a.response.estimated


def _model(a: Assessment) -> Iterator[Check]:
    """Whether the images differ by no more than noise; what is warned of is told among what speaks against the pair."""
    check = a.sensors.get("check")
    found = check.get("misfit") if isinstance(check, Mapping) else None
    if not isinstance(found, Mapping) or not found.get("fits"):
        return
    from hsfuse.calibration.misfit import LOUD, OF_CONTRAST  # a cube is viewed without torch

    text = misfit_words(found)
    limits = (
        f"misfit: good up to {LOUD:g} times the noise, whatever its contrast, and beyond that where it is up to "
        f"{OF_CONTRAST:.0%} of the detail's contrast"
    )
    care = "the two images differ by more than their noise"
    yield Check("The model of the sensors", "look" if is_uneasy(found) else "good", text, "model", limits, care)


def is_uneasy(misfit: Mapping[str, Any]) -> bool:
    """Whether a recorded misfit is more than noise, though too little, with a resampled LRHSI, to be warned of."""
    from hsfuse.calibration.misfit import LOUD, OF_CONTRAST  # a cube is viewed without torch

    return bool(misfit.get("fits")) and misfit["times_noise"] > LOUD and misfit["share_of_contrast"] > OF_CONTRAST


def misfit_words(misfit: Mapping[str, Any]) -> str:
    """A recorded misfit in a sentence or two."""
    from hsfuse.calibration.misfit import LOUD, OF_CONTRAST  # a cube is viewed without torch

    times, share = misfit["times_noise"], misfit["share_of_contrast"]
    said, beyond = f"Seen alike, the two images differ by {times:.2f} times their noise", f"{share:.0%} of the detail's"
    if not misfit.get("fits"):
        part = misfit.get("part")
        return f"{said}: the model doesn't fit; {f'{part} explains most' if part else 'no part of it explains that'}."
    if times <= LOUD:
        return (
            f"{said}, which is within {LOUD:g} times it: the model fits, whatever is beyond noise ({beyond} contrast)."
        )
    if not is_uneasy(misfit):
        return f"{said}, but what is beyond it is {beyond} contrast, which is within {OF_CONTRAST:.0%}: the model fits."
    part, share = max(misfit["explained"].items(), key=lambda item: item[1])
    cause = f"{part} explains {share:.0%} of that by itself" if share >= TOLD_SHARE else "no single part explains it"
    return (
        f"{said}, beyond it by {beyond} contrast: more than noise; {cause}. "
        "It isn't warned of, for resampling the LRHSI, as here, can leave about as much where the model is right."
    )


def _inputs(a: Assessment) -> Iterator[Check]:
    seen = f"Seen by its response{', which is estimated from this pair' if _estimated(a) else ''}"
    for prefix, image, how in (("hsi_", "LRHSI", "Blurred back to it"), ("msi_", "MSI", seen)):
        total = a.metrics.get(f"{prefix}relative_rmse")
        error = a.lrhsi_misfit if prefix == "hsi_" and a.lrhsi_misfit is not None else total
        if f"{prefix}relative_rmse" in a.metrics and (error is None or not np.isfinite(error)):
            text = f"The {image} can't be compared with the cube: it has no valid pixel, or nothing but zeros."
            care = f"it can't be compared with the {image}"
            yield Check(f"Agreement with the {image}", "poor", text, "inputs", _ERROR.words("misfit"), care)
        elif error is not None:
            noisy = "" if error == total else f"; with bands of noise, by {total:.1%}"
            text = f"{how}, the cube differs by {error:.1%}{noisy}."
            verdict, care = _ERROR(error), f"values are {error:.0%} off the {image}'s"
            if prefix == "msi_" and not a.uses_msi:
                verdict, care = "look", "the cube is no sharper than the LRHSI"
                text += " It was made without the MSI's detail: it is no sharper than the LRHSI."
            yield Check(f"Agreement with the {image}", verdict, text, "inputs", _ERROR.words("misfit"), care)


def _position(a: Assessment) -> Iterator[Check]:
    if a.registration is None:
        return
    if a.shift_px is None:
        text = "Whether the two images lie on each other can't be told from them."
        yield Check(
            "Position", "look", text, code="position", care="whether the two images lie on each other isn't known"
        )
        return
    scale = _Scale(*SHIFT_PX)
    now = hypot(*a.shift_px)
    text = f"The two images lie on each other to within {max(now, 0.01):.2f} MSI pixels"
    if a.registration.left is not None:
        text += f"; corrected was {a.registration.amounts}"
    verdict, limits = scale(now), scale.words("shift", "MSI pixels")
    care = f"the two images lie {now:.1f} MSI pixels apart"
    if any(one.code == "shift-doubtful" for one in a.pair_warnings):
        verdict, care = ("look" if verdict == "good" else verdict), "the shift may be one of clouds"
        text += ", which may be one of clouds"
    yield Check("Position", verdict, f"{text}.", "position", limits, care)


def _radiometry(a: Assessment) -> Iterator[Check]:
    """What is left of the difference counts; what was taken out, for the pair bears it out, is told as a figure."""
    left, taken = _farthest(a.msi_gains), _farthest({band.band: band.gain for band in a.radiometry})
    if left is None:
        return
    scale = _Scale(*GAIN)
    verdict, limits = scale(abs(left[1] - 1)), scale.words("difference that is left")
    before = "" if taken is None else f", once gain and offset are taken out: by up to {_gain_words(*taken)} before"
    by = ", by a response that is estimated from this pair" if _estimated(a) else ""
    text, care = f"Both sensors see the same brightness, band by band{before}{by}.", ""
    if verdict != "good":
        told = f"differ in brightness by up to {_gain_words(*left)}"
        text = f"The two sensors {told}{before or ', not corrected'}{by}."
        care = f"the two sensors {told}"
    if isinstance(light := a.sensors.get("light"), float):
        text += f" A smooth factor between them, {light:.1%} RMS, was taken out of the MSI."
    yield Check("Radiometry", verdict, text, "radiometry", limits, care)


def _gain_words(band: str, gain: float) -> str:
    """How far a band's gain is from 1."""
    return f"{gain - 1:+.0%} (MSI band {band})" if 0.5 <= gain <= 2 else f"a factor of {gain:.3g} (MSI band {band})"


def _farthest(gains: Mapping[str, float]) -> tuple[str, float] | None:
    """The band whose gain is farthest from 1, and that; None where none is known."""
    known = {band: gain for band, gain in gains.items() if np.isfinite(gain)}
    return max(known.items(), key=lambda item: abs(item[1] - 1)) if known else None


def _weakest(a: Assessment) -> Iterator[Check]:
    held = _held_against(a)
    found = None if held is None else weakest(held[0])
    if held is None or found is None:
        return
    how, (runs, median), worst = held[1], found, found[0][0].value
    told = "; ".join(f"{run.words(a.has_wavelengths)}, correlation {_closely(run.value)}" for run in runs)
    text = f"{how}, the weakest: {told}. Half of all bands reach {_closely(median)}."
    care = f"detail in {runs[0].words(a.has_wavelengths)} is weak"
    if median - worst < LEVEL:
        care = "detail in most bands is weak"
        text = f"{how}, no range of bands stands out: all correlate with about {_closely(worst)} or more."
    scale = _Scale(*WEAKEST)
    poor = sum(run.share for run in runs if scale(1 - run.value) == "poor")
    verdict = scale(1 - worst)
    verdict = "look" if verdict == "poor" and poor < FEW else verdict
    yield Check("Weakest bands", verdict, text, "bands", scale.correlations, care)


def _coverage(a: Assessment) -> Iterator[Check]:
    """How well what no MSI band sees was inferred, where there is a truth; else how much there is of it."""
    if a.response is None:
        return
    seen, held = seen_bands(a.response.weights), _held_against(a)
    text = f"The MSI sees {int(seen.sum())} of the {seen.size} bands"
    where = next(
        (f"{one.values['ranges']}" for one in unseen(a.response.wavelengths_nm, a.response.weights)), "the others"
    )
    text += "." if seen.all() else f"; fine detail in {where} is inferred, not measured."
    scale, value, limits = _Scale(*UNSEEN), 1 - float(seen.mean()), ""
    if held is not None and held[2] and held[0].values.shape == seen.shape:
        inside, outside = (mean_outside_absorption(held[0], which) for which in (~seen, seen))
        if np.isfinite(inside):
            scale, value = _Scale(*GUESSED), 1 - inside
            told = f"{_closely(inside)} on average (the seen bands: {_closely(outside)})"
            text, limits = f"{text} {held[1]} it correlates with {told}.", scale.correlations
    limits = limits or scale.words("share of bands that aren't seen")
    care = f"detail in {1 - seen.mean():.0%} of the bands is inferred, not measured"
    yield Check("Inferred bands", scale(value), text, "bands", limits, care)


def _closely(correlation: float) -> str:
    """Two digits, and more close to 1."""
    return f"{correlation:.2f}" if correlation < 0.98 else f"{correlation:.3f}"


#: Share of the base's error below which what is gained or lost is nothing to speak of: parts of a scene and the
#: whole of it differ by as much (0.4 % gained on all of a scene of 21 x 32 LR pixels, 0.6 % lost on parts of it).
LEAST_GAIN = 0.01


def _learning(a: Assessment) -> Iterator[Check]:
    record = a.provenance.get("adaptation")
    if not isinstance(record, Mapping) or not isinstance(gain := record.get("gain"), int | float):
        return
    if abs(gain) < LEAST_GAIN:  # one that isn't used, too: then the cube is the base's
        return
    than = "below" if gain > 0 else "above"
    text = f"On parts of the scene that nothing was learned from, the error is {abs(gain):.0%} {than} that of the base."
    limits, care = "gain: good above 0", "what was learned on the scene raised the error"
    yield Check("Gain over the base", "good" if gain > 0 else "look", text, "network", limits, care)


def _expectation(a: Assessment) -> Iterator[Check]:
    if a.expected is None:
        return
    e, care = a.expected, "the expected error doesn't say where errors are"
    if e.rank_correlation is None or e.found is None:
        return
    text = (
        f"The quality raster expects {e.mean:.3g} on average, {e.found:.3g} was found. It puts the pixels in the order "
    )
    text += f"of their real error with a rank correlation of {e.rank_correlation:.2f}"
    good = e.rank_correlation > RANK
    text += "." if good else ": it says little of where to look."
    limits = f"rank correlation: good above {RANK:g}"
    yield Check("Expected error", "good" if good else "look", text, "expected", limits, care)


def unreached_words(a: Assessment) -> str:
    """Which share of the MSI the fused cube hasn't; "" where that is next to nothing, or isn't known."""
    if "MSI" not in a.images:
        return ""
    return unreached(1 - a.shape[1] * a.shape[2] / prod(a.images["MSI"].grid.shape))


def _validity(a: Assessment) -> Iterator[Check]:
    share = 1 - a.valid_pixels / (a.shape[1] * a.shape[2])
    why = f" ({told})" if (told := masked_words(a.masked)) else ""
    text = "All pixels are valid." if share == 0 else f"{share:.1%} of the pixels are masked or nodata{why}."
    if told := unreached_words(a):
        text += f" {told[0].upper()}{told[1:]}."
    topic, scale = "Missing pixels" if share > MASKED[0] else "Completeness", _Scale(*MASKED)
    care = f"{share:.1%} of the pixels are missing"
    yield Check(topic, scale(share), text, "masked", scale.words("share that is masked"), care)

"""What the report says: key figures, a summary in sentences, what the fitting brought, provenance as lines."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from math import floor, hypot, isfinite, log10
from typing import Any

from hsfuse.assessment import Assessment
from hsfuse.assessment.report.figures import training
from hsfuse.assessment.result import IndexCheck
from hsfuse.assessment.table import number
from hsfuse.core.grid import Motion
from hsfuse.metrics import CATALOGUE

#: Key figures: what each says, in a few words.
CARDS = {
    "psnr": ("PSNR", "Strength of the signal over the error. Halving the error adds 6 dB."),
    "sam": ("Spectral angle", "How far the shape of a spectrum is off, mean over pixels."),
    "ergas": ("ERGAS", "Relative error of the bands, set against the resolution ratio."),
    "ssim": ("SSIM", "Likeness of spatial structure; 1 is identical."),
    "hsi_relative_rmse": ("Misfit to the LRHSI", "Blurred back to the LRHSI, the cube differs from it by this much."),
    "msi_relative_rmse": (
        "Misfit to the MSI",
        "Seen by the MSI's response, the cube differs from it by this much.",
    ),
    "hqnr": ("HQNR", "Quality judged without a reference; 1 is best."),
    "qnr": ("QNR", "Older relative of HQNR; favours doing nothing. 1 is best."),
}


#: Those of them that need a reference.
REFERENCE_CARDS = ("psnr", "sam", "ergas", "ssim")


def cards(a: Assessment, keys: Iterable[str] = tuple(CARDS)) -> list[dict[str, str]]:
    """The key figures among `keys` that there are."""
    out = []
    for key, value in ((key, value) for key in keys if (value := a.metrics.get(key)) is not None):
        (title, meaning), (text, unit), better = CARDS[key], shown(key, value), f"{CATALOGUE[key].direction} is better"
        definition, others = _definition(a) if key == "psnr" else ("", "")
        out.append({"title": title, "value": text, "unit": unit, "direction": better, "meaning": meaning,
                    "definition": definition, "others": others})  # fmt: skip
    return out


def shown(key: str, value: float) -> tuple[str, str]:
    """A key figure as text, and its unit."""
    if "relative" in key:
        return f"{100 * value:.2g}", "%"
    unit = CATALOGUE[key].unit
    return number(value), {"degrees": "°", "1": ""}.get(unit, unit)


def _definition(a: Assessment) -> tuple[str, str]:
    """Which of the PSNRs the headline is, and what the others are."""
    peak = a.settings.get("peak", "").split(" ")[0]
    others = {"over all values at once": "psnr_global", "with each band's own peak": "psnr_band_peak"}
    known = [f"{number(v)} dB {what}" for what, key in others.items() if (v := a.metrics.get(key)) is not None]
    return "mean over bands" + (f", peak {peak}" if peak else ""), "; ".join(known)


#: What a verdict is called, from the worst.
VERDICTS = {"poor": "poor", "look": "keep in mind", "good": "good"}


#: Code of a check -> (what a poor one looks like, what to do about it).
ADVICE: dict[str, tuple[str, str]] = {
    "pair": (
        "Detail of the MSI where the LRHSI has none, or the other way round; colours that fit no surface.",
        "Look at both images side by side: same place, same season? hsfuse info tells how each is read; --srf, "
        "--msi-bands and --msi-nodata say it outright.",
    ),
    "truth": (
        "The map of errors is bright along edges (misplaced detail) or all over a kind of surface (wrong spectra).",
        "Check that what it is held against shows the same place and day in the same unit; look at Position and "
        "Radiometry; try another --method.",
    ),
    "model": (
        "Fine detail doubled, smeared or of a wrong brightness along edges.",
        "Look at PSF, place and response in the chapter on the sensors; check the georeference of both images, --srf "
        "and --psf.",
    ),
    "inputs": (
        "Whole fields are brighter or darker than in the input, or the LRHSI's pixels show as a grid of blocks.",
        "hsfuse info both images: wrong sensor (--srf), radiance against reflectance, or a scale factor? One level of "
        "processing for both.",
    ),
    "position": (
        "Roads and field borders have a coloured fringe, another one on each side.",
        "Leave --register auto; take an MSI of the same orthorectification where the shift changes over the scene "
        "(the arrows in the chapter on the sensors).",
    ),
    "radiometry": (
        "The cube is brighter or bluer than the LRHSI in the bands that the MSI sees, and only there.",
        "Leave --match-radiometry auto; prefer two images of one day with one kind of atmospheric correction.",
    ),
    "bands": (
        "Spectra with spikes or steps in these bands; pictures of them are noise, or a copy of another band's texture.",
        "Don't read fine detail in these bands; leave them out (--bands, --drop-absorption).",
    ),
    "network": (
        "What was learned on the scene changes noise instead of detail.",
        "--effort fast gives the base alone; a larger scene has more to learn from.",
    ),
    "expected": (
        "Its map is bright elsewhere than that of the error.",
        "Use it for the borders of masks alone, and judge by the maps of misfit.",
    ),
    "masked": (
        "Holes, most often along clouds and the swath's edge.",
        "Expected if you know why; else look at the masks and nodata values that hsfuse info tells of both images.",
    ),
}


#: Warnings that a check says, too.
IN_CHECKS = frozenset({"pixels-masked", "inconsistent", "misplaced", "gains-differ", "unseen"})


def other_warnings(a: Assessment) -> list[str]:
    """The warnings that aren't among the checks."""
    return [one.text for one in a.warnings if one.code not in IN_CHECKS]


def bias(check: IndexCheck) -> str:
    """An index's bias with its sign, to the third significant digit of its RMSE; "0" where that is nothing."""
    digits = 3 if check.rmse <= 0 else min(max(0, 2 - floor(log10(check.rmse))), 6)
    text = f"{check.bias:+.{digits}f}"
    return text if float(text) else "0"


def in_short(assessment: Assessment) -> list[str]:
    """One sentence for each thing the cube was held against."""
    m, out = assessment.metrics, []
    sam, low, high = m.get("sam"), m.get("hsi_relative_rmse"), m.get("msi_relative_rmse")
    if sam is not None:
        out.append(
            f"Against the reference, spectra are off by {number(sam)}° on average: half of the pixels by less than "
            f"{number(m.get('sam_median'))}°, 95% by less than {number(m.get('sam_p95'))}°."
        )
    if low is not None and high is not None:
        out.append(
            f"Blurred back to the LRHSI, the cube differs from it by {low:.1%}; seen by the MSI's response, it differs "
            f"from the MSI by {high:.1%}. Differences below the noise of these images say nothing."
        )
    if absent := _undefined(assessment):
        out.append(absent)
    return out


def _undefined(a: Assessment) -> str:
    """Why QNR and HQNR are missing, in a sentence; "" where they aren't."""
    reasons = {one.values["metric"]: one.values["reason"] for one in a.notes if one.code == "metric-undefined"}
    names = [CARDS[key][0] for key in ("hqnr", "qnr") if key in reasons]
    why = next((reasons[key] for key in ("d_s", "d_lambda_khan", "d_lambda") if key in reasons), "")
    return f"{' and '.join(names)} can't be told: {why}." if names and why else ""


def training_words(provenance: Mapping[str, Any]) -> str:
    """What the adaptation brought, in a sentence; empty without one."""
    record, drawn = provenance.get("adaptation"), training(provenance)
    if drawn is None or not isinstance(record, Mapping):
        return ""
    held = [v for c in drawn["curves"] if "held-out" in c["name"] for v in c["y"] if v is not None]
    told = " ".join(f"{str(record[name]).rstrip('.')}." for name in ("verdict", "kept") if record.get(name))
    if told or not held or not drawn["base"]:
        return f"The network was fitted on the scene itself: {told}" if told else "It was fitted on the scene itself."
    change = min(held) / drawn["base"] - 1
    word = "lower" if change < 0 else "higher"
    return (
        f"On blocks of the scene that training never saw, the best error was {abs(change):.0%} {word} than that of the "
        "training-free base."
    )


def method_words(provenance: Mapping[str, Any]) -> str:
    """How the cube was fused, in a line without what each part has been tested by; empty when the file doesn't say."""
    method = provenance.get("method")
    if isinstance(method, Mapping):
        told = [
            f"{key} {str(method[key]).partition(':')[0]}"
            for key in ("base", "scene regression", "weights")
            if method.get(key)
        ]
        return "; ".join([str(method.get("method", "")), *told]).strip("; ")
    return "" if method is None else str(method)


def method_lines(provenance: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Everything that the file says of its method, as lines for the end of the report."""
    method = provenance.get("method")
    return [(str(key), str(value)) for key, value in method.items() if value] if isinstance(method, Mapping) else []


def flat(record: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """A nested record as (path, text) lines; long lists are cut, what is unset is left out, as are notes' records.

    The notes stand there as texts, too; a text of more than `LONG` characters in a list has a line of its own.
    """
    out: list[tuple[str, str]] = []
    for key, value in record.items():
        name = f"{prefix}{key}".replace("_", " ")
        if value is None or value in ([], {}, "") or (key in ("records", "said") and not prefix):
            continue
        if key == "input_files" and not prefix and isinstance(value, list):
            out += [(f"input file {i}", f"{one[0]}, {one[1]:,} bytes") for i, one in enumerate(value, start=1)]
        elif isinstance(value, list) and value and all(isinstance(one, Mapping) for one in value):
            for i, one in enumerate(value[:3], start=1):
                out += flat(one, f"{name} {i} › ")
            if len(value) > 3:
                out.append((name, f"({len(value)} entries)"))
        elif isinstance(value, Mapping):
            out += flat(value, f"{name} › ")
        elif isinstance(value, list) and any(isinstance(one, str) and len(one) > LONG for one in value):
            out += [(f"{name} {i}", _text(one)) for i, one in enumerate(value, start=1)]
        elif isinstance(value, list) and all(isinstance(one, list) for one in value):
            out.append((name, f"({_size(value)} values)"))
        elif isinstance(value, list):
            ends = value if len(value) <= 6 else [*value[:2], "…", value[-1], f"({len(value)} values)"]
            out.append((name, ", ".join(map(_text, ends))))
        else:
            out.append((name, _text(value)))
    return out


def _size(value: Any) -> str:
    """The lengths of lists in lists, such as 2 × 16."""
    return f"{len(value)} × {_size(value[0])}" if value and isinstance(value[0], list) else str(len(value))


def grouped(lines: Iterable[tuple[str, str]]) -> dict[str, list[tuple[str, str]]]:
    """Lines by the first part of their path, what has only one first, under ""."""
    out: dict[str, list[tuple[str, str]]] = {"": []}
    for path, text in lines:
        first, _, rest = path.partition(" › ")
        out.setdefault(first if rest else "", []).append((rest or first, text))
    return {group: found for group, found in out.items() if found}


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return f"({', '.join(map(_text, value))})"
    return "-" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)


#: Longest text that stands beside others in a line.
LONG = 40
#: Width of a drawing of shifts, and length of its longest arrow, in its own units.
DRAWN_WIDTH, LONGEST = 300.0, 34.0


def stages(provenance: Mapping[str, Any]) -> list[dict[str, str]]:
    """Stages of the adaptation, as far as they are recorded: errors on held-out cells relative to the base's."""
    record = provenance.get("adaptation")
    found = record.get("stages") if isinstance(record, Mapping) else None
    if not isinstance(found, Sequence) or isinstance(found, str):
        return []
    return [_stage(stage) for stage in found if isinstance(stage, Mapping) and stage.get("name")]


def _stage(stage: Mapping[str, Any]) -> dict[str, str]:
    def share(key: str) -> str:
        value = stage.get(key)
        return f"{value:.1%}" if isinstance(value, int | float) and isfinite(value) else "-"

    seconds = stage.get("seconds")
    time = f"{seconds:.1f}" if isinstance(seconds, int | float) else "-"
    return {"name": str(stage["name"]), "error": share("error"), "angle": share("angle"), "seconds": time}


def effort(provenance: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Time and machine as (what, how much) lines."""
    out = []
    seconds = provenance.get("seconds")
    if isinstance(seconds, Mapping):
        known = {key: value for key, value in seconds.items() if isinstance(value, int | float)}
        out = [(str(key).replace("_", " "), f"{value:.1f} s") for key, value in known.items()]
    return out + [(name, str(provenance[key])) for key, name in _MACHINE.items() if provenance.get(key)]


_MACHINE = {"device": "device", "scan": "scan kernel"}


def shift_figures(a: Assessment) -> list[dict[str, Any]]:
    """Shifts of the LRHSI against the MSI: as the files have it and, where it was corrected, what is left.

    Without the inputs, what the fused file records.
    """
    told = a.provenance.get("registration")
    if a.registration is not None and a.ratio is not None:
        shape = (a.shape[1] / a.ratio, a.shape[2] / a.ratio)
        both = [("As the files have it", a.registration.found), ("After correction", a.registration.left)]
        fields = {t: [vars(window) for window in s.field] for t, s in both if s is not None and s.field}
        now = a.registration.now.describe()
        words = {both[0][0]: a.registration.found_words, both[1][0]: now}
        longest = max([_longest(field) for field in fields.values()], default=0.0)
        return [_figure(title, field, shape, words[title], longest) for title, field in fields.items()]
    if isinstance(told, Mapping) and isinstance(told.get("field"), Sequence) and told["field"]:
        rows, cols = ([window[key] for window in told["field"]] for key in ("row", "col"))
        said = f"{number(told.get('dy'))} rows, {number(told.get('dx'))} columns in LR pixels"
        motion = Motion.of_record(told)
        if motion is not None and motion.distortion is not None:
            said += f", a smooth field of up to {motion.distortion.largest:.2f} MSI pixels beyond it corrected"
        shape = (max(rows) + min(rows), max(cols) + min(cols))
        title = "After correction" if told.get("corrected") else "As the files have it"
        return [_figure(title, told["field"], shape, said, _longest(told["field"]))]
    return []


def _longest(field: Sequence[Mapping[str, float]]) -> float:
    return max(hypot(window["dy"], window["dx"]) for window in field)


def _figure(
    title: str, field: Sequence[Mapping[str, float]], shape: tuple[float, float], words: str, longest: float
) -> dict[str, Any]:
    """The shifts of all windows of a scene, drawn `times` too long on `width` x `height`; `words` tell them.

    `field` holds windows by row, col, dy, dx in LR pixels, `shape` the scene's rows and columns. `longest` is the shift
    that gets the longest arrow: one for all figures, so that they can be compared.
    """
    unit = DRAWN_WIDTH / max(shape[1], 1e-9)
    times = LONGEST / unit / longest if longest > 0 else 1.0
    arrows = [
        {"x": w["col"] * unit, "y": w["row"] * unit, "dx": w["dx"] * times * unit, "dy": w["dy"] * times * unit}
        for w in field
    ]
    return {"title": title, "words": words, "width": DRAWN_WIDTH, "height": shape[0] * unit, "arrows": arrows,
            "longest": _longest(field), "times": times}  # fmt: skip

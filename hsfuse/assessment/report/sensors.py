"""The report's chapter on the sensors: which PSF, place, response and radiometry were used, and what bears them out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from hsfuse.assessment import Assessment
from hsfuse.assessment.checks import is_uneasy, misfit_words
from hsfuse.core.values import plus_minus

#: What stands before the PSF, by how it was come by.
HOW = {
    "estimated": "Estimated from the pair",
    "told": "As it was told",
    "assumed": "Assumed, as nobody told it",
}


def sensor_lines(a: Assessment) -> list[tuple[str, str]]:
    """What is known of the sensors as (what, text) lines."""
    return list(_lines(a))


def _lines(a: Assessment) -> Iterator[tuple[str, str]]:
    told = a.sensors
    misfit = _misfit(a)
    if misfit:
        yield "The model", misfit_words(misfit)
        if not misfit.get("fits") or (is_uneasy(misfit) and max(misfit["explained"].values()) > 0):
            shares = ", ".join(f"{part} {share:.0%}" for part, share in misfit["explained"].items())
            yield "What explains it", f"Each by itself, of what is beyond noise: {shares}."
    if isinstance(psf := told.get("psf"), Mapping):
        yield "PSF", _psf(psf).replace("+-", "±")
    if a.registration is not None:
        now = a.registration.now.describe()
        corrected = f"; corrected was: {a.registration.found_words}" if a.registration.left is not None else ""
        yield "Place", f"{now[:1].upper()}{now[1:]}{corrected}."
    if a.response is not None:
        yield "Response", _response(a)
    yield "Radiometry", _radiometry(a)
    if isinstance(light := told.get("light"), float):
        yield "Light", f"Uneven: a smooth factor between both images, {light:.1%} RMS, was taken out of the MSI."


def _psf(psf: Mapping[str, Any]) -> str:
    text = str(psf.get("text") or psf.get("label", ""))
    if psf.get("how") == "assumed" and psf.get("doubt"):
        return f"Assumed, as the pair can't tell it: {psf['doubt']}. {psf.get('label', '')}."
    return f"{HOW.get(str(psf.get('how')), 'PSF')}: {text}."


def _response(a: Assessment) -> str:
    assert a.response is not None
    if a.response.estimated:
        return "Estimated from the pair, as no --srf names the sensor: nothing else bears it out."
    check = a.sensors.get("check")
    bands = check.get("response", []) if isinstance(check, Mapping) else []
    wrong = [band["band"] for band in bands if band.get("contradicts")]
    other = check.get("better") if isinstance(check, Mapping) else ""
    if wrong or other:
        better = f"; {other} fits better" if other else ""
        where = f" in {', '.join(wrong)}" if wrong else ""
        return f"{a.response.name}; the pair contradicts it{where}{better}."
    if not bands:
        return f"{a.response.name}; not held against the pair."
    from hsfuse.calibration.contradiction import FITS  # a cube is viewed without torch

    loud = [str(band["band"]) for band in bands if band["misfit"] > FITS]
    if not loud:
        return f"{a.response.name}; nothing in the pair contradicts it."
    return (
        f"{a.response.name}; the pair doesn't contradict it: what {', '.join(loud)} "
        f"{'leave' if len(loud) > 1 else 'leaves'} beyond noise another centre or width wouldn't explain."
    )


def _radiometry(a: Assessment) -> str:
    if isinstance(tone := a.sensors.get("tone"), Mapping) and tone:
        text = f"The tone of {', '.join(tone)} isn't linear in reflectance; monotone curves were taken out."
        return (
            f"{text} Gain and offset were taken out of {', '.join(b.band for b in a.radiometry)}."
            if a.radiometry
            else text
        )
    if a.radiometry:
        return (
            "Linear; "
            + "; ".join(f"{b.band} = {b.gain:.3f} × LRHSI {b.offset:+z.3g}" for b in a.radiometry)
            + " taken out."
        )
    return (
        "No gain or offset was taken out." if "light" in a.sensors else "The MSI was used with the numbers that it has."
    )


def _misfit(a: Assessment) -> Mapping[str, Any]:
    check = a.sensors.get("check")
    found = check.get("misfit") if isinstance(check, Mapping) else None
    return found if isinstance(found, Mapping) else {}


def response_rows(a: Assessment) -> list[dict[str, str]]:
    """Each band's response against the pair, as text."""
    check = a.sensors.get("check")
    bands = check.get("response", []) if isinstance(check, Mapping) else []
    return [response_row(band) for band in bands]


def response_row(band: Mapping[str, Any]) -> dict[str, str]:
    """One band's response against the pair, of a `SensorCheck`'s figures for JSON, as text."""
    centre, width = float(band["centre_nm"]), float(band["width_nm"])
    by, by_sd = band["widened_by"], band["widened_sd"]
    from hsfuse.calibration.contradiction import FITS  # a cube is viewed without torch

    return {
        "band": str(band["band"]),
        "centre": f"{centre:.0f}",
        "shifted": _with_sd(centre + float(band["shift_nm"]), float(band["shift_sd_nm"])),
        "width": f"{width:.0f}",
        "widened": "-" if by is None else _with_sd(width * float(by), width * float(by_sd)),
        "misfit": f"{float(band['misfit']):.1f}",
        "verdict": "contradicted"
        if band.get("contradicts")
        else "fits"
        if band["misfit"] <= FITS
        else "misfit of another cause",
    }


def _with_sd(value: float, sd: float) -> str:
    return plus_minus(value, sd).replace("+-", "±")

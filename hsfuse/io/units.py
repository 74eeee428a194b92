"""Wavelength units as files spell them, turned into nanometres; values that contradict their unit are caught."""

from __future__ import annotations

import re
from collections.abc import Sequence
from statistics import median

from hsfuse.errors import InputError

#: Nanometres a unit, by the unit's spelling in lower case.
_FACTORS = {
    **dict.fromkeys(("nm", "nanometer", "nanometers", "nanometre", "nanometres", "nanom"), 1.0),
    **dict.fromkeys(("um", "µm", "μm", "micron", "microns", "microm"), 1e3),
    **dict.fromkeys(("micrometer", "micrometers", "micrometre", "micrometres", "mkm"), 1e3),
    **dict.fromkeys(("a", "å", "angstrom", "angstroms"), 0.1),
    **dict.fromkeys(("mm", "millimeter", "millimeters", "millimetre", "millimetres"), 1e6),
    **dict.fromkeys(("cm", "centimeter", "centimeters", "centimetre", "centimetres"), 1e7),
    **dict.fromkeys(("m", "meter", "meters", "metre", "metres"), 1e9),
}
_NO_LENGTH = re.compile(r"wave ?number|cm\^?-1|1/cm|[kmgt]?hz|hertz|index|band ?number", re.IGNORECASE)

#: What an optical sensor's band centre and FWHM can be, in nm. The first range is narrower than a factor of 1000, so
#: nanometres and micrometres can't be taken for each other.
_CENTRES_NM = (200.0, 20_000.0)
_WIDTHS_NM = (0.05, 3_000.0)


def unit_factor(unit: str | None) -> float | None:
    """Nanometres a unit; None when the unit isn't said or isn't known. InputError for units that are no length."""
    text = (unit or "").strip().strip("[](){}").strip().lower()
    if _NO_LENGTH.fullmatch(text):
        raise InputError(f"wavelengths in {unit!r} can't be used; wanted nanometres or micrometres")
    return _FACTORS.get(text)


def to_nm(values: Sequence[float], unit: str | None) -> tuple[tuple[float, ...], float, str | None]:
    """Band centres in nm, the factor used, and a note when that isn't what the unit says.

    Values are believed before the unit: 0.46 "Nanometers" are micrometres. InputError when neither makes sense.
    """
    said = unit_factor(unit)
    if said is not None and _within(values, said, _CENTRES_NM):
        return _scaled(values, said), said, None
    guess = _guess(values)
    told = f"given as {unit.strip()}" if unit and unit.strip() else "given without a unit"
    span = f"{min(values):g} to {max(values):g}"
    if guess is None:
        raise InputError(f"wavelengths in unknown units: {span} {told}; wanted nanometres or micrometres")
    return _scaled(values, guess), guess, f"wavelengths {span}, {told}, are taken as {_name(guess)}"


def widths_to_nm(values: Sequence[float], factor: float) -> tuple[tuple[float, ...] | None, str | None]:
    """FWHM in nm given the factor of the wavelengths; (None, why) when the values can't be FWHM."""
    for trial in (factor, 1.0, 1e3):
        if min(values) > 0 and _within([median(values)], trial, _WIDTHS_NM):
            note = None if trial == factor else f"FWHM of about {median(values):g} are taken as {_name(trial)}"
            return _scaled(values, trial), note
    return None, f"FWHM of {min(values):g} to {max(values):g} make no sense and are not used"


def _name(factor: float) -> str:
    return "nanometres" if factor == 1 else "micrometres"


def _guess(values: Sequence[float]) -> float | None:
    """Factor that makes the values plausible; whole numbers under 20 are band numbers rather than micrometres."""
    if _within(values, 1.0, _CENTRES_NM):
        return 1.0
    if _within(values, 1e3, _CENTRES_NM) and not all(float(v).is_integer() for v in values):
        return 1e3
    return None


def _within(values: Sequence[float], factor: float, limits: tuple[float, float]) -> bool:
    return limits[0] <= min(values) * factor and max(values) * factor <= limits[1]


def _scaled(values: Sequence[float], factor: float) -> tuple[float, ...]:
    # Twelve digits: more than any file gives, and 0.41824 um is 418.24 nm again instead of 418.23999999999995.
    return tuple(float(f"{v * factor:.12g}") for v in values)

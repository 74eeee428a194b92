"""Which bands make a picture: true colour, false colour with near infrared, and with short-wave infrared."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from hsfuse.assessment.inputs import Inputs

#: Wavelengths of red, green and blue on the screen, in nm.
KINDS = {
    "true colour": (665.0, 560.0, 490.0),
    "near infrared": (842.0, 665.0, 560.0),
    "short-wave": (1610.0, 842.0, 665.0),
}
#: How far a band may be from the wanted wavelength.
NEAR_NM = 45.0


def composites(inputs: Inputs) -> dict[str, dict[str, tuple[int, ...]]]:
    """Band positions per image and kind of picture; images show only the kinds that the fused cube has too.

    An MSI without any, such as a panchromatic one, is grey beside each.
    """
    centres = {"fused": inputs.wavelengths_nm}
    if inputs.observed is not None:
        centres["LRHSI"] = inputs.wavelengths_nm
        centres["MSI"] = inputs.observed.model.srf.numpy() @ inputs.wavelengths_nm
    if inputs.reference is not None:
        centres["reference"] = inputs.wavelengths_nm
    found = {image: pick(nm) for image, nm in centres.items()}
    if not found["fused"]:
        spread = colours(np.array(()), len(inputs.wavelengths_nm))
        found = {image: spread if image != "MSI" else {} for image in found}
    shared = {image: {k: v for k, v in kinds.items() if k in found["fused"]} for image, kinds in found.items()}
    if "MSI" in shared and not shared["MSI"] and len(centres["MSI"]):
        shared["MSI"] = dict.fromkeys(found["fused"], (0, 0, 0))
    return shared


def colours(wavelengths_nm: np.ndarray, count: int) -> dict[str, tuple[int, ...]]:
    """Bands for each kind of picture of a cube of `count` bands; from its whole range where no kind has its bands."""
    spread = tuple(int(count * share) for share in (5 / 6, 1 / 2, 1 / 6))
    return pick(wavelengths_nm) or {"bands from the whole range": spread}


def pick(wavelengths_nm: np.ndarray) -> dict[str, tuple[int, ...]]:
    """Nearest bands for each kind of picture that these wavelengths (C,) allow."""
    out: dict[str, tuple[int, ...]] = {}
    for kind, wanted in KINDS.items() if wavelengths_nm.size else ():
        gaps = np.abs(wavelengths_nm[None] - np.array(wanted)[:, None])
        if (gaps.min(axis=1) <= NEAR_NM).all():
            out[kind] = tuple(int(i) for i in gaps.argmin(axis=1))
    return out

"""What MTD_MSIL1C.xml and MTD_MSIL2A.xml of a Sentinel-2 product say about its numbers and bands."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from xml.etree.ElementTree import Element

import numpy as np

from hsfuse.errors import InputError
from hsfuse.io.products.xml import elements, number, parse_xml, text

#: Bands by GSD in m, and all of them in the order of their ids.
TEN = ("B2", "B3", "B4", "B8")
TWENTY = ("B5", "B6", "B7", "B8A", "B11", "B12")
_IDS = ("B1", "B2", "B3", "B4", "B5", "B6", "B7", "B8", "B8A", "B9", "B10", "B11", "B12")
#: Processing baseline from which every product has offsets.
_OFFSETS_FROM = 4.0


@dataclass(frozen=True)
class Metadata:
    """Level (1C or 2A), value = (DN + offset) / quantification, and bands by name."""

    path: Path
    level: str
    spacecraft: str
    baseline: str
    acquired: str | None
    quantification: float
    offsets: Mapping[str, float]
    wavelengths_nm: Mapping[str, float]
    fwhm_nm: Mapping[str, float]


def read_metadata(raw: bytes, path: Path) -> Metadata:
    """The product's metadata from its bytes; InputError when they are broken or don't say how to read the numbers."""
    root = parse_xml(raw, path)
    level = "2A" if "2A" in path.name.upper() else "1C"
    value = text(root, "BOA_QUANTIFICATION_VALUE", "L2A_BOA_QUANTIFICATION_VALUE", "QUANTIFICATION_VALUE")
    quantification = number(value, "a quantification value", path)
    if quantification <= 0:
        raise InputError(f"{path} says a quantification value of {quantification:g}; wanted more than 0")
    ids = {e.get("bandId", ""): e.get("physicalBand", "") for e in elements(root, "Spectral_Information")}
    ids = {str(i): name for i, name in enumerate(_IDS)} | ids
    baseline = text(root, "PROCESSING_BASELINE") or "unknown"
    wavelengths, fwhm = _bands(root, path)
    return Metadata(
        path,
        level,
        text(root, "SPACECRAFT_NAME") or "Sentinel-2",
        baseline,
        text(root, "DATATAKE_SENSING_START", "PRODUCT_START_TIME"),
        quantification,
        _offsets(root, path, ids, baseline),
        wavelengths,
        fwhm,
    )


def _offsets(root: Element, path: Path, ids: Mapping[str, str], baseline: str) -> dict[str, float]:
    """Offset in DN by band. InputError when a baseline that has offsets lacks them: 0.1 of reflectance is at stake."""
    found = [e for name in ("BOA_ADD_OFFSET", "RADIO_ADD_OFFSET") for e in elements(root, name)]
    offsets = {ids.get(e.get("band_id", ""), ""): number(e.text, "a band's offset", path) for e in found}
    try:
        has_offsets = float(baseline) >= _OFFSETS_FROM
    except ValueError:
        has_offsets = False
    if has_offsets and not set(TEN) <= set(offsets):
        raise InputError(
            f"{path} is of processing baseline {baseline} but lacks the offsets (BOA_ADD_OFFSET or RADIO_ADD_OFFSET) "
            "that its bands have from 04.00 on; is the file complete?"
        )
    return offsets


def _bands(root: Element, path: Path) -> tuple[dict[str, float], dict[str, float]]:
    """Centre and FWHM in nm by band, as far as they are told."""
    centres: dict[str, float] = {}
    widths: dict[str, float] = {}
    for band in elements(root, "Spectral_Information"):
        name = band.get("physicalBand", "")
        if centre := text(band, "CENTRAL"):
            centres[name] = number(centre, f"the wavelength of {name}", path)
        width = _half_width(band, path)
        if width is not None:
            widths[name] = width
    return centres, widths


def _half_width(band: Element, path: Path) -> float | None:
    """Full width at half maximum in nm of the band's response, sampled at STEP."""
    response = next(elements(band, "Spectral_Response"), None)
    values = None if response is None else text(response, "VALUES")
    if response is None or not values:
        return None
    curve = np.array([number(v, "a spectral response", path) for v in values.split()])
    step = number(text(response, "STEP"), "the step of a spectral response", path)
    above = np.flatnonzero(curve >= curve.max() / 2)
    padded = np.concatenate([[0.0], curve, [0.0]])
    first, last = above[0] + 1, above[-1] + 1
    half = curve.max() / 2
    rise = (padded[first] - half) / max(padded[first] - padded[first - 1], 1e-12)
    fall = (padded[last] - half) / max(padded[last] - padded[last + 1], 1e-12)
    return float(step * (last - first + rise + fall))

"""What the report's template and script need: pictures as data addresses, curves and spectra as values."""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from hsfuse.assessment import Assessment
from hsfuse.assessment.report.pictures import Floats, colour_stops, data_uri, map_uri, power_of, stretch_limits, to_rgb
from hsfuse.assessment.result import Curve, MapLayer, Picture, SampledSpectra
from hsfuse.physics.optics import ABSORPTION_NM

#: Colour-blind safe, rising evenly in lightness; error, angle and consistency are told apart by their maps.
COLOUR_MAPS = {
    "rmse": "magma",
    "expected_error": "magma",
    "sam": "viridis",
    "hsi_rmse": "cividis",
    "hsi_sam": "cividis",
    "msi_rmse": "cividis",
}
#: Ends of a map's colour bar, as percentiles of the map: single bad pixels shall not darken the rest. Most bars begin
#: at 0; the misfits to the LRHSI lie far from it everywhere, and would have no contrast.
LOW_PERCENTILE, TOP_PERCENTILE = 1.0, 99.0
STRETCHED = ("hsi_rmse", "hsi_sam")
#: Curves worth a chart, in this order, with their titles.
CHARTED = {
    "psnr": "PSNR",
    "rmse": "RMSE",
    "relative_rmse": "Relative RMSE",
    "uiqi": "UIQI",
    "ssim": "SSIM",
    "cc": "Correlation with the reference",
    "hsi_relative_rmse": "Relative misfit to the LRHSI",
    "hsi_cc": "Correlation with the LRHSI",
}
#: Two MTFs that differ by less are drawn as one; a width's uncertainty is drawn where it is a larger share of it.
SAME_MTF, SEEN_SD = 0.01, 0.02
#: Those of them that are shown at reduced resolution.
CHARTED_REDUCED = ("psnr", "relative_rmse", "ssim", "cc")


def pictures(assessment: Assessment) -> dict[str, dict[str, dict[str, Any]]]:
    """Per kind and image: data address, caption, bands and stretch; images of one kind share their stretch."""
    out: dict[str, dict[str, dict[str, Any]]] = {}
    kinds = dict.fromkeys(p.kind for p in assessment.pictures)
    for kind in kinds:
        same = [p for p in assessment.pictures if p.kind == kind]
        limits = {p.image: _limits(p, same) for p in same}
        shown = [p for p in same if p.image == "fused"] or same[:1]
        power = power_of([p.values for p in shown], limits[shown[0].image])
        out[kind] = {p.image: picture_record(p, limits[p.image], power) for p in same}
    return out


def _limits(picture: Picture, same: Sequence[Picture]) -> tuple[Floats, Floats]:
    """The fused cube's levels, so that what looks different is different; the MSI's gain is its own."""
    if picture.image == "MSI":
        return stretch_limits([picture.values])
    return stretch_limits([p.values for p in same if p.image == "fused"] or [picture.values])


def picture_record(picture: Picture, limits: tuple[Floats, Floats], power: float = 1.0) -> dict[str, Any]:
    """What the script needs of a picture stretched between two levels a band, and brightened by a power below 1."""
    raised = f"; dark, and so brightened by a power of {power:g}" if power < 1 else ""
    return {
        "src": data_uri(to_rgb(picture.values, limits, power)),
        "caption": "red " + ", green ".join(picture.labels[:2]) + f", blue {picture.labels[2]}{raised}",
        "power": power,
        "labels": picture.labels,
        "low": numbers(limits[0]),
        "high": numbers(limits[1]),
    }


def map_limits(assessments: Sequence[Assessment]) -> dict[str, tuple[float, float]]:
    """Both ends of each map's colour bar, the same for all files, so that their maps can be compared."""
    ends: dict[str, tuple[float, float]] = {}
    for layer in (m for a in assessments for m in a.maps):
        known = layer.values[np.isfinite(layer.values)]
        low, high = np.percentile(known, (LOW_PERCENTILE, TOP_PERCENTILE)) if known.size else (0.0, 0.0)
        before = ends.get(layer.name, (math.inf, 0.0))
        low = float(low) if layer.name in STRETCHED else 0.0
        ends[layer.name] = min(before[0], low), max(before[1], float(high))
    if {"rmse", "expected_error"} <= ends.keys():  # what is expected is to be compared with what is found
        ends["rmse"] = ends["expected_error"] = (0.0, max(ends["rmse"][1], ends["expected_error"][1]))
    return ends


def map_figure(layer: MapLayer, ends: tuple[float, float], data_unit: str = "") -> dict[str, Any]:
    """A map as picture, from one end of its colour bar to the other; `ticks` are its ends and middle as text."""
    name = COLOUR_MAPS.get(layer.name, "viridis")
    known = layer.values[np.isfinite(layer.values)]
    mean = float(known.mean()) if known.size else math.nan
    height, width = layer.values.shape
    unit = data_unit if layer.unit == "data unit" else layer.unit
    low, top = ends if ends[1] > ends[0] else (ends[0], ends[0] + 1)
    alt = f"Map: {layer.title}; mean {mean:.3g} {unit}, 99 percent of the pixels below {top:.3g}"
    return {
        "title": layer.title, "unit": unit, "image": map_uri(layer.values, (low, top), name), "width": width,
        "height": height, "ticks": _ticks(low, top, known), "colours": ", ".join(colour_stops(name)), "alt": alt,
        "palette": name, "ends": (low, top),
    }  # fmt: skip


def _ticks(low: float, top: float, known: Floats) -> tuple[str, str, str]:
    """Figures under a colour bar, with signs where the map goes on beyond it."""
    below, above = (bool(known.size and beyond) for beyond in ((known < low).any(), (known > top).any()))
    return f"{'≤ ' if below else ''}{low:.3g}", f"{(low + top) / 2:.3g}", f"{'≥ ' if above else ''}{top:.3g}"


def chart_data(assessment: Assessment) -> dict[str, Any]:
    """All that the report's script draws, as JSON values."""
    curves = {c.name: c for c in assessment.curves}
    return {
        "axis": "wavelength, nm" if assessment.has_wavelengths else "band",
        "unit": assessment.unit.words,
        "absorption": ABSORPTION_NM if assessment.has_wavelengths else (),
        "curves": [_curve(curves[name], assessment.unit.words) for name in CHARTED if name in curves],
        "reduced": [] if assessment.reduced is None else _reduced_curves(assessment.reduced),
        "spectra": None if assessment.spectra is None else spectra_data(assessment.spectra, assessment.shape[1:]),
        "angles": None if assessment.angles is None else [numbers(assessment.angles[0]), assessment.angles[1].tolist()],
        "response": _response(assessment),
        "mtf": mtf_curves(assessment),
        "training": training(assessment.provenance),
    }


def _reduced_curves(assessment: Assessment) -> list[dict[str, Any]]:
    curves = {c.name: c for c in assessment.curves}
    return [_curve(curves[name], assessment.unit.words) for name in CHARTED_REDUCED if name in curves]


def _curve(curve: Curve, data_unit: str) -> dict[str, Any]:
    return {
        "title": CHARTED[curve.name],
        "unit": data_unit if curve.unit == "data unit" else curve.unit,
        "zero": "rmse" in curve.name,
        "x": numbers(curve.wavelengths_nm),
        "y": numbers(curve.values),
    }


def spectra_data(spectra: SampledSpectra, shape: tuple[int, int]) -> dict[str, Any]:
    """Points and spectra; values as 16 bit integers times one step an image, base64; the lowest integer is NaN."""
    images = {}
    for image, values in spectra.values.items():
        largest = float(np.nanmax(np.abs(values), initial=0)) or 1.0
        step = largest / 32767
        whole = np.where(np.isfinite(values), np.round(np.nan_to_num(values) / step), -32768).astype("<i2")
        images[image] = {
            "x": numbers(spectra.wavelengths_nm[image]),
            "step": step,
            "data": base64.b64encode(whole.tobytes()).decode(),
        }
    return {
        "rows": spectra.rows.tolist(),
        "cols": spectra.cols.tolist(),
        "height": shape[0],
        "width": shape[1],
        "chosen": list(spectra.chosen),
        "images": images,
    }


def _response(assessment: Assessment) -> list[dict[str, Any]]:
    response = assessment.response
    if response is None:
        return []
    nm = numbers(response.wavelengths_nm)
    return [
        {"name": band, "x": nm, "y": numbers(row / (row.max() or 1))}
        for band, row in zip(response.bands, response.weights, strict=True)
    ]


def training(provenance: Mapping[str, Any]) -> dict[str, Any] | None:
    """Loss curves of the adaptation when the provenance carries them, else None."""
    record = provenance.get("adaptation")
    if not isinstance(record, Mapping):
        return None
    curves = {name: _series(record.get(name)) for name in ("train_loss", "held_out")}
    steps = _series(record.get("steps")) or list(range(max(len(c) for c in curves.values())))
    if not any(curves.values()):
        return None
    named = {"training loss": curves["train_loss"], "error on held-out blocks": curves["held_out"]}
    base, kept = record.get("base_held_out"), record.get("kept_step")
    if base is None and "gain" in record:
        base = 1.0  # hsfuse's own record: errors relative to the base
    return {
        "base": float(base) if isinstance(base, int | float) else None,
        "kept": float(kept) if isinstance(kept, int | float) else None,
        "curves": [{"name": n, "x": steps[-len(c) :], "y": c} for n, c in named.items() if c],
    }


def _series(value: Any) -> list[float | None]:
    if not isinstance(value, Sequence) or isinstance(value, str):
        return []
    return [float(v) if isinstance(v, int | float) and math.isfinite(v) else None for v in value]


def numbers(values: Floats) -> list[float | None]:
    """Values with six significant digits; what is not finite becomes None."""
    return [float(f"{v:.6g}") if math.isfinite(v) else None for v in np.asarray(values, np.float64)]


#: Frequencies, in cycles per LRHSI pixel, at which an MTF is drawn.
CYCLES = np.linspace(0, 1, 41)


def mtf_curves(assessment: Assessment) -> list[dict[str, Any]]:
    """MTF of the PSF along columns and rows, with its uncertainty where it was estimated; [] without a PSF."""
    psf, ratio, figures = assessment.psf, assessment.ratio, assessment.sensors.get("psf", {})
    if psf is None or ratio is None:
        return []
    taps = np.arange(psf.size) - (psf.size - 1) / 2
    waves = np.exp(-2j * np.pi * np.outer(CYCLES, taps) / ratio)
    down, right = (np.abs(waves @ psf.kernel.sum(axis)) for axis in (1, 0))
    same = bool(np.abs(down - right).max() < SAME_MTF)
    curves = [{"name": "MTF" if same else "along columns", "y": numbers(down)}]
    curves += [] if same else [{"name": "along rows", "y": numbers(right), "dash": "7 4"}]
    sigma, sd = (figures.get(key) for key in ("sigma", "sigma_sd"))
    if figures.get("how") == "estimated" and sigma and sd and sd[0] > SEEN_SD * sigma[0] > 0:
        for sign, name in ((1, "one standard deviation wider"), (-1, "narrower")):
            width = max(0.0, 1 + sign * sd[0] / sigma[0]) ** 2  # the logarithm grows with the square of a width
            curves.append({"name": name, "y": numbers(np.maximum(down, 1e-9) ** width), "dash": "2 3"})
    return [curve | {"x": numbers(CYCLES)} for curve in curves]

"""What was collected on the way, as the parts of an assessment: curves, maps, pictures, spectra, response."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hsfuse.assessment.inputs import Inputs
from hsfuse.assessment.passes import Collectors, choose_points
from hsfuse.assessment.result import Curve, Expected, Floats, MapLayer, Picture, ResponseCurves, SampledSpectra
from hsfuse.metrics import CATALOGUE, MetricResult

_MAP_TITLES = {
    "rmse": ("Error against the reference (RMSE over bands)", "data unit"),
    "expected_error": ("Error expected by the quality raster (RMS over bands)", "data unit"),
    "sam": ("Spectral angle to the reference", "degrees"),
    "hsi_rmse": ("Misfit to the LRHSI (RMSE over bands)", "data unit"),
    "hsi_sam": ("Misfit to the LRHSI (spectral angle)", "degrees"),
    "msi_rmse": ("Misfit to the MSI (RMSE over bands)", "data unit"),
}


def wavelengths_of(inputs: Inputs, image: str) -> Floats:
    """Wavelengths in nm (C,) of an image's bands; the MSI's are means weighted by the response."""
    if image == "MSI" and inputs.observed:
        return np.asarray(inputs.observed.model.srf.numpy() @ inputs.wavelengths_nm)
    return inputs.wavelengths_nm


def curves_of(inputs: Inputs, result: MetricResult) -> list[Curve]:
    """The per-band curves of a result, those over MSI bands with their names."""
    out = []
    for key, values in result.per_band.items():
        of_msi = inputs.observed is not None and (key.startswith("msi_") or key == "d_s")
        names = inputs.observed.msi_names if of_msi and inputs.observed else None
        info = CATALOGUE[key]
        unit, nm = "" if info.unit == "1" else info.unit, wavelengths_of(inputs, "MSI" if of_msi else "fused")
        out.append(Curve(key, key, info.title, unit, nm, np.asarray(values), names))
    return out


def maps_of(into: Collectors) -> tuple[MapLayer, ...]:
    """All maps."""
    return tuple(MapLayer(name, *_MAP_TITLES[name], m.mean()[0], m.step) for name, m in into.maps.items())


def pictures_of(inputs: Inputs, into: Collectors, kinds: dict[str, dict[str, tuple[int, ...]]]) -> tuple[Picture, ...]:
    """Each image in each kind of colours that it has bands for."""
    out = []
    for image, choices in kinds.items():
        means, order, nm = into.views[image].mean(), into.display[image], wavelengths_of(inputs, image)
        for kind, bands in choices.items():
            labels = [f"{nm[b]:.0f} nm" if inputs.has_wavelengths else f"band {nm[b]:.0f}" for b in bands]
            rows = [order.index(b) for b in bands]
            out.append(Picture(image, kind, means[rows], (labels[0], labels[1], labels[2])))
    return tuple(out)


def spectra_of(inputs: Inputs, into: Collectors, points: tuple[NDArray[np.int64], NDArray[np.int64]]) -> SampledSpectra:
    """Spectra at HR `points`, rows and columns (n,), and which of them stand for the scene."""
    values = {image: sampler.values for image, sampler in into.points.items()}
    nm = {image: wavelengths_of(inputs, image) for image in values}
    return SampledSpectra(*points, nm, values, choose_points(values.get("reference", values["fused"])))


def response_of(inputs: Inputs) -> ResponseCurves | None:
    """Weights of the MSI bands over the fused cube's; None without an MSI, or where it sees none of these bands."""
    observed = inputs.observed
    if observed is None or not observed.msi_names:
        return None
    weights, name = observed.model.srf.numpy(), observed.pair.response.name
    return ResponseCurves(observed.msi_names, inputs.wavelengths_nm, weights, observed.coverage, name)


def expected_of(into: Collectors) -> Expected | None:
    """Expected and found error, from the maps: of large scenes block means, as ranks of all pixels take memory."""
    if "expected_error" not in into.maps:
        return None
    told = into.maps["expected_error"].mean()[0]
    real = into.maps["rmse"].mean()[0] if "rmse" in into.maps else np.zeros_like(told)
    known = np.isfinite(told) & np.isfinite(real)
    if not known.any():
        return None
    told, real = told[known], real[known]
    if "rmse" not in into.maps:
        return Expected(float(told.mean()))
    from scipy.stats import spearmanr  # slow to import, and only quality rasters need it

    rank = float(spearmanr(told, real).statistic) if np.ptp(told) > 0 and np.ptp(real) > 0 else None
    return Expected(float(told.mean()), float(real.mean()), rank)

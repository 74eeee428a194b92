"""`assess`: open, check, measure, and put everything into one `Assessment`."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hsfuse.assessment.checks import TOPICS, checks
from hsfuse.assessment.composites import composites
from hsfuse.assessment.findings import lrhsi_misfit, msi_gains, other_response, shift_words, strange_reference, warn
from hsfuse.assessment.inputs import Inputs, Source, open_inputs
from hsfuse.assessment.passes import (
    Collectors,
    choose_points,
    high_pass,
    largest_value,
    low_pass,
    point_grid,
    points_for,
)
from hsfuse.assessment.result import (
    Assessment,
    BandGain,
    Curve,
    Expected,
    Floats,
    ImageFacts,
    MapLayer,
    Picture,
    Registration,
    ResponseCurves,
    SampledSpectra,
    uses_msi,
)  # fmt: skip
from hsfuse.assessment.settings import AssessSettings, check_compared, of_images, recorded
from hsfuse.calibration import register
from hsfuse.core.errors import HsfuseError, InputError
from hsfuse.core.notes import Note, note, read_records, step, warning, without_msi
from hsfuse.io import Images, open_cube, read_provenance
from hsfuse.metrics import CATALOGUE, MetricResult, NoReferenceMetrics, ReferenceMetrics
from hsfuse.pair.quantity import MOST_REFLECTANCE
from hsfuse.pair.sensors import sensing
from hsfuse.pair.warp import own_reader
from hsfuse.physics import covered_bands, load_srf

#: Width in degrees of the bins in which spectral angles are counted.
ANGLE_BIN = 0.25


def assess(
    fused: Images,
    *,
    reference: Images | None = None,
    hsi: Images | None = None,
    msi: Images | None = None,
    qa: Images | None = None,
    **settings: Any,
) -> Assessment:
    """Quality of a fused cube: against a `reference`, against the `hsi` and `msi` it was made from, or both.

    Each is a file or product or an `xarray.DataArray`, as for `open_pair`. `qa` is the quality raster of its fusion,
    whose expected error is shown and, with a reference, tested. `settings` are those of `AssessSettings` (peak, window,
    ratio, tile; srf, msi_bands, psf_sigma, register, ...); what is not given is taken from what the fused file records.
    Works tile by tile in bounded memory; pixels masked in any image take no part. Raises GridError and
    InputError when files don't fit the fused cube, SettingError when there is nothing to compare with.

    >>> from hsfuse import assess
    >>> found = assess(reference, reference=reference, ratio=4, window=16)  # against itself
    >>> found.metrics["rmse"], round(found.metrics["ssim"], 6)
    (0.0, 1.0)
    """
    check_compared(reference, hsi, msi)
    started = time.perf_counter()
    with ExitStack() as stack:
        reader = stack.enter_context(open_cube(fused, role="raster"))
        provenance = read_provenance(reader.tags)
        chosen = AssessSettings.of(settings)
        told, others = of_images(provenance, reader.path, hsi, msi)
        options, taken = chosen.options(told)
        notes: list[Note] = [*others, *taken, *reader.notes]
        psf = chosen.recorded_psf(told)
        motion = chosen.recorded_motion(told)
        with step("opening to assess"):
            known = psf, motion, chosen.recorded_response(told), recorded(provenance, "quantity")
            inputs = open_inputs(stack, reader, reference, hsi, msi, qa, options, notes, *known)
        named = {"fused": fused, "reference": reference, "HSI": hsi, "MSI": msi, "quality raster": qa}
        work = _Work(inputs, chosen, provenance, told, notes)
        with step("assessing"):
            return work.run({key: _words(value) for key, value in named.items() if value is not None}, started)


def _words(image: Images) -> str:
    if isinstance(image, str | Path):
        return str(image)
    return ", ".join(map(str, image)) if isinstance(image, Sequence) else str(getattr(image, "name", None) or "array")


class _Work:
    """One assessment under way; `of_images` is what of the provenance is about the images that are given."""

    def __init__(
        self,
        inputs: Inputs,
        settings: AssessSettings,
        provenance: dict[str, Any],
        of_images: Mapping[str, Any],
        notes: list[Note],
    ) -> None:
        self.inputs, self.settings, self.notes = inputs, settings, notes
        self.provenance, self.of_images = provenance, of_images
        self.shape = (len(inputs.fused.bands), *inputs.shape)
        self.told: dict[str, str] = {}
        self.ratio = self._scale()
        self.points = point_grid(inputs.shape, self.ratio or 1, points_for(self._values_a_point()))
        self.kinds = composites(inputs)
        display = {
            image: tuple(dict.fromkeys(b for k in kinds.values() for b in k)) for image, kinds in self.kinds.items()
        }
        self.into = Collectors(inputs, self.points, display)

    def _scale(self) -> int | None:
        if self.inputs.observed:
            return self.inputs.observed.ratio
        value = self.settings.ratio or recorded(self.provenance, "scale")
        return int(value) if value else None

    def _values_a_point(self) -> int:
        """Values of all images at one point."""
        observed, cubes = self.inputs.observed, 1 + (self.inputs.reference is not None)
        more = 0 if observed is None else self.shape[0] + len(observed.msi_names)
        return cubes * self.shape[0] + more

    def run(self, files: dict[str, str], started: float) -> Assessment:
        """Both passes, then everything in one place, with a verdict."""
        truth, without = self._reference_metrics(), self._no_reference_metrics()
        valid = high_pass(self.inputs, truth, without, self.into, self.settings.tile)
        if not valid:
            raise InputError(f"{files['fused']} has no valid pixel: all of it is nodata, NaN or masked")
        if without is not None:
            low_pass(self.inputs, without, self.into, self.settings.tile)
        found = self._assessment(files, valid, truth, without)
        return replace(found, checks=checks(found), seconds=time.perf_counter() - started)

    def _assessment(
        self, files: dict[str, str], valid: int, truth: ReferenceMetrics | None, without: NoReferenceMetrics | None
    ) -> Assessment:
        """What the passes over `valid` pixels have found."""
        results = self._results(truth, without)
        for result in results:
            self.notes += result.notes
        registration, observed = self._registration(), self.inputs.observed
        shift = self._shift(registration)
        warnings = (
            *self._reference_warnings(),
            *warn(self.inputs, valid, without, results[-1] if without is not None else None, shift),
            *other_response(self.of_images, self.inputs.observed),
        )
        if not uses_msi(self.provenance):
            warnings = tuple(without_msi(warnings))
        return Assessment(
            fused=files["fused"],
            shape=self.shape,
            has_wavelengths=self.inputs.has_wavelengths,
            metrics={key: value for result in results for key, value in result.values.items()},
            inputs=files | (self.inputs.observed.pair.summary() if self.inputs.observed else {}),
            settings=self.told,
            curves=tuple(curve for result in results for curve in _curves_of(self.inputs, result)),
            maps=_maps_of(self.into),
            pictures=_pictures_of(self.inputs, self.into, self.kinds),
            spectra=_spectra_of(self.inputs, self.into, self.points),
            angles=None if truth is None else truth.pixel.angles.histogram(ANGLE_BIN),
            indices=tuple(check for sums in self.into.indices.values() for check in sums.result()),
            ratio=self.ratio,
            shift_px=shift,
            registration=registration,
            lrhsi_misfit=None if without is None else lrhsi_misfit(results[-1], self.inputs.observed),
            radiometry=self._radiometry(),
            msi_gains=self._gains(without),
            expected=_expected_of(self.into),
            response=_response_of(self.inputs) or _recorded_response(self.inputs, self.provenance),
            sensors=self._sensors(),
            psf=None if self.inputs.observed is None else self.inputs.observed.model.psf,
            provenance=self.provenance,
            unit=self.inputs.unit,
            images=self._images(),
            notes=tuple(dict.fromkeys((*self.notes, *warnings))),
            pair_warnings=self._pair_warnings(),
            valid_pixels=valid,
            masked=observed.pair.masked() if observed and valid < self.shape[1] * self.shape[2] else {},
        )

    def _reference_metrics(self) -> ReferenceMetrics | None:
        if self.inputs.reference is None:
            return None
        peak, why = self._peak(self.inputs.reference)
        self.told["peak"] = f"{peak:g} ({why}), for PSNR and SSIM"
        if self.ratio is None:
            self.notes.append(note("ergas-no-ratio"))
        metrics = ReferenceMetrics(self.shape, self.ratio or 1, peak, self.settings.window)
        self.told["windows"] = f"{metrics.window} x {metrics.window} pixels for UIQI and Q2n"
        return metrics

    def _no_reference_metrics(self) -> NoReferenceMetrics | None:
        observed = self.inputs.observed
        if observed is None:
            return None
        self.told["observation"] = observed.model.describe()
        low = (self.shape[0], self.shape[1] // observed.ratio, self.shape[2] // observed.ratio)
        return NoReferenceMetrics(self.shape, low, len(observed.msi_names), self.settings.window)

    def _reference_warnings(self) -> list[Note]:
        """What speaks against the reference itself."""
        if self.inputs.reference is None:
            return []
        fused, reference = (self.into.views[image] for image in ("fused", "reference"))
        return strange_reference(fused.mean(), reference.mean(), fused.step)

    def _peak(self, reference: Source) -> tuple[float, str]:
        """The highest possible value, of the quantity and not of its encoding, and where it is from."""
        given, quantity, factor = self.settings.peak, self.inputs.unit.quantity, self.inputs.factor
        if given is None and quantity == "reflectance":
            return 1.0, "reflectance"
        if given is None:
            return largest_value(reference, self.inputs.shape, self.settings.tile), "the reference's maximum"
        if factor == 1 or quantity != "reflectance" or given <= MOST_REFLECTANCE:
            return given, "as given"
        self.notes.append(note("peak-rescaled", given=given, peak=given * factor, quantity=quantity))
        return given * factor, "as given, in reflectance"

    def _images(self) -> dict[str, ImageFacts]:
        """What is known of each file."""
        found = {"fused": ImageFacts.of(self.inputs.fused.reader)}
        if self.inputs.reference is not None:
            found["reference"] = ImageFacts.of(self.inputs.reference.reader)
        if self.inputs.observed is not None:
            pair = self.inputs.observed.pair
            found |= {"LRHSI": ImageFacts.of(own_reader(pair.hsi)), "MSI": ImageFacts.of(pair.msi)}
        return found

    def _pair_warnings(self) -> tuple[Note, ...]:
        """What speaks against the pair itself: as found now, and as the fused file records it."""
        now = [] if self.inputs.observed is None else self.inputs.observed.pair.warnings
        noted = [one for one in read_records(self.of_images.get("records")) if one.severity == "warning"]
        texts = self.of_images.get("pair_warnings")
        if "records" not in self.of_images and isinstance(texts, list):  # a file of an earlier version
            noted = [warning("told", text=str(text)) for text in texts]
        known = {one.text for one in now} | {one.code for one in now if one.code in TOPICS}
        found = dict.fromkeys([*now, *(one for one in noted if not {one.text, one.code} & known)])
        return tuple(found if uses_msi(self.provenance) else without_msi(found))

    def _results(self, truth: ReferenceMetrics | None, without: NoReferenceMetrics | None) -> list[MetricResult]:
        results = [metrics.result() for metrics in (truth, without) if metrics is not None]
        if truth is not None and self.ratio is None:
            results[0].values["ergas"] = None
            del results[0].per_band["ergas"]
        return results

    def _registration(self) -> Registration | None:
        if self.inputs.observed is None:
            return None
        pair = self.inputs.observed.pair
        found = pair.shift or register(pair, pair.warped)
        if pair.residual is None or self.settings.recorded_motion(self.of_images) is None:
            return Registration(found, pair.residual)
        record = self.of_images["registration"]
        words, amounts = record.get("words"), record.get("amounts")
        return Registration(found, pair.residual, (str(words), str(amounts)) if words and amounts else None)

    def _shift(self, registration: Registration | None) -> tuple[float, float] | None:
        if registration is None or not registration.known or self.ratio is None:
            return None
        shift = (-registration.now.dy * self.ratio, -registration.now.dx * self.ratio)
        self.told["MSI against LRHSI"] = shift_words(shift)
        return shift

    def _sensors(self) -> dict[str, Any]:
        """As the fused file records it, else as found now, where the PSF may have been given."""
        recorded = self.of_images.get("sensors")
        if isinstance(recorded, dict):
            return recorded
        if self.inputs.observed is None:
            return {}
        given = self.settings.recorded_psf(self.of_images) is not None
        return sensing(self.inputs.observed.pair, given or self.settings.options(self.of_images)[0].psf_told)

    def _radiometry(self) -> tuple[BandGain, ...]:
        match = self.inputs.observed.pair.radiometry if self.inputs.observed else None
        if match is None or self.inputs.observed is None:
            return ()
        figures = zip(match.gain.tolist(), match.offset.tolist(), match.correlation.tolist(), strict=True)
        return tuple(BandGain(b, *f) for b, f in zip(self.inputs.observed.pair.msi_names, figures, strict=True))

    def _gains(self, without: NoReferenceMetrics | None) -> dict[str, float]:
        if without is None or self.inputs.observed is None:
            return {}
        return dict(zip(self.inputs.observed.msi_names, msi_gains(without).tolist(), strict=True))


_MAP_TITLES = {
    "rmse": ("Error against the reference (RMSE over bands)", "data unit"),
    "expected_error": ("Error expected by the quality raster (RMS over bands)", "data unit"),
    "sam": ("Spectral angle to the reference", "degrees"),
    "hsi_rmse": ("Misfit to the LRHSI (RMSE over bands)", "data unit"),
    "hsi_sam": ("Misfit to the LRHSI (spectral angle)", "degrees"),
    "msi_rmse": ("Misfit to the MSI (RMSE over bands)", "data unit"),
}


def _wavelengths_of(inputs: Inputs, image: str) -> Floats:
    """Wavelengths in nm (C,) of an image's bands; the MSI's are means weighted by the response."""
    if image == "MSI" and inputs.observed:
        return np.asarray(inputs.observed.model.srf.numpy() @ inputs.wavelengths_nm)
    return inputs.wavelengths_nm


def _curves_of(inputs: Inputs, result: MetricResult) -> list[Curve]:
    """The per-band curves of a result, those over MSI bands with their names."""
    out = []
    for key, values in result.per_band.items():
        of_msi = inputs.observed is not None and (key.startswith("msi_") or key == "d_s")
        names = inputs.observed.msi_names if of_msi and inputs.observed else None
        info = CATALOGUE[key]
        unit, nm = "" if info.unit == "1" else info.unit, _wavelengths_of(inputs, "MSI" if of_msi else "fused")
        out.append(Curve(key, key, info.title, unit, nm, np.asarray(values), names))
    return out


def _maps_of(into: Collectors) -> tuple[MapLayer, ...]:
    """All maps."""
    return tuple(MapLayer(name, *_MAP_TITLES[name], m.mean()[0], m.step) for name, m in into.maps.items())


def _pictures_of(inputs: Inputs, into: Collectors, kinds: dict[str, dict[str, tuple[int, ...]]]) -> tuple[Picture, ...]:
    """Each image in each kind of colours that it has bands for."""
    out = []
    for image, choices in kinds.items():
        means, order, nm = into.views[image].mean(), into.display[image], _wavelengths_of(inputs, image)
        for kind, bands in choices.items():
            labels = [f"{nm[b]:.0f} nm" if inputs.has_wavelengths else f"band {nm[b]:.0f}" for b in bands]
            rows = [order.index(b) for b in bands]
            out.append(Picture(image, kind, means[rows], (labels[0], labels[1], labels[2])))
    return tuple(out)


def _spectra_of(
    inputs: Inputs, into: Collectors, points: tuple[NDArray[np.int64], NDArray[np.int64]]
) -> SampledSpectra:
    """Spectra at HR `points`, rows and columns (n,), and which of them stand for the scene."""
    values = {image: sampler.values for image, sampler in into.points.items()}
    nm = {image: _wavelengths_of(inputs, image) for image in values}
    return SampledSpectra(*points, nm, values, choose_points(values.get("reference", values["fused"])))


def _response_of(inputs: Inputs) -> ResponseCurves | None:
    """Weights of the MSI bands over the fused cube's; None without an MSI, or where it sees none of these bands."""
    observed = inputs.observed
    if observed is None or not observed.msi_names:
        return None
    weights, response = observed.model.srf.numpy(), observed.pair.response
    told = observed.coverage, response.name, response.weights and response.path is None
    return ResponseCurves(observed.msi_names, inputs.wavelengths_nm, weights, *told)


def _recorded_response(inputs: Inputs, provenance: Mapping[str, Any]) -> ResponseCurves | None:
    """The same of the sensor and bands that the fused file records; None where the library has no such response."""
    record, spectrum = provenance.get("srf"), inputs.fused.reader.spectrum.select(inputs.fused.bands)
    if inputs.observed is not None or not isinstance(record, Mapping) or not inputs.has_wavelengths:
        return None
    try:
        response = load_srf(str(record.get("name")))
        if response.sha256 != record.get("sha256"):
            return None
        seen = covered_bands(response, record.get("bands") or (), inputs.wavelengths_nm.tolist(), spectrum.fwhm_nm)
    except HsfuseError:
        return None
    return ResponseCurves(seen.bands, inputs.wavelengths_nm, seen.matrix, seen.coverage, response.name)


def _expected_of(into: Collectors) -> Expected | None:
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

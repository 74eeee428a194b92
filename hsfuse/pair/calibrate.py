"""What an open pair tells about its own observation: response, PSF, shift and radiometry, and the pair with them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from math import hypot
from typing import Any

import numpy as np

from hsfuse.calibration import (
    BandComparison,
    EstimatedPsf,
    EstimatedResponse,
    RadiometricMatch,
    estimate_psf,
    match_radiometry,
)
from hsfuse.core.cube import Spectrum
from hsfuse.core.errors import SettingError
from hsfuse.pair.pair import ScenePair
from hsfuse.pair.sample import evened, sample_scene
from hsfuse.pair.sensors import psf_figures
from hsfuse.physics import BandMatch, SpectralResponse, covered_bands
from hsfuse.physics.model import ObservationModel
from hsfuse.physics.response import band_named
from hsfuse.physics.srf_bands import LEAVE_OUT

#: A shift is worth a warning beyond this share of an LR pixel and this many standard deviations.
NOTED_SHIFT_LR, NOTED_SHIFT_SD = 0.1, 3.0


@dataclass(frozen=True, eq=False)
class PairEstimate:
    """What was estimated of a pair (None: it was known), the radiometry between both, and what is worth saying."""

    bands: tuple[str, ...]
    ratio: int
    response: EstimatedResponse | None
    psf: EstimatedPsf | None
    radiometry: RadiometricMatch
    comparison: list[BandComparison]

    @property
    def warnings(self) -> list[str]:
        """Disagreements and doubts, in figures."""
        r = self.radiometry.correlation
        doubtful = [f"{self.bands[i]} ({r[i]:.2f})" for i in np.flatnonzero(self.radiometry.doubtful)]
        lines = [f"MSI bands that correlate little with the HSI (r): {', '.join(doubtful)}"] if doubtful else []
        lines += [f"estimate and library disagree, {band.describe()}" for band in self.comparison if band.disagrees]
        return lines + self._shift_warning()

    def describe(self) -> list[str]:
        """What was estimated of the response, in a line."""
        if self.response is None:
            return []
        facts = zip(self.bands, self.response.centre_nm, self.response.width_nm, strict=True)
        return ["response: " + ", ".join(f"{band} {nm:.0f} nm, {width:.0f} wide" for band, nm, width in facts)]

    def _shift_warning(self) -> list[str]:
        if self.psf is None:
            return []
        size, sd = hypot(*self.psf.shift), hypot(*self.psf.shift_sd)
        if size < NOTED_SHIFT_LR * self.ratio or size < NOTED_SHIFT_SD * sd:
            return []
        y, x = self.psf.shift
        return [
            f"the HSI shows the ground {y:+z.2f} (down) and {x:+z.2f} (right) MSI pixels off the MSI: the estimates "
            "allow for it, a fusion needs registration"
        ]

    def as_response(self) -> SpectralResponse | None:
        """The estimated response, for a CSV or a scene."""
        return None if self.response is None else self.response.as_response(self.bands)

    def to_dict(self) -> dict[str, Any]:
        """Figures for JSON."""
        return {
            "scale": self.ratio,
            "bands": [self._band(i) for i in range(len(self.bands))],
            "comparison": [asdict(band) | {"disagrees": band.disagrees} for band in self.comparison],
            "psf": None if self.psf is None else psf_figures(self.psf),
            "warnings": self.warnings,
        }

    def _band(self, i: int) -> dict[str, Any]:
        match = self.radiometry
        line = {"gain": match.gain[i], "gain_sd": match.gain_sd[i], "offset": match.offset[i]}
        facts = {"band": self.bands[i], **line, "correlation": match.correlation[i]}
        if self.response is None:
            return facts
        names = ("centre_nm", "centre_sd_nm", "width_nm", "residual")
        return facts | {name: getattr(self.response, name)[i] for name in names}


def estimate_scene(
    pair: ScenePair,
    srf: bool = True,
    psf: bool = True,
    kind: str = "auto",
    near: tuple[float, float] = (0.0, 0.0),
) -> PairEstimate:
    """Estimate the response, the PSF or both of an open pair from a bounded sample; the other is taken from its model.

    `kind` of the PSF and `near` as for `estimate_psf`; with "auto" the model's PSF is kept where nothing is better.
    InputError where the sample can't tell.
    """
    scene, model = evened(sample_scene(pair), pair.model), pair.model
    wavelengths, matrix = pair.spectrum.wavelengths_nm, model.srf.double().cpu().numpy()
    assert wavelengths is not None  # a reader in the role of an HSI has them
    images = scene.lrhsi, scene.msi, scene.mask
    given = model.psf if kind == "auto" else None
    response, told = None, None
    if srf:
        from hsfuse.calibration.joint import estimate_observation  # that of most sensors is known

        known = None if psf else model.psf
        found = estimate_observation(*images, wavelengths, model.ratio, model.phase, known, kind, given, near)
        response, told = found.response, found.psf
    elif psf:
        told = estimate_psf(*images, matrix, model.ratio, model.phase, kind, given, near)
    seen = ObservationModel(np.eye(1), told.shifted if told else model.psf, model.ratio, model.phase)
    match = match_radiometry(*images, seen, matrix if response is None else response.matrix)
    return PairEstimate(pair.msi_names, model.ratio, response, told, match, [])


def with_estimate(pair: ScenePair, found: PairEstimate) -> ScenePair:
    """The pair with what was estimated in its observation model."""
    response, spectrum = found.as_response() or pair.response, pair.spectrum
    matrix, coverage = pair.model.srf.double().cpu().numpy(), pair.coverage
    if found.response is not None:
        assert spectrum.wavelengths_nm is not None
        covered = covered_bands(response, found.bands, spectrum.wavelengths_nm, spectrum.fwhm_nm)
        matrix, coverage = covered.matrix, covered.coverage
    model = ObservationModel(matrix, pair.model.psf, pair.model.ratio, pair.model.phase, np.array(coverage))
    known = replace(pair, response=response, coverage=coverage, model=model, psf=None)
    return known if found.psf is None else with_psf(known, found.psf)


def with_psf(pair: ScenePair, found: EstimatedPsf) -> ScenePair:
    """The pair with an estimated PSF, about where the LR pixels are seen to lie if `off_centre`."""
    model = pair.model
    psf = found.shifted if pair.off_centre and not found.doubt else found.psf
    changed = ObservationModel(model.srf, psf, model.ratio, model.phase, model.msi_weights)
    return replace(pair, model=changed, psf=found)


def own_names(count: int) -> list[str]:
    """Names of bands by their numbers, which are no sensor's."""
    return [f"band {i}" for i in range(1, count + 1)]


def unknown_bands(
    hsi: Spectrum, msi: Spectrum, count: int, requested: Sequence[str] | None = None
) -> tuple[BandMatch, SpectralResponse]:
    """The MSI file's `count` bands under their own names, and a response that is flat over the HSI's range for each.

    Those without one are called "band 1" and so on, as no sensor's are. It stands in while the response is unknown.
    `requested` names each file band, '-' or '' leaves one out; or fewer, of those that the file names itself.
    SettingError when it has another length, leaves out all, or names one twice or that isn't there.
    """
    if requested is not None and len(requested) < count and msi.names and any(msi.names):
        found = [band_named(text or "", requested, {}) for text in msi.names]
        wanted = [name for name in requested if name.strip() not in ("", "-")]
        if missing := [name for name in wanted if {found.count(name), wanted.count(name)} != {1}]:
            raise SettingError(
                f"--msi-bands names {', '.join(missing)}, which the MSI doesn't have, or twice; it has "
                f"{', '.join(text for text in msi.names if text)}"
            )
        requested = [name or "-" for name in found]
    if requested is not None and len(requested) != count:
        raise SettingError(
            f"--msi-bands names {len(requested)} bands but the MSI file has {count}: name each, {LEAVE_OUT}"
        )
    texts = msi.names or (None,) * count if requested is None else [text.strip() or "-" for text in requested]
    names = [(text or "").replace(",", " ").strip() or own for text, own in zip(texts, own_names(count), strict=True)]
    if len(set(names)) < count and requested is None:
        names = own_names(count)
    used = [i for i, name in enumerate(names) if name != "-"]
    bands = tuple(names[i] for i in used)
    if not bands or len(set(bands)) < len(bands):
        raise SettingError(f"--msi-bands names {', '.join(bands) or 'no band'}: wanted at least one, each once")
    nm = hsi.wavelengths_nm or (0.0,)
    flat = SpectralResponse("unknown", bands, np.array([min(nm), max(nm) + 1.0]), np.ones((len(bands), 2)))
    return BandMatch(tuple(used), bands, "own names", ""), flat

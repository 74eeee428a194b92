"""What an open pair says of its sensors' model: whether it fits and, where it doesn't, which part of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from hsfuse.calibration import EstimatedPsf
from hsfuse.calibration.contradiction import (
    ANOTHER,
    FITS,
    LESS,
    WHOLE,
    BandCheck,
    CommonShift,
    check_response,
    common_shift,
    compare_sensors,
)
from hsfuse.calibration.misfit import PARTS, Misfit, misfit
from hsfuse.calibration.spectra import SharedPixels
from hsfuse.core.errors import InputError
from hsfuse.core.notes import Note, warning
from hsfuse.pair.identify import SAME_BAND_NM
from hsfuse.pair.sample import sample_scene
from hsfuse.physics import SpectralResponse, list_srfs, load_srf

if TYPE_CHECKING:
    from hsfuse.pair.pair import ScenePair

#: What to do about each part that doesn't fit.
ADVICE = {
    "PSF": "leave the PSF to the pair (--psf auto), or check what was told of it",
    "place": "the images don't lie on each other well enough: check their georeference",
    "response": "check --srf and --msi-bands",
    "radiometry": "the MSI isn't linear in the HSI's reflectance",
}


@dataclass(frozen=True, eq=False)
class SensorCheck:
    """What the two images leave of each other, and each band's response against the pair.

    `bands` is empty where the response was estimated or the scene is too small; `common` is a shift of all of them that
    clearly fits better than changes of single ones, None without any; `better` names another response of the
    library that clearly fits, and `guessed` one where the MSI's bands have no names and were taken in the response's
    order; `resampled`: whether the LRHSI was.
    """

    misfit: Misfit
    bands: tuple[BandCheck, ...]
    common: CommonShift | None
    response: str
    better: str
    resampled: bool
    guessed: str = ""

    @property
    def fits(self) -> bool:
        """Whether the misfit is no more than noise."""
        return not self.misfit.is_loud(self.resampled)

    @property
    def warnings(self) -> list[Note]:
        """What speaks against the model."""
        out = []
        swapped = [band for band in self.bands if band.other]
        if swapped:
            out.append(warning("bands-swapped", bands="; ".join(band.describe() for band in swapped)))
        wrong = [band.describe() for band in self.bands if band.contradicts and not band.other]
        if self.common is not None:
            wrong = [self.common.describe()]
        if self.guessed:
            wrong = ["its bands were taken in their order, for the MSI's have no names", *wrong]
        if wrong:
            told = "; ".join(wrong)
            advice = f"; --srf {fits} fits" if (fits := self.guessed or self.better) else ""
            out.append(warning("response-contradicted", response=self.response, bands=told, advice=advice))
        if not self.fits:
            m = self.misfit
            figures = {"times": round(m.times, 2), "share": round(m.share, 3)}
            explained = round(float(np.median(m.explained(m.part))), 2)
            if m.alike:
                out.append(warning("model-misfit", **figures, part=m.part, explained=explained, advice=ADVICE[m.part]))
            else:
                out.append(warning("images-differ", **figures, where=round(m.where, 2)))
        return out

    def to_dict(self) -> dict[str, Any]:
        """Figures for JSON."""
        m = self.misfit
        parts = {part: round(float(np.median(m.explained(part))), 3) for part in PARTS}
        figures = {"times_noise": round(m.times, 3), "share_of_contrast": round(m.share, 4)}
        return {
            "misfit": {
                **figures,
                "fits": self.fits,
                "part": m.part if m.alike else "",
                "explained": parts,
                "where": round(m.where, 3),
            },
            "response": [{**_rounded(band), "contradicts": band.contradicts} for band in self.bands],
            "common_shift": None if self.common is None else _rounded(self.common),
            "better": self.guessed or self.better,
        }


def psf_figures(psf: EstimatedPsf) -> dict[str, Any]:
    """An estimated PSF for JSON."""
    names = ("family", "sigma", "sigma_sd", "theta_deg", "theta_sd_deg", "shift", "shift_sd", "mtf", "mtf_sd", "doubt")
    return {name: getattr(psf, name) for name in names} | {"label": psf.psf.label}


def sensing(pair: ScenePair, told: bool) -> dict[str, Any]:
    """What the pair told of its sensors, for JSON; `told`: the PSF was given."""
    found = pair.psf
    how = "told" if told else "estimated" if found is not None and not found.doubt else "assumed"
    figures = {} if found is None else psf_figures(found) | {"text": found.describe()}
    return {
        "psf": {"label": pair.model.psf.label, "mtf": pair.model.psf.mtf(pair.ratio), **figures, "how": how},
        "check": None if pair.sensors is None else pair.sensors.to_dict(),
        "tone": None if pair.tone is None else pair.tone.to_dict(pair.msi_names),
    }


def _rounded(band: BandCheck | CommonShift) -> dict[str, Any]:
    kept = {name: value for name, value in asdict(band).items() if name != "others"}
    return {name: round(value, 2) if isinstance(value, float) else value for name, value in kept.items()}


def check_sensors(pair: ScenePair, pixels: SharedPixels, followed: Sequence[bool]) -> SensorCheck:
    """Of a pair as it stands; only bands that are `followed` by the LRHSI (c,) are held against their response."""
    found = misfit(pixels, pair.model.srf.double().cpu().numpy())
    bands, common = check_bands(pair, pixels, followed)
    contradicted = common is not None or any(band.contradicts and not band.other for band in bands)
    better = _better(pair, pixels) if contradicted else ""
    doubtful = not better and any(band.misfit > LESS and not band.other for band in bands)
    guessed = of_as_many(pair, pixels) if doubtful else ""
    return SensorCheck(found, tuple(bands), common, pair.response.name, better, pair.warped, guessed)


def check_bands(
    pair: ScenePair, pixels: SharedPixels, followed: Sequence[bool]
) -> tuple[list[BandCheck], CommonShift | None]:
    """Each followed band against its response, and a clear shift of all of them; none where it was estimated."""
    nm, fwhm = pair.spectrum.wavelengths_nm, pair.spectrum.fwhm_nm
    assert nm is not None  # a reader in the role of an HSI has them
    if pair.response.weights:
        return [], None
    bands = check_response(pixels, pair.response, pair.msi_names, nm, fwhm)
    kept = [k for k, good in enumerate(followed) if good and bands]
    bands = [bands[k] for k in kept]
    if max((band.misfit for band in bands), default=0.0) < LESS or any(band.other for band in bands):
        return bands, None
    common = common_shift(pixels, pair.response, bands, kept, nm, fwhm)
    return bands, common if common is not None and common.is_clear else None


def _better(pair: ScenePair, pixels: SharedPixels) -> str:
    """Another response of the library that has the same bands and clearly fits; "" where there is none."""
    nm, fwhm = pair.spectrum.wavelengths_nm, pair.spectrum.fwhm_nm
    own = pair.response.select(pair.msi_names)
    assert nm is not None
    known = [load_srf(one.name) for one in list_srfs() if set(pair.msi_names) <= set(one.bands)]
    known = [one for one in known if one.sha256 != pair.response.sha256 and _alike(own, one)]
    if not known:
        return ""
    chi, *others = compare_sensors(pixels, [pair.response, *known], pair.msi_names, nm, fwhm)
    least = int(np.argmin(others))
    clear = chi - others[least] > ANOTHER * LESS and others[least] < FITS * len(pair.msi_names)
    return known[least].name if clear else ""


def of_as_many(pair: ScenePair, pixels: SharedPixels) -> str:
    """Another sensor whose bands, in their order, clearly fit an MSI of as many without names; "" where there is none.

    Of bands that have names, or were taken in another order than the response's, nothing is asked.
    """
    nm, fwhm, count = pair.spectrum.wavelengths_nm, pair.spectrum.fwhm_nm, pair.msi.count
    taken = _in_order(pair.response, count)
    assert nm is not None
    if any(pair.msi.spectrum.names or ()) or tuple(taken[i] for i in pair.msi_bands if taken) != pair.msi_names:
        return ""
    own = pair.response.select(pair.msi_names)
    whole = own.matrix(nm, fwhm)[1] > WHOLE
    asked = np.flatnonzero(whole).tolist()
    known = []
    for one in (load_srf(record.name) for record in list_srfs()):
        bands = _in_order(one, count)
        if bands and one.sha256 != pair.response.sha256:
            renamed = replace(one.select([bands[i] for i in pair.msi_bands]), bands=pair.msi_names)
            known += [renamed] if (renamed.matrix(nm, fwhm)[1] > WHOLE)[whole].all() else []
    if not known or not asked:
        return ""
    chi, *others = compare_sensors(pixels, [own, *known], pair.msi_names, nm, fwhm, asked)
    least = int(np.argmin(others))
    clear = chi - others[least] > ANOTHER * LESS and others[least] < FITS * len(asked)
    return known[least].name if clear else ""


def _in_order(response: SpectralResponse, count: int) -> Sequence[str]:
    """The bands that so many without names are taken for; none where that isn't known."""
    return response.defaults.get(count) or (response.bands if count == len(response.bands) else ())


def fitting(pair: ScenePair, known: Sequence[SpectralResponse]) -> list[SpectralResponse]:
    """Those of several known responses that a pair of unknown response bears out about as well, in their order.

    Empty where none fits, and where one whose bands lie elsewhere fits about as well as the best.
    """
    nm, fwhm = pair.spectrum.wavelengths_nm, pair.spectrum.fwhm_nm
    assert nm is not None
    known = [one for one in known if (one.select(pair.msi_names).matrix(nm, fwhm)[1] > WHOLE).all()]
    try:
        scene = sample_scene(pair)
        pixels = SharedPixels(scene.lrhsi, scene.msi, scene.mask, pair.model)
    except InputError:
        return []
    found = compare_sensors(pixels, known, pair.msi_names, nm, fwhm)
    most = min(FITS * len(pair.msi_names), min(found, default=0.0) + ANOTHER * LESS)
    fits = [one for one, misfit_of in zip(known, found, strict=True) if misfit_of < most]
    first = fits[0].select(pair.msi_names) if fits else None
    return fits if first is not None and all(_alike(first, one) for one in fits) else []


def _alike(own: SpectralResponse, other: SpectralResponse) -> bool:
    """Whether bands of one name lie about at one place."""
    return bool((np.abs(own.centres_nm - other.select(own.bands).centres_nm) < SAME_BAND_NM).all())

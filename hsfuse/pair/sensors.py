"""What an open pair says of its sensors' model: whether it fits and, where it doesn't, which part of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from hsfuse.calibration import EstimatedPsf
from hsfuse.calibration.contradiction import (
    ANOTHER,
    EXPECTED,
    FITS,
    LESS,
    WHOLE,
    BandCheck,
    CommonShift,
    Order,
    check_response,
    chi_squares,
    common_shift,
    compare_sensors,
    other_order,
)
from hsfuse.calibration.misfit import PARTS, Misfit, misfit
from hsfuse.calibration.spectra import SharedPixels
from hsfuse.core.errors import InputError, SrfError
from hsfuse.core.notes import Note, warning
from hsfuse.pair.identify import SAME_BAND_NM
from hsfuse.pair.sample import evened, sample_scene
from hsfuse.physics import SpectralResponse, list_srfs, load_srf, match_bands

if TYPE_CHECKING:
    from hsfuse.pair.pair import ScenePair

#: What to do about each part that doesn't fit.
ADVICE = {
    "PSF": "leave the PSF to the pair (--psf auto; --psf gaussian where it assumes one), or check what was told of it",
    "place": "the images don't lie on each other well enough: check their georeference",
    "response": "check --srf and --msi-bands",
    "radiometry": "the MSI isn't linear in the HSI's reflectance",
}


#: Share of what the neighbours foretell of a misfit that other curves of the bands may leave for the response to be its
#: cause: those of right sensors wrongly named leave .26 at most, light that one image alone has .5 at least.
LEFT_BY_CURVES = 0.4
#: Code of the warning that the MSI is another sensor's.
ANOTHER_SENSOR = "sensor-another"
#: Times the chi-square of right curves that another sensor's may have: those that took the MSI have 1.6 at most, others
#: that fit what is left of a cloud or a shift of all bands 2.2.
AS_CHANCE = 2.0
#: Chi-square of a band's estimated response, and times the noise that it leaves, beyond which no response explains it:
#: within the HSI's wavelengths they are 20 and 1.04 at most, beyond them 28 or 1.3 at least.
UNTOLD_CHI, UNTOLD_TIMES = 25.0, 1.15
#: Code of the warning that the MSI's bands lie in another order.
SWAPPED = "bands-swapped"
#: Chi-square of a band of a right sensor's in light that was evened: seams stay a little unsharp.
FITS_EVENED = 1.5 * FITS
#: Sensors told that fit about as well as the best.
ALIKE_TOLD = 3


@dataclass(frozen=True)
class Another:
    """Sensors of the library that clearly fit, the best first: `fitted`, the chi-square of its `count` bands, and
    `misfit` that of the sensor named."""

    names: tuple[str, ...]
    fitted: float
    misfit: float
    count: int


@dataclass(frozen=True, eq=False)
class SensorCheck:
    """What the two images leave of each other, and each band's response against the pair.

    `bands` is empty where the response was estimated or the scene is too small; `common` is a shift of all of them that
    clearly fits better than changes of single ones, None without any; `another`: what of the library clearly fits
    in place of the response; `part` of the model is to blame for the misfit, "" for none; `resampled`: whether the
    LRHSI was. `untold` bands are explained by no response that was estimated for them. `order`: in which the MSI's
    bands clearly fit better, None without any, and `named` the names to give of all that the file has.
    """

    misfit: Misfit
    bands: tuple[BandCheck, ...]
    common: CommonShift | None
    response: str
    another: Another | None
    part: str
    resampled: bool
    untold: tuple[str, ...] = ()
    order: Order | None = None
    named: tuple[str, ...] = ()

    @property
    def is_another(self) -> bool:
        """Whether the MSI's bands are clearly not those that they were taken for."""
        return self.another is not None or self.order is not None

    @property
    def fits(self) -> bool:
        """Whether the misfit is no more than noise."""
        return not self.misfit.is_loud(self.resampled)

    @property
    def warnings(self) -> list[Note]:
        """What speaks against the model, the cause of the rest first."""
        wrong = [band.describe() for band in self.bands if band.contradicts and not band.other]
        if self.common is not None:
            wrong = [self.common.describe()]
        if self.another is not None:
            return [self._told(self.another, wrong)]
        if self.order is not None:
            return [self._ordered(self.order)]
        out = [warning("response-untold", bands=", ".join(self.untold))] if self.untold and self.fits else []
        swapped = [band for band in self.bands if band.other]
        if swapped:
            told = "; ".join(band.describe() for band in swapped)
            out.append(warning(SWAPPED, bands=told, advice="give their order with --msi-bands"))
        if wrong:
            out.append(warning("response-contradicted", response=self.response, bands="; ".join(wrong)))
        if not self.fits:
            m = self.misfit
            figures = {"times": round(m.times, 2), "share": round(m.share, 3)}
            if self.part:
                explained = round(float(np.median(m.explained(self.part))), 2)
                advice = ADVICE[self.part]
                out.append(warning("model-misfit", **figures, part=self.part, explained=explained, advice=advice))
            else:
                out.append(warning("images-differ", **figures, where=round(m.where, 2)))
        return out

    def _told(self, another: Another, wrong: list[str]) -> Note:
        first, *others = another.names[:ALIKE_TOLD]
        return warning(
            ANOTHER_SENSOR,
            response=self.response,
            fits=first,
            alike=f" ({' and '.join(others)} as well)" if others else "",
            bands="".join(f"; {one}" for one in wrong),
            misfit=round(another.misfit),
            fitted=round(another.fitted),
            chance=EXPECTED * another.count,
        )

    def _ordered(self, order: Order) -> Note:
        figures = f"a chi-square of {order.fitted:.0f} in place of {order.misfit:.0f}"
        well = "" if order.fits else ", though not well: --srf may be wrong, too"
        bands = f"in another order they fit clearly better, with {figures}{well}"
        return warning(SWAPPED, bands=bands, advice=f"give --msi-bands {','.join(self.named)}")

    def to_dict(self) -> dict[str, Any]:
        """Figures for JSON."""
        m = self.misfit
        parts = {part: round(float(np.median(m.explained(part))), 3) for part in PARTS}
        figures = {"times_noise": round(m.times, 3), "share_of_contrast": round(m.share, 4)}
        return {
            "misfit": {
                **figures,
                "fits": self.fits,
                "part": self.part,
                "explained": parts,
                "where": round(m.where, 3),
            },
            "response": [{**_rounded(band), "contradicts": band.contradicts} for band in self.bands],
            "common_shift": None if self.common is None else _rounded(self.common),
            "better": "" if self.another is None else self.another.names[0],
        }


def psf_figures(psf: EstimatedPsf) -> dict[str, Any]:
    """An estimated PSF for JSON."""
    names = ("family", "sigma", "sigma_sd", "theta_deg", "theta_sd_deg", "shift", "shift_sd", "mtf", "mtf_sd", "doubt")
    halo = {} if psf.halo is None else {"halo": psf.halo, "halo_sd": psf.halo_sd}
    return {name: getattr(psf, name) for name in names} | halo | {"label": psf.psf.label}


def sensing(pair: ScenePair, told: bool) -> dict[str, Any]:
    """What the pair told of its sensors, for JSON; `told`: the PSF was given."""
    found = pair.psf
    how = "told" if told else "estimated" if found is not None and not found.doubt else "assumed"
    figures = {} if found is None else psf_figures(found) | {"text": found.describe()}
    light = {"light": pair.haze.size} if pair.haze is not None and pair.haze.is_shade else {}
    return light | {
        "psf": {"label": pair.model.psf.label, "mtf": pair.model.psf.mtf(pair.ratio), **figures, "how": how},
        "check": None if pair.sensors is None else pair.sensors.to_dict(),
        "tone": None if pair.tone is None else pair.tone.to_dict(pair.msi_names),
    }


def _rounded(band: BandCheck | CommonShift) -> dict[str, Any]:
    kept = {name: value for name, value in asdict(band).items() if name != "others"}
    return {name: round(value, 2) if isinstance(value, float) else value for name, value in kept.items()}


def check_sensors(pair: ScenePair, pixels: SharedPixels, followed: Sequence[bool], even: SharedPixels) -> SensorCheck:
    """Of a pair as it stands; only bands that are `followed` by the LRHSI (c,) are held against their response.

    Responses and order are judged by its pixels in `even` light.
    """
    found = misfit(pixels, pair.model.srf.double().cpu().numpy())
    order = check_order(pair, even)
    bands, common = check_bands(pair, even, followed)
    another = None if order else another_sensor(pair, even, bands)
    if another and common and common.fitted < another.fitted:
        another = None
    part = _blamed(found, bands, pair.response.weights)
    untold = _untold(pair, even) if pair.response.weights and pair.haze is None else ()
    named = _named(pair, order) if order else ()
    name = pair.response.name
    return SensorCheck(found, tuple(bands), common, name, another, part, pair.warped, untold, order, named)


def check_order(pair: ScenePair, pixels: SharedPixels) -> Order | None:
    """Another order in which the MSI's bands clearly fit better; none where their response was estimated."""
    return None if pair.response.weights else other_order(pixels, pair.model.srf.double().cpu().numpy())


def _named(pair: ScenePair, order: Order) -> tuple[str, ...]:
    """Names of all bands of the MSI's file in this order, "-" for those that take no part."""
    names = dict(zip(pair.msi_bands, (pair.msi_names[i] for i in order.places), strict=True))
    return tuple(names.get(i, "-") for i in range(pair.msi.count))


def _untold(pair: ScenePair, pixels: SharedPixels) -> tuple[str, ...]:
    """Bands that the response estimated for them doesn't explain, as it does those within the HSI's wavelengths.

    It isn't asked where haze was taken out, under which the response was estimated.
    """
    matrix = pair.model.srf.double().cpu().numpy()
    chi, found = chi_squares(pixels, matrix), misfit(pixels, matrix)
    facts = zip(pair.msi_names, chi, found.rms / found.left, strict=True)
    return tuple(name for name, own, times in facts if own > UNTOLD_CHI or times > UNTOLD_TIMES)


def _blamed(found: Misfit, bands: Sequence[BandCheck], estimated: bool) -> str:
    """The part of the model that a misfit is of, "" where none explains it alike all over.

    Light that the HSI alone has is in all its bands: weights of any sign tell it from those that the MSI doesn't see.
    That is no response: a wrong one would have another curve, and one that was estimated has the curve that fits.
    """
    if not found.alike:
        return ""
    left, told = sum(band.least for band in bands), sum(band.misfit for band in bands)
    return "" if found.part == "response" and (estimated or left > LEFT_BY_CURVES * told) else found.part


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


def another_sensor(pair: ScenePair, pixels: SharedPixels, bands: Sequence[BandCheck]) -> Another | None:
    """What of the library clearly fits where some of the response's `bands` don't, or don't follow the LRHSI at all.

    The MSI's bands are taken for another sensor's as a file is: by their names, else in their order; where they were
    taken otherwise than that, as `--msi-bands` has it, by the names so given.
    """
    nm, fwhm, count = pair.spectrum.wavelengths_nm, pair.spectrum.fwhm_nm, pair.msi.count
    assert nm is not None
    if pair.response.weights or (len(bands) == len(pair.msi_names) and max(one.misfit for one in bands) < LESS):
        return None
    names: Sequence[str | None] = pair.msi.spectrum.names or (None,) * count
    if _taken(pair.response, pair.msi_bands, names) != pair.msi_names:
        given = dict(zip(pair.msi_bands, pair.msi_names, strict=True))
        names = [given.get(i) for i in range(count)]
    own = pair.response.select(pair.msi_names)
    whole = own.matrix(nm, fwhm)[1] > WHOLE
    asked = np.flatnonzero(whole).tolist()
    known = []
    for one in (load_srf(record.name) for record in list_srfs()):
        taken = _taken(one, pair.msi_bands, names)
        if taken and one.sha256 != pair.response.sha256:
            renamed = replace(one.select(taken), bands=pair.msi_names)
            known += [renamed] if (renamed.matrix(nm, fwhm)[1] > WHOLE)[whole].all() else []
    if not known or not asked:
        return None
    chi, *others = compare_sensors(pixels, [own, *known], pair.msi_names, nm, fwhm, asked)
    least = min(others)
    most = AS_CHANCE * EXPECTED * len(asked)
    if not (chi - least > ANOTHER * LESS and least < most):
        return None
    order = sorted(zip(others, [one.name for one in known], strict=True))
    alike = tuple(name for found, name in order if found < min(least + ANOTHER * LESS, most))
    return Another(alike, least, chi, len(asked))


def _taken(response: SpectralResponse, indices: Sequence[int], names: Sequence[str | None]) -> tuple[str, ...]:
    """The response's bands that those at `indices` of a file of these names are taken for; () where some aren't."""
    try:
        match = match_bands(response, names, len(names))
    except SrfError:
        return ()
    found = dict(zip(match.indices, match.bands, strict=True))
    return tuple(found[i] for i in indices) if all(i in found for i in indices) else ()


def fitting(pair: ScenePair, known: Sequence[SpectralResponse]) -> list[SpectralResponse]:
    """Those of several known responses that a pair of unknown response bears out about as well, in their order.

    Empty where none fits, and where one whose bands lie elsewhere fits about as well as the best.
    """
    nm, fwhm = pair.spectrum.wavelengths_nm, pair.spectrum.fwhm_nm
    assert nm is not None
    known = [one for one in known if (one.select(pair.msi_names).matrix(nm, fwhm)[1] > WHOLE).all()]
    try:
        seen = sample_scene(pair)
        scene = evened(seen, pair.model)
        pixels = SharedPixels(scene.lrhsi, scene.msi, scene.mask, pair.model)
    except InputError:
        return []
    found = compare_sensors(pixels, known, pair.msi_names, nm, fwhm)
    room = FITS if scene is seen else FITS_EVENED
    most = min(room * len(pair.msi_names), min(found, default=0.0) + ANOTHER * LESS)
    fits = [one for one, misfit_of in zip(known, found, strict=True) if misfit_of < most]
    first = fits[0].select(pair.msi_names) if fits else None
    return fits if first is not None and all(_alike(first, one) for one in fits) else []


def _alike(own: SpectralResponse, other: SpectralResponse) -> bool:
    """Whether bands of one name lie about at one place."""
    return bool((np.abs(own.centres_nm - other.select(own.bands).centres_nm) < SAME_BAND_NM).all())

"""Settings of an assessment, and what a fused file records of its own making."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hsfuse.core.errors import SettingError, SrfError
from hsfuse.core.grid import Motion
from hsfuse.core.notes import Note, note
from hsfuse.core.options import FuseOptions
from hsfuse.io import Images, open_cube
from hsfuse.io.finished import made_from

if TYPE_CHECKING:  # what is wrong with them is told without torch
    from hsfuse.physics import SpectralResponse
    from hsfuse.physics.model import Psf

#: What a fusion may have done to its inputs; another tool's is taken to have used them as they are.
_UNTOUCHED = FuseOptions(register="report", match_radiometry="off", destripe="off", smile="off", haze="off")
#: Options of which a given PSF has no use.
_PSF = ("mtf", "psf_sigma", "psf_size", "psf")
#: Words for --srf by which the pair tells the response.
LEFT_TO_THE_PAIR = ("auto", "estimate")
#: What a provenance records of the images themselves.
OF_IMAGES = ("srf", "psf_kernel", "sensors", "registration", "records", "pair_warnings")
_SECTIONS = ("settings", "scene", "observation", "options")


@dataclass(frozen=True)
class AssessSettings:
    """How to assess.

    `given` are options of `fuse` that say how LRHSI and MSI are to be understood and what was done to them (srf, mtf,
    register, ...: `FuseOptions.of_pair`); what isn't among them, or is None, is as the fused file records it, else
    hsfuse's default, where shifts are told and nothing is corrected.
    `peak` is the data's highest possible value (PSNR, SSIM), `window` the side of UIQI's windows and Q2n's blocks,
    `ratio` the ratio of the GSDs (ERGAS; known where LRHSI and MSI are given), `tile` the side of the pieces worked
    on in MSI pixels (memory; the result doesn't depend on it).
    """

    given: Mapping[str, Any] = field(default_factory=dict)
    peak: float | None = None
    window: int = 32
    ratio: int | None = None
    tile: int | None = None

    def __post_init__(self) -> None:
        for name, value in (("peak", self.peak), ("ratio", self.ratio), ("tile", self.tile)):
            if value is not None and not 0 < value < inf:
                raise SettingError(f"the {name} is {value:g}, wanted a positive number")
        FuseOptions.of(self._asked)

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> AssessSettings:
        """From settings and options by name, all in one; SettingError for a name that is none of an assessment's."""
        own = {f.name for f in fields(cls)} - {"given"}
        options = {name: value for name, value in settings.items() if name not in own}
        if strange := sorted(set(options) - set(_UNTOUCHED.of_pair())):
            known = ", ".join(sorted(own) + list(_UNTOUCHED.of_pair()))
            raise SettingError(f"assess has no option {strange[0]!r}; known are {known}")
        return cls(options, **{name: value for name, value in settings.items() if name in own})

    @property
    def _asked(self) -> dict[str, Any]:
        return {name: value for name, value in self.given.items() if value is not None}

    def options(self, provenance: Mapping[str, Any]) -> tuple[FuseOptions, list[Note]]:
        """How the pair is to be understood, and what of that was taken from the provenance (a note)."""
        asked = self._asked
        psf_given = "mtf" in asked or "psf_sigma" in asked
        taken: dict[str, Any] = {}
        for name in _UNTOUCHED.of_pair():
            value = recorded(provenance, name)
            if value is not None and name not in asked and not (psf_given and name in _PSF):
                taken[name] = tuple(value) if isinstance(value, list) else value
        if "msi_bands" not in asked and self._by_record(provenance):
            bands = provenance["srf"].get("msi_bands")
            taken |= {"msi_bands": tuple(bands)} if bands else {}
        words = ", ".join(f"{name} {_words(value)}" for name, value in taken.items())
        told = [note("recorded-settings", settings=words)] if taken else []
        return FuseOptions.of({**taken, **asked}, _UNTOUCHED), told

    def _by_record(self, provenance: Mapping[str, Any]) -> bool:
        """Whether the response is left to the pair, and the fused file records which it was."""
        left = self._asked.get("srf", "auto") == "auto" and recorded(provenance, "srf") in LEFT_TO_THE_PAIR
        return left and isinstance(provenance.get("srf"), Mapping)

    def recorded_response(self, provenance: Mapping[str, Any]) -> SpectralResponse | None:
        """The response that the fused file was made with, where nobody names one; None where it can't be had again."""
        from hsfuse.physics import SpectralResponse, load_srf

        if not self._by_record(provenance):
            return None
        record = provenance["srf"]
        try:
            if record.get("response"):
                return SpectralResponse.of_record(record["response"])
            found = load_srf(str(record.get("name")))
        except SrfError:
            return None
        return found if found.sha256 == record.get("sha256") else None

    def recorded_psf(self, provenance: Mapping[str, Any]) -> Psf | None:
        """The PSF that the fused file was made with; None where it doesn't say, or another one is asked for."""
        from hsfuse.physics.model import Psf

        record = provenance.get("psf_kernel")
        asked = any(name in self._asked for name in _PSF)
        return Psf.of_record(record) if isinstance(record, Mapping) and not asked else None

    def recorded_motion(self, provenance: Mapping[str, Any]) -> Motion | None:
        """The LRHSI's motion that was corrected; None where the file doesn't say, or how to register is asked for."""
        record = provenance.get("registration")
        if "register" in self._asked:
            return None
        return Motion.of_record(record)


def of_images(
    provenance: Mapping[str, Any], fused: Path, hsi: Images | None, msi: Images | None
) -> tuple[Mapping[str, Any], list[Note]]:
    """What a fused file records, less what it was told of other images than are given now, and a note that names these.

    Images in memory are taken for those that it was made from.
    """
    others = []
    for name, image in (("HSI", hsi), ("MSI", msi)):
        if image is not None and isinstance(provenance.get("input_files"), list):
            with open_cube(image) as reader:
                others += [] if made_from(provenance, fused, reader.files) else [name]
    if not others:
        return provenance, []
    kept = {key: value for key, value in provenance.items() if key not in OF_IMAGES}
    return kept, [note("other-images", images=" and ".join(others))]


def check_compared(reference: object, hsi: object, msi: object) -> None:
    """SettingError where there is nothing to compare a fused cube with, or one of its two images alone."""
    if (hsi is None) != (msi is None):
        missing = "--hsi" if hsi is None else "--msi"
        raise SettingError(f"{missing} is missing: agreement with the cube's images is told by both of them")
    if reference is None and hsi is None and msi is None:
        raise SettingError("there is nothing to hold the fused cube against: give --reference, or --hsi and --msi")


def recorded(provenance: Mapping[str, Any], name: str) -> Any:
    """A value of the provenance by name, in one of its sections or at its top; None when it isn't there."""
    places = [*(provenance[s] for s in _SECTIONS if isinstance(provenance.get(s), Mapping)), provenance]
    found = (place.get(name) for place in places)
    return next((value for value in found if value is not None and not isinstance(value, Mapping)), None)


def _words(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.6g}"
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)

"""Settings of an assessment, and what a fused file records of its own making."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import inf
from typing import Any

from hsfuse.core.errors import SettingError
from hsfuse.pair import SceneSettings

#: What a fusion may have done to its inputs; another tool's is taken to have used them as they are.
_CORRECTIONS: dict[str, str | None] = {
    "psf": None,
    "register": "report",
    "register_limit": None,
    "match_radiometry": "off",
    "drop_absorption": None,
    "hsi_nodata": None,
    "msi_nodata": None,
}
_RECORDED = ("srf", "msi_bands", "mtf", "psf_sigma", "psf_size", "phase", *_CORRECTIONS)
_SECTIONS = ("settings", "scene", "observation", "options")


@dataclass(frozen=True)
class AssessSettings:
    """How to assess. None: as the fused file records it, else hsfuse's default.

    `psf`, `register`, `register_limit`, `match_radiometry`, `drop_absorption`, `hsi_nodata` and `msi_nodata` say what
    was done to the inputs before they were fused, see `SceneSettings`; where neither caller nor file says, shifts are
    told and nothing is corrected.
    `peak` is the data's highest possible value (PSNR, SSIM), `window` the side of UIQI's windows and Q2n's blocks,
    `ratio` the ratio of the GSDs (ERGAS; known where LRHSI and MSI are given), `tile` the side of the pieces worked
    on in MSI pixels (memory; the result doesn't depend on it).
    """

    srf: str | None = None
    msi_bands: tuple[str, ...] | None = None
    mtf: float | None = None
    psf_sigma: float | None = None
    psf_size: int | None = None
    phase: float | None = None
    psf: str | None = None
    register: str | None = None
    register_limit: float | None = None
    match_radiometry: str | None = None
    drop_absorption: bool | None = None
    hsi_nodata: str | None = None
    msi_nodata: str | None = None
    peak: float | None = None
    window: int = 32
    ratio: int | None = None
    tile: int | None = None

    def __post_init__(self) -> None:
        for name, value in (("peak", self.peak), ("ratio", self.ratio), ("tile", self.tile)):
            if value is not None and not 0 < value < inf:
                raise SettingError(f"the {name} is {value:g}, wanted a positive number")

    def filled(self, provenance: Mapping[str, Any]) -> tuple[AssessSettings, list[str]]:
        """With what the provenance records in place of what is not set, and what was taken from there, in words."""
        taken: dict[str, Any] = {}
        psf_given = self.mtf is not None or self.psf_sigma is not None
        for name in _RECORDED:
            value = recorded(provenance, name)
            of_psf = name in ("mtf", "psf_sigma", "psf_size", "psf")
            if value is None or getattr(self, name) is not None or (psf_given and of_psf):
                continue
            taken[name] = tuple(value) if isinstance(value, list) else value
        words = ", ".join(f"{name} {_words(value)}" for name, value in taken.items())
        return replace(self, **taken), [f"as the fused file records: {words}"] if taken else []

    def for_scene(self) -> SceneSettings:
        """The part that says how LRHSI and MSI are to be understood; what is None stays at its default."""
        asked: dict[str, Any] = {name: getattr(self, name) for name in _RECORDED}
        chosen: dict[str, Any] = {
            name: _CORRECTIONS.get(name) if value is None else value for name, value in asked.items()
        }
        return SceneSettings(**{name: value for name, value in chosen.items() if value is not None})


def recorded(provenance: Mapping[str, Any], name: str) -> Any:
    """A value of the provenance by name, in one of its sections or at its top; None when it isn't there."""
    places = [*(provenance[s] for s in _SECTIONS if isinstance(provenance.get(s), Mapping)), provenance]
    found = (place.get(name) for place in places)
    return next((value for value in found if value is not None and not isinstance(value, Mapping)), None)


def _words(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)

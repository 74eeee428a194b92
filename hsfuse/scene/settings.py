"""How two files are to be understood."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from hsfuse.registration import SHIFT_LIMIT

DEFAULT_MTF = 0.3


@dataclass(frozen=True)
class SceneSettings:
    """Response, MSI bands, PSF (MTF at Nyquist or sigma in MSI pixels), phase, and what is done about misfits.

    `srf` names a sensor of the library or a CSV; "auto" is the sensor that the MSI's product tells, "estimate" has the
    response estimated from the pair. `psf` "mtf" takes the PSF from `mtf` or `psf_sigma`, "estimate" fits a Gaussian of
    two widths and an angle to the pair, "free" a kernel; `psf_size` cuts a given Gaussian to so many taps. `register`
    corrects a shift of at most `register_limit` LR pixels, only reports it, or doesn't look; `match_radiometry` brings
    the MSI's bands to the HSI's radiometry where they differ clearly; `drop_absorption` leaves out the bands in which
    water vapour absorbs nearly all light.
    """

    srf: str = "auto"
    msi_bands: tuple[str, ...] | None = None
    mtf: float = DEFAULT_MTF
    psf_sigma: float | None = None
    psf_size: int | None = None
    phase: float | None = None
    psf: Literal["mtf", "estimate", "free"] = "mtf"
    register: Literal["auto", "off", "report"] = "auto"
    register_limit: float = SHIFT_LIMIT
    match_radiometry: Literal["auto", "off"] = "auto"
    drop_absorption: bool = False

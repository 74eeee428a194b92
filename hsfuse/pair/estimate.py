"""What two files tell of their sensors, for `hsfuse srf estimate`: no sensor has to be named."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from hsfuse.calibration import compare_responses
from hsfuse.core.notes import Note
from hsfuse.core.options import FuseOptions
from hsfuse.io import Paths, open_cube, open_hsi
from hsfuse.pair.calibrate import PairEstimate, estimate_scene, unknown_bands
from hsfuse.pair.open import open_pair
from hsfuse.pair.pair import ScenePair
from hsfuse.physics import write_srf

#: Notes that name MSI bands, which have names of their own while their response is unknown.
NAMING = frozenset({"response", "bands-matched", "bands-not-covered", "radiometry-matched"})


def estimate_pair(
    hsi: str | Path,
    msi: Paths,
    *,
    like: str | None = None,
    msi_bands: Sequence[str] | None = None,
    mtf: float | None = None,
    psf_sigma: float | None = None,
    phase: float | None = None,
    kind: str = "auto",
) -> tuple[PairEstimate, list[Note]]:
    """Response and PSF of a pair of files, and the notes on opening it.

    `like` names the sensor to compare with, and says which of its bands the file holds. A PSF given by `mtf` or
    `psf_sigma` is kept. Shift and radiometry are estimated along and left as they are. Errors as for `open_pair`.
    """
    known_psf = mtf is not None or psf_sigma is not None
    bands = None if msi_bands is None else tuple(msi_bands)
    given = {"srf": like or "", "msi_bands": bands, "psf_sigma": psf_sigma, "phase": phase}
    settings = FuseOptions.of({**given, "mtf": mtf, "psf": "assumed", "register": "off", "match_radiometry": "off"})
    with _opened(hsi, msi, settings) as (pair, names, notes):
        found = replace(estimate_scene(pair, psf=not known_psf, kind=kind), bands=names)
        if like and found.response is not None:
            comparison = compare_responses(found.response, pair.response, names, pair.spectrum.fwhm_nm)
            found = replace(found, comparison=comparison)
        return found, notes


@contextmanager
def _opened(
    hsi: str | Path, msi: Paths, settings: FuseOptions
) -> Iterator[tuple[ScenePair, tuple[str, ...], list[Note]]]:
    """The pair, its MSI bands' names and notes; without a known sensor each band counts as the whole HSI range."""
    if settings.srf:
        with open_pair(hsi, msi, settings) as pair:
            yield pair, pair.msi_names, pair.notes
        return
    with open_hsi(hsi, msi) as low, open_cube(msi, role="MSI") as high:
        match, flat = unknown_bands(low.spectrum, high.spectrum, high.count, settings.msi_bands)
        chosen = ["-"] * high.count
    neutral = {f"unknown{i}": name for i, name in zip(match.indices, match.bands, strict=True)}
    for i, name in zip(match.indices, neutral, strict=True):
        chosen[i] = name
    with TemporaryDirectory() as folder:
        table = write_srf(replace(flat, bands=tuple(neutral)), Path(folder) / "unknown.csv")
        with open_pair(hsi, msi, replace(settings, srf=str(table), msi_bands=tuple(chosen))) as pair:
            told = [one for one in pair.notes if one.code not in NAMING]
            yield pair, tuple(neutral[name] for name in pair.msi_names), told

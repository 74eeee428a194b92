"""Two files opened in order to estimate what is unknown of their observation, and compared with what is known."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from hsfuse.estimation import compare_responses
from hsfuse.io import Paths, open_cube
from hsfuse.scene import ScenePair, SceneSettings, open_scene
from hsfuse.scene.estimated import PairEstimate, estimate_scene, unknown_bands
from hsfuse.srf import write_srf


def estimate_pair(
    hsi: str | Path,
    msi: Paths,
    *,
    like: str | None = None,
    msi_bands: Sequence[str] | None = None,
    mtf: float | None = None,
    psf_sigma: float | None = None,
    phase: float | None = None,
    kind: str = "gaussian",
) -> tuple[PairEstimate, list[str]]:
    """Response and PSF of a pair of files, and the notes on opening it.

    `like` names the sensor to compare with, and says which of its bands the file holds. A PSF given by `mtf` or
    `psf_sigma` is kept. Shift and radiometry are estimated along and left as they are. Errors as for `open_scene`.
    """
    known_psf = mtf is not None or psf_sigma is not None
    bands = None if msi_bands is None else tuple(msi_bands)
    asis = SceneSettings(like or "", bands, psf_sigma=psf_sigma, phase=phase, register="off", match_radiometry="off")
    settings = asis if mtf is None else replace(asis, mtf=mtf)
    with _opened(hsi, msi, settings) as (pair, names, notes):
        found = replace(estimate_scene(pair, psf=not known_psf, kind=kind), bands=names)
        if like and found.response is not None:
            comparison = compare_responses(found.response, pair.response, names, pair.spectrum.fwhm_nm)
            found = replace(found, comparison=comparison)
        return found, notes


@contextmanager
def _opened(
    hsi: str | Path, msi: Paths, settings: SceneSettings
) -> Iterator[tuple[ScenePair, tuple[str, ...], list[str]]]:
    """The pair, its MSI bands' names and notes; without a known sensor each band counts as the whole HSI range."""
    if settings.srf:
        with open_scene(hsi, msi, settings) as pair:
            yield pair, pair.msi_names, list(pair.notes)
        return
    with open_cube(hsi, role="HSI") as low, open_cube(msi, role="MSI") as high:
        match, flat = unknown_bands(low.spectrum, high.spectrum, high.count, settings.msi_bands)
        chosen = ["-"] * high.count
    neutral = {f"unknown{i}": name for i, name in zip(match.indices, match.bands, strict=True)}
    for i, name in zip(match.indices, neutral, strict=True):
        chosen[i] = name
    with TemporaryDirectory() as folder:
        table = write_srf(replace(flat, bands=tuple(neutral)), Path(folder) / "unknown.csv")
        with open_scene(hsi, msi, replace(settings, srf=str(table), msi_bands=tuple(chosen))) as pair:
            notes = [note for note in pair.notes if "unknown" not in note]
            yield pair, tuple(neutral[name] for name in pair.msi_names), notes

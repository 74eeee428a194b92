"""Wald's protocol: both inputs degraded by their ratio, fused again in the same way, and held against the LRHSI.

At full resolution there is no truth. One step down there is: the LRHSI itself (Wald, Ranchin and Mangolini 1997,
PE&RS 63(6), second property). How good a method is there is an indication of how good it is one step up, no bound: the
detail is another one, and there are fewer pixels to learn from.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from rasterio.windows import Window

from hsfuse.assessment import Assessment, AssessSettings, assess
from hsfuse.assessment.checks import checks
from hsfuse.assessment.settings import of_images
from hsfuse.core.cube import BoolArray, FloatArray, Spectrum
from hsfuse.core.errors import SettingError
from hsfuse.core.grid import Grid
from hsfuse.core.notes import Note, warning
from hsfuse.core.options import DEFAULT_MTF, FuseOptions
from hsfuse.fusion import run_fusion
from hsfuse.io import CubeWriter, Paths, open_cube, read_provenance
from hsfuse.pair import ScenePair, open_pair
from hsfuse.physics import write_srf
from hsfuse.physics.degrade import seen, strips
from hsfuse.physics.model import ObservationModel, gaussian_psf
from hsfuse.physics.optics import sigma_from_mtf

#: LR pixels a side that the degraded LRHSI must have, for a fusion to learn anything from it.
LEAST_SIDE = 4
#: From which level on rooms are heard about temporary files, and codes of notes that are about these alone.
_SPOKEN = {"fusion": logging.ERROR, "methods": logging.WARNING}
_OF_FILES = frozenset({"quantity-guessed", "bands-matched"})
#: What a fused file may record of its fusion; the rest doesn't change the result.
_RECORDED = ("method", "base", "model", "effort", "tile", "overlap", "ensemble", "clip")
#: What it records of SRLF-Net's adaptation -> the option that it was.
_ADAPTED = {
    "steps": "adapt_steps", "minutes": "adapt_minutes", "consistency_step": "consistency", "seed": "seed",
}  # fmt: skip


def assess_wald(
    fused: str | Path,
    *,
    hsi: str | Path | None = None,
    msi: Paths | None = None,
    reference: str | Path | None = None,
    qa: str | Path | None = None,
    device: str = "auto",
    **settings: Any,
) -> Assessment:
    """`assess` at full resolution with, as its `reduced`, the same at reduced resolution; see `assess_reduced`."""
    if hsi is None or msi is None:
        raise SettingError(f"{'--hsi' if hsi is None else '--msi'} is missing: Wald's protocol degrades both inputs")
    full = assess(fused, reference=reference, hsi=hsi, msi=msi, qa=qa, **settings)
    both = replace(full, reduced=assess_reduced(fused, hsi, msi, AssessSettings.of(settings), device))
    return replace(both, checks=checks(both))


def assess_reduced(
    fused: str | Path, hsi: str | Path, msi: Paths, settings: AssessSettings | None = None, device: str = "auto"
) -> Assessment:
    """Quality of the method that made `fused`, one step down: LRHSI and MSI degraded by their ratio, fused, compared.

    Method and settings are those that the fused file records, else hsfuse's own. Raises SettingError where the
    LRHSI is too small to be degraded again, and what `fuse` and `assess` raise.
    """
    with open_cube(fused, role="raster") as reader:
        provenance = read_provenance(reader.tags)
    chosen = settings or AssessSettings()
    told, _ = of_images(provenance, Path(fused), hsi, msi)
    understood, _ = chosen.options(told)
    again, notes = as_fused(provenance, understood)
    psf, srf, motion = chosen.recorded_psf(told), chosen.recorded_response(told), chosen.recorded_motion(told)
    with (
        TemporaryDirectory(prefix="hsfuse-wald-") as name,
        open_pair(hsi, msi, understood, known_psf=psf, known_motion=motion, known_response=srf) as pair,
    ):
        folder, model = Path(name), _model(pair, understood)
        low, high, truth, made = (folder / f"{image}.tif" for image in ("lrhsi", "msi", "truth", "fused"))
        _degrade(pair, model, low, high, truth)
        np.savetxt(folder / "psf.csv", model.psf.kernel, delimiter=",")
        table = pair.response.path or write_srf(pair.response, folder / "srf.csv")
        same = _same(again, pair, folder / "psf.csv", table)
        with _quiet():
            run_fusion(low, high, made, FuseOptions.of({"device": device}, same))
        found = assess(
            made, reference=truth, hsi=low, msi=high, **same.of_pair(),
            peak=chosen.peak, window=chosen.window, ratio=pair.ratio, tile=chosen.tile,
        )  # fmt: skip
    own = (one for one in found.notes if one.severity == "note" and one.code not in _OF_FILES)
    inputs = {"reference": f"the LRHSI {hsi}", "made from": f"both images degraded by {pair.ratio}"}
    return replace(found, fused=str(fused), inputs=inputs, notes=(*notes, *own), pair_warnings=())


def _same(options: FuseOptions, pair: ScenePair, psf: Path, srf: Path) -> FuseOptions:
    """Options for the degraded pair, which needs no correction any more and whose files don't tell the sensor."""
    off: dict[str, Any] = dict.fromkeys(("register", "match_radiometry", "destripe", "smile", "haze"), "off")
    sensors: dict[str, Any] = {"srf": str(srf), "msi_bands": pair.msi_names, "psf": str(psf)}
    return replace(options, **off, **sensors, mtf=None, psf_sigma=None, psf_size=None)


@contextmanager
def _quiet() -> Iterator[None]:
    """No word about the temporary files from the fusion: what is to be warned of, their assessment says."""
    loggers = {logging.getLogger(f"hsfuse.{room}"): level for room, level in _SPOKEN.items()}
    before = {logger: logger.level for logger in loggers}
    try:
        for logger, level in loggers.items():
            logger.setLevel(level)
        yield
    finally:
        for logger, level in before.items():
            logger.setLevel(level)


def as_fused(provenance: Mapping[str, Any], options: FuseOptions) -> tuple[FuseOptions, list[Note]]:
    """`options` with how a file was fused, as far as it records that, and a word where it doesn't."""
    record = provenance.get("fusing", provenance.get("method"))
    if not isinstance(record, Mapping) or not record.get("method"):
        word = "the fused file doesn't record how it was made: the figures at reduced resolution are hsfuse's own"
        return options, [warning("told", text=f"{word} method's, not this file's")]
    asked = record.get("adapt")
    adapted = {_ADAPTED[k]: v for k, v in asked.items() if k in _ADAPTED} if isinstance(asked, Mapping) else {}
    known = {key: record[key] for key in _RECORDED if record.get(key) is not None}
    return FuseOptions.of({**known, **adapted}, options), []


def _degrade(pair: ScenePair, model: ObservationModel, hsi: Path, msi: Path, truth: Path) -> None:
    """Write both images of a pair, degraded by its ratio, and the LRHSI on whole pixels of the degraded one."""
    s = pair.ratio
    low = pair.lr_shape[0] // s, pair.lr_shape[1] // s
    if min(low) < LEAST_SIDE:
        raise SettingError(
            f"the LRHSI has {pair.lr_shape[0]} x {pair.lr_shape[1]} pixels on the common extent: too few to be "
            f"degraded by {s} again (wanted at least {LEAST_SIDE * s} a side); leave --protocol wald out"
        )
    grid = pair.alignment.lr_grid.crop(0, 0, (low[0] * s, low[1] * s))
    named, bands = Spectrum(None, None, pair.msi_names), len(pair.hsi_bands)

    def own(window: Window) -> tuple[FloatArray, BoolArray]:
        cube = pair.read_lr(window)
        return cube.data, cube.mask

    _write(truth, grid, pair.spectrum, bands, own)
    _write(hsi, grid.coarsen(s), pair.spectrum, bands * s**2, lambda w: seen(model, pair.read_lr, w, low))
    _write(msi, grid, named, len(pair.msi_bands) * s**2, lambda w: seen(model, pair.read_hr, w, pair.lr_shape))


def _model(pair: ScenePair, options: FuseOptions) -> ObservationModel:
    """The sensors' model: the pair's, less what resampling the LRHSI has added to its PSF."""
    if not pair.warped or options.psf_kind != "assumed":
        return pair.model
    mtf = DEFAULT_MTF if options.mtf is None else options.mtf
    sigma = sigma_from_mtf(mtf, pair.ratio) if options.psf_sigma is None else options.psf_sigma
    return ObservationModel(pair.model.srf.cpu().numpy(), gaussian_psf(sigma, pair.ratio), pair.ratio)


def _write(
    path: Path, grid: Grid, spectrum: Spectrum, values: int, read: Callable[[Window], tuple[FloatArray, BoolArray]]
) -> None:
    """Write what `read` gives, which holds so many `values` for each pixel."""
    with CubeWriter(path, grid, spectrum) as writer:
        for window in strips(grid.shape, values):
            writer.write(window, *read(window))

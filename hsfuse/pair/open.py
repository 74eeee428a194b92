"""Opening a pair: one nested grid, bands matched, units settled, registered, radiometry matched."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from math import hypot, inf
from pathlib import Path
from typing import Any

import numpy as np
from affine import Affine

from hsfuse.calibration import Verdict, judge, register, rough_shift
from hsfuse.calibration.smile import SILICON_NM
from hsfuse.core.errors import InputError
from hsfuse.core.grid import IDENTITY, Motion
from hsfuse.core.notes import Note, note, warning
from hsfuse.core.options import DEFAULT_MTF, ESTIMATED, MOST_TAPS, FuseOptions
from hsfuse.io import CubeReader, Images, LayeredReader, open_cube, open_hsi
from hsfuse.io.fill import settle_bands, settle_fill
from hsfuse.pair.calibrate import PairEstimate, estimate_scene, own_names, unknown_bands, with_estimate, with_psf
from hsfuse.pair.checks import compared, curved, doubted, misnamed, misplaced, unsure
from hsfuse.pair.destripe import Shown, destriped, unsmiled
from hsfuse.pair.detail import with_detail
from hsfuse.pair.identify import (
    ESTIMATE,
    candidates,
    considered,
    contradicted,
    holding_anything,
    identify,
    of_full_detail,
    one_detail,
    told_bands,
)
from hsfuse.pair.nesting import Nesting, nest, turned_like, whole_shift
from hsfuse.pair.pair import ScenePair
from hsfuse.pair.quantity import different_dates, name_quantity, settle_quantity
from hsfuse.pair.sample import loud_bands, usable
from hsfuse.pair.sensors import fitting
from hsfuse.pair.warp import own_reader
from hsfuse.physics import BandMatch, SpectralResponse, covered_bands
from hsfuse.physics.model import ObservationModel, Psf, centred_phase, elliptic_psf, gaussian_psf
from hsfuse.physics.optics import sigma_from_mtf

#: Times that tone curves and the PSF are estimated by each other.
TONES = 2
#: Most registrations of a pair, LR pixels left over that aren't worth it, and a shift's uncertainty that hides drifts.
REGISTRATIONS, NOT_WORTH, SCATTERED = 3, 0.02, 0.004
#: Ratios along rows and columns that differ by more than this share make the PSF an ellipse.
ROUND = 0.05


def open_pair(
    hsi: Images,
    msi: Images,
    options: FuseOptions | None = None,
    *,
    strict: bool = True,
    known_psf: Psf | None = None,
    known_motion: Affine | Motion | None = None,
    known_response: SpectralResponse | None = None,
    **given: Any,
) -> ScenePair:
    """Open a pair, bring it to one grid, match bands and build the observation model.

    Each image is a file or product, several files that make one image, or an `xarray.DataArray` (bands, y, x) with its
    CRS as rioxarray keeps it and, of the HSI, a coordinate `wavelength`; Dask's arrays are read by window. `given`
    are `options` of `fuse` by name, such as srf="sentinel2"; see `FuseOptions`. A `known_psf`, a `known_motion` of the
    LRHSI in pixels of the MSI and a `known_response`, which a fused file has recorded for instance, are taken as they
    are, whatever the options say of them. InputError and GridError tell what doesn't fit; unless `strict`, two images
    that plainly don't belong together are only warned about.

    >>> from hsfuse import open_pair, simulate
    >>> files = simulate(reference, folder, srf="sentinel2", ratio=4)
    >>> with open_pair(files.lrhsi, files.msi, srf="sentinel2") as pair:
    ...     pair.ratio, pair.lr_shape, pair.model.srf.shape[1]
    (4, (12, 12), 40)
    """
    settings = FuseOptions.of(given, options)
    stack = ExitStack()
    try:
        low = stack.enter_context(open_hsi(hsi, msi))
        high = stack.enter_context(open_cube(msi, role="MSI"))
        low = turned_like(low, high.grid)
        kind = "given" if known_psf else settings.psf_kind
        known = known_psf if known_psf or settings.psf_file is None else read_psf(settings.psf_file)
        told: list[Note] = []
        if settings.srf == "auto" and known_response is None and identify(high) is None:
            settings, by_pair = _by_pair(low, high, settings, known)
            told.append(by_pair)
        pair = _matched(low, high, settings, known, response=known_response)
        estimating = settings.srf == ESTIMATE and known_response is None
        if estimating and any(one.code == "stripes-taken-out" for one in pair.notes):
            # Which stripes the MSI shows, too, is only known by its response.
            striped = _matched(low, high, replace(settings, destripe="off"), known)
            pair = _matched(low, high, settings, known, _estimated(striped, kind, srf=True).model)
        pair = replace(pair, notes=[*pair.notes, *told])
        pair = _estimated(pair, kind, estimating, _near(pair, kind, settings))
        place = Motion(known_motion) if isinstance(known_motion, Affine) else known_motion
        pair = _registered(pair, settings, kind, known, place)
        pair = _linear(pair, kind, settings.haze == "auto") if settings.match_radiometry == "auto" else pair
        pair = _detailed(pair, settings, kind, known is not None, place is not None)
        pair = _told(_together(pair, settings, kind, known is not None), kind)
        pair = misplaced(compared(pair, settings.match_radiometry == "auto", strict, settings.haze == "auto"))
        pair = doubted(unsure(pair))
        return replace(pair, options=settings, _stack=stack)
    except BaseException:
        stack.close()
        raise


def read_psf(path: Path) -> Psf:
    """A PSF from a file of its taps on MSI pixels: a square table with commas, or a `.npy`.

    A table of measured or rounded taps has as many separable terms as rows, and each takes its time: it is taken within
    a thousandth, of few.
    """
    if (size := path.stat().st_size) > 32 * MOST_TAPS**2:
        raise InputError(f"{path} has {size} bytes; a PSF has at most {MOST_TAPS} x {MOST_TAPS} taps")
    try:
        table = np.load(path, allow_pickle=False) if path.suffix == ".npy" else np.loadtxt(path, delimiter=",", ndmin=2)
        taps = np.asarray(table, np.float64)
    except (ValueError, OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} isn't a table of numbers: {str(error).splitlines()[0]}") from error
    if max(taps.shape, default=0) > MOST_TAPS:
        raise InputError(f"{path} holds {taps.shape} numbers; a PSF has at most {MOST_TAPS} x {MOST_TAPS} taps")
    if not np.isfinite(taps).all():
        raise InputError(f"{path} holds NaN or Inf, wanted the taps of a PSF")
    return Psf(taps, f"kernel of {path.name}, {taps.shape[0]} x {taps.shape[-1]} taps").with_few_terms()


def _near(pair: ScenePair, kind: str, settings: FuseOptions) -> tuple[float, float]:
    """MSI pixels from where the grids have the LR pixels to where they are, as far as a first look tells."""
    if kind not in ESTIMATED or settings.register == "off":
        return 0.0, 0.0
    dy, dx = rough_shift(pair, pair.warped)
    return -dy * pair.ratio, -dx * pair.ratio


def _matched(
    low: CubeReader,
    high: CubeReader,
    settings: FuseOptions,
    known: Psf | None,
    seen: ObservationModel | None = None,
    response: SpectralResponse | None = None,
) -> ScenePair:
    """The pair as the files' own georeference has it; stripes are held against the MSI by the model `seen` if given.

    A known `response` is taken in place of what the settings say.
    """
    notes: list[Note] = [*low.notes, *high.notes]
    low, kept, masked = settle_fill(low, settings.hsi_nodata, "--hsi-nodata")
    high, kept_too, masked_too = settle_fill(high, settings.msi_nodata, "--msi-nodata")
    notes += [*kept, *kept_too]
    warnings: list[Note] = [*masked, *masked_too]
    match, response, how = _bands(low, high, settings, response)
    notes += [note("sensor-told", how=how)] if how else []
    match, empty = holding_anything(match, high)
    if settings.msi_bands is None:
        match, coarse, enlarged = of_full_detail(match, high)
        notes, warnings = [*notes, *coarse], [*warnings, *enlarged]
    if not set(match.indices) - set(high.native_bands):  # how the others were read is no matter then
        notes = [one for one in notes if one.code != "bands-sharpened" or one not in high.notes]
    notes += [note("response", about=response.note)] if response.note else []
    nesting = nest(low.grid, high.grid)
    high, spoilt = settle_bands(high, match.indices, match.bands, nesting.alignment.msi_window, settings.msi_nodata)
    if isinstance(high, LayeredReader):
        high = high.focused(nesting.alignment.msi_window)
    warnings += [*empty, *one_detail(match, high), *spoilt]
    hsi_bands, missing = usable(low, settings.drop_absorption)
    notes += missing
    spectrum = low.spectrum.select(hsi_bands)
    assert spectrum.wavelengths_nm is not None  # a reader in the role of an HSI has them
    covered = covered_bands(response, match.bands, spectrum.wavelengths_nm, spectrum.fwhm_nm)
    msi_bands = [match.indices[i] for i in covered.kept]
    psf = _psf(settings, nesting) if known is None else known
    if settings.destripe == "auto":
        matrix = np.zeros((len(msi_bands), low.count))
        matrix[:, hsi_bands] = covered.matrix if seen is None else seen.srf.cpu().numpy()
        place = nesting.onto(low.grid, high.grid)
        low, striped = destriped(low, Shown(high, msi_bands, matrix, place, nesting.ratio))
        notes += striped
    if settings.smile == "auto":
        low, smiling = unsmiled(low)
        notes += smiling
    loud = loud_bands(low, hsi_bands)
    notes, warnings = [*notes, *loud.notes], [*warnings, *loud.warnings]
    covered = loud.spared(covered, response, match.bands, spectrum)
    model = ObservationModel(covered.matrix, psf, nesting.ratio, settings.phase, np.array(covered.coverage))
    match = match.only(covered.kept)
    notes += [note("bands-matched", how=match.note)] if match.note else []
    notes += [note("bands-not-covered", left_out=covered.note)] if covered.note else []
    notes += filter(None, [different_dates(low, high)])
    units = settle_quantity(
        nesting.present(low),
        high,
        nesting.alignment,
        hsi_bands=hsi_bands,
        msi_bands=msi_bands,
        weights=covered.matrix,
        matched=settings.match_radiometry == "auto",
    )
    named = name_quantity(own_reader(units.hsi), units.msi)
    notes += [*units.notes, *named.notes, *_size_note(settings, nesting)]
    warnings += [*units.warnings, *misnamed(high, msi_bands, response, covered.bands)]
    return ScenePair(
        nesting.present(named.hsi),
        named.msi,
        nesting.alignment,
        hsi_bands,
        msi_bands,
        covered.bands,
        response,
        covered.coverage,
        model,
        notes=notes,
        warnings=warnings,
        units=loud.units,
        warped=nesting.warped,
    )


def _bands(
    low: CubeReader, high: CubeReader, settings: FuseOptions, known: SpectralResponse | None
) -> tuple[BandMatch, SpectralResponse, str]:
    """Which bands the MSI has, their response unless it is `known`, and whence that is where nobody said it.

    A flat response stands in for one that is to be estimated.
    """
    told = told_bands(high, settings, known)
    return told or (*unknown_bands(low.spectrum, high.spectrum, high.count, settings.msi_bands), "")


def _by_pair(low: CubeReader, high: CubeReader, settings: FuseOptions, known: Psf | None) -> tuple[FuseOptions, Note]:
    """Options with the library's sensor that has the MSI's band names and that the pair bears out, else "estimate"."""
    unknown = replace(settings, srf=ESTIMATE)
    called = settings.msi_bands or high.spectrum.names
    named = candidates(called)
    names = [one.name for one in fitting(_matched(low, high, unknown, known), named)] if named else []
    if not names:
        could = considered(called, high.count)
        advice = f"{could and could + '; '}name the sensor with --srf, or give a CSV, where it is known"
        return unknown, note("sensor-estimated", advice=advice)
    alike = f", and so do {', '.join(names[1:])}" if names[1:] else ""
    how = f"{names[0]} has bands of its bands' names and fits the pair{alike}"
    return replace(settings, srf=names[0]), note("sensor-told", how=how)


def _estimated(pair: ScenePair, kind: str, srf: bool, near: tuple[float, float] = (0.0, 0.0)) -> ScenePair:
    """The pair with the response and the PSF that it tells itself, where asked for."""
    psf = kind in ESTIMATED
    if not srf and not psf:
        return pair
    try:
        found = estimate_scene(pair, srf, psf, kind, near)
    except InputError as error:
        if srf or kind != "auto":
            raise
        return replace(pair, warnings=[*pair.warnings, _assumed(pair, str(error))])
    pair, found = _unnamed(pair, found)
    told = [note("estimated", what=line) for line in found.describe()]
    return with_estimate(replace(pair, notes=[*pair.notes, *told]), found)


def _unnamed(pair: ScenePair, found: PairEstimate) -> tuple[ScenePair, PairEstimate]:
    """Both with the bands called by their numbers where the estimated response contradicts a sensor's names."""
    if found.response is None:
        return pair, found
    told = contradicted(found.bands, found.response.centre_nm, found.response.centre_sd_nm)
    if told is None:
        return pair, found
    numbers = tuple(own_names(len(found.bands)))
    return replace(pair, msi_names=numbers, warnings=[*pair.warnings, told]), replace(found, bands=numbers)


def _linear(pair: ScenePair, kind: str, haze: bool) -> ScenePair:
    """The pair with its MSI's tone curves taken out of the bands where both images clearly say that they are curved.

    A curved tone misleads the PSF, and a wrong PSF the curves: with these the PSF is estimated again, and they by it,
    before it is asked how much they explain.
    """
    found = latest = curved(pair, haze)
    for _ in range(TONES if kind in ESTIMATED else 0):
        if latest is None:
            break
        again = _estimated(replace(pair, tone=latest[0]), kind, srf=False)
        again = replace(again, tone=None, notes=pair.notes, warnings=pair.warnings)
        latest = curved(again, haze)
        if latest is not None and latest[1].any():
            pair, found = again, latest
    if found is None or not found[1].any():
        return pair
    tone = found[0].only(found[1])
    told = note("tone-taken-out", curves=tone.describe(pair.msi_names))
    return replace(pair, tone=tone, notes=[*pair.notes, told])


def _assumed(pair: ScenePair, why: str) -> Note:
    return warning("psf-assumed", mtf=round(pair.model.psf.mtf(pair.ratio)[0], 2), why=why)


def _told(pair: ScenePair, kind: str) -> ScenePair:
    """With a word on the PSF, and a warning where the pair couldn't tell it."""
    if pair.psf is None:
        return pair
    if kind == "auto" and pair.psf.doubt:
        return replace(pair, warnings=[*pair.warnings, _assumed(pair, pair.psf.doubt)])
    return replace(pair, notes=[*pair.notes, note("psf-estimated", what=pair.psf.describe(), kind=pair.psf.family)])


def _psf(settings: FuseOptions, nesting: Nesting) -> Psf:
    """The sensor's PSF, with what resampling adds to it."""
    ratio, real = nesting.ratio, nesting.real_ratio
    mtf = DEFAULT_MTF if settings.mtf is None else settings.mtf
    sigma = settings.psf_sigma if settings.psf_sigma is not None else sigma_from_mtf(mtf, real)
    nesting.check_phase(settings.phase)
    if not nesting.warped:
        return gaussian_psf(sigma, ratio, settings.phase, settings.psf_size)
    down, right = nesting.real_ratios
    if abs(down / right - 1) > ROUND:
        return elliptic_psf(*nesting.psf_widths(sigma), ratio)
    return gaussian_psf(nesting.psf_sigma(sigma), ratio)


def _size_note(settings: FuseOptions, nesting: Nesting) -> list[Note]:
    """Said where --psf-size has no use: what resampling adds to the PSF reaches further than the given taps."""
    ignored = nesting.warped and settings.psf_size is not None
    return [note("psf-size-unused", size=settings.psf_size)] if ignored else []


def _registered(
    pair: ScenePair, settings: FuseOptions, kind: str, known: Psf | None, known_motion: Motion | None
) -> ScenePair:
    """The pair with a shift between the images corrected, in one warp from the file, or only told."""
    if settings.register == "off":
        return pair
    shift = register(pair, pair.warped)
    if shift.apart:
        told = warning("bright-apart", pixels=round(shift.apart, 2))
        pair = replace(pair, warnings=[*pair.warnings, told])
    if settings.register == "report":
        return replace(pair, shift=shift, notes=[*pair.notes, note("shift-found", shift=shift.describe())])
    if known_motion is not None:
        pair = replace(pair, shift=shift)
        moved = pair if known_motion == Motion() else _moved(pair, known_motion, settings, kind, known)
        return pair if moved is pair else _off_centre(replace(moved, residual=register(moved, moved.warped)))
    verdict = judge(shift, pair.ratio, settings.register_limit)
    pair = replace(pair, shift=shift, notes=[*pair.notes, note("shift-judged", verdict=verdict.note)])
    if not verdict.correct:
        return pair
    if settings.phase not in (None, centred_phase(pair.ratio)):
        return replace(pair, notes=[*pair.notes, note("shift-stays")])
    unwarped = _by_psf(pair, verdict, settings, kind, known)
    if unwarped is not None:
        return unwarped
    motion, moved = Motion(), pair
    for _ in range(REGISTRATIONS):
        motion = motion.after(verdict.on(moved.alignment.msi_window))
        moved = _moved(pair, motion, settings, kind, known)
        left = register(moved, moved.warped)
        moved = replace(moved, residual=left)
        verdict = judge(left, moved.ratio, inf)
        if not verdict.correct or max(left.length, left.drifting, left.bending) < NOT_WORTH:
            break
    return _off_centre(moved)


def _off_centre(pair: ScenePair) -> ScenePair:
    """The pair with what its PSF clearly tells of a warp's shift in it: interpolation moves aliased detail wrongly."""
    told = pair.psf
    if told is None or not told.clearly_off or hypot(*told.shift) < NOT_WORTH * pair.ratio:
        return pair
    return with_psf(replace(pair, off_centre=True), told)


def _detailed(pair: ScenePair, settings: FuseOptions, kind: str, known: bool, placed: bool) -> ScenePair:
    """A warped pair with what the MSI shows of the LRHSI's detail where it was seen; its PSF is estimated anew then.

    It lies where its own pixels have it, then, unless its place is known (`placed`) or clouds lie elsewhere; so does
    one that wasn't warped where windows may have missed a drift that these have.
    """
    if not known and (pair.psf is None or pair.psf.doubt):
        return pair
    shift = None if placed or settings.register != "auto" or pair.shift is None or pair.shift.apart else pair.shift
    found = _by_detail(pair, kind) if pair.warped else None
    if not pair.warped and kind in ESTIMATED and shift is not None and shift.uncertainty > SCATTERED:
        found = _closer(pair, kind, settings) if settings.phase in (None, centred_phase(pair.ratio)) else None
    if found is None:
        return pair
    if shift is not None and found.motion != Motion():
        found = _closer(found, kind, settings) or found
    found, share = with_detail(_off_centre(found) if kind in ESTIMATED else found)
    told = note("detail-by-msi", share=share)
    return pair if found.gains is None else replace(found, notes=[*found.notes, told])


def _together(pair: ScenePair, settings: FuseOptions, kind: str, known: bool) -> ScenePair:
    """The pair with a second detector's bands where the first one's lie; its PSF is estimated anew if the MSI saw them.

    Where registration is only reported, so is this.
    """
    unknown = not known and (pair.psf is None or pair.psf.doubt)
    if settings.register == "off" or unknown or max(pair.spectrum.wavelengths_nm or (0.0,)) <= SILICON_NM:
        return pair
    from hsfuse.pair.apart import bands_apart, brought_together  # of no use to cameras

    if (found := bands_apart(pair)) is None:
        return pair
    if settings.register == "report":
        return replace(pair, notes=[*pair.notes, note("detectors-apart", **found.figures(pair))])
    moved = brought_together(pair, found)
    if kind in ESTIMATED and moved.model.srf[:, found.bands].any():
        again = _estimated(moved, kind, srf=False)
        moved = brought_together(again, found) if again.psf and not again.psf.doubt else moved
    return replace(moved, notes=[*pair.notes, note("detectors-together", **found.figures(pair))])


def _by_detail(pair: ScenePair, kind: str) -> ScenePair | None:
    """The pair with the centred PSF that its LRHSI has with its detail put right; None where that can't be told."""
    if kind not in ESTIMATED or pair.psf is None:
        return None if kind in ESTIMATED else pair
    centred = with_psf(replace(pair, off_centre=False), pair.psf)
    found = _estimated(with_detail(centred)[0], kind, srf=False)
    return None if found.psf is None or found.psf.doubt else found


def _closer(pair: ScenePair, kind: str, settings: FuseOptions) -> ScenePair | None:
    """The pair where its own pixels have it, warped; None where it lies there already, or that is the MSI's grid."""
    from hsfuse.pair.place import closer  # few pairs want it

    if (told := closer(pair)) is None:
        return None
    moved = _placed(replace(pair, off_centre=False), told[0], settings, pair.model.psf if pair.warped else None)
    worth = moved.warped and (pair.warped or moved.lr_shape == pair.lr_shape)  # a lost row costs more than windows miss
    moved = moved if pair.warped else _estimated(moved, kind, srf=False)
    if not worth or (found := _by_detail(moved, kind)) is None:
        return None
    left = register(replace(found, gains=None), found.warped)
    return replace(found, residual=left, notes=[*found.notes, note("place-by-pixels", most=told[1])])


def _by_psf(pair: ScenePair, verdict: Verdict, settings: FuseOptions, kind: str, known: Psf | None) -> ScenePair | None:
    """The pair without any warp: moved by whole MSI pixels, and by the rest in its estimated PSF.

    A warp blurs, and what is aliased it can't move rightly. None where a drift or the pair's grids want a warp.
    """
    motion = verdict.motion
    if pair.warped or kind not in ESTIMATED or verdict.distortion is not None:
        return None
    if not motion.almost_equals(Affine.translation(motion.c, motion.f)):
        return None
    unwarped = replace(pair, off_centre=True)
    by_lr = Affine.translation(*(pair.ratio * round(v / pair.ratio) for v in (motion.c, motion.f)))
    for whole in (whole_shift(pair.hsi.grid, pair.msi.grid, motion), by_lr):  # a PSF far off may not be told
        if whole == IDENTITY:
            told = pair.psf
            moved = unwarped if told is None or told.doubt else with_psf(unwarped, told)
        else:
            moved = _moved(unwarped, Motion(whole), settings, kind, known)
        if moved.warped or moved.psf is None or moved.psf.doubt:
            continue
        left = register(moved)
        if not judge(left, moved.ratio, inf).correct:
            return replace(moved, residual=left)
    return None


def _moved(pair: ScenePair, motion: Motion, settings: FuseOptions, kind: str, known: Psf | None) -> ScenePair:
    """The pair with its LRHSI where a motion on the whole MSI has it, and its PSF estimated anew."""
    return _estimated(_placed(pair, motion, settings, known), kind, srf=False)  # the warp's blur is a part of it


def _placed(pair: ScenePair, motion: Motion, settings: FuseOptions, known: Psf | None) -> ScenePair:
    """The pair with its LRHSI where a motion on the whole MSI has it, without the PSF that was estimated elsewhere."""
    last = nest(own_reader(pair.hsi).grid, pair.msi.grid, motion)
    matrix, weights = pair.model.srf.cpu().numpy(), pair.model.msi_weights.cpu().numpy()
    psf = _psf(settings, last) if known is None else known
    model = ObservationModel(matrix, psf, last.ratio, settings.phase, weights)
    notes = pair.notes if pair.warped else [*pair.notes, *_size_note(settings, last)]
    return replace(
        pair,
        hsi=last.present(own_reader(pair.hsi)),
        alignment=last.alignment,
        model=model,
        warped=last.warped,
        motion=motion,
        psf=None if known is None else pair.psf,
        notes=notes,
    )

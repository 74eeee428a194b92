"""Whether the two images of a pair belong together, and what brings their radiometry to one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from rasterio.windows import Window
from torch import Tensor

from hsfuse.calibration import RadiometricMatch, match_radiometry, register
from hsfuse.calibration.misfit import (
    FAR,
    OtherGround,
    changed_ground,
    estimate_shade,
    largest_area,
    misfit,
    other_ground,
)
from hsfuse.calibration.radiometry import GAINED, Haze, brighter, estimate_haze
from hsfuse.calibration.spectra import FloatArray, SharedPixels, inner_mask
from hsfuse.calibration.tone import ToneCurves, estimate_tones
from hsfuse.core.cube import BoolArray
from hsfuse.core.errors import InputError
from hsfuse.core.notes import Note, note, warning
from hsfuse.io import CubeReader, usable_bands
from hsfuse.io.sharpen import blocks
from hsfuse.pair.pair import ScenePair
from hsfuse.pair.quantity import says_unit
from hsfuse.pair.sample import MAX_PIXELS, block_windows, evened, sample_of, sample_scene
from hsfuse.pair.sensors import SWAPPED, another_sensor, check_bands, check_order, check_sensors
from hsfuse.pair.warp import own_reader
from hsfuse.physics import SpectralResponse
from hsfuse.physics.model import ObservationModel
from hsfuse.physics.sample import PairSample

#: MSI pixels sampled to compare the two images: at least, and as many LR pixels where the ratio is large.
SAMPLED, SAMPLED_LR = 192 * 192, 32 * 32
#: Haze isn't looked for where the median of the bands correlates less than this: they may not show the same place.
LEAST_ALIKE = 0.5
#: Share of the ground that is as bright as cloud in one image alone for a warning; what the cube has there.
LEAST_HIDDEN = 0.002
UNDER_CLOUD = (
    ("MSI", "HSI", "the cube is no sharper than the HSI there"),
    ("HSI", "MSI", "the cube has the cloud's spectra there"),
)
#: Opacity of cloud up to which it is taken out, as far beyond the range of both images (as a share of it) as light may
#: then be, and in which share of the pixels more than that.
OPAQUE, ROOM, MOST_OUTSIDE = 0.85, 0.2, 0.003
#: Share of the ground that may have other detail in either image where light is taken out; more is warned of.
MOST_OTHER = 0.03
#: Code of the warning that the images show different things.
DIFFER = "images-differ"
#: Code of the warning that with cloud over one image nothing more is known of that, and why light is left then.
UNTOLD, BESIDE = "fit-untold", "there is opaque cloud beside it"
#: Code of the warning that ground is other in parts; how many times as much of the scene windows that hold some cover.
CHANGED, AROUND = "ground-changed", 4.0
#: How far ground must be from what the rest leaves where light was taken out, which leaves some behind.
BESIDE_LIGHT = 2 * FAR
#: Warnings that say what lies over ground that is other, and how much of it there is.
CLOUDED = ("ground-hidden", "hsi-clouded")
#: Side (LR pixels) of the blocks in which ground that has changed is looked for.
LOOKED_AT = 16
#: Opacity of haze that opaque cloud over the HSI isn't told from.
LITTLE = 0.3
#: Share of what is beyond noise that curved tones must explain.
CURVED_SHARE = 0.7
#: Where all bands correlate less than this (what 64 pixels give by chance), the images aren't of the same place, or the
#: bands aren't those named.
STRANGERS = 0.25
#: Ground is misplaced where windows scatter by so many MSI pixels; those of registered pairs do by .1 at most.
MISPLACED = 0.5
#: Bands from which on no two pixels have one spectrum by chance, the share that may have it nevertheless, and pixels to
#: each side of the blocks that are looked at.
MANY_BANDS, REPEATED, BLOCK = 48, 0.002, 64
#: LR pixels of a shift from which on clouds that moved may be taken for it.
DOUBTED_LR = 1.0
#: Gain between the images, or its inverse, beyond which it is no difference of calibration.
FAR_GAIN = 2.0
#: A band's own wavelength further than this (nm, or half the band's width) from its response's is another band's.
OFF_NM = 30.0


def compared(pair: ScenePair, match: bool, strict: bool, haze: bool = False) -> ScenePair:
    """The pair with warnings about its sensors and MSI bands that don't follow; with `match`, in the HSI's radiometry.

    `haze`: and without smooth light that one of both alone has, where there clearly is any. `strict`: InputError when
    no band of either image has any detail, or when `match` and none follows the HSI. Light too thick for
    haze, or too unlike it, is left and warned of.
    """
    try:
        scene = _sample(pair)
    except InputError as error:
        return replace(pair, notes=[*pair.notes, note("radiometry-not-compared", reason=str(error))])
    return _beside_cloud(_beside_change(pair, scene, match, strict, haze))


def _beside_cloud(pair: ScenePair) -> ScenePair:
    """The pair without figures of a misfit, or of light that is left, which opaque cloud in one image makes by itself.

    However little ground it hides, it makes the images differ all over, by the gain and offset between them.
    """
    hidden = next((one for one in pair.warnings if one.code == "ground-hidden"), None)
    of_cloud = [one for one in pair.warnings if one.code == DIFFER or one.values.get("part") == "radiometry"]
    if hidden is None or not of_cloud:
        return pair
    told = warning(UNTOLD, image=hidden.values["image"], times=of_cloud[0].values["times"])
    left = [one for one in pair.warnings if one not in of_cloud and one.values.get("why") != BESIDE]
    return replace(pair, warnings=[*left, told])


def _beside_change(pair: ScenePair, scene: PairSample, match: bool, strict: bool, haze: bool) -> ScenePair:
    """As `compared`, by this sample, with a warning of ground that is other in either image."""
    found = _compared(pair, scene, evened(scene, pair.model), match, strict, haze)
    told = _changed(found)
    if told is not None and found.haze is not None:
        # It may have been fitted to what isn't light: it is asked for without that, and otherwise leaves some behind.
        areas = torch.from_numpy(_changed_in(scene, pair.model) > 0)
        clear = replace(scene, mask=scene.mask & ~areas)
        rest = _compared(pair, clear, evened(clear, pair.model), match, strict, haze)
        found, told = (rest, _changed(rest)) if rest.haze is None else (found, _changed(found, BESIDE_LIGHT))
    if told is None:
        return found
    share = told.values["share"]
    others = [one for one in found.warnings if one.code != DIFFER or one.values["where"] > AROUND * share]
    return replace(found, warnings=[*others, told])


def _changed(pair: ScenePair, far: float = FAR) -> Note | None:
    """A warning of ground that is other in either image, with its share and where most of it lies; None without any,
    and where cloud is told.

    Where the scene isn't taken whole, it is looked at in more and smaller blocks than other things are told from.
    """
    if any(one.code in CLOUDED for one in pair.warnings):
        return None
    windows = block_windows(pair.lr_shape, pair.ratio, side=LOOKED_AT)
    try:
        scene = sample_of(pair, windows)
    except InputError:
        return None
    differ, known = _changed_in(scene, pair.model, far), inner_mask(scene.mask.cpu().numpy(), pair.model)
    if not differ.any():
        return None
    areas = differ > np.median(differ[differ > 0]) / 2  # without those that see a little of it
    block, row, column = largest_area(areas)
    corner = windows[block] if len(windows) == len(areas) else None
    where = (
        ""
        if corner is None
        else (
            f", the largest part of it about row {(corner.row_off + row + 0.5) * pair.ratio:.0f}, "
            f"column {(corner.col_off + column + 0.5) * pair.ratio:.0f} of the cube"
        )
    )
    return warning(CHANGED, share=round(float(areas.sum() / known.sum()), 3), where=where)


def _changed_in(scene: PairSample, model: ObservationModel, far: float = FAR) -> FloatArray:
    """How much LR pixels (n, h, w) of a sample that show other ground differ; 0 elsewhere, and where none can tell."""
    images = scene.lrhsi, scene.msi, scene.mask, model
    try:
        line = match_radiometry(*images)
        told = changed_ground(*images, line, far) if np.median(line.doubtful) < 0.5 else None
    except InputError:
        told = None
    return np.zeros(scene.mask.shape) if told is None else told


def _compared(
    pair: ScenePair, scene: PairSample, even: PairSample, match: bool, strict: bool, haze: bool = False
) -> ScenePair:
    """As `compared`, by this sample; responses and order by one in `even` light."""
    constant = _constant(scene.msi)
    if constant.all():
        return _without_detail(pair, f"every MSI band of {pair.msi.path}", strict)
    if _constant(scene.lrhsi).all():
        return _without_detail(pair, f"every band of the HSI ({pair.hsi.path})", strict)
    try:
        found = match_radiometry(scene.lrhsi, scene.msi, scene.mask, pair.model)
    except InputError as error:
        return replace(pair, notes=[*pair.notes, note("radiometry-not-compared", reason=str(error))])
    before, doubts = pair, _doubts(pair, found, constant, match and strict)
    pair = _checked(replace(pair, warnings=[*pair.warnings, *doubts]), scene, even, ~found.doubtful)
    if before.haze is None and not found.doubtful.all():
        hidden = _hidden(brighter(scene.lrhsi, scene.msi, scene.mask, pair.model, found))
        before, pair = (replace(one, warnings=[*one.warnings, *hidden]) for one in (before, pair))
    alike = haze and np.median(found.correlation) > LEAST_ALIKE
    images = scene.lrhsi, scene.msi, scene.mask, pair.model
    shade = estimate_shade(*images) if alike and match and not _scattered(pair) else None
    light = estimate_haze(*images) if alike and _is_light(pair, match) else None
    if light and not (shade and np.log(shade.noise / light.noise).mean() < GAINED):
        other = other_ground(*images)
        told = note("haze-taken-out", share=light.share, size=light.size)
        cleared = replace(before, haze=light, notes=[*before.notes, told])
        without = _sample(cleared)
        cleared = _compared(cleared, without, evened(without, pair.model), match, strict)
        if _less_misfit(cleared, pair):
            outside = _outside(without, scene, light, pair.model)
            if light.over_lrhsi:
                return replace(pair, warnings=[*pair.warnings, warning("hsi-clouded", share=light.over_lrhsi)])
            why = _too_thick(pair, light, outside)
            if not why:
                return _differing(cleared, other) if other.where > MOST_OTHER else cleared
            pair = replace(pair, warnings=[*pair.warnings, warning("haze-left", why=why)])
    elif shade:
        told = note("light-evened", share=shade.share, size=shade.size)
        lit = replace(before, haze=shade, notes=[*before.notes, told])
        lit = _compared(lit, _sample(lit), even, match, strict)
        if _less_misfit(lit, pair) or (lit.sensors and lit.sensors.fits):
            return lit
    applied = found.deviating & ~found.doubtful
    if not match or not applied.any():
        return pair
    pair = replace(pair, warnings=[*pair.warnings, *_far(pair, found, applied)])
    used = found.where(applied)
    told = note("radiometry-matched", taken_out=used.describe(pair.msi_names))
    return replace(pair, notes=[*pair.notes, told], radiometry=used)


def _far(pair: ScenePair, found: RadiometricMatch, applied: BoolArray) -> list[Note]:
    """A warning of gains that no calibration explains, unless the images hold different quantities.

    Nor where the unit of one is a guess, a power of ten, or the MSI holds 8-bit counts of a scale of their own: what is
    left of such a scale says nothing against the pair.
    """
    told = zip(
        pair.msi_names, found.gain, applied & ((found.gain < 1 / FAR_GAIN) | (found.gain > FAR_GAIN)), strict=True
    )
    bands = ", ".join(f"{name} ({gain:.2g})" for name, gain, far in told if far)
    known = {one.code for one in pair.notes} & {"quantities-matched", "units-settled"}
    known |= {one.code for one in pair.warnings} & {SWAPPED}
    counts = np.dtype(pair.msi.dtype).itemsize == 1 and not says_unit(pair.msi)
    return [warning("gains-far", bands=bands)] if bands and not known and not counts else []


def _is_light(pair: ScenePair, match: bool) -> bool:
    """Whether light that one image alone has may be how they differ: no part of the model is to blame, or the tone is,
    of which no curve was believed."""
    found = pair.sensors
    if found is None or found.fits or found.is_another:
        return False
    return not found.part or (found.part == "radiometry" and match and pair.tone is None)


def _differing(pair: ScenePair, other: OtherGround) -> ScenePair:
    """The pair with a warning of other ground, unless its images are known to differ."""
    if any(one.code == DIFFER for one in pair.warnings):
        return pair
    told = warning(DIFFER, times=round(other.times, 2), share=round(other.share, 3), where=round(other.where, 2))
    return replace(pair, warnings=[*pair.warnings, told])


def _hidden(shares: tuple[float, float]) -> list[Note]:
    """Warnings of ground over which one image alone is as bright as cloud."""
    told = zip(UNDER_CLOUD, shares, strict=True)
    return [
        warning("ground-hidden", image=image, other=other, what=what, share=round(share, 4))
        for (image, other, what), share in told
        if share > LEAST_HIDDEN
    ]


def _too_thick(pair: ScenePair, haze: Haze, outside: float) -> str:
    """Why light is no haze that can be made good; "" where it is.

    Under thick haze the line between the images makes clear ground of the HSI as bright as cloud.
    """
    over = {one.values["image"] for one in pair.warnings if one.code == "ground-hidden"}
    if "MSI" in over or ("HSI" in over and haze.opacity < LITTLE):
        return BESIDE
    if haze.opacity > OPAQUE:
        return f"opacity up to {haze.opacity:.0%}"
    return (
        f"{outside:.1%} of the MSI's pixels would lie far outside the range of both" if outside > MOST_OUTSIDE else ""
    )


def _outside(without: PairSample, scene: PairSample, haze: Haze, model: ObservationModel) -> float:
    """Share of the MSI's pixels that without haze are far darker or brighter than any that both images have."""
    through = model.spectral(scene.lrhsi.double()).cpu().transpose(0, 1).flatten(1)
    after, seen = (one.msi.double().cpu().transpose(0, 1).flatten(1).numpy() for one in (without, scene))
    have = np.concatenate([haze.below(through.numpy()), seen], axis=1)
    low, high = have.min(1, keepdims=True), have.max(1, keepdims=True)
    room = ROOM * (high - low)
    return float(((after < low - room) | (after > high + room)).any(0).mean())


def _less_misfit(pair: ScenePair, other: ScenePair) -> bool:
    """Whether the images of a pair differ less than those of another; where that isn't known, yes."""
    return not (pair.sensors and other.sensors) or pair.sensors.misfit.times < other.sensors.misfit.times


def _sample(pair: ScenePair) -> PairSample:
    return sample_scene(pair, min(MAX_PIXELS, max(SAMPLED, SAMPLED_LR * pair.ratio**2)))


def curved(pair: ScenePair, haze: bool = True) -> tuple[ToneCurves, BoolArray] | None:
    """Tone curves of the MSI's bands, and of which it is sure that they are what doesn't fit (c,); None without any.

    A wrong response bends the relation, too: none is believed of a sensor that the file's own wavelengths contradict or
    in whose place another clearly fits, nor of a band whose response the pair contradicts. Nor, where `haze` is looked
    for, if what they leave is smooth: thin cloud makes dark ground bright, as a curve does.
    """
    if any(one.code == "msi-wavelengths-differ" for one in pair.warnings):
        return None
    try:
        scene = _sample(pair)
        pixels, even = _shared(scene, pair.model), _shared(evened(scene, pair.model), pair.model)
    except InputError:
        return None
    matrix = pair.model.srf.double().cpu().numpy()
    tone = estimate_tones(pixels, scene.msi, matrix)
    if not tone:
        return None
    straightened = torch.from_numpy(tone.apply(scene.msi.cpu().numpy()))
    if haze and estimate_haze(scene.lrhsi, straightened, scene.mask, pair.model):
        return None
    bands, common = check_bands(pair, even, [True] * len(pair.msi_names))
    if another_sensor(pair, even, bands) or check_order(pair, even):
        return None
    wrong = [common is not None or band.contradicts for band in bands] or [False] * len(pair.msi_names)
    straight = pixels.of_msi(lambda msi: torch.from_numpy(tone.apply(msi.cpu().numpy())))
    explained = misfit(pixels, matrix).explained_by(straight, pixels, matrix)
    explained = np.full_like(explained, np.median(explained)) if tone.is_shared else explained
    return tone, (explained > CURVED_SHARE) & ~np.array(wrong) & (tone.bend > 0)


def _shared(scene: PairSample, model: ObservationModel) -> SharedPixels:
    return SharedPixels(scene.lrhsi, scene.msi, scene.mask, model)


def _checked(pair: ScenePair, scene: PairSample, even: PairSample, followed: BoolArray) -> ScenePair:
    """The pair with what its images say of the sensors' model, and warnings where that doesn't fit."""
    try:
        pixels = _shared(scene, pair.model)
        by = pixels if even is scene else _shared(even, pair.model)
    except InputError:
        return pair
    sensors = check_sensors(pair, pixels, followed.tolist(), by)
    if not (followed.any() or sensors.is_another):
        return pair  # nothing fits: the two images don't belong together, which is said
    last = [*pair.warnings, *sensors.warnings]
    return replace(pair, sensors=sensors, warnings=sensors.warnings + pair.warnings if sensors.is_another else last)


def _without_detail(pair: ScenePair, what: str, strict: bool) -> ScenePair:
    told = warning("image-constant", what=what)
    if strict:
        raise InputError(told.text)
    return replace(pair, warnings=[*pair.warnings, told])


def _constant(image: Tensor) -> np.ndarray:
    spread = image.amax((0, 2, 3)) - image.amin((0, 2, 3))
    return (spread < 1e-9).cpu().numpy()


def _doubts(pair: ScenePair, found: RadiometricMatch, constant: np.ndarray, refuse: bool) -> list[Note]:
    told = [f"{name} (r {r:.2f})" for name, r in zip(pair.msi_names, found.correlation, strict=True)]
    if refuse and (found.correlation < STRANGERS).all():
        raise InputError(
            f"no MSI band follows the HSI: {', '.join(told)}, wanted at least {STRANGERS}; check that both show the "
            "same place and that the bands are those named, or go on all the same with --match-radiometry off"
        )
    doubts = [warning("msi-band-constant", band=pair.msi_names[i]) for i in np.flatnonzero(constant)]
    weak = [told[i] for i in np.flatnonzero(found.doubtful & ~constant)]
    if weak:
        code = "msi-doubtful" if found.doubtful.all() else "msi-bands-doubtful"
        doubts.append(warning(code, bands=", ".join(weak)))
    return doubts


def misnamed(msi: CubeReader, indices: Sequence[int], response: SpectralResponse, bands: Sequence[str]) -> list[Note]:
    """What to say of MSI bands whose own wavelengths contradict the response taken for them."""
    if msi.spectrum.wavelengths_nm is None:
        return []
    own = np.asarray(msi.spectrum.wavelengths_nm)[list(indices)]
    chosen = response.select(bands)
    off = np.abs(own - chosen.centres_nm) > np.maximum(OFF_NM, chosen.fwhm_nm / 2)
    told = [f"{bands[i]} at {chosen.centres_nm[i]:.0f} nm for {own[i]:.0f} nm" for i in map(int, np.flatnonzero(off))]
    if not told:
        return []
    return [warning("msi-wavelengths-differ", response=response.name, bands=", ".join(told))]


def misplaced(pair: ScenePair) -> ScenePair:
    """The pair with a warning where windows lie apart beyond errors and what is corrected, or pixels are repeated.

    Not where a tone misled windows, nor where haze did: without it they are asked again.
    """
    if (share := _repeated(own_reader(pair.hsi))) > REPEATED:
        pair = replace(pair, warnings=[*pair.warnings, warning("hsi-repeated", share=round(share, 3))])
    last = pair.residual or pair.shift
    if last is None or pair.tone is not None or not _scattered(pair):
        return pair
    if pair.haze is not None and (last := register(pair, pair.warped)).spread * pair.ratio < MISPLACED:
        return pair
    told = warning("ground-misplaced", pixels=round(last.spread * pair.ratio, 2))
    return replace(pair, warnings=[*pair.warnings, told])


def _scattered(pair: ScenePair) -> bool:
    """Whether windows lie apart by half an MSI pixel beyond their errors and what is corrected."""
    last = pair.residual or pair.shift
    return last is not None and last.spread * pair.ratio >= MISPLACED


def _repeated(hsi: CubeReader) -> float:
    """Share of valid pixels whose whole spectrum is that of the next one in their row or column.

    0 of few bands, which have it by chance, and of constant ones.
    """
    bands = np.flatnonzero(usable_bands(hsi)).tolist()
    if len(bands) < MANY_BANDS:
        return 0.0
    same, count, before = 0, 0, hsi.nonfinite
    for window in blocks(Window(0, 0, *hsi.grid.shape[::-1]), BLOCK):
        cube = hsi.read(window, bands)
        for data, mask in ((cube.data, cube.mask), (cube.data.swapaxes(1, 2), cube.mask.T)):
            known = mask[1:] & mask[:-1] & (data[:, 1:].std(0) > 0)
            same += int(((data[:, 1:] == data[:, :-1]).all(0) & known).sum())
            count += int(known.sum())
    hsi.nonfinite = before  # this look isn't part of the caller's reading
    return same / max(count, 1)


def unsure(pair: ScenePair) -> ScenePair:
    """The pair with a warning where a far shift is corrected and other light is left: clouds may be what moved."""
    other = pair.haze is not None or any(one.code in (DIFFER, CHANGED, UNTOLD) for one in pair.warnings)
    if pair.residual is None or pair.shift is None or pair.shift.length < DOUBTED_LR or not other:
        return pair
    told = warning("shift-doubtful", pixels=round(pair.shift.length, 2))
    return replace(pair, warnings=[*pair.warnings, told])


#: Warnings that speak against what was found by the response, and how its notes say so.
DOUBTS = {
    "bands-swapped": "; but by bands that aren't those named",
    "sensor-another": "; but by a response that isn't the MSI's",
    "response-contradicted": "; but by a response that the pair contradicts",
}


def doubted(pair: ScenePair) -> ScenePair:
    """The pair whose notes don't praise what was found by bands or responses that aren't those named."""
    doubt = next((DOUBTS[one.code] for one in pair.warnings if one.code in DOUBTS), "")
    keys = {"psf-estimated": "what", "radiometry-matched": "taken_out"} if doubt else {}
    notes = [
        replace(one, values={**one.values, key: one.values[key] + doubt}) if (key := keys.get(one.code)) else one
        for one in pair.notes
    ]
    return replace(pair, notes=notes)

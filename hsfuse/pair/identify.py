"""Which sensor took an MSI, as its file tells: by metadata, hsfuse's own provenance, wavelengths or band names.

And which of its bands hold anything, and the detail of its grid.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Sequence
from dataclasses import dataclass
from math import inf
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rasterio.windows import Window

from hsfuse.core.cube import BoolArray, FloatArray, Spectrum
from hsfuse.core.errors import InputError, SrfError
from hsfuse.core.notes import Note, note, warning
from hsfuse.core.options import FuseOptions
from hsfuse.io import CubeReader, read_provenance, usable_bands
from hsfuse.io.sharpen import blocks
from hsfuse.physics import BandMatch, SpectralResponse, list_srfs, load_srf, match_bands

#: The name that has the response estimated.
ESTIMATE = "estimate"
#: Tags that name an instrument, and the craft that carries it.
INSTRUMENT = ("sensor", "instrument", "instrument_name", "sensor_id", "sensor_name", "sensor type", "sensor_type")
CRAFT = ("platform", "satellite", "spacecraft", "spacecraft_id", "spacecraft_name", "satellite_name", "mission")
#: Instruments' words that say no more than that they are multispectral.
GENERIC = frozenset({"msi", "ms", "multispectral", "optical"})
#: Bands are a sensor's when all their centres lie this near (nm) and their widths, or without any the centres alone,
#: differ by less than this share, or this much.
NEAR_NM, LIKE_WIDTH, ALONE_NM = 8.0, 0.4, 3.0
#: An estimated band further from that of its name than this (nm), and than so many standard deviations, is another.
SAME_BAND_NM, BEYOND_SD = 40.0, 4.0
#: Sensors that are named, at most, where several have the bands' names.
MOST_NAMED = 4
#: Bands of full detail that make others dispensable.
FEWEST_FINE = 3
#: How often coarser pixels may be repeated, and the shares of neighbours that are equal within one and across two.
REPEATED, WITHIN, ACROSS = (2, 3, 4, 5, 6), 0.999, 0.5
#: Contrast of pixels to that of blocks of 2 x 2, as squares: with less than this, and than half of what others have,
#: a band was interpolated. Bilinear and cubic interpolation leave .07 to .19, cameras and their resampling .3 to 1.2.
INTERPOLATED = 0.2
#: Bands whose diagonal differences all correlate by this much have one detail: those of sensors by .95 at most, of
#: pansharpened images by .995 and more.
ONE_DETAIL = 0.98
#: How far differences count in that, as multiples of their median size.
CLIPPED = 4.0
#: Pixels to each side of the blocks of an MSI that are looked at.
BLOCK = 128
#: Standard deviations of a Gaussian by its FWHM, and points of its curve on each side of the centre.
SIGMA_BY_FWHM, REACH_SD = 1 / 2.3548, 3.0


#: A band's data and mask (h, w) in a block, and the block's first row and column.
Plane = tuple[FloatArray, BoolArray, int, int]


@dataclass(frozen=True)
class Identified:
    """A response, whence it is known, and the response's band of each file band where that is told along with it."""

    response: SpectralResponse
    how: str
    bands: tuple[str, ...] | None = None


def identify(msi: CubeReader) -> Identified | None:
    """The MSI's sensor as the file tells it; None where it doesn't."""
    for found in (_by_product, _by_provenance, _by_wavelengths):
        if (told := found(msi)) is not None:
            return told
    return None


def told_bands(
    msi: CubeReader, options: FuseOptions, known: SpectralResponse | None = None
) -> tuple[BandMatch, SpectralResponse, str] | None:
    """The MSI's bands, their response, and whence that is known where nobody said it; None where the pair must tell.

    A `known` response is taken whatever the options say. SrfError or SettingError where response, bands and file don't
    go together.
    """
    if options.srf == ESTIMATE and known is None:
        return None
    told = Identified(known, "") if known is not None else None
    if told is None:
        told = identify(msi) if options.srf == "auto" else Identified(load_srf(options.srf), "")
    if told is None:
        return None
    names = msi.spectrum.names or (None,) * msi.count
    asked = told.bands if options.msi_bands is None else options.msi_bands
    return match_bands(told.response, names, msi.count, asked), told.response, told.how


def holding_anything(match: BandMatch, msi: CubeReader) -> tuple[BandMatch, list[Note]]:
    """The MSI bands that hold anything, and a warning that names the others; InputError when none does."""
    holds = usable_bands(msi)[list(match.indices)]
    if holds.all():
        return match, []
    empty = [match.bands[i] for i in np.flatnonzero(~holds)]
    if not holds.any():
        raise InputError(f"{msi.path}: no valid pixel in any of the MSI bands {', '.join(empty)}")
    return match.only(np.flatnonzero(holds).tolist()), [warning("msi-bands-empty", bands=", ".join(empty))]


def of_full_detail(match: BandMatch, msi: CubeReader) -> tuple[BandMatch, list[Note], list[Note]]:
    """The MSI's bands that have its grid's detail, a note and a warning that name the others; all, if these are few.

    Others are of a coarser GSD: sharpened as they were read, or enlarged in the file. Taken for what the sensor saw
    they cost more than they tell.
    """
    native = [i for i in match.indices if i in msi.native_bands]
    enlarged = _enlarged(msi, native) if len(native) > FEWEST_FINE else set()
    kept = [k for k, i in enumerate(match.indices) if i in native and i not in enlarged]
    if len(kept) < FEWEST_FINE or len(kept) == len(match.indices):
        return match, [], []

    def names(bands: Container[int]) -> str:
        return ", ".join(name for i, name in zip(match.indices, match.bands, strict=True) if i in bands)

    sharpened = set(match.indices) - set(native)
    notes = [note("msi-bands-coarse", bands=names(sharpened))] if sharpened else []
    warnings = [warning("msi-bands-enlarged", bands=names(enlarged))] if enlarged else []
    return match.only(kept), notes, warnings


def one_detail(match: BandMatch, msi: CubeReader) -> list[Note]:
    """A warning where three bands of full detail or more have the same finest detail, that of a panchromatic band."""
    bands = [i for i in match.indices if i in msi.native_bands]
    if len(bands) < FEWEST_FINE:
        return []
    looks = _planes(msi, bands)
    least = max(_least_alike(looks, change) for change in (np.asarray, _logarithm))
    return [warning("msi-one-detail", least=least)] if least > ONE_DETAIL else []


def _least_alike(
    bands: Sequence[Sequence[Plane]], change: Callable[[NDArray[np.float64]], NDArray[np.float64]]
) -> float:
    """The least correlation of two bands' diagonal differences after a change of their numbers; 0 if one is flat."""
    sums = np.zeros((len(bands), len(bands)))
    for looks in zip(*bands, strict=True):
        values = [change(np.where(mask, data.astype(np.float64), np.nan)) for data, mask, *_ in looks]
        differences = np.stack([_differences(_quads(one)).ravel() for one in values])
        differences = differences[:, np.isfinite(differences).all(0)]
        if not differences.size:
            continue
        most = CLIPPED * np.median(np.abs(differences), axis=1, keepdims=True)  # a few glints aren't all detail
        differences = np.clip(differences, -most, most)
        sums += differences @ differences.T
    powers = np.diag(sums)
    return float((sums / np.sqrt(np.outer(powers, powers))).min()) if powers.all() else 0.0


def _logarithm(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """A band times a panchromatic one's detail has that detail's logarithm."""
    logarithm: NDArray[np.float64] = np.log(np.where(values > 0, values, np.nan))
    return logarithm


def _enlarged(msi: CubeReader, bands: list[int]) -> set[int]:
    """Those of some bands (0-based) that were enlarged from coarser ones: pixels are repeated, or interpolated."""
    planes = _planes(msi, bands)
    fine = np.array([_fine_contrast(own) for own in planes])
    smooth = fine < min(INTERPOLATED, np.sort(fine)[-FEWEST_FINE] / 2)
    return {
        band
        for band, own, interpolated in zip(bands, planes, smooth, strict=True)
        if interpolated or any(all(_repeats(own, n, axis) for axis in (0, 1)) for n in REPEATED)
    }


def _planes(msi: CubeReader, bands: list[int]) -> list[list[Plane]]:
    """Each band in the blocks that are looked at."""
    windows = list(blocks(Window(0, 0, *msi.grid.shape[::-1]), BLOCK))
    looks = [(msi.read(window, bands), int(window.row_off), int(window.col_off)) for window in windows]
    return [[(look.data[k], look.mask, *start) for look, *start in looks] for k in range(len(bands))]


def _repeats(planes: Sequence[Plane], n: int, axis: int) -> bool:
    """Whether neighbours along an axis are equal, save across every n-th border."""
    equal, count = np.zeros(n), np.zeros(n)
    for data, mask, *start in planes:
        before, after = np.arange(data.shape[axis] - 1), np.arange(1, data.shape[axis])
        known = np.take(mask, before, axis) & np.take(mask, after, axis)
        alike = known & (np.take(data, before, axis) == np.take(data, after, axis))
        np.add.at(equal, (start[axis] + before) % n, alike.sum(1 - axis))
        np.add.at(count, (start[axis] + before) % n, known.sum(1 - axis))
    if not count.all():
        return False
    across, *within = sorted(equal / count)
    return bool(across < ACROSS and min(within) > WITHIN)


def _fine_contrast(planes: Sequence[Plane]) -> float:
    """Squares of a band's diagonal differences (Haar) to those of its means over 2 x 2 pixels; inf if they are flat."""
    fine, coarse = np.zeros(2), np.zeros(2)
    for data, mask, *_ in planes:
        values = np.where(mask, data.astype(np.float64), np.nan)
        for row in (0, 1):
            for col in (0, 1):
                one = _quads(values[row:, col:])
                fine += _squares(one)
                coarse += _squares(_quads(one.mean(0)))
    return float((fine[0] / fine[1]) / (coarse[0] / coarse[1])) if coarse.all() else inf


def _quads(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """The pixels of each 2 x 2 block (4, h // 2, w // 2)."""
    rows, cols = (n // 2 * 2 for n in values.shape)
    return np.stack([values[i:rows:2, j:cols:2] for i in (0, 1) for j in (0, 1)])


def _differences(quads: NDArray[np.float64]) -> NDArray[np.float64]:
    """Diagonal differences (Haar), NaN where one of the four pixels isn't known."""
    differences: NDArray[np.float64] = quads[0] - quads[1] - quads[2] + quads[3]
    return differences


def _squares(quads: NDArray[np.float64]) -> NDArray[np.float64]:
    """The sum of the squares of diagonal differences, where all four are known, and their number."""
    differences = _differences(quads)
    return np.array([np.nansum(differences**2), np.isfinite(differences).sum()])


def candidates(names: Sequence[str | None] | None) -> list[SpectralResponse]:
    """The library's sensors that have bands of all these names, '-' for one left out; none without names."""
    used = [name for name in names or () if name != "-"]
    if not used or not all(used):
        return []
    return [one for record in list_srfs() if _has(one := load_srf(record.name), tuple(map(str, used)))]


def considered(names: Sequence[str | None] | None, count: int) -> str:
    """Which of the library's sensors the `count` bands of a file may be of, and why none was taken.

    By their names, else by their number; "" where there is none.
    """
    used = [str(name) for name in names or () if name and name != "-"]
    if not used or _numbers(used):
        usual = {
            record.presumed_for[0]: load_srf(record.name).defaults for record in list_srfs() if record.presumed_for
        }
        may = [f"{name}'s {' '.join(defaults[count])}" for name, defaults in usual.items() if count in defaults]
        return f"its {count} bands, which have no names, may be {', '.join(may)} or another's" if may else ""
    alike = [one.name for one in candidates(names)]
    if not alike:
        return f"no sensor of the library has bands of all their names ({', '.join(used)})"
    more = f" and {len(alike) - MOST_NAMED} more" if len(alike) > MOST_NAMED else ""
    return f"its bands are named as those of {', '.join(alike[:MOST_NAMED])}{more}, but the pair bears out none alone"


def _numbers(names: Sequence[str]) -> bool:
    """Whether names are but numbers ("Band 1"), as software gives."""
    return all(name.lower().startswith("band ") for name in names)


def contradicted(names: Sequence[str], centres_nm: NDArray[np.float64], sd_nm: NDArray[np.float64]) -> Note | None:
    """A warning where bands (c,) have names of a sensor's, but their centres, as the pair tells them, lie far from its.

    None where there is no sensor of these names, or one whose bands lie there, and for mere numbers ("band 1"). The
    advice is in which order the names would fit.
    """
    if _numbers(names):
        return None
    found = []
    for sensor in candidates(names):
        own, near = sensor.select(names), np.maximum(SAME_BAND_NM, BEYOND_SD * sd_nm)
        far = np.abs(centres_nm - own.centres_nm) > near
        if not far.any():
            return None
        away = np.abs(own.centres_nm - centres_nm[:, None])
        order = [own.bands[i] for i in away.argmin(1)] if (away.min(1) < near).all() else []
        order = order if len(set(order)) == len(names) else []
        found.append((not order, int(far.sum()), sensor.name, far, own, order))
    if not found:
        return None
    *_, sensor_name, far, own, order = min(found, key=lambda one: one[:2])
    told = ", ".join(
        f"{names[int(i)]} at {centres_nm[i]:.0f} nm, not {own.centres_nm[i]:.0f}" for i in np.flatnonzero(far)
    )
    advice = f"; if only their order is wrong, give --srf {sensor_name} --msi-bands {','.join(order)}" if order else ""
    return warning("names-contradicted", sensor=sensor_name, bands=told, advice=advice)


def _has(response: SpectralResponse, names: tuple[str, ...]) -> bool:
    try:
        return len({response.index(name) for name in names}) == len(names)
    except SrfError:
        return False


def _known(name: str) -> SpectralResponse | None:
    """A response of the library; None for a name that is none. A file of that name isn't asked."""
    path = Path(name)
    if not name.strip() or path.name != name or path.suffix.lower() in (".csv", ".txt") or path.is_file():
        return None
    try:
        return load_srf(name)
    except SrfError:
        return None


def _by_product(msi: CubeReader) -> Identified | None:
    """By the instrument, with its craft before without: a craft may carry several."""
    tags = {key.lower(): str(value) for key, value in msi.tags.items()}
    instruments, crafts = ([tags[key] for key in keys if tags.get(key)] for keys in (INSTRUMENT, CRAFT))
    for name in _names(instruments, crafts):
        if (response := _known(name)) is not None:
            return Identified(response, f"{name} by the metadata")
    return None


def _names(instruments: list[str], crafts: list[str]) -> Iterator[str]:
    words = [word for text in instruments for word in (text, text.replace("-", "_").split("_")[0])]
    yield from (f"{craft} {word}" for craft in crafts for word in words)
    yield from instruments
    if all(word.lower() in GENERIC for word in instruments):
        yield from crafts


def _by_provenance(msi: CubeReader) -> Identified | None:
    """By what hsfuse itself has written into the file, if that response is still the same."""
    record = read_provenance(msi.tags).get("provenance", read_provenance(msi.tags))
    settings = record.get("settings") if isinstance(record, dict) else None
    name = settings.get("srf") if isinstance(settings, dict) else None
    response = _known(name) if isinstance(name, str) else None
    if response is None or record.get("srf_sha256", response.sha256) != response.sha256:
        return None
    return Identified(response, f"{response.name} by the file's own provenance")


def _by_wavelengths(msi: CubeReader) -> Identified | None:
    """The library's sensor whose bands lie where the file's do, else Gaussians of the file's own FWHM."""
    spectrum = msi.spectrum
    if spectrum.wavelengths_nm is None:
        return None
    nm, fwhm = np.asarray(spectrum.wavelengths_nm), spectrum.fwhm_nm
    fits = []
    for record in list_srfs():
        response = load_srf(record.name)
        away = np.abs(response.centres_nm - nm[:, None])
        nearest = away.argmin(1)
        wide = np.ones(nm.size) if fwhm is None else np.asarray(fwhm) / response.fwhm_nm[nearest]
        near = NEAR_NM if fwhm is not None else ALONE_NM
        if away.min(1).max() < near and (np.abs(np.log(wide)) < LIKE_WIDTH).all() and len(set(nearest)) == nm.size:
            fits.append((float(away.min(1).sum()), response, tuple(response.bands[i] for i in nearest)))
    if fits:
        _, response, bands = min(fits, key=lambda fit: fit[0])
        return Identified(response, f"{response.name} by the wavelengths of its bands", bands)
    return None if fwhm is None else _gaussians(spectrum, nm, np.asarray(fwhm))


def _gaussians(spectrum: Spectrum, nm: FloatArray, fwhm: FloatArray) -> Identified:
    sd = np.maximum(fwhm * SIGMA_BY_FWHM, 0.5)
    fine = np.arange(max(1.0, (nm - REACH_SD * sd).min()), (nm + REACH_SD * sd).max() + 1)
    curves = np.exp(-(((fine - nm[:, None]) / sd[:, None]) ** 2) / 2)
    curves[curves < np.exp(-(REACH_SD**2) / 2)] = 0
    names = tuple((name or "").replace(",", " ").strip() for name in spectrum.names or ("",) * nm.size)
    bands = names if all(names) and len(set(names)) == nm.size else tuple(f"band {i + 1}" for i in range(nm.size))
    source = "Gaussians at the wavelengths and FWHM that the MSI's file tells"
    made = SpectralResponse("own", bands, fine, curves, source, approximate=True)
    return Identified(made, "Gaussians at its own wavelengths and FWHM, as the library has no such sensor", bands)

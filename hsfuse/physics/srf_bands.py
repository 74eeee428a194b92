"""Which band of a multispectral file is which band of a response."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hsfuse.core.errors import SettingError, SrfError
from hsfuse.core.notes import Note, warning
from hsfuse.physics.response import SpectralResponse, band_named


@dataclass(frozen=True)
class BandMatch:
    """Bands `indices` (0-based) of the MSI file are the response's `bands`; `how` says whence.

    `said` says it aloud: bands stand in place of {bands}.
    """

    indices: tuple[int, ...]
    bands: tuple[str, ...]
    how: str
    said: str

    @property
    def note(self) -> str:
        """What is worth saying of these bands."""
        return self.said.replace("{bands}", ", ".join(self.bands))

    def only(self, kept: Sequence[int]) -> BandMatch:
        """Those at some positions."""
        indices, bands = tuple(self.indices[k] for k in kept), tuple(self.bands[k] for k in kept)
        return replace(self, indices=indices, bands=bands)


#: How to be rid of a band that is none of the sensor's.
LEAVE_OUT = "'-' leaves one out, such as an alpha band or a mask"
#: No multispectral sensor of the library has so many bands.
MOST_BANDS = 36
#: An MSI band is part of the observation when the HSI covers at least this share of its response.
MIN_COVERAGE = 0.5


@dataclass(frozen=True, eq=False)
class CoveredBands:
    """R (c', C) for the bands that an HSI covers: their positions `kept` among those asked for, and the share of each.

    `note` says aloud which bands were left out; empty when none was.
    """

    matrix: NDArray[np.float64]
    kept: tuple[int, ...]
    bands: tuple[str, ...]
    coverage: tuple[float, ...]
    note: str


def covered_bands(
    response: SpectralResponse,
    bands: Sequence[str],
    wavelengths_nm: Sequence[float],
    fwhm_nm: Sequence[float] | None = None,
) -> CoveredBands:
    """The MSI bands that an HSI of these wavelengths covers, with their R; SrfError when it covers none."""
    matrix, coverage = response.select(bands).matrix(wavelengths_nm, fwhm_nm)
    kept = tuple(i for i, share in enumerate(coverage) if share >= MIN_COVERAGE)
    if not kept:
        raise SrfError(
            f"the HSI covers {min(wavelengths_nm):.0f} to {max(wavelengths_nm):.0f} nm, which holds none of the bands "
            f"{', '.join(bands)} of {response.name}: no spectral overlap"
        )
    out = [f"{bands[i]} ({coverage[i]:.0%} covered)" for i in range(len(bands)) if i not in kept]
    note = f"MSI bands left out, the HSI doesn't cover them: {', '.join(out)}" if out else ""
    return CoveredBands(
        matrix[list(kept)], kept, tuple(bands[i] for i in kept), tuple(float(coverage[i]) for i in kept), note
    )


def match_bands(
    srf: SpectralResponse, descriptions: Sequence[str | None], count: int, requested: Sequence[str] | None = None
) -> BandMatch:
    """Which of the `count` bands of an MSI file are which bands of `srf`.

    By `requested` names (one for each file band, '-' or '' leaves a band out; or fewer, of those that the file names
    itself), else by band descriptions (B2, B02,
    Band 2, Blue, 'blue - B02'), else by the sensor's default set for that many bands, else in order if there are as
    many as the response has. Raises SettingError if `requested` has another length, SrfError if nothing fits.
    """
    texts = _without_numbers(descriptions, count)
    if requested is not None and len(requested) < count and any(texts):
        return _match_chosen(srf, _match_descriptions(srf, texts), requested)
    if requested is not None:
        return _match_option(srf, count, requested)
    found = _match_descriptions(srf, texts)
    if found:
        left = [f"band {i + 1} ({texts[i] or 'no name'})" for i in range(count) if i not in found]
        said = "MSI bands by description: {bands}." + (f" Left out: {', '.join(left)}." if left else "")
        return BandMatch(tuple(found), tuple(found.values()), "description", said)
    bands = srf.defaults.get(count) or (srf.bands if count == len(srf.bands) else None)
    if bands is None:
        raise SrfError(_nothing_fits(srf, descriptions, count))
    note = f"The MSI's {count} bands carry no known names: taken as {', '.join(bands)} of {srf.name}, in this order."
    return BandMatch(tuple(range(count)), tuple(bands), "default", note)


def _match_option(srf: SpectralResponse, count: int, requested: Sequence[str]) -> BandMatch:
    if len(requested) != count:
        raise SettingError(
            f"--msi-bands names {len(requested)} bands but the MSI file has {count}: name each, {LEAVE_OUT}."
        )
    chosen = {i: srf.bands[srf.index(name)] for i, name in enumerate(requested) if name.strip() not in ("", "-")}
    twice = sorted({band for band in chosen.values() if list(chosen.values()).count(band) > 1})
    if twice or not chosen:
        raise SettingError(
            f"--msi-bands names {' and '.join(twice) + ' twice' if twice else 'no band'}: wanted each once."
        )
    left = [str(i + 1) for i in range(count) if i not in chosen]
    said = "MSI bands as given: {bands}." + (f" Left out: band {', '.join(left)}." if left else "")
    return BandMatch(tuple(chosen), tuple(chosen.values()), "option", said)


def _match_chosen(srf: SpectralResponse, named: dict[int, str], requested: Sequence[str]) -> BandMatch:
    """A choice among the bands that an MSI names itself, in the file's order."""
    wanted = [srf.bands[srf.index(name)] for name in requested if name.strip() not in ("", "-")]
    missing = [band for band in wanted if band not in named.values()]
    if missing or not wanted or len(set(wanted)) < len(wanted):
        what = f"{', '.join(missing)}, which the MSI doesn't have" if missing else "no band, or one twice"
        raise SettingError(f"--msi-bands names {what}; the MSI has {', '.join(named.values()) or 'no band names'}.")
    chosen = {i: band for i, band in named.items() if band in wanted}
    left = [band for band in named.values() if band not in wanted]
    said = f"MSI bands as chosen: {{bands}}. Left out: {', '.join(left) or 'none'}."
    return BandMatch(tuple(chosen), tuple(chosen.values()), "option", said)


def _without_numbers(descriptions: Sequence[str | None], count: int) -> list[str]:
    """Descriptions less 'Band 1', 'Band 2', ... in file order: software writes that where it knows nothing else."""
    texts = [(text or "").lower() for text in [*descriptions, *[None] * count][:count]]
    starts = [
        re.match(rf"\s*(?:band)?[\s_#-]*0*{i}(?![0-9a-z])[\s:_-]*", text) for i, text in enumerate(texts, start=1)
    ]
    return [text[m.end() :] for text, m in zip(texts, starts, strict=True) if m] if all(starts) else texts


def _match_descriptions(srf: SpectralResponse, texts: Sequence[str]) -> dict[int, str]:
    """{file band: response band}; SrfError if two file bands would be the same."""
    found: dict[int, str] = {}
    for i, text in enumerate(texts):
        band = band_named(text, srf.bands, srf.colours)
        if band is not None and band in found.values():
            other = next(k for k, name in found.items() if name == band)
            raise SrfError(
                f"MSI bands {other + 1} ({texts[other]}) and {i + 1} ({text}) both look like {band} of {srf.name}: "
                "say which is which with --msi-bands."
            )
        if band is not None:
            found[i] = band
    return found


def _nothing_fits(srf: SpectralResponse, descriptions: Sequence[str | None], count: int) -> str:
    if count > MOST_BANDS:
        return f"The MSI has {count} bands, which is an HSI's number: are --hsi and --msi swapped?"
    named = ", ".join(repr(d) for d in descriptions if d) or "no descriptions"
    usual = ", ".join(str(n) for n in sorted({*srf.defaults, len(srf.bands)}))
    return (
        f"The MSI has {count} bands ({named}) and none can be told: {srf.name} has {', '.join(srf.bands)} "
        f"and usual sets of {usual} bands. Name each one with --msi-bands, {LEAVE_OUT}{_such_as(srf, count)}."
    )


def _such_as(srf: SpectralResponse, count: int) -> str:
    """What to write where one band too many is all that is wrong."""
    usual = srf.defaults.get(count - 1)
    return "" if usual is None else f" (--msi-bands {','.join(usual)},-)"


#: Share of the largest weight in R from which on an MSI band sees an HSI band.
SEEN_WEIGHT = 0.01
#: Ranges without an MSI band, in nm, shorter than this aren't worth a word.
BLIND_RANGE_NM = 40.0
#: Where leaves' reflectance rises, in nm, the share of it that a range must hold, and the widest range named after it.
RED_EDGE_NM, RED_EDGE_SHARE, NAMED_NM = (700.0, 750.0), 0.5, 150.0


def seen_bands(weights: NDArray[np.floating[Any]]) -> NDArray[np.bool_]:
    """Which bands (C,) at least one row of R (c, C) weighs."""
    return np.asarray((weights > SEEN_WEIGHT * weights.max(axis=1, keepdims=True)).any(axis=0))


def unseen(wavelengths_nm: NDArray[np.floating[Any]], weights: NDArray[np.floating[Any]]) -> list[Note]:
    """A warning that names the ranges of the wavelengths (C,) that no row of R (c, C) weighs, if there are any."""
    ranges = blind_ranges(wavelengths_nm, weights)
    if not ranges:
        return []
    *most, last = [range_words(*limits) for limits in ranges]
    return [warning("unseen", ranges=f"{', '.join(most)} and {last}" if most else last)]


def range_words(low: float, high: float) -> str:
    """A range in nm, with the red edge by name where it lies there."""
    told, (start, end) = f"{low:.0f} to {high:.0f} nm", RED_EDGE_NM
    if min(high, end) - max(low, start) < RED_EDGE_SHARE * (end - start):
        return told
    return f"the red edge ({told})" if high - low <= NAMED_NM else f"{told} (with the red edge)"


def blind_ranges(
    wavelengths_nm: NDArray[np.floating[Any]], weights: NDArray[np.floating[Any]]
) -> list[tuple[float, float]]:
    """Ranges of the HSI's wavelengths (C,) that no row of R (c, C) weighs, at least `BLIND_RANGE_NM` wide."""
    order = np.argsort(wavelengths_nm)
    seen = seen_bands(weights)[order]
    edges = np.flatnonzero(np.diff(np.concatenate([[True], seen, [True]]).astype(int)))
    nm = wavelengths_nm[order]
    runs = [(float(nm[a]), float(nm[b - 1])) for a, b in zip(edges[::2], edges[1::2], strict=True)]
    return [(low, high) for low, high in runs if high - low >= BLIND_RANGE_NM]

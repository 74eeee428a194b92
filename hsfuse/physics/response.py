"""A sensor's response curves and the matrix R that they make for a hyperspectral sensor."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import ArrayLike, NDArray

from hsfuse.core.errors import SrfError

# Words for the same colour, letters and digits only; a sensor's CSV says which band has which colour.
COLOUR_WORDS = {
    "coastal": ("coastal", "coastalaerosol", "coastalblue", "deepblue", "ultrablue", "violet"),
    "blue": ("blue",),
    "green": ("green", "green2", "greenii"),
    "green1": ("green1", "greeni"),
    "yellow": ("yellow",),
    "red": ("red",),
    "rededge": ("rededge", "vegetationrededge", "re"),
    "rededge1": ("rededge1", "vegetationrededge1", "re1", "rededge071"),
    "rededge2": ("rededge2", "vegetationrededge2", "re2", "rededge075"),
    "rededge3": ("rededge3", "vegetationrededge3", "re3", "rededge078"),
    "rededge4": ("rededge4", "vegetationrededge4", "re4"),
    "nir": ("nir", "nearinfrared", "nearir"),
    **{f"nir{i}": (f"nir{i}", f"nearinfrared{i}", f"nearir{i}") for i in (1, 2)},
    "narrownir": ("narrownir", "nirnarrow", "nir08", "narrownearinfrared", "nearinfrarednarrow"),
    "watervapour": ("watervapour", "watervapor", "nir09"),
    "cirrus": ("cirrus", "swircirrus"),
    "swir": ("swir", "shortwaveinfrared"),
    "swir1": ("swir1", "swir16", "shortwaveinfrared1", "shortwaveir1"),
    "swir2": ("swir2", "swir22", "shortwaveinfrared2", "shortwaveir2"),
    **{f"swir{i}": (f"swir{i}",) for i in (3, 4, 5, 6, 7, 8)},
    "pan": ("pan", "panchromatic"),
}
_COLOUR_OF = {word: colour for colour, words in COLOUR_WORDS.items() for word in words}


def plain(text: str) -> str:
    """Lower case, letters and digits only."""
    return re.sub(r"[^a-z0-9]+", "", text.lower())


def band_named(text: str, bands: Sequence[str], colours: Mapping[str, str]) -> str | None:
    """The band that a text names: by band name (B2, b02, 'Band 2') first, else by its longest colour phrase."""
    phrases = _phrases(re.findall(r"[a-z0-9]+", text.lower()))
    names = {_band_key(name): name for name in bands}
    for phrase in phrases:
        if _band_key(phrase) in names:
            return names[_band_key(phrase)]
    for phrase in phrases:
        if phrase in _COLOUR_OF:
            return colours.get(_COLOUR_OF[phrase])
    return None


def _phrases(words: Sequence[str]) -> list[str]:
    """Neighbouring words joined, longest first."""
    return ["".join(words[i : i + n]) for n in range(len(words), 0, -1) for i in range(len(words) - n + 1)]


def _band_key(name: str) -> str:
    """'B02', 'Band 2' and 'B2' alike."""
    return re.sub(r"^(?:band|b)0*(?=\d)", "b", plain(name))


FloatArray = NDArray[np.float64]

GAP_FACTOR = 3.0  # neighbouring HSI centres further apart than this many usual spacings: bands were dropped between
MERGE_FACTOR = 0.1  # HSI centres closer than this share of the usual spacing are one (two detectors see the same)


@dataclass(frozen=True, eq=False)
class SpectralResponse:
    """Relative response (c, n) of c bands, peak 1, at n rising wavelengths in nm; linear between, zero outside.

    `approximate`: built from published centres and widths, not measured. `note` is what a user should be told.
    `weights`: the values are weights of an HSI's bands at these centres, such as were estimated from a pair.
    `defaults`: number of bands of an MSI file -> the bands usually delivered; `colours`: colour -> band.

    >>> nm = np.array([600.0, 610.0, 620.0, 630.0])
    >>> red = SpectralResponse("mine", ("red",), nm, np.array([[0.0, 1.0, 1.0, 0.0]]))
    >>> weights, covered = red.matrix([605.0, 615.0, 625.0])
    >>> weights.shape, round(float(weights.sum()), 6)
    ((1, 3), 1.0)
    """

    name: str
    bands: tuple[str, ...]
    wavelengths_nm: FloatArray
    response: FloatArray
    source: str = ""
    sensor: str = ""
    terms: str = ""
    approximate: bool = False
    path: Path | None = None
    sha256: str = ""
    note: str = ""
    weights: bool = False
    defaults: Mapping[int, tuple[str, ...]] = field(default_factory=dict)
    colours: Mapping[str, str] = field(default_factory=dict)

    def __repr__(self) -> str:
        low, high = (f"{self.wavelengths_nm[i]:g}" for i in (0, -1))
        return f"SpectralResponse({self.name}, bands {', '.join(self.bands)}, {low} to {high} nm)"

    @property
    def curve(self) -> FloatArray:
        """(c, n) response per nm, any scale: weights of wide HSI bands are large for that reason alone."""
        return self.response / np.gradient(self.wavelengths_nm) if self.weights else self.response

    @property
    def centres_nm(self) -> FloatArray:
        """(c,) response-weighted mean wavelength of each band."""
        low, high = self.curve[:, :-1], self.curve[:, 1:]
        wl, step = self.wavelengths_nm, np.diff(self.wavelengths_nm)
        moment = (low * (2 * wl[:-1] + wl[1:]) + high * (wl[:-1] + 2 * wl[1:])) @ step / 6
        return moment / ((low + high) @ step / 2)

    @property
    def fwhm_nm(self) -> FloatArray:
        """(c,) distance between the outermost crossings of half the peak."""
        return np.array([half_width(self.wavelengths_nm, row) for row in self.curve])

    def record(self) -> dict[str, Any]:
        """Bands and curves for JSON, which `of_record` makes a response of again."""
        curves = {
            band: [float(f"{one:.7g}") for one in row] for band, row in zip(self.bands, self.response, strict=True)
        }
        nm = [round(float(one), 6) for one in self.wavelengths_nm]
        return {
            "name": self.name,
            "source": self.source,
            "weights": self.weights,
            "wavelengths_nm": nm,
            "curves": curves,
        }

    @classmethod
    def of_record(cls, record: Mapping[str, Any]) -> SpectralResponse:
        """What `record` has written; SrfError for anything else."""
        try:
            nm, rows = (np.array(one, np.float64) for one in (record["wavelengths_nm"], [*record["curves"].values()]))
            if rows.shape != (len(rows), nm.size) or not (np.diff(nm) > 0).all() or not np.isfinite(rows).all():
                raise ValueError("its curves aren't numbers at rising wavelengths")
            names = tuple(record["curves"])
            return cls(str(record["name"]), names, nm, rows, str(record["source"]), weights=bool(record["weights"]))
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise SrfError(f"the record of a response can't be read: {error}") from error

    def select(self, bands: Sequence[str]) -> SpectralResponse:
        """The same response with only `bands`, in that order; an unknown name is a SrfError."""
        index = [self.index(name) for name in bands]
        return replace(self, bands=tuple(self.bands[i] for i in index), response=self.response[index])

    def index(self, name: str) -> int:
        """Position of a band given by its name, one like it (b02) or its colour; SrfError names the known ones."""
        band = name if name in self.bands else band_named(name, self.bands, self.colours)
        if band is None:
            raise SrfError(f"{self.name} has no band {name!r}; it has {', '.join(self.bands)}.")
        return self.bands.index(band)

    def matrix(self, wavelengths_nm: ArrayLike, fwhm_nm: ArrayLike | None = None) -> tuple[FloatArray, FloatArray]:
        """R (c, C), rows sum to 1 (all 0 for a band not covered), and coverage (c,) in [0, 1].

        R @ x integrates the piecewise-linear interpolant of the spectrum x (C,) against each response, exactly: a flat
        spectrum gives itself, a linear one its value at the band's centre. The FWHM of the HSI bands (default: their
        local spacing) only says how far the HSI sees beyond its end centres and into gaps. Its blur is in x already and
        is not undone: an MSI band narrower than the HSI's bands comes out smoother than that sensor would see it.
        coverage is the share of a band's response inside the HSI's range and outside gaps (centres further apart than
        3 usual spacings, where bands were dropped); R interpolates across gaps. The order of `wavelengths_nm` is free;
        centres of overlapping detectors that all but coincide share one weight. Where the table is sampled at exactly
        the HSI's centres, its rows themselves, made to sum to 1, are R: so a ready-made R can be given as a CSV.
        """
        centres, fwhm = _checked_centres(wavelengths_nm, fwhm_nm)
        order = np.argsort(centres, kind="stable")
        nodes, member = merged_centres(centres[order])
        widths = _node_widths(nodes, None if fwhm is None else fwhm[order], member)
        weights, coverage = _integrate(self, nodes, widths)
        if centres.size == self.wavelengths_nm.size and np.allclose(centres[order], self.wavelengths_nm, atol=0.01):
            weights, coverage, member = self.response, np.ones(len(self.bands)), np.arange(centres.size)
        shared = weights[:, member] / np.bincount(member)[member]
        total = shared.sum(axis=1, keepdims=True)
        out = np.empty_like(shared)
        out[:, order] = np.divide(shared, total, out=np.zeros_like(shared), where=total > 0)
        return out, coverage


def _checked_centres(wavelengths_nm: ArrayLike, fwhm_nm: ArrayLike | None) -> tuple[FloatArray, FloatArray | None]:
    """Centres (C,) and FWHM (C,) or None as float64; SrfError for what can't be a set of bands."""
    centres = np.asarray(wavelengths_nm, dtype=np.float64).ravel()
    if centres.size == 0 or not np.isfinite(centres).all() or centres.min() <= 0:
        raise SrfError(f"The {centres.size} HSI wavelengths must all be positive numbers in nm.")
    if fwhm_nm is None:
        return centres, None
    fwhm = np.asarray(fwhm_nm, dtype=np.float64).ravel()
    if fwhm.size != centres.size:
        raise SrfError(f"The HSI has {centres.size} wavelengths but {fwhm.size} FWHM values: give one for each band.")
    return centres, fwhm


def merged_centres(centres: FloatArray) -> tuple[FloatArray, NDArray[np.intp]]:
    """Nodes (m,) from rising centres (C,), near duplicates merged to their mean, and the node (C,) of each centre."""
    step = np.diff(centres)
    usual = np.median(step[step > 0]) if (step > 0).any() else 0.0
    member = np.concatenate([[0], np.cumsum(step > MERGE_FACTOR * usual)]).astype(np.intp)
    return np.bincount(member, weights=centres) / np.bincount(member), member


def _usual_spacing(nodes: FloatArray, reach: int = 5) -> FloatArray:
    """(m - 1,) median of the spacings around each spacing: what it would be had no band been dropped."""
    step = np.diff(nodes)
    if not step.size:
        return step
    around = np.sort(sliding_window_view(np.pad(step, reach, constant_values=np.nan), 2 * reach + 1))
    known = np.isfinite(around).sum(1)  # NaN, beyond either end, is sorted last
    middle: FloatArray = np.take_along_axis(around, np.stack([(known - 1) // 2, known // 2], 1), 1).mean(1)
    return middle


def _node_widths(nodes: FloatArray, fwhm: FloatArray | None, member: NDArray[np.intp]) -> FloatArray:
    """(m,) FWHM of each node; unknown (None, NaN, 0) ones are the local spacing."""
    usual = _usual_spacing(nodes) if nodes.size > 1 else np.array([10.0])  # one band alone: an ordinary HSI's width
    spacing = np.concatenate([usual, usual[-1:]]) if nodes.size > 1 else usual
    if fwhm is None:
        return spacing
    widest = np.zeros(nodes.size)
    np.maximum.at(widest, member, np.nan_to_num(fwhm))
    return np.where(widest > 0, widest, spacing)


def _uncovered(nodes: FloatArray, widths: FloatArray) -> Iterator[tuple[float, float]]:
    """Stretches of wavelength that the HSI doesn't see: before, after, and gaps of dropped bands."""
    yield 0.0, nodes[0] - widths[0] / 2
    yield nodes[-1] + widths[-1] / 2, np.inf
    step, reach = np.diff(nodes), (widths[:-1] + widths[1:]) / 2
    for i in np.flatnonzero(step > np.maximum(GAP_FACTOR * _usual_spacing(nodes), reach)):
        yield nodes[i] + widths[i] / 2, nodes[i + 1] - widths[i + 1] / 2


def _integrate(srf: SpectralResponse, nodes: FloatArray, widths: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Weights (c, m) of the nodes, not normalised, and coverage (c,)."""
    holes = list(_uncovered(nodes, widths))
    edges = [edge for hole in holes for edge in hole if np.isfinite(edge) and edge > 0]
    wl = srf.wavelengths_nm
    fine = np.unique(np.concatenate([wl, [x for x in (*nodes, *edges) if wl[0] < x < wl[-1]]]))
    response = np.array([np.interp(fine, wl, row) for row in srf.curve])
    mid, area = (fine[:-1] + fine[1:]) / 2, (response[:, :-1] + response[:, 1:]) * np.diff(fine) / 2
    seen = ~np.any([(mid > low) & (mid < high) for low, high in holes], axis=0)
    inside = (mid > holes[0][1]) & (mid < holes[1][0])
    weights = response @ _hat_integrals(fine, nodes, inside)
    coverage = np.minimum(1.0, area[:, seen].sum(axis=1) / area.sum(axis=1))
    weights[coverage == 0] = 0
    return weights, coverage


def _hat_integrals(fine: FloatArray, nodes: FloatArray, use: NDArray[np.bool_]) -> FloatArray:
    """(n, m): entry i, j is the integral of fine's hat i times nodes' hat j over the intervals in `use`.

    `fine` must hold every node inside its range: then both are linear on each interval and the product integrates
    exactly to step/6 (2 f0 g0 + f0 g1 + f1 g0 + 2 f1 g1). Outside the end nodes their hats stay 1.
    """
    hats = np.array([np.interp(fine, nodes, unit) for unit in np.eye(nodes.size)]).T
    step = (np.diff(fine) * use)[:, None] / 6
    out = np.zeros((fine.size, nodes.size))
    out[:-1] += step * (2 * hats[:-1] + hats[1:])
    out[1:] += step * (hats[:-1] + 2 * hats[1:])
    return out


def half_width(wl: FloatArray, row: FloatArray) -> float:
    """Between the outermost crossings of half a response's peak; the table's end where it never falls that low."""
    above = np.flatnonzero(row >= row.max() / 2)
    first, last = above[0], above[-1]
    low, high = wl[first], wl[last]
    if first > 0:
        low = np.interp(row.max() / 2, row[first - 1 : first + 1], wl[first - 1 : first + 1])
    if last < wl.size - 1:
        high = np.interp(row.max() / 2, row[last : last + 2][::-1], wl[last : last + 2][::-1])
    return float(high - low)

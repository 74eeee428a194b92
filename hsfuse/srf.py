"""Spectral responses: the library in `srf/`, a user's own CSV, R for a given hyperspectral sensor, which file band is which.

Letters: C hyperspectral bands, c multispectral bands, n samples of a response table. Wavelengths in nm.
"""

from __future__ import annotations

import difflib
import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hsfuse.errors import SettingError, SrfError
from hsfuse.resources import data_folder

FloatArray = NDArray[np.float64]

GAP_FACTOR = 3.0  # neighbouring HSI centres further apart than this many usual spacings: bands were dropped between
MERGE_FACTOR = 0.1  # HSI centres closer than this share of the usual spacing are one (two detectors see the same)
# Words for the same colour, letters and digits only; a sensor's CSV says which band has which colour.
COLOUR_WORDS = {
    "coastal": ("coastal", "coastalaerosol", "coastalblue", "aerosol", "aerosols", "deepblue", "ultrablue", "violet"),
    "blue": ("blue",),
    "green": ("green", "green2", "greenii"),
    "green1": ("green1", "greeni"),
    "yellow": ("yellow",),
    "red": ("red",),
    "rededge": ("rededge", "vegetationrededge", "re"),
    **{f"rededge{i}": (f"rededge{i}", f"vegetationrededge{i}", f"re{i}") for i in (1, 2, 3, 4)},
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


@dataclass(frozen=True)
class SrfRecord:
    """One entry of the library, from its header alone: enough for a listing."""

    name: str
    sensor: str
    bands: tuple[str, ...]
    source: str
    terms: str
    approximate: bool
    aliases: tuple[str, ...]
    presumed_for: tuple[str, ...]
    path: Path


@dataclass(frozen=True, eq=False)
class SpectralResponse:
    """Relative response (c, n) of c bands, peak 1, at n rising wavelengths in nm; linear between, zero outside.

    `approximate`: built from published centres and widths, not measured. `note` is what a user should be told.
    `defaults`: number of bands of an MSI file -> the bands usually delivered; `colours`: colour -> band.
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
    defaults: Mapping[int, tuple[str, ...]] = field(default_factory=dict)
    colours: Mapping[str, str] = field(default_factory=dict)

    @property
    def centres_nm(self) -> FloatArray:
        """(c,) response-weighted mean wavelength of each band."""
        wl = self.wavelengths_nm
        return (self.response @ _hat_integrals(wl, wl) @ wl) / np.trapezoid(self.response, wl, axis=1)

    @property
    def fwhm_nm(self) -> FloatArray:
        """(c,) distance between the outermost crossings of half the peak."""
        return np.array([_half_width(self.wavelengths_nm, row) for row in self.response])

    def select(self, bands: Sequence[str]) -> SpectralResponse:
        """The same response with only `bands`, in that order; an unknown name is a SrfError."""
        index = [_find_band(self, name) for name in bands]
        return replace(self, bands=tuple(self.bands[i] for i in index), response=self.response[index])

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
        nodes, member = _merged(centres[order])
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


def _merged(centres: FloatArray) -> tuple[FloatArray, NDArray[np.intp]]:
    """Nodes (m,) from rising centres (C,), near duplicates merged to their mean, and the node (C,) of each centre."""
    step = np.diff(centres)
    usual = np.median(step[step > 0]) if (step > 0).any() else 0.0
    member = np.concatenate([[0], np.cumsum(step > MERGE_FACTOR * usual)]).astype(np.intp)
    return np.bincount(member, weights=centres) / np.bincount(member), member


def _usual_spacing(nodes: FloatArray, reach: int = 5) -> FloatArray:
    """(m - 1,) median of the spacings around each spacing: what it would be had no band been dropped."""
    step = np.diff(nodes)
    return np.array([np.median(step[max(0, i - reach) : i + reach + 1]) for i in range(step.size)])


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
    response = np.array([np.interp(fine, wl, row) for row in srf.response])
    mid, area = (fine[:-1] + fine[1:]) / 2, (response[:, :-1] + response[:, 1:]) * np.diff(fine) / 2
    seen = ~np.any([(mid > low) & (mid < high) for low, high in holes], axis=0)
    inside = (mid > holes[0][1]) & (mid < holes[1][0])
    weights = response @ _hat_integrals(fine, nodes, inside)
    return weights, np.minimum(1.0, area[:, seen].sum(axis=1) / area.sum(axis=1))


def _hat_integrals(fine: FloatArray, nodes: FloatArray, use: NDArray[np.bool_] | None = None) -> FloatArray:
    """(n, m): entry i, j is the integral of fine's hat i times nodes' hat j over the intervals in `use`.

    `fine` must hold every node inside its range: then both are linear on each interval and the product integrates
    exactly to step/6 (2 f0 g0 + f0 g1 + f1 g0 + 2 f1 g1). Outside the end nodes their hats stay 1.
    """
    hats = np.array([np.interp(fine, nodes, unit) for unit in np.eye(nodes.size)]).T
    step = np.diff(fine)[:, None] / 6
    if use is not None:
        step = step * use[:, None]
    out = np.zeros((fine.size, nodes.size))
    out[:-1] += step * (2 * hats[:-1] + hats[1:])
    out[1:] += step * (hats[:-1] + 2 * hats[1:])
    return out


def _half_width(wl: FloatArray, row: FloatArray) -> float:
    """Distance between the outermost crossings of half the peak; the table's end where it never falls that low."""
    above = np.flatnonzero(row >= row.max() / 2)
    first, last = above[0], above[-1]
    low, high = wl[first], wl[last]
    if first > 0:
        low = np.interp(row.max() / 2, row[first - 1 : first + 1], wl[first - 1 : first + 1])
    if last < wl.size - 1:
        high = np.interp(row.max() / 2, row[last : last + 2][::-1], wl[last : last + 2][::-1])
    return float(high - low)


# ---- the library and CSV files


def list_srfs() -> list[SrfRecord]:
    """Every response of the library, by name; only the files' headers are read."""
    return [_record(path) for path in sorted(data_folder("srf").glob("*.csv"))]


def load_srf(name_or_path: str | Path) -> SpectralResponse:
    """A response of the library by name or alias (case, '-', '_' and blanks don't matter), or a CSV by its path.

    Raises SrfError for an unknown name (near names are given) or a malformed file. `note` says what was presumed.
    """
    path = Path(name_or_path)
    if path.suffix.lower() in (".csv", ".txt") or path.is_file() or len(path.parts) > 1:
        return _read_csv(path)
    record, presumed = _look_up(str(name_or_path))
    notes = [f"{name_or_path} means {record.sensor} ({record.name})."] if presumed else []
    if record.approximate:
        notes.append(f"The response of {record.sensor} is an approximation, not a measured curve.")
    return replace(_read_csv(record.path), note=" ".join(notes))


def _look_up(name: str) -> tuple[SrfRecord, bool]:
    """The record that `name` means, and whether one of several was presumed."""
    key, known = _plain(name), {}
    for record in list_srfs():
        for alias in (record.name, *record.aliases, *record.presumed_for):
            known[_plain(alias)] = (alias, record, alias in record.presumed_for)
    if key in known:
        return known[key][1:]
    near = [known[k][0] for k in difflib.get_close_matches(key, known, n=4, cutoff=0.6)]
    hint = f"did you mean {', '.join(near)}?" if near else "`hsfuse srf list` shows what there is."
    raise SrfError(f"No spectral response is called {name!r}: {hint} A CSV of your own is given by its path.")


def _plain(text: str) -> str:
    """Lower case, letters and digits only."""
    return re.sub(r"[^a-z0-9]+", "", text.lower())


def _split_list(text: str) -> tuple[str, ...]:
    return tuple(part for part in re.split(r"[,\s]+", text) if part)


def _read_header(path: Path) -> tuple[dict[str, str], list[str], int]:
    """`# key: value` comments, the column names and how many lines they take."""
    meta: dict[str, str] = {}
    try:
        with path.open(encoding="utf-8-sig") as lines:
            for number, line in enumerate(lines, start=1):
                text = line.strip()
                if text.startswith("#"):
                    key, _, value = text.lstrip("# ").partition(":")
                    meta[key.strip().lower()] = " ".join(filter(None, [meta.get(key.strip().lower()), value.strip()]))
                elif text:
                    return meta, [name.strip().strip('"') for name in text.split(",")], number
    except FileNotFoundError:
        raise SrfError(f"{path}: there is no such response file.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise SrfError(f"{path}: can't be read as text ({error}).") from None
    raise SrfError(f"{path}: holds no table; wanted a header 'wavelength_nm,BAND,...' and rows of numbers.")


def _record(path: Path) -> SrfRecord:
    meta, columns, _ = _read_header(path)
    return SrfRecord(
        name=path.stem,
        sensor=meta.get("sensor", path.stem),
        bands=tuple(columns[1:]),
        source=meta.get("source", ""),
        terms=meta.get("terms", ""),
        approximate="approximation" in meta,
        aliases=_split_list(meta.get("alias", "")),
        presumed_for=_split_list(meta.get("presumed for", "")),
        path=path,
    )


def _read_csv(path: Path) -> SpectralResponse:
    """A response table; SrfError says the line and what is wrong."""
    meta, columns, skip = _read_header(path)
    if columns[0].lower() != "wavelength_nm":
        raise SrfError(f"{path}: the first column is {columns[0]!r}; wanted 'wavelength_nm', then one column a band.")
    bands = tuple(columns[1:])
    if not bands or len(set(bands)) < len(bands) or not all(bands):
        raise SrfError(f"{path}: wanted one named column for each band, each name once; found {', '.join(bands)!r}.")
    table = _read_numbers(path, len(columns), skip)
    wavelengths, response = table[:, 0], table[:, 1:].T
    _check_table(path, bands, wavelengths, response)
    record = _record(path)
    return SpectralResponse(
        name=record.name,
        bands=bands,
        wavelengths_nm=wavelengths,
        response=response / response.max(axis=1, keepdims=True),
        source=record.source,
        sensor=record.sensor,
        terms=record.terms,
        approximate=record.approximate,
        path=path,
        sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
        defaults={int(k.split()[1]): _split_list(v) for k, v in meta.items() if re.fullmatch(r"default \d+", k)},
        colours={k.split()[1]: v for k, v in meta.items() if re.fullmatch(r"colour \w+", k)},
    )


def _read_numbers(path: Path, columns: int, skip: int) -> FloatArray:
    """(n, columns) numbers of the rows after `skip` lines; an empty cell is 0."""
    rows = []
    for number, line in enumerate(path.read_text(encoding="utf-8-sig").splitlines()[skip:], start=skip + 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        cells = line.split(",")
        if len(cells) != columns:
            raise SrfError(f"{path}, line {number}: {len(cells)} values where the header names {columns} columns.")
        try:
            rows.append([float(cell.strip() or 0) for cell in cells])
        except ValueError:
            raise SrfError(
                f"{path}, line {number}: {line.strip()[:60]!r} holds something that isn't a number."
            ) from None
    return np.array(rows).reshape(-1, columns)


def _check_table(path: Path, bands: tuple[str, ...], wavelengths: FloatArray, response: FloatArray) -> None:
    """SrfError unless wavelengths rise, are nm, and every band has a response >= 0 and somewhere above."""
    if wavelengths.size < 2:
        raise SrfError(f"{path}: {wavelengths.size} rows; wanted at least 2 wavelengths.")
    if not (np.isfinite(wavelengths).all() and np.isfinite(response).all()):
        raise SrfError(f"{path}: holds NaN or infinite values; wanted numbers.")
    if wavelengths.max() < 30:
        raise SrfError(f"{path}: wavelengths up to {wavelengths.max():g} look like micrometres; wanted nm (x 1000).")
    if (np.diff(wavelengths) <= 0).any() or wavelengths[0] <= 0:
        row = int(np.argmax(np.diff(wavelengths) <= 0)) + 1
        raise SrfError(
            f"{path}: wavelengths must be positive and rise; {wavelengths[row]:g} nm follows {wavelengths[row - 1]:g} nm."
        )
    for name, row in zip(bands, response, strict=True):
        if row.min() < 0:
            raise SrfError(f"{path}: band {name} has a negative response ({row.min():g}); wanted 0 or more.")
        if row.max() == 0:
            raise SrfError(f"{path}: band {name} is zero everywhere; leave the column out.")


# ---- which band of an MSI file is which band of the response


@dataclass(frozen=True)
class BandMatch:
    """Bands `indices` (0-based) of the MSI file are the response's `bands`; `how` was it known, `note` says it aloud."""

    indices: tuple[int, ...]
    bands: tuple[str, ...]
    how: str
    note: str


def match_bands(
    srf: SpectralResponse, descriptions: Sequence[str | None], count: int, requested: Sequence[str] | None = None
) -> BandMatch:
    """Which of the `count` bands of an MSI file are which bands of `srf`.

    By `requested` names (one for each file band, '-' or '' leaves a band out), else by band descriptions (B2, B02,
    Band 2, Blue, 'blue - B02'), else by the sensor's default set for that many bands, else in order if there are as
    many as the response has. Raises SettingError if `requested` has another length, SrfError if nothing fits.
    """
    if requested is not None:
        return _match_option(srf, count, requested)
    found = {} if _only_numbered(descriptions) else _match_descriptions(srf, descriptions)
    if found:
        left = [f"band {i + 1} ({descriptions[i] or 'no name'})" for i in range(count) if i not in found]
        note = f"MSI bands by description: {', '.join(found.values())}." + (
            f" Left out: {', '.join(left)}." if left else ""
        )
        return BandMatch(tuple(found), tuple(found.values()), "description", note)
    bands = srf.defaults.get(count) or (srf.bands if count == len(srf.bands) else None)
    if bands is None:
        raise SrfError(_nothing_fits(srf, descriptions, count))
    note = f"The MSI's {count} bands carry no known names: taken as {', '.join(bands)} of {srf.name}, in this order."
    return BandMatch(tuple(range(count)), tuple(bands), "default", note)


def _match_option(srf: SpectralResponse, count: int, requested: Sequence[str]) -> BandMatch:
    if len(requested) != count:
        raise SettingError(
            f"--msi-bands names {len(requested)} bands but the MSI file has {count}: name each one, '-' leaves one out."
        )
    chosen = {i: srf.bands[_find_band(srf, name)] for i, name in enumerate(requested) if name.strip() not in ("", "-")}
    twice = sorted({band for band in chosen.values() if list(chosen.values()).count(band) > 1})
    if twice or not chosen:
        raise SettingError(
            f"--msi-bands names {' and '.join(twice) + ' twice' if twice else 'no band'}: wanted each once."
        )
    left = [str(i + 1) for i in range(count) if i not in chosen]
    note = f"MSI bands as given: {', '.join(chosen.values())}." + (
        f" Left out: band {', '.join(left)}." if left else ""
    )
    return BandMatch(tuple(chosen), tuple(chosen.values()), "option", note)


def _only_numbered(descriptions: Sequence[str | None]) -> bool:
    """True for 'Band 1', 'Band 2', ... in order: what software writes where it knows nothing."""
    return all(_plain(d or "") in (f"band{i}", str(i)) for i, d in enumerate(descriptions, start=1))


def _match_descriptions(srf: SpectralResponse, descriptions: Sequence[str | None]) -> dict[int, str]:
    """{file band: response band}; SrfError if two file bands would be the same."""
    found: dict[int, str] = {}
    for i, text in enumerate(descriptions):
        band = _band_of(srf, text or "")
        if band is not None and band in found.values():
            other = next(k for k, name in found.items() if name == band)
            raise SrfError(
                f"MSI bands {other + 1} ({descriptions[other]}) and {i + 1} ({text}) both look like {band} of {srf.name}: "
                "say which is which with --msi-bands."
            )
        if band is not None:
            found[i] = band
    return found


def _band_of(srf: SpectralResponse, text: str) -> str | None:
    """The band that a description names: by band name first, then by the longest colour phrase in it."""
    words = re.findall(r"[a-z0-9]+", text.lower())
    names = {_band_key(name): name for name in srf.bands}
    for phrase in _phrases(words):
        if _band_key(phrase) in names:
            return names[_band_key(phrase)]
    for phrase in _phrases(words):
        if phrase in _COLOUR_OF:
            return srf.colours.get(_COLOUR_OF[phrase])
    return None


def _phrases(words: Sequence[str]) -> list[str]:
    """Neighbouring words joined, longest first."""
    return ["".join(words[i : i + n]) for n in range(len(words), 0, -1) for i in range(len(words) - n + 1)]


def _band_key(name: str) -> str:
    """'B02', 'Band 2' and 'B2' alike."""
    return re.sub(r"^(?:band|b)0*(?=\d)", "b", _plain(name))


def _find_band(srf: SpectralResponse, name: str) -> int:
    """Index of a band by exact name, by a like one (b02) or by colour; SrfError names the known ones."""
    band = name if name in srf.bands else _band_of(srf, name)
    if band is None:
        raise SrfError(f"{srf.name} has no band {name!r}; it has {', '.join(srf.bands)}.")
    return srf.bands.index(band)


def _nothing_fits(srf: SpectralResponse, descriptions: Sequence[str | None], count: int) -> str:
    named = ", ".join(repr(d) for d in descriptions if d) or "no descriptions"
    usual = ", ".join(str(n) for n in sorted({*srf.defaults, len(srf.bands)}))
    return (
        f"The MSI has {count} bands ({named}) and none can be told: {srf.name} has {', '.join(srf.bands)} and usual sets of "
        f"{usual} bands. Name each band with --msi-bands."
    )

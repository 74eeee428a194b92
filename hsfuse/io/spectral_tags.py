"""Where a raster file says what its bands are, and what hsfuse writes so that other programs find it.

Places, in the order they are believed: the ENVI header, per-band tags (EnMAP-Box and GDAL's ENVI driver), dataset tags,
GDAL's IMAGERY domain (rounded to 0.001 um where GDAL derives it), band descriptions. Per-band places come before lists
because a list goes stale when another program picks bands.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from statistics import median
from typing import Any
from urllib.parse import unquote

from rasterio.io import DatasetReader

from hsfuse.core.cube import Spectrum
from hsfuse.core.errors import InputError
from hsfuse.io.envi import EnviPair
from hsfuse.io.gdal import descriptions, tags

#: Dataset tag in which `hsfuse fuse` writes what was done, as JSON.
PROVENANCE_TAG = "HSFUSE_PROVENANCE"
#: And that in which it writes what it had to say after that, as records of notes.
SAID_TAG = "HSFUSE_SAID"


def read_provenance(tags: Mapping[str, str]) -> dict[str, Any]:
    """What the dataset tags say of the file's making; {} when nothing; what isn't JSON is kept as text."""
    own = PROVENANCE_TAG, SAID_TAG
    text, later = (next((value for key, value in tags.items() if key.upper() == tag), None) for tag in own)
    others = {k: v for k, v in tags.items() if k.upper().startswith("HSFUSE_") and k.upper() not in own}
    if text is None:
        return dict(others)
    try:
        record = json.loads(text)
    except json.JSONDecodeError:
        record = {"provenance": text}
    record = record if isinstance(record, dict) else {"provenance": record}
    with suppress(ValueError, TypeError):
        if later is not None:
            record["said"] = [*record.get("said", ()), *json.loads(later)]
    return {**others, **record}


#: Colours that name bands without names.
COLOURS = frozenset({"red", "green", "blue", "nir", "coastal", "rededge", "yellow", "pan"})

#: What is said where nothing tells wavelengths.
UNTOLD = (
    "no wavelengths: wanted them in the ENVI header, in band tags (wavelength, or CENTRAL_WAVELENGTH_UM in the "
    "IMAGERY domain) or in band descriptions such as '418.24 nm'"
)

#: Nanometres a unit, by the unit's spelling in lower case.
_FACTORS = {
    **dict.fromkeys(("nm", "nanometer", "nanometers", "nanometre", "nanometres", "nanom"), 1.0),
    **dict.fromkeys(("um", "µm", "μm", "micron", "microns", "microm"), 1e3),
    **dict.fromkeys(("micrometer", "micrometers", "micrometre", "micrometres", "mkm"), 1e3),
    **dict.fromkeys(("a", "å", "angstrom", "angstroms"), 0.1),
    **dict.fromkeys(("mm", "millimeter", "millimeters", "millimetre", "millimetres"), 1e6),
    **dict.fromkeys(("cm", "centimeter", "centimeters", "centimetre", "centimetres"), 1e7),
    **dict.fromkeys(("m", "meter", "meters", "metre", "metres"), 1e9),
}
_NO_LENGTH = re.compile(r"wave ?number|cm\^?-1|1/cm|[kmgt]?hz|hertz|index|band ?number", re.IGNORECASE)

#: What an optical sensor's band centre and FWHM can be, in nm. The first range is narrower than a factor of 1000, so
#: nanometres and micrometres can't be taken for each other.
_CENTRES_NM = (200.0, 20_000.0)
_WIDTHS_NM = (0.05, 3_000.0)


def unit_factor(unit: str | None) -> float | None:
    """Nanometres a unit; None when the unit isn't said or isn't known. InputError for units that are no length."""
    text = (unit or "").strip().strip("[](){}").strip().lower()
    if _NO_LENGTH.fullmatch(text):
        raise InputError(f"wavelengths in {unit!r} can't be used; wanted nanometres or micrometres")
    return _FACTORS.get(text)


def to_nm(values: Sequence[float], unit: str | None) -> tuple[tuple[float, ...], float, str | None]:
    """Band centres in nm, the factor used, and a note when that isn't what the unit says.

    Values are believed before the unit: 0.46 "Nanometers" are micrometres. InputError when neither makes sense.
    """
    said = unit_factor(unit)
    if said is not None and _within(values, said, _CENTRES_NM):
        return _scaled(values, said), said, None
    guess = _guess(values)
    told = f"given as {unit.strip()}" if unit and unit.strip() else "given without a unit"
    span = f"{min(values):g} to {max(values):g}"
    if guess is None and _counts(values):
        raise InputError(f"no wavelengths: {span}, {told}, are the numbers of bands")
    if guess is None:
        raise InputError(f"wavelengths in unknown units: {span} {told}; wanted nanometres or micrometres")
    return _scaled(values, guess), guess, f"wavelengths {span}, {told}, are taken as {_name(guess)}"


def widths_to_nm(values: Sequence[float], factor: float) -> tuple[tuple[float, ...] | None, str | None]:
    """FWHM in nm given the factor of the wavelengths; (None, why) when the values can't be FWHM."""
    for trial in (factor, 1.0, 1e3):
        if min(values) > 0 and _within([median(values)], trial, _WIDTHS_NM):
            note = None if trial == factor else f"FWHM of about {median(values):g} are taken as {_name(trial)}"
            return _scaled(values, trial), note
    return None, f"FWHM of {min(values):g} to {max(values):g} make no sense and are not used"


def _name(factor: float) -> str:
    return "nanometres" if factor == 1 else "micrometres"


def _guess(values: Sequence[float]) -> float | None:
    """Factor that makes the values plausible; numbers that count, or whole ones under 20, are rather band numbers."""
    if _counts(values):
        return None
    if _within(values, 1.0, _CENTRES_NM):
        return 1.0
    if _within(values, 1e3, _CENTRES_NM) and not all(float(v).is_integer() for v in values):
        return 1e3
    return None


def _counts(values: Sequence[float]) -> bool:
    """Whether several whole numbers follow each other by one: the numbers of bands, not their wavelengths."""
    steps = {b - a for a, b in pairwise(values)}
    return steps == {1.0} and all(float(v).is_integer() for v in values)


def _within(values: Sequence[float], factor: float, limits: tuple[float, float]) -> bool:
    return limits[0] <= min(values) * factor and max(values) * factor <= limits[1]


def _scaled(values: Sequence[float], factor: float) -> tuple[float, ...]:
    # Twelve digits: more than any file gives, and 0.41824 um is 418.24 nm again instead of 418.23999999999995.
    return tuple(float(f"{v * factor:.12g}") for v in values)


#: Domains of GDAL's own that say nothing on bands, or are asked by themselves.
_NO_FACTS = {"", "IMAGE_STRUCTURE", "IMAGERY", "DERIVED_SUBDATASETS", "TIFF", "ESRI", "RPC"}
_WAVELENGTH_KEYS = ("wavelength", "central_wavelength", "center_wavelength", "wavelengths")
_UNIT_KEYS = ("wavelength_units", "wavelength_unit", "wavelength units")
_GOOD_KEYS = ("bbl", "bad_band_multiplier", "bad band multiplier")
_NUMBER = r"(?:\d+(?:\.\d*)?|\.\d+)(?:e[+-]?\d+)?"
_WITH_UNIT = re.compile(rf"({_NUMBER})\s*(nanomet[a-z]+|nm|micromet[a-z]+|microns?|um|µm|μm)(?![a-z])", re.IGNORECASE)
_BAND_NUMBER = re.compile(r"\b(?:bands?|channels?|chan|ch|layer|b)[\s_.:#-]*\d+\b(?!\.\d)", re.IGNORECASE)
_BARE_NUMBER = re.compile(rf"(?<![\w.]){_NUMBER}(?![\w.])", re.IGNORECASE)


@dataclass(frozen=True)
class _Place:
    """What one place says, a text a band (None: nothing)."""

    where: str
    wavelengths: Sequence[str | None]
    unit: str | None
    fwhm: Sequence[str | None] = ()
    good: Sequence[str | None] = ()


def read_spectrum(
    ds: DatasetReader, bands: Sequence[int], pair: EnviPair | None, warn: Callable[[str], None]
) -> tuple[Spectrum, InputError | None]:
    """Facts on the given bands (1-based), with what is worth saying aloud passed to `warn`.

    The error, for the caller to raise where wavelengths are needed, tells why there are none.
    """
    places = list(_places(ds, bands, pair))
    if pair is None and descriptions(ds) is None:
        warn("the names of the bands aren't UTF-8 and aren't used")
    names = _names(ds, bands, pair)
    good = next((g for p in places if (g := _good(p, len(bands), warn))), None)
    try:
        wavelengths, fwhm = _wavelengths(places, len(bands), warn)
    except InputError as error:
        return Spectrum(None, None, names, good), error
    return Spectrum(wavelengths, fwhm, names, good), None


def _places(ds: DatasetReader, bands: Sequence[int], pair: EnviPair | None) -> Iterator[_Place]:
    if pair is not None:
        unit = pair.fields.get("wavelength units")
        yield _Place("the ENVI header", pair.items("wavelength"), unit, pair.items("fwhm"), pair.items("bbl"))
    yield _band_tags(ds, bands)
    for domain, where in (("ENVI", "the ENVI tags"), (None, "the dataset tags")):
        yield _dataset_tags(tags(ds, domain=domain), where)
    yield _imagery(ds, bands)
    yield _coordinate(ds, bands)
    yield _descriptions(_described(ds, bands))


def _band_tags(ds: DatasetReader, bands: Sequence[int]) -> _Place:
    told = [_all_tags(ds, b) for b in bands]
    units = sorted({u for t in told if (u := _first(t, _UNIT_KEYS))})
    fwhm, good = ([_first(t, keys) for t in told] for keys in (("fwhm",), _GOOD_KEYS))
    return _Place("the band tags", [_first(t, _WAVELENGTH_KEYS) for t in told], "/".join(units) or None, fwhm, good)


def _all_tags(ds: DatasetReader, band: int) -> dict[str, str]:
    """A band's tags of all domains, the default one's first; EnMAP-Box and QGIS have domains of their own."""
    domains = [domain for domain in ds.tag_namespaces(band) if domain.upper() not in _NO_FACTS]
    found: dict[str, str] = {}
    for told in (tags(ds, band), *(tags(ds, band, domain) for domain in domains)):
        found = {key.lower(): value for key, value in told.items()} | found
    return found


def _dataset_tags(given: Mapping[str, str], where: str) -> _Place:
    told = {key.lower(): value for key, value in given.items()}
    wavelengths, fwhm, good = (
        _items(text) for text in (_first(told, _WAVELENGTH_KEYS), told.get("fwhm"), _first(told, _GOOD_KEYS))
    )
    return _Place(where, wavelengths, _first(told, _UNIT_KEYS), fwhm, good)


def _imagery(ds: DatasetReader, bands: Sequence[int]) -> _Place:
    told = [tags(ds, b, "IMAGERY") for b in bands]
    centres, fwhm = ([t.get(key) for t in told] for key in ("CENTRAL_WAVELENGTH_UM", "FWHM_UM"))
    return _Place("the IMAGERY tags", centres, "um", fwhm)


def _coordinate(ds: DatasetReader, bands: Sequence[int]) -> _Place:
    """Of netCDF: the coordinate along the bands, where its name or its units say that it is of wavelengths."""
    given = tags(ds)
    name = given.get("NETCDF_DIM_EXTRA", "").strip("{}")
    unit = given.get(f"{name}#units")
    where = f"the coordinate {name}"
    if name.lower() not in _WAVELENGTH_KEYS and unit_factor(unit) is None:
        return _Place(where, [], None)
    return _Place(where, [tags(ds, band).get(f"NETCDF_DIM_{name}") for band in bands], unit)


def _described(ds: DatasetReader, bands: Sequence[int]) -> list[str | None]:
    told = descriptions(ds)
    return [None if told is None else told[b - 1] for b in bands]


def _descriptions(texts: Sequence[str | None]) -> _Place:
    """From "band 1 (418.24 Nanometers)", "418.24 nm", "0.418 um" or, without a unit, the last number of "B1 418.24".

    A number right after "band", "channel" or "b" is the band's.
    """
    told = [_WITH_UNIT.findall(text or "") for text in texts]
    if all(told):
        units = sorted({found[-1][1] for found in told})
        return _Place("the band descriptions", [found[-1][0] for found in told], "/".join(units))
    numbers = [_BARE_NUMBER.findall(_BAND_NUMBER.sub(" ", text or "")) for text in texts]
    return _Place("the band descriptions", [found[-1] if found else None for found in numbers], None)


def described_centres(texts: Sequence[str]) -> tuple[list[float], str] | None:
    """Centres that descriptions name with their unit, such as "418.24 nm", and that unit; None where not all do."""
    place = _descriptions(texts)
    numbers = _numbers(place.wavelengths, len(texts))
    return None if numbers is None or place.unit is None else (numbers, place.unit)


def _first(tags: Mapping[str, str], keys: Sequence[str]) -> str | None:
    return next((tags[key] for key in keys if tags.get(key, "").strip()), None)


def _items(text: str | None) -> list[str | None]:
    return [item.strip() for item in text.strip(" {}[]()").split(",")] if text else []


def _names(ds: DatasetReader, bands: Sequence[int], pair: EnviPair | None) -> tuple[str, ...] | None:
    """Band names; GDAL's descriptions of an ENVI file carry the wavelength as well, so its header is asked first."""
    named: Sequence[str | None] = pair.items("band names") if pair is not None else []
    if len(named) != len(bands):
        named = _described(ds, bands)
    if not any(named):
        named = _coloured(ds, bands)
    return tuple(name or "" for name in named) if any(named) else None


def _coloured(ds: DatasetReader, bands: Sequence[int]) -> Sequence[str]:
    """The bands' colours as GDAL has them (red, green, blue, nir, ...); none where any band has none."""
    found = [ds.colorinterp[band - 1].name for band in bands]
    return found if len(set(found)) == len(found) > 1 and set(found) <= COLOURS else []


def _wavelengths(
    places: Sequence[_Place], count: int, warn: Callable[[str], None]
) -> tuple[tuple[float, ...], tuple[float, ...] | None]:
    """Centres and FWHM in nm from the first place that has all centres; InputError when none has."""
    unread: list[str] = []
    for i, place in enumerate(places):
        centres = _numbers(place.wavelengths, count)
        if centres is None:
            unread += (untold := _unread(place, count))
            for told in untold:
                warn(f"{told}; not used")
            continue
        wavelengths, factor, note = to_nm(centres, place.unit)
        if note:
            warn(f"{note} ({place.where})")
        return wavelengths, _fwhm(places[i:], factor, count, warn)
    if unread:
        raise InputError(f"no wavelengths that can be read: {unread[0]}; wanted a number for each band")
    raise InputError(UNTOLD)


def _fwhm(places: Sequence[_Place], factor: float, count: int, warn: Callable[[str], None]) -> tuple[float, ...] | None:
    """FWHM in nm from the place that gave the centres (with its factor), else from the next one that has them."""
    told = False
    for i, place in enumerate(places):
        widths = _numbers(place.fwhm, count)
        if widths is None:
            said = sum(1 for text in place.fwhm if text is not None)
            if said and not told:
                warn(f"{place.where}: {said} FWHM for {count} bands, or not all numbers; not used")
            told = told or said > 0  # GDAL repeats the header's list in other places
            continue
        if i > 0:
            factor = 1e3 if place.unit == "um" else factor
        found, note = widths_to_nm(widths, factor)
        if note:
            warn(f"{note} ({place.where})")
        return found
    return None


def _unread(place: _Place, count: int) -> list[str]:
    """Which wavelength can't be read in a place that has some; names of bands needn't have any."""
    said = sum(1 for text in place.wavelengths if text is not None)
    if not said or place.where == "the band descriptions":
        return []
    if len(place.wavelengths) != count:
        return [f"{place.where}: {said} wavelengths for {count} bands"]
    bad = [i for i, text in enumerate(place.wavelengths) if _numbers([text], 1) is None]
    found = place.wavelengths[bad[0]]
    more = f", as in {len(bad) - 1} more" if len(bad) > 1 else ""
    return [f"{place.where}: band {bad[0] + 1} has {'none' if found is None else f'{found!r}, no number'}{more}"]


def _numbers(texts: Sequence[str | None], count: int) -> list[float] | None:
    """The texts as finite numbers; None unless there is one for each band."""
    try:
        values = [float(text) for text in texts if text is not None]
    except ValueError:
        return None
    usable = len(values) == count and all(abs(v) < float("inf") for v in values)
    return values if usable else None


def _good(place: _Place, count: int, warn: Callable[[str], None]) -> tuple[bool, ...] | None:
    values = _numbers(place.good, count)
    if values is None and any(text is not None for text in place.good):
        warn(f"{place.where}: the bad band list doesn't fit {count} bands; not used")
    return None if values is None else tuple(value != 0 for value in values)


def own_tags(ds: DatasetReader, pair: EnviPair | None) -> dict[str, str]:
    """hsfuse's provenance tags, keys HSFUSE_*, from dataset tags or from the ENVI header's `hsfuse ...` fields."""
    if pair is not None and not pair.tiff:
        return header_tags(pair.fields)
    return {key.upper(): value for key, value in tags(ds).items() if key.upper().startswith("HSFUSE_")}


def header_tags(fields: Mapping[str, str]) -> dict[str, str]:
    """hsfuse's provenance tags of the fields of an ENVI header."""
    told = {name.replace(" ", "_").upper(): unquote(value) for name, value in fields.items()}
    return {key: value for key, value in told.items() if key.startswith("HSFUSE_")}


def _listed(spectrum: Spectrum) -> dict[str, list[str]]:
    """What is known of the bands, as texts by the name of an ENVI header's field."""
    known = {"wavelength": spectrum.wavelengths_nm, "fwhm": spectrum.fwhm_nm}
    listed = {name: [_text(value) for value in values] for name, values in known.items() if values is not None}
    return listed if spectrum.good is None else listed | {"bbl": [str(int(good)) for good in spectrum.good]}


def band_tags(spectrum: Spectrum, band: int) -> dict[str, str]:
    """Per-band tags (0-based band) as EnMAP-Box and GDAL's ENVI driver spell them."""
    return _with_unit({name: text for name, (text,) in _listed(spectrum.select([band])).items()})


def dataset_tags(spectrum: Spectrum) -> dict[str, str]:
    """List fields as in an ENVI header, names with underscores, values in braces."""
    return _with_unit({name: "{" + ", ".join(texts) + "}" for name, texts in _listed(spectrum).items()})


def _with_unit(told: dict[str, str]) -> dict[str, str]:
    return told | ({"wavelength_units": "Nanometers"} if "wavelength" in told else {})


def imagery_tags(spectrum: Spectrum, band: int) -> dict[str, str]:
    """Tags of GDAL's IMAGERY domain (0-based band), in micrometres."""
    known = {"CENTRAL_WAVELENGTH_UM": spectrum.wavelengths_nm, "FWHM_UM": spectrum.fwhm_nm}
    return {name: _text(values[band] / 1e3) for name, values in known.items() if values is not None}


#: What is shown as red, green and blue, in nm, and how far a band may be from it.
NATURAL_NM, NATURAL_OFF_NM = (650.0, 560.0, 480.0), 40.0


def natural_colour(spectrum: Spectrum) -> tuple[int, ...] | None:
    """The bands (0-based) to be shown as red, green and blue; None where the wavelengths have none for each."""
    if spectrum.wavelengths_nm is None:
        return None
    good = spectrum.good or (True,) * len(spectrum.wavelengths_nm)
    off = [
        [(abs(nm - wanted), band) for band, nm in enumerate(spectrum.wavelengths_nm) if good[band]]
        for wanted in NATURAL_NM
    ]
    nearest = [min(one, default=(float("inf"), -1)) for one in off]
    bands = tuple(band for _, band in nearest)
    return bands if len(set(bands)) == 3 and max(gap for gap, _ in nearest) <= NATURAL_OFF_NM else None


def description(spectrum: Spectrum, band: int) -> str:
    """The band's name (0-based band), else its wavelength as "418.24 nm", else "band 1"."""
    name = spectrum.names[band].strip() if spectrum.names is not None else ""
    if name:
        return name
    return f"band {band + 1}" if spectrum.wavelengths_nm is None else f"{_text(spectrum.wavelengths_nm[band])} nm"


def bare_description(spectrum: Spectrum, band: int) -> str:
    """The band's name (0-based band) without its wavelength, for formats whose readers add that themselves."""
    name = _WITH_UNIT.sub("", spectrum.names[band]) if spectrum.names is not None else ""
    return re.sub(r"\(\s*\)", "", name).strip() or f"band {band + 1}"


def _text(value: float) -> str:
    return f"{value:.12g}"

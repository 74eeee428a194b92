"""What bands are called: band names and colours in a text, for one sensor."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

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

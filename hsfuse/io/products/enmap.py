"""EnMAP L2A (surface reflectance) and L1C (radiance): orthorectified image with METADATA.XML and quality layers.

Files, band facts and codes of the quality layers after the EnMAP HSI Product Specification, Level 1B, 1C, 2A
(EN-PCV-ICD-2009-2); GeoTIFF, cloud-optimised (_COG) and ENVI deliveries. Bands stay as delivered: 91 of the VNIR, then
133 of the SWIR, whose first ones repeat the range of the VNIR.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

from hsfuse.core.errors import InputError
from hsfuse.core.notes import Note, about_file
from hsfuse.io.layers import LayeredReader
from hsfuse.io.products.bundle import RASTERS, ProductFiles, is_archive, listing
from hsfuse.io.products.dlr import BandFacts, Flag, Layers, Mission
from hsfuse.io.reader import Role

#: Quality layer -> what of it masks a pixel: background, cloud, cloud shadow, haze, medium and thick cirrus, pixels
#: saturated in either detector. Snow, water and thin cirrus stay; so do defective pixels (QL_PIXELMASK), which the
#: processor has interpolated.
MASKING = {
    "QL_QUALITY_CLASSES": (Flag(0b11, (3,)), "background"),
    "QL_QUALITY_CLOUD": (Flag(1), "cloud"),
    "QL_QUALITY_CLOUDSHADOW": (Flag(1), "cloud shadow"),
    "QL_QUALITY_HAZE": (Flag(1), "haze"),
    "QL_QUALITY_CIRRUS": (Flag(0b11, (2, 3)), "medium or thick cirrus"),
    "QL_QUALITY_TESTFLAGS": (Flag(0b110000), "saturated"),
}

_FILE = re.compile(
    r"(?P<name>ENMAP\d\d-_*(?P<level>L\d[A-Z])-.+?)-(?P<part>(?:METADATA|SPECTRAL_IMAGE|QL_).*)$", re.IGNORECASE
)
#: The same files without the scene's name before them, as some tools unpack them; the level is in the metadata.
_BARE = re.compile(r"(?P<name>)(?P<part>(?:METADATA|SPECTRAL_IMAGE|QL_).*)$", re.IGNORECASE)
_NAMES = ("bandID", "wavelengthCenterOfBand", "FWHMOfBand", "GainOfBand", "OffsetOfBand")
_ENTRIES = r"METADATA\.XML$|SPECTRAL_IMAGE(_\w+)?\.(tiff?|bsq|bil|bip|hdr)$"

# What the bands nominally are, for images that have lost their metadata. Centres and FWHM are those in the metadata of
# an L2A product of July 2022 (Potsdam, processing 01.03.02); other products of the mission differ from them by about a
# quarter of a nanometre. The gain of L2A is the same in all: the specification stores reflectance x 10,000.
_GAIN = 1e-4
# fmt: off
_CENTRES_NM = (
    418.24, 423.874, 429.294, 434.528, 439.603, 444.549, 449.391, 454.159, 458.884, 463.584, 468.265, 472.934,
    477.599, 482.265, 486.941, 491.633, 496.349, 501.094, 505.87, 510.678, 515.519, 520.397, 525.313, 530.268,
    535.265, 540.305, 545.391, 550.525, 555.71, 560.947, 566.239, 571.587, 576.995, 582.464, 587.997, 593.596,
    599.267, 605.011, 610.833, 616.737, 622.732, 628.797, 634.919, 641.1, 647.341, 653.643, 660.007, 666.435, 672.927,
    679.485, 686.11, 692.804, 699.567, 706.401, 713.307, 720.282, 727.324, 734.431, 741.601, 748.833, 756.124,
    763.472, 770.876, 778.333, 785.843, 793.402, 801.01, 808.665, 816.367, 824.112, 831.901, 839.731, 847.601,
    855.509, 863.455, 871.433, 879.442, 887.478, 895.537, 903.617, 911.715, 919.827, 927.951, 936.082, 944.217,
    952.355, 960.495, 968.638, 976.783, 984.932, 993.083, 902.257, 911.872, 921.624, 931.512, 941.53, 951.677,
    961.948, 972.341, 982.851, 993.475, 1004.21, 1015.05, 1026, 1037.05, 1048.19, 1059.42, 1070.74, 1082.14, 1093.62,
    1105.17, 1116.79, 1128.47, 1140.2, 1151.98, 1163.81, 1175.67, 1187.56, 1199.48, 1211.42, 1223.37, 1235.34,
    1247.31, 1259.3, 1271.29, 1283.29, 1295.28, 1307.27, 1319.25, 1331.22, 1343.18, 1355.13, 1367.06, 1378.96,
    1390.84, 1461.46, 1473.1, 1484.69, 1496.24, 1507.75, 1519.22, 1530.64, 1542.02, 1553.36, 1564.65, 1575.9, 1587.1,
    1598.26, 1609.36, 1620.43, 1631.44, 1642.41, 1653.33, 1664.2, 1675.03, 1685.8, 1696.53, 1707.2, 1717.83, 1728.4,
    1738.93, 1749.4, 1759.83, 1939.44, 1948.98, 1958.49, 1967.95, 1977.37, 1986.74, 1996.07, 2005.36, 2014.61,
    2023.82, 2032.99, 2042.11, 2051.19, 2060.24, 2069.24, 2078.21, 2087.13, 2096.01, 2104.86, 2113.67, 2122.44,
    2131.17, 2139.87, 2148.52, 2157.15, 2165.73, 2174.28, 2182.79, 2191.27, 2199.71, 2208.12, 2216.5, 2224.84,
    2233.14, 2241.42, 2249.66, 2257.86, 2266.04, 2274.18, 2282.29, 2290.37, 2298.42, 2306.44, 2314.42, 2322.37,
    2330.29, 2338.19, 2346.05, 2353.88, 2361.68, 2369.45, 2377.19, 2384.9, 2392.58, 2400.23, 2407.85, 2415.45,
    2423.01, 2430.55, 2438.05, 2445.53,
)
_FWHM_NM = (
    7.00, 6.67, 6.42, 6.25, 6.13, 6.06, 6.01, 5.98, 5.95, 5.92, 5.89, 5.86, 5.83, 5.81, 5.80, 5.80, 5.81, 5.84, 5.87,
    5.91, 5.96, 6.01, 6.07, 6.12, 6.18, 6.24, 6.29, 6.35, 6.41, 6.47, 6.53, 6.58, 6.64, 6.70, 6.76, 6.82, 6.88, 6.95,
    7.02, 7.10, 7.18, 7.25, 7.33, 7.41, 7.48, 7.55, 7.62, 7.69, 7.76, 7.83, 7.90, 7.97, 8.05, 8.13, 8.21, 8.29, 8.38,
    8.47, 8.55, 8.64, 8.72, 8.80, 8.88, 8.96, 9.03, 9.10, 9.17, 9.24, 9.30, 9.37, 9.44, 9.51, 9.58, 9.66, 9.74, 9.82,
    9.91, 9.99, 10.08, 10.16, 10.25, 10.34, 10.42, 10.51, 10.59, 10.66, 10.72, 10.75, 10.75, 10.72, 10.64, 9.18, 9.32,
    9.45, 9.58, 9.71, 9.83, 9.94, 10.06, 10.16, 10.27, 10.37, 10.48, 10.58, 10.68, 10.77, 10.86, 10.94, 11.02, 11.08,
    11.14, 11.20, 11.24, 11.28, 11.31, 11.34, 11.37, 11.38, 11.40, 11.41, 11.42, 11.43, 11.43, 11.43, 11.43, 11.43,
    11.42, 11.41, 11.39, 11.38, 11.36, 11.34, 11.32, 11.30, 11.27, 11.09, 11.05, 11.02, 10.98, 10.94, 10.90, 10.86,
    10.82, 10.77, 10.73, 10.69, 10.64, 10.60, 10.55, 10.51, 10.46, 10.42, 10.37, 10.33, 10.28, 10.23, 10.19, 10.14,
    10.10, 10.05, 10.01, 9.96, 9.92, 9.17, 9.13, 9.09, 9.05, 9.01, 8.97, 8.93, 8.89, 8.85, 8.81, 8.78, 8.74, 8.70,
    8.66, 8.63, 8.59, 8.55, 8.52, 8.48, 8.44, 8.41, 8.37, 8.34, 8.30, 8.27, 8.23, 8.20, 8.16, 8.13, 8.10, 8.06, 8.03,
    8.00, 7.97, 7.94, 7.91, 7.88, 7.85, 7.82, 7.79, 7.76, 7.73, 7.70, 7.67, 7.64, 7.61, 7.59, 7.56, 7.53, 7.50, 7.47,
    7.44, 7.41, 7.38, 7.35, 7.32, 7.29, 7.26, 7.22, 7.19, 7.16,
)
# fmt: on
#: Bands (0-based) without values in water vapour, which users of HySpecNet-11k leave out (Fuchs and Demir,
#: "HySpecNet-11k: a large-scale hyperspectral dataset ...", IGARSS 2023: 202 of 224 are left).
_WITHOUT_VALUES = (*range(126, 141), *range(160, 167))

_ALL = tuple(BandFacts(nm, width, _GAIN, 0.0) for nm, width in zip(_CENTRES_NM, _FWHM_NM, strict=True))
#: The facts on the bands by how many there are: all, or without those of water vapour.
NOMINAL = {
    len(_ALL): _ALL,
    len(_ALL) - len(_WITHOUT_VALUES): tuple(band for i, band in enumerate(_ALL) if i not in _WITHOUT_VALUES),
}
_ENMAP = Mission("EnMAP", _FILE, _ENTRIES, _NAMES, "whose detectors aren't on one grid", NOMINAL)


def recognises(path: Path) -> bool:
    """A folder or archive with ENMAP01-____L2A-* files, or that product's METADATA.XML or SPECTRAL_IMAGE.

    Both names may lack the scene's before them. An image alone, without its metadata, is one when it is L2A, tells
    nothing of its bands and has as many as EnMAP, as those of HySpecNet-11k; else it is read as a raster.
    """
    return _ENMAP.recognises(path) or _is_bare(path)


def _is_bare(path: Path) -> bool:
    if path.is_file() and not is_archive(path) and re.match(_ENTRIES, path.name, re.IGNORECASE) is None:
        return False
    try:
        names = {file.name.upper() for file in listing(path)}
    except InputError:  # the archive can't be read: whoever opens it tells
        return False
    return "METADATA.XML" in names and any(name.startswith("SPECTRAL_IMAGE.") for name in names)


def open_product(path: Path, role: Role) -> LayeredReader:
    """The product's bands (224, H, W), masked by its quality layers; InputError for what is missing or broken."""
    bare = not _ENMAP.recognises(path)
    reader = (replace(_ENMAP, files=_BARE) if bare else _ENMAP).open(path, role, _quality)
    _tell_overlap(reader)
    return reader


def _quality(files: ProductFiles) -> tuple[Layers, str | None]:
    found = {name: file for name in MASKING if (file := files.find(name, RASTERS)) is not None}
    missing = ", ".join(name for name in MASKING if name not in found)
    layers = {file: [(0, *MASKING[name])] for name, file in found.items()}
    return layers, f"{missing}; what they would mask stays" if missing else None


def _tell_overlap(reader: LayeredReader) -> None:
    centres = reader.spectrum.wavelengths_nm or ()
    turn = next((i for i in range(1, len(centres)) if centres[i] < centres[i - 1]), None)
    if turn is not None:
        last = max(i for i in range(turn, len(centres)) if centres[i] <= centres[turn - 1])
        what = f"bands {turn + 1} to {last + 1} of the SWIR repeat" if last > turn else f"band {last + 1} repeats"
        span = f"{centres[turn]:g} to {centres[turn - 1]:g} nm"
        text = f"{what} the range of the VNIR, {span}; both are kept"
        reader.notes.append(about_file(reader.path.name, text))


def note_alone(path: Path) -> Note | None:
    """What to say of an EnMAP image without its metadata, read as a raster."""
    return _ENMAP.note_alone(path)

"""What each check of a report looks like when it is poor, and what to do then."""

from __future__ import annotations

#: Code of a check -> (what a poor one looks like, what to do about it).
ADVICE: dict[str, tuple[str, str]] = {
    "pair": (
        "Detail of the MSI where the LRHSI has none, or the other way round; colours that fit no surface.",
        "Look at both images side by side: same place, same season? hsfuse info tells how each is read; --srf, "
        "--msi-bands and --msi-nodata say it outright.",
    ),
    "truth": (
        "The map of errors is bright along edges (misplaced detail) or all over a kind of surface (wrong spectra).",
        "Check that what it is held against shows the same place and day in the same unit; look at Position and "
        "Radiometry; try another --method.",
    ),
    "model": (
        "Fine detail doubled, smeared or of a wrong brightness along edges.",
        "Look at PSF, place and response in the chapter on the sensors; check the georeference of both images, --srf "
        "and --psf.",
    ),
    "inputs": (
        "Whole fields are brighter or darker than in the input, or the LRHSI's pixels show as a grid of blocks.",
        "hsfuse info both images: wrong sensor (--srf), radiance against reflectance, or a scale factor? One level of "
        "processing for both.",
    ),
    "position": (
        "Roads and field borders have a coloured fringe, another one on each side.",
        "Leave --register auto; take an MSI of the same orthorectification where the shift changes over the scene "
        "(the arrows in the chapter on the sensors).",
    ),
    "radiometry": (
        "The cube is brighter or bluer than the LRHSI in the bands that the MSI sees, and only there.",
        "Leave --match-radiometry auto; prefer two images of one day with one kind of atmospheric correction.",
    ),
    "bands": (
        "Spectra with spikes or steps in these bands; pictures of them are noise, or a copy of another band's texture.",
        "Don't read fine detail in these bands; leave them out (--bands, --drop-absorption).",
    ),
    "network": (
        "The network changes noise instead of detail.",
        "--effort fast gives the base alone; a larger scene has more to learn from.",
    ),
    "expected": (
        "Its map is bright elsewhere than that of the error.",
        "Use it for the borders of masks alone, and judge by the maps of misfit.",
    ),
    "masked": (
        "Holes, most often along clouds and the swath's edge.",
        "Expected if you know why; else look at the masks and nodata values that hsfuse info tells of both images.",
    ),
}

"""What a PRISMA L2D file says about itself: its level, each detector's cube with its bands, and where it lies."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from affine import Affine
from rasterio.crs import CRS
from rasterio.errors import CRSError

from hsfuse.errors import InputError
from hsfuse.grid import Grid
from hsfuse.io.products.detectors import LARGEST
from hsfuse.io.products.hdf5 import attribute, dataset, floats, optional, readable

if TYPE_CHECKING:
    import h5py

#: GSD in metres, and how far the corners may be off it, in metres over the whole product.
GSD, CORNER_TOLERANCE = 30.0, 3.0

_SWATHS = "HDFEOS/SWATHS"
_DATA = f"{_SWATHS}/PRS_L2D_HCO/Data Fields"


@dataclass(frozen=True)
class Detector:
    """A cube (rows, bands, columns), its error matrix if there is one, and facts on each of its bands."""

    name: str
    cube: h5py.Dataset
    errors: h5py.Dataset | None
    centres_nm: tuple[float, ...]
    fwhm_nm: tuple[float, ...]
    scale: float
    offset: float


def check_level(file: h5py.File) -> None:
    """InputError unless the file is L2D, saying what it is."""
    path = Path(file.filename)
    with readable(path):
        if _DATA in file:
            return
        swaths = sorted(file[_SWATHS]) if _SWATHS in file else []
    found = f"its swaths are {', '.join(swaths[:4])}" if swaths else f"it lacks {_SWATHS}"
    raise InputError(f"{path} isn't PRISMA L2D ({found}); wanted the orthorectified product PRS_L2D_STD_*.he5")


def read_detector(file: h5py.File, name: str) -> Detector:
    """The detector Vnir or Swir; InputError when a part of it is missing or doesn't fit."""
    upper = name.upper()
    cube = dataset(file, f"{_DATA}/{upper}_Cube", 3)
    count = cube.shape[1]
    centres, fwhm = (
        floats(file, attribute(file, f"List_{kind}_{name}"), f"the attribute List_{kind}_{name}", count)
        for kind in ("Cw", "Fwhm")
    )
    flags = attribute(file, f"List_Cw_{name}_Flags")
    present = [True] * count if flags is None else floats(file, flags, f"the attribute List_Cw_{name}_Flags", count)
    centres = [centre if there else 0.0 for centre, there in zip(centres, present, strict=True)]
    low, high = (
        floats(file, attribute(file, f"L2Scale{name}{end}"), f"the attribute L2Scale{name}{end}", 1)[0]
        for end in ("Min", "Max")
    )
    if not -LARGEST < low < high < LARGEST:
        raise InputError(f"{file.filename}: L2Scale{name}Min {low:g} should be below L2Scale{name}Max {high:g}")
    errors = optional(file, f"{_DATA}/{upper}_PIXEL_L2_ERR_MATRIX")
    if errors is not None and errors.shape != cube.shape:
        raise InputError(f"{file.filename}: {upper}_PIXEL_L2_ERR_MATRIX is {errors.shape}; wanted {cube.shape}")
    return Detector(name, cube, errors, tuple(centres), tuple(fwhm), (high - low) / 65535, low)


def read_grid(file: h5py.File, shape: tuple[int, int]) -> Grid:
    """The map grid of a cube of `shape`, from the corners; InputError when they don't fit it."""

    def one(name: str) -> float:
        return floats(file, attribute(file, name), f"the attribute {name}", 1)[0]

    left, top = one("Product_ULcorner_easting"), one("Product_ULcorner_northing")
    right, bottom = one("Product_LRcorner_easting"), one("Product_LRcorner_northing")
    wanted = ((shape[1] - 1) * GSD, (shape[0] - 1) * GSD)
    if max(abs(right - left - wanted[0]), abs(top - bottom - wanted[1])) > CORNER_TOLERANCE:
        raise InputError(
            f"{file.filename}: corners {right - left:g} x {top - bottom:g} m apart don't fit {shape[1]} x {shape[0]} "
            f"pixels of {GSD:g} m; is the download complete?"
        )
    try:
        crs = CRS.from_epsg(int(one("Epsg_Code")))
    except (CRSError, OverflowError) as error:
        raise InputError(f"{file.filename}: Epsg_Code {one('Epsg_Code'):g} is no known CRS") from error
    return Grid(shape, Affine(GSD, 0, left - GSD / 2, 0, -GSD, top + GSD / 2), crs)

"""PRISMA L2D: orthorectified surface reflectance in HDF-EOS5, both detectors as one cube in ascending wavelength.

After the PRISMA Products Specification Document (ASI, issue 2.3; sections on L2D): cubes are (rows, bands, columns) of
uint16 with value = min + DN * (max - min) / 65535 per detector, wavelengths fall and are 0 for bands that weren't
acquired, Product_*corner_* are the centres of the corner pixels, and the error matrix has 0 for good pixels, 1 invalid
in L1, 2 negative and 3 saturated after the atmospheric correction. The SWIR's bands within the VNIR's range are left
out.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from affine import Affine
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.errors import CRSError
from rasterio.windows import Window

from hsfuse.core.cube import BoolArray, Spectrum
from hsfuse.core.errors import InputError
from hsfuse.core.grid import Grid
from hsfuse.io.products.bundle import one_of, whole_files
from hsfuse.io.products.hdf5 import (
    Hdf5Reader,
    attribute,
    bands_of,
    dataset,
    floats,
    optional,
    picks,
    readable,
    slab,
    text,
)
from hsfuse.io.products.metadata import iso_time
from hsfuse.io.products.ortho import LARGEST, merged
from hsfuse.io.reader import Role

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


#: Codes of the error matrix that mask a pixel: invalid in L1, saturated. Negative reflectance (2) stays, as over water.
MASKING = (1, 3)

#: A band is bad when the error matrix has a code in more than this share of the swath, as in water vapour bands.
BAD_SHARE = 0.1

_ANGLE = "HDFEOS/SWATHS/PRS_L2D_HCO/Geometric Fields/Solar_Zenith_Angle"
_FILE = re.compile(r".*\.he5$", re.IGNORECASE)

#: Rows of the error matrix looked at to find bad bands.
_LOOK = 32


def recognises(path: Path) -> bool:
    """A file *.he5, or a folder with such files."""
    return bool(whole_files(path, _FILE))


def open_product(path: Path, role: Role) -> PrismaReader:
    """The product's bands (C, H, W); InputError for what is missing or broken."""
    return PrismaReader(one_of(path, whole_files(path, _FILE), "PRISMA products"), role)


class PrismaReader(Hdf5Reader):
    """An open PRISMA L2D product."""

    def _describe(self) -> None:
        file = self._file
        check_level(file)
        self._detectors = [read_detector(file, name) for name in ("Vnir", "Swir")]
        shapes = [(d.cube.shape[0], d.cube.shape[2]) for d in self._detectors]
        if shapes[0] != shapes[1]:
            raise InputError(f"{self.path}: the detectors' cubes have {shapes[0]} and {shapes[1]} pixels")
        self.files, self.driver, self.quantity = (self.path,), "HDF5", "reflectance"
        self.dtype = np.result_type(*(d.cube.dtype for d in self._detectors)).name
        self.grid = read_grid(file, shapes[0])
        self._angle = optional(file, _ANGLE)
        if self._angle is not None and self._angle.shape != shapes[0]:
            self._angle = None
        self._describe_bands()
        self.tag(
            product=f"PRISMA L2D, {self.path.stem}",
            acquired=iso_time(text(attribute(file, "Product_StartTime"))),
            mask="beyond the swath; invalid in L1; saturated",
        )

    def _describe_bands(self) -> None:
        detectors = self._detectors
        self._bands = merged([d.centres_nm for d in detectors])
        if not self._bands:
            raise InputError(f"{self.path} has no band with a wavelength in List_Cw_Vnir and List_Cw_Swir")
        self.scales = np.array([detectors[d].scale for d, _ in self._bands])
        self.offsets = np.array([detectors[d].offset for d, _ in self._bands])
        self.nodata_values = [None] * len(self._bands)
        centres, widths = self._in_nm(
            [detectors[d].centres_nm[b] for d, b in self._bands], [detectors[d].fwhm_nm[b] for d, b in self._bands]
        )
        good = self._good()
        self.spectrum = Spectrum(centres, widths, None, good)
        left = sum(sum(c > 0 for c in d.centres_nm) for d in detectors) - len(self._bands)
        if left:
            self._note(f"bands left out because the detectors overlap there: {left}")
        if good is not None:
            share = f"over {BAD_SHARE:.0%} of their pixels are in the error matrix"
            self._note(f"bands marked bad because {share}: {good.count(False)}")

    def _good(self) -> tuple[bool, ...] | None:
        """Bands with few pixels of the swath in the error matrix; None when there is none, or all are good."""
        look = [slice(r, r + 1) for r in np.unique(picks(0, self.grid.shape[0], min(_LOOK, self.grid.shape[0])))]
        swath = sum(self._swath(part, slice(None)).sum() for part in look)
        bad = []
        for detector in self._detectors:
            if detector.errors is None:
                return None
            bad.append(sum((slab(detector.errors, (part,)) != 0).sum(axis=(0, 2)) for part in look))
        good = tuple(bool(bad[d][b] <= BAD_SHARE * swath) for d, b in self._bands)
        return None if all(good) else good

    def pixels(
        self, bands: Sequence[int], window: Window, shape: tuple[int, int] | None = None
    ) -> tuple[NDArray, BoolArray | None]:
        """As of any reader."""
        rows, cols = _runs(window, shape)
        size = (len(rows), len(cols)) if shape is not None else (int(window.height), int(window.width))
        raw = np.empty((len(bands), *size), dtype=self.dtype)
        valid = np.ones(size, bool)
        for d, detector in enumerate(self._detectors):
            own = [(i, self._bands[band][1]) for i, band in enumerate(bands) if self._bands[band][0] == d]
            if own:
                places, chosen = map(list, zip(*own, strict=True))
                raw[places] = _read(detector.cube, chosen, rows, cols)
                if detector.errors is not None:
                    good = [b for i, b in own if self._is_good(bands[i])]
                    valid &= ~_flagged(detector.errors, good, rows, cols, size)
        return raw, valid & self._inside(raw, rows, cols)

    def _is_good(self, band: int) -> bool:
        return self.spectrum.good is None or self.spectrum.good[band]

    def _inside(self, raw: NDArray, rows: list[slice], cols: NDArray[np.int64]) -> BoolArray:
        """Where the swath is: as the sun's zenith angle says, or without that layer where some asked band isn't 0."""
        if self._angle is None:
            return np.asarray((raw != 0).any(axis=0))
        return np.concatenate([self._swath(part, _span(cols))[:, cols - cols[0]] for part in rows])

    def _swath(self, rows: slice, cols: slice) -> BoolArray:
        """Where the sun's zenith angle isn't 0, as it is beyond the swath; all over without that layer."""
        if self._angle is None:
            shape = np.broadcast_to(True, self.grid.shape)
            return np.asarray(shape[rows, cols])
        return np.asarray(slab(self._angle, (rows, cols)) != 0)


def _runs(window: Window, shape: tuple[int, int] | None) -> tuple[list[slice], NDArray[np.int64]]:
    """Rows as slices (the whole window, or one row each when decimated), and the columns."""
    row, col, h, w = (int(v) for v in (window.row_off, window.col_off, window.height, window.width))
    if shape is None:
        return [slice(row, row + h)], np.arange(col, col + w)
    return [slice(r, r + 1) for r in picks(row, h, shape[0])], picks(col, w, shape[1])


def _span(index: NDArray[np.int64]) -> slice:
    return slice(int(min(index)), int(max(index)) + 1)


def _read(cube: h5py.Dataset, bands: Sequence[int], rows: list[slice], cols: NDArray[np.int64]) -> NDArray:
    """Bands of a (rows, bands, columns) dataset as (C, h, w)."""
    parts = [bands_of(cube, 1, bands, (part, slice(None), _span(cols)))[:, :, cols - cols[0]] for part in rows]
    return np.concatenate(parts).transpose(1, 0, 2)


def _flagged(
    errors: h5py.Dataset, bands: Sequence[int], rows: list[slice], cols: NDArray[np.int64], size: tuple[int, int]
) -> BoolArray:
    if not bands:
        return np.zeros(size, bool)
    return np.asarray(np.isin(_read(errors, bands, rows, cols), MASKING).any(axis=0))

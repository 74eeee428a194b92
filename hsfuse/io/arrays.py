"""Reference cubes that aren't rasters: .mat and .npz arrays, and scenes kept as one image file per band.

They carry no georeference and are read whole.
"""

from __future__ import annotations

import logging
import struct
import zlib
from collections.abc import Iterable
from math import prod
from pathlib import Path
from tokenize import TokenError
from zipfile import BadZipFile, ZipFile, is_zipfile

import numpy as np
import scipy.io
from numpy.typing import NDArray
from scipy.io.matlab import MatReadError

from hsfuse.core.cube import FloatArray, Spectrum
from hsfuse.core.errors import InputError
from hsfuse.core.grid import Grid
from hsfuse.io.fill import settle_fill
from hsfuse.io.gdal import common_dtype
from hsfuse.io.limits import check_whole, check_zip
from hsfuse.io.memory import ArrayReader
from hsfuse.io.open import open_cube
from hsfuse.io.reader import CubeReader, usable_bands
from hsfuse.io.spectral_tags import to_nm

log = logging.getLogger(__name__)

ARRAY_SUFFIXES = (".mat", ".npz", ".npy")
WAVELENGTH_KEYS = ("wavelengths_nm", "wavelength_nm", "wavelengths", "wavelength")
#: What else a damaged array file is met with: numpy parses an array's header as Python.
BROKEN_ARRAYS = (
    zlib.error, SyntaxError, TokenError, TypeError, EOFError, struct.error, IndexError, KeyError, OverflowError,
    AttributeError, RuntimeError,
)  # fmt: skip
#: The type of a packed variable in a .mat file, the bytes of it unpacked at once, and what whosmat calls no numbers.
_MAT_PACKED, _PART, _NOT_NUMBERS = (
    15,
    2**20,
    ("cell", "struct", "object", "char", "function", "opaque", "sparse", "unknown"),
)
#: No sensor has more bands; an axis as long is one of the image.
MOST_BANDS = 512
#: An axis this many times shorter than both others is the spectrum's.
MUCH_SHORTER = 8


def read_reference(path: Path) -> tuple[FloatArray, NDArray[np.float64] | None]:
    """Cube (C, H, W) float32 and its band centres in nm (None: unknown), from any file that hsfuse reads.

    .mat, .npz and .npy hold a three-dimensional array, bands first or last, and perhaps wavelengths;
    a folder holds one grey-scale image per band, in the order of the names, as the CAVE data base has them, and is
    scaled to the images' range; anything else is a raster. InputError when nothing fits, and where pixels are invalid:
    NaN, nodata, or fill that nobody declared.
    """
    if not path.exists():
        raise InputError(f"{path}: no such reference")
    if path.is_dir():
        return read_bands(path), None
    if path.suffix.lower() in ARRAY_SUFFIXES:
        return _read_array(path)
    with open_cube(path) as reader:
        check_whole(path, 4 * reader.count * prod(reader.grid.shape), _size(reader.files))
        _check_fill(path, reader)
        bands = [int(i) for i in np.flatnonzero(usable_bands(reader))]
        spectrum = reader.spectrum.select(bands)
        cube = reader.read(bands=bands)
    if not cube.mask.all():
        raise InputError(f"{path}: {int((~cube.mask).sum())} pixels are invalid; crop the reference to valid pixels")
    known = spectrum.wavelengths_nm
    return cube.data, None if known is None else np.asarray(known, dtype=np.float64)


def _check_fill(path: Path, reader: CubeReader) -> None:
    """InputError for fill that nobody declared; zeros are left, from which nothing wrong is learned."""
    for told in settle_fill(reader)[2]:
        if told.values.get("value"):
            raise InputError(f"{path}: {told.values['fill']}; crop the reference to valid pixels")


def read_bands(folder: Path) -> FloatArray:
    """Cube (C, H, W) in 0..1 from a folder (or one below it) of single-band images whose names end in a number."""
    files = sorted(f for f in folder.rglob("*.png") if f.stem[-2:].isdigit())
    if len(files) < 2:
        raise InputError(f"{folder}: no band images NAME_01.png, NAME_02.png, ... in it")
    first = _read_band(files[0])
    check_whole(folder, first.nbytes * len(files), _size(files))
    return np.stack([first, *map(_read_band, files[1:])])


def _size(files: Iterable[Path]) -> int:
    """Bytes of the files that are there by themselves."""
    return sum(file.stat().st_size for file in files if file.is_file())


def _read_band(path: Path) -> FloatArray:
    with open_cube(path) as reader:
        check_whole(path, 4 * prod(reader.grid.shape), path.stat().st_size)
        data = reader.read(bands=[0]).data[0]
        full = np.iinfo(reader.dtype).max if np.issubdtype(np.dtype(reader.dtype), np.integer) else 1
    return (data / full).astype(np.float32)


def _read_array(path: Path) -> tuple[FloatArray, NDArray[np.float64] | None]:
    arrays = _arrays(path)
    cubes = [(name, a) for name, a in arrays.items() if a.ndim == 3 and a.size and a.dtype.kind in "iufc"]
    if not cubes:
        raise InputError(f"{path}: no three-dimensional array in it; found {', '.join(arrays) or 'nothing'}")
    cube = max(cubes, key=lambda item: item[1].size)[1]
    common_dtype(path, [cube.dtype.str])
    key = next((key for key in WAVELENGTH_KEYS if key in arrays and arrays[key].dtype.kind in "iuf"), None)
    given = None if key is None else arrays[key].astype(np.float64).ravel().tolist()
    axis = band_axis(cube.shape, None if given is None else len(given))
    if given is None:
        log.info("%s: no wavelengths; axis %d of %s is taken for the bands", path, axis + 1, cube.shape)
    with np.errstate(over="ignore"):  # what float32 doesn't hold is refused as infinite
        cube = np.moveaxis(cube, axis, 0).astype(np.float32)
    if not np.isfinite(cube).all():
        raise InputError(f"{path}: NaN or infinite values in the cube; crop the reference to valid pixels")
    if given is not None and len(given) != len(cube):
        raise InputError(f"{path}: {len(given)} wavelengths for a cube of {cube.shape} values")
    known = None if key is None or given is None else _centres(path, given, "nm" if key.endswith("_nm") else None)
    _check_fill(path, ArrayReader(path.name, cube, Grid((cube.shape[1], cube.shape[2])), Spectrum(None)))
    return cube, None if known is None else np.asarray(known, dtype=np.float64)


def _centres(path: Path, given: list[float], unit: str | None) -> tuple[float, ...] | None:
    """Band centres in nm; None, said aloud as of any raster, where the numbers can't be any."""
    try:
        centres, _, told = to_nm(given, unit)
    except InputError as error:
        log.warning("%s: %s", path, error)
        return None
    if told is not None:
        log.info("%s: %s", path, told)
    return centres


def band_axis(shape: tuple[int, ...], bands: int | None) -> int:
    """The axis of the bands: the one of length `bands`, else the last, as MATLAB has it, where the first isn't clear.

    It is clear where the two others are a square or too long for bands, or both much longer.
    """
    if bands in shape:
        return shape.index(bands)
    a, b, c = shape
    square, too_long, short = b == c != a, c > MOST_BANDS >= a, MUCH_SHORTER * a <= min(b, c)
    return 0 if square or too_long or short else 2


def _check_zip(path: Path) -> None:
    """InputError for a .npz that unpacks to far more than its own size."""
    if is_zipfile(path):
        check_zip(path)
        with ZipFile(path) as archive:
            check_whole(path, sum(member.file_size for member in archive.infolist()), path.stat().st_size)


def _check_mat(path: Path) -> None:
    """InputError for a MATLAB 5 file of which a packed variable unpacks to far more than the file's size.

    What a variable says of its own size isn't believed: it is unpacked as far as the limit, piece by piece.
    """
    size, unpacked = path.stat().st_size, 0
    with path.open("rb") as file:
        order = {b"IM": "<", b"MI": ">"}.get(file.read(128)[126:])
        while order is not None and len(tag := file.read(8)) == 8:
            kind, length = struct.unpack(f"{order}II", tag)
            if kind != _MAT_PACKED:
                file.seek(length, 1)
                continue
            unpack, end = zlib.decompressobj(), min(file.tell() + length, size)
            while not unpack.eof and file.tell() < end and (part := file.read(min(_PART, end - file.tell()))):
                while part and not unpack.eof:
                    unpacked += len(unpack.decompress(part, _PART))
                    part = unpack.unconsumed_tail
                    check_whole(path, unpacked, size)
            file.seek(end)


def _mat_arrays(path: Path) -> dict[str, NDArray]:
    """Cubes and wavelengths of a .mat file; of all else, which may be cells or structures, only the name."""
    listed = scipy.io.whosmat(path)
    wanted = [name for name, shape, kind in listed if kind not in _NOT_NUMBERS and len(shape) <= 3]
    found = scipy.io.loadmat(path, variable_names=wanted) if wanted else {}
    named = {name: np.zeros(0) for name, *_ in listed}
    return named | {k: np.asarray(v) for k, v in found.items() if not k.startswith("__")}


def _arrays(path: Path) -> dict[str, NDArray]:
    try:
        if path.suffix.lower() == ".mat":
            _check_mat(path)
            return _mat_arrays(path)
        _check_zip(path)
        loaded = np.load(path, allow_pickle=False, mmap_mode="r" if path.suffix.lower() == ".npy" else None)
        return {"array": loaded} if isinstance(loaded, np.ndarray) else {k: np.asarray(v) for k, v in loaded.items()}
    except NotImplementedError as error:
        raise InputError(f"{path}: a MATLAB 7.3 file; save it with -v7 or as .npz") from error
    except (OSError, ValueError, BadZipFile, MatReadError, MemoryError, *BROKEN_ARRAYS) as error:
        raise InputError(f"{path}: can't be read as an array file ({' '.join(str(error).split())[:200]})") from error

"""HDF5 (and so NetCDF-4) through h5py, an optional package, with one-line errors."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from hsfuse.core.errors import InputError
from hsfuse.io.limits import MOST_BLOCK, MOST_CACHE_BYTES, MOST_MEMBERS, MOST_XML, check_claim
from hsfuse.io.reader import CubeReader, Role
from hsfuse.io.spectral_tags import to_nm, widths_to_nm

if TYPE_CHECKING:
    import h5py

#: Chunks that HDF5's cache, a hash table, has places for (a prime). In its own of 1 MiB (8 since HDF5 2) there is no
#: room for a row of chunks: all would be decompressed again for each window.
CACHED_CHUNKS = 10_007
#: Bands up to this far apart are read in one go with those between them.
_GAP = 8

_MAGIC = b"\x89HDF\r\n\x1a\n"


class Hdf5Reader(CubeReader):
    """An open product in one HDF5 file; a subclass says by `_describe` what it is. The file is closed if that fails."""

    def __init__(self, path: Path, role: Role = "raster") -> None:
        super().__init__(path, role)
        self._file = open_hdf5(path)
        try:
            self._describe()
        except BaseException:
            self.close()
            raise

    @abstractmethod
    def _describe(self) -> None:
        """Set what a reader says of itself; InputError for what is missing or broken."""

    def _in_nm(
        self, centres: Sequence[float], widths: Sequence[float]
    ) -> tuple[tuple[float, ...], tuple[float, ...] | None]:
        """Bands' centres and widths in nm, which the file says they are in; what is doubtful is noted."""
        centres_nm, factor, note = to_nm(centres, "nm")
        widths_nm, width_note = widths_to_nm(widths, factor)
        for told in filter(None, (note, width_note)):
            self._note(told)
        return centres_nm, widths_nm

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def open_hdf5(path: Path) -> h5py.File:
    """The open file; InputError when h5py isn't there or the file can't be read."""
    try:
        import h5py
    except ImportError as error:
        raise InputError(f"{path} is HDF5, which needs h5py: pip install 'hsfuse[products]'") from error
    try:
        if not is_hdf5(path):
            raise InputError(f"{path} isn't HDF5; is the download complete?")
    except OSError as error:
        raise InputError(f"{path} can't be read: {error.strerror}") from error
    with readable(path):
        return h5py.File(path, "r", locking=False, rdcc_nbytes=MOST_CACHE_BYTES, rdcc_nslots=CACHED_CHUNKS)


def is_hdf5(path: Path) -> bool:
    """Whether a file begins as HDF5 does; OSError when it can't be read."""
    with path.open("rb") as file:
        return file.read(8) == _MAGIC


def check_datasets(path: Path) -> None:
    """InputError for HDF5 with too many datasets, or too large ones or chunks of one, for GDAL to be given the file."""
    try:
        if not is_hdf5(path) or find_spec("h5py") is None:
            return
    except OSError:  # GDAL tells why
        return
    with open_hdf5(path) as file, readable(path):
        met = 0

        def check(name: str, item: object) -> None:
            nonlocal met
            met += 1
            if met > MOST_MEMBERS:
                raise InputError(f"{path} holds more than {MOST_MEMBERS} datasets, which no product does")
            if getattr(item, "shape", None):
                _check_size(path, name, item)

        file.visititems(check)


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Whatever h5py raises over a broken file becomes an InputError."""
    try:
        yield
    except InputError:
        raise
    except (OSError, KeyError, ValueError, TypeError, RuntimeError, AttributeError, IndexError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"{path} can't be read ({reason}); is the download complete?") from error


def dataset(file: h5py.File, name: str, dimensions: int) -> h5py.Dataset:
    """A dataset of numbers with that many dimensions, none of them 0; InputError when there is none."""
    found = optional(file, name)
    path = Path(file.filename)
    if found is None:
        raise InputError(f"{path} lacks the dataset {name}")
    if found.ndim != dimensions or 0 in found.shape or found.dtype.kind not in "iuf":
        shape = " x ".join(map(str, found.shape or ()))
        raise InputError(f"{path}: {name} is {shape} of {found.dtype}; wanted {dimensions} dimensions of numbers")
    _check_size(path, name, found)
    return found


def _check_size(path: Path, name: str, found: h5py.Dataset) -> None:
    """InputError for chunks, or a whole, of a size that a file of its bytes can't have."""
    chunk = prod(found.chunks or (1,)) * found.dtype.itemsize
    if chunk > MOST_BLOCK:
        raise InputError(f"{path}: {name} lies in chunks of {chunk} bytes; at most {MOST_BLOCK} are read")
    check_claim(path, found.size * found.dtype.itemsize, path.stat().st_size, f"{name} of {found.shape}")


def optional(file: h5py.File, name: str) -> h5py.Dataset | None:
    """A dataset, None when there is none of that name."""
    with readable(Path(file.filename)):
        found = file.get(name)
        return found if found is not None and hasattr(found, "dtype") else None


def floats(file: h5py.File, values: object, what: str, count: int | None = None) -> list[float]:
    """Values as finite numbers; InputError, saying what they are, when they aren't or aren't `count`."""
    path = Path(file.filename)
    if values is None:
        raise InputError(f"{path} lacks {what}")
    try:
        given = np.asarray(values).ravel()
        found = np.array([np.nan]) if given.dtype.kind == "c" else given.astype(np.float64)
    except (TypeError, ValueError):
        found = np.array([np.nan])
    if not np.isfinite(found).all():
        raise InputError(f"{path}: {what} should be numbers")
    if count is not None and len(found) != count:
        raise InputError(f"{path}: {what} has {len(found)} values; wanted {count}")
    return [float(value) for value in found]


def attribute(file: h5py.File, name: str) -> object:
    """An attribute of the file, None when there is none; InputError when it can't be read."""
    with readable(Path(file.filename)):
        return file.attrs.get(name)


def text(value: object) -> str | None:
    """An attribute as text, None when it is none."""
    if isinstance(value, np.ndarray) and value.size == 1:
        value = value.ravel()[0]
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace").strip("\0 ")
    # What isn't UTF-8 in a text attribute comes as surrogates, which nothing else accepts.
    return value.encode("utf-8", "replace").decode().strip() if isinstance(value, str) else None


def picks(start: int, count: int, size: int) -> NDArray[np.int64]:
    """`size` indices evenly among `count` from `start` on, each the middle of its share."""
    return start + np.floor((np.arange(size) + 0.5) * count / size).astype(np.int64)


def slab(cube: h5py.Dataset, axes: Sequence[slice]) -> NDArray:
    """A part of a dataset; InputError when it can't be read."""
    path = Path(cube.file.filename)
    if not axes and cube.size is not None and cube.size * cube.dtype.itemsize > MOST_XML:
        raise InputError(f"{path}: {cube.name} has {cube.size} values; no list of bands is as long")
    with readable(path):
        return np.asarray(cube[tuple(axes)])


def bands_of(cube: h5py.Dataset, axis: int, bands: Sequence[int], axes: Sequence[slice]) -> NDArray:
    """Bands along an axis, in the order asked, of a part of a dataset; bands far apart are read apart."""
    order = np.unique(bands)
    parts = []
    for run in np.split(order, np.flatnonzero(np.diff(order) > _GAP) + 1):
        own = [*axes[:axis], slice(int(run[0]), int(run[-1]) + 1), *axes[axis + 1 :]]
        parts.append(slab(cube, own).take(run - run[0], axis))
    return np.concatenate(parts, axis).take(np.searchsorted(order, bands), axis)

"""GDAL with a bounded cache, files opened with one-line errors, and how far a raster that is a list of files may lead.

What a person names may be a VRT of plain local files, wherever they lie: that is how bands in sibling folders are put
together. Whatever else GDAL opens as a list of places (network services, tile indices), a VRT that leads to one, into
an archive or to code, and any list in the place of a product's part are refused before GDAL has seen them.
"""

from __future__ import annotations

import re
import sys
import warnings
from collections.abc import Callable, Iterator, MutableMapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from math import ceil, isfinite
from pathlib import Path
from threading import Lock
from weakref import WeakKeyDictionary
from xml.etree.ElementTree import Element

import numpy as np
import rasterio
from affine import Affine
from rasterio._err import CPLE_BaseError
from rasterio.crs import CRS
from rasterio.enums import ColorInterp, Interleaving, MaskFlags
from rasterio.errors import CRSError, NotGeoreferencedWarning, RasterioError
from rasterio.io import DatasetReader
from rasterio.windows import Window

from hsfuse.core.cube import BoolArray
from hsfuse.core.errors import InputError
from hsfuse.io.envi import TIFF_SUFFIXES, EnviPair, find_pair
from hsfuse.io.files import as_path, is_virtual
from hsfuse.io.limits import CLAIMED_RATIO, MOST_BLOCK, MOST_CACHE_BYTES, MOST_XML, SHARED_CACHE_BYTES, check_claim
from hsfuse.io.products.metadata import plain_name, read_xml

#: Endings of files that say all themselves.
_NO_HEADER = (*TIFF_SUFFIXES, ".jp2")
#: Usual endings of ENVI's data files, which say nothing themselves.
_ENVI_DATA = ("", ".dat", ".img", ".bsq", ".bil", ".bip", ".raw")
#: GDAL's block cache, in bytes (rasterio takes the number as bytes, not as GDAL's megabytes), beside what two rows of
#: blocks of each open raster take. Its default, 5% of the memory, would fill up with the scene; in one that has no room
#: for a row of blocks they are decompressed again for each window in it.
CACHE_BYTES = 24 * 2**20
#: What GDAL's work on a raster can end in; rasterio's `shutil.copy` lets GDAL's own errors pass, and raises SystemError
#: where GDAL failed without saying why.
RASTER_ERRORS = (OSError, RasterioError, CPLE_BaseError, SystemError)

#: GDAL's formats whose files hold their pixels themselves; parts of products come in no other.
PLAIN_DRIVERS = ("GTiff", "ENVI", "JP2OpenJPEG", "JP2KAK", "JP2ECW", "JP2MrSID", "JPEG", "PNG", "HFA")
#: Files that a VRT may name in all, and VRTs of VRTs.
MOST_SOURCES, DEEPEST_VRT = 50_000, 4
#: Elements of a VRT that hold a place, whose text is a place by its name, and code.
_PLACES = re.compile(r".*(Filename|Dataset|Path)$")
_CODE = ("PixelFunctionCode", "PixelFunctionLanguage")
_ELSEWHERE = re.compile(r"/vsi|\w\w+://|^\s*[<{]")
#: What GDAL knows lists of places by, anywhere in their first bytes; how XML and JSON begin; and bytes of no text.
_LIST = re.compile(rb"<VRTDataset|<GDAL_W|<W[A-Z]+_|<Capabilities|<GDALTileIndex|<MRF_META|\"stac_version\"")
_TEXT = re.compile(rb"(?:\xef\xbb\xbf)?\s*(?:<[A-Za-z?!]|\{\s*[\"}])")
_NO_TEXT = re.compile(rb"[\0-\x08\x0e-\x1f]")
#: Parts of local files that GDAL names by a word before the file's path.
_PART = re.compile(r"(?:NETCDF|HDF5|GTIFF_DIR:\d+):\"?(?P<file>[^\":]+)\"?(?::.*)?$")


#: What two rows of blocks of each open raster take, in bytes: a window may lie across.
_rows: MutableMapping[DatasetReader, int] = WeakKeyDictionary()
_counting = Lock()
_most = MOST_CACHE_BYTES


@contextmanager
def gdal_env(**options: object) -> Iterator[None]:
    """GDAL with a bounded block cache, around every call that moves pixels."""
    _hush()
    with _counting:
        rows = sum(size for ds, size in _rows.items() if not ds.closed)
    with rasterio.Env(GDAL_CACHEMAX=min(CACHE_BYTES + rows, _most), **options):
        yield


def share_memory() -> None:
    """Have this process keep fewer blocks, as one of many on its machine."""
    global _most
    _most = SHARED_CACHE_BYTES


def _two_rows(ds: DatasetReader) -> int:
    """Bytes of two rows of blocks, or of one where there is no other, in all bands."""
    (height, width), size = ds.block_shapes[0], max(np.dtype(kind).itemsize for kind in set(ds.dtypes))
    return min(2, ceil(ds.height / height)) * height * width * ceil(ds.width / width) * ds.count * size


def _hush() -> None:
    """Set a filter for good: `warnings.catch_warnings` would take back what other threads have set in the meantime."""
    if ("ignore", None, NotGeoreferencedWarning, None, 0) not in warnings.filters:
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        sys.unraisablehook = partial(_without_garbled, sys.unraisablehook)


def _without_garbled(before: Callable[[sys.UnraisableHookArgs], object], raised: sys.UnraisableHookArgs) -> None:
    """What rasterio prints of a GDAL message that isn't UTF-8, as damaged files give them, is a traceback; not that."""
    if not (isinstance(raised.exc_value, UnicodeDecodeError) and "rasterio" in str(raised.object)):
        before(raised)


def open_dataset(path: Path, what: str, *, given: bool = False) -> tuple[DatasetReader, EnviPair | None]:
    """The open dataset and, when it is ENVI, its header; InputError, naming `what`, when it can't be opened.

    A local path `given` by a person may be a VRT of local files; what comes over the network, and a product's part,
    holds its pixels itself.
    """
    pair = _find(path, what)
    place = path if pair is None else pair.data
    file = holder(place)
    drivers = None if given and (file is not None or not is_virtual(place)) else list(PLAIN_DRIVERS)
    if pair is not None:
        drivers = ["GTiff"] if pair.tiff else ["ENVI"]
    options: dict[str, object] = {}
    if file is not None and file == place:
        found = check_links(place) if given and pair is None else check_beside(place)
    else:
        found = 0 if file is None else file.stat().st_size
        if not given and place.suffix.lower() in _NO_HEADER:  # a mask or overviews beside it might lead elsewhere
            options["GDAL_DISABLE_READDIR_ON_OPEN"] = "EMPTY_DIR"
    try:
        with gdal_env(**options):
            ds = DatasetReader(gdal_name(place), driver=drivers)
    except (RasterioError, CPLE_BaseError, UnicodeDecodeError) as error:
        lone = pair is None and file is not None and place.suffix.lower() in _ENVI_DATA
        why = f"; ENVI data need their header, {place.with_suffix('.hdr').name}, beside them" if lone else ""
        raise InputError(f"{what} {path} isn't a raster that can be read: {one_line(error, path)}{why}") from error
    if ds.count == 0:
        inside = ", ".join(ds.subdatasets[:3]) or "none"
        ds.close()
        raise InputError(f"{what} {path} holds no bands of its own; name one of its parts instead: {inside}")
    try:
        if file is not None:
            _check_claims(ds, path, found)
    except BaseException:
        ds.close()
        raise
    with _counting:
        _rows[ds] = _two_rows(ds)
    return ds, pair


def holder(path: Path) -> Path | None:
    """The local file that holds what GDAL is asked for: itself, or the container or archive that it is a part of."""
    if path.is_file():
        return path
    part, inside = _PART.match(str(path)), re.match(r"/vsi\w+/(?:\{(.+)\}/.*|(.+))", str(path))
    places = [Path(part["file"])] if part else []
    if inside is not None:
        named = Path(inside[1] or inside[2])
        places += [place for base in (named, Path("/") / named) for place in (base, *base.parents)]
    return next((place for place in places if place.is_file()), None)


def check_links(path: Path) -> int:
    """The bytes of a file that a person names, or of all that it leads to when it is a VRT.

    InputError when it is a list of anything but plain local files.
    """
    check_beside(path)
    return _bytes_of(path, [MOST_SOURCES], 0)


def check_beside(path: Path) -> int:
    """The bytes of a file; InputError when a mask, overviews or metadata beside it would lead GDAL elsewhere."""
    for beside in (f"{path}.ovr", f"{path}.msk"):
        if Path(beside).is_file() and _is_list(Path(beside)):
            raise InputError(f"{beside} is no raster but text, and would lead GDAL elsewhere; remove it")
    for aux in {Path(f"{path}.aux.xml"), path.with_suffix(".aux.xml")}:
        _check_aux(aux)
    return path.stat().st_size


def _check_aux(path: Path) -> None:
    if not path.is_file():
        return
    if path.stat().st_size > MOST_XML:
        raise InputError(f"{path} has {path.stat().st_size} bytes, which no file of its kind has; remove it")
    if b"OVERVIEW_FILE" in path.read_bytes():
        raise InputError(f"{path} says that overviews lie elsewhere (OVERVIEW_FILE); remove it")


def _bytes_of(path: Path, left: list[int], depth: int) -> int:
    if ".gti." in path.name.lower():
        raise InputError(f"{path} is an index of tiles, no raster; name the raster itself, or a VRT of the tiles")
    if not _is_list(path):
        return path.stat().st_size
    if b"<VRTDataset" not in _start(path):
        raise InputError(f"{path} is text that names places of pixels, no raster; name the raster itself")
    if depth > DEEPEST_VRT:
        raise InputError(f"{path} is a VRT of VRTs, more than {DEEPEST_VRT} deep; name the raster itself")
    total = path.stat().st_size
    for source in set(_sources(path, read_xml(path))):
        left[0] -= 1
        if left[0] < 0:
            raise InputError(f"{path} names more than {MOST_SOURCES} files; it isn't opened")
        total += _bytes_of(source, left, depth + 1)
    return total


def _is_list(path: Path) -> bool:
    """Whether a file begins as XML or JSON do, in which no format keeps pixels, or has what GDAL knows lists by."""
    start = _start(path)
    return bool(_LIST.search(start)) or (bool(_TEXT.match(start)) and not _NO_TEXT.search(start[:64]))


def _start(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(1024)


def _sources(vrt: Path, root: Element) -> Iterator[Path]:
    """The files that a VRT names; InputError for one that is no plain local file, and for code."""
    for element in root.iter():
        name, text = plain_name(element), (element.text or "").strip()
        if name in _CODE or element.get("key") == "OVERVIEW_FILE":
            raise InputError(f"{vrt} holds {element.get('key') or name}, which isn't run or followed")
        given = text if _PLACES.match(name) or element.get("name", "").endswith("filename") else ""
        told = [given, *element.attrib.values(), *(() if name in ("SRS", "MDI", "Metadata") else (text,))]
        led = next((place for place in told if _ELSEWHERE.search(place)), None)
        if led is not None and name not in ("SRS", "TargetSRS", "SourceSRS", "GCPList"):
            raise InputError(f"{vrt} leads to {led[:80]!r}; wanted plain local files only, download them first")
        if given and not list(element):
            yield _local(vrt, given, element.get("relativeToVRT") == "1")


def _local(vrt: Path, text: str, relative: bool) -> Path:
    part = _PART.match(text)
    place = part["file"] if part else text
    path = vrt.parent / place if relative else Path(place)
    if not path.is_file():
        raise InputError(f"{vrt} names the file {place[:120]!r}, which isn't there")
    return path


def _check_claims(ds: DatasetReader, path: Path, found: int) -> None:
    """InputError for a raster of more pixels, or larger blocks, than the `found` bytes of its files can hold."""
    bands = ds.count
    size = np.dtype(ds.dtypes[0]).itemsize if not ds.dtypes[0].startswith("complex_int") else 4
    check_claim(path, ds.height * ds.width * bands * size, found, f"{ds.width} x {ds.height} pixels of {bands} bands")
    rows, cols = ds.block_shapes[0]
    block = rows * cols * size * (bands if ds.interleaving == Interleaving.pixel else 1)
    if block > max(MOST_BLOCK, CLAIMED_RATIO * found):
        raise InputError(f"{path} says that its blocks hold {block} bytes, but has {found}; is the file damaged?")


def gdal_name(path: Path) -> str:
    """The text for GDAL: `Path` has made one slash of the two that archives and parts of HDF5 files need."""
    text = str(as_path(path))
    text = re.sub(r"^(HDF5:.+):/(?!/)", r"\1://", text)
    inside = re.match(r"(/vsi(?:zip|tar|gzip|7z|rar))(/.+)", text)
    absolute = inside is not None and any(parent.is_file() for parent in [Path(inside[2]), *Path(inside[2]).parents])
    return f"{inside[1]}/{inside[2]}" if inside is not None and absolute else text


def _find(path: Path, what: str) -> EnviPair | None:
    """The ENVI pair of the path, None for other formats; InputError when there is no file with something in it."""
    if not path.exists():
        # A part of a container ("NETCDF:file.nc:reflectance") and GDAL's virtual files have no path of their own.
        if is_virtual(path):
            if path.suffix.lower() == ".hdr":
                raise InputError(f"{what} {path} is a header; name its data file, such as {path.with_suffix('.dat')}")
            return None
        raise InputError(f"{what} {path} doesn't exist")
    if path.is_dir():
        raise InputError(f"{what} {path} is a folder; name the raster file inside it")
    if path.stat().st_size == 0:
        raise InputError(f"{what} {path} is empty (0 bytes)")
    try:
        return find_pair(path)
    except OSError as error:
        raise InputError(f"{what} {path} can't be read: {error.strerror}") from error


def one_line(error: BaseException, path: Path | None = None) -> str:
    """The error's text, GDAL's own where rasterio refers to it, without line breaks or the file's name in front."""
    while isinstance(error, RasterioError) and error.__cause__ is not None:
        error = error.__cause__
    text = " ".join(str(error).split()) or type(error).__name__
    for name in () if path is None else (str(path), path.name):
        text = text.removeprefix(name).lstrip(":, ")
    return text


def descriptions(ds: DatasetReader) -> tuple[str | None, ...] | None:
    """The bands' descriptions; None when they aren't UTF-8, which rasterio takes them to be."""
    try:
        return tuple(ds.descriptions)
    except UnicodeDecodeError:
        return None


def tags(ds: DatasetReader, band: int = 0, domain: str | None = None) -> dict[str, str]:
    """Metadata of the dataset or a band (1-based) in a domain; none where they aren't UTF-8."""
    try:
        return dict(ds.tags(band, ns=domain))
    except UnicodeDecodeError:
        return {}


def wkt2(crs: CRS) -> str:
    """A CRS as WKT2, or as WKT1 where it can't be said that way."""
    try:
        return crs.to_wkt(version="WKT2_2019")
    except CRSError:
        return crs.to_wkt()


def map_crs(ds: DatasetReader) -> CRS | None:
    """The dataset's CRS; None for the "Arbitrary" one that GDAL makes of an ENVI map info without a projection."""
    local = ds.crs is not None and ds.crs.to_wkt().startswith(("LOCAL_CS", "ENGCRS", "ENGINEERINGCRS"))
    return None if local else ds.crs


def map_transform(ds: DatasetReader, pair: EnviPair | None) -> Affine:
    """The dataset's transform, with the origin of a rotated ENVI image put right.

    GDAL goes from the reference pixel of `map info` to the first pixel along the map's axes, which misses it when the
    image is rotated and the reference pixel isn't (1, 1).
    """
    t, info = ds.transform, pair.items("map info") if pair is not None and not pair.tiff else []
    if len(info) < 7 or (t.b == 0 and t.d == 0):
        return t
    try:
        sample, line, x, y = (float(item) for item in info[1:5])
    except ValueError:
        return t
    if not all(map(isfinite, (sample, line, x, y))):
        return t
    at = t @ (sample - 1, line - 1)
    return Affine.translation(x - at[0], y - at[1]) @ t


#: Share of an alpha band's pixels that are fully transparent or opaque: between them lie soft edges only.
CLEAR_CUT = 0.9


@dataclass(frozen=True)
class FileMask:
    """What of a file's own says which pixels count, besides nodata values.

    `alpha`: bands (1-based), each with the number that is opaque. `dataset`: GDAL has one mask for all bands (.msk,
    inside the file, NODATA_VALUES). `bands`: those (1-based) with a mask of their own.
    """

    alpha: tuple[tuple[int, float], ...] = ()
    dataset: bool = False
    bands: frozenset[int] = frozenset()

    def read(self, ds: DatasetReader, bands: Sequence[int], window: Window, shape: tuple[int, int]) -> BoolArray | None:
        """Where all bands asked for (1-based) count (h, w); None: everywhere. RasterioError as of GDAL."""
        where = {"window": window, "out_shape": shape}
        masks = [ds.read(band, **where) >= opaque for band, opaque in self.alpha]
        if self.dataset:
            masks.append(ds.read_masks(bands[0], **where) != 0)
        masks += [ds.read_masks(band, **where) != 0 for band in bands if band in self.bands]
        return np.logical_and.reduce(masks) if masks else None


def bands_and_mask(ds: DatasetReader, note: Callable[[str], None]) -> tuple[list[int], FileMask]:
    """The bands (1-based) that are measurements, and what masks them.

    GDAL marks the fourth of four uint8 bands as alpha without being told so: it is a mask only if it looks like one.
    GDAL itself takes an alpha band for a mask in files of two or four bands only, so it is read here.
    """
    marked = [b for b, colour in zip(ds.indexes, ds.colorinterp, strict=True) if colour == ColorInterp.alpha]
    flags = ds.mask_flag_enums
    own = frozenset(b for b in ds.indexes if not flags[b - 1])
    dataset = any(MaskFlags.per_dataset in of and MaskFlags.alpha not in of for of in flags)
    if not marked or len(marked) == ds.count:
        return list(ds.indexes), FileMask((), dataset, own)
    opaque = {band: _opaque(ds, band) for band in marked}
    if None in opaque.values():
        note(f"band {marked[0]} is marked as alpha but isn't a mask of 0 and one other number; it is used as a band")
        return list(ds.indexes), FileMask((), dataset, own)
    note("the alpha band is used as a mask, not as a band")
    alpha = tuple((band, value) for band, value in opaque.items() if value is not None)
    return [b for b in ds.indexes if b not in marked], FileMask(alpha, dataset, own - set(marked))


def _opaque(ds: DatasetReader, band: int) -> float | None:
    """The number of an alpha band that is opaque, the largest one in use: 255, 65535, 1.

    None where too many pixels lie between it and 0, in at most 1024 x 1024 of them, for a mask.
    """
    try:
        with gdal_env():
            values = ds.read(band, out_shape=(min(ds.height, 1024), min(ds.width, 1024)))
    except (RasterioError, CPLE_BaseError) as error:
        raise InputError(f"{ds.name} can't be read: {one_line(error, Path(ds.name))}") from error
    values = values[np.isfinite(values)]
    largest = float(values.max(initial=0))
    clear = ((values == 0) | (values == largest)).mean() if values.size else 0
    if clear < CLEAR_CUT or values.min(initial=0) < 0:
        return None
    return largest or 1.0


def common_dtype(path: Path, names: list[str]) -> str:
    """The one numpy type that holds all bands; InputError for complex numbers."""
    dtype = np.result_type(*names)
    if np.issubdtype(dtype, np.complexfloating):
        raise InputError(f"{path} holds complex numbers; wanted real ones")
    return dtype.name

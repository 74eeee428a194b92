"""Names of output files: format by suffix, what an output may not overwrite, temporary names moved into place."""

from __future__ import annotations

import codecs
import errno
import os
import re
import secrets
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PosixPath
from tempfile import TemporaryFile

from hsfuse.core.errors import InputError, OutputError, SettingError
from hsfuse.io.envi import siblings

#: Suffixes of each format that can be written.
FORMATS = {"GTiff": (".tif", ".tiff"), "ENVI": (".dat", ".img", ".bsq", ".hdr", ".envi"), "Zarr": (".zarr",)}
_ALIASES = {
    "gtiff": "GTiff", "geotiff": "GTiff", "tif": "GTiff", "tiff": "GTiff", "cog": "COG", "envi": "ENVI", "zarr": "Zarr",
}  # fmt: skip

#: Bytes by which it is told whether a file is text.
TEXT = 2**16
#: Files that GDAL and ENVI would read with an output of the same name, left by an earlier one.
_SIDECARS = (".aux.xml", ".ovr", ".msk", ".hdr")


#: Addresses that GDAL reads from, with the two slashes that they have or the one that `Path` leaves of them.
_ADDRESS = re.compile(r"\b(https?|ftp|s3|gs|az):/+")


class Address(PosixPath):
    """An address such as https://host/a.tif, or GDAL's /vsicurl/https://..., whose slashes are kept."""

    def __str__(self) -> str:
        return _ADDRESS.sub(r"\1://", super().__str__())


def as_path(name: str | Path) -> Path:
    """A file's name as a path, an address as it is written."""
    return Address(name) if _ADDRESS.search(str(name)) else Path(name)


def driver_of(path: str | Path, driver: str = "auto") -> str:
    """The format (GTiff, COG, ENVI, Zarr) by name or else by the path's suffix; SettingError when neither is known."""
    if driver.lower() != "auto":
        if driver.lower() not in _ALIASES:
            raise SettingError(f"unknown format {driver!r}; known: GTiff, COG, ENVI, Zarr")
        return _ALIASES[driver.lower()]
    suffix = Path(path).suffix.lower()
    for found, suffixes in FORMATS.items():
        if suffix in suffixes:
            return found
    known = "; ".join(f"{', '.join(suffixes)} for {found}" for found, suffixes in FORMATS.items())
    raise SettingError(f"the suffix {suffix!r} of {path} names no known format; known: {known}; or give --format")


def output_files(path: str | Path, driver: str = "auto") -> tuple[Path, ...]:
    """The files that writing to `path` makes: (data,) for GTiff, COG and Zarr, (data, header) for ENVI."""
    path = Path(path)
    if driver_of(path, driver) != "ENVI":
        return (path,)
    return (path.with_suffix(".dat") if path.suffix.lower() == ".hdr" else path, path.with_suffix(".hdr"))


def companions(path: Path) -> list[Path]:
    """Where a raster's companions are if it has some: files that are read with it for their names."""
    world = path.with_suffix(f".{path.suffix[1:2]}{path.suffix[-1:]}w")
    beside = [Path(f"{path}{suffix}") for suffix in _SIDECARS]
    return [*beside, *(path.with_suffix(suffix) for suffix in (".hdr", ".HDR", ".wld")), world]


def item_path(output: Path) -> Path:
    """Where the STAC item of an output goes: the same name with the suffix .stac.json."""
    return output.with_suffix(".stac.json")


def check_output(
    path: str | Path,
    inputs: Iterable[str | Path] = (),
    *,
    overwrite: bool = False,
    driver: str = "auto",
    protected: Sequence[Path] = (),
) -> tuple[Path, ...]:
    """The files that will be written, when they may be; call it before any work.

    OutputError when one is an input (ENVI's header and data file count both, links are followed) or one of the
    `protected` files, which are taken as they are and need no GDAL; when the folder is missing or not writable, or when
    one exists and `overwrite` is off; SettingError for an unknown format.
    """
    _check_local(path)
    if Path(path).is_dir() and not is_store(Path(path)):
        raise OutputError(f"the output {path} is a folder; name a file in it, such as {Path(path) / 'fused.tif'}")
    files, sources = output_files(path, driver), [Path(name) for name in inputs]
    _protect(files, [*sources, *protected])
    for file in files:
        if file.is_dir() and not (is_store(file) and driver_of(path, driver) == "Zarr"):
            raise OutputError(f"the output {file} is a folder; name a file")
    _check_folder(files[0].parent)
    existing = [file for file in (*files, *_stale_headers(files)) if os.path.lexists(file)]
    if existing and not overwrite:
        raise OutputError(f"{existing[0]} exists already; choose another name or allow overwriting (--overwrite)")
    if any(source.exists() for source in sources):
        _protect(files, [file for source in sources for file in siblings(source)])
    return files


def _check_local(path: str | Path) -> None:
    """OutputError for GDAL's virtual files and for addresses: outputs are files that appear whole under their name."""
    if str(path).startswith("/vsi"):
        raise OutputError(
            f"the output {path} is one of GDAL's virtual files; wanted a file on a disk: copy it there afterwards"
        )
    if (scheme := re.match(r"(\w[\w+.-]+):/", str(path))) and not Path(path).parent.is_dir():
        raise OutputError(
            f"the output {path} is an address ({scheme[1]}:); wanted a file on a disk: copy it there afterwards"
        )


def _protect(files: Iterable[Path], inputs: Sequence[Path]) -> None:
    for file in files:
        for other in inputs:
            if _same(file, other):
                raise OutputError(f"the output {file} is the input {other}; choose another name")


def is_store(path: Path) -> bool:
    """Whether a folder is a Zarr group."""
    return path.is_dir() and any((path / name).is_file() for name in (".zgroup", "zarr.json"))


def is_virtual(path: Path) -> bool:
    """Whether an input is one of GDAL's virtual files or part of a container: no path of the file system."""
    return str(path).startswith("/vsi") or (":" in str(path) and not os.path.exists(path))


def check_path(role: str, path: Path) -> None:
    """InputError for a path that no file can have: with a NUL, not in the file system's encoding, or too long."""
    try:
        os.lstat(path)
    except ValueError as error:
        raise InputError(f"the {role} {str(path)!r} can't be the path of a file ({error})") from error
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            raise InputError(f"the {role} {path} can't be the path of a file: the name is too long") from error


def split_paths(text: str | Path) -> list[Path]:
    """`b02.tif,b03.tif` as the paths of one image's bands; a path that exists, or has no comma, as itself."""
    if "," not in str(text) or os.path.exists(text):  # False for names too long, too, for which Path raises OSError
        return [as_path(text)]
    return [as_path(part.strip()) for part in str(text).split(",") if part.strip()]


def check_inputs(role: str, paths: Iterable[Path]) -> None:
    """InputError for the first file that isn't there; GDAL's virtual files and parts of containers have no path."""
    for path in paths:
        if not is_virtual(path) and not path.exists():
            raise InputError(f"the {role} {path} doesn't exist")


def check_report_path(path: str | Path, overwrite: bool, inputs: Sequence[str | Path] = ()) -> None:
    """OutputError unless a report may be written to `path`: it isn't there or may be replaced, and isn't an input."""
    _check_local(path)
    path = Path(path)
    if any(path.resolve() == Path(source).resolve() for source in inputs):
        raise OutputError(f"the report {path} would replace an input; give it another name")
    if path.is_dir():
        raise OutputError(f"the report {path} is a folder; give a file name such as {path / 'report.html'}")
    if path.exists() and not overwrite:
        raise OutputError(f"the report {path} exists; give another name, or --overwrite")
    if not path.parent.is_dir():
        raise OutputError(f"the folder {path.parent} for the report doesn't exist; make it first")
    if not _takes_files(path.parent):
        raise OutputError(f"the folder {path.parent} for the report can't be written to")


def check_log(path: Path, read: Iterable[Path], made: Iterable[Path]) -> None:
    """OutputError unless a log may be appended to `path`: text or a new file, and nothing that is `read` or `made`.

    What lies beside such a file and is read with it, or in a folder that is read, counts as that.
    """
    check_path("log file", path)
    at, there = {path.resolve(), path.parent.resolve() / path.name}, path.exists()
    for file in (inputs := list(read)) + list(made):
        names = {file.resolve(), *(file.parent.resolve() / one.name for one in (file, *companions(file)))}
        if at & names or (there and file.exists() and path.samefile(file)):
            raise OutputError(f"the log file {path} is {file} or read with it; give it another name")
    for file in inputs:
        if file.is_dir() and path.resolve().is_relative_to(file.resolve()):
            raise OutputError(f"the log file {path} lies in the input {file}; put it elsewhere")
    if not path.is_file():
        return
    for file in inputs:
        if any(path.samefile(one) for one in siblings(file) if one.exists()):
            raise OutputError(f"the log file {path} belongs to the input {file}; give it another name")
    if not _is_text(path):
        raise OutputError(f"the log file {path} is there and no text; give another name")


def _is_text(path: Path) -> bool:
    """Whether a file begins as text does."""
    with path.open("rb") as file:
        start = file.read(TEXT)
    try:
        return "\0" not in codecs.getincrementaldecoder("utf-8")().decode(start)
    except UnicodeDecodeError:
        return False


def _same(a: Path, b: Path) -> bool:
    if a.exists() and b.exists():
        return a.samefile(b)
    return a.resolve() == b.resolve()


def _check_folder(folder: Path) -> None:
    if not folder.is_dir():
        raise OutputError(f"the output folder {folder} doesn't exist; make it first")
    if not _takes_files(folder):
        raise OutputError(f"the output folder {folder} can't be written to")


def _takes_files(folder: Path) -> bool:
    """Whether a file can be made in a folder, tried out: rights don't tell of what is mounted or kept by the system."""
    try:
        with TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


def _stale_headers(files: tuple[Path, ...]) -> list[Path]:
    """For ENVI: the header under the other customary name (scene.dat.hdr), which would be read before ours."""
    return [Path(f"{files[0]}.hdr")] if len(files) > 1 and Path(f"{files[0]}.hdr") != files[1] else []


def temporary_files(files: tuple[Path, ...]) -> tuple[Path, ...]:
    """Hidden names beside the final ones, with one unique stem and the final suffixes."""
    stem = f".{files[0].stem}.{secrets.token_hex(4)}.part"
    return tuple(file.with_name(stem + file.suffix) for file in files)


@contextmanager
def trial_folder(output: str | Path) -> Iterator[Path]:
    """A hidden folder beside an output, for what is tried out there; what a killed process leaves goes as its files do.

    OutputError where it can't be made.
    """
    (folder,) = temporary_files((Path(output),))
    try:
        folder.mkdir()
    except OSError as error:
        raise OutputError(f"the output folder {folder.parent} can't be written to: {error.strerror}") from error
    try:
        yield folder
    finally:
        try:
            remove(folder)
        except BaseException:  # interrupted in the middle of it
            remove(folder)
            raise


def move_into_place(outputs: Sequence[tuple[tuple[Path, ...], tuple[Path, ...]]]) -> None:
    """Rename the temporary files of each output to its names, in order (ENVI's header comes last): all, or none.

    What was there is put back when a rename fails; else it goes, with the sidecar files beside it.
    """
    moves = [pair for temporary, files in outputs for pair in zip(temporary, files, strict=True)]
    for source, _ in moves:
        if source.is_file():
            _sync(source)
    old: list[tuple[Path, Path | None]] = []
    try:
        for source, target in moves:
            old.append((target, _kept(target)))
            os.replace(source, target)
    except BaseException:
        for target, aside in reversed(old):
            _put_back(target, aside)
        raise
    for _, aside in old:
        if aside is not None:
            remove(aside)
    _drop_sidecars(files for _, files in outputs)


def _kept(target: Path) -> Path | None:
    """A second, hidden name for what is at an output's; None where nothing is. A file stays in its place till then."""
    if not os.path.lexists(target):
        return None
    aside = target.with_name(f".{target.stem}.{secrets.token_hex(4)}.old{target.suffix}")
    try:
        os.link(target, aside, follow_symlinks=False)
    except OSError:  # a Zarr group's folder, or a file system without links
        os.replace(target, aside)
    return aside


def _put_back(target: Path, aside: Path | None) -> None:
    if aside is None or target.is_dir():
        remove(target)
    if aside is not None:
        os.replace(aside, target)
        remove(aside)  # still there if both were one file: renaming leaves links to the same alone


def _drop_sidecars(outputs: Iterable[tuple[Path, ...]]) -> None:
    for files in outputs:
        for suffix in _SIDECARS:
            stale = Path(f"{files[0]}{suffix}")
            if stale not in files:
                stale.unlink(missing_ok=True)


def write_whole(path: str | Path, text: str) -> None:
    """A text file, under a temporary name first: it is there whole or not at all; OutputError when that can't be."""
    path = Path(path)
    (temporary,) = temporary_files((path,))
    try:
        temporary.write_text(text, encoding="utf-8")
        move_into_place([((temporary,), (path,))])
    except OSError as error:
        raise OutputError(f"{path} can't be written: {error.strerror}") from error
    finally:
        temporary.unlink(missing_ok=True)


def kept_method(output: Path) -> Path:
    """Where the fitted method of a run with `resume` is kept till all that goes with its output is there."""
    return output.with_name(f".{output.stem}.unfinished.safetensors")


def remove(path: Path) -> None:
    """Remove a file, or the folder of an unfinished Zarr group."""
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _sync(file: Path) -> None:
    """Have the bytes on the disk before the name is: delayed writes report a full disk only here."""
    descriptor = os.open(file, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

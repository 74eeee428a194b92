"""Whether an output is finished: of the inputs as they are now, with the same options, by this version. No torch.

A fused file carries what was asked for (`asked`) and how its inputs were (`input_files`); both name files from the
output's folder, so that a tree may be moved as a whole.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from hsfuse.core.errors import InputError, OutputError
from hsfuse.core.options import OPTIONS, FuseOptions
from hsfuse.core.package import __version__, file_sha256
from hsfuse.io.files import companions, driver_of, item_path, kept_method, output_files

#: Options that say nothing of what an output holds; where further files go shows in their being there.
NOT_ASKED = ("resume", "dry_run", "overwrite", "qa", "save_model", "stac", "dask")
#: Options that may name a file: a response, weights, a PSF.
MAY_BE_FILES = ("srf", "model", "psf")
#: Options that differ in words alone where "auto" is that device, or the tiles in whole blocks are the same.
IN_EFFECT = ("device", "tile", "overlap")
#: Tiles whose place is looked up in a finished GeoTIFF at most: .1 s.
MOST_PLACES = 10_000


def file_print(path: Path) -> tuple[str, int, int]:
    """Name, size and time of the last change; of a folder (Zarr) those of all that is in it."""
    files = [path, *sorted(path.rglob("*"))] if path.is_dir() else [path]
    stats = [file.stat() for file in files]
    return str(path), sum(stat.st_size for stat in stats), max(stat.st_mtime_ns for stat in stats)


def request(
    hsi: str | Path, msi: Iterable[str | Path], output: Path, options: FuseOptions, files: Iterable[Path]
) -> dict[str, Any]:
    """What the provenance of an output says of what was asked for; `files` are those that its inputs consist of."""
    there = with_companions(files, output, options)
    return {"asked": _asked(hsi, msi, output, options), "input_files": [_of(file, output) for file in there]}


def with_companions(files: Iterable[Path], output: Path, options: FuseOptions) -> list[Path]:
    """The files that inputs consist of and their companions, as far as they are there and aren't made here."""
    made = {path.resolve() for path in files_of(output, options)}
    named = dict.fromkeys(name for file in files for name in (file, *companions(file)))
    return [file for file in named if file.exists() and file.resolve() not in made]


def contents(options: FuseOptions) -> dict[str, str]:
    """The SHA-256 of each file that an option names, by the option."""
    named = {name: Path(getattr(options, name)) for name in MAY_BE_FILES}
    return {name: file_sha256(path) for name, path in named.items() if path.is_file()}


def _asked(hsi: str | Path, msi: Iterable[str | Path], output: Path, options: FuseOptions) -> dict[str, Any]:
    """Inputs, options that aren't the default, and what is in the files that they name; as JSON gives it back."""
    plain, files = FuseOptions(), contents(options)
    told = {name: getattr(options, name) for name in OPTIONS if name not in NOT_ASKED}
    told = {name: value for name, value in told.items() if value != getattr(plain, name)}
    told |= {name: _from(output, told[name]) for name in files if name in told}
    told |= {} if options.pace == plain.pace else {"pace": asdict(options.pace)}
    asked = {"inputs": [_from(output, path) for path in (hsi, *msi)], "options": told, "contents": files}
    return dict(json.loads(json.dumps(asked, default=str)))


def files_of(output: Path, options: FuseOptions) -> list[Path]:
    """All files that a fusion makes."""
    beside = [options.qa, options.save_model, item_path(output) if options.stac else None]
    return [*output_files(output, options.format), *filter(None, beside)]


def goes_on(output: Path, options: FuseOptions) -> bool:
    """Whether a run that was interrupted can be gone on with: GeoTIFF alone, else it is made from the start."""
    made = [driver_of(output, options.format)] + ([] if options.qa is None else [driver_of(options.qa)])
    return set(made) == {"GTiff"}


def is_fresh(made: Path, output: Path) -> bool:
    """Whether what is made of an output, such as a report, is there and not of one that was there before."""
    return made.exists() and made.stat().st_mtime_ns >= output.stat().st_mtime_ns


def provenance_in(output: Path, options: FuseOptions) -> Mapping[str, Any]:
    """What an output says of its making; {} where there is none that can be read.

    The header of an ENVI file and a Zarr group's attributes say it even where their data aren't whole.
    """
    from hsfuse.io import open_cube, read_provenance
    from hsfuse.io.envi import read_header
    from hsfuse.io.spectral_tags import header_tags
    from hsfuse.io.zarr_store import attributes

    file, *header = output_files(output, options.format)
    if not file.exists():
        return {}
    try:
        with open_cube(file) as reader:
            return read_provenance(reader.tags)
    except InputError:
        if driver_of(output, options.format) == "Zarr":
            return read_provenance(attributes(file))
        with suppress(InputError, OSError):
            return read_provenance(header_tags(read_header(header[0]))) if header else {}
        return {}


def damage(output: Path, options: FuseOptions) -> str:
    """What an output, or its quality layers, has lost since it was made, in words; "" where nothing is found.

    Quick, so not everything is read: the first and the last block, and of a GeoTIFF where tiles lie (each of
    MOST_PLACES, some of more), of Zarr how many chunks there are and how long each is. ENVI data must have the size
    that their header promises.
    """
    from rasterio.windows import Window

    from hsfuse.io import open_cube
    from hsfuse.io.sinks import placed_tiles
    from hsfuse.io.zarr_store import lost_chunks

    made = [(output_files(output, options.format)[0], driver_of(output, options.format))]
    made += [] if options.qa is None else [(output_files(options.qa)[0], driver_of(options.qa))]
    for file, driver in made:
        try:
            if driver == "Zarr" and (lost := lost_chunks(file)):
                return lost
            with open_cube(file) as reader:
                size = file.stat().st_size
                for where, at, length in placed_tiles(file, MOST_PLACES) if driver in ("GTiff", "COG") else ():
                    if at + length > size:
                        return f"the file ends before {where}"
                rows, cols = reader.grid.shape
                for band, row, col in ((0, 0, 0), (reader.count - 1, rows - 1, cols - 1)):
                    reader.pixels([band], Window(col, row, 1, 1))  # without the patience that inputs are read with
        except InputError as error:
            return str(error)
    return ""


def answers(
    provenance: Mapping[str, Any], hsi: str | Path, msi: Iterable[str | Path], output: Path, options: FuseOptions
) -> bool:
    """Whether an output with this provenance is what these inputs, as they are now, give with these options."""
    return not changes(provenance, hsi, msi, output, options)


def changes(
    provenance: Mapping[str, Any], hsi: str | Path, msi: Iterable[str | Path], output: Path, options: FuseOptions
) -> dict[str, str]:
    """What isn't as it was when an output with this provenance was made: in words, by the option or file's name."""
    then, inputs = provenance.get("asked"), provenance.get("input_files")
    if not isinstance(then, Mapping) or not {"inputs", "options", "contents"} <= {*then} or not inputs:
        return {"asked": "it doesn't say what it was made from"}
    now, found = _asked(hsi, msi, output, options), {}
    if provenance.get("hsfuse") != __version__:
        found["hsfuse"] = f"hsfuse {provenance.get('hsfuse')} has made it, and this is {__version__}"
    if then["inputs"] != now["inputs"]:
        found["inputs"] = f"it was made from {' and '.join(then['inputs'])}"
    for name in sorted({*then["options"], *now["options"]}):
        was, given = (asked["options"].get(name, "not given") for asked in (then, now))
        if was != given:
            found[name] = f"{_spelled(name)} was {was}, and is {given}"
        elif then["contents"].get(name) != now["contents"].get(name):
            found[name] = f"the file of {_spelled(name)} has changed ({getattr(options, name)})"
    return found | _changed_inputs(inputs, output, options)


def made_from(provenance: Mapping[str, Any], output: Path, files: Iterable[Path]) -> bool:
    """Whether an output's record has all of these files, those that aren't on disk aside; True where it has none.

    A file is known by its size and the time of its last change or, as copies have another, by its place from the
    output's folder.
    """
    inputs = provenance.get("input_files")
    if not isinstance(inputs, list):
        return True
    places = {(os.path.normpath(output.parent / name), size) for name, size, _ in inputs}
    stats = {(size, changed) for _, size, changed in inputs}
    prints = [file_print(file) for file in files if file.exists()]
    return all((os.path.normpath(name), size) in places or (size, time) in stats for name, size, time in prints)


def _changed_inputs(inputs: list[Any], output: Path, options: FuseOptions) -> dict[str, str]:
    """What has changed of the files that an output's inputs consisted of, and what has come beside them."""
    found = {}
    for name, *stats in inputs:
        path, told = output.parent / name, os.path.normpath(output.parent / name)
        if not path.exists():
            found[told] = f"the input's {told} isn't there any more"
        elif list(file_print(path)[1:]) != stats:
            found[told] = f"the input's {told} has changed"
    known = {name for name, *_ in inputs}
    for path in with_companions((output.parent / name for name in known), output, options):
        if _from(output, path) not in known:
            told = os.path.normpath(path)
            found[told] = f"{told} has come beside the input"
    return found


def check_unchanged(
    hsi: str | Path, msi: Iterable[str | Path], output: Path, options: FuseOptions, aside: Iterable[str] = ()
) -> None:
    """OutputError, which says what has changed, for an output that is there and `resume` can't leave alone.

    Changes of options that are `aside` don't count, nor what isn't there of a run that was killed at its very end.
    """
    file = output_files(output, options.format)[0]
    if options.overwrite or not file.exists():
        return
    found = changes(provenance_in(output, options), hsi, msi, output, options)
    told = [text for name, text in found.items() if name not in aside]
    if not kept_method(output).exists():
        told += [f"{path}, which goes with it, isn't there" for path in files_of(output, options) if not path.exists()]
    if told:
        raise OutputError(
            f"{file} exists already and isn't what --resume leaves alone: {'; '.join(told)}; choose another name or "
            "allow overwriting (--overwrite)"
        )


def _spelled(name: str) -> str:
    """An option as the command line has it."""
    return (OPTIONS[name].name if name in OPTIONS else "") or f"--{name.replace('_', '-')}"


def _of(path: Path, output: Path) -> tuple[str, int, int]:
    return _from(output, path), *file_print(path)[1:]


def _from(output: Path, path: str | Path) -> str:
    """A path from the output's folder; GDAL's own names as they are."""
    return os.path.relpath(path, output.parent) if os.path.exists(path) else str(path)

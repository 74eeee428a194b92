"""Whether an output is finished: of the inputs as they are now, with the same options, by this version. No torch.

A fused file carries what was asked for (`asked`, a digest) and how its inputs were (`input_files`); both name files
from the output's folder, so that a tree may be moved as a whole.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from hashlib import sha256
from pathlib import Path
from typing import Any

from hsfuse.core.errors import InputError
from hsfuse.core.options import OPTIONS, FuseOptions
from hsfuse.core.package import __version__
from hsfuse.io.files import item_path, output_files

#: Options that say nothing of what an output holds; where further files go shows in their being there.
NOT_ASKED = ("resume", "dry_run", "overwrite", "qa", "save_model", "stac", "dask")
#: Options that may name a file: a response, weights, a PSF.
MAY_BE_FILES = ("srf", "model", "psf")


def file_print(path: Path) -> tuple[str, int, int]:
    """Name, size and time of the last change; of a folder (Zarr) those of all that is in it."""
    files = [path, *sorted(path.rglob("*"))] if path.is_dir() else [path]
    stats = [file.stat() for file in files]
    return str(path), sum(stat.st_size for stat in stats), max(stat.st_mtime_ns for stat in stats)


def request(
    hsi: str | Path, msi: Iterable[str | Path], output: Path, options: FuseOptions, files: Iterable[Path]
) -> dict[str, Any]:
    """What the provenance of an output says of what was asked for; `files` are those that its inputs consist of."""
    there = [file for file in files if file.exists()]
    return {"asked": _asked(hsi, msi, output, options), "input_files": [_of(file, output) for file in there]}


def _asked(hsi: str | Path, msi: Iterable[str | Path], output: Path, options: FuseOptions) -> str:
    told: dict[str, Any] = {name: getattr(options, name) for name in OPTIONS if name not in NOT_ASKED}
    told |= {name: _of(path, output) for name in MAY_BE_FILES if (path := Path(told[name])).is_file()}
    inputs = [_from(output, path) for path in (hsi, *msi)]
    parts = [__version__, inputs, told, asdict(options.pace)]
    return sha256(json.dumps(parts, default=str, sort_keys=True).encode()).hexdigest()


def files_of(output: Path, options: FuseOptions) -> list[Path]:
    """All files that a fusion makes."""
    beside = [options.qa, options.save_model, item_path(output) if options.stac else None]
    return [*output_files(output, options.format), *filter(None, beside)]


def is_fresh(made: Path, output: Path) -> bool:
    """Whether what is made of an output, such as a report, is there and not of one that was there before."""
    return made.exists() and made.stat().st_mtime_ns >= output.stat().st_mtime_ns


def provenance_in(output: Path, options: FuseOptions) -> Mapping[str, Any]:
    """What an output says of its making; {} where there is none that can be read."""
    from hsfuse.io import open_cube, read_provenance

    file = output_files(output, options.format)[0]
    if not file.exists():
        return {}
    try:
        with open_cube(file) as reader:
            return read_provenance(reader.tags)
    except InputError:
        return {}


def answers(
    provenance: Mapping[str, Any], hsi: str | Path, msi: Iterable[str | Path], output: Path, options: FuseOptions
) -> bool:
    """Whether an output with this provenance is what these inputs, as they are now, give with these options."""
    inputs = provenance.get("input_files")
    if provenance.get("asked") != _asked(hsi, msi, output, options) or not isinstance(inputs, list):
        return False
    try:
        return all(list(_of(output.parent / one[0], output)) == one for one in inputs)
    except OSError:
        return False


def _of(path: Path, output: Path) -> tuple[str, int, int]:
    return _from(output, path), *file_print(path)[1:]


def _from(output: Path, path: str | Path) -> str:
    """A path from the output's folder; GDAL's own names as they are."""
    return os.path.relpath(path, output.parent) if os.path.exists(path) else str(path)

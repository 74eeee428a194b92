"""References found on disk, and the check that training and validation share no pixel."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from itertools import combinations
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hsfuse.core.errors import InputError
from hsfuse.io.arrays import read_reference
from hsfuse.training.config import DataSettings, TrainConfig
from hsfuse.training.sample import Reference

log = logging.getLogger(__name__)

#: Band centres given to a cube without any: what imaging spectrometers commonly see. Only the choice of SRFs needs it.
NOMINAL_NM = {31: (400.0, 700.0)}
NOMINAL_DEFAULT_NM = (400.0, 2480.0)
#: Two references share a scene when this share of the smaller one's distinct pixels is in the other, bit for bit.
SHARED_PIXELS = 0.01


def load_references(config: TrainConfig, folder: Path) -> tuple[list[Reference], list[Reference]]:
    """Training and validation references below `folder`; InputError when a pattern finds nothing or sides overlap."""
    data = config.data
    train = [r for pattern, weight in data.train for r in _read_all(folder, pattern, data, weight)]
    validation = [r for pattern in data.validation for r in _read_all(folder, pattern, data, 1.0)]
    sides = {"training": train, "validation": validation, "test": load_test(config, folder)}
    for one, other in combinations(sides, 2):
        check_disjoint(sides[one], sides[other], (one, other))
    log.info("%d training and %d validation references", len(train), len(validation))
    return train, validation


def load_test(config: TrainConfig, folder: Path) -> list[Reference]:
    """The test references that are there: whoever trains needn't have them."""
    found = [pattern for pattern in config.data.test if any(folder.glob(pattern))]
    return [r for pattern in found for r in _read_all(folder, pattern, config.data, 1.0)]


def _read_all(folder: Path, pattern: str, data: DataSettings, weight: float) -> list[Reference]:
    """References of one pattern (or one file or folder), which share its weight."""
    paths = sorted(folder.glob(pattern))
    if not paths:
        raise InputError(f"{folder}: nothing is called {pattern}; give the data folder with --data")
    return [_read(path, path.relative_to(folder), data, weight / len(paths)) for path in paths]


def _read(path: Path, name: Path, data: DataSettings, weight: float) -> Reference:
    cube, wavelengths_nm = read_reference(path)
    if data.normalise == "maximum":
        cube = cube / max(float(cube.max()), 1e-12)
    if wavelengths_nm is None:
        wavelengths_nm = np.linspace(*NOMINAL_NM.get(len(cube), NOMINAL_DEFAULT_NM), len(cube))
        log.info("%s has no wavelengths: taken as %.0f to %.0f nm", name, wavelengths_nm[0], wavelengths_nm[-1])
    return Reference(str(name), cube, wavelengths_nm, weight)


def check_disjoint(
    ones: Sequence[Reference], others: Sequence[Reference], sides: tuple[str, str] = ("training", "validation")
) -> None:
    """InputError when two sides have a file or pixels in common, be it in files of other names or sizes."""
    if again := sorted({r.name for r in ones} & {r.name for r in others}):
        raise InputError(f"in {sides[0]} and in {sides[1]}: {', '.join(again)}; a scene may be on one side only")
    known = {r.name: pixel_keys(r.data) for r in ones} if others else {}
    for held in others:
        keys = pixel_keys(held.data)
        for name, theirs in known.items():
            shared = np.intersect1d(keys, theirs, assume_unique=True).size
            if shared > SHARED_PIXELS * max(1, min(keys.size, theirs.size)):
                raise InputError(
                    f"{name} ({sides[0]}) and {held.name} ({sides[1]}) share {shared} pixels; "
                    "a scene may be on one side only"
                )


def pixel_keys(cube: NDArray[np.float32]) -> NDArray[np.uint64]:
    """Distinct hashes of a cube's spectra (C, H, W); spectra of one value all over count for nothing."""
    spectra = np.ascontiguousarray(cube.reshape(len(cube), -1).T, dtype=np.float32)
    spectra = spectra[np.ptp(spectra, axis=1) > 0]
    words = spectra.view(np.uint32).astype(np.uint64)
    factors = np.random.default_rng(0).integers(1, 2**63, words.shape[1], dtype=np.uint64) | np.uint64(1)
    return np.unique((words * factors).sum(1, dtype=np.uint64))


def describe(references: Iterable[Reference]) -> str:
    """Names for the card."""
    return ", ".join(r.name for r in references)

"""A pair opened for work: both files on one nested grid, bands matched, observation model built.

`fuse` and `assess` start here, so that what is assessed is what was fused.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from rasterio.windows import Window

from hsfuse.cube import Cube, Spectrum
from hsfuse.errors import InputError, SettingError
from hsfuse.grid import Alignment, align
from hsfuse.io import CubeReader, Paths, open_cube, usable_bands
from hsfuse.physics import ObservationModel, Psf, centred_phase, gaussian_psf, sigma_from_mtf
from hsfuse.srf import SpectralResponse, covered_bands, load_srf, match_bands

DEFAULT_MTF = 0.3
#: Rows read at a time when pixels with NaN or Inf are counted.
COUNTED_ROWS = 32


@dataclass(frozen=True)
class SceneSettings:
    """How two files are to be understood: response, MSI bands, PSF (MTF at Nyquist or sigma in MSI pixels), phase."""

    srf: str
    msi_bands: tuple[str, ...] | None = None
    mtf: float = DEFAULT_MTF
    psf_sigma: float | None = None
    phase: float | None = None


@dataclass
class ScenePair:
    """LRHSI and MSI files, their common grid, the bands in use, the observation model and what is worth saying."""

    hsi: CubeReader
    msi: CubeReader
    alignment: Alignment
    hsi_bands: list[int]
    msi_bands: list[int]
    msi_names: tuple[str, ...]
    response: SpectralResponse
    coverage: tuple[float, ...]
    model: ObservationModel
    notes: list[str] = field(default_factory=list)
    _stack: ExitStack = field(default_factory=ExitStack, repr=False)

    @property
    def scale(self) -> int:
        """Ratio of the GSDs."""
        return self.alignment.scale

    @property
    def spectrum(self) -> Spectrum:
        """The HSI bands in use."""
        return self.hsi.spectrum.select(self.hsi_bands)

    @property
    def lr_shape(self) -> tuple[int, int]:
        """Rows and columns of the common extent in LR pixels."""
        return self.alignment.lr_grid.shape

    def read_lr(self, window: Window) -> Cube:
        """LRHSI (C, h, w) in a window of the common extent, in LR pixels."""
        return self.hsi.read(_shift(window, self.alignment.hsi_window), self.hsi_bands)

    def read_hr(self, window: Window) -> Cube:
        """MSI (c, H, W) in a window of the common extent, in MSI pixels."""
        return self.msi.read(_shift(window, self.alignment.msi_window), self.msi_bands)

    def nonfinite_notes(self) -> list[str]:
        """How many pixels of the common extent hold NaN or Inf, for each image in which reading has met some."""
        images = (
            ("HSI", self.hsi, self.alignment.hsi_window, self.hsi_bands),
            ("MSI", self.msi, self.alignment.msi_window, self.msi_bands),
        )
        return [
            f"{_nonfinite(reader, window, bands)} pixels of the {role} hold NaN or Inf and are masked"
            for role, reader, window, bands in images
            if reader.nonfinite
        ]

    def summary(self) -> dict[str, str]:
        """The decisions, for people, provenance and reports."""
        return {
            "HSI": f"{self.hsi.path} ({self.hsi.grid.describe()}, {len(self.hsi_bands)} of {self.hsi.count} bands)",
            "MSI": f"{self.msi.path} ({self.msi.grid.describe()}, bands {', '.join(self.msi_names)})",
            "grid": self.alignment.note,
            "SRF": f"{self.response.name} ({self.response.source})",
            "observation": self.model.describe(),
        }

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        self._stack.close()


def _shift(window: Window, into: Window) -> Window:
    return Window(into.col_off + window.col_off, into.row_off + window.row_off, window.width, window.height)


def _nonfinite(reader: CubeReader, window: Window, bands: list[int]) -> int:
    """Pixels with NaN or Inf, each counted once, which reading by tiles that overlap doesn't do."""
    reader.nonfinite = 0
    for row in range(0, int(window.height), COUNTED_ROWS):
        rows = min(COUNTED_ROWS, int(window.height) - row)
        reader.read(Window(window.col_off, window.row_off + row, window.width, rows), bands)
    return reader.nonfinite


def open_scene(hsi: str | Path, msi: Paths, settings: SceneSettings) -> ScenePair:
    """Open a pair, align it, match bands and build the observation model; InputError tells what doesn't fit."""
    stack = ExitStack()
    try:
        return _open(stack, hsi, msi, settings)
    except BaseException:
        stack.close()
        raise


def _open(stack: ExitStack, hsi: str | Path, msi: Paths, settings: SceneSettings) -> ScenePair:
    response = load_srf(settings.srf)
    low = stack.enter_context(open_cube(hsi, role="HSI"))
    high = stack.enter_context(open_cube(msi, role="MSI"))
    notes = [*low.notes, *high.notes, *([response.note] if response.note else [])]
    alignment = align(low.grid, high.grid)
    hsi_bands = _usable(low, notes)
    match = match_bands(response, high.spectrum.names or (None,) * high.count, high.count, settings.msi_bands)
    if match.note:
        notes.append(match.note)
    spectrum = low.spectrum.select(hsi_bands)
    assert spectrum.wavelengths_nm is not None  # a reader in the role of an HSI has them
    covered = covered_bands(response, match.bands, spectrum.wavelengths_nm, spectrum.fwhm_nm)
    if covered.note:
        notes.append(covered.note)
    model = ObservationModel(covered.matrix, _psf(settings, alignment.scale), alignment.scale, settings.phase)
    return ScenePair(
        low,
        high,
        alignment,
        hsi_bands,
        [match.indices[i] for i in covered.kept],
        covered.bands,
        response,
        covered.coverage,
        model,
        notes,
        stack,
    )


def _usable(reader: CubeReader, notes: list[str]) -> list[int]:
    """Bands that carry data; said aloud when some don't."""
    good = usable_bands(reader)
    if not good.any():
        raise InputError(f"{reader.path}: no valid pixel in any band")
    if not good.all():
        notes.append(f"{int((~good).sum())} of {good.size} HSI bands are marked bad or empty and take no part")
    return [int(i) for i in np.flatnonzero(good)]


def _psf(settings: SceneSettings, scale: int) -> Psf:
    sigma = settings.psf_sigma if settings.psf_sigma is not None else sigma_from_mtf(settings.mtf, scale)
    phase = centred_phase(scale) if settings.phase is None else settings.phase
    if not 0 <= phase <= scale - 1:
        raise SettingError(f"the phase is {phase:g}, wanted 0 to {scale - 1} MSI pixels (centred: {(scale - 1) / 2:g})")
    return gaussian_psf(sigma, scale, phase)

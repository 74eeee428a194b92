"""A pair opened for work: both images on one nested grid, bands matched, observation model built."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, field
from math import ceil, prod
from types import TracebackType
from typing import Any, Self

import numpy as np
import torch
from rasterio.windows import Window
from scipy.ndimage import binary_erosion

from hsfuse.calibration import EstimatedPsf, RadiometricMatch, Shift
from hsfuse.calibration.radiometry import FAR_LR, Haze
from hsfuse.calibration.tone import ToneCurves
from hsfuse.core.cube import Cube, FloatArray, Spectrum
from hsfuse.core.grid import Alignment, Motion, within
from hsfuse.core.notes import Note, note
from hsfuse.core.options import FuseOptions
from hsfuse.io import CubeReader
from hsfuse.io.open import is_remote
from hsfuse.io.reader import Quantity
from hsfuse.pair.detail import looked_at, missing_detail
from hsfuse.pair.sensors import SensorCheck
from hsfuse.pair.warp import WarpedReader, own_reader
from hsfuse.physics import SpectralResponse
from hsfuse.physics.model import ObservationModel

#: Codes of notes that say that a quantity was only guessed.
GUESSED = ("quantity-guessed", "quantity-multiplied")
#: Rows read at a time when pixels with NaN or Inf, or masked ones, are counted.
COUNTED_ROWS = 32
#: Values of both images up to which these are read again to tell which one masks pixels: some seconds.
MOST_COUNTED = 2**28


@dataclass
class ScenePair:
    """LRHSI and MSI, their common grid, the bands in use, the observation model, what is worth saying
    (`notes`), and what speaks against the result (`warnings`).

    `hsi` lies on the common grid, warped where its own wasn't nested. `shift` is what registration found, `residual`
    what it left, `motion` what is corrected of it in pixels of the whole MSI; `off_centre`: half an LR pixel of it at
    most is left to the PSF, which isn't centred then. `tone` and `radiometry` are taken out of the MSI on reading,
    then `haze`, by how much the LRHSI says that there is around each pixel;
    `gains` (C, c) make good what a warp gets wrong, by the MSI (`hsfuse.pair.detail`);
    `units` (C,): what HSI bands are divided by while they are fused, some being far noisier than others; None: nothing;
    `psf` is what was estimated of its PSF; `sensors` says whether the model fits, None where that couldn't be told;
    `options` are those that it was opened with. Pickled, it opens its files again where it is unpickled.
    """

    hsi: CubeReader
    msi: CubeReader
    alignment: Alignment
    hsi_bands: list[int]
    msi_bands: list[int]
    msi_names: tuple[str, ...]
    response: SpectralResponse
    coverage: tuple[float, ...]
    model: ObservationModel
    notes: list[Note] = field(default_factory=list)
    warnings: list[Note] = field(default_factory=list)
    warped: bool = False
    off_centre: bool = False
    shift: Shift | None = None
    residual: Shift | None = None
    motion: Motion = field(default_factory=Motion)
    tone: ToneCurves | None = None
    radiometry: RadiometricMatch | None = None
    haze: Haze | None = None
    psf: EstimatedPsf | None = None
    gains: FloatArray | None = None
    units: FloatArray | None = None
    sensors: SensorCheck | None = None
    options: FuseOptions = field(default_factory=FuseOptions)
    _stack: ExitStack = field(default_factory=ExitStack, repr=False)

    def __repr__(self) -> str:
        lines = [f"{what}: {text}" for what, text in self.summary().items() if what != "SRF"]
        told = f"{len(self.notes)} notes, {len(self.warnings)} warnings"
        return "\n  ".join(
            ["ScenePair", *lines, f"HSI bands: {self.spectrum.describe()}; SRF: {self.response.name}", told]
        )

    @property
    def ratio(self) -> int:
        """Ratio of the GSDs."""
        return self.alignment.ratio

    @property
    def quantity(self) -> Quantity:
        """What the HSI's file says that its values are, and so the fused ones; figures alone only make a guess."""
        guessed = any(one.code in GUESSED for one in self.notes)
        return "unknown" if guessed else self.hsi.quantity

    @property
    def unreached(self) -> float:
        """Share of the MSI's pixels that the fused cube hasn't: no whole pixel of the HSI reaches them."""
        return max(0.0, 1 - prod(self.alignment.full) / prod(self.msi.grid.shape))

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
        cube = self.hsi.read(within(window, self.alignment.hsi_window), self.hsi_bands)
        if self.gains is None:
            return cube
        data = cube.data + missing_detail(self, window)
        return cube.with_data(np.where(cube.mask, data, np.float32(0)))

    def read_hr(self, window: Window) -> Cube:
        """MSI (c, H, W) in the HSI's radiometry, in a window of the common extent, in MSI pixels."""
        cube = self.own_msi(window)
        data = cube.data if self.haze is None else self.haze.taken_out(cube.data, *self._levels(self.haze, window))
        data = data if self.radiometry is None else self.radiometry.apply(data)
        return cube if data is cube.data else cube.with_data(np.where(cube.mask, data, np.float32(0)))

    def asks_for(self, window: Window) -> Window:
        """LR pixels of the common extent that hold all of both images that reading what is under a window asks for."""
        if self.gains is not None:
            window = looked_at(self, window)
        s = self.ratio
        under = Window(s * window.col_off, s * window.row_off, s * window.width, s * window.height)
        return window if self.haze is None else self._hazy(self.haze, under)

    def _hazy(self, haze: Haze, window: Window) -> Window:
        """LR pixels by which haze is told in a window of the MSI."""
        s = self.ratio
        # The PSF's reach, two Gaussians' one after the other, and that of cubic interpolation.
        reach = ceil((self.model.psf.size - s) / (2 * s)) + ceil(3 * FAR_LR) + ceil(3 * haze.scale) + 2
        (top, bottom), (left, right) = (
            (max(0, int(first) // s - reach), min(n, ceil((first + size) / s) + reach))
            for first, size, n in (
                (window.row_off, window.height, self.lr_shape[0]),
                (window.col_off, window.width, self.lr_shape[1]),
            )
        )
        return Window(left, top, right - left, bottom - top)

    def own_msi(self, window: Window) -> Cube:
        """MSI (c, H, W) with its haze and in its own radiometry, its tone curves taken out; window as of `read_hr`."""
        cube = self.msi.read(within(window, self.alignment.msi_window), self.msi_bands)
        return cube if self.tone is None else cube.with_data(self.tone.apply(cube.data) * cube.mask)

    def _levels(self, haze: Haze, window: Window) -> tuple[FloatArray, FloatArray]:
        """How much haze is at each MSI pixel of a window, (H, W), and the MSI's level without it around, (c, H, W).

        Both are of LR pixels that both images have whole.
        """
        s, model = self.ratio, self.model
        low_window = self._hazy(haze, window)
        left, top, w, h = low_window.flatten()
        high = self.own_msi(Window(left * s, top * s, w * s, h * s))
        matrix = model.srf.cpu().numpy()
        seen = np.flatnonzero(matrix.any(0))
        around = within(low_window, self.alignment.hsi_window)
        low = self.hsi.read(around, [self.hsi_bands[i] for i in seen])
        blurred = model.spatial(torch.from_numpy(high.data)[None].to(model.srf.device))[0].cpu().numpy()
        valid = binary_erosion(
            low.mask & high.mask.reshape(h, s, w, s).all((1, 3)),
            np.ones((2 * ceil((model.psf.size - s) / (2 * s)) + 1,) * 2),
            border_value=1,
        )
        through = np.tensordot(matrix[:, seen], low.data, 1)
        u, weight = haze.seen(through, blurred)
        smooth = haze.smooth(np.concatenate([u[None], haze.below(through)]), weight * valid).astype(np.float32)
        fine = model.upsample(torch.from_numpy(smooth)[None].to(model.srf.device))[0].cpu().numpy()
        y, x = int(window.row_off) - top * s, int(window.col_off) - left * s
        fine = fine[:, y : y + int(window.height), x : x + int(window.width)]
        return fine[0], fine[1:]

    def nonfinite_notes(self) -> list[Note]:
        """How many pixels of the common extent hold NaN or Inf, for each image in which reading has met some."""
        images = (
            ("HSI", self.hsi, self.alignment.hsi_window, self.hsi_bands),
            ("MSI", self.msi, self.alignment.msi_window, self.msi_bands),
        )
        return [
            note("nonfinite-masked", pixels=_nonfinite(reader, window, bands), image=role)
            for role, reader, window, bands in images
            if reader.nonfinite
        ]

    def masked(self) -> dict[str, float]:
        """Share of the common extent that each image masks; {} of images that take long to be read again for that."""
        images = (
            ("HSI", self.hsi, self.alignment.hsi_window, self.hsi_bands, self.lr_shape),
            ("MSI", self.msi, self.alignment.msi_window, self.msi_bands, self.alignment.full),
        )
        values = sum(prod(shape) * len(bands) for *_, bands, shape in images)
        if values > MOST_COUNTED or any(is_remote(reader.path) for _, reader, *_ in images):
            return {}
        shares = {}
        for role, reader, place, bands, (height, width) in images:
            strips = [Window(0, row, width, min(COUNTED_ROWS, height - row)) for row in range(0, height, COUNTED_ROWS)]
            valid = sum(int(reader.read(within(strip, place), bands).mask.sum()) for strip in strips)
            shares[role] = 1 - valid / (height * width)
        return shares

    def summary(self) -> dict[str, str]:
        """The decisions, for people, provenance and reports."""
        own = own_reader(self.hsi).grid
        bands = ", ".join(name.removeprefix("band ") for name in self.msi_names)
        told = {
            "HSI": f"{self.hsi.path} ({own.describe()}, {len(self.hsi_bands)} of {self.hsi.count} bands)",
            "MSI": f"{self.msi.path} ({self.msi.grid.describe()}, bands {bands})",
            "grid": self.alignment.note,
            "SRF": f"{self.response.name} ({self.response.source})",
            "observation": self.model.describe(),
        }
        if self.residual is not None:
            told["registration"] = f"after correction {self.residual.describe()}"
        elif self.shift is not None:
            told["registration"] = self.shift.describe()
        if self.tone is not None:
            told["tone"] = self.tone.describe(self.msi_names)
        if self.radiometry is not None:
            told["radiometry"] = self.radiometry.describe(self.msi_names)
        if self.haze is not None:
            what = "uneven light" if self.haze.is_shade else "haze"
            told[what] = f"{self.haze.size:.2g} RMS taken out of the MSI"
        return told

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_stack": None}

    def __setstate__(self, kept: dict[str, Any]) -> None:
        self.__dict__.update(kept, _stack=ExitStack())
        for reader in (self.hsi, self.msi):
            self._stack.enter_context(reader)

    def close(self) -> None:
        """Close both files."""
        self._stack.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        self.close()


def _nonfinite(reader: CubeReader, window: Window, bands: list[int]) -> int:
    """Pixels of the file with NaN or Inf, each counted once, which reading by tiles that overlap doesn't do."""
    if isinstance(reader, WarpedReader):
        reader, window = reader.source_part(window)
    reader.nonfinite = 0
    for row in range(0, int(window.height), COUNTED_ROWS):
        rows = min(COUNTED_ROWS, int(window.height) - row)
        reader.read(Window(window.col_off, window.row_off + row, window.width, rows), bands)
    return reader.nonfinite

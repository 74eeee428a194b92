"""Registration of an open pair on samples of bounded size, and what is to be done about the shift."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from affine import Affine
from rasterio.windows import Window

from hsfuse.cube import Cube
from hsfuse.errors import GridError
from hsfuse.physics import ObservationModel
from hsfuse.registration.estimate import UNKNOWN, Shift, shift_of_blocks
from hsfuse.registration.view import Block

#: Largest shift, in LR pixels, that is taken for one of georeferencing.
SHIFT_LIMIT = 3.0
#: A shift below this many MSI pixels, or this many deviations, is none.
NO_SHIFT, SIGNIFICANT = 0.1, 2.0
#: Uncertainty in LR pixels above which a shift isn't known, and fewest windows that can tell it.
MAX_SD, MIN_WINDOWS = 0.25, 3
#: Blocks that are looked at: at most so many along each axis, so many LR and MSI pixels wide, of so many MSI bands.
BLOCKS, LR_SIDE, HR_SIDE, BANDS = 3, 128, 512, 6
#: Blur (LR pixels) under which a resampled LRHSI is compared.
SMOOTH = 1.5
#: Least share of valid LR pixels in a block.
MIN_VALID = 0.1


class Pair(Protocol):
    """An open pair on one nested grid: `ScenePair` is one."""

    model: ObservationModel

    @property
    def lr_shape(self) -> tuple[int, int]:
        """Rows and columns of the common extent in LR pixels."""

    def read_lr(self, window: Window) -> Cube:
        """LRHSI (C, h, w), all bands of the model's response, in a window in LR pixels."""

    def read_hr(self, window: Window) -> Cube:
        """MSI (c, H, W) in a window in MSI pixels."""


def register(pair: Pair, warped: bool = False) -> Shift:
    """Shift of a pair's LRHSI against its MSI, from up to 3 x 3 blocks spread over the scene; see `shift_of_blocks`.

    `warped` says that the LRHSI was resampled (`Nesting.warped`).
    """
    blocks = list(_blocks(pair))
    return shift_of_blocks(blocks, pair.model, SMOOTH if warped else 0.0) if blocks else UNKNOWN


def _blocks(pair: Pair) -> Iterator[Block]:
    """Blocks with something valid in them, the LRHSI seen through the response."""
    model, s = pair.model, pair.model.scale
    response = model.srf.cpu().numpy()
    bands = np.unique(np.linspace(0, len(response) - 1, min(BANDS, len(response))).round().astype(int))
    side = max(16, min(LR_SIDE, HR_SIDE // s))
    for row, h in _spread(pair.lr_shape[0], side):
        for col, w in _spread(pair.lr_shape[1], side):
            low = pair.read_lr(Window(col, row, w, h))
            if low.mask.mean() >= MIN_VALID:
                high = pair.read_hr(Window(col * s, row * s, w * s, h * s))
                matched = np.tensordot(response[bands], low.data, 1)
                yield Block(matched, high.data[bands], low.mask, high.mask, row, col)


def _spread(size: int, side: int) -> list[tuple[int, int]]:
    """First pixel and length of up to `BLOCKS` blocks over an axis: all of it where that is enough."""
    count = min(BLOCKS, -(-size // side))
    side = min(side, size)
    return [(int(first), side) for first in np.linspace(0, size - side, count).round()]


@dataclass(frozen=True)
class Verdict:
    """Whether a shift is to be corrected and why; `motion` is what `nest` corrects, on the MSI's common extent."""

    correct: bool
    motion: Affine
    note: str

    def motion_on(self, msi_window: Window) -> Affine:
        """`motion` in pixels of the whole MSI, of which `msi_window` is the common extent that was looked at."""
        corner = Affine.translation(msi_window.col_off, msi_window.row_off)
        return corner @ self.motion @ ~corner


def judge(shift: Shift, scale: int, limit: float = SHIFT_LIMIT) -> Verdict:
    """What to do about a shift at a ratio `scale`; GridError, in figures, when it is surely over `limit` LR pixels."""
    said = f"shift of the HSI against the MSI: {shift.describe()}"
    if shift.sd > MAX_SD or shift.windows < MIN_WINDOWS:
        return Verdict(False, Affine.identity(), f"{said}; too uncertain to be corrected")
    if shift.length > limit:
        raise GridError(
            f"the HSI is shifted against the MSI by {shift.length:.2f} LR pixels ({shift.dy:+.2f} rows, "
            f"{shift.dx:+.2f} columns, sd {shift.sd:.2f}, {shift.windows} windows), at most {limit:g} are "
            "corrected; check that both show the same place, or use --register off to go on without correction"
        )
    if shift.drift is not None and shift.drifting * scale > 2 * NO_SHIFT:
        return Verdict(True, shift.drift.motion(scale), f"{said}; corrected with its drift")
    if shift.length < max(NO_SHIFT / scale, SIGNIFICANT * shift.sd):
        return Verdict(False, Affine.identity(), f"{said}; none to correct (below {NO_SHIFT} MSI pixels or its error)")
    return Verdict(True, Affine.translation(shift.dx * scale, shift.dy * scale), f"{said}; corrected")

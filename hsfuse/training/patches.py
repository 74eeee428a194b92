"""The published protocol: patches of reference cubes, one sensor, no subspace, bicubic base."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from hsfuse.errors import SettingError
from hsfuse.nets.srlf import Observation
from hsfuse.physics import ObservationModel, gaussian_psf
from hsfuse.srf import load_srf
from hsfuse.training.augment import dihedral
from hsfuse.training.sample import EVERY, Reference, Sample, sample


@dataclass(frozen=True)
class PatchSettings:
    """Sensor and PSF are fixed; patches of `size` HR pixels are taken every `stride` pixels.

    With a `base` other than "bicubic" the network corrects that method, told the `opinions` of others (bands.py),
    and patches are taken anywhere, each the one of `tries` random places where that method is most wrong.
    """

    scale: int
    srf: str
    psf_sigma: float  # HR pixels
    psf_size: int | None = None
    phase: float | None = None
    size: int = 64
    stride: int = 32
    augment: bool = False
    base: str = "bicubic"
    opinions: tuple[str, ...] = ("guided", "glp-reg")
    tries: int = 1


class FixedSensors:
    """References seen by one pair of sensors."""

    def __init__(self, references: Sequence[Reference], settings: PatchSettings, seed: int) -> None:
        if settings.size % settings.scale:
            raise SettingError(f"patches of {settings.size} pixels can't be divided by the scale {settings.scale}")
        self.references, self.settings, self.seed = references, settings, seed
        psf = gaussian_psf(settings.psf_sigma, settings.scale, settings.phase, settings.psf_size)
        matrix, _ = load_srf(settings.srf).matrix(references[0].wavelengths_nm)
        self.model = ObservationModel(matrix, psf, settings.scale, settings.phase)
        self.bands = matrix.shape[0]

    def whole(self, cube: np.ndarray) -> np.ndarray:
        """The part of a reference that is whole LR pixels."""
        s = self.settings.scale
        return cube[:, : cube.shape[1] // s * s, : cube.shape[2] // s * s]


class PatchSource(FixedSensors):
    """Patches in random order, each once per epoch; batch `number` depends on the seed and number alone."""

    @property
    def guide(self) -> int:
        """Channels of the network's guide: the MSI's bands."""
        return self.bands

    @cached_property
    def pairs(self) -> list[tuple[Tensor, Tensor]]:
        """LRHSI (C, h, w) and MSI (c, H, W) of each whole reference: patches see no border that isn't the image's."""
        out = []
        for reference in self.references:
            truth = torch.from_numpy(self.whole(reference.data))[None]
            out.append((self.model.spatial(truth)[0], self.model.spectral(truth)[0]))
        return out

    @cached_property
    def places(self) -> list[tuple[int, int, int]]:
        """(reference, row, column) of every patch."""
        size, stride = self.settings.size, self.settings.stride
        shapes = [self.whole(reference.data).shape[1:] for reference in self.references]
        return [
            (i, row, col)
            for i, (rows, cols) in enumerate(shapes)
            for row in range(0, rows - size + 1, stride)
            for col in range(0, cols - size + 1, stride)
        ]

    def batch(self, number: int, size: int, part: slice = EVERY) -> list[Sample]:
        """One sample that holds `part` of the `size` patches of batch `number`."""
        per_epoch = max(1, len(self.places) // size)
        epoch, index = divmod(number, per_epoch)
        order = np.random.default_rng([self.seed, epoch]).permutation(len(self.places))
        rng = np.random.default_rng([self.seed, number, 1])
        chosen = [self.places[i] for i in order[index * size : (index + 1) * size]]
        parts = [self._patch(place, int(rng.integers(8)) if self.settings.augment else 0) for place in chosen][part]
        if not parts:
            return []
        truth, low, msi = (torch.from_numpy(np.stack(t)) for t in zip(*parts, strict=True))
        unit = torch.ones(truth.shape[1])
        base = self.model.upsample(low)
        return [sample(base, truth, Observation(low, msi, msi, self.model, unit), unit[:, None, None])]

    def _patch(self, place: tuple[int, int, int], turn: int) -> tuple[np.ndarray, ...]:
        i, row, col = place
        size, s = self.settings.size, self.settings.scale
        low, msi = self.pairs[i]
        truth = self.references[i].data[:, row : row + size, col : col + size]
        low = low[:, row // s : (row + size) // s, col // s : (col + size) // s]
        msi = msi[:, row : row + size, col : col + size]
        return tuple(dihedral(part, turn) for part in (truth, low.numpy(), msi.numpy()))

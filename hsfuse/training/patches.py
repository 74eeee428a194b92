"""The published protocol: patches of reference cubes, one sensor, no subspace, bicubic base."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hsfuse.core.errors import InputError, SettingError
from hsfuse.core.values import Count, Positive, Share
from hsfuse.nets.srlf import Observation, dihedral
from hsfuse.physics import MIN_COVERAGE, load_srf
from hsfuse.physics.model import ObservationModel, gaussian_psf
from hsfuse.training.sample import EVERY, Reference, Sample, sample


@dataclass(frozen=True)
class PatchSettings:
    """Sensor and PSF are fixed; patches of `size` HR pixels are taken every `stride` pixels.

    With a `base` other than "bicubic" the network corrects that method, told the `opinions` of others (bands.py),
    and patches are taken anywhere, each the one of `tries` random places where that method is most wrong; a share
    `vary` of them has its spectra changed (augment.spectral_change).
    """

    scale: Count
    srf: str
    psf_sigma: Positive  # HR pixels
    psf_size: Count | None = None
    phase: float | None = None
    size: Count = 64
    stride: Count = 32
    augment: bool = False
    base: str = "bicubic"
    opinions: tuple[str, ...] = ("guided", "glp-reg")
    tries: Count = 1
    vary: Share = 0.0


#: How far band centres may be from those of the first reference, in nm.
ALIKE_NM = 0.5


class FixedSensors:
    """References seen by one pair of sensors."""

    def __init__(self, references: Sequence[Reference], settings: PatchSettings, seed: int) -> None:
        if settings.size % settings.scale:
            raise SettingError(f"patches of {settings.size} pixels can't be divided by the scale {settings.scale}")
        self.references, self.settings, self.seed = references, settings, seed
        psf = gaussian_psf(settings.psf_sigma, settings.scale, settings.phase, settings.psf_size)
        self.wavelengths_nm = references[0].wavelengths_nm
        self.model = ObservationModel(response(settings.srf, self.wavelengths_nm), psf, settings.scale, settings.phase)
        self.bands = self.model.srf.shape[0]
        self.check_alike(references)

    def check_alike(self, references: Sequence[Reference]) -> None:
        """SettingError for a reference at other wavelengths than the first: one response is for all of them."""
        first = self.wavelengths_nm
        for reference in references:
            nm = reference.wavelengths_nm
            if nm.shape != first.shape or np.abs(nm - first).max() > ALIKE_NM:
                raise SettingError(
                    f"{reference.name} has {nm.size} bands from {nm[0]:.0f} to {nm[-1]:.0f} nm and "
                    f"{self.references[0].name} {first.size} from {first[0]:.0f} to {first[-1]:.0f} nm; weights of "
                    "kind bands need references of one sensor"
                )

    def check_size(self, least: int) -> None:
        """InputError for a reference in which no patch finds room."""
        for reference in self.references:
            rows, cols = reference.data.shape[1:]
            if min(rows, cols) < least:
                raise InputError(
                    f"{reference.name} has {rows} x {cols} pixels; patches of {self.settings.size} pixels need at "
                    f"least {least} x {least}: leave it out, or make `size` in [patches] smaller"
                )

    def whole(self, cube: np.ndarray) -> np.ndarray:
        """The part of a reference that is whole LR pixels."""
        s = self.settings.scale
        return cube[:, : cube.shape[1] // s * s, : cube.shape[2] // s * s]


def response(srf: str, wavelengths_nm: NDArray[np.float64]) -> NDArray[np.float64]:
    """R (c, C); SettingError when the references don't cover one of the response's bands."""
    curves = load_srf(srf)
    matrix, coverage = curves.matrix(wavelengths_nm)
    out = [f"{b} ({s:.0%})" for b, s in zip(curves.bands, coverage, strict=True) if s < MIN_COVERAGE]
    if out:
        raise SettingError(
            f"the references' {wavelengths_nm[0]:.0f} to {wavelengths_nm[-1]:.0f} nm cover too little of "
            f"{', '.join(out)} of the response {srf}; give `srf` in [patches] a CSV of the other bands"
        )
    return matrix


class PatchSource(FixedSensors):
    """Patches in random order, each once per epoch; batch `number` depends on the seed and number alone."""

    def __init__(self, references: Sequence[Reference], settings: PatchSettings, seed: int) -> None:
        super().__init__(references, settings, seed)
        self.check_size(settings.size)

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
        truth, low, msi = (torch.stack(t) for t in zip(*parts, strict=True))
        unit = torch.ones(truth.shape[1])
        base = self.model.upsample(low)
        return [sample(base, truth, Observation(low, msi, msi, self.model, unit), unit[:, None, None])]

    def _patch(self, place: tuple[int, int, int], turn: int) -> tuple[Tensor, ...]:
        i, row, col = place
        size, s = self.settings.size, self.settings.scale
        low, msi = self.pairs[i]
        truth = self.references[i].data[:, row : row + size, col : col + size]
        low = low[:, row // s : (row + size) // s, col // s : (col + size) // s]
        msi = msi[:, row : row + size, col : col + size]
        return tuple(dihedral(part, turn) for part in (torch.from_numpy(np.array(truth)), low, msi))

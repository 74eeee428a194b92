"""What the training loop sees: references, and samples with the terms of their loss."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hsfuse.nets.relearn import smooth_angle
from hsfuse.nets.srlf import Observation

#: All samples of a batch.
EVERY = slice(None)


@dataclass(frozen=True)
class Reference:
    """A cube to learn from: `data` (C, H, W), band centres, and how often it is drawn relative to the others."""

    name: str
    data: NDArray[np.float32]
    wavelengths_nm: NDArray[np.float64]
    weight: float = 1.0


@dataclass(frozen=True)
class Sample:
    """Network inputs and target in feature units, and the errors that it starts from, by which losses are divided: the
    base's, with what is known of them taken out.

    base, target (B, K, H, W); step (K, 1, 1). `axes` (n, K) are the subspace's axes at a choice of n bands, in
    reflectance per feature unit, and `outside` (B, n, H, W) is the error there that no coefficient can mend; without
    them the channels are the bands. error (n,) is the start's mean square error per band, angle its mean spectral
    angle.
    """

    base: Tensor
    target: Tensor
    observation: Observation
    step: Tensor
    axes: Tensor | None
    outside: Tensor | None
    error: Tensor
    angle: Tensor

    @property
    def usable(self) -> bool:
        """False where the base is perfect or failed numerically: there is nothing to learn then."""
        errors = torch.stack([self.error.min(), self.error.max(), self.angle])
        return bool(torch.isfinite(errors).all() and self.error.min() > 1e-10 and self.angle > 1e-5)

    def band_errors(self, z: Tensor) -> Tensor:
        """Mean square error of each band (n,)."""
        error = z - self.target
        if self.axes is not None:
            error = torch.einsum("nk,bkhw->bnhw", self.axes, error)
        return ((error if self.outside is None else error + self.outside) ** 2).mean((0, 2, 3))

    def angle_error(self, z: Tensor) -> Tensor:
        """Mean spectral angle in radians, as `smooth_angle` has it."""
        unit = self.observation.unit[:, None, None]
        return smooth_angle(z * unit, self.target * unit).mean()

    def losses(self, z: Tensor) -> dict[str, Tensor]:
        """The loss's terms: `gain`, the log ratio of the RMS error to the start's, mean over bands (-0.115 is a gain of
        1 dB in PSNR); `l1`, the mean absolute error; `angle`, the ratio of the mean spectral angle to the start's."""
        return {
            "gain": (self.band_errors(z).clamp_min(1e-12) / self.error).log().mean() / 2,
            "l1": (z - self.target).abs().mean(),
            "angle": self.angle_error(z) / self.angle,
        }

    def to(self, device: torch.device) -> Sample:
        """The same on another device."""
        moved: dict[str, Any] = {k: v.to(device) for k, v in vars(self).items() if isinstance(v, Tensor)}
        return replace(self, **moved, observation=self.observation.to(device))


def sample(
    base: Tensor,
    target: Tensor,
    observation: Observation,
    step: Tensor,
    axes: Tensor | None = None,
    outside: Tensor | None = None,
) -> Sample:
    """A sample with the errors that it starts from measured."""
    blank = Sample(base, target, observation, step, axes, outside, torch.ones(()), torch.ones(()))
    start = base if observation.known is None else base + observation.known
    return replace(blank, error=blank.band_errors(start).clamp_min(1e-12), angle=blank.angle_error(start))

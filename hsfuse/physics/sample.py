"""The bounded sample of a pair that every method learns from."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class PairSample:
    """What a method learns from: n equal blocks of the scene that share no pixel.

    lrhsi (n, C, h, w), msi (n, c, H, W) reflectance; mask (n, h, w) True where the LR pixel and all MSI pixels under
    it are valid. Invalid pixels hold the values of valid neighbours, so that convolution sees no edge there.
    """

    lrhsi: Tensor
    msi: Tensor
    mask: Tensor

    def spectra(self) -> Tensor:
        """The valid LR spectra: (C, pixels)."""
        return self.lrhsi.permute(1, 0, 2, 3)[:, self.mask]

    def to(self, device: str) -> PairSample:
        """The same on another device."""
        return PairSample(self.lrhsi.to(device), self.msi.to(device), self.mask.to(device))

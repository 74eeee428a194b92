"""Images that two noise-free inputs allow: the projection on those that give both, and within a range."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from hsfuse.errors import ModelError
from hsfuse.fusers.problem import mix
from hsfuse.physics import ObservationModel

#: Alternations between the inputs and the values that a reflectance can have, and how far beyond each step goes.
ROUNDS, RELAXATION = 8, 1.9


class ExactFit:
    """Moves images to the nearest that the observation model turns into given inputs; its PSF must be separable.

    `hidden` (C, C) keeps of a spectrum what the MSI doesn't see.
    """

    def __init__(self, model: ObservationModel) -> None:
        self.model = model
        if len(model.psf.separable_terms()) != 1:
            raise ModelError("the PSF isn't separable, and these weights need one that is, such as a Gaussian")
        inverse = torch.linalg.pinv(model.srf.double())
        self._inverse = inverse.float()
        self.hidden = (torch.eye(len(inverse)).to(inverse) - inverse @ model.srf.double()).float()
        self._lifts: dict[tuple, Tensor] = {}

    def __call__(self, image: Tensor, lrhsi: Tensor, msi: Tensor) -> Tensor:
        """(B, C, H, W) that gives LRHSI and MSI; the two corrections act on space and on spectra and so commute."""
        image = image + self.lift(lrhsi - self.model.spatial(image))
        return self.match(image, msi)

    def match(self, image: Tensor, msi: Tensor) -> Tensor:
        """The nearest image that gives the MSI."""
        return image + mix(self._inverse, msi - self.model.spectral(image))

    def between(self, image: Tensor, lrhsi: Tensor, msi: Tensor, most: float, rounds: int = ROUNDS) -> Tensor:
        """The image moved towards those that give both inputs and lie between 0 and `most`, by over-relaxed alternating
        projections (Youla, Webb 1982, "Image restoration by the method of convex projections: part 1", IEEE TMI 1(2)).

        The last step is that to the inputs: what is left outside the range is some thousandths at most.
        """
        for _ in range(rounds):
            image = self(image + RELAXATION * (image.clamp(0, most) - image), lrhsi, msi)
        return image

    def lift(self, low: Tensor) -> Tensor:
        """The smallest image that blur and decimation turn into `low`: (B, K, h, w) -> (B, K, H, W)."""
        rows, cols = (self._lift(axis, n, low) for axis, n in enumerate(low.shape[2:]))
        return rows @ low @ cols.T

    def unseen(self, image: Tensor) -> Tensor:
        """The part of an image (B, K, H, W) that blur and decimation lose."""
        return image - self.lift(self.model.spatial(image))

    def _lift(self, axis: int, n: int, like: Tensor) -> Tensor:
        key = (axis, n, like.dtype, like.device)
        if key not in self._lifts:
            matrix = self.model.leading_matrix(axis, n * self.model.scale)
            with torch.inference_mode(False):
                self._lifts[key] = torch.as_tensor(np.linalg.pinv(matrix)).float().to(like)
        return self._lifts[key]


def most_possible(lrhsi: Tensor, msi: Tensor) -> float:
    """The largest value that a fused image can have: 1 where both inputs are reflectances, else none."""
    return 1.0 if max(float(lrhsi.max()), float(msi.max())) <= 1 else math.inf

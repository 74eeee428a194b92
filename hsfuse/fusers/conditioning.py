"""What makes a correcting network's task the same on every scene: error-aligned axes, and inputs in units of the error.

The base's error is far from equal in all directions of the subspace: what the MSI sees is all but known, the rest
isn't, and which is which depends on sensor and scene. `aligned` turns the subspace's axes to the principal axes of the
error at reduced resolution, most uncertain first, so that a correction of channel k goes as far as that axis is
uncertain and leaves alone what the MSI has settled. `conditioned` gives the network the two parts that the base is
made of in units of that error, where noise and missed detail have the same size on every scene.
"""

from __future__ import annotations

from copy import copy
from dataclasses import replace

import torch
from torch import Tensor

from hsfuse.fusers import TrainingScene
from hsfuse.fusers.frame import reduced
from hsfuse.fusers.regression import RegressionGLP
from hsfuse.nets.srlf import Observation
from hsfuse.subspace import SpectralSubspace

#: Guide channels per coefficient that `conditioned` makes.
GUIDES = 2


def aligned(base: RegressionGLP, scene: TrainingScene) -> RegressionGLP:
    """The same fitted base on axes along which its errors at reduced resolution are uncorrelated, largest first."""
    target, low, msi = reduced(scene, base)
    error = (base.inject(low, base.regress(msi)) - target).permute(1, 0, 2, 3).flatten(1).double()
    axes = torch.linalg.eigh(error @ error.T / error.shape[1])[1].flip(1)
    basis = base.subspace.basis.double() @ axes
    axes = axes * basis.gather(0, basis.abs().argmax(0, keepdim=True)).sign()
    turned = copy(base)
    basis = (base.subspace.basis.double() @ axes).float()
    spread = ((basis.T @ scene.spectra()) ** 2).mean(1).sqrt().clamp_min(1e-10)
    turned.subspace = SpectralSubspace(basis, spread)
    turned.weights = [((axes.T @ w.double()).float(), (axes.T @ b.double()).float()) for w, b in base.weights]
    return turned


def conditioned(base: Tensor, observation: Observation, step: Tensor) -> Observation:
    """Observation whose guide (B, 2 K, H, W) holds the MSI's detail and the interpolated LR residual.

    Both are divided by `step` (K, 1, 1), the base's error, and compressed by asinh: linear below it, logarithmic above.
    """
    detail, model = observation.guide, observation.model
    fine = detail - model.upsample(model.spatial(detail))
    return replace(observation, guide=torch.cat([fine / step, (base - detail) / step], 1).asinh())

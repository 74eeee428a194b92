"""Where a network has learned again, seen in its last stage: layers of the quality raster."""

from __future__ import annotations

from typing import Any, Self, cast

import torch
from torch import Tensor

from hsfuse.nets.relearn import angle_map, ssim_map
from hsfuse.nets.srlf import SRLF, Observation, SRLFNet

#: Names of the layers.
RELEARNED = ("share of re-learning in space", "share of re-learning in the spectrum")


class StageWatch:
    """Where a network learned again: keeps, while entered, what its last stage saw in its first call since `clear`."""

    names = RELEARNED

    def __init__(self, net: SRLFNet) -> None:
        self._last = cast(SRLF, net.stages[-1])
        self._seen: dict[str, tuple[Any, ...]] = {}

    def __enter__(self) -> Self:
        self._hooks = [
            self._last.spatial.register_forward_hook(self._keep("spatial")),
            self._last.spectral.register_forward_hook(self._keep("spectral")),
        ]
        return self

    def __exit__(self, *_: object) -> None:
        for hook in self._hooks:
            hook.remove()

    def _keep(self, name: str) -> Any:
        def hook(module: torch.nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
            self._seen.setdefault(name, inputs)

        return hook

    def clear(self) -> None:
        """Forget; the next call of the network is kept."""
        self._seen.clear()

    def maps(self) -> Tensor | None:
        """Points learned again in space and in the spectrum (B, 2, H, W), 1 or 0, in the call that was kept.

        None when the network wasn't called (its base was the result).
        """
        if len(self._seen) < 2:
            return None
        z, obs = self._seen["spatial"]
        z_spa, ratio, _ = self._seen["spectral"]
        spatial, spectral = distortions(z, z_spa, obs)
        points = _worst(spatial, ratio), enlarged(_worst(spectral, ratio), obs.model.ratio)
        return torch.stack(points, 1)


@torch.no_grad()
def distortions(z: Tensor, z_spa: Tensor, obs: Observation) -> tuple[Tensor, Tensor]:
    """What eqs. 3 and 8 rank points by: 1 - SSIM of the pseudo-MSI (B, H, W), the pseudo-LRHSI's angle (B, h, w)."""
    unit = obs.unit[:, None, None]
    spatial = 1 - ssim_map(*obs.pseudo_msi(z))
    return spatial, torch.rad2deg(angle_map(obs.model.spatial(z_spa) * unit, obs.x * unit))


def _worst(distortion: Tensor, ratio: Tensor) -> Tensor:
    """1 where a sample's share `ratio` (B,) of highest distortion is, else 0: the points that were re-learned."""
    flat = distortion.flatten(1)
    out = torch.zeros_like(flat)
    for sample, count in enumerate((ratio * flat.shape[1]).int().tolist()):
        if count:
            out[sample, flat[sample].topk(count).indices] = 1
    return out.view_as(distortion)


def enlarged(low: Tensor, s: int) -> Tensor:
    """LR pixels as blocks of HR pixels: (B, h, w) -> (B, H, W)."""
    return low.repeat_interleave(s, 1).repeat_interleave(s, 2)

"""Where a fused cube is distorted against its inputs, and which points SRLF-Net's last stage learned again.

The last stage picks its points by the same two measures (eqs. 3 and 8), but on features that a norm has just scaled:
they rank points, their size means nothing. What is shown is therefore measured on the stage's result, the fused cube.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self, cast

import torch
from torch import Tensor

from hsfuse.nets.relearn import angle_map, ssim_map
from hsfuse.nets.srlf import SRLF, Observation, SRLFNet
from hsfuse.physics import ObservationModel


@dataclass(frozen=True)
class StageMaps:
    """Maps at high resolution (B, H, W): 1 - SSIM with the MSI, angle to the LRHSI in degrees, re-learned points."""

    spatial: Tensor
    spectral: Tensor
    spatial_points: Tensor
    spectral_points: Tensor

    def stacked(self) -> Tensor:
        """All four: (B, 4, H, W)."""
        return torch.stack([self.spatial, self.spectral, self.spatial_points, self.spectral_points], 1)


class StageWatch:
    """While it is entered, keeps what the last stage of a network saw in its first call since `clear`."""

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

    def points(self) -> tuple[Tensor, Tensor] | None:
        """Points learned again in space and in the spectrum (B, H, W), 1 or 0, in the call that was kept.

        None when the network wasn't called (its base was the result).
        """
        if len(self._seen) < 2:
            return None
        z, obs = self._seen["spatial"]
        z_spa, ratio, _ = self._seen["spectral"]
        spatial, spectral = distortions(z, z_spa, obs)
        return _worst(spatial, ratio), _enlarged(_worst(spectral, ratio), obs.model.scale)


@torch.no_grad()
def distortions(z: Tensor, z_spa: Tensor, obs: Observation) -> tuple[Tensor, Tensor]:
    """What eqs. 3 and 8 rank points by: 1 - SSIM of the pseudo-MSI (B, H, W), the pseudo-LRHSI's angle (B, h, w)."""
    unit = obs.unit[:, None, None]
    spatial = 1 - ssim_map(obs.model.spectral(z * unit).clamp(0, 1), obs.y)
    return spatial, torch.rad2deg(angle_map(obs.model.spatial(z_spa) * unit, obs.x * unit))


@torch.no_grad()
def fused_maps(
    fused: Tensor,
    lrhsi: Tensor,
    msi: Tensor,
    model: ObservationModel,
    points: tuple[Tensor, Tensor] | None = None,
    peak: float = 1.0,
) -> StageMaps:
    """Maps of a fused cube: (B, C, H, W), (B, C, h, w), (B, c, H, W); `peak` is SSIM's dynamic range."""
    spatial = 1 - ssim_map(model.spectral(fused) / peak, msi / peak)
    angle = _enlarged(torch.rad2deg(angle_map(model.spatial(fused), lrhsi)), model.scale)
    return StageMaps(spatial, angle, *(points or (torch.zeros_like(spatial), torch.zeros_like(spatial))))


def _worst(distortion: Tensor, ratio: Tensor) -> Tensor:
    """1 where a sample's share `ratio` (B,) of highest distortion is, else 0: the points that were re-learned."""
    flat = distortion.flatten(1)
    out = torch.zeros_like(flat)
    for sample, count in enumerate((ratio * flat.shape[1]).int().tolist()):
        if count:
            out[sample, flat[sample].topk(count).indices] = 1
    return out.view_as(distortion)


def _enlarged(low: Tensor, s: int) -> Tensor:
    """LR pixels as blocks of HR pixels: (B, h, w) -> (B, H, W)."""
    return low.repeat_interleave(s, 1).repeat_interleave(s, 2)

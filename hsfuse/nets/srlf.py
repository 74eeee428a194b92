"""SRLF-Net: selective re-learning fusion network (Liu, Liu, Dian, Li, "A Selective Re-learning Mechanism for
Hyperspectral Fusion Imaging").

    base = upsampled LRHSI (the paper) or a training-free fusion
    F0   = conv3x3(base, guide);   F1 .. F4 = four SRLF stages in cascade
    out  = base + conv1x1(F4, F3, F2, F1, F0)

The features have one channel per hyperspectral band (or subspace coefficient), so that response and PSF can act on
them. The observation model is given with each call: weights aren't tied to a sensor.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from hsfuse.nets.relearn import SpectralTransformer, angle_map, in_full, relearn_points, ssim_map
from hsfuse.nets.ss2d import SS2D
from hsfuse.nets.weights import SRLFConfig
from hsfuse.physics.model import ObservationModel


@dataclass(frozen=True)
class Observation:
    """What a stage compares with: LRHSI x (B, C, h, w), MSI y (B, c, H, W), guide (B, g, H, W), the model, and the
    scale of each feature channel (C,) that turns features into LRHSI units. `level`: what counts as a reflectance of 1
    in those units, SSIM's dynamic range. `known` (B, C, H, W): a correction of the base that is known already, which is
    added to the network's own; None for none."""

    x: Tensor
    y: Tensor
    guide: Tensor
    model: ObservationModel
    unit: Tensor
    level: float = 1.0
    known: Tensor | None = None

    def turned(self, turn: int) -> Observation:
        """The same observation under one of the eight symmetries of the square."""
        x, y, guide = (dihedral(t, turn) for t in (self.x, self.y, self.guide))
        known = None if self.known is None else dihedral(self.known, turn)
        return replace(self, x=x, y=y, guide=guide, known=known)

    def to(self, device: torch.device) -> Observation:
        """The same on another device."""
        moved: dict[str, Any] = {k: v.to(device) for k, v in vars(self).items() if isinstance(v, Tensor)}
        return replace(self, **moved, model=self.model.to(device))

    def pseudo_msi(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """The MSI that features (B, C, H, W) would give and the MSI itself, both (B, c, H, W) between 0 and about 1."""
        pseudo = self.model.spectral(in_full(z) * (self.unit / self.level)[:, None, None])
        return pseudo.clamp(0, 1), self.y / self.level


def dihedral(t: Tensor, turn: int) -> Tensor:
    """One of the eight symmetries of the square, on the last two axes."""
    t = torch.rot90(t, turn % 4, (-2, -1))
    return t.flip(-1) if turn >= 4 else t


def undo_dihedral(t: Tensor, turn: int) -> Tensor:
    """Inverse of `dihedral`."""
    t = t.flip(-1) if turn >= 4 else t
    return torch.rot90(t, -(turn % 4), (-2, -1))


def conv1x1(inputs: int, outputs: int, bias: bool = True) -> nn.Conv2d:
    """Per-pixel linear map."""
    return nn.Conv2d(inputs, outputs, 1, bias=bias)


def downsampler(channels: int, s: int) -> nn.Sequential:
    """Strided convolutions by s in all: (B, C, H, W) -> (B, C, H/s, W/s); at s = 8 stride 4, then 2."""
    steps = [4, s // 4] if s % 4 == 0 and s > 4 else [s]
    pads = [2 if step == 4 else 1 for step in steps]
    return nn.Sequential(
        *(nn.Conv2d(channels, channels, t + 2, t, p, bias=False) for t, p in zip(steps, pads, strict=True))
    )


def upsampler(channels: int, s: int) -> nn.Sequential:
    """1x1 convolution to s^2 C channels and pixel shuffle: (B, C, h, w) -> (B, C, s h, s w)."""
    return nn.Sequential(conv1x1(channels, s * s * channels), nn.PixelShuffle(s))


class ChannelNorm(nn.LayerNorm):
    """LayerNorm over the channels of a (B, C, H, W) map."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalise each pixel."""
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class PreliminaryFusion(nn.Module):
    """Two-scale state-space fusion (eq. 2): (B, C, H, W) -> Z' (B, C, H, W)."""

    def __init__(self, cfg: SRLFConfig) -> None:
        super().__init__()
        c = cfg.channels
        self.fine, self.coarse, self.merged = (SS2D(c, expand=cfg.expand, dropout=cfg.dropout) for _ in range(3))
        self.down, self.up = downsampler(c, cfg.scale), upsampler(c, cfg.scale)
        self.merge = conv1x1(2 * c, c)
        self.norm = ChannelNorm(c)

    def forward(self, f: Tensor) -> Tensor:
        """Fine scan, coarse scan, merge."""
        fine = self.fine(f)
        coarse = self.up(self.coarse(self.down(fine)))
        return self.norm(self.merged(self.merge(torch.cat([fine, coarse], 1))))


class SpatialRelearning(nn.Module):
    """Re-learn the points whose pseudo-MSI resembles the MSI least (eqs. 3-6); gives Z_spa and the keep ratio (B,)."""

    def __init__(self, cfg: SRLFConfig) -> None:
        super().__init__()
        self.keep = cfg.keep
        self.embed = conv1x1(cfg.channels + cfg.guide, cfg.channels)
        self.block = SpectralTransformer(cfg.channels)

    def forward(self, z: Tensor, obs: Observation) -> tuple[Tensor, Tensor]:
        """z is Z' (B, C, H, W)."""
        with torch.no_grad(), torch.autocast(z.device.type, enabled=False):
            similarity = ssim_map(*obs.pseudo_msi(z))  # (B, H, W)
            ratio = (self.keep * (1 - similarity.mean((1, 2)))).clamp(0, self.keep)
        features = self.embed(torch.cat([z, obs.guide], 1))
        return relearn_points(features, -similarity, ratio, self.keep, self.block), ratio


class SpectralRelearning(nn.Module):
    """Re-learn the LR points whose pseudo-LRHSI has the largest angle to the LRHSI (eqs. 7-9)."""

    def __init__(self, cfg: SRLFConfig) -> None:
        super().__init__()
        self.keep = cfg.keep
        self.embed = conv1x1(2 * cfg.channels, cfg.channels)
        self.block = SpectralTransformer(cfg.channels)
        self.up = upsampler(cfg.channels, cfg.scale)

    def forward(self, z: Tensor, ratio: Tensor, obs: Observation) -> Tensor:
        """z is Z_spa (B, C, H, W)."""
        unit = obs.unit[:, None, None]
        with torch.autocast(z.device.type, enabled=False):
            pseudo = obs.model.spatial(in_full(z))
            with torch.no_grad():
                angle = angle_map(pseudo * unit, obs.x * unit)
        features = self.embed(torch.cat([pseudo, obs.x], 1))
        return self.up(relearn_points(features, angle, ratio, self.keep, self.block))


class SRLF(nn.Module):
    """One stage: preliminary fusion, spatial then spectral re-learning, re-fusion."""

    def __init__(self, cfg: SRLFConfig) -> None:
        super().__init__()
        c = cfg.channels
        self.preliminary = PreliminaryFusion(cfg)
        self.spatial = SpatialRelearning(cfg)
        self.spectral = SpectralRelearning(cfg)
        self.gather = conv1x1(2 * c, c)
        self.refuse = SS2D(c, expand=cfg.expand, dropout=cfg.dropout)
        self.out = conv1x1(2 * c, c)

    def forward(self, f: Tensor, obs: Observation) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        z = self.preliminary(f)
        z_spa, ratio = self.spatial(z, obs)
        z_spe = self.spectral(z_spa, ratio, obs)
        g = self.gather(torch.cat([z_spa, z_spe], 1))
        return self.out(torch.cat([g + self.refuse(g), f], 1))


class SRLFNet(nn.Module):
    """The whole network; its output starts as `base` (the refining convolution starts at zero when `identity`)."""

    def __init__(self, cfg: SRLFConfig, identity: bool = True) -> None:
        super().__init__()
        self.cfg = cfg
        c = cfg.channels
        self.embed = nn.Conv2d(c + cfg.guide, c, 3, padding=1)
        self.stages = nn.ModuleList(SRLF(cfg) for _ in range(cfg.stages))
        self.refine = conv1x1((cfg.stages + 1) * c, c, bias=False)
        self.apply(_xavier)
        if identity:
            nn.init.zeros_(self.refine.weight)

    def ensemble(self, base: Tensor, obs: Observation, step: Tensor | float = 1.0, turns: int = 8) -> Tensor:
        """Mean of `forward` over the first `turns` of the eight symmetries of the square (self-ensemble)."""
        total = torch.zeros_like(base)
        for turn in range(turns):
            fused = self(dihedral(base, turn), obs.turned(turn), step)
            total += undo_dihedral(fused, turn)
        return total / turns

    def forward(self, base: Tensor, obs: Observation, step: Tensor | float = 1.0) -> Tensor:
        """base (B, C, H, W) in feature units -> fused (B, C, H, W); `step` scales its correction per channel."""
        features = [self.embed(torch.cat([base, obs.guide], 1))]
        for stage in self.stages:
            features.append(stage(features[-1], obs))
        start = base if obs.known is None else base + obs.known
        return start + step * self.refine(torch.cat(features[::-1], 1))


def _xavier(module: nn.Module) -> None:
    """Published initialisation: Xavier uniform for convolution and linear weights, zero biases."""
    if isinstance(module, nn.Conv2d | nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)

"""Selective re-learning: find the pixels where a fusion distorts most, and refine those as a sequence of spectra.

Liu, Liu, Dian, Li, "A Selective Re-learning Mechanism for Hyperspectral Fusion Imaging", eqs. 3-9.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional

from hsfuse.core.cube import spectral_angle, structural_similarity


def ssim_map(x: Tensor, y: Tensor, size: int = 5, sigma: float = 1.5) -> Tensor:
    """Per-pixel SSIM averaged over bands: (B, c, H, W) twice -> (B, H, W); Gaussian window, zero-padded border."""
    t = torch.arange(size, dtype=x.dtype, device=x.device) - (size - 1) / 2
    g = torch.exp(-(t**2) / (2 * sigma**2))
    g = g / g.sum()

    def mean(z: Tensor) -> Tensor:
        z = z.flatten(0, 1)[:, None]
        z = functional.conv2d(z, g.view(1, 1, -1, 1), padding=(size // 2, 0))
        return functional.conv2d(z, g.view(1, 1, 1, -1), padding=(0, size // 2))[:, 0].unflatten(0, x.shape[:2])

    return structural_similarity(mean(x), mean(y), mean(x * x), mean(y * y), mean(x * y)).mean(1)


def angle_map(x: Tensor, y: Tensor) -> Tensor:
    """Spectral angle in radians: (B, C, ...) twice -> (B, ...), such as (B, h, w) of images; a right angle where a
    spectrum is zero."""
    u, v = x.double(), y.double()
    angle = spectral_angle((u * v).sum(1), u.square().sum(1), v.square().sum(1), torch)
    return angle.nan_to_num(torch.pi / 2).to(x.dtype)


def smooth_angle(x: Tensor, y: Tensor, eps: float = 1e-12) -> Tensor:
    """Small spectral angles in radians, (B, C, ...) twice -> (B, ...), to descend on: the chord of the unit
    circle, with a finite gradient at zero. A spectrum shorter than `eps` counts as that long."""
    gap = functional.normalize(x, dim=1, eps=eps) - functional.normalize(y, dim=1, eps=eps)
    return (gap.square().sum(1) + 1e-12).sqrt()


def in_full(x: Tensor) -> Tensor:
    """Half precision as float32, else as it is: what is compared are small differences of large values."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


class SpectralTransformer(nn.Module):
    """Refine a sequence of spectra by attention between channels: (B, n, C) -> (B, n, C)."""

    def __init__(self, channels: int, heads: int = 4) -> None:
        super().__init__()
        heads = min(heads, channels)
        inner = heads * (channels // heads)
        self.heads = heads
        self.norm = nn.LayerNorm(channels)
        self.to_qkv = nn.Linear(channels, 3 * inner, bias=False)
        self.rescale = nn.Parameter(torch.ones(heads, 1, 1))
        self.proj = nn.Linear(inner, channels)
        self.position = nn.Sequential(nn.Linear(inner, channels), nn.GELU(), nn.Linear(channels, channels))
        hidden = max(1, channels // 2)
        self.feed_forward = nn.Sequential(
            nn.LayerNorm(channels),
            nn.Linear(channels, hidden, bias=False),
            nn.LeakyReLU(0.1),
            nn.Linear(hidden, channels, bias=False),
        )

    def forward(self, x: Tensor, valid: Tensor | None = None) -> Tensor:
        """Attention and feed-forward, each with a residual; points that aren't `valid` (B, n) have no say in others."""
        q, k, v = self.to_qkv(self.norm(x)).chunk(3, dim=-1)
        q, k, value = (t.unflatten(-1, (self.heads, -1)).permute(0, 2, 3, 1) for t in (q, k, v))  # (B, head, d, n)
        if valid is not None:
            q, k = (t * valid[:, None, None] for t in (q, k))
        q, k = functional.normalize(q, dim=-1), functional.normalize(k, dim=-1)
        attention = (q @ k.transpose(-2, -1) * self.rescale).softmax(-1)  # (B, head, d, d)
        mixed = (attention @ value).flatten(1, 2).transpose(1, 2)  # (B, n, inner)
        x = x + self.proj(mixed) + self.position(v)
        return x + self.feed_forward(x)


def relearn_points(
    features: Tensor, distortion: Tensor, ratio: Tensor, most: float, block: SpectralTransformer
) -> Tensor:
    """Add to `features` (B, C, H, W) the refinement of the points where `distortion` (B, H, W) is highest.

    `ratio` (B,) is the share of points, at most `most`: one per sample, whose result then doesn't depend on its batch
    mates.
    """
    sequence = features.flatten(2).transpose(1, 2)  # (B, H W, C)
    counts = (ratio * sequence.shape[1]).int()
    refine = _one_by_one if features.device.type == "cpu" else partial(_at_once, most=most)
    refined = refine(sequence, distortion.flatten(1), counts, block)
    return (refined + sequence).transpose(1, 2).reshape(features.shape)


def _one_by_one(sequence: Tensor, distortion: Tensor, counts: Tensor, block: SpectralTransformer) -> Tensor:
    """The refinement (B, n, C), sample by sample: no work is done for points that aren't learned again."""
    refined = torch.zeros_like(sequence)
    for b, count in enumerate(counts.tolist()):
        if count:
            points = distortion[b].topk(count).indices
            refined[b, points] = block(sequence[b, points][None])[0]
    return refined


def _at_once(sequence: Tensor, distortion: Tensor, counts: Tensor, block: SpectralTransformer, most: float) -> Tensor:
    """The same in one batch of as many points as there may be, for GPUs: they needn't wait to be told the counts."""
    size = min(int(most * sequence.shape[1]) + 1, sequence.shape[1])
    points = distortion.topk(size).indices
    valid = torch.arange(size, device=sequence.device) < counts[:, None]
    at = points[..., None].expand(-1, -1, sequence.shape[2])
    refined = block(sequence.gather(1, at), valid) * valid[..., None]
    return torch.zeros_like(sequence).scatter(1, at, refined.to(sequence.dtype))

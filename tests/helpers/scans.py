"""Arguments of the scan, and how far a result may lie from the reference's."""

import math

import torch

FORWARD, GRADIENT = 5e-6, 2e-5  # largest error relative to the largest value, float32 against float64


def inputs(batch, height, width, channels, seed=0):
    """Random float64 arguments of scan2d at the sizes an SS2D block of that many channels uses."""
    generator = torch.Generator().manual_seed(seed)
    inner, states, rank = 2 * channels, max(1, channels // 2), math.ceil(channels / 16)

    def normal(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    decay = torch.arange(1.0, states + 1, dtype=torch.float64).log() + 0.2 * normal(4, inner, states)
    u, proj = normal(batch, height, width, inner), normal(batch, height, width, 4, rank + 2 * states)
    return u, proj, normal(4, inner, rank), normal(4, inner) - 3, decay, normal(4, inner)


def value_and_gradients(scan, arguments, weight, dtype):
    leaves = [x.to(dtype).requires_grad_() for x in arguments]
    y = scan(*leaves)
    return [y.detach(), *torch.autograd.grad(y, leaves, weight.to(dtype))]


def relative_error(result, truth):
    return ((result.double() - truth).abs().max() / truth.abs().max()).item()

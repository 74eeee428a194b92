"""Laws of the SS2D block: shape, published parameter count, initialisation, residual, and what it depends on."""

import math
from copy import deepcopy

import pytest
import torch
from torch.nn import functional

from hsfuse.nets.scan import VARIABLE, available_backends
from hsfuse.nets.ss2d import SS2D


def test_parameter_count_of_31_bands():
    """C = 31: inner 62, 15 states, rank 2; each term one tensor of the published block."""
    in_proj, conv, x_proj, dt_proj = 31 * 124, 62 * 9 + 62, 4 * 62 * 32, 4 * (62 * 2 + 62)
    a_log, skip, out_norm, out_proj, norm = 4 * 62 * 15, 4 * 62, 2 * 62, 62 * 31, 2 * 31
    wanted = in_proj + conv + x_proj + dt_proj + a_log + skip + out_norm + out_proj + norm
    assert sum(p.numel() for p in SS2D(31).parameters()) == wanted == 19220


@pytest.mark.parametrize("channels", [4, 7, 31])
def test_shape_is_kept(channels):
    x = torch.randn(2, channels, 5, 9)
    assert SS2D(channels)(x).shape == x.shape


def test_initialisation():
    block = SS2D(31)
    dt = functional.softplus(block.dt_bias)
    assert dt.min() >= 1e-3 * 0.999
    assert dt.max() <= 1e-1 * 1.001
    assert abs(dt.log10().mean() + 2) < 0.15  # log-uniform: the mean exponent is in the middle
    assert block.dt_weight.abs().max() <= 2**-0.5
    assert torch.equal(block.a_log[3, 5], torch.arange(1.0, 16).log())
    assert torch.equal(block.skip, torch.ones(4, 62))


def test_residual_remains_when_the_branch_is_zero():
    block = SS2D(6)
    torch.nn.init.zeros_(block.out_proj.weight)
    x = torch.randn(1, 6, 4, 5)
    assert torch.equal(block(x), x)


def test_dropout_only_in_training():
    block, x = SS2D(8, dropout=0.5), torch.randn(1, 8, 6, 6)
    assert not torch.equal(block(x), block(x))
    block.eval()
    assert torch.equal(block(x), block(x))  # the same call twice


def test_inference_equals_training_forward():
    block, x = SS2D(13, dropout=0.0), torch.randn(2, 13, 7, 11)
    with torch.no_grad():
        plain = block(x)
    torch.testing.assert_close(plain, block(x).detach(), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("size", [(1, 4, 1, 1), (2, 7, 3, 5), (1, 16, 9, 8), (3, 31, 6, 17), (1, 70, 2, 33)], ids=str)
def test_fused_inference_equals_the_definition(size):
    """The whole block in float32 without gradients, however its rows are shared out, against torch in float64."""
    torch.manual_seed(0)
    block, x = SS2D(size[1]).eval(), torch.randn(*size)
    for norm in (block.norm, block.out_norm):
        torch.nn.init.normal_(norm.weight)
        torch.nn.init.normal_(norm.bias)
    torch.nn.init.normal_(block.conv.bias)
    wanted = deepcopy(block).double()(x.double()).detach().float()
    with torch.no_grad():
        torch.testing.assert_close(block(x), wanted, atol=1e-5, rtol=1e-5)


@pytest.mark.skipif("cpu" not in available_backends("cpu"), reason="Numba is not installed")
def test_threads_share_the_rows_of_a_fused_block(monkeypatch):
    monkeypatch.setattr("hsfuse.nets.scan.cpu.SMALL", 0)
    block, x = SS2D(9).eval(), torch.randn(2, 9, 11, 13)
    before, results = torch.get_num_threads(), []
    for threads in (1, 3):
        torch.set_num_threads(threads)
        with torch.no_grad():
            results.append(block(x))
    torch.set_num_threads(before)
    torch.testing.assert_close(*results, atol=1e-6, rtol=1e-5)


@pytest.mark.skipif("cpu" not in available_backends("cpu"), reason="Numba is not installed")
def test_only_inference_is_fused(monkeypatch):
    fused = []
    monkeypatch.setattr("hsfuse.nets.scan.block.block_cpu", lambda block, x: fused.append(1) or x)
    block, x = SS2D(4).eval(), torch.randn(1, 4, 3, 3)
    block(x)
    with torch.no_grad():
        deepcopy(block).double()(x.double())
        block.train()(x)
        monkeypatch.setenv(VARIABLE, "chunked")
        block.eval()(x)
        assert not fused
        monkeypatch.delenv(VARIABLE)
        block(x)
    assert fused


@pytest.mark.parametrize("name", available_backends("cpu"))
def test_backends_give_the_same_block(monkeypatch, name):
    torch.manual_seed(0)
    block, x = SS2D(9).eval(), torch.randn(2, 9, 6, 7)
    monkeypatch.setenv(VARIABLE, "chunked")
    wanted = block.double()(x.double())
    block.float()
    monkeypatch.setenv(VARIABLE, name)
    torch.testing.assert_close(block(x), wanted.float(), atol=1e-5, rtol=1e-5)


def test_every_pixel_depends_on_every_pixel():
    """The four scans reach the whole map: a change in one corner is seen in all others."""
    torch.manual_seed(0)
    block, x = SS2D(6).eval().double(), torch.randn(1, 6, 6, 6, dtype=torch.float64)
    changed = x.clone()
    changed[0, 2, 0, 5] += 1
    with torch.no_grad():
        difference = (block(changed) - block(x)).abs().sum(1)[0]
    assert difference.min() > 0


def test_every_parameter_learns():
    block = SS2D(5, dropout=0.0)
    (block(torch.randn(2, 5, 4, 6)) ** 2).sum().backward()
    for name, parameter in block.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name


def test_given_state_size_and_width():
    block = SS2D(16, d_state=3, expand=1)
    assert block.a_log.shape == (4, 16, 3)
    assert block.x_proj.shape == (4, math.ceil(16 / 16) + 6, 16)
    assert block(torch.randn(1, 16, 3, 3)).shape == (1, 16, 3, 3)

"""SRLF-Net: the published sizes to the layer, identity at the start, and samples that don't know each other."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from skimage.metrics import structural_similarity
from torch import nn

from hsfuse.nets import srlf
from hsfuse.nets.relearn import SpectralTransformer, _at_once, _one_by_one, angle_map, relearn_points, ssim_map
from hsfuse.nets.srlf import Observation, SRLFConfig, SRLFNet, dihedral, undo_dihedral
from hsfuse.physics.model import ObservationModel, Psf, gaussian_psf

PAPER = SRLFConfig(channels=31, guide=3, scale=8)

#: Parameters of one SS2D with 31 channels: inner width 62, 15 states, rank 2, four directions.
SS2D_TABLE = {
    "norm": 2 * 31, "in_proj": 31 * 124, "conv": 62 * 9 + 62, "x_proj": 4 * (2 + 2 * 15) * 62, "dt_weight": 4 * 62 * 2,
    "dt_bias": 4 * 62, "a_log": 4 * 62 * 15, "skip": 4 * 62, "out_norm": 2 * 62, "out_proj": 62 * 31,
}  # fmt: skip
SS2D = 19_220
#: Strided convolutions by 4 (6x6), then by 2 (4x4), without bias.
DOWN = 31 * 31 * 36 + 31 * 31 * 16
#: 1x1 convolution to 64 x 31 channels for the pixel shuffle.
UP = 31 * (64 * 31) + 64 * 31
#: Four heads of seven channels: norm, QKV, head factors, projection, position branch, feed-forward.
TRANSFORMER = 62 + 31 * 84 + 4 + (28 * 31 + 31) + (28 * 31 + 31 + 31 * 31 + 31) + (62 + 31 * 15 + 15 * 31)
STAGE_TABLE = {
    "preliminary.fine": SS2D, "preliminary.coarse": SS2D, "preliminary.merged": SS2D,
    "preliminary.down": DOWN, "preliminary.up": UP, "preliminary.merge": 62 * 31 + 31, "preliminary.norm": 2 * 31,
    "spatial.embed": 34 * 31 + 31, "spatial.block": TRANSFORMER,
    "spectral.embed": 62 * 31 + 31, "spectral.block": TRANSFORMER, "spectral.up": UP,
    "gather": 62 * 31 + 31, "refuse": SS2D, "out": 62 * 31 + 31,
}  # fmt: skip
EMBED, REFINE = 34 * 31 * 9 + 31, 5 * 31 * 31
#: The published code holds a second downsampling path in each stage that it never uses.
UNUSED = 4 * DOWN


def size(module):
    return sum(p.numel() for p in module.parameters())


def random_map(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def observation(cfg, batch=1, rows=2, cols=2, bands=3, phase=None, seed=0):
    """Random images of rows x cols LR pixels, and a base."""
    s, c = cfg.scale, cfg.channels
    model = ObservationModel(random_map(bands, c, seed=3) / c, gaussian_psf(0.5 * s, s, phase), s, phase)
    high = (rows * s, cols * s)
    obs = Observation(
        random_map(batch, c, rows, cols, seed=seed + 1),
        random_map(batch, bands, *high, seed=seed + 2),
        random_map(batch, cfg.guide, *high, seed=seed + 3),
        model,
        torch.linspace(0.5, 1.5, c),
    )
    return random_map(batch, c, *high, seed=seed + 4), obs


def part(obs, i):
    x, y, guide = (t[i : i + 1] for t in (obs.x, obs.y, obs.guide))
    return Observation(x, y, guide, obs.model, obs.unit)


def trained(cfg, seed=0):
    """A network that isn't the identity, in evaluation mode."""
    torch.manual_seed(seed)
    return SRLFNet(cfg, identity=False).eval()


def test_parameters_of_the_paper_to_the_layer():
    net = SRLFNet(PAPER)
    assert len(net.stages) == 4
    for stage in net.stages:
        found = {name: size(stage.get_submodule(name)) for name in STAGE_TABLE}
        assert found == STAGE_TABLE
        assert sum(found.values()) == size(stage)
    block = net.stages[0].refuse
    assert {k: sum(p.numel() for n, p in block.named_parameters() if n.split(".")[0] == k) for k in SS2D_TABLE} == (
        SS2D_TABLE
    )
    assert sum(SS2D_TABLE.values()) == SS2D == size(block)
    assert (size(net.embed), size(net.refine)) == (EMBED, REFINE)


def test_the_paper_s_total_is_explained():
    assert size(SRLFNet(PAPER)) == 1_117_086 == 4 * sum(STAGE_TABLE.values()) + EMBED + REFINE
    assert UNUSED == 199_888
    assert size(SRLFNet(PAPER)) + UNUSED == 1_316_974
    assert abs(1_316_974 / 1e6 - 1.33) < 0.015  # what the paper prints


@pytest.mark.parametrize("s", [2, 3, 5, 6, 8])
@pytest.mark.parametrize(("channels", "guide", "bands"), [(31, 3, 3), (6, 6, 4), (2, 1, 9), (1, 1, 1)])
def test_any_sizes(s, channels, guide, bands):
    cfg = SRLFConfig(channels, guide, s, stages=1)
    base, obs = observation(cfg, rows=3, cols=2, bands=bands)
    fused = trained(cfg)(base, obs)
    assert fused.shape == base.shape
    assert fused.isfinite().all()
    assert not torch.equal(fused, base)


@pytest.mark.parametrize("s", [4, 12, 16])
def test_downsampling_is_exact_at_large_ratios(s):
    base, obs = observation(SRLFConfig(2, 2, s, stages=1), rows=2, cols=1)
    assert trained(SRLFConfig(2, 2, s, stages=1))(base, obs).shape == base.shape


def test_starts_as_the_identity_on_its_base():
    cfg = SRLFConfig(5, 5, 3, stages=2)
    base, obs = observation(cfg)
    net = SRLFNet(cfg).train()
    assert torch.equal(net(base, obs), base)
    torch.testing.assert_close(net.ensemble(base, obs), base, rtol=1e-6, atol=0)


def test_step_scales_the_correction():
    cfg = SRLFConfig(4, 4, 2, stages=1)
    base, obs = observation(cfg)
    net = trained(cfg)
    step = torch.tensor([0.0, 1.0, 0.5, 2.0])[:, None, None]
    with torch.no_grad():
        torch.testing.assert_close(net(base, obs, step) - base, step * (net(base, obs) - base), rtol=1e-4, atol=1e-6)


def test_a_sample_does_not_depend_on_its_batch_mates():
    """The keep ratio is per sample: samples of very different quality in one batch."""
    cfg = SRLFConfig(6, 6, 3)
    base, obs = observation(cfg, batch=3, rows=5, cols=4)
    obs.y[1] = obs.model.spectral(base[1:2] * obs.unit[:, None, None])[0]  # resembles its MSI well, the others badly
    base[2] *= 20
    net = trained(cfg)
    with torch.no_grad():
        together = net(base, obs)
        for i in range(3):
            alone = net(base[i : i + 1], part(obs, i))
            torch.testing.assert_close(together[i : i + 1], alone, rtol=1e-4, atol=1e-4)


def test_every_parameter_learns():
    cfg = SRLFConfig(8, 4, 3, stages=2, dropout=0.0)
    base, obs = observation(cfg, rows=6, cols=6)
    torch.manual_seed(0)
    net = SRLFNet(cfg, identity=False)
    before = {name: p.detach().clone() for name, p in net.named_parameters()}
    optimiser = torch.optim.SGD(net.parameters(), lr=1.0)
    (net(base, obs) - random_map(*base.shape, seed=77)).abs().mean().backward()
    optimiser.step()
    still = [name for name, p in net.named_parameters() if torch.equal(p, before[name])]
    assert not still
    assert all(p.grad.isfinite().all() for p in net.parameters())


def test_from_the_identity_all_learn_after_the_first_step():
    """At zero refinement only the refining convolution has a gradient; one step later all have."""
    cfg = SRLFConfig(8, 8, 2, stages=1, dropout=0.0)
    base, obs = observation(cfg, rows=6, cols=6)
    net = SRLFNet(cfg)
    optimiser = torch.optim.SGD(net.parameters(), lr=0.1)
    target = random_map(*base.shape, seed=77)
    (net(base, obs) - target).square().mean().backward()
    moved = {name for name, p in net.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
    assert moved == {"refine.weight"}
    optimiser.step()
    optimiser.zero_grad()
    (net(base, obs) - target).square().mean().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in net.parameters())


def test_initialisation_is_the_published_one():
    net = SRLFNet(SRLFConfig(8, 8, 2, stages=1), identity=False)
    convolutions = [m for m in net.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    assert len(convolutions) > 10
    for module in convolutions:
        fan_in, fan_out = nn.init._calculate_fan_in_and_fan_out(module.weight)
        assert module.weight.abs().max() <= (6 / (fan_in + fan_out)) ** 0.5 + 1e-6
        assert module.bias is None or not module.bias.any()
    assert all((m.weight == 1).all() and not m.bias.any() for m in net.modules() if isinstance(m, nn.LayerNorm))


@pytest.mark.parametrize("turn", range(8))
def test_symmetries_and_their_inverses(turn):
    t = random_map(2, 3, 4, 6)
    torch.testing.assert_close(undo_dihedral(dihedral(t, turn), turn), t, rtol=0, atol=0)
    seen = {tuple(dihedral(torch.arange(6.0).reshape(2, 3), k).flatten().tolist()) for k in range(8)}
    assert len(seen) == 8


@pytest.mark.parametrize("turn", range(8))
def test_a_centred_model_does_not_mind_being_turned(turn):
    _, obs = observation(SRLFConfig(3, 3, 4), rows=4, cols=3)
    x = random_map(1, 3, 16, 12, seed=5)
    torch.testing.assert_close(obs.model.spatial(dihedral(x, turn)), dihedral(obs.model.spatial(x), turn))
    low = random_map(1, 3, 4, 3, seed=6)
    torch.testing.assert_close(obs.model.upsample(dihedral(low, turn)), dihedral(obs.model.upsample(low), turn))


def test_a_model_that_minds_says_so():
    """At phase 0, or with a lopsided kernel, turned images obey another model."""
    lopsided = Psf(np.arange(1.0, 17).reshape(4, 4))
    for psf, phase, said in (
        (gaussian_psf(2, 4), None, True),
        (gaussian_psf(2, 4, 0), 0, False),
        (lopsided, None, False),
        (Psf(np.ones((4, 4))), None, True),
    ):
        model = ObservationModel(torch.ones(1, 3), psf, 4, phase)
        x = random_map(1, 3, 16, 12, seed=5)
        turned = [undo_dihedral(model.spatial(dihedral(x, k)), k) for k in range(8)]
        assert model.symmetric is said
        assert all(torch.allclose(t, turned[0], atol=1e-5) for t in turned) is said


def test_the_ensemble_is_equivariant():
    """The mean over all eight symmetries turns with its input."""
    cfg = SRLFConfig(3, 3, 2, stages=1)
    base, obs = observation(cfg, rows=3, cols=4)
    net = trained(cfg)
    with torch.no_grad():
        straight = net.ensemble(base, obs)
        turned = net.ensemble(dihedral(base, 5), obs.turned(5))
    torch.testing.assert_close(undo_dihedral(turned, 5), straight, rtol=1e-4, atol=1e-5)


def test_ssim_map_against_scikit_image():
    """With scikit-image's 11 taps; the border, which it mirrors and the paper pads with zeros, is left out."""
    x, y = random_map(2, 3, 20, 24, seed=1), random_map(2, 3, 20, 24, seed=2)
    found = ssim_map(x, y, size=11)
    assert found.shape == (2, 20, 24)
    for b in range(2):
        bands = [
            structural_similarity(
                x[b, k].double().numpy(), y[b, k].double().numpy(), data_range=1.0, gaussian_weights=True, sigma=1.5,
                use_sample_covariance=False, full=True,
            )[1]
            for k in range(3)
        ]  # fmt: skip
        np.testing.assert_allclose(found[b, 5:-5, 5:-5], np.mean(bands, axis=0)[5:-5, 5:-5], atol=1e-5)


def test_ssim_map_by_hand():
    """One pixel in a flat window of five taps, against the formula of Wang et al. 2004."""
    g = np.exp(-(np.arange(-2, 3.0) ** 2) / 4.5)
    g = np.outer(g, g) / g.sum() ** 2
    x, y = (random_map(1, 1, 5, 5, seed=k)[0, 0].double().numpy() for k in (1, 2))
    mx, my = (g * x).sum(), (g * y).sum()
    vx, vy, vxy = (g * x * x).sum() - mx**2, (g * y * y).sum() - my**2, (g * x * y).sum() - mx * my
    wanted = (2 * mx * my + 1e-4) * (2 * vxy + 9e-4) / ((mx**2 + my**2 + 1e-4) * (vx + vy + 9e-4))
    found = ssim_map(torch.from_numpy(x)[None, None], torch.from_numpy(y)[None, None])
    assert found[0, 2, 2] == pytest.approx(wanted)


def test_ssim_map_of_equal_images_is_one():
    x = random_map(1, 2, 9, 9)
    torch.testing.assert_close(ssim_map(x, x), torch.ones(1, 9, 9))


def test_angle_map_by_hand():
    x = torch.tensor([[3.0, 0.0], [1.0, 2.0], [1.0, 1.0]]).T[None, :, None]  # three pixels of two bands
    y = torch.tensor([[5.0, 0.0], [-2.0, 1.0], [1.0, 0.0]]).T[None, :, None]
    np.testing.assert_allclose(angle_map(x, y)[0, 0], [0, np.pi / 2, np.pi / 4], atol=1e-6)
    assert angle_map(torch.zeros_like(x), y).isfinite().all()


def test_small_angles_are_told_apart():
    """Far below the 0.08 degrees at which the arc cosine of a float32 ends."""
    wanted = torch.logspace(-5, -2, 40)
    x = torch.stack([torch.ones(40), torch.zeros(40)])[None, :, None]
    y = torch.stack([wanted.cos(), wanted.sin()])[None, :, None] * 3
    torch.testing.assert_close(angle_map(x, y)[0, 0], wanted, rtol=1e-2, atol=1e-7)
    opposite = angle_map(x, -y)[0, 0]
    torch.testing.assert_close(opposite, torch.pi - wanted, rtol=1e-6, atol=1e-6)


def test_bfloat16_chooses_the_points_that_float32_chooses(monkeypatch):
    """Where it matters, in comparing with both inputs; the maps are seen on their way to the selection."""
    cfg = SRLFConfig(4, 4, 2, stages=1)
    base, obs = observation(cfg, rows=8, cols=8)
    obs = replace(obs, y=obs.model.spectral(base).clamp(0, 1), x=obs.model.spatial(base))
    z = base + 0.02 * torch.randn(base.shape, generator=torch.Generator().manual_seed(0))
    seen = []
    monkeypatch.setattr(srlf, "relearn_points", lambda f, distortion, *_: seen.append(distortion) or f)
    for dtype in (torch.float32, torch.bfloat16):
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
            _, ratio = srlf.SpatialRelearning(cfg)(z.to(dtype), obs)
            srlf.SpectralRelearning(cfg)(z.to(dtype), ratio, obs)
    for full, half in (seen[::2], seen[1::2]):
        assert half.dtype == torch.float32
        assert torch.corrcoef(torch.stack([full.flatten(), half.flatten()]))[0, 1] > 0.98
        assert not torch.equal(full, half)


@pytest.mark.parametrize("ratios", [(0.3, 0.0, 0.1), (0.5, 0.5, 0.49), (0.0, 0.0, 0.0)])
def test_relearning_at_once_is_relearning_one_by_one(ratios):
    torch.manual_seed(0)
    block, sequence = SpectralTransformer(6).double(), torch.randn(3, 40, 6, dtype=torch.float64, requires_grad=True)
    distortion, counts = torch.rand(3, 40), (torch.tensor(ratios) * 40).int()
    leaves = [sequence, *block.parameters()]
    results = [_one_by_one(sequence, distortion, counts, block), _at_once(sequence, distortion, counts, block, 0.5)]
    assert torch.allclose(*results, atol=1e-12)
    if any(ratios):
        gradients = [torch.autograd.grad(r.square().sum(), leaves) for r in results]
        assert all(torch.allclose(a, b, atol=1e-10) for a, b in zip(*gradients, strict=True))


def test_relearning_touches_the_worst_points_only():
    torch.manual_seed(0)
    block = SpectralTransformer(4)
    features, distortion = random_map(2, 4, 5, 6), random_map(2, 5, 6, seed=1)
    out = relearn_points(features, distortion, torch.tensor([0.3, 0.0]), 0.3, block)
    changed = (out != features).any(1)
    assert changed[0].sum() == 9
    assert not changed[1].any()
    assert distortion[0][changed[0]].min() >= distortion[0][~changed[0]].max()
    sequence = features[0].flatten(1).T[distortion[0].flatten().topk(9).indices]
    expected = sequence + block(sequence[None])[0]
    found = out[0].flatten(1).T[distortion[0].flatten().topk(9).indices]
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("channels", [1, 3, 4, 16, 31])
def test_attention_does_not_care_for_the_points_order(channels):
    torch.manual_seed(0)
    block = SpectralTransformer(channels)
    x = random_map(1, 40, channels)
    order = torch.randperm(40)
    torch.testing.assert_close(block(x)[:, order], block(x[:, order]), rtol=1e-4, atol=1e-5)


def test_published_settings_are_the_defaults():
    assert (PAPER.stages, PAPER.keep, PAPER.dropout, PAPER.expand) == (4, 0.3, 0.3, 2)

"""The laws of the model-based methods: what they minimise, exactly how far, and the pieces they are made of."""

from copy import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from classical_scene import make_model, make_scene, rmse

from hsfuse.methods import blend as blend_file
from hsfuse.methods.blend import Blend, DenoisedGLP, Unmixed, middles
from hsfuse.methods.cnmf import ABSENT, CNMF, factorise, pure_pixels
from hsfuse.methods.conic import BEYOND, Conic
from hsfuse.methods.denoise import denoise, vector_wiener, wiener_gains
from hsfuse.methods.problem import conjugate_gradients, fit_affine, fit_problem, mix, msi_noise
from hsfuse.methods.regression import ridge_regression
from hsfuse.methods.variational import (
    HySure,
    Sylvester,
    differences,
    differences_adjoint,
    regression_mean,
    solver_of,
)
from hsfuse.physics.model import ObservationModel, Psf
from hsfuse.physics.sample import PairSample


@pytest.fixture(scope="module")
def scene():
    return make_scene(noise=0.003)


def doubles(observed: PairSample) -> tuple[torch.Tensor, torch.Tensor]:
    return observed.lrhsi.double(), observed.msi.double()


def test_descent_is_minus_the_gradient_of_the_value(scene):
    _, observed, model = scene
    problem = fit_problem(observed, model, 6)
    x, y = doubles(observed)
    a = problem.subspace.project(model.upsample(x))
    direction = torch.randn(a.shape, generator=torch.Generator().manual_seed(0), dtype=a.dtype)
    step = 1e-4
    slope = (problem.value(a + step * direction, x, y) - problem.value(a - step * direction, x, y)) / (2 * step)
    assert slope == pytest.approx(-float((problem.descent(a, x, y) * direction).sum()), rel=1e-6)
    curved = problem.descent(a, x, y) - problem.descent(a + direction, x, y)
    torch.testing.assert_close(curved, problem.hessian()(direction), rtol=1e-6, atol=1e-6 * float(curved.abs().max()))


def test_noise_is_estimated_within_a_quarter(scene):
    _, observed, model = scene
    problem = fit_problem(observed, model, 8)
    assert float(problem.noise_x.mean().sqrt()) == pytest.approx(0.003, rel=0.25)
    flat = torch.full_like(observed.msi, 0.3)
    noisy = flat + 0.01 * torch.randn(flat.shape, generator=torch.Generator().manual_seed(0))
    estimated = msi_noise(PairSample(observed.lrhsi, noisy, observed.mask)).sqrt()
    torch.testing.assert_close(estimated, torch.full_like(estimated, 0.01), rtol=0.2, atol=0)


def test_texture_common_to_the_bands_is_not_noise():
    texture = torch.rand(1, 1, 96, 96, generator=torch.Generator().manual_seed(0))
    msi = texture * torch.tensor([0.2, 0.3, 0.5, 0.9])[:, None, None]
    msi = msi + 0.01 * torch.randn(msi.shape, generator=torch.Generator().manual_seed(1))
    estimated = msi_noise(PairSample(msi, msi, torch.ones(1, 96, 96, dtype=torch.bool))).sqrt()
    torch.testing.assert_close(estimated, torch.full_like(estimated, 0.01), rtol=0.3, atol=0)


def test_regression_for_noisier_use_than_learning():
    """With `noise` the weights are those of learning on endless noisy copies."""
    g = torch.Generator().manual_seed(0)
    x = torch.randn(2, 500, generator=g, dtype=torch.float64)
    x[1] = x[0] + 0.1 * x[1]  # two bands that differ by little, which is what the target is
    y = (x[1] - x[0])[None]
    variance = torch.full((2,), 0.01, dtype=torch.float64)
    copies = torch.cat([x + 0.1 * torch.randn(x.shape, generator=g) for _ in range(400)], 1)
    learned = fit_affine(copies, y.repeat(1, 400)).weight
    torch.testing.assert_close(fit_affine(x, y, noise=variance).weight, learned, atol=0.02, rtol=0)
    ridge, _ = ridge_regression(x, y, torch.diag(variance))
    torch.testing.assert_close(ridge, learned, atol=0.05, rtol=0)
    assert float(learned.norm()) < 0.6 * float(fit_affine(x, y).weight.norm())


@pytest.fixture(scope="module")
def blended(scene):
    """A quick blend fitted to the scene, and its members' coefficients there."""
    _, observed, model = scene
    blend = Blend()
    blend.conic, blend.unmixed = Conic(atoms=10, alternations=2), Unmixed(endmembers=8, iterations=5)
    blend.fit(observed, model)
    return blend, blend.members(observed.lrhsi, observed.msi)


def test_where_members_are_not_apart_the_blend_is_their_mean(scene, blended):
    """They are the four methods' own; without a covariance there is nothing that the images could correct."""
    _, observed, _ = scene
    blend, members = blended
    inputs = (observed.lrhsi, observed.msi)
    clean = blend.filter(observed.lrhsi, *blend._residual(observed.lrhsi, blend._detail(observed.msi)))
    for own, member in zip(members, (blend.glp, blend.conic, blend.unmixed, blend.guided), strict=True):
        torch.testing.assert_close(own, member.coefficients(clean, observed.msi))
    certain = copy(blend)
    certain.agreement = replace(blend.agreement, covariance=torch.zeros_like(blend.agreement.covariance))
    torch.testing.assert_close(certain.coefficients(*inputs), members.mean(0), atol=1e-5, rtol=0)
    fused = blend.coefficients(*inputs)
    torch.testing.assert_close(blend.subspace.project(blend.predict(*inputs)), fused, atol=2e-3, rtol=0)


def test_the_blend_agrees_better_than_the_mean_and_is_closer(scene, blended):
    truth, observed, _ = scene
    blend, members = blended
    mean, fused = members.mean(0), blend.coefficients(observed.lrhsi, observed.msi)
    before, after = (blend.agreement.problem.misfits(a, observed.lrhsi, observed.msi) for a in (mean, fused))
    inside = [(blend.subspace.project(x), y) for x, y in (before, after)]  # outside of it there is noise alone
    for worse, better in zip(*inside, strict=True):
        assert better.square().mean() < 0.85 * worse.square().mean()  # the rest is noise
    known = blend.subspace.project(truth)
    assert rmse(fused, known) < 0.97 * rmse(mean, known)


def test_what_too_few_materials_leave_is_restored_but_noise_is_not():
    """Two endmembers can't explain the scene: the LRHSI comes back. Without their error nothing is added."""
    _, observed, model = make_scene(noise=0.003)
    member = Unmixed(endmembers=2).fit(observed, model)
    inputs = (observed.lrhsi, observed.msi)
    seen = member.subspace.project(observed.lrhsi)
    restored = member.coefficients(*inputs)
    plain = member.subspace.project(member.predict(*inputs))
    assert rmse(model.spatial(restored), seen) < 0.5 * rmse(model.spatial(plain), seen)
    member.error = torch.zeros_like(member.error)
    torch.testing.assert_close(member.coefficients(*inputs), plain, atol=1e-5, rtol=0)


def test_what_the_regression_left_is_restored_by_brightness(scene):
    """A bright pixel takes more of it than its dark neighbour; the LRHSI comes back."""
    _, observed, model = scene
    glp = DenoisedGLP().fit(observed, model)
    a = glp.subspace.project(observed.lrhsi)
    detail = glp.regress(observed.msi)
    detail[..., ::2] *= 0.5
    change = glp.inject(1.1 * model.spatial(detail), detail) - detail
    torch.testing.assert_close(change[:, :1], 0.1 * detail[:, :1], rtol=0.3, atol=0.02)
    back = model.spatial(glp.coefficients(*(observed.lrhsi, observed.msi)))
    assert rmse(back, a) < 0.5 * rmse(model.spatial(glp.regress(observed.msi)), a)


def test_a_gain_between_the_sensors_is_taken_into_the_response(scene):
    truth, observed, model = scene
    brighter = PairSample(observed.lrhsi, 1.2 * observed.msi + 0.03, observed.mask)
    plain = Sylvester().fit(observed, model).predict(observed.lrhsi, observed.msi)
    gained = Sylvester().fit(brighter, model).predict(brighter.lrhsi, brighter.msi)
    assert rmse(gained, truth) < 1.1 * rmse(plain, truth)


def test_fuse_satisfies_its_normal_equations(scene):
    _, observed, model = scene
    fuser = Sylvester(dimension=8).fit(observed, model)
    x, y = doubles(observed)
    mean = regression_mean(fuser.problem, fuser.regression, x, y)
    start = fuser.problem.descent(mean, x, y)
    a = mean + fuser.solver.solve(start)
    gradient = fuser.problem.descent(a, x, y) - mix(fuser.precision, a - mean)
    assert float(gradient.abs().max()) < 1e-8 * float(start.abs().max())


def test_fuse_solves_a_psf_that_is_not_separable(scene):
    _, observed, gaussian = scene
    kernel = np.array(gaussian.psf.kernel)
    kernel[: len(kernel) // 2, : len(kernel) // 2] *= 0.5
    model = ObservationModel(gaussian.srf, Psf(kernel), gaussian.ratio)
    problem = fit_problem(observed, model, 6)
    precision = 100 * torch.eye(6, dtype=torch.float64)
    rhs = torch.randn(1, 6, 48, 48, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    a = solver_of(problem, precision).solve(rhs)
    residual = rhs - problem.hessian()(a) - mix(precision, a)
    assert float(residual.norm() / rhs.norm()) < 1e-5


def test_a_solution_is_what_the_msi_tells_alone_less_what_the_lrhsi_takes_back(scene):
    _, observed, model = scene
    solver = solver_of(fit_problem(observed, model, 6), 100 * torch.eye(6, dtype=torch.float64))
    rhs = torch.randn(2, 6, 48, 48, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    back = model.spatial_adjoint(solver.coupling(model.spatial(rhs), 1e-6))
    torch.testing.assert_close(mix(solver.alone, rhs) - back, solver.solve(rhs))


def test_conjugate_gradients_solve_each_sample_on_its_own():
    weights = torch.linspace(1, 50, 3 * 16, dtype=torch.float64).reshape(1, 3, 4, 4)
    rhs = torch.cat([torch.ones(1, 3, 4, 4), 1e6 * torch.ones(1, 3, 4, 4)]).double()
    zero = torch.zeros_like(rhs)
    solved = conjugate_gradients(lambda a: weights * a, rhs, zero, lambda a: a, 60, tolerance=1e-10)
    torch.testing.assert_close(solved, rhs / weights, rtol=1e-8, atol=0)


def test_differences_and_their_adjoint():
    rng = torch.Generator().manual_seed(0)
    a, d = (torch.randn(*shape, generator=rng, dtype=torch.float64) for shape in ((2, 3, 5, 6), (2, 2, 3, 5, 6)))
    assert float((differences(a) * d).sum()) == pytest.approx(float((a * differences_adjoint(d)).sum()), rel=1e-12)


def hysure_objective(fuser, a, lrhsi, msi):
    """J(a) + lambda total variation."""
    down, right = differences(a).unbind(1)
    return fuser.problem.value(a, lrhsi, msi) + fuser.weight * float((down**2 + right**2).sum(1).sqrt().sum())


def test_hysure_lowers_its_objective(scene):
    _, observed, model = scene
    x, y = doubles(observed)
    fuser = HySure(strength=0.1).fit(observed, model)
    start = hysure_objective(fuser, regression_mean(fuser.problem, fuser.regression, x, y), x, y)
    values = []
    for iterations in (5, 40):
        fuser.iterations = iterations
        values.append(hysure_objective(fuser, fuser.solve(x, y), x, y))
    assert values[1] < values[0] < start


def test_hysure_without_regularisation_satisfies_the_data(scene):
    _, observed, model = scene
    x, y = doubles(observed)
    misfits = []
    for strength in (1e-6, 1.0):
        fuser = HySure(strength=strength, iterations=20, inner=20).fit(observed, model)
        misfits.append(fuser.problem.value(fuser.solve(x, y), x, y))
    observations = x.numel() + y.numel()
    assert misfits[0] < 0.5 * observations
    assert misfits[0] < misfits[1]


def cnmf_objective(fuser, a, lrhsi, msi):
    """F for abundances (B, P, H, W)."""
    lrhsi, msi = lrhsi / fuser.level, msi / fuser.level
    x = lrhsi.clamp_min(0) - torch.einsum("cp,bphw->bchw", fuser.m, fuser.model.spatial(a))
    y = msi.clamp_min(0) - torch.einsum("cp,bphw->bchw", fuser.n, a)
    misfit = x.square().sum() * fuser.weight_x + y.square().sum() * fuser.weight_y
    return (misfit + fuser.weight_one * (1 - a.sum(1)).square().sum()) / 2


@pytest.mark.parametrize("separable", [True, False])
def test_cnmf_finds_the_non_negative_minimum_of_its_objective(scene, separable):
    """F's gradient vanishes where abundances are positive, and would make those that are 0 negative."""
    _, observed, model = scene
    if not separable:
        kernel = np.array(model.psf.kernel)
        kernel[: len(kernel) // 2, : len(kernel) // 2] *= 0.8
        model = ObservationModel(model.srf, Psf(kernel), model.ratio)
    fuser = CNMF(endmembers=4, outer=2).fit(observed, model)
    inputs = (observed.lrhsi, observed.msi)
    start = fuser._start(observed.lrhsi / fuser.level)
    values, slopes = [float(cnmf_objective(fuser, start, *inputs))], []
    for fuser.iterations in (5, 20, 300):
        a = fuser.abundances(*inputs)
        assert float(a.min()) >= 0
        a.requires_grad_()
        values.append(float(cnmf_objective(fuser, a.detach(), *inputs)))
        (gradient,) = torch.autograd.grad(cnmf_objective(fuser, a, *inputs), a)
        free = torch.where(a > 0, gradient, gradient.clamp_max(0)) * (start > ABSENT)
        slopes.append(float(free.square().mean().sqrt()))
    assert values[3] <= values[2] <= values[1] < values[0]
    assert slopes[2] < 0.02 * slopes[0]
    assert float(fuser.predict(*inputs).min()) >= 0


def test_pure_pixels_finds_the_corners_of_a_simplex():
    corners = torch.eye(4, dtype=torch.float64) + 0.05
    inside = torch.full((4, 30), 0.25, dtype=torch.float64) @ torch.rand(30, 50, dtype=torch.float64) / 30
    order = [7, 20, 33, 46]
    columns = inside.clone()
    columns[:, order] = corners
    assert sorted(int(i) for i in pure_pixels(columns.float(), 4)) == order


def test_factorise_reproduces_spectra_of_its_rank():
    rng = torch.Generator().manual_seed(0)
    x = torch.rand(12, 3, generator=rng, dtype=torch.float64) @ torch.rand(3, 80, generator=rng, dtype=torch.float64)
    m = factorise(x, 3)
    left = x - m @ torch.linalg.lstsq(m, x).solution
    assert float(m.min()) >= 0
    assert float(left.norm() / x.norm()) < 0.02


def test_denoising_is_the_local_wiener_estimate():
    """Against the definition, matrix by matrix in double precision: away from the border, where windows are whole."""
    g = torch.Generator().manual_seed(0)
    z = torch.randn(1, 3, 34, 34, generator=g) + torch.randn(1, 1, 34, 34, generator=g)
    wide = z[0].double().permute(1, 2, 0)
    taps = torch.exp(-(torch.arange(-6.0, 7.0, dtype=torch.float64) ** 2) / 8)
    window = (taps[:, None] * taps / taps.sum() ** 2).flatten()

    def averaged(matrices: torch.Tensor) -> torch.Tensor:
        return matrices.unfold(0, 13, 1).unfold(1, 13, 1).flatten(4) @ window

    def estimate(gains: torch.Tensor) -> torch.Tensor:
        return (averaged(gains) @ wide[12:-12, 12:-12, :, None])[..., 0].permute(2, 0, 1)

    covariances = averaged(wide[..., :, None] * wide[..., None, :])
    values, vectors = torch.linalg.eigh(covariances)
    expected = estimate(vectors @ torch.diag_embed((1 - 0.8 / values).clamp_min(0)) @ vectors.mT)
    found = vector_wiener(z, 0.8)[0, :, 12:-12, 12:-12].double()
    assert rmse(found, expected) < 0.03 * float(expected.square().mean().sqrt())
    gains = wiener_gains(covariances.flatten(0, 1).permute(1, 2, 0) / 0.8).permute(2, 0, 1).view_as(covariances)
    torch.testing.assert_close(found, estimate(gains), rtol=0, atol=1e-5)


@pytest.mark.parametrize("c", [1, 4, 12])
def test_gains_are_those_of_the_eigenvectors(c):
    """To 0.09 where signal and noise are alike, and exactly where there is no noise to speak of."""
    g = torch.Generator().manual_seed(c)
    vectors = torch.linalg.qr(torch.randn(300, c, c, generator=g, dtype=torch.float64))[0]
    values = 10 ** (6 * torch.rand(300, c, generator=g, dtype=torch.float64) - 2)
    covariances = (vectors * values[:, None]) @ vectors.mT
    gains = wiener_gains(covariances.permute(1, 2, 0)).permute(2, 0, 1)
    found = (vectors.mT @ gains @ vectors).diagonal(dim1=1, dim2=2)
    off = (found - (1 - 1 / values).clamp_min(0)).abs()
    assert off.max() < 0.09 + 0.01
    assert off[values > 100].max() < 0.02
    assert (gains - (vectors * found[:, None]) @ vectors.mT).abs().max() < 1e-9


def test_gains_of_covariances_beyond_single_precision_stay_gains():
    """One direction 10^12 times as strong as the noise, which rounding hides; and no signal at all."""
    g = torch.Generator().manual_seed(0)
    strong = 1e6 * torch.randn(12, 200, generator=g)
    covariances = strong[:, None] * strong + torch.eye(12)[:, :, None]
    covariances[..., 100:] = 0
    gains = wiener_gains(covariances).permute(2, 0, 1)
    assert gains.isfinite().all()
    values = torch.linalg.eigvalsh(gains.double())
    assert values.min() > -0.1
    assert values.max() < 1.1
    assert gains[100:].abs().max() < 0.01


def test_how_many_pixels_are_worked_on_at_a_time_makes_no_difference(monkeypatch):
    z = torch.randn(2, 5, 20, 24, generator=torch.Generator().manual_seed(3))
    whole = vector_wiener(z, 0.8)
    sizes: list[int] = []
    monkeypatch.setattr("hsfuse.methods.denoise.ENTRIES", {"cpu": 25 * 100})
    monkeypatch.setattr(
        "hsfuse.methods.denoise.wiener_gains", lambda part: sizes.append(part.shape[2]) or wiener_gains(part)
    )
    torch.testing.assert_close(vector_wiener(z, 0.8), whole, rtol=0, atol=1e-6)
    assert max(sizes) == 100
    assert sum(sizes) == 2 * 20 * 24


def test_an_image_is_denoised_once_until_it_changes():
    image, noise = torch.rand(1, 3, 24, 24, generator=torch.Generator().manual_seed(0)), torch.full((3,), 0.01)
    first = denoise(image, noise)
    assert denoise(image, noise.double()) is first
    assert not torch.equal(denoise(image, 2 * noise), first)
    image += 1
    torch.testing.assert_close(denoise(image, noise), first + 1, rtol=0, atol=1e-4)


def test_denoising_keeps_a_clean_image_and_cleans_a_noisy_one(scene):
    truth, _, model = scene
    clean = model.spectral(truth)
    assert rmse(denoise(clean, torch.full((4,), 1e-12)), clean) < 1e-6
    sigma = 0.02
    noisy = clean + sigma * torch.randn(clean.shape, generator=torch.Generator().manual_seed(1))
    assert rmse(denoise(noisy, torch.full((4,), sigma**2)), clean) < 0.8 * sigma


def test_conic_beats_its_own_start_and_the_sylvester_solution(scene):
    truth, observed, model = scene
    x, y = observed.lrhsi, observed.msi
    conic = Conic(dimension=8, atoms=10).fit(observed, model)
    fuse = Sylvester(dimension=8).fit(observed, model)
    assert rmse(conic.predict(x, y), truth) < rmse(fuse.predict(x, y), truth)


def test_the_blend_s_alternations_are_as_close_as_all_of_them(scene):
    truth, observed, model = scene
    conic = Conic(dimension=8, atoms=10).fit(observed, model)
    every = rmse(conic.predict(observed.lrhsi, observed.msi), truth)
    assert Blend().conic.alternations < conic.alternations
    conic.alternations = Blend().conic.alternations
    assert rmse(conic.predict(observed.lrhsi, observed.msi), truth) < 1.005 * every


def test_conic_codes_approach_the_non_negative_least_squares_solution(scene):
    _, observed, model = scene
    conic = Conic(dimension=6, atoms=8).fit(observed, model)
    inside = mix(conic.dictionary, torch.rand(1, 8, 4, 4, generator=torch.Generator().manual_seed(0)).double())
    gram = conic.dictionary.T @ conic.cone_precision @ conic.dictionary
    x, free, dual = (torch.zeros(1, 8, 4, 4, dtype=torch.float64) for _ in range(3))
    for _ in range(12):  # over-relaxed ADMM as it is written in books
        goal = mix(conic.dictionary.T @ conic.cone_precision, inside) + conic.penalty * (x - dual)
        free = mix(torch.linalg.inv(gram + conic.penalty * torch.eye(8)), goal)
        free = BEYOND * free + (1 - BEYOND) * x
        x = (free + dual).clamp_min(0)
        dual = dual + free - x
    state = conic._code(inside, conic._code(inside, None, 5), 7)
    torch.testing.assert_close(state.clamp_min(0), x)
    torch.testing.assert_close(state.clamp_max(0), dual)
    code = conic._code(inside, None, 2000).clamp_min(0)
    assert float((mix(conic.dictionary, code) - inside).norm() / inside.norm()) < 1e-3


def test_a_scene_smaller_than_the_subspace_still_fits():
    _, observed, model = make_scene(size=16)
    fused = Conic().fit(observed, model).predict(observed.lrhsi, observed.msi)
    assert bool(fused.isfinite().all())
    assert make_model().ratio == model.ratio


def numbered(n: int, h: int, w: int, s: int) -> PairSample:
    """Blocks whose LR pixels, and all MSI pixels under each, hold its number."""
    low = torch.arange(n * h * w, dtype=torch.float32).view(n, 1, h, w)
    return PairSample(low, low.repeat_interleave(s, 2).repeat_interleave(s, 3), torch.ones(n, h, w, dtype=torch.bool))


def test_the_middle_of_a_block_is_one_window_and_of_a_large_scene_windows_spread_over_it():
    s = 2
    few = middles(numbered(1, 12, 11, s), s, 20 * 20)  # ten LR pixels a side, of twelve and eleven
    assert few.lrhsi.shape == (1, 1, 10, 10)
    assert few.lrhsi[0, 0, 0, 0] == 11 + 0
    large = middles(numbered(1, 60, 30, s), s, 24 * 24)  # twelve a side: nine windows of four
    assert large.lrhsi.shape == (9, 1, 4, 4)
    assert large.lrhsi[:, 0, 0, 0].tolist() == [30 * row + col for row in (8, 28, 48) for col in (3, 13, 23)]
    assert torch.equal(large.msi[:, :, ::s, ::s], large.lrhsi)
    blocks = middles(numbered(9, 20, 20, s), s, 24 * 24)
    assert blocks.lrhsi.shape == (9, 1, 4, 4)
    assert blocks.lrhsi[:, 0, 0, 0].tolist() == [400 * n + 20 * 8 + 8 for n in range(9)]


def test_materials_are_learned_from_a_part_of_a_large_block(scene, monkeypatch):
    """Its own, unless most of it is invalid, and of no more pixels than the limit."""
    _, observed, model = scene
    taught, learn = [], Unmixed.learn
    monkeypatch.setattr(Unmixed, "learn", lambda self, part, model: taught.append(part) or learn(self, part, model))
    Unmixed(endmembers=2, outer=1).fit(observed, model)
    assert taught[0] is observed
    s, most = model.ratio, observed.mask.numel() * model.ratio**2 // 2
    monkeypatch.setattr(blend_file, "LEARNED", most)
    Unmixed(endmembers=2, outer=1).fit(observed, model)
    assert len(taught[1].mask) == 9
    assert most / 2 <= taught[1].mask.numel() * s * s <= most
    hidden = observed.mask.clone()
    for part in _spread_of(observed.mask.shape[1:], taught[1].mask.shape[1]):
        hidden[(0, *part)] = False
    Unmixed(endmembers=2, outer=1).fit(replace(observed, mask=hidden), model)
    assert taught[2].mask is hidden


def _spread_of(shape: tuple[int, ...], side: int) -> list[tuple[slice, ...]]:
    """The nine windows that `middles` takes, by their sides."""
    lines = [[round(n * (2 * i + 1) / 6 - side / 2) for i in range(3)] for n in shape]
    return [(slice(a, a + side), slice(b, b + side)) for a in lines[0] for b in lines[1]]

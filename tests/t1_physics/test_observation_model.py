"""The observation model: its laws (adjoint, flat field, one phase) and an independent loop over pixels."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pretend_gpu import pretend_gpu
from scipy.ndimage import correlate
from torch.nn.functional import interpolate

from hsfuse.core.errors import SettingError
from hsfuse.physics import model as physics
from hsfuse.physics.model import (
    ObservationModel,
    Psf,
    centred_phase,
    decimation_matrix,
    gaussian_psf,
    interpolation_matrix,
)
from hsfuse.physics.optics import sigma_from_mtf

RNG = np.random.default_rng(5)
SRF = RNG.random((3, 7))
CASES = [(s, phase) for s in (2, 3, 4, 5, 8) for phase in (None, 0.0)]


def free_psf(s, phase, taps=4):
    """A random kernel of full rank, with the parity that the phase needs."""
    parity = round(2 * (centred_phase(s) if phase is None else phase) + 1) % 2
    return Psf(RNG.random((2 * taps + parity,) * 2))


def models():
    for s, phase in CASES:
        yield pytest.param(ObservationModel(SRF, gaussian_psf(0.4 * s, s, phase), s, phase), id=f"gauss-{s}-{phase}")
        yield pytest.param(ObservationModel(SRF, free_psf(s, phase), s, phase), id=f"free-{s}-{phase}")


def normal(*shape):
    return torch.from_numpy(RNG.standard_normal(shape))


def mismatch(ax, y, x, aty):
    """|<A x, y> - <x, A' y>| relative to |A x| |y|."""
    return float(((ax * y).sum() - (x * aty).sum()).abs() / (ax.norm() * y.norm()))


@pytest.mark.parametrize("model", [*models()])
def test_adjoint(model):
    s = model.ratio
    x, low = normal(2, 7, 5 * s, 3 * s), normal(2, 7, 5, 3)
    assert mismatch(model.spatial(x), low, x, model.spatial_adjoint(low)) < 1e-15


@pytest.mark.parametrize("s", [2, 4, 8])
@pytest.mark.parametrize("phase", [None, 0.0])
def test_large_images_in_bands_are_what_whole_matrices_give(s, phase):
    taps = free_psf(s, phase)
    model, shape = ObservationModel(SRF, taps, s, phase), (70, 53)
    low, x = normal(2, *shape), normal(2, *(n * s for n in shape))
    terms = model.psf.separable_terms()
    found, wanted = (model.spatial(x), model.spatial_adjoint(low)), [0, 0]
    for pair in terms:
        rows, cols = (
            torch.from_numpy(decimation_matrix(n * s, t, s, model.phase)) for n, t in zip(shape, pair, strict=True)
        )
        wanted = [wanted[0] + rows @ x @ cols.T, wanted[1] + rows.T @ low @ cols]
    rows, cols = (
        torch.from_numpy(interpolation_matrix(n, s, model.phase + c)) for n, c in zip(shape, taps.centre, strict=True)
    )
    for ours, theirs in zip((*found, model.upsample(low)), (*wanted, rows @ low @ cols.T), strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("model", [*models(), ObservationModel(SRF, free_psf(4, None), 4)])
def test_images_by_rows_are_the_same(model, batch):
    low, s = normal(batch, 3, 21, 18), model.ratio
    x = normal(batch, 3, 21 * s, 18 * s)
    found = model.spatial(x.transpose(1, 2), by_rows=True), model.spatial_adjoint(low.transpose(1, 2), by_rows=True)
    for ours, theirs in zip(found, (model.spatial(x), model.spatial_adjoint(low)), strict=True):
        torch.testing.assert_close(ours.transpose(1, 2), theirs)


@pytest.mark.parametrize("model", [*models()])
def test_the_gram_is_down_after_its_adjoint(model):
    low = normal(2, 3, 6, 5)
    found = sum(rows @ low @ cols.T for rows, cols in model.gram(low))
    torch.testing.assert_close(found, model.spatial(model.spatial_adjoint(low)), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("model", [*models()])
def test_a_flat_field_stays_flat(model):
    s = model.ratio
    flat = torch.full((1, 1, 4 * s, 3 * s), 0.37, dtype=torch.float64)
    torch.testing.assert_close(model.spatial(flat), flat[..., :4, :3], rtol=1e-14, atol=0)
    torch.testing.assert_close(model.upsample(flat[..., :4, :3]), flat, rtol=1e-14, atol=0)


@pytest.mark.parametrize("model", [*models()])
def test_against_a_loop_over_pixels(model):
    """Each LR pixel is the kernel's weighted mean around its centre, the border mirrored with its pixel repeated."""
    s, kernel = model.ratio, model.psf.kernel
    k = len(kernel)
    image = RNG.random((4 * s, 3 * s))
    margin = 2 * k + s
    around = np.pad(image, margin, mode="symmetric")
    wanted = np.empty((4, 3))
    for i in range(4):
        for j in range(3):
            top, left = (round(n * s + model.phase - (k - 1) / 2) + margin for n in (i, j))
            wanted[i, j] = (around[top : top + k, left : left + k] * kernel).sum()
    found = model.spatial(torch.from_numpy(image)[None, None])[0, 0]
    np.testing.assert_allclose(found, wanted, rtol=1e-12)


@pytest.mark.parametrize("s", [2, 3, 4, 6])
def test_images_smaller_than_the_kernel(s):
    model = ObservationModel(SRF, gaussian_psf(1.5 * s, s), s)
    image = RNG.random((s, 2 * s))
    margin = 8 * s
    around = np.pad(image, margin, mode="symmetric")
    k = model.psf.size
    first = round(model.phase - (k - 1) / 2) + margin
    wanted = [(around[first : first + k, first + j * s :][:, :k] * model.psf.kernel).sum() for j in range(2)]
    np.testing.assert_allclose(model.spatial(torch.from_numpy(image)[None, None])[0, 0, 0], wanted, rtol=1e-12)


@pytest.mark.parametrize(("ratio", "size"), [(3, 9), (4, 10)])
def test_blurred_anywhere_is_what_pixels_there_see(ratio, size):
    """LR pixels see the blurred image at their own places."""
    model = ObservationModel(np.ones((1, 2)), gaussian_psf(1.3, ratio, size=size), ratio)
    x = torch.rand(1, 2, 8 * ratio, 6 * ratio, generator=torch.Generator().manual_seed(0))
    first = round(model.phase - model.blur_phase)
    torch.testing.assert_close(model.blur(x)[..., first::ratio, first::ratio], model.spatial(x))


def test_the_cave_protocol():
    """Gaussian 7x7, sigma 3, symmetric border, every eighth pixel from 0 (the paper's degradation)."""
    model = ObservationModel(SRF, gaussian_psf(3, 8, phase=0, size=7), 8, phase=0)
    t = np.arange(-3, 4)
    kernel = np.exp(-(t[:, None] ** 2 + t**2) / 18)
    image = RNG.random((64, 40))
    wanted = correlate(image, kernel / kernel.sum(), mode="reflect")[::8, ::8]  # scipy's reflect repeats the border
    np.testing.assert_allclose(model.spatial(torch.from_numpy(image)[None, None])[0, 0], wanted, rtol=1e-13)


@pytest.mark.parametrize("s", [2, 3, 4, 8])
@pytest.mark.parametrize("mtf", [0.1, 0.3, 0.5])
def test_mtf_at_nyquist_is_what_was_asked_for(s, mtf):
    """A wave of the LR sampling's Nyquist frequency, 1 / (2 s), comes out `mtf` times as high."""
    model = ObservationModel(SRF, gaussian_psf(sigma_from_mtf(mtf, s), s), s)
    x = torch.arange(24 * s, dtype=torch.float64)
    wave = torch.cos(torch.pi * (x - model.phase) / s).expand(1, 1, 24 * s, -1)
    seen = model.spatial(wave)[0, 0, 12, 6:-6]
    np.testing.assert_allclose(seen, mtf * (-1.0) ** np.arange(6, 18), atol=2e-3)


@pytest.mark.parametrize(("s", "phase"), [*CASES, (4, 0.5), (4, 2.5), (5, 1.0)])
def test_blur_and_interpolation_agree_where_pixels_are(s, phase):
    """A ramp interpolates to itself and comes back without a shift, inside the borders' reach."""
    model = ObservationModel(SRF, gaussian_psf(0.5 * s, s, phase), s, phase)
    n = 16
    ramp = torch.arange(n * s, dtype=torch.float64).expand(1, 1, n * s, -1)
    low = model.spatial(ramp)
    inner = slice(4, -4)
    np.testing.assert_allclose(low[0, 0, 8, inner], np.arange(n)[inner] * s + model.phase, rtol=1e-12)
    up = model.upsample(low)
    fine = slice(7 * s, -7 * s)
    np.testing.assert_allclose(up[..., fine, fine], ramp[..., fine, fine], rtol=1e-12)
    np.testing.assert_allclose(model.spatial(up)[..., 7:-7, 7:-7], low[..., 7:-7, 7:-7], rtol=1e-12)


@pytest.mark.parametrize("s", [2, 3, 4, 7])
def test_interpolation_reproduces_quadratics(s):
    """Keys 1981: third-order accuracy, which only a = -1/2 has."""
    matrix = interpolation_matrix(12, s, centred_phase(s))
    x = np.arange(12.0)
    at = (np.arange(12 * s) - centred_phase(s)) / s
    inside = slice(3 * s, -3 * s)
    np.testing.assert_allclose((matrix @ (0.3 * x**2 - x + 2))[inside], (0.3 * at**2 - at + 2)[inside], rtol=1e-12)


@pytest.mark.parametrize("s", [2, 3, 4, 5])
def test_interpolation_against_torch(s):
    """torch's antialiased bicubic has the same parameter; its border differs, so the inside is compared."""
    image = normal(1, 1, 14, 12)
    ours = ObservationModel(SRF, gaussian_psf(s, s), s).upsample(image)
    theirs = interpolate(image, scale_factor=s, mode="bicubic", antialias=True, align_corners=False)
    inside = np.s_[..., 2 * s : -2 * s, 2 * s : -2 * s]
    torch.testing.assert_close(ours[inside], theirs[inside], rtol=1e-9, atol=1e-9)


@settings(max_examples=40)
@given(st.integers(2, 9), st.integers(1, 12), st.integers(0, 8), st.integers(1, 9))
def test_decimation_rows_sum_to_the_taps(s, n, phase, taps):
    """Whatever the border does, no weight is lost."""
    phase = min(phase, s - 1) + (0.5 if taps % 2 == 0 else 0.0)
    weights = RNG.random(taps)
    np.testing.assert_allclose(decimation_matrix(n * s, weights, s, phase).sum(axis=1), weights.sum())


@pytest.mark.parametrize(("s", "size"), [(4, 7), (3, 8), (8, 7), (2, 1)])
def test_a_psf_that_cannot_be_centred_is_refused(s, size):
    with pytest.raises(SettingError, match=f"a PSF of {size} taps can't be centred at phase .*ratio {s}"):
        ObservationModel(SRF, gaussian_psf(2, s, size=size), s)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: sigma_from_mtf(0, 4), "MTF at Nyquist is 0,"),
        (lambda: sigma_from_mtf(1, 4), "between 0 and 1"),
        (lambda: sigma_from_mtf(float("nan"), 4), "MTF at Nyquist is nan"),
        (lambda: gaussian_psf(0, 4), "sigma is 0 "),
        (lambda: gaussian_psf(sigma_from_mtf(0.99999, 4), 4), "wanted at least 0.02: an MTF of at most 0.999$"),
        (lambda: gaussian_psf(-1, 4), "positive"),
        (lambda: gaussian_psf(float("nan"), 4), "sigma is nan"),
        (lambda: gaussian_psf(float("inf"), 4), "sigma is inf"),
        (lambda: Psf(np.ones((3, 4))), "square"),
        (lambda: Psf(-np.ones((3, 3))), "positive sum"),
        (lambda: ObservationModel(SRF, gaussian_psf(1, 1), 1), "ratio is 1"),
        (lambda: ObservationModel(SRF, gaussian_psf(2, 4), 4).spatial(torch.ones(1, 1, 8, 9)), "9 pixels can't be"),
    ],
)
def test_settings_that_make_no_sense_are_told(make, said):
    with pytest.raises(SettingError, match=said):
        make()


def test_the_psf_is_what_its_terms_say():
    psf = free_psf(3, None)
    assert psf.kernel.sum() == pytest.approx(1)
    np.testing.assert_allclose(sum(np.outer(a, b) for a, b in psf.separable_terms()), psf.kernel, atol=1e-15)
    assert len(gaussian_psf(2.3, 4).separable_terms()) == 1


def test_samples_and_bands_do_not_mix():
    model = ObservationModel(SRF, gaussian_psf(1.2, 3), 3)
    x = normal(3, 7, 12, 9)
    low, msi = model(x)
    for b in range(3):
        torch.testing.assert_close(model.spatial(x[b : b + 1, 2:3]), low[b : b + 1, 2:3])
    torch.testing.assert_close(msi[:, 1], (torch.from_numpy(SRF[1]).float().double()[:, None, None] * x).sum(1))


@pytest.mark.parametrize("psf", [gaussian_psf(1.2, 3), free_psf(3, None)], ids=["gauss", "free"])
def test_devices_do_not_mix(psf):
    """The same model on the CPU, moved to a GPU, and back: matrices kept for one device aren't used on the other."""
    model = ObservationModel(SRF, psf, 3, msi_weights=np.array([1, 0.5, 1]))
    x = normal(2, 7, 12, 9).float()
    low, msi = model(x)
    wanted = [low, msi, model.spatial_adjoint(low), model.upsample(low)]
    with pretend_gpu() as device:
        model.to(device)
        given = [t.to(device) for t in (x, low)]
        found = [*model(given[0]), model.spatial_adjoint(given[1])]
        found += [model.upsample(given[1]), model.with_srf(model.srf).spectral(given[0])]
        assert all(t.device == device for t in found)
        assert model.with_srf(model.srf).msi_weights.device == device
        for ours, theirs in zip(found, [*wanted, msi], strict=True):
            torch.testing.assert_close(ours.cpu(), theirs)
        model.to("cpu")
    assert all(torch.equal(a, b) for a, b in zip(model(x), (low, msi), strict=True))


def test_another_response_sees_with_the_same_optics():
    model = ObservationModel(SRF, free_psf(4, None), 4)
    basis = RNG.random((7, 2))
    inside = model.with_srf(SRF @ basis)
    a = normal(1, 2, 16, 16)
    x = torch.einsum("ck,bkhw->bchw", torch.from_numpy(basis), a)
    torch.testing.assert_close(inside.spectral(a), model.spectral(x), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(
        torch.einsum("ck,bkhw->bchw", torch.from_numpy(basis), inside.spatial(a)), model.spatial(x)
    )


def test_another_response_s_model_takes_over_the_matrices(monkeypatch):
    """Made anew for every tile they would take longer than the tile."""
    model = ObservationModel(SRF, gaussian_psf(1.2, 3), 3)
    model.upsample(model.spatial(normal(1, 7, 12, 9)))
    for what in ("decimation_matrix", "interpolation_matrix"):
        make = getattr(physics, what)
        monkeypatch.setattr(physics, what, lambda n, *how, make=make: made.append(n) or make(n, *how))
    monkeypatch.setattr(np.linalg, "svd", lambda kernel: pytest.fail("the kernel is taken apart again"))
    made: list[int] = []
    inside = model.with_srf(SRF[:, :2])
    inside.upsample(inside.spatial(normal(1, 2, 12, 9)))
    assert set(made) <= {3}  # the check of the parity, on one LR pixel


def test_gradients_flow_after_use_in_inference_mode():
    """A method may predict before another one trains with the same model."""
    model = ObservationModel(SRF, gaussian_psf(1.2, 3), 3)
    x = torch.ones(1, 1, 9, 9, requires_grad=True)
    with torch.inference_mode():
        model.spatial(x)
        model.upsample(x)
    (model.spatial(x).sum() + model.upsample(x).sum()).backward()
    assert x.grad is not None


def test_no_parameters():
    model = ObservationModel(SRF, gaussian_psf(1.2, 3), 3)
    assert not list(model.parameters())
    assert "ratio 3, phase 1, PSF Gaussian, sigma 1.2 HR pixels" in model.describe()

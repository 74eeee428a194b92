"""Shifts that are known are found, drifts too; what can't tell a shift says so; and pairs end up in place."""

from dataclasses import dataclass, replace
from math import inf
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
from affine import Affine
from rasterio.warp import transform
from rasterio.windows import Window
from waves import EAST, NORTH, UTM32, UTM33, ArrayReader, Waves, square

from hsfuse.calibration import Drift, LocalShift, Shift, estimate_psf, judge, register
from hsfuse.calibration.shift import SMOOTH, Fitted, shift_of_blocks
from hsfuse.calibration.windows import Block, cut, steps
from hsfuse.core.cube import Cube, Spectrum
from hsfuse.core.errors import GridError, InputError
from hsfuse.core.grid import Alignment, Grid
from hsfuse.io import CubeReader
from hsfuse.pair import nest
from hsfuse.pair.nesting import whole_shift
from hsfuse.physics.model import ObservationModel, box_psf, elliptic_psf, gaussian_psf
from hsfuse.physics.optics import sigma_from_mtf

RNG = np.random.default_rng(11)
FIRST = RNG.bit_generator.state
SHIFTS = [(0.0, 0.0), (0.1, -0.07), (-0.5, 0.5), (1.3, -0.8), (-3.0, 2.6)]


@pytest.fixture(autouse=True)
def fresh():
    """Each test draws the same numbers, whichever ran before it."""
    RNG.bit_generator.state = FIRST


def model_of(s, bands=3):
    return ObservationModel(np.eye(bands), gaussian_psf(sigma_from_mtf(0.3, s), s), s)


def noisy(image, snr):
    """The image with white noise `snr` dB below its power (None: without)."""
    sd = 0 if snr is None else np.sqrt(np.square(image).mean() * 10 ** (-snr / 10))
    return (image + RNG.standard_normal(image.shape) * sd).astype(np.float32)


def seen(s, shape, shift=(0.0, 0.0), snr=None, seed=0, bands=3):
    """LRHSI (c, h, w) whose content lies `shift` LR pixels off, and MSI (c, h s, w s); pixels of 10 units."""
    scene, grid = Waves(bands, seed=seed), square(10 * s, shape)
    low = scene.on(grid, sigma_from_mtf(0.3, s) * 10, (shift[1] * 10 * s, -shift[0] * 10 * s))
    return noisy(low, snr), noisy(scene.on(grid.refine(s)), None if snr is None else snr + 5)


def block_of(low, high, mask=None, msi_mask=None):
    masks = (np.ones(x.shape[1:], bool) if m is None else m for x, m in ((low, mask), (high, msi_mask)))
    return Block(low, high, *masks)


def shift_of(low, high, model, mask=None, msi_mask=None, smooth=0.0):
    return shift_of_blocks([block_of(low, high, mask, msi_mask)], model, smooth)


@pytest.mark.parametrize("s", [2, 3, 5])
def test_a_view_without_shift_is_the_observation_model(s):
    low, high = seen(s, (20, 17))
    view = block_of(low, high).view(model_of(s), (0.0, 0.0))
    wanted = model_of(s).spatial(torch.from_numpy(high)[None])[0].numpy()
    assert view.valid[2:-2, 2:-2].all()
    np.testing.assert_allclose(view.data[:, 2:-2, 2:-2], wanted[:, 2:-2, 2:-2], atol=1e-6)


def test_a_view_takes_any_kernel():
    kernel = RNG.random((6, 6))
    psf = replace(gaussian_psf(1, 4), kernel=kernel / kernel.sum(), label="free")
    model = ObservationModel(np.eye(3), psf, 4)
    low, high = seen(4, (12, 12))
    view = block_of(low, high).view(model, (0.0, 0.0))
    wanted = model.spatial(torch.from_numpy(high)[None])[0].numpy()
    np.testing.assert_allclose(view.data[:, 1:-1, 1:-1], wanted[:, 1:-1, 1:-1], atol=1e-6)


@pytest.mark.parametrize("shift", [(0.3, -0.4), (-1.2, 0.6), (2.0, 3.0)])
def test_a_view_is_shifted_and_knows_its_slope(shift):
    low, high = seen(4, (30, 26), shift)
    block, e = block_of(low, high), 0.01
    view = block.view(model_of(4), shift)
    assert np.abs(view.data - low)[:, view.valid].max() < 2e-3
    for axis, slope in enumerate((view.down, view.right)):
        ends = [block.view(model_of(4), (shift[0] + by * (1 - axis), shift[1] + by * axis)).data for by in (e, -e)]
        change = (ends[0] - ends[1]) / (2 * e)
        np.testing.assert_allclose(slope[:, view.valid], change[:, view.valid], atol=2e-3)


def test_invalid_msi_pixels_take_no_part_in_a_view():
    low, high = seen(3, (24, 24))
    hole = np.ones((72, 72), bool)
    hole[30:40, 20:50] = False
    spoilt = np.where(hole, high, 1e4).astype(np.float32)
    view = replace(block_of(low, spoilt), msi_mask=hole).view(model_of(3), (0.2, 0.1))
    clean = block_of(low, high).view(model_of(3), (0.2, 0.1))
    assert not view.valid[11:13, 7:16].any()
    assert clean.valid.sum() > view.valid.sum() > clean.valid.sum() - 150
    for name in ("data", "down", "right"):
        np.testing.assert_allclose(getattr(view, name)[:, view.valid], getattr(clean, name)[:, view.valid], atol=0.02)


@pytest.mark.parametrize("shift", SHIFTS, ids=str)
@pytest.mark.parametrize(("s", "shape", "snr", "within"), [
    (2, (40, 36), None, 0.01), (3, (24, 20), None, 0.01), (4, (40, 40), None, 0.005), (4, (40, 40), 35, 0.02),
    (3, (24, 20), 35, 0.04), (6, (30, 30), 25, 0.05),
])  # fmt: skip
def test_a_known_shift_is_found(s, shape, snr, within, shift):
    found = shift_of(*seen(s, shape, shift, snr), model_of(s))
    assert (found.dy, found.dx) == pytest.approx(shift, abs=within)
    assert found.sd < within
    assert found.correlation > 0.95
    assert found.windows == len(found.field) >= 4


def test_a_shift_beyond_the_limit_is_found_and_refused():
    found = shift_of(*seen(4, (48, 48), (6.4, -5.2), 35), model_of(4))
    assert (found.dy, found.dx) == pytest.approx((6.4, -5.2), abs=0.02)
    with pytest.raises(GridError, match=r"by 8\.2\d LR pixels .*at most 3 are corrected"):
        judge(found, 4)


def test_the_error_is_as_large_as_is_said():
    errors, said = [], []
    for seed in range(12):
        found = shift_of(*seen(3, (30, 30), (0.3, -0.2), 25, seed), model_of(3))
        errors += [found.dy - 0.3, found.dx + 0.2]
        said.append(found.sd)
    assert 0.5 < np.sqrt(np.mean(np.square(errors))) / np.median(said) < 2


def test_gain_offset_and_noise_of_the_bands_do_not_matter():
    low, high = seen(4, (40, 40), (0.4, -0.6), 35)
    low = low * np.array([0.3, 2.0, 1.0], np.float32)[:, None, None] + np.float32(0.2)
    low[2] = RNG.random(low[2].shape)  # one band has nothing to do with the MSI's
    found = shift_of(low, high, model_of(4))
    assert (found.dy, found.dx) == pytest.approx((0.4, -0.6), abs=0.02)


@pytest.mark.parametrize("shift", [(0.25, -0.3), (0.5, 0.1)], ids=str)
def test_what_a_warp_leaves_is_measured_without_the_detail_it_spoils(shift):
    """Sharp-edged roofs: much of an LR pixel's detail is aliased, which a warp can't move rightly."""
    s, n = 3, 48
    roofs = np.kron(RNG.random((2, 36, 36)), np.ones((4, 4))).astype(np.float32)
    every = np.ones((n, n), bool)
    view = block_of(np.zeros((2, n, n), np.float32), roofs).view(model_of(s, 2), shift)
    low = np.where(view.valid, view.data, np.nan)
    nesting = nest(Grid((n, n)), Grid((s * n, s * n)), Affine.translation(shift[1] * s, shift[0] * s))
    cube = nesting.present(ArrayReader(low, Grid((n, n)))).read()
    sharp = shift_of(cube.data, roofs, model_of(s, 2), cube.mask)
    found = shift_of(cube.data, roofs, model_of(s, 2), cube.mask, every.repeat(s, 0).repeat(s, 1), smooth=SMOOTH)
    assert found.length * s < 0.1 < sharp.length * s
    assert found.correlation > 0.95


@pytest.mark.parametrize("masked", [True, False])
def test_clouds_in_one_image(masked):
    low, high = seen(4, (60, 60), (0.7, 1.4), 35)
    clear = np.ones((60, 60), bool)
    clear[5:18, 8:30], clear[40:50, 35:58] = False, False
    low = np.where(clear, low, np.float32(0.9))
    found = shift_of(low, high, model_of(4), clear if masked else None)
    assert (found.dy, found.dx) == pytest.approx((0.7, 1.4), abs=0.02 if masked else 0.05)


@pytest.mark.parametrize("what", ["flat", "flat with noise", "unlike", "masked", "tiny"])
def test_what_can_not_tell_a_shift_says_so(what):
    low, high = seen(4, (40, 40), (0.5, 0.5))
    mask = np.full(low.shape[1:], what != "masked")
    if what == "flat":
        low, high = np.full_like(low, 0.3), np.full_like(high, 0.3)
    elif what == "flat with noise":
        low, high = noisy(np.full_like(low, 0.3), 30), noisy(np.full_like(high, 0.3), 30)
    elif what == "unlike":
        high = seen(4, (40, 40), seed=5)[1]
    elif what == "tiny":
        low, high, mask = low[:, :5, :5], high[:, :20, :20], mask[:5, :5]
    found = shift_of(low, high, model_of(4), mask)
    verdict = judge(found, 4)
    assert not verdict.correct
    assert verdict.motion == Affine.identity()
    assert "too uncertain" in verdict.note
    if what in ("flat", "masked", "tiny"):
        assert found.sd == inf
        assert "can't be told" in found.describe()


def test_a_drift_is_found_and_drawn():
    """The LRHSI turned by 0.3 degrees and 0.4 % too large: up to 0.2 pixels off, differently everywhere."""
    s, n = 4, 60
    grid, scene = square(40, (n, n)), Waves()
    off = Affine.rotation(0.3, pivot=(EAST, NORTH)) @ Affine.translation(EAST, NORTH) @ Affine.scale(1.004)
    off = off @ Affine.translation(-EAST, -NORTH)
    placed = replace(grid, transform=off @ grid.transform)
    low = noisy(scene.on(placed, sigma_from_mtf(0.3, s) * 10), 40)
    found = shift_of(low, scene.on(grid.refine(s)), model_of(s))
    assert found.drift is not None
    assert found.drifting > 0.2
    corner = np.subtract(found.drift.at(n, n), found.drift.at(0, 0))
    assert found.drift_over_scene == pytest.approx(np.hypot(*corner), abs=0.02)
    sheared = replace(found, drift=Drift((0.0, 0.0, 0.0), (0.3, 1 / n, 0.0)))
    assert sheared.drifting < 0.9  # between windows' middles
    assert "drifting by up to 1.00 over the scene" in sheared.describe()
    for row, col in ((5, 5), (5, 55), (55, 5), (30, 30)):
        # What the LRHSI has at (row, col) the MSI has at (y, x): there the LRHSI's content lies off by the difference.
        x, y = ~grid.transform @ (placed.transform @ (col, row))
        assert found.drift.at(y, x) == pytest.approx((row - y, col - x), abs=0.02)
    np.testing.assert_allclose([(w.dy, w.dx) for w in found.field],
                               [found.drift.at(w.row, w.col) for w in found.field], atol=0.03)  # fmt: skip
    motion = judge(found, s).motion
    col, row = motion @ (s * 7.0, s * 20.0)
    assert (row / s - 20, col / s - 7) == pytest.approx(found.drift.at(20, 7), abs=1e-9)
    moved = judge(found, s).motion_on(Window(30, 50, 240, 240)) @ (30 + s * 7.0, 50 + s * 20.0)
    assert moved == pytest.approx((col + 30, row + 50))


def test_a_window_whose_shift_changes_within_it_tells_that_of_its_middle():
    """Of half a pixel over 12 rows, in windows of 4 x 4 whose detail lies anywhere."""
    s, n, slope = 8, 12, -0.5 / 11
    grid, scene = square(80, (n, n)), Waves()
    placed = replace(grid, transform=grid.transform @ Affine(1, -slope, 0, 0, 1, 0))
    block = block_of(scene.on(placed, sigma_from_mtf(0.3, s) * 10), scene.on(grid.refine(s)))
    windows = cut(block, model_of(s), (0.0, 0.0))
    true = np.array([(0.0, slope * window.row) for window in windows])
    off = []
    for change in (np.zeros((2, 2)), np.array([[0, 0], [slope, 0]])):
        off.append(np.abs(steps(windows, model_of(s), true, change=change).shift - true).max())
    assert off[1] < min(0.012, off[0] / 3)


def windows_of(function, n=4, spread=0.0):
    places = [(i * 20.0, j * 20.0) for i in range(n) for j in range(n)]
    return [LocalShift(r, c, *(v + spread * RNG.standard_normal() for v in function(r, c)), 0.01) for r, c in places]


def fitted(field, k=1):
    design = np.array([(1, w.row, w.col)[:k] for w in field])
    info = np.array([np.eye(2) / w.sd**2 for w in field])
    return Fitted.of(design, np.array([(w.dy, w.dx) for w in field]), info)


def test_windows_are_combined_without_outliers():
    field = windows_of(lambda r, c: (0.4, -0.1), spread=0.01)
    field[3], field[9] = replace(field[3], dy=3.0), replace(field[9], dx=-2.0)
    fit = fitted(field)
    assert fit.coefficients[0] == pytest.approx((0.4, -0.1), abs=0.015)
    assert 0.001 < np.sqrt(np.diag(fit.covariance)).max() < 0.01
    assert fit.spread < 0.01
    np.testing.assert_allclose(fit.held_out, np.broadcast_to((0.4, -0.1), (16, 2)), atol=0.02)


def test_windows_that_disagree_are_less_sure_than_they_claim():
    errors, said = [], []
    for _ in range(60):
        fit = fitted(windows_of(lambda r, c: (0.4, -0.1), n=3, spread=0.2))
        errors.append(fit.coefficients[0] - (0.4, -0.1))
        said.append(np.sqrt(np.diag(fit.covariance)))
        assert fit.errors.min() > 0.05
    assert 0.6 < np.sqrt(np.mean(np.square(errors))) / np.mean(said) < 1.6


def test_a_window_that_knows_one_direction_tells_that_one():
    """Edges that run across: what a window can't tell, others do."""
    info = np.array([np.diag([1e4, 0.05]), np.diag([1e4, 0.05]), np.diag([0.05, 1e4]), np.diag([0.05, 1e4])])
    shift = np.array([(0.3, -2.0), (0.3, 3.0), (5.0, 0.1), (-4.0, 0.1)])
    fit = Fitted.of(np.ones((4, 1)), shift, info)
    assert fit.coefficients[0] == pytest.approx((0.3, 0.1), abs=0.01)


def test_a_drift_is_held_out_as_well():
    field = windows_of(lambda r, c: (0.1 + 0.002 * r, 0.2 - 0.003 * c), spread=0.005)
    field[5] = replace(field[5], dy=2.0)
    fit = fitted(field, 3)
    assert fit.coefficients.T[0] == pytest.approx((0.1, 0.002, 0), abs=0.01)
    assert fit.held_out[5] == pytest.approx((0.14, 0.14), abs=0.02)


def edges(shift, n=40, s=4, changed=0.0):
    """LRHSI and MSI of which a share of the columns shows other ground."""
    low, high = seen(s, (n, n), shift, 30)
    cut = round(changed * n)
    high[:, :, : cut * s] = seen(s, (n, n), seed=8)[1][:, :, : cut * s]
    return low, high


def test_no_drift_where_windows_only_disagree():
    """Half of the ground has changed, so that its windows are somewhere: nothing drifts, and what is left agrees."""
    found = shift_of(*edges((0.0, 0.0), changed=0.5), model_of(4))
    assert found.drift is None
    assert not judge(found, 4).correct
    moved = shift_of(*edges((0.4, -0.3), changed=0.3), model_of(4))
    assert (moved.dy, moved.dx) == pytest.approx((0.4, -0.3), abs=0.03)
    assert judge(moved, 4).correct


@pytest.mark.parametrize("n", [10, 12, 14])
def test_a_small_scene_has_a_place_too(n):
    low, high = seen(8, (n, n), (0.13, -0.2), 35)
    found = shift_of(low, high, model_of(8))
    assert (found.dy, found.dx) == pytest.approx((0.13, -0.2), abs=0.02)
    assert judge(found, 8).correct
    still = shift_of(*seen(8, (n, n), snr=35), model_of(8))
    assert not judge(still, 8).correct


def test_no_place_counts_twice():
    """Blocks of a scene between one and three sides long share no pixel."""
    hsi, msi = square(20, (300, 200)), square(10, (600, 400))
    low, high = (np.zeros((1, *grid.shape), np.float32) for grid in (hsi, msi))
    pair = opened(nest(hsi, msi), ArrayReader(low, hsi), ArrayReader(high, msi), np.eye(1))
    register(pair)
    count = np.zeros(hsi.shape, int)
    for window in pair.windows[::2]:
        count[window.toslices()] += 1
    assert (count == 1).all()


def test_verdicts():
    shift = Shift(0.5, -0.2, 0.01, 9, 0.99)
    verdict = judge(shift, 4)
    assert verdict.correct
    assert verdict.motion == Affine.translation(-0.8, 2.0)
    assert verdict.motion_on(Window(5, 9, 40, 40)).almost_equals(verdict.motion)
    assert "+0.500 rows, -0.200 columns" in verdict.note
    for small in (replace(shift, dy=0.02, dx=0.0, sd=0.001), replace(shift, sd=0.24, dy=0.3)):
        assert not judge(small, 4).correct
    assert not judge(replace(shift, windows=2), 4).correct
    assert "don't correlate better" in judge(replace(shift, borne_out=False), 4).note
    assert not judge(replace(shift, dy=4.2, borne_out=False), 4).correct
    with pytest.raises(GridError, match=r"by 4.20 LR pixels \(\+4.20 rows, .*at most 3 .*--register off"):
        judge(replace(shift, dy=4.2, dx=0.0), 4)
    assert judge(replace(shift, dy=4.2), 4, limit=5).correct
    assert not judge(replace(shift, dy=4.2, sd=inf, windows=0), 4).correct
    drift = Drift((0.0, 0.01, 0.0), (0.0, 0.0, 0.0))
    drifting = replace(shift, dy=0.0, dx=0.0, drift=drift, field=tuple(windows_of(lambda r, c: (r / 100, 0.0))))
    assert judge(drifting, 4).correct
    assert "drift" in judge(drifting, 4).note


@dataclass
class OpenPair:
    """What `register` wants: readers, windows, model; every window that was read is written down."""

    hsi: CubeReader
    msi: CubeReader
    alignment: Alignment
    model: ObservationModel

    def __post_init__(self):
        self.windows = []

    @property
    def lr_shape(self):
        return self.alignment.lr_grid.shape

    def _read(self, reader, window, into) -> Cube:
        self.windows.append(window)
        return reader.read(Window(into.col_off + window.col_off, into.row_off + window.row_off, window.width,
                                  window.height))  # fmt: skip

    def read_lr(self, window):
        return self._read(self.hsi, window, self.alignment.hsi_window)

    def read_hr(self, window):
        return self._read(self.msi, window, self.alignment.msi_window)


def opened(nesting, hsi, msi, response):
    psf = gaussian_psf(nesting.psf_sigma(sigma_from_mtf(0.3, nesting.real_ratio)), nesting.ratio)
    return OpenPair(nesting.present(hsi), msi, nesting.alignment, ObservationModel(response, psf, nesting.ratio))


def turned_to(crs):
    x, y = transform(UTM33, crs, [EAST], [NORTH])
    return x[0], y[0]


@pytest.mark.parametrize(
    "hsi",
    [square(40, (64, 64)), square(29, (80, 80)), square(33, (70, 70)), square(40, (64, 64), turn=12),
     square(41, (64, 64), turned_to(UTM32), crs=UTM32)],
    ids=["nested", "2.9", "3.3", "12 degrees", "zone 32"],
)  # fmt: skip
@pytest.mark.parametrize("shift", [(0.0, 0.0), (0.3, -0.4), (2.2, 1.6)], ids=str)
def test_pairs_end_up_in_place(hsi, shift):
    """Open, nest, look, judge, nest again: one warp from the file, and less than 0.1 MSI pixel is left."""
    scene, msi = Waves(5, count=90), square(10, (280, 280))
    response = np.array([[0.6, 0.4, 0, 0, 0], [0, 0, 0.5, 0.5, 0], [0, 0, 0, 0.1, 0.9]])
    first = nest(hsi, msi)
    moved = shift[1] * 10 * first.real_ratio, -shift[0] * 10 * first.real_ratio  # shift in HSI pixels
    low = noisy(scene.on(hsi, sigma_from_mtf(0.3, first.real_ratio) * 10, moved), 35)
    high = noisy(np.tensordot(response, scene.on(msi), 1), 40)
    files = ArrayReader(low, hsi), ArrayReader(1.3 * high + 0.05, msi, Spectrum(None))
    found = register(opened(first, *files, response), first.warped)
    wanted = np.array(shift) * first.real_ratio
    np.testing.assert_allclose(np.array([found.dy, found.dx]) * first.ratio, wanted, atol=0.15)
    verdict = judge(found, first.ratio)
    if shift == (0, 0):
        assert not verdict.correct
        return
    last = nest(hsi, msi, verdict.motion_on(first.alignment.msi_window))
    left = register(opened(last, *files, response), last.warped)
    assert np.hypot(left.dy, left.dx) * last.ratio < 0.1
    # And against the truth, not only by its own judgement.
    exact = scene.on(last.lr_grid, last.psf_sigma(sigma_from_mtf(0.3, last.real_ratio)) * 10)
    cube = last.present(files[0]).read()
    place = last.alignment.hsi_window.toslices()
    data, mask = cube.data[:, *place], cube.mask[place]
    fit = replace(block_of(data, exact.repeat(2, 1).repeat(2, 2)), lr_mask=mask)
    flat = ObservationModel(np.eye(5), replace(gaussian_psf(1, 2), kernel=np.full((2, 2), 0.25)), 2)
    true = shift_of(fit.lr, fit.msi, flat, mask)
    assert np.hypot(true.dy, true.dx) * last.ratio < 0.1


@pytest.mark.parametrize(("off", "size", "whole"), [
    (2, 80, (2, 2)), (-2, 80, (-2, -2)), (0, 80, (0, 0)), (20, 120, (2, 2)),
], ids=["header", "header back", "same extent", "within"])  # fmt: skip
def test_a_shift_is_made_whole_without_losing_lr_pixels(off, size, whole):
    """Of 20 x 20 LR pixels at `off` in an MSI, which is shifted by (2, 2), or (-2, -2), MSI pixels."""
    lr = square(40, (20, 20))
    msi = Grid((size, size), lr.refine(4).transform @ Affine.translation(-off, -off), UTM33)
    sign = -1 if off == -2 else 1
    found = whole_shift(lr, msi, Affine.translation(sign * 2.03, sign * 1.98))
    assert (found.f, found.c) == whole
    assert nest(lr, msi, found).lr_grid.shape == (20, 20)


def test_a_large_scene_is_looked_at_in_few_bounded_blocks():
    hsi, msi = square(20, (500, 300)), square(10, (1000, 600))
    scene = Waves(1, count=30)
    low, high = scene.on(hsi, 10, (9, 5)), scene.on(msi)
    low[:, :200] = np.nan
    pair = opened(nest(hsi, msi), ArrayReader(low, hsi), ArrayReader(high, msi), np.eye(1))
    found = register(pair)
    assert (found.dy, found.dx) == pytest.approx((-0.25, 0.45), abs=0.01)
    assert max(w.width * w.height for w in pair.windows) <= 256 * 256
    assert len(pair.windows) <= 18
    assert max(local.row for local in found.field) > 400
    assert min(local.row for local in found.field) > 190
    low[:] = np.nan
    assert register(opened(nest(hsi, msi), ArrayReader(low, hsi), ArrayReader(high, msi), np.eye(1))).sd == inf


@pytest.mark.slow
def test_two_hundred_registered_pairs_are_left_alone():
    """Crops of a real scene through a PSF that is estimated along, at any ratio and noise: no shift, no drift."""
    path = Path(__file__).parents[2] / "examples" / "data" / "indian_pines_reference.tif"
    with rasterio.open(path) as file:
        cube = file.read().astype(np.float32)
    bands = np.stack([part.mean(0) for part in np.array_split(cube, 4)])
    bands /= bands.std((1, 2), keepdims=True)
    wrong, lengths = [], []
    for draw in range(200):
        rng = np.random.default_rng(draw)
        s = int(rng.choice([2, 3, 4, 6, 8]))
        side = int(rng.integers(12, 1 + min(40, 144 // s))) * s
        top, left = rng.integers(0, 145 - side, 2)
        high = bands[:, top : top + side, left : left + side]
        widths = rng.uniform(0.3, 0.65, 2) * s
        psf = [box_psf(s), gaussian_psf(widths[0], s), elliptic_psf(*widths, rng.uniform(-45, 45), s)][draw % 3]
        low = ObservationModel(np.eye(4), psf, s).spatial(torch.from_numpy(high)[None])[0].numpy()
        noise = 10 ** (-rng.uniform(20, 40) / 20)
        low, seen_high = (image + (noise * by * rng.standard_normal(image.shape)).astype(np.float32)
                          for image, by in ((low, 1), (high, 0.56)))  # fmt: skip
        images = (torch.from_numpy(x)[None].double() for x in (low, seen_high))
        try:
            psf = estimate_psf(*images, torch.ones(1, *low.shape[1:], dtype=torch.bool), np.eye(4), s).psf
        except InputError:
            psf = gaussian_psf(sigma_from_mtf(0.3, s), s)
        found = shift_of(low, seen_high, ObservationModel(np.eye(4), psf, s))
        lengths.append(found.length)
        if judge(found, s).correct:
            wrong.append((draw, s, side // s, found.describe()))
    assert not [one for one in wrong if "drifting" in one[3]]
    assert not wrong
    assert np.median(lengths) < 0.01

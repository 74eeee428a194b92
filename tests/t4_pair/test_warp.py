"""One warp onto a nested grid: exact, whatever the window, without bleeding; and which grid is chosen."""

import pickle

import numpy as np
import pytest
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.crs import CRS
from rasterio.warp import transform
from rasterio.windows import Window
from waves import EAST, NORTH, UTM32, UTM33, WGS84, ArrayReader, Waves, square

from hsfuse.core.errors import GridError, InputError
from hsfuse.core.grid import Distortion, Grid, Motion, align
from hsfuse.io import usable_bands
from hsfuse.pair import PixelMap, WarpedReader, nest, resampling_variance
from hsfuse.pair.mapping import lattice
from hsfuse.pair.nesting import gap_km, keys_transfer, keys_weights
from hsfuse.physics.model import elliptic_psf
from hsfuse.physics.optics import sigma_from_mtf

MSI = square(10, (240, 240))
UTM1, UTM60 = CRS.from_epsg(32601), CRS.from_epsg(32660)


def place(crs, east=EAST, north=NORTH, of=UTM33):
    x, y = transform(of, crs, [east], [north])
    return x[0], y[0]


def flipped(grid):
    turn = Affine.translation(0, grid.shape[0]) @ Affine.scale(1, -1)
    return Grid(grid.shape, grid.transform @ turn, grid.crs)


#: HSI grids whose pixels are about 30 units, over the middle of the MSI.
GRIDS = {
    "ratio 2.9": square(29, (70, 70)),
    "ratio 3.3": square(33, (66, 64)),
    "ratio 2.5": square(25, (70, 70)),
    "29.9 x 30.1": square(30.1, (70, 70), aspect=29.9 / 30.1),
    "12 degrees": square(30, (70, 70), turn=12),
    "91 degrees": square(30, (70, 70), turn=91),
    "half a pixel off": square(30, (70, 70), (EAST + 15, NORTH + 15)),
    "south up": flipped(square(30, (70, 70), (EAST + 4, NORTH + 3))),
    "zone 32": square(30, (70, 70), place(UTM32), crs=UTM32),
    "degrees": square(0.0003, (70, 96), place(WGS84), crs=WGS84),
}


def coordinates(grid, source):
    """Exact places (row, col; corners) of a grid's pixel centres on the source's pixels, by PROJ."""
    rows, cols = np.mgrid[: grid.shape[0], : grid.shape[1]] + 0.5
    x, y = grid.transform @ (cols, rows)
    if grid.crs != source.crs:
        x, y = (np.reshape(v, grid.shape) for v in transform(grid.crs, source.crs, x.ravel(), y.ravel()))
    col, row = ~source.transform @ (x, y)
    return row, col


def convolved(plane, rows, cols):
    """Keys' cubic convolution, point by point."""
    r, c = rows - 0.5, cols - 0.5
    wr, wc = keys_weights(r % 1), keys_weights(c % 1)
    taps = np.arange(-1, 3)
    r = np.clip(np.floor(r).astype(int) + taps[:, None, None], 0, plane.shape[0] - 1)
    c = np.clip(np.floor(c).astype(int) + taps[:, None, None], 0, plane.shape[1] - 1)
    return np.einsum("ihw,jhw,ijhw->hw", wr, wc, plane[r[:, None], c[None]].astype(float))


def interior(rows, cols, shape, by=2.5):
    return (rows > by) & (rows < shape[0] - by) & (cols > by) & (cols < shape[1] - by)


@pytest.fixture(scope="module")
def rough():
    """Noise on each of the grids: the hardest to interpolate alike."""
    rng = np.random.default_rng(3)
    return {name: rng.random((3, *grid.shape), dtype=np.float32) for name, grid in GRIDS.items()}


def test_the_scene_of_these_tests_is_one_however_it_is_computed():
    scene, grid = Waves(), square(10, (40, 30), turn=12)
    rows, cols = np.mgrid[:40, :30] + 0.5
    x, y = grid.transform @ (cols, rows)
    np.testing.assert_allclose(scene.on(grid, 7.0, (3, -4)), scene.at(x - 3, y + 4, 7.0), atol=1e-6)


@pytest.mark.parametrize("name", GRIDS)
def test_values_are_cubic_convolution_at_the_exact_place(name, rough):
    source = ArrayReader(rough[name], GRIDS[name])
    nesting = nest(source.grid, MSI)
    cube = nesting.present(source).read()
    rows, cols = coordinates(nesting.lr_grid, source.grid)
    inside = interior(rows, cols, source.grid.shape)
    assert cube.mask[inside].all()
    assert inside.mean() > 0.6
    # Across CRSs GDAL follows the map by straight lines within some 1e-4 pixel.
    close = 1e-5 if source.grid.crs == UTM33 else 1e-3
    wanted = convolved(rough[name][1], rows, cols)
    np.testing.assert_allclose(cube.data[1][inside], wanted[inside], atol=close)


@pytest.mark.parametrize("name", ["ratio 2.9", "12 degrees", "zone 32", "degrees"])
def test_a_pixel_does_not_depend_on_the_window(name, rough):
    data = rough[name].copy()
    data[:, 20:24, 30:33] = np.nan
    source = ArrayReader(data, GRIDS[name])
    warped = nest(source.grid, MSI).present(source)
    whole = warped.read()
    h, w = warped.grid.shape
    windows = [
        Window(0, 0, w, 1),
        Window(w - 1, 0, 1, h),
        Window(31, 33, 5, 7),
        Window(15, 14, 40, 36),
        Window(9, 8, 1, 1),
    ]
    for window in windows:
        part = warped.read(window, [2, 0])
        rows, cols = window.toslices()
        np.testing.assert_allclose(part.data, whole.data[[2, 0]][:, rows, cols], atol=1e-6)
        np.testing.assert_array_equal(part.mask, whole.mask[rows, cols])
        assert part.grid.transform.almost_equals(warped.grid.window(window).transform)


@pytest.mark.parametrize("name", ["half a pixel off", "12 degrees", "zone 32"])
def test_masked_pixels_do_not_bleed(name):
    scene, grid = Waves(), GRIDS[name]
    clean = scene.on(grid, 15)
    holes = np.zeros(grid.shape, bool)
    holes[30:36, 28:40], holes[50, 20], holes[10:12, 40] = True, True, True
    dirty = np.where(holes, np.float32(9e3), clean)
    for bad in (np.where(holes, np.nan, clean), dirty):
        source, whole = ArrayReader(bad, grid), ArrayReader(clean, grid)
        if np.isfinite(bad).all():
            source.nodata_values = [9e3] * 3
        nesting = nest(grid, MSI)
        got, wanted = nesting.present(source).read(), nesting.present(whole).read()
        assert (got.data[:, ~got.mask] == 0).all()
        rows, cols = coordinates(nesting.lr_grid, grid)
        nearest = holes[rows.astype(int).clip(0, 69), cols.astype(int).clip(0, 69)]
        assert not got.mask[nearest].any()
        error = np.abs(got.data - wanted.data)[:, got.mask]
        assert error.max() < 0.1 * clean.std()
        assert wanted.mask.sum() > got.mask.sum() > wanted.mask.sum() - 5 * holes.sum()


def test_pixels_beyond_the_source_are_masked_and_only_those():
    grid = square(30, (40, 40), (EAST + 7, NORTH - 4), turn=30)
    nesting = nest(grid, MSI)
    cube = nesting.present(ArrayReader(np.ones((1, 40, 40), np.float32), grid)).read()
    rows, cols = coordinates(nesting.lr_grid, grid)
    assert cube.mask[interior(rows, cols, grid.shape, 0.51)].all()
    assert not cube.mask[~interior(rows, cols, grid.shape, 0.3)].any()
    np.testing.assert_allclose(cube.data[0][cube.mask], 1, atol=1e-5)


def test_what_is_known_of_the_file_is_passed_on():
    data = np.random.default_rng(0).random((4, 70, 70), dtype=np.float32)
    data[1], data[:, 5, 5] = np.nan, np.inf
    source = ArrayReader(data, GRIDS["ratio 2.9"], good=(True, False, True, True))
    source.scales, source.dtype, source.notes = np.full(4, 1e-4), "int16", ["said"]
    nesting = nest(source.grid, MSI)
    with nesting.present(source) as warped:
        assert warped.grid == nesting.lr_grid
        for name in ("path", "files", "driver", "dtype", "spectrum", "scale", "quantity", "tags", "notes", "count"):
            assert getattr(warped, name) == getattr(source, name)
        warped.read(bands=[0, 2])
        assert warped.nonfinite == 1
        assert usable_bands(warped).tolist() == [True, False, True, True]
        with pytest.raises(InputError, match="isn't inside"):
            warped.read(Window(0, 0, 1000, 1000))
    assert not source.data.size


def test_sample_is_a_coarse_look_at_the_same_ground():
    scene, grid = Waves(bands=2, finest=60), GRIDS["12 degrees"]
    data = scene.on(grid)
    data[1] = np.nan
    warped = nest(grid, MSI).present(ArrayReader(data, grid))
    values, valid = warped.sample([0, 1], (20, 16))
    assert values.shape == valid.shape == (2, 20, 16)
    assert not valid[1].any()
    place = warped.grid.transform @ Affine.scale(warped.grid.shape[1] / 16, warped.grid.shape[0] / 20)
    wanted = scene.on(Grid((20, 16), place, UTM33))[0]
    assert valid[0].mean() > 0.75
    assert np.corrcoef(values[0][valid[0]], wanted[valid[0]])[0, 1] > 0.9


def test_reading_is_bounded_whatever_the_window():
    grid = square(30, (900, 900), turn=40)
    source = ArrayReader(np.ones((1, 900, 900), np.float32), grid)
    warped = nest(grid, square(10, (2400, 2400))).present(source)
    warped.read(Window(0, 0, warped.grid.shape[1], 32))
    assert 0 < source.most_read < 40_000


@pytest.mark.parametrize("name", GRIDS)
def test_the_psf_after_the_warp_is_as_wide_as_claimed(name):
    """Among Gaussians the one nearest to what came out of the warp has the width that is said."""
    scene, grid, units = Waves(count=150), GRIDS[name], 10
    nesting = nest(grid, MSI)
    sensor = nesting.pixel @ nesting.pixel.T * sigma_from_mtf(0.3, 1) ** 2
    if max(nesting.real_ratios) > 1.1 * min(nesting.real_ratios):
        return  # the scene is blurred by round Gaussians only
    sigma = np.sqrt(np.trace(sensor) / 2)
    cube = nesting.present(ArrayReader(scene.on(grid, sigma * units), grid)).read()
    trials = np.array([0.9, 1.1, 1.3]) * sigma
    error = [np.square(scene.on(nesting.lr_grid, t * units) - cube.data)[:, cube.mask].mean() for t in trials]
    curve = np.polyfit(trials, error, 2)
    assert nesting.psf_sigma(sigma) == pytest.approx(
        -curve[1] / (2 * curve[0]), rel=0.08 if name == "ratio 2.5" else 0.04
    )
    assert nesting.psf_sigma(sigma) > 1.01 * sigma


def test_psf_follows_the_pixels_of_the_hsi():
    long = nest(square(20, (40, 40), aspect=2), MSI)
    sigma = sigma_from_mtf(0.3, 1)
    covariance = long.psf_covariance(sigma)
    y, x = long.resampling_variance(sigma)
    np.testing.assert_allclose(np.diag(covariance), [16 * (sigma**2 + y), 4 * (sigma**2 + x)], rtol=1e-6)
    y, x, turn = long.psf_widths(3 * sigma)
    assert (y, x, turn) == pytest.approx((*np.sqrt(np.diag(long.psf_covariance(3 * sigma / 8**0.5))), 0), abs=1e-6)
    leaning = nest(square(20, (40, 40), aspect=2, turn=-25), MSI)  # 25 degrees down, as the image has it
    y, x, turn = leaning.psf_widths(3 * sigma)
    assert turn == pytest.approx(25, abs=0.5)
    kernel = elliptic_psf(y, x, turn, 3).kernel
    t = np.arange(len(kernel)) - (len(kernel) - 1) / 2
    moments = [[(t**2 * kernel.sum(1).T).sum(), t @ kernel @ t], [t @ kernel @ t, (t**2 * kernel.sum(0)).sum()]]
    np.testing.assert_allclose(moments, leaning.psf_covariance(3 * sigma / leaning.real_ratio), atol=0.05)
    turned = nest(square(30, (40, 40), turn=20), MSI).psf_covariance(sigma)
    np.testing.assert_allclose(turned[0, 0], turned[1, 1], rtol=0.02)
    nested = nest(square(30, (40, 40)), MSI)
    assert nested.psf_sigma(1.3) == pytest.approx(1.3)
    assert nested.resampling_variance(sigma) == (0, 0)


def test_cubic_convolution_takes_no_second_moment_but_detail():
    for f in np.linspace(0, 0.99, 12):
        w, k = keys_weights(f), np.array([-1, 0, 1, 2])
        np.testing.assert_allclose([w.sum(), w @ (k - f), w @ (k - f) ** 2], [1, 0, 0], atol=1e-12)
    frequencies = np.array([0.1, 0.3, 0.5])
    t = np.linspace(-2, 2, 4001)
    kernel = keys_weights(t % 1)[np.clip(1 - np.floor(t).astype(int), 0, 3), np.arange(t.size)]
    transform_of_kernel = [np.trapezoid(kernel * np.cos(2 * np.pi * n * t), t) for n in frequencies]
    np.testing.assert_allclose(keys_transfer(frequencies), transform_of_kernel, atol=2e-3)
    spread = [resampling_variance(0.49, np.array([f])) for f in (0, 0.1, 0.3, 0.5)]
    assert spread[0] == 0
    assert spread == sorted(spread)
    assert resampling_variance(0.49) == pytest.approx(0.08, abs=0.002)


def test_nested_grids_are_left_alone():
    hsi = square(30, (60, 60), (EAST + 20, NORTH))
    nesting = nest(hsi, MSI)
    assert nesting.alignment == align(hsi, MSI)
    assert not nesting.warped
    source = ArrayReader(np.zeros((1, 60, 60)), hsi)
    assert nesting.present(source) is source
    assert (nesting.ratio, nesting.real_ratios, nesting.rotation) == (3, (3, 3), 0)


def test_one_crs_by_two_names_is_one():
    """ETRS89 and WGS 84, and a WKT without EPSG codes."""
    bare = CRS.from_wkt(
        UTM33.to_wkt().replace("WGS 84 / UTM zone 33N", "mine").replace(',AUTHORITY["EPSG","32633"]', "")
    )
    for crs in (CRS.from_epsg(25833), bare):
        nesting = nest(square(30, (60, 60), crs=crs), MSI)
        assert not nesting.warped
        assert nesting.lr_grid.crs == UTM33
        assert nest(square(29, (60, 60), crs=crs), MSI).ratio == 3


@pytest.mark.parametrize(("name", "ratio", "s"), [("ratio 2.9", 2.9, 3), ("ratio 3.3", 3.3, 3), ("ratio 2.5", 2.5, 3)])
def test_the_ratio_is_rounded_and_the_middle_stays(name, ratio, s):
    hsi = GRIDS[name]
    nesting = nest(hsi, MSI)
    assert (nesting.ratio, nesting.real_ratios) == (s, pytest.approx((ratio, ratio)))
    assert nesting.real_ratio == pytest.approx(ratio)
    assert f"real ratio {ratio} x {ratio} taken as {s}" in nesting.note
    # Near the middle of the overlap some LR pixel's centre is an HSI pixel's, within what whole MSI pixels allow.
    rows, cols = coordinates(nesting.lr_grid, hsi)
    off = np.maximum(abs(rows % 1 - 0.5), abs(cols % 1 - 0.5))
    h, w = nesting.lr_grid.shape
    assert off[h // 2 - 2 : h // 2 + 3, w // 2 - 2 : w // 2 + 3].min() <= 0.5 / ratio + 0.01


@pytest.mark.parametrize("name", GRIDS)
def test_common_extent_is_whole_lr_pixels_of_the_msi(name):
    nesting = nest(GRIDS[name], MSI)
    s, window = nesting.ratio, nesting.alignment.msi_window
    assert nesting.warped
    assert nesting.hr_grid == MSI.window(window)
    assert (window.height, window.width) == tuple(n * s for n in nesting.lr_grid.shape)
    assert min(window.row_off, window.col_off) >= 0
    assert window.row_off + window.height <= 240
    assert window.col_off + window.width <= 240
    # Nothing is given away: not one LR pixel more fits between the outermost places of the HSI and of the MSI.
    rows, cols = PixelMap(GRIDS[name], MSI)(*lattice(GRIDS[name].shape, 9))
    for values, first, count in ((rows, window.row_off, window.height), (cols, window.col_off, window.width)):
        low, high = max(0, values.min()), min(240, values.max())
        assert first - low < s + 1.1
        assert high - (first + count) < s + 1.1


@pytest.mark.parametrize("name", ["nested", "12 degrees", "zone 32", "half a pixel off"])
@pytest.mark.parametrize("shift", [(0.4, -0.3), (7.3, 5.2)])
def test_a_shift_is_taken_out_in_the_one_warp(name, shift):
    scene, s = Waves(), 3
    grid = GRIDS.get(name, square(30, (60, 60)))
    moved = (shift[1] * 10, -shift[0] * 10)  # down in the image is south
    nesting = nest(grid, MSI, Affine.translation(*shift[::-1]))
    assert nesting.warped
    assert nesting.ratio == s
    reader = ArrayReader(scene.on(grid, 18, moved), grid)
    cube = nesting.present(reader).read()
    wanted = scene.on(nesting.lr_grid, 18)
    assert cube.mask.mean() > 0.7
    assert np.abs(cube.data - wanted)[:, cube.mask].std() < 0.06 * wanted.std()
    assert f"moved by {-shift[0]:+.2f} rows" in nesting.note


def test_a_shift_of_whole_msi_pixels_needs_no_warp():
    hsi = square(30, (60, 60))
    nesting = nest(hsi, MSI, Affine.translation(-7.0, 4.02))
    assert not nesting.warped
    assert nesting.alignment.msi_window.row_off == 240 // 2 - 90 - 4
    assert nesting.alignment.msi_window.col_off == 240 // 2 - 90 + 7
    assert nesting.hr_grid == MSI.window(nesting.alignment.msi_window)


def test_images_without_georeference():
    scene = Waves(crs=None, centre=(0, 0), finest=1)
    msi = Grid((90, 120))
    bare = nest(Grid((30, 40)), msi)
    assert bare.alignment == align(Grid((30, 40)), msi)
    assert not bare.warped
    placed = Grid((30, 40), Affine.scale(3))
    data = scene.on(placed, 1.5, (1.2, 2.1))
    moved = nest(Grid((30, 40)), msi, Affine.translation(1.2, 2.1))
    cube = moved.present(ArrayReader(data, Grid((30, 40)))).read()
    assert not moved.hr_grid.georeferenced
    assert moved.lr_grid.shape == cube.mask.shape == (30, 40)
    wanted = scene.on(placed, 1.5)
    assert cube.mask[1:-1, 1:-1].all()
    assert np.abs(cube.data - wanted)[:, 1:-1, 1:-1].std() < 0.05 * wanted.std()


@pytest.mark.parametrize(
    ("hsi_crs", "msi_crs"), [(UTM60, UTM1), (UTM1, UTM60), (WGS84, UTM1), (UTM60, WGS84), (WGS84, WGS84)]
)
@pytest.mark.parametrize("side", [0, 360])
def test_antimeridian(hsi_crs, msi_crs, side):
    """Both images lie across 180 degrees; longitudes of the HSI are counted from either side."""
    plane = Waves(crs=UTM1, centre=place(UTM1, 180, 60, of=WGS84))

    def grid(crs, metres, shape):
        east, north = place(crs, 180, 60, of=WGS84)
        if not crs.is_geographic:
            return square(metres, shape, (east, north), crs=crs)
        return square(metres / 55_800, shape, (180 - side * (crs == hsi_crs), north), crs=crs, aspect=0.5)

    hsi, msi = grid(hsi_crs, 41, (60, 60)), grid(msi_crs, 10, (240, 220))
    nesting = nest(hsi, msi)
    assert nesting.ratio == 4
    assert min(nesting.lr_grid.shape) > 45
    cube = nesting.present(ArrayReader(plane.on(hsi, 20), hsi)).read()
    wanted = plane.on(nesting.lr_grid, 20)
    assert cube.mask.mean() > 0.75
    assert np.abs(cube.data - wanted)[:, cube.mask].std() < 0.07 * wanted.std()


@pytest.mark.parametrize(
    ("hsi", "msi", "said"),
    [
        (square(30, (60, 60), (EAST + 54_000, NORTH)), MSI, r"don't overlap, they lie about 51\.8 km apart"),
        (square(30, (60, 60), place(UTM32, EAST + 54_000), crs=UTM32), MSI, r"don't overlap, .* 5[12]\.\d km apart"),
        (square(30, (60, 60), (5e6, 1e6)), square(0.0001, (99, 99), (-70, 10), crs=WGS84), "don't overlap"),
        (square(30, (60, 60), (EAST + 2110, NORTH + 2110), turn=45), MSI, "don't overlap"),
        (square(14, (60, 60)), MSI, "covers 1.4 x 1.4 MSI pixels, wanted at least 1.5"),
        (square(5, (60, 60)), MSI, "0.5 x 0.5 MSI pixels.*coarser than the HSI, are the two swapped"),
        (square(895, (60, 60)), MSI, "89.5 x 89.5 MSI pixels, wanted at most 64"),
        (square(20, (60, 60), aspect=3.1), MSI, "62 x 20|6.2 x 2 MSI pixels"),
        (square(29, (60, 60), crs=None), MSI, "names no CRS, the other image is in"),
        (Grid((60, 60)), MSI, "HSI has no georeference"),
        (Grid((60, 60)), Grid((61, 99)), "no whole ratio"),
        (square(29, (60, 60), (EAST + 1200 + 868, NORTH)), MSI, "less than one"),
    ],
)  # fmt: skip
def test_what_can_not_be_nested_is_told_in_figures(hsi, msi, said):
    with pytest.raises(GridError, match=said) as caught:
        nest(hsi, msi)
    assert "\n" not in str(caught.value)


@settings(max_examples=15, deadline=None)
@given(
    st.floats(16, 90), st.floats(-180, 180), st.booleans(), st.sampled_from([UTM33, UTM32]), st.floats(-500, 500),
    st.floats(-500, 500),
)  # fmt: skip
def test_any_transform_nests_and_maps_back(side, turn, flip, crs, east, north):
    hsi = square(side, (60, 60), place(crs, EAST + east, NORTH + north), turn, crs)
    hsi = flipped(hsi) if flip else hsi
    nesting = nest(hsi, MSI)
    assert nesting.ratio == max(2, int(nesting.real_ratio + 0.5))
    assert nesting.real_ratio == pytest.approx(side / 10, rel=6e-3)
    rows, cols = np.random.default_rng(0).uniform(0, 60, (2, 9))
    back = PixelMap(MSI, hsi)(*PixelMap(hsi, MSI)(rows, cols))
    np.testing.assert_allclose(back, (rows, cols), atol=1e-5)
    cube = nesting.present(ArrayReader(np.ones((1, 60, 60), np.float32), hsi)).read()
    assert cube.mask.any()
    np.testing.assert_allclose(cube.data[0][cube.mask], 1, atol=1e-5)


def test_distance_between_footprints():
    one, other = square(10, (10, 10), (12.0, 50.0), crs=WGS84), square(1, (1, 1), (14.5, 50.0), crs=WGS84)
    far = square(0.1, (1, 1), (10, 0), crs=WGS84)
    assert gap_km(square(0.1, (1, 1), (9, 0), crs=WGS84), far) == pytest.approx(0.9 * 111.2, rel=0.01)
    assert gap_km(one, one) == pytest.approx(0, abs=1e-3)
    assert gap_km(other, square(1, (1, 1), (16.5, 50.0), crs=WGS84)) < 72


def bend_of(size=1.5, steps=(6, 7)):
    """A displacement in pixels of a grid of 60 x 66 that differs all over."""
    rng = np.random.default_rng(3)
    down, right = size * rng.uniform(-1, 1, (2, *steps))
    return Distortion((-3.0, 0.0), (62.0, 66.0), *(tuple(map(tuple, plane.tolist())) for plane in (down, right)))


@pytest.mark.parametrize("name", ["ratio 2.9", "12 degrees", "zone 32", "degrees"])
def test_a_bent_image_is_cubic_convolution_at_the_exact_place(name, rough):
    hsi = GRIDS[name]
    grid, bend = MSI.coarsen(4), bend_of()
    source = ArrayReader(rough[name], hsi)
    cube = WarpedReader(source, grid, bend=bend).read()
    rows, cols = np.mgrid[: grid.shape[0], : grid.shape[1]] + 0.5
    down, right = bend(rows, cols)
    x, y = grid.transform @ (cols + right, rows + down)
    if hsi.crs != grid.crs:
        x, y = (np.reshape(v, grid.shape) for v in transform(grid.crs, hsi.crs, x.ravel(), y.ravel()))
    c, r = ~hsi.transform @ (x, y)
    inside = interior(r, c, hsi.shape)
    assert cube.mask[inside].all()
    assert inside.mean() > 0.4
    for plane, found in zip(source.read().data, cube.data, strict=True):
        np.testing.assert_allclose(found[inside], convolved(plane, r, c)[inside], atol=2e-5)
    outside = (r < -1) | (c < -1) | (r > hsi.shape[0] + 1) | (c > hsi.shape[1] + 1)
    assert not cube.mask[outside].any()


def test_what_bends_by_the_same_everywhere_is_a_shift(rough):
    hsi = GRIDS["ratio 2.9"]
    source, grid = ArrayReader(rough["ratio 2.9"], hsi), MSI.coarsen(4)
    same = Distortion((0.0, 0.0), (60.0, 60.0), ((0.3, 0.3),) * 2, ((-0.6, -0.6),) * 2)
    bent = WarpedReader(source, grid, bend=same).read()
    shifted = WarpedReader(
        source, grid, Grid(grid.shape, grid.transform @ Affine.translation(-0.6, 0.3), grid.crs)
    ).read()
    np.testing.assert_array_equal(bent.mask, shifted.mask)
    np.testing.assert_allclose(bent.data[:, bent.mask], shifted.data[:, bent.mask], atol=2e-5)


@pytest.mark.parametrize("name", ["12 degrees", "zone 32"])
def test_a_bent_pixel_does_not_depend_on_the_window(name, rough):
    hsi = GRIDS[name]
    data = rough[name].copy()
    data[:, 20:26, 30:33] = np.nan
    reader = WarpedReader(ArrayReader(data, hsi), MSI.coarsen(4), bend=bend_of())
    whole = reader.read()
    assert 0.2 < whole.mask.mean() < 1
    for side in (7, 16, 33):
        for row in range(0, 60, side):
            for col in range(0, 60, side):
                window = Window(col, row, min(side, 60 - col), min(side, 60 - row))
                part, place = reader.read(window), window.toslices()
                np.testing.assert_array_equal(part.mask, whole.mask[place])
                np.testing.assert_array_equal(part.data, whole.data[:, *place])
    again = pickle.loads(pickle.dumps(reader)).read()
    np.testing.assert_array_equal(again.data, whole.data)


def test_a_bent_window_is_read_from_what_it_reaches():
    hsi = GRIDS["12 degrees"]
    reader = WarpedReader(ArrayReader(np.ones((1, 70, 70), np.float32), hsi), MSI.coarsen(4), bend=bend_of(3.0))
    for window in (Window(0, 0, 60, 60), Window(20, 30, 9, 5), Window(52, 50, 8, 10)):
        reach = reader.reach(window)
        rows, cols = np.mgrid[window.row_off : window.row_off + window.height,
                              window.col_off : window.col_off + window.width] + 0.5  # fmt: skip
        down, right = reader._bend(rows, cols)
        x, y = reader.grid.transform @ (cols + right, rows + down)
        c, r = ~hsi.transform @ (x, y)
        for v, first, count, size in ((r, reach.row_off, reach.height, 70), (c, reach.col_off, reach.width, 70)):
            assert first <= max(0, v.min() - 5)
            assert first + count >= min(size, v.max() + 5)


@pytest.mark.parametrize("georeferenced", [True, False])
def test_a_motion_that_bends_is_nested_by_a_warp(georeferenced):
    hsi, msi = (square(20, (30, 33)), square(5, (120, 132))) if georeferenced else (Grid((30, 33)), Grid((120, 132)))
    bend = Distortion((0.0, 0.0), (120.0, 132.0), ((0.0, 2.0), (-3.0, 1.0)), ((1.0, 0.0), (0.0, 0.0)))
    assert not nest(hsi, msi).warped
    found = nest(hsi, msi, Motion(Affine.translation(4, 0), bend))
    assert found.warped
    assert found.ratio == 4
    assert "what bends: up to 3.00 MSI pixels" in found.note
    data = np.broadcast_to(np.arange(30.0)[:, None] + 0.5, (1, 30, 33)).astype(np.float32)
    cube = found.present(ArrayReader(data, hsi)).read()
    window = found.alignment.msi_window
    rows, cols = np.mgrid[: found.lr_grid.shape[0], : found.lr_grid.shape[1]] * 4.0 + 2
    wanted = (rows + window.row_off + bend(rows + window.row_off, cols + window.col_off)[0]) / 4
    inner = cube.mask & (wanted > 2) & (wanted < 28)
    assert inner.mean() > 0.8
    np.testing.assert_allclose(cube.data[0][inner], wanted[inner], atol=1e-3)
    assert nest(hsi, msi, Motion()).note == nest(hsi, msi).note


@pytest.mark.parametrize(("beside", "count"), [(0.0, 12), (0.55, 12), (-0.55, 12), (2.0, 11)])
def test_lr_pixels_lie_where_one_more_fits(beside, count):
    """An LRHSI of the MSI's extent that lies half a pixel of it and more beside it loses no row and column for that."""
    hsi, msi = square(80, (12, 12)), square(10, (96, 96))
    turned = Affine.rotation(0.2, (48, 48))
    found = nest(hsi, msi, Motion(Affine.translation(beside, beside) @ turned))
    assert found.alignment.lr_grid.shape == (count, count)


def test_where_ground_is_torn_no_place_is_told():
    """Steps back along a bend lead nowhere there; everywhere else to where the bend leads from."""
    grid = square(40, (30, 30))
    at = np.linspace(0, 30, 31)
    jump = np.where(at < 15, 0.1 * at, 0.1 * at - 3.0)
    bend = Distortion((0, 0), (30, 30), ((0.0,) * 31,) * 31, (tuple(jump),) * 31)
    reader = WarpedReader(ArrayReader(np.zeros((1, 30, 30), np.float32), grid), grid, bend=bend)
    rows, cols = reader.back(Window(0, 10, 30, 3))
    known = np.isfinite(cols)
    there = np.where(known, cols, 0)
    wanted = np.broadcast_to(np.arange(30) + 0.5, cols.shape)
    assert not known.all()
    assert known.mean() > 0.7
    np.testing.assert_allclose((there + bend(rows, there)[1])[known], wanted[known], atol=0.02)

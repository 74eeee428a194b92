"""What warping gets wrong of an LRHSI is made good by the MSI: nearer to the truth, by any window, chunked or not."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
from affine import Affine
from rasterio.crs import CRS
from rasterio.windows import Window
from scenes import BANDS, HSI, WAVELENGTHS_NM, mixture, save
from scipy.ndimage import correlate1d

import hsfuse
from benchmarks.told.pairs import Off, write_pair
from hsfuse.calibration import RadiometricMatch
from hsfuse.core.cube import Spectrum
from hsfuse.core.grid import Grid
from hsfuse.pair import ScenePair
from hsfuse.pair.detail import with_detail
from hsfuse.physics import load_srf
from hsfuse.physics.model import gaussian_psf

rioxarray = pytest.importorskip("rioxarray")
pytestmark = pytest.mark.filterwarnings("ignore::PendingDeprecationWarning")  # rioxarray's use of affine

#: MSI pixels of an LR pixel, and points of the ground along an MSI pixel; the LRHSI's sigma and place in such points.
RATIO, FINE, SIGMA, PLACE = 4, 3, 5.0, (5, 7)
STEP = RATIO * FINE
CRS_ = CRS.from_epsg(32633)


@dataclass
class Offset:
    """A pair whose LRHSI lies between the MSI's pixels, and what LR pixels see of the ground."""

    pair: ScenePair
    blurred: np.ndarray

    @property
    def wanted(self) -> np.ndarray:
        """The LRHSI (C, h, w) as pixels of the common extent would have seen it."""
        corner = self.pair.alignment.lr_grid.transform
        row, col = round(-corner.f * FINE / 10), round(corner.c * FINE / 10)
        return self.blurred[:, row::STEP, col::STEP][:, : self.pair.lr_shape[0], : self.pair.lr_shape[1]]

    def error(self, pair: ScenePair) -> float:
        """RMS of what its LRHSI is off, away from the border, beyond which the MSI isn't known."""
        inner = np.s_[:, 2:-2, 2:-2]
        return float(np.sqrt(np.square(whole(pair) - self.wanted)[inner].mean()))


class Changed:
    """A reader whose cubes are changed by the rows and columns that they hold."""

    def __init__(self, reader, change):
        self.reader, self.change = reader, change

    def __getattr__(self, name):
        return getattr(self.reader, name)

    def read(self, window, bands=None):
        rows, cols = (slice(int(a), int(a + n)) for a, n in zip(*spans(window), strict=True))
        return self.change(self.reader.read(window, bands), rows, cols)


def spans(window):
    return (window.row_off, window.col_off), (window.height, window.width)


def whole(pair: ScenePair) -> np.ndarray:
    """The LRHSI (C, h, w)."""
    return pair.read_lr(Window(0, 0, *reversed(pair.lr_shape))).data


def plain(pair: ScenePair) -> ScenePair:
    """The pair warped alone."""
    return replace(pair, gains=None)


@pytest.fixture(scope="module")
def offset(tmp_path_factory):
    folder, n = tmp_path_factory.mktemp("offset"), 20
    ground = mixture(((n + 1) * STEP,) * 2, 5)
    taps = gaussian_psf(SIGMA, STEP).kernel.sum(0)
    at = STEP // 2 - len(taps) // 2
    # What an LR pixel sees whose corner lies at each point.
    blurred = ground
    for axis in (1, 2):
        seen = correlate1d(blurred, taps, axis, origin=0)
        blurred = np.roll(seen, -(at + len(taps) // 2), axis)
    weights, _ = load_srf("sentinel2a").select(BANDS).matrix(WAVELENGTHS_NM, HSI.fwhm_nm)
    msi = (
        np.tensordot(weights, ground, 1).reshape(len(BANDS), (n + 1) * RATIO, FINE, (n + 1) * RATIO, FINE).mean((2, 4))
    )
    low = blurred[:, PLACE[0] :: STEP, PLACE[1] :: STEP][:, :n, :n]
    unit = 10 / FINE
    moved = Affine(STEP * unit, 0, PLACE[1] * unit, 0, -STEP * unit, -PLACE[0] * unit)
    hsi = save(folder / "hsi.tif", low, Grid((n, n), moved, CRS_), HSI)
    shape = msi.shape[1:]
    high = save(folder / "msi.tif", msi, Grid(shape, Affine(10, 0, 0, 0, -10, 0), CRS_), Spectrum(None, None, BANDS))
    # Less the width of an MSI pixel, which the MSI has itself.
    psf = gaussian_psf(float(np.sqrt(SIGMA**2 - (FINE**2 - 1) / 12)) / FINE, RATIO)
    with hsfuse.open_pair(hsi, high, srf="sentinel2a", register="off", known_psf=psf) as pair:
        yield Offset(pair, blurred)


def test_it_is_nearer_to_what_pixels_there_would_have_seen(offset):
    assert offset.pair.warped
    assert offset.error(offset.pair) < 0.5 * offset.error(plain(offset.pair))


def test_any_window_is_the_whole_s(offset):
    rows, cols = offset.pair.lr_shape
    whole = offset.pair.read_lr(Window(0, 0, cols, rows))
    part = offset.pair.read_lr(Window(4, 3, 9, 11))
    np.testing.assert_allclose(part.data, whole.data[:, 3:14, 4:13], rtol=0, atol=1e-6)


def test_what_gain_the_msi_is_given_afterwards_changes_nothing(offset):
    """Radiometry is matched with the detail at its place."""
    pair = offset.pair
    count = len(pair.msi_bands)
    match = RadiometricMatch(*(np.full(count, v) for v in (2.0, 0.01, 0.1, 0.01, 1.0, 0.2)))
    np.testing.assert_array_equal(whole(replace(pair, radiometry=match)), whole(pair))


def test_where_the_msi_is_not_known_nothing_is_made_good(offset):
    def gap(cube, rows, cols):
        mask = cube.mask.copy()
        mask[max(0, 36 - rows.start) : max(0, 44 - rows.start)] = False
        return replace(cube, mask=mask)

    pair = offset.pair
    holed = replace(pair, msi=Changed(pair.msi, gap))
    row = 40 // RATIO
    np.testing.assert_array_equal(whole(holed)[:, row], whole(plain(pair))[:, row])
    np.testing.assert_array_equal(whole(holed)[:, row - 7], whole(pair)[:, row - 7])


def test_an_image_that_has_nothing_to_do_with_it_changes_little(offset):
    """Gains are a regression: of noise they are next to nothing."""
    pair = offset.pair
    noise = np.random.default_rng(0).random((pair.msi.count, *pair.msi.grid.shape)).astype(np.float32)
    other = Changed(pair.msi, lambda cube, rows, cols: cube.with_data(noise[: len(cube.data), rows, cols]))
    strange, _ = with_detail(replace(pair, msi=other))
    assert offset.error(strange) < 1.1 * offset.error(plain(pair))


@pytest.mark.parametrize("off", [Off(rotate=1.0), Off(drift=0.5), Off(cloud=0.3)], ids=["turned", "drifting", "cloud"])
def test_chunked_images_give_the_pixels_of_files(tmp_path, off):
    """What is looked at around a window is asked for, too."""
    cube = np.moveaxis(mixture((96, 96), 3), 0, 2)
    files = write_pair(cube, np.asarray(WAVELENGTHS_NM), 4, off, tmp_path)
    how = {"srf": str(files.srf), "psf": "assumed", "register": "off"}
    if off.cloud == 0:
        how |= {"register": "auto", "psf": "auto"}
    found = []
    for chunks in (None, {"y": 12, "x": 12}):
        images = [rioxarray.open_rasterio(path, chunks=chunks) if chunks else path for path in (files.hsi, files.msi)]
        with hsfuse.open_pair(*images, **how) as pair:
            assert pair.haze if off.cloud else pair.gains is not None
            fused = hsfuse.fit(pair, "glp-reg", tile=32, overlap=8).apply(pair)
            found.append(fused.compute(scheduler="synchronous").values)
    np.testing.assert_allclose(*found, rtol=0, atol=1e-6)

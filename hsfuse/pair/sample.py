"""What a method is given: the HSI's bands that hold data; blocks of the scene, bounded in number, to learn from.

Invalid pixels are filled. A method weighs errors of all bands alike, and so takes what few bands have of noise into all
that it fuses of the others. Bands whose noise is far beyond the others' are therefore fused in a larger unit, in which
it is as the others': their level and signal stay as they are in proportion to it (as in the MNF transform: Green,
Berman, Switzer, Craig 1988, "A transformation for ordering multispectral data in terms of image quality with
implications for noise removal", IEEE TGRS 26(1), for those bands alone).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from rasterio.windows import Window
from scipy.ndimage import distance_transform_edt

from hsfuse.calibration.misfit import without_light
from hsfuse.calibration.spectra import LEAST_PIXELS, own_part, varies
from hsfuse.core.cube import BoolArray, Cube, FloatArray, Spectrum
from hsfuse.core.errors import InputError, SrfError
from hsfuse.core.notes import Note, note, warning
from hsfuse.io import CubeReader, band_contents, constant_bands
from hsfuse.io.sharpen import blocks
from hsfuse.physics import SpectralResponse, covered_bands
from hsfuse.physics.model import ObservationModel
from hsfuse.physics.optics import ABSORPTION_NM
from hsfuse.physics.sample import PairSample
from hsfuse.physics.solve import solve_spd
from hsfuse.physics.srf_bands import CoveredBands, range_words

if TYPE_CHECKING:
    from hsfuse.pair.pair import ScenePair

#: MSI pixels in the sample at most, and above ratio 6, where those are few LR pixels (`most_pixels`). A scene with
#: fewer is taken whole.
MAX_PIXELS, MORE_PIXELS, WANTED_LR = 384 * 384, 512 * 512, 64 * 64
#: Side of a block in LR pixels where the scene isn't taken whole: at most 32, less where that would leave few blocks
#: (at ratio 8 two of them would miss most of a scene's materials), but 16 at least.
BLOCK, LEAST_BLOCK, BLOCK_PIXELS = 32, 16, 128
#: Ridge of the regression of spectra on the MSI, relative to the MSI bands' mean variance.
RIDGE = 1e-4
#: Side of the blocks in which noise is looked at. It is loud that is so many times the median band's, so many dB worse
#: beside its band's RMS than the median band's, and worse than this many dB, where neighbours have it in common by less
#: than so much, and is in all pixels: half of them have more than this share of its RMS (normal noise .67; lamps, which
#: are white as well, nothing); a band is mostly noise of which that is more than this share of the variance.
NOISE_BLOCK, LOUD, WORSE_DB, LOUD_DB, WHITE, EVERYWHERE, MOSTLY = 24, 3.0, 8.0, 25.0, 0.15, 0.35, 0.5
#: Ranges of bands that are told.
NAMED = 6


def fill_invalid(data: FloatArray, mask: BoolArray) -> FloatArray:
    """Invalid pixels take the nearest valid pixel's spectrum: (C, H, W), (H, W) -> (C, H, W); all invalid: zeros."""
    if mask.all() or not mask.any():
        return data
    nearest = distance_transform_edt(~mask, return_distances=False, return_indices=True)
    return np.ascontiguousarray(data[:, nearest[0], nearest[1]])


def fill_msi(high: Cube, low: Cube, model: ObservationModel) -> FloatArray:
    """The MSI (c, H, W) with its invalid pixels as the LRHSI (C, h, w) shows them, levelled to the nearest valid pixel.

    What a blur takes from under a cloud into its surroundings is then about what lies there, and no halo forms.
    """
    filled = fill_invalid(high.data, high.mask)
    if high.mask.all() or not high.mask.any() or not low.mask.any():
        return filled
    seen_low = torch.from_numpy(fill_invalid(low.data, low.mask))[None].to(model.srf.device)
    seen = model.upsample(model.spectral(seen_low))[0].cpu().numpy()
    return np.ascontiguousarray(np.where(high.mask, filled, filled + seen - fill_invalid(seen, high.mask)))


@dataclass(frozen=True)
class Filling:
    """Invalid pixels of either image as the other one shows them.

    `gains` (C, c) say how LR spectra go with the MSI; None: the LRHSI takes the nearest valid spectrum.
    """

    model: ObservationModel
    gains: FloatArray | None = None

    @classmethod
    def of(cls, scene: PairSample, model: ObservationModel) -> Filling:
        """With the regression of the sample's valid LRHSI spectra on the degraded MSI."""
        low = model.spatial(scene.msi.double()).permute(1, 0, 2, 3)[:, scene.mask]
        spectra = scene.lrhsi.double().permute(1, 0, 2, 3)[:, scene.mask]
        low, spectra = (x - x.mean(1, keepdim=True) for x in (low, spectra))
        return cls(model, solve_spd(low @ low.T, low @ spectra.T, RIDGE).T.float().cpu().numpy())

    def __call__(self, low: Cube, high: Cube) -> tuple[FloatArray, FloatArray]:
        """LRHSI (C, h, w) and MSI (c, H, W) of a window, both whole."""
        if not low.mask.any():
            return low.data, fill_msi(high, low, self.model)
        whole = replace(low, data=self.fill_lrhsi(low, high), mask=np.ones_like(low.mask))
        return whole.data, fill_msi(high, whole, self.model)

    def fill_lrhsi(self, low: Cube, high: Cube) -> FloatArray:
        """The LRHSI (C, h, w) with its invalid pixels as the MSI has them, levelled to the nearest valid pixel."""
        filled = fill_invalid(low.data, low.mask)
        if self.gains is None or low.mask.all() or not high.mask.any():
            return filled
        msi = torch.from_numpy(fill_invalid(high.data, high.mask))[None].to(self.model.srf.device)
        seen = self.model.spatial(msi)[0].cpu().numpy()
        change = np.tensordot(self.gains, seen - fill_invalid(seen, low.mask), 1)
        return np.ascontiguousarray(np.where(low.mask, filled, filled + change), np.float32)


def most_pixels(s: int) -> int:
    """MSI pixels in the sample at most, at ratio s: those of WANTED_LR LR pixels between both limits.

    >>> [most_pixels(s) for s in (4, 8, 16)] == [384 * 384, 512 * 512, 512 * 512]
    True
    """
    return min(max(MAX_PIXELS, WANTED_LR * s * s), MORE_PIXELS)


def block_windows(
    shape: tuple[int, int], s: int, max_pixels: int | None = None, side: int | None = None
) -> list[Window]:
    """Equal LR windows spread over a scene of `shape` LR pixels; the whole scene as one if it is small.

    `max_pixels` MSI pixels at most, by default `most_pixels`; `side` of the windows, by default as at `BLOCK`.
    """
    height, width = shape
    max_pixels = most_pixels(s) if max_pixels is None else max_pixels
    if height * width * s * s <= max_pixels:
        return [Window(0, 0, width, height)]
    side = max(LEAST_BLOCK, min(BLOCK, BLOCK_PIXELS // s)) if side is None else side
    side_y, side_x = min(side, height), min(side, width)
    count = max(2, max_pixels // (side_y * side_x * s * s))
    aspect = (height / side_y) / (width / side_x)
    rows = int(np.clip(round((count * aspect) ** 0.5), 1, height // side_y))
    cols = int(np.clip(count // rows, 1, width // side_x))
    tops = np.linspace(0, height - side_y, rows).round().astype(int)
    lefts = np.linspace(0, width - side_x, cols).round().astype(int)
    return [Window(int(left), int(top), side_x, side_y) for top in tops for left in lefts]


def read_block(pair: ScenePair, window: Window) -> tuple[Cube, Cube, BoolArray]:
    """LRHSI (C, h, w), MSI (c, H, W) and the LR mask (h, w): valid with all MSI pixels under it."""
    s = pair.ratio
    low = pair.read_lr(window)
    high = pair.read_hr(Window(window.col_off * s, window.row_off * s, window.width * s, window.height * s))
    h, w = low.mask.shape
    return low, high, low.mask & high.mask.reshape(h, s, w, s).all((1, 3))


def sample_scene(pair: ScenePair, max_pixels: int | None = None) -> PairSample:
    """Blocks of the scene that hold valid pixels; InputError when there are too few to learn anything from.

    `max_pixels` as for `block_windows`.
    """
    return sample_of(pair, block_windows(pair.lr_shape, pair.ratio, max_pixels))


def evened(scene: PairSample, model: ObservationModel) -> PairSample:
    """The sample without uneven light, which would mislead what it tells of the sensors; itself where there is none."""
    even = without_light(scene.lrhsi, scene.msi, scene.mask, model)
    return scene if even is None else replace(scene, msi=even)


def sample_of(pair: ScenePair, windows: list[Window]) -> PairSample:
    """The blocks at some equal LR windows, as `sample_scene` has them."""
    blocks = [read_block(pair, window) for window in windows]
    blocks = [block for block in blocks if block[2].mean() > 0.1] or blocks
    valid = sum(int(block[2].sum()) for block in blocks)
    if valid < 16:
        raise InputError(
            f"only {valid} pixels are valid in both {pair.hsi.path} and {pair.msi.path}, wanted at least 16"
        )
    scene = _filled(blocks, Filling(pair.model))
    return scene if all(low.mask.all() for low, _, _ in blocks) else _filled(blocks, Filling.of(scene, pair.model))


def _filled(blocks: list[tuple[Cube, Cube, BoolArray]], filling: Filling) -> PairSample:
    parts = [(*filling(low, high), mask) for low, high, mask in blocks]
    lrhsi, msi, mask = (torch.from_numpy(np.stack(part)) for part in zip(*parts, strict=True))
    return PairSample(lrhsi, msi, mask)


def usable(hsi: CubeReader, drop_absorption: bool = False) -> tuple[list[int], list[Note]]:
    """The bands that carry data, without those in water vapour absorption where asked for; said when some don't.

    InputError when none is left.
    """
    if hsi.spectrum.good is not None and not any(hsi.spectrum.good):
        raise InputError(f"{hsi.path}: all {hsi.count} bands are marked bad by its bad band list; mend that first")
    (good, constant), notes = band_contents(hsi), []
    if not good.any():
        raise InputError(f"{hsi.path}: no valid pixel in any band")
    if not good.all():
        where = _ranges(np.asarray(hsi.spectrum.wavelengths_nm), ~good)
        notes.append(note("hsi-bands-bad", bad=int((~good).sum()), bands=good.size, nm=where))
    left_in = "; fused as they are: mark bands bad in the file to leave them out"
    notes += constant_bands(hsi, np.where(good & np.isnan(constant).any(), constant, np.nan), left_in)
    if drop_absorption:
        nm = np.asarray(hsi.spectrum.wavelengths_nm)
        absorbed = good & np.any([(nm >= low) & (nm <= high) for low, high in ABSORPTION_NM], axis=0)
        good &= ~absorbed
        notes.append(note("hsi-bands-absorbed", bands=int(absorbed.sum())))
        if not good.any():
            raise InputError(f"{hsi.path}: all bands lie in water vapour absorption")
    return np.flatnonzero(good).tolist(), notes


def _ranges(nm: NDArray[np.float64], which: BoolArray) -> str:
    """The wavelengths (C,) of some bands as ranges, a few of them."""
    found = np.flatnonzero(which)
    runs = np.split(found, np.flatnonzero(np.diff(found) > 1) + 1)
    ends = [sorted(nm[run[[0, -1]]]) for run in runs[:NAMED]]
    words = [range_words(low, high) if low < high else f"{low:.0f} nm" for low, high in ends]
    others = sum(run.size for run in runs[NAMED:])
    return ", ".join(words) + (f" and {others} more" if others else "")


@dataclass(frozen=True)
class LoudBands:
    """Bands (C,) of an HSI with far more noise than the others.

    `times` that of the median band each has, 1 of those that aren't loud; `db` is their RMS beside their noise;
    `mostly`: nearly nothing else varies in them.
    """

    times: NDArray[np.float64]
    db: NDArray[np.float64]
    mostly: BoolArray
    wavelengths_nm: NDArray[np.float64]

    @property
    def units(self) -> FloatArray | None:
        """Powers of two, by which nothing is rounded, that make their noise about the others'; None without any."""
        return np.exp2(np.log2(self.times).round()).astype(np.float32) if (self.times > 1).any() else None

    @property
    def notes(self) -> list[Note]:
        """A word on those that hold more than noise."""
        return self._told(note, "hsi-bands-noisy", (self.times > 1) & ~self.mostly)

    @property
    def warnings(self) -> list[Note]:
        """A warning of those that hardly do."""
        return self._told(warning, "hsi-bands-noise", self.mostly)

    def _told(self, say: Callable[..., Note], code: str, which: BoolArray) -> list[Note]:
        if not which.any():
            return []
        snr = [round(float(one(self.db[which]))) for one in (np.min, np.max)]
        figures = {"nm": _ranges(self.wavelengths_nm, which), "times": round(float(np.median(self.times[which])), 1)}
        figures["snr"] = " to ".join(map(str, dict.fromkeys(snr)))
        return [say(code, bands=int(which.sum()), count=which.size, **figures)]

    def spared(
        self, covered: CoveredBands, response: SpectralResponse, bands: Sequence[str], spectrum: Spectrum
    ) -> CoveredBands:
        """The MSI bands with an R that leaves what is mostly noise to its neighbours, where that holds all of them."""
        quiet = ~self.mostly
        if quiet.all():
            return covered
        part = spectrum.select(np.flatnonzero(quiet).tolist())
        assert part.wavelengths_nm is not None
        try:
            other = covered_bands(response, bands, part.wavelengths_nm, part.fwhm_nm)
        except SrfError:
            return covered
        if other.kept != covered.kept:
            return covered
        matrix = np.zeros_like(covered.matrix)
        matrix[:, quiet] = other.matrix
        return replace(covered, matrix=matrix)


def loud_bands(hsi: CubeReader, bands: list[int]) -> LoudBands:
    """Those of `bands` whose noise is far beyond the others', as told by what no other band has, nor the pixel beside.

    None in an image of few pixels, or of no variation.
    """
    before, nm = hsi.nonfinite, np.asarray(hsi.spectrum.wavelengths_nm)[bands]
    parts = [hsi.read(one, bands) for one in blocks(Window(0, 0, *hsi.grid.shape[::-1]), NOISE_BLOCK)]
    hsi.nonfinite = before  # this look isn't part of the caller's reading
    spectra = np.concatenate([cube.data[:, cube.mask] for cube in parts], 1, dtype=np.float64)
    times, db, mostly = np.ones(nm.size), np.full(nm.size, np.inf), np.zeros(nm.size, bool)
    if spectra.shape[1] < LEAST_PIXELS or not varies(spectra):
        return LoudBands(times, db, mostly, nm)
    own, matrix = own_part(spectra)
    with np.errstate(divide="ignore"):
        db = 10 * np.log10(np.square(spectra).mean(1)) - 20 * np.log10(own)
    found = own / max(float(np.median(own)), np.finfo(float).tiny)
    loud = (found > LOUD) & (db < min(LOUD_DB, np.median(db) - WORSE_DB))
    rest = np.abs(matrix[loud] @ (spectra - spectra.mean(1, keepdims=True)))
    everywhere = np.median(rest, 1) > EVERYWHERE * np.sqrt(np.square(rest).mean(1))
    loud[loud] = everywhere & (_together(parts, matrix[loud]) < WHITE + spectra.shape[1] ** -0.5)
    return LoudBands(np.where(loud, found, 1), db, loud & (own**2 > MOSTLY * spectra.var(1)), nm)


def _together(parts: Sequence[Cube], matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    """How much neighbouring pixels correlate (n,) in maps of the bands by a matrix (n, C)."""
    products, squares, mean = [], [], sum(cube.data[:, cube.mask].sum(1, dtype=np.float64) for cube in parts)
    mean = mean / sum(int(cube.mask.sum()) for cube in parts)
    for cube in parts:
        maps = np.tensordot(matrix, cube.data - mean[:, None, None], 1)
        for data, mask in ((maps, cube.mask), (maps.swapaxes(1, 2), cube.mask.T)):
            one, other = data[:, 1:], data[:, :-1]
            known = mask[1:] & mask[:-1]
            products.append((one * other)[:, known])
            squares.append((one**2 + other**2)[:, known] / 2)
    return np.concatenate(products, 1).sum(1) / np.maximum(np.concatenate(squares, 1).sum(1), 1e-300)

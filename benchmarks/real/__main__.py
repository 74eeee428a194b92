"""`python -m benchmarks.real --paris FOLDER --enmap FILE`: tables of real pairs with the PSF estimated and assumed.

Paris is HySure's demonstration (https://github.com/alfaiate/HySure, folder data): EO-1 Hyperion with ALI's panchromatic
band, and averaged 3 x 3 with its multispectral ones. Of EnMAP images (L2A, GeoTIFF) both images are made: Sentinel-2's
four bands of 10 m, and the image through a PSF that no family of hsfuse's has, the mean of an LR pixel smeared to one
side. Two questions are asked. Estimated in one half of the scene, does a PSF leave less between both images in the
other half than the assumed one does? And do halves tell the same within the deviations that are stated?
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from affine import Affine
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.windows import Window
from scipy.io import loadmat
from scipy.ndimage import convolve1d, uniform_filter

import hsfuse
from hsfuse.calibration import estimate_psf, register
from hsfuse.core.cube import Cube, Spectrum
from hsfuse.core.errors import InputError
from hsfuse.core.grid import Grid
from hsfuse.io import CubeWriter, open_cube
from hsfuse.pair import ScenePair
from hsfuse.pair.sample import read_block
from hsfuse.physics import load_srf
from hsfuse.physics.model import ObservationModel, Psf, gaussian_psf
from hsfuse.physics.optics import sigma_from_mtf

Floats = NDArray[np.float64]
RATIO = 3
ALI, SENTINEL2 = tuple(f"B{i}" for i in range(2, 11)), ("B2", "B3", "B4", "B8")
#: What the LR pixel's mean is smeared with, in HR pixels.
SMEAR = np.array([0.5, 0.3, 0.2])


@dataclass(frozen=True)
class Files:
    """A pair on disk."""

    name: str
    hsi: Path
    msi: Path
    srf: str
    bands: tuple[str, ...]


@click.command()
@click.option("--paris", type=click.Path(exists=True, file_okay=False, path_type=Path), help="Folder of HySure's data.")
@click.option("--enmap", type=click.Path(exists=True, path_type=Path), multiple=True, help="GeoTIFF of EnMAP L2A.")
@click.option("--method", default="glp-reg", show_default=True)
def real(paris: Path | None, enmap: tuple[Path, ...], method: str) -> None:
    """Tables, as Markdown."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        pairs = [*(paris_pairs(paris, place) if paris else ()), *(enmap_pair(path, place) for path in enmap)]
        click.echo(
            "| pair | PSF's widths (y, x), MSI pixels | 1 - r² held out: assumed | estimated | HQNR: assumed | "
            "estimated | LRHSI misfit %: assumed | estimated | MSI misfit %: assumed | estimated |\n"
            + "| --- " * 10
            + "|"
        )
        for pair in pairs:
            try:
                click.echo(compared(pair, place, method))
            except InputError as error:
                click.echo(f"| {pair.name} | {error} |" + " - |" * 8)
        click.echo("\n| pair | largest difference of halves, in stated deviations: width | place | by registration |")
        click.echo("| --- | --- | --- | --- |")
        for pair in pairs:
            try:
                click.echo(halves(pair))
            except InputError as error:
                click.echo(f"| {pair.name} | {error} | - | - |")


def paris_pairs(folder: Path, place: Path) -> Iterator[Files]:
    """Hyperion with ALI's panchromatic band (10 m), and averaged to 90 m with its multispectral ones (30 m)."""
    pan, multi = (loadmat(folder / f"paris_data_hs_{kind}.mat") for kind in ("pan", "ms"))
    number = pan["non_del_bands"].ravel().astype(int)
    nm = np.where(number <= 70, 355.59 + 10.175 * (number - 1), 851.92 + 10.089 * (number - 71))  # of Hyperion's bands
    yield written(place, "Paris, PAN", pan["HSim"], pan["PCim"][..., None], nm, "ali", ("B1",), 30)
    coarse = uniform_filter(multi["HSim"], (RATIO, RATIO, 1))[1::RATIO, 1::RATIO]
    yield written(place, "Paris, ALI", coarse, multi["MSim"], nm, "ali", ALI, 90)


def enmap_pair(path: Path, place: Path) -> Files:
    """An EnMAP image at a third of its resolution, and Sentinel-2's bands of it."""
    with open_cube(path, role="HSI") as reader:
        cube = reader.read()
    good = np.flatnonzero((cube.data != 0).any((1, 2)))
    rows, cols = (n // RATIO * RATIO for n in cube.mask.shape)
    data, nm = cube.data[good, :rows, :cols].astype(np.float64), np.asarray(cube.spectrum.wavelengths_nm)[good]
    low = convolve1d(uniform_filter(data, (1, RATIO, RATIO)), SMEAR, 2)[:, 1::RATIO, 1::RATIO]
    response = load_srf("sentinel2a").select(SENTINEL2).matrix(nm)[0]
    high = np.tensordot(response, data, 1)
    name = f"EnMAP, {path.stem}"
    return written(place, name, low.transpose(1, 2, 0), high.transpose(1, 2, 0), nm, "sentinel2a", SENTINEL2, 90)


def written(
    place: Path, name: str, low: Floats, high: Floats, nm: Floats, srf: str, bands: tuple[str, ...], size: float
) -> Files:
    """The pair's files: LRHSI (h, w, C) with pixels of `size` m and MSI (H, W, c), side by side from one corner."""
    stem = name.replace(", ", "-").replace(" ", "-")
    paths = place / f"{stem}-hsi.tif", place / f"{stem}-msi.tif"
    of_bands = load_srf(srf).select(bands)
    spectra = (
        Spectrum(tuple(nm.tolist()), tuple(np.full(nm.size, 10.0).tolist())),
        Spectrum(tuple(of_bands.centres_nm.tolist()), tuple(of_bands.fwhm_nm.tolist()), bands),
    )
    for path, data, spectrum, step in zip(paths, (low, high), spectra, (size, size / RATIO), strict=True):
        grid = Grid(data.shape[:2], Affine(step, 0, 450000, 0, -step, 5410000), CRS.from_epsg(32631))
        with CubeWriter(path, grid, spectrum) as writer:
            writer.write(Window(0, 0, data.shape[1], data.shape[0]), data.transpose(2, 0, 1).astype(np.float32),
                         np.ones(data.shape[:2], bool))  # fmt: skip
    return Files(name, *paths, srf, bands)


def compared(files: Files, place: Path, method: str) -> str:
    """A row: the PSF, what is left between both images where it wasn't estimated, and indices of the fused cubes."""
    told, width = [], ""
    for kind in ("assumed", "auto"):
        fused = place / f"{files.hsi.stem}-{kind}.tif"
        hsfuse.fuse(files.hsi, files.msi, files.srf, fused, method=method, msi_bands=files.bands, psf=kind)
        found = hsfuse.assess(fused, hsi=files.hsi, msi=files.msi).metrics
        told.append([found[name] or 0.0 for name in ("hqnr", "hsi_relative_rmse", "msi_relative_rmse")])
    with hsfuse.open_pair(files.hsi, files.msi, srf=files.srf, msi_bands=files.bands) as pair:
        if pair.psf is not None:
            width = ", ".join(f"{v:.2f} ± {sd:.2f}" for v, sd in zip(pair.psf.sigma, pair.psf.sigma_sd, strict=True))
        left = [f"{value:.4f}" for value in held_out(pair)]
    scales = (1, 100, 100)
    figures = [f"{by * row[i]:.4g}" for i, by in enumerate(scales) for row in told]
    return f"| {files.name} | {width} | {' | '.join([*left, *figures])} |"


def parts(pair: ScenePair) -> dict[str, Window]:
    """Left, right, upper and lower half, in LR pixels."""
    h, w = pair.lr_shape
    return {
        "left": Window(0, 0, w // 2, h), "right": Window(w // 2, 0, w - w // 2, h),
        "upper": Window(0, 0, w, h // 2), "lower": Window(0, h // 2, w, h - h // 2),
    }  # fmt: skip


def images(pair: ScenePair, window: Window) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """LRHSI (1, C, h, w), MSI (1, c, H, W) and mask of a part."""
    low, high, mask = read_block(pair, window)
    return torch.from_numpy(low.data)[None], torch.from_numpy(high.data)[None], torch.from_numpy(mask)[None]


def held_out(pair: ScenePair) -> tuple[float, float]:
    """1 - r^2 between R x LRHSI and the degraded MSI, over halves: by the assumed PSF, and by the other half's own."""
    s, matrix = pair.ratio, pair.model.srf.double().numpy()
    given = gaussian_psf(sigma_from_mtf(0.3, s), s)
    windows, left = parts(pair), []
    for one, other in (("left", "right"), ("right", "left"), ("upper", "lower"), ("lower", "upper")):
        found = estimate_psf(*images(pair, windows[one]), matrix, s, given=given)
        about = Psf(np.asarray(_moved(given, found.shift)), "assumed, at the same place")
        left.append([unexplained(pair, windows[other], psf) for psf in (about, found.shifted)])
    assumed, estimated = np.mean(left, axis=0).tolist()
    return assumed, estimated


def _moved(psf: Psf, shift: tuple[float, float]) -> Floats:
    """A Gaussian's taps with its centre elsewhere, (y, x) in HR pixels, on a few more of them."""
    taps = np.arange(psf.size + 4) - (psf.size + 3) / 2
    sigma = float(np.sqrt((psf.kernel.sum(0) * (np.arange(psf.size) - (psf.size - 1) / 2) ** 2).sum()))
    y, x = (np.exp(-(((taps - move) / sigma) ** 2) / 2) for move in shift)
    return np.outer(y, x)


def unexplained(pair: ScenePair, window: Window, psf: Psf) -> float:
    """1 - r^2, the mean over MSI bands, well inside a part."""
    lrhsi, msi, mask = images(pair, window)
    model = ObservationModel(pair.model.srf, psf, pair.ratio)
    inner = np.s_[0, :, 3:-3, 3:-3]
    seen, low = model.spectral(lrhsi.double())[inner].flatten(1), model.spatial(msi.double())[inner].flatten(1)
    good = mask[0, 3:-3, 3:-3].flatten()
    both = [np.corrcoef(a[good], b[good])[0, 1] for a, b in zip(seen.numpy(), low.numpy(), strict=True)]
    return float(1 - np.square(both).mean())


def halves(files: Files) -> str:
    """A row: by how many of their stated deviations halves differ at most."""
    options: dict[str, Any] = {"srf": files.srf, "msi_bands": files.bands, "register": "off", "match_radiometry": "off"}
    with hsfuse.open_pair(files.hsi, files.msi, **options) as pair:
        s, matrix = pair.ratio, pair.model.srf.double().numpy()
        found = {name: estimate_psf(*images(pair, window), matrix, s) for name, window in parts(pair).items()}
        model = ObservationModel(pair.model.srf, found["left"].psf, s)
        shifts = {name: register(_Part(pair, window, model)) for name, window in parts(pair).items()}
    worst = [0.0, 0.0, 0.0]
    for one, other in combinations(found, 2):
        if {one, other} in ({"left", "right"}, {"upper", "lower"}):
            a, b = found[one], found[other]
            for axis in (0, 1):
                sd = np.hypot(a.sigma_sd[axis], b.sigma_sd[axis])
                worst[0] = max(worst[0], abs(a.sigma[axis] - b.sigma[axis]) / sd)
                sd = np.hypot(a.shift_sd[axis], b.shift_sd[axis])
                worst[1] = max(worst[1], abs(a.shift[axis] - b.shift[axis]) / sd)
            c, d = shifts[one], shifts[other]
            apart = max(abs(c.dy - d.dy), abs(c.dx - d.dx))
            worst[2] = max(worst[2], apart / np.hypot(c.uncertainty, d.uncertainty))
    return f"| {files.name} | {' | '.join(f'{value:.1f}' for value in worst)} |"


@dataclass
class _Part:
    """A part of a pair, as registration asks for it."""

    pair: ScenePair
    window: Window
    model: ObservationModel

    @property
    def lr_shape(self) -> tuple[int, int]:
        return int(self.window.height), int(self.window.width)

    def read_lr(self, window: Window) -> Cube:
        return self.pair.read_lr(_within(window, self.window, 1))

    def read_hr(self, window: Window) -> Cube:
        return self.pair.read_hr(_within(window, self.window, self.pair.ratio))


def _within(window: Window, part: Window, s: int) -> Window:
    return Window(part.col_off * s + window.col_off, part.row_off * s + window.row_off, window.width, window.height)


if __name__ == "__main__":
    real()

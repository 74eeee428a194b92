"""An LRHSI and an MSI made from a reference cube by the observation model, with the truth that belongs to them.

`observe` does the work on the pixels; here is what to make of which bands, where it goes and what is said of it.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np
import torch
from affine import Affine
from numpy.typing import NDArray
from rasterio.windows import Window

from hsfuse.core.cube import BoolArray, FloatArray, Spectrum
from hsfuse.core.errors import InputError, OutputError, SettingError
from hsfuse.core.grid import Grid
from hsfuse.core.notes import texts
from hsfuse.core.options import DEFAULT_MTF
from hsfuse.core.package import __version__
from hsfuse.io import TILE, CubeReader, CubeWriter, Storage, check_output, check_valid, open_cube, publish, usable_bands
from hsfuse.io.fill import settle_fill
from hsfuse.physics import SpectralResponse, covered_bands, load_srf
from hsfuse.physics.degrade import VALUES_AT_ONCE, degrade, halo_of, spans
from hsfuse.physics.model import ObservationModel, centred_phase, gaussian_psf
from hsfuse.physics.optics import sigma_from_mtf

FloatArray64 = NDArray[np.float64]

#: Tiles of the outputs, of which a strip should have whole ones.
TILES = (TILE, TILE // 2, TILE // 4)


def lr_grid(grid: Grid, s: int, phase: float) -> Grid:
    """Grid of the LRHSI (h, w): pixels s times as large, the first one centred at HR coordinate `phase`.

    A centred phase gives the coarsened grid. An image without georeference stays without: its corner is its place.
    """
    if not grid.georeferenced:
        return Grid((grid.shape[0] // s, grid.shape[1] // s))
    coarse, shift = grid.coarsen(s), (phase - centred_phase(s)) / s
    return Grid(coarse.shape, coarse.transform @ Affine.translation(shift, shift), grid.crs)


@dataclass(frozen=True)
class Piece:
    """One strip without noise: truth (C, H, W), MSI (c, H, W), LRHSI (C, h, w), their masks, the first LR row."""

    row: int
    truth: FloatArray
    msi: FloatArray
    mask: BoolArray
    lrhsi: FloatArray
    lr_mask: BoolArray

    @property
    def hr_window(self) -> Window:
        """Place of the truth and the MSI."""
        rows, cols = self.mask.shape
        return Window(0, self.row * rows // self.lr_mask.shape[0], cols, rows)

    @property
    def lr_window(self) -> Window:
        """Place of the LRHSI."""
        rows, cols = self.lr_mask.shape
        return Window(0, self.row, cols, rows)


@dataclass(frozen=True)
class Observer:
    """An open reference, the bands in use, its grid (whole LR pixels), the model, the strips' height in HR pixels."""

    reader: CubeReader
    bands: list[int]
    grid: Grid
    model: ObservationModel
    strip_rows: int | None = None

    @property
    def lr_grid(self) -> Grid:
        """Grid of the LRHSI."""
        return lr_grid(self.grid, self.model.ratio, self.model.phase)

    @property
    def rows(self) -> int:
        """HR rows of a strip: as asked, else what fits the budget beside the halo, in whole tiles where it can be."""
        s = self.model.ratio
        fitting = VALUES_AT_ONCE // (len(self.bands) * self.grid.shape[1]) - 2 * halo_of(self.model) * s
        tile = next((tile for tile in TILES if tile <= fitting), 1)
        return max((self.strip_rows or fitting // tile * tile) // s, 1) * s

    @property
    def tile(self) -> int:
        """Side of GeoTIFF tiles that strips end with, so that few are compressed twice."""
        return next((tile for tile in TILES if self.rows % tile == 0), TILE)

    def pieces(self) -> Iterator[Piece]:
        """All strips, top to bottom."""
        s, cols = self.model.ratio, self.grid.shape[1]
        for span in spans(self.grid.shape[0] // s, self.rows // s, halo_of(self.model)):
            outer = span.outer(s)
            cube = self.reader.read(Window(0, outer.start, cols, outer.stop - outer.start), self.bands)
            lrhsi, lr_mask = degrade(self.model, cube.data, cube.mask)
            truth, mask = cube.data[:, span.inner(s)], cube.mask[span.inner(s)]
            msi = self.model.spectral(torch.from_numpy(truth)[None])[0].numpy()
            yield Piece(span.start, truth, msi, mask, lrhsi[:, span.inner()], lr_mask[span.inner()])


def mean_squares(observer: Observer) -> tuple[FloatArray64, FloatArray64]:
    """Mean square of each LRHSI band (C,) and each MSI band (c,) over the valid pixels."""
    lrhsi, msi = np.zeros(len(observer.bands)), np.zeros(observer.model.srf.shape[0])
    lr_count = hr_count = 0
    for piece in observer.pieces():
        lrhsi += np.square(piece.lrhsi[:, piece.lr_mask], dtype=np.float64).sum(axis=1)
        msi += np.square(piece.msi[:, piece.mask], dtype=np.float64).sum(axis=1)
        lr_count, hr_count = lr_count + int(piece.lr_mask.sum()), hr_count + int(piece.mask.sum())
    return lrhsi / max(1, lr_count), msi / max(1, hr_count)


def noise_of(observer: Observer, snrs: tuple[float | None, float | None]) -> list[FloatArray64 | None]:
    """Standard deviations of LRHSI (C,) and MSI (c,): each `snr` dB below a band's mean square; None: no noise.

    The mean squares, over the valid pixels, take a pass over the reference.
    """
    if snrs == (None, None):
        return [None, None]
    powers = zip(mean_squares(observer), snrs, strict=True)
    return [None if snr is None else np.sqrt(power * 10 ** (-snr / 10)) for power, snr in powers]


def noisy(data: FloatArray, sd: FloatArray64 | None, row: int, *seed: int) -> FloatArray:
    """A strip (C, h, w) from a row on with noise; each row has a generator of its own, so that strips don't matter."""
    if sd is None:
        return data
    out = data.copy()
    for i in range(data.shape[1]):
        draw = np.random.default_rng([*seed, row + i]).standard_normal(data[:, i].shape)
        out[:, i] += (draw * sd[:, None]).astype(np.float32)
    return out


log = logging.getLogger(__name__)

_SUFFIXES = {"envi": ".dat", "gtiff": ".tif"}


@dataclass(frozen=True)
class SimulatedPair:
    """What `simulate` made: three files, their sizes, the bands of the MSI, the settings in use and what to say."""

    lrhsi: Path
    msi: Path
    reference: Path
    lr_shape: tuple[int, int]
    hr_shape: tuple[int, int]
    hsi_bands: int
    msi_bands: tuple[str, ...]
    settings: dict[str, Any]
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Everything, with paths as text."""
        return {key: str(value) if isinstance(value, Path) else value for key, value in asdict(self).items()}

    def summary(self) -> str:
        """Three lines for people."""
        low, high = (" x ".join(map(str, shape)) for shape in (self.lr_shape, self.hr_shape))
        return (
            f"LRHSI      {self.lrhsi} ({low} pixels, {self.hsi_bands} bands)\n"
            f"MSI        {self.msi} ({high} pixels, bands {', '.join(self.msi_bands)})\n"
            f"reference  {self.reference} ({high} pixels, {self.hsi_bands} bands)"
        )


def simulate(
    reference: str | Path,
    outdir: str | Path,
    *,
    srf: str,
    ratio: int,
    msi_bands: Sequence[str] | None = None,
    mtf: float | None = None,
    psf_sigma: float | None = None,
    psf_size: int | None = None,
    phase: float | None = None,
    snr_hsi: float | None = None,
    snr_msi: float | None = None,
    nodata: str | float | None = None,
    seed: int = 0,
    hsi_format: str = "envi",
    msi_format: str = "gtiff",
    overwrite: bool = False,
    strip_rows: int | None = None,
) -> SimulatedPair:
    """Write LRHSI (C, h, w), MSI (c, H, W) and the cropped truth (C, H, W) to `outdir` from a reference cube.

    The PSF is a Gaussian with `mtf` (default 0.3) at the LR Nyquist frequency, or `psf_sigma` HR pixels wide, cut
    to `psf_size` taps; `phase` is the HR coordinate of LR pixel 0's centre (default centred), which the
    georeference of the LRHSI follows: what opens a georeferenced pair finds the pixels where they are and must not
    be told the phase again. Noise is Gaussian, independent, and `snr_*` dB below each band's mean square; without
    an SNR there is none. `msi_bands` are bands of the response; those that the reference doesn't cover are left
    out. `nodata` is the raw number, or "none", in place of what the reference declares; without it fill that nobody
    declared is masked as by `fuse`. `strip_rows` is the height of the strips in HR pixels. The three files are float32.
    Raises InputError, SrfError, SettingError and OutputError, leaving no output.

    >>> from hsfuse import simulate
    >>> pair = simulate(reference, folder, srf="sentinel2", ratio=4, msi_bands=["B2", "B3", "B4", "B8"], snr_hsi=35)
    >>> pair.lr_shape, pair.hr_shape, pair.msi_bands
    ((12, 12), (48, 48), ('B2', 'B3', 'B4', 'B8'))
    """
    if seed < 0:
        raise SettingError(f"the seed is {seed}, wanted 0 or more")
    for name, snr in (("LRHSI", snr_hsi), ("MSI", snr_msi)):
        if snr is not None and not isfinite(snr):
            raise SettingError(f"the {name}'s SNR is {snr:g}, wanted decibels; leave it out for no noise")
    mtf = DEFAULT_MTF if mtf is None else mtf
    sigma = sigma_from_mtf(mtf, ratio) if psf_sigma is None else psf_sigma
    psf = gaussian_psf(sigma, ratio, _checked(phase, ratio), psf_size)
    notes: list[str] = []
    with open_cube(reference, role="HSI") as opened, _folder(Path(outdir)) as folder:
        files = (folder / f"lrhsi{_suffix(hsi_format)}", folder / f"msi{_suffix(msi_format)}", folder / "reference.tif")
        for file in files:
            check_output(file, [reference], overwrite=overwrite)
        reader, kept, masked = settle_fill(opened, nodata)
        for line in texts(masked):
            log.warning("%s", line)
        response = load_srf(srf)
        notes += [*texts([*reader.notes, *kept]), *filter(None, [response.note])]
        bands = _usable(reader, notes)
        response, matrix = _covered(response, msi_bands, reader.spectrum.select(bands), notes)
        model = ObservationModel(matrix, psf, ratio, phase)
        observer = Observer(reader, bands, _cropped(reader.grid, ratio, notes), model, strip_rows)
        for note in notes:
            log.info("%s", note)
        settings = {
            "srf": response.name, "scale": ratio, "msi_bands": list(response.bands), "phase": model.phase,
            "mtf": mtf if psf_sigma is None else None, "psf_sigma": psf_sigma, "psf_size": psf_size,
            "snr_hsi": snr_hsi, "snr_msi": snr_msi, "nodata": nodata, "seed": seed,
        }  # fmt: skip
        _write(observer, response, files, settings, overwrite)
    return SimulatedPair(
        *files,
        observer.lr_grid.shape,
        observer.grid.shape,
        len(bands),
        response.bands,
        settings,
        (*texts(masked), *notes),
    )


def _checked(phase: float | None, ratio: int) -> float | None:
    if phase is not None and not 0 <= phase <= ratio - 1:
        raise SettingError(
            f"the phase is {phase:g}, wanted 0 to {ratio - 1} HR pixels (centred: {centred_phase(ratio):g})"
        )
    return phase


def _suffix(name: str) -> str:
    if name not in _SUFFIXES:
        raise SettingError(f"unknown format {name!r}; known: {', '.join(_SUFFIXES)}")
    return _SUFFIXES[name]


@contextmanager
def _folder(path: Path) -> Iterator[Path]:
    """The output folder, made when it isn't there, and gone again when the work fails."""
    made = not path.exists()
    try:
        path.mkdir(exist_ok=True)
    except FileNotFoundError:
        raise OutputError(f"the folder {path.parent} doesn't exist; make it first") from None
    except FileExistsError:
        raise OutputError(f"{path} is a file; name a folder for the outputs") from None
    try:
        yield path
    except BaseException:
        if made:
            with suppress(OSError):  # something else put a file there: what went wrong is what counts
                path.rmdir()
        raise


def _usable(reader: CubeReader, notes: list[str]) -> list[int]:
    """Bands that carry data; said aloud when some don't."""
    good = usable_bands(reader)
    bands = [int(i) for i in np.flatnonzero(good)]
    check_valid(reader, bands)
    if len(bands) < good.size:
        notes.append(f"{good.size - len(bands)} of {good.size} bands are marked bad or empty and are left out")
    return bands


def _covered(
    response: SpectralResponse, wanted: Sequence[str] | None, spectrum: Spectrum, notes: list[str]
) -> tuple[SpectralResponse, NDArray[np.float64]]:
    """The response's bands that the reference covers, and R (c, C) for them; the rest is said aloud."""
    asked = response if wanted is None else response.select(wanted)
    assert spectrum.wavelengths_nm is not None
    covered = covered_bands(asked, asked.bands, spectrum.wavelengths_nm, spectrum.fwhm_nm)
    if covered.note:
        notes.append(covered.note)
    return asked.select(covered.bands), covered.matrix


def _cropped(grid: Grid, s: int, notes: list[str]) -> Grid:
    """The grid cut to whole LR pixels, keeping its top left corner."""
    rows, cols = grid.shape[0] // s * s, grid.shape[1] // s * s
    if not rows or not cols:
        raise InputError(f"the reference has {grid.shape[0]} x {grid.shape[1]} pixels, too few for the ratio {s}")
    if (rows, cols) != grid.shape:
        notes.append(f"cropped from {grid.shape[0]} x {grid.shape[1]} to {rows} x {cols} pixels, multiples of {s}")
    return grid.crop(0, 0, (rows, cols))


def _write(
    observer: Observer, response: SpectralResponse, files: Sequence[Path], settings: dict[str, Any], overwrite: bool
) -> None:
    """The three files, all or none of them."""
    low_sd, high_sd = noise_of(observer, (settings["snr_hsi"], settings["snr_msi"]))
    seed = settings["seed"]
    spectrum = observer.reader.spectrum.select(observer.bands)
    msi = Spectrum(tuple(response.centres_nm.tolist()), tuple(response.fwhm_nm.tolist()), response.bands)
    parts = ((observer.lr_grid, spectrum), (observer.grid, msi), (observer.grid, spectrum))
    record = {
        "made by": "hsfuse simulate", "version": __version__, "reference": observer.reader.path.name,
        "reference_tags": observer.reader.tags, "settings": settings,
        "psf": observer.model.psf.label, "srf_sha256": response.sha256,
    }  # fmt: skip
    tags = {"provenance": json.dumps(record)}
    with ExitStack() as stack:
        lrhsi, msi_file, truth = (
            stack.enter_context(
                CubeWriter(file, grid, bands, Storage(block=observer.tile), tags=tags, overwrite=overwrite)
            )
            for file, (grid, bands) in zip(files, parts, strict=True)
        )
        for piece in observer.pieces():
            window = piece.hr_window
            lrhsi.write(piece.lr_window, noisy(piece.lrhsi, low_sd, piece.row, seed, 0), piece.lr_mask)
            msi_file.write(window, noisy(piece.msi, high_sd, int(window.row_off), seed, 1), piece.mask)
            truth.write(window, piece.truth, piece.mask)
        publish([lrhsi, msi_file, truth])
    if observer.reader.nonfinite:
        log.info("the reference holds NaN or Inf; those pixels are nodata in all three files")

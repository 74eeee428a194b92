"""Pairs that depart from what a fusion is told: another PSF, response, place, radiometry or noise than the files say.

A user knows none of it: the georeference says that both images lie on each other, the response is the library's, and
the PSF isn't given. What was done is written beside the pair (`truth-*`), so that the same method can be told the truth
and what not knowing costs can be measured. One cube in memory, in float64: plain rather than fast.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from affine import Affine
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.windows import Window
from scipy.ndimage import affine_transform, gaussian_filter1d

from hsfuse.benchmark.simulate import SimulatedPair
from hsfuse.core.cube import Spectrum
from hsfuse.core.errors import SettingError
from hsfuse.core.grid import Grid
from hsfuse.core.notes import texts
from hsfuse.io import CubeWriter, open_cube, usable_bands
from hsfuse.io.fill import without_fill
from hsfuse.physics import SpectralResponse, covered_bands, load_srf, write_srf
from hsfuse.physics.model import ObservationModel, Psf, box_psf, elliptic_psf, gaussian_psf
from hsfuse.physics.optics import centred_taps, gaussian, sigma_from_mtf

Floats = NDArray[np.float64]

NOISES = ("white", "striped", "sloped", "correlated")
#: Where a cube without georeference is put: some place of UTM zone 33 with pixels of 10 m.
SOMEWHERE = Affine(10, 0, 400000, 0, -10, 5800000)
#: Names of the files that tell the truth.
TRUTH_HSI, TRUTH_MSI, TRUTH_SRF, TRUTH_PSF = "truth-lrhsi.tif", "truth-msi.tif", "truth-srf.csv", "truth-psf.csv"


@dataclass(frozen=True)
class Mismatch:
    """How a pair departs from what is told of it; lengths in LR pixels, angles in degrees, wavelengths in nm.

    `psf`: gauss:MTF, box, gaussbox:MTF, ellipse:SIGMA_Y,SIGMA_X,DEGREES or comet:LENGTH (a tail to one side), MTF at
    the LR Nyquist frequency. `srf`: the response that the sensor really has; `srf_shift` and `srf_widen` change it.
    `shift` (rows, columns), `rotate` about the middle and `drift` (columns, from the first row to the last) move what
    the LRHSI sees under a georeference that doesn't know. MSI = `gain` (R x)^`gamma` + `offset`. `noise` of the LRHSI:
    white; striped (half of its variance the same in a whole column); sloped (the SNR falls with the band's number);
    correlated between bands. `smile`: the band centres' shift at both edges of the swath, nil in the middle.
    """

    name: str
    psf: str = "gauss:0.3"
    srf: str | None = None
    srf_shift: float = 0.0
    srf_widen: float = 1.0
    shift: tuple[float, float] = (0.0, 0.0)
    rotate: float = 0.0
    drift: float = 0.0
    gain: float = 1.0
    offset: float = 0.0
    gamma: float = 1.0
    noise: str = "white"
    smile: float = 0.0

    @classmethod
    def of(cls, table: Mapping[str, Any]) -> Mismatch:
        """From a table of a configuration; SettingError for a key or a value that makes no sense."""
        known = {f.name for f in fields(cls)}
        if strange := sorted(set(table) - known):
            raise SettingError(f"a mismatch has no {strange[0]!r}; known are {', '.join(sorted(known))}")
        if "name" not in table:
            raise SettingError(f"the mismatch {dict(table)!r} has no `name`")
        values: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in table.items()
        }
        made = cls(**values)
        if made.noise not in NOISES:
            raise SettingError(f"the noise of {made.name} is {made.noise!r}; known are {', '.join(NOISES)}")
        kernel(made.psf, 4)
        return made

    @property
    def moved(self) -> bool:
        """Whether the LRHSI sees other ground than its georeference says."""
        return any((*self.shift, self.rotate, self.drift))


def kernel(text: str, s: int) -> Psf:
    """The PSF that a text names at ratio s, on HR pixels; SettingError for one that isn't known."""
    kind, _, rest = text.partition(":")
    try:
        numbers = [float(part) for part in rest.split(",") if part]
        if kind == "gauss":
            (mtf,) = numbers
            return gaussian_psf(sigma_from_mtf(mtf, s), s)
        if kind == "box" and not numbers:
            return box_psf(s)
        if kind == "gaussbox":
            (mtf,) = numbers
            sigma = sigma_from_mtf(mtf, s)
            taps = np.convolve(gaussian(np.arange(-4 * s, 4 * s + 1.0), sigma), np.ones(s))
            return Psf(np.outer(taps, taps), "Gaussian times box")
        if kind == "ellipse":
            sigma_y, sigma_x, degrees = numbers
            return elliptic_psf(sigma_y * s, sigma_x * s, degrees, s)
        if kind == "comet":
            (length,) = numbers
            return _comet(length, s)
    except ValueError:
        pass
    raise SettingError(f"there is no PSF {text!r}; wanted gauss:MTF, box, gaussbox:MTF, ellipse:SY,SX,DEG or comet:LEN")


def _comet(length: float, s: int) -> Psf:
    """A round core of sigma .35 LR pixels and four ever weaker ones beside it, `length` long: smear to one side."""
    t = centred_taps(8 * s + s % 2)  # as many as can be centred at this ratio
    rows = gaussian(t, 0.35 * s)
    columns = sum(0.6**i * gaussian(t - length * s * i / 4, 0.35 * s) for i in range(5))
    return Psf(np.outer(rows, columns), "comet")


def true_response(mismatch: Mismatch, told: SpectralResponse) -> SpectralResponse:
    """What the sensor really has in place of the response that is `told`, bands by the same names."""
    real = told if mismatch.srf is None else load_srf(mismatch.srf).select(told.bands)
    if mismatch.srf_shift == 0 and mismatch.srf_widen == 1:
        return real
    reach = np.ptp(real.wavelengths_nm) * abs(mismatch.srf_widen - 1) + abs(mismatch.srf_shift)
    nm = np.arange(real.wavelengths_nm[0] - reach, real.wavelengths_nm[-1] + reach, 1.0)
    rows = [
        np.interp(centre + (nm - centre - mismatch.srf_shift) / mismatch.srf_widen, real.wavelengths_nm, row, 0, 0)
        for centre, row in zip(real.centres_nm, real.response, strict=True)
    ]
    return replace(real, name=f"{real.name} changed", wavelengths_nm=nm, response=np.array(rows), path=None)


def placed(mismatch: Mismatch, shape: tuple[int, int]) -> Affine:
    """LR pixel (column, row), counted from the first one's centre, to where its ground really lies, likewise."""
    rows, cols = shape
    middle = ((cols - 1) / 2, (rows - 1) / 2)
    turned = Affine.rotation(mismatch.rotate, middle)
    drifting = Affine(1, mismatch.drift / max(rows - 1, 1), 0, 0, 1, 0)
    return Affine.translation(mismatch.shift[1], mismatch.shift[0]) @ drifting @ turned


def moved(truth: Floats, place: Affine, s: int) -> Floats:
    """What (C, H, W) the LRHSI has at its own place: the truth seen through `place`, by cubic splines."""
    matrix = np.array([[place.e, place.d], [place.b, place.a]])  # rows first, as scipy has it
    centre = (s - 1) / 2
    offset = s * np.array([place.f, place.c]) + centre - matrix @ [centre, centre]
    return np.stack([affine_transform(band, matrix, offset, order=3, mode="mirror") for band in truth])


def smiled(lrhsi: Floats, wavelengths_nm: Floats, smile: float) -> Floats:
    """(C, h, w) with band centres shifted by `smile` nm at both edges of the swath, by its square between.

    Bands up to where wavelengths fall back are a detector, each by itself.
    """
    out = np.empty_like(lrhsi)
    detectors = np.split(np.arange(len(lrhsi)), np.flatnonzero(np.diff(wavelengths_nm) <= 0) + 1)
    for column, d in enumerate(smile * np.linspace(-1, 1, lrhsi.shape[2]) ** 2):
        for row, bands in product(range(lrhsi.shape[1]), detectors):
            nm = wavelengths_nm[bands]
            out[bands, row, column] = np.interp(nm + d, nm, lrhsi[bands, row, column])
    return out


def noise_like(image: Floats, snr: float | None, kind: str, rng: np.random.Generator) -> Floats:
    """Noise (C, h, w), of each band `snr` dB below its mean square; `sloped`: 8 dB less noise to 8 dB more."""
    if snr is None:
        return np.zeros_like(image)
    sd = np.sqrt(np.square(image).mean(axis=(1, 2))) * 10 ** (-snr / 20)
    draw = rng.standard_normal(image.shape)
    if kind == "striped":
        draw = (draw + rng.standard_normal((len(image), 1, image.shape[2]))) / np.sqrt(2)
    elif kind == "sloped":
        sd = sd * np.geomspace(0.4, 2.5, len(sd))
    elif kind == "correlated":
        draw = gaussian_filter1d(draw, 1.5, axis=0)
        draw /= draw.std()
    return draw * sd[:, None, None]


@dataclass(frozen=True)
class _Images:
    """What is made of a cube, on grids that lie on each other; `true_grid` is where the LRHSI really lies."""

    lrhsi: Floats
    msi: Floats
    truth: Floats
    grid: Grid
    true_grid: Grid
    spectrum: Spectrum
    told: SpectralResponse
    real: SpectralResponse
    psf: Psf
    notes: list[str] = field(default_factory=list)


def simulate_mismatch(
    reference: str | Path,
    folder: Path,
    mismatch: Mismatch,
    *,
    srf: str,
    ratio: int,
    msi_bands: tuple[str, ...] | None = None,
    snr_hsi: float | None = None,
    snr_msi: float | None = None,
    seed: int = 0,
) -> SimulatedPair:
    """Write a pair, its reference, and the truth about it (`truth-*`) to an existing folder.

    Raises InputError, SrfError and SettingError as `simulate` does.
    """
    made = _observe(reference, mismatch, srf, ratio, msi_bands)
    rng = np.random.default_rng([seed, ratio])
    lrhsi = made.lrhsi + noise_like(made.lrhsi, snr_hsi, mismatch.noise, rng)
    noise = noise_like(made.msi, snr_msi, "white", rng)
    msi = made.msi + noise
    linear = (msi - mismatch.offset) / mismatch.gain
    if mismatch.gamma != 1:
        linear = np.maximum(linear, 0) ** (1 / mismatch.gamma)
    spectrum = Spectrum(tuple(made.told.centres_nm.tolist()), tuple(made.told.fwhm_nm.tolist()), made.told.bands)
    true = Spectrum(tuple(made.real.centres_nm.tolist()), tuple(made.real.fwhm_nm.tolist()), made.real.bands)
    low = made.grid.coarsen(ratio)
    parts = {
        "lrhsi.tif": (lrhsi, low, made.spectrum),
        "msi.tif": (msi, made.grid, spectrum),
        "reference.tif": (made.truth, made.grid, made.spectrum),
        TRUTH_HSI: (lrhsi, made.true_grid, made.spectrum),
        TRUTH_MSI: (linear, made.grid, true),
    }
    for name, (data, grid, bands) in parts.items():
        with CubeWriter(folder / name, grid, bands, overwrite=True) as writer:
            rows, cols = grid.shape
            writer.write(Window(0, 0, cols, rows), data.astype(np.float32), np.ones(grid.shape, bool))
    write_srf(made.real, folder / TRUTH_SRF, overwrite=True)
    np.savetxt(folder / TRUTH_PSF, made.psf.kernel, delimiter=",")
    settings = {"srf": srf, "ratio": ratio, "snr_hsi": snr_hsi, "snr_msi": snr_msi, "seed": seed, **asdict(mismatch)}
    (folder / "truth.json").write_text(json.dumps(settings, indent=1), encoding="utf-8")
    return SimulatedPair(
        folder / "lrhsi.tif", folder / "msi.tif", folder / "reference.tif",
        low.shape, made.grid.shape, len(made.truth), made.told.bands, settings, tuple(made.notes),
    )  # fmt: skip


def _observe(reference: str | Path, mismatch: Mismatch, srf: str, s: int, msi_bands: tuple[str, ...] | None) -> _Images:
    """Both images without noise."""
    with open_cube(reference, role="HSI") as opened:
        reader = without_fill(opened)
        bands = [int(i) for i in np.flatnonzero(usable_bands(reader))]
        rows, cols = (n // s * s for n in reader.grid.shape)
        cube = reader.read(Window(0, 0, cols, rows), bands)
        spectrum, own, notes = reader.spectrum.select(bands), reader.grid, texts(reader.notes)
    if not cube.mask.all():
        raise SettingError(f"{reference} has invalid pixels; a mismatch is made of whole cubes: give a window without")
    grid = Grid((rows, cols), own.transform if own.georeferenced else SOMEWHERE, own.crs or CRS.from_epsg(32633))
    truth, nm = cube.data.astype(np.float64), np.asarray(spectrum.wavelengths_nm)
    asked = load_srf(srf) if msi_bands is None else load_srf(srf).select(msi_bands)
    covered = covered_bands(asked, asked.bands, spectrum.wavelengths_nm or (), spectrum.fwhm_nm)
    told = asked.select(covered.bands)
    real = true_response(mismatch, told)
    matrix, _ = real.matrix(nm, spectrum.fwhm_nm)
    model = ObservationModel(matrix, kernel(mismatch.psf, s), s)
    place = placed(mismatch, (rows // s, cols // s))
    seen = moved(truth, place, s) if mismatch.moved else truth
    lrhsi = model.spatial(torch.from_numpy(seen)[None])[0].numpy()
    linear = model.spectral(torch.from_numpy(truth)[None])[0].numpy()
    low = grid.coarsen(s)
    really = low.transform @ Affine.translation(0.5, 0.5) @ place @ Affine.translation(-0.5, -0.5)
    return _Images(
        smiled(lrhsi, nm, mismatch.smile) if mismatch.smile else lrhsi,
        mismatch.gain * np.maximum(linear, 0) ** mismatch.gamma + mismatch.offset,
        truth, grid, Grid(low.shape, really, low.crs), spectrum, told, real, model.psf, notes,
    )  # fmt: skip

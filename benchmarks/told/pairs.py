"""Pairs that are off in one way each; nothing here is hsfuse's, so that no figure rests on what it assumes alone.

A cube (H, W, C) is smiled, blurred on its own pixels and seen at LR pixels' centres by cubic splines; Sentinel-2's B2,
B3, B4 and B8 (or three bands of a camera) see it as flat tops. Lengths are in LR pixels, MTFs at the LR Nyquist. What
bends (`FIELDS`) displaces the ground before it is blurred.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.transform import from_origin
from scipy.ndimage import gaussian_filter, gaussian_filter1d, map_coordinates

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Off:
    """How a pair departs from what is told of it, as `KINDS` name it; SNR of the MSI is 5 dB above the LRHSI's."""

    psf: str = "gauss:.3"
    shift: tuple[float, float] = (0.0, 0.0)
    rotate: float = 0.0
    drift: float = 0.0
    srf_shift: float = 0.0
    srf_widen: float = 1.0
    gain: float = 1.0
    offset: float = 0.0
    gamma: float = 1.0
    noise: str = "white"
    smile: float = 0.0
    cloud: float = 0.0
    light: float = 0.0
    seam: float = 0.0
    field: tuple[float, float] = (0.0, 1.0)
    ridge: float = 0.0
    enlarged: str = ""
    dead: int = 0
    wild: str = ""
    header: float = 0.0
    loud: str = ""
    apart: tuple[float, float] = (0.0, 0.0)
    keystone: float = 0.0

    @property
    def turns(self) -> bool:
        """Whether more than a shift is off in place."""
        return bool(self.rotate or self.drift or self.bends)

    @property
    def bends(self) -> bool:
        """Whether more than an affine motion is off in place."""
        return bool(self.field[0] or self.ridge)


KINDS = {
    "nothing": Off(),
    "a Gaussian PSF, MTF .1": Off(psf="gauss:.1"),
    "a Gaussian PSF, MTF .41": Off(psf="gauss:.41"),
    "a Gaussian PSF, MTF .6": Off(psf="gauss:.6"),
    "a box PSF": Off(psf="box"),
    "a Gaussian (MTF .5) times box": Off(psf="gaussbox:.5"),
    "an elliptic PSF, turned": Off(psf="ellipse:.45,.25,30"),
    "a comet's tail of .5": Off(psf="comet:.5"),
    "a halo of .2, as wide as 1.5": Off(psf="halo:.41,.2,1.5"),
    "a halo of .1, as wide as 2": Off(psf="halo:.41,.1,2"),
    "a Moffat PSF, power 2.5": Off(psf="moffat:1,2.5"),
    "a shift of (.4, -.3)": Off(shift=(0.4, -0.3)),
    "a shift of (.5, .5)": Off(shift=(0.5, 0.5)),
    "a shift of (.7, -.6)": Off(shift=(0.7, -0.6)),
    "a header off by half a pixel": Off(header=0.5),
    "a rotation by .5 degrees": Off(rotate=0.5),
    "a drift of .5": Off(drift=0.5),
    "tail, shift and drift together": Off(psf="comet:.5", shift=(0.4, -0.3), drift=0.5),
    "a response 5 nm off": Off(srf_shift=5.0),
    "a response 20 % wider": Off(srf_widen=1.2),
    "a gain of 1.1, an offset of .02": Off(gain=1.1, offset=0.02),
    "a gamma of .8, gain and offset": Off(gain=1.1, offset=0.02, gamma=0.8),
    "a gamma of .45": Off(gamma=0.45),
    "stripes along columns": Off(noise="columns"),
    "stripes along rows": Off(noise="rows"),
    "noise growing with wavelength": Off(noise="sloped"),
    "noise correlated between bands": Off(noise="correlated"),
    "a smile of 3 nm": Off(smile=3.0),
    "thin cloud of .15 in the MSI": Off(cloud=0.15),
    "thin cloud of .3 in the MSI": Off(cloud=0.3),
    "an MSI that is 5 % brighter at its right": Off(light=0.05),
    "an MSI that is 15 % brighter at its right": Off(light=0.15),
    "an MSI whose right half is 10 % brighter": Off(seam=0.1),
    "two columns of 0 in a sixth of the bands": Off(dead=2),
    "a dozen wild values in the HSI": Off(wild="hsi"),
    "a dozen wild values in the MSI": Off(wild="msi"),
}
#: Kinds that are asked for by name, of an HSI up to 2300 nm: Sentinel-2's 20 m bands, too, enlarged to 10 m.
ENLARGED = {
    "six bands of twice the GSD, their pixels repeated": Off(enlarged="nearest"),
    "six bands of twice the GSD, interpolated": Off(enlarged="cubic"),
}
#: Kinds that are asked for by name: bands whose noise is far beyond the others', and weak ones that aren't to be lost.
LOUD = {
    "14 bands of noise": Off(loud="14:noise"),
    "20 bands of 15 dB": Off(loud="20:15"),
    "20 bands of 25 dB": Off(loud="20:25"),
    "noise in water vapour and at both ends": Off(loud="vapour:noise"),
    "0 dB in water vapour, 10 dB at both ends": Off(loud="vapour:0,10"),
    "noise growing fiftyfold with wavelength": Off(noise="steep"),
}
#: Kinds that are asked for by name, of an HSI up to 2300 nm: bands beyond 1000 nm from a detector that lies elsewhere,
#: by so many LR pixels down and right, or by more to the right from column to column, none in the middle.
APART = {
    "SWIR .1 off": Off(apart=(0.1, 0.0)),
    "SWIR .2 off": Off(apart=(0.2, 0.0)),
    "SWIR (-.3, .4) off": Off(apart=(-0.3, 0.4)),
    "SWIR (.2, -.1) off, a shift and a wide PSF": Off(psf="gauss:.1", shift=(0.4, -0.3), apart=(0.2, -0.1)),
    "keystone of .3 in the SWIR": Off(keystone=0.3),
}
#: Where the second detector begins, in nm.
SPLIT_NM = 1000.0
#: Kinds that are asked for by name: smooth fields of so many LR pixels RMS either way over so many, and a jump.
FIELDS = {
    f"a field of {size:g} over {length}".replace("0.", "."): Off(psf="gauss:.41", field=(size, length))
    for length in (8, 16, 32)
    for size in (0.15, 0.3, 0.5, 1.0)
} | {"a ridge of 2 that ends in a jump": Off(psf="gauss:.41", ridge=2.0)}


def kernel(text: str, s: int) -> Floats:
    """(8 s + 1,) * 2 taps on HR pixels about the LR pixel's centre, of a halo (12 s + 1,) * 2, sum 1."""
    kind, _, rest = text.partition(":")
    numbers = [float(one) for one in rest.split(",") if one]
    far = (6 if kind in ("halo", "moffat") else 4) * s
    y, x = np.mgrid[-far : far + 1, -far : far + 1].astype(float)

    def gauss(down: float, right: float, degrees: float = 0.0, off: float = 0.0) -> Floats:
        cos, sin = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
        u, v = (cos * x + sin * y - off * s) / (right * s), (cos * y - sin * x) / (down * s)
        return np.exp(-(u**2 + v**2) / 2)

    edge = np.clip(s / 2 + 0.5 - np.abs(np.arange(-far, far + 1)), 0, 1)
    if kind == "gauss":
        found = gauss(_sigma(numbers[0]), _sigma(numbers[0]))
    elif kind == "box":
        found = np.outer(edge, edge)
    elif kind == "gaussbox":
        found = gaussian_filter(np.outer(edge, edge), _sigma(numbers[0]) * s)
    elif kind == "ellipse":
        found = gauss(*numbers)
    elif kind == "halo":  # a core and so much of the light about it, as stray light and the ground's surroundings
        core, halo = gauss(_sigma(numbers[0]), _sigma(numbers[0])), gauss(numbers[2], numbers[2])
        found = (1 - numbers[1]) * core / core.sum() + numbers[1] * halo / halo.sum()
    elif kind == "moffat":  # of so many LR pixels' full width at half maximum, to a power (Moffat 1969)
        scale = numbers[0] * s / (2 * np.sqrt(2 ** (1 / numbers[1]) - 1))
        found = (1 + (x**2 + y**2) / scale**2) ** -numbers[1]
    else:  # a comet: smeared to one side, as of a moving platform with lag
        found = np.sum([0.6**i * gauss(0.35, 0.35, off=i * numbers[0] / 4) for i in range(5)], axis=0)
    return np.asarray(found / found.sum())


def _sigma(mtf: float) -> float:
    """exp(-2 pi^2 sigma^2 f^2) = MTF at f = 1/2."""
    return float(np.sqrt(-np.log(mtf) / (2 * np.pi**2 * 0.25)))


def true_kernel(off: Off, s: int) -> Floats:
    """What LR pixels see on HR pixels about where their georeference has them, a shift and the splines in it."""
    taps = kernel(off.psf, s)
    half = len(taps) // 2
    size = 2 * (half + s) + s % 2  # a pixel lies amid the taps at odd ratios, between them at even ones
    out = np.zeros((size + 4 * s + 1,) * 2)
    middle = out.shape[0] // 2
    out[middle - half : middle + half + 1, middle - half : middle + half + 1] = taps[::-1, ::-1]
    at = np.arange(size) - (size - 1) / 2
    grid = [middle - at[:, None] + off.shift[0] * s + 0 * at, middle - at + off.shift[1] * s + 0 * at[:, None]]
    return np.asarray(map_coordinates(out, grid, order=3, mode="mirror"))


def displaced(off: Off, shape: tuple[int, ...], s: int) -> Floats:
    """HR pixels (2, H, W), down and right, by which ground lies off that each has: the same for a shape and ratio.

    A field forgets itself to 1 / e over its length; a ridge rises to the right over half of the scene, and falls at
    once.
    """
    size, length = off.field
    drawn = np.random.default_rng(7).standard_normal((2, *shape[:2]))
    smooth = np.stack([gaussian_filter(one, length * s / 2, mode="wrap") for one in drawn])
    smooth -= smooth.mean((1, 2), keepdims=True)
    moved = size * s * smooth / smooth.std((1, 2), keepdims=True)
    y, x = (np.linspace(0, 1, n) for n in shape[:2])
    rising = x - 0.6 + 0.2 * y[:, None]
    moved[1] += off.ridge * s * np.where((rising < 0) & (rising > -0.5), 2 * rising + 1, 0)
    return np.asarray(moved)


def _moved(cube: Floats, off: Off, s: int) -> Floats:
    """The ground where LR pixels have it, before they blur it."""
    at = np.indices(cube.shape[:2]) + displaced(off, cube.shape, s)
    return np.stack([map_coordinates(band, at, order=3, mode="mirror") for band in np.moveaxis(cube, 2, 0)], -1)


def _blurred(cube: Floats, taps: Floats) -> Floats:
    """Every band convolved, borders mirrored."""
    n, (h, w, _) = len(taps) // 2, cube.shape
    padded = np.pad(cube, ((n, n), (n, n), (0, 0)), mode="symmetric")
    wave = np.fft.rfft2(taps[::-1, ::-1], s=padded.shape[:2])
    bands = [np.fft.irfft2(np.fft.rfft2(padded[..., b]) * wave, s=padded.shape[:2]) for b in range(cube.shape[2])]
    return np.stack([band[2 * n : 2 * n + h, 2 * n : 2 * n + w] for band in bands], -1)


def _seen(cube: Floats, nm: Floats, off: Off, s: int) -> Floats:
    """(h, w, C) at LR pixels' centres, moved by shift, rotation about the middle and a drift along the rows.

    Bands beyond `SPLIT_NM` are where their own detector has them.
    """
    h, w = cube.shape[0] // s, cube.shape[1] // s
    y, x = np.mgrid[:h, :w].astype(float)
    cy, cx, turn = (h - 1) / 2, (w - 1) / 2, np.radians(off.rotate)
    down = cy + (y - cy) * np.cos(turn) - (x - cx) * np.sin(turn) + off.shift[0]
    right = cx + (y - cy) * np.sin(turn) + (x - cx) * np.cos(turn) + off.shift[1] + off.drift * y / max(h - 1, 1)
    other = off.apart[0], off.apart[1] + off.keystone * (x / max(w - 1, 1) - 0.5)
    at = [
        [(place + beside) * s + (s - 1) / 2 for place, beside in zip((down, right), by, strict=True)]
        for by in ((0.0, 0.0), other)
    ]
    see = partial(map_coordinates, order=3, mode="mirror")
    return np.stack([see(cube[..., b], at[int(nm[b] > SPLIT_NM)]) for b in range(cube.shape[2])], -1)


#: Sentinel-2's B5, B6, B7, B8A, B11 and B12.
COARSE = ((698, 713), (733, 748), (773, 793), (855, 875), (1565, 1655), (2100, 2280))


def response(nm: Floats, shift: float = 0.0, widen: float = 1.0, coarse: bool = False) -> tuple[Floats, Floats]:
    """Wavelengths (n,) by 1 nm and the curves (c, n); with `coarse` those of Sentinel-2's 20 m bands, too."""
    fine = np.arange(np.floor(nm.min()) - 20, np.ceil(nm.max()) + 21)
    wide = nm.max() > 800
    bands = ((458, 523), (543, 578), (650, 680), (785, 900)) if wide else ((400, 500), (480, 600), (580, 700))
    all_bands = [*bands, *(COARSE if coarse else ())]
    middles = [((low + high) / 2 + shift, (high - low) / 2 * widen) for low, high in all_bands]
    return fine, np.array([1 / (1 + np.exp(np.clip((abs(fine - c) - half) / 2.5, -50, 50))) for c, half in middles])


def matrix(nm: Floats, fine: Floats, curves: Floats) -> Floats:
    """R (c, C), rows of sum 1, of spectra that are straight between bands."""
    hats = np.stack([np.interp(fine, nm, row, left=0, right=0) for row in np.eye(len(nm))], 1)
    weights = curves @ hats
    return np.asarray(weights / weights.sum(1, keepdims=True))


def louder(loud: str, nm: Floats, low: Floats) -> tuple[NDArray[np.intp], Floats, bool]:
    """Bands (n,) of an LRHSI (h, w, C) that are `loud`, their noise's deviation (n,), and whether they hold no ground.

    So many of 200, spread in runs of two, or those about 1400 and 1900 nm and a fiftieth at either end; "noise" has a
    third of the image's RMS, numbers are SNR in dB.
    """
    which, _, what = loud.partition(":")
    bands, rms = len(nm), np.sqrt((low**2).mean((0, 1)))
    if which == "vapour":
        ends = np.r_[: max(1, bands // 50), bands - max(1, bands // 50) : bands]
        middles = np.flatnonzero(((nm > 1340) & (nm < 1440)) | ((nm > 1790) & (nm < 1960)))
        chosen = np.union1d(ends, middles)
    else:
        ends = np.arange(0)
        count = int(which) * bands // 200
        chosen = np.unique((np.linspace(3, bands - 4, max(1, count // 2)).round()[:, None] + [0, 1]).astype(int))
    if what == "noise":
        return chosen, np.full(len(chosen), np.sqrt((rms**2).mean()) / 3), True
    decibels = [float(one) for one in what.split(",")]
    snr = np.where(np.isin(chosen, ends), decibels[-1], decibels[0])
    return chosen, rms[chosen] * 10 ** (-snr / 20), False


def _noise(image: Floats, db: float, kind: str, rng: np.random.Generator) -> Floats:
    sd = np.sqrt((image**2).mean((0, 1))) * 10 ** (-db / 20)
    draw = rng.normal(size=image.shape)
    if kind in ("columns", "rows"):
        lines = (1, *image.shape[1:]) if kind == "columns" else (image.shape[0], 1, image.shape[2])
        draw = 0.7 * draw + 0.7 * rng.normal(size=lines)
    elif kind == "without":  # what is left of striped noise
        draw = 0.7 * draw + 0 * rng.normal(size=(1, *image.shape[1:]))
    elif kind == "sloped":
        sd = sd * np.geomspace(0.4, 2.5, len(sd))
    elif kind == "steep":
        sd = sd * np.geomspace(0.4, 20, len(sd))
    elif kind == "correlated":
        draw = gaussian_filter1d(draw, 1.5, axis=2)
        draw /= draw.std()
    return draw * sd


def _smiled(cube: Floats, nm: Floats, smile: float) -> Floats:
    """Band centres `smile` nm higher at both edges than in the middle column."""
    out = np.empty_like(cube)
    for j, d in enumerate(np.linspace(-1, 1, cube.shape[1]) ** 2 * smile):
        out[:, j] = np.apply_along_axis(lambda one, at: np.interp(at, nm, one), 1, cube[:, j], nm + d)
    return out


#: Reflectance of a cloud, and its size in LR pixels.
CLOUD, CLOUD_LR = 0.7, 4.0


def _cloud(shape: tuple[int, ...], most: float, s: int) -> Floats:
    """Opacity (H, W) of thin cloud, nearly 0 over about a half, up to `most`; the same for a shape and ratio."""
    drawn = gaussian_filter(np.random.default_rng(5).standard_normal(shape), CLOUD_LR * s, mode="wrap")
    return np.asarray(most / (1 + np.exp(-3 * (drawn / drawn.std() - 0.3))))


def _lit(width: int, off: Off) -> Floats:
    """By how much the MSI is brighter in each of its columns, (width, 1)."""
    column = np.arange(width)[:, None]
    return np.asarray((1 + off.light * (column / width - 0.5)) * (1 + off.seam * (column >= width // 2)))


@dataclass(frozen=True)
class Files:
    """A pair on disk, and its truth (H, W, C)."""

    hsi: Path
    msi: Path
    srf: Path
    truth: Floats


def write_pair(cube: Floats, nm: Floats, s: int, off: Off, folder: Path, seed: int = 0, db: float = 35.0) -> Files:
    """A pair of a cube (H, W, C) at band centres (C,) as a user gets it: `off`, and told of nothing."""
    truth = cube[: cube.shape[0] // s * s, : cube.shape[1] // s * s]
    rng = np.random.default_rng(seed)
    fine, curves = response(nm, off.srf_shift, off.srf_widen, bool(off.enlarged))
    ground = _smiled(truth, nm, off.smile) if off.smile else truth
    blurred = _blurred(_moved(ground, off, s) if off.bends else ground, kernel(off.psf, s))
    low = _seen(blurred, nm, off, s)
    high = off.gain * np.clip(truth @ matrix(nm, fine, curves).T, 0, None) ** off.gamma + off.offset
    if off.cloud:
        veil = _cloud(high.shape[:2], off.cloud, s)[..., None]
        high = (1 - veil) * high + veil * CLOUD
    high = high * _lit(high.shape[1], off)
    low, high = low + _noise(low, db, off.noise, rng), high + _noise(high, db + 5, "white", rng)
    if off.loud:
        bands, sd, alone = louder(off.loud, nm, low)
        low[..., bands] = (0 if alone else low[..., bands]) + sd * rng.normal(size=(*low.shape[:2], len(bands)))
    for column in range(off.dead):
        low[:, (column + 1) * low.shape[1] // (off.dead + 1), low.shape[2] // 6 : low.shape[2] // 3] = 0
    if off.wild:
        _run_wild({"hsi": low, "msi": high}[off.wild])
    if off.enlarged:
        high[..., -len(COARSE) :] = _enlarged(high[..., -len(COARSE) :], {"nearest": 0, "cubic": 3}[off.enlarged])
    return _written(folder, low, high, nm, s, truth, *response(nm, coarse=bool(off.enlarged)), off.header)


def write_told(cube: Floats, nm: Floats, s: int, off: Off, folder: Path, seed: int = 0, db: float = 35.0) -> Files:
    """The same pair without stripes, smile, dead columns, loud or enlarged bands, cloud, light, curve; its response."""
    clean = replace(
        off,
        smile=0.0,
        enlarged="",
        dead=0,
        loud="",
        wild="",
        header=0.0,
        apart=(0.0, 0.0),
        keystone=0.0,
        noise="without" if off.noise in ("columns", "rows") else off.noise,
    )
    files = write_pair(cube, nm, s, clean, folder, seed, db)
    with rasterio.open(files.msi) as source:
        high = np.moveaxis(source.read(), 0, 2)
    with rasterio.open(files.hsi) as source:
        low = np.moveaxis(source.read(), 0, 2)
    veil = _cloud(high.shape[:2], off.cloud, s)[..., None]
    high = (high / _lit(high.shape[1], off) - veil * CLOUD) / (1 - veil)
    linear = np.clip((high - off.offset) / off.gain, 0, None) ** (1 / off.gamma) if off.gamma != 1 else high
    if off.gamma == 1 and (off.gain, off.offset) != (1, 0):
        linear = (high - off.offset) / off.gain
    return _written(folder, low, linear, nm, s, files.truth, *response(nm, off.srf_shift, off.srf_widen))


#: Wild values, in multiples of their band's range above its highest, and how far a 16-bit integer of 10^-4 wraps.
WILD, WRAPPED = (5.0, 20.0, 50.0, -2.0), 6.5536


def _run_wild(image: Floats) -> None:
    """A dozen values of an image (H, W, C), single ones of single bands, are far from all others, or wrapped."""
    rng = np.random.default_rng(11)
    low, high = image.min((0, 1)), image.max((0, 1))
    for i in range(12):
        at = tuple(int(rng.integers(1, n - 1)) for n in image.shape)
        beyond = [high[at[2]] + times * (high[at[2]] - low[at[2]]) for times in WILD]
        image[at] = [*beyond, image[at] - WRAPPED, image[at] + WRAPPED][i % (len(WILD) + 2)]


def _enlarged(bands: Floats, order: int) -> Floats:
    """Means of 2 x 2 pixels of bands (H, W, c), brought back to the grid by a spline."""
    rows, cols = (n // 2 for n in bands.shape[:2])
    means = bands[: 2 * rows, : 2 * cols].reshape(rows, 2, cols, 2, -1).mean((1, 3))
    at = np.meshgrid(*((np.arange(n) - 0.5) / 2 for n in bands.shape[:2]), indexing="ij")
    return np.stack([map_coordinates(one, at, order=order, mode="nearest") for one in np.moveaxis(means, 2, 0)], 2)


def _written(
    folder: Path,
    low: Floats,
    high: Floats,
    nm: Floats,
    s: int,
    truth: Floats,
    fine: Floats,
    curves: Floats,
    beside: float = 0.0,
) -> Files:
    files = Files(folder / "hs.img", folder / "ms.tif", folder / "srf.csv", truth)
    images = ((files.hsi, low, 10.0 * s, "ENVI", beside), (files.msi, high, 10.0, "GTiff", 0.0))
    for path, image, size, driver, off in images:
        shape = {"height": image.shape[0], "width": image.shape[1], "count": image.shape[2]}
        place = {"crs": "EPSG:32633", "transform": from_origin(4e5 + off * size, 5.8e6 - off * size, size, size)}
        with rasterio.open(path, "w", driver=driver, dtype="float32", **shape, **place) as file:
            file.write(np.moveaxis(image, 2, 0).astype("float32"))
    with files.hsi.with_suffix(".hdr").open("a") as header:
        header.write(f"wavelength units = Nanometers\nwavelength = {{ {', '.join(f'{one:.2f}' for one in nm)} }}\n")
    names = ",".join(f"b{i + 1}" for i in range(len(curves)))
    rows = [f"{one:.0f}," + ",".join(f"{c:.5f}" for c in curves[:, i]) for i, one in enumerate(fine)]
    files.srf.write_text("\n".join([f"wavelength_nm,{names}", *rows]) + "\n")
    return files

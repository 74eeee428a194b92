"""Lift photographs and multispectral images to hyperspectral cubes, to train weights for any sensor on more textures.

    python examples/make_lifted_scenes.py IMAGES LIBRARY OUT

IMAGES holds pictures (PNG, JPEG, GeoTIFF), LIBRARY a spectral library as `.npz` (`spectra` (n, bands) and
`wavelengths_nm`); OUT receives three cubes per picture as `.npz` for the `[data]` of a training configuration.

Pixels are clustered by colour, brightness, texture and two random fields that no eye sees; soft memberships are the
abundances of as many mixed library spectra, which vary within a material by smooth spectral shapes, and brightness
shades them.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import rasterio
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

#: Side of a cube in pixels, cubes per picture, and nm in which air lets no light through.
SIDE, CUBES, OPAQUE = 160, 3, ((1340, 1440), (1800, 1960))
Image = NDArray[np.float64]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("images", "library", "out"):
        parser.add_argument(name, type=Path)
    given = parser.parse_args()
    held = np.load(given.library)
    spectra, nm = held["spectra"].astype(float), held["wavelengths_nm"].astype(float)
    clear = ~np.any([(nm > low) & (nm < high) for low, high in OPAQUE], axis=0)
    spectra, nm = spectra[np.isfinite(spectra).all(1)][:, clear], nm[clear]
    given.out.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(1)
    for file in sorted(given.images.iterdir()):
        with rasterio.open(file) as picture:
            bands = picture.read().astype(float)
        low, high = np.percentile(bands, (0.5, 99.8), axis=(1, 2), keepdims=True)
        bands = ((bands - low) / np.maximum(high - low, 1e-9)).clip(0, 1.2)
        for number in range(CUBES):
            cube = lifted(window(bands, random), spectra, random)
            np.savez(given.out / f"{file.stem}-{number}.npz", cube=cube / np.percentile(cube, 99.95), wavelengths_nm=nm)


def window(bands: Image, random: np.random.Generator) -> Image:
    """A random square of a picture (c, H, W), of which pixels are sometimes averaged first."""
    step = int(random.integers(1, 4)) if min(bands.shape[1:]) >= 3 * SIDE else 1
    rows, cols = (n // step for n in bands.shape[1:])
    bands = bands[:, : rows * step, : cols * step].reshape(-1, rows, step, cols, step).mean((2, 4))
    side = min(SIDE, rows, cols)
    row, col = int(random.integers(rows - side + 1)), int(random.integers(cols - side + 1))
    return bands[:, row : row + side, col : col + side]


def lifted(bands: Image, spectra: Image, random: np.random.Generator) -> NDArray[np.float32]:
    """A cube (C, H, W) of library spectra (n, C) with the texture of a picture (c, H, W)."""
    shape, bright = bands.shape[1:], bands.mean(0) + 0.02
    rough = np.sqrt(gaussian_filter((bright - gaussian_filter(bright, 2)) ** 2, 2)) / gaussian_filter(bright, 2)
    seen = np.stack([*(bands / bright)[: max(1, len(bands) - 1)], np.log(bright), np.log(rough + 1e-3)])
    seen = (seen - seen.mean((1, 2), keepdims=True)) / (seen.std((1, 2), keepdims=True) + 1e-6)
    looks = np.concatenate([seen, 0.7 * np.stack([field(shape, 1.6, random) for _ in range(2)])]).reshape(
        len(seen) + 2, -1
    )
    apart = clusters(looks, int(random.integers(5, 13)), random)
    share = np.exp(-(apart - apart.min(0)) / random.uniform(0.05, 0.8))
    share /= share.sum(0)
    mixed, of = random.random(len(share))[:, None], random.integers(len(spectra), size=(2, len(share)))
    cube = (mixed * spectra[of[0]] + (1 - mixed) * spectra[of[1]]).T @ share
    for _ in range(int(random.integers(2, 5))):
        form = np.interp(np.linspace(0, 6, len(cube)), np.arange(7), random.normal(size=7))
        hidden = field(shape, random.uniform(0.6, 1.4), random).ravel()
        where = hidden if random.random() < 0.5 else looks[random.integers(len(seen))] * random.choice([-1, 1])
        cube = cube * (
            1 + random.uniform(0.01, 0.06) * form[:, None] * (where * ((random.random(len(share)) < 0.5) @ share))
        )
    usual = np.array([np.average(bright.ravel(), weights=one + 1e-9) for one in share])
    shade = (bright.ravel() / (usual @ share)) ** random.uniform(0.5, 1.2)
    return np.asarray(cube * shade, np.float32).reshape(-1, *shape).clip(0)


def field(shape: tuple[int, ...], steep: float, random: np.random.Generator) -> Image:
    """A random field whose amplitudes fall with frequency to the power `steep`, of mean 0 and variance 1."""
    frequency = np.hypot(np.fft.fftfreq(shape[0])[:, None], np.fft.rfftfreq(shape[1]))
    frequency[0, 0] = 1
    values = np.fft.irfft2(np.fft.rfft2(random.normal(size=shape)) * frequency**-steep, s=shape)
    return (values - values.mean()) / values.std()


def clusters(looks: Image, count: int, random: np.random.Generator) -> Image:
    """Squared distances (count, pixels) of pixels (features, pixels) to centres, after four steps of k-means."""
    centres = looks[:, random.integers(looks.shape[1], size=count)]
    for _ in range(4):
        nearest = ((looks[:, None] - centres[:, :, None]) ** 2).sum(0).argmin(0)
        for one in set(nearest.tolist()):
            centres[:, one] = looks[:, nearest == one].mean(1)
    return ((looks[:, None] - centres[:, :, None]) ** 2).sum(0)


if __name__ == "__main__":
    main()

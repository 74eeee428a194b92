"""Random sensors and random scenes: what one training draw varies, so that weights meet no scene they don't know."""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray

from hsfuse.nets.srlf import dihedral
from hsfuse.physics import SpectralResponse, list_srfs, load_srf

Array = NDArray[np.float32]

#: A library band takes part when the cube covers at least this share of its response.
MIN_COVERAGE = 0.7


def crop(cube: Array, size: int, multiple: int, rng: np.random.Generator) -> Array:
    """Random window (C, H, W), rotated or mirrored: sides `size` or the cube's, whole multiples of `multiple`.

    Cubes at least twice that large are sometimes binned 2 x 2 first: the same place at a coarser GSD.
    """
    if min(cube.shape[1:]) >= 2 * size and rng.random() < 0.5:
        h, w = (n // 2 * 2 for n in cube.shape[1:])
        cube = cube[:, :h, :w].reshape(cube.shape[0], h // 2, 2, w // 2, 2).mean((2, 4))
    h, w = (min(n, size) // multiple * multiple for n in cube.shape[1:])
    row, col = (int(rng.integers(n - side + 1)) for n, side in zip(cube.shape[1:], (h, w), strict=True))
    window = cube[:, row : row + h, col : col + w]
    return dihedral(torch.from_numpy(np.array(window)), int(rng.integers(8))).contiguous().numpy()


def spectral_variant(
    cube: Array, wavelengths_nm: NDArray[np.float64], rng: np.random.Generator
) -> tuple[Array, NDArray[np.float64]]:
    """A cube as another sensor would see it: part of the range, wider bands, another gain per band, another gamma."""
    if rng.random() < 0.5:
        count = int(rng.integers(min(max(24, cube.shape[0] // 3), cube.shape[0]), cube.shape[0] + 1))
        first = int(rng.integers(cube.shape[0] - count + 1))
        cube, wavelengths_nm = cube[first : first + count], wavelengths_nm[first : first + count]
    if cube.shape[0] >= 90 and rng.random() < 0.3:
        n = cube.shape[0] // 2
        cube = cube[: 2 * n].reshape(n, 2, *cube.shape[1:]).mean(1)
        wavelengths_nm = wavelengths_nm[: 2 * n].reshape(n, 2).mean(1)
    if rng.random() < 0.5:
        cube = cube * smooth_gain(cube.shape[0], rng)[:, None, None]
    if rng.random() < 0.25:
        cube = np.power(np.maximum(cube, 0), np.float32(rng.uniform(0.75, 1.35)))
    return cube.astype(np.float32), wavelengths_nm


def smooth_gain(count: int, rng: np.random.Generator, strength: float = 0.5) -> Array:
    """Random smooth positive curve (count,) with five control points, such as light or a detector gives."""
    knots = rng.normal(0, strength, 5)
    return np.exp(np.interp(np.linspace(0, 4, count), np.arange(5), knots)).astype(np.float32)


def random_srf(wavelengths_nm: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float64]:
    """R (c, C), rows sum to 1: a library sensor's bands that the cube covers, or 3 to 12 random Gaussians."""
    if rng.random() < 0.5:
        known = library_matrix(wavelengths_nm, rng)
        if known is not None:
            return known
    count = int(rng.integers(3, 13))
    low, high = wavelengths_nm[0], wavelengths_nm[-1]
    if rng.random() < 0.5:  # as most multispectral sensors: nothing beyond the near infrared
        high = max(min(high, 950.0), low + 0.3 * (high - low))
    centres = np.sort(rng.uniform(low, high, count))
    widths = (high - low) * np.exp(rng.uniform(np.log(0.02), np.log(0.25), count)) / 2.355
    response = np.exp(-((wavelengths_nm - centres[:, None]) ** 2) / (2 * widths[:, None] ** 2)) + 1e-12
    return response / response.sum(1, keepdims=True)


def library_matrix(wavelengths_nm: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float64] | None:
    """R of a random library sensor, or of a random part of its bands; None when fewer than 3 are covered."""
    sensors = _library()
    matrix, coverage = sensors[int(rng.integers(len(sensors)))].matrix(wavelengths_nm)
    covered = np.flatnonzero(coverage >= MIN_COVERAGE)
    if covered.size < 3:
        return None
    keep = covered if rng.random() < 0.5 else rng.choice(covered, int(rng.integers(3, covered.size + 1)), replace=False)
    return matrix[np.sort(keep)][:12]


@cache
def _library() -> list[SpectralResponse]:
    return [load_srf(record.name) for record in list_srfs()]


def add_noise(image: Array, snr_db: float, rng: np.random.Generator) -> Array:
    """White noise at a signal-to-noise ratio, the same in all bands or (one draw in two) in proportion to each."""
    power = (image.astype(np.float64) ** 2).mean((1, 2), keepdims=True)
    if rng.random() < 0.5:
        power = np.full_like(power, power.mean())
    sd = np.sqrt(power * 10 ** (-snr_db / 10))
    return np.maximum(image + rng.normal(size=image.shape) * sd, 0).astype(np.float32)


#: How far `spectral_change` moves and stretches spectra, RMS in nm, and how strong its gains are.
WARP_NM, CHANGE_GAIN = 8.0, 0.15


def spectral_change(wavelengths_nm: NDArray[np.float64], rng: np.random.Generator) -> Array:
    """T (C, C) that turns spectra into others as plausible: moved and stretched along the axis, under another light.

    A linear map of spectra commutes with blur and decimation, so estimates of a scene are turned into estimates of the
    changed scene by the same T.
    """
    middle, half = wavelengths_nm.mean(), np.ptp(wavelengths_nm) / 2
    moved, stretched = rng.normal(0, WARP_NM, 2)
    places = wavelengths_nm + moved + stretched * (wavelengths_nm - middle) / half
    warp = np.stack([np.interp(places, wavelengths_nm, unit) for unit in np.eye(len(wavelengths_nm))], 1)
    gains = smooth_gain(len(wavelengths_nm), rng, CHANGE_GAIN)
    return (gains[:, None] * warp).astype(np.float32)

"""A smooth scene of any size, made block by block: five materials mixed, seen by an LRHSI and an MSI of four bands."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import rasterio
from affine import Affine
from rasterio.windows import Window

from hsfuse.physics import load_srf

#: Bands of the MSI, those of Sentinel-2A.
MSI = ("B2", "B3", "B4", "B8")
RATIO, ROWS, MATERIALS = 4, 256, 5


def make_pair(folder: Path, side: int, bands: int, seed: int = 0) -> tuple[Path, Path]:
    """hsi.tif (40 m) and msi.tif (10 m), packed float32, of side x side MSI pixels, where they aren't there yet."""
    hsi, msi = folder / f"hsi-{side}-{bands}-{seed}.tif", folder / f"msi-{side}-{bands}-{seed}.tif"
    if hsi.exists() and msi.exists():
        return hsi, msi
    rng, nm = np.random.default_rng(seed), np.linspace(420, 930, bands)
    spectra = 0.05 + 0.4 * np.abs(
        np.sin(nm[None] / rng.uniform(60, 160, (MATERIALS, 1)) + rng.uniform(0, 6, (MATERIALS, 1)))
    )
    waves = rng.uniform(0.01, 0.4, (MATERIALS, 2)), rng.uniform(0, 6, (MATERIALS, 2))
    same = {
        "driver": "GTiff",
        "dtype": "float32",
        "crs": "EPSG:32633",
        "tiled": True,
        "blockxsize": 256,
        "blockysize": 256,
        "interleave": "band",
        "compress": "deflate",
        "zlevel": 1,
    }
    place = Affine(10, 0, 600000, 0, -10, 5000000)
    sizes = [
        {"count": bands, "height": side // RATIO, "width": side // RATIO, "transform": place * Affine.scale(RATIO)},
        {"count": len(MSI), "height": side, "width": side, "transform": place},
    ]
    seen, _ = load_srf("sentinel2a").select(MSI).matrix(nm, np.full(bands, nm[1] - nm[0]))
    with rasterio.open(hsi, "w", **same, **sizes[0]) as low, rasterio.open(msi, "w", **same, **sizes[1]) as high:
        low.descriptions, high.descriptions = [f"{value:.2f} nm" for value in nm], MSI
        for row in range(0, side, ROWS):
            y, x = np.mgrid[row : min(row + ROWS, side), :side]
            shares = np.stack(
                [2 + np.sin(a[0] * y + b[0]) + np.cos(a[1] * x + b[1]) for a, b in zip(*waves, strict=True)]
            )
            shares /= shares.sum(0)
            h = len(y) // RATIO
            means = shares.reshape(MATERIALS, h, RATIO, side // RATIO, RATIO).mean((2, 4))
            noise = rng.normal(0, 2e-3, (bands, h, side // RATIO))
            low.write(
                (np.tensordot(spectra.T, means, 1) + noise).astype("float32"),
                window=Window(0, row // RATIO, side // RATIO, h),
            )
            high.write(np.tensordot(seen @ spectra.T, shares, 1).astype("float32"), window=Window(0, row, side, len(y)))
    return hsi, msi

"""Hold every figure of `hsfuse assess` against independent code, and print the two side by side as Markdown.

    pip install sewar
    python examples/agreement.py "Indian Pines" fused.tif --reference examples/data/indian_pines_reference.tif \
        --hsi examples/data/lrhsi.dat --msi examples/data/sentinel2.tif --srf sentinel2

The files must lie on one nested grid with valid pixels only. Independent are torchmetrics, scikit-image, sewar (left
out where it isn't installed) and plain numpy and scipy by the formula, on arrays read by rasterio; no metric of hsfuse
is called for them. The last column says why two figures that aren't the same differ.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import torch
from numpy.typing import NDArray
from scipy import ndimage
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from torchmetrics.functional import image as tm

from hsfuse import metrics
from hsfuse.assessment import Assessment, assess
from hsfuse.pair import ScenePair, open_pair

try:
    from sewar import full_ref
except ImportError:
    full_ref = None

Array = NDArray[np.float64]
#: (metric, figure, whose, why it differs where it does, and hsfuse's own figure where it isn't the assessment's)
Line = tuple[Any, ...]
WINDOW = 32
BORDER = "counts windows over a mirrored border"


def read(path: str | Path) -> Array:
    """A cube (C, H, W) in reflectance, as rasterio gives it."""
    with rasterio.open(path) as file:
        scale, offset = np.array(file.scales)[:, None, None], np.array(file.offsets)[:, None, None]
        return np.asarray(file.read(), np.float64) * scale + offset


def with_reference(x: Array, y: Array, scale: float, peak: float, window: int) -> Iterator[Line]:
    """Figures of fused x against reference y, both (C, H, W)."""
    tx, ty = torch.from_numpy(x)[None], torch.from_numpy(y)[None]
    yield (
        "psnr",
        np.mean([peak_signal_noise_ratio(b, a, data_range=peak) for a, b in zip(x, y, strict=True)]),
        "scikit-image",
        "",
    )
    yield "psnr_global", float(tm.peak_signal_noise_ratio(tx, ty, data_range=peak)), "torchmetrics", ""
    mse = ((x - y) ** 2).mean((1, 2))
    yield "psnr_band_peak", np.mean(10 * np.log10(y.max((1, 2)) ** 2 / mse)), "numpy", ""
    yield "rmse", np.sqrt(mse.mean()), "numpy", ""
    yield "relative_rmse", np.linalg.norm(x - y) / np.linalg.norm(y), "numpy", ""
    yield "dd", np.abs(x - y).mean(), "numpy", ""
    yield "sam", np.degrees(float(tm.spectral_angle_mapper(tx, ty))), "torchmetrics", ""
    angle = np.degrees(
        np.arccos(np.clip((x * y).sum(0) / np.linalg.norm(x, axis=0) / np.linalg.norm(y, axis=0), -1, 1))
    )
    yield "sam_median", np.percentile(angle, 50, method="inverted_cdf"), "numpy", "to the nearest 0.001 degree"
    yield "sam_p95", np.percentile(angle, 95, method="inverted_cdf"), "numpy", "to the nearest 0.001 degree"
    yield "ergas", float(tm.error_relative_global_dimensionless_synthesis(tx, ty, ratio=scale)), "torchmetrics", ""
    yield "cc", np.mean([np.corrcoef(a.ravel(), b.ravel())[0, 1] for a, b in zip(x, y, strict=True)]), "numpy", ""
    laplace = 9 * (np.arange(9).reshape(3, 3) == 4) - np.ones((3, 3))
    edges = [[ndimage.convolve(p, laplace)[1:-1, 1:-1].ravel() for p in planes] for planes in zip(x, y, strict=True)]
    yield "scc", np.mean([np.corrcoef(*pair)[0, 1] for pair in edges]), "scipy, numpy", ""
    yield "uiqi", np.mean([sliding_q(a, b, window) for a, b in zip(x, y, strict=True)]), "scipy by the formula", ""
    full = tm.structural_similarity_index_measure(tx, ty, sigma=1.5, data_range=peak, return_full_image=True)
    yield "ssim", float(full[1][..., 5:-5, 5:-5].mean()), "torchmetrics, windows inside only", ""
    yield "ssim", float(full[0]), "torchmetrics as it is", BORDER
    gauss = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": peak}
    yield "ssim", np.mean([structural_similarity(a, b, **gauss) for a, b in zip(x, y, strict=True)]), "scikit-image", ""
    yield "uiqi", float(tm.universal_image_quality_index(tx, ty)), "torchmetrics", "Gaussian windows of 11 x 11"
    if full_ref is not None:
        yield from by_sewar(np.moveaxis(x, 0, 2), np.moveaxis(y, 0, 2), scale, window)


def by_sewar(x: Array, y: Array, scale: float, window: int) -> Iterator[Line]:
    """What sewar has, of cubes (H, W, C)."""
    yield "rmse", full_ref.rmse(y, x), "sewar", ""
    yield "sam", np.degrees(full_ref.sam(y, x)), "sewar", ""
    yield "ergas", full_ref.ergas(y, x, r=1 / scale), "sewar", ""
    yield from q2n_of("q2n", x, y, window)
    yield "scc", full_ref.scc(y, x), "sewar", "local correlation in windows of 8 x 8"
    yield "uiqi", full_ref.uqi(y, x, ws=window), "sewar", "divides by the window's means where the formula has sums"


def q2n_of(name: str, x: Array, y: Array, window: int) -> Iterator[Line]:
    """Q2n of cubes (H, W, C) by sewar: of all of them and, where that isn't the same, of their whole blocks.

    It fills up to a power of 2 components before it normalises them, which makes the new ones 1 in place of 0.
    """
    size = 1 << (x.shape[2] - 1).bit_length()
    filled = [] if size == x.shape[2] else [f"fills up to {size} components with ones, not zeros"]
    whole = [n // window * window for n in x.shape[:2]]
    ours = metrics.q2n(np.moveaxis(x, 2, 0), np.moveaxis(y, 2, 0), window)
    mirrored = [] if tuple(whole) == x.shape[:2] else ["mirrors the border to whole blocks"]
    yield name, full_ref.q2n(y, x, ws=window), "sewar", "; ".join(mirrored + filled), ours
    if mirrored:
        x, y = (cube[: whole[0], : whole[1]] for cube in (x, y))
        ours = metrics.q2n(np.moveaxis(x, 2, 0), np.moveaxis(y, 2, 0), window)
        yield (
            f"{name}, upper left {whole[0]} x {whole[1]}",
            full_ref.q2n(y, x, ws=window),
            "sewar",
            "; ".join(filled),
            ours,
        )


def sliding_q(a: Array, b: Array, window: int) -> float:
    """Mean of Wang and Bovik's Q over all windows inside two planes, by scipy's uniform filter."""
    first = window // 2
    inside = tuple(slice(first, first + n - window + 1) for n in a.shape)
    ma, mb, aa, bb, ab = (ndimage.uniform_filter(p, window)[inside] for p in (a, b, a * a, b * b, a * b))
    spread, level = aa - ma**2 + bb - mb**2, ma**2 + mb**2
    q = 4 * (ab - ma * mb) * ma * mb / np.where(spread * level > 0, spread * level, 1)
    return float(np.where(spread > 1e-12 * (aa + bb), q, 2 * ma * mb / level).mean())


def blockwise(cube: Array, window: int) -> Array:
    """Q between all pairs of bands (C, C), mean over the blocks that cover the image evenly."""
    starts = [[round(s) for s in np.floor(np.linspace(0, n - window, -(-n // window)))] for n in cube.shape[1:]]
    found = []
    for row, col in itertools.product(*starts):
        pixels = cube[:, row : row + window, col : col + window].reshape(len(cube), -1)
        cov, mean = np.cov(pixels, bias=True), pixels.mean(1)
        variance = np.diag(cov)
        level, spread = mean[:, None] ** 2 + mean**2, variance[:, None] + variance
        found.append(4 * cov * np.outer(mean, mean) / level / spread)
    return np.mean(found, axis=0)


def degraded(cube: Array, pair: ScenePair) -> Array:
    """A cube seen by the LRHSI's sensor, by scipy's convolution with the two-dimensional PSF, then picked pixels."""
    kernel, s = pair.model.psf.kernel, pair.ratio
    first = round(pair.model.phase - (kernel.shape[0] - 1) / 2)  # where the PSF of the first LR pixel begins
    shift = first + kernel.shape[0] // 2
    blurred = [ndimage.correlate(band, kernel, mode="reflect") for band in cube]
    return np.stack([band[shift::s, shift::s][: cube.shape[1] // s, : cube.shape[2] // s] for band in blurred])


def without_reference(x: Array, low: Array, msi: Array, pair: ScenePair, window: int) -> Iterator[Line]:
    """Figures of fused x (C, H, W) against LRHSI (C, h, w) and MSI (c, H, W)."""
    matrix = pair.model.srf.double().numpy()
    down, seen, seen_low = degraded(x, pair), np.tensordot(matrix, x, 1), np.tensordot(matrix, low, 1)
    for prefix, a, b in (("hsi_", down, low), ("msi_", seen, msi)):
        yield f"{prefix}rmse", np.sqrt(((a - b) ** 2).mean()), "scipy, numpy", ""
        yield f"{prefix}relative_rmse", np.linalg.norm(a - b) / np.linalg.norm(b), "scipy, numpy", ""
        yield f"{prefix}dd", np.abs(a - b).mean(), "scipy, numpy", ""
        if len(a) > 1:
            angle = tm.spectral_angle_mapper(torch.from_numpy(a)[None], torch.from_numpy(b)[None])
            yield f"{prefix}sam", np.degrees(float(angle)), "torchmetrics", ""
        yield (
            f"{prefix}cc",
            np.mean([np.corrcoef(p.ravel(), q.ravel())[0, 1] for p, q in zip(a, b, strict=True)]),
            "numpy",
            "",
        )
    upper = np.triu_indices(len(x), 1)
    d_lambda = np.abs(blockwise(x, window) - blockwise(low, window))[upper].mean()
    yield "d_lambda", d_lambda, "numpy by the formula", ""
    guides = (seen, msi), (seen_low, degraded(msi, pair))
    fine, coarse = ([sliding_q(p, q, window) for p, q in zip(*both, strict=True)] for both in guides)
    d_s = np.abs(np.array(fine) - coarse).mean()
    yield "d_s", d_s, "scipy by the formula", ""
    yield "qnr", (1 - d_lambda) * (1 - d_s), "of the two above", ""
    if full_ref is not None:
        yield from q2n_of("1 - d_lambda_khan", np.moveaxis(down, 0, 2), np.moveaxis(low, 0, 2), window)
    if len(msi) == 1:
        columns = np.concatenate([np.ones((1, msi[0].size)), x.reshape(len(x), -1)]).T
        rest = msi.ravel() - columns @ np.linalg.lstsq(columns, msi.ravel(), rcond=None)[0]
        yield "d_sr", rest @ rest / ((msi - msi.mean()) ** 2).sum(), "numpy", ""


def table(a: Assessment, lines: list[Line]) -> str:
    """All lines as Markdown, the relative difference beside both figures; those that agree come first."""
    rows = []
    for key, figure, whose, why, *own in lines:
        ours = own[0] if own else a.metrics.get(key)
        if ours is None:
            continue
        off = abs(figure - ours) / max(abs(ours), 1e-12)
        rows.append((bool(why) and off > 1e-4, f"| {key} | {ours:.8g} | {figure:.8g} | {off:.1e} | {whose} | {why} |"))
    head = ["| metric | hsfuse | independent | difference / figure | by | why they differ |", "| --- " * 6 + "|"]
    return "\n".join([*head, *(line for _, line in sorted(rows, key=lambda row: row[0]))])


def compare(files: argparse.Namespace) -> str:
    """One scene's section."""
    x = read(files.fused)
    lines: list[Line] = []
    given = {"hsi": files.hsi, "msi": files.msi, "srf": files.srf}
    a = assess(files.fused, reference=files.reference, ratio=files.ratio, window=WINDOW, tile=64, **given,
               register="off", match_radiometry="off")  # fmt: skip
    with open_pair(files.hsi, files.msi, **settings(a, files.srf)) as pair:
        if files.reference is not None:
            peak = float(a.settings["peak"].split()[0])
            lines += with_reference(x, read(files.reference), pair.ratio, peak, min(WINDOW, *x.shape[1:]))
        low, msi = read(files.hsi)[pair.hsi_bands], read(files.msi)[pair.msi_bands]
        lines += without_reference(x, low, msi, pair, min(WINDOW, *low.shape[1:]))
    size = f"{a.shape[0]} bands, {a.shape[1]} x {a.shape[2]} pixels"
    return f"## {files.title}\n\n{size}, ratio {a.ratio}.\n\n{table(a, lines)}\n"


def settings(a: Assessment, srf: str) -> dict[str, Any]:
    """Of the scene, as the fused file records them."""
    record = a.provenance.get("settings", {})
    kept = {key: record[key] for key in ("mtf", "psf_sigma", "phase") if record.get(key) is not None}
    return {"srf": srf, "register": "off", "match_radiometry": "off", **kept}


def main() -> None:
    """Print one scene's section."""
    parser = argparse.ArgumentParser(description="Figures of hsfuse assess against independent code, as Markdown.")
    parser.add_argument("title")
    parser.add_argument("fused")
    for name in ("--hsi", "--msi", "--srf"):
        parser.add_argument(name, required=True)
    parser.add_argument("--reference")
    parser.add_argument("--ratio", type=int)
    print(compare(parser.parse_args()))


if __name__ == "__main__":
    main()

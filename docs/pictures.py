"""The pictures of docs/sensors.md, made by hsfuse's own physics: `python docs/pictures.py` renews them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from hsfuse.io import open_cube
from hsfuse.physics import load_srf
from hsfuse.physics.model import box_psf, gaussian_psf
from hsfuse.physics.optics import centred_taps, sigma_from_mtf
from hsfuse.physics.srf_bands import seen_bands

DOCS = Path(__file__).resolve().parent
LRHSI = DOCS.parent / "examples" / "data" / "lrhsi.hdr"
#: MSI pixels to an LR pixel: enough of them for a smooth curve.
FINE = 32
NYQUIST = 0.5


def psfs() -> Figure:
    """Kernels along a line through their middle, and what of each spatial frequency they leave."""
    figure = Figure(figsize=(9, 3.3), layout="constrained")
    profile, transfer = figure.subplots(1, 2)
    kernels = {f"Gaussian, MTF {mtf:g}": gaussian_psf(sigma_from_mtf(mtf, FINE), FINE) for mtf in (0.1, 0.3, 0.6)}
    kernels["box: an ideal detector"] = box_psf(FINE)
    frequencies = np.linspace(0, 1, 200)
    for (label, psf), style in zip(kernels.items(), ("-", "-", "-", "--"), strict=True):
        line = np.pad(psf.kernel.sum(0), 2 * FINE)
        at = centred_taps(line.size) / FINE
        profile.plot(at, line / line.max(), style, label=label)
        transfer.plot(frequencies, abs(np.exp(-2j * np.pi * np.outer(frequencies, at)) @ line), style)
    profile.set(xlim=(-1.6, 1.6), xlabel="LR pixels from the middle", title="PSF")
    profile.axvspan(-0.5, 0.5, color="0.9", zorder=0)
    profile.set(ylim=(0, 1.38), yticks=(0, 0.5, 1))
    profile.legend(fontsize=8, frameon=False, loc="upper center", ncols=2)
    transfer.axvline(NYQUIST, color="0.6", linewidth=1)
    transfer.text(NYQUIST + 0.01, 0.93, "Nyquist", color="0.4", fontsize=8)
    transfer.set(ylim=(0, 1), xlim=(0, 1), xlabel="cycles per LR pixel", title="MTF: what is left of a wave")
    return figure


def responses() -> Figure:
    """What Sentinel-2's four bands of 10 m see of the example's wavelengths, and what none of them sees."""
    figure = Figure(figsize=(9, 2.8), layout="constrained")
    axes = figure.subplots()
    response = load_srf("sentinel2a")
    with open_cube(LRHSI) as reader:
        spectrum = reader.spectrum
    nm = np.array(spectrum.wavelengths_nm)
    rows = response.matrix(nm, spectrum.fwhm_nm)[0]
    weights = []
    for name, colour in {"B2": "tab:blue", "B3": "tab:green", "B4": "tab:red", "B8": "tab:purple"}.items():
        curve = response.curve[response.bands.index(name)]
        at = response.wavelengths_nm
        axes.fill_between(at, curve / curve.max(), color=colour, alpha=0.35, linewidth=0)
        axes.text(np.average(at, weights=curve), 1.03, name, color=colour, ha="center", fontsize=9)
        weights.append(rows[response.bands.index(name)])
    seen = seen_bands(np.array(weights))
    for bands, colour, label in ((nm[seen], "0.1", "seen by the MSI"), (nm[~seen], "0.7", "inferred from the others")):
        axes.vlines(bands, -0.12, -0.02, color=colour, linewidth=1, label=f"{bands.size} HSI bands {label}")
    axes.set(xlim=(380, 2520), ylim=(-0.14, 1.18), yticks=(0, 1), xlabel="wavelength, nm")
    axes.legend(fontsize=8, frameon=False, loc="center right")
    return figure


def main() -> None:
    """Write both."""
    for name, figure in (("psf", psfs()), ("responses", responses())):
        for axes in figure.axes:
            axes.spines[["top", "right"]].set_visible(False)
        figure.savefig(DOCS / f"{name}.png", dpi=110, metadata={"Software": None})


if __name__ == "__main__":
    main()

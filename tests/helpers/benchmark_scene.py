"""The cube that benchmarks of tests run on, and their sensor."""

import json
from pathlib import Path

import numpy as np
from click.testing import CliRunner
from scenes import save
from scipy.ndimage import gaussian_filter

from hsfuse.benchmark.process import CaseError, Finished
from hsfuse.cli import main
from hsfuse.core.cube import Spectrum
from hsfuse.core.grid import Grid

WAVELENGTHS_NM = np.linspace(430.0, 940.0, 20)
SENSOR = {"srf": "sentinel2a", "msi_bands": ["B2", "B3", "B4", "B8"]}


def reference(folder, name="scene.tif", side=32):
    """A cube of 20 bands: mixtures of three spectra."""
    rng = np.random.default_rng(0)
    parts = np.exp(4 * np.stack([gaussian_filter(rng.standard_normal((side, side)), 1.5) for _ in range(3)]))
    spectra = np.stack([0.1 + 0.4 / (1 + np.exp(-(WAVELENGTHS_NM - at) / 40)) for at in (500, 650, 800)])
    cube = np.tensordot(spectra.T, parts / parts.sum(axis=0), axes=1)
    return save(folder / name, cube, Grid((side, side)), Spectrum(tuple(WAVELENGTHS_NM)))


def run_here(arguments: list[str], folder: Path) -> Finished:
    """As `run_hsfuse`, in the test's own process, which needn't start Python and torch anew."""
    result = CliRunner().invoke(main, arguments)
    if result.exit_code:
        raise CaseError(result.stderr.strip().splitlines()[-1].removeprefix("error: "))
    return Finished(json.loads(result.stdout), 1.0, 1.0, 1.0)

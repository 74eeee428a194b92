"""Names that the examples in docstrings may use: a folder, and a tiny reference cube in it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="session")
def tiny_reference(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A GeoTIFF of 40 bands, 48 x 48 pixels: smooth spectra mixed by smooth maps."""
    import numpy as np
    from affine import Affine
    from rasterio.crs import CRS
    from rasterio.windows import Window

    from hsfuse.core.cube import Spectrum
    from hsfuse.core.grid import Grid
    from hsfuse.io import CubeWriter

    side, nm = 48, np.linspace(430, 930, 40)
    rows, cols = np.mgrid[:side, :side] / side
    maps = np.stack([1 + np.sin(9 * rows), 1 + np.cos(11 * cols), 1 + np.sin(17 * (rows + cols))])
    spectra = np.stack([0.05 + 0.1 * np.exp(-(((nm - centre) / 150) ** 2)) for centre in (500, 650, 850)])
    cube = np.einsum("kc,khw->chw", spectra, maps).astype(np.float32)
    path = tmp_path_factory.mktemp("docs") / "reference.tif"
    grid = Grid((side, side), Affine(10, 0, 600000, 0, -10, 5000000), CRS.from_epsg(32633))
    with CubeWriter(path, grid, Spectrum(tuple(nm.tolist()), (12.0,) * len(nm))) as writer:
        writer.write(Window(0, 0, side, side), cube, np.ones((side, side), bool))
    return path


#: Files whose tests take longest. Where processes share the tests file by file, these come first.
LONG = (
    "test_resume", "test_fusion", "test_pair", "test_calibration", "test_readme", "test_srlf_any", "test_adaptation",
    "test_degenerate_scenes", "test_scan", "test_misfits", "test_training", "test_assessment", "test_shift",
    "test_cli_fuse", "test_triton", "test_fusion_outputs",
)  # fmt: skip


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """No long file is begun when all others are done."""
    order = {name: place for place, name in enumerate(LONG)}
    items.sort(key=lambda item: order.get(item.path.stem, len(LONG)))


@pytest.fixture(autouse=True)
def _names_in_examples(request: pytest.FixtureRequest, doctest_namespace: dict[str, Any]) -> None:
    if isinstance(request.node, pytest.DoctestItem):
        doctest_namespace["folder"] = request.getfixturevalue("tmp_path")
        doctest_namespace["reference"] = request.getfixturevalue("tiny_reference")

"""A scene whose LRHSI is misplaced by a smooth local field: fused, gone on with after an interruption, and assessed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from fusing import interrupted, read, run
from rasterio.windows import Window
from scenes import memory_scene, save_pair
from scipy.ndimage import map_coordinates

import hsfuse
from hsfuse.assessment import assess
from hsfuse.assessment.inputs import HsiSource
from hsfuse.core.grid import Motion
from hsfuse.fusion.tiles import TileWorker
from hsfuse.io import open_cube, read_provenance

N, FIELD_PX = 30, 0.6
HOW = {"destripe": "off", "tile": 30, "overlap": 6, "dtype": "float32"}


def bent_pair(folder, ratio):
    """Files whose LRHSI has the ground up to 0.6 LR pixels off where the MSI has it, another way here and there."""
    scene = memory_scene((N, N), ratio)
    rows, cols = np.mgrid[: N * ratio, : N * ratio] * 1.0
    down = FIELD_PX * ratio * np.sin(2 * np.pi * cols / (26 * ratio))
    right = FIELD_PX * ratio * np.cos(2 * np.pi * rows / (22 * ratio) + 1)
    moved = [map_coordinates(band, (rows - down, cols - right), mode="nearest") for band in scene.truth[0].numpy()]
    lrhsi, _ = scene.model(torch.from_numpy(np.stack(moved))[None])
    return save_pair(folder, replace(scene, lrhsi=lrhsi))


@pytest.fixture(scope="module", params=[3, 4])
def bent(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(f"bent{request.param}")
    pair = bent_pair(folder, request.param)
    run(pair, folder / "whole.tif", **HOW)
    run(pair, folder / "off.tif", register="off", **HOW)
    return pair


def error(pair, name):
    """RMSE against the truth, on the ground that all of them have."""
    with open_cube(pair.folder / name) as reader:
        cube, grid = reader.read(), reader.grid
    col, row = (round(v) for v in ~pair.hr_grid.transform @ (grid.transform.c, grid.transform.f))
    h, w = grid.shape
    off = (cube.data - pair.scene.truth[0, :, row : row + h, col : col + w].numpy())[:, cube.mask]
    return float(np.sqrt(np.square(off).mean()))


def test_the_field_is_put_right_and_recorded(bent):
    with open_cube(bent.folder / "whole.tif") as reader:
        motion = Motion.of_record(read_provenance(reader.tags)["registration"])
    assert motion.distortion is not None
    assert error(bent, "whole.tif") < 0.7 * error(bent, "off.tif")


def test_assess_takes_the_field_that_is_recorded(bent):
    """Without it the fused cube doesn't agree with the LRHSI."""
    images = {"hsi": bent.hsi, "msi": bent.msi, "srf": "sentinel2a", "window": 8}
    found = assess(bent.folder / "whole.tif", **images)
    straight = assess(bent.folder / "whole.tif", **images, register="off")
    assert found.metrics["hsi_rmse"] < 0.5 * straight.metrics["hsi_rmse"]


def test_it_is_held_against_the_lrhsi_that_methods_get(bent):
    """Whose detail lies where the MSI shows it, whichever bands the fused cube has."""
    with hsfuse.open_pair(bent.hsi, bent.msi, srf="sentinel2a", psf="assumed") as pair:
        pair = replace(pair, gains=np.ones((len(pair.hsi_bands), len(pair.msi_bands)), np.float32))
        window = Window(2, 3, 9, 8)
        low = HsiSource(pair, pair.hsi_bands[2:5]).read(window)
        np.testing.assert_array_equal(low.data, pair.read_lr(window).data[2:5])
        assert np.abs(low.data - replace(pair, gains=None).read_lr(window).data[2:5]).max() > 1e-3
        assert low.spectrum.wavelengths_nm == pair.spectrum.wavelengths_nm[2:5]


def test_an_interrupted_run_goes_on_with_the_field(bent, monkeypatch):
    if bent.scene.model.ratio != 3:
        pytest.skip("one ratio shows it")
    with monkeypatch.context() as patch:
        interrupted(patch, 7)
        with pytest.raises(KeyboardInterrupt):
            run(bent, bent.folder / "again.tif", resume=True, **HOW)
    tiles, fuse_tile = [], TileWorker.fuse
    monkeypatch.setattr(TileWorker, "fuse", lambda *told: tiles.append(1) or fuse_tile(*told))
    run(bent, bent.folder / "again.tif", resume=True, **HOW)
    assert len(tiles) == 6  # the last of three rows, and the one before for what overlaps
    whole, again = (read(bent.folder / name) for name in ("whole.tif", "again.tif"))
    np.testing.assert_array_equal(again.data, whole.data)
    np.testing.assert_array_equal(again.mask, whole.mask)

"""An estimated PSF with a halo: told in words, recorded in the fused file, assessed by, and kept with a model."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scenes import memory_scene, save_pair

import hsfuse
from hsfuse.io import open_cube, read_provenance
from hsfuse.physics.model import ObservationModel, Psf

SHARE, WIDTH, S = 0.2, 6.0, 4


@pytest.fixture(scope="module")
def haloed(tmp_path_factory):
    """Files of a pair whose PSF has a fifth of its light in a halo."""
    scene = memory_scene((30, 30), S, seed=2)
    size, core = 2 * 4 * int(WIDTH), scene.model.psf
    taps = np.exp(-((np.arange(size) - (size - 1) / 2) ** 2) / 2 / WIDTH**2)
    halo = np.outer(taps, taps) / taps.sum() ** 2
    psf = Psf((1 - SHARE) * np.pad(core.kernel, (size - core.size) // 2) + SHARE * halo)
    lrhsi = ObservationModel(scene.model.srf, psf, S).spatial(scene.truth)
    return save_pair(tmp_path_factory.mktemp("haloed"), replace(scene, lrhsi=lrhsi))


def test_it_is_recorded_and_the_cube_assessed_by_it(haloed):
    files = {"hsi": haloed.hsi, "msi": haloed.msi, "srf": "sentinel2a"}
    fused = haloed.folder / "fused.tif"
    result = hsfuse.fuse(haloed.hsi, haloed.msi, "sentinel2a", fused, method="glp-reg", register="off")
    assert any("% of the light in a halo of" in note for note in result.notes)
    with open_cube(fused) as reader:
        told = read_provenance(reader.tags)
    estimated = told["sensors"]["psf"]
    np.testing.assert_allclose(estimated["halo"], (SHARE, WIDTH), rtol=0.15)
    assert len(estimated["halo_sd"]) == 2
    with hsfuse.open_pair(haloed.hsi, haloed.msi, srf="sentinel2a", register="off") as pair:
        np.testing.assert_allclose(Psf.of_record(told["psf_kernel"]).kernel, pair.model.psf.kernel, atol=1e-8)
    found = hsfuse.assess(fused, **files, window=8)
    assert found.psf is not None
    np.testing.assert_allclose(found.psf.kernel, Psf.of_record(told["psf_kernel"]).kernel)
    assumed = hsfuse.assess(fused, **files, window=8, psf="assumed")
    assert found.metrics["hsi_rmse"] < 0.5 * assumed.metrics["hsi_rmse"]


def test_a_kept_model_has_it(haloed):
    with hsfuse.open_pair(haloed.hsi, haloed.msi, srf="sentinel2a", register="off") as pair:
        model = hsfuse.fit(pair, "glp-reg")
        kept = hsfuse.load_model(model.save(haloed.folder / "model"))
        np.testing.assert_array_equal(kept.apply(pair).values, model.apply(pair).values)
    assert kept.sensors == model.sensors
    assert pair.psf.halo is not None

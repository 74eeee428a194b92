"""What a demanding user meets: masks without halos, bands that are covered in part, runs that were killed."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from fusing import interrupted, read, run
from rasters import write_tif
from scenes import BANDS, NORTH_UP, memory_scene, save, save_pair

from hsfuse import fuse
from hsfuse.core.cube import Cube, Spectrum
from hsfuse.core.grid import Grid
from hsfuse.io.writer import Journal
from hsfuse.methods import make_method
from hsfuse.methods.problem import fit_problem
from hsfuse.pair import open_pair
from hsfuse.pair.sample import fill_invalid, fill_msi
from hsfuse.physics.model import ObservationModel


def weighted(model: ObservationModel, weights: list[float]) -> ObservationModel:
    return ObservationModel(model.srf, model.psf, model.ratio, model.phase, np.array(weights))


def test_a_band_covered_by_half_has_less_influence():
    scene = memory_scene((16, 16))
    weights = weighted(scene.model, [1, 1, 0.5, 1])
    plain, less = (fit_problem(scene.training, model, 6) for model in (scene.model, weights))
    torch.testing.assert_close(less.noise_y, plain.noise_y * torch.tensor([1, 1, 4, 1]))

    def influence(model: ObservationModel) -> float:
        """Of band 3 on two coordinates that four bands tell."""
        problem = fit_problem(scene.training, model, 2)
        towards = (problem.response / problem.noise_y[:, None]).T
        return float(torch.linalg.solve(problem.spectral_weight, towards)[:, 2].norm())

    assert influence(weights) < 0.8 * influence(scene.model)


def test_weights_stay_with_the_model():
    model = weighted(memory_scene((8, 8)).model, [1, 0.5, 1, 1])
    assert model.with_srf(model.srf).msi_weights.tolist() == [1, 0.5, 1, 1]
    assert model.with_srf(torch.ones(2, 5)).msi_weights.tolist() == [1, 1]
    assert "msi_weights" not in model.state_dict()


def test_coverage_becomes_the_weight(files):
    with open_pair(files.hsi, files.msi, srf="sentinel2a") as pair:
        np.testing.assert_allclose(pair.model.msi_weights, pair.coverage, rtol=1e-6)


def test_no_halo_around_a_cloud_in_the_msi():
    """Next to the cloud the fused image is nearer to the cloudless one than by the nearest valid spectra."""
    scene = memory_scene((24, 24), s=4)
    fuser = make_method("glp-reg").fit(scene.training, scene.model)
    mask = np.ones(scene.msi.shape[2:], bool)
    mask[32:64, 40:72] = False
    grid = Grid(mask.shape, NORTH_UP)
    low = Cube(scene.lrhsi[0].numpy(), grid.coarsen(4), Spectrum(None), np.ones(scene.lrhsi.shape[2:], bool))
    high = Cube(np.where(mask, scene.msi[0].numpy(), np.float32(0)), grid, Spectrum(None), mask)
    near = mask.copy()
    near[:28] = near[68:] = False
    near[:, :36] = near[:, 76:] = False
    clear = fuser.predict(scene.lrhsi, scene.msi)[0].numpy()

    def halo(filled: np.ndarray) -> float:
        found = fuser.predict(scene.lrhsi, torch.from_numpy(filled)[None])[0].numpy()
        return float(np.sqrt(np.square((found - clear)[:, near]).mean()))

    assert halo(fill_msi(high, low, scene.model)) < 0.7 * halo(fill_invalid(high.data, high.mask))


@pytest.mark.parametrize("lost", ["state of the cube", "quality layers", "a row of the cube"])
def test_killed_between_two_outputs(files, tmp_path, monkeypatch, lost):
    path, qa, how = tmp_path / "a.tif", tmp_path / "qa.tif", {"tile": 16, "overlap": 4}
    with monkeypatch.context() as patch:
        interrupted(patch, 9)
        with pytest.raises(KeyboardInterrupt):
            run(files, path, qa=qa, resume=True, **how)
    state = tmp_path / ".a.unfinished.json"
    if lost == "state of the cube":
        state.unlink()
    elif lost == "quality layers":
        (tmp_path / ".qa.unfinished.tif").unlink()
    else:
        journal = Journal(path, json.loads(state.read_text())["fingerprint"])
        told = journal.load()
        assert told is not None
        journal.save(told | {"rows": 1, "valid": 0, "pixels": told["pixels"] // 2})
    run(files, path, qa=qa, resume=True, **how)
    run(files, tmp_path / "b.tif", qa=tmp_path / "b_qa.tif", **how)
    for one, other in ((path, tmp_path / "b.tif"), (qa, tmp_path / "b_qa.tif")):
        np.testing.assert_array_equal(read(one).data, read(other).data)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.tif", "b.tif", "b_qa.tif", "qa.tif"]


def test_a_plain_run_clears_what_an_interrupted_one_left(files, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        interrupted(patch, 9)
        with pytest.raises(KeyboardInterrupt):
            run(files, tmp_path / "a.tif", tile=16, overlap=4, resume=True)
    assert len(list(tmp_path.iterdir())) == 3  # the cube, what is fitted, and what was asked for
    run(files, tmp_path / "a.tif", tile=16, overlap=4)
    assert [p.name for p in tmp_path.iterdir()] == ["a.tif"]


def test_what_lies_under_clouds_takes_no_part(tmp_path):
    """Whatever lies under clouds over 40 % of the MSI, the image fused and its quality layers are the same."""
    scene = memory_scene((24, 24))
    mask = np.ones((72, 72), bool)
    mask[:, :24] = mask[60:, 40:] = False
    pairs = []
    for name, value in (("a", 5.0), ("b", -0.3)):
        folder = tmp_path / name
        folder.mkdir()
        files = save_pair(folder, scene)
        parts = []
        for band, plane in zip(BANDS, scene.msi[0].numpy(), strict=True):
            parts.append(folder / f"{band}.tif")
            save(
                parts[-1], np.where(mask, plane, np.float32(value))[None], files.hr_grid, Spectrum(None, None, (band,))
            )
        parts.append(folder / "SCL.tif")
        write_tif(parts[-1], np.where(mask, 4, 9).astype("uint8")[None], crs="EPSG:32633", transform=NORTH_UP)
        fuse(files.hsi, parts, "sentinel2a", folder / "out.tif", method="glp-reg", qa=folder / "qa.tif")
        pairs.append((read(folder / "out.tif"), read(folder / "qa.tif")))
    for one, other in zip(*pairs, strict=True):
        np.testing.assert_array_equal(one.mask, mask)
        np.testing.assert_array_equal(one.data, other.data)


def test_another_place_is_doubted(tmp_path):
    other = memory_scene((24, 24), seed=5).msi[0].numpy()
    files = save_pair(tmp_path, memory_scene((24, 24)), msi=other)
    with open_pair(files.hsi, files.msi, srf="sentinel2a", register="off", strict=False) as pair:
        assert any("do both images show the same place?" in str(told) for told in pair.warnings)


def test_only_bands_that_are_changed_are_told(tmp_path):
    scene = memory_scene((32, 32))
    msi = scene.msi[0].numpy().copy()
    msi[2] *= 1.3
    files = save_pair(tmp_path, scene, msi=msi)
    with open_pair(files.hsi, files.msi, srf="sentinel2a") as pair:
        told = pair.radiometry.describe(pair.msi_names)
    assert told.startswith("B4 = (1.")
    assert ";" not in told

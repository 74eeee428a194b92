"""A model fitted to one scene is taken for others of its sensors, aloud; anything else is fitted anew."""

from __future__ import annotations

import logging

import pytest
from fusing import read, run
from scenes import memory_scene, save_pair

PLAIN = {"psf": "assumed", "register": "off", "match_radiometry": "off"}


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    """Two scenes of the same sensors."""
    folders = [tmp_path_factory.mktemp(name) for name in ("one", "two")]
    return [save_pair(folder, memory_scene((12, 12), seed=seed)) for seed, folder in enumerate(folders)]


def test_a_model_is_fitted_once_for_scenes_of_the_same_sensors(pairs, tmp_path, monkeypatch, caplog):
    how = {**PLAIN, "reuse_model": tmp_path / "models"}
    first = run(pairs[0], tmp_path / "a.tif", **how)
    own = run(pairs[0], tmp_path / "own.tif", **PLAIN)
    assert read(first.output).data.tobytes() == read(own.output).data.tobytes()
    with monkeypatch.context() as patch, caplog.at_level(logging.INFO, "hsfuse"):
        patch.setattr("hsfuse.fusion.run.fit_method", lambda *_: 1 / 0)
        second = run(pairs[1], tmp_path / "b.tif", **how)
        third = run(pairs[0], tmp_path / "c.tif", **how)
    assert "nothing is fitted to this scene: the model in " in caplog.text
    assert [one.provenance["fitted"]["reused"] for one in (first, second, third)] == [False, True, True]
    assert read(third.output).data.tobytes() == read(own.output).data.tobytes()
    assert len(list((tmp_path / "models").iterdir())) == 1


@pytest.mark.parametrize("what", ["method", "damage"])
def test_what_does_not_fit_is_fitted_anew(pairs, tmp_path, what):
    how = {**PLAIN, "reuse_model": tmp_path / "models"}
    run(pairs[0], tmp_path / "a.tif", **how)
    if what == "method":
        how["method"] = "bicubic"
    else:
        (kept,) = (tmp_path / "models").glob("*/method.safetensors")
        kept.write_bytes(b"damaged")
    again = run(pairs[1], tmp_path / "b.tif", **how)
    assert again.provenance["fitted"]["reused"] is False
    assert len(list((tmp_path / "models").iterdir())) == (2 if what == "method" else 1)

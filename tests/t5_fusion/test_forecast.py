"""What a fusion is going to take is told before it starts: size on disk, memory and, where it was tried out, time."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from fusing import run
from scenes import memory_scene, save_pair

from hsfuse.core.errors import OutputError
from hsfuse.core.options import FuseOptions
from hsfuse.fusion import forecast
from hsfuse.io.sinks import GeoTiffSink
from hsfuse.methods import method_class

ENVI = {"register": "off", "dtype": "float32"}


@pytest.fixture
def clock(monkeypatch):
    """Each look at it is a second later."""
    seconds = iter(range(10**6))
    monkeypatch.setattr(forecast, "time", SimpleNamespace(monotonic=lambda: float(next(seconds))))


def test_it_is_told_by_a_dry_run_and_costs_no_file(files, tmp_path, clock):
    told = run(files, tmp_path / "a.dat", dry_run=True, tile=24, overlap=6, **ENVI)
    assert not list(tmp_path.iterdir())
    found = told.provenance["forecast"]
    assert found["output_bytes"] == pytest.approx(31 * 72 * 60 * 4, rel=0.02)  # ENVI has no compression, and a header
    assert found["memory_bytes"] > 2**20
    assert found["temporary_bytes"] == 0
    assert found["tiles"] == 9
    # A second for fitting, and for writing; for fusing as many as the tiles with halos have pixels of the crop's.
    assert 2 < found["seconds"] < 30
    assert "to come: 72 x 60 pixels, 31 bands, 9 tiles, about 5" in told.text()
    assert "of memory, " in told.text()


def test_a_trial_takes_as_many_threads_as_the_fusion(files, tmp_path, monkeypatch):
    """One of a small scene: a second would have a dry run take longer than the fusion."""
    seen, before, bicubic = [], torch.get_num_threads(), method_class("bicubic")
    fit = bicubic.fit
    monkeypatch.setattr(bicubic, "fit", lambda *a: seen.append(torch.get_num_threads()) or fit(*a))
    torch.set_num_threads(2)
    try:
        run(files, tmp_path / "a.dat", dry_run=True, method="bicubic", **ENVI)
    finally:
        torch.set_num_threads(before)
    assert set(seen) == {1}


def test_what_a_trial_decides_is_not_told(files, tmp_path, caplog):
    """On its crops weights may count that don't on the scene, and the other way round."""
    with caplog.at_level("INFO", "hsfuse"):
        told = run(files, tmp_path / "a.tif", dry_run=True, register="off", method="srlf")
    assert told.provenance["forecast"]["seconds"] > 0
    assert not [record.name for record in caplog.records if record.name.startswith("hsfuse.methods")]
    assert not [record.message for record in caplog.records if record.message.startswith(("HSI: ", "grid: "))]


def test_a_copy_takes_more_for_a_while(files, tmp_path, clock):
    found = run(files, tmp_path / "a.tif", dry_run=True, format="COG", register="off").provenance["forecast"]
    assert found["temporary_bytes"] == found["output_bytes"] > 0


def test_training_may_take_its_budget():
    assert forecast._training(FuseOptions()) == 0
    assert forecast._training(FuseOptions(effort="best")) == 180
    assert forecast._training(FuseOptions(adapt_minutes=7.0)) == 420
    assert forecast._training(FuseOptions(method="glp-reg", adapt_minutes=7.0)) == 0


def test_what_few_and_many_have_taken_is_a_line():
    assert forecast._along([(10, 2.0), (20, 3.0)], 50) == pytest.approx(6)
    assert forecast._along([(10, 1.0), (20, 3.0)], 50) == pytest.approx(7.5)  # no more than in proportion
    assert forecast._along([(10, 3.0), (20, 1.0)], 50) == 3  # more can't take less
    assert forecast._along([(10, 2.0), (10, 5.0)], 10) == 2


def test_a_middle_without_data_leaves_the_time_open(tmp_path):
    mask = np.ones((48, 48), bool)
    mask[2:46, 2:46] = False
    pair = save_pair(tmp_path, memory_scene((48, 48)), mask)
    told = run(pair, tmp_path / "a.tif", dry_run=True, register="off")
    assert told.provenance["forecast"]["seconds"] is None
    assert "up to" in told.text()
    assert run(pair, tmp_path / "a.tif", register="off").output.exists()


def test_a_larger_scene_is_told_at_the_start(tmp_path, monkeypatch, caplog):
    from hsfuse.fusion import run as running

    monkeypatch.setattr(running, "TRIED_FROM", 0)
    pair = save_pair(tmp_path, memory_scene((14, 14)))
    with caplog.at_level("INFO", "hsfuse"):
        run(pair, tmp_path / "a.tif", register="off")
    (line,) = [record.message for record in caplog.records if record.message.startswith("to come: ")]
    assert "42 x 42 pixels, 31 bands, 1 tile" in line
    assert line.endswith(", less than 5 s")


@pytest.mark.parametrize(("free", "warned"), [(10**9, False), (10**5, True)])
def test_a_disk_that_may_be_too_small_is_warned_of(files, tmp_path, monkeypatch, caplog, free, warned):
    """A compressed output may need less than its raw size, so it is made all the same."""
    monkeypatch.setattr(forecast.shutil, "disk_usage", lambda _: SimpleNamespace(free=free))
    monkeypatch.setattr(GeoTiffSink, "_check_space", lambda *_: None)
    result = run(files, tmp_path / "a.tif", register="off")
    assert result.output.exists()
    short = [record.message for record in caplog.records if record.levelname == "WARNING" and "free" in record.message]
    assert len(short) == warned
    assert not warned or short[0].endswith("are to be written, but 100 kB are free: it may not fit; make room")


def test_what_is_begun_already_needs_no_room_again(files, tmp_path, monkeypatch):
    """Of a GeoTIFF that isn't compressed, and is gone on with."""
    how = {"register": "off", "creation_options": {"COMPRESS": "NONE"}}
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=10**5))
    monkeypatch.setattr(GeoTiffSink, "_check_space", lambda *_: None)
    with pytest.raises(OutputError, match=r"a\.tif takes \d+ MiB, and 0 MiB are free in .*; make room, or leave"):
        run(files, tmp_path / "a.tif", **how)
    (tmp_path / ".a.unfinished.tif").write_bytes(b"0" * 10**7)
    assert run(files, tmp_path / "a.tif", resume=True, **how).output.exists()


def test_few_seconds_are_not_said_as_if_they_were_known():
    told = [forecast._duration(seconds) for seconds in (0.1, 4.9, 5.4, 130, 8000)]
    assert told == ["less than 5 s", "less than 5 s", "about 5 s", "about 2 min", "about 2.2 h"]

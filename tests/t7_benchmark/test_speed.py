"""`python -m benchmarks.speed`: what is measured is there, adds up, refuses what it can't. No time is asserted."""

import json
import math
import os
from types import SimpleNamespace

import pytest
import torch
from click.testing import CliRunner

from benchmarks.speed import SpeedSettings, run_speed, speed_text
from benchmarks.speed.__main__ import speed
from benchmarks.speed.ceilings import measure_ceilings
from benchmarks.speed.stream import stream
from benchmarks.speed.timing import race
from hsfuse.core.errors import SettingError
from hsfuse.nets.scan import VARIABLE, available_backends, choose_backend

SMALL = SpeedSettings(bands=4, ratio=2, tile=8, patch=8, batch=2, scene=16, memory_tiles=(8, 16), turns=1)


@pytest.fixture(scope="module", autouse=True)
def short_turns():
    """One or two calls a turn: no time is asserted but those of the tests' own clock."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("benchmarks.speed.timing.TURN_S", 0.005)
        yield


@pytest.fixture(scope="module")
def report(short_turns):
    return run_speed(SMALL)


def numbers(value):
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list | tuple):
        return [x for part in value for x in numbers(part)]
    return [value] if isinstance(value, int | float) else []


def test_every_backend_is_measured(report):
    assert [scan.backend for scan in report.scans] == [n for n in available_backends("cpu") if n != "reference"]
    assert report.backend == choose_backend("cpu")


def test_all_times_are_positive_and_finite(report):
    plain = report.to_dict()
    memory = plain.pop("memory_mib")
    assert all(math.isfinite(x) and x > 0 for x in numbers(plain))
    assert list(memory) == [8, 16]
    assert all(x is None or x >= 0 for x in memory.values())


def test_rates_follow_from_times(report):
    """Four directions, 2 C channels, C / 2 states, and every pixel of the patch."""
    baseline = next(scan for scan in report.scans if scan.backend == "chunked")
    for scan in report.scans:
        assert scan.rate * scan.forward_s == pytest.approx(4 * 8 * 2 * 8 * 8 / 1e9)
        assert scan.both_rate * scan.both_s == pytest.approx(4 * 8 * 2 * 8 * 8 / 1e9)
        assert scan.forward_ratio == pytest.approx(baseline.forward_s / scan.forward_s)
        if report.ceilings.exp_all_threads:
            assert scan.exp_share == pytest.approx(scan.rate / report.ceilings.exp_all_threads)
    assert report.million_pixel_bands * report.scene_s == pytest.approx(4 * 16 * 16 / 1e6)


def test_the_report_is_json_and_text(report):
    plain = json.loads(json.dumps(report.to_dict()))
    assert plain["settings"]["bands"] == 4
    text = speed_text(report)
    assert all(name in text for name in ("chunked", "ceilings", "tile 8 x 8", "training step 2 x 8 x 8", "16:"))


def test_the_environment_is_left_as_it_was(monkeypatch):
    monkeypatch.setenv(VARIABLE, "chunked")
    assert run_speed(SpeedSettings(**{**vars(SMALL), "bands": 2})).backend == "chunked"
    assert os.environ[VARIABLE] == "chunked"


def test_ceilings_without_numba(monkeypatch):
    def absent(*_):
        raise ImportError("no Numba")

    monkeypatch.setattr("benchmarks.speed.ceilings._cpu_ceilings", absent)
    monkeypatch.setattr("benchmarks.speed.ceilings.TRIAD_SIZE", 1000)
    ceilings = measure_ceilings(torch.device("cpu"), 1)
    assert ceilings.exp_one_thread is None
    assert ceilings.bandwidth > 0


@pytest.mark.parametrize(("seconds", "order"), [(1.0, "aabab"), (10.0, "aab")])
def test_contestants_run_in_turn_the_cold_one_without_a_warm_up(monkeypatch, seconds, order):
    """Two turns of one call each, but only one of a call that takes long."""
    monkeypatch.setattr("benchmarks.speed.timing._seconds", lambda call, device: call() or seconds)
    calls = []
    best = race({name: lambda name=name: calls.append(name) for name in "ab"}, 2, torch.device("cpu"), cold="b")
    assert "".join(calls) == order
    assert best == {"a": seconds, "b": seconds}


@pytest.mark.parametrize(
    "wrong",
    [{"tile": 7}, {"patch": 2}, {"scene": 20}, {"turns": 0}, {"bands": 0}, {"ratio": 1}, {"memory_tiles": (9,)}],
    ids=str,
)
def test_settings_that_cannot_be(wrong):
    with pytest.raises(SettingError):
        SpeedSettings(**{**vars(SMALL), **wrong})


@pytest.mark.parametrize("device", ["tpu", "cuda"])
def test_devices_that_are_not_here(device):
    if device == "cuda" and torch.cuda.is_available():
        pytest.skip("there is an NVIDIA GPU")
    with pytest.raises(SettingError):
        run_speed(SpeedSettings(**{**vars(SMALL), "device": device}))


def test_the_command_takes_its_settings(monkeypatch):
    asked = []
    report = SimpleNamespace(to_dict=lambda: {"tile_s": 1.5})
    monkeypatch.setattr("benchmarks.speed.__main__.run_speed", lambda settings: asked.append(settings) or report)
    told = CliRunner().invoke(speed, ["--bands", "8", "--ratio", "4", "--device", "cpu", "--json"])
    assert json.loads(told.stdout) == {"tile_s": 1.5}
    assert (asked[0].bands, asked[0].ratio, asked[0].turns, asked[0].device) == (8, 4, 3, "cpu")
    assert CliRunner().invoke(speed, ["--turns", "0"]).exit_code == 2


def test_what_a_pixel_costs_is_told_of_each_method_with_its_ratio():
    done = CliRunner().invoke(stream, ["--copies", "1", "--turns", "1", "--methods", "bicubic,glp"])
    assert done.exit_code == 0, done.output
    first, second = done.stdout.strip().splitlines()[-1].split(", ")
    assert first.startswith("bicubic ")
    assert first.endswith("(1.00)")
    cost, ratio = (float(part.split()[at].strip("()")) for part, at in ((second, 1), (second, 3)))
    assert cost > 0
    assert ratio > 0

"""A fuse over Dask's workers: the pixels of one process, also when a worker is killed."""

from __future__ import annotations

import os
import signal
from types import SimpleNamespace

import numpy as np
import pytest
import rasterio
from fusing import run

from hsfuse.core import cluster
from hsfuse.core.errors import InputError, SettingError
from hsfuse.fusion import lazy, spread, stream
from hsfuse.fusion.tiles import TileWorker

distributed = pytest.importorskip("distributed")

#: 72 x 60 pixels in tiles of 16, overlapping by 6: five rows of batches of two tiles.
TILES = {"tile": 16, "overlap": 6, "register": "off", "psf": "assumed", "dtype": "float32"}


@pytest.fixture(autouse=True)
def small_batches(monkeypatch):
    monkeypatch.setattr(lazy, "BATCH_PIXELS", 2 * 15 * 15)


@pytest.fixture(scope="module")
def wanted(files, tmp_path_factory):
    output = tmp_path_factory.mktemp("one") / "one.tif"
    return run(files, output, **TILES).valid_share, raw(output)


@pytest.fixture(scope="module")
def scheduler():
    """One in this process."""
    with distributed.LocalCluster(n_workers=1, threads_per_worker=2, processes=False, dashboard_address=None) as made:
        yield made.scheduler_address


def raw(path):
    with rasterio.open(path) as ds:
        return ds.read()


def test_workers_give_the_pixels_of_one_process(files, wanted, scheduler, tmp_path):
    result = run(files, tmp_path / "a.tif", dask=scheduler, bands="2-30", **TILES)
    np.testing.assert_array_equal(raw(tmp_path / "a.tif"), wanted[1][1:30])
    assert result.valid_share == wanted[0]


def test_it_goes_on_where_it_stopped(files, wanted, scheduler, tmp_path, monkeypatch):
    """Stopped in the third row of tiles, what is there stays, and one process ends it."""
    taken, calls = spread._taken, []

    def stopping(*arguments):
        calls.append(1)
        if len(calls) > 5:
            raise KeyboardInterrupt
        return taken(*arguments)

    monkeypatch.setattr(spread, "_taken", stopping)
    with pytest.raises(KeyboardInterrupt):
        run(files, tmp_path / "a.tif", dask=scheduler, resume=True, **TILES)
    assert not (tmp_path / "a.tif").exists()
    assert (tmp_path / ".a.unfinished.tif").exists()
    run(files, tmp_path / "a.tif", resume=True, **TILES)
    np.testing.assert_array_equal(raw(tmp_path / "a.tif"), wanted[1])


@pytest.mark.parametrize(
    ("where", "told"),
    [
        ("remote", "wanted local, local:N"),
        ("local:0", "wanted local, local:N"),
        ("none.json", "no scheduler of Dask's answers at none.json"),
        ("tcp://127.0.0.1:9", "no scheduler of Dask's answers at tcp"),
    ],
)
def test_where_no_worker_is_is_said_in_a_line(where, told, monkeypatch):
    monkeypatch.setattr(cluster, "PATIENCE", "1s")
    with pytest.raises(SettingError, match=told) as caught, cluster.client_of(where):
        pass
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("said", [True, False])
def test_where_dask_has_malloc_map_each_array_workers_undo_it(files, scheduler, tmp_path, monkeypatch, said):
    """Dask's nannies set a threshold in the environment, with which a fusion takes three times as long."""
    told = []
    if said:
        monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", "65536")
    else:
        monkeypatch.delenv("MALLOC_TRIM_THRESHOLD_", raising=False)
    stream.keep_freed_memory.cache_clear()
    monkeypatch.setattr(stream, "_libc", lambda name: lambda *given: told.append((name, *given)))
    run(files, tmp_path / "a.tif", dask=scheduler, **TILES)
    stream.keep_freed_memory.cache_clear()
    set_to = [one for one in told if one[0] == "mallopt"]
    assert set_to == ([("mallopt", -3, 2**25), ("mallopt", -1, 2**26)] if said else [])


def test_what_a_worker_cannot_read_is_told_as_here(files, scheduler, tmp_path, monkeypatch):
    def read(*_):
        raise InputError("msi.tif can't be read: it isn't there any more")

    monkeypatch.setattr(TileWorker, "read", read)
    with pytest.raises(InputError, match=r"^msi\.tif can't be read: it isn't there any more$"):
        run(files, tmp_path / "a.tif", dask=scheduler, **TILES)
    assert not list(tmp_path.iterdir())


def test_what_dask_gives_up_is_told_in_a_line():
    """As where workers die of the same batch again and again, or the scheduler is gone."""
    from distributed.client import FutureCancelledError
    from distributed.scheduler import KilledWorker

    lost = KilledWorker("hsfuse-fuse-1-2", SimpleNamespace(address="tcp://10.0.0.1:4000"), 3)
    for error, told in ((lost, "KilledWorker: Attempted"), (FutureCancelledError("a", "lost\n"), "cancelled")):

        def result(error=error):
            raise error

        with pytest.raises(SettingError, match=told) as caught:
            spread._taken(None, [], SimpleNamespace(result=result))
        assert "\n" not in str(caught.value)


def test_quality_layers_are_refused(files, tmp_path):
    with pytest.raises(SettingError, match="leave out --qa or --dask"):
        run(files, tmp_path / "a.tif", dask="local:1", qa=tmp_path / "qa.tif", **TILES)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["a.tif", "a.zarr"])
def test_a_scheduler_and_processes_of_which_one_is_killed(files, wanted, tmp_path, monkeypatch, name):
    from hsfuse.io import open_cube

    taken, killed = spread._taken, []
    with distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster:

        def killing(*arguments):
            if not killed:
                (pid,) = list(distributed.Client(cluster).run(os.getpid).values())[:1]
                os.kill(pid, signal.SIGKILL)
                killed.append(pid)
            return taken(*arguments)

        monkeypatch.setattr(spread, "_taken", killing)
        run(files, tmp_path / name, dask=cluster.scheduler_address, **TILES)
    assert killed
    with open_cube(tmp_path / name) as reader:
        cube = reader.read()
    np.testing.assert_array_equal(cube.data, wanted[1])


@pytest.mark.slow
def test_local_workers(files, wanted, tmp_path):
    run(files, tmp_path / "a.tif", dask="local:2", **TILES)
    np.testing.assert_array_equal(raw(tmp_path / "a.tif"), wanted[1])

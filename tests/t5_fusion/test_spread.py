"""A fuse over Dask's workers: the pixels of one process, also when a worker is killed."""

from __future__ import annotations

import errno
import gc
import io
import logging
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import rasterio
from fusing import run

from hsfuse.core import cluster
from hsfuse.core.errors import InputError, OutputError, SettingError
from hsfuse.fusion import lazy, spread, tiles
from hsfuse.fusion.tiles import TileWorker
from hsfuse.io import open_cube, writer, zarr_store

distributed = pytest.importorskip("distributed")

#: 72 x 60 pixels in tiles of 16, overlapping by 6: five rows of batches of two tiles.
TILES = {"tile": 16, "overlap": 6, "register": "off", "psf": "assumed", "dtype": "float32"}

#: 2 x 2 tiles of whole blocks, which workers write into Zarr themselves.
WHOLE = {**TILES, "tile": 48}


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


@pytest.mark.parametrize(
    ("tiles", "seen", "chunks"),
    [(WHOLE, True, 0), (WHOLE, False, 4), (TILES, True, 20)],
    ids=["by workers", "workers don't see it", "tiles share blocks"],
)
def test_zarr_is_written_by_workers_where_they_can(files, scheduler, tmp_path, monkeypatch, tiles, seen, chunks):
    """What is told of the writing is the same: the share of valid pixels, and what was clipped."""
    how = {**tiles, "dtype": "int16", "scale": 1e-5}
    alone = run(files, tmp_path / "alone.zarr", **how)
    written, write = [], zarr_store.ZarrSink.write
    monkeypatch.setattr(zarr_store.ZarrSink, "write", lambda *told: written.append(1) or write(*told))
    if not seen:
        monkeypatch.setattr(writer, "write_part", lambda *_: False)
    spread_out = run(files, tmp_path / "a.zarr", dask=scheduler, **how)
    assert len(written) == chunks + 1  # the trial's, too
    assert (spread_out.valid_share, spread_out.warnings) == (
        alone.valid_share,
        [told.replace("alone", "a") for told in alone.warnings],
    )
    assert any("don't fit" in told for told in alone.warnings)
    cubes = []
    for name in ("alone.zarr", "a.zarr"):
        with open_cube(tmp_path / name) as reader:
            cubes.append(reader.read())
    np.testing.assert_array_equal(cubes[0].data, cubes[1].data)


def test_a_disk_that_is_full_where_workers_write_is_told_and_nothing_is_left(files, scheduler, tmp_path, monkeypatch):
    write, calls = writer.write_part, []

    def full(*told):
        calls.append(1)
        if len(calls) > 2:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(*told)

    monkeypatch.setattr(writer, "write_part", full)
    monkeypatch.setattr(zarr_store, "LOOK_S", 0.02)
    with pytest.raises(OutputError, match=r"a\.zarr couldn't be written: No space left on device .* nothing is left"):
        run(files, tmp_path / "a.zarr", dask=scheduler, **WHOLE)
    assert not list(tmp_path.iterdir())


def test_what_a_worker_begins_after_the_end_stays_away(files, scheduler, tmp_path, monkeypatch):
    """Interrupted while workers write: a chunk that comes late doesn't bring the folder back."""
    taken, write = spread._taken, writer.write_part

    def late(*told):
        time.sleep(0.1)
        return write(*told)

    def stopping(*arguments):
        taken(*arguments)
        raise KeyboardInterrupt

    monkeypatch.setattr(writer, "write_part", late)
    monkeypatch.setattr(spread, "_taken", stopping)
    monkeypatch.setattr(zarr_store, "LOOK_S", 0.1)
    with pytest.raises(KeyboardInterrupt):
        run(files, tmp_path / "a.zarr", dask=scheduler, **WHOLE)
    assert not list(tmp_path.iterdir())


def test_what_a_killed_worker_began_to_write_goes(files, tmp_path, monkeypatch):
    close = zarr_store.ZarrSink.close

    def closing(self):
        (self._path / "reflectance" / "c.1234.partial").write_bytes(b"begun")
        close(self)

    monkeypatch.setattr(zarr_store.ZarrSink, "close", closing)
    run(files, tmp_path / "a.zarr", **WHOLE)
    assert not list((tmp_path / "a.zarr").rglob("*.partial"))


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
    tiles.keep_freed_memory.cache_clear()
    monkeypatch.setattr(tiles, "_libc", lambda name: lambda *given: told.append((name, *given)))
    run(files, tmp_path / "a.tif", dask=scheduler, **TILES)
    tiles.keep_freed_memory.cache_clear()
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
            spread._taken((None, [], SimpleNamespace(result=result)))
        assert "\n" not in str(caught.value)


def test_a_worker_that_ends_before_it_is_ready_is_told_in_a_line(monkeypatch):
    def failing(**_):
        try:
            raise RuntimeError("Nanny failed to start\nworker process")
        except RuntimeError as error:
            raise RuntimeError("Nanny failed to start.") from error

    monkeypatch.setattr("dask.distributed.LocalCluster", failing)
    told = r"^--dask local:2: a worker ended before it was ready \(Nanny failed to start worker process\); start it"
    with pytest.raises(SettingError, match=told), cluster.client_of("local:2"):
        pass


@pytest.mark.skipif(not hasattr(signal, "pthread_sigmask"), reason="signals aren't for threads here")
def test_ctrl_c_of_a_terminal_is_for_who_started_the_workers_alone(monkeypatch):
    """It comes to all processes of a terminal: workers that it ends print tracebacks. They inherit what is blocked."""
    masks, closed = [], []

    def made(**_):
        there = threading.Thread(target=lambda: masks.append(signal.pthread_sigmask(signal.SIG_BLOCK, [])))
        there.start()
        there.join()
        return SimpleNamespace(close=lambda: closed.append("cluster"))

    monkeypatch.setattr("dask.distributed.LocalCluster", made)
    monkeypatch.setattr(
        "dask.distributed.Client", lambda *_, **__: SimpleNamespace(close=lambda: closed.append("client"))
    )
    with cluster.client_of("local:2"):
        assert signal.SIGINT in masks[0]
        assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, [])
        assert not closed
    assert closed == ["client", "cluster"]


def test_interrupted_while_workers_start_they_are_not_waited_for(monkeypatch):
    """Another one that Dask starts in place of the first goes, too."""
    began, spawn = [], multiprocessing.get_context("spawn")
    ours = spawn.Process(target=time.sleep, args=(60,), daemon=True)
    ours.start()

    def starting(**_):
        for _ in range(2):
            began.append(spawn.Process(target=time.sleep, args=(60,), daemon=True))
            began[-1].start()
            began[-1].join()
        raise RuntimeError("Nanny failed to start.")

    def interrupted():
        while not began or not began[0].pid:
            time.sleep(0.01)
        raise KeyboardInterrupt

    monkeypatch.setattr("dask.distributed.LocalCluster", starting)
    with pytest.raises(KeyboardInterrupt), cluster.client_soon("local:1", None):
        interrupted()
    assert [one.exitcode for one in began] == [-signal.SIGKILL] * 2
    assert ours.is_alive()
    ours.kill()
    ours.join()


@pytest.mark.skipif(sys.platform != "linux", reason="semaphores are tracked otherwise elsewhere")
@pytest.mark.parametrize(("quiet", "told"), [(True, ""), (False, "leaked semaphore objects")])
def test_killed_it_has_its_semaphores_removed_in_silence(quiet, told):
    """The tracker of resources outlives the process, and holds its stderr till it is done."""
    lines = ["import os, signal, multiprocessing", "from hsfuse.core.cluster import _quiet_tracker"]
    lines += ["_quiet_tracker()"] if quiet else []
    lines += ["lock = multiprocessing.get_context('spawn').Lock()", "print(lock._semlock.name, flush=True)"]
    lines += ["os.kill(os.getpid(), signal.SIGKILL)"]
    ended = subprocess.run([sys.executable, "-c", "\n".join(lines)], capture_output=True, text=True)
    assert ended.returncode == -signal.SIGKILL
    assert ended.stderr == "" if quiet else told in ended.stderr
    assert not Path(f"/dev/shm/sem.{ended.stdout.strip().lstrip('/')}").exists()


def test_lines_of_dask_are_details_and_what_it_says_of_memory_warnings(scheduler, monkeypatch, caplog):
    log, raw = logging.getLogger("distributed"), logging.StreamHandler(io.StringIO())
    monkeypatch.setattr(log, "handlers", [raw])
    monkeypatch.setattr(log, "propagate", False)
    with caplog.at_level(logging.DEBUG, "hsfuse"), cluster.client_of(scheduler):
        logging.getLogger("distributed.scheduler").warning("Removing worker %s", "a")
        logging.getLogger("distributed.nanny.memory").warning("exceeded 95% memory budget")
    assert ("hsfuse.core.cluster", logging.DEBUG, "Dask: Removing worker a") in caplog.record_tuples
    assert ("hsfuse.core.cluster", logging.WARNING, "Dask: exceeded 95% memory budget") in caplog.record_tuples
    assert not raw.stream.getvalue()
    assert log.handlers == [raw]


def test_workers_that_start_here_say_what_they_lack_memory_for_and_no_more(monkeypatch):
    log, shown = logging.getLogger("distributed"), logging.StreamHandler(io.StringIO())
    monkeypatch.setattr(log, "handlers", [shown])
    cluster.dask_setup(None)
    logging.getLogger("distributed.worker").error("Compute Failed")
    logging.getLogger("distributed.worker.memory").warning("Worker is at 80% memory usage. Pausing worker.")
    said = shown.stream.getvalue()
    assert said == "hsfuse: warning: Dask: Worker is at 80% memory usage. Pausing worker.\n"


def test_a_lost_worker_is_told(caplog):
    now = spread._still({"tcp://a", "tcp://b"}, SimpleNamespace(nthreads=lambda: {"tcp://b": 1, "tcp://c": 1}))
    assert now == {"tcp://b", "tcp://c"}
    assert caplog.messages == ["the worker tcp://a was lost: its tiles are made again"]


@pytest.fixture
def store(monkeypatch):
    """A worker's, of this test alone."""
    monkeypatch.setattr(spread, "_store", made := spread._Store())
    return made


def edges_of(number):
    """Below and the corner, of two sizes."""
    return np.full((3, 4, 5 + number % 2), number, np.float32), np.full((3, 4, 2), -number, np.float32)


def test_what_a_row_of_tiles_keeps_for_the_next_is_in_a_file_whose_places_are_used_again(store):
    """Else a worker's memory grows with the scene's width."""
    row = [spread.Aside(*edges_of(i)) for i in range(4)]
    assert not any(isinstance(value, np.ndarray) for one in row for value in vars(one).values())
    length = os.fstat(store._file.fileno()).st_size
    for i in range(4):
        row[i] = spread.Aside(*edges_of(10 + i)) if i else None
    assert os.fstat(store._file.fileno()).st_size <= length + max(sum(e.nbytes for e in edges_of(i)) for i in (0, 1))
    for i in range(1, 4):
        found = row[i].edges()
        np.testing.assert_array_equal(found.below, edges_of(10 + i)[0])
        np.testing.assert_array_equal(found.corner, edges_of(10 + i)[1])
    file = store._file
    row.clear()
    assert file.closed


def test_what_a_row_of_tiles_keeps_goes_to_another_worker_with_its_bytes(store):
    sent = pickle.dumps(spread.Aside(*edges_of(7)))
    assert store._file is None  # nothing is left here
    found = pickle.loads(sent).edges()
    np.testing.assert_array_equal(found.below, edges_of(7)[0])
    np.testing.assert_array_equal(found.corner, edges_of(7)[1])


@pytest.mark.parametrize("room", [0, 100], ids=["nowhere", "too little"])
def test_without_room_on_the_disk_memory_has_to_do(store, monkeypatch, room):
    def write(data):
        if not room:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return room

    file = SimpleNamespace(seek=lambda _: None, write=write, close=lambda: None)
    monkeypatch.setattr(spread, "TemporaryFile", lambda **_: file)
    kept = spread.Aside(*edges_of(3))
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(kept)).edges().below, edges_of(3)[0])
    assert store._file is None


def test_workers_keep_nothing_once_a_scene_is_done(files, scheduler, tmp_path, store):
    """What rows of tiles have kept meanwhile, they kept in one file."""
    made, put = [], store.put
    store.put = lambda data: made.append(len(data)) or put(data)
    run(files, tmp_path / "a.tif", dask=scheduler, **TILES)
    assert made
    deadline = time.monotonic() + 30
    while store._held and time.monotonic() < deadline:
        gc.collect()
        time.sleep(0.01)
    assert store._file is None


def test_quality_layers_are_refused(files, tmp_path):
    with pytest.raises(SettingError, match="leave out --qa or --dask"):
        run(files, tmp_path / "a.tif", dask="local:1", qa=tmp_path / "qa.tif", **TILES)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "tiles"), [("a.tif", TILES), ("a.zarr", TILES), ("b.zarr", WHOLE)])
def test_a_scheduler_and_processes_of_which_one_is_killed(files, wanted, tmp_path, monkeypatch, caplog, name, tiles):
    if tiles is not TILES:
        run(files, tmp_path / "wanted.tif", **tiles)
        wanted = None, raw(tmp_path / "wanted.tif")
    taken, killed = spread._taken, []
    with distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster:

        def killing(*arguments):
            if not killed:
                (pid,) = list(distributed.Client(cluster).run(os.getpid).values())[:1]
                os.kill(pid, signal.SIGKILL)
                killed.append(pid)
            return taken(*arguments)

        monkeypatch.setattr(spread, "_taken", killing)
        run(files, tmp_path / name, dask=cluster.scheduler_address, **tiles)
    assert killed
    assert "was lost: its tiles are made again" in caplog.text
    with open_cube(tmp_path / name) as reader:
        cube = reader.read()
    np.testing.assert_array_equal(cube.data, wanted[1])


@pytest.mark.slow
def test_local_workers(files, wanted, tmp_path):
    run(files, tmp_path / "a.tif", dask="local:2", **TILES)
    np.testing.assert_array_equal(raw(tmp_path / "a.tif"), wanted[1])

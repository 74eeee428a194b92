"""Tiles read ahead, fused in batches and written behind: nothing of it shows in the result."""

from __future__ import annotations

import copy
import threading
import time
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from scenes import memory_scene, save_pair

from hsfuse.core.options import FuseOptions
from hsfuse.fusion.fitting import fit_method
from hsfuse.fusion.stream import plan_tiles
from hsfuse.fusion.tiles import Behind, TileWorker, ahead, batches
from hsfuse.methods import METHODS, make_method
from hsfuse.methods.srlf import SRLF
from hsfuse.nets.srlf import SRLFConfig
from hsfuse.pair import open_pair
from hsfuse.pair.sample import sample_scene
from hsfuse.physics.solve import beside_each_other

#: hysure's conjugate gradients choose their steps by sums over the whole batch.
ITERATED = 2e-4


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """40 x 40 LR pixels at ratio 2."""
    files = save_pair(tmp_path_factory.mktemp("tilework"), memory_scene((40, 40), 2))
    with open_pair(files.hsi, files.msi, srf="sentinel2a") as pair:
        yield pair


def read_tiles(work, count=None):
    tiles = plan_tiles(work.pair, 4, 16, 4)
    return [work.read(rows, cols) for rows in tiles.spans(0) for cols in tiles.spans(1)][:count]


def alike(work):
    """Three tiles of one shape, away from the border."""
    tiles = read_tiles(work)
    chosen = [tile for tile in tiles if tile.shapes == tiles[6].shapes][:3]
    assert len(chosen) == 3
    return chosen


@pytest.mark.parametrize("name", [n for n in METHODS if not n.startswith("srlf")])
def test_a_batch_gives_what_its_tiles_give(pair, name):
    work = TileWorker(pair, make_method(name).fit(sample_scene(pair), pair.model))
    tiles = alike(work)
    together = [tile.finish()[0] for tile in work.fuse(tiles)]
    alone = [work.fuse([tile])[0].finish()[0] for tile in tiles]
    np.testing.assert_allclose(together, alone, atol=ITERATED if name == "hysure" else 2e-6)


@pytest.mark.parametrize("number", [0, 6])
def test_bands_are_made_inside_alone_and_are_what_predict_gives_there(pair, number):
    """Of a tile in the scene's corner, and of one whose halo is cut off on all sides."""
    fuser = make_method("glp-ens").fit(sample_scene(pair), pair.model)
    tile = read_tiles(TileWorker(pair, fuser), 7)[number]
    found = TileWorker(pair, fuser).fuse([tile])[0].finish()[0]
    whole = fuser.predict(tile.lrhsi[None], tile.msi[None])[0][:, *tile.inner]
    np.testing.assert_allclose(found, whole, atol=1e-6)


def test_a_batch_gives_what_its_tiles_give_with_a_network(pair):
    """Whose correction is large, as its last layer is random, and wholly trusted."""
    options = FuseOptions(base="glp-reg", adapt_steps=1, ensemble=1)
    fuser = SRLF(options, None, SRLFConfig(16, 16, 2, stages=1))
    fuser.fit(sample_scene(pair), pair.model)
    torch.nn.init.normal_(fuser.net.refine.weight, std=0.1, generator=torch.Generator().manual_seed(0))
    fuser.share = torch.ones_like(fuser.share)
    work = TileWorker(pair, fuser)
    tiles = alike(work)
    together = np.stack([tile.finish()[0] for tile in work.fuse(tiles)])
    alone = np.stack([work.fuse([tile])[0].finish()[0] for tile in tiles])
    assert np.sqrt(np.mean((together - alone) ** 2)) < 1e-4 * alone.std()


def test_what_does_not_fit_a_devices_memory_goes_in_halves(pair, monkeypatch):
    work = TileWorker(pair, make_method("bicubic").fit(sample_scene(pair), pair.model))
    tiles, sizes = read_tiles(work, 3)[1:2] * 5, []
    fuse = TileWorker._fuse

    def small(self, batch):
        sizes.append(len(batch))
        if len(batch) > 2:
            raise torch.cuda.OutOfMemoryError
        return fuse(self, batch)

    monkeypatch.setattr(TileWorker, "_fuse", small)
    assert len(work.fuse(tiles)) == 5
    assert sizes == [5, 2, 3, 1, 2]
    monkeypatch.setattr(TileWorker, "_fuse", lambda self, batch: small(self, batch * 3))
    with pytest.raises(torch.cuda.OutOfMemoryError):
        work.fuse(tiles)


def test_batches_keep_order_and_shapes(pair):
    work = TileWorker(pair, make_method("bicubic"))
    tiles = read_tiles(work)
    found = list(batches(iter(tiles), 3))
    assert [tile for batch in found for tile in batch] == tiles
    assert all(len({tile.shapes for tile in batch}) == 1 and len(batch) <= 3 for batch in found)
    assert max(map(len, found)) == 3


def test_reading_runs_ahead_but_not_far():
    started: list[int] = []
    gate = threading.Semaphore(0)

    def work(item: int) -> int:
        started.append(item)
        gate.release()
        return -item

    results = ahead(range(10), work, 2)
    assert next(results) == 0
    for _ in range(3):
        gate.acquire(timeout=10)
    assert started == [0, 1, 2]
    assert list(results) == [-i for i in range(1, 10)]


def test_an_error_in_reading_comes_where_its_tile_would():
    results = ahead([1, 2, 0, 3], lambda n: 1 / n, 2)
    assert [next(results), next(results)] == [1, 0.5]
    with pytest.raises(ZeroDivisionError):
        next(results)


def test_writing_keeps_the_order_and_is_done_at_the_end():
    done: list[int] = []
    with Behind(2) as behind:
        for i in range(20):
            behind.do(lambda i=i: done.append(i))
    assert done == list(range(20))


def test_after_an_error_nothing_more_is_written():
    done: list[int] = []

    def call(i: int) -> None:
        if i == 3:
            raise OSError("disk full")
        done.append(i)

    def all_of_them() -> None:
        with Behind(2) as behind:
            for i in range(20):
                behind.do(lambda i=i: call(i))

    with pytest.raises(OSError, match="disk full"):
        all_of_them()
    assert done == [0, 1, 2]


def test_what_was_handed_over_is_written_when_interrupted():
    done: list[int] = []

    def interrupted() -> None:
        with Behind(5) as behind:
            for i in range(3):
                behind.do(lambda i=i: done.append(i))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert done == [0, 1, 2]


@contextmanager
def torch_threads(count):
    """So many threads of torch for a while."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
        assert torch.get_num_threads() == count
    finally:
        torch.set_num_threads(before)


def test_a_scene_is_fitted_on_one_thread_and_its_tiles_beside_each_other_on_one_each(pair, monkeypatch):
    """Where a second gains little, and where something else has its core costs many times what it takes alone."""
    seen, fuser = [], make_method("bicubic")
    for name in ("fit", "predict"):
        told = getattr(type(fuser), name)
        monkeypatch.setattr(type(fuser), name, lambda *a, told=told: seen.append(torch.get_num_threads()) or told(*a))
    with torch_threads(3):
        work = TileWorker(pair, fit_method(fuser, pair, sample_scene(pair), "cpu"))
        assert work.threads == 3
        assert len(list(work.fuse_all(all_spans(pair, fuser)))) > 3
    assert set(seen) == {1}


def test_where_tiles_are_fewer_than_threads_parts_of_each_are_computed_beside_each_other(pair, monkeypatch):
    seen, fuser = [], make_method("bicubic").fit(sample_scene(pair), pair.model)
    told = TileWorker.fuse

    def helped(*given):
        calls = [lambda: time.sleep(0.02) or threading.current_thread().name] * 8
        seen.append(len(set(beside_each_other(*calls))))
        return told(*given)

    monkeypatch.setattr(TileWorker, "fuse", helped)
    spans = all_spans(pair, fuser)
    with torch_threads(4):
        for count in (1, 2, 3, 9):
            list(TileWorker(pair, fuser).fuse_all(spans[:count]))
    assert seen == [4, 2, 2, 1, 1, 1, *[1] * 9]


def test_fitting_on_several_threads_has_the_bits_of_one(pair):
    states = []
    for count in (1, 3):
        with torch_threads(count):
            states.append(fit_method(make_method("blend"), pair, sample_scene(pair), "cpu").state().digest())
    assert states[0] == states[1]


def all_spans(pair, fuser):
    tiles = plan_tiles(pair, fuser.requirements.halo, 16, 8)
    return [(rows, cols) for rows in tiles.spans(0) for cols in tiles.spans(1)]


@pytest.mark.parametrize("name", ["blend", "hysure"])
def test_tiles_fused_beside_each_other_are_in_order_and_have_the_bits_of_one_after_the_other(pair, name):
    fuser = make_method(name).fit(sample_scene(pair), pair.model)
    found = []
    for count in (1, 3):
        with torch_threads(count):
            work = TileWorker(pair, copy.deepcopy(fuser))  # without what the other has kept
            found.append([tile for batch in work.fuse_all(all_spans(pair, fuser)) for tile in batch])
    for one, other in zip(*found, strict=True):
        assert (one.source.rows, one.source.cols) == (other.source.rows, other.source.cols)
        assert torch.equal(one.data, other.data)


def test_an_error_in_a_thread_is_raised_and_the_rest_given_up(pair, monkeypatch):
    fuser, done = make_method("bicubic").fit(sample_scene(pair), pair.model), []
    spans, told = all_spans(pair, fuser), TileWorker.fuse

    def fails(self, tiles):
        done.append(tiles)
        if len(done) == 2:
            raise MemoryError("no more")
        return told(self, tiles)

    monkeypatch.setattr(TileWorker, "fuse", fails)
    with torch_threads(2), pytest.raises(MemoryError, match="no more"):
        list(TileWorker(pair, fuser).fuse_all(spans))
    assert len(done) < len(spans)

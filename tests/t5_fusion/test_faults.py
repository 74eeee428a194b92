"""Inputs that vanish in mid-run, and reading that fails for a moment: a line, no half file, and the same pixels."""

from __future__ import annotations

import logging
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
from fusing import read, run
from rasterio.errors import RasterioIOError
from rasterio.io import DatasetReader

from hsfuse.core.errors import InputError
from hsfuse.io import open_cube, reader

TILES = {"tile": 16, "overlap": 4, "register": "off", "resume": True}


@pytest.fixture(autouse=True)
def no_waits(monkeypatch):
    monkeypatch.setattr(reader, "WAITS_S", (0.0, 0.0))


def failing(monkeypatch, name, fails):
    """Reading a file of that name ends in an error where `fails` of how often it has been read says so."""
    calls, own = [], DatasetReader.read

    def read_or_fail(self, *arguments, **spelled):
        if self.name.endswith(name):
            calls.append(1)
            if fails(len(calls)):
                raise RasterioIOError("Read failed. See previous exception for details.") from OSError(
                    "TIFFFillTile:Read error at row 0, col 0"
                )
        return own(self, *arguments, **spelled)

    monkeypatch.setattr(DatasetReader, "read", read_or_fail)
    return calls


@pytest.fixture(scope="module")
def whole(files, tmp_path_factory):
    """The pixels of an undisturbed run, and how often it reads the MSI."""
    output = tmp_path_factory.mktemp("whole") / "a.tif"
    with pytest.MonkeyPatch.context() as patch:
        calls = failing(patch, "msi.tif", lambda n: False)
        run(files, output, **TILES)
    return read(output).data, len(calls)


def copied(files, folder):
    """The pair in a folder of its own."""
    made = {name: shutil.copy2(getattr(files, name), folder / f"{name}.tif") for name in ("hsi", "msi")}
    return SimpleNamespace(**made)


def test_reading_that_fails_once_is_tried_again_and_told(files, whole, tmp_path, monkeypatch, caplog):
    pixels, reads = whole
    failing(monkeypatch, "msi.tif", lambda n: n in (1, reads - 3))
    with caplog.at_level(logging.WARNING, "hsfuse"):
        run(files, tmp_path / "a.tif", **TILES)
    told = [record.message for record in caplog.records if "trying again in" in record.message]
    assert len(told) == 2
    assert all("msi.tif can't be read: TIFFFillTile:Read error" in line for line in told)
    np.testing.assert_array_equal(read(tmp_path / "a.tif").data, pixels)


def test_an_input_that_vanishes_leaves_no_half_file_and_when_it_is_back_the_rest_is_done(
    files, whole, tmp_path, monkeypatch
):
    pixels, reads = whole
    pair, out = copied(files, tmp_path), tmp_path / "out" / "a.tif"
    out.parent.mkdir()

    def vanish(n):
        if n == reads - 3:
            (tmp_path / "msi.tif").rename(tmp_path / "aside.tif")
        return n >= reads - 3

    with monkeypatch.context() as patch:
        failing(patch, "msi.tif", vanish)
        with pytest.raises(InputError, match=r"msi.tif can't be read: .*; .*msi.tif isn't there any more$") as caught:
            run(pair, out, **TILES)
    assert "\n" not in str(caught.value)
    assert not [path.name for path in out.parent.iterdir() if ".unfinished." not in path.name]
    with pytest.raises(InputError, match="doesn't exist"):
        run(pair, out, **TILES)
    (tmp_path / "aside.tif").rename(tmp_path / "msi.tif")
    calls = failing(monkeypatch, "msi.tif", lambda n: False)
    result = run(pair, out, **TILES)
    assert "starts anew" not in " ".join(result.warnings)
    assert len(calls) < reads
    np.testing.assert_array_equal(read(out).data, pixels)
    assert [path.name for path in out.parent.iterdir()] == ["a.tif"]


def test_a_zarr_group_that_vanishes_is_not_read_as_blank(files, tmp_path):
    run(files, tmp_path / "a.zarr", **{**TILES, "resume": False})
    with open_cube(tmp_path / "a.zarr") as cube:
        cube.read()
        shutil.move(tmp_path / "a.zarr", tmp_path / "aside")
        with pytest.raises(InputError, match="isn't there any more"):
            cube.read()

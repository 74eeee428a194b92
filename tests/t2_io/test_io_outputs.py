"""Outputs: names that may not be overwritten, and failing that leaves nothing behind."""

from __future__ import annotations

import os
import resource
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
from affine import Affine
from rasterio.windows import Window
from rasters import GRID, SPECTRUM, scene, write_cube

from hsfuse.core.errors import HsfuseError, OutputError, SettingError
from hsfuse.core.grid import Grid
from hsfuse.io import CubeWriter, Storage, check_output, driver_of, open_cube, output_files, publish
from hsfuse.io.files import trial_folder

# Names of outputs


def test_format_by_suffix_or_name(tmp_path):
    assert [driver_of(f"a{s}") for s in (".tif", ".TIFF", ".dat", ".img", ".bsq", ".hdr", ".envi")] == ["GTiff"] * 2 + [
        "ENVI"
    ] * 5
    assert driver_of("a.xyz", "envi") == "ENVI"
    assert output_files("x/a.hdr") == (Path("x/a.dat"), Path("x/a.hdr"))
    with pytest.raises(SettingError, match=r"\.tif"):
        driver_of("a.png")
    with pytest.raises(SettingError, match="GTiff, COG, ENVI, Zarr"):
        driver_of("a.tif", "jpeg")


def test_format_overrides_the_suffix(tmp_path):
    data, mask = scene()
    write_cube(tmp_path / "a.tif", data, mask, driver="ENVI")
    with open_cube(tmp_path / "a.tif") as reader:
        assert reader.driver == "ENVI"
        np.testing.assert_array_equal(reader.read().data, data * mask)


def test_an_output_that_is_an_input_is_refused(tmp_path):
    data, mask = scene()
    write_cube(tmp_path / "in.img", data, mask)
    write_cube(tmp_path / "in.tif", data, mask)
    (tmp_path / "soft.tif").symlink_to(tmp_path / "in.tif")
    os.link(tmp_path / "in.tif", tmp_path / "hard.tif")
    for output, source in [
        ("in.tif", "in.tif"), ("soft.tif", "in.tif"), ("hard.tif", "in.tif"), ("in.tif", "soft.tif"),
        ("in.img", "in.img"), ("in.hdr", "in.img"), ("in.img", "in.hdr"), ("in.dat", "in.img"), ("in.dat", "in.hdr"),
    ]:  # fmt: skip
        with pytest.raises(OutputError, match="is the input"):
            check_output(tmp_path / output, [tmp_path / source], overwrite=True)
    check_output(tmp_path / "in.dat", [tmp_path / "in.tif"], overwrite=True)  # a TIFF beside an ENVI pair of its name
    check_output(tmp_path / "out.tif", [tmp_path / "in.img", tmp_path / "in.tif"])


def test_existing_outputs_and_folders(tmp_path):
    (tmp_path / "a.tif").write_text("old")
    (tmp_path / "b.hdr").write_text("old")
    (tmp_path / "c.dat.hdr").write_text("old")
    (tmp_path / "dangling.tif").symlink_to(tmp_path / "nowhere")
    for name in ("a.tif", "b.dat", "c.dat", "dangling.tif"):
        with pytest.raises(OutputError, match="exists already"):
            CubeWriter(tmp_path / name, GRID, SPECTRUM)
        check_output(tmp_path / name, overwrite=True)
    with pytest.raises(OutputError, match="doesn't exist"):
        check_output(tmp_path / "none" / "a.tif")
    (tmp_path / "d.tif").mkdir()
    with pytest.raises(OutputError, match="is a folder"):
        check_output(tmp_path / "d.tif", overwrite=True)


def test_a_folder_without_write_permission(tmp_path, monkeypatch):
    def refused(*_, **__):
        raise PermissionError

    monkeypatch.setattr("hsfuse.io.files.TemporaryFile", refused)  # root may always write
    with pytest.raises(OutputError, match="can't be written"):
        check_output(tmp_path / "a.tif")


@pytest.mark.parametrize("name", ["a.tif", "a.dat"])
def test_overwriting_drops_what_the_old_files_left(tmp_path, name):
    data, mask = scene()
    write_cube(tmp_path / name, data, mask)
    for suffix in (".aux.xml", ".ovr", ".msk") + ((".hdr",) if name == "a.dat" else ()):
        Path(f"{tmp_path / name}{suffix}").write_text("stale")
    write_cube(tmp_path / name, 1 - data, mask, overwrite=True)
    assert {p.name for p in tmp_path.iterdir()} == {p.name for p in output_files(tmp_path / name)}
    with open_cube(tmp_path / name) as reader:
        np.testing.assert_array_equal(reader.read().data, (1 - data) * mask)


# Failing leaves nothing


@pytest.mark.parametrize("name", ["a.tif", "a.dat"])
@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
@pytest.mark.parametrize("old", [False, True])
def test_interrupted_writing_leaves_what_was_there(tmp_path, name, error, old):
    data, mask = scene()
    if old:
        write_cube(tmp_path / name, data, mask)
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}

    def interrupted() -> None:
        with CubeWriter(tmp_path / name, GRID, SPECTRUM, overwrite=True) as writer:
            writer.write(Window(0, 0, 256, 256), data[:, :256, :256], mask[:256, :256])
            assert any(".part" in p.name and p.name.startswith(".") for p in tmp_path.iterdir())
            raise error

    with pytest.raises(error):
        interrupted()
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before


@pytest.mark.parametrize("name", ["a.tif", "a.dat"])
def test_a_cube_written_in_part_is_no_result(tmp_path, name):
    data, mask = scene()
    with (
        pytest.raises(OutputError, match="65536 of 81000 pixels"),
        CubeWriter(tmp_path / name, GRID, SPECTRUM) as writer,
    ):
        writer.write(Window(0, 0, 256, 256), data[:, :256, :256], mask[:256, :256])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize("names", [("a.tif", "qa.tif"), ("a.dat", "qa.tif"), ("a.tif", "qa.zarr")])
def test_two_outputs_appear_together_or_not_at_all(tmp_path, monkeypatch, names, old):
    data, mask = scene()
    if old:
        for name in names:
            write_cube(tmp_path / name, data, mask)
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    replace = os.replace

    def write(fail_at: str) -> None:
        def failing(source, target) -> None:
            if Path(target).name == fail_at and ".part" in Path(source).name:
                raise PermissionError(1, "Operation not permitted")
            replace(source, target)

        monkeypatch.setattr(os, "replace", failing)
        with (
            CubeWriter(tmp_path / names[0], GRID, SPECTRUM, overwrite=True) as one,
            CubeWriter(tmp_path / names[1], GRID, SPECTRUM, overwrite=True) as two,
        ):
            for writer in (one, two):
                writer.write(Window(0, 0, *GRID.shape[::-1]), 0.5 * data, mask)
            publish([one, two])

    for fail_at in (names[0], names[1]):
        with pytest.raises(OutputError, match=r"not permitted.*nothing is left"):
            write(fail_at)
        assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before
    write("nothing")
    assert {p.name.split(".")[0] for p in tmp_path.iterdir()} == {"a", "qa"}
    for name in names:
        with open_cube(tmp_path / name) as reader:
            np.testing.assert_allclose(reader.read().data, 0.5 * data * mask, rtol=1e-6)


@pytest.fixture
def file_size_limit():
    """Files can't grow past 300 kB, which for a writer is a full disk."""
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, old[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, old)
    signal.signal(signal.SIGXFSZ, handler)


def test_a_full_disk_while_the_cog_is_copied_is_told(tmp_path):
    """GDAL's copy needs room for its overviews as well; rasterio lets GDAL's own error pass there."""
    data, mask = scene()
    write_cube(tmp_path / "a.tif", data, mask)
    size = (tmp_path / "a.tif").stat().st_size
    old, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 20_000, old[1]))
    try:
        with pytest.raises(OutputError, match="couldn't be written"):
            write_cube(tmp_path / "b.tif", data, mask, driver="COG")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
        signal.signal(signal.SIGXFSZ, handler)
    assert [p.name for p in tmp_path.iterdir()] == ["a.tif"]


@pytest.mark.parametrize("options", [
    {"NODATA": "0"}, {"crs": "EPSG:4326"}, {"DTYPE": "uint8"}, {"COUNT": "3", "HEIGHT": "4"}, {"driver": "PNG"},
])  # fmt: skip
def test_creation_options_do_not_overrule_what_the_output_is(tmp_path, options):
    with pytest.raises(SettingError, match=f"{sorted(options)[0].upper()}.* can't be given as a creation option"):
        CubeWriter(tmp_path / "a.tif", GRID, SPECTRUM, Storage(options=options))


def test_a_cog_takes_its_overviews_as_asked(tmp_path):
    write_cube(tmp_path / "a.tif", *scene(), driver="COG", options={"OVERVIEW_RESAMPLING": "NEAREST"})
    with open_cube(tmp_path / "a.tif") as reader:
        assert reader.count == 3


def test_a_failure_says_what_is_kept(tmp_path, monkeypatch):
    data, mask = scene()

    def write(space: int) -> None:
        with CubeWriter(tmp_path / "a.tif", GRID, SPECTRUM, fingerprint="x") as writer:
            writer.write(Window(0, 0, 270, 256), data[:, :256], mask[:256])
            writer.checkpoint({})
            monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": space}))
            writer.write(Window(0, 256, 270, 44), data[:, 256:], mask[256:])

    with pytest.raises(OutputError, match="what is done is kept, --resume goes on with it"):
        write(1000)


@pytest.mark.parametrize("name", ["a.tif", "a.dat"])
@pytest.mark.parametrize("step", [256, 90])
def test_a_full_disk_is_told_and_leaves_nothing(tmp_path, file_size_limit, name, step):
    data, mask = scene()
    with pytest.raises(OutputError, match="couldn't be written") as caught:
        write_cube(tmp_path / name, data, mask, step=step)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_nearly_full_disk_stops_geotiff_before_gdal_meets_it(tmp_path, monkeypatch, capfd):
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage)
    with pytest.raises(OutputError, match="No space left"):
        write_cube(tmp_path / "a.tif", *scene())
    assert list(tmp_path.iterdir()) == []
    assert capfd.readouterr().err == ""


def test_a_sheared_grid_is_refused_for_envi(tmp_path):
    grid = Grid((4, 4), Affine(10, 3, 0, 0, -10, 0), GRID.crs)
    with pytest.raises(HsfuseError, match="GeoTIFF"), CubeWriter(tmp_path / "a.dat", grid, SPECTRUM):
        pass
    assert list(tmp_path.iterdir()) == []


def test_an_interrupt_while_a_trial_is_removed_leaves_nothing(tmp_path, monkeypatch):
    plain, calls = shutil.rmtree, []

    def interrupted(path, **how):
        calls.append(path)
        if len(calls) == 1:
            raise KeyboardInterrupt
        plain(path, **how)

    monkeypatch.setattr(shutil, "rmtree", interrupted)
    with pytest.raises(KeyboardInterrupt), trial_folder(tmp_path / "a.zarr") as folder:
        (folder / "trial.zarr").mkdir()
    assert not list(tmp_path.iterdir())

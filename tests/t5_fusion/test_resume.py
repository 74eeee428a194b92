"""Going on with an unfinished cube: only with what its first tiles were made from, else from the start."""

from __future__ import annotations

import os
import re
import shutil
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest
import rasterio
from affine import Affine
from fusing import interrupted, read
from scenes import BANDS, FWHM_NM, WAVELENGTHS_NM, memory_scene, save, save_pair

from hsfuse.core.cube import Spectrum
from hsfuse.core.errors import OutputError
from hsfuse.core.options import FuseOptions
from hsfuse.fusion import fuse, run_fusion
from hsfuse.io.finished import answers, changes, damage, provenance_in
from hsfuse.io.lock import only_writer
from hsfuse.io.sinks import placed_tiles
from hsfuse.methods.adapt import Adaptation
from hsfuse.methods.srlf import FROM_SCRATCH
from hsfuse.nets.weights import load_checkpoint, save_checkpoint
from hsfuse.physics import load_srf, write_srf

TILES = {"tile": 16, "overlap": 4, "method": "glp-reg", "register": "off", "match_radiometry": "off", "psf": "assumed"}
NETWORK = {
    **TILES, "tile": 48, "method": "srlf", "base": "bicubic", "ensemble": 1, "adapt_steps": 2,
    "adapt_minutes": 60.0, "consistency": "off",
}  # fmt: skip


def stopped(monkeypatch, *arguments, **how) -> None:
    """A run that is interrupted after nine tiles of twenty, or three of four."""
    with monkeypatch.context() as patch:
        interrupted(patch, 9 if how["tile"] == 16 else 3)
        with pytest.raises(KeyboardInterrupt):
            fuse(*arguments, resume=True, **how)


@pytest.fixture(scope="module")
def whole(files, tmp_path_factory):
    """One run without a stop, with its network beside it in whole.safetensors; not to be changed."""
    folder = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("hsfuse.methods.srlf.FROM_SCRATCH", (1, FROM_SCRATCH[1]))
        return fuse(files.hsi, files.msi, "sentinel2a", folder / "whole.tif", **NETWORK, model="none", dtype="float32",
                    save_model=folder / "whole.safetensors")  # fmt: skip


@pytest.fixture(scope="module")
def plain(files, tmp_path_factory):
    """The cube of one run without a stop or a network."""
    out = tmp_path_factory.mktemp("plain") / "a.tif"
    return read(fuse(files.hsi, files.msi, "sentinel2a", out, **TILES).output).data


def write_psf(path, sigma: float) -> str:
    """A table of 9 x 9 taps, of the same size and time whatever they are."""
    taps = np.exp(-((np.arange(9) - 4) ** 2) / (2 * sigma**2))
    np.savetxt(path, np.outer(taps, taps), delimiter=",")
    os.utime(path, ns=(1, 1))
    return str(path)


def other_response(path) -> str:
    """A table of four bands that aren't where their names say."""
    response = load_srf("sentinel2a").select(("B3", "B4", "B5", "B8A"))
    lines = [path.read_text(encoding="utf-8").splitlines()[0]]
    write_srf(response, path, overwrite=True)
    return "\n".join([*lines, *path.read_text(encoding="utf-8").splitlines()[1:]]) + "\n"


@pytest.mark.parametrize("what", ["MSI", "Zarr", "SRF", "PSF", "nothing"])
def test_inputs_that_changed_start_it_anew(tmp_path, monkeypatch, what):
    scene = memory_scene()
    pair = save_pair(tmp_path, scene)
    spectrum, lrhsi = Spectrum(tuple(WAVELENGTHS_NM), tuple(FWHM_NM)), scene.lrhsi[0].numpy()
    store, table = save(tmp_path / "hsi.zarr", lrhsi, pair.hsi_grid(), spectrum), tmp_path / "srf.csv"
    write_srf(load_srf("sentinel2a").select(BANDS), table)
    inputs = store if what == "Zarr" else pair.hsi, pair.msi, str(table)
    how = {**TILES, "psf": write_psf(tmp_path / "psf.csv", 2.0)} if what == "PSF" else TILES
    stopped(monkeypatch, *inputs, tmp_path / "a.tif", **how)
    if what == "MSI":
        save(pair.msi, 0.8 * scene.msi[0].numpy(), pair.hr_grid, Spectrum(None, None, BANDS))
    elif what == "Zarr":
        import zarr

        pixels = zarr.open_group(str(store), mode="r+")["reflectance"]
        pixels[:] = pixels[:] * 0.5
    elif what == "SRF":
        table.write_text(other_response(table), encoding="utf-8")
    elif what == "PSF":
        write_psf(tmp_path / "psf.csv", 3.0)
    result = fuse(*inputs, tmp_path / "a.tif", resume=True, **how)
    anew = fuse(*inputs, tmp_path / "b.tif", **how)
    np.testing.assert_array_equal(read(result.output).data, read(anew.output).data)
    assert any("a.tif was made otherwise; it starts anew" in text for text in result.warnings) == (what != "nothing")


def test_weights_that_were_replaced_start_it_anew(files, whole, tmp_path, monkeypatch):
    inputs, out, used = (files.hsi, files.msi, "sentinel2a"), tmp_path / "a.tif", tmp_path / "used.safetensors"
    shutil.copy(whole.output.with_suffix(".safetensors"), used)
    card, tensors = load_checkpoint(used)
    how = {**NETWORK, "adapt_steps": 0, "model": str(used)}
    stopped(monkeypatch, *inputs, out, **how)
    save_checkpoint(used, card, {key: 0.5 * value for key, value in tensors.items()})
    result = fuse(*inputs, out, resume=True, **how)
    np.testing.assert_array_equal(read(out).data, read(fuse(*inputs, tmp_path / "b.tif", **how).output).data)
    assert any("starts anew" in text for text in result.warnings)


@pytest.mark.parametrize("resume", [False, True], ids=["made without", "made with"])
def test_what_is_done_already_is_left_alone(files, tmp_path, monkeypatch, resume):
    inputs, out = (files.hsi, files.msi, "sentinel2a"), tmp_path / "out" / "a.tif"
    out.parent.mkdir()
    made = fuse(*inputs, out, resume=resume, qa=out.with_name("qa.tif"), **TILES)
    before = {path: path.stat().st_mtime_ns for path in out.parent.iterdir()}
    with monkeypatch.context() as patch:
        patch.setattr("hsfuse.fusion.run.sample_scene", None)
        patch.setattr("hsfuse.fusion.run.plan_bands", None)  # what is there is told, not what would be made
        again = fuse(*inputs, out, resume=True, qa=out.with_name("qa.tif"), **TILES)
    assert (made.done, again.done) == (False, True)
    assert {path: path.stat().st_mtime_ns for path in out.parent.iterdir()} == before
    assert again.provenance["method"] == made.provenance["method"]
    assert "done already" in again.text()


@pytest.mark.parametrize("missing", [(), ("qa.tif",)])
def test_killed_at_its_very_end_it_ends_the_next_time(files, tmp_path, monkeypatch, missing):
    """The cube has its name, and what goes with it isn't there yet: it is no cube of another's."""
    inputs, out = (files.hsi, files.msi, "sentinel2a"), tmp_path / "a.tif"
    how = {**TILES, "resume": True, "stac": True, "qa": tmp_path / "qa.tif"}

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("hsfuse.fusion.run._write_item", killed)
        with pytest.raises(KeyboardInterrupt):
            fuse(*inputs, out, **how)
    before = read(out).data
    for name in missing:
        (tmp_path / name).unlink()
    assert not fuse(*inputs, out, **how).done
    np.testing.assert_array_equal(read(out).data, before)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.stac.json", "a.tif", "qa.tif"]
    shutil.copy(tmp_path / "a.tif", tmp_path / ".a.unfinished.safetensors")  # killed as it was to be removed
    assert fuse(*inputs, out, **how).done
    assert len(list(tmp_path.iterdir())) == 3


def test_what_was_made_otherwise_is_not_done(files, tmp_path):
    inputs, out, how = (files.hsi, files.msi, "sentinel2a"), tmp_path / "a.tif", {**TILES, "resume": True}

    def refused(why, **changed):
        before = out.stat().st_mtime_ns
        with pytest.raises(OutputError, match=f"a.tif exists already and isn't .*{re.escape(why)}"):
            fuse(*inputs, out, **{**how, **changed})
        assert out.stat().st_mtime_ns == before

    shutil.copy(files.hsi, out)
    refused("it doesn't say what it was made from")
    assert not fuse(*inputs, out, overwrite=True, **how).done
    refused("--mtf was not given, and is 0.2;", mtf=0.2)
    refused("qa.tif, which goes with it, isn't there", qa=tmp_path / "qa.tif")
    with touched(files.msi):
        refused(f"the input's {files.msi} has changed")
    assert fuse(*inputs, out, **how).done  # none of these has changed it
    assert not fuse(*inputs, out, overwrite=True, **{**how, "mtf": 0.2}).done


@contextmanager
def touched(path):
    """Changed at another time, for a while."""
    before = path.stat()
    os.utime(path, ns=(1, 1))
    yield
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


@pytest.mark.parametrize("damage", ["cut", "header", "state", "half a state", "method"])
def test_an_unfinished_file_that_was_damaged_is_made_anew(files, plain, tmp_path, monkeypatch, caplog, damage):
    inputs, out = (files.hsi, files.msi, "sentinel2a"), tmp_path / "a.tif"
    stopped(monkeypatch, *inputs, out, **TILES)
    data, state, method = (tmp_path / f".a.unfinished.{kind}" for kind in ("tif", "json", "safetensors"))
    if damage in ("cut", "header"):
        raw = data.read_bytes()
        data.write_bytes(raw[: len(raw) * 2 // 3] if damage == "cut" else bytes(64) + raw[64:])
    elif damage == "method":
        method.write_bytes(method.read_bytes()[:-1] + b"?")
    else:
        text = state.read_text(encoding="utf-8")
        assert '"rows": 2' in text
        state.write_text(text[: len(text) // 2] if damage == "half a state" else text.replace('"rows": 2', '"rows": 1'))
    result = fuse(*inputs, out, resume=True, **TILES)
    np.testing.assert_array_equal(read(out).data, plain)
    if damage == "method":  # it is fitted again, to the same
        assert "safetensors isn't what was kept there: it is damaged: the method is fitted again" in caplog.text
        assert "starts anew" not in " ".join(result.warnings)
    else:
        assert any(text.endswith("a.tif is damaged; it starts anew") for text in result.warnings)


@pytest.mark.parametrize("damage", ["half", "last tile", "quality"])
def test_a_finished_file_that_was_damaged_is_not_done_and_is_made_again(files, plain, tmp_path, damage):
    inputs, out, qa = (files.hsi, files.msi, "sentinel2a"), tmp_path / "a.tif", tmp_path / "qa.tif"
    how = {**TILES, "resume": True, "qa": qa}
    fuse(*inputs, out, **how)
    path = qa if damage == "quality" else out
    raw, tiles = path.read_bytes(), [(at, length) for _, at, length in placed_tiles(path)]
    at, length = tiles[-1]
    spoilt = raw[:at] + bytes(length) + raw[at + length :] if damage == "last tile" else raw[: len(raw) // 2]
    path.write_bytes(spoilt)
    result = fuse(*inputs, out, **how)
    told = (
        f"a.tif was finished and isn't whole any more ({'' if damage == 'last tile' else 'the file ends before band'}"
    )
    assert any(text.startswith(told) and text.endswith("it is made again") for text in result.warnings)
    assert not result.done
    np.testing.assert_array_equal(read(out).data, plain)
    assert fuse(*inputs, out, **how).done
    assert not any("whole any more" in text for text in fuse(*inputs, out, **how).warnings)  # the file tells of itself


@pytest.mark.parametrize("most", [1, 7])
def test_where_a_file_with_many_tiles_ends_is_found_from_some_of_them(tmp_path, monkeypatch, most):
    out, options = tmp_path / "a.tif", FuseOptions()
    tiles = {"driver": "GTiff", "tiled": True, "blockxsize": 16, "blockysize": 16, "interleave": "band"}
    with rasterio.open(
        out, "w", width=40, height=40, count=3, dtype="uint8", transform=Affine.scale(1, -1), **tiles
    ) as ds:
        ds.write(np.ones((3, 40, 40), np.uint8))
    assert [where for where, *_ in placed_tiles(out)][-1] == "band 3 at tile row 2, column 2"
    assert len(list(placed_tiles(out, most))) in (most, most + 1)
    monkeypatch.setattr("hsfuse.io.finished.MOST_PLACES", most)
    assert damage(out, options) == ""
    out.write_bytes(out.read_bytes()[:-1])
    assert damage(out, options) == "the file ends before band 3 at tile row 2, column 2"


def test_a_finished_file_that_could_not_be_gone_on_with_is_made_again_from_the_start(files, plain, tmp_path):
    inputs, out = (files.hsi, files.msi, "sentinel2a"), tmp_path / "a.dat"
    fuse(*inputs, out, **TILES)
    out.write_bytes(out.read_bytes()[:999])
    result = fuse(*inputs, out, resume=True, **TILES)
    assert any("a.dat was finished and isn't whole any more" in text for text in result.warnings)
    np.testing.assert_array_equal(read(out).data, plain)
    assert fuse(*inputs, out, resume=True, **TILES).done


@pytest.mark.parametrize("gone", ["reflectance/c/0", "wavelength/c/0", "cut"])
def test_a_zarr_without_a_chunk_is_made_again(files, plain, tmp_path, gone):
    """Which reads as fill."""
    inputs, out = (files.hsi, files.msi, "sentinel2a"), tmp_path / "a.zarr"
    fuse(*inputs, out, **TILES)
    assert fuse(*inputs, out, resume=True, **TILES).done
    if gone == "cut":
        next(path for path in out.rglob("reflectance/c/*/*/*")).write_bytes(b"")
    else:
        path = out / gone
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    (said,) = [text for text in fuse(*inputs, out, resume=True, **TILES).warnings if "whole any more" in text]
    assert re.search(r"is cut|it lacks 1 of its \d+ chunks", said)
    np.testing.assert_array_equal(read(out).data, plain)
    assert fuse(*inputs, out, resume=True, **TILES).done


def test_a_second_process_with_the_same_output_is_refused(files, tmp_path):
    out = tmp_path / "a.tif"
    with only_writer([out]), pytest.raises(OutputError, match="being written by another process"):
        fuse(files.hsi, files.msi, "sentinel2a", out, **TILES)
    assert not list(tmp_path.glob("*a.*"))


def test_where_there_are_no_locks_an_output_is_written_all_the_same(tmp_path, monkeypatch):
    monkeypatch.setattr("hsfuse.io.lock.fcntl", None)
    with only_writer([tmp_path / "a.tif"]), only_writer([tmp_path / "a.tif"]):
        assert not list(tmp_path.iterdir())


def test_without_opening_the_inputs_it_is_known_what_is_finished(files, tmp_path):
    hsi, msi, out = tmp_path / "hsi.tif", tmp_path / "msi.tif", tmp_path / "out" / "a.tif"
    out.parent.mkdir()
    for source, copy in ((files.hsi, hsi), (files.msi, msi)):
        shutil.copy(source, copy)
    note = tmp_path / "hsi.tif.aux.xml"
    note.write_text("<PAMDataset></PAMDataset>")
    options = FuseOptions(srf="sentinel2a", **TILES)
    run_fusion(hsi, msi, out, options)

    def finished(options=options):
        return answers(provenance_in(out, options), hsi, [msi], out, options)

    assert finished()
    assert not finished(replace(options, mtf=0.2))
    with touched(msi):
        assert not finished()
    aside = note.rename(tmp_path / "aside")  # a header beside the HSI
    assert not finished()
    aside.rename(note)
    assert finished()
    for name in ("msi.tif.msk", "hsi.hdr"):  # beside the MSI, and a header
        (tmp_path / name).touch()
        assert list(changes(provenance_in(out, options), hsi, [msi], out, options)) == [str(tmp_path / name)]
        (tmp_path / name).unlink()
    assert finished()
    shutil.copy(hsi, out)
    assert not finished()


def test_it_is_told_that_a_file_that_an_option_names_has_changed(files, tmp_path):
    """By its bytes alone: before anything is opened (`changes`), and by the plan."""
    psf, out = write_psf(tmp_path / "psf.csv", 2.0), tmp_path / "a.tif"
    options = FuseOptions(srf="sentinel2a", **{**TILES, "psf": psf, "resume": True})
    run_fusion(files.hsi, files.msi, out, options)
    assert run_fusion(files.hsi, files.msi, out, options).done
    write_psf(tmp_path / "psf.csv", 3.0)
    assert list(changes(provenance_in(out, options), files.hsi, [files.msi], out, options)) == ["psf"]
    with pytest.raises(OutputError, match="the file of --psf has changed"):
        run_fusion(files.hsi, files.msi, out, options)


@pytest.mark.parametrize("lost", [False, True])
def test_the_network_is_the_one_that_made_the_first_tiles(files, whole, tmp_path, monkeypatch, one_stage, lost):
    """However long it would be trained this time; where it isn't there any more, all tiles are made anew."""
    inputs, out = (files.hsi, files.msi, "sentinel2a"), tmp_path / "part" / "a.tif"
    out.parent.mkdir()
    how = {**NETWORK, "model": "none", "dtype": "float32"}
    stopped(monkeypatch, *inputs, out, **how)
    kept = out.with_name(".a.unfinished.safetensors")
    assert kept.exists()
    train = Adaptation.run
    trained = []

    def shorter(self, net):
        trained.append(1)
        self.steps = 1
        return train(self, net)

    monkeypatch.setattr(Adaptation, "run", shorter)
    if lost:
        kept.unlink()
    result = fuse(*inputs, out, resume=True, **how)
    assert (len(trained) == 1) == lost == any("starts anew" in text for text in result.warnings)
    assert [p.name for p in out.parent.iterdir()] == ["a.tif"]
    wanted = fuse(*inputs, tmp_path / "short.tif", **how) if lost else whole
    np.testing.assert_allclose(read(out).data, read(wanted.output).data, rtol=0, atol=1e-5)
    assert result.provenance["method"] == wanted.provenance["method"]
    assert result.provenance["adaptation"]["held_out"] == wanted.provenance["adaptation"]["held_out"]

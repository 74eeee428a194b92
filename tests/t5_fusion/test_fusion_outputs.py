"""What fuse writes besides pixels: choice of bands, storage, quality layers, STAC items, and going on after a stop."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest
import rasterio
from fusing import interrupted, read, run
from scenes import WAVELENGTHS_NM, save, save_pair

from hsfuse.core.cube import Spectrum
from hsfuse.core.errors import SettingError
from hsfuse.core.options import FuseOptions
from hsfuse.fusion.quality import DISTORTION, EXPECTED
from hsfuse.fusion.storage import parse_bands, storage_scale
from hsfuse.fusion.tiles import TileWorker
from hsfuse.io import open_cube
from hsfuse.nets.watch import RELEARNED

BANDS = len(WAVELENGTHS_NM)
NM = (400.0, 450.0, 500.0, 550.0)


@pytest.mark.parametrize(("text", "wanted"), [
    ("1", {0}), ("2-4", {1, 2, 3}), ("1,3", {0, 2}), ("440-510nm", {1, 2}), ("1, 540 - 560 nm", {0, 3}),
    ("3-99", {2, 3}),
])  # fmt: skip
def test_band_lists(text, wanted):
    assert parse_bands(text, NM, 4) == wanted


@pytest.mark.parametrize("text", ["", "x", "0", "9-12", "450nm", "900-950nm", "1;2", "3-1"])
def test_band_lists_that_make_no_sense(text):
    with pytest.raises(SettingError, match="bands"):
        parse_bands(text, NM, 4)


def test_only_the_asked_bands_are_written(files, tmp_path):
    whole, some = run(files, tmp_path / "a.tif"), run(files, tmp_path / "b.tif", bands="1-2,600-700nm")
    chosen = sorted({0, 1, *np.flatnonzero((WAVELENGTHS_NM >= 600) & (WAVELENGTHS_NM <= 700))})
    assert some.shape[0] == len(chosen)
    np.testing.assert_array_equal(read(some.output).data, read(whole.output).data[chosen])  # chosen when stored
    np.testing.assert_allclose(read(some.output).wavelengths_nm, np.asarray(WAVELENGTHS_NM)[chosen], atol=1e-3)


def test_bad_bands_are_left_out_or_written_as_nodata(files, tmp_path):
    pair = save_pair(tmp_path, files.scene)
    good = tuple(i not in (3, 4) for i in range(BANDS))
    lrhsi = files.scene.lrhsi[0].numpy()
    save(pair.hsi, lrhsi, pair.hsi_grid(), Spectrum(tuple(WAVELENGTHS_NM), good=good))
    dropped, kept = run(pair, tmp_path / "a.tif"), run(pair, tmp_path / "b.tif", bad_bands="nodata")
    assert (dropped.shape[0], kept.shape[0]) == (BANDS - 2, BANDS)
    with open_cube(kept.output) as reader:
        assert reader.spectrum.good == good
        cube = reader.read()
    np.testing.assert_array_equal(cube.data[list(np.flatnonzero(good))], read(dropped.output).data)
    with rasterio.open(kept.output) as ds:
        assert not ds.read_masks(4).any()
        assert ds.read_masks(1).all()


def test_bands_of_different_scales_get_one_that_holds_them_all():
    hsi = SimpleNamespace(dtype="uint16", scales=np.array([1e-5, 2e-5]), offsets=np.array([0.0, -0.1]), scale=1e-5)
    hsi.offset = 0.0
    scale, offset = storage_scale(SimpleNamespace(hsi=hsi), FuseOptions())
    assert offset == pytest.approx(-0.1)
    assert 65535 * scale + offset == pytest.approx(65535 * 2e-5 - 0.1)


def test_scale_options_and_overviews(files, tmp_path):
    result = run(
        files, tmp_path / "a.tif", dtype="uint16", scale=2e-5, creation_options={"COMPRESS": "ZSTD"}, overviews=True
    )
    with rasterio.open(result.output) as ds:
        assert ds.compression.name == "zstd"
        assert ds.scales[0] == pytest.approx(2e-5)


@pytest.mark.parametrize(("name", "driver"), [("a.zarr", "auto"), ("a.tif", "COG")])
def test_other_formats_hold_the_same(files, tmp_path, name, driver):
    plain, other = run(files, tmp_path / "b.tif"), run(files, tmp_path / name, format=driver)
    np.testing.assert_array_equal(read(other.output).data, read(plain.output).data)
    with open_cube(other.output) as reader:
        assert json.loads(reader.tags["HSFUSE_PROVENANCE"])["method"]["method"] == "glp-reg"
        assert reader.quantity == "unknown"  # the HSI doesn't say, and figures only make a guess


def test_what_the_hsi_says_of_its_numbers_stays(files, tmp_path):
    how = {"dtype": "int16", "scale": 1e-4, "tags": {"QUANTITY": "reflectance"}}
    pair = save_pair(tmp_path, files.scene)
    save(pair.hsi, files.scene.lrhsi[0].numpy(), pair.hsi_grid(), Spectrum(tuple(WAVELENGTHS_NM)), **how)
    with open_cube(run(pair, tmp_path / "a.tif").output) as reader:
        assert reader.quantity == "reflectance"


def test_numbers_times_ten_thousand_without_a_word_come_out_in_units_of_reflectance(files, tmp_path):
    scene = files.scene
    plain = run(files, tmp_path / "plain.tif")
    pair = save_pair(tmp_path, scene, msi=scene.msi[0].numpy() * 1e4)
    save(pair.hsi, scene.lrhsi[0].numpy() * 1e4, pair.hsi_grid(), Spectrum(tuple(WAVELENGTHS_NM)))
    result = run(pair, tmp_path / "a.tif")
    assert any("both images are multiplied by 0.0001" in note for note in result.notes)
    np.testing.assert_allclose(read(result.output).data, read(plain.output).data, atol=2e-4)  # of int16
    with open_cube(result.output) as reader:
        assert (reader.quantity, reader.scale) == ("unknown", 1e-4)


def test_quality_layers_lie_on_the_same_grid(files, tmp_path):
    result = run(files, tmp_path / "a.tif", qa=tmp_path / "qa.tif", tile=32)
    with open_cube(tmp_path / "qa.tif") as reader:
        cube = reader.read()
        assert reader.spectrum.names == (*DISTORTION, *RELEARNED, EXPECTED)
    assert cube.grid == read(result.output).grid
    assert cube.mask.all()
    assert (cube.data[4] > 0).all()
    assert not cube.data[2:4].any()  # no network, nothing learned again


def test_quality_layers_of_the_network_say_what_was_learned_again(files, tmp_path, one_stage):
    how = {"method": "srlf", "base": "bicubic", "adapt_steps": 2, "adapt_minutes": 60.0, "ensemble": 2}
    result = run(files, tmp_path / "a.tif", qa=tmp_path / "qa.tif", **how)
    layers = read(tmp_path / "qa.tif").data
    used = "which is the result" not in result.provenance["method"]["adaptation"]
    assert layers[2].any() == used
    assert 0 <= np.median(layers[0]) < 0.9  # of the fused cube, not of features inside the network
    assert layers[1].max() < 15
    assert ((layers[2:4] >= 0) & (layers[2:4] <= 1)).all()


def test_a_stac_item_lies_beside(files, tmp_path):
    run(files, tmp_path / "a.tif", stac=True, qa=tmp_path / "qa.tif")
    item = json.loads((tmp_path / "a.stac.json").read_text())
    assert set(item["assets"]) == {"data", "quality"}
    assert [link["title"] for link in item["links"]] == ["HSI", "MSI"]
    assert item["properties"]["hsfuse:method"] == "glp-reg"
    assert len(item["assets"]["data"]["bands"]) == BANDS


@pytest.mark.parametrize("after", [5, pytest.param(9, marks=pytest.mark.slow), 11])
def test_it_goes_on_where_it_stopped(files, tmp_path, monkeypatch, caplog, after):
    """72 x 60 pixels in tiles of 16: five rows of four."""
    how = {"tile": 16, "overlap": 4, "resume": True}
    whole = run(files, tmp_path / "whole.tif", qa=tmp_path / "whole_qa.tif", tile=16, overlap=4)
    path, qa = tmp_path / "part" / "a.tif", tmp_path / "part" / "qa.tif"
    path.parent.mkdir()
    with monkeypatch.context() as patch:
        interrupted(patch, after)
        with pytest.raises(KeyboardInterrupt):
            run(files, path, qa=qa, **how)
    assert not path.exists()
    assert f"{after // 4} of 5 rows of tiles are kept: --resume goes on with them" in caplog.text
    tiles = []
    fuse_tile = TileWorker.fuse
    monkeypatch.setattr(TileWorker, "fuse", lambda *a: tiles.append(1) or fuse_tile(*a))
    result = run(files, path, qa=qa, **how)
    done_rows = after // 4
    assert len(tiles) == 20 - 4 * (done_rows - 1)  # the row before is fused again for the overlap
    np.testing.assert_array_equal(read(path).data, read(whole.output).data)
    np.testing.assert_array_equal(read(qa).data, read(tmp_path / "whole_qa.tif").data)
    assert result.valid_share == whole.valid_share
    assert sorted(p.name for p in path.parent.iterdir()) == ["a.tif", "qa.tif"]


@pytest.mark.parametrize("other", [{"mtf": 0.2}, {"method": "bicubic"}], ids=["PSF", "method"])
def test_with_other_settings_it_starts_again(files, tmp_path, monkeypatch, other):
    how = {"tile": 16, "overlap": 4, "resume": True}
    with monkeypatch.context() as patch:
        interrupted(patch, 9)
        with pytest.raises(KeyboardInterrupt):
            run(files, tmp_path / "a.tif", **how)
    run(files, tmp_path / "a.tif", **how, **other)
    run(files, tmp_path / "b.tif", tile=16, overlap=4, **other)
    np.testing.assert_array_equal(read(tmp_path / "a.tif").data, read(tmp_path / "b.tif").data)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.tif", "b.tif"]


def test_only_geotiff_goes_on(files, tmp_path):
    with pytest.raises(SettingError, match="only GeoTIFF can go on"):
        run(files, tmp_path / "a.dat", resume=True)
    assert not list(tmp_path.iterdir())
